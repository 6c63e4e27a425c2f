"""
Runs of another version of Airflow, in the terms of this one.

Versions of Airflow differ in two ways, which concern runs of the types :data:`.ledger.AUTOMATED`:

- The same schedule may give a run another interval. A cron string or a ``timedelta`` makes intervals on Airflow 2. On
  Airflow 3, it makes runs whose interval has no length. The run that is due at 10:21 has the logical date 10:20 on
  Airflow 2, and 10:21 on Airflow 3. That time, 10:21, is the *mark* of the run in both.
- Versions before 3.2 name a scheduled run after its logical date, later versions name it after its mark. So one id can
  be two different runs. Airflow 3 names a run of a backfill after its mark, Airflow 2 after its logical date.

An :class:`Era` is a range of versions without such a difference. :func:`as_known_in` keeps the ids of different eras
apart. :func:`own_forms` returns the runs that this version may have for the mark of an ended run. :func:`resumed_at`
returns the logical date of a run that this region resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Protocol

from airflow_provider_mwaa_dr.core.ledger import AUTOMATED, ORIGIN, SCHEDULED, LedgerRun, mark_of

_STEP = timedelta(microseconds=1)


class Era(str, Enum):
    """Versions of Airflow that agree about ids and intervals; the value is the first of them."""

    AIRFLOW_2 = "2"
    AIRFLOW_3_0 = "3.0"
    AIRFLOW_3_2 = "3.2"

    @classmethod
    def of(cls, airflow_version: str) -> Era | None:
        """Return the era of a version; None if the text is no version."""
        parts = airflow_version.split(".")
        if not all(part.isdigit() for part in parts[:2]):
            return None
        if parts[0] == "2":
            return cls.AIRFLOW_2
        return cls.AIRFLOW_3_0 if parts[:2] in (["3", "0"], ["3", "1"]) else cls.AIRFLOW_3_2

    def named(self, run: LedgerRun) -> LedgerRun:
        """Return *run* with the id that Airflow gives it in this era."""
        is_scheduled_in_3_0 = self is Era.AIRFLOW_3_0 and run.run_type == SCHEDULED
        is_named_after_date = self is Era.AIRFLOW_2 or is_scheduled_in_3_0
        at = run.logical_date if is_named_after_date else mark_of(run)
        if at is None:
            return run
        return replace(run, run_id=f"{run.run_type}__{at.astimezone(timezone.utc).isoformat()}")


class Schedule(Protocol):
    """The timetable of a DAG in this region. Times are aware."""

    def interval(self, mark: datetime) -> tuple[datetime, datetime]:
        """Return start and end of the interval of a run that is due at *mark*."""

    def next_start(self, start: datetime, end: datetime) -> datetime | None:
        """Return the start of the interval after this one; None if there is none."""


def as_known_in(run: LedgerRun, era: Era) -> LedgerRun:
    """
    Return *run*, as the ledger of another region has it, with its id in regions of *era*.

    A run that was created in another era has this era at the end of its id. So it has the same id in all regions of
    *era*, and no scheduler there creates a run with this id. A run that was created in *era* has the id that it was
    created with, also if a region of another era resumed it.
    """
    if run.run_type not in AUTOMATED or run.logical_date is None:
        return run
    run_id, found, origin = run.run_id.rpartition(ORIGIN)
    if found:
        # The region that resumed it may have given it a later date: see resumed_at. A timetable gives the start.
        run = replace(run, logical_date=run.data_interval_start or run.logical_date)
    if found and era.value.startswith(origin):
        # As it was created: only Airflow 3 stores when a run is due.
        due = None if era is Era.AIRFLOW_2 else run.run_after or mark_of(run)
        return replace(run, run_id=run_id, run_after=due)
    if found:
        return run
    origins = _origins(run)
    if era in origins or (not origins and era is not Era.AIRFLOW_2):
        return run
    # An id that both eras of Airflow 3 give is an own id in each of them.
    origin = origins[0].value if len(origins) == 1 else "3"
    return replace(run, run_id=f"{run.run_id}{ORIGIN}{origin}")


def _origins(run: LedgerRun) -> Sequence[Era]:
    """Return the eras that may have given the run its id; empty if a timetable of Airflow 3 has given it."""
    if run.run_after is None:
        return [Era.AIRFLOW_2]
    return [era for era in (Era.AIRFLOW_3_0, Era.AIRFLOW_3_2) if era.named(run).run_id == run.run_id]


def is_of_other_era(run: LedgerRun) -> bool:
    """Whether a run that :func:`as_known_in` returned was created in another era."""
    return run.run_type in AUTOMATED and ORIGIN in run.run_id


def original_id(run: LedgerRun) -> str:
    """Return the id that a run of another era was created with."""
    return run.run_id.rpartition(ORIGIN)[0]


def own_forms(run: LedgerRun, schedule: Schedule, era: Era) -> Sequence[LedgerRun]:
    """
    Return the runs that this region of *era* may have for the mark of *run*. The best is the first.

    After each of them, the scheduler creates the run of the next mark, with another id and another logical date. The
    first keeps logical date and interval, as after an upgrade of Airflow in place, if the schedule allows it. The last
    has those of the schedule itself. Empty: the schedule allows none.

    :param run: an ended run of another era, with a logical date.
    """
    mark = mark_of(run)
    at, start, end = run.logical_date, run.data_interval_start, run.data_interval_end
    if mark is None or at is None:
        return ()
    intervals = [] if start is None or end is None else [(at, start, end)]
    own_start, own_end = schedule.interval(mark)
    if own_end == mark and own_start != at:
        intervals.append((own_start, own_start, own_end))
    return [
        era.named(replace(run, logical_date=at, data_interval_start=start, data_interval_end=end))
        for at, start, end in intervals
        if schedule.next_start(start, end) != at
    ]


def resumed_at(run: LedgerRun, schedule: Schedule | None, is_taken: Callable[[datetime], bool]) -> datetime | None:
    """
    Return the logical date with which this region resumes a run of another era.

    It is the run's own. But a database has one run for each logical date of a DAG. If another run has this date, or the
    run of the next mark needs it, the date is the first free microsecond after it.

    :param schedule: None if this region does not have the DAG, or cannot read its schedule.
    """
    at, start, end = run.logical_date, run.data_interval_start, run.data_interval_end
    if at is None:
        return None
    needs = schedule.next_start(start, end) if schedule is not None and start is not None and end is not None else None
    return free_date(at + _STEP if needs == at else at, is_taken)


def free_date(at: datetime, is_taken: Callable[[datetime], bool]) -> datetime:
    """Return the first date from *at* on that no run has."""
    while is_taken(at):
        at += _STEP
    return at
