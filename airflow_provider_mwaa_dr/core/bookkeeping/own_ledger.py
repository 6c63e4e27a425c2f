"""Reading and writing the own region's log and checkpoint."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

from airflow_provider_mwaa_dr.core.bookkeeping.entries import chunks
from airflow_provider_mwaa_dr.core.bookkeeping.replay import LogReplay, apply_all
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import LOG_DAYS, Gap, LedgerRun, LogEntry, RegionLedger, RunKey, RunStatus
from airflow_provider_mwaa_dr.core.ports import Clock, RunsStore
from airflow_provider_mwaa_dr.exceptions import StaleLedgerError, UnreadableCheckpointError

log = get_logger(__name__)

_ENTRIES_TO_CHECKPOINT = 300
"""A new reader reads the checkpoint and at most about this number of entries."""
_CHECKPOINT_EVERY_S = 300.0
_LIVES_EVERY_S = 60.0
"""Time between two checks whether the checkpoint is still stored."""


class OwnLedger:
    """
    The ledger of the own region. Only the region's leading agent writes it; a stale write is refused.

    :ivar published: the status of each run as it was last published.
    :ivar not_queued: runs that the ledger shows as taken over by this region, and that may not be queued yet.
    """

    def __init__(self, runs: RunsStore, clock: Clock, replay: LogReplay, *, region: str) -> None:
        self._runs = runs
        self._clock = clock
        self._replay = replay
        self._region = region
        self._ledger: RegionLedger | None = None
        """None: the log must be read again."""
        self._saved_number = 0
        self._saved_at = clock.monotonic()
        self._needs_new_life = False
        self._next_watch_at = clock.monotonic() + _LIVES_EVERY_S
        self.published: dict[RunKey, str] = {}
        self.not_queued: set[RunKey] = set()

    @property
    def loaded(self) -> RegionLedger | None:
        """The ledger as far as it is known; None if it must be read."""
        return self._ledger

    def load(self) -> RegionLedger:
        """
        Return the ledger; read it if necessary.

        :raises UnreadableCheckpointError: the checkpoint cannot be read, and the log alone does not show its content.
        :raises StateUnreachableError: the log is not completely read yet; the next turn continues.
        """
        if self._ledger is None:
            try:
                own = self._runs.checkpoint(self._region)
                self._saved_number = own.number
                self._needs_new_life = False
            except UnreadableCheckpointError as error:
                own, self._saved_number = self._without_checkpoint(error), 0
                saved = self._runs.checkpoint_info(self._region)
                own.life, self._needs_new_life = saved.life if saved is not None else None, True
            while entries := self._runs.log(self._region, after=own.number):
                self._needs_new_life = self._needs_new_life or entries[0].number > own.number + 1
                apply_all(own, entries)
            # Entries after the checkpoint may have expired after readers applied them.
            is_old = own.at is None or self._clock.now() - own.at > timedelta(days=LOG_DAYS / 2)
            self._needs_new_life = self._needs_new_life or own.life is None or is_old
            if own.gap is not None:
                # The agent publishes the content of the gap again from the database, and then saves a checkpoint.
                own.newest_id, self._saved_number = min(own.newest_id, own.gap.newest_id), 0
                log.warning("The ledger of %s has a gap, which its agent closes: %s", self._region, own.gap.why)
            self._ledger, self.published = own, {key: run.status.value for key, run in own.runs.items()}
            self.not_queued = {
                key for key, run in own.runs.items() if run.status is RunStatus.OPEN and run.taken_at is not None
            }
        return self._ledger

    def forget(self) -> None:
        """Read the own region's ledger again at its next use: another process may have written it."""
        self._ledger = None

    def has_begun(self, epoch: int) -> bool:
        """Whether the region has published that it executes under *epoch*. Then its open runs belong to this epoch."""
        if self.load().epoch != epoch:
            self._ledger = None  # another agent of the region may have published it
        return self.load().epoch == epoch

    def unreconciled_epoch(self) -> int | None:
        """Return the last epoch in which the region became active, unless it has reconciled its runs since then."""
        own = self.load()
        return own.epoch if own.complete_before == own.epoch else None

    def append(
        self,
        epoch: int,
        runs: Iterable[LedgerRun] = (),
        *,
        first_id: int,
        newest_id: int,
        dag_ids: Sequence[str] = (),
        final_plan_id: str | None = None,
        complete_before: int | None = None,
        stops: str | None = None,
    ) -> None:
        """
        Write the next entry, or several if the runs do not fit one. Only the last has the other fields.

        :raises StaleLedgerError: another agent of the region has written the log.
        """
        own = self.load()
        if self._needs_new_life:
            self._begin_life(own)
        parts = list(chunks(runs, dag_ids)) or [((), ())]
        for position, (part, ids) in enumerate(parts, start=1):
            is_last = position == len(parts)
            entry = LogEntry(
                number=own.number + 1,
                at=self._clock.now(),
                epoch=epoch,
                first_id=first_id,
                # If the leader dies between two entries, the next leader reads all these rows again.
                newest_id=newest_id if is_last else min(own.newest_id, newest_id),
                runs=part,
                dag_ids=ids,
                final_plan_id=final_plan_id if is_last else None,
                complete_before=complete_before if is_last else None,
                stops=stops if is_last else None,
                life=own.life,
            )
            # After any error, only the log shows whether the entry was written, and whether another agent wrote one. So
            # the next call reads the log again.
            self._ledger = None
            self._runs.append(self._region, entry)
            self._ledger = own
            own.apply([entry])
        # Only after this method has returned does the caller note the runs as published. So after an error in the
        # checkpoint, too, the next call must read the log again.
        self._ledger = None
        self.save_checkpoint_in_time(own)
        self._ledger = own

    def save_checkpoint_in_time(self, own: RegionLedger) -> None:
        """Save a checkpoint before the first entries after the last one expire, or if the last one is gone."""
        now = self._clock.monotonic()
        if own.number > self._saved_number and (
            self._saved_number == 0
            or own.number - self._saved_number >= _ENTRIES_TO_CHECKPOINT
            or now - self._saved_at >= _CHECKPOINT_EVERY_S
        ):
            self._save_checkpoint(own)
            own.gap = None
        elif own.number and now >= self._next_watch_at:
            saved = self._runs.checkpoint_info(self._region)
            # The table may be new, or restored from a backup.
            if saved is None or saved.number < self._saved_number or saved.life not in {None, own.life}:
                self._save_checkpoint(own)
            self._next_watch_at = now + _LIVES_EVERY_S

    def _without_checkpoint(self, error: UnreadableCheckpointError) -> RegionLedger:
        """
        Return this region's ledger from its log alone.

        :raises UnreadableCheckpointError: the log is empty, and the number in the checkpoint cannot be read either.
        :raises StateUnreachableError: the log is not completely read yet; the next turn continues.
        """
        begin = RegionLedger()
        if not self._replay.is_begun(self._region):
            first = next(iter(self._runs.log(self._region, after=0)[:1]), None)
            if first is None and error.number is None:
                raise error
            if first is None or first.number > 1:
                number, newest_id = (error.number or 0, 0) if first is None else (first.number - 1, first.newest_id)
                begin = RegionLedger(number=number, gap=Gap(number=number, why=error.message, newest_id=newest_id))
        return self._replay.read(self._region, begin)

    def _begin_life(self, own: RegionLedger) -> None:
        """
        Begin another life of this region's ledger with a checkpoint: entry numbers may be used again.

        :raises StaleLedgerError: another agent of the region has written the ledger.
        """
        begun = replace(own, life=uuid.uuid4().hex[:12])
        self._ledger = None
        self._save_checkpoint(begun, begins_after=own)
        log.info("The ledger of %s begins another life: %s (before: %s)", self._region, begun.life, own.life)
        own.life, self._ledger, self._needs_new_life = begun.life, own, False
        if own.gap is not None:
            self._saved_number = 0  # after the gap's content is published again, a checkpoint is saved

    def _save_checkpoint(self, own: RegionLedger, *, begins_after: RegionLedger | None = None) -> None:
        if not self._runs.save_checkpoint(self._region, own, begins_after=begins_after):
            self._ledger = None
            raise StaleLedgerError(
                f"The stored checkpoint of the ledger of {self._region} is later than this agent's or of another life.",
                advice="Another agent of the region also writes the ledger; this agent reads it again.",
            )
        self._saved_number, self._saved_at = own.number, self._clock.monotonic()
