"""
The state of a DR set, and the only ways in which it may change.

Everything here is pure: functions take a state and return the next one, nothing is read, written or timed. A store
(:class:`airflow_provider_mwaa_dr.core.ports.StateStore`) writes a returned state on the condition that the stored
``version`` is still the one that the function was given, so two callers can never both take a step.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from airflow_provider_mwaa_dr.core.reasons import checked_reason
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, WrongPhaseError

STATE_ID = "ACTIVE_REGION"
"""Key of the state item. The scripts of the AWS sample, and the AWS CLI queries of its document, read this key."""

SHORTEST_LEASE_S, LONGEST_LEASE_S = 2.0, 3600.0
"""The range of ``lease_s``. An engine that cannot read a lease waits for the longest one."""


class Phase(str, Enum):
    """Where a failover stands. An item without a phase (written by the AWS sample) is STEADY."""

    STEADY = "STEADY"
    """Nothing in progress; the only phase in which "already active" is an answer."""
    DRAINING = "DRAINING"
    """A plan is written; the source starts nothing new, what is in flight may finish (graceful)."""
    PROMOTING = "PROMOTING"
    """The epoch has moved; the target prepares its own database and executes nothing yet."""
    RESUMING = "RESUMING"
    """The target executes; what remains is to restore exactly the wanted set."""


class Mode(str, Enum):
    """How a failover is carried out."""

    AUTO = "auto"
    """Graceful, turned forced by a state write when the source does not answer within its deadline."""
    GRACEFUL = "graceful"
    FORCED = "forced"


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """
    A field of the state item with a value that cannot be used.

    :param found: the value, as a person finds it in the item.
    """

    field: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.field} is {self.found}, allowed is {self.allowed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """
    What a failover announces about runs that outlasted its drain; no announcement is ever changed.

    :param set_id: the recorded set of runs, ``DAG_ID RUN_ID`` each; unique among all announcements.
    :param epoch: under which it was made, and for which alone it counts.
    :param had_ended: False: these are being stopped, so each counts as interrupted unless it succeeds. True: these were
        announced and had ended by themselves before the failover came to them, so they count as they ended.
    """

    set_id: str
    epoch: int
    had_ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    A failover in progress, stored inside the state item so that anyone can finish or abandon it.

    :param id: names the plan; also of its record and of nothing else.
    :param source: region being left ("from" in records).
    :param target: region being activated ("to" in records). Equal to *source* in a plan that cancels another.
    :param mode: AUTO counts as graceful until a state write turns it FORCED.
    :param owner: the process that acts on it; only this one takes steps.
    :param beat: grows while the owner lives; a follower takes over when it stands still on the follower's own clock.
    :param set_id: the recorded wanted set; None until it is recorded, never changed afterwards.
    :param drained: nothing is in flight in the source any more, and nothing can start: it may publish its final ledger
        entry.
    :param replaced: the promoted, unfinished plan that this one superseded, with its phase; cancelling goes back to it.
    :param takes_over: nobody knows which region executes, so every registered region but the target counts as the
        source; *source* is the last known active region.
    :param lease_s: the lease from promote on, where the one before could not be used; None: it stays.
    """

    id: str
    source: str
    target: str
    mode: Mode
    reason: str
    by: str
    owner: str
    started_at: datetime
    beat: int = 0
    set_id: str | None = None
    stop_running: bool = False
    drained: bool = False
    replaced: tuple[Phase, Plan] | None = None
    takes_over: bool = False
    lease_s: float | None = None

    @property
    def is_forced(self) -> bool:
        """Whether the source must not be called any more, and executes nothing from now on."""
        return self.mode is Mode.FORCED

    @property
    def is_cancellation(self) -> bool:
        """Whether this plan gives the role back to the region that has it."""
        return self.source == self.target and not self.takes_over


@dataclass(frozen=True, slots=True, kw_only=True)
class DRState:
    """
    The state item. Frozen; grows only through the functions below.

    :param epoch: grows by 1 with every change of active region; the fencing token.
    :param version: grows by 1 with every write; the optimistic lock.
    :param lease_s: how old a region's view may be while it still executes; the same for everyone, so it lives here.
        The longest one where the stored value cannot be used.
    :param not_unpaused_set_id: id of the recorded set of DAGs that the last failover could not unpause in the active
        region, and that stay wanted. Empty: there are none. None: an older version or a script completed the failover,
        and only its record has them.
    :param stops: what failovers announced about runs that they stop under this epoch, in order. It outlives the plans:
        a plan may be cancelled, and end, before the ledger reads that it stopped a run.
    :param problems: fields of the item whose values cannot be used. Not stored. While there is one, every region holds
        everything, and only :func:`recover` returns a next state.
    """

    active_region: str
    epoch: int
    version: int
    last_updated: datetime
    lease_s: float
    phase: Phase = Phase.STEADY
    plan: Plan | None = None
    failover_count: int = 0
    previous_region: str | None = None
    failover_reason: str | None = None
    last_failover_time: datetime | None = None
    changed_by: str | None = None
    not_unpaused_set_id: str | None = None
    problems: tuple[FieldProblem, ...] = ()
    stops: tuple[Stop, ...] = ()

    def is_newer_than(self, other: DRState) -> bool:
        """Whether this state was written after *other*; a view never goes back."""
        return (self.epoch, self.version) > (other.epoch, other.version)


def why_unknown(state: DRState, registered: Collection[str] | None, *, region: str) -> str | None:
    """
    Return why *state* says nothing about any region's role, and what to do; None where it can be acted on.

    :param registered: as the item of *region* lists them; None when it has no list.
    """
    take_over = "run mwaa-dr failover REGION --reason TEXT"
    if state.problems:
        found = "; ".join(map(str, state.problems))
        return f"the item {STATE_ID} cannot be used: {found}; correct the item, or {take_over}"
    if state.phase is not Phase.STEADY and state.plan is None:
        return f"the item {STATE_ID} is {state.phase.value} and has no plan; {take_over}"
    if registered is None:
        return (
            f"the item ENVIRONMENT#{region} does not list the registered regions yet; the agent of {region} writes the "
            "list in its first turn, and mwaa-dr init writes it, too"
        )
    if state.active_region not in registered:
        return (
            f"active_region of the item {STATE_ID} is {_shown(state.active_region)}, which is not registered (there is "
            f"no item ENVIRONMENT#REGION for it; registered are {', '.join(sorted(registered))}); correct "
            f"active_region, or {take_over}, or run mwaa-dr init if that region belongs to the set"
        )
    return None


def may_be_region(text: str) -> bool:
    """Return whether *text* is short enough to be the name of a region, and so a part of an item's key."""
    return 0 < len(text) <= _REGION_CHARS


_REGION_CHARS = 100
"""No name of a region is longer."""


def initial(active_region: str, *, lease_s: float, by: str, at: datetime, epoch: int = 0, version: int = 1) -> DRState:
    """
    Return the first state of a DR set.

    :param epoch, version: where an earlier state of the set is gone, above all that anybody remembers of it.
    """
    return DRState(
        active_region=active_region,
        epoch=epoch,
        version=version,
        last_updated=at,
        lease_s=lease_s,
        failover_count=epoch,
        changed_by=by,
    )


def claim(state: DRState, plan: Plan, *, at: datetime) -> DRState:
    """
    Return the state in which *plan* is in progress: the source stops starting runs.

    :raises AlreadyActiveError: the target is active and nothing is in progress.
    :raises WrongPhaseError: another plan is open; join, cancel or supersede it.
    """
    _refuse_problems(state)
    if state.phase is not Phase.STEADY:
        raise WrongPhaseError(
            f"Plan {state.plan.id if state.plan else '?'} is open ({state.phase.value}).",
            advice="Join it, cancel it or supersede it.",
        )
    if plan.target == state.active_region:
        raise AlreadyActiveError(f"{plan.target} is active already (epoch {state.epoch}).")
    return _next(state, phase=Phase.DRAINING, plan=replace(plan, source=state.active_region), by=plan.by, at=at)


def supersede(state: DRState, plan: Plan, *, at: datetime) -> DRState:
    """
    Return the state in which *plan* takes the place of the open one.

    It remembers the plan that made the region active, if that has not ended: cancelling goes back to it. Plans that had
    not promoted are forgotten, so that plans do not nest. The recorded set travels along, if one was recorded: what
    people want does not change with the direction. While nobody knows which region executes, the new plan takes over,
    and is forced, like the open one.
    """
    open_plan = _open_plan(state)
    takes_over = open_plan.takes_over and state.phase is Phase.DRAINING
    if plan.target == state.active_region and state.phase is Phase.DRAINING and not takes_over:
        raise WrongPhaseError(
            f"{plan.target} is still the active region of plan {open_plan.id}.", advice="Cancel that plan instead."
        )
    return _next(
        state,
        phase=Phase.DRAINING,
        plan=replace(
            plan,
            source=open_plan.source if takes_over else state.active_region,
            mode=Mode.FORCED if takes_over else plan.mode,
            set_id=open_plan.set_id,
            replaced=_promoted(state),
            takes_over=takes_over,
            lease_s=open_plan.lease_s if state.phase is Phase.DRAINING else None,
        ),
        by=plan.by,
        at=at,
    )


def cancel(state: DRState, *, plan_id: str, by: str, owner: str, reason: str, at: datetime) -> DRState:
    """
    Return the state in which the open plan is given up before promote.

    Back to the promoted plan that it had replaced, under that plan's own id: its target is active, but not prepared or
    without its set yet. Plans that had not promoted either are given up with it. Else to RESUMING with region and epoch
    unchanged, under *plan_id* (a new one, so that an engine still in the old plan cannot take it for its own). What
    was paused is unpaused by the steps that follow RESUMING, what was held goes on.

    :raises WrongPhaseError: promoted already, or nothing is open, or no region is known to execute.
    """
    open_plan = _open_plan(state)
    if open_plan.takes_over and state.phase is Phase.DRAINING:
        raise WrongPhaseError(
            f"Plan {open_plan.id} has taken over a state that names no active region: there is none to go back to.",
            advice="Fail over to the region that is to be active.",
        )
    if state.phase is not Phase.DRAINING:
        raise WrongPhaseError(
            f"Plan {open_plan.id} is {state.phase.value}: {state.active_region} is active already.",
            advice=f"Fail over to {open_plan.source} instead.",
        )
    replaced = _promoted(state)
    if replaced is not None:
        phase, earlier = replaced
        # An earlier plan without a set had paused nothing; the one that is given up now may have.
        set_id = earlier.set_id or open_plan.set_id
        back = replace(earlier, owner=owner, beat=earlier.beat + 1, set_id=set_id)
        return _next(state, phase=phase, plan=back, by=by, at=at)
    back = replace(
        open_plan,
        id=plan_id,
        target=open_plan.source,
        owner=owner,
        by=by,
        reason=reason,
        started_at=at,
        beat=0,
        drained=False,
        replaced=None,
    )
    return _next(state, phase=Phase.RESUMING, plan=back, by=by, at=at)


def recover(state: DRState, plan: Plan, *, lease_s: float, at: datetime) -> DRState:
    """
    Return the state in which *plan* takes over a state that names no active region, or cannot be acted on.

    The plan is forced, whatever mode it names, and every registered region but its target counts as the source. The
    recorded set travels along, if there is a plan that names one.

    :param plan: its source is the last known active region.
    :param lease_s: counts from promote on where the stored lease cannot be used; until then the longest one does.
    :raises WrongPhaseError: the epoch cannot be used, so no next one is known to be higher than all before.
    """
    broken = {problem.field for problem in state.problems}
    if "epoch" in broken:
        raise WrongPhaseError(
            f"No failover can take over the item {STATE_ID}: {'; '.join(map(str, state.problems))}.",
            advice="Correct it, or run mwaa-dr init --active REGION --above-every-epoch.",
        )
    lost = state.plan if state.phase is not Phase.STEADY else None
    kept = lost.lease_s if lost is not None and state.phase is Phase.DRAINING else None
    return _next(
        replace(state, problems=()),
        phase=Phase.DRAINING,
        plan=replace(
            plan,
            mode=Mode.FORCED,
            set_id=lost.set_id if lost is not None else None,
            takes_over=True,
            lease_s=lease_s if "lease_s" in broken else kept,
        ),
        by=plan.by,
        at=at,
    )


def record_set(state: DRState, set_id: str, *, at: datetime) -> DRState:
    """Return the state whose plan names its recorded wanted set. A plan that names one already keeps it."""
    plan = _open_plan(state)
    if plan.set_id is not None:
        return state
    return _next(state, phase=state.phase, plan=replace(plan, set_id=set_id), by=plan.by, at=at)


def harden(state: DRState, *, stops: bool, forces: bool, at: datetime) -> DRState:
    """Return the state whose plan stops runs that outlast the drain, or has turned forced, because a caller said so."""
    plan = _open_plan(state)
    if stops and not plan.stop_running:
        state = replace(state, plan=replace(plan, stop_running=True))
    return turn_forced(state, at=at) if forces else beat(state, at=at)


def announce(state: DRState, set_id: str, *, had_ended: bool, at: datetime) -> DRState:
    """
    Return the state that announces which runs are being stopped, before the first one is; or which of them had ended.

    :param set_id, had_ended: see :class:`Stop`.
    """
    plan = _open_plan(state)
    if any(each.set_id == set_id for each in state.stops):
        return state
    stop = Stop(set_id=set_id, epoch=state.epoch, had_ended=had_ended)
    return replace(_next(state, phase=state.phase, plan=plan, by=plan.by, at=at), stops=(*state.stops, stop))


def stops_of(state: DRState, epoch: int) -> tuple[Stop, ...]:
    """Return what failovers announced under *epoch* about runs that they stop, in order."""
    return tuple(stop for stop in state.stops if stop.epoch == epoch)


def drained(state: DRState, *, at: datetime) -> DRState:
    """Return the state that says that nothing is in flight in the source any more."""
    plan = _open_plan(state)
    if plan.drained:
        return state
    return _next(state, phase=state.phase, plan=replace(plan, drained=True), by=plan.by, at=at)


def turn_forced(state: DRState, *, at: datetime) -> DRState:
    """
    Return the state in which the plan goes on without its source: an AUTO one by itself, any on a caller's word.

    A state write, because the lease is counted from it: until now the source was allowed to finish what ran.
    """
    plan = _open_plan(state)
    if state.phase is not Phase.DRAINING or plan.is_forced:
        raise WrongPhaseError(f"Plan {plan.id} is {plan.mode.value} in {state.phase.value} and cannot turn forced.")
    return _next(state, phase=Phase.DRAINING, plan=replace(plan, mode=Mode.FORCED), by=plan.by, at=at)


def promote(state: DRState, *, at: datetime) -> DRState:
    """
    Return the state in which the plan's target is the active region.

    ``epoch`` grows by one, which fences holders of the old epoch.

    :param at: aware UTC time of the decision, kept for the audit trail.
    :raises WrongPhaseError: the state is not DRAINING.
    """
    plan = _open_plan(state)
    if state.phase is not Phase.DRAINING:
        raise WrongPhaseError(f"Plan {plan.id} is {state.phase.value}; only a DRAINING one is promoted.")
    promoted = replace(plan, replaced=None)  # no cancelling goes back
    return replace(
        _next(state, phase=Phase.PROMOTING, plan=promoted, by=plan.by, at=at),
        active_region=plan.target,
        epoch=state.epoch + 1,
        failover_count=state.failover_count + 1,
        lease_s=state.lease_s if plan.lease_s is None else plan.lease_s,
        previous_region=plan.source if plan.takes_over else state.active_region,
        failover_reason=plan.reason,
        last_failover_time=at,
        # The source may not have published these runs yet. Nobody reads the stops of an earlier epoch any more.
        stops=stops_of(state, state.epoch),
    )


def resume(state: DRState, *, at: datetime) -> DRState:
    """Return the state in which the target may execute; for when all its schedulers have acknowledged the epoch."""
    plan = _open_plan(state)
    if state.phase is not Phase.PROMOTING:
        raise WrongPhaseError(f"Plan {plan.id} is {state.phase.value}; only a PROMOTING one is resumed.")
    return _next(state, phase=Phase.RESUMING, plan=plan, by=plan.by, at=at)


def complete(state: DRState, *, not_unpaused_set_id: str | None, at: datetime) -> DRState:
    """
    Return the steady state at the end of a plan.

    :param not_unpaused_set_id: see :class:`DRState`. Users rely on it, so it is written with the end of the plan, even
        if the plan's record cannot be written.
    """
    plan = _open_plan(state)
    if state.phase is not Phase.RESUMING:
        raise WrongPhaseError(f"Plan {plan.id} is {state.phase.value}; only a RESUMING one is completed.")
    return replace(
        _next(state, phase=Phase.STEADY, plan=None, by=plan.by, at=at), not_unpaused_set_id=not_unpaused_set_id
    )


def beat(state: DRState, *, at: datetime) -> DRState:
    """Return the state in which the plan's owner has shown that it lives."""
    plan = _open_plan(state)
    return _next(state, phase=state.phase, plan=replace(plan, beat=plan.beat + 1), by=state.changed_by, at=at)


def take_over(state: DRState, *, owner: str, at: datetime) -> DRState:
    """Return the state in which *owner* acts on the open plan, for when the beat of the one before stood still."""
    plan = _open_plan(state)
    return _next(
        state, phase=state.phase, plan=replace(plan, owner=owner, beat=plan.beat + 1), by=state.changed_by, at=at
    )


def set_active_region(state: DRState, region: str, *, reason: str, by: str, at: datetime) -> DRState:
    """
    Return the state in which *region* is active at once, with no drain, lease or set,
    as the hook of the AWS sample does.

    For recovery by hand and for tests; a failover does far more. Fences like any promotion: the epoch grows.

    :raises ConfigError: the reason is empty or too long.
    :raises AlreadyActiveError: *region* is active and nothing is in progress.
    :raises WrongPhaseError: a plan is open, or the state has a value that cannot be used.
    """
    reason = checked_reason(reason)
    _refuse_problems(state)
    if state.phase is not Phase.STEADY:
        raise WrongPhaseError(
            f"Plan {state.plan.id if state.plan else '?'} is open ({state.phase.value}).",
            advice=f"Finish or cancel it first: mwaa-dr failover {state.active_region} --reason ...",
        )
    if region == state.active_region:
        raise AlreadyActiveError(f"{region} is active already (epoch {state.epoch}).")
    return replace(
        _next(state, phase=Phase.STEADY, plan=None, by=by, at=at),
        active_region=region,
        epoch=state.epoch + 1,
        failover_count=state.failover_count + 1,
        previous_region=state.active_region,
        failover_reason=reason,
        last_failover_time=at,
        not_unpaused_set_id=None,
        stops=stops_of(state, state.epoch),
    )


def promoted_plan(state: DRState) -> Plan | None:
    """Return the plan that has made the region active, unless it has ended; also under one that supersedes it."""
    promoted = _promoted(state)
    return None if promoted is None else promoted[1]


def _promoted(state: DRState) -> tuple[Phase, Plan] | None:
    """Return the promoted, unfinished plan with its phase. Rows of version 0.1 may nest several that had not."""
    found = (state.phase, state.plan) if state.plan is not None else None
    while found is not None and found[0] is Phase.DRAINING:
        found = found[1].replaced
    return None if found is None else (found[0], replace(found[1], replaced=None))


def is_wanted_set(set_id: str) -> bool:
    """Whether a recorded set is what a plan found unpaused, and not runs that it stops or DAGs that it left over."""
    return _OTHER_SETS.search(set_id) is None


_OTHER_SETS = re.compile(r"-(stopped-[0-9]+|left-[0-9a-f]+)$")


def regions_of(state: DRState) -> frozenset[str]:
    """Return the regions that the state names: those that have the role, had it last, or are to have it."""
    plan = (state.plan.source, state.plan.target) if state.plan is not None else ()
    return frozenset(region for region in (state.active_region, state.previous_region, *plan) if region)


def _open_plan(state: DRState) -> Plan:
    _refuse_problems(state)
    if state.plan is None or state.phase is Phase.STEADY:
        raise WrongPhaseError(f"No plan is open: the state is {state.phase.value} at version {state.version}.")
    return state.plan


def _refuse_problems(state: DRState) -> None:
    if state.problems:
        raise WrongPhaseError(
            f"The item {STATE_ID} cannot be used: {'; '.join(map(str, state.problems))}.",
            advice="Correct it, or run mwaa-dr failover REGION --reason TEXT, which takes over the state.",
        )


def _shown(value: str) -> str:
    """Return a value as a person can tell it from a similar one, also when it is long."""
    return repr(value if len(value) <= 60 else value[:60] + "...")


def _next(state: DRState, *, phase: Phase, plan: Plan | None, by: str | None, at: datetime) -> DRState:
    return replace(state, phase=phase, plan=plan, version=state.version + 1, last_updated=at, changed_by=by)
