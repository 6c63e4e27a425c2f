"""
The hooks that Airflow calls: the gate in the scheduler, the fence in the workers, the guard in the triggerer.

No hook raises an exception: on Airflow 2 it would end the scheduler, on Airflow 3 the run would execute.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.plugins import execution, fence

if TYPE_CHECKING:
    from airflow_provider_mwaa_dr.plugins.gate import Gate
    from airflow_provider_mwaa_dr.plugins.triggerer import TriggererGuard

log = get_logger(__name__)


@hookimpl
def on_starting(component: Any) -> None:
    """Start the agent, if this process is a scheduler and not a child of one."""
    global _gate  # noqa: PLW0603  (hooks are module functions, and a process has one gate)
    try:
        if _gate is None and _is_scheduler(component):
            from airflow_provider_mwaa_dr.plugins.gate import Gate  # noqa: PLC0415  (a task process does not need it)

            config = conf.load()
            for problem in config.problems:
                log.error("%s", problem)
            _gate = Gate(config=config, job=component, clock=SystemClock())
            _gate.start()
    except Exception:
        log.exception("The DR gate could not be prepared; every run is held. Fix the cause and restart the scheduler.")
    try:
        _guard_triggerer(component)
    except Exception:
        log.exception("The triggerer is not guarded: its asset watchers run in a standby, too. Restart the triggerer.")


@hookimpl
def before_stopping(component: Any) -> None:
    """Close the gate permanently and publish it, so that a failover does not wait for this scheduler's lease."""
    try:
        if _gate is not None and hasattr(component, "latest_heartbeat"):
            _gate.stop()
        if _triggerer is not None and hasattr(component, "latest_heartbeat"):
            _triggerer.stop()
    except Exception:
        log.exception("The end of this process could not be published; a failover waits for its lease to expire.")


@hookimpl
def on_dag_run_running(dag_run: Any) -> None:
    """Let the run start, close it or put it back into the queue, before Airflow schedules any of its tasks."""
    try:
        if _gate is not None:
            _gate.check(dag_run)
        elif _is_scheduler_command():
            _hold_after_error(dag_run, "the gate could not be prepared; see the scheduler's log")
    except Exception as error:
        log.exception("The gate failed for run %s of %s; it is held.", dag_run.run_id, dag_run.dag_id)
        _hold_after_error(dag_run, f"the gate failed ({type(error).__name__}); see the scheduler's log")


@hookimpl
def on_dag_run_success() -> None:
    """Let the agent publish the end of the run soon, if this process is a scheduler."""
    _note_end_of_run()


@hookimpl
def on_dag_run_failed() -> None:
    """Let the agent publish the end of the run soon, if this process is a scheduler."""
    _note_end_of_run()


@hookimpl
def on_task_instance_running(task_instance: Any) -> None:
    """Let the task execute, skip it, or send it back to the scheduler."""
    try:
        fence.guard(task_instance)
    except Exception:
        # Airflow 3 would ignore the error and execute the task. Only assignments here, because a call could fail, too.
        task = task_instance.task
        task.execute, task.resume_execution = execution.hold_start, execution.hold_resumed
        task.execution_timeout = None
        log.exception("The fence failed for task %s of %s; it is held.", task_instance.task_id, task_instance.dag_id)


_gate: Gate | None = None
_triggerer: TriggererGuard | None = None


def _note_end_of_run() -> None:
    try:
        if _gate is not None:
            _gate.note_end_of_run()
    except Exception:  # the next turn of the agent finds the run
        log.debug("The end of a run could not be noted.", exc_info=True)


def _guard_triggerer(component: Any) -> None:
    """Guard the triggers, if this process is a triggerer of an Airflow that has asset watchers."""
    global _triggerer  # noqa: PLW0603  (hooks are module functions, and a process has one guard)
    if _triggerer is not None or sys.argv[1:2] != ["triggerer"] or not hasattr(component, "latest_heartbeat"):
        return
    from airflow_provider_mwaa_dr.plugins.metadata import schema  # noqa: PLC0415  (a task process does not need it)

    if schema.WATCHERS is None:
        return
    from airflow_provider_mwaa_dr.plugins.triggerer import TriggererGuard  # noqa: PLC0415

    config, clock = conf.load(), SystemClock()
    guard = TriggererGuard(
        config=config, job=component, clock=clock, open_store=lambda: conf.state_store(config, clock)
    )
    guard.install()
    _triggerer = guard


def _is_scheduler(component: Any) -> bool:
    """
    Whether *component* is the job of a scheduler that is starting in this process.

    Airflow also calls ``on_starting`` for the triggerer, the DAG processor and each task, and sets the job's type only
    afterwards. A child that the scheduler forked has the scheduler's argv, and already has its gate.
    """
    return _is_scheduler_command() and hasattr(component, "latest_heartbeat")


def _is_scheduler_command() -> bool:
    return "scheduler" in sys.argv[1:2]


def _hold_after_error(dag_run: Any, reason: str) -> None:
    """Hold the run, without a note if that fails: a run that is not held executes."""
    try:
        from airflow_provider_mwaa_dr.plugins.metadata import starting_run  # noqa: PLC0415

        starting_run.hold_run(dag_run, f"held: {reason}")
    except Exception:
        log.exception(
            "The gate could not hold run %s of %s as usual; it goes back into the queue without a note.",
            dag_run.run_id,
            dag_run.dag_id,
        )
        dag_run._state = "queued"
        dag_run.start_date = None
        dag_run.last_scheduling_decision = datetime.now(tz=timezone.utc)
