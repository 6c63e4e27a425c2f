"""
A standby executes nothing, whatever a user tries in it.

Every attempt is made in both regions at the same time. The active region, in which it executes, is the control case.
The tests read the lines of task bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import requests

from tests.sandbox.harness import CELERY, CELERY_OF_AIRFLOW_2, FIRST, Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

TOKEN = "[mwaa-dr]"
VERSIONS = ("3.3.1", "2.10.3")
BETWEEN = ("3.0.6",)
"""It behaves like 3.3.1 in all of these tests, so it is left to `make soak`."""

# Imports nothing from attempts.py: that would define its DAGs a second time, in this file.
DAG_FILE = """
from datetime import datetime, timezone

from airflow import DAG
from airflow.decorators import task
from witness import RUN_CALLBACKS, TASK_CALLBACKS, body


@task
def record(**context):
    body(**context)


with DAG(
    "{dag_id}",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    default_args=TASK_CALLBACKS,
    **RUN_CALLBACKS,
):
    for task_id in {task_ids}:
        record.override(task_id=task_id)()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """
    A way in which a task could execute.

    :param bodies: the number of lines that task bodies write if they execute.
    :param callbacks: the callbacks that are called then.
    :param runs: the number of runs.
    :param by_event: an event of an asset starts the run. The agent of a standby may remove the event before that.
    """

    dag_id: str
    bodies: int
    callbacks: frozenset[str]
    runs: int = 1
    by_event: bool = False


SUCCEEDS = frozenset({"task_execute", "task_success", "dag_success"})
FAILS = frozenset({"task_execute", "task_failure", "dag_failure"})
EVERYWHERE = {
    "rest": Way(dag_id="plain", bodies=2, callbacks=SUCCEEDS),
    "cli": Way(dag_id="by_cli", bodies=2, callbacks=SUCCEEDS),
    "late_dag": Way(dag_id="late", bodies=1, callbacks=SUCCEEDS),
    "mapped": Way(dag_id="mapped", bodies=3, callbacks=SUCCEEDS),
    "deferrable": Way(dag_id="deferring", bodies=2, callbacks=SUCCEEDS),
    "always": Way(dag_id="always", bodies=3, callbacks=SUCCEEDS | {"task_failure"}),
    "failing": Way(dag_id="failing", bodies=1, callbacks=FAILS),
    # One run at a time, several in total: the DAG is scheduled all the time.
    "unpaused_by_hand": Way(dag_id="ticking", bodies=2, callbacks=SUCCEEDS, runs=4),
}
# Two intervals, and one more that the scheduler itself creates when the DAG is unpaused.
BACKFILL = {"backfill": Way(dag_id="backfilled", bodies=3, callbacks=SUCCEEDS, runs=3)}
OTHERS = {
    "setup_and_teardown": Way(dag_id="setup_teardown", bodies=3, callbacks=SUCCEEDS),
    "asset": Way(dag_id="consumer", bodies=1, callbacks=SUCCEEDS, by_event=True),
}
WAYS = {
    "3.3.1": {**EVERYWHERE, **BACKFILL, **OTHERS},
    "2.10.3": EVERYWHERE,
    "3.0.6": {**EVERYWHERE, **BACKFILL},
}


@pytest.fixture(scope="session")
def attempts(pair: Pair) -> Pair:
    """The pair, after each way was started in both regions at the same time."""
    pair.reset()
    regions = tuple(pair.airflows.values())
    ways = WAYS[pair.version] if pair.shape.executor == "LocalExecutor" else EVERYWHERE
    dag_ids = {way.dag_id for way in ways.values()}
    for airflow in regions:
        airflow.deploy("late.py", DAG_FILE.format(dag_id="late", task_ids=["only"]))
        airflow.unpause(*dag_ids - {"late"})
    for airflow in regions:
        for dag_id in dag_ids & {"plain", "mapped", "deferring", "always", "failing", "setup_teardown"}:
            airflow.trigger(dag_id)
        if "asset" in ways:
            asset = airflow.rest("GET", "/assets", uri_pattern="attempts")["assets"][0]
            airflow.rest("POST", "/assets/events", json={"asset_id": asset["id"], "extra": {}})
    for airflow in regions:
        airflow.wait_for_dag("late")
        airflow.unpause("late")
        airflow.trigger("late")
    pair.airflow_in_each("dags", "trigger", "by_cli")
    if "backfill" in ways:
        dates = ("--from-date", "2026-02-01", "--to-date", "2026-02-02")
        pair.airflow_in_each("backfill", "create", "--dag-id", "backfilled", *dates)
    return pair


def each(ways: Mapping[str, Way]) -> pytest.MarkDecorator:
    """Return the marker that runs a test for each of *ways*."""
    return pytest.mark.parametrize("way", ways.values(), ids=ways)


@on(*VERSIONS, CELERY, soak=(CELERY_OF_AIRFLOW_2, *BETWEEN))
@each(EVERYWHERE)
def test_nothing_executes_in_the_standby(attempts: Pair, way: Way) -> None:
    """
    A run ends in the standby without a task body or callback, with the reason in its note. In the active region it
    executes.
    """
    assert_fenced(attempts, way)


@on("3.3.1", soak=BETWEEN)
@each(BACKFILL)
def test_a_backfill_executes_nothing_in_the_standby(attempts: Pair, way: Way) -> None:
    """The runs of `airflow backfill create` execute only in the active region."""
    assert_fenced(attempts, way)


@on("3.3.1")
@each(OTHERS)
def test_nothing_else_executes_in_the_standby(attempts: Pair, way: Way) -> None:
    """The ways that only the newest Airflow has."""
    assert_fenced(attempts, way)


@on(*VERSIONS, soak=BETWEEN)
def test_a_run_under_a_paused_dag_is_closed_in_the_standby(pair: Pair) -> None:
    """
    It never reaches the gate, so the agent closes it. In the active region it waits, and executes after an unpause.
    """
    active, standby = pair.active, pair.standby
    waiting, closed = active.trigger("paused"), standby.trigger("paused")

    wait_until(lambda: standby.run("paused", closed)["state"] == "failed", f"{closed} is closed in {standby}")
    assert_note_has_reason(standby.note("paused", closed), pair)
    assert active.run("paused", waiting)["state"] == "queued"
    assert active.note("paused", waiting) == ""

    for airflow in (active, standby):
        airflow.unpause("paused")
    wait_until(lambda: len(active.executed("paused", waiting)) == 2, f"{waiting} executes in {active}")
    assert standby.executed("paused") == []
    assert standby.called("paused") == []


@on(*VERSIONS, soak=BETWEEN)
def test_the_fence_alone_stops_a_task(pair: Pair) -> None:
    """
    Without a scheduler there is no gate and no agent. The fence skips the tasks of `airflow dags test` in a standby.
    """
    active, standby = pair.active, pair.standby
    standby.stop("scheduler")
    outputs = pair.airflow_in_each("dags", "test", "tested", "2026-03-01", check=False)
    standby.start_scheduler()

    assert len(active.executed("tested")) == 2, outputs[active.name]
    assert standby.executed("tested") == []
    assert "Skipping the task: " in outputs[standby.name], outputs[standby.name]


@on("2.10.3")
def test_a_backfill_of_airflow_2_executes_in_the_active_region_only(pair: Pair) -> None:
    """`airflow dags backfill` runs tasks by itself, without the scheduler. The fence stops them in the standby."""
    dates = ("--start-date", "2026-02-01", "--end-date", "2026-02-02")
    active, standby = pair.active, pair.standby
    outputs = pair.airflow_in_each("dags", "backfill", *dates, "backfilled", check=False)

    assert len({line.run_id for line in active.executed("backfilled")}) == 2, outputs[active.name]
    assert len(active.executed("backfilled")) == 2
    # Callbacks of such a run are called, because it ends through fenced tasks and not through the gate.
    assert standby.executed("backfilled") == [], outputs[standby.name]


@on("3.3.1")
def test_a_deferred_task_does_not_resume_in_a_region_that_lost_its_role(pair: Pair) -> None:
    """
    A task that was deferred before the role moved does not continue. In the new active region, such a run completes.
    """
    pair.reset()
    old, new = pair.active, pair.standby
    for airflow in (old, new):
        airflow.unpause("deferring")
    left = old.trigger("deferring", conf={"seconds": 12})
    wait_until(lambda: old.task_states("deferring", left).get("defer") == "deferred", f"{left} is deferred in {old}")

    pair.flip(new.name)
    new.unpause("deferring")
    control = new.trigger("deferring", conf={"seconds": 12})
    wait_until(lambda: len(new.executed("deferring", control)) == 2, f"{control} goes through in {new}")

    assert len(old.executed("deferring", left)) == 1
    assert old.run("deferring", left)["state"] == "failed"
    assert_note_has_reason(old.note("deferring", left), pair)
    assert {line.kind for line in old.called("deferring", left)} == {"task_execute"}


@on("3.3.1")
def test_a_run_held_while_the_table_is_unreachable_starts_with_the_current_dag(pair: Pair) -> None:
    """
    The DAG changed while its run was held. It executes once and completely in the active region, and not in the
    standby.
    """
    pair.reset()
    active, standby = pair.active, pair.standby
    for airflow in (active, standby):
        airflow.deploy("changing.py", DAG_FILE.format(dag_id="changing", task_ids=["first"]))
        airflow.wait_for_dag("changing")
        airflow.unpause("changing", "probing")
        pair.sandbox.fault(airflow.name, "dynamodb", "refuse")
    # A run comes every few seconds. The first held run shows that the lease has expired.
    pair.wait_in_each(lambda airflow: any(map(is_held, airflow.runs("probing"))), "runs are held")
    for airflow in (active, standby):
        airflow.pause("probing")
    run_ids = {airflow.name: airflow.trigger("changing") for airflow in (active, standby)}
    pair.wait_in_each(lambda airflow: is_held(airflow.run("changing", run_ids[airflow.name])), "the run is held")
    for airflow in (active, standby):
        airflow.deploy("changing.py", DAG_FILE.format(dag_id="changing", task_ids=["first", "added"]))
    pair.wait_in_each(lambda airflow: len(airflow.rest("GET", "/dags/changing/tasks")["tasks"]) == 2, "DAG is new")
    for airflow in (active, standby):
        assert airflow.executed("changing") == []
        assert airflow.run("changing", run_ids[airflow.name])["state"] == "queued"
        pair.sandbox.fault(airflow.name, "dynamodb", "none")

    wait_until(
        lambda: active.run("changing", run_ids[active.name])["state"] == "success",
        f"the held run continues in {active}",
    )
    wait_until(
        lambda: standby.run("changing", run_ids[standby.name])["state"] != "queued",
        f"the held run is closed in {standby}",
    )
    assert sorted(line.task_id for line in active.executed("changing")) == ["added", "first"]
    wait_until(lambda: active.note("changing", run_ids[active.name]) == "", "the note of the hold is gone")
    assert standby.executed("changing") == []
    assert standby.called("changing") == []
    assert_note_has_reason(standby.note("changing", run_ids[standby.name]), pair)


@pytest.mark.soak
@on("3.3.1")
def test_a_disabled_plugin_stops_nothing(pair: Pair) -> None:
    """With `[dr] enabled` false, a region executes whatever the state is. Enabled again, it is a standby again."""
    pair.reset()
    standby = pair.standby
    standby.unpause("disabled")
    standby.stop("scheduler")
    standby.start_scheduler(enabled="False")
    free = standby.trigger("disabled")
    wait_until(lambda: kinds(standby, "disabled") >= SUCCEEDS, f"{free} executes in {standby}, callbacks and all")
    assert len(standby.executed("disabled", free)) == 2
    assert standby.note("disabled", free) == ""

    standby.stop("scheduler")
    standby.start_scheduler()
    stopped = standby.trigger("disabled")
    # It may be held at first, until the new agent has read the state again.
    wait_until(
        lambda: standby.run("disabled", stopped)["state"] in {"success", "failed"}, f"{stopped} is closed in {standby}"
    )
    assert_note_has_reason(standby.note("disabled", stopped), pair)
    assert standby.executed("disabled", stopped) == []


@on("3.3.1")
def test_before_init_everything_is_held(pair: Pair) -> None:
    """
    The plugin is enabled before `mwaa-dr init`: runs wait, with a note. After init, the active region executes each
    once.
    """
    pair.reset()
    for airflow in pair.airflows.values():
        airflow.unpause("held")
        airflow.stop("scheduler")
    pair.delete_items("")
    for airflow in pair.airflows.values():
        airflow.start_scheduler()
    pair.forget_killed_schedulers()
    run_ids = {airflow.name: airflow.trigger("held") for airflow in pair.airflows.values()}
    notes = pair.wait_in_each(lambda airflow: airflow.note("held", run_ids[airflow.name]), "the run is held")
    for airflow in pair.airflows.values():
        assert is_held({"note": notes[airflow.name]})
        assert "mwaa-dr init" in notes[airflow.name]
        assert airflow.run("held", run_ids[airflow.name])["state"] == "queued"
        assert airflow.executed("held") == []

    answer = pair.mwaa_dr("init", "--active", FIRST, "--yes")
    assert answer.returncode == 0, answer.stderr

    active, standby = pair.active, pair.standby
    wait_until(
        lambda: active.run("held", run_ids[active.name])["state"] == "success", f"the held run continues in {active}"
    )
    wait_until(
        lambda: standby.run("held", run_ids[standby.name])["state"] != "queued", f"the held run is closed in {standby}"
    )
    assert sorted(line.task_id for line in active.executed("held")) == ["first", "second"]
    wait_until(lambda: active.note("held", run_ids[active.name]) == "", "the note of the hold is gone")
    assert standby.executed("held") == []
    assert_note_has_reason(standby.note("held", run_ids[standby.name]), pair)


def assert_fenced(pair: Pair, way: Way) -> None:
    """Assert that the way's runs executed in the active region with callbacks, and ended in the standby without."""
    active, standby = pair.active, pair.standby

    wait_until(lambda: len(active.executed(way.dag_id)) >= way.bodies, f"{way.dag_id} executes in {active}")
    wait_until(lambda: kinds(active, way.dag_id) >= way.callbacks, f"callbacks of {way.dag_id} are called in {active}")
    wait_until(lambda: have_ended(standby, way), f"the runs of {way.dag_id} end in {standby}")

    for run in ended(standby, way):
        assert_note_has_reason(run["note"], pair)
    assert standby.executed(way.dag_id) == []
    assert standby.called(way.dag_id) == []
    for airflow in (active, standby):
        airflow.pause(way.dag_id)


def kinds(airflow: Airflow, dag_id: str) -> set[str]:
    """Return the kinds of callbacks that were called."""
    return {line.kind for line in airflow.called(dag_id)}


def ended(airflow: Airflow, way: Way) -> list[dict[str, object]]:
    """Return the runs that have ended."""
    return [run for run in airflow.runs(way.dag_id) if run["state"] in {"success", "failed"}]


def have_ended(airflow: Airflow, way: Way) -> bool:
    """Whether enough runs have ended, or the event that was to start the run is removed."""
    if len(ended(airflow, way)) >= way.runs:
        return True
    return way.by_event and not has_event(airflow, way.dag_id) and airflow.runs(way.dag_id) == []


def has_event(airflow: Airflow, dag_id: str) -> bool:
    """Whether an event waits for the DAG's condition."""
    try:
        return bool(airflow.rest("GET", f"/dags/{dag_id}/assets/queuedEvents")["queued_events"])
    except requests.HTTPError as error:
        if error.response is not None and error.response.status_code == 404:
            return False
        raise


def is_held(run: dict[str, object]) -> bool:
    """Whether a run's note has the reason of a hold."""
    return str(run["note"]).startswith(f"{TOKEN} held")


def assert_note_has_reason(note: object, pair: Pair) -> None:
    """Assert that a note starts with the token and names both regions."""
    assert str(note).startswith(TOKEN)
    assert all(region in str(note) for region in pair.airflows), note
