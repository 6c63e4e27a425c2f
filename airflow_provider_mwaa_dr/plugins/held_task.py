"""The trigger on which a held task waits. Its path is stored in Airflow's database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class HeldTaskTrigger(BaseTrigger):
    """
    Fires once, at *until*, with the event that the task had already been given; None before its first start.

    :param until: aware time as ISO-8601 text.
    """

    def __init__(self, *, until: str, event: Any) -> None:
        super().__init__()
        self.until = until
        self.event = event

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"until": self.until, "event": self.event}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then hand the event on."""
        rest = datetime.fromisoformat(self.until) - datetime.now(tz=timezone.utc)
        await asyncio.sleep(max(0.0, rest.total_seconds()))
        yield TriggerEvent(self.event)
