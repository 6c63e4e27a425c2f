"""The alarm about a halted failover that no caller continues."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.overdue_halt import overdue_halt
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.state import DRState

log = get_logger(__name__)

REPEAT_S = 60.0
"""Seconds between two alarms about the same plan."""


class HoldAlarm:
    """
    Reports, again and again, that a plan has been halted at *drained* for longer than its caller allowed.

    :ivar count: the number of alarms so far, for metrics.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._plan_id = ""
        self._alarmed_at = 0.0
        self.count = 0

    def turn(self, state: DRState, still_s: float) -> None:
        """
        Report the plan in *state*, if it is time for it. Only the region's leading agent calls this.

        :param still_s: for how long the state has not changed, on this process's clock.
        """
        problem, now = overdue_halt(state, still_s), self._clock.monotonic()
        if problem is None or state.plan is None:
            self._plan_id = ""
            return
        if self._plan_id == state.plan.id and now - self._alarmed_at < REPEAT_S:
            return
        self._plan_id, self._alarmed_at = state.plan.id, now
        self.count += 1
        log.error("%s", problem)
