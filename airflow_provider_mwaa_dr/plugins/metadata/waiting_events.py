"""
Events of assets that wait for other events before Airflow creates a run of their consumer.

Airflow keeps them in its database without a limit of time. An event that a region received in an earlier role would
otherwise start a run, together with an event that arrives after the region has become active again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, true, tuple_

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    ASSET_QUEUE,
    ASSETS,
    PARTITION_EVENTS,
    PARTITION_QUEUE,
    QUEUED_ASSET,
)
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction

log = get_logger(__name__)


def drop_waiting_events(exempt: Exemption, why: str, *, spared_since: datetime | None = None) -> int:
    """
    Remove the events that have started no run, except those of exempt DAGs; log them by DAG. Idempotent.

    The events themselves stay in Airflow's list of events; only the conditions of their consumers forget them. Locked
    rows are left for the next call.

    :param why: for the log.
    :param spared_since: events since then stay. They may have arrived after the region had become active.
    :return: how many were removed.
    """
    dropped = 0
    for drop in (_drop_events, _drop_partitions):
        while found := drop(exempt, spared_since):
            for dag_id, names in found.items():
                log.warning(
                    "Removed events that had started no run of %s (%s): %s. If the run is needed, trigger it in the "
                    "active region.",
                    dag_id, why, ", ".join(names),
                )  # fmt: skip
            number = sum(map(len, found.values()))
            dropped += number
            if number < BATCH:
                break
    return dropped


def _drop_events(exempt: Exemption, since: datetime | None) -> dict[str, list[str]]:
    """Remove a batch of events from the queue; return the URIs of their assets by consumer."""
    consumer = ASSET_QUEUE.c.target_dag_id
    query = (
        select(consumer, QUEUED_ASSET.label("asset"), ASSETS.c.uri)
        .join(ASSETS, ASSETS.c.id == QUEUED_ASSET)
        .where(~exempt.covers(consumer), _is_before(ASSET_QUEUE, since))
        .order_by(consumer, QUEUED_ASSET)
        .limit(BATCH)
        .with_for_update(skip_locked=True, of=ASSET_QUEUE)
    )
    with transaction() as session:
        connection = session.connection()
        rows = connection.execute(query).all()
        if rows:
            keys = [(row.target_dag_id, row.asset) for row in rows]
            connection.execute(delete(ASSET_QUEUE).where(tuple_(consumer, QUEUED_ASSET).in_(keys)))
    return _by_dag((row.target_dag_id, row.uri) for row in rows)


def _drop_partitions(exempt: Exemption, since: datetime | None) -> dict[str, list[str]]:
    """Remove a batch of runs of partitions that Airflow has not created; return their partition keys by consumer."""
    if PARTITION_QUEUE is None or PARTITION_EVENTS is None:
        return {}
    consumer = PARTITION_QUEUE.c.target_dag_id
    query = (
        select(PARTITION_QUEUE.c.id, consumer, PARTITION_QUEUE.c.partition_key)
        .where(
            PARTITION_QUEUE.c.created_dag_run_id.is_(None),
            ~exempt.covers(consumer),
            _is_before(PARTITION_QUEUE, since),
        )
        .order_by(PARTITION_QUEUE.c.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    with transaction() as session:
        connection = session.connection()
        rows = connection.execute(query).all()
        if rows:
            ids = [row.id for row in rows]
            connection.execute(delete(PARTITION_EVENTS).where(PARTITION_EVENTS.c.asset_partition_dag_run_id.in_(ids)))
            connection.execute(delete(PARTITION_QUEUE).where(PARTITION_QUEUE.c.id.in_(ids)))
    return _by_dag((row.target_dag_id, f"partition {row.partition_key}") for row in rows)


def _is_before(table: Any, since: datetime | None) -> Any:
    return true() if since is None else table.c.created_at < since


def _by_dag(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for dag_id, name in pairs:
        found[dag_id].append(name)
    return found
