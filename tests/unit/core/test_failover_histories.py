"""
Histories of the engine: faults, killed callers and people who change their minds, from a seed.

``DR_HISTORIES=2000`` runs more of them; tests/histories.py is the world that they happen in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.ports import FailoverRecord
from airflow_provider_mwaa_dr.core.state import Mode, Phase
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, DRError
from tests.histories import DAGS, TIMING, A, B, C, KilledError, World

HISTORIES = int(os.environ.get("DR_HISTORIES", "40"))
FIRST = int(os.environ.get("DR_FIRST_HISTORY", "0"))


def disturb(world: World) -> None:
    """Let something go wrong with a region, now or in a while, and usually right itself."""
    rng, region = world.rng, world.regions[world.rng.choice([A, A, B, B, C])]

    def later(seconds: float, what: Callable[[], object]) -> None:
        world.clock.after(seconds, what)

    at, kind = rng.uniform(0, 60), rng.choice(["die", "die", "cut", "stuck", "stubborn", "absent"])
    if kind == "die":
        later(at, region.die)
        later(at + rng.choice([5, 40, 200]), region.revive)
    elif kind == "cut":
        later(at, lambda: setattr(region, "cut_until", world.clock.monotonic() + rng.choice([5, 40])))
    elif kind == "stuck":
        job = rng.choice(["1", "2"])
        later(at, lambda: region.stuck_until.update({job: world.clock.monotonic() + rng.choice([5, 9, 30])}))
    elif kind == "stubborn":
        dag_id = rng.choice(DAGS)
        later(at, lambda: region.environment.stubborn.add(dag_id))
        later(at + rng.choice([10, 100]), lambda: region.environment.stubborn.discard(dag_id))
    elif region is not world.regions[world.state.active_region]:
        region.environment.remove_dag(rng.choice(DAGS))


def heal(world: World) -> None:
    """Everything is reachable again, and has had the time to notice."""
    for name, region in world.regions.items():
        if not region.is_up:
            region.revive()
        region.cut_until = -1.0
        region.stuck_until = {"1": -1.0, "2": -1.0}
        region.environment.stubborn.clear()
        for dag_id in world.absent(name):
            region.environment.add_dag(dag_id, is_paused=True)
    world.long_runs = 0
    world.clock.advance(5)


def live_through(seed: int) -> World:
    """One history: up to four callers at once, some of them killed, among faults; then one last call after healing."""
    world = World(seed)
    rng = world.rng
    try:
        for _ in range(rng.randint(1, 3)):
            if world.state.phase is Phase.STEADY and rng.random() < 0.5:
                someone_changes_their_mind(world)
            for _ in range(rng.randint(0, 3)):
                disturb(world)
            for _ in range(rng.randint(1, 4)):
                caller = world.call(
                    rng.choice([A, A, B, B, B, C]),
                    after_s=rng.choice([0, 0, rng.uniform(0, 90)]),
                    mode=rng.choice([Mode.AUTO, Mode.AUTO, Mode.GRACEFUL, Mode.FORCED]),
                    stop_running=rng.random() < 0.5,
                    even_if_not_ready=rng.random() < 0.8,
                )
                if rng.random() < 0.5:
                    caller.kill_at = rng.randint(1, rng.choice([40, 150, 400]))
            world.scheduler.run_until_idle()
            for caller in world.scheduler.callers:
                if not isinstance(caller.outcome, DRError | KilledError):
                    assert not isinstance(caller.outcome, BaseException), caller.outcome
        # Late calls of regions' faults fall due now, before everything is mended.
        world.clock.advance(300)
        heal(world)
        for target in rng.sample([A, B], 2):
            last = world.call(target, faulty=False, stop_running=True)
            world.scheduler.run_until_idle()
            assert not isinstance(last.outcome, BaseException) or isinstance(last.outcome, AlreadyActiveError), repr(
                last.outcome
            )
            world.clock.advance(5)
            record = last.outcome if isinstance(last.outcome, FailoverRecord) else None
            missing = world.dags_not_unpaused(target) if record is None else record.not_unpaused
            if record is not None and record.source != record.target:
                assert missing == ()
            world.assert_settled(target, but=missing)
    finally:
        world.scheduler.end()
    return world


def someone_changes_their_mind(world: World) -> None:
    """A person pauses or unpauses a DAG where it runs, and the region's agent has the time to see it."""
    region = world.regions[world.state.active_region]
    dag_id = world.rng.choice(DAGS)
    is_paused = dag_id in world.wanted
    if not region.is_up or dag_id not in (region.environment.unpaused if is_paused else region.environment.paused):
        return
    region.environment.flip(dag_id, is_paused=is_paused)
    world.clock.advance(3)
    snapshot = world.store.get_snapshot(region.name)
    if snapshot is not None and (dag_id in snapshot.dag_ids) is not is_paused:
        world.wanted ^= {dag_id}
    else:  # out of the table's reach: a forced failover cannot know of it
        region.environment.flip(dag_id, is_paused=not is_paused)


def test_an_owner_that_shows_signs_of_life_is_followed_not_replaced() -> None:
    """A drain takes longer than a silence may; the second caller gets the first one's record and has done nothing."""
    world = World(0)
    world.load = 0
    world.regions[A].environment.add_run("dag_0", "long", seconds=TIMING.takeover_s + 2)
    try:
        first = world.call(B, faulty=False)
        second = world.call(B, faulty=False, after_s=2)
        world.scheduler.run_until_idle()
    finally:
        world.scheduler.end()
    assert isinstance(first.outcome, FailoverRecord)
    assert isinstance(second.outcome, FailoverRecord)
    assert (first.outcome.id, first.outcome.by) == (second.outcome.id, first.name)
    assert "join" not in [step.name for step in first.outcome.steps]


@pytest.mark.parametrize("way_out", [A, B], ids=["given up", "finished"])
@pytest.mark.parametrize("mode", [Mode.GRACEFUL, Mode.FORCED])
def test_killed_at_any_call_to_table_or_environment_the_next_call_settles_it(mode: Mode, way_out: str) -> None:
    """Not only between steps: before and after each single read, write and request."""
    kill_at, is_done = 0, False
    while not is_done:
        kill_at += 1
        world = World(7)
        world.long_runs = 0
        try:
            killed = world.call(B, faulty=False, mode=mode)
            killed.kill_at = kill_at
            world.scheduler.run_until_idle()
            world.clock.advance(3)
            world.call(way_out, faulty=False)
            world.scheduler.run_until_idle()
            world.clock.advance(3)
            world.assert_settled(way_out, but=())
            is_done = isinstance(killed.outcome, FailoverRecord)
        finally:
            world.scheduler.end()
    assert kill_at > 50


@pytest.mark.parametrize("agents_finish", [True, False])
@pytest.mark.parametrize("mode", [Mode.GRACEFUL, Mode.FORCED])
def test_killed_after_promote_it_ends_by_itself(mode: Mode, agents_finish: bool) -> None:
    """With no caller at all, whatever call it was killed at; without the agent's part it stays open for good."""
    kill_at, promoted, is_done = 0, 0, False
    while not is_done:
        kill_at += 1
        world = World(7)
        world.long_runs, world.agents_finish = 0, agents_finish
        try:
            killed = world.call(B, faulty=False, mode=mode)
            killed.kill_at = kill_at
            world.scheduler.run_until_idle()
            is_done = isinstance(killed.outcome, FailoverRecord)
            was_left = world.state.phase in {Phase.PROMOTING, Phase.RESUMING}
            world.regions[B].environment.flip("dag_3", is_paused=False)
            world.clock.advance(3 * TIMING.takeover_s)
            promoted += was_left
            if was_left and agents_finish:
                world.assert_settled(B, but=())
                assert world.store.records()[0].steps[-1].name == "finish"
            else:
                assert (world.state.phase in {Phase.PROMOTING, Phase.RESUMING}) == was_left
        finally:
            world.scheduler.end()
    assert promoted > 20


def test_a_dead_scheduler_does_not_keep_a_plan_that_was_left_behind_open() -> None:
    """Its heartbeat is still there; the agent that finishes the plan waits until its view closes no run any more."""
    kill_at, was_left = 0, False
    while not was_left:
        kill_at += 1
        world = World(7)
        world.agents_finish = True
        try:
            world.store.put_agent(replace(world.store.agents(B)[0], job="9"))
            world.call(B, faulty=False, mode=Mode.FORCED).kill_at = kill_at
            world.scheduler.run_until_idle()
            was_left = world.state.phase is Phase.PROMOTING
            if was_left:
                world.clock.advance(3 * TIMING.takeover_s)
                world.assert_settled(B, but=())
        finally:
            world.scheduler.end()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + HISTORIES))
def test_whatever_happens_one_call_after_healing_settles_everything(seed: int) -> None:
    """One region is active and STEADY, exactly the wanted set runs there, and on the way no rule was broken."""
    live_through(seed)
