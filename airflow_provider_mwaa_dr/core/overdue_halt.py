"""When a halted failover needs a person: it has waited at *drained* for longer than its caller allowed. Pure."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.state import DRState, Phase


def overdue_halt(state: DRState, still_s: float) -> str | None:
    """
    Return what is wrong and what to do, for display; None if the plan in *state* is not overdue.

    No component continues such a plan. The users' data may have been moved to the target or not, and only a person can
    find that out. A plan that is halted at *promoted* is never overdue, because the target's agent finishes it.

    :param still_s: for how long the state has not changed, on the clock of the process that observes it.
    """
    plan = state.plan
    if plan is None or plan.hold is None or state.phase is not Phase.DRAINING or still_s <= plan.hold_s:
        return None
    stage = "the next stage" if plan.is_halted else plan.hold.value
    return (
        f"Failover {plan.id} ({plan.source} -> {plan.target}, epoch {state.epoch}) has not continued to {stage} for "
        f"{still_s:.0f} s, and {plan.hold_s:.0f} s were allowed. No region executes, and no component continues it. "
        f"Find out whether your data has moved to {plan.target}. Then continue: mwaa-dr failover {plan.target} "
        f"--reason TEXT. Or cancel: mwaa-dr failover {plan.source} --reason TEXT"
    )
