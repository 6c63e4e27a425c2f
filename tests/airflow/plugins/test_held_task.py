"""The trigger of a held task in the installed Airflow."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest


@pytest.mark.parametrize("event", [None, {"n": 1}])
def test_it_fires_once_with_the_event_that_the_task_had(event: Any) -> None:
    """Airflow makes the trigger from the class path and the arguments that it has stored."""
    from airflow_provider_mwaa_dr.plugins.held_task import HeldTaskTrigger

    until = datetime.now(tz=timezone.utc) - timedelta(seconds=1)
    path, arguments = HeldTaskTrigger(until=until.isoformat(), event=event).serialize()
    assert path == "airflow_provider_mwaa_dr.plugins.held_task.HeldTaskTrigger"

    async def fired() -> list[Any]:
        return [each.payload async for each in HeldTaskTrigger(**arguments).run()]

    assert asyncio.run(fired()) == [event]
