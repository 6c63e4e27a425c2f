"""Five hundred DAGs to the other region and back: paused DAGs stay paused, and the others run in one region only."""

from __future__ import annotations

import time

import pytest

from tests.sandbox.failovers import fail_over, make_steady, start
from tests.sandbox.harness import Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

MANY = {f"fo_many_{number:03d}" for number in range(480)}
BY_HAND = {f"fo_hand_{number:02d}" for number in range(20)}
FILE = "fo_many.py"
SOURCE = f"""
from datetime import datetime, timezone

from airflow import DAG
from airflow.decorators import task
from witness import body


@task
def first(**context):
    body(**context)


@task
def second(**context):
    body(**context)


START = datetime(2026, 1, 1, tzinfo=timezone.utc)
# The DAGs that users paused have a schedule: once unpaused, even for a moment, they run.
for dag_id, schedule, tags in (
    *((dag_id, None, []) for dag_id in {sorted(MANY)}),
    *((dag_id, "@daily", []) for dag_id in {sorted(BY_HAND)}),
    *((dag_id, None, ["dr:control"]) for dag_id in ("fo_exempt_on", "fo_exempt_off")),
):
    with DAG(dag_id, schedule=schedule, start_date=START, catchup=False, tags=tags):
        first() >> second()
"""
EXEMPT = {"fo_exempt_on": False, "fo_exempt_off": True}
"""Whether it is paused, by DAG id."""


def flags(airflow: Airflow) -> dict[str, bool]:
    """Return by DAG id whether it is paused, for the DAGs of this file."""
    return {dag_id: paused for dag_id, paused in airflow.dags().items() if dag_id in {*MANY, *BY_HAND, *EXEMPT}}


def is_parsed(airflow: Airflow) -> bool:
    """Whether the region has all DAGs of this file. It makes only two cheap calls, because it is called often."""
    return all(
        airflow.rest("GET", "/dags", dag_id_pattern=pattern, limit=1)["total_entries"] == number
        for pattern, number in (("fo_many_", len(MANY)), ("fo_hand_", len(BY_HAND)))
    )


@on("3.3.1")
def test_five_hundred_dags_fail_over_and_back(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A user paused 20 of 500 DAGs; one exempt DAG runs, and another is paused. All stay as they were, in both regions.
    """
    make_steady(pair)
    source, target = pair.active, pair.standby
    for airflow in (source, target):
        airflow.deploy(FILE, SOURCE)
    wait_until(lambda: is_parsed(source) and is_parsed(target), f"both regions know all DAGs of {FILE}")
    # One call changes all matches on 3.3. The setup uses it, and not the code that this test tests.
    source.rest("PATCH", "/dags", dag_id_pattern="fo_many_", limit=100, json={"is_paused": False})
    for airflow in (source, target):
        airflow.unpause("fo_exempt_on")
    # A user unpaused it in the standby by mistake. It must not start to run with the failover.
    target.unpause(min(BY_HAND))
    by_hand = dict.fromkeys(BY_HAND, True)
    as_before = {**dict.fromkeys(MANY, False), **by_hand, **EXEMPT}
    all_paused = {**dict.fromkeys(MANY, True), **by_hand, **EXEMPT}
    assert flags(source) == as_before

    lines_printed = []
    for active, standby in ((target, source), (source, target)):
        began = time.monotonic()
        record = fail_over(pair, active.name)
        steps = ", ".join(f"{step['name']} {step['seconds']:.1f}" for step in record["steps"])
        lines_printed.append(f"500 DAGs to {active.name}: {time.monotonic() - began:.1f} s ({steps})")
        assert record["not_unpaused"] == []
        assert flags(active) == as_before
        assert flags(standby) == all_paused
    with capsys.disabled():
        print("", *lines_printed, sep="\n")

    run = start(source, dag_id=max(MANY))
    # If a DAG is paused a moment too early, its run stays in state running for ever.
    run.wait_until_it_is("success")
    assert run.bodies() == ["first", "second"]
    for airflow in (source, target):
        assert not {line.dag_id for line in airflow.executed()} & BY_HAND
    for airflow in (source, target):
        airflow.remove(FILE)
        airflow.rest("PATCH", "/dags", dag_id_pattern="fo_many_", limit=100, json={"is_paused": True})
