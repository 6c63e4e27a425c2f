"""
A region is killed, the other region becomes active without it, and the killed region comes back.

``make drill SCENARIO=region-loss`` does the same with only the example DAG, and with its own times.
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
    """The active region, which will be lost, and the standby."""
    make_steady(pair)
    return pair.active, pair.standby


def newest_record(pair: Pair) -> dict[str, object]:
    """Return the record of the last failover."""
    return pair.history()[0]


def lose(pair: Pair, region: Airflow) -> ChainRun:
    """Kill a region while a run of two tasks executes its first task, and return that run."""
    run = start(region, waits=True)
    wait_for_snapshot(pair, region, "fo_chain")
    pair.sandbox.kill(region.name)
    return run


def come_back(pair: Pair, region: Airflow, run: ChainRun) -> None:
    """Bring a lost region back. The run that executed when it was lost does not continue, and no other run starts."""
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
def test_a_command_starts_the_failover_and_the_operator_finishes_it(
    pair: Pair, regions: tuple[Airflow, Airflow]
) -> None:
    """After the claim, no call goes to the lost region. It comes back as a standby, and a failback is graceful."""
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
    # Control case for that count: the same log has the calls to the region that became active.
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
def test_the_operator_starts_the_failover_and_a_command_finishes_it(
    pair: Pair, regions: tuple[Airflow, Airflow]
) -> None:
    """In mode auto, it detects that the region is lost, and writes that to the state."""
    source, target = regions
    run = lose(pair, source)
    with airflow(pair.control, *operator_words({"target_region": target.name, "reason": "test"})) as operator:

        def is_forced() -> bool:
            plan = pair.state().plan
            return plan is not None and plan.is_forced

        wait_until(is_forced, "the operator continues without the lost region")
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


@pytest.mark.soak
@on("3.3.1")
def test_a_region_that_is_active_again_two_epochs_later(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """It has missed the epoch in which it was a standby. Its runs from before have ended nevertheless."""
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
