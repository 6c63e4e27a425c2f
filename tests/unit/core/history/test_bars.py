"""Which runs of another site's history a site may write."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.core.history.bars import Bar, waits
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunStatus

AT = datetime(2026, 10, 1, tzinfo=timezone.utc)
FAILED, SUCCESS = RunStatus.FAILED, RunStatus.SUCCESS


def day(number: float) -> datetime:
    return AT + timedelta(days=number)


def run(at: float | None, run_type: str = "scheduled", status: RunStatus = SUCCESS, **values: object) -> LedgerRun:
    date = None if at is None else day(at)
    found = LedgerRun(
        dag_id="d", run_id=f"{run_type}__{at}", run_type=run_type, status=status, epoch=0, logical_date=date,
        run_after=date,
    )  # fmt: skip
    return replace(found, **values)  # type: ignore[arg-type]


BAR = Bar(
    interval=day(5), mark=day(5), interval_success=day(4), success=day(4), success_due=day(4), has_schedule=True,
    event=day(5), partition=day(5),
)  # fmt: skip
STRICT = replace(BAR, counts_failures=True)


@pytest.mark.parametrize(
    ("bar", "of", "expected"),
    [
        # Intervals.
        (BAR, run(3), False),
        (BAR, run(4), False),  # the last success itself
        (BAR, run(4.5), True),  # the previous success of the next run would change
        (BAR, run(4.5, status=FAILED), False),
        (BAR, run(5, status=FAILED), True),
        (BAR, run(6), True),
        (BAR, run(3, data_interval_start=day(3), data_interval_end=day(5)), True),  # due with the newest one
        (Bar(), run(3), True),
        (Bar(has_schedule=True), run(3, "manual", FAILED), True),
        # Failures are counted.
        (STRICT, run(3, status=FAILED), False),
        (STRICT, run(4, status=FAILED), True),
        (STRICT, run(4), False),
        (STRICT, run(3, status=FAILED, run_after=day(4.5)), True),
        (STRICT, run(3, run_after=day(4.5)), True),
        # Manual runs of a DAG without a schedule.
        (Bar(success=day(4)), run(3, "manual"), False),
        (Bar(success=day(4)), run(4, "manual"), False),
        (Bar(success=day(4)), run(5, "manual"), True),
        (Bar(success=day(4)), run(5, "manual", FAILED), False),
        (Bar(success=day(4), success_due=day(4), counts_failures=True), run(5, "manual", FAILED), True),
        (Bar(), run(3, "manual"), True),
        # Runs without a date.
        (Bar(), run(None, "manual", run_after=day(9)), False),
        (STRICT, run(None, "manual", run_after=day(1)), True),
        # Runs that events triggered.
        (BAR, run(None, "asset_triggered", run_after=day(4)), False),
        (BAR, run(None, "asset_triggered", run_after=day(5)), True),
        (Bar(), run(None, "asset_triggered", run_after=day(5)), True),
        (BAR, run(6, "dataset_triggered"), True),
        # Partitions.
        (BAR, run(None, partition_key="k", partition_date=day(4)), False),
        (BAR, run(None, partition_key="k", partition_date=day(5)), True),
        (Bar(), run(None, partition_key="k", partition_date=day(4)), True),
        (BAR, run(None, partition_key="k"), False),
        (Bar(), run(None, partition_key="k"), True),
    ],
)
def test_which_runs_wait(bar: Bar, of: LedgerRun, expected: bool) -> None:
    """A run is written if no next run and no look-back changes."""
    assert waits(of, bar) is expected


DAYS = st.integers(0, 12)
RUNS = st.lists(
    st.tuples(DAYS, st.sampled_from(["scheduled", "backfill", "manual"]), st.sampled_from([SUCCESS, FAILED])),
    unique_by=lambda each: each[0],
)


@given(own=RUNS, theirs=RUNS, next_at=DAYS)
def test_no_later_run_looks_back_at_an_imported_one(
    own: list[tuple[int, str, RunStatus]], theirs: list[tuple[int, str, RunStatus]], next_at: int
) -> None:
    """The newest interval, the previous run, the previous success, and the failures since it: always one of the own."""
    ours = [run(at, run_type, status) for at, run_type, status in own]
    taken = {each.logical_date for each in ours}
    intervals = [each for each in ours if each.run_type != "manual"]
    if not intervals:
        return

    def newest(runs: list[LedgerRun]) -> datetime | None:
        return max((each.logical_date for each in runs if each.logical_date is not None), default=None)

    def successes(runs: list[LedgerRun]) -> list[LedgerRun]:
        return [each for each in runs if each.status is SUCCESS]

    bar = Bar(
        interval=newest(intervals), mark=newest(intervals), interval_success=newest(successes(intervals)),
        success=newest(successes(ours)), success_due=newest(successes(ours)), has_schedule=True, counts_failures=True,
    )  # fmt: skip
    imported = [
        each
        for each in (run(at, run_type, status) for at, run_type, status in theirs)
        if each.logical_date not in taken and not waits(each, bar)
    ]
    everything = [*ours, *imported]
    later = max(newest(intervals) or AT, day(next_at)) + timedelta(hours=1)

    def before(runs: list[LedgerRun]) -> datetime | None:
        return newest([each for each in runs if each.logical_date is not None and each.logical_date < later])

    assert newest([each for each in everything if each.run_type != "manual"]) == newest(intervals)
    assert before(everything) == before(ours)
    assert before(successes(everything)) == before(successes(ours))

    def failures_since(runs: list[LedgerRun]) -> int:
        last = newest(successes(runs)) or AT - timedelta(days=1)
        return sum(each.logical_date is not None and each.logical_date > last for each in runs)

    assert failures_since(everything) == failures_since(ours)
