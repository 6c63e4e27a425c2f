"""
Cost of a turn of the agent with 10,000 DAGs: ``python -m tests.benchmarks.adoption``.

It uses the tables of a real Airflow 3.3.1 in an embedded PostgreSQL, with 20 ended runs of each DAG. The runs table is
in memory, and its calls are counted. Database time is the time between each statement and its answer. The figures are
in build/bench/adoption.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import count
from types import SimpleNamespace
from typing import Any

from tests.benchmarks.airflow_tables import measure_inside
from tests.benchmarks.report import Report

VERSION = "3.3.1"
SIZES = (10, 100, 1000, 10_000)
DAGS, RUNS = int(os.environ.get("BENCH_DAGS", SIZES[-1])), 20
LOOKING_BACK = 0.05
"""Proportion of the DAGs with depends_on_past."""
GOAL_MS = 100
ADOPTION_GOAL_S = 60
TURNS = 9
AT = datetime(2026, 10, 1, tzinfo=timezone.utc)
HERE, THERE = "us-east-1", "us-east-2"

FILL = f"""
insert into dag_bundle (name, active) values ('dags-folder', true) on conflict do nothing;
insert into dag (dag_id, is_paused, is_stale, bundle_name, max_active_tasks, max_active_runs,
                 has_task_concurrency_limits, max_consecutive_failed_dag_runs, next_dagrun,
                 exceeds_max_non_backfill, fail_fast, timetable_type, partition_mapper_info)
  select 'dag_' || lpad(d::text, 5, '0'), false, false, 'dags-folder', 16, 16, false, 0,
         timestamptz '{AT.isoformat()}' + interval '1 day' * {RUNS}, false, false, '', '{{}}'
  from generate_series(0, {DAGS} - 1) d;
insert into dag_version (id, version_number, dag_id, bundle_name, created_at, last_updated)
  select gen_random_uuid(), v, dag_id, 'dags-folder', now(), now() from dag, generate_series(1, 3) v;
insert into serialized_dag (id, dag_id, data, created_at, last_updated, dag_hash, dag_version_id)
  select gen_random_uuid(), dag_id,
         jsonb_build_object('dag', jsonb_build_object('tasks', (
           select jsonb_agg(jsonb_build_object('task_id', 'task_' || t, 'bash_command', md5(dag_id || t),
                            'depends_on_past', right(dag_id, 5)::int < {DAGS} * {LOOKING_BACK}))
           from generate_series(1, 20) t))),
         now(), now(), md5(dag_id || version_number), id
  from dag_version;
insert into dag_run (dag_id, run_id, run_type, state, logical_date, data_interval_start, data_interval_end, run_after,
                     start_date, end_date, queued_at, last_scheduling_decision, conf, clear_number, updated_at)
  select dag_id, 'scheduled__' || r, 'scheduled', 'success', day, day, day + interval '1 day', day + interval '1 day',
         day, day, day, day, '{{}}', 0, day
  from (select r, timestamptz '{AT.isoformat()}' + interval '1 day' * r as day
        from generate_series(0, {RUNS} - 1) r) r, dag
  order by r, dag_id;
insert into task_instance (id, task_id, dag_id, run_id, map_index, state, pool, pool_slots, try_number, max_tries,
                           hostname, start_date, end_date, updated_at)
  select gen_random_uuid(), 'task_' || t, dag_id, run_id, -1, state, 'default_pool', 1, 1, 0,
         'worker', start_date, end_date, updated_at
  from dag_run, generate_series(1, 2) t;
insert into job (id, state, job_type, start_date, latest_heartbeat, hostname) values
  (1, 'running', 'SchedulerJob', now(), now() + interval '1 day', 'here');
analyze;
"""


@dataclass(slots=True)
class Cost:
    """The cost of one turn."""

    statements: list[tuple[float, str]] = field(default_factory=list)
    ledger: list[str] = field(default_factory=list)
    turn_s: float = 0.0
    rest_s: float = 0.0
    """Time until the next turn."""

    @property
    def database_ms(self) -> float:
        return 1000 * sum(seconds for seconds, _ in self.statements)

    def __str__(self) -> str:
        return (
            f"{self.database_ms:7.1f} ms of database time in {len(self.statements)} statements, "
            f"{len(self.ledger)} calls of the runs table, {1000 * self.turn_s:7.1f} ms altogether"
        )


class Bench:
    """One region with its database, and the ledger of another region."""

    def __init__(self, engine: Any) -> None:
        from airflow_provider_mwaa_dr.core.state import initial
        from airflow_provider_mwaa_dr.plugins.metadata.database import MetadataDb
        from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, ManualClock

        self.engine, self.clock, self.runs = engine, ManualClock(), InMemoryRunsStore()
        self.db = MetadataDb(
            SimpleNamespace(id=1, job_type="SchedulerJob", latest_heartbeat=0), exempt_dags=["dr_failover"]
        )
        self.initial = initial

    def loop(self, active: str) -> Any:
        """Return a new agent whose region has reconciled the state's epoch."""
        from airflow import __version__ as airflow_version

        from airflow_provider_mwaa_dr.agent.loop import AgentLoop
        from airflow_provider_mwaa_dr.agent.ports import GateCounts
        from airflow_provider_mwaa_dr.core.config import DRConfig
        from airflow_provider_mwaa_dr.core.ports import Registration
        from airflow_provider_mwaa_dr.testing import InMemoryStateStore

        store = InMemoryStateStore(self.initial(active, lease_s=60, by="bench", at=AT), regions=(HERE, THERE))
        for region in (HERE, THERE):
            store.register(Registration(region=region, environment=region, account=""))
        config = DRConfig(enabled=True, region=HERE, state_table="t", runs_table="r", environments={})
        return AgentLoop(
            config=config,
            store=store,
            runs=self.runs,
            db=self.db,
            clock=self.clock,
            counts=GateCounts(),
            airflow_version=airflow_version,
        )

    @contextmanager
    def measured(self) -> Iterator[Cost]:
        from sqlalchemy import event

        cost, started = Cost(), [0.0]

        def before(*_: Any) -> None:
            started[0] = time.perf_counter()

        def after(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            cost.statements.append((time.perf_counter() - started[0], statement))

        self.runs.calls.clear()
        event.listen(self.engine, "before_cursor_execute", before)
        event.listen(self.engine, "after_cursor_execute", after)
        began = time.perf_counter()
        try:
            yield cost
        finally:
            cost.turn_s = time.perf_counter() - began
            cost.ledger = list(self.runs.calls)
            event.remove(self.engine, "before_cursor_execute", before)
            event.remove(self.engine, "after_cursor_execute", after)

    def turns(self, what: str, turn: Callable[[], object], *, times: int = TURNS) -> list[Cost]:
        """Measure some turns, one for each refresh; print the median turn, and the most expensive statements."""
        costs = []
        for _ in range(times):
            self.clock.sleep(5)
            with self.measured() as cost:
                turn()
            costs.append(cost)
        ordered = sorted(costs, key=lambda cost: cost.database_ms)
        print(f"{what}:\n  median   {ordered[len(costs) // 2]}\n  maximum  {ordered[-1]}", file=sys.stderr)
        for seconds, statement in sorted(ordered[-1].statements, reverse=True)[:3]:
            print(f"    {1000 * seconds:6.1f} ms  {' '.join(statement.split())[:150]}", file=sys.stderr)
        return costs

    def adopt_all(self, standby: Any) -> list[Cost]:
        """Let a standby adopt the history of all DAGs; return the cost of its turns."""
        costs: list[Cost] = []
        while (
            not costs
            or standby._leader.ledger.bookkeeper._peers.to_adopt
            or not standby._leader.ledger.bookkeeper._peers.ledgers
        ):
            with self.measured() as cost:
                cost.rest_s = standby.turn()
            self.clock.sleep(cost.rest_s)
            costs.append(cost)
        return costs

    def publish_history(self, day: int) -> None:
        """Let the other region publish that the interval of a day has ended, for every DAG."""
        from airflow_provider_mwaa_dr.core.batches import batched
        from airflow_provider_mwaa_dr.core.bookkeeping import Bookkeeper
        from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RunStatus

        bookkeeper = Bookkeeper(self.runs, self.db, self.clock, region=THERE, peers=lambda: ())
        at = AT + timedelta(days=day)
        for number, dags in enumerate(batched(range(DAGS), 200), start=bookkeeper._own.load().number + 1):
            runs = tuple(
                LedgerRun(
                    dag_id=f"dag_{dag:05}",
                    run_id=f"scheduled__{day}",
                    run_type="scheduled",
                    status=RunStatus.SUCCESS,
                    epoch=0,
                    logical_date=at,
                    data_interval_start=at,
                    data_interval_end=at + timedelta(days=1),
                    run_after=at + timedelta(days=1),
                    tasks=tuple((f"task_{t}", -1, "success") for t in range(20)) if dag < DAGS * LOOKING_BACK else (),
                )
                for dag in dags
            )
            entry = LogEntry(number=number, at=self.clock.now(), epoch=0, first_id=0, newest_id=0, runs=runs)
            self.runs.append(THERE, replace(entry, complete_before=0))


def inside() -> None:
    """Fill the tables, measure, and print the figures as JSON. Runs in Airflow's environment."""
    from airflow import settings

    bench = Bench(settings.engine)
    with bench.engine.begin() as connection:
        connection.exec_driver_sql(FILL)
    with bench.engine.connect() as connection:
        counted = {
            table: connection.exec_driver_sql(f"select count(*) from {table}").scalar()
            for table in ("dag", "dag_run", "task_instance", "serialized_dag")
        }
    print(f"filled: {counted}", file=sys.stderr)
    figures: dict[str, Any] = {}

    def keep(name: str, costs: list[Cost]) -> None:
        figures[name] = {
            "database_ms": [round(cost.database_ms, 2) for cost in costs],
            "statements": [len(cost.statements) for cost in costs],
            "ledger_calls": [len(cost.ledger) for cost in costs],
            "turn_ms": [round(1000 * cost.turn_s, 1) for cost in costs],
        }

    bench.publish_history(RUNS - 1)
    standby = bench.loop(active=THERE)
    bench.adopt_all(standby)
    keep("adoption, nothing new", bench.turns("adoption alone, nothing new", lambda: adoption(standby)))
    keep("standby, nothing new", bench.turns("standby, the agent's whole turn, nothing new", standby.turn, times=25))
    bench.publish_history(RUNS)
    first = bench.adopt_all(standby)
    keep("standby, 500 heads new", first)
    figures["adoption_s"] = sum(cost.turn_s + cost.rest_s for cost in first)
    with bench.engine.connect() as connection:
        adopted = connection.exec_driver_sql(
            f"select count(*) from dag_run where run_id = 'scheduled__{RUNS}'"
        ).scalar()
    assert adopted == DAGS, adopted
    total = sum(cost.database_ms for cost in first)
    print(f"  adopted {adopted} runs in {total:.0f} ms of database time", file=sys.stderr)
    active = bench.loop(active=HERE)
    keep("active, first turns", bench.turns("active, its first turns (all DAGs are new to it)", active.turn, times=3))
    keep("active, nothing new", bench.turns("active, the agent's whole turn, nothing new", active.turn, times=25))

    number = count()

    def ended_and_published() -> None:
        with bench.engine.begin() as connection:
            connection.exec_driver_sql(
                "insert into dag_run (dag_id, run_id, run_type, state, logical_date, run_after, conf, clear_number) "
                f"select dag_id, 'new__{next(number)}', 'manual', 'success', null, now(), '{{}}', 0 from dag limit 50"
            )
        active.turn()

    keep(
        "active, 50 runs ended",
        bench.turns("active, 50 runs of 50 DAGs have ended (their insertion included)", ended_and_published),
    )
    print(json.dumps(figures))


def adoption(loop: Any) -> None:
    """Do the adoption of a turn, without the agent's other work."""
    loop._leader.ledger.bookkeeper.follow()
    loop._leader.ledger.bookkeeper.apply_outcomes()
    loop._leader.ledger.bookkeeper.adopt()


def main() -> None:
    """Measure, write, and print a row for each figure."""
    report = Report("adoption", {"airflow": VERSION})
    for size in SIZES:
        figures = measure_inside("tests.benchmarks.adoption", VERSION, BENCH_DAGS=str(size))
        adoption_s = figures.pop("adoption_s")
        for role in ("standby", "active"):
            report.keep(
                what=f"{size:,} DAGs: a turn of the agent, {role}, nothing new",
                unit="ms",
                values=figures[f"{role}, nothing new"]["turn_ms"],
                series=f"a turn of the agent, {role}",
                size=size,
            )
    for name, found in figures.items():
        report.keep(
            what=f"{size:,} DAGs: {name}, database time",
            unit="ms",
            values=found["database_ms"],
            goal=GOAL_MS if name == "standby, nothing new" else None,
            note=f"at most {max(found['statements'])} statements, "
            f"{max(found['ledger_calls'])} calls of the runs table, {max(found['turn_ms']):.0f} ms altogether",
        )
    # These goals apply to the most expensive turn, not to the median.
    idle = figures["adoption, nothing new"]
    report.keep(
        what=f"{size:,} DAGs: adoption, nothing new, most expensive turn",
        unit="ms",
        values=[max(idle["database_ms"])],
        goal=GOAL_MS,
    )
    report.keep(
        what=f"{size:,} DAGs: adoption, nothing new, queries to DynamoDB",
        unit="calls",
        values=[max(idle["ledger_calls"])],
        goal=1,
    )
    report.keep(
        what=f"{size:,} DAGs: adoption on a fresh standby",
        unit="s",
        values=[adoption_s],
        goal=ADOPTION_GOAL_S,
        note="with the agent's waits between its turns",
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["inside"]:
        inside()
    else:
        main()
