"""
The runs that a new region adopts and resumes after a failover, with real schedulers. The tests read the lines of task
bodies.

The first interval of every DAG with catchup is the start of the sandbox. So each interval since must execute once, in
one of the regions.
"""

from __future__ import annotations

import json
import subprocess
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.gate import NOTE_TOKEN
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RegionLedger, RunStatus
from airflow_provider_mwaa_dr.core.ports import RunsStore
from airflow_provider_mwaa_dr.core.state import STATE_ID
from airflow_provider_mwaa_dr.sandbox.cloud.tables import SandboxTables
from airflow_provider_mwaa_dr.sandbox.drill import history
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings
from tests.sandbox.failovers import (
    CHAIN,
    REASON,
    ChainRun,
    fail_over,
    mwaa_dr,
    start,
    wait_for_snapshot,
)
from tests.sandbox.harness import Airflow, Pair, Shape, on
from tests.sandbox.intervals import (
    INTERVALS,
    assert_none_executed_again,
    bodies,
    interval_of,
    times_executed,
    under_load,
    wait_until_none_is_missing,
    wait_until_nothing_is_missing,
)
from tests.waiting import DEADLINE_S, wait_until

pytestmark = pytest.mark.sandbox

NEWEST, BETWEEN, OLDEST = (
    Shape(version=version, name=f"ledger-{version}", ledger=True) for version in ("3.3.1", "3.0.6", "2.10.3")
)


@pytest.fixture
def regions(pair: Pair) -> tuple[Airflow, Airflow]:
    """The active region, which must execute every interval, and the standby."""
    return under_load(pair)


def runs_store(pair: Pair) -> RunsStore:
    """Return the ledger as the control environment uses it."""
    return SandboxTables(pair.variables).runs


def ledger(pair: Pair, region: Airflow) -> RegionLedger:
    """Return the ledger of a region."""
    store = runs_store(pair)
    found = store.checkpoint(region.name)
    while entries := store.log(region.name, after=found.number):
        before = found.number
        found.apply(entries)
        assert found.number > before, f"entry {entries[0].number} of {region.name} does not follow {before}"
    return found


def published(pair: Pair, run: ChainRun) -> LedgerRun | None:
    """Return the ledger's entry of an unfinished run, from the region of the run."""
    return ledger(pair, run.airflow).runs.get((run.dag_id, run.run_id))


def wait_until_published(pair: Pair, *runs: ChainRun) -> None:
    """Wait until the ledger lists these runs as open. From then on, the region may be lost."""
    for run in runs:
        wait_until(
            lambda run=run: (found := published(pair, run)) and found.status is RunStatus.OPEN,  # type: ignore[misc]
            f"the ledger knows of {run.run_id}",
        )


def resumed(run: ChainRun, region: Airflow) -> ChainRun:
    """Return the same run in another region."""
    return ChainRun(airflow=region, dag_id=run.dag_id, run_id=run.run_id)


def interval(run: dict[str, Any]) -> tuple[Any, ...]:
    """Return the fields that must be equal in every region."""
    return tuple(run.get(name) for name in ("logical_date", "data_interval_start", "data_interval_end", "run_type"))


@on(OLDEST, soak=(NEWEST, BETWEEN))
def test_a_run_that_is_stopped_in_its_first_task_is_completed_in_the_other_region(
    pair: Pair, regions: tuple[Airflow, Airflow]
) -> None:
    """Airflow 2 marks such a run as a success: the task that is stopped writes the run's row back as running."""
    source, target = regions
    run = start(source, waits=True)
    wait_until_published(pair, run)
    fail_over(pair, target.name, "--stop-running", drain_s=2)
    there = resumed(run, target)
    wait_until(there.bodies, f"{run.run_id} executes in {target.name}")
    there.let_go()
    there.wait_until_it_executed()
    there.wait_until_it_is("success")
    assert run.bodies() == CHAIN[:1]


@on(NEWEST, OLDEST, soak=(BETWEEN,))
def test_a_graceful_failover_and_back_executes_every_interval_once(
    pair: Pair, regions: tuple[Airflow, Airflow]
) -> None:
    """
    With depends_on_past and max_active_runs, with and without catchup: no interval is lost, and none executes twice.
    """
    source, target = regions
    before = times_executed(pair)
    manual = start(source)
    manual.wait_until_it_executed()
    accepted: list[ChainRun] = []
    requested_at = 0.0
    with mwaa_dr(pair, "failover", target.name, *REASON, drain_s=120) as failover:

        def has_ended() -> bool:
            # A run that a user requests in the active region is accepted, also at the moment when the role moves.
            nonlocal requested_at
            if time.monotonic() - requested_at > 1:
                accepted.append(start(pair.active))
                requested_at = time.monotonic()
            return failover.process.poll() is not None

        wait_until(has_ended, "the failover ends")
        assert failover.document()["outcome"] == "completed"
    for run in accepted:
        wait_until(
            lambda run=run: sorted(run.bodies(source) + run.bodies(target)) == sorted(CHAIN),  # type: ignore[misc]
            f"{run.run_id} executes, once",
        )
    wait_until_nothing_is_missing(pair, target)
    wait_until(lambda: target.executed("led_one"), f"the DAG without catchup continues in {target.name}")
    fail_over(pair, source.name)
    wait_until_nothing_is_missing(pair, source)
    assert_none_executed_again(pair, before)
    assert manual.bodies(target) == []
    assert manual.bodies() == CHAIN


@on(NEWEST, soak=(BETWEEN, OLDEST))
def test_runs_of_a_lost_region_are_resumed_in_the_other_one(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """
    Same run id, interval and conf. Failed runs stay failed, and runs with dr:no-rerun are listed. Then the lost region
    returns.
    """
    source, target = regions
    failed = start(source, dag_id="led_fails")
    failed.wait_until_it_is("failed")
    in_flight = start(source, waits=True)
    opted_out = start(source, dag_id="led_no_rerun", waits=True)
    source.pause("fo_stray")
    queued = start(source, dag_id="fo_stray")
    wait_until_published(pair, in_flight, opted_out, queued)
    wait_for_snapshot(pair, source, *INTERVALS, "fo_chain")
    wait_until(lambda: failed.run_id not in {key[1] for key in ledger(pair, source).runs}, "its end is published")
    before = source.run(in_flight.dag_id, in_flight.run_id)
    pair.sandbox.kill(source.name)
    fail_over(pair, target.name, "--mode", "forced")

    there = resumed(in_flight, target)
    wait_until(there.bodies, f"{there.run_id} continues in {target.name}")
    there.let_go()
    there.wait_until_it_executed()
    there.wait_until_it_is("success")
    after = target.run(there.dag_id, there.run_id)
    assert after["conf"] == before["conf"]
    assert interval(after) == interval(before)
    assert there.note.startswith(NOTE_TOKEN)
    wait_until_nothing_is_missing(pair, target)
    target.unpause("fo_stray")
    resumed(queued, target).wait_until_it_executed()

    in_flight.let_go()
    opted_out.let_go()
    pair.sandbox.revive(source.name)
    pair.wait_until_reconciled()
    for run in (in_flight, queued):
        run.wait_until_it_is("success")  # as it ended in the other region
        assert NOTE_TOKEN in run.note
    opted_out.wait_until_it_is("failed")
    assert in_flight.bodies() == opted_out.bodies() == ["first"]
    assert queued.bodies() == []
    assert all(source.dags()[dag_id] for dag_id in (*INTERVALS, "led_one", "fo_chain"))
    waiting = [sentence for agent in pair.table.agents(target.name) for sentence in agent.waiting]
    assert any(opted_out.run_id in sentence and "dr:no-rerun" in sentence for sentence in waiting), waiting
    assert failed.bodies() == ["fail"]
    assert failed.bodies(target) == opted_out.bodies(target) == []

    later = start(target)
    later.wait_until_it_executed()
    fail_over(pair, source.name)
    wait_until_nothing_is_missing(pair, source)
    assert later.bodies(source) == []
    assert in_flight.bodies() == ["first"]
    for dag_id in INTERVALS:
        twice = [run for run, times in bodies(pair, dag_id).items() if times > 1]
        # They executed, or ended within the ledger's lag, when their region was killed.
        assert len(twice) <= 3, twice


@pytest.mark.soak
@on(NEWEST, BETWEEN, OLDEST)
def test_a_run_that_is_published_late_gets_room(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """A later run of the same DAG has started, takes the only room, and waits for it. No run executes twice."""
    source, target = regions
    fail_over(pair, target.name)
    source.stop("scheduler")
    try:
        earlier, later = (interrupted(pair, day, wait=day == 2) for day in (1, 2))
        publish(pair, source, later)
        begun = ChainRun(airflow=target, dag_id=later.dag_id, run_id=later.run_id)
        wait_until(lambda: begun.bodies() == ["first"], "the later run begins")
        publish(pair, source, earlier)
        queued = ChainRun(airflow=target, dag_id=earlier.dag_id, run_id=earlier.run_id)
        wait_until(lambda: is_there(queued), "the earlier run is queued")
        assert queued.state == "queued"
        begun.let_go()
        queued.wait_until_it_executed()
        begun.wait_until_it_executed()
        assert begun.bodies() == CHAIN
    finally:
        source.start_scheduler()
        pair.wait_until_reconciled()


def is_there(run: ChainRun) -> bool:
    """Whether the region has the run."""
    return run.run_id in {found["dag_run_id"] for found in run.airflow.runs(run.dag_id)}


def interrupted(pair: Pair, day: int, *, wait: bool) -> LedgerRun:
    """Return a run of a DAG with max_active_runs=1 and depends_on_past, as the old region publishes it."""
    at = datetime(2026, 2, day, tzinfo=timezone.utc)
    return LedgerRun(
        dag_id="led_waits",
        run_id=f"scheduled__{pair.state().epoch}_{day}",
        run_type="scheduled",
        status=RunStatus.INTERRUPTED,
        epoch=pair.state().epoch - 1,
        logical_date=at,
        data_interval_start=at,
        data_interval_end=at,
        # Airflow 3 sorts by this value, and would start the later run first, again and again.
        run_after=datetime(2026, 3, 9 - day, tzinfo=timezone.utc),
        conf=json.dumps({"wait": wait}),
    )


def publish(pair: Pair, region: Airflow, run: LedgerRun) -> None:
    """Publish a run for a region whose agent is gone."""
    before = ledger(pair, region)
    entry = LogEntry(
        number=before.number + 1,
        at=datetime.now(tz=timezone.utc),
        epoch=run.epoch,
        first_id=before.first_id,
        newest_id=before.newest_id,
        runs=(run,),
    )
    runs_store(pair).append(region.name, entry)


@on(NEWEST, soak=(BETWEEN, OLDEST))
def test_two_years_of_history_are_adopted_and_not_executed_again(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """The new region has no run of the DAG. It executes only intervals that the source had not finished."""
    source, target = regions
    finished = datetime.fromtimestamp(time.time() // 5 * 5 - 60, tz=timezone.utc)
    create_history(source, "led_two_years", finished)
    source.unpause("led_two_years")
    wait_until(lambda: len(source.executed("led_two_years")) >= 5, f"the DAG continues in {source.name}")
    fail_over(pair, target.name)
    wait_until(lambda: len(target.executed("led_two_years")) >= 3, f"the DAG continues in {target.name}")
    assert min(map(interval_of, bodies(pair, "led_two_years"))) > finished - timedelta(seconds=1)
    wait_until_none_is_missing(pair, "led_two_years")
    assert set(bodies(pair, "led_two_years").values()) == {1}


def create_history(region: Airflow, dag_id: str, last: datetime) -> None:
    """Write finished runs of the DAG to the region's database, up to the run *last*."""
    words = (
        "-m",
        "airflow_provider_mwaa_dr.sandbox.drill.history",
        (last + history.EVERY).isoformat(),
        "100",
        f"{dag_id}=0",
    )
    answer = subprocess.run(
        [region.bin / "python", *words],
        env=airflow_settings.process_variables(region.variables, bin_folder=region.bin),
        capture_output=True, text=True, check=False, timeout=DEADLINE_S,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr


def disagreements(pair: Pair, region: Airflow, *, since: datetime) -> list[str]:
    """
    Return the differences between the ledger and a region's database for runs that were queued since then, one line
    each.
    """
    entries: dict[tuple[str, str], str] = {}
    number = 0
    store = runs_store(pair)
    while page := store.log(region.name, after=number):
        entries |= {run.key: run.status.value for entry in page for run in entry.runs}
        number = page[-1].number
    rows = pair.sandbox.postgres.query(
        "select dag_id, run_id, case when state in ('queued', 'running') then 'open' else state end from dag_run "
        f"where state in ('queued', 'running') or queued_at > '{since.isoformat()}'",
        database=region.name,
    )
    states = {(dag_id, run_id): state for dag_id, run_id, state in rows}
    known = ledger(pair, region)
    found = [
        f"{' '.join(key)} is {state}, and the ledger says {entries.get(key)}"
        for key, state in states.items()
        if entries.get(key) != state
    ]
    found += [f"{' '.join(key)} is open in the ledger" for key in known.runs.keys() - states.keys()]
    rows = pair.sandbox.postgres.query(
        "select distinct on (dag_id) dag_id, run_id from dag_run where run_type = 'scheduled' "
        "and state in ('success', 'failed') order by dag_id, logical_date desc",
        database=region.name,
    )
    for dag_id, run_id in rows:
        head = known.heads.get(dag_id)
        if head is None or head.finished is None or head.finished.run_id != run_id:
            found.append(f"the newest finished run of {dag_id} is {run_id}, and the ledger's head is {head}")
    return found


@pytest.mark.soak
@on(NEWEST)
def test_the_ledger_agrees_after_fifty_kills_of_the_scheduler(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """Each kill interrupts some work. The ledger has every run of the database, with the same status."""
    source, _ = regions
    began = datetime.now(tz=timezone.utc)
    source.unpause("outage_run")
    for _ in range(50):
        executed = len(source.executed("outage_run"))
        start(source, dag_id="outage_run")
        wait_until(
            lambda executed=executed: len(source.executed("outage_run")) > executed,  # type: ignore[misc]
            f"the scheduler of {source.name} is at work",
        )
        start(source, dag_id="outage_run")
        source.stop("scheduler")
        source.start_scheduler()
    source.pause(*INTERVALS, "led_one")
    last: list[str] = []

    def agree() -> bool:
        last[:] = disagreements(pair, source, since=began)
        return not last

    try:
        wait_until(agree, "ledger and database agree")
    finally:
        print("\n".join(last))
    # Control case: there were runs to compare.
    assert len(source.executed("outage_run")) >= 50


@pytest.mark.soak
@on(NEWEST)
def test_ten_minutes_without_dynamodb_lose_nothing(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """Under load, runs are held meanwhile. Afterwards the ledger is complete again within a minute."""
    source, target = regions
    before, in_standby = times_executed(pair), len(target.executed())
    began = datetime.now(tz=timezone.utc)
    for region in pair.airflows:
        pair.sandbox.fault(region, "dynamodb", "refuse", from_caller=source.name)
    gone_at = time.monotonic()
    runs = []

    def is_over() -> bool:
        if len(runs) < 200:
            runs.append(start(source))
        return time.monotonic() - gone_at > 600

    wait_until(is_over, "ten minutes have passed", deadline_s=700)
    assert runs[-1].bodies() == []
    for region in pair.airflows:
        pair.sandbox.fault(region, "dynamodb", "none", from_caller=source.name)
    back_at = datetime.now(tz=timezone.utc)

    def is_back() -> bool:
        beats = [agent for agent in pair.table.agents(source.name) if agent.at > back_at]
        return any(agent.ledger_lag_s is not None and agent.ledger_lag_s < 10 for agent in beats)

    wait_until(is_back, "the ledger is back")
    print(f"lag below 10 s again after {(datetime.now(tz=timezone.utc) - back_at).total_seconds():.0f} s")
    for run in runs:
        wait_until(lambda run=run: run.bodies() == CHAIN, f"{run.run_id} executes", deadline_s=900)  # type: ignore[misc]
    wait_until_nothing_is_missing(pair, source)
    assert_none_executed_again(pair, before)
    source.pause(*INTERVALS, "led_one")
    wait_until(lambda: not disagreements(pair, source, since=began), "ledger and database agree")
    assert len(target.executed()) == in_standby


MISSPELLED_S = 30.0
"""How long the state item names a region that does not exist: several leases."""


@on(soak=(NEWEST, OLDEST))
def test_a_misspelled_active_region_loses_no_interval_and_no_run(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """A user edits the item under load. No region has a role, every run is held, and later each run executes once."""
    source, target = regions
    before, in_standby = times_executed(pair), len(target.executed())

    def name(region: str) -> None:
        pair.dynamodb.update_item(
            TableName=pair.variables["DR_STATE_TABLE"],
            Key={"state_id": {"S": STATE_ID}},
            UpdateExpression="SET active_region = :region",
            ExpressionAttributeValues={":region": {"S": region}},
        )

    began = requested_at = time.monotonic()
    accepted: list[ChainRun] = []
    name("us-est-2")

    def is_over() -> bool:
        nonlocal requested_at
        if time.monotonic() - requested_at > 3:
            accepted.append(start(source))
            requested_at = time.monotonic()
        return time.monotonic() - began > MISSPELLED_S

    wait_until(is_over, "users trigger runs while no region is active")
    text = pair.mwaa_dr("status").stdout
    assert "'us-est-2', which is not registered" in text
    assert [run.state for run in accepted[-3:]] == ["queued"] * 3
    name(source.name)
    for run in accepted:
        run.wait_until_it_executed()
    wait_until_nothing_is_missing(pair, source)
    assert_none_executed_again(pair, before)
    assert len(target.executed()) == in_standby
