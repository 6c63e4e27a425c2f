"""The metadata database as the agent sees it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_provider_mwaa_dr.core.bookkeeping import RunRow
from airflow_provider_mwaa_dr.core.history.database import Imported, RowIds, Sweep
from airflow_provider_mwaa_dr.core.history.pages import HistoryRun
from airflow_provider_mwaa_dr.core.ledger import ChildRun, LedgerRun, RunKey, TaskState
from airflow_provider_mwaa_dr.core.waits import Waits
from airflow_provider_mwaa_dr.core.watching import Watchers
from airflow_provider_mwaa_dr.plugins.metadata import (
    children,
    closing,
    dags,
    history,
    history_export,
    history_import,
    notes,
    resume,
    room,
    runs,
    schedulers,
    starting_events,
    tasks,
    waits,
    watchers,
)
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption


class MetadataDb:
    """
    What the agent reads and changes in Airflow's metadata database; each method is one or more short transactions.

    It leaves locked rows alone and finds them again in its next turn. Methods without a description call a function of
    this package, which describes what it does.

    :param job: the scheduler's own job, which Airflow passes to ``on_starting``.
    :param exempt_dags: ids of DAGs that the agent never changes, like the DAGs with the control tag.
    """

    def __init__(self, job: Any, *, exempt_dags: Collection[str]) -> None:
        self._job = job
        self._exempt = Exemption(exempt_dags)
        self._depends_on_past = tasks.DependsOnPast()

    @property
    def job_id(self) -> str | None:
        """Id of the scheduler's job; None until Airflow has stored it."""
        job_id = self._read("id")
        return str(job_id) if job_id is not None else None

    @property
    def is_scheduler(self) -> bool:
        """Whether the job is a scheduler's; Airflow sets the type after it has called ``on_starting``."""
        return bool(self._read("job_type") == "SchedulerJob")

    def pulse(self) -> object:
        """
        Return a value that changes whenever the scheduler's thread sends its heartbeat, outside any transaction.

        The value is an attribute of the job object, which only that thread writes. If it changes after the agent has
        set a new view, every decision with an older view is committed or rolled back.
        """
        return self._read("latest_heartbeat")

    def _read(self, attribute: str) -> Any:
        """Return an attribute as the scheduler's thread last wrote it. SQLAlchemy might load it in this thread."""
        return self._job.__dict__.get(attribute)

    def alive_schedulers(self) -> tuple[str, ...]:
        return schedulers.alive_schedulers()

    # Runs and tasks.

    def newest_run(self) -> int:
        return runs.newest_run()

    def read_states(self, *, above: int) -> tuple[int, dict[RunKey, str]]:
        return runs.read_states(self._exempt, above=above)

    def runs(self, keys: Collection[RunKey]) -> list[RunRow]:
        return runs.rows(keys)

    def last_finished(self, dag_ids: Collection[str]) -> list[RunRow]:
        return runs.last_finished(dag_ids)

    def tasks(self, keys: Collection[RunKey], *, of_each: Collection[RunKey] = ()) -> dict[RunKey, list[TaskState]]:
        return tasks.tasks(self._depends_on_past, keys, of_each)

    def children(self) -> dict[RunKey, tuple[ChildRun, ...]]:
        return children.of_open_runs(self._exempt)

    def last_task_end(self, since: datetime) -> datetime | None:
        return tasks.last_task_end(since)

    def waits(self) -> Waits:
        return waits.read_waits(self._exempt)

    def put_first(self, keys: Collection[RunKey]) -> None:
        waits.put_first(keys)

    def watchers(self) -> Watchers:
        return watchers.count_watchers(self._exempt)

    # A standby closes runs.

    def open_runs(self, *, up_to: int, spared_since: datetime | None = None) -> int:
        return closing.open_runs(self._exempt, up_to=up_to, spared_since=spared_since)

    def close_runs(self, note: str, *, queued_for_s: float = 0.0, spared_since: datetime | None = None) -> int:
        return closing.close_runs(self._exempt, note, queued_for_s=queued_for_s, spared_since=spared_since)

    def end_queued(self, keys: Collection[RunKey], note: str) -> int:
        return closing.end_queued(self._exempt, keys, note)

    def drop_held_notes(self) -> int:
        return notes.drop_held_notes()

    # Results and runs of other regions.

    def adopt(self, runs: Sequence[LedgerRun], note: str) -> int:
        return history.adopt(runs, note)

    def apply_outcomes(self, runs: Sequence[LedgerRun], note: str) -> None:
        history.apply_outcomes(runs, note)

    def own_ends(self, *, above: int, up_to: int, limit: int) -> list[RunRow]:
        return history.own_ends(self._exempt, above=above, up_to=up_to, limit=limit)

    def drop_own_ends(self, row_ids: Collection[int], runs: Sequence[LedgerRun], note: str) -> int:
        return history.drop_own_ends(row_ids, runs, note)

    def keep_own_ends(self, notes: Mapping[int, str]) -> None:
        history.keep_own_ends(notes)

    def explain(self, notes: Mapping[RunKey, str]) -> None:
        history.explain(notes)

    def remove(self, keys: Collection[RunKey]) -> int:
        return children.remove(keys)

    def cannot_resume(self, runs: Sequence[LedgerRun]) -> dict[RunKey, str]:
        return resume.cannot_resume(self._exempt, runs)

    def resume(self, runs: Sequence[LedgerRun], note: str) -> dict[RunKey, str]:
        return resume.resume(runs, note)

    def start_waiting_events(self, note: str) -> int:
        return starting_events.start_waiting_events(self._exempt, note)

    def make_room(self, runs: Sequence[LedgerRun]) -> int:
        return room.make_room(self._depends_on_past, runs)

    # The history that users see.

    def history_ids(self, *, above: int | None) -> RowIds:
        return history_export.history_ids(self._exempt, above=above)

    def ended_history(self, ids: Collection[int]) -> Sweep:
        return history_export.ended_history(self._exempt, ids)

    def sweep_history(self, *, above: int, up_to: int, since: datetime, limit: int) -> Sweep:
        return history_export.sweep_history(self._exempt, above=above, up_to=up_to, since=since, limit=limit)

    def import_history(
        self, runs: Sequence[HistoryRun], notes: Mapping[RunKey, str], successes: Sequence[LedgerRun]
    ) -> Imported:
        return history_import.import_history(self._exempt, runs, notes, successes)

    # DAGs.

    def dag_ids(self) -> tuple[str, ...]:
        return dags.dag_ids(self._exempt)

    def unpaused_dags(self) -> tuple[str, ...]:
        return dags.unpaused_dags(self._exempt)

    def pause_all(self) -> int:
        return dags.pause_all(self._exempt)

    def set_paused(self, dag_ids: Collection[str], *, paused: bool) -> int:
        return dags.set_paused(self._exempt, dag_ids, paused=paused)
