"""
Use the state in your own DAG: names that depend on the region, and a step for the active region only.

The provider already prevents a standby from executing any task. With the hook your tasks read which region they run in,
and check that this region is still active before a step that cannot be undone.
"""

from __future__ import annotations

from datetime import datetime, timezone

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task

BUCKETS = {"us-east-2": "orders-ohio", "us-east-1": "orders-virginia"}

with DAG(
    dag_id="dr_aware_dag",
    description="The state hook inside a user's own DAG",
    doc_md=__doc__,
    schedule="@daily",
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["dr"],
) as dag:

    @task
    def extract() -> str:
        """Choose the bucket of this region."""
        from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook  # noqa: PLC0415

        region = DRStateHook().own_region
        bucket = BUCKETS.get(region, "orders-default")
        print(f"Reading orders from {bucket} in {region}")
        return bucket

    @task.short_circuit
    def still_active() -> bool:
        """Read the state again before the step that cannot be undone. An unknown state fails the task."""
        from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook  # noqa: PLC0415

        return DRStateHook().is_active()

    @task
    def publish(bucket: str) -> None:
        """Publish the result, a step that cannot be undone."""
        print(f"Publishing the orders from {bucket}")

    bucket = extract()
    bucket >> still_active() >> publish(bucket)
