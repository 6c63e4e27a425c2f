"""
What the gate does with a run that is about to start, inside the scheduler's open transaction.

These functions never commit or flush. They send their statements in a savepoint, so that an error leaves the
transaction usable.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.orm import object_session

from airflow_provider_mwaa_dr.plugins.metadata.closing import close_task_instances
from airflow_provider_mwaa_dr.plugins.metadata.notes import RESUMED, put_note
from airflow_provider_mwaa_dr.plugins.metadata.own_ends import OWN_END, STATE
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    OPEN,
    RUNS,
    TASKS,
    delete_deadlines_of,
    queue_date,
    update_run_limit,
)
from airflow_provider_mwaa_dr.plugins.metadata.transactions import savepoint, utc_now


def skip_run(dag_run: Any, note: str) -> None:
    """
    Close *dag_run*, which is about to start: failed with the mark of :mod:`.own_ends`, all its open tasks skipped, no
    callback.

    The same number of statements for 10 task instances and for 10,000. Also updates what Airflow updates when a run
    ends by itself, so that a DAG with ``max_active_runs`` gets its next run immediately.
    """
    session = object_session(dag_run)
    now = utc_now()
    of_run = and_(TASKS.c.dag_id == dag_run.dag_id, TASKS.c.run_id == dag_run.run_id)
    with savepoint(session) as connection:
        connection.execute(close_task_instances(of_run, now))
        put_note(connection, dag_run.id, note)
        others = connection.execute(
            select(func.count()).where(
                RUNS.c.dag_id == dag_run.dag_id,
                RUNS.c.id != dag_run.id,
                RUNS.c.run_type != "backfill",
                RUNS.c.state.in_(OPEN),
            )
        ).scalar_one()
    session.expire(dag_run, ["task_instances", "dag_run_note"])
    dag_run.set_state(STATE)
    dag_run.last_scheduling_decision = OWN_END
    delete_deadlines_of(session, dag_run)
    update_run_limit(session, dag_run, others)


def hold_run(dag_run: Any, note: str) -> bool:
    """
    Put *dag_run* back into the queue; the scheduler tries it again.

    The scheduler first tries runs that it has never tried, so that runs of exempt DAGs start however many runs are
    held. It tries the held runs of a DAG in the order of their dates. Otherwise, with ``max_active_runs``, later runs
    could take all the room. With ``depends_on_past`` they would then wait forever for an earlier run that has no room.

    :return: whether the note is new; a repeated hold writes nothing, and the caller logs nothing.
    """
    session = object_session(dag_run)
    dag_run.set_state("queued")
    dag_run.last_scheduling_decision = queue_date(dag_run)
    with savepoint(session) as connection:
        written = put_note(connection, dag_run.id, note, keeps=RESUMED)
    if written:
        session.expire(dag_run, ["dag_run_note"])
    return written
