"""A standby closes runs in a real metadata database of the installed Airflow."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


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


def test_only_the_given_runs_that_are_queued_end(database: Database, agent_db: Any) -> None:
    """The others stay, also those of exempt DAGs. The row is recognized later as an own end that executed nothing."""
    database.add_dag("orders")
    database.add_dag("by_tag", tags=("dr:control",))
    for run_id, state in (("requested", "queued"), ("other", "queued"), ("running", "running"), ("done", "success")):
        database.add_run("orders", run_id, state=state)
    database.add_run("by_tag", "exempt")
    keys = [("orders", run_id) for run_id in ("requested", "running", "done", "absent")]
    assert agent_db.end_queued([*keys, ("by_tag", "exempt")], "closed: because") == 1
    ended = {"requested": "failed", "other": "queued", "running": "running", "done": "success", "exempt": "queued"}
    assert database.runs() == ended
    assert database.note("requested") == "[mwaa-dr] closed: because"
    found = agent_db.own_ends(above=0, up_to=agent_db.newest_run(), limit=10)
    assert [(row.run_id, row.is_skipped) for row in found] == [("requested", True)]
    assert agent_db.end_queued(keys, "closed: again") == 0


def test_many_runs_are_closed_in_batches(database: Database, agent_db: Any) -> None:
    """The transactions are short, because the scheduler passes over locked runs."""
    database.add_dag("orders")
    for number in range(450):
        database.add_run("orders", f"r{number}")
    assert agent_db.close_runs("closed: because") == 450
