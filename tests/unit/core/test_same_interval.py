"""Two runs of one interval: a region finishes one of them, and no region runs the other."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_mwaa_dr.core.ledger import (
    LedgerRun,
    LogEntry,
    RegionLedger,
    RunStatus,
    finished_by_others,
    is_known_elsewhere,
    is_same_interval,
    no_longer_needed,
    unfinished_runs,
)

AT = datetime(2026, 11, 29, 10, 20, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


def run(run_id: str = "scheduled__10:20", run_type: str = "scheduled", **values: object) -> LedgerRun:
    """The run of an interval; by default it ended."""
    found = LedgerRun(
        dag_id="orders",
        run_id=run_id,
        run_type=run_type,
        status=RunStatus.SUCCESS,
        epoch=1,
        logical_date=AT,
        data_interval_start=AT,
        data_interval_end=AT + MINUTE,
    )
    return replace(found, **values)  # type: ignore[arg-type]


def partition(run_id: str, key: str = "2026-11-29", **values: object) -> LedgerRun:
    """The run of a partition, whose id has a random part."""
    dates = {"logical_date": None, "data_interval_start": None, "data_interval_end": None}
    return run(run_id, partition_key=key, **{**dates, **values})


def ledger(*runs: LedgerRun, complete_before: int | None = None) -> RegionLedger:
    """A region's ledger with these runs. Ended ones are retained for other regions."""
    found = RegionLedger()
    kept = tuple(replace(each, retained_for_peers=each.has_ended) for each in runs)
    found.apply([LogEntry(number=1, at=AT, epoch=1, first_id=0, newest_id=0, runs=kept)])
    found.complete_before = complete_before
    return found


def interrupted(found: LedgerRun, **values: object) -> LedgerRun:
    return replace(found, status=RunStatus.INTERRUPTED, epoch=0, **values)  # type: ignore[arg-type]


THE_RUN = run()
FOREIGN = run("scheduled__10:21__airflow-3.2", logical_date=AT + MINUTE, data_interval_start=AT + MINUTE)
HELD = run("manual__1", "manual", holds_date=True)


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        pytest.param(THE_RUN, True, id="itself"),
        pytest.param(replace(THE_RUN, dag_id="invoices"), False, id="of another DAG"),
        pytest.param(run("backfill__10:20", "backfill"), True, id="of a backfill"),
        pytest.param(HELD, True, id="requested for its date"),
        pytest.param(replace(HELD, holds_date=False), False, id="requested at that time"),
        pytest.param(run("scheduled__10:21", logical_date=AT + MINUTE), False, id="with another date"),
        pytest.param(run("manual__2", "manual", logical_date=None), False, id="without a date"),
        pytest.param(FOREIGN, True, id="of another era, with the same mark"),
        pytest.param(replace(FOREIGN, data_interval_end=AT), False, id="of another era, with another mark"),
        pytest.param(partition("scheduled__1"), False, id="of a partition"),
    ],
)
def test_two_runs_are_of_one_interval_if_no_region_may_execute_both(other: LedgerRun, is_same: bool) -> None:
    """This is Airflow's rule for a date that is taken, and it holds for the mark between two eras."""
    assert is_same_interval(THE_RUN, other) is is_same
    assert is_same_interval(other, THE_RUN) is is_same


def test_a_date_of_another_era_is_the_same_only_together_with_its_mark() -> None:
    """A user requested a run for it. The date alone may be that of another mark."""
    foreign = replace(FOREIGN, logical_date=AT)
    assert is_same_interval(HELD, foreign)
    assert not is_same_interval(HELD, FOREIGN)


def test_two_runs_are_of_one_partition_if_they_are_scheduled_or_of_a_backfill() -> None:
    """The scheduler creates a partition although a user has requested it."""
    first = partition("scheduled__1")
    assert is_same_interval(first, partition("backfill__2", run_type="backfill"))
    assert not is_same_interval(first, partition("scheduled__2", "2026-11-30"))
    assert not is_same_interval(first, partition("manual__1", run_type="manual"))


@pytest.mark.parametrize("theirs", [partition("scheduled__2"), partition("scheduled__2", status=RunStatus.OPEN)])
def test_a_partition_that_another_region_has_under_another_id_is_not_resumed(theirs: LedgerRun) -> None:
    """Before the fix, both of them executed: the second one when the role came back."""
    own = ledger(interrupted(partition("scheduled__1")))
    other = ledger(theirs)
    expected = [] if theirs.has_ended else [theirs.key]
    assert [*unfinished_runs([own, other])] == [*unfinished_runs([other, own])] == expected
    assert finished_by_others(own, [other]) == ([partition("scheduled__1")] if theirs.has_ended else [])


def test_an_interval_that_one_ledger_has_twice_is_finished_with_its_last_run() -> None:
    """
    A region took over the run that a standby had created for an interval of its own. Before the fix, its first run was
    unfinished again as soon as no other region needed the last one.
    """
    last = run("scheduled__10:20__airflow-2", epoch=3)
    first = interrupted(THE_RUN)
    own, other = ledger(first, last), ledger(complete_before=4)
    assert finished_by_others(own, [other]) == [replace(first, status=RunStatus.SUCCESS, epoch=3)]
    assert no_longer_needed(own, [other]) == []
    del own.runs[first.key]
    assert [each.key for each in no_longer_needed(own, [other])] == [last.key]


def test_a_run_that_began_again_in_the_epoch_in_which_its_interval_ended_is_not_finished() -> None:
    """A user cleared the other run of the interval."""
    again = run(status=RunStatus.OPEN, epoch=3)
    assert finished_by_others(ledger(again, run("scheduled__10:20__airflow-2", epoch=3)), []) == []


def test_one_of_two_interrupted_runs_of_an_interval_is_resumed() -> None:
    """The same one in each region, also within one epoch."""
    first, second = interrupted(HELD), interrupted(THE_RUN)
    assert [*unfinished_runs([ledger(first), ledger(second)])] == [*unfinished_runs([ledger(second), ledger(first)])]


def test_an_end_under_an_earlier_epoch_does_not_end_the_run() -> None:
    """A user cleared it since."""
    again = run("scheduled__1", status=RunStatus.OPEN, epoch=2)
    assert [*unfinished_runs([ledger(again), ledger(HELD)])] == [again.key]
    assert finished_by_others(ledger(again), [ledger(HELD)]) == []


def test_a_run_is_retained_while_another_region_lists_its_interval() -> None:
    """Otherwise that region could not read that the interval is done."""
    own = ledger(HELD)
    waiting = ledger(interrupted(THE_RUN), complete_before=1)
    assert is_known_elsewhere(HELD, [waiting])
    assert not is_known_elsewhere(run("scheduled__10:21", logical_date=AT + MINUTE), [waiting])
    assert no_longer_needed(own, [waiting]) == []
    waiting.runs.clear()
    assert [each.key for each in no_longer_needed(own, [waiting])] == [HELD.key]
