"""
A ledger that refuses, for a moment or permanently: the agent closes no run before it is published, and none is lost.
"""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, decide
from airflow_provider_mwaa_dr.core.ports import UNPUBLISHED_EVENTS
from airflow_provider_mwaa_dr.exceptions import (
    StateAccessError,
    StateError,
    StateUnreachableError,
    TableNotFoundError,
)
from tests.unit.agent.test_becoming_active import HERE, THERE, Pair, Region

REFUSALS = [
    StateAccessError("ExpiredTokenException"),
    StateUnreachableError("no answer"),
    TableNotFoundError("ResourceNotFoundException"),
    StateError("KMSInternalException"),
]
WAIT_S = 300.0


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.there.turn(2)
    pair.here.turn(2)
    return pair


def turn_for(region: Region, seconds: float) -> None:
    """Let the agent take its turns for this number of seconds."""
    until = region.pair.clock.monotonic() + seconds
    while region.pair.clock.monotonic() < until:
        region.turn()


def may(region: Region) -> tuple[Action, str]:
    """Return the decision of the region's gate for a run now, and the note."""
    decision = decide(
        region.loop.view,
        region=region.name,
        exempt=False,
        now=region.pair.clock.monotonic(),
        lease_s=60,
        point=DecisionPoint.GATE,
    )
    return decision.action, decision.reason


def ids(region: Region, state: str) -> list[str]:
    return sorted(key[1] for key, run in region.db.rows.items() if run.state == state)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
def test_one_refusal_when_the_role_is_lost_closes_no_run(pair: Pair, refusal: StateError) -> None:
    """The run stays open until the ledger has it. Then the region closes it, and the other region resumes it."""
    pair.there.turn()
    pair.there.add(1)
    pair.flip(HERE)
    pair.there.runs.refusal = refusal
    pair.there.turn()
    assert pair.there.states == {"running": 1}
    pair.there.runs.refusal = None
    pair.there.turn(2)
    assert pair.there.states == {"failed": 1}
    pair.here.turn(3)
    assert pair.here.states == {"queued": 1}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_standby_waits_for_its_ledger_without_limit_and_publishes_why(pair: Pair, refusal: StateError) -> None:
    """After 20 times the limit of a target, the run is open and the gate holds. Heartbeat and note have the reason."""
    pair.there.add(1)
    pair.flip(HERE)
    pair.there.runs.refusal = refusal
    turn_for(pair.there, 20 * WAIT_S)
    assert pair.there.states == {"running": 1}
    action, note = may(pair.there)
    assert action is Action.HOLD
    assert "closes no run that its ledger has not accepted" in note
    assert str(refusal) in note
    status = pair.there.status
    assert status.ledger_error is not None
    assert (pair.clock.now() - status.at).total_seconds() < 10, "heartbeats continue"
    assert status.ledger_wait_s is None, "it has no limit"
    assert pair.store.get(UNPUBLISHED_EVENTS, THERE) is None


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
def test_one_refusal_when_the_region_becomes_active_loses_no_history(pair: Pair, refusal: StateError) -> None:
    """The target does not execute without the runs that the other region finished or left unfinished."""
    pair.there.add(1, "success")
    pair.there.add(2)
    pair.there.turn(2)
    pair.flip(HERE)
    pair.there.turn(2)
    pair.here.runs.refusal = refusal
    pair.here.turn()
    assert may(pair.here)[0] is Action.HOLD
    assert "waits at most 300 s" in may(pair.here)[1]
    pair.here.runs.refusal = None
    pair.here.turn(3)
    assert (ids(pair.here, "success"), ids(pair.here, "queued")) == (["r1"], ["r2"])
    assert may(pair.here)[0] is Action.RUN
    assert pair.here.status.ledger_wait_s is None
    assert pair.store.get(UNPUBLISHED_EVENTS, HERE) is None


def test_a_target_waits_for_its_ledger_for_a_limited_time_and_announces_it(pair: Pair) -> None:
    """The heartbeat counts down, so that the engine and the user know how long they have to wait."""
    pair.flip(HERE)
    pair.here.runs.refusal = StateAccessError("denied")
    pair.here.turn()
    first = pair.here.status.ledger_wait_s
    turn_for(pair.here, 100)
    second = pair.here.status.ledger_wait_s
    assert first is not None
    assert second is not None
    assert WAIT_S >= first > second > 100
    assert may(pair.here)[0] is Action.HOLD


@pytest.mark.parametrize("runs", [1, 100])
def test_the_list_of_closed_runs_takes_the_same_queries_for_any_number_of_runs(pair: Pair, runs: int) -> None:
    """The agent reads the open runs before and after it closes them."""
    pair.flip(HERE)
    pair.here.runs.refusal = StateAccessError("denied")
    turn_for(pair.here, WAIT_S - 10)
    for number in range(runs):
        pair.here.add(number)
    reads, read_states = [], pair.here.db.read_states

    def counted(*, above: int) -> Any:
        reads.append(above)
        return read_states(above=above)

    pair.here.db.read_states = counted  # type: ignore[method-assign]
    turn_for(pair.here, 20)
    listed = pair.store.get(UNPUBLISHED_EVENTS, HERE)
    assert listed is not None
    assert len(listed.runs) == runs
    assert len(reads) == 2


def test_a_target_continues_without_its_ledger_and_lists_what_it_could_not_resume(pair: Pair) -> None:
    """
    After the limit it executes. The state table has its epoch, the error, and the last entry that it knew of the other
    region.
    """
    pair.there.add(1)
    pair.there.turn(2)
    pair.here.turn()
    pair.flip(HERE)
    pair.here.runs.refusal = StateAccessError("denied")
    turn_for(pair.here, WAIT_S + 10)
    assert may(pair.here)[0] is Action.RUN
    assert pair.here.status.adopted_epoch == 1
    listed = pair.store.get(UNPUBLISHED_EVENTS, HERE)
    assert listed is not None
    assert (listed.id, listed.epoch, listed.why) == (f"{HERE}-epoch-1", 1, "denied")
    assert any(THERE in each and "orders r1" in each for each in listed.unread)
    assert pair.store.acknowledge_unpublished(HERE, listed.id, pair.clock.now())
    assert not pair.store.acknowledge_unpublished(HERE, "another", pair.clock.now())


@pytest.mark.parametrize("restarts", [False, True])
def test_unfinished_runs_start_when_the_ledger_works_again(pair: Pair, restarts: bool) -> None:
    """
    The run is late, but not lost. The region also publishes what it executed meanwhile, so that no region repeats it.
    """
    pair.there.add(1)
    pair.there.turn(2)
    pair.flip(HERE)
    pair.there.turn(2)
    pair.here.runs.refusal = StateAccessError("denied")
    turn_for(pair.here, WAIT_S + 10)
    assert pair.here.states == {}
    pair.here.add(7, "success")
    pair.here.turn()
    if restarts:
        pair.here.restart()
        pair.here.turn(2)
    pair.here.runs.refusal = None
    pair.here.turn(4)
    assert (ids(pair.here, "queued"), ids(pair.here, "success")) == (["r1"], ["r7"])
    pair.there.turn(3)
    assert ids(pair.there, "success") == ["r7"], "published, and adopted as the newest interval"


@pytest.mark.parametrize("cleared", [False, True])
def test_a_run_that_was_closed_while_the_ledger_refused_is_published_later(pair: Pair, cleared: bool) -> None:
    """
    The role left the region and came back while the ledger refused. The run belongs to this region, and no other knows
    it.

    If a user cleared the run meanwhile, it has executed, and must not be repeated.
    """
    pair.there.runs.refusal = StateAccessError("denied")
    pair.there.add(1)
    pair.flip(HERE)
    pair.there.turn(2)
    pair.here.turn(2)
    pair.flip(THERE)
    turn_for(pair.there, WAIT_S + 10)
    assert pair.there.states == {"failed": 1}
    listed = pair.store.get(UNPUBLISHED_EVENTS, THERE)
    assert listed is not None
    assert listed.runs == ("orders r1",)
    if cleared:
        pair.there.db.clear(("orders", "r1"))
        pair.there.turn()
        pair.there.db.set_state(pair.there.db.rows["orders", "r1"], "success")
    pair.there.runs.refusal = None
    pair.there.turn(4)
    assert pair.there.states == ({"success": 1} if cleared else {"queued": 1})


def test_the_list_is_stored_before_a_run_is_closed(pair: Pair) -> None:
    """The region waits for as long as the state table refuses the list."""
    pair.there.runs.refusal = StateAccessError("denied")
    pair.there.add(1)
    pair.flip(HERE)
    pair.there.turn(2)
    pair.here.turn(2)
    pair.flip(THERE)
    pair.store.failing["put unpublished runs"] = StateUnreachableError("no answer")
    turn_for(pair.there, WAIT_S + 60)
    assert pair.there.states == {"running": 1}
    assert may(pair.there)[0] is Action.HOLD
    pair.store.failing.clear()
    pair.there.turn(2)
    assert pair.there.states == {"failed": 1}
