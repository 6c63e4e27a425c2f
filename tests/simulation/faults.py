"""
Fault points inside the functions of agent and engine: what may happen at any call of theirs on a port.

A seed switches them on for about half of the histories, and chooses how many, where, and when they are armed: after
some seconds, or when the state enters a phase. An armed fault strikes at the n-th call that fits it. The choices come
from a random generator of their own, so a history without them stays what it was.

An agent whose call takes long is suspended in the middle of its turn: the world goes on, and so does its scheduler's
gate.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.exceptions import (
    DRError,
    MwaaAccessError,
    MwaaUnreachableError,
    StateAccessError,
    StateUnreachableError,
)
from tests.histories import A, B, KilledError

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
LEDGER_REFUSES = False
"""Whether refusals of the ledger are among them: agents go on without a ledger that refuses, and lose runs."""
STALE_S = 8.0
"""A copy of the ledger may be so far behind."""


class DatabaseError(Exception):
    """The metadata database has gone away, as SQLAlchemy says it."""


@dataclass
class Fault:
    """
    Something that happens once.

    :param who: a region, whose agents it is meant for; or ENGINE.
    :param calls: at which call on the port from now on.
    :param seconds: how long it lasts, where it lasts.
    """

    who: str
    port: str
    kind: str
    calls: int
    seconds: float

    def __str__(self) -> str:
        return f"{'engine' if self.who == ENGINE else 'agent'}'s {self.port} {self.kind}"


def names() -> Sequence[str]:
    """Return each fault as it is counted, without its place."""
    ports = [(ENGINE, port) for port in ENGINE_PORTS] + [(A, port) for port in AGENT_PORTS]
    faults = [Fault(who, port, kind, 1, 0.0) for who, port in ports for kind in KINDS]
    return [str(fault) for fault in faults if _is_possible(fault)]


def _is_possible(fault: Fault) -> bool:
    if fault.kind == STALE:
        # All other reads are consistent: those of the state table, and a region's of its own database.
        return fault.port == LEDGER
    return LEDGER_REFUSES or fault.port != LEDGER or fault.kind not in {REFUSED, REFUSED_FOR_A_WHILE}


class FaultPoints:
    """The armed faults of a history."""

    def __init__(self, world: Simulation, seed: int) -> None:
        self.world = world
        self.rng = random.Random(f"{seed}-faults")
        self.armed: list[Fault] = []
        self._on_phase: list[tuple[Phase, Fault]] = []
        self.refused_until: dict[tuple[str, str], float] = {}
        self._stale_until: dict[str, float] = {}
        self.is_on = self.rng.random() < 0.5

    def plan(self) -> None:
        """Choose what strikes, and when it is armed."""
        if not self.is_on:
            return
        for _ in range(self.rng.choice([1, 1, 2, 3, 5])):
            fault = self._choose()
            if self.rng.random() < 0.6:
                self._on_phase.append((self.rng.choice([*list(Phase)[1:], Phase.PROMOTING]), fault))
            else:
                self.world.clock.after(self.rng.uniform(0, 90), lambda fault=fault: self.arm(fault))  # type: ignore[misc]

    def _choose(self) -> Fault:
        rng = self.rng
        while True:
            who = rng.choice([A, B, ENGINE])
            fault = Fault(
                who,
                rng.choice(ENGINE_PORTS if who == ENGINE else AGENT_PORTS),
                rng.choice(KINDS),
                rng.choice([1, rng.randint(1, 6), rng.randint(1, 30)]),
                rng.choice([1.5, 3.0, 7.0, 15.0]),
            )
            if _is_possible(fault):
                return fault

    def arm(self, fault: Fault) -> None:
        if not self.world.is_mended:
            self.armed.append(fault)

    def entered(self, phase: Phase) -> None:
        """The state has entered a phase: the first fault that waits for it is armed."""
        for each in self._on_phase:
            if each[0] is phase:
                self._on_phase.remove(each)
                self.arm(each[1])
                return

    def mend(self) -> None:
        self.armed.clear()
        self._on_phase.clear()
        self.refused_until.clear()
        self._stale_until.clear()

    def is_stale(self, region: str) -> bool:
        """Whether what *region* reads of the other one's ledger is some seconds old."""
        return self.world.clock.elapsed_s < self._stale_until.get(region, -1.0)

    def call(self, who: str, port: str, name: str, call: Callable[[], Any], suspend: Callable[[float], object]) -> Any:
        """Make a call, with what strikes at it."""
        now = self.world.clock.elapsed_s
        if now < self.refused_until.get((who, port), -1.0):
            raise _refusal(port, name)
        fault = self._due(who, port)
        if fault is None:
            return call()
        self.world.strikes(str(fault), None if who == ENGINE else who)
        if self.world.is_traced:
            self.world.note(None, f"{who}: {fault} {name} ({fault.seconds} s)")
        return self._strike(fault, name, call, suspend)

    def _due(self, who: str, port: str) -> Fault | None:
        for fault in self.armed:
            if fault.who == who and fault.port == port:
                fault.calls -= 1
                if fault.calls <= 0:
                    self.armed.remove(fault)
                    return fault
        return None

    def _strike(self, fault: Fault, name: str, call: Callable[[], Any], suspend: Callable[[float], object]) -> Any:
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
            return points.call(region, port, name, lambda: found(*args, **kwargs), suspend)

        self.__dict__[name] = call
        return call
