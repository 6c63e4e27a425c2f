"""Reads what the tasks of running runs wait for; :mod:`airflow_provider_mwaa_dr.core.waits` has the rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, exists, func, or_, select, tuple_, update

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.core.waits import SENSES_FIELD, TRIGGERS_FIELD, HeldRun, Waiter, Waits, find_waits
from airflow_provider_mwaa_dr.plugins.metadata.children import INSTANCE, TRIGGERED_RUN, has_field
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.runs import key_in
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    DAGS,
    LOGICAL_DATE,
    QUEUE_DATE,
    RENDERED,
    RUNS,
    TASKS,
    XCOMS,
    read_trigger,
    read_xcom,
)
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction

_STATES = ("running", "deferred", "up_for_reschedule", "scheduled", "queued")
"""States of a task instance that may wait. One that is up for retry waits for nothing: it begins again."""
_EXECUTES = ("running", "queued", "restarting")
"""States in which a worker has a task instance, or gets it although its DAG is paused."""
_DATES = ("logical_dates", "execution_dates")
"""The values of a sensor's trigger that list the dates; the newer name first."""
_MOST_OTHERS = 20


def read_waits(exempt: Exemption) -> Waits:
    """Return which queued runs unfinished tasks of running runs wait for, and the first of all tasks that wait."""
    with transaction() as session:
        connection = session.connection()
        found = connection.execute(_begun(exempt).where(_names_a_dag())).all()
        run_ids = _triggered_runs(connection, [row for row in found if row.fields.get(TRIGGERS_FIELD)])
        waiters = [
            _to_waiter(
                row,
                row.fields,
                triggered_run_id=run_ids.get(_instance(row)),
                trigger_dates=_dates(session, row.trigger_id) if row.fields.get(SENSES_FIELD) else None,
            )
            for row in found
        ]
        others = connection.execute(_begun(exempt).where(_waits_for_something_else()).limit(_MOST_OTHERS)).all()
        waiters += [_to_waiter(row, {}) for row in others]
        named = {dag_id for waiter in waiters if (dag_id := waiter.awaited_dag) is not None}
        return find_waits(waiters, _held(connection, named), idle=_count_idle(connection, exempt))


def put_first(keys: Collection[RunKey]) -> None:
    """
    Let the scheduler examine these queued runs before all others. Idempotent; locked rows are left for the next call.

    It examines the first runs of the queue only, and a run that the gate has held is at the place of its date.
    """
    for batch in batched(sorted(keys), BATCH):
        with transaction() as session:
            connection = session.connection()
            query = (
                select(RUNS.c.id)
                .where(key_in(batch), RUNS.c.state == "queued", RUNS.c.last_scheduling_decision.is_not(None))
                .with_for_update(skip_locked=True)
            )
            ids = [*connection.execute(query).scalars()]
            if ids:
                connection.execute(update(RUNS).where(RUNS.c.id.in_(ids)).values(last_scheduling_decision=None))


def _begun(exempt: Exemption) -> Any:
    """Return the query of the unfinished task instances of running runs, with their rendered fields."""
    return (
        select(
            TASKS.c.dag_id,
            TASKS.c.run_id,
            TASKS.c.task_id,
            TASKS.c.map_index,
            TASKS.c.state,
            TASKS.c.operator,
            TASKS.c.trigger_id,
            DAGS.c.is_paused,
            func.coalesce(LOGICAL_DATE, QUEUE_DATE, type_=LOGICAL_DATE.type).label("date"),
            RENDERED.c.rendered_fields.label("fields"),
        )
        .join(RUNS, and_(RUNS.c.dag_id == TASKS.c.dag_id, RUNS.c.run_id == TASKS.c.run_id))
        .join(DAGS, DAGS.c.dag_id == TASKS.c.dag_id)
        .outerjoin(RENDERED, and_(*(RENDERED.c[name] == TASKS.c[name] for name in INSTANCE)))
        .where(RUNS.c.state == "running", TASKS.c.state.in_(_STATES), ~exempt.covers(TASKS.c.dag_id))
        .order_by(TASKS.c.dag_id, TASKS.c.run_id, TASKS.c.task_id, TASKS.c.map_index)
    )


def _names_a_dag() -> Any:
    """Return the condition that the rendered fields name another DAG. The database searches in their text."""
    return or_(has_field(TRIGGERS_FIELD), has_field(SENSES_FIELD))


def _waits_for_something_else() -> Any:
    """Return the condition that a task waits, and that its rendered fields name no other DAG."""
    is_sensor = TASKS.c.operator.contains("Sensor")
    is_waiting = or_(TASKS.c.state.in_(("deferred", "up_for_reschedule")), and_(TASKS.c.state == "running", is_sensor))
    return and_(is_waiting, or_(RENDERED.c.dag_id.is_(None), ~_names_a_dag()))


def _instance(row: Any) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in INSTANCE)


def _triggered_runs(connection: Any, rows: Sequence[Any]) -> dict[tuple[Any, ...], str]:
    """Return the id of the run that each task instance triggered, where a readable XCom has it."""
    found: dict[tuple[Any, ...], str] = {}
    columns = [XCOMS.c[name] for name in INSTANCE]
    for batch in batched([_instance(row) for row in rows], BATCH):
        query = select(*columns, XCOMS.c.value).where(XCOMS.c.key == TRIGGERED_RUN, tuple_(*columns).in_(batch))
        for row in connection.execute(query):
            run_id = read_xcom(row.value)
            if isinstance(run_id, str):
                found[_instance(row)] = run_id
    return found


def _dates(session: Any, trigger_id: Any) -> tuple[datetime, ...] | None:
    """Return the dates that a deferred sensor waits for; empty if they cannot be read; None if it is not deferred."""
    if trigger_id is None:
        return None
    values = read_trigger(session, trigger_id) or {}
    dates: Iterable[Any] = next((values[name] for name in _DATES if values.get(name)), ())
    return tuple(date for date in dates if isinstance(date, datetime))


def _to_waiter(row: Any, fields: Mapping[str, Any], **values: Any) -> Waiter:
    return Waiter(
        run=(row.dag_id, row.run_id),
        task_id=row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]",
        state=str(row.state),
        operator=row.operator or "",
        is_dag_paused=bool(row.is_paused),
        fields=fields,
        date=row.date,
        **values,
    )


def _held(connection: Any, dag_ids: Collection[str]) -> list[HeldRun]:
    """Return the queued runs of DAGs."""
    found = []
    for batch in batched(sorted(dag_ids), BATCH):
        query = (
            select(RUNS.c.dag_id, RUNS.c.run_id, LOGICAL_DATE.label("date"), DAGS.c.is_paused)
            .join(DAGS, DAGS.c.dag_id == RUNS.c.dag_id)
            .where(RUNS.c.dag_id.in_(batch), RUNS.c.state == "queued")
        )
        found += [
            HeldRun(key=(row.dag_id, row.run_id), date=row.date, is_dag_paused=bool(row.is_paused))
            for row in connection.execute(query)
        ]
    return found


def _count_idle(connection: Any, exempt: Exemption) -> int:
    """Return how many running runs of paused DAGs have no task that a worker executes, or will get."""
    executes = exists().where(
        TASKS.c.dag_id == RUNS.c.dag_id, TASKS.c.run_id == RUNS.c.run_id, TASKS.c.state.in_(_EXECUTES)
    )
    query = (
        select(func.count())
        .select_from(RUNS.join(DAGS, DAGS.c.dag_id == RUNS.c.dag_id))
        .where(RUNS.c.state == "running", DAGS.c.is_paused.is_(True), ~executes, ~exempt.covers(RUNS.c.dag_id))
    )
    return int(connection.execute(query).scalar_one())
