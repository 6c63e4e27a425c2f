"""Two real Airflows that claim one region: the registered one executes, the other holds and is named."""

from __future__ import annotations

import pytest

from tests.sandbox.failovers import make_steady
from tests.sandbox.harness import Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox


@on("3.3.1", "2.10.3")
def test_a_copied_region_executes_nothing_twice(pair: Pair) -> None:
    """
    The standby has a copy of the active region's [dr] region. Before the fix, it was a second active region and
    executed.
    """
    make_steady(pair)
    here, other = pair.active, pair.standby
    run_id = "manual__both"
    for airflow in (here, other):
        airflow.unpause("fo_chain")
    other.stop("scheduler")
    other.start_scheduler(region=here.name)
    try:
        for airflow in (other, here):
            airflow.trigger("fo_chain", run_id)
        wait_until(lambda: "AWS_REGION" in other.note("fo_chain", run_id), "the gate holds the run and says why")
        wait_until(lambda: here.run("fo_chain", run_id)["state"] == "success", "the registered region executes it")
        assert other.run("fo_chain", run_id)["state"] == "queued"

        (claim,) = wait_until(lambda: pair.status()["regions"][other.name]["claims"], "status names the environment")
        assert (claim["region"], claim["environment"], claim["aws_region"]) == (
            here.name,
            other.environment,
            other.name,
        )
        assert pair.status()["regions"][here.name]["claims"] == []
        jobs = [agent.environment for agent in pair.table.agents(here.name)]
        assert set(jobs) == {here.environment}
    finally:
        other.stop("scheduler")
        other.start_scheduler()
        pair.forget_killed_schedulers()
    wait_until(lambda: other.run("fo_chain", run_id)["state"] != "queued", "the standby closes its run")
    assert other.executed("fo_chain", run_id) == []
    assert len(here.executed("fo_chain", run_id, "first")) == 1
