"""Runs that cannot be queued as they are: each is refused by itself, the others go on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.core.ledger import RunStatus
from tests.airflow.test_ledger_db import db, interval

if TYPE_CHECKING:
    import pytest

    from tests.airflow.conftest import Database

__all__ = ["db"]


def test_a_run_whose_logical_date_was_taken_meanwhile_does_not_keep_the_others_from_going_on(
    database: Database, db: Any
) -> None:
    """By a run that is there, or by another one of the same call; tried again, nothing changes."""
    db.adopt([interval(1, run_id="by hand")], "adopted")
    runs = [
        interval(1, RunStatus.OPEN),
        interval(2, RunStatus.OPEN),
        interval(2, RunStatus.OPEN, run_type="manual", run_id="manual__2"),
        interval(3, RunStatus.OPEN),
    ]
    for _ in range(2):
        assert db.resume(runs, "resumed") == {
            ("orders", "scheduled__1"): "another run has its logical date: by hand",
            ("orders", "manual__2"): "another run has its logical date: scheduled__2",
        }
    assert database.runs() == {"by hand": "success", "scheduled__2": "queued", "scheduled__3": "queued"}


def test_a_run_of_the_same_id_gets_the_conf_that_it_was_accepted_with(database: Database, db: Any) -> None:
    """Somebody had asked for it in the standby, too, where it was closed."""
    database.add_run("orders", "m1", state="success", conf={"b": 2})
    (row,) = db.runs([("orders", "m1")])
    run = interval(0, RunStatus.OPEN, run_type="manual", run_id="m1", logical_date=row.logical_date, conf='{"a": 1}')
    db.resume([run], "resumed")
    (row,) = db.runs([run.key])
    assert (row.state, row.conf) == ("queued", {"a": 1})


def test_a_run_that_another_agent_has_queued_meanwhile_is_not_queued_again(database: Database, db: Any) -> None:
    """Nor once it has ended: two agents may carry out the same for a moment."""
    database.add_run("orders", "m1", state="failed")
    (row,) = db.runs([("orders", "m1")])
    run = interval(0, RunStatus.OPEN, run_type="manual", run_id="m1", logical_date=row.logical_date)
    run = replace(run, taken_at=run.taken_at and run.taken_at + timedelta(seconds=30))  # of a host whose clock is ahead
    db.resume([run], "resumed")
    database.update(database.tables.runs, state="success")
    db.resume([run], "resumed")
    assert database.runs() == {"m1": "success"}


def test_a_run_that_airflow_cannot_clear_does_not_keep_the_others_from_going_on(
    database: Database, db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Say because its DAG needs a timetable that is not installed here."""
    from airflow_provider_mwaa_dr.plugins import metadata_db

    for run_id in ("m1", "m2"):
        database.add_run("orders", run_id, state="failed", tasks=1)
    clear = metadata_db.clear_task_instances

    def fail(tasks: list[Any], *args: Any, **values: Any) -> None:
        if tasks[0].run_id == "m1":
            raise ValueError("timetable not registered")
        clear(tasks, *args, **values)

    monkeypatch.setattr(metadata_db, "clear_task_instances", fail)
    rows = {row.run_id: row for row in db.runs([("orders", "m1"), ("orders", "m2")])}
    runs = [
        interval(0, RunStatus.OPEN, run_type="manual", run_id=run_id, logical_date=row.logical_date)
        for run_id, row in rows.items()
    ]
    assert db.resume(runs, "resumed") == {
        ("orders", "m1"): "this region cannot queue it: ValueError: timetable not registered"
    }
    assert database.runs() == {"m1": "failed", "m2": "queued"}
