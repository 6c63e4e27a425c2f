"""What the triggers of this package have in common: they look again and again, until there is something to tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.hooks.errors import is_worth_a_retry


class PollingTrigger(BaseTrigger):
    """
    Fires with the first event that a look returns.

    Each look is made in a thread of its own, so that what hangs keeps no other trigger from running.

    :param poke_interval: seconds between two looks.
    :param aws_conn_id: connection with the credentials; None for the environment's own role.
    :param region_name, verify, botocore_config: as in the sensor.
    """

    def __init__(
        self,
        *,
        poke_interval: float,
        aws_conn_id: str | None = None,
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.poke_interval = poke_interval
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, plain values all of them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            **self.own_arguments(),
            "poke_interval": self.poke_interval,
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "botocore_config": self.botocore_config,
        }

    def own_arguments(self) -> dict[str, Any]:
        """Return the arguments that other triggers do not have."""
        raise NotImplementedError

    @cached_property
    def hook(self) -> DRStateHook:
        """The way to the state, and to the environments."""
        return DRStateHook(
            self.aws_conn_id, region_name=self.region_name, verify=self.verify, config=self.botocore_config
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is an event."""
        # Not asyncio.to_thread: a connection is asked for through asgiref, which has to know the loop it came from. And
        # not in the one thread that asgiref shares among all triggers, where the others would wait.
        look = sync_to_async(self.look, thread_sensitive=False)
        while (event := await look()) is None:
            await asyncio.sleep(self.poke_interval)
        yield TriggerEvent(event)

    def look(self) -> dict[str, Any] | None:
        """Return the event, None to go on."""
        raise NotImplementedError

    @staticmethod
    def in_vain(error: DRError) -> dict[str, Any]:
        """Return the event of a look that can only fail."""
        message = f"{type(error).__name__}: {error}"
        return {"status": "error", "message": message, "is_worth_a_retry": is_worth_a_retry(error)}
