"""Which notifications a failover sends: what each ending of an engine calls for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import StepEvent
from airflow_provider_mwaa_dr.core.notifications import Courier, Notification, due
from airflow_provider_mwaa_dr.core.notifications.events import KEPT, SUBJECT_CHARS
from airflow_provider_mwaa_dr.core.ports import RECORDS
from airflow_provider_mwaa_dr.core.state import Mode, Stage
from airflow_provider_mwaa_dr.exceptions import DrainTimeoutError, FailoverError, PlanSupersededError
from tests.unit.core.dr_set import A, B, C, World, request

WAIT_S = 30.0
"""A deadline for a thread, far above what it needs."""


class Inbox:
    """A channel that keeps what it gets."""

    name = "inbox"

    def __init__(self) -> None:
        self.got: list[Notification] = []

    def send(self, notification: Notification) -> None:
        self.got.append(notification)

    @property
    def keys(self) -> list[tuple[str, str, str]]:
        """Source, target and event of each, in the order of their arrival."""
        return [(each.source, each.target, each.event.value) for each in self.got]


@pytest.fixture
def world() -> World:
    return World.build()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def courier(world: World, inbox: Inbox) -> Iterator[Courier]:
    """A courier of the tests' engines."""
    courier = Courier(world.store.peer(), [inbox], world.clock, owner="engine-1")
    yield courier
    courier.close(WAIT_S)


def test_a_failover_and_a_failback_send_their_start_and_their_end(world: World, courier: Courier, inbox: Inbox) -> None:
    """Each once, with the plan's id."""
    records = [world.engine(courier=courier).run(request(target)) for target in (B, A)]
    courier.close(WAIT_S)
    assert inbox.keys == [(A, B, "started"), (A, B, "completed"), (B, A, "started"), (B, A, "completed")]
    assert [each.plan_id for each in inbox.got] == [record.id for record in records for _ in range(2)]
    assert not any(each.needs_person for each in inbox.got)
    assert [each.epoch for each in inbox.got if each.event.value == "completed"] == [1, 2]


def test_a_forced_failover_says_so(world: World, courier: Courier, inbox: Inbox) -> None:
    """The source does not answer, and the notifications name the mode."""
    world.environments[A].unreachable = True
    world.engine(courier=courier).run(request(B, mode=Mode.FORCED))
    courier.close(WAIT_S)
    assert [(each.event.value, each.mode) for each in inbox.got] == [("started", "forced"), ("completed", "forced")]


def test_an_abandoned_failover_is_aborted_and_its_region_continues(
    world: World, courier: Courier, inbox: Inbox
) -> None:
    """Runs outlast the drain. The cancellation that follows has an end, and no start of its own."""
    world.environments[A].add_run("dag_01", "r1", seconds=600)
    with pytest.raises(DrainTimeoutError):
        world.engine(courier=courier).run(request(B))
    courier.close(WAIT_S)
    assert inbox.keys == [(A, B, "started"), (A, B, "aborted"), (A, A, "completed")]


def test_a_cancelled_failover_is_aborted(world: World, courier: Courier, inbox: Inbox) -> None:
    """A user names the region that is still active."""
    world.engine(courier=courier).run(request(B, until=Stage.DRAINED))
    world.engine("second", courier=courier).run(request(A))
    courier.close(WAIT_S)
    assert inbox.keys == [(A, B, "started"), (A, B, "aborted"), (A, A, "completed")]


def test_a_superseded_failover_is_aborted(world: World, courier: Courier, inbox: Inbox) -> None:
    """The other plan has its own start and end, and the first engine sends nothing more."""

    def supersede(event: StepEvent) -> None:
        if (event.name, event.status) == ("drain", "started"):
            world.engine("second", lambda _: None, courier=courier).run(request(C))

    with pytest.raises(PlanSupersededError):
        world.engine("first", supersede, courier=courier).run(request(B))
    courier.close(WAIT_S)
    assert sorted(inbox.keys) == sorted([(A, B, "started"), (A, B, "aborted"), (A, C, "started"), (A, C, "completed")])


def test_an_engine_that_stops_says_that_a_person_is_needed(world: World, courier: Courier, inbox: Inbox) -> None:
    """The plan stays open. The text names the step, the error and both commands."""
    world.agents[B].changes["adopted_epoch"] = 0
    with pytest.raises(FailoverError, match="adopt") as caught:
        world.engine(courier=courier).run(request(B))
    courier.close(WAIT_S)
    assert inbox.keys == [(A, B, "started"), (A, B, "stopped")]
    told = inbox.got[-1]
    assert told.needs_person
    assert caught.value.message in told.message
    assert f"mwaa-dr failover {A}" in told.message
    assert told.subject == f"MWAA DR: failover {A} -> {B} needs a person"


def test_dags_that_could_not_be_unpaused_need_a_person(world: World, courier: Courier, inbox: Inbox) -> None:
    """The failover completes, and the notification names the DAG count."""
    world.environments[B].remove_dag("dag_01")
    world.engine(courier=courier).run(request(B))
    courier.close(WAIT_S)
    told = inbox.got[-1]
    assert (told.event.value, told.needs_person) == ("completed", True)
    assert "Unpause by hand: 1 DAG," in told.message
    assert told.subject.endswith("completed, needs a person")


def test_a_failover_that_is_halted_for_too_long_needs_a_person(world: World) -> None:
    """Only the agents see that: the caller has ended."""
    world.engine().run(request(B, until=Stage.DRAINED, hold_s=100))
    records = world.store.find_all(RECORDS)
    found = due(world.state, records, now=world.clock.now(), still_s=100, patience_s=60)
    assert [each.event.value for each in found] == ["started"]
    found = due(world.state, records, now=world.clock.now(), still_s=101, patience_s=60)
    assert [(each.event.value, each.needs_person) for each in found] == [("started", False), ("halted", True)]


def test_a_plan_whose_caller_died_needs_a_person(world: World) -> None:
    """Nothing continues a drain. The plan has no record, because the caller died before it wrote one."""
    plan = transitions.Plan(
        id="p1", source=A, target=B, mode=Mode.AUTO, reason="r", by="ana", owner="gone", started_at=world.clock.now()
    )  # fmt: skip
    state = transitions.claim(world.state, plan, at=world.clock.now())
    found = due(state, [], now=world.clock.now(), still_s=60, patience_s=60)
    assert [each.event.value for each in found] == ["started"]
    found = due(state, [], now=world.clock.now(), still_s=61, patience_s=60)
    assert [each.event.value for each in found] == ["started", "stopped"]
    assert f"Or return to {A}: mwaa-dr failover {A} --reason TEXT." in found[-1].message


def test_events_of_the_day_before_are_not_sent(world: World) -> None:
    """An agent that starts after an upgrade, or after a topic was set, does not report old failovers."""
    world.engine().run(request(B))
    records, ended_at = world.store.find_all(RECORDS), world.clock.now()
    assert len(due(world.state, records, now=ended_at + KEPT - timedelta(minutes=5), patience_s=60)) == 2
    assert due(world.state, records, now=ended_at + KEPT + timedelta(seconds=1), patience_s=60) == []


def test_texts_of_users_cannot_break_a_subject(world: World) -> None:
    """SNS refuses a subject with a line break, with other characters than ASCII, or with more than 100."""
    record = world.engine().run(request(B))
    (told, *_) = due(None, [replace(record, target="é\n" * 80, reason="a\x1bb")], now=world.clock.now(), patience_s=60)
    assert told.subject.isascii()
    assert told.subject.isprintable()
    assert len(told.subject) <= SUBJECT_CHARS
    assert "\x1b" not in told.message
