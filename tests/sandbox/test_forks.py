"""A scheduler forks its workers while the agent in it is at work, and no task of theirs hangs for that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox.failovers import CHAIN, make_steady, start
from tests.sandbox.harness import Airflow, Pair, on

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
from airflow_provider_mwaa_dr.plugins import fence
from airflow_provider_mwaa_dr.plugins.agent import AgentLoop

_turn, _guard = AgentLoop.turn, fence.guard


def turn(self):
    import slow_to_import

    return _turn(self)


def guard(task_instance):
    import slow_to_import

    _guard(task_instance)


AgentLoop.turn, fence.guard = turn, guard
"""


@pytest.fixture
def slow_agent(pair: Pair) -> Iterator[Airflow]:
    """The active region; an agent that starts there has a first turn of three seconds, and tasks import what it did."""
    make_steady(pair)
    airflow = pair.active
    planted = [airflow.home / "config" / "slow_to_import.py", airflow.home / "plugins" / "slow_agent.py"]
    for path, source in zip(planted, (SLOW, PLUGIN), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    yield airflow
    for path in planted:
        path.unlink()
    airflow.stop("scheduler")
    airflow.start_scheduler()
    pair.wait_until_reconciled()


@on("3.3.1")
def test_a_worker_forked_during_an_agents_turn_executes_its_tasks(slow_agent: Airflow) -> None:
    """More tasks at once than workers: each worker has some."""
    slow_agent.stop("scheduler")
    slow_agent.start_scheduler()
    runs = [start(slow_agent) for _ in range(8)]
    for run in runs:
        run.wait_until_it_is("success")
        assert run.bodies() == CHAIN
