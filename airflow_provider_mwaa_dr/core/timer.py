"""When a step is due that a loop repeats less often than its turns."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.ports import Clock


class Timer:
    """
    A step that is repeated after some time. Each turn of a loop asks whether the step is due.

    :param every_s: seconds between two times.
    :param is_due: whether the step is due immediately; otherwise after *every_s* seconds.
    """

    def __init__(self, clock: Clock, every_s: float, *, is_due: bool = True) -> None:
        self._clock = clock
        self._every_s = every_s
        self._next_at = float("-inf") if is_due else clock.monotonic() + every_s

    @property
    def is_due(self) -> bool:
        """Whether it is time for the step."""
        return self._clock.monotonic() >= self._next_at

    def make_due(self) -> None:
        """Let the step be due now."""
        self._next_at = float("-inf")

    def restart(self) -> None:
        """Let the step be due again after the interval, from now on."""
        self._next_at = self._clock.monotonic() + self._every_s
