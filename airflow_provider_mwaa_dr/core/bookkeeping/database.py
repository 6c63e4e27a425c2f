"""What the bookkeeper reads and changes in the metadata database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from airflow_provider_mwaa_dr.core.ledger import (
    ChildRun,
    LedgerRun,
    RunDeadline,
    RunEvent,
    RunKey,
    TaskState,
)

OPEN_STATES = frozenset({"queued", "running"})
"""The states of a run that is not over."""
NO_RERUN_TAG = "dr:no-rerun"
"""Interrupted runs of DAGs with this tag are listed, and no other region starts them."""
OPTED_OUT = f"its DAG is tagged {NO_RERUN_TAG}"
"""Why such a run cannot be resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """
    A run in the metadata database.

    :param conf: the value that Airflow stored.
    :param conf_lost: why that value cannot be read, or must not be stored.
    :param is_skipped: the provider closed the run before any of its tasks executed. Regardless of its state, no region
        has done its work.
    :param holds_date, triggered_by, triggering_user, deadlines, events, events_lost, children, started_at,
        ended_at: see :class:`.ledger.LedgerRun`.
    """

    id: int
    dag_id: str
    run_id: str
    run_type: str
    state: str
    logical_date: datetime | None
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    run_after: datetime | None
    queued_at: datetime | None
    conf: Any
    conf_lost: str | None = None
    partition_key: str | None = None
    partition_date: datetime | None = None
    is_skipped: bool = False
    holds_date: bool = False
    triggered_by: str | None = None
    triggering_user: str | None = None
    deadlines: tuple[RunDeadline, ...] = ()
    events: tuple[RunEvent, ...] | None = None
    events_lost: str | None = None
    children: tuple[ChildRun, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def key(self) -> RunKey:
        """DAG id and run id."""
        return self.dag_id, self.run_id

    @property
    def is_open(self) -> bool:
        """Whether it is queued or running."""
        return self.state in OPEN_STATES


class LedgerDb(Protocol):
    """What the bookkeeper needs from the metadata database; see :class:`plugins.metadata.database.MetadataDb`."""

    def newest_run(self) -> int:
        """Return the highest id of a run; 0 if there is none."""

    def read_states(self, *, above: int) -> tuple[int, Mapping[RunKey, str]]:
        """Return the highest run id, and the states of all open runs and of all runs with an id above *above*."""

    def runs(self, keys: Collection[RunKey]) -> Sequence[RunRow]:
        """Return the rows of these runs, without those that do not exist."""

    def children(self) -> Mapping[RunKey, tuple[ChildRun, ...]]:
        """Return the runs that tasks of open runs have requested, by the key of the open run."""

    def tasks(
        self, keys: Collection[RunKey], *, of_each: Collection[RunKey] = ()
    ) -> Mapping[RunKey, Sequence[TaskState]]:
        """Return the task instances of the runs whose DAG has tasks that depend on the previous run, and *of_each*."""

    def last_finished(self, dag_ids: Collection[str]) -> Sequence[RunRow]:
        """
        Return, for each DAG, the newest ended interval that the provider did not skip, newer runs that hold a date, and
        the last successes.
        """

    def dag_ids(self) -> Sequence[str]:
        """Return the ids of all DAGs that are not exempt."""

    def adopt(self, runs: Sequence[LedgerRun], note: str) -> int:
        """
        Write runs that ended in other regions into the history, with *note* on each; return how many were new.

        It does not insert a run that exists, or that is older than the DAG's newest interval; but it inserts a success
        that is newer than the DAG's newest success. If a run exists and has ended, and the provider ended it or *runs*
        has its tasks, the run and its tasks get the published result. A new row has no ``queued_at``: the region has
        not queued it, and :meth:`resume` still may.
        """

    def cannot_resume(self, runs: Sequence[LedgerRun]) -> Mapping[RunKey, str]:
        """Return the runs that must not or cannot be queued in this region, with the reason."""

    def resume(self, runs: Sequence[LedgerRun], note: str) -> Mapping[RunKey, str]:
        """
        Queue runs with the same run ids and values as before; all their tasks run again. Idempotent.

        An open run does not change. ``queued_at`` becomes ``taken_at`` or a later time.

        :return: the runs that could not be queued, with the reason.
        """

    def start_waiting_events(self, note: str) -> int:
        """
        Create queued runs for events that have arrived, and for which Airflow creates no run before the role moves.

        Idempotent. The region's DAGs are paused.

        :return: how many runs were created.
        """

    def make_room(self, runs: Sequence[LedgerRun]) -> int:
        """
        Let queued runs start that later runs of the same DAG wait for, if the later runs take all of its run slots.

        :return: how many later runs went back to the queue.
        """

    def apply_outcomes(self, runs: Sequence[LedgerRun], note: str) -> None:
        """Give closed runs, and their tasks if these were published, the result that another region published."""

    def remove(self, keys: Collection[RunKey]) -> int:
        """Delete ended runs with their tasks; return how many. A run that is open stays. Idempotent."""

    def end_queued(self, keys: Collection[RunKey], note: str) -> int:
        """
        End those of these runs that are queued, with *note* on each; return how many. They are own ends then.

        A run that the scheduler has locked stays queued. Idempotent.
        """

    def own_ends(self, *, above: int, up_to: int, limit: int) -> Sequence[RunRow]:
        """
        Return the first runs, by id, that the provider ended in a standby, with an id above *above* and up to *up_to*.

        A run that a user marked as a success, and one that began again, are not among them.
        """

    def drop_own_ends(self, row_ids: Collection[int], runs: Sequence[LedgerRun], note: str) -> int:
        """
        Delete runs that the provider ended and that executed nothing; return how many. Idempotent.

        In the same transaction adopt those of *runs* that belong to their DAGs, as :meth:`adopt`: a deleted run may
        have held the date of one of them, and the scheduler must not create that date again.
        """

    def keep_own_ends(self, notes: Mapping[int, str]) -> None:
        """Make the ends of these rows results: the rows stay failed, with these notes. Idempotent."""

    def explain(self, notes: Mapping[RunKey, str]) -> None:
        """Write notes on those runs that the provider ended."""


def open_runs(db: LedgerDb) -> tuple[int, list[RunKey]]:
    """Return the highest run id, and all runs that are queued or running."""
    newest = db.newest_run()
    _, states = db.read_states(above=newest)
    return newest, [key for key, state in states.items() if state in OPEN_STATES]
