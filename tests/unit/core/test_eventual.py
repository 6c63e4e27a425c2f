"""A state table whose copies follow each other later: what one store made of them keeps, and what an engine refuses."""

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
from airflow_provider_mwaa_dr.core.ports import AgentStatus, DagSet, FailoverRecord, Registration
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import (
    FailoverError,
    NotReadyError,
    StaleStateError,
    StateError,
    StateNotFoundError,
    StateUnreachableError,
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
    """A table with two copies, and a way to both of them."""

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
    """A claim goes to the target's copy, and the source's has it a moment later."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    assert dr_set.versions() == {A: 1, B: 2}
    assert (dr_set.copies[A].calls.count("write"), dr_set.copies[B].calls.count("write")) == (1, 1)
    dr_set.clock.advance(LAG_S)
    assert dr_set.versions() == {A: 2, B: 2}


def test_a_reader_for_the_whole_set_gets_the_newest_of_all_copies_that_answer() -> None:
    """Whichever copy is behind; one that does not answer is left out, and the other one's word counts."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    copies, reader = dr_set.caller()
    assert reader.read() == CLAIMED
    assert reader.copies() == {A: FIRST, B: CLAIMED}
    copies[B].unreachable = True
    assert reader.read() == FIRST
    assert reader.copies() == {A: FIRST}


def test_a_write_goes_through_although_its_own_copy_is_behind() -> None:
    """The newest version decides, in whichever copy it was found."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    _, store = dr_set.caller()
    back = transitions.cancel(CLAIMED, plan_id="p-2", by="ann", owner="engine-2", reason="no", at=AT)
    store.write(back, expected_version=2)
    assert dr_set.table.states() == {A: back, B: CLAIMED}
    dr_set.clock.advance(LAG_S)
    assert dr_set.table.states() == {A: back, B: back}


def test_a_writer_that_read_less_than_another_copy_knows_is_handed_that() -> None:
    """A condition that holds in one copy is not enough."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    other = transitions.claim(FIRST, replace(PLAN, id="p-2", owner="engine-2"), at=AT)
    with pytest.raises(StaleStateError) as caught:
        dr_set.caller()[1].write(other, expected_version=1)
    assert caught.value.found == CLAIMED


def test_nothing_is_written_anywhere_else_when_the_copy_it_belongs_into_does_not_answer() -> None:
    """Written to the source's copy instead, it would be overtaken by what the target's knows."""
    dr_set = Set()
    dr_set.copies[B].unreachable = True
    with pytest.raises(StateUnreachableError, match="copy of the region being activated"):
        dr_set.store.write(CLAIMED, expected_version=1)
    assert dr_set.versions() == {A: 1, B: 1}


def test_the_first_state_is_written_only_once_every_copy_was_seen_to_be_empty() -> None:
    """A copy that looks empty because it is behind, or is not asked, is not a new set."""
    clock = ManualClock()
    table = InMemoryGlobalTable((A, B), clock, lambda: LAG_S)
    copies = table.copies()
    store = EventualStateStore(copies, mode=Eventual.AVAILABLE, clock=clock)
    with pytest.raises(StateNotFoundError):
        store.read()
    copies[B].unreachable = True
    with pytest.raises(StateUnreachableError, match=f"is not known: {B}"):
        store.write(FIRST, expected_version=None)
    with pytest.raises(StateUnreachableError, match=f"is not known: {B}"):
        store.read()
    copies[B].unreachable = False
    store.write(FIRST, expected_version=None)
    with pytest.raises(StaleStateError):
        store.write(transitions.initial(B, lease_s=60, by="init", at=AT), expected_version=None)


def test_copies_that_contradict_each_other_are_no_answer_until_one_has_won() -> None:
    """Two callers who could not see each other's copy wrote the same version; the last writer wins, a moment later."""
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
    """Available: the region's own copy, whatever the other one knows. Safe: all of them, the newest, or nothing."""
    dr_set = Set(mode)
    copies, region = dr_set.caller()
    dr_set.store.write(CLAIMED, expected_version=1)
    assert region.observe(A).state == (FIRST if mode is Eventual.AVAILABLE else CLAIMED)
    copies[B].unreachable = True
    if mode is Eventual.AVAILABLE:
        assert region.observe(A).state == FIRST
    else:
        with pytest.raises(StateUnreachableError, match=rf"Not every copy .* {B}: .* unreachable is switched on"):
            region.observe(A)


def test_a_region_whose_own_copy_is_gone_does_not_settle_its_runs_a_second_time() -> None:
    """The other copy may not have heard yet which epoch its open runs belong to; to settle again is to close them."""
    dr_set = Set()
    copies, region = dr_set.caller()
    region.put_agent(replace(STATUS, reconciled_epoch=0))
    assert region.observe(A).reconciled_epoch == 0
    copies[A].unreachable = True
    assert dr_set.table.copies()[B].observe(A).reconciled_epoch is None
    assert region.observe(A).reconciled_epoch == 0


def test_the_newer_epoch_comes_back_where_the_last_writer_did_not_know_of_it() -> None:
    """The region that it made active remembers; nobody else does, and nothing is written while a copy is unread."""
    dr_set = Set()
    dr_set.store.write(CLAIMED, expected_version=1)
    dr_set.clock.advance(LAG_S)
    dr_set.table.cut.add(A)
    dr_set.clock.advance(1)
    (there, b), (_, a) = dr_set.caller(), dr_set.caller()
    there[A].unreachable = True
    active = transitions.promote(transitions.turn_forced(CLAIMED, at=AT), at=AT)
    b.write(active, expected_version=2)
    assert b.observe(B).state == active
    # Somebody on the other side, who cannot see that, gives the role back to where it was.
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
    there[A].unreachable = False
    b.observe(B)
    dr_set.clock.advance(LAG_S)
    assert dr_set.table.states() == {A: active, B: active}
    assert a.observe(A).state == active


def test_what_belongs_to_a_region_is_written_into_its_own_copy() -> None:
    """There, no other writer of the same item can overtake it on the way."""
    dr_set = Set()
    copies, store = dr_set.caller()
    store.register(Registration(region=B, environment="b"))
    store.put_agent(replace(STATUS, region=B))
    store.put_fence(B, AT)
    assert "register" not in copies[A].calls
    assert [status.region for status in store.agents(B)] == [B]
    assert store.fence(B) == AT
    assert dict(store.registrations()) == {B: Registration(region=B, environment="b")}
    store.forget_agent(B, "1")
    assert not store.agents(B)


def test_a_record_that_one_copy_knows_to_be_completed_is_not_closed_by_who_reads_another() -> None:
    """The next failover closes what was given up; what it has not heard of yet may be done."""
    dr_set = Set()
    record = FailoverRecord.of(PLAN, epoch=1)
    dr_set.store.write(CLAIMED, expected_version=1)
    dr_set.store.put_record(record)
    dr_set.clock.advance(LAG_S)
    dr_set.store.put_record(replace(record, outcome="completed"))
    _, other = dr_set.caller()
    other.put_record(replace(record, outcome="aborted"))
    dr_set.clock.advance(LAG_S)
    assert [each.outcome for each in other.records()] == ["completed"]
    assert other.get_record("p-1") == replace(record, outcome="completed")


# The engine, in a set with agents that read through copies of their own.


class EventualWorld(World):
    """Two regions, each with its own ways to the two copies of the table."""

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
        """The region reaches its own copy, and nothing else; nobody else reaches anything of it."""
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
    """The world as the agents of one region have it."""

    def __init__(self, world: EventualWorld, region: str) -> None:
        self.clock, self.environments = world.clock, world.environments
        self._region, self._seen = region, FIRST
        self._store = EventualStateStore(world.ways[region], mode=world.modes[region], clock=world.clock)
        self.store = self

    @property
    def view(self) -> View | None:
        with suppress(StateError):
            observed = self._store.observe(self._region)
            view = View.of(observed, self.clock.monotonic())
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

    def put_snapshot(self, dag_set: object) -> None:
        with suppress(StateError):
            self._store.put_snapshot(dag_set)  # type: ignore[arg-type]


class Pausing:
    """Two callers, each of whom has another copy for the nearest, and a region with two DAGs."""

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
def test_what_one_caller_paused_another_one_gives_back_whichever_copy_is_nearest_to_them(is_cut: bool) -> None:
    """Both use the copy of the region, so it makes no difference whether the copies have exchanged anything since."""
    world = Pausing()
    if is_cut:
        world.set.table.cut.add(B)
    for pauses, unpauses in ((world.in_a, world.in_b), (world.in_b, world.in_a)):
        world.set.clock.advance(1)
        world.pause(pauses)
        assert world.region.unpaused == set()
        world.unpause(unpauses)
        assert world.region.unpaused == {"billing", "orders"}


@pytest.mark.parametrize("fails", ["get_paused", "put_paused"])
def test_nothing_is_paused_when_the_regions_own_copy_does_not_keep_the_set(fails: str) -> None:
    """A set in another copy would be missed by the next caller; the error comes before the first DAG."""
    world = Pausing()
    if fails == "get_paused":
        world.ways_in_b[A].unreachable = True
        with pytest.raises(StateUnreachableError, match=f"copy of the state table in {A}, and cannot be read there"):
            world.pause(world.in_b)
    else:
        preview = pausing.preview_pause(world.in_b, world.region)
        world.ways_in_b[A].unreachable = True
        with pytest.raises(StateUnreachableError, match=f"copy of the state table in {A}, and cannot be written there"):
            pausing.pause(world.in_b, world.region, at=world.set.clock.now(), preview=preview)
    assert world.region.unpaused == {"billing", "orders"}
    assert world.set.table.copies()[B].get_paused(A) is None


def test_a_set_that_the_first_version_wrote_into_another_copy_is_given_back() -> None:
    """That version took the copy that was nearest; an older set in the region's own copy does not hide it."""
    world = Pausing()
    world.pause(world.in_a)
    world.unpause(world.in_a)
    world.set.table.cut.add(B)
    world.set.clock.advance(1)
    name, now = f"{A}/paused", world.set.clock.now()
    world.ways_in_b[B].put_snapshot(DagSet(id=name, region=name, recorded_at=now, dag_ids=("orders",)))
    world.region.flip("orders", is_paused=True)
    world.set.clock.advance(1)
    world.unpause(world.in_a)
    assert world.region.unpaused == {"billing", "orders"}


@pytest.mark.parametrize("mode", Eventual)
def test_a_graceful_failover_there_and_back_over_copies_with_a_lag(mode: Eventual) -> None:
    """Every step waits for what has to arrive; in the end both copies say the same."""
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
    assert [each.outcome for each in world.engines_store().records()] == ["completed", "completed"]


def test_available_a_cut_off_source_is_left_only_by_a_caller_who_insists() -> None:
    """It goes on with its own copy, and no lease ends that; once the link is back, it learns who is active."""
    world = EventualWorld.of(Eventual.AVAILABLE)
    world.cut_off(A)
    with pytest.raises(NotReadyError, match="runs on with its own copy") as caught:
        world.fail_over(B, mode=Mode.FORCED)
    assert "--even-if-not-ready" in caught.value.advice
    assert {state.version for state in world.states.values()} == {1}
    record = world.fail_over(B, mode=Mode.FORCED, even_if_not_ready=True)
    assert any("may not know" in step.detail for step in record.steps)
    assert (world.decides(A), world.decides(B)) == (Action.RUN, Action.RUN)
    world.table.cut.clear()
    world.clock.advance(2 * LAG_S)
    assert (world.decides(A), world.decides(B)) == (Action.SKIP, Action.RUN)


def test_available_an_auto_failover_does_not_turn_forced_against_a_source_that_cannot_be_seen() -> None:
    """Cut off half-way, the source may go on; only a person can know that it is down."""
    world = EventualWorld.of(Eventual.AVAILABLE)
    world.cut_off(A)
    with pytest.raises(FailoverError, match="--even-if-not-ready"):
        world.fail_over(B)
    assert world.states[B].plan is not None
    with pytest.raises(NotReadyError, match="cannot turn forced"):
        world.fail_over(B, owner="engine-2", mode=Mode.FORCED)
    record = world.fail_over(B, owner="engine-3", mode=Mode.FORCED, even_if_not_ready=True)
    assert record.outcome == "completed"


def test_safe_a_cut_off_source_holds_and_is_left_without_insisting() -> None:
    """It cannot read the other copy, so its view grows old; the lease is enough."""
    world = EventualWorld.of(Eventual.SAFE, survivor=Eventual.AVAILABLE)
    world.cut_off(A)
    assert world.decides(A) is Action.HOLD
    began = world.clock.monotonic()
    world.fail_over(B, mode=Mode.FORCED)
    assert world.clock.monotonic() - began >= 66
    assert (world.decides(A), world.decides(B)) == (Action.HOLD, Action.RUN)


def test_safe_a_target_that_could_not_run_either_is_refused() -> None:
    """It, too, reads all copies, and the lost region's is one of them: promoted, nothing would run anywhere."""
    world = EventualWorld.of(Eventual.SAFE)
    world.cut_off(A)
    with pytest.raises(NotReadyError, match=f"{B} runs only while every copy .* that of {A} cannot"):
        world.fail_over(B, mode=Mode.FORCED)
    assert world.decides(B) is Action.HOLD


def test_available_the_lease_counts_from_the_moment_the_claim_is_in_the_sources_copy() -> None:
    """Before that, a view that is fresh may still show nothing of it."""
    world = EventualWorld.of(Eventual.AVAILABLE)
    world.environments[A].unreachable = True
    world.agents[A].alive = False
    world.table.lag_s = lambda: 30.0
    began = world.clock.monotonic()
    world.fail_over(B, mode=Mode.FORCED)
    assert world.clock.monotonic() - began >= 30 + 66


def test_available_a_claim_that_does_not_arrive_stops_the_failover_unless_the_caller_insists() -> None:
    """The copies exchange nothing, and this caller reads both: the source can be seen not to know."""
    world = EventualWorld.of(Eventual.AVAILABLE)
    world.environments[A].unreachable = True
    world.table.cut.add(A)
    with pytest.raises(FailoverError, match="has not been seen to arrive"):
        world.fail_over(B, mode=Mode.FORCED)
    assert world.states[A].active_region == A
    assert world.states[B].phase is Phase.DRAINING
    record = world.fail_over(B, owner="engine-2", mode=Mode.FORCED, even_if_not_ready=True)
    assert record.outcome == "completed"


def test_a_plan_is_not_cancelled_by_who_cannot_see_whether_it_was_promoted() -> None:
    """Its target may be active, by a copy that this caller cannot read."""
    world = EventualWorld.of(Eventual.AVAILABLE)
    store = world.engines_store()
    claimed = transitions.claim(store.read(), PLAN, at=AT)
    store.write(claimed, expected_version=1)
    world.clock.advance(LAG_S)
    world.ways["engine"][B].unreachable = True
    with pytest.raises(NotReadyError, match=f"{B} may be active there by now"):
        world.fail_over(A, owner="engine-2")
    assert world.states[A] == claimed
    world.ways["engine"][B].unreachable = False
    world.clock.advance(timedelta(seconds=10).total_seconds())
    record = world.fail_over(A, owner="engine-2")
    assert record.target == A
