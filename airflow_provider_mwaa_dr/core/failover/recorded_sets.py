"""The sets of DAGs that a failover records: those to unpause in the target, and those that it could not unpause."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover.context import EngineContext
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan
from airflow_provider_mwaa_dr.core.failover.table import plan_of
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    RECORDS,
    SNAPSHOTS,
    DagInfo,
    DagSet,
    Environment,
    FailoverOutcome,
    StateStore,
)
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import UnreadableItemError


def record(own: OwnedPlan, state: DRState, source: Environment) -> Sequence[DagInfo]:
    """The step *record*: store which DAGs of *source* are unpaused now. Return its exempt DAGs."""
    plan = plan_of(state)
    own.progress.begin("record")
    # The REST API needs a second for each list of thousands of DAGs, so the next steps use the same list.
    exempt = own.exempt_as_agents(source)
    unpaused = _of_agent(own, plan, exempt) if exempt is not None else None
    if exempt is None or unpaused is None:
        dags = own.dags(source)
        unpaused, exempt_ids = own.context.unpaused(dags), own.context.exempt(dags)
        exempt, by = [dag for dag in dags if dag.dag_id in exempt_ids], f", {len(exempt_ids)} exempt"
    else:
        by = f", from the agent of {source.region}"
    # No user paused the DAGs that the last failover could not unpause, so they belong to the set.
    left, missing = readable_dags_not_unpaused(own.context, state)
    wanted = sorted({*unpaused, *left})
    _record_as(own, plan, wanted)
    own.progress.done(f"{len(wanted)} unpaused DAGs recorded{by}{missing}")
    return exempt


def _of_agent(own: OwnedPlan, plan: Plan, exempt: Sequence[DagInfo]) -> Collection[str] | None:
    """
    Return the unpaused DAGs that are not exempt, as the agent of the source lists them for this plan.

    None if no agent of a version that does so lists them in time. The REST API takes half a minute to list ten thousand
    DAGs. The agent reads them in its database after it has read the claim, and before the first pause.
    """
    deadline = own.clock.monotonic() + own.timing.list_s
    while True:
        snapshot, _ = own.table.set_if_readable(lambda: own.table.store.get(SNAPSHOTS, plan.source))
        if snapshot is not None and snapshot.id == plan.id:
            break
        if own.clock.monotonic() >= deadline:
            return None
        own.progress.report(f"waiting until the agent of {plan.source} lists its DAGs")
        own.wait(own.timing.table_poll_s)
    return set(snapshot.dag_ids) - {dag.dag_id for dag in exempt}


def recorded(own: OwnedPlan) -> Collection[str]:
    """Return the recorded set of the plan; empty if it cannot be read."""
    set_id = plan_of(own.state()).set_id
    if set_id is None:
        return ()
    found, _ = own.table.set_if_readable(lambda: own.table.store.get(DAG_SETS, set_id))
    return found.dag_ids if found is not None else ()


def record_from_snapshot(own: OwnedPlan, state: DRState) -> None:
    """The step *record* of a forced plan: use the set of a lost plan, or the source's last snapshot."""
    plan = plan_of(state)
    own.progress.begin("record")
    lost = set_of_lost_plan(own.context) if plan.is_recovery else None
    if lost is not None:
        _record_as(own, plan, lost.dag_ids)
        own.progress.done(f"{len(lost.dag_ids)} unpaused DAGs recorded, from the set {lost.id} of a lost plan")
        return
    snapshot, why_not = own.table.set_if_readable(lambda: own.table.store.get(SNAPSHOTS, plan.source))
    if snapshot is None and plan.is_recovery:
        snapshot = newest_snapshot(own.context, own.context.regions())
    if snapshot is None:
        _record_as(own, plan, [])
        own.progress.done(
            f"{why_not or f'there is no snapshot of {plan.source}'}: the failover unpauses no DAG; "
            f"unpause the DAGs that you want to run in {plan.target}"
        )
        return
    left, missing = readable_dags_not_unpaused(own.context, state)
    wanted = sorted({*snapshot.dag_ids, *left})
    _record_as(own, plan, wanted)
    own.progress.done(
        f"{len(wanted)} unpaused DAGs recorded, from the snapshot of {snapshot.recorded_at:%Y-%m-%dT%H:%M:%SZ}{missing}"
    )


def _record_as(own: OwnedPlan, plan: Plan, wanted: Sequence[str]) -> None:
    """Store the set, then name it in the plan. It is complete before the first pause, and never overwritten."""
    dag_set = DagSet(id=plan.id, region=plan.source, recorded_at=own.clock.now(), dag_ids=tuple(wanted))
    own.table.retry(lambda: own.table.store.put(DAG_SETS, dag_set))
    own.write(Phase.DRAINING, lambda row: transitions.record_set(row, dag_set.id, at=own.clock.now()))


def set_of_lost_plan(context: EngineContext) -> DagSet | None:
    """Return the newest recorded set of DAGs, unless a failover has completed since it was recorded."""
    newest, _ = context.table.set_if_readable(context.table.store.newest_wanted_set)
    records = context.progress.history(partial(context.table.store.find_all, RECORDS)) or ()
    completed = [record for record in records if record.outcome is FailoverOutcome.COMPLETED]
    ended_at = max((record.finished_at or record.started_at for record in completed), default=None)
    return None if newest is None or (ended_at is not None and newest.recorded_at <= ended_at) else newest


def newest_snapshot(context: EngineContext, regions: Collection[str]) -> DagSet | None:
    """Return the newest snapshot of *regions*; None if none can be read."""
    table = context.table
    read = [table.set_if_readable(partial(table.store.get, SNAPSHOTS, region))[0] for region in sorted(regions)]
    taken = [snapshot for snapshot in read if snapshot is not None]
    return max(taken, key=lambda snapshot: snapshot.recorded_at, default=None)


def readable_dags_not_unpaused(context: EngineContext, state: DRState) -> tuple[Collection[str], str]:
    """Return the DAGs that the last failover could not unpause; and a text if they are unknown."""
    left = context.progress.history(lambda: dags_not_unpaused(context.table.store, state))
    if left is not None:
        return left, ""
    return (), (
        f"; without the DAGs that the last failover to {state.active_region} could not unpause, because its record "
        f"could not be read ({context.progress.unrecorded})"
    )


def put_dags_not_unpaused(store: StateStore, plan: Plan, dag_ids: Collection[str], *, at: datetime) -> str:
    """Record the DAGs that *plan* could not unpause; return the id of their set, for :func:`.state.complete`."""
    if not dag_ids:
        return ""
    ids = tuple(sorted(dag_ids))
    set_id = transitions.not_unpaused_set_id(plan.id, ids)
    store.put(DAG_SETS, DagSet(id=set_id, region=plan.target, recorded_at=at, dag_ids=ids))
    return set_id


def snapshot_of_target(plan: Plan, dag_ids: Collection[str], *, at: datetime) -> DagSet:
    """
    Return the snapshot of the target at the end of *plan*, whose recorded set is *dag_ids*.

    If the region is lost before its agent takes a snapshot, a forced failover must not use an older one.
    """
    return DagSet(id=plan.target, region=plan.target, recorded_at=at, dag_ids=tuple(sorted(dag_ids)))


def dags_not_unpaused(store: StateStore, state: DRState) -> tuple[str, ...]:
    """Return the DAGs that the last failover, or the last cancellation, could not unpause in the active region."""
    if state.not_unpaused_set_id == "":
        return ()
    found = None
    with suppress(UnreadableItemError):  # the record has the same list
        found = store.get(DAG_SETS, state.not_unpaused_set_id) if state.not_unpaused_set_id is not None else None
    if found is not None and found.region == state.active_region:
        return found.dag_ids
    for record in store.find_all(RECORDS):
        if record.target == state.active_region and record.outcome is FailoverOutcome.COMPLETED:
            return record.not_unpaused
    return ()
