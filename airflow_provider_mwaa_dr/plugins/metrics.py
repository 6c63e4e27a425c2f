"""
The agent's figures as metrics, published through Airflow's own: statsd, Datadog or OpenTelemetry, whatever is set up.

MWAA sets up statsd, to a sidecar of its own that sends on to CloudWatch, and applies ``metrics.metrics_allow_list`` and
``metrics_block_list`` there (https://github.com/aws/amazon-mwaa-docker-images/pull/73,
https://docs.aws.amazon.com/mwaa/latest/userguide/access-metrics-cw.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import Role
from airflow_provider_mwaa_dr.core.ports import Clock

log = get_logger(__name__)

PREFIX = "mwaa_dr."

_SLOW_S = 1.0
"""Sending a metric is one datagram. What takes longer than this keeps the agent from its work."""
_REST_S = 300.0
"""After an error, or a slow one, nothing is published for so long."""


class Stats(Protocol):
    """What of Airflow's metrics is used."""

    def gauge(self, stat: str, value: float) -> object: ...
    def incr(self, stat: str, count: int) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    What an agent knows of itself and its region after a turn.

    :param epoch: None while no state is known; the role is UNKNOWN then.
    :param state_age_s: since the state was last asked for with success; before that, since the agent started.
    :param ledger_lag_s: None from an agent that does not publish the ledger of an active region.
    :param heartbeats: written to the state table. Like the counts below it only grows, until an agent begins anew.
    :param held: how many times a run was put back into the queue.
    :param skipped, closed: runs.
    """

    role: Role
    epoch: int | None
    state_age_s: float
    ledger_lag_s: float | None
    heartbeats: int
    held: int
    skipped: int
    closed: int


class Metrics:
    """
    Publishes figures, and never raises: nothing waits for it, or fails with it.

    What only grows is published as a counter, by how much it has grown, so that one that stands still sends nothing: a
    gauge of a dead agent may be repeated for ever by whoever collects it.

    :param find_stats: returns Airflow's metrics; called with each publication, for Airflow may set them up after the
        agent has started.
    """

    def __init__(self, find_stats: Callable[[], Stats], clock: Clock) -> None:
        self._find_stats = find_stats
        self._clock = clock
        self._counted: dict[str, int] = {}
        self._rests_until = 0.0
        self._complaint: str | None = None

    def publish(self, figures: Figures) -> None:
        """Send them all, unless sending went wrong a short while ago."""
        began = self._clock.monotonic()
        if began < self._rests_until:
            return
        complaint = None
        try:
            for send in self._sends(self._find_stats(), figures):
                send()
                took_s = self._clock.monotonic() - began
                if took_s > _SLOW_S:
                    complaint = f"sending took {took_s:.1f} s"
                    break
        except Exception as error:  # Airflow's metrics may be anybody's class
            complaint = f"{type(error).__name__}: {error}"
        if complaint is not None:
            self._rests_until = self._clock.monotonic() + _REST_S
        self._complain(complaint)

    def _sends(self, stats: Stats, figures: Figures) -> Iterator[Callable[[], object]]:
        gauges: dict[str, float | None] = {
            "role": None if figures.role is Role.UNKNOWN else int(figures.role is Role.ACTIVE),
            "epoch": figures.epoch,
            "state_age": round(figures.state_age_s, 1),
            "ledger_lag": None if figures.ledger_lag_s is None else round(figures.ledger_lag_s, 1),
        }
        for name, value in gauges.items():
            if value is not None:
                yield partial(stats.gauge, PREFIX + name, value)
        counts = {
            "agent_heartbeat": figures.heartbeats,
            "held_runs": figures.held,
            "skipped_runs": figures.skipped,
            "closed_runs": figures.closed,
        }
        for name, count in counts.items():
            if count != self._counted.get(name, 0):
                yield partial(self._count, stats, name, count)

    def _count(self, stats: Stats, name: str, count: int) -> None:
        before = self._counted.get(name, 0)
        # A count that has shrunk is that of an agent that has just begun.
        grown = count - before if count >= before else count
        if grown:
            stats.incr(PREFIX + name, grown)
        self._counted[name] = count

    def _complain(self, complaint: str | None) -> None:
        """Log what is wrong when it changes and when it is over."""
        if complaint == self._complaint:
            return
        was, self._complaint = self._complaint, complaint
        if complaint is None:
            log.info("Metrics are published again; before: %s", was)
        else:
            log.warning(
                "Metrics could not be published (%s); the next attempt is in %.0f s. Nothing else depends on them.",
                complaint,
                _REST_S,
            )
