"""Closing runs and pausing DAGs that must not start in the region."""

from __future__ import annotations

from datetime import datetime

from airflow_provider_mwaa_dr.agent.ports import RegionDb
from airflow_provider_mwaa_dr.agent.state_reader import StateReader
from airflow_provider_mwaa_dr.core.bookkeeping import open_runs
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.state import DRState

log = get_logger(__name__)


class RunCloser:
    """
    Closes runs and pauses DAGs of one region. It first reads the state again if the last read is too old for that.

    :ivar closed: the number of runs that this agent closed since its start.
    :ivar unclosed: the number of runs that the agent still has to close; 0 while another agent leads.
    """

    def __init__(self, db: RegionDb, reader: StateReader, *, region: str) -> None:
        self._db = db
        self._reader = reader
        self._region = region
        self.closed = 0
        self.unclosed = 0

    def pause_all(self, state: DRState) -> None:
        """
        Pause all DAGs.

        :raises StateChangedError: the state has changed since the turn read it.
        """
        self._reader.confirm(state)
        paused = self._db.pause_all()
        if paused:
            log.info(
                "Paused %d DAGs of %s (active %s, epoch %d)", paused, self._region, state.active_region, state.epoch
            )

    def close(
        self, state: DRState, known: int | None, *, spared_since: datetime | None, queued_for_s: float = 0.0
    ) -> None:
        """
        Close the open runs, and count those that the scheduler has locked; the next turn closes them.

        :param known: the epoch that the runs belong to.
        :param spared_since: runs that a user requested since then stay open.
        :param queued_for_s: close only runs that have been queued for so long.
        :raises StateChangedError: the state has changed since the turn read it.
        """
        if state.active_region == self._region:
            begun = "no known epoch" if known is None else f"epoch {known}"
            note = f"closed: begun under {begun}; {self._region} is active under epoch {state.epoch}"
        else:
            note = f"closed: {self._region} is standby, {state.active_region} is active (epoch {state.epoch})"
        newest = self._db.newest_run()
        self._reader.confirm(state)
        closed = self._db.close_runs(note, queued_for_s=queued_for_s, spared_since=spared_since)
        self.unclosed = self._db.open_runs(up_to=newest, spared_since=spared_since)
        if closed:
            self.closed += closed
            log.info("Closed %d open runs of %s: %s", closed, self._region, note)

    def open_runs(self) -> tuple[str, ...]:
        """Return all queued and running runs, sorted, each as ``DAG_ID RUN_ID``."""
        _, keys = open_runs(self._db)
        return tuple(sorted(" ".join(key) for key in keys))
