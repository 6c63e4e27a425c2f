"""DRAINING: drain the source, stop runs that outlast the drain, pause its DAGs; or abandon the plan."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.announced_runs import get_announced_runs, put_announced_runs
from airflow_provider_mwaa_dr.core.config import CONTROL_TAG
from airflow_provider_mwaa_dr.core.display import counted
from airflow_provider_mwaa_dr.core.failover import lease_wait
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan
from airflow_provider_mwaa_dr.core.failover.records import aborted
from airflow_provider_mwaa_dr.core.failover.table import plan_of
from airflow_provider_mwaa_dr.core.failover.watcher_wait import WatcherWait
from airflow_provider_mwaa_dr.core.lease import Closing, has_acknowledged
from airflow_provider_mwaa_dr.core.ports import AgentStatus, DagInfo, Environment, RunInfo
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Plan
from airflow_provider_mwaa_dr.core.translation import Era
from airflow_provider_mwaa_dr.exceptions import DrainTimeoutError, FailoverError, MwaaError


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """
    The result of a drain.

    :param closing: the write that closed the source's gate.
    :param idle: running runs of paused DAGs, in which nothing executed.
    :param exempt: the exempt DAGs of the source.
    """

    closing: Closing
    idle: tuple[RunInfo, ...]
    exempt: Sequence[DagInfo]

    @property
    def exempt_ids(self) -> frozenset[str]:
        """Ids of the exempt DAGs."""
        return ids_of(self.exempt)


def drain(
    own: OwnedPlan, state: DRState, source: Environment, since: float, exempt_dags: Sequence[DagInfo] | None
) -> Drained:
    """
    Wait until the source can start no run and no run of it is in progress.

    The drain begins when the live schedulers have acknowledged. It does not end before the gate of every scheduler
    is closed: a scheduler that its database no longer lists may still start a run.

    The source's asset watchers stop at the claim. The drain waits until they have, so that each message that they have
    taken has its run in the final ledger entry.

    While work in progress waits for held runs, the gate may start these runs. When no run is in progress, the engine
    closes the gate again, and counts again after it is closed.

    A running run of a paused DAG in which nothing executes does not count: Airflow does not continue it. The failover
    interrupts it, and the target resumes it.

    :param exempt_dags: the exempt DAGs of the source; None: list them. They are listed again if a run of another DAG
        is in progress, because that DAG may be new.
    :raises DrainTimeoutError: runs outlasted the drain, and the plan does not stop them.
    """
    plan = plan_of(state)
    own.progress.begin("drain")
    closing = lease_wait.closing(own, plan, state, since)
    lease_wait.await_live_schedulers(own, plan, closing)
    watchers = WatcherWait(own, plan, closing)
    starts_awaited = plan.starts_awaited
    exempt_dags = own.exempt(source) if exempt_dags is None else exempt_dags
    exempt = ids_of(exempt_dags)
    known = set(exempt)
    deadline = own.clock.monotonic() + own.timing.drain_s
    stopped: list[RunInfo] = []
    while True:
        agents = own.table.agents(plan.source)
        lease_wait.refuse_silent_source(own, plan, closing, agents)
        # Check the gates before the listing, so that the listing has every run that a gate let start.
        is_closed = not starts_awaited and own.clock.monotonic() >= closing.gate_closed_at(agents)
        # The scheduler creates the runs for the last events while the DAGs are not paused yet.
        is_closed = watchers.is_over(agents) and is_closed
        left = _in_progress(own, source, exempt)
        if unknown := {run.dag_id for run in left} - known:
            # These DAGs may have been deployed after the exempt DAGs were listed.
            exempt_dags = own.exempt(source)
            exempt = ids_of(exempt_dags)
            known |= unknown
            continue
        is_late = own.clock.monotonic() >= deadline
        idle = _idle(own, source, left, agents, is_late=is_late)
        left = [run for run in left if run not in idle]
        if starts_awaited and not left:
            state = own.write(Phase.DRAINING, lambda row: transitions.hold_awaited(row, at=own.clock.now()))
            closing = lease_wait.closing(own, plan, state, own.clock.monotonic())
            starts_awaited = False
            continue
        if left and not stopped and not starts_awaited and _has_awaited(agents, closing):
            state = own.write(Phase.DRAINING, lambda row: transitions.start_awaited(row, at=own.clock.now()))
            starts_awaited = plan_of(state).starts_awaited
        if not left and is_closed:
            if _is_complete(agents, closing):
                break
            # List the runs again after the gates' commit time: a gate that decided just before it read the
            # claim may not have committed yet, and a run that just ended may start another one through an
            # asset.
            own.wait(own.timing.gate_commit_s)
            left = _in_progress(own, source, exempt)
            idle = _idle(own, source, left, agents, is_late=is_late)
            left = [run for run in left if run not in idle]
            if not left:
                break
        if not left:
            # A run that starts after this gets the full drain time.
            deadline = own.clock.monotonic() + own.timing.drain_s
        elif is_late:
            if not plan.stop_running:
                raise _timeout(own, plan, left, agents)
            _stop(own, plan, source, left, exempt)
            stopped += left
            deadline = own.clock.monotonic() + own.timing.stop_s
            continue
        own.progress.report(
            f"{counted(len(left), 'run')} in progress: {_some(left)}"
            + ("; held runs that they wait for may start" if starts_awaited else "")
            if left
            else watchers.waits_for or lease_wait.waits_for(plan, closing, agents)
        )
        own.wait(own.timing.poll_s)
    is_acknowledged = has_acknowledged(agents, closing.version)
    how = "acknowledged by every scheduler" if is_acknowledged else "not acknowledged: the lease has expired"
    own.progress.done(
        how
        + (f"; stopped {_some(stopped)}" if stopped else "; no run in progress")
        + (f"; interrupts {_some(idle)}, whose DAGs are paused" if idle else "")
        + watchers.outcome
    )
    return Drained(closing=closing, idle=tuple(idle), exempt=exempt_dags)


def _is_complete(agents: Sequence[AgentStatus], closing: Closing) -> bool:
    """
    Whether a list of runs that was read now contains every run that the source can have in progress.

    The scheduler's thread has committed its older decisions before its agent acknowledges. An asset event that still
    waits for its run gets it from the agent, before the final ledger entry; not on Airflow 2, whose scheduler needs a
    loop for that.
    """
    eras = {Era.of(agent.airflow_version) for agent in agents if not agent.gone}
    return has_acknowledged(agents, closing.version) and eras.isdisjoint({None, Era.AIRFLOW_2})


def await_idle(own: OwnedPlan, source: Environment, drained: Drained) -> None:
    """
    Wait until no task of the source executes, if the drain did not count each running run.

    The fence is closed, so no further task starts. A user may have unpaused a DAG before that.

    :raises FailoverError: a task still executes after ``drain_s``.
    """
    if not drained.idle:
        return
    deadline = own.clock.monotonic() + own.timing.drain_s
    while left := own.ask(lambda: not_of(drained.exempt_ids, source.running_tasks())):
        if own.clock.monotonic() >= deadline:
            raise FailoverError(
                f"Runs of {source.region} still execute: {_some(left)}. Their DAGs were paused during the drain, and "
                "have been unpaused since.",
                advice="Wait until these tasks end.",
            )
        own.progress.report(f"{counted(len(left), 'run')} of DAGs that were paused still executing: {_some(left)}")
        own.wait(own.timing.poll_s)


def await_tasks(own: OwnedPlan, source: Environment) -> None:
    """
    Wait until the web server of a silent source lists no executing task, for ``drain_s`` at most.

    The schedulers are gone, and the workers may not be. The target runs an interrupted task again, if possible not at
    the same time. A web server that does not answer ends the wait.
    """
    own.progress.begin("tasks")
    deadline = own.clock.monotonic() + own.timing.drain_s
    while True:
        own.state()
        try:
            exempt = {dag.dag_id for dag in source.dags(tag=CONTROL_TAG)} | own.context.exempt_dags
            left = not_of(exempt, source.running_tasks())
        except MwaaError as error:
            own.progress.done(f"the web server of {source.region} does not answer ({error.message})")
            return
        if not left:
            own.progress.done(f"no task of {source.region} executes")
            return
        if own.clock.monotonic() >= deadline:
            own.progress.done(f"still executing after {own.timing.drain_s:g} s: {_some(left)}")
            return
        own.progress.report(f"{counted(len(left), 'run')} of {source.region} still executing: {_some(left)}")
        own.wait(own.timing.poll_s)


def _in_progress(own: OwnedPlan, source: Environment, exempt: Collection[str]) -> Sequence[RunInfo]:
    """
    Return the running runs; if there are none, the runs that have ended but still execute a task.

    Another engine may have stopped these runs and died before their tasks ended.
    """
    runs = own.ask(lambda: not_of(exempt, source.running_runs()))
    return runs or own.ask(lambda: not_of(exempt, source.running_tasks()))


def _idle(
    own: OwnedPlan, source: Environment, runs: Sequence[RunInfo], agents: Sequence[AgentStatus], *, is_late: bool
) -> Sequence[RunInfo]:
    """
    Return those of *runs* whose DAG is paused and that execute nothing.

    The agents report how many there are. The engine checks it only if these may be all *runs*, or if *is_late*: to list
    the DAGs takes seconds.
    """
    reported = max((agent.idle for agent in agents), default=0)
    if not runs or reported == 0 or (len(runs) > reported and not is_late):
        return ()
    paused = {dag.dag_id for dag in own.dags(source, paused=True)}
    executing = {(run.dag_id, run.run_id) for run in own.ask(source.running_tasks)}
    return [run for run in runs if run.dag_id in paused and (run.dag_id, run.run_id) not in executing]


def _has_awaited(agents: Sequence[AgentStatus], closing: Closing) -> bool:
    """Whether an agent reports that work in progress waits for held runs. Old heartbeats do not count."""
    return any(agent.awaited and not agent.gone and agent.version >= closing.version for agent in agents)


def _timeout(own: OwnedPlan, plan: Plan, left: Sequence[RunInfo], agents: Sequence[AgentStatus]) -> DrainTimeoutError:
    """Return the error of a drain that is too long. It names the runs, and what their tasks wait for."""
    waits = sorted({text for agent in agents if not agent.gone for text in agent.waits})
    return DrainTimeoutError(
        f"{len(left)} runs in {plan.source} outlasted the drain of {own.timing.drain_s:g} s: {_some(left)}."
        + (f" Waiting: {'; '.join(waits)}." if waits else ""),
        runs=[str(run) for run in left],
        advice="The source stays active. Wait until these runs finish, or repeat with --stop-running to "
        f"stop them. If {plan.source} cannot finish them: --mode forced.",
    )


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


def pause_source(
    own: OwnedPlan, plan: Plan, source: Environment, recorded: Collection[str], exempt: Sequence[DagInfo]
) -> None:
    """
    Pause all DAGs of the source that are not exempt.

    :param recorded: the recorded set. It probably contains the unpaused DAGs: a list of thousands takes long.
    :param exempt: the exempt DAGs.
    """
    own.progress.begin("pause")
    paused: set[str] = set()
    deadline = own.clock.monotonic() + own.timing.stop_s
    running = sorted(set(recorded) - ids_of(exempt))
    expected: Sequence[DagInfo] | None = [*(DagInfo(dag_id=each, is_paused=False) for each in running), *exempt]
    while running or (running := own.context.unpaused(own.dags(source, paused=False))):
        if own.clock.monotonic() >= deadline:
            raise FailoverError(
                f"DAGs of {plan.source} are unpaused again as soon as they are paused: {', '.join(running[:20])}.",
                advice="Find the user or the process that unpauses them.",
            )
        paused.update(own.set_paused(source, running, paused=True, listing=None, expected=expected))
        running, expected = [], None  # the flags have changed
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
    own.context.courier.look()
    return OwnedPlan(own.context, plan_of(new).id, even_if_not_ready=own.even_if_not_ready)


def ids_of(dags: Sequence[DagInfo]) -> frozenset[str]:
    """Return the ids of *dags*."""
    return frozenset(dag.dag_id for dag in dags)


def not_of(exempt: Collection[str], runs: Sequence[RunInfo]) -> Sequence[RunInfo]:
    """Return the *runs* of DAGs that are not exempt."""
    return [run for run in runs if run.dag_id not in exempt]


def _some(runs: Sequence[RunInfo]) -> str:
    shown = ", ".join(str(run) for run in runs[:5])
    return shown if len(runs) <= 5 else f"{shown} and {len(runs) - 5} more"
