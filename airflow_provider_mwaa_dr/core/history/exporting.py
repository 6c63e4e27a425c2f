"""Writes the history of the active site into the table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.history.database import HistoryDb
from airflow_provider_mwaa_dr.core.history.pages import ExportProgress, HistoryPage, HistoryRun, paged
from airflow_provider_mwaa_dr.core.history.store import HistoryStore
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.core.ports import Clock

log = get_logger(__name__)

BATCH = 200
"""The most rows that one step exports of each of its sources."""
_RESTARTS_AFTER_S = 60.0
"""An exporter that made no step for so long reads again what other agents have exported."""
_CLOCKS_DIFFER = timedelta(minutes=5)
"""A scheduler's clock may be behind, so a run may have ended before it was seen."""
_TASKS_END_WITHIN_S = 30.0
"""If a run was ended from outside, its running tasks end some seconds later. The export waits for them so long."""
_PUBLISHED_WITHIN_S = 300.0
"""The export waits so long for the ledger to publish the end of a run."""
_AT_WORK = frozenset(
    {"running", "queued", "scheduled", "restarting", "deferred", "up_for_retry", "up_for_reschedule", "awaiting_input"}
)


class Exporter:
    """
    Exports the ended runs of one site while it is active. Not thread-safe; one thread of one process.

    It finds each run that ends. Once, it also exports the history from before its first export, slowly. The last page
    shows how far an earlier agent has come.

    :param days: runs that ended earlier are not exported.
    """

    def __init__(self, store: HistoryStore, db: HistoryDb, clock: Clock, *, site: str, days: int) -> None:
        self._store = store
        self._db = db
        self._clock = clock
        self._site = site
        self._days = timedelta(days=days)
        self._stepped_at: float | None = None
        self._progress: ExportProgress | None = None
        """None: the last page must be read."""
        self._number = 0
        self._newest = 0
        self._open: frozenset[int] = frozenset()
        self._ended: dict[int, float] = {}
        """Rows of runs that have ended and are not exported, and when this was seen."""
        self._exported_live: set[int] = set()
        """Rows that the sweep need not export again."""
        self._caught_up_to: int | None = 0
        """Rows up to this id were read again for ends that no agent saw; None: all of them."""
        self._catch_up_end = 0
        self.exported = 0

    @property
    def is_complete(self) -> bool:
        """Whether the history from before the first export is exported."""
        return self._progress is not None and self._progress.is_swept and self._caught_up_to is None

    def forget(self) -> None:
        """Read the last page again at the next step: another agent or role may have written pages."""
        self._progress = None

    def step(self, epoch: int, *, may_write: Callable[[], bool], unfinished: Callable[[], Collection[RunKey]]) -> bool:
        """
        Export some runs; return whether more are to be exported now.

        :param epoch: of the site's role.
        :param may_write: reads the state again, and returns whether the site still has this role in a steady phase. It
            is called after the rows were read and before a page is written.
        :param unfinished: returns the runs that the ledger lists as unfinished; their rows may have an end that counts
            for no site, for example because a failover stopped them.
        """
        now = self._clock.monotonic()
        if self._stepped_at is None or now - self._stepped_at > _RESTARTS_AFTER_S:
            self.forget()
        self._stepped_at = now
        started = self._clock.now()
        progress = self._progress or self._begin(started)
        live = self._find_live(now)
        runs: dict[RunKey, HistoryRun] = {}
        if live:
            read = self._db.ended_history(live)
            runs = {run.key: run for run in read.runs}
            live = [row_id for row_id in live if row_id <= read.up_to]
        held = self._held_back(runs, now)
        caught_up_to, swept_id = self._caught_up_to, progress.swept_id
        since = started - self._days
        if caught_up_to is not None:
            missed_since = max(since, progress.live_at - _CLOCKS_DIFFER)
            found = self._db.sweep_history(
                above=caught_up_to, up_to=self._catch_up_end, since=missed_since, limit=BATCH
            )
            runs = {**{run.key: run for run in found.runs}, **runs}
            caught_up_to = None if found.up_to >= self._catch_up_end else found.up_to
        elif not progress.is_swept and not live:
            found = self._db.sweep_history(above=swept_id, up_to=progress.sweep_end, since=since, limit=BATCH)
            runs = {run.key: run for run in found.runs if run.row_id not in self._exported_live}
            swept_id = found.up_to
        if runs:
            held |= self._not_published(runs, unfinished(), now)
        wanted = [run for key, run in runs.items() if key not in held]
        has_all = caught_up_to is None and not held and len(live) == len(self._ended)
        now_done = replace(progress, swept_id=swept_id, live_at=started if has_all else progress.live_at)
        if wanted or now_done.is_swept != progress.is_swept:
            if not may_write():
                return False
            self._write(wanted, epoch, progress, now_done, started)
        self._progress, self._caught_up_to = now_done, caught_up_to
        kept = set(held.values())
        for row_id in live:
            if row_id not in kept:
                self._ended.pop(row_id, None)
                self._exported_live.add(row_id)
        if now_done.is_swept:
            self._exported_live.clear()
        return len(self._ended) > len(kept) or not self.is_complete

    def _begin(self, started: datetime) -> ExportProgress:
        """Read how far an earlier agent has come."""
        last = self._store.last_page(self._site)
        ids = self._db.history_ids(above=None)
        self._number = last.number if last is not None else int(started.timestamp() * 1000)
        self._newest, self._open, self._ended = ids.newest, ids.open, {}
        self._catch_up_end, self._caught_up_to = ids.newest, 0
        if last is None or last.progress is None:
            # The sweep reads every row, so no end can be missed.
            self._caught_up_to = None
            self._progress = ExportProgress(swept_id=0, sweep_end=ids.newest, live_at=started)
        else:
            self._progress = last.progress
        return self._progress

    def _find_live(self, now: float) -> list[int]:
        """Return rows of runs that have ended since the last step, and of those that were held back."""
        ids = self._db.history_ids(above=self._newest)
        for row_id in (self._open - ids.open) | ids.ended:
            self._ended.setdefault(row_id, now)
        for row_id in ids.open:
            self._ended.pop(row_id, None)
        self._open, self._newest = ids.open, max(self._newest, ids.newest)
        return sorted(self._ended)[:BATCH]

    def _held_back(self, runs: dict[RunKey, HistoryRun], now: float) -> dict[RunKey, int]:
        """Return the runs whose tasks have not all ended, with the ids of their rows."""
        held = {}
        for key, run in runs.items():
            seen = self._ended.get(run.row_id, now)
            is_at_work = any(task.state in _AT_WORK for task in run.tasks)
            if is_at_work and now - seen < _TASKS_END_WITHIN_S:
                held[key] = run.row_id
        return held

    def _not_published(
        self, runs: dict[RunKey, HistoryRun], unfinished: Collection[RunKey], now: float
    ) -> dict[RunKey, int]:
        """
        Return the runs that the ledger lists as unfinished, with the ids of their rows.

        The ledger may publish the end in its next turn. If it does not, a failover has stopped the run.
        """
        found = {key: runs[key].row_id for key in runs.keys() & set(unfinished)}
        for row_id in found.values():
            if now - self._ended.get(row_id, now) > _PUBLISHED_WITHIN_S:
                self._ended.pop(row_id, None)
        return found

    def _write(
        self,
        runs: Sequence[HistoryRun],
        epoch: int,
        before: ExportProgress,
        after: ExportProgress,
        at: datetime,
    ) -> None:
        contents = list(paged(runs)) or [()]
        for position, content in enumerate(contents, start=1):
            page = HistoryPage(
                number=self._number + 1,
                at=at,
                epoch=epoch,
                # If the agent dies between two pages, the next one exports all of these runs again.
                progress=after if position == len(contents) else before,
                runs=content,
            )
            # After an error, only the table shows whether the page was written.
            self._progress = None
            self._store.append_page(self._site, page)
            self._number = page.number
            self.exported += len(content)
