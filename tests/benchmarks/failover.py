"""
Duration of failovers and of pausing, by the number of DAGs: ``python -m tests.benchmarks.failover``.

The sandbox runs two real Airflows with the provider's default intervals, and its MWAA accepts ten calls a second, like
AWS. ``--part`` measures one of these parts alone:

- ``graceful``: complete failovers and failbacks without runs in flight, with the duration of each step.
- ``lost``: forced failovers from a region that has been dead for ten seconds or two minutes, up to the first task body
  in the other region.
- ``drain``: REST calls during a drain of many DAGs, while a task executes.
- ``pausing``: ``mwaa-dr pause`` and ``unpause`` on each version. For comparison, it measures two common scripts: one
  REST API call for each DAG, at most ten a second, and ``airflow dags pause`` for each DAG in the environment itself.
  Both are slow, so they pause only some DAGs, and their time is extrapolated.

The other parts run on the newest version only. ``--sizes`` selects numbers of DAGs. Each figure has the machine's load
in its note: other processes on the same cores make each step longer. The figures are in build/bench/failover.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta, timezone

import boto3
from botocore.config import Config

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.ports import SNAPSHOTS
from tests.benchmarks.machine import Busy
from tests.benchmarks.report import Report, seconds
from tests.benchmarks.running import AS_INSTALLED
from tests.sandbox.harness import Airflow, Pair, Shape, opened
from tests.waiting import wait_until

VERSIONS = ("3.3.1", "3.2.1", "2.11.2")
PARTS = ("graceful", "drain", "lost", "pausing")
SIZES = (10, 100, 500, 1000, 2000, 10_000)
GOALS = {500: 4.0, 2000: 6.0, 10_000: 30.0}
TURNS = 2
LOST_DAGS, LEASE_S = 500, DRConfig(environments={}).lease_s
DEAD_FOR_S = (10.0, 120.0)
FIRST_BODY_S = 12.0
DRAINED, CALLS_GOAL = 10_000, 5.0
LONG_S, COUNTED_S = 30, 15
"""How long a task executes during a drain, and the part of it, until its end, in which REST calls are counted."""
PAUSED = 1000
SOME_BY_REST, SOME_BY_COMMAND = 60, 3
CALLS_A_SECOND = 10
TEMPLATE = "bench"
SOURCE = f"""
from datetime import datetime, timezone

from airflow import DAG

try:
    from airflow.providers.standard.operators.empty import EmptyOperator
except ImportError:
    from airflow.operators.empty import EmptyOperator

with DAG("{TEMPLATE}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), tags=["team"]):
    EmptyOperator(task_id="nothing")
"""
WITNESSES = f"""
import time
from datetime import datetime, timedelta, timezone

from airflow import DAG
from airflow.decorators import task
from witness import body

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


@task
def witness(seconds, **context):
    body(**context)
    time.sleep(seconds)


with DAG("ticks", schedule=timedelta(seconds=5), start_date=START, catchup=False, max_active_runs=1):
    witness(0)
# Like dr_readiness, it executes in the standby, too. Airflow's API server needs seconds for its first task.
with DAG(
    "control", schedule=timedelta(seconds=15), start_date=START, catchup=False, max_active_runs=1, tags=["dr:control"]
):
    witness(0)
with DAG("long", schedule=None, start_date=START):
    witness({LONG_S})
"""
# Parsing thousands of DAGs takes two cores half an hour, and neither pausing nor a failover reads their contents. So
# the DAGs are copied in the database, with a last_parsed_time in the future, so that Airflow does not parse them again.
CLONES = """
create temp table clone as select * from dag where dag_id = '{template}';
update clone set last_parsed_time = now() + interval '10 days', is_paused = {paused};
do $$ begin
  delete from dag_tag where dag_id like 'bench\\_%';
  delete from dag where dag_id like 'bench\\_%';
  for number in 0..{size} - 1 loop
    update clone set dag_id = 'bench_' || lpad(number::text, 5, '0');
    insert into dag select * from clone;
    insert into dag_tag (dag_id, name) select dag_id, 'team' from clone;
  end loop;
end $$
"""


def deploy(pair: Pair, size: int) -> None:
    """Give both regions *size* DAGs, which are unpaused only in the active region."""
    for airflow in pair.airflows.values():
        airflow.deploy(f"{TEMPLATE}.py", SOURCE)
        airflow.wait_for_dag(TEMPLATE)
        sql = CLONES.format(template=TEMPLATE, size=size, paused=airflow is not pair.active)
        pair.sandbox.postgres.query(sql, database=airflow.name)
        assert len(airflow.dags()) >= size


def unpaused(airflow: Airflow) -> int:
    """Return the number of unpaused DAGs."""
    return sum(not is_paused for is_paused in airflow.dags().values())


Steps = dict[str, list[float]]


def fail_over(pair: Pair, mode: str, steps: Steps) -> float:
    """Return the duration of a failover command in seconds; add the durations of its steps to *steps*."""
    target = pair.standby.name
    began = time.perf_counter()
    answer = pair.mwaa_dr("failover", target, "--reason", "bench", "--mode", mode, "--yes", "--json", timeout_s=900)
    took_s = time.perf_counter() - began
    assert answer.returncode == 0, answer.stderr
    record = json.loads(answer.stdout)
    assert record["not_unpaused"] == [], record
    for step in record["steps"]:
        steps.setdefault(step["name"], []).append(step["seconds"])
    return took_s


def failovers(pair: Pair) -> tuple[list[float], Steps]:
    """Return the durations of graceful failovers and failbacks, and of their steps."""
    took, steps = list[float](), Steps()
    for _ in range(2 * TURNS):
        took.append(fail_over(pair, "graceful", steps))
        pair.wait_until_reconciled()
    return took, steps


class ByRest:
    """One call of InvokeRestApi for each DAG, at most ten a second."""

    def __init__(self, pair: Pair) -> None:
        variables = pair.variables
        self._name = pair.active.environment
        self._client = boto3.client(
            "mwaa",
            region_name=pair.active.name,
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            config=Config(inject_host_prefix=False, retries={"mode": "adaptive", "max_attempts": 10}),
        )

    def pause(self, is_paused: bool) -> None:
        """Pause or unpause some DAGs."""
        due = time.perf_counter()
        for number in range(SOME_BY_REST):
            self._client.invoke_rest_api(
                Name=self._name, Method="PATCH", Path=f"/dags/bench_{number:05}", Body={"is_paused": is_paused}
            )
            due += 1 / CALLS_A_SECOND
            time.sleep(max(0.0, due - time.perf_counter()))


def pausing(pair: Pair) -> dict[str, list[float]]:
    """Return the durations of pausing and unpausing 1,000 DAGs in three ways, for each repetition."""
    found: dict[str, list[float]] = {"pause": [], "unpause": [], "rest": [], "command": []}
    region, by_rest = pair.active, ByRest(pair)

    def ours(word: str) -> None:
        answer = pair.mwaa_dr(word, region.name, "--yes")
        assert answer.returncode == 0, answer.stderr

    def by_command() -> None:
        for number in range(SOME_BY_COMMAND):
            region.airflow("dags", "pause", f"bench_{number:05}")

    for _ in range(TURNS):
        found["pause"].append(seconds(lambda: ours("pause")))
        assert unpaused(region) < PAUSED
        found["unpause"].append(seconds(lambda: ours("unpause")))
        assert unpaused(region) >= PAUSED
        found["rest"].append(seconds(lambda: by_rest.pause(True)) * PAUSED / SOME_BY_REST)
        by_rest.pause(False)
        found["command"].append(seconds(by_command) * PAUSED / SOME_BY_COMMAND)
        for number in range(SOME_BY_COMMAND):
            region.unpause(f"bench_{number:05}")
    return found


def measure_failovers(pair: Pair, report: Report, size: int) -> None:
    """Graceful failovers and failbacks, with the default settings of the API."""
    busy = Busy.of(pair)
    took, steps = failovers(pair)
    report.keep(
        what=f"failover of {size:,} DAGs",
        unit="s",
        values=took,
        goal=GOALS.get(size),
        note=f"calls that list or change DAGs: {dag_calls(pair, since=busy.since)}; {busy}",
        series="a graceful failover",
        size=size,
        parts=steps,
    )


def rest_calls(pair: Pair, *, since: datetime) -> list[tuple[datetime, str, float]]:
    """Return time, method with path, and seconds of each call of InvokeRestApi since then, oldest first."""
    return sorted(
        (datetime.fromisoformat(row["at"]), row["rest"], row["ms"] / 1000)
        for region in pair.airflows
        for row in pair.sandbox.requests(region, "mwaa", since=since)
        if "rest" in row
    )


def dag_calls(pair: Pair, *, since: datetime) -> str:
    """Return how many calls listed or changed DAGs since then, and how long they took together."""
    found = [took_s for _, what, took_s in rest_calls(pair, since=since) if what.endswith(" /dags")]
    return f"{len(found)}, {sum(found):.1f} s"


def measure_drain(pair: Pair, report: Report) -> None:
    """REST calls during a drain that waits for one task."""
    source, target = pair.active, pair.standby.name
    for airflow in pair.airflows.values():
        airflow.deploy("bench_witnesses.py", WITNESSES)
        airflow.wait_for_dag("long")
    source.unpause("long")
    busy = Busy.of(pair)
    run_id = source.trigger("long")
    line = wait_until(lambda: source.executed("long", run_id), "the long task executes")[0]
    fail_over(pair, "graceful", {})
    end = line.at + timedelta(seconds=LONG_S)
    calls = rest_calls(pair, since=end - timedelta(seconds=COUNTED_S))
    counted = Counter(what for at, what, _ in calls if at < end)
    every = [at for at, _, _ in rest_calls(pair, since=busy.since)]
    most = max(sum(at <= other < at + timedelta(seconds=1) for other in every) for at in every)
    report.keep(
        what=f"REST calls a second during a drain, {DRAINED:,} DAGs",
        unit="",
        values=[sum(counted.values()) / COUNTED_S],
        goal=CALLS_GOAL,
        note=f"{', '.join(f'{what} {count}' for what, count in counted.most_common())} in {COUNTED_S} s; "
        f"at most {most} in a second of the whole failover to {target}, both regions together; {busy}",
    )


def measure_lost(report: Report, version: str) -> None:
    """Forced failovers from a dead region, with the default intervals, up to the first task body."""
    with opened(Shape(version=version, name="bench-lost", ledger=True, dr=AS_INSTALLED)) as pair:
        deploy(pair, LOST_DAGS)
        for airflow in pair.airflows.values():
            airflow.deploy("bench_witnesses.py", WITNESSES)
            airflow.wait_for_dag("ticks")
            airflow.unpause("control")
        pair.active.unpause("ticks")
        for dead_s in DEAD_FOR_S:
            busy = Busy.of(pair)
            steps = Steps()
            found = [lost_failover(pair, dead_s, steps) for _ in range(2)]
            since_death, since_decision = zip(*found, strict=True)
            is_counted_from_death = dead_s < LEASE_S
            report.keep(
                what=f"forced failover of {LOST_DAGS} DAGs, region dead for {dead_s:g} s, lease {LEASE_S:g} s: from "
                f"{'the death' if is_counted_from_death else 'the decision'} to the first task body",
                unit="s",
                values=since_death if is_counted_from_death else since_decision,
                goal=FIRST_BODY_S + (1.1 * LEASE_S if is_counted_from_death else 0.0),
                note=f"since the decision: {', '.join(f'{each:.1f}' for each in since_decision)}; {busy}",
                parts=steps,
            )


def lost_failover(pair: Pair, dead_s: float, steps: Steps) -> tuple[float, float]:
    """
    Fail over from the active region *dead_s* after its death, and revive it; add the durations of the steps to *steps*.

    :return: the seconds to the first task body in the other region: from the death, and from the start of the command.
    """
    lost, target = pair.active, pair.standby
    began = datetime.now(tz=timezone.utc)
    wait_until(lambda: bodies(lost, "ticks", since=began), f"{lost.name} executes")
    wait_until(lambda: bodies(target, "control", since=began), f"{target.name} executes its control DAG")
    wait_until(lambda: "ticks" in snapshot_of(pair, lost.name), "the snapshot is complete")
    died, died_at = datetime.now(tz=timezone.utc), time.monotonic()
    pair.sandbox.kill(lost.name)
    time.sleep(max(0.0, died_at + dead_s - time.monotonic()))
    decided = datetime.now(tz=timezone.utc)
    fail_over(pair, "forced", steps)
    first = min(wait_until(lambda: bodies(target, "ticks", since=decided), f"{target.name} executes"))
    pair.sandbox.revive(lost.name)
    pair.wait_until_reconciled()
    forget_dead_schedulers(pair, lost.name)
    return (first - died).total_seconds(), (first - decided).total_seconds()


def forget_dead_schedulers(pair: Pair, region: str) -> None:
    """
    Drop the heartbeats of killed schedulers, as the region's agent does after ten minutes.

    Until then, a failover *to* this region waits for 22 s in the step adopt: a killed scheduler cannot say that it is
    gone, and its last view permits it to close runs for 20 s.
    """
    agents = pair.table.agents(region)
    newest = max(agents, key=lambda agent: agent.at)
    for agent in agents:
        if agent.job not in newest.schedulers:
            pair.table.forget_agent(region, agent.job)


def bodies(airflow: Airflow, dag_id: str, *, since: datetime) -> list[datetime]:
    """Return when the task bodies of a DAG have begun in a region since then."""
    return [line.at for line in airflow.executed(dag_id) if line.at > since]


def snapshot_of(pair: Pair, region: str) -> Collection[str]:
    """Return the DAGs in the snapshot of a region, if it has all of them; else nothing."""
    found = pair.table.get(SNAPSHOTS, region)
    return found.dag_ids if found is not None and len(found.dag_ids) > LOST_DAGS else ()


def measure_pausing(pair: Pair, report: Report, version: str) -> None:
    """Pausing and unpausing, and the two common scripts."""
    found = pausing(pair)
    peers = {"one REST call for each DAG": found["rest"], "one airflow dags pause for each DAG": found["command"]}
    for word in ("pause", "unpause"):
        what = f"{word} of {PAUSED:,} DAGs, Airflow {version}"
        report.keep(what=what, unit="s", values=found[word], goal=5.0, peers=peers)


def measure(version: str, sizes: Sequence[int], parts: Collection[str], report: Report) -> None:
    """Measure *parts* on one version, and write and print a row for each figure as soon as it exists."""
    is_newest = version == VERSIONS[0]
    graceful = set(sizes) if is_newest and "graceful" in parts else set()
    drained = {DRAINED} if is_newest and "drain" in parts else set()
    paused = {PAUSED} if "pausing" in parts else set()
    if every := sorted(graceful | drained | paused):
        with opened(Shape(version=version, name=f"bench-{version}", ledger=True, dr=AS_INSTALLED)) as pair:
            for size in every:
                deploy(pair, size)
                if size in graceful:
                    measure_failovers(pair, report, size)
                if size in drained:
                    measure_drain(pair, report)
                if size in paused:
                    measure_pausing(pair, report, version)
    if is_newest and "lost" in parts:
        measure_lost(report, version)


def main() -> None:
    """Measure the parts that the command line selects, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.failover")
    parser.add_argument("--version", nargs="+", default=VERSIONS, choices=VERSIONS)
    parser.add_argument("--part", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="DAGS")
    args = parser.parse_args()
    report = Report("failover", {"airflow": ", ".join(args.version)}, is_part=len(sys.argv) > 1)
    for version in args.version:
        print(f"{datetime.now(tz=timezone.utc):%H:%M:%S} Airflow {version}", file=sys.stderr, flush=True)
        measure(version, args.sizes, args.part, report)


if __name__ == "__main__":
    main()
