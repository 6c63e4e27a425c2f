"""Asking several regions at once, for as long as a person waits and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import DRError, MwaaUnreachableError

ANSWER_S = 3.0
"""A region that is down must not make slow what only wanted to mention it."""

T = TypeVar("T")


class Answers(Generic[T]):
    """
    Questions under way, one thread each. What is asked must change nothing: late answers are thrown away.

    :param questions: what to call, by region.
    """

    def __init__(self, questions: Mapping[str, Callable[[], T]], clock: Clock) -> None:
        self._clock = clock
        self._until = clock.monotonic() + ANSWER_S
        self._found: dict[str, T | DRError] = {}
        # Daemon threads: one that waits for a region that is down must not keep the process.
        self._threads = {
            region: threading.Thread(target=self._ask, args=(region, question), daemon=True)
            for region, question in questions.items()
        }
        for thread in self._threads.values():
            thread.start()

    def _ask(self, region: str, question: Callable[[], T]) -> None:
        try:
            self._found[region] = question()
        except DRError as error:
            self._found[region] = error

    def collect(self) -> Mapping[str, T | DRError]:
        """Return an answer for each region, or the error in its place; one that is late counts as unreachable."""
        for thread in self._threads.values():
            thread.join(max(0.0, self._until - self._clock.monotonic()))
        late = MwaaUnreachableError(f"no answer within {ANSWER_S:g} s")
        return {region: self._found.get(region, late) for region in self._threads}
