"""
A state table with two lagging copies, with engines, agents, network cuts and lost regions. A seed decides what happens.

The provider's own engine, gate, finisher and eventual store run on a table in memory with a lag. The test checks which
region's gate lets runs start, and under which epoch. tests/simulation/world.py simulates ledger and runs.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from airflow_provider_mwaa_dr.agent.hold_alarm import HoldAlarm
from airflow_provider_mwaa_dr.agent.plan_finisher import PlanFinisher
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.eventual import EventualStateStore
from airflow_provider_mwaa_dr.core.failover import FailoverEngine, FailoverRequest
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide
from airflow_provider_mwaa_dr.core.ports import SNAPSHOTS, AgentStatus, DagSet, Environment, FailoverRecord
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase
from airflow_provider_mwaa_dr.exceptions import (
    AlreadyActiveError,
    MwaaUnreachableError,
    StateError,
    StateUnreachableError,
)
from airflow_provider_mwaa_dr.testing import FakeEnvironment, InMemoryGlobalTable, ManualClock
from tests.histories import LEASE_S, TIMING, A, B, Caller, RegionDags, Scheduler

CONTROL = "control"
DAGS = ("dag_0", "dag_1", "dag_2")
WANTED = frozenset(DAGS) - {"dag_2"}
RESEND_S = 1.0
"""A write that a cut delayed is tried again within this time (InMemoryGlobalTable)."""


class Connection:
    """The table as a process in *place* reaches it."""

    def __init__(self, world: EventualWorld, place: str) -> None:
        self._world, self._place = world, place
        self._copies = world.table.copies()
        near_first = dict(sorted(self._copies.items(), key=lambda item: item[0] != place))
        self._store = EventualStateStore(near_first, mode=world.mode, clock=world.clock)
        self._links = -1
        """The number of changes of the world's links that the copies show."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = self.__dict__[name] = partial(self.call, name)
        return call

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._links != self._world.links:
            self._links = self._world.links
            for region, copy in self._copies.items():
                copy.unreachable = not self._world.reaches(self._place, region)
        return getattr(self._store, name)(*args, **kwargs)


class CallersConnection(Connection):
    """The same for an engine, with a possible fault before and after each call."""

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        world = self._world
        world.scheduler.call_point()
        answer = super().call(name, *args, **kwargs)
        if name == "write":
            world.written(world.scheduler.current, args[0])
            if world.scheduler.current.faulty and world.rng.random() < 0.03:
                raise StateUnreachableError("The answer of a write was lost.")
        world.scheduler.call_point()
        return answer


class CallersEnvironment:
    """An environment as an engine in *place* reaches it."""

    def __init__(self, world: EventualWorld, place: str, region: Region) -> None:
        self._world, self._place, self._region = world, place, region
        self.region = self.name = region.name

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._world.scheduler.call_point()
            if not (self._region.is_up and self._world.reaches(self._place, self.region)):
                raise MwaaUnreachableError(f"{self.region} did not answer.")
            return getattr(self._region.environment, name)(*args, **kwargs)

        return call


class CallersClock:
    """The clock of an engine: while the engine sleeps, other callers move."""

    def __init__(self, world: EventualWorld) -> None:
        self._world = world
        self.monotonic, self.now = world.clock.monotonic, world.clock.now

    def sleep(self, seconds: float) -> None:
        self._world.scheduler.hand_over(seconds)


class Region:
    """Two schedulers of a region, each with its own view. They take a turn once a second."""

    def __init__(self, world: EventualWorld, name: str) -> None:
        self.world, self.name = world, name
        self.environment = FakeEnvironment(name, clock=world.clock)
        for dag_id in DAGS:
            self.environment.add_dag(dag_id, is_paused=name != A or dag_id not in WANTED)
        self.is_up = True
        self.beat = 0
        self.restart()

    def restart(self) -> None:
        """Start the schedulers again, with nothing remembered."""
        self.is_up = True
        self.connection = Connection(self.world, self.name)
        self.views: dict[str, View | None] = {"1": None, "2": None}
        self.adopted: int | None = None
        self.finisher = PlanFinisher(
            self.connection,  # type: ignore[arg-type]
            RegionDags(self.environment),
            self.world.clock,
            region=self.name,
            owner=f"agent of {self.name}",
            takeover_s=TIMING.takeover_s,
            alarm=HoldAlarm(self.world.clock),
        )

    def turn(self) -> None:
        if not self.is_up:
            return
        self.beat += 1
        for job in self.views:
            with suppress(StateError):  # the view gets older
                self._read(job)
            view = self.views[job]
            decision = decide(
                view,
                region=self.name,
                exempt=False,
                now=self.world.clock.monotonic(),
                lease_s=LEASE_S,
                point=DecisionPoint.GATE,
            )
            if decision.action is Action.RUN:
                assert view is not None
                assert view.state is not None
                self.world.starts(self.name, view.state.epoch)

    def _read(self, job: str) -> None:
        now = self.world.clock.monotonic()
        observed = self.connection.observe(self.name)
        state: DRState | None = observed.state
        seen = self.views[job].state if self.views[job] is not None else None  # type: ignore[union-attr]
        if state is None or (seen is not None and seen.is_newer_than(state)):
            return  # a view never goes back
        reconciled = observed.reconciled_epoch
        if job == "1":
            reconciled = self._lead(state, reconciled)
        self.views[job] = replace(View.of(observed, now, confirmed_at=now), reconciled_epoch=reconciled)
        self.connection.put_agent(self._status(job, state, reconciled))

    def _lead(self, state: DRState, reconciled: int | None) -> int:
        """Take the turn of the agent of job 1: reconcile, adopt, write the snapshot, and finish an abandoned plan."""
        is_active = state.active_region == self.name
        unpaused = self.environment.unpaused
        if reconciled != state.epoch:
            if not is_active or state.phase is Phase.PROMOTING:
                for dag_id in unpaused:
                    self.environment.flip(dag_id, is_paused=True)
        elif is_active and state.phase is Phase.STEADY:
            self.connection.put(
                SNAPSHOTS,
                DagSet(id=self.name, region=self.name, recorded_at=self.world.clock.now(), dag_ids=tuple(unpaused)),
            )
        elif self.world.agents_finish:
            self.finisher.turn(state)
        self.adopted = state.epoch
        return state.epoch

    def _status(self, job: str, state: DRState, reconciled: int | None) -> AgentStatus:
        return AgentStatus(
            region=self.name,
            job=job,
            host="host",
            at=self.world.clock.now(),
            beat=self.beat,
            version=state.version,
            epoch=state.epoch,
            provider_version="0.1.0",
            airflow_version="3.3.1",
            adopted_epoch=self.adopted if job == "1" else None,
            reconciled_epoch=reconciled if job == "1" else None,
            eventual=self.world.mode.value,
            schedulers=tuple(self.views),
            fence_file_s=1.0,
        )


class EventualWorld:
    """Two regions with a copy of the table each. Callers call from either region, or from a third place."""

    def __init__(self, seed: int, mode: Eventual) -> None:
        self.rng = random.Random(seed)
        self.mode = mode
        self.clock = ManualClock()
        self.scheduler = Scheduler(self.rng, self.clock)
        self.max_lag_s = self.rng.choice([0.5, 2.0, 5.0])
        self.table = InMemoryGlobalTable(
            (A, B), self.clock, lambda: self.rng.uniform(0, self.max_lag_s), registered=(A, B)
        )
        self.table.has_limits = False  # to convert each heartbeat to an item would double the time of a turn
        self.cut: set[str] = set()
        self.lost: set[str] = set()
        self.links = 0
        """How many times a region was cut off, was lost or came back."""
        self.agents_finish = self.rng.random() < 0.5
        self.newest_epoch_started = 0
        self.regions_of_epoch: dict[int, str] = {}
        self.callers_not_waiting: set[str] = set()
        self.places: dict[str, str] = {}
        self.excused: dict[str, float] = {}
        self.alone = 0
        self.trace: list[str] = []
        self.engines = 0
        Connection(self, CONTROL).write(
            transitions.initial(A, lease_s=LEASE_S, by="init", at=self.clock.now()), expected_version=None
        )
        self.clock.advance(self.max_lag_s)
        self.regions = {name: Region(self, name) for name in (A, B)}
        self._tick()
        self.clock.advance(5)

    def _tick(self) -> None:
        self.clock.after(1, self._tick)
        for region in self.regions.values():
            region.turn()

    def note(self, text: str) -> None:
        self.trace.append(f"{self.clock.monotonic():8.1f}  {text}")

    # -- network -------------------------------------------------------------------------------------------------------

    def reaches(self, place: str, region: str) -> bool:
        """Whether a process in *place* reaches *region*. A process reaches its own region unless it is lost."""
        return region not in self.lost and (place == region or not self.cut & {place, region})

    def cut_off(self, region: str) -> None:
        self.note(f"{region} is cut off, with its own copy")
        self.cut.add(region)
        self._links_changed()

    def lose(self, region: str) -> None:
        self.note(f"{region} is lost, with its copy")
        self.lost.add(region)
        self.regions[region].is_up = False
        self._links_changed()

    def heal(self, region: str) -> None:
        if region not in self.cut | self.lost:
            return
        self.note(f"{region} is back")
        if not self.regions[region].is_up:
            self.regions[region].restart()
        self.cut.discard(region)
        self.lost.discard(region)
        self._links_changed()

    def _links_changed(self) -> None:
        """Writes that a cut delayed arrive after all regions are back. Until then, a region without them is excused."""
        now = self.clock.monotonic()
        self.links += 1
        self.table.cut = self.cut | self.lost
        # The region's next read shows it. A view without the write may still be used for a lease.
        until = float("inf") if self.table.cut else now + RESEND_S + self.max_lag_s + 3.0 + LEASE_S
        self.excused |= {name: until for name, end in self.excused.items() if end >= now}

    def call(
        self, target: str, *, place: str = CONTROL, faulty: bool = True, after_s: float = 0.0, **how: Any
    ) -> Caller:
        """Let a caller in *place* request a failover to *target*."""
        self.engines += 1
        name = f"engine-{self.engines}"
        environments: Mapping[str, Environment] = {
            region: CallersEnvironment(self, place, found)  # type: ignore[misc]
            for region, found in self.regions.items()
        }
        request = replace(FailoverRequest(target=target, reason="test", by=name), **how)
        if request.even_if_not_ready:
            self.callers_not_waiting.add(name)
        engine = FailoverEngine(
            CallersConnection(self, place),  # type: ignore[arg-type]
            environments,
            CallersClock(self),
            TIMING,
            name,
            eventual=True,
        )
        caller = Caller(name, lambda: engine.run(request), faulty=faulty, wake_at=self.clock.monotonic() + after_s)
        self.places[name] = place
        return self.scheduler.start(caller)

    # -- rules that must hold at every moment --------------------------------------------------------------------------

    def written(self, caller: Caller, new: DRState) -> None:
        """
        Excuse the regions that a caller with ``even_if_not_ready`` could not reach: it acts without knowing their
        state.
        """
        plan = new.plan
        self.note(
            f"{caller.name}: {new.active_region} {new.phase.value}, epoch {new.epoch}, version {new.version}"
            + (f", {plan.source} -> {plan.target} {plan.mode.value}" if plan is not None else "")
        )
        if caller.name not in self.callers_not_waiting:
            return
        unseen = [region for region in (A, B) if not self.reaches(self.places[caller.name], region)]
        if unseen and plan is not None and plan.is_cancellation:
            unseen = [A, B]  # it may have been promoted in a copy that this caller cannot read
        elif self.mode is Eventual.SAFE:
            unseen = []  # a region that is out of reach holds
        self.excused |= dict.fromkeys(unseen, float("inf"))

    def starts(self, region: str, epoch: int) -> None:
        """
        A run starts: never under an epoch older than that of a run that already started, unless the region is excused.
        """
        if epoch < self.newest_epoch_started and self._is_forgotten(above=epoch):
            self.note(f"No copy and no agent knows epoch {self.newest_epoch_started} any more: {region} is alone")
            self.newest_epoch_started = epoch
            self.regions_of_epoch = {each: name for each, name in self.regions_of_epoch.items() if each <= epoch}
        holder = self.regions_of_epoch.setdefault(epoch, region)
        assert holder == region, self.story(f"{holder} and {region} both start runs under epoch {epoch}")
        if epoch < self.newest_epoch_started:
            self.alone += 1
            assert self.clock.monotonic() <= self.excused.get(region, -1.0), self.story(
                f"{region} starts a run under epoch {epoch}, and one has started under {self.newest_epoch_started}"
            )
        self.newest_epoch_started = max(epoch, self.newest_epoch_started)

    def _is_forgotten(self, *, above: int) -> bool:
        """
        Return whether nothing has an epoch above this one: no copy, and no scheduler, so no other region runs.

        The last writer wins. If a caller with ``even_if_not_ready`` could not read the copy that has the newer epoch,
        it may write a state that replaces it. The region's agent then writes the newer state again, unless the
        schedulers of the region were lost, too. The user has chosen, and one region is active.
        """
        states = [state for state in self.table.states().values() if state is not None]
        views = [view for region in self.regions.values() if region.is_up for view in region.views.values()]
        states += [view.state for view in views if view is not None and view.state is not None]
        return bool(self.callers_not_waiting) and all(state.epoch <= above for state in states)

    def story(self, what: str) -> str:
        """Return the last events, one line each."""
        return "\n".join((f"{self.clock.monotonic():.1f} s: {what} ({self.mode.value})", *self.trace[-60:]))


def run_history(seed: int, mode: Eventual) -> EventualWorld:
    """
    Run one history.

    :raises AssertionError: a rule was broken.
    """
    world = EventualWorld(seed, mode)
    play(world)
    return world


def play(world: EventualWorld) -> None:
    """Play failovers from all places during cuts and losses. Then heal everything, and move the role twice."""
    rng, clock, mode = world.rng, world.clock, world.mode
    try:
        for _ in range(rng.randint(1, 3)):
            for _ in range(rng.randint(0, 2)):
                region, at = rng.choice([A, B]), rng.uniform(0, 40)
                happen = rng.choice([world.cut_off, world.cut_off, world.lose])
                clock.after(at, lambda happen=happen, region=region: happen(region))  # type: ignore[misc]
                clock.after(at + rng.choice([5, 40, 90]), lambda region=region: world.heal(region))  # type: ignore[misc]
            if rng.random() < 0.4:
                leave_a_region_that_is_cut_off(world)
            for _ in range(rng.choice([1, 1, 2])):
                caller = world.call(
                    rng.choice([A, B, B]),
                    place=rng.choice([CONTROL, CONTROL, A, B]),
                    after_s=rng.choice([0, rng.uniform(0, 60)]),
                    mode=rng.choice([Mode.AUTO, Mode.GRACEFUL, Mode.FORCED, Mode.FORCED]),
                    even_if_not_ready=rng.random() < (0.5 if mode is Eventual.AVAILABLE else 0.2),
                )
                if rng.random() < 0.3:
                    caller.kill_at = rng.randint(1, rng.choice([40, 150]))
            world.scheduler.run_until_idle()
            world.scheduler.raise_other_errors()
        clock.advance(100)
        heal_all(world)
        for target in rng.sample([A, B], 2):
            last = world.call(target, faulty=False, even_if_not_ready=True, stop_running=True)
            world.scheduler.run_until_idle()
            assert isinstance(last.outcome, (FailoverRecord, AlreadyActiveError)), world.story(repr(last.outcome))
            clock.advance(30)
    finally:
        world.scheduler.end()
    states = list(world.table.states().values())
    assert states[0] == states[1], world.story(f"The copies differ: {states}")
    assert states[0] is not None
    assert states[0].phase is Phase.STEADY
    for name, region in world.regions.items():
        standby = name != states[0].active_region
        assert not standby or not region.environment.unpaused, world.story(f"DAGs are unpaused in {name}")


def digest(seed: int, mode: Eventual) -> str:
    """Return a hash of everything that happens in a history. Equal hashes of two versions mean equal histories."""
    world = EventualWorld(seed, mode)
    try:
        play(world)
        outcome = "right"
    except Exception as error:
        outcome = repr(error)
    found = hashlib.sha256("\n".join((outcome, *world.trace)).encode())
    found.update(f"{world.clock.monotonic()!r} {world.rng.random()!r} {world.regions_of_epoch}\n".encode())
    for region, table in world.table.copies().items():
        agents = [agent for name in (A, B) for agent in table.agents(name)]
        found.update(f"{region} {table.state} {agents}\n".encode())
    return found.hexdigest()[:16]


def leave_a_region_that_is_cut_off(world: EventualWorld) -> None:
    """Cut the active region off, and let a caller in another place fail over without it."""
    rng = world.rng
    active = next(state.active_region for state in world.table.states().values() if state is not None)
    other = B if active == A else A
    world.cut_off(active)
    world.clock.after(rng.choice([30, 90]), lambda: world.heal(active))
    world.call(
        other,
        place=rng.choice([CONTROL, other]),
        after_s=rng.choice([0, 5]),
        mode=Mode.FORCED,
        even_if_not_ready=rng.random() < 0.5,
    )


def heal_all(world: EventualWorld) -> None:
    """Heal everything. Restart the regions, because one may have read a version of the state that did not win."""
    for name in (A, B):
        world.heal(name)
    world.clock.advance(60)
    for region in world.regions.values():
        region.restart()
    world.clock.advance(10)
