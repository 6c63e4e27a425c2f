"""The schedulers of this region's Airflow."""

from __future__ import annotations

from datetime import timedelta

from airflow.configuration import conf
from sqlalchemy import select

from airflow_provider_mwaa_dr.plugins.metadata.schema import JOBS
from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction, utc_now


def alive_schedulers() -> tuple[str, ...]:
    """Return the job ids of all schedulers that Airflow counts as alive, oldest first."""
    threshold_s = conf.getint("scheduler", "scheduler_health_check_threshold", fallback=30)
    with transaction() as session:
        ids = session.execute(
            select(JOBS.c.id)
            .where(
                JOBS.c.job_type == "SchedulerJob",
                JOBS.c.state == "running",
                JOBS.c.latest_heartbeat > utc_now() - timedelta(seconds=threshold_s),
            )
            .order_by(JOBS.c.id)
        ).scalars()
        return tuple(str(job_id) for job_id in ids)
