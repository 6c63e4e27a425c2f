"""The schedulers in a real metadata database of the installed Airflow."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


def test_live_schedulers_are_listed_oldest_first(database: Database) -> None:
    """The first one leads. Dead schedulers and other components do not count."""
    from airflow.jobs.job import Job

    from airflow_provider_mwaa_dr.plugins.metadata.database import MetadataDb

    jobs = Job.__table__
    now = datetime.now(tz=timezone.utc)
    rows = [
        {"job_type": "SchedulerJob", "state": "running", "latest_heartbeat": now - timedelta(minutes=5)},
        {"job_type": "SchedulerJob", "state": "running", "latest_heartbeat": now},
        {"job_type": "TriggererJob", "state": "running", "latest_heartbeat": now},
        {"job_type": "SchedulerJob", "state": "success", "latest_heartbeat": now},
        {"job_type": "SchedulerJob", "state": "running", "latest_heartbeat": now},
    ]
    with database.settings.engine.begin() as connection:
        connection.execute(jobs.delete())
        ids = [connection.execute(jobs.insert().values(row)).inserted_primary_key[0] for row in rows]
    job = Job()
    job.id, job.job_type, job.latest_heartbeat = ids[1], "SchedulerJob", now
    db = MetadataDb(job, exempt_dags=())
    assert db.alive_schedulers() == (str(ids[1]), str(ids[4]))
    assert (db.job_id, db.is_scheduler, db.pulse()) == (str(ids[1]), True, now)
