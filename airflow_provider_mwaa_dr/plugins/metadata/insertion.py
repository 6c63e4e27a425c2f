"""Inserts runs of other regions, and task instances of ended runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import bindparam, exists, insert, or_, select, tuple_, update

from airflow_provider_mwaa_dr.core.bookkeeping import RunRow
from airflow_provider_mwaa_dr.core.ledger import AUTOMATED, EVENT_TRIGGERED, LedgerRun, RunKey, mark_of, triggered_at
from airflow_provider_mwaa_dr.plugins.metadata.imported import is_local
from airflow_provider_mwaa_dr.plugins.metadata.notes import compose_note
from airflow_provider_mwaa_dr.plugins.metadata.own_ends import is_skipped
from airflow_provider_mwaa_dr.plugins.metadata.runs import key_in
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    DAGS,
    LOGICAL_DATE,
    MARK,
    NEXT_PARTITION_DATE,
    NOTES,
    PARTITION_KEY,
    QUEUE_DATE,
    RUNS,
    TASKS,
    existing_columns,
    existing_trigger,
    existing_type,
    new_trace_carrier,
    newest_versions,
)
from airflow_provider_mwaa_dr.plugins.metadata.transactions import utc_now


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """
    What the database has of some runs.

    :param runs: states by key.
    :param dates: run ids by DAG and logical date. A run of any type takes its date.
    :param partitions: run ids by DAG and partition key, only of intervals that the provider did not skip.
    """

    runs: dict[RunKey, str]
    dates: dict[tuple[str, datetime], str]
    partitions: dict[tuple[str, str], str]

    def why_taken(self, run: LedgerRun) -> str | None:
        """Return why another run holds the interval of *run*; None if no run does."""
        if run.logical_date is not None:
            other = self.dates.get((run.dag_id, run.logical_date), run.run_id)
            if other != run.run_id:
                return f"another run has its logical date: {other}"
        if is_partition(run):
            other = self.partitions.get((run.dag_id, run.partition_key or ""), run.run_id)
            if other != run.run_id:
                return f"another run has its partition: {other}"
        return None


def is_partition(run: LedgerRun) -> bool:
    """Whether the run is an interval that its partition key identifies."""
    return run.partition_key is not None and run.run_type in AUTOMATED


def find_taken(connection: Any, runs: Sequence[LedgerRun]) -> Taken:
    """
    Return which keys, logical dates and partitions of *runs* the database has, except in imported runs.

    Before the caller inserts a run, it removes the imported runs in its place: :func:`.imported.drop_imported`.
    """
    columns = (RUNS.c.dag_id, RUNS.c.run_id, RUNS.c.state, LOGICAL_DATE.label("at"))
    dates = [(run.dag_id, run.logical_date) for run in runs if run.logical_date is not None]
    rows = list(connection.execute(select(*columns).where(key_in([run.key for run in runs]), is_local())))
    if dates:
        rows += connection.execute(select(*columns).where(tuple_(RUNS.c.dag_id, LOGICAL_DATE).in_(dates), is_local()))
    partitions = [(run.dag_id, run.partition_key) for run in runs if is_partition(run)]
    found = []
    if partitions and PARTITION_KEY is not None:
        found = connection.execute(
            select(RUNS.c.dag_id, RUNS.c.run_id, PARTITION_KEY.label("partition_key")).where(
                tuple_(RUNS.c.dag_id, PARTITION_KEY).in_(partitions),
                RUNS.c.run_type.in_(AUTOMATED),
                ~is_skipped(),
                is_local(),
            )
        ).all()
    return Taken(
        partitions={(row.dag_id, row.partition_key): row.run_id for row in found},
        runs={(row.dag_id, row.run_id): str(row.state) for row in rows},
        dates={(row.dag_id, row.at): row.run_id for row in rows if row.at is not None},
    )


def insertable(runs: Iterable[LedgerRun], taken: Taken) -> tuple[list[LedgerRun], dict[RunKey, str]]:
    """Return the runs that can be inserted, and those whose interval another run holds, with the reason."""
    known = replace(taken, dates=dict(taken.dates), partitions=dict(taken.partitions))
    found, refused = [], {}
    for run in runs:
        if run.key in taken.runs:
            continue
        why = known.why_taken(run)
        if why is not None:
            refused[run.key] = why
            continue
        if run.logical_date is not None:
            known.dates[run.dag_id, run.logical_date] = run.run_id
        if is_partition(run):
            known.partitions[run.dag_id, run.partition_key or ""] = run.run_id
        found.append(run)
    return found, refused


def insert_runs(
    connection: Any,
    runs: Sequence[LedgerRun],
    *,
    state: str | None,
    note: str,
    notes: Mapping[RunKey, str] = MappingProxyType({}),
    but_next_run: Collection[RunKey] = (),
) -> None:
    """
    Insert runs with *state*, or with their own result if it is None; the scheduler continues after them.

    The same number of statements for one run and for many.

    :param notes: the notes of runs that do not get *note*.
    :param but_next_run: runs after which the scheduler does not continue, because later runs exist.
    """
    if not runs:
        return
    now = utc_now()
    versions = newest_versions(connection, {run.dag_id for run in runs})
    connection.execute(insert(RUNS), [new_row(run, state, now, versions.get(run.dag_id)) for run in runs])
    ids = connection.execute(
        select(RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id).where(key_in([run.key for run in runs]))
    ).all()
    connection.execute(
        insert(NOTES),
        [
            {"dag_run_id": row.id, "content": compose_note(None, notes.get((row.dag_id, row.run_id), note))}
            for row in ids
        ],
    )
    _continue_after_partitions(connection, [run for run in runs if is_partition(run)])
    intervals = [
        run
        for run in runs
        if run.run_type in AUTOMATED
        and run.logical_date is not None
        and not is_partition(run)
        and run.key not in but_next_run
    ]
    if intervals:
        # The next run in the DAG's row may be later, because Airflow computed it without these runs.
        # SQLAlchemy 1.4 does not support IN in a statement for many rows.
        is_interval = or_(*(RUNS.c.run_type == run_type for run_type in AUTOMATED))
        newer = exists().where(RUNS.c.dag_id == DAGS.c.dag_id, is_interval, is_local(), MARK > bindparam("of_mark"))
        names = next_dagrun(intervals[0])
        connection.execute(
            update(DAGS)
            .where(DAGS.c.dag_id == bindparam("of_dag"), or_(DAGS.c.next_dagrun.is_(None), ~newer))
            .values({name: bindparam(f"new_{name}") for name in names}),
            [
                {
                    "of_dag": run.dag_id,
                    "of_mark": mark_of(run),
                    **{f"new_{name}": value for name, value in next_dagrun(run).items()},
                }
                for run in intervals
            ],
        )
    insert_tasks(connection, runs if state is None else [])


def _continue_after_partitions(connection: Any, runs: Sequence[LedgerRun]) -> None:
    """
    Let Airflow compute the next run of the DAGs of new partitions, unless it is a later one.

    The scheduler does not look whether a partition has a run. So the DAG's row must name no run until the next parse.
    """
    newest = {run.dag_id: run.partition_date for run in sorted(runs, key=lambda run: run.partition_date or utc_now())}
    if newest and NEXT_PARTITION_DATE is not None:
        is_behind = or_(NEXT_PARTITION_DATE.is_(None), NEXT_PARTITION_DATE <= bindparam("of_date"))
        connection.execute(
            update(DAGS).where(DAGS.c.dag_id == bindparam("of_dag"), is_behind).values(no_next_dagrun()),
            [{"of_dag": dag_id, "of_date": at or utc_now()} for dag_id, at in newest.items()],
        )


def no_next_dagrun() -> dict[str, None]:
    """Return the values of a DAG's row with which the scheduler creates no run until the next parse of the file."""
    names = (
        "next_dagrun",
        "next_dagrun_data_interval_start",
        "next_dagrun_data_interval_end",
        "next_dagrun_create_after",
        "next_dagrun_partition_key",
        "next_dagrun_partition_date",
    )
    return existing_columns(DAGS, dict.fromkeys(names))


def new_row(run: LedgerRun, state: str | None, now: datetime, version: Any) -> dict[str, Any]:
    """Return the columns of another region's run: queued if *state* is set, else ended."""
    run_type = existing_type(run.run_type)
    conf = json.loads(run.conf) if run.conf is not None else {}
    values: dict[str, Any] = {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "run_type": run_type,
        "state": state or run.status.value,
        # An adopted run was never queued in this region, so it has no time. With a time, a later resume would take the
        # run for one that it has queued already (core/bookkeeping/resuming.py), and would not start it after a clear.
        "queued_at": (run.taken_at or now) if state else None,
        "start_date": None if state else run.started_at or run.ended_at or now,
        "end_date": None if state else run.ended_at or now,
        "data_interval_start": run.data_interval_start,
        "data_interval_end": run.data_interval_end,
        "conf": conf,
        LOGICAL_DATE.name: run.logical_date,
        "run_after": _due(run) or now,
        "external_trigger": run_type == "manual",
        "created_dag_version_id": version,
        "partition_key": run.partition_key,
        "partition_date": run.partition_date,
        "triggered_by": existing_trigger(run.triggered_by, run_type),
        "triggering_user_name": run.triggering_user,
    }
    if state is not None:
        values["last_scheduling_decision"] = values[QUEUE_DATE.name]
        values["context_carrier"] = new_trace_carrier(run.dag_id, run_type, conf)
    return existing_columns(RUNS, values)


def _due(run: LedgerRun) -> datetime | None:
    """
    Return when a run was due. Airflow 2 does not store it.

    Airflow gives the next run that events trigger the events since this time. Airflow 2 gives such a run the interval
    of the run that caused the event, which ends before the event.
    """
    return triggered_at(run) if run.run_type in EVENT_TRIGGERED else run.run_after or mark_of(run)


def insert_tasks(connection: Any, runs: Sequence[LedgerRun]) -> None:
    """Insert the task instances of ended runs: the tasks of the next run depend on their states; none executes."""
    if not any(run.tasks for run in runs):
        return
    now = utc_now()
    versions = newest_versions(connection, {run.dag_id for run in runs})
    rows = [
        existing_columns(
            TASKS,
            {
                "dag_id": run.dag_id,
                "run_id": run.run_id,
                "task_id": task_id,
                "map_index": map_index,
                "state": state,
                "start_date": now,
                "end_date": now,
                "duration": 0.0,
                "try_number": 0,
                "max_tries": 0,
                "hostname": "",
                "unixname": "",
                "pool": "default_pool",
                "pool_slots": 1,
                "queue": "default",
                "priority_weight": 1,
                "operator": "",
                # Without it, the REST API of Airflow 2 answers 500 for the list of task instances.
                "executor_config": {},
                "task_display_name": task_id,
                "dag_version_id": versions.get(run.dag_id),
            },
        )
        for run in runs
        for task_id, map_index, state in run.tasks
    ]
    connection.execute(insert(TASKS), rows)


def next_dagrun(run: LedgerRun | RunRow) -> dict[str, Any]:
    """
    Return the values of a DAG's row that make the scheduler create the run after *run*, which exists.

    They name *run* itself as the DAG's next run. The scheduler finds that it exists, creates nothing, and computes the
    following run with the DAG's own timetable and catchup. The next parse of the file does the same.
    """
    return {
        "next_dagrun": run.logical_date,
        "next_dagrun_data_interval_start": run.data_interval_start,
        "next_dagrun_data_interval_end": run.data_interval_end,
        "next_dagrun_create_after": run.run_after or run.data_interval_end or run.logical_date,
    }
