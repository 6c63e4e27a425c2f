"""The load of a drill. Its task bodies write the lines that the report counts."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from drill_body import write  # type: ignore[import-not-found]  # beside this file, in the DAGs folder

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task

from airflow import __version__ as AIRFLOW_VERSION
from airflow.timetables.trigger import CronTriggerTimetable


def every_ten_seconds(*, offset: int = 0) -> CronTriggerTimetable:
    """Return a schedule. In a region without history its first run is in the future (in Airflow 2, one run earlier)."""
    cron = f"* * * * * {offset}-59/10"
    try:
        return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0))
    except TypeError:  # Airflow 2.10
        return CronTriggerTimetable(cron, timezone="UTC")


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
