"""
The second state model of the emulated AWS: a table in each region, copied with a lag.

As a global table with eventual consistency does it: item by item, each on its own way and in no order, and of two
writes to the same item the later one wins in every copy. What cannot be delivered, because a fault cuts one region's
DynamoDB off from another's, arrives when the fault is lifted.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.sandbox.faults import FaultKind, InjectedFault

log = get_logger(__name__)

WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem"})
"""What is copied; the provider writes with nothing else."""
AGAIN_S = 0.25
"""Between two attempts to deliver what a fault holds up; nothing wakes up while nothing is under way."""

Stamp = tuple[float, int]
Place = tuple[str, str]
"""Table, and an item's key as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One item on its way. ``item`` is None where it was deleted."""

    source: str
    target: str
    table: str
    key: Mapping[str, Any]
    item: Mapping[str, Any] | None
    stamp: Stamp

    @property
    def place(self) -> Place:
        """Which item of which table."""
        return self.table, json.dumps(self.key, sort_keys=True)


class Replication:
    """
    Carries what is written to one region's tables to the others'.

    :param call: makes a DynamoDB request in a region: operation and parameters; the answer, None when it was refused.
    :param lock: held by whoever calls :meth:`written`, and for each delivery.
    :param regions: called when something is written: where there may be copies.
    :param lag_s: called for each item: how long it takes at most; the least is half of that.
    :param fault: called for each delivery, with source and target: the fault between the two.
    """

    def __init__(
        self,
        call: Callable[[str, str, Mapping[str, Any]], Mapping[str, Any] | None],
        *,
        lock: threading.Lock,
        regions: Callable[[], Collection[str]],
        lag_s: Callable[[], float],
        fault: Callable[[str, str], InjectedFault | None],
    ) -> None:
        self._call, self._lock, self._regions, self._lag_s, self._fault = call, lock, regions, lag_s, fault
        self._order = itertools.count()
        self._written: dict[tuple[str, Place], Stamp] = {}
        self._keys: dict[tuple[str, str], tuple[str, ...]] = {}
        self._under_way: list[tuple[float, int, Parcel]] = []
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def written(self, region: str, operation: str, parameters: Mapping[str, Any]) -> None:
        """Send what a successful write has left behind in *region* to every other copy."""
        table = parameters["TableName"]
        if operation == "PutItem":
            key = {name: parameters["Item"][name] for name in self._key_of(region, table)}
        else:
            key = dict(parameters["Key"])
        found = self._call(region, "GetItem", {"TableName": table, "Key": key, "ConsistentRead": True}) or {}
        stamp = time.time(), next(self._order)
        for target in self._regions():
            if target == region:
                continue
            parcel = Parcel(
                source=region, target=target, table=table, key=key, item=found.get("Item"), stamp=stamp
            )  # fmt: skip
            self._written[region, parcel.place] = stamp
            self._send(parcel, self._lag_s() * random.uniform(0.5, 1.0))

    def _key_of(self, region: str, table: str) -> tuple[str, ...]:
        if (region, table) not in self._keys:
            described = self._call(region, "DescribeTable", {"TableName": table}) or {}
            self._keys[region, table] = tuple(part["AttributeName"] for part in described["Table"]["KeySchema"])
        return self._keys[region, table]

    def _send(self, parcel: Parcel, after_s: float) -> None:
        with self._news:
            heapq.heappush(self._under_way, (time.monotonic() + after_s, next(self._order), parcel))
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver_all, name="replication", daemon=True)
                self._thread.start()
            self._news.notify()

    def _deliver_all(self) -> None:
        while True:
            with self._news:
                while not self._under_way or (wait_s := self._under_way[0][0] - time.monotonic()) > 0:
                    self._news.wait(wait_s if self._under_way else None)
                parcel = heapq.heappop(self._under_way)[2]
            fault = self._fault(parcel.source, parcel.target)
            if fault is not None and fault.fault is not FaultKind.DELAY:
                self._send(parcel, AGAIN_S)
                continue
            try:
                self._deliver(parcel)
            except Exception:
                log.exception("%s from %s to %s was lost on the way", parcel.place, parcel.source, parcel.target)

    def _deliver(self, parcel: Parcel) -> None:
        """Write the item, unless a later write is there already; where there is no such table, nothing is copied."""
        with self._lock:
            if parcel.stamp <= self._written.get((parcel.target, parcel.place), (0.0, 0)):
                return
            self._written[parcel.target, parcel.place] = parcel.stamp
            if parcel.item is None:
                self._call(parcel.target, "DeleteItem", {"TableName": parcel.table, "Key": parcel.key})
            else:
                self._call(parcel.target, "PutItem", {"TableName": parcel.table, "Item": parcel.item})
