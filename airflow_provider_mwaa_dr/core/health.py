"""
Whether the active region has failed: a quorum of independent signals, in several polls in a row.

Unknown does not mean failed. A signal is unknown if, for example, the environment is being updated, the state table
does not answer, or the caller has no permission. Such a signal neither confirms nor excludes a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from airflow_provider_mwaa_dr.core.environments import active_state
from airflow_provider_mwaa_dr.core.ports import Clock, Environment, EnvironmentStatus, FailoverRecord, StateStore
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG
from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.exceptions import (
    MwaaError,
    MwaaRequestError,
    MwaaUnreachableError,
    StateError,
    StateNotFoundError,
    StateUnreachableError,
    UnusableStateError,
)

PROBE_S = 180.0
"""The longest time until a probe run succeeds: one task of seconds, which may wait for other work of the scheduler."""

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
    """The heartbeats of the schedulers' agents in the state table; no call to the region."""
    PROBE = "probe"
    """A run of ``dr_test_dag``, which needs API, scheduler and worker."""


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
    :param problems: values and items of the tables that cannot be used, a sentence or two each. Unreadable items are
        only searched for at an interval.
    """

    region: str | None
    standbys: tuple[str, ...] = ()
    health: Health
    why: str
    readings: tuple[Reading, ...] = ()
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        readings = "; ".join(map(str, self.readings))
        verdict = "has failed" if self.health is Health.FAILED else f"is {self.health.value}"
        return f"{self.region or 'the active region'} {verdict}: {self.why}" + (f" [{readings}]" if readings else "")


def diagnose(region: str, readings: Sequence[Reading], *, quorum: int, standbys: Sequence[str] = ()) -> Diagnosis:
    """
    Return the diagnosis from all signals.

    The region is failed with at least *quorum* failed signals, healthy with none, and unknown in between. It is also
    unknown whenever the environment's own status is: during an update of 20 to 30 minutes the other signals fail, too.
    """
    environment = next((reading for reading in readings if reading.signal is Signal.ENVIRONMENT), None)
    failed = [reading for reading in readings if reading.health is Health.FAILED]
    names = ", ".join(reading.signal.value for reading in failed)
    if environment is not None and environment.health is Health.UNKNOWN:
        health, why = Health.UNKNOWN, environment.why
    elif len(failed) >= quorum:
        health, why = Health.FAILED, f"{len(failed)} of {len(readings)} signals failed ({names}), {quorum} are enough"
    elif failed:
        health, why = Health.UNKNOWN, f"only {names} failed, and {quorum} signals are necessary"
    elif any(reading.health is Health.HEALTHY for reading in readings):
        health, why = Health.HEALTHY, "no signal failed"
    else:
        health, why = Health.UNKNOWN, "all signals are unknown"
    return Diagnosis(region=region, standbys=tuple(standbys), health=health, why=why, readings=tuple(readings))


class Strikes:
    """
    Counts how many polls in a row found the same region with the same health.

    :param needed: the number of equal polls in a row that make the health certain. Unknown is never certain.
    """

    def __init__(self, needed: int) -> None:
        self._needed = needed
        self._last: tuple[str | None, Health] | None = None
        self.count = 0

    def add(self, diagnosis: Diagnosis) -> bool:
        """Count a poll, and return whether its health is certain: failed or healthy in enough polls in a row."""
        seen = diagnosis.region, diagnosis.health
        self.count = self.count + 1 if seen == self._last else 1
        self._last = seen
        return diagnosis.health is not Health.UNKNOWN and self.count >= self._needed


class HealthWatch:
    """
    Polls the health of the active region from outside of it.

    If the region does not answer, a poll takes about 20 s, the deadline of the calls to the environment.

    :param names: environment name by region of the DR set.
    :param open_environment: opens the environment of a region; called once for each region that is polled.
    :param stands_in: whether this Airflow itself is the environment of a region.
    :param quorum: number of failed signals that make a region failed.
    :param silence_s: seconds without a new heartbeat after which agents count as silent.
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
        self._probe_every_s = probe_every_s
        self._items_every_s = items_every_s
        self._items_at = clock.monotonic()
        self._environment: Environment | None
        self._beats: dict[str, int] | None
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
            return self._unknown(region, f"a failover is in progress ({state.phase.value})")
        if self._stands_in(region):
            return self._unknown(region, "the monitor runs in this environment, so it cannot detect its failure")
        if region not in self._names:
            return self._unknown(region, "its environment is not configured or registered")
        if region != self._region:
            self._begin(region)
        environment = self._environment = self._environment or self._open_environment(region)
        service = self._ask_service(environment)
        if service.health is Health.UNKNOWN:
            # Silent agents during an update, or shortly after it, do not indicate a failure.
            self._beats = None
            return diagnose(region, [service], quorum=self._quorum, standbys=self._standbys(region))
        readings = [service, self._ask_agents(region)]
        # The MWAA service and Airflow behind it are reached over the same network. Its failure must count only once.
        if service.health is Health.HEALTHY:
            readings += self._ask_airflow(environment)
        return diagnose(region, readings, quorum=self._quorum, standbys=self._standbys(region))

    def _begin(self, region: str | None) -> None:
        self._region = region
        self._environment = None
        self._beats = None
        self._beats_changed_at = 0.0
        self._have_beats_changed = False
        self._unread: list[str] = []
        self._probe_run: str | None = None
        self._probe_at: float | None = None
        self._probe_reading = Reading(signal=Signal.PROBE, health=Health.UNKNOWN, why="no probe run has ended yet")

    def _unknown(self, region: str | None, why: str, *, problems: tuple[str, ...] = ()) -> Diagnosis:
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

    def _ask_service(self, environment: Environment) -> Reading:
        try:
            status = environment.status()
        except MwaaUnreachableError as error:
            return Reading(signal=Signal.ENVIRONMENT, health=Health.FAILED, why=error.message)
        except MwaaError as error:
            return Reading(signal=Signal.ENVIRONMENT, health=Health.UNKNOWN, why=error.message)
        health = Health.HEALTHY if status.is_usable else Health.FAILED if status in _GONE else Health.UNKNOWN
        return Reading(signal=Signal.ENVIRONMENT, health=health, why=f"{environment.name} is {status.value}")

    def _ask_agents(self, region: str) -> Reading:
        """Return whether a heartbeat changes, on this process's clock; unknown for the first polls."""
        now = self._clock.monotonic()
        try:
            # An unreadable heartbeat does not mean that the agent is silent.
            agents = [agent for agent in self._store.agents(region) if agent.unreadable is None]
            beats = {agent.job: agent.beat for agent in agents}
        except StateUnreachableError as error:
            # Without the table, it is unknown whether the agents are silent. This time must not count.
            self._beats = None
            return Reading(signal=Signal.AGENT, health=Health.UNKNOWN, why=error.message)
        if self._beats is None or not beats:
            self._beats, self._beats_changed_at, self._have_beats_changed = beats, now, False
        elif any(self._beats.get(job) != beat for job, beat in beats.items()):
            self._beats, self._beats_changed_at, self._have_beats_changed = beats, now, True
        # The heartbeat of a dead agent may list items that were corrected later.
        self._unread = sorted({gap for agent in agents for gap in agent.unread}) if self._have_beats_changed else []
        silent_s = now - self._beats_changed_at
        if not beats:
            health, why = Health.UNKNOWN, "no scheduler of the region has written a heartbeat"
        elif silent_s >= self._silence_s:
            health, why = Health.FAILED, f"no new heartbeat for {silent_s:.0f} s"
        elif self._have_beats_changed:
            health, why = Health.HEALTHY, "the heartbeats change"
        else:
            health, why = Health.UNKNOWN, "not polled for long enough"
        return Reading(signal=Signal.AGENT, health=health, why=why)

    def _ask_airflow(self, environment: Environment) -> list[Reading]:
        try:
            is_healthy = environment.scheduler_is_healthy()
        except MwaaError as error:
            health = Health.FAILED if isinstance(error, MwaaUnreachableError) else Health.UNKNOWN
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
