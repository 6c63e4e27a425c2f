"""Queues the interrupted and unstarted runs of another region in this region."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.bookkeeping import NO_RERUN_TAG, OPTED_OUT, to_conf
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey
from airflow_provider_mwaa_dr.plugins.metadata.creation import add_deadlines, pin_versions
from airflow_provider_mwaa_dr.plugins.metadata.events import add_events, why_no_events
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.foreign_runs import Translation
from airflow_provider_mwaa_dr.plugins.metadata.imported import delete_rows, drop_imported
from airflow_provider_mwaa_dr.plugins.metadata.insertion import insert_runs, insertable
from airflow_provider_mwaa_dr.plugins.metadata.notes import put_note
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    DAGS,
    OPEN,
    RUNS,
    SCHEDULER_STARTS_BACKFILLS,
    TAGS,
    clear_tasks,
    find_run,
    is_present,
    queue_date,
    update_run_limits,
)
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction, utc_now


def cannot_resume(exempt: Exemption, runs: Sequence[LedgerRun]) -> dict[RunKey, str]:
    """Return the runs that this region must not or cannot queue, with the reason."""
    dag_ids = sorted({run.dag_id for run in runs})
    present: set[str] = set()
    opted_out: set[str] = set()
    taken: dict[RunKey, str] = {}
    with transaction() as session:
        connection = session.connection()
        for batch in batched(dag_ids, BATCH):
            ours = select(DAGS.c.dag_id).where(DAGS.c.dag_id.in_(batch), is_present(), ~exempt.covers(DAGS.c.dag_id))
            present |= set(connection.execute(ours).scalars())
            tagged = select(TAGS.c.dag_id).where(TAGS.c.dag_id.in_(batch), TAGS.c.name == NO_RERUN_TAG)
            opted_out |= set(connection.execute(tagged).scalars())
        for some in batched(runs, BATCH):
            translation = Translation(session, some)
            taken |= why_no_events(connection, some)
            taken |= {run.key: why for run in some if (why := translation.why_taken(run)) is not None}
    refused = {}
    for run in runs:
        if run.dag_id not in present:
            refused[run.key] = "its DAG is not in this region, or exempt"
        elif run.dag_id in opted_out:
            refused[run.key] = OPTED_OUT
        elif run.run_type == "backfill" and not SCHEDULER_STARTS_BACKFILLS:
            refused[run.key] = "before Airflow 3, only the command that started a backfill can continue it"
        elif run.key in taken:
            refused[run.key] = taken[run.key]
    return refused


def resume(runs: Sequence[LedgerRun], note: str) -> dict[RunKey, str]:
    """
    Queue runs with their old ids and all their other values; all their tasks execute again. Idempotent.

    A run of another era of Airflow may get a logical date that is a microsecond later; see :mod:`.core.translation`. A
    run that is already open does not change. ``queued_at`` becomes ``taken_at``, or later.

    :return: the runs that could not be queued, with the reason; all others are queued.
    """
    failed: dict[RunKey, str] = {}
    for batch in batched(runs, BATCH):
        with transaction() as session:
            connection = session.connection()
            translation = Translation(session, batch)
            if copies := translation.copies(batch):
                delete_rows(connection, copies)
                translation = Translation(session, batch)
            taken = translation.taken
            held = why_no_events(connection, batch)
            held |= {run.key: why for run in batch if (why := translation.why_taken(run)) is not None}
            new, refused = insertable([translation.to_resume(run) for run in batch if run.key not in held], taken)
            refused |= held
            drop_imported(connection, new, _requested_again(batch))
            insert_runs(connection, new, state="queued", note=note)
            add_events(connection, new)
            pin_versions(session, new)
            add_deadlines(session, new)
            update_run_limits(connection, {run.dag_id for run in new})
        failed |= refused
        for run in batch:
            if run.key in held or run.key not in taken.runs or taken.runs[run.key] in OPEN:
                continue
            try:
                _queue_again(run, note)
            except Exception as error:  # an error of Airflow for this run must not stop the other runs
                failed[run.key] = f"this region cannot queue it: {type(error).__name__}: {error}"
    return failed


def _requested_again(runs: Sequence[LedgerRun]) -> set[RunKey]:
    """Return the runs that the tasks of *runs* request again under the same id. Airflow refuses an id that exists."""
    children = (child for run in runs for child in run.children if child.has_fixed_id)
    return {(child.dag_id, child.run_id) for child in children if child.run_id is not None}


def _queue_again(run: LedgerRun, note: str) -> None:
    """Clear a run that this region closed, as Airflow does: it keeps the attempts and allows another one."""
    with transaction() as session:
        found = find_run(session, run.key)
        if found is None or found.state in OPEN:
            return
        taken_at = run.taken_at or utc_now()
        if found.queued_at is not None and found.queued_at >= taken_at:
            return  # another agent has queued it
        clear_tasks(session, run.key)
        session.flush()
        queued_at = max(utc_now(), taken_at)
        values: dict[str, Any] = {
            "state": "queued",
            "start_date": None,
            "end_date": None,
            "queued_at": queued_at,
            "last_scheduling_decision": queue_date(found),
        }
        if to_conf(found.conf)[0] != run.conf:
            # A user requested a run with the same id while this region was a standby. The provider closed that
            # run, so the conf of the resumed run counts.
            values["conf"] = json.loads(run.conf) if run.conf is not None else {}
        connection = session.connection()
        connection.execute(update(RUNS).where(RUNS.c.id == found.id).values(values))
        update_run_limits(connection, [run.dag_id])
        put_note(connection, found.id, note)
        add_events(connection, [run])
        add_deadlines(session, [run])
