"""A state table in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar

from airflow_provider_mwaa_dr.aws.dynamodb import items
from airflow_provider_mwaa_dr.aws.dynamodb.item_forms import PagedForm, form_of, single_form_of
from airflow_provider_mwaa_dr.core.item_kind import ItemKind
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    INVENTORIES,
    RECORDS,
    UNPUBLISHED_EVENTS,
    AgentStatus,
    DagSet,
    FailoverOutcome,
    FailoverRecord,
    Observation,
    Registration,
)
from airflow_provider_mwaa_dr.core.state import DRState, Mode, is_wanted_set
from airflow_provider_mwaa_dr.exceptions import (
    StaleStateError,
    StateAccessError,
    StateNotFoundError,
    StateUnreachableError,
    UnreadableItem,
    UnreadableItemError,
)
from airflow_provider_mwaa_dr.testing._state_table import StateTable
from airflow_provider_mwaa_dr.testing._stored_items import TABLE, check_limits, fault_at

T = TypeVar("T")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)


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
        self._table = StateTable(state=state, lists=dict.fromkeys(registered, registered))
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
        fault = fault_at(key, field=field, found=found, allowed=allowed)
        kind, _, name = key.partition("#")
        with self._table.lock:
            if kind == "AGENT":
                region, _, job = name.partition("#")
                known = self._table.agents.get((region, job), _unknown_agent(region, job))
                self._table.agents[region, job] = replace(
                    known, version=-1, epoch=-1, schedulers=(), adopted_epoch=None, reconciled_epoch=None,
                    final_plan_id=None, standby_as_of=None, life=None, silent=(), unreadable=fault,
                )  # fmt: skip
            elif kind == "FAILOVER":
                record = self._table.items.get(key, _unknown_record(name))
                self._table.items[key] = replace(record, mode=Mode.AUTO, unreadable=fault)
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
        check_limits(item, key=(items.KEY,))
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
                environment_region=(registration.aws_region or "") if registration is not None else "",
                disputed=self._table.disputes.get(region, ()),
                registered=self._table.lists.get(region),
                agents=frozenset([job for place, job in self._table.agents if place == region]),
                heartbeat_request=self._table.requests.get(region),
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
            found = self._registered()
            return frozenset(found.intersection(among) if among else found)

    def _registered(self) -> set[str]:
        agents = {region for region, _ in self._table.agents}
        return agents.union(self._table.registrations, self._table.lists, self._table.reconciled)

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
            self._table.attempts += 1
            numbered = replace(status, attempt=self._table.attempts)
            self._table.agents[status.region, status.job] = self._stored(
                numbered, items.agent_to_item, partial(items.agent_from_item, table=TABLE)
            )
            stored = self._table.reconciled.get(status.region)
            if status.reconciled_epoch is not None and self._observed.get(status.region, stored) == stored:
                self._table.reconciled[status.region] = status.reconciled_epoch
                self._observed[status.region] = status.reconciled_epoch

    def agents(self, region: str) -> Sequence[AgentStatus]:
        """Return the last heartbeat of each scheduler, sorted by job."""
        with self._reach("agents"):
            agents = self._table.agents
            return [agents[region, job] for job in sorted([job for place, job in agents if place == region])]

    def forget_agent(self, region: str, job: str) -> None:
        """Delete the heartbeat of a scheduler that will not run again."""
        with self._reach("forget_agent"):
            self._table.agents.pop((region, job), None)

    def put_dispute(self, region: str, environments: Sequence[str]) -> None:
        """Record the environments that claim *region* while none is registered. An empty list ends the dispute."""
        with self._reach("put_dispute"):
            self._table.disputes[region] = tuple(environments)

    def request_heartbeats(self, region: str, request_id: str) -> None:
        """Let each agent of *region* send a heartbeat when it next reads the state. Registers no region."""
        with self._reach("request_heartbeats"):
            if region in self._registered():
                self._table.requests[region] = request_id

    def acknowledge_unpublished(self, region: str, unpublished_id: str, at: datetime) -> bool:
        """Record that a user has acknowledged the list; False if another list, or none, is stored."""
        with self._reach("acknowledge_unpublished"):
            key = UNPUBLISHED_EVENTS.key.format(region)
            stored = self._table.items.get(key)
            if stored is None or stored.id != unpublished_id:
                return False
            self._table.items[key] = replace(stored, acknowledged_at=at)
            return True

    def put(self, kind: ItemKind[T], item: T) -> None:
        """Write an item, unless *kind* keeps the stored one."""
        with self._reach(f"put {kind.name}"):
            key = kind.key_of(item)
            is_damaged = self._table.damaged.pop(key, None) is not None
            stored = self._table.items.get(key)
            if stored is None or is_damaged or not kind.keeps(stored, item):
                self._table.items[key] = self._as_stored(kind, item)

    def _as_stored(self, kind: ItemKind[T], item: T) -> T:
        form = form_of(kind)
        if isinstance(form, PagedForm):
            return item
        return self._stored(item, form.to_item, lambda stored: form.from_item(stored, TABLE))

    def get(self, kind: ItemKind[T], item_id: str) -> T | None:
        """Return an item; None if it does not exist."""
        with self._reach(f"get {kind.name}"):
            key = kind.key.format(item_id)
            self._intact(key)
            return self._table.items.get(key)

    def find_all(self, kind: ItemKind[T], region: str = "") -> Sequence[T]:
        """Return the items of a kind, of *region* if that is not empty, without those that cannot be read."""
        with self._reach(f"find_all {kind.name}"):
            single_form_of(kind)
            items: list[T] = [
                item for key, item in self._table.items.items() if kind.owns(key) and key not in self._table.damaged
            ]
            return kind.ordered(item for item in items if not region or kind.region(item) == region)

    def _items(self, prefix: str) -> dict[str, Any]:
        return {key: item for key, item in self._table.items.items() if key.startswith(prefix)}

    def delete(self, kind: ItemKind[T], item: T) -> None:
        """Delete an item."""
        with self._reach(f"delete {kind.name}"):
            self._table.items.pop(kind.key_of(item), None)

    def newest_wanted_set(self) -> DagSet | None:
        """Return the wanted set that was recorded last. Ignores sets of runs that a plan stops, and unreadable sets."""
        with self._reach("newest_wanted_set"):
            readable: list[DagSet] = [
                dag_set
                for key, dag_set in self._items(DAG_SETS.prefix).items()
                if is_wanted_set(dag_set.id) and key not in self._table.damaged
            ]
            return max(readable, key=lambda dag_set: (dag_set.recorded_at, dag_set.id), default=None)

    def inventory_key(self, region: str) -> str | None:
        """Return the public key of the region's last inventory."""
        with self._reach("inventory_key"):
            key = INVENTORIES.key.format(region)
            self._intact(key)
            found = self._table.items.get(key)
            return None if found is None else str(found.public_key)

    def unreadable(self, regions: Collection[str]) -> Sequence[UnreadableItem]:  # noqa: ARG002  (there are no pages)
        """Return the items that cannot be read, by key."""
        with self._reach("unreadable"):
            found = dict(self._table.damaged)
            faults = [agent.unreadable for agent in self._table.agents.values()]
            faults += [record.unreadable for record in self._items(RECORDS.prefix).values()]
            found |= {fault.key: fault for fault in faults if fault is not None}
            return [found[key] for key in sorted(found)]


def _unknown_agent(region: str, job: str) -> AgentStatus:
    return AgentStatus(
        region=region, job=job, host="?", at=_LONG_AGO, beat=0, version=-1, epoch=-1, provider_version="?",
        airflow_version="?",
    )  # fmt: skip


def _unknown_record(record_id: str) -> FailoverRecord:
    return FailoverRecord(
        id=record_id, source="?", target="?", mode=Mode.AUTO, reason="?", by="?", started_at=_LONG_AGO,
        outcome=FailoverOutcome("?"), epoch=-1,
    )  # fmt: skip
