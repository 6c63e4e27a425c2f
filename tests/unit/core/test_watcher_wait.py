"""The drain's wait for asset watchers, with the engine and fakes."""

from __future__ import annotations

from datetime import datetime

import pytest

from airflow_provider_mwaa_dr.core.failover import StepEvent
from airflow_provider_mwaa_dr.core.ports import RECORDS, TRIGGERERS, TriggererStatus
from tests.unit.core.dr_set import TIMING, A, World, request

RUNS_WATCHERS = {"watchers": 2, "triggerers": ("31", "32")}


@pytest.fixture
def world() -> World:
    return World.build()


def publish(world: World, job: str, version: int) -> None:
    at: datetime = world.clock.now()
    status = TriggererStatus(region=A, job=job, at=at, version=version, watchers=2, provider_version="1")
    world.store.put(TRIGGERERS, status)


def drain_of(world: World) -> tuple[float, str]:
    """Return how long the drain took, and its outcome."""
    return next((step.seconds, step.detail) for step in world.store.find_all(RECORDS)[0].steps if step.name == "drain")


def test_a_drain_waits_until_each_triggerer_has_stopped_its_watchers(world: World) -> None:
    """A message that a watcher takes after the final ledger entry would have no run in any region."""
    world.agents[A].changes = dict(RUNS_WATCHERS)
    publish(world, "31", 1)
    publish(world, "32", 1)

    def stop(job: str) -> None:
        assert "set_paused" not in [call[0] for call in world.environments[A].calls]
        publish(world, job, world.state.version)

    world.clock.after(15, lambda: stop("31"))
    world.clock.after(25, lambda: stop("32"))
    shown: list[str] = []

    def note(event: StepEvent) -> None:
        shown.append(event.detail)

    world.engine(on_step=note).run(request())
    seconds, detail = drain_of(world)
    assert seconds >= 24
    assert "watchers" not in detail
    assert f"waiting for triggerers of {A} to stop asset watchers: job 31, 32" in shown
    assert f"waiting for triggerers of {A} to stop asset watchers: job 32" in shown


def test_a_triggerer_that_stops_nothing_delays_a_failover_for_one_lease(world: World) -> None:
    """It does not load the provider, or it hangs. The record names it."""
    world.agents[A].changes = dict(RUNS_WATCHERS)
    publish(world, "31", 99)
    world.fail_over()
    seconds, detail = drain_of(world)
    assert world.state.lease_s <= seconds <= 1.1 * world.state.lease_s + 2 * TIMING.gate_commit_s + 2
    assert "1 triggerer of us-east-2 may still run asset watchers (job 32), whose messages are lost" in detail


@pytest.mark.parametrize("found", [{}, {"watchers": 0, "triggerers": ("31",)}, {"watchers": 2, "triggerers": ()}])
def test_a_region_without_watchers_or_triggerers_waits_for_none(world: World, found: dict[str, object]) -> None:
    """Also agents of an earlier version, which report none."""
    world.agents[A].changes = dict(found)
    world.fail_over()
    assert drain_of(world)[0] < 10
