"""How busy the machine is during a measurement: the cores' load, and the part of it that a sandbox causes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tests.sandbox.harness import Pair

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _busy_s() -> float:
    """Return the CPU seconds of all processes since the machine's start."""
    user, nice, system, _idle, _wait, irq, soft_irq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + soft_irq) * _TICK_S


def _used_s(sessions: frozenset[int]) -> float:
    """Return the CPU seconds of the living processes of *sessions*, and of their children that have ended."""
    used = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) in sessions:
            used += sum(map(int, fields[11:15]))
    return used * _TICK_S


@dataclass(frozen=True, slots=True)
class Busy:
    """Since when a sandbox is measured. Processes that begin and end outside of its sessions count as others."""

    pair: Pair
    since: datetime
    at: float
    all_s: float
    own_s: float

    @classmethod
    def of(cls, pair: Pair) -> Busy:
        """Begin now."""
        return cls(pair, datetime.now(tz=timezone.utc), time.perf_counter(), _busy_s(), _used_s(_sessions(pair)))

    def __str__(self) -> str:
        took_s = time.perf_counter() - self.at
        every_s, own_s = _busy_s() - self.all_s, _used_s(_sessions(self.pair)) - self.own_s
        cores = os.cpu_count() or 1
        return (
            f"load {os.getloadavg()[0]:.1f}; {every_s / took_s:.1f} of {cores} cores busy, "
            f"{max(0.0, own_s) / took_s:.1f} with the sandbox"
        )


def _sessions(pair: Pair) -> frozenset[int]:
    return frozenset(session.pid for sessions in pair.sandbox.home.sessions().values() for session in sessions.values())
