"""
Histories with watchers of assets: both regions' watchers read one queue, and each message must be handled once.

All failovers are planned, and no region is lost: a forced failover may lose the messages whose runs its source has not
published. Watchers stop late, triggerers read the state seldom or hang, and Airflow creates runs for events with a
delay, and not for paused DAGs.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import replace

from airflow_provider_mwaa_dr.core import watching
from airflow_provider_mwaa_dr.core.gate import View
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.core.ports import TRIGGERERS, FailoverRecord, TriggererStatus
from airflow_provider_mwaa_dr.core.state import Mode
from airflow_provider_mwaa_dr.core.watching import Watchers
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, StateError
from tests.histories import CONTROL, LEASE_S, TIMING, A, B
from tests.simulation.airflow import ASSET_TRIGGERED, SimulatedDag
from tests.simulation.world import Region, Simulation, Verdict

CONSUMER = "consumer"
DAGS = (
    SimulatedDag("interval", every_s=20, max_active=1),
    SimulatedDag(CONSUMER, max_active=8),
    SimulatedDag(CONTROL, tags=frozenset({"dr:control"})),
)
LOAD_S = 60
JOB = "901"


class Triggerer:
    """The triggerer of a region, with the watcher of the consumer's asset."""

    def __init__(self, world: Watched, region: Region) -> None:
        rng = world.rng
        self.world, self.region = world, region
        self.read_every_s, self.stop_s = rng.choice([1, 1, 8]), rng.choice([0, 1, 6])
        self.run_every_s = rng.choice([3, 6])
        """How often Airflow creates a run for the events that have arrived."""
        self.hangs_until = -1.0
        self.table = region.store
        self.view: View | None = None
        self.read_at = self.allowed_at = self.created_at = -1e9
        self.events: list[int] = []
        """The messages that are events in the database, and have no run."""
        region.airflow.found_watchers = Watchers(count=1, triggerers=(JOB,))
        region.airflow.start_last_events = self._create
        region.airflow.drop_events = lambda: self._drop("the standby removes the events that have no run")

    def turn(self) -> None:
        now, airflow = self.region.clock.monotonic(), self.region.airflow
        if now < self.hangs_until:
            return
        if now >= self.read_at + self.read_every_s:
            self._read(now)
        may = watching.permission(self.view, region=self.region.name, now=now, lease_s=LEASE_S)
        if may.watchers:
            self.allowed_at = now
        is_watching = now <= self.allowed_at + self.stop_s
        if is_watching and self.world.queue:
            message = self.world.queue.pop(0)
            self.world.note(None, f"{self.region.name}: a watcher takes message {message}")
            self.events.append(message)
            if CONSUMER in airflow.paused:
                self._drop("Airflow drops the events of a paused consumer")
        self._publish(0 if is_watching else self.view.state.version if self.view and self.view.state else 0)
        if CONSUMER not in airflow.paused and now >= self.created_at + self.run_every_s:
            self.created_at = now
            self._create()

    def _read(self, now: float) -> None:
        self.read_at = now
        with suppress(StateError):
            self.view = View.of(self.table.observe(self.region.name), now)

    def _publish(self, version: int) -> None:
        status = TriggererStatus(
            region=self.region.name, job=JOB, at=self.region.clock.now(), version=version, watchers=1,
            provider_version="1",
        )  # fmt: skip
        self.table.put(TRIGGERERS, status)

    def _create(self) -> int:
        if not self.events:
            return 0
        key = (CONSUMER, f"{ASSET_TRIGGERED}__{self.region.name}_{self.world.new_number()}")
        self.region.airflow.add(key, run_type=ASSET_TRIGGERED, at=None, end=self.region.airflow.local.wall_s())
        for message in self.events:
            self.world.runs_of[message].append(key)
        self.world.owed[key] = self.world.clock.monotonic()
        self.events = []
        return 1

    def _drop(self, why: str) -> None:
        for message in self.events:
            self.world.dropped[message] = f"is lost: {why}"
        self.events = []


class Watched(Simulation):
    """Two regions whose watchers read one queue."""

    timing = replace(TIMING, gate_commit_s=2.5, drain_s=120)
    dags = DAGS

    def make_regions(self) -> None:
        self.queue: list[int] = []
        self.sent, self.is_sending = 0, True
        self.runs_of: dict[int, list[RunKey]] = defaultdict(list)
        self.dropped: dict[int, str] = {}
        super().make_regions()
        self.lost_answers = self.refusals = 0.0
        self.long_runs = 0
        self.triggerers = {name: Triggerer(self, region) for name, region in self.regions.items()}
        # A user has unpaused the consumer in the standby, so that Airflow has its watcher there, too.
        self.regions[B].airflow.paused -= {CONSUMER}

    def _tick(self) -> None:
        super()._tick()
        if self.is_sending and self.rng.random() < 0.5:
            self.queue.append(self.sent)
            self.sent += 1
        for triggerer in self.triggerers.values():
            triggerer.turn()

    def _disturb_promotion(self, left: str, target: str) -> None:
        """No region is lost."""

    def judge(self, now: float) -> Verdict:
        verdict = super().judge(now)
        for message, why in self.dropped.items():
            verdict.wrong[f"message {message}"] = why
        for message, runs in self.runs_of.items():
            if len(runs) > 1:
                verdict.wrong[f"message {message}"] = f"has several runs: {runs}"
        verdict.wrong |= {f"message {message}": "is in the queue" for message in self.queue if not self.is_sending}
        return verdict


def play(world: Watched) -> Verdict:
    """Run one history, and judge it."""
    rng = world.rng
    try:
        world.clock.advance(rng.choice([5, 20]))
        for number, target in enumerate((B, A, B)[: rng.choice([1, 2, 3])]):
            if rng.random() < 0.3:
                # A triggerer that hangs takes no message. It continues with the view from before.
                source = world.triggerers[world.state.active_region]
                at, seconds = rng.uniform(0, 8), rng.choice([3, 8, 20])
                world.clock.after(at, lambda source=source, s=seconds: _hang(source, s))
            caller = world.call(target, faulty=False, mode=Mode.GRACEFUL)
            world.scheduler.run_until_idle()
            assert isinstance(caller.outcome, FailoverRecord | AlreadyActiveError), (
                f"planned failover {number + 1} to {target} ended with {caller.outcome!r}"
            )
            world.clock.advance(rng.choice([10, 25, 40]))
        world.is_sending = False
        world.clock.advance(LOAD_S)
        verdict = world.judge_after_waiting_runs()
    finally:
        world.scheduler.end()
    return verdict


def _hang(triggerer: Triggerer, seconds: float) -> None:
    triggerer.hangs_until = triggerer.region.clock.monotonic() + seconds


def run_history(seed: int, *, is_traced: bool = False) -> tuple[Watched, Verdict]:
    """
    Run one history.

    :raises AssertionError: a rule was broken.
    """
    world = Watched(seed, is_traced=is_traced)
    verdict = play(world)
    assert not verdict.problems, f"history {seed}: {verdict.problems}"
    return world, verdict
