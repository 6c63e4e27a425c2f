"""What Airflow loads with the plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

IMPORT_PLUGIN = """
import json, sys
import airflow.plugins_manager
before = set(sys.modules)
from airflow_provider_mwaa_dr.plugins.mwaa_dr import MwaaDRPlugin
print("LOADED", json.dumps([sorted(set(sys.modules) - before), len(MwaaDRPlugin.listeners)]))
"""


def _import_plugin(enabled: str | None) -> tuple[set[str], int]:
    """Return what the import of the plugin loads in a new process, and how many listeners it registers."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DR_", "AIRFLOW__DR"))}
    if enabled is not None:
        env["AIRFLOW__DR__ENABLED"] = enabled
    done = subprocess.run([sys.executable, "-c", IMPORT_PLUGIN], env=env, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    loaded, listeners = json.loads(line.removeprefix("LOADED"))
    return set(loaded), listeners


@pytest.mark.parametrize("enabled", [None, "False"])
def test_a_disabled_plugin_costs_nothing(enabled: str | None) -> None:
    """Every Airflow process imports it: without a listener, boto3 or models."""
    loaded, listeners = _import_plugin(enabled)
    assert listeners == 0
    heavy = {name for name in loaded if name.split(".")[0] in {"boto3", "botocore", "sqlalchemy", "requests"}}
    heavy |= {name for name in loaded if name.startswith(("airflow.models", "airflow_provider_mwaa_dr.plugins."))}
    assert heavy <= {"airflow_provider_mwaa_dr.plugins.mwaa_dr"}


def test_an_enabled_plugin_registers_its_listener_and_leaves_boto3_for_later() -> None:
    """A task process must not load what only the scheduler needs."""
    loaded, listeners = _import_plugin("True")
    assert listeners == 1
    assert "boto3" not in loaded
    assert "airflow_provider_mwaa_dr.plugins.gate" not in loaded
    assert not any(name.startswith("airflow_provider_mwaa_dr.plugins.metadata") for name in loaded)
