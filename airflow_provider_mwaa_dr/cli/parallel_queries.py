"""Query several regions in parallel, with a short time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import DRError, MwaaUnreachableError

ANSWER_S = 3.0
"""Timeout. A region that is down must not delay a command that only shows its answer."""

T = TypeVar("T")


class ParallelQueries(Generic[T]):
    """
    Queries in progress, with one thread for each. A query must change nothing, because late answers are ignored.

    :param queries: functions to call, by region.
    """

    def __init__(self, queries: Mapping[str, Callable[[], T]], clock: Clock) -> None:
        self._clock = clock
        self._until = clock.monotonic() + ANSWER_S
        self._found: dict[str, T | DRError] = {}
        # Daemon threads: the process must be able to exit while a thread still waits for a region that is down.
        self._threads = {
            region: threading.Thread(target=self._run, args=(region, query), daemon=True)
            for region, query in queries.items()
        }
        for thread in self._threads.values():
            thread.start()

    def _run(self, region: str, query: Callable[[], T]) -> None:
        try:
            self._found[region] = query()
        except DRError as error:
            self._found[region] = error

    def collect(self) -> Mapping[str, T | DRError]:
        """Return the answer or the error of each region. A region with a late answer counts as unreachable."""
        for thread in self._threads.values():
            thread.join(max(0.0, self._until - self._clock.monotonic()))
        late = MwaaUnreachableError(f"no answer within {ANSWER_S:g} s")
        return {region: self._found.get(region, late) for region in self._threads}
