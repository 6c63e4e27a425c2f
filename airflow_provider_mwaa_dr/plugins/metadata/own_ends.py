"""
The ends that the provider gives runs in a standby, and how it recognizes them later.

Airflow has no state for a run that must not execute here. The provider writes *failed*: as a success, the run would be
the "previous success" of other runs, and sensors for it would continue. The end is only for the time as a standby.
Before the region executes again, each of these ends is resolved (core/bookkeeping/resolving.py).

Users edit notes, so the note alone does not show whose end it is. The *mark* is a value of
``dag_run.last_scheduling_decision`` that no scheduler writes: :data:`OWN_END`. This column fits because

- every supported version has it, and no user can edit it;
- the scheduler reads it only of runs that are queued or running;
- Airflow itself overwrites it when the run begins again: a clear empties it, and each decision of a scheduler sets it
  to the present time. So a mark never stays on a run that executed later. ``creating_job_id``, ``clear_number`` and
  ``conf`` would keep their values.

Versions of the provider before the mark wrote only the note, and *success* for a run that the gate skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import and_, delete, exists, null, or_, select, tuple_, union, update

from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.notes import CLOSED
from airflow_provider_mwaa_dr.plugins.metadata.schema import ENDED, NOTES, PARTITION_KEY, RUNS, TASKS

OWN_END = datetime(1970, 1, 1, microsecond=2026, tzinfo=timezone.utc)
STATE = "failed"
"""The state of a run that the provider ended."""
END = {"state": STATE, "last_scheduling_decision": OWN_END}
"""The values of a row that the provider ends."""
_IS_NOTE = or_(*(NOTES.c.content.contains(text, autoescape=True) for text in CLOSED))


def task_exists(*conditions: Any) -> Any:
    """Return the condition that a run has a task instance that meets *conditions*."""
    return exists().where(TASKS.c.dag_id == RUNS.c.dag_id, TASKS.c.run_id == RUNS.c.run_id, *conditions)


def is_marked() -> Any:
    """Return the condition that the provider ended a run. If a user marked it as a success, this decision counts."""
    decided_at = RUNS.c.last_scheduling_decision
    # Without the second condition, it would be NULL for a run without a decision, and so would its negation.
    return and_(RUNS.c.state == STATE, decided_at.is_not(None), decided_at == OWN_END)


def _is_noted() -> Any:
    """Return the condition that a note shows that an earlier version ended the run before any task executed."""
    has_note = exists().where(NOTES.c.dag_run_id == RUNS.c.id, _IS_NOTE).correlate(RUNS)
    return and_(has_note, _executed_nothing())


def _executed_nothing() -> Any:
    """
    Return the condition that a run with a note of ours has ended, and that it executed nothing.

    The note stays when a run executes later. So no task instance may have had a worker, and none may have succeeded
    without one (EmptyOperator).
    """
    return and_(RUNS.c.state.in_(ENDED), ~task_exists(or_(TASKS.c.hostname != "", TASKS.c.state == "success")))


def is_own_end() -> Any:
    """Return the condition that the provider ended a run, so that its state says nothing about its work."""
    return or_(is_marked(), _is_noted())


def is_skipped() -> Any:
    """
    Return the condition that the provider has ended a run before any of its tasks executed.

    No task instance ever had a worker.
    """
    return or_(and_(is_marked(), ~task_exists(TASKS.c.hostname != "")), _is_noted())


def ids_of_own_ends(connection: Any, exempt: Exemption, *, above: int, up_to: int, limit: int) -> list[int]:
    """Return the first ids, in order, of runs that the provider ended, except those of exempt DAGs."""
    within = (RUNS.c.id > above, RUNS.c.id <= up_to, ~exempt.covers(RUNS.c.dag_id))
    marked = select(RUNS.c.id.label("id")).where(*within, is_marked())
    # The search by note begins with the notes: few runs have one.
    noted = select(NOTES.c.dag_run_id).join(RUNS, NOTES.c.dag_run_id == RUNS.c.id)
    of_notes = noted.where(*within, _IS_NOTE, _executed_nothing())
    both = union(marked, of_notes).subquery()
    return list(connection.execute(select(both.c.id).order_by(both.c.id).limit(limit)).scalars())


def own_ends_of(connection: Any, keys: Sequence[RunKey]) -> set[RunKey]:
    """Return those of *keys* that the provider ended."""
    if not keys:
        return set()
    query = select(RUNS.c.dag_id, RUNS.c.run_id).where(tuple_(RUNS.c.dag_id, RUNS.c.run_id).in_(keys), is_own_end())
    return {(row.dag_id, row.run_id) for row in connection.execute(query)}


def release(connection: Any, run_ids: Sequence[int]) -> None:
    """Take the mark from runs that have one: their state is a result from now on."""
    connection.execute(update(RUNS).where(RUNS.c.id.in_(run_ids), is_marked()).values(last_scheduling_decision=None))


def delete_runs(connection: Any, run_ids: Sequence[int]) -> list[Any]:
    """
    Delete those of *run_ids* that the provider ended and that executed nothing, with all that belongs to them.

    :return: id, keys, type and partition key of each deleted run.
    """
    key = RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id, RUNS.c.run_type
    partition = (null() if PARTITION_KEY is None else PARTITION_KEY).label("partition_key")
    query = select(*key, partition).where(RUNS.c.id.in_(run_ids), is_skipped())
    rows = connection.execute(query.with_for_update(of=RUNS)).all()
    if rows:
        keys = [(row.dag_id, row.run_id) for row in rows]
        found = [row.id for row in rows]
        connection.execute(delete(TASKS).where(tuple_(TASKS.c.dag_id, TASKS.c.run_id).in_(keys)))
        connection.execute(delete(NOTES).where(NOTES.c.dag_run_id.in_(found)))
        connection.execute(delete(RUNS).where(RUNS.c.id.in_(found)))
    return rows
