"""A caller's request for a failover."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.reasons import checked_reason
from airflow_provider_mwaa_dr.core.state import DEFAULT_HOLD_S, LONGEST_HOLD_S, Mode, Stage
from airflow_provider_mwaa_dr.exceptions import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverRequest:
    """
    A caller's request for a failover.

    :param target: the region to activate. The active region as target cancels a plan that has not promoted yet.
    :param reason: stored permanently in the state and in the record; 1 to 1,000 characters.
    :param by: the caller, for records and display.
    :param stop_running: stop runs that outlast the drain; without it, such runs end the failover, and the source stays
        active.
    :param even_if_not_ready: continue although a check failed.
    :param until: halt the plan at this stage, and return. Another request with the same target continues it. A stage
        that the plan has passed is a no-op. None: continue to the end.
    :param hold_s: for how long the plan may stay halted, in seconds; see :attr:`.state.Plan.hold_s`.
    :param plan_id: continue this plan, and start no other one: another caller may have cancelled it since. None: start
        a plan if there is none.
    :raises ConfigError: the reason is empty or too long, or *hold_s* is not above 0, or above 86,400.
    """

    target: str
    reason: str
    by: str
    mode: Mode = Mode.AUTO
    stop_running: bool = False
    even_if_not_ready: bool = False
    until: Stage | None = None
    hold_s: float = DEFAULT_HOLD_S
    plan_id: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", checked_reason(self.reason))
        if not 0 < self.hold_s <= LONGEST_HOLD_S:
            raise ConfigError(
                f"The failover may stay halted for {self.hold_s:g} s. Allowed are times above 0 and up to "
                f"{LONGEST_HOLD_S:g} s.",
                option="hold_s",
            )
