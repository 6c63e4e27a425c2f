"""
What Airflow's look-backs find after a failover, with real schedulers: nothing that a standby ended.

The control is the source's own history: in one Airflow, the next run looks back at its last success.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.sandbox.failovers import fail_over, make_steady
from tests.sandbox.harness import Airflow, Pair, Shape, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

SHAPES = tuple(Shape(version=version, name=f"ledger-{version}", ledger=True) for version in ("3.3.1", "2.10.3"))
LOAD, STRIKES = "back_load", "back_strikes"
LIMIT = 3
SOURCE = '''
"""An incremental load, and a DAG that Airflow pauses after three failures in a row."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from airflow import DAG
from airflow.decorators import task
from airflow.timetables.trigger import CronTriggerTimetable
from witness import body

HOME = Path(__file__).resolve().parent.parent


@task(retries=0)
def load(**context):
    body(**context)
    since = context.get("prev_data_interval_end_success")
    # Airflow 3 returns a proxy, which may stand for None.
    line = {{"run_id": context["run_id"], "since": since.isoformat() if since else None}}
    with (HOME / "looked_back.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\\n")
    if (HOME / "gates" / "back_fails").exists():
        raise RuntimeError("the warehouse is down")


@task(retries=0)
def fail(**context):
    body(**context)
    raise RuntimeError("this one always fails")


START = datetime.fromisoformat("{start}")
every = CronTriggerTimetable("* * * * * */10", timezone="UTC")
with DAG("{load}", schedule=every, start_date=START, catchup=True, max_active_runs=1):
    load()
with DAG("{strikes}", schedule=None, start_date=START, catchup=False, max_consecutive_failed_dag_runs={limit}):
    fail()
'''


def deployed(pair: Pair) -> tuple[Airflow, Airflow]:
    """Return the active region and the standby, with the DAGs of this module, unpaused in the active region only."""
    make_steady(pair, idle=False)
    if LOAD not in pair.active.dags():
        began = datetime.now(tz=timezone.utc).replace(microsecond=0) - timedelta(seconds=20)
        text = SOURCE.format(start=began.isoformat(), load=LOAD, strikes=STRIKES, limit=LIMIT)
        for region in pair.airflows.values():
            region.deploy("look_backs.py", text)
        for region in pair.airflows.values():
            for dag_id in (LOAD, STRIKES):
                region.wait_for_dag(dag_id)
    pair.active.unpause(LOAD, STRIKES)
    return pair.active, pair.standby


def request(region: Airflow, dag_id: str) -> str:
    """Request a run whose logical date is now, and return its id."""
    now = datetime.now(tz=timezone.utc)
    body: dict[str, Any] = {"dag_run_id": f"by_hand_{now:%H%M%S%f}", "logical_date": now.isoformat(), "conf": {}}
    region.rest("POST", f"/dags/{dag_id}/dagRuns", json=body)
    return str(body["dag_run_id"])


def request_in_standby(region: Airflow, dag_id: str) -> None:
    """Request a run in the standby, and wait until the provider has ended it."""
    run_id = request(region, dag_id)
    wait_until(lambda: region.run(dag_id, run_id)["state"] == "failed", f"{region.name} ends {dag_id} {run_id}")
    assert "is standby" in region.note(dag_id, run_id), "the note explains why the run is failed"


def ends(region: Airflow, state: str) -> list[datetime]:
    """Return the ends of the intervals of the load's runs that have this state, in order of their dates."""
    runs = [run for run in region.runs(LOAD, limit=100) if run["state"] == state]
    return sorted(datetime.fromisoformat(run["data_interval_end"]) for run in runs)


def looked_back(region: Airflow) -> list[dict[str, Any]]:
    """Return what the load's bodies recorded in the region."""
    path = region.home / "looked_back.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def set_failing(pair: Pair, *, fails: bool) -> None:
    for region in pair.airflows.values():
        gate = region.home / "gates" / "back_fails"
        gate.parent.mkdir(exist_ok=True)
        if fails:
            gate.touch()
        else:
            gate.unlink(missing_ok=True)


@on(soak=SHAPES)
def test_an_incremental_load_continues_after_the_last_success(pair: Pair) -> None:
    """
    The last runs of the source failed, and users requested runs in the standby. The next run loads from the end of the
    last success on, in the region that takes over and after the failback.
    """
    set_failing(pair, fails=False)
    source, target = deployed(pair)
    for left, right in ((source, target), (target, source)):
        set_failing(pair, fails=False)
        before = len(looked_back(left))
        wait_until(lambda: len(looked_back(left)) >= before + 2, f"{left.name} loads")  # noqa: B023
        set_failing(pair, fails=True)
        failed = len([run for run in left.runs(LOAD, limit=100) if run["state"] == "failed"])
        wait_until(
            lambda: len([run for run in left.runs(LOAD, limit=100) if run["state"] == "failed"]) >= failed + 2,  # noqa: B023
            f"two loads fail in {left.name}",
        )
        for _ in range(2):
            request_in_standby(right, LOAD)
        known = len(looked_back(right))
        expected = ends(left, "success")[-1]
        record = fail_over(pair, right.name)
        assert len(record["ended_in_standby"]) == 2, record
        wait_until(lambda: len(looked_back(right)) > known, f"{right.name} loads")  # noqa: B023
        since = looked_back(right)[known]["since"]
        assert since is not None, f"{right.name} has no previous success; in one Airflow it is {expected}"
        assert datetime.fromisoformat(since) == expected
    set_failing(pair, fails=False)


@on(*SHAPES)
def test_a_dag_is_paused_after_as_many_real_failures_as_it_allows(pair: Pair) -> None:
    """Runs that users requested in the standby do not count, neither there nor after the failover."""
    set_failing(pair, fails=False)
    _, target = deployed(pair)
    for _ in range(LIMIT - 1):
        request_in_standby(target, STRIKES)
    fail_over(pair, target.name)
    wait_until(lambda: target.dags()[STRIKES] is False, f"{STRIKES} is unpaused in {target.name}")
    for strike in range(1, LIMIT + 1):
        run_id = request(target, STRIKES)
        wait_until(
            lambda: target.run(STRIKES, run_id)["state"] == "failed",  # noqa: B023
            f"strike {strike} has failed",
        )
        assert target.executed(STRIKES, run_id)
        if strike < LIMIT:
            assert target.dags()[STRIKES] is False, f"paused after {strike} failures"
    wait_until(lambda: target.dags()[STRIKES] is True, f"{STRIKES} is paused after {LIMIT} failures")
