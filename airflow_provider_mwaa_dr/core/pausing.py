"""
Pausing a whole region by hand, and giving back exactly what was taken.

The set has an item of its own in the state table: a failover's set and the agent's snapshot of the region are other
items, so neither can overwrite the other. The set is recorded before the first DAG is paused, and is emptied when the
last one is back, so a command that was interrupted can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from airflow_provider_mwaa_dr.core.config import is_exempt
from airflow_provider_mwaa_dr.core.ports import DagInfo, DagSet, Environment, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.exceptions import IncompleteError, RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pausing:
    """
    What pausing, or unpausing, a region comes to.

    :param dag_ids: the recorded set: what was paused, or was given back. Sorted.
    :param changed: ids whose flag changed, or would change.
    :param absent: ids of the set that the environment does not have at present.
    :param listing: all DAGs of the environment, as they were.
    """

    dag_ids: tuple[str, ...]
    changed: tuple[str, ...]
    absent: tuple[str, ...] = ()
    listing: Sequence[DagInfo] = field(default=(), repr=False)


def recorded_set(store: StateStore, region: str) -> tuple[str, ...]:
    """Return the ids that pausing *region* took and nothing has given back yet."""
    stored = store.get_paused(region)
    return stored.dag_ids if stored is not None else ()


def preview_pause(store: StateStore, environment: Environment, *, exempt_dags: Collection[str] = ()) -> Pausing:
    """Return what :func:`pause` would do. :raises RefusedError: a failover is in progress."""
    _refuse_open_plan(store.read())
    listing = environment.dags()
    running = sorted(
        dag.dag_id for dag in listing if not dag.is_paused and not is_exempt(dag.dag_id, dag.tags, exempt_dags)
    )
    # A set that nobody gave back yet stays in it: somebody else's half-done pause must not lose DAGs.
    return Pausing(
        dag_ids=tuple(sorted({*recorded_set(store, environment.region), *running})),
        changed=tuple(running),
        listing=listing,
    )


def pause(
    store: StateStore,
    environment: Environment,
    *,
    at: datetime,
    exempt_dags: Collection[str] = (),
    preview: Pausing | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Pausing:
    """
    Pause every DAG of a region but the exempt ones, having recorded which ran. Repeatable.

    :param preview: what :func:`preview_pause` has just returned; None: the region is looked at anew.
    :raises RefusedError: a failover is in progress; its own set is what counts then.
    :raises IncompleteError: some DAGs would not be paused; the set is recorded, call it again.
    """
    pausing = preview or preview_pause(store, environment, exempt_dags=exempt_dags)
    if pausing.changed:
        _record(store, environment.region, pausing.dag_ids, at)
        environment.set_paused(pausing.changed, paused=True, listing=pausing.listing, on_progress=on_progress)
    return pausing


def preview_unpause(store: StateStore, environment: Environment) -> Pausing:
    """Return what :func:`unpause` would do. :raises RefusedError: a failover is in progress."""
    _refuse_open_plan(store.read())
    dag_ids = recorded_set(store, environment.region)
    listing = environment.dags() if dag_ids else ()
    dags = {dag.dag_id: dag for dag in listing}
    return Pausing(
        dag_ids=dag_ids,
        changed=tuple(dag_id for dag_id in dag_ids if dag_id in dags and dags[dag_id].is_paused),
        absent=tuple(dag_id for dag_id in dag_ids if dag_id not in dags),
        listing=listing,
    )


def unpause(
    store: StateStore,
    environment: Environment,
    *,
    at: datetime,
    preview: Pausing | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Pausing:
    """
    Unpause exactly the DAGs that :func:`pause` recorded, and forget the set. Repeatable.

    What the environment does not have at present stays recorded: its file may be broken today and back tomorrow.

    :param preview: what :func:`preview_unpause` has just returned; None: the region is looked at anew.
    :raises RefusedError: a failover is in progress.
    :raises IncompleteError: some DAGs would not be unpaused; they stay recorded, call it again.
    """
    pausing = preview or preview_unpause(store, environment)
    if not pausing.dag_ids:
        return pausing
    try:
        environment.set_paused(pausing.changed, paused=False, listing=pausing.listing, on_progress=on_progress)
    except IncompleteError as error:
        _record(store, environment.region, {*error.left, *pausing.absent}, at)
        raise
    _record(store, environment.region, pausing.absent, at)
    return pausing


def _record(store: StateStore, region: str, dag_ids: Collection[str], at: datetime) -> None:
    store.put_paused(DagSet(id=f"{region}/paused", region=region, recorded_at=at, dag_ids=tuple(sorted(dag_ids))))


def _refuse_open_plan(state: DRState) -> None:
    if state.phase is not Phase.STEADY and state.plan is not None:
        raise RefusedError(
            f"Plan {state.plan.id} is open ({state.phase.value}, {state.plan.source} -> {state.plan.target}). "
            "Nothing was changed.",
            advice=f"Finish it first: mwaa-dr failover {state.plan.target} --reason TEXT.",
        )
