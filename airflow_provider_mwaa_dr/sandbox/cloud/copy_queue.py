"""Copies on their way between two regions of the emulated AWS: each arrives after a lag, and not during a fault."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.sandbox.cloud.faults import InjectedFault, cuts

log = get_logger(__name__)

RETRY_S = 0.25
"""Time between two attempts to deliver a copy during a fault. Without a copy to deliver, no timer runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """
    A copy that is to be delivered to another region.

    :param name: what is copied, for the log.
    :param deliver: writes the copy into the target.
    """

    source: str
    target: str
    name: str
    deliver: Callable[[], None]


class CopyQueue:
    """
    Delivers copies in one thread, which starts with the first copy.

    A copy that a fault between its regions holds up is delivered when the fault is removed. A fault of the kind *delay*
    holds nothing up.

    :param fault: returns the fault between a source and a target; called for each delivery.
    """

    def __init__(self, fault: Callable[[str, str], InjectedFault | None]) -> None:
        self._fault = fault
        self._order = itertools.count()
        self._under_way: list[tuple[float, int, Copy]] = []
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, copy: Copy, *, after_s: float) -> None:
        """Deliver *copy* after so many seconds, or later."""
        with self._news:
            heapq.heappush(self._under_way, (time.monotonic() + after_s, next(self._order), copy))
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver_all, name="copies", daemon=True)
                self._thread.start()
            self._news.notify()

    def _deliver_all(self) -> None:
        while True:
            with self._news:
                while not self._under_way or (wait_s := self._under_way[0][0] - time.monotonic()) > 0:
                    self._news.wait(wait_s if self._under_way else None)
                copy = heapq.heappop(self._under_way)[2]
            if cuts(self._fault(copy.source, copy.target)):
                self.add(copy, after_s=RETRY_S)
                continue
            try:
                copy.deliver()
            except Exception:
                log.exception("%s could not be copied from %s to %s", copy.name, copy.source, copy.target)
