"""Metrics as the installed Airflow sends them, with its own statsd client, to a socket on this machine."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


@pytest.fixture
def statsd() -> Iterator[socket.socket]:
    """A socket that listens where MWAA's sidecar would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        found.setblocking(False)
        yield found


def run_scheduler(statsd: socket.socket, **metrics: str) -> subprocess.CompletedProcess[str]:
    """Start a scheduler with these options in [metrics], and let the agent take its turns in it."""
    options = {
        "statsd_host": "127.0.0.1",
        "statsd_port": str(statsd.getsockname()[1]),
        "statsd_prefix": "airflow",
        **metrics,
    }
    environ = os.environ | {f"AIRFLOW__METRICS__{name.upper()}": text for name, text in options.items()}
    environ["AIRFLOW__SCHEDULER__STANDALONE_DAG_PROCESSOR"] = "True"
    command = [sys.executable, "-m", "tests.airflow.metrics_in_scheduler"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    # A turn that takes longer than heartbeat_s, on a busy machine, sends one more.
    assert re.search(r"^HEARTBEATS [2-9]$", done.stdout, re.MULTILINE), done.stdout + done.stderr
    return done


def ours(statsd: socket.socket) -> list[str]:
    """Return the received datagrams that have metrics of the provider."""
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(statsd.recv(65536).decode())
    return [text for text in found if "mwaa_dr" in text]


def test_airflows_own_client_sends_the_agents_metrics(database: Database, statsd: socket.socket) -> None:
    """Names, kinds and values of the datagrams, from a scheduler that starts its metrics as usual."""
    run_scheduler(statsd, statsd_on="True", metrics_allow_list="scheduler,mwaa_dr")
    sent = ours(statsd)
    assert {"airflow.mwaa_dr.role:1|g", "airflow.mwaa_dr.epoch:0|g"} <= set(sent)
    (age, *_) = [text for text in sent if "state_age" in text]
    assert re.fullmatch(r"airflow\.mwaa_dr\.state_age:\d+\.\d\|g", age)
    assert "airflow.mwaa_dr.agent_heartbeat:1|c" in sent
    assert [text for text in sent if "held_runs" in text] == ["airflow.mwaa_dr.held_runs:3|c"]


def test_an_allow_list_without_them_keeps_them_back(database: Database, statsd: socket.socket) -> None:
    """A user with an allow list has to add the provider's prefix."""
    run_scheduler(statsd, statsd_on="True", metrics_allow_list="scheduler")
    assert ours(statsd) == []


def test_metrics_that_are_off_do_not_affect_the_agent(database: Database, statsd: socket.socket) -> None:
    """This is Airflow's default: no datagram, and no error."""
    done = run_scheduler(statsd, statsd_on="False")
    assert ours(statsd) == []
    assert "Metrics could not be published" not in done.stdout + done.stderr


def test_metrics_that_raise_do_not_affect_the_agent(database: Database, statsd: socket.socket) -> None:
    """It takes its turns, and logs the error."""
    client = "tests.airflow.failing_statsd.FailingClient"
    done = run_scheduler(statsd, statsd_on="True", statsd_custom_client_path=client)
    assert ours(statsd) == []
    assert "Metrics could not be published (RuntimeError: no gauges here)" in done.stdout + done.stderr
