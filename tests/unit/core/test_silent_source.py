"""How soon an AUTO failover goes on without its source: one attempt, where the schedulers are silent, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.heartbeats import Silence
from airflow_provider_mwaa_dr.core.ports import AgentStatus, DagInfo
from airflow_provider_mwaa_dr.core.state import Mode, Phase
from airflow_provider_mwaa_dr.exceptions import MwaaUnreachableError
from airflow_provider_mwaa_dr.testing import FakeEnvironment
from tests.unit.core.dr_set import TIMING, A, B, World, request

BLACK_HOLE_S = 12.0
"""What an attempt takes whose packets get lost."""


class Source(FakeEnvironment):
    """A source whose DAGs are asked for in vain, as long as *answers* says so."""

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
def test_a_dead_region_is_asked_once(world: World, attempt_s: float) -> None:
    """No answer, and no heartbeat for as long as makes its schedulers count as gone: one signal confirms the other."""
    silence(world)
    source = Source(world, attempt_s=attempt_s)
    record = world.fail_over()
    assert source.attempts == 1
    assert record.mode is Mode.FORCED
    assert (world.state.active_region, world.state.phase) == (B, Phase.STEADY)


def test_a_live_region_whose_api_is_slow_is_asked_for_the_whole_time(world: World) -> None:
    """Its schedulers' heartbeats arrive: one attempt without an answer says nothing of the region."""
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
    """An API that answers at the third attempt is no dead region."""
    source = Source(world, attempt_s=3.0, answers=lambda: source.attempts >= 2)
    assert world.fail_over().mode is Mode.GRACEFUL


def test_silent_schedulers_alone_force_nothing(world: World) -> None:
    """The API answers: what runs there is waited for, however long no heartbeat has come."""
    silence(world)
    world.clock.advance(100)
    assert world.fail_over().mode is Mode.GRACEFUL


def test_an_api_that_is_back_before_the_silence_is_long_enough_is_drained(world: World) -> None:
    """Refused connections take no time: there is room for more attempts until the schedulers count as gone."""
    silence(world)
    source = Source(world, attempt_s=0.0, answers=lambda: source.attempts >= 2)
    assert world.fail_over().mode is Mode.GRACEFUL


def test_a_heartbeat_of_long_ago_is_no_silence_at_the_first_look(world: World) -> None:
    """Only what this process has watched counts: clocks of other machines, and dead jobs' items, say nothing."""
    silence(world)
    world.clock.advance(1000)
    source = Source(world, attempt_s=0.0)
    began = world.clock.monotonic()
    world.fail_over()
    assert source.attempts > 1
    assert world.clock.monotonic() - began >= TIMING.agent_silence_s


def test_a_plan_that_insists_on_grace_asks_for_the_whole_time(world: World) -> None:
    """GRACEFUL turns into nothing else, so it loses nothing by asking."""
    silence(world)
    source = Source(world, attempt_s=2.0)
    with pytest.raises(Exception, match="did not answer"):
        world.fail_over(mode=Mode.GRACEFUL)
    assert source.attempts > 3


def test_silence_counts_from_the_last_change_seen(world: World) -> None:
    """Zero at the first look, after each heartbeat, and where there are none."""
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
