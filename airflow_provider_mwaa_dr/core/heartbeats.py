"""Which agents are alive: those whose heartbeat changes between two reads. The agents' clocks are not used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from airflow_provider_mwaa_dr.core.ports import AgentStatus, Clock, SilentAgent

Beats = Mapping[str, Mapping[str, int]]
"""The last beat of each scheduler's agent, by region and job."""


def beats(read: Callable[[str], Sequence[AgentStatus]], regions: Sequence[str]) -> Beats:
    """Return the last beats of *regions*."""
    return {region: {agent.job: agent.beat for agent in read(region)} for region in regions}


def live_agents(
    read: Callable[[str], Sequence[AgentStatus]],
    seen: Beats,
    clock: Clock,
    *,
    silence_s: float,
    poll_s: float,
    on_wait: Callable[[str], object] = lambda _: None,
) -> Mapping[str, Sequence[AgentStatus]]:
    """
    Return the live agents of each region in *seen*; it reads all regions in parallel.

    It returns as soon as, in every region, each scheduler that the region's own database lists has sent a heartbeat,
    and after *silence_s* at the latest. It does not wait for a region that has no heartbeats at all.

    :param read: returns a region's last heartbeats.
    :param seen: an earlier result of :func:`beats`: an agent is alive if its beat has changed since then.
    :param on_wait: called with each region while the function waits for its heartbeats.
    """
    live: dict[str, Sequence[AgentStatus]] = dict.fromkeys(seen, ())
    waiting = list(seen)
    deadline = clock.monotonic() + silence_s
    while True:
        for region in list(waiting):
            agents = [agent for agent in read(region) if not agent.gone]
            live[region] = [agent for agent in agents if seen[region].get(agent.job) != agent.beat]
            listed = {job for agent in live[region] for job in agent.schedulers}
            if not agents or (live[region] and listed <= {agent.job for agent in live[region]}):
                waiting.remove(region)
        if not waiting or clock.monotonic() >= deadline:
            return live
        for region in waiting:
            on_wait(region)
        clock.sleep(poll_s)


class Silence:
    """How long the agents of a region have sent no new heartbeat, on this process's own clock."""

    def __init__(self, read: Callable[[str], Sequence[AgentStatus]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._seen: dict[str, tuple[Mapping[str, int], float]] = {}

    def seconds(self, region: str) -> float:
        """Return seconds since a heartbeat changed; 0 in the first call, and for a region without heartbeats."""
        found = beats(self._read, [region])[region]
        seen = self._seen.get(region)
        if not found or seen is None or seen[0] != found:
            self._seen[region] = seen = found, self._clock.monotonic()
        return self._clock.monotonic() - seen[1]


_MOST_REPORTED = 50
"""The most silent heartbeats that an agent reports; the shortest silences are left out."""


class SilenceByNumber:
    """
    For how long each heartbeat has had the same number, on this process's own clock.

    The silence begins with the response of the first read of a number: the table may have applied the heartbeat at any
    time before it. Reads may be missing in between.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, dict[str, tuple[str, float]]] = {}
        """For each region and job, the number, and when it was first read."""

    def note(self, region: str, agents: Sequence[AgentStatus]) -> None:
        """Note the heartbeats of *region* that have just been read."""
        now = self._clock.monotonic()
        known = self._since.pop(region, {})
        noted = self._since[region] = {}
        for agent in agents:
            number, seen = agent.number, known.get(agent.job)
            if number is not None:
                noted[agent.job] = seen if seen is not None and seen[0] == number else (number, now)

    def silent(self, least_s: float) -> tuple[SilentAgent, ...]:
        """Return the heartbeats that have been silent for *least_s* or longer, the longest silence first."""
        now = self._clock.monotonic()
        found = [
            SilentAgent(region=region, job=job, number=number, still_s=now - since)
            for region, noted in self._since.items()
            for job, (number, since) in noted.items()
            if now - since >= least_s
        ]
        if not found:
            return ()
        return tuple(sorted(found, key=lambda each: -each.still_s)[:_MOST_REPORTED])
