"""The agents send the notifications that no caller has sent."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.notifier import (
    CALLER_FIRST_S,
    LOOK_AT_MOST_EVERY_S,
    LOOK_EVERY_S,
    LOOK_FOR_S,
    PROCESS_S,
    NotificationKeeper,
)
from airflow_provider_mwaa_dr.core.config import parse_config
from airflow_provider_mwaa_dr.core.notifications import Notification, deliver, due
from airflow_provider_mwaa_dr.core.ports import RECORDS
from airflow_provider_mwaa_dr.core.state import Phase, Stage, initial
from airflow_provider_mwaa_dr.plugins.send_notifications import send
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.unit.agent.test_loop import HERE, THERE, Region
from tests.unit.core.dr_set import A, B, World, request

TOPIC = "arn:aws:sns:us-west-2:123456789012:mwaa-dr"


class Topic:
    """A channel that may refuse."""

    name = TOPIC

    def __init__(self) -> None:
        self.got: list[str] = []
        self.refuses = False

    def send(self, notification: Notification) -> None:
        if self.refuses:
            raise RuntimeError("no right")
        self.got.append(notification.event.value)


class Process:
    """A process that has ended, or hangs."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        self.is_killed = False

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.is_killed, self.code = True, -9


class Agents:
    """The leading agents of both regions, and the processes that they start."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topic = Topic()
        self.started: list[Process] = []
        self.hangs = False
        self.config = parse_config({"region": A, "state_table": "t", "notification_topic": TOPIC})
        self.keepers = [
            NotificationKeeper(world.store.peer(), world.clock, self.config, start=self.start) for _ in (A, B)
        ]

    def start(self, still_s: float, version: int) -> Process:
        store = self.world.store.peer()
        code = (
            None
            if self.hangs
            else send(self.config, store, [self.topic], self.world.clock, still_s=still_s, version=version)
        )
        self.started.append(Process(code))
        return self.started[-1]

    def live(self, seconds: float) -> None:
        """Let both agents make a turn every five seconds."""
        for _ in range(0, int(seconds), 5):
            self.world.clock.advance(5)
            for keeper in self.keepers:
                keeper.turn(self.world.state)


@pytest.fixture
def world() -> World:
    return World.build()


@pytest.fixture
def agents(world: World) -> Agents:
    agents = Agents(world)
    agents.live(LOOK_FOR_S + CALLER_FIRST_S + LOOK_EVERY_S + 1)
    return agents


def test_they_send_what_a_caller_without_a_channel_has_not_sent(world: World, agents: Agents) -> None:
    """Each once, although two agents look. They leave the caller some seconds."""
    world.fail_over(B)
    agents.live(CALLER_FIRST_S)
    assert agents.topic.got == []
    agents.live(LOOK_EVERY_S)
    assert agents.topic.got == ["started", "completed"]
    agents.live(600)
    assert agents.topic.got == ["started", "completed"]
    assert len(agents.started) == 1


def test_they_start_no_process_if_the_caller_has_sent_all(world: World, agents: Agents) -> None:
    """A process imports Airflow, which takes seconds of the scheduler's cores."""
    world.fail_over(B)
    found = due(world.state, world.store.find_all(RECORDS), now=world.clock.now(), patience_s=60)
    assert deliver(world.store.peer(), agents.topic, found, world.clock, owner="caller")
    agents.live(600)
    assert agents.started == []


def test_they_rest_while_nothing_happens(world: World, agents: Agents) -> None:
    """Steady agents do not read the records again and again."""
    before = world.store.calls.count("find_all record")
    for keeper in agents.keepers:
        keeper._store = world.store
    agents.live(1800)
    assert world.store.calls.count("find_all record") == before


def test_a_topic_that_refuses_gets_fewer_and_fewer_attempts(world: World, agents: Agents) -> None:
    """Until a user has corrected it; then the notifications arrive."""
    agents.topic.refuses = True
    world.fail_over(B)
    agents.live(1800)
    assert 5 < len(agents.started) < 1800 / LOOK_AT_MOST_EVERY_S * 2 + 15
    agents.topic.refuses = False
    agents.live(LOOK_AT_MOST_EVERY_S)
    assert agents.topic.got == ["started", "completed"]


def test_a_process_that_hangs_is_ended(world: World, agents: Agents) -> None:
    """Until then the agent starts no second one."""
    agents.hangs = True
    world.fail_over(B)
    agents.live(CALLER_FIRST_S + LOOK_EVERY_S)
    assert [each.is_killed for each in agents.started] == [False, False]
    agents.hangs = False
    agents.live(PROCESS_S + LOOK_EVERY_S)
    assert [each.is_killed for each in agents.started[:2]] == [True, True]
    assert agents.topic.got == ["started", "completed"]


def test_they_report_a_halted_failover_and_one_whose_caller_died(world: World, agents: Agents) -> None:
    """Only agents see these. Each is sent once for a plan."""
    world.engine().run(request(B, until=Stage.DRAINED, hold_s=100))
    agents.live(100)
    assert agents.topic.got == ["started"]
    agents.live(LOOK_AT_MOST_EVERY_S)
    assert agents.topic.got == ["started", "halted"]
    agents.live(600)
    assert agents.topic.got == ["started", "halted"]

    class KilledError(BaseException):
        """A SIGKILL."""

    def die(event: object) -> None:
        if getattr(event, "name", "") == "drain":
            raise KilledError

    world.engine().run(request(A))  # cancels
    with pytest.raises(KilledError):
        world.engine("engine-2", die).run(request(B))
    assert world.state.phase is Phase.DRAINING
    agents.live(600)
    assert agents.topic.got[2:] == ["aborted", "completed", "started", "stopped"]


def test_nothing_is_read_without_a_channel(world: World) -> None:
    """Most users set none."""
    keeper = NotificationKeeper(world.store, world.clock, parse_config({"state_table": "t"}), start=None)  # type: ignore[arg-type]
    before = len(world.store.calls)
    for _ in range(60):
        world.clock.advance(5)
        keeper.turn(world.state)
    assert len(world.store.calls) == before


def test_the_leading_agent_of_a_scheduler_starts_the_process() -> None:
    """Only a change of the plan makes it look."""
    started: list[float] = []

    def start(still_s: float, version: int) -> Process:
        started.append(still_s)
        return Process(0)

    region = Region(initial(THERE, lease_s=60, by="t", at=ManualClock().now()), notification_topic=TOPIC)
    region.loop = AgentLoop(
        config=region.config, store=region.store, db=region.db, clock=region.clock,  # type: ignore[arg-type]
        counts=region.counts, airflow_version="3", start_sender=start,
    )  # fmt: skip
    region.turn(3)
    assert started == []
    region.flip(HERE, Phase.PROMOTING)
    region.turn(40)
    assert started
