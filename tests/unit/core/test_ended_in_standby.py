"""The list of the runs that a region ended as a standby, and that no region continues."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.ended_in_standby import add_runs, get_runs
from airflow_provider_mwaa_dr.core.ports import DAG_SETS
from airflow_provider_mwaa_dr.core.state import is_wanted_set
from airflow_provider_mwaa_dr.exceptions import UnreadableItem, UnreadableItemError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock

REGION = "us-east-2"
AT = ManualClock().now()


def test_the_list_grows_and_a_repeated_call_adds_nothing() -> None:
    """Each role has a list of its own. No part of it can be taken for a set of DAGs to unpause."""
    store = InMemoryStateStore()
    assert get_runs(store, region=REGION, epoch=1) == ()
    for runs in (["b r1", "a r1"], ["a r1"], ["b r1", "c r1"]):
        add_runs(store, runs, region=REGION, epoch=1, at=AT)
    add_runs(store, ["z r9"], region=REGION, epoch=2, at=AT)
    assert get_runs(store, region=REGION, epoch=1) == ("a r1", "b r1", "c r1")
    ids = [key.removeprefix(DAG_SETS.prefix) for key in store._table.items if key.startswith(DAG_SETS.prefix)]
    assert len(ids) == 3
    assert not any(map(is_wanted_set, ids))


def test_two_agents_that_store_the_same_part_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set is never overwritten, so the second one goes into the next part."""
    store = InMemoryStateStore()
    put = store.put

    def other_first(kind: Any, item: Any) -> None:
        monkeypatch.setattr(store, "put", put)
        put(kind, replace(item, dag_ids=("b r1",)))
        put(kind, item)

    monkeypatch.setattr(store, "put", other_first)
    add_runs(store, ["a r1"], region=REGION, epoch=1, at=AT)
    assert get_runs(store, region=REGION, epoch=1) == ("a r1", "b r1")


def test_a_part_that_cannot_be_read_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is for users: the failover continues, and the next part is read and written."""
    store = InMemoryStateStore()
    add_runs(store, ["a r1"], region=REGION, epoch=1, at=AT)
    add_runs(store, ["b r1"], region=REGION, epoch=1, at=AT)
    get = store.get
    fault = UnreadableItem(table="t", key="k", field="pages", found="x", allowed="y", advice="z")

    def damaged(kind: Any, item_id: str) -> Any:
        if item_id.endswith("0"):
            raise UnreadableItemError(fault)
        return get(kind, item_id)

    monkeypatch.setattr(store, "get", damaged)
    assert get_runs(store, region=REGION, epoch=1) == ("b r1",)
    add_runs(store, ["c r1"], region=REGION, epoch=1, at=AT)
    assert get_runs(store, region=REGION, epoch=1) == ("b r1", "c r1")
