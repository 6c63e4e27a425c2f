"""ActiveRegionSensor, deferred and resumed by the installed Airflow, with a table behind a socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DAG = """
from datetime import datetime, timezone
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG
from airflow_provider_mwaa_dr.sensors.dr_state import ActiveRegionSensor

with DAG("waiting", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc), catchup=False):
    ActiveRegionSensor(task_id="wait", region="us-east-1", deferrable=True, poke_interval=0.1)
"""
TABLE = "mwaa-dr-state"
MOVES_AFTER = 3
"""Reads that return the other region: one by the task, and two by the trigger."""


class _Table(BaseHTTPRequestHandler):
    """A DynamoDB whose state item names us-east-1 from a certain read on. Both regions are registered."""

    reads = 0

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["X-Amz-Target"].endswith(".BatchGetItem"):
            body = json.dumps({"Responses": {TABLE: request["RequestItems"][TABLE]["Keys"]}}).encode()
        else:
            type(self).reads += 1
            region = "us-east-2" if self.reads <= MOVES_AFTER else "us-east-1"
            item = {"state_id": {"S": "ACTIVE_REGION"}, "active_region": {"S": region}, "version": {"N": "1"}}
            body = json.dumps({"Item": item}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def table() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Table)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_task_is_deferred_and_resumes_when_the_role_moves(table: str, tmp_path: Path) -> None:
    """``airflow dags test`` stores the trigger, runs it, and resumes the task with its event."""
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "waiting.py").write_text(DAG)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "AWS_", "DR_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    environ: dict[str, Any] = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DR__STATE_TABLE": TABLE,
        "AIRFLOW__DR__STATE_TABLE_REGION": "us-east-2",
        "AWS_ENDPOINT_URL": table,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-2",
    }

    def airflow(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "airflow", *argv]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    migrated = airflow("db", "migrate")
    assert migrated.returncode == 0, migrated.stderr[-3000:]
    done = airflow("dags", "test", "waiting")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert "us-east-1 is active (epoch 0)" in said
    assert _Table.reads == MOVES_AFTER + 1
    assert "defer" in said.lower()
