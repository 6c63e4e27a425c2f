"""The stored list of the DAGs that are unpaused in the active region."""

from __future__ import annotations

from airflow_provider_mwaa_dr.agent.ports import RegionDb
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ports import SNAPSHOTS, Clock, DagSet, StateStore
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.core.timer import Timer
from airflow_provider_mwaa_dr.exceptions import UnreadableItemError

log = get_logger(__name__)

_READ_EVERY_S = 60.0
"""Time between two reads of the snapshot that this agent wrote."""


class SnapshotKeeper:
    """
    Keeps the snapshot of one region, while the region is active and no failover is in progress.

    The first snapshot after a graceful claim is for the engine, and has the plan's id: a list from the agent takes less
    time than one from the REST API. There is none after the engine has recorded the set, because it then pauses DAGs.
    """

    def __init__(self, store: StateStore, db: RegionDb, clock: Clock, *, region: str) -> None:
        self._store = store
        self._db = db
        self._clock = clock
        self._region = region
        self._written: tuple[int, tuple[str, ...]] | None = None
        """The version of the state, and the DAGs, of the last snapshot that this agent wrote."""
        self._read = Timer(clock, _READ_EVERY_S)

    def turn(self, state: DRState) -> None:
        """Store the list of unpaused DAGs, but only if the state is the same before and after they were listed."""
        plan = state.plan
        if plan is not None and plan.set_id is not None:
            return
        dag_ids = self._db.unpaused_dags()
        # The engine that completes a failover also writes a snapshot, for the region that it made active.
        if (state.version, dag_ids) == self._written and self._is_readable():
            return
        if self._store.observe(self._region).state != state:
            return
        now = self._clock.now()
        self._store.put(
            SNAPSHOTS,
            DagSet(
                id=plan.id if plan is not None else f"SNAPSHOT#{self._region}",
                region=self._region,
                recorded_at=now,
                dag_ids=dag_ids,
            ),
        )
        self._written = state.version, dag_ids

    def forget(self) -> None:
        """Write the next snapshot in any case: another environment writes the region's items."""
        self._written = None

    def _is_readable(self) -> bool:
        """Whether the snapshot that this agent wrote can be read; the agent reads it again once a minute."""
        if not self._read.is_due:
            return True
        self._read.restart()
        try:
            self._store.get(SNAPSHOTS, self._region)
        except UnreadableItemError as error:
            log.warning("%s The agent of %s writes it again.", error.message, self._region)
            return False
        return True
