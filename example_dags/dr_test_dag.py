"""
Print every ten minutes where this DAG runs: the quickest check that only the active region executes tasks.

Deploy it in every region, and unpause it in the active region. A failover triggers it once in the new region and waits
for the run.
"""

from __future__ import annotations

from datetime import datetime, timezone

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task

with DAG(
    dag_id="dr_test_dag",
    description="Print region, role and epoch",
    doc_md=__doc__,
    schedule="*/10 * * * *",
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["dr"],
) as dag:

    @task
    def print_region(dag_run=None, ti=None) -> dict[str, str | int]:
        """Print where this task runs, and the role of that region."""
        import os  # noqa: PLC0415
        import socket  # noqa: PLC0415

        from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook  # noqa: PLC0415

        hook = DRStateHook()
        state = hook.active_state()
        region = hook.own_region
        role = "ACTIVE" if state.active_region == region else "STANDBY"
        print(f"This DAG is running in: {region}")
        print(f"Role: {role} (active region: {state.active_region}, phase: {state.phase.value})")
        print(f"Epoch: {state.epoch}, version: {state.version}, last updated: {state.last_updated.isoformat()}")
        print(f"Environment: {os.environ.get('AIRFLOW_ENV_NAME', 'not set')}, host: {socket.gethostname()}")
        print(f"Run: {dag_run.run_id} ({dag_run.run_type}), try: {ti.try_number}")
        print(f"Data interval: {dag_run.data_interval_start} to {dag_run.data_interval_end}")
        return {"region": region, "role": role, "epoch": state.epoch}

    print_region()
