"""
Write a marker into the data bucket of the active region every minute, for the DAG ``dr_failover_with_data``.

The bucket is replicated to the other region. If the active region is lost, the age of the newest marker in the other
region shows how much data may be missing there (RPO). No metric of the lost region is needed.

Deploy it in both regions, with the Variable ``dr_data`` of ``dr_failover_with_data``. The tag ``dr:control`` makes it
exempt, so it runs in both regions. In the standby, and without the Variable, its task does nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

try:
    from airflow.sdk import DAG, Variable, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
    from airflow.models import Variable

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook

with DAG(
    dag_id="dr_data_marker",
    description="Write the time into the data bucket of the active region",
    doc_md=__doc__,
    schedule=timedelta(minutes=1),
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    is_paused_upon_creation=True,
    max_active_runs=1,
    tags=["dr", "dr:control"],
) as dag:

    @task
    def write_marker() -> str:
        """Return the time that was written; empty in a standby, and without a bucket."""
        import boto3  # noqa: PLC0415  (it would make each parse of the file slower)

        config = conf.load()
        site = config.region
        bucket = Variable.get("dr_data", {}, deserialize_json=True).get("buckets", {}).get(site)
        if bucket is None or not DRStateHook().is_active():
            return ""
        now = datetime.now(timezone.utc).isoformat()
        s3 = boto3.client("s3", region_name=config.own_aws_region)
        s3.put_object(Bucket=bucket, Key=f"dr-marker/{site}", Body=now.encode())
        return now

    write_marker()
