"""
The delivery of notifications over one channel.

Before a process sends a notification, it stores its attempt in an item with compare-and-set. So of several processes,
one sends. If that process dies before it stores the result, another one sends the notification after
:data:`LOST_AFTER`. So each notification is sent at least once; and once, where no process dies.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.notifications.events import Notification
from airflow_provider_mwaa_dr.core.ports import NOTIFICATIONS, Clock, NotificationAttempt, StateStore
from airflow_provider_mwaa_dr.exceptions import UnreadableItemError

log = get_logger(__name__)

LOST_AFTER = timedelta(seconds=60)
"""An attempt without a result counts as lost after this time. Clocks of two machines may differ by less."""


class Channel(Protocol):
    """A way to send notifications: an SNS topic, an event bus, or an Airflow notifier."""

    @property
    def name(self) -> str:
        """The name of the channel, unique in a DR set and the same in all its processes."""

    def send(self, notification: Notification) -> None:
        """
        Send one notification. May raise any ``Exception``, and takes less than :data:`LOST_AFTER`.

        After an error, another attempt follows, and the first one may have been sent.
        """


def deliver(
    store: StateStore, channel: Channel, notifications: Sequence[Notification], clock: Clock, *, owner: str
) -> bool:
    """
    Send those of *notifications* that no process has sent over *channel*, and that no other process is sending.

    :param owner: the name of this process, unique in the DR set.
    :return: whether all of them are sent. False: call it again later.
    :raises StateError: the table did not answer.
    """
    sent = [_deliver(store, channel, each, clock, owner) for each in notifications]
    return all(sent)


def open_notifications(
    store: StateStore, channels: Collection[str], notifications: Sequence[Notification], now: datetime
) -> bool:
    """
    Return whether a process should send one of *notifications* now over one of *channels* (names).

    :raises StateError: the table did not answer.
    """
    return any(
        (found := _attempt(store, each, channel)) is None or (found.sent_at is None and _is_over(found, now))
        for each in notifications
        for channel in channels
    )


def _deliver(store: StateStore, channel: Channel, notification: Notification, clock: Clock, owner: str) -> bool:
    found = _attempt(store, notification, channel.name)
    if found is not None and found.sent_at is not None:
        return True
    if found is not None and not _is_over(found, clock.now()):
        return False
    mine = NotificationAttempt(
        plan_id=notification.plan_id,
        event=notification.event.value,
        channel=channel.name,
        owner=owner,
        attempt=1 if found is None else found.attempt + 1,
        at=clock.now(),
    )
    store.put(NOTIFICATIONS, mine)
    claimed = store.get(NOTIFICATIONS, mine.id)
    if claimed is None or (claimed.owner, claimed.attempt) != (owner, mine.attempt):
        return False
    try:
        channel.send(notification)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        log.warning(
            "The notification %s of failover %s could not be sent to %s (attempt %d): %s",
            notification.event.value,
            notification.plan_id,
            channel.name,
            mine.attempt,
            why,
        )
        store.put(NOTIFICATIONS, replace(mine, error=why))
        return False
    store.put(NOTIFICATIONS, replace(mine, sent_at=clock.now()))
    return True


def _attempt(store: StateStore, notification: Notification, channel: str) -> NotificationAttempt | None:
    key = NotificationAttempt.id_of(notification.plan_id, notification.event.value, channel)
    try:
        return store.get(NOTIFICATIONS, key)
    except UnreadableItemError:
        return None  # changed by hand; it is written again


def _is_over(attempt: NotificationAttempt, now: datetime) -> bool:
    """Whether an attempt without success has failed, or is lost."""
    return attempt.error is not None or now - attempt.at > LOST_AFTER
