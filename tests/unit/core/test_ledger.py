"""The state that a region's log results in, and the history that other regions adopt from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from airflow_provider_mwaa_dr.core.ledger import Head, LedgerRun, LogEntry, RegionLedger, RunStatus, history

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
        run(9, RunStatus.FAILED, "backfill", tasks=TASKS),
    ):
        head = head.advanced(each)
    assert head.finished == run(2)
    assert head.others == (
        run(4, run_type="manual", tasks=TASKS),
        run(9, RunStatus.FAILED, "backfill", tasks=TASKS),
    )
    later = run(4, RunStatus.FAILED, "manual", tasks=TASKS, epoch=2)
    assert later in head.advanced(later).others
    assert len(head.advanced(later).others) == 2


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
        run(2, RunStatus.FAILED), run(1, run_type="manual", tasks=TASKS), run(3, run_type="backfill", tasks=TASKS)
    )
    second = ledger(run(2, epoch=2), run(3, run_type="backfill", tasks=TASKS, epoch=2))
    expected = [run(2, epoch=2), run(3, run_type="backfill", tasks=TASKS, epoch=2)]
    for regions in ([first, second], [second, first]):
        assert history(regions, ["orders", "unknown"]) == expected
    assert history([ledger(run(5, run_type="manual", tasks=TASKS))], ["orders"]) == [
        run(5, run_type="manual", tasks=TASKS)
    ]
