"""The state that ``mwaa-dr init`` writes when the state item is gone and agents remember the old one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.environments import environment_names
from airflow_provider_mwaa_dr.core.initialization import (
    Initialization,
    initialize,
    plan_above_every_epoch,
    plan_initialization,
)
from airflow_provider_mwaa_dr.core.ledger import LogEntry, RegionLedger
from airflow_provider_mwaa_dr.core.ports import RECORDS, AgentStatus, FailoverRecord, Registration
from airflow_provider_mwaa_dr.core.sites import parse_sites
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, initial
from airflow_provider_mwaa_dr.exceptions import (
    ConfigError,
    RefusedError,
    StaleStateError,
    StateError,
    StateNotFoundError,
    StateUnreachableError,
)
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, InMemoryStateStore, ManualClock

HERE, THERE = "us-east-1", "us-east-2"


def agent(region: str, *, version: int, epoch: int, adopted: int | None) -> AgentStatus:
    return AgentStatus(
        region=region, job="1", host="host", at=ManualClock().now(), beat=1, version=version, epoch=epoch,
        provider_version="0.1.0", airflow_version="3.3.1", adopted_epoch=adopted, reconciled_epoch=epoch,
        schedulers=("1",),
    )  # fmt: skip


def begin(*agents: AgentStatus, active: str = HERE) -> DRState:
    """Return the state after init on a table without a state item."""
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


def test_a_new_set_begins_with_epoch_0() -> None:
    """Control case: no agent has ever read a state."""
    state = begin()
    assert (state.epoch, state.version, state.failover_count) == (0, 1, 0)


def test_agents_that_have_seen_no_state_remember_none() -> None:
    """The plugin was enabled before init."""
    state = begin(agent(HERE, version=0, epoch=0, adopted=None), agent(THERE, version=0, epoch=0, adopted=None))
    assert (state.epoch, state.version) == (0, 1)


@pytest.mark.parametrize(("active", "epoch"), [(HERE, 5), (THERE, 6)])
def test_a_lost_state_is_followed_by_a_newer_version(active: str, epoch: int) -> None:
    """
    The region that was active keeps its epoch; another region gets the next epoch. The version is above every agent's.
    """
    agents = agent(HERE, version=40, epoch=5, adopted=5), agent(THERE, version=41, epoch=5, adopted=None)
    state = begin(*agents, active=active)
    assert (state.active_region, state.epoch, state.version, state.failover_count) == (active, epoch, 42, epoch)


def test_init_lists_the_regions_for_each_of_them_and_then_finds_nothing_to_do() -> None:
    """Gate and fence hold until they have the list. A second init is a no-op."""
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


def above(store: InMemoryStateStore, runs: InMemoryRunsStore | None = None, *, active: str = HERE) -> DRState:
    """Return the state after ``init --above-every-epoch``."""
    plan = plan_above_every_epoch(
        store, runs, active_region=active, environments={HERE: "one", THERE: "two"}, lease_s=60, by="t",
        at=ManualClock().now(),
    )  # fmt: skip
    initialize(store, plan)
    return store.read()


def entry(epoch: int) -> LogEntry:
    return LogEntry(number=1, at=ManualClock().now(), epoch=epoch, first_id=0, newest_id=0)


@pytest.mark.parametrize("newest", ["item", "agent", "adopted", "reconciled", "record", "ledger", "checkpoint"])
def test_init_above_every_epoch_is_above_each_epoch_that_any_item_has(newest: str) -> None:
    """Agents ignore a state that is older than the last one that they read, so no failover would be possible."""
    store, runs = InMemoryStateStore(), InMemoryRunsStore()
    store.write(initial(HERE, lease_s=60, by="t", at=ManualClock().now(), epoch=2, version=9), expected_version=None)
    status = agent(THERE, version=40, epoch=3, adopted=None)
    if newest == "item":
        store.overwrite(initial(HERE, lease_s=60, by="t", at=ManualClock().now(), epoch=7, version=50))
    elif newest == "agent":
        status = replace(status, epoch=7)
    elif newest == "adopted":
        status = replace(status, adopted_epoch=7)
    elif newest == "reconciled":
        status = replace(status, reconciled_epoch=7)
    elif newest == "record":
        store.put(
            RECORDS,
            FailoverRecord(
                id="r",
                source=HERE,
                target=THERE,
                mode=Mode.FORCED,
                reason="r",
                by="b",
                started_at=ManualClock().now(),
                epoch=7,
            ),
        )
    elif newest == "ledger":
        runs.append("eu-west-1", entry(7))
        store.put_agent(replace(agent("eu-west-1", version=0, epoch=0, adopted=None), reconciled_epoch=None))
    else:
        checkpoint = RegionLedger()
        checkpoint.apply([entry(7)])
        runs.save_checkpoint(HERE, checkpoint)
    store.put_agent(status)
    state = above(store, runs)
    assert (state.active_region, state.epoch, state.phase, state.plan) == (HERE, 8, Phase.STEADY, None)
    assert state.version == (51 if newest == "item" else 41)


def test_init_above_every_epoch_counts_ledger_entries_without_the_entries_before_them() -> None:
    """
    The first entries and the checkpoint may have been deleted, or are not replicated yet. An agent of the region has
    read the epoch of the later ones all the same.
    """
    store, runs = InMemoryStateStore(), InMemoryRunsStore()
    runs.append(HERE, entry(3))
    runs.append(HERE, replace(entry(7), number=2, life="later"))
    assert above(store, runs).epoch == 8


@pytest.mark.parametrize(("error", "is_missing"), [(StateNotFoundError, True), (StateUnreachableError, False)])
def test_init_above_every_epoch_needs_an_answer_but_no_state_item(error: type[StateError], is_missing: bool) -> None:
    """A table without a state item gets one. If the table does not answer, nothing is written."""

    class WithoutState(InMemoryStateStore):
        def read(self) -> DRState:
            raise error("the reason")

    store = WithoutState()
    arguments = {"active_region": HERE, "environments": {HERE: "one"}, "lease_s": 60, "by": "t"}
    if is_missing:
        initialize(store, plan_above_every_epoch(store, None, at=ManualClock().now(), **arguments))  # type: ignore[arg-type]
        assert store.state is not None
    else:
        with pytest.raises(StateUnreachableError, match="the reason"):
            plan_above_every_epoch(store, None, at=ManualClock().now(), **arguments)  # type: ignore[arg-type]
        assert store.state is None


@pytest.mark.parametrize("other", [HERE, THERE])
def test_of_two_first_inits_the_second_accepts_only_the_same_active_region(other: str) -> None:
    """Both found no state item. The conditional write decides, and a different role is never replaced."""
    store, at = InMemoryStateStore(), ManualClock().now()
    plan = plan_initialization(
        store, active_region=HERE, environments={HERE: "one", THERE: "two"}, lease_s=60, by="t", at=at
    )
    first = initial(other, lease_s=60, by="first", at=at)
    store.write(first, expected_version=None)
    if other == HERE:
        initialize(store, plan)
        assert set(store.registrations()) == {HERE, THERE}
    else:
        with pytest.raises(StaleStateError):
            initialize(store, plan)
        assert not store.registrations()
    assert store.state == first


def test_the_registry_has_the_region_of_a_named_site_only() -> None:
    """A set whose ids are regions has the items that it always had."""
    store, at = InMemoryStateStore(), ManualClock().now()
    sites = parse_sites("us-east-2=etl,green=etl-v3@us-east-2")

    def plan(environments: Mapping[str, str], active: str | None = None) -> Initialization:
        return plan_initialization(store, active_region=active, environments=environments, lease_s=60, by="t", at=at)

    initialize(store, plan(sites, THERE))
    assert store.registrations() == {
        "green": Registration(region="green", environment="etl-v3", aws_region=THERE),
        THERE: Registration(region=THERE, environment="etl"),
    }
    assert not plan(sites).changes_something
    assert environment_names(store, {}) == sites
    (moved,) = plan(parse_sites("us-east-2=etl,green=etl-v3@us-east-1")).registrations
    assert moved == Registration(region="green", environment="etl-v3", aws_region=HERE)


def test_an_environment_keeps_its_id() -> None:
    """Under a second id it would be two sites: the items of the first one would belong to no environment."""
    store, at = InMemoryStateStore(), ManualClock().now()
    store.register(Registration(region=THERE, environment="etl"))
    with pytest.raises(RefusedError, match=r"etl \(us-east-2\) is registered as us-east-2, not as blue") as caught:
        plan_initialization(
            store,
            active_region="blue",
            environments=parse_sites("blue=etl@us-east-2,green=etl-v3@us-east-2"),
            lease_s=60,
            by="t",
            at=at,
        )
    assert "us-east-2=etl in DR_ENVIRONMENTS" in caught.value.advice


def test_the_first_init_has_to_name_the_active_region_and_a_later_one_does_not() -> None:
    """The stored state names it. Without one, only the user knows which region runs."""
    store, at = InMemoryStateStore(), ManualClock().now()
    with pytest.raises(ConfigError, match="no active region was named"):
        plan_initialization(store, active_region=None, environments={HERE: "one"}, lease_s=60, by="t", at=at)
    store.write(initial(HERE, lease_s=60, by="t", at=at), expected_version=None)
    plan = plan_initialization(store, active_region=None, environments={HERE: "one"}, lease_s=60, by="t", at=at)
    assert not plan.is_new
    with pytest.raises(RefusedError, match=f"{HERE} is active already"):
        plan_initialization(
            store, active_region=THERE, environments={HERE: "one", THERE: "two"}, lease_s=60, by="t", at=at
        )


def test_init_above_every_epoch_replaces_an_item_that_cannot_be_understood() -> None:
    """The write has no condition, because the version of such an item is unknown."""

    class Unreadable(InMemoryStateStore):
        def read(self) -> DRState:
            raise StateError("The item ACTIVE_REGION of table t cannot be understood: version is 'x'.")

    store = Unreadable()
    plan = plan_above_every_epoch(
        store, None, active_region=HERE, environments={HERE: "one"}, lease_s=60, by="t", at=ManualClock().now()
    )
    assert plan.why_unreadable is not None
    initialize(store, plan)
    assert store.state == plan.state


def test_init_above_every_epoch_does_not_replace_what_was_written_meanwhile() -> None:
    """Every other write is conditional on the version."""
    store = InMemoryStateStore(initial(HERE, lease_s=60, by="t", at=ManualClock().now()))
    plan = plan_above_every_epoch(
        store, None, active_region=HERE, environments={HERE: "one"}, lease_s=60, by="t", at=ManualClock().now()
    )
    newer = replace(store.read(), version=2)
    store.write(newer, expected_version=1)
    with pytest.raises(StaleStateError):
        initialize(store, plan)
    assert store.state == newer
