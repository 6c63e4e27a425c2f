"""The progress of a failover: events for display, and the record in the history."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import TypeVar

from airflow_provider_mwaa_dr.core.failover.table import StateTable, plan_of
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import RECORDS, Clock, FailoverOutcome, FailoverRecord, StateStore, StepRecord
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Plan
from airflow_provider_mwaa_dr.exceptions import DRError

T = TypeVar("T")


class StepStatus(str, Enum):
    """How far a step is."""

    STARTED = "started"
    PROGRESS = "progress"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent:
    """
    Progress for display: a step started, made progress, or is done.

    :param seconds: since the step started.
    """

    name: str
    status: StepStatus
    seconds: float
    detail: str = ""


class Progress:
    """
    The progress of an engine: the record of the plan that it works on, and an event for each step.

    :param on_step: called with each :class:`StepEvent`; any ``Exception`` that it raises is ignored.
    :ivar record: the record of the open plan that this engine works on; None if there is none.
    :ivar unrecorded: why the last write or read of a record failed; empty if it succeeded.
    :ivar step_name: the current step.
    """

    def __init__(self, table: StateTable, clock: Clock, on_step: Callable[[StepEvent], None]) -> None:
        self._table = table
        self._clock = clock
        self._on_step = on_step
        self.record: FailoverRecord | None = None
        self._steps: list[StepRecord] = []
        self.step_name, self._step_started = "check", clock.monotonic()
        self._detail = LogOnChange("")
        self.unrecorded = ""

    def open(self, state: DRState) -> None:
        """Begin the plan's record, or continue the record that another engine began."""
        plan = plan_of(state)
        if self.record is not None and self.record.id == plan.id:
            return
        found = self.history(lambda: self._table.store.get(RECORDS, plan.id))
        if found is not None:
            self._steps = [*found.steps, *self._steps]
        self._table.is_plan_open = True
        self.record = FailoverRecord.of(plan, epoch=state.epoch)
        self.update_record()

    def close(self) -> None:
        """End the work on the plan's record. The next plan has a record of its own."""
        self.record, self._steps = None, []
        self._table.is_plan_open = False

    def update_record(
        self, change: Callable[[FailoverRecord], FailoverRecord] = lambda record: record
    ) -> FailoverRecord:
        """Change the record and write it. If the write fails, the next step writes it again."""
        assert self.record is not None  # noqa: S101  (the engine opens it when it enters a plan)
        self.record = replace(change(self.record), steps=tuple(self._steps))
        record = self.record
        try:
            self._table.store.put(RECORDS, record)
        except Exception as error:
            self.unrecorded = brief(error)
        else:
            self.unrecorded = ""
        return record

    def close_other_records(self, plan: Plan) -> None:
        """Set the outcome *aborted* in the open records of all plans but *plan*."""
        self.history(lambda: abort_other_records(self._table.store, plan.id, at=self._clock.now()))

    def history(self, call: Callable[[], T]) -> T | None:
        """
        Return the result of an idempotent *call* for a history record; None if it fails for any reason.

        A record is for users. No decision of a failover needs it, so its failure must not stop a failover.
        """
        try:
            return self._table.retry(call)
        except Exception as error:
            self.unrecorded = brief(error)
            return None

    def begin(self, name: str) -> None:
        """Report that the step *name* starts."""
        self.step_name, self._step_started = name, self._clock.monotonic()
        self._detail.forget("")
        self._emit(self._event(StepStatus.STARTED, 0.0))

    def report(self, detail: str) -> None:
        """Report progress of the current step, unless the last report was the same."""
        if self._detail.changes_to(detail):
            self._emit(self._event(StepStatus.PROGRESS, self._elapsed(), detail))

    def done(self, detail: str) -> None:
        """Report that the current step is done, and add it to the record."""
        seconds = self._elapsed()
        self._steps.append(StepRecord(name=self.step_name, seconds=round(seconds, 3), detail=detail))
        self._emit(self._event(StepStatus.DONE, seconds, detail))
        if self.record is not None:
            self.update_record()

    def _event(self, status: StepStatus, seconds: float, detail: str = "") -> StepEvent:
        return StepEvent(name=self.step_name, status=status, seconds=seconds, detail=detail)

    def _emit(self, event: StepEvent) -> None:
        with suppress(Exception):  # a full disk under the log, a closed pipe, a handler with a bug
            self._on_step(event)

    def _elapsed(self) -> float:
        return self._clock.monotonic() - self._step_started


def aborted(record: FailoverRecord, *, at: datetime) -> FailoverRecord:
    """Return the record of a plan that ended before its promotion, or that another plan replaced."""
    return replace(record, outcome=FailoverOutcome.ABORTED, finished_at=at)


def completed(
    record: FailoverRecord,
    state: DRState,
    *,
    not_unpaused: tuple[str, ...],
    ended_in_standby: tuple[str, ...],
    at: datetime,
) -> FailoverRecord:
    """Return the record of the plan in *state* as it is after the plan's end."""
    return replace(
        record,
        outcome=FailoverOutcome.COMPLETED,
        finished_at=at,
        epoch=state.epoch,
        not_unpaused=not_unpaused,
        ended_in_standby=ended_in_standby,
        mode=Mode.FORCED if plan_of(state).is_forced else Mode.GRACEFUL,
    )


def abort_other_records(store: StateStore, plan_id: str, *, at: datetime) -> None:
    """Set the outcome *aborted* in the open records of other plans; an engine that died cannot write its own."""
    for record in store.find_all(RECORDS):
        # An unreadable record does not change: a newer version of the provider may be able to read it.
        if record.unreadable is None and record.outcome is FailoverOutcome.OPEN and record.id != plan_id:
            store.put(RECORDS, aborted(record, at=at))


def brief(error: Exception) -> str:
    """Return an error as a short text for the line of a step."""
    message = " ".join((error.message if isinstance(error, DRError) else str(error)).split())
    return f"{type(error).__name__}: {message[:300]}".rstrip(": .")
