"""Runs that cannot be queued unchanged: each is refused alone, and the others are resumed."""

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


def test_a_run_whose_logical_date_is_taken_does_not_stop_the_others(database: Database, db: Any) -> None:
    """Another run in this region, or in the same call, has the logical date. A retry is a no-op."""
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
    """A user had also requested it in the standby, where it was closed."""
    database.add_run("orders", "m1", state="success", conf={"b": 2})
    (row,) = db.runs([("orders", "m1")])
    run = interval(0, RunStatus.OPEN, run_type="manual", run_id="m1", logical_date=row.logical_date, conf='{"a": 1}')
    db.resume([run], "resumed")
    (row,) = db.runs([run.key])
    assert (row.state, row.conf) == ("queued", {"a": 1})


def test_a_run_that_another_agent_has_queued_meanwhile_is_not_queued_again(database: Database, db: Any) -> None:
    """Not even after it has ended: for a moment, two agents may resume the same runs."""
    database.add_run("orders", "m1", state="failed")
    (row,) = db.runs([("orders", "m1")])
    run = interval(0, RunStatus.OPEN, run_type="manual", run_id="m1", logical_date=row.logical_date)
    run = replace(
        run, taken_at=run.taken_at and run.taken_at + timedelta(seconds=30)
    )  # the clock of that host is ahead
    db.resume([run], "resumed")
    database.update(database.tables.runs, state="success")
    db.resume([run], "resumed")
    assert database.runs() == {"m1": "success"}


def test_a_run_that_airflow_cannot_clear_does_not_stop_the_others(
    database: Database, db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, its DAG needs a timetable that is not installed in this region."""
    from airflow_provider_mwaa_dr.plugins.metadata import schema

    for run_id in ("m1", "m2"):
        database.add_run("orders", run_id, state="failed", tasks=1)
    clear = schema.clear_task_instances

    def fail(tasks: list[Any], *args: Any, **values: Any) -> None:
        if tasks[0].run_id == "m1":
            raise ValueError("timetable not registered")
        clear(tasks, *args, **values)

    monkeypatch.setattr(schema, "clear_task_instances", fail)
    rows = {row.run_id: row for row in db.runs([("orders", "m1"), ("orders", "m2")])}
    runs = [
        interval(0, RunStatus.OPEN, run_type="manual", run_id=run_id, logical_date=row.logical_date)
        for run_id, row in rows.items()
    ]
    assert db.resume(runs, "resumed") == {
        ("orders", "m1"): "this region cannot queue it: ValueError: timetable not registered"
    }
    assert database.runs() == {"m1": "failed", "m2": "queued"}
