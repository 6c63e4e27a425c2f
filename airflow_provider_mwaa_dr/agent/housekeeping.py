"""The agent's steps that may be slow, and that it repeats about once a minute."""

from __future__ import annotations

from datetime import timedelta

from airflow_provider_mwaa_dr.agent.ports import GateCounts, RegionDb
from airflow_provider_mwaa_dr.agent.process import Process
from airflow_provider_mwaa_dr.agent.silent_heartbeats import SilentHeartbeats
from airflow_provider_mwaa_dr.core.ports import FENCE_LOADS, Clock, StateStore
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.core.timer import Timer
from airflow_provider_mwaa_dr.exceptions import UnreadableItemError

_FENCE_NOTE_S = 3600.0
"""A worker writes at most once in this time that it loads the fence (plugins/fence.py)."""
_CHECKS_EVERY_S = 60.0
"""Time between two runs of the queries that may be slow: which task ended last, and which heartbeats are silent."""


class Housekeeping:
    """
    Removes what is no longer needed in one region, and checks whether its workers load the fence.

    :ivar fence_ok: whether the workers have written that they load the fence; None if it is unknown or not expected.
    """

    def __init__(self, process: Process, store: StateStore, db: RegionDb, clock: Clock, counts: GateCounts) -> None:
        self._process = process
        self._region = process.config.region
        self._store = store
        self._db = db
        self._counts = counts
        self._held_seen = -1
        self._checks = Timer(clock, min(_CHECKS_EVERY_S, 12 * process.config.heartbeat_s))
        self._silent = SilentHeartbeats(store, clock, region=self._region)
        self.fence_ok: bool | None = None

    def lead(self, schedulers: tuple[str, ...], lease_s: float) -> None:
        """Drop the heartbeats of schedulers that no longer exist. The leading agent calls it before :meth:`turn`."""
        if self._checks.is_due:
            self._silent.drop(schedulers, lease_s)

    def turn(self, state: DRState | None) -> None:
        """Remove notes of runs that are no longer held, and check once a minute whether the workers load the fence."""
        held = self._counts.held
        if held != self._held_seen and self._db.drop_held_notes() == 0:
            self._held_seen = held
        if self._checks.is_due:
            self._checks.restart()
            self.fence_ok = self._is_fence_loaded(state)

    def _is_fence_loaded(self, state: DRState | None) -> bool | None:
        if not self._process.config.fence or state is None:
            return None
        ended_at = self._db.last_task_end(self._process.started_at)
        if ended_at is None:
            return None
        try:
            load = self._store.get(FENCE_LOADS, self._region)
        except UnreadableItemError:
            return None  # unknown; status names the item, and a worker writes it again
        return load is not None and load.at >= ended_at - timedelta(seconds=1.5 * _FENCE_NOTE_S)
