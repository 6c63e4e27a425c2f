"""
Failovers from a region that is not dead: cut off, without its table, or frozen. Both regions could execute tasks.

Each drill takes a random kind of fault, and a random moment at which the region comes back. It counts only what task
bodies wrote, and prints for how many seconds both regions started tasks, and how many runs executed twice. Without the
ledger entry of its end, a run of a lost region executes again; with it, it must not.
``MWAA_DR_TEST_CUT_OFFS=N`` sets the number of drills on each version, ``MWAA_DR_TEST_SEED=N`` repeats the choices.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

import pytest

from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.sandbox.cloud.tables import SandboxTables
from tests.sandbox.failovers import REASON, ChainRun, make_steady, mwaa_dr, start, wait_for_snapshot
from tests.sandbox.harness import Airflow, Line, Pair, Shape, on
from tests.waiting import wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.soak]

DRILLS = int(os.environ.get("MWAA_DR_TEST_CUT_OFFS", "25"))
SEED = int(os.environ.get("MWAA_DR_TEST_SEED") or random.randrange(2**31))
BURST = 8
"""Runs that wait in the source's executor when the fault begins."""
RUN, TICK = "outage_run", "outage_tick"


@contextmanager
def cut_off(pair: Pair, source: Airflow) -> Iterator[None]:
    """The region's network is gone; its Airflow works."""
    pair.sandbox.fault(source.name, "all", "blackhole")
    try:
        yield
    finally:
        pair.sandbox.fault(source.name, "all", "none")


@contextmanager
def without_table(pair: Pair, source: Airflow) -> Iterator[None]:
    """Its Airflow works and answers, but reaches no replica of the state table."""
    for region in pair.airflows:
        pair.sandbox.fault(region, "dynamodb", "refuse", from_caller=source.name)
    try:
        yield
    finally:
        for region in pair.airflows:
            pair.sandbox.fault(region, "dynamodb", "none", from_caller=source.name)


@contextmanager
def frozen_scheduler(pair: Pair, source: Airflow) -> Iterator[None]:
    """Its scheduler stops with all tasks, and later continues where it was. Everything else works."""
    with source.frozen("scheduler"):
        yield


@contextmanager
def frozen_region(pair: Pair, source: Airflow) -> Iterator[None]:
    """All its processes stop, its network is gone, and later it continues where it was."""
    pair.sandbox.freeze(source.name)
    try:
        yield
    finally:
        pair.sandbox.thaw(source.name)


FAULTS: Mapping[str, Callable[[Pair, Airflow], AbstractContextManager[None]]] = {
    "cut off": cut_off,
    "without its table": without_table,
    "frozen scheduler": frozen_scheduler,
    "frozen region": frozen_region,
}
MOMENTS = ("in the drain", "after the promotion", "after the failover")
"""When the region comes back."""


def later(lines: list[Line], moment: datetime) -> list[Line]:
    """Return the lines after *moment* of DAGs that the gate decides about."""
    return [line for line in lines if line.at > moment and line.dag_id in {RUN, TICK}]


def has_executed(pair: Pair, run: ChainRun) -> bool:
    """Whether a requested run has executed in one of the regions."""
    return any(airflow.executed(RUN, run.run_id) for airflow in pair.airflows.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """
    What a failover did.

    :param together_s: seconds from the target's first task to the source's last one; 0 if it is earlier.
    :param again: runs that executed again, because the ledger did not have their end when the target became active.
    :param wrong: runs that executed again although the ledger had their end, or in one region.
    """

    together_s: float
    again: int
    wrong: list[str]


def drill(pair: Pair, fault: str, moment: str, mode: str) -> Drill:
    """
    Fail over from a region with this fault, which ends at this moment.

    :raises AssertionError: a requested run is lost: it executes in no region, also after the region is back.
    """
    make_steady(pair, idle=False)
    source, target = pair.active, pair.standby
    source.unpause(RUN, TICK)
    target.pause(RUN, TICK)
    wait_for_snapshot(pair, source, RUN, TICK)
    ticks = len(source.executed(TICK))
    wait_until(lambda: len(source.executed(TICK)) > ticks, f"{source.name} executes {TICK}")
    requested = [start(source, dag_id=RUN) for _ in range(BURST)]
    began = datetime.now(tz=timezone.utc)
    with ExitStack() as faults:
        faults.enter_context(FAULTS[fault](pair, source))
        with mwaa_dr(pair, "failover", target.name, *REASON, "--mode", mode, drain_s=120) as failover:
            if moment == "in the drain":
                wait_until(lambda: pair.state().phase is not Phase.STEADY, "the failover begins")
                faults.close()
            elif moment == "after the promotion":
                wait_until(
                    lambda: pair.state().active_region == target.name or failover.process.poll() is not None,
                    f"{target.name} is active",
                )
                faults.close()
            assert failover.wait(timeout_s=300) == 0, failover.stdout + failover.stderr
        wait_until(lambda: later(target.executed(TICK), began), f"{target.name} executes {TICK}")
    pair.wait_until_reconciled()
    for run in requested:
        wait_until(
            lambda run=run: has_executed(pair, run),  # type: ignore[misc]
            lambda run=run: f"{run.run_id} executes in a region; in {source.name}: {run.state}, {run.note!r}",  # type: ignore[misc]
        )
    first = min(line.at for line in later(target.executed(), began))
    last = max((line.at for line in later(source.executed(), began)), default=began)
    promoted_at = pair.state().last_failover_time
    assert promoted_at is not None
    wrong, again = repeated(pair, source, target, began, promoted_at)
    return Drill(together_s=max(0.0, (last - first).total_seconds()), again=again, wrong=wrong)


def repeated(
    pair: Pair, source: Airflow, target: Airflow, began: datetime, promoted_at: datetime
) -> tuple[list[str], int]:
    """Return the runs of a drill that executed again although nobody had a reason, and the number of the others."""
    ledger, known, number = SandboxTables(pair.variables).runs, set(), 0
    while entries := ledger.log(source.name, after=number):
        number = entries[-1].number
        known |= {run.key for entry in entries for run in entry.runs if run.has_ended and entry.at < promoted_at}
    here, there = (
        Counter((line.dag_id, line.run_id) for line in airflow.executed() if line.dag_id in {RUN, TICK})
        for airflow in (source, target)
    )
    lines = [line for airflow in (source, target) for line in later(airflow.executed(), began)]
    fresh = {(line.dag_id, line.run_id) for line in lines}
    twice = {key for key in fresh if here[key] + there[key] > 1}
    wrong = sorted(" ".join(key) for key in twice if key in known or max(here[key], there[key]) > 1)
    return wrong, len(twice) - len(wrong)


@on(soak=tuple(Shape(version=version, name=f"ledger-{version}", ledger=True) for version in ("3.3.1", "2.10.3")))
def test_two_regions_never_execute_at_the_same_time(pair: Pair) -> None:
    """In no drill does the source start a task after the target's first one, or does a known end execute again."""
    print(f"\nseed {SEED}, {DRILLS} drills on {pair.version}")
    choose = random.Random(f"{SEED} {pair.version}")
    found: list[str] = []
    for number in range(DRILLS):
        fault, moment = choose.choice(sorted(FAULTS)), choose.choice(MOMENTS)
        mode = choose.choice(("auto", "forced"))
        seen = drill(pair, fault, moment, mode)
        said = (
            f"drill {number + 1}: {fault}, mode {mode} ended as {pair.history()[0]['mode']}, back {moment}: "
            f"both at once {seen.together_s:.2f} s; runs executed again without a known end {seen.again}, with one "
            f"{len(seen.wrong)}; all {BURST} requested runs executed"
        )
        print(said, flush=True)
        if seen.together_s or seen.wrong:
            found.append(f"{said}: {seen.wrong}")
    print(f"{DRILLS} drills: {len(found)} wrong", flush=True)
    assert not found, "\n".join(found)
