"""Which queued runs unfinished tasks wait for, in a real metadata database of the installed Airflow."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.conftest import NOW

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

PARENT = {"trigger_dag_id": "child", "trigger_run_id": None, "conf": None, "wait_for_completion": True}
SENSOR = {"external_dag_id": "child", "external_task_id": None, "external_task_ids": None}
CHILD = ("child", "c1")


class Work:
    """Running runs with a task that waits, as Airflow stores them."""

    def __init__(self, database: Database) -> None:
        from airflow.models.renderedtifields import RenderedTaskInstanceFields

        self.database = database
        self.rendered = RenderedTaskInstanceFields.__table__
        with database.settings.engine.begin() as connection:
            connection.execute(self.rendered.delete())
        database.add_dag("parent")
        database.add_dag("child")

    def add(
        self, run_id: str = "p1", *, state: str = "running", run: str = "running", fields: Any = None, **values: Any
    ) -> None:
        """Add a run of ``parent`` with one task instance."""
        self.database.add_run("parent", run_id, state=run, tasks=1)
        tasks = self.database.tables.tasks
        with self.database.settings.engine.begin() as connection:
            of_run = tasks.update().where(tasks.c.run_id == run_id)
            connection.execute(of_run.values(state=state, **{"operator": "AnyOperator", **values}))
            if fields is not None:
                row = {"dag_id": "parent", "run_id": run_id, "task_id": "t0", "map_index": -1}
                connection.execute(self.rendered.insert().values(**row, rendered_fields=fields))

    def push(self, value: object, run_id: str = "p1", *, map_index: int = -1) -> None:
        """Store an XCom as a worker of this version does."""
        import inspect

        from airflow.models import xcom

        model = getattr(xcom, "XComModel", None) or xcom.XCom
        # The API server of newer versions stores what the worker has serialized.
        as_is = {"serialize": False} if "serialize" in inspect.signature(model.set).parameters else {}
        session = self.database.settings.Session()
        try:
            model.set(
                key="trigger_run_id",
                value=value,
                dag_id="parent",
                task_id="t0",
                run_id=run_id,
                map_index=map_index,
                session=session,
                **as_is,
            )
            session.commit()
        finally:
            self.database.settings.Session.remove()

    def date_of(self, run_id: str) -> Any:
        runs = self.database.tables.runs
        with self.database.settings.engine.connect() as connection:
            row = connection.execute(runs.select().where(runs.c.run_id == run_id)).one()
        return row.logical_date if "logical_date" in runs.c else row.execution_date

    def set_date(self, run_id: str, at: Any) -> None:
        runs = self.database.tables.runs
        name = "logical_date" if "logical_date" in runs.c else "execution_date"
        with self.database.settings.engine.begin() as connection:
            connection.execute(runs.update().where(runs.c.run_id == run_id).values({name: at}))


@pytest.fixture
def work(database: Database) -> Work:
    return Work(database)


@pytest.mark.parametrize("state", ["running", "deferred"])
def test_the_child_of_a_task_that_waits_for_it_is_awaited(work: Work, agent_db: Any, state: str) -> None:
    """Only the child that its XCom names; its own run must be in progress."""
    work.add(state=state, fields=PARENT)
    work.database.add_run(*CHILD)
    work.database.add_run("child", "c2")
    assert agent_db.waits().awaited == frozenset(), "without the XCom, it is not known which run it waits for"
    work.push("c1")
    found = agent_db.waits()
    assert found.awaited == {CHILD}
    assert found.tasks == ("parent p1: task t0 waits for child c1, which is held",)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"state": "success"}, id="the task has ended"),
        pytest.param({"state": "up_for_retry"}, id="it begins again, and triggers another run"),
        pytest.param({"run": "failed"}, id="its run has ended"),
        pytest.param({"run": "queued"}, id="its run has not begun"),
        pytest.param({"fields": {**PARENT, "wait_for_completion": False}}, id="it does not wait"),
        pytest.param({"fields": {**PARENT, "trigger_dag_id": "other"}}, id="it triggered a run of another DAG"),
        pytest.param({"fields": None}, id="no rendered fields are stored"),
    ],
)
def test_no_other_run_is_awaited(work: Work, agent_db: Any, values: dict[str, Any]) -> None:
    """A run starts during a drain only if a readable value shows that unfinished work waits for it."""
    work.add(**{"fields": PARENT, **values})
    work.push("c1")
    work.database.add_run(*CHILD)
    assert agent_db.waits().awaited == frozenset()


@pytest.mark.parametrize("value", [None, ["c1"], {"run": "c1"}, "s3://bucket/key"])
def test_an_xcom_that_is_no_run_id_names_no_run(work: Work, agent_db: Any, value: object) -> None:
    """An XCom backend may store a reference."""
    work.add(fields=PARENT)
    work.push(value)
    work.database.add_run(*CHILD)
    assert agent_db.waits().awaited == frozenset()


@pytest.mark.parametrize("state", ["running", "up_for_reschedule", "scheduled", "queued"])
def test_a_sensor_waits_for_the_run_with_the_date_of_its_own_run(work: Work, agent_db: Any, state: str) -> None:
    """A run of the same DAG with another date stays held."""
    work.add(state=state, fields=SENSOR)
    work.database.add_run(*CHILD)
    work.database.add_run("child", "c2")
    assert agent_db.waits().awaited == frozenset()
    work.set_date("c1", work.date_of("p1"))
    assert agent_db.waits().awaited == {CHILD}


def test_a_deferred_sensor_waits_for_the_dates_that_its_trigger_stores(work: Work, agent_db: Any) -> None:
    """They differ from its own date if it has an execution_delta. If they cannot be read, all runs stay held."""
    from airflow.models.trigger import Trigger

    earlier = NOW - timedelta(hours=1)
    session = work.database.settings.Session()
    try:
        trigger = Trigger(classpath="any.Trigger", kwargs={"external_dag_id": "child", "logical_dates": [earlier]})
        session.add(trigger)
        session.commit()
        trigger_id = trigger.id
    finally:
        work.database.settings.Session.remove()
    work.add(state="deferred", fields=SENSOR, trigger_id=trigger_id)
    work.database.add_run(*CHILD)
    work.database.add_run("child", "c2")
    work.set_date("c1", earlier)
    work.set_date("c2", work.date_of("p1"))
    assert agent_db.waits().awaited == {CHILD}
    table = Trigger.__table__
    work.database.update(table, kwargs="not readable")
    assert agent_db.waits().awaited == frozenset()
    with work.database.settings.engine.begin() as connection:
        connection.execute(work.database.tables.tasks.update().values(trigger_id=None))
        connection.execute(table.delete().where(table.c.id == trigger_id))


def test_a_task_that_waits_for_something_else_is_named(work: Work, agent_db: Any) -> None:
    """The message of a drain that is too long names it, and the class of its operator."""
    work.add(state="up_for_reschedule", operator="S3KeySensor")
    work.add("p2", state="running", operator="PythonOperator")
    assert agent_db.waits().tasks == ("parent p1: task t0 (S3KeySensor) is up_for_reschedule",)


def test_a_run_of_a_paused_dag_is_idle_and_waits_for_nothing(work: Work, agent_db: Any) -> None:
    """Airflow does not continue it. While one of its tasks executes, it is not idle."""
    work.add(state="up_for_reschedule", fields=SENSOR)
    work.database.add_run(*CHILD)
    work.set_date("c1", work.date_of("p1"))
    assert (agent_db.waits().awaited, agent_db.waits().idle) == ({CHILD}, 0)
    work.database.update(work.database.tables.dags, is_paused=True)
    assert (agent_db.waits().awaited, agent_db.waits().idle) == (frozenset(), 1)
    work.database.update(work.database.tables.tasks, state="running")
    assert (agent_db.waits().awaited, agent_db.waits().idle) == ({CHILD}, 0)


def test_an_exempt_dag_neither_waits_nor_is_idle(work: Work, agent_db: Any) -> None:
    """The drain does not wait for it."""
    with work.database.settings.engine.begin() as connection:
        connection.execute(work.database.tables.tags.insert().values(dag_id="parent", name="dr:control"))
    work.add(fields=PARENT)
    work.push("c1")
    work.database.add_run(*CHILD)
    work.database.update(work.database.tables.dags, is_paused=True)
    found = agent_db.waits()
    assert (found.awaited, found.tasks, found.idle) == (frozenset(), (), 0)


def test_awaited_runs_come_before_all_others_in_the_queue(work: Work, agent_db: Any) -> None:
    """The scheduler examines only the first runs of its queue, and a held run is at the place of its date."""
    for run_id in ("c1", "c2", "c3"):
        work.database.add_run("child", run_id, last_scheduling_decision=NOW)
    work.database.add_run("child", "c4", state="running", last_scheduling_decision=NOW)
    agent_db.put_first([("child", "c2"), ("child", "c4"), ("child", "missing")])
    runs = work.database.tables.runs
    with work.database.settings.engine.connect() as connection:
        first = [row.run_id for row in connection.execute(runs.select()) if row.last_scheduling_decision is None]
    assert first == ["c2"]
