"""A user misspells the active region for some seconds, under load: no run is lost, and no run executes twice."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase
from tests.histories import A, B, Caller
from tests.simulation.world import WANTED, Simulation

HISTORIES = 12
LOAD_S = 120


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    """Switch off the logs: the agents of a history write thousands of lines that no test reads."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def first() -> int:
    """A fresh seed, which is printed if a history goes wrong."""
    return random.SystemRandom().randrange(10**9)


class Misspelled(Simulation):
    """A history whose oracle knows which region the misspelled value means."""

    meant: str | None = None

    def meaning(self, state: DRState) -> DRState:
        return (
            state if state.active_region in {A, B} or self.meant is None else replace(state, active_region=self.meant)
        )

    @property
    def state(self) -> DRState:
        return self.meaning(super().state)

    def misspell(self) -> None:
        """Change the item as a user does, without a new version."""
        state = super().state
        if state.phase is Phase.STEADY and state.active_region in {A, B}:
            self.meant = state.active_region
            value = self.rng.choice(["us-est-2", f" {self.meant}", self.meant.upper(), ""])
            self.store._table.state = replace(state, active_region=value)
            self.note(None, f"a user writes {value!r} for {self.meant}")

    def correct(self) -> None:
        self.store._table.state = self.state

    def check_write(self, caller: Caller, before: DRState, new: DRState) -> None:
        super().check_write(caller, self.meaning(before), self.meaning(new))


def begin(seed: int) -> Misspelled:
    """Return a history under load."""
    world = Misspelled(seed)
    world.is_healed, world.long_runs = True, 0  # no other fault happens
    for second in range(0, LOAD_S, 4):
        world.clock.after(second + world.rng.random() * 4, world.trigger_by_hand)
    world.clear_failed_runs()
    world.clock.advance(10)
    return world


def assert_nothing_is_lost(world: Misspelled, seed: int) -> None:
    verdict = world.judge_after_waiting_runs()
    assert verdict.problems == {}, f"seed {seed}: {verdict.problems}"
    assert verdict.due >= 10
    for name, region in world.regions.items():
        running = set(region.airflow.unpaused_dags())
        assert running == (WANTED if name == world.state.active_region else set()), f"seed {seed}: {name}"


def test_a_misspelled_active_region_that_is_corrected_loses_nothing(first: int) -> None:
    """Before the fix, each region took itself for a standby, and no region executed the runs that they closed."""
    for seed in range(first, first + HISTORIES):
        world = begin(seed)
        for _ in range(3):
            world.misspell()
            world.clock.advance(world.rng.uniform(1, 30))
            world.correct()
            world.clock.advance(world.rng.uniform(5, 20))
        assert_nothing_is_lost(world, seed)
        assert not world.judge(world.clock.monotonic()).again, f"seed {seed}"
        # The next failover adopts no skipped run.
        world.call(B, faulty=False, stop_running=True)
        world.scheduler.run_until_idle()
        world.clock.advance(15)
        assert world.state.active_region == B
        assert_nothing_is_lost(world, seed)
        world.scheduler.end()


def test_a_failover_from_a_misspelled_active_region_loses_nothing(first: int) -> None:
    """The failover is forced: runs that the unknown region executed may execute again, but none is lost."""
    for seed in range(first, first + HISTORIES):
        world = begin(seed)
        world.misspell()
        world.clock.advance(world.rng.uniform(1, 20))
        caller = world.call(B, faulty=False, mode=world.rng.choice(list(Mode)))
        world.scheduler.run_until_idle()
        assert world.state.active_region == B, f"seed {seed}: {caller.outcome!r}"
        world.clock.advance(20)
        assert_nothing_is_lost(world, seed)
        world.scheduler.end()
