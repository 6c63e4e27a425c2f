"""
Task bodies and callbacks append lines to one file per region. Scheduler and database do not know the file.

This module is not parsed for DAGs, because it does not contain the name of the product that parses them.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

LINES = Path(__file__).resolve().parent.parent / "witness.jsonl"


def body(**context: Any) -> None:
    """Record that a task body executes. A body calls it as its first statement."""
    ti = context["ti"]
    _append(
        "executed",
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=ti.map_index,
        try_number=ti.try_number,
    )


def callback(event: str) -> Any:
    """Return a callback that records that *event* happened."""

    def called(context: Any) -> None:
        ti = context.get("ti") or context.get("task_instance")
        run = context.get("dag_run")
        _append(
            event,
            dag_id=getattr(ti or run, "dag_id", "") or context["dag"].dag_id,
            run_id=getattr(ti or run, "run_id", "") or str(context.get("run_id", "")),
            task_id=getattr(ti, "task_id", ""),
            map_index=getattr(ti, "map_index", -1),
            try_number=getattr(ti, "try_number", 0),
        )

    return called


TASK_CALLBACKS = {
    f"on_{event}_callback": callback(f"task_{event}") for event in ("execute", "success", "failure", "retry", "skipped")
}
RUN_CALLBACKS = {f"on_{event}_callback": callback(f"dag_{event}") for event in ("success", "failure")}


def _append(kind: str, **fields: Any) -> None:
    line = {
        "kind": kind,
        "region": os.environ.get("AWS_REGION", ""),
        "at": datetime.now(tz=timezone.utc).isoformat(),
        **fields,
    }
    # One write to a file that is open for appending: lines of parallel processes do not mix.
    descriptor = os.open(LINES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)
