"""
Runs of another era of Airflow: the installed scheduler continues after them, and each mark has one run.

A *mark* is the time at which a run is due: the end of its interval. Eras give the run of one mark different logical
dates and ids. ``KINDS`` has the intervals of each schedule, and ``published`` a run as a region of an era publishes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunStatus, mark_of
from airflow_provider_mwaa_dr.core.translation import Era, as_known_in
from tests.airflow.conftest import HERE
from tests.airflow.plugins.metadata.chains import ONE, TWO, chain, ledger_of
from tests.airflow.plugins.metadata.other_region import AT, DAY, interval
from tests.airflow.plugins.metadata.scheduling import ended, parse, pass_over, runs_created_next
from tests.airflow.region import Region

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

NONE = timedelta()


def events() -> Any:
    from airflow.timetables.events import EventsTimetable

    return EventsTimetable([AT + day * DAY for day in range(30)])


def cron_trigger() -> Any:
    from airflow.timetables.trigger import CronTriggerTimetable

    return CronTriggerTimetable("0 0 * * *", timezone="UTC")


def long_cron_trigger() -> Any:
    from airflow.timetables.trigger import CronTriggerTimetable

    return CronTriggerTimetable("0 0 * * *", timezone="UTC", interval=2 * DAY)


def cron_interval() -> Any:
    from airflow.timetables.interval import CronDataIntervalTimetable

    return CronDataIntervalTimetable("0 0 * * *", timezone="UTC")


def assets_or_cron() -> Any:
    try:
        from airflow.sdk import Asset
        from airflow.timetables.assets import AssetOrTimeSchedule
    except ImportError:
        from airflow.datasets import Dataset
        from airflow.timetables.datasets import DatasetOrTimeSchedule

        return DatasetOrTimeSchedule(timetable=cron_trigger(), datasets=[Dataset("file:///a")])
    return AssetOrTimeSchedule(timetable=cron_trigger(), assets=[Asset("file:///a")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A schedule with a run a day, and the lengths of its intervals before Airflow 3, and from it on."""

    schedule: Callable[[], Any]
    before_3: timedelta
    from_3: timedelta

    def length(self, era: Era) -> timedelta:
        return self.before_3 if era is Era.AIRFLOW_2 else self.from_3


KINDS = {
    "a cron string": Kind(schedule=lambda: "@daily", before_3=DAY, from_3=NONE),
    "a timedelta": Kind(schedule=lambda: DAY, before_3=DAY, from_3=NONE),
    "a cron trigger": Kind(schedule=cron_trigger, before_3=NONE, from_3=NONE),
    "a cron trigger with long intervals": Kind(schedule=long_cron_trigger, before_3=2 * DAY, from_3=2 * DAY),
    "cron intervals": Kind(schedule=cron_interval, before_3=DAY, from_3=DAY),
    "events": Kind(schedule=events, before_3=NONE, from_3=NONE),
    "assets or a cron trigger": Kind(schedule=assets_or_cron, before_3=NONE, from_3=NONE),
}
of_each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
DIFFERENT = ("a cron string", "a timedelta", "a cron trigger", "cron intervals")
"""The kinds that differ in what an era makes of them."""
of_different_kinds = pytest.mark.parametrize("kind", [KINDS[name] for name in DIFFERENT], ids=DIFFERENT)


@pytest.fixture
def own() -> Era:
    """The era of the installed Airflow."""
    from airflow import __version__

    era = Era.of(__version__)
    assert era is not None
    return era


@pytest.fixture(params=Era, ids=lambda era: f"from {era.value}")
def other(request: pytest.FixtureRequest, own: Era) -> Era:
    """Each other era."""
    era: Era = request.param
    if era is own:
        pytest.skip("its runs need no translation")
    return era


def published(era: Era, day: int, length: timedelta, **values: Any) -> LedgerRun:
    """The run of the mark *day* as a region of *era* publishes it."""
    mark = AT + day * DAY
    start = mark - length
    dates = {"logical_date": start, "data_interval_start": start, "data_interval_end": mark}
    run_after = None if era is Era.AIRFLOW_2 else mark
    run_id = f"scheduled__{(mark if era is Era.AIRFLOW_3_2 else start).isoformat()}"
    return interval(day, **{"run_id": run_id, "run_after": run_after, **dates, **values})


def interrupted(era: Era, day: int, length: timedelta, **values: Any) -> LedgerRun:
    """The same, for a run that this region is to resume."""
    now = datetime.now(tz=timezone.utc)
    return published(era, day, length, **{"status": RunStatus.OPEN, "taken_at": now, **values})


def marks(rows: list[Any]) -> list[int]:
    """Return the days of the marks of runs."""
    return [(row.data_interval_end.replace(tzinfo=timezone.utc) - AT) // DAY for row in rows]


def all_runs(database: Database) -> list[Any]:
    """Return the rows of all runs, oldest first."""
    runs = database.tables.runs
    with database.settings.engine.connect() as connection:
        return list(connection.execute(runs.select().order_by(runs.c.id)).all())


def logical_date(row: Any) -> datetime:
    at: datetime = row.logical_date if hasattr(row, "logical_date") else row.execution_date
    return at


@of_each_kind
def test_the_scheduler_continues_after_the_last_mark_of_the_other_region(
    database: Database, db: Any, own: Era, other: Era, kind: Kind
) -> None:
    """The adopted run has the id of the installed Airflow, so its own later runs have other ids."""
    dag = chain(schedule=kind.schedule())
    parse(database, dag)
    db.adopt([as_known_in(published(other, 5, kind.length(other)), own)], "adopted")
    rows = runs_created_next(database, dag, 3)
    assert marks(rows) == [6, 7, 8]
    assert [row.run_id for row in rows] == [published(own, day, kind.length(own)).run_id for day in (6, 7, 8)]
    assert [logical_date(row) for row in rows] == [AT + day * DAY - kind.length(own) for day in (6, 7, 8)]


@of_each_kind
def test_an_interrupted_run_and_the_marks_after_it_execute_once(
    database: Database, db: Any, own: Era, other: Era, kind: Kind
) -> None:
    """The run keeps date, interval and conf. If another run needs its date, it gets a microsecond more."""
    dag = chain(schedule=kind.schedule())
    parse(database, dag)
    run = as_known_in(interrupted(other, 6, kind.length(other), conf='{"a": 1}'), own)
    db.adopt([as_known_in(published(other, 5, kind.length(other)), own)], "adopted")
    for _ in range(2):
        assert db.cannot_resume([run]) == db.resume([run], "resumed") == {}
    rows = runs_created_next(database, dag, 3)
    assert marks(rows) == [7, 8, 9]
    (resumed,) = db.runs([run.key])
    assert (resumed.data_interval_start, resumed.data_interval_end) == (run.data_interval_start, run.data_interval_end)
    assert resumed.logical_date is not None
    assert run.logical_date is not None
    assert resumed.logical_date - run.logical_date in {timedelta(), timedelta(microseconds=1)}
    assert resumed.conf == {"a": 1}
    assert database.schedule(run.run_id) == {ONE: "scheduled", TWO: None}
    assert (
        as_known_in(ledger_of(db, run.run_id, status=RunStatus.OPEN), other).run_id == run.run_id.partition("__air")[0]
    )


@of_different_kinds
def test_the_role_comes_back_within_two_marks(database: Database, db: Any, own: Era, other: Era, kind: Kind) -> None:
    """
    This region executed marks 4 and 5, the other region marks 6 and 7, and was interrupted at 8.

    The other region's ids and dates are those of other marks in this region.
    """
    dag = chain(schedule=kind.schedule())
    parse(database, dag)
    length = kind.length(other)
    db.adopt([as_known_in(published(own, 3, kind.length(own)), own)], "adopted")
    assert marks(runs_created_next(database, dag, 2)) == [4, 5]
    database.update(database.tables.runs, state="success")
    for day in (6, 7):
        db.adopt([as_known_in(published(other, day, length), own)], "adopted")
        parse(database, dag)
    run = as_known_in(interrupted(other, 8, length), own)
    assert db.cannot_resume([run]) == db.resume([run], "resumed") == {}
    assert marks(runs_created_next(database, dag, 2)) == [9, 10]
    assert sorted(marks(all_runs(database))) == list(range(3, 11))


@of_different_kinds
def test_the_role_moves_at_each_mark(database: Database, db: Any, own: Era, other: Era, kind: Kind) -> None:
    """Every mark of the other region is interrupted, and every second mark is this region's own."""
    dag = chain(schedule=kind.schedule())
    parse(database, dag)
    db.adopt([as_known_in(published(own, 3, kind.length(own)), own)], "adopted")
    for day in (4, 6, 8):
        assert marks(runs_created_next(database, dag, 1)) == [day]
        run = as_known_in(interrupted(other, day + 1, kind.length(other)), own)
        assert db.cannot_resume([run]) == db.resume([run], "resumed") == {}
        database.update(database.tables.runs, state="success")
    assert sorted(marks(all_runs(database))) == list(range(3, 10))


@of_different_kinds
def test_a_mark_that_this_region_is_executing_is_not_resumed(
    database: Database, db: Any, own: Era, other: Era, kind: Kind
) -> None:
    """The other region had lost the role before it published the run."""
    dag = chain(schedule=kind.schedule())
    parse(database, dag)
    db.adopt([as_known_in(published(own, 4, kind.length(own)), own)], "adopted")
    assert marks(runs_created_next(database, dag, 1)) == [5]
    run = as_known_in(interrupted(other, 5, kind.length(other)), own)
    refused = db.cannot_resume([run])
    if run.run_id == published(own, 5, kind.length(own)).run_id:
        assert refused == {}, "in both eras, it is the same run"
    else:
        assert list(refused) == [run.key]
        assert db.resume([run], "resumed") == refused
        assert marks(all_runs(database)) == [4, 5]


@of_different_kinds
@pytest.mark.parametrize("is_adopted", [True, False])
def test_a_run_that_a_user_cleared_in_the_other_region_is_resumed(
    database: Database, db: Any, own: Era, other: Era, kind: Kind, is_adopted: bool
) -> None:
    """
    Its earlier result does not stand in the way. If this region had adopted that result, the run replaces it: with both
    rows, a user could start it twice. Otherwise this region had executed it, and keeps that row.
    """
    dag = chain(schedule=kind.schedule())
    parse(database, dag)
    if is_adopted:
        db.adopt([as_known_in(published(other, 5, kind.length(other)), own)], "adopted")
    else:
        db.adopt([as_known_in(published(own, 4, kind.length(own)), own)], "adopted")
        assert marks(runs_created_next(database, dag, 1)) == [5]
        database.update(database.tables.runs, state="success")
    run = as_known_in(interrupted(other, 5, kind.length(other)), own)
    for _ in range(2):
        assert db.cannot_resume([run]) == db.resume([run], "resumed") == {}
    assert database.runs()[run.run_id] == "queued"
    is_same_run = run.run_id == published(own, 5, kind.length(own)).run_id
    assert marks(all_runs(database)) == ([5] if is_adopted else [4, 5] if is_same_run else [4, 5, 5])
    assert marks(runs_created_next(database, dag, 2)) == [6, 7]


@of_different_kinds
def test_a_mark_that_this_region_skipped_is_not_created_again(
    database: Database, db: Any, own: Era, other: Era, kind: Kind
) -> None:
    """A DAG was unpaused in the standby. The region deletes the marks that it skipped and no region executed."""
    dag = chain(schedule=kind.schedule())
    parse(database, dag)
    ended(published(own, 5, kind.length(own)), note="skipped: us-east-1 is standby")
    run = as_known_in(published(other, 5, kind.length(other)), own)
    db.adopt([run], "adopted")
    assert len(all_runs(database)) == 1
    assert db.own_ends(above=0, up_to=db.newest_run(), limit=10) == [], "it is a result now"
    assert marks(runs_created_next(database, dag, 1)) == [6]


@of_different_kinds
def test_the_last_success_of_another_version_is_adopted_without_moving_the_schedule(
    database: Database, db: Any, own: Era, other: Era, kind: Kind
) -> None:
    """Its last run has failed. Both become runs that this Airflow would have had."""
    dag = chain(schedule=kind.schedule())
    parse(database, dag)
    failed = replace(published(other, 5, kind.length(other)), status=RunStatus.FAILED)
    assert db.adopt([as_known_in(failed, own)], "adopted") == 1
    before = database.dag("orders").next_dagrun
    assert db.adopt([as_known_in(published(other, 4, kind.length(other)), own)], "adopted") == 1
    assert sorted(marks(all_runs(database))) == [4, 5]
    assert database.dag("orders").next_dagrun == before
    assert marks(runs_created_next(database, dag, 1)) == [6]


def test_a_timedelta_keeps_its_phase(database: Database, db: Any, own: Era, other: Era) -> None:
    """Without catchup, a standby without history computes a next run of its own, which may be later."""
    now = datetime.now(tz=timezone.utc)
    last = now - timedelta(hours=7, minutes=11)
    day = (last - AT) / DAY
    dag = chain(schedule=DAY, catchup=False)
    parse(database, dag)
    kind = KINDS["a timedelta"]
    run = published(other, 0, kind.length(other))
    moved = {
        name: (value + day * DAY) if value is not None else None
        for name in ("logical_date", "data_interval_start", "data_interval_end", "run_after")
        for value in [getattr(run, name)]
    }
    run = other.named(replace(run, **moved))
    db.adopt([as_known_in(run, own)], "adopted")
    pass_over(database)
    assert database.dag("orders").next_dagrun_create_after == last + DAY
    parse(database, dag)
    assert database.dag("orders").next_dagrun_create_after == last + DAY


def test_a_continuous_dag_continues(database: Database, db: Any, own: Era, other: Era) -> None:
    """Each run begins where the one before ended. Airflow 3.2 and later name a run after its end."""
    dag = chain(schedule="@continuous", max_active_runs=1)
    parse(database, dag)
    hours = timedelta(hours=1)
    first = other.named(published(other, 5, hours))
    second = other.named(
        replace(
            interrupted(other, 5, hours),
            logical_date=first.data_interval_end,
            data_interval_start=first.data_interval_end,
            data_interval_end=AT + 5 * DAY + hours,
            run_after=None if other is Era.AIRFLOW_2 else AT + 5 * DAY + hours,
        )
    )
    db.adopt([as_known_in(first, own)], "adopted")
    run = as_known_in(second, own)
    assert db.cannot_resume([run]) == db.resume([run], "resumed") == {}
    database.update(database.tables.runs, state="success")
    (third,) = runs_created_next(database, dag, 1)
    database.update(database.tables.runs, state="success")
    (fourth,) = runs_created_next(database, dag, 1)
    assert third.data_interval_start.replace(tzinfo=timezone.utc) == second.data_interval_end
    assert fourth.data_interval_start == third.data_interval_end
    assert len(all_runs(database)) == 4


def test_an_agent_takes_over_the_runs_of_the_other_region(database: Database, db: Any, own: Era, other: Era) -> None:
    """It publishes them so that the other region, which knows only its own ids, reads the end of its run."""
    from airflow import __version__

    kind = KINDS["a cron string"]
    dag = chain(schedule=kind.schedule())
    parse(database, dag)
    region = Region(database)
    region.start_agent(airflow_version=__version__)
    done, open_run = (published(other, day, kind.length(other), epoch=0) for day in (5, 6))
    region.publish(done, replace(open_run, status=RunStatus.OPEN))
    region.turns()
    region.promote()
    region.turns()
    region.complete()
    region.turns()
    key = as_known_in(open_run, own)
    assert database.runs()[key.run_id] == "queued"
    db.set_paused(["orders"], paused=False)
    assert marks(runs_created_next(database, dag, 2)) == [7, 8]
    database.update(database.tables.runs, state="success")
    region.turns()
    entries = region.runs.log(HERE, after=0)
    of_run = [run for entry in entries for run in entry.runs if as_known_in(run, other).run_id == open_run.run_id]
    assert [run.status for run in of_run if mark_of(run) == mark_of(open_run)] == [RunStatus.OPEN, RunStatus.SUCCESS]


def test_runs_without_a_date_are_resumed(database: Database, db: Any, own: Era) -> None:
    """On Airflow 2 they get the date at which they were due, which is theirs alone."""
    parse(database, chain(schedule=None))
    now = datetime.now(tz=timezone.utc)
    without = {"logical_date": None, "data_interval_start": None, "data_interval_end": None, "run_after": AT}
    runs = [
        interval(0, RunStatus.OPEN, run_id=f"{run_type}__1", run_type=run_type, taken_at=now, **without)
        for run_type in ("asset_triggered", "manual", "operator_triggered", "asset_materialization")
    ]
    for run in runs:
        assert db.cannot_resume([run]) == db.resume([run], "resumed") == {}
    rows = all_runs(database)
    assert len(rows) == 4
    if own is Era.AIRFLOW_2:
        assert [logical_date(row) for row in rows] == [AT + number * timedelta(microseconds=1) for number in range(4)]
        assert [row.run_type for row in rows] == ["dataset_triggered", "manual", "manual", "manual"]
    else:
        assert {logical_date(row) for row in rows} == {None}
        assert [row.run_type for row in rows][:2] == ["asset_triggered", "manual"]
    for run in runs:
        assert database.schedule(run.run_id) == {ONE: "scheduled", TWO: None}


def test_a_run_that_a_dataset_triggered_gets_the_type_of_this_version(database: Database, db: Any, own: Era) -> None:
    """The type has another name from Airflow 3 on."""
    parse(database, chain(schedule=None))
    now = datetime.now(tz=timezone.utc)
    run = interval(0, RunStatus.OPEN, run_type="dataset_triggered", run_after=None, taken_at=now)
    assert db.resume([run], "resumed") == {}
    (row,) = all_runs(database)
    assert row.run_type == ("dataset_triggered" if own is Era.AIRFLOW_2 else "asset_triggered")


def test_an_adopted_run_names_the_id_that_it_had(database: Database, db: Any, own: Era) -> None:
    """A user finds the run in the other region."""
    era = Era.AIRFLOW_3_2 if own is Era.AIRFLOW_2 else Era.AIRFLOW_2
    parse(database, chain())
    run = published(era, 5, KINDS["a cron string"].length(era))
    db.adopt([as_known_in(run, own)], "adopted: this run was executed in us-east-1")
    (row,) = all_runs(database)
    assert database.note(row.run_id) == f"[mwaa-dr] adopted: this run was executed in us-east-1 as {run.run_id}"


def test_a_run_of_a_dag_that_is_not_deployed_yet_takes_no_id_of_the_scheduler(
    database: Database, db: Any, own: Era
) -> None:
    """Without the DAG, its schedule is unknown."""
    era = Era.AIRFLOW_3_2 if own is Era.AIRFLOW_2 else Era.AIRFLOW_2
    run = as_known_in(published(era, 5, DAY), own)
    assert db.adopt([run], "adopted") == 1
    assert [row.run_id for row in all_runs(database)] == [run.run_id]
    dag = chain(schedule=cron_interval())
    parse(database, dag)
    assert marks(runs_created_next(database, dag, 2)) == [6, 7]
