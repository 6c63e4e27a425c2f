"""
The failover engine: the steps of a failover over the ports. Any caller can repeat or resume them.

The plan is in the state item, so an engine has no information that another engine cannot read. A new engine, on another
machine or started by another kind of caller, continues where the last one stopped. Before each action, the engine reads
the state item. It acts only if it still owns the plan and the phase has not changed.

The agents transfer history and interrupted runs through the ledger. Before the promotion, the engine waits for the
source's final ledger entry. After the promotion, it waits until the target's agent has taken these over.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import DRConfig, Eventual, is_exempt
from airflow_provider_mwaa_dr.core.display import counted
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
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG, RegionFacts, Unknown, try_read
from airflow_provider_mwaa_dr.core.readiness.refusals import (
    ignores_lease,
    refusals,
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
    The engine's timeouts and intervals, in seconds.

    :param drain_s: how long running runs may take to finish.
    :param answer_s: an AUTO failover turns forced when the source has not answered for this long. If the source's
        schedulers do not send heartbeats either, one attempt without an answer is enough.
    :param heartbeat_s: time between two heartbeats of an agent; see :attr:`agent_silence_s`.
    :param gate_commit_s: one scheduler loop. After it, the database shows all runs that a gate let start before it knew
        of the claim.
    :param beat_s: time between two beats of this engine in the plan.
    :param takeover_s: a caller may take over a plan whose beat has not changed for this long, on the caller's clock.
    :param stop_s: the longest time until the executing tasks of a stopped run have ended.
    :param final_s: how long to wait for the source's final ledger entry; then the failover continues without it.
    :param adopt_s: the longest time until the target's agents have prepared their database.
    :param verify_s: the longest time until the first run in the target succeeds.
    :param state_s: how long the engine retries when the state table does not answer.
    :param poll_s: time between two polls.
    :param lease_s: the lease from the promotion on, if the lease in the state item cannot be used.
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
        """Return the timing for a DR set's settings."""
        # A call to MWAA may take 10 s, and the owner of a plan writes no beat during the call.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent:
    """
    Progress for display: a step started, made progress, or is done.

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
    What a failover would do now. The preview itself changes nothing.

    :param action: nothing (already active), claim, join, cancel, supersede or take over (of the state).
    :param taken_over: for the action *take over*: why the state names no active region. Such a failover is forced,
        regardless of the requested mode. None for any other action.
    :param wanted: number of DAGs to pause in the source and to unpause in the target; None if unknown.
    :param running: running runs of the source; None if unknown, or for a forced failover, which does not call the
        source.
    :param not_ready: why the failover would be refused, a line each.
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
    """Another engine owns the plan now, or has ended it. This engine follows the plan."""

    def __init__(self, plan_id: str) -> None:
        super().__init__(plan_id)
        self.plan_id = plan_id


class FailoverEngine:
    """
    Moves the active role.

    :param store: the state table.
    :param environments: the DR set's environments by region.
    :param owner: the name of this process; unique among all engines of the set.
    :param exempt_dags: ids of exempt DAGs, in addition to DAGs tagged ``dr:control``.
    :param eventual: whether the state table has eventual consistency.
    :param on_step: called with each :class:`StepEvent`. The engine ignores any ``Exception`` that it raises: a failover
        does not depend on its output. Other errors, such as KeyboardInterrupt, end the engine.
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
        self._even_if_not_ready = False
        self._record: FailoverRecord | None = None
        self._steps: list[StepRecord] = []
        self._step, self._step_started, self._last_detail = "check", self._last_write, ""
        self._unrecorded = ""
        self._silence = Silence(self._agents, clock)
        self._warnings: tuple[str, ...] = ()

    # -- public methods ------------------------------------------------------------------------------------------

    def run(self, request: FailoverRequest) -> FailoverRecord:
        """
        Move the active role to *request.target* and return the record of the failover.

        Idempotent: another call, by any caller, joins the open plan for the same target. After completion it raises
        AlreadyActiveError. If the process dies at any point, nothing is lost, and the next call continues.

        :raises AlreadyActiveError: the target is active, and no failover is in progress; treat it as success.
        :raises NotReadyError: a check failed; nothing was changed.
        :raises DrainTimeoutError: runs outlasted the drain; the plan was abandoned, and the source stays active.
        :raises PlanSupersededError: another caller's plan has another target; this engine has stopped.
        :raises FailoverError: a deadline passed in a later step; the plan is open and can be joined or cancelled.
        :raises StateError: the state could not be read, or does not exist.
        """
        self._environment(request.target)
        if not request.reason.strip():
            raise ConfigError("The reason is empty.", advice="Give one; the state and the record store it.")
        self._even_if_not_ready = request.even_if_not_ready
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
                # Only the new owner writes the record and its steps now. This engine would overwrite newer steps.
                self._record, self._steps = None, []
                entered = self._follow(request.target, taken.plan_id, self._read())

    def preview(self, request: FailoverRequest) -> FailoverPreview:
        """Return what :meth:`run` would do now. Changes nothing; for a forced failover, does not call the source."""
        self._environment(request.target)
        state = self._read()
        action = self._action(state, request.target)
        plan = state.plan
        # A superseding plan leaves the region that is active now, even if the open plan leaves another region.
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
                with suppress(MwaaError):  # graceful: a problem, too; auto: the failover continues without the source
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
        """Return the action of a caller whose target is *target*, given the state."""
        plan = state.plan
        can_join = plan is not None and not state.problems and state.phase is Phase.DRAINING and plan.target == target
        # An open plan for this target names its source itself, so it can be joined even if the active region is wrong.
        if not can_join and self._why_unknown(state, target) is not None:
            return "take over"
        if state.phase is Phase.STEADY or plan is None:
            return "nothing" if state.active_region == target else "claim"
        if plan.target == target:
            return "join"
        if state.phase is Phase.DRAINING and state.active_region == target and not plan.takes_over:
            return "cancel"
        return "supersede"

    def _why_unknown(self, state: DRState, target: str) -> str | None:
        """Return why *state* names no active region or cannot be used; None if it can be used."""
        # The table is read only if this caller's settings do not contain the region.
        is_given = state.active_region in self._environments
        regions = frozenset(self._environments) if is_given else self._regions()
        return transitions.why_unknown(state, regions, region=target)

    def _regions(self) -> frozenset[str]:
        """Return the regions of the set: the registered ones, and those in this caller's settings."""
        return self._table(self._store.regions).union(self._environments)

    def _last_active(self, state: DRState, target: str) -> str:
        """Return the last active region, according to the state, the records or the snapshots; else any region."""
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
        """Return the regions that may execute until the promotion: the source; all but the target if it is unknown."""
        if not plan.takes_over:
            return [plan.source]
        return sorted(self._regions() - {plan.target}) or [plan.source]

    def _enter(self, request: FailoverRequest) -> DRState | FailoverRecord:
        """
        Claim, join, cancel, supersede or take over: retry until one of these writes succeeds.

        :return: the state that this engine acts on; or the record, if the plan's owner has finished the plan.
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
                continue  # the state may have changed during the checks
            if action == "cancel" and not self._even_if_not_ready and (why := self._why_target_copy_unreadable(state)):
                raise NotReadyError(
                    f"Plan {_plan(state).id} cannot be cancelled: {why}.",
                    why=[why],
                    advice="Nothing was changed. Wait until that copy can be read, or repeat with --even-if-not-ready.",
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
                    f"; {self._why_unknown(state, request.target)}; it is forced, regardless of the requested mode, "
                    f"and waits for every other registered region: {', '.join(self._sources(_plan(new)))}"
                )
            else:
                new = transitions.cancel(
                    state, plan_id=plan.id, by=request.by, owner=self._owner, reason=request.reason, at=at
                )
            with self._timed(action):
                try:
                    self._put(new, state.version)
                except StaleStateError:
                    continue  # another caller wrote first: read again, decide again
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
        """Follow the plan; take it over if its owner is silent. A caller may turn the plan forced, but not back."""
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
        Follow another engine's plan: return its record when it ends, or the state after this engine has taken it over.

        :raises PlanSupersededError: the open plan has another target than *target*, or another region is active.
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
        """Execute the plan from its present phase to its end."""
        plan_id = _plan(state).id
        # The lease is counted from the response of the write after which the source may start nothing. For an engine
        # that joins, it is counted from its own first read. In both cases that time is now.
        since = self._clock.monotonic()
        self._open_record(state)
        abandoned: DrainTimeoutError | None = None
        while True:
            state = self._own_state(plan_id)
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
        """Do all steps in DRAINING, including the promotion."""
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
            closing = self._await_final_entry(plan, closing)
            with self._timed("lease"):
                self._wait_for_lease(plan, closing)
        with self._timed("promote"):
            new = self._write(plan.id, Phase.DRAINING, lambda row: transitions.promote(row, at=self._clock.now()))
            self._done(f"{new.active_region} is active, epoch {new.epoch}")

    def _record_set(self, state: DRState, source: Environment) -> None:
        plan = _plan(state)
        with self._timed("record"):
            dags = self._dags(plan, source)
            # No user paused the DAGs that the last failover could not unpause, so they belong to the set.
            left, missing = self._dags_not_unpaused(state)
            wanted = sorted({*self._unpaused(dags), *left})
            self._record_as(plan, wanted)
            self._done(f"{len(wanted)} unpaused DAGs recorded, {len(self._exempt(dags))} exempt{missing}")

    def _record_set_from_snapshot(self, state: DRState) -> None:
        plan = _plan(state)
        with self._timed("record"):
            lost = self._set_of_lost_plan() if plan.takes_over else None
            if lost is not None:
                self._record_as(plan, lost.dag_ids)
                self._done(f"{len(lost.dag_ids)} unpaused DAGs recorded, from the set {lost.id} of a lost plan")
                return
            snapshot, why_not = self._set_if_readable(lambda: self._store.get_snapshot(plan.source))
            if snapshot is None and plan.takes_over:
                snapshot = self._newest_snapshot(self._regions())
            if snapshot is None:
                self._record_as(plan, [])
                self._done(
                    f"{why_not or f'there is no snapshot of {plan.source}'}: the failover unpauses no DAG; "
                    f"unpause the DAGs that you want to run in {plan.target}"
                )
                return
            left, missing = self._dags_not_unpaused(state)
            wanted = sorted({*snapshot.dag_ids, *left})
            self._record_as(plan, wanted)
            self._done(
                f"{len(wanted)} unpaused DAGs recorded, from the snapshot of "
                f"{snapshot.recorded_at:%Y-%m-%dT%H:%M:%SZ}{missing}"
            )

    def _set_of_lost_plan(self) -> DagSet | None:
        """Return the newest recorded set of DAGs, unless a failover has completed since it was recorded."""
        newest, _ = self._set_if_readable(self._store.newest_wanted_set)
        completed = [record for record in self._history(self._store.records) or () if record.outcome == "completed"]
        ended_at = max((record.finished_at or record.started_at for record in completed), default=None)
        return None if newest is None or (ended_at is not None and newest.recorded_at <= ended_at) else newest

    def _dags_not_unpaused(self, state: DRState) -> tuple[Collection[str], str]:
        """Return the DAGs that the last failover could not unpause; and a text if they are unknown."""
        left = self._history(lambda: dags_not_unpaused(self._store, state))
        if left is not None:
            return left, ""
        return (), (
            f"; without the DAGs that the last failover to {state.active_region} could not unpause, because its record "
            f"could not be read ({self._unrecorded})"
        )

    def _record_as(self, plan: Plan, wanted: Sequence[str]) -> None:
        """Store the set, then name it in the plan. It is complete before the first pause, and never overwritten."""
        dag_set = DagSet(id=plan.id, region=plan.source, recorded_at=self._clock.now(), dag_ids=tuple(wanted))
        self._table(lambda: self._store.put_set(dag_set))
        self._write(plan.id, Phase.DRAINING, lambda row: transitions.record_set(row, dag_set.id, at=self._clock.now()))

    def _drain(self, state: DRState, source: Environment, since: float) -> tuple[Closing, Sequence[DagInfo]]:
        """
        Wait until the source can start no run and no run of it is in progress.

        The drain begins when the live schedulers have acknowledged. It does not end before the gate of every scheduler
        is closed: a scheduler that its database no longer lists may still start a run.

        :return: the write that closed the source's gate; and the latest listing of its DAGs.
        :raises DrainTimeoutError: runs outlasted the drain, and the plan does not stop them.
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
                # Check the gates before the listing, so that the listing has every run that a gate let start.
                is_closed = self._clock.monotonic() >= closing.gate_closed_at(agents)
                left = self._in_progress(plan, source, exempt)
                if unlisted := {run.dag_id for run in left} - listed:
                    # The DAGs are not listed yet, or were deployed after the listing: they may be exempt.
                    dags = self._dags(plan, source)
                    exempt = self._exempt(dags)
                    listed |= unlisted | {dag.dag_id for dag in dags}
                    continue
                if not left and is_closed:
                    # List the runs again after the gates' commit time: a gate that decided just before it read the
                    # claim may not have committed yet, and a run that just ended may start another one through an
                    # asset. The engine lists the DAGs during this time.
                    read_again_at = self._clock.monotonic() + self._timing.gate_commit_s
                    listing = self._dags(plan, source)
                    self._wait(plan.id, read_again_at - self._clock.monotonic())
                    left = self._in_progress(plan, source, exempt)
                    if not left:
                        break
                if not left:
                    # A run that starts after this gets the full drain time.
                    deadline = self._clock.monotonic() + self._timing.drain_s
                elif self._clock.monotonic() >= deadline:
                    if not plan.stop_running:
                        raise DrainTimeoutError(
                            f"{len(left)} runs in {plan.source} outlasted the drain of {self._timing.drain_s:g} s: "
                            f"{_some(left)}.",
                            runs=[str(run) for run in left],
                            advice="The source stays active. Wait until these runs finish, or repeat with "
                            "--stop-running to stop them.",
                        )
                    self._stop(plan, source, left, exempt)
                    stopped += left
                    deadline = self._clock.monotonic() + self._timing.stop_s
                    continue
                self._progress(
                    f"{counted(len(left), 'run')} in progress: {_some(left)}"
                    if left
                    else _waits_for(plan, closing, agents)
                )
                self._wait(plan.id, self._timing.poll_s)
            is_acknowledged = has_acknowledged(agents, closing.version)
            how = "acknowledged by every scheduler" if is_acknowledged else "not acknowledged: the lease has expired"
            self._done(how + (f"; stopped {_some(stopped)}" if stopped else "; no run in progress"))
            return closing, listing

    def _closing(self, plan: Plan, state: DRState, since: float) -> Closing:
        """Return the write that closes the source's gate: that of *state* or an earlier one, known since *since*."""
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

    def _in_progress(self, plan: Plan, source: Environment, exempt: Collection[str]) -> Sequence[RunInfo]:
        """
        Return the running runs; if there are none, the runs that have ended but still execute a task.

        Another engine may have stopped these runs and died before their tasks ended.
        """
        runs = self._ask(plan, lambda: _not_of(exempt, source.running_runs()))
        return runs or self._ask(plan, lambda: _not_of(exempt, source.running_tasks()))

    def _stop(self, plan: Plan, source: Environment, runs: Sequence[RunInfo], exempt: Collection[str]) -> None:
        """Mark *runs* as failed, and wait until no task instance of the source executes."""
        # Announce first, so that the ledger does not count a stopped run as one that ended by itself.
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
                    advice=f"Check their workers in {source.name}.",
                )
            self._progress(f"stopped {counted(len(runs), 'run')}; {len(left)} still executing: {_some(left)}")
            self._wait(plan.id, self._timing.poll_s)

    def _stop_run(self, plan: Plan, source: Environment, run: RunInfo) -> bool:
        """Stop *run*; return whether it had certainly ended by itself."""
        attempts = 0

        def stop() -> bool:
            nonlocal attempts
            attempts += 1
            return source.stop_run(run)

        was_open = self._ask(plan, stop)
        # An earlier attempt without an answer may have stopped it.
        return not was_open and attempts == 1

    def _announce(self, plan: Plan, runs: Sequence[RunInfo], *, had_ended: bool = False) -> Collection[str] | None:
        """
        Announce that the failover stops *runs*, or that they had ended by themselves.

        :return: the runs that were announced as stopped before; None if this cannot be read. The engine that announced
            a run may have stopped it, or its call may still be in progress.
        """
        state = self._own_state(plan.id)
        before: set[str] = set()
        is_known = True
        for stop in transitions.stops_of(state, state.epoch):
            if not stop.had_ended:
                recorded, _ = self._set_if_readable(partial(self._store.get_set, stop.set_id))
                is_known &= recorded is not None
                before.update(recorded.dag_ids if recorded is not None else ())
        names = tuple(sorted(map(str, runs)))
        set_id = transitions.announced_set_id(plan.id, len(state.stops) + 1, names, had_ended=had_ended)
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
                        advice="Find the user or the process that unpauses them.",
                    )
                paused.update(self._set_paused(plan, source, running, paused=True, listing=listing))
                running, listing = [], None  # the flags have changed
            self._done(f"{counted(len(paused), 'DAG')} paused in {plan.source}")

    def _await_final_entry(self, plan: Plan, closing: Closing) -> Closing:
        """
        Close the source's fence, and wait for its final ledger entry, so that the target repeats no ended run.

        :return: *closing*, with the write that closed the fence.
        """
        with self._timed("ledger"):
            state = self._write(plan.id, Phase.DRAINING, lambda row: transitions.drained(row, at=self._clock.now()))
            arrived_at = self._await_arrival(plan, state.version, closing.lease_s, self._clock.monotonic())
            closing = replace(closing, fence_since=arrived_at)
            # has_ledger: a scheduler that has just started has published nothing yet, but will.
            if not any(agent.has_ledger or agent.ledger_lag_s is not None for agent in self._agents(plan.source)):
                self._done(f"{plan.source} has no ledger: the target takes over no runs")
                return closing
            deadline = self._clock.monotonic() + self._timing.final_s
            while all(agent.final_plan_id != plan.id for agent in self._agents(plan.source)):
                if self._clock.monotonic() >= deadline:
                    self._done(
                        f"{plan.source} did not publish its final ledger entry within {self._timing.final_s:g} s: "
                        "runs that ended in its last seconds may run again"
                    )
                    return closing
                self._progress(f"waiting for the final ledger entry of {plan.source}")
                self._wait(plan.id, self._timing.poll_s)
            self._done(f"the ledger of {plan.source} is complete")
            return closing

    def _wait_for_lease(self, plan: Plan, closing: Closing) -> None:
        """Wait until no gate and no fence of the source lets work start: after acknowledgement, or after the lease."""
        while (rest := closing.role_may_move_at(agents := self._agents(plan.source)) - self._clock.monotonic()) > 0:
            self._progress(f"{plan.source} may still execute for {rest:.0f} s")
            self._wait(plan.id, min(self._timing.poll_s, rest))
        if has_acknowledged(agents, closing.version):
            self._done("acknowledged; no worker can have an older view")
        elif self._must_read(plan.source, closing.version):
            self._done(f"{plan.source} can execute nothing: its view is older than {closing.lease_s:g} s")
        else:
            self._done(
                f"{plan.source} may not know of the failover: if it is not down, it executes until the link is back"
            )

    def _await_arrival(self, plan: Plan, version: int, lease_s: float, since: float) -> float:
        """
        Return the time from which every new read of *plan.source* returns *version* or a later one.

        With eventual consistency, a region may read only its own copy. Its view is then fresh although the copy is old,
        so its lease does not end before the claim has arrived in this copy.

        :raises FailoverError: the version did not arrive within a lease, and the request is not *even_if_not_ready*.
        """
        if self._must_read(plan.source, version):
            return since
        deadline = since + lease_s * CLOCK_MARGIN + self._timing.gate_commit_s
        while not self._must_read(plan.source, version):
            if has_acknowledged(self._agents(plan.source), version):
                return since
            if self._clock.monotonic() >= deadline:
                if self._even_if_not_ready:
                    return since
                raise FailoverError(
                    f"The claim did not arrive in time in the copy of the state table in {plan.source}: "
                    f"{_why_copy_ignores_lease(plan.source)}.",
                    advice="Make sure that it is down, then repeat with --mode forced --even-if-not-ready.",
                )
            self._progress(f"waiting for version {version} to arrive in the copy of the state table in {plan.source}")
            self._wait(plan.id, self._timing.poll_s)
        return self._clock.monotonic()

    def _must_read(self, source: str, version: int) -> bool:
        """Whether each new read of *source* returns *version* or a later one, as far as this caller can read."""
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
            self._done(f"{_plan(state).source} does not answer ({error.message}); continuing without it")

    def _abandon(self, state: DRState, error: DrainTimeoutError) -> str:
        """Cancel the plan, so that its source stays active; return the id of the plan that unpauses the paused DAGs."""
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
            self._done(f"{new.active_region} stays active; unfinished runs: {', '.join(error.runs[:20])}")
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
            last_beats: dict[str, int] = {}
            while True:
                agents = self._agents(plan.target)
                ledger_wait_s = _announced_ledger_wait_s(agents, last_beats)
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
                    *((f"its ledger, which cannot be used: {error}",) if (error := _ledger_error(agents)) else ()),
                ]
                if self._clock.monotonic() >= deadline:
                    raise FailoverError(
                        f"{plan.target} is promoted (epoch {state.epoch}), but not ready within "
                        f"{self._timing.adopt_s:g} s; still waiting for {' and '.join(awaited)}.",
                        advice=f"Read the scheduler logs of {plan.target}.",
                    )
                self._progress(f"waiting in {plan.target} for {' and '.join(awaited)}")
                self._wait(plan.id, self._timing.poll_s)
            self._write(plan.id, Phase.PROMOTING, lambda row: transitions.resume(row, at=self._clock.now()))
            self._done(f"all schedulers of {plan.target} know epoch {state.epoch}")

    def _unpause(self, plan: Plan) -> frozenset[str] | None:
        """Unpause exactly the recorded set in the target; return the set, or None if there is none."""
        with self._timed("unpause"):
            if plan.set_id is None:
                self._done("no set of DAGs was recorded: the failover had paused none")
                return None
            set_id = plan.set_id
            dag_set, why_not = self._set_if_readable(lambda: self._store.get_set(set_id))
            if dag_set is None:
                why = why_not or f"the recorded set {set_id} is missing in the table"
                self._done(f"{why}: unpause the DAGs that you want to run in {plan.target}")
                return None
            wanted = frozenset(dag_set.dag_ids)
            self._done(self._restore(plan, wanted)[1])
            return wanted

    def _restore(self, plan: Plan, wanted: frozenset[str]) -> tuple[frozenset[str], str]:
        """
        Make *wanted* exactly the unpaused DAGs of the target, except for DAGs that cannot be changed.

        :return: the unpaused DAGs of the target, and a text about the changes.
        """
        target = self._environment(plan.target)
        dags = self._dags(plan, target)
        running = frozenset(dag.dag_id for dag in dags if not dag.is_paused)
        # Cancelling keeps the DAGs that users unpaused in the region since the claim.
        unexpected = frozenset() if plan.is_cancellation else frozenset(self._unpaused(dags)) - wanted
        paused = frozenset(dag.dag_id for dag in dags if dag.is_paused)
        listing: Sequence[DagInfo] | None = dags
        for dag_ids, is_pause in ((unexpected, True), (wanted & paused, False)):
            if not dag_ids:
                continue
            changed = dag_ids
            try:
                self._set_paused(plan, target, dag_ids, paused=is_pause, listing=listing)
            except IncompleteError as error:
                changed -= frozenset(error.left)
            running = running - changed if is_pause else running | changed
            listing = None  # the flags have changed
        not_unpaused = sorted(wanted - running)
        paused_again, not_paused = sorted(unexpected - running), sorted(unexpected & running)
        return running, (
            f"{len(wanted) - len(not_unpaused)} of {len(wanted)} recorded DAGs are unpaused in {plan.target}"
            + (f"; missing or not unpaused: {', '.join(not_unpaused[:20])}" if not_unpaused else "")
            + (f"; paused, because not recorded: {', '.join(paused_again[:20])}" if paused_again else "")
            + (f"; not recorded, but could not be paused: {', '.join(not_paused)}" if not_paused else "")
        )

    def _verify(self, plan: Plan, wanted: frozenset[str] | None) -> tuple[str, ...] | None:
        """
        List the DAGs again, and wait for a first run to succeed. Problems are reported; they do not stop the failover.

        :return: the recorded DAGs that are not unpaused; None if no set was recorded, so that there is no change.
        """
        with self._timed("verify"):
            details = []
            not_unpaused: tuple[str, ...] | None = None
            running: Collection[str] | None = None
            if wanted is not None:
                # A late call of an engine that lost the plan may have changed DAGs.
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
        except Exception as error:  # the role has moved and the DAGs are unpaused: the failover is complete in any case
            return f"no first run: {_brief(error)}"

    def _first_run(self, plan: Plan, running: Collection[str] | None) -> str:
        """Wait for a first run to succeed. *running*: the unpaused DAGs of the target; None: list them."""
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
                return f"{TEST_DAG} {run_id} is {found} after {self._timing.verify_s:g} s: check it"
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
                # If the region is lost before its agent takes a snapshot, a forced failover must not use an older one.
                snapshot = DagSet(
                    id=plan.target, region=plan.target, recorded_at=self._clock.now(), dag_ids=tuple(sorted(wanted))
                )
                self._table(lambda: self._store.put_snapshot(snapshot))
            self._close_other_records(plan)
            # Write the record before the state. If this engine dies between the two writes, the next engine completes
            # again. In the reverse order, the record would stay open forever.
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
            lacks = f"; mwaa-dr history may not contain this failover: {self._unrecorded}" if self._unrecorded else ""
            self._done(f"{plan.target} is active, epoch {state.epoch}{lacks}")
        return self._update_record()

    # -- checks --------------------------------------------------------------------------------------------------

    def _check(self, state: DRState, request: FailoverRequest) -> None:
        """Refuse the failover, before any write, if a check failed. A forced failover never calls the source."""
        with self._timed("check"):
            why = self._problems(state, request)
            if why and not request.even_if_not_ready:
                raise NotReadyError(
                    f"{request.target} is not ready: {'; '.join(why)}.",
                    why=why,
                    advice="Nothing was changed. Correct this, or repeat with --even-if-not-ready.",
                )
            self._done("; ".join((*(why or [f"{request.target} is ready"]), *self._warnings)))

    def _problems(self, state: DRState, request: FailoverRequest) -> list[str]:
        """Return why the failover would be refused."""
        target = self._environment(request.target)
        if request.mode is Mode.AUTO:
            self._silence.seconds(state.active_region)
        # Read the beats first: heartbeats that change during the calls to the source then need no extra wait.
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
        """Return why *region* would hold everything after its promotion; empty if it would not."""
        if not self._eventual or not any(agent.eventual == Eventual.SAFE.value for agent in self._agents(region)):
            return ()
        unread = set(self._environments).difference(self._table(self._store.copies))
        if not unread:
            return ()
        why = (
            f"{region} runs only while every copy of the state table can be read ([dr] eventual = safe), and the copy "
            f"in {', '.join(sorted(unread))} cannot be read: first set [dr] eventual = available in {region}"
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
        """Return why the lease does not stop *source*; None if it does."""
        if ignores_lease(self._agents(source)):
            return why_lease_is_ignored(source)
        if not self._eventual or self._reads_all_copies(source) or source in self._table(self._store.copies):
            return None
        return _why_copy_ignores_lease(source)

    def _why_target_copy_unreadable(self, state: DRState) -> str | None:
        """Return why the open plan must not be replaced: its target's copy cannot be read, and may show a promotion."""
        plan = state.plan
        if not self._eventual or plan is None or state.phase is not Phase.DRAINING:
            return None
        if plan.target in self._table(self._store.copies):
            return None
        return f"the copy of the state table in {plan.target} cannot be read, and may show that {plan.target} is active"

    def _live_agents(self, region: str, seen: Beats) -> Sequence[AgentStatus]:
        return live_agents(
            self._agents,
            seen,
            self._clock,
            silence_s=self._timing.agent_silence_s,
            poll_s=self._timing.poll_s,
            on_wait=lambda _: self._progress(f"waiting for a heartbeat from {region}"),
        )[region]

    # -- reading and writing the state --------------------------------------------------------------------------

    def _read(self) -> DRState:
        """Return the state."""
        return self._table(self._store.read)

    def _agents(self, region: str) -> Sequence[AgentStatus]:
        return self._table(lambda: self._store.agents(region))

    def _table(self, call: Callable[[], T]) -> T:
        """Return the result of an idempotent *call* to the table; retry for ``state_s`` while no replica answers."""
        deadline = self._clock.monotonic() + self._timing.state_s
        while True:
            try:
                return call()
            except (StateUnreachableError, StateAccessError) as error:
                if not self._may_be_temporary(error) or self._clock.monotonic() >= deadline:
                    raise
            self._clock.sleep(self._timing.poll_s)

    def _may_be_temporary(self, error: StateError) -> bool:
        """
        Whether to retry: no replica answered, or access was denied while a plan is open.

        Before the claim, missing rights are reported immediately. After it, the engine retries: expired credentials are
        renewed within seconds, and an engine that stops may leave both regions without work.
        """
        return isinstance(error, StateUnreachableError) or self._record is not None

    def _set_if_readable(self, read: Callable[[], DagSet | None]) -> tuple[DagSet | None, str]:
        """Return a set; or None and the reason if the stored set cannot be read. The failover continues without it."""
        try:
            return self._table(read), ""
        except UnreadableItemError as error:
            return None, error.message.rstrip(".")

    def _own_state(self, plan_id: str) -> DRState:
        """
        Return the state if this engine still owns the open plan; write a beat if the last write is ``beat_s`` old.

        :raises PlanSupersededError: another plan is open.
        :raises _TakenOverError: another engine owns the plan, or no plan is open.
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
                return state  # a missing beat does not stop the engine; the next beat may succeed
            return new

    def _write(self, plan_id: str, phase: Phase, step: Callable[[DRState], DRState]) -> DRState:
        """Write the transition *step* from *phase* under this plan. A no-op if the plan has left *phase*."""
        deadline = self._clock.monotonic() + self._timing.state_s
        while True:
            state = self._own_state(plan_id)
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
                if not self._may_be_temporary(error) or self._clock.monotonic() >= deadline:
                    raise
                self._clock.sleep(self._timing.poll_s)
                continue
            return new

    def _put(self, state: DRState, expected_version: int) -> None:
        """
        Write the state. If the response is lost, read the state, so that the engine does not repeat its own step.

        :raises StaleStateError: another process has written, before this write or after it.
        :raises StateUnreachableError: the state has not changed so far.
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
        """Wait and write beats. Stop waiting, with an error, if this engine no longer owns the plan."""
        end = self._clock.monotonic() + seconds
        while (rest := end - self._clock.monotonic()) > 0:
            self._clock.sleep(min(rest, self._timing.beat_s))
            self._own_state(plan_id)

    def _ask(self, plan: Plan, call: Callable[[], T]) -> T:
        """
        Return the result of an idempotent *call* to an environment; retry for ``answer_s`` while it does not answer.

        Before each attempt, the engine reads the state and makes sure that it still owns the plan.
        """
        deadline = self._clock.monotonic() + self._timing.answer_s
        while True:
            state = self._own_state(plan.id)
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
        Return whether the source's schedulers have sent no heartbeat for ``agent_silence_s``.

        If so, one attempt without an answer is enough; each attempt takes up to 12 s if packets get lost. If a part of
        this time is missing, wait for it, unless another attempt fits into it.
        """
        while (silent_s := self._silence.seconds(plan.source)) > 0:
            rest_s = self._timing.agent_silence_s - silent_s
            if rest_s <= 0:
                return True
            if rest_s > attempt_s or self._clock.monotonic() >= deadline:
                return False
            self._progress(f"no answer from {plan.source}; its schedulers are also silent, for {silent_s:.0f} s")
            self._wait(plan.id, min(self._timing.poll_s, rest_s))
        return False

    def _dags(self, plan: Plan, environment: Environment, *, paused: bool | None = None) -> Sequence[DagInfo]:
        """List DAGs. Thousands take long, so the engine checks between the pages that it still owns the plan."""

        def on_progress(read: int, total: int) -> None:
            self._progress(f"{read} of {total} DAGs of {environment.region} listed")
            self._own_state(plan.id)

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
        """Pause or unpause DAGs. Thousands take long, so the engine checks between the calls that it owns the plan."""

        def on_progress(done: int, total: int) -> None:
            self._progress(f"{done} of {total}")
            self._own_state(plan.id)

        def change() -> Sequence[str]:
            nonlocal listing
            # An attempt without an answer may have changed some DAGs, so the listing is used only once.
            known, listing = listing, None
            return environment.set_paused(sorted(dag_ids), paused=paused, listing=known, on_progress=on_progress)

        return set(self._ask(plan, change))

    # -- DAGs and runs -------------------------------------------------------------------------------------------

    def _environment(self, region: str) -> Environment:
        return self._environments[known_region(region, self._environments)]

    def _exempt(self, dags: Sequence[DagInfo]) -> frozenset[str]:
        """Return the ids of the exempt DAGs."""
        return frozenset(dag.dag_id for dag in dags if is_exempt(dag.dag_id, dag.tags, self._exempt_dags))

    def _unpaused(self, dags: Sequence[DagInfo]) -> list[str]:
        """Return the ids of the DAGs that are unpaused and not exempt."""
        exempt = self._exempt(dags)
        return [dag.dag_id for dag in dags if not dag.is_paused and dag.dag_id not in exempt]

    # -- the record, and progress --------------------------------------------------------------------------------

    def _open_record(self, state: DRState) -> None:
        """Begin the plan's record, or continue the record that another engine began."""
        plan = _plan(state)
        if self._record is not None and self._record.id == plan.id:
            return
        found = self._history(lambda: self._store.get_record(plan.id))
        if found is not None:
            self._steps = [*found.steps, *self._steps]
        self._record = FailoverRecord.of(plan, epoch=state.epoch)
        self._update_record()

    def _update_record(self, **changes: Any) -> FailoverRecord:
        """Write the record. If that fails, the next step writes it again."""
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
        Return the result of an idempotent *call* for a history record; None if it fails for any reason.

        A record is for users. No decision of a failover needs it, so its failure must not stop a failover.
        """
        try:
            return self._table(call)
        except Exception as error:
            self._unrecorded = _brief(error)
            return None

    def _stopped(self, error: DRError) -> DRError:
        """
        Return *error* for a caller while a plan is open: with the record, and with the two commands that continue.

        :raises PlanSupersededError: the plan is no longer open; this is more precise than *error*.
        :raises _TakenOverError: another engine owns the plan, or has ended it.
        """
        record = self._record
        if record is None:
            return error
        with suppress(StateError):
            self._own_state(record.id)
            record = self._update_record()
        way_back = (
            ""
            if record.source == record.target
            else f", or return to {record.source}: mwaa-dr failover {record.source} --reason TEXT"
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
    """Set the outcome *aborted* in the open records of other plans; an engine that died cannot write its own."""
    for record in store.records():
        # An unreadable record does not change: a newer version of the provider may be able to read it.
        if record.unreadable is None and record.outcome == "open" and record.id != plan_id:
            store.put_record(replace(record, outcome="aborted", finished_at=at))


def put_dags_not_unpaused(store: StateStore, plan: Plan, dag_ids: Collection[str], *, at: datetime) -> str:
    """Record the DAGs that *plan* could not unpause; return the id of their set, for :func:`.state.complete`."""
    if not dag_ids:
        return ""
    ids = tuple(sorted(dag_ids))
    set_id = transitions.not_unpaused_set_id(plan.id, ids)
    return store.put_set(DagSet(id=set_id, region=plan.target, recorded_at=at, dag_ids=ids)).id


def dags_not_unpaused(store: StateStore, state: DRState) -> tuple[str, ...]:
    """Return the DAGs that the last failover, or the last cancellation, could not unpause in the active region."""
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
    """Return an error as a short text for the line of a step."""
    message = " ".join((error.message if isinstance(error, DRError) else str(error)).split())
    return f"{type(error).__name__}: {message[:300]}".rstrip(": .")


def _ledger_error(agents: Sequence[AgentStatus]) -> str | None:
    """Return the ledger's error from an agent that waits for its ledger; None if there is none."""
    return next((agent.ledger_error for agent in agents if agent.ledger_wait_s is not None), None)


def _announced_ledger_wait_s(agents: Sequence[AgentStatus], last_beats: dict[str, int]) -> float | None:
    """
    Return the longest wait for their ledger that agents announce; None if no new heartbeat announces one.

    :param last_beats: the last beat by job; updated. The announcement of a dead agent counts once.
    """
    announced = []
    for agent in agents:
        if last_beats.get(agent.job) != agent.beat and agent.ledger_wait_s is not None:
            announced.append(agent.ledger_wait_s)
        last_beats[agent.job] = agent.beat
    return max(announced, default=None)


def _refuse_unusable(state: DRState) -> None:
    """:raises StateError: the state was changed by hand to one that no engine can use."""
    plan = state.plan
    is_promoted = state.phase in {Phase.PROMOTING, Phase.RESUMING}
    known = () if plan is None else (plan.target,)
    if (
        state.problems
        or (state.phase is not Phase.STEADY and plan is None)
        or (is_promoted and state.active_region not in known)
    ):
        why = transitions.why_unknown(state, known, region="REGION")
        raise StateError(f"The plan cannot continue: {why}.", advice="Run the command again: it recovers the state.")


def _plan(state: DRState) -> Plan:
    assert state.plan is not None  # noqa: S101  (callers have checked the phase)
    return state.plan


def _why_copy_ignores_lease(source: str) -> str:
    return (
        f"if {source} is cut off, it continues with its own copy of the state table ([dr] eventual = available), which "
        "cannot be read from here, so no lease stops it"
    )


def _identity(state: DRState) -> tuple[object, ...]:
    """Return what identifies a write among others of the same version; only this engine writes as the plan's owner."""
    plan = state.plan
    return state.version, state.epoch, state.phase, plan and (plan.id, plan.owner)


def _waits_for(plan: Plan, closing: Closing, agents: Sequence[AgentStatus]) -> str:
    jobs = awaited(agents, closing.version)
    return (
        f"waiting for schedulers of {plan.source} to acknowledge version {closing.version}"
        + (f": job {', '.join(jobs)}" if jobs else "")
        + "; at most until the lease has expired"
    )


def _not_of(exempt: Collection[str], runs: Sequence[RunInfo]) -> Sequence[RunInfo]:
    return [run for run in runs if run.dag_id not in exempt]


def _some(runs: Sequence[RunInfo]) -> str:
    shown = ", ".join(str(run) for run in runs[:5])
    return shown if len(runs) <= 5 else f"{shown} and {len(runs) - 5} more"


def _superseded(plan_id: str, state: DRState) -> PlanSupersededError:
    if state.plan is None:
        now = f"{state.active_region} is active and no failover is in progress"
    else:
        now = f"{state.plan.by} moves the role from {state.plan.source} to {state.plan.target} (plan {state.plan.id})"
    return PlanSupersededError(
        f"Plan {plan_id} is no longer open: {now} (epoch {state.epoch}).",
        advice="This caller has stopped and changes nothing more. See mwaa-dr status and mwaa-dr history.",
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
