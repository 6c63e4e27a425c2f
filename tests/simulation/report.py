"""The results of many histories: counts that can be added up over processes and over report files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEAST = 12
"""The number of least reached cases of each kind that are printed."""

MOST = 60
"""The number of never reached cases that are printed."""


class OverlappingPartsError(Exception):
    """Two parts contain the same seeds, so their sum would count these twice."""


@dataclass
class Tally:
    """
    Counts of histories.

    :ivar ranges: the first seed and the number of seeds of each part.
    :ivar wrong: the first line of the trace, by seed.
    :ivar again: runs that executed again, by the reason that allows it.
    :ivar reached: for each kind of case (action, fault and phase, branch), how often each case was reached.
    :ivar sampled: the number of histories whose branches were recorded.
    """

    histories: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    due: int = 0
    sampled: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)
    wrong: dict[int, str] = field(default_factory=dict)
    again: Counter[str] = field(default_factory=Counter)
    reached: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.histories += other.histories
        self.seconds += other.seconds
        self.cpu_s += other.cpu_s
        self.due += other.due
        self.sampled += other.sampled
        self.ranges += other.ranges
        self.wrong |= other.wrong
        self.again += other.again
        for kind, counts in other.reached.items():
            # Not +=, which drops counts of zero.
            self.reached.setdefault(kind, Counter()).update(counts)

    def to_json(self) -> str:
        values: dict[str, Any] = {**vars(self), "ranges": _merged(self.ranges)}
        values["wrong"] = {str(seed): verdict for seed, verdict in sorted(self.wrong.items())}
        values["reached"] = {kind: dict(sorted(counts.items())) for kind, counts in sorted(self.reached.items())}
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Tally:
        values = json.loads(text)
        values["ranges"] = [(first, count) for first, count in values["ranges"]]
        values["wrong"] = {int(seed): verdict for seed, verdict in values["wrong"].items()}
        values["again"] = Counter(values["again"])
        values["reached"] = {kind: Counter(counts) for kind, counts in values["reached"].items()}
        return cls(**values)

    def lines(self) -> Iterable[str]:
        """Yield the summary as lines of text."""
        seeds = ", ".join(f"{first} to {first + count - 1}" for first, count in _merged(self.ranges))
        yield (
            f"{self.histories:,} histories (seeds {seeds}) in {self.seconds:.0f} s, "
            f"{self.histories / max(0.001, self.seconds):.1f} per second, "
            f"{self.histories / max(0.001, self.cpu_s):.1f} per second of CPU: {len(self.wrong)} went wrong."
        )
        if self.due:
            again = sum(self.again.values())
            yield f"{self.due:,} runs were expected. Executed again for an allowed reason: {again:,}."
        for why, count in self.again.most_common():
            yield f"  {count:>9,}  {why}"
        for kind, counts in sorted(self.reached.items()):
            yield from self._least(kind, counts)
        for seed, verdict in sorted(self.wrong.items()):
            yield verdict if str(seed) in verdict else f"History {seed}: {verdict}"
        if self.wrong:
            yield "Wrong: " + " ".join(map(str, sorted(self.wrong)))
            yield "To run one of them: .venv/bin/python -m tests.simulation --histories 1 --first SEED"

    def _least(self, kind: str, counts: Counter[str]) -> Iterable[str]:
        never = sorted(name for name, count in counts.items() if not count)
        of = f" of {self.sampled:,} histories" if kind == "branch" else ""
        yield f"{kind.capitalize()}: {len(counts) - len(never):,} reached, {len(never):,} never{of}. The least reached:"
        for name, count in sorted(counts.items(), key=lambda item: (item[1], item[0]))[len(never) :][:LEAST]:
            yield f"  {count:>9,}  {name}"
        for name in never[:MOST]:
            yield f"      never  {name}"
        if len(never) > MOST:
            yield f"      never  {len(never) - MOST:,} more; a report (--report) lists all of them"


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges with adjacent ones merged."""
    merged: list[tuple[int, int]] = []
    for first, count in sorted(ranges):
        if merged and merged[-1][0] + merged[-1][1] == first:
            merged[-1] = merged[-1][0], merged[-1][1] + count
        else:
            merged.append((first, count))
    return merged


def sum_parts(folder: Path) -> Tally:
    """
    Return the sum of the reports in *folder*.

    :raises OverlappingPartsError: two reports contain the same seed.
    """
    total = Tally()
    for path in sorted(folder.glob("*.json")):
        total.add(Tally.from_json(path.read_text(encoding="utf-8")))
    before = None
    for first, count in _merged(total.ranges):
        if before is not None and first < before:
            raise OverlappingPartsError(f"The parts in {folder} overlap: seed {first} is in two of them.")
        before = first + count
    return total
