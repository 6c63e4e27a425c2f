"""A runs table in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from airflow_provider_mwaa_dr.aws.dynamodb import runs_store
from airflow_provider_mwaa_dr.core.ledger import CheckpointInfo, LogEntry, RegionLedger
from airflow_provider_mwaa_dr.exceptions import (
    IncompleteItemError,
    StaleLedgerError,
    StateError,
    StateUnreachableError,
    UnreadableCheckpointError,
    UnreadableItem,
)
from airflow_provider_mwaa_dr.testing._stored_items import TABLE, check_limits, fault_at


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
        fault = fault_at(
            f"LOG#{region} {number:015}", field="body", found="7 bytes that cannot be unpacked", allowed="JSON"
        )
        with self._lock:
            entries = [entry for entry in self._logs.get(region, []) if entry.number != number]
            entries.append(LogEntry.unreadable_one(number, fault))
            self._logs[region] = sorted(entries, key=lambda entry: entry.number)

    def damage_checkpoint(self, region: str) -> None:
        """Make *region*'s checkpoint unreadable. The next saved checkpoint replaces it."""
        with self._lock:
            self._damaged[region] = fault_at(
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
        check_limits(item, key=("pk", "sk"))
        return runs_store.entry_from_item(item, table=TABLE)

    def _stored_checkpoint(self, region: str, checkpoint: RegionLedger) -> RegionLedger:
        if not self.has_limits:
            return _copy(checkpoint)
        pages, manifest = runs_store.checkpoint_to_items(region, checkpoint)
        for item in (*pages, manifest):
            check_limits(item, key=("pk", "sk"))
        return runs_store.checkpoint_from_items(manifest, pages, table=TABLE)

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
                    fault_at(
                        f"PICTURE#{region} manifest", field="pages", found="0 existing pages", allowed="the 1 pages"
                    )
                )
            if region in self._damaged:
                raise UnreadableCheckpointError(self._damaged[region], number=checkpoint.number)
            return _copy(checkpoint)


def _copy(checkpoint: RegionLedger) -> RegionLedger:
    # A checkpoint is the region's own view of its ledger, so it has no gap.
    return replace(checkpoint, runs=dict(checkpoint.runs), heads=dict(checkpoint.heads), gap=None)
