"""The gate in the installed Airflow, called as a scheduler calls it, and its agent's thread."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.core.config import Carry
from airflow_provider_mwaa_dr.core.ports import INVENTORIES
from airflow_provider_mwaa_dr.plugins import gate as gate_module
from tests.airflow.conftest import HERE, THERE, start
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


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
    assert database_with_run.runs() == {"r1": "failed"}
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


def test_a_table_that_does_not_answer_does_not_keep_a_scheduler_from_ending(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler waits some seconds for the table. If it does not answer, a failover waits for the lease."""
    gate = install(listener, HERE)
    answer = threading.Event()
    gate._loop.end = answer.wait
    monkeypatch.setattr(gate_module, "_GONE_WAIT_S", 0.01)
    gate.stop()
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


@pytest.mark.parametrize("outcome", ["success", "failed"])
def test_the_end_of_a_run_reaches_the_agent_of_the_scheduler(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any], outcome: str
) -> None:
    """Airflow's own listener manager calls the hook. The agent then publishes the end within about a second."""
    from airflow.listeners.listener import get_listener_manager

    ended: list[str] = []
    gate = install(listener, HERE)
    gate._loop.note_end_of_run = lambda: ended.append(outcome)
    manager = get_listener_manager()
    manager.add_listener(listener)
    try:
        getattr(manager.hook, f"on_dag_run_{outcome}")(dag_run=SimpleNamespace(dag_id="orders", run_id="r1"), msg="")
    finally:
        manager.pm.unregister(listener)
    assert ended == [outcome]


def test_an_error_while_the_end_of_a_run_is_noted_does_not_reach_the_scheduler(
    database_with_run: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """On Airflow 2 it would end the scheduler. In a process without a gate, the hooks do nothing."""
    gate = install(listener, HERE)
    gate._loop.note_end_of_run = lambda: 1 / 0
    listener.on_dag_run_success()
    listener._gate = None  # type: ignore[attr-defined]
    listener.on_dag_run_failed()


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
    gate._db = type(gate)(config=gate._config, job=job, clock=gate._clock)._db
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
    first.turn = lambda: 1 / 0
    wait_until(lambda: gate._loop is not first, "another agent")
    store.forget_agent(HERE, "1")
    wait_until(lambda: store.agents(HERE) != [], "a heartbeat of the other one")


def test_an_agent_waits_for_its_job_for_as_long_as_it_takes(
    supervised: tuple[Any, Any], listener: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A slow database delays the start of the agent, but does not prevent it."""
    monkeypatch.setattr(gate_module, "_JOB_WAIT_S", 0.05)
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

    monkeypatch.setattr(gate_module, "_THREAD_WAIT_S", 0.05)
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
    for name in ("listener", "fence", "fork_guard", "gate", "metadata"):
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


def test_the_agent_of_a_gate_copies_settings_only_if_an_option_says_so(
    database: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """By default, no part of the agent works on settings."""
    assert install(listener, HERE)._make_loop()._carrier is None
    sites = {HERE: "here", THERE: "there"}
    loop = install(listener, HERE, environments=sites, carry_pools=Carry.ADD)._make_loop()
    assert loop._carrier is loop._inventory._carrier
    assert loop._carrier.report.modes == {"variables": "report", "connections": "report", "pools": "add"}
    assert set(loop._carrier._settings()) == {"pools"}
    assert "default_pool" in loop._carrier._settings()["pools"]


def test_the_agent_of_a_gate_writes_an_inventory(
    database: Database, listener: ModuleType, install: Callable[..., Any]
) -> None:
    """It describes this Airflow's database, and the effective settings. It needs no request to AWS."""
    from airflow_provider_mwaa_dr.testing import InMemoryStateStore

    database.add_dag("orders")
    keeper = install(listener, HERE, fence=False)._make_loop()._inventory
    keeper._store = store = InMemoryStateStore()
    assert keeper.turn() is True
    listed = store.get(INVENTORIES, HERE)
    assert listed is not None
    assert listed.options["fence"] == "False"
    assert "default_pool" in listed.names["pools"]
    assert "apache-airflow" in listed.packages
