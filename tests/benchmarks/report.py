"""What a benchmark measured, against its goal and beside what people would use instead."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """
    One thing that was measured, some times.

    :param what: a phrase; unique in a report.
    :param values: one a turn, in *unit*.
    :param goal: what the middle one is to stay below; None: a figure without a goal.
    :param peers: the same work done in another way, by its name: a value a turn, taken in turn with ours.
    :param note: what a reader must know of it.
    :param series: what is measured again for other numbers of DAGs, with *size*, this number.
    """

    what: str
    unit: str
    values: Sequence[float]
    goal: float | None = None
    peers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    note: str = ""
    series: str = ""
    size: int | None = None

    @property
    def middle(self) -> float:
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        return None if self.goal is None else self.middle <= self.goal

    def ratios(self, peer: str) -> Sequence[float]:
        """How many times as much as ours the peer takes, turn by turn, ascending."""
        return sorted(theirs / ours for ours, theirs in zip(self.values, self.peers[peer], strict=True))

    def as_json(self) -> dict[str, Any]:
        """Return all of it, with the middle and the ratios."""
        ratios = {peer: self.ratios(peer) for peer in self.peers}
        return {
            **asdict(self),
            "median": self.middle,
            "met": self.is_met,
            "ratios": {
                peer: {"median": statistics.median(found), "min": found[0], "max": found[-1]}
                for peer, found in ratios.items()
            },
        }


def seconds(act: Callable[[], object]) -> float:
    """Return how long it takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


@dataclass
class Report:
    """What one benchmark has found so far: a file of the machine, the versions, and a row for each figure."""

    benchmark: str
    versions: Mapping[str, str] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)

    def keep(self, **values: Any) -> None:
        """Take what was measured (see :class:`Measured`), print it, and write all that there is."""
        self.measured.append(Measured(**values))
        BUILD.mkdir(parents=True, exist_ok=True)
        content = {
            "benchmark": self.benchmark,
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
            "versions": dict(self.versions),
            "measured": [each.as_json() for each in self.measured],
        }
        (BUILD / f"{self.benchmark}.json").write_text(json.dumps(content, indent=2) + "\n")
        print(row(content["measured"][-1]), flush=True)


def shown(value: float) -> str:
    """Return a number as people read it: three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def row(found: Mapping[str, Any]) -> str:
    """Return a row of a table for people, from what :meth:`Measured.as_json` returned."""
    verdict = {True: "met", False: "**missed**", None: ""}[found["met"]]
    goal = "" if found["goal"] is None else f"at most {shown(found['goal'])} {found['unit']}"
    beside = []
    for peer, ratio in found["ratios"].items():
        theirs = f"{peer}: {shown(statistics.median(found['peers'][peer]))} {found['unit']}"
        times = f"{shown(ratio['median'])} times as much ({shown(ratio['min'])} to {shown(ratio['max'])})"
        beside.append(f"{theirs}, {times}")
    spread = f" ({shown(min(found['values']))} to {shown(max(found['values']))})" if len(found["values"]) > 1 else ""
    ours = f"{shown(found['median'])} {found['unit']}{spread}"
    return f"| {' | '.join((found['what'], ours, goal, verdict, '; '.join(beside), found['note']))} |"
