"""Parents and their children in a real metadata database of the installed Airflow."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mwaa_dr.core.bookkeeping import Bookkeeper
from airflow_provider_mwaa_dr.core.ledger import ChildRun, LedgerRun, RunStatus
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, ManualClock
from tests.airflow.conftest import HERE, NOW, THERE
from tests.airflow.plugins.metadata.test_waits import CHILD, PARENT, Work, work

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

__all__ = ["work"]
PARENT_RUN = ("parent", "p1")
AWAITED = ChildRun(dag_id="child", run_id="c1", is_awaited=True)
UNNAMED = ChildRun(dag_id="child", run_id=None, is_awaited=True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(PARENT, AWAITED, id="waits"),
        pytest.param({**PARENT, "wait_for_completion": "True"}, AWAITED, id="waits, by a template"),
        pytest.param(
            {**PARENT, "wait_for_completion": False}, ChildRun(dag_id="child", run_id="c1"), id="does not wait"
        ),
        pytest.param(
            {**PARENT, "trigger_run_id": "c1"},
            ChildRun(dag_id="child", run_id="c1", is_awaited=True, has_fixed_id=True),
            id="fixed id",
        ),
        pytest.param(
            {**PARENT, "logical_date": "2026-11-20T00:00:00+00:00"},
            ChildRun(dag_id="child", run_id="c1", is_awaited=True, has_fixed_id=True),
            id="fixed date",
        ),
        pytest.param({**PARENT, "logical_date": "NOTSET", "trigger_run_id": "None"}, AWAITED, id="as 3.3 renders it"),
    ],
)
@pytest.mark.parametrize("state", ["running", "success", "failed", "up_for_retry"])
def test_a_run_that_a_task_has_requested_is_its_child(
    work: Work, agent_db: Any, fields: dict[str, Any], expected: ChildRun, state: str
) -> None:
    """The XCom names it, also after the task has ended: the parent executes all its tasks again."""
    work.add(state=state, fields=fields)
    work.push("c1")
    assert agent_db.children() == {PARENT_RUN: (expected,)}
    assert agent_db.runs([PARENT_RUN])[0].children == (expected,)


def test_a_deferred_task_waits_for_its_child(work: Work, agent_db: Any) -> None:
    """3.0 defers the task also if it is not to wait."""
    work.add(state="deferred", fields={**PARENT, "wait_for_completion": False})
    work.push("c1")
    assert agent_db.children() == {PARENT_RUN: (AWAITED,)}


@pytest.mark.parametrize(
    ("values", "value"),
    [
        pytest.param({"fields": None}, "c1", id="no rendered fields"),
        pytest.param({"fields": {"bash_command": "echo"}}, "c1", id="no task that triggers a run"),
        pytest.param({"state": "success"}, None, id="it ended without requesting a run"),
        pytest.param({"state": "queued"}, None, id="it has not begun"),
        pytest.param({"run": "success"}, "c1", id="its run has ended"),
    ],
)
def test_other_tasks_have_no_child(work: Work, agent_db: Any, values: dict[str, Any], value: str | None) -> None:
    """Unless they have requested a run, and their own run is open."""
    work.add(**{"fields": PARENT, **values})
    if value is not None:
        work.push(value)
    assert agent_db.children() == {}


@pytest.mark.parametrize("value", [None, ["c1"], {"run": "c1"}, ""])
def test_a_child_is_unnamed_until_its_id_can_be_read(work: Work, agent_db: Any, value: object) -> None:
    """Airflow stores the id after it has created the run, and an XCom backend may store a reference."""
    work.add(fields=PARENT)
    assert agent_db.children() == {PARENT_RUN: (UNNAMED,)}
    work.push(value)
    assert agent_db.children() == {PARENT_RUN: (UNNAMED,)}
    work.push("c1")
    assert agent_db.children() == {PARENT_RUN: (AWAITED,)}


def test_a_child_of_an_earlier_execution_does_not_count(work: Work, agent_db: Any) -> None:
    """A run that is queued again keeps its XComs until its tasks begin. A task that lost its worker keeps its child."""
    work.add(fields=PARENT)
    work.push("c1")
    work.database.update(work.database.tables.tasks, state=None)
    assert agent_db.children() == {PARENT_RUN: (AWAITED,)}, "the scheduler has put it back"
    work.database.update(work.database.tables.runs, queued_at=datetime.now(tz=timezone.utc) + timedelta(seconds=1))
    assert agent_db.children() == {}, "its run was queued again"


def test_an_exempt_dag_has_no_children(work: Work, agent_db: Any) -> None:
    """No region resumes its runs."""
    with work.database.settings.engine.begin() as connection:
        connection.execute(work.database.tables.tags.insert().values(dag_id="parent", name="dr:control"))
    work.add(fields=PARENT)
    work.push("c1")
    assert agent_db.children() == {}


def test_unfinished_children_are_named_before_others(
    work: Work, agent_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapped task may request thousands of runs. Of those without a name, it is known that there are some."""
    from airflow_provider_mwaa_dr.plugins.metadata import children

    monkeypatch.setattr(children, "MOST_CHILDREN", 2)
    tasks, size = work.database.tables.tasks, 4
    for number in range(size):
        work.database.add_run("child", f"c{number}", state="success" if number < 2 else "running")
    work.add(fields=PARENT)
    with work.database.settings.engine.begin() as connection:
        row = dict(connection.execute(tasks.select().where(tasks.c.run_id == "p1")).one()._mapping)
        fields = dict(connection.execute(work.rendered.select()).one()._mapping)
        if "id" in row:
            row.pop("id")
        fields.pop("id", None)
        connection.execute(work.rendered.delete())
        connection.execute(tasks.delete().where(tasks.c.run_id == "p1"))
        for number in range(size):
            connection.execute(tasks.insert().values({**row, "map_index": number}))
            connection.execute(work.rendered.insert().values({**fields, "map_index": number}))
    for number in range(size):
        work.push(f"c{number}", map_index=number)
    named = [ChildRun(dag_id="child", run_id=f"c{number}", is_awaited=True) for number in (2, 3)]
    assert agent_db.children() == {PARENT_RUN: tuple(named)}
    work.database.update(work.database.tables.runs, state="running")
    named = [ChildRun(dag_id="child", run_id=f"c{number}", is_awaited=True) for number in (0, 1)]
    assert agent_db.children() == {PARENT_RUN: (*named, UNNAMED)}


def test_an_ended_run_is_removed_with_everything_that_belongs_to_it(work: Work, agent_db: Any) -> None:
    """Its tasks, XComs, rendered fields and note. An open run and a missing one stay as they are."""
    work.add(state="success", run="failed", fields=PARENT)
    work.push("c1")
    work.database.add_run("child", "c1", tasks=1, note="a user's note", state="failed")
    work.database.add_run("child", "c2", tasks=1, state="running")
    assert agent_db.remove([PARENT_RUN, CHILD, ("child", "c2"), ("child", "c3")]) == 2
    assert work.database.runs() == {"c2": "running"}
    with work.database.settings.engine.connect() as connection:
        left = [connection.execute(table.select()).all() for table in (work.database.tables.notes, work.rendered)]
        assert left == [[], []]
        assert len(connection.execute(work.database.tables.tasks.select()).all()) == 1
    assert agent_db.remove([CHILD]) == 0


def trigger(run_id: str) -> None:
    """Request a run as a task does: Airflow 3's API server and Airflow 2's operator call this function."""
    from airflow.api.common.trigger_dag import trigger_dag

    # A minute ago, because SQLite knows only whole seconds of the present time.
    at = datetime.now(tz=timezone.utc) - timedelta(minutes=1)
    values: dict[str, Any] = {"execution_date": at}
    with suppress(ImportError):
        from airflow.utils.types import DagRunTriggeredByType

        values = {"run_after": at, "triggered_by": DagRunTriggeredByType.OPERATOR}
    trigger_dag(dag_id="child", run_id=run_id, replace_microseconds=False, **values)


def serialize(database: Database) -> None:
    """Give both DAGs a task: the parent's may be any, because the test does what it would do."""
    from airflow import DAG

    try:
        from airflow.providers.standard.operators.empty import EmptyOperator
    except ImportError:
        from airflow.operators.empty import EmptyOperator
    for dag_id in ("parent", "child"):
        with DAG(dag_id, schedule=None, start_date=NOW - timedelta(days=1)) as dag:
            EmptyOperator(task_id="t0", on_success_callback=print)
        database.serialize(dag)


def published(region: str, store: InMemoryRunsStore, *runs: LedgerRun) -> None:
    """Publish runs that a region, which is lost then, has under epoch 0."""
    from airflow_provider_mwaa_dr.core.ledger import LogEntry

    entry = LogEntry(number=1, at=NOW, epoch=0, first_id=0, newest_id=2, runs=runs)
    store.append(region, entry)


def resumed(work: Work, agent_db: Any, *, is_interrupted: bool) -> None:
    """Let this region resume a parent of a lost region, with a child that has a fixed id."""
    store = InMemoryRunsStore()
    child = ChildRun(dag_id="child", run_id="c1", is_awaited=True, has_fixed_id=True)
    values: dict[str, Any] = {"run_type": "manual", "status": RunStatus.OPEN, "epoch": 0}
    date = work.date_of("p1")
    parent = LedgerRun(
        dag_id="parent", run_id="p1", logical_date=date, data_interval_start=date, data_interval_end=date,
        children=(child,), **values,
    )  # fmt: skip
    runs = [parent, LedgerRun(dag_id="child", run_id="c1", **values)]
    published(THERE, store.peer(), *(runs if is_interrupted else runs[:1]))
    clock = ManualClock(start=datetime.now(tz=timezone.utc) + timedelta(seconds=1))
    bookkeeper = Bookkeeper(store.peer(), agent_db, clock, region=HERE, peers=lambda: [HERE, THERE])
    bookkeeper.follow()
    bookkeeper.begin(1)
    bookkeeper.resume(epoch=1)


@pytest.mark.parametrize("state", ["failed", "success"], ids=["interrupted", "ended"])
def test_the_scheduler_starts_the_parent_and_the_parent_can_request_its_child(
    work: Work, agent_db: Any, state: str
) -> None:
    """
    After a failback: the region has a row of the child, closed or ended, and the child has a fixed id.

    The scheduler starts only the parent. With that row, Airflow would refuse the parent's request.
    """
    serialize(work.database)
    work.add(run="failed", state="skipped", fields=PARENT)
    work.push("c1")
    work.database.add_run("child", "c1", tasks=1, state=state)
    with pytest.raises(Exception, match="exists"):
        trigger("c1")
    resumed(work, agent_db, is_interrupted=state == "failed")
    assert work.database.runs() == {"p1": "queued"}
    assert work.database.schedule("p1") == {("t0", -1): "scheduled"}
    trigger("c1")
    assert work.database.schedule("c1") == {("t0", -1): "scheduled"}


def test_a_child_whose_dag_is_paused_is_requested_again_and_waits(work: Work, agent_db: Any) -> None:
    """As without a failover: it starts when a user unpauses the DAG. The interrupted child never starts."""
    serialize(work.database)
    work.add(run="failed", state="skipped", fields=PARENT)
    dags = work.database.tables.dags
    with work.database.settings.engine.begin() as connection:
        connection.execute(dags.update().where(dags.c.dag_id == "child").values(is_paused=True))
    resumed(work, agent_db, is_interrupted=True)
    trigger("c2")
    work.database.schedule("p1")
    assert work.database.runs() == {"p1": "running", "c2": "queued"}
    work.database.update(dags, is_paused=False)
    assert work.database.schedule("c2") == {("t0", -1): "scheduled"}
    assert "c1" not in work.database.runs()
