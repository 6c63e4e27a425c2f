"""
An Airflow in memory: its metadata database, what its schedulers and workers do with it, and its REST API.

Only what the provider meets: intervals with and without catchup, manual runs with a conf, two tasks a run, one after
the other, cleared runs, tasks that are killed seconds after their run was closed. What the provider does comes in as it
does in the real one: the gate before a run starts, the fence before a task does, the agent beside each scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_mwaa_dr.core.bookkeeping import RunRow
from airflow_provider_mwaa_dr.core.gate import Action, Layer
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey, TaskState
from airflow_provider_mwaa_dr.core.ports import DagInfo, EnvironmentStatus, RunInfo
from airflow_provider_mwaa_dr.exceptions import MwaaUnreachableError

KILL_AFTER_S = 4
"""A task whose run was closed works on until its next heartbeat."""
TASKS = 2

Decide = Callable[[Layer], Action]


@dataclass(frozen=True)
class SimulatedDag:
    """A DAG as both regions have it."""

    dag_id: str
    every_s: int | None = None
    catchup: bool = True
    tags: frozenset[str] = frozenset()


@dataclass
class Task:
    """A task instance. ``state`` as Airflow's; ``until`` is when its body ends."""

    state: str | None = None
    until: float = 0.0
    kill_at: float | None = None


@dataclass
class Run:
    """A row of dag_run, with its task instances."""

    row: RunRow
    note: str = ""
    fails: bool = False
    tasks: list[Task] = field(default_factory=lambda: [Task() for _ in range(TASKS)])

    @property
    def executes(self) -> bool:
        return any(task.state == "running" for task in self.tasks)


@dataclass(frozen=True)
class Execution:
    """The body of the last task of a run has come to its end, or the first has begun: what a task body would write."""

    region: str
    key: RunKey
    epoch: int
    at: float
    kind: str


class SimulatedAirflow:
    """One region's Airflow; implements the agent's RegionDb and the engine's Environment."""

    def __init__(self, region: str, dags: Sequence[SimulatedDag], world: Any) -> None:
        self.region, self.name = region, f"env-{region}"
        self.world, self.clock, self.rng = world, world.clock, world.rng
        self.dags_by_id = {dag.dag_id: dag for dag in dags}
        self.local_clock = self.clock
        """Its hosts' wall clock, which may be off."""
        self.paused = {dag.dag_id for dag in dags}
        self.rows: dict[RunKey, Run] = {}
        self.next_at: dict[str, float] = {}
        self.newest = 0
        self.started_at = self.clock.monotonic()
        self.is_up, self.is_reachable = True, True

    # -- helpers -------------------------------------------------------------------------------------------------

    @property
    def unpaused(self) -> set[str]:
        return set(self.dags_by_id) - self.paused

    def exempt(self, dag_id: str) -> bool:
        return "dr:control" in self.dags_by_id[dag_id].tags

    def add(
        self, key: RunKey, *, run_type: str, logical_date: datetime | None, end: datetime | None, **values: Any
    ) -> Run:
        self.newest += 1
        now = self.local_clock.now()
        row = RunRow(
            id=self.newest,
            dag_id=key[0],
            run_id=key[1],
            run_type=run_type,
            state="queued",
            logical_date=logical_date,
            data_interval_start=logical_date,
            data_interval_end=end,
            run_after=end,
            queued_at=now,
            conf={},
        )
        run = self.rows[key] = Run(row=replace(row, **values))
        self.note(key, f"new row, {run.row.state}")
        return run

    def set_state(self, run: Run, state: str) -> None:
        run.row = replace(run.row, state=state)

    def note(self, key: RunKey, text: str) -> None:
        self.world.note(key, f"{self.region} {text}")

    def ours(self) -> Iterator[Run]:
        return (run for run in self.rows.values() if not self.exempt(run.row.dag_id))

    # -- what schedulers and workers do, once a second ---------------------------------------------------------------

    def trigger_by_hand(self, dag_id: str, number: int) -> RunKey:
        """A person triggers a run, with a conf."""
        key = (dag_id, f"manual__{number}")
        self.add(key, run_type="manual", logical_date=self.clock.now(), end=self.clock.now(), conf={"n": number})
        return key

    def clear(self, key: RunKey) -> None:
        """A person clears a run that has ended."""
        run = self.rows[key]
        self.note(key, f"queued again, was {run.row.state}")
        self.set_state(run, "queued")
        run.row = replace(run.row, queued_at=self.local_clock.now())
        run.tasks = [Task() for _ in range(TASKS)]

    def schedule(self, job: str, decide: Decide) -> None:
        """Create what is due (one scheduler does), start what is queued, hand tasks to workers."""
        if job == "1":
            self._create()
        for run in list(self.rows.values()):
            if run.row.dag_id in self.paused or (run.row.id % 2 == 0) != (job == "2"):
                continue
            if run.row.state == "queued" and not any(
                other.row.state == "running" and other.row.dag_id == run.row.dag_id for other in self.rows.values()
            ):
                self._start(run, decide)

    def _create(self) -> None:
        now = self.clock.monotonic()
        for dag_id in sorted(self.unpaused):
            dag = self.dags_by_id[dag_id]
            if dag.every_s is None:
                continue
            for _ in range(2):
                at = self._next(dag)
                if at + dag.every_s > now:
                    break
                key = (dag_id, f"scheduled__{at:g}")
                if key not in self.rows:
                    self.add(key, run_type="scheduled", logical_date=self.date(at), end=self.date(at + dag.every_s))
                self.next_at[dag_id] = at + dag.every_s

    def _next(self, dag: SimulatedDag) -> float:
        """Return where the next interval begins; as Airflow computes it from the newest scheduled run, or from none."""
        assert dag.every_s is not None
        if dag.dag_id not in self.next_at:
            dates = [
                self.seconds(run.row.logical_date)
                for run in self.rows.values()
                if run.row.dag_id == dag.dag_id and run.row.run_type == "scheduled" and run.row.logical_date is not None
            ]
            self.next_at[dag.dag_id] = max(dates) + dag.every_s if dates else 0.0
        if not dag.catchup:
            newest = (self.clock.monotonic() // dag.every_s - 1) * dag.every_s
            self.next_at[dag.dag_id] = max(self.next_at[dag.dag_id], newest)
        return self.next_at[dag.dag_id]

    def date(self, at: float) -> datetime:
        return self.clock.now() + timedelta(seconds=round(at - self.clock.monotonic(), 6))

    def seconds(self, at: datetime) -> float:
        return round(self.clock.monotonic() + (at - self.clock.now()).total_seconds(), 3)

    def _start(self, run: Run, decide: Decide) -> None:
        action = Action.RUN if self.exempt(run.row.dag_id) else decide(Layer.GATE)
        self.note(run.row.key, f"gate: {action.value}")
        if action is Action.RUN:
            self.set_state(run, "running")
        elif action is Action.SKIP:
            run.note = "skipped"
            self._close(run, "success")
        else:
            run.row = replace(run.row, queued_at=self.local_clock.now())

    def _close(self, run: Run, state: str) -> None:
        self.note(run.row.key, f"closed as {state}, was {run.row.state}")
        self.set_state(run, state)
        for task in run.tasks:
            if task.state == "running":
                task.kill_at = self.clock.monotonic() + KILL_AFTER_S
            elif task.state is None:
                task.state = "skipped"

    def work(self, decide: Decide, epoch: int) -> None:
        """Workers: end bodies, kill what was closed, start the next task of each running run, past the fence."""
        now = self.clock.monotonic()
        for run in list(self.rows.values()):
            for number, task in enumerate(run.tasks):
                if task.state != "running":
                    continue
                if task.kill_at is not None and now >= task.kill_at:
                    task.state = "failed"
                elif now >= task.until:
                    task.state = "failed" if run.fails else "success"
                    if number == TASKS - 1 or run.fails:
                        self.world.executed(Execution(self.region, run.row.key, epoch, now, "end"))
                    if task.kill_at is not None:
                        task.state = "failed"
            if run.row.state != "running":
                continue
            if any(task.state == "failed" for task in run.tasks):
                self.set_state(run, "failed")
            elif all(task.state in {"success", "skipped"} for task in run.tasks):
                self.set_state(run, "success")
            elif not run.executes and run.row.dag_id not in self.paused:
                self._next_task(run, decide, epoch, now)

    def _next_task(self, run: Run, decide: Decide, epoch: int, now: float) -> None:
        number = next(number for number, task in enumerate(run.tasks) if task.state is None)
        action = Action.RUN if self.exempt(run.row.dag_id) else decide(Layer.FENCE)
        if action is Action.SKIP:
            run.tasks[number].state = "skipped"
        elif action is Action.RUN:
            if number == 0:
                self.world.executed(Execution(self.region, run.row.key, epoch, now, "begin"))
            self.world.check_start(self.region, epoch)
            run.tasks[number] = Task(state="running", until=now + self.world.body_s(self.region))

    def die(self) -> None:
        """Every process is gone in an instant; the database stays."""
        self.is_up = self.is_reachable = False
        for run in self.rows.values():
            for task in run.tasks:
                if task.state == "running":
                    task.state, task.kill_at = None, None

    # -- the agent's side (RegionDb) -----------------------------------------------------------------------------------

    def newest_run(self) -> int:
        return self.newest

    def open_runs(self, *, up_to: int, spared_since: datetime | None = None) -> int:
        return sum(
            run.row.is_open and run.row.id <= up_to and not self._is_spared(run.row, spared_since)
            for run in self.ours()
        )

    @staticmethod
    def _is_spared(row: RunRow, since: datetime | None) -> bool:
        return (
            since is not None
            and (row.state, row.run_type) == ("queued", "manual")
            and row.queued_at is not None
            and row.queued_at >= since
        )

    def close_runs(self, note: str, *, queued_for_s: float = 0.0, spared_since: datetime | None = None) -> int:
        closed = 0
        now = self.local_clock.now()
        for run in self.ours():
            is_young = (
                queued_for_s > 0
                and run.row.state == "queued"
                and run.row.dag_id not in self.paused
                and run.row.queued_at is not None
                and (now - run.row.queued_at).total_seconds() < queued_for_s
            )
            # Now and then the scheduler has a row locked.
            is_spared = self._is_spared(run.row, spared_since)
            if run.row.is_open and not is_young and not is_spared and self.rng.random() > 0.05:
                run.note = "closed"
                self._close(run, "failed")
                closed += 1
        return closed

    def pause_all(self) -> int:
        before = len(self.paused)
        self.paused |= {dag_id for dag_id in self.dags_by_id if not self.exempt(dag_id)}
        return len(self.paused) - before

    def unpaused_dags(self) -> tuple[str, ...]:
        return tuple(sorted(dag_id for dag_id in self.unpaused if not self.exempt(dag_id)))

    def drop_held_notes(self) -> int:
        return 0

    def last_task_end(self, since: datetime) -> datetime | None:
        return None

    def look(self, *, above: int) -> tuple[int, Mapping[RunKey, str]]:
        return self.newest, {run.row.key: run.row.state for run in self.ours() if run.row.is_open or run.row.id > above}

    def runs(self, keys: Collection[RunKey]) -> list[RunRow]:
        return [self.rows[key].row for key in keys if key in self.rows]

    def tasks(self, keys: Collection[RunKey]) -> Mapping[RunKey, Sequence[TaskState]]:
        return {}  # no DAG here has tasks that look at the run before

    def last_finished(self, dag_ids: Collection[str]) -> list[RunRow]:
        newest: dict[str, RunRow] = {}
        for run in self.ours():
            row = run.row
            if row.dag_id not in dag_ids or row.run_type != "scheduled" or row.is_open or row.logical_date is None:
                continue
            known = newest.get(row.dag_id)
            if known is None or known.logical_date is None or row.logical_date > known.logical_date:
                newest[row.dag_id] = row
        return list(newest.values())

    def dag_ids(self) -> tuple[str, ...]:
        return tuple(sorted(dag_id for dag_id in self.dags_by_id if not self.exempt(dag_id)))

    def _add_from(self, run: LedgerRun, state: str, note: str) -> None:
        key = run.key
        self.add(
            key,
            run_type=run.run_type,
            logical_date=run.logical_date,
            end=run.data_interval_end,
            state=state,
            queued_at=run.taken_at or self.local_clock.now(),
            conf=run.conf,
        )
        self.rows[key].note = note
        if state != "queued":
            self.rows[key].tasks = []
        if run.run_type == "scheduled" and run.logical_date is not None:
            every_s = self.dags_by_id[run.dag_id].every_s or 0
            at = self.seconds(run.logical_date) + every_s
            self.next_at[run.dag_id] = max(self.next_at.get(run.dag_id, at), at)

    def adopt(self, runs: Sequence[LedgerRun], note: str) -> int:
        adopted = 0
        for run in runs:
            newest = max(
                (
                    each.row.logical_date
                    for each in self.rows.values()
                    if each.row.dag_id == run.dag_id and each.row.run_type == "scheduled" and each.row.logical_date
                ),
                default=None,
            )
            if run.key in self.rows or (
                newest is not None and run.logical_date is not None and run.logical_date < newest
            ):
                continue
            self._add_from(run, run.status.value, "adopted")
            adopted += 1
        return adopted

    def cannot_resume(self, runs: Sequence[LedgerRun]) -> Mapping[RunKey, str]:
        return {run.key: "no-rerun" for run in runs if "dr:no-rerun" in self.dags_by_id[run.dag_id].tags}

    def resume(self, runs: Sequence[LedgerRun], note: str) -> Mapping[RunKey, str]:
        for run in runs:
            found = self.rows.get(run.key)
            if found is None:
                self._add_from(run, "queued", "resumed")
            elif not found.row.is_open:
                self.clear(run.key)
                found.note = "resumed"
        return {}

    def settle(self, runs: Sequence[LedgerRun], note: str) -> None:
        for run in runs:
            found = self.rows.get(run.key)
            if found is not None and not found.row.is_open:
                self.set_state(found, run.status.value)

    def forget_closed(self, created: Mapping[str, datetime | None]) -> int:
        gone = [
            key
            for key, run in self.rows.items()
            if run.row.run_type == "scheduled"
            and run.note in {"skipped", "closed"}
            and not run.row.is_open
            and key[0] in created
            and (created[key[0]] is None or (run.row.logical_date or self.clock.now()) > created[key[0]])  # type: ignore[operator]
            and not any(task.until for task in run.tasks)
        ]
        for key in gone:
            del self.rows[key]
            self.next_at.pop(key[0], None)
        return len(gone)

    # -- the engine's side (Environment) ------------------------------------------------------------------------------

    def _answer(self) -> None:
        if not self.is_reachable:
            raise MwaaUnreachableError(f"{self.name} does not answer.")

    def status(self) -> EnvironmentStatus:
        return EnvironmentStatus.AVAILABLE

    def scheduler_is_healthy(self) -> bool:
        self._answer()
        return True

    def dags(self) -> Sequence[DagInfo]:
        self._answer()
        return [
            DagInfo(dag_id=dag_id, is_paused=dag_id in self.paused, tags=dag.tags)
            for dag_id, dag in sorted(self.dags_by_id.items())
        ]

    def set_paused(
        self, dag_ids: Collection[str], *, paused: bool, on_progress: Callable[[int, int], None] | None = None
    ) -> list[str]:
        self._answer()
        changed = sorted(
            dag_id for dag_id in dag_ids if dag_id in self.dags_by_id and (dag_id in self.paused) != paused
        )
        self.paused = self.paused | set(changed) if paused else self.paused - set(changed)
        return changed

    def running_runs(self) -> list[RunInfo]:
        self._answer()
        return sorted(
            RunInfo(dag_id=run.row.dag_id, run_id=run.row.run_id, state="running")
            for run in self.rows.values()
            if run.row.state == "running"
        )

    def running_tasks(self) -> list[RunInfo]:
        self._answer()
        return sorted(
            RunInfo(dag_id=run.row.dag_id, run_id=run.row.run_id, state=run.row.state)
            for run in self.rows.values()
            if run.executes
        )

    def stop_run(self, run: RunInfo) -> None:
        self._answer()
        found = self.rows[run.dag_id, run.run_id]
        if found.row.is_open:
            self._close(found, "failed")

    def trigger(self, dag_id: str, *, run_id: str, note: str) -> None:
        self._answer()

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        self._answer()
        return "success"
