"""Output of the command line for a table with eventual consistency."""

from __future__ import annotations

from tests.unit.cli.conftest import ENVIRON, Shell

EVENTUAL = {**ENVIRON, "DR_STATE_TABLE_REPLICAS": "us-east-2,us-east-1", "DR_TABLE_CONSISTENCY": "eventual"}


def test_status_shows_the_price_of_the_mode_and_each_replica(mwaa_dr: Shell) -> None:
    """It also warns if the regions' settings differ."""
    mwaa_dr.environ = EVENTUAL
    document = mwaa_dr("status", "--json").document
    assert document["eventual"] == {"mode": "available", "copies": {"us-east-2": None, "us-east-1": None}}
    text = mwaa_dr("status").out
    assert "Eventual consistency, available: a region that is cut off continues with its own copy" in text
    assert "us-east-1 does not answer" in text
    assert "WARNING: an agent of us-east-1 treats the state table as a table with strong consistency" in text


def test_init_prints_the_expected_consistency_of_the_table(fresh: Shell) -> None:
    """A user with another kind of table reads this before anything is written."""
    fresh.environ = {**EVENTUAL, "DR_EVENTUAL": "safe"}
    assert "eventual consistency, safe: if the copy of one region cannot be read, all other regions hold" in (
        fresh("init", "--active", "us-east-2", "--dry-run").err
    )
    fresh.environ = {**ENVIRON, "DR_STATE_TABLE_REPLICAS": "us-east-2,us-east-1"}
    assert "strong consistency. If it does not, set DR_TABLE_CONSISTENCY" in (
        fresh("init", "--active", "us-east-2", "--dry-run").err
    )


def test_a_replica_that_is_not_named_is_an_error(mwaa_dr: Shell) -> None:
    """With eventual consistency, the settings must name every replica."""
    mwaa_dr.environ = {**ENVIRON, "DR_TABLE_CONSISTENCY": "eventual"}
    result = mwaa_dr("status")
    assert result.code == 2
    assert "names no copy in us-east-1" in result.err
