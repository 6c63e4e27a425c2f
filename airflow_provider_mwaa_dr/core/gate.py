"""The decision of gate and fence: what a region may do, given its view of the state. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

from airflow_provider_mwaa_dr.core.config import OnUnreachable
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.core.ports import Observation
from airflow_provider_mwaa_dr.core.state import DRState, Phase, why_unknown

NOTE_TOKEN = "[mwaa-dr]"  # noqa: S105  (a marker, not a secret)
"""First token of each note that the provider writes on a run, for users. No decision depends on it alone."""

_SKIP_S = 20.0
"""
A standby closes a run only on a view younger than this.

Airflow lists a scheduler as alive until 30 s after its last heartbeat ([scheduler] scheduler_health_check_threshold).
After that, no failover waits for it. A scheduler that was suspended for so long and then continues has a view whose
role may be outdated. If it closed a run on that view, no region would start the run again.
"""


class DecisionPoint(str, Enum):
    """The place of the decision."""

    GATE = "gate"
    """The scheduler, for a run that is about to start."""
    FENCE = "fence"
    """A worker, for a task that is about to execute."""


class Action(str, Enum):
    """What the caller does with the run or the task."""

    RUN = "run"
    SKIP = "skip"
    """Close the run, or skip the task: this region is standby."""
    HOLD = "hold"
    """Put it back in the queue. The run or task starts by itself as soon as the region may run it."""


class Role(str, Enum):
    """The role of a region, according to its own view."""

    ACTIVE = "active"
    STANDBY = "standby"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class View:
    """
    The last read of the state. Immutable, and replaced in one assignment, so readers need no lock.

    :param state: None if the table answered but has no state item.
    :param read_at: seconds on the local clock, taken BEFORE the read was sent, so the age is never understated.
    :param reconciled_epoch: the epoch that this region's open runs belong to; None before its agent's first turn.
    :param problem: why this Airflow cannot be the region that it claims to be (core/identity.py). If set, it holds
        everything.
    :param waits_for: why the agent could not reconcile the open runs yet; empty if there is no problem.
    :param registered: the registered regions, including this one; None before the region's item lists them.
    :param problems: the values of this region's own item that cannot be used, a sentence each. While there is one, the
        region's role is unknown.
    :param awaited: the held runs that work in progress waited for in the agent's last turn. Empty unless the region is
        being drained.
    :param confirmed_at: from when this view permits the gate to start runs, for a lease: just before the agent sent the
        last heartbeat that was confirmed before this read was sent. It never changes: a later heartbeat extends no
        view. None: no heartbeat was confirmed, and the gate starts nothing. See :attr:`~.ports.AgentStatus.life` for
        agents whose permission depends on ``read_at``.
    :param heartbeat_request: see :attr:`~.ports.Observation.heartbeat_request`.
    """

    state: DRState | None
    read_at: float
    reconciled_epoch: int | None = None
    problem: str | None = None
    waits_for: str = ""
    registered: frozenset[str] | None = None
    problems: tuple[str, ...] = ()
    awaited: frozenset[RunKey] = frozenset()
    confirmed_at: float | None = None
    heartbeat_request: str | None = None

    @classmethod
    def of(
        cls,
        observation: Observation,
        read_at: float,
        *,
        problem: str | None = None,
        waits_for: str = "",
        awaited: frozenset[RunKey] = frozenset(),
        confirmed_at: float | None = None,
    ) -> View:
        """Return the view for an observation."""
        return cls(
            state=observation.state,
            read_at=read_at,
            reconciled_epoch=observation.reconciled_epoch,
            problem=problem,
            waits_for=waits_for,
            registered=observation.registered,
            problems=observation.problems,
            awaited=awaited,
            confirmed_at=confirmed_at,
            heartbeat_request=observation.heartbeat_request,
        )

    def differs_from(self, other: View | None) -> bool:
        """Whether *other* contains something else than this view, apart from the times of the reads."""
        return other is None or replace(self, read_at=other.read_at, confirmed_at=other.confirmed_at) != other


@dataclass(frozen=True, slots=True)
class Decision:
    """
    An action, and the reason for it.

    :param reason: one sentence for log and note, with region and epoch.
    """

    action: Action
    reason: str
    role: Role


def role_of(view: View | None, region: str) -> Role:
    """
    Return the role of *region* according to its last view, regardless of the view's age.

    The role can be UNKNOWN although the table answered: if the active region is not registered, or if a value cannot be
    used, no region has a role.
    """
    if view is None or not region or view.problem is not None or why_role_unknown(view, region) is not None:
        return Role.UNKNOWN
    return Role.ACTIVE if view.state is not None and view.state.active_region == region else Role.STANDBY


def why_role_unknown(view: View, region: str) -> str | None:
    """Return why the view gives *region* no role, and what to do; None if the region has a role."""
    if view.state is None:
        return f"the state table has no {region} role yet; run mwaa-dr init --active REGION"
    if view.problems:
        return "; ".join(view.problems)
    return why_unknown(view.state, view.registered, region=region)


def skip_limit_s(lease_s: float) -> float:
    """Return the greatest age, in seconds, of a view on which a standby closes runs."""
    return min(_SKIP_S, lease_s / 3)


def may_close(age_s: float, *, lease_s: float) -> bool:
    """Return whether a standby may close runs on a view of this age. An older view may precede a promotion."""
    return age_s <= skip_limit_s(lease_s)


def decide(
    view: View | None,
    *,
    region: str,
    exempt: bool,
    now: float,
    lease_s: float,
    point: DecisionPoint,
    on_unreachable: OnUnreachable = OnUnreachable.HOLD,
    requested_age_s: float | None = None,
    is_awaited: bool = False,
) -> Decision:
    """
    Return what *region* may do with a run (gate) or a task (fence).

    Pure. The scheduler's thread calls it, so for a run that may start it makes only comparisons.

    :param view: None if the state was never read.
    :param now: seconds on the clock of ``view.read_at``, which continues during suspend.
    :param lease_s: applies until a state has been read; then the state's own ``lease_s`` applies.
    :param on_unreachable: what an active region does when its view is older than the lease, if it may run according to
        that view. In all other cases of an unknown role the answer is HOLD.
    :param requested_age_s: how long ago a user or an asset requested the run. A standby closes such a run only on a
        read that began after the request: an older read may precede the region's promotion, and users do not repeat
        their request. None: the scheduler created the run. The standby closes it immediately, because a scheduler
        creates its runs again.
    :param is_awaited: whether unfinished work of a begun run waits for this run (gate only). If not known: False.
    """
    role = role_of(view, region)
    if exempt:
        return Decision(Action.RUN, "exempt", role)
    if not region:
        return Decision(Action.HOLD, "held: this Airflow does not know its region; set [dr] site or AWS_REGION", role)
    if view is None:
        return Decision(Action.HOLD, f"held: {region} has not read the state table yet", role)
    if view.problem is not None:
        return Decision(Action.HOLD, f"held: {view.problem}", role)
    state = view.state
    age_s = now - view.read_at
    if age_s > (state.lease_s if state is not None else lease_s) or age_s < 0:
        return _unreachable(view, role, region, age_s, on_unreachable)
    if state is None or role is Role.UNKNOWN:
        return Decision(Action.HOLD, f"held: {why_role_unknown(view, region)}", role)
    if view.reconciled_epoch != state.epoch:
        return Decision(
            Action.HOLD,
            f"held: {region} has not yet reconciled its open runs with epoch {state.epoch} "
            f"(they belong to {'none yet' if view.reconciled_epoch is None else view.reconciled_epoch})"
            + (f"; {view.waits_for}" if view.waits_for else ""),
            role,
        )
    if role is Role.STANDBY:
        if not may_close(age_s, lease_s=state.lease_s):
            return Decision(
                Action.HOLD, f"held: {region} was standby {age_s:.0f} s ago and has not read the state since", role
            )
        if requested_age_s is not None and age_s >= requested_age_s:
            return Decision(
                Action.HOLD, f"held: {region} was standby when it last read the state, before this run", role
            )
        return Decision(
            Action.SKIP, f"skipped: {region} is standby, {state.active_region} is active (epoch {state.epoch})", role
        )
    why_not = why_not_permitted(view, region, now=now) if point is DecisionPoint.GATE else None
    if state.phase in {Phase.STEADY, Phase.RESUMING}:
        if why_not is not None:
            return Decision(Action.HOLD, f"held: {why_not}", role)
        return Decision(Action.RUN, "active", role)
    if state.phase is Phase.PROMOTING:
        return Decision(Action.HOLD, f"held: {region} is being promoted (epoch {state.epoch})", role)
    plan = state.plan
    if plan is not None and not plan.is_forced and not plan.drained:
        if point is DecisionPoint.FENCE:
            return Decision(Action.RUN, "draining: running runs may finish", role)
        if is_awaited and plan.starts_awaited and why_not is None:
            return Decision(Action.RUN, "draining: work in progress waits for this run", role)
    target = plan.target if plan is not None else "another region"
    return Decision(Action.HOLD, f"held: {region} is being drained for {target} (epoch {state.epoch})", role)


def why_not_permitted(view: View, region: str, *, now: float) -> str | None:
    """
    Return why the gate may not start runs on *view*, although *region* can read the state; None if it may.

    A failover waits for an agent's heartbeats, and no longer for its reads. So the gate may start runs only for a lease
    after a heartbeat that the table has confirmed.
    """
    lease_s = view.state.lease_s if view.state is not None else 0.0
    age_s = math.inf if view.confirmed_at is None else now - view.confirmed_at
    if 0 <= age_s <= lease_s:
        return None
    how_long = "yet" if view.confirmed_at is None else f"for {age_s:.0f} s"
    return (
        f"{region} reads the state table, but no heartbeat of this scheduler was confirmed {how_long}; check that its "
        "execution role may write the table, and that the table does not throttle writes"
    )


def _unreachable(view: View, role: Role, region: str, age_s: float, on_unreachable: OnUnreachable) -> Decision:
    state = view.state
    epoch = "unknown" if state is None else state.epoch
    known = f"{region} has not reached the state table for {age_s:.0f} s (last known role: {role.value}, epoch {epoch})"
    # A region that has read the plan that drains it has acknowledged it. The failover no longer waits for its lease, so
    # the region must not run, whatever on_unreachable says.
    ran = state is not None and state.phase in {Phase.STEADY, Phase.RESUMING} and view.reconciled_epoch == state.epoch
    if role is Role.ACTIVE and ran and on_unreachable is OnUnreachable.RUN:
        return Decision(Action.RUN, f"run: {known}, and [dr] on_unreachable is run", role)
    if role is Role.ACTIVE and ran and on_unreachable is OnUnreachable.SKIP:
        return Decision(Action.SKIP, f"skipped: {known}, and [dr] on_unreachable is skip", role)
    return Decision(Action.HOLD, f"held: {known}", role)
