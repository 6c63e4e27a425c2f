"""
The failover engine: the steps of a failover over the ports, repeatable and resumable by anyone.

The plan lies in the state item, so an engine holds nothing that another one could not read: it is started again, on
another machine or by another kind of caller, and goes on where the last one stopped. Before each thing it does it
reads the row and acts only if plan id, owner and phase are its own.

The agents transfer history and interrupted runs through the ledger. The engine waits for the source's final ledger
entry before it promotes, and after that for the target's agent to take these over.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import DRConfig, Eventual, is_exempt
from airflow_provider_mwaa_dr.core.environments import known_region
from airflow_provider_mwaa_dr.core.heartbeats import Beats, Silence, beats, live_agents
from airflow_provider_mwaa_dr.core.lease import (
    CLOCK_MARGIN,
    Closing,
    awaited,
    has_acknowledged,
    is_ready_to_resume,
    live_have_acknowledged,
)
from airflow_provider_mwaa_dr.core.ports import (
    AgentStatus,
    Clock,
    DagInfo,
    DagSet,
    Environment,
    FailoverRecord,
    RunInfo,
    StateStore,
    StepRecord,
)
from airflow_provider_mwaa_dr.core.readiness import (
    TEST_DAG,
    RegionFacts,
    Unknown,
    ignores_lease,
    refusals,
    try_read,
    unclosed_runs,
    why_lease_is_ignored,
)
from airflow_provider_mwaa_dr.core.reasons import checked_reason
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import (
    AlreadyActiveError,
    ConfigError,
    DrainTimeoutError,
    DRError,
    FailoverError,
    IncompleteError,
    MwaaError,
    MwaaUnreachableError,
    NotReadyError,
    PlanSupersededError,
    RefusedError,
    StaleStateError,
    StateAccessError,
    StateError,
    StateUnreachableError,
    UnreadableItemError,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """
    Seconds that the engine waits, and for what.

    :param drain_s: runs in flight may take this long to finish.
    :param answer_s: an AUTO failover turns forced when the source has not answered for this long; or once, while its
        schedulers show no heartbeats either.
    :param heartbeat_s: between two heartbeats of an agent; a few of them without change, and it counts as gone.
    :param gate_commit_s: one scheduler loop. After it, the database shows what a gate let through before it knew of
        the claim.
    :param beat_s: between two signs of life of this engine in the plan.
    :param takeover_s: a plan whose beat stood still for this long, on this process's clock, may be taken over.
    :param stop_s: executing tasks of a stopped run are gone after at most this long.
    :param final_s: how long to wait for the source's final ledger entry; then the failover continues without it.
    :param adopt_s: the target's agents have prepared their database after at most this long.
    :param verify_s: the first run in the target has succeeded after at most this long.
    :param state_s: a state table that does not answer is asked again for this long.
    :param poll_s: between two looks at anything.
    :param lease_s: of the set from promote on, where the lease in the state item cannot be used.
    """

    drain_s: float = 60.0
    answer_s: float = 20.0
    heartbeat_s: float = 5.0
    gate_commit_s: float = 2.0
    beat_s: float = 10.0
    takeover_s: float = 30.0
    stop_s: float = 120.0
    final_s: float = 20.0
    adopt_s: float = 120.0
    verify_s: float = 90.0
    state_s: float = 30.0
    poll_s: float = 1.0
    lease_s: float = 60.0

    @classmethod
    def from_config(cls, config: DRConfig) -> Timing:
        """Return the waits that belong to a DR set's settings."""
        # A call to MWAA may take 10 s, and the owner of a plan shows no sign of life meanwhile.
        takeover_s = max(10.0, 6 * config.heartbeat_s)
        return cls(
            drain_s=config.drain_s,
            heartbeat_s=config.heartbeat_s,
            beat_s=takeover_s / 3,
            takeover_s=takeover_s,
            poll_s=min(1.0, config.refresh_s / 4),
            lease_s=config.lease_s,
        )

    @property
    def agent_silence_s(self) -> float:
        """Seconds without a new heartbeat after which an agent counts as gone."""
        return 3 * self.heartbeat_s + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverRequest:
    """
    What a caller wants.

    :param target: region that is to be active. Naming the active one cancels a plan that has not promoted yet.
    :param reason: kept for good, in the state and in the record; 1 to 1,000 characters.
    :param by: who asks, for people.
    :param stop_running: stop runs that outlast the drain; without it the failover is abandoned then.
    :param even_if_not_ready: go on although a check of the target failed.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent:
    """
    Progress, for people: a step started, moved on, or is done.

    :param status: started, progress or done.
    :param seconds: since the step started.
    """

    name: str
    status: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverPreview:
    """
    What a failover would do now; nothing was changed to find out.

    :param action: nothing (already active), claim, join, cancel, supersede or take over.
    :param taken_over: why the state names no active region; the failover takes it over then, forced whatever mode was
        requested. None for any other action.
    :param wanted: DAGs that would be paused in the source and unpaused in the target; None when it cannot be known.
    :param running: runs in flight in the source; None when it cannot be known, or a forced failover would not ask.
    :param not_ready: why the target would be refused, a line each.
    """

    action: str
    source: str
    target: str
    mode: Mode
    epoch: int
    phase: Phase
    plan_id: str | None
    wanted: int | None
    exempt: int | None
    running: tuple[str, ...] | None
    not_ready: tuple[str, ...]
    steps: tuple[str, ...]
    taken_over: str | None = None


class _TakenOverError(Exception):
    """Another engine owns the plan now, or has ended it; this one follows."""

    def __init__(self, plan_id: str) -> None:
        super().__init__(plan_id)
        self.plan_id = plan_id


class FailoverEngine:
    """
    Moves the active role.

    :param store: the state table.
    :param environments: the DR set's environments by region.
    :param owner: names this process; unique among all engines that could ever meet.
    :param exempt_dags: ids that are left alone, besides DAGs tagged ``dr:control``.
    :param eventual: whether the copies of the state table follow each other later.
    :param on_step: called with each :class:`StepEvent`. What it raises is dropped: a failover does not depend on its
        output. Only what is no ``Exception``, as KeyboardInterrupt, ends it.
    """

    def __init__(
        self,
        store: StateStore,
        environments: Mapping[str, Environment],
        clock: Clock,
        timing: Timing,
        owner: str,
        on_step: Callable[[StepEvent], None] = lambda _: None,
        *,
        exempt_dags: Collection[str] = frozenset(),
        eventual: bool = False,
        new_token: Callable[[], str] = lambda: uuid.uuid4().hex[:6],
    ) -> None:
        self._store = store
        self._eventual = eventual
        self._environments = environments
        self._clock = clock
        self._timing = timing
        self._owner = owner
        self._on_step = on_step
        self._exempt_dags = frozenset(exempt_dags)
        self._new_token = new_token
        self._last_write = clock.monotonic()
        self._insists = False
        self._record: FailoverRecord | None = None
        self._steps: list[StepRecord] = []
        self._step, self._step_started, self._last_detail = "check", self._last_write, ""
        self._unrecorded = ""
        self._silence = Silence(self._agents, clock)
        self._warnings: tuple[str, ...] = ()

    # -- what callers call ---------------------------------------------------------------------------------------

    def run(self, request: FailoverRequest) -> FailoverRecord:
        """
        Move the active role to *request.target* and return what was done.

        Repeatable: called again, by anyone, it joins the open plan for the same target, and after completion it says
        so. Killed at any point, nothing is lost; the next call goes on.

        :raises AlreadyActiveError: the target is active and nothing is in progress; treat it as success.
        :raises NotReadyError: a check failed; nothing was changed.
        :raises DrainTimeoutError: runs outlasted the drain; the plan was abandoned, the source goes on.
        :raises PlanSupersededError: another caller named another region; this engine has stopped.
        :raises FailoverError: a deadline passed in a later step; the plan is open and can be joined or cancelled.
        :raises StateError: the state could not be read, or there is none.
        """
        self._environment(request.target)
        if not request.reason.strip():
            raise ConfigError("The reason is empty.", advice="Say why; it is kept in the state and in the record.")
        self._insists = request.even_if_not_ready
        entered = self._enter(request)
        while True:
            if isinstance(entered, FailoverRecord):
                return entered
            try:
                try:
                    return self._drive(entered)
                except RefusedError:
                    raise
                except DRError as error:
                    raise self._stopped(error) from error
            except _TakenOverError as taken:
                # Record and steps are the new owner's from here on; written from here they would go back in time.
                self._record, self._steps = None, []
                entered = self._follow(request.target, taken.plan_id, self._read())

    def preview(self, request: FailoverRequest) -> FailoverPreview:
        """Return what :meth:`run` would do now. Changes nothing, calls no source that a forced failover would not."""
        self._environment(request.target)
        state = self._read()
        action = self._action(state, request.target)
        plan = state.plan
        # A caller who supersedes leaves the region that is active now, whichever the open plan leaves.
        source = plan.source if plan is not None and action == "join" else state.active_region
        mode, taken_over = request.mode, None
        if action == "take over":
            source, mode = self._last_active(state, request.target), Mode.FORCED
            taken_over = self._why_unknown(state, request.target)
        not_ready: Sequence[str] = ()
        wanted = exempt = None
        running: tuple[str, ...] | None = None
        if action in {"claim", "supersede", "take over"}:
            not_ready = self._problems(state, replace(request, mode=mode))
            if mode is not Mode.FORCED:
                with suppress(MwaaError):  # graceful: among the problems already; auto: it would go on without it
                    dags = self._environment(source).dags()
                    exempt = len(self._exempt(dags))
                    wanted = len(self._unpaused(dags))
                    runs = self._environment(source).running_runs()
                    running = tuple(str(run) for run in _not_of(self._exempt(dags), runs))
        set_id = plan.set_id if plan is not None else None
        if set_id is not None:
            recorded, _ = self._set_if_readable(lambda: self._store.get_set(set_id))
            wanted = len(recorded.dag_ids) if recorded is not None else None
        elif action == "take over" and (lost := self._set_of_lost_plan()) is not None:
            wanted = len(lost.dag_ids)
        elif wanted is None:
            snapshot, _ = self._set_if_readable(lambda: self._store.get_snapshot(source))
            wanted = len(snapshot.dag_ids) if snapshot is not None else None
        return FailoverPreview(
            action=action,
            source=source,
            target=request.target,
            mode=mode,
            epoch=state.epoch,
            phase=state.phase,
            plan_id=plan.id if plan is not None else None,
            wanted=wanted,
            exempt=exempt,
            running=running,
            not_ready=tuple(not_ready),
            steps=_steps_of(action, mode),
            taken_over=taken_over,
        )

    # -- entering a plan -----------------------------------------------------------------------------------------

    def _action(self, state: DRState, target: str) -> str:
        """Return what a caller who names *target* does, given the row."""
        plan = state.plan
        is_left = plan is not None and not state.problems and state.phase is Phase.DRAINING and plan.target == target
        # The source of a plan that is joined is in the plan, whatever else the item says.
        if not is_left and self._why_unknown(state, target) is not None:
            return "take over"
        if state.phase is Phase.STEADY or plan is None:
            return "nothing" if state.active_region == target else "claim"
        if plan.target == target:
            return "join"
        if state.phase is Phase.DRAINING and state.active_region == target and not plan.takes_over:
            return "cancel"
        return "supersede"

    def _why_unknown(self, state: DRState, target: str) -> str | None:
        """Return why *state* names no active region, or cannot be acted on; None where it does, and can."""
        # A region that this caller was given needs no look into the table.
        is_given = state.active_region in self._environments
        regions = frozenset(self._environments) if is_given else self._regions()
        return transitions.why_unknown(state, regions, region=target)

    def _regions(self) -> frozenset[str]:
        """Return the regions of the set: those that are registered, and those that this caller was given."""
        return self._table(self._store.regions).union(self._environments)

    def _last_active(self, state: DRState, target: str) -> str:
        """Return the region that was active last, as far as anything tells; one of the set in any case."""
        regions = self._regions()
        is_known = state.phase in {Phase.STEADY, Phase.DRAINING} and "phase" not in {
            problem.field for problem in state.problems
        }
        if is_known and state.active_region in regions:
            return state.active_region
        completed = [record for record in self._history(self._store.records) or () if record.outcome == "completed"]
        if completed and completed[0].target in regions:
            return completed[0].target
        newest = self._newest_snapshot(regions)
        if newest is not None:
            return newest.region
        return min(regions - {target}, default=target)

    def _newest_snapshot(self, regions: Collection[str]) -> DagSet | None:
        read = [self._set_if_readable(partial(self._store.get_snapshot, region))[0] for region in sorted(regions)]
        taken = [snapshot for snapshot in read if snapshot is not None]
        return max(taken, key=lambda snapshot: snapshot.recorded_at, default=None)

    def _sources(self, plan: Plan) -> Sequence[str]:
        """Return the regions that may execute until the plan promotes: all but the target where nobody knows which."""
        if not plan.takes_over:
            return [plan.source]
        return sorted(self._regions() - {plan.target}) or [plan.source]

    def _enter(self, request: FailoverRequest) -> DRState | FailoverRecord:
        """
        Claim, join, cancel or supersede, until one of them is written.

        :return: the row that this engine acts on; or the record, when the plan's owner finished it meanwhile.
        """
        checked = False
        while True:
            state = self._read()
            action = self._action(state, request.target)
            if action == "nothing":
                raise AlreadyActiveError(f"{request.target} is active already (epoch {state.epoch}), nothing to do.")
            if action == "join":
                with suppress(_TakenOverError):
                    return self._join(state, request)
                continue
            if action in {"claim", "supersede", "take over"} and not checked:
                self._check(state, replace(request, mode=Mode.FORCED) if action == "take over" else request)
                checked = True
                continue  # the row may have moved while the checks took their time
            if action == "cancel" and not self._insists and (why := self._why_target_copy_unreadable(state)):
                raise NotReadyError(
                    f"Plan {_plan(state).id} cannot be cancelled: {why}.",
                    why=[why],
                    advice="Nothing was changed. Wait for that copy, or repeat with --even-if-not-ready.",
                )
            at, note = self._clock.now(), ""
            plan = self._new_plan(state, request)
            if action == "claim":
                new = transitions.claim(state, plan, at=at)
            elif action == "supersede":
                new = transitions.supersede(state, plan, at=at)
            elif action == "take over":
                last = replace(plan, source=self._last_active(state, request.target))
                new = transitions.recover(state, last, lease_s=self._timing.lease_s, at=at)
                note = (
                    f"; {self._why_unknown(state, request.target)}; it is forced, whatever mode was requested, and "
                    f"waits for every other registered region: {', '.join(self._sources(_plan(new)))}"
                )
            else:
                new = transitions.cancel(
                    state, plan_id=plan.id, by=request.by, owner=self._owner, reason=request.reason, at=at
                )
            with self._timed(action):
                try:
                    self._put(new, state.version)
                except StaleStateError:
                    continue  # somebody was faster: read again, decide again
                self._close_other_records(_plan(new))
                self._open_record(new)
                self._done(f"plan {_plan(new).id}: {_plan(new).source} -> {_plan(new).target}{note}")
            return new

    def _new_plan(self, state: DRState, request: FailoverRequest) -> Plan:
        at = self._clock.now()
        return Plan(
            id=f"{at:%Y%m%dT%H%M%SZ}-{self._new_token()}",
            source=state.active_region,
            target=request.target,
            mode=request.mode,
            reason=request.reason,
            by=request.by,
            owner=self._owner,
            started_at=at,
            stop_running=request.stop_running,
        )

    def _join(self, state: DRState, request: FailoverRequest) -> DRState | FailoverRecord:
        """Follow the plan's owner; take over when its beat stands still. A caller may harden the mode, never soften."""
        plan = _plan(state)
        would_force = request.mode is Mode.FORCED and not plan.is_forced and state.phase is Phase.DRAINING
        if would_force and not request.even_if_not_ready and (why := self._why_lease_is_ignored(plan.source)):
            raise NotReadyError(
                f"Plan {plan.id} cannot turn forced: {why}.",
                why=[why],
                advice="Make sure that it is down, then repeat with --even-if-not-ready.",
            )
        followed = self._follow(request.target, plan.id, state)
        if isinstance(followed, FailoverRecord):
            return followed
        plan = _plan(followed)
        forces = request.mode is Mode.FORCED and not plan.is_forced and followed.phase is Phase.DRAINING
        stops = request.stop_running and not plan.stop_running
        if not (forces or stops):
            return followed

        return self._write(
            plan.id,
            followed.phase,
            lambda row: transitions.harden(row, stops=stops, forces=forces, at=self._clock.now()),
        )

    def _follow(self, target: str, plan_id: str, state: DRState) -> DRState | FailoverRecord:
        """
        Watch somebody else's plan: return its record when it ends, or the row once this engine has taken over.

        :raises PlanSupersededError: the role goes somewhere else than *target* now.
        """
        with self._timed("join"):
            seen, since = state.version, self._clock.monotonic()
            while True:
                _refuse_unusable(state)
                if state.plan is None or state.phase is Phase.STEADY:
                    if state.active_region != target:
                        raise _superseded(plan_id, state)
                    record = self._history(partial(self._store.get_record, plan_id))
                    if record is None or record.outcome != "completed":
                        raise AlreadyActiveError(
                            f"{target} is active (epoch {state.epoch}); plan {plan_id} ended while this caller "
                            "followed it."
                        )
                    self._done(f"plan {plan_id} was finished by its owner")
                    return record
                if state.plan.target != target:
                    raise _superseded(plan_id, state)
                plan_id = state.plan.id
                owner = state.plan.owner
                if owner == self._owner:
                    return state
                if state.version != seen:
                    seen, since = state.version, self._clock.monotonic()
                still_s = self._clock.monotonic() - since
                if still_s > self._timing.takeover_s:
                    new = transitions.take_over(state, owner=self._owner, at=self._clock.now())
                    try:
                        self._put(new, state.version)
                    except StaleStateError:
                        state = self._read()
                        continue
                    self._done(f"took over plan {plan_id}: {owner} was silent for {still_s:.0f} s")
                    return new
                self._progress(f"following plan {plan_id} of {owner} ({state.phase.value}); silent for {still_s:.0f} s")
                self._clock.sleep(self._timing.poll_s)
                state = self._read()

    # -- the steps -----------------------------------------------------------------------------------------------

    def _drive(self, state: DRState) -> FailoverRecord:
        """Take the plan to its end from whatever phase it is in."""
        plan_id = _plan(state).id
        # A lease is counted from the response of the write that ended what the source may start, or, for an engine
        # that joins, from its own first read. Both are now.
        since = self._clock.monotonic()
        self._open_record(state)
        abandoned: DrainTimeoutError | None = None
        while True:
            state = self._mine(plan_id)
            plan = _plan(state)
            if state.phase is Phase.DRAINING:
                try:
                    self._leave_source(state, since)
                except DrainTimeoutError as error:
                    abandoned = error
                    plan_id = self._abandon(state, error)
                except MwaaUnreachableError as error:
                    if plan.mode is not Mode.AUTO:
                        raise
                    self._turn_forced(plan, error)
                    since = self._clock.monotonic()
            elif state.phase is Phase.PROMOTING:
                self._adopt(state)
            else:
                wanted = self._unpause(plan)
                not_unpaused = self._verify(plan, wanted)
                record = self._complete(state, wanted, not_unpaused)
                if abandoned is not None:
                    raise abandoned
                return record

    def _leave_source(self, state: DRState, since: float) -> None:
        """Everything in DRAINING, up to and including promote."""
        plan = _plan(state)
        if plan.mode is Mode.AUTO:
            self._silence.seconds(plan.source)
        if plan.is_forced:
            if plan.set_id is None:
                self._record_set_from_snapshot(state)
            for region in self._sources(plan):
                left = replace(plan, source=region)
                with self._timed("lease"):
                    closing = self._closing(left, state, since)
                    self._wait_for_lease(left, replace(closing, fence_since=closing.gate_since))
        else:
            source = self._environment(plan.source)
            if plan.set_id is None:
                self._record_set(state, source)
            closing, listing = self._drain(state, source, since)
            self._pause_source(plan, source, listing)
            closing = self._final_mark(plan, closing)
            with self._timed("lease"):
                self._wait_for_lease(plan, closing)
        with self._timed("promote"):
            new = self._write(plan.id, Phase.DRAINING, lambda row: transitions.promote(row, at=self._clock.now()))
            self._done(f"{new.active_region} is active, epoch {new.epoch}")

    def _record_set(self, state: DRState, source: Environment) -> None:
        plan = _plan(state)
        with self._timed("record"):
            dags = self._dags(plan, source)
            # What the last failover could not unpause was never paused by anybody: it stays wanted.
            left, missing = self._dags_not_unpaused(state)
            wanted = sorted({*self._unpaused(dags), *left})
            self._record_as(plan, wanted)
            self._done(f"{len(wanted)} DAGs wanted, {len(self._exempt(dags))} exempt{missing}")

    def _record_set_from_snapshot(self, state: DRState) -> None:
        plan = _plan(state)
        with self._timed("record"):
            lost = self._set_of_lost_plan() if plan.takes_over else None
            if lost is not None:
                self._record_as(plan, lost.dag_ids)
                self._done(f"{len(lost.dag_ids)} DAGs wanted, by the recorded set {lost.id} of a plan that is gone")
                return
            snapshot, why_not = self._set_if_readable(lambda: self._store.get_snapshot(plan.source))
            if snapshot is None and plan.takes_over:
                snapshot = self._newest_snapshot(self._regions())
            if snapshot is None:
                self._record_as(plan, [])
                self._done(
                    f"{why_not or f'no snapshot of {plan.source} was ever taken'}: nothing will be unpaused; "
                    f"unpause in {plan.target} what you want to run"
                )
                return
            left, missing = self._dags_not_unpaused(state)
            wanted = sorted({*snapshot.dag_ids, *left})
            self._record_as(plan, wanted)
            self._done(
                f"{len(wanted)} DAGs wanted, by the snapshot of {snapshot.recorded_at:%Y-%m-%dT%H:%M:%SZ}{missing}"
            )

    def _set_of_lost_plan(self) -> DagSet | None:
        """Return the newest wanted set, unless a failover has been completed since it was recorded."""
        newest, _ = self._set_if_readable(self._store.newest_wanted_set)
        completed = [record for record in self._history(self._store.records) or () if record.outcome == "completed"]
        ended_at = max((record.finished_at or record.started_at for record in completed), default=None)
        return None if newest is None or (ended_at is not None and newest.recorded_at <= ended_at) else newest

    def _dags_not_unpaused(self, state: DRState) -> tuple[Collection[str], str]:
        """Return what stays wanted although it is paused in the active region; and a text where that is not known."""
        left = self._history(lambda: dags_not_unpaused(self._store, state))
        if left is not None:
            return left, ""
        return (), (
            f"; what the last failover to {state.active_region} could not unpause is not among them, because its "
            f"record could not be read ({self._unrecorded})"
        )

    def _record_as(self, plan: Plan, wanted: Sequence[str]) -> None:
        """Store the set, then name it in the plan: complete before the first pause, never overwritten."""
        dag_set = DagSet(id=plan.id, region=plan.source, recorded_at=self._clock.now(), dag_ids=tuple(wanted))
        self._table(lambda: self._store.put_set(dag_set))
        self._write(plan.id, Phase.DRAINING, lambda row: transitions.record_set(row, dag_set.id, at=self._clock.now()))

    def _drain(self, state: DRState, source: Environment, since: float) -> tuple[Closing, Sequence[DagInfo]]:
        """
        Wait until the source starts nothing any more and nothing of it is in flight.

        The drain begins when the live schedulers have acknowledged. It does not end before the gate of every scheduler
        is closed: one that its database does not list any more may still start a run.

        :return: what closed the source's gate; and its DAGs, listed just now.
        :raises DrainTimeoutError: runs outlasted the drain, and the plan does not say to stop them.
        """
        plan = _plan(state)
        with self._timed("drain"):
            closing = self._closing(plan, state, since)
            self._await_live_schedulers(plan, closing)
            listed: set[str] = set()
            exempt: Collection[str] = ()
            deadline = self._clock.monotonic() + self._timing.drain_s
            stopped: list[RunInfo] = []
            while True:
                agents = self._agents(plan.source)
                # Decided before the runs are listed: what starts until then is in the list.
                is_closed = self._clock.monotonic() >= closing.gate_closed_at(agents)
                left = self._busy(plan, source, exempt)
                if unlisted := {run.dag_id for run in left} - listed:
                    # At first, or deployed since: it may be exempt.
                    dags = self._dags(plan, source)
                    exempt = self._exempt(dags)
                    listed |= unlisted | {dag.dag_id for dag in dags}
                    continue
                if not left and is_closed:
                    # A gate that decided just before it knew may still have been in its transaction, and what has just
                    # ended may have events that start another run: look again. Meanwhile there is something to do.
                    read_again_at = self._clock.monotonic() + self._timing.gate_commit_s
                    listing = self._dags(plan, source)
                    self._wait(plan.id, read_again_at - self._clock.monotonic())
                    left = self._busy(plan, source, exempt)
                    if not left:
                        break
                if not left:
                    # What starts from here on has the time of a whole drain.
                    deadline = self._clock.monotonic() + self._timing.drain_s
                elif self._clock.monotonic() >= deadline:
                    if not plan.stop_running:
                        raise DrainTimeoutError(
                            f"{len(left)} runs in {plan.source} outlasted the drain of {self._timing.drain_s:g} s: "
                            f"{_some(left)}.",
                            runs=[str(run) for run in left],
                            advice="Nothing was moved; the source goes on. Wait for them, or repeat with "
                            "--stop-running to stop them.",
                        )
                    self._stop(plan, source, left, exempt)
                    stopped += left
                    deadline = self._clock.monotonic() + self._timing.stop_s
                    continue
                self._progress(
                    f"{len(left)} runs in flight: {_some(left)}" if left else _waits_for(plan, closing, agents)
                )
                self._wait(plan.id, self._timing.poll_s)
            is_acknowledged = has_acknowledged(agents, closing.version)
            how = "acknowledged by every scheduler" if is_acknowledged else "not acknowledged: lease waited"
            self._done(how + (f"; stopped {_some(stopped)}" if stopped else "; nothing in flight"))
            return closing, listing

    def _closing(self, plan: Plan, state: DRState, since: float) -> Closing:
        """Return what closes the source's gate: the write of *state* or one before it, known since *since*."""
        return Closing(
            version=state.version,
            gate_since=self._await_arrival(plan, state.version, state.lease_s, since),
            fence_since=None,
            lease_s=state.lease_s,
            gate_commit_s=self._timing.gate_commit_s,
        )

    def _await_live_schedulers(self, plan: Plan, closing: Closing) -> None:
        while True:
            agents = self._agents(plan.source)
            if live_have_acknowledged(agents, closing.version):
                return
            if self._clock.monotonic() >= closing.gate_closed_at(agents):
                return
            self._progress(_waits_for(plan, closing, agents))
            self._wait(plan.id, self._timing.poll_s)

    def _busy(self, plan: Plan, source: Environment, exempt: Collection[str]) -> Sequence[RunInfo]:
        """
        Return the runs in flight; when there are none, those that are marked as ended and still execute a task.

        Another engine may have stopped them and died before it had seen them end.
        """
        runs = self._ask(plan, lambda: _not_of(exempt, source.running_runs()))
        return runs or self._ask(plan, lambda: _not_of(exempt, source.running_tasks()))

    def _stop(self, plan: Plan, source: Environment, runs: Sequence[RunInfo], exempt: Collection[str]) -> None:
        """Stop *runs* and wait until no task instance of the source executes; a mark alone leaves it at work."""
        # Announced before it is done: the ledger takes none of them for a run that ended by itself.
        before = self._announce(plan, runs)
        ended = [run for run in runs if self._stop_run(plan, source, run)]
        had_ended = [run for run in ended if before is not None and str(run) not in before]
        if had_ended:
            self._announce(plan, had_ended, had_ended=True)
        deadline = self._clock.monotonic() + self._timing.stop_s
        while left := self._ask(plan, lambda: _not_of(exempt, source.running_tasks())):
            if self._clock.monotonic() >= deadline:
                raise FailoverError(
                    f"Stopped runs of {plan.source} still execute after {self._timing.stop_s:g} s: {_some(left)}.",
                    advice=f"Look at their workers in {source.name}.",
                )
            self._progress(f"stopped {len(runs)} runs; {len(left)} still executing: {_some(left)}")
            self._wait(plan.id, self._timing.poll_s)

    def _stop_run(self, plan: Plan, source: Environment, run: RunInfo) -> bool:
        """Stop *run*; return whether it is certain that it had ended by itself."""
        attempts = 0

        def stop() -> bool:
            nonlocal attempts
            attempts += 1
            return source.stop_run(run)

        was_open = self._ask(plan, stop)
        # An attempt that got no answer may have stopped it.
        return not was_open and attempts == 1

    def _announce(self, plan: Plan, runs: Sequence[RunInfo], *, had_ended: bool = False) -> Collection[str] | None:
        """
        Announce that *runs* are being stopped, or that these had ended.

        :return: what was announced as stopped before; None if that cannot be read. The engine that announced a run may
            have ended it, or may still have a call under way.
        """
        state = self._mine(plan.id)
        before: set[str] = set()
        is_known = True
        for stop in transitions.stops_of(state, state.epoch):
            if not stop.had_ended:
                recorded, _ = self._set_if_readable(partial(self._store.get_set, stop.set_id))
                is_known &= recorded is not None
                before.update(recorded.dag_ids if recorded is not None else ())
        names = tuple(sorted(map(str, runs)))
        # Named after its place and its content: a set is recorded once, and an engine that died may have recorded one.
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        set_id = f"{plan.id}-{'ended' if had_ended else 'stopped'}-{len(state.stops) + 1}-{digest}"
        dag_set = DagSet(id=set_id, region=plan.source, recorded_at=self._clock.now(), dag_ids=names)
        self._table(lambda: self._store.put_set(dag_set))
        self._write(
            plan.id,
            Phase.DRAINING,
            lambda row: transitions.announce(row, set_id, had_ended=had_ended, at=self._clock.now()),
        )
        return before if is_known else None

    def _pause_source(self, plan: Plan, source: Environment, dags: Sequence[DagInfo]) -> None:
        with self._timed("pause"):
            paused: set[str] = set()
            deadline = self._clock.monotonic() + self._timing.stop_s
            listing: Sequence[DagInfo] | None = dags
            running = self._unpaused(dags)
            while running or (running := self._unpaused(self._dags(plan, source, paused=False))):
                if self._clock.monotonic() >= deadline:
                    raise FailoverError(
                        f"DAGs of {plan.source} are unpaused again as soon as they are paused: "
                        f"{', '.join(running[:20])}.",
                        advice="Find out who does that.",
                    )
                paused.update(self._set_paused(plan, source, running, paused=True, listing=listing))
                running, listing = [], None  # both are out of date
            self._done(f"{len(paused)} DAGs paused in {plan.source}")

    def _final_mark(self, plan: Plan, closing: Closing) -> Closing:
        """
        Close the source's fence and wait for its final ledger entry, so that the target repeats no run that ended.

        :return: *closing* with the write that closed the fence.
        """
        with self._timed("ledger"):
            state = self._write(plan.id, Phase.DRAINING, lambda row: transitions.drained(row, at=self._clock.now()))
            arrived_at = self._await_arrival(plan, state.version, closing.lease_s, self._clock.monotonic())
            closing = replace(closing, fence_since=arrived_at)
            # A scheduler that has just started has published nothing yet, and will.
            if not any(agent.has_ledger or agent.ledger_lag_s is not None for agent in self._agents(plan.source)):
                self._done(f"{plan.source} keeps no ledger: runs are not taken over")
                return closing
            deadline = self._clock.monotonic() + self._timing.final_s
            while all(agent.final_plan_id != plan.id for agent in self._agents(plan.source)):
                if self._clock.monotonic() >= deadline:
                    self._done(
                        f"the last word of {plan.source} has not come within {self._timing.final_s:g} s: "
                        "what ended there in its last seconds may run again"
                    )
                    return closing
                self._progress(f"waiting for the last word of the ledger of {plan.source}")
                self._wait(plan.id, self._timing.poll_s)
            self._done(f"everything that happened in {plan.source} is told")
            return closing

    def _wait_for_lease(self, plan: Plan, closing: Closing) -> None:
        """Wait until no gate and no fence of the source lets anything start: acknowledged, or outlived."""
        while (rest := closing.role_may_move_at(agents := self._agents(plan.source)) - self._clock.monotonic()) > 0:
            self._progress(f"{plan.source} may execute for {rest:.0f} s more")
            self._wait(plan.id, min(self._timing.poll_s, rest))
        if has_acknowledged(agents, closing.version):
            self._done("acknowledged; no worker can hold an older view")
        elif self._learns(plan.source, closing.version):
            self._done(f"{plan.source} executes nothing any more: its view is older than {closing.lease_s:g} s")
        else:
            self._done(f"{plan.source} may not know: if it is not down, it executes until its link is back")

    def _await_arrival(self, plan: Plan, version: int, lease_s: float, since: float) -> float:
        """
        Return the moment from which no view that *plan.source* still gets is older than *version*.

        With eventual consistency a region that lives on its own copy has a fresh view of whatever that holds, and a
        lease ends nothing until the claim has arrived there.

        :raises FailoverError: it did not within a lease, and the caller does not insist.
        """
        if self._learns(plan.source, version):
            return since
        deadline = since + lease_s * CLOCK_MARGIN + self._timing.gate_commit_s
        while not self._learns(plan.source, version):
            if has_acknowledged(self._agents(plan.source), version):
                return since
            if self._clock.monotonic() >= deadline:
                if self._insists:
                    return since
                raise FailoverError(
                    f"The claim has not been seen to arrive in the copy of the state table in {plan.source}: "
                    f"{_why_copy_outlives_lease(plan.source)}.",
                    advice="Make sure that it is down, then repeat with --mode forced --even-if-not-ready.",
                )
            self._progress(f"waiting for version {version} to arrive in the copy of the state table in {plan.source}")
            self._wait(plan.id, self._timing.poll_s)
        return self._clock.monotonic()

    def _learns(self, source: str, version: int) -> bool:
        """Whether any view that *source* may still get shows *version*: the one table, all copies, or its own does."""
        if not self._eventual or self._reads_all_copies(source):
            return True
        held = self._table(self._store.copies).get(source)
        return held is not None and held.version >= version

    def _reads_all_copies(self, source: str) -> bool:
        agents = [agent for agent in self._agents(source) if not agent.gone]
        return bool(agents) and all(agent.eventual == Eventual.SAFE.value for agent in agents)

    def _turn_forced(self, plan: Plan, error: DRError) -> None:
        with self._timed("force"):
            if why := self._why_lease_is_ignored(plan.source):
                raise FailoverError(
                    f"{plan.source} does not answer ({error.message}), and {why}.",
                    advice="Make sure that it is down, then repeat with --mode forced --even-if-not-ready.",
                ) from error
            state = self._write(plan.id, Phase.DRAINING, lambda row: transitions.turn_forced(row, at=self._clock.now()))
            self._update_record(mode=Mode.FORCED)
            self._done(f"{_plan(state).source} does not answer ({error.message}); going on without it")

    def _abandon(self, state: DRState, error: DrainTimeoutError) -> str:
        """Give the plan up for its source; return the id of the plan that gives everything back."""
        plan = _plan(state)
        with self._timed("abandon"):
            new = self._write(
                plan.id,
                Phase.DRAINING,
                lambda row: transitions.cancel(
                    row,
                    plan_id=f"{plan.id}-back",
                    by=plan.by,
                    owner=self._owner,
                    reason=f"abandoned: {error.message}",
                    at=self._clock.now(),
                ),
            )
            self._done(f"{new.active_region} goes on; runs left over: {', '.join(error.runs[:20])}")
        error.record = self._update_record(outcome="aborted", finished_at=self._clock.now())
        self._record, self._steps = None, []
        self._open_record(new)
        return _plan(new).id

    def _adopt(self, state: DRState) -> None:
        """Wait until the target's agents have prepared their own database and all its schedulers know the epoch."""
        plan = _plan(state)
        with self._timed("adopt"):
            since = self._clock.monotonic()
            deadline = since + self._timing.adopt_s
            heard: dict[str, int] = {}
            while True:
                agents = self._agents(plan.target)
                ledger_wait_s = _announced_ledger_wait_s(agents, heard)
                if ledger_wait_s is not None:
                    deadline = max(deadline, self._clock.monotonic() + ledger_wait_s + self._timing.adopt_s)
                known = is_ready_to_resume(
                    agents, state.version, since=since, now=self._clock.monotonic(), lease_s=state.lease_s
                )
                adopted = any(
                    agent.adopted_epoch == state.epoch and agent.reconciled_epoch == state.epoch for agent in agents
                )
                if known and adopted:
                    break
                awaited = [
                    *((f"its schedulers to know epoch {state.epoch}",) if not known else ()),
                    *(("its agent to prepare its database",) if not adopted else ()),
                    *((f"its ledger, which refuses: {error}",) if (error := _ledger_error(agents)) else ()),
                ]
                if self._clock.monotonic() >= deadline:
                    raise FailoverError(
                        f"{plan.target} is promoted (epoch {state.epoch}), but not ready within "
                        f"{self._timing.adopt_s:g} s; still to come: {' and '.join(awaited)}.",
                        advice=f"Look at the scheduler logs of {plan.target}.",
                    )
                self._progress(f"waiting in {plan.target} for {' and '.join(awaited)}")
                self._wait(plan.id, self._timing.poll_s)
            self._write(plan.id, Phase.PROMOTING, lambda row: transitions.resume(row, at=self._clock.now()))
            self._done(f"all schedulers of {plan.target} know epoch {state.epoch}")

    def _unpause(self, plan: Plan) -> frozenset[str] | None:
        """Restore exactly the wanted set in the target; return the set, None when there is none."""
        with self._timed("unpause"):
            if plan.set_id is None:
                self._done("no set was recorded: nothing had been paused")
                return None
            set_id = plan.set_id
            dag_set, why_not = self._set_if_readable(lambda: self._store.get_set(set_id))
            if dag_set is None:
                why = why_not or f"the wanted set {set_id} is gone from the table"
                self._done(f"{why}: unpause in {plan.target} what should run")
                return None
            wanted = frozenset(dag_set.dag_ids)
            self._done(self._restore(plan, wanted)[1])
            return wanted

    def _restore(self, plan: Plan, wanted: frozenset[str]) -> tuple[frozenset[str], str]:
        """
        Make *wanted* exactly what runs in the target, as far as it lets itself be changed.

        :return: what runs there, and what was done, for people.
        """
        target = self._environment(plan.target)
        dags = self._dags(plan, target)
        running = frozenset(dag.dag_id for dag in dags if not dag.is_paused)
        # Who cancels has left the region as it was: what people unpaused there meanwhile is theirs.
        strays = frozenset() if plan.is_cancellation else frozenset(self._unpaused(dags)) - wanted
        paused = frozenset(dag.dag_id for dag in dags if dag.is_paused)
        listing: Sequence[DagInfo] | None = dags
        for dag_ids, is_pause in ((strays, True), (wanted & paused, False)):
            if not dag_ids:
                continue
            changed = dag_ids
            try:
                self._set_paused(plan, target, dag_ids, paused=is_pause, listing=listing)
            except IncompleteError as error:
                changed -= frozenset(error.left)
            running = running - changed if is_pause else running | changed
            listing = None  # it is out of date
        not_unpaused = sorted(wanted - running)
        return running, (
            f"{len(wanted) - len(not_unpaused)} of {len(wanted)} DAGs wanted run in {plan.target}"
            + (f"; not there or not unpaused: {', '.join(not_unpaused[:20])}" if not_unpaused else "")
            + (f"; paused again, not wanted: {', '.join(sorted(strays - running)[:20])}" if strays - running else "")
            + (f"; cannot be paused, not wanted: {', '.join(sorted(strays & running))}" if strays & running else "")
        )

    def _verify(self, plan: Plan, wanted: frozenset[str] | None) -> tuple[str, ...] | None:
        """
        List once more, and see a first run succeed. Report what falls short; it stops nothing.

        :return: what of the wanted set does not run; None: no set was recorded, so that is as it was before.
        """
        with self._timed("verify"):
            details = []
            not_unpaused: tuple[str, ...] | None = None
            running: Collection[str] | None = None
            if wanted is not None:
                # A call that another engine had under way when it lost the plan may have arrived since.
                running, detail = self._restore(plan, wanted)
                not_unpaused = tuple(sorted(wanted - running))
                details.append(f"listed again: {detail}")
            if not plan.is_cancellation:
                details.append(self._try_first_run(plan, running))
            self._done("; ".join(details) or "nothing had changed")
            return not_unpaused

    def _try_first_run(self, plan: Plan, running: Collection[str] | None) -> str:
        try:
            return self._first_run(plan, running)
        except (_TakenOverError, PlanSupersededError):
            raise
        except Exception as error:  # the role has moved and all is unpaused: whatever this finds changes neither
            return f"no first run: {_brief(error)}"

    def _first_run(self, plan: Plan, running: Collection[str] | None) -> str:
        """See a first run succeed. *running*: what runs in the target; None: it is asked."""
        target = self._environment(plan.target)
        if running is None:
            running = {dag.dag_id for dag in self._dags(plan, target, paused=False)}
        if TEST_DAG not in running:
            return f"no first run: {TEST_DAG} is not deployed, or paused"
        run_id = f"dr_verify__{plan.id}"
        self._ask(plan, lambda: target.trigger(TEST_DAG, run_id=run_id, note=f"first run after failover {plan.id}"))
        deadline = self._clock.monotonic() + self._timing.verify_s
        while (found := self._ask(plan, lambda: target.run_state(TEST_DAG, run_id))) not in {"success", "failed"}:
            if self._clock.monotonic() >= deadline:
                return f"{TEST_DAG} {run_id} is {found} after {self._timing.verify_s:g} s: look at it"
            self._progress(f"{TEST_DAG} {run_id} is {found}")
            self._wait(plan.id, self._timing.poll_s)
        return f"first run: {TEST_DAG} {found}"

    def _complete(
        self, state: DRState, wanted: frozenset[str] | None, not_unpaused: tuple[str, ...] | None
    ) -> FailoverRecord:
        plan = _plan(state)
        with self._timed("complete"):
            left_id = state.not_unpaused_set_id
            if not_unpaused is not None:
                left_id = self._table(
                    partial(put_dags_not_unpaused, self._store, plan, not_unpaused, at=self._clock.now())
                )
            else:
                not_unpaused = tuple(self._dags_not_unpaused(state)[0])
            if wanted is not None:
                # Lost before its agent has taken a snapshot of its own, the region would be left with an older one.
                snapshot = DagSet(
                    id=plan.target, region=plan.target, recorded_at=self._clock.now(), dag_ids=tuple(sorted(wanted))
                )
                self._table(lambda: self._store.put_snapshot(snapshot))
            self._close_other_records(plan)
            # The record first: killed in between, the next engine completes again; the other way round it would stay
            # open for good.
            record = self._update_record(
                outcome="completed",
                finished_at=self._clock.now(),
                epoch=state.epoch,
                not_unpaused=not_unpaused,
                mode=Mode.FORCED if plan.is_forced else Mode.GRACEFUL,
            )
            self._history(lambda: self._store.put_record(record))
            self._write(
                plan.id,
                Phase.RESUMING,
                lambda row: transitions.complete(row, not_unpaused_set_id=left_id, at=self._clock.now()),
            )
            lacks = f"; mwaa-dr history may lack this failover: {self._unrecorded}" if self._unrecorded else ""
            self._done(f"{plan.target} is active, epoch {state.epoch}{lacks}")
        return self._update_record()

    # -- checks --------------------------------------------------------------------------------------------------

    def _check(self, state: DRState, request: FailoverRequest) -> None:
        """Refuse before anything is written. A forced failover never calls the source."""
        with self._timed("check"):
            why = self._problems(state, request)
            if why and not request.even_if_not_ready:
                raise NotReadyError(
                    f"{request.target} is not ready: {'; '.join(why)}.",
                    why=why,
                    advice="Nothing was changed. Mend it, or repeat with --even-if-not-ready.",
                )
            self._done("; ".join((*(why or [f"{request.target} is ready"]), *self._warnings)))

    def _problems(self, state: DRState, request: FailoverRequest) -> list[str]:
        """Return why the failover would be refused."""
        target = self._environment(request.target)
        if request.mode is Mode.AUTO:
            self._silence.seconds(state.active_region)
        # A heartbeat that changes while the source is asked need not be waited for.
        seen = beats(self._agents, [target.region])
        of_source = self._source_problems(state, request)
        return [*self._target_problems(target, seen), *of_source]

    def _target_problems(self, target: Environment, seen: Beats) -> Sequence[str]:
        status = try_read(target.status)
        is_asked = not isinstance(status, Unknown) and status.is_usable
        is_healthy = try_read(target.scheduler_is_healthy) if is_asked else None
        agents = self._live_agents(target.region, seen)
        self._warnings = tuple(unclosed_runs(agents))
        why = refusals(
            RegionFacts(
                region=target.region, environment=target.name, status=status, is_healthy=is_healthy, agents=agents
            )
        )
        return [*why, *self._unread_copies(target.region)]

    def _unread_copies(self, region: str) -> Sequence[str]:
        """Return why *region* would hold everything once it is active; empty when it would not."""
        if not self._eventual or not any(agent.eventual == Eventual.SAFE.value for agent in self._agents(region)):
            return ()
        unread = set(self._environments).difference(self._table(self._store.copies))
        if not unread:
            return ()
        why = (
            f"{region} runs only while every copy of the state table can be read ([dr] eventual = safe), and that of "
            f"{', '.join(sorted(unread))} cannot: set it to available there first"
        )
        return (why,)

    def _source_problems(self, state: DRState, request: FailoverRequest) -> Sequence[str]:
        source = state.active_region
        why = [self._why_target_copy_unreadable(state)]
        if self._action(state, request.target) == "take over":
            others = sorted(self._regions() - {request.target})
            return [each for each in (*why, *map(self._why_lease_is_ignored, others)) if each is not None]
        if request.mode is Mode.GRACEFUL:
            try:
                self._environment(source).running_runs()
            except MwaaError as error:
                why.append(f"source {source} does not answer ({error}); --mode forced does not need it")
        elif request.mode is Mode.FORCED:
            why.append(self._why_lease_is_ignored(source))
        return [each for each in why if each is not None]

    def _why_lease_is_ignored(self, source: str) -> str | None:
        """Return why it is pointless to wait for the lease of *source*; None when its lease ends everything."""
        if ignores_lease(self._agents(source)):
            return why_lease_is_ignored(source)
        if not self._eventual or self._reads_all_copies(source) or source in self._table(self._store.copies):
            return None
        return _why_copy_outlives_lease(source)

    def _why_target_copy_unreadable(self, state: DRState) -> str | None:
        """Return why an open plan must not be replaced: the target may be active, and its copy cannot be read."""
        plan = state.plan
        if not self._eventual or plan is None or state.phase is not Phase.DRAINING:
            return None
        if plan.target in self._table(self._store.copies):
            return None
        return (
            f"the copy of the state table in {plan.target} cannot be read, and {plan.target} may be active there by now"
        )

    def _live_agents(self, region: str, seen: Beats) -> Sequence[AgentStatus]:
        return live_agents(
            self._agents,
            seen,
            self._clock,
            silence_s=self._timing.agent_silence_s,
            poll_s=self._timing.poll_s,
            on_wait=lambda _: self._progress(f"waiting for a heartbeat from {region}"),
        )[region]

    # -- reading and writing the row ----------------------------------------------------------------------------

    def _read(self) -> DRState:
        """Return the row."""
        return self._table(self._store.read)

    def _agents(self, region: str) -> Sequence[AgentStatus]:
        return self._table(lambda: self._store.agents(region))

    def _table(self, call: Callable[[], T]) -> T:
        """Return what a repeatable *call* to the table returns, asking again for a while when no replica answers."""
        deadline = self._clock.monotonic() + self._timing.state_s
        while True:
            try:
                return call()
            except (StateUnreachableError, StateAccessError) as error:
                if not self._may_pass(error) or self._clock.monotonic() >= deadline:
                    raise
            self._clock.sleep(self._timing.poll_s)

    def _may_pass(self, error: StateError) -> bool:
        """
        Whether it is worth waiting: no answer came; or, with a plan open, access was refused.

        Before the claim missing rights are reported at once. After it, credentials that expire are renewed within
        seconds, and an engine that stops leaves both regions without a role.
        """
        return isinstance(error, StateUnreachableError) or self._record is not None

    def _set_if_readable(self, read: Callable[[], DagSet | None]) -> tuple[DagSet | None, str]:
        """Return a set; None, and why, when it is stored and cannot be read: the failover goes on without it."""
        try:
            return self._table(read), ""
        except UnreadableItemError as error:
            return None, error.message.rstrip(".")

    def _mine(self, plan_id: str) -> DRState:
        """
        Return the row if it is still this engine's to act on, having shown a sign of life in it when one is due.

        :raises PlanSupersededError: another plan is open.
        :raises _TakenOverError: another engine owns the plan, or nothing is open any more.
        """
        while True:
            state = self._read()
            _refuse_unusable(state)
            if state.plan is None:
                raise _TakenOverError(plan_id)
            if state.plan.id != plan_id:
                raise _superseded(plan_id, state)
            if state.plan.owner != self._owner:
                raise _TakenOverError(plan_id)
            if self._clock.monotonic() - self._last_write < self._timing.beat_s:
                return state
            new = transitions.beat(state, at=self._clock.now())
            try:
                self._put(new, state.version)
            except StaleStateError:
                continue
            except (StateUnreachableError, StateAccessError):
                return state  # a lost sign of life is no reason to stop; the next one may get through
            return new

    def _write(self, plan_id: str, phase: Phase, step: Callable[[DRState], DRState]) -> DRState:
        """Take *step* from *phase* under this plan; done already counts as done."""
        deadline = self._clock.monotonic() + self._timing.state_s
        while True:
            state = self._mine(plan_id)
            if state.phase is not phase:
                return state
            new = step(state)
            if new is state:
                return state
            try:
                self._put(new, state.version)
            except StaleStateError:
                continue
            except (StateUnreachableError, StateAccessError) as error:
                if not self._may_pass(error) or self._clock.monotonic() >= deadline:
                    raise
                self._clock.sleep(self._timing.poll_s)
                continue
            return new

    def _put(self, state: DRState, expected_version: int) -> None:
        """
        Write the row. If the response is lost, the engine reads the row, so that it does not repeat its own step.

        :raises StaleStateError: another process has written, before this write or after it.
        :raises StateUnreachableError: the row is unchanged so far.
        """
        try:
            self._store.write(state, expected_version=expected_version)
        except StateUnreachableError:
            found = self._read()
            if _identity(found) != _identity(state):
                if found.version != expected_version:
                    raise StaleStateError(expected_version, found) from None
                raise
        self._last_write = self._clock.monotonic()

    def _wait(self, plan_id: str, seconds: float) -> None:
        """Wait, showing signs of life in the plan, and stop waiting when the plan is no longer this engine's."""
        end = self._clock.monotonic() + seconds
        while (rest := end - self._clock.monotonic()) > 0:
            self._clock.sleep(min(rest, self._timing.beat_s))
            self._mine(plan_id)

    def _ask(self, plan: Plan, call: Callable[[], T]) -> T:
        """
        Return what a repeatable *call* to an environment returns, asking again for ``answer_s`` while none comes.

        Called only while the plan is this engine's: the row is read before each attempt.
        """
        deadline = self._clock.monotonic() + self._timing.answer_s
        while True:
            state = self._mine(plan.id)
            began = self._clock.monotonic()
            try:
                return call()
            except MwaaUnreachableError as error:
                now = self._clock.monotonic()
                if now >= deadline:
                    raise
                self._progress(f"no answer yet: {error.message}")
                can_turn_forced = state.phase is Phase.DRAINING and plan.mode is Mode.AUTO
                if can_turn_forced and self._is_silent(plan, attempt_s=now - began, deadline=deadline):
                    raise
            self._wait(plan.id, self._timing.poll_s)

    def _is_silent(self, plan: Plan, *, attempt_s: float, deadline: float) -> bool:
        """
        Return whether the source's schedulers have shown no heartbeat for so long that they count as gone.

        With that, one attempt without an answer is enough: each takes up to 12 s where packets get lost. What is
        missing of the silence is waited for, unless there is time for another attempt meanwhile.
        """
        while (silent_s := self._silence.seconds(plan.source)) > 0:
            rest_s = self._timing.agent_silence_s - silent_s
            if rest_s <= 0:
                return True
            if rest_s > attempt_s or self._clock.monotonic() >= deadline:
                return False
            self._progress(f"no answer from {plan.source}, whose schedulers are silent, too, for {silent_s:.0f} s")
            self._wait(plan.id, min(self._timing.poll_s, rest_s))
        return False

    def _dags(self, plan: Plan, environment: Environment, *, paused: bool | None = None) -> Sequence[DagInfo]:
        """List DAGs; thousands take their time, so between the pages the row is read again."""

        def on_progress(read: int, total: int) -> None:
            self._progress(f"{read} of {total} DAGs of {environment.region} listed")
            self._mine(plan.id)

        return self._ask(plan, lambda: environment.dags(paused=paused, on_progress=on_progress))

    def _set_paused(
        self,
        plan: Plan,
        environment: Environment,
        dag_ids: Collection[str],
        *,
        paused: bool,
        listing: Sequence[DagInfo] | None,
    ) -> set[str]:
        """Change the flags; thousands take their time, so between the calls the row is read again."""

        def on_progress(done: int, total: int) -> None:
            self._progress(f"{done} of {total}")
            self._mine(plan.id)

        def change() -> Sequence[str]:
            nonlocal listing
            # An attempt that got no answer may have changed some of them.
            known, listing = listing, None
            return environment.set_paused(sorted(dag_ids), paused=paused, listing=known, on_progress=on_progress)

        return set(self._ask(plan, change))

    # -- DAGs and runs -------------------------------------------------------------------------------------------

    def _environment(self, region: str) -> Environment:
        return self._environments[known_region(region, self._environments)]

    def _exempt(self, dags: Sequence[DagInfo]) -> frozenset[str]:
        """Return the ids that are left alone."""
        return frozenset(dag.dag_id for dag in dags if is_exempt(dag.dag_id, dag.tags, self._exempt_dags))

    def _unpaused(self, dags: Sequence[DagInfo]) -> list[str]:
        """Return the ids that run and are not exempt."""
        exempt = self._exempt(dags)
        return [dag.dag_id for dag in dags if not dag.is_paused and dag.dag_id not in exempt]

    # -- the record, and what people see -------------------------------------------------------------------------

    def _open_record(self, state: DRState) -> None:
        """Begin the plan's record, or go on with the one that another engine began."""
        plan = _plan(state)
        if self._record is not None and self._record.id == plan.id:
            return
        found = self._history(lambda: self._store.get_record(plan.id))
        if found is not None:
            self._steps = [*found.steps, *self._steps]
        self._record = FailoverRecord.of(plan, epoch=state.epoch)
        self._update_record()

    def _update_record(self, **changes: Any) -> FailoverRecord:
        """Write the record; one that cannot be written now is written with the next step."""
        assert self._record is not None  # noqa: S101  (opened by _enter or _drive)
        self._record = replace(self._record, steps=tuple(self._steps), **changes)
        record = self._record
        try:
            self._store.put_record(record)
        except Exception as error:
            self._unrecorded = _brief(error)
        else:
            self._unrecorded = ""
        return record

    def _close_other_records(self, plan: Plan) -> None:
        self._history(lambda: abort_other_records(self._store, plan.id, at=self._clock.now()))

    def _history(self, call: Callable[[], T]) -> T | None:
        """
        Return what a repeatable *call* for a history record returns; None when it fails, for whatever reason.

        A record tells people what was done. Nothing that decides is in it, so it can stop no failover.
        """
        try:
            return self._table(call)
        except Exception as error:
            self._unrecorded = _brief(error)
            return None

    def _stopped(self, error: DRError) -> DRError:
        """
        Return *error* as a caller should see it once a plan is open: what stands, and the two ways on.

        :raises PlanSupersededError: the plan is not open any more, which says more than *error*.
        :raises _TakenOverError: another engine goes on with it, or has ended it.
        """
        record = self._record
        if record is None:
            return error
        with suppress(StateError):
            self._mine(record.id)
            record = self._update_record()
        way_back = (
            ""
            if record.source == record.target
            else f", or give it back: mwaa-dr failover {record.source} --reason TEXT"
        )
        return FailoverError(
            f"Failover {record.id} ({record.source} -> {record.target}) stopped in step {self._step}: {error}",
            advice=f"Its plan stays open. Finish it: mwaa-dr failover {record.target} --reason TEXT{way_back}.",
            record=record,
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        self._step, self._step_started, self._last_detail = name, self._clock.monotonic(), ""
        self._emit(StepEvent(name=name, status="started", seconds=0.0))
        yield

    def _progress(self, detail: str) -> None:
        if detail != self._last_detail:
            self._last_detail = detail
            self._emit(StepEvent(name=self._step, status="progress", seconds=self._elapsed(), detail=detail))

    def _done(self, detail: str) -> None:
        seconds = self._elapsed()
        self._steps.append(StepRecord(name=self._step, seconds=round(seconds, 3), detail=detail))
        self._emit(StepEvent(name=self._step, status="done", seconds=seconds, detail=detail))
        if self._record is not None:
            self._update_record()

    def _emit(self, event: StepEvent) -> None:
        with suppress(Exception):  # a full disk under the log, a closed pipe, a handler with a bug
            self._on_step(event)

    def _elapsed(self) -> float:
        return self._clock.monotonic() - self._step_started


def abort_other_records(store: StateStore, plan_id: str, *, at: datetime) -> None:
    """Close what was given up for plan *plan_id*, also by engines that were killed before they could say so."""
    for record in store.records():
        # One that cannot be read stays as it is: a newer version may know what it says.
        if record.unreadable is None and record.outcome == "open" and record.id != plan_id:
            store.put_record(replace(record, outcome="aborted", finished_at=at))


def put_dags_not_unpaused(store: StateStore, plan: Plan, dag_ids: Collection[str], *, at: datetime) -> str:
    """Record what of the wanted set *plan* could not unpause; return what :func:`.state.complete` takes for it."""
    if not dag_ids:
        return ""
    ids = tuple(sorted(dag_ids))
    # Named after its content: a set is recorded once, and an engine that completes after another may find other DAGs.
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:8]
    return store.put_set(DagSet(id=f"{plan.id}-left-{digest}", region=plan.target, recorded_at=at, dag_ids=ids)).id


def dags_not_unpaused(store: StateStore, state: DRState) -> tuple[str, ...]:
    """Return what the last failover to the active region, or the last one given up for it, could not unpause there."""
    if state.not_unpaused_set_id == "":
        return ()
    found = None
    with suppress(UnreadableItemError):  # the record has the same list
        found = store.get_set(state.not_unpaused_set_id) if state.not_unpaused_set_id is not None else None
    if found is not None and found.region == state.active_region:
        return found.dag_ids
    for record in store.records():
        if record.target == state.active_region and record.outcome == "completed":
            return record.not_unpaused
    return ()


def _brief(error: Exception) -> str:
    """Return what failed in words that fit a step's line."""
    message = " ".join((error.message if isinstance(error, DRError) else str(error)).split())
    return f"{type(error).__name__}: {message[:300]}".rstrip(": .")


def _ledger_error(agents: Sequence[AgentStatus]) -> str | None:
    """Return the ledger's error of an agent that waits for it."""
    return next((agent.ledger_error for agent in agents if agent.ledger_wait_s is not None), None)


def _announced_ledger_wait_s(agents: Sequence[AgentStatus], heard: dict[str, int]) -> float | None:
    """
    Return for how long agents announce that they wait for their ledger; None if no new heartbeat announces it.

    :param heard: the last beat by job; updated. A dead agent's announcement counts once.
    """
    announced = []
    for agent in agents:
        if heard.get(agent.job) != agent.beat and agent.ledger_wait_s is not None:
            announced.append(agent.ledger_wait_s)
        heard[agent.job] = agent.beat
    return max(announced, default=None)


def _refuse_unusable(state: DRState) -> None:
    """:raises StateError: someone has changed the row to one that nobody can act on."""
    plan = state.plan
    is_promoted = state.phase in {Phase.PROMOTING, Phase.RESUMING}
    known = () if plan is None else (plan.target,)
    if (
        state.problems
        or (state.phase is not Phase.STEADY and plan is None)
        or (is_promoted and state.active_region not in known)
    ):
        why = transitions.why_unknown(state, known, region="REGION")
        raise StateError(f"The plan cannot go on: {why}.", advice="The same command takes the state over.")


def _plan(state: DRState) -> Plan:
    assert state.plan is not None  # noqa: S101  (callers have looked at phase and plan id)
    return state.plan


def _why_copy_outlives_lease(source: str) -> str:
    return (
        f"cut off, {source} runs on with its own copy of the state table ([dr] eventual = available), which cannot be "
        "read from here: no lease ends it"
    )


def _identity(state: DRState) -> tuple[object, ...]:
    """Return what tells a write from any other of the same version: nobody else writes as this plan's owner."""
    plan = state.plan
    return state.version, state.epoch, state.phase, plan and (plan.id, plan.owner)


def _waits_for(plan: Plan, closing: Closing, agents: Sequence[AgentStatus]) -> str:
    jobs = awaited(agents, closing.version)
    return (
        f"waiting for schedulers of {plan.source} to acknowledge version {closing.version}"
        + (f": job {', '.join(jobs)}" if jobs else "")
        + "; at most until the lease has passed"
    )


def _not_of(exempt: Collection[str], runs: Sequence[RunInfo]) -> Sequence[RunInfo]:
    return [run for run in runs if run.dag_id not in exempt]


def _some(runs: Sequence[RunInfo]) -> str:
    shown = ", ".join(str(run) for run in runs[:5])
    return shown if len(runs) <= 5 else f"{shown} and {len(runs) - 5} more"


def _superseded(plan_id: str, state: DRState) -> PlanSupersededError:
    if state.plan is None:
        now = f"{state.active_region} is active and nothing is in progress"
    else:
        now = f"{state.plan.by} moves the role from {state.plan.source} to {state.plan.target} (plan {state.plan.id})"
    return PlanSupersededError(
        f"Plan {plan_id} is not open any more: {now} (epoch {state.epoch}).",
        advice="This caller has stopped and touches nothing any more. See mwaa-dr status and mwaa-dr history.",
    )


def _steps_of(action: str, mode: Mode) -> tuple[str, ...]:
    end = ("unpause", "verify", "complete")
    if action == "nothing":
        return ()
    if action == "cancel":
        return ("cancel", *end)
    if mode is Mode.FORCED:
        middle: tuple[str, ...] = ("record", "lease", "promote", "adopt")
    else:
        middle = ("record", "drain", "pause", "ledger", "lease", "promote", "adopt")
    return (*(("check", action) if action != "join" else (action,)), *middle, *end)
