"""
The readiness checks: whether a failover would succeed now, and what would be missing in the target afterwards.

Each check is a pure function from :class:`Facts` to one :class:`CheckResult`. If a fact could not be read, because a
region is down or the caller has no permission, the result is a warning with the reason. If a check in :data:`REFUSALS`
fails, the failover engine refuses, with the same text (:func:`refusals`). If no check of ``mwaa-dr check`` fails, the
engine refuses only for reasons that depend on the request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from fnmatch import fnmatchcase
from typing import TypeAlias, TypeVar

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.core.config import DRConfig, TableConsistency, is_exempt
from airflow_provider_mwaa_dr.core.display import counted
from airflow_provider_mwaa_dr.core.inventory import DEPENDS_ON_PAST, EXTERNAL_SENSOR, Inventory
from airflow_provider_mwaa_dr.core.ports import (
    PROTOCOL,
    AgentStatus,
    Claim,
    DagInfo,
    DagSet,
    EnvironmentDescription,
    EnvironmentStatus,
    FailoverRecord,
    TableDescription,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import STATE_ID, DRState, Phase, why_unknown
from airflow_provider_mwaa_dr.exceptions import DRError, MwaaAccessError, StateAccessError, UnreadableItem

T = TypeVar("T")

TEST_DAG = "dr_test_dag"
"""If the target has this DAG unpaused, a failover waits for a run of it to succeed."""
LEDGER_LAG_S = 60.0
"""The greatest acceptable lag of a ledger: a forced failover may repeat or miss the runs of this time."""
CLOCK_S = 30.0
"""The greatest acceptable difference of clocks, in addition to the time that the check takes."""
INVENTORY_AGE = timedelta(minutes=45)
"""The greatest acceptable age of an inventory; an agent writes one every 15 minutes."""
DRILL_AGE = timedelta(days=90)
_DISTRIBUTION = "airflow-provider-mwaa-dr"
_SHOWN = 10
"""The most elements of a list in a message."""
_CLASSES = ("mw1.micro", "mw1.small", "mw1.medium", "mw1.large", "mw1.xlarge", "mw1.2xlarge")
_OWN_OPTIONS = frozenset({"region", "state_table_region", "accepted_differences"})
"""Settings that may differ between the regions."""


class Verdict(str, Enum):
    """The verdict of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """
    The result of one check.

    :param name: of the check; never changes between versions.
    :param why: what the check found, also if there is no problem.
    :param advice: what to do; empty if no action is necessary.
    """

    name: str
    verdict: Verdict
    why: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """
    A fact that could not be read.

    :param why: the reason.
    :param is_refused: the caller has no permission, so a retry does not help.
    """

    why: str
    is_refused: bool = False


def try_read(call: Callable[[], T]) -> T | Unknown:
    """Return the result of *call*, or why it failed."""
    try:
        return call()
    except DRError as error:
        return Unknown(str(error).rstrip("."), isinstance(error, (MwaaAccessError, StateAccessError)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFacts:
    """
    The facts about one region.

    :param environment: the environment's name.
    :param is_healthy: whether Airflow reports its scheduler as healthy; None if Airflow was not called, because the
        environment is not usable.
    :param agents: the live agents: their heartbeats changed while the facts were read.
    :param heartbeats: the last heartbeats of all agents, dead ones included.
    :param may_change: whether the caller may pause and unpause DAGs of the region; None if this was not tried.
    :param claims: of live agents in this AWS region whose environment is not that of the region it claims.
    :param advice: what to do first if no fact about the region could be read; replaces the advice of the checks.
    """

    region: str
    environment: str
    status: EnvironmentStatus | Unknown
    is_healthy: bool | Unknown | None
    agents: Sequence[AgentStatus]
    heartbeats: Sequence[AgentStatus] = ()
    claims: Sequence[Claim] = ()
    description: EnvironmentDescription | Unknown = Unknown("not asked")
    may_change: bool | Unknown | None = None
    dags: Sequence[DagInfo] | Unknown = Unknown("not asked")
    snapshot: DagSet | None = None
    unpublished: Unpublished | None = None
    inventory: Inventory | Unknown = Unknown("not asked")
    advice: str = ""

    @property
    def dag_ids(self) -> frozenset[str] | Unknown:
        """Ids of the region's DAGs, from the REST API or else from the last inventory."""
        if not isinstance(self.dags, Unknown):
            return frozenset(dag.dag_id for dag in self.dags)
        if not isinstance(self.inventory, Unknown):
            return frozenset(self.inventory.dags)
        return self.dags


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """
    The facts about a DR set.

    :param at: when they were read, by the caller's clock.
    :param source: the active region.
    :param target: the region that the checks examine as the target of a failover.
    :param settings: the caller's settings.
    :param silence_s: the longest wait for a heartbeat.
    :param may_flip: whether the caller may write the state.
    :param runs_table: None if no runs table is known.
    :param registered: the registered regions; None if they were not read.
    :param unreadable: items of the state table without their required content.
    :param dags_not_unpaused: DAGs that the last failover to the source could not unpause; the next failover includes
        them.
    """

    state: DRState
    at: datetime
    settings: DRConfig
    silence_s: float
    source: RegionFacts
    target: RegionFacts
    may_flip: bool | Unknown
    table: TableDescription | Unknown
    runs_table: TableDescription | Unknown | None
    records: Sequence[FailoverRecord] | Unknown
    registered: frozenset[str] | Unknown | None = None
    unreadable: Sequence[UnreadableItem] | Unknown = ()
    dags_not_unpaused: tuple[str, ...] = ()

    @property
    def regions(self) -> tuple[RegionFacts, RegionFacts]:
        """Target and source."""
        return self.target, self.source

    @property
    def wanted(self) -> frozenset[str] | Unknown:
        """The DAGs that a failover would unpause: those unpaused in the source, now or in its last snapshot."""
        dags, snapshot = self.source.dags, self.source.snapshot
        if not isinstance(dags, Unknown):
            running = {dag.dag_id for dag in dags if not dag.is_paused and not self.exempts(dag)}
            return frozenset(running) | frozenset(self.dags_not_unpaused)
        if snapshot is not None:
            return frozenset(snapshot.dag_ids) | frozenset(self.dags_not_unpaused)
        return dags

    def exempts(self, dag: DagInfo) -> bool:
        """Whether *dag* is exempt."""
        return is_exempt(dag.dag_id, dag.tags, self.settings.exempt_dags)


Check: TypeAlias = Callable[[Facts], CheckResult]


# Checks that refuse a failover.


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """
    A check of one region. Its problems in the target refuse a failover.

    :param problems: in the target a failure, in the source a warning; a line each.
    :param doubts: warnings in both regions.
    :param fine: the text for a region without problems and doubts.
    :param advice: what to do; ``{region}`` and ``{environment}`` are those of the first region with problems or doubts.
    """

    name: str
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
        advice = concerned.advice or self.advice.format(region=concerned.region, environment=concerned.environment)
        return CheckResult(name=self.name, verdict=verdict, why="; ".join(sentences), advice=advice)


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
    yield from _unseen(region)
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
    yield from _unseen(region)
    if not isinstance(region.inventory, Unknown) and region.inventory.options.get("fence") == "False":
        yield f"the fence is switched off in {region.region}"
    elif region.agents and all(agent.fence_ok is None for agent in region.agents):
        yield f"no task has run yet that shows whether the fence is loaded in the workers of {region.region}"


def _unclosed_doubts(region: RegionFacts) -> Iterable[str]:
    yield from _unseen(region)
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


def _unseen(region: RegionFacts) -> Iterable[str]:
    if not region.agents:
        yield f"unknown in {region.region}: no agent is alive"


def _nothing(_: RegionFacts) -> Iterable[str]:
    return ()


REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        name="environment",
        problems=_environment_problems,
        doubts=_environment_doubts,
        fine=_environment_is_fine,
        advice="Check environment {environment} in the MWAA console of {region}; an update takes 20 to 30 minutes.",
    ),
    Refusal(
        name="scheduler",
        problems=_scheduler_problems,
        doubts=_scheduler_doubts,
        fine=lambda region: f"{region.environment} is healthy",
        advice="Read the scheduler's log of {environment} in CloudWatch. An update of the environment restarts it.",
    ),
    Refusal(
        name="agents",
        problems=_agents_problems,
        doubts=_nothing,
        fine=lambda region: f"{region.region}: {len(region.agents)} alive",
        advice="In {environment}, check the scheduler's requirements_install log for installation errors, and the "
        "configuration options for dr.enabled = true; MWAA starts Airflow without a package that failed to install.",
    ),
    Refusal(
        name="protocol",
        problems=_protocol_problems,
        doubts=_unseen,
        fine=lambda region: f"{region.region} uses version {PROTOCOL}",
        advice="Install the same version of airflow-provider-mwaa-dr in {environment} and on this machine.",
    ),
    Refusal(
        name="ledger",
        problems=_ledger_problems,
        doubts=_ledger_doubts,
        fine=_ledger_is_fine,
        advice="Read the scheduler's log of {environment}; its role needs dynamodb:GetItem, PutItem, DeleteItem and "
        "Query on the runs table.",
    ),
    Refusal(
        name="fence",
        problems=_fence_problems,
        doubts=_fence_doubts,
        fine=lambda region: f"loaded in the workers of {region.region}",
        advice="Run a task in {environment}, for example of dr_readiness, whose tag lets it run in a standby, and "
        "repeat the check a minute later. If the result is the same, the plugin is not loaded in the workers: check "
        "the worker's requirements_install log, and that [dr] fence is not off.",
    ),
    Refusal(
        name="leftovers",
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


# Comparisons.


@dataclass(frozen=True, slots=True)
class _Difference:
    """
    Things that differ in the same way.

    :param phrase: the text before the names; with *value_of*, the text after them.
    """

    verdict: Verdict
    phrase: str
    names: Collection[str]
    value_of: bool = False


def _compared(
    name: str, facts: Facts, differences: Iterable[_Difference], *, fine: str, advice: str, doubts: Iterable[str] = ()
) -> CheckResult:
    """
    Return a result from differences, without those that the settings accept.

    :param doubts: comparisons that were not possible, a sentence each.
    """
    verdict, sentences, accepted = Verdict.OK, [], set()
    for difference in differences:
        names = [each for each in sorted(difference.names) if not _accepts(facts, name, each)]
        accepted |= set(difference.names) - set(names)
        if names:
            words = (some(names), difference.phrase) if difference.value_of else (difference.phrase, some(names))
            sentences.append(": ".join(words))
            if verdict is not Verdict.FAIL:
                verdict = difference.verdict
    for doubt in doubts:
        sentences.append(doubt)
        verdict = Verdict.WARN if verdict is Verdict.OK else verdict
    if accepted:
        sentences.append(f"accepted: {some(sorted(accepted))}")
    if verdict is Verdict.OK:
        return CheckResult(name=name, verdict=verdict, why="; ".join([fine, *sentences]) if accepted else fine)
    return CheckResult(name=name, verdict=verdict, why="; ".join(sentences), advice=advice)


def _accepts(facts: Facts, check: str, name: str) -> bool:
    return any(fnmatchcase(f"{check}:{name}", pattern) for pattern in facts.settings.accepted_differences)


def some(names: Sequence[str]) -> str:
    """Return the first of *names*, and the number of the others."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _inventories(facts: Facts) -> tuple[Inventory, Inventory] | Unknown:
    """Return the inventories of target and source, or why one of them is missing."""
    target, source = facts.target.inventory, facts.source.inventory
    if isinstance(target, Unknown):
        return Unknown(f"no inventory of {facts.target.region}: {target.why}")
    if isinstance(source, Unknown):
        return Unknown(f"no inventory of {facts.source.region}: {source.why}")
    return target, source


def _not_made(name: str, why: str, advice: str) -> CheckResult:
    return CheckResult(name=name, verdict=Verdict.WARN, why=f"not checked: {why}", advice=advice)


_INVENTORY_ADVICE = "The region's agent writes it within minutes after the scheduler starts; see the check inventory."


# The checks of the set.


def check_state(facts: Facts) -> CheckResult:
    """Whether the state names an active region, and whether a failover is in progress."""
    state, plan, registered = facts.state, facts.state.plan, facts.registered
    if isinstance(registered, Unknown):
        return _not_made("state", registered.why, "Repeat the check when the state table answers.")
    if registered is not None and (why := why_unknown(state, registered, region=facts.target.region)):
        return CheckResult(
            name="state",
            verdict=Verdict.FAIL,
            why=f"no region has a role, and every region holds every run: {why}",
            advice=state_advice(state, registered, table=facts.settings.state_table, target=facts.target.region),
        )
    held = [
        f"{region.region} holds every run: {agent.held_because}"
        for region in facts.regions
        for agent in region.agents[:1]
        if agent.held_because is not None
    ]
    if held:
        return CheckResult(name="state", verdict=Verdict.FAIL, why="; ".join(held), advice="Correct the named values.")
    if state.phase is Phase.STEADY or plan is None:
        return CheckResult(
            name="state", verdict=Verdict.OK, why=f"{state.active_region} is active, epoch {state.epoch}, steady"
        )
    return CheckResult(
        name="state",
        verdict=Verdict.WARN,
        why=f"plan {plan.id} is open ({state.phase.value}): {plan.source} -> {plan.target}, by {plan.by}",
        advice=f"Continue it, unless its owner does: mwaa-dr failover {plan.target} --reason TEXT.",
    )


def state_advice(state: DRState, registered: Collection[str], *, table: str, target: str) -> str:
    """Return how to correct a state that gives no region a role: the item, the fields and their allowed values."""
    corrections = [f"{problem.field} to {problem.allowed}" for problem in state.problems]
    if registered and state.active_region not in registered:
        *others, last = sorted(registered)
        allowed = f"{', '.join(others)} or {last}" if others else last
        corrections.append(f"active_region to the region that executes ({allowed})")
    take_over = f"ive a region the role: mwaa-dr failover {target} --reason TEXT."
    if not corrections:
        return f"G{take_over}"
    return f"In the item {STATE_ID} of table {table}, set {' and '.join(corrections)}. Or g{take_over}"


def check_table(facts: Facts) -> CheckResult:
    """Whether the state table survives the loss of a region, and all regions read all its copies."""
    table = facts.table
    if isinstance(table, Unknown):
        return _not_made("table", table.why, "Give the caller dynamodb:DescribeTable on the state table.")
    sentences, advice = [], []
    here = table.regions[0]
    if table.consistency is TableConsistency.SINGLE:
        if here == facts.source.region:
            sentences.append(f"{table.name} is only in {here}, the active region: without it, no failover is possible")
        else:
            sentences.append(
                f"{table.name} is only in {here}: if this region is lost, {facts.source.region} holds all its work "
                f"after {facts.state.lease_s:g} s"
            )
        advice.append("Use a global table with a copy in each region of the set. Create it from an empty table, with ")
        advice[-1] += "strong consistency if AWS offers it for these regions."
    elif table.consistency is TableConsistency.EVENTUAL:
        sentences.append(
            f"{table.name} is eventually consistent: a region that is cut off reads its own copy, and may consider "
            "itself active until it is connected again"
        )
        advice.append("Use strong consistency if AWS offers it for these regions. Otherwise, force a failover only ")
        advice[-1] += "if the active region is certainly down."
    if table.consistency is not TableConsistency.SINGLE:
        bare = [region.region for region in facts.regions if region.region not in table.regions]
        if bare:
            sentences.append(f"no copy in {', '.join(bare)}")
            advice.append(f"Add a replica in {bare[0]}.")
        unread = [
            f"{who} reads only {', '.join(sorted(read))}"
            for who, read in _readers(facts)
            if read and not read >= set(table.regions)
        ]
        if unread:
            sentences += unread
            replicas = ",".join(table.regions)
            advice.append(f"Set [dr] state_table_replicas = {replicas} (on this machine DR_STATE_TABLE_REPLICAS).")
    if not table.is_protected:
        sentences.append("deletion protection is off")
        advice.append(
            f"Switch it on: aws dynamodb update-table --region {here} --table-name {table.name} "
            "--deletion-protection-enabled."
        )
    if not sentences:
        why = f"{table.name}: {table.consistency.value} consistency, copies in {', '.join(table.regions)}"
        return CheckResult(name="table", verdict=Verdict.OK, why=why)
    return CheckResult(name="table", verdict=Verdict.WARN, why="; ".join(sentences), advice=" ".join(advice))


def _readers(facts: Facts) -> Iterable[tuple[str, set[str]]]:
    """Yield this machine and each known region, with the regions in which it reads the state table."""
    yield "this machine", set(facts.settings.replicas)
    for region in facts.regions:
        if not isinstance(region.inventory, Unknown):
            options = region.inventory.options
            named = f"{options.get('state_table_region', '')},{options.get('state_table_replicas', '')}"
            yield region.region, {each for each in named.split(",") if each} or {region.region}


def check_runs_table(facts: Facts) -> CheckResult:
    """Whether there is a ledger, and whether it survives the loss of a region."""
    table = facts.runs_table
    if table is None:
        return CheckResult(
            name="runs_table",
            verdict=Verdict.WARN,
            why="no runs table is known: after a failover, interrupted runs are not resumed, and DAGs with catchup "
            "continue from the new region's own history",
            advice="Create a table with the keys pk and sk; set [dr] runs_table in both regions, and DR_RUNS_TABLE on "
            "this machine.",
        )
    if isinstance(table, Unknown):
        return _not_made("runs_table", table.why, "Give the caller dynamodb:DescribeTable on the runs table.")
    if table.consistency is TableConsistency.SINGLE:
        return CheckResult(
            name="runs_table",
            verdict=Verdict.WARN,
            why=f"{table.name} is only in {table.regions[0]}: if this region is lost, the ledger is lost",
            advice=f"Add a replica of {table.name} in each other region of the set; eventual consistency is enough.",
        )
    return CheckResult(name="runs_table", verdict=Verdict.OK, why=f"{table.name} has copies in {some(table.regions)}")


def check_rights(facts: Facts) -> CheckResult:
    """Whether the caller may write the state, and change DAGs in both environments."""
    tried = [
        ("write the state", facts.may_flip),
        *((f"change DAGs in {region.environment} ({region.region})", region.may_change) for region in facts.regions),
    ]
    denied = [(what, may) for what, may in tried if isinstance(may, Unknown) and may.is_refused]
    if denied:
        return CheckResult(
            name="rights",
            verdict=Verdict.FAIL,
            why="; ".join(f"may not {what}: {may.why}" for what, may in denied),
            advice="Repeat the check with the role that makes failovers. docs/reference/rights.md lists its rights.",
        )
    open_questions = [f"{what}: {may.why}" for what, may in tried if isinstance(may, Unknown)]
    open_questions += [what for what, may in tried if may is None]
    if open_questions:
        return _not_made(
            "rights", "; ".join(open_questions), "Repeat the check when the region that did not answer is back."
        )
    return CheckResult(name="rights", verdict=Verdict.OK, why="the caller may " + ", ".join(what for what, _ in tried))


def check_unreachable(facts: Facts) -> CheckResult:
    """Whether the lease stops the source if it is cut off."""
    if ignores_lease(facts.source.heartbeats):
        return CheckResult(
            name="unreachable",
            verdict=Verdict.WARN,
            why=f"{why_lease_is_ignored(facts.source.region)}; a forced failover is refused",
            advice=f"Set [dr] on_unreachable = hold in {facts.source.environment}.",
        )
    if not facts.source.heartbeats:
        return _not_made("unreachable", f"{facts.source.region} has no heartbeat of an agent", "See the check agents.")
    return CheckResult(
        name="unreachable",
        verdict=Verdict.OK,
        why=f"{facts.source.region} stops by itself when it has not read the state for {facts.state.lease_s:g} s",
    )


def check_provider(facts: Facts) -> CheckResult:
    """Whether both regions and this machine have the same version of this provider."""
    found = {"this machine": {__version__}}
    doubts = []
    for region in facts.regions:
        versions = {agent.provider_version for agent in region.agents}
        if not versions and not isinstance(region.inventory, Unknown):
            versions = {region.inventory.packages.get(_DISTRIBUTION, "")} - {""}
        if versions:
            found[region.region] = versions
        else:
            doubts.append(f"the version of {region.region} is unknown")
    differ = len({version for versions in found.values() for version in versions}) > 1
    shown = ", ".join(f"{who} has {' and '.join(sorted(versions))}" for who, versions in found.items())
    return _compared(
        "provider",
        facts,
        [_Difference(Verdict.WARN, shown, ["version"], value_of=True)] if differ else [],
        fine=f"{__version__} in both regions and on this machine",
        advice="Pin the same version of airflow-provider-mwaa-dr in both requirements.txt files, the standby first, "
        "and on this machine.",
        doubts=doubts,
    )


def check_airflow(facts: Facts) -> CheckResult:
    """Whether both environments have the same version of Airflow."""
    found, doubts = {}, []
    for region in facts.regions:
        version = None if isinstance(region.description, Unknown) else region.description.airflow_version
        version = version or next((agent.airflow_version for agent in region.heartbeats), None)
        if version:
            found[region.region] = version
        else:
            doubts.append(f"the version of {region.region} is unknown")
    versions = set(found.values())
    majors = {version.split(".")[0] for version in versions}
    shown = ", ".join(f"{version} in {region}" for region, version in found.items())
    verdict = Verdict.FAIL if len(majors) > 1 else Verdict.WARN
    return _compared(
        "airflow",
        facts,
        [_Difference(verdict, shown, ["version"], value_of=True)] if len(versions) > 1 else [],
        fine=shown,
        advice="Upgrade the older environment; MWAA upgrades in place, the standby first.",
        doubts=doubts,
    )


def check_waiting(facts: Facts) -> CheckResult:
    """Whether there are interrupted runs that no region can resume."""
    waiting = sorted({each for region in facts.regions for agent in region.agents for each in agent.waiting})
    if waiting:
        return CheckResult(
            name="waiting",
            verdict=Verdict.WARN,
            why=f"interrupted runs that cannot be resumed: {some(waiting)}",
            advice="Deploy the DAG in that region, or trigger it by hand: a run with its logical date ends the wait.",
        )
    doubts = [why for region in facts.regions for why in _unseen(region)]
    if doubts:
        return _not_made("waiting", "; ".join(doubts), "See the check agents.")
    return CheckResult(name="waiting", verdict=Verdict.OK, why="no interrupted run waits")


def check_items(facts: Facts) -> CheckResult:
    """Whether every item of the tables can be read."""
    if isinstance(facts.unreadable, Unknown):
        return _not_made("items", facts.unreadable.why, "Give the caller dynamodb:Scan on the state table.")
    gaps = sorted({gap for region in facts.regions for agent in region.agents for gap in agent.unread})
    if facts.unreadable or gaps:
        return CheckResult(
            name="items",
            verdict=Verdict.WARN,
            why=f"{len(facts.unreadable) + len(gaps)} cannot be read: "
            + " ".join([*map(str, facts.unreadable), *gaps]).rstrip("."),
            advice=" ".join(dict.fromkeys(item.advice for item in facts.unreadable))
            or "The agent of that region saves a checkpoint of its ledger within minutes, with the missing content.",
        )
    return CheckResult(name="items", verdict=Verdict.OK, why="every item of the state table can be read")


def check_identity(facts: Facts) -> CheckResult:
    """Whether each environment is that of the region that it claims."""
    problems = sorted({claim.problem for region in facts.regions for claim in region.claims})
    if problems:
        return CheckResult(
            name="identity",
            verdict=Verdict.WARN,
            why="; ".join(problems),
            advice="Correct the name or the region of the environment. Until then it holds every run.",
        )
    return CheckResult(name="identity", verdict=Verdict.OK, why="no environment claims the region of another one")


def check_unpublished(facts: Facts) -> CheckResult:
    """Whether a region became active without its ledger, and no user has acknowledged that."""
    found = [
        each.unpublished
        for each in facts.regions
        if each.unpublished is not None and each.unpublished.acknowledged_at is None
    ]
    if found:
        return CheckResult(
            name="unpublished",
            verdict=Verdict.WARN,
            why="; ".join(unpublished_text(each) for each in found),
            advice="Compare these runs in both regions. Then: "
            + " ".join(f"mwaa-dr check --acknowledge {each.id}" for each in found),
        )
    return CheckResult(name="unpublished", verdict=Verdict.OK, why="each region became active with its ledger")


def unpublished_text(unpublished: Unpublished) -> str:
    """Return one sentence about a region that became active without its ledger."""
    runs = (
        f"; it closed {len(unpublished.runs)} runs without publishing them: {some(unpublished.runs)}"
        if unpublished.runs
        else ""
    )
    return (
        f"{unpublished.region} became active without its ledger at {unpublished.at:%Y-%m-%dT%H:%M:%SZ} (epoch "
        f"{unpublished.epoch}): {unpublished.why.rstrip('.')}{runs}; {'; '.join(unpublished.unread)}"
    )


def check_settings(facts: Facts) -> CheckResult:
    """Whether the section [dr] is valid, and the same in both regions."""
    problems = sorted({each for region in facts.regions for agent in region.agents for each in agent.problems})
    both = _inventories(facts)
    differences, doubts = [], []
    if isinstance(both, Unknown):
        doubts.append(f"not compared: {both.why}")
    else:
        target, source = both
        named = (target.options.keys() | source.options.keys()) - _OWN_OPTIONS
        differ = {name for name in named if target.options.get(name) != source.options.get(name)}
        for name in sorted(differ):
            values = " and ".join(f"{each.options.get(name) or 'unset'} in {each.region}" for each in both)
            differences.append(_Difference(Verdict.WARN, values, [name], value_of=True))
        for each in both:
            lease = each.options.get("lease_s")
            if lease is not None and float(lease) != facts.state.lease_s:
                doubts.append(
                    f"lease_s = {lease} in {each.region} has no effect: the state has {facts.state.lease_s:g}"
                )
    return _compared(
        "settings",
        facts,
        differences,
        fine="[dr] is the same in both regions",
        advice="Set the same options in section [dr] of both environments, the standby first; each change restarts an "
        "environment.",
        doubts=[*problems, *doubts],
    )


def check_options(facts: Facts) -> CheckResult:
    """Whether the environments have the same Airflow configuration options. Values are compared, but never shown."""
    target, source = facts.target.description, facts.source.description
    unknown = [region for region in facts.regions if isinstance(region.description, Unknown)]
    if isinstance(target, Unknown) or isinstance(source, Unknown):
        why = "; ".join(f"{region.region}: {region.description.why}" for region in unknown)  # type: ignore[union-attr]
        return _not_made("options", why, "Repeat the check when both environments answer GetEnvironment.")
    own = {f"dr.{name}" for name in _OWN_OPTIONS}
    names = (target.options.keys() | source.options.keys()) - own
    return _compared(
        "options",
        facts,
        [
            _Difference(
                Verdict.WARN,
                f"only in {facts.source.environment}",
                [name for name in names if name not in target.options],
            ),
            _Difference(
                Verdict.WARN,
                f"only in {facts.target.environment}",
                [name for name in names if name not in source.options],
            ),
            _Difference(
                Verdict.WARN,
                "with different values",
                [
                    name
                    for name in names
                    if name in target.options
                    and name in source.options
                    and target.options[name] != source.options[name]
                ],
            ),
        ],
        fine=f"{counted(len(names), 'option')}, the same in both environments",
        advice="Set the same Airflow configuration options in both environments, or declare the difference: "
        "accepted_differences = options:NAME.",
    )


def check_clocks(facts: Facts) -> CheckResult:
    """Whether the clocks agree. No decision depends on them, but the times in records do."""
    live = [agent for region in facts.regions for agent in region.agents]
    if not live:
        return _not_made("clocks", "no agent is alive", "See the check agents.")
    allowed_s = CLOCK_S + facts.silence_s
    off = {
        agent: seconds
        for agent in live
        if not -CLOCK_S <= (seconds := (facts.at - agent.at).total_seconds()) <= allowed_s
    }
    if not off:
        return CheckResult(name="clocks", verdict=Verdict.OK, why=f"within {CLOCK_S:g} s of this machine's clock")
    shown = [
        f"{agent.host} in {agent.region} is {abs(seconds):.0f} s {'behind' if seconds > 0 else 'ahead of'} this machine"
        for agent, seconds in off.items()
    ]
    return CheckResult(
        name="clocks",
        verdict=Verdict.WARN,
        why=some(shown),
        advice="Correct the clocks, this machine's first: no decision depends on them, but the times in records do.",
    )


# The DAGs, and the resources that they need in the target.


def check_dags(facts: Facts) -> CheckResult:
    """Whether the target has every DAG that a failover would unpause, and both regions have the same DAGs."""
    wanted = facts.wanted
    target, source = facts.target.dag_ids, facts.source.dag_ids
    if isinstance(target, Unknown):
        return _not_made("dags", target.why, "Repeat the check when the REST API of the target answers.")
    missing = frozenset() if isinstance(wanted, Unknown) else wanted - target
    differences = [_Difference(Verdict.FAIL, f"to be unpaused, but missing in {facts.target.region}", missing)]
    doubts = []
    if isinstance(source, Unknown):
        doubts.append(f"not compared with {facts.source.region}: {source.why}")
    else:
        differences += [
            _Difference(Verdict.WARN, f"only in {facts.source.region}", source - target - missing),
            _Difference(Verdict.WARN, f"only in {facts.target.region}", target - source),
        ]
    if not isinstance(facts.target.dags, Unknown) and not isinstance(facts.source.dags, Unknown):
        in_target = {dag.dag_id for dag in facts.target.dags if facts.exempts(dag)}
        in_source = {dag.dag_id for dag in facts.source.dags if facts.exempts(dag)}
        both = target if isinstance(source, Unknown) else target & source
        differences.append(_Difference(Verdict.WARN, "exempt in one region only", (in_target ^ in_source) & both))
    return _compared(
        "dags",
        facts,
        differences,
        fine=f"{len(target)} DAGs in {facts.target.region}, including all that a failover unpauses",
        advice="Copy the same DAG files, with the same tags, to both buckets. For a DAG of one region only, declare "
        "the difference: accepted_differences = dags:ID.",
        doubts=doubts,
    )


def check_paused(facts: Facts) -> CheckResult:
    """Whether all DAGs are paused in the standby, and which DAGs a failover would unpause."""
    wanted, snapshot = facts.wanted, facts.source.snapshot
    differences, doubts = [], []
    if not isinstance(facts.target.dags, Unknown):
        unpaused = {dag.dag_id for dag in facts.target.dags if not dag.is_paused and not facts.exempts(dag)}
        differences.append(_Difference(Verdict.WARN, f"not paused in the standby {facts.target.region}", unpaused))
    else:
        doubts.append(f"the standby was not checked: {facts.target.dags.why}")
    if snapshot is None:
        doubts.append(f"there is no snapshot of {facts.source.region}: a forced failover would unpause nothing")
    elif not isinstance(facts.source.dags, Unknown) and not isinstance(wanted, Unknown):
        changed = wanted ^ (set(snapshot.dag_ids) | set(facts.dags_not_unpaused))
        differences.append(
            _Difference(
                Verdict.WARN, f"changed since the snapshot of {snapshot.recorded_at:%Y-%m-%dT%H:%M:%SZ}", changed
            )
        )
    if isinstance(wanted, Unknown):
        fine = f"it is unknown which DAGs a failover would unpause: {wanted.why}"
    else:
        fine = f"a failover would unpause {len(wanted)} DAGs in {facts.target.region}: {some(sorted(wanted)) or '-'}"
    return _compared(
        "paused",
        facts,
        differences,
        fine=fine,
        advice=f"Pause the standby: mwaa-dr pause {facts.target.region}. The active region's agent takes a snapshot "
        "within seconds while no failover is in progress.",
        doubts=doubts,
    )


def check_test_dag(facts: Facts) -> CheckResult:
    """Whether a failover can verify that the target executes."""
    target, wanted = facts.target.dag_ids, facts.wanted
    if isinstance(target, Unknown) or isinstance(wanted, Unknown):
        why = target.why if isinstance(target, Unknown) else wanted.why if isinstance(wanted, Unknown) else ""
        return _not_made("test_dag", why, "Repeat the check when the REST APIs answer.")
    if TEST_DAG in target and TEST_DAG in wanted:
        why = f"{TEST_DAG} would be the first run in {facts.target.region}"
        return CheckResult(name="test_dag", verdict=Verdict.OK, why=why)
    where = f"paused or missing in {facts.source.region}" if TEST_DAG in target else f"missing in {facts.target.region}"
    return CheckResult(
        name="test_dag",
        verdict=Verdict.WARN,
        why=f"{TEST_DAG} is {where}: a failover cannot verify that the target executes runs",
        advice=f"Deploy {TEST_DAG} from the example DAGs in both regions, and unpause it in {facts.source.region}.",
    )


def check_inventory(facts: Facts) -> CheckResult:
    """Whether the regions can be compared at all."""
    sentences, fine = [], []
    for region in facts.regions:
        errors = sorted({agent.inventory_error for agent in region.agents if agent.inventory_error})
        if isinstance(region.inventory, Unknown):
            sentences.append(f"no inventory of {region.region}: {'; '.join(errors) or region.inventory.why}")
            continue
        age = facts.at - region.inventory.taken_at
        if age > INVENTORY_AGE:
            reason = f" ({'; '.join(errors)})" if errors else ""
            sentences.append(f"the inventory of {region.region} is {age.total_seconds() / 60:.0f} minutes old{reason}")
        fine.append(f"{region.region}: {len(region.inventory.dags)} DAGs, {len(region.inventory.packages)} packages")
    if sentences:
        return CheckResult(
            name="inventory",
            verdict=Verdict.WARN,
            why="; ".join(sentences),
            advice="The region's agent writes it within minutes after the scheduler starts. The agent's role may need "
            "dynamodb:PutItem and DeleteItem on the keys INVENTORY#REGION*; the scheduler's log has the error.",
        )
    return CheckResult(name="inventory", verdict=Verdict.OK, why="; ".join(fine))


def check_imports(facts: Facts) -> CheckResult:
    """Whether DAG files fail to import in the target."""
    both = _inventories(facts)
    if isinstance(both, Unknown):
        return _not_made("imports", both.why, _INVENTORY_ADVICE)
    target, source = (frozenset(each.import_errors) for each in both)
    return _compared(
        "imports",
        facts,
        [
            _Difference(Verdict.FAIL, f"cannot be imported in {facts.target.region} only", target - source),
            _Difference(Verdict.WARN, "cannot be imported in either region", target & source),
            _Difference(Verdict.WARN, f"cannot be imported in {facts.source.region} only", source - target),
        ],
        fine="every DAG file can be imported in both regions",
        advice="Read the import errors in that region's user interface. The most frequent cause is a missing package, "
        "variable or connection.",
    )


def check_code(facts: Facts) -> CheckResult:
    """Whether the digests of the DAGs' code are the same in both regions."""
    both = _inventories(facts)
    if isinstance(both, Unknown):
        return _not_made("code", both.why, _INVENTORY_ADVICE)
    target, source = both
    common = target.dags.keys() & source.dags.keys()
    other_file = {dag_id for dag_id in common if target.dags[dag_id].source != source.dags[dag_id].source}
    # Another version of Airflow serializes the same DAG differently.
    same_airflow = target.packages.get("apache-airflow") == source.packages.get("apache-airflow")
    other_shape = {dag_id for dag_id in common - other_file if target.dags[dag_id].shape != source.dags[dag_id].shape}
    return _compared(
        "code",
        facts,
        [
            _Difference(Verdict.WARN, "defined in files that differ", other_file),
            _Difference(Verdict.WARN, "built differently from the same file", other_shape if same_airflow else ()),
        ],
        fine=f"{len(common)} DAGs, the same in both regions (modules that their files import are not compared)",
        advice="Copy the same files to both buckets. A DAG that is built from variables, the clock or the environment "
        "may differ on purpose: accepted_differences = code:ID.",
    )


def check_past(facts: Facts) -> CheckResult:
    """Which DAGs depend on the history of their region; a failover transfers only a part of it."""
    found: dict[str, set[str]] = {DEPENDS_ON_PAST: set(), EXTERNAL_SENSOR: set()}
    inventories = [each.inventory for each in facts.regions if not isinstance(each.inventory, Unknown)]
    if not inventories:
        return _not_made("past", "no inventory of either region", _INVENTORY_ADVICE)
    for inventory in inventories:
        for dag_id, dag in inventory.dags.items():
            for trait in dag.traits:
                found.setdefault(trait, set()).add(dag_id)
    return _compared(
        "past",
        facts,
        [
            _Difference(
                Verdict.WARN,
                "with depends_on_past or wait_for_downstream, which depend on earlier runs",
                found[DEPENDS_ON_PAST],
            ),
            _Difference(
                Verdict.WARN, "with a sensor of another DAG's run, which may be an earlier one", found[EXTERNAL_SENSOR]
            ),
        ],
        fine="no DAG depends on a task of an earlier run or of another DAG",
        advice="With a runs table, a region has the last finished runs of the other region, but not all of their tasks."
        " Check in a drill that these DAGs continue, then declare them: accepted_differences = past:ID.",
    )


def _check_keyed(kind: str, facts: Facts, *, advice: str) -> CheckResult:
    """Compare the objects of one kind in both metadata databases, by name and by keyed fingerprint."""
    both = _inventories(facts)
    if isinstance(both, Unknown):
        return _not_made(kind, both.why, _INVENTORY_ADVICE)
    target, source = both
    in_target, in_source = frozenset(target.names.get(kind, ())), frozenset(source.names.get(kind, ()))
    differences = [
        _Difference(Verdict.FAIL, f"missing in {facts.target.region}", in_source - in_target),
        _Difference(Verdict.WARN, f"missing in {facts.source.region}", in_target - in_source),
    ]
    doubts = []
    of_target, of_source = target.fingerprints.get(source.region), source.fingerprints.get(target.region)
    if of_target is not None and of_source is not None and of_target.key_id == of_source.key_id:
        prints, other = of_target.values.get(kind, {}), of_source.values.get(kind, {})
        differ = {name for name in in_target & in_source if prints.get(name) != other.get(name)}
        differences.append(_Difference(Verdict.WARN, "with different values", differ))
    elif in_target & in_source:
        doubts.append("values not compared: the two agents have not agreed on a key; both must be alive to do so")
    return _compared(
        kind,
        facts,
        differences,
        fine=f"the same in both regions: {some(sorted(in_target))}" if in_target else f"no {kind} in the databases",
        advice=advice,
        doubts=doubts,
    )


def check_pools(facts: Facts) -> CheckResult:
    """Whether the target has the pools that tasks use."""
    return _check_keyed(
        "pools",
        facts,
        advice="Create the pool with the same size in both regions (airflow pools export, import), or declare the "
        "difference: accepted_differences = pools:NAME.",
    )


def check_variables(facts: Facts) -> CheckResult:
    """Whether the variables in the metadata databases are the same; a secrets backend is not read."""
    return _check_keyed(
        "variables",
        facts,
        advice="Copy the variable (airflow variables set), or store it in a replicated secrets backend. If its value "
        "must differ between the regions, declare the difference: accepted_differences = variables:NAME.",
    )


def check_connections(facts: Facts) -> CheckResult:
    """Whether the connections in the metadata databases are the same; a secrets backend is not read."""
    return _check_keyed(
        "connections",
        facts,
        advice="Copy the connection (airflow connections add), or store it in a replicated secrets backend. If it must "
        "differ between the regions, declare the difference: accepted_differences = connections:NAME.",
    )


def check_packages(facts: Facts) -> CheckResult:
    """Whether both schedulers have the same Python packages."""
    both = _inventories(facts)
    if isinstance(both, Unknown):
        return _not_made("packages", both.why, _INVENTORY_ADVICE)
    target, source = both
    ignored = {_DISTRIBUTION}  # the check "provider" compares it
    in_target, in_source = target.packages.keys() - ignored, source.packages.keys() - ignored
    return _compared(
        "packages",
        facts,
        [
            _Difference(Verdict.WARN, f"missing in {facts.target.region}", in_source - in_target),
            _Difference(Verdict.WARN, f"missing in {facts.source.region}", in_target - in_source),
            _Difference(
                Verdict.WARN,
                "in different versions",
                {name for name in in_target & in_source if target.packages[name] != source.packages[name]},
            ),
        ],
        fine=f"{len(in_target)} packages, the same in both schedulers",
        advice="Use the same requirements.txt, with pinned versions, in both environments; the scheduler's "
        "requirements_install log shows failed installations.",
    )


def check_capacity(facts: Facts) -> CheckResult:
    """Whether the target is at least as large as the source."""
    target, source = facts.target.description, facts.source.description
    if isinstance(target, Unknown):
        return _not_made("capacity", target.why, "Repeat the check when the target answers GetEnvironment.")
    if isinstance(source, Unknown):
        return _not_made("capacity", source.why, "Repeat the check when the source answers GetEnvironment.")
    smaller = {
        "class": _is_smaller(target.environment_class, source.environment_class),
        "max_workers": (target.max_workers or 0) < (source.max_workers or 0),
        "min_workers": (target.min_workers or 0) < (source.min_workers or 0),
        "schedulers": (target.schedulers or 0) < (source.schedulers or 0),
    }
    sizes = {
        "class": (target.environment_class, source.environment_class),
        "max_workers": (target.max_workers, source.max_workers),
        "min_workers": (target.min_workers, source.min_workers),
        "schedulers": (target.schedulers, source.schedulers),
    }
    return _compared(
        "capacity",
        facts,
        [
            _Difference(
                Verdict.WARN,
                f"{of_target} in {facts.target.environment}, {of_source} in {facts.source.environment}",
                [name],
                value_of=True,
            )
            for name, (of_target, of_source) in sizes.items()
            if smaller[name]
        ],
        fine=f"{facts.target.environment} is not smaller than {facts.source.environment}: {target.environment_class}, "
        f"up to {target.max_workers} workers",
        advice="Make the target as large as the source now: an update takes 20 to 30 minutes, too long in an outage. "
        "If the target is smaller on purpose, declare the difference: accepted_differences = capacity:NAME.",
    )


def _is_smaller(one: str | None, other: str | None) -> bool:
    if one in _CLASSES and other in _CLASSES:
        return _CLASSES.index(one) < _CLASSES.index(other)
    return one != other


def check_drill(facts: Facts) -> CheckResult:
    """When the last failover to the target was completed."""
    if isinstance(facts.records, Unknown):
        return _not_made("drill", facts.records.why, "Give the caller dynamodb:Scan on the state table.")
    region = facts.target.region
    done = next((each for each in facts.records if each.target == region and each.outcome == "completed"), None)
    advice = (
        f"Make a planned failover to {region} and back, in a quiet hour: mwaa-dr failover {region} --reason drill. "
        "Only a tested failover is reliable."
    )
    if done is None or done.finished_at is None:
        return CheckResult(
            name="drill", verdict=Verdict.WARN, why=f"no failover to {region} was ever completed", advice=advice
        )
    took_s = (done.finished_at - done.started_at).total_seconds()
    why = f"last failover to {region}: {done.started_at:%Y-%m-%d}, {done.mode.value}, {took_s:.0f} s"
    if facts.at - done.started_at > DRILL_AGE:
        return CheckResult(
            name="drill", verdict=Verdict.WARN, why=f"{why}, over {DRILL_AGE.days} days ago", advice=advice
        )
    if done.not_unpaused:
        return CheckResult(
            name="drill",
            verdict=Verdict.WARN,
            why=f"{why}; DAGs not unpaused: {some(done.not_unpaused)}",
            advice=f"Deploy these DAGs in {region}, and repeat the drill.",
        )
    return CheckResult(name="drill", verdict=Verdict.OK, why=why)


ADVISORY_CHECKS: Mapping[str, Check] = {
    "rights": check_rights,
    "state": check_state,
    "table": check_table,
    "runs_table": check_runs_table,
    "unreachable": check_unreachable,
    "provider": check_provider,
    "airflow": check_airflow,
    "waiting": check_waiting,
    "identity": check_identity,
    "unpublished": check_unpublished,
    "settings": check_settings,
    "options": check_options,
    "clocks": check_clocks,
    "dags": check_dags,
    "paused": check_paused,
    "test_dag": check_test_dag,
    "inventory": check_inventory,
    "imports": check_imports,
    "code": check_code,
    "past": check_past,
    "pools": check_pools,
    "variables": check_variables,
    "connections": check_connections,
    "packages": check_packages,
    "capacity": check_capacity,
    "drill": check_drill,
    "items": check_items,
}
"""Checks whose result [dr] accepted_differences may accept, by name."""

NAMES = (*(refusal.name for refusal in REFUSALS), *ADVISORY_CHECKS)
"""The names of all checks except ``accepted``, which checks the declarations themselves."""


def check_accepted(facts: Facts) -> CheckResult:
    """Whether the declared differences name existing checks."""
    declared = facts.settings.accepted_differences
    wrong = [each for each in declared if each.partition(":")[0] not in ADVISORY_CHECKS]
    if wrong:
        return CheckResult(
            name="accepted",
            verdict=Verdict.WARN,
            why=f"have no effect: {', '.join(wrong)}",
            advice=f"Write CHECK or CHECK:NAME, where CHECK is one of {', '.join(ADVISORY_CHECKS)}.",
        )
    return CheckResult(name="accepted", verdict=Verdict.OK, why=", ".join(declared) or "no difference is declared")


def check_all(facts: Facts) -> Sequence[CheckResult]:
    """Return the results of all checks; first those that refuse a failover."""
    results = [refusal(facts) for refusal in REFUSALS]
    for name, check in ADVISORY_CHECKS.items():
        result = check(facts)
        if result.verdict is not Verdict.OK and name in facts.settings.accepted_differences:
            result = replace(result, verdict=Verdict.OK, why=f"accepted: {result.why}", advice="")
        results.append(result)
    return [*results, check_accepted(facts)]
