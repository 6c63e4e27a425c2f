"""Sending an agent's heartbeats, and remembering what the last one contained."""

from __future__ import annotations

from airflow_provider_mwaa_dr.agent.acknowledgements import Acknowledgements
from airflow_provider_mwaa_dr.agent.confirmation import Confirmation
from airflow_provider_mwaa_dr.agent.ports import RegionDb
from airflow_provider_mwaa_dr.agent.report import Reporter
from airflow_provider_mwaa_dr.agent.state_reader import StateReader
from airflow_provider_mwaa_dr.core.ports import IDENTITY_CLAIMS, Clock, IdentityClaim, StateStore
from airflow_provider_mwaa_dr.core.state import DRState


class Heartbeat:
    """
    Sends the heartbeats of one agent.

    An Airflow that may not be its region's environment writes an identity claim in place of a heartbeat.

    :ivar turned_at: when the present turn started; the time of the next heartbeat is counted from then.
    :ivar written: the number of heartbeats and identity claims written.
    :ivar awaits_turn_at: when a turn has to start, so that the heartbeats keep their interval; 0 before the first.

    :param every_s: seconds between two heartbeats. At most a quarter of the lease is used.
    """

    def __init__(
        self,
        store: StateStore,
        db: RegionDb,
        *,
        reader: StateReader,
        acknowledgements: Acknowledgements,
        reporter: Reporter,
        confirmation: Confirmation,
        clock: Clock,
        every_s: float,
    ) -> None:
        self._store = store
        self._db = db
        self._reader = reader
        self._acknowledgements = acknowledgements
        self._reporter = reporter
        self._confirmation = confirmation
        self._clock = clock
        self._every_s = every_s
        self._next_at = 0.0
        self._beat = 0
        self._acknowledged = (0, 0)
        """What the last heartbeat acknowledged."""
        self._awaited: tuple[object, ...] = ()
        """The awaited values in the last heartbeat."""
        self._claim: IdentityClaim | None = None
        self.turned_at = 0.0
        self.awaits_turn_at = 0.0
        self.written = 0

    @property
    def has_claimed(self) -> bool:
        """Whether the last item that this agent wrote is an identity claim."""
        return self._claim is not None

    @property
    def has_new_acknowledgement(self) -> bool:
        """Whether the scheduler's thread uses a view that no heartbeat has acknowledged."""
        return self._acknowledgements.newest != self._acknowledged

    @property
    def has_new_values(self) -> bool:
        """Whether a value has changed for which engines and other agents wait."""
        return self._reporter.awaited() != self._awaited

    def is_due(self, now: float) -> bool:
        """Whether it is time for a heartbeat."""
        return now >= self._next_at

    def send(self, state: DRState | None, schedulers: tuple[str, ...], *, is_last: bool = False) -> None:
        """
        Write a heartbeat, or an identity claim; nothing while the scheduler has no job.

        :param state: the state of this turn; None if it could not be read.
        :param schedulers: the jobs of the schedulers that the database lists.
        :param is_last: whether the scheduler will start no further run.
        :raises StateError: it could not be written.
        """
        job_id = self._db.job_id
        if job_id is None:
            return
        self._beat += 1
        problem = self._reader.problem
        if problem is not None:
            claim = self._reporter.identity_claim(job_id, beat=self._beat, problem=problem)
            self._store.put(IDENTITY_CLAIMS, claim)
            self._claim = claim
        else:
            status = self._reporter.status(job_id, state, schedulers, beat=self._beat, is_last=is_last)
            sent_at = self._clock.monotonic()
            self._store.put_agent(status)
            self._confirmation.confirm(status, sent_at)
            if self._claim is not None:
                self._store.delete(IDENTITY_CLAIMS, self._claim)
                self._claim = None
            self._awaited = self._reporter.awaited()
        self._acknowledged = self._acknowledgements.newest
        self.written += 1
        lease_s = self._reader.lease_s
        # The gate starts runs only for a lease after a confirmed heartbeat, and one of them may be lost.
        every_s = self._every_s if lease_s is None else min(self._every_s, lease_s / 4)
        self.awaits_turn_at = self.turned_at + every_s
        # If refresh_s equals heartbeat_s, each turn sends one; 0.95, because the next turn may come here a bit sooner.
        self._next_at = self.turned_at + 0.95 * every_s
