"""Between two turns an agent only reads the state, and starts the next turn early if there is something to do."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from airflow_provider_mwaa_dr.core.gate import Action
from airflow_provider_mwaa_dr.core.ports import Observation
from airflow_provider_mwaa_dr.core.state import Phase
from tests.unit.agent.test_loop import HERE, THERE, Region, state


@pytest.fixture
def region() -> Region:
    """A region that has been active for some turns, with the default intervals."""
    return started()


def started(**config: float) -> Region:
    """Return an active region that has just taken a turn."""
    found = Region(state(HERE), **config)
    found.turn(2)
    found.loop.turn()
    return found


def wait(region: Region, seconds: float, *, until: Callable[[], bool] = lambda: False) -> float:
    """Ask five times a second whether a turn is due, for *seconds* or until it is; return how long it took."""
    began = region.clock.monotonic()
    while region.clock.monotonic() < began + seconds - 0.01:
        region.clock.advance(0.2)
        if region.loop.is_turn_due() or until():
            break
    return region.clock.monotonic() - began


def reads(region: Region) -> int:
    return region.store.calls.count("observe")


def test_the_state_is_read_every_second_without_the_database(region: Region) -> None:
    """The view gets younger, and no turn is due while nothing changes."""
    before, calls = reads(region), list(region.db.calls)
    region.db.broken = True
    assert wait(region, 4.4) == pytest.approx(4.4)
    assert reads(region) - before == 4
    assert region.db.calls == calls
    assert region.loop.view is not None
    assert region.clock.monotonic() - region.loop.view.read_at < 1.1


@pytest.mark.parametrize(("state_read_s", "expected"), [(0.5, 8), (2.0, 2), (60.0, 0)])
def test_the_interval_of_the_reads_can_be_set(state_read_s: float, expected: int) -> None:
    """A value above refresh_s leaves only the reads of the turns."""
    region = started(state_read_s=state_read_s)
    before = reads(region)
    wait(region, 4.4)
    assert reads(region) - before == expected


def test_a_change_of_the_state_starts_a_turn_within_a_second(region: Region) -> None:
    """The gate uses the new view at once. The turn then acknowledges it, and closes the open runs."""
    region.flip(THERE)
    assert wait(region, 4) <= 1.2
    assert region.may() is Action.HOLD
    region.turn()
    assert region.status.reconciled_epoch == 1


@pytest.mark.parametrize("change", ["regions", "epoch"])
def test_a_change_of_the_regions_own_item_starts_a_turn(region: Region, change: str) -> None:
    """Gate and fence wait for the reconciled epoch, and for the list of regions."""
    if change == "regions":
        region.store.peer().put_regions(HERE, [HERE, THERE, "us-west-2"])
    else:
        region.store._table.reconciled[HERE] = 7
    assert wait(region, 4) <= 1.2


def test_a_requested_heartbeat_is_sent_within_a_second(region: Region) -> None:
    """A failover that checks whether the agent is alive does not wait for the next heartbeat; there is one for each."""
    beat = region.status.beat
    region.store.peer().request_heartbeats(THERE, "engine-1 at noon")
    assert wait(region, 2) == pytest.approx(2)
    region.store.peer().request_heartbeats(HERE, "engine-1 at noon")
    assert wait(region, 4) <= 1.2
    region.loop.turn()
    assert region.status.beat == beat + 1
    assert wait(region, 2) == pytest.approx(2)


def test_the_state_is_read_five_times_a_second_after_a_request_for_heartbeats(region: Region) -> None:
    """A failover is about to begin, and waits for the first read of its claim. After ten seconds, none has begun."""
    region.store.peer().request_heartbeats(HERE, "engine-1 at noon")
    wait(region, 4)
    region.loop.turn()
    before = reads(region)
    wait(region, 1.0)
    assert reads(region) - before == 5
    region.clock.advance(10)
    region.loop.turn()
    before = reads(region)
    wait(region, 4.4)
    assert reads(region) - before == 4


def test_the_state_is_read_five_times_a_second_during_a_failover(region: Region) -> None:
    """Each step of the engine waits for a read of some agent."""
    region.flip(THERE, Phase.DRAINING)
    region.turn()
    region.loop.turn()
    before = reads(region)
    wait(region, 1.0)
    assert reads(region) - before == 5


def test_a_table_that_does_not_answer_is_read_by_the_next_turn_only(region: Region) -> None:
    """Each attempt may take seconds, and opens connections. A fork must not happen meanwhile."""
    region.store.unreachable = True
    before = reads(region)
    assert wait(region, 4) == pytest.approx(4)
    assert reads(region) - before <= 1
    region.store.unreachable = False
    region.loop.turn()
    before = reads(region)
    wait(region, 2.2)
    assert reads(region) - before == 2


def test_the_end_of_a_run_starts_a_turn_within_a_second(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger gets the end without the wait for the next turn; all ends of a second share one turn."""
    _use_ledger(region, monkeypatch)
    region.loop.note_end_of_run()
    region.loop.note_end_of_run()
    assert wait(region, 4) <= 1.3
    region.loop.turn()
    assert wait(region, 4) == pytest.approx(4)


def test_an_end_that_airflow_has_not_committed_starts_one_more_turn(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow reports the end inside its transaction, so the first turn may not find it."""
    _use_ledger(region, monkeypatch)
    wait(region, 2)
    region.loop.note_end_of_run()
    region.clock.advance(0.1)
    assert region.loop.is_turn_due()
    region.loop.turn()
    assert wait(region, 4) <= 1.3
    region.loop.turn()
    assert wait(region, 4) == pytest.approx(4)


@pytest.mark.parametrize("is_leading", [True, False])
def test_only_the_agent_that_publishes_reacts_to_the_end_of_a_run(region: Region, *, is_leading: bool) -> None:
    """Without a ledger, or without the lead, a turn would have nothing to publish."""
    if not is_leading:
        region.db.schedulers = ("1", "7")
    region.loop.turn()
    region.loop.note_end_of_run()
    assert wait(region, 4) == pytest.approx(4)


def test_an_early_turn_does_not_defer_the_heartbeat(region: Region) -> None:
    """Engines and agents count the silence of heartbeats, so that their interval must not grow."""
    beat = region.status.beat
    for _ in range(4):
        region.clock.advance(3)
        region.clock.advance(region.loop.turn())
    region.loop.turn()
    assert region.status.beat - beat == 4


def test_a_read_that_ends_after_the_agent_opens_no_gate(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read is in progress when the scheduler's thread ends the agent, which publishes that nothing starts."""
    observe, is_reading, may_answer = region.store.observe, threading.Event(), threading.Event()

    def slow(of: str) -> Observation:
        is_reading.set()
        may_answer.wait(10)
        return observe(of)

    monkeypatch.setattr(region.store, "observe", slow)
    region.clock.advance(1)
    thread = threading.Thread(target=region.loop.is_turn_due)
    thread.start()
    assert is_reading.wait(10)
    region.loop.end()
    may_answer.set()
    thread.join(10)
    assert region.loop.view is None
    assert region.may() is Action.HOLD


def _use_ledger(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the agent have a ledger. What it publishes is not part of these tests."""
    ledger = region.loop._leader.ledger
    monkeypatch.setattr(type(ledger), "is_publishing", property(lambda self: self.is_leading))
