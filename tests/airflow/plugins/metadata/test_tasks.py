"""Task instances in a real metadata database of the installed Airflow."""

from __future__ import annotations

import json
import zlib
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from tests.airflow.plugins.metadata.chains import chain, executed
from tests.airflow.plugins.metadata.other_region import open_interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


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


def test_only_dags_that_depend_on_their_past_publish_their_tasks(database: Database, db: Any) -> None:
    """The newest serialized DAG decides, compressed or not. It is read once for each version."""
    database.serialize(chain())
    executed(database, db, open_interval(2), "success", "success")
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
