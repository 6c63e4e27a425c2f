"""
Rules of the core, each with a way to take it out, and the seed of a history that goes wrong then.

``python -m tests.simulation --without NAME`` lives through histories without one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import lease
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.bookkeeping import Bookkeeper
from airflow_provider_mwaa_dr.core.failover import FailoverEngine
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View
from airflow_provider_mwaa_dr.core.ledger import RegionLedger, RunStatus
from airflow_provider_mwaa_dr.core.state import DRState, Plan
from airflow_provider_mwaa_dr.exceptions import StateAccessError
from airflow_provider_mwaa_dr.plugins import agent
from airflow_provider_mwaa_dr.plugins.agent import AgentLoop
from tests.simulation.airflow import Run, SimulatedAirflow
from tests.simulation.world import Region

Patch = pytest.MonkeyPatch
Weaken = Callable[[Patch], None]

# The design's rules.


def with_tasks_that_only_the_gate_holds(patch: Patch) -> None:
    """No rule taken out, but a world in which the lease is all there is: a fence that reads the state hides it."""

    def as_the_gate(region: Region, _: bool) -> tuple[Action, int]:
        view = region.schedulers[0].agent.view
        epoch = view.state.epoch if view is not None and view.state is not None else 0
        return region._decide(view, DecisionPoint.FENCE), epoch

    patch.setattr(Region, "_fence", as_the_gate)


def without_the_lease_wait(patch: Patch) -> None:
    with_tasks_that_only_the_gate_holds(patch)
    patch.setattr(FailoverEngine, "_wait_for_lease", lambda *_: None)


def without_the_final_mark(patch: Patch) -> None:
    def final_mark(engine: FailoverEngine, _: Plan, closing: lease.Closing) -> lease.Closing:
        return replace(closing, fence_since=engine._clock.monotonic())

    patch.setattr(FailoverEngine, "_final_mark", final_mark)


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
        runs = [replace(run, status=RunStatus.FAILED) if run.status is RunStatus.INTERRUPTED else run for run in runs]
        append(books, epoch, runs, **rest)

    patch.setattr(Bookkeeper, "_append", as_failed)


def without_reconciling_before_anything_runs(patch: Patch) -> None:
    by = Region._decide

    def trusting(region: Region, view: View | None, *point: Any, **asked: Any) -> Any:
        if view is not None and view.state is not None:
            view = replace(view, reconciled_epoch=view.state.epoch)
        return by(region, view, *point, **asked)

    patch.setattr(Region, "_decide", trusting)


def without_draining_before_the_pause(patch: Patch) -> None:
    def drain(engine: FailoverEngine, state: DRState, _: object, since: float) -> Any:
        assert state.plan is not None
        return engine._closing(state.plan, state, since), ()

    patch.setattr(FailoverEngine, "_drain", drain)


def with_a_cancel_that_gives_nothing_back(patch: Patch) -> None:
    restore = FailoverEngine._restore

    def careless(engine: FailoverEngine, plan: Plan, wanted: Any) -> Any:
        return (wanted, "") if plan.is_cancellation else restore(engine, plan, wanted)

    patch.setattr(FailoverEngine, "_restore", careless)


# What the simulation has been widened by, each with a rule that it takes.


def with_cleared_runs_taken_for_ended(patch: Patch) -> None:
    append = Bookkeeper._append
    ended: dict[Any, set[Any]] = {}

    def deaf(books: Bookkeeper, epoch: int, runs: Any = (), **rest: Any) -> None:
        known = ended.setdefault(books._runs, set())
        runs = [run for run in runs if not (run.is_unfinished and run.key in known)]
        known |= {run.key for run in runs if run.has_ended}
        append(books, epoch, runs, **rest)

    patch.setattr(Bookkeeper, "_append", deaf)


def with_failed_runs_started_again(patch: Patch) -> None:
    append = Bookkeeper._append

    def as_interrupted(books: Bookkeeper, epoch: int, runs: Any = (), **rest: Any) -> None:
        runs = [replace(run, status=RunStatus.INTERRUPTED) if run.status is RunStatus.FAILED else run for run in runs]
        append(books, epoch, runs, **rest)

    patch.setattr(Bookkeeper, "_append", as_interrupted)


def without_a_fence_for_what_comes_back_from_the_triggerer(patch: Patch) -> None:
    fence = Region._fence

    def open_door(region: Region, is_back: bool) -> tuple[Action, int]:
        action, epoch = fence(region, is_back)
        return Action.RUN if is_back else action, epoch

    patch.setattr(Region, "_fence", open_door)


def without_runs_that_have_no_logical_date(patch: Patch) -> None:
    patch.setattr(
        SimulatedAirflow,
        "cannot_resume",
        lambda _, runs: {run.key: "no logical date" for run in runs if run.logical_date is None},
    )


def without_adoption(patch: Patch) -> None:
    patch.setattr(Bookkeeper, "adopt", lambda _: False)


def with_a_log_read_across_its_gaps(patch: Patch) -> None:
    apply = RegionLedger.apply

    def hasty(ledger: RegionLedger, entries: Any) -> Any:
        changes = apply(ledger, ())
        for entry in entries:
            ledger.number = max(ledger.number, entry.number - 1)
            more = apply(ledger, [entry])
            changes.runs |= more.runs
            changes.heads |= more.heads
        return changes

    patch.setattr(RegionLedger, "apply", hasty)


def with_a_new_leader_that_closes_what_the_one_before_had_taken_over(patch: Patch) -> None:
    patch.setattr(Bookkeeper, "has_begun", lambda *_: False)
    # What the provider closed before any task of it executed, the region would begin after all.
    to_row = Run.to_row
    patch.setattr(Run, "to_row", lambda run: replace(to_row(run), is_skipped=False))


def with_a_leader_that_goes_on_from_what_it_knew_when_it_last_led(patch: Patch) -> None:
    patch.setattr(Bookkeeper, "forget_own_ledger", lambda _: None)


def with_a_region_on_its_way_out_that_takes_runs_over_without_the_last_word(patch: Patch) -> None:
    def become_active(loop: AgentLoop, state: DRState) -> bool:
        books = loop._bookkeeper
        assert books is not None
        books.follow()
        if loop._awaits_entries(books, state) or books.adopt():
            return False
        books.begin(state.epoch)
        books.forget_closed()
        books.apply_outcomes()
        return not books.resume(epoch=state.epoch)

    patch.setattr(agent, "promoted_plan", lambda state: state.plan)
    patch.setattr(AgentLoop, "_become_active", become_active)


def with_runs_that_were_to_be_stopped_and_ended_by_themselves_run_again(patch: Patch) -> None:
    publish, run_to_publish = Bookkeeper.publish, Bookkeeper._run_to_publish
    stopped: dict[Any, set[str]] = {}

    def attentive(books: Bookkeeper, state: DRState, *, read_stopped: Any, **rest: Any) -> None:
        def read(set_id: str) -> Any:
            runs = read_stopped(set_id)
            stopped.setdefault(books._runs, set()).update(runs)
            return runs

        publish(books, state, read_stopped=read, **rest)

    def literal(books: Bookkeeper, *args: Any, **rest: Any) -> Any:
        run = run_to_publish(books, *args, **rest)
        is_stopped = run is not None and run.has_ended and str(run) in stopped.get(books._runs, ())
        return replace(run, status=RunStatus.INTERRUPTED) if is_stopped else run

    patch.setattr(Bookkeeper, "publish", attentive)
    patch.setattr(Bookkeeper, "_run_to_publish", literal)


def without_a_word_of_runs_that_had_ended_before_they_could_be_stopped(patch: Patch) -> None:
    patch.setattr(FailoverEngine, "_stop_run", lambda _, plan, source, run: source.stop_run(run) and False)


def with_held_runs_at_the_end_of_the_queue_and_no_room_made(patch: Patch) -> None:
    """Either of the two is enough in these histories; tests/airflow has one for each."""
    patch.setattr(Bookkeeper, "make_room", lambda books: None)
    behind = itertools.count(10**6)
    patch.setattr(Run, "take_turn", lambda run: setattr(run, "turn", next(behind)))


def with_a_ledger_that_is_left_out_as_soon_as_it_refuses(patch: Patch) -> None:
    """Not when it does not answer; as it was."""
    with_ledger = AgentLoop._with_ledger

    def careless(loop: AgentLoop, call: Any, otherwise: Any) -> Any:
        try:
            return with_ledger(loop, call, otherwise)
        except agent._LedgerError as error:
            if isinstance(error.__cause__, StateAccessError):
                return otherwise
            raise

    patch.setattr(AgentLoop, "_with_ledger", careless)


def with_a_fence_that_lets_tasks_start_until_the_promotion(patch: Patch) -> None:
    patch.setattr(transitions, "drained", lambda state, **_: state)


def with_the_callers_own_fence_file_s(patch: Patch) -> None:
    patch.setattr(lease, "fence_file_s", lambda _: 1.0)


RULES: dict[Weaken, int] = {
    with_the_callers_own_fence_file_s: 104,
    with_a_fence_that_lets_tasks_start_until_the_promotion: 8,
    without_the_lease_wait: 6,
    without_the_final_mark: 17,
    with_a_wanted_set_recorded_anew_by_each_plan: 3,
    with_what_the_provider_ended_told_as_ended: 1,
    without_reconciling_before_anything_runs: 13,
    without_draining_before_the_pause: 1,
    with_a_cancel_that_gives_nothing_back: 18,
    with_cleared_runs_taken_for_ended: 1,
    with_failed_runs_started_again: 0,
    without_a_fence_for_what_comes_back_from_the_triggerer: 14,
    without_runs_that_have_no_logical_date: 1,
    without_adoption: 1,
    with_a_log_read_across_its_gaps: 11,
    with_a_new_leader_that_closes_what_the_one_before_had_taken_over: 132,
    with_a_leader_that_goes_on_from_what_it_knew_when_it_last_led: 31767,
    with_runs_that_were_to_be_stopped_and_ended_by_themselves_run_again: 32,
    without_a_word_of_runs_that_had_ended_before_they_could_be_stopped: 68,
    with_held_runs_at_the_end_of_the_queue_and_no_room_made: 22,
    with_a_ledger_that_is_left_out_as_soon_as_it_refuses: 64,
}
"""What is taken out, and the seed of a history that goes wrong without it."""
