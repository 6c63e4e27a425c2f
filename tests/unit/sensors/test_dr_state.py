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
    """Its own region unless another is named, and True only from the write that moves the role on."""
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
    """A table that does not answer, or holds nothing yet, fails no sensor."""
    store = InMemoryStateStore()
    assert sensor_on(store).poke({}) is False
    store.unreachable = True
    assert sensor_on(store).poke({}) is False


def test_a_state_that_gives_no_region_a_role_is_waited_for() -> None:
    """Every region holds its runs then, the region that the item names, too; a person corrects the item."""
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


def test_a_wrong_setting_fails_at_once() -> None:
    """Waiting for an Airflow that does not know its region would never end."""
    with pytest.raises(AirflowFailException):
        sensor_on(InMemoryStateStore(), own_region="").poke({})


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_both_modes_are_its_own(mode: str) -> None:
    """The base sensor's modes work, and the region is a template field."""
    sensor = ActiveRegionSensor(task_id="wait", mode=mode, region="{{ params.region }}")
    assert sensor.reschedule is (mode == "reschedule")
    assert "region" in sensor.template_fields


def standby_store() -> InMemoryStateStore:
    state = transitions.initial("us-east-2", lease_s=60, by="init", at=ManualClock().now())
    return InMemoryStateStore(state, regions=("us-east-1", "us-east-2"))


def test_deferred_it_hands_plain_values_to_the_triggerer() -> None:
    """Path and arguments go into Airflow's database; the region is settled where it is known, in the worker."""
    sensor = sensor_on(standby_store(), deferrable=True, poke_interval=7, timeout=90)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})
    path, arguments = deferred.value.trigger.serialize()
    assert path == "airflow_provider_mwaa_dr.triggers.dr_state.ActiveRegionTrigger"
    assert json.loads(json.dumps(arguments)) == arguments
    assert (arguments["region"], arguments["poke_interval"]) == ("us-east-1", 7)
    assert deferred.value.timeout.total_seconds() == 90
    assert hasattr(sensor, deferred.value.method_name)


def test_deferred_it_does_not_wait_for_what_is_so() -> None:
    """No way through the triggerer when the first look is enough."""
    assert sensor_on(standby_store(), region="us-east-2", deferrable=True).execute({}) is None


def test_it_goes_on_with_the_triggers_event() -> None:
    """Success ends it; a setting that is wrong fails it for good, what may pass leaves it its retries."""
    sensor = sensor_on(standby_store(), deferrable=True)
    sensor.execute_complete({}, {"status": "success", "active_region": "us-east-1", "epoch": 3})
    with pytest.raises(AirflowFailException, match="no table"):
        sensor.execute_complete({}, {"status": "error", "message": "no table", "is_worth_a_retry": False})
    with pytest.raises(AirflowException, match="later") as raised:
        sensor.execute_complete({}, {"status": "error", "message": "later", "is_worth_a_retry": True})
    assert not isinstance(raised.value, AirflowFailException)


def test_deferred_a_wrong_setting_fails_at_once() -> None:
    """Nothing is handed to a triggerer that could only fail there, later."""
    with pytest.raises(AirflowFailException):
        sensor_on(standby_store(), own_region="", deferrable=True).execute({})


@pytest.mark.parametrize("default", ["True", "False"])
def test_whether_it_defers_is_airflows_default(monkeypatch: pytest.MonkeyPatch, default: str) -> None:
    """``[operators] default_deferrable``, unless the DAG says."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", default)
    assert ActiveRegionSensor(task_id="wait").deferrable is (default == "True")
    assert ActiveRegionSensor(task_id="wait", deferrable=False).deferrable is False
