"""
The ledger: which region ran which interval, and how it ended.

Each region keeps a *log* of the changes that its agent finds in the region's metadata database. Entries are numbered
without gaps, and only one agent of the region writes them. From time to time the agent saves a *checkpoint*, the result
of all entries so far, so that a reader does not have to start at the first entry. Readers keep a :class:`RegionLedger`
for each region; :func:`unfinished_runs` decides between them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum

from airflow_provider_mwaa_dr.exceptions import UnreadableItem

_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)

LOG_DAYS = 14
"""An entry of a log expires after so long; a checkpoint is saved within minutes, and does not expire."""

RunKey = tuple[str, str]
"""DAG id and run id."""

TaskState = tuple[str, int, "str | None"]
"""Task id, map index and state of a task instance."""

SCHEDULED = "scheduled"
"""The run type of what the scheduler creates at its times; only these make up a DAG's history of intervals."""


class RunStatus(str, Enum):
    """
    The status of a run, as its region publishes it.

    OPEN: queued or running. INTERRUPTED: it was open when its region lost the role, or was stopped by a failover: to be
    run elsewhere. SUCCESS, FAILED: it ended by itself under its region's own epoch. GONE: deleted, or ended elsewhere;
    the region has nothing to publish of it any more.
    """

    OPEN = "open"
    INTERRUPTED = "interrupted"
    SUCCESS = "success"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRun:
    """
    One run as a region publishes it; times as its metadata database has them.

    :param logical_date: None where Airflow 3 has none (asset-triggered, or triggered without one).
    :param run_after: None on Airflow 2, which has no such column.
    :param partition_key: of a run of a partitioned DAG; None before Airflow 3.2.
    :param conf: JSON text of an object; None when the run has none.
    :param conf_lost: why ``conf`` could not be kept; the run must not be started without it.
    :param epoch: of the region when it published this.
    :param taken_at: when the region took the run over from another one; the run's ``queued_at`` is never earlier once
        that has been carried out. None for a run that was born here.
    :param retained_for_peers: it ended while another region, which may have begun the same run and not published it,
        could not be reached: the ledger retains it until that region has published.
    :param tasks: task id, map index and state of each task instance of a run that has ended, for DAGs whose next run
        looks at them.
    :param doubt: why it is not known whether it has ended: the ledger has said so, or not, in something that cannot be
        read. Nobody may start it before the ledger says more.
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
    doubt: str | None = None

    @property
    def key(self) -> RunKey:
        """DAG id and run id, the same in every region."""
        return self.dag_id, self.run_id

    @property
    def is_unfinished(self) -> bool:
        """Whether no region has finished it."""
        return self.status in {RunStatus.OPEN, RunStatus.INTERRUPTED}

    @property
    def has_ended(self) -> bool:
        """Whether it ended by itself."""
        return self.status in {RunStatus.SUCCESS, RunStatus.FAILED}

    def __str__(self) -> str:
        return f"{self.dag_id} {self.run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """
    How far a region has got with a DAG's intervals.

    :param created: logical date of the newest scheduled run that the region created; None: no scheduled run yet.
    :param finished: the newest scheduled run that ended by itself, whole, as another region adopts it.
    :param others: of each other type of run the newest that ended by itself, if the DAG's next run looks at it: without
        catchup, a task that depends on its past looks at the run before, whatever started that.
    """

    dag_id: str
    created: datetime | None = None
    finished: LedgerRun | None = None
    others: tuple[LedgerRun, ...] = ()

    def advanced(self, run: LedgerRun) -> Head:
        """Return the head after *run*."""
        at = run.logical_date
        if at is None or run.status is RunStatus.GONE:
            return self
        if run.run_type != SCHEDULED:
            return self._with_other(run, at) if run.has_ended and run.tasks else self
        head = self
        if head.created is None or at > head.created:
            head = replace(head, created=at)
        if run.has_ended and not (head.finished is not None and (head.finished.logical_date or at) > at):
            head = replace(head, finished=run)
        return head

    def _with_other(self, run: LedgerRun, at: datetime) -> Head:
        known = next((other for other in self.others if other.run_type == run.run_type), None)
        if known is not None and (known.logical_date or at) > at:
            return self
        return replace(self, others=(*(other for other in self.others if other is not known), run))

    def has(self, run: LedgerRun) -> bool:
        """Whether the head's own word on *run* is as new as that."""
        ended = (self.finished, *self.others)
        return any(own is not None and own.key == run.key and own.epoch >= run.epoch for own in ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """
    One step of a region's log.

    :param number: 1 for the first; each is one more than the one before.
    :param epoch: under which the region published the entry.
    :param first_id, newest_id: ids of runs in the metadata database: above the first are those that were born under
        this epoch; up to the newest all have been read.
    :param dag_ids: DAGs seen for the first time, which may have no run yet.
    :param final_plan_id: the plan for which this is the final ledger entry before the role moves: nothing is in flight
        any more.
    :param complete_before: the region has published everything that it began before this epoch.
    :param life: of the ledger that the entry belongs to; None: the first version wrote it. See :class:`RegionLedger`.
    :param unreadable: what is wrong with the item; nothing but the number is known then. Not stored.
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
        """Return the entry *number*, of which nothing else can be read."""
        return cls(number=number, at=_LONG_AGO, epoch=0, first_id=0, newest_id=0, unreadable=fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """
    What of a log could not be read, and has been passed over.

    :param number: of the last entry of it; a checkpoint with as many entries has what was in it.
    :param why: what is wrong with the first of it, for people.
    :param newest_id: of the ledger before it: all runs up to this id have been read.
    """

    number: int
    why: str
    newest_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """Which checkpoint of a region is stored: of which life, and up to which entry."""

    life: str | None
    number: int


@dataclass(slots=True, kw_only=True)
class Changes:
    """What has changed in a region's ledger: keys of runs, and DAGs whose head advanced."""

    runs: set[RunKey] = field(default_factory=set)
    heads: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.runs or self.heads)


@dataclass(slots=True, kw_only=True)
class RegionLedger:
    """
    What a region's log comes to.

    :ivar number: of the last entry that was applied.
    :ivar epoch: the last one that the region published as the active region; None before.
    :ivar runs: the unfinished runs. Also the ended runs that the region took over from another one, or that another
        one may have begun, until no other region lists them as unfinished.
    :ivar final_plan_id: the plan of the newest final ledger entry.
    :ivar complete_before: the region has published everything that it began before this epoch; None: not yet for any.
    :ivar gap: what of the log after the checkpoint could not be read; None: nothing. A later checkpoint contains it.
    :ivar stops: the last announcement of stopped runs that it has taken into account.
    :ivar life: an id. Numbers of entries that are of different lives have nothing to do with each other: a region whose
        entries have expired, or whose table is a new one, may have to use numbers again. A checkpoint begins each life.
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
        Take what follows without a gap, and return what changed; entries that are known already are passed over.

        :param any_life: also apply entries of another life; for a ledger whose checkpoint cannot be read.
        """
        changes = Changes()
        for entry in entries:
            if entry.number <= self.number:
                continue
            if entry.number != self.number + 1:
                break  # a copy that is behind: the rest comes
            if entry.life is not None and entry.life != self.life:
                if not any_life:
                    break  # the checkpoint with which that life begins has more
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
        Go on after entry *number*, which cannot be read.

        What was unfinished before it may have ended in it, which is in doubt until the region publishes more of it.
        """
        self.number = number
        first = self.gap or Gap(number=number, why=why, newest_id=self.newest_id)
        self.gap = replace(first, number=number)
        for key, run in self.runs.items():
            if run.is_unfinished and run.doubt is None:
                self.runs[key] = replace(run, doubt=f"it may have ended by now: {why}")

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
            changes.heads.add(run.dag_id)


def unfinished_runs(ledgers: Collection[RegionLedger]) -> dict[RunKey, LedgerRun]:
    """
    Return the runs that no region has finished, by key. If regions differ about a run, the newest epoch counts.

    Under one epoch only one region executes, so a run that ended there is over.
    """
    newest: dict[RunKey, LedgerRun] = {}
    for ledger in ledgers:
        for key, run in ledger.runs.items():
            known = newest.get(key)
            if known is None or (run.epoch, run.has_ended) > (known.epoch, known.has_ended):
                newest[key] = run
    return {key: run for key, run in newest.items() if run.is_unfinished}


def finished_elsewhere(own: RegionLedger, others: Collection[RegionLedger]) -> list[LedgerRun]:
    """Return the runs that are unfinished in *own* and that another region finished under a newer epoch."""
    return [
        theirs
        for key, run in own.runs.items()
        if run.is_unfinished
        for other in others
        if (theirs := other.runs.get(key)) is not None and theirs.has_ended and theirs.epoch >= run.epoch
    ]


def is_complete(other: RegionLedger, epoch: int) -> bool:
    """Whether a region has published everything that it began before *epoch*; an empty ledger is complete."""
    if other.gap is not None:
        return False
    return other.number == 0 or (other.complete_before is not None and other.complete_before >= epoch)


def no_longer_asked_for(own: RegionLedger, others: Collection[RegionLedger]) -> list[LedgerRun]:
    """Return the ended runs that *own* has kept for the others' sake, and that none of them can ask for any more."""
    return [
        run
        for key, run in own.runs.items()
        if run.has_ended
        and all(
            is_complete(other, run.epoch) and not (key in other.runs and other.runs[key].is_unfinished)
            for other in others
        )
    ]


def history(others: Collection[RegionLedger], dag_ids: Iterable[str]) -> list[LedgerRun]:
    """
    Return what a region has to have of each of *dag_ids*, of all that *others* know.

    The newest finished interval; and newer runs of other types, where the next run looks at their tasks. Of what two
    regions say of one run, the newer epoch counts.
    """
    needed: list[LedgerRun] = []
    for dag_id in dag_ids:
        heads = [ledger.heads[dag_id] for ledger in others if dag_id in ledger.heads]
        newest = max((head.finished for head in heads if head.finished is not None), key=_age, default=None)
        if newest is not None:
            needed.append(newest)
        known: dict[RunKey, LedgerRun] = {}
        for run in (run for head in heads for run in head.others):
            if (newest is None or _age(run)[0] > _age(newest)[0]) and (
                run.key not in known or known[run.key].epoch < run.epoch
            ):
                known[run.key] = run
        needed += known.values()
    return needed


def _age(run: LedgerRun) -> tuple[float, int]:
    return run.logical_date.timestamp() if run.logical_date is not None else 0.0, run.epoch


def created_up_to(ledgers: Iterable[RegionLedger], dag_id: str) -> datetime | None:
    """Return the logical date of the newest scheduled run of the DAG that any of *ledgers* knows."""
    found = [ledger.heads[dag_id].created for ledger in ledgers if dag_id in ledger.heads]
    return max((at for at in found if at is not None), default=None)
