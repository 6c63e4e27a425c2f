"""
The scheduler of the simulation of all kinds of runs follows the timetables of the installed Airflow.

tests/simulation/airflow_rule.py counts in seconds, and its marks are seconds apart. Here, each second is a minute,
because a cron string has minutes.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.translation import Era
from tests.simulation.airflow_rule import START, RunInfo, Timetable, manual_interval, next_run

EVERY = (12, 15, 20, 30)


@pytest.fixture
def era() -> Era:
    from airflow import __version__

    found = Era.of(__version__)
    assert found is not None
    return found


def date(at: float) -> datetime:
    return START + timedelta(minutes=at)


def number(at: datetime | None) -> float | None:
    return None if at is None else (at.timestamp() - START.timestamp()) / 60


def set_time(patch: pytest.MonkeyPatch, now: datetime) -> None:
    """Let the timetables take *now* for the present time."""
    from airflow.timetables import interval, trigger
    from airflow.utils import timezone

    for module in (interval, trigger):
        for each in (module, getattr(module, "timezone", timezone)):
            if hasattr(each, "utcnow"):
                patch.setattr(each, "utcnow", lambda: timezone.coerce_datetime(now))


def timetable_of(kind: Timetable, every: int) -> Any:
    """Return Airflow's timetable of a schedule; a cron string as the DAG's ``schedule``."""
    expression = f"*/{every} * * * *"
    if kind is Timetable.INTERVAL:
        from airflow.timetables.interval import CronDataIntervalTimetable

        return CronDataIntervalTimetable(expression, timezone="UTC")
    if kind is Timetable.PARTITION:
        trigger = pytest.importorskip("airflow.timetables.trigger")
        if not hasattr(trigger, "CronPartitionTimetable"):
            pytest.skip("Airflow 3.2 and later have partitions")
        return trigger.CronPartitionTimetable(expression, timezone="UTC")
    from airflow import DAG

    found = DAG("orders", schedule=expression, start_date=START).timetable
    if hasattr(found, "next_dagrun_info"):
        return found
    # From 3.2 on, the scheduler's class has the same name as that of the DAG's file.
    from airflow.timetables import interval, trigger

    name = type(found).__name__
    return (getattr(trigger, name, None) or getattr(interval, name))(expression, timezone="UTC")


def info_of(found: Any) -> RunInfo:
    """Return what Airflow creates next, in minutes after START."""
    interval = found.data_interval
    due = number(found.run_after)
    assert due is not None
    start, end = (None, None) if interval is None else (number(interval.start), number(interval.end))
    return RunInfo(start, start, end, due, number(getattr(found, "partition_date", None)))


def next_of(timetable: Any, last: RunInfo | None, *, catchup: bool, first: float) -> RunInfo:
    """Ask Airflow's timetable for the run after *last*, as ``calculate_dagrun_date_fields`` does."""
    from airflow.timetables.base import DataInterval, TimeRestriction
    from airflow.utils.timezone import coerce_datetime

    restriction = TimeRestriction(coerce_datetime(date(first)), None, catchup)
    interval = None
    if last is not None and last.start is not None and last.end is not None:
        interval = DataInterval(coerce_datetime(date(last.start)), coerce_datetime(date(last.end)))
    if hasattr(timetable, "next_dagrun_info_v2"):
        before = None
        if last is not None:
            run = SimpleNamespace(
                run_after=date(last.due), data_interval=interval, partition_date=None, partition_key=None
            )
            before = SimpleNamespace(**{**vars(run), "run_after": coerce_datetime(run.run_after)})
        return info_of(timetable.next_dagrun_info_v2(last_dagrun_info=before, restriction=restriction))
    return info_of(timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction))


@pytest.mark.parametrize("kind", Timetable)
@pytest.mark.parametrize("catchup", [True, False])
def test_the_simulated_scheduler_follows_the_timetable(
    era: Era, kind: Timetable, catchup: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chains of runs at random times, also after runs of another version, whose intervals have no length."""
    from airflow import __version__

    rng = random.Random(17)
    for every in EVERY:
        timetable = timetable_of(kind, every)
        for _ in range(25):
            first = rng.choice([0.0, -10.0 * every])
            last = None
            now = rng.choice([rng.uniform(first, 300), 60.0, 120.0])
            # 3.2 proposes the same date again after such a run. The simulated scheduler is that of 3.3.
            if rng.random() < 0.3 and kind is Timetable.INTERVAL and not __version__.startswith("3.2."):
                last = RunInfo(60, 60, 60, 60)
            for _ in range(4):
                with monkeypatch.context() as patch:
                    set_time(patch, date(now))
                    expected = next_of(timetable, last, catchup=catchup, first=first)
                found = next_run(kind, era, every, last, now=now, catchup=catchup, first=first)
                assert found == expected, f"after {last} at {now}, every {every}"
                last, now = found, now + rng.uniform(0, 2 * every)


@pytest.mark.parametrize("kind", [Timetable.CRON, Timetable.INTERVAL])
def test_a_run_with_a_date_gets_the_interval_of_the_timetable(era: Era, kind: Timetable) -> None:
    """A user requests it for a logical date."""
    from airflow.utils.timezone import coerce_datetime

    for every in EVERY:
        timetable = timetable_of(kind, every)
        for at in (0.0, 60.0, 120.0):
            found = timetable.infer_manual_data_interval(run_after=coerce_datetime(date(at)))
            assert (number(found.start), number(found.end)) == manual_interval(kind, era, every, at)
