"""EnvironmentHealthTrigger and EnvironmentHealthSensor."""

from __future__ import annotations

import asyncio
import importlib
import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.state import Stage
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
    """Poke *times* times, half a minute apart, and return for each poke whether the sensor was done."""
    found = []
    for _ in range(times):
        found.append(sensor.poke({}).is_done)
        dr_set.clock.advance(30)
    return found


def lose(dr_set: World) -> None:
    dr_set.environments["us-east-2"].unreachable = True
    dr_set.agents["us-east-2"].alive = False


def test_the_sensor_ends_with_its_diagnosis(dr_set: World) -> None:
    """
    It ends after enough failed polls in a row, and not before. XCom gets the diagnosis, with the region to fail over
    to.
    """
    sensor = sensor_on(dr_set)
    assert poke(sensor, dr_set, 5) == [False] * 5
    lose(dr_set)
    assert poke(sensor, dr_set, 2) == [False, False]  # the first poll still reads a new heartbeat
    done = sensor.poke({})
    assert done.is_done
    assert json.loads(json.dumps(done.xcom_value)) == done.xcom_value
    assert (done.xcom_value["region"], done.xcom_value["health"], done.xcom_value["standbys"]) == (
        "us-east-2", "failed", ["us-east-1"],
    )  # fmt: skip
    assert {each["signal"] for each in done.xcom_value["signals"]} == {"environment", "agent"}


def test_a_healthy_region_skips_the_task(dr_set: World) -> None:
    """The tasks that follow are then skipped, too."""
    with pytest.raises(AirflowSkipException, match="us-east-2 is healthy"):
        poke(sensor_on(dr_set, skip_if_healthy=True), dr_set, 5)


def test_an_unusable_value_ends_the_sensor_if_problem_interval_is_set(dr_set: World) -> None:
    """A state that gives no region a role ends it at the first poll, an unreadable item after the interval."""
    with_interval, other = (
        sensor_on(dr_set, problem_interval=120.0),
        sensor_on(dr_set, skip_if_healthy=True, strikes=100),
    )
    dr_set.store.damage("SNAPSHOT#us-east-1")
    assert poke(with_interval, dr_set, 4) == [False] * 4
    done = with_interval.poke({})
    assert (done.is_done, done.xcom_value["health"]) == (True, "healthy")
    assert "SNAPSHOT#us-east-1" in done.xcom_value["problems"][0]
    assert json.loads(json.dumps(done.xcom_value)) == done.xcom_value
    dr_set.store.overwrite(replace(dr_set.state, active_region="us-est-2"))
    assert poke(other, dr_set, 4) == [False] * 4
    done = sensor_on(dr_set, problem_interval=120.0).poke({})
    assert (done.is_done, done.xcom_value["health"]) == (True, "unknown")
    assert "us-est-2" in done.xcom_value["problems"][0]


def test_a_halt_that_no_caller_continues_ends_only_a_sensor_with_problem_interval(dr_set: World) -> None:
    """The second sensor of dr_monitor does not end: it neither reports a failure nor a healthy region."""
    dr_set.fail_over("us-east-1", until=Stage.DRAINED, hold_s=60)
    with_interval, other = sensor_on(dr_set, problem_interval=9000.0), sensor_on(dr_set, skip_if_healthy=True)
    lose(dr_set)
    assert poke(with_interval, dr_set, 3) == [False] * 3
    done = with_interval.poke({})
    assert (done.is_done, done.xcom_value["health"], done.xcom_value["is_halted"]) == (True, "unknown", True)
    assert json.loads(json.dumps(done.xcom_value)) == done.xcom_value
    assert poke(other, dr_set, 9) == [False] * 9


def test_an_event_of_an_earlier_version_has_no_problems(dr_set: World) -> None:
    """A task that deferred before an upgrade resumes after it."""
    earlier = {"region": "us-east-2", "health": "failed", "why": "", "text": "", "standbys": [], "signals": []}
    sensor = sensor_on(dr_set, problem_interval=120.0)
    assert sensor.execute_complete({}, {"status": "success", "diagnosis": earlier})["health"] == "failed"


def test_the_sensor_can_wait_until_the_region_is_healthy(dr_set: World) -> None:
    """This is for tasks that follow a failure."""
    sensor = sensor_on(dr_set, until="healthy")
    lose(dr_set)
    assert poke(sensor, dr_set, 5) == [False] * 5
    dr_set.environments["us-east-2"].unreachable = False
    dr_set.agents["us-east-2"].alive = True
    dr_set.clock.advance(2)
    assert poke(sensor, dr_set, 4)[-1] is True


def test_an_unreachable_state_table_does_not_end_the_sensor(dr_set: World) -> None:
    """This holds also for the first poll, which needs the registered environments."""
    sensor = sensor_on(dr_set)
    dr_set.store.unreachable = True
    assert poke(sensor, dr_set, 3) == [False] * 3


def test_missing_rights_fail_the_sensor(dr_set: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the region would not be watched, and no user would know."""
    sensor = sensor_on(dr_set)
    monkeypatch.setattr(dr_set.store, "read", lambda: (_ for _ in ()).throw(StateAccessError("Not allowed.")))
    with pytest.raises(AirflowFailException, match="Not allowed"):
        sensor.poke({})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"until": "broken"}, "'failed' and 'healthy'"),
        ({"quorum": 0}, "1 or more"),
        ({"mode": "reschedule"}, "deferrable"),
    ],
)
def test_wrong_arguments_are_named_when_the_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    """The user learns of it before an outage, not during one."""
    with pytest.raises(ValueError, match=message):
        EnvironmentHealthSensor(task_id="watch", **arguments)


def test_a_deferred_sensor_gives_plain_values_to_the_triggerer(dr_set: World) -> None:
    """Airflow's database stores path and arguments. They create the same trigger again after any restart."""
    sensor = sensor_on(
        dr_set, deferrable=True, skip_if_healthy=True, suspect=True, probe_interval=900.0, problem_interval=60.0,
        restart_timeout=300.0, timeout=90,
    )  # fmt: skip
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})
    path, arguments = deferred.value.trigger.serialize()
    assert path == "airflow_provider_mwaa_dr.triggers.environment_health.EnvironmentHealthTrigger"
    assert json.loads(json.dumps(arguments)) == arguments
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**arguments)
    assert again.serialize() == (path, arguments)
    assert (again.until, again.strikes, deferred.value.timeout.total_seconds()) == (["failed", "healthy"], 2, 90)


def test_the_trigger_fires_after_enough_strikes(dr_set: World) -> None:
    """The sensor continues with its event."""
    sensor = sensor_on(dr_set, deferrable=True, poke_interval=0.0)
    trigger: EnvironmentHealthTrigger = sensor._watcher
    assert trigger.poll() is None
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


def test_arguments_of_an_earlier_version_still_work(dr_set: World) -> None:
    """A task that deferred before an upgrade resumes after it. The time of its polls counts, as before."""
    trigger = EnvironmentHealthTrigger(
        until=["failed"], strikes=4, quorum=2, probe_interval=None, problem_interval=None, poke_interval=30.0,
        aws_conn_id=None, region_name=None, verify=None, botocore_config=None,
    )  # fmt: skip
    trigger.hook = sensor_on(dr_set).hook
    events = []
    for number in range(8):
        if number == 2:
            lose(dr_set)
        events.append(trigger.poll())
        dr_set.clock.advance(30)
    assert [event is not None for event in events] == [False] * 6 + [True] * 2


def stop_schedulers(dr_set: World) -> None:
    """The service and Airflow's API answer, but no scheduler is alive."""
    dr_set.environments["us-east-2"].scheduler_healthy = False
    dr_set.agents["us-east-2"].alive = False


def test_a_suspicion_ends_the_sensor_before_the_failure_is_certain(dr_set: World) -> None:
    """Schedulers may be restarting, so the failure is certain only after ten minutes. Users learn of it earlier."""
    suspicion, loss = sensor_on(dr_set, suspect=True), sensor_on(dr_set)
    assert poke(suspicion, dr_set, 2) == [False] * 2
    stop_schedulers(dr_set)
    done = [suspicion.poke({})]
    dr_set.clock.advance(30)
    done.append(suspicion.poke({}))
    assert [each.is_done for each in done] == [False, True]
    assert (done[1].xcom_value["health"], done[1].xcom_value["is_certain"]) == ("failed", False)
    assert poke(loss, dr_set, 23)[-3:] == [False, True, True]


def test_a_suspicion_waits_until_a_lost_region_is_certain(dr_set: World) -> None:
    """That takes seconds, so one message is enough."""
    suspicion = sensor_on(dr_set, suspect=True)
    poke(suspicion, dr_set, 2)
    lose(dr_set)
    assert poke(suspicion, dr_set, 2) == [False, False]
    done = suspicion.poke({})
    assert (done.is_done, done.xcom_value["is_certain"]) == (True, True)


def test_a_certain_diagnosis_of_an_earlier_sensor_is_not_repeated(dr_set: World) -> None:
    """The second sensor returns it, and polls nothing. So the failover begins earlier."""
    earlier = {"region": "us-east-2", "health": "failed", "is_certain": True, "text": "lost", "signals": []}
    sensor = sensor_on(dr_set, deferrable=True, earlier=json.dumps(earlier))
    assert sensor.execute({}) == earlier
    assert dr_set.environments["us-east-2"].calls == []


@pytest.mark.parametrize("earlier", ["", "null", '{"region": "us-east-2", "health": "failed", "text": ""}'])
def test_other_diagnoses_of_an_earlier_sensor_make_nothing_certain(dr_set: World, earlier: str) -> None:
    """There is none; or it was the first poll, as a trigger of an earlier version reports it."""
    with pytest.raises(TaskDeferred):
        sensor_on(dr_set, deferrable=True, earlier=earlier).execute({})


@pytest.mark.parametrize(("service", "is_soon"), [("healthy", True), ("failed", False)])
def test_the_second_sensor_knows_that_no_update_was_in_progress(dr_set: World, service: str, *, is_soon: bool) -> None:
    """
    The region dies between the two sensors, so the service never answers the second one. If it did not answer the
    first one either, perhaps it is updating the environment.
    """
    earlier = {
        "region": "us-east-2", "health": "failed", "is_certain": False, "text": "",
        "signals": [{"signal": "environment", "health": service, "why": ""}],
    }  # fmt: skip
    sensor = sensor_on(dr_set, earlier=json.dumps(earlier))
    lose(dr_set)
    assert any(poke(sensor, dr_set, 5)) is is_soon


def test_one_poll_makes_nothing_certain_for_a_second_sensor(dr_set: World) -> None:
    """A sensor with one strike ends at the first failed poll."""
    sensor = sensor_on(dr_set, strikes=1)
    poke(sensor, dr_set, 2)
    lose(dr_set)
    poke(sensor, dr_set, 1)
    assert sensor.poke({}).xcom_value["is_certain"] is False


def test_polls_begin_at_the_interval(dr_set: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a poll takes is part of it, so polls of a dead region do not delay the decision."""
    trigger: EnvironmentHealthTrigger = sensor_on(dr_set, deferrable=True, poke_interval=10.0)._watcher
    waits: list[float] = []
    polls = iter([(4.0, None), (16.0, None), (1.0, {"status": "success"})])

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        dr_set.clock.advance(seconds)

    def poll() -> Any:
        taken_s, event = next(polls)
        dr_set.clock.advance(taken_s)
        return event

    monkeypatch.setattr(asyncio, "sleep", sleep)
    trigger.poll = poll  # type: ignore[method-assign]

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    assert asyncio.run(events()) == [{"status": "success"}]
    assert waits == [6.0, 0.0]
