"""The required content of items: messages, limits, and values of a newer version."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_mwaa_dr.aws.dynamodb import runs_store
from airflow_provider_mwaa_dr.aws.dynamodb.contents import MOST_BYTES, shown, unpacked
from airflow_provider_mwaa_dr.aws.dynamodb.paged_item import state_keys
from airflow_provider_mwaa_dr.core.inventory import Inventory, contents_from_values, contents_to_text
from airflow_provider_mwaa_dr.core.ledger import RegionLedger, RunStatus
from airflow_provider_mwaa_dr.core.ports import INVENTORIES, RECORDS
from airflow_provider_mwaa_dr.exceptions import IncompleteItemError, UnreadableCheckpointError, UnreadableItemError
from tests.unit.aws.dynamodb.dynamodb_reads import DynamoDBReads, key_of
from tests.unit.aws.dynamodb.test_fuzz_readers import (
    INVENTORY,
    NUMBERS,
    RUNS_ITEMS,
    STATE_ITEMS,
    X,
    content_of,
    entry,
    runs_store_of,
    state_store_of,
)

BOMB_BYTES = 300_000_000


@pytest.fixture(scope="module")
def bomb() -> Callable[[int], bytes]:
    """Return a function that makes 300 KB of gzip or zlib data that unpack to 300 MB."""
    packed: dict[int, bytes] = {}

    def make(wbits: int) -> bytes:
        if wbits not in packed:
            stream = zlib.compressobj(9, wbits=wbits)
            chunk = b" " * 10_000_000
            parts = [stream.compress(chunk) for _ in range(BOMB_BYTES // len(chunk))]
            packed[wbits] = b"".join([*parts, stream.flush()])
        return packed[wbits]

    return make


def with_body(table: list[dict[str, Any]], kind: str, body: bytes) -> DynamoDBReads:
    """Return *table* with another body in the first item that has a body and whose key begins with *kind*."""
    changed = next(item for item in table if key_of(item)[0].startswith(kind) and "body" in item)
    return DynamoDBReads(*({**item, "body": {"B": body}} if item is changed else item for item in table))


@pytest.mark.parametrize("kind", ["LOG#", "PICTURE#", "INVENTORY#"])
def test_no_reader_unpacks_more_than_a_writer_packs(kind: str, bomb: Callable[[int], bytes]) -> None:
    """Regression test: the other region's scheduler unpacked a body of 300 KB to 858 MB."""
    body = bomb(zlib.MAX_WBITS if kind == "INVENTORY#" else 16 + zlib.MAX_WBITS)
    assert len(body) < 400_000
    tracemalloc.start()
    if kind == "INVENTORY#":
        with pytest.raises(UnreadableItemError, match="unpack to more than 32000000"):
            state_store_of(with_body(STATE_ITEMS, kind, body)).get(INVENTORIES, X)
    elif kind == "PICTURE#":
        with pytest.raises(UnreadableCheckpointError, match=f"unpack to more than {MOST_BYTES}"):
            runs_store_of(with_body(RUNS_ITEMS, kind, body)).checkpoint(X)
    else:
        first, *others = runs_store_of(with_body(RUNS_ITEMS, kind, body)).log(X, after=0)
        assert f"unpack to more than {MOST_BYTES}" in str(first.unreadable)
        assert [each.unreadable for each in others] == [None] * (len(NUMBERS) - 1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100_000_000


@pytest.mark.parametrize(
    "body", [b"", b"junk", gzip.compress(b"{}")[:-4], gzip.compress(b"{}") + b"more", zlib.compress(b"{}")[:5]]
)
def test_a_truncated_body_or_trailing_data_is_refused(body: bytes) -> None:
    """An incomplete page must not count as a page."""
    with pytest.raises(ValueError, match="bytes that cannot be unpacked"):
        unpacked(body)
    assert unpacked(gzip.compress(b"{}")) == unpacked(zlib.compress(b"{}")) == b"{}"


def test_a_message_has_table_key_field_found_value_allowed_values_and_advice() -> None:
    """Regression test: the message was only "'swift' is not a valid Mode"."""
    record = next(item for item in STATE_ITEMS if key_of(item)[0] == "FAILOVER#plan-1")
    store = state_store_of(DynamoDBReads({**record, "mode": {"S": "swift\x1b[2J"}}))
    (found,) = store.find_all(RECORDS)
    assert str(found.unreadable) == (
        "Item FAILOVER#plan-1 of table state cannot be read: field mode: found 'swift\\x1b[2J', "
        "allowed is one of auto, graceful, forced."
    )
    assert found.unreadable is not None
    assert found.unreadable.advice.startswith("It only records a failover.")


def test_a_field_inside_a_list_is_named_with_its_place() -> None:
    """The message names the wrong step of five."""
    record = next(item for item in STATE_ITEMS if key_of(item)[0] == "FAILOVER#plan-1")
    steps = {"L": [*record["steps"]["L"], {"M": {"name": {"S": "drain"}, "detail": {"S": ""}, "seconds": {"S": "x"}}}]}
    (found,) = state_store_of(DynamoDBReads({**record, "steps": steps})).find_all(RECORDS)
    assert found.unreadable is not None
    assert (found.unreadable.field, found.unreadable.found) == ("steps[1].seconds", "'x'")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 500, f"'{'x' * 80}'... (500 characters)"),
        (b"1234", "4 bytes"),
        (10**300, "a number of more than 19 digits"),
        ("\u202eevil", "'\\u202eevil'"),
    ],
)
def test_a_value_is_shown_shortened_and_without_control_characters(value: object, text: str) -> None:
    """A message is one line, with any value in the item."""
    assert shown(value) == text
    assert len(shown(["y" * 100] * 1000)) < 100


def test_a_run_with_a_status_of_a_newer_version_is_in_doubt_and_the_rest_of_its_entry_is_read() -> None:
    """The run is neither adopted nor resumed, but the next run of the same entry is."""
    item = runs_store.entry_to_item(X, entry(2))
    values = json.loads(gzip.decompress(item["body"]["B"]))
    values["runs"][0]["status"] = "parked"
    values["runs"][0]["priority"] = 7
    body = {"B": gzip.compress(json.dumps(values).encode())}
    (read,) = runs_store_of(DynamoDBReads({**item, "body": body})).log(X, after=0)
    unknown, known = read.runs
    assert (unknown.run_id, unknown.status) == ("r2", RunStatus.OPEN)
    assert unknown.doubt is not None
    assert "field status in the ledger is 'parked', allowed is one of open," in unknown.doubt
    assert known == entry(2).runs[1]


def test_a_missing_page_is_distinguished_from_a_damaged_page() -> None:
    """A missing page may still arrive in this replica of the table. A damaged page will not change by itself."""
    pages, manifest = state_keys(f"INVENTORY#{X}").to_items(content_of(INVENTORIES, INVENTORY))
    with pytest.raises(IncompleteItemError, match="found 0 existing pages, allowed is the 1 pages that it names"):
        state_store_of(DynamoDBReads(manifest)).get(INVENTORIES, X)
    with pytest.raises(UnreadableItemError) as raised:
        state_store_of(DynamoDBReads(manifest, {**pages[0], "body": {"S": "x"}})).get(INVENTORIES, X)
    assert not isinstance(raised.value, IncompleteItemError)


@pytest.mark.parametrize(
    ("own_region", "is_eventual", "may_arrive"),
    [(None, False, False), (X, True, False), ("us-west-2", True, True), (None, True, True)],
    ids=["consistent", "eventual, own region", "eventual, another region", "eventual, no region"],
)
def test_a_checkpoint_whose_missing_page_cannot_arrive_is_damaged(
    own_region: str | None, is_eventual: bool, may_arrive: bool
) -> None:
    """
    Its region waited for the page without end: it could not read its own ledger, and so published nothing.

    The page may be on its way only in a copy that is behind the copy that the region itself writes.
    """
    _, manifest = runs_store.checkpoint_to_items(X, RegionLedger(number=7))
    reads = DynamoDBReads({**manifest, "pages": {"N": "1"}})
    store = runs_store_of(reads, own_region=own_region, is_eventual=is_eventual)
    with pytest.raises(UnreadableItemError, match="field pages: found 0 existing pages") as raised:
        store.checkpoint(X)
    assert isinstance(raised.value, IncompleteItemError) == may_arrive
    assert getattr(raised.value, "number", None) == (None if may_arrive else 7)


def test_a_manifest_that_names_millions_of_pages_costs_nothing() -> None:
    """The reader never builds their keys."""
    _, manifest = state_keys(f"INVENTORY#{X}").to_items(content_of(INVENTORIES, INVENTORY))
    with pytest.raises(UnreadableItemError, match="field pages: found 1000000000, allowed is a whole number from 0 to"):
        state_store_of(DynamoDBReads({**manifest, "pages": {"N": "1000000000"}})).get(INVENTORIES, X)


OPTIONAL_OF_ENTRY = sorted(name for name, rule in runs_store._ENTRY.items() if not rule.is_required)


@pytest.mark.parametrize("name", OPTIONAL_OF_ENTRY)
def test_a_field_of_an_entry_that_is_null_is_the_same_as_one_that_is_missing(name: str) -> None:
    """The fuzz test found ``"dag_ids": null``: it ended the reader with a TypeError."""
    values = {"number": 1, "at": "2026-02-26T10:30:00Z", "epoch": 1, "first_id": 0, "newest_id": 1}
    table, key = "runs", {"pk": {"S": "LOG#us-east-1"}, "sk": {"S": "000000000000001"}}
    missing, null = (
        runs_store.entry_from_item({**key, "body": {"B": runs_store._pack(body)}}, table=table)
        for body in (values, {**values, name: None})
    )
    assert missing == null
    assert null.unreadable is None


def test_a_time_in_an_inventory_may_have_each_form_that_is_valid() -> None:
    """A text that the check of the field accepts must not end the reader with a ValueError."""
    values = json.loads(contents_to_text(INVENTORY))
    values["upgrade"]["marks_from"] = " 2026-02-26 11:30+01:00 "
    body = zlib.compress(json.dumps(values).encode())
    found = state_store_of(with_body(STATE_ITEMS, "INVENTORY#", body)).get(INVENTORIES, X)
    assert found is not None
    assert found.upgrade is not None
    assert found.upgrade.marks_from == datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)


def test_a_field_of_an_inventory_that_is_null_is_empty() -> None:
    empty = Inventory(region="r", taken_at=datetime(2026, 1, 1, tzinfo=timezone.utc), public_key="")
    null = dict.fromkeys(json.loads(contents_to_text(empty)))
    assert contents_from_values(null, region="r", taken_at=empty.taken_at, public_key="") == empty
