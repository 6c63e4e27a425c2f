"""The specification of a deployment, and its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from airflow_provider_mwaa_dr.aws.deploy.merged_file import BuildOn
from airflow_provider_mwaa_dr.aws.deploy.plugins_archive import Wheel
from airflow_provider_mwaa_dr.aws.deploy.requirements_file import Requirement

Say = Callable[[str], object]
Try = Callable[[str, bytes, "bytes | None"], str]
"""Tries requirements, given an Airflow version, requirements.txt and plugins.zip; returns what it did, or why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStep:
    """
    One step of a plan.

    :param detail: what exists, or what the step will do.
    :param lines: each change and each warning, for the user.
    :param act: carries the step out, and returns a text for the user; None if nothing has to change. Idempotent.
    :param waits: whether *act* only waits, and changes nothing.
    """

    name: str
    detail: str
    lines: tuple[str, ...] = ()
    act: Callable[[], str] | None = None
    waits: bool = False

    @property
    def changes(self) -> bool:
        """Whether the step changes anything."""
        return self.act is not None and not self.waits


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploySpec:
    """
    The wanted result of a deployment.

    :param version: version of the package.
    :param active: the region that is active now; required until the state item exists.
    :param home: region for a new stack; empty: the standby region.
    :param wheel: wheel to add to plugins.zip; None: pip gets the package from the index.
    :param with_dags: copy ``dr_failover`` and ``dr_test_dag`` into the DAGs folders, too; ``dr_readiness`` always.
    :param with_policies: create policies in the stack, and attach the policies for the execution roles.
    :param agents_may_finish: let execution roles end the plan in the state item.
    :param agents_may_write_back: let execution roles write the whole state item; for eventual consistency.
    :param with_alarms: create a stack with alarms in each region.
    :param alarm_topics: SNS topic that the alarms notify, by region; a region without one keeps its current topic.
    :param notification_topic, notification_bus: SNS topic and event bus for notifications of failovers; empty: none.
    :param wait: wait until both environments are updated.
    :param both_at_once: update the active environment without waiting for a proof that the standby works.
    :param proof_s: longest time for the proof that the standby works. MWAA copies new DAG files within a minute, and
        Airflow parses them within five.
    :param worker_replacement: ``FORCED`` or ``GRACEFUL``, for updates; empty: MWAA decides.
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
    agents_may_write_back: bool = False
    build_on: BuildOn | None = None
    with_alarms: bool = False
    alarm_topics: Mapping[str, str] = field(default_factory=dict)
    notification_topic: str = ""
    notification_bus: str = ""
    wait: bool = False
    both_at_once: bool = False
    proof_s: float = 900.0
    worker_replacement: str = ""

    @property
    def requirement(self) -> Requirement:
        """The requirement for requirements.txt."""
        if self.wheel is not None:
            return Requirement(version=self.wheel.version, from_plugins=True, sha256=self.wheel.sha256)
        return Requirement(version=self.version)
