"""
The load of a drill: every task body writes one line into AIRFLOW_HOME/drill.jsonl when it really runs.

What the report counts are these lines, never Airflow's states.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

try:
    from airflow.sdk import DAG, get_current_context, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
    from airflow.operators.python import get_current_context

from airflow.timetables.trigger import CronTriggerTimetable


def every_ten_seconds(*, offset: int = 0) -> CronTriggerTimetable:
    """Return a schedule whose first run in a region with an empty history lies ahead (Airflow 3; 2 begins one back)."""
    cron = f"* * * * * {offset}-59/10"
    try:
        return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0))
    except TypeError:  # Airflow 2.10
        return CronTriggerTimetable(cron, timezone="UTC")


@task  # type: ignore[untyped-decorator]
def write_line() -> None:
    """Say that this body ran: where, for which run, and under which epoch."""
    from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook  # noqa: PLC0415  (parsed every ten seconds)

    at = datetime.now(timezone.utc)
    context = get_current_context()
    run = context["dag_run"]
    interval = getattr(run, "data_interval_end", None)
    try:
        epoch = DRStateHook(aws_conn_id=None).get_state().epoch
    except Exception as error:
        print(f"The state cannot be read: {error}")
        epoch = None
    line = {
        "region": os.environ["AWS_REGION"],
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "interval_end": None if interval is None else interval.isoformat(),
        "is_scheduled": run.run_id.startswith("scheduled__"),
        "epoch": epoch,
        "at": at.isoformat(),
    }
    # One write of less than a page, appended: tasks that run side by side do not mix their lines.
    with Path(os.environ["AIRFLOW_HOME"], "drill.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")


for dag_id, schedule in {
    "drill_orders": every_ten_seconds(),
    "drill_billing": every_ten_seconds(offset=5),
    "drill_on_demand": None,
    "drill_paused_by_hand": every_ten_seconds(),
}.items():
    with DAG(dag_id=dag_id, schedule=schedule, catchup=False, max_active_runs=4, tags=["drill"]) as dag:
        write_line()
    globals()[dag_id] = dag
