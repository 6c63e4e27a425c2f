"""Each function that gate and fence call fails, one at a time: a standby executes nothing, and no hook raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_mwaa_dr.core.ledger import RunStatus
from airflow_provider_mwaa_dr.core.state import initial
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
from tests import planting
from tests.airflow.conftest import HERE, THERE, start
from tests.airflow.plugins.test_execution import operator
from tests.airflow.region import Region, interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


class Planted:
    """The function that fails now, and the functions that were called."""

    def __init__(self) -> None:
        self.key = ""
        self.called: list[str] = []
        self.failed = False

    def enter(self, key: str) -> None:
        if key not in self.called:
            self.called.append(key)
        if key == self.key:
            self.failed = True
            raise planting.PlantedError(key)


@pytest.fixture(scope="module")
def planted() -> Iterator[Planted]:
    """Every function of the provider, prepared to fail."""
    planted = Planted()
    planting.prepare((*planting.MODULES, *planting.SCHEDULERS_MODULES), planted.enter)
    yield planted
    planting.restore()


def each_called(planted: Planted, act: Callable[[], None], *, only: tuple[str, ...] = ("",)) -> Iterator[str]:
    """
    Yield the name of each function that *act* calls, with an error planted in it. *act* runs once without an error
    first.
    """
    planted.key, planted.called = "", []
    act()
    called = [key for key in planted.called if key.startswith(only)]
    assert len(called) >= 5, called
    for key in called:
        planted.key, planted.failed = key, False
        yield key
        assert planted.failed, f"{key} was not called again"
    planted.key = ""


@pytest.mark.parametrize("active", [HERE, THERE, None])
def test_an_error_in_any_function_that_the_gate_calls(
    database: Database,
    listener: ModuleType,
    install: Callable[..., Any],
    planted: Planted,
    active: str | None,
) -> None:
    """The hook raises nothing, the scheduler's transaction commits, and a run starts only in the active region."""
    states: dict[str, str] = {}

    def act() -> None:
        database.clear()
        database.add_dag("orders")
        database.add_run("orders", "r1", tasks=3, queued_at=datetime.now(tz=timezone.utc) - timedelta(minutes=1))
        start(database, listener)
        states[planted.key] = database.runs()["r1"]

    planted.key = ""
    install(listener, active)
    for _ in each_called(planted, act):
        act()
    expected = {HERE: "running", THERE: "failed", None: "queued"}[active]
    assert states.pop("") == expected
    allowed = {"queued", expected} if active != HERE else {"queued", "running"}
    assert {key: state for key, state in states.items() if state not in allowed} == {}


def test_an_error_in_any_function_that_the_fence_calls(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    planted: Planted,
    listener: ModuleType,
) -> None:
    """The hook raises nothing, and the task body never starts, neither at the start nor after a deferral."""
    from airflow_provider_mwaa_dr import conf

    for name, value in {"ENABLED": "True", "REGION": HERE, "STATE_TABLE": "t", "FENCE_WAIT_S": "0"}.items():
        monkeypatch.setenv(f"AIRFLOW__DR__{name}", value)
    state = initial(THERE, lease_s=60, by="t", at=datetime.now(tz=timezone.utc))
    store = InMemoryStateStore(state, regions=(HERE, THERE))
    observe = store.observe
    store.observe = lambda region: replace(observe(region), reconciled_epoch=0)  # type: ignore[method-assign]
    monkeypatch.setattr(conf, "state_store", lambda config, clock: store)
    monkeypatch.setattr(conf, "airflow_home", lambda: tmp_path)
    executed: list[str] = []

    def act() -> None:
        for file in tmp_path.iterdir():
            file.unlink()
        task = operator()
        body = type(task).execute
        type(task).execute = lambda self, context: executed.append(planted.key) or body(self, context)
        type(task).done = type(task).execute
        task_instance = SimpleNamespace(task=task, task_id="t", dag_id="orders", next_method=None)
        listener.on_task_instance_running(task_instance=task_instance)
        ways: tuple[Callable[[], object], ...] = (
            lambda: task.execute(context={}),
            lambda: task.resume_execution(next_method="done", next_kwargs={}, context={}),
        )
        for way in ways:
            with pytest.raises(BaseException):  # noqa: B017, PT011  (any error, but not the body)
                way()

    for _ in each_called(planted, act):
        act()
    assert executed == []


def test_an_error_in_any_function_that_the_agent_calls_for_the_ledger(database: Database, planted: Planted) -> None:
    """
    The turn raises nothing. After the error has ended, adopted and resumed runs are the same as without it.

    The history: standby, adoption, failover, an interrupted run is resumed and ends, and a new run starts.
    """
    tasks = (("one", -1, "failed"), ("two", -1, "upstream_failed"))
    broken: dict[str, object] = {}
    raised: set[str] = set()

    def turns(region: Region, times: int) -> None:
        for _ in range(times):
            try:
                region.turns(1)
            except planting.PlantedError:  # noqa: PERF203
                raised.add(planted.key)
                region.start_agent()  # as in the gate

    def end(run_id: str) -> None:
        runs = database.tables.runs
        with database.settings.engine.begin() as connection:
            connection.execute(runs.update().where(runs.c.run_id == run_id).values(state="success"))

    def act() -> None:
        key, planted.key = planted.key, ""
        database.clear()
        database.add_dag("orders", max_active_runs=16)
        region = Region(database)
        region.publish(interval(1, RunStatus.FAILED, tasks=tasks), dag_ids=("orders",))
        region.publish(
            interval(2, RunStatus.OPEN), interval(3, RunStatus.OPEN, run_type="manual", run_id="m", conf="{}")
        )
        planted.key, planted.called = key, []
        turns(region, 2)
        region.promote()
        turns(region, 2)
        region.complete()
        turns(region, 1)
        end("m")
        turns(region, 2)
        planted.key, called = "", list(planted.called)
        if key:
            region.start_agent()
        region.turns(2)
        region.complete()
        region.turns(1)
        end("m")
        end("scheduled__2")
        database.add_run("orders", "later")
        region.turns()
        end("later")
        region.turns()
        outcome = database.runs(), database.task_states("scheduled__1"), region.open_in_ledger()
        states = {"scheduled__1": "failed", "scheduled__2": "success", "m": "success", "later": "success"}
        expected: object = (states, {("one", -1): "failed", ("two", -1): "upstream_failed"}, set())
        if outcome != expected:
            broken[key] = outcome
        planted.key, planted.called = key, called

    ours = ("core.ledger:", "core.bookkeeping.", "agent.", "plugins.metadata.")
    seen: list[str] = []
    for key in each_called(planted, act, only=ours):
        seen.append(key)
        act()
    assert broken == {}
    assert raised <= {
        "agent.loop:AgentLoop.turn", "agent.loop:AgentLoop._log_turn_error", "agent.report:Reporter.publish_figures",
    }  # fmt: skip
    assert {"core.bookkeeping.resuming:Resumer.resume", "plugins.metadata.insertion:insert_tasks"} <= set(seen)
    assert len(seen) >= 60
