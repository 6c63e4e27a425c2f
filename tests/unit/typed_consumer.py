"""Code of a user: test_public_types.py checks it with ``mypy --strict``. Nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import assert_type

from airflow_provider_mwaa_dr.core.ports import DagInfo, Environment, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.exceptions import DRError, StaleStateError, StateUnreachableError
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.operators.dags import PauseAllDagsOperator, UnpauseAllDagsOperator
from airflow_provider_mwaa_dr.operators.failover import FailoverOperator
from airflow_provider_mwaa_dr.operators.readiness import ReadinessOperator
from airflow_provider_mwaa_dr.pytest_plugin import DRSet
from airflow_provider_mwaa_dr.sensors.dr_state import ActiveRegionSensor
from airflow_provider_mwaa_dr.sensors.environment_health import EnvironmentHealthSensor
from airflow_provider_mwaa_dr.testing import FakeEnvironment, InMemoryStateStore, ManualClock


def read(hook: DRStateHook) -> str:
    assert_type(hook.is_active(), bool)
    assert_type(hook.active_region(), str)
    state = assert_type(hook.get_state(), DRState)
    assert_type(hook.active_state().phase, Phase)
    assert_type(hook.get_conn(), StateStore)
    assert_type(hook.environment("us-east-1"), Environment)
    assert_type(hook.set_active_region("us-east-1", reason="test"), DRState)
    try:
        return assert_type(hook.initialize().active_region, str)
    except StaleStateError as error:
        assert_type(error.found, DRState | None)
        return state.active_region
    except StateUnreachableError as error:
        described: DRError = error
        return str(described)


def use(mwaa_dr_state: DRSet) -> datetime:
    assert_type(mwaa_dr_state.active_region, str)
    assert_type(mwaa_dr_state.hook("us-east-1"), DRStateHook)
    assert_type(mwaa_dr_state.store, InMemoryStateStore)
    mwaa_dr_state.fail_over()
    mwaa_dr_state.clock.advance(5)
    return mwaa_dr_state.clock.now()


def make(clock: ManualClock) -> Mapping[str, object]:
    environment = FakeEnvironment("us-east-2", dags=["orders"], clock=clock)
    port: Environment = environment
    dags = port.dags()
    assert_type(dags[0], DagInfo)
    return {
        "failover": FailoverOperator(task_id="fail_over", target_region="us-east-1", reason="test"),
        "pause": PauseAllDagsOperator(task_id="pause", region="us-east-1"),
        "unpause": UnpauseAllDagsOperator(task_id="unpause", region="us-east-1"),
        "check": ReadinessOperator(task_id="check", fail_on_warn=True),
        "wait": ActiveRegionSensor(task_id="wait", region="us-east-1"),
        "health": EnvironmentHealthSensor(task_id="health"),
    }
