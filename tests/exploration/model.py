"""
The protocol as a set of states and steps, small enough to search completely up to some depth.

The decisions come from the project's own code: :func:`.gate.decide`, the transitions of core/state.py, core/lease.py,
and the engine's choice between claim, join, cancel and supersede. The world around it is abstract: a clock that ticks,
schedulers that acknowledge, freeze or end, a worker in each region, and two callers whose writes arrive immediately,
late, or never. Reads are consistent.

Reads of schedulers and workers are no steps. A scheduler may have read any state that was current since its last
acknowledgement. Its youngest view of a replaced state is as old as the replacement. So the world remembers the replaced
states with their ages, and every possible view is checked in every state of the world.

A caller is an engine reduced to its writes. It may act at any moment, also while another engine owns the plan and is
alive. A real engine takes over only after a silence, so this world has more histories than the real one.

A caller may halt its plan at a stage. Then a target's agent may also act: it takes over a promoted plan if the row has
not changed for long enough.

The model leaves out clocks of different rates (a tick is longer than the margin of a tenth) and tables with eventual
consistency. It also leaves out changes of the lease, environments that do not answer, and the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import NamedTuple

from airflow_provider_mwaa_dr.agent import plan_finisher
from airflow_provider_mwaa_dr.core import gate, lease
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import FailoverAction, FailoverEngine, actions
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View
from airflow_provider_mwaa_dr.core.ports import AgentStatus
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan, Stage, has_reached
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.testing import FakeEnvironment, InMemoryStateStore, ManualClock

A, B = "A", "B"
REGIONS = (A, B)
TICK_S = 10.0
LEASE_S = 2 * TICK_S
FENCE_FILE_S = 1 * TICK_S
TAKEOVER_S = 1 * TICK_S
HOLD_S = 2 * TICK_S
OLD = 3
"""After this number of ticks, every wait has ended; ages do not grow further."""
NEVER = -1
UNKNOWN = 10**6
"""In place of the version whose acknowledgement closes the gate: that write has no response yet."""
AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
GOOD, BAD = "the wanted set", "what was left of the wanted set"


class Status:
    """What a scheduler does."""

    LIVE, STILL, ENDED = range(3)
    """STILL: its database does not list it, and it writes nothing. It may continue at any moment with an old view."""


class Scheduler(NamedTuple):
    """
    The heartbeat item of a scheduler.

    :param version: the version that it has acknowledged.
    :param listed: jobs that its database listed when the item was written.
    :param is_gone: whether the item publishes that the scheduler has ended.
    """

    version: int
    listed: tuple[str, ...]
    is_gone: bool = False
    status: int = Status.LIVE


class Write(NamedTuple):
    """
    A conditional write that is under way.

    :param landed: None before it is applied; then whether its condition held.
    """

    op: str
    row: int
    expected: int
    age: int = 0
    landed: bool | None = None


class Caller(NamedTuple):
    """
    An engine.

    :param plan: id of the plan that it executes; empty before it has one.
    :param version, gate_age, fence_age: its :class:`.lease.Closing`; NEVER: the fence is open. UNKNOWN: it lets awaited
        runs start.
    :param starts: how many more times it may let awaited runs start.
    """

    target: str = ""
    is_forced: bool = False
    until: Stage | None = None
    plan: str = ""
    version: int = 0
    gate_age: int = 0
    fence_age: int = NEVER
    starts: int = 0
    write: Write | None = None
    has_given_up: bool = False
    is_done: bool = False


class World(NamedTuple):
    """
    One state of the whole world.

    :param row: the state in the table.
    :param replaced: earlier states in the table, with the ticks since they were replaced, while a view of them lets a
        run start or close.
    :param late: writes that their caller has given up, and that may still arrive.
    :param resumed: the newest epoch whose region was prepared before it executed.
    :param is_paused: whether some wanted DAGs do not run in the active region.
    :param faults: how many more faults may happen.
    :param still: ticks since the row has changed; 0 in worlds in which no plan halts.
    """

    row: int
    schedulers: tuple[Scheduler, ...]
    replaced: tuple[tuple[int, int], ...]
    callers: tuple[Caller, ...]
    late: tuple[Write, ...]
    resumed: int
    is_paused: bool
    faults: int
    still: int = 0


Step = tuple[str, World]


class BrokenError(AssertionError):
    """
    An invariant does not hold.

    :ivar step: the step that broke it, if the message does not name it.
    """

    def __init__(self, message: str, *, step: str = "") -> None:
        super().__init__(message)
        self.step = step


class Model:
    """
    The steps of the protocol.

    :param schedulers: number in each region.
    :param faults: the most faults: schedulers that freeze or end, callers that are killed, writes that are late or
        lost.
    :param starts: how many times each caller may let awaited runs start.
    :param halts: whether callers may halt their plan, and agents finish one.
    :param earlier: regions whose agents have a version that knows no halts: it drops the stage of a plan that it
        writes, and its fence lets tasks start until the promotion.
    """

    is_closed_before_it_is_gone = True
    counts_from_response = True
    age_of_join = 0
    """How many ticks a caller that has just taken a plan over counts the gate as closed."""

    def __init__(
        self,
        schedulers: Sequence[int] = (2, 1),
        *,
        callers: int = 2,
        faults: int = 2,
        starts: int = 0,
        halts: bool = False,
        earlier: Collection[str] = (),
    ) -> None:
        self.places = [
            (region, str(job)) for region, jobs in zip(REGIONS, schedulers, strict=True) for job in range(jobs)
        ]
        self.callers, self.faults, self.starts = callers, faults, starts
        self.halts, self.earlier = halts, frozenset(earlier)
        clock = ManualClock()
        environments = {region: FakeEnvironment(region, clock=clock) for region in REGIONS}
        self._context = FailoverEngine(InMemoryStateStore(), environments, clock, Timing(), "any").context
        self.rows: list[DRState] = []
        self._ids: dict[DRState, int] = {}
        self._may: dict[tuple[int, int, str, DecisionPoint], Action] = {}
        self._moves: dict[tuple[object, ...], bool] = {}
        self._new: dict[tuple[object, ...], int] = {}
        self._live: dict[tuple[int, int], bool] = {}
        self._finished: set[tuple[int, bool, int]] = set()

    def start(self) -> World:
        """Return the world in which A is active, and every scheduler has just read that."""
        row = self._id(transitions.initial(A, lease_s=LEASE_S, by="init", at=AT))
        jobs = {region: tuple(job for each, job in self.places if each == region) for region in REGIONS}
        version = self.rows[row].version
        return World(
            row=row,
            schedulers=tuple(Scheduler(version, jobs[region]) for region, _ in self.places),
            replaced=(),
            callers=(Caller(),) * self.callers,
            late=(),
            resumed=0,
            is_paused=False,
            faults=self.faults,
        )

    def _id(self, state: DRState) -> int:
        found = self._ids.get(state)
        if found is None:
            found = self._ids[state] = len(self.rows)
            self.rows.append(state)
        return found

    # -- decisions -----------------------------------------------------------------------------------------------------

    def may(self, row: int, age: int, region: str, point: DecisionPoint) -> Action:
        """Return what *region* does with a view of *row* that is *age* ticks old."""
        key = (row, age, region, point)
        action = self._may.get(key)
        if action is None:
            state = self.rows[row]
            if region in self.earlier and point is DecisionPoint.FENCE and state.plan is not None:
                state = replace(state, plan=replace(state.plan, drained=False))
            action = self._may[key] = gate.decide(
                View(state, read_at=0.0, reconciled_epoch=state.epoch, registered=frozenset(REGIONS), confirmed_at=0.0),
                region=region,
                exempt=False,
                now=age * TICK_S,
                lease_s=LEASE_S,
                point=point,
                is_awaited=point is DecisionPoint.GATE,
            ).action
        return action

    def check(self, world: World) -> None:
        """
        Check the invariants that must hold at each moment.

        :raises BrokenError: an invariant does not hold.
        """
        now = self.rows[world.row]
        executes = now.active_region if now.phase in {Phase.RESUMING, Phase.STEADY} else None
        is_halted = now.plan is not None and now.plan.is_halted
        for row, age in (*world.replaced, *([(world.row, 0)] if is_halted else [])):
            state = self.rows[row]
            if state.epoch == now.epoch and not is_halted:
                continue
            epochs = (
                "while the plan is halted"
                if state.epoch == now.epoch
                else f"under epoch {state.epoch}, while {now.active_region} has epoch {now.epoch}"
            )
            for (region, job), each in zip(self.places, world.schedulers, strict=True):
                if state.version < each.version or (each.is_gone and self.is_closed_before_it_is_gone):
                    continue
                action = self.may(row, age, region, DecisionPoint.GATE)
                if action is Action.RUN:
                    raise BrokenError(f"scheduler {job} of {region} may start a run {epochs}")
                if action is Action.SKIP and region == executes:
                    raise BrokenError(f"scheduler {job} of {region} may close a run as a standby, {epochs}")
            for region in REGIONS:
                if age * TICK_S <= FENCE_FILE_S and self.may(row, age, region, DecisionPoint.FENCE) is Action.RUN:
                    raise BrokenError(f"a worker of {region} may start a task {epochs}")
        self._check_ways_out(world)

    def _is_live(self, row: int, age: int) -> bool:
        """Return whether a view of *row* that is *age* ticks old lets a run start or close."""
        key = (row, age)
        found = self._live.get(key)
        if found is None:
            found = self._live[key] = age * TICK_S <= LEASE_S and any(
                self.may(row, age, region, point) is not Action.HOLD for region in REGIONS for point in DecisionPoint
            )
        return found

    def _check_ways_out(self, world: World) -> None:
        """
        Check that a new caller can finish the open plan and can cancel it, in any mode.

        All faults have ended by this time. A forced failover must work also while the other region never answers.
        """
        key = (world.row, world.is_paused, world.resumed)
        if key in self._finished:
            return
        self._finished.add(key)
        for target in REGIONS:
            for is_forced in (True, False):
                self._check_way_out(world, target, is_forced=is_forced)

    def _check_way_out(self, world: World, target: str, *, is_forced: bool) -> None:
        try:
            self._fail_over(world, target, is_forced=is_forced)
        except BrokenError as error:
            mode = ", forced" if is_forced else ""
            raise BrokenError(f"a new caller then fails over to {target}{mode}: {error}") from error

    def _fail_over(self, world: World, target: str, *, is_forced: bool) -> None:
        world = world._replace(callers=(Caller(),), late=(), faults=0)
        for _ in range(16):
            world = self._as_after_a_while(world, {target} if is_forced else REGIONS)
            caller = world.callers[0]
            if caller.is_done:
                break
            begun = caller if caller.target else caller._replace(target=target, is_forced=is_forced)
            found = self._decide(world, begun, "new")
            if found is None:
                continue
            op, row = found
            world = self._act(world._replace(callers=(begun,)), 0, op, row)
        state = self.rows[world.row]
        if (state.active_region, state.phase) != (target, Phase.STEADY):
            raise BrokenError(f"it ends with {state.active_region} {state.phase.value}")

    def _as_after_a_while(self, world: World, regions: Collection[str]) -> World:
        """Return *world* after the schedulers of *regions* have acknowledged, and all waits have ended."""
        version = self.rows[world.row].version
        jobs = {region: tuple(job for each, job in self.places if each == region) for region in REGIONS}
        return world._replace(
            schedulers=tuple(
                Scheduler(version if region in regions else NEVER, jobs[region]) for region, _ in self.places
            ),
            replaced=(),
            callers=tuple(
                caller._replace(gate_age=2 * OLD, fence_age=2 * OLD if caller.fence_age != NEVER else NEVER)
                for caller in world.callers
            ),
        )

    # -- the steps -----------------------------------------------------------------------------------------------------

    def steps(self, world: World) -> Iterator[Step]:
        """Yield each step that changes *world*, with its name."""
        yield from self._agents_steps(world)
        for number, caller in enumerate(world.callers):
            yield from self._callers_steps(world, number, caller)
            if not caller.target:
                break  # callers are equal: the next one starts only after this one
        for write in world.late:
            rest = tuple(each for each in world.late if each is not write)
            yield f"a late {write.op} arrives", self._apply(world._replace(late=rest), write)[0]
        if self.halts:
            yield from self._finishers_steps(world)
        yield "tick", self._tick(world)

    def _finishers_steps(self, world: World) -> Iterator[Step]:
        """Yield the step of the promoted region's agent, if there is one."""
        state, plan = self.rows[world.row], self.rows[world.row].plan
        if plan is None or state.phase not in {Phase.PROMOTING, Phase.RESUMING}:
            return
        owner, still_s = f"agent of {plan.target}", world.still * TICK_S
        is_earlier = plan.target in self.earlier
        row = None
        if plan.owner != owner:
            op = "takes over"
            takes_over_after_s = TAKEOVER_S if is_earlier else plan_finisher.patience_s(plan, TAKEOVER_S)
            if still_s > takes_over_after_s:
                if plan.hold is not None and still_s <= plan.hold_s:
                    raise BrokenError(
                        "an agent finishes a plan that its caller has halted", step="the agent takes over"
                    )
                row = self._next(transitions.take_over, world.row, owner=owner)
        elif state.phase is Phase.RESUMING:
            op, row = "completes", self._next(transitions.complete, world.row, not_unpaused_set_id="")
        else:
            op = "resumes"
            if self._is_ready(world, Caller(version=state.version, gate_age=world.still)):
                row = self._next(transitions.resume, world.row)
        if row is not None:
            write = Write(op, row, state.version)
            yield f"the agent of {plan.target} {op}", self._apply(world, write)[0]

    def _tick(self, world: World) -> World:
        def older(age: int) -> int:
            return age if age == NEVER else min(age + 1, OLD)

        return world._replace(
            replaced=tuple((row, age + 1) for row, age in world.replaced if self._is_live(row, age + 1)),
            still=older(world.still) if self.halts else 0,
            callers=tuple(
                caller._replace(
                    gate_age=older(caller.gate_age),
                    fence_age=older(caller.fence_age),
                    write=caller.write and self._older(caller.write),
                )
                for caller in world.callers
            ),
        )

    def _older(self, write: Write) -> Write:
        return write if self.counts_from_response else write._replace(age=min(write.age + 1, OLD))

    def _agents_steps(self, world: World) -> Iterator[Step]:
        version = self.rows[world.row].version
        for place, each in enumerate(world.schedulers):
            if each.status != Status.LIVE:
                continue
            region, job = self.places[place]
            name = f"scheduler {job} of {region}"
            listed = tuple(
                other
                for (there, other), found in zip(self.places, world.schedulers, strict=True)
                if there == region and found.status == Status.LIVE
            )
            yield f"{name} acknowledges", self._with(world, place, each._replace(version=version, listed=listed))
            if world.faults:
                fewer = world._replace(faults=world.faults - 1)
                yield f"{name} freezes", self._with(fewer, place, each._replace(status=Status.STILL))
                ended = each._replace(is_gone=True, status=Status.ENDED)
                yield f"{name} publishes that it has ended", self._with(fewer, place, ended)

    @staticmethod
    def _with(world: World, place: int, scheduler: Scheduler) -> World:
        schedulers = list(world.schedulers)
        schedulers[place] = scheduler
        return world._replace(schedulers=tuple(schedulers))

    def _callers_steps(self, world: World, number: int, caller: Caller) -> Iterator[Step]:
        if caller.is_done:
            return
        name = f"caller {number + 1}"
        if caller.write is not None:
            yield from self._writes_steps(world, number, caller, caller.write)
            return
        begun = [caller]
        if not caller.target:
            begun = [
                Caller(target=target, is_forced=forced, starts=self.starts, until=until)
                for target in REGIONS
                for forced in (True, False)
                for until in self._stages(world, forced=forced)
            ]
        for each in begun:
            until = f" until {each.until.value}" if each.until is not None else ""
            request = "" if caller.target else f" to {each.target}{', forced' if each.is_forced else ''}{until}"
            for choice in ("", "give up", "continue without the source", "start awaited"):
                found = self._decide(world, each, f"of-{number + 1}", choice)
                if found is None:
                    continue
                op, row = found
                with_it = self._set(world, number, each)
                yield f"{name}: {op}{request}", self._act(with_it, number, op, row)
                if world.faults and row != world.row:
                    fewer = with_it._replace(faults=world.faults - 1)
                    yield f"{name}: sends {op}{request}", self._send(fewer, number, op, row)
        if caller.target and world.faults:
            fewer = world._replace(faults=world.faults - 1)
            yield f"{name} is killed", self._set(fewer, number, caller._replace(is_done=True))

    def _stages(self, world: World, *, forced: bool) -> Sequence[Stage | None]:
        """Return the stages at which a new caller may halt its plan."""
        if not self.halts:
            return [None]
        lost = {self.rows[world.row].active_region} if forced else set()
        return [None, *Stage] if self.may_halt(self.earlier - lost) else [None]

    @staticmethod
    def may_halt(earlier: Collection[str]) -> bool:
        """Return whether a caller may halt a plan; *earlier* has regions with live agents that do not know it."""
        return not earlier

    def _writes_steps(self, world: World, number: int, caller: Caller, write: Write) -> Iterator[Step]:
        name = f"caller {number + 1}"
        without = caller._replace(write=None)
        if write.landed is None:
            applied, landed = self._apply(world, write)
            yield (
                f"the {write.op} of {name} arrives",
                self._set(applied, number, caller._replace(write=write._replace(landed=landed))),
            )
            yield f"the {write.op} of {name} is lost", self._set(world, number, without)
            if not world.late:
                late = self._set(world, number, without)
                yield f"{name} gives up its {write.op}", late._replace(late=(write,))
            yield f"{name} is killed", self._set(world._replace(late=(write,)), number, without._replace(is_done=True))
        elif write.landed:
            yield (
                f"{name} has the response to its {write.op}",
                self._set(world, number, self._responded(without, write.op, write.row, write.age)),
            )
        else:
            yield f"{name} has the response to its {write.op}: stale", self._set(world, number, without)

    @staticmethod
    def _set(world: World, number: int, caller: Caller) -> World:
        callers = list(world.callers)
        callers[number] = caller
        return world._replace(callers=tuple(callers))

    # -- an engine -----------------------------------------------------------------------------------------------------

    def _act(self, world: World, number: int, op: str, row: int) -> World:
        """Write, and get the response at the same moment."""
        sent = self._send(world, number, op, row)
        write = sent.callers[number].write
        assert write is not None
        applied, _ = self._apply(sent, write)
        caller = sent.callers[number]._replace(write=None)
        return self._set(applied, number, self._responded(caller, op, row, 0))

    def _send(self, world: World, number: int, op: str, row: int) -> World:
        write = Write(op, row, self.rows[world.row].version)
        caller = world.callers[number]._replace(write=write)
        if op == "start awaited":
            caller = caller._replace(version=UNKNOWN, starts=caller.starts - 1)
        sent = self._set(world, number, caller)
        # Before an engine writes that the source is drained, it pauses the wanted DAGs of the source.
        return sent._replace(is_paused=True) if op == "drained" else sent

    def _apply(self, world: World, write: Write) -> tuple[World, bool]:
        """Write the row if its version is the expected one, and check the invariants of the change."""
        before, new = self.rows[world.row], self.rows[write.row]
        if write.row == world.row:
            return world, True
        if not self.has_landed(before, write.expected):
            return world, False
        if new.epoch - before.epoch not in {0, 1} or (new.epoch == before.epoch) != (
            new.active_region == before.active_region
        ):
            raise BrokenError(
                f"from {before.active_region}, epoch {before.epoch}, to {new.active_region}, {new.epoch}", step=write.op
            )
        resumed = world.resumed
        if (before.phase, new.phase, before.epoch) == (Phase.PROMOTING, Phase.RESUMING, new.epoch):
            resumed = new.epoch
        if new.phase in {Phase.RESUMING, Phase.STEADY} and resumed != new.epoch:
            raise BrokenError(
                f"{new.active_region} executes under epoch {new.epoch} without preparation", step=write.op
            )
        is_paused = world.is_paused or new.epoch != before.epoch
        if new.phase is Phase.STEADY and is_paused:
            if before.plan is None or before.phase is not Phase.RESUMING or before.plan.set_id != GOOD:
                raise BrokenError("the wanted DAGs stay paused permanently", step=write.op)
            is_paused = False
        replaced = world.replaced
        if self._is_live(world.row, 0):
            replaced = ((world.row, 0), *replaced)
        return world._replace(row=write.row, replaced=replaced, resumed=resumed, is_paused=is_paused, still=0), True

    @staticmethod
    def has_landed(before: DRState, expected: int) -> bool:
        """Return whether the condition of a write holds."""
        return before.version == expected

    def _responded(self, caller: Caller, op: str, row: int, age: int) -> Caller:
        """Return the caller after it has the response to a write that it sent *age* ticks ago."""
        state = self.rows[row]
        since = 0 if self.counts_from_response else age
        if op == "complete":
            if state.active_region != caller.target and not caller.has_given_up:
                raise BrokenError(
                    f"a caller that named {caller.target} completed a plan for {state.active_region}", step=op
                )
            return caller._replace(is_done=True)
        plan = state.plan
        if op in {"nothing", "halt"} or plan is None:
            return caller._replace(is_done=True)
        if op == "drained":
            return caller._replace(fence_age=since)
        if op == "start awaited":
            return caller
        return caller._replace(
            has_given_up=caller.has_given_up or op == "give up",
            plan=plan.id,
            version=state.version,
            gate_age=self.age_of_join if op == "join" else since,
            fence_age=since if plan.is_forced else NEVER,
        )

    @staticmethod
    def is_own(plan: Plan, caller: Caller, owner: str) -> bool:
        """Return whether the caller owns the open plan."""
        return (plan.id, plan.owner) == (caller.plan, owner)

    def _decide(self, world: World, caller: Caller, owner: str, choice: str = "") -> tuple[str, int] | None:
        """
        Return the caller's next write after a read of the row: the name of the step, and the new row.

        :param choice: an alternative to the next step; empty for the next step.
        """
        state = self.rows[world.row]
        if not caller.plan:
            return None if choice else self._enter(world, caller, owner)
        if state.plan is None or not self.is_own(state.plan, caller, owner):
            return None if choice else ("nothing", world.row)
        plan = state.plan
        is_graceful = state.phase is Phase.DRAINING and not plan.is_forced
        if choice == "give up":
            if not is_graceful or plan.is_cancellation:
                return None
            back, op = f"{plan.id}-back", choice
            return op, self._next(transitions.cancel, world.row, plan_id=back, by="x", owner=owner, reason="r")
        if choice == "start awaited":
            if not is_graceful or plan.drained or plan.starts_awaited or not caller.starts:
                return None
            return choice, self._next(transitions.start_awaited, world.row)
        if (choice and is_graceful) or (not choice and is_graceful and caller.is_forced):
            return "turn to forced", self._next(transitions.turn_forced, world.row)
        if choice:
            return None
        if state.phase is Phase.RESUMING:
            return "complete", self._next(transitions.complete, world.row, not_unpaused_set_id="")
        if state.phase is Phase.PROMOTING and caller.version != state.version:
            return "reads its promotion", world.row  # it never had the response to that write
        if plan.is_forced and state.phase is Phase.DRAINING and caller.fence_age == NEVER:
            return "reads its turn to forced", world.row
        if state.phase is Phase.PROMOTING:
            if not self._is_ready(world, caller):
                return None
            op, change = ("halt", transitions.halt) if plan.hold is Stage.PROMOTED else ("resume", transitions.resume)
            return op, self._next(change, world.row)
        if plan.halts and state.phase is Phase.DRAINING:
            return self._halt_or_promote(plan, world)
        if is_graceful and plan.starts_awaited:
            return "hold awaited", self._next(transitions.hold_awaited, world.row)
        if is_graceful and caller.version == UNKNOWN:
            return "reads that awaited runs are held", world.row  # it never had the response to that write
        if is_graceful and caller.fence_age == NEVER:
            if not self._is_closed(world, caller, plan.source, gate_only=True):
                return None
            return "drained", self._next(transitions.drained, world.row)
        if not self._is_closed(world, caller, plan.source, gate_only=False):
            return None
        return self._halt_or_promote(plan, world)

    def _halt_or_promote(self, plan: Plan, world: World) -> tuple[str, int]:
        if plan.hold is Stage.DRAINED:
            return "halt", self._next(transitions.halt, world.row)
        return "promote", self._next(transitions.promote, world.row)

    def _enter(self, world: World, caller: Caller, owner: str) -> tuple[str, int]:
        state = self.rows[world.row]
        action = actions.action(self._context, state, caller.target)
        if action is FailoverAction.NOTHING:
            return action.value, world.row
        if action is FailoverAction.JOIN:
            if caller.until is not None and has_reached(state, caller.until):
                return "nothing", world.row
            values = {"hold": caller.until, "hold_s": HOLD_S} if self.halts else {}
            return action.value, self._next(transitions.take_over, world.row, owner=owner, **values)
        if action is FailoverAction.CANCEL:
            new = self._next(transitions.cancel, world.row, plan_id=f"back {owner}", by="x", owner=owner, reason="r")
            return action.value, new
        plan = Plan(
            id=f"plan {owner}",
            source=state.active_region,
            target=caller.target,
            mode=Mode.FORCED if caller.is_forced else Mode.AUTO,
            reason="r",
            by="x",
            owner=owner,
            started_at=AT,
            hold=caller.until,
            hold_s=HOLD_S,
        )
        make = transitions.claim if action is FailoverAction.CLAIM else transitions.supersede
        # The set is recorded with the claim: the source's DAGs now, or its last snapshot, which is always complete.
        set_id = BAD if world.is_paused and not caller.is_forced else GOOD
        return action.value, self._next(_claim_and_record, world.row, make=make, plan=plan, set_id=set_id)

    def _next(self, change: Callable[..., DRState], row: int, **values: object) -> int:
        key = (change, row, *values.values())
        found = self._new.get(key)
        if found is None:
            found = self._new[key] = self._id(change(self.rows[row], **values, at=AT))
        return found

    def _agents(self, world: World, region: str) -> list[AgentStatus]:
        return [
            AgentStatus(
                region=region, job=job, host="h", at=AT, beat=1, version=each.version, epoch=0, provider_version="1",
                airflow_version="3", schedulers=each.listed, gone=each.is_gone, fence_file_s=FENCE_FILE_S,
            )
            for (there, job), each in zip(self.places, world.schedulers, strict=True)
            if there == region
        ]  # fmt: skip

    def _items(self, world: World, region: str) -> tuple[object, ...]:
        return tuple(
            (each.version, each.listed, each.is_gone)
            for (there, _), each in zip(self.places, world.schedulers, strict=True)
            if there == region
        )

    def _is_closed(self, world: World, caller: Caller, source: str, *, gate_only: bool) -> bool:
        plan = self.rows[world.row].plan
        is_quiet = plan is not None and plan.quiet
        ages = caller.gate_age, caller.fence_age
        key = (source, gate_only, is_quiet, caller.version, *ages, self._items(world, source))
        found = self._moves.get(key)
        if found is None:
            closing = lease.Closing(
                version=caller.version,
                gate_since=-caller.gate_age * TICK_S,
                fence_since=None if caller.fence_age == NEVER else -caller.fence_age * TICK_S,
                lease_s=LEASE_S,
                gate_commit_s=0.0,
                is_quiet=is_quiet,
            )
            agents = self._agents(world, source)
            moment = closing.gate_closed_at(agents) if gate_only else closing.role_may_move_at(agents)
            found = self._moves[key] = moment <= 0
        return found

    def _is_ready(self, world: World, caller: Caller) -> bool:
        region = self.rows[world.row].active_region
        key = (region, caller.version, caller.gate_age, self._items(world, region))
        found = self._moves.get(key)
        if found is None:
            found = self._moves[key] = lease.is_ready_to_resume(
                self._agents(world, region),
                caller.version,
                since=-caller.gate_age * TICK_S,
                now=0.0,
                lease_s=LEASE_S,
            )
        return found


def _claim_and_record(
    state: DRState, *, make: Callable[..., DRState], plan: Plan, set_id: str, at: datetime
) -> DRState:
    return transitions.record_set(make(state, plan, at=at), set_id, at=at)
