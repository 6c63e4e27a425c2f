"""
Check every morning whether a failover would go well; a red run says what to do.

Deploy it where dr_failover is and unpause it, so that it is checked with the rights with which you would fail over. In
the regions themselves it is of use, too: its tag ``dr:control`` lets it run in the standby, where it is the task that
shows that the fence is loaded in the workers. Their roles need what the README lists for a check, and no right to fail
over.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.operators.readiness import ReadinessOperator

# An environment of the set is not to have the right to flip; a control environment is.
accepted = ["rights"] if conf.load().enabled else []

with DAG(
    dag_id="dr_readiness",
    description="Check whether a failover would go well",
    doc_md=__doc__,
    schedule="0 6 * * *",
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["dr", "dr:control"],
) as dag:
    ReadinessOperator(
        task_id="check",
        accept=accepted,
        # Only what keeps a state table from answering is tried again; a check that failed would fail again.
        retries=2,
        retry_delay=timedelta(minutes=1),
    )
