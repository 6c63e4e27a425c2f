"""
The eventual state model of the emulated AWS: a table in each region, replicated with a lag.

It replicates like a global table with eventual consistency. Each item is copied independently, in no fixed order. If
two regions write the same item, the later write wins in every copy. While a fault separates the DynamoDBs of two
regions, copies wait; they are delivered when the fault is removed.
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
from airflow_provider_mwaa_dr.sandbox.cloud.faults import FaultKind, InjectedFault

log = get_logger(__name__)

WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem"})
"""The operations whose writes are copied; the provider uses no other ones."""
RETRY_S = 0.25
"""Time between two attempts to deliver a copy during a fault. Without a copy to deliver, no timer runs."""

Stamp = tuple[float, int]
Place = tuple[str, str]
"""A table's name, and an item's key as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A copy of one item that is to be delivered to another region. ``item`` is None if the item was deleted."""

    source: str
    target: str
    table: str
    key: Mapping[str, Any]
    item: Mapping[str, Any] | None
    stamp: Stamp

    @property
    def place(self) -> Place:
        """The table and the item's key."""
        return self.table, json.dumps(self.key, sort_keys=True)


class Replication:
    """
    Copies each write to one region's tables into the tables of the other regions.

    :param call: sends a DynamoDB request to a region, and returns the answer; None if DynamoDB refused the request. Its
        arguments are region, operation and parameters.
    :param lock: held by the caller of :meth:`written`, and during each delivery.
    :param regions: returns the regions that may have copies; called for each write.
    :param lag_s: returns the longest time that a copy takes; the shortest is half of it. Called for each item.
    :param fault: returns the fault between a source and a target; called for each delivery.
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
        """Copy the item that a successful request wrote in *region* to every other region."""
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
            self._send(parcel, self._lag_s() * random.uniform(0.5, 1.0))  # not a secret  # nosec B311

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
                self._send(parcel, RETRY_S)
                continue
            try:
                self._deliver(parcel)
            except Exception:
                log.exception("%s could not be copied from %s to %s", parcel.place, parcel.source, parcel.target)

    def _deliver(self, parcel: Parcel) -> None:
        """Write the item if the target has no later write. A target without the table ignores it."""
        with self._lock:
            if parcel.stamp <= self._written.get((parcel.target, parcel.place), (0.0, 0)):
                return
            self._written[parcel.target, parcel.place] = parcel.stamp
            if parcel.item is None:
                self._call(parcel.target, "DeleteItem", {"TableName": parcel.table, "Key": parcel.key})
            else:
                self._call(parcel.target, "PutItem", {"TableName": parcel.table, "Item": parcel.item})
