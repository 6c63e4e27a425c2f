"""Two schedulers in each region, as MWAA has: a failover needs the acknowledgement of both."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.state import Phase
from tests.sandbox.failovers import REASON, ChainRun, Command, command, make_steady, mwaa_dr, start
from tests.sandbox.harness import Airflow, Pair, Shape, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

# In these tests, the wait does not end because of the lease.
TWO = Shape(version="3.3.1", name="two-3.3.1", schedulers=2, dr=(("lease_s", "120"),))
SECOND = "scheduler-2"
WAITS = {"drain": "to acknowledge version", "adopt": "its schedulers to know epoch"}


@pytest.fixture
def regions(pair: Pair) -> tuple[Airflow, Airflow]:
    """The active region and the standby. Every scheduler has its agent."""
    make_steady(pair)
    wait_until(
        lambda: all(region["schedulers"] == 2 for region in pair.status()["regions"].values()),
        "each region has two schedulers with an agent",
    )
    return pair.active, pair.standby


def knowing(pair: Pair, region: Airflow, version: int) -> int:
    """Return how many schedulers of a region have read *version* of the state, or a later one."""
    return sum(agent.version >= version for agent in pair.table.agents(region.name))


def start_in_both(pair: Pair, region: Airflow) -> list[ChainRun]:
    """
    Return two runs that stay in their first tasks, which different schedulers execute. No other run is in progress.

    One run after another is started until both schedulers execute. It is not enough to fill one scheduler: it takes
    more tasks than it has room for (Airflow 3.3 does not count running ones), and these wait for its own workers.
    """
    runs: list[ChainRun] = []

    def one_of_each() -> dict[str, ChainRun]:
        if len(runs) < 12:
            run_id = region.trigger("fo_chain", conf={"wait": True})
            runs.append(ChainRun(airflow=region, dag_id="fo_chain", run_id=run_id))
        rows = pair.sandbox.postgres.query(
            "select run_id, queued_by_job_id from task_instance where state = 'running'", database=region.name
        )
        jobs = dict(rows)
        found = {jobs[run.run_id]: run for run in runs if run.run_id in jobs and run.bodies()}
        return found if len(found) == 2 else {}

    chosen = list(wait_until(one_of_each, f"both schedulers of {region.name} execute a task").values())
    others = [run for run in runs if run not in chosen]
    for run in others:
        run.let_go()
    for run in others:
        run.wait_until_it_is("success")
    return chosen


@contextmanager
def any_scheduler(pair: Pair, *words: str) -> Iterator[Command]:
    """Yield a started ``mwaa-dr`` for which the acknowledgement of one scheduler is enough."""
    program = str(Path(__file__).with_name("any_scheduler_command.py"))
    with command(Path(sys.executable), (program, *words), pair.variables) as started:
        yield started


@on(TWO)
def test_the_drain_waits_for_what_both_schedulers_execute(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """A task of each scheduler executes. The last one delays the failover, whichever scheduler executes it."""
    source, target = regions
    runs = start_in_both(pair, source)
    with mwaa_dr(pair, "failover", target.name, *REASON, drain_s=120) as failover:
        for left, run in (("2 runs", runs[0]), ("1 run", runs[1])):
            failover.wait_until_it_prints(f"{left} in progress")
            assert pair.state().active_region == source.name
            run.let_go()
        record = failover.document()
    drain = next(step for step in record["steps"] if step["name"] == "drain")
    assert drain["detail"] == "acknowledged by every scheduler; no run in progress"
    for run in runs:
        run.wait_until_it_executed()
        assert run.bodies(target) == []

    after, closed = [start(target) for _ in range(2)], [start(source) for _ in range(5)]
    for run in after:
        run.wait_until_it_executed()
    for run in closed:
        run.wait_until_it_is("failed")
        assert run.bodies() == []


@on(TWO)
@pytest.mark.parametrize("step", ["drain", "adopt"])
def test_a_scheduler_that_has_not_read_the_state_delays_the_failover(
    pair: Pair, regions: tuple[Airflow, Airflow], step: str
) -> None:
    """
    One scheduler of the source or of the target is frozen. The other's acknowledgement is not enough. Thawed, both
    continue.
    """
    source, target = regions
    region = source if step == "drain" else target
    with ExitStack() as frozen, ExitStack() as started:
        if step == "drain":
            frozen.enter_context(region.frozen(SECOND))
        failover = started.enter_context(mwaa_dr(pair, "failover", target.name, *REASON))
        if step == "adopt":  # a target with a scheduler that sends no heartbeat is not ready
            failover.wait_until_it_prints("is ready")
            frozen.enter_context(region.frozen(SECOND))
        failover.wait_until_it_prints(WAITS[step])
        version = pair.state().version
        wait_until(lambda: knowing(pair, region, version) == 1, f"one scheduler of {region.name} knows the state")
        seen = pair.state().version
        wait_until(lambda: pair.state().version > seen, "the failover has looked again and shows a sign of life")
        assert pair.state().phase is (Phase.DRAINING if step == "drain" else Phase.PROMOTING)
        assert knowing(pair, region, version) == 1
        frozen.close()
        record = failover.document()
    details = {found["name"]: found["detail"] for found in record["steps"]}
    assert details["drain"] == "acknowledged by every scheduler; no run in progress"
    assert details["adopt"] == f"all schedulers of {target.name} know epoch {record['epoch']}"
    start(target).wait_until_it_executed()


@on(TWO)
def test_the_test_detects_a_failover_that_needs_only_one_acknowledgement(
    pair: Pair, regions: tuple[Airflow, Airflow]
) -> None:
    """Control case: such a command completes before a scheduler of the source has read the claim."""
    source, target = regions
    before = pair.state()
    with source.frozen(SECOND), any_scheduler(pair, "failover", target.name, *REASON) as failover:
        assert failover.document()["outcome"] == "completed"
        agents = pair.table.agents(source.name)
    assert min(agent.version for agent in agents) <= before.version < pair.state().version
