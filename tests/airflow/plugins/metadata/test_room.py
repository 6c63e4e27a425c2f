"""Runs that wait for an earlier one give their room to it in the installed Airflow."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mwaa_dr.core.ledger import LedgerRun
from tests.airflow.plugins.metadata.chains import ONE, TWO, chain, executed
from tests.airflow.plugins.metadata.other_region import AT, DAY, open_interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


def depend_on_past(database: Database, db: Any, *, max_active_runs: int, **settings: Any) -> None:
    """Store a DAG with this limit whose first task depends on the previous run, and execute its first run."""
    database.serialize(chain(depends_on_past=True, max_active_runs=max_active_runs, **settings))
    database.update(database.tables.dags, max_active_runs=max_active_runs)
    executed(database, db, open_interval(1), "success", "success")


@pytest.fixture
def full(database: Database, db: Any) -> list[LedgerRun]:
    """A DAG at its limit of two runs, with depends_on_past, and an earlier run that the ledger published last."""
    depend_on_past(database, db, max_active_runs=2)
    db.resume([open_interval(3), open_interval(4)], "resumed")
    for run_id in ("scheduled__3", "scheduled__4"):
        database.schedule(run_id)
    late = open_interval(2)
    db.resume([late], "resumed")
    return [late]


def end_task(database: Database, run_id: str, task_id: str, state: str, *, minutes_ago: float = 0.0) -> None:
    table, at = database.tables.tasks, datetime.now(tz=timezone.utc) - timedelta(minutes=minutes_ago)
    of_task = table.update().where(table.c.run_id == run_id, table.c.task_id == task_id)
    with database.settings.engine.begin() as connection:
        connection.execute(of_task.values(state=state, hostname="worker", end_date=at))


def test_a_waiting_later_run_gives_its_room_to_an_earlier_one(
    database: Database, db: Any, full: list[LedgerRun]
) -> None:
    """The last of the runs that have not started gives up its room."""
    assert database.task_states("scheduled__3")[ONE] == "scheduled", "it did not know of the run before it"
    assert database.task_states("scheduled__4") == {ONE: None, TWO: None}
    with pytest.raises(AssertionError, match="was not started"):
        database.schedule("scheduled__2")
    assert db.make_room(full) == 1
    assert database.schedule("scheduled__2")[ONE] == "scheduled"
    assert database.runs() == {
        "scheduled__1": "success", "scheduled__2": "running", "scheduled__3": "running", "scheduled__4": "queued"
    }  # fmt: skip
    assert getattr(database.dag("orders"), "exceeds_max_non_backfill", True) is True


def test_a_started_run_gives_up_its_room_after_a_minute_without_progress(
    database: Database, db: Any, full: list[LedgerRun]
) -> None:
    """Its second task waits for the task of the previous run. Its finished task is not executed again."""
    database.serialize(chain(depends_on_past=True, max_active_runs=1))
    database.update(database.tables.dags, max_active_runs=1)
    database.end("scheduled__4", "success", one="success", two="success")
    end_task(database, "scheduled__3", "one", "success")
    assert db.make_room(full) == 0
    end_task(database, "scheduled__3", "one", "success", minutes_ago=2)
    assert db.make_room(full) == 1
    assert database.schedule("scheduled__2")[ONE] == "scheduled"
    assert database.runs()["scheduled__3"] == "queued"
    assert db.make_room(full) == 0
    database.end("scheduled__2", "success", one="success", two="success")
    assert database.schedule("scheduled__3") == {ONE: "success", TWO: "scheduled"}


@pytest.mark.parametrize("state", ["running", "up_for_retry", "up_for_reschedule", "deferred", "queued"])
def test_a_run_that_executes_keeps_its_room(database: Database, db: Any, full: list[LedgerRun], state: str) -> None:
    """So does a run whose tasks have all ended, and which the scheduler has not yet processed."""
    end_task(database, "scheduled__3", "one", "success", minutes_ago=2)
    end_task(database, "scheduled__3", "two", "success", minutes_ago=2)
    end_task(database, "scheduled__4", "one", state, minutes_ago=2)
    assert db.make_room(full) == 0


def test_no_room_is_made_where_it_is_not_needed(database: Database, db: Any, full: list[LedgerRun]) -> None:
    """None is made in a DAG without depends_on_past either, nor by a run with an earlier date."""
    assert db.make_room([open_interval(5)]) == 0
    for limit in (3, 0):  # with the limit 0, Airflow starts no run, so no run has to give up its room
        database.update(database.tables.dags, max_active_runs=limit)
        assert db.make_room(full) == 0
    database.update(database.tables.dags, max_active_runs=2)
    database.serialize(chain(max_active_runs=2))
    assert db.make_room(full) == 0


def update_run(database: Database, run_id: str, **values: Any) -> None:
    runs = database.tables.runs
    with database.settings.engine.begin() as connection:
        connection.execute(runs.update().where(runs.c.run_id == run_id).values(values))


def add_backfill(database: Database) -> int:
    from airflow.models.backfill import Backfill

    session = database.settings.Session()
    backfill = Backfill(dag_id="orders", from_date=AT, to_date=AT, max_active_runs=1)
    session.add(backfill)
    session.commit()
    backfill_id = int(backfill.id)
    database.settings.Session.remove()
    return backfill_id


def test_no_room_is_made_for_a_run_that_airflow_would_not_start(
    database: Database, db: Any, full: list[LedgerRun]
) -> None:
    """
    Otherwise a run would give up its room and get it back immediately, again and again, with a new start each time.
    """
    database.update(database.tables.dags, is_paused=True)
    assert db.make_room(full) == 0
    database.update(database.tables.dags, is_paused=False)
    if "backfill_id" in database.tables.runs.c:
        update_run(database, "scheduled__2", run_after=datetime.now(tz=timezone.utc) + DAY)
        assert db.make_room(full) == 0
        update_run(database, "scheduled__2", run_after=full[0].run_after, backfill_id=add_backfill(database))
        assert db.make_room(full) == 0, "the limit of its backfill is another one"
        update_run(database, "scheduled__2", backfill_id=None)
    assert db.make_room(full) == 1


def test_the_run_that_gets_room_is_next_wherever_it_was_in_the_queue(database: Database, db: Any) -> None:
    """Airflow 3 sorts by run_after: a manual run of today comes before today's interval, which ends later."""
    depend_on_past(database, db, max_active_runs=1, catchup=False)
    db.resume([open_interval(3, run_id="manual__3", run_type="manual", run_after=AT + 3 * DAY)], "resumed")
    database.schedule("manual__3")
    late = open_interval(2, run_after=AT + 9 * DAY)
    db.resume([late], "resumed")
    end_task(database, "manual__3", "one", "success", minutes_ago=2)
    assert db.make_room([late]) == 1
    assert database.schedule("scheduled__2")[ONE] == "scheduled"
    assert database.runs()["manual__3"] == "queued"


def test_runs_of_backfills_take_room_as_airflow_counts_them(database: Database, db: Any) -> None:
    """
    On Airflow 2, all of them count. On Airflow 3, only resumed ones do, because their backfill is in the other region.
    """
    depend_on_past(database, db, max_active_runs=2)
    is_2 = "backfill_id" not in database.tables.runs.c
    if is_2:
        database.add_run("orders", "backfill__4", state="running", run_type="backfill")
    else:
        db.resume([open_interval(4, run_id="backfill__4", run_type="backfill")], "resumed")
    db.resume([open_interval(3)], "resumed")
    database.schedule("scheduled__3")
    late = open_interval(2)
    db.resume([late], "resumed")
    with pytest.raises(AssertionError, match="was not started"):
        database.schedule("scheduled__2")
    end_task(database, "scheduled__3", "one", "success", minutes_ago=2)
    assert db.make_room([late]) == 1
    assert database.schedule("scheduled__2")[ONE] == "scheduled"
    assert database.runs()["scheduled__3" if is_2 else "backfill__4"] == "queued"
