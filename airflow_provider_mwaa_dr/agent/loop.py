"""
The background loop of one scheduler: reads the state, reconciles its region's runs, sends heartbeats.

The loop has its own thread and makes every call that may block. The gate only reads :attr:`AgentLoop.view`. The loop
does not import Airflow: it reads and changes the metadata database through :class:`RegionDb`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.agent.inventory import InventoryKeeper
from airflow_provider_mwaa_dr.agent.metrics import Figures, Publisher
from airflow_provider_mwaa_dr.agent.plan_finisher import PlanFinisher
from airflow_provider_mwaa_dr.core.announced_runs import get_announced_runs
from airflow_provider_mwaa_dr.core.bookkeeping import Bookkeeper, LedgerDb
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import Role, View, may_close, role_of, why_role_unknown
from airflow_provider_mwaa_dr.core.identity import Identity, RivalWatch, identity_problem, needs_rival_watch
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import (
    AgentStatus,
    Clock,
    DagSet,
    IdentityClaim,
    Observation,
    RunsStore,
    StateStore,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import STATE_ID, DRState, Phase, Plan, may_be_region, promoted_plan, regions_of
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import (
    StaleLedgerError,
    StateAccessError,
    StateError,
    StateUnreachableError,
    TableNotFoundError,
    UnreadableItemError,
)

log = get_logger(__name__)

T = TypeVar("T")

_FORGET_AFTER_S = 600.0
"""
The agent drops the heartbeat of a scheduler that its database does not list and that has been silent for so long.

It waits for at least two leases. A failover waits only for schedulers that have a heartbeat in the table, so a
scheduler's view must have expired before its heartbeat is dropped.
"""
_FENCE_NOTE_S = 3600.0
"""A worker writes at most once in this time that it loads the fence (plugins/fence.py)."""
_ENTRIES_WAIT_S = 20.0
"""How long a region that becomes active waits until entries of another region's ledger reach its replica."""
_HURRY_S = 0.5
"""
Time between two turns while a failover is in progress, or while there are more runs to adopt than one turn adopts.

Each step of a failover waits for an agent's next read.
"""
_ERROR_CHARS = 300
"""A heartbeat contains so many characters of an error's text."""
_CHECKS_EVERY_S = 60.0
"""Time between two runs of the queries that may be slow: which task ended last, and which notes remain."""


class RegionDb(LedgerDb, Protocol):
    """What the agent needs from the metadata database; see :class:`plugins.metadata.database.MetadataDb`."""

    @property
    def job_id(self) -> str | None: ...
    def pulse(self) -> object: ...
    def alive_schedulers(self) -> tuple[str, ...]: ...
    def open_runs(self, *, up_to: int, spared_since: datetime | None = None) -> int: ...
    def close_runs(self, note: str, *, queued_for_s: float = 0.0, spared_since: datetime | None = None) -> int: ...
    def pause_all(self) -> int: ...
    def unpaused_dags(self) -> tuple[str, ...]: ...
    def set_paused(self, dag_ids: Collection[str], *, paused: bool) -> int: ...
    def drop_held_notes(self) -> int: ...
    def last_task_end(self, since: datetime) -> datetime | None: ...


@dataclass(slots=True)
class GateCounts:
    """How many runs the gate has held and skipped since the start; only the scheduler's thread writes it."""

    held: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class _Unacknowledged:
    """A view that the scheduler's thread possibly does not use yet; *pulse* was read after the view was set."""

    version: int
    epoch: int
    pulse: object


class _LedgerError(Exception):
    """The ledger did not answer, or refused. Steps that need it wait for the next turn; the other steps continue."""


class AgentLoop:
    """
    One scheduler's agent.

    :ivar view: the last read of the state. The agent replaces it in one assignment and never changes it; the gate's
        thread reads it.

    :param store: the state table; created in the agent's thread, where boto3 may be imported.
    :param runs: the ledger; None if no runs table is set.
    :param counts: the gate's counts, for the heartbeat.
    :param inventory: lists the DAGs and settings of the region's Airflow; None: this agent lists none.
    :param metrics: where the agent publishes its figures; None: this agent publishes none.
    """

    def __init__(
        self,
        *,
        config: DRConfig,
        store: StateStore,
        runs: RunsStore | None = None,
        db: RegionDb,
        clock: Clock,
        counts: GateCounts,
        airflow_version: str,
        view: View | None = None,
        inventory: InventoryKeeper | None = None,
        metrics: Publisher | None = None,
    ) -> None:
        self._config = config
        self._region = config.region
        self._store = store
        self._db = db
        self._clock = clock
        self._counts = counts
        self._airflow_version = airflow_version
        self.view: View | None = view
        self._metrics = metrics
        self._started_at = clock.now()
        self._began = clock.monotonic()
        self._host = socket.gethostname()
        self._identity = Identity.of(config)
        self._rival_watch = RivalWatch(self._identity, clock, silence_s=Timing.from_config(config).agent_silence_s)
        self._disputed: tuple[str, ...] = ()
        self._next_comparison = 0.0
        self._identity_claim: IdentityClaim | None = None
        self._problem: LogOnChange[str | None] = LogOnChange(None)
        self._identity_claims_seen: dict[IdentityClaim, float] = {}
        self._logged_role: LogOnChange[tuple[Role, str | None] | None] = LogOnChange(None)
        self._unacknowledged: list[_Unacknowledged] = []
        self._swapped: tuple[int, int] | None = None
        self._acknowledged = self._published_acknowledged = (0, 0)
        self._reconciled: int | None = None
        """The epoch to which the region's open runs belonged at the end of the last turn."""
        self._standby_as_of: tuple[int | None, datetime] | None = None
        """The region's epoch, and when the agent last read that the region is a standby."""
        self._active_as_of: tuple[int | None, datetime] = None, clock.now()
        """The last epoch in which the region was active, and when the agent first read it."""
        self._published_values: tuple[object, ...] = ()
        self._state_read_at = clock.now()
        self._confirmed_at = clock.monotonic()
        """When the agent last read the state; this includes reads that set no new view."""
        self._beat = 0
        self._beats_written = 0
        self._closed = 0
        self._unclosed_runs = 0
        self._fence_ok: bool | None = None
        self._snapshot: tuple[int, tuple[str, ...]] | None = None
        self._next_snapshot_read_at = 0.0
        self._held_seen = -1
        self._turned_at = self._next_beat = 0.0
        self._next_checks = 0.0
        self._missing: dict[str, tuple[int, float]] = {}
        """For each scheduler that the database does not list: its last beat, and when the agent first read it."""
        self._has_ended = False
        self._finisher: PlanFinisher | None = None
        self._bookkeeper = (
            Bookkeeper(runs, db, clock, region=config.region, peers=self._peers) if runs is not None else None
        )
        self._ledger_error: LogOnChange[str | None] = LogOnChange(None)
        self._ledger_failing: tuple[int, float] | None = None
        """The epoch for which the region waits for its ledger, and the start of the wait."""
        self._without_ledger: Unpublished | None = None
        """The report of a role that began without the ledger; None if this agent has not written one."""
        self._led_at: float | None = None
        self._has_more = False
        self._next_regions_at = 0.0
        self._entries_awaited_until: tuple[int, float] | None = None
        self._turn_error: LogOnChange[str | None] = LogOnChange(None)
        self._unreadable: str | None = None
        """Why the agent cannot use the last answer of the state table; None if it can."""
        self._inventory = inventory
        self._inventory_error: LogOnChange[str | None] = LogOnChange(None)

    def turn(self) -> float:
        """
        Do all the work of one turn; never raises.

        :return: seconds until the next turn.
        """
        if self._has_ended:
            return self._config.refresh_s
        started = self._turned_at = self._clock.monotonic()
        try:
            self._read_state()
            schedulers = self._db.alive_schedulers()
            heartbeat_error = self._report(schedulers)
            has_reconciled = self._work(schedulers)
            self._log_turn_error(heartbeat_error)
        except Exception as error:  # no error ends the loop; the view ages, and the gate holds
            has_reconciled = False
            self._log_turn_error(error)
            if self._unreadable is not None:
                self._report_unreadable()
        if self._metrics is not None:
            self._metrics.publish(self._figures())
        state = self.view.state if self.view is not None else None
        is_hurried = self._has_more or (state is not None and state.phase is not Phase.STEADY)
        refresh_s = min(self._config.refresh_s, _HURRY_S) if is_hurried else self._config.refresh_s
        # Gate and fence wait for the reconciled epoch, so the next turn reads it immediately.
        return 0.1 if has_reconciled else max(0.1, started + refresh_s - self._clock.monotonic())

    def _report_unreadable(self) -> None:
        """Send the heartbeat, if it is time for one, with the reason why the state cannot be used; never raises."""
        try:
            self._acknowledge()
            if self._clock.monotonic() >= self._next_beat:
                self._heartbeat(None, self._db.alive_schedulers())
        except Exception as error:  # the next turn retries
            self._log_turn_error(error)

    @property
    def awaits_scheduler(self) -> bool:
        """Whether the scheduler's thread may still decide with a view that is older than the agent's last one."""
        return bool(self._unacknowledged)

    def acknowledge(self) -> None:
        """
        Publish immediately which view the scheduler's thread uses since the last turn; never raises.

        Called between two turns, because a failover waits for this heartbeat. Does not read the state.
        """
        try:
            self._acknowledge()
            view = self.view
            if not self._has_ended and view is not None and self._acknowledged != self._published_acknowledged:
                self._heartbeat(view.state, self._db.alive_schedulers())
        except Exception as error:  # the next heartbeat publishes it
            self._log_turn_error(error)

    def end(self) -> None:
        """
        Publish in the last heartbeat that this scheduler will start no further run; never raises.

        The caller has closed the scheduler's gate permanently. The agent does nothing afterwards.
        """
        view, self.view, self._has_ended = self.view, None, True
        if view is None or view.problem is not None:
            return  # this agent must not write heartbeats of the region
        try:
            self._heartbeat(view.state, ())
        except Exception as error:  # a failover then waits for the lease to expire
            self._log_turn_error(error)

    def warm_up(self) -> None:
        """
        Read the state before the scheduler's job is known, so that all imports are done early; never raises.

        The read sets no view, so the gate still holds. A failover does not wait for a scheduler that the metadata
        database does not list yet, so such a scheduler must not start a run.
        """
        try:
            self._store.observe(self._region)
        except Exception as error:
            self._log_turn_error(error)

    # The state.

    def _read_state(self) -> None:
        """Read the state and replace the view; never replace it by an older state."""
        read_at, now = self._clock.monotonic(), self._clock.now()
        try:
            observation = self._store.observe(self._region)
            state, seen = observation.state, self.view.state if self.view is not None else None
            if seen is not None and (state is None or seen.is_newer_than(state)):
                found = "no state item" if state is None else f"epoch {state.epoch}, version {state.version}"
                raise _OlderStateError(
                    f"The state table answered with {found} after epoch {seen.epoch}, version {seen.version}: "
                    f"{self._region} does not use this answer. If the table was restored from a backup, or the item "
                    f"{STATE_ID} was changed by hand, run mwaa-dr init --active REGION --above-every-epoch."
                )
        except (StateError, _OlderStateError) as error:
            is_answer = not isinstance(error, (StateUnreachableError, StateAccessError, TableNotFoundError))
            self._unreadable = str(error) if is_answer else None
            raise
        self._unreadable = None
        compared = self._with_rivals(observation)
        problem = identity_problem(self._identity, compared)
        if problem is None and needs_rival_watch(self._identity, observation) and not self._rival_watch.has_compared:
            problem = (
                f"no environment is registered for {self._region}, and the agent waits for the next heartbeats, which "
                f"show whether another environment also counts as {self._region}; mwaa-dr init registers it"
            )
        self._confirmed_at = read_at
        self.view = view = replace(View.of(observation, read_at, problem=problem), waits_for=self._waits_for(state))
        self._log_problem(problem)
        role, reconciled = role_of(view, self._region), view.reconciled_epoch
        if state is not None and role is Role.STANDBY and reconciled in {None, state.epoch}:
            self._standby_as_of = reconciled, now
        if state is not None and role is Role.ACTIVE and self._active_as_of[0] != state.epoch:
            self._active_as_of = state.epoch, now
        self._state_read_at = now
        if state is not None and (state.version, state.epoch) != self._swapped:
            # The pulse is read after the view is set. Once the pulse changes, the scheduler's thread has finished all
            # decisions that it made with an older view.
            self._swapped = (state.version, state.epoch)
            self._unacknowledged.append(_Unacknowledged(state.version, state.epoch, self._db.pulse()))
        self._log_role(view)
        if compared.disputed != observation.disputed:
            # The workers' fences read it with the state.
            self._store.put_dispute(self._region, compared.disputed)

    def _with_rivals(self, observation: Observation) -> Observation:
        """
        Return *observation* with the environments that dispute the region, according to the heartbeats.

        Reads the heartbeats only if no registered name decides.
        """
        if not needs_rival_watch(self._identity, observation):
            return observation
        if self._clock.monotonic() >= self._next_comparison:
            heartbeats: list[AgentStatus | IdentityClaim] = [*self._store.agents(self._region)]
            heartbeats += self._store.identity_claims(self._region)
            self._disputed = tuple(self._rival_watch.compare(heartbeats))
            self._next_comparison = self._clock.monotonic() + self._config.heartbeat_s
        disputed = self._disputed or (() if self._rival_watch.is_sure else observation.disputed)
        return replace(observation, disputed=disputed)

    def _log_problem(self, problem: str | None) -> None:
        if not self._problem.changes_to(problem):
            return
        if problem is not None:
            log.error("This Airflow holds every run: %s.", problem)
        else:
            log.info("The settings and the state table now agree that this Airflow is %s.", self._region)

    def _confirm_state(self, state: DRState) -> None:
        """
        Read the state again, if the last read is too old for a step that cannot be undone.

        :raises _StateChangedError: epoch or phase have changed; the next turn decides again.
        """
        now = self._clock.monotonic()
        if may_close(now - self._confirmed_at, lease_s=state.lease_s):
            return
        again = self._store.observe(self._region).state
        if again is None or (again.epoch, again.phase) != (state.epoch, state.phase):
            found = "no state item" if again is None else f"epoch {again.epoch}, {again.phase.value}"
            raise _StateChangedError(
                f"The turn read epoch {state.epoch}, {state.phase.value}, {now - self._confirmed_at:.0f} s ago, and "
                f"the state table now has {found}: nothing is closed, paused or resumed."
            )
        self._confirmed_at = now

    def _log_role(self, view: View) -> None:
        state, role = view.state, role_of(view, self._region)
        why = why_role_unknown(view, self._region) if role is Role.UNKNOWN else None
        if not self._logged_role.changes_to((role, why)):
            return
        if state is None or why is not None:
            epoch = "unknown" if state is None else state.epoch
            log.warning("%s holds every run, and closes none (epoch %s): %s", self._region, epoch, why)
            return
        log.warning("DR State Plugin: Current region %s is %s", self._region, role.value.upper())
        log.info(
            "%s is %s: active %s, epoch %d, version %d, phase %s",
            self._region,
            role.value,
            state.active_region,
            state.epoch,
            state.version,
            state.phase.value,
        )

    def _acknowledge(self) -> None:
        """Update the version and epoch of the newest view that the scheduler's thread uses."""
        pulse = self._db.pulse()
        while self._unacknowledged and self._unacknowledged[0].pulse != pulse:
            passed = self._unacknowledged.pop(0)
            self._acknowledged = (passed.version, passed.epoch)

    # The metadata database.

    def _report(self, schedulers: tuple[str, ...]) -> Exception | None:
        """
        Send the heartbeat, if it is time for one, before any other item is read: no unreadable item may prevent it.

        :return: why the heartbeat could not be sent; the rest of the turn continues.
        """
        view = self.view
        # If the region's item has an unusable value, the heartbeat restores the epoch that the agent knew before.
        if view is None or not view.problems:
            self._reconciled = view.reconciled_epoch if view is not None else None
        self._acknowledge()
        if self._clock.monotonic() < self._next_beat:
            return None
        try:
            self._heartbeat(view.state if view is not None else None, schedulers)
        except Exception as error:  # the turn logs it at the end of its work
            return error
        return None

    def _work(self, schedulers: tuple[str, ...]) -> bool:
        """
        Reconcile the region's runs and keep its ledger, if this agent leads; publish awaited values in a heartbeat.

        :return: whether this turn wrote a value for which gate and fence wait.
        """
        view = self.view
        if view is not None and view.problem is not None:
            self._stand_aside(view.state, schedulers)
            return False
        state = view.state if view is not None else None
        reconciled = view.reconciled_epoch if view is not None else None
        has_listed = view is not None and state is not None and self._list_regions(view, state, schedulers)
        has_reconciled = False
        is_known = role_of(view, self._region) is not Role.UNKNOWN
        if state is None or not is_known:
            # The open runs may belong to this region, so none is closed, published or taken over.
            pass
        elif self._leads(schedulers):
            self._become_leader()
            has_reconciled = self._reconcile(state, reconciled)
            if has_reconciled:
                reconciled = state.epoch
            if reconciled == state.epoch:
                self._keep_ledger(state)
            if has_reconciled:
                pass
            elif state.phase is Phase.STEADY and state.active_region == self._region:
                self._take_snapshot(state)
            else:
                self._finish(state)
            self._forget(schedulers, state.lease_s)
        else:
            # Another agent leads now: this agent no longer reports open runs or errors of the ledger.
            self._unclosed_runs, self._led_at, self._ledger_failing = 0, None, None
            self._ledger_error.forget(None)
        self._check(state)
        if view is None or not view.problems:
            self._reconciled = reconciled
        self._acknowledge()
        if self._awaited_values() != self._published_values:
            self._heartbeat(state, schedulers)
        if is_known and state is not None and state.phase is Phase.STEADY and self._leads(schedulers):
            self._take_inventory()
        return has_reconciled or has_listed

    def _list_regions(self, view: View, state: DRState, schedulers: tuple[str, ...]) -> bool:
        """
        Keep the list of registered regions in the region's own item, from which gate and fence read it.

        The leading agent writes the complete list about once a minute. Any agent writes it if there is none yet, and
        adds the active region if the list does not contain it.

        :return: whether the list has changed.
        """
        listed, now = view.registered, self._clock.monotonic()
        if listed is None or (self._leads(schedulers) and now >= self._next_regions_at):
            self._next_regions_at = now + _CHECKS_EVERY_S
            found = self._store.regions() | {self._region}
        elif state.active_region not in listed and may_be_region(state.active_region):
            found = listed | self._store.regions([state.active_region])
        else:
            return False
        if found == listed:
            return False
        self._store.put_regions(self._region, found)
        log.info("Registered regions in the item of %s: %s", self._region, ", ".join(sorted(found)))
        return True

    def _stand_aside(self, state: DRState | None, schedulers: tuple[str, ...]) -> None:
        """Write only the identity claim: this Airflow is not the region's environment. Change nothing of the region."""
        # Another environment writes the region's items. If this one becomes the region's, it reads all of them again.
        self._reconciled = self._led_at = self._standby_as_of = self._snapshot = self._ledger_failing = None
        self._has_more = False
        self._unclosed_runs = 0
        self._ledger_error.forget(None)
        self._acknowledge()
        if self._clock.monotonic() >= self._next_beat or self._identity_claim is None:
            self._heartbeat(state, schedulers)

    def _leads(self, schedulers: tuple[str, ...]) -> bool:
        """Whether this is the region's oldest live scheduler. Two leaders do no harm: all is idempotent."""
        return bool(schedulers) and schedulers[0] == self._db.job_id

    def _become_leader(self) -> None:
        """Read the region's own ledger again after a time without the lead: another agent may have written it."""
        now = self._clock.monotonic()
        has_led = self._led_at is not None and now - self._led_at <= 3 * self._config.refresh_s
        if self._bookkeeper is not None and not has_led:
            self._bookkeeper.forget_own_ledger()
        self._led_at = now

    def _reconcile(self, state: DRState, known: int | None) -> bool:
        """
        Bring the region's open runs and the state's epoch together; level-triggered, idempotent.

        :param known: the epoch to which the open runs belong; gate and fence hold until it equals the state's epoch.
        :return: whether this turn made them equal; False also if they were equal before.
        """
        is_active = state.active_region == self._region
        is_promoting = is_active and state.phase is Phase.PROMOTING
        if known == state.epoch:
            if is_active:
                self._unclosed_runs = 0
            else:
                # Users create runs in a standby, too, for example through the REST API under a paused DAG. The agent
                # closes those that stay queued; the gate skips those that start.
                self._close_runs(
                    state,
                    known,
                    spared_since=self._spared_since(state, known),
                    queued_for_s=max(5.0, 2 * self._config.refresh_s),
                )
            return False
        if is_active and known is None and not is_promoting:
            return self._start_first_role(state)
        if is_promoting or (not is_active and known is not None):
            self._pause_all(state)
        try:
            if known is None:
                # An earlier agent wrote the ledger, and ended before its first heartbeat: only the ledger shows that
                # the region had a role.
                known = self._with_ledger(lambda bookkeeper: bookkeeper.unreconciled_epoch(), None)
                if known is not None:
                    self._pause_all(state)
            has_reconciled = self._reconcile_epoch(state, known)
        except _LedgerError:
            if self.view is not None:  # the notes of held runs name the cause
                self.view = replace(self.view, waits_for=self._waits_for(state))
            # A standby waits without limit: another region resumes only the runs that the ledger has accepted.
            if not is_active or state.phase is Phase.DRAINING or not self._has_waited_for_ledger(state):
                return False
            has_reconciled = self._become_active_without_ledger(state, known)
        else:
            self._ledger_failing = None
        if has_reconciled:
            log.info("%s has reconciled its open runs with epoch %d (before: %s)", self._region, state.epoch, known)
        return has_reconciled

    def _start_first_role(self, state: DRState) -> bool:
        """
        Return whether an active region that has never reconciled its runs may execute; its open runs continue.

        The ledger must accept the role first. Otherwise the region could not publish its runs when it loses the role.
        """
        try:
            self._with_ledger(lambda bookkeeper: self._begin_role(bookkeeper, state), None)
        except _LedgerError:
            if self.view is not None:  # the notes of held runs name the cause
                self.view = replace(self.view, waits_for=self._waits_for(state))
            if not self._has_waited_for_ledger(state):
                return False
        self._ledger_failing = None
        log.info("%s is active (epoch %d): its open runs belong to that epoch and continue.", self._region, state.epoch)
        return True

    def _reconcile_epoch(self, state: DRState, known: int | None) -> bool:
        """
        Publish and close the runs that began in an earlier epoch; in the active region, then start the role.

        :return: whether all of it is done.
        :raises _LedgerError: the ledger could not be used; every closed run is one that it had accepted.
        """
        is_active = state.active_region == self._region
        # If an earlier turn or agent has begun the role, it has closed the runs of earlier epochs. The runs that are
        # open now were queued in this epoch.
        if is_active and self._with_ledger(lambda bookkeeper: bookkeeper.has_begun(state.epoch), False):
            self._unclosed_runs = 0
        else:
            self._publish_interrupted(state, known)
            self._close_runs(state, known, spared_since=self._spared_since(state, known))
            if self._unclosed_runs:
                # The scheduler has locked these runs; the next turn closes them.
                return False
        if is_active:
            return self._become_active(state)
        self._with_ledger(lambda bookkeeper: bookkeeper.publish_complete(state.epoch), None)
        # The same as a read that shows the epoch reconciled: runs that open from now on were requested after it.
        self._standby_as_of = state.epoch, self._state_read_at
        return True

    # The ledger. While it cannot be used, the region closes no run that the ledger has not accepted, and does not
    # become active: it would repeat runs of the other region. A refusal may end like a timeout: credentials are
    # renewed, a key or a policy is restored. Only a region that becomes active has a limit, [dr] ledger_wait_s:
    # without one, no region would execute.

    def _with_ledger(self, call: Callable[[Bookkeeper], T], otherwise: T) -> T:
        """
        Return the result of *call*, or *otherwise* if the region has no ledger.

        :raises _LedgerError: the ledger did not answer or refused, or another agent of the region wrote first.
        """
        if self._bookkeeper is None:
            return otherwise
        try:
            try:
                answer = call(self._bookkeeper)
            except StaleLedgerError:
                # Another agent of the region has written. The bookkeeper reads its entries now.
                answer = call(self._bookkeeper)
        except StateError as error:
            self._log_ledger_error(str(error))
            raise _LedgerError(str(error)) from error
        self._log_ledger_error(None)
        return answer

    def _has_waited_for_ledger(self, state: DRState) -> bool:
        """Whether the region, which becomes active, has waited for its ledger for ``ledger_wait_s``."""
        now = self._clock.monotonic()
        if self._ledger_failing is None or self._ledger_failing[0] != state.epoch:
            self._ledger_failing = state.epoch, now
            log.warning(
                "%s waits for its ledger for at most %.0f s before it continues without it (epoch %d): %s",
                self._region,
                self._config.ledger_wait_s,
                state.epoch,
                self._ledger_error.value,
            )
        return now - self._ledger_failing[1] >= self._config.ledger_wait_s

    def _waits_for(self, state: DRState | None) -> str:
        """Return why the open runs are not reconciled, for the notes of held runs; empty if the ledger works."""
        error = self._ledger_error.value
        if error is None or state is None:
            return ""
        if state.active_region != self._region:
            return f"the region closes no run that its ledger has not accepted; its ledger refuses: {error}"
        limit_s = self._config.ledger_wait_s
        return f"it waits at most {limit_s:g} s for its ledger, which refuses: {error}"

    def _ledger_wait_left_s(self) -> float | None:
        """Return the seconds until the region continues without its ledger; None while it does not wait."""
        if self._ledger_failing is None:
            return None
        return max(0.0, self._ledger_failing[1] + self._config.ledger_wait_s - self._clock.monotonic())

    def _become_active_without_ledger(self, state: DRState, known: int | None) -> bool:
        """
        Become active without the other region's history, and store a list of the runs that could not be taken over.

        The list is stored before a run is closed: the agent publishes these runs as soon as the ledger accepts them.

        :return: whether every run of an earlier epoch is closed.
        :raises StateError: the list could not be stored; no run was closed, and the next turn retries.
        """
        spared_since = self._spared_since(state, known, with_ledger=False)
        gap = self._stored_gap(state)  # an earlier turn or an earlier agent may have stored it
        if gap is None:
            newest = self._db.newest_run()
            gap = Unpublished(
                id=f"{self._region}-epoch-{state.epoch}",
                region=self._region,
                epoch=state.epoch,
                begun_epoch=known if known is not None else 0,
                at=self._clock.now(),
                why=self._ledger_error.value or "",
                first_id=newest,
                runs=self._open_runs(),
                unread=tuple(self._bookkeeper.last_read()) if self._bookkeeper is not None else (),
            )
            self._store.put_unpublished(gap)
        self._close_runs(state, known, spared_since=spared_since)
        if self._unclosed_runs:
            return False
        # Runs that users requested after the role had come to this region are not closed, and continue.
        gap = replace(gap, runs=tuple(run for run in gap.runs if run not in set(self._open_runs())))
        self._store.put_unpublished(gap)
        self._without_ledger, self._ledger_failing = gap, None
        log.error(
            "%s becomes active without its ledger, which refused for %.0f s (epoch %d): %s. Runs that another region "
            "finished may execute again. Unfinished runs of another region start when the ledger works again. "
            "mwaa-dr status lists the runs that this region closed, under %s. When you have read the list, run "
            "mwaa-dr check --acknowledge %s.",
            self._region, self._config.ledger_wait_s, state.epoch, gap.why, gap.id, gap.id,
        )  # fmt: skip
        return True

    def _stored_gap(self, state: DRState) -> Unpublished | None:
        """Return the stored list of runs not taken over in the present epoch; None if there is none, or unreadable."""
        try:
            gap = self._store.unpublished(self._region)
        except UnreadableItemError as error:
            log.warning("%s", error.message)
            return None
        return gap if gap is not None and gap.epoch == state.epoch else None

    def _open_runs(self) -> tuple[str, ...]:
        """Return all queued and running runs, sorted, each as ``DAG_ID RUN_ID``."""
        _, states = self._db.read_states(above=self._db.newest_run())
        return tuple(sorted(" ".join(key) for key, status in states.items() if status in {"queued", "running"}))

    def _begin_role(self, bookkeeper: Bookkeeper, state: DRState) -> None:
        """Begin the region's role in the ledger; first publish the runs that were closed while the ledger refused."""
        if bookkeeper.has_begun(state.epoch):
            return
        gap = self._without_ledger
        if gap is None or gap.epoch != state.epoch:
            gap = self._stored_gap(state)
        if gap is None:
            bookkeeper.begin(state.epoch)
            return
        bookkeeper.publish_closed([_to_key(run) for run in gap.runs], epoch=gap.begun_epoch, closed_at=gap.at)
        bookkeeper.begin(state.epoch, first_id=gap.first_id)

    def _log_ledger_error(self, error: str | None) -> None:
        if not self._ledger_error.changes_to(error):
            return
        if error is None:
            log.info("The ledger of %s works again; before: %s", self._region, self._ledger_error.before)
        else:
            log.warning("The ledger of %s cannot be used: %s", self._region, error)

    def _peers(self) -> tuple[str, ...]:
        """Return the registered regions from this region's own item, and the regions that the state names."""
        view = self.view
        if view is None or view.state is None:
            return ()
        return tuple(sorted({*(view.registered or ()), *regions_of(view.state)}))

    def _publish_interrupted(self, state: DRState, known: int | None) -> None:
        """Publish in the ledger which runs this agent is about to close, so that a region resumes them."""
        if known is not None:
            self._with_ledger(
                lambda bookkeeper: bookkeeper.interrupt(state, epoch=known, read_stopped=self._stopped_if_readable),
                None,
            )

    def _become_active(self, state: DRState) -> bool:
        """Adopt history, then resume unfinished runs, of the other regions; return whether all of it is done."""

        def become_active(bookkeeper: Bookkeeper) -> bool:
            bookkeeper.follow(is_thorough=True)
            if self._awaits_entries(bookkeeper, state) or bookkeeper.adopt():
                return False
            bookkeeper.begin(state.epoch)
            # An earlier agent may have begun the role. Publish what executed since, so that it is not resumed.
            if not self._publish_changes(bookkeeper, state):
                return False
            bookkeeper.forget_closed()
            bookkeeper.apply_outcomes()
            self._confirm_state(state)
            # A region that is being drained starts no run, so it resumes none.
            return state.phase is Phase.DRAINING or not bookkeeper.resume(epoch=state.epoch)

        return self._with_ledger(become_active, True)

    def _awaits_entries(self, bookkeeper: Bookkeeper, state: DRState) -> bool:
        """Whether the region waits until another region's entries reach its replica; for 20 seconds at most."""
        awaited = list(bookkeeper.missing)
        plan = promoted_plan(state)
        if plan is not None and self._awaits_final(bookkeeper, state, plan):
            awaited.append(f"the final ledger entry of {plan.source} for plan {plan.id} has not arrived")
        if not awaited:
            return False
        now = self._clock.monotonic()
        if self._entries_awaited_until is None or self._entries_awaited_until[0] != state.epoch:
            self._entries_awaited_until = state.epoch, now + _ENTRIES_WAIT_S
        if now < self._entries_awaited_until[1]:
            return True
        log.warning(
            "%s becomes active without these ledger entries, so their runs may run again, or wait: %s",
            self._region,
            "; ".join(awaited),
        )
        return False

    def _awaits_final(self, bookkeeper: Bookkeeper, state: DRState, plan: Plan) -> bool:
        """Whether the source has to publish a final entry for the plan, and this region has not read it."""
        has_to = not plan.is_forced and plan.drained and bookkeeper.epoch_of(plan.source) == state.epoch - 1
        return has_to and not bookkeeper.has_read_final(plan.source, plan.id)

    def _keep_ledger(self, state: DRState) -> None:
        """Read other regions' ledgers, publish, adopt and resume; an error of the ledger does not end the turn."""

        self._has_more = False

        def keep(bookkeeper: Bookkeeper) -> None:
            unread: UnreadableItemError | None = None
            try:
                bookkeeper.follow()
            except UnreadableItemError as error:
                unread = error
            if state.active_region != self._region:
                if unread is not None:
                    raise unread
                bookkeeper.apply_outcomes()
                self._has_more = bookkeeper.adopt()
                return
            if state.phase is not Phase.PROMOTING:
                self._begin_role(bookkeeper, state)
            has_published = self._publish_changes(bookkeeper, state)
            if unread is not None:
                # Publishing does not need another region's ledger; the steps below do.
                raise unread
            bookkeeper.apply_outcomes()
            if has_published and state.phase in {Phase.STEADY, Phase.RESUMING}:
                self._confirm_state(state)
                bookkeeper.resume(epoch=state.epoch)
                bookkeeper.make_room()

        with contextlib.suppress(_LedgerError):
            self._with_ledger(keep, None)

    def _publish_changes(self, bookkeeper: Bookkeeper, state: DRState) -> bool:
        return bookkeeper.publish(
            state,
            read_state=lambda: self._store.observe(self._region).state,
            read_stopped=self._read_stopped,
        )

    def _read_stopped(self, set_id: str) -> tuple[str, ...]:
        announced = get_announced_runs(self._store, set_id)
        if announced is None:
            raise StateUnreachableError(
                f"The set {set_id} of stopped runs has not arrived.",
                advice="The agent reads it again in its next turn.",
            )
        return announced

    def _stopped_if_readable(self, set_id: str) -> tuple[str, ...]:
        """Return the runs of a set of stopped runs; empty if the set has expired, or cannot be read."""
        try:
            announced = get_announced_runs(self._store, set_id)
        except UnreadableItemError as error:
            log.warning("%s Runs of this set that the ledger does not list are not published.", error.message)
            return ()
        return announced or ()

    def _pause_all(self, state: DRState) -> None:
        self._confirm_state(state)
        paused = self._db.pause_all()
        if paused:
            log.info(
                "Paused %d DAGs of %s (active %s, epoch %d)", paused, self._region, state.active_region, state.epoch
            )

    def _close_runs(
        self, state: DRState, known: int | None, *, spared_since: datetime | None, queued_for_s: float = 0.0
    ) -> None:
        if state.active_region == self._region:
            begun = "no known epoch" if known is None else f"epoch {known}"
            note = f"closed: begun under {begun}; {self._region} is active under epoch {state.epoch}"
        else:
            note = f"closed: {self._region} is standby, {state.active_region} is active (epoch {state.epoch})"
        newest = self._db.newest_run()
        self._confirm_state(state)
        closed = self._db.close_runs(note, queued_for_s=queued_for_s, spared_since=spared_since)
        self._unclosed_runs = self._db.open_runs(up_to=newest, spared_since=spared_since)
        if closed:
            self._closed += closed
            log.info("Closed %d open runs of %s: %s", closed, self._region, note)

    def _spared_since(self, state: DRState, known: int | None, *, with_ledger: bool = True) -> datetime | None:
        """
        Return the time after which the agent closes no run, because a user may have requested it for the new role.

        This is the time of the last read that showed a standby. A later run continues, or the gate decides on it
        again. None: the agent closes runs of any time. It publishes them, and another region resumes them.

        :param with_ledger: also read in the ledger whether the region itself had the earlier role.
        :raises _LedgerError: the ledger could not be used.
        """
        is_active = state.active_region == self._region
        if not is_active and (known is None or known != state.epoch):
            return None
        if self._standby_as_of is not None and self._standby_as_of[0] == known:
            return self._standby_as_of[1]
        if not is_active:
            return None
        # This agent started after the role had come, so only earlier agents' heartbeats can answer this.
        if (
            known is not None
            and with_ledger
            and self._with_ledger(lambda bookkeeper: bookkeeper.has_begun(known), True)
        ):
            return None
        reads = [agent.standby_as_of for agent in self._store.agents(self._region) if agent.reconciled_epoch == known]
        at = max((at for at in reads if at is not None), default=None)
        if at is None and known is None:
            # No agent has read that the region is a standby. A run that was queued after the first read of the new
            # role belongs to this role. The heartbeat keeps the time for the next agent.
            at = self._active_as_of[1]
            self._standby_as_of = None, at
        return at

    def _take_snapshot(self, state: DRState) -> None:
        """Store the list of unpaused DAGs, but only if the state is the same before and after they were listed."""
        dag_ids = self._db.unpaused_dags()
        # The engine that completes a failover also writes a snapshot, for the region that it made active.
        if (state.version, dag_ids) == self._snapshot and self._has_readable_snapshot():
            return
        if self._store.observe(self._region).state != state:
            return
        now = self._clock.now()
        self._store.put_snapshot(
            DagSet(id=f"SNAPSHOT#{self._region}", region=self._region, recorded_at=now, dag_ids=dag_ids)
        )
        self._snapshot = state.version, dag_ids

    def _has_readable_snapshot(self) -> bool:
        """Whether the snapshot that this agent wrote can be read; the agent reads it again once a minute."""
        now = self._clock.monotonic()
        if now < self._next_snapshot_read_at:
            return True
        self._next_snapshot_read_at = now + _CHECKS_EVERY_S
        try:
            self._store.get_snapshot(self._region)
        except UnreadableItemError as error:
            log.warning("%s The agent of %s writes it again.", error.message, self._region)
            return False
        return True

    def _finish(self, state: DRState) -> None:
        """Finish a promoted plan whose owner is silent: until the plan ends, no region executes."""
        if self._finisher is None:
            self._finisher = PlanFinisher(
                self._store,
                self._db,
                self._clock,
                region=self._region,
                owner=f"agent of {self._region} (job {self._db.job_id} on {self._host})",
                takeover_s=Timing.from_config(self._config).takeover_s,
            )
        self._finisher.turn(state)

    def _check(self, state: DRState | None) -> None:
        """Remove notes of runs that are no longer held, and check once a minute whether the workers load the fence."""
        held = self._counts.held
        if held != self._held_seen and self._db.drop_held_notes() == 0:
            self._held_seen = held
        if self._clock.monotonic() < self._next_checks:
            return
        self._next_checks = self._clock.monotonic() + min(_CHECKS_EVERY_S, 12 * self._config.heartbeat_s)
        if not self._config.fence or state is None:
            self._fence_ok = None
            return
        ended_at = self._db.last_task_end(self._started_at)
        if ended_at is None:
            self._fence_ok = None
            return
        try:
            noted_at = self._store.fence(self._region)
        except UnreadableItemError:
            self._fence_ok = None  # unknown; status names the item, and a worker writes it again
            return
        self._fence_ok = noted_at is not None and noted_at >= ended_at - timedelta(seconds=1.5 * _FENCE_NOTE_S)

    def _take_inventory(self) -> None:
        """List a part of the region's inventory; an error here affects no other step."""
        if self._inventory is None:
            return
        error = self._inventory_error.value
        try:
            if self._inventory.turn(self._peers):
                error = None
        except Exception as raised:  # only the readiness checks use the inventory
            error = f"{type(raised).__name__}: {raised}".splitlines()[0][:_ERROR_CHARS]
        if self._inventory_error.changes_to(error) and error is not None:
            log.warning("The inventory of %s cannot be taken: %s", self._region, error)

    # The heartbeat.

    def _awaited_values(self) -> tuple[object, ...]:
        """Return the values of a heartbeat for which engines and other agents wait."""
        bookkeeper = self._bookkeeper
        return (
            self._acknowledged,
            # The first read as a standby is awaited, too: after a crash it shows which runs were requested later.
            self._last_read_as_standby() is not None,
            self._reconciled,
            self._unclosed_runs,
            self._ledger_error.value,
            self._inventory_error.value,
            self._held_because(),
            (bookkeeper.final_plan_id, bookkeeper.waiting, bookkeeper.unread) if bookkeeper is not None else None,
        )

    def _last_read_as_standby(self) -> datetime | None:
        """Return when the agent last read that the region is a standby with reconciled runs; None if it is not."""
        epoch, at = self._standby_as_of or (None, None)
        return at if epoch == self._reconciled else None

    def _heartbeat(self, state: DRState | None, schedulers: tuple[str, ...]) -> None:
        job_id = self._db.job_id
        if job_id is None:
            return
        self._beat += 1
        # Before the first read the agent knows no registered name; the variables that MWAA sets may be enough.
        unread = Observation(state=None, reconciled_epoch=None)
        problem = self.view.problem if self.view is not None else identity_problem(self._identity, unread)
        if problem is not None:
            self._put_identity_claim(job_id, problem)
            return
        version, epoch = self._acknowledged
        reconciled, standby_as_of = self._reconciled, self._last_read_as_standby()
        is_active = role_of(self.view, self._region) is Role.ACTIVE
        is_adopted = state is not None and is_active and reconciled == state.epoch
        self._store.put_agent(
            AgentStatus(
                region=self._region,
                job=job_id,
                host=self._host,
                at=self._clock.now(),
                beat=self._beat,
                version=version,
                epoch=epoch,
                provider_version=__version__,
                airflow_version=self._airflow_version,
                adopted_epoch=reconciled if is_adopted else None,
                reconciled_epoch=reconciled,
                on_unreachable=self._config.on_unreachable.value,
                eventual=self._config.eventual_mode.value if self._config.eventual_mode is not None else None,
                schedulers=schedulers,
                fence_file_s=self._config.fence_file_s,
                gone=self._has_ended,
                fence_ok=self._fence_ok,
                unclosed_runs=self._unclosed_runs,
                held=self._counts.held,
                skipped=self._counts.skipped,
                closed=self._closed,
                problems=self._config.problems,
                ledger_lag_s=self._bookkeeper.lag_s if self._bookkeeper is not None else None,
                ledger_error=self._ledger_error.value,
                has_ledger=self._bookkeeper is not None,
                standby_as_of=standby_as_of,
                final_plan_id=self._bookkeeper.final_plan_id if self._bookkeeper is not None else None,
                waiting=self._bookkeeper.waiting if self._bookkeeper is not None else (),
                unread=self._bookkeeper.unread if self._bookkeeper is not None else (),
                inventory_error=self._inventory_error.value,
                ledger_wait_s=self._ledger_wait_left_s(),
                environment=self._identity.environment,
                aws_region=self._identity.aws_region,
                held_because=self._held_because(),
            )
        )
        if self._identity_claim is not None:
            self._store.forget_identity_claim(self._identity_claim)
            self._identity_claim = None
        self._published_acknowledged, self._published_values = self._acknowledged, self._awaited_values()
        self._beats_written += 1
        # If refresh_s equals heartbeat_s, each turn sends one; 0.95, because the next turn may come here a bit sooner.
        self._next_beat = self._turned_at + 0.95 * self._config.heartbeat_s

    def _put_identity_claim(self, job_id: str, problem: str) -> None:
        claim = IdentityClaim(
            region=self._region,
            environment=self._identity.environment,
            aws_region=self._identity.aws_region,
            job=job_id,
            at=self._clock.now(),
            beat=self._beat,
            problem=problem,
        )
        self._store.put_identity_claim(claim)
        self._identity_claim = claim
        self._published_acknowledged = self._acknowledged
        self._beats_written += 1
        self._next_beat = self._turned_at + 0.95 * self._config.heartbeat_s

    def _held_because(self) -> str | None:
        """Return why the last read gives the region no role; None if the region has one."""
        if self._unreadable is not None or self.view is None:
            return self._unreadable
        return why_role_unknown(self.view, self._region)

    def _figures(self) -> Figures:
        """Return the values for Airflow's metrics; makes no call."""
        now, view = self._clock.monotonic(), self.view
        state = view.state if view is not None else None
        lag_s = None
        if (
            self._bookkeeper is not None
            and self._led_at is not None
            and view is not None
            and state is not None
            and state.active_region == self._region
            and view.reconciled_epoch == state.epoch
        ):
            # The region has published nothing yet: the lag is at least the time since this agent started.
            lag_s = self._bookkeeper.lag_s if self._bookkeeper.lag_s is not None else now - self._began
        return Figures(
            role=role_of(view, self._region),
            epoch=state.epoch if state is not None else None,
            state_age_s=now - (view.read_at if view is not None else self._began),
            ledger_lag_s=lag_s,
            heartbeats=self._beats_written,
            held=self._counts.held,
            skipped=self._counts.skipped,
            closed=self._closed,
        )

    def _forget(self, schedulers: tuple[str, ...], lease_s: float) -> None:
        """Drop the heartbeats of schedulers that the database does not list and that have been silent for long."""
        now = self._clock.monotonic()
        if now < self._next_checks:
            return
        missing = {agent.job: agent.beat for agent in self._store.agents(self._region) if agent.job not in schedulers}
        known = self._missing
        self._missing = {
            job: known[job] if job in known and known[job][0] == beat else (beat, now) for job, beat in missing.items()
        }
        for job, (_, since) in self._missing.items():
            if now - since >= max(_FORGET_AFTER_S, 2 * lease_s):
                self._store.forget_agent(self._region, job)
                log.info(
                    "Dropped the heartbeat of scheduler job %s of %s: the database does not list the job, and its "
                    "agent has been silent for %.0f s.", job, self._region, now - since,
                )  # fmt: skip
        claims = self._store.identity_claims(self._region)
        self._identity_claims_seen = {claim: self._identity_claims_seen.get(claim, now) for claim in claims}
        for claim, since in self._identity_claims_seen.items():
            if now - since >= _FORGET_AFTER_S:
                self._store.forget_identity_claim(claim)

    # Errors.

    def _log_turn_error(self, error: Exception | None) -> None:
        """Log an error when it changes and when it ends, and not in each turn."""
        found = None if error is None else f"{type(error).__name__}: {error}"
        if not self._turn_error.changes_to(found):
            return
        epoch = self.view.state.epoch if self.view is not None and self.view.state is not None else "unknown"
        if found is None:
            log.info("The agent of %s works again (epoch %s); before: %s", self._region, epoch, self._turn_error.before)
        else:
            log.warning(
                "The agent of %s could not finish its turn (epoch %s): %s. If this lasts longer than the lease, the "
                "region holds its runs.",
                self._region,
                epoch,
                found.rstrip("."),
                exc_info=error if not isinstance(error, _EXPECTED) else None,
            )


class _OlderStateError(Exception):
    """A read returned an older state than an earlier read, or no state."""


class _StateChangedError(Exception):
    """The state has changed during a long turn."""


_EXPECTED = (StateError, _OlderStateError, _StateChangedError)


def _to_key(run: str) -> RunKey:
    """Return the key of a run that is listed as ``DAG_ID RUN_ID``; a DAG id contains no space."""
    dag_id, _, run_id = run.partition(" ")
    return dag_id, run_id
