"""The package in the installed Airflow: plugin, settings, catalogue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.core.config import OPTIONS
from airflow_provider_mwaa_dr.get_provider_info import get_provider_info

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


def test_the_catalogue_entry_is_valid() -> None:
    """The test uses the schema of this Airflow, which refuses a provider with an invalid entry."""
    import airflow
    import jsonschema

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_every_option_is_in_the_catalogue() -> None:
    """The package has one table of options."""
    options: dict[str, Any] = get_provider_info()["config"]["dr"]["options"]
    assert list(options) == [option.name for option in OPTIONS]
    names = {"description", "version_added", "type", "example", "default"}
    assert all(set(option) == names for option in options.values())


def test_airflows_configuration_wins_over_the_environments_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the configured value equals the default, because a user wrote it."""
    monkeypatch.setenv("DR_ENABLED", "true")
    monkeypatch.setenv("DR_STATE_TABLE", "from-environment")
    assert conf.load().enabled
    assert conf.load().state_table == "from-environment"
    monkeypatch.setenv("AIRFLOW__DR__ENABLED", "False")
    monkeypatch.setenv("AIRFLOW__DR__STATE_TABLE", "from-airflow")
    assert not conf.load().enabled
    assert conf.load().state_table == "from-airflow"


def test_the_other_name_in_the_aws_sample_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """table_region is an alias. The region itself falls back to the value that MWAA sets."""
    monkeypatch.setenv("AIRFLOW__DR__TABLE_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert conf.load().state_table_region == "eu-west-1"
    assert conf.load().region == "us-east-1"
    monkeypatch.setenv("AIRFLOW__DR__REGION", "us-east-2")
    assert conf.load().region == "us-east-2"


def test_the_values_of_mwaa_are_kept_beside_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``[dr] region`` that was copied from another environment is compared with both values."""
    monkeypatch.setenv("AIRFLOW__DR__REGION", "us-east-2")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AIRFLOW_ENV_NAME", "virginia")
    found = conf.load()
    assert (found.region, found.aws_region, found.environment) == ("us-east-2", "us-east-1", "virginia")
