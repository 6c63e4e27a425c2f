"""The state that a region's log results in, and the history that other regions adopt from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from airflow_provider_mwaa_dr.core.ledger import (
    Head,
    LedgerRun,
    LogEntry,
    RegionLedger,
    RunStatus,
    history,
    is_complete,
    last_successes,
    results,
)

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
TASKS = (("one", -1, "success"),)


def run(day: int, status: RunStatus = RunStatus.SUCCESS, run_type: str = "scheduled", **values: object) -> LedgerRun:
    made = LedgerRun(
        dag_id="orders",
        run_id=f"{run_type}__{day}",
        run_type=run_type,
        status=status,
        epoch=1,
        logical_date=AT + timedelta(days=day),
    )
    return replace(made, **values)  # type: ignore[arg-type]


def ledger(*runs: LedgerRun) -> RegionLedger:
    result = RegionLedger()
    result.apply([LogEntry(number=1, at=AT, epoch=1, first_id=0, newest_id=0, runs=runs)])
    return result


def test_a_head_keeps_the_newest_of_each_kind_that_the_next_run_depends_on() -> None:
    """The newest scheduled run always counts. Of other types, only ended runs with tasks and a logical date count."""
    head = Head(dag_id="orders")
    for each in (
        run(2),
        run(1, tasks=TASKS),
        run(4, run_type="manual", tasks=TASKS),
        run(3, run_type="manual", tasks=TASKS),
        run(5, run_type="manual"),
        run(6, RunStatus.OPEN, "manual", tasks=TASKS),
        run(7, RunStatus.GONE, "manual", tasks=TASKS),
        run(8, run_type="asset_triggered", tasks=TASKS, logical_date=None),
        run(9, RunStatus.FAILED, "operator_triggered", tasks=TASKS),
    ):
        head = head.advanced(each)
    assert head.finished == run(2)
    assert head.others == (
        run(4, run_type="manual", tasks=TASKS),
        run(9, RunStatus.FAILED, "operator_triggered", tasks=TASKS),
    )
    later = run(4, RunStatus.FAILED, "manual", tasks=TASKS, epoch=2)
    assert later in head.advanced(later).others
    assert len(head.advanced(later).others) == 2


def test_a_head_keeps_the_newest_ended_run_that_events_triggered() -> None:
    """Airflow gives the next such run later events only. The conf is not needed for that."""
    head = Head(dag_id="orders")

    def triggered(day: int, status: RunStatus = RunStatus.SUCCESS, **values: object) -> LedgerRun:
        at = AT + timedelta(days=day)
        return run(day, status, "asset_triggered", **{"logical_date": None, "run_after": at, **values})

    newest = triggered(3, conf="{}")
    for each in (triggered(1), newest, triggered(2), triggered(4, RunStatus.OPEN), triggered(5, run_after=None)):
        head = head.advanced(each)
    assert head.triggered == replace(newest, conf=None)
    assert head.has(newest)
    dataset = run(6, RunStatus.FAILED, "dataset_triggered", tasks=TASKS)
    assert head.advanced(dataset).triggered == dataset
    one, other = RegionLedger(), RegionLedger()
    one.heads["orders"], other.heads["orders"] = head, Head(dag_id="orders").advanced(triggered(1))
    assert history([other, one], ["orders"]) == [replace(newest, conf=None)]
    one.heads["orders"] = head.advanced(dataset)
    assert history([other, one], ["orders"]) == [dataset], "it is in two places of the head"


def test_a_head_knows_whether_a_run_is_newer_than_what_it_has() -> None:
    """The epoch decides, for the scheduled run and for runs of other types."""
    head = Head(dag_id="orders").advanced(run(2, epoch=3)).advanced(run(3, run_type="manual", tasks=TASKS, epoch=3))
    assert head.has(run(2, epoch=3))
    assert head.has(run(3, run_type="manual"))
    assert not head.has(run(2, epoch=4))
    assert not head.has(run(1))


def test_the_history_takes_the_newer_epoch_of_a_run_and_other_types_only_if_newer_than_the_interval() -> None:
    """The result does not depend on the order of the regions."""
    first = ledger(
        run(2, RunStatus.FAILED),
        run(1, run_type="manual", tasks=TASKS),
        run(3, run_type="operator_triggered", tasks=TASKS),
    )
    second = ledger(run(2, epoch=2), run(3, run_type="operator_triggered", tasks=TASKS, epoch=2))
    expected = [run(2, epoch=2), run(3, run_type="operator_triggered", tasks=TASKS, epoch=2)]
    for regions in ([first, second], [second, first]):
        assert history(regions, ["orders", "unknown"]) == expected
    assert history([ledger(run(5, run_type="manual", tasks=TASKS))], ["orders"]) == [
        run(5, run_type="manual", tasks=TASKS)
    ]


def test_the_newest_interval_is_a_scheduled_run_or_a_run_of_a_backfill() -> None:
    """This is Airflow's rule for the next run of a DAG."""
    head = Head(dag_id="orders")
    for each in (
        run(3),
        run(5, run_type="backfill"),
        run(4),
        run(6, RunStatus.OPEN, "backfill"),
        run(9, run_type="manual"),
    ):
        head = head.advanced(each)
    assert head.finished == run(5, run_type="backfill")
    assert head.created == AT + timedelta(days=6)


def holder(day: int, **values: object) -> LedgerRun:
    """A manual run with the date of an interval."""
    return run(day, run_type="manual", holds_date=True, **values)


def test_a_head_keeps_the_runs_of_other_types_that_hold_a_date_after_the_newest_interval() -> None:
    """The scheduler passes over each of them. Unfinished runs are in the ledger already."""
    head = Head(dag_id="orders")
    for each in (
        holder(4),
        run(2),
        holder(1),
        holder(3, tasks=TASKS),
        holder(5, status=RunStatus.OPEN),
        run(7, run_type="manual"),
    ):
        head = head.advanced(each)
    assert head.dated == (holder(3), holder(4))
    assert head.others == (holder(3, tasks=TASKS),)
    assert head.has(holder(4))
    again = holder(4, status=RunStatus.FAILED, epoch=2, conf="{}")
    assert head.advanced(again).dated == (holder(3), again)
    assert head.advanced(run(3)).dated == (holder(4),)
    assert head.advanced(run(8)).dated == ()


def test_a_head_keeps_a_limited_number_of_dates_and_no_long_conf() -> None:
    """The newest dates stay."""
    head = Head(dag_id="orders")
    for day in range(150):
        head = head.advanced(holder(day, conf='"' + 100 * day * "x" + '"'))
    assert [each.run_id for each in head.dated] == [f"manual__{day}" for day in range(50, 150)]
    assert head.dated[-1].conf is None


def test_the_history_has_the_dates_after_the_newest_interval_of_all_regions() -> None:
    """A run that is also needed for its tasks is adopted once, with its tasks."""
    first, second = ledger(holder(2), holder(6), holder(7, tasks=TASKS)), ledger(run(5))
    for regions in ([first, second], [second, first]):
        assert history(regions, ["orders"]) == [run(5), holder(7, tasks=TASKS), holder(6)]


def partition(day: int, status: RunStatus = RunStatus.SUCCESS, region: str = "a", **values: object) -> LedgerRun:
    """A scheduled run of a partition; its run id differs between regions."""
    at = AT + timedelta(days=day)
    key = {"partition_key": f"{at:%Y-%m-%d}", "partition_date": at, "logical_date": None}
    return run(day, status, **{"run_id": f"scheduled__{day}__{region}", **key, **values})


def test_a_head_keeps_the_newest_partition_by_its_date() -> None:
    """A partition without a date is not newer than any; a manual run of a partition is no interval."""
    head = Head(dag_id="orders")
    manual = partition(9, run_type="manual")
    for each in (partition(2), partition(1), partition(4, RunStatus.OPEN), manual, partition(8, partition_date=None)):
        head = head.advanced(each)
    assert head == Head(dag_id="orders", partition=partition(2), partition_created=AT + timedelta(days=4))
    assert head.has(partition(2))
    assert not head.has(partition(4))
    with_both = partition(3, logical_date=AT)
    assert (head.advanced(with_both).partition, head.advanced(with_both).finished) == (with_both, with_both)
    assert history([ledger(with_both)], ["orders"]) == [with_both]
    backfilled = partition(5, run_type="backfill")
    assert head.advanced(backfilled).partition == backfilled


def test_the_history_has_the_newest_partition_of_all_regions() -> None:
    """Beside the newest interval that has a logical date, in case the DAG's schedule has changed."""
    first, second = ledger(run(1), partition(3), partition(6, RunStatus.OPEN)), ledger(partition(4))
    for regions in ([first, second], [second, first]):
        assert history(regions, ["orders"]) == [run(1), partition(4)]


FAILED = RunStatus.FAILED


def test_a_head_keeps_the_last_success_although_later_runs_failed() -> None:
    """The newest interval, and a newer run of another type: the next run may look back at either of them."""
    head = Head(dag_id="orders")
    for each in (run(1), run(2, conf='"' + 6_000 * "x" + '"', tasks=TASKS), run(3, FAILED), run(4, RunStatus.OPEN)):
        head = head.advanced(each)
    assert head.finished == run(3, FAILED)
    assert head.succeeded == (run(2),), "without its conf and tasks, which no later run reads"
    manual = run(5, run_type="manual")
    head = (
        head.advanced(run(1, run_type="manual")).advanced(manual).advanced(run(9, run_type="manual", logical_date=None))
    )
    assert head.succeeded == (manual, run(2))
    assert head.last_successes == (manual, run(2))
    assert head.advanced(run(6)).succeeded == ()
    assert head.advanced(run(6)).last_successes == (run(6),)


def test_a_run_that_is_cleared_and_fails_is_no_success_any_longer() -> None:
    """It is not known which run was the success before it."""
    head = Head(dag_id="orders").advanced(run(1)).advanced(run(2)).advanced(run(2, FAILED, epoch=2))
    assert head.succeeded == ()
    head = Head(dag_id="orders").advanced(run(1)).advanced(run(2, FAILED)).advanced(run(1, FAILED, epoch=2))
    assert head.succeeded == ()


def test_a_success_alone_is_no_news_for_a_standby() -> None:
    """A standby adopts the last intervals at once, and the last successes only when it becomes active."""
    result = ledger(run(1))
    entry = LogEntry(number=2, at=AT, epoch=1, first_id=0, newest_id=0, runs=(run(5, run_type="manual"),))
    assert result.apply([entry]).heads == set()
    assert result.heads["orders"].succeeded == (run(5, run_type="manual"),)


def test_the_last_success_of_all_regions_counts() -> None:
    """A newer epoch decides whether a run succeeded."""
    first = ledger(run(1), run(2), run(3, FAILED))
    second = ledger(run(5, run_type="manual"), run(4, FAILED))
    assert last_successes([first, second], ["orders", "unknown"]) == [run(5, run_type="manual"), run(2)]
    third = ledger(run(2, FAILED, epoch=2))
    assert last_successes([first, third], ["orders"]) == []


def test_the_result_of_a_run_is_that_of_the_newest_epoch() -> None:
    """From a head, or from the ended runs that a ledger retains. A run that its parent replaces has no result."""
    kept = run(1, run_type="manual", retained_for_peers=True)
    replaced = run(2, FAILED, "manual", retained_for_peers=True, is_replaced=True)
    first, second = ledger(run(3), kept, replaced), ledger(run(3, FAILED, epoch=2))
    keys = [each.key for each in (run(3), kept, replaced, run(9))]
    for ledgers in ([first, second], [second, first]):
        assert results(ledgers, keys) == {run(3).key: run(3, FAILED, epoch=2), kept.key: kept}


def test_entries_that_were_applied_before_change_nothing() -> None:
    """A log is read in pages that may overlap; the second time, an entry must not revive a run that has ended."""
    opened = LogEntry(number=1, at=AT, epoch=1, first_id=0, newest_id=0, runs=(run(1, RunStatus.OPEN),))
    ended = replace(opened, number=2, runs=(run(1, RunStatus.SUCCESS),))
    result = RegionLedger()
    assert result.apply([opened, ended])
    assert not result.apply([opened, ended])
    assert (result.number, result.runs) == (2, {})


def test_a_ledger_with_a_gap_is_not_complete() -> None:
    """The entry that cannot be read may contain a run. An empty ledger has no runs, so it is complete."""
    result = RegionLedger()
    assert is_complete(result, 5)
    result.apply([LogEntry(number=1, at=AT, epoch=5, first_id=0, newest_id=0, complete_before=5)])
    assert is_complete(result, 5)
    assert not is_complete(result, 6)
    result.pass_over(2, "entry 2 cannot be read")
    assert not is_complete(result, 5)


def test_a_run_is_named_by_its_dag_and_its_id() -> None:
    """Messages and recorded sets name runs in this form."""
    assert str(run(1)) == "orders scheduled__1"
