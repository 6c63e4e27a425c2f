"""Publishing the changes in the active region's metadata database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from airflow_provider_mwaa_dr.core.bookkeeping.conversion import is_open, status_of, to_run
from airflow_provider_mwaa_dr.core.bookkeeping.database import LedgerDb, RunRow
from airflow_provider_mwaa_dr.core.bookkeeping.outcomes import RowOutcomes
from airflow_provider_mwaa_dr.core.bookkeeping.own_ledger import OwnLedger
from airflow_provider_mwaa_dr.core.bookkeeping.peer_ledgers import PeerLedgers
from airflow_provider_mwaa_dr.core.bookkeeping.stops import (
    AnnouncedRuns,
    is_stopped,
    new_stops,
    read_stops,
    stopped_by_plan,
    tasks_show_a_stop,
)
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import (
    LedgerRun,
    RegionLedger,
    RunKey,
    RunStatus,
    TaskState,
    is_complete,
    is_known_elsewhere,
)
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.timer import Timer

log = get_logger(__name__)

TASKS_BYTES = 200_000
"""The greatest total size of a run's task instances; more than a thousand of them fit."""
_OVERLAP = 500
"""Number of ids that each turn reads again: a lower id may be committed later than a higher one."""
_DAGS_EVERY_S = 30.0
"""Time between two searches for DAGs that the ledger does not have; a published run also adds its DAG."""
_MOST_RETAINED = 20_000
"""The most ended runs that the ledger retains for an unreachable region; that region may repeat the others."""


class Publisher:
    """
    Publishes the changes in one region's database, while the region is active.

    It reads the rows first and the state second. It publishes the outcome of an ended run only if, according to this
    state, the region still is active under the same epoch.

    A failover announces in the state which runs it stops, before it stops the first one. So an agent that reads that
    such a run has failed also reads the announcement. From then on, each announced run counts as interrupted. It has
    ended by itself only in three cases: its row is a success and none of its tasks has failed, the failover announces
    that the run had ended, or the run was queued again later. This does not depend on the plan, which may already be
    cancelled.

    The call that stops a run may be late: the run may have ended, and a user may have cleared it. So a run that the
    open plan has announced counts as interrupted if it fails while the plan drains the region.

    :ivar published_at: when the last call that published all changes began, on this process's clock.
    :ivar rows_read_at: when the agent read the rows that it last published, by this region's clock.
    :ivar queued: the runs that were queued then.
    """

    def __init__(
        self,
        own: OwnLedger,
        peers: PeerLedgers,
        outcomes: RowOutcomes,
        db: LedgerDb,
        clock: Clock,
        *,
        region: str,
    ) -> None:
        self._own = own
        self._peers = peers
        self._outcomes = outcomes
        self._db = db
        self._clock = clock
        self._region = region
        self._dags = Timer(clock, _DAGS_EVERY_S)
        self.published_at: float | None = None
        self.rows_read_at: datetime | None = None
        self.queued: set[RunKey] = set()

    def publish(
        self,
        state: DRState,
        *,
        read_state: Callable[[], DRState | None],
        read_stopped: Callable[[str], Collection[str]],
    ) -> bool:
        """Publish the changes in the database since the last call; see :meth:`.Bookkeeper.publish`."""
        started, rows_read_at = self._clock.monotonic(), self._clock.now()
        own = self._own.load()
        epoch = state.epoch
        if own.epoch != epoch:
            return False
        plan = state.plan
        final_plan_id = plan.id if plan is not None and plan.drained and state.phase is Phase.DRAINING else None
        if final_plan_id is not None and own.final_plan_id != final_plan_id:
            # Only runs move with the role, and the DAGs are paused: Airflow creates none for the last events.
            self._db.start_waiting_events(
                f"created: events had arrived when {self._region} was drained (epoch {epoch})"
            )
        newest, states = self._db.read_states(above=max(own.first_id, own.newest_id - _OVERLAP))
        self.queued = {key for key, status in states.items() if status == "queued"}
        keys = {key for key, status in states.items() if self._own.published.get(key) != status_of(status)}
        keys |= {
            key
            for key, run in own.runs.items()
            if (run.is_unfinished and key not in states) or run.doubt is not None or run.is_without_events
        }
        keys |= self._parents(own) if states else set()
        rows = {row.key: row for row in self._db.runs(keys)} if keys else {}
        dag_ids, histories = self._new_dags(own, force=final_plan_id is not None)
        ended = [row.key for row in (*rows.values(), *histories) if not row.is_open]
        tasks = self._tasks(own, ended) if ended else {}
        if own.final_plan_id == final_plan_id:
            final_plan_id = None
        has_new_ids = newest - own.newest_id >= _OVERLAP // 2
        if keys or dag_ids or final_plan_id or has_new_ids or new_stops(own, state, epoch):
            now = read_state()
            if now is None or now.active_region != self._region or now.epoch != epoch:
                return False
            announced = self._announced(own, now, keys, rows, read_stopped)
            late = announced.late_rows.keys()
            rows |= announced.late_rows
            rows |= self._overwritten(own, rows, announced, epoch=epoch)
            ended_late = [key for key in announced.had_ended & late if not rows[key].is_open]
            tasks |= self._tasks(own, ended_late) if ended_late else {}
            changed = self._changes(own, keys | late, rows, announced, epoch=epoch)
            changed += [to_run(row, RunStatus(row.state), epoch=epoch) for row in histories if row.key not in rows]
            changed = [replace(run, tasks=tasks.get(run.key, ())) if run.has_ended else run for run in changed]
            changed = self._retained(own, changed, epoch=epoch)
            if changed or dag_ids or final_plan_id or has_new_ids or announced.set_id is not None:
                self._own.append(
                    epoch,
                    changed,
                    first_id=own.first_id,
                    newest_id=newest,
                    dag_ids=dag_ids,
                    final_plan_id=final_plan_id,
                    stops=announced.set_id,
                )
            self._remember(rows, states, own, but=late & announced.stopped)
        self.published_at, self.rows_read_at = started, rows_read_at
        return True

    def _parents(self, own: RegionLedger) -> set[RunKey]:
        """Return the open runs whose tasks have requested other runs since the last entry."""
        children = self._db.children()
        return {
            key
            for key, run in own.runs.items()
            if run.status is RunStatus.OPEN and run.children != children.get(key, ())
        }

    def _announced(
        self,
        own: RegionLedger,
        state: DRState,
        keys: Collection[RunKey],
        rows: Mapping[RunKey, RunRow],
        read_stopped: Callable[[str], Collection[str]],
    ) -> AnnouncedRuns:
        """
        Return what failovers announced in *state* and the ledger does not take into account yet.

        :param keys: the runs that may have changed.
        :param rows: the rows of these runs, from before *state* was read.
        """
        stops = new_stops(own, state, state.epoch)
        stopped, had_ended = read_stops(stops, read_stopped)
        failed = {row.key for row in rows.values() if row.state == "failed" and is_open(own.runs.get(row.key))}
        late = (stopped | had_ended) - set(keys)
        return AnnouncedRuns(
            set_id=stops[-1].set_id if stops else None,
            stopped=stopped,
            had_ended=had_ended,
            failed_late=failed & stopped_by_plan(state, read_stopped) - had_ended if failed else set(),
            late_rows={row.key: row for row in self._db.runs(late)} if late else {},
        )

    def _overwritten(
        self, own: RegionLedger, rows: Mapping[RunKey, RunRow], announced: AnnouncedRuns, *, epoch: int
    ) -> dict[RunKey, RunRow]:
        """
        Return, as failed, the rows of stopped runs that Airflow 2 has overwritten.

        A failover, as a user, stops a run by marking it as failed: its running tasks fail, and its other open tasks are
        skipped. If a task executed, Airflow 2 writes the run's earlier state back when the task ends: ``save_to_db``
        of a task instance merges its run, too. So the run is running again, and all its tasks have ended. The scheduler
        then marks the run as a success if its last task was skipped.
        """
        keys = {
            key
            for key, row in rows.items()
            if row.state in {"running", "success"}
            and (key in announced.stopped or ((run := own.runs.get(key)) is not None and is_stopped(run, epoch)))
            and key not in announced.had_ended
        }
        tasks = self._db.tasks(keys, of_each=keys) if keys else {}
        return {key: replace(rows[key], state="failed") for key, found in tasks.items() if tasks_show_a_stop(found)}

    def _changes(
        self,
        own: RegionLedger,
        keys: Collection[RunKey],
        rows: Mapping[RunKey, RunRow],
        announced: AnnouncedRuns,
        *,
        epoch: int,
    ) -> list[LedgerRun]:
        """Return the runs to publish among *keys*, sorted, without their tasks."""
        changed = []
        for key in sorted(keys):
            row = rows.get(key)
            if row is not None and announced.is_stopped(row):
                is_late = key in announced.late_rows
                run = self._outcomes.stopped_run_to_publish(own, row, epoch=epoch, is_late=is_late)
            else:
                had_ended = key in announced.had_ended
                run = self._outcomes.run_to_publish(own, key, row, epoch=epoch, had_ended=had_ended)
            if run is not None:
                changed.append(run)
        return changed

    def _remember(
        self, rows: Mapping[RunKey, RunRow], states: Mapping[RunKey, str], own: RegionLedger, *, but: Collection[RunKey]
    ) -> None:
        """Store the states in *rows* as published, except those of the runs in *but*."""
        self._own.published.update({key: status_of(row.state) for key, row in rows.items() if key not in but})
        # An ended run with an id below the overlap is never compared again.
        if len(self._own.published) > 2 * (len(states) + len(own.runs)):
            self._own.published = {
                key: status for key, status in self._own.published.items() if key in states or key in own.runs
            }

    def _tasks(self, own: RegionLedger, ended: Sequence[RunKey]) -> dict[RunKey, tuple[TaskState, ...]]:
        """
        Return the task instances of ended runs that the DAG's next run depends on, and of runs that continued here.

        Another region has ended the latter: there, their tasks are skipped.
        """
        others = [ledger.runs for ledger in self._peers.ledgers.values()]
        continued = [key for key in ended if key in own.runs and any(key in runs for runs in others)]
        found = {key: tuple(tasks) for key, tasks in self._db.tasks(ended, of_each=continued).items()}
        for key, tasks in found.items():
            size = sum(len(task_id) + 30 for task_id, _, _ in tasks)
            if size > TASKS_BYTES:
                log.warning(
                    "%s %s: its %d task instances do not fit the ledger. After a failover, tasks that depend on their "
                    "past wait until a user clears or marks these task instances in the other region.",
                    *key,
                    len(tasks),
                )
                found[key] = ()
        return found

    def _new_dags(self, own: RegionLedger, *, force: bool) -> tuple[list[str], Sequence[RunRow]]:
        """Return the DAGs that are not in the ledger, and the last finished runs of those that no region published."""
        if not force and not self._dags.is_due:
            return [], ()
        self._dags.restart()
        dag_ids = sorted(set(self._db.dag_ids()) - own.heads.keys())
        unknown = [
            dag_id for dag_id in dag_ids if not any(dag_id in other.heads for other in self._peers.ledgers.values())
        ]
        return dag_ids, self._db.last_finished(unknown) if unknown else ()

    def _retained(self, own: RegionLedger, changed: list[LedgerRun], *, epoch: int) -> list[LedgerRun]:
        """Mark the ended runs that another region also started, or may have started without publishing them yet."""
        others = self._peers.ledgers.values()
        room = _MOST_RETAINED - sum(run.has_ended for run in own.runs.values())
        is_any_incomplete = room > 0 and (
            bool(self._peers.unread) or not all(is_complete(other, epoch) for other in others)
        )
        return [
            replace(
                run,
                retained_for_peers=run.has_ended and (is_any_incomplete or is_known_elsewhere(run, others)),
            )
            for run in changed
        ]
