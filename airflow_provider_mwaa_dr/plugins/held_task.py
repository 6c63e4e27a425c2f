"""The trigger of a held task. Airflow's database stores its class path, so the path must not change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class HeldTaskTrigger(BaseTrigger):
    """
    Fires once, at *until*, with the event that the task already had; None if the task has not started yet.

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
        """Wait until *until*, then yield the event."""
        rest = datetime.fromisoformat(self.until) - datetime.now(tz=timezone.utc)
        await asyncio.sleep(max(0.0, rest.total_seconds()))
        yield TriggerEvent(self.event)
