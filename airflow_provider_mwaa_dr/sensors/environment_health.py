"""Waiting until the active region has failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr._compat import AirflowFailException, AirflowSkipException, PokeReturnValue
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.health import Health
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.triggers.environment_health import EnvironmentHealthTrigger


class EnvironmentHealthSensor(AwsBaseSensor):
    """
    Wait until the active region is certain to have failed, or to be healthy; for automatic failover.

    Looks from a control environment, or from a standby, at several independent signals: the environment's status,
    Airflow's API, the scheduler in its health answer, the agents' heartbeats in the state table, and on demand a run of
    ``dr_test_dag``. The region has failed when *quorum* of them failed, *strikes* times in a row. Unknown is not
    failed: an environment in an update or in maintenance, a state table that does not answer, a failover in progress.

    Returns, and leaves in XCom, ``{"region", "health", "why", "text" (all of it in a sentence), "standbys": [region …],
    "signals": [{"signal", "health", "why"} …], "problems": [text …]}``. Which region is active is read anew each time.

    With *problem_interval* it also ends, in any health, when a value of the state table cannot be used. ``problems``
    has the value, and what to do. A state item that gives no region a role is reported at the first look, items that
    cannot be read once in the interval.

    :param until: health to wait for, ``failed`` or ``healthy``.
    :param strikes: looks in a row that make it certain.
    :param quorum: failed signals that make the region failed.
    :param skip_if_healthy: skip the task (and what follows) when the region is certain to be healthy, for a second look
        after a first suspicion; only with ``until="failed"``.
    :param probe_interval: seconds between two runs of ``dr_test_dag`` that are started in the active region to see a
        task execute; None (default) for none.
    :param problem_interval: seconds between two scans of the state table for items that cannot be read, and until the
        first scan; None (default): the sensor scans nothing, and does not end because of problems.
    :param poke_interval: seconds between two looks.
    :param deferrable: wait in the triggerer; None (default) for what ``[operators] default_deferrable`` says.
    :param aws_conn_id: connection with the credentials; None for the environment's own role (templated).
    :raises AirflowFailException: wrongly set, or without the rights to look.
    :raises AirflowSkipException: the region is healthy, and *skip_if_healthy* is set.
    """

    aws_hook_class = DRStateHook
    template_fields: Sequence[str] = aws_template_fields()

    def __init__(
        self,
        *,
        until: str = Health.FAILED.value,
        strikes: int = 4,
        quorum: int = 2,
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
            raise ValueError(f"until is {until!r}; allowed are 'failed' and 'healthy'.")
        if strikes < 1 or quorum < 1:
            raise ValueError(f"strikes is {strikes} and quorum is {quorum}; both are 1 or more.")
        if self.reschedule:
            raise ValueError("mode is 'reschedule', which forgets every look; use deferrable=True, or mode 'poke'.")
        self.until = until
        self.strikes = strikes
        self.quorum = quorum
        self.skip_if_healthy = skip_if_healthy
        self.probe_interval = probe_interval
        self.problem_interval = problem_interval
        self.deferrable = conf.default_deferrable() if deferrable is None else deferrable

    def execute(self, context: Any) -> Any:
        """Wait in the worker, or hand over to the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        self.defer(trigger=self._watcher, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))
        return None

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Go on after the triggerer, and return what it saw."""
        if event["status"] != "success":
            raise AirflowFailException(visible(event["message"]))
        diagnosis: dict[str, Any] = event["diagnosis"]
        self.log.info("%s", visible(diagnosis["text"]))
        # The event of a trigger of an earlier version has no problems.
        problems = diagnosis.get("problems") if self.problem_interval is not None else None
        for problem in problems or ():
            self.log.warning("%s", visible(problem))
        if diagnosis["health"] != self.until and not problems:
            raise AirflowSkipException(visible(diagnosis["text"]))
        return diagnosis

    def poke(self, context: Any) -> PokeReturnValue:
        """Look once."""
        event = self._watcher.poll()
        if event is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self.execute_complete(context, event))

    @cached_property
    def _watcher(self) -> EnvironmentHealthTrigger:
        trigger = EnvironmentHealthTrigger(
            until=[Health.FAILED.value, Health.HEALTHY.value] if self.skip_if_healthy else [self.until],
            strikes=self.strikes,
            quorum=self.quorum,
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
