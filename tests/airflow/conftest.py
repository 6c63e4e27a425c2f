"""Fixtures for tests that need an installed Airflow: a database of their own, created once a session."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.gate import View
from airflow_provider_mwaa_dr.core.state import initial

if importlib.util.find_spec("airflow") is None:
    collect_ignore_glob = ["test_*.py", "*/test_*.py"]
else:
    # Airflow reads these variables once a process, when it is imported.
    _HOME = tempfile.mkdtemp(prefix="mwaa-dr-airflow-")
    atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
    os.environ.update(
        AIRFLOW_HOME=_HOME,
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__UNIT_TEST_MODE="False",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=os.environ.get("MWAA_DR_TEST_DATABASE", f"sqlite:///{_HOME}/airflow.db"),
    )

HERE, THERE = "us-east-1", "us-east-2"
NOW = datetime(2026, 11, 20, tzinfo=timezone.utc)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder. Warnings that Airflow itself causes are no errors in them."""
    here = os.path.dirname(__file__)  # noqa: PTH120
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.airflow)
            item.add_marker(pytest.mark.filterwarnings("default"))


class Database:
    """Rows as a scheduler finds them. They are written by table, because the models' constructors differ by version."""

    def __init__(self) -> None:
        from airflow import settings
        from airflow.models.dag import DagModel, DagTag
        from airflow.models.dagrun import DagRun, DagRunNote
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.models.taskinstance import TaskInstance

        self.DagModel, self.DagRun, self.TaskInstance = DagModel, DagRun, TaskInstance
        self.settings = settings
        versions = DagRun.metadata.tables.get("dag_version")
        self.tables = SimpleNamespace(
            notes=DagRunNote.__table__,
            tasks=TaskInstance.__table__,
            runs=DagRun.__table__,
            serialized=SerializedDagModel.__table__,
            **({"versions": versions} if versions is not None else {}),
            tags=DagTag.__table__,
            dags=DagModel.__table__,
        )

    def clear(self) -> None:
        with self.settings.engine.begin() as connection:
            for table in vars(self.tables).values():
                connection.execute(table.delete())

    def add_dag(self, dag_id: str, *, tags: tuple[str, ...] = (), **values: Any) -> None:
        columns = self.tables.dags.c
        row = {
            "dag_id": dag_id,
            "is_paused": False,
            "max_active_runs": 1,
            "max_active_tasks": 16,
            "max_consecutive_failed_dag_runs": 0,
            "has_task_concurrency_limits": False,
            **values,
        }
        if "is_stale" in columns:
            row |= {"is_stale": False}
        else:
            row |= {"is_active": True}
        if "bundle_name" in columns:
            from airflow.models.dagbundle import DagBundleModel

            row |= {"bundle_name": "dags-folder"}
            with self.settings.engine.begin() as connection:
                bundles = DagBundleModel.__table__
                if not connection.execute(bundles.select().where(bundles.c.name == "dags-folder")).first():
                    connection.execute(bundles.insert().values(name="dags-folder", active=True))
        with self.settings.engine.begin() as connection:
            connection.execute(self.tables.dags.insert().values(row))
            for tag in tags:
                connection.execute(self.tables.tags.insert().values(dag_id=dag_id, name=tag))

    def serialize(self, dag: Any) -> None:
        """Store a DAG as the DAG processor does, and a new version of it where Airflow has versions."""
        from airflow.models.serialized_dag import SerializedDagModel

        values: dict[str, Any] = {}
        with suppress(ImportError):
            from airflow.serialization.serialized_objects import LazyDeserializedDAG

            lazy = getattr(LazyDeserializedDAG, "from_dag", None)
            if lazy is None:
                from airflow.serialization.serialized_objects import SerializedDAG

                dag = LazyDeserializedDAG(data=SerializedDAG.to_dict(dag))
            else:
                dag = lazy(dag)
            values["bundle_name"] = "dags-folder"
        session = self.settings.Session()
        try:
            SerializedDagModel.write_dag(dag, **values, session=session)
            session.commit()
        finally:
            self.settings.Session.remove()

    def scheduler(self) -> Any:
        """Return a scheduler that does nothing by itself."""
        from airflow.jobs.job import Job
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

        return SchedulerJobRunner(Job())

    def schedule(self, run_id: str) -> dict[tuple[str, int], str | None]:
        """
        Let the scheduler start queued runs, and decide on the tasks of a run.

        :return: the states of its task instances. A task in "scheduled" may go to a worker.
        """
        from sqlalchemy import select

        session = self.settings.Session()
        try:
            scheduler = self.scheduler()
            scheduler._start_queued_dagruns(session)
            session.flush()
            run = session.scalars(select(self.DagRun).where(self.DagRun.run_id == run_id)).one()
            assert str(run.state) == "running", f"{run_id} was not started"
            scheduler._schedule_dag_run(run, session)
            session.commit()
        finally:
            self.settings.Session.remove()
        return self.task_states(run_id)

    def task_states(self, run_id: str) -> dict[tuple[str, int], str | None]:
        """Return the state of each task instance, by task id and map index."""
        with self.settings.engine.connect() as connection:
            tasks = self.tables.tasks
            rows = connection.execute(tasks.select().where(tasks.c.run_id == run_id)).all()
        return {(row.task_id, row.map_index): row.state for row in rows}

    def end(self, run_id: str, state: str, **tasks: str) -> None:
        """End a run and its tasks, with the given states."""
        table, runs = self.tables.tasks, self.tables.runs
        with self.settings.engine.begin() as connection:
            for task_id, task_state in tasks.items():
                of_task = table.update().where(table.c.run_id == run_id, table.c.task_id == task_id)
                connection.execute(of_task.values(state=task_state, hostname="worker"))
            connection.execute(runs.update().where(runs.c.run_id == run_id).values(state=state))

    def forget_history(self) -> None:
        """Become another region: the same DAGs, and no runs."""
        with self.settings.engine.begin() as connection:
            for table in (self.tables.notes, self.tables.tasks, self.tables.runs):
                connection.execute(table.delete())
            connection.execute(self.tables.dags.update().values(next_dagrun=None, next_dagrun_create_after=None))

    def add_run(
        self, dag_id: str, run_id: str, *, state: str = "queued", tasks: int = 0, note: str | None = None, **values: Any
    ) -> None:
        columns = self.tables.runs.c
        with self.settings.engine.begin() as connection:
            at = NOW + timedelta(minutes=connection.execute(self.tables.runs.select()).all().__len__())
            row = {
                "dag_id": dag_id,
                "run_id": run_id,
                "run_type": "manual",
                "state": state,
                "queued_at": datetime.now(tz=timezone.utc),
                "data_interval_start": at,
                "data_interval_end": at,
                **values,
            }
            row["logical_date" if "logical_date" in columns else "execution_date"] = at
            if "run_after" in columns:
                row["run_after"] = at
            run_pk = connection.execute(self.tables.runs.insert().values(row)).inserted_primary_key[0]
            for number in range(tasks):
                connection.execute(
                    self.tables.tasks.insert().values(
                        dag_id=dag_id,
                        run_id=run_id,
                        task_id=f"t{number}",
                        map_index=-1,
                        pool="default_pool",
                        pool_slots=1,
                        max_tries=0,
                    )
                )
            if note is not None:
                connection.execute(self.tables.notes.insert().values(dag_run_id=run_pk, content=note))

    def update(self, table: Any, **values: Any) -> None:
        with self.settings.engine.begin() as connection:
            connection.execute(table.update().values(values))

    def runs(self) -> dict[str, str]:
        with self.settings.engine.connect() as connection:
            return {row.run_id: row.state for row in connection.execute(self.tables.runs.select())}

    def tasks(self, run_id: str) -> set[str | None]:
        with self.settings.engine.connect() as connection:
            tasks = self.tables.tasks
            return {row.state for row in connection.execute(tasks.select().where(tasks.c.run_id == run_id))}

    def note(self, run_id: str) -> str | None:
        runs, notes = self.tables.runs, self.tables.notes
        with self.settings.engine.connect() as connection:
            joined = notes.join(runs, notes.c.dag_run_id == runs.c.id).select().where(runs.c.run_id == run_id)
            row = connection.execute(joined).first()
            return None if row is None else row.content

    def dag(self, dag_id: str) -> Any:
        with self.settings.engine.connect() as connection:
            return connection.execute(self.tables.dags.select().where(self.tables.dags.c.dag_id == dag_id)).one()

    def start(self, run_id: str, act: Callable[[Any], object], *, dag: Any = None) -> list[str]:
        """
        Do what the scheduler does when it starts a run: set it to running, call the hook, commit.

        :return: the statements that were sent from the call of the hook on.
        """
        from airflow.utils.sqlalchemy import prohibit_commit
        from sqlalchemy import event, select

        statements: list[str] = []

        def count(*args: Any) -> None:
            statements.append(args[2])

        session = self.settings.Session()
        try:
            with prohibit_commit(session) as guard:
                run = session.scalars(select(self.DagRun).where(self.DagRun.run_id == run_id)).one()
                run.dag = dag or SimpleNamespace(tags=(), deadline=None, max_active_runs=1, timetable=_Never())
                run.state = "running"
                run.start_date = datetime.now(tz=timezone.utc)
                event.listen(self.settings.engine, "before_cursor_execute", count)
                act(run)
                guard.commit()
        finally:
            if event.contains(self.settings.engine, "before_cursor_execute", count):
                event.remove(self.settings.engine, "before_cursor_execute", count)
            session.close()
            self.settings.Session.remove()
        return statements


class _Never:
    """A timetable that schedules nothing."""

    can_be_scheduled = False


@pytest.fixture(scope="session")
def _migrated() -> None:
    """Create the tables; copy them from the file ``MWAA_DR_MIGRATED_DATABASE``, if it is set, which is much faster."""
    database = f"{_HOME}/airflow.db"
    migrated = os.environ.get("MWAA_DR_MIGRATED_DATABASE")
    if migrated and os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{database}":
        shutil.copy(migrated, database)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)


@pytest.fixture
def database(_migrated: None) -> Iterator[Database]:
    """A migrated and empty metadata database."""
    database = Database()
    database.clear()
    yield database
    database.clear()


@pytest.fixture
def listener() -> ModuleType:
    from airflow_provider_mwaa_dr.plugins import listener

    return listener


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that gives a listener a gate, as if its agent had read that a certain region is active."""

    def put(listener: ModuleType, active: str | None, **config: Any) -> Any:
        settings = DRConfig(**{"enabled": True, "region": HERE, "state_table": "t", "environments": {}, **config})
        from airflow_provider_mwaa_dr.plugins.gate import Gate

        gate = Gate(config=settings, job=SimpleNamespace(), clock=SystemClock())
        view = None
        if active is not None:
            state = initial(active, lease_s=60, by="t", at=datetime.now(tz=timezone.utc))
            registered = frozenset({active, HERE})
            now = SystemClock().monotonic()
            view = View(state=state, read_at=now, reconciled_epoch=0, registered=registered, confirmed_at=now)
        gate._loop, gate._is_alive = SimpleNamespace(view=view), True
        monkeypatch.setattr(listener, "_gate", gate)
        return gate

    return put


@pytest.fixture
def database_with_run(database: Database) -> Database:
    database.add_dag("orders")
    database.add_run("orders", "r1", tasks=3)
    return database


def start(database: Database, listener: ModuleType, *, run_id: str = "r1", **kwargs: Any) -> list[str]:
    """Let the scheduler start a run, with the hook of *listener*; return the statements as :meth:`Database.start`."""
    return database.start(run_id, lambda run: listener.on_dag_run_running(dag_run=run), **kwargs)
