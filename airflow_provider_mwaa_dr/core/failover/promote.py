"""The change of the role: the source's final ledger entry, the turn to forced, the promotion, and the adoption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import copies, lease_wait
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan
from airflow_provider_mwaa_dr.core.failover.table import plan_of
from airflow_provider_mwaa_dr.core.lease import Closing, is_ready_to_resume
from airflow_provider_mwaa_dr.core.ports import AgentStatus
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import DRError, FailoverError


def await_final_entry(own: OwnedPlan, plan: Plan, closing: Closing) -> Closing:
    """
    Close the source's fence, and wait for its final ledger entry, so that the target repeats no ended run.

    :return: *closing*, with the write that closed the fence.
    """
    own.progress.begin("ledger")
    state = own.write(Phase.DRAINING, lambda row: transitions.drained(row, at=own.clock.now()))
    arrived_at = lease_wait.await_arrival(own, plan, state.version, closing.lease_s, own.clock.monotonic())
    closing = replace(closing, fence_since=arrived_at)
    # has_ledger: a scheduler that has just started has published nothing yet, but will.
    if not any(agent.has_ledger or agent.ledger_lag_s is not None for agent in own.table.agents(plan.source)):
        own.progress.done(f"{plan.source} has no ledger: the target takes over no runs")
        return closing
    deadline = own.clock.monotonic() + own.timing.final_s
    while all(agent.final_plan_id != plan.id for agent in own.table.agents(plan.source)):
        if own.clock.monotonic() >= deadline:
            own.progress.done(
                f"{plan.source} did not publish its final ledger entry within {own.timing.final_s:g} s: "
                "runs that ended in its last seconds may run again"
            )
            return closing
        own.progress.report(f"waiting for the final ledger entry of {plan.source}")
        own.wait(own.timing.table_poll_s)
    own.progress.done(f"the ledger of {plan.source} is complete")
    return closing


def turn_forced(own: OwnedPlan, plan: Plan, error: DRError) -> None:
    own.progress.begin("force")
    if why := copies.why_lease_is_ignored(own.context, plan.source):
        raise FailoverError(
            f"{plan.source} does not answer ({error.message}), and {why}.",
            advice="Make sure that it is down, then repeat with --mode forced --even-if-not-ready.",
        ) from error
    state = own.write(Phase.DRAINING, lambda row: transitions.turn_forced(row, at=own.clock.now()))
    own.progress.update_record(lambda record: replace(record, mode=Mode.FORCED))
    own.progress.done(f"{plan_of(state).source} does not answer ({error.message}); continuing without it")


def adopt(own: OwnedPlan, state: DRState) -> None:
    """Wait until the target's agents have prepared their own database and all its schedulers know the epoch."""
    plan = plan_of(state)
    own.progress.begin("adopt")
    since = own.clock.monotonic()
    deadline = since + own.timing.adopt_s
    last_beats: dict[str, int] = {}
    while True:
        agents = own.table.agents(plan.target)
        ledger_wait_s = _announced_ledger_wait_s(agents, last_beats)
        if ledger_wait_s is not None:
            deadline = max(deadline, own.clock.monotonic() + ledger_wait_s + own.timing.adopt_s)
        known = is_ready_to_resume(agents, state.version, since=since, now=own.clock.monotonic(), lease_s=state.lease_s)
        adopted = any(agent.adopted_epoch == state.epoch and agent.reconciled_epoch == state.epoch for agent in agents)
        if known and adopted:
            break
        awaited = [
            *((f"its schedulers to know epoch {state.epoch}",) if not known else ()),
            *(("its agent to prepare its database",) if not adopted else ()),
            *((f"its ledger, which cannot be used: {error}",) if (error := _ledger_error(agents)) else ()),
        ]
        if own.clock.monotonic() >= deadline:
            raise FailoverError(
                f"{plan.target} is promoted (epoch {state.epoch}), but not ready within "
                f"{own.timing.adopt_s:g} s; still waiting for {' and '.join(awaited)}.",
                advice=f"Read the scheduler logs of {plan.target}.",
            )
        own.progress.report(f"waiting in {plan.target} for {' and '.join(awaited)}")
        own.wait(own.timing.table_poll_s)
    own.progress.done(f"all schedulers of {plan.target} know epoch {state.epoch}")


def resume(own: OwnedPlan) -> None:
    """Let the target execute."""
    own.write(Phase.PROMOTING, lambda row: transitions.resume(row, at=own.clock.now()))


def _ledger_error(agents: Sequence[AgentStatus]) -> str | None:
    """Return the ledger's error from an agent that waits for its ledger; None if there is none."""
    return next((agent.ledger_error for agent in agents if agent.ledger_wait_s is not None), None)


def _announced_ledger_wait_s(agents: Sequence[AgentStatus], last_beats: dict[str, int]) -> float | None:
    """
    Return the longest wait for their ledger that agents announce; None if no new heartbeat announces one.

    :param last_beats: the last beat by job; updated. The announcement of a dead agent counts once.
    """
    announced = []
    for agent in agents:
        if last_beats.get(agent.job) != agent.beat and agent.ledger_wait_s is not None:
            announced.append(agent.ledger_wait_s)
        last_beats[agent.job] = agent.beat
    return max(announced, default=None)


def promote(own: OwnedPlan) -> None:
    """Make the target the active region."""
    own.progress.begin("promote")
    new = own.write(Phase.DRAINING, lambda row: transitions.promote(row, at=own.clock.now()))
    own.progress.done(f"{new.active_region} is active, epoch {new.epoch}")
