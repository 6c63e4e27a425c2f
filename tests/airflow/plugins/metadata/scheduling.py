"""What the DAG processor and the scheduler of the installed Airflow do with a DAG: the runs that they create next."""

from __future__ import annotations

import inspect
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RegionLedger, history
from tests.airflow.plugins.metadata.chains import ledger_of
from tests.airflow.plugins.metadata.other_region import AT
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


def parse(database: Database, dag: Any) -> None:
    """Do what the DAG processor does after it has parsed the file of *dag*: the DAG's next run is computed again."""
    with suppress(AttributeError):  # Airflow 2 computes it
        dag.relative_fileloc = "orders.py"  # a DAG of a bundle always has one, and 3.0 requires it
    database.serialize(dag)
    session = database.settings.Session()
    try:
        try:
            from airflow.dag_processing.collection import DagModelOperation
        except ImportError:
            dag.bulk_write_to_db([dag], session=session)
        else:
            operation = DagModelOperation({dag.dag_id: _lazy(dag)}, "dags-folder", None)
            values = {"parse_duration": None}
            known = inspect.signature(operation.update_dags).parameters
            given = {name: value for name, value in values.items() if name in known}
            operation.update_dags(operation.find_orm_dags(session=session), session=session, **given)
        session.commit()
    finally:
        database.settings.Session.remove()


def _lazy(dag: Any) -> Any:
    from airflow.serialization.serialized_objects import LazyDeserializedDAG

    with suppress(AttributeError):
        return LazyDeserializedDAG.from_dag(dag)
    from airflow.serialization.serialized_objects import SerializedDAG

    return LazyDeserializedDAG(data=SerializedDAG.to_dict(dag))


def ended(*runs: LedgerRun, note: str = "a note") -> None:
    """Write runs that this region has executed."""
    from airflow_provider_mwaa_dr.plugins.metadata.insertion import insert_runs
    from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction

    with transaction() as session:
        insert_runs(session.connection(), runs, state=None, note=note)


def runs_created_next(database: Database, dag: Any, number: int) -> list[Any]:
    """Let the installed Airflow create the next *number* runs of *dag*; return their rows."""
    runs = database.tables.runs
    with database.settings.engine.connect() as connection:
        known = set(connection.execute(select(runs.c.id)).scalars())
    return [_run_created_next(database, dag, known) for _ in range(number)]


def pass_over(database: Database) -> None:
    """Let the scheduler examine the DAGs that need a run once. It creates none for a date that a run has."""
    session = database.settings.Session()
    try:
        found = database.DagModel.dags_needing_dagruns(session)[0].all()
        database.scheduler()._create_dag_runs(found, session)
        session.commit()
    finally:
        database.settings.Session.remove()


def _run_created_next(database: Database, dag: Any, known: set[int]) -> Any:
    runs = database.tables.runs
    parse(database, dag)

    def created() -> list[Any]:
        pass_over(database)
        with database.settings.engine.connect() as connection:
            return [row for row in connection.execute(select(runs)).all() if row.id not in known]

    # SQLite compares this time with the present second only.
    row = wait_until(created, "Airflow creates a run", deadline_s=5)[0]
    known.add(row.id)
    return row


def dates_created_next(database: Database, dag: Any, number: int = 3) -> list[datetime]:
    """Return the logical dates of the next *number* runs that the installed Airflow creates."""
    name = "logical_date" if "logical_date" in database.tables.runs.c else "execution_date"
    return [getattr(row, name) for row in runs_created_next(database, dag, number)]


def published(db: Any, *run_ids: str) -> RegionLedger:
    """Return the ledger of a region that has published these runs."""
    ledger = RegionLedger()
    runs = tuple(ledger_of(db, run_id) for run_id in run_ids)
    ledger.apply([LogEntry(number=1, at=AT, epoch=1, first_id=0, newest_id=0, runs=runs)])
    return ledger


def adopt(db: Any, ledger: RegionLedger) -> None:
    """Adopt the history of another region."""
    db.adopt(history([ledger], ["orders"]), "adopted")
