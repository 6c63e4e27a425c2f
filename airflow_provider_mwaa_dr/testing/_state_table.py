"""The content of one state table in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime

from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.ports import (
    AgentStatus,
    DagSet,
    FailoverRecord,
    HeldTasks,
    IdentityClaim,
    Registration,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.exceptions import (
    UnreadableItem,
)


@dataclass(slots=True, kw_only=True)
class StateTable:
    """The table that all peers of one store share."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    state: DRState | None = None
    reconciled: dict[str, int] = field(default_factory=dict)
    registrations: dict[str, Registration] = field(default_factory=dict)
    lists: dict[str, frozenset[str]] = field(default_factory=dict)
    agents: dict[tuple[str, str], AgentStatus] = field(default_factory=dict)
    identity_claims: dict[tuple[str, str, str, str], IdentityClaim] = field(default_factory=dict)
    disputes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fences: dict[str, datetime] = field(default_factory=dict)
    held_tasks: dict[str, HeldTasks | None] = field(default_factory=dict)
    sets: dict[str, DagSet] = field(default_factory=dict)
    snapshots: dict[str, DagSet] = field(default_factory=dict)
    records: dict[str, FailoverRecord] = field(default_factory=dict)
    inventories: dict[str, Inventory] = field(default_factory=dict)
    damaged: dict[str, UnreadableItem] = field(default_factory=dict)
    unpublished: dict[str, Unpublished] = field(default_factory=dict)
