"""
A simulated Airflow: its metadata database, its schedulers and workers, and its REST API.

It has what the provider meets:

- intervals with and without catchup, and depends_on_past;
- runs that an asset starts, manual runs with a conf, failing runs, and cleared runs;
- tasks that wait in the triggerer, and tasks that are killed seconds after their run was closed;
- tasks that trigger a run, with and without waiting for it, and sensors for the run of another DAG (parents.py).

The provider is called as in the real Airflow: the gate before a run starts, the fence before a task starts, and an
agent beside each scheduler.

The code that runs every second visits only open runs: a history has thousands of seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any

from airflow_provider_mwaa_dr.core.bookkeeping import RunRow
from airflow_provider_mwaa_dr.core.gate import Action
from airflow_provider_mwaa_dr.core.ledger import SCHEDULED, ChildRun, LedgerRun, RunKey, RunStatus, TaskState
from airflow_provider_mwaa_dr.core.ports import DagInfo, EnvironmentStatus, RunInfo
from airflow_provider_mwaa_dr.core.waits import (
    SENSES_FIELD,
    TRIGGERS_FIELD,
    HeldRun,
    Waiter,
    Waits,
    find_waits,
)
from airflow_provider_mwaa_dr.core.watching import Watchers
from airflow_provider_mwaa_dr.exceptions import MwaaUnreachableError

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
KILL_AFTER_S = 4
"""A task of a closed run continues until its next heartbeat."""
STILL_S = 60
"""A run that has started waits for an earlier run if none of its tasks has ended for this time."""
LATE_STOP_S = 5
"""A run whose last task ends within this time ends before an engine can stop it."""
TASKS = 2
ASSET_TRIGGERED = "asset_triggered"

Gate = Callable[["Run"], Action]
Fence = Callable[[bool], tuple[Action, int]]
"""Decides whether a task may start, and under which epoch. True for a task that comes back from the triggerer."""


@cache
def to_date(at: float) -> datetime:
    """Return the moment *at* seconds after START, as the metadata database stores it."""
    return START + timedelta(seconds=at)


def to_seconds(at: datetime) -> float:
    """Return the seconds from START to a moment."""
    return round((at - START).total_seconds(), 6)


@dataclass(frozen=True)
class SimulatedDag:
    """
    A DAG, which both regions have.

    :param every_s: seconds between two intervals; None for a DAG without a time schedule.
    :param max_active: the most running runs. A run that waits for an earlier one counts, too.
    :param waits_for_past: its tasks start only after the run before has succeeded (depends_on_past).
    :param asset_of: the DAG whose successful runs start runs of this DAG.
    :param defers: its first task waits in the triggerer for a while.
    :param fails: some of its runs fail.
    :param triggers: the DAG of which its last task triggers a run.
    :param waits: that task waits until the triggered run has ended.
    :param senses: its last task is a sensor for the run of that DAG with the same date.
    """

    dag_id: str
    every_s: int | None = None
    catchup: bool = True
    max_active: int = 3
    waits_for_past: bool = False
    asset_of: str | None = None
    defers: bool = False
    fails: bool = False
    triggers: str | None = None
    waits: bool = False
    senses: str | None = None
    tags: frozenset[str] = frozenset()


class Task:
    """
    A task instance. ``state`` is Airflow's. ``until`` is the end of its body, or of its wait in the triggerer.

    :ivar other: the run that it triggered, or senses.
    :ivar known_at: the time from which the database shows which run it triggered.
    :ivar requested: the run that it triggered; unlike *other*, it stays after the task is killed.
    """

    __slots__ = ("defer_s", "kill_at", "known_at", "other", "requested", "state", "until")

    def __init__(self) -> None:
        self.state: str | None = None
        self.until = 0.0
        self.kill_at: float | None = None
        self.defer_s = 0.0
        self.other: RunKey | None = None
        self.known_at = 0.0
        self.requested: RunKey | None = None


class Run:
    """
    A row of dag_run, with its task instances.

    :ivar is_marked: whether the provider ended it.
    :ivar turn: ``last_scheduling_decision`` of a queued run. Runs without it come first, the others in its order.
    """

    __slots__ = (
        "at", "conf", "dag_id", "end", "fails", "id", "is_marked", "key", "note", "queued_at", "run_type", "state",
        "tasks", "turn",
    )  # fmt: skip

    def __init__(
        self,
        run_id: int,
        key: RunKey,
        *,
        run_type: str,
        at: float | None,
        end: float | None,
        queued_at: datetime | None,
        conf: Any = None,
        state: str = "queued",
    ) -> None:
        self.id, self.key, self.dag_id, self.run_type = run_id, key, key[0], run_type
        self.at, self.end, self.queued_at, self.conf = at, end, queued_at, conf
        self.state, self.note, self.fails, self.is_marked = state, "", False, False
        self.turn: float | None = None
        self.tasks = [Task() for _ in range(TASKS)]

    @property
    def is_open(self) -> bool:
        return self.state in {"queued", "running"}

    @property
    def is_skipped(self) -> bool:
        """Whether the provider closed it before any of its tasks executed."""
        return self.is_own_end and not any(task.until for task in self.tasks)

    @property
    def is_own_end(self) -> bool:
        """Whether the provider ended it, and its state is no result."""
        return self.is_marked and not self.is_open

    def take_turn(self) -> None:
        """Give it the provider's position in the queue: by its dates."""
        self.turn = self.end

    @property
    def has_begun(self) -> bool:
        return any(task.state is not None for task in self.tasks)

    @property
    def waits(self) -> bool:
        """Whether none of its tasks executes, will execute by itself, or has failed."""
        return all(task.state in {None, "success", "skipped"} for task in self.tasks)

    @property
    def executes(self) -> bool:
        return any(task.state == "running" for task in self.tasks)

    def to_row(self, children: tuple[ChildRun, ...] = ()) -> RunRow:
        at = None if self.at is None else to_date(self.at)
        end = None if self.end is None else to_date(self.end)
        return RunRow(
            id=self.id,
            dag_id=self.dag_id,
            run_id=self.key[1],
            run_type=self.run_type,
            state=self.state,
            logical_date=at,
            data_interval_start=at,
            data_interval_end=end,
            run_after=end,
            queued_at=self.queued_at,
            conf=self.conf,
            is_skipped=self.is_skipped,
            events=() if self.run_type == ASSET_TRIGGERED else None,
            children=children,
        )


@dataclass(frozen=True, slots=True)
class Execution:
    """
    The first task body of a run has started, or its last one has ended. In a real DAG the task bodies would write this.
    """

    region: str
    key: RunKey
    epoch: int
    at: float
    kind: str
    ok: bool = True


class SimulatedAirflow:
    """The Airflow of one region. It implements the agent's RegionDb and the engine's Environment."""

    def __init__(self, region: str, dags: Sequence[SimulatedDag], world: Any, clock: Any) -> None:
        self.region, self.name = region, f"env-{region}"
        self.world, self.clock, self.rng = world, world.clock, world.rng
        self.local = clock
        """The clock of its hosts, with a wrong wall time."""
        self.dags_by_id = {dag.dag_id: dag for dag in dags}
        self.requesters = [dag.dag_id for dag in dags if dag.triggers is not None]
        self.controls = {dag.dag_id for dag in dags if "dr:control" in dag.tags}
        self.paused = set(self.dags_by_id)
        self.rows: dict[RunKey, Run] = {}
        self.by_id: list[Run] = []
        self.open: dict[str, dict[RunKey, Run]] = {dag_id: {} for dag_id in self.dags_by_id}
        self.active: dict[RunKey, Run] = {}
        """Runs that are running, or with a task that still executes."""
        self.intervals: dict[str, dict[float, Run]] = {dag_id: {} for dag_id in self.dags_by_id}
        self.next_at: dict[str, float] = {}
        self.fired: dict[str, int] = {}
        """DAGs for which an asset event requests a run, with the number of that run."""
        self.is_up, self.is_reachable = True, True
        self.before_change: Callable[[], object] = lambda: None
        """Called before the agent changes anything. The agent may be killed here."""
        self.found_watchers = Watchers()
        self.start_last_events: Callable[[], int] = lambda: 0
        self.drop_events: Callable[[], object] = lambda: None

    @property
    def unpaused(self) -> set[str]:
        return set(self.dags_by_id) - self.paused

    def _note(self, key: RunKey, text: str) -> None:
        if self.world.is_traced:
            self.world.note(key, f"{self.region} {text}")

    def identity(self, run: Run) -> RunKey:
        """Return what the run counts as in the oracle."""
        return run.key

    def add(self, key: RunKey, *, run_type: str, at: float | None, end: float | None, **values: Any) -> Run:
        values.setdefault("queued_at", self.local.now())
        run = self.rows[key] = Run(len(self.by_id) + 1, key, run_type=run_type, at=at, end=end, **values)
        self.by_id.append(run)
        if run_type == SCHEDULED and at is not None:
            self.intervals[run.dag_id][at] = run
        if run.is_open:
            self.open[run.dag_id][key] = run
        self._note(key, f"new row, {run.state}")
        return run

    def set_state(self, run: Run, state: str) -> None:
        run.state = state
        if state in {"queued", "running"}:
            self.open[run.dag_id][run.key] = run
            if state == "running":
                self.active[run.key] = run
        else:
            self.open[run.dag_id].pop(run.key, None)

    # -- users ------------------------------------------------------------------------------------------------------

    def trigger_by_hand(self, dag_id: str, number: int) -> RunKey:
        """A user triggers a run with a conf."""
        key = (dag_id, f"manual__{number}")
        at = round(self.clock.monotonic(), 3)
        self.add(key, run_type="manual", at=at, end=at, conf={"n": number})
        return key

    def date_of_request(self, dag_id: str, at: float) -> float | None:
        """Return the logical date of a run that a user or a task requests at a time, without a date."""
        return at

    def clear(self, key: RunKey) -> None:
        """Queue an ended run again, with all its tasks."""
        run = self.rows[key]
        self._note(key, f"queued again, was {run.state}")
        run.queued_at, run.turn = self.local.now(), None
        run.tasks = [Task() for _ in range(TASKS)]
        run.fails = run.is_marked = False
        self.active.pop(key, None)
        self.set_state(run, "queued")

    def send_back(self, run: Run) -> None:
        """Put a waiting run back into the queue, with its tasks unchanged."""
        self._note(run.key, "gives its room to an earlier run")
        self.active.pop(run.key, None)
        self.set_state(run, "queued")

    # -- schedulers ---------------------------------------------------------------------------------------------------

    def schedule(self, gate: Gate) -> None:
        """One loop of one scheduler: create scheduled runs, and start queued runs."""
        now = self.local.wall_s()
        paused = self.paused
        if len(paused) + len(self.controls) == len(self.dags_by_id) and not paused & self.controls:
            return
        for dag_id, dag in self.dags_by_id.items():
            if dag_id in paused:
                continue
            waiting = self.open[dag_id]
            if dag.every_s is not None and len(waiting) < dag.max_active:
                at = self.next_at.get(dag_id)
                if at is None or at + dag.every_s <= now:
                    self._create(dag, now)
            elif dag_id in self.fired:
                number = self.fired.pop(dag_id)
                key = (dag_id, f"{ASSET_TRIGGERED}__{self.region}_{number}")
                self.add(key, run_type=ASSET_TRIGGERED, at=None, end=now)
                self.world.created(self.region, key)
            queued = [run for run in waiting.values() if run.state == "queued"] if waiting else None
            if not queued:
                continue
            room = dag.max_active - len(waiting) + len(queued)
            if len(queued) > 1:
                queued.sort(key=lambda run: (run.turn is not None, run.turn or 0.0, run.end or 0.0))
            for run in queued:
                if room <= 0:
                    break
                room -= self._start(run, gate(run))

    def _create(self, dag: SimulatedDag, now: float) -> None:
        assert dag.every_s is not None
        at = self._next(dag, now)
        if at + dag.every_s > now:
            return
        key = (dag.dag_id, f"scheduled__{at:g}")
        if key not in self.rows:
            self.add(key, run_type=SCHEDULED, at=at, end=at + dag.every_s)
            self.world.created(self.region, key)
        self.next_at[dag.dag_id] = at + dag.every_s

    def _next(self, dag: SimulatedDag, now: float) -> float:
        """
        Return the start of the next interval, as Airflow computes it from the newest scheduled run, or without one.
        """
        assert dag.every_s is not None
        at = self.next_at.get(dag.dag_id)
        if at is None:
            dates = self.intervals[dag.dag_id]
            at = max(dates) + dag.every_s if dates else 0.0
        if not dag.catchup:
            at = max(at, (now // dag.every_s - 1) * dag.every_s)
        self.next_at[dag.dag_id] = at
        return at

    def _waits(self, dag: SimulatedDag, run: Run) -> bool:
        """Whether the run before has not succeeded. The first run of all waits for none."""
        if run.at is None or dag.every_s is None:
            return False
        dates = self.intervals[dag.dag_id]
        before = dates.get(run.at - dag.every_s)
        if before is None:
            earlier = [at for at in dates if at < run.at]
            before = dates[max(earlier)] if earlier else None
        return before is not None and before.state != "success"

    def _start(self, run: Run, action: Action) -> bool:
        self._note(run.key, f"gate: {action.value}")
        if action is Action.RUN:
            self.set_state(run, "running")
            return True
        if action is Action.SKIP:
            self.end_in_standby(run)
        else:
            run.queued_at = self.local.now()
            run.take_turn()
        return False

    def end_in_standby(self, run: Run) -> None:
        """End a run as the provider does."""
        run.is_marked = True
        self._close(run, "failed")

    def _close(self, run: Run, state: str) -> None:
        self._note(run.key, f"closed as {state}, was {run.state}")
        self.set_state(run, state)
        for task in run.tasks:
            if task.state == "running":
                task.kill_at = self.clock.monotonic() + KILL_AFTER_S
            elif task.state not in {"success", "failed"}:
                task.state = "skipped"

    # -- workers and the triggerer ------------------------------------------------------------------------------------

    def work(self, fence: Fence) -> None:
        """
        End task bodies, kill tasks of closed runs, and start the next task of each running run that the fence allows.
        """
        if not self.active:
            return
        now = self.clock.monotonic()
        for run in list(self.active.values()):
            if self._executes_until_later(run, now):
                continue
            states = []
            for number, task in enumerate(run.tasks):
                state = task.state
                if task.until == math.inf and task.other is not None and self._has_ended(task.other):
                    task.until = now
                if state == "running":
                    if now >= task.until or (task.kill_at is not None and now >= task.kill_at):
                        self._end_body(run, number, task, now)
                        state = task.state
                elif state == "deferred" and now >= task.until:
                    state = task.state = "scheduled"
                states.append(state)
            executes = "running" in states
            if run.state != "running":
                if not executes:
                    del self.active[run.key]
            elif "failed" in states:
                self.set_state(run, "failed")
            elif executes or "deferred" in states:
                continue
            elif all(state in {"success", "skipped"} for state in states):
                self.set_state(run, "success")
            elif run.dag_id not in self.paused:
                self._next_task(run, fence, now)

    @staticmethod
    def _executes_until_later(run: Run, now: float) -> bool:
        """Whether a task body executes, and nothing of the run can change now: its tasks execute one after another."""
        if run.state != "running":
            return False
        for task in run.tasks:
            if task.state == "running":
                return now < task.until < math.inf and task.kill_at is None
        return False

    def _end_body(self, run: Run, number: int, task: Task, now: float) -> None:
        if task.kill_at is not None and now >= task.kill_at:
            task.state = "failed"
            return
        if now < task.until:
            return
        if task.defer_s:
            task.state, task.until, task.defer_s = "deferred", now + task.defer_s, 0.0
            return
        is_last = number == TASKS - 1
        fails = run.fails and is_last
        task.state = "failed" if fails or task.kill_at is not None else "success"
        if is_last:
            self.world.executed(
                Execution(self.region, self.identity(run), self.world.epoch_of(self.region), now, "end", not fails)
            )
            if task.state == "success":
                self._fire(run)

    def _fire(self, run: Run) -> None:
        """A producer has succeeded: each unpaused consumer of its asset gets a run."""
        for dag_id, dag in self.dags_by_id.items():
            if dag.asset_of == run.dag_id:
                has_consumer = dag_id not in self.paused
                self.world.fired(self.region, dag_id, has_consumer=has_consumer)
                if has_consumer:
                    self.fired[dag_id] = self.world.new_number()

    def _next_task(self, run: Run, fence: Fence, now: float) -> None:
        dag = self.dags_by_id[run.dag_id]
        number, task = next(
            (number, task) for number, task in enumerate(run.tasks) if task.state in {None, "scheduled"}
        )
        if dag.waits_for_past and task.state is None and self._waits(dag, run):
            return
        action, epoch = fence(task.state == "scheduled")
        if action is Action.SKIP:
            self._note(run.key, "fence: skip")
            task.state = "skipped"
        elif action is Action.RUN:
            self.world.check_start(self.region, epoch)
            if number == 0 and task.state is None:
                self._check_unchanged(run)
                self.world.executed(Execution(self.region, self.identity(run), epoch, now, "begin"))
                run.fails = self.dags_by_id[run.dag_id].fails and self.world.fails()
                if self.dags_by_id[run.dag_id].defers:
                    task.defer_s = self.rng.choice([2.0, 5.0, 15.0])
            task.state, task.until = "running", now + self.world.body_s(self.region)
            if number == TASKS - 1 and task.other is None:
                task.requested = None
                self._wait_for_other(run, dag, task, now, epoch)

    def _wait_for_other(self, run: Run, dag: SimulatedDag, task: Task, now: float, epoch: int) -> None:
        """Trigger the run of another DAG, or begin to wait for one, if the task does that. It starts under *epoch*."""
        if dag.triggers is not None:
            task.other = (dag.triggers, f"manual__{self.world.new_number()}")
            # Airflow stores the id of the run after it has created the run.
            task.known_at = now + 1.0
            at = round(now, 3)
            conf = {"n": int(task.other[1].partition("__")[2])}
            self.add(task.other, run_type="manual", at=self.date_of_request(dag.triggers, at), end=at, conf=conf)
            task.requested = task.other
            self.world.triggered(self.region, task.other, by=run.key, epoch=epoch)
            task.until = math.inf if dag.waits else task.until
        elif dag.senses is not None and run.at is not None:
            task.other = (dag.senses, f"scheduled__{run.at:g}")
            task.state, task.until = "deferred", math.inf

    def _has_ended(self, key: RunKey) -> bool:
        run = self.rows.get(key)
        return run is not None and (run.state == "success" if run.run_type == SCHEDULED else not run.is_open)

    def _check_unchanged(self, run: Run) -> None:
        """A run keeps the values with which it was created, whichever region executes it."""
        every_s = self.dags_by_id[run.dag_id].every_s
        kind, _, rest = run.key[1].partition("__")
        if kind == "scheduled":
            assert every_s is not None
            assert (run.run_type, run.at, run.end) == (kind, float(rest), float(rest) + every_s), run.key
        elif kind == "manual":
            assert (run.run_type, run.conf) == (kind, {"n": int(rest)}), run.key
        else:
            assert (run.run_type, run.at) == (ASSET_TRIGGERED, None), run.key

    def die(self) -> None:
        """End every process immediately. The database stays."""
        self.is_up = self.is_reachable = False
        for run in list(self.active.values()):
            for task in run.tasks:
                if task.state == "running":
                    task.state, task.kill_at, task.defer_s = None if run.state == "running" else "failed", None, 0.0
                    task.other = None

    # -- the agent's side (RegionDb) -----------------------------------------------------------------------------------

    def newest_run(self) -> int:
        return len(self.by_id)

    def open_runs(self, *, up_to: int, spared_since: datetime | None = None) -> int:
        if not any(self.open.values()):
            return 0
        return sum(
            run.id <= up_to and not self._is_spared(run, spared_since)
            for runs in self.open.values()
            for run in runs.values()
        )

    @staticmethod
    def _is_spared(run: Run, since: datetime | None) -> bool:
        return since is not None and run.state == "queued" and run.run_type != SCHEDULED and run.queued_at >= since

    def close_runs(self, note: str, *, queued_for_s: float = 0.0, spared_since: datetime | None = None) -> int:
        self.drop_events()
        if not any(self.open.values()):
            return 0
        self.before_change()
        closed = 0
        now = self.local.now()
        for runs in self.open.values():
            for run in list(runs.values()):
                is_young = (
                    queued_for_s > 0
                    and run.state == "queued"
                    and run.dag_id not in self.paused
                    and (now - run.queued_at).total_seconds() < queued_for_s
                )
                # Sometimes the scheduler has locked the row.
                if not is_young and not self._is_spared(run, spared_since) and self.rng.random() > 0.05:
                    self.end_in_standby(run)
                    closed += 1
        return closed

    def end_queued(self, keys: Collection[RunKey], note: str) -> int:
        self.before_change()
        found = [run for key in keys if (run := self.open[key[0]].get(key)) is not None and run.state == "queued"]
        ended = [run for run in found if self.rng.random() > 0.05]  # sometimes the scheduler has locked the row
        for run in ended:
            self.end_in_standby(run)
        return len(ended)

    def pause_all(self) -> int:
        self.before_change()
        before = len(self.paused)
        self.paused |= set(self.dags_by_id) - self.controls
        if len(self.paused) > before and self.world.is_traced:
            self.world.note(None, f"{self.region}: the agent pauses all DAGs")
        return len(self.paused) - before

    def unpaused_dags(self) -> tuple[str, ...]:
        return tuple(sorted(self.unpaused - self.controls))

    def drop_held_notes(self) -> int:
        return 0

    def last_task_end(self, since: datetime) -> datetime | None:
        return None

    def waits(self) -> Waits:
        running = [run for run in self.active.values() if run.state == "running"]
        idle = sum(run.dag_id in self.paused and not run.executes for run in running)
        waiters = [
            waiter
            for run in running
            for task in run.tasks
            if task.other is not None and (waiter := self._waiter(run, task)) is not None
        ]
        named = {waiter.awaited_dag for waiter in waiters}
        held = [
            HeldRun(key=run.key, date=None if run.at is None else to_date(run.at))
            for dag_id in sorted(dag_id for dag_id in named if dag_id is not None)
            for run in self.open[dag_id].values()
            if run.state == "queued"
        ]
        return find_waits(waiters, held, idle=idle)

    def _waiter(self, run: Run, task: Task) -> Waiter | None:
        """Return a task instance as the database shows it; None if it has ended."""
        dag = self.dags_by_id[run.dag_id]
        if task.state not in {"running", "deferred", "scheduled"} or task.other is None:
            return None
        is_known = self.clock.monotonic() >= task.known_at
        fields = (
            {SENSES_FIELD: dag.senses}
            if dag.senses is not None
            else {TRIGGERS_FIELD: dag.triggers, "wait_for_completion": dag.waits}
        )
        return Waiter(
            run=run.key,
            task_id=f"t{TASKS - 1}",
            state=task.state,
            is_dag_paused=run.dag_id in self.paused,
            fields=fields,
            triggered_run_id=task.other[1] if dag.triggers is not None and is_known else None,
            date=None if run.at is None else to_date(run.at),
        )

    def start_waiting_events(self, note: str) -> int:
        self.before_change()
        return self.start_last_events()

    def watchers(self) -> Watchers:
        return self.found_watchers

    def put_first(self, keys: Collection[RunKey]) -> None:
        self.before_change()
        for key in keys:
            if self.rows[key].state == "queued":
                self.rows[key].turn = None

    def read_states(self, *, above: int) -> tuple[int, Mapping[RunKey, str]]:
        rows = self.rows
        states = {run.key: run.state for run in self.by_id[above:] if rows.get(run.key) is run}
        for runs in self.open.values():
            for key, run in runs.items():
                states[key] = run.state
        return len(self.by_id), states

    def runs(self, keys: Collection[RunKey]) -> list[RunRow]:
        found = [self.rows[key] for key in sorted(keys) if key in self.rows]
        return [run.to_row(self._children(run)) for run in found]

    def children(self) -> Mapping[RunKey, tuple[ChildRun, ...]]:
        runs = (run for dag_id in self.requesters for run in self.open[dag_id].values())
        return {run.key: found for run in runs if (found := self._children(run))}

    def _children(self, run: Run) -> tuple[ChildRun, ...]:
        dag, now = self.dags_by_id[run.dag_id], self.clock.monotonic()
        if dag.triggers is None:
            return ()
        return tuple(
            ChildRun(
                dag_id=task.requested[0],
                run_id=task.requested[1] if now >= task.known_at else None,
                is_awaited=dag.waits,
            )
            for task in run.tasks
            if task.requested is not None
        )

    def remove(self, keys: Collection[RunKey]) -> int:
        self.before_change()
        removed = [run for key in sorted(keys) if (run := self.rows.get(key)) is not None and not run.is_open]
        for run in removed:
            self._note(run.key, f"deleted, was {run.state}: its parent requests it again")
            del self.rows[run.key]
        return len(removed)

    def tasks(self, keys: Collection[RunKey], **_: object) -> Mapping[RunKey, Sequence[TaskState]]:
        return {}  # no task here depends on the run before

    def last_finished(self, dag_ids: Collection[str]) -> list[RunRow]:
        found = []
        for dag_id in sorted(dag_ids):
            ended = [at for at, run in self.intervals[dag_id].items() if not (run.is_open or run.is_skipped)]
            if ended:
                found.append(self.intervals[dag_id][max(ended)].to_row())
            of_dag = [run for run in self.rows.values() if run.dag_id == dag_id and run.state == "success"]
            found += [run.to_row() for run in of_dag if run.at is not None and run.at > max(ended, default=-1.0)]
        return found

    def dag_ids(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.dags_by_id) - self.controls))

    def _add_from(self, run: LedgerRun, state: str, note: str) -> None:
        new = self.add(
            run.key,
            run_type=run.run_type,
            at=None if run.logical_date is None else to_seconds(run.logical_date),
            end=None if run.data_interval_end is None else to_seconds(run.data_interval_end),
            state=state,
            queued_at=(run.taken_at or self.local.now()) if state == "queued" else None,
            conf=None if run.conf is None else json.loads(run.conf),
        )
        new.note = note
        new.take_turn()
        if state != "queued":
            new.tasks = []
        every_s = self.dags_by_id[run.dag_id].every_s
        if run.run_type == SCHEDULED and new.at is not None and every_s is not None:
            if new.at < max(self.intervals[run.dag_id]):
                return  # only later runs look back at it
            at = new.at + every_s
            self.next_at[run.dag_id] = max(self.next_at.get(run.dag_id, at), at)

    def adopt(self, runs: Sequence[LedgerRun], note: str) -> int:
        self.before_change()
        adopted = 0
        for run in runs:
            found = self.rows.get(run.key)
            if found is not None and found.is_own_end:
                self._apply(found, run)
            if found is not None or run.logical_date is None:
                continue
            at = to_seconds(run.logical_date)
            intervals = [date for date, each in self.intervals[run.dag_id].items() if not each.is_skipped]
            is_current = run.run_type == SCHEDULED and at >= max(intervals, default=at)
            if not is_current and not (run.status is RunStatus.SUCCESS and at >= self._last_success(run.dag_id)):
                continue
            self._add_from(run, run.status.value, "adopted")
            adopted += 1
        return adopted

    def cannot_resume(self, runs: Sequence[LedgerRun]) -> Mapping[RunKey, str]:
        return {}

    def resume(self, runs: Sequence[LedgerRun], note: str) -> Mapping[RunKey, str]:
        self.before_change()
        for run in runs:
            found = self.rows.get(run.key)
            if found is None:
                self._add_from(run, "queued", "resumed")
            elif not found.is_open and not (found.queued_at is not None and found.queued_at >= run.taken_at):
                self.clear(run.key)
                found.take_turn()
                found.note = "resumed"
        return {}

    def make_room(self, runs: Sequence[LedgerRun]) -> int:
        self.before_change()
        moved = 0
        for dag_id in sorted({run.dag_id for run in runs if self.dags_by_id[run.dag_id].waits_for_past}):
            of_dag = [found for run in runs if run.dag_id == dag_id and (found := self.rows.get(run.key)) is not None]
            queued = [run for run in of_dag if run.state == "queued" and run.at is not None]
            if not queued or dag_id in self.paused:
                continue
            first = min(queued, key=lambda run: run.at or 0.0)
            running = [run for run in self.open[dag_id].values() if run.state == "running"]
            waiting = [run for run in running if (run.at or 0.0) > (first.at or 0.0) and self._is_still(run)]
            if waiting and len(running) >= self.dags_by_id[dag_id].max_active:
                last = min(waiting, key=lambda run: (run.has_begun, -(run.at or 0.0)))
                self.send_back(last)
                last.take_turn()
                first.turn = None
                moved += 1
        return moved

    def _is_still(self, run: Run) -> bool:
        """Whether it has not started, or none of its tasks executes, and none has ended for a minute."""
        return (
            run.waits
            and any(task.state is None for task in run.tasks)
            and all(task.until + STILL_S <= self.clock.monotonic() for task in run.tasks if task.state is not None)
        )

    def apply_outcomes(self, runs: Sequence[LedgerRun], note: str) -> None:
        self.before_change()
        for run in runs:
            found = self.rows.get(run.key)
            if found is not None and not found.is_open:
                self._apply(found, run)

    def _apply(self, found: Run, run: LedgerRun) -> None:
        self._note(run.key, f"gets the outcome {run.status.value}, was {found.state}")
        found.is_marked = False
        self.set_state(found, run.status.value)

    def _last_success(self, dag_id: str) -> float:
        """Return the date of the newest success; the time before the first one if there is none."""
        successes = (run for run in self.rows.values() if run.dag_id == dag_id and run.state == "success")
        return max((run.at for run in successes if run.at is not None), default=-1.0)

    def own_ends(self, *, above: int, up_to: int, limit: int) -> list[RunRow]:
        rows = self.rows
        found = [run for run in self.by_id[above:up_to] if run.is_own_end and rows.get(run.key) is run]
        return [run.to_row() for run in found[:limit]]

    def drop_own_ends(self, row_ids: Collection[int], runs: Sequence[LedgerRun], note: str) -> int:
        self.before_change()
        gone = [run for run in self.by_id if run.id in row_ids and self.rows.get(run.key) is run and run.is_skipped]
        for run in gone:
            self._note(run.key, "deleted: it was ended in a standby")
            del self.rows[run.key]
            if run.run_type == SCHEDULED and run.at is not None:
                del self.intervals[run.dag_id][run.at]
                self.next_at.pop(run.dag_id, None)
        dag_ids = {run.dag_id for run in gone}
        self.adopt([run for run in runs if run.dag_id in dag_ids], note)
        return len(gone)

    def keep_own_ends(self, notes: Mapping[int, str]) -> None:
        self.before_change()
        for run in self.by_id:
            if run.id in notes:
                run.is_marked = False

    def explain(self, notes: Mapping[RunKey, str]) -> None:
        pass

    # -- the engine's side (Environment) ------------------------------------------------------------------------------

    def _answer(self) -> None:
        if not self.is_reachable:
            raise MwaaUnreachableError(f"{self.name} does not answer.")

    def status(self) -> EnvironmentStatus:
        return EnvironmentStatus.AVAILABLE

    def scheduler_is_healthy(self) -> bool:
        self._answer()
        return True

    def dags(self, *, paused: bool | None = None, tag: str | None = None, **_: object) -> Sequence[DagInfo]:
        self._answer()
        return [
            DagInfo(dag_id=dag_id, is_paused=dag_id in self.paused, tags=dag.tags)
            for dag_id, dag in sorted(self.dags_by_id.items())
            if paused in {None, dag_id in self.paused} and (tag is None or tag in dag.tags)
        ]

    def set_paused(self, dag_ids: Collection[str], *, paused: bool, **_: object) -> list[str]:
        self._answer()
        changed = sorted(
            dag_id for dag_id in dag_ids if dag_id in self.dags_by_id and (dag_id in self.paused) != paused
        )
        self.paused = self.paused | set(changed) if paused else self.paused - set(changed)
        if changed and self.world.is_traced:
            self.world.note(None, f"{self.region}: {'paused' if paused else 'unpaused'} {', '.join(changed)}")
        return changed

    def running_runs(self) -> list[RunInfo]:
        self._answer()
        return sorted(
            RunInfo(dag_id=run.dag_id, run_id=run.key[1], state="running")
            for run in self.active.values()
            if run.state == "running"
        )

    def running_tasks(self) -> list[RunInfo]:
        self._answer()
        return sorted(
            RunInfo(dag_id=run.dag_id, run_id=run.key[1], state=run.state)
            for run in self.active.values()
            if run.executes
        )

    def stop_run(self, run: RunInfo) -> bool:
        self._answer()
        found = self.rows[run.dag_id, run.run_id]
        self._end_before_it_is_stopped(found)
        if not found.is_open:
            return False
        self.world.stopped(self.region, self.identity(found))
        self._close(found, "failed")
        return True

    def _end_before_it_is_stopped(self, run: Run) -> None:
        """End a run that has only seconds left, before the engine's call can stop it."""
        now = self.clock.monotonic()
        last = run.tasks[-1]
        if run.state == "running" and last.state == "running" and not last.defer_s and last.until < now + LATE_STOP_S:
            last.until = now
            self._end_body(run, TASKS - 1, last, now)
            self.set_state(run, "failed" if last.state == "failed" else "success")

    def trigger(self, dag_id: str, *, run_id: str, note: str) -> None:
        self._answer()

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        self._answer()
        return "success"
