"""What an engine may do only while it owns the plan: write the state, write beats, wait, and call environments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import CONTROL_TAG
from airflow_provider_mwaa_dr.core.failover.context import EngineContext
from airflow_provider_mwaa_dr.core.failover.table import plan_of
from airflow_provider_mwaa_dr.core.ports import DagInfo, Environment
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import (
    MwaaUnreachableError,
    PlanSupersededError,
    StaleStateError,
    StateAccessError,
    StateError,
    StateUnreachableError,
)

T = TypeVar("T")


class TakenOverError(Exception):
    """Another engine owns the plan now, or has ended it. This engine follows the plan."""

    def __init__(self, plan_id: str) -> None:
        super().__init__(plan_id)
        self.plan_id = plan_id


class OwnedPlan:
    """
    An open plan while this process owns it. No method acts after another process has taken the plan over or ended it.

    Each method reads the state first, and raises TakenOverError or PlanSupersededError if the plan is lost.

    :param plan_id: the plan that this process claimed, joined or took over.
    :param even_if_not_ready: continue even if it cannot be known that the claim has arrived in the source.
    """

    def __init__(self, context: EngineContext, plan_id: str, *, even_if_not_ready: bool) -> None:
        self.id = plan_id
        self.even_if_not_ready = even_if_not_ready
        self.context = context
        self.table = context.table
        self.clock = context.clock
        self.timing = context.timing
        self.progress = context.progress

    def state(self) -> DRState:
        """
        Return the state if this engine still owns the open plan; write a beat if the last write is ``beat_s`` old.

        :raises PlanSupersededError: another plan is open.
        :raises TakenOverError: another engine owns the plan, or no plan is open.
        :raises StateError: the plan moves the role between other regions than before.
        """
        while True:
            state = self.table.read()
            refuse_unusable(state)
            if state.plan is None:
                raise TakenOverError(self.id)
            if state.plan.id != self.id:
                raise superseded(self.id, state)
            if state.plan.owner != self.context.owner:
                raise TakenOverError(self.id)
            self._refuse_altered(state)
            if self.clock.monotonic() - self.table.written_at < self.timing.beat_s:
                return state
            new = transitions.beat(state, at=self.clock.now())
            try:
                self.table.put(new, state.version)
            except StaleStateError:
                continue
            except (StateUnreachableError, StateAccessError):
                return state  # a missing beat does not stop the engine; the next beat may succeed
            return new

    def _refuse_altered(self, state: DRState) -> None:
        """No transition changes the regions of a plan. A role that may only finish failovers could change them."""
        plan, record = plan_of(state), self.progress.record
        if record is None or record.id != plan.id or (record.source, record.target) == (plan.source, plan.target):
            return
        raise StateError(
            f"Plan {plan.id} was altered in the state table: it moved the role from {record.source} to "
            f"{record.target}, and now from {plan.source} to {plan.target} (version {state.version}).",
            advice="No command does that: find out what wrote the item ACTIVE_REGION.",
        )

    def write(self, phase: Phase, step: Callable[[DRState], DRState]) -> DRState:
        """Write the transition *step* from *phase* under this plan. A no-op if the plan has left *phase*."""
        deadline = self.clock.monotonic() + self.timing.state_s
        while True:
            state = self.state()
            if state.phase is not phase:
                return state
            new = step(state)
            if new is state:
                return state
            try:
                self.table.put(new, state.version)
            except StaleStateError:
                continue
            except (StateUnreachableError, StateAccessError) as error:
                if not self.table.may_be_temporary(error) or self.clock.monotonic() >= deadline:
                    raise
                self.clock.sleep(self.timing.poll_s)
                continue
            return new

    def wait(self, seconds: float) -> None:
        """Wait and write beats. Stop waiting, with an error, if this engine no longer owns the plan."""
        end = self.clock.monotonic() + seconds
        while (rest := end - self.clock.monotonic()) > 0:
            self.clock.sleep(min(rest, self.timing.beat_s))
            self.state()

    def ask(self, call: Callable[[], T]) -> T:
        """
        Return the result of an idempotent *call* to an environment; retry for ``answer_s`` while it does not answer.

        Before each attempt, the engine reads the state and makes sure that it still owns the plan.
        """
        deadline = self.clock.monotonic() + self.timing.answer_s
        while True:
            state = self.state()
            plan = plan_of(state)
            began = self.clock.monotonic()
            try:
                return call()
            except MwaaUnreachableError as error:
                now = self.clock.monotonic()
                if now >= deadline:
                    raise
                self.progress.report(f"no answer yet: {error.message}")
                can_turn_forced = state.phase is Phase.DRAINING and plan.mode is Mode.AUTO
                if can_turn_forced and self._is_silent(plan, attempt_s=now - began, deadline=deadline):
                    raise
            self.wait(self.timing.poll_s)

    def _is_silent(self, plan: Plan, *, attempt_s: float, deadline: float) -> bool:
        """
        Return whether the source's schedulers have sent no heartbeat for ``agent_silence_s``.

        If so, one attempt without an answer is enough; each attempt takes up to 12 s if packets get lost. If a part of
        this time is missing, wait for it, unless another attempt fits into it.
        """
        while (silent_s := self.context.silence.seconds(plan.source)) > 0:
            rest_s = self.timing.agent_silence_s - silent_s
            if rest_s <= 0:
                return True
            if rest_s > attempt_s or self.clock.monotonic() >= deadline:
                return False
            self.progress.report(f"no answer from {plan.source}; its schedulers are also silent, for {silent_s:.0f} s")
            self.wait(min(self.timing.poll_s, rest_s))
        return False

    def dags(self, environment: Environment, *, paused: bool | None = None) -> Sequence[DagInfo]:
        """List DAGs. Thousands take long, so the engine checks between the pages that it still owns the plan."""

        def on_progress(read: int, total: int) -> None:
            self.progress.report(f"{read} of {total} DAGs of {environment.region} listed")
            self.state()

        return self.ask(lambda: environment.dags(paused=paused, on_progress=on_progress))

    def exempt(self, environment: Environment) -> Sequence[DagInfo]:
        """Return the exempt DAGs. Those that only the settings name are not listed: *is_paused* of these is a guess."""
        tagged = {dag.dag_id: dag for dag in self.ask(lambda: environment.dags(tag=CONTROL_TAG))}
        named = {dag_id: DagInfo(dag_id=dag_id, is_paused=False) for dag_id in sorted(self.context.exempt_dags)}
        return list({**named, **tagged}.values())

    def exempt_as_agents(self, environment: Environment) -> Sequence[DagInfo] | None:
        """
        Return the exempt DAGs, if the agents of *environment* list its DAGs, and leave out no other ones; else None.

        The settings of the region may name more exempt DAGs than those of this caller, which decide.
        """
        agents = [agent for agent in self.table.agents(environment.region) if not agent.gone]
        names = {name for agent in agents for name in agent.exempt or ()}
        if not any(agent.lists_dags for agent in agents):
            return None
        exempt = self.exempt(environment)
        return exempt if names <= {dag.dag_id for dag in exempt} else None

    def set_paused(
        self,
        environment: Environment,
        dag_ids: Collection[str],
        *,
        paused: bool,
        listing: Sequence[DagInfo] | None,
        expected: Sequence[DagInfo] | None = None,
    ) -> set[str]:
        """Pause or unpause DAGs. Thousands take long, so the engine checks between the calls that it owns the plan."""

        def on_progress(done: int, total: int) -> None:
            self.progress.report(f"{done} of {total}")
            self.state()

        def change() -> Sequence[str]:
            nonlocal listing, expected
            # An attempt without an answer may have changed some DAGs, so the listing is used only once.
            known, listing = listing, None
            probable, expected = expected, None
            return environment.set_paused(
                sorted(dag_ids), paused=paused, listing=known, expected=probable, on_progress=on_progress
            )

        return set(self.ask(change))


def refuse_unusable(state: DRState) -> None:
    """:raises StateError: the state was changed by hand to one that no engine can use."""
    plan = state.plan
    is_promoted = state.phase in {Phase.PROMOTING, Phase.RESUMING}
    known = () if plan is None else (plan.target,)
    if (
        state.problems
        or (state.phase is not Phase.STEADY and plan is None)
        or (is_promoted and state.active_region not in known)
    ):
        why = transitions.why_unknown(state, known, region="REGION")
        raise StateError(f"The plan cannot continue: {why}.", advice="Run the command again: it recovers the state.")


def superseded(plan_id: str, state: DRState) -> PlanSupersededError:
    """Return the error of an engine whose plan another plan replaced."""
    if state.plan is None:
        now = f"{state.active_region} is active and no failover is in progress"
    else:
        now = f"{state.plan.by} moves the role from {state.plan.source} to {state.plan.target} (plan {state.plan.id})"
    return PlanSupersededError(
        f"Plan {plan_id} is no longer open: {now} (epoch {state.epoch}).",
        advice="This caller has stopped and changes nothing more. See mwaa-dr status and mwaa-dr history.",
    )
