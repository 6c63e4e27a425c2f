"""The operator that runs a failover."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_mwaa_dr._compat import AirflowException
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.documents import nothing_done_document, preview_document, record_document
from airflow_provider_mwaa_dr.core.failover import FailoverEngine, FailoverRequest, StepEvent, StepStatus
from airflow_provider_mwaa_dr.core.health import Limits
from airflow_provider_mwaa_dr.core.notifications import Courier
from airflow_provider_mwaa_dr.core.ports import RECORDS, Clock, FailoverOutcome
from airflow_provider_mwaa_dr.core.reasons import checked_reason
from airflow_provider_mwaa_dr.core.reporting.failover import keep_report
from airflow_provider_mwaa_dr.core.sites import Site
from airflow_provider_mwaa_dr.core.state import DEFAULT_HOLD_S, DRState, Mode, ModeName, Stage, StageName
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, ConfigError, DRError, RefusedError
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.hooks.errors import airflow_error
from airflow_provider_mwaa_dr.hooks.notifiers import all_channels
from airflow_provider_mwaa_dr.operators.links import TARGET_KEY, FailoverPageLink, TargetAirflowLink, target_of

SLICE_S = 1.0
"""A killed task stops waiting within this time. Airflow 3 sends SIGKILL five seconds after SIGTERM."""


class FailoverOperator(AwsBaseOperator):
    """
    Make a region the active one, and return the record of the failover.

    Run it in a control environment or in the target. The operator refuses to run in the region being left, because that
    region may fail at any moment. Idempotent: a retry, or another user, continues the open plan. A killed task leaves
    the plan open.

    The returned record has the keys of ``mwaa-dr failover --json``. If the target is already active, the task succeeds.

    With *until*, the task succeeds at that stage, so that the DAG's own tasks switch databases, endpoints or DNS. No
    region executes in the meantime. A further task with the same target continues, and the last one has no *until*::

        plan_id = "{{ ti.xcom_pull(task_ids='drain')['id'] or '' }}"
        drain = FailoverOperator(task_id="drain", until="drained", ...)
        drain >> switch_database >> FailoverOperator(task_id="resume", plan_id=plan_id, ...)

    The record then has the outcome ``open``, and its ``mode`` says whether the source was drained (``graceful``) or
    left (``forced``). If the failover has passed the stage, the task changes nothing and succeeds.

    :param target_region: the region to make active (templated). Name the region that is still active to cancel an open
        plan before its promote step.
    :param reason: why, in 1 to 1,000 characters; stored in the state and in the record (templated).
    :param mode: ``auto`` (graceful, forced when the active region does not answer), ``graceful`` or ``forced``
        (templated).
    :param stop_running: stop runs that are still running when the drain ends; otherwise the operator abandons the
        failover then (templated).
    :param even_if_not_ready: continue although a check of the target failed (templated).
    :param cooldown: refuse to start a failover within this time after the last one, which any user or DAG may have
        started. Meant for automatic failovers. None (default) for no limit.
    :param max_per_day: refuse to start more failovers than this within 24 hours. Failovers of all users and DAGs
        count. None (default) for no limit.
    :param until: halt at this stage: ``drained`` (the source can start nothing, the target is not active yet) or
        ``promoted`` (the target is active and prepared, and starts nothing yet). None (default) or an empty text: fail
        over to the end (templated).
    :param hold: for how long the failover may stay halted. Then the target's agent finishes a promoted failover. No
        component promotes a drained one: the agents log errors and count the metric ``hold_alarm`` until a task or a
        person continues or cancels it. Default 15 minutes, at most a day.
    :param plan_id: continue only this failover: the ``id`` that an earlier task returned. If a person has cancelled it
        since, the task fails, and starts no new failover. None (default) or an empty text: start one if none is open
        (templated).
    :param dry_run: return what would happen, with counts; change nothing.
    :param aws_conn_id: connection with the credentials; None for the environment's own role (templated).
    :raises AirflowFailException: the failover was refused, or a setting is wrong: a retry would fail, too.
    :raises AirflowException: a service did not answer, or a deadline passed: a retry continues the plan.
    """

    aws_hook_class = DRStateHook
    operator_extra_links = (FailoverPageLink(), TargetAirflowLink())
    template_fields: Sequence[str] = aws_template_fields(
        "target_region", "reason", "mode", "stop_running", "even_if_not_ready", "until", "plan_id"
    )

    def __init__(
        self,
        *,
        target_region: str,
        reason: str,
        mode: ModeName | str = "auto",  # str: a template
        stop_running: bool | str = False,
        even_if_not_ready: bool | str = False,
        cooldown: timedelta | None = None,
        max_per_day: int | None = None,
        until: StageName | str | None = None,
        hold: timedelta = timedelta(seconds=DEFAULT_HOLD_S),
        plan_id: str | None = None,
        dry_run: bool = False,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(aws_conn_id=aws_conn_id, **kwargs)
        self.target_region = target_region
        self.reason = reason
        self.mode = mode
        self.stop_running = stop_running
        self.even_if_not_ready = even_if_not_ready
        self.limits = Limits(cooldown=cooldown, per_day=max_per_day)
        self.until = until
        self.hold = hold
        self.plan_id = plan_id
        self.preview_only = dry_run  # BaseOperator has a method dry_run
        self._waiting: _StoppableClock | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Move the active role, and return the record; for a dry run return the preview."""
        try:
            return self._fail_over(context)
        except DRError as error:
            raise airflow_error(error) from error
        except _Stopped as stop:
            raise AirflowException(
                "The task was killed. If it had claimed a plan, the plan is still open. Run the task again to continue "
                "the plan. To cancel it before promote, name the region that is still active. mwaa-dr status shows the "
                "plan's phase."
            ) from stop

    def on_kill(self) -> None:
        """Stop at the current step. No step is reverted: a later call continues the plan or cancels it."""
        if self._waiting is not None:
            self._waiting.stop()

    def _fail_over(self, context: Any) -> dict[str, Any]:
        hook: DRStateHook = self.hook
        request = self._request(context)
        names = hook.environment_names()
        environments = {region: hook.environment(region) for region in names}
        state = hook.get_state()
        self._refuse_in_source(state, request.target)
        self._refuse_too_soon(state, request.target)
        self._waiting = _StoppableClock(hook.clock)
        owner = f"{self.dag_id}.{self.task_id}@{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        channels = all_channels(hook.settings, session=hook.boto3_session)
        courier = Courier(hook.store, channels, hook.clock, owner=owner)
        engine = FailoverEngine.from_config(
            hook.settings,
            hook.store,
            environments,
            self._waiting,
            owner=owner,
            on_step=self._log_step,
            courier=courier,
        )
        if self.preview_only:
            return preview_document(engine.preview(request))
        self._push_target(context, names.site(request.target) if request.target in names else None)
        try:
            return self._run(engine, request)
        finally:
            courier.close()

    def _push_target(self, context: Any, site: Site | None) -> None:
        """Store the target's environment for the task's links. No failover depends on a link."""
        if site is not None and context.get("ti") is not None:
            with suppress(Exception):
                context["ti"].xcom_push(key=TARGET_KEY, value=target_of(site.aws_region, site.environment))

    def _run(self, engine: FailoverEngine, request: FailoverRequest) -> dict[str, Any]:
        hook: DRStateHook = self.hook
        try:
            record = engine.run(request)
        except AlreadyActiveError as answer:
            self._log_safely(logging.INFO, "%s", answer)
            return nothing_done_document(hook.get_state(), reason=request.reason, by=request.by)
        if record.outcome is FailoverOutcome.OPEN:
            self._log_safely(
                logging.INFO,
                "The failover to %s has reached %s (plan %s, %s). A task with the same target continues it; a failover "
                "to %s cancels or reverts it.",
                record.target,
                self.until,
                record.id,
                record_document(record)["mode"],
                record.source,
            )
            return record_document(record)
        self._log_safely(
            logging.INFO,
            "%s is active, epoch %d (plan %s, %s)",
            record.target,
            record.epoch,
            record.id,
            record.outcome.value,
        )
        if why := keep_report(hook.store, hook.runs, record, hook.clock):
            self._log_safely(logging.WARNING, "%s", why)
        if record.not_unpaused:
            self._log_safely(logging.ERROR, "Not unpaused in %s: %s", record.target, ", ".join(record.not_unpaused))
        if record.ended_in_standby:
            runs = ", ".join(record.ended_in_standby)
            self._log_safely(logging.WARNING, "Ended in %s as a standby, and not continued: %s", record.target, runs)
        return record_document(record)

    def _request(self, context: Any) -> FailoverRequest:
        try:
            mode = Mode(self.mode)
        except ValueError as error:
            raise ConfigError(
                f"The mode {self.mode!r} is unknown. Allowed are {', '.join(mode.value for mode in Mode)}.",
                option="mode",
                advice="Use one of them.",
            ) from error
        try:
            until = Stage(self.until) if self.until else None
        except ValueError as error:
            raise ConfigError(
                f"until is {self.until!r}. Allowed are {', '.join(stage.value for stage in Stage)}, and None.",
                option="until",
            ) from error
        if not self.target_region:
            raise ConfigError("The target region is empty.", option="target_region", advice="Name a region.")
        user = getattr(context.get("dag_run"), "triggering_user_name", None)
        return FailoverRequest(
            target=self.target_region,
            reason=checked_reason(self.reason),
            by=f"{self.dag_id}/{context['run_id']}" + (f" ({user})" if user else ""),
            mode=mode,
            stop_running=_truth("stop_running", self.stop_running),
            even_if_not_ready=_truth("even_if_not_ready", self.even_if_not_ready),
            until=until,
            hold_s=self.hold.total_seconds(),
            plan_id=self.plan_id or None,
        )

    def _refuse_in_source(self, state: DRState, target: str) -> None:
        """Raise if this Airflow belongs to the region being left: the failover would stop the Airflow that runs it."""
        plan = state.plan
        source = plan.source if plan is not None and plan.target == target else state.active_region
        names = self.hook.environment_names()
        # If the state names no registered region, every region except the target may be the active one.
        sources = {source} if source in names else set(names)
        for source in sorted(sources - {target}):
            if not self.hook.stands_in(source):
                continue
            name = os.environ.get("AIRFLOW_ENV_NAME", "")
            raise RefusedError(
                f"This Airflow is {name or 'part of the DR set'} in {source}, the region being left. "
                "Nothing was changed.",
                advice=f"Run the task in {target} or in a control environment, or use mwaa-dr failover {target}.",
            )

    def _refuse_too_soon(self, state: DRState, target: str) -> None:
        """Raise if a new failover would exceed the limits. A plan that is already open may always continue."""
        if self.limits == Limits() or target in {state.active_region, state.plan and state.plan.target}:
            return
        why = self.limits.refusal(self.hook.store.find_all(RECORDS), self.hook.clock.now())
        if why is not None:
            raise RefusedError(
                f"No failover to {target} was started: {why}.",
                advice=f"These limits do not apply to mwaa-dr failover {target} and to the DAG dr_failover. "
                "Use one of them if the failover is needed.",
            )

    def _log_safely(self, level: int, message: str, *values: object) -> None:
        """Log, and ignore errors of log handlers: they must not fail a failover that is complete."""
        with suppress(Exception):
            self.log.log(level, "%s", visible(message % values))

    def _log_step(self, event: StepEvent) -> None:
        if event.status is StepStatus.STARTED:
            self.log.info("%s ...", event.name)
        else:
            status, detail = event.status.value, visible(event.detail)
            self.log.info("%s %s after %.1f s: %s", event.name, status, event.seconds, detail)


class _Stopped(BaseException):  # not an Exception, so that no caller in between catches it
    """The task was killed."""


class _StoppableClock:
    """
    A clock whose sleep can be interrupted.

    Airflow 3 calls ``on_kill`` in a signal handler, and the task continues after it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._is_stopped = False

    def stop(self) -> None:
        self._is_stopped = True

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def now(self) -> datetime:
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        end = self._clock.monotonic() + seconds
        while not self._is_stopped and (rest := end - self._clock.monotonic()) > 0:
            self._clock.sleep(min(rest, SLICE_S))
        if self._is_stopped:
            raise _Stopped


def _truth(option: str, value: bool | str) -> bool:
    """Return *value* as a bool. A rendered template gives a string."""
    if isinstance(value, bool):
        return value
    lowered = str(value).strip().lower()
    if lowered in {"true", "false"}:
        return lowered == "true"
    raise ConfigError(f"{option} is {value!r}. Allowed are true and false.", option=option)
