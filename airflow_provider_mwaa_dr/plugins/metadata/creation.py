"""
What Airflow does besides writing the row when it creates a run.

docs/explanation/created-runs.md lists it for each version.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

from sqlalchemy import select

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunDeadline
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    ALERTS,
    DEADLINES,
    bundle_versions,
    create_deadlines,
    create_tasks,
    find_run,
    newest_dag,
    with_alerts,
)

log = get_logger(__name__)


def pin_versions(session: Any, runs: Sequence[LedgerRun]) -> None:
    """
    Give new runs of DAGs whose bundle has versions the present version, as Airflow does (3.0 and later).

    It also creates the task instances, because the scheduler creates none for such a run.
    """
    versions = bundle_versions(session.connection(), {run.dag_id for run in runs})

    def pin(row: Any, dag: Any, run: LedgerRun) -> None:
        if not dag.disable_bundle_versioning:
            row.bundle_version = versions[run.dag_id]
            create_tasks(session, row, dag)

    _for_each(session, [run for run in runs if run.dag_id in versions], pin)


def add_deadlines(session: Any, runs: Sequence[LedgerRun]) -> None:
    """
    Create the deadlines of queued runs, as Airflow does for a new run (3.2 and later); repeatable.

    A deadline that another region published keeps its time, also if it has passed: the scheduler then requests its
    callback at once. If another region has found it missed, no region requests the callback again.
    """
    alerted = with_alerts(session.connection(), {run.dag_id for run in runs})

    def add(row: Any, dag: Any, run: LedgerRun) -> None:
        _create_deadlines(session, row, dag, run.deadlines)

    _for_each(session, [run for run in runs if run.dag_id in alerted], add)


def _for_each(session: Any, runs: Sequence[LedgerRun], act: Callable[[Any, Any, LedgerRun], None]) -> None:
    """Call *act* with the row, the DAG and the run, for each run that has both. An error affects only its run."""
    load = cache(lambda dag_id: newest_dag(session, dag_id))

    def try_one(run: LedgerRun) -> None:
        try:
            with session.begin_nested():
                row, dag = find_run(session, run.key), load(run.dag_id)
                if row is not None and dag is not None:
                    act(row, dag, run)
        except Exception as error:  # Airflow calls code of the DAG's author, and the run must start all the same
            log.warning(
                "%s %s starts without all that Airflow gives a new run (deadlines, version of the bundle): %s: %s",
                *run.key, type(error).__name__, error,
            )  # fmt: skip

    for run in runs:
        try_one(run)


def _create_deadlines(session: Any, row: Any, dag: Any, published: Sequence[RunDeadline]) -> None:
    """Create the deadlines that the run does not have."""
    present = {deadline.id: _alert_of(deadline.deadline_alert) for deadline in row.deadlines}
    known = {deadline.alert: deadline for deadline in published}
    create_deadlines(session, row, dag)
    session.flush()
    session.expire(row, ["deadlines"])
    for deadline in list(row.deadlines):
        alert = _alert_of(deadline.deadline_alert)
        if deadline.id in present:
            continue
        if alert in present.values():
            session.delete(deadline)
        elif alert in known:
            deadline.deadline_time, deadline.missed = known[alert].at, known[alert].is_missed
    session.flush()


def deadlines(connection: Any, run_ids: Collection[int]) -> dict[int, tuple[RunDeadline, ...]]:
    """Return the deadlines of runs by the ids of their rows; empty before 3.2."""
    if ALERTS is None or DEADLINES is None:
        return {}
    query = (
        select(DEADLINES.c.dagrun_id, DEADLINES.c.deadline_time, DEADLINES.c.missed, *_ALERT_COLUMNS)
        .join(ALERTS, ALERTS.c.id == DEADLINES.c.deadline_alert_id)
        .where(DEADLINES.c.dagrun_id.in_(run_ids))
        .order_by(DEADLINES.c.deadline_time, DEADLINES.c.id)
    )
    found: dict[int, list[RunDeadline]] = defaultdict(list)
    for row in connection.execute(query):
        deadline = RunDeadline(alert=_alert_of(row), at=row.deadline_time, is_missed=row.missed)
        found[row.dagrun_id].append(deadline)
    return {run_id: tuple(some) for run_id, some in found.items()}


_ALERT_COLUMNS = () if ALERTS is None else (ALERTS.c.reference, ALERTS.c.interval, ALERTS.c.callback_def)


def _alert_of(alert: Any) -> str:
    """Return the digest of an alert; an alert that was deleted has none."""
    if alert is None:
        return ""
    text = json.dumps([alert.reference, alert.interval, alert.callback_def], sort_keys=True, default=str)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:16]
