"""Regions that share one runs table in memory: for tests of the bookkeeper."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_mwaa_dr.core.bookkeeping import Bookkeeper, RunRow
from airflow_provider_mwaa_dr.core.ledger import ChildRun, LedgerRun, RunKey, TaskState
from airflow_provider_mwaa_dr.core.state import DRState, initial
from airflow_provider_mwaa_dr.core.translation import Era
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, ManualClock

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
HERE, THERE = "us-east-2", "us-east-1"


class Rows:
    """A fake metadata database: a list of rows."""

    def __init__(self) -> None:
        self.rows: dict[RunKey, RunRow] = {}
        self.task_instances: dict[RunKey, list[TaskState]] = {}
        self.tasks_requested_for: list[list[RunKey]] = []
        self.adopted: list[LedgerRun] = []
        self.resumed: list[LedgerRun] = []
        self.applied: list[LedgerRun] = []
        self.waiting: list[str] = []
        self.failing: dict[str, str] = {}
        self.refusing: dict[str, str] = {}
        self.checked: list[str] = []
        self.notes: dict[str, str] = {}
        self.removed: list[RunKey] = []
        self.started: list[str] = []
        self.arriving: list[RunRow] = []
        self.own_end_keys: set[RunKey] = set()
        self.locked: set[RunKey] = set()
        self.kept: dict[RunKey, str] = {}
        self.explained: dict[RunKey, str] = {}
        self.moved = 0

    def put(self, run_id: str, state: str, *, run_type: str = "scheduled", day: int = 0, **values: Any) -> None:
        at = AT + timedelta(days=day)
        row = RunRow(
            id=len(self.rows) + 1,
            dag_id="orders",
            run_id=run_id,
            run_type=run_type,
            state=state,
            logical_date=at,
            data_interval_start=at,
            data_interval_end=at,
            run_after=at,
            queued_at=None,
            conf={},
        )
        self.rows[row.key] = replace(row, **values)

    def start_waiting_events(self, note: str) -> int:
        self.started += [note]
        for row in self.arriving:
            self.rows[row.key] = row
        self.arriving = []
        return len(self.started)

    def newest_run(self) -> int:
        return max((row.id for row in self.rows.values()), default=0)

    def read_states(self, *, above: int) -> tuple[int, Mapping[RunKey, str]]:
        return len(self.rows), {row.key: row.state for row in self.rows.values() if row.is_open or row.id > above}

    def runs(self, keys: Collection[RunKey]) -> Sequence[RunRow]:
        return [self.rows[key] for key in keys if key in self.rows]

    def children(self) -> Mapping[RunKey, tuple[ChildRun, ...]]:
        return {row.key: row.children for row in self.rows.values() if row.is_open and row.children}

    def remove(self, keys: Collection[RunKey]) -> int:
        self.removed += sorted(keys)
        found = [key for key in keys if key in self.rows and not self.rows[key].is_open]
        for key in found:
            del self.rows[key]
        return len(found)

    def tasks(
        self, keys: Collection[RunKey], *, of_each: Collection[RunKey] = ()
    ) -> Mapping[RunKey, Sequence[TaskState]]:
        self.tasks_requested_for.append(sorted(keys))
        return {key: self.task_instances[key] for key in keys if key in self.task_instances}

    def last_finished(self, dag_ids: Collection[str]) -> Sequence[RunRow]:
        return []

    def dag_ids(self) -> Sequence[str]:
        return ["orders"]

    def adopt(self, runs: Sequence[LedgerRun], note: str) -> int:
        self.adopted += runs
        return len(runs)

    def cannot_resume(self, runs: Sequence[LedgerRun]) -> Mapping[RunKey, str]:
        self.checked += [run.run_id for run in runs]
        return {run.key: self.refusing[run.run_id] for run in runs if run.run_id in self.refusing}

    def resume(self, runs: Sequence[LedgerRun], note: str) -> Mapping[RunKey, str]:
        self.notes |= {run.run_id: note for run in runs}
        self.resumed += [run for run in runs if run.run_id not in self.failing]
        return {run.key: self.failing[run.run_id] for run in runs if run.run_id in self.failing}

    def make_room(self, runs: Sequence[LedgerRun]) -> int:
        self.waiting += [run.run_id for run in runs]
        return self.moved

    def apply_outcomes(self, runs: Sequence[LedgerRun], note: str) -> None:
        self.applied += runs
        self.own_end_keys -= {run.key for run in runs}

    def end_queued(self, keys: Collection[RunKey], note: str) -> int:
        found = [key for key in keys if self.rows[key].state == "queued" and key not in self.locked]
        for key in found:
            self.rows[key] = replace(self.rows[key], state="failed", is_skipped=True)
        self.own_end_keys |= set(found)
        return len(found)

    def own_ends(self, *, above: int, up_to: int, limit: int) -> Sequence[RunRow]:
        found = [row for row in self.rows.values() if row.key in self.own_end_keys and above < row.id <= up_to]
        return found[:limit]

    def drop_own_ends(self, row_ids: Collection[int], runs: Sequence[LedgerRun], note: str) -> int:
        dropped = [row.key for row in self.rows.values() if row.id in row_ids]
        for key in dropped:
            del self.rows[key]
        self.own_end_keys -= set(dropped)
        self.adopted += runs
        return len(dropped)

    def keep_own_ends(self, notes: Mapping[int, str]) -> None:
        self.kept |= {row.key: notes[row.id] for row in self.rows.values() if row.id in notes}
        self.own_end_keys -= self.kept.keys()

    def explain(self, notes: Mapping[RunKey, str]) -> None:
        self.explained |= notes


class Region:
    """A region: its rows, and a bookkeeper on the shared runs table. *era*: of its Airflow."""

    def __init__(self, region: str, store: InMemoryRunsStore, era: Era | None = None) -> None:
        self.region, self.store, self.db, self.clock, self.era = region, store, Rows(), ManualClock(), era
        self.bookkeeper = self.successor()

    def successor(self) -> Bookkeeper:
        """Return the bookkeeper of the region's next leading agent. It knows only what is stored in the table."""
        return Bookkeeper(
            self.store, self.db, self.clock, region=self.region, peers=lambda: [HERE, THERE], era=self.era
        )

    def restart(self) -> None:
        """Replace the region's agent: the new bookkeeper remembers nothing."""
        self.bookkeeper = self.successor()

    def publish(self, epoch: int = 0) -> None:
        state: DRState = replace(initial(self.region, lease_s=60, by="t", at=AT), epoch=epoch)
        self.bookkeeper.publish(state, read_state=lambda: state, read_stopped=lambda set_id: ())

    def interrupt(self, state: DRState, *, epoch: int) -> None:
        """Interrupt the runs of *epoch*. No failover has announced that it stops some of them."""
        self.bookkeeper.interrupt(state, epoch=epoch, read_stopped=lambda set_id: ())


def at_epoch(epoch: int) -> DRState:
    return replace(initial(THERE, lease_s=60, by="t", at=AT), epoch=epoch)


def hand_over(here: Region, there: Region) -> None:
    """Interrupt the runs of *here* under epoch 0. Then let *there* begin epoch 1, so that it can resume them."""
    here.interrupt(at_epoch(1), epoch=0)
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)


def take_over(here: Region, there: Region) -> None:
    """Run r1 starts in *here* under epoch 0, and *there* resumes it under epoch 1."""
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.publish()
    hand_over(here, there)
    there.bookkeeper.resume(epoch=1)
