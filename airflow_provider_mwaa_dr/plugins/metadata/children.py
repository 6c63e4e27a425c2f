"""
Reads which runs the tasks of other runs have requested, and deletes runs that are requested again.

A task that triggers a run stores the id of that run as an XCom, after it has created the run. Its rendered fields name
the DAG. A run whose XCom is missing or cannot be read is a child without an id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Text, and_, cast, delete, or_, select, tuple_

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.ledger import ChildRun, RunKey
from airflow_provider_mwaa_dr.core.waits import COMPLETION_FIELD, TRIGGERS_FIELD, is_true
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.schema import NOTES, OPEN, RENDERED, RUNS, TASKS, XCOMS, read_xcom
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction

INSTANCE = ("dag_id", "run_id", "task_id", "map_index")
"""The columns that identify a task instance in each table."""
TRIGGERED_RUN = "trigger_run_id"
"""The XCom in which a task stores the id of the run that it triggered."""
MOST_CHILDREN = 1_000
"""The most children of a run that the ledger names, the unfinished ones first. It knows of the others without an id."""
_NOT_BEGUN = ("scheduled", "queued", "restarting")
_ID_FIELD = "trigger_run_id"
_DATE_FIELDS = ("logical_date", "execution_date")


def has_field(name: str) -> Any:
    """Return the condition that the rendered fields of a task contain this name. It may also be a part of a value."""
    return cast(RENDERED.c.rendered_fields, Text).contains(f'"{name}"', autoescape=True)


def of_open_runs(exempt: Exemption) -> dict[RunKey, tuple[ChildRun, ...]]:
    """Return the children of all open runs; runs without children are missing."""
    with transaction() as session:
        return children(session.connection(), and_(RUNS.c.state.in_(OPEN), ~exempt.covers(RUNS.c.dag_id)))


def children(connection: Any, condition: Any) -> dict[RunKey, tuple[ChildRun, ...]]:
    """
    Return the children of the runs that meet *condition*, sorted; runs without children are missing.

    An XCom of an earlier execution stays until the task begins again. It does not count.
    """
    found: dict[RunKey, set[ChildRun]] = defaultdict(set)
    for row in (*connection.execute(_stored(condition)), *connection.execute(_not_stored(condition))):
        fields = row.fields if isinstance(row.fields, Mapping) else {}
        if dag_id := fields.get(TRIGGERS_FIELD):
            run_id = read_xcom(row.value)
            child = ChildRun(
                dag_id=str(dag_id),
                run_id=run_id if isinstance(run_id, str) and run_id else None,
                is_awaited=is_true(fields.get(COMPLETION_FIELD)) or row.state == "deferred",
                has_fixed_id=_has_fixed_id(fields),
            )
            found[row.dag_id, row.run_id].add(child)
    return {key: _listed(connection, some) for key, some in found.items()}


def _stored(condition: Any) -> Any:
    """Return the query of the task instances that have stored the id of a run in this execution of their own run."""
    has_begun = and_(TASKS.c.state.is_not(None), TASKS.c.state.not_in(_NOT_BEGUN))
    # The scheduler puts a task back whose worker is gone. The run that the task requested continues.
    is_new = and_(RUNS.c.queued_at.is_not(None), XCOMS.c.timestamp >= RUNS.c.queued_at)
    return (
        _instances(XCOMS.c.value)
        .join(XCOMS, and_(*(XCOMS.c[name] == TASKS.c[name] for name in INSTANCE), XCOMS.c.dag_run_id == RUNS.c.id))
        .where(condition, XCOMS.c.key == TRIGGERED_RUN, or_(has_begun, is_new))
    )


def _not_stored(condition: Any) -> Any:
    """Return the query of the task instances that may just have requested a run, and have not stored its id yet."""
    of_task = and_(*(XCOMS.c[name] == TASKS.c[name] for name in INSTANCE), XCOMS.c.key == TRIGGERED_RUN)
    return (
        _instances(XCOMS.c.value)
        .outerjoin(XCOMS, of_task)
        .where(condition, TASKS.c.state == "running", has_field(TRIGGERS_FIELD), XCOMS.c.key.is_(None))
    )


def _instances(value: Any) -> Any:
    columns = (TASKS.c.dag_id, TASKS.c.run_id, TASKS.c.state, RENDERED.c.rendered_fields.label("fields"), value)
    return (
        select(*columns)
        .select_from(RUNS)
        .join(TASKS, and_(TASKS.c.dag_id == RUNS.c.dag_id, TASKS.c.run_id == RUNS.c.run_id))
        .join(RENDERED, and_(*(RENDERED.c[name] == TASKS.c[name] for name in INSTANCE)))
    )


def _has_fixed_id(fields: Mapping[str, Any]) -> bool:
    """Whether the rendered fields give the run its id, or its date, which a DAG has once."""
    run_id = fields.get(_ID_FIELD)
    return (bool(run_id) and run_id != "None") or any(_is_date(fields.get(name)) for name in _DATE_FIELDS)


def _is_date(value: object) -> bool:
    if not isinstance(value, str):
        return isinstance(value, datetime)
    try:
        datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return False
    return True


def _listed(connection: Any, found: Collection[ChildRun]) -> tuple[ChildRun, ...]:
    """Return the children, sorted; at most :data:`MOST_CHILDREN` with an id."""
    named = sorted((child for child in found if child.run_id is not None), key=_order)
    others = {child for child in found if child.run_id is None}
    if len(named) > MOST_CHILDREN:
        unfinished = _open([(child.dag_id, child.run_id or "") for child in named], connection)
        named.sort(key=lambda child: (child.dag_id, child.run_id) not in unfinished)
        cut = [child for child in named[MOST_CHILDREN:] if (child.dag_id, child.run_id) in unfinished]
        others |= {ChildRun(dag_id=child.dag_id, run_id=None, is_awaited=child.follows_parent) for child in cut}
        named = sorted(named[:MOST_CHILDREN], key=_order)
    return (*named, *sorted(others, key=_order))


def _order(child: ChildRun) -> tuple[str, str, bool, bool]:
    return child.dag_id, child.run_id or "", child.is_awaited, child.has_fixed_id


def _open(keys: Collection[RunKey], connection: Any) -> set[RunKey]:
    found: set[RunKey] = set()
    for batch in batched(sorted(keys), BATCH):
        query = select(RUNS.c.dag_id, RUNS.c.run_id).where(
            tuple_(RUNS.c.dag_id, RUNS.c.run_id).in_(batch), RUNS.c.state.in_(OPEN)
        )
        found |= {(row.dag_id, row.run_id) for row in connection.execute(query)}
    return found


def remove(keys: Collection[RunKey]) -> int:
    """
    Delete ended runs with everything that belongs to them; return how many. Idempotent.

    A parent then can request a run with the same id. An open run stays.
    """
    removed = 0
    for batch in batched(sorted(keys), BATCH):
        with transaction() as session:
            connection = session.connection()
            query = select(RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id).where(
                tuple_(RUNS.c.dag_id, RUNS.c.run_id).in_(batch), RUNS.c.state.not_in(OPEN)
            )
            rows = connection.execute(query.with_for_update()).all()
            of_runs = [(row.dag_id, row.run_id) for row in rows]
            ids = [row.id for row in rows]
            if not rows:
                continue
            for table in (XCOMS, RENDERED, TASKS):
                connection.execute(delete(table).where(tuple_(table.c.dag_id, table.c.run_id).in_(of_runs)))
            connection.execute(delete(NOTES).where(NOTES.c.dag_run_id.in_(ids)))
            # The database deletes the rows of all other tables together with these.
            connection.execute(delete(RUNS).where(RUNS.c.id.in_(ids)))
            removed += len(rows)
    return removed
