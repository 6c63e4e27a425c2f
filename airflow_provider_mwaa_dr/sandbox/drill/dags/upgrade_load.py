"""
The load of the drill ``upgrade``: one DAG for each kind of schedule, and for each way in which a run begins.

Task bodies write the marks for which they work. A mark is the time at which a run is due. Two versions of Airflow give
the run of one mark different ids and logical dates.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from drill_body import write  # type: ignore[import-not-found]  # beside this file, in the DAGs folder

try:
    from airflow.sdk import DAG, Asset, get_current_context, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.datasets import Dataset as Asset
    from airflow.decorators import task
    from airflow.operators.python import get_current_context
try:
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
except ImportError:  # Airflow 2
    from airflow.operators.trigger_dagrun import TriggerDagRunOperator

from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

START = datetime.fromisoformat((Path(__file__).parent / "drill_start.txt").read_text().strip())
EVERY_S = 20
CRON = f"* * * * * */{EVERY_S}"
BACKFILLED_HOURS = 3
EARLIER = START.replace(minute=0, second=0, microsecond=0) - timedelta(hours=BACKFILLED_HOURS - 1)
ASSET = Asset("file:///upgrade")
OFTEN: dict[str, Any] = {"start_date": START, "catchup": True, "max_active_runs": 4, "tags": ["drill"]}


def work(seconds: float, marks: Sequence[str] | None = None) -> None:
    """Write the first and the last line of a run."""
    write(is_end=False, marks=marks)
    time.sleep(seconds)
    write(is_end=True, marks=marks)


@task  # type: ignore[untyped-decorator]
def execute(seconds: float = 0.0) -> None:
    """Execute the only task of a run."""
    work(seconds)


@task(outlets=[ASSET])  # type: ignore[untyped-decorator]
def produce() -> None:
    """Create an event with the mark of the run."""
    context = get_current_context()
    context["outlet_events"][ASSET].extra = {"mark": context["dag_run"].data_interval_end.isoformat()}
    work(0.0)


@task  # type: ignore[untyped-decorator]
def consume() -> None:
    """Work for the marks of the events that triggered the run."""
    context = get_current_context()
    name = "triggering_asset_events" if "triggering_asset_events" in context else "triggering_dataset_events"
    work(0.0, [event.extra["mark"] for event in chain(*dict(context[name]).values())])


@task  # type: ignore[untyped-decorator]
def work_for_parent() -> None:
    """Work for the mark of the run that requested this one."""
    work(1.0, [get_current_context()["dag_run"].conf["mark"]])


for dag_id, schedule in {
    "upgrade_string": CRON,
    "upgrade_interval": CronDataIntervalTimetable(CRON, timezone="UTC"),
    "upgrade_delta": timedelta(seconds=EVERY_S),
}.items():
    with DAG(dag_id=dag_id, schedule=schedule, **OFTEN):
        execute(2.0 if dag_id == "upgrade_string" else 0.0)

with DAG(dag_id="upgrade_trigger", schedule=CronTriggerTimetable(CRON, timezone="UTC"), **OFTEN):
    produce()

with DAG(dag_id="upgrade_consumer", schedule=[ASSET], start_date=START, catchup=False, tags=["drill"]):
    consume()

# A parent occupies a slot of the executor while it waits for its child.
with DAG(
    dag_id="upgrade_parent", schedule=CronTriggerTimetable(CRON, timezone="UTC"), **{**OFTEN, "max_active_runs": 1}
):
    child = TriggerDagRunOperator(
        task_id="request",
        trigger_dag_id="upgrade_child",
        conf={"mark": "{{ dag_run.data_interval_end.isoformat() }}"},
        wait_for_completion=True,
        poke_interval=1,
    )
    child >> execute()

with DAG(dag_id="upgrade_child", schedule=None, start_date=START, catchup=False, max_active_runs=4, tags=["drill"]):
    work_for_parent()

with DAG(
    dag_id="upgrade_continuous",
    schedule="@continuous",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    tags=["drill"],
):
    execute(1.0)

# A backfill executes the hours until now: of the first DAG before the upgrade, of the second one after it.
for dag_id in ("upgrade_backfill_before", "upgrade_backfill_after"):
    with DAG(
        dag_id=dag_id,
        schedule=CronTriggerTimetable("0 * * * *", timezone="UTC"),
        start_date=EARLIER,
        catchup=True,
        max_active_runs=3,
        tags=["drill"],
    ):
        execute()
