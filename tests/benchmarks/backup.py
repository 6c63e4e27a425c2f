"""
History in a new standby, from its agent and from a restore of the package mwaa-dr: ``python -m
tests.benchmarks.backup``.

Only this public alternative does the same work. It supports Airflow 2 only, so the benchmark uses 2.11.2: the tables of
a real Airflow in an embedded PostgreSQL, and 10,000 DAGs with 20 ended runs each. Its functions are called in sequence,
without the DAGs that usually call them, and with local files instead of S3. It restores all rows of its last backup.
The provider's agent adopts the newest interval of each DAG, which was published when the run ended. The figures are in
build/bench/backup.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.adoption import AT, DAGS, LOOKING_BACK, RUNS, THERE, Bench
from tests.benchmarks.airflow_tables import measure_inside
from tests.benchmarks.report import BUILD, Report, seconds

VERSION = "2.11.2"
PEER = "mwaa-dr==2.2.0"
TURNS = 3

FILL = f"""
insert into dag (dag_id, is_paused, is_active, max_active_tasks, max_active_runs, has_task_concurrency_limits,
                 max_consecutive_failed_dag_runs)
  select 'dag_' || lpad(d::text, 5, '0'), false, true, 16, 16, false, 0 from generate_series(0, {DAGS} - 1) d;
insert into serialized_dag (dag_id, fileloc, fileloc_hash, data, last_updated, dag_hash)
  select dag_id, 'f.py', 1,
         json_build_object('dag', json_build_object('tasks', (
           select json_agg(json_build_object('__var', json_build_object('task_id', 'task_' || t,
                           'depends_on_past', right(dag_id, 5)::int < {DAGS} * {LOOKING_BACK})))
           from generate_series(1, 20) t))),
         now(), md5(dag_id)
  from dag;
insert into job (id, state, job_type, start_date, latest_heartbeat, hostname) values
  (1, 'running', 'SchedulerJob', now(), now() + interval '1 day', 'here');
analyze;
"""
# The conf is a pickled empty dict.
HISTORY = f"""
insert into dag_run (dag_id, run_id, run_type, state, execution_date, data_interval_start, data_interval_end,
                     start_date, end_date, queued_at, last_scheduling_decision, conf, clear_number, updated_at)
  select dag_id, 'scheduled__' || r, 'scheduled', 'success', day, day, day + interval '1 day',
         day, day, day, day, decode('80047d942e', 'hex'), 0, day
  from (select r, timestamptz '{AT.isoformat()}' + interval '1 day' * r as day
        from generate_series(0, {RUNS} - 1) r) r, dag
  order by r, dag_id;
insert into task_instance (task_id, dag_id, run_id, map_index, state, pool, pool_slots, try_number, max_tries,
                           hostname, start_date, end_date, updated_at)
  select 'task_' || t, dag_id, run_id, -1, state, 'default_pool', 1, 1, 0, 'worker', start_date, end_date, updated_at
  from dag_run, generate_series(1, 2) t;
analyze;
"""
FRESH = "truncate dag_run, task_instance cascade"


def inside() -> None:
    """Fill the tables, measure, and print the figures as JSON. Runs in Airflow's environment."""
    from airflow import settings
    from mwaa_dr.v_2_11.dr_factory import DRFactory_2_11

    def execute(sql: str) -> None:
        with settings.engine.begin() as connection:
            connection.exec_driver_sql(sql)

    def count(table: str) -> int:
        with settings.engine.connect() as connection:
            return int(connection.exec_driver_sql(f"select count(*) from {table}").scalar())

    folder = Path(os.environ["AIRFLOW_HOME"], "dags", "data")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    execute(FILL)
    tables = DRFactory_2_11("bench", path_prefix="data", storage_type="LOCAL_FS").tables()
    found: dict[str, list[float]] = {"backup": [], "restore": [], "adoption": []}

    def each(name: str) -> None:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            for table in tables:
                getattr(table, name)()

    for turn in range(TURNS):
        execute(HISTORY)
        found["backup"].append(seconds(lambda: each("backup")))
        execute(FRESH)
        found["restore"].append(seconds(lambda: each("restore")))
        assert (count("dag_run"), count("task_instance")) == (DAGS * RUNS, 2 * DAGS * RUNS)

        execute(FRESH)
        bench = Bench(settings.engine)
        bench.publish_history(RUNS - 1)
        costs = bench.adopt_all(bench.loop(active=THERE))
        found["adoption"].append(sum(cost.turn_s + cost.rest_s for cost in costs))
        assert count("dag_run") == DAGS, count("dag_run")
        execute(FRESH)
        print(f"turn {turn + 1} of {TURNS}: { ({name: took[-1] for name, took in found.items()}) }", file=sys.stderr)
    print(json.dumps(found))


def main() -> None:
    """Measure, and write and print a row."""
    from uv import find_uv_bin

    site = BUILD / "mwaa-dr"
    command: list[Any] = [find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", site, PEER]
    subprocess.run(command, check=True)
    report = Report("backup", {"airflow": VERSION, "mwaa-dr": PEER})
    found = measure_inside("tests.benchmarks.backup", VERSION, PYTHONPATH=str(site))
    report.keep(
        what=f"{DAGS:,} DAGs: history in a fresh standby, Airflow {VERSION}",
        unit="s",
        values=found["adoption"],
        peers={"restore of mwaa-dr": found["restore"]},
        note=f"each backup before takes {statistics.median(found['backup']):.0f} s more; it has {DAGS * RUNS:,} runs. "
        f"The agent adopts {DAGS:,} runs, which were published when they ended, and also resumes interrupted runs",
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["inside"]:
        inside()
    else:
        main()
