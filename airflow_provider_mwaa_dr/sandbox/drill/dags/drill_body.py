"""
What the task bodies of a drill write: one line each into AIRFLOW_HOME/drill.jsonl.

The report counts these lines, not Airflow's states.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

try:
    from airflow.sdk import get_current_context
except ImportError:  # Airflow 2
    from airflow.operators.python import get_current_context


def write(*, is_end: bool, marks: Sequence[str] | None = None) -> None:
    """
    Write the line of a task body: its site, its run and the epoch.

    :param marks: the times for which the body works, as ISO texts; None for the end of the run's interval.
    """
    from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook  # noqa: PLC0415  (this file is parsed often)

    at = datetime.now(timezone.utc)
    run = get_current_context()["dag_run"]
    start, end = (
        None if date is None else date.isoformat()
        for date in (getattr(run, "data_interval_start", None), getattr(run, "data_interval_end", None))
    )
    try:
        epoch = DRStateHook(aws_conn_id=None).get_state().epoch
    except Exception as error:
        print(f"The state cannot be read: {error}")
        epoch = None
    line = {
        "region": os.environ.get("AIRFLOW__DR__SITE") or os.environ["AWS_REGION"],
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "interval_start": start,
        "interval_end": end,
        "marks": [end] if marks is None and end is not None else list(marks or ()),
        "is_scheduled": run.run_id.startswith("scheduled__"),
        "is_end": is_end,
        "conf": run.conf or {},
        "epoch": epoch,
        "at": at.isoformat(),
    }
    # Append with one write of less than a page, so that the lines of parallel tasks do not mix.
    with Path(os.environ["AIRFLOW_HOME"], "drill.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")
