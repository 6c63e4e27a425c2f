"""
Keeping a region's part of the ledger, and acting on the parts of the other regions.

The leading agent of a region has a :class:`Bookkeeper`. In the active region it publishes the changes in the region's
metadata database (:meth:`~Bookkeeper.publish`). When the region loses the role, it publishes once which runs were
interrupted (:meth:`~Bookkeeper.interrupt`). In a standby it adopts the finished runs of other regions into the region's
history (:meth:`~Bookkeeper.adopt`). When the region becomes active, it resumes the unfinished runs
(:meth:`~Bookkeeper.resume`). Each step is idempotent, and the next leader needs only the ledger to continue.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import (
    LOG_DAYS,
    Gap,
    LedgerRun,
    LogEntry,
    RegionLedger,
    RunKey,
    RunStatus,
    TaskState,
    created_up_to,
    dates_held,
    finished_by_others,
    history,
    is_complete,
    no_longer_needed,
    unfinished_runs,
)
from airflow_provider_mwaa_dr.core.ports import Clock, RunsStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Stop, stops_of
from airflow_provider_mwaa_dr.exceptions import (
    StaleLedgerError,
    StateUnreachableError,
    UnreadableCheckpointError,
    UnreadableItemError,
)

log = get_logger(__name__)

CONF_BYTES = 200_000
"""The longest conf of a run, as JSON, that fits an item together with the run's other values."""
TASKS_BYTES = 200_000
"""The greatest total size of a run's task instances; more than a thousand of them fit."""
NO_RERUN_TAG = "dr:no-rerun"
"""Interrupted runs of DAGs with this tag are listed, and no other region starts them."""
_OVERLAP = 500
"""Number of ids that each turn reads again: a lower id may be committed later than a higher one."""
_ENTRY_BYTES = 250_000
"""The approximate size of the JSON in one entry of the log; the rest goes into the next entry."""
_ENTRIES_TO_CHECKPOINT = 300
"""A new reader reads the checkpoint and at most about this number of entries."""
_CHECKPOINT_EVERY_S = 300.0
_DAGS_EVERY_S = 30.0
"""Time between two searches for DAGs that the ledger does not have; a published run also adds its DAG."""
_STUCK_EVERY_S = 30.0
"""Time between two attempts to start runs that could not be started."""
_LIVES_EVERY_S = 60.0
"""Time between two checks whether a ledger began another life, and whether this region's is still stored."""
_GAP_EVERY_S = 30.0
"""Time between two reads of the checkpoint of a region whose log has an entry that cannot be read."""
_REPLAY_PAGES = 10
"""The most pages of a log that one turn reads because the checkpoint cannot be read."""
_MOST_RETAINED = 20_000
"""The most ended runs that the ledger retains for an unreachable region; that region may repeat the others."""
_MOST_LISTED = 20
"""The most elements of a list in a heartbeat."""
_REASON_CHARS = 500
"""The greatest length of the reason why a run's conf could not be stored."""
_BATCH = 500
"""The most runs that one turn adopts or resumes, so that the agent's other work does not wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """
    A run in the metadata database.

    :param conf: the value that Airflow stored.
    :param conf_lost: why that value cannot be read.
    :param is_skipped: the provider closed the run before any of its tasks executed. Regardless of its state, no region
        has done its work.
    :param holds_date: see :class:`.ledger.LedgerRun`.
    """

    id: int
    dag_id: str
    run_id: str
    run_type: str
    state: str
    logical_date: datetime | None
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    run_after: datetime | None
    queued_at: datetime | None
    conf: Any
    conf_lost: str | None = None
    partition_key: str | None = None
    partition_date: datetime | None = None
    is_skipped: bool = False
    holds_date: bool = False

    @property
    def key(self) -> RunKey:
        """DAG id and run id."""
        return self.dag_id, self.run_id

    @property
    def is_open(self) -> bool:
        """Whether it is queued or running."""
        return self.state in {"queued", "running"}


class LedgerDb(Protocol):
    """What the bookkeeper needs from the metadata database; see :class:`plugins.metadata.database.MetadataDb`."""

    def newest_run(self) -> int:
        """Return the highest id of a run; 0 if there is none."""

    def read_states(self, *, above: int) -> tuple[int, Mapping[RunKey, str]]:
        """Return the highest run id, and the states of all open runs and of all runs with an id above *above*."""

    def runs(self, keys: Collection[RunKey]) -> Sequence[RunRow]:
        """Return the rows of these runs, without those that do not exist."""

    def tasks(self, keys: Collection[RunKey]) -> Mapping[RunKey, Sequence[TaskState]]:
        """Return the task instances of those runs whose DAG has tasks that depend on the previous run."""

    def last_finished(self, dag_ids: Collection[str]) -> Sequence[RunRow]:
        """
        Return, for each DAG, the newest ended interval that the provider did not skip, and newer runs that hold a date.
        """

    def dag_ids(self) -> Sequence[str]:
        """Return the ids of all DAGs that are not exempt."""

    def adopt(self, runs: Sequence[LedgerRun], note: str) -> int:
        """
        Write runs that ended in other regions into the history, with *note* on each; return how many were new.

        It does not insert a run that exists, or that is older than the DAG's newest interval. If a run exists and
        has ended, and *runs* has its tasks, the run and its tasks get the published result. A new row has no
        ``queued_at``: the region has not queued it, and :meth:`resume` still may.
        """

    def cannot_resume(self, runs: Sequence[LedgerRun]) -> Mapping[RunKey, str]:
        """Return the runs that must not or cannot be queued in this region, with the reason."""

    def resume(self, runs: Sequence[LedgerRun], note: str) -> Mapping[RunKey, str]:
        """
        Queue runs with the same run ids and values as before; all their tasks run again. Idempotent.

        An open run does not change. ``queued_at`` becomes ``taken_at`` or a later time.

        :return: the runs that could not be queued, with the reason.
        """

    def make_room(self, runs: Sequence[LedgerRun]) -> int:
        """
        Let queued runs start that later runs of the same DAG wait for, if the later runs take all of its run slots.

        :return: how many later runs went back to the queue.
        """

    def apply_outcomes(self, runs: Sequence[LedgerRun], note: str) -> None:
        """Give closed runs, and their tasks if these were published, the result that another region published."""

    def forget_closed(self, created: Mapping[str, datetime | None], held: Mapping[str, Collection[datetime]]) -> int:
        """
        Delete intervals that a standby closed before any of their tasks executed; return how many.

        It deletes only runs of the DAGs in *created*, above the DAG's logical date there (None: all of them). No other
        region has created these intervals, so the scheduler must create them again, according to the DAG's catchup.
        It keeps the dates in *held*: a run of another type has them in another region.
        """


class Bookkeeper:
    """
    Keeps one region's part of the ledger. Not thread-safe; one thread of one process.

    :param peers: returns the other regions of the set; called repeatedly.
    """

    def __init__(
        self,
        runs: RunsStore,
        db: LedgerDb,
        clock: Clock,
        *,
        region: str,
        peers: Callable[[], Collection[str]],
    ) -> None:
        self._runs = runs
        self._db = db
        self._clock = clock
        self._region = region
        self._peers = peers
        self._own: RegionLedger | None = None
        self._others: dict[str, RegionLedger] = {}
        self._published: dict[RunKey, str] = {}
        self._published_at: float | None = None
        self._rows_read_at: datetime | None = None
        """When the agent read the rows that it last published, by this region's clock."""
        self._queued: set[RunKey] = set()
        self._to_adopt: set[str] = set()
        self._saved_number = 0
        self._saved_at = clock.monotonic()
        self._not_queued: set[RunKey] = set()
        self._stuck: dict[RunKey, str] = {}
        self._stuck_at = clock.monotonic()
        self._to_retry: set[RunKey] = set()
        self._next_dags_at = 0.0
        self._needs_new_life = False
        self._next_lives_at = self._next_watch_at = clock.monotonic() + _LIVES_EVERY_S
        self._unread_peers: set[str] = set()
        """Peers whose ledger has not been read yet."""
        self._next_gap_read_at: dict[str, float] = {}
        self._missing: dict[str, str] = {}
        self._doubted: set[RunKey] = set()
        self._replays: dict[str, RegionLedger] = {}

    # -- status -----------------------------------------------------------------------------------------------------

    @property
    def lag_s(self) -> float | None:
        """Seconds since the last call that published all changes; None before the first."""
        return None if self._published_at is None else self._clock.monotonic() - self._published_at

    @property
    def waiting(self) -> tuple[str, ...]:
        """The first of the unfinished runs that this region cannot start, with the reason."""
        if not self._stuck:
            return ()
        some = [f"{dag_id} {run_id}: {why}" for (dag_id, run_id), why in sorted(self._stuck.items())[:_MOST_LISTED]]
        more = len(self._stuck) - len(some)
        return (*some, f"and {more} more") if more else tuple(some)

    @property
    def unread(self) -> tuple[str, ...]:
        """Parts of the ledger that cannot be read and were skipped: one sentence for each region."""
        ledgers = {**self._others, **({self._region: self._own} if self._own is not None else {})}
        gaps = {region: ledger.gap.why for region, ledger in ledgers.items() if ledger.gap is not None}
        return tuple(
            f"The ledger of {region} has a gap. {why}" for region, why in sorted({**self._missing, **gaps}.items())
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Entries of other regions' ledgers that are missing in this copy of the table, although it has later ones."""
        return tuple(why for _, why in sorted(self._missing.items()))

    @property
    def final_plan_id(self) -> str | None:
        """The plan for which this region has published its final ledger entry."""
        return self._own.final_plan_id if self._own is not None else None

    # -- reading -----------------------------------------------------------------------------------------------------

    def follow(self, *, is_thorough: bool = False) -> None:
        """
        Read what the other regions have published since the last call: one query each if they published nothing.

        :param is_thorough: also check whether a ledger has begun another life; otherwise once a minute.
        :raises UnreadableItemError: an item of one region cannot be read, or was not replicated yet. The ledgers of the
            other regions were read.
        """
        peers = [region for region in self._peers() if region != self._region]
        self._unread_peers = {region for region in peers if region not in self._others}
        self._missing = {region: why for region, why in self._missing.items() if region in peers}
        now = self._clock.monotonic()
        if now >= self._next_lives_at:
            is_thorough, self._next_lives_at = True, now + _LIVES_EVERY_S
        failures = [error for region in peers if (error := self._try_to_follow(region, is_thorough)) is not None]
        if failures:
            self._next_lives_at = now if is_thorough else self._next_lives_at
            raise failures[0]

    def _try_to_follow(self, region: str, is_thorough: bool) -> UnreadableItemError | None:
        try:
            self._follow(region, is_thorough=is_thorough)
        except UnreadableItemError as error:
            return error
        self._unread_peers.discard(region)
        return None

    def _follow(self, region: str, *, is_thorough: bool) -> None:
        ledger = self._others.get(region)
        if ledger is None:
            ledger = self._checkpoint_of(region)
            self._to_adopt |= set(ledger.heads)
        elif (
            is_thorough
            and (saved := self._runs.checkpoint_info(region)) is not None
            and saved.life not in {None, ledger.life}
        ):
            # New entries may have the same numbers as entries that were read.
            log.warning(
                "The ledger of %s has begun another life (%s, before: %s). The agent reads it again.",
                region,
                saved.life,
                ledger.life,
            )
            ledger = self._checkpoint_of(region)
            self._to_adopt |= set(ledger.heads)
        elif ledger.gap is not None and (later := self._checkpoint_after(region, ledger.gap)) is not None:
            ledger = later
            self._to_adopt |= set(ledger.heads)
        while entries := self._runs.log(region, after=ledger.number):
            before = ledger.number
            if entries[0].number == before + 1:
                self._to_adopt |= ledger.apply(entries).heads
            if ledger.number == before:
                # The entries in between have expired, or this copy is not up to date, or the ledger has begun another
                # life. The checkpoint contains them, now or after replication.
                later = self._runs.checkpoint(region)
                if later.number <= before and later.life in {None, ledger.life}:
                    self._others[region], self._missing[region] = ledger, _why_missing(region, before, entries[0])
                    return
                ledger = later
                self._to_adopt |= set(ledger.heads)
        self._others[region] = ledger
        self._missing.pop(region, None)

    def _checkpoint_of(self, region: str) -> RegionLedger:
        """
        Return another region's checkpoint. If it cannot be read, return the result of the region's whole log.

        :raises UnreadableCheckpointError: the checkpoint cannot be read, and the first entries of the log have expired.
        :raises StateUnreachableError: the log is not completely read yet; the next turn continues.
        """
        try:
            return self._runs.checkpoint(region)
        except UnreadableCheckpointError:
            if region not in self._replays and [entry.number for entry in self._runs.log(region, after=0)[:1]] != [1]:
                raise
        return self._replayed(region, RegionLedger())

    def _replayed(self, region: str, begin: RegionLedger) -> RegionLedger:
        replay = self._replays.setdefault(region, begin)
        for _ in range(_REPLAY_PAGES):
            entries = self._runs.log(region, after=replay.number)
            if not entries:
                return self._replays.pop(region)
            _apply_all(replay, entries)
        raise StateUnreachableError(
            f"The agent reads the ledger of {region} from its beginning, because its checkpoint cannot be read: "
            f"{replay.number} entries so far.",
            advice="The next turn continues.",
        )

    def _checkpoint_after(self, region: str, gap: Gap) -> RegionLedger | None:
        """Return the region's checkpoint if it contains the entries of *gap*; None if it does not contain them yet."""
        now = self._clock.monotonic()
        if now < self._next_gap_read_at.get(region, now):
            return None
        self._next_gap_read_at[region] = now + _GAP_EVERY_S
        try:
            later = self._runs.checkpoint(region)
        except UnreadableItemError:
            return None
        return later if later.number >= gap.number or later.life not in {None, self._others[region].life} else None

    def epoch_of(self, region: str) -> int | None:
        """Return the last epoch in which *region* published as the active region, as far as its ledger was read."""
        ledger = self._others.get(region)
        return None if ledger is None else ledger.epoch

    def has_read_final(self, region: str, plan_id: str) -> bool:
        """Whether this agent has read *region*'s final ledger entry for the plan *plan_id*."""
        ledger = self._others.get(region)
        return ledger is not None and ledger.final_plan_id == plan_id

    def last_read(self) -> list[str]:
        """Return a sentence for each other region: up to which entry its ledger was read. Sends no request."""
        found = []
        for region, ledger in sorted(self._others.items()):
            unfinished = sorted(" ".join(key) for key, run in ledger.runs.items() if run.is_unfinished)
            shown = ", ".join(unfinished[:_MOST_LISTED]) + (", ..." if len(unfinished) > _MOST_LISTED else "")
            found.append(
                f"{region}: read up to entry {ledger.number} (epoch {ledger.epoch}); unfinished up to this entry: "
                + (f"{len(unfinished)} runs: {shown}" if unfinished else "no run")
            )
        return found or ["the ledger of no other region has been read since this scheduler started"]

    def forget_own_ledger(self) -> None:
        """Read the own region's ledger again at its next use: another process may have written it."""
        self._own = None

    def _load(self) -> RegionLedger:
        if self._own is None:
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
                _apply_all(own, entries)
            # Entries after the checkpoint may have expired after readers applied them.
            is_old = own.at is None or self._clock.now() - own.at > timedelta(days=LOG_DAYS / 2)
            self._needs_new_life = self._needs_new_life or own.life is None or is_old
            if own.gap is not None:
                # The agent publishes the content of the gap again from the database, and then saves a checkpoint.
                own.newest_id, self._saved_number = min(own.newest_id, own.gap.newest_id), 0
                log.warning("The ledger of %s has a gap, which its agent closes: %s", self._region, own.gap.why)
            self._own, self._published = own, {key: run.status.value for key, run in own.runs.items()}
            self._not_queued = {
                key for key, run in own.runs.items() if run.status is RunStatus.OPEN and run.taken_at is not None
            }
        return self._own

    def _without_checkpoint(self, error: UnreadableCheckpointError) -> RegionLedger:
        """
        Return this region's ledger from its log alone.

        :raises UnreadableCheckpointError: the log is empty, and the number in the checkpoint cannot be read either.
        :raises StateUnreachableError: the log is not completely read yet; the next turn continues.
        """
        begin = RegionLedger()
        if self._region not in self._replays:
            first = next(iter(self._runs.log(self._region, after=0)[:1]), None)
            if first is None and error.number is None:
                raise error
            if first is None or first.number > 1:
                number, newest_id = (error.number or 0, 0) if first is None else (first.number - 1, first.newest_id)
                begin = RegionLedger(number=number, gap=Gap(number=number, why=error.message, newest_id=newest_id))
        return self._replayed(self._region, begin)

    # -- publishing ----------------------------------------------------------------------------------------------------

    def begin(self, epoch: int, *, first_id: int | None = None) -> None:
        """
        Publish that the region executes under *epoch* from now on. Call this before the region executes anything.

        The runs in its database belong to earlier epochs, except the open ones, which belong to *epoch* from now on.

        :param first_id: the highest run id when the region began to execute, if it began without the ledger.
        """
        own = self._load()
        if own.epoch != epoch:
            newest = self._db.newest_run()
            # Publish the open runs now: they may end before the next entry, and rows up to the newest id are not read
            # then.
            _, states = self._db.read_states(above=newest)
            rows = self._db.runs(states) if states else ()
            found = [
                self._run_to_publish(own, row.key, row, epoch=epoch, had_ended=False) for row in rows if row.is_open
            ]
            runs = sorted((run for run in found if run is not None), key=lambda run: run.key)
            first_id = newest if first_id is None else first_id
            self._append(epoch, runs, first_id=first_id, newest_id=first_id, complete_before=epoch)

    def publish_closed(self, keys: Collection[RunKey], *, epoch: int, closed_at: datetime) -> None:
        """
        Publish as interrupted the runs that the region closed while it could not write the ledger. Idempotent.

        A run that is in the ledger keeps its status: it is unfinished, or another region has finished it. A run that a
        user cleared after *closed_at* belongs to the region's present role: it is published as open, or has ended.

        :param epoch: the epoch that the runs belong to.
        :param closed_at: when the region closed them, by its own clock.
        """
        own = self._load()
        missing = [key for key in keys if key not in own.runs]
        rows = [
            row
            for row in (self._db.runs(missing) if missing else ())
            if not row.is_open and (row.queued_at is None or row.queued_at < closed_at)
        ]
        if rows:
            runs = [_to_run(row, RunStatus.INTERRUPTED, epoch=epoch) for row in rows]
            self._append(own.epoch or 0, runs, first_id=own.first_id, newest_id=own.newest_id)
            log.info("Published %d runs of %s, closed while the ledger could not be written", len(rows), self._region)

    def has_begun(self, epoch: int) -> bool:
        """Whether the region has published that it executes under *epoch*. Then its open runs belong to this epoch."""
        if self._load().epoch != epoch:
            self._own = None  # another agent of the region may have published it
        return self._load().epoch == epoch

    def unreconciled_epoch(self) -> int | None:
        """Return the last epoch in which the region became active, unless it has reconciled its runs since then."""
        own = self._load()
        return own.epoch if own.complete_before == own.epoch else None

    def publish_complete(self, epoch: int) -> None:
        """Publish that this region's ledger is complete: it has all runs that the region started before *epoch*."""
        own = self._load()
        if own.number and own.complete_before != epoch:
            self._append(own.epoch or 0, first_id=own.first_id, newest_id=own.newest_id, complete_before=epoch)

    def publish(
        self,
        state: DRState,
        *,
        read_state: Callable[[], DRState | None],
        read_stopped: Callable[[str], Collection[str]],
    ) -> bool:
        """
        Publish the changes in the database since the last call.

        The bookkeeper reads the rows first and the state second. It publishes the outcome of an ended run only if,
        according to this state, the region still is active under the same epoch.

        A failover announces in the state which runs it stops, before it stops the first one. So an agent that reads
        that such a run has failed also reads the announcement. From then on, each announced run counts as interrupted.
        It has ended by itself only in three cases: its row is a success, the failover announces that the run had ended,
        or the run was queued again later. This does not depend on the plan, which may already be cancelled.

        The call that stops a run may be late: the run may have ended, and a user may have cleared it. So a run that the
        open plan has announced counts as interrupted if it fails while the plan drains the region.

        :param state: the view that the gate uses, from before the rows are read.
        :param read_state: reads the state again; called only if there are changes to publish.
        :param read_stopped: returns the runs in a recorded set, ``DAG_ID RUN_ID`` each.
        :return: whether all changes are published; False if the region is not active under this epoch.
        """
        started, rows_read_at = self._clock.monotonic(), self._clock.now()
        own = self._load()
        epoch = state.epoch
        if own.epoch != epoch:
            return False
        plan = state.plan
        final_plan_id = plan.id if plan is not None and plan.drained and state.phase is Phase.DRAINING else None
        newest, states = self._db.read_states(above=max(own.first_id, own.newest_id - _OVERLAP))
        self._queued = {key for key, status in states.items() if status == "queued"}
        keys = {key for key, status in states.items() if self._published.get(key) != _status_of(status)}
        keys |= {
            key for key, run in own.runs.items() if (run.is_unfinished and key not in states) or run.doubt is not None
        }
        rows = {row.key: row for row in self._db.runs(keys)} if keys else {}
        dag_ids, histories = self._new_dags(own, force=final_plan_id is not None)
        ended = [row.key for row in (*rows.values(), *histories) if not row.is_open]
        tasks = self._tasks(ended) if ended else {}
        if own.final_plan_id == final_plan_id:
            final_plan_id = None
        if keys or dag_ids or final_plan_id or _new_stops(own, state, epoch) or newest - own.newest_id >= _OVERLAP // 2:
            now = read_state()
            if now is None or now.active_region != self._region or now.epoch != epoch:
                return False
            stops = _new_stops(own, now, epoch)
            stopped, had_ended = _read_stops(stops, read_stopped)
            failed = {row.key for row in rows.values() if row.state == "failed" and _is_open(own.runs.get(row.key))}
            stopped_late = failed & _stopped_by_plan(now, read_stopped) - had_ended if failed else set()
            # These rows have not changed since they were published, or changed after this turn read the states.
            late = (stopped | had_ended) - keys
            rows |= {row.key: row for row in self._db.runs(late)} if late else {}
            late &= rows.keys()
            tasks |= self._tasks(found) if (found := [key for key in had_ended & late if not rows[key].is_open]) else {}
            changed = []
            for key in sorted(keys | late):
                row = rows.get(key)
                is_stopped = key in stopped and (key in late or (row is not None and row.state != "success"))
                if row is not None and (is_stopped or key in stopped_late):
                    run = self._stopped_run_to_publish(own, row, epoch=epoch, is_late=key in late)
                else:
                    run = self._run_to_publish(own, key, row, epoch=epoch, had_ended=key in had_ended)
                if run is not None:
                    changed.append(run)
            changed += [_to_run(row, RunStatus(row.state), epoch=epoch) for row in histories if row.key not in rows]
            changed = [replace(run, tasks=tasks.get(run.key, ())) if run.has_ended else run for run in changed]
            changed = self._retained(own, changed, epoch=epoch)
            if changed or dag_ids or final_plan_id or stops or newest - own.newest_id >= _OVERLAP // 2:
                self._append(
                    epoch,
                    changed,
                    first_id=own.first_id,
                    newest_id=newest,
                    dag_ids=dag_ids,
                    final_plan_id=final_plan_id,
                    stops=stops[-1].set_id if stops else None,
                )
            self._published.update({key: _status_of(rows[key].state) for key in rows.keys() - (late & stopped)})
            # An ended run with an id below the overlap is never compared again.
            if len(self._published) > 2 * (len(states) + len(own.runs)):
                self._published = {
                    key: status for key, status in self._published.items() if key in states or key in own.runs
                }
        self._published_at, self._rows_read_at = started, rows_read_at
        return True

    def _tasks(self, ended: Sequence[RunKey]) -> dict[RunKey, tuple[TaskState, ...]]:
        """Return the task instances of ended runs that the DAG's next run depends on."""
        found = {key: tuple(tasks) for key, tasks in self._db.tasks(ended).items()}
        for key, tasks in found.items():
            size = sum(len(task_id) + 30 for task_id, _, _ in tasks)
            if size > TASKS_BYTES:
                log.warning(
                    "%s %s: its %d task instances do not fit the ledger. After a failover, tasks that depend on their "
                    "past wait until a user clears or marks these task instances in the other region.",
                    *key,
                    len(tasks),
                )
                found[key] = ()
        return found

    def _new_dags(self, own: RegionLedger, *, force: bool) -> tuple[list[str], Sequence[RunRow]]:
        """Return the DAGs that are not in the ledger, and the last finished runs of those that no region published."""
        now = self._clock.monotonic()
        if not force and now < self._next_dags_at:
            return [], ()
        self._next_dags_at = now + _DAGS_EVERY_S
        dag_ids = sorted(set(self._db.dag_ids()) - own.heads.keys())
        unknown = [dag_id for dag_id in dag_ids if not any(dag_id in other.heads for other in self._others.values())]
        return dag_ids, self._db.last_finished(unknown) if unknown else ()

    def _retained(self, own: RegionLedger, changed: list[LedgerRun], *, epoch: int) -> list[LedgerRun]:
        """Mark the ended runs that another region also started, or may have started without publishing them yet."""
        others = self._others.values()
        room = _MOST_RETAINED - sum(run.has_ended for run in own.runs.values())
        is_any_incomplete = room > 0 and (
            bool(self._unread_peers) or not all(is_complete(other, epoch) for other in others)
        )
        return [
            replace(
                run,
                retained_for_peers=run.has_ended
                and (is_any_incomplete or any(run.key in other.runs for other in others)),
            )
            for run in changed
        ]

    def _run_to_publish(
        self, own: RegionLedger, key: RunKey, row: RunRow | None, *, epoch: int, had_ended: bool
    ) -> LedgerRun | None:
        """Return the run to publish for a row that may have changed; None if there is no change to publish."""
        known = own.runs.get(key)
        if row is None:
            # A run that resume has published, but not queued yet, has no row.
            if known is None or known.status is not RunStatus.OPEN or key in self._not_queued:
                return None
            # A user deleted it. If it began in another region, that region still lists it as unfinished.
            may_be_listed = known.taken_at is not None or any(key in other.runs for other in self._others.values())
            may_be_listed = may_be_listed or bool(self._unread_peers)
            return replace(known, status=RunStatus.FAILED if may_be_listed else RunStatus.GONE, epoch=epoch)
        taken_at = known.taken_at if known is not None else None
        is_stopped = known is not None and _is_stopped(known, epoch) and not had_ended
        if row.is_open:
            if known is not None and known.status is RunStatus.OPEN and known.epoch == epoch and known.doubt is None:
                return None
            if is_stopped and self._published.get(key) not in {RunStatus.SUCCESS.value, RunStatus.FAILED.value}:
                return None  # it was not queued again: the failover has not stopped it yet
            return replace(_to_run(row, RunStatus.OPEN, epoch=epoch), taken_at=taken_at)
        status = RunStatus.SUCCESS if row.state == "success" else RunStatus.FAILED
        if row.is_skipped:
            # The gate closed it on a wrong or old view although the region was active: resume starts it.
            status = RunStatus.INTERRUPTED
        if known is not None and known.is_unfinished:
            if is_stopped:
                # A run that succeeded ended before the failover stopped it.
                is_over = status is RunStatus.SUCCESS
            elif known.status is RunStatus.INTERRUPTED:
                is_over = had_ended and known.epoch == epoch
            else:
                is_over = key not in self._not_queued or _was_queued(row, known)
            if not is_over:
                return None  # resume runs it again
        elif row.id <= own.first_id:
            return None  # created under an earlier epoch, and not open since: no region waits for it
        return replace(_to_run(row, status, epoch=epoch), taken_at=taken_at)

    @staticmethod
    def _stopped_run_to_publish(own: RegionLedger, row: RunRow, *, epoch: int, is_late: bool) -> LedgerRun | None:
        """
        Return the run to publish for a row that a failover stops; None if there is no change to publish.

        :param is_late: the row was read after the state, so it does not show how the run ended.
        """
        known = own.runs.get(row.key)
        if known is not None and _is_stopped(known, epoch):
            return None
        if is_late and not row.is_open and not (known is not None and known.is_unfinished):
            return None  # it ended before the stop, and its outcome is published
        taken_at = known.taken_at if known is not None else None
        return replace(_to_run(row, RunStatus.INTERRUPTED, epoch=epoch), taken_at=taken_at)

    def interrupt(
        self, state: DRState, *, epoch: int, read_stopped: Callable[[str], Collection[str]] = lambda _: ()
    ) -> None:
        """
        Publish all open runs as interrupted, before the agent closes them: the region lost the role since *epoch*.

        It also publishes runs that a failover stopped before they were in the ledger.

        :param state: the present state, of a later epoch.
        :param epoch: the epoch that the region's open runs belong to. If the region was not active in it, no region
            has to run them, and nothing is published.
        :param read_stopped: returns the runs in a recorded set, ``DAG_ID RUN_ID`` each.
        """
        own = self._load()
        if own.epoch is None or not epoch <= own.epoch < state.epoch:
            return
        # The ledger has a later epoch if the region became active and lost the role before its next heartbeat.
        epoch = own.epoch
        _, states = self._db.read_states(above=self._db.newest_run())
        keys = {key for key in states if own.runs.get(key) is None or own.runs[key].status is not RunStatus.INTERRUPTED}
        keys |= {key for key, run in own.runs.items() if run.status is RunStatus.OPEN}
        stops = _new_stops(own, state, epoch)
        stopped, _ = _read_stops(stops, read_stopped)
        rows = {row.key: row for row in self._db.runs(keys | stopped)} if keys or stopped else {}
        unread = {key for key, row in rows.items() if row.state == "failed" and _is_newer_than(own, row)}
        changed = []
        for key in sorted(keys | (stopped & unread)):
            known, row = own.runs.get(key), rows.get(key)
            if row is not None and (row.is_open or known is not None or key in stopped):
                taken_at = known.taken_at if known is not None else None
                # An entry that cannot be read may contain its end.
                doubt = known.doubt if known is not None and not row.is_open else None
                changed.append(
                    replace(_to_run(row, RunStatus.INTERRUPTED, epoch=epoch), taken_at=taken_at, doubt=doubt)
                )
            elif known is not None:
                changed.append(replace(known, status=RunStatus.INTERRUPTED, epoch=epoch))
        if changed:
            last_stops = stops[-1].set_id if stops else None
            self._append(epoch, changed, first_id=own.first_id, newest_id=own.newest_id, stops=last_stops)
            log.info("%d open runs of %s were interrupted (epoch %d)", len(changed), self._region, epoch)

    # -- acting on the ledger ----------------------------------------------------------------------------------------

    def adopt(self) -> bool:
        """Adopt runs that other regions finished into this region's history; return whether more are to be adopted."""
        heads = self._load().heads
        if not self._to_adopt:
            return False
        batch = sorted(self._to_adopt)[:_BATCH]
        found = history(self._others.values(), batch)
        runs = [run for run in found if run.dag_id not in heads or not heads[run.dag_id].has(run)]
        if runs:
            # With more than one other region, the note does not say which of them executed the run.
            others = " or ".join(sorted(self._others)) or "another region"
            adopted = self._db.adopt(runs, f"adopted: this run was executed in {others}")
            if adopted:
                log.info("Adopted %d runs that ended in %s", adopted, others)
        self._to_adopt -= set(batch)
        return bool(self._to_adopt)

    def forget_closed(self) -> None:
        """Delete runs that this region skipped as a standby if no other region created their intervals."""
        ledgers = [self._load(), *self._others.values()]
        dag_ids = {dag_id for ledger in ledgers for dag_id in ledger.heads}
        dropped = self._db.forget_closed(
            {dag_id: created_up_to(ledgers, dag_id) for dag_id in dag_ids},
            {dag_id: held for dag_id in dag_ids if (held := dates_held(ledgers, dag_id))},
        )
        if dropped:
            log.info(
                "Deleted %d runs that %s skipped as a standby; its scheduler creates them again", dropped, self._region
            )

    def apply_outcomes(self) -> None:
        """Give this region's runs the outcomes that other regions published, and drop the runs that no region needs."""
        own = self._load()
        others = list(self._others.values())
        done = finished_by_others(own, others)
        if done:
            self._db.apply_outcomes(done, "the run continued and ended in another region")
        gone = [replace(own.runs[run.key], status=RunStatus.GONE) for run in done]
        gone += [replace(run, status=RunStatus.GONE) for run in no_longer_needed(own, others)]
        if gone:
            self._append(own.epoch or 0, gone, first_id=own.first_id, newest_id=own.newest_id)
        # The last entries before a long time without changes would otherwise expire before they are in a checkpoint.
        self._save_checkpoint_in_time(own)

    def resume(self, *, epoch: int) -> bool:
        """
        Start the unfinished runs of all regions in this region; return whether more are to be started.

        The bookkeeper first publishes that the run is open in this region under this epoch, and then queues it. If the
        leader dies in between, the next leader queues the run.
        """
        own = self._load()
        to_queue = self._taken_but_not_queued(own)
        waiting = unfinished_runs([own, *self._others.values()])
        self._refresh_stuck(waiting)
        stopped = {key for key in waiting if (mine := own.runs.get(key)) is not None and _is_stopped(mine, epoch)}
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
            elif key not in self._stuck or key in self._to_retry:
                candidates.append(run)
        batch = candidates[:_BATCH]
        refused = self._db.cannot_resume(batch) if batch else {}
        self._to_retry -= {run.key for run in batch}
        self._note_stuck(refused)
        taken_at = self._rows_read_at or self._clock.now()
        taken = [
            replace(run, status=RunStatus.OPEN, epoch=epoch, taken_at=taken_at)
            for run in batch
            if run.key not in refused
        ]
        if taken:
            # Note this before the write: one entry may be written, and the next one or the checkpoint may fail.
            self._not_queued |= {run.key for run in taken}
            self._append(epoch, taken, first_id=own.first_id, newest_id=own.newest_id)
        if to_queue or taken:
            failed = self._db.resume(
                [*to_queue, *taken], f"resumed: it was interrupted; {self._region} runs it again (epoch {epoch})"
            )
            self._note_stuck(failed)
            self._not_queued = set(failed)  # the next turn tries them again
            queued = {run.key for run in (*to_queue, *taken)} - failed.keys()
            self._stuck = {key: why for key, why in self._stuck.items() if key not in queued}
            if queued:
                log.info("%s resumes %d interrupted runs (epoch %d)", self._region, len(queued), epoch)
        return len(candidates) > len(batch)

    def _doubts(self, waiting: Mapping[RunKey, LedgerRun]) -> dict[RunKey, str]:
        """Return the runs that may have ended in an entry that cannot be read, with the reason."""
        doubts = {
            key: f"it may have ended: {why}"
            for region, why in self._missing.items()
            for key, run in self._others[region].runs.items()
            if run.is_unfinished and key in waiting
        }
        return doubts | {key: run.doubt for key, run in waiting.items() if run.doubt is not None}

    def make_room(self) -> None:
        """Let resumed runs start although later runs, which wait for them, take all of ``max_active_runs``."""
        own = self._load()
        waiting = [
            run
            for key in sorted(self._queued & own.runs.keys())
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
        if not self._not_queued:
            return []
        rows = {row.key: row for row in self._db.runs(self._not_queued)}
        not_queued = []
        for key in sorted(self._not_queued):
            run, row = own.runs.get(key), rows.get(key)
            if run is None or run.status is not RunStatus.OPEN or run.taken_at is None:
                continue
            if row is None or not _was_queued(row, run):
                not_queued.append(run)
        self._not_queued = {run.key for run in not_queued}
        return not_queued

    def _refresh_stuck(self, waiting: Mapping[RunKey, LedgerRun]) -> None:
        """Drop the reasons of runs that no longer wait, and let the others be tried again every 30 s."""
        now = self._clock.monotonic()
        self._stuck = {key: why for key, why in self._stuck.items() if key in waiting}
        if now - self._stuck_at >= _STUCK_EVERY_S:
            self._to_retry, self._stuck_at = set(self._stuck), now

    def _note_stuck(self, reasons: Mapping[RunKey, str]) -> None:
        """Store the reasons why these runs cannot be started, for the heartbeat; log each new reason."""
        for key, why in reasons.items():
            if self._stuck.get(key) != why:
                log.warning("%s %s was interrupted and cannot be started in %s: %s", *key, self._region, why)
        self._stuck.update(reasons)

    # -- the log -----------------------------------------------------------------------------------------------------

    def _append(
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
        """Write the next entry, or several if the runs do not fit one. Only the last has the other fields."""
        own = self._load()
        if self._needs_new_life:
            self._begin_life(own)
        chunks = list(_chunks(runs, dag_ids)) or [((), ())]
        for position, (part, ids) in enumerate(chunks, start=1):
            is_last = position == len(chunks)
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
            self._own = None
            self._runs.append(self._region, entry)
            self._own = own
            own.apply([entry])
        # Only after this method has returned does the caller note the runs as published. So after an error in the
        # checkpoint, too, the next call must read the log again.
        self._own = None
        self._save_checkpoint_in_time(own)
        self._own = own

    def _save_checkpoint_in_time(self, own: RegionLedger) -> None:
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

    def _begin_life(self, own: RegionLedger) -> None:
        """
        Begin another life of this region's ledger with a checkpoint: entry numbers may be used again.

        :raises StaleLedgerError: another agent of the region has written the ledger.
        """
        begun = replace(own, life=uuid.uuid4().hex[:12])
        self._own = None
        self._save_checkpoint(begun, begins_after=own)
        log.info("The ledger of %s begins another life: %s (before: %s)", self._region, begun.life, own.life)
        own.life, self._own, self._needs_new_life = begun.life, own, False
        if own.gap is not None:
            self._saved_number = 0  # after the gap's content is published again, a checkpoint is saved

    def _save_checkpoint(self, own: RegionLedger, *, begins_after: RegionLedger | None = None) -> None:
        if not self._runs.save_checkpoint(self._region, own, begins_after=begins_after):
            self._own = None
            raise StaleLedgerError(
                f"The stored checkpoint of the ledger of {self._region} is later than this agent's or of another life.",
                advice="Another agent of the region also writes the ledger; this agent reads it again.",
            )
        self._saved_number, self._saved_at = own.number, self._clock.monotonic()


def _apply_all(ledger: RegionLedger, entries: Sequence[LogEntry]) -> None:
    """Apply *entries*. Skip entries that are missing before the first of them: they have expired or were deleted."""
    if (first := entries[0].number) > ledger.number + 1:
        ledger.pass_over(first - 1, f"Its entries {ledger.number + 1} to {first - 1} are missing.")
    ledger.apply(entries, any_life=True)


def _why_missing(region: str, number: int, first: LogEntry) -> str:
    if first.number > number + 1:
        return (
            f"entry {number + 1} of the ledger of {region} is missing, but later ones exist: it is not replicated to "
            "this copy of the table yet, or was deleted"
        )
    return (
        f"entry {first.number} of the ledger of {region} belongs to another life of this ledger, and the checkpoint of "
        "that life is missing: it is not replicated to this copy of the table yet, or was deleted"
    )


def to_conf(conf: Any) -> tuple[str | None, str | None]:
    """Return a run's conf as JSON text, and the reason if it cannot be stored; one of them, or both, are None."""
    if not conf:
        return None, None
    try:
        text = json.dumps(conf, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return None, f"it is not JSON ({error})"
    if len(text) > CONF_BYTES:
        return None, f"it has {len(text)} characters as JSON, and the limit is {CONF_BYTES}"
    return text, None


def _to_run(row: RunRow, status: RunStatus, *, epoch: int) -> LedgerRun:
    conf, conf_lost = to_conf(row.conf) if row.conf_lost is None else (None, row.conf_lost)
    return LedgerRun(
        dag_id=row.dag_id,
        run_id=row.run_id,
        run_type=row.run_type,
        status=status,
        epoch=epoch,
        logical_date=row.logical_date,
        data_interval_start=row.data_interval_start,
        data_interval_end=row.data_interval_end,
        run_after=row.run_after,
        partition_key=row.partition_key,
        partition_date=row.partition_date,
        conf=conf,
        conf_lost=conf_lost[:_REASON_CHARS] if conf_lost is not None else None,
        holds_date=row.holds_date,
    )


def _is_stopped(run: LedgerRun, epoch: int) -> bool:
    """Whether a failover stops the run in the present epoch; nothing else interrupts a run before the role moves."""
    return run.status is RunStatus.INTERRUPTED and run.epoch == epoch


def _new_stops(own: RegionLedger, state: DRState, epoch: int) -> Sequence[Stop]:
    """Return the announcements under *epoch* that the ledger does not take into account yet, in order."""
    stops = stops_of(state, epoch)
    known = next((number for number, stop in enumerate(stops, start=1) if stop.set_id == own.stops), 0)
    return stops[known:]


def _read_stops(
    stops: Iterable[Stop], read_stopped: Callable[[str], Collection[str]]
) -> tuple[set[RunKey], set[RunKey]]:
    """Return the stopped runs, and those that had ended by themselves; for each run the last announcement counts."""
    stopped: set[RunKey] = set()
    had_ended: set[RunKey] = set()
    for stop in stops:
        # A DAG id contains no space.
        keys = {(dag_id, run_id) for dag_id, _, run_id in (run.partition(" ") for run in read_stopped(stop.set_id))}
        stopped, had_ended = stopped - keys, had_ended - keys
        if stop.had_ended:
            had_ended |= keys
        else:
            stopped |= keys
    return stopped, had_ended


def _is_newer_than(own: RegionLedger, row: RunRow) -> bool:
    """Whether the ledger has never published the present execution of the run: it is new, or was cleared since."""
    if row.id > own.newest_id:
        return True
    return own.at is not None and row.queued_at is not None and row.queued_at > own.at


def _stopped_by_plan(state: DRState, read_stopped: Callable[[str], Collection[str]]) -> set[RunKey]:
    """Return the runs that the open plan announced as stopped, if it is draining its source."""
    if state.plan is None or state.phase is not Phase.DRAINING:
        return set()
    stops = [stop for stop in stops_of(state, state.epoch) if stop.set_id.startswith(f"{state.plan.id}-")]
    return _read_stops(stops, read_stopped)[0]


def _is_open(run: LedgerRun | None) -> bool:
    return run is not None and run.status is RunStatus.OPEN


def _was_queued(row: RunRow, run: LedgerRun) -> bool:
    """Whether the row shows that this or another process of the region queued the run after taking it over."""
    return row.is_open or (row.queued_at is not None and run.taken_at is not None and row.queued_at >= run.taken_at)


def _status_of(state: str) -> str:
    """Return a row's state as the ledger publishes it; queued and running are both open."""
    return RunStatus.OPEN.value if state in {"queued", "running"} else state


def _chunks(
    runs: Iterable[LedgerRun], dag_ids: Sequence[str]
) -> Iterator[tuple[tuple[LedgerRun, ...], tuple[str, ...]]]:
    """Yield first the runs, then the DAG ids, in parts that each fit one entry."""
    part: list[LedgerRun] = []
    size = 0
    for run in runs:
        # 600 covers names, times and ids; only conf and tasks can be long.
        cost = 600 + len(run.dag_id) + len(run.run_id) + len(run.conf or "")
        cost += sum(len(task_id) + 30 for task_id, _, _ in run.tasks)
        if part and size + cost > _ENTRY_BYTES:
            yield tuple(part), ()
            part, size = [], 0
        part.append(run)
        size += cost
    if part:
        yield tuple(part), ()
    ids: list[str] = []
    size = 0
    for dag_id in dag_ids:
        cost = len(json.dumps(dag_id)) + 2
        if size + cost > _ENTRY_BYTES:
            yield (), tuple(ids)
            ids, size = [], 0
        ids.append(dag_id)
        size += cost
    if ids:
        yield (), tuple(ids)
