"""Skipping and holding runs in a real metadata database of the installed Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

REASON = "skipped: us-east-1 is standby, us-east-2 is active (epoch 4)"


def test_a_skipped_run_has_ended_with_every_task_skipped_and_a_note(database: Database, gates: Any) -> None:
    """This happens in the scheduler's transaction, which refuses every commit except the scheduler's own."""
    database.add_dag("orders")
    database.add_run("orders", "r1", tasks=3)
    database.start("r1", lambda run: gates.skip_run(run, REASON))
    assert database.runs() == {"r1": "failed"}
    assert database.tasks("r1") == {"skipped"}
    assert database.note("r1") == f"[mwaa-dr] {REASON}"


def test_tasks_that_ended_before_keep_their_state(database: Database, gates: Any) -> None:
    """A cleared run keeps the tasks that the user did not clear."""
    database.add_dag("orders")
    database.add_run("orders", "r1", tasks=1)
    database.update(database.tables.tasks, state="failed")
    database.start("r1", lambda run: gates.skip_run(run, REASON))
    assert database.tasks("r1") == {"failed"}


@pytest.mark.parametrize("action", ["skip_run", "hold_run"])
def test_the_cost_does_not_depend_on_the_number_of_tasks(database: Database, gates: Any, action: str) -> None:
    """10 task instances and 1,000 task instances take the same statements."""
    act = getattr(gates, action)
    counts = []
    for number in (10, 1000):
        database.clear()
        database.add_dag("orders")
        database.add_run("orders", "r", tasks=number)
        counts.append(len(database.start("r", lambda run: act(run, REASON))))
    assert counts[0] == counts[1] <= 12


def test_a_repeated_hold_writes_its_note_once(database: Database, gates: Any) -> None:
    """The scheduler tries a held run again each second. Only the seconds in the reason change."""
    database.add_dag("orders")
    database.add_run("orders", "r1")
    written = []
    for age in (61, 62):
        database.start("r1", lambda run, age=age: written.append(gates.hold_run(run, f"held: no read for {age} s")))
    assert written == [True, False]
    assert database.runs() == {"r1": "queued"}
    assert database.note("r1") == "[mwaa-dr] held: no read for 61 s"


def test_an_error_of_the_provider_leaves_the_schedulers_transaction_usable(
    database: Database, gates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is rolled back to the savepoint. The scheduler commits the rest of its work."""
    from sqlalchemy import text

    database.add_dag("orders")
    database.add_run("orders", "r1", tasks=2)

    def broken(connection: Any, *_: Any) -> bool:
        connection.execute(text("select * from no_such_table"))
        return True

    monkeypatch.setattr(gates, "put_note", broken)

    def act(run: Any) -> None:
        with pytest.raises(Exception, match="no_such_table"):
            gates.skip_run(run, REASON)
        run.set_state("queued")

    database.start("r1", act)
    assert database.runs() == {"r1": "queued"}
    assert database.tasks("r1") == {None}


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


def test_held_runs_of_a_dag_keep_their_order(database: Database, gates: Any) -> None:
    """The oldest run comes first, whichever was held last. A run that was never held does not come after them."""
    database.add_dag("orders", max_active_runs=2)
    for run_id in ("r1", "r2", "r3"):
        database.add_run("orders", run_id)
    for run_id in ("r3", "r2", "r1"):
        database.start(run_id, lambda run: gates.hold_run(run, "held: a"))
    assert queue_order(database) == ["r1", "r2", "r3"]
    database.add_dag("failover")
    database.add_run("failover", "r4")
    assert queue_order(database) == ["r4", "r1", "r2", "r3"]
