"""The hooks in the installed Airflow, called as the scheduler and a worker call them."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.core.gate import Action, Decision, Role
from tests.airflow.conftest import HERE, THERE
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


@pytest.fixture
def database_with_run(database: Database) -> Database:
    database.add_dag("orders")
    database.add_run("orders", "r1", tasks=3)
    return database


def start(database: Database, listener: ModuleType, *, run_id: str = "r1", **kwargs: Any) -> list[str]:
    return database.start(run_id, lambda run: listener.on_dag_run_running(dag_run=run), **kwargs)


def test_a_run_in_the_active_region_costs_nothing(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """Control case for the tests below: the run starts, and only the scheduler's own statement is sent."""
    install(listener, HERE)
    statements = start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "running"}
    assert [statement for statement in statements if not statement.startswith("UPDATE dag_run")] == []


def test_a_run_in_a_standby_is_skipped(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """It is closed before the scheduler reads its task instances, and the note has the reason."""
    install(listener, THERE)
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "success"}
    assert database_with_run.tasks("r1") == {"skipped"}
    assert f"{HERE} is standby, {THERE} is active (epoch 0)" in (database_with_run.note("r1") or "")


def test_a_run_of_an_unknown_role_is_held(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """Unknown means hold: the run is queued again, and nothing is lost."""
    install(listener, None)
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "queued"}
    assert database_with_run.tasks("r1") == {None}


@pytest.mark.parametrize("how", ["tag", "id"])
def test_an_exempt_dag_runs_in_a_standby(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any], how: str
) -> None:
    """It is exempt by its tag in the scheduler's copy of the DAG, or by its id."""
    install(listener, THERE, exempt_dags=frozenset({"orders"} if how == "id" else ()))
    dag = SimpleNamespace(tags={"dr:control"} if how == "tag" else set())
    start(database_with_run, listener, dag=dag)
    assert database_with_run.runs() == {"r1": "running"}


def test_a_run_is_held_when_the_gate_fails(
    database_with_run: Database,
    listener: ModuleType,
    install: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception would end the scheduler of Airflow 2, and would let the run execute on Airflow 3."""
    gate = install(listener, THERE)
    monkeypatch.setattr(gate._metadata_db, "skip_run", broken)
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "queued"}
    assert "the gate failed (ZeroDivisionError)" in (database_with_run.note("r1") or "")


def test_a_run_is_held_when_holding_fails_too(
    database_with_run: Database,
    listener: ModuleType,
    install: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gate then changes only attributes of the run, and writes no note."""
    gate = install(listener, THERE)
    monkeypatch.setattr(gate._metadata_db, "skip_run", broken)
    monkeypatch.setattr(gate._metadata_db, "hold_run", broken)
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "queued"}


def test_a_scheduler_without_a_gate_holds(
    database_with_run: Database, listener: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preparation of the gate failed at the start. The provider fails closed."""
    monkeypatch.setattr(listener, "_gate", None)
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "queued"}


def test_other_processes_leave_the_decision_to_the_fence(
    database_with_run: Database, listener: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`airflow dags backfill` of Airflow 2 calls the hook in a process without an agent. A hold would make it loop."""
    monkeypatch.setattr(listener, "_gate", None)
    monkeypatch.setattr(sys, "argv", ["airflow", "dags", "backfill", "orders"])
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "running"}


@pytest.mark.parametrize(
    ("argv", "component", "starts"),
    [
        (["airflow", "scheduler", "-n", "5"], SimpleNamespace(latest_heartbeat=None), True),
        (["airflow", "scheduler"], SimpleNamespace(), False),
        (["airflow", "triggerer"], SimpleNamespace(latest_heartbeat=None), False),
        (["airflow", "dag-processor"], SimpleNamespace(latest_heartbeat=None), False),
        (["airflow", "tasks", "run", "scheduler"], SimpleNamespace(latest_heartbeat=None), False),
    ],
)
def test_only_a_schedulers_job_starts_the_agent(
    listener: ModuleType, monkeypatch: pytest.MonkeyPatch, argv: list[str], component: Any, starts: bool
) -> None:
    """Airflow calls the same hook for every component, and for each task."""
    started: list[Any] = []
    monkeypatch.setattr(listener, "_gate", None)
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(listener.Gate, "start", lambda gate: started.append(gate._pid))
    listener.on_starting(component=component)
    assert bool(started) is starts


JOB = SimpleNamespace(latest_heartbeat=None)


def test_a_scheduler_that_ends_holds_and_publishes_it(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """The gate closes before the agent's last heartbeat, and stays closed."""
    gate = install(listener, HERE)
    held_first: list[bool] = []
    gate._loop.end = lambda: held_first.append(gate._is_stopping)
    listener.before_stopping(component=JOB)
    listener.before_stopping(component=JOB)
    start(database_with_run, listener)
    assert (held_first, database_with_run.runs()) == ([True], {"r1": "queued"})


@pytest.mark.parametrize("component", [JOB, SimpleNamespace()], ids=["a forked child", "a task"])
def test_only_the_schedulers_own_job_ends_its_agent(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any], component: Any
) -> None:
    """A task process that the scheduler forked inherits its gate. Its end calls the same hook."""
    gate = install(listener, HERE)
    gate._loop.end = lambda: pytest.fail("ended")
    if component is JOB:
        gate._pid += 1
    listener.before_stopping(component=component)
    assert not gate._is_stopping


def test_a_table_that_does_not_answer_does_not_keep_a_scheduler_from_ending(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler waits some seconds for the table. If it does not answer, a failover waits for the lease."""
    gate = install(listener, HERE)
    answer = threading.Event()
    gate._loop.end = answer.wait
    monkeypatch.setattr(listener, "_GONE_WAIT_S", 0.01)
    listener.before_stopping(component=JOB)
    answer.set()
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "queued"}


def test_a_forked_child_of_the_scheduler_decides_nothing(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """It has the arguments and the gate of the scheduler, but no agent, so its view never gets newer."""
    gate = install(listener, THERE)
    gate._pid += 1
    start(database_with_run, listener)
    assert database_with_run.runs() == {"r1": "running"}


def test_forks_wait_for_a_turn_but_only_once_for_a_turn_that_hangs(
    listener: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A scheduler that forks 32 workers must not wait 32 times. tests/sandbox tests real forks."""
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    monkeypatch.setattr(listener, "_FORK_WAIT_S", 0.05)
    guard = listener.ForkGuard(SystemClock())
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with guard:
            begun.set()
            may_end.wait(60)
        ended.set()

    def fork() -> bool:
        guard._before()
        is_held = bool(guard._is_held_by_fork)
        guard._in_parent()
        return is_held

    assert fork()
    threading.Thread(target=work, daemon=True).start()
    assert begun.wait(60)
    assert [fork(), guard._left_s, fork(), guard._left_s] == [False, 0, False, 0]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    may_end.set()
    assert ended.wait(60)
    assert fork()
    with guard:
        assert guard._left_s == 0.05


class _Quick(SystemClock):
    """A clock whose sleeps end immediately."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        super().sleep(min(seconds, 0.01))


@pytest.fixture
def supervised(
    database: Database, listener: ModuleType, install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, Any]]:
    """A gate of a standby without runs and without an agent yet, and the state table of its future agents."""
    from airflow_provider_mwaa_dr import conf
    from airflow_provider_mwaa_dr.core.state import initial
    from airflow_provider_mwaa_dr.testing import InMemoryStateStore

    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    store = InMemoryStateStore(initial(THERE, lease_s=60, by="t", at=datetime.now(tz=timezone.utc)))
    monkeypatch.setattr(conf, "state_store", lambda *_: store)
    gate = install(listener, None)
    gate._clock, gate._loop, gate._is_alive = _Quick(), None, False
    job = SimpleNamespace(id=1, job_type="SchedulerJob", latest_heartbeat=None)
    gate._db = listener.Gate(config=gate._config, job=job, clock=gate._clock)._db
    yield gate, store
    gate._pid += 1
    wait_until(lambda: not gate._is_alive, "the agent ends")


def test_an_agent_that_cannot_be_created_is_created_again_in_a_standby(
    supervised: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError and two other errors prevent it. The gate's hook, which could start it, is never called."""
    from airflow_provider_mwaa_dr import conf

    gate, store = supervised
    errors = [OSError(24, "Too many open files"), RuntimeError("no"), MemoryError()]

    def failing(*_: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return store

    monkeypatch.setattr(conf, "state_store", failing)
    gate.start()
    wait_until(lambda: store.agents(HERE) != [], "a heartbeat")
    assert errors == []
    assert gate._clock.slept[:3] == [1, 2, 4]


def test_an_agent_that_ends_is_started_again_in_a_standby(supervised: tuple[Any, Any]) -> None:
    """This holds for every error that ends its turn."""
    gate, store = supervised
    gate.start()
    wait_until(lambda: store.agents(HERE) != [], "a heartbeat")
    first = gate._loop
    first.turn = broken
    wait_until(lambda: gate._loop is not first, "another agent")
    store.forget_agent(HERE, "1")
    wait_until(lambda: store.agents(HERE) != [], "a heartbeat of the other one")


def test_an_agent_waits_for_its_job_for_as_long_as_it_takes(
    supervised: tuple[Any, Any], listener: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A slow database delays the start of the agent, but does not prevent it."""
    monkeypatch.setattr(listener, "_JOB_WAIT_S", 0.05)
    gate, store = supervised
    gate._db._job.job_type = None
    gate.start()
    wait_until(lambda: "has not stored its scheduler's job" in caplog.text, "a message")
    assert store.agents(HERE) == []
    gate._db._job.job_type = "SchedulerJob"
    wait_until(lambda: store.agents(HERE) != [], "a heartbeat")


def test_a_process_without_threads_gets_its_agent_later(
    supervised: tuple[Any, Any], listener: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The scheduler starts without an agent. After a later fork, the parent starts the agent, if it can get a thread.
    """
    gate, store = supervised
    thread_start = threading.Thread.start

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(listener, "_THREAD_WAIT_S", 0.05)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    gate.start()
    assert "could not start its thread (can't start new thread)" in caplog.text
    gate._after_fork()
    monkeypatch.setattr(threading.Thread, "start", thread_start)
    gate._pid += 1
    gate._after_fork()
    assert not gate._is_alive
    gate._pid -= 1
    gate._after_fork()
    wait_until(lambda: store.agents(HERE) != [], "a heartbeat")


class _Watch:
    """Records which locks of the provider are taken, and whether a socket is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        for name in ("Lock", "RLock"):
            monkeypatch.setattr(threading, name, self._factory(name, getattr(threading, name)))
        watch = self

        class Socket(socket.socket):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                watch.seen.append("socket")
                super().__init__(*args, **kwargs)

        monkeypatch.setattr(socket, "socket", Socket)

    def _factory(self, name: str, make: Callable[[], Any]) -> Callable[[], Any]:
        watch = self

        class Watched:
            def __init__(self) -> None:
                self._lock = make()

            def acquire(self, *args: Any, **kwargs: Any) -> bool:
                watch.seen.append(name)
                return bool(self._lock.acquire(*args, **kwargs))

            def release(self) -> None:
                self._lock.release()

            def __enter__(self) -> bool:
                return self.acquire()

            def __exit__(self, *_: object) -> None:
                self.release()

        def factory() -> Any:
            frame = sys._getframe(1)
            while frame.f_back is not None and frame.f_code.co_filename == threading.__file__:
                frame = frame.f_back
            return Watched() if "airflow_provider_mwaa_dr" in frame.f_code.co_filename else make()

        return factory


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, _Watch]]:
    """A listener that is imported again, while every lock of the provider's modules is watched."""
    watch = _Watch(monkeypatch)
    for name in [name for name in sys.modules if name.startswith("airflow_provider_mwaa_dr.plugins.")]:
        monkeypatch.delitem(sys.modules, name)
    package = sys.modules["airflow_provider_mwaa_dr.plugins"]
    for name in ("listener", "fence", "agent", "metadata_db"):
        if hasattr(package, name):
            monkeypatch.delattr(package, name)
    yield importlib.import_module("airflow_provider_mwaa_dr.plugins.listener"), watch
    for name in [name for name in sys.modules if name.startswith("airflow_provider_mwaa_dr.plugins.")]:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("active", [HERE, THERE, None])
def test_the_gate_uses_no_lock_and_no_socket_in_the_schedulers_thread(
    database_with_run: Database, watched: tuple[ModuleType, _Watch], install: Callable[..., Any], active: str | None
) -> None:
    """A fork could inherit the lock, and a slow response would stop the scheduler while it holds row locks."""
    listener, watch = watched
    install(listener, active)
    watch.seen.clear()
    start(database_with_run, listener)
    assert watch.seen == []


def test_the_watch_sees_a_lock_and_a_socket(
    database_with_run: Database, watched: tuple[ModuleType, _Watch], install: Callable[..., Any]
) -> None:
    """Control case: the watch detects a gate that takes its agent's lock or opens a socket."""
    listener, watch = watched
    gate = install(listener, THERE)
    check = gate.check

    def careless(run: Any) -> None:
        with gate._guard:
            check(run)
        socket.socket().close()

    gate.check = careless
    watch.seen.clear()
    start(database_with_run, listener)
    assert watch.seen == ["RLock", "socket"]


def broken(*_: Any) -> None:
    raise ZeroDivisionError


# How the fence stops a task.


def _operator(**kwargs: Any) -> Any:
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
    task = _operator(on_execute_callback=_callback, on_skipped_callback=_callback, execution_timeout=minute)
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
    task = _operator(execution_timeout=timedelta(minutes=10))
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


def test_the_agent_of_a_gate_writes_an_inventory(
    database: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """It describes this Airflow's database, and the effective settings. It needs no request to AWS."""
    from airflow_provider_mwaa_dr.testing import InMemoryStateStore

    database.add_dag("orders")
    keeper = install(listener, HERE, fence=False)._make_loop()._inventory
    keeper._store = store = InMemoryStateStore()
    assert keeper.turn(lambda: (HERE, THERE)) is True
    listed = store.get_inventory(HERE)
    assert listed is not None
    assert listed.options["fence"] == "False"
    assert "default_pool" in listed.names["pools"]
    assert "apache-airflow" in listed.packages


def test_a_run_does_not_overtake_one_that_was_held_in_the_same_pass(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """
    The region becomes active in the middle of a scheduler pass. A run that was held before that starts first in the
    next pass.
    """
    gate = install(listener, None)
    start(database_with_run, listener)
    gate._loop = install(listener, HERE)._loop
    listener._gate = gate  # type: ignore[attr-defined]
    database_with_run.add_run("orders", "r2")
    start(database_with_run, listener, run_id="r2")
    assert database_with_run.runs() == {"r1": "queued", "r2": "queued"}
    assert "starts first" in (database_with_run.note("r2") or "")
    gate._held_at["orders"] -= 60
    for run_id in ("r1", "r2"):
        start(database_with_run, listener, run_id=run_id)
    assert database_with_run.runs() == {"r1": "running", "r2": "running"}
