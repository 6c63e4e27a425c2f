"""Waiting for the active role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_mwaa_dr.exceptions import DRError, StateNotFoundError, StateUnreachableError
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.hooks.errors import airflow_error


class ActiveRegionSensor(AwsBaseSensor):
    """
    Wait until a region has the active role.

    Unknown means wait: a state that cannot be read, or is not there yet, is not an answer. Works in the modes poke and
    reschedule.

    :param region: region to wait for (templated); None for the one this Airflow belongs to.
    :param aws_conn_id: connection with the credentials; None for the environment's own role (templated).
    """

    aws_hook_class = DRStateHook
    template_fields: Sequence[str] = aws_template_fields("region")

    def __init__(self, *, region: str | None = None, aws_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(aws_conn_id=aws_conn_id, **kwargs)
        self.region = region

    def poke(self, context: Any) -> bool:  # noqa: ARG002
        """Return whether the region is active now."""
        try:
            region = self.region or self.hook.own_region
            state = self.hook.get_state()
        except (StateUnreachableError, StateNotFoundError) as error:
            self.log.warning("Waiting: the active region is not known. %s", error)
            return False
        except DRError as error:
            raise airflow_error(error) from error
        self.log.info("%s is active (epoch %d); waiting for %s", state.active_region, state.epoch, region)
        return state.active_region == region
