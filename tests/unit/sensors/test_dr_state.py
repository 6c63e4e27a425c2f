"""ActiveRegionSensor."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import parse_config
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock

pytest.importorskip("airflow")

from airflow_provider_mwaa_dr._compat import AirflowFailException
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.sensors.dr_state import ActiveRegionSensor

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


def sensor_on(store: InMemoryStateStore, *, own_region: str = "us-east-1", **arguments: str) -> ActiveRegionSensor:
    sensor = ActiveRegionSensor(task_id="wait", **arguments)
    sensor.hook = DRStateHook(dr_config=parse_config({"region": own_region}), store=store)
    return sensor


def test_it_waits_until_the_region_has_the_role() -> None:
    """Its own region unless another is named, and True only from the write that moves the role on."""
    clock = ManualClock()
    store = InMemoryStateStore(transitions.initial("us-east-2", lease_s=60, by="init", at=clock.now()))
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
