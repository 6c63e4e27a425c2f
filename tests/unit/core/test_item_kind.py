"""Kinds of items: keys, order, and which item stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    IDENTITY_CLAIMS,
    PAUSED_SETS,
    RECORDS,
    DagSet,
    FailoverOutcome,
    IdentityClaim,
)
from tests.unit.aws.dynamodb.test_fuzz_readers import RECORD, SET

AT = datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)
CLAIM = IdentityClaim(region="r1", environment="etl", aws_region="r2", job="7", at=AT, beat=1, problem="p")


def test_the_keys_are_those_of_the_first_version() -> None:
    """Other versions of the provider read and write the same items."""
    assert DAG_SETS.key_of(SET) == "PAUSED#plan-1"
    assert PAUSED_SETS.key_of(replace(SET, region="r")) == "SNAPSHOT#r/paused"
    assert IDENTITY_CLAIMS.key_of(CLAIM) == "AGENT#r2#claim#etl@r2#7"
    assert IDENTITY_CLAIMS.region(CLAIM) == "r2"


def test_a_final_item_stays_and_a_record_of_a_later_stage_stays() -> None:
    """All other items are replaced."""
    assert DAG_SETS.keeps(SET, replace(SET, dag_ids=()))
    assert not PAUSED_SETS.keeps(SET, replace(SET, dag_ids=()))
    assert RECORDS.keeps(RECORD, replace(RECORD, outcome="aborted"))
    assert not RECORDS.keeps(RECORD, RECORD)


def test_records_are_listed_newest_first_and_other_items_by_id() -> None:
    older, newer = replace(RECORD, id="a"), replace(RECORD, id="b", started_at=RECORD.started_at + timedelta(hours=1))
    assert RECORDS.ordered([older, newer]) == [newer, older]
    assert [each.job for each in IDENTITY_CLAIMS.ordered([replace(CLAIM, job="8"), CLAIM])] == ["7", "8"]


def test_a_set_has_each_dag_once_in_order() -> None:
    assert DagSet(id="s", region="r", recorded_at=AT, dag_ids=("b", "a", "b")).dag_ids == ("a", "b")


def test_an_outcome_that_only_a_newer_version_knows_is_kept_as_text() -> None:
    """An outcome that is no text is none."""
    assert FailoverOutcome("superseded").value == "superseded"
    assert FailoverOutcome("completed") is FailoverOutcome.COMPLETED
    with pytest.raises(ValueError, match="7 is not a valid"):
        FailoverOutcome(7)
