"""The report of any failover, from its record and the ledgers of both regions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RegionLedger, RunStatus
from airflow_provider_mwaa_dr.core.ports import REPORTS, FailoverOutcome, FailoverRecord, StepRecord, StoredReport
from airflow_provider_mwaa_dr.core.reporting.failover import (
    AFTER,
    BEFORE,
    FailoverReport,
    current_report,
    find_record,
    keep_report,
    report_document,
    report_from,
    take_report,
)
from airflow_provider_mwaa_dr.core.reporting.failover_page import failover_page
from airflow_provider_mwaa_dr.core.reporting.run_outcome import RunOutcome
from airflow_provider_mwaa_dr.core.state import Mode
from airflow_provider_mwaa_dr.exceptions import ConfigError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, InMemoryStateStore, ManualClock
from tests.unit.sandbox.drill.test_report_page import _Tags

A, B = "us-east-2", "us-east-1"
CLAIM = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
RECORD = FailoverRecord(
    id="20260301T120000Z-abcdef",
    source=A,
    target=B,
    mode=Mode.GRACEFUL,
    reason="flood <in> Ohio",
    by="ana@laptop",
    started_at=CLAIM,
    finished_at=CLAIM + timedelta(seconds=20),
    outcome=FailoverOutcome.COMPLETED,
    epoch=1,
    steps=(
        StepRecord(name="check", seconds=2, detail="us-east-1 is ready"),
        StepRecord(name="claim", seconds=1, detail="plan"),
        StepRecord(name="drain", seconds=6, detail="no run in progress"),
        StepRecord(name="promote", seconds=1, detail="us-east-1 is active"),
        StepRecord(name="complete", seconds=1, detail="done"),
    ),
)
PROMOTED = CLAIM + timedelta(seconds=8)


def at(seconds: float) -> datetime:
    return CLAIM + timedelta(seconds=seconds)


def run(name: str, status: RunStatus, **values: object) -> LedgerRun:
    dag_id, run_id = name.split()
    found = LedgerRun(dag_id=dag_id, run_id=run_id, run_type="scheduled", status=status, epoch=0)
    return replace(found, **values)  # type: ignore[arg-type]


class Tables:
    """The tables after a failover: two logs, and the record."""

    def __init__(self) -> None:
        self.store, self.runs, self.clock = InMemoryStateStore(), InMemoryRunsStore(), ManualClock(at(60))
        self.numbers = {A: 0, B: 0}

    def publish(self, region: str, seconds: float, *runs: LedgerRun, final: bool = False) -> None:
        self.numbers[region] += 1
        plan_id = RECORD.id if final else None
        entry = LogEntry(
            number=self.numbers[region], at=at(seconds), epoch=0, first_id=0, newest_id=0, runs=runs,
            final_plan_id=plan_id,
        )  # fmt: skip
        self.runs.append(region, entry)

    def take(self, record: FailoverRecord = RECORD) -> FailoverReport:
        return take_report(self.store, self.runs, record, self.clock)


@pytest.fixture
def tables() -> Tables:
    """
    One run ends during the failover, one is interrupted and resumed, one is interrupted and waits, and the target has
    run another interval.
    """
    made = Tables()
    made.publish(
        A, -200_000, run("billing long_ago", RunStatus.SUCCESS, started_at=at(-200_010), ended_at=at(-200_000))
    )
    opened = [run(name, RunStatus.OPEN) for name in ("billing r1", "orders r1", "long r1")]
    made.publish(A, -10, *opened)
    made.publish(A, 4, run("billing r1", RunStatus.SUCCESS, started_at=at(-12), ended_at=at(3)))
    made.publish(A, 6, run("orders r1", RunStatus.INTERRUPTED), run("long r1", RunStatus.INTERRUPTED), final=True)
    made.publish(B, 9, run("orders r1", RunStatus.OPEN, taken_at=at(8.5)))
    made.publish(B, 15, run("orders r1", RunStatus.SUCCESS, started_at=at(10), ended_at=at(14), taken_at=at(8.5)))
    made.publish(B, 16, run("billing r2", RunStatus.OPEN))
    return made


def test_the_numbers_are_those_of_the_ledger(tables: Tables) -> None:
    """RTO counts from the first check, to the start of the first run after the promotion."""
    found = tables.take()
    assert (found.rto_s, found.rpo_s) == (12.0, 0.0)
    assert found.kept == 1
    assert found.resumed == ("orders r1",)
    assert found.waiting == ("long r1",)
    assert found.promoted_at == at(8) - timedelta(seconds=0)
    assert [(bar.region, bar.dag_id, bar.outcome) for bar in found.bars] == [
        (A, "billing", RunOutcome.ONCE),
        (A, "long", RunOutcome.INTERRUPTED),
        (A, "orders", RunOutcome.INTERRUPTED),
        (B, "orders", RunOutcome.WENT_ON),
        (B, "billing", RunOutcome.UNFINISHED),
    ]


def test_a_lost_region_has_an_rpo(tables: Tables) -> None:
    """It is the time before the promotion without an entry of its log."""
    lost = Tables()
    lost.publish(A, -10, run("billing r1", RunStatus.OPEN))
    lost.publish(B, 20, run("billing r2", RunStatus.OPEN))
    assert lost.take().rpo_s == (PROMOTED - at(-10)).total_seconds()


def test_without_a_ledger_nothing_is_invented(tables: Tables) -> None:
    """The report says what it does not know, and still has the record."""
    for runs in (None, InMemoryRunsStore()):
        found = take_report(tables.store, runs, RECORD, tables.clock)
        assert (found.rto_s, found.rpo_s, found.bars) == (None, None, ())
        assert any("ledger" in gap or "runs table" in gap for gap in found.gaps)
        assert "RTO: not known" in failover_page(found)
    tables.runs.unreachable = True
    assert any("could not be read" in gap for gap in tables.take().gaps)


def test_only_the_time_of_the_failover_is_read() -> None:
    """A log of thousands of entries is searched for its first entry."""
    long = Tables()
    for number in range(200):
        long.publish(A, -100_000 + number * 400, run(f"billing r{number}", RunStatus.SUCCESS))
    long.publish(A, 5, run("billing last", RunStatus.SUCCESS, started_at=at(1), ended_at=at(4)))
    long.publish(A, (AFTER + BEFORE).total_seconds() + 60, run("billing later", RunStatus.SUCCESS))
    ledger = RegionLedger()
    ledger.apply(long.runs.log(A, after=0))
    long.runs.save_checkpoint(A, ledger)
    assert [bar.what for bar in long.take().bars if bar.region == A] == ["last"]


def test_a_document_becomes_the_same_report(tables: Tables) -> None:
    """Nothing of what a page shows is lost in the table."""
    found = tables.take()
    document = json.loads(json.dumps(report_document(found)))
    assert report_from(document, RECORD) == found
    assert document["runs"]["twice"] is None


def test_the_data_stay_when_the_ledger_has_expired(tables: Tables) -> None:
    """They are stored when the failover completes, and again by the first report after the time that it shows."""
    assert keep_report(tables.store, tables.runs, RECORD, tables.clock) == ""
    first = tables.take()
    tables.publish(B, 70, run("billing r2", RunStatus.SUCCESS, started_at=at(16), ended_at=at(69), taken_at=None))
    tables.clock.advance(AFTER.total_seconds())
    later, why = current_report(tables.store, tables.runs, RECORD, tables.clock)
    assert why == ""
    assert [bar.outcome for bar in later.bars if bar.what == "r2"] == [RunOutcome.ONCE]
    tables.clock.advance(30 * 24 * 3600)
    expired, why = current_report(tables.store, InMemoryRunsStore(), RECORD, tables.clock)
    assert (expired, why) == (later, "")
    assert failover_page(expired) == failover_page(later)
    assert first.bars != later.bars


def test_less_never_replaces_more(tables: Tables) -> None:
    """The ledger expired before the first call of mwaa-dr report: the stored data count."""
    keep_report(tables.store, tables.runs, RECORD, tables.clock)
    stored = tables.take()
    tables.clock.advance(30 * 24 * 3600)
    assert current_report(tables.store, InMemoryRunsStore(), RECORD, tables.clock)[0].bars == stored.bars


def test_a_damaged_stored_report_is_taken_again(tables: Tables) -> None:
    """The ledger still has the entries."""
    tables.store.put(REPORTS, StoredReport(id=RECORD.id, taken_at=at(60), body='{"runs": 5}'))
    found, why = current_report(tables.store, tables.runs, RECORD, tables.clock)
    assert found.kept == 1
    assert "cannot be read" in why


def test_a_table_that_does_not_answer_does_not_fail_the_failover(tables: Tables) -> None:
    """The sentence has the command that stores the data later."""
    assert "NoneType" in keep_report(tables.store, tables.runs, RECORD, None)  # type: ignore[arg-type]
    tables.store.unreachable = True
    assert f"mwaa-dr report {RECORD.id}" in keep_report(tables.store, tables.runs, RECORD, tables.clock)


def test_an_unknown_failover_names_the_newest(tables: Tables) -> None:
    """A wrong id is wrong usage."""
    with pytest.raises(ConfigError, match="No failover has been recorded"):
        find_record(tables.store, None)
    from airflow_provider_mwaa_dr.core.ports import RECORDS

    tables.store.put(RECORDS, RECORD)
    assert find_record(tables.store, None) == find_record(tables.store, RECORD.id) == RECORD
    with pytest.raises(ConfigError) as caught:
        find_record(tables.store, "2026")
    assert RECORD.id in caught.value.advice


def page_words() -> Sequence[str]:
    return (
        "RTO: until the first run in us-east-1", "RPO: not published before the promotion", "ana@laptop",
        "flood &lt;in&gt; Ohio", "not measurable", "us-east-1 is ready", "environment, scheduler, agents", RECORD.id,
        "taken over from the other region", "Interrupted runs that wait", "long r1",
    )  # fmt: skip


def test_the_page_stands_alone_and_shows_request_steps_and_runs(tables: Tables) -> None:
    """No script, and nothing from another place."""
    page = failover_page(tables.take())
    for words in page_words():
        assert words in page, words
    for step in RECORD.steps:
        assert f"<td>{step.name}</td>" in page
    assert "<script" not in page
    assert "href=" not in page
    assert "executed once" not in page
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []


def test_an_open_failover_has_a_page() -> None:
    """It was not promoted yet."""
    record = replace(RECORD, outcome=FailoverOutcome.OPEN, finished_at=None, steps=RECORD.steps[:2])
    tables = Tables()
    tables.publish(A, -5, run("billing r1", RunStatus.OPEN))
    page = failover_page(tables.take(record))
    assert 'class="verdict fail">open<' in page
    assert "RPO: not known" in page
