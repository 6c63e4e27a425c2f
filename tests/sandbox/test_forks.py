"""A scheduler forks its workers while its agent works, and no task of a worker hangs because of that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox.failovers import make_steady, start
from tests.sandbox.harness import Airflow, Pair, on

pytestmark = pytest.mark.sandbox

# The import takes as long as a first turn on a machine that starts four Airflows. In a child that is forked meanwhile,
# that import never ends.
SLOW = """
import threading
import time

if threading.current_thread().name == "mwaa-dr-agent":
    time.sleep(3)
"""
PLUGIN = """
from airflow_provider_mwaa_dr.plugins import fence
from airflow_provider_mwaa_dr.agent.loop import AgentLoop

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
    """The active region. The first turn of a new agent takes three seconds, in an import that tasks need, too."""
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
    pair.forget_killed_schedulers()
    pair.wait_until_reconciled()


@on("3.3.1")
def test_a_worker_forked_during_an_agents_turn_executes_its_tasks(slow_agent: Airflow) -> None:
    """There are more tasks than workers, so each worker gets some."""
    slow_agent.stop("scheduler")
    slow_agent.start_scheduler()
    slow_agent.unpause("outage_run")
    runs = [start(slow_agent, dag_id="outage_run") for _ in range(8)]
    for run in runs:
        run.wait_until_it_is("success")
        assert run.bodies() == ["record"]
