"""Publishing that the region has begun or lost the active role."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime

from airflow_provider_mwaa_dr.core.bookkeeping.conversion import to_run
from airflow_provider_mwaa_dr.core.bookkeeping.database import LedgerDb, RunRow, open_runs
from airflow_provider_mwaa_dr.core.bookkeeping.outcomes import RowOutcomes
from airflow_provider_mwaa_dr.core.bookkeeping.own_ledger import OwnLedger
from airflow_provider_mwaa_dr.core.bookkeeping.stops import new_stops, read_stops
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import RegionLedger, RunKey, RunStatus
from airflow_provider_mwaa_dr.core.state import DRState

log = get_logger(__name__)


class RoleChanges:
    """Publishes the beginning and the end of one region's role."""

    def __init__(self, own: OwnLedger, outcomes: RowOutcomes, db: LedgerDb, *, region: str) -> None:
        self._own = own
        self._outcomes = outcomes
        self._db = db
        self._region = region

    def begin(self, epoch: int, *, first_id: int | None = None) -> None:
        """Publish that the region executes under *epoch* from now on; see :meth:`.Bookkeeper.begin`."""
        own = self._own.load()
        if own.epoch != epoch:
            # Publish the open runs now: they may end before the next entry, and rows up to the newest id are not read
            # then.
            newest, keys = open_runs(self._db)
            rows = self._db.runs(keys) if keys else ()
            found = [
                self._outcomes.run_to_publish(own, row.key, row, epoch=epoch, had_ended=False)
                for row in rows
                if row.is_open
            ]
            runs = sorted((run for run in found if run is not None), key=lambda run: run.key)
            first_id = newest if first_id is None else first_id
            self._own.append(epoch, runs, first_id=first_id, newest_id=first_id, complete_before=epoch)

    def publish_closed(self, keys: Collection[RunKey], *, epoch: int, closed_at: datetime) -> None:
        """Publish runs that were closed without the ledger; see :meth:`.Bookkeeper.publish_closed`."""
        own = self._own.load()
        missing = [key for key in keys if key not in own.runs]
        rows = [
            row
            for row in (self._db.runs(missing) if missing else ())
            if not row.is_open and (row.queued_at is None or row.queued_at < closed_at)
        ]
        if rows:
            runs = [to_run(row, RunStatus.INTERRUPTED, epoch=epoch) for row in rows]
            self._own.append(own.epoch or 0, runs, first_id=own.first_id, newest_id=own.newest_id)
            log.info("Published %d runs of %s, closed while the ledger could not be written", len(rows), self._region)

    def publish_complete(self, epoch: int) -> None:
        """Publish that this region's ledger is complete: it has all runs that the region started before *epoch*."""
        own = self._own.load()
        if own.number and own.complete_before != epoch:
            self._own.append(own.epoch or 0, first_id=own.first_id, newest_id=own.newest_id, complete_before=epoch)

    def interrupt(self, state: DRState, *, epoch: int, read_stopped: Callable[[str], Collection[str]]) -> None:
        """Publish all open runs as interrupted; see :meth:`.Bookkeeper.interrupt`."""
        own = self._own.load()
        if own.epoch is None or not epoch <= own.epoch < state.epoch:
            return
        # The ledger has a later epoch if the region became active and lost the role before its next heartbeat.
        epoch = own.epoch
        _, found = open_runs(self._db)
        keys = {key for key in found if own.runs.get(key) is None or own.runs[key].status is not RunStatus.INTERRUPTED}
        keys |= {key for key, run in own.runs.items() if run.status is RunStatus.OPEN}
        stops = new_stops(own, state, epoch)
        stopped, _ = read_stops(stops, read_stopped)
        rows = {row.key: row for row in self._db.runs(keys | stopped)} if keys or stopped else {}
        unread = {key for key, row in rows.items() if row.state == "failed" and _is_newer_than(own, row)}
        changed = []
        for key in sorted(keys | (stopped & unread)):
            known, row = own.runs.get(key), rows.get(key)
            if row is not None and (row.is_open or known is not None or key in stopped):
                taken_at = known.taken_at if known is not None else None
                # An entry that cannot be read may contain its end.
                doubt = known.doubt if known is not None and not row.is_open else None
                changed.append(replace(to_run(row, RunStatus.INTERRUPTED, epoch=epoch), taken_at=taken_at, doubt=doubt))
            elif known is not None:
                changed.append(replace(known, status=RunStatus.INTERRUPTED, epoch=epoch))
        if changed:
            last_stops = stops[-1].set_id if stops else None
            self._own.append(epoch, changed, first_id=own.first_id, newest_id=own.newest_id, stops=last_stops)
            log.info("%d open runs of %s were interrupted (epoch %d)", len(changed), self._region, epoch)


def _is_newer_than(own: RegionLedger, row: RunRow) -> bool:
    """Whether the ledger has never published the present execution of the run: it is new, or was cleared since."""
    if row.id > own.newest_id:
        return True
    return own.at is not None and row.queued_at is not None and row.queued_at > own.at
