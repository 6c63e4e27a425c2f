"""
Which held runs may start while a region is drained: those that unfinished work of begun runs waits for. Pure.

Without this rule, a graceful failover stands still: the gate holds the child, the parent waits for the child, and the
drain waits for the parent. The rule starts nothing on a guess. A run that no readable value names stays held.

Two values name runs. A task that triggers a run and waits for its end has stored the id of that run as an XCom. A
sensor for another DAG names that DAG; it waits for the run with the date of its own run, or with the dates that its
trigger stores. Values are recognized by their names and not by the operator's class, so subclasses count, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_provider_mwaa_dr.core.display import shortened
from airflow_provider_mwaa_dr.core.ledger import RunKey

TRIGGERS_FIELD, SENSES_FIELD = "trigger_dag_id", "external_dag_id"
"""The rendered field that names the other DAG: of a task that triggers a run, and of a sensor for another DAG."""
COMPLETION_FIELD = "wait_for_completion"
"""The rendered field that tells whether a task waits for the run that it triggers."""
_MARKER_FIELDS = ("logical_date", "execution_date")
"""Only a task that marks another DAG's task for clearing has one of these fields. It waits for nothing."""
_MOST_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """
    An unfinished task instance of a running run.

    :param state: of the task instance, as Airflow names it.
    :param operator: the class of its operator.
    :param is_dag_paused: whether its DAG is paused, so that Airflow starts no further task of it.
    :param fields: its rendered fields; empty if there are none.
    :param triggered_run_id: the id of the run that it triggered, as stored; None if it is missing or cannot be read.
    :param trigger_dates: the dates that its trigger waits for; None if it has no trigger, or if they cannot be read.
    :param date: the logical date of its run. Without a logical date: the time from which the run may start.
    """

    run: RunKey
    task_id: str
    state: str
    operator: str = ""
    is_dag_paused: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    triggered_run_id: str | None = None
    trigger_dates: tuple[datetime, ...] | None = None
    date: datetime | None = None

    def __str__(self) -> str:
        return f"{self.run[0]} {self.run[1]}: task {self.task_id}"

    @property
    def is_idle(self) -> bool:
        """Whether it does not execute, and cannot continue: the failover interrupts its run."""
        return self.is_dag_paused and self.state != "running"

    @property
    def awaited_dag(self) -> str | None:
        """The id of the DAG for a run of which it waits; None if it waits for none."""
        if self.is_idle:
            return None
        if triggers := self.fields.get(TRIGGERS_FIELD):
            # A task that is queued has not triggered a run in this attempt, or the run that it triggered has ended.
            has_triggered = self.state in {"running", "deferred"}
            return str(triggers) if has_triggered and is_true(self.fields.get(COMPLETION_FIELD)) else None
        senses = self.fields.get(SENSES_FIELD)
        return str(senses) if senses and not any(name in self.fields for name in _MARKER_FIELDS) else None

    def waits_for(self, run: HeldRun) -> bool:
        """Whether a readable value shows that it waits for *run*."""
        if self.awaited_dag != run.key[0]:
            return False
        if TRIGGERS_FIELD in self.fields:
            return self.triggered_run_id == run.key[1]
        dates = self.trigger_dates if self.trigger_dates is not None else (self.date,)
        return run.date is not None and run.date in dates


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRun:
    """
    A queued run.

    :param date: its logical date; None if it has none.
    """

    key: RunKey
    date: datetime | None
    is_dag_paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """
    What the work in progress waits for.

    :param awaited: the queued runs that may start.
    :param tasks: the first of the tasks that wait, and what each waits for, a sentence each, sorted.
    :param idle: how many running runs of paused DAGs have no task that executes.
    """

    awaited: frozenset[RunKey] = frozenset()
    tasks: tuple[str, ...] = ()
    idle: int = 0


def find_waits(waiters: Iterable[Waiter], held: Collection[HeldRun], *, idle: int = 0) -> Waits:
    """
    Return what *waiters* wait for.

    :param held: the queued runs of the DAGs that *waiters* name.
    :param idle: see :class:`Waits`.
    """
    awaited: set[RunKey] = set()
    texts: set[str] = set()
    for waiter in waiters:
        dag_id = waiter.awaited_dag
        if dag_id is None:
            texts.add(f"{waiter} ({waiter.operator or 'unknown operator'}) is {waiter.state}")
            continue
        runs = [run for run in held if waiter.waits_for(run)]
        awaited |= {run.key for run in runs}
        for run in runs:
            why = "its DAG is paused" if run.is_dag_paused else "which is held"
            texts.add(f"{waiter} waits for {run.key[0]} {run.key[1]}, {why}")
        if not runs:
            known = f"{dag_id} {waiter.triggered_run_id}" if waiter.triggered_run_id else f"a run of {dag_id}"
            texts.add(f"{waiter} waits for {known}, and no held run is known to be that one")
    return Waits(
        awaited=frozenset(awaited),
        tasks=tuple(shortened(sorted(texts), _MOST_LISTED)),
        idle=idle,
    )


def is_true(value: Any) -> bool:
    """Whether a rendered flag is set. Airflow renders a template to text."""
    return value is True or str(value).strip().lower() == "true"
