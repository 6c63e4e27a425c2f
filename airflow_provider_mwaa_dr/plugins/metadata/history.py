"""Brings the region's history up to what other regions published, and removes runs that no region needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, select, tuple_, update

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.bookkeeping import RunRow
from airflow_provider_mwaa_dr.core.ledger import AUTOMATED, LedgerRun, RunKey, RunStatus, mark_of
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.foreign_runs import Translation, notes_of
from airflow_provider_mwaa_dr.plugins.metadata.imported import drop_imported, is_local, keep_imported
from airflow_provider_mwaa_dr.plugins.metadata.insertion import (
    insert_runs,
    insert_tasks,
    insertable,
    is_partition,
    next_dagrun,
    no_next_dagrun,
)
from airflow_provider_mwaa_dr.plugins.metadata.notes import put_note
from airflow_provider_mwaa_dr.plugins.metadata.own_ends import (
    delete_runs,
    ids_of_own_ends,
    is_marked,
    is_own_end,
    is_skipped,
    own_ends_of,
    release,
)
from airflow_provider_mwaa_dr.plugins.metadata.runs import ROW, key_in, to_row
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    DAGS,
    ENDED,
    LOGICAL_DATE,
    MARK,
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
    DAG's newest interval. Two exceptions: a run that succeeded after all successes of the DAG is written, because the
    next runs look back at it. And a run that this region ended as a standby, or one that has ended and comes with
    tasks, gets the result and the task states of the other region. A version before 3.2 adopts no partition. A run of
    another era of Airflow is adopted as the run that this Airflow would have created.
    """
    adopted = 0
    for batch in batched(runs, BATCH):
        with transaction() as session:
            adopted += _adopt(session, batch, note)
    return adopted


def _adopt(session: Any, runs: Sequence[LedgerRun], note: str) -> int:
    connection = session.connection()
    translation = Translation(session, runs)
    taken = translation.taken
    rows = [translation.to_adopt(run) for run in runs]
    is_current = _currency(connection, rows)
    is_success = _last_successes(connection, rows)
    wanted = [run for run in rows if is_current(run) or is_success(run)]
    new, _ = insertable(wanted, taken)
    of_look_backs = {run.key for run in new if not is_current(run)}
    kept = keep_imported(connection, [run for run in new if run.key in of_look_backs])
    inserted = [run for run in new if run.key not in kept]
    drop_imported(connection, inserted)
    notes = notes_of(runs, rows, note)
    insert_runs(connection, inserted, state=None, note=note, notes=notes, but_next_run=of_look_backs)
    skipped = {run.key for run in wanted if translation.is_skipped(run)}
    own_ends = skipped | own_ends_of(connection, [run.key for run in rows if run.key in taken.runs])
    present = [run for run in rows if run.key in own_ends or (run.tasks and run.key in taken.runs and is_current(run))]
    tasks = task_states(connection, [run.key for run in present]) if present else {}
    for run in present:
        is_changed = taken.runs[run.key] != run.status.value or set(tasks.get(run.key, ())) != set(run.tasks)
        if is_changed or run.key in own_ends:
            _apply_result(connection, run, note)
    return len(new)


def _currency(connection: Any, runs: Sequence[LedgerRun]) -> Callable[[LedgerRun], bool]:
    """
    Return a function that tells whether one of *runs* is at least as new as all intervals of its DAG.

    Intervals that this region skipped do not count.
    """
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


def _last_successes(connection: Any, runs: Sequence[LedgerRun]) -> Callable[[LedgerRun], bool]:
    """
    Return a function that tells whether one of *runs* succeeded after all other runs of its DAG that did.

    An interval is compared with intervals: a run with a date in between looks back at it.
    """
    dag_ids = sorted({run.dag_id for run in runs if run.status is RunStatus.SUCCESS})

    def newest(*conditions: Any) -> dict[str, datetime]:
        query = (
            select(RUNS.c.dag_id, func.max(LOGICAL_DATE).label("at"))
            .where(RUNS.c.dag_id.in_(dag_ids), RUNS.c.state == "success", ~is_own_end(), is_local(), *conditions)
            .group_by(RUNS.c.dag_id)
        )
        return {row.dag_id: row.at for row in connection.execute(query)} if dag_ids else {}

    of_all, of_intervals = newest(), newest(RUNS.c.run_type.in_(AUTOMATED))

    def is_success(run: LedgerRun) -> bool:
        is_dated = run.status is RunStatus.SUCCESS and run.logical_date is not None and not is_partition(run)
        known = of_intervals if run.run_type in AUTOMATED else of_all
        return is_dated and _is_at_least(run.logical_date, known.get(run.dag_id))

    return is_success


def _is_at_least(at: datetime | None, newest: datetime | None) -> bool:
    return at is None or newest is None or newest <= at


def _newest(connection: Any, dag_ids: Collection[str], date: Any) -> dict[str, datetime]:
    """Return the newest *date* of the scheduled runs and runs of backfills of each DAG that has one."""
    if not dag_ids or date is None:
        return {}
    query = (
        select(RUNS.c.dag_id, func.max(date).label("at"))
        .where(RUNS.c.dag_id.in_(sorted(set(dag_ids))), RUNS.c.run_type.in_(AUTOMATED), ~is_skipped(), is_local())
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
        .where(RUNS.c.dag_id == run.dag_id, RUNS.c.run_id == run.run_id, RUNS.c.state.in_(ENDED), is_local())
        .with_for_update()
    ).first()
    if row is None:
        return
    values: dict[str, Any] = {"state": run.status.value, "last_scheduling_decision": None}
    dates = {"start_date": run.started_at, "end_date": run.ended_at}
    values |= {name: at for name, at in dates.items() if at is not None}
    connection.execute(update(RUNS).where(RUNS.c.id == row.id).values(values))
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


def own_ends(exempt: Exemption, *, above: int, up_to: int, limit: int) -> list[RunRow]:
    """Return the first runs, by id, that the provider ended, with an id above *above* and up to *up_to*."""
    found: list[RunRow] = []
    with transaction() as session:
        connection = session.connection()
        for batch in batched(ids_of_own_ends(connection, exempt, above=above, up_to=up_to, limit=limit), BATCH):
            found += [to_row(row) for row in connection.execute(select(*ROW).where(RUNS.c.id.in_(batch)))]
    return sorted(found, key=lambda row: row.id)


def drop_own_ends(row_ids: Collection[int], runs: Sequence[LedgerRun], note: str) -> int:
    """
    Delete runs that the provider ended and that executed nothing; return how many. Idempotent.

    In the same transaction adopt those of *runs* that belong to their DAGs. The scheduler continues after the newest
    run that remains.
    """
    dropped = 0
    for batch in batched(sorted(row_ids), BATCH):
        with transaction() as session:
            connection = session.connection()
            rows = delete_runs(connection, batch)
            dag_ids = {row.dag_id for row in rows}
            _adopt(session, [run for run in runs if run.dag_id in dag_ids], note)
            intervals = [row for row in rows if row.run_type in AUTOMATED]
            partitioned = {row.dag_id for row in intervals if row.partition_key is not None}
            if dated := sorted({row.dag_id for row in intervals} - partitioned):
                _continue_after_newest(connection, dated)
            if partitioned:
                of_dags = DAGS.c.dag_id.in_(sorted(partitioned))
                connection.execute(update(DAGS).where(of_dags).values(no_next_dagrun()))
            dropped += len(rows)
    return dropped


def keep_own_ends(notes: Mapping[int, str]) -> None:
    """Make the ends of these rows results: the rows stay failed, with these notes. Idempotent."""
    for batch in batched(sorted(notes), BATCH):
        with transaction() as session:
            connection = session.connection()
            release(connection, batch)
            for row_id in batch:
                put_note(connection, row_id, notes[row_id])


def explain(notes: Mapping[RunKey, str]) -> None:
    """Write notes on those runs that the provider ended."""
    for batch in batched(sorted(notes), BATCH):
        with transaction() as session:
            connection = session.connection()
            query = select(RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id).where(key_in(batch), is_marked())
            for row in connection.execute(query).all():
                put_note(connection, row.id, notes[row.dag_id, row.run_id])


def _continue_after_newest(connection: Any, dag_ids: Collection[str]) -> None:
    """Let the scheduler continue after the newest interval of each DAG; as many statements for one DAG as for many."""
    newest = (
        select(RUNS.c.dag_id, func.max(LOGICAL_DATE).label("at"))
        .where(RUNS.c.dag_id.in_(dag_ids), RUNS.c.run_type.in_(AUTOMATED), is_local())
        .group_by(RUNS.c.dag_id)
        .subquery()
    )
    query = select(*ROW).join(newest, and_(RUNS.c.dag_id == newest.c.dag_id, LOGICAL_DATE == newest.c.at))
    values = {row.dag_id: next_dagrun(to_row(row)) for row in connection.execute(query)}
    if values:
        names = next(iter(values.values()))
        connection.execute(
            update(DAGS)
            .where(DAGS.c.dag_id == bindparam("of_dag"))
            .values({name: bindparam(f"new_{name}") for name in names}),
            [{"of_dag": dag_id, **{f"new_{name}": at for name, at in of.items()}} for dag_id, of in values.items()],
        )
    if without := sorted(set(dag_ids) - values.keys()):
        # Airflow computes these values at the next parse of the file.
        connection.execute(update(DAGS).where(DAGS.c.dag_id.in_(without)).values(no_next_dagrun()))
