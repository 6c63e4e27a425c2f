"""
One DAG for each way in which a task could execute. Tests try all of them in the active region and in the standby.

The file parses unchanged on Airflow 2.10.3, 3.0.6 and 3.3.1.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow import DAG
from airflow.decorators import setup, task, teardown
from witness import RUN_CALLBACKS, TASK_CALLBACKS, body

try:
    from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
    from airflow.sdk import Asset, BaseOperator
except ImportError:
    from airflow.datasets import Dataset as Asset
    from airflow.models.baseoperator import BaseOperator
    from airflow.triggers.temporal import TimeDeltaTrigger

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
ASSET = Asset("file:///attempts/asset")


def attempt(dag_id: str, **options: Any) -> DAG:
    """Return a DAG that records which callbacks of the DAG and of its tasks are called."""
    return DAG(
        dag_id,
        start_date=START,
        default_args={"retries": 0, **TASK_CALLBACKS},
        **RUN_CALLBACKS,
        **{"schedule": None, "catchup": False, **options},
    )


@task
def record(**context: Any) -> None:
    """Write a line."""
    body(**context)


@task
def fail(**context: Any) -> None:
    """Write a line and fail."""
    body(**context)
    raise RuntimeError("as it is meant to be")


@task
def record_item(item: int, **context: Any) -> None:
    """Write a line; for mapped tasks."""
    body(**context)


class Deferring(BaseOperator):
    """
    Writes a line, waits on a trigger for ``conf["seconds"]``, and writes another line.

    The default wait is not short: if the scheduler is slower than the trigger, Airflow itself fails the task ("finished
    with state success, but the task instance's state attribute is queued").
    """

    def execute(self, context: Any) -> None:
        """Write the first line."""
        body(**context)
        seconds = float((context["dag_run"].conf or {}).get("seconds", 8))
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=seconds)), method_name="resume")

    def resume(self, context: Any, event: Any = None) -> None:
        """Write the second line."""
        body(**context)


for plain in ("plain", "by_cli", "paused", "held", "tested", "disabled"):
    with attempt(plain):
        record.override(task_id="first")() >> record.override(task_id="second")()

with attempt("ticking", schedule=timedelta(seconds=4), max_active_runs=1):
    record()

with attempt("probing", schedule=timedelta(seconds=4)):
    record()

with attempt("mapped"):
    record_item.expand(item=[1, 2, 3])

with attempt("deferring"):
    Deferring(task_id="defer")

with attempt("setup_teardown"):
    before = setup(record.function).override(task_id="before")()
    after = teardown(record.function).override(task_id="after")()
    before >> record.override(task_id="work")() >> after
    before >> after

with attempt("always"):
    fail() >> record.override(task_id="after_failure", trigger_rule="always")()
    record.override(task_id="alone", trigger_rule="always")()

with attempt("failing"):
    fail()

with attempt("backfilled", schedule="@daily"):
    record()

with attempt("consumer", schedule=[ASSET]):
    record()
