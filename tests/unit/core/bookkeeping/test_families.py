"""Interrupted parents and their children: each child is requested once more, or resumed, and never both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.bookkeeping import OPTED_OUT, RunRow
from airflow_provider_mwaa_dr.core.bookkeeping.families import following, replaced_by
from airflow_provider_mwaa_dr.core.ledger import ChildRun, LedgerRun, RunKey, RunStatus
from airflow_provider_mwaa_dr.core.translation import Era
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore
from tests.unit.core.bookkeeping.ledger_regions import AT, HERE, THERE, Region, at_epoch, hand_over

PARENT, CHILD, GRANDCHILD = ("parent", "p1"), ("child", "c1"), ("grandchild", "g1")
Regions = tuple[Region, Region]


def child(key: RunKey = CHILD, *, waits: bool = True, fixed: bool = False) -> ChildRun:
    return ChildRun(dag_id=key[0], run_id=key[1], is_awaited=waits, has_fixed_id=fixed)


def unnamed(dag_id: str = CHILD[0], *, waits: bool = True) -> ChildRun:
    return ChildRun(dag_id=dag_id, run_id=None, is_awaited=waits)


def put(region: Region, key: RunKey, state: str = "running", *children: ChildRun, **values: Any) -> None:
    """Put a manual run, with the runs that its tasks have requested, into the region's database."""
    row = RunRow(
        id=len(region.db.rows) + 1, dag_id=key[0], run_id=key[1], run_type="manual", state=state, logical_date=None,
        data_interval_start=None, data_interval_end=None, run_after=AT, queued_at=None, conf={}, children=children,
    )  # fmt: skip
    region.db.rows[key] = replace(row, **values)


def interrupted(regions: Regions, *rows: tuple[Any, ...], **values: Any) -> Region:
    """Start these runs in the first region under epoch 0, and let the second one begin epoch 1; return the second."""
    here, there = regions
    here.bookkeeper.begin(0)
    for row in rows:
        put(here, *row, **values)
    here.publish()
    hand_over(here, there)
    return there


def hand_back(regions: Regions) -> Region:
    """Let the first region, which has closed its runs, begin epoch 2; return it."""
    here, there = regions
    here.db.rows = {key: replace(row, state="failed") if row.is_open else row for key, row in here.db.rows.items()}
    there.interrupt(replace(at_epoch(2), active_region=HERE), epoch=1)
    here.bookkeeper.follow()
    here.bookkeeper.begin(2)
    here.bookkeeper.apply_outcomes()
    return here


def resumed(region: Region) -> list[RunKey]:
    return sorted(run.key for run in region.db.resumed)


def record(region: Region, key: RunKey) -> LedgerRun:
    return region.bookkeeper._own.load().runs[key]


def run_and_end(region: Region, key: RunKey, *, epoch: int) -> None:
    """Let a resumed run succeed in its region."""
    put(region, key, "success", queued_at=region.db.resumed[-1].taken_at)
    region.publish(epoch)


def test_a_child_that_its_parent_requests_again_is_not_resumed(regions: Regions) -> None:
    """Neither now nor later: its parent ends, another agent leads, and the role comes back."""
    there = interrupted(regions, (PARENT, "running", child()), (CHILD,))
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [PARENT]
    assert there.db.removed == [CHILD]
    assert there.bookkeeper.waiting == there.bookkeeper.repeats == ()
    assert record(there, CHILD).is_replaced
    run_and_end(there, PARENT, epoch=1)
    there.restart()
    there.bookkeeper.follow()
    there.publish(1)
    there.bookkeeper.resume(epoch=1)
    here = hand_back(regions)
    here.bookkeeper.resume(epoch=2)
    assert (resumed(there), resumed(here)) == ([PARENT], [])
    assert CHILD not in here.db.rows, "its row has no end of its own, and is removed"


def test_the_row_of_a_replaced_child_is_removed_in_its_own_region_too(regions: Regions) -> None:
    """It gets no outcome: it has not ended by itself, and must not count as a failed run of its DAG."""
    here, there = regions
    interrupted(regions, (PARENT, "running", child()), (CHILD,))
    there.bookkeeper.resume(epoch=1)
    put(here, CHILD, "failed", is_skipped=False)
    here.bookkeeper.follow()
    here.bookkeeper.apply_outcomes()
    assert here.db.removed == [CHILD]
    assert here.db.applied == []
    assert CHILD not in here.bookkeeper._own.load().runs


def test_what_the_parent_requests_again_under_the_same_id_is_a_run_like_any_other(regions: Regions) -> None:
    """The second run with this id is published, and is resumed if its parent has ended."""
    there = interrupted(regions, (PARENT, "running", child(fixed=True)), (CHILD,))
    there.bookkeeper.resume(epoch=1)
    put(there, CHILD)
    put(there, PARENT, "running", child(fixed=True), queued_at=there.db.resumed[0].taken_at)
    there.publish(1)
    assert not record(there, CHILD).is_replaced
    run_and_end(there, PARENT, epoch=1)
    here = hand_back(regions)
    here.bookkeeper.resume(epoch=2)
    assert resumed(here) == [CHILD]


def test_a_child_without_a_waiting_parent_is_resumed_and_listed_with_its_parent(regions: Regions) -> None:
    """Its parent requests another run: the heartbeat, the log and the note of the parent's row say so."""
    there = interrupted(regions, (PARENT, "running", child(waits=False)), (CHILD,))
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [CHILD, PARENT]
    assert there.bookkeeper.repeats == ("parent p1 requests again child c1 (resumed, too)",)
    assert there.db.notes["p1"].endswith("; it requests again child c1 (resumed, too)")
    assert "requests again" not in there.db.notes["c1"]
    run_and_end(there, PARENT, epoch=1)
    there.bookkeeper.resume(epoch=1)
    assert there.bookkeeper.repeats == (), "the parent has ended"


def test_a_run_that_no_task_waits_for_is_requested_again_under_its_fixed_id(regions: Regions) -> None:
    """If it were resumed, Airflow would fail the task that requests the same id."""
    there = interrupted(regions, (PARENT, "running", child(waits=False, fixed=True)), (CHILD,))
    there.bookkeeper.resume(epoch=1)
    assert (resumed(there), there.db.removed) == ([PARENT], [CHILD])


@pytest.mark.parametrize("fixed", [False, True])
def test_a_child_that_had_ended_runs_again_and_is_listed(regions: Regions, fixed: bool) -> None:
    """All tasks of the parent execute again. A row with the same id is removed first: Airflow would refuse the id."""
    there = interrupted(regions, (PARENT, "running", child(fixed=fixed)), (CHILD, "success"))
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [PARENT]
    assert there.bookkeeper.repeats == ("parent p1 requests again child c1 (had ended)",)
    assert there.db.removed == ([CHILD] if fixed else [])


def test_a_grandchild_is_requested_again_by_the_child_that_is_requested_again(regions: Regions) -> None:
    """Only the first of the chain is resumed."""
    rows = ((PARENT, "running", child()), (CHILD, "running", child(GRANDCHILD)), (GRANDCHILD,))
    there = interrupted(regions, *rows)
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [PARENT]
    assert record(there, GRANDCHILD).is_replaced


def test_the_child_of_a_parent_that_has_ended_is_resumed(regions: Regions) -> None:
    """No run requests it again."""
    here, there = regions
    here.bookkeeper.begin(0)
    put(here, PARENT, "running", child())
    put(here, CHILD)
    here.publish()
    put(here, PARENT, "failed")
    here.publish()
    hand_over(here, there)
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [CHILD]


def test_the_child_of_a_parent_that_is_only_listed_is_resumed(regions: Regions) -> None:
    """The tag dr:no-rerun of the parent's DAG: no run requests the child again by itself."""
    there = interrupted(regions, (PARENT, "running", child()), (CHILD, "running", child(GRANDCHILD)), (GRANDCHILD,))
    there.db.refusing["p1"] = OPTED_OUT
    assert there.bookkeeper.resume(epoch=1), "another turn is needed"
    assert not there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [CHILD]
    assert there.bookkeeper.waiting == (f"parent p1: {OPTED_OUT}",)
    assert record(there, GRANDCHILD).is_replaced


def test_a_child_that_is_only_listed_stays_listed(regions: Regions) -> None:
    """The tag of its own DAG: a person decides about it, also if its parent requests another run."""
    there = interrupted(regions, (PARENT, "running", child()), (CHILD, "running", child(GRANDCHILD)), (GRANDCHILD,))
    there.db.refusing["c1"] = OPTED_OUT
    there.bookkeeper.resume(epoch=1)
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [PARENT]
    assert there.bookkeeper.waiting == (f"child c1: {OPTED_OUT}",)
    assert CHILD not in there.db.removed
    assert record(there, GRANDCHILD).is_replaced


def test_a_child_waits_for_a_parent_that_cannot_be_started(regions: Regions) -> None:
    """For example because the region does not have the parent's DAG yet. The list names both."""
    there = interrupted(regions, (PARENT, "running", child()), (CHILD, "running", child(GRANDCHILD)), (GRANDCHILD,))
    there.db.refusing["p1"] = "its DAG is not in this region, or exempt"
    for _ in range(2):
        there.bookkeeper.resume(epoch=1)
    assert resumed(there) == []
    assert there.bookkeeper.waiting == (
        "child c1: parent p1, which requested it, has to be started first and request it again",
        "grandchild g1: child c1, which requested it, has to be started first and request it again",
        "parent p1: its DAG is not in this region, or exempt",
    )
    there.db.refusing.clear()
    there.clock.advance(31)
    there.bookkeeper.resume(epoch=1)
    assert (resumed(there), there.bookkeeper.waiting) == ([PARENT], ())
    assert record(there, CHILD).is_replaced


def test_the_children_of_a_mapped_task_are_all_requested_again(regions: Regions) -> None:
    """The parent has one child for each item. Those that had ended are listed, the first of them by name."""
    keys = [("child", f"c{number}") for number in range(9)]
    rows = [(key, "success" if number < 7 else "running") for number, key in enumerate(keys)]
    there = interrupted(regions, (PARENT, "running", *map(child, keys)), *rows)
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [PARENT]
    ended = ", ".join(f"child c{number} (had ended)" for number in range(5))
    assert there.bookkeeper.repeats == (f"parent p1 requests again {ended} and 2 more",)


def test_a_child_is_known_from_the_turn_after_its_request(regions: Regions) -> None:
    """The parent was published without children before. Its entry is published again, once."""
    here, there = regions
    here.bookkeeper.begin(0)
    put(here, PARENT)
    here.publish()
    put(here, CHILD)
    put(here, PARENT, "running", child())
    here.publish()
    number = here.bookkeeper._own.load().number
    here.publish()
    assert here.bookkeeper._own.load().number == number
    assert here.bookkeeper._own.load().runs[PARENT].children == (child(),)
    there.bookkeeper.follow()  # the region is lost: it publishes nothing more
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [PARENT]


def test_a_child_that_is_published_after_its_parent_runs_again_is_not_resumed(regions: Regions) -> None:
    """The lost region returns, and publishes a run that the other region did not know."""
    here, there = regions
    here.bookkeeper.begin(0)
    put(here, PARENT)
    here.publish()
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    put(here, PARENT, "running", child())
    put(here, CHILD)
    here.interrupt(at_epoch(1), epoch=0)
    there.bookkeeper.follow()
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [PARENT]
    assert record(there, CHILD).is_replaced


@pytest.mark.parametrize("returns", [False, True])
def test_a_run_that_a_parent_may_have_requested_is_listed(regions: Regions, returns: bool) -> None:
    """The id of the requested run was not stored yet, or cannot be read. The list keeps the run: a person decides."""
    there = interrupted(regions, (PARENT, "running", unnamed()), (CHILD,), (("other", "o1"),))
    region, epoch = (hand_back(regions), 2) if returns else (there, 1)
    region.bookkeeper.resume(epoch=epoch)
    assert resumed(region) == [("other", "o1"), PARENT]
    assert region.bookkeeper.waiting == ("child c1: parent p1 may have requested it, and requests it again",)
    region.restart()
    region.bookkeeper.follow()
    region.publish(epoch)
    region.bookkeeper.resume(epoch=epoch)
    assert CHILD not in resumed(region)
    assert len(region.bookkeeper.waiting) == 1


def test_a_run_of_unknown_id_that_no_task_waits_for_holds_no_run(regions: Regions) -> None:
    """The run that it requested is resumed in any case."""
    there = interrupted(regions, (PARENT, "running", unnamed(waits=False)), (CHILD,))
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [CHILD, PARENT]


@pytest.mark.parametrize("values", [{"run_type": "scheduled"}, {"triggered_by": "UI"}, {"triggered_by": "REST_API"}])
def test_a_run_that_no_task_has_requested_is_resumed(regions: Regions, values: dict[str, str]) -> None:
    """Airflow 3 stores what requested a run."""
    there = interrupted(regions, (PARENT, "running", unnamed()), (CHILD,), **{"triggered_by": "OPERATOR", **values})
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [CHILD, PARENT]


def test_an_interval_that_a_parent_has_cleared_is_resumed_and_listed(regions: Regions) -> None:
    """The schedule has created it. A parent that does not run again must not make it disappear."""
    here, there = regions
    here.bookkeeper.begin(0)
    put(here, PARENT, "running", child(fixed=True))
    put(here, CHILD, run_type="scheduled", logical_date=AT)
    here.publish()
    hand_over(here, there)
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [CHILD, PARENT]
    assert there.bookkeeper.repeats == ("parent p1 requests again child c1 (resumed, too)",)


def test_runs_that_an_older_version_published_are_all_resumed(regions: Regions) -> None:
    """Its entries say nothing about children."""
    there = interrupted(regions, (PARENT,), (CHILD,))
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [CHILD, PARENT]


def test_a_chain_of_runs_of_one_dag_does_not_become_two(regions: Regions) -> None:
    """A run requests the next run of its own DAG, and ends. It is requested again by the run that is resumed."""
    first, second = ("chain", "r1"), ("chain", "r2")
    there = interrupted(regions, (first, "running", child(second, waits=False)), (second,))
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [first]


def test_runs_that_request_each_other_are_resumed(regions: Regions) -> None:
    """Otherwise they would wait for each other forever."""
    there = interrupted(regions, (PARENT, "running", child()), (CHILD, "running", child(PARENT)))
    there.bookkeeper.resume(epoch=1)
    assert resumed(there) == [CHILD, PARENT]


def test_a_family_that_a_failover_stopped_continues_in_its_own_region(regions: Regions) -> None:
    """The failover was cancelled. The parent begins after the row of its child has ended, and can be removed."""
    here, _ = regions
    here.bookkeeper.begin(0)
    put(here, PARENT, "running", child())
    put(here, CHILD)
    here.publish()
    own = here.bookkeeper._own.load()
    stopped = [replace(run, status=RunStatus.INTERRUPTED) for run in own.runs.values()]
    here.bookkeeper._own.append(0, stopped, first_id=own.first_id, newest_id=own.newest_id)
    put(here, PARENT, "failed", child())
    here.bookkeeper.resume(epoch=0)
    assert resumed(here) == [], "the child may still be executing"
    put(here, CHILD, "failed")
    here.bookkeeper.resume(epoch=0)
    assert (resumed(here), here.db.removed) == ([PARENT], [CHILD])


def test_a_parent_of_another_version_of_airflow_has_its_children() -> None:
    """Its run id gets the version that created it. The relation is stored with the parent, so it needs no id."""
    store = InMemoryRunsStore()
    here, there = Region(HERE, store.peer(), Era.AIRFLOW_3_2), Region(THERE, store.peer(), Era.AIRFLOW_2)
    here.bookkeeper.begin(0)
    parent = ("parent", f"scheduled__{AT.isoformat()}")
    dates = {"logical_date": AT, "data_interval_start": AT, "data_interval_end": AT}
    put(here, parent, "running", child(), run_type="scheduled", **dates)
    put(here, CHILD, run_type="operator_triggered", triggered_by="OPERATOR")
    here.publish()
    hand_over(here, there)
    there.bookkeeper.resume(epoch=1)
    assert [run.dag_id for run in there.db.resumed] == ["parent"]
    assert there.db.resumed[0].run_id != parent[1], "the control: it was translated"


def test_more_than_one_parent_may_request_a_run() -> None:
    """The run is requested again if one of its parents begins again."""
    one, two, other = ("parent", "p1"), ("parent", "p2"), ("child", "c2")
    parents = {CHILD: [one, two], other: [two]}
    assert following(parents, {two}) == {CHILD: [one]}
    assert following({**parents, two: [one]}, {two}) == {CHILD: [one, two], other: [two], two: [one]}
    assert replaced_by({CHILD: [one, two], GRANDCHILD: [CHILD]}, {two}) == {CHILD: two, GRANDCHILD: CHILD}
