"""
Each kind of run, in two versions of Airflow: nothing is lost or repeated, and the oracle detects each missing rule.

``python -m tests.simulation --world kinds`` simulates fresh seeds.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest

from airflow_provider_mwaa_dr.core.state import Mode
from tests.simulation.kind_rules import AGAIN, KIND_RULES, Patch, Wrong, with_requested_runs_that_repeat_a_date
from tests.simulation.kinds import (
    HANDLED,
    KIND,
    KINDS,
    MOST_SKEW_S,
    B,
    Kinds,
    align_to_next,
    heal,
    mark_of_date,
    run_history,
)

HISTORIES = 40
SEARCHED = 300
"""The number of histories that are searched for one that goes wrong without a rule."""


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_each_kind_of_run_comes_out_as_in_one_airflow() -> None:
    """Each mark, partition and requested run executes once. The histories resume and adopt runs of each kind."""
    reached: Counter[tuple[str, str]] = Counter()
    for seed in range(HISTORIES):
        world, _ = run_history(seed)
        reached.update(world.reached)
    found = {name for kind, name in reached if kind == KIND}
    kinds = {name.rpartition(" ")[0] for name in found if name.rpartition(" ")[2] in HANDLED}
    # The parent of a child requests another one.
    assert kinds | {"child"} == set(KINDS[:-1])
    assert "half-filled condition dropped" in found


@pytest.mark.parametrize("seed", [1000535, 1000723])
def test_a_seed_that_was_wrong(seed: int) -> None:
    """
    1000535: the runs of a DAG took longer than its interval, and the oracle did not wait for the end of their queue.
    1000723: a child was resumed although its parent requested another one.
    """
    run_history(seed)


@pytest.mark.parametrize("seed", [983979703])
def test_an_interval_that_a_region_has_under_two_ids_executes_once(seed: int) -> None:
    """
    A standby had created it, too, and the region took that run over. Before the fix, its own run was still unfinished
    when the other one had ended, and executed after the next failover.
    """
    run_history(seed)


def requested_in_a_lost_standby(seed: int) -> Mapping[str, str]:
    """
    Let a user request the date of the next interval in the standby, which dies. Fail over to it a minute later.

    :return: the problems of the history.
    """
    world = Kinds(seed)
    try:
        world.clock.after(world.first_late, world.unpause_late)
        world.clock.advance(40)
        standby, dag = world.regions[B], world.by_id["latest"]
        mark = align_to_next(world.clock.monotonic() + MOST_SKEW_S + 5, dag.every_s)
        date = mark - mark_of_date(dag, world.eras[B], 0.0)
        assert standby.airflow.trigger_date("latest", date, world.new_number(), with_interval=True) is not None
        standby.die()
        world.clock.advance(mark - world.clock.monotonic() + 20)
        world.call(B, faulty=False, mode=Mode.FORCED, even_if_not_ready=True)
        world.scheduler.run_until_idle()
        heal(world)
        return world.judge_after_waiting_runs().problems
    finally:
        world.scheduler.end()


def test_a_run_requested_in_a_region_that_is_lost_does_not_repeat_a_date(monkeypatch: Patch) -> None:
    """Before the fix, the region executed the request, as in history 1528263401 at that time. Seeds without faults."""
    for seed in range(0, 30, 3):
        with monkeypatch.context() as patch:
            with_requested_runs_that_repeat_a_date(patch)
            problems = requested_in_a_lost_standby(seed)
        if any(re.search(AGAIN, text) for text in problems.values()):
            assert requested_in_a_lost_standby(seed) == {}
            return
    pytest.fail("None of the histories goes wrong.")


@pytest.mark.parametrize("seed", [143717691, 143717748, 143717985, 143718054, 143718084])
def test_the_simulated_airflow_keeps_the_date_of_a_run_of_another_region(seed: int) -> None:
    """
    The core is right. Airflow 3 gives no date to a manual run that is requested without one. The simulated Airflow also
    removed the date of an adopted run, and a region of Airflow 2 resumed it with its own.
    """
    run_history(seed)


@pytest.mark.parametrize("seed", [143717839, 634129815])
def test_the_oracle_does_not_expect_airflow_2_to_start_a_run_of_a_backfill_that_a_user_clears(seed: int) -> None:
    """
    The core is right. No scheduler of Airflow 2 starts a run of this type: a run that a user clears stays queued, in a
    single Airflow as well. A region with Airflow 3 resumes it after the next failover.
    """
    run_history(seed)


@pytest.mark.parametrize("seed", [110493060])
def test_the_simulated_scheduler_continues_after_an_adopted_run_with_an_early_mark(seed: int) -> None:
    """
    The core is right. The simulated Airflow took an adopted run with a mark before the start of the history for an old
    one, and its scheduler created the DAG's first interval.
    """
    run_history(seed)


@pytest.mark.parametrize("seed", [1528262989])
def test_the_oracle_knows_a_condition_that_was_complete_when_its_region_was_lost(seed: int) -> None:
    """
    The core is right. All events had arrived in one role of the region, which was lost before its scheduler created the
    run. The scheduler creates it when the region is back, and its gate holds it.
    """
    run_history(seed)


@pytest.mark.parametrize("seed", [718655148, 1027089574])
def test_the_oracle_knows_that_a_user_has_cleared_a_child_and_its_parent(seed: int) -> None:
    """The core is right. Both had ended, and both execute again because a user cleared each of them."""
    run_history(seed)


@pytest.mark.parametrize("seed", [983979697])
def test_the_oracle_knows_a_dag_that_a_user_unpaused_after_the_last_snapshot(seed: int) -> None:
    """
    The core is right. The region's agent was suspended when a user unpaused the DAG, and a forced failover can use only
    the last snapshot. So the DAG stays paused until a user sees that.
    """
    run_history(seed)


def test_a_history_is_the_same_each_time() -> None:
    """Otherwise a seed would not repeat a failure."""
    first, again = run_history(5)[0], run_history(5, is_traced=True)[0]
    assert dict(first.executions) == dict(again.executions)
    assert first.reached == again.reached


def verdict_of(seed: int) -> str | None:
    """Return what is wrong with a history; None if it is right."""
    try:
        run_history(seed)
    except AssertionError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("weaken", "wrong"), KIND_RULES.items(), ids=[rule.__name__ for rule in KIND_RULES])
def test_a_history_goes_wrong_without_the_rule(
    weaken: Callable[[Patch], None], wrong: Wrong, monkeypatch: Patch
) -> None:
    """
    The history goes wrong without the rule, and comes out right with it.

    If the known history no longer goes wrong after a change, another one of the first does. To save that search, find a
    new seed with ``python -m tests.simulation --world kinds --without NAME``.
    """
    for seed in (wrong.seed, *range(SEARCHED)):
        with monkeypatch.context() as patch:
            weaken(patch)
            verdict = verdict_of(seed)
        if verdict is not None and re.search(wrong.what, verdict):
            assert verdict_of(seed) is None
            return
    pytest.fail(f"None of {SEARCHED} histories goes wrong.")
