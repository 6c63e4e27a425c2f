"""
Two regions with real agents, ledger, gate and engine, on a simulated Airflow. A seed decides what happens.

Only the world is simulated (tests/simulation/airflow.py, tests/histories.py). The provider's core runs unchanged. At
the end all faults are ended, and the *oracle* compares the executions with those of a single Airflow.

A history runs without a trace. If it goes wrong, it runs again with a trace: the same seed gives the same history, up
to the last event.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from greenlet import getcurrent, greenlet

from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.core.announced_runs import get_announced_runs
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.failover import StepEvent, StepStatus
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide
from airflow_provider_mwaa_dr.core.ledger import SCHEDULED, CheckpointInfo, LogEntry, RegionLedger, RunKey
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    RECORDS,
    SNAPSHOTS,
    AgentStatus,
    FailoverRecord,
    Registration,
)
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase
from airflow_provider_mwaa_dr.exceptions import (
    AlreadyActiveError,
    StaleLedgerError,
    StateAccessError,
    StateError,
    StateUnreachableError,
)
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock
from tests.histories import CONTROL, LEASE_S, TIMING, A, B, Caller, KilledError, World
from tests.simulation.airflow import START, Execution, Run, SimulatedAirflow, SimulatedDag
from tests.simulation.faults import DATABASE, ENGINE, LEDGER, STALE_S, STATE, FaultPoints, Point
from tests.simulation.reach import ACTION, EXIT, FAULT, actions, place

DAGS = (
    SimulatedDag("hourly", every_s=20, max_active=1),
    SimulatedDag("often", every_s=12, fails=True),
    SimulatedDag("latest_only", every_s=13, catchup=False),
    SimulatedDag("one_after_the_other", every_s=18, max_active=2, waits_for_past=True, fails=True),
    SimulatedDag("deferring", every_s=25, max_active=2, defers=True),
    SimulatedDag("on_asset", asset_of="hourly"),
    SimulatedDag("by_hand", fails=True),
    SimulatedDag("paused_by_hand", every_s=20),
    SimulatedDag(CONTROL, tags=frozenset({"dr:control"})),
)
PAUSED_BY_USERS = {"paused_by_hand", CONTROL}
WANTED = {dag.dag_id for dag in DAGS} - PAUSED_BY_USERS
LOAD_S = 130
"""Users trigger and clear runs for this time."""
PATIENCE_S = 600
"""Time to execute the runs that are waiting. A run that has not executed by its end never will."""
HEALED_S = 20.0
"""By the end of this time, a lease has expired, and a scheduler that is gone is not listed any longer."""
MOST_SKEW_S = 20.0
LISTED_S = 6.0
"""A scheduler that is gone is listed as alive for this time."""
REFRESH_S = 2.0
CODEC_SHARE = 0.1
"""The share of histories in which the engines' items are converted to items of DynamoDB and back."""


class RegionClock:
    """
    The clock of a region: its wall time is wrong, and it runs at its own rate. The provider must not depend on either.

    :param rate: seconds that it counts in one second. The provider waits a tenth longer than a lease because of it.
    """

    def __init__(self, clock: ManualClock, *, skew_s: float, rate: float) -> None:
        self._clock, self._skew_s, self.rate = clock, skew_s, rate
        self.sleep = clock.sleep
        self._now = -1.0, START

    def monotonic(self) -> float:
        return self._clock.elapsed_s * self.rate

    def wall_s(self) -> float:
        """Return the wall time, in seconds after START."""
        return self._clock.elapsed_s * self.rate + self._skew_s

    def now(self) -> datetime:
        at = self._clock.elapsed_s
        if at != self._now[0]:
            self._now = at, START + timedelta(seconds=self.wall_s())
        return self._now[1]


class Database:
    """The metadata database as one scheduler uses it."""

    def __init__(self, region: Region, job: str) -> None:
        self._region, self.job_id = region, job
        self.is_scheduler = True
        self.beats = 0
        self.alive_schedulers = region.alive_schedulers
        airflow = region.airflow
        for name in (
            "adopt", "cannot_resume", "children", "close_runs", "dag_ids", "drop_held_notes", "drop_own_ends",
            "end_queued", "explain", "keep_own_ends", "last_finished", "last_task_end", "own_ends", "read_states",
            "make_room", "newest_run", "open_runs", "pause_all", "remove", "resume", "runs", "set_paused",
            "apply_outcomes", "tasks", "unpaused_dags", "waits", "put_first", "watchers", "start_waiting_events",
        ):  # fmt: skip
            setattr(self, name, getattr(airflow, name))

    def pulse(self) -> object:
        return self.beats


class RegionsTable(InMemoryStateStore):
    """The state table as a region uses it. Its agent may be killed at any call."""

    has_limits = False
    """Without limits: to convert each heartbeat to an item would double the time of a turn."""
    spend: Callable[[], object]
    acted: Callable[[DRState, DRState], object]
    is_muted = False
    """Whether the table refuses heartbeats and answers reads, as it does if it throttles writes."""
    repeat_late: Callable[[], float | None] = staticmethod(lambda: None)
    """Returns after how many seconds an earlier request for the next heartbeat arrives, too; None: there is none."""

    def put_agent(self, status: AgentStatus) -> None:
        if self.is_muted:
            self.spend()
            raise StateUnreachableError("The state table throttled put_agent.")
        late_s = self.repeat_late()
        if late_s is not None:
            self.send_late(status, late_s)
        super().put_agent(status)

    def send_late(self, status: AgentStatus, late_s: float) -> None:
        """Let a request for *status* arrive in *late_s*. Its sender has given it up, and repeats it now."""
        self._table.attempts += 1
        late = replace(status, attempt=self._table.attempts)
        self.after(late_s, lambda: self._table.agents.__setitem__((status.region, status.job), late))

    after: Callable[[float, Callable[[], object]], object]

    def write(self, state: DRState, *, expected_version: int | None) -> None:
        before = self._table.state
        super().write(state, expected_version=expected_version)
        assert before is not None
        self.acted(before, state)

    def _reach(self, method: str) -> AbstractContextManager[bool]:
        self.spend()
        if self.unreachable:
            raise StateUnreachableError(f"The state table did not answer {method}.")
        return self._table.lock


@dataclass
class _Written:
    """An entry of a log, and the time at which it arrives in the other region's copy of the table."""

    entry: LogEntry
    there_at: float
    published_at: float
    """The time up to which the region had published before this entry."""


class ReplicatedRuns:
    """The runs table: one copy in each region. A write arrives in the other copy later, and in any order."""

    def __init__(self, world: Simulation) -> None:
        self.world = world
        self.logs: dict[str, list[_Written]] = defaultdict(list)
        self.checkpoints: dict[str, list[tuple[float, RegionLedger]]] = defaultdict(list)

    def published_at(self, region: str, published_at: float) -> float:
        """Return the time up to which *region* has published, as far as the other region can read it now."""
        now = self.world.clock.monotonic()
        if self.world.points.is_stale(B if region == A else A):
            now -= STALE_S
        return next((each.published_at for each in self.logs[region] if each.there_at > now), published_at)

    def has_final(self, region: str, plan_id: str) -> bool:
        return any(each.entry.final_plan_id == plan_id for each in self.logs[region])


class RunsCopy:
    """The copy of the runs table that one region uses."""

    def __init__(self, table: ReplicatedRuns, region: Region) -> None:
        self._table, self._region = table, region
        self.unreachable = False

    def _reach(self, method: str) -> None:
        self._region.spend()
        if self.unreachable:
            raise StateUnreachableError(f"The runs table did not answer {method}.")
        world = self._table.world
        if world.refusals and not world.is_healed and world.refusing.random() < world.refusals:
            raise StateAccessError(f"The runs table refused {method}: expired token.")

    def append(self, region: str, entry: LogEntry) -> None:
        self._reach("append")
        log, world = self._table.logs[region], self._table.world
        if entry.number <= len(log):
            if log[entry.number - 1].entry != entry:
                raise StaleLedgerError(f"Entry {entry.number} of {region} exists already.")
            return
        assert entry.number == len(log) + 1, "a log has no gaps"
        there_at = world.clock.monotonic() + world.rng.random() * world.lag_s
        log.append(_Written(entry, there_at, self._region.published_at))
        if world.is_traced:
            world.note_entry(region, entry)
        if world.rng.random() < world.lost_answers:
            world.count_fault("ledger response lost", self._region.name)
            raise StateUnreachableError("The answer of a write was lost.")

    def log(self, region: str, *, after: int) -> Sequence[LogEntry]:
        self._reach("log")
        log = self._table.logs[region][after : after + 200]
        if region == self._region.name or not log:
            return [each.entry for each in log]
        now = self._now()
        return [each.entry for each in log if each.there_at <= now]

    def _now(self) -> float:
        """Return the time up to which the other region's writes have arrived."""
        world = self._table.world
        return world.clock.monotonic() - (STALE_S if world.points.is_stale(self._region.name) else 0.0)

    def save_checkpoint(
        self, region: str, checkpoint: RegionLedger, *, begins_after: RegionLedger | None = None
    ) -> bool:
        self._reach("save_checkpoint")
        world = self._table.world
        there_at = world.clock.monotonic() + world.rng.random() * world.lag_s
        saved = self._table.checkpoints[region]
        if saved:
            there = saved[-1][1]
            lives = {None, checkpoint.life, begins_after.life if begins_after is not None else checkpoint.life}
            if there.life not in lives or there.number > checkpoint.number:
                return False
        saved.append((there_at, _copy(checkpoint)))
        return True

    def checkpoint_info(self, region: str) -> CheckpointInfo | None:
        self._reach("checkpoint_info")
        found = self._visible(region)
        return CheckpointInfo(life=found[-1].life, number=found[-1].number) if found else None

    def checkpoint(self, region: str) -> RegionLedger:
        self._reach("checkpoint")
        found = self._visible(region)
        return _copy(found[-1]) if found else RegionLedger()

    def _visible(self, region: str) -> list[RegionLedger]:
        now = self._now()
        return [
            checkpoint
            for there_at, checkpoint in self._table.checkpoints[region]
            if region == self._region.name or there_at <= now
        ]


def _key_of(run: str) -> RunKey:
    dag_id, _, run_id = run.partition(" ")
    return dag_id, run_id


def _copy(checkpoint: RegionLedger) -> RegionLedger:
    return replace(checkpoint, runs=dict(checkpoint.runs), heads=dict(checkpoint.heads))


@dataclass
class Scheduler:
    """One scheduler of a region, and its agent."""

    database: Database
    agent: AgentLoop
    table: RegionsTable
    stuck_until: float = -1.0
    """The thread of its agent does nothing until then. The scheduler continues."""
    frozen_until: float = -1.0
    """Scheduler and agent do nothing until then, and the database stops listing the scheduler."""
    suspended: greenlet | None = None
    """The turn of its agent, which is suspended in a slow call."""


class Region:
    """A region: an Airflow, and two schedulers with an agent each, which take turns in alternate seconds."""

    def __init__(self, world: Simulation, name: str) -> None:
        self.world, self.name = world, name
        rng = world.rng
        self.clock = RegionClock(
            world.clock, skew_s=rng.choice([0.0, 0.0, MOST_SKEW_S, -MOST_SKEW_S]), rate=rng.choice([1.0, 1.03, 0.97])
        )
        self.environment = self.airflow = world.new_airflow(name, self.clock)
        self.airflow.before_change = self.spend
        self.airflow.paused -= {CONTROL}
        self.store, self.runs = self._new_table(), RunsCopy(world.runs, self)
        self.cut_until = -1.0
        self.ledger_gone_until = -1.0
        self.muted_until = -1.0
        self.calls_left: int | None = None
        """The next agent that makes this number of calls is killed at the last one."""
        self._turning: Scheduler | None = None
        """The scheduler whose agent takes its turn now, and may be suspended."""
        self.gone: dict[str, float] = {}
        """Schedulers that are gone, by job, and the time until which they are still listed."""
        self.published_at = -1.0
        self.died: list[float] = []
        self.fence_view: View | None = None
        self.starts_by_hand = world.own_rng.random() < 0.5
        self.turns = 0
        self.jobs = itertools.count(1)
        self.config = DRConfig(
            enabled=True, region=name, state_table="t", runs_table="r", refresh_s=REFRESH_S, heartbeat_s=REFRESH_S,
            lease_s=LEASE_S, fence=False, fence_file_s=world.own_rng.choice([1.0, 1.0, 4.0]),
            environments={A: "a", B: "b"},
        )  # fmt: skip
        self.is_earlier = world.silence_rng.random() < 0.1
        """Whether its agents are of the version before: their permission depends on reads alone."""
        self.schedulers = [self._new_scheduler(), self._new_scheduler()]

    @property
    def is_up(self) -> bool:
        return self.airflow.is_up

    def alive_schedulers(self) -> tuple[str, ...]:
        now = self.world.clock.monotonic()
        alive = [each.database.job_id for each in self.schedulers if now >= each.frozen_until - LISTED_S]
        if self.gone:
            alive += [job for job, until in self.gone.items() if now < until]
        return tuple(sorted(alive, key=int))

    def spend(self) -> None:
        """Count a call of an agent, which may be killed at it."""
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left <= 0:
                self.calls_left = None
                self.world.count_fault("agent killed", self.name)
                raise KilledError

    def _new_table(self) -> RegionsTable:
        """Return the state table for one process, which remembers only its own reads."""
        table = self.world.table_of(self.name)
        table.spend = self.spend
        table.acted = lambda before, new: self.world.acts(before, new, "an agent")
        table.after, table.repeat_late = self.world.clock.after, self.world.repeat_late
        return table

    def _new_scheduler(self) -> Scheduler:
        database, table = Database(self, str(next(self.jobs))), self._new_table()
        store, runs, db = table, self.runs, database
        points = self.world.points
        if points.is_on:
            store, runs, db = (
                Point(points, self.name, port, target, self.suspend)  # type: ignore[assignment]
                for port, target in ((STATE, store), (LEDGER, runs), (DATABASE, database))
            )
        agent = AgentLoop(
            config=self.config,
            store=store,
            runs=runs,
            db=db,  # type: ignore[arg-type]
            clock=self.clock,
            counts=GateCounts(),
            airflow_version=self.world.version_of(self.name),
        )
        if self.is_earlier:
            agent._confirmation.life = None
        return Scheduler(database, agent, table)

    def restart(self, number: int, *, cleanly: bool = False) -> None:
        """End a scheduler, which stays listed as alive for a while, and start a new one, which remembers nothing."""
        self.world.count_fault("scheduler restarted", self.name)
        if cleanly:
            with suppress(KilledError):
                self.schedulers[number].agent.end()
        self.gone[self.schedulers[number].database.job_id] = self.world.clock.monotonic() + LISTED_S
        self.schedulers[number] = self._new_scheduler()

    def die(self) -> None:
        self.world.note(None, f"{self.name} is lost")
        self.world.count_fault("lost", self.name)
        self.died.append(self.world.clock.monotonic())
        self.airflow.die()

    def cut(self, seconds: float) -> None:
        """Cut the region off from the network for this time."""
        self.world.note(None, f"{self.name} is cut off for {seconds} s")
        self.world.count_fault("cut off", self.name)
        self.cut_until = self.world.clock.monotonic() + seconds

    def freeze(self, number: int, seconds: float) -> None:
        """Freeze a scheduler and its agent for this time."""
        self.world.count_fault("scheduler frozen", self.name)
        self.schedulers[number].frozen_until = self.world.clock.monotonic() + seconds

    def hang(self, number: int, seconds: float) -> None:
        """Let an agent do nothing for this time. Its scheduler continues."""
        self.world.count_fault("agent stuck", self.name)
        self.schedulers[number].stuck_until = self.world.clock.monotonic() + seconds

    def mute(self, seconds: float) -> None:
        """Let the state table refuse the heartbeats of the region for this time."""
        self.world.note(None, f"{self.name} cannot write heartbeats for {seconds} s")
        self.muted_until = self.world.clock.monotonic() + seconds

    def lose_the_ledger(self, seconds: float) -> None:
        """Let the runs table not answer this region for this time."""
        self.world.count_fault("ledger unreachable", self.name)
        self.ledger_gone_until = self.world.clock.monotonic() + seconds

    def revive(self) -> None:
        if not self.is_up:
            self.world.note(None, f"{self.name} is back")
            self.schedulers = [self._new_scheduler(), self._new_scheduler()]
            self.gone.clear()
            self.fence_view = None
        self.airflow.is_up = self.airflow.is_reachable = True

    def in_flight(self) -> list[str]:
        paused = self.airflow.paused
        runs = [
            run.key
            for run in self.airflow.active.values()
            if run.executes or (run.state == "running" and run.dag_id not in paused)
        ]
        return sorted(" ".join(key) for key in runs)

    def turn(self) -> None:
        if not self.is_up:
            return
        self._cut_or_heal()
        now = self.world.clock.monotonic()
        self.turns += 1
        number = self.turns % 2
        scheduler = self.schedulers[number]
        if now >= scheduler.frozen_until:
            is_stuck = now < scheduler.stuck_until or scheduler.suspended is not None
            if not is_stuck and not self._take_turn(scheduler):
                return
            is_stuck |= scheduler.suspended is not None
            agent = scheduler.agent
            self.airflow.schedule(lambda run: self._gate(agent.view, run))
            scheduler.database.beats += 1
            if not is_stuck:
                try:
                    agent.acknowledge()
                except KilledError:
                    self._killed(scheduler)
        if self.world.reads_between_turns:
            self._read_between_turns(self.schedulers[1 - number])
        self.airflow.work(self._fence)
        if self.starts_by_hand:
            self._start_by_hand(scheduler.agent.view if now >= scheduler.frozen_until else None)

    def _read_between_turns(self, scheduler: Scheduler) -> None:
        """Let the agent of the scheduler that is not at work read the state, and take a turn if that is due."""
        now, agent = self.world.clock.monotonic(), scheduler.agent
        if scheduler.suspended is not None or now < max(scheduler.frozen_until, scheduler.stuck_until):
            return
        if self.world.reading.random() < 0.5:
            agent.note_end_of_run()
        try:
            is_due = agent.is_turn_due()
        except KilledError:
            self._killed(scheduler)
            return
        if is_due:
            self._take_turn(scheduler)

    def _gate(self, view: View | None, run: Run) -> Action:
        """Decide as the gate of a scheduler. A run of tasks without bodies (EmptyOperator) would end immediately."""
        is_awaited = view is not None and run.key in view.awaited
        requested_age_s = self._requested_age_s(run)
        action = self._decide(view, DecisionPoint.GATE, requested_age_s=requested_age_s, is_awaited=is_awaited)
        if action is Action.RUN and view is not None and view.state is not None:
            self.world.check_start(self.name, view.state.epoch)
            self.world.check_own_ends(self, view.state.epoch)
            if view.state.phase is Phase.DRAINING:
                self.world.started_while_draining(self, run.key)
        return action

    def _start_by_hand(self, view: View | None) -> None:
        """Check what a run, and a task that no scheduler starts (``airflow tasks run``), could do now."""
        action, epoch = self._fence(False)
        if action is Action.RUN:
            self.world.check_start(self.name, epoch)
        if self._decide(view, DecisionPoint.GATE) is Action.RUN and view is not None and view.state is not None:
            self.world.check_start(self.name, view.state.epoch)

    def _cut_or_heal(self) -> None:
        """Set what is reachable now."""
        now = self.world.clock.monotonic()
        is_cut = now < self.cut_until
        for table in (self.store, *(scheduler.table for scheduler in self.schedulers)):
            table.unreachable = is_cut
            table.is_muted = now < self.muted_until
        self.runs.unreachable = is_cut or now < self.ledger_gone_until
        self.airflow.is_reachable = not is_cut

    def _take_turn(self, scheduler: Scheduler) -> bool:
        """Let an agent take its turn. Return whether the agent is still alive."""
        if not self.world.points.armed:
            return self._continue_turn(scheduler, scheduler.agent.turn)
        turn = scheduler.suspended = greenlet(scheduler.agent.turn)
        return self._continue_turn(scheduler, turn.switch)

    def _continue_turn(self, scheduler: Scheduler, call: Callable[[], object]) -> bool:
        """
        Let an agent continue its turn up to the end, or up to a slow call. Return whether the agent is still alive.
        """
        self._turning = scheduler
        try:
            call()
        except KilledError:
            self._killed(scheduler)
            return False
        finally:
            self._turning = None
        if scheduler.suspended is not None and scheduler.suspended.dead:
            scheduler.suspended = None
        if scheduler.suspended is None:
            self._note_published(scheduler.agent, self.world.clock.monotonic())
        return True

    def _killed(self, scheduler: Scheduler) -> None:
        self.world.note(None, f"{self.name}: scheduler {scheduler.database.job_id} is killed during its turn")
        if scheduler in self.schedulers:
            self.restart(self.schedulers.index(scheduler))

    def suspend(self, seconds: float) -> None:
        """Suspend the turn of an agent in a call that takes this time. Everything else continues."""
        scheduler = self._turning
        if scheduler is None or scheduler.suspended is None:
            return
        turn = scheduler.suspended
        self.world.clock.after(seconds, lambda: self._resume_turn(scheduler, turn))
        turn.parent.switch()

    def _resume_turn(self, scheduler: Scheduler, turn: greenlet) -> None:
        """Let the suspended call return, but not to a process that is gone, and to a frozen one only later."""
        turn.parent = getcurrent()
        if scheduler not in self.schedulers or not self.is_up:
            with suppress(KilledError):
                turn.throw(KilledError)
            return
        left_s = scheduler.frozen_until - self.world.clock.monotonic()
        if left_s > 0:
            self.world.clock.after(left_s, lambda: self._resume_turn(scheduler, turn))
            return
        self._cut_or_heal()
        self._continue_turn(scheduler, turn.switch)

    def _note_published(self, agent: AgentLoop, now: float) -> None:
        bookkeeper = agent._leader.ledger.bookkeeper
        if bookkeeper is not None and bookkeeper.lag_s is not None:
            # Slightly less: the agent may not have seen a run that ended at this moment.
            self.published_at = max(self.published_at, now - bookkeeper.lag_s / self.clock.rate - 0.001)

    def _fence(self, is_back: bool) -> tuple[Action, int]:
        """Decide as a worker does, with a read of the state that is at most ``fence_file_s`` old, or without one."""
        calls_left, self.calls_left = self.calls_left, None
        read_at = self.clock.monotonic()
        if self.fence_view is None or read_at - self.fence_view.read_at > self.config.fence_file_s:
            try:
                observed = self.store.observe(self.name)
                self.fence_view = View.of(observed, read_at)
            except StateError:
                self.fence_view = None
        self.calls_left = calls_left
        action = self._decide(self.fence_view, DecisionPoint.FENCE)
        if action is Action.SKIP and self.fence_view is not None and self.fence_view.read_at < read_at:
            self.fence_view = None
            return self._fence(is_back)
        view = self.fence_view
        return action, view.state.epoch if view is not None and view.state is not None else 0

    def _requested_age_s(self, run: Run) -> float | None:
        return None if run.run_type == SCHEDULED else (self.clock.now() - run.queued_at).total_seconds()

    def _decide(
        self,
        view: View | None,
        point: DecisionPoint,
        *,
        requested_age_s: float | None = None,
        is_awaited: bool = False,
    ) -> Action:
        return decide(
            view,
            region=self.name,
            exempt=False,
            now=self.clock.monotonic(),
            lease_s=LEASE_S,
            point=point,
            requested_age_s=requested_age_s,
            is_awaited=is_awaited,
        ).action


@dataclass
class Verdict:
    """
    The result of the oracle.

    :ivar again: each run that executed more than once, with the reason that allows it; empty if no reason does.
    :ivar wrong: other problems, one sentence for each run.
    """

    lost: list[str] = field(default_factory=list)
    again: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    due: int = 0

    @property
    def is_waiting(self) -> bool:
        """Whether the problems may disappear with time."""
        return bool(self.lost or self.wrong)

    @property
    def problems(self) -> dict[str, str]:
        """Everything that must not happen, by run."""
        return {
            **{run: "was executed again without an allowed reason" for run, why in self.again.items() if not why},
            **dict.fromkeys(self.lost, "is lost"),
            **self.wrong,
        }


@dataclass(frozen=True)
class _Left:
    """A region that lost the role before it could publish everything."""

    at: float
    region: str
    published_at: float


@dataclass
class _Announced:
    """A run that an engine is stopping, until the engine has recorded whether the run had ended by itself."""

    at: float
    run: str
    by: str
    identity: str
    is_answered: bool = False


@dataclass(frozen=True)
class _Fired:
    """
    An asset event: a producer has succeeded.

    :ivar is_lost: its consumer was paused, because a failover had begun to pause or unpause DAGs.
    """

    at: float
    region: str
    dag_id: str
    is_lost: bool


class Simulation(World):
    """Two regions and a ledger."""

    # A scheduler loop takes a second here, and one of the two schedulers may be gone.
    timing = replace(TIMING, gate_commit_s=2.5)
    dags = DAGS

    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.seed, self.is_traced = seed, is_traced
        self.reached: Counter[tuple[str, str]] = Counter()
        self.own_rng = random.Random(f"protocol of {seed}")
        self.silence_rng = random.Random(f"silence of {seed}")
        self.reading = random.Random(f"reads of {seed}")
        self.reads_between_turns = self.reading.random() < 0.3
        """Whether agents also read the state between two turns, and start a turn when something has changed."""
        self.trace: list[tuple[float, RunKey | None, str]] = []
        self.points = FaultPoints(self, seed)
        super().__init__(seed)

    def make_table(self, state: DRState) -> InMemoryStateStore:
        table = super().make_table(state)
        table.has_limits = random.Random(f"codec of {self.seed}").random() < CODEC_SHARE
        return table

    def make_regions(self) -> None:
        rng = self.rng
        self.lag_s = rng.choice([0.0, 1.0, 4.0, 8.0])
        """The longest time that an entry of the ledger takes to the other region."""
        self.lost_answers = rng.choice([0.0, 0.0, 0.02])
        # A separate generator, so that its numbers change no other event of the seed.
        self.refusing = random.Random(f"refusals of {self.seed}")
        self.refusals = self.refusing.choice([0.0, 0.0, 0.0, 0.05])
        """The share of ledger calls that DynamoDB refuses."""
        self.runs = ReplicatedRuns(self)
        self.executions: dict[RunKey, list[Execution]] = defaultdict(list)
        self.numbers = itertools.count()
        self.owed: dict[RunKey, float] = {}
        """Runs that must execute: the time at which each was first created or cleared in the active region."""
        self.requested: dict[RunKey, tuple[str, int]] = {}
        """The region and the epoch in which a user requested a run, or a scheduler created it."""
        self.cleared: dict[RunKey, list[float]] = defaultdict(list)
        self.stops: dict[RunKey, list[float]] = defaultdict(list)
        self.announced: list[_Announced] = []
        self.fires: list[_Fired] = []
        self.left: list[_Left] = []
        self.created_at: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.late: list[tuple[str, str]] = []
        self.looked_back: Counter[str] = Counter()
        """How many look-backs, and how many starts of a role, were compared with those of one Airflow."""
        self.failed_by_users: set[RunKey] = set()
        self.starts: set[tuple[str, int]] = set()
        """Regions and epochs in which a run has started."""
        self.standby_rng = random.Random(f"standby of {self.seed}")
        self.requested_in_standby: dict[RunKey, str] = {}
        """Runs that users requested in a standby, with its region."""
        self.executes: dict[int, str] = {}
        """The region that has executed under each epoch."""
        self.by_id = {dag.dag_id: dag for dag in self.dags}
        self.wanted = set(self.by_id) - PAUSED_BY_USERS
        self.is_healed = False
        for name in (A, B):
            self.store.register(Registration(region=name, environment=name))
            region = self.regions[name] = self.new_region(name)
            if name == A:
                region.airflow.paused -= self.wanted

    def new_region(self, name: str) -> Region:
        """Return a region. A subclass may return another one."""
        return Region(self, name)

    def new_airflow(self, region: str, clock: RegionClock) -> SimulatedAirflow:
        """Return the Airflow of a region. A subclass may return another one."""
        return SimulatedAirflow(region, self.dags, self, clock)

    def version_of(self, region: str) -> str:
        """Return the version of a region's Airflow, as its agents report it."""
        return "simulated"

    def identity_of(self, region: str, key: RunKey) -> RunKey:
        """Return what a run is counted as. It is not its id if two regions may give the same interval another id."""
        return key

    def table_of(self, region: str) -> RegionsTable:
        """Return the state table for *region*. A subclass may return a lagging copy."""
        peer = RegionsTable()
        peer._table = self.store._table
        return peer

    def repeat_late(self) -> float | None:
        """Return after how many seconds a heartbeat that is repeated now arrives a second time; None: it is not."""
        if self.is_healed or self.silence_rng.random() >= 0.01:
            return None
        return self.silence_rng.choice([1.0, 5.0, 20.0])

    @property
    def active(self) -> Region:
        region: Region = self.regions[self.state.active_region]
        return region

    def epoch_of(self, region: str) -> int:
        views = [each.agent.view for each in self.regions[region].schedulers]
        return max((view.state.epoch for view in views if view is not None and view.state is not None), default=0)

    # -- the trace -----------------------------------------------------------------------------------------------------

    def note(self, key: RunKey | None, text: str) -> None:
        """Record an event of one run, or of all runs."""
        if self.is_traced:
            self.trace.append((self.clock.monotonic(), key, text))

    def note_entry(self, region: str, entry: LogEntry) -> None:
        for run in entry.runs:
            resumed = ", resumed" if run.taken_at is not None else ""
            self.note(run.key, f"{region} publishes: {run.status.value}, epoch {run.epoch}{resumed}")
        if entry.final_plan_id is not None or entry.complete_before is not None:
            self.note(None, f"{region} publishes: final {entry.final_plan_id}, complete before {entry.complete_before}")

    def story(self, run: str) -> str:
        """Return the events of a run and the general events, one line each. Repeated events appear once."""
        lines: list[str] = []
        last: dict[bool, str] = {}
        for at, key, text in self.trace:
            mine = key is not None and " ".join(key) == run
            if (mine or key is None) and last.get(mine) != text:
                last[mine] = text
                lines.append(f"{at:8.1f}  {'run  ' if mine else 'all  '}{text}")
        return "\n".join((f"What happened to {run}:", *lines))

    def at_point(self, port: str, name: str, call: Callable[[], Any]) -> Any:
        if not self.points.armed and not self.points.refused_until:
            return call()
        return self.points.call(ENGINE, port, name, call, self.scheduler.hand_over)

    def count_fault(self, fault: str, region: str | None = None) -> None:
        if not self.is_healed:
            self.reached[FAULT, f"{fault}: {place(self.state, region)}"] += 1

    def acts(self, before: DRState, new: DRState, who: str) -> None:
        """Count what a write of the state did."""
        for action in actions(before, new, who):
            self.reached[ACTION, action] += 1
            self.points.happens(action)
        if new.phase is not before.phase:
            self.points.happens(new.phase.value)

    def reads_stale(self, region: str) -> None:
        """Let *region* read the other region's ledger as it was ``STALE_S`` ago. This counts as lag of the ledger."""
        now = self.clock.monotonic()
        self.left = [
            replace(each, published_at=min(each.published_at, self.runs.published_at(each.region, each.published_at)))
            if each.region != region and now - each.at <= STALE_S
            else each
            for each in self.left
        ]

    def stepped(self, event: StepEvent) -> None:
        if event.name == "join" and event.status is StepStatus.STARTED:
            self.reached[ACTION, "join"] += 1

    def new_number(self) -> int:
        return next(self.numbers)

    def body_s(self, region: str) -> float:
        """Return the duration of a task body."""
        return 60.0 if self.rng.random() < self.long_runs / 4 else self.rng.choice([0.5, 1.5, 3.0])

    def fails(self) -> bool:
        """Return whether a run fails."""
        return not self.is_healed and self.rng.random() < 0.08

    def executed(self, execution: Execution) -> None:
        """Record that a task body started or ended."""
        if self.is_traced:
            self.note(execution.key, f"{execution.region} executes: {execution.kind}, epoch {execution.epoch}")
        lines = self.executions[execution.key]
        if execution.kind == "begin":
            self._check_order(execution)
            self._check_previous_success(execution)
        lines.append(execution)

    def _check_order(self, execution: Execution) -> None:
        """A run with depends_on_past starts only after the run before it has succeeded, in whichever region."""
        dag_id, run_id = execution.key
        dag = self.by_id[dag_id]
        if not dag.waits_for_past or dag.every_s is None:
            return
        at = float(run_id.partition("__")[2])
        if at == 0:
            return
        before = self.executions.get((dag_id, f"scheduled__{at - dag.every_s:g}"), ())
        # The other region cannot wait for a run that a lost region could not publish.
        is_unpublished = any(
            each.region == line.region and line.at >= each.published_at for each in self.left for line in before
        )
        assert is_unpublished or any(line.kind == "end" and line.ok for line in before), (
            f"{dag_id} {run_id} starts in {execution.region} before the previous run has succeeded"
        )

    def check_own_ends(self, region: Region, epoch: int) -> None:
        """No end that the region gave runs as a standby remains when its role's first run starts."""
        if (region.name, epoch) in self.starts:
            return
        self.starts.add((region.name, epoch))
        begun = next((each.entry for each in self.runs.logs[region.name] if each.entry.epoch == epoch), None)
        bookkeepers = [each.agent._leader.ledger.bookkeeper for each in region.schedulers]
        if begun is None or any(each is not None and each.missing for each in bookkeepers):
            return  # the role began without the ledger, or without a part of it
        left = [
            " ".join(run.key)
            for run in region.airflow.by_id[: begun.first_id]
            if run.is_own_end and region.airflow.rows.get(run.key) is run
        ]
        self.looked_back["roles"] += 1
        assert not left, f"{region.name} starts a run in epoch {epoch}, and its own ends remain: {left}"

    def _check_previous_success(self, execution: Execution) -> None:
        """
        The previous success of a new run is that of one Airflow (``prev_data_interval_end_success``).

        Only in histories in which the ledgers are complete, and in which no user changed a run of the DAG.
        """
        dag_id = execution.key[0]
        is_changed = any(key[0] == dag_id for key in (*self.cleared, *self.stops, *self.failed_by_users))
        rows = self.regions[execution.region].airflow.rows
        at = rows[execution.key].at
        if self.left or is_changed or at is None or any(region.died for region in self.regions.values()):
            return
        known = {key: lines for key, lines in self.executions.items() if key[0] == dag_id and key != execution.key}
        dates = {key: date for key in known if (date := self._date_of(key)) is not None}
        # A run that waits for an older one, or a resumed run, looks back at a run that is not the last one.
        if len(dates) < len(known) or any(date >= at for date in dates.values()):
            return
        if any(line.kind == "end" and line.at > execution.at - 10 for lines in known.values() for line in lines):
            return  # its row, or the ledger, may not have it yet
        ended = [date for key, date in dates.items() if known[key][-1].kind == "end" and known[key][-1].ok]
        mine = [run.at for run in rows.values() if run.dag_id == dag_id and run.state == "success"]
        found = max((date for date in mine if date is not None and date < at), default=None)
        self.looked_back["successes"] += 1
        assert found == max(ended, default=None), (
            f"{' '.join(execution.key)} in {execution.region}: its previous success is {found}, and in one Airflow "
            f"{max(ended, default=None)}"
        )

    def _date_of(self, key: RunKey) -> float | None:
        rows = [region.airflow.rows.get(key) for region in self.regions.values()]
        return next((row.at for row in rows if row is not None), None)

    def created(self, region: str, key: RunKey) -> None:
        """Record that a scheduler created a run."""
        self.created_at[region, key[0]].append(self.clock.monotonic())
        if region != self.state.active_region:
            return
        if not self.by_id[key[0]].catchup:
            if self.store._table.reconciled.get(region) != self.state.epoch:
                # The region is about to become active. It closes the run, and the scheduler creates it again only
                # while it is the newest interval. Airflow skips the others, as it does for a DAG that was paused.
                return
            self.requested.setdefault(key, (region, self.state.epoch))
        self.owed.setdefault(key, self.clock.monotonic())

    def fired(self, region: str, dag_id: str, *, has_consumer: bool) -> None:
        is_lost = not has_consumer and self.state.plan is not None
        self.fires.append(_Fired(self.clock.monotonic(), region, dag_id, is_lost))

    def changed_late(self, region: str, dag_id: str) -> None:
        self.note(None, f"{region}: a late call changes whether {dag_id} is paused: its plan has ended")
        self.late.append((region, dag_id))
        self.undo_late_changes()

    def undo_late_changes(self) -> None:
        """
        A user sees the wrong flag once no plan is open, and corrects it. No program can distinguish it from a user's
        change.
        """
        for region, dag_id in self.late:
            if self.state.plan is None and self.regions[region].airflow.is_reachable:
                is_active = region == self.state.active_region
                self.regions[region].airflow.set_paused([dag_id], paused=not is_active)

    def triggered(self, region: str, key: RunKey, *, by: RunKey, epoch: int) -> None:
        """Record that a task of the run *by*, which started under *epoch*, triggered a run."""
        self.owed[key] = self.clock.monotonic()
        self.requested[key] = region, epoch

    def started_while_draining(self, region: Region, key: RunKey) -> None:
        """A gate lets a run start in a region that is being drained. Here, no work waits for a run."""
        raise AssertionError(f"{region.name} starts {' '.join(key)} while it is drained")

    def check_start(self, region: str, epoch: int) -> None:
        super().check_start(region, epoch)
        first = self.executes.setdefault(epoch, region)
        assert first == region, f"{region} starts a task under epoch {epoch}, under which {first} executes"

    def stopped(self, region: str, key: RunKey) -> None:
        """Record that an engine stops a run that takes longer than the drain."""
        self.stops[key].append(self.clock.monotonic())

    def stop_answered(self, caller: Caller, run: object) -> None:
        for each in self.announced:
            each.is_answered |= (each.by, each.run) == (caller.name, str(run))

    def _note_stops(self, caller: Caller, before: DRState, new: DRState) -> None:
        """Remember the announced runs, until their engine has recorded the outcome of each."""
        if new.epoch != before.epoch:
            self.announced = [each for each in self.announced if each.by != caller.name or not each.is_answered]
        for stop in new.stops[len(before.stops) :]:
            found = get_announced_runs(self.store, stop.set_id)
            assert found is not None
            if stop.had_ended:
                lines_said = {(caller.name, run) for run in found}
                self.announced = [each for each in self.announced if (each.by, each.run) not in lines_said]
            else:
                now = self.clock.monotonic()
                source = before.active_region
                self.announced += [
                    _Announced(now, run, caller.name, " ".join(self.identity_of(source, _key_of(run)))) for run in found
                ]

    def check_write(self, caller: Caller, before: DRState, new: DRState) -> None:
        self.acts(before, new, "an engine")
        plan = new.plan
        if new.stops != before.stops:
            self._note_stops(caller, before, new)
        self.undo_late_changes()
        if self.is_traced:
            self.note(
                None,
                f"{caller.name}: {new.active_region} {new.phase.value}, epoch {new.epoch}"
                + (f", {plan.source} -> {plan.target} {plan.mode.value} by {plan.owner}" if plan is not None else ""),
            )
        super().check_write(caller, before, new)
        if new.epoch != before.epoch:
            assert before.plan is not None
            left = before.active_region
            # The engine requested the final ledger entry, and promoted without it because the region could not publish.
            is_silent = before.plan.drained and not self.runs.has_final(left, before.plan.id)
            if before.plan.is_forced or is_silent:
                published_at = self.runs.published_at(left, self.regions[left].published_at)
                self.left.append(_Left(self.clock.monotonic(), left, published_at))
            if not self.is_healed:
                self._disturb_promotion(left, new.active_region)

    def _disturb_promotion(self, left: str, target: str) -> None:
        """Inject a fault at the moment of a promotion. Faults at this moment find more problems than others."""
        chance = self.rng.random()
        if chance < 0.12:
            self.regions[target].calls_left = self.rng.randint(1, 30)
        elif chance < 0.22:
            region = self.regions[self.rng.choice([left, target])]
            region.freeze(self.rng.choice([0, 1]), self.rng.choice([8, 20]))
        elif chance < 0.28:
            # A user fails back before the failover is complete.
            self.call(left, after_s=self.rng.choice([0, 1, 5]), mode=Mode.FORCED, even_if_not_ready=True)

    # -- users --------------------------------------------------------------------------------------------------------

    def trigger_by_hand(self) -> None:
        """A user triggers a run in the active region if it is reachable, also at the moment when the role moves."""
        region = self.active
        if region.airflow.is_reachable and region.is_up:
            key = region.airflow.trigger_by_hand("by_hand", self.new_number())
            self.owed[key] = self.clock.monotonic()
            self.requested[key] = region.name, self.state.epoch

    def trigger_in_standby(self) -> None:
        """A user triggers a run in the wrong region."""
        name = B if self.state.active_region == A else A
        region = self.regions[name]
        if region.airflow.is_reachable and region.is_up:
            self.requested_in_standby[region.airflow.trigger_by_hand("by_hand", self.new_number())] = name

    def check_requested_in_standby(self) -> None:
        """Each of these runs executed after all, or is closed in the standby, or the agent has listed it."""
        sets = self.store._table.items
        listed = {run for key, found in sets.items() if key.startswith(DAG_SETS.prefix) for run in found.dag_ids}
        lost = [
            " ".join(key)
            for key, name in self.requested_in_standby.items()
            if key not in self.executions and key not in self.regions[name].airflow.rows and " ".join(key) not in listed
        ]
        assert not lost, f"requested in a standby, deleted, and not listed: {lost}"

    def clear_something(self) -> None:
        """A user clears an ended run in the active region, also during a failover."""
        region = self.active
        if not self._has_become_active(region):
            return
        ended = [key for key in self.executions if (run := region.airflow.rows.get(key)) and not run.is_open]
        if ended:
            self._clear(region, self.rng.choice(sorted(ended)))

    def clear_failed_runs(self) -> None:
        """A user sees that a failed run blocks its DAG, and clears that run."""
        self.clock.after(11, self.clear_failed_runs)
        self.undo_late_changes()
        region = self.active
        if not self._has_become_active(region):
            return
        for dag in self.dags:
            if dag.waits_for_past and dag.dag_id not in region.airflow.paused:
                for run in list(region.airflow.intervals[dag.dag_id].values()):
                    if run.state == "failed":
                        self._clear(region, run.key)

    def _has_become_active(self, region: Region) -> bool:
        """Whether the region is reachable and has become active. Before that, it closes runs that a user clears."""
        has_become_active = self.store._table.reconciled.get(region.name) == self.state.epoch
        return (
            region.is_up
            and region.airflow.is_reachable
            and has_become_active
            and self.state.phase is not Phase.PROMOTING
        )

    def _clear(self, region: Region, key: RunKey) -> None:
        """Clear a run, and the runs that wait for it: otherwise Airflow would have no room for it."""
        self._clear_one(region, key)
        if self.by_id[key[0]].waits_for_past:
            for run in list(region.airflow.open[key[0]].values()):
                if run.state == "running" and not run.has_begun:
                    region.airflow.send_back(run)
                elif run.state == "running" and run.waits:
                    self._clear_one(region, run.key)

    def _clear_one(self, region: Region, key: RunKey) -> None:
        self.note(key, f"a user clears it in {region.name}")
        region.airflow.clear(key)
        identity = self.identity_of(region.name, key)
        self.cleared[identity].append(self.clock.monotonic())
        self.owed.setdefault(identity, self.clock.monotonic())

    def _had_become_active(self, key: RunKey) -> bool:
        """
        Whether the region became active in the epoch in which a user requested the run. If not, it closes the run.
        """
        if key not in self.requested:
            return True
        region, epoch = self.requested[key]
        return epoch == self.state.epoch or any(one.entry.epoch == epoch for one in self.runs.logs[region])

    # -- the oracle ----------------------------------------------------------------------------------------------------

    def judge_after_waiting_runs(self) -> Verdict:
        """
        Return the verdict on everything up to now, after the waiting runs have executed.

        It gives up when none of them has executed for PATIENCE_S: a DAG whose runs take longer than its interval has a
        long queue.
        """
        now = self.clock.monotonic()
        verdict, fewest, deadline = self.judge(now), sys.maxsize, now + PATIENCE_S
        while verdict.is_waiting and self.clock.monotonic() < deadline:
            if len(verdict.problems) < fewest:
                fewest, deadline = len(verdict.problems), self.clock.monotonic() + PATIENCE_S
            self.clock.advance(10)
            verdict = self.judge(now)
        return verdict

    def judge(self, now: float) -> Verdict:
        """
        Return the runs that a single Airflow would have executed up to *now* and no region did, and those executed
        twice.
        """
        verdict = Verdict()
        expected = {key for key, at in self.owed.items() if at <= now and self._had_become_active(key)}
        for dag in self.dags:
            if dag.dag_id in self.wanted and dag.every_s is not None and dag.catchup:
                expected |= self._due(dag, now - 30 - MOST_SKEW_S)
        ended = {key for key, lines in self.executions.items() if any(line.kind == "end" for line in lines)}
        for key, times in self.cleared.items():
            last = max((at for at in times if at <= now), default=0.0)
            if not any(line.kind == "end" and line.at >= last for line in self.executions[key]):
                ended.discard(key)
        verdict.due = len(expected)
        verdict.lost = sorted(" ".join(key) for key in expected - ended)
        for key, lines in self.executions.items():
            begun = [line for line in lines if line.kind == "begin"]
            if len(begun) > 1 and (why := self._why_again(key, lines, begun)) is not None:
                verdict.again[" ".join(key)] = why
        for fire in self.fires:
            if fire.at < now - 10 and not self._has_consumer(fire):
                verdict.wrong[f"{fire.dag_id} -"] = f"has no run for the asset event at {fire.at:.1f} in {fire.region}"
        return verdict

    def _due(self, dag: SimulatedDag, now: float) -> set[RunKey]:
        """Return the intervals of a DAG with catchup that are due before *now*."""
        assert dag.every_s is not None
        return {(dag.dag_id, f"scheduled__{number * dag.every_s:g}") for number in range(int(now // dag.every_s))}

    def _why_again(self, key: RunKey, lines: list[Execution], begun: list[Execution]) -> str | None:
        """Return the reason that allows a run to execute again: empty if none does, None if a user cleared the run."""
        why = None
        for first, second in itertools.pairwise(begun):
            if any(first.at <= at <= second.at for at in self.cleared.get(key, ())):
                continue
            left = [each for each in self.left if each.region == first.region and first.at <= each.at <= second.at]
            # Only ends in this region: a body that another region started may end there while this region executes.
            ends = [
                line.at
                for line in lines
                if (line.kind, line.region) == ("end", first.region) and first.at <= line.at <= second.at
            ]
            if any(first.at <= at <= second.at for at in self.stops.get(key, ())):
                why = "it ran longer than the drain, and an engine stopped it"
            elif not ends:
                if not left and not any(first.at <= at <= second.at for at in self.regions[first.region].died):
                    return ""
                why = "it was executing when its region was lost"
            elif any(max(ends) >= each.published_at for each in left):
                why = "it started or ended within the ledger's lag or a lease"
            elif any(each.identity == " ".join(key) and first.at <= each.at <= second.at for each in self.announced):
                why = "it failed while an engine was stopping it, and that engine could not record it"
            else:
                return ""
        return why

    def _has_consumer(self, fire: _Fired) -> bool:
        """Whether the consumer of an asset got its run, or lost it in a failover, which does not move asset events."""
        if fire.is_lost or any(at >= fire.at for at in self.created_at[fire.region, fire.dag_id]):
            return True
        return any(each.region == fire.region and each.at >= fire.at - LEASE_S for each in self.left)


def disturb(world: Simulation) -> None:
    """Schedule a fault of a region. It ends by itself after a while, or at the end of the history."""
    rng, region = world.rng, world.regions[world.rng.choice([A, B])]

    def later(seconds: float, what: Callable[[], object]) -> None:
        world.clock.after(seconds, lambda: None if world.is_healed else what())

    at, kind = rng.uniform(0, 40), rng.choice(["die", "cut", "stuck", "frozen", "ledger", "restart", "killed"])
    scheduler = rng.choice([0, 1])
    if kind == "die":
        later(at, region.die)
        if (back := rng.choice([5, 30, 60, None])) is not None:
            later(at + back, region.revive)
    elif kind == "cut":
        seconds = rng.choice([5, 30, 60])
        later(at, lambda: region.cut(seconds))
    elif kind == "stuck":
        seconds = rng.choice([5, 9, 30])
        later(at, lambda: region.hang(scheduler, seconds))
    elif kind == "frozen":
        seconds = rng.choice([5, 12, 30])
        later(at, lambda: region.freeze(scheduler, seconds))
    elif kind == "ledger":
        seconds = rng.choice([5, 20])
        later(at, lambda: region.lose_the_ledger(seconds))
    elif kind == "restart":
        cleanly = world.own_rng.random() < 0.5
        later(at, lambda: region.restart(scheduler, cleanly=cleanly))
    else:
        calls = rng.randint(1, 30)
        later(at, lambda: setattr(region, "calls_left", calls))


def freeze_until_unlisted(world: Simulation) -> None:
    """Freeze a scheduler until its database does not list it any longer. Then it continues with its old view."""
    rng, region = world.own_rng, world.regions[world.own_rng.choice([A, B])]
    number, seconds = rng.choice([0, 1]), rng.choice([LISTED_S + 1, LISTED_S + 3])

    def stop() -> None:
        if not world.is_healed:
            scheduler, now = region.schedulers[number], world.clock.monotonic()
            world.note(None, f"{region.name}: scheduler {scheduler.database.job_id} is frozen for {seconds} s")
            scheduler.frozen_until, scheduler.stuck_until = now + seconds, now + 30

    world.clock.after(rng.uniform(0, 40), stop)


def mute(world: Simulation) -> None:
    """Let a region read the state table, but not write its heartbeats."""
    rng, region = world.silence_rng, world.regions[world.silence_rng.choice([A, B])]
    at, seconds = rng.uniform(0, 40), rng.choice([5, 15, 30, 60])
    world.clock.after(at, lambda: None if world.is_healed else region.mute(seconds))


def lose_the_network(world: Simulation) -> None:
    """
    Cut the active region off. It continues to execute, and a caller who knows that forces a failover without waiting.
    """
    region = world.active
    region.cut(40)
    other = B if region.name == A else A
    world.call(other, after_s=world.rng.choice([0, 2]), mode=Mode.FORCED, even_if_not_ready=True)


def fail_over_at_last(world: Simulation, targets: Sequence[str]) -> None:
    """Fail over to each of *targets*, without faults. :raises AssertionError: a failover did not complete."""
    for target in targets:
        world.undo_late_changes()
        last = world.call(target, faulty=False, stop_running=True)
        world.scheduler.run_until_idle()
        if not isinstance(last.outcome, (FailoverRecord, AlreadyActiveError)):
            raise AssertionError(f"the last failover to {target} ended with {last.outcome!r}")
        world.clock.advance(8)
    world.undo_late_changes()


def play(world: Simulation) -> Verdict:
    """
    Run one history: failovers by several callers, some of them killed, during faults. Then heal everything and judge.
    """
    rng = world.rng
    world.points.plan()
    try:
        for second in range(0, LOAD_S, 8):
            world.clock.after(second + rng.random() * 8, world.trigger_by_hand)
            if rng.random() < 0.3:
                world.clock.after(second + rng.random() * 8, world.clear_something)
        for _ in range(world.standby_rng.randint(0, 3)):
            world.clock.after(world.standby_rng.uniform(0, LOAD_S), world.trigger_in_standby)
        world.clear_failed_runs()
        for _ in range(rng.choice([1, 1, 2, 2, 3])):
            for _ in range(rng.randint(0, 3)):
                disturb(world)
            if world.own_rng.random() < 0.2:
                freeze_until_unlisted(world)
            if world.silence_rng.random() < 0.3:
                mute(world)
            world.clock.advance(rng.choice([0, 15]))
            if rng.random() < 0.2:
                lose_the_network(world)
            for _ in range(rng.choice([1, 1, 2])):
                caller = world.call(
                    rng.choice([A, B, B]),
                    after_s=rng.choice([0, rng.uniform(0, 40)]),
                    clock_rate=rng.choice([1.0, 1.03, 0.97]),
                    mode=rng.choice([Mode.AUTO, Mode.AUTO, Mode.GRACEFUL, Mode.FORCED]),
                    stop_running=rng.random() < 0.5,
                    even_if_not_ready=rng.random() < 0.8,
                )
                if rng.random() < 0.4:
                    caller.kill_at = rng.randint(1, rng.choice([40, 150, 400]))
            world.scheduler.run_until_idle()
            world.scheduler.raise_other_errors()
        world.clock.advance(rng.choice([0, 10, 30]))
        heal(world)
        fail_over_at_last(world, rng.sample([A, B], rng.choice([1, 2])))
        verdict = world.judge_after_waiting_runs()
    finally:
        world.scheduler.end()
    world.check_requested_in_standby()
    for caller in world.scheduler.callers:
        ended = caller.outcome
        outcome = ended.outcome.value if isinstance(ended, FailoverRecord) else type(ended).__name__
        world.reached[EXIT, outcome] += 1
    for name, region in world.regions.items():
        if name != world.state.active_region and not world.runs.logs[name]:
            continue  # it never became active: its DAGs stay as users set them, and the gate skips their runs
        running = set(region.airflow.unpaused_dags())
        if running != (world.wanted if name == world.state.active_region else set()):
            raise AssertionError(f"{sorted(running)} are unpaused in {name}")
    return verdict


def heal(world: Simulation) -> None:
    """End all faults, and let the agents notice it."""
    world.is_healed = True
    world.points.heal()
    for region in world.regions.values():
        region.revive()
        region.cut_until = region.ledger_gone_until = region.muted_until = -1.0
        region.calls_left = None
        for scheduler in region.schedulers:
            scheduler.stuck_until = scheduler.frozen_until = -1.0
    world.undo_late_changes()
    world.long_runs = 0
    world.lost_answers = 0.0
    world.clock.advance(HEALED_S)


class WrongHistoryError(AssertionError):
    """A history that breaks a rule. Its text is the trace."""


def run_history(seed: int) -> tuple[Simulation, Verdict]:
    """
    Run one history.

    :raises WrongHistoryError: a run was lost, executed again without a reason, or another rule was broken.
    """
    world = Simulation(seed)
    try:
        verdict = play(world)
        if not verdict.problems:
            return world, verdict
    except Exception:  # the second run, with a trace, raises it again
        pass
    raise WrongHistoryError(explain(seed))


def explain(seed: int) -> str:
    """Return the trace of a history that goes wrong, for a developer."""
    world = Simulation(seed, is_traced=True)
    how = f"To run only this history: .venv/bin/python -m tests.simulation --first {seed} --histories 1"
    try:
        problems = play(world).problems
    except Exception as error:
        last = [f"{at:8.1f}  {' '.join(key) if key else 'all'}: {text}" for at, key, text in world.trace[-30:]]
        around = "\n".join([*world.story("").splitlines()[1:], "The last events:", *last])
        return f"History {seed}: {type(error).__name__}: {error}\n{around}\n{how}"
    if not problems:
        return f"History {seed} went wrong, and came out right with a trace: it is not the same each time.\n{how}"
    kinds = Counter(problems.values())
    found = "\n".join(f"  {run} {what}" for run, what in list(problems.items())[:20])
    return f"History {seed}: {dict(kinds)}\n{found}\n{world.story(next(iter(problems)))}\n{how}"


def _nameless(entry: LogEntry) -> LogEntry:
    """Return an entry without the random name of its life."""
    return replace(entry, life="") if entry.life else entry


def _anonymous(agent: AgentStatus) -> AgentStatus:
    """Return a heartbeat without the random ids of agents."""
    silent = tuple(replace(each, number="") for each in agent.silent)
    return replace(agent, life=agent.life and "life", silent=silent)


def digest(seed: int) -> str:
    """Return a hash of everything that happens in a history. Equal hashes of two versions mean equal histories."""
    world = Simulation(seed, is_traced=True)
    return digest_of(world, lambda: play(world))


def digest_of(world: Simulation, call: Callable[[], Verdict]) -> str:
    """
    Return a hash of everything that happens in *world* while *call* plays its history.

    The hash covers the trace (writes of the state, gate, fence, rows), executions, ledger, heartbeats, records and the
    verdict.
    """
    try:
        outcome = repr(call())
    except Exception as error:
        outcome = repr(error)
    found = hashlib.sha256()
    for at, key, text in world.trace:
        found.update(f"{at!r} {key} {text}\n".encode())
    for executions in world.executions.values():
        found.update(f"{executions}\n".encode())
    for region, log in sorted(world.runs.logs.items()):
        entries = f"{region} {[(_nameless(each.entry), each.there_at, each.published_at) for each in log]}\n"
        # A value that is not stored must not change the digest.
        for value in (
            ", holds_date=False",
            ", triggered_by=None, triggering_user=None, deadlines=()",
            ", children=(), is_replaced=False",
            ", started_at=None, ended_at=None",
        ):
            entries = entries.replace(value, "")
        found.update(entries.encode())
    table = world.store._table
    items = [
        {key.removeprefix(kind.prefix): item for key, item in table.items.items() if key.startswith(kind.prefix)}
        for kind in (DAG_SETS, SNAPSHOTS, RECORDS)
    ]
    agents = {key: _anonymous(agent) for key, agent in table.agents.items()}
    for part in (table.state, agents, table.reconciled, *items):
        # Outcomes as they are stored, so that a digest can be compared with those of earlier versions.
        stored = re.sub(r"<FailoverOutcome\.\w+: ('\w+')>", r"\1", f"{part}\n")
        for value in (
            ", exempt=None",
            ", starts_awaited=False",
            ", awaited=0",
            ", waits=()",
            ", idle=0",
            ", repeats=()",
            ", ended_in_standby=()",
        ):
            stored = stored.replace(value, "")
        found.update(stored.encode())
    found.update(f"{world.clock.monotonic()!r} {outcome}".encode())
    return found.hexdigest()[:16]
