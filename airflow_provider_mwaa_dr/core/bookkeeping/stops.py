"""Runs that a failover announces, and then stops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.bookkeeping.database import RunRow
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RegionLedger, RunKey, RunStatus, TaskState
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Stop, stops_of


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncedRuns:
    """
    What failovers announced and the ledger does not take into account yet.

    :param set_id: the last announcement; None if there is no new one.
    :param stopped: runs that a failover stops.
    :param had_ended: runs that had ended by themselves.
    :param failed_late: failed runs that the open plan announced: the call that stops a run may be late.
    :param late_rows: rows that were read after the state, so they do not show how the announced runs ended. These rows
        have not changed since they were published, or changed after the turn read their states.
    """

    set_id: str | None
    stopped: Set[RunKey]
    had_ended: Set[RunKey]
    failed_late: Set[RunKey]
    late_rows: Mapping[RunKey, RunRow]

    def is_stopped(self, row: RunRow) -> bool:
        """Whether the run counts as interrupted, and not as ended by itself."""
        is_stopped = row.key in self.stopped and (row.key in self.late_rows or row.state != "success")
        return is_stopped or row.key in self.failed_late


def is_stopped(run: LedgerRun, epoch: int) -> bool:
    """Whether a failover stops the run in the present epoch; nothing else interrupts a run before the role moves."""
    return run.status is RunStatus.INTERRUPTED and run.epoch == epoch


def tasks_show_a_stop(tasks: Iterable[TaskState]) -> bool:
    """Whether all tasks of a run have ended, and at least one has failed, as after a stop of a run that executed."""
    states = {state for _, _, state in tasks}
    return "failed" in states and states <= {"success", "failed", "skipped", "upstream_failed", "removed"}


def new_stops(own: RegionLedger, state: DRState, epoch: int) -> Sequence[Stop]:
    """Return the announcements under *epoch* that the ledger does not take into account yet, in order."""
    stops = stops_of(state, epoch)
    known = next((number for number, stop in enumerate(stops, start=1) if stop.set_id == own.stops), 0)
    return stops[known:]


def read_stops(
    stops: Iterable[Stop], read_stopped: Callable[[str], Collection[str]]
) -> tuple[set[RunKey], set[RunKey]]:
    """Return the stopped runs, and those that had ended by themselves; for each run the last announcement counts."""
    stopped: set[RunKey] = set()
    had_ended: set[RunKey] = set()
    for stop in stops:
        # A DAG id contains no space.
        keys = {(dag_id, run_id) for dag_id, _, run_id in (run.partition(" ") for run in read_stopped(stop.set_id))}
        stopped, had_ended = stopped - keys, had_ended - keys
        if stop.had_ended:
            had_ended |= keys
        else:
            stopped |= keys
    return stopped, had_ended


def stopped_by_plan(state: DRState, read_stopped: Callable[[str], Collection[str]]) -> set[RunKey]:
    """Return the runs that the open plan announced as stopped, if it is draining its source."""
    if state.plan is None or state.phase is not Phase.DRAINING:
        return set()
    stops = [stop for stop in stops_of(state, state.epoch) if stop.set_id.startswith(f"{state.plan.id}-")]
    return read_stops(stops, read_stopped)[0]
