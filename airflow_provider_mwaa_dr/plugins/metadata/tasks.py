"""Reads task instances, and which DAGs depend on them."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Text, and_, cast, func, or_, select, tuple_

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.ledger import RunKey, TaskState
from airflow_provider_mwaa_dr.plugins.metadata.imported import is_local
from airflow_provider_mwaa_dr.plugins.metadata.schema import ENDED, RUNS, SERIALIZED, TASKS, newest_serialized
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction

_NEWEST_RUNS = 1000
"""The search for the task that ended last covers this many of the newest runs."""
_DEPENDS_ON_PAST_TEXTS = ('"depends_on_past": true', '"depends_on_past":true')
"""How the JSON of a DAG shows ``depends_on_past``; Airflow also sets it for ``wait_for_downstream``."""


class DependsOnPast:
    """Knows which DAGs have a task with ``depends_on_past``; remembers the answer for each version of a DAG."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, bool]] = {}

    def among(self, connection: Any, dag_ids: Sequence[str]) -> set[str]:
        """
        Return those of *dag_ids* that have a task with ``depends_on_past`` in their newest serialized version.

        The database searches a DAG's JSON once, and again when the DAG's hash has changed.
        """
        for batch in batched(dag_ids, BATCH):
            newest = newest_serialized(batch)
            hashes = {row.dag_id: row.dag_hash for row in connection.execute(newest(SERIALIZED.c.dag_hash))}
            unknown = [dag_id for dag_id, found in hashes.items() if self._found.get(dag_id, ("",))[0] != found]
            if not unknown:
                continue
            text = cast(SERIALIZED.c.data, Text)
            found_in_text = or_(*(text.contains(words, autoescape=True) for words in _DEPENDS_ON_PAST_TEXTS))
            columns = found_in_text.label("depends"), SERIALIZED.c.data_compressed
            for row in connection.execute(newest_serialized(unknown)(*columns)):
                unpacked = zlib.decompress(row.data_compressed).decode() if row.data_compressed else ""
                depends = bool(row.depends) or any(words in unpacked for words in _DEPENDS_ON_PAST_TEXTS)
                self._found[row.dag_id] = hashes[row.dag_id], depends
        return {dag_id for dag_id in dag_ids if self._found.get(dag_id, ("", False))[1]}


def tasks(
    depends_on_past: DependsOnPast, keys: Collection[RunKey], of_each: Collection[RunKey] = ()
) -> dict[RunKey, list[TaskState]]:
    """Return the task instances of the runs whose DAG has tasks that depend on the previous run, and *of_each*."""
    with transaction() as session:
        connection = session.connection()
        dag_ids = depends_on_past.among(connection, sorted({dag_id for dag_id, _ in keys}))
        return task_states(connection, sorted({key for key in keys if key[0] in dag_ids} | set(of_each)))


def task_states(connection: Any, keys: Sequence[RunKey]) -> dict[RunKey, list[TaskState]]:
    """Return the task instances of those runs that have any, sorted by task id and map index."""
    found: dict[RunKey, list[TaskState]] = defaultdict(list)
    for batch in batched(keys, BATCH):
        query = (
            select(TASKS.c.dag_id, TASKS.c.run_id, TASKS.c.task_id, TASKS.c.map_index, TASKS.c.state)
            .where(tuple_(TASKS.c.dag_id, TASKS.c.run_id).in_(batch))
            .order_by(TASKS.c.task_id, TASKS.c.map_index)
        )
        for row in connection.execute(query):
            state = None if row.state is None else str(row.state)
            found[row.dag_id, row.run_id].append((row.task_id, row.map_index, state))
    return dict(found)


def last_task_end(since: datetime) -> datetime | None:
    """
    Return when the last task ended that had a worker, and that started no earlier than *since*; None if none did.

    Imported runs do not count. Reads the newest runs only, because the times of tasks, and those times of runs that
    would help, have no index.
    """
    newest = (
        select(RUNS.c.dag_id, RUNS.c.run_id).where(is_local()).order_by(RUNS.c.id.desc()).limit(_NEWEST_RUNS).subquery()
    )
    with transaction() as session:
        at: datetime | None = session.execute(
            select(func.max(TASKS.c.end_date))
            .join(newest, and_(newest.c.dag_id == TASKS.c.dag_id, newest.c.run_id == TASKS.c.run_id))
            .where(
                TASKS.c.start_date >= since,
                TASKS.c.end_date >= since,
                TASKS.c.hostname != "",
                TASKS.c.state.in_(ENDED),
            )
        ).scalar()
        return at
