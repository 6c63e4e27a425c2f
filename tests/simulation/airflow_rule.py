"""
Airflow's rule for the next run of a DAG, and for the names of runs, as a function of times in seconds.

This is the scheduler of the simulation of all kinds of runs (kinds.py). It is written after Airflow's source, not after
the provider's. tests/airflow/test_simulated_rule.py compares it with the timetables of each version. The functions:

- ``timetables/interval.py _DataIntervalTimetable.next_dagrun_info`` and ``_skip_to_latest``: :func:`_next_interval`;
- ``timetables/trigger.py _TriggerTimetable.next_dagrun_info``: :func:`_next_trigger`;
- ``timetables/trigger.py CronPartitionTimetable.next_dagrun_info_v2``: the same, for partitions (3.2 and later);
- ``timetables/base.py Timetable.generate_run_id``, and the scheduler's and the backfill's call of it: :func:`run_id`.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import cache
from typing import NamedTuple

from airflow_provider_mwaa_dr.core.translation import Era

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Timetable(str, Enum):
    """
    Schedules. A cron string makes intervals on Airflow 2, and runs without a length on Airflow 3
    (``[scheduler] create_cron_data_intervals``).
    """

    CRON = "a cron string"
    INTERVAL = "CronDataIntervalTimetable"
    PARTITION = "CronPartitionTimetable"

    def has_intervals(self, era: Era) -> bool:
        """Whether its runs have data intervals that last until the next run."""
        return self is Timetable.INTERVAL or (self is Timetable.CRON and era is Era.AIRFLOW_2)


class RunInfo(NamedTuple):
    """
    Airflow's DagRunInfo, in seconds after START.

    ``at`` is the logical date, ``start`` and ``end`` are the data interval. ``due`` is ``run_after``. A partition has
    only ``due`` and its date.
    """

    at: float | None
    start: float | None
    end: float | None
    due: float
    partition: float | None = None


def align_to_prev(at: float, every: float) -> float:
    return math.floor(at / every) * every


def align_to_next(at: float, every: float) -> float:
    return math.ceil(at / every) * every


def next_run(
    timetable: Timetable, era: Era, every: float, last: RunInfo | None, *, now: float, catchup: bool, first: float
) -> RunInfo:
    """
    Return what the scheduler creates next.

    :param first: the DAG's start date, at a mark.
    :param last: the newest run of the types scheduled and backfill; None if there is none.
    :param now: the time of the scheduler's host.
    """
    if timetable.has_intervals(era):
        return _next_interval(era, every, last, now=now, catchup=catchup, first=first)
    due = _next_trigger(timetable, every, last, now=now, catchup=catchup, first=first)
    if timetable is Timetable.PARTITION:
        return RunInfo(None, None, None, due, due)
    return RunInfo(due, due, due, due)


def _next_interval(era: Era, every: float, last: RunInfo | None, *, now: float, catchup: bool, first: float) -> RunInfo:
    earliest = first
    if not catchup:
        # _skip_to_latest
        last_start = align_to_next(now, every) - every
        latest = last_start if last_start + every == now else last_start - every
        earliest = max(latest, first)
    if last is None or last.end is None:
        start = earliest
    else:
        start = max(align_to_prev(last.end, every), earliest)
        if era is Era.AIRFLOW_3_2 and last.start == last.end and start == last.start:
            start += every  # 3.3: the last run had no length
    return RunInfo(start, start, start + every, start + every)


def _next_trigger(
    timetable: Timetable, every: float, last: RunInfo | None, *, now: float, catchup: bool, first: float
) -> float:
    known = []
    if last is not None:
        before = last.due if timetable is Timetable.PARTITION else last.end
        known = [] if before is None else [align_to_prev(before, every) + every]
    if catchup:
        return known[0] if known else first
    return max([align_to_prev(now, every), *known, first])


def manual_interval(timetable: Timetable, era: Era, every: float, at: float) -> tuple[float, float]:
    """Return the interval of a run that a user requests for a logical date (``infer_manual_data_interval``)."""
    if timetable.has_intervals(era):
        end = align_to_prev(at, every)
        return end - every, end
    return at, at


@cache
def isoformat(at: float) -> str:
    return (START + timedelta(seconds=at)).isoformat()


def run_id(run_type: str, info: RunInfo, era: Era, number: int) -> str:
    """
    Return the id of a run that Airflow creates.

    Airflow 2 names each run after its logical date. From 3.0 on, ``generate_run_id`` takes ``run_after``. The scheduler
    of 3.0 and 3.1 passes the logical date to it, a backfill passes ``run_after``. The id of a partition is random.

    :param number: instead of the random part.
    """
    if info.partition is not None:
        return f"{run_type}__{isoformat(info.due)}__{isoformat(info.partition)}__{number}"
    is_dated = era is Era.AIRFLOW_2 or (era is Era.AIRFLOW_3_0 and run_type == "scheduled")
    return f"{run_type}__{isoformat(info.at if is_dated and info.at is not None else info.due)}"
