"""Paged items: the stored format, which older versions also read and write, and announcements that cannot be read."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.aws.dynamodb import runs_store
from airflow_provider_mwaa_dr.aws.dynamodb.paged_item import (
    Announcement,
    AnnouncementItems,
    Announcements,
    AnnouncementSet,
    state_keys,
)
from airflow_provider_mwaa_dr.aws.dynamodb.replicas import Replicas
from airflow_provider_mwaa_dr.core.ledger import Head, RegionLedger
from airflow_provider_mwaa_dr.core.ports import SNAPSHOTS, DagSet
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.unit.aws.dynamodb.dynamodb_reads import DynamoDBReads
from tests.unit.aws.dynamodb.test_fuzz_readers import content_of

AT = datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)
ONE = Announcement(generation="0123456789ab", pages=2, at=1_772_101_800.0)


def test_the_items_of_a_set_are_as_the_first_version_wrote_them() -> None:
    content = content_of(SNAPSHOTS, DagSet(id="s", region="r", recorded_at=AT, dag_ids=("b", "a", "b")))
    (page,), manifest = state_keys("SNAPSHOT#r").to_items(content)
    generation = manifest["generation"]["S"]
    assert len(generation) == 12
    assert manifest == {
        "state_id": {"S": "SNAPSHOT#r"},
        "id": {"S": "s"},
        "region": {"S": "r"},
        "recorded_at": {"S": "2026-02-26T10:30:00Z"},
        "dags": {"N": "2"},
        "generation": {"S": generation},
        "pages": {"N": "1"},
    }
    assert page == {"state_id": {"S": f"SNAPSHOT#r#{generation}#0000"}, "dag_ids": {"S": "a\nb"}}


def test_the_items_of_a_checkpoint_are_as_the_first_version_wrote_them() -> None:
    ledger = RegionLedger(number=7, first_id=1, newest_id=9, life="l", heads={"a": Head(dag_id="a")}, at=AT)
    (page,), manifest = runs_store.checkpoint_to_items("r", ledger)
    generation = manifest["generation"]["S"]
    assert manifest == {
        "pk": {"S": "PICTURE#r"},
        "sk": {"S": "manifest"},
        "generation": {"S": generation},
        "pages": {"N": "1"},
        "number": {"N": "7"},
        "first_id": {"N": "1"},
        "newest_id": {"N": "9"},
        "life": {"S": "l"},
        "at": {"S": "2026-02-26T10:30:00Z"},
    }
    assert page.keys() == {"pk", "sk", "body"}
    assert page["sk"] == {"S": f"{generation}#00000"}


class Answers:
    """A DynamoDB client that records writes, and gives fixed answers to reads."""

    meta = DynamoDBReads.meta

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items = items
        self.written: list[Any] = []

    def update_item(self, **request: Any) -> dict[str, Any]:
        self.written.append((request["Key"], request["UpdateExpression"], request["ExpressionAttributeValues"]))
        return {"Attributes": self.items[0]} if self.items else {}

    def put_item(self, *, Item: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.written.append(Item)
        return {}

    def query(self, **_: Any) -> dict[str, Any]:
        return {"Items": list(self.items)}

    @property
    def replicas(self) -> Replicas:
        session: Any = SimpleNamespace(client=lambda *_, **__: self)
        return Replicas("t", ("r",), clock=ManualClock(), session=session, rights="", key="", setting="")


def in_set(client: Answers) -> Announcements:
    return AnnouncementSet({"state_id": {"S": "K#generations"}}, table="t", replicas=client.replicas, name="K")


def in_items(client: Answers) -> Announcements:
    return AnnouncementItems("P", table="t", replicas=client.replicas, name="the checkpoint")


def test_announcements_are_stored_as_the_first_version_stored_them() -> None:
    """A set of texts in the state table, an item each in the runs table."""
    client = Answers()
    in_set(client).add(ONE)
    in_items(client).add(ONE)
    assert client.written == [
        (
            {"state_id": {"S": "K#generations"}},
            "ADD generations :texts",
            {":texts": {"SS": ["0123456789ab/2/1772101800"]}},
        ),
        {
            "pk": {"S": "P"},
            "sk": {"S": "writing#0123456789ab"},
            "pages": {"N": "2"},
            "at": {"N": "1772101800"},
        },
    ]


@pytest.mark.parametrize("text", ["", "0123456789ab", "ab/2", "ab/two/1", "xyz/2/1", "ab/2/-1", "ab/\u0663/1"])
def test_an_announcement_in_a_set_that_cannot_be_read_is_left_out(text: str) -> None:
    found = in_set(Answers({"generations": {"SS": ["0123456789ab/2/1772101800", text]}})).add(ONE)
    assert found == [ONE]


@pytest.mark.parametrize(
    "damage", [{"pages": {"S": "x"}}, {"pages": {"N": "-1"}}, {"pages": {"N": "0.5"}}, {"at": {"BOOL": True}}]
)
def test_an_announcement_in_an_item_that_cannot_be_read_is_left_out(damage: dict[str, Any]) -> None:
    item = {"pk": {"S": "P"}, "sk": {"S": "writing#0123456789ab"}, "pages": {"N": "2"}, "at": {"N": "1772101800"}}
    found = in_items(Answers(item, {**item, "sk": {"S": "writing#ff"}, **damage})).add(ONE)
    assert found == [ONE]
