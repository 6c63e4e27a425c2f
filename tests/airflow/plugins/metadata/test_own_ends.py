"""
The ends that a standby gives runs, with Airflow's own look-backs, in a metadata database of the installed Airflow.

A run that the region ended as a standby does no harm there, and none remains when the region becomes active.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from airflow_provider_mwaa_dr.core.ended_in_standby import get_runs
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunStatus
from airflow_provider_mwaa_dr.core.state import Phase
from tests.airflow.conftest import HERE, THERE
from tests.airflow.plugins.metadata.chains import bash, chain
from tests.airflow.plugins.metadata.other_region import AT, DAY, next_dagrun
from tests.airflow.plugins.metadata.scheduling import ended, parse
from tests.airflow.region import Region, interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

NOTE = "skipped: us-east-1 is standby, us-east-2 is active (epoch 0)"
STRIKES = 3
LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)
"""Before the first time of the agent's clock."""


@pytest.fixture
def region(database: Database) -> Region:
    """A standby with the DAG ``orders``; its agent has reconciled its runs."""
    database.add_dag("orders", max_active_runs=16)
    parse(database, chain(schedule="@daily", max_active_runs=16))
    region = Region(database)
    region.turns()
    return region


def queued(region: Region, *runs: LedgerRun) -> None:
    """Let the standby have these runs in its queue, as if its scheduler or a user had created them."""
    assert region.db.resume([replace(run, status=RunStatus.OPEN, taken_at=LONG_AGO) for run in runs], "created") == {}


def skip(database: Database, region: Region, *runs: LedgerRun) -> None:
    """Let the gate of the standby skip these runs."""
    from airflow_provider_mwaa_dr.plugins.metadata import starting_run

    queued(region, *runs)
    for run in runs:
        database.start(run.run_id, lambda each: starting_run.skip_run(each, NOTE))


def noted(database: Database, *runs: LedgerRun) -> None:
    """Let the standby have skipped these runs with a version of the provider that wrote only the note."""
    ended(*runs, note=NOTE)


def manual(day: float, **values: Any) -> LedgerRun:
    return interval(day, **{"run_type": "manual", "run_id": f"manual__{day}", **values})  # type: ignore[arg-type]


def become_active(region: Region, turns: int = 4) -> None:
    region.promote()
    region.turns(turns)
    region.complete()
    region.turns()
    state = region.store.state
    assert state is not None
    assert region.store._table.reconciled.get(HERE) == state.epoch, "it is active"


def previous_success(database: Database, run_id: str) -> Any:
    """Return the run that Airflow's macros about the previous success read."""
    session = database.settings.Session()
    try:
        run = session.scalars(select(database.DagRun).where(database.DagRun.run_id == run_id)).one()
        found = database.DagRun.get_previous_dagrun(run, state="success", session=session)
        return None if found is None else (found.run_id, found.start_date, found.end_date)
    finally:
        database.settings.Session.remove()


def fail(database: Database, run_id: str) -> bool:
    """Let the scheduler start a run, its task fail and the scheduler end the run; return whether the DAG is paused."""
    database.schedule(run_id)
    tasks = database.tables.tasks
    with database.settings.engine.begin() as connection:
        of_run = tasks.update().where(tasks.c.run_id == run_id)
        connection.execute(of_run.values(state="failed", hostname="worker", end_date=datetime.now(tz=timezone.utc)))
    session = database.settings.Session()
    try:
        run = session.scalars(select(database.DagRun).where(database.DagRun.run_id == run_id)).one()
        scheduler = database.scheduler()
        scheduler._schedule_dag_run(run, session)
        session.commit()
    finally:
        database.settings.Session.remove()
    assert database.runs()[run_id] == "failed"
    return bool(database.dag("orders").is_paused)


def sensor_is_satisfied(database: Database, at: datetime) -> bool:
    """Return whether Airflow counts a successful run of ``orders`` for an ExternalTaskSensor."""
    name = "logical_date" if "logical_date" in database.tables.runs.c else "execution_date"
    session = database.settings.Session()
    try:
        with suppress(ImportError):
            from airflow.providers.standard.utils.sensor_helper import _get_count

            return bool(_get_count([at], None, None, "orders", ["success"], session=session))
        from airflow.utils.sensor_helper import _get_count as get_count

        assert name == "execution_date"
        return bool(get_count([at], None, None, "orders", ["success"], session=session))
    finally:
        database.settings.Session.remove()


STARTED = AT + timedelta(hours=5)
DATES = {"started_at": STARTED, "ended_at": STARTED + timedelta(minutes=7)}


@pytest.mark.parametrize("by", ["gate", "agent", "earlier version"])
@pytest.mark.parametrize("run_type", ["scheduled", "manual"])
def test_the_previous_success_is_that_of_one_airflow(
    database: Database, region: Region, by: str, run_type: str
) -> None:
    """
    The last success of the other region, with its dates; not its last run, which failed, and none of the standby.
    """
    success = interval(2, **DATES)
    region.publish(success, interval(3, RunStatus.FAILED))
    region.turns()
    mine = [interval(day, run_type=run_type, run_id=f"mine__{day}") for day in (4, 5)]
    if by == "gate":
        skip(database, region, *mine)
    elif by == "agent":
        queued(region, *mine)
        region.db.close_runs("closed: us-east-1 is standby")
    else:
        noted(database, *mine)
    state = "success" if by == "earlier version" else "failed"
    assert {database.runs()[run.run_id] for run in mine} == {state}
    become_active(region)
    assert {run_id for run_id in database.runs() if run_id.startswith("mine")} == set()
    queued(region, interval(6))
    assert previous_success(database, "scheduled__6") == ("scheduled__2", *DATES.values())
    if run_type == "scheduled":
        assert next_dagrun(database) == AT + 6 * DAY


def test_a_manual_run_that_succeeded_is_the_previous_success(database: Database, region: Region) -> None:
    """Airflow looks back at runs of every type that have a logical date. The next interval does not depend on it."""
    region.publish(interval(2), manual(2.5, **DATES), interval(3, RunStatus.FAILED))
    become_active(region)
    assert database.runs() == {"scheduled__2": "success", "manual__2.5": "success", "scheduled__3": "failed"}
    assert next_dagrun(database) == AT + 3 * DAY
    queued(region, interval(6))
    assert previous_success(database, "scheduled__6") == ("manual__2.5", *DATES.values())


def test_an_older_success_never_moves_the_schedule_back(database: Database, region: Region) -> None:
    """The DAG's row names no next run, for example because the file was not parsed. The interval after 2 exists."""
    region.publish(interval(2), interval(3, RunStatus.FAILED))
    region.turns()
    database.update(database.tables.dags, next_dagrun=None, next_dagrun_create_after=None)
    runs = database.tables.runs
    with database.settings.engine.begin() as connection:
        connection.execute(runs.delete().where(runs.c.run_id == "scheduled__2"))
    become_active(region)
    assert database.runs() == {"scheduled__2": "success", "scheduled__3": "failed"}
    assert next_dagrun(database) is None


def test_runs_of_a_standby_are_no_strikes(database: Database, region: Region) -> None:
    """The DAG is paused after as many real failures as it allows, and not by its runs in the standby."""
    dag = chain(schedule=None, max_active_runs=16, retries=0)
    dag.max_consecutive_failed_dag_runs = STRIKES
    parse(database, dag)
    skip(database, region, *(manual(day) for day in range(1, 1 + STRIKES)))
    assert not database.dag("orders").is_paused, "nothing counts strikes in the standby"
    become_active(region)
    database.update(database.tables.dags, is_paused=False)
    for strike in range(1, 1 + STRIKES):
        queued(region, manual(10 + strike))
        assert fail(database, f"manual__{10 + strike}") is (strike == STRIKES)


def test_without_resolving_them_the_runs_of_a_standby_are_strikes(database: Database, region: Region) -> None:
    """The control: this is why no end of a standby may remain."""
    dag = chain(schedule=None, max_active_runs=16, retries=0)
    dag.max_consecutive_failed_dag_runs = STRIKES
    parse(database, dag)
    skip(database, region, *(manual(day) for day in range(1, 1 + STRIKES)))
    database.update(database.tables.dags, is_paused=False)
    queued(region, manual(10))
    assert fail(database, "manual__10")


def test_a_sensor_is_not_satisfied_by_a_run_of_a_standby(database: Database, region: Region) -> None:
    """It is satisfied by the same run after the other region has executed it."""
    skip(database, region, interval(4))
    assert not sensor_is_satisfied(database, AT + 4 * DAY)
    region.publish(interval(4))
    become_active(region)
    assert sensor_is_satisfied(database, AT + 4 * DAY)


def test_every_end_is_resolved_before_the_region_executes(database: Database, region: Region) -> None:
    """
    Ended in the other region: it gets the result, dates and task states. Unfinished there: queued. Else: deleted.
    """
    tasks = (("one", -1, "success"), ("two", -1, "failed"))
    skip(database, region, interval(1), interval(2), interval(3), manual(2.5), manual(2.7))
    done = interval(2, RunStatus.FAILED, tasks=tasks, **DATES)
    region.publish(done, interval(3, RunStatus.OPEN), manual(2.7, status=RunStatus.OPEN, conf='{"a": 1}'))
    become_active(region)
    assert database.runs() == {"scheduled__2": "failed", "scheduled__3": "queued", "manual__2.7": "queued"}
    assert database.task_states("scheduled__2") == {("one", -1): "success", ("two", -1): "failed"}
    assert database.note("scheduled__2") == f"[mwaa-dr] adopted: this run was executed in {THERE}"
    (row,) = region.db.runs([("orders", "scheduled__2")])
    assert (row.started_at, row.ended_at) == tuple(DATES.values())
    assert get_runs(region.store, region=HERE, epoch=1) == ("orders manual__2.5",), "the scheduler creates no such run"


def test_a_run_that_had_begun_stays_as_a_failure_and_is_listed(database: Database, region: Region) -> None:
    """No ledger has it. Its task instances are the only trace of what it did."""
    queued(region, manual(1))
    database.schedule("manual__1")
    database.update(database.tables.tasks, hostname="worker")
    region.db.close_runs(NOTE)
    become_active(region)
    assert database.runs() == {"manual__1": "failed"}
    assert "no region knows" in str(database.note("manual__1"))
    assert region.db.own_ends(above=0, up_to=99, limit=9) == []
    assert get_runs(region.store, region=HERE, epoch=1) == ("orders manual__1",)


def test_a_run_that_cannot_be_started_says_why(database: Database, region: Region) -> None:
    """The ledger lists it as waiting. Its row may have the only copy of its conf, so it stays."""
    from airflow_provider_mwaa_dr.core.bookkeeping import NO_RERUN_TAG

    with database.settings.engine.begin() as connection:
        connection.execute(database.tables.tags.insert().values(dag_id="orders", name=NO_RERUN_TAG))
    skip(database, region, manual(1))
    region.publish(manual(1, status=RunStatus.OPEN))
    become_active(region)
    assert database.runs() == {"manual__1": "failed"}
    assert f"its DAG is tagged {NO_RERUN_TAG}" in str(database.note("manual__1"))
    assert len(region.db.own_ends(above=0, up_to=99, limit=9)) == 1, "the next role finds it again"


USERS = {
    "marks it as a success": {"state": "success"},
    "clears it": {"state": "queued", "last_scheduling_decision": None},
}


@pytest.mark.parametrize("change", USERS)
def test_a_run_that_a_user_has_decided_about_is_not_ours(database: Database, region: Region, change: str) -> None:
    """A note says the same as before. For the success of an earlier version, a task instance shows the difference."""
    database.add_run("orders", "r1", tasks=2)
    database.start("r1", _skip)
    assert len(region.db.own_ends(above=0, up_to=99, limit=9)) == 1
    database.update(database.tables.runs, **USERS[change])
    database.update(database.tables.tasks, state="success")
    assert region.db.own_ends(above=0, up_to=99, limit=9) == []


def _skip(run: Any) -> None:
    from airflow_provider_mwaa_dr.plugins.metadata import starting_run

    starting_run.skip_run(run, NOTE)


@pytest.mark.parametrize("note", [None, "my own words"])
def test_a_run_is_recognized_without_its_note(database: Database, region: Region, note: str | None) -> None:
    """Users edit notes."""
    skip(database, region, manual(1))
    notes = database.tables.notes
    with database.settings.engine.begin() as connection:
        connection.execute(notes.delete() if note is None else notes.update().values(content=note))
    become_active(region)
    assert database.runs() == {}


def test_airflows_own_clear_takes_the_mark_away(database: Database, region: Region) -> None:
    """So a run that executes later is never taken for one that the standby ended."""
    from airflow_provider_mwaa_dr.plugins.metadata.schema import clear_tasks
    from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction

    database.add_run("orders", "r1", tasks=2)
    database.start("r1", _skip)
    with transaction() as session:
        clear_tasks(session, ("orders", "r1"))
    database.update(database.tables.tasks, state="failed", hostname="worker")
    database.update(database.tables.runs, state="failed")
    assert region.db.own_ends(above=0, up_to=99, limit=9) == []


def test_resolving_continues_where_an_agent_died(
    database: Database, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is complete before the first run is deleted, and a second call lists and deletes nothing twice."""
    runs = [manual(day) for day in range(1, 6)]
    skip(database, region, *runs)
    delete = region.db.drop_own_ends

    def dies(row_ids: Sequence[int], *rest: Any) -> int:
        delete(row_ids[:2], *rest)
        raise OSError("killed")

    monkeypatch.setattr(region.db, "drop_own_ends", dies)
    region.promote()
    region.turns(1)
    assert len(database.runs()) == 3
    monkeypatch.setattr(region.db, "drop_own_ends", delete)
    region.start_agent()
    become_active(region)
    assert database.runs() == {}
    assert get_runs(region.store, region=HERE, epoch=1) == tuple(f"orders {run.run_id}" for run in runs)


def test_nothing_is_lost_while_a_ledger_cannot_be_read(
    database: Database, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown means hold: the run may be in the part that is missing. It is resolved when that part arrives."""
    skip(database, region, manual(1.5), interval(1))
    region.publish(interval(0))
    region.turns()
    bookkeeper = region.loop._leader.ledger.bookkeeper
    assert bookkeeper is not None
    monkeypatch.setattr(bookkeeper._resolver, "_has_doubt", lambda _: True)
    become_active(region)
    assert database.runs() == {"scheduled__0": "success", "manual__1.5": "failed"}
    monkeypatch.setattr(bookkeeper._resolver, "_has_doubt", lambda _: False)
    region.turns(10)
    assert database.runs() == {"scheduled__0": "success"}


def test_no_callback_is_called_for_a_run_of_a_standby(
    database: Database, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ``on_failure_callback``, nor a listener of failed runs. The control: a real failure calls both."""
    called: list[str] = []
    _listen(monkeypatch, called)
    dag = chain(schedule=None, max_active_runs=16, retries=0)
    dag.on_failure_callback = _callback
    dag.has_on_failure_callback = True
    parse(database, dag)
    skip(database, region, manual(1))
    queued(region, manual(2))
    region.db.close_runs(NOTE)
    scheduler = database.scheduler()
    session = database.settings.Session()
    try:
        scheduler._start_queued_dagruns(session)
        session.commit()
    finally:
        database.settings.Session.remove()
    assert set(database.runs().values()) == {"failed"}
    assert called == []
    queued(region, manual(3))
    fail(database, "manual__3")
    assert called == ["manual__3"]


def _callback(context: Any) -> None:
    raise AssertionError("it is never called in this process")


def _listen(monkeypatch: pytest.MonkeyPatch, called: list[str]) -> None:
    """Let *called* have the ids of the runs for which Airflow calls its listeners of failed runs."""
    from airflow.models.dagrun import DagRun

    notify = DagRun.notify_dagrun_state_changed

    def noted_call(run: Any, *args: Any, **rest: Any) -> Any:
        if run.state == "failed":
            called.append(run.run_id)
        return notify(run, *args, **rest)

    monkeypatch.setattr(DagRun, "notify_dagrun_state_changed", noted_call)


def move(region: Region, active: str, *, epoch: int) -> None:
    """Let a failover give the role to *active*; the plan is complete."""
    state = region.store.state
    assert state is not None
    region.store._table.state = replace(
        state, active_region=active, epoch=epoch, version=state.version + 1, phase=Phase.STEADY, plan=None
    )


def test_a_failover_there_and_back_leaves_no_end_of_the_standby(database: Database, region: Region) -> None:
    """What the other region ended has its result, what it did not end is queued, and nothing is listed."""
    become_active(region)
    queued(region, manual(1), manual(2), manual(3))
    region.turns()
    move(region, THERE, epoch=2)
    region.turns(4)
    assert set(database.runs().values()) == {"failed"}, "the agent has closed them"
    assert len(region.db.own_ends(above=0, up_to=99, limit=9)) == 3
    ends = {"epoch": 2, "retained_for_peers": True, "taken_at": AT, **DATES}
    region.publish(manual(1, **ends), manual(2, status=RunStatus.FAILED, **ends))
    region.turns()
    move(region, HERE, epoch=3)
    region.turns(4)
    assert database.runs() == {"manual__1": "success", "manual__2": "failed", "manual__3": "queued"}
    assert region.db.own_ends(above=0, up_to=99, limit=9) == []
    assert get_runs(region.store, region=HERE, epoch=3) == ()


def test_many_ends_are_resolved_in_batches(database: Database, region: Region) -> None:
    """Each transaction has at most 200 runs, and each turn at most 1,000, so that no lock and no turn takes long."""
    rows = 2_300
    runs = database.tables.runs
    at = datetime.now(tz=timezone.utc)
    dated = "logical_date" if "logical_date" in runs.c else "execution_date"
    from airflow_provider_mwaa_dr.plugins.metadata.own_ends import END

    more = {"run_after": at} if "run_after" in runs.c else {}
    values = [
        {"dag_id": "orders", "run_id": f"r{number}", "run_type": "manual", "queued_at": at, **END, **more,
         dated: AT + number * timedelta(minutes=1), "data_interval_start": at, "data_interval_end": at}
        for number in range(rows)
    ]  # fmt: skip
    with database.settings.engine.begin() as connection:
        connection.execute(runs.insert(), values)
    region.promote()
    left = []
    for _ in range(5):
        region.turns(1)
        left.append(len(database.runs()))
    assert left == [rows - 1000, rows - 2000, 0, 0, 0]
    assert len(get_runs(region.store, region=HERE, epoch=1)) == rows


def test_the_tasks_of_a_sensor_are_those_of_the_other_region(database: Database, region: Region) -> None:
    """A run that continued in the other region has its tasks in the ledger, also of a DAG without dependencies."""
    assert bash("one").task_id == "one"
    region.publish(interval(1))
    become_active(region)
    keys = [("orders", "scheduled__1")]
    assert region.db.tasks(keys) == {}
    queued(region, manual(5))
    database.update(database.tables.dags, is_paused=False)
    database.schedule("manual__5")
    database.end("manual__5", "success", one="success", two="success")
    found = region.db.tasks([("orders", "manual__5")], of_each=[("orders", "manual__5")])
    assert found == {("orders", "manual__5"): [("one", -1, "success"), ("two", -1, "success")]}
