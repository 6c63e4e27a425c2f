"""
Check every morning whether a failover would succeed. The message of a failed run says what to do.

Deploy it in the same environment as dr_failover and unpause it, so that it uses the permissions of a failover. It is
useful in the regions themselves, too: the tag ``dr:control`` lets it run in the standby, and its task shows that the
fence is loaded in the standby's workers. The roles of the regions need the permissions that
docs/how-to/check-readiness.md lists, and no permission to fail over.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.operators.readiness import ReadinessOperator

# An environment of the DR set should not have the permission to fail over; a control environment should.
accepted = ["rights"] if conf.load().enabled else []

with DAG(
    dag_id="dr_readiness",
    description="Check whether a failover would succeed",
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
        # Airflow retries only if the state table did not answer. A failed check is not retried.
        retries=2,
        retry_delay=timedelta(minutes=1),
    )
