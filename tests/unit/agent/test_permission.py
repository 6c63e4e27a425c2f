"""A scheduler starts runs only for a lease after a heartbeat that the table has confirmed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.config import Eventual, OnUnreachable, TableConsistency
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, decide
from airflow_provider_mwaa_dr.exceptions import StateUnreachableError
from tests.unit.agent.test_loop import HERE, THERE, Region, state


@pytest.fixture
def active() -> Region:
    region = Region(state(HERE))
    region.turn(2)
    return region


def refuse_heartbeats(region: Region) -> None:
    region.store.failing["put_agent"] = StateUnreachableError("The state table throttled put_agent.")


def reason(region: Region) -> str:
    return decide(
        region.loop.view, region=HERE, exempt=False, now=region.clock.monotonic(), lease_s=60, point=DecisionPoint.GATE
    ).reason


def test_the_first_read_permits_nothing_and_the_second_follows_immediately() -> None:
    """The first heartbeat is confirmed after the first read."""
    region = Region(state(HERE))
    region.turn()
    assert region.may() is Action.HOLD
    assert region.clock.monotonic() <= 0.1
    region.turn()
    assert region.may() is Action.RUN


def test_a_region_that_can_read_and_not_write_holds_after_the_lease(active: Region) -> None:
    """A failover counts its silence. The fence of its workers needs no heartbeat: running runs finish."""
    refuse_heartbeats(active)
    active.turn(10)
    assert active.may() is Action.RUN
    active.turn(3)
    assert active.may() is Action.HOLD
    assert active.may(DecisionPoint.FENCE) is Action.RUN
    assert "no heartbeat of this scheduler was confirmed" in reason(active)
    assert "execution role may write the table" in reason(active)
    active.store.failing.clear()
    active.turn(2)
    assert active.may() is Action.RUN


def test_a_later_heartbeat_extends_no_view(active: Region) -> None:
    """A view permits for a lease after the heartbeat that was confirmed before its read."""
    view = active.loop.view
    assert view is not None
    assert view.confirmed_at == 0.0
    active.store.failing["observe"] = StateUnreachableError("No answer.")
    active.turn(5)
    assert active.loop.view == view


def test_a_heartbeat_counts_only_while_the_regions_list_names_it(active: Region) -> None:
    """An engine finds only these. The next heartbeat enters the list again."""
    active.store.forget_agent(HERE, active.db.job_id)  # type: ignore[arg-type]
    active.loop.turn()
    assert active.loop.view is not None
    assert active.loop.view.confirmed_at is None
    active.turn(2)
    assert active.may() is Action.RUN


def test_a_longer_lease_permits_nothing_before_a_heartbeat_has_published_it(active: Region) -> None:
    """An engine waits for the longest lease that it reads, also if the lease is lowered again."""
    active.write(replace(active.state, lease_s=600.0, version=active.state.version + 1))
    active.loop.turn()
    assert active.may() is Action.HOLD
    assert active.status.lease_s == 600.0
    active.turn()
    assert active.may() is Action.RUN


@pytest.mark.parametrize(
    "config",
    [
        {"on_unreachable": OnUnreachable.RUN},
        {"table_consistency": TableConsistency.EVENTUAL, "eventual": Eventual.SAFE},
    ],
    ids=["on_unreachable is run", "eventual consistency"],
)
def test_permission_depends_on_reads_alone_where_silence_proves_nothing(config: dict[str, object]) -> None:
    """The heartbeat publishes no life, so engines wait for the whole lease."""
    region = Region(state(HERE))
    region.config = replace(region.config, **config)  # type: ignore[arg-type]
    region.start()
    region.turn(2)
    assert region.status.number is None
    refuse_heartbeats(region)
    region.turn(20)
    assert region.may() is Action.RUN


def test_an_agent_reports_the_silence_of_all_regions(active: Region) -> None:
    """A report names the number of the heartbeat, and how long it has not changed."""
    other = replace(active.status, region=THERE, life="other", silent=())
    active.store.put_agent(other)
    active.store.put_agent(replace(active.status, job="9", life="dead", silent=()))
    active.store._table.lists[HERE] = frozenset({HERE, THERE})
    active.turn(6)
    mine = next(status for status in active.store.agents(HERE) if status.job == active.db.job_id)
    assert {(each.region, each.job) for each in mine.silent} == {(THERE, active.db.job_id), (HERE, "9")}
    assert all(each.still_s > 5 for each in mine.silent)
    active.store.put_agent(other)
    active.turn(2)
    mine = next(status for status in active.store.agents(HERE) if status.job == active.db.job_id)
    assert {each.region for each in mine.silent} == {HERE}


def test_each_agent_has_a_life_of_its_own_and_each_heartbeat_a_number(active: Region) -> None:
    """A restarted agent of the same scheduler does not repeat a number."""
    first = active.status.number
    active.turn(2)
    second = active.status.number
    active.start()
    active.turn()
    assert len({first, second, active.status.number, None}) == 4
    assert active.status.life not in (first or "")


@pytest.mark.parametrize(
    ("refresh_s", "heartbeat_s", "lease_s"),
    [(5, 5, 60), (5, 60, 60), (30, 5, 60), (30, 60, 60), (1, 60, 4), (1, 1, 2), (0.2, 0.2, 2), (60, 60, 120)],
)
def test_a_healthy_region_never_holds(refresh_s: float, heartbeat_s: float, lease_s: float) -> None:
    """With each combination of intervals that the options allow without a complaint, also if turns take a while."""
    region = Region(state(HERE, lease_s=lease_s), refresh_s=refresh_s, heartbeat_s=heartbeat_s, lease_s=lease_s)
    region.turn(3)
    until = region.clock.monotonic() + 5 * lease_s
    while region.clock.monotonic() < until:
        rest_s = region.loop.turn() + 0.05
        region.clock.advance(rest_s)
        assert region.may() is Action.RUN, f"it holds at {region.clock.monotonic():.1f} s: {reason(region)}"


def test_heartbeats_that_cannot_be_read_do_not_stop_a_turn(active: Region, caplog: pytest.LogCaptureFixture) -> None:
    """The region continues, and the silence that was observed before still counts: gaps between reads do not matter."""
    active.store.put_agent(replace(active.status, job="9", life="dead", silent=()))
    active.turn(2)
    active.store.failing["agents"] = StateUnreachableError("The state table did not answer agents.")
    active.turn(15)
    assert active.may() is Action.RUN
    active.store.failing.clear()
    mine = next(status for status in active.store.agents(HERE) if status.job == active.db.job_id)
    assert next(each.still_s for each in mine.silent if each.job == "9") > 60
    assert "did not answer agents" in caplog.text


def test_nothing_is_observed_with_eventual_consistency() -> None:
    """One copy may confirm a heartbeat while another copy shows silence."""
    region = Region(state(HERE), table_consistency=TableConsistency.EVENTUAL)
    region.turn(2)
    region.store.put_agent(replace(region.status, job="9", life="dead"))
    region.turn(10)
    assert all(status.silent == () for status in region.store.agents(HERE))
