"""
The load of a drill: every task body that executes writes one line into AIRFLOW_HOME/drill.jsonl.

The report counts these lines, not Airflow's states.
"""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

try:
    from airflow.sdk import DAG, get_current_context, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
    from airflow.operators.python import get_current_context

from airflow import __version__ as AIRFLOW_VERSION
from airflow.timetables.trigger import CronTriggerTimetable


def every_ten_seconds(*, offset: int = 0) -> CronTriggerTimetable:
    """Return a schedule. In a region without history its first run is in the future (in Airflow 2, one run earlier)."""
    cron = f"* * * * * {offset}-59/10"
    try:
        return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0))
    except TypeError:  # Airflow 2.10
        return CronTriggerTimetable(cron, timezone="UTC")


def write(*, is_end: bool) -> None:
    """Write the line of a task body: its region, its run and the epoch."""
    from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook  # noqa: PLC0415  (this file is parsed often)

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
        "region": os.environ.get("AIRFLOW__DR__SITE") or os.environ["AWS_REGION"],
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "interval_end": None if interval is None else interval.isoformat(),
        "is_scheduled": run.run_id.startswith("scheduled__"),
        "is_end": is_end,
        "conf": run.conf or {},
        "epoch": epoch,
        "at": at.isoformat(),
    }
    # Append with one write of less than a page, so that the lines of parallel tasks do not mix.
    with Path(os.environ["AIRFLOW_HOME"], "drill.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")


@task  # type: ignore[untyped-decorator]
def work() -> None:
    """Take some seconds, so that a run is always in flight."""
    write(is_end=False)
    time.sleep(2)


@task  # type: ignore[untyped-decorator]
def write_line() -> None:
    """Write the line of the run's last task body."""
    write(is_end=True)


# The start of the drill, not of the first parse in a region: with catchup Airflow runs every interval since then.
START = datetime.fromisoformat((Path(__file__).parent / "drill_start.txt").read_text().strip())
# Airflow 2 requires a start date for a DAG with a schedule.
BEGINNING: dict[str, Any] = {"start_date": START} if AIRFLOW_VERSION.startswith("2.") else {}

for dag_id, settings in {
    "drill_orders": {"schedule": every_ten_seconds(), "catchup": True, "start_date": START},
    "drill_billing": {"schedule": every_ten_seconds(offset=5), "catchup": False, **BEGINNING},
    "drill_long": {"schedule": every_ten_seconds(offset=2), "catchup": True, "start_date": START},
    "drill_on_demand": {"schedule": None, "catchup": False},
    "drill_paused_by_hand": {"schedule": every_ten_seconds(), "catchup": False, **BEGINNING},
    "drill_history": {
        "schedule": every_ten_seconds(offset=8),
        "catchup": True,
        "start_date": START - timedelta(days=730),
    },
}.items():
    with DAG(dag_id=dag_id, max_active_runs=4, tags=["drill"], **settings) as dag:
        if dag_id == "drill_long":
            work() >> write_line()
        else:
            write_line()
    globals()[dag_id] = dag
