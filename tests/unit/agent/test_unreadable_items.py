"""An agent with unreadable items: it continues, and holds only what depends on them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.ports import SNAPSHOTS, DagSet, Registration
from airflow_provider_mwaa_dr.core.state import Phase, initial
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.unit.agent.test_becoming_active import Pair
from tests.unit.agent.test_loop import HERE, THERE, Region

KEYS = [
    f"AGENT#{HERE}#6",
    f"AGENT#{HERE}#7",
    f"AGENT#{THERE}#6",
    "FAILOVER#old",
    f"SNAPSHOT#{HERE}",
    f"SNAPSHOT#{THERE}",
    "PAUSED#old",
    f"ENVIRONMENT#{HERE}",
    f"ENVIRONMENT#{THERE}",
    f"FENCE#{HERE}",
    f"INVENTORY#{THERE}",
]


@pytest.mark.parametrize("is_active", [True, False])
@pytest.mark.parametrize("key", KEYS)
def test_no_item_that_cannot_be_read_silences_an_agent(key: str, is_active: bool) -> None:
    """Heartbeats continue, and no run is closed. The agent reports no problem after its own item is written again."""
    clock = ManualClock()
    region = Region(initial(HERE if is_active else THERE, lease_s=60, by="t", at=clock.now()), clock=clock)
    region.db.ended_at = clock.now()
    region.turn(3)
    calls, beat = list(region.db.calls), region.status.beat
    region.store.damage(key)
    region.db.runs = ["1"] if is_active else []
    for _ in range(30):
        region.turn()
        clock.advance(3)
    agents = {agent.job: agent for agent in region.store.agents(HERE)}
    assert agents["7"].beat > beat + 10
    assert agents["7"].unreadable is None
    assert region.loop._error.value is None
    assert [call for call in region.db.calls[len(calls) :] if call == "pause"] == []
    assert region.db.runs == (["1"] if is_active else [])


def test_a_snapshot_that_cannot_be_read_is_taken_again_by_the_agent() -> None:
    """Also if no DAG has changed since its last snapshot."""
    clock = ManualClock()
    region = Region(initial(HERE, lease_s=60, by="t", at=clock.now()), clock=clock)
    region.turn(3)
    region.store.damage(f"SNAPSHOT#{HERE}")
    for _ in range(30):
        region.turn()
        clock.advance(3)
    snapshot = region.store.get(SNAPSHOTS, HERE)
    assert isinstance(snapshot, DagSet)
    assert snapshot.dag_ids == ("billing", "orders")


def test_an_unreadable_heartbeat_of_a_dead_scheduler_is_deleted() -> None:
    """Ten minutes after its database last listed the scheduler, as with any other heartbeat."""
    clock = ManualClock()
    region = Region(initial(HERE, lease_s=60, by="t", at=clock.now()), clock=clock)
    region.turn(2)
    region.store.damage(f"AGENT#{HERE}#6", field="beat", found="'three'")
    for _ in range(90):
        region.turn()
        clock.advance(10)
    assert [agent.job for agent in region.store.agents(HERE)] == ["7"]


def test_a_heartbeat_is_sent_before_the_work_and_after_it_when_that_has_news() -> None:
    """An error in the work of the turn must not delay the heartbeat."""
    clock = ManualClock()
    region = Region(initial(HERE, lease_s=60, by="t", at=clock.now()), clock=clock)
    region.turn(3)
    beat = region.status.beat

    def fail(region: str) -> object:
        raise KeyError("'from'")

    region.store.registrations = fail  # type: ignore[method-assign,assignment]
    region.store.failing["put snapshot"] = KeyError("'from'")
    region.db.unpaused = ("billing",)
    for _ in range(4):
        clock.advance(region.config.heartbeat_s)
        region.loop.turn()
    assert region.status.beat >= beat + 4
    region.flip(THERE, Phase.STEADY)
    region.loop.turn()
    assert region.status.reconciled_epoch == 1


def test_a_region_whose_registration_cannot_be_read_is_still_followed() -> None:
    """The state names the region. Without that region's ledger, the target would lose its runs."""
    pair = Pair()
    pair.there.turn(2)
    pair.store.damage(f"ENVIRONMENT#{THERE}", field="environment", found="[]")
    for number in range(3):
        pair.there.add(number)
    pair.there.turn(2)
    pair.flip(HERE)
    pair.there.turn(2)
    pair.here.turn(4)
    assert pair.here.states == {"queued": 3}


def test_a_gap_in_a_ledger_is_published_and_holds_only_runs_that_may_have_ended_in_it() -> None:
    """
    The region becomes active and resumes every other run. Its heartbeat still names the gap in the lost region's
    ledger.
    """
    pair = Pair()
    pair.there.add(1)
    pair.there.turn(3)
    pair.runs.damage_entry(THERE, pair.runs.log(THERE, after=0)[-1].number)
    pair.there.add(2)
    pair.there.turn(2)
    pair.flip(HERE)
    pair.here.turn(6)
    status = pair.here.status
    assert status.reconciled_epoch == 1
    assert [each.startswith(f"The ledger of {THERE} has a gap. Item LOG#{THERE}") for each in status.unread] == [True]
    assert list(pair.here.db.rows) == [("orders", "r2")]


def test_a_region_ends_the_gap_in_its_own_ledger_when_its_next_leader_reads_it() -> None:
    """The leader publishes again what only the unreadable entry contained. The other region resumes all runs."""
    pair = Pair()
    pair.there.add(1)
    pair.there.turn(3)
    pair.runs.damage_entry(THERE, pair.runs.log(THERE, after=0)[-1].number)
    pair.there.restart()
    pair.there.add(2)
    pair.there.turn(3)
    pair.flip(HERE)
    pair.there.turn(3)
    pair.here.turn(6)
    assert pair.here.status.unread == ()
    assert pair.here.states == {"queued": 2}


def test_a_registration_that_is_written_again_is_read_again() -> None:
    """mwaa-dr init repairs the item."""
    clock = ManualClock()
    region = Region(initial(HERE, lease_s=60, by="t", at=clock.now()), clock=clock)
    region.store.damage(f"ENVIRONMENT#{HERE}")
    region.store.register(Registration(region=HERE, environment="virginia"))
    region.turn(3)
    assert region.store.unreadable([HERE]) == []
    assert replace(region.status, unread=()) == region.status
