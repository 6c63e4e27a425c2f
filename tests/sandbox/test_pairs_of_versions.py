"""
Failover and failback between two versions of Airflow, with real schedulers: each mark of each schedule executes once.

A mark is the time at which a run is due. Task bodies write the mark of their run, because versions of Airflow give the
runs of one mark different ids and logical dates. No scheduler may end, or log a traceback.

``make pairs`` tests each pair of versions that ``VERSIONS`` has, ``make test`` two pairs.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.sandbox.runtime import process
from tests.sandbox.failovers import fail_over
from tests.sandbox.harness import Airflow, Pair, Shape, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

VERSIONS = ("2.10.3", "2.11.2", "3.0.6", "3.2.1", "3.3.1")
IN_TEST = (("2.11.2", "3.3.1"), ("3.0.6", "3.2.1"))
"""The pairs of ``make test``: one with two major versions, and one with two rules for the ids of runs."""
EVERY = timedelta(seconds=30)
SCHEDULES = ("pair_string", "pair_trigger", "pair_interval", "pair_delta")
"""DAGs with a mark every 30 seconds."""
DEADLINE_S = 600.0
"""A phase of the test waits for one run of each DAG, and for all earlier marks."""
SOURCE = '''
"""One DAG for each kind of schedule. A body writes the interval of its run."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta
from pathlib import Path

from airflow import DAG
from airflow.decorators import task
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

try:
    from airflow.sdk import Asset
except ImportError:
    from airflow.datasets import Dataset as Asset

START = datetime.fromisoformat("{start}")
CRON = "* * * * * */30"
LINES = Path(__file__).resolve().parent.parent / "marks.jsonl"
ASSET = Asset("file:///pair")


def write(run):
    dates = [None if at is None else at.isoformat() for at in (run.data_interval_start, run.data_interval_end)]
    line = dict(dag_id=run.dag_id, run_id=run.run_id, start=dates[0], end=dates[1], at=time.time())
    # One write to a file that is open for appending: lines of parallel processes do not mix.
    descriptor = os.open(LINES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, (json.dumps(line) + "\\n").encode())
    os.close(descriptor)


@task
def record(seconds=0.0, **context):
    time.sleep(seconds)
    write(context["dag_run"])


for dag_id, schedule in {{
    "pair_string": CRON,
    "pair_trigger": CronTriggerTimetable(CRON, timezone="UTC"),
    "pair_interval": CronDataIntervalTimetable(CRON, timezone="UTC"),
    "pair_delta": timedelta(seconds=30),
}}.items():
    with DAG(dag_id, schedule=schedule, start_date=START, catchup=True, max_active_runs=4):
        if dag_id == "pair_trigger":
            record.override(outlets=[ASSET])()
        else:
            record(4.0 if dag_id == "pair_string" else 0.0)

with DAG("pair_continuous", schedule="@continuous", start_date=START, catchup=False, max_active_runs=1):
    record(5.0)

with DAG("pair_consumer", schedule=[ASSET], start_date=START, catchup=False):
    record()
'''
DAGS = (*SCHEDULES, "pair_continuous", "pair_consumer")


def shape(first: str, second: str) -> Shape:
    """The pair of two versions; the first is active first."""
    return Shape(version=first, second=second, name=f"{first}-{second}", ledger=True)


Line = dict[str, str]


def lines(pair: Pair, dag_id: str) -> list[Line]:
    """Return what bodies of a DAG wrote in both regions."""
    return [line for region in pair.airflows.values() for line in lines_of(region) if line["dag_id"] == dag_id]


def lines_of(region: Airflow) -> list[Line]:
    """Return what bodies wrote in a region."""
    path: Path = region.dags_folder.resolve().parent / "marks.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def marks(pair: Pair, dag_id: str) -> Counter[datetime]:
    """Return how often a body executed for each mark."""
    return Counter(datetime.fromisoformat(line["end"]) for line in lines(pair, dag_id))


def missing(pair: Pair, dag_id: str) -> list[datetime]:
    """Return the marks before the last one for which no body executed."""
    found = sorted(marks(pair, dag_id))
    steps = round((found[-1] - found[0]) / EVERY) if found else 0
    return [at for number in range(steps) if (at := found[0] + number * EVERY) not in found]


def executes(pair: Pair, region: Airflow) -> None:
    """Wait until each DAG executes another run in a region, and no earlier mark is missing."""
    before = Counter(line["dag_id"] for line in lines_of(region))

    def idle() -> list[str]:
        now = Counter(line["dag_id"] for line in lines_of(region))
        return [dag_id for dag_id in DAGS if now[dag_id] == before[dag_id]]

    wait_until(lambda: not idle(), lambda: f"{idle()} execute in {region.name}", deadline_s=DEADLINE_S)

    def gaps() -> dict[str, list[datetime]]:
        return {dag_id: found for dag_id in SCHEDULES if (found := missing(pair, dag_id))}

    wait_until(lambda: not gaps(), lambda: f"{gaps()} execute", deadline_s=DEADLINE_S)


def repeated(pair: Pair) -> dict[str, list[Line]]:
    """Return the marks and intervals that executed more than once, with what bodies wrote."""
    found = {}
    for dag_id in (*SCHEDULES, "pair_continuous"):
        times = Counter((line["start"], line["end"]) for line in lines(pair, dag_id))
        by_mark = marks(pair, dag_id)
        for line in lines(pair, dag_id):
            mark = datetime.fromisoformat(line["end"])
            if times[line["start"], line["end"]] > 1 or (dag_id in SCHEDULES and by_mark[mark] > 1):
                found.setdefault(f"{dag_id} {mark:%H:%M:%S}", []).append(line)
    return found


def breaks(pair: Pair) -> Sequence[tuple[Line, Line]]:
    """Return the pairs of runs of the continuous DAG of which the second does not begin where the first ended."""
    found = sorted(lines(pair, "pair_continuous"), key=lambda line: line["end"])
    return [(one, two) for one, two in itertools.pairwise(found) if two["start"] != one["end"]]


def assert_schedulers_are_well(pair: Pair) -> None:
    """Assert that no scheduler ended, and that none logged a traceback."""
    for region in pair.airflows.values():
        assert process.is_alive(region.session("scheduler")), f"the scheduler of {region} ended"
        text = pair.sandbox.home.log(region.name, "scheduler").read_text()
        found = text.find("Traceback (most recent call last)")
        assert found < 0, f"the scheduler of {region} logged: {text[max(0, found - 1500) : found + 3000]}"


def under_way(pair: Pair) -> tuple[Airflow, Airflow]:
    """Deploy the DAGs of this test, and return the active region, in which they execute, and the standby."""
    pair.wait_until_reconciled()
    began = datetime.fromtimestamp(time.time() // 30 * 30, tz=timezone.utc)
    for region in pair.airflows.values():
        region.deploy("pair.py", SOURCE.format(start=began.isoformat()))
    for region in pair.airflows.values():
        for dag_id in DAGS:
            region.wait_for_dag(dag_id)
    pair.active.unpause(*DAGS)
    return pair.active, pair.standby


@on(
    *(shape(*pair) for pair in IN_TEST),
    soak=tuple(shape(*pair) for pair in itertools.combinations(VERSIONS, 2) if pair not in IN_TEST),
)
def test_each_mark_executes_once_after_failover_and_failback(pair: Pair) -> None:
    """Also if the runs in progress are interrupted: the second failover stops them, and they execute again."""
    source, target = under_way(pair)
    executes(pair, source)
    for region, words in ((target, ()), (source, ("--stop-running",)), (target, ())):
        fail_over(pair, region.name, *words)
        executes(pair, region)
        assert_schedulers_are_well(pair)
        assert repeated(pair) == {}, f"after the failover to {region}"
    assert breaks(pair) == []
