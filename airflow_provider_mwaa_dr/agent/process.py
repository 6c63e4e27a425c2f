"""The scheduler's process in which an agent lives."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.identity import Identity
from airflow_provider_mwaa_dr.core.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """
    What does not change while an agent lives.

    :param started_at: when the agent was started.
    :param began: the same, on the process's monotonic clock.
    """

    config: DRConfig
    identity: Identity
    host: str
    airflow_version: str
    started_at: datetime
    began: float

    @classmethod
    def of(cls, config: DRConfig, clock: Clock, *, airflow_version: str) -> Process:
        """Return the present process."""
        return cls(
            config=config,
            identity=Identity.of(config),
            host=socket.gethostname(),
            airflow_version=airflow_version,
            started_at=clock.now(),
            began=clock.monotonic(),
        )
