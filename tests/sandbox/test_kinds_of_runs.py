"""
Intervals that a backfill or a manual run executed, with real schedulers: no region executes them again.

A date counts as executed when a task body wrote a line. The run ids have the date after two underscores.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest

from tests.sandbox.failovers import fail_over, start
from tests.sandbox.harness import Airflow, Pair, Shape, on
from tests.sandbox.intervals import under_load
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

NEWEST, OLDEST = (Shape(version=version, name=f"ledger-{version}", ledger=True) for version in ("3.3.1", "2.10.3"))
DAGS = ("kind_backfilled", "kind_manual_date")
HOURS = 6
SOURCE = '''
"""Hourly intervals of the last hours."""

from __future__ import annotations

from datetime import datetime

from airflow import DAG
from airflow.decorators import task
from airflow.timetables.trigger import CronTriggerTimetable
from witness import body


@task
def record(**context):
    body(**context)


for dag_id in {dags}:
    with DAG(
        dag_id,
        schedule=CronTriggerTimetable("0 * * * *", timezone="UTC"),
        start_date=datetime.fromisoformat("{start}"),
        catchup=True,
        max_active_runs=3,
    ):
        record()
'''


PARTITIONED = """
from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG, CronPartitionTimetable, task
from witness import body


@task
def record(**context):
    body(**context)


with DAG(
    "kind_partitions",
    schedule=CronPartitionTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime.fromisoformat("{start}"),
    catchup=True,
    max_active_runs=3,
):
    record()
"""


def executed(pair: Pair, dag_id: str) -> Counter[str]:
    """Return how often a body executed for each logical date, or partition, in both regions together."""
    lines = [line for airflow in pair.airflows.values() for line in airflow.executed(dag_id)]
    dates = [line.run_id.split("__")[1] for line in lines if "__" in line.run_id]
    return Counter(datetime.fromisoformat(date).isoformat() for date in dates)


def continues(pair: Pair, region: Airflow, *dag_ids: str) -> None:
    """Wait until *region* executes runs of the DAGs, and has executed every run that its scheduler created."""
    for dag_id in dag_ids:
        wait_until(lambda: region.dags()[dag_id] is False, f"{dag_id} is unpaused in {region.name}")  # noqa: B023
        start(region, dag_id=dag_id).wait_until_it_is("success")
        wait_until(
            lambda: all(run["state"] in {"success", "failed"} for run in region.runs(dag_id)),  # noqa: B023
            f"no run of {dag_id} is unfinished in {region.name}",
        )


@on(NEWEST, OLDEST)
def test_intervals_of_a_backfill_and_of_a_manual_run_execute_once(pair: Pair) -> None:
    """The region that takes over continues after them. This also holds for the failback."""
    source, target = under_load(pair)
    now = datetime.now(tz=timezone.utc).replace(minute=0, second=0, microsecond=0)
    first = now - timedelta(hours=HOURS - 1)
    for region in (source, target):
        region.deploy("kinds_of_runs.py", SOURCE.format(dags=DAGS, start=first.isoformat()))
    for region in (source, target):
        for dag_id in DAGS:
            region.wait_for_dag(dag_id)
    if source.major < 3:
        source.airflow("dags", "backfill", "-s", first.isoformat(), "-e", now.isoformat(), DAGS[0])
    else:
        dates = {"from_date": first.isoformat(), "to_date": now.isoformat()}
        source.rest("POST", "/backfills", json={"dag_id": DAGS[0], "max_active_runs": 6, **dates})
    body = {"dag_run_id": f"by_hand__{now.isoformat()}", "logical_date": now.isoformat(), "conf": {}}
    source.rest("POST", f"/dags/{DAGS[1]}/dagRuns", json=body)
    source.unpause(*DAGS)
    for dag_id in DAGS:
        wait_until(lambda: len(executed(pair, dag_id)) >= HOURS, lambda: f"{dag_id}: {executed(pair, dag_id)}")  # noqa: B023
    continues(pair, source, *DAGS)
    types = {str(run["run_type"]) for run in source.runs(DAGS[0]) if "__" in run["dag_run_id"]}
    assert "backfill" in types, "the control: a backfill has executed"
    for region in (target, source):
        fail_over(pair, region.name)
        continues(pair, region, *DAGS)
        for dag_id in DAGS:
            counted = executed(pair, dag_id)
            assert len(counted) >= HOURS
            assert set(counted.values()) == {1}, f"{dag_id} after the failover to {region.name}: {counted}"


@on(NEWEST)
def test_each_partition_executes_once(pair: Pair) -> None:
    """Runs of partitions have no logical date. The region that takes over continues after the newest partition."""
    source, target = under_load(pair)
    now = datetime.now(tz=timezone.utc).replace(minute=0, second=0, microsecond=0)
    first = now - timedelta(hours=HOURS - 1)
    dag_id = "kind_partitions"
    for region in (source, target):
        region.deploy("kind_partitions.py", PARTITIONED.format(start=first.isoformat()))
    for region in (source, target):
        region.wait_for_dag(dag_id)
    source.unpause(dag_id)
    wait_until(lambda: len(executed(pair, dag_id)) >= HOURS, lambda: f"{dag_id}: {executed(pair, dag_id)}")
    for region in (target, source):
        fail_over(pair, region.name)
        continues(pair, region, dag_id)
        # The DAG processor has computed the next run since the failover, so the scheduler creates what is missing.
        parsed = region.rest("GET", f"/dags/{dag_id}")["last_parsed_time"]
        wait_until(
            lambda: region.rest("GET", f"/dags/{dag_id}")["last_parsed_time"] > parsed,  # noqa: B023
            f"{region.name} parses {dag_id}",
        )
        continues(pair, region, dag_id)
        counted = executed(pair, dag_id)
        assert len(counted) >= HOURS
        assert set(counted.values()) == {1}, f"{dag_id} after the failover to {region.name}: {counted}"
