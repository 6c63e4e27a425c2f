"""Makes room for queued runs whose DAG is full of later runs that wait for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, true, update

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey
from airflow_provider_mwaa_dr.plugins.metadata.own_ends import task_exists
from airflow_provider_mwaa_dr.plugins.metadata.runs import key_in
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    AT_WORK,
    DAGS,
    LOGICAL_DATE,
    QUEUE_DATE,
    RUNS,
    SCHEDULER_STARTS_BACKFILLS,
    TASKS,
    takes_room,
)
from airflow_provider_mwaa_dr.plugins.metadata.tasks import DependsOnPast
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction, utc_now

_IDLE_FOR = timedelta(minutes=1)
"""A begun run counts as waiting for an earlier one if no task of it executes, and none has ended for so long."""


def make_room(depends_on_past: DependsOnPast, runs: Sequence[LedgerRun]) -> int:
    """
    Let queued runs start that have no room because later runs, which wait for them, take all of it.

    A run with ``depends_on_past`` counts towards ``max_active_runs`` while it waits for the previous run. If its
    DAG is at the limit and the previous run is still queued, neither of them executes. For each such DAG, one
    running run goes back into the queue, and its tasks do not change. This is the latest run that has not begun. If
    all have begun, it is the latest run that has no executing task, and none that ended in the last minute. The run
    that it waits for starts next. The agent calls this in every turn, so a later call handles what one call misses.

    :param runs: the runs that wait in the queue; runs that Airflow would not start even with room are ignored.
    :return: how many runs went back into the queue.
    """
    with transaction() as session:
        connection = session.connection()
        first: dict[str, Any] = {}
        for row in _without_room(connection, [run.key for run in runs]):
            first.setdefault(row.dag_id, row)
        gives = {
            run_id: first[dag_id].id
            for dag_id in sorted(depends_on_past.among(connection, sorted(first)))
            if (run_id := _run_to_requeue(connection, dag_id, first[dag_id].at)) is not None
        }
        if not gives:
            return 0
        both = select(RUNS.c.id).where(RUNS.c.id.in_([*gives, *gives.values()]))
        locked = {*connection.execute(both.with_for_update(skip_locked=True)).scalars()}
        pairs = {later: earlier for later, earlier in gives.items() if {later, earlier} <= locked}
        works = task_exists(TASKS.c.state.in_(AT_WORK))
        # A second statement, so that it sees what the scheduler committed before it released the rows.
        result = connection.execute(
            update(RUNS)
            .where(RUNS.c.id.in_([*pairs]), RUNS.c.state == "running", ~works)
            .values(state="queued", queued_at=utc_now(), start_date=None, last_scheduling_decision=QUEUE_DATE)
        )
        # Airflow starts runs without a scheduling decision first; the date alone does not decide the order.
        connection.execute(
            update(RUNS)
            .where(RUNS.c.id.in_([*pairs.values()]), RUNS.c.state == "queued")
            .values(last_scheduling_decision=None)
        )
        return int(result.rowcount)


def _without_room(connection: Any, keys: Sequence[RunKey]) -> list[Any]:
    """Return id, DAG and date (``at``) of runs that Airflow would start if their DAG had room, earliest first."""
    others = RUNS.alias()
    running = (
        select(func.count())
        .where(others.c.dag_id == RUNS.c.dag_id, others.c.state == "running", takes_room(others))
        .scalar_subquery()
    )
    found: list[Any] = []
    for batch in batched(keys, BATCH):
        query = (
            select(RUNS.c.id, RUNS.c.dag_id, LOGICAL_DATE.label("at"))
            .join(DAGS, DAGS.c.dag_id == RUNS.c.dag_id)
            .where(
                key_in(batch),
                RUNS.c.state == "queued",
                LOGICAL_DATE.is_not(None),
                QUEUE_DATE <= utc_now(),
                takes_room(RUNS),
                DAGS.c.is_paused.is_(False),
                DAGS.c.max_active_runs > 0,
                running >= DAGS.c.max_active_runs,
            )
        )
        found += connection.execute(query)
    return sorted(found, key=lambda row: (row.dag_id, row.at))


def _run_to_requeue(connection: Any, dag_id: str, earliest: datetime) -> int | None:
    """Return the id of the run that gives its room to the run of date *earliest*; None if no run is idle."""
    has_begun = task_exists(TASKS.c.state.is_not(None))
    can_restart = true() if SCHEDULER_STARTS_BACKFILLS else RUNS.c.run_type != "backfill"
    query = (
        select(RUNS.c.id)
        .where(
            RUNS.c.dag_id == dag_id,
            RUNS.c.state == "running",
            takes_room(RUNS),
            can_restart,
            LOGICAL_DATE > earliest,
            ~task_exists(TASKS.c.state.in_(AT_WORK)),
            or_(task_exists(TASKS.c.state.is_(None)), ~task_exists()),
            ~task_exists(TASKS.c.end_date > utc_now() - _IDLE_FOR),
        )
        .order_by(has_begun, LOGICAL_DATE.desc())
        .limit(1)
    )
    found: int | None = connection.execute(query).scalar()
    return found
