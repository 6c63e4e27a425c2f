"""The checks before a failover: what refuses it before any write."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from airflow_provider_mwaa_dr.core.failover import actions, copies
from airflow_provider_mwaa_dr.core.failover.context import EngineContext
from airflow_provider_mwaa_dr.core.failover.request import FailoverRequest
from airflow_provider_mwaa_dr.core.heartbeats import Beats, beats, live_agents
from airflow_provider_mwaa_dr.core.ports import AgentStatus, Environment
from airflow_provider_mwaa_dr.core.readiness.model import RegionFacts, Unknown, try_read
from airflow_provider_mwaa_dr.core.readiness.refusals import refusals, unclosed_runs
from airflow_provider_mwaa_dr.core.state import DRState, Mode
from airflow_provider_mwaa_dr.exceptions import MwaaError, NotReadyError, StateError


def check(context: EngineContext, state: DRState, request: FailoverRequest) -> None:
    """Refuse the failover, before any write, if a check failed. A forced failover never calls the source."""
    context.progress.begin("check")
    why, warnings = problems(context, state, request, requests_heartbeats=True)
    if why and not request.even_if_not_ready:
        raise NotReadyError(
            f"{request.target} is not ready: {'; '.join(why)}.",
            why=why,
            advice="Nothing was changed. Correct this, or repeat with --even-if-not-ready.",
        )
    context.progress.done("; ".join((*(why or [f"{request.target} is ready"]), *warnings)))


def problems(
    context: EngineContext, state: DRState, request: FailoverRequest, *, requests_heartbeats: bool = False
) -> tuple[list[str], Sequence[str]]:
    """
    Return why the failover would be refused, and warnings that do not refuse it.

    :param requests_heartbeats: let the agents send a heartbeat now. It changes no role, and the check takes about a
        second in place of the rest of their interval. For some seconds, they also read the state more often, so the
        source soon reads the claim. Without it, nothing is written.
    """
    target = context.environment(request.target)
    if request.mode is Mode.AUTO:
        context.silence.seconds(state.active_region)
    # Read the beats first: heartbeats that change during the calls to the source then need no extra wait.
    seen = beats(context.table.agents, [target.region])
    if requests_heartbeats:
        request_id = f"{context.owner} at {context.clock.now():%Y-%m-%dT%H:%M:%S.%fZ}"
        regions = [target.region] if request.mode is Mode.FORCED else [target.region, state.active_region]
        for region in regions:
            with suppress(StateError):  # the usual heartbeats are enough
                context.table.store.request_heartbeats(region, request_id)
    of_source = _source_problems(context, state, request)
    of_target, warnings = _target_problems(context, target, seen)
    return [*of_target, *of_source], warnings


def _target_problems(context: EngineContext, target: Environment, seen: Beats) -> tuple[Sequence[str], Sequence[str]]:
    status = try_read(target.status)
    is_asked = not isinstance(status, Unknown) and status.is_usable
    is_healthy = try_read(target.scheduler_is_healthy) if is_asked else None
    agents = _live_agents(context, target.region, seen)
    why = refusals(
        RegionFacts(region=target.region, environment=target.name, status=status, is_healthy=is_healthy, agents=agents)
    )
    return [*why, *copies.unread_copies(context, target.region)], tuple(unclosed_runs(agents))


def _source_problems(context: EngineContext, state: DRState, request: FailoverRequest) -> Sequence[str]:
    source = state.active_region
    why = [copies.why_target_copy_unreadable(context, state)]
    if actions.action(context, state, request.target) is actions.FailoverAction.RECOVER:
        others = sorted(context.regions() - {request.target})
        return [
            each
            for each in (*why, *(copies.why_lease_is_ignored(context, region) for region in others))
            if each is not None
        ]
    if request.mode is Mode.GRACEFUL:
        try:
            context.environment(source).running_runs()
        except MwaaError as error:
            why.append(f"source {source} does not answer ({error}); --mode forced does not need it")
    elif request.mode is Mode.FORCED:
        why.append(copies.why_lease_is_ignored(context, source))
    return [each for each in why if each is not None]


def _live_agents(context: EngineContext, region: str, seen: Beats) -> Sequence[AgentStatus]:
    return live_agents(
        context.table.agents,
        seen,
        context.clock,
        silence_s=context.timing.agent_silence_s,
        poll_s=context.timing.table_poll_s,
        on_wait=lambda _: context.progress.report(f"waiting for a heartbeat from {region}"),
    )[region]
