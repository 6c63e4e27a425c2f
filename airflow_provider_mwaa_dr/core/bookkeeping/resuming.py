"""Starting the unfinished runs of all regions in the active region."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from datetime import datetime

from airflow_provider_mwaa_dr.core.bookkeeping.conversion import was_queued
from airflow_provider_mwaa_dr.core.bookkeeping.database import LedgerDb
from airflow_provider_mwaa_dr.core.bookkeeping.own_ledger import OwnLedger
from airflow_provider_mwaa_dr.core.bookkeeping.peer_ledgers import PeerLedgers
from airflow_provider_mwaa_dr.core.bookkeeping.stops import is_stopped
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RegionLedger, RunKey, RunStatus, unfinished_runs
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.timer import Timer

log = get_logger(__name__)

_STUCK_EVERY_S = 30.0
"""Time between two attempts to start runs that could not be started."""
_MOST_LISTED = 20
"""The most runs that a heartbeat lists."""
_BATCH = 500
"""The most runs that one turn resumes, so that the agent's other work does not wait."""


class Resumer:
    """Resumes the unfinished runs in one region, and remembers those that it cannot start."""

    def __init__(self, own: OwnLedger, peers: PeerLedgers, db: LedgerDb, clock: Clock, *, region: str) -> None:
        self._own = own
        self._peers = peers
        self._db = db
        self._clock = clock
        self._region = region
        self._stuck: dict[RunKey, str] = {}
        """The runs that could not be started, with the reason."""
        self._retry = Timer(clock, _STUCK_EVERY_S, is_due=False)
        self._to_retry: set[RunKey] = set()
        self._doubted: set[RunKey] = set()

    @property
    def waiting(self) -> tuple[str, ...]:
        """The first of the unfinished runs that this region cannot start, with the reason."""
        if not self._stuck:
            return ()
        some = [f"{dag_id} {run_id}: {why}" for (dag_id, run_id), why in sorted(self._stuck.items())[:_MOST_LISTED]]
        more = len(self._stuck) - len(some)
        return (*some, f"and {more} more") if more else tuple(some)

    def resume(self, *, epoch: int, rows_read_at: datetime | None) -> bool:
        """
        Start the unfinished runs of all regions in this region; return whether more are to be started.

        It first publishes that the run is open in this region under this epoch, and then queues it. If the leader dies
        in between, the next leader queues the run.

        :param rows_read_at: when the agent read the rows that it last published.
        """
        own = self._own.load()
        to_queue = self._taken_but_not_queued(own)
        waiting = unfinished_runs([own, *self._peers.ledgers.values()])
        self._refresh_stuck(waiting)
        stopped = {key for key in waiting if (mine := own.runs.get(key)) is not None and is_stopped(mine, epoch)}
        # The call that stops a run may still be in progress. After the row has ended, the call has no effect.
        not_ended = {row.key for row in self._db.runs(stopped) if row.is_open} if stopped else set()
        # Once the missing entries have arrived, these runs need not wait for the next attempt.
        self._stuck = {key: why for key, why in self._stuck.items() if key not in self._doubted}
        doubts = self._doubts(waiting)
        self._doubted = set(doubts)
        candidates = []
        for key, run in waiting.items():
            if key in not_ended:
                continue
            mine = own.runs.get(key)
            # The run is open in this region. Or it ended in this region, under an epoch that is lower than those of
            # the other regions because the state table was created again.
            if mine is not None and mine.status is not RunStatus.INTERRUPTED and mine.epoch == epoch:
                continue
            if key in doubts:
                self._note_stuck({key: doubts[key]})
            elif run.conf_lost is not None:
                self._stuck[key] = f"its conf is not in the ledger: {run.conf_lost}"
            elif (without_events := run.why_without_events) is not None:
                self._note_stuck({key: f"the events that triggered it are not in the ledger: {without_events}"})
            elif key not in self._stuck or key in self._to_retry:
                candidates.append(run)
        batch = candidates[:_BATCH]
        refused = self._db.cannot_resume(batch) if batch else {}
        self._to_retry -= {run.key for run in batch}
        self._note_stuck(refused)
        taken_at = rows_read_at or self._clock.now()
        taken = [
            replace(run, status=RunStatus.OPEN, epoch=epoch, taken_at=taken_at)
            for run in batch
            if run.key not in refused
        ]
        if taken:
            # Note this before the write: one entry may be written, and the next one or the checkpoint may fail.
            self._own.not_queued |= {run.key for run in taken}
            self._own.append(epoch, taken, first_id=own.first_id, newest_id=own.newest_id)
        if to_queue or taken:
            failed = self._db.resume(
                [*to_queue, *taken], f"resumed: it was interrupted; {self._region} runs it again (epoch {epoch})"
            )
            self._note_stuck(failed)
            self._own.not_queued = set(failed)  # the next turn tries them again
            queued = {run.key for run in (*to_queue, *taken)} - failed.keys()
            self._stuck = {key: why for key, why in self._stuck.items() if key not in queued}
            if queued:
                log.info("%s resumes %d interrupted runs (epoch %d)", self._region, len(queued), epoch)
        return len(candidates) > len(batch)

    def _doubts(self, waiting: Mapping[RunKey, LedgerRun]) -> dict[RunKey, str]:
        """Return the runs that may have ended in an entry that cannot be read, with the reason."""
        doubts = {
            key: f"it may have ended: {why}"
            for region, why in self._peers.missing.items()
            for key, run in self._peers.ledgers[region].runs.items()
            if run.is_unfinished and key in waiting
        }
        return doubts | {key: run.doubt for key, run in waiting.items() if run.doubt is not None}

    def make_room(self, queued: Set[RunKey]) -> None:
        """
        Let resumed runs start although later runs, which wait for them, take all of ``max_active_runs``.

        :param queued: the runs that are queued.
        """
        own = self._own.load()
        waiting = [
            run
            for key in sorted(queued & own.runs.keys())
            if (run := own.runs[key]).status is RunStatus.OPEN and run.taken_at is not None
        ]
        if waiting and (moved := self._db.make_room(waiting)):
            log.info(
                "%d runs of %s went back to the queue, so that the earlier runs that they wait for can start",
                moved,
                self._region,
            )

    def _taken_but_not_queued(self, own: RegionLedger) -> list[LedgerRun]:
        """Return the runs that this or an earlier leader published as taken over, but did not queue."""
        if not self._own.not_queued:
            return []
        rows = {row.key: row for row in self._db.runs(self._own.not_queued)}
        not_queued = []
        for key in sorted(self._own.not_queued):
            run, row = own.runs.get(key), rows.get(key)
            if run is None or run.status is not RunStatus.OPEN or run.taken_at is None:
                continue
            if row is None or not was_queued(row, run):
                not_queued.append(run)
        self._own.not_queued = {run.key for run in not_queued}
        return not_queued

    def _refresh_stuck(self, waiting: Mapping[RunKey, LedgerRun]) -> None:
        """Drop the reasons of runs that no longer wait, and let the others be tried again every 30 s."""
        self._stuck = {key: why for key, why in self._stuck.items() if key in waiting}
        if self._retry.is_due:
            self._to_retry = set(self._stuck)
            self._retry.restart()

    def _note_stuck(self, reasons: Mapping[RunKey, str]) -> None:
        """Store the reasons why these runs cannot be started, for the heartbeat; log each new reason."""
        for key, why in reasons.items():
            if self._stuck.get(key) != why:
                log.warning("%s %s was interrupted and cannot be started in %s: %s", *key, self._region, why)
        self._stuck.update(reasons)
