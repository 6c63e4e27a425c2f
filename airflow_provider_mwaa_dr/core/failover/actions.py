"""What a request for a region means in a given state: start, join, cancel or replace a plan, or recover the state."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import partial

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import recorded_sets
from airflow_provider_mwaa_dr.core.failover.context import EngineContext
from airflow_provider_mwaa_dr.core.ports import RECORDS, FailoverOutcome
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Plan


class FailoverAction(str, Enum):
    """The first write of a failover; its value is the name of the step."""

    NOTHING = "nothing"
    """The target is active already."""
    CLAIM = "claim"
    JOIN = "join"
    CANCEL = "cancel"
    SUPERSEDE = "supersede"
    RECOVER = "take over"
    """The state names no active region, or cannot be used: a new, forced plan replaces it."""


CHECKED = frozenset({FailoverAction.CLAIM, FailoverAction.SUPERSEDE, FailoverAction.RECOVER})
"""The actions that start a plan for another region, and therefore check first whether it is ready."""


def action(context: EngineContext, state: DRState, target: str) -> FailoverAction:
    """Return the action of a caller whose target is *target*, given the state."""
    plan = state.plan
    can_join = plan is not None and not state.problems and state.phase is Phase.DRAINING and plan.target == target
    # An open plan for this target names its source itself, so it can be joined even if the active region is wrong.
    if not can_join and why_unknown(context, state, target) is not None:
        return FailoverAction.RECOVER
    if state.phase is Phase.STEADY or plan is None:
        return FailoverAction.NOTHING if state.active_region == target else FailoverAction.CLAIM
    if plan.target == target:
        return FailoverAction.JOIN
    if state.phase is Phase.DRAINING and state.active_region == target and not plan.is_recovery:
        return FailoverAction.CANCEL
    return FailoverAction.SUPERSEDE


def why_unknown(context: EngineContext, state: DRState, target: str) -> str | None:
    """Return why *state* names no active region or cannot be used; None if it can be used."""
    # The table is read only if this caller's settings do not contain the region.
    is_given = state.active_region in context.environments
    regions = frozenset(context.environments) if is_given else context.regions()
    return transitions.why_unknown(state, regions, region=target)


def last_active(context: EngineContext, state: DRState, target: str) -> str:
    """Return the last active region, according to the state, the records or the snapshots; else any region."""
    regions = context.regions()
    is_known = state.phase in {Phase.STEADY, Phase.DRAINING} and "phase" not in {
        problem.field for problem in state.problems
    }
    if is_known and state.active_region in regions:
        return state.active_region
    records = context.progress.history(partial(context.table.store.find_all, RECORDS)) or ()
    completed = [record for record in records if record.outcome is FailoverOutcome.COMPLETED]
    if completed and completed[0].target in regions:
        return completed[0].target
    newest = recorded_sets.newest_snapshot(context, regions)
    if newest is not None:
        return newest.region
    return min(regions - {target}, default=target)


def sources(context: EngineContext, plan: Plan) -> Sequence[str]:
    """Return the regions that may execute until the promotion: the source; all but the target if it is unknown."""
    if not plan.is_recovery:
        return [plan.source]
    return sorted(context.regions() - {plan.target}) or [plan.source]
