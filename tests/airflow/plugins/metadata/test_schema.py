"""Airflow's tables in the installed version; each difference has its effect in the tests of this folder."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


def test_a_new_row_has_only_columns_that_this_version_has(database: Database) -> None:
    """Callers name the columns of all versions."""
    from airflow_provider_mwaa_dr.plugins.metadata.schema import LOGICAL_DATE, RUNS, existing_columns

    values = {"logical_date": 1, "execution_date": 2, "run_after": 3, "external_trigger": 4, "no_such_column": 5}
    found = existing_columns(RUNS, values)
    assert set(found) == set(values) & set(RUNS.c.keys())
    assert LOGICAL_DATE.name in found


def test_a_run_is_queued_by_the_date_by_which_airflow_sorts_it() -> None:
    """From Airflow 3 on, a run may have no logical date."""
    from airflow_provider_mwaa_dr.plugins.metadata.schema import LOGICAL_DATE, QUEUE_DATE, queue_date

    at = datetime(2026, 11, 1, tzinfo=timezone.utc)
    assert queue_date(SimpleNamespace(**{QUEUE_DATE.name: at})) == at
    no_date = queue_date(SimpleNamespace(**{LOGICAL_DATE.name: None}))
    assert timedelta(0) <= datetime.now(tz=timezone.utc) - no_date


def test_a_dag_at_its_limit_gets_its_next_run(database: Database, gates: Any) -> None:
    """With max_active_runs=1, Airflow marks the DAG as full until the run ends by itself. A skipped run never does."""
    try:
        from airflow.sdk import DAG
    except ImportError:
        from airflow import DAG
    if not hasattr(database.DagModel, "exceeds_max_non_backfill"):
        from airflow.models.dag import DAG  # type: ignore[no-redef]

    start = datetime(2026, 11, 1, tzinfo=timezone.utc)
    dag = DAG("orders", schedule="@daily", start_date=start, max_active_runs=1, catchup=True)
    full = {"next_dagrun_create_after": None}
    if hasattr(database.DagModel, "exceeds_max_non_backfill"):
        full = {"exceeds_max_non_backfill": True}
    database.add_dag("orders", **full)
    database.add_run(
        "orders",
        "r1",
        tasks=1,
        run_type="scheduled",
        data_interval_start=start,
        data_interval_end=start + timedelta(days=1),
    )
    database.start("r1", lambda run: gates.skip_run(run, "skipped: standby"), dag=dag)
    row = database.dag("orders")
    if "exceeds_max_non_backfill" in full:
        assert row.exceeds_max_non_backfill is False
    else:
        assert row.next_dagrun_create_after == start + timedelta(days=2)
