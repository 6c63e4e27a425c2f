"""
Keeping a region's part of the ledger, and acting on the parts of the other regions.

The leading agent of a region has a :class:`Bookkeeper`. In the active region it publishes the changes in the region's
metadata database (:meth:`~Bookkeeper.publish`). When the region loses the role, it publishes once which runs were
interrupted (:meth:`~Bookkeeper.interrupt`). In a standby it adopts the finished runs of other regions into the region's
history (:meth:`~Bookkeeper.adopt`). When the region becomes active, it resumes the unfinished runs
(:meth:`~Bookkeeper.resume`). Every step is repeatable, and the next leader needs nothing but what the ledger has.
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
"""A run's conf, as JSON, that is longer does not fit an item beside everything else."""
TASKS_BYTES = 200_000
"""Nor do task instances with longer ids, all together; more than a thousand tasks have room."""
NO_RERUN_TAG = "dr:no-rerun"
"""DAGs with this tag: what was interrupted is listed, and not started elsewhere."""
_OVERLAP = 500
"""Ids that are read again: a row with a lower id may be committed later than one with a higher id."""
_ENTRY_BYTES = 250_000
"""Of JSON in one entry of the log, about; more goes into the next one."""
_ENTRIES_TO_CHECKPOINT = 300
"""A new reader has to read the checkpoint and at most so many entries."""
_CHECKPOINT_EVERY_S = 300.0
_DAGS_EVERY_S = 30.0
"""Between two searches for DAGs that the ledger does not have; a published run adds its DAG, too."""
_STUCK_EVERY_S = 30.0
"""Between two attempts to start runs that could not be started."""
_LIVES_EVERY_S = 60.0
"""Between two reads that show whether a region's ledger has begun another life, or this region's is still stored."""
_GAP_EVERY_S = 30.0
"""Between two reads of the checkpoint of a region whose log has an entry that cannot be read."""
_REPLAYED = 10
"""Pages of a log that one turn reads at most when the checkpoint, which saves it that, cannot be read."""
_MOST_RETAINED = 20_000
"""Ended runs that the ledger retains for a region that cannot be reached; that region may repeat others."""
_SOME = 20
"""Of a list that may be long, as many go into a heartbeat."""
_REASON_CHARS = 500
"""Of why a run's conf could not be kept."""
_BATCH = 500
"""Runs that one turn adopts or resumes at most: the agent has other things to do, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """
    A run as the metadata database has it.

    :param conf: whatever Airflow stored.
    :param conf_lost: why that cannot be read.
    :param is_skipped: the provider has closed it before any of its tasks executed: whatever its state says, it is work
        that no region has done.
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

    @property
    def key(self) -> RunKey:
        """DAG id and run id."""
        return self.dag_id, self.run_id

    @property
    def is_open(self) -> bool:
        """Whether it is queued or running."""
        return self.state in {"queued", "running"}


class LedgerDb(Protocol):
    """What the bookkeeper needs from the metadata database; see :class:`plugins.metadata_db.MetadataDb`."""

    def newest_run(self) -> int:
        """Return the highest id of a run; 0 when there is none."""

    def read_states(self, *, above: int) -> tuple[int, Mapping[RunKey, str]]:
        """Return the highest run id, and the states of all open runs and of all runs with an id above *above*."""

    def runs(self, keys: Collection[RunKey]) -> Sequence[RunRow]:
        """Return those of the runs that exist."""

    def tasks(self, keys: Collection[RunKey]) -> Mapping[RunKey, Sequence[TaskState]]:
        """Return the task instances of those of the runs whose DAG has tasks that depend on the previous run."""

    def last_finished(self, dag_ids: Collection[str]) -> Sequence[RunRow]:
        """Return the newest ended scheduled run of each of the DAGs that has one; none that the provider skipped."""

    def dag_ids(self) -> Sequence[str]:
        """Return the ids of all DAGs that are not exempt."""

    def adopt(self, runs: Sequence[LedgerRun], note: str) -> int:
        """
        Write runs that ended elsewhere into the history, with *note* on each; return how many were new.

        Passed over: a run that is there, and one that is older than the DAG's newest scheduled one. A run that is
        there, has ended, and comes with tasks gets its result and theirs. A new row has no ``queued_at``: the region
        has not queued it, and :meth:`resume` still may.
        """

    def cannot_resume(self, runs: Sequence[LedgerRun]) -> Mapping[RunKey, str]:
        """Return those of the runs that must not or cannot be queued here, with the reason."""

    def resume(self, runs: Sequence[LedgerRun], note: str) -> Mapping[RunKey, str]:
        """
        Queue runs, under the ids and with everything else that they had, all tasks anew; repeatable.

        A run that is open already stays as it is. ``queued_at`` becomes ``taken_at``, or later.

        :return: those that could not be queued, with the reason; the others are.
        """

    def make_room(self, runs: Sequence[LedgerRun]) -> int:
        """
        Let runs begin that wait in the queue, where all room is taken by later ones that wait for them.

        :return: how many of the later ones went back into the queue.
        """

    def apply_outcomes(self, runs: Sequence[LedgerRun], note: str) -> None:
        """Give closed runs, and their tasks where these are known, the result that another region published."""

    def forget_closed(self, created: Mapping[str, datetime | None]) -> int:
        """
        Drop scheduled runs that the provider closed in standby before anything of them executed; return how many.

        Only those above the DAG's logical date in *created* (None: all of them), and only of the DAGs in it: nobody
        has created these intervals anywhere, so the scheduler has to, as far as the DAG's catchup tells it to.
        """


class Bookkeeper:
    """
    Keeps one region's part of the ledger. Not thread-safe; one thread of one process.

    :param peers: the other regions of the set, asked for now and then.
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
        """When the rows that are published were read, by this region's clock."""
        self._queued: set[RunKey] = set()
        self._to_adopt: set[str] = set()
        self._saved_number = 0
        self._saved_at = clock.monotonic()
        self._not_carried_out: set[RunKey] = set()
        self._stuck: dict[RunKey, str] = {}
        self._stuck_at = clock.monotonic()
        self._again: set[RunKey] = set()
        self._next_dags_at = 0.0
        self._needs_new_life = False
        self._next_lives_at = self._next_watch_at = clock.monotonic() + _LIVES_EVERY_S
        self._unread_peers: set[str] = set()
        """Peers of which nothing has been read so far."""
        self._next_gap_read_at: dict[str, float] = {}
        self._missing: dict[str, str] = {}
        self._doubted: set[RunKey] = set()
        self._replays: dict[str, RegionLedger] = {}

    # -- what others may know ----------------------------------------------------------------------------------------

    @property
    def lag_s(self) -> float | None:
        """Age of what this region has published; None before it has published anything."""
        return None if self._published_at is None else self._clock.monotonic() - self._published_at

    @property
    def waiting(self) -> tuple[str, ...]:
        """Runs that nobody has finished and that cannot be started here, with the reason; the first of them."""
        if not self._stuck:
            return ()
        some = [f"{dag_id} {run_id}: {why}" for (dag_id, run_id), why in sorted(self._stuck.items())[:_SOME]]
        more = len(self._stuck) - len(some)
        return (*some, f"and {more} more") if more else tuple(some)

    @property
    def unread(self) -> tuple[str, ...]:
        """What of the ledger cannot be read, and has been passed over: one sentence for each region."""
        ledgers = {**self._others, **({self._region: self._own} if self._own is not None else {})}
        gaps = {region: ledger.gap.why for region, ledger in ledgers.items() if ledger.gap is not None}
        return tuple(
            f"The ledger of {region} has a gap. {why}" for region, why in sorted({**self._missing, **gaps}.items())
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Entries of other regions' ledgers that are not in this copy of the table while later ones are."""
        return tuple(why for _, why in sorted(self._missing.items()))

    @property
    def final_plan_id(self) -> str | None:
        """The plan for which this region has published its final ledger entry."""
        return self._own.final_plan_id if self._own is not None else None

    # -- reading -----------------------------------------------------------------------------------------------------

    def follow(self, *, is_thorough: bool = False) -> None:
        """
        Read what the other regions have published since the last call: one query each when there is nothing new.

        :param is_thorough: also read whether a ledger has begun another life; otherwise only once a minute.
        :raises UnreadableItemError: an item of one of them cannot be read, or has not arrived; the others are read.
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
            # Its entries may have the numbers of those that have been read.
            log.warning(
                "The ledger of %s has begun another life (%s, before: %s): it is read again.",
                region,
                saved.life,
                ledger.life,
            )
            ledger = self._checkpoint_of(region)
            self._to_adopt |= set(ledger.heads)
        elif ledger.gap is not None and (later := self._past_gap(region, ledger.gap)) is not None:
            ledger = later
            self._to_adopt |= set(ledger.heads)
        while entries := self._runs.log(region, after=ledger.number):
            before = ledger.number
            if entries[0].number == before + 1:
                self._to_adopt |= ledger.apply(entries).heads
            if ledger.number == before:
                # Entries in between have expired, or a copy is behind, or the ledger has begun another life: the
                # checkpoint has them, or will have them.
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
        Return another region's checkpoint; what its whole log comes to when the checkpoint cannot be read.

        :raises UnreadableCheckpointError: the log does not reach back to its beginning.
        :raises StateUnreachableError: there is more of the log to read; the next turn goes on.
        """
        try:
            return self._runs.checkpoint(region)
        except UnreadableCheckpointError:
            if region not in self._replays and [entry.number for entry in self._runs.log(region, after=0)[:1]] != [1]:
                raise
        return self._replayed(region, RegionLedger())

    def _replayed(self, region: str, begin: RegionLedger) -> RegionLedger:
        replay = self._replays.setdefault(region, begin)
        for _ in range(_REPLAYED):
            entries = self._runs.log(region, after=replay.number)
            if not entries:
                return self._replays.pop(region)
            _read_on(replay, entries)
        raise StateUnreachableError(
            f"The ledger of {region} is being read from its beginning, because its checkpoint cannot be read: "
            f"{replay.number} entries so far.",
            advice="The next turn goes on.",
        )

    def _past_gap(self, region: str, gap: Gap) -> RegionLedger | None:
        """Return the region's checkpoint if it has what could not be read in the log; None when it has not, so far."""
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
        """Return the last epoch that *region* published as the active region, as far as it has been read."""
        ledger = self._others.get(region)
        return None if ledger is None else ledger.epoch

    def has_read_final(self, region: str, plan_id: str) -> bool:
        """Whether *region*'s final ledger entry, before it gave the role up under *plan_id*, has been read."""
        ledger = self._others.get(region)
        return ledger is not None and ledger.final_plan_id == plan_id

    def last_read(self) -> list[str]:
        """Return a sentence for each other region: up to where its ledger has been read. Reads nothing."""
        found = []
        for region, ledger in sorted(self._others.items()):
            unfinished = sorted(" ".join(key) for key, run in ledger.runs.items() if run.is_unfinished)
            shown = ", ".join(unfinished[:_SOME]) + (", ..." if len(unfinished) > _SOME else "")
            found.append(
                f"{region}: read up to entry {ledger.number} (epoch {ledger.epoch}); unfinished there then: "
                + (f"{len(unfinished)} runs: {shown}" if unfinished else "no run")
            )
        return found or ["the ledger of no other region has been read since this scheduler started"]

    def read_anew(self) -> None:
        """Forget what this process knows of its own region's part: another one has written it meanwhile, perhaps."""
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
                _read_on(own, entries)
            # What was written after the checkpoint may have expired, and readers may know it.
            is_old = own.at is None or self._clock.now() - own.at > timedelta(days=LOG_DAYS / 2)
            self._needs_new_life = self._needs_new_life or own.life is None or is_old
            if own.gap is not None:
                # What is only in the gap is published again from the database, and then saved in a checkpoint.
                own.newest_id, self._saved_number = min(own.newest_id, own.gap.newest_id), 0
                log.warning("The ledger of %s has a gap, which its agent closes: %s", self._region, own.gap.why)
            self._own, self._published = own, {key: run.status.value for key, run in own.runs.items()}
            self._not_carried_out = {
                key for key, run in own.runs.items() if run.status is RunStatus.OPEN and run.taken_at is not None
            }
        return self._own

    def _without_checkpoint(self, error: UnreadableCheckpointError) -> RegionLedger:
        """
        Return what there is of this region's part of the ledger without its checkpoint.

        :raises UnreadableCheckpointError: not even the number of its last entry.
        :raises StateUnreachableError: there is more of the log to read; the next turn goes on.
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
        Publish that the region executes under *epoch* from now on; before it executes anything.

        The runs in its database so far began under other epochs; of these, only the open ones count from now on.

        :param first_id: the highest run id when the region began to execute, if it began without the ledger.
        """
        own = self._load()
        if own.epoch != epoch:
            newest = self._db.newest_run() if first_id is None else first_id
            # They may end before the ledger is written again, and rows up to the newest id are not read then.
            _, states = self._db.read_states(above=self._db.newest_run())
            rows = self._db.runs(states) if states else ()
            found = [
                self._run_to_publish(own, row.key, row, epoch=epoch, had_ended=False) for row in rows if row.is_open
            ]
            runs = sorted((run for run in found if run is not None), key=lambda run: run.key)
            self._append(epoch, runs, first_id=newest, newest_id=newest, complete_before=epoch)

    def publish_closed(self, keys: Collection[RunKey], *, epoch: int, closed_at: datetime) -> None:
        """
        Publish as interrupted what the region closed while the ledger refused. Repeatable.

        The ledger keeps what it says of a run that it has: it is unfinished, or another region has finished it. A run
        that a person has cleared since is this role's own: it is published as open, or has ended.

        :param epoch: under which the runs began.
        :param closed_at: when they were closed, by this region's clock.
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
            log.info("%d runs of %s, closed while the ledger refused, are published", len(rows), self._region)

    def has_begun(self, epoch: int) -> bool:
        """Whether the region has published this: its open runs are its own, or were taken over under this epoch."""
        if self._load().epoch != epoch:
            self._own = None  # another agent of the region may have published it
        return self._load().epoch == epoch

    def unreconciled_epoch(self) -> int | None:
        """Return the epoch under which the region began a role, if it has reconciled for no later one since."""
        own = self._load()
        return own.epoch if own.complete_before == own.epoch else None

    def publish_complete(self, epoch: int) -> None:
        """Publish that this region's ledger is complete: it has everything that the region began before *epoch*."""
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
        Publish what has changed in the database since the last call.

        The bookkeeper reads the rows first and the state second. A row of an ended run counts only if the region still
        has the role, under the same epoch, after that.

        A failover announces in the state which runs it stops, before it stops the first one. So an agent that reads
        that such a run has failed also reads the announcement, and each run in it counts as interrupted from then on.
        The run has ended by itself only if its row is a success, if the failover announces that the run had ended, or
        if the run was queued again since. This does not depend on the plan, which may be cancelled by then.

        The call that stops a run may be late: the run may have ended, and a user may have cleared it. A run of the open
        plan's announcements that fails while the plan drains the region counts as interrupted, too.

        :param state: the view that the gate acts on, from before the rows are read.
        :param read_state: reads the state again; called only when there is something to publish.
        :param read_stopped: returns the runs in a recorded set, ``DAG_ID RUN_ID`` each.
        :return: whether all changes are published; False if the region does not have the role under this epoch.
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
            # Their rows are as they were last published, or newer than what was read.
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
            # A run that ended and has an id below those that are read is never compared again.
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
                    "%s %s: its %d task instances do not fit the ledger; in another region, tasks that depend on their "
                    "past wait for them until somebody clears or marks them there.",
                    *key,
                    len(tasks),
                )
                found[key] = ()
        return found

    def _new_dags(self, own: RegionLedger, *, force: bool) -> tuple[list[str], Sequence[RunRow]]:
        """Return DAGs that the ledger does not have, and the history of those that no region has published."""
        now = self._clock.monotonic()
        if not force and now < self._next_dags_at:
            return [], ()
        self._next_dags_at = now + _DAGS_EVERY_S
        dag_ids = sorted(set(self._db.dag_ids()) - own.heads.keys())
        unknown = [dag_id for dag_id in dag_ids if not any(dag_id in other.heads for other in self._others.values())]
        return dag_ids, self._db.last_finished(unknown) if unknown else ()

    def _retained(self, own: RegionLedger, changed: list[LedgerRun], *, epoch: int) -> list[LedgerRun]:
        """Mark the ended runs that another region has begun, too, or may have begun and cannot publish at present."""
        others = self._others.values()
        room = _MOST_RETAINED - sum(run.has_ended for run in own.runs.values())
        is_anybody_away = room > 0 and (
            bool(self._unread_peers) or not all(is_complete(other, epoch) for other in others)
        )
        return [
            replace(
                run,
                retained_for_peers=run.has_ended
                and (is_anybody_away or any(run.key in other.runs for other in others)),
            )
            for run in changed
        ]

    def _run_to_publish(
        self, own: RegionLedger, key: RunKey, row: RunRow | None, *, epoch: int, had_ended: bool
    ) -> LedgerRun | None:
        """Return the run to publish for a row that may have changed; None when there is nothing to publish."""
        known = own.runs.get(key)
        if row is None:
            # One that is about to be queued here (resume) is not there yet.
            if known is None or known.status is not RunStatus.OPEN or key in self._not_carried_out:
                return None
            # A user deleted it. If it began in another region, that region still lists it as unfinished.
            is_elsewhere = known.taken_at is not None or any(key in other.runs for other in self._others.values())
            is_elsewhere = is_elsewhere or bool(self._unread_peers)
            return replace(known, status=RunStatus.FAILED if is_elsewhere else RunStatus.GONE, epoch=epoch)
        taken_at = known.taken_at if known is not None else None
        is_stopped = known is not None and _is_stopped(known, epoch) and not had_ended
        if row.is_open:
            if known is not None and known.status is RunStatus.OPEN and known.epoch == epoch and known.doubt is None:
                return None
            if is_stopped and self._published.get(key) not in {RunStatus.SUCCESS.value, RunStatus.FAILED.value}:
                return None  # it was not queued again: the call that stops it is still to come
            return replace(_to_run(row, RunStatus.OPEN, epoch=epoch), taken_at=taken_at)
        status = RunStatus.SUCCESS if row.state == "success" else RunStatus.FAILED
        if row.is_skipped:
            # Closed on a view that was wrong or too old, while the region had the role: resume begins it.
            status = RunStatus.INTERRUPTED
        if known is not None and known.is_unfinished:
            if is_stopped:
                # One that succeeded was not stopped after all: it ended first.
                is_over = status is RunStatus.SUCCESS
            elif known.status is RunStatus.INTERRUPTED:
                is_over = had_ended and known.epoch == epoch
            else:
                is_over = key not in self._not_carried_out or _was_queued(row, known)
            if not is_over:
                return None  # resume goes on with it
        elif row.id <= own.first_id:
            return None  # born under another epoch, and not open since: nobody waits for it
        return replace(_to_run(row, status, epoch=epoch), taken_at=taken_at)

    @staticmethod
    def _stopped_run_to_publish(own: RegionLedger, row: RunRow, *, epoch: int, is_late: bool) -> LedgerRun | None:
        """
        Return the run to publish for a row that a failover stops; None when there is nothing to publish.

        :param is_late: the row was read after the state, so it does not show how the run ended.
        """
        known = own.runs.get(row.key)
        if known is not None and _is_stopped(known, epoch):
            return None
        if is_late and not row.is_open and not (known is not None and known.is_unfinished):
            return None  # it ended first, and that is published
        taken_at = known.taken_at if known is not None else None
        return replace(_to_run(row, RunStatus.INTERRUPTED, epoch=epoch), taken_at=taken_at)

    def interrupt(
        self, state: DRState, *, epoch: int, read_stopped: Callable[[str], Collection[str]] = lambda _: ()
    ) -> None:
        """
        Publish that everything that is open was interrupted, before it is closed: the role is gone, or was in between.

        Also what a failover stopped before the ledger knew of it.

        :param state: the present one, of a later epoch.
        :param epoch: under which the region's open runs were begun; when the region did not have the role then, they
            are nobody's obligation, and nothing is published.
        :param read_stopped: returns the runs in a recorded set, ``DAG_ID RUN_ID`` each.
        """
        own = self._load()
        if own.epoch is None or not epoch <= own.epoch < state.epoch:
            return
        # A later one, if the role was taken up and lost again before the state table knew.
        epoch = own.epoch
        _, states = self._db.read_states(above=self._db.newest_run())
        keys = {key for key in states if own.runs.get(key) is None or own.runs[key].status is not RunStatus.INTERRUPTED}
        keys |= {key for key, run in own.runs.items() if run.status is RunStatus.OPEN}
        stops = _new_stops(own, state, epoch)
        stopped, _ = _read_stops(stops, read_stopped)
        rows = {row.key: row for row in self._db.runs(keys | stopped)} if keys or stopped else {}
        # The ledger has read no row above this id. A run that it has read, it has published.
        unread = {key for key, row in rows.items() if row.id > own.newest_id and row.state == "failed"}
        changed = []
        for key in sorted(keys | (stopped & unread)):
            known, row = own.runs.get(key), rows.get(key)
            if row is not None and (row.is_open or known is not None or key in stopped):
                taken_at = known.taken_at if known is not None else None
                # It may have ended by itself, in what cannot be read.
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

    # -- acting on it ------------------------------------------------------------------------------------------------

    def adopt(self) -> bool:
        """Take what was finished elsewhere into this region's history; return whether there is more to do."""
        heads = self._load().heads
        if not self._to_adopt:
            return False
        batch = sorted(self._to_adopt)[:_BATCH]
        found = history(self._others.values(), batch)
        runs = [run for run in found if run.dag_id not in heads or not heads[run.dag_id].has(run)]
        if runs:
            # Which region it was is in the note only where there is but one.
            elsewhere = " or ".join(sorted(self._others)) or "elsewhere"
            adopted = self._db.adopt(runs, f"adopted: this run was executed in {elsewhere}")
            if adopted:
                log.info("Adopted %d runs that ended in %s", adopted, elsewhere)
        self._to_adopt -= set(batch)
        return bool(self._to_adopt)

    def forget_closed(self) -> None:
        """Make room for intervals that this region skipped in standby and that no other region has ever created."""
        ledgers = [self._load(), *self._others.values()]
        dag_ids = {dag_id for ledger in ledgers for dag_id in ledger.heads}
        dropped = self._db.forget_closed({dag_id: created_up_to(ledgers, dag_id) for dag_id in dag_ids})
        if dropped:
            log.info("%d runs that %s had skipped in standby are to be created again", dropped, self._region)

    def apply_outcomes(self) -> None:
        """Give this region's runs the outcomes that other regions published, and drop the runs that no region needs."""
        own = self._load()
        others = list(self._others.values())
        done = finished_by_others(own, others)
        if done:
            self._db.apply_outcomes(done, "the run went on, and ended, in another region")
        gone = [replace(own.runs[run.key], status=RunStatus.GONE) for run in done]
        gone += [replace(run, status=RunStatus.GONE) for run in no_longer_needed(own, others)]
        if gone:
            self._append(own.epoch or 0, gone, first_id=own.first_id, newest_id=own.newest_id)
        # Without a checkpoint, the last entries before a long silence would expire.
        self._save_checkpoint_in_time(own)

    def resume(self, *, epoch: int) -> bool:
        """
        Go on with what nobody has finished, here; return whether there is more to do.

        The bookkeeper first publishes that the run is open here under this epoch, then queues it. If the leader dies in
        between, the next leader completes this.
        """
        own = self._load()
        to_queue = self._to_carry_out(own)
        waiting = unfinished_runs([own, *self._others.values()])
        self._refresh_stuck(waiting)
        stopped = {key for key in waiting if (mine := own.runs.get(key)) is not None and _is_stopped(mine, epoch)}
        # A call that stops it may still be under way: when its row has ended, that can do no more harm.
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
            # Open here; or ended, under an epoch that is lower than the others' because the state table was made anew.
            if mine is not None and mine.status is not RunStatus.INTERRUPTED and mine.epoch == epoch:
                continue
            if key in doubts:
                self._note_stuck({key: doubts[key]})
            elif run.conf_lost is not None:
                self._stuck[key] = f"its conf is not in the ledger: {run.conf_lost}"
            elif key not in self._stuck or key in self._again:
                candidates.append(run)
        batch = candidates[:_BATCH]
        refused = self._db.cannot_resume(batch) if batch else {}
        self._again -= {run.key for run in batch}
        self._note_stuck(refused)
        taken_at = self._rows_read_at or self._clock.now()
        taken = [
            replace(run, status=RunStatus.OPEN, epoch=epoch, taken_at=taken_at)
            for run in batch
            if run.key not in refused
        ]
        if taken:
            # Before the entry: after it has landed, the next entry or the checkpoint may still fail.
            self._not_carried_out |= {run.key for run in taken}
            self._append(epoch, taken, first_id=own.first_id, newest_id=own.newest_id)
        if to_queue or taken:
            failed = self._db.resume(
                [*to_queue, *taken], f"resumed: it was interrupted; {self._region} goes on with it (epoch {epoch})"
            )
            self._note_stuck(failed)
            self._not_carried_out = set(failed)  # tried again
            queued = {run.key for run in (*to_queue, *taken)} - failed.keys()
            self._stuck = {key: why for key, why in self._stuck.items() if key not in queued}
            if queued:
                log.info("%s goes on with %d interrupted runs (epoch %d)", self._region, len(queued), epoch)
        return len(candidates) > len(batch)

    def _doubts(self, waiting: Mapping[RunKey, LedgerRun]) -> dict[RunKey, str]:
        """Return the runs that may have ended by now, in something that cannot be read, with the reason."""
        doubts = {
            key: f"it may have ended: {why}"
            for region, why in self._missing.items()
            for key, run in self._others[region].runs.items()
            if run.is_unfinished and key in waiting
        }
        return doubts | {key: run.doubt for key, run in waiting.items() if run.doubt is not None}

    def make_room(self) -> None:
        """See to it that what goes on here gets to begin: later runs may be waiting for it in all of the room."""
        own = self._load()
        waiting = [
            run
            for key in sorted(self._queued & own.runs.keys())
            if (run := own.runs[key]).status is RunStatus.OPEN and run.taken_at is not None
        ]
        if waiting and (moved := self._db.make_room(waiting)):
            log.info("%d runs of %s, which wait for earlier ones, give them their room", moved, self._region)

    def _to_carry_out(self, own: RegionLedger) -> list[LedgerRun]:
        """Return the runs that this or an earlier leader published as taken over, and did not queue."""
        if not self._not_carried_out:
            return []
        rows = {row.key: row for row in self._db.runs(self._not_carried_out)}
        undone = []
        for key in sorted(self._not_carried_out):
            run, row = own.runs.get(key), rows.get(key)
            if run is None or run.status is not RunStatus.OPEN or run.taken_at is None:
                continue
            if row is None or not _was_queued(row, run):
                undone.append(run)
        self._not_carried_out = {run.key for run in undone}
        return undone

    def _refresh_stuck(self, waiting: Mapping[RunKey, LedgerRun]) -> None:
        """Forget the runs that wait no more, and try the others again after a while; operators see the reasons."""
        now = self._clock.monotonic()
        self._stuck = {key: why for key, why in self._stuck.items() if key in waiting}
        if now - self._stuck_at >= _STUCK_EVERY_S:
            self._again, self._stuck_at = set(self._stuck), now

    def _note_stuck(self, reasons: Mapping[RunKey, str]) -> None:
        """Keep the reasons why these cannot be started, for operators; log a reason when it is new."""
        for key, why in reasons.items():
            if self._stuck.get(key) != why:
                log.warning("%s %s was interrupted, and is not started in %s: %s", *key, self._region, why)
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
        """Write the next entry; several when it is too long for one. The last one has all other fields."""
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
                # If the leader is killed between two entries, the next one reads all of it again.
                newest_id=newest_id if is_last else min(own.newest_id, newest_id),
                runs=part,
                dag_ids=ids,
                final_plan_id=final_plan_id if is_last else None,
                complete_before=complete_before if is_last else None,
                stops=stops if is_last else None,
                life=own.life,
            )
            # An error does not say whether the entry is in the log, and another agent may have written one: after an
            # error, of whatever kind, only the log itself knows.
            self._own = None
            self._runs.append(self._region, entry)
            self._own = own
            own.apply([entry])
        # The caller notes what it has published when this returns. After an error here, it reads the log, too.
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
            # The table may be a new one, or one that was restored from a backup.
            if saved is None or saved.number < self._saved_number or saved.life not in {None, own.life}:
                self._save_checkpoint(own)
            self._next_watch_at = now + _LIVES_EVERY_S

    def _begin_life(self, own: RegionLedger) -> None:
        """
        Begin another life of this region's ledger, with a checkpoint of what is known: its numbers may be used again.

        :raises StaleLedgerError: another agent of the region has written meanwhile.
        """
        begun = replace(own, life=uuid.uuid4().hex[:12])
        self._own = None
        self._save_checkpoint(begun, begins_after=own)
        log.info("The ledger of %s begins another life: %s, before %s", self._region, begun.life, own.life)
        own.life, self._own, self._needs_new_life = begun.life, own, False
        if own.gap is not None:
            self._saved_number = 0  # what is in the gap is published again, and then saved

    def _save_checkpoint(self, own: RegionLedger, *, begins_after: RegionLedger | None = None) -> None:
        if not self._runs.save_checkpoint(self._region, own, begins_after=begins_after):
            self._own = None
            raise StaleLedgerError(
                f"The checkpoint of the ledger of {self._region} is later than this agent's, or of another life.",
                advice="Another agent of the region writes the ledger too; this one reads it again.",
            )
        self._saved_number, self._saved_at = own.number, self._clock.monotonic()


def _read_on(ledger: RegionLedger, entries: Sequence[LogEntry]) -> None:
    """Apply *entries*; what is missing before the first of them is passed over: it will not come any more."""
    if (first := entries[0].number) > ledger.number + 1:
        ledger.pass_over(first - 1, f"Its entries {ledger.number + 1} to {first - 1} are not there.")
    ledger.apply(entries, any_life=True)


def _why_missing(region: str, number: int, first: LogEntry) -> str:
    if first.number > number + 1:
        return (
            f"entry {number + 1} of the ledger of {region} is not there, and later ones are: it has not arrived in "
            "this copy of the table yet, or was deleted"
        )
    return (
        f"entry {first.number} of the ledger of {region} is of another life of it, and the checkpoint of that life is "
        "not there: it has not arrived in this copy of the table yet, or was deleted"
    )


def to_conf(conf: Any) -> tuple[str | None, str | None]:
    """Return a run's conf as JSON text, and why it could not be kept; one of them, or both, are None."""
    if not conf:
        return None, None
    try:
        text = json.dumps(conf, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return None, f"it is no JSON ({error})"
    if len(text) > CONF_BYTES:
        return None, f"it has {len(text)} characters as JSON, {CONF_BYTES} are kept"
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
    )


def _is_stopped(run: LedgerRun, epoch: int) -> bool:
    """Whether a failover stops the run under the present epoch: nothing else interrupts one before the role moves."""
    return run.status is RunStatus.INTERRUPTED and run.epoch == epoch


def _new_stops(own: RegionLedger, state: DRState, epoch: int) -> Sequence[Stop]:
    """Return what failovers have announced under *epoch* and the ledger does not take into account yet, in order."""
    stops = stops_of(state, epoch)
    known = next((number for number, stop in enumerate(stops, start=1) if stop.set_id == own.stops), 0)
    return stops[known:]


def _read_stops(
    stops: Iterable[Stop], read_stopped: Callable[[str], Collection[str]]
) -> tuple[set[RunKey], set[RunKey]]:
    """Return the runs that are being stopped, and those that had ended by themselves; the last announcement counts."""
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


def _stopped_by_plan(state: DRState, read_stopped: Callable[[str], Collection[str]]) -> set[RunKey]:
    """Return the runs that the open plan, which drains the region, has announced as stopped."""
    if state.plan is None or state.phase is not Phase.DRAINING:
        return set()
    stops = [stop for stop in stops_of(state, state.epoch) if stop.set_id.startswith(f"{state.plan.id}-")]
    return _read_stops(stops, read_stopped)[0]


def _is_open(run: LedgerRun | None) -> bool:
    return run is not None and run.status is RunStatus.OPEN


def _was_queued(row: RunRow, run: LedgerRun) -> bool:
    """Whether a run that was to be queued here has been, by what another process of this region left behind."""
    return row.is_open or (row.queued_at is not None and run.taken_at is not None and row.queued_at >= run.taken_at)


def _status_of(state: str) -> str:
    """Return a row's state as the ledger publishes it; queued and running are one."""
    return RunStatus.OPEN.value if state in {"queued", "running"} else state


def _chunks(
    runs: Iterable[LedgerRun], dag_ids: Sequence[str]
) -> Iterator[tuple[tuple[LedgerRun, ...], tuple[str, ...]]]:
    """Yield runs, then DAG ids, in parts that fit one entry each."""
    part: list[LedgerRun] = []
    size = 0
    for run in runs:
        # Names, times and an id or two, about; conf and tasks are what may be long.
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
