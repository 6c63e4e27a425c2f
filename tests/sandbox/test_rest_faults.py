"""The API of an environment fails while a failover pauses or unpauses its DAGs."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.core.state import Phase
from tests.sandbox.failovers import REASON, Command, killed_after, make_steady, mwaa_dr, start
from tests.sandbox.harness import Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox


@pytest.fixture
def regions(pair: Pair) -> tuple[Airflow, Airflow]:
    """The active region and the standby, in which an unwanted DAG is also unpaused."""
    make_steady(pair)
    pair.standby.unpause("fo_stray")
    return pair.active, pair.standby


def unpaused(region: Airflow) -> set[str]:
    """Return the unpaused DAGs of a region."""
    return {dag_id for dag_id, is_paused in region.dags().items() if not is_paused}


def fail(pair: Pair, region: Airflow, fault: str) -> None:
    """Let every call of the failover to an environment fail; ``none``: let them succeed again."""
    pair.sandbox.fault(region.name, "mwaa", fault, from_caller="control")


def assert_open(pair: Pair, target: Airflow, answer: Command) -> None:
    """The command reported that it did not complete, and how to continue. The plan is still open."""
    error = answer.document(code=1)["error"]
    assert error["type"] == "FailoverError"
    assert f"mwaa-dr failover {target.name}" in error["advice"]
    assert pair.state().phase is not Phase.STEADY
    newest = pair.history()[0]
    assert (newest["outcome"], newest["finished_at"]) == ("open", None)


@on("3.3.1")
@pytest.mark.parametrize(
    "fault", ["blackhole", *(pytest.param(f, marks=pytest.mark.soak) for f in ("throttle", "error"))]
)
def test_an_api_that_fails_to_pause(pair: Pair, regions: tuple[Airflow, Airflow], fault: str) -> None:
    """
    The engine calls it until it answers. If it never does, the plan stays open, and the next command completes it.
    """
    source, target = regions
    wanted = unpaused(source)
    killed_after(pair, "drain", target.name, "--mode", "graceful")
    fail(pair, source, fault)
    if fault == "error":
        with mwaa_dr(pair, "failover", target.name, *REASON, "--mode", "graceful") as given_up:
            assert_open(pair, target, given_up)
    with mwaa_dr(pair, "failover", target.name, *REASON, "--mode", "graceful") as failover:
        failover.wait_until_it_prints("no answer yet")
        assert unpaused(source) == wanted
        fail(pair, source, "none")
        record = failover.document()
    assert (record["outcome"], record["not_unpaused"]) == ("completed", [])
    assert (unpaused(source), unpaused(target)) == (set(), wanted)


@on("3.3.1")
@pytest.mark.parametrize(
    "fault", ["error", *(pytest.param(f, marks=pytest.mark.soak) for f in ("throttle", "blackhole"))]
)
def test_an_api_that_fails_to_unpause(pair: Pair, regions: tuple[Airflow, Airflow], fault: str) -> None:
    """
    The engine calls it until it answers. If it never does, the target's agent completes the plan in its own database.
    """
    source, target = regions
    wanted = unpaused(source)
    with mwaa_dr(pair, "failover", target.name, *REASON) as failover:
        failover.wait_until_it_prints(f"{target.name} is active, epoch")
        fail(pair, target, fault)
        failover.wait_until_it_prints("no answer yet")
        if fault == "error":
            assert_open(pair, target, failover)
            wait_until(lambda: pair.state().phase is Phase.STEADY, "the agent ends the plan")
        fail(pair, target, "none")
        if fault != "error":
            assert failover.document()["outcome"] == "completed"
    newest = pair.history()[0]
    assert (newest["outcome"], newest["not_unpaused"]) == ("completed", [])
    assert (unpaused(source), unpaused(target)) == (set(), wanted)
    start(target).wait_until_it_executed()
