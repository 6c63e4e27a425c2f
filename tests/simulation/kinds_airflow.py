"""
A simulated Airflow of a certain version, with partitions, backfills, manual runs with dates, and conditions of assets.

What the scheduler creates follows Airflow's rule (airflow_rule.py):

- The next run of a DAG follows its newest run of the types scheduled and backfill
  (``dag_processing/collection.py _get_latest_runs_stmt``, on Airflow 2 ``models/dag.py``). The newest partition is the
  one with the newest partition date (``_get_latest_runs_stmt_partitioned``).
- The scheduler creates no run for a logical date that a run of any type has (``_create_dag_runs``). It does not look
  whether a partition has a run.
- Two runs of a DAG with one id, or with one logical date, violate a constraint of the database, and end the scheduler.

What the provider writes follows plugins/metadata (insertion.py, history.py, resume.py, foreign_runs.py). The rules
that these modules take from the core are called here, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_mwaa_dr.core import translation
from airflow_provider_mwaa_dr.core.bookkeeping import RunRow
from airflow_provider_mwaa_dr.core.ledger import (
    AUTOMATED,
    EVENT_TRIGGERED,
    ChildRun,
    LedgerRun,
    RunEvent,
    RunKey,
    RunStatus,
    mark_of,
)
from airflow_provider_mwaa_dr.core.translation import Era
from tests.simulation.airflow import SCHEDULED, Gate, Run, SimulatedAirflow, SimulatedDag, to_date, to_seconds
from tests.simulation.airflow_rule import (
    RunInfo,
    Timetable,
    isoformat,
    manual_interval,
    next_run,
    run_id,
)

BACKFILL, MANUAL = "backfill", "manual"
DATED = "manual__dated_"
"""The start of the id of a manual run with the date of an interval."""
BACKFILL_RUNS = 2
"""``max_active_runs`` of a backfill."""
_SAME_TIME_S = 60.0


@dataclass(frozen=True)
class KindsDag(SimulatedDag):
    """
    A DAG with a timetable, or with a condition of assets.

    :param needs: assets; an event of each of them starts a run.
    :param emits: the asset that gets an event from each successful run.
    :param first: its start date.
    """

    timetable: Timetable | None = None
    needs: tuple[str, ...] = ()
    emits: str | None = None
    first: float = 0.0


class KindsRun(Run):
    """
    A row of dag_run. ``at`` is its logical date, and ``end`` is ``run_after``.

    :ivar start, stop: its data interval.
    :ivar partition: its partition date.
    :ivar is_adopted: another region executed it; this one wrote it in its own terms.
    """

    __slots__ = ("events", "identity", "is_adopted", "partition", "partition_key", "start", "stop")

    events: tuple[RunEvent, ...] | None

    start: float | None
    stop: float | None
    partition: float | None
    partition_key: str | None
    identity: RunKey
    is_adopted: bool

    @property
    def info(self) -> RunInfo:
        return RunInfo(self.at, self.start, self.stop, self.end or 0.0, self.partition)

    @property
    def is_automated(self) -> bool:
        return self.run_type in AUTOMATED

    @property
    def mark(self) -> float | None:
        return self.at if self.stop is None else self.stop


class Event(NamedTuple):
    """An event of an asset that waits for others. ``queued_at`` is the time of the region's clock."""

    queued_at: datetime
    role: int
    """The number of times that the role had moved."""
    had_role: bool
    """Whether the region had the role, and had reconciled its runs."""


class KindsSchedule:
    """A timetable as the provider uses it."""

    def __init__(self, timetable: Timetable, era: Era, every: float) -> None:
        self._timetable, self._era, self._every = timetable, era, every

    def interval(self, mark: datetime) -> tuple[datetime, datetime]:
        start, end = manual_interval(self._timetable, self._era, self._every, to_seconds(mark))
        return to_date(start), to_date(end)

    def next_start(self, start: datetime, end: datetime) -> datetime | None:
        last = RunInfo(to_seconds(start), to_seconds(start), to_seconds(end), to_seconds(end))
        found = next_run(self._timetable, self._era, self._every, last, now=0.0, catchup=True, first=-math.inf).at
        return None if found is None else to_date(found)


class KindsAirflow(SimulatedAirflow):
    """The Airflow of one region, of one era of versions."""

    dags_by_id: dict[str, Any]

    def __init__(self, region: str, dags: Sequence[SimulatedDag], world: Any, clock: Any, era: Era) -> None:
        super().__init__(region, dags, world, clock)
        self.era = era
        self.planned = {dag_id: dag for dag_id, dag in self.dags_by_id.items() if getattr(dag, "timetable", None)}
        self.conditions = {dag_id: dag for dag_id, dag in self.dags_by_id.items() if getattr(dag, "needs", ())}
        self.dates: dict[str, dict[float, KindsRun]] = {dag_id: {} for dag_id in self.dags_by_id}
        self.parts: dict[str, list[KindsRun]] = {dag_id: [] for dag_id in self.dags_by_id}
        self.next: dict[str, RunInfo | None] = dict.fromkeys(self.planned)
        self.waiting: dict[str, dict[str, Event]] = {dag_id: {} for dag_id in self.conditions}
        self.parse_s = world.rng.choice([6.0, 10.0, 15.0])
        self.parsed_at = -math.inf

    # -- rows -----------------------------------------------------------------------------------------------------

    def identity(self, run: Run) -> RunKey:
        return run.identity  # type: ignore[attr-defined, no-any-return]

    def add(
        self,
        key: RunKey,
        *,
        run_type: str,
        at: float | None,
        end: float | None,
        start: float | None = None,
        stop: float | None = None,
        partition: float | None = None,
        partition_key: str | None = None,
        events: tuple[RunEvent, ...] | None = None,
        **values: Any,
    ) -> KindsRun:
        assert key not in self.rows, f"the scheduler of {self.region} ends: UniqueViolation: two runs {' '.join(key)}"
        dates = self.dates[key[0]]
        assert at is None or at not in dates, (
            f"the scheduler of {self.region} ends: UniqueViolation: two runs of {key[0]} with the date {at}"
        )
        values.setdefault("queued_at", self.local.now())
        run = KindsRun(len(self.by_id) + 1, key, run_type=run_type, at=at, end=end, **values)
        run.start, run.stop, run.partition, run.partition_key = start, stop, partition, partition_key
        run.is_adopted, run.events = False, events
        run.identity = self._identity_of(run)
        self.rows[key] = run
        self.by_id.append(run)
        if at is not None:
            dates[at] = run
        if partition is not None:
            self.parts[key[0]].append(run)
        if run.is_open:
            self.open[run.dag_id][key] = run
        self.world.has_row(self.region, run)
        if self.world.is_traced:
            self.world.note(run.identity, f"{self.region} new row {key[1]}, {run.state}, at {at}, {start} to {stop}")
        return run

    def _identity_of(self, run: KindsRun) -> RunKey:
        dag = self.dags_by_id[run.dag_id]
        if run.is_automated and run.partition is not None:
            return run.dag_id, f"partition {run.partition:g}"
        if run.is_automated and run.mark is not None:
            return run.dag_id, f"mark {round(run.mark):g}"
        if run.key[1].startswith(DATED) and run.at is not None:
            # Whatever its interval is, the scheduler creates no run for its logical date.
            return run.dag_id, f"mark {mark_of_date(dag, self.era, run.at):g}"
        return run.key

    def _remove(self, run: KindsRun) -> None:
        del self.rows[run.key]
        if run.at is not None:
            del self.dates[run.dag_id][run.at]
        if run.partition is not None:
            self.parts[run.dag_id].remove(run)
        self.open[run.dag_id].pop(run.key, None)

    def _note(self, key: RunKey, text: str) -> None:
        if self.world.is_traced:
            run: Any = self.rows.get(key)
            self.world.note(key if run is None else run.identity, f"{self.region} {text}")

    def to_row(self, run: KindsRun, children: tuple[ChildRun, ...] = ()) -> RunRow:
        date = lambda at: None if at is None else to_date(at)  # noqa: E731
        return RunRow(
            id=run.id,
            dag_id=run.dag_id,
            run_id=run.key[1],
            run_type=run.run_type,
            state=run.state,
            logical_date=date(run.at),
            data_interval_start=date(run.start),
            data_interval_end=date(run.stop),
            run_after=None if self.era is Era.AIRFLOW_2 else date(run.end),
            partition_key=run.partition_key,
            partition_date=date(run.partition),
            queued_at=run.queued_at,
            conf=run.conf,
            is_skipped=run.is_skipped,
            holds_date=self._holds_date(run),
            events=run.events,
            children=children,
        )

    def _holds_date(self, run: KindsRun) -> bool:
        if run.at is None or run.is_automated or run.dag_id not in self.planned:
            return False
        is_request = run.at % 1 != 0 and run.queued_at is not None
        return not (is_request and abs((to_date(run.at) - run.queued_at).total_seconds()) < _SAME_TIME_S)

    def runs(self, keys: Collection[RunKey]) -> list[RunRow]:
        found: list[Any] = [self.rows[key] for key in sorted(keys) if key in self.rows]
        return [self.to_row(run, self._children(run)) for run in found]

    def remove(self, keys: Collection[RunKey]) -> int:
        self.before_change()
        removed: list[Any] = [run for key in sorted(keys) if (run := self.rows.get(key)) and not run.is_open]
        for run in removed:
            self._note(run.key, f"deleted, was {run.state}: its parent requests it again")
            self._remove(run)
        return len(removed)

    def newest(self, dag_id: str) -> KindsRun | None:
        """Return the run after which the scheduler continues."""
        if self.dags_by_id[dag_id].timetable is Timetable.PARTITION:
            parts = [run for run in self.parts[dag_id] if run.is_automated]
            return max(parts, key=lambda run: (run.partition or 0.0, run.end or 0.0), default=None)
        dates = [at for at, run in self.dates[dag_id].items() if run.is_automated]
        return self.dates[dag_id][max(dates)] if dates else None

    # -- the scheduler and the DAG processor --------------------------------------------------------------------------

    def _next_after(self, dag: KindsDag, last: RunInfo | None, now: float) -> RunInfo:
        assert dag.timetable is not None
        assert dag.every_s is not None
        return next_run(dag.timetable, self.era, dag.every_s, last, now=now, catchup=dag.catchup, first=dag.first)

    def parse(self) -> None:
        """The DAG processor computes the next run of each DAG from the newest row."""
        now = self.local.wall_s()
        self.parsed_at = self.clock.monotonic()
        for dag_id, dag in self.planned.items():
            newest = self.newest(dag_id)
            self.next[dag_id] = self._next_after(dag, None if newest is None else newest.info, now)

    def schedule(self, gate: Gate) -> None:
        if self.clock.monotonic() - self.parsed_at >= self.parse_s:
            self.parse()
        now = self.local.wall_s()
        paused = self.paused
        if len(paused) + len(self.controls) == len(self.dags_by_id) and not paused & self.controls:
            return
        for dag_id, dag in self.dags_by_id.items():
            if dag_id in paused:
                continue
            waiting: dict[RunKey, Any] = self.open[dag_id]
            if dag_id in self.planned:
                self._create_due(dag, waiting, now)
            elif dag_id in self.conditions:
                self._create_for_events(dag, waiting, now)
            if waiting:
                self._start_queued(dag, waiting, now, gate)

    def _start_queued(self, dag: SimulatedDag, waiting: Mapping[RunKey, KindsRun], now: float, gate: Gate) -> None:
        """``get_queued_dag_runs_to_set_running``: runs of a backfill come last, and have a limit of their own."""
        is_due = (lambda run: (run.at or 0.0) <= now) if self.era is Era.AIRFLOW_2 else (lambda run: run.end <= now)
        queued = [run for run in waiting.values() if run.state == "queued" and is_due(run)]
        if not queued:
            return
        room = {False: dag.max_active, True: 0 if self.era is Era.AIRFLOW_2 else BACKFILL_RUNS}
        for run in waiting.values():
            if run.state == "running":
                room[run.run_type == BACKFILL] -= 1
        queued.sort(key=lambda run: (run.run_type == BACKFILL, run.turn is not None, run.turn or 0.0, run.end or 0.0))
        for run in queued:
            if room[run.run_type == BACKFILL] > 0:
                room[run.run_type == BACKFILL] -= self._start(run, gate(run))

    def _create_due(self, dag: KindsDag, waiting: Mapping[RunKey, KindsRun], now: float) -> None:
        """``_create_dag_runs``: at most one run of a DAG in each loop."""
        info = self.next[dag.dag_id]
        if info is None or info.due > now:
            return
        counts_all = self.era is Era.AIRFLOW_2
        if sum(counts_all or run.run_type != BACKFILL for run in waiting.values()) >= dag.max_active:
            return
        last = info
        found = None if info.at is None else self.dates[dag.dag_id].get(info.at)
        if found is None:
            self._create_run(dag, SCHEDULED, info)
        elif self.era is Era.AIRFLOW_3_2:
            last = found.info
        self.next[dag.dag_id] = self._next_after(dag, last, now)

    def _create_run(self, dag: KindsDag, run_type: str, info: RunInfo) -> KindsRun:
        key = (dag.dag_id, run_id(run_type, info, self.era, self.world.new_number()))
        run = self.add(
            key,
            run_type=run_type,
            at=info.at,
            end=info.due,
            start=info.start,
            stop=info.end,
            partition=info.partition,
            partition_key=None if info.partition is None else isoformat(info.partition),
        )
        self.world.has_been_made(run)
        if run_type == SCHEDULED:
            self.world.created(self.region, run.identity)
        return run

    def _create_for_events(self, dag: KindsDag, waiting: Mapping[RunKey, KindsRun], now: float) -> None:
        """``dags_needing_dagruns`` and ``_create_dag_runs_asset_triggered``."""
        events = self.waiting[dag.dag_id]
        if len(events) < len(dag.needs) or len(waiting) >= dag.max_active:
            return
        self.world.condition_is_met(self.region, dag.dag_id, events)
        consumed = tuple(
            RunEvent(uri=asset, name=None, group=None, at=event.queued_at, extra="{}")
            for asset, event in events.items()
        )
        events.clear()
        kind = "dataset_triggered" if self.era is Era.AIRFLOW_2 else "asset_triggered"
        key = (dag.dag_id, f"{kind}__{self.region}_{self.world.new_number()}")
        at = round(now, 6) if self.era is Era.AIRFLOW_2 else None
        run = self.add(key, run_type=kind, at=at, end=now, start=at, stop=at, events=consumed)
        self.world.has_been_made(run)
        self.world.created(self.region, run.identity)

    def start_waiting_events(self, note: str) -> int:
        """The adapter has this rule: plugins/metadata/starting_events.py. Airflow 2 has no rows that it could use."""
        self.before_change()
        if self.era is not Era.AIRFLOW_2:
            for dag in self.conditions.values():
                self._create_for_events(dag, {}, self.local.wall_s())
        return 0

    def _fire(self, run: Run) -> None:
        asset = getattr(self.dags_by_id[run.dag_id], "emits", None)
        if asset is not None:
            self.event(asset)

    def event(self, asset: str) -> None:
        """An asset has an event: each unpaused consumer remembers it (``AssetManager.register_asset_change``)."""
        for dag_id, dag in self.conditions.items():
            if asset in dag.needs and dag_id not in self.paused:
                event = Event(self.local.now(), self.world.roles, self.world.has_role(self.region))
                self.waiting[dag_id].setdefault(asset, event)
                self.world.note(None, f"{self.region}: {asset} has an event, for {dag_id}")

    # -- users ------------------------------------------------------------------------------------------------------

    def trigger_by_hand(self, dag_id: str, number: int) -> RunKey:
        key = (dag_id, f"{MANUAL}__{number}")
        at = round(self.clock.monotonic() + 0.000123, 6)
        start, stop = (at, at) if self.era is Era.AIRFLOW_2 else (None, None)
        date = self.date_of_request(dag_id, at)
        self.add(key, run_type=MANUAL, at=date, end=at, start=start, stop=stop, conf={"n": number})
        return key

    def date_of_request(self, dag_id: str, at: float) -> float | None:
        """On Airflow 2, the time of the request, with microseconds; none on Airflow 3."""
        if self.era is not Era.AIRFLOW_2:
            return None
        while at in self.dates[dag_id]:
            at = round(at + 0.000001, 6)
        return at

    def trigger_partition(self, dag_id: str, partition: float, number: int) -> KindsRun:
        """A user requests a run with a partition key. The scheduler creates the run of the partition all the same."""
        now = round(self.local.wall_s(), 6)
        return self.add(
            (dag_id, f"{MANUAL}__{number}"), run_type=MANUAL, at=None, end=now, conf={"n": number},
            partition=partition, partition_key=isoformat(partition),
        )  # fmt: skip

    def trigger_date(self, dag_id: str, at: float, number: int, *, with_interval: bool) -> KindsRun | None:
        """A user requests a run for the logical date of an interval. Airflow refuses a date that a run has."""
        dag = self.dags_by_id[dag_id]
        if at in self.dates[dag_id]:
            return None
        start, stop = manual_interval(dag.timetable, self.era, dag.every_s, at)
        if with_interval:
            start, stop = at, mark_of_date(dag, self.era, at)
        run = self.add(
            (dag_id, f"{DATED}{number}"), run_type=MANUAL, at=at, conf={"n": number}, start=start, stop=stop,
            end=at if self.era is Era.AIRFLOW_2 else round(self.local.wall_s(), 6),
        )  # fmt: skip
        self.world.has_been_made(run)
        return run

    def backfill(self, dag_id: str, infos: Sequence[RunInfo]) -> list[KindsRun]:
        """A user starts a backfill, which creates no run for a date or a partition date that a run has."""
        dag = self.dags_by_id[dag_id]
        now = self.local.wall_s()
        made = []
        for info in infos:
            taken = (
                info.at in self.dates[dag_id]
                if info.at is not None
                else any(run.partition == info.partition for run in self.parts[dag_id])
            )
            if not taken and info.due < now:
                made.append(self._create_run(dag, BACKFILL, info))
        return made

    # -- the agent's side: what the database has (plugins/metadata) -------------------------------------------------

    def close_runs(self, note: str, *, queued_for_s: float = 0.0, spared_since: datetime | None = None) -> int:
        self.drop_waiting_events(spared_since)
        return super().close_runs(note, queued_for_s=queued_for_s, spared_since=spared_since)

    def drop_waiting_events(self, spared_since: datetime | None) -> None:
        for dag_id, events in self.waiting.items():
            gone = {
                asset: event
                for asset, event in events.items()
                if spared_since is None or event.queued_at < spared_since
            }
            if gone:
                self.before_change()
                self.world.events_are_dropped(self.region, dag_id, gone)
                for asset in gone:
                    del events[asset]

    def last_finished(self, dag_ids: Collection[str]) -> list[RunRow]:
        found: list[KindsRun] = []
        for dag_id in sorted(set(dag_ids) & self.planned.keys()):
            over = [run for run in self.dates[dag_id].values() if not (run.is_open or run.is_skipped)]
            ended = [run for run in over if run.is_automated]
            newest = max(ended, key=lambda run: run.at or 0.0, default=None)
            found += [] if newest is None else [newest]
            after = -math.inf if newest is None or newest.at is None else newest.at
            found += [run for run in over if (run.at or 0.0) > after and self._holds_date(run)]
            parts = [run for run in self.parts[dag_id] if run.is_automated and not (run.is_open or run.is_skipped)]
            found += sorted(parts, key=lambda run: run.partition or 0.0)[-1:]
            successes = [run for run in over if run.state == "success" and (run.at or 0.0) > after]
            found += [run for run in successes if run not in found]
        return [self.to_row(run) for run in found]

    # Translation of runs of another era.

    def _schedule_of(self, run: LedgerRun) -> KindsSchedule | None:
        dag = self.planned.get(run.dag_id)
        return None if dag is None else KindsSchedule(dag.timetable, self.era, dag.every_s)

    def _forms(self, run: LedgerRun) -> Sequence[LedgerRun]:
        schedule = self._schedule_of(run)
        if schedule is None or not translation.is_of_other_era(run):
            return ()
        return translation.own_forms(run, schedule, self.era)

    def _exists(self, form: LedgerRun) -> bool:
        row: Any = self.rows.get(form.key)
        return row is not None and row.mark is not None and to_date(row.mark) == mark_of(form)

    def _why_row_taken(self, run: LedgerRun) -> str | None:
        """``Taken.why_taken``."""
        if run.logical_date is not None:
            other = self.dates[run.dag_id].get(to_seconds(run.logical_date))
            if other is not None and other.key != run.key:
                return f"another run has its logical date: {other.key[1]}"
        if _is_partition(run):
            for row in self.parts[run.dag_id]:
                is_same = row.is_automated and row.partition_key == run.partition_key and not row.is_skipped
                if is_same and row.key != run.key:
                    return f"another run has its partition: {row.key[1]}"
        return None

    def _why_taken(self, run: LedgerRun) -> str | None:
        """``Translation.why_taken``."""
        if not translation.is_of_other_era(run):
            return self._why_row_taken(run)
        if run.key in self.rows:
            return None
        for form in self._forms(run):
            if self._exists(form) and self.rows[form.key].is_open:
                return f"another run has its interval: {form.run_id}"
        return None

    def _is_date_taken(self, run: LedgerRun) -> Callable[[datetime], bool]:
        dates = self.dates[run.dag_id]
        return lambda at: to_seconds(at) in dates

    def _dated(self, run: LedgerRun) -> LedgerRun:
        if run.logical_date is not None or self.era is not Era.AIRFLOW_2:
            return run
        at = translation.free_date(run.run_after or self.local.now(), self._is_date_taken(run))
        return replace(run, logical_date=at)

    def _to_adopt(self, run: LedgerRun) -> LedgerRun:
        if run.key in self.rows:
            return run
        forms = self._forms(run)
        free = [form for form in forms if form.key not in self.rows and self._why_row_taken(form) is None]
        fitting = [*filter(self._exists, forms), *free]
        return fitting[0] if fitting else self._dated(run)

    def _to_resume(self, run: LedgerRun) -> LedgerRun:
        if not translation.is_of_other_era(run):
            return self._dated(run)
        at = translation.resumed_at(run, self._schedule_of(run), self._is_date_taken(run))
        return replace(run, logical_date=at)

    def _remove_copies(self, run: LedgerRun) -> None:
        """``Translation.copies``: the result that this region adopted before another region began the run again."""
        for form in self._forms(run):
            row: Any = self.rows.get(form.key)
            if row is not None and self._exists(form) and not row.is_open and row.queued_at is None:
                self._note(row.key, "its adopted result is deleted: it runs again")
                self._remove(row)

    # Writing runs.

    def _insert(self, run: LedgerRun, state: str, note: str, *, is_next: bool = True) -> None:
        date = lambda at: None if at is None else to_seconds(at)  # noqa: E731
        newer = [row.mark for row in self.dates[run.dag_id].values() if row.is_automated and row.mark is not None]
        due = run.run_after or run.data_interval_end or run.logical_date or self.local.now()
        row = self.add(
            run.key,
            run_type=self._existing_type(run.run_type),
            at=date(run.logical_date),
            end=to_seconds(due),
            start=date(run.data_interval_start),
            stop=date(run.data_interval_end),
            partition=date(run.partition_date),
            partition_key=run.partition_key,
            state=state,
            queued_at=(run.taken_at or self.local.now()) if state == "queued" else None,
            conf=None if run.conf is None else json.loads(run.conf),
            events=(run.events or ()) if run.run_type in EVENT_TRIGGERED else None,
        )
        if state == "queued":
            self._check_no_copy(row)
        if row.events == ():
            self.world.events.pop(row.identity, None)  # only unfinished runs have their events in the ledger
        row.note = note
        row.is_adopted = state != "queued"
        if row.is_adopted:
            self.world.has_been_made(row)  # another region may have to resume it in these terms
        row.take_turn()
        if state != "queued":
            row.tasks = []
        following = self.next.get(run.dag_id)
        if not is_next:
            return  # only later runs look back at it
        if _is_partition(run):
            if following is None or (following.partition or 0.0) <= (row.partition or 0.0):
                self.next[run.dag_id] = None
        elif (
            row.is_automated
            and row.mark is not None
            and (following is None or max(newer, default=-math.inf) <= row.mark)
        ):
            self.next[run.dag_id] = row.info

    def _check_no_copy(self, row: KindsRun) -> None:
        """The region must not show the adopted result of a run beside the run: a user could start both."""
        for other in self.dates[row.dag_id].values():
            is_copy = other.identity == row.identity and not other.is_open and other.queued_at is None
            if is_copy and other is not row:
                self.world.broken[" ".join(row.identity)] = f"has two rows in {self.region}"

    def _existing_type(self, run_type: str) -> str:
        events = "dataset_triggered" if self.era is Era.AIRFLOW_2 else "asset_triggered"
        return events if run_type.endswith("set_triggered") else run_type

    def _is_current(self, run: LedgerRun) -> bool:
        """``history._currency``: whether it is at least as new as all intervals of its DAG."""
        if _is_partition(run):
            parts = [row for row in self.parts[run.dag_id] if row.is_automated and not row.is_skipped]
            known = [row.partition for row in parts if row.partition is not None]
            at = run.partition_date
        else:
            rows = [row for row in self.dates[run.dag_id].values() if row.is_automated and not row.is_skipped]
            is_automated = run.run_type in AUTOMATED
            known = [row.mark if is_automated else row.at for row in rows]  # type: ignore[misc]
            at = mark_of(run) if is_automated else run.logical_date
        return at is None or not known or max(known) <= to_seconds(at)

    def _is_success(self, run: LedgerRun) -> bool:
        """``history._last_successes``: whether it succeeded after all other runs of its DAG that did."""
        if run.status is not RunStatus.SUCCESS or run.logical_date is None or _is_partition(run):
            return False
        successes = [at for at, row in self.dates[run.dag_id].items() if row.state == "success"]
        return to_seconds(run.logical_date) >= max(successes, default=-math.inf)

    def adopt(self, runs: Sequence[LedgerRun], note: str) -> int:
        self.before_change()
        pairs = [(run, self._to_adopt(run)) for run in runs]
        wanted = [(run, row, self._is_current(row), self._is_success(row)) for run, row in pairs]
        adopted = 0
        for run, row, is_current, is_success in wanted:
            found: Any = self.rows.get(row.key)
            if found is not None:
                if found.is_own_end:
                    self._apply(found, row)
                    found.is_adopted = True
            elif is_current or is_success:
                if _is_partition(row) and self.era is not Era.AIRFLOW_3_2:
                    continue
                if self._why_row_taken(row) is None:
                    self._insert(row, row.status.value, "adopted", is_next=is_current)
                    self.world.is_handled(self.region, run, "adopted")
                    adopted += 1
        return adopted

    def cannot_resume(self, runs: Sequence[LedgerRun]) -> Mapping[RunKey, str]:
        refused = {}
        for run in runs:
            why = self._why_taken(run)
            if run.run_type == BACKFILL and self.era is Era.AIRFLOW_2:
                why = "before Airflow 3, only the command that started a backfill can continue it"
            if why is not None:
                refused[run.key] = why
                self.world.is_handled(self.region, run, "listed")
        return refused

    def resume(self, runs: Sequence[LedgerRun], note: str) -> Mapping[RunKey, str]:
        self.before_change()
        refused = {}
        for run in runs:
            why = self._why_taken(run)
            if why is not None:
                refused[run.key] = why
                continue
            found: Any = self.rows.get(run.key)
            if found is None:
                self._remove_copies(run)
                row = self._to_resume(run)
                if (why := self._why_row_taken(row)) is not None:
                    refused[run.key] = why
                    continue
                self._insert(row, "queued", "resumed")
                self.world.is_handled(self.region, run, "resumed")
            elif not found.is_open and not (found.queued_at is not None and found.queued_at >= run.taken_at):
                self.clear(run.key)
                found.take_turn()
                found.note = "resumed"
                self.world.is_handled(self.region, run, "resumed")
        return refused

    def make_room(self, runs: Sequence[LedgerRun]) -> int:
        return 0  # no DAG here depends on its past

    def own_ends(self, *, above: int, up_to: int, limit: int) -> list[RunRow]:
        rows = self.rows
        found: list[Any] = [run for run in self.by_id[above:up_to] if run.is_own_end and rows.get(run.key) is run]
        return [self.to_row(run) for run in found[:limit]]

    def drop_own_ends(self, row_ids: Collection[int], runs: Sequence[LedgerRun], note: str) -> int:
        self.before_change()
        gone: list[Any] = [
            run for run in self.by_id if run.id in row_ids and self.rows.get(run.key) is run and run.is_skipped
        ]
        for run in gone:
            self._note(run.key, "deleted: it was ended in a standby")
            self._remove(run)
        dag_ids = {run.dag_id for run in gone}
        self.adopt([run for run in runs if run.dag_id in dag_ids], note)
        for dag_id in {run.dag_id for run in gone if run.is_automated} & self.planned.keys():
            newest = None if self.dags_by_id[dag_id].timetable is Timetable.PARTITION else self.newest(dag_id)
            self.next[dag_id] = None if newest is None else newest.info
        return len(gone)

    def _check_unchanged(self, run: Run) -> None:
        self.world.check_unchanged(run)


def _is_partition(run: LedgerRun) -> bool:
    return run.partition_key is not None and run.run_type in AUTOMATED


def mark_of_date(dag: KindsDag, era: Era, at: float) -> float:
    """Return the time at which the interval with a logical date is due."""
    assert dag.timetable is not None
    assert dag.every_s is not None
    return at + (dag.every_s if dag.timetable.has_intervals(era) else 0)
