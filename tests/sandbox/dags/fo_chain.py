"""
Chains of two tasks. A test can keep a run in its first task for as long as it needs.

A run with the conf ``{"wait": true}`` stays in ``first`` until the file ``AIRFLOW_HOME/gates/RUN_ID`` exists. The file
parses unchanged on Airflow 2.10.3, 3.0.6 and 3.3.1.
"""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow import DAG
from airflow.decorators import task
from witness import body, callback

PATIENCE_S = 300.0
# Longer than a path of InvokeRestApi allows: all calls for this DAG use the web-token session.
LONG_ID = "fo_" + "a_dag_id_that_is_far_too_long_for_a_path_of_" * 2 + "invoke_rest_api"


# The task has a retry: a stopped run must not execute again through a retry either.
@task(retries=1, retry_delay=timedelta(seconds=1))
def first(**context: Any) -> None:
    """Write a line, wait for the test, and write another line."""
    body(**context)
    run = context["dag_run"]
    gate = Path(os.environ["AIRFLOW_HOME"]) / "gates" / run.run_id
    deadline = time.monotonic() + PATIENCE_S
    while (run.conf or {}).get("wait") and not gate.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    callback("end_of_body")(context)


@task
def second(**context: Any) -> None:
    """Write a line."""
    body(**context)


for dag_id in ("fo_chain", "fo_stray", LONG_ID):
    with DAG(dag_id, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False):
        first() >> second()
