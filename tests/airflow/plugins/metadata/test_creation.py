"""A resumed run has what the installed Airflow gives a run that it creates: columns, task instances, deadlines."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunStatus
from tests.airflow.plugins.metadata.chains import ONE, TWO, bash, chain, ledger_of
from tests.airflow.plugins.metadata.other_region import AT, DAY, interval, open_interval
from tests.airflow.plugins.metadata.scheduling import runs_created_next

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

OF_THE_REGION = {
    "id",
    "created_at",
    "updated_at",
    "queued_at",
    "last_scheduling_decision",  # the scheduler tries it after the runs that it has never tried
    "creating_job_id",  # the job is another region's
    "dag_hash",  # Airflow 2: without it, the scheduler creates the task instances
    "context_carrier",  # each region has its own trace
}
"""The columns in which a resumed run differs from the run that the other region's Airflow has created."""


def row_of(database: Database, run_id: str) -> dict[str, Any]:
    runs = database.tables.runs
    with database.settings.engine.connect() as connection:
        return dict(connection.execute(select(runs).where(runs.c.run_id == run_id)).mappings().one())


def test_a_resumed_run_has_the_columns_of_a_run_that_airflow_creates(database: Database, db: Any) -> None:
    """In every version, each column that is not listed above has the value of the other region."""
    (created,) = runs_created_next(database, chain(), 1)
    before = row_of(database, created.run_id)
    run = ledger_of(db, created.run_id, status=RunStatus.OPEN)
    database.forget_history()
    db.resume([replace(run, taken_at=datetime.now(tz=timezone.utc))], "resumed")
    after = row_of(database, created.run_id)
    assert {name for name in before if before[name] != after[name]} <= OF_THE_REGION
    assert type(after.get("context_carrier")) is type(before.get("context_carrier"))
    assert after["log_template_id"] is not None
    if "triggered_by" in after:
        assert after["triggered_by"].name == "TIMETABLE"
        assert after["created_dag_version_id"] is not None


def test_what_requested_a_run_is_kept(database: Database, db: Any, airflow_3: bool) -> None:
    """Also for an adopted run. A name that this version does not know, or that was not published, is derived."""
    database.serialize(chain())
    manual = open_interval(1, run_id="m", run_type="manual", triggered_by="CLI", triggering_user="ann")
    unknown = open_interval(2, run_id="u", run_type="manual", triggered_by="A_LATER_NAME")
    db.resume([manual, unknown, open_interval(3)], "resumed")
    db.adopt([interval(4, triggered_by="BACKFILL")], "adopted")
    if not airflow_3:
        assert ledger_of(db, "m", status=RunStatus.OPEN).triggered_by is None
        return
    requested = {
        run_id: ledger_of(db, run_id, status=RunStatus.OPEN).triggered_by
        for run_id in ("m", "u", "scheduled__3", "scheduled__4")
    }
    assert requested == {"m": "CLI", "u": None, "scheduled__3": "TIMETABLE", "scheduled__4": "BACKFILL"}
    has_user = "triggering_user_name" in database.tables.runs.c
    assert ledger_of(db, "m", status=RunStatus.OPEN).triggering_user == ("ann" if has_user else None)


@pytest.mark.parametrize("is_disabled", [False, True], ids=["with versions", "disabled in the DAG"])
def test_a_run_of_a_bundle_with_versions_gets_the_present_one(
    database: Database, db: Any, airflow_3: bool, is_disabled: bool
) -> None:
    """And its tasks are scheduled: the scheduler creates no task instances for a run with a version."""
    dag = chain()
    if airflow_3:
        dag.disable_bundle_versioning = is_disabled
    database.serialize(dag)
    if airflow_3:
        database.update(database.tables.dags, bundle_version="c0ffee")
    db.resume([open_interval(1)], "resumed")
    assert database.schedule("scheduled__1") == {ONE: "scheduled", TWO: None}
    expected = "c0ffee" if airflow_3 and not is_disabled else None
    assert row_of(database, "scheduled__1").get("bundle_version") == expected
    # The other region has deployed no second version, so all task instances are of the same one.
    with database.settings.engine.connect() as connection:
        rows = connection.execute(database.tables.tasks.select()).mappings().all()
    assert len({row.get("dag_version_id") for row in rows}) == 1


# Deadlines.


async def too_late(**_: Any) -> None:
    """The callback of a deadline; the tests only see that Airflow requests it."""


@pytest.fixture
def alerted(database: Database, db: Any) -> Any:
    """A DAG whose runs must end within an hour of being queued, and within a day of their logical date."""
    pytest.importorskip("airflow.models.deadline_alert", reason="before Airflow 3.2, no DAG has alerts in the database")
    from airflow.sdk import DAG
    from airflow.sdk.definitions.callback import AsyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

    callback = AsyncCallback(f"{__name__}.too_late")
    alerts = [
        DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, timedelta(hours=1), callback),
        DeadlineAlert(DeadlineReference.DAGRUN_LOGICAL_DATE, DAY, callback),
    ]
    with DAG("orders", schedule="@daily", start_date=AT - 100 * DAY, catchup=True, deadline=alerts) as dag:
        bash("one") >> bash("two")
    database.serialize(dag)
    return dag


def deadlines(database: Database) -> list[tuple[datetime, bool, str]]:
    """Return time, whether it was missed, and the state of the callback of each deadline, by time."""
    from airflow.models.deadline import Deadline

    session = database.settings.Session()
    try:
        found = session.scalars(select(Deadline).order_by(Deadline.deadline_time)).all()
        return [(each.deadline_time, each.missed, str(each.callback.state)) for each in found]
    finally:
        database.settings.Session.remove()


def loop_once(database: Database) -> None:
    """Let Airflow's scheduler run its loop once, with its check of deadlines; the DAG is paused and starts nothing."""
    from airflow.executors.base_executor import BaseExecutor
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    class Idle(BaseExecutor):
        def sync(self) -> None: ...

    database.update(database.tables.dags, is_paused=True)
    session = database.settings.Session()
    try:
        job = Job()
        session.add(job)
        session.commit()
        runner = SchedulerJobRunner(job, num_runs=1)
        runner.executors = job.executors = [Idle()]
        runner._run_scheduler_loop()
    finally:
        database.settings.Session.remove()


def published(db: Any, run_id: str = "scheduled__1", **values: Any) -> LedgerRun:
    """Return a run as another region reads it, which then takes it over."""
    run = ledger_of(db, run_id, status=RunStatus.OPEN)
    return replace(run, taken_at=datetime.now(tz=timezone.utc), **values)


def test_the_deadline_of_a_resumed_run_fires_once_however_late(database: Database, db: Any, alerted: Any) -> None:
    """The scheduler finds at once what has passed. The other deadline keeps the time of the region that failed."""
    db.resume([open_interval(1)], "resumed")
    ((by_date, _, _), (by_queue, _, _)) = deadlines(database)
    assert by_date == AT + 2 * DAY
    run = published(db)
    assert [(each.at, each.is_missed) for each in run.deadlines] == [(by_date, False), (by_queue, False)]
    database.forget_history()
    db.resume([run], "resumed")
    assert deadlines(database) == [(by_date, False, "scheduled"), (by_queue, False, "scheduled")]
    loop_once(database)
    fired = [(by_date, True, "queued"), (by_queue, False, "scheduled")]
    assert deadlines(database) == fired
    loop_once(database)
    db.resume([run], "resumed")
    assert deadlines(database) == fired


def test_a_deadline_that_has_fired_fires_in_no_other_region(database: Database, db: Any, alerted: Any) -> None:
    """The next region keeps that it was missed, and publishes it in its turn."""
    db.resume([open_interval(1)], "resumed")
    loop_once(database)
    for _ in range(2):
        run = published(db)
        assert [each.is_missed for each in run.deadlines] == [True, False]
        database.forget_history()
        db.resume([run], "resumed")
        loop_once(database)
        assert [(missed, state) for _, missed, state in deadlines(database)] == [
            (True, "scheduled"),
            (False, "scheduled"),
        ]


def test_a_run_that_returns_to_its_own_region_has_its_deadlines_again(
    database: Database, db: Any, alerted: Any
) -> None:
    """Closing it in the standby deleted the one that had not passed, and kept the one that had fired."""
    db.resume([open_interval(1)], "resumed")
    loop_once(database)
    before = deadlines(database)
    run = published(db)
    db.close_runs("closed: standby")
    assert deadlines(database) == before[:1]
    later = replace(run, taken_at=datetime.now(tz=timezone.utc))
    for _ in range(2):
        db.resume([later], "resumed")
        assert database.runs() == {"scheduled__1": "queued"}
        assert deadlines(database) == before


def test_an_adopted_run_that_has_ended_has_no_deadline(database: Database, db: Any, alerted: Any) -> None:
    """It executes nothing in this region."""
    db.adopt([interval(1)], "adopted")
    assert database.runs() == {"scheduled__1": "success"}
    assert deadlines(database) == []


def test_an_alert_that_airflow_cannot_read_stops_no_run(
    database: Database, db: Any, alerted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """For example, its class is not installed in this region. The log names the run, which has no deadlines."""
    alerts = database.DagRun.metadata.tables["deadline_alert"]
    database.update(alerts, reference={"reference_type": "not.installed"})
    db.resume([open_interval(1), open_interval(2)], "resumed")
    assert database.runs() == {"scheduled__1": "queued", "scheduled__2": "queued"}
    assert deadlines(database) == []
    assert "orders scheduled__1 starts without all that Airflow gives a new run" in caplog.text
