"""Asset conditions in the installed Airflow: an event of an earlier role completes no condition of a later one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from tests.airflow.plugins.metadata.chains import bash
from tests.airflow.plugins.metadata.other_region import AT, DAY
from tests.airflow.region import Region

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

URIS = {name: f"file:///{name}" for name in "ab"}
EXPRESSION = {"all": list(URIS.values())}


class Events:
    """The events of the assets ``a`` and ``b``, which the consumers wait for."""

    def __init__(self, database: Database) -> None:
        from airflow_provider_mwaa_dr.plugins.metadata import schema

        self.database, self.queue, self.column = database, schema.ASSET_QUEUE, schema.QUEUED_ASSET.name
        self.tables = [schema.ASSET_QUEUE, schema.ASSETS]
        with database.settings.engine.begin() as connection:
            for table in self.tables:
                connection.execute(table.delete())
            names = {"name", "group"} & {*schema.ASSETS.c.keys()}
            for uri in URIS.values():
                connection.execute(schema.ASSETS.insert().values(uri=uri, extra={}, **dict.fromkeys(names, uri)))
            self.ids = {row.uri: row.id for row in connection.execute(select(schema.ASSETS.c.uri, schema.ASSETS.c.id))}

    def add_consumer(self, dag_id: str, *, tags: tuple[str, ...] = ()) -> None:
        """Add a DAG that runs after an event of each asset."""
        columns = self.database.tables.dags.c
        expression = "asset_expression" if "asset_expression" in columns else "dataset_expression"
        values: dict[str, Any] = {expression: EXPRESSION}
        values |= {name: False for name in ("has_import_errors", "exceeds_max_non_backfill") if name in columns}
        self.database.add_dag(dag_id, tags=tags, **values)
        self.database.serialize(_consumer(dag_id))

    def arrive(self, name: str, dag_id: str = "orders", at: datetime | None = None) -> None:
        """Put an event of an asset into the queue of a consumer, as Airflow does when the event is stored."""
        row = {self.column: self.ids[URIS[name]], "target_dag_id": dag_id}
        with self.database.settings.engine.begin() as connection:
            connection.execute(self.queue.insert().values({**row, "created_at": at or datetime.now(tz=timezone.utc)}))

    def waiting(self) -> set[str]:
        """Return the consumers that an event waits for."""
        with self.database.settings.engine.connect() as connection:
            return set(connection.execute(select(self.queue.c.target_dag_id)).scalars())

    def runs_of_scheduler(self) -> int:
        """Let Airflow's scheduler create the runs whose condition is complete; return how many the database has."""
        from airflow.utils.sqlalchemy import prohibit_commit

        session = self.database.settings.Session()
        try:
            with prohibit_commit(session) as guard:
                self.database.scheduler()._create_dagruns_for_dags(guard, session)
                guard.commit()
        finally:
            self.database.settings.Session.remove()
        return len(self.database.runs())


def _consumer(dag_id: str) -> Any:
    from airflow import DAG

    try:
        from airflow.sdk import Asset
    except ImportError:
        from airflow.datasets import Dataset as Asset
    with DAG(dag_id, schedule=[Asset(uri) for uri in URIS.values()], start_date=AT - 100 * DAY, catchup=False) as dag:
        bash("one")
    return dag


@pytest.fixture
def events(database: Database, agent_db: Any) -> Events:
    """The two assets, and the consumer ``orders``."""
    found = Events(database)
    found.add_consumer("orders")
    return found


def test_an_event_from_before_a_failover_completes_no_condition(
    database: Database, agent_db: Any, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    """After the failback, the consumer waits for both assets again. The log lists what was removed."""
    events.arrive("a")
    agent_db.close_runs("closed: us-east-1 is standby")
    assert events.waiting() == set()
    assert "Removed events that had started no run of orders (closed: us-east-1 is standby): file:///a." in caplog.text
    caplog.clear()
    agent_db.close_runs("closed: again")
    assert "Removed events" not in caplog.text
    events.arrive("b")
    assert events.runs_of_scheduler() == 0
    events.arrive("a")
    assert events.runs_of_scheduler() == 1
    assert events.waiting() == set()


def test_exempt_dags_and_events_of_the_new_role_keep_their_conditions(
    database: Database, agent_db: Any, events: Events
) -> None:
    """Events that arrived since the last read of the standby count for the new role."""
    for dag_id, tags in (("by_id", ()), ("by_tag", ("dr:control",)), ("late", ())):
        events.add_consumer(dag_id, tags=tags)
        events.arrive("a", dag_id)
    now = datetime.now(tz=timezone.utc)
    events.arrive("a", at=now - timedelta(seconds=2))
    with database.settings.engine.begin() as connection:
        of_late = events.queue.update().where(events.queue.c.target_dag_id == "late")
        connection.execute(of_late.values(created_at=now))
    agent_db.close_runs("closed: a", spared_since=now - timedelta(seconds=1))
    assert events.waiting() == {"by_id", "by_tag", "late"}
    agent_db.close_runs("closed: a")
    assert events.waiting() == {"by_id", "by_tag"}


def test_events_of_many_consumers_are_removed_in_batches(database: Database, agent_db: Any, events: Events) -> None:
    """The transactions are short, because the scheduler passes over locked rows."""
    for number in range(201):
        database.add_dag(f"d{number}")
        events.arrive("a", f"d{number}")
    agent_db.close_runs("closed: a")
    assert events.waiting() == set()


def test_an_event_that_arrives_in_a_standby_is_removed_before_the_region_is_active(
    database: Database, events: Events
) -> None:
    """A user posts it. The region becomes active later, and the consumer waits for both assets."""
    region = Region(database)
    region.turns()
    old = region.clock.now() - DAY
    events.arrive("a", at=old)
    region.turns(1)
    assert events.waiting() == set()
    events.arrive("a", at=old)
    region.promote()
    region.turns()
    assert events.waiting() == set()
    region.complete()
    region.turns()
    events.arrive("b")
    region.turns()
    assert events.waiting() == {"orders"}, "an event of the present role stays"
    database.update(database.tables.dags, is_paused=False)
    assert events.runs_of_scheduler() == 0


def test_a_partition_that_waits_for_events_is_removed(database: Database, agent_db: Any, events: Events) -> None:
    """A partition whose run exists stays, and so do its events (Airflow 3.2 and later)."""
    tables = database.DagRun.metadata.tables
    if "asset_partition_dag_run" not in tables:
        pytest.skip("before Airflow 3.2, events have no partitions")
    queue, log = tables["asset_partition_dag_run"], tables["partitioned_asset_key_log"]
    database.add_run("orders", "r1")
    with database.settings.engine.begin() as connection:
        connection.execute(queue.delete())
        connection.execute(log.delete())
        run_id = connection.execute(select(database.tables.runs.c.id)).scalar_one()
        for key, created in (("waits", None), ("has run", run_id)):
            values = {"target_dag_id": "orders", "partition_key": key, "created_dag_run_id": created}
            number = connection.execute(queue.insert().values(values)).inserted_primary_key[0]
            event = {"asset_id": 1, "asset_event_id": 1, "asset_partition_dag_run_id": number}
            keys = {"source_partition_key": key, "target_dag_id": "orders", "target_partition_key": key}
            connection.execute(log.insert().values({**event, **keys}))
    agent_db.close_runs("closed: a")
    with database.settings.engine.connect() as connection:
        assert set(connection.execute(select(queue.c.partition_key)).scalars()) == {"has run"}
        assert set(connection.execute(select(log.c.target_partition_key)).scalars()) == {"has run"}
