"""How the fence stops a task of the installed Airflow."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.gate import Action, Decision, Role


def operator(**kwargs: Any) -> Any:
    try:
        from airflow.sdk import BaseOperator
    except ImportError:
        from airflow.models.baseoperator import BaseOperator

    class Operator(BaseOperator):
        def execute(self, context: Any) -> str:
            return "executed"

        def pre_execute(self, context: Any) -> None:
            raise AssertionError("the user's pre_execute ran")

    try:
        from airflow.sdk import DAG
    except ImportError:
        from airflow import DAG
    return Operator(task_id="t", dag=DAG("orders", schedule=None), **kwargs)


def _callback(context: Any) -> None:
    raise AssertionError("a callback ran")


def _guarded(monkeypatch: pytest.MonkeyPatch, decision: Decision | Exception) -> Any:
    """Return an operator for which the fence decided *decision*."""
    from airflow_provider_mwaa_dr.plugins import fence

    def decide(self: Any, *, exempt: bool) -> Decision:
        if isinstance(decision, Exception):
            raise decision
        return decision

    monkeypatch.setattr(fence.Fence, "decide", decide)
    minute = timedelta(minutes=1)
    task = operator(on_execute_callback=_callback, on_skipped_callback=_callback, execution_timeout=minute)
    fence.guard(SimpleNamespace(task=task, dag_id="orders", next_method=None))
    return task


def test_the_fence_leaves_a_running_task_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control case for the tests below."""
    task = _guarded(monkeypatch, Decision(Action.RUN, "active", Role.ACTIVE))
    assert "execute" not in vars(task)
    assert task.on_execute_callback


def test_a_fenced_task_skips_and_calls_no_user_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first start and after a deferral. It calls neither pre_execute nor callbacks."""
    from airflow_provider_mwaa_dr._compat import AirflowSkipException

    task = _guarded(monkeypatch, Decision(Action.SKIP, "skipped: standby", Role.STANDBY))
    task.pre_execute(context={})
    with pytest.raises(AirflowSkipException, match="standby"):
        task.execute(context={})
    with pytest.raises(AirflowSkipException, match="standby"):
        task.resume_execution(next_method="m", next_kwargs={}, context={})
    assert not task.on_execute_callback
    assert not task.on_skipped_callback


@pytest.mark.parametrize("decision", [Decision(Action.HOLD, "held", Role.UNKNOWN), OSError("disk")])
def test_a_held_task_uses_no_try(monkeypatch: pytest.MonkeyPatch, decision: Decision | Exception) -> None:
    """It is deferred, also if the fence itself fails. A resumed task is deferred again with its event."""
    from airflow_provider_mwaa_dr._compat import TaskDeferred

    task = _guarded(monkeypatch, decision)
    with pytest.raises(TaskDeferred) as started:
        task.execute(context={})
    assert (started.value.method_name, started.value.kwargs) == ("execute", {"mwaa_dr_held_start": True})
    assert task.execution_timeout is None
    with pytest.raises(TaskDeferred) as deferred:
        task.resume_execution(
            next_method="done", next_kwargs={"event": {"n": 1}, "x": 2, "Operator__sentinel": object()}, context={}
        )
    assert (deferred.value.method_name, deferred.value.kwargs) == ("done", {"x": 2})
    path, arguments = deferred.value.trigger.serialize()
    assert path == "airflow_provider_mwaa_dr.plugins.held_task.HeldTaskTrigger"
    assert arguments["event"] == {"n": 1}


def test_a_task_held_before_its_start_starts_normally(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the arguments of Airflow's resume are removed. The timeout of the task counts from now."""
    from airflow_provider_mwaa_dr.plugins import fence

    monkeypatch.setattr(fence.Fence, "decide", lambda self, *, exempt: Decision(Action.RUN, "active", Role.ACTIVE))
    calls: list[tuple[str, dict[str, Any]]] = []
    task = operator(execution_timeout=timedelta(minutes=10))
    task.execute = lambda context, **kwargs: calls.append(("execute", kwargs))
    task.resume_execution = lambda **kwargs: calls.append(("resume", kwargs["next_kwargs"]))
    kwargs = {"mwaa_dr_held_start": True, "event": None}
    an_hour_ago = datetime.now(tz=timezone.utc) - timedelta(hours=1)
    fence.guard(
        SimpleNamespace(task=task, dag_id="orders", next_method="execute", next_kwargs=kwargs, start_date=an_hour_ago)
    )
    sentinel = object()
    task.resume_execution(next_method="execute", next_kwargs={**kwargs, "Operator__sentinel": sentinel}, context={})
    task.resume_execution(next_method="execute", next_kwargs={"event": 1}, context={})
    assert calls == [("execute", {"Operator__sentinel": sentinel}), ("resume", {"event": 1})]
    assert task.execution_timeout > timedelta(minutes=65)
