"""
How long the fence has held a task: when it stops to occupy a worker, and when it ends. Pure.

A task is held in rounds: the fence decides, the task waits in its worker, and is then deferred. After
:data:`WORKER_ROUNDS` rounds it no longer waits in the worker, and is deferred for longer. It ends only in a standby
where it can never execute: see :func:`may_end`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from airflow_provider_mwaa_dr.core.gate import Role, View, role_of
from airflow_provider_mwaa_dr.core.ports import AgentStatus
from airflow_provider_mwaa_dr.core.state import Phase

WORKER_ROUNDS = 10
"""
Rounds in which a held task waits in its worker, about 7 minutes by default.

This is longer than a failover usually takes, so a task that a failover holds continues within seconds. A task that is
held for longer must not occupy its worker: exempt tasks, such as those of ``dr_failover``, need one.
"""
RETRY_S = 10.0
"""Seconds of a deferral during these rounds."""
LATER_RETRY_S = 120.0
"""Seconds of each later deferral: a task starts at most this much later than it could."""
SILENT_ROUNDS = 30
"""
Rounds without a heartbeat, of at least :data:`LATER_RETRY_S` each, after which a task of a standby may end: an hour.

This is more than twice the time in which MWAA updates an environment, which also restarts its scheduler.
"""
_CLOCK_S = 60.0
"""The greatest difference of clocks with which the start of a run is compared with a failover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """
    How long the fence has held a task.

    :param since: when it was held first.
    :param rounds: how often it was held in a row.
    :param silence: identifies the role, the epochs and the last heartbeats that the last round read; empty if it
        read no heartbeats.
    :param silent_rounds: how many rounds in a row have read the same as the round before them.
    """

    since: datetime
    rounds: int = 0
    silence: str = ""
    silent_rounds: int = 0

    @property
    def is_long(self) -> bool:
        """Whether the task no longer waits in its worker."""
        return self.rounds >= WORKER_ROUNDS

    @property
    def retry_s(self) -> float:
        """Seconds until the next round."""
        return LATER_RETRY_S if self.is_long else RETRY_S

    @property
    def silent_s(self) -> float:
        """Seconds for which the region's agents have sent no heartbeat, at least."""
        return self.silent_rounds * LATER_RETRY_S

    def next_round(self) -> Hold:
        """Return the hold in the next round."""
        return replace(self, rounds=self.rounds + 1)

    def having_read(self, silence: str) -> Hold:
        """
        Return the hold after a read of the heartbeats.

        :param silence: of this round, from :func:`silence_of`; empty if the heartbeats could not be read.
        """
        is_same = silence != "" and silence == self.silence
        return replace(self, silence=silence, silent_rounds=self.silent_rounds + 1 if is_same else 0)


def silence_of(view: View, agents: Sequence[AgentStatus], *, region: str) -> str:
    """Return a text that changes with a heartbeat of the region, and with its role, epoch or reconciled epoch."""
    state = view.state
    beats = sorted((agent.job, agent.beat) for agent in agents)
    known = (role_of(view, region).value, None if state is None else state.epoch, view.reconciled_epoch, beats)
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def may_end(hold: Hold, view: View, *, region: str, run_began_at: datetime | None) -> bool:
    """
    Whether a held task can never execute, so that it may end as failed.

    This is so if *region* is a standby, no failover is in progress, and no agent of it has sent a heartbeat for an
    hour.
    The run must also have begun as a run of a standby. A run that began while the region was active may be interrupted:
    it is held, because the region's agent has to publish it before another region may resume it.

    :param view: read in this round.
    :param run_began_at: None: unknown.
    """
    state = view.state
    if state is None or role_of(view, region) is not Role.STANDBY or state.phase is not Phase.STEADY:
        return False
    if view.reconciled_epoch == state.epoch or hold.silent_rounds < SILENT_ROUNDS or run_began_at is None:
        return False
    if state.last_failover_time is None:
        return view.reconciled_epoch is None
    return run_began_at > state.last_failover_time + timedelta(seconds=_CLOCK_S)
