"""A site's history in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

from airflow_provider_mwaa_dr.aws.dynamodb import history_store
from airflow_provider_mwaa_dr.core.history.pages import HistoryPage, ImportCursor
from airflow_provider_mwaa_dr.exceptions import StaleLedgerError, StateError, StateUnreachableError
from airflow_provider_mwaa_dr.testing._stored_items import TABLE, check_limits


class InMemoryHistoryStore:
    """
    A :class:`~airflow_provider_mwaa_dr.core.history.store.HistoryStore` in memory; thread-safe, each call atomic.

    Pages and cursors are stored as items of a table, within DynamoDB's limits.

    :ivar unreachable: while True, every call raises StateUnreachableError and changes nothing.
    :ivar refusal: while set, every call raises this error and changes nothing, as for missing permissions.
    :ivar calls: names of the called methods, in order.
    """

    def __init__(self, *, days: int = 30) -> None:
        self._lock = threading.RLock()
        self._pages: dict[str, dict[int, HistoryPage]] = {}
        self._cursors: dict[tuple[str, str], ImportCursor] = {}
        self._days = days
        self.unreachable = False
        self.refusal: StateError | None = None
        self.calls: list[str] = []

    def peer(self) -> InMemoryHistoryStore:
        """Return a store of another caller for the same table. Its faults are separate."""
        other = InMemoryHistoryStore(days=self._days)
        other._lock, other._pages, other._cursors = self._lock, self._pages, self._cursors
        return other

    def expire(self, site: str, number: int) -> None:
        """Let a page of *site* expire."""
        with self._lock:
            self._pages.get(site, {}).pop(number, None)

    def _reach(self, method: str) -> AbstractContextManager[bool]:
        self.calls.append(method)
        if self.unreachable:
            raise StateUnreachableError(f"The runs table did not answer {method}: unreachable is set.")
        if self.refusal is not None:
            raise self.refusal
        return self._lock

    def append_page(self, site: str, page: HistoryPage) -> None:
        """Write a page. :raises StaleLedgerError: another page has that number."""
        with self._reach("append_page"):
            item = history_store.page_to_item(site, page, days=self._days)
            check_limits(item, key=("pk", "sk"))
            stored = history_store.page_from_item(item, table=TABLE)
            there = self._pages.setdefault(site, {}).setdefault(page.number, stored)
            if there != stored:
                raise StaleLedgerError(f"Page {page.number} of the history of {site} exists already.")

    def pages(self, site: str, *, after: int) -> Sequence[HistoryPage]:
        """Return the pages above *after*, in order; at most 20."""
        with self._reach("pages"):
            of_site = self._pages.get(site, {})
            return [of_site[number] for number in sorted(of_site) if number > after][:20]

    def page(self, site: str, number: int) -> HistoryPage | None:
        """Return one page; None if there is none."""
        with self._reach("page"):
            return self._pages.get(site, {}).get(number)

    def last_page(self, site: str) -> HistoryPage | None:
        """Return the page with the highest number; None if there is none."""
        with self._reach("last_page"):
            of_site = self._pages.get(site, {})
            return of_site[max(of_site)] if of_site else None

    def cursor(self, site: str, source: str) -> ImportCursor:
        """Return how far *site* has imported the history of *source*."""
        with self._reach("cursor"):
            return self._cursors.get((site, source), ImportCursor())

    def save_cursor(self, site: str, source: str, cursor: ImportCursor) -> None:
        """Replace the cursor."""
        with self._reach("save_cursor"):
            item = history_store.cursor_to_item(site, source, cursor)
            check_limits(item, key=("pk", "sk"))
            self._cursors[site, source] = history_store.cursor_from_item(item)
