"""
Creates the runs of events that have arrived, and for which Airflow has not created a run, before the role moves.

Airflow creates no run for a paused DAG, and a failover pauses the DAGs of the source after the drain. It also gives an
event to the next run of the consumer, if the event arrives while an earlier one is queued. Only runs and their events
move with the role. So the source creates the runs itself, right before its final ledger entry; they stay queued.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, tuple_

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import EVENT_TRIGGERED, LedgerRun, RunStatus
from airflow_provider_mwaa_dr.core.translation import Era
from airflow_provider_mwaa_dr.plugins.metadata.creation import add_deadlines, pin_versions
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.insertion import insert_runs
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    ASSET_CONSUMERS,
    ASSET_QUEUE,
    ASSETS,
    DAGS,
    ERA,
    EVENT_ASSET,
    EVENTS,
    QUEUED_ASSET,
    RUN_EVENTS,
    RUNS,
    WATCHERS,
    is_present,
    update_run_limits,
)
from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction, utc_now

log = get_logger(__name__)

_RUN_TYPE = "asset_triggered"
_RECENT = timedelta(days=1)
"""Events of watchers are younger: their DAGs were unpaused until the failover paused them."""


def start_waiting_events(exempt: Exemption, note: str) -> int:
    """
    Create a queued run for each consumer whose condition is complete, with all events since its last run.

    A condition is complete with the events that wait in Airflow's queue, and with those that a watcher of an asset has
    taken from its queue since the last run. Half-filled conditions stay as they are. Nothing on Airflow 2.

    :return: how many runs were created.
    """
    if WATCHERS is None or ERA is Era.AIRFLOW_2:
        return 0
    return sum(_try_start(dag_id, expression, note) for dag_id, expression in _consumers(exempt).items())


def _consumers(exempt: Exemption) -> dict[str, Any]:
    """
    Return the conditions of the DAGs for which events wait, and of those with new events that no task has created.

    Airflow forgets the watchers of a paused DAG when it parses the file, so their table does not show these DAGs.
    """
    recent = and_(EVENTS.c.source_dag_id.is_(None), EVENTS.c.timestamp > utc_now() - _RECENT)
    watching = select(ASSET_CONSUMERS.c.dag_id).join(EVENTS, EVENT_ASSET == ASSET_CONSUMERS.c.asset_id).where(recent)
    waiting = select(ASSET_QUEUE.c.target_dag_id)
    query = select(DAGS.c.dag_id, DAGS.c.asset_expression).where(
        or_(DAGS.c.dag_id.in_(watching), DAGS.c.dag_id.in_(waiting)), is_present(), ~exempt.covers(DAGS.c.dag_id)
    )
    with transaction() as session:
        return {row.dag_id: row.asset_expression for row in session.execute(query)}


def _try_start(dag_id: str, expression: Any, note: str) -> int:
    try:
        return _start(dag_id, expression, note)
    except Exception:  # the other consumers must get their runs
        log.exception("The run for the events of %s could not be created.", dag_id)
        return 0


def _start(dag_id: str, expression: Any, note: str) -> int:
    with transaction() as session:
        connection = session.connection()
        of_dag = ASSET_QUEUE.c.target_dag_id == dag_id
        queued = connection.execute(select(QUEUED_ASSET).where(of_dag)).scalars().all()
        locking = select(QUEUED_ASSET).where(of_dag).with_for_update(skip_locked=True)
        if sorted(queued) != sorted(connection.execute(locking).scalars()):
            return 0  # a scheduler is creating the run
        events = _events_since_last_run(connection, dag_id)
        taken = {row.asset_id for row in events if (row.extra or {}).get("from_trigger") is True}
        if not events or not _holds(expression, _names(connection, {*queued, *taken})):
            return 0
        at = events[-1].timestamp
        run = LedgerRun(
            dag_id=dag_id,
            run_id=f"{_RUN_TYPE}__{at.isoformat()}__mwaa-dr",
            run_type=_RUN_TYPE,
            status=RunStatus.OPEN,
            epoch=0,
            run_after=at,
        )
        insert_runs(connection, [run], state="queued", note=note)
        of_run = select(RUNS.c.id).where(RUNS.c.dag_id == dag_id, RUNS.c.run_id == run.run_id)
        run_id = connection.execute(of_run).scalar_one()
        connection.execute(insert(RUN_EVENTS), [{"dag_run_id": run_id, "event_id": row.id} for row in events])
        if queued:
            keys = [(asset_id, dag_id) for asset_id in queued]
            connection.execute(delete(ASSET_QUEUE).where(tuple_(QUEUED_ASSET, ASSET_QUEUE.c.target_dag_id).in_(keys)))
        pin_versions(session, [run])
        add_deadlines(session, [run])
        update_run_limits(connection, [dag_id])
    log.info("Created run %s of %s for %d events, before the role moves", run.run_id, dag_id, len(events))
    return 1


def _events_since_last_run(connection: Any, dag_id: str) -> Sequence[Any]:
    """Return the events that Airflow would give the next run of a consumer, oldest first."""
    last = connection.execute(
        select(func.max(RUNS.c.run_after)).where(RUNS.c.dag_id == dag_id, RUNS.c.run_type.in_(EVENT_TRIGGERED))
    ).scalar()
    since = (
        last
        or connection.execute(
            select(func.min(ASSET_CONSUMERS.c.created_at)).where(ASSET_CONSUMERS.c.dag_id == dag_id)
        ).scalar()
    )
    of_assets = select(ASSET_CONSUMERS.c.asset_id).where(ASSET_CONSUMERS.c.dag_id == dag_id)
    if since is None:
        return ()
    query = (
        select(EVENTS.c.id, EVENT_ASSET.label("asset_id"), EVENTS.c.timestamp, EVENTS.c.extra)
        .where(EVENT_ASSET.in_(of_assets), EVENTS.c.timestamp > since)
        .order_by(EVENTS.c.timestamp, EVENTS.c.id)
    )
    found: Sequence[Any] = connection.execute(query).all()
    return found


def _names(connection: Any, asset_ids: Collection[int]) -> frozenset[str]:
    """Return names and URIs of assets. One text may be both."""
    query = select(ASSETS.c.name, ASSETS.c.uri).where(ASSETS.c.id.in_(sorted(asset_ids)))
    return frozenset(text for row in connection.execute(query) for text in row)


def _holds(condition: Any, present: Collection[str]) -> bool:
    """
    Return whether a DAG's condition holds, as Airflow stores it.

    :param present: names and URIs of the assets with events. A condition of an unknown form does not hold.
    """
    if isinstance(condition, str):
        return condition in present
    if not isinstance(condition, Mapping) or len(condition) != 1:
        return False
    (kind, value) = next(iter(condition.items()))
    if kind in _COMBINED and isinstance(value, list):
        return bool(value) and _COMBINED[kind](_holds(each, present) for each in value)
    if kind in {"asset", "asset_ref"} and isinstance(value, Mapping):
        return any(value.get(name) in present for name in ("name", "uri"))
    return False


_COMBINED: Mapping[str, Callable[..., bool]] = {"all": all, "any": any}
