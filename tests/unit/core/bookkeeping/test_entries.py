"""Dividing what a region publishes into entries that DynamoDB accepts."""

from __future__ import annotations

import json

from airflow_provider_mwaa_dr.core.bookkeeping.entries import chunks

DYNAMODB_BYTES = 400_000


def test_a_long_list_of_dags_is_divided_without_loss() -> None:
    """A region with many thousands of DAGs publishes all of them in its first turn."""
    dag_ids = [f"{number:05}_" + "x" * 240 for number in range(3000)]
    parts = list(chunks((), dag_ids))
    assert [dag_id for runs, ids in parts for dag_id in ids] == dag_ids
    assert all(not runs and len(json.dumps(ids)) < DYNAMODB_BYTES for runs, ids in parts)
    assert len(parts) > 1


def test_nothing_to_publish_is_no_entry() -> None:
    """An empty entry would cost a write in each turn."""
    assert list(chunks((), ())) == []
