"""From when an agent's reads permit its scheduler to start runs."""

from __future__ import annotations

import uuid

from airflow_provider_mwaa_dr.core.config import DRConfig, OnUnreachable
from airflow_provider_mwaa_dr.core.ports import AgentStatus, Observation


class Confirmation:
    """
    The last heartbeat of an agent that the table has confirmed.

    A failover counts the silence of an agent's heartbeats. So a view permits the gate to start runs only for a lease
    after the agent *sent* a heartbeat that was confirmed before the view's read was sent. Permission depends on reads
    alone where silence proves nothing: with eventual consistency, and with ``[dr] on_unreachable = run``.

    :ivar life: the random id of this agent in its heartbeats; None if permission depends on reads alone.
    :ivar sent_at: seconds on the local clock, just before the agent sent its last confirmed heartbeat; None before the
        first.
    """

    def __init__(self, config: DRConfig) -> None:
        is_bound = config.eventual_mode is None and config.on_unreachable is not OnUnreachable.RUN
        self.life = uuid.uuid4().hex[:12] if is_bound else None
        self.sent_at: float | None = None
        self._job: str | None = None
        self._lease_s: float | None = None

    def confirm(self, status: AgentStatus, sent_at: float) -> None:
        """Note that the heartbeat *status*, sent at *sent_at*, and its entry in the region's list are stored."""
        self._job, self._lease_s, self.sent_at = status.job, status.lease_s, sent_at

    def permits_from(self, observation: Observation, *, read_at: float) -> float | None:
        """
        Return :attr:`.gate.View.confirmed_at` for a read. Call it before any further heartbeat is sent.

        An engine finds only heartbeats that the region's list names, and waits for the longest lease that these
        publish. So a heartbeat counts for a read that shows its entry, and a lease that is not longer than its own.
        """
        if self.life is None:
            return read_at
        state, lease_s = observation.state, self._lease_s
        if state is None or lease_s is None or self._job not in observation.agents:
            return None
        return self.sent_at if state.lease_s <= lease_s else None
