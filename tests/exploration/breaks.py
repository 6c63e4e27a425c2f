"""
Rules of the protocol. For each rule: a function that breaks it, and the smallest world in which the exploration finds
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent import plan_finisher
from airflow_provider_mwaa_dr.core import gate, lease
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import FailoverAction, actions
from airflow_provider_mwaa_dr.core.failover.context import EngineContext
from airflow_provider_mwaa_dr.core.gate import Decision, DecisionPoint, View
from airflow_provider_mwaa_dr.core.lease import Closing
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from tests.exploration.model import LEASE_S, OLD, TICK_S, B, Caller, Model, World

Patch = pytest.MonkeyPatch


def with_a_lease_that_is_one_tick_too_short(patch: Patch) -> None:
    closed_at = Closing.gate_closed_at

    def early(closing: Closing, agents: Any) -> float:
        return closed_at(replace(closing, lease_s=LEASE_S - TICK_S), agents)

    patch.setattr(Closing, "gate_closed_at", early)


def without_the_margin_of_a_tenth(patch: Patch) -> None:
    patch.setattr(lease, "CLOCK_MARGIN", 1.0)


def with_a_write_that_counts_from_before_its_response(patch: Patch) -> None:
    patch.setattr(Model, "counts_from_response", False)


def with_an_engine_that_takes_over_and_counts_from_the_claim(patch: Patch) -> None:
    """For example by the wall time in the table, or by the notes of the engine before."""
    patch.setattr(Model, "age_of_join", OLD)


def with_the_acknowledgement_of_the_listed_schedulers_only(patch: Patch) -> None:
    patch.setattr(lease, "has_acknowledged", lease.live_have_acknowledged)


def with_an_agent_that_publishes_its_end_and_continues(patch: Patch) -> None:
    patch.setattr(Model, "is_closed_before_it_is_gone", False)


def with_a_fence_that_lets_tasks_start_when_the_source_is_drained(patch: Patch) -> None:
    decide = gate.decide

    def generous(view: View, *, point: DecisionPoint, **rest: Any) -> Decision:
        state = view.state
        if point is DecisionPoint.FENCE and state is not None and state.plan is not None:
            view = replace(view, state=replace(state, plan=replace(state.plan, drained=False)))
        return decide(view, point=point, **rest)

    patch.setattr(gate, "decide", generous)


def without_the_wait_for_the_fence(patch: Patch) -> None:
    patch.setattr(Closing, "fence_closed_at", lambda closing, _: closing.gate_since)


def with_the_wait_for_the_fence_counted_from_the_acknowledgement(patch: Patch) -> None:
    """As the code was before the fix: it counted from the moment at which the schedulers acknowledged the claim."""
    closed_at = Closing.fence_closed_at

    def from_the_gate(closing: Closing, agents: Any) -> float:
        return closed_at(replace(closing, fence_since=closing.gate_closed_at(agents)), agents)

    patch.setattr(Closing, "fence_closed_at", from_the_gate)


def with_the_callers_own_fence_file_s(patch: Patch) -> None:
    patch.setattr(lease, "fence_file_s", lambda _: 0.0)


def with_a_target_that_does_not_wait_for_its_silent_schedulers(patch: Patch) -> None:
    patch.setattr(
        lease, "is_ready_to_resume", lambda agents, version, **_: lease.live_have_acknowledged(agents, version)
    )


def with_writes_that_have_no_condition(patch: Patch) -> None:
    patch.setattr(Model, "has_landed", staticmethod(lambda *_: True))


def with_a_claim_over_an_open_plan(patch: Patch) -> None:
    """The new plan has neither the recorded set nor the plan that had promoted."""
    action = actions.action

    def careless(context: EngineContext, state: DRState, target: str) -> FailoverAction:
        found = action(context, state, target)
        return FailoverAction.CLAIM if found is FailoverAction.SUPERSEDE else found

    claim = transitions.claim

    def anywhere(state: DRState, plan: Plan, **at: Any) -> DRState:
        return claim(replace(state, phase=Phase.STEADY, plan=None), plan, **at)

    patch.setattr(actions, "action", careless)
    patch.setattr(transitions, "claim", anywhere)


def with_a_superseding_plan_that_forgets_what_it_replaced(patch: Patch) -> None:
    supersede = transitions.supersede

    def forgetful(state: DRState, plan: Plan, **at: Any) -> DRState:
        new = supersede(state, plan, **at)
        assert new.plan is not None
        return replace(new, plan=replace(new.plan, replaced=None))

    patch.setattr(transitions, "supersede", forgetful)


def with_a_superseding_plan_that_records_the_wanted_set_again(patch: Patch) -> None:
    supersede = transitions.supersede

    def forgetful(state: DRState, plan: Plan, **at: Any) -> DRState:
        new = supersede(state, plan, **at)
        assert new.plan is not None
        return replace(new, plan=replace(new.plan, set_id=None))

    patch.setattr(transitions, "supersede", forgetful)


def with_a_cancel_that_ends_the_plan_immediately(patch: Patch) -> None:
    cancel = transitions.cancel

    def immediately(state: DRState, **values: Any) -> DRState:
        return replace(cancel(state, **values), phase=Phase.STEADY, plan=None)

    patch.setattr(transitions, "cancel", immediately)


def with_a_cancel_under_the_same_plan_id_and_engines_that_compare_only_ids(patch: Patch) -> None:
    """Either of the two checks is enough: a plan has a new id, and an owner."""
    cancel = transitions.cancel

    def same_id(state: DRState, *, plan_id: str, **values: Any) -> DRState:
        assert state.plan is not None
        return cancel(state, plan_id=state.plan.id, **values)

    def by_id(plan: Plan, caller: Caller, _: str) -> bool:
        return plan.id == caller.plan

    patch.setattr(transitions, "cancel", same_id)
    patch.setattr(Model, "is_own", staticmethod(by_id))


def with_already_active_as_the_answer_while_a_plan_is_open(patch: Patch) -> None:
    action = actions.action

    def hasty(context: EngineContext, state: DRState, target: str) -> FailoverAction:
        return FailoverAction.NOTHING if state.active_region == target else action(context, state, target)

    patch.setattr(actions, "action", hasty)


def with_a_caller_that_names_another_region_and_gets_the_open_plan(patch: Patch) -> None:
    """A caller could then never leave a plan whose target is lost permanently."""
    action = actions.action

    def handed(context: EngineContext, state: DRState, target: str) -> FailoverAction:
        found = action(context, state, target)
        return FailoverAction.JOIN if found is FailoverAction.SUPERSEDE else found

    patch.setattr(actions, "action", handed)


def with_a_promotion_that_keeps_the_epoch(patch: Patch) -> None:
    promote = transitions.promote
    patch.setattr(transitions, "promote", lambda state, **at: replace(promote(state, **at), epoch=state.epoch))


def with_a_fence_that_lets_tasks_start_under_a_forced_plan(patch: Patch) -> None:
    decide = gate.decide

    def generous(view: View, *, point: DecisionPoint, **rest: Any) -> Decision:
        state = view.state
        if point is DecisionPoint.FENCE and state is not None and state.plan is not None:
            view = replace(view, state=replace(state, plan=replace(state.plan, mode=Mode.AUTO)))
        return decide(view, point=point, **rest)

    patch.setattr(gate, "decide", generous)


def with_a_gate_that_lets_runs_start_while_the_source_is_drained(patch: Patch) -> None:
    decide = gate.decide

    def generous(view: View, *, point: DecisionPoint, **rest: Any) -> Decision:
        state = view.state
        if state is not None and state.phase is Phase.DRAINING:
            view = replace(view, state=replace(state, phase=Phase.STEADY, plan=None))
        return decide(view, point=point, **rest)

    patch.setattr(gate, "decide", generous)


def with_a_gate_that_counts_as_closed_since_the_claim_although_awaited_runs_start(patch: Patch) -> None:
    responded = Model._responded
    send = Model._send

    def forgetful(model: Model, caller: Caller, op: str, row: int, age: int) -> Caller:
        new = responded(model, caller, op, row, age)
        if op in {"hold awaited", "reads that awaited runs are held"}:
            return new._replace(version=caller.version, gate_age=caller.gate_age)
        return new

    def as_before(model: Model, world: World, number: int, op: str, row: int) -> World:
        sent = send(model, world, number, op, row)
        caller = sent.callers[number]._replace(version=world.callers[number].version)
        return model._set(sent, number, caller)

    patch.setattr(Model, "_responded", forgetful)
    patch.setattr(Model, "_send", as_before)


def with_a_fence_that_lets_tasks_start_while_the_plan_is_halted(patch: Patch) -> None:
    decide = gate.decide

    def generous(view: View, *, point: DecisionPoint, **rest: Any) -> Decision:
        state = view.state
        if point is DecisionPoint.FENCE and state is not None and state.plan is not None and state.plan.is_halted:
            view = replace(view, state=replace(state, plan=replace(state.plan, drained=False)))
        return decide(view, point=point, **rest)

    patch.setattr(gate, "decide", generous)


def with_an_agent_that_finishes_halted_plans(patch: Patch) -> None:
    patch.setattr(plan_finisher, "patience_s", lambda _, takeover_s: takeover_s)


def with_a_halt_that_not_every_agent_knows(patch: Patch) -> None:
    patch.setattr(Model, "may_halt", staticmethod(lambda _: True))


@dataclass(frozen=True)
class Where:
    """
    The world in which the exploration finds a break.

    :param schedulers: number in the source and in the target.
    :param starts: how many times the caller may let awaited runs start.
    :param halts, earlier: see :class:`~tests.exploration.model.Model`.
    :param depth: the number of steps of the shortest history that shows it. For a broken way out, which the search
        checks from the state before, it is one step more.
    """

    schedulers: tuple[int, int] = (1, 1)
    callers: int = 1
    faults: int = 0
    depth: int = 4
    starts: int = 0
    halts: bool = False
    earlier: tuple[str, ...] = ()

    def model(self) -> Model:
        """Return the model of this world."""
        return Model(
            self.schedulers,
            callers=self.callers,
            faults=self.faults,
            starts=self.starts,
            halts=self.halts,
            earlier=self.earlier,
        )


Break = Callable[[Patch], None]
BREAKS: dict[Break, Where] = {
    with_a_lease_that_is_one_tick_too_short: Where(),
    without_the_margin_of_a_tenth: Where(),
    with_a_write_that_counts_from_before_its_response: Where(faults=1, depth=7),
    with_an_engine_that_takes_over_and_counts_from_the_claim: Where(callers=2, depth=5),
    with_the_acknowledgement_of_the_listed_schedulers_only: Where(schedulers=(2, 1), faults=1, depth=6),
    with_an_agent_that_publishes_its_end_and_continues: Where(schedulers=(2, 1), faults=1, depth=6),
    with_a_fence_that_lets_tasks_start_when_the_source_is_drained: Where(depth=6),
    with_a_fence_that_lets_tasks_start_under_a_forced_plan: Where(depth=5),
    with_a_gate_that_lets_runs_start_while_the_source_is_drained: Where(depth=5),
    with_a_gate_that_counts_as_closed_since_the_claim_although_awaited_runs_start: Where(depth=8, starts=1),
    without_the_wait_for_the_fence: Where(depth=3),
    with_the_wait_for_the_fence_counted_from_the_acknowledgement: Where(depth=6),
    with_the_callers_own_fence_file_s: Where(depth=3),
    with_a_target_that_does_not_wait_for_its_silent_schedulers: Where(schedulers=(1, 2), faults=1, depth=8),
    with_writes_that_have_no_condition: Where(callers=2, faults=1, depth=7),
    with_a_claim_over_an_open_plan: Where(depth=4),
    with_a_superseding_plan_that_forgets_what_it_replaced: Where(callers=2, depth=6),
    with_a_superseding_plan_that_records_the_wanted_set_again: Where(depth=4),
    with_a_cancel_that_ends_the_plan_immediately: Where(depth=3),
    with_a_cancel_under_the_same_plan_id_and_engines_that_compare_only_ids: Where(callers=2, depth=3),
    with_already_active_as_the_answer_while_a_plan_is_open: Where(depth=1),
    with_a_caller_that_names_another_region_and_gets_the_open_plan: Where(callers=2, depth=2),
    with_a_promotion_that_keeps_the_epoch: Where(depth=1),
    with_a_fence_that_lets_tasks_start_while_the_plan_is_halted: Where(depth=6, halts=True),
    with_an_agent_that_finishes_halted_plans: Where(depth=8, halts=True),
    with_a_halt_that_not_every_agent_knows: Where(depth=8, halts=True, earlier=(B,)),
}
"""The function that breaks each rule, and the world with the shortest history that shows it."""
