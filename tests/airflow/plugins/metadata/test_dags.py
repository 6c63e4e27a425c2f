"""Pausing DAGs in a real metadata database of the installed Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


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
