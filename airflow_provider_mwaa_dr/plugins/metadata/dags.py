"""The region's DAGs that are not exempt, and their pausing."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select, update

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.schema import DAGS, is_present
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction


def dag_ids(exempt: Exemption) -> tuple[str, ...]:
    """Return the ids of all DAGs that are in the folder and not exempt."""
    with transaction() as session:
        query = select(DAGS.c.dag_id).where(is_present(), ~exempt.covers(DAGS.c.dag_id)).order_by(DAGS.c.dag_id)
        return tuple(session.execute(query).scalars())


def unpaused_dags(exempt: Exemption) -> tuple[str, ...]:
    """Return the ids of the DAGs that are unpaused, in the folder and not exempt."""
    with transaction() as session:
        ids = session.execute(
            select(DAGS.c.dag_id)
            .where(DAGS.c.is_paused.is_(False), is_present(), ~exempt.covers(DAGS.c.dag_id))
            .order_by(DAGS.c.dag_id)
        ).scalars()
        return tuple(ids)


def pause_all(exempt: Exemption) -> int:
    """Pause every DAG that is not exempt; return how many were not paused before."""
    with transaction() as session:
        result = session.connection().execute(
            update(DAGS).where(DAGS.c.is_paused.is_(False), ~exempt.covers(DAGS.c.dag_id)).values(is_paused=True)
        )
        return int(result.rowcount)


def set_paused(exempt: Exemption, dag_ids: Collection[str], *, paused: bool) -> int:
    """Pause or unpause those of *dag_ids* that exist and are not exempt; return how many changed."""
    changed = 0
    for batch in batched(sorted(dag_ids), BATCH):
        with transaction() as session:
            result = session.connection().execute(
                update(DAGS)
                .where(DAGS.c.dag_id.in_(batch), DAGS.c.is_paused.is_(not paused), ~exempt.covers(DAGS.c.dag_id))
                .values(is_paused=paused)
            )
            changed += int(result.rowcount)
    return changed
