"""A DAG of two tasks in sequence, and its runs in the installed Airflow."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.aws.dynamodb import runs_store
from airflow_provider_mwaa_dr.core.bookkeeping.conversion import to_run
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunStatus
from tests.airflow.plugins.metadata.other_region import AT, DAY, open_interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

ONE, TWO = ("one", -1), ("two", -1)


def operator() -> Any:
    try:
        from airflow.providers.standard.operators.bash import BashOperator
    except ImportError:
        from airflow.operators.bash import BashOperator
    return BashOperator


def bash(task_id: str, **values: Any) -> Any:
    return operator()(task_id=task_id, bash_command="true", **values)


def chain(*, catchup: bool = True, schedule: Any = "@daily", max_active_runs: int = 16, **first: Any) -> Any:
    """A DAG of two tasks in sequence; *first* are the arguments of the first task."""
    from airflow import DAG

    limits = {"catchup": catchup, "max_active_runs": max_active_runs}
    with DAG("orders", schedule=schedule, start_date=AT - 100 * DAY, **limits) as dag:
        bash("one", **first) >> bash("two")
    return dag


def ledger_of(db: Any, run_id: str, *, status: RunStatus | None = None) -> LedgerRun:
    """Return a run of this region as another region reads it from the ledger."""
    (row,) = db.runs([("orders", run_id)])
    run = to_run(row, status or RunStatus(row.state), epoch=1)
    if run.has_ended:
        run = replace(run, tasks=tuple(db.tasks([run.key]).get(run.key, ())))
    text = json.dumps(runs_store.run_to_json(run))
    return runs_store.run_from_json(json.loads(text))


def executed(database: Database, db: Any, run: LedgerRun, one: str, two: str) -> None:
    """Execute a run in this region, up to the given states of its tasks."""
    db.resume([replace(run, status=RunStatus.OPEN)], "resumed")
    database.schedule(run.run_id)
    database.end(run.run_id, "success" if one == two == "success" else "failed", one=one, two=two)


def next_one_starts(database: Database, db: Any, day: float = 3) -> bool:
    """Queue the next interval, let the scheduler decide, and return whether its first task goes to a worker."""
    db.resume([open_interval(day)], "resumed")
    states = database.schedule(f"scheduled__{day}")
    assert set(states) == {ONE, TWO}, "the scheduler has created its task instances"
    return states[ONE] == "scheduled"
