"""Unreadable items in every store: in the fakes and in DynamoDB over a socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core.carrying import SettingsOffer
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RegionLedger, RunStatus
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    FENCE_LOADS,
    INVENTORIES,
    PAUSED_SETS,
    RECORDS,
    SETTINGS_OFFERS,
    SNAPSHOTS,
    AgentStatus,
    DagSet,
    FailoverOutcome,
    FailoverRecord,
    FenceLoad,
    Registration,
    RunsStore,
    StateStore,
)
from airflow_provider_mwaa_dr.core.state import Mode, initial
from airflow_provider_mwaa_dr.exceptions import StaleLedgerError, UnreadableCheckpointError, UnreadableItemError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, InMemoryStateStore, ManualClock
from tests.contract.aws_server import HOME

AT = datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)
X, Y = "us-east-1", "us-east-2"
STATUS = AgentStatus(
    region=X, job="7", host="h", at=AT, beat=3, version=4, epoch=2, provider_version="1", airflow_version="3.3.1",
    schedulers=("7",), adopted_epoch=2, reconciled_epoch=2,
)  # fmt: skip
SET = DagSet(id="plan-1", region=X, recorded_at=AT, dag_ids=("billing", "orders"))
RECORD = FailoverRecord(
    id="plan-1", source=Y, target=X, mode=Mode.FORCED, reason="r", by="b", started_at=AT,
    outcome=FailoverOutcome.COMPLETED, epoch=2, not_unpaused=("billing",),
)  # fmt: skip
INVENTORY = Inventory(region=X, taken_at=AT, public_key="ab" * 32)
OFFER = SettingsOffer(source=X, target=Y, epoch=2, number=1, sealed_at=AT, key_id="k", ephemeral_key="e")
WRONG = {
    f"AGENT#{X}#7": ("beat", {"S": "three"}),
    "FAILOVER#plan-1": ("mode", {"S": "swift"}),
    f"SNAPSHOT#{X}": ("pages", {"S": "two"}),
    f"SNAPSHOT#{X}/paused": ("recorded_at", {"N": "5"}),
    "PAUSED#plan-1": ("region", {"NULL": True}),
    f"ENVIRONMENT#{X}": ("environment", {"L": []}),
    f"FENCE#{X}": ("at", {"S": "yesterday"}),
    f"INVENTORY#{X}": ("public_key", {"N": "1"}),
    f"SETTINGS#{X}": ("ephemeral_key", {"N": "1"}),
}
"""A field of each kind of item, with an invalid value."""


@dataclass
class Table:
    """A state table with one item of each kind, and a function that damages one."""

    store: StateStore
    damage: Callable[[str], object]


@pytest.fixture(params=["memory", "dynamodb"])
def damaged(request: pytest.FixtureRequest, clock: ManualClock, session: boto3.session.Session) -> Table:
    """A table with one readable item of each kind."""
    if request.param == "memory":
        memory = InMemoryStateStore()
        store: StateStore = memory

        def damage(key: str) -> None:
            memory.damage(key, field=WRONG[key][0])
    else:
        name = request.getfixturevalue("table")
        store = DynamoDBStateStore(name, (HOME,), clock=clock, session=session, timeout_s=20)

        def damage(key: str) -> None:
            client = session.client("dynamodb", region_name=HOME)
            field, value = WRONG[key]
            client.update_item(
                TableName=name,
                Key={"state_id": {"S": key}},
                UpdateExpression="SET #field = :value",
                ExpressionAttributeNames={"#field": field},
                ExpressionAttributeValues={":value": value},
            )
            client.close()

    store.write(initial(X, lease_s=60, by="t", at=AT), expected_version=None)
    write_all(store)
    return Table(store, damage)


def write_all(store: StateStore) -> None:
    store.observe(X)
    store.register(Registration(region=X, environment="virginia"))
    store.put_agent(STATUS)
    store.put(RECORDS, RECORD)
    store.put(DAG_SETS, SET)
    store.put(SNAPSHOTS, SET)
    store.put(PAUSED_SETS, SET)
    store.put(FENCE_LOADS, FenceLoad(region=X, at=AT))
    store.put(INVENTORIES, INVENTORY)
    store.put(SETTINGS_OFFERS, OFFER)


READS: dict[str, Callable[[StateStore], object]] = {
    f"SNAPSHOT#{X}": lambda store: store.get(SNAPSHOTS, X),
    f"SNAPSHOT#{X}/paused": lambda store: store.get(PAUSED_SETS, X),
    "PAUSED#plan-1": lambda store: store.get(DAG_SETS, "plan-1"),
    f"FENCE#{X}": lambda store: store.get(FENCE_LOADS, X),
    f"INVENTORY#{X}": lambda store: store.inventory_key(X),
    f"SETTINGS#{X}": lambda store: store.get(SETTINGS_OFFERS, X),
}


@pytest.mark.parametrize("key", WRONG)
def test_an_unreadable_item_is_named_and_every_other_item_stays_readable(damaged: Table, key: str) -> None:
    """The fault has table, key, field, found value, allowed values and advice. All other items are still read."""
    assert damaged.store.unreadable([X]) == []
    damaged.damage(key)
    (fault,) = damaged.store.unreadable([X])
    assert (fault.key, fault.field) == (key, WRONG[key][0])
    assert all((fault.table, fault.found, fault.allowed, fault.advice))
    for other, read in READS.items():
        if other == key:
            with pytest.raises(UnreadableItemError) as raised:
                read(damaged.store)
            assert raised.value.item == fault
        else:
            assert read(damaged.store) is not None
    assert damaged.store.observe(X).state is not None
    assert [agent.job for agent in damaged.store.agents(X)] == ["7"]
    assert [record.id for record in damaged.store.find_all(RECORDS)] == ["plan-1"]
    assert (X in damaged.store.registrations()) == (key != f"ENVIRONMENT#{X}")


@pytest.mark.parametrize("key", WRONG)
def test_writing_an_unreadable_item_replaces_it(damaged: Table, key: str) -> None:
    """The next write by the item's owner replaces any damaged content."""
    damaged.damage(key)
    write_all(damaged.store)
    assert damaged.store.unreadable([X]) == []


def test_an_unreadable_heartbeat_acknowledges_nothing_and_can_be_forgotten(damaged: Table) -> None:
    """It counts as a scheduler that has read no state. A dead scheduler's heartbeat can still be deleted."""
    damaged.damage(f"AGENT#{X}#7")
    (agent,) = damaged.store.agents(X)
    assert (agent.version, agent.epoch, agent.schedulers, agent.adopted_epoch) == (-1, -1, (), None)
    assert agent.unreadable is not None
    damaged.store.forget_agent(X, "7")
    assert damaged.store.agents(X) == []
    assert damaged.store.unreadable([X]) == []


def test_the_wanted_dags_of_an_unreadable_record_are_kept(damaged: Table) -> None:
    """Even if the mode is unknown to this version, the list of wanted DAGs in the record is still used."""
    damaged.damage("FAILOVER#plan-1")
    (record,) = damaged.store.find_all(RECORDS)
    assert record.unreadable is not None
    assert (record.target, record.outcome, record.not_unpaused) == (X, "completed", ("billing",))
    assert damaged.store.get(RECORDS, "plan-1") == record


def test_an_outcome_of_a_newer_version_is_readable_and_stays(damaged: Table) -> None:
    """As for a completed record, a late write of another engine does not replace it."""
    newer = replace(RECORD, outcome=FailoverOutcome("rolled back"))
    damaged.store.put(RECORDS, replace(newer, outcome=FailoverOutcome.COMPLETED))
    damaged.store.put(RECORDS, newer)
    assert damaged.store.unreadable([X]) == []
    damaged.store.put(RECORDS, replace(newer, outcome=FailoverOutcome.ABORTED))
    (found,) = damaged.store.find_all(RECORDS)
    assert (found.outcome, found.outcome.value) == ("rolled back", "rolled back")
    assert found == newer


@dataclass
class Runs:
    """A runs table, and functions that damage an entry or the checkpoint of region X."""

    store: RunsStore
    damage_entry: Callable[[int], object]
    damage_checkpoint: Callable[[], object]


@pytest.fixture(params=["memory", "dynamodb"])
def runs(request: pytest.FixtureRequest, clock: ManualClock, session: boto3.session.Session) -> Runs:
    """A ledger of three entries, and a checkpoint of the first two."""
    if request.param == "memory":
        memory = InMemoryRunsStore()
        found = Runs(memory, lambda number: memory.damage_entry(X, number), lambda: memory.damage_checkpoint(X))
    else:
        name = request.getfixturevalue("runs_table")

        def put(pk: str, sk: str, field: str, value: object) -> None:
            client = session.client("dynamodb", region_name=HOME)
            client.update_item(
                TableName=name,
                Key={"pk": {"S": pk}, "sk": {"S": sk}},
                UpdateExpression="SET #field = :value",
                ExpressionAttributeNames={"#field": field},
                ExpressionAttributeValues={":value": value},  # type: ignore[dict-item]
            )
            client.close()

        found = Runs(
            DynamoDBRunsStore(name, (HOME,), clock=clock, session=session, timeout_s=20),
            lambda number: put(f"LOG#{X}", f"{number:015}", "body", {"B": b"\x1f\x8b junk"}),
            lambda: put(f"PICTURE#{X}", "manifest", "pages", {"S": "two"}),
        )
    for number in (1, 2, 3):
        found.store.append(X, entry(number))
    checkpoint = RegionLedger()
    checkpoint.apply([entry(1), entry(2)])
    found.store.save_checkpoint(X, checkpoint)
    return found


def entry(number: int) -> LogEntry:
    run = LedgerRun(dag_id="orders", run_id=f"r{number}", run_type="manual", status=RunStatus.OPEN, epoch=1)
    return LogEntry(number=number, at=AT, epoch=1, first_id=0, newest_id=number, runs=(run,))


def test_an_unreadable_entry_has_its_number_and_the_log_continues(runs: Runs) -> None:
    """Only the data of this entry is unknown; the entries before and after it are read."""
    runs.damage_entry(2)
    log = runs.store.log(X, after=0)
    assert [(each.number, each.unreadable is None) for each in log] == [(1, True), (2, False), (3, True)]
    fault = log[1].unreadable
    assert fault is not None
    assert (fault.key, fault.field) == (f"LOG#{X} {2:015}", "body")
    with pytest.raises(StaleLedgerError):
        runs.store.append(X, entry(2))
    runs.store.append(X, entry(4))


def test_an_unreadable_checkpoint_is_named_and_replaced_by_the_next_one(runs: Runs) -> None:
    """The error has the number of its last entry, if that can be read."""
    runs.damage_checkpoint()
    with pytest.raises(UnreadableCheckpointError) as raised:
        runs.store.checkpoint(X)
    assert (raised.value.number, raised.value.item.field) == (2, "pages")
    checkpoint = RegionLedger()
    checkpoint.apply([entry(1), entry(2), entry(3)])
    runs.store.save_checkpoint(X, checkpoint)
    assert runs.store.checkpoint(X) == checkpoint
