"""
Search all states of the protocol up to a depth, breadth first; ``make explore DEPTH=9``.

The first violation is one of the shortest. It is printed with the steps that lead to it.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tests.exploration.model import BrokenError, Model


@dataclass(frozen=True)
class Scope:
    """
    A world to search.

    :param schedulers: number in the region that is active at first, and in the other region.
    :param depth: the number of steps that ``make test`` searches; None: all.
    :param starts: how many times each caller may let awaited runs start.
    :param halts: whether callers may halt their plan, and agents finish one.
    """

    schedulers: tuple[int, int]
    callers: int
    faults: int
    depth: int | None
    starts: int = 0
    halts: bool = False

    def __str__(self) -> str:
        source, target = self.schedulers
        starts = ", starts awaited runs" if self.starts else ""
        halts = ", halts" if self.halts else ""
        return f"{source} + {target} schedulers, {self.callers} callers, {self.faults} faults{starts}{halts}"

    def model(self) -> Model:
        """Return the model of this world."""
        return Model(self.schedulers, callers=self.callers, faults=self.faults, starts=self.starts, halts=self.halts)


SCOPES = (
    Scope((1, 1), callers=1, faults=1, depth=None),
    Scope((1, 1), callers=2, faults=0, depth=12),
    Scope((1, 1), callers=2, faults=2, depth=6),
    Scope((1, 1), callers=1, faults=1, depth=9, starts=1),
    Scope((2, 1), callers=2, faults=2, depth=5),
    Scope((1, 2), callers=2, faults=2, depth=5),
    Scope((1, 1), callers=2, faults=0, depth=7, halts=True),
    Scope((1, 1), callers=2, faults=1, depth=5, halts=True),
    Scope((1, 1), callers=1, faults=1, depth=10, halts=True),
)


@dataclass(frozen=True)
class Found:
    """
    The result of a search.

    :param broken: the invariant that does not hold; empty if all hold.
    :param trace: the steps that lead to the violation.
    :param is_complete: whether no state with further steps is left.
    """

    states: int
    depth: int
    seconds: float
    broken: str = ""
    trace: Sequence[str] = ()
    is_complete: bool = False

    def __str__(self) -> str:
        summary = f"{self.states:,} states, depth {self.depth}, {self.seconds:.1f} s"
        if self.is_complete:
            summary += ", complete"
        if not self.broken:
            return f"{summary}: every invariant holds"
        lines = (f"  {number:2}. {step}" for number, step in enumerate(self.trace, start=1))
        return "\n".join((f"{summary}: {self.broken}", *lines))


S = TypeVar("S", bound=Hashable)


class Searched(Protocol[S]):
    """A world: its first state, its steps, and its invariants."""

    def start(self) -> S:
        """Return the first state."""

    def steps(self, world: S) -> Iterator[tuple[str, S]]:
        """Yield each step, with its name and the state after it."""

    def check(self, world: S) -> None:
        """:raises BrokenError: an invariant does not hold."""


def search(model: Searched[S], depth: int | None) -> Found:
    """Search up to *depth* steps, or everything. Stop at the first violation."""
    gc.disable()  # the states have no cycles, and there are hundreds of thousands of them
    try:
        return _search(model, depth)
    finally:
        gc.enable()


def _search(model: Searched[S], depth: int | None) -> Found:
    began = time.perf_counter()
    start = model.start()
    came_from: dict[S, tuple[S, str] | None] = {start: None}
    level, reached = [start], 0
    while level and (depth is None or reached < depth):
        reached += 1
        following: list[S] = []
        for world in level:
            steps = model.steps(world)
            while True:
                try:
                    name, new = next(steps)
                except StopIteration:
                    break
                except BrokenError as error:
                    return _broken(came_from, world, error.step, error, reached, began)
                step = (world, name)
                if came_from.setdefault(new, step) is not step:
                    continue
                try:
                    model.check(new)
                except BrokenError as error:
                    return _broken(came_from, world, name, error, reached, began)
                following.append(new)
        level = following
    return Found(states=len(came_from), depth=reached, seconds=time.perf_counter() - began, is_complete=not level)


def _broken(
    came_from: dict[S, tuple[S, str] | None],
    world: S,
    name: str,
    error: BrokenError,
    depth: int,
    began: float,
) -> Found:
    trace = [name] if name else []
    while (step := came_from[world]) is not None:
        world, before = step
        trace.append(before)
    return Found(
        states=len(came_from),
        depth=depth,
        seconds=time.perf_counter() - began,
        broken=str(error),
        trace=tuple(reversed(trace)),
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exploration", description=(__doc__ or "").strip())
    parser.add_argument("--depth", type=int, help="steps in each world (default: as in make test)")
    options = parser.parse_args()
    code = 0
    for scope in SCOPES:
        found = search(scope.model(), scope.depth if options.depth is None else options.depth)
        print(f"{scope}: {found}", flush=True)
        code |= bool(found.broken)
    return code
