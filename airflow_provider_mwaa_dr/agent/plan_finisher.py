"""
The target's agent finishes a promoted plan whose owner is silent.

From the promotion until the target may execute, no region executes anything, and the plan's owner may never return. So
the target's own agent finishes the plan. It needs no REST API, no additional rights, and no user.

If the plan halts for steps of users, the agent waits for as long as the caller allowed. It never promotes a plan.
"""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_mwaa_dr.agent.hold_alarm import HoldAlarm
from airflow_provider_mwaa_dr.agent.stillness import Stillness
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ended_in_standby import get_runs
from airflow_provider_mwaa_dr.core.failover.recorded_sets import (
    dags_not_unpaused,
    put_dags_not_unpaused,
    snapshot_of_target,
)
from airflow_provider_mwaa_dr.core.failover.records import abort_other_records, completed
from airflow_provider_mwaa_dr.core.failover.restore import RegionDags, restore_set
from airflow_provider_mwaa_dr.core.lease import is_ready_to_resume
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    RECORDS,
    SNAPSHOTS,
    Clock,
    FailoverRecord,
    StateStore,
    StepRecord,
)
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import (
    IncompleteItemError,
    StaleStateError,
    StateUnreachableError,
    UnreadableItemError,
)

log = get_logger(__name__)


def patience_s(plan: Plan, takeover_s: float) -> float:
    """Return for how long the state of a promoted plan must not change before the target's agent finishes it."""
    return max(takeover_s, plan.hold_s) if plan.hold is not None else takeover_s


class PlanFinisher:
    """
    Finishes a promoted plan whose owner is silent, with one short step in each turn.

    Each write succeeds only if the state has not changed since the finisher read it. If the owner is still alive, it
    finds another owner in the state, and follows the plan.

    :param owner: the name of this process; unique among all engines and agents of the set.
    :param takeover_s: the finisher takes over the plan if the state has not changed for this long, on its own clock.
    :param alarm: reports a plan that was drained, and that no caller promotes.
    """

    def __init__(
        self,
        store: StateStore,
        dags: RegionDags,
        clock: Clock,
        *,
        region: str,
        owner: str,
        takeover_s: float,
        alarm: HoldAlarm,
    ) -> None:
        self._store = store
        self._dags = dags
        self._clock = clock
        self._region = region
        self._owner = owner
        self._takeover_s = takeover_s
        self._alarm = alarm
        self._stillness = Stillness(clock, gap_s=takeover_s / 2)

    def turn(self, state: DRState) -> None:
        """
        Continue the plan in *state* if its owner is silent. The region's leading agent calls this with its last read.

        :raises StateError: the table could not be reached; the next turn tries again.
        """
        plan = state.plan
        still_s = self._stillness.seconds(state)
        self._alarm.turn(state, still_s)
        if plan is None or plan.target != self._region or state.phase not in {Phase.PROMOTING, Phase.RESUMING}:
            return
        try:
            if plan.owner != self._owner:
                if still_s > patience_s(plan, self._takeover_s):
                    new = transitions.take_over(state, owner=self._owner, at=self._clock.now())
                    self._store.write(new, expected_version=state.version)
                    why = "no caller continued it" if plan.is_halted else f"its owner {plan.owner} has been silent"
                    log.warning(
                        "Plan %s (%s -> %s, %s) is stalled: %s for %.0f s. %s finishes it.",
                        plan.id, plan.source, plan.target, state.phase.value, why, still_s, self._region,
                    )  # fmt: skip
            elif state.phase is Phase.PROMOTING:
                self._resume(state, still_s)
            else:
                self._complete(state, plan)
        except StaleStateError as error:
            log.info("Another process continued plan %s: %s", plan.id, error)

    def _resume(self, state: DRState, still_s: float) -> None:
        agents = self._store.agents(self._region)
        is_known = is_ready_to_resume(agents, state.version, since=0.0, now=still_s, lease_s=state.lease_s)
        if is_known and any(agent.adopted_epoch == state.epoch for agent in agents):
            self._store.write(transitions.resume(state, at=self._clock.now()), expected_version=state.version)

    def _complete(self, state: DRState, plan: Plan) -> None:
        began, now = self._clock.monotonic(), self._clock.now()
        why = "no set of DAGs is recorded"
        try:
            dag_set = self._store.get(DAG_SETS, plan.set_id) if plan.set_id is not None else None
        except UnreadableItemError as error:
            if isinstance(error, IncompleteItemError) and self._stillness.seconds(state) <= self._takeover_s:
                raise  # its pages may not be replicated to this copy of the table yet
            dag_set, why = None, error.message.rstrip(".")
        if dag_set is None:
            # The plan paused no DAGs, or its set was lost.
            not_unpaused, detail = self._dags_not_unpaused(state), why
            left_id = state.not_unpaused_set_id
        else:
            restored = restore_set(self._dags, plan, frozenset(dag_set.dag_ids))
            not_unpaused, detail = restored.not_unpaused, restored.detail
            self._store.put(SNAPSHOTS, snapshot_of_target(plan, dag_set.dag_ids, at=self._clock.now()))
            left_id = put_dags_not_unpaused(self._store, plan, not_unpaused, at=now)
        step = StepRecord(
            name="finish",
            seconds=round(self._clock.monotonic() - began, 3),
            detail=f"stalled; finished by the agent of {self._region}: {detail}; no first run was verified",
        )
        self._complete_record(state, plan, step, not_unpaused)
        new = transitions.complete(state, not_unpaused_set_id=left_id, at=self._clock.now())
        self._store.write(new, expected_version=state.version)
        log.warning("Plan %s is finished: %s is active, epoch %d; %s", plan.id, self._region, state.epoch, detail)

    def _dags_not_unpaused(self, state: DRState) -> tuple[str, ...]:
        try:
            return dags_not_unpaused(self._store, state)
        except StateUnreachableError:
            raise
        except Exception as error:
            log.warning("It is unknown which DAGs the last failover to %s could not unpause: %s", self._region, error)
            return ()

    def _complete_record(self, state: DRState, plan: Plan, step: StepRecord, not_unpaused: tuple[str, ...]) -> None:
        """Write the records of the history. They are only for users, so a failure stops neither plan nor agent."""
        now = self._clock.now()
        try:
            record = self._record(state, plan)
            record = replace(record, steps=(*record.steps, step))
            ended = () if plan.is_cancellation else get_runs(self._store, region=plan.target, epoch=state.epoch)
            done = completed(record, state, not_unpaused=not_unpaused, ended_in_standby=ended, at=now)
            self._store.put(RECORDS, done)
            abort_other_records(self._store, plan.id, at=now)
        except StateUnreachableError:
            raise  # the next turn tries again
        except Exception as error:
            log.warning("mwaa-dr history may not contain the end of plan %s: %s", plan.id, error)

    def _record(self, state: DRState, plan: Plan) -> FailoverRecord:
        """Return the plan's record as its owner wrote it, or a new one if the owner died before it wrote one."""
        found = self._store.get(RECORDS, plan.id)
        if found is not None:
            # An agent that dies between the record and the last write of the state repeats its step.
            return replace(found, steps=tuple(step for step in found.steps if step.name != "finish"))
        return FailoverRecord.of(plan, epoch=state.epoch)
