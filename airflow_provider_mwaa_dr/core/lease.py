"""
The moment from which a region that loses the role can start no work. Pure arithmetic; the engine reads and waits.

Work starts in a region through the gate of each scheduler and the fence of each worker. Each decides on its own read of
the state, so a write does not close them immediately. The gate of a scheduler is closed when its agent has acknowledged
the write, and at the latest when every older view has expired with the lease. The fence acknowledges nothing: it is
closed when every older read has expired with the fence file.

A scheduler's gate lets runs start only for a lease after the agent sent a heartbeat that the table confirmed
(:attr:`.gate.View.confirmed_at`). So a heartbeat that has not changed for a lease proves that the gate is closed, also
if the silence began before the write. Agents of all regions observe this silence and publish it in their heartbeats.
The engine reads these reports, and then the heartbeats, after its write: an equal number shows that no other heartbeat
was applied in between. What the engine itself has observed, before its write or during a drain, counts like a report.

All times are seconds on the clock of the process that waits. The time of a write is taken *after* its response: until
then, a reader may still get the previous item. The clocks of other machines may be slower by up to a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_mwaa_dr.core.gate import skip_limit_s
from airflow_provider_mwaa_dr.core.ports import AgentStatus, SilentAgent

CLOCK_MARGIN = 1.1
"""A wait for an interval on another machine's clock is longer by this factor."""
LONGEST_FENCE_FILE_S = 30.0
"""The largest value of [dr] fence_file_s; it applies to an agent that does not publish its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """
    The writes that close a region's gate and fence.

    :param version: the state's version since the claim. An agent whose heartbeat has this or a later version has
        closed its gate.
    :param gate_since: the time after the response of the claim; for an engine that takes over, after its take-over.
    :param fence_since: the time after the response of the last write that closes the fence (the forced claim, the turn
        to forced, or ``drained``), or after the take-over. None while the fence lets running runs finish.
    :param lease_s: see :func:`longest_lease_s`.
    :param gate_commit_s: the longest time from a gate's decision to its commit.
    :param is_quiet: an earlier engine of the plan has waited until the gate was closed, and the plan has stayed open.
    :param silent_until: by job, the time from which the gate of a silent scheduler is closed, see :func:`silent_until`.
        Later reads do not change it.
    :param silent: job and number of each heartbeat that is silent.
    """

    version: int
    gate_since: float
    fence_since: float | None
    lease_s: float
    gate_commit_s: float
    silent_until: Mapping[str, float] = field(default_factory=dict)
    is_quiet: bool = False
    silent: frozenset[tuple[str, str | None]] = frozenset()

    def is_silent(
        self,
        agents: Sequence[AgentStatus],
        *,
        now: float,
        observed: Collection[tuple[str, str | None]] = frozenset(),
    ) -> bool:
        """
        Whether every scheduler of the region has been silent for a lease, so that none of them starts or publishes.

        False if a scheduler sends heartbeats again, and for a region without heartbeats.

        :param observed: job and number of each heartbeat that the caller itself has observed for a lease.
        """
        present = [agent for agent in agents if not agent.gone]
        return bool(present) and all(
            (agent.job, agent.number) in observed
            or ((agent.job, agent.number) in self.silent and now >= self.silent_until[agent.job])
            for agent in present
        )

    def gate_closed_at(self, agents: Sequence[AgentStatus]) -> float:
        """Return the time from which no gate of the region lets a run start; *agents* are its current heartbeats."""
        if self.is_quiet or has_acknowledged(agents, self.version):
            return self.gate_since
        jobs = {agent.job for agent in agents}.union(self.silent_until)
        # If no scheduler that has acknowledged is listed, there may be some without a heartbeat: only silence counts.
        waiting = {
            *awaited(agents, self.version),
            *(self.silent_until.keys() - jobs_passed(agents, self.version)),
        } or jobs
        # A scheduler that has no heartbeat yet may have an agent of an earlier version, which needs none.
        listed = {job for agent in agents if agent.job in waiting and not agent.gone for job in agent.schedulers}
        waiting |= listed - jobs
        expired_at = self.gate_since + lease_wait_s(self.lease_s, self.gate_commit_s)
        # A silence that began after the claim ends no later than the lease of a scheduler that is not silent.
        return max((min(expired_at, self.silent_until.get(job, expired_at)) for job in waiting), default=expired_at)

    def fence_closed_at(self, agents: Sequence[AgentStatus]) -> float:
        """Return the time from which no fence of the region lets a task start; infinite while the fence is open."""
        if self.fence_since is None:
            return math.inf
        return self.fence_since + fence_file_s(agents) * CLOCK_MARGIN

    def role_may_move_at(self, agents: Sequence[AgentStatus]) -> float:
        """Return the time from which the role may move. Later heartbeats may bring it forward or defer it."""
        return max(self.gate_closed_at(agents), self.fence_closed_at(agents))


def lease_wait_s(lease_s: float, gate_commit_s: float) -> float:
    """Return how long to wait until a gate is closed, by the clock of the process that waits."""
    return lease_s * CLOCK_MARGIN + gate_commit_s


def longest_lease_s(lease_s: float, agents: Sequence[AgentStatus]) -> float:
    """
    Return the longest lease that a view of the region may have.

    A user may have changed the lease in the state item. A view with another lease permits nothing before its agent has
    published this lease.

    :param lease_s: from the state.
    """
    return max([lease_s, *(agent.lease_s for agent in agents if agent.lease_s is not None)])


def silent_until(
    agents: Sequence[AgentStatus], reports: Iterable[SilentAgent], *, now: float, wait_s: float
) -> Mapping[str, float]:
    """
    Return, by job, when the gate of each silent scheduler is closed. Schedulers that may be alive are left out.

    The silence ends at *now*, and not at the write that closes the gate: otherwise the time between the write and the
    reads would count twice.

    :param agents: the heartbeats of the region that is left, read after *reports* were read, and after the write that
        closes the gate, or the take-over.
    :param reports: the silence that agents of any region have published, and that the engine has observed.
    :param now: the time after the response of both reads.
    :param wait_s: :func:`lease_wait_s`.
    """
    still_s: dict[tuple[str, str, str], float] = {}
    for each in reports:
        key = each.region, each.job, each.number
        still_s[key] = max(each.still_s, still_s.get(key, 0.0))
    return {
        agent.job: now + max(0.0, wait_s - still_s[key])
        for agent in agents
        if agent.number is not None and (key := (agent.region, agent.job, agent.number)) in still_s
    }


def has_acknowledged(agents: Sequence[AgentStatus], version: int) -> bool:
    """
    Whether every scheduler of a region has permanently passed *version*.

    Each heartbeat item counts, even if the metadata database no longer lists its scheduler. The database drops a
    scheduler 30 s after its last heartbeat, but the scheduler's view lets runs start for a whole lease. An agent that
    has ended (``gone``) closed its gate before it published that. A scheduler that the database lists but that has no
    item yet has acknowledged nothing.
    """
    return live_have_acknowledged(agents, version) and all(_has_passed(agent, version) for agent in agents)


def live_have_acknowledged(agents: Sequence[AgentStatus], version: int) -> bool:
    """
    Whether every scheduler that the region's own database lists as alive has passed *version*.

    The lists come from the heartbeats of agents that have passed *version*, so they were read after the version was
    written. This is not enough to promote.
    """
    passed = [agent for agent in agents if _has_passed(agent, version)]
    listed = {job for agent in passed if not agent.gone for job in agent.schedulers}
    return bool(listed) and listed <= {agent.job for agent in passed}


def is_ready_to_resume(
    agents: Sequence[AgentStatus], version: int, *, since: float, now: float, lease_s: float
) -> bool:
    """
    Whether no scheduler of a promoted region can still close runs as created in a standby.

    The wait for a scheduler that died without a final heartbeat is limited to the time for which its view would let it
    close a run.

    :param version: the state's version since the promotion.
    :param since: the time after the response of the promotion, or after this process's first read of it.
    """
    if not live_have_acknowledged(agents, version):
        return False
    return has_acknowledged(agents, version) or now >= since + skip_limit_s(lease_s) * CLOCK_MARGIN


def fence_file_s(agents: Sequence[AgentStatus]) -> float:
    """Return the longest time for which a worker of the region may use one read of the state."""
    return max(map(_fence_file_s, agents), default=LONGEST_FENCE_FILE_S)


def awaited(agents: Sequence[AgentStatus], version: int) -> Sequence[str]:
    """Return the jobs that have not passed *version*, sorted."""
    listed = {job for agent in agents if not agent.gone and _has_passed(agent, version) for job in agent.schedulers}
    return sorted(({agent.job for agent in agents} | listed) - jobs_passed(agents, version))


def jobs_passed(agents: Sequence[AgentStatus], version: int) -> frozenset[str]:
    """Return the jobs that have passed *version*, or have ended."""
    return frozenset(agent.job for agent in agents if _has_passed(agent, version))


def _has_passed(agent: AgentStatus, version: int) -> bool:
    return agent.gone is True or agent.version >= version


def _fence_file_s(agent: AgentStatus) -> float:
    """Return the value that the agent publishes; the largest if there is none, or if the option does not allow it."""
    value = agent.fence_file_s
    return float(value) if value is not None and 0 <= value <= LONGEST_FENCE_FILE_S else LONGEST_FENCE_FILE_S
