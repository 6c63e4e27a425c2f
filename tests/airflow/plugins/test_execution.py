"""How the fence stops a task of the installed Airflow."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone
from functools import partial
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

    def decide(self: Any, *, exempt: bool, hold: Any) -> Decision:
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
    assert (started.value.method_name, list(started.value.kwargs)) == ("execute", ["mwaa_dr_held_start"])
    assert "mwaa_dr" not in started.value.trigger.serialize()[0]  # a triggerer without this provider can run it
    assert task.execution_timeout is None
    with pytest.raises(TaskDeferred) as deferred:
        task.resume_execution(
            next_method="done", next_kwargs={"event": {"n": 1}, "x": 2, "Operator__sentinel": object()}, context={}
        )
    assert (deferred.value.method_name, deferred.value.kwargs["x"]) == ("done", 2)
    assert list(deferred.value.kwargs) == ["x", "mwaa_dr_held_resume"]
    path, arguments = deferred.value.trigger.serialize()
    assert path == "airflow_provider_mwaa_dr.plugins.held_task.HeldTaskTrigger"
    assert arguments["event"] == {"n": 1}


def test_a_task_held_before_its_start_starts_normally(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the arguments of Airflow's resume are removed. The timeout of the task counts from now."""
    from airflow_provider_mwaa_dr.plugins import fence

    monkeypatch.setattr(fence.Fence, "decide", lambda self, **_: Decision(Action.RUN, "active", Role.ACTIVE))
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


ROUND = Decision(Action.HOLD, "held: us-east-1 has not yet reconciled", Role.STANDBY)


def stored_by(version: str, kwargs: dict[str, Any], event: Any) -> Any:
    """Return the kwargs as Airflow *version* hands them to a task process after the trigger has fired."""
    everything = {**kwargs, "event": event}
    if version == "3.0":
        from airflow.serialization.serialized_objects import BaseSerialization

        return BaseSerialization.serialize(everything)
    return json.loads(json.dumps(everything))


def decoded(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return stored kwargs as Airflow hands them to the task."""
    from airflow.serialization.serialized_objects import BaseSerialization

    return BaseSerialization.deserialize(kwargs) if "__var" in kwargs else dict(kwargs)


class Deferred:
    """A task that is held again and again; each round is a new process, which gets what Airflow has stored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        from airflow_provider_mwaa_dr.plugins import fence

        self.decision = ROUND
        self.waits: list[bool] = []
        self.ends = False

        def decide(_: Any, *, exempt: bool, hold: Any) -> Decision:
            self.waits.append(not hold.is_long)
            return self.decision

        def hold(_: Any, hold: Any, decision: Decision, *, run_began_at: Any) -> Any:
            self.began_at = run_began_at
            return fence.HeldTask(hold.next_round(), self.ends)

        monkeypatch.setattr(fence.Fence, "decide", decide)
        monkeypatch.setattr(fence.Fence, "hold", hold)
        self.version = version
        self.next: tuple[str | None, dict[str, Any]] = (None, {})
        self.began_at: Any = None

    def process(self, task: Any) -> Any:
        """Run the fence, and then the task as Airflow does."""
        from airflow_provider_mwaa_dr._compat import TaskDeferred
        from airflow_provider_mwaa_dr.plugins import fence

        method, kwargs = self.next
        context = SimpleNamespace(
            next_method=method, next_kwargs=kwargs, dag_run=SimpleNamespace(start_date=datetime.now(tz=timezone.utc))
        )
        instance = SimpleNamespace(task=task, dag_id="orders", start_date=datetime.now(tz=timezone.utc))
        if self.version == "2":
            vars(instance).update(vars(context))
        else:
            instance._ti_context_from_server = context
        fence.guard(instance)
        if method is None:
            call = partial(task.execute, {})
        else:
            call = partial(task.resume_execution, next_method=method, next_kwargs=decoded(kwargs), context={})
        try:
            return call()
        except TaskDeferred as deferred:
            path, arguments = deferred.trigger.serialize()
            event = arguments.get("event") if "mwaa_dr" in path else "a moment"
            self.next = deferred.method_name, stored_by(self.version, deferred.kwargs, event)
            self.wait_s = (deferred_until(arguments) - datetime.now(tz=timezone.utc)).total_seconds()
            return "deferred"


def deferred_until(arguments: dict[str, Any]) -> datetime:
    if "until" in arguments:
        return datetime.fromisoformat(arguments["until"])
    moment = arguments["moment"]
    assert isinstance(moment, datetime)
    return moment


@pytest.mark.parametrize("version", ["2", "3.0", "3"])
@pytest.mark.parametrize("first", [{}, {"mwaa_dr_held_start": True, "event": None}])
def test_the_rounds_of_a_hold_survive_deferrals(
    monkeypatch: pytest.MonkeyPatch, version: str, first: dict[str, Any]
) -> None:
    """After ten rounds the task does not wait. Then it starts without our arguments. Earlier versions stored True."""
    run = Deferred(monkeypatch, version)
    if first:
        run.next = "execute", first
    calls: list[dict[str, Any]] = []
    for _ in range(12):
        assert run.process(operator()) == "deferred"
    assert run.waits == [True] * 10 + [False] * 2
    assert 110 < run.wait_s < 121
    assert run.began_at is not None
    run.decision = Decision(Action.RUN, "active", Role.ACTIVE)
    task = operator()
    task.execute = lambda context, **kwargs: calls.append(kwargs)
    run.process(task)
    assert calls == [{}]


@pytest.mark.parametrize("version", ["2", "3.0", "3"])
def test_a_resumed_task_gets_its_event_and_arguments_unchanged(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """The number of rounds is stored with them, and never reaches the method of the task."""
    run = Deferred(monkeypatch, version)
    run.next = "done", stored_by(version, {"x": "y"}, {"n": "1"})
    for _ in range(11):
        assert run.process(operator()) == "deferred"
    assert run.waits == [True] * 10 + [False]
    run.decision = Decision(Action.RUN, "active", Role.ACTIVE)
    task = operator()
    calls: list[dict[str, Any]] = []
    object.__setattr__(task, "done", lambda context, **kwargs: calls.append(kwargs))
    run.process(task)
    assert calls == [{"x": "y", "event": {"n": "1"}}]


def test_a_resumed_task_that_was_never_held_gets_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control case."""
    run = Deferred(monkeypatch, "3")
    run.decision = Decision(Action.RUN, "active", Role.ACTIVE)
    run.next = "done", {"x": 1, "event": None}
    task = operator()
    calls: list[dict[str, Any]] = []
    object.__setattr__(task, "done", lambda context, **kwargs: calls.append(kwargs))
    run.process(task)
    assert calls == [{"x": 1, "event": None}]


def test_the_rounds_go_on_after_a_trigger_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A triggerer without this provider fails our trigger, and Airflow drops the arguments. The next trigger works."""
    run = Deferred(monkeypatch, "3")
    run.next = "__fail__", {"error": "Trigger failure"}
    for _ in range(11):
        assert run.process(operator()) == "deferred"
        assert run.next[0] == "__fail__"
        assert run.next[1]["event"] == "a moment"
    assert run.waits == [True] * 10 + [False]


def test_a_count_that_cannot_be_used_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of the provider wrote it."""
    run = Deferred(monkeypatch, "3")
    run.next = "execute", {"mwaa_dr_held_start": '{"rounds": 99, "new": 1}', "event": None}
    assert run.process(operator()) == "deferred"
    assert run.waits == [True]


def test_a_task_that_can_never_execute_fails_without_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No code of the user runs, and no callback."""
    from airflow_provider_mwaa_dr._compat import AirflowFailException

    run = Deferred(monkeypatch, "3")
    run.ends = True
    for next_method in (None, "done"):
        run.next = next_method, {}
        task = operator(on_failure_callback=_callback, on_execute_callback=_callback, retries=3)
        with pytest.raises(AirflowFailException, match="can never execute in this region; held: us-east-1 has not"):
            run.process(task)
        assert not task.on_failure_callback
        assert not task.on_execute_callback


def test_airflows_own_trigger_fires_with_an_event_that_airflow_can_store() -> None:
    """A task that has not begun is held with it."""
    from airflow.serialization.serialized_objects import BaseSerialization

    from airflow_provider_mwaa_dr._compat import trigger_at

    async def fired() -> list[Any]:
        moment = datetime.now(tz=timezone.utc) - timedelta(seconds=1)
        return [each.payload async for each in trigger_at(moment).run()]

    (event,) = asyncio.run(fired())
    kwargs = {"mwaa_dr_held_start": "{}", "event": event}
    assert BaseSerialization.deserialize(BaseSerialization.serialize(kwargs)) == kwargs
    try:
        from airflow.sdk.serde import deserialize, serialize
    except ImportError:
        return
    assert deserialize(serialize(kwargs)) == kwargs
