"""Brings the region's history up to what other regions published, and removes runs that no region needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, func, select, tuple_, update

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.bookkeeping import RunRow
from airflow_provider_mwaa_dr.core.ledger import AUTOMATED, CreatedIntervals, LedgerRun, mark_of
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.foreign_runs import Translation, notes_of
from airflow_provider_mwaa_dr.plugins.metadata.insertion import (
    insert_runs,
    insert_tasks,
    insertable,
    is_partition,
    next_dagrun,
    no_next_dagrun,
)
from airflow_provider_mwaa_dr.plugins.metadata.notes import put_note
from airflow_provider_mwaa_dr.plugins.metadata.runs import ROW, is_skipped, to_row
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    DAGS,
    ENDED,
    LOGICAL_DATE,
    MARK,
    NOTES,
    PARTITION_DATE,
    RUNS,
    TASKS,
)
from airflow_provider_mwaa_dr.plugins.metadata.tasks import task_states
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction


def adopt(runs: Sequence[LedgerRun], note: str) -> int:
    """
    Write runs that ended in another region into the history, with *note* on each; return how many were new.

    Ignores a run that exists, a run whose logical date or partition another run has, and a run that is older than the
    DAG's newest interval. Exception: a run that exists, has ended, and comes with tasks gets the result and the task
    states of the other region. A version before 3.2 adopts no partition. A run of another era of Airflow is adopted as
    the run that this Airflow would have created.
    """
    adopted = 0
    for batch in batched(runs, BATCH):
        with transaction() as session:
            connection = session.connection()
            translation = Translation(session, batch)
            taken = translation.taken
            rows = [translation.to_adopt(run) for run in batch]
            is_current = _currency(connection, rows)
            current = [run for run in rows if is_current(run)]
            new, _ = insertable(current, taken)
            insert_runs(connection, new, state=None, note=note, notes=notes_of(batch, rows, note))
            skipped = {run.key for run in current if translation.is_skipped(run)}
            present = [run for run in current if run.key in skipped or (run.tasks and run.key in taken.runs)]
            tasks = task_states(connection, [run.key for run in present]) if present else {}
            for run in present:
                is_changed = taken.runs[run.key] != run.status.value or set(tasks.get(run.key, ())) != set(run.tasks)
                if is_changed or run.key in skipped:
                    _apply_result(connection, run, note)
            adopted += len(new)
    return adopted


def _currency(connection: Any, runs: Sequence[LedgerRun]) -> Callable[[LedgerRun], bool]:
    """Return a function that tells whether one of *runs* is at least as new as all intervals of its DAG."""
    intervals = _newest(connection, [run.dag_id for run in runs if run.run_type in AUTOMATED], MARK)
    dates = _newest(connection, [run.dag_id for run in runs if run.run_type not in AUTOMATED], LOGICAL_DATE)
    partitions = _newest(connection, [run.dag_id for run in runs if is_partition(run)], PARTITION_DATE)

    def is_current(run: LedgerRun) -> bool:
        if is_partition(run):
            return PARTITION_DATE is not None and _is_at_least(run.partition_date, partitions.get(run.dag_id))
        if run.run_type in AUTOMATED:
            return _is_at_least(mark_of(run), intervals.get(run.dag_id))
        return _is_at_least(run.logical_date, dates.get(run.dag_id))

    return is_current


def _is_at_least(at: datetime | None, newest: datetime | None) -> bool:
    return at is None or newest is None or newest <= at


def _newest(connection: Any, dag_ids: Collection[str], date: Any) -> dict[str, datetime]:
    """Return the newest *date* of the scheduled runs and runs of backfills of each DAG that has one."""
    if not dag_ids or date is None:
        return {}
    query = (
        select(RUNS.c.dag_id, func.max(date).label("at"))
        .where(RUNS.c.dag_id.in_(sorted(set(dag_ids))), RUNS.c.run_type.in_(AUTOMATED))
        .group_by(RUNS.c.dag_id)
    )
    return {row.dag_id: row.at for row in connection.execute(query) if row.at is not None}


def apply_outcomes(runs: Sequence[LedgerRun], note: str) -> None:
    """Give closed runs, and their tasks if the ledger has them, the result that another region published."""
    for batch in batched(runs, BATCH):
        with transaction() as session:
            connection = session.connection()
            for run in batch:
                _apply_result(connection, run, note)


def _apply_result(connection: Any, run: LedgerRun, note: str) -> None:
    """Give an ended run the result, and its tasks the states, that another region published; idempotent."""
    row = connection.execute(
        select(RUNS.c.id, RUNS.c.state)
        .where(RUNS.c.dag_id == run.dag_id, RUNS.c.run_id == run.run_id, RUNS.c.state.in_(ENDED))
        .with_for_update()
    ).first()
    if row is None:
        return
    connection.execute(update(RUNS).where(RUNS.c.id == row.id).values(state=run.status.value))
    put_note(connection, row.id, note)
    if not run.tasks:
        return
    of_run = and_(TASKS.c.dag_id == run.dag_id, TASKS.c.run_id == run.run_id)
    own = {
        (task.task_id, task.map_index): task.state
        for task in connection.execute(select(TASKS.c.task_id, TASKS.c.map_index, TASKS.c.state).where(of_run))
    }
    published = {(task_id, map_index): state for task_id, map_index, state in run.tasks}
    by_state = defaultdict(list)
    for key, state in published.items():
        if key in own and own[key] != state:
            by_state[state].append(key)
    for state, keys in by_state.items():
        for some in batched(keys, BATCH):
            connection.execute(update(TASKS).where(of_run, _task_in(some)).values(state=state))
    for some in batched([key for key in own if key not in published], BATCH):
        connection.execute(delete(TASKS).where(of_run, _task_in(some)))
    missing = tuple(task for task in run.tasks if task[:2] not in own)
    insert_tasks(connection, [replace(run, tasks=missing)])


def _task_in(keys: Sequence[tuple[str, int]]) -> Any:
    return tuple_(TASKS.c.task_id, TASKS.c.map_index).in_(keys)


def forget_closed(exempt: Exemption, created: Mapping[str, CreatedIntervals]) -> int:
    """
    Delete intervals that the provider closed in a standby before a task executed; return how many.

    :param created: for each DAG id, what regions have created of the DAG.
    """
    query = select(*ROW).where(
        RUNS.c.run_type.in_(AUTOMATED),
        is_skipped(),
        ~exempt.covers(RUNS.c.dag_id),
    )
    with transaction() as session:
        connection = session.connection()
        rows = [
            row
            for row in map(to_row, connection.execute(query).all())
            if row.dag_id in created and _is_after(row, created[row.dag_id])
        ]
        for batch in batched(rows, BATCH):
            keys = [(row.dag_id, row.run_id) for row in batch]
            ids = [row.id for row in batch]
            connection.execute(delete(TASKS).where(tuple_(TASKS.c.dag_id, TASKS.c.run_id).in_(keys)))
            connection.execute(delete(NOTES).where(NOTES.c.dag_run_id.in_(ids)))
            connection.execute(delete(RUNS).where(RUNS.c.id.in_(ids)))
        # The scheduler continues after the newest run that remains.
        partitioned = {row.dag_id for row in rows if row.partition_key is not None}
        for dag_id in sorted({row.dag_id for row in rows} - partitioned):
            _continue_after_newest(connection, dag_id)
        if partitioned:
            connection.execute(update(DAGS).where(DAGS.c.dag_id.in_(sorted(partitioned))).values(no_next_dagrun()))
        return len(rows)


def _is_after(row: RunRow, created: CreatedIntervals) -> bool:
    """Whether no region has created the interval of the row."""
    if row.partition_key is not None:
        at, newest = row.partition_date, created.newest_partition
    else:
        at, newest = row.logical_date, created.newest
    return at is not None and (newest is None or at > newest) and at not in created.held


def _continue_after_newest(connection: Any, dag_id: str) -> None:
    newest = connection.execute(
        select(*ROW)
        .where(RUNS.c.dag_id == dag_id, RUNS.c.run_type.in_(AUTOMATED))
        .order_by(LOGICAL_DATE.desc())
        .limit(1)
    ).first()
    if newest is None:
        # Airflow computes these values at the next parse of the file.
        values: dict[str, Any] = no_next_dagrun()
    else:
        values = next_dagrun(to_row(newest))
    connection.execute(update(DAGS).where(DAGS.c.dag_id == dag_id).values(values))
