"""
The waits until the source can start no work: for acknowledgements, and for its lease.

:mod:`airflow_provider_mwaa_dr.core.lease` has the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_mwaa_dr.core.failover import copies
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan
from airflow_provider_mwaa_dr.core.lease import (
    Closing,
    awaited,
    has_acknowledged,
    lease_wait_s,
    live_have_acknowledged,
    longest_lease_s,
    silent_until,
)
from airflow_provider_mwaa_dr.core.ports import AgentStatus, SilentAgent
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Plan
from airflow_provider_mwaa_dr.exceptions import FailoverError, MwaaUnreachableError


class SilentSourceError(MwaaUnreachableError):
    """All schedulers of the source have been silent for a lease. Its web server may still answer."""


def refuse_silent_source(own: OwnedPlan, plan: Plan, closing: Closing, agents: Sequence[AgentStatus]) -> None:
    """
    End the graceful steps of an AUTO plan whose source can finish none of them.

    :raises SilentSourceError: every scheduler of the source has been silent for a lease, so no run of it continues.
    """
    if plan.mode is not Mode.AUTO:
        return
    wait_s = lease_wait_s(closing.lease_s, closing.gate_commit_s)
    # Schedulers that died after the claim have no report in *closing*.
    observed = {(each.job, each.number) for each in _observed(own, wait_s) if each.region == plan.source}
    if closing.is_silent(agents, now=own.clock.monotonic(), observed=observed):
        raise SilentSourceError(f"every scheduler of {plan.source} has been silent for its lease")


def closing(own: OwnedPlan, plan: Plan, state: DRState, since: float) -> Closing:
    """
    Return the write that closes the source's gate: that of *state* or an earlier one, known since *since*.

    It reads which of the source's schedulers have been silent. It is called after that write, or after the take-over.
    """
    arrived_at = await_arrival(own, plan, state.version, state.lease_s, since)
    reports = _reports(own, plan)
    agents = own.table.agents(plan.source)  # after the reports, and after the write
    now = own.clock.monotonic()
    lease_s, gate_commit_s = longest_lease_s(state.lease_s, agents), own.timing.gate_commit_s
    until = silent_until(agents, reports, now=now, wait_s=lease_wait_s(lease_s, gate_commit_s))
    return Closing(
        version=state.version,
        gate_since=arrived_at,
        fence_since=None,
        lease_s=lease_s,
        gate_commit_s=gate_commit_s,
        # With eventual consistency, a new scheduler of the source may read an old copy: wait again.
        is_quiet=plan.quiet and not own.context.eventual,
        silent_until=until,
        silent=frozenset((agent.job, agent.number) for agent in agents if agent.job in until),
    )


def _reports(own: OwnedPlan, plan: Plan) -> Sequence[SilentAgent]:
    """Return the silent heartbeats that the agents of all regions report, and those that this engine has observed."""
    if own.context.eventual:
        return ()  # one copy may confirm a heartbeat while another copy shows silence
    observed = _observed(own, 0.0)
    regions = sorted({*own.context.environments, plan.source, plan.target})
    return [*observed, *(each for region in regions for agent in own.table.agents(region) for each in agent.silent)]


def _observed(own: OwnedPlan, least_s: float) -> Sequence[SilentAgent]:
    """Return the heartbeats that this engine itself has found unchanged for *least_s*; see :func:`_reports`."""
    return () if own.context.eventual else own.table.silence.silent(least_s)


def await_live_schedulers(own: OwnedPlan, plan: Plan, closing: Closing) -> None:
    """Wait until the live schedulers of the source have acknowledged *closing*, at most until its gate is closed."""
    while True:
        agents = own.table.agents(plan.source)
        refuse_silent_source(own, plan, closing, agents)
        if live_have_acknowledged(agents, closing.version):
            return
        if own.clock.monotonic() >= closing.gate_closed_at(agents):
            return
        own.progress.report(waits_for(plan, closing, agents))
        own.wait(own.timing.table_poll_s)


def wait_for_lease(own: OwnedPlan, plan: Plan, closing: Closing) -> None:
    """Wait until no gate and no fence of the source lets work start: after acknowledgement, or after the lease."""
    while (rest := closing.role_may_move_at(agents := own.table.agents(plan.source)) - own.clock.monotonic()) > 0:
        own.progress.report(f"{plan.source} may still execute for {rest:.0f} s")
        own.wait(min(own.timing.table_poll_s, rest))
    if closing.is_quiet:
        own.progress.done(f"an earlier caller has waited until {plan.source} could start nothing")
    elif has_acknowledged(agents, closing.version):
        own.progress.done("acknowledged; no worker can have an older view")
    elif copies.must_read(own.context, plan.source, closing.version):
        own.progress.done(f"{plan.source} can execute nothing: its view is older than {closing.lease_s:g} s")
    else:
        own.progress.done(
            f"{plan.source} may not know of the failover: if it is not down, it executes until the link is back"
        )


def await_arrival(own: OwnedPlan, plan: Plan, version: int, lease_s: float, since: float) -> float:
    """
    Return the time from which every new read of *plan.source* returns *version* or a later one.

    With eventual consistency, a region may read only its own copy. Its view is then fresh although the copy is old,
    so its lease does not end before the claim has arrived in this copy.

    :raises FailoverError: the version did not arrive within a lease, and the request is not *even_if_not_ready*.
    """
    if copies.must_read(own.context, plan.source, version):
        return since
    deadline = since + lease_wait_s(lease_s, own.timing.gate_commit_s)
    while not copies.must_read(own.context, plan.source, version):
        if has_acknowledged(own.table.agents(plan.source), version):
            return since
        if own.clock.monotonic() >= deadline:
            if own.even_if_not_ready:
                return since
            raise FailoverError(
                f"The claim did not arrive in time in the copy of the state table in {plan.source}: "
                f"{copies.why_copy_ignores_lease(plan.source)}.",
                advice="Make sure that it is down, then repeat with --mode forced --even-if-not-ready.",
            )
        own.progress.report(f"waiting for version {version} to arrive in the copy of the state table in {plan.source}")
        own.wait(own.timing.table_poll_s)
    return own.clock.monotonic()


def waits_for(plan: Plan, closing: Closing, agents: Sequence[AgentStatus]) -> str:
    """Return which schedulers of the source have not acknowledged *closing*, as a text for display."""
    jobs = awaited(agents, closing.version)
    return (
        f"waiting for schedulers of {plan.source} to acknowledge version {closing.version}"
        + (f": job {', '.join(jobs)}" if jobs else "")
        + "; at most until the lease has expired"
    )
