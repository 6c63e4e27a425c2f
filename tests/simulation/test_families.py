"""
Runs that wait for runs of other DAGs: planned failovers complete, and the oracle detects each rule that is missing.

``python -m tests.simulation --world families`` simulates fresh seeds. tests/exploration shows what happens if the gate
is not closed again after it has let awaited runs start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent.state_reader import StateReader
from airflow_provider_mwaa_dr.agent.waits import WaitsReader
from airflow_provider_mwaa_dr.core.failover import drain
from airflow_provider_mwaa_dr.core.waits import Waiter, Waits
from tests.simulation.airflow import Run, SimulatedAirflow, Task
from tests.simulation.families import run_history

HISTORIES = 40
SEARCHED = 400
"""The number of histories that are searched for one that goes wrong without a rule."""

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_planned_failover_completes_while_runs_wait_for_held_runs() -> None:
    """No run is lost or repeated, and nothing else starts during the drain; also with faults."""
    started = sum(run_history(seed)[0].awaited_starts for seed in range(HISTORIES))
    assert started >= HISTORIES / 2, "the drains of these histories have to meet held runs"


def without_starting_awaited_runs(patch: Patch) -> None:
    patch.setattr(StateReader, "set_awaited", lambda *_: None)


def with_idle_runs_of_paused_dags_counted(patch: Patch) -> None:
    patch.setattr(drain, "_idle", lambda *_, **__: ())


def with_a_child_of_a_task_that_does_not_wait(patch: Patch) -> None:
    """A DAG that triggers itself then never drains."""
    waiter = SimulatedAirflow._waiter

    def each(airflow: SimulatedAirflow, run: Run, task: Task) -> Waiter | None:
        found = waiter(airflow, run, task)
        return None if found is None else replace(found, fields={**found.fields, "wait_for_completion": True})

    patch.setattr(SimulatedAirflow, "_waiter", each)


def with_children_of_tasks_that_have_ended(patch: Patch) -> None:
    turn, seen = WaitsReader.turn, dict[Any, set[Any]]()

    def remembers(reader: WaitsReader, *args: Any, **rest: Any) -> None:
        turn(reader, *args, **rest)
        known = seen.setdefault(reader, set())
        known |= reader.found.awaited
        reader._set(Waits(awaited=frozenset(known), idle=reader.found.idle))

    patch.setattr(WaitsReader, "turn", remembers)


def with_every_held_run_of_an_awaited_dag(patch: Patch) -> None:
    patch.setattr(Waiter, "waits_for", lambda waiter, run: waiter.awaited_dag == run.key[0])


def run_some_histories() -> None:
    for seed in range(SEARCHED):
        run_history(seed)


@pytest.mark.parametrize(
    ("weaken", "what"),
    [
        (without_starting_awaited_runs, "DrainTimeoutError"),
        (with_idle_runs_of_paused_dags_counted, "DrainTimeoutError"),
        (with_a_child_of_a_task_that_does_not_wait, "no work waits for it"),
        (with_children_of_tasks_that_have_ended, "no work waits for it"),
        (with_every_held_run_of_an_awaited_dag, "no work waits for it"),
    ],
)
def test_a_history_goes_wrong_without_the_rule(weaken: Callable[[Patch], None], what: str, monkeypatch: Patch) -> None:
    """Each rule of the drain is necessary, and the oracle sees that."""
    weaken(monkeypatch)
    with pytest.raises(AssertionError, match=what):
        run_some_histories()
