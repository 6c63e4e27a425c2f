"""What a region publishes about a run whose row in the metadata database has changed."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_mwaa_dr.core.bookkeeping.conversion import to_run, was_queued
from airflow_provider_mwaa_dr.core.bookkeeping.database import RunRow
from airflow_provider_mwaa_dr.core.bookkeeping.own_ledger import OwnLedger
from airflow_provider_mwaa_dr.core.bookkeeping.peer_ledgers import PeerLedgers
from airflow_provider_mwaa_dr.core.bookkeeping.stops import is_stopped
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RegionLedger, RunKey, RunStatus


class RowOutcomes:
    """Decides it from the row, the own ledger, and the ledgers of the other regions."""

    def __init__(self, own: OwnLedger, peers: PeerLedgers) -> None:
        self._own = own
        self._peers = peers

    def run_to_publish(
        self, own: RegionLedger, key: RunKey, row: RunRow | None, *, epoch: int, had_ended: bool
    ) -> LedgerRun | None:
        """
        Return the run to publish for a row that may have changed; None if there is no change to publish.

        :param row: None if the database does not have the run.
        :param had_ended: whether a failover announced that the run had ended by itself.
        """
        known = own.runs.get(key)
        if row is None:
            # A run that resume has published, but not queued yet, has no row.
            if known is None or known.status is not RunStatus.OPEN or key in self._own.not_queued:
                return None
            # A user deleted it. If it began in another region, that region still lists it as unfinished.
            may_be_listed = known.taken_at is not None or self._peers.may_have(key)
            return replace(known, status=RunStatus.FAILED if may_be_listed else RunStatus.GONE, epoch=epoch)
        taken_at = known.taken_at if known is not None else None
        is_being_stopped = known is not None and is_stopped(known, epoch) and not had_ended
        if row.is_open:
            is_published = known is not None and known.status is RunStatus.OPEN and known.epoch == epoch
            is_complete = known is not None and known.doubt is None and not _has_new_events(known, row)
            if is_published and is_complete and known is not None and known.children == row.children:
                return None
            ended = {RunStatus.SUCCESS.value, RunStatus.FAILED.value}
            if is_being_stopped and self._own.published.get(key) not in ended:
                return None  # it was not queued again: the failover has not stopped it yet
            return replace(to_run(row, RunStatus.OPEN, epoch=epoch), taken_at=taken_at)
        status = RunStatus.SUCCESS if row.state == "success" else RunStatus.FAILED
        if row.is_skipped:
            # The gate closed it on a wrong or old view although the region was active: resume starts it.
            status = RunStatus.INTERRUPTED
        if known is not None and known.is_unfinished:
            if is_being_stopped:
                # A run that succeeded ended before the failover stopped it.
                is_over = status is RunStatus.SUCCESS
            elif known.status is RunStatus.INTERRUPTED:
                is_over = had_ended and known.epoch == epoch
            else:
                is_over = key not in self._own.not_queued or was_queued(row, known)
            if not is_over:
                return None  # resume runs it again
        elif row.id <= own.first_id:
            return None  # created under an earlier epoch, and not open since: no region waits for it
        return replace(to_run(row, status, epoch=epoch), taken_at=taken_at)

    @staticmethod
    def stopped_run_to_publish(own: RegionLedger, row: RunRow, *, epoch: int, is_late: bool) -> LedgerRun | None:
        """
        Return the run to publish for a row that a failover stops; None if there is no change to publish.

        :param is_late: the row was read after the state, so it does not show how the run ended.
        """
        known = own.runs.get(row.key)
        if known is not None and is_stopped(known, epoch):
            return None
        if is_late and not row.is_open and not (known is not None and known.is_unfinished):
            return None  # it ended before the stop, and its outcome is published
        taken_at = known.taken_at if known is not None else None
        return replace(to_run(row, RunStatus.INTERRUPTED, epoch=epoch), taken_at=taken_at)


def _has_new_events(known: LedgerRun, row: RunRow) -> bool:
    """Whether an earlier version of the provider published the run without events, and this version has read them."""
    return known.is_without_events and (row.events is not None or row.events_lost is not None)
