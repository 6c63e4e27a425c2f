"""
The moment from which a region that loses the role can start no work. Pure arithmetic; the engine reads and waits.

Work starts in a region through the gate of each scheduler and the fence of each worker. Each decides on its own read of
the state, so a write does not close them immediately. The gate of a scheduler is closed when its agent has acknowledged
the write, and at the latest when every older view has expired with the lease. The fence acknowledges nothing: it is
closed when every older read has expired with the fence file.

All times are seconds on the clock of the process that waits. The time of a write is taken *after* its response: until
then, a reader may still get the previous item. The clocks of other machines may be slower by up to a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.gate import skip_limit_s
from airflow_provider_mwaa_dr.core.ports import AgentStatus

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
    :param lease_s: from the state.
    :param gate_commit_s: the longest time from a gate's decision to its commit.
    """

    version: int
    gate_since: float
    fence_since: float | None
    lease_s: float
    gate_commit_s: float

    def gate_closed_at(self, agents: Sequence[AgentStatus]) -> float:
        """Return the time from which no gate of the region lets a run start; *agents* are its current heartbeats."""
        if has_acknowledged(agents, self.version):
            return self.gate_since
        return self.gate_since + self.lease_s * CLOCK_MARGIN + self.gate_commit_s

    def fence_closed_at(self, agents: Sequence[AgentStatus]) -> float:
        """Return the time from which no fence of the region lets a task start; infinite while the fence is open."""
        if self.fence_since is None:
            return math.inf
        return self.fence_since + fence_file_s(agents) * CLOCK_MARGIN

    def role_may_move_at(self, agents: Sequence[AgentStatus]) -> float:
        """Return the time from which the role may move. Later heartbeats may bring it forward or defer it."""
        return max(self.gate_closed_at(agents), self.fence_closed_at(agents))


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
    passed = {agent.job for agent in agents if _has_passed(agent, version)}
    return sorted(({agent.job for agent in agents} | listed) - passed)


def _has_passed(agent: AgentStatus, version: int) -> bool:
    return agent.gone is True or agent.version >= version


def _fence_file_s(agent: AgentStatus) -> float:
    """Return the value that the agent publishes; the largest if there is none, or if the option does not allow it."""
    value = agent.fence_file_s
    return float(value) if value is not None and 0 <= value <= LONGEST_FENCE_FILE_S else LONGEST_FENCE_FILE_S
