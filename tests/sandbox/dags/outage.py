"""
Runs that are in progress, or arrive, while the state table cannot be reached. Their tasks have no retries.

``outage_tasks`` stays in its first task until the file ``AIRFLOW_HOME/gates/RUN_ID`` exists. Then one task of each kind
starts. ``outage_tick`` ticks. ``outage_exempt`` ticks whatever the state is, which shows that the region's Airflow is
alive. The file parses unchanged on Airflow 2.10.3, 3.0.6 and 3.3.1.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow import DAG
from airflow.decorators import task
from attempts import Deferring, record, record_item
from fo_chain import first
from witness import body

try:
    from airflow.sdk import BaseOperator, BaseSensorOperator
except ImportError:
    from airflow.models.baseoperator import BaseOperator
    from airflow.sensors.base import BaseSensorOperator

LOOKED = Path(os.environ["AIRFLOW_HOME"]) / "looked"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Recording(BaseOperator):
    """Writes a line: an operator that is no decorated function."""

    def execute(self, context: Any) -> None:
        """Write the line."""
        body(**context)


class Second(BaseSensorOperator):
    """Writes a line, and succeeds at its second poke."""

    def poke(self, context: Any) -> bool:
        """Write the line."""
        body(**context)
        marker = LOOKED / f"{context['dag_run'].run_id}"
        is_second = marker.exists()
        marker.parent.mkdir(exist_ok=True)
        marker.touch()
        return is_second


@task(execution_timeout=timedelta(seconds=20))
def short(**context: Any) -> None:
    """Write a line. Its timeout may be shorter than the time for which it is held."""
    body(**context)


with DAG("outage_tasks", schedule=None, start_date=START, catchup=False, default_args={"retries": 0}):
    first.override(retries=0)() >> [
        Recording(task_id="operator"),
        record.override(task_id="function")(),
        record_item.expand(item=[1, 2]),
        Deferring(task_id="deferring"),
        Second(task_id="sensor", mode="reschedule", poke_interval=3),
        short(),
    ]

# Runs that passed the gate within the lease wait for their fence. They must not bring the DAG to its limit.
with DAG(
    "outage_run", schedule=None, start_date=START, catchup=False, default_args={"retries": 0}, max_active_runs=1000
):
    record()

for ticking, tags in (("outage_tick", []), ("outage_exempt", ["dr:control"])):
    with DAG(ticking, schedule=timedelta(seconds=4), start_date=START, catchup=False, max_active_runs=1, tags=tags):
        record()
