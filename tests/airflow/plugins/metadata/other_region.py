"""Runs of another region, as the ledger has them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunStatus

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

AT = datetime(2026, 10, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def interval(day: float, status: RunStatus = RunStatus.SUCCESS, dag_id: str = "orders", **values: Any) -> LedgerRun:
    """A daily run of another region."""
    at = AT + day * DAY
    run = LedgerRun(
        dag_id=dag_id,
        run_id=f"scheduled__{day}",
        run_type="scheduled",
        status=status,
        epoch=1,
        logical_date=at,
        data_interval_start=at,
        data_interval_end=at + DAY,
        run_after=at + DAY,
        taken_at=datetime.now(tz=timezone.utc) if status is RunStatus.OPEN else None,
    )
    return replace(run, **values)


def open_interval(day: float, **values: Any) -> LedgerRun:
    """A daily run that another region has not finished."""
    return interval(day, RunStatus.OPEN, **values)


def next_dagrun(database: Database, dag_id: str = "orders") -> datetime | None:
    """Return the date of the run that the scheduler creates next."""
    at: datetime | None = database.dag(dag_id).next_dagrun
    return at
