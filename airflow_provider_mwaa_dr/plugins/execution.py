"""
What a task executes instead of its own code, if the fence stops it.

This changes only the operator instance of the task's process, which Airflow has copied for this one execution.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from airflow_provider_mwaa_dr.core.display import get_logger, visible
from airflow_provider_mwaa_dr.core.gate import Action, Decision

log = get_logger(__name__)

_RETRY_AFTER = timedelta(seconds=10)
_HELD_START = "mwaa_dr_held_start"
"""Airflow stores this name with a task that was held before it began, so it must never change."""


def stop(task: Any, decision: Decision) -> None:
    """
    Replace what the task would execute with the decision.

    This changes only the operator instance of this process, which Airflow has copied for this one execution. It
    replaces both methods that Airflow may call: ``execute``, and ``resume_execution`` after a deferral.
    """
    from airflow_provider_mwaa_dr._compat import AirflowSkipException  # noqa: PLC0415

    def skip(*_: Any, **__: Any) -> NoReturn:
        raise AirflowSkipException(visible(decision.reason))

    if decision.action is Action.SKIP:
        task.execute = task.resume_execution = skip
        log.info("Skipping the task: %s", decision.reason)
    else:
        task.execute, task.resume_execution = hold_start, hold_resumed
        log.info("The task goes back to the scheduler: %s", decision.reason)
    # Airflow 2 counts the timeout from the first start. It would fail a task that was held for longer.
    task.execution_timeout = None
    task._pre_execute_hook = None
    task.pre_execute = _do_nothing
    task.on_execute_callback = []
    task.on_skipped_callback = []


def _do_nothing(*_: Any, **__: Any) -> None:
    """Stand in for ``pre_execute``."""


def hold_start(*_: Any, **__: Any) -> NoReturn:
    """
    Send a task back to the scheduler that was about to start; this uses no try, also with retries=0.

    It does not raise AirflowRescheduleException. A task that is not a sensor would start again immediately, sometimes
    before the scheduler has read that its first attempt ended. The scheduler would then treat it as killed and fail it
    (seen on 3.0.6).
    """
    _defer("execute", {_HELD_START: True}, None)


def hold_resumed(next_method: str, next_kwargs: dict[str, Any] | None, *_: Any, **__: Any) -> NoReturn:
    """
    Send a task back to the scheduler that has come out of a deferral, together with its event.

    After a reschedule, Airflow would drop the event and start the task from the beginning. The task would then repeat
    a wait that is over.
    """
    # Airflow 2 adds a sentinel object for a task that resumes in execute(); it adds it again at the next resume.
    kwargs = {name: value for name, value in (next_kwargs or {}).items() if not name.endswith("__sentinel")}
    event = kwargs.pop("event", None)
    _defer(next_method, kwargs, event)


def _defer(next_method: str, kwargs: dict[str, Any], event: Any) -> NoReturn:
    from airflow_provider_mwaa_dr._compat import TaskDeferred  # noqa: PLC0415
    from airflow_provider_mwaa_dr.plugins.held_task import HeldTaskTrigger  # noqa: PLC0415

    until = datetime.now(tz=timezone.utc) + _RETRY_AFTER
    raise TaskDeferred(
        trigger=HeldTaskTrigger(until=until.isoformat(), event=event), method_name=next_method, kwargs=kwargs
    )


def restore_start(task_instance: Any) -> None:
    """Let a task that was held before its start, and that Airflow now resumes, start like a task that was not held."""
    from airflow_provider_mwaa_dr._compat import next_method  # noqa: PLC0415

    if next_method(task_instance) != "execute":
        return
    task = task_instance.task
    resume = task.resume_execution

    def start_or_resume(next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        kwargs = dict(next_kwargs or {})
        if not kwargs.pop(_HELD_START, False):
            return resume(next_method=next_method, next_kwargs=next_kwargs, context=context)
        kwargs.pop("event", None)
        # On Airflow 2 the kwargs still contain the sentinel, which execute() needs.
        return task.execute(context, **kwargs)

    task.resume_execution = start_or_resume
    # Airflow 2 counts the timeout of a deferred task from its first start. The time of the hold must not count.
    if task.execution_timeout and _HELD_START in (getattr(task_instance, "next_kwargs", None) or {}):
        task.execution_timeout += datetime.now(tz=timezone.utc) - task_instance.start_date
