"""Waiting for the active role in the triggerer. Paths of triggers are stored in Airflow's database: they stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_mwaa_dr.exceptions import DRError, StateNotFoundError, StateUnreachableError
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.hooks.errors import is_worth_a_retry


class ActiveRegionTrigger(BaseTrigger):
    """
    Fires once a region has the active role.

    The event is ``{"status": "success", "active_region", "epoch"}``, or ``{"status": "error", "message",
    "is_worth_a_retry"}`` when waiting is in vain. A state that cannot be read, or is not there yet, is not an answer.
    Each read is made in a thread of its own, so a table that hangs keeps no other trigger from running.

    :param region: region to wait for.
    :param poke_interval: seconds between two reads.
    :param aws_conn_id: connection with the credentials; None for the environment's own role.
    :param region_name, verify, botocore_config: as in the sensor.
    """

    def __init__(
        self,
        *,
        region: str,
        poke_interval: float,
        aws_conn_id: str | None = None,
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.region = region
        self.poke_interval = poke_interval
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self._said: str | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, plain values all of them."""
        return "airflow_provider_mwaa_dr.triggers.dr_state.ActiveRegionTrigger", {
            "region": self.region,
            "poke_interval": self.poke_interval,
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "botocore_config": self.botocore_config,
        }

    @cached_property
    def hook(self) -> DRStateHook:
        """The way to the state."""
        return DRStateHook(
            self.aws_conn_id, region_name=self.region_name, verify=self.verify, config=self.botocore_config
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Read until the region is active."""
        # Not asyncio.to_thread: a connection is asked for through asgiref, which has to know the loop it came from. And
        # not in the one thread that asgiref shares among all triggers, where the others would wait.
        look = sync_to_async(self._look, thread_sensitive=False)
        while (event := await look()) is None:
            await asyncio.sleep(self.poke_interval)
        yield TriggerEvent(event)

    def _look(self) -> dict[str, Any] | None:
        """Return the event, None to go on waiting."""
        try:
            state = self.hook.get_state()
        except (StateUnreachableError, StateNotFoundError) as error:
            self._say(f"Waiting: the active region is not known. {error}")
            return None
        except DRError as error:
            message = f"{type(error).__name__}: {error}"
            return {"status": "error", "message": message, "is_worth_a_retry": is_worth_a_retry(error)}
        self._say(f"{state.active_region} is active (epoch {state.epoch}); waiting for {self.region}")
        if state.active_region != self.region:
            return None
        return {"status": "success", "active_region": state.active_region, "epoch": state.epoch}

    def _say(self, what: str) -> None:
        """Log what changed; a wait may last for months."""
        if what != self._said:
            self._said = what
            self.log.info("%s", what)
