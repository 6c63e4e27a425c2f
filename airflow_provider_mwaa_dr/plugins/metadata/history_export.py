"""Reads the runs that a site exports into its history: those that ended by themselves, with their task instances."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, select, tuple_

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.bookkeeping.conversion import to_run
from airflow_provider_mwaa_dr.core.history.database import RowIds, Sweep
from airflow_provider_mwaa_dr.core.history.pages import HistoryRun, HistoryTask
from airflow_provider_mwaa_dr.core.ledger import RunKey, RunStatus
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.imported import is_local
from airflow_provider_mwaa_dr.plugins.metadata.notes import user_note
from airflow_provider_mwaa_dr.plugins.metadata.own_ends import OWN_END, is_own_end
from airflow_provider_mwaa_dr.plugins.metadata.runs import ROW, to_row
from airflow_provider_mwaa_dr.plugins.metadata.schema import ENDED, NOTES, OPEN, RUNS, TASKS
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction

_MOST_TASKS = 5_000
"""About the most task instances in one answer: the scheduler may not fork while they are read."""


def history_ids(exempt: Exemption, *, above: int | None) -> RowIds:
    """See :meth:`.HistoryDb.history_ids`."""
    ours = ~exempt.covers(RUNS.c.dag_id)
    with transaction() as session:
        # The ended runs first: a run that ends in between is then open in the second query, and found by the next call.
        ended = (
            frozenset()
            if above is None
            else frozenset(
                session.execute(
                    select(RUNS.c.id).where(RUNS.c.id > above, RUNS.c.state.in_(ENDED), is_local(), ours)
                ).scalars()
            )
        )
        still_open = frozenset(session.execute(select(RUNS.c.id).where(RUNS.c.state.in_(OPEN), ours)).scalars())
        newest = session.execute(select(func.max(RUNS.c.id))).scalar() or 0
    return RowIds(newest=int(newest), open=still_open, ended=ended)


def ended_history(exempt: Exemption, ids: Collection[int]) -> Sweep:
    """See :meth:`.HistoryDb.ended_history`."""
    with transaction() as session:
        return _read(
            session.connection(), exempt, sorted(ids)[:BATCH], all_up_to=max(ids) if len(ids) <= BATCH else None
        )


def sweep_history(exempt: Exemption, *, above: int, up_to: int, since: datetime, limit: int) -> Sweep:
    """See :meth:`.HistoryDb.sweep_history`."""
    within = and_(RUNS.c.id > above, RUNS.c.id <= up_to, RUNS.c.end_date >= since)
    with transaction() as session:
        connection = session.connection()
        query = select(RUNS.c.id).where(within, *_ended_by_themselves(exempt)).order_by(RUNS.c.id).limit(limit)
        ids = list(connection.execute(query).scalars())
        return _read(connection, exempt, ids, all_up_to=up_to if len(ids) < limit else None)


def _ended_by_themselves(exempt: Exemption) -> Sequence[Any]:
    """
    Return the conditions that this site's scheduler ended a run.

    Only a scheduler sets the time of the last decision. A run that this site adopted, or whose result another site
    published, has none. A run that this site closed or imported has one of the provider's marks.
    """
    decided_at = RUNS.c.last_scheduling_decision
    return (
        RUNS.c.state.in_(ENDED),
        decided_at.is_not(None),
        decided_at != OWN_END,
        is_local(),
        ~is_own_end(),
        ~exempt.covers(RUNS.c.dag_id),
    )


def _read(connection: Any, exempt: Exemption, ids: Sequence[int], *, all_up_to: int | None) -> Sweep:
    """
    Return those of these runs that ended by themselves.

    :param all_up_to: there are no other runs up to this id; None: up to the last of *ids*.
    """
    query = select(*ROW).where(RUNS.c.id.in_(ids), *_ended_by_themselves(exempt)).order_by(RUNS.c.id)
    rows = [to_row(row) for row in connection.execute(query).all()] if ids else []
    counts = _count_tasks(connection, [row.key for row in rows])
    total = 0
    for position, row in enumerate(rows):
        total += counts.get(row.key, 0)
        if position and total > _MOST_TASKS:
            rows, all_up_to = rows[:position], rows[position - 1].id
            break
    notes = _notes(connection, [row.id for row in rows])
    tasks = history_tasks(connection, [row.key for row in rows])
    runs = tuple(
        HistoryRun(
            run=to_run(row, RunStatus(row.state), epoch=0),
            note=notes.get(row.id, ""),
            tasks=tuple(tasks.get(row.key, ())),
            row_id=row.id,
        )
        for row in rows
    )
    return Sweep(up_to=all_up_to if all_up_to is not None else ids[-1], runs=runs)


def _count_tasks(connection: Any, keys: Sequence[RunKey]) -> dict[RunKey, int]:
    found: dict[RunKey, int] = {}
    for batch in batched(keys, BATCH):
        query = (
            select(TASKS.c.dag_id, TASKS.c.run_id, func.count().label("tasks"))
            .where(tuple_(TASKS.c.dag_id, TASKS.c.run_id).in_(batch))
            .group_by(TASKS.c.dag_id, TASKS.c.run_id)
        )
        found |= {(row.dag_id, row.run_id): row.tasks for row in connection.execute(query)}
    return found


def _notes(connection: Any, ids: Sequence[int]) -> dict[int, str]:
    """Return the users' part of each note."""
    query = select(NOTES.c.dag_run_id, NOTES.c.content).where(NOTES.c.dag_run_id.in_(ids))
    return {row.dag_run_id: user_note(row.content) for row in connection.execute(query)}


def history_tasks(connection: Any, keys: Sequence[RunKey]) -> dict[RunKey, list[HistoryTask]]:
    """Return the task instances of runs, by task id and map index."""
    found: dict[RunKey, list[HistoryTask]] = defaultdict(list)
    columns = (
        TASKS.c.dag_id,
        TASKS.c.run_id,
        TASKS.c.task_id,
        TASKS.c.map_index,
        TASKS.c.state,
        TASKS.c.try_number,
        TASKS.c.max_tries,
        TASKS.c.queued_dttm,
        TASKS.c.start_date,
        TASKS.c.end_date,
        TASKS.c.operator,
        TASKS.c.pool,
        TASKS.c.hostname,
    )
    for batch in batched(keys, BATCH):
        query = (
            select(*columns)
            .where(tuple_(TASKS.c.dag_id, TASKS.c.run_id).in_(batch))
            .order_by(TASKS.c.task_id, TASKS.c.map_index)
        )
        for row in connection.execute(query):
            found[row.dag_id, row.run_id].append(
                HistoryTask(
                    task_id=row.task_id,
                    map_index=row.map_index,
                    state=None if row.state is None else str(row.state),
                    tries=row.try_number or 0,
                    max_tries=row.max_tries if row.max_tries is not None else -1,
                    queued_at=row.queued_dttm,
                    started_at=row.start_date,
                    ended_at=row.end_date,
                    operator=row.operator,
                    pool=row.pool,
                    host=row.hostname or "",
                )
            )
    return dict(found)
