"""The history in the runs table, as a port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from airflow_provider_mwaa_dr.core.history.pages import HistoryPage, ImportCursor


class HistoryStore(Protocol):
    """
    The history in the runs table: the pages and cursors of each site. A site writes only its own.

    Every method may raise StateUnreachableError, StateAccessError or TableNotFoundError.
    """

    def append_page(self, site: str, page: HistoryPage) -> None:
        """
        Write a page. Idempotent for the same page.

        :raises StaleLedgerError: another page has that number, so another agent also writes for the site.
        """

    def pages(self, site: str, *, after: int) -> Sequence[HistoryPage]:
        """Return the pages with a number above *after*, in order: the first of them, not always all."""

    def page(self, site: str, number: int) -> HistoryPage | None:
        """Return one page; None if there is none, or if it has expired."""

    def last_page(self, site: str) -> HistoryPage | None:
        """Return the page with the highest number; None if there is none."""

    def cursor(self, site: str, source: str) -> ImportCursor:
        """Return how far *site* has imported the history of *source*; the default cursor if there is none."""

    def save_cursor(self, site: str, source: str, cursor: ImportCursor) -> None:
        """Replace the cursor."""
