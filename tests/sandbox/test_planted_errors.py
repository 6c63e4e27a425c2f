"""
Each function that gate, fence and agent call fails, one at a time, in running schedulers and their tasks.

A first cycle without an error lists these functions. The test takes a quarter of an hour for each version.
tests/airflow/test_planted_errors.py does the same with only the hooks, in seconds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.sandbox.runtime import process
from tests import planting
from tests.sandbox.failovers import ChainRun, start
from tests.sandbox.harness import Airflow, Pair, Shape, on
from tests.waiting import wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.soak]

SHAPES = [Shape(version=version, name=f"planted-{version}", dr=(("lease_s", "4"),)) for version in ("2.10.3", "3.3.1")]
ONLY = os.environ.get("DR_PLANTED", "")
"""Plant errors only in functions whose name contains this."""
_serials = count(1)


def lines(airflow: Airflow, file: str) -> list[str]:
    path = airflow.home / file
    return path.read_text().splitlines() if path.exists() else []


def plant(pair: Pair, key: str) -> str:
    """Let the function fail in both regions from now on. Return the line that records a failure."""
    serial = str(next(_serials))
    for airflow in pair.airflows.values():
        part = airflow.home / "planted.part"
        part.write_text(f"{key} {serial}")
        part.replace(airflow.home / "planted")
    return f"{serial} {key}"


def lift(pair: Pair) -> None:
    """Let every function work again."""
    for airflow in pair.airflows.values():
        (airflow.home / "planted").unlink(missing_ok=True)


def both(pair: Pair) -> tuple[ChainRun, ChainRun]:
    """Start a run in the active region and one in the standby."""
    return start(pair.active, dag_id="outage_run"), start(pair.standby, dag_id="outage_run")


def assert_harmless(pair: Pair, here: ChainRun, there: ChainRun) -> None:
    """Wait until both runs end and a later one succeeds. The standby executed nothing, and nothing executed twice."""
    wait_until(lambda: there.state in {"success", "failed"}, f"{there.run_id} ends in {there.airflow.name}")
    wait_until(lambda: here.state in {"success", "failed"}, f"{here.run_id} ends in {here.airflow.name}")
    later = start(here.airflow, dag_id="outage_run")
    later.wait_until_it_is("success")
    assert later.bodies() == ["record"]
    assert here.bodies() in ([], ["record"])
    assert (here.state == "success") == (here.bodies() == ["record"])
    assert there.bodies() == []


def called_by(pair: Pair) -> Sequence[str]:
    """Return the functions that both regions' schedulers and tasks have called, in order."""
    found = [line for airflow in pair.airflows.values() for line in lines(airflow, "called")]
    return [key for key in dict.fromkeys(found) if ONLY in key]


@on(*SHAPES)
def test_whatever_fails_the_scheduler_lives_and_the_standby_executes_nothing(pair: Pair) -> None:
    """
    A run that starts meanwhile in the active region executes at most once, and a run that starts afterwards succeeds.
    """
    for airflow in pair.airflows.values():
        (airflow.home / "plugins").mkdir(exist_ok=True)
        shutil.copy(Path(planting.__file__), airflow.home / "plugins" / "plant.py")
        airflow.stop("scheduler")
        airflow.start_scheduler()
        airflow.unpause("outage_run")
    pair.wait_until_reconciled()
    assert_harmless(pair, *both(pair))
    schedulers = [airflow.session("scheduler") for airflow in pair.airflows.values()]
    keys = called_by(pair)
    print(f"{len(keys)} functions are called", flush=True)
    assert len(keys) > 40 or ONLY
    not_again: list[str] = []
    broken: list[str] = []
    for number, key in enumerate(keys, 1):
        mark = plant(pair, key)
        here, there = both(pair)
        try:
            wait_until(
                lambda mark=mark: any(mark in lines(airflow, "failed") for airflow in pair.airflows.values()),  # type: ignore[misc]
                f"{key} fails",
                deadline_s=12,
            )
        except AssertionError:
            not_again.append(key)
        lift(pair)
        try:
            assert_harmless(pair, here, there)
            assert all(map(process.is_alive, schedulers)), "a scheduler is dead"
        except AssertionError as error:
            broken.append(f"{key}: {error}")
        print(f"{number} of {len(keys)}: {key}: {here.state}, {len(here.bodies())} bodies", flush=True)
    print(f"{len(keys)} functions, of which not called again: {not_again}")
    assert broken == []
    assert len(not_again) < len(keys) / 3


@on(*SHAPES)
def test_the_test_detects_a_standby_that_executes(pair: Pair) -> None:
    """Control case: with the plugin disabled in the standby, the assertions of the test above fail."""
    standby = pair.standby
    for airflow in pair.airflows.values():
        airflow.unpause("outage_run")
    standby.stop("scheduler")
    standby.start_scheduler(enabled="False")
    here, there = both(pair)
    there.wait_until_it_is("success")
    with pytest.raises(AssertionError, match="record"):
        assert_harmless(pair, here, there)
