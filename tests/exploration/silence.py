"""
The silence of heartbeats, small enough to search completely.

``tests/exploration/model.py`` lets a scheduler use any view, and knows no heartbeats. This world has the heartbeats
themselves: requests that are late or are sent twice, their numbers, an observer, its reports, and an engine that counts
silence. Permission and waits come from the project's own code: :func:`.gate.decide`, :class:`.lease.Closing`,
:func:`.lease.silent_until`.

A tick is one of the clocks of observer and engine, which are fast. The clocks of the source are slow: its lease takes
one tick more. A process that is frozen, cut off or dead makes no step for a while; a lost request is never applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from math import ceil
from typing import NamedTuple

from airflow_provider_mwaa_dr.core import gate, lease
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View
from airflow_provider_mwaa_dr.core.ports import AgentStatus, SilentAgent
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from tests.exploration.model import BrokenError

A, B = "A", "B"
AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
TICK_S = 10.0
STEADY, CLAIMED, BACK, CLAIMED_AGAIN, PROMOTED = range(5)
"""The rows of the table, in the order of their versions. BACK: the plan was cancelled, and A runs again."""
NAMES = ("STEADY", "DRAINING", "STEADY again", "DRAINING again", "PROMOTED")
RUNS = (STEADY, BACK)


class Number(NamedTuple):
    life: int
    attempt: int


class Beat(NamedTuple):
    """
    A heartbeat, as a request and as an item.

    :param version: the row that it acknowledges.
    :param lease: the lease of its agent's view, in ticks.
    """

    number: Number
    version: int
    lease: int


class Sent(NamedTuple):
    """A heartbeat whose answer an agent awaits, with the ticks since it was sent, and the lease that it publishes."""

    number: Number
    age: int
    lease: int
    is_applied: bool = False


class Seen(NamedTuple):
    """
    A scheduler's view.

    :param age: ticks since the time from which it permits, on a clock of the target; None: it permits nothing.
    :param lease: the lease of the row, in ticks.
    """

    row: int
    age: int | None
    lease: int


class Agent(NamedTuple):
    """
    A scheduler of the source, and its agent.

    :param confirmed: ticks since its last confirmed heartbeat was sent, and the lease that this heartbeat published;
        None: it has expired, or there is none.
    """

    life: int = 0
    attempt: int = 0
    sent: Sent | None = None
    confirmed: tuple[int, int] | None = None
    view: Seen | None = None


class Engine(NamedTuple):
    """
    The engine of the target.

    :param since: ticks since the response of its claim, or since its take-over.
    :param until: for each scheduler, the ticks until its silence has lasted for a lease; None: it is not silent.
    :param has_read: whether it has read reports and items for this claim.
    :param longest: the longest lease that it knows, in ticks.
    """

    since: int = 0
    until: tuple[int | None, ...] = ()
    has_read: bool = False
    longest: int = 0


class World(NamedTuple):
    """
    :param lease: of the row, in ticks.
    :param changes: how often a user has changed the lease.
    :param net: requests under way, with the place of their scheduler.
    :param observed: for each item: its number, and the ticks since the response of the first read of it.
    :param reported: the same, as it is in the observer's last heartbeat.
    """

    row: int
    lease: int
    items: tuple[Beat | None, ...]
    net: tuple[tuple[int, Beat], ...]
    agents: tuple[Agent, ...]
    observed: tuple[tuple[Number, int] | None, ...]
    reported: tuple[tuple[Number, int] | None, ...]
    engine: Engine
    changes: int = 0


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """
    How large the world is.

    :param beats: how many heartbeats each life of an agent sends.
    :param lives: how many lives each agent has.
    :param net: how many requests are under way at most.
    :param cancels: whether a caller may cancel the plan, and another may claim again.
    :param leases: the leases, in ticks, to which a user changes the lease one after the other.
    :param earlier: how many of the schedulers have an agent of a version before this one.
    :param earlier_engine: whether an engine of a version before this one fails over.
    """

    schedulers: int = 1
    beats: int = 1
    lives: int = 1
    net: int = 1
    lease: int = 2
    cancels: bool = False
    leases: tuple[int, ...] = ()
    earlier: int = 0
    earlier_engine: bool = False


class Silence:
    """The steps of this world. The class attributes are rules of the agent and the engine, which a test takes out."""

    needs_heartbeat = True
    """A view permits nothing before a heartbeat is confirmed, and only for a lease after it was sent."""
    keeps_permission = True
    """A later heartbeat extends no view."""
    reads_after_claim = True
    forgets_reads_of_a_cancelled_claim = True
    numbers_requests = True
    """No two requests have the same number."""
    numbers_lives = True
    observes_from_response = True
    counts_from_reads = True
    """The engine counts the rest from its reads, and not from its claim."""
    publishes_lease = True
    """A view permits nothing before a heartbeat has published its lease, and engines use the longest published one."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._runs: dict[tuple[int, int | None, int], bool] = {}
        self._closed: dict[tuple[object, ...], bool] = {}
        self._until: dict[tuple[object, ...], tuple[int | None, ...]] = {}

    def start(self) -> World:
        nobody = (None,) * self.bounds.schedulers
        agents = (Agent(),) * self.bounds.schedulers
        return World(STEADY, self.bounds.lease, nobody, (), agents, nobody, nobody, Engine())

    # -- decisions of the code -----------------------------------------------------------------------------------------

    def lets_start(self, view: Seen | None) -> bool:
        """Whether the gate of a scheduler of the source lets a run start."""
        if view is None:
            return False
        found = self._runs.get(view)
        if found is None:
            # A lease on the slow clock of the source takes one tick more than on the clock of this world.
            slow_s = TICK_S * view.lease / (view.lease + 1) * 1.01
            now = 1000.0
            confirmed_at = None if view.age is None else now - view.age * slow_s
            found = self._runs[view] = (
                gate.decide(
                    View(
                        _state(view.row, view.lease), read_at=now, reconciled_epoch=0, registered=frozenset({A, B}),
                        confirmed_at=confirmed_at,
                    ),
                    region=A, exempt=False, now=now, lease_s=view.lease * TICK_S, point=DecisionPoint.GATE,
                ).action
                is Action.RUN
            )  # fmt: skip
        return found

    def _status(self, place: int, beat: Beat) -> AgentStatus:
        number = beat.number if self.numbers_lives else Number(0, beat.number.attempt)
        # The lists matter only for agents that may have no item.
        listed = map(str, range(self.bounds.schedulers)) if self.bounds.earlier else [str(place)]
        return AgentStatus(
            region=A, job=str(place), host="h", at=AT, beat=1, version=beat.version, epoch=0, provider_version="1",
            airflow_version="3", schedulers=tuple(listed), fence_file_s=0.0,
            life=None if self.is_earlier(place) else str(number.life), attempt=number.attempt,
            lease_s=beat.lease * TICK_S,
        )  # fmt: skip

    def is_earlier(self, place: int) -> bool:
        """Whether this scheduler has an agent of a version before this one."""
        return place < self.bounds.earlier

    def statuses(self, world: World) -> list[AgentStatus]:
        return [self._status(place, item) for place, item in enumerate(world.items) if item is not None]

    def _reads(self, world: World) -> Engine:
        """Return the engine after it has read the reports, and then the items."""
        key = (world.items, world.reported, world.lease)
        agents = self.statuses(world)
        leases = [ceil(agent.lease_s / TICK_S) for agent in agents if agent.lease_s] if self.publishes_lease else []
        longest = max([world.lease, *leases])
        until = self._until.get(key)
        if until is None:
            reports = [
                SilentAgent(region=A, job=str(place), number=found, still_s=ticks * TICK_S)
                for place, (number, ticks) in ((p, each) for p, each in enumerate(world.reported) if each is not None)
                if (found := self._status(place, Beat(number, 0, 0)).number) is not None
            ]
            wait_s = lease.lease_wait_s(longest * TICK_S, 0.0)
            closed = lease.silent_until(agents, reports, now=0.0, wait_s=wait_s)
            until = tuple(
                ceil(closed[str(place)] / TICK_S - 1e-6) if str(place) in closed else None
                for place in range(self.bounds.schedulers)
            )
            self._until[key] = until
        if not self.counts_from_reads:
            until = tuple(None if each is None else max(0, each - world.engine.since) for each in until)
        return world.engine._replace(until=until, has_read=True, longest=longest)

    def is_closed(self, world: World) -> bool:
        """Whether the engine may promote."""
        engine = world.engine
        key = (world.row, world.items, engine)
        found = self._closed.get(key)
        if found is None:
            closing = lease.Closing(
                version=world.row,
                gate_since=-engine.since * TICK_S,
                fence_since=-1000.0,
                lease_s=max(engine.longest, world.lease) * TICK_S,
                gate_commit_s=0.0,
                silent_until={
                    str(place): ticks * TICK_S for place, ticks in enumerate(engine.until) if ticks is not None
                },
            )
            found = self._closed[key] = closing.gate_closed_at(self.statuses(world)) <= 0
        return found

    def check(self, world: World) -> None:
        """:raises BrokenError: a scheduler of the source lets a run start although the target is promoted."""
        if world.row != PROMOTED:
            return
        for place, agent in enumerate(world.agents):
            view = agent.view
            if view is not None and not self.keeps_permission and agent.confirmed is not None:
                view = view._replace(age=min(agent.confirmed[0], agent.confirmed[0] if view.age is None else view.age))
            if self.lets_start(view):
                raise BrokenError(f"scheduler {place} lets a run start with a view of {NAMES[view.row]}")  # type: ignore[union-attr]

    # -- the steps -----------------------------------------------------------------------------------------------------

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        """Yield each step that changes *world*, with its name."""
        if world.row == PROMOTED:
            # Judged at the promotion: afterwards only a rule that is taken out makes a view fresher.
            if not self.keeps_permission:
                yield from self._agents(world)
            return
        yield "tick", self._tick(world)
        yield from self._agents(world)
        yield from self._network(world)
        yield from self._observer(world)
        yield from self._engine(world)
        if world.changes < len(self.bounds.leases) and world.row == STEADY:
            ticks = self.bounds.leases[world.changes]
            yield f"a user changes the lease to {ticks}", world._replace(lease=ticks, changes=world.changes + 1)

    def _tick(self, world: World) -> World:
        most = max(self.bounds.lease, *self.bounds.leases, 0) + 1
        agents = tuple(
            agent._replace(
                sent=agent.sent and agent.sent._replace(age=min(agent.sent.age + 1, most)),
                confirmed=None
                if agent.confirmed is None or agent.confirmed[0] + 1 >= most
                else (agent.confirmed[0] + 1, agent.confirmed[1]),
                view=self._older(agent.view),
            )
            for agent in world.agents
        )
        engine = world.engine
        if world.row in (CLAIMED, CLAIMED_AGAIN) or engine.has_read:
            engine = engine._replace(
                since=min(engine.since + 1, most),
                until=tuple(ticks and ticks - 1 for ticks in engine.until),
            )
        return world._replace(
            agents=agents,
            observed=tuple(each and (each[0], min(each[1] + 1, most)) for each in world.observed),
            engine=engine,
        )

    def _older(self, view: Seen | None) -> Seen | None:
        if view is None or view.row not in RUNS or view.age is None:
            return view
        older = view._replace(age=view.age + 1)
        if self.lets_start(older) or not self.keeps_permission:
            return older if view.age <= view.lease else view
        return view._replace(age=None)

    def _agents(self, world: World) -> Iterator[tuple[str, World]]:
        for place, agent in enumerate(world.agents):
            name = f"scheduler {place}"
            view, room = agent.view, len(world.net) < self.bounds.net
            if view is not None and agent.attempt < self.bounds.beats and room and world.row != PROMOTED:
                number = Number(agent.life, agent.attempt + 1)
                beat = Beat(number, view.row, view.lease)
                sent = agent._replace(attempt=number.attempt, sent=Sent(number, 0, view.lease))
                yield (
                    f"{name} sends heartbeat {number}",
                    _with(world, place, sent)._replace(net=tuple(sorted((*world.net, (place, beat))))),
                )
            if agent.sent is not None and agent.sent.is_applied:
                is_fresh = agent.sent.age <= max(self.bounds.lease, *self.bounds.leases, 0)
                confirmed = (agent.sent.age, agent.sent.lease) if is_fresh else agent.confirmed
                new = agent._replace(sent=None, confirmed=confirmed)
                yield f"{name} has the answer to {agent.sent.number}", _with(world, place, new)
            elif agent.sent is not None and view is not None and not self.numbers_requests and room:
                beat = Beat(agent.sent.number, view.row, view.lease)
                again = world._replace(net=tuple(sorted((*world.net, (place, beat)))))
                yield f"{name} sends {beat.number} to the other replica, too", again
            if world.row == PROMOTED:
                continue
            is_tied = self.needs_heartbeat and not self.is_earlier(place)
            seen = Seen(world.row, 0, world.lease)
            if world.row in RUNS and is_tied:
                # A read permits nothing without a confirmed heartbeat that published this lease or a longer one.
                is_listed = world.items[place] is not None
                known = agent.confirmed if is_listed else None
                publishes = known is not None and (known[1] >= world.lease or not self.publishes_lease)
                seen = Seen(world.row, known[0] if known is not None and publishes else None, world.lease)
            if seen != agent.view:
                yield f"{name} reads {NAMES[world.row]}", _with(world, place, agent._replace(view=seen))
            if agent.life + 1 < self.bounds.lives:
                yield f"{name} is replaced under the same job", _with(world, place, Agent(life=agent.life + 1))
                kept = Agent(life=agent.life + 1, view=agent.view)
                yield f"the agent's thread of {name} is restarted", _with(world, place, kept)

    def _network(self, world: World) -> Iterator[tuple[str, World]]:
        for position, (place, beat) in enumerate(world.net):
            net = world.net[:position] + world.net[position + 1 :]
            if len(world.net) == self.bounds.net:  # before that, it may as well be under way forever
                yield f"heartbeat {beat.number} of {place} is lost", world._replace(net=net)
            agent = world.agents[place]
            if agent.sent is not None and agent.sent.number == beat.number:
                agent = agent._replace(sent=agent.sent._replace(is_applied=True))
            items = (*world.items[:place], beat, *world.items[place + 1 :])
            yield (
                f"the table applies heartbeat {beat.number} of {place}",
                _with(world, place, agent)._replace(net=net, items=items),
            )

    def _observer(self, world: World) -> Iterator[tuple[str, World]]:
        observed = tuple(
            None if item is None
            else before if before is not None and self._is_same(before[0], item.number)
            else (item.number, 0 if self.observes_from_response else 1)
            for before, item in zip(world.observed, world.items, strict=True)
        )  # fmt: skip
        if (observed, observed) != (world.observed, world.reported):
            yield "the observer reads and publishes", world._replace(observed=observed, reported=observed)
        if any(world.observed):
            yield "the observer restarts", world._replace(observed=(None,) * len(world.observed))

    def _is_same(self, one: Number, other: Number) -> bool:
        return one == other or (not self.numbers_lives and one.attempt == other.attempt)

    def _engine(self, world: World) -> Iterator[tuple[str, World]]:
        engine = world.engine
        if world.row in RUNS:
            if not self.reads_after_claim and not engine.has_read and not self.bounds.earlier_engine:
                yield "the engine reads reports and items", world._replace(engine=self._reads(world))
            if world.row == STEADY or self.bounds.cancels:
                kept = engine if engine.has_read else Engine()
                if self.forgets_reads_of_a_cancelled_claim and world.row == BACK:
                    kept = Engine()
                yield "the engine claims", world._replace(row=world.row + 1, engine=kept._replace(since=0))
            return
        if not self.bounds.earlier_engine and not engine.has_read:
            yield "the engine reads reports and items", world._replace(engine=self._reads(world))
        if engine.since or engine.has_read:
            yield "another engine takes over", world._replace(engine=Engine())
        if self.bounds.cancels and world.row == CLAIMED:
            yield "a caller cancels", world._replace(row=BACK)
        if (engine.has_read or self.bounds.earlier_engine) and self.is_closed(world):
            yield "the engine promotes", world._replace(row=PROMOTED, engine=Engine())


def _with(world: World, place: int, agent: Agent) -> World:
    return world._replace(agents=(*world.agents[:place], agent, *world.agents[place + 1 :]))


_STATES: dict[tuple[int, int], DRState] = {}


def _state(row: int, ticks: int) -> DRState:
    found = _STATES.get((row, ticks))
    if found is None:
        plan = Plan(id="p", source=A, target=B, mode=Mode.FORCED, reason="r", by="x", owner="o", started_at=AT)
        found = _STATES[row, ticks] = DRState(
            active_region=B if row == PROMOTED else A, epoch=0, version=row, last_updated=AT, lease_s=ticks * TICK_S,
            phase=Phase.STEADY if row in RUNS else Phase.PROMOTING if row == PROMOTED else Phase.DRAINING,
            plan=None if row in RUNS else plan,
        )  # fmt: skip
    return found
