"""Starting the unfinished runs of all regions in the active region."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from datetime import datetime

from airflow_provider_mwaa_dr.core.bookkeeping.conversion import was_queued
from airflow_provider_mwaa_dr.core.bookkeeping.database import OPTED_OUT, LedgerDb
from airflow_provider_mwaa_dr.core.bookkeeping.families import Families, Family, find_family, replaced_by
from airflow_provider_mwaa_dr.core.bookkeeping.own_ledger import OwnLedger
from airflow_provider_mwaa_dr.core.bookkeeping.peer_ledgers import PeerLedgers
from airflow_provider_mwaa_dr.core.bookkeeping.stops import is_stopped
from airflow_provider_mwaa_dr.core.display import get_logger, shortened
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RegionLedger, RunKey, RunStatus, passed_by, unfinished_runs
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.timer import Timer

log = get_logger(__name__)

_STUCK_EVERY_S = 30.0
"""Time between two attempts to start runs that could not be started."""
_MOST_LISTED = 20
"""The most runs that a heartbeat lists."""
_MOST_CHILDREN = 5
"""The most children that a text about one parent lists."""
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
        self._held: set[RunKey] = set()
        """Children whose parent cannot be started."""
        self._repeats: dict[RunKey, str] = {}

    @property
    def waiting(self) -> tuple[str, ...]:
        """The first of the unfinished runs that this region cannot start, with the reason."""
        if not self._stuck:
            return ()
        some = [f"{dag_id} {run_id}: {why}" for (dag_id, run_id), why in sorted(self._stuck.items())[:_MOST_LISTED]]
        more = len(self._stuck) - len(some)
        return (*some, f"and {more} more") if more else tuple(some)

    @property
    def repeats(self) -> tuple[str, ...]:
        """The first of the resumed runs that request runs again that have ended, or that are resumed, too."""
        if not self._repeats:
            return ()
        texts = [f"{' '.join(key)} {text}" for key, text in sorted(self._repeats.items())]
        return tuple(shortened(texts, _MOST_LISTED))

    def resume(self, *, epoch: int, rows_read_at: datetime | None) -> bool:
        """
        Start the unfinished runs of all regions in this region; return whether more are to be started.

        It first publishes that the run is open in this region under this epoch, and then queues it. If the leader dies
        in between, the next leader queues the run.

        :param rows_read_at: when the agent read the rows that it last published.
        """
        own = self._own.load()
        to_queue = self._taken_but_not_queued(own)
        ledgers = [own, *self._peers.ledgers.values()]
        waiting = unfinished_runs(ledgers)
        self._refresh_stuck(waiting)
        stopped = {key for key in waiting if (mine := own.runs.get(key)) is not None and is_stopped(mine, epoch)}
        # The call that stops a run may still be in progress. After the row has ended, the call has no effect.
        not_ended = {row.key for row in self._db.runs(stopped) if row.is_open} if stopped else set()
        # Once the missing entries have arrived, these runs need not wait for the next attempt.
        self._stuck = {key: why for key, why in self._stuck.items() if key not in self._doubted}
        doubts = self._doubts(waiting)
        # The other runs are open in this region. Or they ended in this region, under an epoch that is lower than those
        # of the other regions because the state table was created again.
        closed = {key: run for key, run in waiting.items() if not _is_begun(own.runs.get(key), epoch)}
        if not (closed or to_queue or doubts or self._stuck or self._held or self._repeats):
            self._doubted = set()
            return False  # the usual case: nothing waits, and nothing is remembered about runs that waited
        family = find_family(Families(ledgers if closed else ()), closed, declined=self._declined)
        doubts |= family.doubtful
        self._doubted = set(doubts)
        self._stuck = {key: why for key, why in self._stuck.items() if key not in self._held or key in family.parents}
        # A parent begins only after the rows of its children have ended, and can be removed.
        not_ended |= {parent for child in family.parents.keys() & not_ended for parent in family.parents[child]}
        candidates = []
        for key, run in closed.items():
            if key in not_ended or key in family.parents or key in family.replaced:
                continue
            if key in doubts:
                self._note_stuck({key: doubts[key]})
            elif run.conf_lost is not None:
                self._stuck[key] = f"its conf is not in the ledger: {run.conf_lost}"
            elif (without_events := run.why_without_events) is not None:
                self._note_stuck({key: f"the events that triggered it are not in the ledger: {without_events}"})
            elif (region := self._passed_by(own, run)) is not None:
                self._note_stuck({key: f"{region} may have executed its date before it knew of this run"})
            elif key not in self._stuck or key in self._to_retry:
                candidates.append(run)
        batch = candidates[:_BATCH]
        refused = self._db.cannot_resume(batch) if batch else {}
        self._to_retry -= {run.key for run in batch}
        self._note_stuck(refused)
        accepted = [run for run in batch if run.key not in refused]
        replaced = self._replaced(family, closed, accepted, epoch)
        self._note_held(family, replaced)
        taken_at = rows_read_at or self._clock.now()
        taken = [replace(run, status=RunStatus.OPEN, epoch=epoch, taken_at=taken_at, children=()) for run in accepted]
        notes = self._repeated(accepted, waiting, replaced)
        if replaced or taken:
            # Remove the rows first: if the leader dies after that, the next leader still finds the whole family.
            self._remove_rows(replaced, accepted, waiting)
            # Note this before the write: one entry may be written, and the next one or the checkpoint may fail.
            self._own.not_queued |= {run.key for run in taken}
            doubted = family.doubted(closed, {run.key for run in taken})
            # Children before their parents: one entry may be written, and the next one may fail.
            self._own.append(epoch, [*replaced, *doubted, *taken], first_id=own.first_id, newest_id=own.newest_id)
        if to_queue or taken:
            failed = self._queue([*to_queue, *taken], notes, epoch)
            self._note_stuck(failed)
            self._own.not_queued = set(failed)  # the next turn tries them again
            queued = {run.key for run in (*to_queue, *taken)} - failed.keys()
            self._stuck = {key: why for key, why in self._stuck.items() if key not in queued}
            if queued:
                log.info("%s resumes %d interrupted runs (epoch %d)", self._region, len(queued), epoch)
        # If no region resumes a parent, its children need not wait for it any longer.
        has_new_free = any(refused.get(key) == OPTED_OUT for parents in family.parents.values() for key in parents)
        return len(candidates) > len(batch) or has_new_free

    def _passed_by(self, own: RegionLedger, run: LedgerRun) -> str | None:
        """
        Return the region that may have executed the date of a run that a user requested in this region; or None.

        This region could not publish the run before it lost the role.
        """
        mine = own.runs.get(run.key)
        if not run.holds_date or run.logical_date is None or mine is None or mine.epoch != run.epoch:
            return None
        return passed_by(run.logical_date, run.key, own, self._peers.ledgers, after_epoch=run.epoch)

    @property
    def _declined(self) -> set[RunKey]:
        """The runs that are only listed, because their DAGs have the tag for that."""
        return {key for key, why in self._stuck.items() if why == OPTED_OUT and key not in self._to_retry}

    def _queue(self, runs: Sequence[LedgerRun], notes: Mapping[RunKey, str], epoch: int) -> dict[RunKey, str]:
        """Queue runs, and return those that could not be queued, with the reason."""
        note = f"resumed: it was interrupted; {self._region} runs it again (epoch {epoch})"
        parts: dict[str, list[LedgerRun]] = defaultdict(list)
        for run in runs:
            parts[f"{note}{notes.get(run.key, '')}"].append(run)
        failed: dict[RunKey, str] = {}
        for text, part in parts.items():
            failed |= self._db.resume(part, text)
        return failed

    def _replaced(
        self, family: Family, closed: Mapping[RunKey, LedgerRun], accepted: Sequence[LedgerRun], epoch: int
    ) -> list[LedgerRun]:
        """Return the children that are requested again, as the region publishes them: without an end of their own."""
        parents = dict(family.replaced) | replaced_by(
            family.parents, {run.key for run in accepted} | family.replaced.keys()
        )
        found = [closed[key] for key in sorted(parents) if key not in self._declined]
        opted_out = {key for key, why in (self._db.cannot_resume(found) if found else {}).items() if why == OPTED_OUT}
        self._note_stuck(dict.fromkeys(opted_out, OPTED_OUT))
        found = [run for run in found if run.key not in opted_out]
        for run in found:
            log.info(
                "%s does not resume %s %s: %s %s runs again, and requests it again (epoch %d)",
                self._region, *run.key, *parents[run.key], epoch,
            )  # fmt: skip
        self._stuck = {key: why for key, why in self._stuck.items() if key not in {run.key for run in found}}
        return [
            replace(
                run,
                status=RunStatus.FAILED,
                epoch=epoch,
                taken_at=None,
                retained_for_peers=True,
                holds_date=False,
                doubt=None,
                deadlines=(),
                children=(),
                is_replaced=True,
            )
            for run in found
        ]

    def _note_held(self, family: Family, replaced: Sequence[LedgerRun]) -> None:
        """Store why children wait: their parent, which has to request them again, cannot be started."""
        waiting = {key: parents for key, parents in family.parents.items() if key not in {run.key for run in replaced}}
        roots = self._stuck.keys() - waiting.keys()
        held = replaced_by(waiting, roots)
        self._held = set(held) - self._declined
        self._note_stuck(
            {
                key: f"{' '.join(held[key])}, which requested it, has to be started first and request it again"
                for key in self._held
            }
        )

    def _repeated(
        self, accepted: Sequence[LedgerRun], waiting: Mapping[RunKey, LedgerRun], replaced: Sequence[LedgerRun]
    ) -> dict[RunKey, str]:
        """Note which resumed runs request runs again that end twice; return an addition to the notes of their rows."""
        self._repeats = {key: text for key, text in self._repeats.items() if key in waiting}
        gone = {run.key for run in replaced}
        notes = {}
        for run in accepted:
            twice = [
                f"{child.dag_id} {child.run_id} ({'resumed, too' if key in waiting else 'had ended'})"
                for child in run.children
                if child.run_id is not None and (key := (child.dag_id, child.run_id)) not in gone
            ]
            if twice:
                more = f" and {len(twice) - _MOST_CHILDREN} more" if len(twice) > _MOST_CHILDREN else ""
                listed = f"{', '.join(twice[:_MOST_CHILDREN])}{more}"
                log.warning(
                    "%s %s was interrupted. It runs again in %s, and requests again %s",
                    *run.key, self._region, listed,
                )  # fmt: skip
                self._repeats[run.key] = f"requests again {listed}"
                notes[run.key] = f"; it requests again {listed}"
        return notes

    def _remove_rows(
        self, replaced: Sequence[LedgerRun], accepted: Sequence[LedgerRun], waiting: Mapping[RunKey, LedgerRun]
    ) -> None:
        """Delete the rows that stand in the way of what the parents request: Airflow refuses an id that exists."""
        keys = {run.key for run in replaced}
        keys |= {
            (child.dag_id, child.run_id)
            for run in accepted
            for child in run.children
            if child.has_fixed_id and child.run_id is not None and (child.dag_id, child.run_id) not in waiting
        }
        if keys:
            self._db.remove(keys)

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
        new = {key: why for key, why in reasons.items() if self._stuck.get(key) != why}
        if new:
            # The note of a row that this region ended as a standby would be out of date.
            notes = {key: f"waits: it was interrupted, and cannot be started: {why}" for key, why in new.items()}
            self._db.explain(notes)
        for key, why in new.items():
            log.warning("%s %s was interrupted and cannot be started in %s: %s", *key, self._region, why)
        self._stuck.update(reasons)


def _is_begun(mine: LedgerRun | None, epoch: int) -> bool:
    """Whether the own ledger shows that the run has begun in the present role of the region."""
    return mine is not None and mine.status is not RunStatus.INTERRUPTED and mine.epoch == epoch
