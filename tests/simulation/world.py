"""
Everything together: two regions with real agents, ledger, gate and engine, on an Airflow in memory, from a seed.

What is simulated is the world (tests/simulation/airflow.py, tests/histories.py); all of the provider's core runs as it
is. At the end every region is back, and the *oracle* asks what one Airflow would have executed.

A history is lived through without a trace. One that goes wrong is lived through again with one: it is the same, to the
last event, for the same seed.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from greenlet import getcurrent, greenlet

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.failover import StepEvent
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide
from airflow_provider_mwaa_dr.core.ledger import SCHEDULED, CheckpointInfo, LogEntry, RegionLedger, RunKey
from airflow_provider_mwaa_dr.core.ports import FailoverRecord, Registration
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase
from airflow_provider_mwaa_dr.exceptions import (
    AlreadyActiveError,
    DRError,
    StaleLedgerError,
    StateAccessError,
    StateError,
    StateUnreachableError,
)
from airflow_provider_mwaa_dr.plugins.agent import AgentLoop, GateCounts
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
BY_ID = {dag.dag_id: dag for dag in DAGS}
WANTED = set(BY_ID) - {"paused_by_hand", CONTROL}
LOAD_S = 130
"""People trigger and clear runs for so long."""
PATIENCE_S = 600
"""What has piled up is worked off after so long, or never will be."""
MENDED_S = 20.0
"""A lease, and the time that a scheduler which is gone is listed, are over after so long."""
MOST_SKEW_S = 20.0
LISTED_S = 6.0
"""A scheduler that is gone is listed as alive for so long."""
REFRESH_S = 2.0


class RegionClock:
    """
    A region's clock: its wall time is off, and it goes at a rate of its own; nothing may depend on either.

    :param rate: seconds that it counts in a second. A lease is outwaited with 10 % on top (design.md section 5).
    """

    def __init__(self, clock: ManualClock, *, skew_s: float, rate: float) -> None:
        self._clock, self._skew_s, self.rate = clock, skew_s, rate
        self.sleep = clock.sleep
        self._now = -1.0, START

    def monotonic(self) -> float:
        return self._clock.elapsed_s * self.rate

    def wall_s(self) -> float:
        """Return the wall time, in seconds after the beginning of all."""
        return self._clock.elapsed_s * self.rate + self._skew_s

    def now(self) -> datetime:
        at = self._clock.elapsed_s
        if at != self._now[0]:
            self._now = at, START + timedelta(seconds=self.wall_s())
        return self._now[1]


class Database:
    """One scheduler's way to the metadata database."""

    def __init__(self, region: Region, job: str) -> None:
        self._region, self.job_id = region, job
        self.is_scheduler = True
        self.beats = 0
        self.alive_schedulers = region.alive_schedulers
        airflow = region.airflow
        for name in (
            "adopt", "cannot_resume", "close_runs", "dag_ids", "drop_held_notes", "forget_closed", "last_finished",
            "last_task_end", "read_states", "make_room", "newest_run", "open_runs", "pause_all", "resume", "runs",
            "set_paused", "apply_outcomes", "tasks", "unpaused_dags",
        ):  # fmt: skip
            setattr(self, name, getattr(airflow, name))

    def pulse(self) -> object:
        return self.beats


class RegionsTable(InMemoryStateStore):
    """The state table as a region reaches it; its agent may be killed at any call."""

    has_limits = False
    """A heartbeat as an item takes as long as all the rest of a turn."""
    spend: Callable[[], object]
    acted: Callable[[DRState, DRState], object]

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
    """An entry of a log, and when the other region's copy of the table has it."""

    entry: LogEntry
    there_at: float
    told_at: float
    """Up to when the region had told before."""


class ReplicatedRuns:
    """The runs table: one copy in each region; what one wrote arrives in the other later, in any order."""

    def __init__(self, world: Simulation) -> None:
        self.world = world
        self.logs: dict[str, list[_Written]] = defaultdict(list)
        self.checkpoints: dict[str, list[tuple[float, RegionLedger]]] = defaultdict(list)

    def told_at(self, region: str, told_at: float) -> float:
        """Return up to when *region* has told, as the other one can read by now."""
        now = self.world.clock.monotonic()
        if self.world.points.is_stale(B if region == A else A):
            now -= STALE_S
        return next((each.told_at for each in self.logs[region] if each.there_at > now), told_at)

    def has_final(self, region: str, plan_id: str) -> bool:
        return any(each.entry.final_plan_id == plan_id for each in self.logs[region])


class RunsCopy:
    """The runs table as one region reaches it: its own copy."""

    def __init__(self, table: ReplicatedRuns, region: Region) -> None:
        self._table, self._region = table, region
        self.unreachable = False

    def _reach(self, method: str) -> None:
        self._region.spend()
        if self.unreachable:
            raise StateUnreachableError(f"The runs table did not answer {method}.")
        world = self._table.world
        if world.refusals and not world.is_mended and world.refusing.random() < world.refusals:
            raise StateAccessError(f"The runs table refused {method}: expired token.")

    def append(self, region: str, entry: LogEntry) -> None:
        self._reach("append")
        log, world = self._table.logs[region], self._table.world
        if entry.number <= len(log):
            if log[entry.number - 1].entry != entry:
                raise StaleLedgerError(f"Entry {entry.number} of {region} is there already.")
            return
        assert entry.number == len(log) + 1, "a log has no gaps"
        there_at = world.clock.monotonic() + world.rng.random() * world.lag_s
        log.append(_Written(entry, there_at, self._region.told_at))
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
        """Return up to when what the other region wrote has arrived."""
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


def _copy(checkpoint: RegionLedger) -> RegionLedger:
    return replace(checkpoint, runs=dict(checkpoint.runs), heads=dict(checkpoint.heads))


@dataclass
class Scheduler:
    """One scheduler of a region, and the agent beside it."""

    database: Database
    agent: AgentLoop
    table: RegionsTable
    stuck_until: float = -1.0
    """Its agent's thread does nothing until then; the scheduler goes on."""
    frozen_until: float = -1.0
    """Nor does the scheduler; its database stops listing it."""
    suspended: greenlet | None = None
    """Its agent's turn, suspended in a call that takes long."""


class Region:
    """One region: Airflow, and an agent beside each of two schedulers, which take their turns in alternate seconds."""

    def __init__(self, world: Simulation, name: str) -> None:
        self.world, self.name = world, name
        rng = world.rng
        self.clock = RegionClock(
            world.clock, skew_s=rng.choice([0.0, 0.0, MOST_SKEW_S, -MOST_SKEW_S]), rate=rng.choice([1.0, 1.03, 0.97])
        )
        self.environment = self.airflow = SimulatedAirflow(name, DAGS, world, self.clock)
        self.airflow.before_change = self.spend
        self.airflow.paused -= {CONTROL}
        self.store, self.runs = self._new_table(), RunsCopy(world.runs, self)
        self.cut_until = -1.0
        self.ledger_gone_until = -1.0
        self.calls_left: int | None = None
        """The next agent that makes so many calls is killed at the last of them."""
        self._turning: Scheduler | None = None
        """Whose agent takes its turn at this moment, and may be suspended."""
        self.gone: dict[str, float] = {}
        """Schedulers that are gone, by job, and until when they are listed all the same."""
        self.told_at = -1.0
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
        """An agent makes a call; it may be its last."""
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left <= 0:
                self.calls_left = None
                self.world.count_fault("agent killed", self.name)
                raise KilledError

    def _new_table(self) -> RegionsTable:
        """Return the state table as one process reaches it: what it has read last is its own."""
        table = self.world.table_of(self.name)
        table.spend = self.spend
        table.acted = lambda before, new: self.world.acts(before, new, "an agent")
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
            airflow_version="simulated",
        )
        return Scheduler(database, agent, table)

    def restart(self, number: int, *, cleanly: bool = False) -> None:
        """A scheduler ends, is listed as alive for a while, and another one starts, knowing nothing."""
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
        """Its network is gone for so long."""
        self.world.note(None, f"{self.name} is cut off for {seconds} s")
        self.world.count_fault("cut off", self.name)
        self.cut_until = self.world.clock.monotonic() + seconds

    def stand_still(self, number: int, seconds: float) -> None:
        """A scheduler and its agent do nothing for so long."""
        self.world.count_fault("scheduler frozen", self.name)
        self.schedulers[number].frozen_until = self.world.clock.monotonic() + seconds

    def hang(self, number: int, seconds: float) -> None:
        """An agent does nothing for so long; its scheduler goes on."""
        self.world.count_fault("agent stuck", self.name)
        self.schedulers[number].stuck_until = self.world.clock.monotonic() + seconds

    def lose_the_ledger(self, seconds: float) -> None:
        """The runs table does not answer for so long."""
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
        runs = [run.key for run in self.airflow.active.values() if run.state == "running" or run.executes]
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
        self.airflow.work(self._fence)
        if self.starts_by_hand:
            self._start_by_hand(scheduler.agent.view if now >= scheduler.frozen_until else None)

    def _gate(self, view: View | None, run: Run) -> Action:
        """Decide as a scheduler does; a run of tasks without bodies (EmptyOperator) would be over at once."""
        action = self._decide(view, DecisionPoint.GATE, requested_age_s=self._requested_age_s(run))
        if action is Action.RUN and view is not None and view.state is not None:
            self.world.check_start(self.name, view.state.epoch)
        return action

    def _start_by_hand(self, view: View | None) -> None:
        """See what a run, and a task that no scheduler starts (``airflow tasks run``), could do at this moment."""
        action, epoch = self._fence(False)
        if action is Action.RUN:
            self.world.check_start(self.name, epoch)
        if self._decide(view, DecisionPoint.GATE) is Action.RUN and view is not None and view.state is not None:
            self.world.check_start(self.name, view.state.epoch)

    def _cut_or_heal(self) -> None:
        """Set what can be reached at this moment."""
        now = self.world.clock.monotonic()
        is_cut = now < self.cut_until
        for table in (self.store, *(scheduler.table for scheduler in self.schedulers)):
            table.unreachable = is_cut
        self.runs.unreachable = is_cut or now < self.ledger_gone_until
        self.airflow.is_reachable = not is_cut

    def _take_turn(self, scheduler: Scheduler) -> bool:
        """Let an agent take its turn; return whether it is still alive."""
        if not self.world.points.armed:
            return self._go_on(scheduler, scheduler.agent.turn)
        turn = scheduler.suspended = greenlet(scheduler.agent.turn)
        return self._go_on(scheduler, turn.switch)

    def _go_on(self, scheduler: Scheduler, call: Callable[[], object]) -> bool:
        """Let an agent take its turn up to the end, or to a call that takes long; return whether it is still alive."""
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
            self._note_told(scheduler.agent, self.world.clock.monotonic())
        return True

    def _killed(self, scheduler: Scheduler) -> None:
        self.world.note(None, f"{self.name}: scheduler {scheduler.database.job_id} is killed in mid-turn")
        if scheduler in self.schedulers:
            self.restart(self.schedulers.index(scheduler))

    def suspend(self, seconds: float) -> None:
        """A call of an agent takes so long: its turn stands still, and everything else goes on."""
        scheduler = self._turning
        if scheduler is None or scheduler.suspended is None:
            return
        turn = scheduler.suspended
        self.world.clock.after(seconds, lambda: self._resume(scheduler, turn))
        turn.parent.switch()

    def _resume(self, scheduler: Scheduler, turn: greenlet) -> None:
        """The call comes back; not to a process that is gone, and not to one that is frozen."""
        turn.parent = getcurrent()
        if scheduler not in self.schedulers or not self.is_up:
            with suppress(KilledError):
                turn.throw(KilledError)
            return
        left_s = scheduler.frozen_until - self.world.clock.monotonic()
        if left_s > 0:
            self.world.clock.after(left_s, lambda: self._resume(scheduler, turn))
            return
        self._cut_or_heal()
        self._go_on(scheduler, turn.switch)

    def _note_told(self, agent: AgentLoop, now: float) -> None:
        books = agent._bookkeeper
        if books is not None and books.lag_s is not None:
            # A hair less: what ended in that very moment may not have been seen.
            self.told_at = max(self.told_at, now - books.lag_s / self.clock.rate - 0.001)

    def _fence(self, is_back: bool) -> tuple[Action, int]:
        """Decide as a worker does: on a look at the state that is a second old at most, or not at all."""
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

    def _decide(self, view: View | None, point: DecisionPoint, *, requested_age_s: float | None = None) -> Action:
        now = self.clock.monotonic()
        return decide(
            view, region=self.name, exempt=False, now=now, lease_s=LEASE_S, point=point, requested_age_s=requested_age_s
        ).action


@dataclass
class Verdict:
    """
    What the oracle found.

    :ivar again: each run that executed more than once, with the reason it may have; empty when there is none.
    :ivar wrong: what else went wrong, a sentence each, by run.
    """

    lost: list[str] = field(default_factory=list)
    again: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    due: int = 0

    @property
    def is_waiting(self) -> bool:
        """Whether time may mend what is wrong."""
        return bool(self.lost or self.wrong)

    @property
    def problems(self) -> dict[str, str]:
        """What must not be, by run."""
        return {
            **{run: "was executed again without a reason" for run, why in self.again.items() if not why},
            **dict.fromkeys(self.lost, "is lost"),
            **self.wrong,
        }


@dataclass(frozen=True)
class _Left:
    """A region was left behind before it could tell everything."""

    at: float
    region: str
    told_at: float


@dataclass
class _Announced:
    """A run that an engine is stopping, as long as it has not said whether the run had ended by itself."""

    at: float
    run: str
    by: str
    is_answered: bool = False


@dataclass(frozen=True)
class _Fired:
    """
    A producer has succeeded.

    :ivar is_lost: its consumer was paused, in the middle of a failover that had begun to unpause, or to pause.
    """

    at: float
    region: str
    dag_id: str
    is_lost: bool


class Simulation(World):
    """Two regions and a ledger."""

    # A loop of a scheduler takes a second here, and one of two may be gone.
    timing = replace(TIMING, gate_commit_s=2.5)

    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.seed, self.is_traced = seed, is_traced
        self.reached: Counter[tuple[str, str]] = Counter()
        self.own_rng = random.Random(f"protocol of {seed}")
        self.trace: list[tuple[float, RunKey | None, str]] = []
        self.points = FaultPoints(self, seed)
        super().__init__(seed)

    def make_regions(self) -> None:
        rng = self.rng
        self.lag_s = rng.choice([0.0, 1.0, 4.0, 8.0])
        """The longest that an entry of the ledger takes to the other region."""
        self.lost_answers = rng.choice([0.0, 0.0, 0.02])
        # A generator of its own: what is drawn from it moves no other event of the seed.
        self.refusing = random.Random(f"refusals of {self.seed}")
        self.refusals = self.refusing.choice([0.0, 0.0, 0.0, 0.05])
        """The share of the ledger's calls that DynamoDB refuses."""
        self.runs = ReplicatedRuns(self)
        self.executions: dict[RunKey, list[Execution]] = defaultdict(list)
        self.numbers = itertools.count()
        self.owed: dict[RunKey, float] = {}
        self.asked: dict[RunKey, tuple[str, int]] = {}
        """In which region, and under which epoch, somebody has asked for a run, or a scheduler for one that is new."""
        """What came to be in the active region, or was cleared there, and when first."""
        self.cleared: dict[RunKey, list[float]] = defaultdict(list)
        self.stops: dict[RunKey, list[float]] = defaultdict(list)
        self.announced: list[_Announced] = []
        self.fires: list[_Fired] = []
        self.left: list[_Left] = []
        self.created_at: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.late: list[tuple[str, str]] = []
        self.executes: dict[int, str] = {}
        """Which region has executed under which epoch."""
        self.wanted = set(WANTED)
        self.is_mended = False
        for name in (A, B):
            self.store.register(Registration(region=name, environment=name))
            region = self.regions[name] = Region(self, name)
            if name == A:
                region.airflow.paused -= WANTED

    def table_of(self, region: str) -> RegionsTable:
        """Return the state table as *region* reaches it. The place for a copy of its own that lags behind."""
        peer = RegionsTable()
        peer._table = self.store._table
        return peer

    @property
    def active(self) -> Region:
        region: Region = self.regions[self.state.active_region]
        return region

    def epoch_of(self, region: str) -> int:
        views = [each.agent.view for each in self.regions[region].schedulers]
        return max((view.state.epoch for view in views if view is not None and view.state is not None), default=0)

    # -- what is written down ------------------------------------------------------------------------------------------

    def note(self, key: RunKey | None, text: str) -> None:
        """Remember what happened; for one run, or for all of them."""
        if self.is_traced:
            self.trace.append((self.clock.monotonic(), key, text))

    def note_entry(self, region: str, entry: LogEntry) -> None:
        for run in entry.runs:
            taken = ", taken over" if run.taken_at is not None else ""
            self.note(run.key, f"{region} tells: {run.status.value}, epoch {run.epoch}{taken}")
        if entry.final_plan_id is not None or entry.complete_before is not None:
            self.note(None, f"{region} publishes: final {entry.final_plan_id}, complete before {entry.complete_before}")

    def story(self, run: str) -> str:
        """Return what happened to a run, and around it, a line each; what repeats itself is told once."""
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
        if not self.is_mended:
            self.reached[FAULT, f"{fault}: {place(self.state, region)}"] += 1

    def acts(self, before: DRState, new: DRState, who: str) -> None:
        """Count what a write of the state was."""
        for action in actions(before, new, who):
            self.reached[ACTION, action] += 1
            self.points.happens(action)
        if new.phase is not before.phase:
            self.points.happens(new.phase.value)

    def reads_stale(self, region: str) -> None:
        """*region* reads the other one's ledger as it was some seconds ago, which counts as the ledger's lag."""
        now = self.clock.monotonic()
        self.left = [
            replace(each, told_at=min(each.told_at, self.runs.told_at(each.region, each.told_at)))
            if each.region != region and now - each.at <= STALE_S
            else each
            for each in self.left
        ]

    def stepped(self, event: StepEvent) -> None:
        if event.name == "join" and event.status == "started":
            self.reached[ACTION, "join"] += 1

    def new_number(self) -> int:
        return next(self.numbers)

    def body_s(self, region: str) -> float:
        """How long a task body takes."""
        return 60.0 if self.rng.random() < self.long_runs / 4 else self.rng.choice([0.5, 1.5, 3.0])

    def fails(self) -> bool:
        """Whether a run fails."""
        return not self.is_mended and self.rng.random() < 0.08

    def executed(self, execution: Execution) -> None:
        """A task body has written a line."""
        if self.is_traced:
            self.note(execution.key, f"{execution.region} executes: {execution.kind}, epoch {execution.epoch}")
        lines = self.executions[execution.key]
        if execution.kind == "begin":
            self._check_order(execution)
        lines.append(execution)

    def _check_order(self, execution: Execution) -> None:
        """A run that waits for the one before begins when that one has succeeded, wherever it was executed."""
        dag_id, run_id = execution.key
        dag = BY_ID[dag_id]
        if not dag.waits_for_past or dag.every_s is None:
            return
        at = float(run_id.partition("__")[2])
        if at == 0:
            return
        before = self.executions.get((dag_id, f"scheduled__{at - dag.every_s:g}"), ())
        # What a region that was lost could not tell of is not waited for.
        is_untold = any(each.region == line.region and line.at >= each.told_at for each in self.left for line in before)
        assert is_untold or any(line.kind == "end" and line.ok for line in before), (
            f"{dag_id} {run_id} begins in {execution.region} before the run before it has succeeded"
        )

    def created(self, region: str, key: RunKey) -> None:
        """A scheduler has made a run."""
        self.created_at[region, key[0]].append(self.clock.monotonic())
        if region != self.state.active_region:
            return
        if not BY_ID[key[0]].catchup:
            if self.store._table.reconciled.get(region) != self.state.epoch:
                # The region is about to take its role up. It closes the run, and the scheduler creates it again only
                # while it is the newest interval. Airflow skips the others, as it does for a DAG that was paused.
                return
            self.asked.setdefault(key, (region, self.state.epoch))
        self.owed.setdefault(key, self.clock.monotonic())

    def fired(self, region: str, dag_id: str, *, is_heard: bool) -> None:
        is_lost = not is_heard and self.state.plan is not None
        self.fires.append(_Fired(self.clock.monotonic(), region, dag_id, is_lost))

    def changed_late(self, region: str, dag_id: str) -> None:
        self.note(None, f"{region}: {dag_id} is paused, or unpaused, by a call whose plan has ended meanwhile")
        self.late.append((region, dag_id))
        self.mend_what_was_changed_late()

    def mend_what_was_changed_late(self) -> None:
        """Somebody sees it once no plan is open, and puts it right: no program can tell it from what people do."""
        for region, dag_id in self.late:
            if self.state.plan is None and self.regions[region].airflow.is_reachable:
                is_active = region == self.state.active_region
                self.regions[region].airflow.set_paused([dag_id], paused=not is_active)

    def check_start(self, region: str, epoch: int) -> None:
        super().check_start(region, epoch)
        first = self.executes.setdefault(epoch, region)
        assert first == region, f"{region} starts a task under epoch {epoch}, under which {first} executes"

    def stopped(self, region: str, key: RunKey) -> None:
        """An engine stops a run that has outlasted the drain."""
        self.stops[key].append(self.clock.monotonic())

    def stop_answered(self, caller: Caller, run: object) -> None:
        for each in self.announced:
            each.is_answered |= (each.by, each.run) == (caller.name, str(run))

    def _note_stops(self, caller: Caller, before: DRState, new: DRState) -> None:
        """Remember which runs are announced as stopped, until their engine has had its say about each of them."""
        if new.epoch != before.epoch:
            self.announced = [each for each in self.announced if each.by != caller.name or not each.is_answered]
        for stop in new.stops[len(before.stops) :]:
            found = self.store.get_set(stop.set_id)
            assert found is not None
            if stop.had_ended:
                said = {(caller.name, run) for run in found.dag_ids}
                self.announced = [each for each in self.announced if (each.by, each.run) not in said]
            else:
                now = self.clock.monotonic()
                self.announced += [_Announced(now, run, caller.name) for run in found.dag_ids]

    def check_write(self, caller: Caller, before: DRState, new: DRState) -> None:
        self.acts(before, new, "an engine")
        plan = new.plan
        if new.stops != before.stops:
            self._note_stops(caller, before, new)
        self.mend_what_was_changed_late()
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
            # Asked for its last word, a region that cannot say it is left without (design.md section 5, final mark).
            is_mute = before.plan.drained and not self.runs.has_final(left, before.plan.id)
            if before.plan.is_forced or is_mute:
                told_at = self.runs.told_at(left, self.regions[left].told_at)
                self.left.append(_Left(self.clock.monotonic(), left, told_at))
            if not self.is_mended:
                self._disturb_promotion(left, new.active_region)

    def _disturb_promotion(self, left: str, target: str) -> None:
        """What goes wrong in the very moment in which the role moves is worth more than what does at any other."""
        chance = self.rng.random()
        if chance < 0.12:
            self.regions[target].calls_left = self.rng.randint(1, 30)
        elif chance < 0.22:
            region = self.regions[self.rng.choice([left, target])]
            region.stand_still(self.rng.choice([0, 1]), self.rng.choice([8, 20]))
        elif chance < 0.28:
            # Somebody wants it back before it has arrived.
            self.call(left, after_s=self.rng.choice([0, 1, 5]), mode=Mode.FORCED, even_if_not_ready=True)

    # -- what people do -----------------------------------------------------------------------------------------------

    def trigger_by_hand(self) -> None:
        """Somebody triggers a run where the role is, if that can be reached; also in the moment in which it moves."""
        region = self.active
        if region.airflow.is_reachable and region.is_up:
            key = region.airflow.trigger_by_hand("by_hand", self.new_number())
            self.owed[key] = self.clock.monotonic()
            self.asked[key] = region.name, self.state.epoch

    def clear_something(self) -> None:
        """Somebody clears a run that has ended, where the role is, whether or not a failover is under way."""
        region = self.active
        if not self._is_at_work(region):
            return
        ended = [key for key in self.executions if (run := region.airflow.rows.get(key)) and not run.is_open]
        if ended:
            self._clear(region, self.rng.choice(sorted(ended)))

    def mend_what_failed(self) -> None:
        """Somebody sees that a DAG stands still, because a run of it has failed, and clears that run."""
        self.clock.after(11, self.mend_what_failed)
        self.mend_what_was_changed_late()
        region = self.active
        if not self._is_at_work(region):
            return
        for dag in DAGS:
            if dag.waits_for_past and dag.dag_id not in region.airflow.paused:
                for run in list(region.airflow.intervals[dag.dag_id].values()):
                    if run.state == "failed":
                        self._clear(region, run.key)

    def _is_at_work(self, region: Region) -> bool:
        """Whether it is reachable and has become active; it closes what a user clears before that (see the limits)."""
        has_taken_up = self.store._table.reconciled.get(region.name) == self.state.epoch
        return region.is_up and region.airflow.is_reachable and has_taken_up and self.state.phase is not Phase.PROMOTING

    def _clear(self, region: Region, key: RunKey) -> None:
        """With it what waits for it: Airflow itself would leave it without room."""
        self._clear_one(region, key)
        if BY_ID[key[0]].waits_for_past:
            for run in list(region.airflow.open[key[0]].values()):
                if run.state == "running" and not run.has_begun:
                    region.airflow.send_back(run)
                elif run.state == "running" and run.waits:
                    self._clear_one(region, run.key)

    def _clear_one(self, region: Region, key: RunKey) -> None:
        self.note(key, f"somebody clears it in {region.name}")
        region.airflow.clear(key)
        self.cleared[key].append(self.clock.monotonic())
        self.owed.setdefault(key, self.clock.monotonic())

    def _was_taken_up(self, key: RunKey) -> bool:
        """Whether the region was active in the role in which a user requested the run; else it closes the run."""
        if key not in self.asked:
            return True
        region, epoch = self.asked[key]
        return epoch == self.state.epoch or any(one.entry.epoch == epoch for one in self.runs.logs[region])

    # -- the oracle ----------------------------------------------------------------------------------------------------

    def judge_in_time(self) -> Verdict:
        """Return the verdict on everything up to now, once what has piled up is worked off, or never will be."""
        now = self.clock.monotonic()
        deadline = now + PATIENCE_S
        while (verdict := self.judge(now)).is_waiting and self.clock.monotonic() < deadline:
            self.clock.advance(10)
        return verdict

    def judge(self, now: float) -> Verdict:
        """Return what one Airflow would have executed up to *now* and nobody did, and what somebody did twice."""
        verdict = Verdict()
        expected = {key for key, at in self.owed.items() if at <= now and self._was_taken_up(key)}
        for dag in DAGS:
            if dag.dag_id in WANTED and dag.every_s is not None and dag.catchup:
                count = int((now - 30 - MOST_SKEW_S) // dag.every_s)
                expected |= {(dag.dag_id, f"scheduled__{number * dag.every_s:g}") for number in range(count)}
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
            if fire.at < now - 10 and not self._has_been_heard(fire):
                verdict.wrong[f"{fire.dag_id} -"] = f"has no run for the asset of {fire.at:.1f} in {fire.region}"
        return verdict

    def _why_again(self, key: RunKey, lines: list[Execution], begun: list[Execution]) -> str | None:
        """Return why a run was allowed to execute again; empty when nothing allows it, None when people wanted it."""
        why = None
        for first, second in itertools.pairwise(begun):
            if any(first.at <= at <= second.at for at in self.cleared.get(key, ())):
                continue
            left = [each for each in self.left if each.region == first.region and first.at <= each.at <= second.at]
            # In the same region: a body that an earlier region had begun may end there while this one executes.
            ends = [
                line.at
                for line in lines
                if (line.kind, line.region) == ("end", first.region) and first.at <= line.at <= second.at
            ]
            if any(first.at <= at <= second.at for at in self.stops.get(key, ())):
                why = "it outlasted the drain and was stopped"
            elif not ends:
                if not left and not any(first.at <= at <= second.at for at in self.regions[first.region].died):
                    return ""
                why = "it was executing when its region was lost"
            elif any(max(ends) >= each.told_at for each in left):
                why = "it ended, or started, within the ledger's lag or a lease"
            elif any(each.run == " ".join(key) and first.at <= each.at <= second.at for each in self.announced):
                why = "it failed while an engine was stopping it that could not say so any more"
            else:
                return ""
        return why

    def _has_been_heard(self, fire: _Fired) -> bool:
        """Whether the consumer of an asset got its run, or lost it as assets are lost: they are not carried over."""
        if fire.is_lost or any(at >= fire.at for at in self.created_at[fire.region, fire.dag_id]):
            return True
        return any(each.region == fire.region and each.at >= fire.at - LEASE_S for each in self.left)


def disturb(world: Simulation) -> None:
    """Let something go wrong with a region, and right itself in a while, or not before the end."""
    rng, region = world.rng, world.regions[world.rng.choice([A, B])]

    def later(seconds: float, what: Callable[[], object]) -> None:
        world.clock.after(seconds, lambda: None if world.is_mended else what())

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
        later(at, lambda: region.stand_still(scheduler, seconds))
    elif kind == "ledger":
        seconds = rng.choice([5, 20])
        later(at, lambda: region.lose_the_ledger(seconds))
    elif kind == "restart":
        cleanly = world.own_rng.random() < 0.5
        later(at, lambda: region.restart(scheduler, cleanly=cleanly))
    else:
        calls = rng.randint(1, 30)
        later(at, lambda: setattr(region, "calls_left", calls))


def stand_still(world: Simulation) -> None:
    """A scheduler stands still until its database does not list it any more, and goes on with its old view."""
    rng, region = world.own_rng, world.regions[world.own_rng.choice([A, B])]
    number, seconds = rng.choice([0, 1]), rng.choice([LISTED_S + 1, LISTED_S + 3])

    def stop() -> None:
        if not world.is_mended:
            scheduler, now = region.schedulers[number], world.clock.monotonic()
            world.note(None, f"{region.name}: scheduler {scheduler.database.job_id} stands still for {seconds} s")
            scheduler.frozen_until, scheduler.stuck_until = now + seconds, now + 30

    world.clock.after(rng.uniform(0, 40), stop)


def lose_the_network(world: Simulation) -> None:
    """The active region is cut off, goes on by itself, and somebody who sees it go does not wait."""
    region = world.active
    region.cut(40)
    other = B if region.name == A else A
    world.call(other, after_s=world.rng.choice([0, 2]), mode=Mode.FORCED, even_if_not_ready=True)


def play(world: Simulation) -> Verdict:
    """One history: failovers by several callers, some killed, among faults; then everything is mended, and judged."""
    rng = world.rng
    world.points.plan()
    try:
        for second in range(0, LOAD_S, 8):
            world.clock.after(second + rng.random() * 8, world.trigger_by_hand)
            if rng.random() < 0.3:
                world.clock.after(second + rng.random() * 8, world.clear_something)
        world.mend_what_failed()
        for _ in range(rng.choice([1, 1, 2, 2, 3])):
            for _ in range(rng.randint(0, 3)):
                disturb(world)
            if world.own_rng.random() < 0.2:
                stand_still(world)
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
            for caller in world.scheduler.callers:
                if isinstance(caller.outcome, BaseException) and not isinstance(caller.outcome, (DRError, KilledError)):
                    raise caller.outcome
        world.clock.advance(rng.choice([0, 10, 30]))
        mend(world)
        for target in rng.sample([A, B], rng.choice([1, 2])):
            world.mend_what_was_changed_late()
            last = world.call(target, faulty=False, stop_running=True)
            world.scheduler.run_until_idle()
            if not isinstance(last.outcome, (FailoverRecord, AlreadyActiveError)):
                raise AssertionError(f"the last failover to {target} ended with {last.outcome!r}")
            world.clock.advance(8)
        world.mend_what_was_changed_late()
        verdict = world.judge_in_time()
    finally:
        world.scheduler.end()
    for caller in world.scheduler.callers:
        outcome = (
            caller.outcome.outcome if isinstance(caller.outcome, FailoverRecord) else type(caller.outcome).__name__
        )
        world.reached[EXIT, outcome] += 1
    for name, region in world.regions.items():
        if name != world.state.active_region and not world.runs.logs[name]:
            continue  # its first role never began: its DAGs stay as people have them, and the gate skips their runs
        running = set(region.airflow.unpaused_dags())
        if running != (WANTED if name == world.state.active_region else set()):
            raise AssertionError(f"{sorted(running)} are unpaused in {name}")
    return verdict


def mend(world: Simulation) -> None:
    """Everything is reachable again, and has had the time to notice."""
    world.is_mended = True
    world.points.mend()
    for region in world.regions.values():
        region.revive()
        region.cut_until = region.ledger_gone_until = -1.0
        region.calls_left = None
        for scheduler in region.schedulers:
            scheduler.stuck_until = scheduler.frozen_until = -1.0
    world.mend_what_was_changed_late()
    world.long_runs = 0
    world.lost_answers = 0.0
    world.clock.advance(MENDED_S)


class WrongHistoryError(AssertionError):
    """A history that must not be; its text is the trace."""


def live_through(seed: int) -> tuple[Simulation, Verdict]:
    """
    Live through one history.

    :raises WrongHistoryError: something was lost, executed again without a reason, or otherwise wrong.
    """
    world = Simulation(seed)
    try:
        verdict = play(world)
        if not verdict.problems:
            return world, verdict
    except Exception:  # whatever it is, it comes again
        pass
    raise WrongHistoryError(explain(seed))


def explain(seed: int) -> str:
    """Return the trace of a history that goes wrong, for people."""
    world = Simulation(seed, is_traced=True)
    how = f"Only this one: .venv/bin/python -m tests.simulation --first {seed} --histories 1"
    try:
        problems = play(world).problems
    except Exception as error:
        last = [f"{at:8.1f}  {' '.join(key) if key else 'all'}: {text}" for at, key, text in world.trace[-30:]]
        around = "\n".join([*world.story("").splitlines()[1:], "And last:", *last])
        return f"History {seed}: {type(error).__name__}: {error}\n{around}\n{how}"
    if not problems:
        return (
            f"History {seed} went wrong, and came out right when it was lived through again: it is not the same.\n{how}"
        )
    kinds = Counter(problems.values())
    said = "\n".join(f"  {run} {what}" for run, what in list(problems.items())[:20])
    return f"History {seed}: {dict(kinds)}\n{said}\n{world.story(next(iter(problems)))}\n{how}"


def _nameless(entry: LogEntry) -> LogEntry:
    """Return an entry without the random name of its log's lifetime."""
    return replace(entry, life="") if entry.life else entry


def digest(seed: int) -> str:
    """
    Return a hash of everything that happens in a history: two versions of this code that agree live through the same.

    It covers the trace (writes of the state, gate, fence, rows), executions, ledger, heartbeats, records and the
    verdict.
    """
    world = Simulation(seed, is_traced=True)
    try:
        outcome = repr(play(world))
    except Exception as error:
        outcome = repr(error)
    found = hashlib.sha256()
    for at, key, text in world.trace:
        found.update(f"{at!r} {key} {text}\n".encode())
    for executions in world.executions.values():
        found.update(f"{executions}\n".encode())
    for region, log in sorted(world.runs.logs.items()):
        found.update(f"{region} {[(_nameless(each.entry), each.there_at, each.told_at) for each in log]}\n".encode())
    table = world.store._table
    for part in (table.state, table.agents, table.reconciled, table.sets, table.snapshots, table.records):
        found.update(f"{part}\n".encode())
    found.update(f"{world.clock.monotonic()!r} {outcome}".encode())
    return found.hexdigest()[:16]
