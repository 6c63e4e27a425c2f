"""Which triggers of the database are watchers of assets, and which belong to deferred tasks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

pytest.importorskip("airflow")

from tests.airflow.conftest import Database

NOW = datetime.now(tz=timezone.utc)


def schema() -> Any:
    from airflow_provider_mwaa_dr.plugins.metadata import schema

    return schema


@pytest.fixture
def triggers(database: Database) -> Iterator[Triggers]:
    found = Triggers(database)
    found.clear()
    yield found
    found.clear()


class Triggers:
    """Rows of triggers, with what needs them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        tables = database.DagRun.metadata.tables
        self.triggers, self.jobs, self.assets = schema().TRIGGERS, schema().JOBS, schema().ASSETS
        self.consumers, self.watchers = schema().ASSET_CONSUMERS, schema().WATCHERS
        self.active = tables.get("asset_active")
        # They refer to triggers, in some versions.
        self.deadlines, self.callbacks = tables.get("deadline"), tables.get("callback")

    def clear(self) -> None:
        with self.database.settings.engine.begin() as connection:
            connection.execute(self.database.tables.tasks.delete())
            for others in (self.deadlines, self.callbacks):
                if others is not None:
                    connection.execute(others.delete())
            for table in (self.watchers, self.consumers, self.active, self.assets, self.triggers, self.jobs):
                if table is not None:
                    connection.execute(table.delete())

    def add(self, *, classpath: str = "some.Trigger", triggerer: int | None = 5) -> int:
        with self.database.settings.engine.begin() as connection:
            values = {"classpath": classpath, "kwargs": "{}", "created_date": NOW, "triggerer_id": triggerer}
            return int(connection.execute(self.triggers.insert().values(values)).inserted_primary_key[0])

    def watch(self, name: str, *consumers: str) -> int:
        """Add an asset with a watcher, and the DAGs that it starts."""
        trigger_id = self.add()
        with self.database.settings.engine.begin() as connection:
            columns = self.assets.c
            values = {"uri": f"s3://{name}", "name": name, "group": "asset", "extra": {}, "created_at": NOW}
            values |= {"updated_at": NOW}
            row = {key: value for key, value in values.items() if key in columns}
            asset_id = connection.execute(self.assets.insert().values(row)).inserted_primary_key[0]
            if self.watchers is not None:
                watcher = {"asset_id": asset_id, "trigger_id": trigger_id, "name": name}
                row = {key: value for key, value in watcher.items() if key in self.watchers.c}
                connection.execute(self.watchers.insert().values(row))
            for dag_id in consumers:
                reference = {"dag_id": dag_id, "asset_id": asset_id, "dataset_id": asset_id}
                reference |= {"created_at": NOW, "updated_at": NOW}
                row = {key: value for key, value in reference.items() if key in self.consumers.c}
                connection.execute(self.consumers.insert().values(row))
        return trigger_id

    def defer(self, dag_id: str, *, classpath: str = "some.Trigger", **kwargs: object) -> int:
        """Add a run with a task that waits for a trigger."""
        trigger_id = self.add(classpath=classpath)
        self.database.add_run(dag_id, f"r{trigger_id}", state="running", tasks=1)
        tasks = self.database.tables.tasks
        with self.database.settings.engine.begin() as connection:
            values = {"state": "deferred", "trigger_id": trigger_id, "next_method": "m", "next_kwargs": kwargs or None}
            connection.execute(tasks.update().where(tasks.c.run_id == f"r{trigger_id}").values(values))
        return trigger_id

    def add_job(self, job_id: int, kind: str = "TriggererJob", *, age_s: float = 1, state: str = "running") -> None:
        with self.database.settings.engine.begin() as connection:
            beat = datetime.now(tz=timezone.utc) - timedelta(seconds=age_s)
            values = {"id": job_id, "job_type": kind, "state": state, "latest_heartbeat": beat, "start_date": beat}
            connection.execute(self.jobs.insert().values(values))


def exemption(*dag_ids: str) -> Any:
    from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption

    return Exemption(dag_ids)


def metadata() -> Any:
    from airflow_provider_mwaa_dr.plugins.metadata import watchers

    return watchers


@pytest.fixture
def has_watchers() -> None:
    if schema().WATCHERS is None:
        pytest.skip("Airflow 2 has no watchers")


@pytest.mark.usefixtures("has_watchers")
def test_watchers_are_told_from_triggers_of_deferred_tasks(triggers: Triggers) -> None:
    """A watcher that only exempt DAGs need, and triggers of tasks that the fence holds, are neither."""
    triggers.database.add_dag("orders")
    triggers.database.add_dag("tagged", tags=("dr:control",))
    triggers.database.add_dag("named")
    ours = triggers.watch("ours", "orders")
    shared = triggers.watch("shared", "orders", "tagged")
    unused = triggers.watch("unused")
    triggers.watch("exempt", "tagged", "named")
    deferred = triggers.defer("orders")
    with_arguments = triggers.defer("orders", event="mwaa")
    triggers.defer("tagged")
    triggers.defer(
        "orders", classpath="airflow_provider_mwaa_dr.plugins.held_task.HeldTaskTrigger", mwaa_dr_held_resume="x"
    )
    triggers.defer("orders", mwaa_dr_held_start="x")
    triggers.add()

    found = metadata().triggers_by_use(exemption("named"), with_deferred=True)
    assert found.watchers == {ours, shared, unused}
    assert found.deferred == {deferred, with_arguments}
    assert metadata().triggers_by_use(exemption("named"), with_deferred=False).deferred == frozenset()


@pytest.mark.usefixtures("has_watchers")
def test_the_triggerers_that_may_run_watchers_are_listed(triggers: Triggers) -> None:
    """Only jobs that Airflow counts as alive, and none without a watcher."""
    triggers.database.add_dag("orders")
    triggers.add_job(3)
    triggers.add_job(4, "SchedulerJob")
    triggers.add_job(5, age_s=3600)
    triggers.add_job(6, state="success")
    triggers.add_job(7)
    assert metadata().count_watchers(exemption()) == metadata().Watchers()
    triggers.watch("ours", "orders")
    assert metadata().count_watchers(exemption()) == metadata().Watchers(count=1, triggerers=("3", "7"))
    assert metadata().count_watchers(exemption("orders")) == metadata().Watchers()


def test_airflow_2_has_no_watchers(triggers: Triggers) -> None:
    """The guard is not installed, and no failover waits for a triggerer."""
    from airflow import __version__

    assert (schema().WATCHERS is None) == __version__.startswith("2.")
    assert metadata().count_watchers(exemption()).count == 0


@pytest.mark.usefixtures("has_watchers", "database")
def test_a_dag_that_a_watcher_starts_is_named() -> None:
    """Also in a condition of several assets. The check of watchers lists it."""
    from airflow.sdk import DAG, Asset, AssetWatcher
    from airflow.serialization import serialized_objects
    from airflow.triggers.base import BaseEventTrigger

    from airflow_provider_mwaa_dr.plugins.metadata.inventory import _traits

    class Spool(BaseEventTrigger):
        def serialize(self) -> tuple[str, dict[str, Any]]:
            return "spool.Spool", {}

        async def run(self) -> Any:
            yield None

    watched = Asset("watched", watchers=[AssetWatcher(name="spool", trigger=Spool())])
    plain = Asset("plain")
    schedules = {"one": [watched], "any": watched | plain, "without": [plain], "manual": None}
    dags = {dag_id: DAG(dag_id, schedule=schedule) for dag_id, schedule in schedules.items()}
    lazy = getattr(serialized_objects.LazyDeserializedDAG, "from_dag", None)
    traits = {
        dag_id: _traits(serialized_objects.SerializedDAG.to_dict(dag) if lazy is None else lazy(dag).data)
        for dag_id, dag in dags.items()
    }
    assert traits == {"one": ("watcher",), "any": ("watcher",), "without": (), "manual": ()}
