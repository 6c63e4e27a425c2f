"""ActiveRegionTrigger."""

from __future__ import annotations

import asyncio
import importlib
import threading
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import parse_config
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.exceptions import StateAccessError, UnusableStateError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock

pytest.importorskip("airflow")

from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.triggers.dr_state import ActiveRegionTrigger

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]

OHIO = transitions.initial("us-east-2", lease_s=60, by="init", at=ManualClock().now())
HANG_S = 20.0
"""A test that hangs fails after this time."""


def trigger_on(store: InMemoryStateStore, region: str = "us-east-1") -> ActiveRegionTrigger:
    trigger = ActiveRegionTrigger(region=region, poke_interval=0.0)
    trigger.hook = DRStateHook(dr_config=parse_config({}), store=store)
    return trigger


async def first_event(trigger: ActiveRegionTrigger) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("it ended without an event")


class Registered(InMemoryStateStore):
    """A store in which both regions are registered."""

    def __init__(self) -> None:
        super().__init__(regions=("us-east-1", "us-east-2"))


class Scripted(Registered):
    """A store whose reads return or raise the given answers in order, and then repeat the last one."""

    def __init__(self, *answers: DRState | Exception) -> None:
        super().__init__()
        self._answers = list(answers)

    def read(self) -> DRState:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_trigger_fires_from_the_write_that_moves_the_role() -> None:
    """It does not fire earlier. Its event has the values that the sensor logs."""
    moved = transitions.set_active_region(OHIO, "us-east-1", reason="r", by="b", at=OHIO.last_updated)
    event = asyncio.run(first_event(trigger_on(Scripted(OHIO, OHIO, OHIO, moved))))
    assert event == {"status": "success", "active_region": "us-east-1", "epoch": 1}


def test_a_state_that_gives_no_region_a_role_is_no_event() -> None:
    """A misspelled region and an unusable item are no event. The corrected item is one."""
    misspelled = replace(OHIO, active_region="us-est-2")
    unusable = UnusableStateError("The item cannot be understood.")
    trigger = trigger_on(Scripted(misspelled, unusable, OHIO), "us-east-2")
    assert (trigger.poll(), trigger.poll()) == (None, None)
    assert trigger.poll() == {"status": "success", "active_region": "us-east-2", "epoch": 0}


def test_unknown_means_wait() -> None:
    """A table that does not answer, or that is empty, is no event."""
    store = Registered()
    store.unreachable = True
    trigger = trigger_on(store, "us-east-2")
    assert trigger.poll() is None
    store.unreachable = False
    assert trigger.poll() is None
    store.write(OHIO, expected_version=None)
    assert asyncio.run(first_event(trigger))["status"] == "success"


def test_a_permanent_error_is_an_event() -> None:
    """
    The event gives the refusal to the task, which fails. If the trigger raised, some Airflow versions would lose the
    reason.
    """
    event = asyncio.run(first_event(trigger_on(Scripted(StateAccessError("Not allowed.")))))
    assert event == {"status": "error", "message": "StateAccessError: Not allowed.", "is_worth_a_retry": False}


def test_a_table_that_hangs_stops_no_other_trigger() -> None:
    """The read returns only after the event loop has executed another coroutine. A blocked loop would never do that."""
    others_ran = threading.Event()

    class Hanging(Registered):
        def read(self) -> DRState:
            assert others_ran.wait(HANG_S), "the event loop stood still"
            return OHIO

    async def both() -> Any:
        event, _ = await asyncio.gather(first_event(trigger_on(Hanging(), "us-east-2")), another())
        return event

    async def another() -> None:
        await asyncio.sleep(0)
        others_ran.set()

    assert asyncio.run(both())["status"] == "success"


def test_triggers_that_hang_do_not_wait_for_each_other() -> None:
    """Each read waits until all three have started, which is impossible in the single thread that asgiref shares."""
    together = threading.Barrier(3, timeout=HANG_S)

    class Meeting(Registered):
        def read(self) -> DRState:
            together.wait()
            return OHIO

    async def all_three() -> list[Any]:
        return list(await asyncio.gather(*(first_event(trigger_on(Meeting(), "us-east-2")) for _ in range(3))))

    assert [event["status"] for event in asyncio.run(all_three())] == ["success"] * 3


def test_the_trigger_can_be_created_from_its_stored_values() -> None:
    """The triggerer does this after every restart."""
    trigger = ActiveRegionTrigger(
        region="us-east-1",
        poke_interval=5,
        aws_conn_id="c",
        region_name="r",
        verify=False,
        botocore_config={"connect_timeout": 3},
    )
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**arguments)
    assert again.serialize() == trigger.serialize()
    assert (again.hook.aws_conn_id, again.hook._verify) == ("c", False)
