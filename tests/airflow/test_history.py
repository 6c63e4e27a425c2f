"""The history that a region adopts is enough for the installed Airflow to continue as a single Airflow would."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mwaa_dr.aws.dynamodb import runs_store
from airflow_provider_mwaa_dr.core import bookkeeping
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunStatus

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

AT = datetime(2026, 10, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
ONE, TWO = ("one", -1), ("two", -1)


@pytest.fixture
def db(database: Database) -> Any:
    from airflow_provider_mwaa_dr.plugins.metadata.database import MetadataDb

    database.add_dag("orders", max_active_runs=16)
    return MetadataDb(SimpleNamespace(), exempt_dags=[])


def operator() -> Any:
    try:
        from airflow.providers.standard.operators.bash import BashOperator
    except ImportError:
        from airflow.operators.bash import BashOperator
    return BashOperator


def bash(task_id: str, **values: Any) -> Any:
    return operator()(task_id=task_id, bash_command="true", **values)


def chain(*, catchup: bool = True, schedule: Any = "@daily", max_active_runs: int = 16, **first: Any) -> Any:
    """A DAG of two tasks in sequence; *first* are the arguments of the first task."""
    from airflow import DAG

    limits = {"catchup": catchup, "max_active_runs": max_active_runs}
    with DAG("orders", schedule=schedule, start_date=AT - 100 * DAY, **limits) as dag:
        bash("one", **first) >> bash("two")
    return dag


def interval(day: float, status: RunStatus = RunStatus.OPEN, **values: Any) -> LedgerRun:
    at = AT + day * DAY
    run = LedgerRun(
        dag_id="orders",
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


def ledger_of(db: Any, run_id: str, *, status: RunStatus | None = None) -> LedgerRun:
    """Return a run of this region as another region reads it from the ledger."""
    (row,) = db.runs([("orders", run_id)])
    run = bookkeeping._to_run(row, status or RunStatus(row.state), epoch=1)
    if run.has_ended:
        run = replace(run, tasks=tuple(db.tasks([run.key]).get(run.key, ())))
    text = json.dumps(runs_store._run_to_json(run))
    return runs_store._run_from_json(json.loads(text))


def executed(database: Database, db: Any, run: LedgerRun, one: str, two: str) -> None:
    """Execute a run in this region, up to the given states of its tasks."""
    db.resume([replace(run, status=RunStatus.OPEN)], "resumed")
    database.schedule(run.run_id)
    database.end(run.run_id, "success" if one == two == "success" else "failed", one=one, two=two)


def next_one_starts(database: Database, db: Any, day: float = 3) -> bool:
    """Queue the next interval, let the scheduler decide, and return whether its first task goes to a worker."""
    db.resume([interval(day)], "resumed")
    states = database.schedule(f"scheduled__{day}")
    assert set(states) == {ONE, TWO}, "the scheduler has created its task instances"
    return states[ONE] == "scheduled"


DEPENDS = [{"depends_on_past": True}, {"wait_for_downstream": True}]


@pytest.mark.parametrize("has_older_history", [False, True])
@pytest.mark.parametrize("depends", DEPENDS)
@pytest.mark.parametrize(
    ("one", "two", "starts"),
    [
        ("success", "success", (True, True)),
        ("skipped", "skipped", (True, True)),
        ("failed", "upstream_failed", (False, False)),
        ("success", "failed", (True, False)),
    ],
)
def test_the_next_run_waits_exactly_where_it_would_have_waited_in_the_other_region(
    database: Database,
    db: Any,
    depends: dict[str, Any],
    one: str,
    two: str,
    starts: tuple[bool, bool],
    has_older_history: bool,
) -> None:
    """This holds for every outcome of the last run, and with and without older history in the region that adopts it."""
    database.serialize(chain(**depends))
    executed(database, db, interval(2), one, two)
    expected = starts[DEPENDS.index(depends)]
    assert next_one_starts(database, db) is expected, "in one Airflow"
    run = ledger_of(db, "scheduled__2")
    database.forget_history()
    if has_older_history:
        executed(database, db, interval(0), "success", "success")
    assert db.adopt([run], "adopted") == 1
    assert database.task_states("scheduled__2") == {ONE: one, TWO: two}
    assert next_one_starts(database, db) is expected, "in another one"


def test_without_the_tasks_the_next_run_would_hang_or_run_wrongly(database: Database, db: Any) -> None:
    """Control case: the effect of an adopted run without task instances."""
    database.serialize(chain(depends_on_past=True))
    executed(database, db, interval(0), "success", "success")
    assert db.adopt([interval(2, RunStatus.SUCCESS)], "adopted") == 1
    assert next_one_starts(database, db) is False
    database.forget_history()
    database.serialize(chain(depends_on_past=True, ignore_first_depends_on_past=True))
    assert db.adopt([interval(2, RunStatus.FAILED)], "adopted") == 1
    assert next_one_starts(database, db) is True


@pytest.mark.parametrize("state", ["success", "failed"])
def test_without_catchup_the_next_run_depends_on_a_manual_run_too(database: Database, db: Any, state: str) -> None:
    """The manual run is adopted as a manual run, after the interval before it."""
    database.serialize(chain(catchup=False, depends_on_past=True))
    manual = interval(2.5, run_type="manual", run_id="by hand")
    executed(database, db, interval(2), "success", "success")
    executed(database, db, manual, state, state)
    runs = [ledger_of(db, run_id) for run_id in ("scheduled__2", "by hand")]
    database.forget_history()
    assert db.adopt(runs, "adopted") == 2
    assert next_one_starts(database, db) is (state == "success")


def test_a_run_that_a_standby_skipped_gets_the_outcome_of_the_active_region(database: Database, db: Any) -> None:
    """The standby's own scheduler had created the run, too, and the gate had skipped it."""
    database.serialize(chain(depends_on_past=True))
    executed(database, db, interval(2), "failed", "upstream_failed")
    run = ledger_of(db, "scheduled__2")
    database.forget_history()
    executed(database, db, interval(2), "skipped", "skipped")
    for _ in range(2):
        assert db.adopt([run], "adopted") == 0
    assert database.runs() == {"scheduled__2": "failed"}
    assert database.note("scheduled__2") == "[mwaa-dr] adopted"
    assert next_one_starts(database, db) is False


def test_a_run_that_another_region_finished_keeps_no_failed_task(database: Database, db: Any) -> None:
    """
    A task of the run failed when this region stopped it. The other region finished the run. Then the role comes back.
    """
    database.serialize(chain(depends_on_past=True))
    executed(database, db, interval(2), "success", "success")
    run = ledger_of(db, "scheduled__2")
    database.forget_history()
    executed(database, db, interval(2), "failed", "skipped")
    db.apply_outcomes([replace(run, tasks=())], "it ended elsewhere")
    assert next_one_starts(database, db) is False, "the control: the run's result alone is not enough"
    database.end("scheduled__3", "failed")
    db.apply_outcomes([run], "it ended elsewhere")
    assert next_one_starts(database, db) is True


def test_of_two_resumed_runs_the_second_waits_for_the_first(database: Database, db: Any) -> None:
    """The interval before them is adopted with its tasks. Both resumed runs execute all their tasks again."""
    database.serialize(chain(depends_on_past=True))
    executed(database, db, interval(0), "success", "success")
    executed(database, db, interval(2), "success", "success")
    run = ledger_of(db, "scheduled__2")
    database.forget_history()
    executed(database, db, interval(0), "success", "success")
    db.adopt([run], "adopted")
    db.resume([interval(3), interval(4)], "resumed")
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
    runs = [interval(1), interval(0)]
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


def depend_on_past(database: Database, db: Any, *, max_active_runs: int, **settings: Any) -> None:
    """Store a DAG with this limit whose first task depends on the previous run, and execute its first run."""
    database.serialize(chain(depends_on_past=True, max_active_runs=max_active_runs, **settings))
    database.update(database.tables.dags, max_active_runs=max_active_runs)
    executed(database, db, interval(1), "success", "success")


@pytest.fixture
def full(database: Database, db: Any) -> list[LedgerRun]:
    """A DAG at its limit of two runs, with depends_on_past, and an earlier run that the ledger published last."""
    depend_on_past(database, db, max_active_runs=2)
    db.resume([interval(3), interval(4)], "resumed")
    for run_id in ("scheduled__3", "scheduled__4"):
        database.schedule(run_id)
    late = interval(2)
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
    assert db.make_room([interval(5)]) == 0
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
    db.resume([interval(3, run_id="manual__3", run_type="manual", run_after=AT + 3 * DAY)], "resumed")
    database.schedule("manual__3")
    late = interval(2, run_after=AT + 9 * DAY)
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
        db.resume([interval(4, run_id="backfill__4", run_type="backfill")], "resumed")
    db.resume([interval(3)], "resumed")
    database.schedule("scheduled__3")
    late = interval(2)
    db.resume([late], "resumed")
    with pytest.raises(AssertionError, match="was not started"):
        database.schedule("scheduled__2")
    end_task(database, "scheduled__3", "one", "success", minutes_ago=2)
    assert db.make_room([late]) == 1
    assert database.schedule("scheduled__2")[ONE] == "scheduled"
    assert database.runs()["scheduled__3" if is_2 else "backfill__4"] == "queued"


def test_a_mapped_task_depends_on_every_mapped_task_of_the_previous_run(database: Database, db: Any) -> None:
    """The map indexes are adopted. One failed index holds the next run."""
    from airflow import DAG

    with DAG("orders", schedule="@daily", start_date=AT - 100 * DAY, catchup=True) as dag:
        one = operator().partial(task_id="mapped", depends_on_past=True).expand(bash_command=["a", "b", "c"])
        one >> bash("two")
    database.serialize(dag)
    for state, goes in (("success", "scheduled"), ("failed", None)):
        database.forget_history()
        db.resume([interval(2)], "resumed")
        assert database.schedule("scheduled__2")["mapped", 2] == "scheduled"
        database.end("scheduled__2", "failed", one="success", two="success", mapped="success")
        with database.settings.engine.begin() as connection:
            tasks = database.tables.tasks
            of_one = tasks.update().where(tasks.c.task_id == "mapped", tasks.c.map_index == 1)
            connection.execute(of_one.values(state=state))
        before = database.task_states("scheduled__2")
        run = ledger_of(db, "scheduled__2")
        database.forget_history()
        db.adopt([run], "adopted")
        assert database.task_states("scheduled__2") == before
        db.resume([interval(3)], "resumed")
        assert database.schedule("scheduled__3")["mapped", 0] == goes


def test_only_dags_that_depend_on_their_past_publish_their_tasks(database: Database, db: Any) -> None:
    """The newest serialized DAG decides, compressed or not. It is read once for each version."""
    database.serialize(chain())
    executed(database, db, interval(2), "success", "success")
    key = ("orders", "scheduled__2")
    tasks = [("one", -1, "success"), ("two", -1, "success")]
    assert db.tasks([key]) == {}
    database.serialize(chain(retries=1, depends_on_past=True))
    assert db.tasks([key, ("orders", "no such run"), ("gone", "r")]) == {key: tasks}
    database.serialize(chain(retries=2))
    assert db.tasks([key]) == {}
    serialized = database.tables.serialized
    dag = json.dumps({"dag": {"tasks": [{"depends_on_past": True}]}}).encode()
    with database.settings.engine.begin() as connection:
        packed = {"data": None, "data_compressed": zlib.compress(dag), "dag_hash": "packed"}
        connection.execute(serialized.update().values(packed))
    assert db.tasks([key]) == {key: tasks}
