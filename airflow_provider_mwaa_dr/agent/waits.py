"""Finding the held runs that work in progress waits for, while the region is drained."""

from __future__ import annotations

from airflow_provider_mwaa_dr.agent.ports import RegionDb
from airflow_provider_mwaa_dr.agent.state_reader import StateReader
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.waits import Waits

_NONE = Waits()


class WaitsReader:
    """
    Reads what the work in progress waits for, for this scheduler's gate and for the heartbeat.

    :ivar found: the result of the last turn; empty unless the region is being drained.
    """

    def __init__(self, db: RegionDb, reader: StateReader, *, region: str) -> None:
        self._db = db
        self._reader = reader
        self._region = region
        self.found = _NONE

    def turn(self, state: DRState, *, is_leading: bool) -> None:
        """
        Read it, and give it to the gate. If the read fails, the gate holds every run.

        :param is_leading: the leading agent also puts the awaited runs at the head of the queue. The scheduler examines
            only the first runs of a long queue.
        """
        plan = state.plan
        is_draining = state.phase is Phase.DRAINING and state.active_region == self._region
        if plan is None or not is_draining or plan.is_forced:
            self.forget()
            return
        try:
            found = self._db.waits()
        except Exception:
            self.forget()
            raise
        if is_leading and plan.starts_awaited and found.awaited:
            self._db.put_first(found.awaited)
        self._set(found)

    def forget(self) -> None:
        """Hold every run: what work in progress waits for is not known."""
        self._set(_NONE)

    def _set(self, found: Waits) -> None:
        self.found = found
        self._reader.set_awaited(found.awaited)
