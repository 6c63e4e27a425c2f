"""A failover as a task."""

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
from airflow_provider_mwaa_dr.core.failover import FailoverEngine, FailoverRequest, StepEvent, Timing
from airflow_provider_mwaa_dr.core.health import Limits
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.reasons import checked_reason
from airflow_provider_mwaa_dr.core.state import DRState, Mode
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, ConfigError, DRError, RefusedError
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.hooks.errors import airflow_error

SLICE_S = 1.0
"""A killed task leaves its wait within this time; Airflow 3 kills the process for good after five seconds."""


class FailoverOperator(AwsBaseOperator):
    """
    Make a region the active one, and return what was done.

    Runs in a control environment or in the target; refused in the region being left, which may be gone any moment.
    Repeatable: a retry, or anyone else, goes on with the plan that is open. Killed, it leaves the plan as it is.

    The returned record has the keys of ``mwaa-dr failover --json``. A region that is active already is a success.

    :param target_region: the region that is to be active (templated). The one that still is cancels an open plan that
        has not promoted yet.
    :param reason: why, in 1 to 1,000 characters; kept in the state and in the record (templated).
    :param mode: ``auto`` (graceful, forced when the active region does not answer), ``graceful`` or ``forced``
        (templated).
    :param stop_running: stop runs that outlast the drain; else the failover is given up then (templated).
    :param even_if_not_ready: go on although a check of the target failed (templated).
    :param cooldown: refuse to begin a failover sooner than this after the last one, whoever made it; for failovers that
        no person asks for. None (default) for no limit.
    :param max_per_day: refuse to begin more failovers than this within 24 hours, whoever made them; None for no limit.
    :param dry_run: return what would happen, with counts; change nothing.
    :param aws_conn_id: connection with the credentials; None for the environment's own role (templated).
    :raises AirflowFailException: refused, or wrongly set: a retry would end the same way.
    :raises AirflowException: something did not answer, or a deadline passed: a retry goes on with the plan.
    """

    aws_hook_class = DRStateHook
    template_fields: Sequence[str] = aws_template_fields(
        "target_region", "reason", "mode", "stop_running", "even_if_not_ready"
    )

    def __init__(
        self,
        *,
        target_region: str,
        reason: str,
        mode: str = Mode.AUTO.value,
        stop_running: bool | str = False,
        even_if_not_ready: bool | str = False,
        cooldown: timedelta | None = None,
        max_per_day: int | None = None,
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
        self.preview_only = dry_run  # BaseOperator has a method dry_run
        self._waiting: _StoppableClock | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Move the role; return the record, or the preview."""
        try:
            return self._fail_over(context)
        except DRError as error:
            raise airflow_error(error) from error
        except _Stopped as stop:
            raise AirflowException(
                "Killed. The plan, if one was claimed, is open: run this again to go on with it, or name the region "
                "that is still active to cancel it (possible until promote). mwaa-dr status shows where it stands."
            ) from stop

    def on_kill(self) -> None:
        """Stop stepping. Nothing is undone: whoever comes next goes on or cancels."""
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
        engine = FailoverEngine(
            hook.store,
            environments,
            self._waiting,
            Timing.from_config(hook.settings),
            f"{self.dag_id}.{self.task_id}@{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
            self._log_step,
            exempt_dags=hook.settings.exempt_dags,
            eventual=hook.settings.eventual_mode is not None,
        )
        if self.preview_only:
            return preview_document(engine.preview(request))
        try:
            record = engine.run(request)
        except AlreadyActiveError as answer:
            self._say(logging.INFO, "%s", answer)
            return nothing_done_document(hook.get_state(), reason=request.reason, by=request.by)
        self._say(
            logging.INFO,
            "%s is active, epoch %d (plan %s, %s)",
            record.target,
            record.epoch,
            record.id,
            record.outcome,
        )
        if record.not_unpaused:
            self._say(logging.ERROR, "Not unpaused in %s: %s", record.target, ", ".join(record.not_unpaused))
        return record_document(record)

    def _request(self, context: Any) -> FailoverRequest:
        try:
            mode = Mode(self.mode)
        except ValueError as error:
            raise ConfigError(
                f"Unknown mode {self.mode!r}; known are {', '.join(mode.value for mode in Mode)}.",
                option="mode",
                advice="Name one of them.",
            ) from error
        if not self.target_region:
            raise ConfigError("The target region is empty.", option="target_region", advice="Name a region.")
        person = getattr(context.get("dag_run"), "triggering_user_name", None)
        return FailoverRequest(
            target=self.target_region,
            reason=checked_reason(self.reason),
            by=f"{self.dag_id}/{context['run_id']}" + (f" ({person})" if person else ""),
            mode=mode,
            stop_running=_truth("stop_running", self.stop_running),
            even_if_not_ready=_truth("even_if_not_ready", self.even_if_not_ready),
        )

    def _refuse_in_source(self, state: DRState, target: str) -> None:
        """Raise where this very Airflow is the one that is being left: it would saw off its own branch."""
        plan = state.plan
        source = plan.source if plan is not None and plan.target == target else state.active_region
        names = self.hook.environment_names()
        # Where nobody knows which region executes, it may be any but the target.
        sources = {source} if source in names else set(names)
        for source in sorted(sources - {target}):
            if not self.hook.stands_in(source):
                continue
            name = os.environ.get("AIRFLOW_ENV_NAME", "")
            raise RefusedError(
                f"This Airflow is {name or 'part of the DR set'} in {source}, the region being left. "
                "Nothing was changed.",
                advice=f"Run it in {target} or in a control environment, or use mwaa-dr failover {target}.",
            )

    def _refuse_too_soon(self, state: DRState, target: str) -> None:
        """Raise where a new failover would begin against the limits; one that is open already is gone on with."""
        if self.limits == Limits() or target in {state.active_region, state.plan and state.plan.target}:
            return
        why = self.limits.refusal(self.hook.store.records(), self.hook.clock.now())
        if why is not None:
            raise RefusedError(
                f"No failover to {target} was begun: {why}.",
                advice=f"If it is needed, a person may: mwaa-dr failover {target}, or dr_failover.",
            )

    def _say(self, level: int, message: str, *values: object) -> None:
        """Log; a handler that raises makes no failure of a failover that is done."""
        with suppress(Exception):
            self.log.log(level, "%s", visible(message % values))

    def _log_step(self, event: StepEvent) -> None:
        if event.status == "started":
            self.log.info("%s ...", event.name)
        else:
            self.log.info("%s %s after %.1f s: %s", event.name, event.status, event.seconds, visible(event.detail))


class _Stopped(BaseException):  # no Exception: nothing on the way may handle it
    """The task was killed."""


class _StoppableClock:
    """A clock whose sleepers can be sent home: Airflow 3 calls on_kill in a signal handler and lets the task go on."""

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
    """Return a truth value that may have come through a template."""
    if isinstance(value, bool):
        return value
    lowered = str(value).strip().lower()
    if lowered in {"true", "false"}:
        return lowered == "true"
    raise ConfigError(f"{option} is {value!r}; allowed are true and false.", option=option)
