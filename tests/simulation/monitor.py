"""
Simulated days of ``dr_monitor``: what is no failure must cause no failover, and a dead region must be left in 45 s.

Region A is active, and region B is the standby. Each has two schedulers with agents that write heartbeats and report
silence. The monitor has the constants of ``example_dags/dr_monitor.py``, and its two sensors with the time that Airflow
needs between them. All times are those of a simulated clock. A script of this module breaks something again and again.

``python -m tests.simulation.monitor`` simulates 24 hours of each kind of noise, and 500 deaths of the region. Its seeds
are fresh, and ``--first SEED`` repeats a run.
"""

from __future__ import annotations

import argparse
import ast
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import parse_config
from airflow_provider_mwaa_dr.core.health import Diagnosis, Health, HealthWatch, Signal, Streak
from airflow_provider_mwaa_dr.core.heartbeats import SilenceByNumber
from airflow_provider_mwaa_dr.core.ports import AgentStatus, EnvironmentStatus
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import (
    DRError,
    MwaaThrottledError,
    MwaaUnreachableError,
    StateError,
    StateUnreachableError,
)
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock
from tests.simulation.first_seed import first_seed

A, B = "us-east-2", "us-east-1"
NAMES = {A: "ohio", B: "virginia"}
TIMING = Timing.from_config(parse_config({}))
HOUR_S = 3600.0
DECIDED_S = 45.0
"""The 95th percentile of the time from the death of the region to the decision must not be longer."""
DAG = Path(__file__).parents[2] / "example_dags" / "dr_monitor.py"


def constants() -> Mapping[str, Any]:
    """Return the constants of the example DAG that are plain numbers."""
    found = {}
    for node in ast.parse(DAG.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


CONSTANTS = constants()


class Answer(str, Enum):
    """How the MWAA service answers the monitor."""

    OK = "ok"
    SLOW = "slow"
    THROTTLED = "throttled"
    ERROR = "an error of the service"
    REFUSED = "no connection"
    BLACKHOLE = "the connection is never made"
    HALF_OPEN = "the connection is made, and nothing is answered"


DEAD = (Answer.ERROR, Answer.REFUSED, Answer.BLACKHOLE, Answer.HALF_OPEN)


class SimulatedEnvironment:
    """The environment of region A, as far as the monitor calls it."""

    name = NAMES[A]

    def __init__(self, world: MonitoredSet) -> None:
        self._world = world
        self.service = Answer.OK
        self.web_server = Answer.OK
        self.reported = EnvironmentStatus.AVAILABLE

    def status(self) -> EnvironmentStatus:
        self._answer(self.service)
        return self.reported

    def scheduler_is_healthy(self) -> bool:
        self._answer(self.service)
        self._answer(self.web_server)
        # Airflow's own limit is 30 s.
        return self._world.clock.monotonic() - self._world.schedulers_until[A] < 30.0

    def _answer(self, how: Answer) -> None:
        """Take the time of a call with one attempt of 4 s, and fail as it does."""
        spend, draw = self._world.clock.sleep, self._world.random.uniform
        if how is Answer.BLACKHOLE:
            spend(2.0 * self._world.random.randint(1, 2))  # for each address of the service
        elif how is Answer.HALF_OPEN:
            spend(4.0)
        elif how is Answer.SLOW:
            taken_s = draw(1.0, 9.0)
            spend(min(4.0, taken_s))
            if taken_s < 4.0:
                return
        else:
            spend(draw(0.05, 0.3))
        if how is Answer.THROTTLED:
            raise MwaaThrottledError("Too many calls.")
        if how is not Answer.OK:
            raise MwaaUnreachableError(f"{how.value}.")


class SimulatedAgent:
    """One scheduler of a region, and its agent."""

    def __init__(self, world: MonitoredSet, region: str, job: str) -> None:
        self.world, self.region, self.job = world, region, job
        self.life = f"{world.random.getrandbits(48):012x}"
        self.store = world.store.peer()
        self.is_up = True
        self._beat = 0
        self._silence = SilenceByNumber(world.clock)
        world.clock.after(world.random.uniform(0.0, TIMING.heartbeat_s), self._turn)

    def _turn(self) -> None:
        world = self.world
        if not self.is_up:
            return
        world.schedulers_until[self.region] = world.clock.monotonic()
        world.clock.after(0.95 * TIMING.heartbeat_s + world.random.expovariate(4.0), self._turn)
        self.send()
        try:
            for region in NAMES:
                self._silence.note(region, self.store.agents(region))
        except StateError:
            pass  # the next turn reads them

    def send(self, *, gone: bool = False) -> None:
        self._beat += 1
        status = AgentStatus(
            region=self.region,
            job=self.job,
            host="host",
            at=self.world.clock.now(),
            beat=self._beat,
            version=1,
            epoch=0,
            provider_version="1",
            airflow_version="3.3.1",
            life=self.life,
            gone=gone,
            silent=self._silence.silent(1.5 * TIMING.heartbeat_s),
        )
        try:
            if self.region in self.world.refused:
                raise StateUnreachableError("The table refuses heartbeats.")
            self.store.put_agent(status)
        except StateError:
            pass  # the next heartbeat

    def end(self, *, regularly: bool) -> None:
        """End the scheduler: regularly, with a last heartbeat, or killed."""
        if self.is_up and regularly:
            self.send(gone=True)
        self.is_up = False


class MonitoredSet:
    """
    The DR set, and the monitor in another region.

    :ivar schedulers_until: when the last scheduler of each region was alive.
    :ivar refused: regions whose heartbeats do not reach the table.
    :ivar restarts: the probability that the triggerer restarts before a poll.
    :ivar decided_at: when the monitor decided to fail over; None: it did not.
    """

    def __init__(self, seed: int, *, quorum: int | None = None) -> None:
        self.random = random.Random(seed)
        self.clock = ManualClock()
        initial = transitions.initial(A, lease_s=60, by="init", at=self.clock.now())
        self.store = InMemoryStateStore(initial, regions=NAMES)
        self.store.has_limits = False
        self.monitor_store = self._peer()
        self.environment = SimulatedEnvironment(self)
        self.schedulers_until = dict.fromkeys(NAMES, 0.0)
        self.refused: set[str] = set()
        self.agents: dict[str, list[SimulatedAgent]] = {region: [] for region in NAMES}
        self._jobs = 0
        for region in NAMES:
            self.start(region)
        self.decided_at: float | None = None
        self.suspicions = 0
        self.restarts = 0.001
        self.last: Diagnosis | None = None
        self._answered: str | None = None
        """The active region if its service reported a usable status in the last poll, as the sensors hand it over."""
        self.quorum = CONSTANTS["QUORUM"] if quorum is None else quorum

    def _peer(self) -> InMemoryStateStore:
        peer = self.store.peer()
        peer.has_limits = False
        return peer

    # For scripts.

    def start(self, region: str, count: int = 2) -> None:
        """Start schedulers in *region*. Its agents forget those that have ended ten minutes later."""
        for ended in self.agents[region]:
            self.clock.after(600.0, lambda ended=ended: self.store.forget_agent(ended.region, ended.job))
        self.agents[region] = []
        for _ in range(count):
            self._jobs += 1
            agent = SimulatedAgent(self, region, str(self._jobs))
            agent.store.has_limits = False
            self.agents[region].append(agent)

    def end(self, region: str, *, regularly: bool) -> None:
        for agent in self.agents[region]:
            agent.end(regularly=regularly)

    def play(self, script: Iterator[float]) -> None:
        """Continue *script* after each of the seconds that it yields."""
        if (wait_s := next(script, None)) is not None:
            self.clock.after(wait_s, lambda: self.play(script))

    # The monitor.

    def run(self, until: float) -> None:
        """Let the monitor run until it decides to fail over, or until this time."""
        while self.decided_at is None and self.clock.monotonic() < until:
            found = self._sense(until, is_suspicion=True)
            self.suspicions += found is not None
            if found is not Certainty.FAILED:
                self._wait_for_airflow()
                found = self._sense(until, is_suspicion=False)
            if found is Certainty.FAILED:
                self.decided_at = self.clock.monotonic()
            self._wait_for_airflow()

    def _wait_for_airflow(self) -> None:
        """From one sensor's event to the next sensor's first poll: triggerer, scheduler, a worker, triggerer."""
        self.clock.sleep(self.random.uniform(2.0, 8.0))

    def _sense(self, until: float, *, is_suspicion: bool) -> Certainty | None:
        """Poll as one of the two sensors does, and return what ended it; None at the end of the time."""
        answered = self._answered if not is_suspicion else None
        watch, streak = self._open(answered)
        while (began := self.clock.monotonic()) < until:
            if self.random.random() < self.restarts:  # the triggerer restarts
                self.clock.sleep(self.random.uniform(5.0, 60.0))
                watch, streak = self._open(answered)
                continue
            try:
                diagnosis = watch.poll()
            except DRError as error:
                diagnosis = Diagnosis(region=None, health=Health.UNKNOWN, why=error.message)
            self.last = diagnosis
            healths = {reading.signal: reading.health for reading in diagnosis.readings}
            self._answered = diagnosis.region if healths.get(Signal.ENVIRONMENT) is Health.HEALTHY else None
            is_certain, has_failed = streak.add(diagnosis), diagnosis.health is Health.FAILED
            if is_certain and has_failed:
                return Certainty.FAILED
            if is_certain and not is_suspicion:
                return Certainty.HEALTHY
            if has_failed and is_suspicion and diagnosis.lasting_s > 0:
                return Certainty.SUSPECTED
            self.clock.sleep(began + CONSTANTS["POLL_EVERY_S"] - self.clock.monotonic())
        return None

    def _open(self, answered: str | None) -> tuple[HealthWatch, Streak]:
        watch = HealthWatch(
            self.monitor_store,
            NAMES,
            lambda _: self.environment,  # type: ignore[arg-type,return-value]
            self.clock,
            quorum=self.quorum,
            silence_s=TIMING.agent_silence_s,
            restart_s=CONSTANTS["RESTART_S"],
            answered=answered,
        )
        return watch, Streak(CONSTANTS["STRIKES"], self.clock, every_s=CONSTANTS["POLL_EVERY_S"])


class Certainty(Enum):
    """What ends a sensor."""

    SUSPECTED = "suspected"
    FAILED = "failed"
    HEALTHY = "healthy"


Script = Callable[[MonitoredSet], Iterator[float]]


def _between(world: MonitoredSet, least: float, most: float) -> float:
    return world.random.uniform(least, most)


ENDS = ("ended", "mixed", "killed")


def _end_for_an_update(world: MonitoredSet, *, kinds: tuple[str, ...]) -> Iterator[float]:
    """End the schedulers of A as an update does: with last heartbeats, one without, or killed."""
    kind = world.random.choice(kinds)
    first, *others = world.random.sample(world.agents[A], len(world.agents[A]))
    first.end(regularly=kind != "killed")
    yield _between(world, 0, 110)
    for agent in others:
        agent.end(regularly=kind == "ended")


def _change(world: MonitoredSet, status: EnvironmentStatus, *, kinds: tuple[str, ...] = ENDS) -> Iterator[float]:
    """Update the environment, or maintain it: 20 to 55 minutes, in which no scheduler runs."""
    world.environment.reported = status
    yield _between(world, 30, 300)
    yield from _end_for_an_update(world, kinds=kinds)
    world.environment.web_server = Answer.ERROR
    yield _between(world, 1100, 2900)
    if world.random.random() < 0.2:
        world.environment.reported = EnvironmentStatus.ROLLING_BACK
        yield _between(world, 600, 1800)
    is_first_back = world.random.random() < 0.5
    if is_first_back:
        world.start(A)
        yield _between(world, 0, 120)
    world.environment.web_server = Answer.OK
    world.environment.reported = EnvironmentStatus.AVAILABLE
    if not is_first_back:
        yield _between(world, 0, 240)
        world.start(A)


def updates(world: MonitoredSet) -> Iterator[float]:
    """Updates of the environment."""
    while True:
        yield _between(world, 300, 2400)
        yield from _change(world, EnvironmentStatus.UPDATING)


def maintenance(world: MonitoredSet) -> Iterator[float]:
    """Maintenance by AWS."""
    while True:
        yield _between(world, 300, 2400)
        yield from _change(world, EnvironmentStatus.MAINTENANCE)


def throttled_updates(world: MonitoredSet) -> Iterator[float]:
    """Updates whose status cannot be read from before their start on: the service throttles, and has short faults."""
    is_throttling = False

    def service() -> Iterator[float]:
        while is_throttling:
            world.environment.service = Answer.THROTTLED
            yield _between(world, 10, 60)
            world.environment.service = world.random.choice(DEAD)
            yield _between(world, 2, 12)
        world.environment.service = Answer.OK

    while True:
        yield _between(world, 300, 1200)
        is_throttling = True
        world.play(service())
        yield _between(world, 60, 600)
        yield from _change(world, EnvironmentStatus.UPDATING)
        is_throttling = False


def updates_that_become_invisible(world: MonitoredSet) -> Iterator[float]:
    """The monitor reads that an update has begun, and does not reach the service afterwards."""
    while True:
        yield _between(world, 300, 2400)
        change = _change(world, EnvironmentStatus.UPDATING)
        yield next(change)
        world.environment.service = world.random.choice(DEAD)
        yield from change
        yield _between(world, 60, 600)
        world.environment.service = Answer.OK


def invisible_updates(world: MonitoredSet) -> Iterator[float]:
    """The monitor cannot reach the service from before the start of an update on. Schedulers end regularly."""
    while True:
        yield _between(world, 300, 2400)
        world.environment.service = world.random.choice(DEAD)
        yield _between(world, 60, 600)
        yield from _change(world, EnvironmentStatus.UPDATING, kinds=("ended", "mixed"))
        yield _between(world, 60, 600)
        world.environment.service = Answer.OK


def throttling(world: MonitoredSet) -> Iterator[float]:
    """The service or the web server throttles for minutes, also while schedulers restart."""
    world.play(restarts(world))
    while True:
        yield _between(world, 10, 600)
        world.environment.service = world.random.choice([Answer.THROTTLED, Answer.OK])
        world.environment.web_server = world.random.choice([Answer.THROTTLED, Answer.OK])
        yield _between(world, 10, 900)
        world.environment.service = world.environment.web_server = Answer.OK


def slow_api(world: MonitoredSet) -> Iterator[float]:
    """Airflow's API takes seconds, or does not answer, also while schedulers restart."""
    world.play(restarts(world))
    while True:
        world.environment.web_server = world.random.choice([Answer.SLOW, Answer.SLOW, Answer.HALF_OPEN, Answer.ERROR])
        yield _between(world, 60, 3600)
        world.environment.web_server = Answer.OK
        yield _between(world, 10, 600)


def restarts(world: MonitoredSet) -> Iterator[float]:
    """All schedulers restart, with last heartbeats or killed. It takes up to eight minutes."""
    while True:
        yield _between(world, 60, 1800)
        world.end(A, regularly=world.random.random() < 0.5)
        yield _between(world, 10, 480)
        world.start(A)


def restarts_with_lost_polls(world: MonitoredSet) -> Iterator[float]:
    """While schedulers restart, single polls get no answer from the service."""
    world.play(restarts(world))
    while True:
        yield _between(world, 5, 60)
        world.environment.service = world.random.choice([Answer.ERROR, Answer.REFUSED])
        yield _between(world, 1, 4)
        world.environment.service = Answer.OK


def silent_table(world: MonitoredSet) -> Iterator[float]:
    """The state table does not answer the monitor, or agents of one region or of both, for up to half an hour."""
    while True:
        yield _between(world, 10, 600)
        if world.random.random() < 0.5:
            world.monitor_store.unreachable = True
        for agents in world.random.choice([(), (A,), (B,), (A, B)]):
            for agent in world.agents[agents]:
                agent.store.unreachable = True
        yield _between(world, 10, 1800)
        world.monitor_store.unreachable = False
        for agent in (*world.agents[A], *world.agents[B]):
            agent.store.unreachable = False


def table_without_heartbeats(world: MonitoredSet) -> Iterator[float]:
    """The table can be read, and takes no heartbeat of any region. The monitor does not reach the service either."""
    while True:
        yield _between(world, 10, 600)
        world.refused.update(NAMES)
        world.environment.service = world.random.choice(DEAD)
        yield _between(world, 10, 540)
        world.refused.clear()
        world.environment.service = Answer.OK


def cut_from_the_service(world: MonitoredSet) -> Iterator[float]:
    """The network from the monitor to the region fails for up to hours. The region works."""
    while True:
        yield _between(world, 10, 1800)
        world.environment.service = world.random.choice(DEAD)
        yield _between(world, 10, 2 * HOUR_S)
        world.environment.service = Answer.OK


def cut_from_the_table(world: MonitoredSet) -> Iterator[float]:
    """The region does not reach the table, in the other direction the network works: the service answers."""
    while True:
        yield _between(world, 10, 1800)
        world.refused.add(A)
        yield _between(world, 10, 2 * HOUR_S)
        world.refused.clear()


def standby_that_reads_nothing(world: MonitoredSet) -> Iterator[float]:
    """The standby's agents cannot read the table, so their reports are old. The monitor does not reach the service."""
    while True:
        yield _between(world, 60, 600)
        for agent in world.agents[B]:
            agent.store.failing["agents"] = StateUnreachableError("No answer.")
        world.environment.service = world.random.choice(DEAD)
        yield _between(world, 60, 1800)
        for agent in world.agents[B]:
            agent.store.failing.clear()
        world.environment.service = Answer.OK


NOISE: tuple[Script, ...] = (
    updates,
    maintenance,
    throttled_updates,
    updates_that_become_invisible,
    invisible_updates,
    throttling,
    slow_api,
    restarts,
    restarts_with_lost_polls,
    silent_table,
    table_without_heartbeats,
    cut_from_the_service,
    cut_from_the_table,
    standby_that_reads_nothing,
)


class FalseFailoverError(AssertionError):
    """The monitor decided to leave a region that was not lost."""


def simulate_noise(noise: Script, seed: int, *, hours: float, quorum: int | None = None) -> MonitoredSet:
    """Simulate *hours* of one kind of noise. :raises FalseFailoverError: the monitor decided to fail over."""
    world = MonitoredSet(seed, quorum=quorum)
    world.play(noise(world))
    world.run(hours * HOUR_S)
    if world.decided_at is not None:
        raise FalseFailoverError(
            f"False failover: {noise.__name__}, seed {seed}, after {world.decided_at / HOUR_S:.2f} h: {world.last}"
        )
    return world


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """
    The death of the region.

    :param seconds: from the death to the decision.
    :param how: how the service was dead.
    :param was_gradual: the schedulers died some time before the service.
    """

    seconds: float
    how: Answer
    was_gradual: bool


def simulate_death(seed: int) -> Death:
    """Let the region die at a random moment. :raises AssertionError: the monitor does not decide."""
    world = MonitoredSet(seed)
    # A monitor that starts after the death does not know whether an update is in progress, and waits for 90 minutes.
    world.restarts = 0.0
    how, was_gradual = world.random.choice(DEAD), world.random.random() < 0.5
    schedulers_at, gradual_s = world.random.uniform(30.0, 150.0), world.random.uniform(0.0, 90.0) * was_gradual
    died_at = schedulers_at + gradual_s

    def death() -> Iterator[float]:
        yield schedulers_at
        world.end(A, regularly=False)
        yield gradual_s
        assert world.decided_at is None, f"The region was left before it died, seed {seed}: {world.last}"
        world.environment.service = how

    world.play(death())
    world.run(died_at + 600.0)
    assert world.decided_at is not None, f"Not decided, seed {seed}: {world.last}"
    return Death(
        seconds=world.decided_at - died_at,
        how=how,
        was_gradual=was_gradual,
    )


def simulate_deaths(first: int, count: int) -> list[Death]:
    """Return *count* deaths, the fastest decision first."""
    return sorted((simulate_death(seed) for seed in range(first, first + count)), key=lambda death: death.seconds)


def percentile(deaths: list[Death], part: float) -> float:
    """Return the seconds within which this *part* of the sorted deaths was decided."""
    return deaths[min(len(deaths) - 1, int(part * len(deaths)))].seconds


def summary(deaths: list[Death]) -> str:
    """Return the figures of sorted deaths, in a sentence each."""
    slowest = Counter(death.how.value for death in deaths[-10:])
    return (
        f"{len(deaths)} deaths: decided after {deaths[0].seconds:.0f} s at least, median "
        f"{percentile(deaths, 0.5):.0f} s, p95 {percentile(deaths, 0.95):.0f} s, at most {deaths[-1].seconds:.0f} s. "
        f"The ten slowest: {', '.join(f'{count} x {how}' for how, count in slowest.most_common())}."
    )


def main() -> int:
    """Simulate all kinds of noise, then deaths; print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.monitor", description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0, help="simulated hours of each kind of noise")
    parser.add_argument("--deaths", type=int, default=500)
    parser.add_argument("--first", type=int, help="the first seed, to repeat a run")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    first = first_seed(arguments.first)
    print(f"First seed: {first} (repeat with --first {first})", flush=True)
    wrong = 0
    for number, noise in enumerate(NOISE):
        began = time.monotonic()
        try:
            world = simulate_noise(noise, first + number, hours=arguments.hours)
        except FalseFailoverError as error:
            wrong += 1
            print(error, flush=True)
            continue
        print(
            f"{noise.__name__:32} {arguments.hours:g} h, 0 false failovers, {world.suspicions} suspicions "
            f"({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    deaths = simulate_deaths(first, arguments.deaths)
    print(summary(deaths))
    return 1 if wrong or percentile(deaths, 0.95) > DECIDED_S else 0


if __name__ == "__main__":
    sys.exit(main())
