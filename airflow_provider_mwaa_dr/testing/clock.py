"""A clock that moves only when a test moves it."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone


class ManualClock:
    """
    A :class:`~airflow_provider_mwaa_dr.core.ports.Clock` that moves only in ``advance`` and ``sleep``.

    ``monotonic`` and ``now`` move together. Callbacks run in the order of their times, each at exactly its time, in the
    thread that moves the clock. A callback may schedule another one.

    :param start: aware UTC time at which the clock starts.
    :ivar elapsed_s: what ``monotonic`` returns; read only.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)) -> None:
        self._start = start
        self.elapsed_s = 0.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._lock = threading.RLock()

    def monotonic(self) -> float:
        """Return the seconds since the clock was created."""
        return self.elapsed_s

    def now(self) -> datetime:
        """Return the aware UTC time."""
        return self._start + timedelta(seconds=self.elapsed_s)

    def sleep(self, seconds: float) -> None:
        """Move the clock by *seconds*, without waiting."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move the clock by *seconds*, and run the callbacks that are scheduled in that time."""
        with self._lock:
            until = self.elapsed_s + max(0.0, seconds)
            while self._due and self._due[0][0] <= until:
                at, _, callback = heapq.heappop(self._due)
                self.elapsed_s = max(self.elapsed_s, at)
                callback()
            # A callback may have moved the clock, too.
            self.elapsed_s = max(self.elapsed_s, until)

    def after(self, seconds: float, callback: Callable[[], object]) -> None:
        """Call *callback* when the clock has moved by *seconds*."""
        with self._lock:
            heapq.heappush(self._due, (self.elapsed_s + seconds, next(self._order), callback))
