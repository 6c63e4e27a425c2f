"""What became of each run, and how thousands of them stay readable."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core.reporting.figure import Outage
from airflow_provider_mwaa_dr.core.reporting.run_outcome import Bar, RunOutcome, merged
from airflow_provider_mwaa_dr.sandbox.drill.report import Attempt, Line, Report
from airflow_provider_mwaa_dr.sandbox.drill.run_outcome import bars
from tests.unit.sandbox.drill import drill_reports
from tests.unit.sandbox.drill.drill_reports import OHIO, VIRGINIA, at


def _line(when_s: float, *, region: str = OHIO, epoch: int | None = 0, is_end: bool = True, run_id: str = "r") -> Line:
    return Line(
        region=region, dag_id="d", run_id=run_id, interval_end=at(0), is_scheduled=True, epoch=epoch, at=at(when_s),
        is_end=is_end,
    )  # fmt: skip


def _outcomes(*lines: Line, **rest: object) -> list[tuple[str, RunOutcome]]:
    """Return region and outcome of each bar, in a drill whose role moves to Virginia after 60 s."""
    empty = replace(drill_reports.planned(), attempts=(), went_on=())
    report: Report = replace(empty, lines=lines, **rest)  # type: ignore[arg-type]
    return [(bar.region, bar.outcome) for bar in bars(report)]


def test_a_run_is_one_bar_from_its_first_to_its_last_task_body() -> None:
    """Whatever lies between belongs to it."""
    (bar,) = bars(
        replace(
            drill_reports.planned(), attempts=(), lines=[_line(10, is_end=False), _line(12, is_end=False), _line(15)]
        )
    )

    assert (bar.outcome, bar.begin, bar.end) == (RunOutcome.ONCE, at(10), at(15))


def test_what_was_interrupted_and_went_on_is_two_bars() -> None:
    """Begun in one region, ended in the other: each has its part, and it executed once."""
    begun, ended = _line(55, is_end=False), _line(70, region=VIRGINIA, epoch=1)

    assert _outcomes(begun, ended) == [(VIRGINIA, RunOutcome.WENT_ON), (OHIO, RunOutcome.INTERRUPTED)]
    assert _outcomes(ended, went_on={(VIRGINIA, "d", "r")}) == [(VIRGINIA, RunOutcome.WENT_ON)]
    assert _outcomes(begun) == [(OHIO, RunOutcome.UNFINISHED)]
    assert _outcomes(begun, lost={"d r": None}) == [(OHIO, RunOutcome.INTERRUPTED)]


def test_one_id_may_be_two_runs_with_different_intervals() -> None:
    """Two versions of Airflow give one id to runs of two marks: neither continues the other."""
    other = replace(_line(70, region=VIRGINIA, epoch=1), interval_end=at(20))

    assert _outcomes(_line(50), other) == [(OHIO, RunOutcome.ONCE), (VIRGINIA, RunOutcome.ONCE)]


def test_an_interrupted_run_lasts_until_its_region_was_lost() -> None:
    """What ends with its region writes nothing."""
    lines = [_line(50, is_end=False), _line(70, region=VIRGINIA, epoch=1)]
    outage = Outage(region=OHIO, how="killed", since=at(53))
    found = bars(replace(drill_reports.planned(), attempts=(), lines=lines, outages=[outage]))

    assert [bar.end for bar in found if bar.outcome is RunOutcome.INTERRUPTED] == [at(53)]


def test_a_run_that_comes_back_with_the_role_begins_anew() -> None:
    """Under a newer epoch in the same region it is another bar."""
    found = _outcomes(_line(50, is_end=False), _line(58, epoch=2, is_end=False), _line(59, epoch=2))

    assert sorted(found) == [(OHIO, RunOutcome.INTERRUPTED), (OHIO, RunOutcome.WENT_ON)]


@pytest.mark.parametrize(("why", "outcome"), [("nobody could know", RunOutcome.AGAIN), ("", RunOutcome.TWICE)])
def test_both_executions_of_a_run_that_executed_twice_are_marked(why: str, outcome: RunOutcome) -> None:
    """With a reason, and without."""
    found = _outcomes(_line(50), _line(70, region=VIRGINIA, epoch=1), repeated={"d r": why})

    assert found == [(OHIO, outcome), (VIRGINIA, outcome)]


def test_what_executes_in_a_standby_stands_out() -> None:
    """By its time, or because the drill had forced it there."""
    forced = Attempt(region=VIRGINIA, dag_id="d", run_id="f", at=at(5))

    assert _outcomes(_line(50, region=VIRGINIA)) == [(VIRGINIA, RunOutcome.IN_STANDBY)]
    assert _outcomes(_line(70, region=VIRGINIA, run_id="f"), attempts=[forced]) == [(VIRGINIA, RunOutcome.IN_STANDBY)]
    assert _outcomes(attempts=[forced]) == [(VIRGINIA, RunOutcome.FORCED)]
    assert _outcomes(attempts=[replace(forced, at=None)]) == []


def test_what_was_lost_is_missing_where_it_was_due() -> None:
    """In the region that had the role then; without a time it is only listed."""
    assert _outcomes(lost={"d 1": at(20), "d 2": at(80), "d 3": None}) == [
        (OHIO, RunOutcome.LOST),
        (VIRGINIA, RunOutcome.LOST),
    ]


def test_thousands_of_runs_become_few_bars_and_no_other_outcome_drowns_in_them() -> None:
    """Nothing is left out of the count."""
    all_bars = bars(drill_reports.flood())
    shown = merged(all_bars, gap_s=0.1)

    assert len(all_bars) > 3000
    assert len(shown) < 150
    assert sum(bar.runs for bar in shown) == len(all_bars)
    lost = Bar(region=VIRGINIA, dag_id="drill_history", outcome=RunOutcome.LOST, begin=at(80), end=at(80))
    counts = Counter(bar.outcome for bar in merged([*all_bars, lost], gap_s=0.1))
    assert counts[RunOutcome.LOST] == 1


def test_a_merged_bar_reaches_from_the_first_run_to_the_last() -> None:
    """And says since when the oldest of them was due."""
    one = Bar(region=OHIO, dag_id="d", outcome=RunOutcome.ONCE, begin=at(10), end=at(20), due=at(9))
    two = replace(one, begin=at(12), end=at(13), due=at(3))
    (both,) = merged([two, one], gap_s=0)

    assert (both.begin, both.end, both.due, both.runs) == (at(10), at(20), at(3), 2)
    assert len(merged([one, replace(one, begin=one.end + timedelta(seconds=1))], gap_s=0.5)) == 2
