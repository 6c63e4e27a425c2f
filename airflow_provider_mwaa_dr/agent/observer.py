"""Observing which heartbeats of all regions are silent, for a failover that may come later."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_mwaa_dr.core.heartbeats import SilenceByNumber
from airflow_provider_mwaa_dr.core.ports import Clock, SilentAgent, StateStore
from airflow_provider_mwaa_dr.core.timer import Timer


class Observer:
    """
    Reads the heartbeats of all regions, and reports the silent ones.

    :param every_s: seconds between two reads, and between two heartbeats of a live agent.
    """

    def __init__(self, store: StateStore, clock: Clock, *, every_s: float, is_on: bool) -> None:
        self._store = store
        self._every_s = every_s
        self._is_on = is_on
        self._timer = Timer(clock, every_s)
        self._silence = SilenceByNumber(clock)

    def turn(self, regions: Sequence[str]) -> None:
        """
        Read the heartbeats of *regions*, if it is time for that.

        :raises StateError: they could not be read. Silence that was observed before still counts.
        """
        if not self._is_on or not self._timer.is_due:
            return
        self._timer.restart()
        for region in regions:
            self._silence.note(region, self._store.agents(region))

    def silent(self) -> tuple[SilentAgent, ...]:
        """Return the heartbeats that have been silent for longer than those of a live agent usually are."""
        return self._silence.silent(1.5 * self._every_s)
