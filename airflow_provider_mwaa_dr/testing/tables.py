"""Descriptions of tables."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.ports import (
    TableDescription,
)
from airflow_provider_mwaa_dr.exceptions import (
    StateAccessError,
    TableNotFoundError,
)


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
