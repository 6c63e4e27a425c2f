"""Dropping the heartbeats of schedulers that no longer exist."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.lease import longest_lease_s
from airflow_provider_mwaa_dr.core.ports import IDENTITY_CLAIMS, Clock, IdentityClaim, StateStore

log = get_logger(__name__)

_FORGET_AFTER_S = 600.0
"""
The agent drops the heartbeat of a scheduler that its database does not list and that has been silent for so long.

It waits for at least two leases, and for two of those that the heartbeat published. A failover waits only for
schedulers that have a heartbeat in the table, so a scheduler's view must have expired before its heartbeat is dropped.
"""


class SilentHeartbeats:
    """Watches the heartbeats of one region's schedulers, and drops those that have been silent for long."""

    def __init__(self, store: StateStore, clock: Clock, *, region: str) -> None:
        self._store = store
        self._clock = clock
        self._region = region
        self._missing: dict[str, tuple[int, float]] = {}
        """For each scheduler that the database does not list: its last beat, and when the agent first read it."""
        self._claims: dict[IdentityClaim, float] = {}
        """The identity claims, and when the agent first read them."""

    def drop(self, schedulers: tuple[str, ...], lease_s: float) -> None:
        """
        Read all heartbeats and identity claims, and drop the silent ones.

        :param schedulers: the jobs of the schedulers that the database lists.
        """
        now = self._clock.monotonic()
        unlisted = [agent for agent in self._store.agents(self._region) if agent.job not in schedulers]
        missing = {agent.job: agent.beat for agent in unlisted}
        leases = {agent.job: longest_lease_s(lease_s, [agent]) for agent in unlisted}
        known = self._missing
        self._missing = {
            job: known[job] if job in known and known[job][0] == beat else (beat, now) for job, beat in missing.items()
        }
        for job, (_, since) in self._missing.items():
            if now - since >= max(_FORGET_AFTER_S, 2 * leases[job]):
                self._store.forget_agent(self._region, job)
                log.info(
                    "Dropped the heartbeat of scheduler job %s of %s: the database does not list the job, and its "
                    "agent has been silent for %.0f s.", job, self._region, now - since,
                )  # fmt: skip
        self._claims = {
            claim: self._claims.get(claim, now) for claim in self._store.find_all(IDENTITY_CLAIMS, self._region)
        }
        for claim, since in self._claims.items():
            if now - since >= _FORGET_AFTER_S:
                self._store.delete(IDENTITY_CLAIMS, claim)
