"""The sandbox's commands that need no running process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.cli import main
from airflow_provider_mwaa_dr.sandbox.runtime.home import REGIONS, Blueprint, Home, new_blueprint
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox

TWO_IN_ONE = "blue=3.3.1@us-east-2,green=3.3.1@us-east-2"


def named_sites() -> Blueprint:
    """Return the blueprint of two sites in one region."""
    return new_blueprint(
        versions=dict.fromkeys(("blue", "green"), "3.3.1"),
        executor="LocalExecutor",
        schedulers=1,
        dr={},
        places=dict.fromkeys(("blue", "green"), "us-east-2"),
    )


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A home whose sandbox is down."""
    home = Home(tmp_path / "home")
    home.make(new_blueprint(versions=dict.fromkeys(REGIONS, "3.3.1"), executor="LocalExecutor", schedulers=1, dr={}))
    Sandbox(home.path)._describe(home.blueprint())
    return home.path


def test_env_prints_exactly_the_variables_of_sandbox_json(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One export line for each variable, in single quotes, for eval."""
    assert main(["sandbox", "env", "--home", str(stopped)]) == 0

    env = json.loads((stopped / "sandbox.json").read_text())["env"]
    assert capsys.readouterr().out.splitlines() == [f"export {name}='{value}'" for name, value in env.items()]


@pytest.mark.parametrize("command", [["env"], ["kill", "us-east-2"], ["revive", "us-east-2"], ["logs"]])
def test_without_a_sandbox_the_error_names_sandbox_up(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and no folder is created."""
    assert main(["sandbox", *command, "--home", str(tmp_path / "nothing")]) == 2

    assert "mwaa-dr sandbox up" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_down_succeeds_when_nothing_runs(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is idempotent, works without a home, and removes the home with --purge."""
    for home, changed in ((stopped, False), (stopped, False), (tmp_path / "nothing", False)):
        assert main(["sandbox", "down", "--json", "--home", str(home)]) == 0
        assert json.loads(capsys.readouterr().out) == {"changed": changed}
    assert main(["sandbox", "down", "--purge", "--home", str(stopped)]) == 0
    assert not stopped.exists()


def test_purge_deletes_no_other_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and nothing is deleted."""
    (tmp_path / "thesis.tex").write_text("42")

    assert main(["sandbox", "down", "--purge", "--home", str(tmp_path)]) == 2
    assert "not a sandbox" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "--airflow", "1.10.15"], "Allowed are 3.3.1"),
        (["up", "--airflow", "us-west-2=3.3.1"], "no region us-west-2"),
        (["up", "--airflow", "us-east-1=3.3.1,3.0.6"], "not REGION=VERSION"),
        (["up", "--dags", "/does/not/exist"], "not a folder"),
        (["up", "--bare", "--state-model", "eventual"], "cannot have the state model eventual"),
        (["up", "--sites", "blue=3.3.1@us-east-2"], "does not name two sites"),
        (["up", "--sites", "blue=3.3.1,green=3.3.1@us-east-2"], "names no region for the site blue"),
        (["up", "--sites", "blue,green"], "'blue' is not SITE=VERSION@REGION"),
        (["up", "--sites", "a=3.3.1@us-east-2,b=3.3.1@us-east-2", "--airflow", "3.3.1"], "--airflow, too"),
        (["kill", "us-west-2"], "no region us-west-2"),
        (["fault", "us-east-1", "dynamodb", "hiccup"], "not a fault"),
        (["fault", "us-east-1", "dynamodb", "refuse", "--from", "mars"], "The caller mars does not exist"),
        (["fault", "us-east-1", "dynamodb", "refuse", "--to", "mars"], "The target mars does not exist"),
        (["drill", "--scenario", "earthquake"], "The scenario earthquake does not exist"),
        (["drill", "--sites", "blue=3.3.1@us-east-2"], "does not name two sites"),
        (["drill", "--sites", TWO_IN_ONE, "--scenario", "all"], "--sites does not fit --scenario all"),
        (["logs", "us-west-2"], "No such log exists"),
    ],
)
def test_wrong_usage_is_named(
    arguments: list[str], words: str, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before any process starts."""
    assert main(["sandbox", *arguments, "--home", str(stopped)]) == 2
    assert words in capsys.readouterr().err


def test_another_airflow_version_in_the_same_home_is_refused(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3; the advice names the command that helps."""
    assert main(["sandbox", "up", "--airflow", "3.0.6", "--json", "--home", str(stopped)]) == 3
    assert "down --purge" in json.loads(capsys.readouterr().out)["error"]["advice"]


def test_a_home_cannot_change_between_bare_and_normal(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Exit code 3 for the command, and for the drill that needs the other kind; the advice names the command that helps.
    """
    for words in (["up", "--bare"], ["drill", "--scenario", "deployed"]):
        assert main(["sandbox", *words, "--json", "--home", str(stopped)]) == 3
        error = json.loads(capsys.readouterr().out)["error"]
        assert "--bare" in error["message"]
        assert "down --purge" in error["advice"]


def test_an_upgrade_needs_a_new_home(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs of an earlier drill would mix with its own. Exit code 3; the advice names the command that helps."""
    assert main(["sandbox", "drill", "--scenario", "upgrade", "--json", "--home", str(stopped)]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert "needs a new sandbox" in error["message"]
    assert "down --purge" in error["advice"]


def test_a_home_keeps_its_sites(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, also for a drill; the message names the sites of the home."""
    for command in ("up", "drill"):
        assert main(["sandbox", command, "--sites", TWO_IN_ONE, "--json", "--home", str(stopped)]) == 3
        message = json.loads(capsys.readouterr().out)["error"]["message"]
        assert "us-east-2 in us-east-2, us-east-1 in us-east-1" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--state-model", "eventual"], "one state table"),
        (["--executor", "CeleryExecutor"], "would share the queues"),
        (["--like-mwaa"], "would share the queues"),
    ],
)
def test_what_sites_with_names_cannot_have_is_refused(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before any process starts."""
    if "eventual" in arguments:
        Home(tmp_path / "new").make(named_sites())
    code = main(["sandbox", "up", "--sites", TWO_IN_ONE, *arguments, "--home", str(tmp_path / "new")])
    assert code == 2
    assert words in capsys.readouterr().err


def test_a_fault_of_a_site_and_a_fault_of_its_region(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A site calls, and its MWAA is called. The region is only called: no caller has its name."""
    home = Home(tmp_path / "home")
    home.make(named_sites())
    for words in (["blue", "mwaa", "deny"], ["us-east-2", "dynamodb", "throttle", "--from", "green"]):
        assert main(["sandbox", "fault", *words, "--home", str(home)]) == 0
    assert main(["sandbox", "fault", "green", "all", "refuse", "--to", "us-east-2", "--home", str(home)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "refuse for all from green to us-east-2"
    assert main(["sandbox", "fault", "us-east-2", "all", "refuse", "--to", "blue", "--home", str(home)]) == 2
    assert "no region us-east-2" in capsys.readouterr().err


def test_a_region_of_a_sandbox_that_is_down_cannot_be_revived(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3; the message names sandbox up."""
    assert main(["sandbox", "revive", "us-east-1", "--home", str(stopped)]) == 3
    assert "mwaa-dr sandbox up" in capsys.readouterr().err


def test_faults_are_listed_until_they_are_lifted(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault without a direction applies to both directions."""
    assert main(["sandbox", "fault", "us-east-1", "all", "blackhole", "--json", "--home", str(stopped)]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == [
        {"service": "all", "fault": "blackhole", "seconds": None, "from": "us-east-1", "to": None},
        {"service": "all", "fault": "blackhole", "seconds": None, "from": None, "to": "us-east-1"},
    ]
    assert main(["sandbox", "fault", "us-east-1", "all", "none", "--home", str(stopped)]) == 0
    assert capsys.readouterr().out == "no faults\n"


def test_logs_are_shown_by_region_and_component(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line begins with its region and component."""
    for region in REGIONS:
        log = Home(stopped).log(region, "scheduler")
        log.parent.mkdir(parents=True)
        log.write_text("one\ntwo\n")

    assert main(["sandbox", "logs", "us-east-1", "scheduler", "--home", str(stopped)]) == 0
    assert capsys.readouterr().out == "us-east-1 scheduler | one\nus-east-1 scheduler | two\n"
