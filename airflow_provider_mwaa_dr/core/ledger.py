"""
The ledger: which region ran which interval, and how it ended.

Each region keeps a *log* of the changes that its agent finds in the region's metadata database. Entries are numbered
without gaps, and only one agent of the region writes them. At intervals the agent saves a *checkpoint*, the result of
all entries so far. So a reader does not have to start at the first entry. Readers keep a :class:`RegionLedger` for each
region; :func:`unfinished_runs` merges them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum

from airflow_provider_mwaa_dr.exceptions import UnreadableItem

_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)

LOG_DAYS = 14
"""The time after which an entry of a log expires. The agent saves a checkpoint within minutes; it does not expire."""

RunKey = tuple[str, str]
"""DAG id and run id."""

TaskState = tuple[str, int, "str | None"]
"""Task id, map index and state of a task instance."""

SCHEDULED = "scheduled"
"""The type of runs that the scheduler creates on schedule."""

AUTOMATED = ("backfill", SCHEDULED)
"""The types of runs that are intervals: the scheduler creates the next interval after the newest of these runs."""

EVENT_TRIGGERED = ("asset_triggered", "dataset_triggered")
"""The types of runs that events of assets or datasets trigger, in Airflow 3 and 2."""

ORIGIN = "__airflow-"
"""Between the id of a run and the era of Airflow that it was created in; see :mod:`.translation`."""

_MOST_DATED = 100
"""The most runs of a DAG in :attr:`Head.dated`. The scheduler of another region may repeat the dates of older ones."""
_DATED_CONF_CHARS = 5_000
"""A run in :attr:`Head.dated` with a longer conf is adopted without it."""


class RunStatus(str, Enum):
    """
    The status of a run, as its region publishes it.

    OPEN: queued or running. INTERRUPTED: it was open when its region lost the role, or a failover stopped it; another
    region must run it. SUCCESS, FAILED: it ended by itself under its region's own epoch. GONE: the run was deleted, or
    another region finished it, so this region publishes nothing more about it.
    """

    OPEN = "open"
    INTERRUPTED = "interrupted"
    SUCCESS = "success"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDeadline:
    """
    A deadline of a run: Airflow calls a callback if the run has not ended by then.

    :param alert: digest of the alert of the DAG's file; the same in every region that has the same file.
    :param at: the deadline.
    :param is_missed: the region has requested the callback. No region requests it again.
    """

    alert: str
    at: datetime
    is_missed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """
    An event of an asset (a dataset in Airflow 2) that triggered a run.

    :param uri, name, group: of the asset. Airflow 2 has only the URI.
    :param at: when the event was created.
    :param extra: JSON text.
    :param source_dag_id, source_task_id, source_run_id, source_map_index: the task that created it; None if none did.
    :param partition_key: None before Airflow 3.2.
    :param aliases: names of the aliases of assets through which the task created it.
    """

    uri: str
    name: str | None
    group: str | None
    at: datetime
    extra: str
    source_dag_id: str | None = None
    source_task_id: str | None = None
    source_run_id: str | None = None
    source_map_index: int | None = None
    partition_key: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRun:
    """
    A run that a task of another run, its parent, has requested.

    :param run_id: None if it is not known which run of the DAG the task has requested.
    :param is_awaited: the task waits until the run has ended.
    :param has_fixed_id: the task chooses the id or the date of the run, so it requests the same run again.
    """

    dag_id: str
    run_id: str | None
    is_awaited: bool = False
    has_fixed_id: bool = False

    @property
    def follows_parent(self) -> bool:
        """Whether no region resumes the run if its parent runs again: the parent requests the run again."""
        return self.is_awaited or self.has_fixed_id


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRun:
    """
    One run as a region publishes it. The times are those of its metadata database.

    :param logical_date: None if Airflow 3 has none (an asset triggered the run, or a user without a logical date).
    :param run_after: None on Airflow 2, which has no such column.
    :param partition_key: of a run of a partitioned DAG; None before Airflow 3.2.
    :param conf: JSON text of an object; None if the run has no conf.
    :param conf_lost: why ``conf`` could not be stored; no region may start the run without it.
    :param epoch: of the region when it published this.
    :param taken_at: when the region took the run over from another one. After the region has carried that out, the
        run's ``queued_at`` is never earlier. None for a run that was created in this region.
    :param retained_for_peers: the run ended while another region could not be reached that may have started the same
        run without publishing it. The ledger retains the run until that region has published.
    :param tasks: task id, map index and state of each task instance of an ended run, for DAGs whose next run depends on
        them.
    :param holds_date: the run is of none of the types :data:`AUTOMATED`, and has a logical date for which the scheduler
        may have to create a run. The scheduler creates none for a date that a run of any type has.
    :param doubt: why it is unknown whether the run has ended: a part of the ledger that may contain its end cannot be
        read. No region may start the run until the ledger shows its status again.
    :param triggered_by: Airflow's name of what requested the run, such as ``REST_API``; None on Airflow 2.
    :param triggering_user: the user who requested it; None before Airflow 3.1.
    :param deadlines: of an unfinished run; empty before Airflow 3.2.
    :param events: of an unfinished run of a type in :data:`EVENT_TRIGGERED`: what triggered it. None: an earlier
        version of the provider published the run, or see *events_lost*.
    :param events_lost: why ``events`` could not be stored; no region may start the run without them.
    :param children: of an unfinished run: the runs that its tasks have requested since it was queued.
    :param is_replaced: the run has not ended by itself. Its parent runs again, and requests it again. Regions delete
        its row.
    :param started_at, ended_at: of an ended run; macros such as ``prev_start_date_success`` return them.
    """

    dag_id: str
    run_id: str
    run_type: str
    status: RunStatus
    epoch: int
    logical_date: datetime | None = None
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    run_after: datetime | None = None
    partition_key: str | None = None
    partition_date: datetime | None = None
    conf: str | None = None
    conf_lost: str | None = None
    taken_at: datetime | None = None
    retained_for_peers: bool = False
    tasks: tuple[TaskState, ...] = ()
    holds_date: bool = False
    doubt: str | None = None
    triggered_by: str | None = None
    triggering_user: str | None = None
    deadlines: tuple[RunDeadline, ...] = ()
    events: tuple[RunEvent, ...] | None = None
    events_lost: str | None = None
    children: tuple[ChildRun, ...] = ()
    is_replaced: bool = False

    @property
    def is_without_events(self) -> bool:
        """Whether an earlier version of the provider published the run, without the events that triggered it."""
        is_known = self.events is not None or self.events_lost is not None
        return self.run_type in EVENT_TRIGGERED and self.is_unfinished and not is_known

    @property
    def why_without_events(self) -> str | None:
        """Why the ledger does not have the events that triggered the run; None if it has them, or if none did."""
        if self.run_type not in EVENT_TRIGGERED or self.events is not None:
            return None
        return self.events_lost or "an earlier version of the provider published the run"

    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def key(self) -> RunKey:
        """DAG id and run id, the same in every region."""
        return self.dag_id, self.run_id

    @property
    def is_unfinished(self) -> bool:
        """Whether no region has finished it."""
        return self.status is RunStatus.OPEN or self.status is RunStatus.INTERRUPTED

    @property
    def has_ended(self) -> bool:
        """Whether it ended by itself."""
        return self.status is RunStatus.SUCCESS or self.status is RunStatus.FAILED

    def __str__(self) -> str:
        return f"{self.dag_id} {self.run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """
    The newest intervals of a DAG in a region. As in Airflow, its scheduled runs and runs of backfills count.

    :param created: logical date of the newest interval that the region created; None: no interval yet.
    :param finished: the newest interval that ended by itself, with all values that another region needs to adopt it.
    :param partition_created: partition date of the newest interval that the region created and that is a partition.
    :param triggered: the newest ended run of a type in :data:`EVENT_TRIGGERED`. Airflow gives the next such run the
        events that are later.
    :param partition: the newest ended interval that is a partition (Airflow 3.2 and later). Most have no logical date.
        Partitions without a partition date have no newest one.
    :param others: for each other type of run, the newest one that ended by itself, if the DAG's next run depends on its
        tasks. Without catchup, a task that depends on its past depends on the previous run of any type.
    :param dated: the runs of other types that ended by themselves and hold a logical date after *finished*, by date.
    :param succeeded: the newest interval that succeeded, if *finished* did not; and the newest run of another type that
        succeeded and has a logical date, if it is newer. Airflow's macros about the previous success read runs of any
        type. They ignore runs without a logical date.
    """

    dag_id: str
    created: datetime | None = None
    finished: LedgerRun | None = None
    others: tuple[LedgerRun, ...] = ()
    dated: tuple[LedgerRun, ...] = ()
    partition_created: datetime | None = None
    partition: LedgerRun | None = None
    triggered: LedgerRun | None = None
    succeeded: tuple[LedgerRun, ...] = ()

    def advanced(self, run: LedgerRun) -> Head:
        """Return the head after *run*."""
        head = self._with_triggered(run) if run.run_type in EVENT_TRIGGERED else self
        head = head._advanced(run)
        return head._with_successes(self, run) if run.has_ended and run.logical_date is not None else head

    @property
    def last_successes(self) -> tuple[LedgerRun, ...]:
        """The runs that may be the previous success of the DAG's next run, the newest first; two at most."""
        finished = (self.finished,) if self.finished is not None and self.finished.status is RunStatus.SUCCESS else ()
        return tuple(sorted((*finished, *self.succeeded), key=_age, reverse=True))

    def _with_successes(self, before: Head, run: LedgerRun) -> Head:
        """Return the head with the successes of *before* and, if it is one, *run*. A run that fails later is none."""
        last = before.finished
        if (
            self.finished is run
            and run.status is RunStatus.SUCCESS
            and not before.succeeded
            and (last is None or last.key == run.key or _age(run) > _age(last))
        ):
            return self  # the usual case: it is newer than the only known success
        known = [success for success in before.last_successes if success.key != run.key]
        if run.status is RunStatus.SUCCESS:
            known.append(run)
        newest: list[LedgerRun] = []
        for success in sorted(known, key=_age, reverse=True):
            is_interval = success.run_type in AUTOMATED
            if not any(each.run_type in AUTOMATED or not is_interval for each in newest):
                newest.append(success)
        # The head has the last interval already.
        found = tuple(
            replace(each, conf=_short_conf(each), tasks=())
            for each in newest
            if self.finished is None or each.key != self.finished.key
        )
        return self if found == self.succeeded else replace(self, succeeded=found)

    def _advanced(self, run: LedgerRun) -> Head:
        head = self._with_partition(run) if run.partition_key is not None and run.run_type in AUTOMATED else self
        at = run.logical_date
        if at is None or run.status is RunStatus.GONE:
            return head
        if run.run_type not in AUTOMATED:
            head = self._with_other(run, at) if run.has_ended and run.tasks else self
            return head._with_dated(run, at) if run.has_ended and run.holds_date else head
        if head.created is None or at > head.created:
            head = replace(head, created=at)
        mark = mark_of(run) or at
        if run.has_ended and not (head.finished is not None and (mark_of(head.finished) or mark) > mark):
            dated = tuple(other for other in head.dated if other.logical_date is None or other.logical_date > at)
            head = replace(head, finished=run, dated=dated)
        return head

    def _with_partition(self, run: LedgerRun) -> Head:
        at = run.partition_date
        if at is None or run.status is RunStatus.GONE:
            return self
        head = self
        if head.partition_created is None or at > head.partition_created:
            head = replace(head, partition_created=at)
        if run.has_ended and not (head.partition is not None and (head.partition.partition_date or at) > at):
            head = replace(head, partition=run)
        return head

    def _with_triggered(self, run: LedgerRun) -> Head:
        at, known = triggered_at(run), self.triggered
        if at is None or not run.has_ended or (known is not None and (triggered_at(known) or at) > at):
            return self
        return replace(self, triggered=replace(run, conf=None))

    def _with_other(self, run: LedgerRun, at: datetime) -> Head:
        known = next((other for other in self.others if other.run_type == run.run_type), None)
        if known is not None and (known.logical_date or at) > at:
            return self
        return replace(self, others=(*(other for other in self.others if other is not known), run))

    def _with_dated(self, run: LedgerRun, at: datetime) -> Head:
        if self.finished is not None and (self.finished.logical_date or at) >= at:
            return self
        short = replace(run, conf=_short_conf(run), tasks=())
        dated = (*(other for other in self.dated if other.key != run.key), short)
        return replace(self, dated=tuple(sorted(dated, key=_age)[-_MOST_DATED:]))

    def has(self, run: LedgerRun) -> bool:
        """Whether the head contains *run* from the same or a newer epoch."""
        return any(own.key == run.key and own.epoch >= run.epoch for own in self.ended)

    @property
    def ended(self) -> tuple[LedgerRun, ...]:
        """All ended runs of the head."""
        intervals = tuple(run for run in (self.finished, self.partition, self.triggered) if run is not None)
        return (*intervals, *self.others, *self.dated, *self.succeeded)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """
    One step of a region's log.

    :param number: 1 for the first entry; each later entry has the next number.
    :param epoch: the epoch in which the region published the entry.
    :param first_id, newest_id: ids of runs in the metadata database. Runs with an id above *first_id* were created
        under this epoch; the agent has read all runs with an id up to *newest_id*.
    :param dag_ids: DAGs that the agent found for the first time; they may have no run yet.
    :param final_plan_id: the plan for which this is the final ledger entry before the role moves; no run is in progress
        in the region.
    :param complete_before: the region has published all runs that it started before this epoch.
    :param life: the life of the ledger that the entry belongs to; None: the first version wrote the entry. See
        :class:`RegionLedger`.
    :param unreadable: the defect of an entry that cannot be read; only its number is known. Not stored.
    :param stops: the last announcement of stopped runs (:class:`.state.Stop`) that this entry takes into account.
    """

    number: int
    at: datetime
    epoch: int
    first_id: int
    newest_id: int
    runs: tuple[LedgerRun, ...] = ()
    dag_ids: tuple[str, ...] = ()
    final_plan_id: str | None = None
    complete_before: int | None = None
    stops: str | None = None
    life: str | None = None
    unreadable: UnreadableItem | None = None

    @classmethod
    def unreadable_one(cls, number: int, fault: UnreadableItem) -> LogEntry:
        """Return the entry with this number, whose other fields cannot be read."""
        return cls(number=number, at=_LONG_AGO, epoch=0, first_id=0, newest_id=0, unreadable=fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """
    The entries of a log that could not be read, from the first to the last of them.

    :param number: of the last unreadable entry. A checkpoint with this or a later number contains their content.
    :param why: the defect of the first unreadable entry; a text for users.
    :param newest_id: ``newest_id`` of the ledger before the gap: the agent has read all runs up to this id.
    """

    number: int
    why: str
    newest_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """The life of a region's stored checkpoint, and the number of its last entry."""

    life: str | None
    number: int


@dataclass(slots=True, kw_only=True)
class Changes:
    """Changes of a region's ledger: keys of runs, and DAGs whose head advanced."""

    runs: set[RunKey] = field(default_factory=set)
    heads: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.runs or self.heads)


@dataclass(slots=True, kw_only=True)
class RegionLedger:
    """
    The result of all entries of a region's log.

    :ivar number: of the last applied entry.
    :ivar epoch: the last epoch in which the region published as the active region; None before the first.
    :ivar runs: the unfinished runs. Also ended runs that the region took over from another region, or that another
        region may have started, until no other region lists them as unfinished.
    :ivar final_plan_id: the plan of the newest final ledger entry.
    :ivar complete_before: the region has published all runs that it started before this epoch; None: for no epoch yet.
    :ivar gap: the entries after the checkpoint that could not be read; None: all could. A later checkpoint contains
        their content.
    :ivar stops: the last announcement of stopped runs that the region has taken into account.
    :ivar life: an id. Entry numbers of different lives are unrelated: a region whose entries have expired, or that has
        a new table, may have to use numbers again. Each life begins with a checkpoint.
    :ivar at: when the last entry was written, by the region's own clock.
    """

    number: int = 0
    epoch: int | None = None
    first_id: int = 0
    newest_id: int = 0
    runs: dict[RunKey, LedgerRun] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    final_plan_id: str | None = None
    complete_before: int | None = None
    gap: Gap | None = None
    stops: str | None = None
    life: str | None = None
    at: datetime | None = None

    def apply(self, entries: Iterable[LogEntry], *, any_life: bool = False) -> Changes:
        """
        Apply the entries that follow without a missing number, and return the changes. Skip entries applied before.

        :param any_life: also apply entries of another life; for a ledger whose checkpoint cannot be read.
        """
        changes = Changes()
        for entry in entries:
            if entry.number <= self.number:
                continue
            if entry.number != self.number + 1:
                break  # this copy of the table does not have the missing entries yet
            if entry.life is not None and entry.life != self.life:
                if not any_life:
                    break  # only the checkpoint that begins that life has all of its content
                self.life = entry.life
            if entry.unreadable is not None:
                self.pass_over(entry.number, str(entry.unreadable))
                continue
            self.number, self.epoch, self.at = entry.number, entry.epoch, entry.at
            self.first_id, self.newest_id = entry.first_id, entry.newest_id
            self.final_plan_id = entry.final_plan_id or self.final_plan_id
            self.complete_before = entry.complete_before if entry.complete_before is not None else self.complete_before
            self.stops = entry.stops or self.stops
            for dag_id in entry.dag_ids:
                if dag_id not in self.heads:
                    self.heads[dag_id] = Head(dag_id=dag_id)
                    changes.heads.add(dag_id)
            for run in entry.runs:
                self._take(run, changes)
        return changes

    def pass_over(self, number: int, why: str) -> None:
        """
        Skip entry *number*, which cannot be read.

        It may contain the end of runs that were unfinished before it. These runs are in doubt until the region
        publishes them again.
        """
        self.number = number
        first = self.gap or Gap(number=number, why=why, newest_id=self.newest_id)
        self.gap = replace(first, number=number)
        for key, run in self.runs.items():
            if run.is_unfinished and run.doubt is None:
                self.runs[key] = replace(run, doubt=f"it may have ended: {why}")

    def _take(self, run: LedgerRun, changes: Changes) -> None:
        if run.is_unfinished or (run.has_ended and (run.retained_for_peers or run.taken_at is not None)):
            self.runs[run.key] = run
            changes.runs.add(run.key)
        elif self.runs.pop(run.key, None) is not None:
            changes.runs.add(run.key)
        head = self.heads.get(run.dag_id)
        advanced = (head or Head(dag_id=run.dag_id)).advanced(run)
        if advanced is not head:
            self.heads[run.dag_id] = advanced
            # Successes are adopted once, when the region becomes active. A standby adopts the last intervals only.
            if head is None or replace(advanced, succeeded=head.succeeded) != head:
                changes.heads.add(run.dag_id)


def is_same_interval(run: LedgerRun, other: LedgerRun) -> bool:
    """
    Whether two runs are the same run, or hold the same interval.

    A region does not know the runs of the present role of another region. So it may create a run for an interval that
    another region also has. The ids differ if a user requested one of them for the interval's logical date, if the ids
    of partitions are random, or if the regions have different versions of Airflow. Versions may also give an interval
    different logical dates, but the same mark.
    """
    if run.dag_id != other.dag_id:
        return False
    if run.run_id == other.run_id:
        return True
    are_automated = run.run_type in AUTOMATED and other.run_type in AUTOMATED
    if run.partition_key is not None or other.partition_key is not None:
        return are_automated and run.partition_key == other.partition_key
    hold_date = all(each.run_type in AUTOMATED or each.holds_date for each in (run, other))
    if run.logical_date is None or other.logical_date is None or not hold_date:
        return False
    is_same_date = run.logical_date == other.logical_date
    if (ORIGIN in run.run_id) == (ORIGIN in other.run_id):
        return is_same_date
    return mark_of(run) == mark_of(other) and (are_automated or is_same_date)


def unfinished_runs(ledgers: Collection[RegionLedger]) -> dict[RunKey, LedgerRun]:
    """
    Return the runs that no region has finished, by key. If regions differ about a run, the newest epoch counts.

    Only one region executes in an epoch. So within the newest epoch, a run that ended counts as finished. Of several
    runs of one interval, only the newest is returned, and none if that one has ended.
    """
    newest: dict[RunKey, LedgerRun] = {}
    for ledger in ledgers:
        for key, run in ledger.runs.items():
            known = newest.get(key)
            if known is None or (run.epoch, run.has_ended) > (known.epoch, known.has_ended):
                newest[key] = run
    unfinished = {key: run for key, run in newest.items() if run.is_unfinished}
    of_dags = _by_dag(newest.values(), {dag_id for dag_id, _ in unfinished})
    return {
        key: run
        for key, run in unfinished.items()
        if not any(
            _precedence(other) > _precedence(run)
            for other in of_dags[run.dag_id]
            if other is not run and is_same_interval(run, other)
        )
    }


def _precedence(run: LedgerRun) -> tuple[int, bool, str]:
    return run.epoch, run.has_ended, run.run_id


def _by_dag(runs: Iterable[LedgerRun], dag_ids: Collection[str]) -> dict[str, list[LedgerRun]]:
    """Return *runs* of these DAGs by DAG; a list, possibly empty, for each of *dag_ids*."""
    found: dict[str, list[LedgerRun]] = {dag_id: [] for dag_id in dag_ids}
    for run in runs:
        if run.dag_id in found:
            found[run.dag_id].append(run)
    return found


def finished_by_others(own: RegionLedger, others: Collection[RegionLedger]) -> list[LedgerRun]:
    """
    Return the runs that are unfinished in *own* but ended in another region under the same or a newer epoch.

    They have the ids and values that *own* has. The other region may have ended another run of the same interval. The
    own region may have done that, too, under a newer epoch: it has taken that run over from the other region.
    """
    unfinished = [run for run in own.runs.values() if run.is_unfinished]
    if not unfinished:
        return []
    dag_ids = {run.dag_id for run in unfinished}
    ended = [
        (_by_dag((run for run in ledger.runs.values() if run.has_ended), dag_ids), least)
        for ledger, least in ((own, 1), *((other, 0) for other in others))
    ]
    return [
        theirs if theirs.key == run.key else replace(run, status=theirs.status, epoch=theirs.epoch)
        for run in unfinished
        for runs, least in ended
        for theirs in runs[run.dag_id]
        if theirs.epoch - run.epoch >= least and is_same_interval(run, theirs)
    ]


def is_known_elsewhere(run: LedgerRun, others: Collection[RegionLedger]) -> bool:
    """Whether one of *others* has the run, or another run of its interval."""
    return any(run.key in other.runs for other in others) or any(
        is_same_interval(run, theirs) for other in others for theirs in other.runs.values()
    )


def is_complete(other: RegionLedger, epoch: int) -> bool:
    """Whether a region has published all runs that it started before *epoch*. An empty ledger is complete."""
    if other.gap is not None:
        return False
    return other.number == 0 or (other.complete_before is not None and other.complete_before >= epoch)


def no_longer_needed(own: RegionLedger, others: Collection[RegionLedger]) -> list[LedgerRun]:
    """Return the ended runs that *own* retains, and that no unfinished run of any region needs now."""
    ended = [run for run in own.runs.values() if run.has_ended]
    if not ended:
        return []
    dag_ids = {run.dag_id for run in ended}
    ledgers = (own, *others)
    waiting = [_by_dag((run for run in ledger.runs.values() if run.is_unfinished), dag_ids) for ledger in ledgers]
    return [
        run
        for run in ended
        if all(is_complete(other, run.epoch) for other in others)
        and not any(is_same_interval(run, theirs) for runs in waiting for theirs in runs[run.dag_id])
    ]


def history(others: Collection[RegionLedger], dag_ids: Iterable[str]) -> list[LedgerRun]:
    """
    Return the runs in the ledgers of *others* that a region must adopt for *dag_ids*.

    These are, for each DAG, the newest finished interval, and newer runs of other types if the DAG's next run depends
    on their tasks, or if the scheduler must not create a run for their logical date. And the newest run that events
    triggered, so that a later run does not get its events, too. If two regions differ about a run,
    the newer epoch counts.
    """
    needed: list[LedgerRun] = []
    for dag_id in dag_ids:
        heads = [ledger.heads[dag_id] for ledger in others if dag_id in ledger.heads]
        newest = max((head.finished for head in heads if head.finished is not None), key=_recency, default=None)
        if newest is not None:
            needed.append(newest)
        partitions = [head.partition for head in heads if head.partition is not None and head.partition != newest]
        needed += sorted(partitions, key=lambda run: (run.partition_date or _LONG_AGO, run.epoch))[-1:]
        known: dict[RunKey, LedgerRun] = {}
        others_of = [run for head in heads for run in head.others]
        for run in (*others_of, *(run for head in heads for run in head.dated)):
            if (newest is None or _age(run)[0] > _age(newest)[0]) and (
                run.key not in known or known[run.key].epoch < run.epoch
            ):
                known[run.key] = run
        needed += known.values()
        triggered = sorted(
            (head.triggered for head in heads if head.triggered is not None),
            key=lambda run: (triggered_at(run) or _LONG_AGO, run.epoch),
        )
        needed += [run for run in triggered[-1:] if run.key not in known]
    return needed


def triggered_at(run: LedgerRun) -> datetime | None:
    """Return the time up to which a run that events triggered has consumed them."""
    return run.run_after or run.logical_date


def last_successes(others: Collection[RegionLedger], dag_ids: Iterable[str]) -> list[LedgerRun]:
    """Return the newest run of each DAG that succeeded, and the newest interval that did, as *others* have them."""
    found: list[LedgerRun] = []
    for dag_id in dag_ids:
        known: dict[RunKey, LedgerRun] = {}
        for ledger in others:
            for run in ledger.heads[dag_id].ended if dag_id in ledger.heads else ():
                if run.logical_date is not None and (run.key not in known or known[run.key].epoch < run.epoch):
                    known[run.key] = run
        # The same run may have failed in a newer epoch.
        successes = sorted((run for run in known.values() if run.status is RunStatus.SUCCESS), key=_age)
        found += successes[-1:]
        found += [run for run in successes[:-1] if run.run_type in AUTOMATED][-1:]
    return found


def passed_by(
    date: datetime, key: RunKey, own: RegionLedger, others: Mapping[str, RegionLedger], *, after_epoch: int = -1
) -> str | None:
    """
    Return a region that may have executed the interval of *date*, although its ledger does not list it; or None.

    A ledger retains only the newest intervals. The region executed the earlier ones, or the schedule does not have
    them. The own region has rows for the dates up to its own newest interval, so these are never in doubt.

    :param key: of the run that holds the date here.
    :param others: the ledgers of the other regions, by region.
    :param after_epoch: what ended under this epoch or an earlier one does not count.
    """
    head = own.heads.get(key[0])
    if head is not None and head.created is not None and date <= head.created:
        return None
    for region, ledger in others.items():
        theirs = ledger.heads.get(key[0])
        for run in (theirs.finished, *theirs.dated) if theirs is not None else ():
            if run is None or run.logical_date is None or run.key == key or run.epoch <= after_epoch:
                continue
            if run.logical_date == date or (run.run_type in AUTOMATED and run.logical_date > date):
                return region
    return None


def results(ledgers: Collection[RegionLedger], keys: Collection[RunKey]) -> dict[RunKey, LedgerRun]:
    """Return those runs that *ledgers* list as ended; if they differ about a run, the newest epoch counts."""
    found: dict[RunKey, LedgerRun] = {}
    for ledger in ledgers:
        for key in keys:
            head = ledger.heads.get(key[0])
            listed = [run for run in (head.ended if head is not None else ()) if run.key == key]
            if key in ledger.runs and ledger.runs[key].has_ended and not ledger.runs[key].is_replaced:
                listed.append(ledger.runs[key])
            for run in listed:
                if key not in found or found[key].epoch < run.epoch:
                    found[key] = run
    return found


def _short_conf(run: LedgerRun) -> str | None:
    return run.conf if len(run.conf or "") <= _DATED_CONF_CHARS else None


def mark_of(run: LedgerRun) -> datetime | None:
    """
    Return the time at which an interval is due: its end, or its logical date if it has no interval.

    Airflow 2 and 3 may give an interval that is due at one time two different logical dates.
    """
    return run.data_interval_end or run.logical_date


def _recency(run: LedgerRun) -> tuple[float, int]:
    mark = mark_of(run)
    return mark.timestamp() if mark is not None else 0.0, run.epoch


def _age(run: LedgerRun) -> tuple[float, int]:
    return run.logical_date.timestamp() if run.logical_date is not None else 0.0, run.epoch
