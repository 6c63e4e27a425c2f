"""
Rules of the core. For each rule: a function that disables it, and the seed of a history that then goes wrong.

``python -m tests.simulation --without NAME`` runs histories without one rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent import ledger_keeper, restoring
from airflow_provider_mwaa_dr.agent.confirmation import Confirmation
from airflow_provider_mwaa_dr.agent.ledger_keeper import LedgerError, LedgerKeeper
from airflow_provider_mwaa_dr.agent.reconcile import Reconciler
from airflow_provider_mwaa_dr.core import lease
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.bookkeeping import Bookkeeper, resolving
from airflow_provider_mwaa_dr.core.bookkeeping.outcomes import RowOutcomes
from airflow_provider_mwaa_dr.core.bookkeeping.own_ledger import OwnLedger
from airflow_provider_mwaa_dr.core.bookkeeping.resolving import Resolver
from airflow_provider_mwaa_dr.core.failover import drain, lease_wait, promote, restore
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View
from airflow_provider_mwaa_dr.core.ledger import RegionLedger, RunStatus
from airflow_provider_mwaa_dr.core.state import DRState, Plan
from airflow_provider_mwaa_dr.exceptions import StateAccessError
from tests.simulation.airflow import Run, SimulatedAirflow
from tests.simulation.world import Region, Simulation

Patch = pytest.MonkeyPatch
Weaken = Callable[[Patch], None]

# Rules of the protocol.


def with_tasks_that_only_the_gate_holds(patch: Patch) -> None:
    """
    No rule is disabled, but only the lease protects this world: a fence that reads the state would hide a missing
    lease.
    """

    def as_the_gate(region: Region, _: bool) -> tuple[Action, int]:
        view = region.schedulers[0].agent.view
        epoch = view.state.epoch if view is not None and view.state is not None else 0
        return region._decide(view, DecisionPoint.FENCE), epoch

    patch.setattr(Region, "_fence", as_the_gate)


def without_the_lease_wait(patch: Patch) -> None:
    with_tasks_that_only_the_gate_holds(patch)
    patch.setattr(lease_wait, "wait_for_lease", lambda *_: None)


def with_a_gate_that_needs_no_heartbeat_to_be_confirmed(patch: Patch) -> None:
    """The engine counts the silence of heartbeats, and a view permits for a lease after its read."""
    patch.setattr(Confirmation, "permits_from", lambda _, __, *, read_at: read_at)


def with_the_silence_of_one_scheduler_that_counts_for_all(patch: Patch) -> None:
    """For example that of a scheduler that was replaced long ago."""

    def of_any(agents: Any, reports: Any, *, now: float, wait_s: float) -> Any:
        found = silent_until(agents, reports, now=now, wait_s=wait_s)
        return {agent.job: min(found.values()) for agent in agents if found}

    silent_until = lease.silent_until
    patch.setattr(lease_wait, "silent_until", of_any)


def without_the_final_ledger_entry(patch: Patch) -> None:
    def await_final_entry(own: OwnedPlan, _: Plan, closing: lease.Closing) -> lease.Closing:
        return replace(closing, fence_since=own.clock.monotonic())

    patch.setattr(promote, "await_final_entry", await_final_entry)


def with_a_wanted_set_that_each_plan_records_again(patch: Patch) -> None:
    supersede = transitions.supersede

    def forgetful(state: DRState, plan: Any, **at: Any) -> DRState:
        new = supersede(state, plan, **at)
        assert new.plan is not None
        return replace(new, plan=replace(new.plan, set_id=None))

    patch.setattr(transitions, "supersede", forgetful)


def with_interrupted_runs_published_as_failed(patch: Patch) -> None:
    append = OwnLedger.append

    def as_failed(own: OwnLedger, epoch: int, runs: Any = (), **rest: Any) -> None:
        runs = [replace(run, status=RunStatus.FAILED) if run.status is RunStatus.INTERRUPTED else run for run in runs]
        append(own, epoch, runs, **rest)

    patch.setattr(OwnLedger, "append", as_failed)


def without_reconciling_before_anything_runs(patch: Patch) -> None:
    by = Region._decide

    def trusting(region: Region, view: View | None, *point: Any, **requested: Any) -> Any:
        if view is not None and view.state is not None:
            view = replace(view, reconciled_epoch=view.state.epoch)
        return by(region, view, *point, **requested)

    patch.setattr(Region, "_decide", trusting)


def without_draining_before_the_pause(patch: Patch) -> None:
    def hasty(own: OwnedPlan, state: DRState, _: object, since: float, __: object) -> Any:
        assert state.plan is not None
        closing = lease_wait.closing(own, state.plan, state, since)
        return drain.Drained(closing=closing, idle=(), exempt=())

    patch.setattr(drain, "drain", hasty)


def with_a_cancel_that_unpauses_nothing(patch: Patch) -> None:
    restore_in_target, restore_set = restore.restore_in_target, restoring.restore_set
    nothing = restore.Restored(not_unpaused=(), not_paused=(), detail="")

    def careless(own: OwnedPlan, plan: Plan, wanted: Any) -> Any:
        return (nothing, wanted) if plan.is_cancellation else restore_in_target(own, plan, wanted)

    def careless_agent(dags: Any, plan: Plan, wanted: Any) -> Any:
        return nothing if plan.is_cancellation else restore_set(dags, plan, wanted)

    patch.setattr(restore, "restore_in_target", careless)
    patch.setattr(restoring, "restore_set", careless_agent)


# Extensions of the simulation, each with a rule that depends on it.


def with_cleared_runs_that_stay_published_as_ended(patch: Patch) -> None:
    append = OwnLedger.append
    ended: dict[Any, set[Any]] = {}

    def deaf(own: OwnLedger, epoch: int, runs: Any = (), **rest: Any) -> None:
        known = ended.setdefault(own._runs, set())
        runs = [run for run in runs if not (run.is_unfinished and run.key in known)]
        known |= {run.key for run in runs if run.has_ended}
        append(own, epoch, runs, **rest)

    patch.setattr(OwnLedger, "append", deaf)


def with_failed_runs_started_again(patch: Patch) -> None:
    append = OwnLedger.append

    def as_interrupted(own: OwnLedger, epoch: int, runs: Any = (), **rest: Any) -> None:
        runs = [replace(run, status=RunStatus.INTERRUPTED) if run.status is RunStatus.FAILED else run for run in runs]
        append(own, epoch, runs, **rest)

    patch.setattr(OwnLedger, "append", as_interrupted)


def without_a_fence_for_tasks_from_the_triggerer(patch: Patch) -> None:
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


def with_a_new_leader_that_closes_runs_that_the_old_leader_resumed(patch: Patch) -> None:
    patch.setattr(Bookkeeper, "has_begun", lambda *_: False)
    # Without this, the region would execute runs that the provider closed before any of their tasks.
    to_row = Run.to_row
    patch.setattr(Run, "to_row", lambda run: replace(to_row(run), is_skipped=False))


def with_a_returning_leader_that_does_not_read_its_ledger_again(patch: Patch) -> None:
    patch.setattr(Bookkeeper, "forget_own_ledger", lambda _: None)


def with_a_region_that_is_being_left_and_resumes_runs_without_the_final_ledger_entry(patch: Patch) -> None:
    def become_active(ledger: LedgerKeeper, state: DRState) -> bool:
        bookkeeper = ledger.bookkeeper
        assert bookkeeper is not None
        bookkeeper.follow()
        if ledger._awaits_entries(bookkeeper, state) or bookkeeper.adopt():
            return False
        bookkeeper.begin(state.epoch)
        bookkeeper.apply_outcomes()
        return not bookkeeper.resume(epoch=state.epoch)

    patch.setattr(ledger_keeper, "promoted_plan", lambda state: state.plan)
    patch.setattr(LedgerKeeper, "become_active", become_active)
    patch.setattr(Simulation, "check_own_ends", lambda *_: None)  # it would find the problem earlier


def with_announced_runs_that_ended_by_themselves_published_as_interrupted(patch: Patch) -> None:
    publish, run_to_publish = Bookkeeper.publish, RowOutcomes.run_to_publish
    stopped: dict[Any, set[str]] = {}

    def attentive(bookkeeper: Bookkeeper, state: DRState, *, read_stopped: Any, **rest: Any) -> None:
        def read(set_id: str) -> Any:
            runs = read_stopped(set_id)
            stopped.setdefault(bookkeeper._own._runs, set()).update(runs)
            return runs

        publish(bookkeeper, state, read_stopped=read, **rest)

    def literal(outcomes: RowOutcomes, *args: Any, **rest: Any) -> Any:
        run = run_to_publish(outcomes, *args, **rest)
        is_stopped = run is not None and run.has_ended and str(run) in stopped.get(outcomes._own._runs, ())
        return replace(run, status=RunStatus.INTERRUPTED) if is_stopped else run

    patch.setattr(Bookkeeper, "publish", attentive)
    patch.setattr(RowOutcomes, "run_to_publish", literal)


def without_announcing_which_runs_ended_before_they_could_be_stopped(patch: Patch) -> None:
    patch.setattr(drain, "stop_run", lambda _, source, run: source.stop_run(run) and False)


def with_held_runs_at_the_end_of_the_queue_and_no_room_made(patch: Patch) -> None:
    """In these histories, either of the two measures is enough. tests/airflow has a test for each."""
    patch.setattr(Bookkeeper, "make_room", lambda bookkeeper: None)
    behind = itertools.count(10**6)
    patch.setattr(Run, "take_turn", lambda run: setattr(run, "turn", next(behind)))


def with_a_ledger_that_is_skipped_as_soon_as_it_refuses(patch: Patch) -> None:
    """As the code was before the fix. A ledger that does not answer is still waited for."""
    call_ledger = LedgerKeeper.call

    def careless(ledger: LedgerKeeper, call: Any, otherwise: Any) -> Any:
        try:
            return call_ledger(ledger, call, otherwise)
        except LedgerError as error:
            if isinstance(error.__cause__, StateAccessError):
                return otherwise
            raise

    patch.setattr(LedgerKeeper, "call", careless)


def with_a_fence_that_lets_tasks_start_until_the_promotion(patch: Patch) -> None:
    patch.setattr(transitions, "drained", lambda state, **_: state)


def with_the_callers_own_fence_file_s(patch: Patch) -> None:
    patch.setattr(lease, "fence_file_s", lambda _: 1.0)


def without_resolving_the_ends_of_a_standby(patch: Patch) -> None:
    patch.setattr(Resolver, "_resolve", lambda *_: None)


def with_runs_of_a_standby_deleted_and_not_listed(patch: Patch) -> None:
    resolve = Resolver._resolve
    patch.setattr(Resolver, "_resolve", lambda resolver, own, rows, _: resolve(resolver, own, rows, lambda _: None))


def without_adopting_the_last_successes(patch: Patch) -> None:
    patch.setattr(resolving, "last_successes", lambda *_: [])


def with_held_runs_that_are_closed_before_any_region_has_executed(patch: Patch) -> None:
    """No ledger then shows whether their intervals have executed, so they stay as they were closed."""
    patch.setattr(Bookkeeper, "is_unused", lambda _: False)


def with_held_runs_that_are_closed_while_the_first_role_may_come_back(patch: Patch) -> None:
    patch.setattr(Reconciler, "_may_get_its_first_role_back", lambda *_: False)


def with_roles_that_only_the_state_table_has(patch: Patch) -> None:
    """A role counts only if the state table accepted a heartbeat of it; the ledger is not asked."""
    patch.setattr(Bookkeeper, "unreconciled_epoch", lambda _: None)


def with_runs_that_a_standby_ends_as_a_success(patch: Patch) -> None:
    """Without resolving them, because that would hide the state."""
    without_resolving_the_ends_of_a_standby(patch)
    patch.setattr(Simulation, "check_own_ends", lambda *_: None)
    close = SimulatedAirflow._close

    def as_success(airflow: SimulatedAirflow, run: Run, state: str) -> None:
        close(airflow, run, "success" if run.is_marked else state)

    patch.setattr(SimulatedAirflow, "_close", as_success)


RULES: dict[Weaken, int] = {
    without_resolving_the_ends_of_a_standby: 2,
    with_runs_of_a_standby_deleted_and_not_listed: 2,
    without_adopting_the_last_successes: 2,
    with_runs_that_a_standby_ends_as_a_success: 17,
    with_held_runs_that_are_closed_before_any_region_has_executed: 1504175321,
    with_roles_that_only_the_state_table_has: 1749897090,
    with_the_callers_own_fence_file_s: 14,
    with_a_fence_that_lets_tasks_start_until_the_promotion: 23,
    without_the_lease_wait: 6,
    with_a_gate_that_needs_no_heartbeat_to_be_confirmed: 79,
    with_the_silence_of_one_scheduler_that_counts_for_all: 128,
    without_the_final_ledger_entry: 11,
    with_a_wanted_set_that_each_plan_records_again: 11,
    with_interrupted_runs_published_as_failed: 1,
    without_reconciling_before_anything_runs: 13,
    without_draining_before_the_pause: 1,
    with_a_cancel_that_unpauses_nothing: 51,
    with_cleared_runs_that_stay_published_as_ended: 1,
    with_failed_runs_started_again: 0,
    without_a_fence_for_tasks_from_the_triggerer: 0,
    without_runs_that_have_no_logical_date: 1,
    without_adoption: 1,
    with_a_log_read_across_its_gaps: 11,
    with_a_new_leader_that_closes_runs_that_the_old_leader_resumed: 35,
    with_a_returning_leader_that_does_not_read_its_ledger_again: 31767,
    with_announced_runs_that_ended_by_themselves_published_as_interrupted: 32,
    without_announcing_which_runs_ended_before_they_could_be_stopped: 68,
    with_held_runs_at_the_end_of_the_queue_and_no_room_made: 3,
    with_a_ledger_that_is_skipped_as_soon_as_it_refuses: 58,
}
"""The function that disables each rule, and the seed of a history that then goes wrong."""
