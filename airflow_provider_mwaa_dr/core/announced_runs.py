"""
The runs that a failover announces in the state item: it stops them, or they had ended by themselves.

The table stores them as a recorded set, with ``DAG_ID RUN_ID`` in place of each DAG id. Only this module reads and
writes such sets.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from airflow_provider_mwaa_dr.core.ports import DAG_SETS, DagSet, StateStore


def put_announced_runs(store: StateStore, set_id: str, runs: Collection[str], *, region: str, at: datetime) -> None:
    """
    Record *runs* once, before the announcement in the state item names their set.

    :param set_id: from :func:`~airflow_provider_mwaa_dr.core.state.announced_set_id`.
    :param runs: ``DAG_ID RUN_ID`` each.
    :param region: the source of the failover.
    """
    store.put(DAG_SETS, DagSet(id=set_id, region=region, recorded_at=at, dag_ids=tuple(runs)))


def get_announced_runs(store: StateStore, set_id: str) -> tuple[str, ...] | None:
    """
    Return the runs of a set, ``DAG_ID RUN_ID`` each, sorted; None if the set does not exist.

    :raises UnreadableItemError: the set cannot be read.
    """
    recorded = store.get(DAG_SETS, set_id)
    return None if recorded is None else recorded.dag_ids
