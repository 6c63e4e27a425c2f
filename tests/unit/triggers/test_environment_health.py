"""EnvironmentHealthTrigger and EnvironmentHealthSensor."""

from __future__ import annotations

import asyncio
import importlib
import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.exceptions import StateAccessError
from tests.unit.core.dr_set import World
from tests.unit.operators.conftest import with_hook

pytest.importorskip("airflow")

from airflow_provider_mwaa_dr._compat import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow_provider_mwaa_dr.sensors.environment_health import EnvironmentHealthSensor
from airflow_provider_mwaa_dr.triggers.environment_health import EnvironmentHealthTrigger

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def dr_set() -> World:
    return World.build()


def sensor_on(dr_set: World, **arguments: Any) -> EnvironmentHealthSensor:
    found: EnvironmentHealthSensor = with_hook(
        EnvironmentHealthSensor(task_id="watch", **{"strikes": 2, "deferrable": False, **arguments}), dr_set
    )
    return found


def poke(sensor: EnvironmentHealthSensor, dr_set: World, times: int) -> list[bool]:
    """Look so many times, half a minute apart, and return which one was the last that was needed."""
    found = []
    for _ in range(times):
        found.append(sensor.poke({}).is_done)
        dr_set.clock.advance(30)
    return found


def lose(dr_set: World) -> None:
    dr_set.environments["us-east-2"].unreachable = True
    dr_set.agents["us-east-2"].alive = False


def test_it_ends_with_what_it_saw(dr_set: World) -> None:
    """After so many bad looks in a row, not before; fit for XCom, with the region to go to."""
    sensor = sensor_on(dr_set)
    assert poke(sensor, dr_set, 5) == [False] * 5
    lose(dr_set)
    assert poke(sensor, dr_set, 2) == [False, False]  # the first of them still saw a new heartbeat
    done = sensor.poke({})
    assert done.is_done
    assert json.loads(json.dumps(done.xcom_value)) == done.xcom_value
    assert (done.xcom_value["region"], done.xcom_value["health"], done.xcom_value["standbys"]) == (
        "us-east-2", "failed", ["us-east-1"],
    )  # fmt: skip
    assert {each["signal"] for each in done.xcom_value["signals"]} == {"environment", "agent"}


def test_a_suspicion_that_does_not_come_true_skips(dr_set: World) -> None:
    """So that what follows is skipped, too."""
    with pytest.raises(AirflowSkipException, match="us-east-2 is healthy"):
        poke(sensor_on(dr_set, skip_if_healthy=True), dr_set, 5)


def test_a_value_that_cannot_be_used_ends_it_if_it_has_an_interval(dr_set: World) -> None:
    """A state that gives no region a role ends it at the first look, an item after the interval."""
    asked, other = sensor_on(dr_set, problem_interval=120.0), sensor_on(dr_set, skip_if_healthy=True, strikes=100)
    dr_set.store.damage("SNAPSHOT#us-east-1")
    assert poke(asked, dr_set, 4) == [False] * 4
    done = asked.poke({})
    assert (done.is_done, done.xcom_value["health"]) == (True, "healthy")
    assert "SNAPSHOT#us-east-1" in done.xcom_value["problems"][0]
    assert json.loads(json.dumps(done.xcom_value)) == done.xcom_value
    dr_set.store.overwrite(replace(dr_set.state, active_region="us-est-2"))
    assert poke(other, dr_set, 4) == [False] * 4
    done = sensor_on(dr_set, problem_interval=120.0).poke({})
    assert (done.is_done, done.xcom_value["health"]) == (True, "unknown")
    assert "us-est-2" in done.xcom_value["problems"][0]


def test_an_event_of_an_earlier_version_has_no_problems(dr_set: World) -> None:
    """A task that was deferred before an upgrade is resumed after it."""
    earlier = {"region": "us-east-2", "health": "failed", "why": "", "text": "", "standbys": [], "signals": []}
    sensor = sensor_on(dr_set, problem_interval=120.0)
    assert sensor.execute_complete({}, {"status": "success", "diagnosis": earlier})["health"] == "failed"


def test_it_waits_for_health(dr_set: World) -> None:
    """The other way round, for what follows a failure."""
    sensor = sensor_on(dr_set, until="healthy")
    lose(dr_set)
    assert poke(sensor, dr_set, 5) == [False] * 5
    dr_set.environments["us-east-2"].unreachable = False
    dr_set.agents["us-east-2"].alive = True
    dr_set.clock.advance(2)
    assert poke(sensor, dr_set, 4)[-1] is True


def test_a_state_table_out_of_reach_is_waited_for(dr_set: World) -> None:
    """Also at the very first look, which needs the registry."""
    sensor = sensor_on(dr_set)
    dr_set.store.unreachable = True
    assert poke(sensor, dr_set, 3) == [False] * 3


def test_missing_rights_fail_it(dr_set: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would be watching, and nobody would know."""
    sensor = sensor_on(dr_set)
    monkeypatch.setattr(dr_set.store, "read", lambda: (_ for _ in ()).throw(StateAccessError("Not allowed.")))
    with pytest.raises(AirflowFailException, match="Not allowed"):
        sensor.poke({})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"until": "broken"}, "'failed' and 'healthy'"),
        ({"quorum": 0}, "1 or more"),
        ({"mode": "reschedule"}, "deferrable"),
    ],
)
def test_wrong_arguments_are_named_when_the_dag_is_parsed(arguments: dict[str, Any], said: str) -> None:
    """Not at night, when it matters."""
    with pytest.raises(ValueError, match=said):
        EnvironmentHealthSensor(task_id="watch", **arguments)


def test_deferred_it_hands_plain_values_to_the_triggerer(dr_set: World) -> None:
    """Path and arguments go into Airflow's database, and make the same trigger again after any restart."""
    sensor = sensor_on(
        dr_set, deferrable=True, skip_if_healthy=True, probe_interval=900.0, problem_interval=60.0, timeout=90
    )
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})
    path, arguments = deferred.value.trigger.serialize()
    assert path == "airflow_provider_mwaa_dr.triggers.environment_health.EnvironmentHealthTrigger"
    assert json.loads(json.dumps(arguments)) == arguments
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**arguments)
    assert again.serialize() == (path, arguments)
    assert (again.until, again.strikes, deferred.value.timeout.total_seconds()) == (["failed", "healthy"], 2, 90)


def test_the_trigger_fires_once_it_is_certain(dr_set: World) -> None:
    """And the sensor goes on with its event."""
    sensor = sensor_on(dr_set, deferrable=True, poke_interval=0.0)
    trigger: EnvironmentHealthTrigger = sensor._watcher
    lose(dr_set)

    async def first_event() -> Any:
        async for event in trigger.run():
            return event.payload
        raise AssertionError("it ended without an event")

    poll = trigger.poll

    def poll_later() -> Any:
        dr_set.clock.advance(30)
        return poll()

    trigger.poll = poll_later  # type: ignore[method-assign]
    event = asyncio.run(first_event())
    assert sensor.execute_complete({}, event)["health"] == "failed"
