"""
Fakes of all external services that the provider uses, for its own tests and for yours.

They keep the promises of :mod:`airflow_provider_mwaa_dr.core.ports`: tests/contract runs the same tests with the fakes
and with the adapters for AWS. The fakes never sleep, open a socket or start a thread. Time is a :class:`ManualClock`,
and a test schedules later events on it.

.. code-block:: python

    clock = ManualClock()
    store = InMemoryStateStore()
    ohio = FakeEnvironment("us-east-2", dags=["orders", "billing"], clock=clock)
    ohio.add_run("orders", "scheduled__1", seconds=30)
    clock.after(10, lambda: setattr(ohio, "unreachable", True))
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, TypeVar

from airflow_provider_mwaa_dr.aws.dynamodb import items, runs_store
from airflow_provider_mwaa_dr.aws.dynamodb.limits import why_item_is_refused
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.ledger import CheckpointInfo, LogEntry, RegionLedger
from airflow_provider_mwaa_dr.core.ports import (
    AgentStatus,
    Claim,
    DagInfo,
    DagSet,
    EnvironmentDescription,
    EnvironmentStatus,
    FailoverRecord,
    Observation,
    Registration,
    RunInfo,
    TableDescription,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import DRState, Mode, is_wanted_set
from airflow_provider_mwaa_dr.exceptions import (
    IncompleteError,
    IncompleteItemError,
    MwaaAccessError,
    MwaaRequestError,
    MwaaUnreachableError,
    StaleLedgerError,
    StaleStateError,
    StateAccessError,
    StateError,
    StateNotFoundError,
    StateUnreachableError,
    TableNotFoundError,
    UnreadableCheckpointError,
    UnreadableItem,
    UnreadableItemError,
)

__all__ = [
    "FakeEnvironment",
    "FakeTables",
    "InMemoryGlobalTable",
    "InMemoryRunsStore",
    "InMemoryStateStore",
    "ManualClock",
]

T = TypeVar("T")


_TABLE = "memory"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)


class ManualClock:
    """
    A :class:`~airflow_provider_mwaa_dr.core.ports.Clock` that moves only in ``advance`` and ``sleep``.

    ``monotonic`` and ``now`` move together. Callbacks run in the order of their times, each at exactly its time, in the
    thread that moves the clock. A callback may schedule another one.

    :param start: aware UTC time at which the clock starts.
    :ivar elapsed_s: what ``monotonic`` returns; read only.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)) -> None:
        self._start = start
        self.elapsed_s = 0.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._lock = threading.RLock()

    def monotonic(self) -> float:
        """Return the seconds since the clock was created."""
        return self.elapsed_s

    def now(self) -> datetime:
        """Return the aware UTC time."""
        return self._start + timedelta(seconds=self.elapsed_s)

    def sleep(self, seconds: float) -> None:
        """Move the clock by *seconds*, without waiting."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move the clock by *seconds*, and run the callbacks that are scheduled in that time."""
        with self._lock:
            until = self.elapsed_s + max(0.0, seconds)
            while self._due and self._due[0][0] <= until:
                at, _, callback = heapq.heappop(self._due)
                self.elapsed_s = max(self.elapsed_s, at)
                callback()
            # A callback may have moved the clock, too.
            self.elapsed_s = max(self.elapsed_s, until)

    def after(self, seconds: float, callback: Callable[[], object]) -> None:
        """Call *callback* when the clock has moved by *seconds*."""
        with self._lock:
            heapq.heappush(self._due, (self.elapsed_s + seconds, next(self._order), callback))


@dataclass(slots=True, kw_only=True)
class _Table:
    """The table that all peers of one store share."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    state: DRState | None = None
    reconciled: dict[str, int] = field(default_factory=dict)
    registrations: dict[str, Registration] = field(default_factory=dict)
    lists: dict[str, frozenset[str]] = field(default_factory=dict)
    agents: dict[tuple[str, str], AgentStatus] = field(default_factory=dict)
    claims: dict[tuple[str, str, str, str], Claim] = field(default_factory=dict)
    disputes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fences: dict[str, datetime] = field(default_factory=dict)
    sets: dict[str, DagSet] = field(default_factory=dict)
    snapshots: dict[str, DagSet] = field(default_factory=dict)
    records: dict[str, FailoverRecord] = field(default_factory=dict)
    inventories: dict[str, Inventory] = field(default_factory=dict)
    damaged: dict[str, UnreadableItem] = field(default_factory=dict)
    unpublished: dict[str, Unpublished] = field(default_factory=dict)


class InMemoryStateStore:
    """
    A :class:`~airflow_provider_mwaa_dr.core.ports.StateStore` in memory; thread-safe, each call atomic.

    :param state: the state at first; None: the table is empty.
    :param regions: the regions that are registered at first, each with the list of all of them.
    :ivar unreachable: while True, every call raises StateUnreachableError and changes nothing.
    :ivar read_only: while True, ``write`` raises StateAccessError and changes nothing.
    :ivar failing: the error that a method raises before it changes anything, by the method's name.
    :ivar lose_answers: number of the next ``write`` calls that succeed but raise StateUnreachableError, as if the
        connection broke between the write and its answer.
    :ivar before_write: called with the state before each ``write`` checks its condition. A test can let another caller
        write first.
    :ivar calls: names of the called methods, in order.
    :ivar has_limits: if True, state, heartbeats and records are stored as items of a table, within DynamoDB's limits.
        If False, they are stored unchanged, with any size.
    """

    has_limits: bool = True

    def __init__(self, state: DRState | None = None, *, regions: Iterable[str] = ()) -> None:
        registered = frozenset(regions)
        self._table = _Table(state=state, lists=dict.fromkeys(registered, registered))
        self._observed: dict[str, int | None] = {}
        self.unreachable = False
        self.read_only = False
        self.failing: dict[str, Exception] = {}
        self.lose_answers = 0
        self.before_write: Callable[[DRState], object] | None = None
        self.calls: list[str] = []

    def peer(self) -> InMemoryStateStore:
        """Return a store of another caller for the same table. Its faults are separate."""
        other = InMemoryStateStore()
        other._table = self._table
        return other

    @property
    def state(self) -> DRState | None:
        """The stored state. Ignores all faults."""
        return self._table.state

    def damage(self, key: str, *, field: str = "body", found: str = "'junk'", allowed: str = "something else") -> None:
        """
        Make the item *key* unreadable, as after a wrong edit. The next write replaces it.

        :param key: key in DynamoDB: ``AGENT#region#job``, ``FAILOVER#id``, ``SNAPSHOT#region``,
            ``SNAPSHOT#region/paused``, ``PAUSED#id``, ``ENVIRONMENT#region``, ``FENCE#region`` or ``INVENTORY#region``.
        """
        fault = _fault(key, field=field, found=found, allowed=allowed)
        kind, _, name = key.partition("#")
        with self._table.lock:
            if kind == "AGENT":
                region, _, job = name.partition("#")
                known = self._table.agents.get((region, job), _unknown_agent(region, job))
                self._table.agents[region, job] = replace(
                    known, version=-1, epoch=-1, schedulers=(), adopted_epoch=None, reconciled_epoch=None,
                    final_plan_id=None, standby_as_of=None, unreadable=fault,
                )  # fmt: skip
            elif kind == "FAILOVER":
                record = self._table.records.get(name, _unknown_record(name))
                self._table.records[name] = replace(record, mode=Mode.AUTO, unreadable=fault)
            else:
                self._table.damaged[key] = fault

    def _intact(self, key: str) -> None:
        """Raise if the item *key* cannot be read."""
        if key in self._table.damaged:
            raise UnreadableItemError(self._table.damaged[key])

    def _reach(self, method: str) -> AbstractContextManager[Any]:
        self.calls.append(method)
        if self.unreachable:
            raise StateUnreachableError(f"The state table did not answer {method}: unreachable is set.")
        if method in self.failing:
            raise self.failing[method]
        return self._table.lock

    def _stored(self, value: T, to_item: Callable[[T], items.Item], from_item: Callable[[items.Item], T]) -> T:
        """Return *value* as read back from a table. :raises StateError: DynamoDB would refuse the item."""
        if not self.has_limits:
            return value
        item = to_item(value)
        _refuse(item, key=(items.KEY,))
        return from_item(item)

    def observe(self, region: str) -> Observation:
        """Return the state, and *region*'s reconciled epoch and list of regions."""
        with self._reach("observe"):
            self._observed[region] = self._table.reconciled.get(region)
            registration = self._table.registrations.get(region)
            return Observation(
                state=self._table.state,
                reconciled_epoch=self._observed[region],
                environment=registration.environment if registration is not None else None,
                disputed=self._table.disputes.get(region, ()),
                registered=self._table.lists.get(region),
            )

    def read(self) -> DRState:
        """Return the state. :raises StateNotFoundError: the store has no state item."""
        with self._reach("read"):
            if self._table.state is None:
                raise StateNotFoundError("The store has no state item.", advice="Run mwaa-dr init.")
            return self._table.state

    def copies(self) -> Mapping[str, DRState | None]:
        """Return nothing: this is one table."""
        with self._reach("copies"):
            return {}

    def write(self, state: DRState, *, expected_version: int | None) -> None:
        """Write *state* if the stored version is *expected_version*. :raises StaleStateError: it is not."""
        if self.before_write is not None:
            self.before_write(state)
        with self._reach("write"):
            if self.read_only:
                raise StateAccessError("Access denied for a write of the state: read_only is set.")
            found = self._table.state
            if (found.version if found is not None else None) != expected_version:
                raise StaleStateError(expected_version, found)
            self._table.state = self._stored(
                state,
                partial(items.state_to_item, write_token="0" * 32),
                partial(items.state_from_item, default_lease_s=60.0),
            )
            if self.lose_answers > 0:
                self.lose_answers -= 1
                raise StateUnreachableError("The answer to a write was lost: lose_answers is set.")

    def overwrite(self, state: DRState) -> None:
        """Write *state* without a condition."""
        with self._reach("write"):
            self._table.state = state

    def register(self, registration: Registration) -> None:
        """Register an environment."""
        with self._reach("register"):
            self._table.registrations[registration.region] = registration
            self._table.damaged.pop(f"ENVIRONMENT#{registration.region}", None)

    def registrations(self, regions: Collection[str] = ()) -> Mapping[str, Registration]:
        """Return the registered environments by region."""
        with self._reach("registrations"):
            found = {
                region: one
                for region, one in self._table.registrations.items()
                if f"ENVIRONMENT#{region}" not in self._table.damaged
            }
            return {region: found[region] for region in sorted(found) if not regions or region in regions}

    def regions(self, among: Collection[str] = ()) -> frozenset[str]:
        """Return the registered regions: those of *among*, or all if empty."""
        with self._reach("regions"):
            agents = {region for region, _ in self._table.agents}
            found = agents.union(self._table.registrations, self._table.lists, self._table.reconciled)
            return frozenset(found.intersection(among) if among else found)

    def put_regions(self, region: str, regions: Collection[str]) -> None:
        """Replace the list of registered regions in *region*'s own item."""
        with self._reach("put_regions"):
            self._table.lists[region] = frozenset({region, *regions})

    def put_agent(self, status: AgentStatus) -> None:
        """
        Write a heartbeat, and the reconciled epoch if the status has one.

        An agent with a stale ``observe`` does not undo the epoch that another agent has reconciled since.
        """
        with self._reach("put_agent"):
            self._table.agents[status.region, status.job] = self._stored(
                status, items.agent_to_item, partial(items.agent_from_item, table=_TABLE)
            )
            stored = self._table.reconciled.get(status.region)
            if status.reconciled_epoch is not None and self._observed.get(status.region, stored) == stored:
                self._table.reconciled[status.region] = status.reconciled_epoch
                self._observed[status.region] = status.reconciled_epoch

    def agents(self, region: str) -> Sequence[AgentStatus]:
        """Return the last heartbeat of each scheduler, sorted by job."""
        with self._reach("agents"):
            return [status for key, status in sorted(self._table.agents.items()) if key[0] == region]

    def forget_agent(self, region: str, job: str) -> None:
        """Delete the heartbeat of a scheduler that will not run again."""
        with self._reach("forget_agent"):
            self._table.agents.pop((region, job), None)

    def put_claim(self, claim: Claim) -> None:
        """Write the heartbeat of an agent that claims a region of another environment."""
        with self._reach("put_claim"):
            self._table.claims[_claim_key(claim)] = claim

    def claims(self, place: str) -> Sequence[Claim]:
        """Return the last heartbeats of the agents that claim a region of another environment, sorted."""
        with self._reach("claims"):
            return [claim for key, claim in sorted(self._table.claims.items()) if key[0] == place]

    def forget_claim(self, claim: Claim) -> None:
        """Delete a claim's heartbeat."""
        with self._reach("forget_claim"):
            self._table.claims.pop(_claim_key(claim), None)

    def put_dispute(self, region: str, environments: Sequence[str]) -> None:
        """Record the environments that claim *region* while none is registered. An empty list ends the dispute."""
        with self._reach("put_dispute"):
            self._table.disputes[region] = tuple(environments)

    def put_fence(self, region: str, at: datetime) -> None:
        """Record that a worker of *region* loaded the fence."""
        with self._reach("put_fence"):
            self._table.fences[region] = at
            self._table.damaged.pop(f"FENCE#{region}", None)

    def fence(self, region: str) -> datetime | None:
        """Return when a worker of *region* last recorded its fence."""
        with self._reach("fence"):
            self._intact(f"FENCE#{region}")
            return self._table.fences.get(region)

    def put_unpublished(self, unpublished: Unpublished) -> None:
        """Replace the stored list of the region."""
        with self._reach("put_unpublished"):
            self._table.unpublished[unpublished.region] = unpublished

    def unpublished(self, region: str) -> Unpublished | None:
        """Return the runs that *region* could not take over."""
        with self._reach("unpublished"):
            self._intact(f"UNPUBLISHED#{region}")
            return self._table.unpublished.get(region)

    def acknowledge_unpublished(self, region: str, unpublished_id: str, at: datetime) -> bool:
        """Record that a user has acknowledged the list; False if another list, or none, is stored."""
        with self._reach("acknowledge_unpublished"):
            stored = self._table.unpublished.get(region)
            if stored is None or stored.id != unpublished_id:
                return False
            self._table.unpublished[region] = replace(stored, acknowledged_at=at)
            return True

    def put_set(self, dag_set: DagSet) -> DagSet:
        """Record a wanted set once. If it exists, return the existing set unchanged."""
        with self._reach("put_set"):
            if self._table.damaged.pop(f"PAUSED#{dag_set.id}", None) is not None:
                self._table.sets.pop(dag_set.id, None)
            return self._table.sets.setdefault(dag_set.id, _sorted(dag_set))

    def newest_wanted_set(self) -> DagSet | None:
        """Return the wanted set that was recorded last. Ignores sets of runs that a plan stops, and unreadable sets."""
        with self._reach("newest_wanted_set"):
            readable = [
                dag_set
                for set_id, dag_set in self._table.sets.items()
                if is_wanted_set(set_id) and f"PAUSED#{set_id}" not in self._table.damaged
            ]
            return max(readable, key=lambda dag_set: (dag_set.recorded_at, dag_set.id), default=None)

    def get_set(self, set_id: str) -> DagSet | None:
        """Return a recorded set."""
        with self._reach("get_set"):
            self._intact(f"PAUSED#{set_id}")
            return self._table.sets.get(set_id)

    def put_snapshot(self, dag_set: DagSet) -> None:
        """Replace the region's snapshot."""
        with self._reach("put_snapshot"):
            self._table.snapshots[dag_set.region] = _sorted(dag_set)
            self._table.damaged.pop(f"SNAPSHOT#{dag_set.region}", None)

    def get_snapshot(self, region: str) -> DagSet | None:
        """Return the region's last snapshot."""
        with self._reach("get_snapshot"):
            self._intact(f"SNAPSHOT#{region}")
            return self._table.snapshots.get(region)

    def put_paused(self, dag_set: DagSet) -> None:
        """Replace the set of DAGs that ``mwaa-dr pause`` paused in a region."""
        with self._reach("put_paused"):
            self._table.snapshots[f"{dag_set.region}/paused"] = _sorted(dag_set)
            self._table.damaged.pop(f"SNAPSHOT#{dag_set.region}/paused", None)

    def get_paused(self, region: str) -> DagSet | None:
        """Return the set of DAGs that ``mwaa-dr pause`` paused in a region."""
        with self._reach("get_paused"):
            self._intact(f"SNAPSHOT#{region}/paused")
            return self._table.snapshots.get(f"{region}/paused")

    def put_inventory(self, inventory: Inventory) -> None:
        """Replace the region's inventory."""
        with self._reach("put_inventory"):
            self._table.inventories[inventory.region] = inventory
            self._table.damaged.pop(f"INVENTORY#{inventory.region}", None)

    def get_inventory(self, region: str) -> Inventory | None:
        """Return the region's last inventory."""
        with self._reach("get_inventory"):
            self._intact(f"INVENTORY#{region}")
            return self._table.inventories.get(region)

    def inventory_key(self, region: str) -> str | None:
        """Return the public key of the region's last inventory."""
        with self._reach("inventory_key"):
            self._intact(f"INVENTORY#{region}")
            found = self._table.inventories.get(region)
            return None if found is None else found.public_key

    def put_record(self, record: FailoverRecord) -> None:
        """Write the record of a failover so far. A late write never replaces the record of a later stage."""
        with self._reach("put_record"):
            stored = self._table.records.get(record.id)
            if stored is None or record.progress >= stored.progress:
                self._table.records[record.id] = self._stored(
                    record, items.record_to_item, partial(items.record_from_item, table=_TABLE)
                )

    def get_record(self, record_id: str) -> FailoverRecord | None:
        """Return one record."""
        with self._reach("get_record"):
            return self._table.records.get(record_id)

    def records(self) -> Sequence[FailoverRecord]:
        """Return all records, newest first."""
        with self._reach("records"):
            return sorted(self._table.records.values(), key=lambda record: (record.started_at, record.id), reverse=True)

    def unreadable(self, regions: Collection[str]) -> Sequence[UnreadableItem]:  # noqa: ARG002  (there are no pages)
        """Return the items that cannot be read, by key."""
        with self._reach("unreadable"):
            found = dict(self._table.damaged)
            faults = [agent.unreadable for agent in self._table.agents.values()]
            faults += [record.unreadable for record in self._table.records.values()]
            found |= {fault.key: fault for fault in faults if fault is not None}
            return [found[key] for key in sorted(found)]


def _claim_key(claim: Claim) -> tuple[str, str, str, str]:
    return claim.place, claim.environment, claim.aws_region, claim.job


class InMemoryGlobalTable:
    """
    A state table with eventual consistency: a replica in each region. A write to one replica reaches the others later.

    Replication works item by item, and the last writer wins. Each replica is an :class:`InMemoryStateStore`.
    :class:`~airflow_provider_mwaa_dr.core.eventual.EventualStateStore` combines them to one store.

    :param registered: the regions that are registered at first, each with the list of all of them.
    :ivar lag_s: returns the replication lag; called for each replicated item.
    :ivar has_limits: as in :class:`InMemoryStateStore`, for all replicas.
    :ivar cut: regions whose replicas exchange no items with the others. Their writes are replicated afterwards.
    """

    def __init__(
        self,
        regions: Iterable[str],
        clock: ManualClock,
        lag_s: Callable[[], float] = lambda: 0.0,
        *,
        registered: Iterable[str] = (),
    ) -> None:
        self.lag_s = lag_s
        self.has_limits = True
        self.cut: set[str] = set()
        self._clock = clock
        self._lock = threading.RLock()
        listed = frozenset(registered)
        self._tables = {region: _Table(lock=self._lock, lists=dict.fromkeys(listed, listed)) for region in regions}
        self._written: dict[tuple[str, _Key], tuple[float, int]] = {}
        self._order = itertools.count()

    def copies(self) -> dict[str, InMemoryStateStore]:
        """Return a store for each replica. Their faults are separate."""
        return {region: _Copy(self, region, table) for region, table in self._tables.items()}

    def states(self) -> Mapping[str, DRState | None]:
        """Return the state in each replica. Ignores all faults."""
        return {region: table.state for region, table in self._tables.items()}

    def _changed(self, region: str, before: Mapping[_Key, object]) -> None:
        """Replicate the changes of a write to *region*'s replica."""
        after = _contents(self._tables[region])
        stamp = self._clock.monotonic(), next(self._order)
        for key in before.keys() | after.keys():
            if before.get(key) == after.get(key):
                continue
            self._written[region, key] = stamp
            for other in self._tables:
                if other != region:
                    self._send(region, other, key, after.get(key), stamp, self.lag_s())

    def _send(
        self, source: str, target: str, key: _Key, value: object, stamp: tuple[float, int], after_s: float
    ) -> None:
        def arrive() -> None:
            if self.cut & {source, target}:
                self._clock.after(1.0, arrive)
            elif stamp > self._written.get((target, key), (-1.0, -1)):
                self._written[target, key] = stamp
                _put(self._tables[target], key, value)

        if after_s > 0 or self.cut:
            self._clock.after(after_s, arrive)
        else:
            arrive()


_Key = tuple[str, Any]
"""A collection of the table, and the key in it."""


def _contents(table: _Table) -> dict[_Key, object]:
    found: dict[_Key, object] = {("state", None): table.state}
    names = (
        "reconciled", "registrations", "lists", "agents", "claims", "disputes", "fences", "sets", "snapshots",
        "records", "damaged", "unpublished",
    )  # fmt: skip
    for name in names:
        found |= {(name, key): value for key, value in getattr(table, name).items()}
    return found


def _put(table: _Table, key: _Key, value: object) -> None:
    name, place = key
    if place is None:
        setattr(table, name, value)
    elif value is None:
        getattr(table, name).pop(place, None)
    else:
        getattr(table, name)[place] = value


class _Copy(InMemoryStateStore):
    """One replica of a global table."""

    def __init__(self, of: InMemoryGlobalTable, region: str, table: _Table) -> None:
        super().__init__()
        self._of, self._region, self._table = of, region, table
        self.has_limits = of.has_limits

    def _reach(self, method: str) -> AbstractContextManager[Any]:
        reached = super()._reach(method)
        return self._writing() if method.startswith(("write", "put_", "register", "forget", "acknowledge")) else reached

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._table.lock:
            before = _contents(self._table)
            try:
                yield
            finally:
                self._of._changed(self._region, before)


class FakeTables:
    """
    A :class:`~airflow_provider_mwaa_dr.core.ports.Tables` with the tables that a test adds.

    :ivar tables: descriptions by name.
    :ivar forbidden: while True, ``describe`` raises StateAccessError.
    """

    def __init__(self, *tables: TableDescription) -> None:
        self.tables = {table.name: table for table in tables}
        self.forbidden = False

    def add(
        self,
        name: str,
        *regions: str,
        consistency: TableConsistency = TableConsistency.STRONG,
        is_protected: bool = True,
    ) -> None:
        """Add or replace the description of a table."""
        self.tables[name] = TableDescription(
            name=name, regions=tuple(sorted(regions)), consistency=consistency, is_protected=is_protected
        )

    def describe(self, table: str) -> TableDescription:
        """Return the description of *table*. :raises TableNotFoundError: the test has added none."""
        if self.forbidden:
            raise StateAccessError(f"Access denied for the description of table {table}: forbidden is set.")
        if table not in self.tables:
            raise TableNotFoundError(f"Table {table} does not exist.")
        return self.tables[table]


class InMemoryRunsStore:
    """
    A :class:`~airflow_provider_mwaa_dr.core.ports.RunsStore` in memory; thread-safe, each call atomic.

    :ivar unreachable: while True, every call raises StateUnreachableError and changes nothing.
    :ivar refusal: while set, every call raises this error and changes nothing, as for expired credentials, missing
        permissions, or a table that does not exist.
    :ivar on_their_way: regions whose checkpoint is not yet complete in the replica that this caller reads.
    :ivar lose_answers: number of the next ``append`` calls that succeed but raise StateUnreachableError.
    :ivar calls: names of the called methods, in order.
    :ivar has_limits: if True, entries and checkpoints are stored as items of a table, within DynamoDB's limits. If
        False, they are stored unchanged, with any size.
    """

    has_limits: bool = True

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._logs: dict[str, list[LogEntry]] = {}
        self._checkpoints: dict[str, RegionLedger] = {}
        self._damaged: dict[str, UnreadableItem] = {}
        self.unreachable = False
        self.refusal: StateError | None = None
        self.on_their_way: set[str] = set()
        self.lose_answers = 0
        self.calls: list[str] = []

    def peer(self) -> InMemoryRunsStore:
        """Return a store of another caller for the same table. Its faults are separate."""
        other = InMemoryRunsStore()
        other._lock, other._logs, other._checkpoints = self._lock, self._logs, self._checkpoints
        other._damaged = self._damaged
        return other

    def damage_entry(self, region: str, number: int) -> None:
        """Make an entry of *region*'s log unreadable."""
        fault = _fault(
            f"LOG#{region} {number:015}", field="body", found="7 bytes that cannot be unpacked", allowed="JSON"
        )
        with self._lock:
            entries = [entry for entry in self._logs.get(region, []) if entry.number != number]
            entries.append(LogEntry.unreadable_one(number, fault))
            self._logs[region] = sorted(entries, key=lambda entry: entry.number)

    def damage_checkpoint(self, region: str) -> None:
        """Make *region*'s checkpoint unreadable. The next saved checkpoint replaces it."""
        with self._lock:
            self._damaged[region] = _fault(
                f"PICTURE#{region} manifest", field="pages", found="'two'", allowed="a number"
            )

    def _reach(self, method: str) -> AbstractContextManager[bool]:
        self.calls.append(method)
        if self.unreachable:
            raise StateUnreachableError(f"The runs table did not answer {method}: unreachable is set.")
        if self.refusal is not None:
            raise self.refusal
        return self._lock

    def append(self, region: str, entry: LogEntry) -> None:
        """Write the next entry. :raises StaleLedgerError: another entry has that number."""
        with self._reach("append"):
            entry = self._stored_entry(region, entry)
            log = self._logs.setdefault(region, [])
            stored = next((each for each in reversed(log) if each.number == entry.number), None)
            if stored is not None and stored != entry:
                raise StaleLedgerError(f"Entry {entry.number} of {region} exists already.")
            if stored is None:
                log.append(entry)
                log.sort(key=lambda each: each.number)
            if self.lose_answers > 0:
                self.lose_answers -= 1
                raise StateUnreachableError("The answer to a write was lost: lose_answers is set.")

    def _stored_entry(self, region: str, entry: LogEntry) -> LogEntry:
        if not self.has_limits:
            return entry
        item = runs_store.entry_to_item(region, entry)
        _refuse(item, key=("pk", "sk"))
        return runs_store.entry_from_item(item, table=_TABLE)

    def _stored_checkpoint(self, region: str, checkpoint: RegionLedger) -> RegionLedger:
        if not self.has_limits:
            return _copy(checkpoint)
        pages, manifest = runs_store.checkpoint_to_items(region, checkpoint)
        for item in (*pages, manifest):
            _refuse(item, key=("pk", "sk"))
        return runs_store.checkpoint_from_items(manifest, pages, table=_TABLE)

    def log(self, region: str, *, after: int) -> Sequence[LogEntry]:
        """Return the entries above *after*, in order; at most 200."""
        with self._reach("log"):
            log = self._logs.get(region, [])
            start = next((index for index in range(len(log), 0, -1) if log[index - 1].number <= after), 0)
            return log[start : start + 200]

    def recreate(self) -> None:
        """Replace the table by an empty one."""
        with self._lock:
            for everything in (self._logs, self._checkpoints, self._damaged):
                everything.clear()

    def expire(self, region: str) -> None:
        """Let every entry of *region*'s log expire, but not its checkpoint."""
        with self._lock:
            self._logs.pop(region, None)

    def save_checkpoint(
        self, region: str, checkpoint: RegionLedger, *, begins_after: RegionLedger | None = None
    ) -> bool:
        """Replace the region's checkpoint, unless a later one, or one of another ledger life, is stored."""
        with self._reach("save_checkpoint"):
            there = self._checkpoints.get(region)
            lives = {None, checkpoint.life, begins_after.life if begins_after is not None else checkpoint.life}
            is_later = there is not None and (there.life not in lives or there.number > checkpoint.number)
            if is_later and region not in self._damaged:
                return False
            self._checkpoints[region] = self._stored_checkpoint(region, checkpoint)
            self._damaged.pop(region, None)
            return True

    def checkpoint_info(self, region: str) -> CheckpointInfo | None:
        """Return life and number of the region's checkpoint; None if there is none, or if it cannot be read."""
        with self._reach("checkpoint_info"):
            there = self._checkpoints.get(region)
            if there is None or region in self._damaged:
                return None
            return CheckpointInfo(life=there.life, number=there.number)

    def checkpoint(self, region: str) -> RegionLedger:
        """Return the last checkpoint; an empty ledger if there is none yet."""
        with self._reach("checkpoint"):
            checkpoint = self._checkpoints.get(region, RegionLedger())
            if region in self.on_their_way:
                raise IncompleteItemError(
                    _fault(f"PICTURE#{region} manifest", field="pages", found="0 existing pages", allowed="the 1 pages")
                )
            if region in self._damaged:
                raise UnreadableCheckpointError(self._damaged[region], number=checkpoint.number)
            return _copy(checkpoint)


def _refuse(item: items.Item, *, key: tuple[str, ...]) -> None:
    if (refused := why_item_is_refused(item, key=key)) is not None:
        raise StateError(f"Could not write {[item[name]['S'] for name in key]}: ValidationException: {refused}.")


def _copy(checkpoint: RegionLedger) -> RegionLedger:
    # A checkpoint is the region's own view of its ledger, so it has no gap.
    return replace(checkpoint, runs=dict(checkpoint.runs), heads=dict(checkpoint.heads), gap=None)


def _fault(key: str, *, field: str, found: str, allowed: str) -> UnreadableItem:
    return UnreadableItem(
        table=_TABLE, key=key, field=field, found=found, allowed=allowed, advice="Write it again, or delete it."
    )


def _unknown_agent(region: str, job: str) -> AgentStatus:
    return AgentStatus(
        region=region, job=job, host="?", at=_LONG_AGO, beat=0, version=-1, epoch=-1, provider_version="?",
        airflow_version="?",
    )  # fmt: skip


def _unknown_record(record_id: str) -> FailoverRecord:
    return FailoverRecord(
        id=record_id, source="?", target="?", mode=Mode.AUTO, reason="?", by="?", started_at=_LONG_AGO, outcome="?",
        epoch=-1,
    )  # fmt: skip


def _sorted(dag_set: DagSet) -> DagSet:
    return replace(dag_set, dag_ids=tuple(sorted(set(dag_set.dag_ids))))


@dataclass(slots=True, kw_only=True)
class _Run:
    """
    A DAG run. As in Airflow, it progresses only while its DAG is not paused.

    :param left_s: remaining seconds of work at *since*; None: it never ends by itself.
    :param busy_until: when the task of a stopped run ends; None while the run is not stopped.
    """

    dag_id: str
    run_id: str
    state: str
    left_s: float | None
    since: float
    note: str | None = None
    busy_until: float | None = None


class FakeEnvironment:
    """
    An :class:`~airflow_provider_mwaa_dr.core.ports.Environment` in memory. Not thread-safe.

    It behaves like Airflow where a failover depends on it. A running run of a paused DAG makes no progress. A stopped
    run's task executes for another ``stop_lag_s``. A run that is triggered under a paused DAG stays queued.

    :param dags: ids of unpaused DAGs, or DagInfo objects.
    :param clock: the clock on which runs progress.
    :ivar unreachable: while True, every call raises MwaaUnreachableError and changes nothing.
    :ivar reported_status: what ``status`` returns.
    :ivar description: what ``describe`` returns, with ``reported_status`` as its status.
    :ivar read_only: while True, ``try_change`` and ``set_paused`` raise MwaaAccessError and change nothing.
    :ivar scheduler_healthy: what ``scheduler_is_healthy`` returns. While it is False, no run progresses.
    :ivar stubborn: ids of DAGs whose paused flag cannot be changed; ``set_paused`` raises IncompleteError for them.
    :ivar stop_lag_s: how long a stopped run's task still executes.
    :ivar trigger_s: how long a triggered run executes before it succeeds.
    :ivar calls: a tuple of method name and arguments for each call, in order.
    """

    def __init__(
        self,
        region: str,
        name: str | None = None,
        *,
        dags: Iterable[str | DagInfo] = (),
        clock: ManualClock | None = None,
    ) -> None:
        self._region = region
        self._name = name or f"mwaa-{region}"
        self._clock = clock or ManualClock()
        self._dags: dict[str, DagInfo] = {}
        self._runs: dict[tuple[str, str], _Run] = {}
        self.unreachable = False
        self.reported_status = EnvironmentStatus.AVAILABLE
        self.description = EnvironmentDescription(
            status=EnvironmentStatus.AVAILABLE,
            airflow_version="3.3.1",
            environment_class="mw1.small",
            min_workers=1,
            max_workers=2,
            schedulers=2,
            options={"dr.enabled": "true"},
        )
        self.read_only = False
        self.scheduler_healthy = True
        self.stubborn: set[str] = set()
        self.stop_lag_s = 6.0
        self.trigger_s = 1.0
        self.calls: list[tuple[Any, ...]] = []
        for dag in dags:
            self.add_dag(dag)

    @property
    def region(self) -> str:
        """Region of the environment."""
        return self._region

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self._name

    # For tests to set up and to check. These calls are not recorded, and never unreachable.

    def add_dag(self, dag: str | DagInfo, *, is_paused: bool = False, tags: Iterable[str] = ()) -> None:
        """Add or replace a DAG."""
        if isinstance(dag, str):
            dag = DagInfo(dag_id=dag, is_paused=is_paused, tags=frozenset(tags))
        self._dags[dag.dag_id] = dag

    def remove_dag(self, dag_id: str) -> None:
        """Remove a DAG, as after its file is deleted."""
        self._dags.pop(dag_id, None)

    def flip(self, dag_id: str, *, is_paused: bool) -> None:
        """Pause or unpause a DAG, as a user does it in the user interface."""
        self._advance_runs()
        self._dags[dag_id] = replace(self._dags[dag_id], is_paused=is_paused)

    def add_run(self, dag_id: str, run_id: str, *, state: str = "running", seconds: float | None = None) -> None:
        """Add a run with *seconds* of remaining work; None: it never ends by itself."""
        self._runs[dag_id, run_id] = _Run(
            dag_id=dag_id, run_id=run_id, state=state, left_s=seconds, since=self._clock.monotonic()
        )

    def end_run(self, dag_id: str, run_id: str, state: str = "success") -> None:
        """End a run now."""
        self._advance_runs()
        self._runs[dag_id, run_id].state = state

    @property
    def paused(self) -> frozenset[str]:
        """Ids of the paused DAGs."""
        return frozenset(dag.dag_id for dag in self._dags.values() if dag.is_paused)

    @property
    def unpaused(self) -> frozenset[str]:
        """Ids of the DAGs that are not paused."""
        return frozenset(self._dags) - self.paused

    @property
    def notes(self) -> Mapping[tuple[str, str], str]:
        """Notes of triggered runs by DAG id and run id."""
        return {key: run.note for key, run in self._runs.items() if run.note is not None}

    def _advance_runs(self) -> None:
        """Update every run to the clock's time."""
        now = self._clock.monotonic()
        for run in self._runs.values():
            dag = self._dags.get(run.dag_id)
            if self.scheduler_healthy and dag is not None and not dag.is_paused and run.state in {"queued", "running"}:
                run.state = "running"
                if run.left_s is not None:
                    run.left_s -= now - run.since
                    run.state = "success" if run.left_s <= 0 else "running"
            run.since = now

    def _reach(self, *call: Any) -> None:
        self.calls.append(call)
        # Until now, the runs progressed under the current flags.
        self._advance_runs()
        if self.unreachable:
            raise MwaaUnreachableError(f"{self._name} ({self._region}) did not answer: unreachable is set.")

    # The port.

    def status(self) -> EnvironmentStatus:
        """Return ``reported_status``."""
        self._reach("status")
        return self.reported_status

    def describe(self) -> EnvironmentDescription:
        """Return ``description`` with ``reported_status``."""
        self._reach("describe")
        return replace(self.description, status=self.reported_status)

    def try_change(self) -> None:
        """Change nothing. :raises MwaaAccessError: ``read_only`` is set."""
        self._reach("try_change")
        self._require_rights()

    def _require_rights(self) -> None:
        if self.read_only:
            raise MwaaAccessError(f"Access denied for a change of {self._name} ({self._region}): read_only is set.")

    def scheduler_is_healthy(self) -> bool:
        """Return ``scheduler_healthy``."""
        self._reach("scheduler_is_healthy")
        return self.scheduler_healthy

    def dags(
        self,
        *,
        paused: bool | None = None,
        on_progress: Callable[[int, int], None] | None = None,  # noqa: ARG002  (there is one page)
    ) -> Sequence[DagInfo]:
        """Return all DAGs, or only the paused or unpaused ones, sorted by id."""
        self._reach("dags")
        dags = [self._dags[dag_id] for dag_id in sorted(self._dags)]
        return dags if paused is None else [dag for dag in dags if dag.is_paused is paused]

    def set_paused(
        self,
        dag_ids: Collection[str],
        *,
        paused: bool,
        listing: Sequence[DagInfo] | None = None,  # noqa: ARG002  (not needed for planning here)
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Sequence[str]:
        """Pause, or unpause, exactly *dag_ids*. :raises IncompleteError: some of them are in ``stubborn``."""
        self._reach("set_paused", tuple(sorted(dag_ids)), paused)
        self._require_rights()
        wanted = [dag_id for dag_id in sorted(set(dag_ids)) if dag_id in self._dags]
        changing = [dag_id for dag_id in wanted if self._dags[dag_id].is_paused is not paused]
        left = [dag_id for dag_id in changing if dag_id in self.stubborn]
        for dag_id in changing:
            if dag_id not in self.stubborn:
                self._dags[dag_id] = replace(self._dags[dag_id], is_paused=paused)
        if on_progress is not None:
            on_progress(len(wanted) - len(left), len(wanted))
        if left:
            raise IncompleteError(
                f"{len(left)} DAGs of {self._name} could not be changed: they are stubborn.", left=left
            )
        return changing

    def running_runs(self) -> Sequence[RunInfo]:
        """Return the runs in state running, sorted."""
        self._reach("running_runs")
        return sorted(self._info(run) for run in self._runs.values() if run.state == "running")

    def running_tasks(self) -> Sequence[RunInfo]:
        """
        Return the runs with a task that executes, sorted: runs of unpaused DAGs, and runs stopped within
        ``stop_lag_s``.
        """
        self._reach("running_tasks")
        now = self._clock.monotonic()
        return sorted(
            self._info(run)
            for run in self._runs.values()
            if (run.busy_until is not None and now < run.busy_until)
            or (run.state == "running" and run.dag_id in self.unpaused)
        )

    def stop_run(self, run: RunInfo) -> bool:
        """Mark a run as failed; its task still executes for ``stop_lag_s``. Return True if the run was still open."""
        self._reach("stop_run", run.dag_id, run.run_id)
        found = self._runs.get((run.dag_id, run.run_id))
        if found is None:
            raise MwaaRequestError(f"{self._name} has no run {run}.", status=404)
        if found.state == "running":
            found.busy_until = self._clock.monotonic() + self.stop_lag_s
        if found.state not in {"queued", "running"}:
            return False
        found.state = "failed"
        return True

    def trigger(self, dag_id: str, *, run_id: str, note: str) -> None:
        """Start a run that succeeds after ``trigger_s``. While its DAG is paused, the run stays queued."""
        self._reach("trigger", dag_id, run_id)
        if dag_id not in self._dags:
            raise MwaaRequestError(f"{self._name} has no DAG {dag_id}.", status=404)
        if (dag_id, run_id) not in self._runs:
            self.add_run(dag_id, run_id, state="queued", seconds=self.trigger_s)
            self._runs[dag_id, run_id].note = note

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """Return the state of a run; None if it does not exist."""
        self._reach("run_state", dag_id, run_id)
        run = self._runs.get((dag_id, run_id))
        return None if run is None else run.state

    @staticmethod
    def _info(run: _Run) -> RunInfo:
        return RunInfo(dag_id=run.dag_id, run_id=run.run_id, state=run.state)
