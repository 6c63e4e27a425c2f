"""Sends notifications in the background of a process that works on a failover."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.notifications.delivery import Channel, deliver
from airflow_provider_mwaa_dr.core.notifications.events import Notification, due
from airflow_provider_mwaa_dr.core.ports import RECORDS, Clock, StateStore

log = get_logger(__name__)

CLOSE_S = 5.0
"""How long a process that ends waits for its last notifications. The agents send those that are left."""


class Courier:
    """
    Sends what is due in one thread for each channel. No method raises, and only :meth:`close` waits.

    A channel that does not answer delays only its own notifications. Without channels, it does nothing.

    :param store: used by the threads, beside the caller.
    :param owner: the name of this process, unique in the DR set.
    """

    def __init__(self, store: StateStore, channels: Sequence[Channel], clock: Clock, *, owner: str) -> None:
        self._clock = clock
        self._workers = [_Worker(store, channel, clock, owner) for channel in channels]

    def look(self) -> None:
        """Send what has become due. Call it after each change of a plan."""
        for worker in self._workers:
            worker.wake()

    def tell(self, notification: Notification) -> None:
        """Send a notification that state and records do not show."""
        for worker in self._workers:
            worker.wake(notification)

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Try once more what could not be sent, and wait for it, for *wait_s* at most."""
        deadline = self._clock.monotonic() + wait_s
        for worker in self._workers:
            if not worker.has_sent_all:
                worker.wake()
        for worker in self._workers:
            worker.join(max(0.0, deadline - self._clock.monotonic()))


class _Worker:
    """The thread of one channel. It runs only while there is something to do."""

    def __init__(self, store: StateStore, channel: Channel, clock: Clock, owner: str) -> None:
        self._store = store
        self._channel = channel
        self._clock = clock
        self._owner = owner
        self._lock = threading.Lock()
        self._is_awake = False
        self._told: list[Notification] = []
        self._thread: threading.Thread | None = None
        self.has_sent_all = True

    def wake(self, *told: Notification) -> None:
        with self._lock:
            self._is_awake = True
            self._told += told
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mwaa-dr-notifications", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the process can start no thread; the agents send it
                    self._thread = None

    def join(self, wait_s: float) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(wait_s)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._is_awake:
                    self._thread = None
                    return
                self._is_awake, told = False, list(self._told)
            try:
                self.has_sent_all = self._turn(told)
            except Exception as error:  # the agents send what this process cannot
                self.has_sent_all = False
                with suppress(Exception):  # a handler of the log may raise, too
                    log.warning("Notifications to %s could not be sent: %s", self._channel.name, error)

    def _turn(self, told: Sequence[Notification]) -> bool:
        state, records = self._store.read(), self._store.find_all(RECORDS)
        # How long the state has not changed is for the agents to see: this process works on the plan.
        found = due(state, records, now=self._clock.now(), patience_s=float("inf"))
        return deliver(self._store, self._channel, [*found, *told], self._clock, owner=self._owner)
