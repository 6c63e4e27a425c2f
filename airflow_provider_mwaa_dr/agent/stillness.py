"""For how long the state has not changed."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.state import DRState


class Stillness:
    """
    Counts for how long the state has not changed, on this process's clock, and only time in which it read the state.

    :param gap_s: the longest time between two reads. After a longer one, the count begins again.
    """

    def __init__(self, clock: Clock, *, gap_s: float) -> None:
        self._clock = clock
        self._gap_s = gap_s
        self._version: int | None = None
        self._since = self._read_at = clock.monotonic()

    def seconds(self, state: DRState) -> float:
        """Note a read of the state, and return for how many seconds it has not changed."""
        now = self._clock.monotonic()
        if state.version != self._version or now - self._read_at > self._gap_s:
            self._version, self._since = state.version, now
        self._read_at = now
        return now - self._since
