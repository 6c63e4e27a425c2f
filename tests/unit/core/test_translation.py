"""Runs of other versions of Airflow: their ids, the runs that this version has for their marks, and their dates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.ledger import Head, LedgerRun, RunStatus, history, mark_of
from airflow_provider_mwaa_dr.core.ledger import RegionLedger as Ledger
from airflow_provider_mwaa_dr.core.translation import (
    Era,
    as_known_in,
    free_date,
    is_of_other_era,
    original_id,
    own_forms,
    resumed_at,
)

AT = datetime(2026, 11, 29, 10, 20, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
STEP = timedelta(microseconds=1)
OLD, MIDDLE, NEW = Era.AIRFLOW_2, Era.AIRFLOW_3_0, Era.AIRFLOW_3_2


@dataclass(frozen=True)
class Every:
    """A run every minute, with intervals of this length."""

    length: timedelta

    def interval(self, mark: datetime) -> tuple[datetime, datetime]:
        return mark - self.length, mark

    def next_start(self, start: datetime, end: datetime) -> datetime | None:
        return end + MINUTE - self.length


class Continuous:
    """A run begins where the one before ended."""

    def interval(self, mark: datetime) -> tuple[datetime, datetime]:
        return mark, mark

    def next_start(self, start: datetime, end: datetime) -> datetime | None:
        return end


class Once(Continuous):
    """There is no second run."""

    def next_start(self, start: datetime, end: datetime) -> datetime | None:
        return None


INTERVALS, POINTS = Every(MINUTE), Every(timedelta())


def run_of(era: Era, start: datetime = AT, end: datetime = AT + MINUTE, **values: Any) -> LedgerRun:
    """A run as a region of *era* publishes it."""
    run = LedgerRun(
        dag_id="orders",
        run_id="",
        run_type="scheduled",
        status=RunStatus.SUCCESS,
        epoch=1,
        logical_date=start,
        data_interval_start=start,
        data_interval_end=end,
        run_after=None if era is OLD else end,
    )
    return replace(era.named(run), **values)


def the_rest(runs: Any) -> list[tuple[str, datetime | None, datetime | None, datetime | None]]:
    return [(run.run_id, run.logical_date, run.data_interval_start, run.data_interval_end) for run in runs]


@pytest.mark.parametrize(
    ("version", "era"),
    [("2.10.3", OLD), ("2.11.2", OLD), ("3.0.6", MIDDLE), ("3.1.0", MIDDLE), ("3.2.1", NEW), ("3.3.1", NEW),
     ("3.10.0rc1", NEW), ("4.0", NEW), ("simulated", None)],
)  # fmt: skip
def test_a_version_is_of_an_era(version: str, era: Era | None) -> None:
    """Airflow 3.2 was the first that named scheduled runs after their end."""
    assert Era.of(version) is era


def test_one_id_is_two_runs_in_two_eras() -> None:
    """The reason for all of this: the second would be created under the id of the first."""
    assert run_of(NEW).run_id == run_of(OLD, AT + MINUTE, AT + 2 * MINUTE).run_id
    assert run_of(MIDDLE).run_id == run_of(OLD).run_id


def test_a_run_of_a_backfill_has_the_same_id_in_each_version_of_airflow_3() -> None:
    """
    A backfill gives the id itself, after ``run_after``. Before the fix, a region of 3.0 read its own run under another
    id, and executed it twice.
    """
    run = replace(run_of(NEW), run_type="backfill", run_id=f"backfill__{(AT + MINUTE).isoformat()}")
    for era in (MIDDLE, NEW):
        assert era.named(run) == as_known_in(run, era) == run
    assert OLD.named(run).run_id == f"backfill__{AT.isoformat()}"
    assert as_known_in(run, OLD).run_id == f"{run.run_id}__airflow-3"
    assert as_known_in(as_known_in(run, OLD), MIDDLE) == run


@pytest.mark.parametrize("created_in", Era)
@pytest.mark.parametrize("read_in", Era)
@pytest.mark.parametrize("length", [MINUTE, timedelta()])
def test_a_run_has_one_id_in_each_era(created_in: Era, read_in: Era, length: timedelta) -> None:
    """It is the same whether a region reads it from where it was created, or from where it was resumed."""
    run = run_of(created_in, AT - length, AT)
    known = as_known_in(run, read_in)
    assert as_known_in(known, read_in) == known
    if created_in is read_in:
        assert known == run
    for between in Era:
        # A region of Airflow 3 stores when a run is due; a region of Airflow 2 does not.
        there = replace(as_known_in(run, between), run_after=None if between is OLD else AT)
        if is_of_other_era(there):
            assert as_known_in(there, read_in).run_id == known.run_id
    if known != run:
        assert is_of_other_era(known)
        assert original_id(known) == run.run_id


@pytest.mark.parametrize("created_in", Era)
@pytest.mark.parametrize("between", Era)
@pytest.mark.parametrize("read_in", Era)
def test_a_run_that_went_back_to_its_era_has_one_id_everywhere(created_in: Era, between: Era, read_in: Era) -> None:
    """
    A region that resumes its own run publishes what it read in the other region's ledger. Whether the run stores when
    it is due shows its era, and its logical date may be a microsecond later in the other region. Before the fix, a run
    came back with the values of the other region, and counted as a second run.
    """
    for run in (run_of(created_in), run_of(created_in, AT, AT)):
        known = as_known_in(run, between)
        due = None if between is OLD else mark_of(run)
        for at in (AT, AT + STEP):
            resumed = replace(known, run_after=due, logical_date=at)
            if is_of_other_era(resumed):
                back = as_known_in(resumed, created_in)
                assert back == run
                assert as_known_in(back, read_in) == as_known_in(run, read_in)
                assert as_known_in(resumed, between).logical_date == AT


def test_other_runs_keep_their_ids() -> None:
    """Users and events give a run its id; a partition has no logical date; a timetable may name a run by itself."""
    manual = run_of(OLD, run_type="manual", run_id="manual__1")
    partition = run_of(NEW, run_id="scheduled__key", logical_date=None)
    named = run_of(NEW, run_id="by the timetable")
    for run in (manual, partition):
        assert as_known_in(run, OLD) == as_known_in(run, NEW) == run
    assert as_known_in(named, MIDDLE) == as_known_in(named, NEW) == named
    assert as_known_in(named, OLD).run_id == "by the timetable__airflow-3"


@pytest.mark.parametrize("era", Era)
def test_a_run_without_mark_and_logical_date_keeps_its_id(era: Era) -> None:
    """A name of Airflow's own contains one of these times. Without them, there is no such name."""
    run = run_of(OLD, run_id="by hand", logical_date=None, data_interval_start=None, data_interval_end=None)
    assert era.named(run) == run


@pytest.mark.parametrize(
    ("other", "own", "schedule", "length", "lengths"),
    [
        (NEW, OLD, INTERVALS, timedelta(), [MINUTE]),
        (NEW, OLD, INTERVALS, MINUTE, [MINUTE]),
        (NEW, OLD, POINTS, timedelta(), [timedelta()]),
        (OLD, NEW, POINTS, MINUTE, [MINUTE, timedelta()]),
        (OLD, NEW, INTERVALS, MINUTE, [MINUTE]),
        (MIDDLE, NEW, INTERVALS, MINUTE, [MINUTE]),
        (OLD, NEW, Continuous(), MINUTE, [MINUTE]),
        (OLD, NEW, Once(), timedelta(), [timedelta()]),
    ],
)
def test_the_runs_of_this_version_for_the_mark_of_an_ended_run(
    other: Era, own: Era, schedule: Any, length: timedelta, lengths: list[timedelta]
) -> None:
    """The first keeps the interval, if the run of the next mark then has another date. Each has an own id."""
    run = as_known_in(run_of(other, AT - length, AT), own)
    expected = [run_of(own, AT - length, AT) for length in lengths]
    assert the_rest(own_forms(run, schedule, own)) == the_rest(expected)


def test_a_run_that_the_schedule_does_not_allow_has_no_form() -> None:
    """Its mark is no mark of the schedule, or unknown."""

    class Hourly(Every):
        def interval(self, mark: datetime) -> tuple[datetime, datetime]:
            hour = mark.replace(minute=0)
            return hour - timedelta(hours=1), hour

    run = run_of(NEW, AT, AT)
    assert own_forms(run, Hourly(MINUTE), OLD) == []
    assert own_forms(replace(run, logical_date=None, data_interval_end=None), POINTS, OLD) == ()


def test_a_resumed_run_keeps_its_date_unless_another_run_needs_it() -> None:
    """The next mark of Airflow 2 needs the date of a run of Airflow 3, or another run has the date."""
    point, interval = run_of(NEW, AT, AT), run_of(OLD)
    assert resumed_at(point, INTERVALS, set[datetime]().__contains__) == AT + STEP
    assert resumed_at(point, POINTS, set[datetime]().__contains__) == AT
    assert resumed_at(interval, POINTS, set[datetime]().__contains__) == AT
    assert resumed_at(interval, POINTS, {AT, AT + STEP}.__contains__) == AT + 2 * STEP
    assert resumed_at(interval, None, {AT}.__contains__) == AT + STEP
    assert resumed_at(replace(point, logical_date=None), INTERVALS, set[datetime]().__contains__) is None
    assert free_date(AT, {AT}.__contains__) == AT + STEP


def test_the_newest_run_of_a_dag_is_that_of_the_newest_mark() -> None:
    """On Airflow 2, a resumed run may have a later logical date than the run of the next mark."""
    resumed = run_of(OLD, AT, AT, logical_date=AT + STEP)
    following = run_of(OLD)
    assert (mark_of(resumed), mark_of(following)) == (AT, AT + MINUTE)
    for runs in ([resumed, following], [following, resumed]):
        head = Head(dag_id="orders")
        for run in runs:
            head = head.advanced(run)
        assert head.finished == following
    ledgers = [Ledger(heads={"orders": Head(dag_id="orders").advanced(run)}) for run in (resumed, following)]
    assert history(ledgers, ["orders"]) == [following]
