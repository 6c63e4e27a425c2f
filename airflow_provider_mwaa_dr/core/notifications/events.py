"""Which notifications the state and the records call for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from airflow_provider_mwaa_dr.core.display import counted, visible
from airflow_provider_mwaa_dr.core.overdue_halt import overdue_halt
from airflow_provider_mwaa_dr.core.ports import FailoverOutcome, FailoverRecord
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Plan

KEPT = timedelta(days=1)
"""For how long after an event its notification is still sent, if no process could send it before."""
SUBJECT_CHARS = 100
"""SNS accepts no longer subject: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html."""


class NotificationEvent(str, Enum):
    """What a notification is about. With the id of the plan, it is the key of the notification."""

    STARTED = "started"
    ABORTED = "aborted"
    COMPLETED = "completed"
    STOPPED = "stopped"
    """A caller stopped, and the plan is open: a person has to continue or cancel it."""
    HALTED = "halted"
    """The plan is halted for longer than its caller allowed: a person has to continue or cancel it."""


_NEEDS_PERSON = frozenset({NotificationEvent.STOPPED, NotificationEvent.HALTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """
    A notification about a failover.

    :param source: the region that the failover leaves; equal to *target* for the cancellation of another failover.
    :param at: when the event happened, or was found.
    :param detail: what happened and what to do, in sentences.
    :param needs_person: whether a person has to act.
    """

    plan_id: str
    event: NotificationEvent
    source: str
    target: str
    mode: str
    reason: str
    by: str
    epoch: int
    at: datetime
    detail: str
    needs_person: bool

    @property
    def subject(self) -> str:
        """A line of at most 100 ASCII characters."""
        move = f"of {self.target}" if self.source == self.target else f"{self.source} -> {self.target}"
        what = "needs a person" if self.event in _NEEDS_PERSON else self.event.value
        more = ", needs a person" if self.needs_person and self.event not in _NEEDS_PERSON else ""
        kind = "cancellation" if self.source == self.target else "failover"
        text = visible(f"MWAA DR: {kind} {move} {what}{more}")
        return text.encode("ascii", "replace").decode()[:SUBJECT_CHARS]

    @property
    def message(self) -> str:
        """The text, a few lines."""
        at = f"{self.at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%SZ}"
        lines = [
            self.detail,
            f"Plan {self.plan_id}, {self.mode}, epoch {self.epoch}, {at}.",
            f"Requested by {self.by}: {self.reason}",
            f"mwaa-dr status shows the state of the DR set, mwaa-dr report {self.plan_id} what the failover did.",
        ]
        return "\n".join(map(visible, lines))

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document: the detail of an event of EventBridge, and ``failover`` in the context of a notifier."""
        return {
            "plan_id": self.plan_id,
            "event": self.event.value,
            "needs_person": self.needs_person,
            "from": self.source,
            "to": self.target,
            "mode": self.mode,
            "reason": self.reason,
            "by": self.by,
            "epoch": self.epoch,
            "at": self.at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "detail": self.detail,
            "subject": self.subject,
            "message": self.message,
        }


def due(
    state: DRState | None, records: Sequence[FailoverRecord], *, now: datetime, still_s: float = 0.0, patience_s: float
) -> list[Notification]:
    """
    Return the notifications that state and records call for, in the order of their events. Some may be sent already.

    :param state: None if the table has none.
    :param records: all records that can be read; old ones are ignored.
    :param still_s: for how long the state has not changed, on the clock of the process that observes it.
    :param patience_s: if an open plan has not changed for longer, no caller works on it.
    """
    found = [each for record in records for each in _of_record(record, now)]
    if state is not None and state.plan is not None and state.phase is not Phase.STEADY:
        known = {(each.plan_id, each.event) for each in found}
        of_plan = _of_plan(state, state.plan, now=now, still_s=still_s, patience_s=patience_s)
        found += [each for each in of_plan if (each.plan_id, each.event) not in known]
    order = list(NotificationEvent)
    return sorted(found, key=lambda each: (each.at, order.index(each.event)))


def stopped(record: FailoverRecord, why: str, *, at: datetime) -> Notification:
    """Return the notification that a caller stopped while the plan of *record* is open."""
    return _of(record, NotificationEvent.STOPPED, at, why, needs_person=True)


def _of_record(record: FailoverRecord, now: datetime) -> Iterator[Notification]:
    if record.unreadable is not None:
        return
    ended_at = record.finished_at
    is_cancellation = record.source == record.target
    if not is_cancellation and now - (ended_at or record.started_at) <= KEPT:
        yield _of(
            record,
            NotificationEvent.STARTED,
            record.started_at,
            f"A failover from {record.source} to {record.target} has started.",
        )
    if ended_at is None or now - ended_at > KEPT:
        return
    if record.outcome is FailoverOutcome.ABORTED:
        yield _of(
            record,
            NotificationEvent.ABORTED,
            ended_at,
            f"The failover from {record.source} to {record.target} was aborted: it was cancelled or abandoned, or "
            "another one has replaced it.",
        )
    elif record.outcome is FailoverOutcome.COMPLETED:
        left = len(record.not_unpaused)
        seconds = (ended_at - record.started_at).total_seconds()
        yield _of(
            record,
            NotificationEvent.COMPLETED,
            ended_at,
            f"{record.target} {'keeps the active role' if is_cancellation else 'is active'} after {seconds:.0f} s."
            + (f" Unpause by hand: {counted(left, 'DAG')}, which mwaa-dr status lists." if left else ""),
            needs_person=left > 0,
        )


def _of_plan(state: DRState, plan: Plan, *, now: datetime, still_s: float, patience_s: float) -> Iterator[Notification]:
    record = FailoverRecord.of(plan, epoch=state.epoch)
    # A plan that cancels another, or to which a cancellation returned, is not a new failover.
    if not plan.is_cancellation and now - plan.started_at <= KEPT:
        detail = f"A failover from {plan.source} to {plan.target} has started."
        yield _of(record, NotificationEvent.STARTED, plan.started_at, detail)
    if (overdue := overdue_halt(state, still_s)) is not None:
        yield _of(record, NotificationEvent.HALTED, now, overdue, needs_person=True)
    elif still_s > patience_s + (plan.hold_s if plan.is_halted else 0.0):
        yield stopped(
            record,
            f"The failover from {plan.source} to {plan.target} makes no progress: it has been {state.phase.value} for "
            f"{still_s:.0f} s without a change. Finish it: mwaa-dr failover {plan.target} --reason TEXT. "
            f"Or return to {plan.source}: mwaa-dr failover {plan.source} --reason TEXT.",
            at=now,
        )


def _of(
    record: FailoverRecord, event: NotificationEvent, at: datetime, detail: str, *, needs_person: bool = False
) -> Notification:
    return Notification(
        plan_id=record.id,
        event=event,
        source=record.source,
        target=record.target,
        mode=record.mode.value,
        reason=record.reason,
        by=record.by,
        epoch=record.epoch,
        at=at,
        detail=detail,
        needs_person=needs_person,
    )
