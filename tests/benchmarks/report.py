"""The figures of a benchmark, with goals and comparisons with alternatives."""

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
    One figure, measured several times.

    :param what: description; unique in a report.
    :param values: one value for each repetition, in *unit*.
    :param goal: maximum for the median; None: no goal.
    :param peers: values of alternatives that do the same work, by name; one for each repetition, alternating with ours.
    :param note: remarks for the reader.
    :param series: name of the figure without *size*, the number of DAGs, for figures that are measured for several
        sizes.
    :param parts: seconds of each part of the work, such as a failover's steps, in their order; one value for each
        repetition in which the part was needed.
    """

    what: str
    unit: str
    values: Sequence[float]
    goal: float | None = None
    peers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    note: str = ""
    series: str = ""
    size: int | None = None
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def middle(self) -> float:
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        return None if self.goal is None else self.middle <= self.goal

    def ratios(self, peer: str) -> Sequence[float]:
        """Return the ratios of the peer's values to ours for each repetition, sorted."""
        return sorted(theirs / ours for ours, theirs in zip(self.values, self.peers[peer], strict=True))

    def as_json(self) -> dict[str, Any]:
        """Return all fields, with the median and the ratios."""
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
    """Return the duration of *act*."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


@dataclass
class Report:
    """
    The figures of one benchmark so far: a file with the machine, the versions, and a row for each figure.

    :param is_part: whether the file keeps its other rows from earlier measurements.
    """

    benchmark: str
    versions: Mapping[str, str] = field(default_factory=dict)
    is_part: bool = False
    measured: list[Measured] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._path = BUILD / f"{self.benchmark}.json"
        self._earlier = json.loads(self._path.read_text())["measured"] if self.is_part and self._path.exists() else []

    def keep(self, **values: Any) -> None:
        """Add a figure (see :class:`Measured`), print it, and write the file."""
        self.measured.append(Measured(**values))
        BUILD.mkdir(parents=True, exist_ok=True)
        names = {each.what for each in self.measured}
        rows = [each.as_json() for each in self.measured]
        content = {
            "benchmark": self.benchmark,
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
            "versions": dict(self.versions),
            "measured": [*(each for each in self._earlier if each["what"] not in names), *rows],
        }
        self._path.write_text(json.dumps(content, indent=2) + "\n")
        print(row(rows[-1]), flush=True)


def shown(value: float) -> str:
    """Return a number for readers: three digits, or all digits before the decimal point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def row(found: Mapping[str, Any]) -> str:
    """Return a row of a Markdown table, from the result of :meth:`Measured.as_json`."""
    verdict = {True: "met", False: "**missed**", None: ""}[found["met"]]
    goal = "" if found["goal"] is None else f"at most {shown(found['goal'])} {found['unit']}"
    beside = []
    for peer, ratio in found["ratios"].items():
        theirs = f"{peer}: {shown(statistics.median(found['peers'][peer]))} {found['unit']}"
        times = f"{shown(ratio['median'])} times as much ({shown(ratio['min'])} to {shown(ratio['max'])})"
        beside.append(f"{theirs}, {times}")
    spread = f" ({shown(min(found['values']))} to {shown(max(found['values']))})" if len(found["values"]) > 1 else ""
    ours = f"{shown(found['median'])} {found['unit']}{spread}"
    parts = ", ".join(f"{name} {statistics.median(values):.1f}" for name, values in found["parts"].items())
    note = "; ".join(filter(None, (parts, found["note"])))
    return f"| {' | '.join((found['what'], ours, goal, verdict, '; '.join(beside), note))} |"
