"""
Whether the active region has failed: a quorum of independent signals, for long enough.

Unknown does not mean failed. A signal is unknown if, for example, the environment is being updated, the state table
does not answer, the service throttles the caller, or the caller has no permission. Such a signal neither confirms nor
excludes a failure.

Two kinds of failure are certain after different times. A region is *lost* if its MWAA service does not answer, and its
agents are silent while those of another region are alive: seconds suffice. While the service answers, the schedulers
may be restarting, and the failure is certain only when it has lasted longer than a restart takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from airflow_provider_mwaa_dr.core.environments import active_state
from airflow_provider_mwaa_dr.core.overdue_halt import overdue_halt
from airflow_provider_mwaa_dr.core.ports import Clock, Environment, EnvironmentStatus, FailoverRecord, StateStore
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG
from airflow_provider_mwaa_dr.core.signs_of_life import SignOfLife, SignsOfLife
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.exceptions import (
    MwaaError,
    MwaaRequestError,
    MwaaThrottledError,
    MwaaUnreachableError,
    StateError,
    StateNotFoundError,
    StateUnreachableError,
    UnusableStateError,
)

PROBE_S = 180.0
"""The longest time until a probe run succeeds: one task of seconds, which may wait for other work of the scheduler."""

RESTART_S = 600.0
"""The longest time without a scheduler in an environment that works: MWAA replaces containers in a few minutes."""

UPDATE_S = 5400.0
"""The longest update of an environment. An update takes 20 to 30 minutes, and a rollback after it takes as long."""

TOLERANCE = 0.9
"""The part of the time between polls that suffices: a poll may begin a little early."""

DAY = timedelta(hours=24)

_SHOWN = 10
"""The most unreadable items in a diagnosis."""

_GONE = {
    EnvironmentStatus.CREATE_FAILED,
    EnvironmentStatus.DELETED,
    EnvironmentStatus.DELETING,
    EnvironmentStatus.UNAVAILABLE,
}


class Health(str, Enum):
    """The health according to one signal, or to all together."""

    HEALTHY = "healthy"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Signal(str, Enum):
    """The source of a reading."""

    ENVIRONMENT = "environment"
    """The MWAA service in the region: whether it answers, and the environment's status."""
    API = "api"
    """Airflow's web server or API server."""
    SCHEDULER = "scheduler"
    """Airflow's health response, which depends on the last heartbeat of a scheduler in the metadata database."""
    AGENT = "agent"
    """
    The heartbeats of the region's agents in the state table, as this process and the agents of the other regions
    observe them; no call to the region.
    """
    PROBE = "probe"
    """A run of ``dr_test_dag``, which needs API, scheduler and worker."""


_NO_ANSWER = {Signal.ENVIRONMENT, Signal.API}
"""Signals that fail if the monitor gets no answer, for which its own network may be the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The health according to one signal, and the reason."""

    signal: Signal
    health: Health
    why: str

    def __str__(self) -> str:
        return f"{self.signal.value} {self.health.value} ({self.why})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """
    The result of one poll.

    :param region: the active region, which was polled; None if it is unknown.
    :param standbys: the other regions of the set, sorted.
    :param readings: the readings of the polled signals.
    :param lasting_s: seconds for which the health must have been the same before it is certain.
    :param problems: values and items of the tables that cannot be used, and a failover that no caller continues, a few
        sentences each. Unreadable items are only searched for at an interval.
    :param is_halted: the problem is a failover that has been halted for longer than its caller allowed.
    """

    region: str | None
    standbys: tuple[str, ...] = ()
    health: Health
    why: str
    readings: tuple[Reading, ...] = ()
    lasting_s: float = 0.0
    problems: tuple[str, ...] = ()
    is_halted: bool = False

    def __str__(self) -> str:
        readings = "; ".join(map(str, self.readings))
        verdict = "has failed" if self.health is Health.FAILED else f"is {self.health.value}"
        return f"{self.region or 'the active region'} {verdict}: {self.why}" + (f" [{readings}]" if readings else "")


def diagnose(
    region: str,
    readings: Sequence[Reading],
    *,
    quorum: int,
    standbys: Sequence[str] = (),
    restart_s: float = RESTART_S,
    lost_s: float = 0.0,
) -> Diagnosis:
    """
    Return the diagnosis from all signals.

    The region is failed with at least *quorum* failed signals, healthy with none, and unknown in between. It is also
    unknown whenever the environment's own status is: during an update of 20 to 30 minutes the other signals fail, too.
    New heartbeats prove that the region is alive, so that a missing answer does not count.

    :param restart_s: how long a failure must last while the MWAA service answers and the environment exists.
    :param lost_s: how long it must last otherwise.
    """
    by_signal = {reading.signal: reading for reading in readings}
    environment, agent = by_signal.get(Signal.ENVIRONMENT), by_signal.get(Signal.AGENT)
    is_alive = agent is not None and agent.health is Health.HEALTHY
    failed = [reading for reading in readings if reading.health is Health.FAILED]
    counted = [reading for reading in failed if not (is_alive and reading.signal in _NO_ANSWER)]
    names = ", ".join(reading.signal.value for reading in failed)
    lasting_s = 0.0
    if environment is not None and environment.health is Health.UNKNOWN:
        health, why = Health.UNKNOWN, environment.why
    elif len(counted) >= quorum:
        health, why = Health.FAILED, f"{len(failed)} of {len(readings)} signals failed ({names}), {quorum} are enough"
        lasting_s = lost_s if environment in failed else restart_s
    elif failed and not counted:
        health, why = Health.UNKNOWN, f"only {names} failed, and its agents send heartbeats"
    elif failed:
        health, why = Health.UNKNOWN, f"only {names} failed, and {quorum} signals are necessary"
    elif any(reading.health is Health.HEALTHY for reading in readings):
        health, why = Health.HEALTHY, "no signal failed"
    else:
        health, why = Health.UNKNOWN, "all signals are unknown"
    return Diagnosis(
        region=region,
        standbys=tuple(standbys),
        health=health,
        why=why,
        readings=tuple(readings),
        lasting_s=lasting_s,
    )


class Streak:
    """
    For how long the polls have found the same region with the same health.

    It counts time, because a poll of a region that does not answer takes longer than others.

    :param polls: the health is certain when it has lasted for the usual time of this number of polls, and for the time
        that the diagnosis requires. With 1, the first poll is enough. Unknown is never certain.
    :param every_s: usual seconds between two polls.
    """

    def __init__(self, polls: int, clock: Clock, *, every_s: float) -> None:
        self._polls = polls
        self._clock = clock
        self._every_s = every_s
        self._last: tuple[str | None, Health, float] | None = None
        self._since = 0.0

    def add(self, diagnosis: Diagnosis) -> bool:
        """Add a poll, and return whether its health is certain."""
        now = self._clock.monotonic()
        # A failure of another kind starts again: it may be a single poll without an answer during a restart.
        seen = diagnosis.region, diagnosis.health, diagnosis.lasting_s
        if seen != self._last:
            self._last, self._since = seen, now
        if diagnosis.health is Health.UNKNOWN:
            return False
        return now - self._since >= self.needed_s(diagnosis)

    def needed_s(self, diagnosis: Diagnosis) -> float:
        """Return the seconds after which the health of *diagnosis* is certain."""
        if self._polls == 1:
            return 0.0
        return max(TOLERANCE * (self._polls - 1) * self._every_s, diagnosis.lasting_s)


class HealthWatch:
    """
    Polls the health of the active region from outside of it.

    A poll takes as long as its calls: to the state table, to the MWAA service and, if that answers, to Airflow.

    :param names: environment name by region of the DR set.
    :param open_environment: opens the environment of a region, whose calls must end within seconds; called once for
        each region that is polled.
    :param stands_in: whether this Airflow itself is the environment of a region.
    :param quorum: number of failed signals that make a region failed.
    :param silence_s: seconds without a new heartbeat after which agents count as silent.
    :param restart_s: how long the schedulers of a working environment may be away. While the MWAA service answers, a
        failure is certain only after this time.
    :param answered: the region whose MWAA service reported a usable status to an earlier watch just before. Without a
        status from the service, an update may be in progress, and a failure is certain only after ``UPDATE_S``.
    :param probe_every_s: seconds between two probe runs; None for none.
    :param items_every_s: seconds until the first scan of the state table for unreadable items, and between two scans;
        None for no scan.
    """

    def __init__(
        self,
        store: StateStore,
        names: Mapping[str, str],
        open_environment: Callable[[str], Environment],
        clock: Clock,
        *,
        stands_in: Callable[[str], bool] = lambda _: False,
        quorum: int = 2,
        silence_s: float,
        restart_s: float = RESTART_S,
        answered: str | None = None,
        probe_every_s: float | None = None,
        items_every_s: float | None = None,
    ) -> None:
        self._store = store
        self._names = names
        self._open_environment = open_environment
        self._clock = clock
        self._stands_in = stands_in
        self._quorum = quorum
        self._silence_s = silence_s
        self._restart_s = restart_s
        self._probe_every_s = probe_every_s
        self._items_every_s = items_every_s
        self._items_at = clock.monotonic()
        self._signs = SignsOfLife(clock, silence_s=silence_s)
        self._gaps: dict[str, set[str]] = {}
        self._answered = set() if answered is None else {answered}
        """The regions whose MWAA service has reported that no change of the environment is in progress."""
        self._version: int | None = None
        self._version_since = 0.0
        """When this process first read this version of the state."""
        self._busy_at: dict[str, float] = {}
        """When the service last reported that it was changing a region's environment, until its agents are back."""
        self._environment: Environment | None
        self._begin(None)

    def poll(self) -> Diagnosis:
        """
        Return the health of the active region.

        :raises DRError: another poll would also fail, for example without the right to read the state table.
        """
        diagnosis = self._poll()
        return replace(diagnosis, problems=(*diagnosis.problems, *self._unreadable()))

    def _poll(self) -> Diagnosis:
        try:
            state = active_state(self._store)
        except UnusableStateError as error:
            return self._unknown(None, error.message.rstrip("."), problems=(str(error),))
        except (StateUnreachableError, StateNotFoundError) as error:
            return self._unknown(None, f"the active region is unknown: {error.message}")
        region = state.active_region
        if state.phase is not Phase.STEADY:
            overdue = overdue_halt(state, self._unchanged_s(state))
            found = self._unknown(region, f"a failover is in progress ({state.phase.value})")
            return found if overdue is None else replace(found, problems=(overdue,), is_halted=True)
        if self._stands_in(region):
            return self._unknown(region, "the monitor runs in this environment, so it cannot detect its failure")
        if region not in self._names:
            return self._unknown(region, "its environment is not configured or registered")
        if region != self._region:
            if self._region is not None:
                self._signs.forget()
            self._begin(region)
        return diagnose(
            region,
            self._readings(region),
            quorum=self._quorum,
            standbys=self._standbys(region),
            restart_s=self._restart_s,
            # Perhaps an update began before this process could read it.
            lost_s=0.0 if region in self._answered else UPDATE_S,
        )

    def _unchanged_s(self, state: DRState) -> float:
        """Return for how long the state has had its version, as far as this process has observed it."""
        now = self._clock.monotonic()
        if state.version != self._version:
            self._version, self._version_since = state.version, now
        return now - self._version_since

    def _readings(self, region: str) -> Sequence[Reading]:
        environment = self._environment = self._environment or self._open_environment(region)
        problem = self._read_heartbeats()
        service, away_s = self._ask_service(region, environment)
        if service.health is Health.UNKNOWN:
            # Silent agents during an update, or shortly after it, do not indicate a failure.
            self._signs.forget()
            return [service]
        if service.health is Health.FAILED:
            # The call may have taken seconds. Heartbeats that changed meanwhile show which regions are alive.
            problem = self._read_heartbeats()
        agents = self._judge_agents(region, problem, away_s=away_s)
        if service.health is not Health.HEALTHY:
            # Airflow is reached through the MWAA service, over the same network. Its failure must count only once.
            return [service, agents]
        if agents.health is Health.HEALTHY:
            self._busy_at.pop(region, None)
        return [service, agents, *self._ask_airflow(environment)]

    def _begin(self, region: str | None) -> None:
        self._region = region
        self._environment = None
        self._unread: list[str] = []
        self._probe_run: str | None = None
        self._probe_at: float | None = None
        self._probe_reading = Reading(signal=Signal.PROBE, health=Health.UNKNOWN, why="no probe run has ended yet")

    def _unknown(self, region: str | None, why: str, *, problems: tuple[str, ...] = ()) -> Diagnosis:
        self._signs.forget()
        self._begin(None)
        standbys = self._standbys(region)
        return Diagnosis(region=region, standbys=standbys, health=Health.UNKNOWN, why=why, problems=problems)

    def _unreadable(self) -> tuple[str, ...]:
        """Return the items of state table and ledger that cannot be read; only once in ``items_every_s``."""
        now = self._clock.monotonic()
        if self._items_every_s is None or now - self._items_at < self._items_every_s:
            return ()
        self._items_at = now
        try:
            found = [f"{item} {item.advice}" for item in self._store.unreadable(self._names)]
        except StateUnreachableError:
            return ()
        except StateError as error:
            return (f"The check for unreadable items failed: {error}",)
        found += self._unread
        more = len(found) - _SHOWN
        return (*found[:_SHOWN], *([f"{more} more cannot be read; mwaa-dr status lists them."] if more > 0 else []))

    def _standbys(self, region: str | None) -> tuple[str, ...]:
        return tuple(sorted(name for name in self._names if region is not None and name != region))

    def _ask_service(self, region: str, environment: Environment) -> tuple[Reading, float]:
        """Return the reading, and how long agents may be away that have ended regularly."""
        now = self._clock.monotonic()
        health, away_s = Health.UNKNOWN, self._restart_s
        try:
            status = environment.status()
        except MwaaError as error:
            why = error.message
            if isinstance(error, MwaaUnreachableError) and not isinstance(error, MwaaThrottledError):
                health, away_s = Health.FAILED, UPDATE_S
            if health is Health.FAILED and now - self._busy_at.get(region, -UPDATE_S) < UPDATE_S:
                health = Health.UNKNOWN
                why = f"{why.rstrip('.')}; when the service last answered, it was changing the environment"
        else:
            why = f"{environment.name} is {status.value}"
            if status.is_usable or status in _GONE:
                self._answered.add(region)
            if status.is_usable:
                health = Health.HEALTHY
            elif status in _GONE:
                health, away_s = Health.FAILED, 0.0
            else:
                self._busy_at[region] = now
        return Reading(signal=Signal.ENVIRONMENT, health=health, why=why), away_s

    def _read_heartbeats(self) -> str | None:
        """Read the heartbeats of all regions. Return why they could not be read; else None."""
        try:
            found = {name: self._store.agents(name) for name in self._names}
        except StateUnreachableError as error:
            # Without the table, it is unknown whether the agents are silent. This time must not count.
            self._signs.forget()
            return error.message
        self._signs.note(found)
        self._gaps = {name: {gap for agent in agents for gap in agent.unread} for name, agents in found.items()}
        return None

    def _judge_agents(self, region: str, problem: str | None, *, away_s: float) -> Reading:
        """Return whether the agents of *region* are alive; unknown if this process has not read enough heartbeats."""
        if problem is not None:
            return Reading(signal=Signal.AGENT, health=Health.UNKNOWN, why=problem)
        sign = self._signs.of(region)
        # The heartbeat of a dead agent may list items that were corrected later.
        self._unread = sorted(self._gaps[region]) if sign.has_changed else []
        if sign.silent_s is None:
            health, why = Health.UNKNOWN, "no scheduler of the region has written a heartbeat"
        elif sign.silent_s >= self._silence_s:
            health, why = self._judge_silence(sign, sign.silent_s, away_s=away_s)
        elif sign.has_changed:
            health, why = Health.HEALTHY, "the heartbeats change"
        else:
            health, why = Health.UNKNOWN, "not polled for long enough"
        return Reading(signal=Signal.AGENT, health=health, why=why)

    def _judge_silence(self, sign: SignOfLife, silent_s: float, *, away_s: float) -> tuple[Health, str]:
        why = f"no new heartbeat for {silent_s:.0f} s"
        if sign.has_ended:
            allowed_s = away_s
            why += ", since a scheduler ended regularly"
        elif sign.witnesses:
            allowed_s = self._silence_s
            why += f", while agents of {', '.join(sign.witnesses)} send heartbeats"
        else:
            allowed_s = self._restart_s
            why += ", and none from another region either"
        if silent_s < allowed_s:
            return Health.UNKNOWN, f"{why}; this counts as a failure only after {allowed_s:.0f} s"
        return Health.FAILED, why

    def _ask_airflow(self, environment: Environment) -> list[Reading]:
        try:
            is_healthy = environment.scheduler_is_healthy()
        except MwaaError as error:
            is_silent = isinstance(error, MwaaUnreachableError) and not isinstance(error, MwaaThrottledError)
            health = Health.FAILED if is_silent else Health.UNKNOWN
            return [Reading(signal=Signal.API, health=health, why=error.message)]
        health = Health.HEALTHY if is_healthy else Health.FAILED
        reported = f"Airflow reports that {'a' if is_healthy else 'no'} scheduler is healthy"
        readings = [
            Reading(signal=Signal.API, health=Health.HEALTHY, why="it answers"),
            Reading(signal=Signal.SCHEDULER, health=health, why=reported),
        ]
        if self._probe_every_s is not None:
            readings.append(self._probe(environment, self._probe_every_s))
        return readings

    def _probe(self, environment: Environment, every_s: float) -> Reading:
        """Start a probe run at the interval, and return the outcome of the last run that ended or exceeded its time."""
        now = self._clock.monotonic()
        try:
            if self._probe_at is None or now - self._probe_at >= max(every_s, PROBE_S):
                self._probe_run = f"dr_probe__{self._clock.now().isoformat()}"
                environment.trigger(TEST_DAG, run_id=self._probe_run, note="A probe: does this region execute tasks?")
                self._probe_at = now
            elif self._probe_run is not None:
                self._judge_probe(environment, self._probe_run, now - self._probe_at)
        except MwaaError as error:
            is_missing = isinstance(error, MwaaRequestError) and error.status == 404
            why = f"{TEST_DAG} is not deployed" if is_missing else error.message
            return Reading(signal=Signal.PROBE, health=Health.UNKNOWN, why=why)
        return self._probe_reading

    def _judge_probe(self, environment: Environment, run_id: str, age_s: float) -> None:
        state = environment.run_state(TEST_DAG, run_id)
        if state == "success":
            health, why = Health.HEALTHY, f"{run_id} succeeded"
        elif state == "failed":
            health, why = Health.FAILED, f"{run_id} failed"
        elif age_s < PROBE_S:
            return
        elif any(dag.dag_id == TEST_DAG and dag.is_paused for dag in environment.dags()):
            health, why = Health.UNKNOWN, f"{TEST_DAG} is paused"
        else:
            health, why = Health.FAILED, f"{run_id} is {state or 'gone'} after {age_s:.0f} s"
        self._probe_run = None
        self._probe_reading = Reading(signal=Signal.PROBE, health=health, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    Limits for automatic failovers.

    :param cooldown: minimum time since the last failover, regardless of its caller and its outcome.
    :param per_day: maximum number of failovers within 24 hours, regardless of their callers.
    """

    cooldown: timedelta | None = None
    per_day: int | None = None

    def refusal(self, records: Sequence[FailoverRecord], now: datetime) -> str | None:
        """Return why no failover may begin now; None if one may. The times in *records* are from other clocks."""
        last = max((record.finished_at or record.started_at for record in records), default=None)
        if self.cooldown is not None and last is not None and now - last < self.cooldown:
            return f"the last failover was {_minutes(now - last)} ago, and the cooldown is {_minutes(self.cooldown)}"
        today = [record for record in records if now - record.started_at < DAY]
        if self.per_day is not None and len(today) >= self.per_day:
            return f"there were {len(today)} failovers within 24 hours, and the limit is {self.per_day}"
        return None


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} min"
