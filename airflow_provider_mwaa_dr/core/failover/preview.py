"""What a failover would do now, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from airflow_provider_mwaa_dr.core.failover import actions, preconditions, recorded_sets
from airflow_provider_mwaa_dr.core.failover.actions import CHECKED, FailoverAction
from airflow_provider_mwaa_dr.core.failover.context import EngineContext
from airflow_provider_mwaa_dr.core.failover.drain import not_of
from airflow_provider_mwaa_dr.core.failover.entry import lost_regions
from airflow_provider_mwaa_dr.core.failover.halt import HoldCheck, why_unaware
from airflow_provider_mwaa_dr.core.failover.request import FailoverRequest
from airflow_provider_mwaa_dr.core.ports import DAG_SETS, SNAPSHOTS
from airflow_provider_mwaa_dr.core.state import Mode, Phase, Stage
from airflow_provider_mwaa_dr.exceptions import MwaaError


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverPreview:
    """
    What a failover would do now. The preview itself changes nothing.

    :param why_recovery: for :attr:`FailoverAction.RECOVER`: why the state names no active region. Such a failover is
        forced, regardless of the requested mode. None for any other action.
    :param wanted: number of DAGs to pause in the source and to unpause in the target; None if unknown.
    :param running: running runs of the source; None if unknown, or for a forced failover, which does not call the
        source.
    :param not_ready: why the failover would be refused, a line each.
    :param until: the stage at which the failover halts; None if it continues to the end.
    """

    action: FailoverAction
    source: str
    target: str
    mode: Mode
    epoch: int
    phase: Phase
    plan_id: str | None
    wanted: int | None
    exempt: int | None
    running: tuple[str, ...] | None
    not_ready: tuple[str, ...]
    steps: tuple[str, ...]
    why_recovery: str | None = None
    until: Stage | None = None


def preview(context: EngineContext, request: FailoverRequest) -> FailoverPreview:
    """Return what a failover would do now. Changes nothing; for a forced failover, does not call the source."""
    context.environment(request.target)
    state = context.table.read()
    action = actions.action(context, state, request.target)
    plan = state.plan
    # A superseding plan leaves the region that is active now, even if the open plan leaves another region.
    source = plan.source if plan is not None and action is FailoverAction.JOIN else state.active_region
    mode, why_recovery = request.mode, None
    if action is FailoverAction.RECOVER:
        source, mode = actions.last_active(context, state, request.target), Mode.FORCED
        why_recovery = actions.why_unknown(context, state, request.target)
    not_ready: Sequence[str] = ()
    wanted = exempt = None
    running: tuple[str, ...] | None = None
    if action in CHECKED:
        hold_check = HoldCheck(context, is_needed=request.until is not None)
        not_ready, _ = preconditions.problems(context, state, replace(request, mode=mode))
        if request.until is not None:
            unaware = hold_check.unaware(lost_regions(context, state, replace(request, mode=mode), action))
            not_ready = [*not_ready, *([why_unaware(unaware)] if unaware else [])]
        if mode is not Mode.FORCED:
            with suppress(MwaaError):  # graceful: a problem, too; auto: the failover continues without the source
                dags = context.environment(source).dags()
                exempt = len(context.exempt(dags))
                wanted = len(context.unpaused(dags))
                runs = context.environment(source).running_runs()
                running = tuple(str(run) for run in not_of(context.exempt(dags), runs))
    set_id = plan.set_id if plan is not None else None
    if set_id is not None:
        recorded, _ = context.table.set_if_readable(lambda: context.table.store.get(DAG_SETS, set_id))
        wanted = len(recorded.dag_ids) if recorded is not None else None
    elif action is FailoverAction.RECOVER and (lost := recorded_sets.set_of_lost_plan(context)) is not None:
        wanted = len(lost.dag_ids)
    elif wanted is None:
        snapshot, _ = context.table.set_if_readable(lambda: context.table.store.get(SNAPSHOTS, source))
        wanted = len(snapshot.dag_ids) if snapshot is not None else None
    return FailoverPreview(
        action=action,
        source=source,
        target=request.target,
        mode=mode,
        epoch=state.epoch,
        phase=state.phase,
        plan_id=plan.id if plan is not None else None,
        wanted=wanted,
        exempt=exempt,
        running=running,
        not_ready=tuple(not_ready),
        steps=steps_of(action, mode, request.until),
        until=request.until,
        why_recovery=why_recovery,
    )


def steps_of(action: FailoverAction, mode: Mode, until: Stage | None = None) -> tuple[str, ...]:
    """Return the steps of a failover that begins with *action*, in order, up to the stage at which it halts."""
    end: tuple[str, ...] = ("unpause", "verify", "complete")
    if action is FailoverAction.NOTHING:
        return ()
    if action is FailoverAction.CANCEL:
        return (action.value, *end)
    if mode is Mode.FORCED:
        middle: tuple[str, ...] = ("record", "lease", "promote", "adopt")
    else:
        middle = ("record", "drain", "pause", "ledger", "lease", "promote", "adopt")
    if until is not None:
        middle = middle[: middle.index("promote")] if until is Stage.DRAINED else middle
        end = ("halt",)
    return (*(("check",) if action in CHECKED else ()), action.value, *middle, *end)
