"""The facts that the readiness checks examine, and the result of a check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TypeAlias, TypeVar

from airflow_provider_mwaa_dr.core.config import DRConfig, is_exempt
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.ports import (
    AgentStatus,
    DagInfo,
    DagSet,
    EnvironmentDescription,
    EnvironmentStatus,
    FailoverRecord,
    HeldTasks,
    IdentityClaim,
    TableDescription,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.sites import Sites
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.exceptions import DRError, MwaaAccessError, StateAccessError, UnreadableItem

T = TypeVar("T")
CONTROL_DAGS = frozenset({"dr_data_marker", "dr_failover", "dr_failover_with_data", "dr_monitor", "dr_readiness"})
"""The example DAGs of the provider that are exempt. They have the tag ``dr:control``."""
TEST_DAG = "dr_test_dag"
"""If the target has this DAG unpaused, a failover waits for a run of it to succeed."""


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
    :param identity_claims: of live agents in this AWS region whose environment is not that of the region it claims.
    :param held_tasks: the current report of tasks that the region's fence holds for longer than usual.
    :param advice: what to do first if no fact about the region could be read; replaces the advice of the checks.
    """

    region: str
    environment: str
    status: EnvironmentStatus | Unknown
    is_healthy: bool | Unknown | None
    agents: Sequence[AgentStatus]
    heartbeats: Sequence[AgentStatus] = ()
    identity_claims: Sequence[IdentityClaim] = ()
    description: EnvironmentDescription | Unknown = Unknown("not asked")
    may_change: bool | Unknown | None = None
    dags: Sequence[DagInfo] | Unknown = Unknown("not asked")
    snapshot: DagSet | None = None
    unpublished: Unpublished | None = None
    held_tasks: HeldTasks | None = None
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
    :param sites: the sites of the set; none if they are unknown, and each id is a region.
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
    sites: Sites = field(default_factory=Sites)

    @property
    def regions(self) -> tuple[RegionFacts, RegionFacts]:
        """Target and source."""
        return self.target, self.source

    def aws_region_of(self, region: RegionFacts) -> str:
        """Return the AWS region of a site."""
        return self.sites.aws_region_of(region.region) or region.region

    @property
    def shared_region(self) -> str:
        """The AWS region that both sites are in; empty if they are in two."""
        one, other = (self.aws_region_of(region) for region in self.regions)
        return one if one == other else ""

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


def no_agent(region: RegionFacts) -> Iterable[str]:
    if not region.agents:
        yield f"unknown in {region.region}: no agent is alive"


Check: TypeAlias = Callable[[Facts], CheckResult]
