"""
Random histories: several engines, lagging schedulers, failing regions, and users who pause DAGs. A seed decides all.

Each engine is a greenlet, so only one moves at a time. At every call to the table, to an environment and to the clock
an engine may switch to another one. The seed decides which engine continues, which one is killed, which response is
lost and how long the call takes. A history is therefore the same every time. The histories of the engine
(tests/unit/core) and of the whole system (tests/simulation) share this module.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from greenlet import getcurrent, greenlet

from airflow_provider_mwaa_dr.agent.hold_alarm import HoldAlarm
from airflow_provider_mwaa_dr.agent.plan_finisher import PlanFinisher
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import FailoverEngine, FailoverRequest, StepEvent
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide
from airflow_provider_mwaa_dr.core.item_kind import ItemKind
from airflow_provider_mwaa_dr.core.ports import RECORDS, SNAPSHOTS, AgentStatus, DagSet, Environment, FailoverRecord
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import (
    DRError,
    IncompleteError,
    MwaaUnreachableError,
    StateUnreachableError,
)
from airflow_provider_mwaa_dr.testing import FakeEnvironment, InMemoryStateStore, ManualClock

A, B, C = "us-east-2", "us-east-1", "us-west-2"
DAGS = tuple(f"dag_{number}" for number in range(5))
CONTROL = "dr_failover"
LEASE_S = 12.0
TIMING = Timing(
    drain_s=15,
    answer_s=4,
    heartbeat_s=1,
    gate_commit_s=1,
    beat_s=4,
    takeover_s=12,
    stop_s=30,
    adopt_s=20,
    verify_s=10,
    state_s=8,
    poll_s=1,
)
PATIENCE_S = 1_500
"""The longest history, on its own clock. A longer one is stuck."""


class KilledError(BaseException):
    """Ends an engine immediately, as SIGKILL does."""


@dataclass
class Caller:
    """One engine, and the faults that it gets."""

    name: str
    run: Callable[[], object]
    kill_at: int = 10**9
    faulty: bool = True
    wake_at: float = 0.0
    calls: int = 0
    table_gone_until: float = -1.0
    outcome: object = None
    is_done: bool = False
    greenlet: greenlet | None = None
    seen: DRState | None = None
    """The state item as this engine last read it; None after it has acted on that read."""


class Scheduler:
    """Lets exactly one caller move at a time, and moves the clock only when every caller sleeps."""

    def __init__(
        self, rng: random.Random, clock: ManualClock, count_fault: Callable[[str], object] = lambda _: None
    ) -> None:
        self.rng, self.clock, self._count_fault = rng, clock, count_fault
        self.callers: list[Caller] = []
        self._main = getcurrent()
        self._is_ending = False
        self._until = 0.0
        self._current: Caller | None = None

    @property
    def current(self) -> Caller:
        assert self._current is not None
        return self._current

    def start(self, caller: Caller) -> Caller:
        def body() -> None:
            try:
                caller.outcome = caller.run()
            except (
                BaseException
            ) as error:  # a bug in the engine or the test, too: the test reads the outcome and reports it
                caller.outcome = error
            finally:
                caller.is_done = True

        self.callers.append(caller)
        caller.wake_at = max(caller.wake_at, self.clock.monotonic())
        # A greenlet that ends returns to the main greenlet, whichever greenlet started it.
        caller.greenlet = greenlet(body, parent=self._main)
        return caller

    def hand_over(self, seconds: float = 0.0) -> None:
        """
        Let other callers move first, for at least *seconds* of the clock. A caller calls this.

        The caller moves the clock itself, and switches only if another caller is next.
        """
        if self._is_ending:
            raise KilledError
        caller = self.current
        caller.wake_at = self.clock.monotonic() + seconds
        follower = self._next()
        if follower is caller:
            return
        assert follower is not None  # the caller itself is not done
        assert follower.greenlet is not None
        follower.greenlet.switch()
        if self._is_ending:
            raise KilledError

    def call_point(self) -> None:
        """A caller calls this before and after each of its calls to the world."""
        caller = self.current
        caller.calls += 1
        if caller.calls >= caller.kill_at:
            self._count_fault("engine killed")
            raise KilledError
        chance = self.rng.random()
        if caller.faulty and chance < 0.004:
            self._count_fault("engine suspended")
            self.hand_over(self.rng.choice([3, 20, 60]))  # suspended, as a closed laptop is
        elif chance < 0.3:
            self.hand_over(0.0)

    def run_until_idle(self) -> None:
        self._until = self.clock.monotonic() + PATIENCE_S
        while (caller := self._next()) is not None:
            assert caller.greenlet is not None
            caller.greenlet.switch()

    def raise_other_errors(self) -> None:
        """Raise the error with which a caller ended, unless it was killed, or reported an error of the package."""
        for caller in self.callers:
            if isinstance(caller.outcome, BaseException) and not isinstance(caller.outcome, (DRError, KilledError)):
                raise caller.outcome

    def _next(self) -> Caller | None:
        """
        Return the caller that moves next, after moving the clock as far as needed; None when all callers are done.
        """
        while waiting := [caller for caller in self.callers if not caller.is_done]:
            now = self.clock.monotonic()
            if now > self._until:
                raise AssertionError(f"stuck: {', '.join(caller.name for caller in waiting)}")
            ready = [caller for caller in waiting if caller.wake_at <= now]
            if ready:
                self._current = self.rng.choice(ready)
                return self._current
            self.clock.advance(min(caller.wake_at for caller in waiting) - now)
        return None

    def end(self) -> None:
        self._is_ending = True
        for caller in self.callers:
            assert caller.greenlet is not None
            if caller.greenlet:  # started and not done
                caller.greenlet.switch()
            caller.is_done = True


class CallersClock:
    """
    The clock of an engine: while the engine sleeps, other callers move.

    :param rate: seconds that this clock counts in one second.
    """

    def __init__(self, world: World, rate: float = 1.0) -> None:
        self._world, self._rate = world, rate
        self.now = world.clock.now

    def monotonic(self) -> float:
        return self._world.clock.monotonic() * self._rate

    def sleep(self, seconds: float) -> None:
        self._world.scheduler.hand_over(seconds / self._rate)


def call_name(method: str, args: Sequence[Any]) -> str:
    """Return the name of a call, with the kind of item that it is for: ``write``, ``put snapshot``."""
    return f"{method} {args[0].name}" if args and isinstance(args[0], ItemKind) else method


class CallersStore:
    """The table as an engine reads and writes it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = self.__dict__[name] = partial(self._call, name)
        return call

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        world, caller = self._world, self._world.scheduler.current
        world.scheduler.call_point()
        now, rng = world.clock.monotonic(), world.scheduler.rng
        if caller.faulty and rng.random() < 0.004:
            caller.table_gone_until = now + rng.choice([1, 5, 20])
            world.count_fault("state table unreachable")
        if now < caller.table_gone_until:
            raise StateUnreachableError("The table did not answer.")
        if name == "put" and args[0] is RECORDS:
            world.check_record(caller, args[1])

        def reach() -> Any:
            before = world.store.state
            answer = getattr(world.store, name)(*args, **kwargs)
            if name == "read":
                caller.seen = answer
            elif name == "write":
                assert before is not None
                world.check_write(caller, before, args[0])
            return answer

        answer = world.at_point("state table", call_name(name, args), reach)
        if name == "write" and caller.faulty and rng.random() < 0.05:
            caller.table_gone_until = now + rng.choice([0, 0, 2])
            world.count_fault("state table response lost")
            raise StateUnreachableError("The answer of a write was lost.")
        world.scheduler.call_point()
        return answer


class CallersEnvironment:
    """An environment as an engine calls it."""

    def __init__(self, world: World, environment: FakeEnvironment) -> None:
        self._world, self._environment = world, environment
        self.region, self.name = environment.region, environment.name
        self._arrived = 0
        """The number of calls that have reached the environment."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = self.__dict__[name] = partial(self._call, name)
        return call

    def set_paused(
        self,
        dag_ids: Collection[str],
        *,
        paused: bool,
        listing: object = None,
        expected: object = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Sequence[str]:
        """Change one DAG after the other, so that a fault in the middle changes only some of them."""
        changed: list[str] = []
        left: list[str] = []
        caller = self._world.scheduler.current
        seen = caller.seen
        self._world.check_act(self.region, "pause" if paused else "unpause")
        for dag_id in sorted(dag_ids):
            seen, arrived = caller.seen or seen, self._arrived
            try:
                changed += self._call("set_paused", [dag_id], paused=paused)
            except IncompleteError as error:
                left += error.left
            finally:
                # The call has arrived, also if the engine was suspended after it read the state item, or was killed
                # before it got the response.
                now = self._world.state.plan
                assert seen is not None
                assert seen.plan is not None
                if self._arrived > arrived and (now is None or now.id != seen.plan.id):
                    self._world.changed_late(self.region, dag_id)
            if on_progress is not None:
                on_progress(len(changed), len(dag_ids))
        if left:
            raise IncompleteError(f"{left} did not change.", left=left)
        return changed

    def stop_run(self, run: object) -> bool:
        self._world.check_act(self.region, "stop")
        was_open: bool = self._call("stop_run", run)
        self._world.stop_answered(self._world.scheduler.current, run)
        return was_open

    def trigger(self, dag_id: str, *, run_id: str, note: str) -> None:
        self._world.check_act(self.region, "trigger")
        self._call("trigger", dag_id, run_id=run_id, note=note)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        scheduler = self._world.scheduler
        scheduler.call_point()
        chance = scheduler.rng.random() if scheduler.current.faulty else 1.0
        if chance < 0.003:
            self._world.count_fault("environment unreachable")
            raise MwaaUnreachableError("It did not answer.")

        def reach() -> Any:
            answer = getattr(self._environment, name)(*args, **kwargs)
            self._arrived += 1
            return answer

        answer = self._world.at_point("environment", name, reach)
        if chance < 0.006:
            self._world.count_fault("environment response lost")
            raise MwaaUnreachableError("Its answer was lost.")
        scheduler.call_point()
        return answer


class RegionDags:
    """The paused flags that a region's own agent changes in its database."""

    def __init__(self, environment: FakeEnvironment) -> None:
        self._environment = environment

    def unpaused_dags(self) -> Sequence[str]:
        return sorted(self._environment.unpaused - {CONTROL})

    def set_paused(self, dag_ids: Collection[str], *, paused: bool) -> int:
        there = set(dag_ids) & (self._environment.unpaused | self._environment.paused)
        for dag_id in there:
            self._environment.flip(dag_id, is_paused=paused)
        return len(there)


class Region:
    """The schedulers of a region, each with its own view. They take a turn once a second."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.environment = FakeEnvironment(name, clock=world.clock)
        self.is_up = True
        self.cut_until = -1.0
        self.stuck_until = {"1": -1.0, "2": -1.0}
        self.views: dict[str, View | None] = {"1": None, "2": None}
        self.adopted: int | None = None
        self.beat = 0
        self.runs = 0
        self.finisher = self._new_finisher()

    def _new_finisher(self) -> PlanFinisher:
        return PlanFinisher(
            self.world.store,
            RegionDags(self.environment),
            self.world.clock,
            region=self.name,
            owner=f"agent of {self.name}",
            takeover_s=TIMING.takeover_s,
            alarm=HoldAlarm(self.world.clock),
        )

    def die(self) -> None:
        self.is_up = False
        self.environment.unreachable, self.environment.scheduler_healthy = True, False

    def revive(self) -> None:
        self.in_flight()  # advances the runs up to now, before anything else continues
        self.is_up = True
        self.views = {"1": None, "2": None}
        self.finisher = self._new_finisher()
        self.environment.unreachable, self.environment.scheduler_healthy = False, True

    def in_flight(self) -> list[str]:
        """Return runs that execute or have state running, also during a fault."""
        unreachable, self.environment.unreachable = self.environment.unreachable, False
        runs = {str(run) for run in (*self.environment.running_runs(), *self.environment.running_tasks())}
        self.environment.unreachable = unreachable
        return sorted(run for run in runs if not run.startswith(CONTROL))

    def turn(self) -> None:
        if not self.is_up:
            return
        now = self.world.clock.monotonic()
        self.beat += 1
        for job in self.views:
            if now >= max(self.cut_until, self.stuck_until[job]):
                observed = self.world.store.observe(self.name)
                if job == "1":
                    self._lead(observed.state, observed.reconciled_epoch)
                    observed = self.world.store.observe(self.name)
                # An agent of the version before: its permission depends on reads, and engines wait for it in full.
                self.views[job] = View.of(observed, now, confirmed_at=now)
            self._schedule(job)
            view = self.views[job]
            if now >= self.cut_until and view is not None and view.state is not None:
                self.world.store.put_agent(self._status(job, view.state, view.reconciled_epoch))

    def _lead(self, state: DRState | None, reconciled: int | None) -> None:
        """Take the turn of the agent of job 1: reconcile, adopt, write the snapshot."""
        assert state is not None
        unpaused = self.environment.unpaused - {CONTROL}
        is_active = state.active_region == self.name
        if reconciled != state.epoch:
            for run in self.in_flight():
                dag_id, run_id = run.split(" ")
                self.environment.end_run(dag_id, run_id, state="failed")
            if not is_active or state.phase is Phase.PROMOTING:
                for dag_id in unpaused:
                    self.environment.flip(dag_id, is_paused=True)
            reconciled = state.epoch
        elif is_active and state.phase is Phase.STEADY:
            self.world.store.put(
                SNAPSHOTS,
                DagSet(id=self.name, region=self.name, recorded_at=self.world.clock.now(), dag_ids=tuple(unpaused)),
            )
        elif self.world.agents_finish:
            self.finisher.turn(state)
        self.adopted = state.epoch
        self.world.store.put_agent(self._status("1", state, reconciled))

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
            reconciled_epoch=reconciled,
            schedulers=tuple(self.views),
            fence_file_s=1.0,
            knows_hold=True,
        )

    def _schedule(self, job: str) -> None:
        """Start scheduled runs, as far as this scheduler's gate allows."""
        for dag_id in sorted(self.environment.unpaused - {CONTROL}):
            if self.world.rng.random() > self.world.load:
                continue
            decision = decide(
                self.views[job],
                region=self.name,
                exempt=False,
                now=self.world.clock.monotonic(),
                lease_s=LEASE_S,
                point=DecisionPoint.GATE,
            )
            if decision.action is Action.RUN:
                view = self.views[job]
                assert view is not None
                assert view.state is not None
                self.world.check_start(self.name, view.state.epoch)
                self.runs += 1
                length = 200 if self.world.rng.random() < self.world.long_runs else self.world.rng.randint(1, 8)
                self.environment.add_run(dag_id, f"r{self.runs}", seconds=length)


class World:
    """Three regions, a table, and the rules that are checked during a history."""

    timing = TIMING

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.scheduler = Scheduler(self.rng, self.clock, self.count_fault)
        self.store = self.make_table(transitions.initial(A, lease_s=LEASE_S, by="init", at=self.clock.now()))
        self.load, self.long_runs = self.rng.choice([0.05, 0.3]), self.rng.choice([0, 0, 0.02])
        self.regions: dict[str, Any] = {}
        self.newest_epoch_started = 0
        self.promotions = 0
        self.sets: dict[str, str] = {}
        self.written_late: set[str] = set()
        self.engines = 0
        self.agents_finish = self.rng.random() < 0.5
        self.wanted = set(DAGS) - {"dag_3"}
        self.make_regions()
        self._tick()
        self.clock.advance(3)

    def make_table(self, state: DRState) -> InMemoryStateStore:
        """Return the state table, with one copy for all. A subclass may return a table with lagging copies."""
        return InMemoryStateStore(state, regions=(A, B, C))

    def at_point(self, port: str, name: str, call: Callable[[], Any]) -> Any:
        """Make one call of an engine to a port. A subclass may inject a fault into exactly this call."""
        return call()

    def count_fault(self, fault: str, region: str | None = None) -> None:
        """Count a fault that happens now, of a region or of the current caller."""

    def stepped(self, event: StepEvent) -> None:
        """An engine reports progress."""

    def changed_late(self, region: str, dag_id: str) -> None:
        """A call has arrived after its plan had ended, because its engine was suspended. No engine can prevent this."""

    def stop_answered(self, caller: Caller, run: object) -> None:
        """An engine has the response to its call that stops a run."""

    def make_regions(self) -> None:
        """Fill ``regions``."""
        for name in (A, B, C):
            region = self.regions[name] = Region(self, name)
            for dag_id in DAGS:
                region.environment.add_dag(dag_id, is_paused=name != A or dag_id not in self.wanted)
            region.environment.add_dag(CONTROL, tags=["dr:control"])

    def _tick(self) -> None:
        self.clock.after(1, self._tick)
        for region in self.regions.values():
            region.turn()

    @property
    def state(self) -> DRState:
        assert self.store.state is not None
        return self.store.state

    def call(
        self, target: str, *, after_s: float = 0.0, faulty: bool = True, clock_rate: float = 1.0, **changes: Any
    ) -> Caller:
        """Let a caller request a failover to *target*."""
        name = self.new_name()
        request = replace(FailoverRequest(target=target, reason="test", by=name), **changes)
        engine = self.engine_of(name, clock_rate)
        caller = Caller(name, lambda: engine.run(request), faulty=faulty, wake_at=self.clock.monotonic() + after_s)
        return self.scheduler.start(caller)

    def new_name(self) -> str:
        """Return the name of a caller and of its engine."""
        self.engines += 1
        return f"engine-{self.engines}"

    def engine_of(self, name: str, clock_rate: float = 1.0) -> FailoverEngine:
        """Return the engine of the caller *name*."""
        environments: Mapping[str, Environment] = {
            region: CallersEnvironment(self, found.environment) for region, found in self.regions.items()
        }
        return FailoverEngine(
            CallersStore(self),
            environments,
            CallersClock(self, clock_rate),
            self.timing,
            name,
            self.stepped,
            new_token=self._new_token,
        )

    def _new_token(self) -> str:
        return f"{self.rng.getrandbits(24):06x}"

    # -- rules that must hold at every moment ----------------------------------------------------------------------

    def check_start(self, region: str, epoch: int) -> None:
        """No run starts under an epoch that is older than the epoch of a run that has already started."""
        assert epoch >= self.newest_epoch_started, f"{region} starts a run under epoch {epoch}: a newer one executes"
        self.newest_epoch_started = epoch

    def check_act(self, region: str, what: str) -> None:
        """
        An engine acts once for each read of the state item, which must show its own plan, and the right phase and
        region.
        """
        caller = self.scheduler.current
        seen, caller.seen = caller.seen, None
        assert seen is not None, f"{caller.name} does {what} in {region} without having read the state item"
        plan = seen.plan
        assert plan is not None, f"{caller.name} does {what} in {region} with no plan open"
        assert plan.owner == caller.name, f"{caller.name} does {what} in {region} in the plan of {plan.owner}"
        if what in {"unpause", "trigger"} or (what == "pause" and seen.phase is Phase.RESUMING):
            assert (seen.phase, region) == (Phase.RESUMING, plan.target), f"{what} in {region} in {seen.phase}"
        else:
            assert (seen.phase, region) == (Phase.DRAINING, plan.source), f"{what} in {region} in {seen.phase}"
            assert not plan.is_forced, f"{what} in {region}, which a forced failover never calls"
        if what == "pause" and seen.phase is Phase.DRAINING and self.state.plan == plan:
            left = self.regions[region].in_flight()
            assert not left, f"{region} is paused while {left} are in flight"

    def check_record(self, caller: Caller, record: FailoverRecord) -> None:
        """
        Records are for users, and are written without a condition. A record whose write is delayed may arrive too late.
        """
        plan = self.state.plan
        if record.outcome == "open" and (plan is None or plan.id != record.id or plan.owner != caller.name):
            self.written_late.add(record.id)

    def check_write(self, caller: Caller, before: DRState, new: DRState) -> None:
        """The state item changes as designed, and a graceful promotion leaves no run in flight."""
        assert new.version == before.version + 1
        assert new.epoch - before.epoch in {0, 1}
        if before.plan is not None and new.plan is not None and before.plan.set_id is not None:
            assert new.plan.set_id == before.plan.set_id, "another set replaced the recorded one"
        if before.plan is not None and new.plan is not None and before.plan.owner != new.plan.owner:
            assert new.plan.owner == caller.name or new.plan.is_halted
        if new.epoch == before.epoch:
            assert new.active_region == before.active_region
            return
        self.promotions += 1
        assert before.plan is not None
        assert (before.phase, new.phase) == (Phase.DRAINING, Phase.PROMOTING)
        assert new.active_region == before.plan.target != before.active_region
        assert new.epoch == self.promotions
        assert before.plan.owner == caller.name
        assert before.plan.set_id is not None
        if not before.plan.is_forced and self.regions[before.active_region].is_up:
            left = self.regions[before.active_region].in_flight()
            assert not left, f"promoted while {left} are in flight"

    def assert_steady(self, region: str, *, but: Collection[str]) -> None:
        """
        Exactly one region is active and STEADY. The wanted set without *but* is unpaused in it, and nothing in the
        others.
        """
        state = self.state
        assert (state.active_region, state.phase, state.plan) == (region, Phase.STEADY, None)
        assert state.epoch == self.promotions == state.failover_count
        for name, found in self.regions.items():
            unpaused = found.environment.unpaused
            assert CONTROL in unpaused
            wanted = self.wanted - set(but) if name == region else set()
            assert unpaused - {CONTROL} == wanted, f"{name} ({'active' if name == region else 'standby'})"
        records = [record.id for record in self.store.find_all(RECORDS) if record.outcome == "open"]
        assert set(records) <= self.written_late, f"records {records} are open"

    def dags_not_unpaused(self, region: str) -> tuple[str, ...]:
        """Return the DAGs that the last failover to *region* could not unpause."""
        ended = (
            record
            for record in self.store.find_all(RECORDS)
            if (record.target, record.outcome) == (region, "completed")
        )
        return next((record.not_unpaused for record in ended), ())

    def absent(self, region: str) -> set[str]:
        return set(DAGS) - self.regions[region].environment.unpaused - self.regions[region].environment.paused
