"""What a region may do, given what it knows. Pure; the table of the design in one function."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from airflow_provider_mwaa_dr.core.config import OnUnreachable
from airflow_provider_mwaa_dr.core.ports import Observation
from airflow_provider_mwaa_dr.core.state import DRState, Phase, why_unknown

NOTE_TOKEN = "[mwaa-dr]"  # noqa: S105  (a marker, not a secret)
"""First token of every note that the provider leaves on a run. People read it; nothing decides on it alone."""

_SKIP_S = 20.0
"""
A run is closed as born in standby on a younger view only.

Airflow stops listing a scheduler as alive 30 s after its last heartbeat ([scheduler]
scheduler_health_check_threshold), and from then on no failover waits for it. One that stood still for so long and goes
on knows a role that may be over; what it closed then, nobody would begin again.
"""


class DecisionPoint(str, Enum):
    """Where the decision is made."""

    GATE = "gate"
    """The scheduler, for a run that is about to start."""
    FENCE = "fence"
    """A worker, for a task that is about to execute."""


class Action(str, Enum):
    """What is done with the run, or the task."""

    RUN = "run"
    SKIP = "skip"
    """Close it: this region is standby."""
    HOLD = "hold"
    """Put it back; it goes on by itself as soon as the answer is known."""


class Role(str, Enum):
    """What a region is, as far as it can tell."""

    ACTIVE = "active"
    STANDBY = "standby"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class View:
    """
    What was last read of the state. A plain immutable object, swapped in one assignment: readers need no lock.

    :param state: None when the table answered and holds no state item.
    :param read_at: seconds on the local clock from BEFORE the read was sent, so the age is never understated.
    :param reconciled_epoch: the epoch that this region's open runs belong to; None before its agent's first turn.
    :param problem: why this Airflow cannot be the region that it claims (core/identity.py); it holds everything then.
    :param waits_for: why the agent could not reconcile them yet; empty where nothing is wrong.
    :param registered: the registered regions, this one among them; None before they are listed.
    :param problems: what this region's own item has that cannot be used, a sentence each; while there is one, the
        region's role is unknown.
    """

    state: DRState | None
    read_at: float
    reconciled_epoch: int | None = None
    problem: str | None = None
    waits_for: str = ""
    registered: frozenset[str] | None = None
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, observation: Observation, read_at: float, *, problem: str | None = None) -> View:
        """Return what was observed, as a view."""
        return cls(
            state=observation.state,
            read_at=read_at,
            reconciled_epoch=observation.reconciled_epoch,
            problem=problem,
            registered=observation.registered,
            problems=observation.problems,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """
    What to do and why.

    :param reason: one sentence for log and note, region and epoch in it.
    """

    action: Action
    reason: str
    role: Role


def role_of(view: View | None, region: str) -> Role:
    """
    Return what *region* is according to the last view, however old.

    UNKNOWN also where the table answered: an active region that is not registered, or a value that cannot be used,
    says nothing about any region.
    """
    if view is None or not region or view.problem is not None or why_role_unknown(view, region) is not None:
        return Role.UNKNOWN
    return Role.ACTIVE if view.state is not None and view.state.active_region == region else Role.STANDBY


def why_role_unknown(view: View, region: str) -> str | None:
    """Return why the values that were read give *region* no role, and what to do; None where they give it one."""
    if view.state is None:
        return f"the state table has no {region} role yet; run mwaa-dr init --active REGION"
    if view.problems:
        return "; ".join(view.problems)
    return why_unknown(view.state, view.registered, region=region)


def skip_limit_s(lease_s: float) -> float:
    """Return the age, in seconds, from which a standby's view closes no run any more."""
    return min(_SKIP_S, lease_s / 3)


def may_close(age_s: float, *, lease_s: float) -> bool:
    """Return whether runs may be closed on a view of this age: an older one may not know that the role has come."""
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
) -> Decision:
    """
    Return what *region* may do with a run (gate) or a task (fence).

    Pure, and for a run that may start nothing but comparisons: the scheduler's thread calls it.

    :param view: None when the state was never read.
    :param now: seconds on the clock of ``view.read_at``; one that goes on in suspend.
    :param lease_s: used until a state is known; then the state's own ``lease_s`` counts.
    :param on_unreachable: for a region whose view is older than the lease and let it run; else unknown is HOLD.
    :param requested_age_s: how long ago a user or an asset requested the run. It is closed as created in a standby only
        on a read that began after that: an older read may be from before the role came here, and the user would
        not request the run again. None: it is closed at once; the scheduler creates its own runs again.
    """
    role = role_of(view, region)
    if exempt:
        return Decision(Action.RUN, "exempt", role)
    if not region:
        return Decision(Action.HOLD, "held: this Airflow does not know its region; set [dr] region or AWS_REGION", role)
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
            f"held: {region} has not yet settled its open runs for epoch {state.epoch} "
            f"(they belong to {'none yet' if view.reconciled_epoch is None else view.reconciled_epoch})"
            + (f"; {view.waits_for}" if view.waits_for else ""),
            role,
        )
    if role is Role.STANDBY:
        if not may_close(age_s, lease_s=state.lease_s):
            return Decision(
                Action.HOLD, f"held: {region} was standby {age_s:.0f} s ago, and has not looked since", role
            )
        if requested_age_s is not None and age_s >= requested_age_s:
            return Decision(Action.HOLD, f"held: {region} was standby when it last looked, before this run", role)
        return Decision(
            Action.SKIP, f"skipped: {region} is standby, {state.active_region} is active (epoch {state.epoch})", role
        )
    if state.phase in {Phase.STEADY, Phase.RESUMING}:
        return Decision(Action.RUN, "active", role)
    if state.phase is Phase.PROMOTING:
        return Decision(Action.HOLD, f"held: {region} is being promoted (epoch {state.epoch})", role)
    plan = state.plan
    if point is DecisionPoint.FENCE and plan is not None and not plan.is_forced and not plan.drained:
        return Decision(Action.RUN, "draining: what is in flight may finish", role)
    target = plan.target if plan is not None else "another region"
    return Decision(Action.HOLD, f"held: {region} is being drained for {target} (epoch {state.epoch})", role)


def _unreachable(view: View, role: Role, region: str, age_s: float, on_unreachable: OnUnreachable) -> Decision:
    state = view.state
    epoch = "unknown" if state is None else state.epoch
    known = f"{region} has not reached the state table for {age_s:.0f} s (role last seen: {role.value}, epoch {epoch})"
    # A region that has seen its drain has acknowledged it: the failover no longer waits for its lease, so it must not
    # go on by itself, whatever is configured.
    ran = state is not None and state.phase in {Phase.STEADY, Phase.RESUMING} and view.reconciled_epoch == state.epoch
    if role is Role.ACTIVE and ran and on_unreachable is OnUnreachable.RUN:
        return Decision(Action.RUN, f"run: {known}, and [dr] on_unreachable is run", role)
    if role is Role.ACTIVE and ran and on_unreachable is OnUnreachable.SKIP:
        return Decision(Action.SKIP, f"skipped: {known}, and [dr] on_unreachable is skip", role)
    return Decision(Action.HOLD, f"held: {known}", role)
