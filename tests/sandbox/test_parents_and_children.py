"""
Regions that are lost while a parent waits for its child, with real schedulers: the work of the child is completed once.

Both regions are lost one after the other, and the role comes back. Task bodies write what executed. A region that comes
back closes its runs, and has rows of children whose ids the parents request again.
"""

from __future__ import annotations

import pytest

from tests.sandbox.failovers import fail_over, wait_for_snapshot
from tests.sandbox.harness import CELERY, CELERY_OF_AIRFLOW_2, Airflow, Pair, on
from tests.sandbox.test_ledger import ledger
from tests.sandbox.test_pairs_of_versions import assert_schedulers_are_well
from tests.sandbox.waiting_runs import LOST_DAGS, begun, ended, open_gate, shape, under_way
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

*PARENTS, CHILD = LOST_DAGS
WORK = "lost_child work"


def works(*regions: Airflow) -> int:
    """Return how often the work of a child has begun."""
    return begun(*regions, dags=LOST_DAGS)[WORK]


def requested(pair: Pair, region: Airflow) -> list[tuple[str, str | None]]:
    """Return the children of open parents, as the ledger of a region shows them."""
    runs = ledger(pair, region).runs.values()
    return [(child.dag_id, child.run_id) for run in runs if run.dag_id in PARENTS for child in run.children]


def wait_until_published(pair: Pair, region: Airflow) -> None:
    """Wait until both children execute, and the ledger shows who requested them. Then the region may be lost."""
    wait_until(lambda: works(region) == 2, f"both children execute in {region}")

    def is_published() -> bool:
        found, runs = requested(pair, region), ledger(pair, region).runs
        return len(found) == 2 and all(key in runs for key in found)

    wait_until(is_published, lambda: f"the ledger has both families: {requested(pair, region)}")


@on(soak=(shape("3.3.1"), shape("2.10.3")))
def test_the_work_of_a_child_is_completed_once_although_both_regions_are_lost(pair: Pair) -> None:
    """In the end, each parent has one child, in the region that executed last. No row of another child is left."""
    first, second = under_way(pair)
    parents = {dag_id: first.trigger(dag_id) for dag_id in PARENTS}
    open_gate(first, "parent")
    wait_until_published(pair, first)
    wait_for_snapshot(pair, first, *LOST_DAGS)
    pair.sandbox.kill(first.name)
    fail_over(pair, second.name, "--mode", "forced")
    open_gate(second, "parent")
    wait_until_published(pair, second)

    pair.sandbox.revive(first.name)
    pair.wait_until_reconciled()
    wait_for_snapshot(pair, second, *LOST_DAGS)
    pair.sandbox.kill(second.name)
    fail_over(pair, first.name, "--mode", "forced")
    wait_until(lambda: works(first) == 4, lambda: f"both children are requested again: {works(first)}")
    open_gate(first, "child")
    for dag_id, run_id in parents.items():
        wait_until(
            lambda: first.run(dag_id, run_id)["state"] == "success",  # noqa: B023
            f"{dag_id} succeeds",
        )

    pair.sandbox.revive(second.name)
    open_gate(second, "child")
    pair.wait_until_reconciled()
    # The second region has a row of the child with the fixed id, which ended in the first one.
    for region, number in ((first, 2), (second, 1)):
        wait_until(
            lambda: [run["state"] for run in region.runs(CHILD)] == ["success"] * number,  # noqa: B023
            lambda: f"{region} has only children that succeeded: {region.runs(CHILD)}",  # noqa: B023
        )
    counted = ended(first, second, dags=LOST_DAGS)
    assert counted[WORK] == 2, "once for each parent"
    assert (counted["lost_parent after"], counted["lost_fixed after"]) == (1, 1)
    assert works(first, second) == 6, "the control: each child was interrupted twice"
    assert_schedulers_are_well(pair)


@on(soak=(CELERY, CELERY_OF_AIRFLOW_2))
def test_one_airflow_completes_the_work_of_a_child_once(pair: Pair) -> None:
    """
    Control case: no failover. The scheduler is killed while the parents wait, and started again.

    The worker executes on, as in MWAA. With LocalExecutor, the tasks would be killed with their scheduler.
    """
    active, standby = under_way(pair)
    parents = {dag_id: active.trigger(dag_id) for dag_id in PARENTS}
    open_gate(active, "parent")
    wait_until(lambda: works(active) == 2, "both children execute")
    active.stop("scheduler")
    active.start_scheduler()
    pair.forget_killed_schedulers()
    open_gate(active, "child")
    for dag_id, run_id in parents.items():
        wait_until(
            lambda: active.run(dag_id, run_id)["state"] == "success",  # noqa: B023
            f"{dag_id} succeeds",
        )
    counted = ended(active, dags=LOST_DAGS)
    assert (counted[WORK], works(active)) == (2, 2), "once for each parent"
    assert [run["state"] for run in active.runs(CHILD)] == ["success", "success"]
    assert works(standby) == 0
