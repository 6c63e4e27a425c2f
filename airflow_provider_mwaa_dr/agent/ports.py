"""What an agent gets from the process around it: the metadata database, and the gate's counts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from airflow_provider_mwaa_dr.core.bookkeeping import LedgerDb


class RegionDb(LedgerDb, Protocol):
    """What the agent needs from the metadata database; see :class:`plugins.metadata.database.MetadataDb`."""

    @property
    def job_id(self) -> str | None: ...
    def pulse(self) -> object: ...
    def alive_schedulers(self) -> tuple[str, ...]: ...
    def open_runs(self, *, up_to: int, spared_since: datetime | None = None) -> int: ...
    def close_runs(self, note: str, *, queued_for_s: float = 0.0, spared_since: datetime | None = None) -> int: ...
    def pause_all(self) -> int: ...
    def unpaused_dags(self) -> tuple[str, ...]: ...
    def set_paused(self, dag_ids: Collection[str], *, paused: bool) -> int: ...
    def drop_held_notes(self) -> int: ...
    def last_task_end(self, since: datetime) -> datetime | None: ...


@dataclass(slots=True)
class GateCounts:
    """How many runs the gate has held and skipped since the start; only the scheduler's thread writes it."""

    held: int = 0
    skipped: int = 0
