"""The control plane of an MWAA environment, for deployments: its description and its update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_provider_mwaa_dr.aws.mwaa.environment import levels_of_logs
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.core.sites import Site
from airflow_provider_mwaa_dr.exceptions import DeploymentError, NotReadyError

POLL_S = 30.0
ENDS_S = 90 * 60.0
"""Timeout of an update. An update takes 20 to 30 minutes, and a rollback after it takes as long."""
SAY_S = 5 * 60.0
"""Interval of the progress messages during a wait."""

USABLE = frozenset({"AVAILABLE", "UPDATE_FAILED"})
"""After a failed update, MWAA restores the environment to its state before the update, and it works."""
BUSY = frozenset({"UPDATING", "CREATING", "PENDING", "CREATING_SNAPSHOT", "ROLLING_BACK", "MAINTENANCE"})
"""MWAA leaves these states without an action by the user."""
OLDEST, BEFORE = (2, 10, 1), (4,)
"""Airflow versions that the provider supports: from the first, below the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedEnvironment:
    """
    An environment as GetEnvironment describes it.

    :param site: with its name and its region.
    :param role: name of the execution role; *role_arn* also has its path.
    :param options: values may be secrets, so messages never show them.
    :param failure: why the last update failed; empty if it did not fail.
    :param updated_at: when the last update began; None: there was none.
    :param logs: level of each log of Airflow that is on, by name such as ``SchedulerLogs``.
    :param managed_by: what else sets the options of the environment, as far as its tags tell; empty: unknown.
    """

    site: Site
    status: str
    airflow_version: str
    partition: str
    account: str
    role: str
    role_arn: str
    bucket: str
    dags: str
    requirements: str | None
    requirements_version: str | None
    plugins: str | None
    plugins_version: str | None
    options: Mapping[str, str]
    failure: str
    updated_at: datetime | None = None
    logs: Mapping[str, str] = field(default_factory=dict)
    managed_by: str = ""

    @property
    def region(self) -> str:
        """Its AWS region."""
        return self.site.aws_region

    @property
    def name(self) -> str:
        """Its name."""
        return self.site.environment

    @property
    def is_busy(self) -> bool:
        """Whether an update, or other work of the service, is in progress."""
        return self.status in BUSY

    def __str__(self) -> str:
        return f"{self.name} ({self.region})"


class ControlPlane:
    """The environment of *site*. Methods raise AwsError if MWAA refuses a call or does not answer."""

    def __init__(self, aws: Aws, site: Site) -> None:
        self.site = site
        self.name = site.environment
        self._clock = aws.clock
        self._mwaa = aws("mwaa", site.aws_region)

    def describe(self) -> DeployedEnvironment:
        """Return the current description."""
        return _deployed_environment(
            self.site, self._mwaa.call_idempotent("get_environment", Name=self.name)["Environment"]
        )

    def update(self, changes: Mapping[str, Any]) -> None:
        """Start an update. MWAA refuses a second update while one is in progress."""
        self._mwaa.call_once("update_environment", Name=self.name, **changes)

    def wait_until_idle(self, say: Callable[[str], object]) -> DeployedEnvironment:
        """
        Wait until MWAA has finished its work on the environment; return the description.

        :param say: called with a progress message every five minutes and at each change of status.
        :raises DeploymentError: the environment is still busy after 90 minutes.
        """
        began = said_at = self._clock.monotonic()
        said = ""
        while (environment := self.describe()).is_busy:
            now = self._clock.monotonic()
            if now - began >= ENDS_S:
                raise DeploymentError(
                    f"{environment} has been {environment.status} for more than {ENDS_S / 60:g} minutes.",
                    advice="Check it in the MWAA console. When it is AVAILABLE, run the same command again.",
                )
            if environment.status != said or now - said_at >= SAY_S:
                say(f"{environment}: {environment.status} for {(now - began) / 60:.0f} min; an update takes 20 to 30")
                said, said_at = environment.status, now
            self._clock.sleep(POLL_S)
        return environment


def require_usable(environment: DeployedEnvironment) -> None:
    """
    Raise unless the provider can be deployed to *environment*.

    :raises NotReadyError: the status or the Airflow version does not allow it.
    """
    if environment.status not in USABLE | BUSY:
        raise NotReadyError(
            f"{environment} is {environment.status}. Nothing was changed.",
            why=[f"{environment} is {environment.status}"],
            advice="Wait until it is AVAILABLE or UPDATE_FAILED, then run the same command again.",
        )
    parts = tuple(int(part) for part in environment.airflow_version.split(".") if part.isdigit())
    if not OLDEST <= parts < BEFORE:
        raise NotReadyError(
            f"{environment} runs Airflow {environment.airflow_version}. Nothing was changed.",
            why=[f"{environment} runs Airflow {environment.airflow_version}"],
            advice="The provider supports Airflow 2.10.1 and later, below 4. Upgrade the environment first.",
        )


def _deployed_environment(site: Site, found: Mapping[str, Any]) -> DeployedEnvironment:
    arn = found["Arn"].split(":")
    last = found.get("LastUpdate") or {}
    why = (last.get("Error") or {}).get("ErrorMessage", "no reason is given")
    return DeployedEnvironment(
        site=site,
        status=found["Status"],
        airflow_version=found.get("AirflowVersion", ""),
        partition=arn[1],
        account=arn[4],
        role=found.get("ExecutionRoleArn", "").rpartition("/")[2],
        role_arn=found.get("ExecutionRoleArn", ""),
        bucket=found["SourceBucketArn"].rpartition(":")[2],
        dags=found.get("DagS3Path", "dags").strip("/"),
        requirements=found.get("RequirementsS3Path") or None,
        requirements_version=found.get("RequirementsS3ObjectVersion") or None,
        plugins=found.get("PluginsS3Path") or None,
        plugins_version=found.get("PluginsS3ObjectVersion") or None,
        options=dict(found.get("AirflowConfigurationOptions") or {}),
        failure=why if last.get("Status") == "FAILED" else "",
        updated_at=last.get("CreatedAt"),
        logs=levels_of_logs(found),
        managed_by=_manager(found.get("Tags") or {}),
    )


def _manager(tags: Mapping[str, str]) -> str:
    """Return what manages an environment with *tags*. CloudFormation sets its tag itself; other tools only by habit."""
    if stack := tags.get("aws:cloudformation:stack-name"):
        return f"the CloudFormation stack {stack}"
    for name, value in sorted(tags.items()):
        for tool in ("terraform", "pulumi", "opentofu"):
            if tool in f"{name} {value}".lower():
                return f"{tool.capitalize()} (tag {name}={value})"
    return ""
