"""
Killed failovers between real Airflows: the next caller finishes or cancels them, or the target's agent finishes them.
"""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.core.state import Phase
from tests.sandbox.failovers import (
    REASON,
    airflow,
    fail_over,
    killed_after,
    make_steady,
    mwaa_dr,
    operator_words,
    start,
)
from tests.sandbox.harness import Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

BEFORE_PROMOTE = ("check", "claim", "record", "drain", "pause", "ledger", "lease")
AFTER_PROMOTE = ("promote", "adopt", "unpause", "verify")
OF_THE_SOURCE = {"drain", "pause", "ledger"}
"""Steps that a forced failover does not take."""


@pytest.fixture
def regions(pair: Pair) -> tuple[Airflow, Airflow]:
    """The active region and the standby. Each test finds the roles as the last one left them."""
    make_steady(pair)
    return pair.active, pair.standby


def wanted_in(region: Airflow) -> set[str]:
    """Return the DAGs that are not paused in the region."""
    return {dag_id for dag_id, is_paused in region.dags().items() if not is_paused}


def assert_steady(pair: Pair, region: Airflow, wanted: set[str]) -> None:
    """
    Exactly one region is active, STEADY, with exactly the wanted set. A run that starts executes, and only in that
    region.
    """
    state = pair.state()
    assert (state.active_region, state.phase, state.plan) == (region.name, Phase.STEADY, None)
    other = pair[pair.other(region.name)]
    assert wanted_in(region) == wanted
    assert not wanted_in(other) & wanted
    records = pair.history()
    assert [record["id"] for record in records if record["outcome"] == "open"] == []
    here, there = start(region), start(other)
    here.wait_until_it_executed()
    wait_until(lambda: there.state == "failed", f"{other.name} closes a run")
    assert there.bodies() == []


@on("3.3.1")
@pytest.mark.parametrize("mode", [pytest.param("graceful", marks=pytest.mark.soak), "forced"])
def test_a_failover_whose_every_caller_is_killed_comes_to_its_end(
    pair: Pair, regions: tuple[Airflow, Airflow], mode: str
) -> None:
    """Each command is killed after its next step, up to promote. Then the operator completes the failover."""
    source, target = regions
    before, wanted = pair.state(), wanted_in(source)
    target.unpause("fo_stray")
    for step in (*BEFORE_PROMOTE, "promote"):
        if mode == "forced" and step in OF_THE_SOURCE:
            continue
        killed_after(pair, step, target.name, "--mode", mode)
        state = pair.state()
        assert state.epoch == before.epoch + (step == "promote")
        assert (state.phase is Phase.STEADY) == (step == "check")
    operator = operator_words({"target_region": target.name, "reason": "test", "mode": mode})
    with airflow(pair.control, *operator) as last:
        assert last.wait() == 0, last.stdout + last.stderr
    newest = pair.history()[0]
    assert (newest["outcome"], newest["mode"], newest["epoch"]) == ("completed", mode, before.epoch + 1)
    assert_steady(pair, target, wanted)


@on("3.3.1")
@pytest.mark.parametrize("mode", ["graceful", pytest.param("forced", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "step", ["unpause", *(pytest.param(s, marks=pytest.mark.soak) for s in ("promote", "adopt", "verify"))]
)
def test_after_a_kill_after_promote_the_next_command_completes(
    pair: Pair, regions: tuple[Airflow, Airflow], mode: str, step: str
) -> None:
    """It completes the failover itself, or finds that the target's agent was faster. Both count as success."""
    source, target = regions
    before, wanted = pair.state(), wanted_in(source)
    target.unpause("fo_stray")
    killed_after(pair, step, target.name, "--mode", mode)
    assert fail_over(pair, target.name)["epoch"] == before.epoch + 1
    assert_steady(pair, target, wanted)


@on("3.3.1")
@pytest.mark.parametrize(
    ("mode", "step"),
    [("graceful", "pause"), ("forced", "record")]
    + [
        pytest.param(mode, step, marks=pytest.mark.soak)
        for mode in ("graceful", "forced")
        for step in BEFORE_PROMOTE[1:]
        if (mode, step) not in {("graceful", "pause"), ("forced", "record")}
        and not (mode == "forced" and step in OF_THE_SOURCE)
    ],
)
def test_after_a_kill_before_promote_naming_the_active_region_cancels(
    pair: Pair, regions: tuple[Airflow, Airflow], mode: str, step: str
) -> None:
    """The epoch stays, the paused DAGs are unpaused, and a run that was held meanwhile executes."""
    source, target = regions
    before, wanted = pair.state(), wanted_in(source)
    killed_after(pair, step, target.name, "--mode", mode)
    held = start(source)
    assert fail_over(pair, source.name)["to"] == source.name
    held.wait_until_it_executed()
    assert pair.state().epoch == before.epoch
    assert_steady(pair, source, wanted)


@on("3.3.1")
@pytest.mark.parametrize(
    ("mode", "step"),
    [("graceful", "promote"), ("forced", "adopt")]
    + [pytest.param(mode, step, marks=pytest.mark.soak) for mode in ("graceful", "forced") for step in AFTER_PROMOTE],
)
def test_after_a_kill_after_promote_the_agent_completes(
    pair: Pair, regions: tuple[Airflow, Airflow], mode: str, step: str
) -> None:
    """
    The target's agent completes it: exactly the wanted set runs, other DAGs are paused again, and the record has it.
    """
    source, target = regions
    before, wanted = pair.state(), wanted_in(source)
    target.unpause("fo_stray")
    killed_after(pair, step, target.name, "--mode", mode)
    wait_until(lambda: pair.state().phase is Phase.STEADY, f"{target.name} ends the plan by itself")
    newest = pair.history()[0]
    assert (newest["outcome"], newest["epoch"], newest["not_unpaused"]) == ("completed", before.epoch + 1, [])
    assert newest["steps"][-1]["name"] == "finish"
    assert_steady(pair, target, wanted)


@on("3.3.1")
def test_after_a_target_is_killed_before_promote_the_source_continues(
    pair: Pair, regions: tuple[Airflow, Airflow]
) -> None:
    """
    It is killed between claim and promote. After a cancel, the source continues with its runs in flight and its held
    runs.
    """
    source, target = regions
    before, wanted = pair.state(), wanted_in(source)
    in_flight = start(source, waits=True)
    with mwaa_dr(pair, "failover", target.name, *REASON, "--stop-running", drain_s=120) as failover:
        failover.wait_until_it_prints("in progress: ")
        held = start(source)
        pair.sandbox.kill(target.name)
        fail_over(pair, source.name)
        assert failover.document(code=3)["error"]["type"] == "PlanSupersededError"
    in_flight.let_go()
    for run in (in_flight, held):
        run.wait_until_it_executed()
    assert (pair.state().epoch, wanted_in(source)) == (before.epoch, wanted)
    pair.sandbox.revive(target.name)
    pair.wait_until_reconciled()
    assert_steady(pair, source, wanted)


@pytest.mark.soak
@on("3.3.1")
def test_after_a_target_is_lost_after_promote_a_failback_restores_the_role(
    pair: Pair, regions: tuple[Airflow, Airflow]
) -> None:
    """Nothing can finish the plan. A failover back to the source succeeds without the lost region."""
    source, target = regions
    before, wanted = pair.state(), wanted_in(source)
    killed_after(pair, "promote", target.name)
    pair.sandbox.kill(target.name)
    record = fail_over(pair, source.name, "--mode", "forced")
    assert (record["from"], record["to"], record["epoch"]) == (target.name, source.name, before.epoch + 2)
    assert wanted_in(source) == wanted
    after = start(source)
    after.wait_until_it_executed()
    pair.sandbox.revive(target.name)
    pair.wait_until_reconciled()
    assert_steady(pair, source, wanted)
