"""The wait until the source's watchers of assets have stopped, and their events are in its metadata database."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from airflow_provider_mwaa_dr.core.display import counted
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan
from airflow_provider_mwaa_dr.core.lease import CLOCK_MARGIN, Closing
from airflow_provider_mwaa_dr.core.ports import TRIGGERERS, AgentStatus
from airflow_provider_mwaa_dr.core.state import Plan


class WatcherWait:
    """
    Which triggerers of the source may still run watchers.

    A triggerer publishes that its watchers have stopped. It also stops them when its view is older than the lease, so
    the wait has that limit. A triggerer that does not load the provider never stops them, and the failover continues.

    :param closing: the claim, or the first write that this engine knows since then.
    """

    def __init__(self, own: OwnedPlan, plan: Plan, closing: Closing) -> None:
        self._own = own
        self._plan = plan
        self._version = closing.version
        self._is_quiet = closing.is_quiet
        self._until = closing.gate_since + closing.lease_s * CLOCK_MARGIN + closing.gate_commit_s
        self._left: tuple[str, ...] = ()

    def is_over(self, agents: Sequence[AgentStatus]) -> bool:
        """
        Return whether the drain need not wait for the watchers any more.

        :param agents: the heartbeats of the source. Those from before the claim do not count.
        """
        if self._is_quiet:
            return True  # the drain has ended before
        current = [agent for agent in agents if not agent.gone and agent.version >= self._version]
        listed = sorted({job for agent in current if agent.watchers for job in agent.triggerers})
        if not listed:
            self._left = ()
            return True
        own, source = self._own, self._plan.source
        items = own.table.retry(partial(own.table.store.find_all, TRIGGERERS, source))
        stopped = {item.job for item in items if item.version >= self._version}
        self._left = tuple(job for job in listed if job not in stopped)
        return not self._left or own.clock.monotonic() >= self._until

    @property
    def waits_for(self) -> str:
        """What the drain waits for, as a text for display; empty if it waits for no triggerer."""
        if not self._left:
            return ""
        return f"waiting for triggerers of {self._plan.source} to stop asset watchers: job {', '.join(self._left)}"

    @property
    def outcome(self) -> str:
        """What the last call of :meth:`is_over` found, for the end of the step; empty if all watchers have stopped."""
        if not self._left:
            return ""
        return (
            f"; {counted(len(self._left), 'triggerer')} of {self._plan.source} may still run asset watchers "
            f"(job {', '.join(self._left)}), whose messages are lost"
        )
