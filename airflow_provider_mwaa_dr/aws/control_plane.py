"""An MWAA environment as a deployment sees it: what it is made of, and its update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.exceptions import DeploymentError, NotReadyError

POLL_S = 30.0
ENDS_S = 90 * 60.0
"""An update takes 20 to 30 minutes; a rollback after it as long again."""
SAY_S = 5 * 60.0
"""A person who waits is told so often."""

USABLE = frozenset({"AVAILABLE", "UPDATE_FAILED"})
"""An environment whose update failed was restored to what it was before, and works."""
BUSY = frozenset({"UPDATING", "CREATING", "PENDING", "CREATING_SNAPSHOT", "ROLLING_BACK", "MAINTENANCE"})
"""Ends by itself."""
OLDEST, BEFORE = (2, 10, 1), (4,)
"""Versions of Airflow that this provider runs in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedEnvironment:
    """
    An environment: what GetEnvironment says of it.

    :param options: their values may be secrets; never shown.
    :param failure: why its last update failed; empty when it did not.
    """

    region: str
    name: str
    status: str
    airflow_version: str
    partition: str
    account: str
    role: str
    bucket: str
    dags: str
    requirements: str | None
    requirements_version: str | None
    plugins: str | None
    plugins_version: str | None
    options: Mapping[str, str]
    failure: str

    @property
    def is_busy(self) -> bool:
        """Whether an update, or the service's own work, is under way."""
        return self.status in BUSY

    def __str__(self) -> str:
        return f"{self.name} ({self.region})"


class ControlPlane:
    """The environment *name* in *region*. Raises AwsError when MWAA refuses or cannot be reached."""

    def __init__(self, aws: Aws, region: str, name: str) -> None:
        self.region = region
        self.name = name
        self._clock = aws.clock
        self._mwaa = aws("mwaa", region)

    def describe(self) -> DeployedEnvironment:
        """Return what it is now."""
        return _deployed_environment(
            self.region, self._mwaa.call_idempotent("get_environment", Name=self.name)["Environment"]
        )

    def update(self, changes: Mapping[str, Any]) -> None:
        """Start an update. One at a time: MWAA refuses another while it goes on."""
        self._mwaa.call_once("update_environment", Name=self.name, **changes)

    def wait_until_idle(self, say: Callable[[str], object]) -> DeployedEnvironment:
        """
        Return what it is once nothing is going on any more.

        :param say: told every few minutes, and whenever the status changes.
        :raises DeploymentError: that takes more than 90 minutes.
        """
        began = said_at = self._clock.monotonic()
        said = ""
        while (environment := self.describe()).is_busy:
            now = self._clock.monotonic()
            if now - began >= ENDS_S:
                raise DeploymentError(
                    f"{environment} is {environment.status} for more than {ENDS_S / 60:g} minutes.",
                    advice="Look at it in the console; when it is AVAILABLE, say the same again.",
                )
            if environment.status != said or now - said_at >= SAY_S:
                say(f"{environment}: {environment.status} for {(now - began) / 60:.0f} min; an update takes 20 to 30")
                said, said_at = environment.status, now
            self._clock.sleep(POLL_S)
        return environment


def require_usable(environment: DeployedEnvironment) -> None:
    """Raise unless the provider can be put into it. :raises NotReadyError: says why not."""
    if environment.status not in USABLE | BUSY:
        raise NotReadyError(
            f"{environment} is {environment.status}. Nothing was changed.",
            why=[f"{environment} is {environment.status}"],
            advice="It has to be AVAILABLE, or UPDATE_FAILED, which works as before.",
        )
    parts = tuple(int(part) for part in environment.airflow_version.split(".") if part.isdigit())
    if not OLDEST <= parts < BEFORE:
        raise NotReadyError(
            f"{environment} runs Airflow {environment.airflow_version}. Nothing was changed.",
            why=[f"{environment} runs Airflow {environment.airflow_version}"],
            advice="The provider runs in 2.10.1 and later, below 4. Upgrade the environment first.",
        )


def _deployed_environment(region: str, found: Mapping[str, Any]) -> DeployedEnvironment:
    arn = found["Arn"].split(":")
    last = found.get("LastUpdate") or {}
    why = (last.get("Error") or {}).get("ErrorMessage", "no reason is given")
    return DeployedEnvironment(
        region=region,
        name=found["Name"],
        status=found["Status"],
        airflow_version=found.get("AirflowVersion", ""),
        partition=arn[1],
        account=arn[4],
        role=found.get("ExecutionRoleArn", "").rpartition("/")[2],
        bucket=found["SourceBucketArn"].rpartition(":")[2],
        dags=found.get("DagS3Path", "dags").strip("/"),
        requirements=found.get("RequirementsS3Path") or None,
        requirements_version=found.get("RequirementsS3ObjectVersion") or None,
        plugins=found.get("PluginsS3Path") or None,
        plugins_version=found.get("PluginsS3ObjectVersion") or None,
        options=dict(found.get("AirflowConfigurationOptions") or {}),
        failure=why if last.get("Status") == "FAILED" else "",
    )
