"""How the agent of a standby closes the open runs of its region."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import exists, func, or_, select, true, tuple_, update

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.plugins.metadata.answers import refuse_answers, unused_answers
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.notes import put_note
from airflow_provider_mwaa_dr.plugins.metadata.own_ends import END
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    AT_WORK,
    DAGS,
    OPEN,
    RUNS,
    TASKS,
    delete_deadlines,
    update_run_limits,
)
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction, utc_now
from airflow_provider_mwaa_dr.plugins.metadata.waiting_events import drop_waiting_events


def open_runs(exempt: Exemption, *, up_to: int, spared_since: datetime | None = None) -> int:
    """
    Return how many runs of DAGs that are not exempt are queued or running, with an id of at most *up_to*.

    :param spared_since: as in :func:`close_runs`; runs that it leaves open do not count.
    """
    query = select(func.count()).where(
        RUNS.c.state.in_(OPEN), RUNS.c.id <= up_to, _not_spared(spared_since), ~exempt.covers(RUNS.c.dag_id)
    )
    with transaction() as session:
        return int(session.execute(query).scalar_one())


def close_runs(exempt: Exemption, note: str, *, queued_for_s: float = 0.0, spared_since: datetime | None = None) -> int:
    """
    End every open run of the DAGs that are not exempt: failed with the mark of :mod:`.own_ends`, open tasks skipped, no
    callback, *note* on each.

    First remove the events of assets that have started no run; see :func:`.waiting_events.drop_waiting_events`.
    Afterwards, Airflow refuses answers to tasks of these runs; see :mod:`.answers`.
    Airflow ends a task that executes at the task's next heartbeat, some seconds later. Idempotent; locked rows are
    left for the next call.

    :param queued_for_s: younger queued runs of unpaused DAGs stay open, because the gate is about to skip them.
    :param spared_since: queued runs that a user or an asset requested since then stay open; scheduled runs do not.
    :return: how many runs were closed.
    """
    drop_waiting_events(exempt, note, spared_since=spared_since)
    closed = 0
    while batch := _close_batch(exempt, note, _not_spared(spared_since), _not_young(queued_for_s)):
        closed += batch
        if batch < BATCH:
            break
    refuse_answers(exempt, note)
    return closed


def end_queued(exempt: Exemption, keys: Collection[RunKey], note: str) -> int:
    """End those of these runs that are queued, as :func:`close_runs` does; return how many. Locked rows stay."""
    found = 0
    for batch in batched(sorted(keys), BATCH):
        found += _close_batch(exempt, note, RUNS.c.state == "queued", tuple_(RUNS.c.dag_id, RUNS.c.run_id).in_(batch))
    return found


def _close_batch(exempt: Exemption, note: str, *conditions: Any) -> int:
    """Close the first open runs that meet *conditions*, :data:`BATCH` at most; return how many."""
    now = utc_now()
    query = (
        select(RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id)
        .where(RUNS.c.state.in_(OPEN), *conditions, ~exempt.covers(RUNS.c.dag_id))
        .order_by(RUNS.c.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    with transaction() as session:
        connection = session.connection()
        rows = connection.execute(query).all()
        if not rows:
            return 0
        ids = [row.id for row in rows]
        keys = select(RUNS.c.dag_id, RUNS.c.run_id).where(RUNS.c.id.in_(ids)).subquery()
        of_runs = exists().where(TASKS.c.dag_id == keys.c.dag_id, TASKS.c.run_id == keys.c.run_id)
        unused = unused_answers(connection, of_runs)
        connection.execute(close_task_instances(of_runs, now))
        for run_id in ids:
            put_note(connection, run_id, f"{note}; {unused[run_id]}" if run_id in unused else note)
        connection.execute(update(RUNS).where(RUNS.c.id.in_(ids)).values(**END, end_date=now))
        delete_deadlines(session, ids)
        update_run_limits(connection, {row.dag_id for row in rows})
        return len(ids)


def _not_young(queued_for_s: float) -> Any:
    """Return the condition that a run is not a queued one of an unpaused DAG for less than *queued_for_s* seconds."""
    if queued_for_s <= 0:
        return true()
    startable = select(DAGS.c.dag_id).where(DAGS.c.is_paused.is_(False))
    return or_(
        RUNS.c.state == "running",
        RUNS.c.dag_id.not_in(startable),
        RUNS.c.queued_at.is_(None),
        RUNS.c.queued_at < utc_now() - timedelta(seconds=queued_for_s),
    )


def close_task_instances(of_runs: Any, now: datetime) -> Any:
    """Return the statement that skips the open task instances that meet the condition *of_runs*."""
    return (
        update(TASKS)
        .where(of_runs, or_(TASKS.c.state.is_(None), TASKS.c.state.in_(AT_WORK)))
        .values(state="skipped", start_date=func.coalesce(TASKS.c.start_date, now), end_date=now)
    )


def _not_spared(since: datetime | None) -> Any:
    """Return the condition that a run is not a queued run that a user or an asset requested since *since*."""
    if since is None:
        return true()
    return or_(
        RUNS.c.state != "queued",
        RUNS.c.run_type == "scheduled",
        RUNS.c.queued_at.is_(None),
        RUNS.c.queued_at < since,
    )
