"""
What a failover takes, and pausing, by the number of DAGs: ``python -m tests.benchmarks.failover [VERSION ...]``.

Two real Airflows of a sandbox, whose MWAA answers ten calls a second as AWS's does. On the newest version whole
failovers, there and back, graceful and with nothing in flight; on each one ``mwaa-dr pause`` and ``unpause``. Beside
those two, the ways that people script: a call of the REST API for each DAG, at most ten a second, and
``airflow dags pause`` for each DAG in the environment itself. Both of them take so long that some DAGs must do; what
they take for all is worked out from that. Figures in build/bench/failover.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone

import boto3
from botocore.config import Config

from tests.benchmarks.report import Report, seconds
from tests.sandbox.harness import Airflow, Pair, Shape, opened
from tests.waiting import wait_until

VERSIONS = ("3.3.1", "3.2.1", "2.11.2")
SIZES = (10, 100, 500, 1000, 2000)
GOALS = {500: 10.0, 2000: 30.0}
TURNS = 3
PAUSED = 1000
SOME_BY_REST, SOME_BY_COMMAND = 60, 3
CALLS_A_SECOND = 10
FILE = "bench_dags.py"
SOURCE = """
from datetime import datetime, timezone

from airflow import DAG

try:
    from airflow.providers.standard.operators.empty import EmptyOperator
except ImportError:
    from airflow.operators.empty import EmptyOperator

for number in range({size}):
    with DAG(f"bench_{{number:05}}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
        EmptyOperator(task_id="nothing")
"""


def has(airflow: Airflow, size: int) -> bool:
    """Whether a region knows the DAGs."""
    return bool(airflow.rest("GET", "/dags", dag_id_pattern="bench_", limit=1)["total_entries"] == size)


def deploy(pair: Pair, size: int) -> None:
    """Give both regions *size* DAGs, and unpause them in the active one."""
    for airflow in pair.airflows.values():
        airflow.deploy(FILE, SOURCE.format(size=size))
    for airflow in pair.airflows.values():
        wait_until(lambda airflow=airflow: has(airflow, size), f"{airflow.name} has {size} DAGs", deadline_s=1200)
    if pair.active.major < 3:
        sql = "update dag set is_paused = false where dag_id like 'bench_%'"
        pair.sandbox.postgres.query(f"{sql} returning 1", database=pair.active.name)
    else:
        pair.active.rest("PATCH", "/dags", dag_id_pattern="bench_", limit=100, json={"is_paused": False})
    wait_until(lambda: unpaused(pair.active) >= size, "they are unpaused", deadline_s=600)


def unpaused(airflow: Airflow) -> int:
    """Return how many DAGs are not paused."""
    return sum(not is_paused for is_paused in airflow.dags().values())


def failovers(pair: Pair) -> tuple[list[float], dict[str, list[float]]]:
    """Return the seconds of failovers there and back, from the command's start to its end, and those of their steps."""
    took, steps = [], {}
    for _ in range(2 * TURNS):
        began = time.perf_counter()
        answer = pair.mwaa_dr(
            "failover", pair.standby.name, "--reason", "bench", "--mode", "graceful", "--yes", "--json"
        )
        took.append(time.perf_counter() - began)
        assert answer.returncode == 0, answer.stderr
        record = json.loads(answer.stdout)
        assert record["not_unpaused"] == [], record
        for step in record["steps"]:
            steps.setdefault(step["name"], []).append(step["seconds"])
        pair.wait_until_settled()
    return took, steps


class ByRest:
    """One call of InvokeRestApi for each DAG, no more than ten a second."""

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
        """Pause or unpause some."""
        due = time.perf_counter()
        for number in range(SOME_BY_REST):
            self._client.invoke_rest_api(
                Name=self._name, Method="PATCH", Path=f"/dags/bench_{number:05}", Body={"is_paused": is_paused}
            )
            due += 1 / CALLS_A_SECOND
            time.sleep(max(0.0, due - time.perf_counter()))


def pausing(pair: Pair) -> dict[str, list[float]]:
    """Return the seconds, a turn each, that pausing and unpausing 1,000 DAGs takes, in three ways."""
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


def main(versions: Sequence[str] = VERSIONS) -> None:
    """Measure, write, and print a row for each figure as soon as it is there."""
    report = Report("failover", {"airflow": ", ".join(versions)})
    for version in versions:
        print(f"{datetime.now(tz=timezone.utc):%H:%M:%S} Airflow {version}", file=sys.stderr, flush=True)
        with opened(Shape(version=version, name=f"bench-{version}", ledger=True)) as pair:
            for size in SIZES if version == VERSIONS[0] else (PAUSED,):
                deploy(pair, size)
                if version == VERSIONS[0]:
                    took, steps = failovers(pair)
                    told = ", ".join(f"{name} {sum(found) / len(found):.1f}" for name, found in steps.items())
                    what = f"failover of {size:,} DAGs"
                    report.keep(what=what, unit="s", values=took, goal=GOALS.get(size), note=told)
                if size == PAUSED:
                    found = pausing(pair)
                    peers = {"one REST call a DAG": found["rest"], "one airflow dags pause a DAG": found["command"]}
                    for word in ("pause", "unpause"):
                        what = f"{word} of {PAUSED:,} DAGs, Airflow {version}"
                        report.keep(what=what, unit="s", values=found[word], goal=5.0, peers=peers)


if __name__ == "__main__":
    main(sys.argv[1:] or VERSIONS)
