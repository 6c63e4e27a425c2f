"""
The state of a DR set, and its transitions. :data:`TRANSITIONS` lists all ways in which the state may change.

All functions are pure: each takes a state and returns the next one, without input, output or a clock. A store
(:class:`airflow_provider_mwaa_dr.core.ports.StateStore`) writes the next state only if the stored ``version`` is still
the version that the function was given. So of two callers that start from the same version, only one succeeds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Literal

from airflow_provider_mwaa_dr.core.reasons import checked_reason
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, WrongPhaseError

STATE_ID = "ACTIVE_REGION"
"""Key of the state item. The scripts of the AWS sample and the queries in its documentation read this key."""

SHORTEST_LEASE_S, LONGEST_LEASE_S = 2.0, 3600.0
"""The range of ``lease_s``. An engine that cannot read the lease waits for the longest."""


class Phase(str, Enum):
    """The progress of a failover. An item without a phase (written by the AWS sample) is STEADY."""

    STEADY = "STEADY"
    """No failover is in progress. Only in this phase is a request for the active region a no-op ("already active")."""
    DRAINING = "DRAINING"
    """The plan is written. The source starts no new runs; its running runs may finish if the plan is graceful."""
    PROMOTING = "PROMOTING"
    """The epoch has grown. The target prepares its own database and executes nothing yet."""
    RESUMING = "RESUMING"
    """The target executes. The remaining step unpauses exactly the DAGs of the recorded set."""


class Mode(str, Enum):
    """How a failover is carried out."""

    AUTO = "auto"
    """Starts graceful; a state write turns it forced when the source does not answer within its deadline."""
    GRACEFUL = "graceful"
    FORCED = "forced"


ModeName = Literal["auto", "graceful", "forced"]
"""The values of :class:`Mode`, for editors and type checkers."""


class Stage(str, Enum):
    """A stage at which a failover halts if its caller asks for it, so that users can do steps of their own."""

    DRAINED = "drained"
    """Only the promotion is missing: the source can start nothing, and in a graceful plan its ledger is complete."""
    PROMOTED = "promoted"
    """The target is active and has prepared its database. No region executes anything yet."""


StageName = Literal["drained", "promoted"]
"""The values of :class:`Stage`, for editors and type checkers."""

DEFAULT_HOLD_S = 900.0
"""How long a plan may stay halted, if its caller names no other time."""
LONGEST_HOLD_S = 86_400.0


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """
    A field of the state item whose value cannot be used.

    :param found: the value as it is stored in the item.
    """

    field: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.field} is {self.found}, allowed is {self.allowed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """
    An announcement of a failover about runs that outlasted its drain. It is never changed.

    :param set_id: the recorded set of runs, ``DAG_ID RUN_ID`` each; unique among all announcements.
    :param epoch: the epoch in which the failover announced it; the announcement applies to this epoch only.
    :param had_ended: False: the failover stops these runs, so each of them counts as interrupted unless it succeeds.
        True: an earlier announcement lists these runs, but they ended by themselves before the failover stopped them.
        They keep their own outcome.
    """

    set_id: str
    epoch: int
    had_ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    A failover in progress. It is stored in the state item, so that any caller can finish or cancel it.

    :param id: identifies the plan and its record, and nothing else.
    :param source: region being left ("from" in records).
    :param target: region being activated ("to" in records). Equal to *source* in a plan that cancels another.
    :param mode: AUTO counts as graceful until a state write turns it FORCED.
    :param owner: the process that makes the steps of the plan; no other process does. Empty: the plan is halted.
    :param beat: the owner increases it while it runs. A follower takes over when, on the follower's own clock, it has
        not changed for too long.
    :param set_id: the recorded set of DAGs; None until it is recorded, never changed afterwards.
    :param starts_awaited: while the source is drained, its gate lets a held run start if work in progress waits for it.
    :param drained: no run is in progress in the source, and none can start: the source may publish its final ledger
        entry.
    :param replaced: the promoted, unfinished plan that this plan superseded, with its phase. A cancellation returns to
        it.
    :param is_recovery: it is unknown which region executes, so every registered region except the target counts as the
        source; *source* is the last known active region.
    :param lease_s: the lease from the promotion on, if the stored lease cannot be used; None: the lease stays.
    :param hold: the stage at which the owner halts the plan, or has halted it. None: the plan continues to its end.
    :param hold_s: for how long the plan may stay as it is. Each observer counts on its own clock, from its first read
        of the last write. After it, the target's agent finishes a promoted plan. No component promotes a drained one.
    :param halts: how many times an engine has halted the plan. In DRAINING, every step before the promotion is complete
        after the first halt.
    :param quiet: the gates of the source have closed, so no engine waits for its lease again under this plan.
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
    starts_awaited: bool = False
    drained: bool = False
    replaced: tuple[Phase, Plan] | None = None
    is_recovery: bool = False
    lease_s: float | None = None
    hold: Stage | None = None
    hold_s: float = DEFAULT_HOLD_S
    halts: int = 0
    quiet: bool = False

    @property
    def is_halted(self) -> bool:
        """Whether the plan waits at a stage for a caller that continues or cancels it."""
        return not self.owner

    @property
    def is_forced(self) -> bool:
        """Whether the engine no longer calls the source, and the source may execute nothing from now on."""
        return self.mode is Mode.FORCED

    @property
    def is_cancellation(self) -> bool:
        """Whether this plan cancels another: the active region keeps the role."""
        return self.source == self.target and not self.is_recovery


@dataclass(frozen=True, slots=True, kw_only=True)
class DRState:
    """
    The state item. Frozen; only the functions below return a next state.

    :param epoch: grows by 1 with every change of active region; the fencing token.
    :param version: grows by 1 with every write; the optimistic lock.
    :param lease_s: how old a region's view may be while the region still executes. All regions use the same value, so
        the item stores it. If the stored value cannot be used, this is the longest lease.
    :param not_unpaused_set_id: id of the recorded set of DAGs that the last failover could not unpause in the active
        region; the next failover includes them. Empty: there are none. None: an older version or a script completed the
        failover, and only its record lists them.
    :param stops: the announcements of failovers about runs that they stop, in order; :func:`stops_of` selects those of
        an epoch. They are kept when their plan ends: a plan may be cancelled and end before the ledger has read that
        the plan stopped a run.
    :param problems: fields of the item whose values cannot be used. Not stored. While there is one, every region holds
        all its runs and tasks, and only :func:`recover` returns a next state.
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
        """Whether this state was written after *other*. A view never returns to an older state."""
        return (self.epoch, self.version) > (other.epoch, other.version)


def why_unknown(state: DRState, registered: Collection[str] | None, *, region: str) -> str | None:
    """
    Return why *state* gives no region a role, and what to do; None if the state can be used.

    :param registered: the registered regions, from the item of *region*; None if the item has no list.
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
            "list in its first turn, and mwaa-dr init also writes it"
        )
    if state.active_region not in registered:
        return (
            f"active_region of the item {STATE_ID} is {_shown(state.active_region)}, which is not registered (there is "
            f"no item ENVIRONMENT#REGION for it; registered are {', '.join(sorted(registered))}); correct "
            f"active_region, or {take_over}, or run mwaa-dr init if that region belongs to the set"
        )
    return None


def may_be_region(text: str) -> bool:
    """Return whether *text* is short enough to be the name of a region, which is part of the keys of items."""
    return 0 < len(text) <= _REGION_CHARS


_REGION_CHARS = 100
"""The longest name of a region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """
    One way in which the state may change.

    :param by: who writes it.
    :param meaning: what it does.
    :param moves: by phase, the phases to which it may lead. It is refused in every other phase.
    """

    by: str
    meaning: str
    moves: Mapping[Phase, tuple[Phase, ...]]


_OWNER = "the engine that owns the plan"
_OWNER_OR_AGENT = "the engine that owns the plan, or the target's agent"
_KEPT_WHILE_OPEN = {phase: (phase,) for phase in (Phase.DRAINING, Phase.PROMOTING, Phase.RESUMING)}

TRANSITIONS: Mapping[str, Transition] = {
    "claim": Transition(
        by="the engine of a caller", meaning="writes the plan of a failover", moves={Phase.STEADY: (Phase.DRAINING,)}
    ),
    "record_set": Transition(
        by=_OWNER, meaning="names the recorded set of DAGs in the plan", moves={Phase.DRAINING: (Phase.DRAINING,)}
    ),
    "turn_forced": Transition(
        by=_OWNER, meaning="continues without a source that does not answer", moves={Phase.DRAINING: (Phase.DRAINING,)}
    ),
    "announce": Transition(
        by=_OWNER, meaning="names the runs that it is going to stop", moves={Phase.DRAINING: (Phase.DRAINING,)}
    ),
    "start_awaited": Transition(
        by=_OWNER,
        meaning="lets those held runs start that work in progress in the source waits for",
        moves={Phase.DRAINING: (Phase.DRAINING,)},
    ),
    "hold_awaited": Transition(
        by=_OWNER,
        meaning="ends that: no run is in progress, and the gate holds every run again",
        moves={Phase.DRAINING: (Phase.DRAINING,)},
    ),
    "drained": Transition(
        by=_OWNER,
        meaning="states that no run is in progress in the source; the fence holds from then on",
        moves={Phase.DRAINING: (Phase.DRAINING,)},
    ),
    "halt": Transition(
        by=_OWNER,
        meaning="leaves the plan without an owner at the stage that its caller named, for steps of users",
        moves={phase: (phase,) for phase in (Phase.DRAINING, Phase.PROMOTING)},
    ),
    "promote": Transition(
        by=_OWNER,
        meaning="makes the target the active region; the epoch grows by 1",
        moves={Phase.DRAINING: (Phase.PROMOTING,)},
    ),
    "resume": Transition(
        by=_OWNER_OR_AGENT,
        meaning="lets the target execute: all its schedulers know the epoch",
        moves={Phase.PROMOTING: (Phase.RESUMING,)},
    ),
    "complete": Transition(by=_OWNER_OR_AGENT, meaning="ends the plan", moves={Phase.RESUMING: (Phase.STEADY,)}),
    "cancel": Transition(
        by="the engine of a caller that names the active region, or the owner after a drain that is too long",
        meaning="gives the plan up before its promotion; goes back to the promoted plan that it had superseded",
        moves={Phase.DRAINING: (Phase.PROMOTING, Phase.RESUMING)},
    ),
    "supersede": Transition(
        by="the engine of a caller that names another region",
        meaning="replaces the open plan, and keeps its recorded set",
        moves=dict.fromkeys((Phase.DRAINING, Phase.PROMOTING, Phase.RESUMING), (Phase.DRAINING,)),
    ),
    "recover": Transition(
        by="the engine of a caller, if the state gives no region a role",
        meaning="recovers such a state, with a forced plan",
        moves=dict.fromkeys(Phase, (Phase.DRAINING,)),
    ),
    "take_over": Transition(
        by="an engine that follows, or the target's agent after the promotion",
        meaning="becomes the owner of a plan that is halted, or whose owner is silent",
        moves=_KEPT_WHILE_OPEN,
    ),
    "beat": Transition(by=_OWNER, meaning="shows that the owner is alive", moves=_KEPT_WHILE_OPEN),
    "harden": Transition(
        by="the engine of a caller that joins",
        meaning="adds `--stop-running` or `--mode forced` to the open plan",
        moves=_KEPT_WHILE_OPEN,
    ),
    "set_active_region": Transition(
        by="`DRStateHook.set_active_region`",
        meaning="moves the role without drain, lease or recorded set; for recovery by hand",
        moves={Phase.STEADY: (Phase.STEADY,)},
    ),
}
"""The transitions, by the name of the function in this module that makes them."""


def initial(active_region: str, *, lease_s: float, by: str, at: datetime, epoch: int = 0, version: int = 1) -> DRState:
    """
    Return the first state of a DR set.

    :param epoch, version: if an earlier state of the set was lost: above every epoch and version that an item of the
        set still contains.
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
    Return the state in which *plan* is in progress. The source starts no new runs.

    :raises AlreadyActiveError: the target is active, and no failover is in progress.
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
    return _next(state, "claim", plan=replace(plan, source=state.active_region), by=plan.by, at=at)


def supersede(state: DRState, plan: Plan, *, at: datetime) -> DRState:
    """
    Return the state in which *plan* replaces the open plan.

    The new plan stores the plan that made the region active, if that plan has not ended: a cancellation returns to it.
    Plans that had not promoted are dropped, so that plans do not nest. The new plan inherits the recorded set, if there
    is one: the DAGs that users want unpaused do not depend on the direction. While it is unknown which region executes,
    the new plan, like the open one, is forced and counts every region except its target as the source.
    """
    open_plan = _plan_in_phase(state, "supersede")
    is_recovery = open_plan.is_recovery and state.phase is Phase.DRAINING
    if plan.target == state.active_region and state.phase is Phase.DRAINING and not is_recovery:
        raise WrongPhaseError(
            f"{plan.target} is still the active region of plan {open_plan.id}.", advice="Cancel that plan instead."
        )
    return _next(
        state,
        "supersede",
        plan=replace(
            plan,
            source=open_plan.source if is_recovery else state.active_region,
            mode=Mode.FORCED if is_recovery else plan.mode,
            set_id=open_plan.set_id,
            replaced=_promoted(state),
            is_recovery=is_recovery,
            lease_s=open_plan.lease_s if state.phase is Phase.DRAINING else None,
        ),
        by=plan.by,
        at=at,
    )


def cancel(state: DRState, *, plan_id: str, by: str, owner: str, reason: str, at: datetime) -> DRState:
    """
    Return the state in which the open plan is cancelled before its promotion.

    If the open plan had replaced a promoted plan, that plan is open again, under its own id. Its target is active, but
    not yet prepared, or its recorded set is not yet unpaused. Plans that had not promoted are cancelled, too.

    Otherwise the phase becomes RESUMING, with the same region and epoch, under *plan_id*. The id is new, so that an
    engine that still works on the old plan cannot mistake the new plan for its own. The steps after RESUMING unpause
    the paused DAGs, and the region starts its held runs.

    :raises WrongPhaseError: the plan is promoted already, or no plan is open, or it is unknown which region executes.
    """
    open_plan = _open_plan(state)
    if open_plan.is_recovery and state.phase is Phase.DRAINING:
        raise WrongPhaseError(
            f"Plan {open_plan.id} replaced a state that names no active region, so it has no region to return to.",
            advice="Fail over to the region that you want active.",
        )
    if state.phase is not Phase.DRAINING:
        raise WrongPhaseError(
            f"Plan {open_plan.id} is {state.phase.value}: {state.active_region} is active already.",
            advice=f"Fail over to {open_plan.source} instead.",
        )
    replaced = _promoted(state)
    if replaced is not None:
        phase, earlier = replaced
        # An earlier plan without a recorded set has paused nothing. The cancelled plan may have paused its set.
        set_id = earlier.set_id or open_plan.set_id
        back = replace(earlier, owner=owner, beat=earlier.beat + 1, set_id=set_id, hold=None)
        return _next(state, "cancel", phase=phase, plan=back, by=by, at=at)
    back = replace(
        open_plan,
        id=plan_id,
        target=open_plan.source,
        owner=owner,
        by=by,
        reason=reason,
        started_at=at,
        beat=0,
        starts_awaited=False,
        drained=False,
        replaced=None,
        hold=None,
        halts=0,
        quiet=False,
    )
    return _next(state, "cancel", phase=Phase.RESUMING, plan=back, by=by, at=at)


def recover(state: DRState, plan: Plan, *, lease_s: float, at: datetime) -> DRState:
    """
    Return the state in which *plan* recovers a state that names no active region or cannot be used.

    The plan is always forced, and every registered region except its target counts as the source. It inherits the
    recorded set of the open plan, if there is one.

    :param plan: its source is the last known active region.
    :param lease_s: the lease from the promotion on, if the stored lease cannot be used. Until then the longest lease
        applies.
    :raises WrongPhaseError: the stored epoch cannot be used, so no next epoch is known to be the highest.
    """
    broken = {problem.field for problem in state.problems}
    if "epoch" in broken:
        raise WrongPhaseError(
            f"A failover cannot recover the item {STATE_ID}: {'; '.join(map(str, state.problems))}.",
            advice="Correct it, or run mwaa-dr init --active REGION --above-every-epoch.",
        )
    lost = state.plan if state.phase is not Phase.STEADY else None
    kept = lost.lease_s if lost is not None and state.phase is Phase.DRAINING else None
    return _next(
        replace(state, problems=()),
        "recover",
        plan=replace(
            plan,
            mode=Mode.FORCED,
            set_id=lost.set_id if lost is not None else None,
            is_recovery=True,
            lease_s=lease_s if "lease_s" in broken else kept,
        ),
        by=plan.by,
        at=at,
    )


def record_set(state: DRState, set_id: str, *, at: datetime) -> DRState:
    """Return the state whose plan names its recorded set of DAGs. A plan that already names a set keeps it."""
    plan = _plan_in_phase(state, "record_set")
    if plan.set_id is not None:
        return state
    return _next(state, "record_set", plan=replace(plan, set_id=set_id), by=plan.by, at=at)


def harden(state: DRState, *, stops: bool, forces: bool, at: datetime) -> DRState:
    """Return the state whose plan, at a caller's request, stops runs that outlast the drain, or is forced."""
    plan = _plan_in_phase(state, "harden")
    if stops and not plan.stop_running:
        state = replace(state, plan=replace(plan, stop_running=True))
    return turn_forced(state, at=at) if forces else beat(state, at=at)


def announce(state: DRState, set_id: str, *, had_ended: bool, at: datetime) -> DRState:
    """
    Return the state with one more announcement: the runs that the failover is about to stop, or those that had ended.

    :param set_id, had_ended: see :class:`Stop`.
    """
    plan = _plan_in_phase(state, "announce")
    if any(each.set_id == set_id for each in state.stops):
        return state
    stop = Stop(set_id=set_id, epoch=state.epoch, had_ended=had_ended)
    return replace(_next(state, "announce", plan=plan, by=plan.by, at=at), stops=(*state.stops, stop))


def stops_of(state: DRState, epoch: int) -> tuple[Stop, ...]:
    """Return the announcements that failovers made under *epoch* about runs that they stop, in order."""
    return tuple(stop for stop in state.stops if stop.epoch == epoch)


def start_awaited(state: DRState, *, at: datetime) -> DRState:
    """Return the state in which the source's gate lets those held runs start that work in progress waits for."""
    plan = _plan_in_phase(state, "start_awaited")
    if plan.starts_awaited or plan.drained or plan.is_forced:
        return state
    return _next(state, "start_awaited", plan=replace(plan, starts_awaited=True), by=plan.by, at=at)


def hold_awaited(state: DRState, *, at: datetime) -> DRState:
    """
    Return the state in which the source's gate holds every run again.

    The gate is closed only when every scheduler has acknowledged *this* write, or its lease has expired since.
    """
    plan = _plan_in_phase(state, "hold_awaited")
    if not plan.starts_awaited:
        return state
    return _next(state, "hold_awaited", plan=replace(plan, starts_awaited=False), by=plan.by, at=at)


def drained(state: DRState, *, at: datetime) -> DRState:
    """
    Return the state that marks the source as drained: no run is in progress, and none can start.

    Its gates are closed by now, so the plan is quiet.

    :raises WrongPhaseError: the gate may still let awaited runs start.
    """
    plan = _plan_in_phase(state, "drained")
    if plan.starts_awaited:
        raise WrongPhaseError(
            f"Plan {plan.id} still lets held runs of {plan.source} start, at version {state.version}.",
            advice="Write hold_awaited, wait until the gate is closed, and count the runs again.",
        )
    if plan.drained:
        return state
    return _next(state, "drained", plan=replace(plan, drained=True, quiet=True), by=plan.by, at=at)


def turn_forced(state: DRState, *, at: datetime) -> DRState:
    """
    Return the state in which the plan continues without its source.

    The engine turns an AUTO plan forced by itself, and any plan at a caller's request. This is a state write because
    the lease is counted from it: before it, the source may finish its running runs.
    """
    plan = _plan_in_phase(state, "turn_forced")
    if plan.is_forced:
        raise WrongPhaseError(
            f"Plan {plan.id} is forced already (version {state.version}).",
            advice="It continues without its source. Follow it with the command that started it.",
        )
    return _next(state, "turn_forced", plan=replace(plan, mode=Mode.FORCED, starts_awaited=False), by=plan.by, at=at)


def halt(state: DRState, *, at: datetime) -> DRState:
    """
    Return the state in which the plan waits at the stage that its caller named, without an owner.

    The caller has completed every step up to this stage. So in DRAINING, no gate and no fence of the source is open.

    :raises WrongPhaseError: the plan does not halt in this phase.
    """
    plan = _plan_in_phase(state, "halt")
    if plan.hold is not stage_in(state.phase):
        raise WrongPhaseError(
            f"Plan {plan.id} does not halt in {state.phase.value}: it halts at "
            f"{plan.hold.value if plan.hold is not None else 'no stage'} (version {state.version}).",
            advice="Read the state again; mwaa-dr status shows it.",
        )
    is_quiet = plan.quiet or state.phase is Phase.DRAINING
    halted = replace(plan, owner="", halts=plan.halts + 1, quiet=is_quiet)
    return _next(state, "halt", plan=halted, by=plan.by, at=at)


def stage_in(phase: Phase) -> Stage | None:
    """Return the stage at which a plan in *phase* may be halted."""
    return {Phase.DRAINING: Stage.DRAINED, Phase.PROMOTING: Stage.PROMOTED}.get(phase)


def meaning(stage: Stage, *, source: str, target: str) -> str:
    """Return what holds while a plan is halted at *stage*, as a text for display."""
    if stage is Stage.DRAINED:
        return f"{source} starts nothing, and {target} is not active yet"
    return f"{target} is active and starts nothing yet"


def has_reached(state: DRState, stage: Stage) -> bool:
    """Whether the open plan is halted at *stage*, or has passed it."""
    plan = _open_plan(state)
    if stage_in(state.phase) is stage:
        return plan.is_halted
    return state.phase is Phase.RESUMING or stage_in(state.phase) is Stage.PROMOTED


def promote(state: DRState, *, at: datetime) -> DRState:
    """
    Return the state in which the plan's target is the active region.

    ``epoch`` grows by one, which fences all holders of the old epoch.

    :param at: aware UTC time of the decision, stored for the audit trail.
    :raises WrongPhaseError: the state is not DRAINING.
    """
    plan = _plan_in_phase(state, "promote")
    promoted = replace(plan, replaced=None, quiet=False)  # a promoted plan cannot be cancelled
    return replace(
        _next(state, "promote", plan=promoted, by=plan.by, at=at),
        active_region=plan.target,
        epoch=state.epoch + 1,
        failover_count=state.failover_count + 1,
        lease_s=state.lease_s if plan.lease_s is None else plan.lease_s,
        previous_region=plan.source if plan.is_recovery else state.active_region,
        failover_reason=plan.reason,
        last_failover_time=at,
        # The source may not have published these runs yet. No agent needs the stops of earlier epochs.
        stops=stops_of(state, state.epoch),
    )


def resume(state: DRState, *, at: datetime) -> DRState:
    """Return the state in which the target may execute. First all its schedulers must acknowledge the epoch."""
    plan = _plan_in_phase(state, "resume")
    return _next(state, "resume", plan=replace(plan, hold=None), by=plan.by, at=at)


def complete(state: DRState, *, not_unpaused_set_id: str | None, at: datetime) -> DRState:
    """
    Return the STEADY state at the end of a plan.

    :param not_unpaused_set_id: see :class:`DRState`. Users rely on it, so it is part of this write and does not depend
        on the plan's record, which may fail to be written.
    """
    plan = _plan_in_phase(state, "complete")
    return replace(_next(state, "complete", plan=None, by=plan.by, at=at), not_unpaused_set_id=not_unpaused_set_id)


def beat(state: DRState, *, at: datetime) -> DRState:
    """Return the state with a higher beat, which shows that the plan's owner is alive."""
    plan = _plan_in_phase(state, "beat")
    return _next(state, "beat", plan=replace(plan, beat=plan.beat + 1), by=state.changed_by, at=at)


def take_over(
    state: DRState, *, owner: str, at: datetime, hold: Stage | None = None, hold_s: float = DEFAULT_HOLD_S
) -> DRState:
    """
    Return the state in which *owner* owns the open plan: a halted plan, or one whose owner's beat no longer changes.

    :param hold, hold_s: the stage of the new owner's caller; see :class:`Plan`. That of the caller before ends.
    """
    plan = _plan_in_phase(state, "take_over")
    taken = replace(plan, owner=owner, beat=plan.beat + 1, hold=hold, hold_s=hold_s)
    return _next(state, "take_over", plan=taken, by=state.changed_by, at=at)


def set_active_region(state: DRState, region: str, *, reason: str, by: str, at: datetime) -> DRState:
    """
    Return the state in which *region* is active immediately, as the hook of the AWS sample does.

    It does not drain, does not wait for the lease, and neither records nor restores unpaused DAGs. Use it only for
    recovery by hand and for tests; a failover does far more. The epoch grows, so it fences like any promotion.

    :raises ConfigError: the reason is empty or too long.
    :raises AlreadyActiveError: *region* is active, and no failover is in progress.
    :raises WrongPhaseError: a plan is open, or a value of the state cannot be used.
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
        _next(state, "set_active_region", plan=None, by=by, at=at),
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
    """Return the unfinished plan that made the region active, also if a newer plan supersedes it; else None."""
    promoted = _promoted(state)
    return None if promoted is None else promoted[1]


def unresumed_plan(state: DRState) -> Plan | None:
    """Return the plan of :func:`promoted_plan` if its target may not execute yet, so that no region may; else None."""
    promoted = _promoted(state)
    return promoted[1] if promoted is not None and promoted[0] is Phase.PROMOTING else None


def _promoted(state: DRState) -> tuple[Phase, Plan] | None:
    """Return the promoted, unfinished plan with its phase. Items of version 0.1 may nest several unpromoted plans."""
    found = (state.phase, state.plan) if state.plan is not None else None
    while found is not None and found[0] is Phase.DRAINING:
        found = found[1].replaced
    return None if found is None else (found[0], replace(found[1], replaced=None))


# The ids of recorded sets. The set of the DAGs that a plan found unpaused has the plan's own id. A set is never
# overwritten, and an engine that died may have recorded one, so the other ids contain a digest of the content.


def announced_set_id(plan_id: str, number: int, runs: Sequence[str], *, had_ended: bool) -> str:
    """Return the id of the set of runs of a plan's announcement; *number* is its position in the state item."""
    return f"{plan_id}-{'ended' if had_ended else 'stopped'}-{number}-{_digest(runs)}"


def not_unpaused_set_id(plan_id: str, dag_ids: Sequence[str]) -> str:
    """Return the id of the set of DAGs that a plan could not unpause."""
    return f"{plan_id}-left-{_digest(dag_ids)}"


def is_wanted_set(set_id: str) -> bool:
    """Whether a set lists the DAGs that a plan found unpaused; other sets list stopped runs or DAGs not unpaused."""
    return _OTHER_SETS.search(set_id) is None


_OTHER_SETS = re.compile(r"-((stopped|ended)-[0-9]+(-[0-9a-f]{8})?|left-[0-9a-f]{8})$")


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]


def regions_of(state: DRState) -> frozenset[str]:
    """Return the regions that the state names: the active, the previous, and the plan's source and target."""
    plan = (state.plan.source, state.plan.target) if state.plan is not None else ()
    return frozenset(region for region in (state.active_region, state.previous_region, *plan) if region)


def _plan_in_phase(state: DRState, transition: str) -> Plan:
    """
    Return the open plan.

    :raises WrongPhaseError: the table does not allow *transition* in the phase of *state*.
    """
    plan = _open_plan(state)
    allowed = TRANSITIONS[transition].moves
    if state.phase not in allowed:
        raise WrongPhaseError(
            f"Plan {plan.id} is {state.phase.value} at version {state.version}: {transition} is allowed only in "
            f"{', '.join(phase.value for phase in allowed)}.",
            advice="Another process continued the plan. Read the state again; mwaa-dr status shows it.",
        )
    return plan


def _open_plan(state: DRState) -> Plan:
    _refuse_problems(state)
    if state.plan is None or state.phase is Phase.STEADY:
        raise WrongPhaseError(
            f"No plan is open: the state is {state.phase.value} at version {state.version}.",
            advice="Read the state again; mwaa-dr status shows it, and mwaa-dr history how the last plan ended.",
        )
    return state.plan


def _refuse_problems(state: DRState) -> None:
    if state.problems:
        raise WrongPhaseError(
            f"The item {STATE_ID} cannot be used: {'; '.join(map(str, state.problems))}.",
            advice="Correct it, or run mwaa-dr failover REGION --reason TEXT, which recovers the state.",
        )


def _shown(value: str) -> str:
    """Return a value in quotes, shortened if it is long."""
    return repr(value if len(value) <= 60 else value[:60] + "...")


def _next(
    state: DRState, transition: str, *, plan: Plan | None, by: str | None, at: datetime, phase: Phase | None = None
) -> DRState:
    """Return the next state. *phase* is needed only if the table gives several phases."""
    (to,) = TRANSITIONS[transition].moves[state.phase] if phase is None else (phase,)
    return replace(state, phase=to, plan=plan, version=state.version + 1, last_updated=at, changed_by=by)
