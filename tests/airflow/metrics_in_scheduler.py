"""
A scheduler of the installed Airflow that sets itself up as always, then has the DR gate's agent take some turns.

Run as ``python -m tests.airflow.metrics_in_scheduler``: Airflow reads once a process whether metrics are on.
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
from airflow_provider_mwaa_dr.plugins import listener
from airflow_provider_mwaa_dr.testing import InMemoryStateStore

HERE = "us-east-1"


def main() -> None:
    """Set up what a scheduler sets up, and let the agent take the place of its loop."""
    now = datetime.now(tz=timezone.utc)
    store = InMemoryStateStore(initial(HERE, lease_s=60, by="t", at=now), regions=(HERE,))
    conf.state_store = lambda config, clock: store  # type: ignore[assignment]
    config = DRConfig(enabled=True, region=HERE, state_table="t", environments={})
    job = SimpleNamespace(id=1, job_type="SchedulerJob", latest_heartbeat=now)
    gate = listener.Gate(config=config, job=job, clock=SystemClock())
    agent = gate._make_loop()
    # The agent is there first: from 3.2 on Airflow has no metrics yet, and what is sent now goes nowhere.
    agent.turn()
    # Without executors, which would fork processes only to end them.
    its_job = Job()
    its_job.__dict__["executors"] = []
    scheduler = SchedulerJobRunner(its_job)
    scheduler.executors = []

    def loop() -> None:
        gate._counts.held = 3
        agent._next_beat = 0.0
        agent.turn()

    scheduler._run_scheduler_loop = loop
    scheduler._execute()
    print(f"HEARTBEATS {agent._beats_written}")


if __name__ == "__main__":
    main()
