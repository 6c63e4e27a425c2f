"""
Cost of the plugin for a running Airflow: ``python -m tests.benchmarks.running [PART ...]``.

The sandbox runs two real Airflows 3.3.1 with the provider's defaults (a read of the state every second),
CeleryExecutor with an emulated SQS as in MWAA, and 1,000 DAGs in each region. The benchmark measures the active region,
alternately with and without the plugin (``[dr] enabled = False``: no listener, no agent): the throughput of the
scheduler, and the resources of its idle process. Then, with the plugin, it measures the time that the fence adds to a
task in a worker, and the time from the end of a run to its entry in the ledger. The figures are in
build/bench/running.json.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.core.ports import INVENTORIES
from airflow_provider_mwaa_dr.sandbox.cloud.tables import SandboxTables
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_settings import CELERY, DR_SETTINGS
from tests.benchmarks.report import Report
from tests.sandbox.harness import Pair, Shape, opened
from tests.waiting import wait_until

VERSION = "3.3.1"
AS_INSTALLED = tuple(
    (field.name, f"{field.default:g}")
    for field in fields(DRConfig)
    if field.name in DR_SETTINGS and isinstance(field.default, float)
)
"""The default intervals; those of the sandbox are shorter."""
DAGS = 500
TURNS = 2
IDLE_TURNS = 1
IDLE_S, WARM_S = 60, 20
TASKS = 60
MINUTES = 2
FILE = "bench.py"
SOURCE = f"""
from datetime import datetime, timedelta, timezone

from airflow import DAG
from airflow.decorators import task
from airflow.providers.standard.operators.empty import EmptyOperator

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
for number in range({DAGS}):
    with DAG(f"short_{{number:03}}", schedule=None, start_date=START):
        EmptyOperator(task_id="nothing")
    due = START + timedelta(seconds=number * 60 / {DAGS})
    with DAG(f"minutely_{{number:03}}", schedule=timedelta(minutes=1), start_date=due, catchup=False):
        EmptyOperator(task_id="nothing")


@task
def nothing(number):
    pass


with DAG("one_task", schedule=None, start_date=START):
    nothing(1)
with DAG("tasks", schedule=None, start_date=START, max_active_tasks=1):
    nothing.expand(number=list(range({TASKS})))
"""
# Wraps the hooks of all other plugins. A change of the fence's file shows that the fence has read the table.
TIMER = """
import json, os, time
from pathlib import Path

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

HOME = Path(os.environ["AIRFLOW_HOME"])


def changed():
    return [path.stat().st_mtime_ns for path in HOME.glob(".mwaa_dr_fence_*.json")]


class Timer:
    @hookimpl(wrapper=True)
    def on_task_instance_running(self, task_instance):
        before, began = changed(), time.perf_counter()
        answer = yield
        took_ms = 1000 * (time.perf_counter() - began)
        with (HOME / "fence.jsonl").open("a") as lines:
            lines.write(json.dumps({"ms": took_ms, "has_read": before != changed()}) + "\\n")
        return answer


class Timing(AirflowPlugin):
    name = "bench_timer"
    listeners = [Timer()]
"""


@dataclass(frozen=True, slots=True)
class Used:
    """Resources that an idle scheduler's process used."""

    main_s: float
    others_s: float
    memory_mib: float


class Bench:
    """The active region, with DAGs, and the plugin switched on or off."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.airflow = pair, pair.active
        self.postgres = pair.sandbox.postgres
        self.numbers = iter(range(10_000))

    def sql(self, statement: str) -> list[list[str]]:
        """Return the rows of a statement in the region's database."""
        return [list(row) for row in self.postgres.query(statement, database=self.airflow.name)]

    def deploy(self) -> None:
        """Give the region its DAGs. Afterwards no DAG is parsed again."""

        def count() -> int:
            found = self.airflow.rest("GET", "/dags", dag_id_pattern="short_|minutely_", limit=1)
            return int(found["total_entries"])

        (self.airflow.home / "plugins" / "bench_timer.py").write_text(TIMER)
        self.airflow.deploy(FILE, SOURCE)
        self.airflow.wait_for_dag("tasks")
        wait_until(lambda: count() == 2 * DAGS, "all DAGs exist", deadline_s=600)
        for region in self.pair.airflows.values():
            region.stop("dag-processor")

    def switch(self, is_on: bool) -> None:
        """Restart the scheduler with or without the plugin, and wait until the work of its start is done."""
        began = datetime.now(tz=timezone.utc)
        self.airflow.stop("scheduler")
        self.airflow.start_scheduler(enabled=str(is_on))
        if is_on:
            self.pair.wait_until_reconciled()

            def has_listed() -> bool:
                found = self.pair.table.get(INVENTORIES, self.airflow.name)
                return found is not None and found.taken_at > began

            wait_until(has_listed, "the agent has written its inventory", deadline_s=300)

    def pause(self, pattern: str, *, paused: bool) -> None:
        """Pause or unpause DAGs with one statement."""
        self.sql(f"update dag set is_paused = {paused} where dag_id like '{pattern}'")

    def runs_s(self) -> tuple[float, float]:
        """
        Trigger a run of each short DAG.

        :return: the seconds from the first start to the last end, and the CPU seconds of the scheduler's other threads.
        """
        run_id = f"bench_{next(self.numbers)}"
        for number in range(DAGS):
            self.airflow.trigger(f"short_{number:03}", run_id)

        def ended() -> bool:
            sql = f"select count(*) from dag_run where run_id = '{run_id}' and state = 'success'"
            return int(self.sql(sql)[0][0]) == DAGS

        pid = self.airflow.session("scheduler").pid
        before = thread_seconds(pid)
        self.pause("short_%", paused=False)
        wait_until(ended, "all runs end", deadline_s=300)
        after = thread_seconds(pid)
        self.pause("short_%", paused=True)
        sql = f"select extract(epoch from max(end_date) - min(start_date)) from dag_run where run_id = '{run_id}'"
        others_s = sum(used - before.get(thread, 0.0) for thread, used in after.items() if thread != pid)
        return float(self.sql(sql)[0][0]), others_s

    def idle(self) -> Used:
        """
        Return the resources that the scheduler's process uses in a minute without work.

        Its executor has sent a task before, so it has imported boto3, as every scheduler on MWAA has.
        """
        self.execute("one_task")
        time.sleep(WARM_S)
        pid = self.airflow.session("scheduler").pid
        before = thread_seconds(pid)
        time.sleep(IDLE_S)
        after = thread_seconds(pid)
        used = {thread: after[thread] - before.get(thread, 0.0) for thread in after}
        return Used(used.pop(pid), sum(used.values()), memory_mib(pid))

    def execute(self, dag_id: str) -> None:
        """Trigger a run of a DAG, and wait until the worker has executed it."""
        self.airflow.unpause(dag_id)
        run_id = self.airflow.trigger(dag_id)
        wait_until(lambda: self.airflow.run(dag_id, run_id)["state"] == "success", f"{dag_id} ends", deadline_s=600)

    def requests(self, since: datetime) -> dict[str, list[datetime]]:
        """Return the times of the region's DynamoDB requests since then, by operation, oldest first."""
        found: dict[str, list[datetime]] = {}
        for region in self.pair.airflows:
            for row in self.pair.sandbox.requests(region, "dynamodb", since=since):
                if row["caller"] == self.airflow.name:
                    found.setdefault(row["operation"], []).append(datetime.fromisoformat(row["at"]))
        return {operation: sorted(times) for operation, times in found.items()}

    def fences(self) -> dict[str, list[float]]:
        """
        Return the milliseconds of the fence in many tasks: separately for tasks that read the table and for the others.
        """
        self.execute("tasks")
        found: dict[str, list[float]] = {"shared": [], "read": []}
        for line in map(json.loads, (self.airflow.home / "fence.jsonl").read_text().splitlines()):
            found["read" if line["has_read"] else "shared"].append(line["ms"])
        return found

    def lags(self) -> tuple[list[list[float]], float]:
        """
        Return the seconds from each run's end to its ledger entry, in one list for each minute; and the runs a minute.
        """
        self.pause("minutely_%", paused=False)
        time.sleep(60)
        began = datetime.now(tz=timezone.utc)
        time.sleep(60 * MINUTES)
        until = datetime.now(tz=timezone.utc)
        self.pause("minutely_%", paused=True)
        ended = {(row[0], row[1]): datetime.fromisoformat(row[2]) for row in self.sql(ENDED)}
        published = self.published()
        minutes: list[list[float]] = [[] for _ in range(MINUTES)]
        for key, at in ended.items():
            if began <= at < until - timedelta(seconds=1):
                minutes[min(MINUTES - 1, int((at - began).total_seconds() // 60))].append(
                    (published[key] - at).total_seconds()
                )
        return minutes, sum(map(len, minutes)) / MINUTES

    def published(self) -> Mapping[RunKey, datetime]:
        """Wait until the end of every run is published; return the times of the entries."""
        runs = SandboxTables(self.pair.variables).runs

        def entries() -> Iterator[tuple[RunKey, datetime]]:
            after = 0
            while found := runs.log(self.airflow.name, after=after):
                after = found[-1].number
                for entry in found:
                    yield from ((run.key, entry.at) for run in entry.runs if run.has_ended)

        def all_published() -> Mapping[RunKey, datetime] | None:
            found = dict(reversed(list(entries())))
            return found if all((row[0], row[1]) in found for row in self.sql(ENDED)) else None

        return wait_until(all_published, "all runs are published", deadline_s=60)


ENDED = (
    "select dag_id, run_id, to_char(end_date at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"') "
    "from dag_run where dag_id like 'minutely_%' and state = 'success'"
)


def thread_seconds(pid: int) -> dict[int, float]:
    """Return the CPU seconds of each thread of a process."""
    found = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
        found[int(folder.name)] = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return found


def memory_mib(pid: int) -> float:
    """Return the proportional set size of a process: its own memory, and its part of the shared memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


@contextmanager
def bench() -> Iterator[Bench]:
    """Yield the two Airflows, with their DAGs."""
    shape = Shape(version=VERSION, name="bench-running", executor=CELERY, ledger=True, dr=AS_INSTALLED)
    with opened(shape) as pair:
        found = Bench(pair)
        found.deploy()
        yield found


def measure_throughput(bench: Bench, report: Report) -> None:
    """Measure the throughput of the scheduler with short runs."""
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for turn in range(TURNS):
        for is_on in (True, False) if turn % 2 else (False, True):
            bench.switch(is_on)
            found[is_on].append(bench.runs_s())
    took = {is_on: [took_s for took_s, _ in each] for is_on, each in found.items()}
    others = {is_on: statistics.median(100 * used_s / took_s for took_s, used_s in found[is_on]) for is_on in found}
    report.keep(
        what=f"scheduler, {DAGS} short runs, time with the plugin over time without",
        unit="",
        values=[ours / theirs for ours, theirs in zip(took[True], took[False], strict=True)],
        goal=1 / 0.98,
        note=f"{DAGS / statistics.median(took[True]):.1f} runs a second with it, "
        f"{DAGS / statistics.median(took[False]):.1f} without; threads beside the scheduler's own: "
        f"{others[True]:.1f} % of a core, {others[False]:.1f} % without",
    )


def measure_idle(bench: Bench, report: Report) -> None:
    """Measure the resources of the idle scheduler's process."""
    used: dict[bool, list[Used]] = {True: [], False: []}
    reads: list[float] = []
    requests: dict[str, list[datetime]] = {}
    for turn in range(IDLE_TURNS):
        for is_on in (True, False) if turn % 2 else (False, True):
            bench.switch(is_on)
            used[is_on].append(bench.idle())
            if is_on:
                requests = bench.requests(datetime.now(tz=timezone.utc) - timedelta(seconds=IDLE_S))
                reads.append(sum(map(len, requests.values())) * 60 / IDLE_S)
    without = used[False]
    report.keep(
        what="agent, idle: part of a core",
        unit="%",
        values=[100 * (on.others_s - off.others_s) / IDLE_S for on, off in zip(used[True], without, strict=True)],
        goal=1.0,
        note="the scheduler's own thread: "
        f"{100 * statistics.median(each.main_s for each in used[True]) / IDLE_S:.1f} % with the plugin, "
        f"{100 * statistics.median(each.main_s for each in without) / IDLE_S:.1f} % without",
    )
    report.keep(
        what="agent: additional memory of the scheduler's process",
        unit="MiB",
        values=[on.memory_mib - off.memory_mib for on, off in zip(used[True], without, strict=True)],
        goal=10.0,
        note=f"without it {statistics.median(each.memory_mib for each in without):.0f} MiB",
    )
    report.keep(
        what="region: requests to DynamoDB in a minute",
        unit="",
        values=reads,
        goal=None,
        note=", ".join(f"{name} {len(times)}" for name, times in sorted(requests.items())),
    )


def measure_fence(bench: Bench, report: Report) -> None:
    """Measure the time that the fence adds to a task. The worker is new, so it has loaded the plugin."""
    bench.switch(True)
    bench.airflow.stop("worker")
    bench.airflow.start_worker()
    found = bench.fences()
    for name, what, goal in (("shared", "it shares a read", 2.0), ("read", "it reads the table", 20.0)):
        report.keep(
            what=f"fence, a task in a worker, {what}",
            unit="ms",
            values=found[name],
            goal=goal,
            note=f"{len(found[name])} of {sum(map(len, found.values()))} tasks",
        )


def measure_lag(bench: Bench, report: Report) -> None:
    """Measure the time from a run's end to its ledger entry."""
    minutes, rate = bench.lags()
    report.keep(
        what="ledger, from a run's end to its entry, 95th percentile",
        unit="s",
        values=[statistics.quantiles(lags, n=20)[18] for lags in minutes],
        goal=1.5,
        note=f"{rate:.0f} runs a minute; median {statistics.median(itertools.chain(*minutes)):.1f} s",
    )


PARTS = {"idle": measure_idle, "throughput": measure_throughput, "fence": measure_fence, "lag": measure_lag}


def main(names: Sequence[str]) -> None:
    """Measure *names* of :data:`PARTS`, or all. Write and print a row for each figure as soon as it exists."""
    report = Report("running", {"airflow": VERSION})
    with bench() as found:
        for name in names or PARTS:
            PARTS[name](found, report)


if __name__ == "__main__":
    main(sys.argv[1:])
