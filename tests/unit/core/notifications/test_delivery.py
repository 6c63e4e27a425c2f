"""Each notification at least once; and exactly once, where no process dies."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.notifications import Notification, NotificationEvent, deliver, open_notifications
from airflow_provider_mwaa_dr.core.notifications.delivery import LOST_AFTER
from airflow_provider_mwaa_dr.core.ports import NOTIFICATIONS
from airflow_provider_mwaa_dr.exceptions import StateUnreachableError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock


def told(plan_id: str = "p1", event: NotificationEvent = NotificationEvent.STARTED) -> Notification:
    return Notification(
        plan_id=plan_id, event=event, source="us-east-2", target="us-east-1", mode="auto", reason="flood", by="ana",
        epoch=1, at=ManualClock().now(), detail="It began.", needs_person=False,
    )  # fmt: skip


class _DiedError(BaseException):
    """The process was killed."""


class Topic:
    """A channel. Before or after it accepts a notification, *fails* may raise."""

    name = "topic"

    def __init__(self) -> None:
        self.got: list[tuple[str, str]] = []
        self.before: BaseException | None = None
        self.after: BaseException | None = None

    def send(self, notification: Notification) -> None:
        if self.before is not None:
            raise self.before
        self.got.append((notification.plan_id, notification.event.value))
        if self.after is not None:
            raise self.after


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> InMemoryStateStore:
    return InMemoryStateStore()


@pytest.fixture
def topic() -> Topic:
    return Topic()


def test_a_notification_that_was_sent_is_not_sent_again(
    store: InMemoryStateStore, topic: Topic, clock: ManualClock
) -> None:
    """The same or another process looks again."""
    for owner in ("a", "a", "b"):
        assert deliver(store, topic, [told()], clock, owner=owner)
    assert topic.got == [("p1", "started")]
    assert not open_notifications(store, ["topic"], [told()], clock.now())


def test_a_process_leaves_what_another_one_is_sending(
    store: InMemoryStateStore, topic: Topic, clock: ManualClock
) -> None:
    """The first one is still waiting for the topic."""
    seen: list[Any] = []

    class Slow(Topic):
        def send(self, notification: Notification) -> None:
            seen.append(deliver(store, topic, [notification], clock, owner="b"))
            seen.append(open_notifications(store, ["topic"], [notification], clock.now()))
            super().send(notification)

    slow = Slow()
    assert deliver(store, slow, [told()], clock, owner="a")
    assert (seen, topic.got, slow.got) == ([False, False], [], [("p1", "started")])


def test_what_a_dead_process_was_sending_is_sent_by_another_one(
    store: InMemoryStateStore, topic: Topic, clock: ManualClock
) -> None:
    """The attempt of the dead one counts as lost after a minute."""
    topic.before = _DiedError()
    with pytest.raises(_DiedError):
        deliver(store, topic, [told()], clock, owner="a")
    topic.before = None
    assert not deliver(store, topic, [told()], clock, owner="b")
    assert topic.got == []
    clock.advance(LOST_AFTER.total_seconds() + 1)
    assert open_notifications(store, ["topic"], [told()], clock.now())
    assert deliver(store, topic, [told()], clock, owner="b")
    assert topic.got == [("p1", "started")]


def test_a_topic_that_refuses_gets_another_attempt_at_once(
    store: InMemoryStateStore, topic: Topic, clock: ManualClock
) -> None:
    """The error is stored, so that no process waits for the attempt."""
    topic.before = RuntimeError("no right\nto publish")
    assert not deliver(store, topic, [told()], clock, owner="a")
    stored = store.get(NOTIFICATIONS, "p1#started#topic")
    assert stored is not None
    assert (stored.error, stored.sent_at) == ("RuntimeError: no right to publish", None)
    topic.before = None
    assert deliver(store, topic, [told()], clock, owner="b")
    assert topic.got == [("p1", "started")]


def test_a_refused_notification_does_not_hold_back_the_others(store: InMemoryStateStore, clock: ManualClock) -> None:
    """Only one of two is refused."""

    class Picky(Topic):
        def send(self, notification: Notification) -> None:
            if notification.event is NotificationEvent.STARTED:
                raise RuntimeError("refused")
            super().send(notification)

    picky = Picky()
    found = [told(), told(event=NotificationEvent.COMPLETED)]
    assert not deliver(store, picky, found, clock, owner="a")
    assert picky.got == [("p1", "completed")]


def test_an_item_that_cannot_be_read_is_written_again(
    store: InMemoryStateStore, topic: Topic, clock: ManualClock
) -> None:
    """A user has edited it."""
    store.damage("NOTIFICATION#p1#started#topic")
    assert deliver(store, topic, [told()], clock, owner="a")
    assert topic.got == [("p1", "started")]
    assert not open_notifications(store, ["topic"], [told()], clock.now())


def test_each_notification_arrives_at_least_once_whatever_dies() -> None:
    """
    Processes die at any call of the table or the topic, the table fails, and others continue.

    Without a death and without a failure of the table, each notification arrives exactly once.
    """
    first = random.SystemRandom().randrange(10**9)
    for seed in (*KNOWN_SEEDS, *range(first, first + 300)):
        chance = random.Random(seed)
        kills = chance.random() < 0.7
        clock, store, topic = ManualClock(), InMemoryStateStore(), Topic()
        wanted = [told(plan, event) for plan in ("p1", "p2") for event in list(NotificationEvent)[:3]]
        for turn in range(chance.randint(1, 12)):
            process = _Mortal(store.peer(), topic, chance, kills=kills)
            found = chance.sample(wanted, chance.randint(1, len(wanted)))
            with suppress(_DiedError, StateUnreachableError):
                deliver(process, process, found, clock, owner=f"{turn}")  # type: ignore[arg-type]
            clock.advance(chance.choice([0, 1, 30, 61]))
        clock.advance(61)
        assert deliver(store, topic, wanted, clock, owner="last"), seed
        counts = Counter(topic.got)
        assert set(counts) == {(each.plan_id, each.event.value) for each in wanted}, seed
        assert kills or set(counts.values()) == {1}, seed


KNOWN_SEEDS = (1, 2, 3)


class _Mortal:
    """A process that may die before or after each of its calls, and whose table may fail."""

    name = "topic"

    def __init__(self, store: InMemoryStateStore, topic: Topic, chance: random.Random, *, kills: bool) -> None:
        self._store, self._topic, self._chance, self._kills = store, topic, chance, kills

    def _risk(self) -> None:
        if self._kills and self._chance.random() < 0.1:
            raise self._chance.choice([_DiedError(), StateUnreachableError("no answer")])

    def get(self, *args: Any) -> Any:
        self._risk()
        return self._store.get(*args)

    def put(self, *args: Any) -> None:
        self._risk()
        self._store.put(*args)
        self._risk()

    def send(self, notification: Notification) -> None:
        if self._kills and self._chance.random() < 0.1:
            raise _DiedError
        self._topic.send(notification)
        if self._kills and self._chance.random() < 0.1:
            raise _DiedError


def test_the_deadline_of_an_attempt_is_longer_than_each_sender_waits() -> None:
    """Otherwise another process would send what the first one is still sending."""
    from airflow_provider_mwaa_dr.plugins.send_notifications import SEND_S

    assert timedelta(seconds=SEND_S) < LOST_AFTER
