"""A state table with eventual consistency: what the store does with lagging copies, and what the engine refuses."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_mwaa_dr.core import pausing
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.eventual import EventualStateStore
from airflow_provider_mwaa_dr.core.failover import FailoverEngine
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.item_kind import ItemKind
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    FENCE_LOADS,
    IDENTITY_CLAIMS,
    INVENTORIES,
    PAUSED_SETS,
    RECORDS,
    SNAPSHOTS,
    UNPUBLISHED_EVENTS,
    AgentStatus,
    DagSet,
    FailoverOutcome,
    FailoverRecord,
    FenceLoad,
    IdentityClaim,
    Registration,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import (
    FailoverError,
    NotReadyError,
    StaleStateError,
    StateAccessError,
    StateError,
    StateNotFoundError,
    StateUnreachableError,
    UnreadableItemError,
)
from airflow_provider_mwaa_dr.testing import FakeEnvironment, InMemoryGlobalTable, InMemoryStateStore, ManualClock
from tests.unit.core.dr_set import TIMING, A, Agent, B, World

LAG_S = 2.0
AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
FIRST = transitions.initial(A, lease_s=60, by="init", at=AT)
PLAN = Plan(
    id="p-1", source=A, target=B, mode=Mode.GRACEFUL, reason="test", by="ann", owner="engine-1", started_at=AT
)  # fmt: skip
CLAIMED = transitions.claim(FIRST, PLAN, at=AT)
STATUS = AgentStatus(
    region=A, job="1", host="host", at=AT, beat=1, version=1, epoch=0, provider_version="0.1.0", airflow_version="3.3.1"
)


class Set:
    """A table with two copies, and a store that reads and writes both."""

    def __init__(self, mode: Eventual = Eventual.AVAILABLE) -> None:
        self.clock = ManualClock()
        self.table = InMemoryGlobalTable((A, B), self.clock, lambda: LAG_S, registered=(A, B))
        self.mode = mode
        self.copies, self.store = self.caller()
        self.store.write(FIRST, expected_version=None)
        self.clock.advance(LAG_S)

    def caller(self) -> tuple[dict[str, InMemoryStateStore], EventualStateStore]:
        copies = self.table.copies()
        return copies, EventualStateStore(copies, mode=self.mode, clock=self.clock)

    def versions(self) -> dict[str, int | None]:
        return {region: state and state.version for region, state in self.table.states().items()}


def test_the_state_is_written_to_the_copy_of_the_region_being_activated_and_arrives_in_the_other() -> None:
    """A claim is written to the target's copy. It arrives in the source's copy after the lag."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    assert dr_set.versions() == {A: 1, B: 2}
    assert (dr_set.copies[A].calls.count("write"), dr_set.copies[B].calls.count("write")) == (1, 1)
    dr_set.clock.advance(LAG_S)
    assert dr_set.versions() == {A: 2, B: 2}


def test_a_reader_for_the_whole_set_gets_the_newest_of_all_copies_that_answer() -> None:
    """Either copy may be behind. A copy that does not answer is left out."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    copies, reader = dr_set.caller()
    assert reader.read() == CLAIMED
    assert reader.copies() == {A: FIRST, B: CLAIMED}
    copies[B].unreachable = True
    assert reader.read() == FIRST
    assert reader.copies() == {A: FIRST}


def test_a_write_goes_through_although_its_own_copy_is_behind() -> None:
    """The newest version counts, in whichever copy it is."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    _, store = dr_set.caller()
    back = transitions.cancel(CLAIMED, plan_id="p-2", by="ann", owner="engine-2", reason="no", at=AT)
    store.write(back, expected_version=2)
    assert dr_set.table.states() == {A: back, B: CLAIMED}
    dr_set.clock.advance(LAG_S)
    assert dr_set.table.states() == {A: back, B: back}


def test_a_writer_that_missed_a_newer_version_gets_the_newer_state_in_the_error() -> None:
    """It is not enough that the condition of the write holds in one copy."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    other = transitions.claim(FIRST, replace(PLAN, id="p-2", owner="engine-2"), at=AT)
    with pytest.raises(StaleStateError) as caught:
        dr_set.caller()[1].write(other, expected_version=1)
    assert caught.value.found == CLAIMED


def test_no_other_copy_is_written_when_the_targets_copy_does_not_answer() -> None:
    """If the write went to the source's copy, the newer state of the target's copy would replace it."""
    dr_set = Set()
    dr_set.copies[B].unreachable = True
    with pytest.raises(StateUnreachableError, match="copy of the region that becomes active"):
        dr_set.store.write(CLAIMED, expected_version=1)
    assert dr_set.versions() == {A: 1, B: 1}


def test_the_first_state_is_written_only_after_every_copy_was_read_and_is_empty() -> None:
    """A copy that lags or does not answer may have a state, so the set may not be new."""
    clock = ManualClock()
    table = InMemoryGlobalTable((A, B), clock, lambda: LAG_S)
    copies = table.copies()
    store = EventualStateStore(copies, mode=Eventual.AVAILABLE, clock=clock)
    with pytest.raises(StateNotFoundError):
        store.read()
    copies[B].unreachable = True
    with pytest.raises(StateUnreachableError, match=f"It is unknown whether .*: {B}"):
        store.write(FIRST, expected_version=None)
    with pytest.raises(StateUnreachableError, match=f"It is unknown whether .*: {B}"):
        store.read()
    copies[B].unreachable = False
    store.write(FIRST, expected_version=None)
    with pytest.raises(StaleStateError):
        store.write(transitions.initial(B, lease_s=60, by="init", at=AT), expected_version=None)


def test_a_read_of_contradicting_copies_fails_until_replication_has_resolved_them() -> None:
    """Two callers, each with one copy out of reach, wrote the same version. After the lag, the last writer wins."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    dr_set.clock.advance(LAG_S)
    (first, one), (second, other) = dr_set.caller(), dr_set.caller()
    second[B].unreachable = True
    one.write(transitions.beat(CLAIMED, at=AT), expected_version=2)
    back = transitions.cancel(CLAIMED, plan_id="p-2", by="bob", owner="engine-2", reason="no", at=AT)
    other.write(back, expected_version=2)
    for _ in range(2):
        with pytest.raises(StateUnreachableError, match="contradict"):
            one.read()
    assert not first[A].unreachable
    dr_set.clock.advance(LAG_S)
    assert one.read() == back
    assert dr_set.table.states() == {A: back, B: back}


@pytest.mark.parametrize("mode", Eventual)
def test_what_makes_a_view_fresh(mode: Eventual) -> None:
    """
    In mode `available`, the region's own copy is enough. In mode `safe`, the newest of all copies, and all must answer.
    """
    dr_set = Set(mode)
    copies, region = dr_set.caller()
    dr_set.store.write(CLAIMED, expected_version=1)
    assert region.observe(A).state == (FIRST if mode is Eventual.AVAILABLE else CLAIMED)
    copies[B].unreachable = True
    if mode is Eventual.AVAILABLE:
        assert region.observe(A).state == FIRST
    else:
        with pytest.raises(StateUnreachableError, match=rf"Not every copy .* {B}: .* unreachable is set"):
            region.observe(A)


def test_a_region_whose_own_copy_does_not_answer_does_not_reconcile_again() -> None:
    """The other copy may not have its reconciled epoch yet. To reconcile again would close its open runs."""
    dr_set = Set()
    copies, region = dr_set.caller()
    region.put_agent(replace(STATUS, reconciled_epoch=0))
    assert region.observe(A).reconciled_epoch == 0
    copies[A].unreachable = True
    assert dr_set.table.copies()[B].observe(A).reconciled_epoch is None
    assert region.observe(A).reconciled_epoch == 0


def test_a_newer_epoch_is_restored_after_a_writer_that_did_not_know_it_won() -> None:
    """Only the region that became active remembers the epoch. It writes nothing while it cannot read every copy."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    dr_set.clock.advance(LAG_S)
    dr_set.table.cut.add(A)
    dr_set.clock.advance(1)
    (region_b, b), (_, a) = dr_set.caller(), dr_set.caller()
    region_b[A].unreachable = True
    active = transitions.promote(transitions.turn_forced(CLAIMED, at=AT), at=AT)
    b.write(active, expected_version=2)
    assert b.observe(B).state == active
    # A caller that cannot read that copy cancels the plan, which gives the role back to the source.
    blind = dr_set.table.copies()
    blind[B].unreachable = True
    back = transitions.cancel(CLAIMED, plan_id="p-2", by="bob", owner="engine-2", reason="no", at=AT)
    EventualStateStore(blind, mode=dr_set.mode, clock=dr_set.clock).write(back, expected_version=2)
    dr_set.table.cut.clear()
    dr_set.clock.advance(2 * LAG_S)
    assert dr_set.table.states() == {A: back, B: back}

    b.observe(B)
    assert dr_set.table.states() == {A: back, B: back}, "a copy was not read"
    a.observe(A)
    region_b[A].unreachable = False
    b.observe(B)
    dr_set.clock.advance(LAG_S)
    assert dr_set.table.states() == {A: active, B: active}
    assert a.observe(A).state == active


def test_an_agent_without_the_right_to_write_back_reports_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """The execution role needs an additional policy. Without it, the agent says what follows, and continues."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    active = transitions.promote(transitions.turn_forced(CLAIMED, at=AT), at=AT)
    dr_set.store.write(active, expected_version=2)
    dr_set.clock.advance(LAG_S)
    copies, agent = dr_set.caller()
    assert agent.observe(B).state == active
    for copy in dr_set.table.copies().values():
        copy.overwrite(CLAIMED)
    copies[B].read_only = True
    for _ in range(3):
        assert agent.observe(B).state == CLAIMED
    reports = [text for text in caplog.messages if "may not write its state again" in text]
    assert len(reports) == 1
    assert "--agents-may-write-back" in reports[0]
    assert dr_set.table.states() == {A: CLAIMED, B: CLAIMED}


def test_the_items_of_a_region_are_written_to_its_own_copy() -> None:
    """In that copy, no other writer of the same item can overtake the write."""
    dr_set = Set()
    copies, store = dr_set.caller()
    store.register(Registration(region=B, environment="b"))
    store.put_agent(replace(STATUS, region=B))
    store.put(FENCE_LOADS, FenceLoad(region=B, at=AT))
    assert "register" not in copies[A].calls
    assert [status.region for status in store.agents(B)] == [B]
    assert store.get(FENCE_LOADS, B) == FenceLoad(region=B, at=AT)
    assert dict(store.registrations()) == {B: Registration(region=B, environment="b")}
    store.forget_agent(B, "1")
    assert not store.agents(B)


def test_a_record_that_is_completed_in_one_copy_is_not_aborted_by_a_reader_of_another() -> None:
    """The next failover closes the records of abandoned plans. A copy that lags may show a completed plan as open."""
    dr_set = Set()
    record = FailoverRecord.of(PLAN, epoch=1)
    dr_set.store.write(CLAIMED, expected_version=1)
    dr_set.store.put(RECORDS, record)
    dr_set.clock.advance(LAG_S)
    dr_set.store.put(RECORDS, replace(record, outcome=FailoverOutcome.COMPLETED))
    _, other = dr_set.caller()
    other.put(RECORDS, replace(record, outcome=FailoverOutcome.ABORTED))
    dr_set.clock.advance(LAG_S)
    assert [each.outcome for each in other.find_all(RECORDS)] == ["completed"]
    assert other.get(RECORDS, "p-1") == replace(record, outcome=FailoverOutcome.COMPLETED)


def test_a_standby_that_reads_an_older_state_writes_nothing() -> None:
    """Only the region that the newer state makes active writes it again."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    copies, store = dr_set.caller()
    assert store.observe(B).state == CLAIMED
    copies[B].overwrite(FIRST)
    assert store.observe(B).state == FIRST
    assert (copies[A].calls, copies[B].calls) == ([], ["observe", "write", "observe"]), "the write is the test's"


def test_a_writer_that_loses_the_race_in_the_copy_gets_the_winners_state() -> None:
    """Another caller writes between this caller's read of all copies and its write."""
    dr_set = Set()
    copies, store = dr_set.caller()
    winner = transitions.claim(FIRST, replace(PLAN, id="p-2", owner="engine-2"), at=AT)
    copies[B].before_write = lambda _: dr_set.table.copies()[B].write(winner, expected_version=1)
    with pytest.raises(StaleStateError) as caught:
        store.write(CLAIMED, expected_version=1)
    assert (caught.value.expected, caught.value.found) == (1, winner)


def test_a_state_above_every_epoch_replaces_the_copy_of_its_active_region_and_spreads() -> None:
    """It has no condition, because the state that it replaces cannot be read."""
    dr_set = Set()
    above = transitions.initial(B, lease_s=60, by="init", at=AT, epoch=7, version=9)
    dr_set.store.overwrite(above)
    assert dr_set.versions() == {A: 1, B: 9}
    dr_set.clock.advance(LAG_S)
    assert dr_set.table.states() == {A: above, B: above}


def test_what_users_and_agents_store_for_a_region_goes_to_its_own_copy() -> None:
    """Readers find it in that copy before it is replicated, whichever copy is nearest to them."""
    dr_set = Set()
    copies, store = dr_set.caller()
    event = Unpublished(
        region=B, id="u-1", at=AT, epoch=1, begun_epoch=0, why="the ledger refused", first_id=1, unread=("A",)
    )
    store.put_regions(B, (A, B, "eu-west-1"))
    store.put_dispute(B, ("one", "two"))
    store.put(UNPUBLISHED_EVENTS, event)
    store.put(INVENTORIES, Inventory(region=B, taken_at=AT, public_key="key of B"))
    assert store.acknowledge_unpublished(B, "u-1", AT)
    assert not store.acknowledge_unpublished(B, "another", AT)
    assert copies[A].observe(B).disputed == ()
    assert copies[B].observe(B).disputed == ("one", "two")
    assert copies[B].observe(B).registered == {A, B, "eu-west-1"}
    assert store.regions() == {A, B}
    assert store.regions([B]) == {B}
    assert store.inventory_key(B) == "key of B"
    found = store.get(UNPUBLISHED_EVENTS, B)
    assert found is not None
    assert found.acknowledged_at == AT
    store.delete(UNPUBLISHED_EVENTS, found)
    assert store.get(UNPUBLISHED_EVENTS, B) is None


def test_the_newest_recorded_set_of_all_copies_is_found() -> None:
    """Two plans recorded a set in different copies, which have not replicated yet."""
    dr_set = Set()
    assert dr_set.store.newest_wanted_set() is None
    for region, day in ((A, 2), (B, 1)):
        dag_set = DagSet(id=f"p-{day}", region=region, recorded_at=AT + timedelta(days=day), dag_ids=("orders",))
        dr_set.copies[region].put(DAG_SETS, dag_set)
    newest = dr_set.store.newest_wanted_set()
    assert newest is not None
    assert newest.id == "p-2"


def test_if_no_copy_answers_the_error_is_one_that_a_retry_may_resolve() -> None:
    """Missing rights in one copy do not matter as soon as the other copy answers."""
    dr_set = Set()
    for method in ("read", "agents"):
        dr_set.copies[A].failing[method] = StateAccessError("Access denied.")
    assert dr_set.store.read() == FIRST
    assert dr_set.store.agents(A) == []
    dr_set.copies[B].unreachable = True
    for call in (dr_set.store.read, lambda: dr_set.store.agents(A)):
        with pytest.raises(StateUnreachableError, match="unreachable is set"):
            call()


def test_an_item_that_one_copy_cannot_read_is_taken_from_the_other() -> None:
    """The other copy may have an older item that can be read. Both are listed as one unreadable item."""
    dr_set = Set()
    dr_set.store.put(FENCE_LOADS, FenceLoad(region=B, at=AT))
    dr_set.clock.advance(LAG_S)
    copies, store = dr_set.caller()
    key = f"FENCE#{B}"
    copies[B].damage(key)
    assert store.get(FENCE_LOADS, B) == FenceLoad(region=B, at=AT)
    copies[A].damage(key)
    with pytest.raises(UnreadableItemError):
        store.get(FENCE_LOADS, B)
    assert [item.key for item in store.unreadable((A, B))] == [key]


def test_a_region_sees_the_first_state_as_soon_as_it_is_written() -> None:
    """Before that there is none, in either mode, and an agent brings none back."""
    for mode in Eventual:
        clock = ManualClock()
        table = InMemoryGlobalTable((A, B), clock, lambda: LAG_S)
        store = EventualStateStore(table.copies(), mode=mode, clock=clock)
        assert store.observe(A).state is None
        assert table.states() == {A: None, B: None}
        store.write(FIRST, expected_version=None)
        assert store.observe(A).state == FIRST


def test_an_agent_brings_its_state_back_over_an_older_one_but_not_into_an_empty_table() -> None:
    """An empty table may get its items from a backup soon. The agent remembers the newest state meanwhile."""
    dr_set = Set()
    copies, agent = dr_set.caller()
    active = transitions.initial(A, lease_s=60, by="init", at=AT, epoch=2, version=5)
    agent.overwrite(active)
    dr_set.clock.advance(LAG_S)
    assert agent.observe(A).state == active
    for copy in copies.values():
        copy._table.state = None
    assert agent.observe(A).state is None
    assert dr_set.table.states() == {A: None, B: None}
    for copy in copies.values():
        copy.overwrite(FIRST)
    agent.observe(A)
    dr_set.clock.advance(LAG_S)
    assert dr_set.table.states() == {A: active, B: active}


def test_a_reader_that_only_shows_the_state_brings_none_back() -> None:
    """A web server must not write the state, although it has seen the newer one."""
    dr_set = Set()
    copies, agent = dr_set.caller()
    reader = EventualStateStore(copies, mode=Eventual.AVAILABLE, clock=dr_set.clock, only_reads=True)
    active = transitions.initial(A, lease_s=60, by="init", at=AT, epoch=2, version=5)
    agent.overwrite(active)
    dr_set.clock.advance(LAG_S)
    assert reader.observe(A).state == active
    for copy in copies.values():
        copy.overwrite(FIRST)
    assert reader.observe(A).state == FIRST
    assert dr_set.table.states() == {A: FIRST, B: FIRST}


def test_a_set_that_only_the_regions_own_copy_may_have_is_named_if_it_cannot_be_read() -> None:
    """The copy answers, so the error names the item, and does not advise to wait for the copy."""
    dr_set = Set()
    dr_set.copies[A].damage(PAUSED_SETS.key.format(A))
    with pytest.raises(UnreadableItemError, match=f"SNAPSHOT#{A}/paused") as caught:
        dr_set.store.get(PAUSED_SETS, A)
    assert "the only copy" not in str(caught.value)


def test_the_items_of_a_region_are_listed_from_its_own_copy_if_that_answers() -> None:
    """Another copy may not have them yet."""
    dr_set = Set()
    claims = [
        IdentityClaim(region=B, environment="one", aws_region=B, job=job, at=AT, beat=1, problem="not its own name")
        for job in ("1", "2")
    ]
    copies, store = dr_set.caller()
    store.put(IDENTITY_CLAIMS, claims[0])
    dr_set.clock.advance(LAG_S)
    store.put(IDENTITY_CLAIMS, claims[1])
    assert store.find_all(IDENTITY_CLAIMS, B) == claims
    copies[B].unreachable = True
    assert store.find_all(IDENTITY_CLAIMS, B) == claims[:1]


# The engine, in a set whose agents read their own copies.


class EventualWorld(World):
    """Two regions, each with its own connections to the two copies of the table."""

    modes: dict[str, Eventual]
    table: InMemoryGlobalTable
    ways: dict[str, dict[str, InMemoryStateStore]]

    @classmethod
    def of(cls, mode: Eventual, **others: Eventual) -> EventualWorld:
        world = cls.build()
        assert isinstance(world, cls)
        del world.environments["us-west-2"], world.agents["us-west-2"]
        for agent in world.agents.values():
            agent.alive = False
        world.modes = {A: mode, B: others.get("survivor", mode), "engine": mode}
        world.table = InMemoryGlobalTable((A, B), world.clock, lambda: LAG_S, registered=(A, B))
        world.ways = {name: world.table.copies() for name in (A, B, "engine")}
        world.engines_store().write(transitions.initial(A, lease_s=60, by="init", at=AT), expected_version=None)
        world.clock.advance(LAG_S)
        for region in (A, B):
            world.agents[region] = Agent(_SeenFrom(world, region), region)  # type: ignore[arg-type]
            world.agents[region].changes["eventual"] = world.modes[region].value
        world.clock.advance(2 * LAG_S)
        return world

    def engines_store(self) -> EventualStateStore:
        return EventualStateStore(self.ways["engine"], mode=self.modes["engine"], clock=self.clock)

    def engine(self, owner: str = "engine-1", on_step: object = None) -> FailoverEngine:
        return FailoverEngine(
            self.engines_store(),
            self.environments,
            self.clock,
            TIMING,
            owner,
            self.events.append,
            eventual=True,
        )

    def cut_off(self, region: str) -> None:
        """Cut the region off: it reaches only its own copy, and no other machine reaches the region or its copy."""
        self.table.cut.add(region)
        self.environments[region].unreachable = True
        for name, ways in self.ways.items():
            for copy in ways:
                ways[copy].unreachable = ways[copy].unreachable or (name == region) != (copy == region)

    def decides(self, region: str) -> Action:
        view = _SeenFrom(self, region).view
        return decide(
            view, region=region, exempt=False, now=self.clock.monotonic(), lease_s=60, point=DecisionPoint.GATE
        ).action

    @property
    def states(self) -> dict[str, DRState]:
        return {region: state for region, state in self.table.states().items() if state is not None}


class _SeenFrom:
    """The world as the agents of one region see it."""

    def __init__(self, world: EventualWorld, region: str) -> None:
        self.clock, self.environments = world.clock, world.environments
        self._region, self._seen = region, FIRST
        self._store = EventualStateStore(world.ways[region], mode=world.modes[region], clock=world.clock)
        self.store = self

    @property
    def view(self) -> View | None:
        with suppress(StateError):
            observed = self._store.observe(self._region)
            now = self.clock.monotonic()
            view = View.of(observed, now, confirmed_at=now)
            return replace(view, reconciled_epoch=observed.state.epoch if observed.state else None)
        return None

    @property
    def state(self) -> DRState:
        view = self.view
        if view is not None and view.state is not None:
            self._seen = view.state
        return self._seen

    def peer(self) -> _SeenFrom:
        return self

    def put_agent(self, status: AgentStatus) -> None:
        with suppress(StateError):
            self._store.put_agent(status)

    def put(self, kind: ItemKind[DagSet], item: DagSet) -> None:
        with suppress(StateError):
            self._store.put(kind, item)


class Pausing:
    """A region with two DAGs, and two callers with different nearest copies."""

    def __init__(self) -> None:
        self.set = Set()
        self.region = FakeEnvironment(A, dags=["billing", "orders"], clock=self.set.clock)
        (self.ways_in_a, self.in_a), (self.ways_in_b, self.in_b) = (self.caller(A, B), self.caller(B, A))

    def caller(self, *nearest_first: str) -> tuple[dict[str, InMemoryStateStore], EventualStateStore]:
        copies = self.set.table.copies()
        ways = {region: copies[region] for region in nearest_first}
        return ways, EventualStateStore(ways, mode=Eventual.AVAILABLE, clock=self.set.clock)

    def pause(self, store: EventualStateStore) -> None:
        pausing.pause(store, self.region, at=self.set.clock.now())

    def unpause(self, store: EventualStateStore) -> None:
        pausing.unpause(store, self.region, at=self.set.clock.now())


@pytest.mark.parametrize("is_cut", [False, True])
def test_one_caller_unpauses_what_another_paused_whichever_copy_is_nearest(is_cut: bool) -> None:
    """Both callers use the copy of the region, so it does not matter whether the copies have replicated since."""
    world = Pausing()
    if is_cut:
        world.set.table.cut.add(B)
    for pauses, unpauses in ((world.in_a, world.in_b), (world.in_b, world.in_a)):
        world.set.clock.advance(1)
        world.pause(pauses)
        assert world.region.unpaused == set()
        world.unpause(unpauses)
        assert world.region.unpaused == {"billing", "orders"}


@pytest.mark.parametrize("fails", ["get set of paused DAGs", "put set of paused DAGs"])
def test_nothing_is_paused_when_the_regions_own_copy_does_not_keep_the_set(fails: str) -> None:
    """
    A set in another copy would not be found by the next caller. The error is raised before the first DAG is paused.
    """
    world = Pausing()
    if fails == "get set of paused DAGs":
        world.ways_in_b[A].unreachable = True
        with pytest.raises(StateUnreachableError, match=f"cannot be read in the copy of the state table in {A}"):
            world.pause(world.in_b)
    else:
        preview = pausing.preview_pause(world.in_b, world.region)
        world.ways_in_b[A].unreachable = True
        with pytest.raises(StateUnreachableError, match=f"cannot be written in the copy of the state table in {A}"):
            pausing.pause(world.in_b, world.region, at=world.set.clock.now(), preview=preview)
    assert world.region.unpaused == {"billing", "orders"}
    assert world.set.table.copies()[B].get(PAUSED_SETS, A) is None


def test_a_set_that_the_first_version_wrote_to_another_copy_is_unpaused() -> None:
    """That version wrote to the nearest copy. An older set in the region's own copy does not hide it."""
    world = Pausing()
    world.pause(world.in_a)
    world.unpause(world.in_a)
    world.set.table.cut.add(B)
    world.set.clock.advance(1)
    name, now = f"{A}/paused", world.set.clock.now()
    world.ways_in_b[B].put(SNAPSHOTS, DagSet(id=name, region=name, recorded_at=now, dag_ids=("orders",)))
    world.region.flip("orders", is_paused=True)
    world.set.clock.advance(1)
    world.unpause(world.in_a)
    assert world.region.unpaused == {"billing", "orders"}


@pytest.mark.parametrize("mode", Eventual)
def test_a_graceful_failover_and_failback_with_lagging_copies(mode: Eventual) -> None:
    """Every step waits for the writes that it needs to arrive. In the end both copies are equal."""
    world = EventualWorld.of(mode)
    world.fail_over(B)
    world.clock.advance(LAG_S)
    assert {state.active_region for state in world.states.values()} == {B}
    assert (world.decides(A), world.decides(B)) == (Action.SKIP, Action.RUN)
    record = world.fail_over(A, owner="engine-2")
    world.clock.advance(LAG_S)
    assert record.mode is Mode.GRACEFUL
    assert {(state.active_region, state.epoch, state.phase) for state in world.states.values()} == {
        (A, 2, Phase.STEADY)
    }
    assert [each.outcome for each in world.engines_store().find_all(RECORDS)] == ["completed", "completed"]


def test_available_a_cut_off_source_is_left_only_with_even_if_not_ready() -> None:
    """
    The source continues with its own copy, and no lease stops it. After the link is back, it learns which region is
    active.
    """
    world = EventualWorld.of(Eventual.AVAILABLE)
    world.cut_off(A)
    with pytest.raises(NotReadyError, match="continues with its own copy") as caught:
        world.fail_over(B, mode=Mode.FORCED)
    assert "--even-if-not-ready" in caught.value.advice
    assert {state.version for state in world.states.values()} == {1}
    record = world.fail_over(B, mode=Mode.FORCED, even_if_not_ready=True)
    assert any("may not know" in step.detail for step in record.steps)
    assert (world.decides(A), world.decides(B)) == (Action.RUN, Action.RUN)
    world.table.cut.clear()
    world.clock.advance(2 * LAG_S)
    assert (world.decides(A), world.decides(B)) == (Action.SKIP, Action.RUN)


def test_available_an_auto_failover_does_not_turn_forced_against_an_unreachable_source() -> None:
    """The source is cut off during the failover and may continue. Only a user can know that it is down."""
    world = EventualWorld.of(Eventual.AVAILABLE)
    world.cut_off(A)
    with pytest.raises(FailoverError, match="--even-if-not-ready"):
        world.fail_over(B)
    assert world.states[B].plan is not None
    with pytest.raises(NotReadyError, match="cannot turn forced"):
        world.fail_over(B, owner="engine-2", mode=Mode.FORCED)
    record = world.fail_over(B, owner="engine-3", mode=Mode.FORCED, even_if_not_ready=True)
    assert record.outcome == "completed"


def test_safe_a_cut_off_source_holds_and_is_left_after_the_lease() -> None:
    """
    The source cannot read the other copy, so its view becomes older than the lease. `--even-if-not-ready` is not
    needed.
    """
    world = EventualWorld.of(Eventual.SAFE, survivor=Eventual.AVAILABLE)
    world.cut_off(A)
    assert world.decides(A) is Action.HOLD
    began = world.clock.monotonic()
    world.fail_over(B, mode=Mode.FORCED)
    assert world.clock.monotonic() - began >= 66
    assert (world.decides(A), world.decides(B)) == (Action.HOLD, Action.RUN)


def test_safe_a_target_that_could_not_run_either_is_refused() -> None:
    """
    The target needs every copy, too, also that of the lost region. After a promotion, nothing would run in any region.
    """
    world = EventualWorld.of(Eventual.SAFE)
    world.cut_off(A)
    with pytest.raises(NotReadyError, match=f"{B} runs only while every copy .* the copy in {A} cannot"):
        world.fail_over(B, mode=Mode.FORCED)
    assert world.decides(B) is Action.HOLD


def test_available_the_lease_counts_from_when_the_claim_arrives_in_the_sources_copy() -> None:
    """Before that moment, the source can have a fresh view that does not show the claim."""
    world = EventualWorld.of(Eventual.AVAILABLE)
    world.environments[A].unreachable = True
    world.agents[A].alive = False
    world.table.lag_s = lambda: 30.0
    began = world.clock.monotonic()
    world.fail_over(B, mode=Mode.FORCED)
    assert world.clock.monotonic() - began >= 30 + 66


def test_available_a_claim_that_does_not_arrive_stops_the_failover_without_even_if_not_ready() -> None:
    """The copies do not replicate. The caller reads both, and so sees that the source does not know of the claim."""
    world = EventualWorld.of(Eventual.AVAILABLE)
    world.environments[A].unreachable = True
    world.table.cut.add(A)
    with pytest.raises(FailoverError, match="did not arrive in time"):
        world.fail_over(B, mode=Mode.FORCED)
    assert world.states[A].active_region == A
    assert world.states[B].phase is Phase.DRAINING
    record = world.fail_over(B, owner="engine-2", mode=Mode.FORCED, even_if_not_ready=True)
    assert record.outcome == "completed"


def test_a_caller_that_cannot_see_whether_a_plan_was_promoted_does_not_cancel_it() -> None:
    """The target may already be active according to a copy that this caller cannot read."""
    world = EventualWorld.of(Eventual.AVAILABLE)
    store = world.engines_store()
    claimed = transitions.claim(store.read(), PLAN, at=AT)
    store.write(claimed, expected_version=1)
    world.clock.advance(LAG_S)
    world.ways["engine"][B].unreachable = True
    with pytest.raises(NotReadyError, match=f"may show that {B} is active"):
        world.fail_over(A, owner="engine-2")
    assert world.states[A] == claimed
    world.ways["engine"][B].unreachable = False
    world.clock.advance(timedelta(seconds=10).total_seconds())
    record = world.fail_over(A, owner="engine-2")
    assert record.target == A


def test_available_an_acknowledgement_replaces_the_arrival_of_the_claim_in_a_copy_that_cannot_be_read() -> None:
    """The engine cannot read the source's copy. The source's heartbeats, in the target's copy, show that it arrived."""
    world = EventualWorld.of(Eventual.AVAILABLE)
    world.ways["engine"][A].unreachable = True
    began = world.clock.monotonic()
    record = world.fail_over(B, mode=Mode.GRACEFUL)
    assert record.outcome == "completed"
    assert world.clock.monotonic() - began < 60, "no lease had to expire"
    assert "acknowledged by every scheduler" in next(step.detail for step in record.steps if step.name == "drain")
    world.clock.advance(LAG_S)
    assert (world.decides(A), world.decides(B)) == (Action.SKIP, Action.RUN)
