"""``mwaa-dr status``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from airflow_provider_mwaa_dr.cli.parallel_queries import ParallelQueries
from airflow_provider_mwaa_dr.cli.runtime import Runtime
from airflow_provider_mwaa_dr.cli.session import CliSession, CommandParsers
from airflow_provider_mwaa_dr.cli.status_text import status_text
from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.display import visible, visible_document
from airflow_provider_mwaa_dr.core.documents import (
    held_tasks_document,
    state_document,
    unpublished_document,
    unreadable_document,
)
from airflow_provider_mwaa_dr.core.gate import Role
from airflow_provider_mwaa_dr.core.identity import IdentityClaimWatch
from airflow_provider_mwaa_dr.core.ports import IDENTITY_CLAIMS, AgentStatus, Clock, IdentityClaim, StateStore
from airflow_provider_mwaa_dr.core.readiness.collect import held_tasks_of, unpublished_of
from airflow_provider_mwaa_dr.core.state import DRState, why_unknown
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError, UnreadableItem

WATCH_S = 1.5
"""How long a heartbeat with a doubtful time is polled. It is short, because a user waits for the answer."""
POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class WatchedAgent:
    """
    One scheduler's agent, with the age of its last heartbeat.

    :param age_s: seconds since the heartbeat changed. If this process saw the change, its own clock counts. Otherwise
        this is the age of the agent's own timestamp, which is as exact as the two clocks agree.
    """

    agent: AgentStatus
    age_s: float


def add_command(commands: CommandParsers) -> None:
    """Add ``status``."""
    commands.add("status", run, summary="show the active region, the open plan and the condition of each region")


def run(session: CliSession) -> None:
    """Print the state, and for each region its role, its agents and the status of its environment."""
    state = session.store.read()
    registered = session.store.regions()
    why = why_unknown(state, registered, region="REGION")
    names = _names(session, state, registered)
    asked = ParallelQueries(
        {region: partial(_environment_status, session.runtime, region, name) for region, name in names.items() if name},
        session.clock,
    )
    silence_s = Timing.from_config(session.config).agent_silence_s
    watch = IdentityClaimWatch(_identity_claims(session.store, names))
    watched = watch_agents(session.store, list(names), session.clock, believable_s=2 * session.config.heartbeat_s)
    claims = watch.live(_identity_claims(session.store, names), session.clock, silence_s=silence_s)
    answers: dict[str, str] = {}
    for region, answer in asked.collect().items():
        if isinstance(answer, DRError):
            session.console.say(f"{region}: {answer.message}")
        else:
            answers[region] = answer
    regions = {
        region: {
            **_region_document(_role(state, region, why), watched[region], answers.get(region), silence_s),
            "claims": [_identity_claim_document(claim) for claim in claims if claim.place == region],
        }
        for region in names
    }
    for region, found in regions.items():
        unpublished = unpublished_of(session.store, region)
        is_open = unpublished is not None and unpublished.acknowledged_at is None
        found["unpublished"] = unpublished_document(unpublished) if unpublished is not None and is_open else None
        held = held_tasks_of(session.store, region, session.clock.now())
        found["held_tasks"] = held_tasks_document(held) if held is not None else None
    unreadable = _unreadable(session, names)
    document = {
        **state_document(state),
        "problems": [] if why is None else [why],
        "regions": regions,
        "unreadable": None if unreadable is None else [unreadable_document(item) for item in unreadable],
    }
    if document["plan"] is not None:
        # From the clocks of two machines. A caller that takes over the plan measures on its own clock.
        silent_s = max((session.clock.now() - state.last_updated).total_seconds(), 0.0)
        document["plan"] = {**document["plan"], "silent_s": round(silent_s, 1)}
    lines: list[str] = []
    if session.config.eventual_mode is not None:
        document["eventual"], lines = _copies(session, session.config.eventual_mode)
    lines += _other_tables(watched, session.config.eventual_mode)
    more = [*map(visible, lines)]
    if unreadable:
        more += ["", f"{len(unreadable)} item{'' if len(unreadable) == 1 else 's'} cannot be read:"]
        for item in unreadable:
            more += [session.console.alarm(f"! {visible(str(item))}"), f"    {visible(item.advice)}"]
    # A line break in a reason must not look like a line of this command.
    shown, shown_names = visible_document(document), visible_document(names)
    text = status_text(shown, shown_names, Timing.from_config(session.config), session.console)
    session.console.result(document, "\n".join([text, *more]))


def _unreadable(session: CliSession, names: Mapping[str, str]) -> Sequence[UnreadableItem] | None:
    """Return the items of the state table that cannot be read; None when the scan failed."""
    try:
        return session.store.unreadable(names)
    except DRError as error:
        session.console.say(f"The check for unreadable items failed: {error.message}")
        return None


def watch_agents(
    store: StateStore, regions: Sequence[str], clock: Clock, *, believable_s: float
) -> Mapping[str, Sequence[WatchedAgent]]:
    """
    Return each region's agents with the age of their last heartbeat.

    One read is enough for agents whose own timestamp is at most *believable_s* old. The others (silent, or with a
    wrong clock) are polled for up to :data:`WATCH_S`. An agent whose heartbeat changes is alive, whatever its time.
    """
    seen = {(agent.region, agent.job): agent for region in regions for agent in store.agents(region)}
    changed_at: dict[tuple[str, str], float] = {}
    began = clock.monotonic()

    def is_certain(key: tuple[str, str]) -> bool:
        return key in changed_at or 0 <= (clock.now() - seen[key].at).total_seconds() <= believable_s

    while clock.monotonic() - began < WATCH_S and (doubtful := {key[0] for key in seen if not is_certain(key)}):
        clock.sleep(POLL_S)
        for agent in (agent for region in sorted(doubtful) for agent in store.agents(region)):
            key = (agent.region, agent.job)
            if key in seen and agent.beat != seen[key].beat:
                changed_at[key] = clock.monotonic()
            seen[key] = agent
    watched: dict[str, list[WatchedAgent]] = {region: [] for region in regions}
    for key, agent in sorted(seen.items()):
        if key in changed_at:
            age_s = clock.monotonic() - changed_at[key]
        else:
            age_s = max((clock.now() - agent.at).total_seconds(), 0.0)
        watched[key[0]].append(WatchedAgent(agent, age_s))
    return watched


def _copies(session: CliSession, mode: Eventual) -> tuple[dict[str, Any], list[str]]:
    """Return the state in each replica of the table, and the mode with its price, as a document and as text."""
    held = session.store.copies()
    copies = {
        region: {"epoch": state.epoch, "version": state.version} if (state := held.get(region)) is not None else None
        for region in session.config.replicas
    }
    shown = ", ".join(
        f"{region} has epoch {copy['epoch']}, version {copy['version']}" if copy else f"{region} does not answer"
        for region, copy in copies.items()
    )
    lines = ["", f"Eventual consistency, {mode.value}: {mode.price}.", f"Replicas of the state table: {shown}."]
    return {"mode": mode.value, "copies": copies}, lines


def _other_tables(watched: Mapping[str, Sequence[WatchedAgent]], mode: Eventual | None) -> list[str]:
    """Return a line for each region whose agents are configured for another kind of table than this command."""
    mine = mode.value if mode is not None else None
    return [
        f"WARNING: an agent of {region} treats the state table as a table with {_kind(each.agent.eventual)}, this "
        f"command as a table with {_kind(mine)}. Set [dr] table_consistency and eventual to the same values."
        for region, found in watched.items()
        for each in found[:1]
        if (each.agent.eventual is None) != (mine is None)
    ]


def _kind(mode: str | None) -> str:
    return "strong consistency" if mode is None else f"eventual consistency ({mode})"


def _names(session: CliSession, state: DRState, registered: Collection[str]) -> Mapping[str, str]:
    """Return the environment names by region; status also works if no environment is known."""
    try:
        names = dict(session.names)
    except ConfigError:
        names = {}
    # Before an agent or init has registered a region, only the state names one.
    active = {state.active_region: ""} if not registered or state.active_region in registered else {}
    return dict(sorted({**active, **names}.items()))


def _role(state: DRState, region: str, why_unknown: str | None) -> Role:
    if why_unknown is not None:
        return Role.UNKNOWN
    return Role.ACTIVE if state.active_region == region else Role.STANDBY


def _environment_status(runtime: Runtime, region: str, name: str) -> str:
    return runtime.make_environment(region, name).status().value


def _region_document(
    role: Role, watched: Sequence[WatchedAgent], environment_status: str | None, silence_s: float
) -> dict[str, Any]:
    alive = [each for each in watched if each.age_s <= silence_s and not each.agent.gone]
    fences = {each.agent.fence_ok for each in alive}
    is_active = role is Role.ACTIVE
    leader = _leader([each.agent for each in alive])
    # If no agent is alive, this is the age of the last heartbeat. It grows, so that an alarm can use it.
    ages = [max(each.age_s for each in alive)] if alive else sorted(each.age_s for each in watched)[:1]
    return {
        "role": role.value,
        "agent_age_s": round(ages[0], 1) if ages else None,
        "schedulers": len(alive),
        "fence_ok": False if False in fences else (True if True in fences else None),
        # A standby region publishes nothing: it has no lag.
        "ledger_lag_s": leader.ledger_lag_s if leader is not None and is_active else None,
        "environment_status": environment_status,
        "ledger_error": leader.ledger_error if leader is not None else None,
        "final": leader.final_plan_id if leader is not None else None,
        "held_because": next((why for each in alive if (why := each.agent.held_because) is not None), None),
        "waiting": list(leader.waiting) if leader is not None else [],
        "repeats": list(leader.repeats) if leader is not None else [],
        "unread": list(leader.unread) if leader is not None else [],
        "inventory_error": leader.inventory_error if leader is not None else None,
        "exempt": list(leader.exempt) if leader is not None and leader.exempt is not None else None,
        "unguarded_triggerers": list(leader.unguarded) if leader is not None else [],
        "leftovers": leader.unclosed_runs if leader is not None else None,
        "reconciled_epoch": leader.reconciled_epoch if leader is not None else None,
        "closed": sum(each.agent.closed for each in alive),
        "ledger_wait_s": leader.ledger_wait_s if leader is not None else None,
        "problems": sorted({problem for each in alive for problem in each.agent.problems}),
    }


def _identity_claims(store: StateStore, regions: Iterable[str]) -> Sequence[IdentityClaim]:
    return [claim for region in regions for claim in store.find_all(IDENTITY_CLAIMS, region)]


def _identity_claim_document(claim: IdentityClaim) -> dict[str, Any]:
    return {
        "region": claim.region,
        "environment": claim.environment,
        "aws_region": claim.aws_region,
        "problem": claim.problem,
    }


def _leader(alive: Sequence[AgentStatus]) -> AgentStatus | None:
    """Return the agent of the oldest scheduler, which keeps the region's ledger. A former leader has stale values."""
    leaders = [agent for agent in alive if agent.schedulers[:1] == (agent.job,)]
    return next(iter([*leaders, *alive]), None)
