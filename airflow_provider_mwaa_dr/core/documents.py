"""
States, records and previews as JSON documents.

Keys and meaning are a contract: the command line prints them, and the operators hand them to XCom.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from airflow_provider_mwaa_dr.core.failover import FailoverPreview
from airflow_provider_mwaa_dr.core.health import Diagnosis
from airflow_provider_mwaa_dr.core.ports import FailoverOutcome, FailoverRecord, HeldTasks, Unpublished
from airflow_provider_mwaa_dr.core.readiness.model import CheckResult
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Plan
from airflow_provider_mwaa_dr.exceptions import UnreadableItem


def iso(at: datetime) -> str:
    """Return a time in the format of all documents: ISO-8601, UTC, whole seconds, ``Z``."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def state_document(state: DRState) -> dict[str, Any]:
    """Return the document of the state item, without the regions."""
    return {
        "active_region": state.active_region,
        "epoch": state.epoch,
        "version": state.version,
        "phase": state.phase.value,
        "plan": _plan_document(state.plan) if state.plan is not None else None,
        "failover_count": state.failover_count,
        "last_updated": iso(state.last_updated),
    }


def _plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "id": plan.id,
        "from": plan.source,
        "to": plan.target,
        "mode": plan.mode.value,
        "reason": plan.reason,
        "by": plan.by,
        "owner": plan.owner,
        "started_at": iso(plan.started_at),
        "hold": _hold_document(plan),
    }


def _hold_document(plan: Plan) -> dict[str, Any] | None:
    """Return the stage at which the plan halts; None if it continues to its end."""
    if plan.hold is None:
        return None
    return {
        "stage": plan.hold.value,
        "is_halted": plan.is_halted,
        "hold_s": plan.hold_s,
        "halts": plan.halts,
    }


def record_document(record: FailoverRecord) -> dict[str, Any]:
    """Return the document of a record; it has ``unreadable`` only if a part of the record could not be read."""
    return {
        "id": record.id,
        "from": record.source,
        "to": record.target,
        "mode": _carried_out(record.mode) if record.unreadable is None else None,
        "reason": record.reason,
        "by": record.by,
        "started_at": iso(record.started_at),
        "finished_at": iso(record.finished_at) if record.finished_at is not None else None,
        "outcome": record.outcome.value,
        "epoch": record.epoch,
        "steps": [
            {"name": step.name, "seconds": round(step.seconds, 3), "detail": step.detail} for step in record.steps
        ],
        "not_unpaused": list(record.not_unpaused),
        "ended_in_standby": list(record.ended_in_standby),
        **({"unreadable": unreadable_document(record.unreadable)} if record.unreadable is not None else {}),
    }


def unreadable_document(item: UnreadableItem) -> dict[str, str]:
    """Return the document of an item that cannot be read."""
    return {
        "table": item.table,
        "key": item.key,
        "field": item.field,
        "found": item.found,
        "allowed": item.allowed,
        "advice": item.advice,
    }


def nothing_done_document(state: DRState, *, reason: str, by: str) -> dict[str, Any]:
    """Return the document of a failover to the active region, which is a no-op: the same keys as a record."""
    return {
        "id": None,
        "from": state.active_region,
        "to": state.active_region,
        "mode": None,
        "reason": reason,
        "by": by,
        "started_at": None,
        "finished_at": None,
        "outcome": FailoverOutcome.COMPLETED.value,
        "epoch": state.epoch,
        "steps": [],
        "not_unpaused": [],
        "ended_in_standby": [],
    }


def preview_document(preview: FailoverPreview) -> dict[str, Any]:
    """Return the document of a preview."""
    return {
        "dry_run": True,
        "action": preview.action.value,
        "from": preview.source,
        "to": preview.target,
        "mode": preview.mode.value,
        "epoch": preview.epoch,
        "phase": preview.phase.value,
        "plan_id": preview.plan_id,
        "dags_wanted": preview.wanted,
        "dags_exempt": preview.exempt,
        "running": list(preview.running) if preview.running is not None else None,
        "not_ready": list(preview.not_ready),
        "taken_over": preview.why_recovery,
        "steps": list(preview.steps),
        "until": preview.until.value if preview.until is not None else None,
    }


def held_tasks_document(held: HeldTasks) -> dict[str, Any]:
    """Return the tasks that the fence of a region holds, as ``mwaa-dr status --json`` prints them."""
    return {"since": iso(held.since), "why": held.why}


def unpublished_document(unpublished: Unpublished) -> dict[str, Any]:
    """Return the document of a region that became active without its ledger."""
    return {
        "id": unpublished.id,
        "epoch": unpublished.epoch,
        "at": iso(unpublished.at),
        "why": unpublished.why,
        "runs": list(unpublished.runs),
        "unread": list(unpublished.unread),
    }


def check_documents(results: Iterable[CheckResult]) -> list[dict[str, str]]:
    """Return the documents of the results of readiness checks."""
    return [
        {"name": result.name, "verdict": result.verdict.value, "why": result.why, "advice": result.advice}
        for result in results
    ]


def diagnosis_document(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the document of a diagnosis of the active region."""
    return {
        "region": diagnosis.region,
        "health": diagnosis.health.value,
        "why": diagnosis.why,
        "text": str(diagnosis),
        "standbys": list(diagnosis.standbys),
        "signals": [
            {"signal": reading.signal.value, "health": reading.health.value, "why": reading.why}
            for reading in diagnosis.readings
        ],
        "problems": list(diagnosis.problems),
        "is_halted": diagnosis.is_halted,
    }


def _carried_out(mode: Mode) -> str:
    # An AUTO failover is graceful until a state write turns it forced.
    return Mode.FORCED.value if mode is Mode.FORCED else Mode.GRACEFUL.value
