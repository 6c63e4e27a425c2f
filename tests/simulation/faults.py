"""
Fault points: faults at any call of an agent or an engine to a port.

A seed enables them for about half of the histories. It decides how many faults there are, where they are, and when they
are armed: after some seconds, or when the state enters a phase. An armed fault happens at the n-th call that fits it. A
third of the faults aim at pairs of fault and phase that histories seldom reach (reached.json). These choices use a
separate random generator, so a history without fault points stays unchanged.

An agent with a slow call is suspended in the middle of its turn. The rest of the world continues, and so does the gate
of its scheduler.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.core.state import Mode, Phase
from airflow_provider_mwaa_dr.exceptions import (
    DRError,
    MwaaAccessError,
    MwaaUnreachableError,
    StateAccessError,
    StateUnreachableError,
)
from tests.histories import A, B, KilledError, call_name

if TYPE_CHECKING:
    from tests.simulation.world import Simulation

STATE, LEDGER, DATABASE, ENVIRONMENT = "state table", "ledger", "metadata database", "environment"
ENGINE = "engine"
AGENT_PORTS, ENGINE_PORTS = (STATE, LEDGER, DATABASE), (STATE, ENVIRONMENT)
KILLED_BEFORE, KILLED_AFTER = "killed before", "killed after"
FAILS_BEFORE, FAILS_AFTER = "fails before", "fails after"
REFUSED, REFUSED_FOR_A_WHILE = "refused", "refused for a while"
STALE = "stale"
LATE_BEFORE, LATE_AFTER = "late before", "late after"
KINDS = (
    KILLED_BEFORE, KILLED_AFTER, FAILS_BEFORE, FAILS_AFTER, REFUSED, REFUSED_FOR_A_WHILE, STALE,
    LATE_BEFORE, LATE_AFTER,
)  # fmt: skip
REGION_FAULTS = (
    "lost", "cut off", "agent stuck", "scheduler frozen", "scheduler restarted", "ledger unreachable",
    "ledger response lost", "agent killed",
)  # fmt: skip
CALLER_FAULTS = (
    "engine killed", "engine suspended", "state table unreachable", "state table response lost",
    "environment unreachable", "environment response lost",
)  # fmt: skip
PHASES = tuple(phase.value for phase in Phase if phase is not Phase.STEADY)
MOMENTS = ("runs are being stopped", "drained", "the set is recorded", "auto turns forced")
REACHED = Path(__file__).with_name("reached.json")
"""The number of histories that have reached each pair of fault and phase; ``--reached`` writes it."""
STALE_S = 8.0
"""The largest lag of a copy of the ledger."""


class DatabaseError(Exception):
    """The metadata database has failed. SQLAlchemy would raise such an error."""


@dataclass
class Fault:
    """
    A fault that happens once.

    :param who: the region whose agents get it, or ENGINE.
    :param calls: the number of the call to the port at which it happens.
    :param seconds: its duration, if it has one.
    """

    who: str
    port: str
    kind: str
    calls: int
    seconds: float

    def __str__(self) -> str:
        return f"{'engine' if self.who == ENGINE else 'agent'}'s {self.port} {self.kind}"


@cache
def _each() -> tuple[Fault, ...]:
    """Return one fault of each kind for each port."""
    ports = [(ENGINE, port) for port in ENGINE_PORTS] + [(A, port) for port in AGENT_PORTS]
    faults = [Fault(who, port, kind, 1, 0.0) for who, port in ports for kind in KINDS]
    return tuple(fault for fault in faults if _is_possible(fault))


def places() -> list[str]:
    """Return each fault with each place where it may happen, under the names that are counted."""
    phases = [phase.value for phase in Phase]
    of_regions = [*REGION_FAULTS, *(str(fault) for fault in _each() if fault.who != ENGINE)]
    of_callers = [*CALLER_FAULTS, *(str(fault) for fault in _each() if fault.who == ENGINE)]
    return [
        *(f"{name}: {role}, STEADY" for name in of_regions for role in ("active", "standby")),
        *(
            f"{name}: {role}, {phase}"
            for name, role, phase in itertools.product(of_regions, ("source", "target"), phases[1:])
        ),
        *(f"{name}: {phase}" for name, phase in itertools.product(of_callers, phases)),
    ]


@cache
def _rare() -> tuple[list[str], list[float]]:
    """Return the pairs of fault and phase that a history can aim at, with their weights."""
    counts = json.loads(REACHED.read_text(encoding="utf-8"))
    left_out = {*CALLER_FAULTS, "ledger response lost"}
    pairs = [pair for pair in places() if pair.partition(": ")[0] not in left_out]
    return pairs, [1 / (1 + counts.get(pair, 0)) for pair in pairs]


def _is_possible(fault: Fault) -> bool:
    # All other reads are consistent: those of the state table, and those of a region's own database.
    return fault.kind != STALE or fault.port == LEDGER


@dataclass
class _Waiting:
    """An action that runs when the state is written in a certain way."""

    on: str
    what: Callable[[], object]


class FaultPoints:
    """The additional events of a history: armed faults, and callers that come at a critical moment."""

    def __init__(self, world: Simulation, seed: int) -> None:
        self.world = world
        self.rng = random.Random(f"{seed}-faults")
        self.armed: list[Fault] = []
        self._waiting: list[_Waiting] = []
        self.refused_until: dict[tuple[str, str], float] = {}
        self._stale_until: dict[str, float] = {}
        self.is_on = self.rng.random() < 0.5

    def plan(self) -> None:
        """Choose the faults and their moments."""
        if not self.is_on:
            return
        rng = self.rng
        for _ in range(rng.choice([1, 1, 2, 3, 5])):
            chance = rng.random()
            if chance < 0.3:
                self._plan_rare()
            elif chance < 0.7:
                self._wait_for(rng.choice(PHASES), self._arming(self._choose()))
            else:
                self.world.clock.after(rng.uniform(0, 90), self._arming(self._choose()))
        if rng.random() < 0.3:
            self._plan_call()

    def _choose(self) -> Fault:
        rng = self.rng
        while True:
            who = rng.choice([A, B, ENGINE])
            fault = self._fault(who, rng.choice(ENGINE_PORTS if who == ENGINE else AGENT_PORTS), rng.choice(KINDS))
            if _is_possible(fault):
                return fault

    def _fault(self, who: str, port: str, kind: str) -> Fault:
        rng = self.rng
        return Fault(
            who, port, kind, rng.choice([1, rng.randint(1, 6), rng.randint(1, 30)]), rng.choice([1.5, 3.0, 7.0, 15.0])
        )

    def _arming(self, fault: Fault) -> Callable[[], None]:
        return lambda: self.arm(fault)

    def _plan_rare(self) -> None:
        """Choose a pair of fault and phase. The fewer histories have reached it, the more likely it is chosen."""
        pairs, weights = _rare()
        name, _, place = self.rng.choices(pairs, weights)[0].partition(": ")
        role, _, phase = place.rpartition(", ")
        happen: Callable[[], object]
        if name in REGION_FAULTS:
            after_s, seconds, number = self.rng.uniform(0, 2), self.rng.choice([5, 12, 30]), self.rng.choice([0, 1])
            happen = lambda: self.world.clock.after(  # noqa: E731
                after_s, lambda: self._apply_to_region(name, role, number, seconds)
            )
        else:
            found = next(each for each in _each() if str(each) == name)
            fault = self._fault(found.who, found.port, found.kind)
            fault.calls = self.rng.choice([1, 1, 2, 4])
            happen = lambda: self._arm_for(role, fault)  # noqa: E731
        if phase == Phase.STEADY.value:
            self.world.clock.after(self.rng.uniform(0, 90), happen)
        else:
            self._wait_for(phase, happen)

    def _arm_for(self, role: str, fault: Fault) -> None:
        if fault.who != ENGINE:
            fault.who = self._region(role)
        self.arm(fault)

    def _region(self, role: str) -> str:
        """Return the region that has a role now."""
        state = self.world.state
        if state.plan is not None and role in {"source", "target"}:
            is_first = role == "target"
            first = state.plan.target
        else:
            is_first = role == "active"
            first = state.active_region
        return first if is_first else B if first == A else A

    def _apply_to_region(self, name: str, role: str, number: int, seconds: float) -> None:
        if self.world.is_healed:
            return
        region = self.world.regions[self._region(role)]
        if name == "lost":
            region.die()
            self.world.clock.after(seconds, lambda: None if self.world.is_healed else region.revive())
        elif name == "cut off":
            region.cut(seconds)
        elif name == "agent stuck":
            region.hang(number, seconds)
        elif name == "scheduler frozen":
            region.freeze(number, seconds)
        elif name == "scheduler restarted":
            region.restart(number)
        elif name == "ledger unreachable":
            region.lose_the_ledger(seconds)
        else:
            region.calls_left = number + 1

    def _plan_call(self) -> None:
        """Choose a caller that comes at a certain moment of a plan, and joins, cancels, supersedes or hardens it."""
        role, mode = self.rng.choice(["source", "source", "target"]), self.rng.choice(list(Mode))
        after_s, stop_running = self.rng.choice([0.0, 0.5, 3.0]), self.rng.random() < 0.5

        def call() -> None:
            if not self.world.is_healed:
                self.world.call(
                    self._region(role), after_s=after_s, mode=mode, stop_running=stop_running, even_if_not_ready=True
                )

        self._wait_for(self.rng.choice([*PHASES, *MOMENTS]), call)

    def _wait_for(self, on: str, what: Callable[[], object]) -> None:
        self._waiting.append(_Waiting(on, what))

    def arm(self, fault: Fault) -> None:
        if not self.world.is_healed:
            self.armed.append(fault)

    def happens(self, what: str) -> None:
        """The state has entered a phase, or an action was written: run the first action that waits for it."""
        for each in self._waiting:
            if each.on == what:
                self._waiting.remove(each)
                each.what()
                return

    def heal(self) -> None:
        self.armed.clear()
        self._waiting.clear()
        self.refused_until.clear()
        self._stale_until.clear()

    def is_stale(self, region: str) -> bool:
        """Whether *region* reads an old copy of the other region's ledger now."""
        return self.world.clock.elapsed_s < self._stale_until.get(region, -1.0)

    def call(self, who: str, port: str, name: str, call: Callable[[], Any], suspend: Callable[[float], object]) -> Any:
        """Make a call with the fault that is armed for it."""
        now = self.world.clock.elapsed_s
        if now < self.refused_until.get((who, port), -1.0):
            raise _refusal(port, name)
        fault = self._fault_for(who, port)
        if fault is None:
            return call()
        self.world.count_fault(str(fault), None if who == ENGINE else who)
        if self.world.is_traced:
            self.world.note(None, f"{who}: {fault} {name} ({fault.seconds} s)")
        return self._apply(fault, name, call, suspend)

    def _fault_for(self, who: str, port: str) -> Fault | None:
        for fault in self.armed:
            if fault.who == who and fault.port == port:
                fault.calls -= 1
                if fault.calls <= 0:
                    self.armed.remove(fault)
                    return fault
        return None

    def _apply(self, fault: Fault, name: str, call: Callable[[], Any], suspend: Callable[[float], object]) -> Any:
        kind = fault.kind
        now = self.world.clock.elapsed_s
        if kind == KILLED_BEFORE:
            raise KilledError
        if kind == FAILS_BEFORE:
            raise _failure(fault.port, name)
        if kind in {REFUSED, REFUSED_FOR_A_WHILE}:
            if kind == REFUSED_FOR_A_WHILE:
                self.refused_until[fault.who, fault.port] = now + fault.seconds
            raise _refusal(fault.port, name)
        if kind == STALE:
            self._stale_until[fault.who] = now + fault.seconds
            self.world.reads_stale(fault.who)
        if kind == LATE_BEFORE:
            suspend(fault.seconds)
        answer = call()
        if kind == KILLED_AFTER:
            raise KilledError
        if kind == FAILS_AFTER:
            raise _failure(fault.port, name)
        if kind == LATE_AFTER:
            suspend(fault.seconds)
        return answer


def _failure(port: str, name: str) -> Exception:
    if port == DATABASE:
        return DatabaseError(f"{name}: the server closed the connection unexpectedly.")
    if port == ENVIRONMENT:
        return MwaaUnreachableError(f"The environment did not answer {name}.")
    return StateUnreachableError(f"The {port} did not answer {name}.")


def _refusal(port: str, name: str) -> Exception:
    if port == DATABASE:
        return DatabaseError(f"{name}: permission denied.")
    refused: type[DRError] = MwaaAccessError if port == ENVIRONMENT else StateAccessError
    return refused(f"The {port} refused {name}.")


class Point:
    """A port of an agent, with its faults."""

    def __init__(
        self, points: FaultPoints, region: str, port: str, target: Any, suspend: Callable[[float], object]
    ) -> None:
        self._points, self._region, self._port, self._target, self._suspend = points, region, port, target, suspend

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found
        points, region, port, suspend = self._points, self._region, self._port, self._suspend

        def call(*args: Any, **kwargs: Any) -> Any:
            if not points.armed and not points.refused_until:
                return found(*args, **kwargs)
            called = call_name(name, args)
            return points.call(region, port, called, lambda: found(*args, **kwargs), suspend)

        self.__dict__[name] = call
        return call
