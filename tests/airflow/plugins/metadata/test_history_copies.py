"""
A site exports the runs that it has executed, and a standby imports them.

The oracle: Airflow's own code computes the next runs and the look-backs of a DAG. They are equal without the import,
with a part of it, and with all of it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from airflow_provider_mwaa_dr.aws.dynamodb import history_store
from airflow_provider_mwaa_dr.core.history.pages import ExportProgress, HistoryPage, HistoryRun
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RegionLedger, RunStatus, last_successes
from tests.airflow.plugins.metadata.chains import chain, executed, ledger_of, next_one_starts
from tests.airflow.plugins.metadata.other_region import AT, DAY, interval, open_interval
from tests.airflow.plugins.metadata.scheduling import adopt, ended, parse, pass_over

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

DECIDED = datetime(2026, 11, 1, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)


def executed_here(database: Database, *runs: LedgerRun, tasks: Sequence[str] = ("one", "two")) -> None:
    """Write runs as the scheduler and the workers of this site have left them."""
    runs = tuple(
        replace(
            run,
            started_at=run.started_at or (run.run_after or AT) + SECOND,
            ended_at=run.ended_at or (run.run_after or AT) + 3 * SECOND,
            tasks=tuple((task_id, -1, run.status.value) for task_id in tasks),
        )
        for run in runs
    )
    ended(*runs)
    tables = database.tables
    with database.settings.engine.begin() as connection:
        for run in runs:
            of_run = tables.runs.c.run_id == run.run_id
            connection.execute(tables.runs.update().where(of_run).values(last_scheduling_decision=DECIDED))
            row = connection.execute(tables.runs.select().where(of_run)).one()
            connection.execute(tables.notes.delete().where(tables.notes.c.dag_run_id == row.id))
            of_tasks = tables.tasks.c.run_id == run.run_id
            connection.execute(
                tables.tasks.update().where(of_tasks).values(
                    hostname="ip-10-0-0-1", operator="BashOperator", pool="a pool", try_number=2, max_tries=3,
                    queued_dttm=AT, start_date=AT + SECOND, end_date=AT + 3 * SECOND, duration=2.0,
                )
            )  # fmt: skip


def exported(db: Any) -> list[HistoryRun]:
    """Return all runs that this site exports, as another site reads them from the table."""
    runs = db.sweep_history(above=0, up_to=db.newest_run(), since=AT - 10_000 * DAY, limit=10_000).runs
    progress = ExportProgress(swept_id=0, sweep_end=0, live_at=AT)
    page = HistoryPage(number=1, at=AT, epoch=0, progress=progress, runs=runs)
    return list(history_store.page_from_item(history_store.page_to_item("s", page, days=30), table="t").runs)


def published(db: Any) -> RegionLedger:
    """Return the ledger of this site, as it publishes all runs of its database, in their order."""
    ledger = RegionLedger()
    rows = db.runs([("orders", run_id) for run_id in _run_ids(db)])
    runs = tuple(ledger_of(db, row.run_id) for row in sorted(rows, key=lambda row: (row.ended_at or AT, row.id)))
    ledger.apply([LogEntry(number=1, at=AT, epoch=1, first_id=0, newest_id=0, runs=runs)])
    return ledger


def _run_ids(db: Any) -> list[str]:
    _, states = db.read_states(above=0)
    return [run_id for _, run_id in states]


def imports(db: Any, runs: Sequence[HistoryRun], ledger: RegionLedger) -> Any:
    """Import runs, as the agent of a standby does that has read *ledger*."""
    notes = {run.key: "imported: this run was executed in there" for run in runs}
    return db.import_history(runs, notes, last_successes([ledger], sorted({run.run.dag_id for run in runs})))


def become_active(db: Any, ledger: RegionLedger) -> None:
    """Adopt what a site adopts before it executes."""
    adopt(db, ledger)
    db.adopt(last_successes([ledger], ["orders"]), "adopted")


def rows_of(database: Database) -> dict[str, dict[str, Any]]:
    """Return what users see of each run and its tasks."""
    tables = database.tables
    seen = ("state", "run_type", "start_date", "end_date", "data_interval_start", "data_interval_end", "conf",
            "logical_date", "execution_date", "run_after", "triggered_by", "triggering_user_name")  # fmt: skip
    of_task = ("state", "try_number", "max_tries", "queued_dttm", "start_date", "end_date", "duration", "operator",
               "pool", "hostname")  # fmt: skip
    found = {}
    with database.settings.engine.connect() as connection:
        for row in connection.execute(tables.runs.select()):
            found[row.run_id] = {name: getattr(row, name) for name in seen if name in tables.runs.c}
            tasks = connection.execute(tables.tasks.select().where(tables.tasks.c.run_id == row.run_id))
            found[row.run_id]["tasks"] = {
                (task.task_id, task.map_index): tuple(getattr(task, name) for name in of_task) for task in tasks
            }
    return found


def dag_row(database: Database) -> dict[str, Any]:
    """Return the row of the DAG, without the times at which Airflow parsed it."""
    return {name: value for name, value in database.dag("orders")._mapping.items() if not name.startswith("last_pars")}


def test_a_standby_shows_what_the_active_site_shows(database: Database, db: Any) -> None:
    """
    State, dates, type, conf, and of the tasks state, tries, dates, operator, pool and host. A note keeps its text.

    Importing again is a no-op.
    """
    parse(database, chain())
    runs = [interval(day, RunStatus.FAILED if day == 2 else RunStatus.SUCCESS) for day in range(5)]
    runs[1] = replace(runs[1], conf='{"a": [1, "\\u00e4"]}')
    executed_here(database, *runs)
    (one,) = db.runs([runs[1].key])
    with database.settings.engine.begin() as connection:
        connection.execute(database.tables.notes.insert().values(dag_run_id=one.id, content="see the ticket"))
    shown, found, ledger = rows_of(database), exported(db), published(db)
    assert len(found) == 5
    database.forget_history()
    parse(database, chain())
    adopt(db, ledger)
    before = dag_row(database)
    outcome = imports(db, found, ledger)
    assert (len(outcome.written), outcome.waiting, outcome.kept) == (5, set(), {})
    assert dag_row(database) == before
    assert rows_of(database) == shown
    assert database.note("scheduled__1") == "see the ticket\n[mwaa-dr] imported: this run was executed in there"
    assert database.note("scheduled__4") == "[mwaa-dr] adopted"
    again = imports(db, found, ledger)
    assert (rows_of(database), len(again.written)) == (shown, 5), "idempotent"


def test_nothing_is_published_or_exported_again(database: Database, db: Any) -> None:
    """Neither the ledger nor the history of a site has a run that the site imported, adopted or ended as a standby."""
    parse(database, chain())
    executed_here(database, *(interval(day) for day in range(4)))
    found, ledger = exported(db), published(db)
    database.forget_history()
    adopt(db, ledger)
    assert len(imports(db, found, ledger).written) == 4
    ended(interval(8, RunStatus.FAILED), note="skipped: standby")
    database.add_run("orders", "closed")
    db.close_runs("closed: standby")
    assert exported(db) == []
    newest, states = db.read_states(above=0)
    assert {run_id for _, run_id in states} == {"scheduled__3", "scheduled__8", "closed"}
    assert [row.run_id for row in db.last_finished(["orders"])] == ["scheduled__3"]
    assert db.runs([("orders", "scheduled__1")]) == []
    assert newest == db.newest_run()


def test_an_imported_run_that_a_user_clears_is_a_run_of_this_site(database: Database, db: Any) -> None:
    """It executes, and this site publishes and exports its end."""
    from airflow_provider_mwaa_dr.plugins.metadata.schema import clear_tasks
    from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction

    database.serialize(chain())
    executed_here(database, *(interval(day) for day in range(3)))
    found, ledger = exported(db), published(db)
    database.forget_history()
    adopt(db, ledger)
    imports(db, found, ledger)
    with transaction() as session:
        clear_tasks(session, ("orders", "scheduled__1"))
        session.flush()
    assert db.read_states(above=db.newest_run())[1] == {("orders", "scheduled__1"): "queued"}
    database.schedule("scheduled__1")
    database.end("scheduled__1", "success", one="success", two="success")
    database.update(database.tables.runs, end_date=AT)
    assert [run.run.run_id for run in exported(db)] == ["scheduled__1"]
    assert [row.run_id for row in db.runs([("orders", "scheduled__1")])] == ["scheduled__1"]


def test_a_run_that_this_site_skipped_becomes_the_real_run_in_the_same_row(database: Database, db: Any) -> None:
    """The standby's scheduler had created it, too."""
    parse(database, chain())
    executed_here(database, *(interval(day) for day in range(4)))
    shown, found, ledger = rows_of(database), exported(db), published(db)
    database.forget_history()
    executed(database, db, open_interval(1), "skipped", "skipped")
    (row,) = db.runs([interval(1).key])
    adopt(db, ledger)
    from airflow_provider_mwaa_dr.plugins.metadata.own_ends import OWN_END

    runs = database.tables.runs
    with database.settings.engine.begin() as connection:
        of_run = runs.update().where(runs.c.run_id == "scheduled__1")
        connection.execute(of_run.values(state="failed", last_scheduling_decision=OWN_END))
        connection.execute(
            database.tables.tasks.update().where(database.tables.tasks.c.run_id == "scheduled__1").values(hostname="")
        )
    assert len(imports(db, found, ledger).written) == 4
    assert rows_of(database) == shown
    with database.settings.engine.connect() as connection:
        assert connection.execute(select(runs.c.id).where(runs.c.run_id == "scheduled__1")).scalar() == row.id


def test_a_run_of_this_site_wins_and_is_listed(database: Database, db: Any) -> None:
    """The same id, or another id with the same date."""
    parse(database, chain())
    executed_here(database, *(interval(day) for day in range(5)))
    found, ledger = exported(db), published(db)
    database.forget_history()
    executed_here(database, interval(1, RunStatus.FAILED), interval(2, RunStatus.FAILED, run_id="other"))
    adopt(db, ledger)
    before = rows_of(database)
    outcome = imports(db, found, ledger)
    assert outcome.kept == {
        ("orders", "scheduled__1"): "this site has executed a run with the same id",
        ("orders", "scheduled__2"): "this site has a run of the same interval: other",
    }
    after = rows_of(database)
    assert {name: after[name] for name in ("scheduled__1", "other")} == {
        name: before[name] for name in ("scheduled__1", "other")
    }


def test_a_later_page_corrects_a_run(database: Database, db: Any) -> None:
    """A user has cleared the run in the other site, and it has ended again."""
    parse(database, chain())
    executed_here(database, *(interval(day) for day in range(3)))
    found, ledger = exported(db), published(db)
    database.forget_history()
    adopt(db, ledger)
    imports(db, found, ledger)
    first = next(run for run in found if run.run.run_id == "scheduled__0")
    again = replace(first, run=replace(first.run, ended_at=AT + 99 * SECOND), tasks=first.tasks[:1])
    imports(db, [again], ledger)
    row = rows_of(database)["scheduled__0"]
    assert (row["end_date"], set(row["tasks"])) == (AT + 99 * SECOND, {("one", -1)})


def test_runs_of_unknown_and_exempt_dags(database: Database, db: Any) -> None:
    """A DAG may come later. An exempt DAG runs in every site, so nothing of it is imported or exported."""
    database.add_dag("by_id")
    executed_here(database, interval(1), interval(2))
    found, ledger = exported(db), published(db)
    moved = [replace(run, run=replace(run.run, dag_id=dag_id)) for run in found for dag_id in ("later", "by_id")]
    database.forget_history()
    outcome = imports(db, moved, ledger)
    assert {dag_id for dag_id, _ in outcome.waiting} == {"later"}, "no run of it is adopted"
    assert (outcome.written, outcome.kept, database.runs()) == (set(), {}, {})
    db.adopt([interval(2, dag_id="later", ended_at=AT + 3 * DAY)], "adopted")
    assert {run_id for _, run_id in imports(db, moved, ledger).written} >= {"scheduled__1"}
    executed_here(database, interval(3, dag_id="by_id"))
    assert exported(db) == []


def test_two_runs_with_one_date_leave_the_later_one(database: Database, db: Any) -> None:
    """A user deleted a run in the other site, and its date was executed again under another id."""
    parse(database, chain())
    executed_here(database, *(interval(day) for day in range(3)))
    found, ledger = exported(db), published(db)
    database.forget_history()
    adopt(db, ledger)
    imports(db, found, ledger)
    first = next(run for run in found if run.run.run_id == "scheduled__0")
    second = replace(first, run=replace(first.run, run_id="scheduled__second"))
    assert imports(db, [second], ledger).written == {second.key}
    assert set(database.runs()) == {"scheduled__second", "scheduled__1", "scheduled__2"}
    third = replace(first, run=replace(first.run, run_id="scheduled__third"))
    outcome = imports(db, [replace(second, run=replace(second.run, run_id="fourth")), third], ledger)
    assert len(outcome.written) + len(outcome.kept) == 2, "in one transaction, too"
    assert len(database.runs()) == 3


# The oracle.


def in_3(day: float, run_type: str = "scheduled", status: RunStatus = RunStatus.SUCCESS, **values: Any) -> LedgerRun:
    """A run with the date and interval of ``CronTriggerTimetable``."""
    at = AT + day * DAY
    dates = {"data_interval_start": at, "data_interval_end": at, "run_after": at}
    return interval(day, status, **{"run_type": run_type, "run_id": f"{run_type}__{day}", **dates, **values})


def created_next(database: Database, dag: Any, number: int = 2) -> list[str]:
    """Return the ids of the runs that the scheduler creates next. It may pass over dates that have a run."""
    runs, found = database.tables.runs, []
    for _ in range(number):
        before = set(database.runs())
        parse(database, dag)
        for _ in range(20):
            pass_over(database)
            if new := set(database.runs()) - before:
                found += sorted(new)
                break
    assert len(found) == number, (found, runs)
    return found


def daily(**values: Any) -> Any:
    from airflow.timetables.trigger import CronTriggerTimetable

    return chain(schedule=CronTriggerTimetable("0 0 * * *", timezone="UTC"), **values)


FAILED = RunStatus.FAILED
KINDS = {
    "intervals": [in_3(day) for day in range(6)],
    "the last ones failed": [*(in_3(day) for day in range(4)), *(in_3(day, status=FAILED) for day in (4, 5, 6))],
    "all failed": [in_3(day, status=FAILED) for day in range(5)],
    "a backfill after the schedule": [in_3(0), in_3(1), *(in_3(day, "backfill") for day in (3, 4, 5))],
    "a backfill of old intervals": [in_3(2), in_3(3), in_3(1, "backfill"), in_3(0, "backfill")],
    "manual runs with dates": [in_3(2), in_3(5, "manual"), in_3(4, "manual"), in_3(1, "manual"), in_3(0)],
    "manual runs between intervals": [in_3(1), in_3(1.5, "manual"), in_3(2), in_3(2.5, "manual", FAILED), in_3(3)],
    "only manual runs": [in_3(day + 0.25, "manual", FAILED if day == 3 else RunStatus.SUCCESS) for day in range(4)],
}


def parts_of(found: Sequence[HistoryRun]) -> Iterator[tuple[str, list[HistoryRun]]]:
    """Yield the runs that an import has reached when it stops."""
    yield "nothing", []
    yield "the old half", list(found[: len(found) // 2])
    yield "the new half", list(found[len(found) // 2 :])
    yield "all", list(found)


@pytest.mark.parametrize(
    ("kind", "catchup"), [*((kind, True) for kind in KINDS), ("intervals", False), ("all failed", False)]
)
def test_the_scheduler_creates_the_same_runs_with_any_part_of_the_import(
    database: Database, db: Any, kind: str, catchup: bool
) -> None:
    """The import may stop at any run, because the role moves."""
    dag = daily(catchup=catchup)
    parse(database, dag)
    executed_here(database, *KINDS[kind])
    found, ledger = exported(db), published(db)
    created = {}
    for part, runs in parts_of(found):
        database.forget_history()
        adopt(db, ledger)
        parse(database, dag)
        before = dag_row(database)
        imports(db, runs, ledger)
        assert dag_row(database) == before, part
        become_active(db, ledger)
        parse(database, dag)
        # Without catchup, the next run is in the future.
        created[part] = created_next(database, dag) if catchup else [str(database.dag("orders").next_dagrun)]
    assert len({tuple(dates) for dates in created.values()}) == 1, created


@pytest.mark.parametrize("catchup", [True, False])
@pytest.mark.parametrize("schedule", ["@daily", timedelta(days=1), "@continuous", "@once", None])
def test_each_schedule_continues_as_without_the_import(
    database: Database, db: Any, schedule: Any, catchup: bool
) -> None:
    """Also a DAG that has no schedule, or that runs once."""
    if schedule == "@continuous" and not catchup:
        pytest.skip("the dates of this schedule are the times of the test")
    dag = chain(schedule=schedule, catchup=catchup, max_active_runs=1)
    parse(database, dag)
    run_type = "manual" if schedule is None else "scheduled"
    days = [0] if schedule == "@once" else range(4)
    executed_here(database, *(interval(day, run_type=run_type, run_id=f"{run_type}__{day}") for day in days))
    found, ledger = exported(db), published(db)
    next_of = set()
    for part, runs in parts_of(found):
        database.forget_history()
        adopt(db, ledger)
        imports(db, runs, ledger)
        shown = len(database.runs())
        become_active(db, ledger)
        parse(database, dag)
        next_dagrun = database.dag("orders").next_dagrun
        # Some of these times are those of the test.
        is_now = schedule == "@continuous" or (not catchup and schedule == timedelta(days=1))
        next_of.add(next_dagrun is None if is_now else next_dagrun)
        if part == "all":
            assert shown == len(found)
    assert len(next_of) == 1


def delete_run(database: Database, run_id: str) -> None:
    """Delete a run with its note, as if it had never been there."""
    tables = database.tables
    of_run = tables.runs.c.run_id == run_id
    with database.settings.engine.begin() as connection:
        row_id = connection.execute(select(tables.runs.c.id).where(of_run)).scalar()
        connection.execute(tables.notes.delete().where(tables.notes.c.dag_run_id == row_id))
        connection.execute(tables.tasks.delete().where(tables.tasks.c.run_id == run_id))
        connection.execute(tables.runs.delete().where(of_run))


def probes(database: Database, db: Any, dag: Any, days: Sequence[float]) -> list[Any]:
    """Return what Airflow's own look-backs find from new runs at these days, and whether failures pause the DAG."""
    from airflow.models.dagrun import DagRun

    found: list[Any] = []
    session = database.settings.Session()
    try:
        for day in days:
            for run_type in ("scheduled", "manual"):
                probe = in_3(day, run_type, run_id=f"probe {run_type} {day}", status=RunStatus.OPEN,
                             taken_at=datetime.now(tz=timezone.utc))  # fmt: skip
                if db.resume([probe], "resumed"):
                    found.append("taken")
                    continue
                run = session.execute(select(DagRun).where(DagRun.run_id == probe.run_id)).scalar_one()
                for state in (None, "success"):
                    previous = DagRun.get_previous_dagrun(run, state=state, session=session)
                    found.append(previous.run_id if previous else None)
                previous = DagRun.get_previous_scheduled_dagrun(run.id, session=session)
                found.append(previous.run_id if previous else None)
                session.rollback()
                delete_run(database, probe.run_id)
    finally:
        database.settings.Session.remove()
    return found


def pauses(database: Database, db: Any, limit: int) -> bool:
    """Return whether one more failure pauses the DAG."""
    from airflow.models.dagrun import DagRun

    ended(in_3(90, status=FAILED, run_id="one more"))
    database.update(database.tables.dags, is_paused=False)
    session = database.settings.Session()
    try:
        run = session.execute(select(DagRun).where(DagRun.run_id == "one more")).scalar_one()
        run._check_last_n_dagruns_failed("orders", limit, session)
        session.commit()
    finally:
        database.settings.Session.remove()
    delete_run(database, "one more")
    is_paused = bool(database.dag("orders").is_paused)
    database.update(database.tables.dags, is_paused=False)
    return is_paused


def random_history(chance: random.Random) -> list[LedgerRun]:
    """Return runs of any type and result, in the order in which they ended."""
    runs = []
    for day in sorted(chance.sample(range(12), chance.randint(1, 8))):
        status = FAILED if chance.random() < 0.4 else RunStatus.SUCCESS
        run_type = chance.choice(["scheduled", "scheduled", "scheduled", "backfill", "manual"])
        at = day + (chance.choice([0, 0, 0.5]) if run_type == "manual" else 0)
        runs.append(in_3(at, run_type, status, ended_at=AT + (day + 1 + chance.choice([0, 0, 3])) * DAY))
    return runs


SEED = int(os.environ.get("MWAA_DR_SEED", random.randrange(2**31)))


@pytest.mark.parametrize("counts_failures", [False, True])
@pytest.mark.parametrize("number", range(3))
def test_look_backs_find_the_same_runs_with_any_part_of_the_import(
    database: Database, db: Any, number: int, counts_failures: bool
) -> None:
    """Random histories, imported in a random order, up to a random point."""
    print(f"MWAA_DR_SEED={SEED}")
    chance = random.Random(f"{SEED} {number} {counts_failures}")
    dag = daily()
    parse(database, dag)
    executed_here(database, *random_history(chance))
    found, ledger = exported(db), published(db)
    limit = chance.choice([2, 3]) if counts_failures else 0
    results: dict[str, Any] = {}
    chance.shuffle(found)
    for part, runs in parts_of(found):
        database.forget_history()
        adopt(db, ledger)
        parse(database, dag)
        database.update(database.tables.dags, max_consecutive_failed_dag_runs=limit)
        imports(db, runs, ledger)
        become_active(db, ledger)
        newest = max((run.run.logical_date or AT) for run in found if run.run.run_type != "manual") if any(
            run.run.run_type != "manual" for run in found
        ) else AT + 12 * DAY  # fmt: skip
        first = (newest - AT) / DAY
        results[part] = probes(database, db, dag, [first + 0.25, first + 1, first + 1.25, first + 20])
        if counts_failures:
            results[part].append(pauses(database, db, limit))
    assert all(result == results["nothing"] for result in results.values()), results


@pytest.mark.parametrize("kind", ["intervals", "the last ones failed", "a backfill after the schedule"])
def test_a_history_that_is_ahead_of_the_ledger_changes_no_next_run(database: Database, db: Any, kind: str) -> None:
    """The other site was lost after it had written a page, and before the ledger had the ends of the same runs."""
    dag = daily()
    parse(database, dag)
    executed_here(database, *KINDS[kind][:2])
    ledger = published(db)
    executed_here(database, *KINDS[kind][2:])
    found = exported(db)
    results = []
    for runs in ([], found):
        database.forget_history()
        adopt(db, ledger)
        parse(database, dag)
        imports(db, runs, ledger)
        become_active(db, ledger)
        first = (KINDS[kind][1].logical_date - AT) / DAY  # type: ignore[operator]
        results.append((probes(database, db, dag, [first + 0.25, first + 20]), created_next(database, dag)))
    assert results[0] == results[1]


def test_failures_in_the_other_site_pause_no_dag(database: Database, db: Any) -> None:
    """Airflow counts the last failures. Of those in the other site, the last one counts, as without the import."""
    dag = daily()
    parse(database, dag)
    executed_here(database, *KINDS["the last ones failed"])
    found, ledger = exported(db), published(db)
    for part, runs in parts_of(found):
        database.forget_history()
        adopt(db, ledger)
        parse(database, dag)
        database.update(database.tables.dags, max_consecutive_failed_dag_runs=3)
        imports(db, runs, ledger)
        become_active(db, ledger)
        assert pauses(database, db, 3) is False, part


@pytest.mark.parametrize("state", ["success", "failed"])
def test_a_task_that_depends_on_its_past_waits_as_without_the_import(database: Database, db: Any, state: str) -> None:
    """The states of the adopted run count, also after its row was completed."""
    dag = chain(depends_on_past=True)
    parse(database, dag)
    for day in (0, 1):
        executed(database, db, open_interval(day), "success", "success")
    executed(database, db, open_interval(2), state, state)
    database.update(database.tables.runs, last_scheduling_decision=DECIDED, start_date=AT, end_date=AT + SECOND)
    found, ledger = exported(db), published(db)
    for _, runs in parts_of(found):
        database.forget_history()
        adopt(db, ledger)
        imports(db, runs, ledger)
        assert next_one_starts(database, db) is (state == "success")


def test_runs_wait_until_the_ledger_has_adopted_a_later_one(database: Database, db: Any) -> None:
    """Without an adopted run, an imported one would be the newest interval. The scheduler would continue after it."""
    dag = daily()
    parse(database, dag)
    executed_here(database, *(in_3(day) for day in range(4)))
    found, ledger = exported(db), published(db)
    database.forget_history()
    parse(database, dag)
    assert imports(db, found, ledger).waiting == {run.key for run in found}
    assert database.runs() == {}
    adopt(db, ledger)
    assert len(imports(db, found, ledger).written) == 4


def test_a_run_that_is_interrupted_after_its_import_is_resumed_in_place_of_its_copy(
    database: Database, db: Any
) -> None:
    """A user cleared it in the other site, and then the role moved. It executes with all of its tasks."""
    database.serialize(chain())
    executed_here(database, *(interval(day) for day in range(3)))
    found, ledger = exported(db), published(db)
    database.forget_history()
    adopt(db, ledger)
    imports(db, found, ledger)
    again = open_interval(1)
    assert db.cannot_resume([again]) == {}
    assert db.resume([again], "resumed") == {}
    assert database.runs()["scheduled__1"] == "queued"
    assert set(database.schedule("scheduled__1").values()) == {"scheduled", None}


def test_a_parent_can_request_a_child_again_although_its_copy_was_imported(database: Database, db: Any) -> None:
    """The child had ended before its parent was interrupted. Airflow refuses an id that exists."""
    from airflow_provider_mwaa_dr.core.ledger import ChildRun

    database.serialize(chain(schedule=None))
    executed_here(database, *(interval(day, run_type="manual", run_id=f"child {day}") for day in range(3)))
    found, ledger = exported(db), published(db)
    database.forget_history()
    adopt(db, ledger)
    imports(db, found, ledger)
    assert "child 0" in database.runs()
    child = ChildRun(dag_id="orders", run_id="child 0", has_fixed_id=True)
    assert db.resume([open_interval(9, run_type="manual", children=(child,))], "resumed") == {}
    assert "child 0" not in database.runs()


def test_the_fence_is_not_missed_because_of_an_imported_task(database: Database, db: Any) -> None:
    """Its host is a worker of the other site."""
    parse(database, chain())
    executed_here(database, *(interval(day) for day in range(3)))
    found, ledger = exported(db), published(db)
    assert db.last_task_end(AT - DAY) is not None
    database.forget_history()
    adopt(db, ledger)
    imports(db, [run for run in found if run.run.run_id != "scheduled__2"], ledger)
    assert db.last_task_end(AT - DAY) is None


def test_imported_tasks_have_no_version_where_none_is_allowed(database: Database, db: Any) -> None:
    """The version of the DAG with which they executed is in another site."""
    tasks = database.tables.tasks
    if "dag_version_id" not in tasks.c:
        pytest.skip("Airflow 2 has no versions of DAGs")
    parse(database, chain())
    executed_here(database, *(interval(day) for day in range(3)))
    found, ledger = exported(db), published(db)
    database.forget_history()
    adopt(db, ledger)
    imports(db, found, ledger)
    with database.settings.engine.connect() as connection:
        versions = set(connection.execute(select(tasks.c.dag_version_id)).scalars())
        newest = set(connection.execute(select(database.tables.versions.c.id)).scalars())
    assert versions <= ({None} if tasks.c.dag_version_id.nullable else newest)
    assert versions
