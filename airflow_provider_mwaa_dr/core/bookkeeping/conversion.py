"""Runs of the metadata database as runs of the ledger."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_mwaa_dr.core.bookkeeping.database import OPEN_STATES, RunRow
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunEvent, RunStatus

CONF_BYTES = 200_000
"""The longest conf of a run, as JSON, that fits an item together with the run's other values."""
_REASON_CHARS = 500
"""The greatest length of the reason why a run's conf could not be stored."""
_OPEN = RunStatus.OPEN.value


def to_conf(conf: Any) -> tuple[str | None, str | None]:
    """Return a run's conf as JSON text, and the reason if it cannot be stored; one of them, or both, are None."""
    if not conf:
        return None, None
    try:
        text = json.dumps(conf, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return None, f"it is not JSON ({error})"
    if len(text) > CONF_BYTES:
        return None, f"it has {len(text)} characters as JSON, and the limit is {CONF_BYTES}"
    return text, None


def size_of(event: RunEvent) -> int:
    """Return about how many characters of JSON an event has in the ledger."""
    texts = (event.uri, event.name, event.group, event.extra, event.source_dag_id, event.source_task_id)
    more = (event.source_run_id, event.partition_key, *event.aliases)
    # A text may contain quotes, which JSON escapes.
    return 300 + sum(len(json.dumps(text)) for text in (*texts, *more) if text is not None)


def _to_events(row: RunRow, conf: str | None) -> tuple[tuple[RunEvent, ...] | None, str | None]:
    """Return the events of a run, and the reason if they cannot be stored."""
    if row.events is None or row.events_lost is not None:
        return None, row.events_lost
    size, limit = sum(map(size_of, row.events)), CONF_BYTES - len(conf or "")
    if size > limit:
        return None, f"they have {size} characters as JSON, and the limit is {limit}"
    return row.events, None


def to_run(row: RunRow, status: RunStatus, *, epoch: int) -> LedgerRun:
    """Return the run as the region publishes it under *epoch*, without its tasks."""
    has_ended = status in {RunStatus.SUCCESS, RunStatus.FAILED}
    conf, conf_lost = to_conf(row.conf) if row.conf_lost is None else (None, row.conf_lost)
    is_unfinished = status in {RunStatus.OPEN, RunStatus.INTERRUPTED}
    events, events_lost = _to_events(row, conf) if is_unfinished else (None, None)
    return LedgerRun(
        dag_id=row.dag_id,
        run_id=row.run_id,
        run_type=row.run_type,
        status=status,
        epoch=epoch,
        logical_date=row.logical_date,
        data_interval_start=row.data_interval_start,
        data_interval_end=row.data_interval_end,
        run_after=row.run_after,
        partition_key=row.partition_key,
        partition_date=row.partition_date,
        conf=conf,
        conf_lost=conf_lost[:_REASON_CHARS] if conf_lost is not None else None,
        holds_date=row.holds_date,
        triggered_by=row.triggered_by,
        triggering_user=row.triggering_user,
        deadlines=row.deadlines if is_unfinished else (),
        events=events,
        events_lost=events_lost[:_REASON_CHARS] if events_lost is not None else None,
        children=row.children if is_unfinished else (),
        started_at=row.started_at if has_ended else None,
        ended_at=row.ended_at if has_ended else None,
    )


def status_of(state: str) -> str:
    """Return a row's state as the ledger publishes it; queued and running are both open."""
    return _OPEN if state in OPEN_STATES else state


def is_open(run: LedgerRun | None) -> bool:
    """Whether the ledger has the run, and lists it as open."""
    return run is not None and run.status is RunStatus.OPEN


def was_queued(row: RunRow, run: LedgerRun) -> bool:
    """Whether the row shows that this or another process of the region queued the run after taking it over."""
    return row.is_open or (row.queued_at is not None and run.taken_at is not None and row.queued_at >= run.taken_at)
