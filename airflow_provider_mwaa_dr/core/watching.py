"""Which triggers a triggerer may run, given its view of the state. Pure; only for Airflow 3, which has watchers."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.gate import Role, View, role_of, why_role_unknown
from airflow_provider_mwaa_dr.core.state import Phase


@dataclass(frozen=True, slots=True)
class Permission:
    """
    What a triggerer may run.

    :param watchers: watchers of assets. They take messages from queues that another region may read, too.
    :param deferred: triggers of deferred tasks. They wait for work in progress.
    :param reason: why not everything; for the log.
    """

    watchers: bool
    deferred: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watchers:
    """
    The asset watchers in a region's Airflow.

    :param count: without those that only exempt DAGs need. 0 before Airflow 3.
    :param triggerers: job ids of the triggerers that the metadata database lists as alive, oldest first; empty if
        *count* is 0.
    """

    count: int = 0
    triggerers: tuple[str, ...] = ()


NOTHING_READ = Permission(watchers=False, deferred=True, reason="the state has not been read yet")


def permission(view: View | None, *, region: str, now: float, lease_s: float) -> Permission:
    """
    Return what the triggerers of *region* may run.

    Watchers run only in the active region while no failover is in progress. An unpaused consumer is needed as well:
    Airflow drops the events for a consumer that is paused, and a failover unpauses DAGs in RESUMING.

    Triggers of deferred tasks stop only if the region certainly has lost the role, or loses it without a drain.

    :param view: None if the state was never read.
    :param now: seconds on the clock of ``view.read_at``.
    :param lease_s: applies until a state has been read; then the state's own ``lease_s`` applies.
    """
    if view is None:
        return NOTHING_READ
    state = view.state
    age_s = now - view.read_at
    if age_s > (state.lease_s if state is not None else lease_s) or age_s < 0:
        return _held(f"the state was last read {age_s:.0f} s ago")
    if view.problem is not None:
        return _held(view.problem)
    role = role_of(view, region)
    if state is None or role is Role.UNKNOWN:
        return _held(why_role_unknown(view, region) or "the role is unknown")
    where = f"{region} is {role.value}, {state.phase.value}, epoch {state.epoch}"
    if role is Role.STANDBY:
        return Permission(watchers=False, deferred=False, reason=where)
    if state.phase is Phase.STEADY:
        return Permission(watchers=True, deferred=True, reason=where)
    is_forced = state.phase is Phase.DRAINING and (state.plan is None or state.plan.is_forced)
    return Permission(watchers=False, deferred=not is_forced, reason=where)


def _held(why: str) -> Permission:
    return Permission(watchers=False, deferred=True, reason=why)
