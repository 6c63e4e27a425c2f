"""
Pause all DAGs of a region by hand, and later unpause exactly these.

The set of paused DAGs is an item of its own in the state table, so it cannot overwrite a failover's set or the agent's
snapshot. The command records the set before it pauses the first DAG, and empties it after it has unpaused the last. So
an interrupted command can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from airflow_provider_mwaa_dr.core.config import is_exempt
from airflow_provider_mwaa_dr.core.ports import PAUSED_SETS, DagInfo, DagSet, Environment, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.exceptions import IncompleteError, RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pausing:
    """
    The result of pausing or unpausing a region, or of its preview.

    :param dag_ids: the recorded set, sorted.
    :param changed: ids whose flag changed, or would change.
    :param absent: ids of the set that the environment does not have at present.
    :param listing: all DAGs of the environment before the change.
    """

    dag_ids: tuple[str, ...]
    changed: tuple[str, ...]
    absent: tuple[str, ...] = ()
    listing: Sequence[DagInfo] = field(default=(), repr=False)


def recorded_set(store: StateStore, region: str) -> tuple[str, ...]:
    """Return the ids that :func:`pause` recorded for *region* and :func:`unpause` has not unpaused yet."""
    stored = store.get(PAUSED_SETS, region)
    return stored.dag_ids if stored is not None else ()


def preview_pause(store: StateStore, environment: Environment, *, exempt_dags: Collection[str] = ()) -> Pausing:
    """Return what :func:`pause` would do. :raises RefusedError: a failover is in progress."""
    _refuse_open_plan(store.read())
    listing = environment.dags()
    running = sorted(
        dag.dag_id for dag in listing if not dag.is_paused and not is_exempt(dag.dag_id, dag.tags, exempt_dags)
    )
    # DAGs that are recorded but not unpaused yet stay in the set, so that an incomplete earlier pause loses none.
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
    Record the unpaused DAGs of a region, and pause them, except exempt DAGs. Idempotent.

    :param preview: the latest result of :func:`preview_pause`; None: call it now.
    :raises RefusedError: a failover is in progress; its own set applies then.
    :raises IncompleteError: some DAGs could not be paused; the set is recorded. Call it again.
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
    Unpause exactly the DAGs that :func:`pause` recorded, and empty the set. Idempotent.

    DAGs that the environment does not have at present stay in the set: their file may be broken only temporarily.

    :param preview: the latest result of :func:`preview_unpause`; None: call it now.
    :raises RefusedError: a failover is in progress.
    :raises IncompleteError: some DAGs could not be unpaused; they stay in the set. Call it again.
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
    store.put(PAUSED_SETS, DagSet(id=f"{region}/paused", region=region, recorded_at=at, dag_ids=tuple(sorted(dag_ids))))


def _refuse_open_plan(state: DRState) -> None:
    if state.phase is not Phase.STEADY and state.plan is not None:
        raise RefusedError(
            f"Plan {state.plan.id} is open ({state.phase.value}, {state.plan.source} -> {state.plan.target}). "
            "Nothing was changed.",
            advice=f"Finish it first: mwaa-dr failover {state.plan.target} --reason TEXT.",
        )
