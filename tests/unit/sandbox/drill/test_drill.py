"""Counting what task bodies wrote, and the report made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RunStatus
from airflow_provider_mwaa_dr.core.ports import FailoverOutcome, FailoverRecord, StepRecord
from airflow_provider_mwaa_dr.core.reporting.figure import Outage
from airflow_provider_mwaa_dr.core.state import Mode
from airflow_provider_mwaa_dr.sandbox.drill import report, report_page
from airflow_provider_mwaa_dr.sandbox.drill.drill import operator_message
from airflow_provider_mwaa_dr.sandbox.drill.oracle import Count, count
from airflow_provider_mwaa_dr.sandbox.drill.report import Attempt, DrillStep, Line, Report

START = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)


def _line(number: int, *, region: str = "us-east-2", dag_id: str = "drill_orders", late_s: float = 1) -> Line:
    end = START + timedelta(seconds=10 * number)
    return Line(
        region=region,
        dag_id=dag_id,
        run_id=f"scheduled__{end.isoformat()}",
        interval_end=end,
        is_scheduled=True,
        epoch=0,
        at=end + timedelta(seconds=late_s),
    )


def counted(lines: list[Line], **rest: Any) -> Count:
    """Count the runs of two DAGs with an interval of ten seconds."""
    every = dict.fromkeys(("drill_orders", "drill_billing"), timedelta(seconds=10))
    return count(lines, **{"every": every, **rest})


@pytest.fixture
def passed() -> Report:
    """The report of a drill in which everything went well but for two lost intervals."""
    lines = [_line(number) for number in range(3)] + [_line(number, region="us-east-1") for number in (5, 6)]
    return Report(
        scenario="planned",
        passed=True,
        findings={"no task executed in a standby": True},
        steps=[DrillStep(name="start", seconds=30.5)],
        rto_seconds=17.2,
        calls_to_source=40,
        intervals=counted(lines).figures,
        listed=["lost: drill_orders interval 12:00:30"],
        executed_in_standby=0,
        attempts=[Attempt(region="us-east-1", dag_id="drill_orders", run_id="<forced>")],
        epoch=1,
        versions={"us-east-2": {"airflow": "3.3.1", "provider": "0.1.0"}},
        lines=lines,
        record=FailoverRecord(
            id="p1",
            source="us-east-2",
            target="us-east-1",
            mode=Mode.GRACEFUL,
            reason="drill",
            by="test",
            started_at=START + timedelta(seconds=24),
            finished_at=START + timedelta(seconds=45),
            outcome=FailoverOutcome.COMPLETED,
            epoch=1,
            steps=(StepRecord(name="claim", seconds=0.1, detail="<plan>"),),
        ),
        moves=[(START, "us-east-2"), (START + timedelta(seconds=40), "us-east-1")],
    )


def test_gaps_are_lost_and_repeats_are_duplicates() -> None:
    """Each DAG's intervals are counted between the first and the last one that any region executed."""
    lines = [_line(0), _line(1), _line(4, region="us-east-1"), _line(4), _line(5), _line(7, dag_id="drill_billing")]

    assert counted(lines).figures == {"expected": 7, "executed": 5, "lost": 2, "duplicated": 1, "unreported": 0}
    assert counted(lines).lost == ["drill_orders interval 12:00:20", "drill_orders interval 12:00:30"]
    assert counted(lines).lost_at["drill_orders interval 12:00:30"] == START + timedelta(seconds=30)


def test_a_run_that_was_only_begun_has_not_executed() -> None:
    """The last body of a run counts. A run that was interrupted and continued in another region executed once."""
    begun = replace(_line(1), is_end=False)

    assert counted([_line(0), begun, _line(2)]).figures["lost"] == 1
    assert counted([_line(0), begun, _line(1, region="us-east-1"), _line(2)]).figures == {
        "expected": 3, "executed": 3, "lost": 0, "duplicated": 0, "unreported": 0,
    }  # fmt: skip


def test_a_manual_run_counts_once_airflow_has_accepted_it() -> None:
    """One that the drill forced in a standby does not."""
    line = replace(_line(0), is_scheduled=False, dag_id="by_hand", run_id="m")

    assert counted([line]).expected == 0
    assert counted([line], accepted={("by_hand", "m"), ("by_hand", "n")}).lost == ["by_hand n"]


def test_without_catchup_what_was_created_is_due() -> None:
    """One Airflow also skips intervals without a run. The ledger lists the runs that were created."""
    run = LedgerRun(dag_id="latest", run_id="r", run_type="scheduled", status=RunStatus.OPEN, epoch=0)
    told = {"us-east-2": [LogEntry(number=1, at=START, epoch=0, first_id=0, newest_id=1, runs=(run,))]}

    assert counted([], ledgers=told, without_catchup=["latest"]).lost == ["latest r"]
    assert counted([], ledgers=told).lost == []


def test_a_run_of_another_version_is_the_same_run() -> None:
    """The region that takes it over marks its id. It has executed, and if both regions executed it, it did so twice."""
    taken_over = replace(_line(1, region="us-east-1"), run_id=f"{_line(1).run_id}__airflow-2")
    created = LedgerRun(dag_id="latest", run_id=_line(1).run_id, run_type="scheduled", status=RunStatus.OPEN, epoch=0)
    told = {"us-east-2": [LogEntry(number=1, at=START, epoch=0, first_id=0, newest_id=1, runs=(created,))]}

    found = counted([replace(taken_over, dag_id="latest")], ledgers=told, without_catchup=["latest"])
    assert (found.lost, found.repeated) == ([], {})
    assert len(counted([_line(1), taken_over]).repeated) == 1


@pytest.mark.parametrize(("knew", "is_allowed"), [(True, False), (False, True)])
def test_a_run_may_execute_again_only_if_nobody_could_know_that_it_had_ended(knew: bool, is_allowed: bool) -> None:
    """The ledger had it before the role moved: then there is no excuse."""
    lines = [_line(0), _line(0, region="us-east-1", late_s=30)]
    run = LedgerRun(
        dag_id="drill_orders", run_id=lines[0].run_id, run_type="scheduled", status=RunStatus.SUCCESS, epoch=0
    )
    told_at = START + timedelta(seconds=2 if knew else 60)
    told = {"us-east-2": [LogEntry(number=1, at=told_at, epoch=0, first_id=0, newest_id=1, runs=(run,))]}
    moves = [(START, "us-east-2"), (START + timedelta(seconds=20), "us-east-1")]

    (why,) = counted(lines, ledgers=told, moves=moves).repeated.values()
    assert bool(why) == is_allowed
    (never,) = counted([_line(0), _line(0, late_s=3)], ledgers=told, moves=moves).repeated.values()
    assert not never


def test_a_line_is_read_as_the_task_body_wrote_it() -> None:
    """A run without an interval, as REST makes them in Airflow 3, has none."""
    line = Line.parse(
        json.dumps(
            {
                "region": "us-east-1",
                "dag_id": "d",
                "run_id": "r",
                "interval_end": None,
                "is_scheduled": False,
                "epoch": None,
                "at": START.isoformat(),
            }
        )
    )

    assert (line.interval_end, line.at) == (None, START)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "2026-11-23T08:54:05.8Z [info     ] claim done after 0.2 s: plan p1  [airflow.x.FailoverOperator] loc=x:1",
            "claim done after 0.2 s: plan p1",
        ),
        ("[2026-11-23T08:54:05.8+0000] {failover.py:160} INFO - claim done after 0.2 s", "claim done after 0.2 s"),
        ("2026-11-23T08:54:05.8Z [info     ] Filling up the DagBag [airflow.dag] loc=dag.py:1", None),
    ],
    ids=["Airflow 3", "Airflow 2", "something else"],
)
def test_the_steps_are_found_in_the_output_of_the_failover_dag(text: str, words: str | None) -> None:
    """Only what the operator says reaches the screen."""
    assert operator_message(text) == words


def test_the_document_has_the_keys_that_scripts_read(passed: Report) -> None:
    """Section 8 of the design names them."""
    document = report.document(passed)

    assert {
        "scenario", "verdict", "steps", "rto_seconds", "intervals", "executed_in_standby", "attempts_in_standby",
        "epoch", "versions",
    } <= set(document)  # fmt: skip
    assert set(document["intervals"]) == {"expected", "executed", "lost", "duplicated", "unreported"}
    assert (document["verdict"], document["attempts_in_standby"]) == ("pass", 1)
    assert document["steps"] == [{"name": "start", "seconds": 30.5}]
    assert (document["failback"], document["outages"], document["went_on"]) == (None, [], 0)


def test_the_document_tells_of_the_way_back_and_of_what_was_lost_meanwhile(passed: Report) -> None:
    """Times as in every document; a region that has not come back has none."""
    outage = Outage(region="us-east-2", how="killed", since=START)
    document = report.document(
        replace(passed, later=[passed.record], outages=[outage], went_on={("us-east-1", "d", "r")})
    )

    assert document["failback"]["id"] == "p1"
    assert [record["id"] for record in document["failovers"]] == ["p1", "p1"]
    assert document["outages"] == [
        {"region": "us-east-2", "how": "killed", "since": "2026-03-01T12:00:00Z", "until": None}
    ]
    assert document["went_on"] == 1


def test_an_upgrade_says_what_was_copied_and_how_long_scheduling_paused(passed: Report) -> None:
    """In the document, in the text and on the page. Other drills say nothing about it."""
    upgrade = replace(passed, later=[passed.record] * 2, pauses=[4.5, 9.1, 8.0], copied={"history": "not copied"})

    assert report.document(upgrade)["copied"] == {"history": "not copied"}
    assert report.document(upgrade)["pauses_s"] == [4.5, 9.1, 8.0]
    for text in (report.text(upgrade), report_page.page(upgrade)):
        assert "not copied" in text
        assert "9.1" in text
        assert "seconds that the second failover took" in text
    for text in (report.text(passed), report_page.page(passed)):
        assert "copied" not in text
        assert "pause of scheduling" not in text


def test_a_report_is_written_for_programs_and_for_people(passed: Report, tmp_path: Path) -> None:
    """Both say the same."""
    report_page.write(replace(passed, passed=False), tmp_path / "report")

    assert json.loads((tmp_path / "report" / "report.json").read_text())["verdict"] == "fail"
    assert '<p class="verdict fail">failed</p>' in (tmp_path / "report" / "report.html").read_text()


def test_the_screen_lists_what_was_lost(passed: Report) -> None:
    """The verdict comes first."""
    text = report.text(passed)

    assert text.startswith("Drill planned: PASS")
    assert "2  RPO: expected runs that were lost" in text
    assert "lost: drill_orders interval 12:00:30" in text


def test_what_a_region_did_on_its_own_may_have_run_elsewhere() -> None:
    """A region that is cut off with its own copy of the table continues. Only in that time may a run repeat."""
    lines = [_line(number) for number in range(6)] + [_line(4, region="us-east-1", late_s=3)]
    alone = ("us-east-1", START + timedelta(seconds=40), START + timedelta(seconds=60))
    assert "cut off with its own copy" in counted(lines, alone=[alone]).repeated[f"drill_orders {_line(4).run_id}"]
    earlier = ("us-east-1", START, START + timedelta(seconds=40))
    assert set(counted(lines, alone=[earlier]).repeated.values()) == {""}


@pytest.mark.parametrize(("cut_after_s", "is_allowed"), [(4, True), (30, False)])
def test_what_a_copy_was_told_just_before_it_was_alone_may_not_have_got_out(cut_after_s: int, is_allowed: bool) -> None:
    """The tables are copied with a lag. Earlier entries have reached both copies."""
    run = LedgerRun(
        dag_id="drill_orders", run_id=_line(0).run_id, run_type="scheduled", status=RunStatus.SUCCESS, epoch=0
    )
    told_at = START + timedelta(seconds=2)
    told = {"us-east-2": [LogEntry(number=1, at=told_at, epoch=0, first_id=0, newest_id=1, runs=(run,))]}
    alone = ("us-east-2", told_at + timedelta(seconds=cut_after_s), told_at + timedelta(seconds=90))
    moves = [(START, "us-east-2"), (told_at + timedelta(seconds=60), "us-east-1")]
    lines = [_line(0), _line(0, region="us-east-1", late_s=95)]
    (why,) = counted(lines, ledgers=told, moves=moves, alone=[alone]).repeated.values()
    assert bool(why) is is_allowed
