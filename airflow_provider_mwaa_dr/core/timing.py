"""The timeouts and intervals of a failover, derived from the settings of a DR set."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.config import DRConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """
    The engine's timeouts and intervals, in seconds.

    :param drain_s: how long running runs may take to finish.
    :param answer_s: an AUTO failover turns forced when the source has not answered for this long. If the source's
        schedulers do not send heartbeats either, one attempt without an answer is enough.
    :param heartbeat_s: time between two heartbeats of an agent; see :attr:`agent_silence_s`.
    :param gate_commit_s: one scheduler loop. After it, the database shows all runs that a gate let start before it knew
        of the claim.
    :param beat_s: time between two beats of this engine in the plan.
    :param takeover_s: a caller may take over a plan whose beat has not changed for this long, on the caller's clock.
    :param stop_s: the longest time until the executing tasks of a stopped run have ended.
    :param final_s: how long to wait for the source's final ledger entry; then the failover continues without it.
    :param adopt_s: the longest time until the target's agents have prepared their database.
    :param verify_s: the longest time until the first run in the target succeeds.
    :param list_s: the longest time until the source's agent has listed its DAGs; then the engine lists them itself.
    :param state_s: how long the engine retries when the state table does not answer.
    :param poll_s: time between two polls of an environment's REST API; MWAA accepts ten calls a second.
    :param table_poll_s: time between two polls of the state table alone.
    :param lease_s: the lease from the promotion on, if the lease in the state item cannot be used.
    """

    drain_s: float = 60.0
    answer_s: float = 20.0
    heartbeat_s: float = 5.0
    gate_commit_s: float = 2.0
    beat_s: float = 10.0
    takeover_s: float = 30.0
    stop_s: float = 120.0
    final_s: float = 20.0
    adopt_s: float = 120.0
    verify_s: float = 90.0
    list_s: float = 5.0
    state_s: float = 30.0
    poll_s: float = 1.0
    table_poll_s: float = 1.0
    lease_s: float = 60.0

    @classmethod
    def from_config(cls, config: DRConfig) -> Timing:
        """Return the timing for a DR set's settings."""
        # A call to MWAA may take 10 s, and the owner of a plan writes no beat during the call.
        takeover_s = max(10.0, 6 * config.heartbeat_s)
        return cls(
            drain_s=config.drain_s,
            heartbeat_s=config.heartbeat_s,
            beat_s=takeover_s / 3,
            takeover_s=takeover_s,
            poll_s=min(1.0, config.refresh_s / 4),
            table_poll_s=min(0.2, config.state_read_s),
            lease_s=config.lease_s,
        )

    @property
    def agent_silence_s(self) -> float:
        """Seconds without a new heartbeat after which an agent counts as gone."""
        return 3 * self.heartbeat_s + 2
