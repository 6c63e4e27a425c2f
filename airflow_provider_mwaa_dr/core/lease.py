"""
When a region that loses the role can start nothing any more. Pure arithmetic; the engine reads, writes and waits.

Two things let work start in a region: the gate of each scheduler, and the fence of each worker. Each decides on its
own read of the state, so a write closes neither at once. The gate of a scheduler is closed when its agent has
acknowledged the write, and at the latest when every older view has outlived the lease. The fence acknowledges nothing:
it is closed when every older read has outlived the fence file.

All moments are seconds on the clock of the process that waits. A moment of a write is one *after* its response: before
it, a reader may still get the row from before. Other machines' clocks may go slower by up to a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.gate import skip_limit_s
from airflow_provider_mwaa_dr.core.ports import AgentStatus

CLOCK_MARGIN = 1.1
"""A wait for something on another machine's clock is longer by this factor."""
LONGEST_FENCE_FILE_S = 30.0
"""The largest value of [dr] fence_file_s; for an agent that does not publish its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """
    The writes that close a region's gate and fence.

    :param version: of the state since the claim; a heartbeat of this or a later version comes from a closed gate.
    :param gate_since: after the response of the claim; for an engine that takes over, after its take-over.
    :param fence_since: after the response of the last write that ended what a fence lets run (the forced claim, the
        turn to forced, or ``drained``), or after the take-over; None while the fence lets runs in flight go on.
    :param lease_s: from the state.
    :param gate_commit_s: a gate's decision is committed after at most so long.
    """

    version: int
    gate_since: float
    fence_since: float | None
    lease_s: float
    gate_commit_s: float

    def gate_closed_at(self, agents: Sequence[AgentStatus]) -> float:
        """Return the moment from which no gate of the region lets a run start; with *agents*, its heartbeats now."""
        if has_acknowledged(agents, self.version):
            return self.gate_since
        return self.gate_since + self.lease_s * CLOCK_MARGIN + self.gate_commit_s

    def fence_closed_at(self, agents: Sequence[AgentStatus]) -> float:
        """Return the moment from which no fence of the region lets a task start; infinite while it does."""
        if self.fence_since is None:
            return math.inf
        return self.fence_since + fence_file_s(agents) * CLOCK_MARGIN

    def role_may_move_at(self, agents: Sequence[AgentStatus]) -> float:
        """Return the moment from which the role may move; more heartbeats may bring it forward, or defer it."""
        return max(self.gate_closed_at(agents), self.fence_closed_at(agents))


def has_acknowledged(agents: Sequence[AgentStatus], version: int) -> bool:
    """
    Whether every scheduler of a region has passed *version* for good.

    Each heartbeat item counts, whether or not the metadata database lists its scheduler: the database drops a scheduler
    30 s after its last heartbeat, while that scheduler's view lets runs start for a whole lease. An agent that has
    ended (``gone``) has closed its gate before it wrote so. A scheduler that the database lists and that has no item
    yet has acknowledged nothing.
    """
    return live_have_acknowledged(agents, version) and all(_has_passed(agent, version) for agent in agents)


def live_have_acknowledged(agents: Sequence[AgentStatus], version: int) -> bool:
    """
    Whether every scheduler that the region's own database lists as alive has passed *version*.

    The list is taken from those that have: it was read after the version was written. Not enough to promote.
    """
    passed = [agent for agent in agents if _has_passed(agent, version)]
    listed = {job for agent in passed if not agent.gone for job in agent.schedulers}
    return bool(listed) and listed <= {agent.job for agent in passed}


def is_ready_to_resume(
    agents: Sequence[AgentStatus], version: int, *, since: float, now: float, lease_s: float
) -> bool:
    """
    Whether no scheduler of a promoted region closes runs as born in standby any more.

    A scheduler that is gone without having said so is not waited for longer than its view would let it close one.

    :param version: of the state since promote.
    :param since: after the response of the promote, or after this process's first read of it.
    """
    if not live_have_acknowledged(agents, version):
        return False
    return has_acknowledged(agents, version) or now >= since + skip_limit_s(lease_s) * CLOCK_MARGIN


def fence_file_s(agents: Sequence[AgentStatus]) -> float:
    """Return the longest time for which a worker of the region may live on one read of the state."""
    return max(map(_fence_file_s, agents), default=LONGEST_FENCE_FILE_S)


def awaited(agents: Sequence[AgentStatus], version: int) -> Sequence[str]:
    """Return the jobs that have not passed *version*, sorted."""
    listed = {job for agent in agents if not agent.gone and _has_passed(agent, version) for job in agent.schedulers}
    passed = {agent.job for agent in agents if _has_passed(agent, version)}
    return sorted(({agent.job for agent in agents} | listed) - passed)


def _has_passed(agent: AgentStatus, version: int) -> bool:
    return agent.gone is True or agent.version >= version


def _fence_file_s(agent: AgentStatus) -> float:
    """Return what the agent publishes; the longest when that is nothing, or nothing that the option allows."""
    value = agent.fence_file_s
    return float(value) if value is not None and 0 <= value <= LONGEST_FENCE_FILE_S else LONGEST_FENCE_FILE_S
