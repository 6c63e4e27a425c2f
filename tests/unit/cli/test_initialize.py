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
    """A new DR set needs only this command."""
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
    """It is idempotent, with and without --active."""
    fresh("init", "--active", "us-east-2", "--yes")
    for argv in (["init", "--active", "us-east-2"], ["init"]):
        result = fresh(*argv, "--yes", "--json")
        assert (result.code, result.document["changed"], result.document["version"]) == (0, False, 1)


def test_the_first_init_requires_the_active_region(fresh: Shell) -> None:
    """The command never guesses the active region."""
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


def test_the_error_for_a_missing_table_has_the_command_that_creates_it(mwaa_dr: Shell) -> None:
    """The advice is a complete command."""
    mwaa_dr.store = NoTable()
    result = mwaa_dr("init", "--active", "us-east-2", "--yes", "--json")
    assert (result.code, result.document["error"]["type"]) == (1, "TableNotFoundError")
    assert "aws dynamodb create-table --table-name mwaa-dr-state" in result.document["error"]["advice"]


def test_environments_are_required(fresh: Shell) -> None:
    """The registry is written from DR_ENVIRONMENTS, so it is required."""
    fresh.environ = {name: text for name, text in ENVIRON.items() if name != "DR_ENVIRONMENTS"}
    assert fresh("init", "--active", "us-east-2", "--yes").code == 2


def test_a_dry_run_writes_nothing(fresh: Shell) -> None:
    """It prints what would be written, and needs no confirmation."""
    result = fresh("init", "--active", "us-east-2", "--dry-run", "--json")
    assert result.code == 0
    assert (result.document["changed"], result.document["would_change"]) == (False, True)
    assert fresh.store.state is None
    assert not fresh.store.registrations()


def test_it_lists_the_open_runs_of_the_standby_and_asks(fresh: Shell) -> None:
    """The command shows the runs that the standby's agent will close before it writes anything."""
    fresh.environment("us-east-1").add_run("orders", "manual__1")
    result = fresh("init", "--active", "us-east-2", answer="y\n")
    assert result.code == 0
    assert "orders manual__1" in result.err
    assert "Continue?" in result.err
    assert fresh.store.state is not None


def test_init_works_while_the_standby_does_not_answer(fresh: Shell) -> None:
    """The list is optional: a region that is down must not prevent init."""
    fresh.environment("us-east-1").unreachable = True
    result = fresh("init", "--active", "us-east-2", "--yes")
    assert result.code == 0
    assert "could not be read" in result.err


def test_a_renamed_environment_is_registered_again(fresh: Shell) -> None:
    """The registry follows DR_ENVIRONMENTS."""
    fresh("init", "--active", "us-east-2", "--yes")
    fresh.environ = {**ENVIRON, "DR_ENVIRONMENTS": "us-east-2=ohio-2,us-east-1=virginia"}
    result = fresh("init", "--yes", "--json")
    assert result.document["changed"] is True
    assert fresh.store.registrations()["us-east-2"].environment == "ohio-2"
    assert "It replaces ohio, which holds every run from then on." in result.err
    assert "replaces virginia" not in result.err


def test_two_environments_for_one_region_are_refused(fresh: Shell) -> None:
    """The message names both, and nothing is written."""
    fresh.environ = {**ENVIRON, "DR_ENVIRONMENTS": "us-east-2=one,us-east-2=two"}
    result = fresh("init", "--active", "us-east-2", "--yes")
    assert result.code == 2
    assert "names two environments for us-east-2: one and two" in result.err
    assert not fresh.store.registrations()


def test_init_above_every_epoch_prints_what_it_replaces_and_asks_first(mwaa_dr: Shell) -> None:
    """A dry run changes nothing. The next call writes the same epoch."""
    argv = ("init", "--active", "us-east-2", "--above-every-epoch")
    before = mwaa_dr.store.state
    result = mwaa_dr(*argv, "--dry-run", "--json")
    assert (result.code, result.document["would_change"], result.document["epoch"]) == (0, True, 1)
    assert "It replaces epoch 0, version 1, active 'us-east-2'." in result.err
    assert "The command does not wait for a lease." in result.err
    assert mwaa_dr.store.state is before

    assert mwaa_dr(*argv).code == 2  # no terminal for a confirmation
    assert mwaa_dr.store.state is before

    result = mwaa_dr(*argv, "--yes", "--json")
    assert (result.code, result.document["changed"], result.document["epoch"]) == (0, True, 1)
    assert mwaa_dr.store.state is not None
    assert mwaa_dr.store.state.version == 2


def test_init_above_every_epoch_requires_the_region(mwaa_dr: Shell) -> None:
    """--active is required, because the command makes a region active."""
    assert mwaa_dr("init", "--above-every-epoch", "--yes").code == 2
