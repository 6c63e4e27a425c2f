"""A caller's request for a failover."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.reasons import checked_reason
from airflow_provider_mwaa_dr.core.state import Mode


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
    :raises ConfigError: the reason is empty or too long.
    """

    target: str
    reason: str
    by: str
    mode: Mode = Mode.AUTO
    stop_running: bool = False
    even_if_not_ready: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", checked_reason(self.reason))
