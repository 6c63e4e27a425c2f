"""
Which runs of another site's history a site may write.

Airflow computes a DAG's next run from its newest interval, and a task may look back at the previous run, at the
previous success, or at the last failures. A site must do all of this as if nothing had been imported, also if it
becomes active before the import is complete. So each imported run is older than runs that the site has itself, because
it executed or adopted them: every look-back ends at one of those. A newer run waits until the site has adopted a later
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from airflow_provider_mwaa_dr.core.ledger import AUTOMATED, EVENT_TRIGGERED, LedgerRun, RunStatus, mark_of, triggered_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """
    The newest runs of a DAG that a site has itself: it executed or adopted them, and did not import them.

    All of them have ended, and the site did not end one of them as a standby. The last successes in the ledger count,
    too: the site adopts them before it executes as the active site.

    :param interval: logical date of the newest interval.
    :param mark: when the newest interval was due.
    :param interval_success: logical date of the newest interval that succeeded.
    :param success: logical date of the newest run of any type that succeeded.
    :param event: when the newest run was triggered that events triggered.
    :param partition: partition date of the newest interval that is a partition.
    :param success_due: when the newest run that succeeded was due; Airflow 3.3 counts failures in this order.
    :param has_schedule: whether the DAG is in this site, and Airflow has a next run for it.
    :param counts_failures: whether Airflow pauses the DAG after some failures (``max_consecutive_failed_dag_runs``).
    """

    interval: datetime | None = None
    mark: datetime | None = None
    interval_success: datetime | None = None
    success: datetime | None = None
    event: datetime | None = None
    partition: datetime | None = None
    success_due: datetime | None = None
    has_schedule: bool = False
    counts_failures: bool = False


def waits(run: LedgerRun, bar: Bar) -> bool:
    """Return whether *run*, an ended run of another site, may not be written yet."""
    if run.run_type in EVENT_TRIGGERED and not _is_before(triggered_at(run), bar.event):
        # Airflow gives the next such run the events since the newest one.
        return True
    if run.partition_key is not None and run.run_type in AUTOMATED:
        # Airflow sorts partitions without a date before all others.
        is_older = (
            bar.partition is not None if run.partition_date is None else _is_before(run.partition_date, bar.partition)
        )
        if not is_older:
            return True
    is_success = run.status is RunStatus.SUCCESS
    if bar.counts_failures and not _is_before(run.run_after or mark_of(run), bar.success_due, or_at=is_success):
        return True
    if run.logical_date is None:
        # No look-back reads it, except the count of failures: some databases sort it after all dates.
        return bar.counts_failures
    return _dated_waits(run, run.logical_date, bar)


def _dated_waits(run: LedgerRun, at: datetime, bar: Bar) -> bool:
    has_intervals = bar.interval is not None
    if has_intervals:
        if not (_is_before(at, bar.interval) and _is_before(mark_of(run), bar.mark)):
            return True
    elif run.run_type in AUTOMATED or bar.has_schedule:
        return True
    is_success = run.status is RunStatus.SUCCESS
    if not is_success and not bar.counts_failures:
        return False
    # A run with the date of the last success is that run.
    return not _is_before(at, bar.interval_success if has_intervals else bar.success, or_at=is_success)


def _is_before(at: datetime | None, other: datetime | None, *, or_at: bool = False) -> bool:
    return at is not None and other is not None and (at < other or (or_at and at == other))
