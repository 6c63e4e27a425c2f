"""How long a failover waits for a region that is silent: its silence before the claim counts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from airflow_provider_mwaa_dr.core.failover import StepEvent, StepStatus
from airflow_provider_mwaa_dr.core.heartbeats import SilenceByNumber
from airflow_provider_mwaa_dr.core.lease import Closing, lease_wait_s, longest_lease_s, silent_until
from airflow_provider_mwaa_dr.core.ports import AgentStatus, SilentAgent
from airflow_provider_mwaa_dr.core.state import Mode
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.unit.core.dr_set import TIMING, A, B, World, request
from tests.unit.core.test_lease import agent

WAIT_S = lease_wait_s(60.0, 2.0)
FENCE_S = 3.3


@pytest.fixture
def world() -> World:
    return World.build()


class Observers:
    """The agents of B observe the heartbeats of all regions once a second, and report the silent ones."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._silence = SilenceByNumber(world.clock)
        for region in (A, B):
            world.agents[region].changes["life"] = f"life of {region}"
        self._turn()

    def _turn(self) -> None:
        self._world.clock.after(1, self._turn)
        for region in (A, B):
            self._silence.note(region, self._world.store.agents(region))
        self._world.agents[B].changes["silent"] = self._silence.silent(1)


def seconds_to_promote(world: World) -> float:
    """Fail over to B, forced, and return the seconds from the claim to the promotion."""
    done: dict[str, float] = {}

    def note(event: StepEvent) -> None:
        if event.status is StepStatus.DONE:
            done.setdefault(event.name, world.clock.monotonic())

    world.engine(on_step=note).run(request(mode=Mode.FORCED))
    return done["promote"] - done["claim"]


def test_a_region_that_was_silent_for_a_lease_is_waited_for_only_until_its_fence_is_closed(world: World) -> None:
    """It has been dead for two minutes: 1.1 times ``fence_file_s``, in place of 1.1 times the lease and a commit."""
    Observers(world)
    world.clock.advance(3)
    world.agents[A].alive = False
    world.clock.advance(120)
    assert seconds_to_promote(world) == pytest.approx(FENCE_S, abs=0.1)


def test_the_lease_of_a_region_that_died_ten_seconds_ago_is_counted_from_its_death(world: World) -> None:
    """The rest of the wait begins with the last heartbeat, as far as the observers could see it."""
    Observers(world)
    world.clock.advance(3)
    world.agents[A].alive = False
    world.clock.advance(10)
    waited = seconds_to_promote(world)
    # The observers, the check of the target and the polls of the engine each take up to a second.
    assert 10 + waited == pytest.approx(lease_wait_s(60.0, TIMING.gate_commit_s), abs=2.5)


def test_the_wait_for_agents_of_the_version_before_stays_the_whole_lease(world: World) -> None:
    """Their permission to start runs depends on reads, so their silence proves nothing."""
    Observers(world)
    world.agents[A].changes["life"] = None
    world.clock.advance(3)
    world.agents[A].alive = False
    world.clock.advance(120)
    assert seconds_to_promote(world) == pytest.approx(lease_wait_s(60.0, TIMING.gate_commit_s), abs=1.5)


def test_without_reports_the_wait_stays_the_whole_lease(world: World) -> None:
    """No agent has observed the region."""
    world.agents[A].changes["life"] = "a"
    world.clock.advance(3)
    world.agents[A].alive = False
    world.clock.advance(120)
    assert seconds_to_promote(world) == pytest.approx(lease_wait_s(60.0, TIMING.gate_commit_s), abs=1.5)


def test_a_scheduler_that_died_long_ago_does_not_delay_a_planned_failover(world: World) -> None:
    """The live schedulers acknowledge; the silence of the dead one replaces its acknowledgement."""
    source = world.agents[A]
    source.jobs = ("1", "2")
    Observers(world)
    world.clock.advance(3)
    source.jobs = ("1",)
    world.clock.advance(120)
    began = world.clock.monotonic()
    world.fail_over()
    assert world.clock.monotonic() - began < WAIT_S / 2


# The arithmetic.


def silent(job: str, number: str, still_s: float) -> SilentAgent:
    return SilentAgent(region="us-east-2", job=job, number=number, still_s=still_s)


def closing(
    agents: Sequence[AgentStatus], *reports: SilentAgent, since: float = 100.0, read_at: float = 101.0
) -> Closing:
    """Return the closing of an engine that claimed at *since*, and read reports and *agents* at *read_at*."""
    return Closing(
        version=5, gate_since=since, fence_since=since, lease_s=60.0, gate_commit_s=2.0,
        silent_until=silent_until(agents, reports, now=read_at, wait_s=WAIT_S),
    )  # fmt: skip


def test_the_rest_is_counted_from_the_reads() -> None:
    """The silence between claim and reads is part of the reported silence, and must not count twice."""
    agents = [agent("1", 4, listed=("1",), life="a", attempt=7)]
    assert closing(agents, silent("1", "a-7", 20.0), read_at=110.0).gate_closed_at(agents) == 110.0 + WAIT_S - 20.0
    assert closing(agents, silent("1", "a-7", 500.0), read_at=110.0).gate_closed_at(agents) == 110.0


def test_a_silence_that_began_after_the_claim_is_no_longer_wait() -> None:
    """An engine that has first read a heartbeat after its claim waits for the lease since the claim, as without it."""
    agents = [agent("1", 4, listed=("1",), life="a", attempt=7)]
    assert closing(agents, silent("1", "a-7", 0.5), read_at=105.0).gate_closed_at(agents) == 100.0 + WAIT_S


@pytest.mark.parametrize(
    "number", ["a-6", "a-8", "b-7"], ids=["an earlier number", "a later number", "the number of another agent"]
)
def test_silence_of_another_number_does_not_count(number: str) -> None:
    """The agent has sent a heartbeat since, or before, and may have permission from it."""
    agents = [agent("1", 4, listed=("1",), life="a", attempt=7)]
    assert closing(agents, silent("1", number, 500.0)).gate_closed_at(agents) == 100.0 + WAIT_S


def test_every_scheduler_counts_and_the_longest_report_of_each() -> None:
    """One scheduler that is not silent delays the promotion for all."""
    agents = [agent("1", 4, life="a", attempt=7), agent("2", 4, life="b", attempt=1)]
    reports = [silent("1", "a-7", 3.0), silent("1", "a-7", 500.0), silent("2", "b-1", 30.0)]
    assert closing(agents, *reports).gate_closed_at(agents) == 101.0 + WAIT_S - 30.0
    assert closing(agents, *reports[:2]).gate_closed_at(agents) == 100.0 + WAIT_S


def test_later_reads_add_acknowledgements_only() -> None:
    """A scheduler that sends another heartbeat after the reads has read the claim before, or is silent as reported."""
    agents = [agent("1", 4, life="a", attempt=7), agent("2", 4, life="b", attempt=1)]
    counted = closing(agents, silent("1", "a-7", 30.0), silent("2", "b-1", 500.0))
    assert counted.gate_closed_at([agent("1", 5, life="a", attempt=8), agents[1]]) == 101.0
    assert counted.gate_closed_at([agents[1]]) == 101.0 + WAIT_S - 30.0


def test_a_scheduler_that_its_database_lists_and_that_has_no_heartbeat_is_waited_for() -> None:
    """Its agent may be of an earlier version, which starts runs before its first heartbeat."""
    agents = [agent("1", 4, listed=("1", "2"), life="a", attempt=7)]
    assert closing(agents, silent("1", "a-7", 500.0)).gate_closed_at(agents) == 100.0 + WAIT_S


def test_schedulers_that_ended_long_ago_are_not_waited_for() -> None:
    """All have ended. Their silence shows that none of them runs; a region without heartbeats is waited for."""
    agents = [agent("1", 4, listed=(), life="a", attempt=7, gone=True)]
    assert closing(agents, silent("1", "a-7", 500.0)).gate_closed_at(agents) == 101.0
    assert closing(agents).gate_closed_at(agents) == 100.0 + WAIT_S
    assert closing([]).gate_closed_at([]) == 100.0 + WAIT_S


def test_the_longest_published_lease_counts() -> None:
    """A user has changed the lease in the state item, and an agent has not read it yet."""
    assert longest_lease_s(20.0, [agent("1", 4, lease_s=60.0), agent("2", 4)]) == 60.0
    assert longest_lease_s(90.0, [agent("1", 4, lease_s=60.0)]) == 90.0


def test_silence_begins_with_the_first_read_of_a_number() -> None:
    """Another number begins it again, and so does an item that is not listed in between."""
    clock = ManualClock()
    observed = SilenceByNumber(clock)
    observed.note("us-east-2", [agent("1", 4, life="a", attempt=7), agent("2", 4)])
    clock.advance(30)
    assert observed.silent(10) == (silent("1", "a-7", 30.0),)
    observed.note("us-east-2", [agent("1", 4, life="a", attempt=8)])
    assert observed.silent(10) == ()
    clock.advance(10)
    assert observed.silent(10) == (silent("1", "a-8", 10.0),)
    observed.note("us-east-2", [])
    observed.note("us-east-2", [agent("1", 4, life="a", attempt=8)])
    assert observed.silent(10) == ()
