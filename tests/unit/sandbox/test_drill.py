"""Counting what task bodies wrote, and the report made of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.ports import FailoverRecord, StepRecord
from airflow_provider_mwaa_dr.core.state import Mode
from airflow_provider_mwaa_dr.sandbox import report
from airflow_provider_mwaa_dr.sandbox.drill import count_intervals, operator_words
from airflow_provider_mwaa_dr.sandbox.report import Attempt, Line, Report, Step

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


@pytest.fixture
def passed() -> Report:
    """The report of a drill in which everything went well but for two lost intervals."""
    lines = [_line(number) for number in range(3)] + [_line(number, region="us-east-1") for number in (5, 6)]
    return Report(
        scenario="planned",
        passed=True,
        findings={"nothing executed in a standby": True},
        steps=[Step(name="start", seconds=30.5)],
        rto_seconds=17.2,
        calls_to_source=40,
        intervals=count_intervals(lines),
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
            outcome="completed",
            epoch=1,
            steps=(StepRecord(name="claim", seconds=0.1, detail="<plan>"),),
        ),
        promoted_at=START + timedelta(seconds=40),
    )


def test_gaps_are_lost_and_repeats_are_duplicates() -> None:
    """Each DAG's intervals are counted between the first and the last one that any region executed."""
    lines = [_line(0), _line(1), _line(4, region="us-east-1"), _line(4), _line(5), _line(7, dag_id="drill_billing")]

    assert count_intervals(lines) == {"expected": 7, "executed": 5, "lost": 2, "duplicated": 1, "unreported": 0}


def test_runs_without_a_schedule_are_no_intervals() -> None:
    """What was triggered by hand is neither expected nor lost."""
    assert count_intervals([replace(_line(0), is_scheduled=False)])["expected"] == 0


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
    assert operator_words(text) == words


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


def test_a_report_is_written_for_programs_and_for_people(passed: Report, tmp_path: Path) -> None:
    """The page stands alone: no script, no link to anywhere, and what it quotes is escaped."""
    report.write(replace(passed, passed=False), tmp_path / "report")

    assert json.loads((tmp_path / "report" / "report.json").read_text())["verdict"] == "fail"
    page = (tmp_path / "report" / "report.html").read_text()
    assert '<span class="fail">fail</span>' in page
    assert not re.search(r"<script|href=|src=|url\(", page)
    assert "&lt;plan&gt;" in page
    assert "<plan>" not in page
    assert page.count("<circle") == len(passed.lines)
    for mark in ("claim", "promote", "complete"):
        assert f">{mark}</text>" in page


def test_the_screen_says_what_was_lost_and_why(passed: Report) -> None:
    """The verdict comes first; without losses the explanation is not there."""
    text = report.text(passed)

    assert text.startswith("Drill planned: PASS")
    assert "2  intervals lost" in text
    assert "Without the ledger" in text
    assert "Without the ledger" not in report.text(replace(passed, intervals={**passed.intervals, "lost": 0}))
