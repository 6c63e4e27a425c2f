"""The state table for an engine: reads and conditional writes, with retries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from airflow_provider_mwaa_dr.core.heartbeats import SilenceByNumber
from airflow_provider_mwaa_dr.core.ports import AgentStatus, Clock, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Plan
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import (
    StaleStateError,
    StateAccessError,
    StateError,
    StateUnreachableError,
    UnreadableItemError,
)

T = TypeVar("T")


class StateTable:
    """
    The state table as an engine uses it: reads are retried, and a lost response of a write is found by reading.

    :ivar written_at: the time of the last write, on this process's clock.
    :ivar silence: for how long the heartbeats that the engine has read have been silent.
    :ivar is_plan_open: whether this engine works on an open plan; see :meth:`may_be_temporary`.
    """

    def __init__(self, store: StateStore, clock: Clock, timing: Timing) -> None:
        self.store = store
        self._clock = clock
        self._timing = timing
        self.written_at = clock.monotonic()
        self.silence = SilenceByNumber(clock)
        self.is_plan_open = False

    def read(self) -> DRState:
        """Return the state."""
        return self.retry(self.store.read)

    def agents(self, region: str) -> Sequence[AgentStatus]:
        """Return the last heartbeats of the agents of *region*."""
        found = self.retry(lambda: self.store.agents(region))
        self.silence.note(region, found)
        return found

    def retry(self, call: Callable[[], T]) -> T:
        """Return the result of an idempotent *call* to the table; retry for ``state_s`` while no replica answers."""
        deadline = self._clock.monotonic() + self._timing.state_s
        while True:
            try:
                return call()
            except (StateUnreachableError, StateAccessError) as error:
                if not self.may_be_temporary(error) or self._clock.monotonic() >= deadline:
                    raise
            self._clock.sleep(self._timing.poll_s)

    def may_be_temporary(self, error: StateError) -> bool:
        """
        Whether to retry: no replica answered, or access was denied while a plan is open.

        Before the claim, missing rights are reported immediately. After it, the engine retries: expired credentials are
        renewed within seconds, and an engine that stops may leave both regions without work.
        """
        return isinstance(error, StateUnreachableError) or self.is_plan_open

    def set_if_readable(self, read: Callable[[], T | None]) -> tuple[T | None, str]:
        """Return a set; or None and the reason if the stored set cannot be read. The failover continues without it."""
        try:
            return self.retry(read), ""
        except UnreadableItemError as error:
            return None, error.message.rstrip(".")

    def put(self, state: DRState, expected_version: int) -> None:
        """
        Write the state. If the response is lost, read the state, so that the engine does not repeat its own step.

        :raises StaleStateError: another process has written, before this write or after it.
        :raises StateUnreachableError: the state has not changed so far.
        """
        try:
            self.store.write(state, expected_version=expected_version)
        except StateUnreachableError:
            found = self.read()
            if _identity(found) != _identity(state):
                if found.version != expected_version:
                    raise StaleStateError(expected_version, found) from None
                raise
        self.written_at = self._clock.monotonic()


def plan_of(state: DRState) -> Plan:
    """Return the plan of a state that has one, because of its phase."""
    assert state.plan is not None  # noqa: S101  (callers have checked the phase)
    return state.plan


def _identity(state: DRState) -> tuple[object, ...]:
    """Return what identifies a write among others of the same version; only this engine writes as the plan's owner."""
    plan = state.plan
    return state.version, state.epoch, state.phase, plan and (plan.id, plan.owner)
