"""The base class of this package's triggers: it polls until there is an event. Airflow does not store its path."""

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
    Fires with the first event that a poll returns.

    Each poll runs in its own thread, so that a poll that hangs does not block other triggers.

    :param poke_interval: seconds from the beginning of a poll to the beginning of the next one.
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
        """Return the class path, and the arguments as values that Airflow can serialize."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            **self.own_arguments(),
            "poke_interval": self.poke_interval,
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "botocore_config": self.botocore_config,
        }

    def own_arguments(self) -> dict[str, Any]:
        """Return the arguments that only this trigger has."""
        raise NotImplementedError

    @cached_property
    def hook(self) -> DRStateHook:
        """The hook that reads the state and the environments."""
        return DRStateHook(
            self.aws_conn_id, region_name=self.region_name, verify=self.verify, config=self.botocore_config
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until there is an event."""
        # Not asyncio.to_thread: the hook gets its connection through asgiref, which needs the event loop.
        # Not thread_sensitive: asgiref then runs all triggers in one shared thread, and the others would wait.
        poll = sync_to_async(self.poll, thread_sensitive=False)
        clock = self.hook.clock
        while True:
            next_at = clock.monotonic() + self.poke_interval
            if (event := await poll()) is not None:
                break
            await asyncio.sleep(max(0.0, next_at - clock.monotonic()))
        yield TriggerEvent(event)

    def poll(self) -> dict[str, Any] | None:
        """Poll once. Return the event, or None to continue."""
        raise NotImplementedError

    @staticmethod
    def failure_event(error: DRError) -> dict[str, Any]:
        """Return the event of a poll that cannot succeed."""
        message = f"{type(error).__name__}: {error}"
        return {"status": "error", "message": message, "is_worth_a_retry": is_worth_a_retry(error)}
