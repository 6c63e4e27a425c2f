"""
Fail over to another region, from the web UI, the REST API or the command line of a control environment.

Deploy it in a third environment, or in the standby that is the target of a failover. The task refuses to run in the
region being left. The tag ``dr:control`` exempts this DAG from all actions of the provider.

``airflow dags test dr_failover -c '{"target_region": "us-east-1", "reason": "drill"}'`` runs it without a scheduler.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

try:
    from airflow.sdk import DAG, Param
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.models.param import Param

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.operators.failover import FailoverOperator

# With [dr] environments set, the form lists the regions. Otherwise it accepts any text, and the task checks it.
regions = sorted(conf.load().environments)

with DAG(
    dag_id="dr_failover",
    description="Make a region the active one",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["dr", "dr:control"],
    params={
        "target_region": Param(
            type="string",
            minLength=1,
            title="Target region",
            description="The region to make active. Name the region that is still active to cancel an open failover.",
            **({"enum": regions} if regions else {}),
        ),
        "reason": Param(
            type="string",
            minLength=1,
            maxLength=1000,
            title="Reason",
            description="Stored in the state and in the record.",
        ),
        "mode": Param(
            "auto",
            type="string",
            enum=["auto", "graceful", "forced"],
            title="Mode",
            description="graceful drains the active region first; forced continues without it; auto starts as graceful "
            "and becomes forced when the active region does not answer.",
        ),
        "stop_running": Param(
            False,
            type="boolean",
            title="Stop runs that are still running when the drain ends",
            description="Otherwise such a run ends the failover: it is abandoned, and the active region continues.",
        ),
        "even_if_not_ready": Param(
            False,
            type="boolean",
            title="Even if the target is not ready",
            description="Continue although a check of the target failed.",
        ),
    },
) as dag:
    FailoverOperator(
        task_id="failover",
        target_region="{{ params.target_region }}",
        reason="{{ params.reason }}",
        mode="{{ params.mode }}",
        stop_running="{{ params.stop_running }}",
        even_if_not_ready="{{ params.even_if_not_ready }}",
        # A retry continues the plan that the previous try left open.
        retries=3,
        retry_delay=timedelta(seconds=15),
    )
