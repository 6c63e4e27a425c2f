"""
What a task executes instead of its own code, if the fence stops it.

This changes only the operator instance of the task's process, which Airflow has copied for this one execution.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from airflow_provider_mwaa_dr.core.display import get_logger, visible
from airflow_provider_mwaa_dr.core.gate import Action, Decision
from airflow_provider_mwaa_dr.core.hold import RETRY_S, Hold
from airflow_provider_mwaa_dr.plugins.dataclass_json import from_json, to_json

log = get_logger(__name__)

_HELD_START = "mwaa_dr_held_start"
"""
Airflow stores this name with a task that was held before it began, so it must never change.

The value is the :class:`Hold` as JSON text. Versions before it stored True.
"""
_HELD_RESUME = "mwaa_dr_held_resume"
"""The same for a task that was held after its own deferral. The other arguments are those of the task."""
HELD_MARK = "mwaa_dr_held"
"""What both names begin with. The stored arguments of a task that is not held do not contain it."""
_FAILED_TRIGGER = "__fail__"
"""Airflow's name of the next method after a trigger has failed: the task then can only fail."""


def stop(task: Any, decision: Decision, hold: Hold, *, ends: bool = False) -> None:
    """
    Replace what the task would execute with the decision.

    This changes only the operator instance of this process, which Airflow has copied for this one execution. It
    replaces both methods that Airflow may call: ``execute``, and ``resume_execution`` after a deferral.

    :param hold: this round of the hold; only for a decision to hold.
    :param ends: the task fails, without a retry.
    """
    from airflow_provider_mwaa_dr._compat import AirflowFailException, AirflowSkipException  # noqa: PLC0415

    def skip(*_: Any, **__: Any) -> NoReturn:
        raise AirflowSkipException(visible(decision.reason))

    def fail(*_: Any, **__: Any) -> NoReturn:
        raise AirflowFailException(visible(f"It can never execute in this region; {decision.reason}"))

    if decision.action is Action.SKIP:
        task.execute = task.resume_execution = skip
        log.info("Skipping the task: %s", decision.reason)
    elif ends:
        task.execute = task.resume_execution = fail
        task.on_failure_callback = []
    else:
        task.execute, task.resume_execution = _holding(hold)
        log.info("The task goes back to the scheduler: %s", decision.reason)
    # Airflow 2 counts the timeout from the first start. It would fail a task that was held for longer.
    task.execution_timeout = None
    task._pre_execute_hook = None
    task.pre_execute = _do_nothing
    task.on_execute_callback = []
    task.on_skipped_callback = []


def _do_nothing(*_: Any, **__: Any) -> None:
    """Stand in for ``pre_execute``."""


def _holding(hold: Hold) -> tuple[Any, Any]:
    """Return the replacements of ``execute`` and ``resume_execution`` for a round of a hold."""
    text = json.dumps(to_json(hold))

    def start(*_: Any, **__: Any) -> NoReturn:
        _defer_start(text, hold.retry_s)

    def resume(next_method: str, next_kwargs: dict[str, Any] | None, *_: Any, **__: Any) -> NoReturn:
        _defer_resumed(next_method, next_kwargs, text, hold.retry_s)

    return start, resume


def hold_start(*_: Any, **__: Any) -> NoReturn:
    """
    Send a task back to the scheduler that was about to start; this uses no try, also with retries=0.

    It does not raise AirflowRescheduleException. A task that is not a sensor would start again immediately, sometimes
    before the scheduler has read that its first attempt ended. The scheduler would then treat it as killed and fail it
    (seen on 3.0.6).
    """
    _defer_start(True, RETRY_S)


def hold_resumed(next_method: str, next_kwargs: dict[str, Any] | None, *_: Any, **__: Any) -> NoReturn:
    """
    Send a task back to the scheduler that has come out of a deferral, together with its event.

    After a reschedule, Airflow would drop the event and start the task from the beginning. The task would then repeat
    a wait that is over.
    """
    _defer_resumed(next_method, next_kwargs, None, RETRY_S)


def _defer_start(hold: str | bool, retry_s: float) -> NoReturn:
    """Defer a task that has not begun. It needs no event, so its trigger is one of Airflow's own."""
    from airflow_provider_mwaa_dr._compat import trigger_at  # noqa: PLC0415

    _defer(trigger_at(_after(retry_s)), "execute", {_HELD_START: hold})


def _defer_resumed(next_method: str, next_kwargs: dict[str, Any] | None, hold: str | None, retry_s: float) -> NoReturn:
    """
    Defer a task that has come out of a deferral.

    :param hold: None keeps the count of the rounds as it is.
    """
    from airflow_provider_mwaa_dr._compat import trigger_at  # noqa: PLC0415
    from airflow_provider_mwaa_dr.plugins.held_task import HeldTaskTrigger  # noqa: PLC0415

    # Airflow 2 adds a sentinel object for a task that resumes in execute(); it adds it again at the next resume.
    kwargs = {name: value for name, value in (next_kwargs or {}).items() if not name.endswith("__sentinel")}
    event = kwargs.pop("event", None)
    # A task that was held before it began resumes in execute(), and keeps the name under which it was stored.
    name = _HELD_START if _HELD_START in kwargs else _HELD_RESUME
    if hold is not None:
        kwargs[name] = hold
    until = _after(retry_s)
    if name == _HELD_START or next_method == _FAILED_TRIGGER:
        # The event is not needed. A triggerer without this provider can run this trigger, but not ours.
        _defer(trigger_at(until), next_method, kwargs)
    _defer(HeldTaskTrigger(until=until.isoformat(), event=event), next_method, kwargs)


def _defer(trigger: Any, next_method: str, kwargs: dict[str, Any]) -> NoReturn:
    from airflow_provider_mwaa_dr._compat import TaskDeferred  # noqa: PLC0415

    raise TaskDeferred(trigger=trigger, method_name=next_method, kwargs=kwargs)


def _after(seconds: float) -> datetime:
    return datetime.now(tz=timezone.utc) + timedelta(seconds=seconds)


def hold_of(task_instance: Any) -> Hold | None:
    """Return the last round in which the task was held; None if it was not held, or by an earlier version."""
    from airflow_provider_mwaa_dr._compat import next_kwargs  # noqa: PLC0415

    stored = next_kwargs(task_instance)
    text = stored.get(_HELD_START, stored.get(_HELD_RESUME))
    try:
        return from_json(Hold, json.loads(text)) if isinstance(text, str) else None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # of another version
        log.debug("The count of the rounds cannot be used, and begins again: %s", error)
        return None


def restore(task_instance: Any) -> None:
    """
    Let a task that was held, and that Airflow now resumes, start or resume like a task that was not held.

    The names under which Airflow has stored the hold never reach the task's own method.
    """
    from airflow_provider_mwaa_dr._compat import next_method  # noqa: PLC0415

    if next_method(task_instance) is None:
        return
    task = task_instance.task
    resume = task.resume_execution

    def start_or_resume(next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        kwargs = dict(next_kwargs or {})
        kwargs.pop(_HELD_RESUME, None)
        if next_method != "execute" or not kwargs.pop(_HELD_START, False):
            return resume(next_method=next_method, next_kwargs=kwargs, context=context)
        kwargs.pop("event", None)
        # On Airflow 2 the kwargs still contain the sentinel, which execute() needs.
        return task.execute(context, **kwargs)

    task.resume_execution = start_or_resume
    # Airflow 2 counts the timeout of a deferred task from its first start. The time of the hold must not count.
    if task.execution_timeout and _HELD_START in (getattr(task_instance, "next_kwargs", None) or {}):
        task.execution_timeout += datetime.now(tz=timezone.utc) - task_instance.start_date
