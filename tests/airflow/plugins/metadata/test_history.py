"""The history that a region adopts is enough for the installed Airflow to continue as a single Airflow would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunStatus
from tests.airflow.plugins.metadata.chains import ONE, TWO, bash, chain, executed, ledger_of, next_one_starts, operator
from tests.airflow.plugins.metadata.other_region import AT, DAY, interval, next_dagrun, open_interval
from tests.airflow.plugins.metadata.scheduling import (
    adopt,
    dates_created_next,
    ended,
    parse,
    published,
    runs_created_next,
)

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


DEPENDS = [{"depends_on_past": True}, {"wait_for_downstream": True}]


@pytest.mark.parametrize("has_older_history", [False, True])
@pytest.mark.parametrize("depends", DEPENDS)
@pytest.mark.parametrize(
    ("one", "two", "starts"),
    [
        ("success", "success", (True, True)),
        ("skipped", "skipped", (True, True)),
        ("failed", "upstream_failed", (False, False)),
        ("success", "failed", (True, False)),
    ],
)
def test_the_next_run_waits_exactly_where_it_would_have_waited_in_the_other_region(
    database: Database,
    db: Any,
    depends: dict[str, Any],
    one: str,
    two: str,
    starts: tuple[bool, bool],
    has_older_history: bool,
) -> None:
    """This holds for every outcome of the last run, and with and without older history in the region that adopts it."""
    database.serialize(chain(**depends))
    executed(database, db, open_interval(2), one, two)
    expected = starts[DEPENDS.index(depends)]
    assert next_one_starts(database, db) is expected, "in one Airflow"
    run = ledger_of(db, "scheduled__2")
    database.forget_history()
    if has_older_history:
        executed(database, db, open_interval(0), "success", "success")
    assert db.adopt([run], "adopted") == 1
    assert database.task_states("scheduled__2") == {ONE: one, TWO: two}
    assert next_one_starts(database, db) is expected, "in another one"


def test_without_the_tasks_the_next_run_would_hang_or_run_wrongly(database: Database, db: Any) -> None:
    """Control case: the effect of an adopted run without task instances."""
    database.serialize(chain(depends_on_past=True))
    executed(database, db, open_interval(0), "success", "success")
    assert db.adopt([interval(2, RunStatus.SUCCESS)], "adopted") == 1
    assert next_one_starts(database, db) is False
    database.forget_history()
    database.serialize(chain(depends_on_past=True, ignore_first_depends_on_past=True))
    assert db.adopt([interval(2, RunStatus.FAILED)], "adopted") == 1
    assert next_one_starts(database, db) is True


@pytest.mark.parametrize("state", ["success", "failed"])
def test_without_catchup_the_next_run_depends_on_a_manual_run_too(database: Database, db: Any, state: str) -> None:
    """The manual run is adopted as a manual run, after the interval before it."""
    database.serialize(chain(catchup=False, depends_on_past=True))
    manual = open_interval(2.5, run_type="manual", run_id="by hand")
    executed(database, db, open_interval(2), "success", "success")
    executed(database, db, manual, state, state)
    runs = [ledger_of(db, run_id) for run_id in ("scheduled__2", "by hand")]
    database.forget_history()
    assert db.adopt(runs, "adopted") == 2
    assert next_one_starts(database, db) is (state == "success")


def test_a_run_that_a_standby_skipped_gets_the_outcome_of_the_active_region(database: Database, db: Any) -> None:
    """The standby's own scheduler had created the run, too, and the gate had skipped it."""
    database.serialize(chain(depends_on_past=True))
    executed(database, db, open_interval(2), "failed", "upstream_failed")
    run = ledger_of(db, "scheduled__2")
    database.forget_history()
    executed(database, db, open_interval(2), "skipped", "skipped")
    for _ in range(2):
        assert db.adopt([run], "adopted") == 0
    assert database.runs() == {"scheduled__2": "failed"}
    assert database.note("scheduled__2") == "[mwaa-dr] adopted"
    assert next_one_starts(database, db) is False


def test_a_run_that_another_region_finished_keeps_no_failed_task(database: Database, db: Any) -> None:
    """
    A task of the run failed when this region stopped it. The other region finished the run. Then the role comes back.
    """
    database.serialize(chain(depends_on_past=True))
    executed(database, db, open_interval(2), "success", "success")
    run = ledger_of(db, "scheduled__2")
    database.forget_history()
    executed(database, db, open_interval(2), "failed", "skipped")
    db.apply_outcomes([replace(run, tasks=())], "it ended elsewhere")
    assert next_one_starts(database, db) is False, "the control: the run's result alone is not enough"
    database.end("scheduled__3", "failed")
    db.apply_outcomes([run], "it ended elsewhere")
    assert next_one_starts(database, db) is True


def test_a_mapped_task_depends_on_every_mapped_task_of_the_previous_run(database: Database, db: Any) -> None:
    """The map indexes are adopted. One failed index holds the next run."""
    from airflow import DAG

    with DAG("orders", schedule="@daily", start_date=AT - 100 * DAY, catchup=True) as dag:
        one = operator().partial(task_id="mapped", depends_on_past=True).expand(bash_command=["a", "b", "c"])
        one >> bash("two")
    database.serialize(dag)
    for state, goes in (("success", "scheduled"), ("failed", None)):
        database.forget_history()
        db.resume([open_interval(2)], "resumed")
        assert database.schedule("scheduled__2")["mapped", 2] == "scheduled"
        database.end("scheduled__2", "failed", one="success", two="success", mapped="success")
        with database.settings.engine.begin() as connection:
            tasks = database.tables.tasks
            of_one = tasks.update().where(tasks.c.task_id == "mapped", tasks.c.map_index == 1)
            connection.execute(of_one.values(state=state))
        before = database.task_states("scheduled__2")
        run = ledger_of(db, "scheduled__2")
        database.forget_history()
        db.adopt([run], "adopted")
        assert database.task_states("scheduled__2") == before
        db.resume([open_interval(3)], "resumed")
        assert database.schedule("scheduled__3")["mapped", 0] == goes


def test_adopting_writes_the_interval_and_moves_the_schedule_on(database: Database, db: Any) -> None:
    """
    Adopting again is a no-op. Runs that exist or are older than the newest one are passed over. Failed runs stay
    failed.
    """
    assert db.adopt([interval(5)], "adopted") == 1
    assert db.adopt([interval(5)], "adopted") == 0
    assert db.adopt([interval(4)], "adopted") == 0
    assert db.adopt([interval(7, RunStatus.FAILED)], "adopted") == 1
    assert database.runs() == {"scheduled__5": "success", "scheduled__7": "failed"}
    assert database.note("scheduled__5") == "[mwaa-dr] adopted"
    assert [row.queued_at for row in db.runs([interval(5).key, interval(7).key])] == [None, None], "nothing queued them"
    assert next_dagrun(database) == AT + 7 * DAY
    assert database.dag("orders").next_dagrun_create_after == AT + 8 * DAY


def test_a_run_of_a_dag_that_is_not_deployed_yet_is_adopted(database: Database, db: Any) -> None:
    """Its row waits for the file. Another run that has the same logical date stays unchanged."""
    assert db.adopt([interval(5, dag_id="later")], "adopted") == 1
    assert db.adopt([interval(5, dag_id="later", run_id="other id")], "adopted") == 0
    assert database.runs() == {"scheduled__5": "success"}


def test_a_closed_run_gets_the_outcome_of_another_region(database: Database, db: Any) -> None:
    """An open run never changes."""
    database.add_run("orders", "r1", state="failed", note="[mwaa-dr] closed: us-east-1 is standby")
    database.add_run("orders", "r2", state="queued")
    db.apply_outcomes(
        [interval(0, run_id="r1"), interval(0, run_id="r2"), interval(0, run_id="none")], "it ended elsewhere"
    )
    assert database.runs() == {"r1": "success", "r2": "queued"}
    assert database.note("r1") == "[mwaa-dr] it ended elsewhere"


def triggered(day: float, run_type: str = "scheduled", **values: Any) -> LedgerRun:
    """A run with the date and interval of ``CronTriggerTimetable``."""
    at = AT + day * DAY
    dates = {"data_interval_start": at, "data_interval_end": at, "run_after": at}
    return interval(day, run_type=run_type, run_id=f"{run_type}__{day}", **dates, **values)


def daily(**values: Any) -> Any:
    from airflow.timetables.trigger import CronTriggerTimetable

    return chain(schedule=CronTriggerTimetable("0 0 * * *", timezone="UTC"), **values)


KINDS = {
    "a backfill of all": [triggered(day, "backfill") for day in range(5)],
    "a backfill after the schedule": [triggered(0), triggered(1), *(triggered(day, "backfill") for day in (3, 4))],
    "a backfill of old intervals": [triggered(2), triggered(3), triggered(1, "backfill")],
    "a manual run with the date of the next interval": [triggered(2), triggered(3), triggered(4, "manual")],
    "manual runs with the dates of later intervals": [triggered(2), triggered(5, "manual"), triggered(4, "manual")],
    "a manual run with an older date": [triggered(1), triggered(3), triggered(2, "manual")],
    "a manual run with a date between intervals": [triggered(2), triggered(2.5, "manual"), triggered(3, "manual")],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_new_to_the_ledger", [False, True])
def test_the_scheduler_creates_the_runs_that_it_would_have_created_in_the_other_region(
    database: Database, db: Any, kind: str, is_new_to_the_ledger: bool
) -> None:
    """
    Airflow continues after the newest scheduled run or run of a backfill, and passes over dates that any run has.
    """
    dag = daily()
    parse(database, dag)
    ended(*KINDS[kind])
    run_ids = [run.run_id for run in KINDS[kind]]
    if is_new_to_the_ledger:
        run_ids = [row.run_id for row in db.last_finished(["orders"])]
    ledger = published(db, *run_ids)
    expected = dates_created_next(database, dag)
    database.forget_history()
    adopt(db, ledger)
    assert dates_created_next(database, dag) == expected


def test_a_manual_run_whose_date_is_the_time_of_its_request_holds_no_interval(database: Database, db: Any) -> None:
    """Airflow 2 gives it this date. With a DAG that has no schedule, no date holds an interval."""
    parse(database, daily())
    now = datetime.now(tz=timezone.utc).replace(microsecond=7)
    for run_id, at in (("now", now), ("second", now.replace(microsecond=0)), ("date", AT)):
        db.resume([replace(triggered(0, "manual"), run_id=run_id, logical_date=at)], "resumed")
    held = {row.run_id: row.holds_date for row in db.runs([("orders", name) for name in ("now", "second", "date")])}
    assert held == {"now": False, "second": True, "date": True}
    parse(database, chain(schedule=None))
    assert not any(row.holds_date for row in db.runs([("orders", name) for name in held]))


def partition(day: int, run_type: str = "scheduled", **values: Any) -> LedgerRun:
    """A run of a daily partition, as Airflow 3.2 and later creates it: without a logical date and interval."""
    at = AT + day * DAY
    key = {"partition_key": f"{at:%Y-%m-%dT%H:%M:%S}", "partition_date": at, "run_after": at}
    run_id = f"{run_type}__{day}__random"
    none = {"logical_date": None, "data_interval_start": None, "data_interval_end": None}
    return interval(day, **{"run_type": run_type, "run_id": run_id, **none, **key, **values})


@pytest.fixture
def partitioned(database: Database, db: Any) -> Any:
    """A DAG that is scheduled by daily partitions; the DAG processor has parsed it."""
    timetables = pytest.importorskip("airflow.timetables.trigger")
    if not hasattr(timetables, "CronPartitionTimetable"):
        pytest.skip("Airflow 3.2 and later have partitions")
    dag = chain(schedule=timetables.CronPartitionTimetable("0 0 * * *", timezone="UTC"))
    parse(database, dag)
    return dag


PARTITIONS = {
    "scheduled": [partition(day) for day in range(4)],
    "of a backfill": [partition(0), *(partition(day, "backfill") for day in (1, 2))],
    "an old one of a backfill": [partition(2), partition(3), partition(1, "backfill")],
    "one that a user requested": [partition(1), partition(2, "manual")],
}


@pytest.mark.parametrize("kind", PARTITIONS)
@pytest.mark.parametrize("is_new_to_the_ledger", [False, True])
def test_the_scheduler_creates_the_partitions_that_it_would_have_created_in_the_other_region(
    database: Database, db: Any, partitioned: Any, kind: str, is_new_to_the_ledger: bool
) -> None:
    """Airflow continues after the scheduled run or run of a backfill with the newest partition date."""
    ended(*PARTITIONS[kind])
    run_ids = [run.run_id for run in PARTITIONS[kind]]
    if is_new_to_the_ledger:
        run_ids = [row.run_id for row in db.last_finished(["orders"])]
    ledger = published(db, *run_ids)
    expected = [row.partition_key for row in runs_created_next(database, partitioned, 3)]
    database.forget_history()
    adopt(db, ledger)
    assert [row.partition_key for row in runs_created_next(database, partitioned, 3)] == expected


def test_a_resumed_partition_is_not_created_again(database: Database, db: Any, partitioned: Any) -> None:
    """The DAG's row named it as the next run. Airflow does not look whether a partition has a run."""
    db.adopt([partition(2)], "adopted")
    parse(database, partitioned)
    assert database.dag("orders").next_dagrun_partition_date == AT + 3 * DAY
    interrupted = partition(3, status=RunStatus.OPEN, taken_at=datetime.now(tz=timezone.utc))
    assert db.cannot_resume([interrupted]) == {}
    assert db.resume([interrupted], "resumed") == {}
    assert database.dag("orders").next_dagrun_create_after is None
    other = replace(interrupted, run_id="scheduled__3__other")
    refused = {other.key: f"another run has its partition: {interrupted.run_id}"}
    assert db.cannot_resume([other]) == refused
    assert db.resume([other], "resumed") == refused
    by_hand = replace(other, run_id="by hand", run_type="manual")
    assert db.cannot_resume([by_hand]) == {}
    (row,) = runs_created_next(database, partitioned, 1)
    assert row.partition_date == AT + 4 * DAY


def test_skipped_partitions_that_no_region_created_are_created_again(
    database: Database, db: Any, partitioned: Any
) -> None:
    """A skipped partition takes nothing: the other region's run of it is resumed."""
    db.adopt([partition(2)], "adopted")
    ended(*(partition(day) for day in (3, 4, 5)), note="skipped: us-east-1 is standby")
    assert db.cannot_resume([partition(3, run_id="scheduled__3__other", status=RunStatus.OPEN)]) == {}
    assert drop(db, "scheduled__4__random", "scheduled__5__random") == 2
    assert database.dag("orders").next_dagrun_partition_key is None
    (row,) = runs_created_next(database, partitioned, 1)
    assert row.partition_date == AT + 4 * DAY


def test_a_version_without_partitions_adopts_none(database: Database, db: Any) -> None:
    """The next partition is its DAG's own affair, and no error."""
    if "partition_key" in database.tables.runs.c:
        pytest.skip("this version has partitions")
    assert db.adopt([partition(2)], "adopted") == 0


def drop(db: Any, *run_ids: str, runs: Sequence[LedgerRun] = ()) -> int:
    """Delete these runs if the provider ended them, and adopt *runs* at the same time; return how many were deleted."""
    ids = [row.id for row in db.own_ends(above=0, up_to=db.newest_run(), limit=100) if row.run_id in run_ids]
    number: int = db.drop_own_ends(ids, runs, "adopted")
    return number


def test_skipped_intervals_are_deleted_and_the_schedule_goes_back(database: Database, db: Any) -> None:
    """A version without the mark has skipped them. The scheduler continues after the newest run that remains."""
    database.add_dag("billing")
    db.adopt([interval(5), interval(3, dag_id="billing", run_id="b3")], "adopted")
    ended(*(interval(day) for day in (6, 7, 8)), note="skipped: us-east-1 is standby")
    assert drop(db, "scheduled__7", "scheduled__8", "scheduled__5", "b3") == 2
    assert set(database.runs()) == {"scheduled__5", "scheduled__6", "b3"}
    assert next_dagrun(database) == AT + 6 * DAY
    database.forget_history()
    ended(interval(6), note="closed: us-east-1 is standby")
    assert drop(db, "scheduled__6") == 1
    assert next_dagrun(database) is None


def test_a_date_of_another_regions_run_is_never_free(database: Database, db: Any) -> None:
    """A user had requested a run with it in the standby. The scheduler must not create the interval again."""
    db.adopt([interval(5)], "adopted")
    ended(interval(7, run_type="manual", run_id="here"), note="skipped: us-east-1 is standby")
    other = interval(7, run_type="manual", run_id="there")
    assert db.adopt([other], "adopted") == 0
    assert drop(db, "here", runs=[other, interval(9, dag_id="billing")]) == 1
    assert set(database.runs()) == {"scheduled__5", "there"}
