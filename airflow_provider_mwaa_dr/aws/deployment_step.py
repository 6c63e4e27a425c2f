"""What a deployment is asked to make, and the steps that make it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from airflow_provider_mwaa_dr.aws.merged_file import BuildOn
from airflow_provider_mwaa_dr.aws.plugins_archive import Wheel
from airflow_provider_mwaa_dr.aws.requirements_file import Requirement

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStep:
    """
    One step of a plan.

    :param detail: what there is, or what is going to be done.
    :param lines: each change of it, and each warning, for people.
    :param act: does it and returns what was done; None when nothing has to change. May be called again.
    :param waits: it only waits: *act* changes nothing.
    """

    name: str
    detail: str
    lines: tuple[str, ...] = ()
    act: Callable[[], str] | None = None
    waits: bool = False

    @property
    def changes(self) -> bool:
        """Whether it would change anything."""
        return self.act is not None and not self.waits


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploySpec:
    """
    What a deployment is to make.

    :param version: of the package.
    :param active: the region that runs today; needed as long as there is no state item.
    :param home: region for a new stack; empty: the standby's.
    :param wheel: goes into plugins.zip; None: the package comes from the index.
    :param with_dags: put ``dr_failover`` and ``dr_test_dag`` into the DAGs folders.
    :param with_policies: have the stack make policies, and attach those of the execution roles.
    :param agents_may_finish: let execution roles write the state item.
    :param with_alarms: make a stack with alarms in each region.
    :param alarm_topics: SNS topic by region, for alarms to tell; a region without one keeps what it has.
    :param wait: until both environments are updated.
    """

    state_table: str
    runs_table: str
    version: str
    stack: str = "mwaa-dr"
    active: str | None = None
    home: str = ""
    lease_s: float = 60.0
    by: str = ""
    wheel: Wheel | None = None
    with_dags: bool = False
    with_policies: bool = True
    agents_may_finish: bool = True
    build_on: BuildOn | None = None
    with_alarms: bool = False
    alarm_topics: Mapping[str, str] = field(default_factory=dict)
    wait: bool = False

    @property
    def requirement(self) -> Requirement:
        """What requirements.txt is to ask for."""
        if self.wheel is not None:
            return Requirement(version=self.wheel.version, from_plugins=True)
        return Requirement(version=self.version)
