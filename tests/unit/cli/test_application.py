"""Exit codes, and stdout as one document, for every kind of failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.exceptions import (
    DRError,
    StaleStateError,
    StateAccessError,
    StateNotFoundError,
    StateUnreachableError,
    TableNotFoundError,
)
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
from tests.unit.cli.conftest import ENVIRON, Shell


class FailingStore(InMemoryStateStore):
    """A store whose reads always raise *error*."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def peer(self) -> InMemoryStateStore:
        return self

    def read(self) -> DRState:
        raise self.error


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["failover"],
        ["failover", "us-east-1"],
        ["failover", "us-east-1", "--reason", ""],
        ["failover", "us-east-1", "--reason", " \n", "--yes"],
        ["failover", "us-east-1", "--reason", "x", "--mode", "brutal", "--yes"],
        ["failover", "mars", "--reason", "x", "--yes"],
        ["failover", "us-east-1", "--reason", "x\udcff", "--yes"],
        ["pause", "mars", "--yes"],
        ["unpause", "mars", "--yes"],
        ["init", "--active", "mars", "--yes"],
        ["status", "--nonsense"],
        ["status", "--jso"],
    ],
)
def test_wrong_usage_ends_with_2_and_changes_nothing(mwaa_dr: Shell, argv: list[str]) -> None:
    """For each kind of wrong argument: exit code 2, an error document, and an unchanged state."""
    before = mwaa_dr.store.state
    result = mwaa_dr(*argv, "--json")
    assert result.code == 2
    assert list(result.document) == ["error"]
    assert list(result.document["error"]) == ["type", "message", "advice"]
    assert mwaa_dr.store.state is before
    plain = mwaa_dr(*argv)
    assert (plain.code, plain.out) == (2, "")
    assert plain.err.count("\n") == 1


def test_the_error_for_an_unknown_region_lists_the_known_regions(mwaa_dr: Shell) -> None:
    """For a mistyped region, the message lists the known regions."""
    result = mwaa_dr("failover", "us-esat-1", "--reason", "x", "--yes", "--json")
    assert "known are us-east-1, us-east-2" in result.document["error"]["message"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StateUnreachableError("no replica answered", advice="Try later."), 1),
        (StateAccessError("no credentials"), 1),
        (TableNotFoundError("no table"), 1),
        (StateNotFoundError("no item", advice="Run mwaa-dr init."), 1),
        (StaleStateError(1, None), 3),
        (RuntimeError("a bug"), 1),
        (RuntimeError(), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code_and_one_document(mwaa_dr: Shell, error: BaseException, code: int) -> None:
    """Scripts distinguish failures by the exit code, and get one JSON document even after a bug."""
    mwaa_dr.store = FailingStore(error)
    result = mwaa_dr("status", "--json")
    assert result.code == code
    found = result.document["error"]
    assert found["type"] == ("Interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__)
    assert found["message"]
    assert "Traceback" not in result.err
    if isinstance(error, DRError):
        assert found["message"] == error.message
        assert found["advice"] == (error.advice or None)


@pytest.mark.parametrize("package", ["boto3", "botocore.session", "requests"])
def test_a_missing_package_names_the_extra(mwaa_dr: Shell, package: str) -> None:
    """The wheel requires no package, because MWAA has them all. Elsewhere the extra brings them."""
    mwaa_dr.store = FailingStore(ModuleNotFoundError(f"No module named {package!r}", name=package))
    error = mwaa_dr("status", "--json").document["error"]
    assert package in error["message"]
    assert error["advice"] == "Install it: pip install mwaa-dr-cli."


@pytest.mark.parametrize(
    ("words", "message", "advice"),
    [
        (("failover", "us-east-1", "--reasn", "x"), "Unknown option --reasn.", "Did you mean --reason? "),
        (("failover", "us-east-1", "--reasn=x"), "Unknown option --reasn.", "Did you mean --reason? "),
        (("status", "--jsn"), "Unknown option --jsn.", "Did you mean --json? "),
        (("status", "--zzz"), "Unknown option --zzz.", "See mwaa-dr status --help."),
        (("sandbox", "up", "--airflw", "3.3.1"), "Unknown option --airflw.", "Did you mean --airflow? "),
        (("--vesion",), "Unknown option --vesion.", "Did you mean --version? "),
        (("chekc",), "'chekc' is no COMMAND.", "Did you mean check? Known are deploy, "),
        (("failover", "us-east-1", "--mode", "gracefull"), "'gracefull' is no value of --mode.", "Did you mean grace"),
    ],
)
def test_a_mistyped_word_names_the_nearest(mwaa_dr: Shell, words: tuple[str, ...], message: str, advice: str) -> None:
    """Exit 2; with --json, a document."""
    result = mwaa_dr(*words)
    assert result.code == 2
    assert f"mwaa-dr: {message} {advice}" in result.err


def test_a_value_may_look_like_an_option(mwaa_dr: Shell) -> None:
    """The word after an option that takes a value is not checked."""
    assert mwaa_dr("history", "--table", "x").code == 0
    assert "expected one argument" in mwaa_dr("history", "--table", "--no-table").err
    assert mwaa_dr("failover", "us-east-2", "--reason=--yes is missing", "--yes").code == 0


def test_debug_shows_where_it_broke(mwaa_dr: Shell) -> None:
    """With --debug, the traceback is on stderr only."""
    mwaa_dr.store = FailingStore(RuntimeError("a bug"))
    result = mwaa_dr("status", "--json", "--debug")
    assert "Traceback" in result.err
    assert result.document["error"]["type"] == "RuntimeError"


@pytest.mark.parametrize(
    "argv",
    [
        ["init", "--active", "us-east-2"],
        ["deploy", "--active", "us-east-2"],
        ["undeploy"],
        ["undeploy", "--delete-data"],
        ["failover", "us-east-1", "--reason", "x"],
        ["pause", "us-east-2"],
        ["unpause", "us-east-2"],
    ],
)
def test_a_command_that_changes_something_needs_confirmation(mwaa_dr: Shell, argv: list[str]) -> None:
    """Without a terminal and without --yes, a command that changes something ends with 2 before its first AWS call."""
    result = mwaa_dr(*argv, "--json")
    assert result.code == 2
    assert "--yes" in result.document["error"]["advice"]
    assert mwaa_dr.environment("us-east-2").calls == []


@pytest.mark.parametrize("argv", [["failover", "us-east-1", "--reason", "x"], ["pause", "us-east-2"]])
def test_an_answer_that_is_not_yes_changes_nothing(mwaa_dr: Shell, argv: list[str]) -> None:
    """An empty answer counts as no."""
    before, unpaused = mwaa_dr.store.state, mwaa_dr.environment("us-east-2").unpaused
    result = mwaa_dr(*argv, answer="\n")
    assert result.code == 3
    assert (mwaa_dr.store.state, mwaa_dr.environment("us-east-2").unpaused) == (before, unpaused)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"DR_STATE_TABLE": ""}, "DR_STATE_TABLE"),
        ({"DR_STATE_TABLE_REGION": ""}, "DR_STATE_TABLE_REGION"),
        ({"DR_ENVIRONMENTS": "ohio"}, "SITE=NAME[@REGION]"),
        ({"DR_LEASE_S": "long"}, "numbers from 2 to 3600"),
    ],
)
def test_a_wrong_setting_is_named(mwaa_dr: Shell, changes: dict[str, str], named: str) -> None:
    """A missing or wrong DR_* variable ends with 2, and the message names it."""
    mwaa_dr.environ = {**ENVIRON, **changes}
    result = mwaa_dr("status", "--json")
    assert result.code == 2
    assert named in " ".join(str(value) for value in result.document["error"].values())


def test_the_region_of_the_machine_is_enough_for_the_table(mwaa_dr: Shell) -> None:
    """AWS_REGION is used if the table's region is not set."""
    mwaa_dr.environ = {"DR_STATE_TABLE": "t", "AWS_REGION": "us-east-2"}
    assert mwaa_dr("status", "--json").code == 0


def test_flags_replace_the_variables(mwaa_dr: Shell) -> None:
    """--table and --table-region replace their variables."""
    mwaa_dr.environ = {}
    assert mwaa_dr("status", "--table", "t", "--table-region", "us-east-2", "--json").code == 0


def test_environments_come_from_the_registry_when_none_are_named(mwaa_dr: Shell) -> None:
    """After init, the commands need no DR_ENVIRONMENTS."""
    assert mwaa_dr("init", "--yes").code == 0
    mwaa_dr.environ = {"DR_STATE_TABLE": "t", "DR_STATE_TABLE_REGION": "us-east-2"}
    assert sorted(mwaa_dr("status", "--json").document["regions"]) == ["us-east-1", "us-east-2"]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Users rely on these commands."""
    with pytest.raises(SystemExit) as end:
        Shell()("--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(
        name in shown
        for name in (
            "deploy", "undeploy", "init", "status", "check", "failover", "pause", "unpause", "history", "sandbox",
        )
    )  # fmt: skip


def test_the_command_line_starts_without_airflow_and_without_boto3() -> None:
    """It works when both Airflows are down, and --help is fast."""
    script = (
        "import json, sys; from airflow_provider_mwaa_dr.cli.application import build_parser; "
        "build_parser(with_sandbox=False); "
        "print(json.dumps([name for name in ('airflow', 'boto3', 'moto') if name in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


def test_the_installed_command_speaks_json_on_wrong_usage() -> None:
    """The contract also holds in a separate process, as for the installed command."""
    found = subprocess.run(
        [sys.executable, "-m", "airflow_provider_mwaa_dr.cli", "failover", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )
    assert found.returncode == 2
    assert json.loads(found.stdout)["error"]["type"] == "UsageError"


def test_a_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Bug reports need it."""
    with pytest.raises(SystemExit):
        Shell()("--version")
    assert capsys.readouterr().out.startswith("mwaa-dr ")


def test_pause_and_unpause_are_refused_while_a_plan_is_open(mwaa_dr: Shell) -> None:
    """While a failover is in progress, only its own recorded set is valid."""
    state = mwaa_dr.set.state
    plan = transitions.Plan(
        id="p1", source="us-east-2", target="us-east-1", mode=transitions.Mode.AUTO, reason="r", by="b", owner="o",
        started_at=mwaa_dr.set.clock.now(),
    )  # fmt: skip
    mwaa_dr.store.write(transitions.claim(state, plan, at=mwaa_dr.set.clock.now()), expected_version=state.version)
    for command in ("pause", "unpause"):
        result = mwaa_dr(command, "us-east-2", "--yes", "--json")
        assert (result.code, result.document["error"]["type"]) == (3, "RefusedError")
