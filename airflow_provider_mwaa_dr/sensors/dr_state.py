"""The sensor that waits until a region is active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr._compat import AirflowException, AirflowFailException
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.exceptions import DRError, StateNotFoundError, StateUnreachableError, UnusableStateError
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.hooks.errors import airflow_error
from airflow_provider_mwaa_dr.triggers.dr_state import ActiveRegionTrigger


class ActiveRegionSensor(AwsBaseSensor):
    """
    Wait until a region has the active role.

    The sensor also waits while the active region is unknown: the state cannot be read, does not exist yet, or names no
    registered region. It works in the modes poke and reschedule, and deferred: a deferred sensor occupies no worker.

    :param region: region to wait for (templated); None for the region of this Airflow.
    :param aws_conn_id: connection with the credentials; None for the environment's own role (templated).
    :param deferrable: wait in the triggerer; None (default) for the value of ``[operators] default_deferrable``.
    """

    aws_hook_class = DRStateHook
    region: str | None = None  # Amazon provider 8.28 (MWAA 2.10.1) has a property of this name, which cannot be set
    template_fields: Sequence[str] = aws_template_fields("region")

    def __init__(
        self,
        *,
        region: str | None = None,
        aws_conn_id: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(aws_conn_id=aws_conn_id, **kwargs)
        self.region = region
        self.deferrable = conf.default_deferrable() if deferrable is None else deferrable

    def execute(self, context: Any) -> Any:
        """Wait in the worker; or, if deferrable, poll once and then defer to the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        if self.poke(context):
            return None
        self.defer(
            trigger=ActiveRegionTrigger(
                region=self.region or self.hook.own_region,
                poke_interval=self.poke_interval,
                aws_conn_id=self.aws_conn_id,
                region_name=self.region_name,
                verify=self.verify,
                botocore_config=self.botocore_config,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Complete after the triggerer's event. :raises AirflowException: waiting cannot succeed."""
        if event["status"] != "success":
            raise (AirflowException if event["is_worth_a_retry"] else AirflowFailException)(visible(event["message"]))
        self.log.info("%s is active (epoch %d)", visible(event["active_region"]), event["epoch"])

    def poke(self, context: Any) -> bool:  # noqa: ARG002
        """Return whether the region is active now."""
        try:
            region = self.region or self.hook.own_region
            state = self.hook.active_state()
        except (StateUnreachableError, StateNotFoundError, UnusableStateError) as error:
            self.log.warning("Waiting: the active region is not known. %s", visible(error))
            return False
        except DRError as error:
            raise airflow_error(error) from error
        self.log.info("%s is active (epoch %d); waiting for %s", visible(state.active_region), state.epoch, region)
        return state.active_region == region
