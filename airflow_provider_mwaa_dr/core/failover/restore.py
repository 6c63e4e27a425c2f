"""RESUMING: unpause the recorded set in the target, verify it, and complete the plan."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.ended_in_standby import get_runs
from airflow_provider_mwaa_dr.core.failover import recorded_sets
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan, TakenOverError
from airflow_provider_mwaa_dr.core.failover.records import brief, completed
from airflow_provider_mwaa_dr.core.failover.table import plan_of
from airflow_provider_mwaa_dr.core.ports import DAG_SETS, RECORDS, SNAPSHOTS, DagInfo, FailoverRecord
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import IncompleteError, PlanSupersededError


class RegionDags(Protocol):
    """The paused flags of one region's DAGs, without exempt DAGs."""

    def unpaused_dags(self) -> Collection[str]:
        """Return the ids of the deployed DAGs that are not paused."""

    def set_paused(self, dag_ids: Collection[str], *, paused: bool) -> object:
        """Pause or unpause those of *dag_ids* that are deployed. Idempotent. A DAG that cannot be changed stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """
    The result of restoring a recorded set.

    :param not_unpaused: the DAGs of the set that are missing or could not be unpaused, sorted.
    :param not_paused: the DAGs that are not in the set and could not be paused, sorted.
    :param detail: a text about the changes.
    """

    not_unpaused: tuple[str, ...]
    not_paused: tuple[str, ...]
    detail: str


def restore_set(dags: RegionDags, plan: Plan, wanted: frozenset[str]) -> Restored:
    """Make *wanted* exactly the unpaused DAGs of the plan's target, except for DAGs that cannot be changed."""
    unpaused = frozenset(dags.unpaused_dags())
    # Cancelling keeps the DAGs that users unpaused in the region since the claim.
    unexpected = frozenset() if plan.is_cancellation else unpaused - wanted
    for dag_ids, is_pause in ((unexpected, True), (wanted - unpaused, False)):
        if dag_ids:
            dags.set_paused(sorted(dag_ids), paused=is_pause)
    unpaused = frozenset(dags.unpaused_dags())
    not_unpaused = sorted(wanted - unpaused)
    paused_again, not_paused = sorted(unexpected - unpaused), sorted(unexpected & unpaused)
    return Restored(
        not_unpaused=tuple(not_unpaused),
        not_paused=tuple(not_paused),
        detail=f"{len(wanted) - len(not_unpaused)} of {len(wanted)} recorded DAGs are unpaused in {plan.target}"
        + (f"; missing or not unpaused: {', '.join(not_unpaused[:20])}" if not_unpaused else "")
        + (f"; paused, because not recorded: {', '.join(paused_again[:20])}" if paused_again else "")
        + (f"; not recorded, but could not be paused: {', '.join(not_paused)}" if not_paused else ""),
    )


class _TargetDags:
    """
    The DAGs of the target during one restore, through its REST API. Listed once; later reads return what has changed.

    An exempt DAG counts only if it is in the recorded set.

    :ivar running: the ids of all unpaused DAGs, exempt or not.
    """

    def __init__(self, own: OwnedPlan, plan: Plan, wanted: frozenset[str]) -> None:
        self._own = own
        self._target = own.context.environment(plan.target)
        dags = own.dags(self._target)
        self._listing: Sequence[DagInfo] | None = dags
        self._counted = wanted.union(own.context.unpaused(dags))
        self._deployed = frozenset(dag.dag_id for dag in dags)
        self.running = frozenset(dag.dag_id for dag in dags if not dag.is_paused)

    def unpaused_dags(self) -> frozenset[str]:
        return self.running & self._counted

    def set_paused(self, dag_ids: Collection[str], *, paused: bool) -> None:
        changed = self._deployed.intersection(dag_ids)
        changed = changed & self.running if paused else changed - self.running
        if not changed:
            return
        try:
            self._own.set_paused(self._target, changed, paused=paused, listing=self._listing)
        except IncompleteError as error:
            changed -= frozenset(error.left)
        self.running = self.running - changed if paused else self.running | changed
        self._listing = None  # the flags have changed


def restore_in_target(own: OwnedPlan, plan: Plan, wanted: frozenset[str]) -> tuple[Restored, frozenset[str]]:
    """Restore *wanted* in the target; return also all unpaused DAGs of the target."""
    dags = _TargetDags(own, plan, wanted)
    return restore_set(dags, plan, wanted), dags.running


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaused:
    """
    A recorded set that is unpaused in the target.

    :param is_by_agent: whether the target's agent has unpaused all of it. It does so again until the plan ends.
    """

    wanted: frozenset[str]
    is_by_agent: bool


def unpause(own: OwnedPlan, state: DRState) -> Unpaused | None:
    """Unpause exactly the recorded set in the target; return the set, or None if there is none."""
    own.progress.begin("unpause")
    plan = plan_of(state)
    if plan.set_id is None:
        own.progress.done("no set of DAGs was recorded: the failover had paused none")
        return None
    set_id = plan.set_id
    dag_set, why_not = own.table.set_if_readable(lambda: own.table.store.get(DAG_SETS, set_id))
    if dag_set is None:
        why = why_not or f"the recorded set {set_id} is missing in the table"
        own.progress.done(f"{why}: unpause the DAGs that you want to run in {plan.target}")
        return None
    wanted = frozenset(dag_set.dag_ids)
    if _is_restored_by_agent(own, state):
        own.progress.done(f"{len(wanted)} recorded DAGs are unpaused in {plan.target}, by its agent")
        return Unpaused(wanted=wanted, is_by_agent=True)
    restored, _ = restore_in_target(own, plan, wanted)
    own.progress.done(restored.detail)
    return Unpaused(wanted=wanted, is_by_agent=False)


def _is_restored_by_agent(own: OwnedPlan, state: DRState) -> bool:
    """
    Wait until the target's agent has restored the recorded set; return False if this engine has to do it.

    An engine that continues while the agent may still be at work could end the plan, and the agent would then change
    flags that belong to users. So the engine waits as long as for an owner that is silent.
    """
    plan = plan_of(state)
    if own.exempt_as_agents(own.context.environment(plan.target)) is None:
        return False
    deadline = own.clock.monotonic() + own.timing.takeover_s
    while own.clock.monotonic() < deadline:
        for agent in own.table.agents(plan.target):
            if not agent.gone and agent.restored_version is not None and agent.restored_version >= state.version:
                return agent.not_restored == 0
        own.progress.report(f"waiting until the agent of {plan.target} has unpaused the recorded DAGs")
        own.wait(own.timing.table_poll_s)
    return False


def verify(own: OwnedPlan, plan: Plan, unpaused: Unpaused | None) -> tuple[str, ...] | None:
    """
    List the DAGs again, and wait for a first run to succeed. Problems are reported; they do not stop the failover.

    :return: the recorded DAGs that are not unpaused; None if no set was recorded, so that there is no change.
    """
    own.progress.begin("verify")
    details = []
    not_unpaused: tuple[str, ...] | None = None
    running: Collection[str] | None = None
    if unpaused is not None and unpaused.is_by_agent:
        not_unpaused, running = (), unpaused.wanted
    elif unpaused is not None:
        # A late call of an engine that lost the plan may have changed DAGs.
        restored, running = restore_in_target(own, plan, unpaused.wanted)
        not_unpaused = restored.not_unpaused
        details.append(f"listed again: {restored.detail}")
    if not plan.is_cancellation:
        details.append(_try_first_run(own, plan, running))
    own.progress.done("; ".join(details) or "nothing had changed")
    return not_unpaused


def _try_first_run(own: OwnedPlan, plan: Plan, running: Collection[str] | None) -> str:
    try:
        return _first_run(own, plan, running)
    except (TakenOverError, PlanSupersededError):
        raise
    except Exception as error:  # the role has moved and the DAGs are unpaused: the failover is complete in any case
        return f"no first run: {brief(error)}"


def _first_run(own: OwnedPlan, plan: Plan, running: Collection[str] | None) -> str:
    """Wait for a first run to succeed. *running*: the unpaused DAGs of the target; None: list them."""
    target = own.context.environment(plan.target)
    if running is None:
        running = {dag.dag_id for dag in own.dags(target, paused=False)}
    if TEST_DAG not in running:
        return f"no first run: {TEST_DAG} is not deployed, or paused"
    run_id = f"dr_verify__{plan.id}"
    own.ask(lambda: target.trigger(TEST_DAG, run_id=run_id, note=f"first run after failover {plan.id}"))
    deadline = own.clock.monotonic() + own.timing.verify_s
    while (found := own.ask(lambda: target.run_state(TEST_DAG, run_id))) not in {"success", "failed"}:
        if own.clock.monotonic() >= deadline:
            return f"{TEST_DAG} {run_id} is {found} after {own.timing.verify_s:g} s: check it"
        own.progress.report(f"{TEST_DAG} {run_id} is {found}")
        own.wait(own.timing.poll_s)
    return f"first run: {TEST_DAG} {found}"


def complete(
    own: OwnedPlan, state: DRState, unpaused: Unpaused | None, not_unpaused: tuple[str, ...] | None
) -> FailoverRecord:
    """The step *complete*: write the record and the STEADY state, and return the record."""
    plan = plan_of(state)
    own.progress.begin("complete")
    left_id = state.not_unpaused_set_id
    if not_unpaused is not None:
        left_id = own.table.retry(
            partial(recorded_sets.put_dags_not_unpaused, own.table.store, plan, not_unpaused, at=own.clock.now())
        )
    else:
        not_unpaused = tuple(recorded_sets.readable_dags_not_unpaused(own.context, state)[0])
    if unpaused is not None:
        snapshot = recorded_sets.snapshot_of_target(plan, unpaused.wanted, at=own.clock.now())
        own.table.retry(lambda: own.table.store.put(SNAPSHOTS, snapshot))
    own.progress.close_other_records(plan)
    # Write the record before the state. If this engine dies between the two writes, the next engine completes
    # again. In the reverse order, the record would stay open forever.
    left, at = not_unpaused, own.clock.now()
    ended = _ended_in_standby(own, state, plan)
    record = own.progress.update_record(
        lambda record: completed(record, state, not_unpaused=left, ended_in_standby=ended, at=at)
    )
    own.progress.history(lambda: own.table.store.put(RECORDS, record))
    own.write(
        Phase.RESUMING,
        lambda row: transitions.complete(row, not_unpaused_set_id=left_id, at=own.clock.now()),
    )
    own.context.courier.look()
    unrecorded = own.progress.unrecorded
    lacks = f"; mwaa-dr history may not contain this failover: {unrecorded}" if unrecorded else ""
    own.progress.done(f"{plan.target} is active, epoch {state.epoch}{lacks}")
    return own.progress.update_record()


def _ended_in_standby(own: OwnedPlan, state: DRState, plan: Plan) -> tuple[str, ...]:
    """Return the runs that the target's agent listed when the region became active. A cancellation lists none."""
    if plan.is_cancellation:
        return ()
    runs = own.progress.history(lambda: get_runs(own.table.store, region=plan.target, epoch=state.epoch))
    return runs or ()
