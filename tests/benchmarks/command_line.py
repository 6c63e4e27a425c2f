"""
Time until the first output of ``mwaa-dr status``: ``python -m tests.benchmarks.command_line``.

It is measured from the start of the process to the first line on stdout. The emulated DynamoDB and MWAA answer
immediately, without network latency. For comparison, a script creates a DynamoDB client with boto3 and reads the item:
no Python command that calls AWS is faster. The figures are in build/bench/command_line.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.benchmarks.emulated_aws import begin, emulated_tables
from tests.benchmarks.report import Report

REGIONS = ("us-east-1", "us-east-2")
TURNS = 15
SCRIPT = """
import boto3, sys
key = {"state_id": {"S": "ACTIVE_REGION"}}
client = boto3.client("dynamodb", region_name="us-east-1")
print(client.get_item(TableName=sys.argv[1], Key=key, ConsistentRead=True)["Item"], flush=True)
"""


class Mwaa(BaseHTTPRequestHandler):
    """Answers GetEnvironment for any name."""

    def do_GET(self) -> None:
        """Send the answer."""
        body = json.dumps({"Environment": {"Name": self.path.rpartition("/")[2], "Status": "AVAILABLE"}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def first_line_s(*words: str) -> float:
    """Return the seconds from the start of a process to its first line."""
    began = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took_s = time.perf_counter() - began
        process.stdout.read()
    assert line.strip(), f"{words} printed nothing and ended with {process.returncode}"
    return took_s


def main() -> None:
    """Measure, and write and print the row."""
    command = str(Path(sys.executable).parent / "mwaa-dr")
    with emulated_tables() as (state_table, runs_table), ThreadingHTTPServer(("127.0.0.1", 0), Mwaa) as mwaa:
        threading.Thread(target=mwaa.serve_forever, daemon=True).start()
        begin(state_table, REGIONS)
        os.environ |= {
            "AWS_ENDPOINT_URL_MWAA": f"http://127.0.0.1:{mwaa.server_port}",
            "DR_STATE_TABLE": state_table,
            "DR_RUNS_TABLE": runs_table,
            "DR_REGION": REGIONS[0],
        }
        ours, script = [], []
        for _ in range(TURNS):
            ours.append(first_line_s(command, "status"))
            script.append(first_line_s(sys.executable, "-c", SCRIPT, state_table))
        mwaa.shutdown()
    Report("command_line").keep(
        what="mwaa-dr status, first line",
        unit="s",
        values=ours,
        goal=0.5,
        peers={"a boto3 script that reads the item": script},
        note="with its network calls on loopback",
    )


if __name__ == "__main__":
    main()
