"""
``python -m airflow_provider_mwaa_dr.sandbox.drill.history START RUNS DAG_ID=OFFSET ...``: write a history for DAGs.

Runs in the environment of a region's own Airflow, which stores the runs as if it had executed them. Without such a run,
a DAG with catchup would continue after the runs of an earlier drill in the same sandbox.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from types import SimpleNamespace

from airflow_provider_mwaa_dr.core.ledger import SCHEDULED, LedgerRun, RunStatus

EVERY = timedelta(seconds=10)


def history(dag_id: str, *, start: datetime, runs: int, offset_s: int) -> list[LedgerRun]:
    """Return *runs* finished runs with the dates of the DAG's cron trigger. The last one is just before *start*."""
    dates = [start + timedelta(seconds=offset_s) - number * EVERY for number in range(runs, 0, -1)]
    return [
        LedgerRun(
            dag_id=dag_id,
            run_id=f"{SCHEDULED}__{at.isoformat()}",
            run_type=SCHEDULED,
            status=RunStatus.SUCCESS,
            epoch=0,
            logical_date=at,
            data_interval_start=at,
            data_interval_end=at,
            run_after=at,
        )
        for at in dates
    ]


def main(start: str, runs: str, *dags: str) -> None:
    """Write the histories into this Airflow's metadata database."""
    from airflow_provider_mwaa_dr.plugins.metadata.database import MetadataDb  # noqa: PLC0415

    database = MetadataDb(SimpleNamespace(), exempt_dags=())
    for dag_id, offset in (dag.split("=") for dag in dags):
        past = history(dag_id, start=datetime.fromisoformat(start), runs=int(runs), offset_s=int(offset))
        print(f"wrote {database.adopt(past, 'of the drill')} runs of {dag_id} into the history")


if __name__ == "__main__":
    main(*sys.argv[1:])
