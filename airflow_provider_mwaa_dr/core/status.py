"""The state of a DR set and the condition of its regions, as the document of ``mwaa-dr status --json``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_mwaa_dr.core.config import DRConfig
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
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Stage, meaning
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import UnreadableItem

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionsRead:
    """
    One read of the items of all regions.

    :param documents: by region, its document. ``environment_status`` is None, because the state table does not have it.
    :param agents: by region, its agents.
    """

    documents: Mapping[str, dict[str, Any]]
    agents: Mapping[str, Sequence[WatchedAgent]]


def read_regions(
    store: StateStore, clock: Clock, config: DRConfig, *, state: DRState, why: str | None, regions: Collection[str]
) -> RegionsRead:
    """
    Return the condition of each region. A heartbeat with a doubtful time is polled for up to :data:`WATCH_S`.

    :param why: why no region has a role; None if the regions have one.
    :raises StateError: the table did not answer.
    """
    silence_s = Timing.from_config(config).agent_silence_s
    watch = IdentityClaimWatch(_identity_claims(store, regions))
    agents = watch_agents(store, list(regions), clock, believable_s=2 * config.heartbeat_s)
    claims = watch.live(_identity_claims(store, regions), clock, silence_s=silence_s)
    documents = {}
    for region in regions:
        unpublished = unpublished_of(store, region)
        is_open = unpublished is not None and unpublished.acknowledged_at is None
        held = held_tasks_of(store, region, clock.now())
        documents[region] = {
            **_region_document(_role(state, region, why), agents[region], silence_s),
            "claims": [_identity_claim_document(claim) for claim in claims if claim.place == region],
            "unpublished": unpublished_document(unpublished) if unpublished is not None and is_open else None,
            "held_tasks": held_tasks_document(held) if held is not None else None,
        }
    return RegionsRead(documents=documents, agents=agents)


def status_document(
    state: DRState,
    clock: Clock,
    *,
    why: str | None,
    regions: Mapping[str, Mapping[str, Any]],
    unreadable: Sequence[UnreadableItem] | None,
) -> dict[str, Any]:
    """
    Return the document of ``mwaa-dr status``.

    :param why: why no region has a role; None if the regions have one.
    :param regions: by region, its document from :func:`read_regions`.
    :param unreadable: the items that cannot be read; None if it is unknown whether there are any.
    """
    document = {
        **state_document(state),
        "problems": [] if why is None else [why],
        "regions": regions,
        "unreadable": None if unreadable is None else [unreadable_document(item) for item in unreadable],
    }
    if document["plan"] is not None:
        # From the clocks of two machines. A caller that takes over the plan measures on its own clock.
        silent_s = max((clock.now() - state.last_updated).total_seconds(), 0.0)
        document["plan"] = {**document["plan"], "silent_s": round(silent_s, 1)}
    return document


def plan_meaning(plan: Mapping[str, Any], phase: Phase) -> str:
    """
    Return what holds in this phase of a plan, as a text for display.

    :param plan: its document.
    """
    source, target = plan["from"], plan["to"]
    if plan["hold"] is not None and plan["hold"]["is_halted"]:
        return meaning(Stage(plan["hold"]["stage"]), source=source, target=target)
    if phase is Phase.DRAINING and plan["mode"] == Mode.FORCED.value:
        return f"no new run starts; {target} becomes active when the lease of {source} expires"
    if phase is Phase.DRAINING:
        return f"{source} starts no new run, and its runs in progress finish"
    if phase is Phase.PROMOTING:
        return f"{target} is active and prepares its database; no new run starts"
    if source == target:
        return f"cancelled; {target} stays active, and the paused DAGs are being unpaused"
    return f"{target} executes, and its DAGs are being unpaused"


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


def _role(state: DRState, region: str, why_unknown: str | None) -> Role:
    if why_unknown is not None:
        return Role.UNKNOWN
    return Role.ACTIVE if state.active_region == region else Role.STANDBY


def _region_document(role: Role, watched: Sequence[WatchedAgent], silence_s: float) -> dict[str, Any]:
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
        "environment_status": None,
        "ledger_error": leader.ledger_error if leader is not None else None,
        "final": leader.final_plan_id if leader is not None else None,
        "held_because": next((why for each in alive if (why := each.agent.held_because) is not None), None),
        "waiting": list(leader.waiting) if leader is not None else [],
        "repeats": list(leader.repeats) if leader is not None else [],
        "unread": list(leader.unread) if leader is not None else [],
        "inventory_error": leader.inventory_error if leader is not None else None,
        "settings_problem": leader.settings_problem if leader is not None else None,
        "history_error": leader.history_error if leader is not None else None,
        "history": list(leader.history) if leader is not None else [],
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
