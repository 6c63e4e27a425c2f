"""The contract of the runs table, in memory and in DynamoDB."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_mwaa_dr.core.ledger import (
    CheckpointInfo,
    ChildRun,
    LedgerRun,
    LogEntry,
    RegionLedger,
    RunDeadline,
    RunEvent,
    RunStatus,
)
from airflow_provider_mwaa_dr.exceptions import StaleLedgerError
from tests.contract.conftest import RunsPeer

REGION = "us-east-2"
AT = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
RUN = LedgerRun(
    dag_id="orders",
    run_id="scheduled__2026-01-01T00:00:00+00:00",
    run_type="scheduled",
    status=RunStatus.OPEN,
    epoch=3,
    logical_date=AT,
    data_interval_start=AT - timedelta(hours=1),
    data_interval_end=AT,
    run_after=AT,
    partition_key="eu",
    partition_date=AT - timedelta(days=1),
    conf='{"a": "\\u00e4\\n", "b": [1, null]}',
    taken_at=AT,
    retained_for_peers=True,
    tasks=(("extract", -1, "success"), ("load", 3, None)),
    holds_date=True,
    triggered_by="REST_API",
    triggering_user="ann",
    deadlines=(RunDeadline(alert="a1", at=AT), RunDeadline(alert="a2", at=AT, is_missed=True)),
    children=(
        ChildRun(dag_id="child", run_id="c1", is_awaited=True),
        ChildRun(dag_id="child", run_id=None, has_fixed_id=True),
    ),
    is_replaced=True,
)


EVENT = RunEvent(
    uri="s3://queue/ä", name="queue", group="asset", at=AT, extra='{"payload": {"a": [1, null, "\\u00e4"]}}',
    source_dag_id="producer", source_task_id="t", source_run_id="r", source_map_index=-1, partition_key="eu",
    aliases=("one", "two"),
)  # fmt: skip
BARE_EVENT = RunEvent(uri="", name=None, group=None, at=AT, extra="{}")
TRIGGERED = LedgerRun(
    dag_id="orders", run_id="by asset", run_type="asset_triggered", status=RunStatus.OPEN, epoch=3, run_after=AT,
    events=(EVENT, BARE_EVENT),
)  # fmt: skip


def entry(number: int, *runs: LedgerRun, final_plan_id: str | None = None) -> LogEntry:
    return LogEntry(
        number=number,
        at=AT,
        epoch=3,
        first_id=4,
        newest_id=7,
        runs=runs,
        dag_ids=("orders", "new"),
        final_plan_id=final_plan_id,
        complete_before=2 if final_plan_id else None,
        stops="plan-1-stopped-1" if final_plan_id else None,
    )


def test_the_log_is_read_back_as_written(runs_peer: RunsPeer) -> None:
    """In order, after the reader's last entry, and only the entries of the given region."""
    writer, reader = runs_peer(), runs_peer()
    assert list(reader.log(REGION, after=0)) == []
    bare = LedgerRun(dag_id="d", run_id="r", run_type="manual", status=RunStatus.SUCCESS, epoch=0, conf_lost="too long")
    triggered = [TRIGGERED, replace(TRIGGERED, run_id="2", events=())]
    triggered.append(replace(TRIGGERED, run_id="3", events=None, events_lost="too long"))
    entries = [entry(1, RUN), entry(2, *triggered), entry(3, bare, final_plan_id="plan-1")]
    for each in entries:
        writer.append(REGION, each)
    writer.append("us-east-1", entry(1))
    assert list(reader.log(REGION, after=0)) == entries
    assert list(reader.log(REGION, after=2)) == entries[2:]
    assert list(reader.log(REGION, after=3)) == []


def test_a_long_log_is_read_in_steps(runs_peer: RunsPeer) -> None:
    """A call may return only a part; the next call continues after it."""
    store = runs_peer()
    for number in range(1, 451):
        store.append(REGION, entry(number))
    ledger = RegionLedger()
    calls = 0
    while found := store.log(REGION, after=ledger.number):
        ledger.apply(found)
        calls += 1
    assert (ledger.number, calls) == (450, 3)


def test_each_number_is_used_once(runs_peer: RunsPeer) -> None:
    """
    The same entry may be written again, as after a lost answer. A different entry is refused, and changes nothing.
    """
    first, second = runs_peer(), runs_peer()
    first.append(REGION, entry(1, RUN))
    first.append(REGION, entry(1, RUN))
    with pytest.raises(StaleLedgerError):
        second.append(REGION, entry(1, replace(RUN, status=RunStatus.FAILED)))
    assert list(second.log(REGION, after=0)) == [entry(1, RUN)]


def test_the_checkpoint_is_replaced_completely_and_never_by_an_older_one(runs_peer: RunsPeer) -> None:
    """All its pages are replaced. A checkpoint that is older than the stored one is ignored."""
    first, second = runs_peer(), runs_peer()
    assert first.checkpoint(REGION) == RegionLedger()
    checkpoint = RegionLedger()
    done = replace(RUN, run_id="done", status=RunStatus.SUCCESS)
    manual = replace(done, run_id="by hand", run_type="manual", holds_date=False)
    dated = replace(done, run_id="dated", run_type="manual", logical_date=AT + timedelta(hours=1), tasks=())
    triggered = replace(TRIGGERED, run_id="e", status=RunStatus.SUCCESS, events=None)
    checkpoint.apply([entry(1, RUN, TRIGGERED, final_plan_id="plan-1"), entry(2, done, manual, dated, triggered)])
    assert checkpoint.heads["orders"].triggered == triggered
    assert checkpoint.heads["orders"].others == (manual,)
    assert checkpoint.heads["orders"].dated == (dated,)
    assert checkpoint.heads["orders"].finished == checkpoint.heads["orders"].partition == done
    first.save_checkpoint(REGION, checkpoint)
    assert second.checkpoint(REGION) == checkpoint
    later = second.checkpoint(REGION)
    later.apply([entry(3, replace(RUN, status=RunStatus.GONE))])
    assert later != checkpoint
    second.save_checkpoint(REGION, later)
    first.save_checkpoint(REGION, checkpoint)
    assert first.checkpoint(REGION) == second.checkpoint(REGION) == later
    assert first.checkpoint("us-east-1") == RegionLedger()


def test_lives_are_read_back_as_written(runs_peer: RunsPeer) -> None:
    """For entries, checkpoints and checkpoint infos. Those of the first version have no life."""
    store = runs_peer()
    assert store.checkpoint_info(REGION) is None
    entries = [entry(1, RUN), replace(entry(2), life="l1")]
    for each in entries:
        store.append(REGION, each)
    assert list(store.log(REGION, after=0)) == entries
    old, new = RegionLedger(number=1), RegionLedger(number=2, life="l1", at=AT)
    for checkpoint in (old, new):
        assert store.save_checkpoint(REGION, checkpoint)
        assert store.checkpoint(REGION) == checkpoint
        assert store.checkpoint_info(REGION) == CheckpointInfo(life=checkpoint.life, number=checkpoint.number)
    assert store.checkpoint_info("us-east-1") is None


def test_a_life_begins_only_after_the_stored_one(runs_peer: RunsPeer) -> None:
    """Its checkpoint may have a lower number, but may replace only the life after which it begins."""
    store, stale = runs_peer(), runs_peer()
    first = RegionLedger(number=5, life="l1")
    assert store.save_checkpoint(REGION, first, begins_after=RegionLedger())
    second = replace(first, life="l2")
    assert store.save_checkpoint(REGION, second, begins_after=first)
    assert not stale.save_checkpoint(REGION, replace(first, number=9))
    assert not stale.save_checkpoint(REGION, replace(first, life="l3"), begins_after=first)
    assert not stale.save_checkpoint(REGION, replace(second, number=4))
    assert store.checkpoint_info(REGION) == CheckpointInfo(life="l2", number=5)
    assert store.save_checkpoint(REGION, replace(second, number=6))


def test_a_checkpoint_of_any_size_fits(runs_peer: RunsPeer) -> None:
    """3,000 DAGs with ids of 250 characters, and runs with the longest allowed conf."""
    store = runs_peer()
    checkpoint = RegionLedger()
    runs = [replace(RUN, dag_id=f"{number:03}{'x' * 247}", conf=f'"{"y" * 190_000}"') for number in range(5)]
    checkpoint.apply([replace(entry(1, *runs), dag_ids=tuple(f"{number:04}{'z' * 246}" for number in range(3000)))])
    store.save_checkpoint(REGION, checkpoint)
    assert store.checkpoint(REGION) == checkpoint
