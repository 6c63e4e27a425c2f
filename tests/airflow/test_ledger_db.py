"""The bookkeeper with a real metadata database of the installed Airflow."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunStatus

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

AT = datetime(2026, 10, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def interval(day: int, status: RunStatus = RunStatus.SUCCESS, dag_id: str = "orders", **values: Any) -> LedgerRun:
    """A daily run of another region."""
    at = AT + day * DAY
    run = LedgerRun(
        dag_id=dag_id,
        run_id=f"scheduled__{day}",
        run_type="scheduled",
        status=status,
        epoch=1,
        logical_date=at,
        data_interval_start=at,
        data_interval_end=at + DAY,
        run_after=at + DAY,
        taken_at=datetime.now(tz=timezone.utc) if status is RunStatus.OPEN else None,
    )
    return replace(run, **values)


@pytest.fixture
def db(database: Database) -> Any:
    from airflow_provider_mwaa_dr.plugins.metadata.database import MetadataDb

    database.add_dag("orders")
    return MetadataDb(SimpleNamespace(), exempt_dags=["by_id"])


def next_dagrun(database: Database, dag_id: str = "orders") -> datetime | None:
    at: datetime | None = database.dag(dag_id).next_dagrun
    return at


def test_read_states_returns_open_and_new_runs(database: Database, db: Any) -> None:
    """Open runs whatever their id, ended runs above an id, and exempt runs never."""
    database.add_dag("by_id")
    for run_id, state in (("old-open", "running"), ("old-ended", "success"), ("new-ended", "failed")):
        database.add_run("orders", run_id, state=state)
    database.add_run("by_id", "exempt")
    newest, states = db.read_states(above=db.newest_run() - 2)
    assert newest == db.newest_run()
    assert states == {("orders", "old-open"): "running", ("orders", "new-ended"): "failed"}


def test_a_run_is_transferred_completely(database: Database, db: Any) -> None:
    """This region reads what another region inserts: type, dates, interval and conf."""
    run = interval(3, RunStatus.OPEN, run_type="manual", run_id="m 1", conf='{"a": [1, {"b": null}], "c": "\\u00e4"}')
    db.resume([run], "resumed")
    (row,) = db.runs([run.key, ("orders", "no such run")])
    assert (row.run_type, row.state, row.logical_date) == ("manual", "queued", run.logical_date)
    assert (row.data_interval_start, row.data_interval_end) == (run.data_interval_start, run.data_interval_end)
    assert row.run_after in {None, run.run_after}
    assert row.conf == {"a": [1, {"b": None}], "c": "ä"}
    assert row.queued_at >= run.taken_at
    assert database.note("m 1") == "[mwaa-dr] resumed"


def test_adopting_writes_the_interval_and_moves_the_schedule_on(database: Database, db: Any) -> None:
    """
    Adopting again is a no-op. Runs that exist or are older than the newest one are passed over. Failed runs stay
    failed.
    """
    assert db.adopt([interval(5)], "adopted") == 1
    assert db.adopt([interval(5)], "adopted") == 0
    assert db.adopt([interval(4)], "adopted") == 0
    assert db.adopt([interval(7, RunStatus.FAILED)], "adopted") == 1
    assert database.runs() == {"scheduled__5": "success", "scheduled__7": "failed"}
    assert database.note("scheduled__5") == "[mwaa-dr] adopted"
    assert [row.queued_at for row in db.runs([interval(5).key, interval(7).key])] == [None, None], "nothing queued them"
    assert next_dagrun(database) == AT + 7 * DAY
    assert database.dag("orders").next_dagrun_create_after == AT + 8 * DAY


def test_a_run_of_a_dag_that_is_not_deployed_yet_is_adopted(database: Database, db: Any) -> None:
    """Its row waits for the file. Another run that has the same logical date stays unchanged."""
    assert db.adopt([interval(5, dag_id="later")], "adopted") == 1
    assert db.adopt([interval(5, dag_id="later", run_id="other id")], "adopted") == 0
    assert database.runs() == {"scheduled__5": "success"}


def test_the_newest_ended_interval_of_each_dag(database: Database, db: Any) -> None:
    """Manual runs and open runs do not count."""
    database.add_dag("billing")
    db.adopt([interval(1), interval(1, dag_id="billing", run_id="b1")], "adopted")
    db.adopt([interval(2, RunStatus.FAILED)], "adopted")
    db.resume([interval(3, RunStatus.OPEN)], "resumed")
    database.add_run("orders", "manual", state="success")
    found = {row.dag_id: (row.run_id, row.state) for row in db.last_finished(["orders", "billing", "none"])}
    assert found == {"orders": ("scheduled__2", "failed"), "billing": ("b1", "success")}


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
    runs = [interval(0, RunStatus.OPEN, run_type="manual", run_id=run_id) for run_id in ("r1", "r2", "r3")]
    for _ in range(2):
        db.resume(runs, "resumed")
    assert database.runs() == {"r1": "queued", "r2": "queued", "r3": "running"}
    assert database.tasks("r1") == database.tasks("r2") == {None}
    assert database.note("r1") == "[mwaa-dr] resumed"
    assert database.note("r3") is None
    (row,) = db.runs([("orders", "r1")])
    assert row.queued_at >= runs[0].taken_at


def test_a_closed_run_gets_the_outcome_of_another_region(database: Database, db: Any) -> None:
    """An open run never changes."""
    database.add_run("orders", "r1", state="failed", note="[mwaa-dr] closed: us-east-1 is standby")
    database.add_run("orders", "r2", state="queued")
    db.apply_outcomes(
        [interval(0, run_id="r1"), interval(0, run_id="r2"), interval(0, run_id="none")], "it ended elsewhere"
    )
    assert database.runs() == {"r1": "success", "r2": "queued"}
    assert database.note("r1") == "[mwaa-dr] it ended elsewhere"


def test_skipped_intervals_that_no_region_created_are_deleted(database: Database, db: Any) -> None:
    """
    Only scheduled runs that did not execute, and that are newer than any region has created. The schedule goes back.
    """
    db.adopt([interval(5)], "adopted")
    database.add_dag("billing")
    for day in (6, 7, 8):
        db.adopt([interval(day)], "skipped: us-east-1 is standby")
    db.adopt([interval(3, dag_id="billing", run_id="b3")], "closed: us-east-1 is standby")
    database.add_run("orders", "manual", state="success", note="[mwaa-dr] skipped: standby")
    assert db.forget_closed({"orders": AT + 6 * DAY}) == 2
    assert set(database.runs()) == {"scheduled__5", "scheduled__6", "b3", "manual"}
    assert next_dagrun(database) == AT + 6 * DAY
    assert db.forget_closed({"billing": None}) == 1
    assert next_dagrun(database, "billing") is None
    db.adopt([interval(9)], "skipped: us-east-1 is standby")
    with database.settings.engine.begin() as connection:
        tasks = database.tables.tasks
        connection.execute(
            tasks.insert().values(
                dag_id="orders",
                run_id="scheduled__9",
                task_id="t",
                map_index=-1,
                pool="p",
                pool_slots=1,
                max_tries=0,
                hostname="worker",
            )
        )
    assert db.forget_closed({"orders": AT + 6 * DAY}) == 0
