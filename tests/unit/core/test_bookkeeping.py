"""What the bookkeeper tells, adopts and lists; tests/simulation has it in all circumstances."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.bookkeeping import CONF_BYTES, TASKS_BYTES, to_conf
from airflow_provider_mwaa_dr.core.ledger import RunStatus
from tests.unit.core.ledger_regions import AT, Region, hand_over, take_over

TASKS = [("one", -1, "success"), ("two", 3, None)]


def test_what_has_ended_is_told_with_its_tasks_and_adopted_with_them(regions: tuple[Region, Region]) -> None:
    """Only once, and only of runs that have ended."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "running")
    here.publish()
    assert here.db.asked_for_tasks == []
    here.db.put("r1", "failed")
    here.db.put("m1", "success", run_type="manual", day=1)
    here.db.task_instances = {("orders", "r1"): TASKS, ("orders", "m1"): TASKS[:1]}
    for _ in range(3):
        here.publish()
    assert here.db.asked_for_tasks == [[("orders", "m1"), ("orders", "r1")]]
    there.books.follow()
    assert not there.books.adopt()
    assert [(run.run_id, run.status, run.tasks) for run in there.db.adopted] == [
        ("r1", RunStatus.FAILED, tuple(TASKS)),
        ("m1", RunStatus.SUCCESS, tuple(TASKS[:1])),
    ]


def test_a_region_does_not_adopt_over_what_it_has_told_under_a_newer_epoch(regions: tuple[Region, Region]) -> None:
    """Also when its leader is new, and reads all heads of the other region anew."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "running")
    here.publish()
    here.db.put("r1", "failed")
    here.publish()
    there.books.begin(1)
    there.db.put("r1", "running")
    there.publish(epoch=1)
    there.db.put("r1", "success")
    there.publish(epoch=1)
    there.books.follow()
    there.books.adopt()
    assert there.db.adopted == []
    here.books.follow()
    here.books.adopt()
    assert [run.status for run in here.db.adopted] == [RunStatus.SUCCESS]


def test_tasks_that_do_not_fit_are_left_out_and_said(
    regions: tuple[Region, Region], caplog: pytest.LogCaptureFixture
) -> None:
    """The run itself is told."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "success")
    size = len("orders") + 30
    many = [("orders", index, "success") for index in range(TASKS_BYTES // size + 1)]
    here.db.task_instances = {("orders", "r1"): many}
    with caplog.at_level(logging.WARNING):
        here.publish()
    assert f"orders r1: its {len(many)} task instances do not fit" in caplog.text
    there.books.follow()
    there.books.adopt()
    assert [(run.run_id, run.tasks) for run in there.db.adopted] == [("r1", ())]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"conf": {"x": "y" * CONF_BYTES}}, f"it has {CONF_BYTES + 9} characters as JSON, {CONF_BYTES} are kept"),
        ({"conf": {"x": {1, 2}}}, "it is no JSON (Object of type set is not JSON serializable)"),
        ({"conf": None, "conf_lost": "it cannot be read"}, "it cannot be read"),
    ],
)
def test_a_run_whose_conf_is_not_in_the_ledger_is_listed_and_not_started(
    regions: tuple[Region, Region], values: dict[str, Any], why: str
) -> None:
    """Interrupted with the others, which go on."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "running", run_type="manual", **values)
    here.db.put("r2", "queued", run_type="manual", day=1, partition_key="eu", partition_date=AT)
    here.publish()
    hand_over(here, there)
    assert not there.books.resume(epoch=1)
    assert [(run.run_id, run.partition_key, run.partition_date) for run in there.db.resumed] == [("r2", "eu", AT)]
    assert there.books.waiting == (f"orders r1: its conf is not in the ledger: {why}",)


def test_a_run_that_cannot_be_started_is_tried_again_and_listed_all_the_while(
    regions: tuple[Region, Region], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks for the status in any turn sees it; the log has it once for each reason."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "running")
    here.publish()
    hand_over(here, there)
    there.db.refusing = {"r1": "its DAG is not here"}
    for _ in range(20):
        assert not there.books.resume(epoch=1)
        assert there.books.waiting == ("orders r1: its DAG is not here",)
        there.clock.advance(5)
    assert 3 <= len(there.db.asked_for) <= 4
    assert caplog.text.count("its DAG is not here") == 1

    there.db.refusing = {}
    there.clock.advance(30)
    assert not there.books.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r1"]
    assert there.books.waiting == ()


def test_a_conf_is_kept_as_json_or_not_at_all() -> None:
    """What another database might refuse is no JSON."""
    assert to_conf({"a": "ä"}) == ('{"a": "\\u00e4"}', None)
    assert to_conf({}) == to_conf(None) == (None, None)
    nested: list[Any] = []
    nested.append(nested)
    for conf in ({"n": float("nan")}, {("a",): 1}, nested):
        text, why = to_conf(conf)
        assert text is None
        assert (why or "").startswith("it is no JSON (")


def test_room_is_made_for_what_was_taken_over_as_long_as_it_is_queued(regions: tuple[Region, Region]) -> None:
    """Not for what the region has of its own."""
    here, there = regions
    take_over(here, there)
    for state, waiting in (("queued", ["r1"]), ("queued", ["r1"]), ("running", []), ("success", [])):
        there.db.waiting.clear()
        there.db.put("r1", state)
        there.db.put("r2", "queued", day=1)
        there.publish(1)
        there.books.make_room()
        assert there.db.waiting == waiting, state


@pytest.mark.parametrize("known", [False, True])
def test_a_skipped_interval_is_never_published_as_executed(regions: tuple[Region, Region], known: bool) -> None:
    """Published as a success, it was adopted by the next region, and no region executed it."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "success")
    here.publish()
    here.db.put("r2", "running" if known else "success", day=1, is_skipped=not known)
    here.publish()
    if known:
        here.db.rows["orders", "r2"] = replace(here.db.rows["orders", "r2"], state="success", is_skipped=True)
        here.publish()
    there.books.follow()
    there.books.adopt()
    assert [run.run_id for run in there.db.adopted] == ["r1"]
    # The region that has skipped it while it had the role begins it after all.
    here.books.resume(epoch=0)
    assert [run.run_id for run in here.db.resumed] == ["r2"]


def test_what_a_standby_skipped_before_it_had_the_role_is_nobodys(regions: tuple[Region, Region]) -> None:
    """The control: its intervals were another region's."""
    here, _ = regions
    here.db.put("r1", "success", is_skipped=True)
    here.books.begin(0)
    here.publish()
    here.books.resume(epoch=0)
    assert here.db.resumed == []
