"""
No interval lost, none executed twice without a reason, whatever happens.

``make simulate`` lives through more of them; a seed that fails prints what happened to the run in question.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.bookkeeping import Bookkeeper
from airflow_provider_mwaa_dr.core.failover import FailoverEngine
from airflow_provider_mwaa_dr.core.gate import View
from airflow_provider_mwaa_dr.core.ledger import RunStatus
from airflow_provider_mwaa_dr.core.state import DRState, Plan
from tests.simulation.world import Region, live_through

SIMULATIONS = int(os.environ.get("DR_SIMULATIONS", "300"))
FIRST = int(os.environ.get("DR_FIRST_SIMULATION", "0"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SIMULATIONS))
def test_pipelines_come_out_as_if_one_airflow_had_been_stopped_and_started(seed: int) -> None:
    """Each interval and each accepted manual run executes; once, or again for a reason that is listed."""
    live_through(seed)


# What the simulation is worth: each rule, taken out of the core, is missed.

Patch = pytest.MonkeyPatch


def without_the_lease_wait(patch: Patch) -> None:
    patch.setattr(FailoverEngine, "_wait_for_lease", lambda *_: None)


def without_the_final_mark(patch: Patch) -> None:
    patch.setattr(FailoverEngine, "_final_mark", lambda *_: None)


def with_a_wanted_set_recorded_anew_by_each_plan(patch: Patch) -> None:
    supersede = transitions.supersede

    def forgetful(state: DRState, plan: Any, **at: Any) -> DRState:
        new = supersede(state, plan, **at)
        assert new.plan is not None
        return replace(new, plan=replace(new.plan, set_id=None))

    patch.setattr(transitions, "supersede", forgetful)


def with_what_the_provider_ended_told_as_ended(patch: Patch) -> None:
    append = Bookkeeper._append

    def as_failed(books: Bookkeeper, epoch: int, runs: Any = (), **rest: Any) -> None:
        told = [replace(run, status=RunStatus.FAILED) if run.status is RunStatus.INTERRUPTED else run for run in runs]
        append(books, epoch, told, **rest)

    patch.setattr(Bookkeeper, "_append", as_failed)


def without_reconciling_before_anything_runs(patch: Patch) -> None:
    by = Region._by

    def trusting(region: Region, view: View | None, layer: Any) -> Any:
        if view is not None and view.state is not None:
            view = replace(view, reconciled_epoch=view.state.epoch)
        return by(region, view, layer)

    patch.setattr(Region, "_by", trusting)


def without_draining_before_the_pause(patch: Patch) -> None:
    patch.setattr(FailoverEngine, "_drain", lambda engine, *_: engine._clock.monotonic())


def with_a_cancel_that_gives_nothing_back(patch: Patch) -> None:
    restore = FailoverEngine._restore

    def careless(engine: FailoverEngine, plan: Plan, wanted: Any) -> Any:
        return ((), "") if plan.is_cancellation else restore(engine, plan, wanted)

    patch.setattr(FailoverEngine, "_restore", careless)


def live_through_some(first: int) -> None:
    """Live through the history that is known to go wrong, and through others should it have changed."""
    for seed in (first, *range(200)):
        live_through(seed)


@pytest.mark.parametrize(
    ("weaken", "first"),
    [
        (without_the_lease_wait, 4),
        (without_the_final_mark, 43),
        (with_a_wanted_set_recorded_anew_by_each_plan, 26),
        (with_what_the_provider_ended_told_as_ended, 0),
        (without_reconciling_before_anything_runs, 59),
        (without_draining_before_the_pause, 0),
        (with_a_cancel_that_gives_nothing_back, 13),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_rule_that_is_taken_out_is_missed(weaken: Callable[[Patch], None], first: int, monkeypatch: Patch) -> None:
    """Some history goes wrong without it: the one that is known to, or another."""
    weaken(monkeypatch)
    with pytest.raises(AssertionError):
        live_through_some(first)
