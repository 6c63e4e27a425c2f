"""Reads the rows of runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, exists, func, or_, select, tuple_

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.bookkeeping import RunRow
from airflow_provider_mwaa_dr.core.config import NO_CONF_TAG
from airflow_provider_mwaa_dr.core.ledger import AUTOMATED, RunKey
from airflow_provider_mwaa_dr.plugins.metadata.children import children
from airflow_provider_mwaa_dr.plugins.metadata.creation import deadlines
from airflow_provider_mwaa_dr.plugins.metadata.events import events_of
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.imported import is_local
from airflow_provider_mwaa_dr.plugins.metadata.own_ends import is_skipped
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    DAGS,
    ENDED,
    LOGICAL_DATE,
    OPEN,
    PARTITION_DATE,
    PARTITION_KEY,
    RUN_COLUMNS,
    RUNS,
    TAGS,
    read_conf,
)
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction

_SAME_TIME = timedelta(minutes=1)
"""A run whose logical date is less than this away from its creation may have the time of the request as its date."""


def newest_run() -> int:
    """Return the highest id of a run; 0 if there is none."""
    with transaction() as session:
        return int(session.execute(select(func.max(RUNS.c.id))).scalar() or 0)


def read_states(exempt: Exemption, *, above: int) -> tuple[int, dict[RunKey, str]]:
    """
    Return the highest run id, and the states of all open runs and of all runs with an id above *above*.

    Imported runs are not among them, here and in all functions of this module.
    """
    of_ours = ~exempt.covers(RUNS.c.dag_id)
    columns = (RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id, RUNS.c.state)
    with transaction() as session:
        # Two queries, because each needs another index. The new runs first: the second query also returns a run
        # that is committed between the two, because it is open.
        new = session.execute(select(*columns).where(RUNS.c.id > above, of_ours, is_local())).all()
        still_open = session.execute(select(*columns).where(RUNS.c.state.in_(OPEN), of_ours)).all()
        newest = session.execute(select(func.max(RUNS.c.id))).scalar() or 0
    states = {(row.dag_id, row.run_id): str(row.state) for row in (*new, *still_open)}
    return int(newest), states


def rows(keys: Collection[RunKey]) -> list[RunRow]:
    """Return the rows of those *keys* that exist."""
    found: list[RunRow] = []
    for batch in batched(sorted(keys), BATCH):
        with transaction() as session:
            query = select(*ROW).where(key_in(batch), is_local())
            some = [to_row(row) for row in session.execute(query).all()]
            deadlines_of = deadlines(session.connection(), [read.id for read in some])
            events = events_of(session, some)
            children_of = children(session.connection(), key_in(batch))
            for read in some:
                of_run, lost = events.get(read.id, (None, None))
                found.append(
                    replace(
                        read,
                        deadlines=deadlines_of.get(read.id, ()),
                        events=of_run,
                        events_lost=lost,
                        children=children_of.get(read.key, ()),
                    )
                )
    return found


def last_finished(dag_ids: Collection[str]) -> list[RunRow]:
    """
    Return the newest ended interval of each DAG that has one, newer ended runs that hold a date, and last successes.

    Runs that the provider skipped do not count. The last successes are the newest run of any type that succeeded, and
    the newest interval that did.
    """
    found: list[RunRow] = []
    for batch in batched(sorted(dag_ids), BATCH):
        newest = _newest(batch, LOGICAL_DATE)
        partition = _newest(batch, PARTITION_DATE, PARTITION_KEY.is_not(None)) if PARTITION_KEY is not None else None
        query = select(*ROW).join(newest, and_(RUNS.c.dag_id == newest.c.dag_id, LOGICAL_DATE == newest.c.at))
        newer = (
            select(*ROW)
            .outerjoin(newest, RUNS.c.dag_id == newest.c.dag_id)
            .where(
                RUNS.c.dag_id.in_(batch),
                RUNS.c.run_type.not_in(AUTOMATED),
                RUNS.c.state.in_(ENDED),
                ~is_skipped(),
                is_local(),
                has_next_run(),
                or_(newest.c.at.is_(None), LOGICAL_DATE > newest.c.at),
            )
        )
        with transaction() as session:
            found += [to_row(row) for row in session.execute(query).all()]
            found += [row for row in map(to_row, session.execute(newer).all()) if row.holds_date]
            if partition is not None:
                of_date = and_(RUNS.c.dag_id == partition.c.dag_id, PARTITION_DATE == partition.c.at)
                newest_partition = select(*ROW).join(partition, of_date).where(RUNS.c.state.in_(ENDED), ~is_skipped())
                found += [to_row(row) for row in session.execute(newest_partition).all()]
            for of_type in ((), (RUNS.c.run_type.in_(AUTOMATED),)):
                success = _newest_success(batch, *of_type)
                of_success = and_(RUNS.c.dag_id == success.c.dag_id, LOGICAL_DATE == success.c.at)
                found += [to_row(row) for row in session.execute(select(*ROW).join(success, of_success)).all()]
    return list({row.key: row for row in found}.values())


def _newest_success(dag_ids: Sequence[str], *conditions: Any) -> Any:
    """Return the subquery of the newest date of each DAG's successes, as ``at``."""
    return (
        select(RUNS.c.dag_id, func.max(LOGICAL_DATE).label("at"))
        .where(RUNS.c.dag_id.in_(dag_ids), RUNS.c.state == "success", ~is_skipped(), is_local(), *conditions)
        .group_by(RUNS.c.dag_id)
        .subquery()
    )


def _newest(dag_ids: Sequence[str], date: Any, *conditions: Any) -> Any:
    """Return the subquery of the newest *date* of each DAG's ended intervals, as ``at``."""
    return (
        select(RUNS.c.dag_id, func.max(date).label("at"))
        .where(
            RUNS.c.dag_id.in_(dag_ids),
            RUNS.c.run_type.in_(AUTOMATED),
            RUNS.c.state.in_(ENDED),
            ~is_skipped(),
            is_local(),
            *conditions,
        )
        .group_by(RUNS.c.dag_id)
        .subquery()
    )


def has_next_run() -> Any:
    """Return the condition that the run's DAG has a schedule that creates further runs."""
    return exists().where(DAGS.c.dag_id == RUNS.c.dag_id, DAGS.c.next_dagrun.is_not(None))


def key_in(keys: Sequence[RunKey]) -> Any:
    """Return the condition that a run has one of *keys*."""
    return tuple_(RUNS.c.dag_id, RUNS.c.run_id).in_(keys)


def _keeps_conf() -> Any:
    """Return the condition that the conf of a run may be in no table of the provider: its DAG has the tag for it."""
    return exists().where(TAGS.c.dag_id == RUNS.c.dag_id, TAGS.c.name == NO_CONF_TAG)


ROW = (
    is_skipped().label("is_skipped"),
    has_next_run().label("has_next_run"),
    _keeps_conf().label("keeps_conf"),
    *RUN_COLUMNS,
)
"""The columns for :func:`to_row`."""


def to_row(row: Any) -> RunRow:
    """Return a row of :data:`ROW`."""
    values = dict(row._mapping)
    values["is_skipped"] = bool(values["is_skipped"])
    values["conf"], values["conf_lost"] = read_conf(values["conf"])
    if values.pop("keeps_conf") and (values["conf"] or values["conf_lost"] is not None):
        values["conf"], values["conf_lost"] = None, f"its DAG is tagged {NO_CONF_TAG}"
    values["holds_date"] = values.pop("has_next_run") and _holds_date(row)
    return RunRow(**values)


def _holds_date(row: Any) -> bool:
    """
    Whether a run's logical date may be the date of an interval, and the run is no interval itself.

    A run that a user requests without a date gets the time of the request on Airflow 2, with microseconds.
    """
    at = row.logical_date
    if at is None or row.run_type in AUTOMATED:
        return False
    return not (at.microsecond and row.queued_at is not None and abs(at - row.queued_at) < _SAME_TIME)
