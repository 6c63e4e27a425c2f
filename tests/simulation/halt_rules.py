"""
What the simulation of halted failovers takes out to show that it is needed.

:data:`HALT_RULES` has a function for each rule, and what a history that goes wrong without it reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent import plan_finisher
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import lease_wait
from airflow_provider_mwaa_dr.core.failover.halt import HoldCheck
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan
from airflow_provider_mwaa_dr.core.gate import DecisionPoint, View
from airflow_provider_mwaa_dr.core.lease import Closing
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Plan, Stage
from tests.simulation.world import Region

Patch = pytest.MonkeyPatch


def with_a_fence_that_lets_tasks_start_while_the_plan_is_halted(patch: Patch) -> None:
    decide = Region._decide

    def generous(region: Region, view: View | None, point: DecisionPoint, **values: Any) -> Any:
        state = view.state if view is not None else None
        is_halted = state is not None and state.plan is not None and state.plan.is_halted
        if point is DecisionPoint.FENCE and is_halted and view is not None and state is not None and state.plan:
            view = replace(view, state=replace(state, plan=replace(state.plan, drained=False)))
        return decide(region, view, point, **values)

    patch.setattr(Region, "_decide", generous)


def with_a_halt_before_the_fence_is_closed(patch: Patch) -> None:
    wait_for_lease = lease_wait.wait_for_lease

    def hasty(own: OwnedPlan, plan: Plan, closing: Closing) -> None:
        if plan.hold is not Stage.DRAINED:
            wait_for_lease(own, plan, closing)

    patch.setattr(lease_wait, "wait_for_lease", hasty)


def with_an_agent_that_finishes_halted_plans(patch: Patch) -> None:
    patch.setattr(plan_finisher, "patience_s", lambda _, takeover_s: takeover_s)


def with_a_halt_that_not_every_agent_knows(patch: Patch) -> None:
    patch.setattr(HoldCheck, "refuse", lambda *_: None)


def with_a_promoted_plan_that_resumes_before_its_halt(patch: Patch) -> None:
    """The target could then start runs while the users switch their endpoints."""
    halt = transitions.halt

    def late(state: DRState, **at: Any) -> DRState:
        if state.phase is Phase.PROMOTING:
            state = replace(state, phase=Phase.RESUMING)
            assert state.plan is not None
            return replace(
                state, version=state.version + 1, plan=replace(state.plan, owner="", halts=state.plan.halts + 1)
            )
        return halt(state, **at)

    patch.setattr(transitions, "halt", late)


HALT_RULES: Mapping[Callable[[Patch], None], str] = {
    with_a_fence_that_lets_tasks_start_while_the_plan_is_halted: "starts a task .* on its step",
    with_a_halt_before_the_fence_is_closed: "starts a task .* on its step",
    with_an_agent_that_finishes_halted_plans: "starts a task .* on its step|an agent finishes a halted plan",
    with_a_halt_that_not_every_agent_knows: "starts a task .* on its step|an agent finishes a halted plan",
    with_a_promoted_plan_that_resumes_before_its_halt: "starts a task .* on its step",
}
