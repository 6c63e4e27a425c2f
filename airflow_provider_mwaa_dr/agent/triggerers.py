"""Which triggerers of the region may run asset watchers, for the heartbeat."""

from __future__ import annotations

from airflow_provider_mwaa_dr.agent.ports import RegionDb
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ports import TRIGGERERS, Clock, StateStore, TriggererStatus
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.timer import Timer
from airflow_provider_mwaa_dr.core.watching import Watchers

log = get_logger(__name__)

_EVERY_S = 60.0
_FORGET_AFTER_S = 600.0
"""The agent deletes the item of a triggerer that the database does not list for so long."""


class TriggererList:
    """
    Reads the region's triggerers about once a minute, and in each turn while the region is drained.

    :ivar found: the result of the last read.
    :ivar unguarded: the triggerers that publish no item since the read before the last one, at least.
    """

    def __init__(self, store: StateStore, db: RegionDb, clock: Clock, *, region: str, every_s: float) -> None:
        self._store = store
        self._db = db
        self._clock = clock
        self._region = region
        self._timer = Timer(clock, min(_EVERY_S, every_s))
        self._silent: frozenset[str] = frozenset()
        self._gone: dict[TriggererStatus, float] = {}
        self.found = Watchers()
        self.unguarded: tuple[str, ...] = ()

    def turn(self, state: DRState | None, *, is_leading: bool) -> None:
        """
        Read the database, and once a minute also the items of the triggerers.

        :param is_leading: the leading agent also deletes items of triggerers that have ended.
        """
        is_draining = state is not None and state.phase is Phase.DRAINING and state.active_region == self._region
        if not self._timer.is_due and not is_draining:
            return
        self.found = self._db.watchers()
        if not self._timer.is_due:
            return
        self._timer.restart()
        if not self.found.count and not self._gone:
            self.unguarded, self._silent = (), frozenset()
            return
        items = self._store.find_all(TRIGGERERS, self._region)
        silent = frozenset(self.found.triggerers) - {item.job for item in items}
        self.unguarded = tuple(job for job in self.found.triggerers if job in silent & self._silent)
        self._silent = silent
        if is_leading:
            self._drop([item for item in items if item.job not in self.found.triggerers])

    def _drop(self, gone: list[TriggererStatus]) -> None:
        now = self._clock.monotonic()
        self._gone = {item: self._gone.get(item, now) for item in gone}
        for item, since in self._gone.items():
            if now - since >= _FORGET_AFTER_S:
                self._store.delete(TRIGGERERS, item)
                log.info("Dropped the item of triggerer job %s of %s, which has ended.", item.job, self._region)
