"""
The agents' part in notifications: send what no caller has sent.

A caller may have died, may have no Airflow for the notifiers, or may not reach a topic. The leading agent of each
region looks what is to be sent, and starts a process that sends it: a notifier may hang, and imports modules while the
scheduler forks. That process is not part of any turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from airflow_provider_mwaa_dr.agent.stillness import Stillness
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.notifications import due, open_notifications
from airflow_provider_mwaa_dr.core.notifications.names import channel_names
from airflow_provider_mwaa_dr.core.ports import RECORDS, Clock, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.timing import Timing

log = get_logger(__name__)

CALLER_FIRST_S = 10.0
"""After a change of a plan, the agents leave its notifications to the caller for so long."""
LOOK_EVERY_S, LOOK_AT_MOST_EVERY_S = 15.0, 300.0
"""Time between two looks; it doubles while something cannot be sent."""
LOOK_FOR_S = 180.0
"""How long after the last change the agents look, unless something is still to be sent."""
PROCESS_S = 90.0
"""A process that sends for longer is ended."""


class SenderProcess(Protocol):
    """A process that sends the notifications that no process has sent, and ends."""

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""

    def kill(self) -> None:
        """End it."""


StartSender = Callable[[float, int], SenderProcess]
"""Starts the process, given for how many seconds which version of the state has not changed."""


class NotificationKeeper:
    """
    Starts a process that sends notifications, if something is to be sent and no process has sent it.

    :param start: starts the process.
    """

    def __init__(self, store: StateStore, clock: Clock, config: DRConfig, *, start: StartSender) -> None:
        self._store = store
        self._clock = clock
        self._channels = channel_names(config)
        self._start = start
        self._takeover_s = Timing.from_config(config).takeover_s
        self._stillness = Stillness(clock, gap_s=self._takeover_s / 2)
        self._seen: tuple[object, ...] | None = None
        self._changed_at = self._look_at = clock.monotonic()
        self._every_s = LOOK_EVERY_S
        self._process: SenderProcess | None = None
        self._started_at = 0.0

    def turn(self, state: DRState) -> None:
        """
        Look what is to be sent, if it is time for it. Only the region's leading agent calls this.

        :raises StateError: the table did not answer; a later turn looks again.
        """
        if not self._channels:
            return
        now, still_s = self._clock.monotonic(), self._stillness.seconds(state)
        seen = (state.epoch, state.phase, state.plan and (state.plan.id, state.plan.is_halted))
        if seen != self._seen:
            self._seen, self._changed_at, self._look_at = seen, now, now + CALLER_FIRST_S
            self._every_s = LOOK_EVERY_S
        if self._is_sending(now) or now < self._look_at:
            return
        self._look_at = now + self._every_s
        # The caller and the target's agent have had time to take the plan over.
        patience_s = stalled_after_s(self._takeover_s)
        found = due(state, self._store.find_all(RECORDS), now=self._clock.now(), still_s=still_s, patience_s=patience_s)
        if open_notifications(self._store, self._channels, found, self._clock.now()):
            self._every_s = min(2 * self._every_s, LOOK_AT_MOST_EVERY_S)
            self._process, self._started_at = self._start(still_s, state.version), now
        elif state.phase is Phase.STEADY and now - self._changed_at > LOOK_FOR_S:
            self._look_at = float("inf")
        else:
            self._every_s = LOOK_EVERY_S

    def _is_sending(self, now: float) -> bool:
        if self._process is None:
            return False
        if self._process.poll() is None:
            if now - self._started_at <= PROCESS_S:
                return True
            log.warning("The process that sends notifications took more than %.0f s, and was ended.", PROCESS_S)
            self._process.kill()
            self._process.poll()
        self._process = None
        return False


def stalled_after_s(takeover_s: float) -> float:
    """Return how many seconds a plan may not change before a notification says that no process works on it."""
    return 2 * takeover_s
