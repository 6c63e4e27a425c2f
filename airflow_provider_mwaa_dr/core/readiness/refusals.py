"""
The checks that refuse a failover: whether the target can take over now.

If a check in :data:`REFUSALS` fails, the failover engine refuses, with the same text (:func:`refusals`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.ports import PROTOCOL, AgentStatus
from airflow_provider_mwaa_dr.core.readiness.model import CheckResult, Facts, RegionFacts, Unknown, Verdict, no_agent

LEDGER_LAG_S = 60.0
"""The greatest acceptable lag of a ledger: a forced failover may repeat or miss the runs of this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """
    A check of one region. Its problems in the target refuse a failover.

    :param fails_when: what the check finds, for the reference.
    :param problems: in the target a failure, in the source a warning; a line each.
    :param doubts: warnings in both regions.
    :param fine: the text for a region without problems and doubts.
    :param advice: what to do; ``{region}``, ``{aws_region}`` and ``{environment}`` are those of the first region with
        problems or doubts. ``{region}`` is the id of its site.
    """

    name: str
    fails_when: str
    problems: Callable[[RegionFacts], Iterable[str]]
    doubts: Callable[[RegionFacts], Iterable[str]]
    fine: Callable[[RegionFacts], str]
    advice: str

    def __call__(self, facts: Facts) -> CheckResult:
        """Return the result for both regions."""
        verdict, sentences, fine = Verdict.OK, [], []
        concerned: RegionFacts | None = None
        for region in facts.regions:
            problems, doubts = list(self.problems(region)), list(self.doubts(region))
            if problems and region is facts.target:
                verdict = Verdict.FAIL
            elif (problems or doubts) and verdict is Verdict.OK:
                verdict = Verdict.WARN
            if problems or doubts:
                concerned = concerned or region
                sentences += [*problems, *doubts]
            else:
                fine.append(self.fine(region))
        if concerned is None:
            return CheckResult(name=self.name, verdict=verdict, why="; ".join(fine))
        advice = self.advice_for(facts, concerned)
        return CheckResult(name=self.name, verdict=verdict, why="; ".join(sentences), advice=advice)

    def advice_for(self, facts: Facts, region: RegionFacts) -> str:
        """Return what to do about the problem of a region. Consoles have AWS regions, not sites."""
        return region.advice or self.advice.format(
            region=region.region, aws_region=facts.aws_region_of(region), environment=region.environment
        )


def _environment_problems(region: RegionFacts) -> Iterable[str]:
    if isinstance(region.status, Unknown):
        yield region.status.why
    elif not region.status.is_usable:
        yield f"environment {region.environment} is {region.status.value}"


def _environment_doubts(region: RegionFacts) -> Iterable[str]:
    if not isinstance(region.description, Unknown) and region.description.last_update == "FAILED":
        yield f"the last update of environment {region.environment} failed"


def _environment_is_fine(region: RegionFacts) -> str:
    assert not isinstance(region.status, Unknown)  # noqa: S101  (a problem otherwise)
    return f"{region.environment} is {region.status.value}"


def _scheduler_problems(region: RegionFacts) -> Iterable[str]:
    if isinstance(region.is_healthy, Unknown):
        yield region.is_healthy.why
    elif region.is_healthy is False:
        yield f"Airflow in {region.environment} reports that its scheduler is not healthy"


def _scheduler_doubts(region: RegionFacts) -> Iterable[str]:
    if region.is_healthy is None:
        yield f"Airflow in {region.environment} was not called: the environment is not usable"


def _agents_problems(region: RegionFacts) -> Iterable[str]:
    if not region.agents:
        yield (
            f"no agent is alive in {region.region} (is the plugin installed and [dr] enabled in {region.environment}?)"
        )
    unseen = {job for agent in region.agents for job in agent.schedulers} - {agent.job for agent in region.agents}
    if unseen:
        yield f"schedulers without an agent in {region.region}: job {', '.join(sorted(unseen))}"


def _protocol_problems(region: RegionFacts) -> Iterable[str]:
    others = sorted({agent.protocol for agent in region.agents} - {PROTOCOL})
    if others:
        versions = ", ".join(map(str, others))
        yield f"agents of {region.region} use protocol version {versions}, this machine uses {PROTOCOL}"


def _ledger_problems(region: RegionFacts) -> Iterable[str]:
    broken = next((agent.ledger_error for agent in region.agents if agent.ledger_error), None)
    if broken is not None:
        yield f"the ledger cannot be used in {region.region}: {broken.rstrip('.')}"


def _ledger_doubts(region: RegionFacts) -> Iterable[str]:
    yield from no_agent(region)
    lag_s = max((agent.ledger_lag_s for agent in region.agents if agent.ledger_lag_s is not None), default=None)
    if lag_s is not None and lag_s > LEDGER_LAG_S:
        yield f"the ledger of {region.region} is {lag_s:.0f} s behind"


def _ledger_is_fine(region: RegionFacts) -> str:
    lags = [agent.ledger_lag_s for agent in region.agents if agent.ledger_lag_s is not None]
    if not lags:
        return f"{region.region} has no ledger, or has published nothing"
    return f"{region.region} is {max(lags):.0f} s behind"


def _fence_problems(region: RegionFacts) -> Iterable[str]:
    if any(agent.fence_ok is False for agent in region.agents):
        yield f"tasks ended in {region.region} without the fence"


def _fence_doubts(region: RegionFacts) -> Iterable[str]:
    if region.held_tasks is not None:
        yield f"the fence of {region.region} {str(region.held_tasks).rstrip('.')}"
    yield from no_agent(region)
    if not isinstance(region.inventory, Unknown) and region.inventory.options.get("fence") == "False":
        yield f"the fence is switched off in {region.region}"
    elif region.agents and all(agent.fence_ok is None for agent in region.agents):
        yield f"no task has run yet that shows whether the fence is loaded in the workers of {region.region}"


def _unclosed_doubts(region: RegionFacts) -> Iterable[str]:
    yield from no_agent(region)
    yield from unclosed_runs(region.agents)


def unclosed_runs(agents: Sequence[AgentStatus]) -> Iterable[str]:
    """
    Yield a sentence about open runs that do not belong to a standby.

    They are no reason to refuse: a DAG that is unpaused in a standby has such a run almost all the time. A promoted
    region closes these runs before it starts anything.
    """
    count = max((agent.unclosed_runs for agent in agents), default=0)
    if count:
        yield (
            f"{count} open runs in {agents[0].region} are not closed yet; its agent closes them, at the latest "
            "when the region is promoted"
        )


def _nothing(_: RegionFacts) -> Iterable[str]:
    return ()


REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        name="environment",
        fails_when="the target's MWAA environment is not usable",
        problems=_environment_problems,
        doubts=_environment_doubts,
        fine=_environment_is_fine,
        advice="Check environment {environment} in the MWAA console of {aws_region}; an update takes 20 to 30 minutes.",
    ),
    Refusal(
        name="scheduler",
        fails_when="the target's Airflow reports no healthy scheduler",
        problems=_scheduler_problems,
        doubts=_scheduler_doubts,
        fine=lambda region: f"{region.environment} is healthy",
        advice="Read the scheduler's log of {environment} in CloudWatch. An update of the environment restarts it.",
    ),
    Refusal(
        name="agents",
        fails_when="no agent is alive in the target, or a scheduler runs without an agent",
        problems=_agents_problems,
        doubts=_nothing,
        fine=lambda region: f"{region.region}: {len(region.agents)} alive",
        advice="In {environment}, check the scheduler's requirements_install log for installation errors, and the "
        "configuration options for dr.enabled = true; MWAA starts Airflow without a package that failed to install.",
    ),
    Refusal(
        name="protocol",
        fails_when="the target's agents use another version of the protocol",
        problems=_protocol_problems,
        doubts=no_agent,
        fine=lambda region: f"{region.region} uses version {PROTOCOL}",
        advice="Install the same version of airflow-provider-mwaa-dr in {environment} and on this machine.",
    ),
    Refusal(
        name="ledger",
        fails_when="the target's agent cannot use the runs table",
        problems=_ledger_problems,
        doubts=_ledger_doubts,
        fine=_ledger_is_fine,
        advice="Read the scheduler's log of {environment}; its role needs dynamodb:GetItem, PutItem, DeleteItem and "
        "Query on the runs table.",
    ),
    Refusal(
        name="fence",
        fails_when="a task ended in the target without the fence; a warning if no task has shown the fence yet, or if "
        "the fence has held tasks for long",
        problems=_fence_problems,
        doubts=_fence_doubts,
        fine=lambda region: f"loaded in the workers of {region.region}",
        advice="Run a task in {environment}, for example of dr_readiness, whose tag lets it run in a standby, and "
        "repeat the check a minute later. If the result is the same, the plugin is not loaded in the workers: check "
        "the worker's requirements_install log, and that [dr] fence is not off. If tasks are held, do first what the "
        "result says.",
    ),
    Refusal(
        name="leftovers",
        fails_when="a warning: open runs of an earlier epoch are still open in the target",
        problems=_nothing,
        doubts=_unclosed_doubts,
        fine=lambda region: f"no open run of an earlier epoch in {region.region}",
        advice="Wait some seconds until the agent of {environment} has closed them. If they stay, or if new ones "
        "appear, pause the DAGs that are unpaused in {region}, and read the log of its agent.",
    ),
)
"""The checks that refuse a failover, in the order of their reasons in the message."""


def refusals(target: RegionFacts) -> Sequence[str]:
    """Return the reasons to refuse a failover to *target*, a line each."""
    return [why for refusal in REFUSALS for why in refusal.problems(target)]


def ignores_lease(heartbeats: Sequence[AgentStatus]) -> bool:
    """Whether a scheduler runs work even if it cannot read the state table, so that its lease does not stop it."""
    return any(agent.on_unreachable == "run" and not agent.gone for agent in heartbeats)


def why_lease_is_ignored(region: str) -> str:
    """Return why the lease does not stop a region for which :func:`ignores_lease` is true."""
    return f"{region} continues when it cannot read the state ([dr] on_unreachable = run), so no lease stops it"
