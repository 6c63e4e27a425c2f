"""The alarm about a halted failover that no caller continues."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.state import DRState, Phase

log = get_logger(__name__)

REPEAT_S = 60.0
"""Seconds between two alarms about the same plan."""


class HoldAlarm:
    """
    Reports, again and again, that a plan has been halted at *drained* for longer than its caller allowed.

    No component continues such a plan. The users' data may have been moved to the target or not, and only a person can
    find that out.

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
        plan, now = state.plan, self._clock.monotonic()
        if plan is None or plan.hold is None or state.phase is not Phase.DRAINING or still_s <= plan.hold_s:
            self._plan_id = ""
            return
        if self._plan_id == plan.id and now - self._alarmed_at < REPEAT_S:
            return
        self._plan_id, self._alarmed_at = plan.id, now
        self.count += 1
        log.error(
            "Failover %s (%s -> %s, epoch %d) has not continued to %s for %.0f s, and %.0f s were allowed. No region "
            "executes, and no component continues it. Find out whether your data has moved to %s. Then continue: "
            "mwaa-dr failover %s --reason TEXT. Or cancel: mwaa-dr failover %s --reason TEXT",
            plan.id, plan.source, plan.target, state.epoch, "the next stage" if plan.is_halted else plan.hold.value,
            still_s, plan.hold_s, plan.target, plan.target, plan.source,
        )  # fmt: skip
