"""What the command line says of a table with eventual consistency."""

from __future__ import annotations

from tests.unit.cli.conftest import ENVIRON, Shell

EVENTUAL = {**ENVIRON, "DR_STATE_TABLE_REPLICAS": "us-east-2,us-east-1", "DR_TABLE_CONSISTENCY": "eventual"}


def test_status_says_what_the_choice_costs_and_what_each_copy_has(mwaa_dr: Shell) -> None:
    """Also that the regions' own settings say something else."""
    mwaa_dr.environ = EVENTUAL
    document = mwaa_dr("status", "--json").document
    assert document["eventual"] == {"mode": "available", "copies": {"us-east-2": None, "us-east-1": None}}
    text = mwaa_dr("status").out
    assert "Eventual consistency, available: a region that is cut off continues with its own copy" in text
    assert "us-east-1 does not answer" in text
    assert "WARNING: an agent of us-east-1 treats the state table as a table with strong consistency" in text


def test_init_says_what_the_table_is_taken_for(fresh: Shell) -> None:
    """Whoever has another one reads it before anything is written."""
    fresh.environ = {**EVENTUAL, "DR_EVENTUAL": "safe"}
    assert "eventual consistency, safe: if the copy of one region cannot be read, all other regions hold" in (
        fresh("init", "--active", "us-east-2", "--dry-run").err
    )
    fresh.environ = {**ENVIRON, "DR_STATE_TABLE_REPLICAS": "us-east-2,us-east-1"}
    assert "strong consistency. If it does not, set DR_TABLE_CONSISTENCY" in (
        fresh("init", "--active", "us-east-2", "--dry-run").err
    )


def test_a_copy_that_nobody_named_is_missed(mwaa_dr: Shell) -> None:
    """With eventual consistency everybody has to know every copy."""
    mwaa_dr.environ = {**ENVIRON, "DR_TABLE_CONSISTENCY": "eventual"}
    result = mwaa_dr("status")
    assert result.code == 2
    assert "names no copy in us-east-1" in result.err
