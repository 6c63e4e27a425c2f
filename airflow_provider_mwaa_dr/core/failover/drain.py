"""DRAINING: drain the source, stop runs that outlast the drain, pause its DAGs; or abandon the plan."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.announced_runs import get_announced_runs, put_announced_runs
from airflow_provider_mwaa_dr.core.display import counted
from airflow_provider_mwaa_dr.core.failover import lease_wait
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan
from airflow_provider_mwaa_dr.core.failover.records import aborted
from airflow_provider_mwaa_dr.core.failover.table import plan_of
from airflow_provider_mwaa_dr.core.lease import Closing, has_acknowledged
from airflow_provider_mwaa_dr.core.ports import DagInfo, Environment, RunInfo
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import DrainTimeoutError, FailoverError


def drain(own: OwnedPlan, state: DRState, source: Environment, since: float) -> tuple[Closing, Sequence[DagInfo]]:
    """
    Wait until the source can start no run and no run of it is in progress.

    The drain begins when the live schedulers have acknowledged. It does not end before the gate of every scheduler
    is closed: a scheduler that its database no longer lists may still start a run.

    :return: the write that closed the source's gate; and the latest listing of its DAGs.
    :raises DrainTimeoutError: runs outlasted the drain, and the plan does not stop them.
    """
    plan = plan_of(state)
    own.progress.begin("drain")
    closing = lease_wait.closing(own, plan, state, since)
    lease_wait.await_live_schedulers(own, plan, closing)
    listed: set[str] = set()
    exempt: Collection[str] = ()
    deadline = own.clock.monotonic() + own.timing.drain_s
    stopped: list[RunInfo] = []
    while True:
        agents = own.table.agents(plan.source)
        # Check the gates before the listing, so that the listing has every run that a gate let start.
        is_closed = own.clock.monotonic() >= closing.gate_closed_at(agents)
        left = _in_progress(own, source, exempt)
        if unlisted := {run.dag_id for run in left} - listed:
            # The DAGs are not listed yet, or were deployed after the listing: they may be exempt.
            dags = own.dags(source)
            exempt = own.context.exempt(dags)
            listed |= unlisted | {dag.dag_id for dag in dags}
            continue
        if not left and is_closed:
            # List the runs again after the gates' commit time: a gate that decided just before it read the
            # claim may not have committed yet, and a run that just ended may start another one through an
            # asset. The engine lists the DAGs during this time.
            read_again_at = own.clock.monotonic() + own.timing.gate_commit_s
            listing = own.dags(source)
            own.wait(read_again_at - own.clock.monotonic())
            left = _in_progress(own, source, exempt)
            if not left:
                break
        if not left:
            # A run that starts after this gets the full drain time.
            deadline = own.clock.monotonic() + own.timing.drain_s
        elif own.clock.monotonic() >= deadline:
            if not plan.stop_running:
                raise DrainTimeoutError(
                    f"{len(left)} runs in {plan.source} outlasted the drain of {own.timing.drain_s:g} s: "
                    f"{_some(left)}.",
                    runs=[str(run) for run in left],
                    advice="The source stays active. Wait until these runs finish, or repeat with --stop-running to "
                    f"stop them. If {plan.source} cannot finish them: --mode forced.",
                )
            _stop(own, plan, source, left, exempt)
            stopped += left
            deadline = own.clock.monotonic() + own.timing.stop_s
            continue
        own.progress.report(
            f"{counted(len(left), 'run')} in progress: {_some(left)}"
            if left
            else lease_wait.waits_for(plan, closing, agents)
        )
        own.wait(own.timing.poll_s)
    is_acknowledged = has_acknowledged(agents, closing.version)
    how = "acknowledged by every scheduler" if is_acknowledged else "not acknowledged: the lease has expired"
    own.progress.done(how + (f"; stopped {_some(stopped)}" if stopped else "; no run in progress"))
    return closing, listing


def _in_progress(own: OwnedPlan, source: Environment, exempt: Collection[str]) -> Sequence[RunInfo]:
    """
    Return the running runs; if there are none, the runs that have ended but still execute a task.

    Another engine may have stopped these runs and died before their tasks ended.
    """
    runs = own.ask(lambda: not_of(exempt, source.running_runs()))
    return runs or own.ask(lambda: not_of(exempt, source.running_tasks()))


def _stop(own: OwnedPlan, plan: Plan, source: Environment, runs: Sequence[RunInfo], exempt: Collection[str]) -> None:
    """Mark *runs* as failed, and wait until no task instance of the source executes."""
    # Announce first, so that the ledger does not count a stopped run as one that ended by itself.
    before = _announce(own, plan, runs)
    ended = [run for run in runs if stop_run(own, source, run)]
    had_ended = [run for run in ended if before is not None and str(run) not in before]
    if had_ended:
        _announce(own, plan, had_ended, had_ended=True)
    deadline = own.clock.monotonic() + own.timing.stop_s
    while left := own.ask(lambda: not_of(exempt, source.running_tasks())):
        if own.clock.monotonic() >= deadline:
            raise FailoverError(
                f"Stopped runs of {plan.source} still execute after {own.timing.stop_s:g} s: {_some(left)}.",
                advice=f"Check their workers in {source.name}.",
            )
        own.progress.report(f"stopped {counted(len(runs), 'run')}; {len(left)} still executing: {_some(left)}")
        own.wait(own.timing.poll_s)


def stop_run(own: OwnedPlan, source: Environment, run: RunInfo) -> bool:
    """Stop *run*; return whether it had certainly ended by itself."""
    attempts = 0

    def stop() -> bool:
        nonlocal attempts
        attempts += 1
        return source.stop_run(run)

    was_open = own.ask(stop)
    # An earlier attempt without an answer may have stopped it.
    return not was_open and attempts == 1


def _announce(
    own: OwnedPlan, plan: Plan, runs: Sequence[RunInfo], *, had_ended: bool = False
) -> Collection[str] | None:
    """
    Announce that the failover stops *runs*, or that they had ended by themselves.

    :return: the runs that were announced as stopped before; None if this cannot be read. The engine that announced
        a run may have stopped it, or its call may still be in progress.
    """
    state = own.state()
    before: set[str] = set()
    is_known = True
    for stop in transitions.stops_of(state, state.epoch):
        if not stop.had_ended:
            announced, _ = own.table.set_if_readable(partial(get_announced_runs, own.table.store, stop.set_id))
            is_known &= announced is not None
            before.update(announced or ())
    names = tuple(sorted(map(str, runs)))
    set_id = transitions.announced_set_id(plan.id, len(state.stops) + 1, names, had_ended=had_ended)
    put = partial(put_announced_runs, own.table.store, set_id, names, region=plan.source, at=own.clock.now())
    own.table.retry(put)
    own.write(
        Phase.DRAINING,
        lambda row: transitions.announce(row, set_id, had_ended=had_ended, at=own.clock.now()),
    )
    return before if is_known else None


def pause_source(own: OwnedPlan, plan: Plan, source: Environment, dags: Sequence[DagInfo]) -> None:
    """Pause all DAGs of the source that are not exempt; *dags* is their latest listing."""
    own.progress.begin("pause")
    paused: set[str] = set()
    deadline = own.clock.monotonic() + own.timing.stop_s
    listing: Sequence[DagInfo] | None = dags
    running = own.context.unpaused(dags)
    while running or (running := own.context.unpaused(own.dags(source, paused=False))):
        if own.clock.monotonic() >= deadline:
            raise FailoverError(
                f"DAGs of {plan.source} are unpaused again as soon as they are paused: {', '.join(running[:20])}.",
                advice="Find the user or the process that unpauses them.",
            )
        paused.update(own.set_paused(source, running, paused=True, listing=listing))
        running, listing = [], None  # the flags have changed
    own.progress.done(f"{counted(len(paused), 'DAG')} paused in {plan.source}")


def abandon(own: OwnedPlan, state: DRState, error: DrainTimeoutError) -> OwnedPlan:
    """Cancel the plan, so that its source stays active; return the plan that unpauses the paused DAGs."""
    plan = plan_of(state)
    own.progress.begin("abandon")
    new = own.write(
        Phase.DRAINING,
        lambda row: transitions.cancel(
            row,
            plan_id=f"{plan.id}-back",
            by=plan.by,
            owner=own.context.owner,
            reason=f"abandoned: {error.message}",
            at=own.clock.now(),
        ),
    )
    own.progress.done(f"{new.active_region} stays active; unfinished runs: {', '.join(error.runs[:20])}")
    at = own.clock.now()
    error.record = own.progress.update_record(lambda record: aborted(record, at=at))
    own.progress.close()
    own.progress.open(new)
    return OwnedPlan(own.context, plan_of(new).id, even_if_not_ready=own.even_if_not_ready)


def not_of(exempt: Collection[str], runs: Sequence[RunInfo]) -> Sequence[RunInfo]:
    """Return the *runs* of DAGs that are not exempt."""
    return [run for run in runs if run.dag_id not in exempt]


def _some(runs: Sequence[RunInfo]) -> str:
    shown = ", ".join(str(run) for run in runs[:5])
    return shown if len(runs) <= 5 else f"{shown} and {len(runs) - 5} more"
