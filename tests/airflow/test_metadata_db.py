"""Skipping, holding and closing runs in a real metadata database of the installed Airflow."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

REASON = "skipped: us-east-1 is standby, us-east-2 is active (epoch 4)"


@pytest.fixture
def metadata_db() -> Any:
    from airflow_provider_mwaa_dr.plugins import metadata_db

    return metadata_db


@pytest.fixture
def agent_db(metadata_db: Any) -> Any:
    return metadata_db.MetadataDb(SimpleNamespace(), exempt_dags=["by_id"])


def test_a_skipped_run_has_ended_with_every_task_skipped_and_a_note(database: Database, metadata_db: Any) -> None:
    """This happens in the scheduler's transaction, which refuses every commit except the scheduler's own."""
    database.add_dag("orders")
    database.add_run("orders", "r1", tasks=3)
    database.start("r1", lambda run: metadata_db.skip_run(run, REASON))
    assert database.runs() == {"r1": "success"}
    assert database.tasks("r1") == {"skipped"}
    assert database.note("r1") == f"[mwaa-dr] {REASON}"


def test_tasks_that_ended_before_keep_their_state(database: Database, metadata_db: Any) -> None:
    """A cleared run keeps the tasks that the user did not clear."""
    database.add_dag("orders")
    database.add_run("orders", "r1", tasks=1)
    database.update(database.tables.tasks, state="failed")
    database.start("r1", lambda run: metadata_db.skip_run(run, REASON))
    assert database.tasks("r1") == {"failed"}


@pytest.mark.parametrize("action", ["skip_run", "hold_run"])
def test_the_cost_does_not_depend_on_the_number_of_tasks(database: Database, metadata_db: Any, action: str) -> None:
    """10 task instances and 1,000 task instances take the same statements."""
    act = getattr(metadata_db, action)
    counts = []
    for number in (10, 1000):
        database.clear()
        database.add_dag("orders")
        database.add_run("orders", "r", tasks=number)
        counts.append(len(database.start("r", lambda run: act(run, REASON))))
    assert counts[0] == counts[1] <= 12


def test_a_users_note_stays_in_front(database: Database, metadata_db: Any) -> None:
    """The provider appends its sentence, and later replaces only that. The user's note is never lost."""
    database.add_dag("orders")
    database.add_run("orders", "r1", note="requested by Ann")
    database.start("r1", lambda run: metadata_db.hold_run(run, "held: a"))
    database.start("r1", lambda run: metadata_db.hold_run(run, "held: b"))
    assert database.note("r1") == "requested by Ann\n[mwaa-dr] held: b"


def test_a_hold_does_not_hide_that_the_run_was_resumed(database: Database, metadata_db: Any) -> None:
    """The sentence stays after the reason of the hold, and stays alone after the run has started."""
    database.add_dag("orders")
    database.add_run("orders", "r1", note="[mwaa-dr] resumed: it was interrupted")
    for reason in ("held: a", "held: b"):
        database.start("r1", lambda run, reason=reason: metadata_db.hold_run(run, reason))
    assert database.note("r1") == "[mwaa-dr] held: b; resumed: it was interrupted"


def test_a_long_note_is_cut_to_what_fits(metadata_db: Any) -> None:
    """Airflow's column has 1,000 characters. A longer note would break the scheduler's transaction."""
    assert len(metadata_db.compose_note("x" * 1000, REASON)) == 1000
    assert metadata_db.compose_note("x" * 1000, REASON).endswith(f"[mwaa-dr] {REASON}")
    assert len(metadata_db.compose_note(None, "y" * 2000)) == 1000


def test_a_repeated_hold_writes_its_note_once(database: Database, metadata_db: Any) -> None:
    """The scheduler tries a held run again each second. Only the seconds in the reason change."""
    database.add_dag("orders")
    database.add_run("orders", "r1")
    written = []
    for age in (61, 62):
        database.start(
            "r1", lambda run, age=age: written.append(metadata_db.hold_run(run, f"held: no read for {age} s"))
        )
    assert written == [True, False]
    assert database.runs() == {"r1": "queued"}
    assert database.note("r1") == "[mwaa-dr] held: no read for 61 s"


def test_an_error_of_the_provider_leaves_the_schedulers_transaction_usable(
    database: Database, metadata_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is rolled back to the savepoint. The scheduler commits the rest of its work."""
    from sqlalchemy import text

    database.add_dag("orders")
    database.add_run("orders", "r1", tasks=2)

    def broken(connection: Any, *_: Any) -> bool:
        connection.execute(text("select * from no_such_table"))
        return True

    monkeypatch.setattr(metadata_db, "_put_note", broken)

    def act(run: Any) -> None:
        with pytest.raises(Exception, match="no_such_table"):
            metadata_db.skip_run(run, REASON)
        run.set_state("queued")

    database.start("r1", act)
    assert database.runs() == {"r1": "queued"}
    assert database.tasks("r1") == {None}


def test_a_dag_at_its_limit_gets_its_next_run(database: Database, metadata_db: Any) -> None:
    """With max_active_runs=1, Airflow marks the DAG as full until the run ends by itself. A skipped run never does."""
    try:
        from airflow.sdk import DAG
    except ImportError:
        from airflow import DAG
    if not hasattr(database.DagModel, "exceeds_max_non_backfill"):
        from airflow.models.dag import DAG  # type: ignore[no-redef]

    start = datetime(2026, 11, 1, tzinfo=timezone.utc)
    dag = DAG("orders", schedule="@daily", start_date=start, max_active_runs=1, catchup=True)
    full = {"next_dagrun_create_after": None}
    if hasattr(database.DagModel, "exceeds_max_non_backfill"):
        full = {"exceeds_max_non_backfill": True}
    database.add_dag("orders", **full)
    database.add_run(
        "orders",
        "r1",
        tasks=1,
        run_type="scheduled",
        data_interval_start=start,
        data_interval_end=start + timedelta(days=1),
    )
    database.start("r1", lambda run: metadata_db.skip_run(run, REASON), dag=dag)
    row = database.dag("orders")
    if "exceeds_max_non_backfill" in full:
        assert row.exceeds_max_non_backfill is False
    else:
        assert row.next_dagrun_create_after == start + timedelta(days=2)


def test_the_agent_closes_open_runs_but_not_the_exempt(database: Database, agent_db: Any) -> None:
    """A closed run is failed, its tasks are skipped, and it has a note. Exempt DAGs and ended runs do not change."""
    for dag_id, tags in (("orders", ()), ("by_id", ()), ("by_tag", ("dr:control",))):
        database.add_dag(dag_id, tags=tags)
        database.add_run(dag_id, f"{dag_id}_running", state="running", tasks=2)
    database.add_run("orders", "queued")
    database.add_run("orders", "done", state="success", tasks=1)
    newest = agent_db.newest_run()
    assert agent_db.close_runs("closed: because") == 2
    assert database.runs() == {
        "orders_running": "failed",
        "queued": "failed",
        "done": "success",
        "by_id_running": "running",
        "by_tag_running": "running",
    }
    assert database.tasks("orders_running") == {"skipped"}
    assert database.tasks("done") == {None}
    assert database.note("orders_running") == "[mwaa-dr] closed: because"
    assert agent_db.open_runs(up_to=newest) == 0
    assert agent_db.close_runs("closed: again") == 0


def test_a_young_queued_run_is_left_to_the_gate_unless_its_dag_is_paused(database: Database, agent_db: Any) -> None:
    """The gate skips a run that is about to start. A run under a paused DAG never reaches the gate."""
    database.add_dag("orders")
    database.add_dag("paused", is_paused=True)
    database.add_run("orders", "young")
    database.add_run("orders", "old", queued_at=datetime.now(tz=timezone.utc) - timedelta(minutes=1))
    database.add_run("paused", "never_starts")
    assert agent_db.close_runs("closed: because", queued_for_s=10) == 2
    assert database.runs() == {"young": "queued", "old": "failed", "never_starts": "failed"}


def test_a_run_that_a_user_requested_since_the_last_read_is_spared(database: Database, agent_db: Any) -> None:
    """Only such a queued run is spared, and does not count. Running, older and scheduled runs are closed."""
    database.add_dag("orders")
    now = datetime.now(tz=timezone.utc)
    database.add_run("orders", "late", queued_at=now)
    database.add_run("orders", "early", queued_at=now - timedelta(seconds=2))
    database.add_run("orders", "scheduled", run_type="scheduled", queued_at=now)
    database.add_run("orders", "running", state="running", queued_at=now)
    since = now - timedelta(seconds=1)
    assert agent_db.open_runs(up_to=agent_db.newest_run(), spared_since=since) == 3
    assert agent_db.close_runs("closed: because", spared_since=since) == 3
    assert {run for run, state in database.runs().items() if state == "queued"} == {"late"}
    assert agent_db.open_runs(up_to=agent_db.newest_run(), spared_since=since) == 0


def test_many_runs_are_closed_in_batches(database: Database, agent_db: Any) -> None:
    """The transactions are short, because the scheduler passes over locked runs."""
    database.add_dag("orders")
    for number in range(450):
        database.add_run("orders", f"r{number}")
    assert agent_db.close_runs("closed: because") == 450


def test_pausing_and_listing_leave_the_exempt_alone(database: Database, agent_db: Any) -> None:
    """The snapshot, and the pause of a region that adopts, cover the same DAGs."""
    for dag_id, tags in (("orders", ()), ("billing", ()), ("by_id", ()), ("by_tag", ("dr:control",))):
        database.add_dag(dag_id, tags=tags)
    database.add_dag("asleep", is_paused=True)
    assert agent_db.unpaused_dags() == ("billing", "orders")
    assert agent_db.pause_all() == 2
    assert agent_db.unpaused_dags() == ()
    assert not database.dag("by_id").is_paused
    assert not database.dag("by_tag").is_paused


def test_the_note_of_a_hold_is_removed_when_the_run_starts(database: Database, agent_db: Any) -> None:
    """No code depends on a note, but users read it, so an outdated note must not stay."""
    database.add_dag("orders")
    database.add_run("orders", "waits", note="[mwaa-dr] held: why")
    database.add_run("orders", "runs", state="running", note="Ann\n[mwaa-dr] held: why")
    database.add_run("orders", "ran", state="success", note="[mwaa-dr] held: why")
    database.add_run("orders", "skipped", state="success", note="[mwaa-dr] skipped: why")
    database.add_run("orders", "resumed", state="running", note="Ann\n[mwaa-dr] held: why; resumed: it was interrupted")
    assert agent_db.drop_held_notes() == 1
    assert database.note("resumed") == "Ann\n[mwaa-dr] resumed: it was interrupted"
    assert database.note("waits") == "[mwaa-dr] held: why"
    assert database.note("runs") == "Ann"
    assert database.note("ran") is None
    assert database.note("skipped") == "[mwaa-dr] skipped: why"


def test_live_schedulers_are_listed_oldest_first(database: Database, metadata_db: Any) -> None:
    """The first one leads. Dead schedulers and other components do not count."""
    from airflow.jobs.job import Job

    jobs = Job.__table__
    now = datetime.now(tz=timezone.utc)
    rows = [
        {"job_type": "SchedulerJob", "state": "running", "latest_heartbeat": now - timedelta(minutes=5)},
        {"job_type": "SchedulerJob", "state": "running", "latest_heartbeat": now},
        {"job_type": "TriggererJob", "state": "running", "latest_heartbeat": now},
        {"job_type": "SchedulerJob", "state": "success", "latest_heartbeat": now},
        {"job_type": "SchedulerJob", "state": "running", "latest_heartbeat": now},
    ]
    with database.settings.engine.begin() as connection:
        connection.execute(jobs.delete())
        ids = [connection.execute(jobs.insert().values(row)).inserted_primary_key[0] for row in rows]
    job = Job()
    job.id, job.job_type, job.latest_heartbeat = ids[1], "SchedulerJob", now
    db = metadata_db.MetadataDb(job, exempt_dags=())
    assert db.alive_schedulers() == (str(ids[1]), str(ids[4]))
    assert (db.job_id, db.is_scheduler, db.pulse()) == (str(ids[1]), True, now)


def test_the_last_task_with_a_worker_is_found(database: Database, agent_db: Any) -> None:
    """A task that the scheduler closed by itself had no worker, and proves nothing about the fence."""
    since = datetime.now(tz=timezone.utc) - timedelta(minutes=5)
    database.add_dag("orders")
    database.add_run("orders", "r1", state="success", tasks=1, last_scheduling_decision=datetime.now(tz=timezone.utc))
    assert agent_db.last_task_end(since) is None
    ended = datetime.now(tz=timezone.utc)
    database.update(database.tables.tasks, state="success", start_date=ended, end_date=ended, hostname="")
    assert agent_db.last_task_end(since) is None
    database.update(database.tables.tasks, hostname="worker-1")
    assert agent_db.last_task_end(since) == ended


def queue_order(database: Database) -> list[str]:
    """Return the ids of the queued runs in the order in which the scheduler starts them."""
    session = database.settings.Session()
    try:
        if hasattr(database.DagRun, "get_queued_dag_runs_to_set_running"):
            found = database.DagRun.get_queued_dag_runs_to_set_running(session)
        else:
            found = database.DagRun.next_dagruns_to_examine("queued", session)
        return [run.run_id for run in found]
    finally:
        database.settings.Session.remove()


def test_held_runs_of_a_dag_keep_their_order(database: Database, metadata_db: Any) -> None:
    """The oldest run comes first, whichever was held last. A run that was never held does not come after them."""
    database.add_dag("orders", max_active_runs=2)
    for run_id in ("r1", "r2", "r3"):
        database.add_run("orders", run_id)
    for run_id in ("r3", "r2", "r1"):
        database.start(run_id, lambda run: metadata_db.hold_run(run, "held: a"))
    assert queue_order(database) == ["r1", "r2", "r3"]
    database.add_dag("failover")
    database.add_run("failover", "r4")
    assert queue_order(database) == ["r4", "r1", "r2", "r3"]
