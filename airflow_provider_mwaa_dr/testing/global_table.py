"""A state table with eventual consistency in memory."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.testing._state_table import StateTable
from airflow_provider_mwaa_dr.testing.clock import ManualClock
from airflow_provider_mwaa_dr.testing.state_store import InMemoryStateStore


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
        self._tables = {region: StateTable(lock=self._lock, lists=dict.fromkeys(listed, listed)) for region in regions}
        self._written: dict[tuple[str, _Key], tuple[float, int]] = {}
        self._order = itertools.count()

    def copies(self) -> dict[str, InMemoryStateStore]:
        """Return a store for each replica. Their faults are separate."""
        return {region: _Copy(self, region, table) for region, table in self._tables.items()}

    def states(self) -> Mapping[str, DRState | None]:
        """Return the state in each replica. Ignores all faults."""
        return {region: table.state for region, table in self._tables.items()}

    def _changed(self, region: str, before: _Contents) -> None:
        """Replicate the changes of a write to *region*'s replica."""
        stamp = self._clock.monotonic(), next(self._order)
        for name, after in _contents(self._tables[region]).items():
            was = before[name]
            if after == was:
                continue
            for place in (*after, *(was.keys() - after.keys())):
                value, known = after.get(place), was.get(place)
                if value is known or value == known:
                    continue
                self._written[region, (name, place)] = stamp
                for other in self._tables:
                    if other != region:
                        self._send(region, other, (name, place), value, stamp, self.lag_s())

    def _send(
        self, source: str, target: str, key: _Key, value: object, stamp: tuple[float, int], after_s: float
    ) -> None:
        def arrive() -> None:
            if source in self.cut or target in self.cut:
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


_Contents = Mapping[str, dict[Any, object]]
"""A copy of the collections of a table, by name."""
_COLLECTIONS = ("reconciled", "registrations", "lists", "disputes", "agents", "items", "damaged")


def _contents(table: StateTable) -> _Contents:
    return {"state": {None: table.state}, **{name: dict(getattr(table, name)) for name in _COLLECTIONS}}


def _put(table: StateTable, key: _Key, value: object) -> None:
    name, place = key
    if place is None:
        setattr(table, name, value)
    elif value is None:
        getattr(table, name).pop(place, None)
    else:
        getattr(table, name)[place] = value


class _Copy(InMemoryStateStore):
    """One replica of a global table."""

    def __init__(self, of: InMemoryGlobalTable, region: str, table: StateTable) -> None:
        super().__init__()
        self._of, self._region, self._table = of, region, table
        self.has_limits = of.has_limits

    def _reach(self, method: str) -> AbstractContextManager[Any]:
        reached = super()._reach(method)
        is_write = method.startswith(("write", "put", "register", "forget", "delete", "acknowledge"))
        return _Writing(self._of, self._region, self._table) if is_write else reached


class _Writing:
    """A write to a replica. Its end replicates the changes to the others."""

    def __init__(self, of: InMemoryGlobalTable, region: str, table: StateTable) -> None:
        self._of, self._region, self._table = of, region, table

    def __enter__(self) -> None:
        self._table.lock.acquire()
        self._before = _contents(self._table)

    def __exit__(self, *_: object) -> None:
        try:
            self._of._changed(self._region, self._before)
        finally:
            self._table.lock.release()
