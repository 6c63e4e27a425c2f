"""CeleryExecutor with SQS, as in MWAA: tasks that wait in the broker when the role moves."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import pytest

from airflow_provider_mwaa_dr.sandbox.runtime import process
from tests.sandbox.failovers import CHAIN, REASON, ChainRun, fail_over, make_steady, mwaa_dr, start
from tests.sandbox.harness import CELERY, CELERY_OF_AIRFLOW_2, Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

LONGEST_RECEIVE_S = 20
"""The longest wait of ReceiveMessage in SQS."""


def in_the_broker(airflow: Airflow) -> ChainRun:
    """Start a run whose first task waits in the queue, because worker and scheduler were stopped."""
    airflow.stop("worker")
    began = datetime.now(tz=timezone.utc)
    # The last ReceiveMessage of the stopped worker stays open for a while, and would take the message.
    over_at = time.monotonic() + LONGEST_RECEIVE_S
    wait_until(
        lambda: airflow.messages("ReceiveMessage", since=began) or time.monotonic() > over_at,
        f"no worker of {airflow.name} requests messages any longer",
    )
    run = start(airflow)
    wait_until(lambda: airflow.messages("SendMessage", since=began), f"{run.run_id} is in the broker")
    wait_until(lambda: airflow.task_states(run.dag_id, run.run_id)["first"] == "queued", f"{run.run_id} is queued")
    airflow.stop("scheduler")
    return run


def deliver(airflow: Airflow) -> None:
    """Start the worker, and wait until it has processed the waiting message."""
    began = datetime.now(tz=timezone.utc)
    airflow.start_worker()
    wait_until(lambda: airflow.messages("DeleteMessage", since=began), f"the worker of {airflow.name} is done")


def ends(run: ChainRun) -> int:
    """Return how often the first task's body has ended."""
    return sum(line.kind == "end_of_body" for line in run.airflow.called(run.dag_id, run.run_id))


@on(CELERY, CELERY_OF_AIRFLOW_2)
def test_a_task_in_the_broker_does_not_execute_after_the_role_moved(pair: Pair) -> None:
    """The gate let it start and its scheduler is gone, so only the fence is left."""
    make_steady(pair)
    old, new = pair.active, pair.standby
    new.unpause("fo_chain")
    run = in_the_broker(old)
    fail_over(pair, new.name, "--mode", "forced")
    start(new).wait_until_it_executed()
    deliver(old)
    assert run.bodies() == []
    old.start_scheduler()
    pair.forget_killed_schedulers()
    run.wait_until_it_is("failed")
    assert run.bodies() == run.bodies(new) == []
    pair.wait_until_reconciled()


# On one version is enough: it only shows that the steps above deliver the message.
@on(CELERY, soak=(CELERY_OF_AIRFLOW_2,))
def test_a_task_in_the_broker_executes_if_the_role_does_not_move(pair: Pair) -> None:
    """Control case: delivered in the same way, the task of the active region executes, and its run continues."""
    make_steady(pair)
    active = pair.active
    run = in_the_broker(active)
    deliver(active)
    assert run.bodies() == ["first"]
    active.start_scheduler()
    pair.forget_killed_schedulers()
    run.wait_until_it_is("success")
    assert run.bodies() == CHAIN
    assert run.bodies(pair.standby) == []
    pair.wait_until_reconciled()


@on(CELERY, CELERY_OF_AIRFLOW_2)
def test_a_graceful_failover_drains_the_workers(pair: Pair) -> None:
    """It waits for a task body in a worker. Started runs end once in their region, and the other region continues."""
    make_steady(pair)
    source, target = pair.active, pair.standby
    runs = [start(source, waits=True) for _ in range(3)]
    with mwaa_dr(pair, "failover", target.name, *REASON, drain_s=120) as failover:
        failover.wait_until_it_prints("3 runs in progress")
        for run in runs:
            run.let_go()
        record = failover.document()
    assert (record["outcome"], record["mode"]) == ("completed", "graceful")
    for run in runs:
        run.wait_until_it_executed()
        assert ends(run) == 1
        assert run.bodies(target) == []
    start(target).wait_until_it_executed()
    late = start(source)
    late.wait_until_it_is("failed")
    assert late.bodies() == []


@on(CELERY)
def test_a_killed_region_leaves_no_worker_behind(pair: Pair) -> None:
    """
    A task body that executes when the region is killed writes nothing further. Revived, its worker is a standby's.
    """
    make_steady(pair)
    lost, other = pair.active, pair.standby
    run = start(lost, waits=True)
    sessions = [lost.session(component) for component in ("scheduler", "worker")]
    pair.sandbox.kill(lost.name)
    assert not any(map(process.members, sessions))
    run.let_go()
    record = fail_over(pair, other.name, "--mode", "forced")
    assert record["mode"] == "forced"
    start(other).wait_until_it_executed()
    assert ends(run) == 0

    pair.sandbox.revive(lost.name)
    pair.wait_until_reconciled()
    run.wait_until_it_is("failed")
    assert run.bodies() == ["first"]
    back = fail_over(pair, lost.name)
    assert back["mode"] == "graceful"
    start(lost).wait_until_it_executed()
