"""
The state table, or the network of a whole region, is unavailable for a while. The tests read the lines of task bodies.
"""

from __future__ import annotations

from collections import Counter

import pytest

from airflow_provider_mwaa_dr.core.gate import NOTE_TOKEN
from tests.sandbox.failovers import ChainRun, fail_over, make_steady, start, wait_for_snapshot
from tests.sandbox.harness import Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

TASKS = {"operator": 1, "function": 1, "record_item": 2, "deferring": 2, "sensor": 2, "short": 1}
"""How often the body of each task of outage_tasks starts."""
UNREACHABLE = f"{NOTE_TOKEN} held: %s has not reached the state table"


def run_of(airflow: Airflow, dag_id: str) -> ChainRun:
    """Start a run of *dag_id*."""
    return start(airflow, dag_id=dag_id)


def is_held(run: ChainRun) -> bool:
    """Whether the run waits because the table is unreachable. In that case the lease has expired."""
    return run.note.startswith(UNREACHABLE % run.airflow.name) and run.state == "queued" and not run.bodies()


def wait_until_held(run: ChainRun) -> None:
    """Wait until the run is held because the table is unreachable."""
    wait_until(lambda: is_held(run), f"{run.run_id} is held")


def start_until_held(airflow: Airflow) -> list[ChainRun]:
    """Start one run after another until one is held, and return all. The earlier runs started within the lease."""
    runs: list[ChainRun] = []

    def is_over() -> bool:
        run = run_of(airflow, "outage_run")
        runs.append(run)
        # The gate let it start. Its task may wait in the fence, which reads the state for itself.
        wait_until(lambda: run.note or run.state != "queued", f"{run.run_id} starts, is closed or is held")
        return is_held(run)

    wait_until(is_over, f"the lease of {airflow.name} is over")
    return runs


def cut_off(pair: Pair, airflow: Airflow, fault: str) -> None:
    """Block all requests of a region to every replica of the table; *fault* ``none``: allow them again."""
    for region in pair.airflows:
        pair.sandbox.fault(region, "dynamodb", fault, from_caller=airflow.name)


def holds(run: ChainRun) -> int:
    """Return how often a task of the run was returned to the scheduler, from the logs of its tasks."""
    logs = run.airflow.log_folder.glob(f"**/*{run.run_id}*/**/*.log")
    return sum(log.read_text(errors="replace").count("The task goes back to the scheduler") for log in logs)


@on("2.10.3", soak=("3.0.6", "3.3.1"))
@pytest.mark.parametrize("fault", ["refuse", pytest.param("blackhole", marks=pytest.mark.soak)])
def test_an_unreachable_table_only_holds(pair: Pair, fault: str) -> None:
    """
    First in the standby, then in the active region, too: nothing starts or fails. Afterwards every run executes once.
    """
    make_steady(pair)
    active, standby = pair.active, pair.standby
    for airflow in (active, standby):
        airflow.unpause("outage_run", "outage_tasks")
    in_flight = start(active, dag_id="outage_tasks", waits=True)

    cut_off(pair, standby, fault)
    in_standby = start_until_held(standby)[-1]
    control = run_of(active, "outage_run")
    wait_until(control.bodies, f"{active.name}, which still reaches the table, executes a run")

    cut_off(pair, active, fault)
    due = start_until_held(active)
    in_flight.let_go()
    wait_until(lambda: holds(in_flight) > 2 * len(TASKS), "its next tasks were given back twice")
    assert in_flight.bodies() == ["first"]
    due.append(run_of(active, "outage_run"))
    wait_until_held(due[-1])
    wait_until_held(in_standby)

    cut_off(pair, active, "none")
    for run in due:
        run.wait_until_it_is("success")
    in_flight.wait_until_it_is("success")
    later = run_of(active, "outage_run")
    later.wait_until_it_is("success")
    for run in (*due, later, control):
        assert run.bodies() == ["record"]
    lines = active.executed("outage_tasks", in_flight.run_id)
    assert Counter(line.task_id for line in lines) == {**TASKS, "first": 1}
    assert {line.try_number for line in lines} == {1}

    wait_until_held(in_standby)
    cut_off(pair, standby, "none")
    wait_until(lambda: in_standby.state != "queued", f"{standby.name} closes its held run")
    assert in_standby.bodies() == []
    assert standby.executed("outage_tasks") == []


@on("3.3.1")
def test_a_region_cut_off_from_everything_stops_before_the_other_one_starts(pair: Pair) -> None:
    """Its Airflow stays alive, as an exempt DAG shows. When it is back in the network, it continues no run."""
    make_steady(pair)
    cut, other = pair.active, pair.standby
    cut.unpause("outage_tick", "outage_run", "outage_tasks", "outage_exempt")
    in_flight = start(cut, dag_id="outage_tasks", waits=True)
    wait_until(lambda: cut.executed("outage_tick") and cut.executed("outage_exempt"), "both DAGs tick")
    wait_for_snapshot(pair, cut, "outage_tick", "outage_run", "outage_tasks")
    pair.wait_until_reconciled()

    pair.sandbox.fault(cut.name, "all", "blackhole")
    queued = start_until_held(cut)[-1]
    record = fail_over(pair, other.name)
    assert record["mode"] == "forced"
    promoted_at = pair.state().last_failover_time
    assert promoted_at is not None
    wait_until(
        lambda: other.executed("outage_tick")[-1:] and other.executed("outage_tick")[-1].at > promoted_at, "it executes"
    )
    in_flight.let_go()
    wait_until(lambda: holds(in_flight) > len(TASKS), f"tasks in {cut.name} are given back")
    wait_until(lambda: cut.executed("outage_exempt")[-1].at > promoted_at, f"the Airflow of {cut.name} is alive")
    before = cut.executed()

    pair.sandbox.fault(cut.name, "all", "none")
    pair.wait_until_reconciled()
    for run in (in_flight, queued):
        run.wait_until_it_is("failed")
        assert NOTE_TOKEN in run.note
    assert queued.bodies() == []
    assert in_flight.bodies() == ["first"]
    assert in_flight.bodies(other) == []
    cut.pause("outage_exempt")
    after = [line for line in cut.executed() if line.dag_id != "outage_exempt"]
    assert after == [line for line in before if line.dag_id != "outage_exempt"]
    assert max(line.at for line in after) < promoted_at
    runs = Counter((line.run_id, line.task_id) for region in (cut, other) for line in region.executed("outage_tick"))
    assert {run: times for run, times in runs.items() if times > 1} == {}
    other.pause("outage_tick", "outage_run", "outage_tasks")
