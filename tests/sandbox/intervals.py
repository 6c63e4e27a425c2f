"""
Load for a pair of Airflows: DAGs that must execute every interval, and a check of the intervals that executed.

The check reads the lines of task bodies (``dags/witness.py``), never a state of Airflow.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime, timedelta, timezone

from tests.sandbox.failovers import make_steady
from tests.sandbox.harness import Airflow, Pair
from tests.waiting import wait_until

EVERY = timedelta(seconds=5)
INTERVALS = ("led_cron", "led_past")
"""DAGs that must execute every interval."""
SOURCE = '''
"""Intervals that are due every five seconds from START on, and runs that people start."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow import DAG
from airflow.decorators import task
from airflow.timetables.trigger import CronTriggerTimetable
from fo_chain import first, second
from witness import body

START = datetime.fromisoformat("{start}")


@task
def record(**context):
    body(**context)


@task(retries=0)
def fail(**context):
    body(**context)
    raise RuntimeError("this one always fails")


EVERY_FIVE_SECONDS = CronTriggerTimetable("* * * * * */5", timezone="UTC")
for dag_id, settings in {{
    "led_cron": {{"schedule": EVERY_FIVE_SECONDS, "max_active_runs": 3}},
    "led_past": {{"schedule": EVERY_FIVE_SECONDS, "max_active_runs": 2, "default_args": {{"depends_on_past": True}}}},
    "led_one": {{"schedule": timedelta(seconds=7), "max_active_runs": 1, "catchup": False}},
    "led_two_years": {{"schedule": EVERY_FIVE_SECONDS, "start_date": START - timedelta(days=730)}},
}}.items():
    with DAG(dag_id, **{{"start_date": START, "catchup": True, **settings}}):
        record()

with DAG("led_no_rerun", schedule=None, start_date=START, catchup=False, tags=["dr:no-rerun"]):
    first() >> second()

one_at_a_time = {{"catchup": False, "max_active_runs": 1, "default_args": {{"depends_on_past": True}}}}
with DAG("led_waits", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), **one_at_a_time):
    first() >> second()

with DAG("led_fails", schedule=None, start_date=START, catchup=False):
    fail()
'''


def under_load(pair: Pair) -> tuple[Airflow, Airflow]:
    """
    Return the active region, which must execute every interval, and the standby. A failover is possible.

    The DAGs continue after a test: a paused DAG would keep a running run, and every drain would wait for it.
    """
    make_steady(pair, idle=False)
    if "led_cron" not in pair.active.dags():
        began = datetime.fromtimestamp(time.time() // 5 * 5, tz=timezone.utc)
        for airflow in pair.airflows.values():
            airflow.deploy("ledger.py", SOURCE.format(start=began.isoformat()))
        for airflow in pair.airflows.values():
            airflow.wait_for_dag("led_cron")
    pair.active.unpause(*INTERVALS, "led_one", "led_no_rerun", "led_fails", "led_waits", "fo_chain")
    wait_until(lambda: all(len(bodies(pair, dag_id)) >= 2 for dag_id in INTERVALS), "every interval executes")
    return pair.active, pair.standby


def bodies(pair: Pair, dag_id: str) -> Counter[str]:
    """Return how often the body of each scheduled run of a DAG with one task executed, in both regions together."""
    lines = [line for airflow in pair.airflows.values() for line in airflow.executed(dag_id)]
    return Counter(line.run_id for line in lines if line.run_id.startswith("scheduled__"))


def interval_of(run_id: str) -> datetime:
    """Return the time in the id of a scheduled run."""
    return datetime.fromisoformat(run_id.removeprefix("scheduled__").partition("+")[0]).replace(
        microsecond=0, tzinfo=timezone.utc
    )


def missing(pair: Pair, dag_id: str) -> list[datetime]:
    """Return the intervals between the first and the last executed one that did not execute."""
    times = sorted(map(interval_of, bodies(pair, dag_id)))
    steps = int((times[-1] - times[0]) / EVERY)
    return [at for number in range(steps) if (at := times[0] + number * EVERY) not in times]


def wait_until_none_is_missing(pair: Pair, dag_id: str) -> None:
    """Wait until no interval of a DAG is missing. Otherwise the error describes the runs of the missing intervals."""

    def claim() -> str:
        gone = missing(pair, dag_id)
        known = [
            (region.name, run_id, run["state"], region.task_states(dag_id, run_id), run["note"])
            for region in pair.airflows.values()
            for run in region.runs(dag_id)
            if (run_id := run["dag_run_id"]).startswith("scheduled__") and interval_of(run_id) in gone
        ]
        return f"no interval of {dag_id} is missing: {', '.join(map(str, gone))}; what is known of them: {known}"

    wait_until(lambda: not missing(pair, dag_id), claim)


def wait_until_nothing_is_missing(pair: Pair, region: Airflow) -> None:
    """Wait until another interval has executed in *region*, and no interval is missing."""
    for dag_id in INTERVALS:
        before = len(region.executed(dag_id))
        wait_until(lambda: len(region.executed(dag_id)) > before, f"{dag_id} continues in {region.name}")  # noqa: B023
        wait_until_none_is_missing(pair, dag_id)


def times_executed(pair: Pair) -> Counter[tuple[str, str]]:
    """Return how often the body of each scheduled run executed, in both regions together, by DAG id and run id."""
    dag_ids = (*INTERVALS, "led_one")
    return Counter({(dag_id, run_id): times for dag_id in dag_ids for run_id, times in bodies(pair, dag_id).items()})


def assert_none_executed_again(pair: Pair, before: Counter[tuple[str, str]]) -> None:
    """
    Assert that no scheduled run executed twice, unless it had done so before the test.

    :param before: :func:`times_executed` at the start of the test. A forced failover of an earlier test may have
        executed a run twice.
    """
    assert {run: times for run, times in times_executed(pair).items() if times > max(1, before[run])} == {}
