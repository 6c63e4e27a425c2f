"""
How this package opens transactions.

Transactions are short, because the scheduler skips the rows that they lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from sqlalchemy.orm import Session

BATCH = 200
"""Runs or DAGs in one transaction or statement."""


@contextlib.contextmanager
def transaction() -> Iterator[Session]:
    """Yield a new session with one transaction: committed at the end, rolled back on an error."""
    from airflow import settings  # noqa: PLC0415  (Airflow makes the engine after this module is imported)

    with Session(bind=settings.engine, autoflush=False, expire_on_commit=False) as session, session.begin():
        yield session


@contextlib.contextmanager
def savepoint(session: Any) -> Iterator[Any]:
    """
    Yield the session's connection inside a savepoint.

    It is a savepoint of the connection and not of the session: ``session.begin_nested`` fires before_commit, and
    Airflow's scheduler then raises "UNEXPECTED COMMIT".
    """
    connection = session.connection()
    with connection.begin_nested():
        yield connection


def utc_now() -> datetime:
    """Return the time, aware."""
    return datetime.now(tz=timezone.utc)
