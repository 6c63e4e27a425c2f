"""The sensor that waits until the active region has failed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr._compat import AirflowFailException, AirflowSkipException, PokeReturnValue
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.health import RESTART_S, Health, Signal
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.triggers.environment_health import EnvironmentHealthTrigger


class EnvironmentHealthSensor(AwsBaseSensor):
    """
    Wait until the active region is certain to have failed, or to be healthy; for automatic failover.

    Run it in a control environment or in a standby. It polls several independent signals of the active region: the
    environment's status, Airflow's API, the scheduler's state in Airflow's health answer, the agents' heartbeats in the
    state table and, on request, a run of ``dr_test_dag``. The region has failed when *quorum* signals failed for the
    time of *strikes* polls; while the MWAA service answers, for *restart_timeout*. Unknown is not failed: an
    environment in an update or in maintenance, a state table that does not answer, a service that throttles, a failover
    in progress. If a heartbeat is new, a missing answer is not a failure.

    The return value, also in XCom, is ``{"region", "health", "why", "text" (all of it in a sentence),
    "standbys": [region …], "signals": [{"signal", "health", "why"} …], "problems": [text …], "is_halted" (a problem is
    a failover that is halted for too long), "is_certain" (the health lasted for long enough, and not only for one
    poll)}``. Each poll reads which region is active.

    With *problem_interval* the sensor also ends, in any health, when a value of the state table cannot be used, or when
    a failover has been halted at *drained* for longer than its caller allowed. ``problems`` says what was found, and
    what to do. The first poll reports a state item that names no active region. Items that cannot be read are reported
    once per interval.

    :param until: health to wait for, ``failed`` or ``healthy``.
    :param strikes: the health must last for the usual time of so many polls. With 1, the first poll is enough, also
        for *restart_timeout*.
    :param quorum: number of failed signals that make the region failed.
    :param restart_timeout: seconds for which a failure must last while the MWAA service answers, because schedulers may
        be restarting.
    :param suspect: also end at the first poll of a failure that must last for *restart_timeout*. ``is_certain`` is then
        False. A failure that takes only the time of *strikes* polls to be certain is awaited.
    :param earlier: the return value of an earlier sensor as JSON (templated). If it is certain that the region has
        failed, the sensor returns this value, and does not poll.
    :param skip_if_healthy: skip the task (and its downstream tasks) when the region is certain to be healthy; for a
        second check after a first suspicion; only with ``until="failed"``.
    :param probe_interval: seconds between two runs of ``dr_test_dag`` that the sensor starts in the active region to
        check that tasks execute; None (default) for none.
    :param problem_interval: seconds between two scans of the state table for items that cannot be read, and until the
        first scan; None (default): the sensor scans nothing, and does not end because of problems.
    :param poke_interval: seconds between two polls. A poll of a region that does not answer takes a few seconds.
    :param deferrable: wait in the triggerer; None (default) for the value of ``[operators] default_deferrable``.
    :param aws_conn_id: connection with the credentials; None for the environment's own role (templated).
    :raises AirflowFailException: a setting is wrong, or the role has no permission to read a signal.
    :raises AirflowSkipException: the region is healthy, and *skip_if_healthy* is set.
    """

    aws_hook_class = DRStateHook
    template_fields: Sequence[str] = aws_template_fields("earlier")

    def __init__(
        self,
        *,
        until: str = Health.FAILED.value,
        strikes: int = 4,
        quorum: int = 2,
        restart_timeout: float = RESTART_S,
        suspect: bool = False,
        earlier: str = "",
        skip_if_healthy: bool = False,
        probe_interval: float | None = None,
        problem_interval: float | None = None,
        poke_interval: float = 30.0,
        deferrable: bool | None = None,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(aws_conn_id=aws_conn_id, poke_interval=poke_interval, **kwargs)
        if until not in {Health.FAILED.value, Health.HEALTHY.value}:
            raise ValueError(f"until is {until!r}. Allowed are 'failed' and 'healthy'.")
        if strikes < 1 or quorum < 1:
            raise ValueError(f"strikes is {strikes} and quorum is {quorum}. Both must be 1 or more.")
        if self.reschedule:
            raise ValueError(
                "mode is 'reschedule', which loses the time that has passed. Use deferrable=True, or mode 'poke'."
            )
        self.until = until
        self.strikes = strikes
        self.quorum = quorum
        self.restart_timeout = restart_timeout
        self.suspect = suspect
        self.earlier = earlier
        self.skip_if_healthy = skip_if_healthy
        self.probe_interval = probe_interval
        self.problem_interval = problem_interval
        self.deferrable = conf.default_deferrable() if deferrable is None else deferrable

    def execute(self, context: Any) -> Any:
        """Return the earlier diagnosis if it is certain; else wait, in the triggerer if deferrable."""
        earlier = self._earlier
        if earlier.get("health") == Health.FAILED.value and earlier.get("is_certain"):
            return dict(earlier)
        if not self.deferrable:
            return super().execute(context)
        self.defer(trigger=self._watcher, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))
        return None

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Complete after the triggerer's event, and return its diagnosis."""
        if event["status"] != "success":
            raise AirflowFailException(visible(event["message"]))
        diagnosis: dict[str, Any] = event["diagnosis"]
        self.log.info("%s", visible(diagnosis["text"]))
        # An event from a trigger of an earlier version has no key "problems".
        problems = diagnosis.get("problems") if self.problem_interval is not None else None
        for problem in problems or ():
            self.log.warning("%s", visible(problem))
        if diagnosis["health"] != self.until and not problems:
            raise AirflowSkipException(visible(diagnosis["text"]))
        return diagnosis

    def poke(self, context: Any) -> PokeReturnValue:
        """Poll once."""
        event = self._watcher.poll()
        if event is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self.execute_complete(context, event))

    @property
    def _earlier(self) -> Mapping[str, Any]:
        """The return value of the earlier sensor; empty if there is none."""
        return (json.loads(self.earlier) if self.earlier else None) or {}

    @cached_property
    def _watcher(self) -> EnvironmentHealthTrigger:
        trigger = EnvironmentHealthTrigger(
            until=[Health.FAILED.value, Health.HEALTHY.value] if self.skip_if_healthy else [self.until],
            strikes=self.strikes,
            quorum=self.quorum,
            restart_timeout=self.restart_timeout,
            suspect=self.suspect,
            answered=_answered(self._earlier),
            poke_interval=self.poke_interval,
            probe_interval=self.probe_interval,
            problem_interval=self.problem_interval,
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            botocore_config=self.botocore_config,
        )
        trigger.hook = self.hook
        return trigger


def _answered(diagnosis: Mapping[str, Any]) -> str | None:
    """Return the region whose MWAA service reported a usable status, according to the value of a sensor."""
    readings = {each["signal"]: each["health"] for each in diagnosis.get("signals", ())}
    is_usable = readings.get(Signal.ENVIRONMENT.value) == Health.HEALTHY.value
    return diagnosis.get("region") if is_usable else None
