"""Signs of life: for how long the agents of a region have been silent, and which other regions are alive meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.ports import AgentStatus, Clock

ENDING_S = 120.0
"""
The longest time between the ends of two schedulers that one update or restart ends.

ECS kills a container two minutes after SIGTERM, so one scheduler may end without a last heartbeat.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOfLife:
    """
    What the heartbeats of one region show.

    :param silent_s: seconds without a new heartbeat; None if the region has no readable heartbeat.
    :param has_changed: this process has read a new heartbeat since it began to observe the region.
    :param has_ended: shortly before the silence, a scheduler ended and said so in its last heartbeat.
    :param witnesses: the other regions whose agents are alive, sorted. The table thus accepts heartbeats, and this
        process reads new ones.
    """

    silent_s: float | None
    has_changed: bool
    has_ended: bool
    witnesses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The last heartbeat of an agent, when it was first read, and whether the agent had another one before."""

    mark: tuple[str | None, int, int]
    since: float
    is_new: bool


class SignsOfLife:
    """
    Observes the heartbeats of all regions, on this process's own clock.

    A region's silence is the longest that this process or an agent of any region has observed. An agent's report counts
    only if this process now reads the heartbeat with the number in the report: no two heartbeats have the same number,
    so none came in between, even if that agent could not read the table for a while. Because of these reports, a
    process that has just started knows the silence.

    :param silence_s: seconds without a new heartbeat after which agents count as silent.
    """

    def __init__(self, clock: Clock, *, silence_s: float) -> None:
        self._clock = clock
        self._silence_s = silence_s
        self._counted_from = -math.inf
        self._seen: dict[str, dict[str, _Seen]] = {}
        self._reports: dict[tuple[str, str, str], float] = {}
        self._gone: dict[str, set[str]] = {}

    def forget(self) -> None:
        """Forget all heartbeats. Silence before this moment does not count, also if agents observed it."""
        self._counted_from = self._clock.monotonic()
        self._seen = {}

    def note(self, found: Mapping[str, Sequence[AgentStatus]]) -> None:
        """Note the heartbeats of all regions that have just been read. Unreadable ones show nothing."""
        now = self._clock.monotonic()
        before, self._seen = self._seen, {}
        for region, agents in found.items():
            known = before.get(region)
            self._seen[region] = seen = {}
            for agent in _readable(agents):
                mark = agent.life, agent.attempt, agent.beat
                last = (known or {}).get(agent.job)
                if last is None or last.mark != mark:
                    last = _Seen(mark=mark, since=now, is_new=known is not None)
                seen[agent.job] = last
        self._gone = {region: {agent.job for agent in agents if agent.gone} for region, agents in found.items()}
        self._reports = {}
        for agents in found.values():
            for report in (report for agent in agents for report in agent.silent):
                key = report.region, report.job, report.number
                self._reports[key] = max(report.still_s, self._reports.get(key, 0.0))

    def of(self, region: str) -> SignOfLife:
        """Return what the heartbeats of *region* show, as last read."""
        now = self._clock.monotonic()
        seen = self._seen.get(region, {})
        silent = {job: self._silent_s(region, job, each, now) for job, each in seen.items()}
        least_s = min(silent.values(), default=None)
        gone = self._gone.get(region, set())
        return SignOfLife(
            silent_s=least_s,
            has_changed=any(each.is_new for each in seen.values()),
            has_ended=least_s is not None and any(silent[job] <= least_s + ENDING_S for job in gone & silent.keys()),
            witnesses=tuple(sorted(name for name in self._seen if name != region and self._is_alive(name, now))),
        )

    def _silent_s(self, region: str, job: str, seen: _Seen, now: float) -> float:
        life, attempt, _ = seen.mark
        reported_s = self._reports.get((region, job, f"{life}-{attempt}"), 0.0)
        return min(max(now - seen.since, reported_s), now - self._counted_from)

    def _is_alive(self, region: str, now: float) -> bool:
        gone = self._gone.get(region, set())
        return any(
            each.is_new and now - each.since < self._silence_s
            for job, each in self._seen[region].items()
            if job not in gone
        )


def _readable(agents: Iterable[AgentStatus]) -> Iterable[AgentStatus]:
    return (agent for agent in agents if agent.unreadable is None)
