"""ActiveRegionSensor."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import parse_config
from airflow_provider_mwaa_dr.core.state import FieldProblem
from airflow_provider_mwaa_dr.exceptions import UnusableStateError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock

pytest.importorskip("airflow")

from airflow_provider_mwaa_dr._compat import AirflowException, AirflowFailException, TaskDeferred
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.sensors.dr_state import ActiveRegionSensor

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


def sensor_on(store: InMemoryStateStore, *, own_region: str = "us-east-1", **arguments: Any) -> ActiveRegionSensor:
    sensor = ActiveRegionSensor(task_id="wait", **arguments)
    sensor.hook = DRStateHook(dr_config=parse_config({"region": own_region}), store=store)
    return sensor


def test_it_waits_until_the_region_has_the_role() -> None:
    """It waits for its own region unless another one is named, and succeeds from the write that moves the role."""
    clock = ManualClock()
    store = InMemoryStateStore(
        transitions.initial("us-east-2", lease_s=60, by="init", at=clock.now()), regions=("us-east-1", "us-east-2")
    )
    assert sensor_on(store).poke({}) is False
    assert sensor_on(store, region="us-east-2").poke({}) is True
    DRStateHook(dr_config=parse_config({"environments": "us-east-1=virginia"}), store=store).set_active_region(
        "us-east-1", reason="test"
    )
    assert sensor_on(store).poke({}) is True


def test_unknown_means_wait() -> None:
    """A table that does not answer, or that is empty, does not fail the sensor."""
    store = InMemoryStateStore()
    assert sensor_on(store).poke({}) is False
    store.unreachable = True
    assert sensor_on(store).poke({}) is False


def test_a_state_that_gives_no_region_a_role_does_not_end_the_wait() -> None:
    """
    Every region holds its runs, also the region that the item names. The wait ends after a user corrects the item.
    """
    store = standby_store()
    assert store.state is not None
    good = store.state
    store.overwrite(replace(good, problems=(FieldProblem("lease_s", "'nan'", "a number of seconds"),)))
    assert sensor_on(store, region="us-east-2").poke({}) is False
    store.overwrite(replace(good, active_region="us-est-2"))
    assert sensor_on(store, region="us-est-2").poke({}) is False
    store.failing["read"] = UnusableStateError("The item cannot be understood.")
    assert sensor_on(store).poke({}) is False
    del store.failing["read"]
    store.overwrite(good)
    assert sensor_on(store, region="us-east-2").poke({}) is True


def test_a_wrong_setting_fails_immediately() -> None:
    """An Airflow that does not know its region would wait for ever."""
    with pytest.raises(AirflowFailException):
        sensor_on(InMemoryStateStore(), own_region="").poke({})


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_the_sensor_works_in_both_modes(mode: str) -> None:
    """The modes of the base sensor work, and the region is a template field."""
    sensor = ActiveRegionSensor(task_id="wait", mode=mode, region="{{ params.region }}")
    assert sensor.reschedule is (mode == "reschedule")
    assert "region" in sensor.template_fields


def standby_store() -> InMemoryStateStore:
    state = transitions.initial("us-east-2", lease_s=60, by="init", at=ManualClock().now())
    return InMemoryStateStore(state, regions=("us-east-1", "us-east-2"))


def test_a_deferred_sensor_gives_plain_values_to_the_triggerer() -> None:
    """
    Airflow's database stores path and arguments. The worker resolves the region, because the triggerer may not know it.
    """
    sensor = sensor_on(standby_store(), deferrable=True, poke_interval=7, timeout=90)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})
    path, arguments = deferred.value.trigger.serialize()
    assert path == "airflow_provider_mwaa_dr.triggers.dr_state.ActiveRegionTrigger"
    assert json.loads(json.dumps(arguments)) == arguments
    assert (arguments["region"], arguments["poke_interval"]) == ("us-east-1", 7)
    assert deferred.value.timeout.total_seconds() == 90
    assert hasattr(sensor, deferred.value.method_name)


def test_a_deferrable_sensor_does_not_defer_when_the_first_read_succeeds() -> None:
    """If the first read is enough, the task does not go through the triggerer."""
    assert sensor_on(standby_store(), region="us-east-2", deferrable=True).execute({}) is None


def test_the_sensor_continues_with_the_event_of_the_trigger() -> None:
    """
    A success event ends the task. A wrong setting fails it without a retry, and a temporary error keeps its retries.
    """
    sensor = sensor_on(standby_store(), deferrable=True)
    sensor.execute_complete({}, {"status": "success", "active_region": "us-east-1", "epoch": 3})
    with pytest.raises(AirflowFailException, match="no table"):
        sensor.execute_complete({}, {"status": "error", "message": "no table", "is_worth_a_retry": False})
    with pytest.raises(AirflowException, match="later") as raised:
        sensor.execute_complete({}, {"status": "error", "message": "later", "is_worth_a_retry": True})
    assert not isinstance(raised.value, AirflowFailException)


def test_a_deferrable_sensor_with_a_wrong_setting_fails_immediately() -> None:
    """It does not defer, because the trigger could only fail later."""
    with pytest.raises(AirflowFailException):
        sensor_on(standby_store(), own_region="", deferrable=True).execute({})


@pytest.mark.parametrize("default", ["True", "False"])
def test_deferring_follows_airflows_default(monkeypatch: pytest.MonkeyPatch, default: str) -> None:
    """``[operators] default_deferrable`` decides unless the DAG sets it."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", default)
    assert ActiveRegionSensor(task_id="wait").deferrable is (default == "True")
    assert ActiveRegionSensor(task_id="wait", deferrable=False).deferrable is False
