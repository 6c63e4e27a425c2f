"""
A region is killed, the other one takes over without it, and it comes back.

The same by the example DAG alone, with its times, is ``make drill SCENARIO=region-loss``.
"""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.core.gate import NOTE_TOKEN
from airflow_provider_mwaa_dr.core.state import Phase
from tests.sandbox.failovers import (
    REASON,
    ChainRun,
    airflow,
    fail_over,
    killed_after,
    make_steady,
    mwaa_dr,
    operator_words,
    start,
    wait_for_snapshot,
)
from tests.sandbox.harness import Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox


@pytest.fixture
def regions(pair: Pair) -> tuple[Airflow, Airflow]:
    """The active region, about to be lost, and the standby."""
    make_steady(pair)
    return pair.active, pair.standby


def newest_record(pair: Pair) -> dict[str, object]:
    """Return the record of the last failover."""
    return pair.history()[0]


def lose(pair: Pair, region: Airflow) -> ChainRun:
    """Kill a region while a run of three tasks executes its first one, and return that run."""
    run = start(region, waits=True)
    wait_for_snapshot(pair, region, "fo_chain")
    pair.sandbox.kill(region.name)
    return run


def come_back(pair: Pair, region: Airflow, run: ChainRun) -> None:
    """Bring a lost region back; what executed in it when it was lost goes no further, and nothing else starts."""
    run.let_go()
    pair.sandbox.revive(region.name)
    pair.wait_until_reconciled()
    run.wait_until_it_is("failed")
    assert run.note.startswith(NOTE_TOKEN)
    assert run.bodies() == ["first"]
    assert all(region.dags()[dag_id] for dag_id in ("fo_chain", "fo_stray"))
    forced = start(region)
    wait_until(lambda: forced.state == "failed", f"{region.name} closes a run")
    assert forced.bodies() == []


@on("3.3.1")
def test_begun_by_a_command_and_finished_by_the_operator(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """Not one call to the lost region after the claim; back again it is a standby, and a failback is graceful."""
    source, target = regions
    run = lose(pair, source)
    killed_after(pair, "record", target.name, "--mode", "forced")
    claimed = pair.state()
    assert claimed.plan is not None
    conf = {"target_region": target.name, "reason": "test", "mode": "forced"}
    with airflow(pair.control, *operator_words(conf)) as operator:
        assert operator.wait() == 0, operator.stdout + operator.stderr
    record = newest_record(pair)
    assert (record["id"], record["mode"], record["outcome"]) == (claimed.plan.id, "forced", "completed")
    assert len(pair.sandbox.requests(source.name, "mwaa", since=claimed.plan.started_at)) == 0
    # The control of that count: the same log knows of the calls to the region that took over.
    assert len(pair.sandbox.requests(target.name, "mwaa", since=claimed.plan.started_at)) > 0
    after = start(target)
    after.wait_until_it_executed()
    assert run.bodies(target) == []

    come_back(pair, source, run)
    back = fail_over(pair, source.name, "--mode", "graceful")
    assert (back["mode"], back["epoch"]) == ("graceful", claimed.epoch + 2)
    last = start(source)
    last.wait_until_it_executed()
    assert run.bodies() == ["first"]


@pytest.mark.soak
@on("3.3.1")
def test_begun_by_the_operator_and_finished_by_a_command(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """In mode auto: it finds out by itself that the region is lost, and says so in the state."""
    source, target = regions
    run = lose(pair, source)
    with airflow(pair.control, *operator_words({"target_region": target.name, "reason": "test"})) as operator:

        def is_forced() -> bool:
            plan = pair.state().plan
            return plan is not None and plan.is_forced

        wait_until(is_forced, "the operator goes on without the lost region")
        operator.process.kill()
        operator.wait()
    state = pair.state()
    assert state.phase is Phase.DRAINING
    forced_at = state.last_updated
    record = fail_over(pair, target.name)
    assert (record["mode"], record["epoch"]) == ("forced", state.epoch + 1)
    assert len(pair.sandbox.requests(source.name, "mwaa", since=forced_at)) == 0
    after = start(target)
    after.wait_until_it_executed()
    come_back(pair, source, run)


@on("3.3.1")
def test_a_region_that_is_active_again_two_epochs_later(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """It has missed the epoch in which it was standby; what it began before is over all the same."""
    source, other = regions
    run = lose(pair, source)
    before = pair.state()
    fail_over(pair, other.name, "--mode", "forced")
    there = start(other, waits=True)
    with mwaa_dr(pair, "failover", source.name, *REASON, "--mode", "forced", "--even-if-not-ready") as failback:
        wait_until(lambda: pair.state().epoch == before.epoch + 2, f"{source.name} is named active again")
        run.let_go()
        pair.sandbox.revive(source.name)
        assert failback.document()["outcome"] == "completed"

    run.wait_until_it_is("failed")
    assert f"begun under epoch {before.epoch}" in run.note
    after = start(source)
    after.wait_until_it_executed()
    assert run.bodies() == ["first"]
    there.let_go()
    there.wait_until_it_is("failed")
    assert there.bodies() == ["first"]
    assert (run.bodies(other), there.bodies(source)) == ([], [])
