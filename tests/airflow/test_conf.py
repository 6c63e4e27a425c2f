"""The settings in the configuration of the installed Airflow."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr import conf


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
