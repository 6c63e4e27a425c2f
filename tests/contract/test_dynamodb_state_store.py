"""The DynamoDB store: lost answers, dead replicas, and items that others wrote."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.dynamodb.replicas import AVOID_S
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core.carrying import SettingsOffer
from airflow_provider_mwaa_dr.core.inventory import DagFacts, Inventory
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    INVENTORIES,
    PAUSED_SETS,
    SETTINGS_OFFERS,
    SNAPSHOTS,
    AgentStatus,
    DagSet,
)
from airflow_provider_mwaa_dr.core.state import Mode, Phase, Plan, claim, initial, recover, set_active_region
from airflow_provider_mwaa_dr.exceptions import (
    StaleStateError,
    StateAccessError,
    StateError,
    StateUnreachableError,
    TableNotFoundError,
)
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.contract.aws_server import HOME, AwsServer, CutOff

AT = datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)
FIRST = initial("us-east-2", lease_s=10.0, by="test", at=AT)
PLAN = Plan(
    id="f-1",
    source="us-east-2",
    target="us-east-1",
    mode=Mode.AUTO,
    reason="flood",
    by="ann",
    owner="host:1",
    started_at=AT,
)
AGENT = AgentStatus(
    region="us-east-1",
    job="7",
    host="h",
    at=AT,
    beat=1,
    version=1,
    epoch=0,
    provider_version="0.1.0",
    airflow_version="3.3.1",
)
SECOND = claim(FIRST, PLAN, at=AT)

Make = Callable[..., DynamoDBStateStore]


@pytest.fixture
def make(table: str, clock: ManualClock, session: boto3.session.Session) -> Make:
    """Return a function that makes stores for one new table with two replicas."""
    return lambda *replicas: DynamoDBStateStore(
        table, replicas or ("us-east-2", "us-east-1"), clock=clock, session=session, timeout_s=20
    )


@pytest.fixture
def client(aws: AwsServer, session: boto3.session.Session) -> Any:
    """A client like the one of the AWS sample's scripts."""
    client = session.client("dynamodb", region_name=HOME)
    yield client
    client.close()


def down(*regions: str) -> Callable[[str, str], bool]:
    """Return a fault that cuts every connection to *regions* before the request is carried out."""
    return lambda region, operation: region in regions


def test_observe_is_one_request(make: Make, aws: AwsServer) -> None:
    """The read that every agent makes every few seconds is one request to the nearest replica."""
    store = make()
    store.write(FIRST, expected_version=None)
    aws.reset()
    store.observe("us-east-1")
    assert aws.requests == [("us-east-2", "BatchGetItem")]


def test_heartbeat_is_one_request_once_the_agent_is_listed(make: Make, aws: AwsServer) -> None:
    """A heartbeat without news of its region writes one item."""
    store = make()
    status = replace(AGENT, reconciled_epoch=0)
    store.put_agent(status)
    store.observe("us-east-1")
    aws.reset()
    store.put_agent(status)
    assert aws.requests == [("us-east-2", "PutItem")]


def test_dead_replica_is_tried_last_for_some_time(make: Make, aws: AwsServer, clock: ManualClock) -> None:
    """A replica that failed costs one attempt. Then the store does not try it first for ``AVOID_S``."""
    store = make()
    store.write(FIRST, expected_version=None)
    aws.before = down("us-east-2")
    assert store.read() == FIRST
    aws.requests.clear()
    assert store.read() == FIRST
    assert aws.requests == [("us-east-1", "GetItem")]
    aws.reset()
    clock.advance(AVOID_S)
    store.read()
    assert aws.requests == [("us-east-2", "GetItem")]


def test_no_replica_answers(make: Make, aws: AwsServer) -> None:
    """If no replica answers, the error names each of them."""
    store = make()
    aws.before = down("us-east-2", "us-east-1")
    with pytest.raises(StateUnreachableError, match=r"us-east-2: .*us-east-1: "):
        store.observe("us-east-1")


def test_refused_port_is_unreachable(make: Make, aws: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is a separate kind of fault: the write has certainly not happened."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StateUnreachableError, match="no connection"):
        make().write(FIRST, expected_version=None)


def test_write_with_a_lost_answer_succeeds(make: Make, aws: AwsServer) -> None:
    """A write that took effect is a success, even if its answer was lost."""
    store = make()
    aws.after = lambda region, operation: operation in {"PutItem", "UpdateItem"}
    store.write(FIRST, expected_version=None)
    assert store.read() == FIRST
    store.write(SECOND, expected_version=1)
    assert store.read() == SECOND


def test_write_without_effect_is_not_repeated(make: Make, aws: AwsServer) -> None:
    """A write without an answer and without effect is not repeated, because it could still arrive."""
    store = make()
    store.write(FIRST, expected_version=None)
    aws.reset()
    aws.before = lambda region, operation: operation == "UpdateItem"
    with pytest.raises(StateUnreachableError, match="has not taken effect"):
        store.write(SECOND, expected_version=1)
    assert aws.requests.count(("us-east-2", "UpdateItem")) + aws.requests.count(("us-east-1", "UpdateItem")) == 1
    assert store.read() == FIRST


def test_lost_answer_of_a_failed_write_is_stale(make: Make, aws: AwsServer) -> None:
    """If another caller's write is found after a lost answer, the error has that state."""
    store, other = make(), make("us-east-1")
    store.write(FIRST, expected_version=None)

    def other_first(region: str, operation: str) -> bool:
        if (region, operation) != ("us-east-2", "UpdateItem"):
            return False
        other.write(SECOND, expected_version=1)
        return True

    aws.before = other_first
    with pytest.raises(StaleStateError) as caught:
        store.write(replace(SECOND, changed_by="me"), expected_version=1)
    assert caught.value.found == SECOND


def test_identical_write_of_another_caller_is_not_mistaken_for_the_own_write(make: Make, aws: AwsServer) -> None:
    """Two callers write equal states. The caller with the lost answer gets an error, because its own write failed."""
    store, other = make(), make("us-east-1")
    store.write(FIRST, expected_version=None)

    def other_first(region: str, operation: str) -> bool:
        if (region, operation) != ("us-east-2", "UpdateItem"):
            return False
        other.write(SECOND, expected_version=1)
        return True

    aws.before = other_first
    with pytest.raises(StaleStateError):
        store.write(SECOND, expected_version=1)


def test_throttled_write_is_retried(make: Make, aws: AwsServer) -> None:
    """A throttled write was not carried out, so it is sent again: to the next replica, and after a wait."""
    answers = iter(["ThrottlingException"] * 3)
    aws.refuse = lambda region, operation: next(answers, "")
    make().write(FIRST, expected_version=None)
    assert [region for region, operation in aws.requests] == ["us-east-2", "us-east-1", "us-east-2", "us-east-1"]


def test_each_request_of_a_heartbeat_has_its_own_number(make: Make, aws: AwsServer) -> None:
    """The first request gets no answer, and may arrive later than the second one. Observers must tell them apart."""
    store, found = make(), []
    alive = replace(AGENT, life="a")
    store.put_agent(alive)
    found.append(store.agents("us-east-1")[0].number)

    def lose_one(region: str, operation: str) -> bool:
        if operation != "PutItem":
            return False
        aws.after = lambda *_: False
        found.append(make("us-east-1").agents("us-east-1")[0].number)
        return True

    aws.after = lose_one
    store.put_agent(alive)
    found.append(store.agents("us-east-1")[0].number)
    assert len({*found, None}) == 4


def test_an_agent_that_needs_no_heartbeat_publishes_no_number(make: Make, aws: AwsServer) -> None:
    """As agents of earlier versions: their silence proves nothing."""
    store = make()
    store.put_agent(AGENT)
    assert store.agents("us-east-1")[0].number is None
    assert store.observe("us-east-1").agents == {"7"}


def test_permanent_throttling_is_unreachable(make: Make, aws: AwsServer) -> None:
    """If the table throttles every request, the store gives up soon, because the caller has to keep its lease."""
    aws.refuse = lambda region, operation: "ProvisionedThroughputExceededException"
    with pytest.raises(StateUnreachableError, match="throttled"):
        make().observe("us-east-1")


def test_conflict_with_another_region_that_won_is_stale(make: Make, aws: AwsServer) -> None:
    """MRSC refuses one of two concurrent writes. The stored state decides; here it is the other caller's."""
    store, other = make(), make("us-east-1")
    store.write(FIRST, expected_version=None)

    def conflict(region: str, operation: str) -> str:
        if (region, operation) != ("us-east-2", "UpdateItem"):
            return ""
        other.write(SECOND, expected_version=1)
        return "ReplicatedWriteConflictException"

    aws.refuse = conflict
    with pytest.raises(StaleStateError) as caught:
        store.write(replace(SECOND, changed_by="me"), expected_version=1)
    assert caught.value.found == SECOND


def test_write_after_a_conflict_without_a_change_is_retried(make: Make, aws: AwsServer) -> None:
    """If nothing has changed after a conflict, the write is sent again with its condition."""
    store = make()
    store.write(FIRST, expected_version=None)
    answers = iter(["ReplicatedWriteConflictException"])
    aws.refuse = lambda region, operation: next(answers, "") if operation == "UpdateItem" else ""
    store.write(SECOND, expected_version=1)
    assert store.read() == SECOND


def test_a_write_keeps_what_a_newer_version_stored(make: Make, client: Any) -> None:
    """A write sends only what changes, so an attribute that this version does not know stays."""
    store = make()
    store.write(FIRST, expected_version=None)
    client.update_item(
        TableName=store.table,
        Key={"state_id": {"S": "ACTIVE_REGION"}},
        UpdateExpression="SET later = :later",
        ExpressionAttributeValues={":later": {"S": "x"}},
    )
    store.write(SECOND, expected_version=store.read().version)
    item = client.get_item(TableName=store.table, Key={"state_id": {"S": "ACTIVE_REGION"}})["Item"]
    assert item["later"] == {"S": "x"}
    assert store.read() == SECOND


def test_a_write_without_a_read_before_replaces_everything(make: Make) -> None:
    """A store that has not read the item of that version sets every attribute, and removes those without a value."""
    make().write(replace(FIRST, previous_region="us-west-2", not_unpaused_set_id="s"), expected_version=None)
    make().write(SECOND, expected_version=1)
    assert make().read() == SECOND


def test_an_item_that_was_replaced_by_one_of_the_same_version_is_stale(make: Make) -> None:
    """In an eventual table, the last writer wins: a write must not mix its changes with those of another writer."""
    store, other = make(), make()
    store.write(FIRST, expected_version=None)
    state = store.read()
    other.overwrite(replace(state, active_region="us-east-1", epoch=1))
    with pytest.raises(StaleStateError) as caught:
        store.write(SECOND, expected_version=1)
    assert caught.value.found is not None
    assert (caught.value.found.version, caught.value.found.epoch) == (1, 1)


@pytest.mark.parametrize("code", ["AccessDeniedException", "ExpiredTokenException", "UnrecognizedClientException"])
def test_missing_permission_is_an_access_error(make: Make, aws: AwsServer, code: str) -> None:
    """Missing permissions are not an outage: there is no retry, and the advice names the permissions."""
    aws.refuse = lambda region, operation: code
    with pytest.raises(StateAccessError, match=r"dynamodb:GetItem"):
        make().observe("us-east-1")
    assert len(aws.requests) == 2


@pytest.mark.parametrize(
    ("refused", "advice"),
    [
        ("ValidationException: The provided key element does not match the schema", "key of table .* is state_id"),
        ("ValidationException: One or more parameter values were invalid: Missing the key pk in the item", "key of "),
        ("ValidationException: Item size has exceeded the maximum allowed size", "Report this message"),
        ("ItemCollectionSizeLimitExceededException: Too large", "with ItemCollectionSizeLimitExceededException"),
        ("SomethingNewException: No.", "with SomethingNewException"),
    ],
)
def test_the_advice_names_the_key_only_if_the_key_is_wrong(
    make: Make, aws: AwsServer, refused: str, advice: str
) -> None:
    """The error has AWS's code and message, and suitable advice."""
    aws.refuse = lambda region, operation: refused
    with pytest.raises(StateError) as caught:
        make().read()
    code, _, words = refused.partition(": ")
    assert code in caught.value.message
    assert words.rstrip(".") in caught.value.message
    assert re.search(advice, caught.value.advice)
    assert ("state_id" in caught.value.advice) == ("key" in words)


def test_set_whose_manifest_got_no_answer_is_recorded(make: Make, aws: AwsServer) -> None:
    """After lost answers, the complete set is still recorded under its id."""
    wanted = DagSet(id="s-1", region="us-east-2", recorded_at=AT, dag_ids=("a", "b"))
    aws.after = lambda region, operation: operation == "PutItem" and region == "us-east-2"
    make().put(DAG_SETS, wanted)
    aws.reset()
    assert make("us-east-1").get(DAG_SETS, "s-1") == wanted


def test_table_that_does_not_exist(aws: AwsServer, session: boto3.session.Session) -> None:
    """A table that does not exist is distinguished from an empty one."""
    with pytest.raises(TableNotFoundError, match=r"no-such-table"):
        DynamoDBStateStore("no-such-table", ("us-east-2",), session=session).observe("us-east-1")


def test_no_credentials(table: str) -> None:
    """Missing credentials are an access error with advice, not an outage."""
    with pytest.raises(StateAccessError, match=r"credentials"):
        DynamoDBStateStore(table, ("us-east-2",)).read()


def test_item_of_the_aws_sample_is_read_and_replaced(make: Make, table: str, client: Any) -> None:
    """An item of the AWS sample's init script is a STEADY state, and a conditional write can replace it."""
    client.put_item(
        TableName=table,
        Item={
            "state_id": {"S": "ACTIVE_REGION"},
            "active_region": {"S": "us-east-2"},
            "last_updated": {"S": "2024-02-26T10:30:00Z"},
            "failover_count": {"N": "3"},
            "version": {"N": "4"},
        },
    )
    store = make()
    state = store.read()
    assert (state.active_region, state.epoch, state.version, state.phase) == ("us-east-2", 3, 4, Phase.STEADY)
    assert (state.lease_s, state.plan) == (60.0, None)
    assert state.last_updated == datetime(2024, 2, 26, 10, 30, tzinfo=timezone.utc)
    store.write(set_active_region(state, "us-east-1", reason="drill", by="ann", at=AT), expected_version=4)
    assert (store.read().epoch, store.read().version) == (4, 5)


@pytest.mark.parametrize(
    ("version", "read_as"),
    [({"version": {"S": "4"}}, 4), ({}, 0), ({"version": {"N": "0"}}, 0)],
    ids=["string", "missing", "zero"],
)
def test_item_of_the_aws_sample_with_an_odd_version_can_be_written_once(
    make: Make, table: str, client: Any, version: dict[str, Any], read_as: int
) -> None:
    """The version in the AWS sample's items may be missing or a string. The optimistic lock still works."""
    client.put_item(
        TableName=table, Item={"state_id": {"S": "ACTIVE_REGION"}, "active_region": {"S": "us-east-2"}, **version}
    )
    store = make()
    state = store.read()
    assert state.version == read_as
    following = claim(state, PLAN, at=AT)
    store.write(following, expected_version=read_as)
    with pytest.raises(StaleStateError):
        store.write(following, expected_version=read_as)


def test_script_of_the_aws_sample_that_fails_over_increases_the_epoch(make: Make, table: str, client: Any) -> None:
    """A sample script that only increments failover_count still fences the old region."""
    store = make()
    store.write(FIRST, expected_version=None)
    client.update_item(
        TableName=table,
        Key={"state_id": {"S": "ACTIVE_REGION"}},
        UpdateExpression="SET active_region = :to, failover_count = failover_count + :one, version = version + :one",
        ExpressionAttributeValues={":to": {"S": "us-east-1"}, ":one": {"N": "1"}},
    )
    state = store.read()
    assert (state.active_region, state.epoch, state.version) == ("us-east-1", 1, 2)


def test_query_of_the_aws_samples_first_test_works(make: Make, table: str, client: Any) -> None:
    """
    ``aws dynamodb get-item --query 'Item.active_region.S'`` works, and the sample's other fields have their types.
    """
    make().write(set_active_region(FIRST, "us-east-1", reason="drill", by="ann", at=AT), expected_version=None)
    item = client.get_item(TableName=table, Key={"state_id": {"S": "ACTIVE_REGION"}})["Item"]
    assert item["active_region"]["S"] == "us-east-1"
    assert item["last_updated"] == {"S": "2026-02-26T10:30:00Z"}
    assert item["failover_count"] == {"N": "1"}
    assert item["version"] == {"N": "2"}


def test_invalid_item_is_an_error_not_a_role(make: Make, table: str, client: Any) -> None:
    """The error for an item without a region, or with a word as a number, names the wrong field."""
    client.put_item(
        TableName=table,
        Item={"state_id": {"S": "ACTIVE_REGION"}, "active_region": {"S": "us-east-2"}, "version": {"S": "four"}},
    )
    with pytest.raises(StateError, match=r"cannot be read: version is.*four"):
        make().observe("us-east-1")


WIDE = tuple(f"{number:04}{'x' * 240}" for number in range(1700))
"""A set of three pages."""
FACTS = tuple(DagFacts(source=uuid.uuid4().hex, shape=uuid.uuid4().hex) for _ in range(6_000))
"""Facts that cannot be compressed, for an inventory of two pages."""


def _snapshot(store: DynamoDBStateStore, name: str) -> None:
    store.put(SNAPSHOTS, DagSet(id=name, region="us-east-2", recorded_at=AT, dag_ids=(name, *WIDE)))


def _paused(store: DynamoDBStateStore, name: str) -> None:
    store.put(PAUSED_SETS, DagSet(id=name, region="us-east-2", recorded_at=AT, dag_ids=(name, *WIDE)))


def _inventory(store: DynamoDBStateStore, name: str) -> None:
    dags = {f"{name}{number}": facts for number, facts in enumerate(FACTS)}
    store.put(INVENTORIES, Inventory(region="us-east-2", taken_at=AT, public_key=name, dags=dags))


def _set(store: DynamoDBStateStore, name: str) -> None:
    store.put(DAG_SETS, DagSet(id="s-1", region="us-east-2", recorded_at=AT, dag_ids=(name, *WIDE)))


def _settings(store: DynamoDBStateStore, name: str) -> None:
    offer = SettingsOffer(
        source="us-east-2", target="us-east-1", epoch=1, number=1, sealed_at=AT, key_id=name, ephemeral_key="e",
        values={"variables": {"large": os.urandom(300_000)}},
    )  # fmt: skip
    store.put(SETTINGS_OFFERS, offer)


Write = Callable[[DynamoDBStateStore, str], None]
WRITES: dict[str, Write] = {
    "snapshot": _snapshot,
    "pause": _paused,
    "inventory": _inventory,
    "settings": _settings,
    "wanted set": _set,
}


def read(store: DynamoDBStateStore, write: Write) -> str | None:
    """Return the name of the last complete write of *write*."""
    if write is _inventory:
        inventory = store.get(INVENTORIES, "us-east-2")
        return None if inventory is None else inventory.public_key
    if write is _settings:
        offer = store.get(SETTINGS_OFFERS, "us-east-2")
        return None if offer is None else offer.key_id
    if write is _set:
        found = store.get(DAG_SETS, "s-1")
    else:
        found = store.get(PAUSED_SETS, "us-east-2") if write is _paused else store.get(SNAPSHOTS, "us-east-2")
    return None if found is None else next(iter({*found.dag_ids} - {*WIDE}))


def pages_of(client: Any, table: str) -> tuple[int, int]:
    """Return the number of pages in the table, and the number of pages that a manifest names."""
    found = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    rows = [row for page in found for row in page["Items"]]
    keys = {row["state_id"]["S"] for row in rows}
    named = {
        f"{row['state_id']['S']}#{row['generation']['S']}#{number:04}"
        for row in rows
        if "generation" in row
        for number in range(int(row["pages"]["N"]))
    }
    pages = {key for key in keys if re.search(r"#[0-9a-f]{12}#\d{4}$", key)}
    assert named <= pages
    return len(pages), len(named)


@pytest.mark.parametrize(
    ("write", "ends", "has_landed"),
    # Each pair of values, for one mechanism with four kinds of content. For the runs table, see its own file.
    [
        pytest.param(write, ends, ends == (number % 2 == 0), id=f"{name}, {'permanently' if ends else 'one answer'}")
        for number, (name, write) in enumerate(WRITES.items())
        for ends in (False, True)
    ],
)
def test_the_next_writer_removes_the_pages_of_one_that_was_cut_off_at_any_call(
    make: Make, aws: AwsServer, table: str, client: Any, clock: ManualClock, write: Write, ends: bool, has_landed: bool
) -> None:
    """A single answer is lost, or the writer ends. Readers get one complete set or the other."""
    if write is not _set:
        write(make(), "first")
    for at in itertools.count(1):
        if write is _set:
            client.delete_item(TableName=table, Key={"state_id": {"S": "PAUSED#s-1"}})
        before = read(make(), write)
        network = CutOff(aws, at, has_landed=has_landed, ends=ends)
        with contextlib.suppress(StateUnreachableError):
            write(make(), "cut off")
        is_over = network.asked < at
        aws.reset()
        assert read(make(), write) in {before, "cut off"}
        if write is _set:
            write(make(), "next")
            assert read(make(), write) is not None
        else:
            write(make(), "next")
            assert read(make(), write) == "next"
        found, named = pages_of(client, table)
        assert found == named, f"after a cut at request {at}"
        assert make().unreadable(["us-east-2"]) == []
        clock.advance(3600)
        if is_over:
            break


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (_snapshot, "AccessDeniedException"),
        (_inventory, "SomethingNewException"),
        (_set, "ExpiredTokenException"),
    ],
    ids=["snapshot", "inventory", "wanted set"],
)
def test_a_writer_that_is_refused_from_any_call_on_succeeds_at_its_next_attempt(
    make: Make, aws: AwsServer, table: str, client: Any, clock: ManualClock, write: Write, code: str
) -> None:
    """The old or the new content stays complete. The next attempt of the same store leaves no unnamed page."""
    writer = make()
    if write is not _set:
        write(writer, "first")
    for at in itertools.count(1):
        if write is _set:
            client.delete_item(TableName=table, Key={"state_id": {"S": "PAUSED#s-1"}})
        before = read(make(), write)
        network = CutOff(aws, at, ends=True, refuses=code)
        with contextlib.suppress(StateError):
            write(writer, "refused")
        is_over = network.asked < at
        aws.reset()
        stored = read(make(), write)
        assert stored in {before, "refused"}
        write(writer, "next")
        assert read(make(), write) == (stored if write is _set and stored is not None else "next")
        found, named = pages_of(client, table)
        assert found == named, f"after a refusal at request {at}"
        clock.advance(3600)
        if is_over:
            break


@pytest.mark.parametrize("write", [_snapshot, _inventory], ids=["snapshot", "inventory"])
def test_a_reader_gets_one_complete_version_although_it_is_replaced_during_the_read(
    make: Make, aws: AwsServer, write: Write
) -> None:
    """Pages of two writes are never mixed, although the pages of the first write are deleted during the read."""
    write(make(), "before")
    for at in itertools.count(1):
        before, after = read(make(), write), f"after {at}"
        asked = 0

        def meanwhile(region: str, operation: str, at: int = at, after: str = after) -> bool:
            nonlocal asked
            asked += 1
            if asked == at:
                aws.before = lambda region, operation: False
                write(make(), after)
            return False

        aws.before = meanwhile
        found = read(make(), write)
        is_over = asked < at
        aws.reset()
        assert found == (before if is_over else after)
        if is_over:
            break


def test_a_reader_that_is_cut_off_at_any_call_gets_everything_or_an_error(make: Make, aws: AwsServer) -> None:
    """The next attempt reads everything."""
    _snapshot(make(), "it")
    reader = make()
    for at in itertools.count(1):
        network = CutOff(aws, at, ends=True)
        try:
            assert read(reader, _snapshot) == "it"
            assert network.asked < at
        except StateUnreachableError:
            pass
        is_over = network.asked < at
        aws.reset()
        assert read(reader, _snapshot) == "it"
        if is_over:
            break


@pytest.mark.parametrize("ends", [False, True], ids=["one answer", "permanently"])
@pytest.mark.parametrize("has_landed", [False, True], ids=["request lost", "answer lost"])
def test_a_heartbeat_that_is_cut_off_at_any_call_is_complete_after_the_next(
    make: Make, aws: AwsServer, client: Any, table: str, ends: bool, has_landed: bool
) -> None:
    """
    A heartbeat, the region's list of agents and its epoch are separate writes. Forgetting the agent takes two calls.
    """
    for at in itertools.count(1):
        agent = make()
        agent.observe("us-east-1")
        network = CutOff(aws, at, has_landed=has_landed, ends=ends)
        with contextlib.suppress(StateUnreachableError):
            agent.put_agent(replace(AGENT, reconciled_epoch=at))
            agent.forget_agent("us-east-1", AGENT.job)
        is_over = network.asked < at
        aws.reset()
        assert [each.beat for each in make().agents("us-east-1")] in ([], [AGENT.beat])
        agent.observe("us-east-1")  # as in each turn of an agent
        status = replace(AGENT, beat=2, reconciled_epoch=at)
        agent.put_agent(status)
        assert make().agents("us-east-1") == [status]
        assert make().observe("us-east-1").reconciled_epoch == at
        agent.forget_agent("us-east-1", AGENT.job)
        rows = {row["state_id"]["S"]: row for row in client.scan(TableName=table, ConsistentRead=True)["Items"]}
        assert list(rows) == ["ENVIRONMENT#us-east-1"]
        assert "agents" not in rows["ENVIRONMENT#us-east-1"]
        if is_over:
            break


def test_a_complete_write_removes_the_pages_of_all_interrupted_writers(
    make: Make, aws: AwsServer, table: str, client: Any
) -> None:
    """Five writers end before they write their manifest; the next one deletes all their pages."""
    _snapshot(make(), "first")
    for _ in range(5):
        CutOff(aws, 4, has_landed=True, ends=True)
        with pytest.raises(StateUnreachableError):
            _snapshot(make(), "cut off")
    aws.reset()
    assert pages_of(client, table)[0] > 6
    _snapshot(make(), "next")
    assert pages_of(client, table) == (3, 3)


@pytest.mark.parametrize("write", [_snapshot, _inventory], ids=["snapshot", "inventory"])
def test_a_writer_keeps_the_pages_of_another_writer_without_a_manifest_yet(
    make: Make, aws: AwsServer, table: str, client: Any, clock: ManualClock, write: Write
) -> None:
    """A second writer of the same key writes between any two calls of the first: both succeed."""
    write(make(), "before")
    for at in itertools.count(1):
        asked = 0

        def meanwhile(region: str, operation: str, at: int = at) -> bool:
            nonlocal asked
            asked += 1
            if asked == at:
                aws.before = lambda region, operation: False
                write(make(), "second")
            return False

        aws.before = meanwhile
        write(make(), "first")
        is_over = asked < at
        aws.reset()
        assert read(make(), write) in {"first", "second"}
        found, named = pages_of(client, table)
        assert found == named, f"the second one came at request {at}"
        clock.advance(3600)
        if is_over:
            break


def test_a_writer_that_was_frozen_does_not_name_deleted_pages(
    make: Make, aws: AwsServer, table: str, client: Any, clock: ManualClock
) -> None:
    """It continues hours later with its manifest. Its pages were deleted, so it writes all of them again."""
    _snapshot(make(), "before")
    asked = 0

    def freeze(region: str, operation: str) -> bool:
        nonlocal asked
        asked += 1
        if asked == 5:
            aws.before = lambda region, operation: False
            clock.advance(10_000)
            _snapshot(make(), "another")
            _snapshot(make(), "yet another")
        return False

    aws.before = freeze
    _snapshot(make(), "frozen")
    aws.reset()
    assert read(make(), _snapshot) == "frozen"
    assert pages_of(client, table) == (3, 3)


def test_pages_of_an_older_version_are_removed_with_their_manifest(make: Make, table: str, client: Any) -> None:
    """That version wrote no announcement."""
    _snapshot(make(), "first")
    client.delete_item(TableName=table, Key={"state_id": {"S": "SNAPSHOT#us-east-2#generations"}})
    _snapshot(make(), "second")
    assert pages_of(client, table) == (3, 3)


def test_with_eventual_consistency_pages_of_another_writer_are_kept_for_some_minutes(
    table: str, clock: ManualClock, session: boto3.session.Session, aws: AwsServer, client: Any
) -> None:
    """Its manifest may still arrive from another replica, and may win."""
    store = DynamoDBStateStore(table, ("us-east-2",), clock=clock, session=session, timeout_s=20, spare_s=600)
    _snapshot(store, "first")
    CutOff(aws, 6, has_landed=False, ends=True)
    with pytest.raises(StateUnreachableError):
        _snapshot(store, "another")
    aws.reset()
    _snapshot(store, "second")
    assert pages_of(client, table) == (6, 3)
    clock.advance(600)
    _snapshot(store, "third")
    assert pages_of(client, table) == (3, 3)


@pytest.mark.parametrize("value", [{"S": "abc"}, {"N": "-1"}, {"N": "0.5"}, {"L": []}])
def test_a_reconciled_epoch_that_cannot_be_used_stays_until_a_user_corrects_it(
    make: Make, client: Any, value: dict[str, Any]
) -> None:
    """It is reported as a problem, counts as no epoch, and no heartbeat overwrites it."""
    store = make()
    store.put_agent(replace(AGENT, reconciled_epoch=0))
    key = {"state_id": {"S": "ENVIRONMENT#us-east-1"}}
    client.update_item(
        TableName=store.table,
        Key=key,
        UpdateExpression="SET reconciled_epoch = :value",
        ExpressionAttributeValues={":value": value},
    )
    observed = store.observe("us-east-1")
    assert observed.reconciled_epoch is None
    assert f"of the item ENVIRONMENT#us-east-1 of table {store.table}" in observed.problems[0]
    store.put_agent(replace(AGENT, reconciled_epoch=0))
    assert client.get_item(TableName=store.table, Key=key)["Item"]["reconciled_epoch"] == value


@pytest.mark.parametrize("lease", [{"S": "nan"}, {"N": "1e30"}])
def test_a_state_with_a_value_that_cannot_be_used_can_still_be_overwritten(
    make: Make, client: Any, lease: dict[str, Any]
) -> None:
    """The write is conditional on its version, like any other."""
    store = make()
    store.write(FIRST, expected_version=None)
    client.update_item(
        TableName=store.table,
        Key={"state_id": {"S": "ACTIVE_REGION"}},
        UpdateExpression="SET lease_s = :lease",
        ExpressionAttributeValues={":lease": lease},
    )
    found = store.read()
    assert [problem.field for problem in found.problems] == ["lease_s"]
    new = recover(found, PLAN, lease_s=60, at=AT)
    store.write(new, expected_version=found.version)
    assert store.read() == new
