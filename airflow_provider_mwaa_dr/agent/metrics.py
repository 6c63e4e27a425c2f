"""
Publishes the agent's figures through Airflow's metrics: statsd, Datadog or OpenTelemetry, as Airflow is configured.

MWAA configures statsd with its own sidecar, which sends the metrics to CloudWatch. The sidecar applies
``metrics.metrics_allow_list`` and ``metrics_block_list`` (https://github.com/aws/amazon-mwaa-docker-images/pull/73,
https://docs.aws.amazon.com/mwaa/latest/userguide/access-metrics-cw.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import Role
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import Clock

log = get_logger(__name__)

PREFIX = "mwaa_dr."
"""Distinguishes these metrics from the others of Airflow."""

_SLOW_S = 1.0
"""Sending a metric is one datagram. If sending takes longer than this, it delays the agent too much."""
_REST_S = 300.0
"""After an error, or after slow sending, the agent publishes nothing for so long."""


class Stats(Protocol):
    """The methods of Airflow's metrics that this module uses."""

    def gauge(self, stat: str, value: float) -> object: ...
    def incr(self, stat: str, count: int) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    What an agent knows about itself and its region after a turn.

    :param epoch: None while no state is known; the role is then UNKNOWN.
    :param state_age_s: seconds since the last successful read of the state was sent; before the first one, since the
        agent started.
    :param ledger_lag_s: None if this agent does not publish the ledger of an active region.
    :param heartbeats: number of heartbeats written to the state table. This count and those below only grow; a new
        agent may start again at 0.
    :param held: how many times the gate put a run back into the queue.
    :param skipped: number of runs that the gate skipped.
    :param closed: number of runs that the agent closed.
    :param hold_alarms: number of alarms about halted failovers that no caller continues.
    """

    role: Role
    epoch: int | None
    state_age_s: float
    ledger_lag_s: float | None
    heartbeats: int
    held: int
    skipped: int
    closed: int
    hold_alarms: int = 0


class Publisher(Protocol):
    """Where an agent publishes its figures."""

    def publish(self, figures: Figures) -> None: ...


class Publishers:
    """Several publishers; an error of one does not affect the others."""

    def __init__(self, *publishers: Publisher) -> None:
        self._publishers = publishers

    def publish(self, figures: Figures) -> None:
        """Publish to each."""
        for publisher in self._publishers:
            publisher.publish(figures)


class Metrics:
    """
    Publishes figures and never raises, so an error here affects nothing else.

    A value that only grows is published as a counter, by its increase, so that an agent that has stopped sends nothing.
    A collector of metrics may repeat the last gauge of a stopped agent forever.

    :param find_stats: returns Airflow's metrics; called at each publication, because Airflow may configure them after
        the agent has started.
    :param prefix: of each name; empty if the names of the collector are separate from those of Airflow's metrics.
    """

    def __init__(self, find_stats: Callable[[], Stats], clock: Clock, *, prefix: str = PREFIX) -> None:
        self._find_stats = find_stats
        self._clock = clock
        self._prefix = prefix
        self._counted: dict[str, int] = {}
        self._rests_until = 0.0
        self._problem: LogOnChange[str | None] = LogOnChange(None)

    def publish(self, figures: Figures) -> None:
        """Send all figures, unless sending failed or was slow a short time ago."""
        began = self._clock.monotonic()
        if began < self._rests_until:
            return
        problem = None
        try:
            for send in self._sends(self._find_stats(), figures):
                send()
                took_s = self._clock.monotonic() - began
                if took_s > _SLOW_S:
                    problem = f"sending took {took_s:.1f} s"
                    break
        except Exception as error:  # Airflow's metrics may be a custom class
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            self._rests_until = self._clock.monotonic() + _REST_S
        self._log_problem(problem)

    def _sends(self, stats: Stats, figures: Figures) -> Iterator[Callable[[], object]]:
        gauges: dict[str, float | None] = {
            "role": None if figures.role is Role.UNKNOWN else int(figures.role is Role.ACTIVE),
            "epoch": figures.epoch,
            "state_age": round(figures.state_age_s, 1),
            "ledger_lag": None if figures.ledger_lag_s is None else round(figures.ledger_lag_s, 1),
        }
        for name, value in gauges.items():
            if value is not None:
                yield partial(stats.gauge, self._prefix + name, value)
        counts = {
            "agent_heartbeat": figures.heartbeats,
            "held_runs": figures.held,
            "skipped_runs": figures.skipped,
            "closed_runs": figures.closed,
            "hold_alarm": figures.hold_alarms,
        }
        for name, count in counts.items():
            if count != self._counted.get(name, 0):
                yield partial(self._count, stats, name, count)

    def _count(self, stats: Stats, name: str, count: int) -> None:
        before = self._counted.get(name, 0)
        # A smaller count is the count of an agent that has just started.
        grown = count - before if count >= before else count
        if grown:
            stats.incr(self._prefix + name, grown)
        self._counted[name] = count

    def _log_problem(self, problem: str | None) -> None:
        """Log an error when it changes and when it ends."""
        if not self._problem.changes_to(problem):
            return
        if problem is None:
            log.info("Metrics are published again; before: %s", self._problem.before)
        else:
            log.warning(
                "Metrics could not be published (%s); the agent retries in %.0f s. Nothing else depends on them.",
                problem,
                _REST_S,
            )
