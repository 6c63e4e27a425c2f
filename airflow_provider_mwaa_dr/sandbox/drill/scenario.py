"""The scenarios of a drill."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from airflow_provider_mwaa_dr.core.state import Mode


class Loss(str, Enum):
    """How the active region is lost."""

    KILLED = "killed"
    """All of its Airflow processes are killed, and its AWS is a black hole."""
    FROZEN = "frozen"
    """All of its processes are stopped (SIGSTOP). Later they continue with their old view of the state."""
    CUT_OFF = "cut off"
    """Its AWS is a black hole in both directions. Its Airflow is healthy, and users still trigger runs in it."""
    ALONE = "cut off with its own copy of the tables"
    """It reaches only the AWS of its own region, and no other caller reaches this region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    How the drill fails over.

    :param summary: what happens; part of the failover's reason.
    :param loss: how the active region is lost before the failover.
    :param killed_after: the step after which the failover is killed, and restarted by another process.
    :param returns: whether the drill fails back afterwards.
    :param lag_s: if set, each region has its own copy of the tables, replicated with at most this lag. The drill then
        cuts off the region that took over, together with its copy, and fails over from it by force.
    :param history: whether a DAG with catchup has two years of history in the active region.
    :param deployed: whether the drill starts with two empty environments and ``mwaa-dr deploy``.
    :param upgrades: whether it is the drill of upgrade.py, between two versions of Airflow in one region.
    """

    name: str
    summary: str
    loss: Loss | None = None
    killed_after: str | None = None
    returns: bool = False
    lag_s: float | None = None
    history: bool = False
    deployed: bool = False
    upgrades: bool = False

    @property
    def has_own_home(self) -> bool:
        """Whether it cannot use the sandbox of the other scenarios."""
        return self.deployed or self.upgrades

    @property
    def mode(self) -> Mode:
        """Graceful, unless the active region is lost."""
        return Mode.GRACEFUL if self.loss is None else Mode.FORCED


DEPLOYED = "deployed"
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="planned", summary="a planned failover"),
        Scenario(name="region-loss", summary="the active region is lost, and restored later", loss=Loss.KILLED),
        Scenario(
            name="zombie", summary="the active region is frozen, and continues after the failover", loss=Loss.FROZEN
        ),
        Scenario(
            name="cut-off", summary="the active region loses its network, but its Airflow continues", loss=Loss.CUT_OFF
        ),
        Scenario(
            name="half-done",
            summary="the failover is killed halfway, and another process completes it",
            killed_after="pause",
        ),
        Scenario(name="failback", summary="a failover and a failback", returns=True),
        Scenario(name="storm", summary="a failover with a DAG that has two years of history", history=True),
        Scenario(
            name="eventual",
            summary="tables with a replication lag; a failover, and a forced failback from a region that is cut off",
            returns=True,
            lag_s=2.0,
        ),
        Scenario(name=DEPLOYED, summary="mwaa-dr deploy, then a planned failover", deployed=True),
        Scenario(
            name="upgrade",
            summary="an upgrade of Airflow in one region; back; and the upgrade again",
            upgrades=True,
        ),
    )
}
ALL = "all"
"""The name that runs every scenario, one after the other."""
