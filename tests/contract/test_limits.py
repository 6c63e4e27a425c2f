"""The emulations refuse what DynamoDB refuses, with its error code; and all items of the provider fit."""

from __future__ import annotations

import contextlib
import json
import random
import string
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from airflow_provider_mwaa_dr.aws.dynamodb.limits import ITEM_BYTES
from airflow_provider_mwaa_dr.core.bookkeeping import CONF_BYTES, TASKS_BYTES, Bookkeeper, RunRow
from airflow_provider_mwaa_dr.core.bookkeeping.conversion import size_of, to_run
from airflow_provider_mwaa_dr.core.ledger import Head, LedgerRun, LogEntry, RegionLedger, RunEvent, RunStatus
from airflow_provider_mwaa_dr.core.ports import (
    RECORDS,
    AgentStatus,
    FailoverOutcome,
    FailoverRecord,
    StateStore,
    StepRecord,
)
from airflow_provider_mwaa_dr.core.state import Mode, Phase, Plan, claim, initial, promote
from airflow_provider_mwaa_dr.exceptions import StateError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, ManualClock
from tests.contract.cloud import A, Cloud
from tests.contract.conftest import RunsPeer

AT = datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)
ANY_LENGTH = "ä" * 300_000
PLAN = Plan(
    id="f-1", source="us-east-2", target="us-east-1", mode=Mode.AUTO, reason=ANY_LENGTH, by=ANY_LENGTH, owner="host:1",
    started_at=AT,
)  # fmt: skip
STATUS = AgentStatus(
    region="us-east-1", job="7", host="h", at=AT, beat=3, version=4, epoch=2, provider_version="0.1.0",
    airflow_version="3.3.1",
)  # fmt: skip


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"S": "x"}
    for _ in range(levels):
        value = {"M": {"a": value}}
    return value


REFUSED: dict[str, dict[str, Any]] = {
    "too large": {"S": "x" * (ITEM_BYTES + 1)},
    "nested too deep": _nested(33),
    "an empty set": {"SS": []},
    "a number of 39 digits": {"N": "1" * 39},
    "not a number": {"N": "nan"},
}


def _assert_refused(client: Any, table: str, item: dict[str, Any], key: dict[str, Any]) -> None:
    for call in (
        lambda: client.put_item(TableName=table, Item={**key, **item}),
        lambda: client.update_item(
            TableName=table, Key=key, UpdateExpression="SET x = :x", ExpressionAttributeValues={":x": item["x"]}
        ),
    ):
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert "Item" not in client.get_item(TableName=table, Key=key, ConsistentRead=True)


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_the_emulated_dynamodb_refuses_what_dynamodb_refuses(
    table: str, session: boto3.session.Session, value: dict[str, Any]
) -> None:
    """The emulation raises a ValidationException, and writes nothing."""
    with contextlib.closing(session.client("dynamodb", region_name=A)) as client:
        _assert_refused(client, table, {"x": value}, {"state_id": {"S": "k"}})


def test_the_sandboxs_aws_refuses_what_dynamodb_refuses(cloud: Cloud) -> None:
    """The same for the sandbox, and for batches."""
    assert cloud.deploy("--active", A).code == 0
    with contextlib.closing(cloud.session.client("dynamodb", region_name=A)) as client:
        for value in REFUSED.values():
            _assert_refused(client, cloud.state_table, {"x": value}, {"state_id": {"S": "k"}})
        rows = [{"state_id": {"S": str(number)}} for number in range(101)]
        for call in (
            lambda: client.batch_get_item(RequestItems={cloud.state_table: {"Keys": rows}}),
            lambda: client.batch_write_item(
                RequestItems={cloud.state_table: [{"PutRequest": {"Item": row}} for row in rows[:26]]}
            ),
            lambda: client.put_item(TableName=cloud.state_table, Item={"state_id": {"S": ""}}),
        ):
            with pytest.raises(ClientError) as caught:
                call()
            assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_a_heartbeat_with_texts_of_any_length_fits(store: StateStore) -> None:
    """Users see the first texts and the number of the others. The fields that decide are complete."""
    many = tuple(f"{number}: {ANY_LENGTH}" for number in range(300))
    status = replace(
        STATUS, host=ANY_LENGTH, problems=many, waiting=many, ledger_error=ANY_LENGTH, inventory_error=ANY_LENGTH,
        settings_problem=ANY_LENGTH, history_error=ANY_LENGTH, history=many, unread=many, waits=many, repeats=many,
        schedulers=tuple(str(number) for number in range(100)), reconciled_epoch=2,
    )  # fmt: skip
    store.put_agent(status)
    (found,) = store.agents("us-east-1")
    assert (found.schedulers, found.reconciled_epoch, found.beat) == (status.schedulers, 2, 3)
    for texts in (found.problems, found.waiting, found.unread, found.waits, found.repeats, found.history):
        assert texts[0].startswith("0: äää")
        assert texts[-1] == f"and {301 - len(texts)} more"
    assert found.ledger_error is not None
    assert found.ledger_error.endswith("ä ... (300000 characters)")


def test_a_state_with_a_reason_of_any_length_fits(store: StateStore) -> None:
    """The claim fits, and so does the promotion, which contains the reason twice."""
    first = initial("us-east-2", lease_s=10.0, by="test", at=AT)
    store.write(first, expected_version=None)
    claimed = claim(first, PLAN, at=AT)
    store.write(claimed, expected_version=first.version)
    promoted = promote(store.read(), at=AT)
    store.write(promoted, expected_version=claimed.version)
    found = store.read()
    assert (found.phase, found.epoch, found.active_region) == (Phase.PROMOTING, 1, "us-east-1")
    assert found.plan is not None
    assert found.plan.reason.startswith("äää")
    assert found.plan.owner == "host:1"


def test_a_record_of_any_length_fits(store: StateStore) -> None:
    """It has thousands of long steps, a long reason, and thousands of DAGs that stayed paused."""
    letters = random.Random(0)
    record = replace(
        FailoverRecord.of(PLAN, epoch=1),
        outcome=FailoverOutcome.COMPLETED,
        steps=tuple(StepRecord(name=f"step {n}", seconds=0.1, detail=ANY_LENGTH) for n in range(1000)),
        not_unpaused=tuple("".join(letters.choices(string.ascii_letters, k=250)) for _ in range(3000)),
    )
    store.put(RECORDS, record)
    found = store.get(RECORDS, "f-1")
    assert found is not None
    assert found.steps[-1].name == "step 999"
    assert record.not_unpaused[:900] == found.not_unpaused[:900]


def _large_run(random_text: Callable[[int], str], run_type: str = "scheduled") -> LedgerRun:
    """Return a run with the largest conf and the most task instances of the ledger; it is hardly compressible."""
    tasks = tuple((random_text(250), number, "success") for number in range(TASKS_BYTES // 281))
    return LedgerRun(
        dag_id="orders", run_id=f"{run_type}__1", run_type=run_type, status=RunStatus.SUCCESS, epoch=1, logical_date=AT,
        conf=json.dumps({"text": random_text(CONF_BYTES - 100)}), tasks=tasks, taken_at=AT,
    )  # fmt: skip


def _random_text(characters: str) -> Callable[[int], str]:
    letters = random.Random(0)
    return lambda length: "".join(letters.choices(characters, k=length))


def test_an_entry_with_the_largest_run_fits(runs_peer: RunsPeer) -> None:
    """Conf and task instances have random characters, which are hardly compressible."""
    store = runs_peer()
    run = _large_run(_random_text(string.ascii_letters + string.digits + "_.-"))
    entry = LogEntry(number=1, at=AT, epoch=1, first_id=1, newest_id=1, runs=(run,))
    store.append(A, entry)
    assert list(store.log(A, after=0)) == [entry]


def test_an_entry_with_a_run_with_the_largest_events_fits(runs_peer: RunsPeer) -> None:
    """Many small events and one large event, with as many characters as the ledger allows."""
    store, random_text = runs_peer(), _random_text(string.ascii_letters + string.digits + "_.-")
    large = _event(json.dumps({"text": random_text(CONF_BYTES // 2)}))
    count = (CONF_BYTES - size_of(large)) // size_of(_event("{}"))
    row = RunRow(
        id=1, dag_id="orders", run_id="r", run_type="asset_triggered", state="queued", logical_date=None,
        data_interval_start=None, data_interval_end=None, run_after=AT, queued_at=AT, conf={},
        events=(large, *[_event("{}")] * count),
    )  # fmt: skip
    run = to_run(row, RunStatus.OPEN, epoch=1)
    assert run.events == row.events
    more = to_run(replace(row, events=(*(row.events or ()), large)), RunStatus.OPEN, epoch=1)
    assert (more.events, "the limit is 200000" in (more.events_lost or "")) == (None, True)
    entry = LogEntry(number=1, at=AT, epoch=1, first_id=1, newest_id=1, runs=(run,))
    store.append(A, entry)
    assert list(store.log(A, after=0)) == [entry]


def _event(extra: str) -> RunEvent:
    return RunEvent(uri="s3://queue", name="queue", group="asset", at=AT, extra=extra)


def test_a_checkpoint_of_a_dag_with_the_largest_runs_of_every_type_fits(runs_peer: RunsPeer) -> None:
    """The data of one DAG is larger than an item, and is read back completely."""
    store, random_text = runs_peer(), _random_text(string.ascii_letters + string.digits + "_.-")
    finished, *others = (_large_run(random_text, kind) for kind in ("scheduled", "manual", "asset_triggered"))
    small = Head(dag_id="small")
    checkpoint = RegionLedger(number=1, runs={finished.key: finished}, heads={"a": replace(small, dag_id="a")})
    checkpoint.heads["orders"] = Head(dag_id="orders", created=AT, finished=finished, others=tuple(others))
    checkpoint.heads["small"] = small
    store.save_checkpoint(A, checkpoint)
    assert store.checkpoint(A) == checkpoint


def test_entries_with_ids_of_any_letters_fit(clock: ManualClock) -> None:
    """The size of DAG ids is counted in stored bytes, not in characters."""
    store, random_text = InMemoryRunsStore(), _random_text("".join(map(chr, range(0x4E00, 0x9FFF))))
    bookkeeper = Bookkeeper(store, None, clock, region=A, peers=lambda: ())  # type: ignore[arg-type]
    dag_ids = [random_text(250) for _ in range(1000)]
    bookkeeper._own.append(1, first_id=0, newest_id=0, dag_ids=dag_ids)
    assert [dag_id for entry in store.log(A, after=0) for dag_id in entry.dag_ids] == dag_ids


@pytest.mark.parametrize("lease_s", [float("nan"), float("inf")])
def test_a_number_that_dynamodb_does_not_have_is_an_error_of_the_state(store: StateStore, lease_s: float) -> None:
    """The error names the value; nothing is written."""
    with pytest.raises(StateError, match=str(lease_s)):
        store.write(initial("us-east-2", lease_s=lease_s, by="test", at=AT), expected_version=None)
    assert store.observe("us-east-2").state is None
