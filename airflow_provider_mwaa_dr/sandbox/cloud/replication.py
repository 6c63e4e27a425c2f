"""
The eventual state model of the emulated AWS: a table in each region, replicated with a lag.

It replicates like a global table with eventual consistency. Each item is copied independently, in no fixed order. If
two regions write the same item, the later write wins in every copy. While a fault separates the DynamoDBs of two
regions, copies wait; they are delivered when the fault is removed.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from airflow_provider_mwaa_dr.sandbox.cloud.copy_queue import Copy, CopyQueue
from airflow_provider_mwaa_dr.sandbox.cloud.faults import InjectedFault

WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem"})
"""The operations whose writes are copied; the provider uses no other ones."""

Stamp = tuple[float, int]
Place = tuple[str, str]
"""A table's name, and an item's key as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A copy of one item that is to be delivered to another region. ``item`` is None if the item was deleted."""

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
        self._call, self._lock, self._regions, self._lag_s = call, lock, regions, lag_s
        self._order = itertools.count()
        self._written: dict[tuple[str, Place], Stamp] = {}
        self._keys: dict[tuple[str, str], tuple[str, ...]] = {}
        self._queue = CopyQueue(fault)

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
            parcel = Parcel(target=target, table=table, key=key, item=found.get("Item"), stamp=stamp)
            self._written[region, parcel.place] = stamp
            copy = Copy(
                source=region, target=target, name=str(parcel.place), deliver=partial(self._deliver, parcel)
            )  # fmt: skip
            self._queue.add(copy, after_s=self._lag_s() * random.uniform(0.5, 1.0))  # not a secret  # nosec B311

    def _key_of(self, region: str, table: str) -> tuple[str, ...]:
        if (region, table) not in self._keys:
            described = self._call(region, "DescribeTable", {"TableName": table}) or {}
            self._keys[region, table] = tuple(part["AttributeName"] for part in described["Table"]["KeySchema"])
        return self._keys[region, table]

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
