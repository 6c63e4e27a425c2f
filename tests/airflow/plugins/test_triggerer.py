"""
The guard of a triggerer, between the installed Airflow's triggerer and its database.

The contract with each version: the triggerer asks Trigger.ids_for_triggerer in each loop, and cancels what the answer
leaves out.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("airflow")

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.ports import TRIGGERERS
from airflow_provider_mwaa_dr.core.state import Mode, Plan
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock
from tests.airflow.conftest import HERE, THERE
from tests.airflow.plugins.metadata.test_watchers import Triggers, schema, triggers  # noqa: F401  (a fixture)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from airflow_provider_mwaa_dr.plugins.triggerer import TriggererGuard

JOB = 5
pytestmark = pytest.mark.skipif(schema().WATCHERS is None, reason="Airflow 2 has no watchers")


class Region:
    """A region with a watcher, a trigger of a deferred task, and one that only exempt DAGs need."""

    def __init__(self, rows: Triggers) -> None:
        rows.database.add_dag("orders")
        rows.database.add_dag("tagged", tags=("dr:control",))
        self.rows = rows
        self.watcher = rows.watch("queue", "orders")
        self.exempt = rows.watch("exempt", "tagged")
        self.deferred = rows.defer("orders")
        self.all = {self.watcher, self.exempt, self.deferred}
        self.clock = ManualClock()
        self.store = InMemoryStateStore(
            transitions.initial(HERE, lease_s=60, by="t", at=self.clock.now()), regions=(HERE, THERE)
        )
        self.opened = 0
        self.guard = self.make_guard()

    def make_guard(self, **config: Any) -> TriggererGuard:
        from airflow_provider_mwaa_dr.plugins.triggerer import TriggererGuard

        settings = DRConfig(**{"enabled": True, "region": HERE, "state_table": "t", "environments": {}, **config})
        guard = TriggererGuard(
            config=settings, job=SimpleNamespace(id=JOB), clock=self.clock, open_store=lambda: self.store
        )
        guard._ensure_thread = lambda: None  # type: ignore[method-assign]  (tests call turn())
        return guard

    def permitted(self) -> set[int]:
        return set(self.guard.permitted(sorted(self.all)))

    def write(self, change: Callable[[transitions.DRState], transitions.DRState]) -> None:
        assert self.store.state is not None
        self.store.write(change(self.store.state), expected_version=self.store.state.version)

    def claim(self, mode: Mode = Mode.GRACEFUL) -> None:
        at = self.clock.now()
        plan = Plan(id="p", source=HERE, target=THERE, mode=mode, reason="r", by="b", owner="o", started_at=at)
        self.write(lambda state: transitions.claim(state, plan, at=at))

    def published(self) -> list[tuple[str, int, int]]:
        return [(item.job, item.version, item.watchers) for item in self.store.find_all(TRIGGERERS, HERE)]


@pytest.fixture
def region(triggers: Triggers) -> Region:  # noqa: F811
    return Region(triggers)


@pytest.fixture
def supervisor(region: Region, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Airflow's supervisor of the triggers, guarded, without the process that runs them."""
    from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor
    from airflow.models.trigger import Trigger

    asked, update = Trigger.__dict__["ids_for_triggerer"], TriggerRunnerSupervisor.update_triggers
    assign = Trigger.__dict__["assign_unassigned"]
    Trigger.assign_unassigned = staticmethod(lambda *_, **__: None)
    region.guard.install()
    found = TriggerRunnerSupervisor.__new__(TriggerRunnerSupervisor)
    found.job, found.capacity = SimpleNamespace(id=JOB), 10
    for name in ("queues", "team_name"):
        if hasattr(TriggerRunnerSupervisor, name):
            setattr(found, name, None)
    found.running_triggers, found.cancelling_triggers = set(region.all), set()
    found.creating_triggers, found.events, found.failed_triggers = deque(), deque(), deque()
    yield found
    type.__setattr__(Trigger, "ids_for_triggerer", asked)
    type.__setattr__(Trigger, "assign_unassigned", assign)
    TriggerRunnerSupervisor.update_triggers = update


def loop(supervisor: Any, *, is_synced: bool = True) -> None:
    """One loop of the triggerer. The process that runs the triggers cancels them, if *is_synced*, and says so."""
    supervisor.load_triggers()
    if is_synced:
        supervisor.running_triggers -= supervisor.cancelling_triggers
        supervisor.cancelling_triggers.clear()


def test_what_the_answer_leaves_out_is_cancelled(region: Region, supervisor: Any) -> None:
    """Airflow calls the function by its class in each loop, and compares the answer with what runs."""
    region.guard.turn()
    loop(supervisor, is_synced=False)
    assert supervisor.cancelling_triggers == set()
    region.claim()
    region.guard.turn()
    loop(supervisor, is_synced=False)
    assert supervisor.cancelling_triggers == {region.watcher}


def test_the_process_that_runs_triggers_cancels_and_reports_a_trigger_without_failing_it() -> None:
    """A failed trigger would fail its deferred task. A cancelled one can start again."""
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    async def cancel() -> tuple[list[int], list[Any], bool]:
        runner = TriggerRunner()
        task = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        runner.triggers = {7: {"task": task, "name": "watcher", "events": 0, "is_watcher": True}}
        runner.to_cancel.append(7)
        await runner.cancel_triggers()
        await asyncio.sleep(0)
        finished = await runner.cleanup_finished_triggers()
        return finished, list(runner.failed_triggers), task.cancelled()

    assert asyncio.run(cancel()) == ([7], [], True)


def test_a_triggerer_that_has_read_nothing_runs_no_watcher(region: Region) -> None:
    """Unknown means hold. Deferred tasks may be work in progress."""
    assert region.permitted() == {region.exempt, region.deferred}
    region.guard.turn()
    assert region.permitted() == region.all


def test_a_standby_runs_only_the_triggers_of_exempt_dags(region: Region) -> None:
    region.write(lambda state: transitions.set_active_region(state, THERE, reason="r", by="b", at=region.clock.now()))
    region.guard.turn()
    assert region.permitted() == {region.exempt}


def test_a_forced_claim_stops_the_triggers_of_deferred_tasks_too(region: Region) -> None:
    """The region may execute nothing from then on, and its runs are interrupted."""
    region.guard.turn()
    region.claim(Mode.FORCED)
    region.guard.turn()
    assert region.permitted() == {region.exempt}


def test_a_view_that_is_older_than_the_lease_runs_no_watcher(region: Region) -> None:
    """Another region may have the role. An answer of the table ends it."""
    region.guard.turn()
    region.store.unreachable = True
    region.clock.advance(61)
    region.guard.turn()
    assert region.permitted() == {region.exempt, region.deferred}
    region.store.unreachable = False
    region.guard.turn()
    assert region.permitted() == region.all


def test_another_environment_runs_no_watcher_and_publishes_nothing(region: Region) -> None:
    """Its [dr] region was copied: it must not take messages of the region, and must not acknowledge for it."""
    region.guard = region.make_guard(environment="copy", aws_region=THERE)
    region.guard.turn()
    assert region.permitted() == {region.exempt, region.deferred}
    region.guard.turn()
    assert region.published() == []


def test_a_triggerer_does_not_return_to_an_older_state(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the table may answer with the state from before the claim."""
    assert region.store.state is not None
    before = region.store.observe(HERE)
    region.claim()
    region.guard.turn()
    monkeypatch.setattr(region.store, "observe", lambda _: before)
    region.guard.turn()
    assert region.permitted() == {region.exempt, region.deferred}


def test_the_stop_is_published_when_no_watcher_is_at_work_any_more(region: Region, supervisor: Any) -> None:
    """The last events of a watcher are in the database by then: Airflow stores them before it asks again."""
    region.guard.turn()
    loop(supervisor)
    region.guard.turn()
    assert region.published() == [("5", 0, 1)]
    region.claim()
    assert region.store.state is not None
    region.guard.turn()
    loop(supervisor, is_synced=False)
    region.guard.turn()
    assert region.published() == [("5", 0, 1)], "it is cancelled, but has not ended"
    supervisor.running_triggers -= {region.watcher}
    supervisor.cancelling_triggers.clear()
    supervisor.events.append((region.watcher, "event"))
    loop(supervisor)
    region.guard.turn()
    assert region.published() == [("5", 0, 1)], "its last event is not stored"
    supervisor.events.clear()
    loop(supervisor)
    region.guard.turn()
    assert region.published() == [("5", region.store.state.version, 1)]


def test_a_watcher_that_has_not_started_yet_is_at_work(region: Region, supervisor: Any) -> None:
    """Airflow starts it although it is no longer wanted, and cancels it later."""
    region.claim()
    region.guard.turn()
    supervisor.running_triggers -= {region.watcher}
    supervisor.creating_triggers.append(SimpleNamespace(id=region.watcher))
    loop(supervisor)
    region.guard.turn()
    assert region.published() == [("5", 0, 1)]


@pytest.mark.parametrize("with_orm", [True, False])
def test_an_error_keeps_ordinary_triggers_and_leaves_out_watchers(
    region: Region, monkeypatch: pytest.MonkeyPatch, with_orm: bool
) -> None:
    """A stopped trigger of a deferred task could not be started again by anyone."""
    from airflow_provider_mwaa_dr.plugins.metadata import transactions

    region.guard.turn()
    assert region.permitted() == region.all

    def fail(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no database")

    monkeypatch.setattr(region.guard._watchers_db, "triggers_by_use", fail)
    if not with_orm:
        monkeypatch.setattr(transactions, "transaction", fail)
    assert region.deferred in region.permitted()
    assert region.watcher not in region.permitted()


def test_a_triggerer_that_ends_withdraws_what_it_published(region: Region) -> None:
    """Else a later failover could not tell whether the triggerer still runs."""
    del region.guard._ensure_thread  # type: ignore[attr-defined]
    region.permitted()
    wait_until(lambda: bool(region.published()) or bool(region.permitted() - region.all), "an item of the triggerer")
    region.guard.stop()
    assert region.published() == []


@pytest.mark.parametrize(
    ("argv", "has_heartbeat", "is_guarded"),
    [
        pytest.param(["airflow", "triggerer"], True, True, id="triggerer"),
        pytest.param(["airflow", "triggerer"], False, False, id="a-task-in-it"),
        pytest.param(["airflow", "dag-processor"], True, False, id="dag-processor"),
    ],
)
def test_only_a_triggerer_is_guarded(
    listener: ModuleType, monkeypatch: pytest.MonkeyPatch, argv: list[str], has_heartbeat: bool, is_guarded: bool
) -> None:
    """The hook is called in each kind of process."""
    from airflow_provider_mwaa_dr.plugins import triggerer

    installed: list[object] = []

    def install(guard: object) -> None:
        installed.append(guard)

    monkeypatch.setattr(triggerer.TriggererGuard, "install", install)
    monkeypatch.setattr(listener, "_triggerer", None)
    monkeypatch.setattr(sys, "argv", argv)
    now = datetime.now(tz=timezone.utc)
    component = SimpleNamespace(id=1, **({"latest_heartbeat": now} if has_heartbeat else {}))
    listener.on_starting(component)
    listener.on_starting(component)
    assert len(installed) == int(is_guarded)
    listener.before_stopping(component)
