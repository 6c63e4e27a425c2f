"""The content of one state table in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_mwaa_dr.core.ports import AgentStatus, Registration
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.exceptions import UnreadableItem


@dataclass(slots=True, kw_only=True)
class StateTable:
    """
    The table that all peers of one store share.

    :ivar items: the items that have a kind, by key.
    :ivar attempts: the number of heartbeats that were written.
    :ivar damaged: the defects of items, by key.
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    state: DRState | None = None
    reconciled: dict[str, int] = field(default_factory=dict)
    registrations: dict[str, Registration] = field(default_factory=dict)
    lists: dict[str, frozenset[str]] = field(default_factory=dict)
    disputes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    agents: dict[tuple[str, str], AgentStatus] = field(default_factory=dict)
    attempts: int = 0
    items: dict[str, Any] = field(default_factory=dict)
    damaged: dict[str, UnreadableItem] = field(default_factory=dict)
