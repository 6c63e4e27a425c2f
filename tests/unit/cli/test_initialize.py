"""``mwaa-dr init``."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.exceptions import TableNotFoundError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
from tests.unit.cli.conftest import ENVIRON, Shell


class NoTable(InMemoryStateStore):
    """A store whose table does not exist."""

    def peer(self) -> InMemoryStateStore:
        return self

    def read(self) -> DRState:
        raise TableNotFoundError("There is no table mwaa-dr-state in us-east-2.")


def test_the_first_init_writes_state_and_registry(fresh: Shell) -> None:
    """One command is what a new DR set needs."""
    result = fresh("init", "--active", "us-east-2", "--yes", "--json")
    assert result.code == 0
    assert result.document == {
        "changed": True,
        "active_region": "us-east-2",
        "epoch": 0,
        "version": 1,
        "environments": {"us-east-1": "virginia", "us-east-2": "ohio"},
    }
    assert fresh.store.state is not None
    assert fresh.store.state.active_region == "us-east-2"
    assert {region: found.environment for region, found in fresh.store.registrations().items()} == {
        "us-east-1": "virginia",
        "us-east-2": "ohio",
    }


def test_a_second_init_changes_nothing(fresh: Shell) -> None:
    """Repeating it is safe, with and without naming the region again."""
    fresh("init", "--active", "us-east-2", "--yes")
    for argv in (["init", "--active", "us-east-2"], ["init"]):
        result = fresh(*argv, "--yes", "--json")
        assert (result.code, result.document["changed"], result.document["version"]) == (0, False, 1)


def test_the_first_init_wants_to_know_the_active_region(fresh: Shell) -> None:
    """Guessing which region runs today would be the worst start."""
    result = fresh("init", "--yes", "--json")
    assert result.code == 2
    assert "--active" in result.document["error"]["advice"]
    assert fresh.store.state is None


def test_another_active_region_is_refused(fresh: Shell) -> None:
    """init never moves the role."""
    fresh("init", "--active", "us-east-2", "--yes")
    before = fresh.store.state
    result = fresh("init", "--active", "us-east-1", "--yes", "--json")
    assert (result.code, result.document["error"]["type"]) == (3, "RefusedError")
    assert "mwaa-dr failover us-east-1" in result.document["error"]["advice"]
    assert fresh.store.state is before


def test_a_missing_table_comes_with_the_command_that_makes_it(mwaa_dr: Shell) -> None:
    """The advice can be pasted."""
    mwaa_dr.store = NoTable()
    result = mwaa_dr("init", "--active", "us-east-2", "--yes", "--json")
    assert (result.code, result.document["error"]["type"]) == (1, "TableNotFoundError")
    assert "aws dynamodb create-table --table-name mwaa-dr-state" in result.document["error"]["advice"]


def test_environments_have_to_be_named(fresh: Shell) -> None:
    """The registry is written from DR_ENVIRONMENTS, so it cannot be left out."""
    fresh.environ = {name: text for name, text in ENVIRON.items() if name != "DR_ENVIRONMENTS"}
    assert fresh("init", "--active", "us-east-2", "--yes").code == 2


def test_a_dry_run_writes_nothing(fresh: Shell) -> None:
    """It says what would be written, and needs no consent."""
    result = fresh("init", "--active", "us-east-2", "--dry-run", "--json")
    assert result.code == 0
    assert (result.document["changed"], result.document["would_change"]) == (False, True)
    assert fresh.store.state is None
    assert not fresh.store.registrations()


def test_it_lists_the_open_runs_of_the_standby_and_asks(fresh: Shell) -> None:
    """What the standby's agent will close is shown before it happens."""
    fresh.environment("us-east-1").add_run("orders", "manual__1")
    result = fresh("init", "--active", "us-east-2", answer="y\n")
    assert result.code == 0
    assert "orders manual__1" in result.err
    assert "Continue?" in result.err
    assert fresh.store.state is not None


def test_a_standby_that_does_not_answer_stops_no_init(fresh: Shell) -> None:
    """The list is a courtesy; a region that is down must not be in the way."""
    fresh.environment("us-east-1").unreachable = True
    result = fresh("init", "--active", "us-east-2", "--yes")
    assert result.code == 0
    assert "could not be read" in result.err


def test_a_renamed_environment_is_registered_anew(fresh: Shell) -> None:
    """The registry follows DR_ENVIRONMENTS."""
    fresh("init", "--active", "us-east-2", "--yes")
    fresh.environ = {**ENVIRON, "DR_ENVIRONMENTS": "us-east-2=ohio-2,us-east-1=virginia"}
    result = fresh("init", "--yes", "--json")
    assert result.document["changed"] is True
    assert fresh.store.registrations()["us-east-2"].environment == "ohio-2"
    assert "It replaces ohio, which holds every run from then on." in result.err
    assert "replaces virginia" not in result.err


def test_two_environments_for_one_region_are_refused(fresh: Shell) -> None:
    """Neither wins: both are named, and nothing is written."""
    fresh.environ = {**ENVIRON, "DR_ENVIRONMENTS": "us-east-2=one,us-east-2=two"}
    result = fresh("init", "--active", "us-east-2", "--yes")
    assert result.code == 2
    assert "names two environments for us-east-2: one and two" in result.err
    assert not fresh.store.registrations()


def test_init_above_every_epoch_says_what_it_replaces_and_asks_first(mwaa_dr: Shell) -> None:
    """A dry run changes nothing; the next one is above that."""
    argv = ("init", "--active", "us-east-2", "--above-every-epoch")
    before = mwaa_dr.store.state
    result = mwaa_dr(*argv, "--dry-run", "--json")
    assert (result.code, result.document["would_change"], result.document["epoch"]) == (0, True, 1)
    assert "It replaces epoch 0, version 1, active 'us-east-2'." in result.err
    assert "The command does not wait for a lease." in result.err
    assert mwaa_dr.store.state is before

    assert mwaa_dr(*argv).code == 2  # nobody can be asked
    assert mwaa_dr.store.state is before

    result = mwaa_dr(*argv, "--yes", "--json")
    assert (result.code, result.document["changed"], result.document["epoch"]) == (0, True, 1)
    assert mwaa_dr.store.state is not None
    assert mwaa_dr.store.state.version == 2


def test_init_above_every_epoch_wants_to_know_the_region(mwaa_dr: Shell) -> None:
    """It gives the role to one."""
    assert mwaa_dr("init", "--above-every-epoch", "--yes").code == 2
