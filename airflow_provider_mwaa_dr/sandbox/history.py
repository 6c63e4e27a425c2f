"""
``python -m airflow_provider_mwaa_dr.sandbox.history DAG_ID START``: give a DAG of the drill a history.

Runs in the environment of a region's own Airflow, which stores the runs as if it had executed them.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from types import SimpleNamespace

from airflow_provider_mwaa_dr.core.ledger import SCHEDULED, LedgerRun, RunStatus

RUNS = 1000
EVERY = timedelta(seconds=10)
OFFSET = timedelta(seconds=8)


def history(dag_id: str, *, start: datetime) -> list[LedgerRun]:
    """Return finished runs, the last one ten seconds before *start*, as the DAG's cron trigger makes them."""
    dates = [start + OFFSET - number * EVERY for number in range(RUNS, 0, -1)]
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


def main(dag_id: str, start: str) -> None:
    """Write the history into the metadata database of the Airflow that this process belongs to."""
    from airflow_provider_mwaa_dr.plugins.metadata_db import MetadataDb  # noqa: PLC0415

    runs = history(dag_id, start=datetime.fromisoformat(start))
    written = MetadataDb(SimpleNamespace(), exempt_dags=()).adopt(runs, "of the drill")
    print(f"{written} runs of {dag_id} are in the history")


if __name__ == "__main__":
    main(*sys.argv[1:])
