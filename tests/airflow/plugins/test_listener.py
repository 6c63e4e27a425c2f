"""The hooks in the installed Airflow, called as its components call them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mwaa_dr.plugins import gate
from tests.airflow.conftest import HERE, THERE, start

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


def test_a_run_is_held_when_the_gate_fails(
    database_with_run: Database,
    listener: ModuleType,
    install: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception would end the scheduler of Airflow 2, and would let the run execute on Airflow 3."""
    gate = install(listener, THERE)
    monkeypatch.setattr(gate._starting_run, "skip_run", broken)
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "queued"}
    assert "the gate failed (ZeroDivisionError)" in (database_with_run.note("r1") or "")


def test_a_run_is_held_when_holding_fails_too(
    database_with_run: Database,
    listener: ModuleType,
    install: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gate then changes only attributes of the run, and writes no note."""
    gate = install(listener, THERE)
    monkeypatch.setattr(gate._starting_run, "skip_run", broken)
    monkeypatch.setattr(gate._starting_run, "hold_run", broken)
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "queued"}


def test_a_scheduler_without_a_gate_holds(
    database_with_run: Database, listener: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preparation of the gate failed at the start. The provider fails closed."""
    monkeypatch.setattr(listener, "_gate", None)
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "queued"}


def test_other_processes_leave_the_decision_to_the_fence(
    database_with_run: Database, listener: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`airflow dags backfill` of Airflow 2 calls the hook in a process without an agent. A hold would make it loop."""
    monkeypatch.setattr(listener, "_gate", None)
    monkeypatch.setattr(sys, "argv", ["airflow", "dags", "backfill", "orders"])
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "running"}


@pytest.mark.parametrize(
    ("argv", "component", "starts"),
    [
        (["airflow", "scheduler", "-n", "5"], SimpleNamespace(latest_heartbeat=None), True),
        (["airflow", "scheduler"], SimpleNamespace(), False),
        (["airflow", "triggerer"], SimpleNamespace(latest_heartbeat=None), False),
        (["airflow", "dag-processor"], SimpleNamespace(latest_heartbeat=None), False),
        (["airflow", "tasks", "run", "scheduler"], SimpleNamespace(latest_heartbeat=None), False),
    ],
)
def test_only_a_schedulers_job_starts_the_agent(
    listener: ModuleType, monkeypatch: pytest.MonkeyPatch, argv: list[str], component: Any, starts: bool
) -> None:
    """Airflow calls the same hook for every component, and for each task."""
    started: list[Any] = []
    monkeypatch.setattr(listener, "_gate", None)
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(gate.Gate, "start", lambda gate: started.append(gate._pid))
    monkeypatch.setattr(listener, "_guard_triggerer", lambda _: None)
    listener.on_starting(component=component)
    assert bool(started) is starts


JOB = SimpleNamespace(latest_heartbeat=None)


def test_a_scheduler_that_ends_holds_and_publishes_it(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """The gate closes before the agent's last heartbeat, and stays closed."""
    gate = install(listener, HERE)
    held_first: list[bool] = []
    gate._loop.end = lambda: held_first.append(gate._is_stopping)
    listener.before_stopping(component=JOB)
    listener.before_stopping(component=JOB)
    start(database_with_run, listener)
    assert (held_first, database_with_run.runs()) == ([True], {"r1": "queued"})


@pytest.mark.parametrize("component", [JOB, SimpleNamespace()], ids=["a forked child", "a task"])
def test_only_the_schedulers_own_job_ends_its_agent(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any], component: Any
) -> None:
    """A task process that the scheduler forked inherits its gate. Its end calls the same hook."""
    gate = install(listener, HERE)
    gate._loop.end = lambda: pytest.fail("ended")
    if component is JOB:
        gate._pid += 1
    listener.before_stopping(component=component)
    assert not gate._is_stopping


def broken(*_: Any) -> None:
    raise ZeroDivisionError
