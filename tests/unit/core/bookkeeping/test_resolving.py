"""Before a region executes, no end that it gave runs as a standby remains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.bookkeeping import resolving
from airflow_provider_mwaa_dr.core.ledger import Gap, RunStatus
from tests.unit.core.bookkeeping.ledger_regions import HERE, THERE, Region, at_epoch, hand_over


@pytest.fixture
def listed() -> list[str]:
    return []


def end(region: Region, run_id: str, **values: Any) -> None:
    """Let the region end a run as a standby."""
    region.db.put(run_id, "failed", **{"is_skipped": True, **values})
    region.db.own_end_keys.add(("orders", run_id))


def resolve(region: Region, listed: list[str], *, epoch: int = 1) -> bool:
    return region.bookkeeper.resolve(epoch=epoch, list_runs=listed.extend)


def test_each_run_gets_its_result_or_is_queued_or_deleted(regions: tuple[Region, Region], listed: list[str]) -> None:
    """A run that had begun, and that no region knows, stays as a failure. The scheduler creates its intervals again."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("ended", "success", day=1)
    here.db.put("open", "running", day=2)
    here.publish()
    for day, run_id in enumerate(("ended", "open", "interval")):
        end(there, run_id, day=day)
    end(there, "by hand", day=5, run_type="manual")
    end(there, "begun", day=6, run_type="manual", is_skipped=False)
    hand_over(here, there)
    there.bookkeeper.forget_own_ledger()
    assert not resolve(there, listed)
    assert [(run.run_id, run.status) for run in there.db.applied] == [("ended", RunStatus.SUCCESS)]
    assert there.db.own_end_keys == {("orders", "open")}, "resume queues it"
    assert set(there.db.rows) == {("orders", "ended"), ("orders", "open"), ("orders", "begun")}
    assert set(there.db.kept) == {("orders", "begun")}
    assert listed == ["orders by hand", "orders begun"]
    end(there, "later")
    assert not resolve(there, listed), "once in each role"
    assert ("orders", "later") in there.db.rows


def test_the_last_successes_are_adopted_before_the_role_begins(
    regions: tuple[Region, Region], listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several turns, if there are many. After the role has begun, the region would publish them as its own."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("one", "success", day=1)
    here.db.put("two", "failed", day=2)
    here.db.put("by hand", "success", day=3, run_type="manual")
    here.publish()
    there.bookkeeper.follow()
    monkeypatch.setattr(resolving, "_SUCCESSES", 1)
    assert resolve(there, listed)
    assert not resolve(there, listed)
    assert sorted(run.run_id for run in there.db.adopted) == ["by hand", "one"]
    there.restart()
    there.bookkeeper.follow()
    monkeypatch.setattr(there.db, "adopt", lambda *_: 0)
    assert [resolve(there, listed), resolve(there, listed)] == [True, False], "they exist already"
    monkeypatch.undo()
    there.db.adopted.clear()
    there.restart()
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    assert not resolve(there, listed)
    assert there.db.adopted == []


def test_many_runs_take_several_turns(
    regions: tuple[Region, Region], listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The region becomes active after the last of them."""
    _, there = regions
    monkeypatch.setattr(resolving, "_ROWS", 2)
    for number in range(5):
        end(there, f"r{number}", run_type="manual")
    assert [resolve(there, listed) for _ in range(3)] == [True, True, False]
    assert len(listed) == 5
    assert there.db.rows == {}


def test_a_run_that_an_unreadable_part_of_a_ledger_may_contain_waits(
    regions: tuple[Region, Region], listed: list[str]
) -> None:
    """The scheduler creates its own intervals again, so these need not wait."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("known", "success")
    here.publish()
    there.bookkeeper.follow()
    end(there, "by hand", run_type="manual", day=3)
    end(there, "interval", day=4)
    ledger = there.bookkeeper._peers.ledgers[HERE]
    ledger.gap = Gap(number=1, why="damaged", newest_id=0)
    assert not resolve(there, listed)
    assert set(there.db.rows) == {("orders", "by hand")}
    ledger.gap = None
    assert not resolve(there, listed), "it tries again later"
    assert listed == []
    there.clock.advance(31)
    assert not resolve(there, listed)
    assert listed == ["orders by hand"]


def test_intervals_of_a_dag_that_no_ledger_has_stay(regions: tuple[Region, Region], listed: list[str]) -> None:
    """They may have executed in the other region. The scheduler would create them again."""
    _, there = regions
    end(there, "interval")
    end(there, "by hand", run_type="manual")
    assert not resolve(there, listed)
    assert set(there.db.rows) == {("orders", "interval")}


def test_a_run_that_waits_has_a_note_that_says_why(regions: tuple[Region, Region], listed: list[str]) -> None:
    """The region cannot start it, and the note of its end is out of date."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.publish()
    end(there, "r1")
    hand_over(here, there)
    there.db.refusing = {"r1": "no DAG"}
    assert not resolve(there, listed)
    there.bookkeeper.resume(epoch=1)
    assert there.db.explained == {("orders", "r1"): "waits: it was interrupted, and cannot be started: no DAG"}


def test_an_own_result_counts_for_a_run_that_a_user_cleared_in_the_standby(
    regions: tuple[Region, Region], listed: list[str]
) -> None:
    """The gate ended it. It had succeeded here in an earlier role."""
    here, _ = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "success")
    here.publish()
    here.db.rows["orders", "r1"] = replace(here.db.rows["orders", "r1"], state="failed")
    here.db.own_end_keys.add(("orders", "r1"))
    assert not resolve(here, listed, epoch=2)
    assert [(run.run_id, run.status) for run in here.db.applied] == [("r1", RunStatus.SUCCESS)]


@pytest.mark.parametrize("has_later", [True, False])
def test_a_run_for_a_date_that_another_region_has_passed_ends_and_is_listed(
    regions: tuple[Region, Region], listed: list[str], has_later: bool
) -> None:
    """Airflow creates no second run for a date. A run that the scheduler has locked is ended in the next turn."""
    here, there = regions
    there.bookkeeper.begin(0)
    there.db.put("two", "success", day=2)
    there.publish()
    here.bookkeeper.begin(1)
    here.db.put("three", "success", day=3)
    here.db.put("five", "success", day=5)
    here.publish(epoch=1)
    for day in (1, 2, 3, 4, 5, 6):
        there.db.put(f"by hand {day}", "queued", day=day, run_type="manual", holds_date=True)
    there.db.put("now", "queued", day=4, run_type="manual")
    there.bookkeeper.follow()
    there.db.locked = {("orders", "by hand 4")} if has_later else set()
    if has_later:
        assert resolve(there, listed, epoch=2)
        there.db.locked = set()
    assert not resolve(there, listed, epoch=2)
    assert sorted(listed) == ["orders by hand 3", "orders by hand 4", "orders by hand 5"]
    left = {run_id for _, run_id in there.db.rows}
    assert left == {"two", "by hand 1", "by hand 2", "by hand 6", "now"}
    there.bookkeeper.begin(2)
    there.db.put("by hand, later", "queued", day=4, run_type="manual", holds_date=True)
    there.restart()
    there.bookkeeper.follow()
    assert not resolve(there, listed, epoch=2)
    assert ("orders", "by hand, later") in there.db.rows, "the region executes: the run belongs to its present role"


def test_a_run_that_was_published_too_late_does_not_repeat_a_date(regions: tuple[Region, Region]) -> None:
    """A user requested it, and its region died. The other region has executed the interval of its date since."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("one", "success", day=1)
    here.publish()
    for day in (1, 4, 8):
        here.db.put(f"by hand {day}", "queued", day=day, run_type="manual", holds_date=True)
    there.bookkeeper.begin(1)
    there.db.put("five", "success", day=5)
    there.publish(epoch=1)
    here.bookkeeper.follow()
    here.interrupt(at_epoch(2), epoch=0)
    for day in (1, 4, 8):
        end(here, f"by hand {day}", day=day, run_type="manual", holds_date=True)
    here.bookkeeper.begin(2)
    assert not here.bookkeeper.resume(epoch=2)
    assert sorted(run.run_id for run in here.db.resumed) == ["by hand 1", "by hand 8"]
    assert here.bookkeeper.waiting == (
        f"orders by hand 4: {THERE} may have executed its date before it knew of this run",
    )
