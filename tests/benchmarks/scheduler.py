"""
Cost of the gate for the scheduler: ``python -m tests.benchmarks.scheduler``; figures in build/bench/scheduler.json.

It calls the hooks of Airflow 3.3.1 with its tables in PostgreSQL, and with the real agent, which reads an emulated
DynamoDB over a socket. It measures two cases: a run that may start, and a run that a standby closes. The first is
compared with a gate that reads DynamoDB for each run, here without network latency. The second is compared with closing
the task instances one by one, as Airflow's own models do.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

from tests.benchmarks.report import Report, seconds
from tests.waiting import wait_until

VERSION = "3.3.1"
HERE, THERE = "us-east-1", "us-east-2"
TURNS = 15
STARTS, READS = 1000, 20
"""Allowed runs in each repetition, and reads of the state for comparison."""
SIZES = (10, 1000)
"""Numbers of task instances of a closed run."""
START = "2026-01-01 00:00:00+00"
FILL = """
insert into dag_bundle (name, active) values ('dags-folder', true) on conflict do nothing;
insert into dag (dag_id, is_paused, is_stale, bundle_name, max_active_tasks, max_active_runs,
                 has_task_concurrency_limits, max_consecutive_failed_dag_runs, exceeds_max_non_backfill, fail_fast,
                 timetable_type, partition_mapper_info)
  values ('orders', false, false, 'dags-folder', 16, 16, false, 0, false, false, '', '{}');
insert into job (id, state, job_type, start_date, latest_heartbeat, hostname)
  values (1, 'running', 'SchedulerJob', now(), now() + interval '1 day', 'here');
analyze;
"""
RUN = f"""
insert into dag_run (dag_id, run_id, run_type, state, logical_date, run_after, conf, clear_number, queued_at)
  values ('orders', %(run_id)s, 'scheduled', 'queued', '{START}', '{START}', '{{}}', 0, now());
insert into task_instance (id, task_id, dag_id, run_id, map_index, pool, pool_slots, try_number, max_tries, updated_at)
  select gen_random_uuid(), 'task_' || t, 'orders', %(run_id)s, -1, 'default_pool', 1, 0, 0, now()
  from generate_series(1, %(tasks)s) t
"""


class _Never:
    """A timetable that schedules nothing."""

    can_be_scheduled = False


class Bench:
    """One scheduler's gate."""

    def __init__(self) -> None:
        from airflow import settings
        from airflow.models.dagrun import DagRun

        from airflow_provider_mwaa_dr import conf
        from airflow_provider_mwaa_dr.aws.clock import SystemClock
        from airflow_provider_mwaa_dr.plugins import gate, listener

        self.settings, self.DagRun, self.listener = settings, DagRun, listener
        with settings.engine.begin() as connection:
            connection.exec_driver_sql(FILL)
        self.job = SimpleNamespace(id=1, job_type="SchedulerJob", latest_heartbeat=0)
        config = conf.load()
        self.clock = SystemClock()
        self.gate = gate.Gate(config=config, job=self.job, clock=self.clock)
        listener._gate = self.gate
        self.gate.start()
        self.store = conf.state_store(config, self.clock)
        self.numbers = itertools.count(1)
        self.seen: list[str] | None = None
        me = threading.get_ident()

        def audit(name: str, _: Any) -> None:
            if self.seen is not None and name.startswith("socket.") and threading.get_ident() == me:
                self.seen.append(name)

        sys.addaudithook(audit)  # only once, because Python cannot remove an audit hook

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """Yield a list of the statements and network calls of this thread."""
        from sqlalchemy import event

        me = threading.get_ident()

        def statement(*args: Any) -> None:
            if threading.get_ident() == me:
                seen.append(args[2])

        seen = self.seen = []
        event.listen(self.settings.engine, "before_cursor_execute", statement)
        try:
            yield seen
        finally:
            self.seen = None
            event.remove(self.settings.engine, "before_cursor_execute", statement)

    @contextmanager
    def queued_run(self, tasks: int = 0) -> Iterator[tuple[Any, Any]]:
        """Yield a session like the scheduler's, with a run that was just set to running. Nothing is committed."""
        run_id = f"r{next(self.numbers)}"
        session = self.settings.Session()
        try:
            session.connection().exec_driver_sql(RUN, {"run_id": run_id, "tasks": tasks})
            run = session.query(self.DagRun).filter(self.DagRun.run_id == run_id).one()
            run.dag = SimpleNamespace(partial=False, tags=(), deadline=None, max_active_runs=16, timetable=_Never())
            run.state = "running"
            run.start_date = datetime.now(tz=timezone.utc)
            session.flush()
            yield session, run
        finally:
            session.rollback()
            self.settings.Session.remove()

    def is_active(self, region: str) -> None:
        """Make *region* active, and wait until the agent has reconciled."""
        from airflow_provider_mwaa_dr.core.state import set_active_region

        state = self.store.read()
        if state.active_region != region:
            flipped = set_active_region(state, region, reason="bench", by="bench", at=self.clock.now())
            self.store.write(flipped, expected_version=state.version)

        def has_reconciled() -> bool:
            self.job.latest_heartbeat += 1
            view = self.gate._loop.view
            return bool(view.state.active_region == region and view.reconciled_epoch == view.state.epoch)

        wait_until(has_reconciled, f"the agent has reconciled for {region}")

    def starts(self) -> dict[str, list[float]]:
        """Return the microseconds of an allowed run, and of a read of the state, for each repetition."""
        found: dict[str, list[float]] = {"p50": [], "p99": [], "read p50": []}
        with self.queued_run() as (_, run):
            for _ in range(TURNS):
                with self.watched() as seen:
                    ours = [1e6 * seconds(lambda: self.listener.on_dag_run_running(run)) for _ in range(STARTS)]
                assert run.state == "running", "the run was not allowed"
                assert not seen, seen[:3]
                found["p50"].append(statistics.median(ours))
                found["p99"].append(statistics.quantiles(ours, n=100)[98])
                found["read p50"].append(statistics.median(1e6 * seconds(self.store.read) for _ in range(READS)))
        return found

    def closing(self, tasks: int) -> dict[str, list[float]]:
        """
        Return the milliseconds to close a run in a standby, and to close its task instances one by one, for each
        repetition.
        """
        found: dict[str, list[float]] = {"ours": [], "statements": [], "one by one": []}
        for _ in range(TURNS):
            with self.queued_run(tasks) as (session, run), self.watched() as seen:

                def ours(session: Any = session, run: Any = run) -> None:
                    self.listener.on_dag_run_running(run)
                    session.flush()

                found["ours"].append(1000 * seconds(ours))
                assert run.state == "failed", "the standby did not close the run"
                found["statements"].append(len(seen))
            with self.queued_run(tasks) as (session, run):

                def one_by_one(session: Any = session, run: Any = run) -> None:
                    for task_instance in run.get_task_instances(session=session):
                        task_instance.set_state("skipped", session=session)
                    run.set_state("success")
                    session.flush()

                found["one by one"].append(1000 * seconds(one_by_one))
        return found


def inside() -> None:
    """Measure, and print the figures as JSON. Runs in Airflow's environment."""
    bench = Bench()
    bench.is_active(HERE)
    starts = bench.starts()
    bench.is_active(THERE)
    print(json.dumps({"starts": starts, "closing": {size: bench.closing(size) for size in SIZES}}))


def main() -> None:
    """Measure, and write and print a row for each figure."""
    from tests.benchmarks.airflow_tables import measure_inside
    from tests.benchmarks.emulated_aws import begin, emulated_tables

    with emulated_tables() as (state_table, runs_table):
        begin(state_table, (HERE, THERE))
        figures = measure_inside(
            "tests.benchmarks.scheduler",
            VERSION,
            AIRFLOW__DR__ENABLED="True",
            AIRFLOW__DR__STATE_TABLE=state_table,
            AIRFLOW__DR__RUNS_TABLE=runs_table,
            AIRFLOW__DR__REGION=HERE,
        )
    starts = figures["starts"]
    peers = {"a read of the state for each run, without latency": starts["read p50"]}
    report = Report("scheduler", {"airflow": VERSION})
    report.keep(what="gate, run allowed, median", unit="µs", values=starts["p50"], goal=20, peers=peers)
    report.keep(what="gate, run allowed, 99th percentile", unit="µs", values=starts["p99"], goal=200)
    for size, goal in zip(SIZES, (10, 40), strict=True):
        found = figures["closing"][str(size)]
        report.keep(
            what=f"closing a standby's run of {size:,} task instances",
            unit="ms",
            values=found["ours"],
            goal=goal,
            peers={"one task instance at a time": found["one by one"]},
            note=f"{max(found['statements']):.0f} statements",
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["inside"]:
        inside()
    else:
        main()
