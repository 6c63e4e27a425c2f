"""
How the provider recognizes runs that it has imported from another site's history.

The *mark* is a value of ``dag_run.last_scheduling_decision`` that no scheduler writes: :data:`IMPORTED`.
:mod:`.own_ends` explains why this column fits. If a user clears the run, Airflow overwrites the mark, and the run is
one of this site.

The ledger does not read imported runs, and its rows replace them: it acts as if they were not there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import and_, delete, or_, select, tuple_, update

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.ledger import AUTOMATED, LedgerRun, RunKey
from airflow_provider_mwaa_dr.plugins.metadata.schema import LOGICAL_DATE, NOTES, PARTITION_KEY, RUNS, TASKS
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH

IMPORTED = datetime(1970, 1, 1, microsecond=2027, tzinfo=timezone.utc)


def is_imported() -> Any:
    """Return the condition that a run was imported, and did not begin again since."""
    decided_at = RUNS.c.last_scheduling_decision
    # Without the first condition, it would be NULL for a run without a decision, and so would its negation.
    return and_(decided_at.is_not(None), decided_at == IMPORTED)


def is_local() -> Any:
    """Return the condition that a run was not imported."""
    decided_at = RUNS.c.last_scheduling_decision
    return or_(decided_at.is_(None), decided_at != IMPORTED)


def drop_imported(connection: Any, runs: Sequence[LedgerRun], keys: Collection[RunKey] = ()) -> None:
    """
    Delete the imported runs that have the id, the date or the partition of one of *runs*, or one of *keys*.

    The caller writes these runs, or lets Airflow create them.
    """
    dates = [(run.dag_id, run.logical_date) for run in runs if run.logical_date is not None]
    partitions = [
        (run.dag_id, run.partition_key) for run in runs if run.partition_key is not None and run.run_type in AUTOMATED
    ]
    searched: list[tuple[Any, list[Any]]] = [
        (tuple_(RUNS.c.dag_id, RUNS.c.run_id), sorted({*(run.key for run in runs), *keys}))
    ]
    searched.append((tuple_(RUNS.c.dag_id, LOGICAL_DATE), sorted(set(dates))))
    if PARTITION_KEY is not None:
        searched.append((tuple_(RUNS.c.dag_id, PARTITION_KEY), sorted(set(partitions))))
    for columns, values in searched:
        for batch in batched(values, BATCH):
            query = select(RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id).where(is_imported(), columns.in_(batch))
            if rows := connection.execute(query.with_for_update(of=RUNS)).all():
                delete_rows(connection, rows)


def keep_imported(connection: Any, runs: Sequence[LedgerRun]) -> set[RunKey]:
    """
    Let the imported rows of ended runs count as adopted, with their tasks; return which of *runs* have one.

    A row of another end of the run does not count.
    """
    ends = {run.key: (run.status.value, run.ended_at) for run in runs}
    columns = (RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id, RUNS.c.state, RUNS.c.end_date)
    kept = {}
    for batch in batched(sorted(ends), BATCH):
        query = select(*columns).where(tuple_(RUNS.c.dag_id, RUNS.c.run_id).in_(batch), is_imported())
        for row in connection.execute(query.with_for_update(of=RUNS)):
            if ends[row.dag_id, row.run_id] == (str(row.state), row.end_date):
                kept[row.id] = row.dag_id, row.run_id
    if kept:
        of_rows = update(RUNS).where(RUNS.c.id.in_(kept))
        connection.execute(of_rows.values(last_scheduling_decision=None))
    return set(kept.values())


def delete_rows(connection: Any, rows: Sequence[Any]) -> None:
    """Delete runs with their tasks and notes. A row has ``id``, ``dag_id`` and ``run_id``."""
    keys = [(row.dag_id, row.run_id) for row in rows]
    ids = [row.id for row in rows]
    connection.execute(delete(TASKS).where(tuple_(TASKS.c.dag_id, TASKS.c.run_id).in_(keys)))
    connection.execute(delete(NOTES).where(NOTES.c.dag_run_id.in_(ids)))
    connection.execute(delete(RUNS).where(RUNS.c.id.in_(ids)))
