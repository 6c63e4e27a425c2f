"""Interrupted runs of another region are queued in the installed Airflow; a refused run does not stop the others."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.plugins.metadata.chains import ONE, TWO, chain, executed, ledger_of
from tests.airflow.plugins.metadata.other_region import DAY, interval, open_interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


def test_why_a_run_cannot_be_resumed(database: Database, db: Any) -> None:
    """The DAG does not exist, is tagged dr:no-rerun, or is exempt, or another run has its logical date."""
    database.add_dag("no_rerun", tags=("dr:no-rerun",))
    database.add_dag("by_id")
    db.adopt([interval(5)], "adopted")
    runs = [
        interval(1, dag_id="gone"),
        interval(1, dag_id="no_rerun"),
        interval(1, dag_id="by_id"),
        interval(5, run_id="other id"),
        interval(5),
        interval(6),
    ]
    assert db.cannot_resume(runs) == {
        ("gone", "scheduled__1"): "its DAG is not in this region, or exempt",
        ("no_rerun", "scheduled__1"): "its DAG is tagged dr:no-rerun",
        ("by_id", "scheduled__1"): "its DAG is not in this region, or exempt",
        ("orders", "other id"): "another run has its logical date: scheduled__5",
    }


def test_a_closed_run_is_queued_again_with_all_its_tasks(database: Database, db: Any) -> None:
    """As after clearing it. Repeated calls queue it once. An open run stays unchanged."""
    database.add_run("orders", "r1", state="running", tasks=2)
    database.update(database.tables.tasks, state="success", try_number=1, hostname="worker")
    database.add_run("orders", "r2", state="running", tasks=1)
    db.close_runs("closed: standby")
    database.add_run("orders", "r3", state="running", tasks=1)
    runs = [open_interval(0, run_type="manual", run_id=run_id) for run_id in ("r1", "r2", "r3")]
    for _ in range(2):
        db.resume(runs, "resumed")
    assert database.runs() == {"r1": "queued", "r2": "queued", "r3": "running"}
    assert database.tasks("r1") == database.tasks("r2") == {None}
    assert database.note("r1") == "[mwaa-dr] resumed"
    assert database.note("r3") is None
    (row,) = db.runs([("orders", "r1")])
    assert row.queued_at >= runs[0].taken_at


def test_of_two_resumed_runs_the_second_waits_for_the_first(database: Database, db: Any) -> None:
    """The interval before them is adopted with its tasks. Both resumed runs execute all their tasks again."""
    database.serialize(chain(depends_on_past=True))
    executed(database, db, open_interval(0), "success", "success")
    executed(database, db, open_interval(2), "success", "success")
    run = ledger_of(db, "scheduled__2")
    database.forget_history()
    executed(database, db, open_interval(0), "success", "success")
    db.adopt([run], "adopted")
    db.resume([open_interval(3), open_interval(4)], "resumed")
    assert database.schedule("scheduled__3") == {ONE: "scheduled", TWO: None}
    assert database.schedule("scheduled__4") == {ONE: None, TWO: None}
    database.end("scheduled__3", "success", one="success", two="success")
    assert database.schedule("scheduled__4") == {ONE: "scheduled", TWO: None}


@pytest.mark.parametrize("is_new", [True, False], ids=["new here", "closed here before"])
def test_resumed_runs_start_in_their_order_whichever_was_held(database: Database, db: Any, is_new: bool) -> None:
    """
    There is room for only one run. If the later run took it, it would wait for ever for the earlier run.

    The DAG counts as full for the scheduler of 3.2 and later. Otherwise it would create one more run, which would start
    before both.
    """
    from airflow_provider_mwaa_dr.plugins.metadata.starting_run import hold_run

    database.serialize(chain(depends_on_past=True, max_active_runs=1))
    with database.settings.engine.begin() as connection:
        connection.execute(database.tables.dags.update().values(max_active_runs=1))
    runs = [open_interval(1), open_interval(0)]
    if not is_new:
        db.resume(runs, "resumed")
        for run in runs:
            database.end(run.run_id, "failed")
        runs = [replace(run, taken_at=datetime.now(tz=timezone.utc) + DAY) for run in runs]
    db.resume(runs, "resumed")
    session = database.settings.Session()
    held = session.query(database.DagRun).filter_by(run_id="scheduled__0").one()
    hold_run(held, "held: a")
    session.commit()
    database.settings.Session.remove()
    assert getattr(database.dag("orders"), "exceeds_max_non_backfill", True) is True
    assert database.schedule("scheduled__0")[ONE] == "scheduled"
    assert database.runs() == {"scheduled__0": "running", "scheduled__1": "queued"}


def test_a_run_whose_logical_date_is_taken_does_not_stop_the_others(database: Database, db: Any) -> None:
    """Another run in this region, or in the same call, has the logical date. A retry is a no-op."""
    db.adopt([interval(1, run_id="by hand")], "adopted")
    runs = [
        open_interval(1),
        open_interval(2),
        open_interval(2, run_type="manual", run_id="manual__2"),
        open_interval(3),
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
    run = open_interval(0, run_type="manual", run_id="m1", logical_date=row.logical_date, conf='{"a": 1}')
    db.resume([run], "resumed")
    (row,) = db.runs([run.key])
    assert (row.state, row.conf) == ("queued", {"a": 1})


def test_a_run_that_another_agent_has_queued_meanwhile_is_not_queued_again(database: Database, db: Any) -> None:
    """Not even after it has ended: for a moment, two agents may resume the same runs."""
    database.add_run("orders", "m1", state="failed")
    (row,) = db.runs([("orders", "m1")])
    run = open_interval(0, run_type="manual", run_id="m1", logical_date=row.logical_date)
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
        open_interval(0, run_type="manual", run_id=run_id, logical_date=row.logical_date)
        for run_id, row in rows.items()
    ]
    assert db.resume(runs, "resumed") == {
        ("orders", "m1"): "this region cannot queue it: ValueError: timetable not registered"
    }
    assert database.runs() == {"m1": "failed", "m2": "queued"}
