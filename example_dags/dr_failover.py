"""
Fail over to another region, from the user interface, REST or the command line of a control environment.

Deploy it in a third environment, or in the region that may have to take over; the task refuses to run in the region
being left. Its tag ``dr:control`` exempts it from everything the provider does to other DAGs.

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

# With [dr] environments set, the form offers the regions; without, it takes any and the task knows the registry.
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
            description="The region that is to be active. The one that still is cancels an open failover.",
            **({"enum": regions} if regions else {}),
        ),
        "reason": Param(
            type="string",
            minLength=1,
            maxLength=1000,
            title="Reason",
            description="Kept in the state and in the record.",
        ),
        "mode": Param(
            "auto",
            type="string",
            enum=["auto", "graceful", "forced"],
            title="Mode",
            description="graceful drains the active region first; forced goes on without it; auto is graceful and "
            "turns forced when the active region does not answer.",
        ),
        "stop_running": Param(
            False,
            type="boolean",
            title="Stop runs that outlast the drain",
            description="Otherwise such a run makes the failover give up, and the active region goes on.",
        ),
        "even_if_not_ready": Param(
            False,
            type="boolean",
            title="Even if the target is not ready",
            description="Go on although a check of the target failed.",
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
        # A retry goes on with the plan that the try before it left open.
        retries=3,
        retry_delay=timedelta(seconds=15),
    )
