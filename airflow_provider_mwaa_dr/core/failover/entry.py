"""The entry into a plan: claim, join, cancel, supersede or recover."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import actions, copies, preconditions
from airflow_provider_mwaa_dr.core.failover.actions import CHECKED, FailoverAction
from airflow_provider_mwaa_dr.core.failover.context import EngineContext
from airflow_provider_mwaa_dr.core.failover.halt import HoldCheck, record_of
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan, TakenOverError, refuse_unusable, superseded
from airflow_provider_mwaa_dr.core.failover.request import FailoverRequest
from airflow_provider_mwaa_dr.core.failover.table import plan_of
from airflow_provider_mwaa_dr.core.ports import RECORDS, FailoverOutcome, FailoverRecord
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan, Stage, has_reached
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, NotReadyError, StaleStateError


def enter(context: EngineContext, request: FailoverRequest) -> DRState | FailoverRecord:
    """
    Claim, join, cancel, supersede or recover: retry until one of these writes succeeds.

    :return: the state that this engine acts on; or the record, if the plan's owner has finished the plan, or if the
        plan has reached the stage of *request*.
    :raises PlanSupersededError: the plan that *request* continues is no longer open. Nothing was changed.
    """
    checked = False
    hold_check, known_without = HoldCheck(context, is_needed=request.until is not None), list[Collection[str]]()
    while True:
        state = context.table.read()
        action = actions.action(context, state, request.target)
        if action is FailoverAction.NOTHING:
            raise AlreadyActiveError(f"{request.target} is active already (epoch {state.epoch}), nothing to do.")
        if request.plan_id is not None and (action is not FailoverAction.JOIN or plan_of(state).id != request.plan_id):
            raise superseded(request.plan_id, state)
        if action in CHECKED and not checked:
            checked_request = replace(request, mode=Mode.FORCED) if action is FailoverAction.RECOVER else request
            preconditions.check(context, state, checked_request)
            checked = True
            continue  # the state may have changed during the checks
        if request.until is not None and _sets_a_hold(state, action, request.until):
            lost = lost_regions(context, state, request, action)
            if lost not in known_without:
                hold_check.refuse(request.until, lost)
                known_without.append(lost)
                continue  # the state may have changed during the check
        if action is FailoverAction.JOIN:
            with suppress(TakenOverError):
                return _join(context, state, request)
            continue
        is_safe = action is not FailoverAction.CANCEL or request.even_if_not_ready
        if not is_safe and (why := copies.why_target_copy_unreadable(context, state)):
            raise NotReadyError(
                f"Plan {plan_of(state).id} cannot be cancelled: {why}.",
                why=[why],
                advice="Nothing was changed. Wait until that copy can be read, or repeat with --even-if-not-ready.",
            )
        at, note = context.clock.now(), ""
        plan = _new_plan(context, state, request)
        if action is FailoverAction.CLAIM:
            new = transitions.claim(state, plan, at=at)
        elif action is FailoverAction.SUPERSEDE:
            new = transitions.supersede(state, plan, at=at)
        elif action is FailoverAction.RECOVER:
            last = replace(plan, source=actions.last_active(context, state, request.target))
            new = transitions.recover(state, last, lease_s=context.timing.lease_s, at=at)
            why = actions.why_unknown(context, state, request.target)
            note = (
                f"; {why}; it is forced, regardless of the requested mode, and waits for every other registered "
                f"region: {', '.join(actions.sources(context, plan_of(new)))}"
            )
        else:
            new = transitions.cancel(
                state, plan_id=plan.id, by=request.by, owner=context.owner, reason=request.reason, at=at
            )
        context.progress.begin(action.value)
        try:
            context.table.put(new, state.version)
        except StaleStateError:
            continue  # another caller wrote first: read again, decide again
        context.progress.close_other_records(plan_of(new))
        context.progress.open(new)
        context.courier.look()
        context.progress.done(f"plan {plan_of(new).id}: {plan_of(new).source} -> {plan_of(new).target}{note}")
        return new


def _sets_a_hold(state: DRState, action: FailoverAction, until: Stage) -> bool:
    """Whether this caller would be the first that gives the plan a stage to halt at."""
    if action is not FailoverAction.JOIN:
        return action in CHECKED
    return plan_of(state).hold is None and not has_reached(state, until)


def lost_regions(
    context: EngineContext, state: DRState, request: FailoverRequest, action: FailoverAction
) -> Collection[str]:
    """Return the regions that the plan leaves without calling them."""
    plan = state.plan
    if action is FailoverAction.RECOVER:
        return sorted(context.regions() - {request.target})
    if action is FailoverAction.JOIN and plan is not None and plan.is_forced:
        return actions.sources(context, plan)
    return [state.active_region] if request.mode is Mode.FORCED else []


def _new_plan(context: EngineContext, state: DRState, request: FailoverRequest) -> Plan:
    at = context.clock.now()
    return Plan(
        id=f"{at:%Y%m%dT%H%M%SZ}-{context.new_token()}",
        source=state.active_region,
        target=request.target,
        mode=request.mode,
        reason=request.reason,
        by=request.by,
        owner=context.owner,
        started_at=at,
        stop_running=request.stop_running,
        hold=request.until,
        hold_s=request.hold_s,
    )


def _join(context: EngineContext, state: DRState, request: FailoverRequest) -> DRState | FailoverRecord:
    """Follow the plan; take it over if its owner is silent. A caller may turn the plan forced, but not back."""
    plan = plan_of(state)
    would_force = request.mode is Mode.FORCED and not plan.is_forced and state.phase is Phase.DRAINING
    if would_force and not request.even_if_not_ready and (why := copies.why_lease_is_ignored(context, plan.source)):
        raise NotReadyError(
            f"Plan {plan.id} cannot turn forced: {why}.",
            why=[why],
            advice="Make sure that it is down, then repeat with --even-if-not-ready.",
        )
    followed = follow(context, request, plan.id, state)
    if isinstance(followed, FailoverRecord):
        return followed
    plan = plan_of(followed)
    forces = request.mode is Mode.FORCED and not plan.is_forced and followed.phase is Phase.DRAINING
    stops = request.stop_running and not plan.stop_running
    if not (forces or stops):
        return followed

    own = OwnedPlan(context, plan.id, even_if_not_ready=request.even_if_not_ready)
    return own.write(
        followed.phase,
        lambda row: transitions.harden(row, stops=stops, forces=forces, at=context.clock.now()),
    )


def follow(context: EngineContext, request: FailoverRequest, plan_id: str, state: DRState) -> DRState | FailoverRecord:
    """
    Follow another engine's plan.

    :return: its record, when it ends or reaches the stage of *request*; or the state, after this engine has taken the
        plan over. It takes over a halted plan immediately.
    :raises PlanSupersededError: the open plan has another target than *request*, or another region is active.
    """
    target, until = request.target, request.until
    context.progress.begin(FailoverAction.JOIN.value)
    seen, since = state.version, context.clock.monotonic()
    while True:
        refuse_unusable(state)
        if state.plan is None or state.phase is Phase.STEADY:
            if state.active_region != target:
                raise superseded(plan_id, state)
            record = context.progress.history(partial(context.table.store.get, RECORDS, plan_id))
            if record is None or record.outcome is not FailoverOutcome.COMPLETED:
                raise AlreadyActiveError(
                    f"{target} is active (epoch {state.epoch}); plan {plan_id} ended while this caller followed it."
                )
            context.progress.done(f"plan {plan_id} was finished by its owner")
            return record
        plan = state.plan
        if plan.target != target or request.plan_id not in {None, plan.id}:
            raise superseded(plan_id, state)
        plan_id, owner = plan.id, plan.owner
        if until is not None and not plan.is_cancellation and has_reached(state, until):
            context.progress.done(f"plan {plan_id} has reached {until.value} ({state.phase.value})")
            return record_of(context, state)
        if owner == context.owner:
            return state
        if state.version != seen:
            seen, since = state.version, context.clock.monotonic()
        still_s = context.clock.monotonic() - since
        if plan.is_halted or still_s > context.timing.takeover_s:
            new = transitions.take_over(
                state, owner=context.owner, hold=until, hold_s=request.hold_s, at=context.clock.now()
            )
            try:
                context.table.put(new, state.version)
            except StaleStateError:
                state = context.table.read()
                continue
            why = "it was halted" if plan.is_halted else f"{owner} was silent for {still_s:.0f} s"
            context.progress.done(f"took over plan {plan_id}: {why}")
            return new
        context.progress.report(
            f"following plan {plan_id} of {owner} ({state.phase.value}); silent for {still_s:.0f} s"
        )
        context.clock.sleep(context.timing.poll_s)
        state = context.table.read()
