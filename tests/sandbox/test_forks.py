"""A scheduler forks its workers while the agent in it is at work, and no task of theirs hangs for that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox.harness import Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

# It takes as long as a first turn on a machine that is starting four Airflows, all of it in an import: who forks the
# scheduler meanwhile has a child in which that module is being imported for ever.
SLOW = """
import threading
import time

if threading.current_thread().name == "mwaa-dr-agent":
    time.sleep(3)
"""
PLUGIN = """
from airflow_provider_mwaa_dr.plugins.agent import AgentLoop

_turn = AgentLoop.turn


def turn(self):
    import slow_to_import

    return _turn(self)


AgentLoop.turn = turn
"""
DAG_FILE = """
from datetime import datetime, timezone

from airflow import DAG
from airflow.decorators import task
from witness import body


@task
def record(**context):
    import slow_to_import

    body(**context)


with DAG("forked", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
    for number in range(8):
        record.override(task_id=f"task_{number}")()
"""


@pytest.fixture
def slow_agent(pair: Pair) -> Iterator[Airflow]:
    """The active region; the first turn of each agent that starts there takes three seconds."""
    pair.reset()
    airflow = pair.active
    planted = [airflow.home / "config" / "slow_to_import.py", airflow.home / "plugins" / "slow_agent.py"]
    for path, source in zip(planted, (SLOW, PLUGIN), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    airflow.deploy("forked.py", DAG_FILE)
    airflow.wait_for_dag("forked")
    yield airflow
    airflow.pause("forked")
    airflow.remove("forked.py")
    for path in planted:
        path.unlink()
    airflow.stop("scheduler")
    airflow.start_scheduler()
    pair.wait_until_settled()


@on("3.3.1")
def test_a_worker_forked_during_an_agents_turn_executes_its_tasks(slow_agent: Airflow) -> None:
    """More tasks than workers: each worker has some."""
    slow_agent.stop("scheduler")
    slow_agent.start_scheduler()
    slow_agent.unpause("forked")
    run_id = slow_agent.trigger("forked")
    wait_until(lambda: slow_agent.run("forked", run_id)["state"] == "success", "the run succeeds")
    assert len(slow_agent.executed("forked", run_id)) == 8
