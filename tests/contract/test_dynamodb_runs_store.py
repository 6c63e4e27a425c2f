"""The ledger's store in DynamoDB: lost answers, and writers that end."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.core.ledger import Head, LogEntry, RegionLedger
from airflow_provider_mwaa_dr.exceptions import StateError, StateUnreachableError
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.contract.aws_server import HOME, AwsServer, CutOff

REGION = "us-east-2"
Make = Callable[[], DynamoDBRunsStore]


@pytest.fixture
def make(runs_table: str, clock: ManualClock, session: boto3.session.Session) -> Make:
    """Return a function that makes stores for one new table."""
    return lambda: DynamoDBRunsStore(runs_table, ("us-east-2", "us-east-1"), clock=clock, session=session, timeout_s=20)


@pytest.fixture
def client(aws: AwsServer, session: boto3.session.Session) -> Any:
    client = session.client("dynamodb", region_name=HOME)
    yield client
    client.close()


HEADS = {name: Head(dag_id=name) for name in (f"{index:04}{'x' * 240}" for index in range(2000))}
"""The heads of a checkpoint of two pages."""


def checkpoint(number: int, life: str = "l1") -> RegionLedger:
    """Return a checkpoint of two pages."""
    return RegionLedger(number=number, life=life, heads=dict(HEADS))


def pages_of(client: Any, table: str) -> tuple[int, int]:
    """Return the number of pages in the table, and the number of pages that the manifest names."""
    found = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    rows = {row["sk"]["S"]: row for page in found for row in page["Items"]}
    manifest = rows.get("manifest")
    named = set()
    if manifest is not None:
        named = {f"{manifest['generation']['S']}#{number:05}" for number in range(int(manifest["pages"]["N"]))}
    pages = {key for key in rows if re.fullmatch(r"[0-9a-f]{12}#\d{5}", key)}
    assert named <= pages
    return len(pages), len(named)


@pytest.mark.parametrize("ends", [False, True], ids=["one answer", "permanently"])
@pytest.mark.parametrize("has_landed", [False, True], ids=["request lost", "answer lost"])
def test_the_next_writer_removes_the_pages_of_a_writer_that_was_cut_off_at_any_call(
    make: Make, aws: AwsServer, runs_table: str, client: Any, clock: ManualClock, ends: bool, has_landed: bool
) -> None:
    """Readers get the complete previous checkpoint or the complete new one, even if the very first write is cut off."""
    numbers = itertools.count(1)
    for at in itertools.count(1):
        before = make().checkpoint(REGION).number
        cut_off = next(numbers)
        network = CutOff(aws, at, has_landed=has_landed, ends=ends)
        with contextlib.suppress(StateUnreachableError):
            make().save_checkpoint(REGION, checkpoint(cut_off))
        is_over = network.asked < at
        aws.reset()
        assert make().checkpoint(REGION).number in {before, cut_off}
        last = next(numbers)
        assert make().save_checkpoint(REGION, checkpoint(last))
        assert make().checkpoint(REGION) == checkpoint(last)
        found, named = pages_of(client, runs_table)
        assert found == named, f"after a cut at request {at}"
        clock.advance(3600)
        if is_over:
            break


@pytest.mark.parametrize("code", ["AccessDeniedException", "SomethingNewException"])
def test_a_writer_that_is_refused_from_any_call_on_succeeds_at_its_next_attempt(
    make: Make, aws: AwsServer, runs_table: str, client: Any, clock: ManualClock, code: str
) -> None:
    """The old or the new checkpoint stays complete. The next attempt of the same store leaves no unnamed page."""
    writer, numbers = make(), itertools.count(1)
    for at in itertools.count(1):
        before = make().checkpoint(REGION).number
        refused = next(numbers)
        network = CutOff(aws, at, ends=True, refuses=code)
        with contextlib.suppress(StateError):
            writer.save_checkpoint(REGION, checkpoint(refused))
        is_over = network.asked < at
        aws.reset()
        assert make().checkpoint(REGION).number in {before, refused}
        assert writer.save_checkpoint(REGION, checkpoint(refused))
        assert make().checkpoint(REGION) == checkpoint(refused)
        found, named = pages_of(client, runs_table)
        assert found == named, f"after a refusal at request {at}"
        clock.advance(3600)
        if is_over:
            break


def test_a_reader_gets_one_complete_checkpoint_although_it_is_replaced_during_the_read(
    make: Make, aws: AwsServer
) -> None:
    """Pages of two writes are never mixed, although the pages of the first write are deleted during the read."""
    numbers = itertools.count(1)
    make().save_checkpoint(REGION, checkpoint(next(numbers)))
    for at in itertools.count(1):
        before, after = make().checkpoint(REGION).number, next(numbers)
        asked = 0

        def meanwhile(region: str, operation: str, at: int = at, after: int = after) -> bool:
            nonlocal asked
            asked += 1
            if asked == at:
                aws.before = lambda region, operation: False
                assert make().save_checkpoint(REGION, checkpoint(after))
            return False

        aws.before = meanwhile
        found = make().checkpoint(REGION)
        is_over = asked < at
        aws.reset()
        assert found == checkpoint(before if is_over else after)
        if is_over:
            break


@pytest.mark.parametrize("ends", [False, True], ids=["one answer", "permanently"])
@pytest.mark.parametrize(
    ("has_landed", "refuses"), [(False, ""), (True, ""), (False, "ExpiredTokenException")],
    ids=["request lost", "answer lost", "refused"],
)  # fmt: skip
def test_entries_that_are_cut_off_at_any_call_are_stored_once_after_a_retry(
    make: Make, aws: AwsServer, clock: ManualClock, ends: bool, has_landed: bool, refuses: str
) -> None:
    """Of three entries, readers get the first ones in order, and never a part of an entry."""
    entries = [
        LogEntry(number=number, at=clock.now(), epoch=0, first_id=0, newest_id=number, dag_ids=("orders",) * number)
        for number in range(1, 4)
    ]
    for at in itertools.count(1):
        writer, region = make(), f"us-east-{at}"
        network = CutOff(aws, at, has_landed=has_landed, ends=ends, refuses=refuses)
        with contextlib.suppress(StateError):
            for entry in entries:
                writer.append(region, entry)
        is_over = network.asked < at
        aws.reset()
        found = list(make().log(region, after=0))
        assert found == entries[: len(found)]
        for entry in entries:
            writer.append(region, entry)
        assert list(make().log(region, after=0)) == entries
        if is_over:
            break


def test_a_writer_keeps_the_pages_of_another_writer_without_a_manifest_yet(
    make: Make, aws: AwsServer, runs_table: str, client: Any, clock: ManualClock
) -> None:
    """A second agent writes between any two calls of the first: the later checkpoint stays complete."""
    numbers = itertools.count(1)
    for at in itertools.count(1):
        first, second = next(numbers), next(numbers)
        asked = 0

        def meanwhile(region: str, operation: str, at: int = at, second: int = second) -> bool:
            nonlocal asked
            asked += 1
            if asked == at:
                aws.before = lambda region, operation: False
                assert make().save_checkpoint(REGION, checkpoint(second))
            return False

        aws.before = meanwhile
        make().save_checkpoint(REGION, checkpoint(first))
        is_over = asked < at
        aws.reset()
        assert make().checkpoint(REGION).number == (first if is_over else second)
        found, named = pages_of(client, runs_table)
        assert found == named, f"the second one came at request {at}"
        clock.advance(3600)
        if is_over:
            break


def test_pages_that_the_first_version_wrote_are_removed_with_their_manifest(
    make: Make, runs_table: str, client: Any
) -> None:
    """The first version wrote no announcement."""
    make().save_checkpoint(REGION, checkpoint(1))
    for row in client.scan(TableName=runs_table, ConsistentRead=True)["Items"]:
        if row["sk"]["S"].startswith("writing#"):
            client.delete_item(TableName=runs_table, Key={"pk": row["pk"], "sk": row["sk"]})
    make().save_checkpoint(REGION, checkpoint(2))
    assert pages_of(client, runs_table) == (2, 2)
