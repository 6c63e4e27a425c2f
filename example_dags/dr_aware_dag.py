"""
Use the state in a DAG of your own: names that depend on the region, and a step for the active region only.

The provider already keeps a standby from executing anything. The hook is for what your tasks want to know: which
region they are in, and whether they still have the role before they do what cannot be taken back.
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
        """Choose what lies in this region."""
        from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook  # noqa: PLC0415

        region = DRStateHook().own_region
        bucket = BUCKETS.get(region, "orders-elsewhere")
        print(f"Reading orders from {bucket} in {region}")
        return bucket

    @task.short_circuit
    def still_active() -> bool:
        """Look once more before the step that others see; an unknown state fails the task, it never guesses."""
        from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook  # noqa: PLC0415

        return DRStateHook().is_active()

    @task
    def publish(bucket: str) -> None:
        """Tell the world."""
        print(f"Publishing what was read from {bucket}")

    bucket = extract()
    bucket >> still_active() >> publish(bucket)
