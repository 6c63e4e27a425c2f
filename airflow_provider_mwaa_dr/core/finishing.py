"""
Finishing a promoted plan in the region that it promoted, when nobody is left who would.

Between promote and the end of a plan nothing executes anywhere. Whoever began it may be gone for good, so the target's
own agent goes on: it needs no REST API, no rights but those it has, and nobody awake.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.failover import abort_other_records, dags_not_unpaused, put_dags_not_unpaused
from airflow_provider_mwaa_dr.core.lease import is_ready_to_resume
from airflow_provider_mwaa_dr.core.ports import Clock, DagSet, FailoverRecord, StateStore, StepRecord
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import (
    IncompleteItemError,
    StaleStateError,
    StateUnreachableError,
    UnreadableItemError,
)

log = get_logger(__name__)


class RegionDags(Protocol):
    """The paused flags of one region's DAGs; exempt DAGs are never among them."""

    def unpaused_dags(self) -> Sequence[str]:
        """Return the ids of the DAGs that are there and not paused."""

    def set_paused(self, dag_ids: Collection[str], *, paused: bool) -> int:
        """Pause or unpause *dag_ids*, as far as they are there; return how many changed. Repeatable."""


class PlanFinisher:
    """
    Ends what a silent owner left behind after promote, a short step each turn.

    Every step is conditional on the row that it was decided on, so an owner that turns out to live is followed by
    nobody and follows itself: it finds another owner in the row and stops.

    :param owner: names this process; unique among all engines and agents that could ever meet.
    :param takeover_s: the row stood still for this long, on this process's clock, before anything is done.
    """

    def __init__(
        self, store: StateStore, dags: RegionDags, clock: Clock, *, region: str, owner: str, takeover_s: float
    ) -> None:
        self._store = store
        self._dags = dags
        self._clock = clock
        self._region = region
        self._owner = owner
        self._takeover_s = takeover_s
        self._version: int | None = None
        self._since = self._read_at = clock.monotonic()

    def turn(self, state: DRState) -> None:
        """
        Go on with *state*'s plan, if it is left behind; called by the region's leading agent with what it just read.

        :raises StateError: the table could not be reached; the next turn tries again.
        """
        plan = state.plan
        still_s = self._still_for(state)
        if plan is None or plan.target != self._region or state.phase not in {Phase.PROMOTING, Phase.RESUMING}:
            return
        try:
            if plan.owner != self._owner:
                if still_s > self._takeover_s:
                    new = transitions.take_over(state, owner=self._owner, at=self._clock.now())
                    self._store.write(new, expected_version=state.version)
                    log.warning(
                        "Plan %s (%s -> %s, %s) was left behind: %s has been silent for %.0f s. %s finishes it.",
                        plan.id, plan.source, plan.target, state.phase.value, plan.owner, still_s, self._region,
                    )  # fmt: skip
            elif state.phase is Phase.PROMOTING:
                self._resume(state, still_s)
            else:
                self._complete(state, plan)
        except StaleStateError as error:
            log.info("Plan %s went on meanwhile: %s", plan.id, error)

    def _still_for(self, state: DRState) -> float:
        """Return for how long the row has not changed, counting only while this process has read it."""
        now = self._clock.monotonic()
        if state.version != self._version or now - self._read_at > self._takeover_s / 2:
            self._version, self._since = state.version, now
        self._read_at = now
        return now - self._since

    def _resume(self, state: DRState, still_s: float) -> None:
        agents = self._store.agents(self._region)
        is_known = is_ready_to_resume(agents, state.version, since=0.0, now=still_s, lease_s=state.lease_s)
        if is_known and any(agent.adopted_epoch == state.epoch for agent in agents):
            self._store.write(transitions.resume(state, at=self._clock.now()), expected_version=state.version)

    def _complete(self, state: DRState, plan: Plan) -> None:
        began, now = self._clock.monotonic(), self._clock.now()
        why = "no wanted set is recorded"
        try:
            dag_set = self._store.get_set(plan.set_id) if plan.set_id is not None else None
        except UnreadableItemError as error:
            if isinstance(error, IncompleteItemError) and self._still_for(state) <= self._takeover_s:
                raise  # it may be on its way to this copy of the table
            dag_set, why = None, error.message.rstrip(".")
        if dag_set is None:
            # Nothing was ever paused for it, or nobody knows any more what was.
            not_unpaused, detail = self._dags_not_unpaused(state), why
            left_id = state.not_unpaused_set_id
        else:
            not_unpaused, detail = self._restore(plan, frozenset(dag_set.dag_ids))
            self._store.put_snapshot(
                DagSet(
                    id=self._region, region=self._region, recorded_at=self._clock.now(), dag_ids=tuple(dag_set.dag_ids)
                )
            )
            left_id = put_dags_not_unpaused(self._store, plan, not_unpaused, at=now)
        step = StepRecord(
            name="finish",
            seconds=round(self._clock.monotonic() - began, 3),
            detail=f"left behind, finished by the agent of {self._region}: {detail}; no first run was verified",
        )
        self._record_the_end(state, plan, step, not_unpaused)
        new = transitions.complete(state, not_unpaused_set_id=left_id, at=self._clock.now())
        self._store.write(new, expected_version=state.version)
        log.warning("Plan %s is finished: %s is active, epoch %d; %s", plan.id, self._region, state.epoch, detail)

    def _dags_not_unpaused(self, state: DRState) -> tuple[str, ...]:
        try:
            return dags_not_unpaused(self._store, state)
        except StateUnreachableError:
            raise
        except Exception as error:
            log.warning("What the last failover to %s could not unpause is not known: %s", self._region, error)
            return ()

    def _record_the_end(self, state: DRState, plan: Plan, step: StepRecord, not_unpaused: tuple[str, ...]) -> None:
        """Write the history's records. They tell people what was done, so a failure ends neither plan nor agent."""
        now = self._clock.now()
        try:
            record = self._record(state, plan)
            self._store.put_record(
                replace(
                    record,
                    steps=(*record.steps, step),
                    outcome="completed",
                    finished_at=now,
                    epoch=state.epoch,
                    mode=Mode.FORCED if plan.is_forced else Mode.GRACEFUL,
                    not_unpaused=not_unpaused,
                )
            )
            abort_other_records(self._store, plan.id, at=now)
        except StateUnreachableError:
            raise  # the next turn tries again
        except Exception as error:
            log.warning("mwaa-dr history may lack the end of plan %s: %s", plan.id, error)

    def _record(self, state: DRState, plan: Plan) -> FailoverRecord:
        """Return the plan's record as its owner left it, or a new one: it died before it could begin one."""
        found = self._store.get_record(plan.id)
        if found is not None:
            # Killed between the record and the last write of the row, an agent repeats its step.
            return replace(found, steps=tuple(step for step in found.steps if step.name != "finish"))
        return FailoverRecord.of(plan, epoch=state.epoch)

    def _restore(self, plan: Plan, wanted: frozenset[str]) -> tuple[tuple[str, ...], str]:
        running = frozenset(self._dags.unpaused_dags())
        # Who cancels has left the region as it was: what people unpaused there meanwhile is theirs.
        strays = frozenset() if plan.is_cancellation else running - wanted
        if strays:
            self._dags.set_paused(sorted(strays), paused=True)
        if wanted - running:
            self._dags.set_paused(sorted(wanted - running), paused=False)
        not_unpaused = tuple(sorted(wanted.difference(self._dags.unpaused_dags())))
        return not_unpaused, (
            f"{len(wanted) - len(not_unpaused)} of {len(wanted)} DAGs wanted run in {self._region}"
            + (f"; not there: {', '.join(not_unpaused[:20])}" if not_unpaused else "")
            + (f"; paused again, not wanted: {', '.join(sorted(strays)[:20])}" if strays else "")
        )
