"""
Random histories of the engine: faults, killed callers, and users who pause and unpause DAGs. A seed decides each.

``DR_HISTORIES=2000`` runs more of them. tests/histories.py is the world in which they happen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.ports import RECORDS, SNAPSHOTS, FailoverRecord
from airflow_provider_mwaa_dr.core.state import Mode, Phase
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, DRError
from tests.histories import DAGS, TIMING, A, B, C, KilledError, World

HISTORIES = int(os.environ.get("DR_HISTORIES", "40"))
FIRST = int(os.environ.get("DR_FIRST_HISTORY", "0"))


def calm_world() -> World:
    """
    Return a world without random faults, for tests that kill a caller at each of its calls.

    Its table does not convert each heartbeat to an item, which would take most of the time.
    """
    world = World(7)
    world.long_runs = 0
    world.store.has_limits = False
    return world


def disturb(world: World) -> None:
    """Schedule a fault of a region, now or within a minute. Most faults end by themselves."""
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
    """End all faults, and let the agents notice it."""
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


def run_history(seed: int) -> World:
    """
    Run one history: up to four callers at the same time, some of them killed, during faults. Then heal, and call once
    more.
    """
    world = World(seed)
    rng = world.rng
    try:
        for _ in range(rng.randint(1, 3)):
            if world.state.phase is Phase.STEADY and rng.random() < 0.5:
                user_changes_a_dag(world)
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
        # Faults that are still scheduled happen now, before heal() ends them.
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
            world.assert_steady(target, but=missing)
    finally:
        world.scheduler.end()
    return world


def user_changes_a_dag(world: World) -> None:
    """A user pauses or unpauses a DAG in the active region, and the region's agent has time to see it."""
    region = world.regions[world.state.active_region]
    dag_id = world.rng.choice(DAGS)
    is_paused = dag_id in world.wanted
    if not region.is_up or dag_id not in (region.environment.unpaused if is_paused else region.environment.paused):
        return
    region.environment.flip(dag_id, is_paused=is_paused)
    world.clock.advance(3)
    snapshot = world.store.get(SNAPSHOTS, region.name)
    if snapshot is not None and (dag_id in snapshot.dag_ids) is not is_paused:
        world.wanted ^= {dag_id}
    else:  # the agent could not write a snapshot, so a forced failover cannot know of the change
        region.environment.flip(dag_id, is_paused=not is_paused)


def test_a_second_caller_follows_an_owner_whose_beat_changes() -> None:
    """
    The drain takes longer than the takeover time. The second caller takes no step, and gets the record of the first.
    """
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
def test_a_failover_killed_at_any_single_call_is_finished_by_the_next_caller(mode: Mode, way_out: str) -> None:
    """The caller is killed before and after each read, write and request, and not only between steps."""
    kill_at, is_done = 0, False
    while not is_done:
        kill_at += 1
        world = calm_world()
        try:
            killed = world.call(B, faulty=False, mode=mode)
            killed.kill_at = kill_at
            world.scheduler.run_until_idle()
            world.clock.advance(3)
            world.call(way_out, faulty=False)
            world.scheduler.run_until_idle()
            world.clock.advance(3)
            world.assert_steady(way_out, but=())
            is_done = isinstance(killed.outcome, FailoverRecord)
        finally:
            world.scheduler.end()
    assert kill_at > 50


@pytest.mark.parametrize("agents_finish", [True, False])
@pytest.mark.parametrize("mode", [Mode.GRACEFUL, Mode.FORCED])
def test_an_agent_finishes_a_failover_that_was_killed_after_promote(mode: Mode, agents_finish: bool) -> None:
    """
    The caller is killed at every call, and no other caller comes. If agents do not finish plans, the plan stays open.
    """
    kill_at, promoted, is_done = 0, 0, False
    while not is_done:
        kill_at += 1
        world = calm_world()
        world.agents_finish = agents_finish
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
                world.assert_steady(B, but=())
                assert world.store.find_all(RECORDS)[0].steps[-1].name == "finish"
            else:
                assert (world.state.phase in {Phase.PROMOTING, Phase.RESUMING}) == was_left
        finally:
            world.scheduler.end()
    assert promoted > 20


def test_a_dead_scheduler_does_not_keep_an_abandoned_plan_open() -> None:
    """
    Its heartbeat is still stored. The agent that finishes the plan waits until that scheduler's view cannot close a
    run.
    """
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
                world.assert_steady(B, but=())
        finally:
            world.scheduler.end()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + HISTORIES))
def test_after_any_history_one_call_restores_the_set(seed: int) -> None:
    """One region is active and STEADY, exactly the wanted set runs in it, and no rule was broken on the way."""
    run_history(seed)
