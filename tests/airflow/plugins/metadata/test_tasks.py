"""Task instances in a real metadata database of the installed Airflow."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

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
