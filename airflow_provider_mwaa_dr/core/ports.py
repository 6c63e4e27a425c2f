"""
What the core needs from the world, as protocols, and the values that cross those borders.

Implemented by ``aws/`` against AWS and by ``testing.py`` in memory; one contract suite (tests/contract) runs against
both. Every method may raise the errors of ``exceptions.py`` that its docstring names, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol

from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.ledger import CheckpointInfo, LogEntry, RegionLedger
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Plan
from airflow_provider_mwaa_dr.exceptions import UnreadableItem

PROTOCOL = 1
"""What agents and engines say to each other through the table; those of different numbers must not meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """
    One read of what a region must know, both items in one request.

    :param state: None when the table answered and holds no state item.
    :param reconciled_epoch: of the region that asked; None before its agent's first turn.
    :param environment: the environment that ``mwaa-dr init`` registered for the region; None when none is registered.
    :param disputed: the environments that claim the region while no name is registered, as their agents found them.
    :param registered: the registered regions, as the item of the region that asked lists them; None when it has no
        list.
    :param problems: values in that item that cannot be used, a sentence each.
    """

    state: DRState | None
    reconciled_epoch: int | None
    environment: str | None = None
    disputed: tuple[str, ...] = ()
    registered: frozenset[str] | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """
    The heartbeat of one scheduler's agent, item ``AGENT#region#job``.

    :param job: id of the scheduler's job in its metadata database.
    :param beat: grows by one a turn. Alive = it changes, on the reader's own clock; ``at`` is for people.
    :param version: of the state that every decision of this scheduler since then was made on ("acknowledged").
    :param adopted_epoch: the epoch for which the region's own database has been prepared; None when never.
    :param reconciled_epoch: the epoch that the region's open runs belong to.
    :param eventual: what makes the region's view of a table with eventual consistency fresh (available or safe); None
        where the table is taken for one with strong consistency.
    :param schedulers: job ids of all schedulers that the metadata database lists as alive.
    :param fence_file_s: [dr] fence_file_s of the environment, for which a worker lives on one read of the state; None
        in heartbeats of versions before this one.
    :param gone: the agent has ended, and its scheduler's gate had been closed for good before: nothing of this
        scheduler starts any more, and no version is waited for.
    :param fence_ok: True, False (a task ended without the fence) or None (nothing ran).
    :param unclosed_runs: how many open runs of an earlier epoch, or created in a standby, are not closed yet.
    :param held, skipped, closed: runs since the scheduler started.
    :param problems: wrong settings, one sentence each.
    :param ledger_lag_s: age of what the ledger knows of the region; None where there is no ledger.
    :param has_ledger: whether a runs table is set, whatever the region has published so far.
    :param ledger_error: why the ledger could not be read or written; None while it can.
    :param final_plan_id: the plan for which the region has published its final ledger entry.
    :param waiting: interrupted runs that nobody can go on with, with the reason; the first of them.
    :param held_because: why what the agent has read gives the region no role, and what to do; None while it has one.
    :param standby_as_of: when this scheduler last read that another region has the role, by the region's own clock.
        If no scheduler of a region that never reconciled its runs has read that: when this one first read that its own
        region has the role. None once the region has taken the role up.
    :param inventory_error: why the region's inventory could not be taken or written; None while it can.
    :param environment: the agent's MWAA environment (``AIRFLOW_ENV_NAME``); empty where Airflow has no such name, None
        from an agent that does not report it.
    :param aws_region: ``AWS_REGION`` of the agent's process, likewise.
    :param unread: what of the ledger cannot be read, one sentence for each region.
    :param unreadable: what is wrong with the item; ``version`` and ``epoch`` are -1 then, and ``schedulers`` is empty,
        so that it acknowledges nothing. Not stored.
    :param ledger_wait_s: seconds until the region, which takes the role up, continues without its ledger; None while it
        does not wait for it.
    """

    region: str
    job: str
    host: str
    at: datetime
    beat: int
    version: int
    epoch: int
    provider_version: str
    airflow_version: str
    protocol: int = PROTOCOL
    adopted_epoch: int | None = None
    reconciled_epoch: int | None = None
    on_unreachable: str = "hold"
    eventual: str | None = None
    schedulers: tuple[str, ...] = ()
    fence_file_s: float | None = None
    gone: bool = False
    fence_ok: bool | None = None
    ledger_lag_s: float | None = None
    unclosed_runs: int = 0
    held: int = 0
    skipped: int = 0
    closed: int = 0
    problems: tuple[str, ...] = ()
    ledger_error: str | None = None
    has_ledger: bool = False
    final_plan_id: str | None = None
    waiting: tuple[str, ...] = ()
    inventory_error: str | None = None
    standby_as_of: datetime | None = None
    environment: str | None = None
    aws_region: str | None = None
    unread: tuple[str, ...] = ()
    unreadable: UnreadableItem | None = None
    held_because: str | None = None
    ledger_wait_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """
    The heartbeat of an agent that holds everything because its environment is not the one of the region it claims.

    Item ``AGENT#place#claim#environment@aws_region#job``, beside the heartbeats of the region's own agents and never
    among them: no failover waits for it.

    :param region: the region of the DR set that the environment counts as.
    :param environment: its name; empty where Airflow has none.
    :param aws_region: ``AWS_REGION`` of the agent's process; empty where it is not set.
    :param beat: grows by one with each heartbeat. Alive = it changes, on the reader's own clock.
    :param problem: why it holds, and what to do; one sentence.
    """

    region: str
    environment: str
    aws_region: str
    job: str
    at: datetime
    beat: int
    problem: str

    @property
    def place(self) -> str:
        """
        The region under which the item is stored.

        The AWS region, because an execution role may write only the items of its own region.
        """
        return self.aws_region or self.region


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpublished:
    """
    What a region could not take over, because its ledger refused for too long; item ``UNPUBLISHED#region``.

    :param id: names the event; for ``mwaa-dr check --acknowledge ID``.
    :param epoch: under which the region took the role up without the ledger.
    :param begun_epoch: the epoch that the runs in *runs* belong to.
    :param why: the ledger's error.
    :param first_id: the highest run id in the region's metadata database at that time; the region publishes what has
        a higher one as soon as the ledger can be written again.
    :param runs: ``DAG_ID RUN_ID`` of the region's own runs that it closed and had not published.
    :param unread: a sentence for each other region: up to where its ledger had been read.
    :param acknowledged_at: when a person took note; None until then.
    """

    id: str
    region: str
    epoch: int
    begun_epoch: int
    at: datetime
    why: str
    first_id: int
    runs: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    acknowledged_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DagSet:
    """
    DAG ids recorded for good: the wanted set of a plan, or a region's snapshot.

    :param dag_ids: sorted, each once.
    """

    id: str
    region: str
    recorded_at: datetime
    dag_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one step of a failover did. ``seconds`` is how long it took."""

    name: str
    seconds: float
    detail: str


OUTCOMES = ("open", "aborted", "completed")
"""Of a failover, in the order in which one takes the place of another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverRecord:
    """
    What a failover did, item ``FAILOVER#id``.

    :param mode: how it was carried out: graceful or forced; never auto once it is over.
    :param outcome: completed, aborted or open.
    :param not_unpaused: DAGs of the wanted set that could not be unpaused in the target; they stay in the set.
    :param unreadable: what is wrong with the item; the other fields are what can be read of it, ``?`` for a text that
        cannot. Not stored.
    """

    id: str
    source: str
    target: str
    mode: Mode
    reason: str
    by: str
    started_at: datetime
    finished_at: datetime | None = None
    outcome: str = "open"
    epoch: int
    steps: tuple[StepRecord, ...] = ()
    not_unpaused: tuple[str, ...] = ()
    unreadable: UnreadableItem | None = None

    @property
    def progress(self) -> int:
        """How far it has got: a record never gives way to one that has got less far."""
        if self.unreadable is not None:
            return -1
        # A newer version may know more ways to end.
        return OUTCOMES.index(self.outcome) if self.outcome in OUTCOMES else len(OUTCOMES)

    @classmethod
    def of(cls, plan: Plan, *, epoch: int) -> FailoverRecord:
        """Return the record with which *plan* begins."""
        return cls(
            id=plan.id,
            source=plan.source,
            target=plan.target,
            mode=plan.mode,
            reason=plan.reason,
            by=plan.by,
            started_at=plan.started_at,
            epoch=epoch,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """An environment of the DR set, item ``ENVIRONMENT#region``."""

    region: str
    environment: str
    account: str | None = None


class StateStore(Protocol):
    """
    The state table.

    Reads are consistent reads, nearest replica first, then the others. Unless said otherwise every method may raise
    StateUnreachableError (no replica answered), StateAccessError or TableNotFoundError.

    An item without its required content is a problem of that item. What reads one item raises UnreadableItemError
    (IncompleteItemError, which counts as unreachable, while a page is missing); what reads many returns the readable
    ones, and those whose ``unreadable`` is set. Writing an item replaces one that cannot be read.
    """

    def observe(self, region: str) -> Observation:
        """
        Return state, and *region*'s reconciled epoch and list of regions, in one request.

        A missing state item is no error. Nor is a value that cannot be used: the answer carries it as a problem.

        :raises UnusableStateError: not even the version of the state item can be understood.
        """

    def read(self) -> DRState:
        """
        Return the state.

        :raises StateNotFoundError: the table has no state item.
        :raises UnusableStateError: not even its version can be understood.
        """

    def copies(self) -> Mapping[str, DRState | None]:
        """
        Return the state that each copy of a table with eventual consistency holds, by region, if the copy answers.

        Empty for a table with strong consistency: there all copies are one.
        """

    def write(self, state: DRState, *, expected_version: int | None) -> None:
        """
        Write *state* on the condition that the stored version is *expected_version* (None: that no item is stored).

        Atomic; all or nothing. Never repeated blindly: when the answer of a write is lost, the store reads again and
        returns normally if it was this very write that landed.

        :raises StaleStateError: the condition failed; carries what was found.
        """

    def overwrite(self, state: DRState) -> None:
        """
        Write *state* whatever is stored: only for an item whose version cannot be understood.

        Nothing guards it against another writer; a person has decided that nobody else writes.
        """

    def register(self, registration: Registration) -> None:
        """Name an environment of the set; repeatable, keeps what agents wrote into the same item."""

    def registrations(self, regions: Collection[str] = ()) -> Mapping[str, Registration]:
        """Return the named environments by region: of *regions*, or of all when empty."""

    def regions(self, among: Collection[str] = ()) -> frozenset[str]:
        """
        Return the registered regions: of *among*, or all when empty.

        A region is registered if it has an item of its own, named or not: ``mwaa-dr init`` or the region's own agent
        has written it.
        """

    def put_regions(self, region: str, regions: Collection[str]) -> None:
        """
        Replace the list of registered regions in *region*'s own item; repeatable, keeps everything else in it.

        Registers *region*, which is always in the list.
        """

    def put_agent(self, status: AgentStatus) -> None:
        """Write a heartbeat, and the region's reconciled epoch when the status carries one."""

    def agents(self, region: str) -> Sequence[AgentStatus]:
        """Return the last heartbeat of each scheduler that wrote one and was not forgotten, unreadable ones too."""

    def forget_agent(self, region: str, job: str) -> None:
        """Drop the heartbeat of a scheduler that is gone for good; repeatable."""

    def put_claim(self, claim: Claim) -> None:
        """Write the heartbeat of an agent whose environment is not the one of the region that it claims."""

    def claims(self, place: str) -> Sequence[Claim]:
        """Return the last heartbeats that :meth:`put_claim` stored under the region *place*, live and dead, sorted."""

    def forget_claim(self, claim: Claim) -> None:
        """Drop a claim's heartbeat; repeatable."""

    def put_dispute(self, region: str, environments: Sequence[str]) -> None:
        """Note which environments claim *region* while no name is registered; none of them ends the dispute."""

    def put_fence(self, region: str, at: datetime) -> None:
        """Note that a worker of *region* loaded the fence."""

    def fence(self, region: str) -> datetime | None:
        """Return when a worker of *region* last noted its fence."""

    def put_unpublished(self, unpublished: Unpublished) -> None:
        """Replace what is stored of *unpublished.region*."""

    def unpublished(self, region: str) -> Unpublished | None:
        """Return what *region* could not take over the last time its ledger refused for too long."""

    def acknowledge_unpublished(self, region: str, unpublished_id: str, at: datetime) -> bool:
        """Note that a person has seen it; False when another one, or none, is stored. Repeatable."""

    def put_set(self, dag_set: DagSet) -> DagSet:
        """Record a wanted set once, pages first, manifest last; a set that is there is returned, not changed."""

    def newest_wanted_set(self) -> DagSet | None:
        """
        Return the wanted set that was recorded last, whatever became of its plan.

        None of runs that a plan stops, and none that cannot be read.
        """

    def get_set(self, set_id: str) -> DagSet | None:
        """Return a complete recorded set; None when its manifest is not there."""

    def put_snapshot(self, dag_set: DagSet) -> None:
        """Replace *dag_set.region*'s snapshot; readers see the old one or the new one, whole."""

    def get_snapshot(self, region: str) -> DagSet | None:
        """Return the region's last snapshot."""

    def put_paused(self, dag_set: DagSet) -> None:
        """Replace the set of DAGs that ``mwaa-dr pause`` took in *dag_set.region*; beside the region's snapshot."""

    def get_paused(self, region: str) -> DagSet | None:
        """Return the set that :meth:`put_paused` recorded last; None before the first."""

    def put_inventory(self, inventory: Inventory) -> None:
        """Replace *inventory.region*'s inventory; readers see the old one or the new one, whole."""

    def get_inventory(self, region: str) -> Inventory | None:
        """Return the region's last inventory."""

    def inventory_key(self, region: str) -> str | None:
        """Return the public key of the region's last inventory, without reading the rest of it."""

    def put_record(self, record: FailoverRecord) -> None:
        """
        Write, or overwrite, what a failover has done so far.

        An open record takes the place of no ended one, and an aborted one of no completed one: an engine that lost its
        plan may have a write under way for long, and what a record lists as not unpaused is part of the wanted set.
        """

    def get_record(self, record_id: str) -> FailoverRecord | None:
        """Return one record."""

    def records(self) -> Sequence[FailoverRecord]:
        """Return all records, newest first."""

    def unreadable(self, regions: Collection[str]) -> Sequence[UnreadableItem]:
        """Return the items that cannot be read, by key; of snapshots and inventories, the pages of *regions* only."""


class RunsStore(Protocol):
    """
    The runs table, which holds the ledger; of a region's part in it, one agent of that region is the only writer.

    Every method may raise StateUnreachableError (no replica answered), StateAccessError or TableNotFoundError.

    An entry that cannot be read is returned with its number and ``unreadable`` set; the log goes on after it. A run in
    an entry or a checkpoint whose status or another field cannot be read is returned with ``doubt`` set.
    """

    def append(self, region: str, entry: LogEntry) -> None:
        """
        Write the next entry of *region*'s log; harmless to repeat with the same entry.

        :raises StaleLedgerError: another entry has that number: somebody else writes for the region, too.
        """

    def log(self, region: str, *, after: int) -> Sequence[LogEntry]:
        """Return entries with a number above *after*, in order; not always all of them, but the first."""

    def save_checkpoint(
        self, region: str, checkpoint: RegionLedger, *, begins_after: RegionLedger | None = None
    ) -> bool:
        """
        Replace *region*'s checkpoint; readers see either the whole old one or the whole new one.

        :param begins_after: the ledger whose life ends; *checkpoint* begins another one.
        :return: False, and nothing is changed, if a later checkpoint is stored, or one of another life: another agent
            writes for the region. A checkpoint of the first version has no life; any later one replaces it.
        """

    def checkpoint_info(self, region: str) -> CheckpointInfo | None:
        """Return which checkpoint of *region* is stored, without reading it; None: none, or one that cannot be read."""

    def checkpoint(self, region: str) -> RegionLedger:
        """
        Return the last saved checkpoint of *region*; an empty one at first. The caller may change it.

        :raises UnreadableCheckpointError: it is stored and cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDescription:
    """
    What DynamoDB says of a table.

    :param regions: of all copies that can be read, sorted.
    """

    name: str
    regions: tuple[str, ...]
    consistency: TableConsistency
    is_protected: bool


class Tables(Protocol):
    """DynamoDB's control plane, as far as somebody who only looks needs it."""

    def describe(self, table: str) -> TableDescription:
        """
        Return what DynamoDB says of *table* in the first region that answers.

        :raises StateUnreachableError: no region answered.
        :raises StateAccessError: the caller may not look.
        :raises TableNotFoundError: it does not exist there.
        """


class EnvironmentStatus(str, Enum):
    """Status of an MWAA environment, as the service names it; UNKNOWN when it names one that is not listed."""

    AVAILABLE = "AVAILABLE"
    CREATING = "CREATING"
    CREATING_SNAPSHOT = "CREATING_SNAPSHOT"
    CREATE_FAILED = "CREATE_FAILED"
    DELETED = "DELETED"
    DELETING = "DELETING"
    MAINTENANCE = "MAINTENANCE"
    PENDING = "PENDING"
    ROLLING_BACK = "ROLLING_BACK"
    UNAVAILABLE = "UNAVAILABLE"
    UNKNOWN = "UNKNOWN"
    UPDATE_FAILED = "UPDATE_FAILED"
    UPDATING = "UPDATING"

    @property
    def is_usable(self) -> bool:
        """Whether Airflow can be expected to run: UPDATE_FAILED is restored and usable."""
        return self in {EnvironmentStatus.AVAILABLE, EnvironmentStatus.UPDATE_FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentDescription:
    """
    What the MWAA service says of an environment; None for what it does not say.

    :param options: Airflow configuration options. Values may be secrets: compare them, never print or store them.
    :param last_update: outcome of the last change of the environment, SUCCESS, PENDING or FAILED.
    """

    status: EnvironmentStatus
    airflow_version: str | None = None
    environment_class: str | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    schedulers: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    last_update: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DagInfo:
    """A DAG as the REST API lists it."""

    dag_id: str
    is_paused: bool
    tags: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RunInfo:
    """A dag run as the REST API lists it."""

    dag_id: str
    run_id: str
    state: str

    def __str__(self) -> str:
        return f"{self.dag_id} {self.run_id}"


class Environment(Protocol):
    """
    One MWAA environment and the REST API of its Airflow.

    Every method may raise MwaaUnreachableError, MwaaAccessError and MwaaRequestError; calls that change nothing, or the
    same thing twice, are retried within their deadline (aws/session.py).
    """

    @property
    def region(self) -> str:
        """Region of the environment."""

    @property
    def name(self) -> str:
        """Name of the environment."""

    def status(self) -> EnvironmentStatus:
        """Return what the MWAA service says; not a word about Airflow inside."""

    def describe(self) -> EnvironmentDescription:
        """Return all of what the MWAA service says."""

    def try_change(self) -> None:
        """
        Ask for a change that cannot be made, to find out whether the caller may change DAGs. Changes nothing.

        :raises MwaaAccessError: it may not.
        """

    def scheduler_is_healthy(self) -> bool:
        """Return what Airflow's health body says of its schedulers. The HTTP status says nothing: it is 200 anyhow."""

    def dags(
        self, *, paused: bool | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> Sequence[DagInfo]:
        """
        Return every DAG that is not stale, each once, in the order of the environment's database.

        :param paused: those only that are paused, or are not.
        :param on_progress: called with (read, total) about once a second while pages are to come.
        """

    def set_paused(
        self,
        dag_ids: Collection[str],
        *,
        paused: bool,
        listing: Sequence[DagInfo] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Sequence[str]:
        """
        Pause, or unpause, exactly *dag_ids* and no other DAG; bulk calls, then listed again until stable.

        Repeatable. Ids that the environment does not have are left out.

        :param listing: what :meth:`dags` has just returned of all DAGs, and nobody here has changed since; None: they
            are listed first.
        :param on_progress: called with (done, total) before the first call and after the last, and about once a second
            in between.
        :return: the ids whose flag changed, sorted.
        :raises IncompleteError: some did not change before the deadline; carries them.
        """

    def running_runs(self) -> Sequence[RunInfo]:
        """Return the dag runs in state running, sorted."""

    def running_tasks(self) -> Sequence[RunInfo]:
        """Return the runs that have a task instance executing (running, deferred not among them), sorted, each once."""

    def stop_run(self, run: RunInfo) -> bool:
        """
        Mark a run failed; its executing tasks are ended at their next heartbeat, seconds later. Repeatable.

        :return: whether it was queued or running; one that has ended already keeps its state.
        """

    def trigger(self, dag_id: str, *, run_id: str, note: str) -> None:
        """Start a manual run under an id of the caller's; a run that is there already under it is no error."""

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """Return the state of a run in Airflow's words; None when there is none."""


class Clock(Protocol):
    """Time. ``tests`` use :class:`airflow_provider_mwaa_dr.testing.ManualClock`."""

    def monotonic(self) -> float:
        """Return seconds that only grow, in suspend too; comparable within this machine's uptime only."""

    def now(self) -> datetime:
        """Return the aware UTC wall-clock time, for people; nothing is decided on it."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
