"""
A scheduler of the installed Airflow that starts as usual. Then the agent of the gate takes some turns in it.

It runs as ``python -m tests.airflow.metrics_in_scheduler``, because Airflow reads only once a process whether metrics
are on.
"""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.state import initial
from airflow_provider_mwaa_dr.plugins.gate import Gate
from airflow_provider_mwaa_dr.testing import InMemoryStateStore

HERE = "us-east-1"


def main() -> None:
    """Start what a scheduler starts, and let the agent take its turns instead of the scheduler's loop."""
    now = datetime.now(tz=timezone.utc)
    store = InMemoryStateStore(initial(HERE, lease_s=60, by="t", at=now), regions=(HERE,))
    conf.state_store = lambda config, clock: store  # type: ignore[assignment]
    config = DRConfig(enabled=True, region=HERE, state_table="t", environments={})
    job = SimpleNamespace(id=1, job_type="SchedulerJob", latest_heartbeat=now)
    gate = Gate(config=config, job=job, clock=SystemClock())
    agent = gate._make_loop()
    # The agent starts first: from 3.2 on, Airflow has no metrics at this point, and drops what is sent now.
    agent.turn()
    # No executors: they would fork processes only to end them.
    its_job = Job()
    its_job.__dict__["executors"] = []
    scheduler = SchedulerJobRunner(its_job)
    scheduler.executors = []

    def loop() -> None:
        gate._counts.held = 3
        agent._heartbeat._next_at = 0.0
        agent.turn()

    scheduler._run_scheduler_loop = loop
    scheduler._execute()
    print(f"HEARTBEATS {agent._heartbeat.written}")


if __name__ == "__main__":
    main()
