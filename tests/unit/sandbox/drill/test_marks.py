"""Counting marks, and the pause of scheduling, from what task bodies wrote in two versions of Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_mwaa_dr.sandbox.drill.marks import Marks, count_marks, pauses
from airflow_provider_mwaa_dr.sandbox.drill.report import Line

START = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
EVERY = timedelta(seconds=20)
BLUE, GREEN = "blue", "green"


def at(seconds: float) -> datetime:
    """Return the time so long after the beginning."""
    return START + timedelta(seconds=seconds)


def line(
    dag_id: str, *marks_s: float, region: str = BLUE, begin_s: float | None = None, late_s: float = 1, end: bool = True
) -> Line:
    """Return what a task body wrote for some marks."""
    return Line(
        region=region,
        dag_id=dag_id,
        run_id=f"scheduled__{marks_s}_in_{region}",
        interval_start=None if begin_s is None else at(begin_s),
        interval_end=at(marks_s[-1]),
        is_scheduled=True,
        epoch=0,
        at=at(marks_s[-1] + late_s),
        is_end=end,
        marks=tuple(map(at, marks_s)),
    )


def counted(*lines: Line, since: Mapping[str, datetime] | None = None, until_s: float = 1000) -> Mapping[str, Marks]:
    """Count the marks of a regular DAG, of a continuous one, and of a child."""
    return count_marks(
        lines,
        every={"regular": EVERY},
        since=since or {},
        continuous=["continuous"],
        requested_by={"child": "regular"},
        until=at(until_s),
    )


def test_a_mark_counts_once_whatever_its_run_is_called() -> None:
    """Two regions, two ids: one mark that executed twice. A body that is not the last one of its run does not count."""
    again = line("regular", 20, region=GREEN)
    found = counted(line("regular", 0), line("regular", 20), again, line("regular", 0, end=False))["regular"]

    assert (found.expected, found.executed, found.lost) == (2, 2, ())
    assert {mark: lines[-1] for mark, lines in found.twice.items()} == {at(20): again}


def test_a_mark_between_two_others_is_expected() -> None:
    """From the first mark that is named, or the first executed one, to the last executed one."""
    lines = [line("regular", 20), line("regular", 80)]

    assert counted(*lines)["regular"].lost == (
        at(40),
        at(60),
    )
    assert counted(*lines, since={"regular": START})["regular"].lost == (
        at(0),
        at(40),
        at(60),
    )
    assert counted(*lines)["regular"].expected == 4


def test_later_marks_than_the_end_are_not_counted() -> None:
    """Otherwise a run that is in progress would count as lost."""
    found = counted(line("regular", 0), line("regular", 20), line("regular", 40), until_s=30)

    assert found["regular"].executed == 2
    assert found["child"].lost == (
        at(0),
        at(20),
    )


def test_each_run_of_a_child_works_for_a_mark_of_its_parent() -> None:
    """One run may work for several marks, as a consumer of several events does."""
    lines = [line("regular", seconds) for seconds in (0, 20, 40)]

    found = counted(*lines, line("child", 0, 20), line("child", 20, region=GREEN))["child"]
    assert (found.executed, found.lost, list(found.twice)) == (2, (at(40),), [at(20)])


def test_a_continuous_dag_must_have_no_gap() -> None:
    """Each run begins where the last one ended, also in the other region."""
    first, second = line("continuous", 3, begin_s=0), line("continuous", 7, begin_s=3, region=GREEN)

    assert counted(first, second)["continuous"] == Marks(executed=2)
    assert counted(first, second, line("continuous", 12, begin_s=9))["continuous"].lost == (at(9),)


def test_a_dag_that_did_not_execute_has_no_marks() -> None:
    """The drill requires that each DAG executes."""
    assert counted() == dict.fromkeys(("regular", "continuous", "child"), Marks(executed=0))


@pytest.mark.parametrize("before_s", [9, 11.5])
def test_the_pause_is_from_the_last_start_to_the_first_start(before_s: float) -> None:
    """For each move. A start in the old region after the promotion would be a task in a standby, and does not count."""
    lines = [
        line("continuous", seconds, region=region, late_s=0, end=False)
        for seconds, region in ((2, BLUE), (before_s, BLUE), (13, BLUE), (18, GREEN), (30, GREEN), (44, BLUE))
    ]
    lines += [line("continuous", 17, region=GREEN, late_s=0), line("regular", 12.5, region=GREEN, end=False)]
    moves = [(at(-30), BLUE), (at(12), GREEN), (at(40), BLUE)]

    assert pauses(lines, "continuous", moves) == [18 - before_s, 14]
