"""
What the simulation of runs that wait for each other takes out to show that it is needed.

:data:`FAMILY_RULES` has a function for each rule, and what a history that goes wrong without it reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent.state_reader import StateReader
from airflow_provider_mwaa_dr.agent.waits import WaitsReader
from airflow_provider_mwaa_dr.core.bookkeeping.families import Families
from airflow_provider_mwaa_dr.core.bookkeeping.resuming import Resumer
from airflow_provider_mwaa_dr.core.failover import drain
from airflow_provider_mwaa_dr.core.waits import Waiter, Waits
from tests.simulation.airflow import Run, SimulatedAirflow, Task

Patch = pytest.MonkeyPatch


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


def with_children_that_are_resumed_beside_their_parents(patch: Patch) -> None:
    patch.setattr(Families, "followed", lambda *_: ())


def with_children_that_are_published_without_their_parents(patch: Patch) -> None:
    patch.setattr(SimulatedAirflow, "_children", lambda *_: ())


def with_replaced_children_that_stay_unfinished(patch: Patch) -> None:
    """When the parent has ended, nothing shows any longer that it requested them again."""
    patch.setattr(Resumer, "_replaced", lambda *_: [])


FAMILY_RULES: Mapping[Callable[[Patch], None], str] = {
    without_starting_awaited_runs: "DrainTimeoutError",
    with_idle_runs_of_paused_dags_counted: "DrainTimeoutError",
    with_a_child_of_a_task_that_does_not_wait: "no work waits for it",
    with_children_of_tasks_that_have_ended: "no work waits for it",
    with_every_held_run_of_an_awaited_dag: "no work waits for it",
    with_children_that_are_resumed_beside_their_parents: "its parent ran again",
    with_children_that_are_published_without_their_parents: "its parent ran again",
    with_replaced_children_that_stay_unfinished: "its parent ran again",
}
