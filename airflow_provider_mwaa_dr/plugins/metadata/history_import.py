"""
Writes runs of another site's history into this site's database.

It writes only rows of runs, task instances and notes. It changes no DAG, so it changes no next run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import DataError, IntegrityError

from airflow_provider_mwaa_dr.core.history.bars import Bar, waits
from airflow_provider_mwaa_dr.core.history.database import Imported
from airflow_provider_mwaa_dr.core.history.pages import HistoryRun, HistoryTask
from airflow_provider_mwaa_dr.core.ledger import AUTOMATED, EVENT_TRIGGERED, LedgerRun, RunKey
from airflow_provider_mwaa_dr.core.translation import original_id
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.foreign_runs import Translation
from airflow_provider_mwaa_dr.plugins.metadata.history_export import history_tasks
from airflow_provider_mwaa_dr.plugins.metadata.imported import IMPORTED, delete_rows, is_imported, is_local
from airflow_provider_mwaa_dr.plugins.metadata.insertion import new_row
from airflow_provider_mwaa_dr.plugins.metadata.notes import compose_note, own_note, user_note
from airflow_provider_mwaa_dr.plugins.metadata.own_ends import is_own_end, is_skipped
from airflow_provider_mwaa_dr.plugins.metadata.runs import key_in
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    DAGS,
    ENDED,
    LOGICAL_DATE,
    MARK,
    NOTES,
    PARTITION_DATE,
    PARTITION_KEY,
    QUEUE_DATE,
    RUNS,
    TASK_VERSION_IS_REQUIRED,
    TASKS,
    existing_columns,
    newest_versions,
)
from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction, utc_now


def import_history(
    exempt: Exemption, runs: Sequence[HistoryRun], notes: Mapping[RunKey, str], successes: Sequence[LedgerRun]
) -> Imported:
    """See :meth:`.HistoryDb.import_history`. *runs* has one part of a run at most."""
    try:
        return _import(exempt, runs, notes, successes)
    except (DataError, IntegrityError) as error:
        if len(runs) == 1:
            return Imported(kept={runs[0].key: f"the database refuses it: {type(error).__name__}: {error.orig}"})
    found = Imported()
    for run in runs:
        one = import_history(exempt, [run], notes, successes)
        found.written |= one.written
        found.waiting |= one.waiting
        found.kept |= one.kept
    return found


def _import(
    exempt: Exemption, runs: Sequence[HistoryRun], notes: Mapping[RunKey, str], successes: Sequence[LedgerRun]
) -> Imported:
    found = Imported()
    with transaction() as session:
        connection = session.connection()
        dag_ids = sorted({run.run.dag_id for run in runs})
        is_exempt = _dags(connection, exempt, dag_ids)
        versions = newest_versions(connection, dag_ids)
        translation = Translation(session, [*(run.run for run in runs), *successes])
        rows = {run.key: translation.to_adopt(run.run) for run in runs}
        there = _rows_there(connection, list(rows.values()))
        bars = read_bars(connection, dag_ids, [translation.to_adopt(run) for run in successes])
        write = _Writing(connection, versions)
        for run in runs:
            dag_id, row = run.run.dag_id, rows[run.key]
            if not run.run.has_ended or is_exempt[dag_id]:
                continue
            if TASK_VERSION_IS_REQUIRED and run.tasks and dag_id not in versions:
                found.waiting.add(run.key)  # until Airflow has parsed the DAG
                continue
            known = there.get(row.key)
            if run.part:
                if known is not None and known.is_imported:
                    write.add_tasks(row, run.tasks)
                continue
            if known is not None and not known.is_imported and not known.is_skipped:
                _meet(write, known, run, row, found)
                continue
            if waits(row, bars[dag_id]):
                found.waiting.add(run.key)
                continue
            other = _holder(connection, row)
            if other is not None and not other.is_imported:
                found.kept[run.key] = f"this site has a run of the same interval: {other.run_id}"
                continue
            if other is not None:
                delete_rows(connection, [other])  # of an earlier page: a user has deleted that run in the other site
            note = notes.get(run.key, "imported")
            if row.run_id != run.run.run_id:
                note = f"{note} as {original_id(run.run)}"
            write.write(known, row, run, note)
            found.written.add(run.key)
        write.flush()
    return found


def _meet(write: _Writing, known: Any, run: HistoryRun, row: LedgerRun, found: Imported) -> None:
    """Decide about a run whose id a run of this site has that the site did not skip."""
    if known.is_own_end or known.state not in ENDED:
        found.waiting.add(run.key)  # the ledger decides what becomes of it
    elif known.last_scheduling_decision is not None:
        found.kept[run.key] = "this site has executed a run with the same id"
    elif str(known.state) == run.run.status.value and known.end_date == run.run.ended_at:
        write.complete(known, row, run)
        found.written.add(run.key)
    elif known.end_date is None or run.run.ended_at is None or known.end_date < run.run.ended_at:
        found.waiting.add(run.key)  # the ledger has an earlier end of the run
    # Else the ledger has a later end, and a later page has it, too.


def _dags(connection: Any, exempt: Exemption, dag_ids: Sequence[str]) -> dict[str, bool]:
    """Return whether each of the DAGs is exempt. This site may not have one of them, or not yet."""
    query = select(DAGS.c.dag_id, exempt.covers(DAGS.c.dag_id).label("is_exempt")).where(DAGS.c.dag_id.in_(dag_ids))
    there = {row.dag_id: bool(row.is_exempt) for row in connection.execute(query)}
    return {dag_id: there.get(dag_id, exempt.has_id(dag_id)) for dag_id in dag_ids}


def _rows_there(connection: Any, rows: Sequence[LedgerRun]) -> dict[RunKey, Any]:
    """Return the rows of runs, and lock them."""
    columns = (
        RUNS.c.id,
        RUNS.c.dag_id,
        RUNS.c.run_id,
        RUNS.c.state,
        RUNS.c.end_date,
        RUNS.c.last_scheduling_decision,
        is_imported().label("is_imported"),
        is_skipped().label("is_skipped"),
        is_own_end().label("is_own_end"),
    )
    query = select(*columns).where(key_in([row.key for row in rows])).with_for_update(of=RUNS)
    return {(row.dag_id, row.run_id): row for row in connection.execute(query)}


def _holder(connection: Any, row: LedgerRun) -> Any:
    """Return another run that has the date or the partition of *row*; None if none has."""
    conditions = []
    if row.logical_date is not None:
        conditions.append(LOGICAL_DATE == row.logical_date)
    if row.partition_key is not None and row.run_type in AUTOMATED and PARTITION_KEY is not None:
        conditions.append(and_(PARTITION_KEY == row.partition_key, RUNS.c.run_type.in_(AUTOMATED)))
    if not conditions:
        return None
    query = (
        select(RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id, is_imported().label("is_imported"))
        .where(RUNS.c.dag_id == row.dag_id, RUNS.c.run_id != row.run_id, or_(*conditions))
        .order_by(is_imported())
    )
    return connection.execute(query.limit(1)).first()


def read_bars(connection: Any, dag_ids: Sequence[str], known: Sequence[LedgerRun]) -> dict[str, Bar]:
    """
    Return the newest runs that this site has itself, by DAG.

    :param known: successes that the site adopts before it executes.
    """
    own = (RUNS.c.dag_id.in_(dag_ids), RUNS.c.state.in_(ENDED), is_local(), ~is_own_end())

    def newest(*columns: Any, where: Sequence[Any] = ()) -> dict[str, Any]:
        query = select(RUNS.c.dag_id, *columns).where(*own, *where).group_by(RUNS.c.dag_id)
        return {row.dag_id: row for row in connection.execute(query)}

    is_interval, is_success = RUNS.c.run_type.in_(AUTOMATED), RUNS.c.state == "success"
    at, due = func.max(LOGICAL_DATE).label("at"), func.max(QUEUE_DATE).label("due")
    intervals = newest(at, func.max(MARK).label("mark"), where=[is_interval])
    interval_successes = newest(at, where=[is_interval, is_success])
    successes = newest(at, due, where=[is_success])
    events = newest(due, where=[RUNS.c.run_type.in_(EVENT_TRIGGERED)])
    partitions: Mapping[str, Any] = {}
    if PARTITION_DATE is not None and PARTITION_KEY is not None:
        of_partition = [is_interval, PARTITION_KEY.is_not(None)]
        partitions = newest(func.max(PARTITION_DATE).label("at"), where=of_partition)
    columns = (DAGS.c.dag_id, DAGS.c.next_dagrun, DAGS.c.max_consecutive_failed_dag_runs)
    dags = {row.dag_id: row for row in connection.execute(select(*columns).where(DAGS.c.dag_id.in_(dag_ids)))}
    bars = {}
    for dag_id in dag_ids:
        of_dag = [run for run in known if run.dag_id == dag_id]
        dag = dags.get(dag_id)
        bars[dag_id] = Bar(
            interval=_value(intervals, dag_id, "at"),
            mark=_value(intervals, dag_id, "mark"),
            interval_success=_newest(
                _value(interval_successes, dag_id, "at"),
                *(run.logical_date for run in of_dag if run.run_type in AUTOMATED),
            ),
            success=_newest(_value(successes, dag_id, "at"), *(run.logical_date for run in of_dag)),
            success_due=_newest(
                _value(successes, dag_id, "due"), *(run.run_after or run.logical_date for run in of_dag)
            ),
            event=_value(events, dag_id, "due"),
            partition=_value(partitions, dag_id, "at"),
            has_schedule=dag is None or dag.next_dagrun is not None,
            counts_failures=dag is None or bool(dag.max_consecutive_failed_dag_runs),
        )
    return bars


def _newest(*dates: datetime | None) -> datetime | None:
    return max((at for at in dates if at is not None), default=None)


def _value(rows: Mapping[str, Any], dag_id: str, name: str) -> datetime | None:
    value: datetime | None = getattr(rows.get(dag_id), name, None)
    return value


class _Writing:
    """Writes rows of one transaction; new rows with as many statements for one run as for many."""

    def __init__(self, connection: Any, versions: Mapping[str, Any]) -> None:
        self._connection = connection
        self._versions = versions
        self._now = utc_now()
        self._new: list[tuple[LedgerRun, str]] = []
        self._tasks: list[dict[str, Any]] = []

    def write(self, known: Any, row: LedgerRun, run: HistoryRun, note: str) -> None:
        """
        Write a run and its task instances.

        :param known: the row that they replace; None if they get a new one.
        """
        note = compose_note(run.note or None, note)
        if known is None:
            self._new.append((row, note))
        else:
            values = self._values(row)
            for name in ("dag_id", "run_id", "queued_at"):
                values.pop(name)
            self._connection.execute(update(RUNS).where(RUNS.c.id == known.id).values(values))
            self._connection.execute(delete(NOTES).where(NOTES.c.dag_run_id == known.id))
            self._connection.execute(insert(NOTES).values(dag_run_id=known.id, content=note))
            of_run = and_(TASKS.c.dag_id == known.dag_id, TASKS.c.run_id == known.run_id)
            self._connection.execute(delete(TASKS).where(of_run))
        self.add_tasks(row, run.tasks)

    def complete(self, known: Any, row: LedgerRun, run: HistoryRun) -> None:
        """
        Add to an adopted run what only the history has. Its dates, its state and the states of its tasks do not change.
        """
        if run.note:
            query = select(NOTES.c.content).where(NOTES.c.dag_run_id == known.id)
            content = self._connection.execute(query).scalar()
            if content is not None and not user_note(content):
                note = compose_note(run.note, own_note(content))
                self._connection.execute(update(NOTES).where(NOTES.c.dag_run_id == known.id).values(content=note))
        of_run = and_(TASKS.c.dag_id == known.dag_id, TASKS.c.run_id == known.run_id)
        there = {task.key: task for task in history_tasks(self._connection, [row.key]).get(row.key, [])}
        if not there:
            self.add_tasks(row, run.tasks)
            return
        for task in run.tasks:
            if task.key in there and there[task.key] != task and there[task.key].state == task.state:
                is_task = and_(of_run, TASKS.c.task_id == task.task_id, TASKS.c.map_index == task.map_index)
                self._connection.execute(update(TASKS).where(is_task).values(_of_task(task)))

    def add_tasks(self, row: LedgerRun, tasks: Sequence[HistoryTask]) -> None:
        """Insert task instances of a run."""
        version = self._versions.get(row.dag_id) if TASK_VERSION_IS_REQUIRED else None
        self._tasks += [
            existing_columns(
                TASKS,
                {
                    "dag_id": row.dag_id,
                    "run_id": row.run_id,
                    "task_id": task.task_id,
                    "map_index": task.map_index,
                    "state": task.state,
                    **_of_task(task),
                    "unixname": "",
                    "pool_slots": 1,
                    "queue": "default",
                    "priority_weight": 1,
                    # Without it, the REST API of Airflow 2 answers 500 for the list of task instances.
                    "executor_config": {},
                    "task_display_name": task.task_id,
                    "dag_version_id": version,
                },
            )
            for task in tasks
        ]

    def flush(self) -> None:
        """Send the statements for the new rows."""
        if self._new:
            self._connection.execute(insert(RUNS), [self._values(row) for row, _ in self._new])
            query = select(RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id).where(key_in([row.key for row, _ in self._new]))
            ids = {(row.dag_id, row.run_id): row.id for row in self._connection.execute(query)}
            notes = [{"dag_run_id": ids[row.key], "content": note} for row, note in self._new]
            self._connection.execute(insert(NOTES), notes)
        if self._tasks:
            self._connection.execute(insert(TASKS), self._tasks)

    def _values(self, row: LedgerRun) -> dict[str, Any]:
        values = new_row(row, None, self._now, self._versions.get(row.dag_id))
        return {**values, "last_scheduling_decision": IMPORTED}


def _of_task(task: HistoryTask) -> dict[str, Any]:
    """Return the columns that the history has, except the state."""
    has_both = task.started_at is not None and task.ended_at is not None
    return {
        "try_number": task.tries,
        "max_tries": task.max_tries,
        "queued_dttm": task.queued_at,
        "start_date": task.started_at,
        "end_date": task.ended_at,
        "duration": (task.ended_at - task.started_at).total_seconds() if has_both else None,  # type: ignore[operator]
        "operator": task.operator,
        "pool": task.pool or "default_pool",
        "hostname": task.host,
    }
