"""
The ports of the core: what it needs from AWS, Airflow and the clock, as protocols, with the values they exchange.

``aws/`` implements them with AWS, and ``testing`` in memory; one contract suite (tests/contract) runs against both.
A method raises those errors of ``exceptions.py`` that its docstring or its class names, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Protocol, TypeVar

from airflow_provider_mwaa_dr.core.carrying import SettingsOffer
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.item_kind import Home, ItemKind
from airflow_provider_mwaa_dr.core.ledger import CheckpointInfo, LogEntry, RegionLedger
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Plan
from airflow_provider_mwaa_dr.exceptions import UnreadableItem

T = TypeVar("T")

PROTOCOL = 1
"""Version of the items that agents and engines exchange through the table. Different versions must not meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """
    One read of the state item and of the region's own item, in one request.

    :param state: None if the table answered but has no state item.
    :param reconciled_epoch: of the region; None before its agent's first turn.
    :param environment: the environment that ``mwaa-dr init`` registered for the region; None if none is registered.
    :param environment_region: the AWS region that is registered with it; empty if the site's id is its region.
    :param disputed: the environments that claim the region while no name is registered, as their agents found them.
    :param registered: the registered regions, as the region's item lists them; None if the item has no list.
    :param problems: values of the region's item that cannot be used, a sentence each.
    :param agents: the jobs whose heartbeats an engine finds in the region's list; empty if the list cannot be read.
    :param heartbeat_request: the last text of :meth:`StateStore.request_heartbeats`; None if there was none.
    """

    state: DRState | None
    reconciled_epoch: int | None
    environment: str | None = None
    environment_region: str = ""
    disputed: tuple[str, ...] = ()
    registered: frozenset[str] | None = None
    problems: tuple[str, ...] = ()
    agents: frozenset[str] = frozenset()
    heartbeat_request: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentAgent:
    """
    A heartbeat that has not changed while an observer read it again and again.

    :param number: of the heartbeat, see :attr:`AgentStatus.number`.
    :param still_s: seconds on the observer's clock, from the response of its first read of this number up to the moment
        at which it published this report.
    """

    region: str
    job: str
    number: str
    still_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """
    The heartbeat of one scheduler's agent, item ``AGENT#region#job``.

    :param job: id of the scheduler's job in its metadata database.
    :param beat: grows by one in each turn. The agent is alive if the beat changes, on the reader's own clock; ``at`` is
        only for display.
    :param version: of the state; the scheduler bases all decisions after this heartbeat on this version or a later one
        ("acknowledged").
    :param adopted_epoch: the epoch for which the agent has prepared the region's own database; None if it never has.
    :param reconciled_epoch: the epoch that the region's open runs belong to.
    :param eventual: [dr] eventual, available or safe: which copies of the table the agent must read for a fresh view.
        None if the agent treats the table as one with strong consistency.
    :param schedulers: job ids of all schedulers that the metadata database lists as alive.
    :param fence_file_s: [dr] fence_file_s of the environment: how long a worker uses one read of the state. None in
        heartbeats of versions before this one.
    :param gone: the agent has ended, and it closed its scheduler's gate permanently before. This scheduler starts
        nothing, and engines do not wait for it to acknowledge a version.
    :param fence_ok: True, False (a task ended without the fence) or None (nothing ran).
    :param unclosed_runs: how many open runs of an earlier epoch, or created in a standby, are not closed yet.
    :param held, skipped, closed: numbers of runs since the scheduler started.
    :param problems: wrong settings, one sentence each.
    :param ledger_lag_s: seconds since the last turn that published the region's changes; None before the first, and
        without a ledger.
    :param has_ledger: whether a runs table is set, even if the region has not published anything.
    :param ledger_error: why the ledger could not be read or written; None while it can.
    :param final_plan_id: the plan for which the region has published its final ledger entry.
    :param waiting: the first of the interrupted runs that the agent cannot resume, with the reason.
    :param held_because: why the values that the agent read give the region no role, and what to do; None while the
        region has a role.
    :param standby_as_of: when this scheduler last read that another region is active, by the region's own clock. In a
        region that never reconciled its runs, if no scheduler has read that: when this one first read that its own
        region is active. None after the region has become active and reconciled its runs.
    :param inventory_error: why the agent could not take or write the region's inventory, or compares no values with a
        peer; None while neither is so.
    :param history_error: why the agent does not copy the history; None if it does, or if the history is off.
    :param history: what the agent has copied, and which runs it could not import and why; a sentence each.
    :param environment: the agent's MWAA environment (``AIRFLOW_ENV_NAME``); empty if Airflow has no such name, None if
        the agent does not report it.
    :param aws_region: ``AWS_REGION`` of the agent's process; empty if it is not set, None if the agent does not report
        it.
    :param unread: which part of the ledger the agent cannot read, one sentence for each region.
    :param unreadable: the defect of an item that cannot be read. ``version`` and ``epoch`` are then -1, and
        ``schedulers`` is empty, so that the item acknowledges nothing. Not stored.
    :param ledger_wait_s: seconds until the region, which is becoming active, continues without its ledger; None while
        it does not wait for the ledger.
    :param exempt: the first of the exempt DAGs of the region, sorted; None if the agent has not listed them.
    :param awaited: while the region is drained: how many held runs work in progress waits for.
    :param waits: while the region is drained: the first of the tasks in progress that wait, and what each waits for, a
        sentence each.
    :param idle: while the region is drained: how many running runs of paused DAGs have no task that executes.
    :param watchers: how many asset watchers the region's Airflow has, without those that only exempt DAGs need.
    :param triggerers: job ids of the triggerers that the metadata database lists as alive; empty without watchers.
    :param unguarded: those of them that do not publish a :class:`TriggererStatus`: they do not load the provider, so
        their watchers read their queues in every role.
    :param repeats: the first of the resumed runs that request runs again that had ended, or that are resumed, too.
    :param life: a random id of the agent, if its scheduler starts runs only while a heartbeat of it is confirmed. None
        if the permission depends on reads alone: with eventual consistency, with ``[dr] on_unreachable = run``, and in
        versions before this one.
    :param attempt: number of the request that wrote this item. The store sets it, and uses each number only once.
    :param lease_s: the lease in the last state that the agent read; None before the first.
    :param lists_dags: whether the agent of the active region lists its DAGs for a graceful plan; see :data:`SNAPSHOTS`.
        False for earlier versions.
    :param restored_version: the version of the state, in RESUMING, under which the agent has made the recorded set the
        unpaused DAGs of its region. None in every other phase.
    :param not_restored: how many DAGs it could not pause or unpause then.
    :param settings_problem: why the agent copies no settings, or which ones of a standby are not replaced; None while
        neither is so, and if the agent copies none.
    :param silent: the heartbeats of all regions that this agent has observed to be silent.
    :param knows_hold: whether this version waits while a plan is halted. Earlier versions drop the fields of the plan
        that say so, and continue it.
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
    history_error: str | None = None
    history: tuple[str, ...] = ()
    standby_as_of: datetime | None = None
    environment: str | None = None
    aws_region: str | None = None
    unread: tuple[str, ...] = ()
    unreadable: UnreadableItem | None = None
    held_because: str | None = None
    ledger_wait_s: float | None = None
    exempt: tuple[str, ...] | None = None
    awaited: int = 0
    waits: tuple[str, ...] = ()
    idle: int = 0
    watchers: int = 0
    triggerers: tuple[str, ...] = ()
    unguarded: tuple[str, ...] = ()
    repeats: tuple[str, ...] = ()
    life: str | None = None
    attempt: int = 0
    silent: tuple[SilentAgent, ...] = ()
    lease_s: float | None = None
    knows_hold: bool = False
    lists_dags: bool = False
    restored_version: int | None = None
    not_restored: int = 0
    settings_problem: str | None = None

    @property
    def number(self) -> str | None:
        """The number of this heartbeat. No two requests write the same; None: silence proves nothing."""
        return None if self.life is None else f"{self.life}-{self.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityClaim:
    """
    The heartbeat of an agent that holds everything because its environment is not that of the region it claims.

    Item ``AGENT#place#claim#environment@aws_region#job``. It is separate from the heartbeats of the region's own
    agents, and no failover waits for it.

    :param region: the region of the DR set that the environment claims to be.
    :param environment: the name of the environment; empty if Airflow has none.
    :param aws_region: ``AWS_REGION`` of the agent's process; empty if it is not set.
    :param beat: grows by one with each heartbeat. The agent is alive if the beat changes, on the reader's own clock.
    :param problem: why the agent holds everything, and what to do; one sentence.
    :param site: in a set whose sites have names, the site under which the item is stored; else None.
    """

    region: str
    environment: str
    aws_region: str
    job: str
    at: datetime
    beat: int
    problem: str
    site: str | None = None

    @property
    def place(self) -> str:
        """
        The site under which the item is stored.

        It is the own site of the environment, because an execution role may write only the items of its own site. If
        the sites are regions, this is the AWS region.
        """
        return self.site or self.aws_region or self.region


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggererStatus:
    """
    Whether a triggerer runs asset watchers, item ``AGENT#region#triggerer#job``. Only Airflow 3 has watchers.

    :param job: id of the triggerer's job in its metadata database.
    :param version: of the state. Since the triggerer read this version, none of its watchers runs, and the metadata
        database has all events of those that ran before. 0: its watchers run, or it has not read the state.
    :param watchers: how many watchers it runs, or has left out.
    """

    region: str
    job: str
    at: datetime
    version: int
    watchers: int
    provider_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpublished:
    """
    A region became active without its ledger, after waiting for it too long; item ``UNPUBLISHED#region``.

    :param id: identifies the event; for ``mwaa-dr check --acknowledge ID``.
    :param epoch: the epoch in which the region became active without the ledger.
    :param begun_epoch: the epoch that the runs in *runs* belong to.
    :param why: the ledger's error.
    :param first_id: the highest run id in the region's metadata database at that time. The region publishes runs with
        higher ids as soon as it can write the ledger again.
    :param runs: ``DAG_ID RUN_ID`` of the region's own runs that it closed without publishing them.
    :param unread: a sentence for each other region: up to which entry the region had read its ledger.
    :param acknowledged_at: when a user acknowledged the event; None until then.
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
    A recorded list of DAG ids: the recorded set of a plan, or a region's snapshot.

    The runs that a failover announces are stored in the same kind of item
    (:mod:`~airflow_provider_mwaa_dr.core.announced_runs`).

    :param dag_ids: in any order; stored sorted, without duplicates.
    """

    id: str
    region: str
    recorded_at: datetime
    dag_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dag_ids", tuple(sorted(set(self.dag_ids))))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one step of a failover did, and how many seconds it took."""

    name: str
    seconds: float
    detail: str


class FailoverOutcome(str, Enum):
    """
    The outcome of a failover, in the order in which one replaces another in the record.

    A newer version of the provider may write more outcomes. Each of them is a value without a member: records with it
    can be read, and the text is kept.
    """

    OPEN = "open"
    ABORTED = "aborted"
    COMPLETED = "completed"

    @classmethod
    def _missing_(cls, value: object) -> FailoverOutcome | None:
        if not isinstance(value, str):
            return None
        unknown = str.__new__(cls, value)
        unknown._name_ = unknown._value_ = value
        return unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverRecord:
    """
    What a failover did, item ``FAILOVER#id``.

    :param mode: how the engine carried it out: graceful or forced; never auto after the failover has ended.
    :param not_unpaused: DAGs of the recorded set that the engine could not unpause in the target. The next failover
        includes them in its set.
    :param ended_in_standby: the first of the runs that the target had ended as a standby, and that no region continues,
        as ``DAG_ID RUN_ID``.
    :param unreadable: the defect of an item that cannot be read. The other fields then have the values that can be
        read, and ``?`` for a text that cannot. Not stored.
    """

    id: str
    source: str
    target: str
    mode: Mode
    reason: str
    by: str
    started_at: datetime
    finished_at: datetime | None = None
    outcome: FailoverOutcome = FailoverOutcome.OPEN
    epoch: int
    steps: tuple[StepRecord, ...] = ()
    not_unpaused: tuple[str, ...] = ()
    ended_in_standby: tuple[str, ...] = ()
    unreadable: UnreadableItem | None = None

    @property
    def progress(self) -> int:
        """The rank of the outcome. A stored record is never replaced by one with a lower rank."""
        if self.unreadable is not None:
            return -1
        known = list(FailoverOutcome)
        return known.index(self.outcome) if self.outcome in known else len(known)

    @classmethod
    def of(cls, plan: Plan, *, epoch: int) -> FailoverRecord:
        """Return the first record of *plan*."""
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
class HeldTasks:
    """
    The fence of a region holds tasks for longer than usual; in the item ``FENCE#region``.

    :param since: when the fence began to hold the first of these tasks.
    :param at: when a worker last reported it.
    :param why: why they are held, and what to do.
    """

    since: datetime
    at: datetime
    why: str

    def is_current(self, now: datetime) -> bool:
        """Whether tasks are still held: each reports it again every few minutes (core/hold.py)."""
        return now - self.at < HELD_REPORT_AGE

    def __str__(self) -> str:
        """Return since when tasks are held, and why; the end of a sentence about the fence."""
        return f"has held tasks since {self.since.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}: {self.why}"


HELD_REPORT_AGE = timedelta(minutes=15)
"""The greatest age of a current report of held tasks; display only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceLoad:
    """
    When a worker of *region* last reported that it loaded the fence; item ``FENCE#region``.

    :param held: the tasks that the fence holds for longer than usual; None if it holds none.
    """

    region: str
    at: datetime
    held: HeldTasks | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """
    An environment of the DR set, item ``ENVIRONMENT#region``.

    :param region: id of the site.
    :param aws_region: its AWS region; None if the id is the region.
    """

    region: str
    environment: str
    account: str | None = None
    aws_region: str | None = None


IDENTITY_CLAIMS: ItemKind[IdentityClaim] = ItemKind(
    name="identity claim",
    key="AGENT#{}",
    part="claim",
    id_of=lambda claim: f"{claim.place}#claim#{claim.environment}@{claim.aws_region}#{claim.job}",
    region_of=lambda claim: claim.place,
    home=Home.REGION,
)
TRIGGERERS: ItemKind[TriggererStatus] = ItemKind(
    name="triggerer",
    key="AGENT#{}",
    part="triggerer",
    id_of=lambda status: f"{status.region}#triggerer#{status.job}",
    region_of=lambda status: status.region,
    home=Home.REGION,
)
FENCE_LOADS: ItemKind[FenceLoad] = ItemKind(
    name="fence load", key="FENCE#{}", id_of=lambda load: load.region, home=Home.REGION
)
UNPUBLISHED_EVENTS: ItemKind[Unpublished] = ItemKind(
    name="unpublished runs", key="UNPUBLISHED#{}", id_of=lambda event: event.region, home=Home.REGION
)
SNAPSHOTS: ItemKind[DagSet] = ItemKind(
    name="snapshot", key="SNAPSHOT#{}", id_of=lambda dags: dags.region, home=Home.REGION
)
"""The unpaused DAGs of a region, as its agent last listed them."""
PAUSED_SETS: ItemKind[DagSet] = ItemKind(
    name="set of paused DAGs",
    # Like the snapshot of a region whose name no region has, as the first version stored it.
    key="SNAPSHOT#{}/paused",
    id_of=lambda dags: dags.region,
    home=Home.REGION_ONLY,
    # The first version wrote it to the copy that was nearest to the caller.
    rank=lambda dags: dags.recorded_at,
)
"""The DAGs of a region that ``mwaa-dr pause`` paused, and that ``mwaa-dr unpause`` has not unpaused."""
INVENTORIES: ItemKind[Inventory] = ItemKind(
    name="inventory", key="INVENTORY#{}", id_of=lambda inventory: inventory.region, home=Home.REGION
)
SETTINGS_OFFERS: ItemKind[SettingsOffer] = ItemKind(
    name="offer of settings",
    key="SETTINGS#{}",
    id_of=lambda offer: offer.source,
    home=Home.REGION,
    # A scheduler that still works under an earlier epoch must not replace the offer of a later one.
    progress=lambda offer: offer.epoch,
)
DAG_SETS: ItemKind[DagSet] = ItemKind(
    name="set of DAGs", key="PAUSED#{}", id_of=lambda dags: dags.id, home=Home.PLAN, is_final=True
)
"""A recorded set of a plan. It is recorded once and never changed."""
RECORDS: ItemKind[FailoverRecord] = ItemKind(
    name="record",
    key="FAILOVER#{}",
    id_of=lambda record: record.id,
    home=Home.PLAN,
    # An engine that lost its plan may have an old write in progress for a long time. It must not replace the DAGs that
    # a record lists as not unpaused, because they are part of the next recorded set.
    progress=lambda record: record.progress,
    rank=lambda record: (record.progress, len(record.steps)),
    order=lambda record: (record.started_at, record.id),
)
"""What a failover did. An open record never replaces an ended one; a list has the newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """
    The data of a report of a failover, item ``REPORT#id``; entries of the ledger expire, and this item does not.

    :param id: of the plan.
    :param taken_at: when the data were read.
    :param body: JSON text of the report.
    """

    id: str
    taken_at: datetime
    body: str


REPORTS: ItemKind[StoredReport] = ItemKind(
    name="report",
    key="REPORT#{}",
    id_of=lambda report: report.id,
    home=Home.PLAN,
    rank=lambda report: report.taken_at,
)
"""What a failover did with runs, for auditors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationAttempt:
    """
    An attempt to send one notification over one channel, item ``NOTIFICATION#plan#event#channel``.

    :param owner: the process that sends it, unique in the DR set.
    :param attempt: counts from 1.
    :param at: when the attempt began.
    :param sent_at: when it was sent; None: it is being sent, or has failed.
    :param error: why the attempt failed.
    """

    plan_id: str
    event: str
    channel: str
    owner: str
    attempt: int
    at: datetime
    sent_at: datetime | None = None
    error: str | None = None

    @staticmethod
    def id_of(plan_id: str, event: str, channel: str) -> str:
        """Return the id of all attempts for one notification and channel."""
        return f"{plan_id}#{event}#{channel}"

    @property
    def id(self) -> str:
        """The id in the state table."""
        return self.id_of(self.plan_id, self.event, self.channel)

    @property
    def progress(self) -> int:
        """Grows with each step of an attempt, and with each attempt. Nothing replaces one that was sent."""
        return MOST_ATTEMPTS if self.sent_at is not None else 2 * self.attempt + (self.error is not None)


MOST_ATTEMPTS = 10**9
"""More than twice the attempts that a day has."""
NOTIFICATIONS: ItemKind[NotificationAttempt] = ItemKind(
    name="notification",
    key="NOTIFICATION#{}",
    id_of=lambda attempt: attempt.id,
    home=Home.PLAN,
    progress=lambda attempt: attempt.progress,
    must_advance=True,
    rank=lambda attempt: attempt.progress,
)
"""Which notifications were sent. Of two processes that begin the same attempt, the first one's item stays."""


class StateStore(Protocol):
    """
    The state table.

    Most items have a kind, and are read and written by ``put``, ``get``, ``find_all`` and ``delete``. The other methods
    are for the state item, for the item of a region (``ENVIRONMENT#region``), and for the heartbeats, whose list and
    reconciled epoch are in that item.

    Reads are consistent reads: first from the nearest replica, then from the others. Each method may raise
    StateUnreachableError (no replica answered), StateAccessError or TableNotFoundError, unless its docstring excludes
    it.

    An item without its required content affects only itself. A method that reads one item raises UnreadableItemError;
    while a page of the item is missing, IncompleteItemError, which counts as unreachable. A method that reads several
    items leaves out those that it cannot read. Heartbeats and records are never left out and raise no such error: they
    have ``unreadable`` set. A write replaces an unreadable item.
    """

    def observe(self, region: str) -> Observation:
        """
        Return the state, and *region*'s reconciled epoch and list of regions, in one request.

        A missing state item is not an error. A value that cannot be used is not an error either: the observation
        reports it as a problem.

        :raises UnusableStateError: even the version of the state item is invalid.
        """

    def read(self) -> DRState:
        """
        Return the state.

        :raises StateNotFoundError: the table has no state item.
        :raises UnusableStateError: even its version is invalid.
        """

    def copies(self) -> Mapping[str, DRState | None]:
        """
        Return the state in each copy of a table with eventual consistency, by region, for the copies that answer.

        Empty for a table with strong consistency, in which all copies are equal.
        """

    def write(self, state: DRState, *, expected_version: int | None) -> None:
        """
        Write *state* if the stored version is *expected_version* (None: if no item is stored).

        Atomic, and not retried blindly: if the response of a write is lost, the store reads the item again, and returns
        normally if this same write succeeded.

        :raises StaleStateError: the condition failed; the error contains the state that was found.
        """

    def overwrite(self, state: DRState) -> None:
        """
        Write *state* without a condition. Only for an item whose version is invalid.

        Nothing protects the write against other writers: the operator must make sure that there are none.
        """

    def register(self, registration: Registration) -> None:
        """Register the name of an environment. Idempotent; keeps the agents' values in the same item."""

    def registrations(self, regions: Collection[str] = ()) -> Mapping[str, Registration]:
        """Return the registered environments by region: of *regions*, or of all regions if that is empty."""

    def regions(self, among: Collection[str] = ()) -> frozenset[str]:
        """
        Return the registered regions: of *among*, or of all regions if that is empty.

        A region is registered if its item exists, with or without an environment's name. ``mwaa-dr init`` or the
        region's own agent writes the item.
        """

    def put_regions(self, region: str, regions: Collection[str]) -> None:
        """
        Replace the list of registered regions in *region*'s own item. Idempotent; keeps all other values of the item.

        This also registers *region*, which is always in the list.
        """

    def put_agent(self, status: AgentStatus) -> None:
        """Write a heartbeat, and the region's reconciled epoch if the status has one."""

    def agents(self, region: str) -> Sequence[AgentStatus]:
        """Return the last heartbeat of each scheduler, except forgotten ones; also those that cannot be read."""

    def forget_agent(self, region: str, job: str) -> None:
        """Delete the heartbeat of a scheduler that has ended. Idempotent."""

    def put_dispute(self, region: str, environments: Sequence[str]) -> None:
        """Store which environments claim *region* while no name is registered; an empty list ends the dispute."""

    def request_heartbeats(self, region: str, request_id: str) -> None:
        """
        Let each agent of *region* send a heartbeat when it next reads the state. Idempotent for the same *request_id*.

        A no-op for a region that is not registered. Agents of earlier versions send their heartbeats at the usual
        interval.
        """

    def put(self, kind: ItemKind[T], item: T) -> None:
        """
        Write an item, unless *kind* keeps the stored one. Idempotent.

        Readers get either the complete old item or the complete new one.

        :raises StateError: the item is larger than its kind allows.
        """

    def get(self, kind: ItemKind[T], item_id: str) -> T | None:
        """Return an item; None if it does not exist."""

    def find_all(self, kind: ItemKind[T], region: str = "") -> Sequence[T]:
        """
        Return all items of a kind, in the order of the kind. Only for kinds whose items have no pages.

        :param region: the region that the items belong to; empty for items of plans.
        """

    def delete(self, kind: ItemKind[T], item: T) -> None:
        """Delete an item. Idempotent. Only for kinds whose items have no pages."""

    def acknowledge_unpublished(self, region: str, unpublished_id: str, at: datetime) -> bool:
        """Store that a user acknowledged the event. Idempotent. Return False if another event, or none, is stored."""

    def newest_wanted_set(self) -> DagSet | None:
        """
        Return the :data:`DAG_SETS` of unpaused DAGs that was recorded last, regardless of its plan's outcome.

        It ignores the sets of runs that a plan stops, and sets that cannot be read.
        """

    def inventory_key(self, region: str) -> str | None:
        """Return the public key of the region's last inventory; reads only the manifest."""

    def unreadable(self, regions: Collection[str]) -> Sequence[UnreadableItem]:
        """Return the unreadable items, by key; it reads the pages of snapshots and inventories of *regions* only."""


class RunsStore(Protocol):
    """
    The runs table, which contains the ledger. Only one agent of a region writes the region's part of it.

    Every method may raise StateUnreachableError (no replica answered), StateAccessError or TableNotFoundError.

    An entry that cannot be read is returned with its number and with ``unreadable`` set; the log continues after it. If
    a field of a run in an entry or checkpoint cannot be read, such as its status, the run is returned with ``doubt``
    set.
    """

    def append(self, region: str, entry: LogEntry) -> None:
        """
        Write the next entry of *region*'s log. Idempotent for the same entry.

        :raises StaleLedgerError: another entry has that number, so another agent also writes for the region.
        """

    def log(self, region: str, *, after: int) -> Sequence[LogEntry]:
        """Return the entries with a number above *after*, in order: the first of them, not always all."""

    def save_checkpoint(
        self, region: str, checkpoint: RegionLedger, *, begins_after: RegionLedger | None = None
    ) -> bool:
        """
        Replace *region*'s checkpoint. Readers get either the complete old one or the complete new one.

        :param begins_after: the ledger whose life ends; *checkpoint* begins the next life.
        :return: False, without a change, if a later checkpoint or one of another life is stored: another agent writes
            for the region. A checkpoint of the first version has no life; any later checkpoint replaces it.
        """

    def checkpoint_info(self, region: str) -> CheckpointInfo | None:
        """Return which checkpoint of *region* is stored, without reading it; None: none, or it cannot be read."""

    def checkpoint(self, region: str) -> RegionLedger:
        """
        Return the last saved checkpoint of *region*, or an empty ledger if there is none. The caller may change it.

        :raises UnreadableCheckpointError: the stored checkpoint cannot be read.
        :raises IncompleteItemError: a page of it has not arrived in this replica yet.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDescription:
    """
    DynamoDB's description of a table.

    :param regions: the regions of all copies that can be read, sorted.
    """

    name: str
    regions: tuple[str, ...]
    consistency: TableConsistency
    is_protected: bool


class Tables(Protocol):
    """DynamoDB's control plane; only its read calls."""

    def describe(self, table: str) -> TableDescription:
        """
        Return the description of *table* from the first region that answers.

        :raises StateUnreachableError: no region answered.
        :raises StateAccessError: the caller has no permission to describe the table.
        :raises TableNotFoundError: the table does not exist in that region.
        """


class EnvironmentStatus(str, Enum):
    """Status of an MWAA environment, in the words of the service; UNKNOWN for a status that is not listed here."""

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
        """Whether Airflow should be running. MWAA restores an environment after UPDATE_FAILED, so it is usable."""
        return self in {EnvironmentStatus.AVAILABLE, EnvironmentStatus.UPDATE_FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentDescription:
    """
    The MWAA service's description of an environment; None for values that it does not return.

    :param options: Airflow configuration options. Values may be secrets: compare them, never print or store them.
    :param teams: names of the teams that MWAA configures.
    :param has_identity_center: whether users sign in through IAM Identity Center.
    :param last_update: outcome of the last update of the environment: SUCCESS, PENDING or FAILED.
    :param logs: level of each log of Airflow that is on, by name such as ``SchedulerLogs``. A log that is off is
        missing.
    """

    status: EnvironmentStatus
    airflow_version: str | None = None
    environment_class: str | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    schedulers: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    teams: frozenset[str] = frozenset()
    has_identity_center: bool = False
    last_update: str | None = None
    logs: Mapping[str, str] | None = None


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

    Every method may raise MwaaUnreachableError, MwaaAccessError and MwaaRequestError. Read-only and idempotent calls
    are retried within their deadline (aws/session.py).
    """

    @property
    def region(self) -> str:
        """Region of the environment."""

    @property
    def name(self) -> str:
        """Name of the environment."""

    def status(self) -> EnvironmentStatus:
        """Return the status from the MWAA service, which does not cover the Airflow in the environment."""

    def describe(self) -> EnvironmentDescription:
        """Return the full description from the MWAA service."""

    def try_change(self) -> None:
        """
        Request an impossible change, to find out whether the caller may change DAGs. Changes nothing.

        :raises MwaaAccessError: the caller may not change DAGs.
        """

    def scheduler_is_healthy(self) -> bool:
        """Return whether Airflow's health response lists its scheduler as healthy; its HTTP status is always 200."""

    def dags(
        self,
        *,
        paused: bool | None = None,
        tag: str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Sequence[DagInfo]:
        """
        Return all DAGs that are not stale, without duplicates, in the order of the environment's database.

        :param paused: True: only paused DAGs. False: only unpaused DAGs. None: all.
        :param tag: only DAGs with this tag; None: all.
        :param on_progress: called with (read, total) about once a second until the last page is read.
        """

    def set_paused(
        self,
        dag_ids: Collection[str],
        *,
        paused: bool,
        listing: Sequence[DagInfo] | None = None,
        expected: Sequence[DagInfo] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Sequence[str]:
        """
        Pause or unpause exactly *dag_ids* and no other DAG: bulk calls, then new listings until nothing changes.

        Idempotent. Ids that the environment does not have are ignored.

        :param listing: a result of :meth:`dags` for all DAGs that the caller has just read, and has not changed since;
            None: the method first lists the DAGs.
        :param expected: only without a *listing*: all DAGs that the caller believes to be in the other state, also
            those that are not in *dag_ids*. If the environment has exactly as many in that state, no listing is needed.
        :param on_progress: called with (done, total) before the first call and after the last, and about once a second
            in between.
        :return: the ids whose flag changed, sorted.
        :raises IncompleteError: some DAGs did not change before the deadline; the error lists them.
        """

    def running_runs(self) -> Sequence[RunInfo]:
        """Return the dag runs in state running, sorted."""

    def running_tasks(self) -> Sequence[RunInfo]:
        """Return the runs with a task instance in state running (not deferred), sorted, without duplicates."""

    def stop_run(self, run: RunInfo) -> bool:
        """
        Mark a run as failed. Airflow ends its executing tasks at their next heartbeat, seconds later. Idempotent.

        :return: whether the run was queued or running; a run that has ended keeps its state.
        """

    def trigger(self, dag_id: str, *, run_id: str, note: str) -> None:
        """Start a manual run with the caller's run id. A no-op if a run with this id exists."""

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """Return the state of a run, as Airflow names it; None if the run does not exist."""


class Clock(Protocol):
    """Time. ``tests`` use :class:`airflow_provider_mwaa_dr.testing.ManualClock`."""

    def monotonic(self) -> float:
        """Return seconds that never decrease and continue during suspend; comparable until this machine restarts."""

    def now(self) -> datetime:
        """Return the aware UTC wall-clock time, for records and display; it may jump."""

    def sleep(self, seconds: float) -> None:
        """Wait for this time."""
