"""
DAGs whose runs wait for runs of other DAGs, for two real Airflows, and how often their bodies executed.

A body with a gate waits until the file ``AIRFLOW_HOME/gates/GATE`` exists in its region.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from tests.sandbox.failovers import make_steady
from tests.sandbox.harness import Airflow, Pair, Shape

DAGS = ("wait_parent", "wait_child", "wait_upstream", "wait_downstream", "wait_idle")
LOST_DAGS = ("wait_lost_parent", "wait_lost_fixed", "wait_lost_child")
"""The same parent and child, and a parent that gives its child an id, for a test that loses regions."""
SOURCE = '''
"""A parent and its child, a sensor for another DAG, and a sensor in a DAG that a user pauses."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow import DAG
from airflow.decorators import task
from airflow.sensors.base import BaseSensorOperator
from witness import body, callback

try:
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
    from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
except ImportError:
    from airflow.operators.trigger_dagrun import TriggerDagRunOperator
    from airflow.sensors.external_task import ExternalTaskSensor

NONE = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc),
    "catchup": False,
    "max_active_runs": 4,
    "default_args": {"retries": 0},
}


def is_open(gate):
    return (Path(os.environ["AIRFLOW_HOME"]) / "gates" / gate).exists()


@task
def record(gate=None, **context):
    body(**context)
    deadline = time.monotonic() + 240
    while gate is not None and not is_open(gate) and time.monotonic() < deadline:
        time.sleep(0.2)
    callback("end_of_body")(context)


class Gate(BaseSensorOperator):
    """A sensor that uses no worker while it waits."""

    def poke(self, context):
        return is_open("idle")


for parent, child, run_id in (
    ("wait_parent", "wait_child", None),
    ("wait_lost_parent", "wait_lost_child", None),
    ("wait_lost_fixed", "wait_lost_child", "of_{{ run_id }}"),
):
    with DAG(parent, **NONE):
        record.override(task_id="prepare")("parent") >> TriggerDagRunOperator(
            task_id="call", trigger_dag_id=child, trigger_run_id=run_id, wait_for_completion=True, poke_interval=1
        ) >> record.override(task_id="after")()

for child in ("wait_child", "wait_lost_child"):
    with DAG(child, **NONE):
        record.override(task_id="work")("child")

with DAG("wait_upstream", **NONE):
    record.override(task_id="up")()

with DAG("wait_downstream", **NONE):
    ExternalTaskSensor(
        task_id="sense", external_dag_id="wait_upstream", mode="poke", poke_interval=1, check_existence=False
    ) >> record.override(task_id="down")()

with DAG("wait_idle", **NONE):
    # A scheduler that is slow may take the end of a poke for a failure of the next one.
    attempts = {"retries": 3, "retry_delay": timedelta(seconds=1)}
    Gate(task_id="look", mode="reschedule", poke_interval=5, **attempts) >> record.override(task_id="after")()
'''


def shape(version: str) -> Shape:
    """A sandbox of its own: in others, schedulers are killed and log errors."""
    return Shape(version=version, name=f"waits-{version}", ledger=True)


def under_way(pair: Pair) -> tuple[Airflow, Airflow]:
    """Return the active region, in which the DAGs are unpaused, and the standby. All gates are closed."""
    make_steady(pair)
    for region in pair.airflows.values():
        for gate in (region.home / "gates").glob("*"):
            gate.unlink()
        region.deploy("waiting_runs.py", SOURCE)
    for region in pair.airflows.values():
        for dag_id in (*DAGS, *LOST_DAGS):
            region.wait_for_dag(dag_id)
    pair.active.unpause(*DAGS, *LOST_DAGS)
    return pair.active, pair.standby


def open_gate(region: Airflow, gate: str) -> None:
    """Let the bodies with this gate continue."""
    gates = region.home / "gates"
    gates.mkdir(exist_ok=True)
    (gates / gate).touch()


def begun(*regions: Airflow, dags: Collection[str] = DAGS) -> Counter[str]:
    """Return how often each body has begun in these regions, by ``DAG_ID TASK_ID`` without ``wait_``."""
    return _count("executed", regions, dags)


def ended(*regions: Airflow, dags: Collection[str] = DAGS) -> Counter[str]:
    """Return how often each body has come to its end."""
    return _count("end_of_body", regions, dags)


def _count(kind: str, regions: Collection[Airflow], dags: Collection[str]) -> Counter[str]:
    lines = [line for region in regions for line in region.lines() if line.kind == kind and line.dag_id in dags]
    return Counter(f"{line.dag_id.removeprefix('wait_')} {line.task_id}" for line in lines)
