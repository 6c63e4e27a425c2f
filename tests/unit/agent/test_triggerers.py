"""What an agent reports about the triggerers of its region, and which items it deletes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.ports import TRIGGERERS, AgentStatus, TriggererStatus
from airflow_provider_mwaa_dr.core.state import Mode, Plan, initial
from airflow_provider_mwaa_dr.core.watching import Watchers
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.unit.agent.test_loop import HERE, THERE, Region

ONE = Watchers(count=2, triggerers=("31",))
TWO = Watchers(count=2, triggerers=("31", "32"))


@pytest.fixture
def region() -> Region:
    """The active region has two triggerers. One of them publishes its item."""
    found = Region(initial(HERE, lease_s=60, by="t", at=ManualClock().now()))
    found.db.found_watchers = TWO
    put(found, "31")
    return found


def put(region: Region, job: str) -> None:
    region.store.put(
        TRIGGERERS,
        TriggererStatus(region=HERE, job=job, at=region.clock.now(), version=0, watchers=2, provider_version="1"),
    )


def heartbeat(region: Region) -> AgentStatus:
    (found,) = region.store.agents(HERE)
    return found


def jobs(region: Region) -> list[str]:
    return [item.job for item in region.store.find_all(TRIGGERERS, HERE)]


def pass_minute(region: Region) -> None:
    region.turn(13)


def test_a_heartbeat_names_the_triggerers_that_load_no_provider(region: Region) -> None:
    """One that has just started publishes within a minute, so the agent looks twice."""
    region.turn(2)
    assert (heartbeat(region).watchers, heartbeat(region).triggerers) == (2, ("31", "32"))
    assert heartbeat(region).unguarded == ()
    pass_minute(region)
    assert heartbeat(region).unguarded == ("32",)
    put(region, "32")
    pass_minute(region)
    assert heartbeat(region).unguarded == ()


def test_an_agent_reads_the_triggerers_in_each_turn_of_a_drain_only(region: Region) -> None:
    """A failover waits for those that are alive now."""
    region.turn(2)
    region.db.found_watchers = ONE
    region.turn()
    assert heartbeat(region).triggerers == ("31", "32")
    at = region.clock.now()
    plan = Plan(id="p", source=HERE, target=THERE, mode=Mode.GRACEFUL, reason="r", by="b", owner="o", started_at=at)
    assert region.store.state is not None
    region.write(transitions.claim(region.store.state, plan, at=at))
    region.turn()
    assert heartbeat(region).triggerers == ("31",)


def test_the_item_of_a_triggerer_that_ended_is_deleted_after_ten_minutes(region: Region) -> None:
    """A killed triggerer does not withdraw it."""
    put(region, "30")
    region.turn(2)
    for _ in range(9):
        pass_minute(region)
    assert jobs(region) == ["30", "31"]
    for _ in range(3):
        pass_minute(region)
    assert jobs(region) == ["31"]


def test_only_the_leading_agent_deletes_items(region: Region) -> None:
    """The others have no right to decide for the region, and it would cost writes."""
    put(region, "30")
    region.db.schedulers = ("6", "7")
    for _ in range(12):
        pass_minute(region)
    assert jobs(region) == ["30", "31"]


def test_without_watchers_the_agent_reads_no_items(region: Region) -> None:
    """Airflow 2 has none, and most regions of Airflow 3."""
    region.db.found_watchers = Watchers()
    region.store.calls.clear()
    pass_minute(region)
    assert "find_all triggerer" not in region.store.calls
    found = heartbeat(region)
    assert replace(found, watchers=0, triggerers=(), unguarded=()) == found
