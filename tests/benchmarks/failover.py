"""
Duration of failovers and of pausing, by the number of DAGs: ``python -m tests.benchmarks.failover [VERSION ...]``.

The sandbox runs two real Airflows, and its MWAA accepts ten calls a second, like AWS. On the newest version, the
benchmark measures complete failovers and failbacks: graceful ones without runs in flight, and forced ones from a dead
region. On each version, it measures ``mwaa-dr pause`` and ``unpause``. For comparison, it measures two common scripts:
one REST API call for each DAG, at most ten a second, and ``airflow dags pause`` for each DAG in the environment itself.
Both are slow, so they pause only some DAGs, and their time is extrapolated. The figures are in
build/bench/failover.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone

import boto3
from botocore.config import Config

from airflow_provider_mwaa_dr.aws.mwaa.environment import LISTED
from tests.benchmarks.report import Report, seconds
from tests.sandbox.harness import Airflow, Pair, Shape, opened

VERSIONS = ("3.3.1", "3.2.1", "2.11.2")
SIZES = (10, 100, 500, 1000, 2000, 10_000)
LARGE = (2000, 10_000)
GOALS = {500: 10.0, 2000: 30.0}
TURNS = 2
LOST_DAGS, LEASE_S = 500, 60
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
    took, steps = [], {}
    for _ in range(2 * TURNS):
        took.append(fail_over(pair, "graceful", steps))
        pair.wait_until_reconciled()
    return took, steps


def failovers_from_a_dead_region(pair: Pair) -> tuple[list[float], Steps]:
    """Return the durations of failovers and failbacks from a region that has just been killed, and of their steps."""
    took, steps = [], {}
    for _ in range(2):
        lost = pair.active.name
        pair.sandbox.kill(lost)
        took.append(fail_over(pair, "forced", steps))
        pair.sandbox.revive(lost)
        pair.wait_until_reconciled()
    return took, steps


def medians(steps: Steps) -> str:
    """Return the median duration of each step."""
    return ", ".join(f"{name} {statistics.median(found):.1f}" for name, found in steps.items())


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
    """Graceful failovers with the default API settings and, for many DAGs, also with the largest pages of the API."""

    def keep(what: str, series: str, goal: float | None) -> None:
        took, steps = failovers(pair)
        report.keep(what=what, unit="s", values=took, goal=goal, note=medians(steps), series=series, size=size)

    keep(f"failover of {size:,} DAGs", "a graceful failover", GOALS.get(size))
    if size in LARGE:
        for airflow in pair.airflows.values():
            airflow.restart_api_server(maximum_page_limit=LISTED)
        keep(f"failover of {size:,} DAGs, [api] maximum_page_limit {LISTED}", "the same, larger pages", None)
        for airflow in pair.airflows.values():
            airflow.restart_api_server()


def measure_lost(report: Report, version: str) -> None:
    """Forced failovers from a dead region, with the default lease."""
    shape = Shape(version=version, name="bench-lost", ledger=True, dr=(("lease_s", str(LEASE_S)),))
    with opened(shape) as pair:
        deploy(pair, LOST_DAGS)
        took, steps = failovers_from_a_dead_region(pair)
    report.keep(
        what=f"failover of {LOST_DAGS} DAGs from a dead region, lease {LEASE_S} s",
        unit="s",
        values=took,
        goal=LEASE_S + 15,
        note=medians(steps),
    )


def main(versions: Sequence[str] = VERSIONS) -> None:
    """Measure, and write and print a row for each figure as soon as it exists."""
    report = Report("failover", {"airflow": ", ".join(versions)})
    for version in versions:
        print(f"{datetime.now(tz=timezone.utc):%H:%M:%S} Airflow {version}", file=sys.stderr, flush=True)
        with opened(Shape(version=version, name=f"bench-{version}", ledger=True)) as pair:
            for size in SIZES if version == VERSIONS[0] else (PAUSED,):
                deploy(pair, size)
                if version == VERSIONS[0]:
                    measure_failovers(pair, report, size)
                if size == PAUSED:
                    found = pausing(pair)
                    peers = {
                        "one REST call for each DAG": found["rest"],
                        "one airflow dags pause for each DAG": found["command"],
                    }
                    for word in ("pause", "unpause"):
                        what = f"{word} of {PAUSED:,} DAGs, Airflow {version}"
                        report.keep(what=what, unit="s", values=found[word], goal=5.0, peers=peers)
        if version == VERSIONS[0]:
            measure_lost(report, version)


if __name__ == "__main__":
    main(sys.argv[1:] or VERSIONS)
