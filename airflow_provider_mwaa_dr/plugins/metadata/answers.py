"""
Answers to tasks that wait for a person (Airflow 3.2 and later; MWAA has no 3.1).

Airflow accepts an answer although the task has ended, and nothing uses it. So a region that has closed the runs of an
earlier role marks their questions as answered, by the provider and without a choice: Airflow then refuses an answer,
and shows why. When such a task starts again, Airflow asks again.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import and_, func, select, update

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import NOTE_TOKEN
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.schema import AT_WORK, QUESTIONS, RUNS, TASKS, existing_columns
from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction, utc_now

log = get_logger(__name__)

_MOST = 200
"""Questions in one statement."""


def unused_answers(connection: Any, of_runs: Any) -> dict[int, str]:
    """
    Return a sentence for each run with answers that none of its tasks has used, by the id of the run.

    :param of_runs: the condition of the open task instances; before these are closed.
    """
    if QUESTIONS is None:
        return {}
    rows = connection.execute(
        select(RUNS.c.id, TASKS.c.dag_id, TASKS.c.run_id, TASKS.c.task_id, QUESTIONS.c.responded_by)
        .join(TASKS, TASKS.c.id == QUESTIONS.c.ti_id)
        .join(RUNS, and_(RUNS.c.dag_id == TASKS.c.dag_id, RUNS.c.run_id == TASKS.c.run_id))
        .where(of_runs, QUESTIONS.c.responded_at.is_not(None), _is_open())
        .order_by(TASKS.c.task_id)
    ).all()
    tasks: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        user = (row.responded_by or {}).get("name", "unknown")
        log.warning(
            "%s %s: the answer of %s to task %s arrived after the region had lost the role, and was not used. Answer "
            "again in the active region.", row.dag_id, row.run_id, user, row.task_id,
        )  # fmt: skip
        tasks[row.id].append(row.task_id)
    return {
        run_id: f"an answer was not used (task {', '.join(names)}): answer again in the active region"
        for run_id, names in tasks.items()
    }


def refuse_answers(exempt: Exemption, why: str) -> int:
    """
    Let Airflow refuse answers to tasks that have ended, except those of exempt DAGs. Idempotent.

    :param why: Airflow shows it as the name of the person who answered.
    :return: how many questions were closed.
    """
    if QUESTIONS is None:
        return 0
    ended = (
        select(QUESTIONS.c.ti_id)
        .join(TASKS, TASKS.c.id == QUESTIONS.c.ti_id)
        .where(QUESTIONS.c.responded_at.is_(None), ~_is_open(), ~exempt.covers(TASKS.c.dag_id))
        .limit(_MOST)
    )
    closed = 0
    while True:
        with transaction() as session:
            connection = session.connection()
            ids = list(connection.execute(ended).scalars())
            if ids:
                values = {
                    "responded_at": utc_now(),
                    "responded_by": {"id": "mwaa-dr", "name": f"{NOTE_TOKEN} {why}"},
                    "chosen_options": [],
                }
                unanswered = and_(QUESTIONS.c.ti_id.in_(ids), QUESTIONS.c.responded_at.is_(None))
                connection.execute(update(QUESTIONS).where(unanswered).values(existing_columns(QUESTIONS, values)))
        closed += len(ids)
        if len(ids) < _MOST:
            break
    if closed:
        log.info("Airflow refuses answers to %d tasks from now on: %s", closed, why)
    return closed


def _is_open() -> Any:
    return func.coalesce(TASKS.c.state, AT_WORK[0]).in_(AT_WORK)
