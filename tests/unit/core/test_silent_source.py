"""How soon an AUTO failover continues without its source: after one attempt, if its schedulers are silent, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.failover import FailoverEngine, StepEvent, StepStatus
from airflow_provider_mwaa_dr.core.heartbeats import Silence
from airflow_provider_mwaa_dr.core.ports import AgentStatus, DagInfo, FailoverRecord, SilentAgent
from airflow_provider_mwaa_dr.core.state import Mode, Phase
from airflow_provider_mwaa_dr.exceptions import DrainTimeoutError, MwaaUnreachableError
from airflow_provider_mwaa_dr.testing import FakeEnvironment
from tests.unit.core.dr_set import TIMING, A, B, World, request

BLACK_HOLE_S = 12.0
"""Duration of an attempt whose packets are lost."""


class Source(FakeEnvironment):
    """A source whose API does not list its DAGs while *answers* returns false."""

    def __init__(self, world: World, *, attempt_s: float, answers: Callable[[], bool] = lambda: False) -> None:
        super().__init__(A, clock=world.clock)
        self._tested, self._attempt_s, self._answers = world, attempt_s, answers
        self.attempts = 0
        for dag_id in sorted(world.environments[A].paused | world.environments[A].unpaused):
            self.add_dag(dag_id, is_paused=dag_id in world.environments[A].paused)
        world.environments[A] = self

    def dags(self, **options: Any) -> Sequence[DagInfo]:
        if not self._answers():
            self.attempts += 1
            self._tested.clock.sleep(self._attempt_s)
            raise MwaaUnreachableError(f"{A} did not answer.")
        return super().dags(**options)


@pytest.fixture
def world() -> World:
    return World.build()


def silence(world: World) -> None:
    world.agents[A].alive = False


@pytest.mark.parametrize("attempt_s", [BLACK_HOLE_S, 3.0])
def test_the_api_of_a_dead_region_is_called_once(world: World, attempt_s: float) -> None:
    """No answer, and no heartbeat for as long as a scheduler may be silent: the two signals confirm each other."""
    silence(world)
    source = Source(world, attempt_s=attempt_s)
    record = world.fail_over()
    assert source.attempts == 1
    assert record.mode is Mode.FORCED
    assert (world.state.active_region, world.state.phase) == (B, Phase.STEADY)


def test_a_slow_api_of_a_live_region_gets_the_whole_answer_time(world: World) -> None:
    """Heartbeats of its schedulers arrive, so one attempt without an answer does not show that the region is lost."""
    source = Source(world, attempt_s=2.0)
    began = world.clock.monotonic()
    given_up: list[float] = []
    world.engine(
        on_step=lambda event: (
            given_up.append(world.clock.monotonic()) if (event.name, event.status) == ("force", "started") else None
        )
    ).run(request())
    assert source.attempts > 3
    assert given_up[0] - began >= TIMING.answer_s


def test_a_live_region_that_answers_in_time_is_drained(world: World) -> None:
    """An API that answers at the third attempt does not belong to a dead region."""
    source = Source(world, attempt_s=3.0, answers=lambda: source.attempts >= 2)
    assert world.fail_over().mode is Mode.GRACEFUL


def test_silent_schedulers_alone_do_not_turn_a_failover_forced(world: World) -> None:
    """
    The silence of these agents proves nothing: they start runs without a confirmed heartbeat. The API answers, so the
    engine waits for the running runs.
    """
    silence(world)
    world.clock.advance(100)
    assert world.fail_over().mode is Mode.GRACEFUL


def test_a_source_whose_api_is_back_before_the_silence_is_long_enough_is_drained(world: World) -> None:
    """Refused connections take no time, so there is time for more attempts until the schedulers count as gone."""
    silence(world)
    source = Source(world, attempt_s=0.0, answers=lambda: source.attempts >= 2)
    assert world.fail_over().mode is Mode.GRACEFUL


def test_an_old_heartbeat_is_no_silence_at_the_first_read(world: World) -> None:
    """
    Only the time that this process has watched counts. Other machines' clocks and items of ended jobs prove nothing.
    """
    silence(world)
    world.clock.advance(1000)
    source = Source(world, attempt_s=0.0)
    began = world.clock.monotonic()
    world.fail_over()
    assert source.attempts > 1
    assert world.clock.monotonic() - began >= TIMING.agent_silence_s


def test_a_graceful_plan_calls_the_api_for_the_whole_answer_time(world: World) -> None:
    """A GRACEFUL plan never turns forced, so it loses nothing by further attempts."""
    silence(world)
    source = Source(world, attempt_s=2.0)
    with pytest.raises(Exception, match="did not answer"):
        world.fail_over(mode=Mode.GRACEFUL)
    assert source.attempts > 3


def test_silence_counts_from_the_last_change_seen(world: World) -> None:
    """The silence is zero at the first read, after each heartbeat, and without heartbeats."""
    found: list[AgentStatus] = []
    watched = Silence(lambda _: found, world.clock)
    assert watched.seconds(A) == 0
    world.clock.advance(10)
    assert watched.seconds(A) == 0
    found[:] = world.store.agents(A)
    assert watched.seconds(A) == 0
    world.clock.advance(10)
    assert watched.seconds(A) == 10
    found[:] = world.store.agents(A)
    assert watched.seconds(A) == 0


def observe_silence(world: World, *, still_s: float) -> None:
    """Let the source's scheduler be silent, and the target's agent report for how long."""
    world.agents[A].changes["life"] = "a"
    world.clock.advance(2)
    silence(world)
    (item,) = world.store.agents(A)
    assert item.number is not None
    report = SilentAgent(region=A, job=item.job, number=item.number, still_s=still_s)
    world.agents[B].changes["silent"] = (report,)
    world.clock.advance(2)


def steps_of(record: FailoverRecord) -> list[str]:
    return [step.name for step in record.steps]


def test_schedulers_that_are_silent_for_a_lease_turn_an_auto_failover_forced(world: World) -> None:
    """Its web server answers, but no scheduler ends a run, closes one or publishes. It waits for the fence again."""
    observe_silence(world, still_s=100)
    world.environments[A].add_run("dag_01", "r1")
    world.environments[A].running_tasks = list  # type: ignore[method-assign]
    began = world.clock.monotonic()
    record = world.fail_over()
    assert record.mode is Mode.FORCED
    assert {"force", "lease", "tasks"} <= set(steps_of(record))
    assert next(step.seconds for step in record.steps if step.name == "lease") >= 3.0
    assert world.clock.monotonic() - began < TIMING.drain_s


def test_schedulers_that_die_during_the_drain_turn_an_auto_failover_forced(world: World) -> None:
    """
    The engine itself observes their silence, while it waits for runs that no scheduler ends. No agent has reported it.
    """
    world.agents[A].changes["life"] = "a"
    source = world.environments[A]
    source.add_run("dag_01", "r1")
    source.running_tasks = list  # type: ignore[method-assign]

    def note(event: StepEvent) -> None:
        if (event.name, event.status) == ("drain", StepStatus.STARTED):
            world.clock.after(5, lambda: silence(world))

    began, timing = world.clock.monotonic(), replace(TIMING, drain_s=900)
    engine = FailoverEngine(world.store.peer(), world.environments, world.clock, timing, "engine-1", note)
    record = engine.run(request())
    assert record.mode is Mode.FORCED
    assert 3.0 <= next(step.seconds for step in record.steps if step.name == "lease") <= 10.0
    assert world.clock.monotonic() - began < 100


def test_a_graceful_failover_whose_schedulers_die_during_the_drain_stays_graceful(world: World) -> None:
    """It ends with the drain's time."""
    world.agents[A].changes["life"] = "a"
    world.environments[A].add_run("dag_01", "r1")
    world.clock.after(5, lambda: silence(world))
    with pytest.raises(DrainTimeoutError):
        world.fail_over(mode=Mode.GRACEFUL)


def test_a_silent_source_gets_its_drain_time_for_tasks_that_its_web_server_lists(world: World) -> None:
    """Workers may outlive the schedulers. The target should not execute a task at the same time."""
    observe_silence(world, still_s=100)
    source = world.environments[A]
    source.add_run("dag_01", "r1")
    ends_at = world.clock.monotonic() + 30
    run = source.running_runs()
    source.running_tasks = lambda: run if world.clock.monotonic() < ends_at else []  # type: ignore[method-assign]
    promoted_at: list[float] = []
    world.engine(
        on_step=lambda event: (
            promoted_at.append(world.clock.monotonic()) if (event.name, event.status) == ("promote", "done") else None
        )
    ).run(request())
    assert promoted_at[0] >= ends_at


def test_a_task_that_never_ends_delays_the_promotion_by_the_drain_time_at_most(world: World) -> None:
    """The record names the run."""
    observe_silence(world, still_s=100)
    world.environments[A].add_run("dag_01", "r1")
    record = world.fail_over()
    tasks = next(step for step in record.steps if step.name == "tasks")
    assert TIMING.drain_s <= tasks.seconds <= TIMING.drain_s + 3
    assert "dag_01 r1" in tasks.detail


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.GRACEFUL])
def test_a_scheduler_that_was_silent_for_less_than_its_lease_is_drained(world: World, mode: Mode) -> None:
    """It may be back. A graceful failover never turns forced."""
    observe_silence(world, still_s=30 if mode is Mode.AUTO else 100)
    world.clock.after(5, lambda: setattr(world.agents[A], "alive", True))
    assert world.fail_over(mode=mode).mode is Mode.GRACEFUL


def test_one_scheduler_that_sends_heartbeats_keeps_the_failover_graceful(world: World) -> None:
    """It drains the region, and publishes for it."""
    observe_silence(world, still_s=100)
    (item,) = world.store.agents(A)
    world.agents[A].jobs, world.agents[A].alive = ("2",), True
    world.agents[A].changes["life"] = "b"
    world.clock.advance(2)
    assert {agent.job for agent in world.store.agents(A)} == {item.job, "2"}
    assert world.fail_over().mode is Mode.GRACEFUL
