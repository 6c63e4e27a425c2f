"""
The list of the runs that a region ended as a standby, and that no region continues.

The region's agent stores it before it deletes the first of them, and the engine copies it into the record of the
failover. The table stores it in parts: recorded sets, with ``DAG_ID RUN_ID`` in place of each DAG id. A set is never
overwritten, so each call adds a part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime

from airflow_provider_mwaa_dr.core.ports import DAG_SETS, DagSet, StateStore
from airflow_provider_mwaa_dr.exceptions import UnreadableItemError


def add_runs(store: StateStore, runs: Collection[str], *, region: str, epoch: int, at: datetime) -> None:
    """
    Add *runs* to the list of the region's role. Idempotent: an agent that dies in between repeats it.

    If another agent of the region stores the same part first, the runs go into the next part.
    """
    missing, number = set(runs), 0
    while missing:
        dag_set = DagSet(id=_id(region, epoch, number), region=region, recorded_at=at, dag_ids=tuple(missing))
        stored = _part(store, dag_set.id)
        if stored is None:
            store.put(DAG_SETS, dag_set)
            stored = _part(store, dag_set.id) or dag_set.dag_ids
        missing, number = missing - set(stored), number + 1


def get_runs(store: StateStore, *, region: str, epoch: int) -> tuple[str, ...]:
    """Return the runs, sorted; empty if there are none. A part that cannot be read counts as empty."""
    return tuple(sorted({run for part in _parts(store, region, epoch) for run in part}))


def _parts(store: StateStore, region: str, epoch: int) -> Iterator[tuple[str, ...]]:
    number = 0
    while (part := _part(store, _id(region, epoch, number))) is not None:
        yield part
        number += 1


def _part(store: StateStore, set_id: str) -> tuple[str, ...] | None:
    try:
        found = store.get(DAG_SETS, set_id)
    except UnreadableItemError:
        return ()
    return None if found is None else found.dag_ids


def _id(region: str, epoch: int, number: int) -> str:
    # Every version of the provider knows that a set with such an id lists runs, and no DAGs to unpause.
    return f"{region}-ended-{epoch}-{number:08x}"
