"""
Planned failovers while work in progress waits for runs that the gate holds, with real schedulers.

In each of three cases the failover completes without ``--stop-running``: a parent waits for its child, a sensor waits
for a run of another DAG, and a paused DAG has an unfinished run. Task bodies write what executed.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone

import pytest

from airflow_provider_mwaa_dr.core.state import Phase
from tests.sandbox.failovers import REASON, mwaa_dr
from tests.sandbox.harness import Pair, on
from tests.sandbox.test_pairs_of_versions import assert_schedulers_are_well
from tests.sandbox.waiting_runs import begun, ended, open_gate, shape, under_way
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

IN_SOURCE = ("parent prepare", "child work", "parent after", "upstream up", "downstream down")


@on(shape("3.3.1"), soak=(shape("2.10.3"),))
def test_a_planned_failover_completes_while_work_waits_for_held_runs(pair: Pair) -> None:
    """The child and the sensed run are requested during the drain. Each body executes once, in one of the regions."""
    source, target = under_way(pair)
    date = datetime.now(tz=timezone.utc).replace(microsecond=0).isoformat()
    dated = {"dag_run_id": "dated", "logical_date": date, "conf": {}}
    source.trigger("wait_parent")
    source.rest("POST", "/dags/wait_downstream/dagRuns", json=dated)
    idle = source.trigger("wait_idle")

    for dag_id, run_id, task_id, state in (
        ("wait_downstream", "dated", "sense", "running"),
        ("wait_idle", idle, "look", "up_for_reschedule"),
    ):
        wait_until(
            lambda: source.task_states(dag_id, run_id).get(task_id) == state,  # noqa: B023
            f"{dag_id} {task_id} is {state}",
        )
    source.pause("wait_idle")
    wait_until(lambda: begun(source)["parent prepare"], "the parent executes")

    with mwaa_dr(pair, "failover", target.name, *REASON, "--mode", "graceful", drain_s=150) as failover:
        wait_until(lambda: pair.state().phase is Phase.DRAINING, "the drain begins")
        source.rest("POST", "/dags/wait_upstream/dagRuns", json=dated)
        open_gate(source, "parent")
        open_gate(source, "child")
        record = failover.document()
    assert (record["outcome"], record["mode"]) == ("completed", "graceful"), record
    assert ended(source) == Counter(IN_SOURCE)
    assert begun(source) == Counter(IN_SOURCE)

    assert target.dags()["wait_idle"], "it stays paused"
    open_gate(target, "idle")
    target.unpause("wait_idle")
    wait_until(lambda: ended(target)["idle after"], "the run of the paused DAG ends after its DAG is unpaused")
    open_gate(source, "idle")  # also there, nothing may execute any longer
    assert begun(source, target) == Counter((*IN_SOURCE, "idle after"))
    assert begun(target) == Counter(("idle after",))
    assert_schedulers_are_well(pair)
