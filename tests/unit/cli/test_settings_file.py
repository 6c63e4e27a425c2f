"""The settings file: a profile for each DR set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.cli.settings_file import with_settings
from airflow_provider_mwaa_dr.exceptions import ConfigError
from tests.unit.cli.conftest import ENVIRON, Shell

FILE = """
[default]
state_table = "mwaa-dr-state"
state_table_region = "us-east-2"
state_table_replicas = ["us-east-2", "us-east-1"]
drain_s = 30

[default.environments]
us-east-2 = "ohio"
us-east-1 = "virginia"

[reports]
state_table = "reports-state"
state_table_region = "us-west-2"
fence = false
aws_profile = "reports"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Variables with a home folder that has the file."""
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config" / "mwaa-dr.toml").write_text(FILE, encoding="utf-8")
    return {"HOME": str(tmp_path)}


def write(environ: dict[str, str], text: str) -> None:
    (Path(environ["HOME"]) / ".config" / "mwaa-dr.toml").write_text(text, encoding="utf-8")


def test_the_default_profile_replaces_the_exports(mwaa_dr: Shell, environ: dict[str, str]) -> None:
    """The command needs no variable and no option."""
    mwaa_dr.environ = {**environ, "DR_HEARTBEAT_S": "1"}
    result = mwaa_dr("status")
    assert result.code == 0
    assert "virginia" in result.out


def test_values_are_the_texts_of_the_variables(environ: dict[str, str]) -> None:
    """Lists and tables are written as in the variables; keys keep their order."""
    found, overridden = with_settings(environ, None)
    assert found == {
        **environ,
        "DR_STATE_TABLE": "mwaa-dr-state",
        "DR_STATE_TABLE_REGION": "us-east-2",
        "DR_STATE_TABLE_REPLICAS": "us-east-2,us-east-1",
        "DR_DRAIN_S": "30",
        "DR_ENVIRONMENTS": "us-east-2=ohio,us-east-1=virginia",
    }
    assert overridden == []


def test_a_profile_has_nothing_of_another_one(environ: dict[str, str]) -> None:
    """A setting of another DR set in it would name the wrong table."""
    found, _ = with_settings(environ, "reports")
    assert found == {
        **environ,
        "DR_STATE_TABLE": "reports-state",
        "DR_STATE_TABLE_REGION": "us-west-2",
        "DR_FENCE": "false",
        "AWS_PROFILE": "reports",
    }


@pytest.mark.parametrize("variable", ["DR_STATE_TABLE_REGION", "DR_TABLE_REGION"])
def test_variables_override_the_file(environ: dict[str, str], variable: str) -> None:
    """Also an alias of the option's name."""
    found, overridden = with_settings({**environ, variable: "us-west-2"}, None)
    assert found[variable] == "us-west-2"
    assert found.get("DR_STATE_TABLE_REGION", "us-west-2") == "us-west-2"
    assert overridden == [variable]


def test_a_named_profile_that_variables_override_is_said(mwaa_dr: Shell, environ: dict[str, str]) -> None:
    """Otherwise the command would act on the table of the variables, and the user expects that of the profile."""
    mwaa_dr.environ = {**ENVIRON, **environ}
    said = mwaa_dr("status", "--profile", "reports").err
    assert "DR_STATE_TABLE, DR_STATE_TABLE_REGION" in said
    assert "override" in said
    assert mwaa_dr("status").err == ""


def test_options_override_both(mwaa_dr: Shell, environ: dict[str, str]) -> None:
    """The state table of the option is opened."""
    tables = []
    mwaa_dr.environ = {**environ, "DR_STATE_TABLE": "variable"}
    make = mwaa_dr.runtime
    store = mwaa_dr.store

    def runtime(*arguments: object, **more: object) -> object:
        from dataclasses import replace

        return replace(
            make(*arguments, **more),  # type: ignore[arg-type]
            make_store=lambda config: tables.append(config.state_table) or store.peer(),
        )

    mwaa_dr.runtime = runtime  # type: ignore[assignment,method-assign]
    mwaa_dr("history", "--table", "option")
    mwaa_dr("history")
    assert tables == ["option", "variable"]


def test_boto3_gets_the_profile_of_the_file(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 reads the variable from the process."""
    monkeypatch.setenv("HOME", environ["HOME"])
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "")
    with_settings(os.environ, "reports")
    assert os.environ["AWS_PROFILE"] == "reports"


@pytest.mark.parametrize(
    ("text", "profile", "says"),
    [
        (FILE, "report", "Did you mean reports? Existing profiles: default, reports."),
        ("[default]\nstate_tabel = 'x'", None, "Did you mean state_table?"),
        ("[default\n", None, "cannot be read"),
        ("state_table = 'x'", None, "[default]"),
        (None, "reports", "Existing profiles: none."),
    ],
    ids=["profile", "setting", "syntax", "outside", "no file"],
)
def test_a_mistake_in_the_file_is_wrong_usage(
    environ: dict[str, str], text: str | None, profile: str | None, says: str
) -> None:
    """The error names the file and what is known."""
    if text is None:
        (Path(environ["HOME"]) / ".config" / "mwaa-dr.toml").unlink()
    else:
        write(environ, text)
    with pytest.raises(ConfigError) as caught:
        with_settings(environ, profile)
    assert "mwaa-dr.toml" in str(caught.value)
    assert says in f"{caught.value.message} {caught.value.advice}"


def test_without_a_file_nothing_changes(tmp_path: Path) -> None:
    """The variables alone are enough."""
    environ = {"HOME": str(tmp_path), "DR_STATE_TABLE": "x"}
    assert with_settings(environ, None) == (environ, [])
    assert with_settings({}, None) == ({}, [])
