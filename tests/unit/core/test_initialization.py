"""What ``mwaa-dr init`` begins with when the state item is gone and its agents remember it."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.core.initialization import initialize, plan_initialization
from airflow_provider_mwaa_dr.core.ports import AgentStatus
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock

HERE, THERE = "us-east-1", "us-east-2"


def agent(region: str, *, version: int, epoch: int, adopted: int | None) -> AgentStatus:
    return AgentStatus(
        region=region, job="1", host="host", at=ManualClock().now(), beat=1, version=version, epoch=epoch,
        provider_version="0.1.0", airflow_version="3.3.1", adopted_epoch=adopted, reconciled_epoch=epoch,
        schedulers=("1",),
    )  # fmt: skip


def begin(*agents: AgentStatus, active: str = HERE) -> DRState:
    """Return the state after init on a table whose state item is gone."""
    store = InMemoryStateStore()
    for status in agents:
        store.put_agent(status)
    plan = plan_initialization(
        store,
        active_region=active,
        environments={HERE: "one", THERE: "two"},
        lease_s=60,
        by="t",
        at=ManualClock().now(),
    )
    initialize(store, plan)
    return store.read()


def test_a_new_set_begins_at_the_beginning() -> None:
    """The control: no agent has ever seen a state."""
    state = begin()
    assert (state.epoch, state.version, state.failover_count) == (0, 1, 0)


def test_agents_that_have_seen_no_state_remember_none() -> None:
    """The plugin was enabled before init."""
    state = begin(agent(HERE, version=0, epoch=0, adopted=None), agent(THERE, version=0, epoch=0, adopted=None))
    assert (state.epoch, state.version) == (0, 1)


@pytest.mark.parametrize(("active", "epoch"), [(HERE, 5), (THERE, 6)])
def test_a_state_that_is_gone_is_followed_by_its_successor(active: str, epoch: int) -> None:
    """The region that was active goes on under its epoch; another one gets the next, and every agent reads it."""
    agents = agent(HERE, version=40, epoch=5, adopted=5), agent(THERE, version=41, epoch=5, adopted=None)
    state = begin(*agents, active=active)
    assert (state.active_region, state.epoch, state.version, state.failover_count) == (active, epoch, 42, epoch)


def test_init_lists_the_regions_for_each_of_them_and_then_finds_nothing_to_do() -> None:
    """Gate and fence hold until they have the list."""
    store = InMemoryStateStore()
    store.put_agent(agent("eu-west-1", version=0, epoch=0, adopted=None))
    changes = []
    for _ in range(2):
        plan = plan_initialization(
            store, active_region=HERE, environments={HERE: "one", THERE: "two"}, lease_s=60, by="t",
            at=ManualClock().now(),
        )  # fmt: skip
        changes.append(plan.changes_something)
        initialize(store, plan)
    assert changes == [True, False]
    assert store.observe(HERE).registered == store.observe(THERE).registered == {HERE, THERE, "eu-west-1"}
