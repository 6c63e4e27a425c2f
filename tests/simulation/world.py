"""
Everything together: two regions with real agents, ledger, gate and engine, on an Airflow in memory, from a seed.

What is simulated is the world (tests/simulation/airflow.py, tests/histories.py); all of the provider's core runs as it
is. At the end every region is back, and the *oracle* asks what one Airflow would have executed.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.gate import Action, Layer, View, decide
from airflow_provider_mwaa_dr.core.ledger import LogEntry, RunKey
from airflow_provider_mwaa_dr.core.ports import FailoverRecord, Registration
from airflow_provider_mwaa_dr.core.state import DRState, Mode
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, DRError, StateError
from airflow_provider_mwaa_dr.plugins.agent import AgentLoop, GateCounts
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, ManualClock
from tests.histories import CONTROL, LEASE_S, A, B, Caller, KilledError, World
from tests.simulation.airflow import Execution, SimulatedAirflow, SimulatedDag

DAGS = (
    SimulatedDag("hourly", every_s=20),
    SimulatedDag("often", every_s=7),
    SimulatedDag("latest_only", every_s=11, catchup=False),
    SimulatedDag("by_hand"),
    SimulatedDag("paused_by_hand", every_s=20),
    SimulatedDag(CONTROL, tags=frozenset({"dr:control"})),
)
PATIENCE_S = 1_500
WANTED = {"hourly", "often", "latest_only", "by_hand"}


class SkewedClock:
    """A region's clock: wall time is off, and nothing may depend on it."""

    def __init__(self, clock: ManualClock, skew_s: float) -> None:
        self._clock, self._skew = clock, timedelta(seconds=skew_s)
        self.monotonic, self.sleep = clock.monotonic, clock.sleep

    def now(self) -> datetime:
        return self._clock.now() + self._skew


class Database:
    """One scheduler's way to the metadata database."""

    def __init__(self, airflow: SimulatedAirflow, job: str) -> None:
        self._airflow = airflow
        self.job_id = job
        self.is_scheduler = True
        self.beats = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._airflow, name)

    def pulse(self) -> object:
        return self.beats

    def alive_schedulers(self) -> tuple[str, ...]:
        return ("1", "2")


class Region:
    """One region: Airflow, and an agent beside each of two schedulers."""

    def __init__(self, world: Simulation, name: str) -> None:
        self.world, self.name = world, name
        self.environment = self.airflow = SimulatedAirflow(name, DAGS, world)
        self.airflow.paused -= {CONTROL}
        self.clock = SkewedClock(world.clock, world.rng.choice([0.0, 0.0, 45.0, -45.0]))
        self.airflow.local_clock = self.clock
        self.store, self.runs = world.store.peer(), world.runs.peer()
        self.cut_until = -1.0
        self.ledger_gone_until = -1.0
        self.stuck_until = {"1": -1.0, "2": -1.0}
        self.databases = {job: Database(self.airflow, job) for job in ("1", "2")}
        self.agents: dict[str, AgentLoop] = {}
        self.told_at = -1.0
        for job in self.databases:
            self.restart(job)

    @property
    def is_up(self) -> bool:
        return self.airflow.is_up

    def restart(self, job: str) -> None:
        """A scheduler starts anew, knowing nothing."""
        config = DRConfig(
            enabled=True, region=self.name, state_table="t", runs_table="r", refresh_s=1, heartbeat_s=1,
            lease_s=LEASE_S, fence=False, environments={A: "a", B: "b"},
        )  # fmt: skip
        self.agents[job] = AgentLoop(
            config=config,
            store=self.store,
            runs=self.runs,
            db=self.databases[job],
            clock=self.clock,  # type: ignore[arg-type]
            counts=GateCounts(),
            airflow_version="simulated",
        )

    def die(self) -> None:
        self.world.note(None, f"{self.name} is lost")
        self.airflow.die()

    def cut(self, seconds: float) -> None:
        """Its network is gone for so long."""
        self.world.note(None, f"{self.name} is cut off for {seconds} s")
        self.cut_until = self.world.clock.monotonic() + seconds

    def revive(self) -> None:
        if not self.is_up:
            self.world.note(None, f"{self.name} is back")
            for job in self.databases:
                self.restart(job)
        self.airflow.is_up = self.airflow.is_reachable = True

    def in_flight(self) -> list[str]:
        runs = [run.row.key for run in self.airflow.ours() if run.row.state == "running" or run.executes]
        return sorted(f"{dag_id} {run_id}" for dag_id, run_id in runs)

    def turn(self) -> None:
        if not self.is_up:
            return
        now = self.world.clock.monotonic()
        is_cut = now < self.cut_until
        self.store.unreachable = is_cut
        self.runs.unreachable = is_cut or now < self.ledger_gone_until
        self.airflow.is_reachable = not is_cut
        for job, agent in self.agents.items():
            if now >= self.stuck_until[job]:
                agent.turn()
            self.airflow.schedule(job, self._decide(agent))
            self.databases[job].beats += 1
        self.airflow.work(self._decide_fresh(), self._epoch())
        books = self.agents["1"]._books
        assert books is not None
        if books.lag_s is not None:
            self.told_at = max(self.told_at, now - books.lag_s)

    def _epoch(self) -> int:
        epochs = [agent.view.state.epoch for agent in self.agents.values() if agent.view and agent.view.state]
        return max(epochs, default=0)

    def _decide(self, agent: AgentLoop) -> Callable[[Layer], Action]:
        return lambda layer: self._by(agent.view, layer)

    def _decide_fresh(self) -> Callable[[Layer], Action]:
        """The fence reads the state itself; where it cannot, it has only what lies in its file, up to a lease old."""

        def by(layer: Layer) -> Action:
            now = self.world.clock.monotonic()
            try:
                observed = self.store.observe(self.name)
                view: View | None = View(observed.state, now, observed.reconciled_epoch)
            except StateError:
                view = self.agents["1"].view
            return self._by(view, layer)

        return by

    def _by(self, view: View | None, layer: Layer) -> Action:
        now = self.world.clock.monotonic()
        return decide(view, region=self.name, exempt=False, now=now, lease_s=LEASE_S, layer=layer).action


class TracedRuns(InMemoryRunsStore):
    """The runs table, and who told what when."""

    def __init__(self, note: Callable[[RunKey | None, str], None]) -> None:
        super().__init__()
        self._note = note

    def peer(self) -> TracedRuns:
        other = TracedRuns(self._note)
        other._lock, other._logs, other._pictures = self._lock, self._logs, self._pictures
        return other

    def append(self, region: str, entry: LogEntry) -> None:
        super().append(region, entry)
        for run in entry.runs:
            taken = ", taken over" if run.taken_at is not None else ""
            self._note(run.key, f"{region} tells: {run.status.value}, epoch {run.epoch}{taken}")
        if entry.final is not None or entry.settled is not None:
            self._note(None, f"{region} tells: final {entry.final}, settled {entry.settled}")


@dataclass
class Verdict:
    """What the oracle found. ``twice`` names each run that executed more than once, with the reason it may have."""

    lost: list[str] = field(default_factory=list)
    twice: dict[str, str] = field(default_factory=dict)
    executed: int = 0
    due: int = 0


class Simulation(World):
    """Two regions and a ledger."""

    def make_regions(self) -> None:
        self.trace: list[tuple[float, RunKey | None, str]] = []
        self.runs = TracedRuns(self.note)
        self.executions: dict[RunKey, list[Execution]] = defaultdict(list)
        self.accepted: list[RunKey] = []
        self.cleared: set[RunKey] = set()
        self.forced: list[tuple[float, str, float]] = []
        """When, which region was left by force, and up to when it had told."""
        self.flips: list[float] = []
        self.wanted = set(WANTED)
        for name in (A, B):
            self.store.register(Registration(region=name, environment=name))
            region = self.regions[name] = Region(self, name)
            if name == A:
                region.airflow.paused -= WANTED

    def note(self, key: RunKey | None, text: str) -> None:
        """Remember what happened; for one run, or for all of them."""
        self.trace.append((self.clock.monotonic(), key, text))

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

    def body_s(self, region: str) -> float:
        """How long a task body takes."""
        return 60.0 if self.rng.random() < self.long_runs / 4 else self.rng.choice([0.5, 1.5, 3.0])

    def executed(self, execution: Execution) -> None:
        """A task body has written a line."""
        self.note(execution.key, f"{execution.region} executes: {execution.kind}, epoch {execution.epoch}")
        self.executions[execution.key].append(execution)

    def check_write(self, caller: Caller, before: DRState, new: DRState) -> None:
        plan = new.plan
        self.note(
            None,
            f"{caller.name}: {new.active_region} {new.phase.value}, epoch {new.epoch}"
            + (f", {plan.source} -> {plan.target} {plan.mode.value} by {plan.owner}" if plan is not None else ""),
        )
        super().check_write(caller, before, new)
        if new.epoch != before.epoch:
            assert before.plan is not None
            if before.plan.is_forced:
                left = before.active_region
                self.forced.append((self.clock.monotonic(), left, self.regions[left].told_at))

    def trigger_by_hand(self) -> None:
        """Somebody triggers a run where the role is, if that can be reached."""
        region = self.regions[self.state.active_region]
        if region.airflow.is_reachable and region.is_up and "by_hand" not in region.airflow.paused:
            self.accepted.append(region.airflow.trigger_by_hand("by_hand", len(self.accepted)))

    def clear_something(self) -> None:
        """Somebody clears a run that has ended, where the role is."""
        region = self.regions[self.state.active_region]
        ended = [key for key in self.executions if (run := region.airflow.rows.get(key)) and not run.row.is_open]
        if region.is_up and ended and self.state.plan is None:
            key = self.rng.choice(sorted(ended))
            region.airflow.clear(key)
            self.cleared.add(key)

    # -- the oracle ----------------------------------------------------------------------------------------------------

    def judge_in_time(self) -> Verdict:
        """Return the verdict on everything up to now, once what has piled up is worked off, or never will be."""
        now = self.clock.monotonic()
        deadline = now + PATIENCE_S
        while (verdict := self.judge(now)).lost and self.clock.monotonic() < deadline:
            self.clock.advance(10)
        return verdict

    def judge(self, now: float) -> Verdict:
        """Return what one Airflow would have executed up to *now* and nobody did, and what somebody did twice."""
        verdict = Verdict()
        expected: set[RunKey] = set(self.accepted)
        for dag in DAGS:
            if dag.dag_id in WANTED and dag.every_s is not None and dag.catchup:
                count = int((now - 30) // dag.every_s)
                expected |= {(dag.dag_id, f"scheduled__{number * dag.every_s:g}") for number in range(count)}
        for region in self.regions.values():
            expected |= {run.row.key for run in region.airflow.rows.values() if run.row.key[0] == "latest_only"
                         and run.note not in {"skipped", "closed"} and not run.row.is_open}  # fmt: skip
        ended = {key for key, lines in self.executions.items() if any(line.kind == "end" for line in lines)}
        verdict.due, verdict.executed = len(expected), len(ended)
        verdict.lost = sorted(" ".join(key) for key in expected - ended)
        for key, lines in self.executions.items():
            begun = [line for line in lines if line.kind == "begin"]
            if len(begun) < 2 or key in self.cleared:
                continue
            verdict.twice[" ".join(key)] = self._why_twice(lines, begun)
        return verdict

    def _why_twice(self, lines: list[Execution], begun: list[Execution]) -> str:
        """Return why a run was allowed to execute again; empty when nothing allows it."""
        why = ""
        for first, second in itertools.pairwise(begun):
            ends = [line.at for line in lines if line.kind == "end" and first.at <= line.at <= second.at]
            if not ends:
                why = "it was executing"
                continue
            lost = [(at, told_at) for at, left, told_at in self.forced if left == first.region and at <= second.at]
            if not any(max(ends) >= told_at for _, told_at in lost):
                return ""
            why = "it ended, or started, within the ledger's lag or a lease"
        return why


def disturb(world: Simulation) -> None:
    """Let something go wrong with a region, and right itself in a while."""
    rng, region = world.rng, world.regions[world.rng.choice([A, B])]
    at = rng.uniform(0, 60)

    def later(seconds: float, what: Callable[[], object]) -> None:
        world.clock.after(seconds, what)

    now = world.clock.monotonic
    kind = rng.choice(["die", "cut", "stuck", "ledger", "restart", "clear"])
    if kind == "die":
        later(at, region.die)
        later(at + rng.choice([5, 40, 150]), region.revive)
    elif kind == "cut":
        later(at, lambda: region.cut(rng.choice([5, 40, 150])))
    elif kind == "stuck":
        later(at, lambda: region.stuck_until.update({rng.choice(["1", "2"]): now() + rng.choice([5, 9, 30])}))
    elif kind == "ledger":
        later(at, lambda: setattr(region, "ledger_gone_until", now() + rng.choice([5, 20])))
    elif kind == "restart":
        later(at, lambda: region.restart(rng.choice(["1", "2"])))
    else:
        later(at, world.clear_something)


def lose_the_network(world: Simulation) -> None:
    """The active region is cut off, goes on by itself, and somebody who sees it go does not wait."""
    region = world.regions[world.state.active_region]
    region.cut(40)
    other = B if region.name == A else A
    world.call(other, after_s=world.rng.choice([0, 2]), mode=Mode.FORCED, even_if_not_ready=True)


def live_through(seed: int) -> tuple[Simulation, Verdict]:
    """One history: failovers by several callers, some killed, among faults; then everything is mended, and judged."""
    world = Simulation(seed)
    rng = world.rng
    try:
        for second in range(0, 200, 3):
            world.clock.after(second + rng.random() * 3, world.trigger_by_hand)
        for _ in range(rng.randint(1, 3)):
            for _ in range(rng.randint(0, 3)):
                disturb(world)
            world.clock.advance(rng.choice([0, 20]))
            if rng.random() < 0.2:
                lose_the_network(world)
            for _ in range(rng.choice([1, 1, 2])):
                caller = world.call(
                    rng.choice([A, B, B]),
                    after_s=rng.choice([0, rng.uniform(0, 60)]),
                    mode=rng.choice([Mode.AUTO, Mode.AUTO, Mode.GRACEFUL, Mode.FORCED]),
                    stop_running=rng.random() < 0.5,
                    even_if_not_ready=rng.random() < 0.8,
                )
                if rng.random() < 0.4:
                    caller.kill_at = rng.randint(1, rng.choice([40, 150, 400]))
            world.scheduler.run_until_idle()
            for caller in world.scheduler.callers:
                if not isinstance(caller.outcome, DRError | KilledError):
                    assert not isinstance(caller.outcome, BaseException), caller.outcome
        world.clock.advance(220)
        mend(world)
        for target in rng.sample([A, B], 2):
            last = world.call(target, faulty=False, stop_running=True)
            world.scheduler.run_until_idle()
            assert isinstance(last.outcome, FailoverRecord | AlreadyActiveError), repr(last.outcome)
            world.clock.advance(60)
        verdict = world.judge_in_time()
    finally:
        world.scheduler.end()
    if verdict.lost:
        raise AssertionError(f"Lost: {verdict.lost}\n{world.story(verdict.lost[0])}")
    unexplained = [run for run, why in verdict.twice.items() if not why]
    if unexplained:
        raise AssertionError(f"Twice, without a reason: {unexplained}\n{world.story(unexplained[0])}")
    for name, region in world.regions.items():
        running = set(region.airflow.unpaused_dags())
        assert running == (WANTED if name == world.state.active_region else set()), f"{running} is unpaused in {name}"
    return world, verdict


def mend(world: Simulation) -> None:
    """Everything is reachable again, and has had the time to notice."""
    for region in world.regions.values():
        region.revive()
        region.cut_until = region.ledger_gone_until = -1.0
        region.stuck_until = {"1": -1.0, "2": -1.0}
    world.long_runs = 0
    world.clock.advance(60)
