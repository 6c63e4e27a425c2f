"""
The failover engine: the steps of a failover over the ports. Any caller can repeat or resume them.

The plan is in the state item, so an engine has no information that another engine cannot read. A new engine, on another
machine or started by another kind of caller, continues where the last one stopped. Before each action, the engine reads
the state item. It acts only if it still owns the plan and the phase has not changed.

The agents transfer history and interrupted runs through the ledger. Before the promotion, the engine waits for the
source's final ledger entry. After the promotion, it waits until the target's agent has taken these over.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.failover import (
    actions,
    drain,
    entry,
    halt,
    lease_wait,
    preview,
    promote,
    recorded_sets,
    restore,
)
from airflow_provider_mwaa_dr.core.failover.context import EngineContext
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan, TakenOverError
from airflow_provider_mwaa_dr.core.failover.preview import FailoverPreview
from airflow_provider_mwaa_dr.core.failover.records import Progress, StepEvent
from airflow_provider_mwaa_dr.core.failover.request import FailoverRequest
from airflow_provider_mwaa_dr.core.failover.table import StateTable, plan_of
from airflow_provider_mwaa_dr.core.heartbeats import Silence
from airflow_provider_mwaa_dr.core.notifications import Courier, stopped
from airflow_provider_mwaa_dr.core.ports import Clock, Environment, FailoverRecord, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Stage
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import (
    DrainTimeoutError,
    DRError,
    FailoverError,
    MwaaUnreachableError,
    RefusedError,
    StateError,
)


class FailoverEngine:
    """
    Moves the active role.

    :param store: the state table.
    :param environments: the DR set's environments by region.
    :param owner: the name of this process; unique among all engines of the set.
    :param exempt_dags: ids of exempt DAGs, in addition to DAGs tagged ``dr:control``.
    :param eventual: whether the state table has eventual consistency.
    :param on_step: called with each :class:`StepEvent`. The engine ignores any ``Exception`` that it raises: a failover
        does not depend on its output. Other errors, such as KeyboardInterrupt, end the engine.
    :param courier: sends notifications in the background; None: nothing sends them.
    """

    def __init__(
        self,
        store: StateStore,
        environments: Mapping[str, Environment],
        clock: Clock,
        timing: Timing,
        owner: str,
        on_step: Callable[[StepEvent], None] = lambda _: None,
        *,
        exempt_dags: Collection[str] = frozenset(),
        eventual: bool = False,
        courier: Courier | None = None,
        new_token: Callable[[], str] = lambda: uuid.uuid4().hex[:6],
    ) -> None:
        table = StateTable(store, clock, timing)
        self.context = EngineContext(
            table=table,
            environments=environments,
            clock=clock,
            timing=timing,
            owner=owner,
            progress=Progress(table, clock, on_step),
            silence=Silence(table.agents, clock),
            exempt_dags=frozenset(exempt_dags),
            eventual=eventual,
            courier=courier if courier is not None else Courier(store, (), clock, owner=owner),
            new_token=new_token,
        )

    @classmethod
    def from_config(
        cls,
        config: DRConfig,
        store: StateStore,
        environments: Mapping[str, Environment],
        clock: Clock,
        *,
        owner: str,
        on_step: Callable[[StepEvent], None],
        courier: Courier | None = None,
    ) -> FailoverEngine:
        """Return an engine for the settings of a DR set."""
        return cls(
            store,
            environments,
            clock,
            Timing.from_config(config),
            owner,
            on_step,
            exempt_dags=config.exempt_dags,
            eventual=config.eventual_mode is not None,
            courier=courier,
        )

    def run(self, request: FailoverRequest) -> FailoverRecord:
        """
        Move the active role to *request.target* and return the record of the failover.

        Idempotent: another call, by any caller, joins the open plan for the same target. After completion it raises
        AlreadyActiveError. If the process dies at any point, nothing is lost, and the next call continues.

        With *request.until*, it returns the open record at that stage. Nothing executes in source and target then; the
        next call continues or cancels.

        :raises AlreadyActiveError: the target is active, and no failover is in progress; treat it as success.
        :raises NotReadyError: a check failed; nothing was changed.
        :raises DrainTimeoutError: runs outlasted the drain; the plan was abandoned, and the source stays active.
        :raises PlanSupersededError: another caller's plan has another target, or the plan that *request* continues is
            no longer open; this engine has stopped.
        :raises FailoverError: a deadline passed in a later step; the plan is open and can be joined or cancelled.
        :raises StateError: the state could not be read, or does not exist.
        """
        context = self.context
        context.environment(request.target)
        entered = entry.enter(context, request)
        while True:
            if isinstance(entered, FailoverRecord):
                return entered
            try:
                try:
                    return _drive(context, entered, even_if_not_ready=request.even_if_not_ready)
                except RefusedError:
                    raise
                except DRError as error:
                    raise _stopped(context, error) from error
            except TakenOverError as taken:
                # Only the new owner writes the record and its steps now. This engine would overwrite newer steps.
                context.progress.close()
                entered = entry.follow(context, request, taken.plan_id, context.table.read())

    def preview(self, request: FailoverRequest) -> FailoverPreview:
        """Return what :meth:`run` would do now. Changes nothing; for a forced failover, does not call the source."""
        return preview.preview(self.context, request)


def _drive(context: EngineContext, state: DRState, *, even_if_not_ready: bool) -> FailoverRecord:
    """Execute the plan from its present phase to its end, or to the stage at which it halts."""
    own = OwnedPlan(context, plan_of(state).id, even_if_not_ready=even_if_not_ready)
    # The lease is counted from the response of the write after which the source may start nothing. For an engine
    # that joins, it is counted from its own first read. In both cases that time is now.
    since = context.clock.monotonic()
    context.progress.open(state)
    is_silent = False
    abandoned: DrainTimeoutError | None = None
    while True:
        state = own.state()
        plan = plan_of(state)
        if state.phase is Phase.DRAINING:
            try:
                _leave_source(own, state, since, is_silent=is_silent)
                if plan_of(own.state()).hold is Stage.DRAINED:
                    return halt.halt(own)
                promote.promote(own)
            except DrainTimeoutError as error:
                abandoned = error
                own = drain.abandon(own, state, error)
            except MwaaUnreachableError as error:
                if plan.mode is not Mode.AUTO:
                    raise
                is_silent = isinstance(error, lease_wait.SilentSourceError)
                promote.turn_forced(own, plan, error)
                since = context.clock.monotonic()
        elif state.phase is Phase.PROMOTING:
            promote.adopt(own, state)
            if plan.hold is Stage.PROMOTED:
                return halt.halt(own)
            promote.resume(own)
        else:
            unpaused = restore.unpause(own, state)
            not_unpaused = restore.verify(own, plan, unpaused)
            record = restore.complete(own, state, unpaused, not_unpaused)
            if abandoned is not None:
                raise abandoned
            return record


def _leave_source(own: OwnedPlan, state: DRState, since: float, *, is_silent: bool) -> None:
    """
    Do all steps in DRAINING up to the promotion.

    :param is_silent: whether this engine turned the plan forced because all schedulers of the source are silent.
    """
    plan = plan_of(state)
    if plan.halts:
        return  # an engine halted the plan after these steps
    if plan.mode is Mode.AUTO:
        own.context.silence.seconds(plan.source)
    if plan.is_forced:
        if plan.set_id is None:
            recorded_sets.record_from_snapshot(own, state)
        for region in actions.sources(own.context, plan):
            left = replace(plan, source=region)
            own.progress.begin("lease")
            closing = lease_wait.closing(own, left, state, since)
            lease_wait.wait_for_lease(own, left, replace(closing, fence_since=closing.gate_since))
        if is_silent:
            drain.await_tasks(own, own.context.environment(plan.source))
    else:
        source = own.context.environment(plan.source)
        exempt = recorded_sets.record(own, state, source) if plan.set_id is None else None
        drained = drain.drain(own, state, source, since, exempt)
        drain.pause_source(own, plan, source, recorded_sets.recorded(own), drained.exempt)
        closing = promote.await_final_entry(own, plan, drained.closing)
        own.progress.begin("lease")
        lease_wait.wait_for_lease(own, plan, closing)
        drain.await_idle(own, source, drained)


def _stopped(context: EngineContext, error: DRError) -> DRError:
    """
    Return *error* for a caller while a plan is open: with the record, and with the two commands that continue.

    :raises PlanSupersededError: the plan is no longer open; this is more precise than *error*.
    :raises TakenOverError: another engine owns the plan, or has ended it.
    """
    record = context.progress.record
    assert record is not None  # noqa: S101  (_drive opens it before anything can fail)
    with suppress(StateError):
        OwnedPlan(context, record.id, even_if_not_ready=False).state()
        record = context.progress.update_record()
    way_back = (
        ""
        if record.source == record.target
        else f", or return to {record.source}: mwaa-dr failover {record.source} --reason TEXT"
    )
    step = context.progress.step_name
    found = FailoverError(
        f"Failover {record.id} ({record.source} -> {record.target}) stopped in step {step}: {error}",
        advice=f"Its plan stays open. Finish it: mwaa-dr failover {record.target} --reason TEXT{way_back}.",
        record=record,
    )
    context.courier.tell(stopped(record, f"{found.message} {found.advice}", at=context.clock.now()))
    return found
