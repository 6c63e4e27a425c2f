"""What the bookkeeper publishes, adopts and lists. tests/simulation tests it in all circumstances."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.bookkeeping import CONF_BYTES, TASKS_BYTES, to_conf
from airflow_provider_mwaa_dr.core.ledger import RunEvent, RunStatus
from airflow_provider_mwaa_dr.core.state import Mode, Plan
from tests.unit.core.bookkeeping.ledger_regions import AT, HERE, THERE, Region, at_epoch, hand_over, take_over

TASKS = [("one", -1, "success"), ("two", 3, None)]


def test_an_ended_run_is_published_and_adopted_with_its_tasks(regions: tuple[Region, Region]) -> None:
    """Task instances are read and published once, and only for runs that have ended."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.publish()
    assert here.db.tasks_requested_for == []
    here.db.put("r1", "failed")
    here.db.put("m1", "success", run_type="manual", day=1)
    here.db.task_instances = {("orders", "r1"): TASKS, ("orders", "m1"): TASKS[:1]}
    for _ in range(3):
        here.publish()
    assert here.db.tasks_requested_for == [[("orders", "m1"), ("orders", "r1")]]
    there.bookkeeper.follow()
    assert not there.bookkeeper.adopt()
    assert [(run.run_id, run.status, run.tasks) for run in there.db.adopted] == [
        ("r1", RunStatus.FAILED, tuple(TASKS)),
        ("m1", RunStatus.SUCCESS, tuple(TASKS[:1])),
    ]


def test_a_region_does_not_adopt_over_what_it_published_under_a_newer_epoch(regions: tuple[Region, Region]) -> None:
    """
    The older outcome of the same run does not replace the newer one, not even when a new reader starts with all heads.
    """
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.publish()
    here.db.put("r1", "failed")
    here.publish()
    there.bookkeeper.begin(1)
    there.db.put("r1", "running")
    there.publish(epoch=1)
    there.db.put("r1", "success")
    there.publish(epoch=1)
    there.bookkeeper.follow()
    there.bookkeeper.adopt()
    assert there.db.adopted == []
    here.bookkeeper.follow()
    here.bookkeeper.adopt()
    assert [run.status for run in here.db.adopted] == [RunStatus.SUCCESS]


def test_tasks_that_do_not_fit_are_left_out_with_a_warning(
    regions: tuple[Region, Region], caplog: pytest.LogCaptureFixture
) -> None:
    """The run itself is published, without its task instances."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "success")
    size = len("orders") + 30
    many = [("orders", index, "success") for index in range(TASKS_BYTES // size + 1)]
    here.db.task_instances = {("orders", "r1"): many}
    with caplog.at_level(logging.WARNING):
        here.publish()
    assert f"orders r1: its {len(many)} task instances do not fit" in caplog.text
    there.bookkeeper.follow()
    there.bookkeeper.adopt()
    assert [(run.run_id, run.tasks) for run in there.db.adopted] == [("r1", ())]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (
            {"conf": {"x": "y" * CONF_BYTES}},
            f"it has {CONF_BYTES + 9} characters as JSON, and the limit is {CONF_BYTES}",
        ),
        ({"conf": {"x": {1, 2}}}, "it is not JSON (Object of type set is not JSON serializable)"),
        ({"conf": None, "conf_lost": "it cannot be read"}, "it cannot be read"),
    ],
)
def test_a_run_whose_conf_is_not_in_the_ledger_is_listed_and_not_started(
    regions: tuple[Region, Region], values: dict[str, Any], why: str
) -> None:
    """Without its conf the run would execute with wrong input. The other interrupted run is resumed."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running", run_type="manual", **values)
    here.db.put("r2", "queued", run_type="manual", day=1, partition_key="eu", partition_date=AT)
    here.publish()
    hand_over(here, there)
    assert not there.bookkeeper.resume(epoch=1)
    assert [(run.run_id, run.partition_key, run.partition_date) for run in there.db.resumed] == [("r2", "eu", AT)]
    assert there.bookkeeper.waiting == (f"orders r1: its conf is not in the ledger: {why}",)


def test_a_run_that_cannot_be_started_stays_listed_and_is_retried(
    regions: tuple[Region, Region], caplog: pytest.LogCaptureFixture
) -> None:
    """Every turn lists the run for `mwaa-dr status`. The log gets one line for each reason."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.publish()
    hand_over(here, there)
    there.db.refusing = {"r1": "its DAG is not here"}
    for _ in range(20):
        assert not there.bookkeeper.resume(epoch=1)
        assert there.bookkeeper.waiting == ("orders r1: its DAG is not here",)
        there.clock.advance(5)
    assert 3 <= len(there.db.checked) <= 4
    assert caplog.text.count("its DAG is not here") == 1

    there.db.refusing = {}
    there.clock.advance(30)
    assert not there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r1"]
    assert there.bookkeeper.waiting == ()


EVENT = RunEvent(uri="s3://queue", name="queue", group="asset", at=AT, extra='{"x": 1}')


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"events": (replace(EVENT, extra=json.dumps("y" * CONF_BYTES)),)}, "and the limit is 200000"),
        ({"events": (EVENT,), "events_lost": "the DAG orders is tagged dr:no-conf"}, "is tagged dr:no-conf"),
        ({}, "an earlier version of the provider published the run"),
    ],
)
def test_a_run_whose_events_are_not_in_the_ledger_is_listed_and_not_started(
    regions: tuple[Region, Region], values: dict[str, Any], why: str
) -> None:
    """It would end without an error and without its work. The other interrupted run is resumed with its events."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running", run_type="asset_triggered", **values)
    here.db.put("r2", "running", run_type="dataset_triggered", events=(EVENT,))
    here.publish()
    hand_over(here, there)
    there.bookkeeper.resume(epoch=1)
    assert [(run.run_id, run.events) for run in there.db.resumed] == [("r2", (EVENT,))]
    (listed,) = there.bookkeeper.waiting
    assert listed.startswith("orders r1: the events that triggered it are not in the ledger: ")
    assert listed.endswith(why)


def test_a_run_that_an_earlier_version_published_is_published_again_with_its_events(
    regions: tuple[Region, Region],
) -> None:
    """After an update of the provider. Else the other region would list a run whose region is still there."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "queued", run_type="asset_triggered")
    here.db.put("r2", "queued", run_type="asset_triggered")
    here.publish()
    here.db.rows["orders", "r1"] = replace(here.db.rows["orders", "r1"], events=(EVENT,))
    for _ in range(3):
        here.publish()
    assert statuses(here) == [("r1", "open"), ("r2", "open"), ("r1", "open")]
    hand_over(here, there)
    there.bookkeeper.resume(epoch=1)
    assert [(run.run_id, run.events) for run in there.db.resumed] == [("r1", (EVENT,))]


def test_the_events_of_a_run_that_has_ended_are_not_published(regions: tuple[Region, Region]) -> None:
    """No region needs them. The region that continues adopts the run, and no later run gets its events."""
    here, _ = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running", run_type="asset_triggered", logical_date=None, events=(EVENT,))
    here.publish()
    here.db.rows["orders", "r1"] = replace(here.db.rows["orders", "r1"], state="success")
    here.publish()
    (head,) = here.bookkeeper._own.load().heads.values()
    assert head.triggered is not None
    assert (head.triggered.run_id, head.triggered.events) == ("r1", None)


def test_a_conf_is_kept_as_json_or_not_at_all() -> None:
    """A conf that another database may refuse does not count as JSON."""
    assert to_conf({"a": "ä"}) == ('{"a": "\\u00e4"}', None)
    assert to_conf({}) == to_conf(None) == (None, None)
    nested: list[Any] = []
    nested.append(nested)
    for conf in ({"n": float("nan")}, {("a",): 1}, nested):
        text, why = to_conf(conf)
        assert text is None
        assert (why or "").startswith("it is not JSON (")


def test_room_is_made_for_resumed_runs_that_are_still_queued(regions: tuple[Region, Region]) -> None:
    """Runs that the region itself created get no room."""
    here, there = regions
    take_over(here, there)
    for state, waiting in (("queued", ["r1"]), ("queued", ["r1"]), ("running", []), ("success", [])):
        there.db.waiting.clear()
        there.db.put("r1", state)
        there.db.put("r2", "queued", day=1)
        there.publish(1)
        there.bookkeeper.make_room()
        assert there.db.waiting == waiting, state


@pytest.mark.parametrize("known", [False, True])
def test_a_skipped_interval_is_never_published_as_executed(regions: tuple[Region, Region], known: bool) -> None:
    """
    Before the fix, a skipped run was published as success and adopted by the next region, so no region executed it.
    """
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "success")
    here.publish()
    here.db.put("r2", "running" if known else "success", day=1, is_skipped=not known)
    here.publish()
    if known:
        here.db.rows["orders", "r2"] = replace(here.db.rows["orders", "r2"], state="success", is_skipped=True)
        here.publish()
    there.bookkeeper.follow()
    there.bookkeeper.adopt()
    assert [run.run_id for run in there.db.adopted] == ["r1"]
    # The region skipped the run while it was active, so it has to execute the run itself.
    here.bookkeeper.resume(epoch=0)
    assert [run.run_id for run in here.db.resumed] == ["r2"]


def test_a_region_that_becomes_active_does_not_run_what_it_skipped_as_a_standby(regions: tuple[Region, Region]) -> None:
    """Control case: those intervals belonged to the region that was active then."""
    here, _ = regions
    here.db.put("r1", "success", is_skipped=True)
    here.bookkeeper.begin(0)
    here.publish()
    here.bookkeeper.resume(epoch=0)
    assert here.db.resumed == []


def statuses(region: Region) -> list[tuple[str, str]]:
    """Return what the region has published about its runs, in order."""
    entries = region.store.log(region.region, after=0)
    return [(run.run_id, run.status.value) for entry in entries for run in entry.runs]


def test_the_target_knows_when_it_has_read_the_final_entry_of_the_source(regions: tuple[Region, Region]) -> None:
    """The source publishes it once the plan is drained, for this plan only."""
    here, there = regions
    assert there.bookkeeper.epoch_of(HERE) is None
    assert not there.bookkeeper.has_read_final(HERE, "p")
    plan = Plan(id="p", source=HERE, target=THERE, mode=Mode.GRACEFUL, reason="r", by="b", owner="o", started_at=AT)
    first = transitions.initial(HERE, lease_s=60, by="t", at=AT)
    state = transitions.drained(transitions.claim(first, plan, at=AT), at=AT)
    here.bookkeeper.begin(0)
    for _ in range(2):
        assert here.bookkeeper.publish(state, read_state=lambda: state, read_stopped=lambda _: ())
    assert here.bookkeeper.final_plan_id == "p"
    assert [entry.final_plan_id for entry in here.store.log(HERE, after=0)].count("p") == 1
    there.bookkeeper.follow()
    assert there.bookkeeper.epoch_of(HERE) == 0
    assert there.bookkeeper.has_read_final(HERE, "p")
    assert not there.bookkeeper.has_read_final(HERE, "another plan")


def test_the_last_events_get_their_runs_right_before_the_final_entry(regions: tuple[Region, Region]) -> None:
    """Only when the region is drained. The runs are in the final entry, and the other region resumes them."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.publish()
    here.db.put("last", "queued", run_type="asset_triggered", events=(EVENT,))
    here.db.arriving = [here.db.rows.pop(("orders", "last"))]
    plan = Plan(id="p", source=HERE, target=THERE, mode=Mode.GRACEFUL, reason="r", by="b", owner="o", started_at=AT)
    claimed = transitions.claim(transitions.initial(HERE, lease_s=60, by="t", at=AT), plan, at=AT)
    for state in (claimed, *[transitions.drained(claimed, at=AT)] * 2):
        here.bookkeeper.publish(state, read_state=lambda state=state: state, read_stopped=lambda _: ())
    assert len(here.db.started) == 1
    final = here.store.log(HERE, after=0)[-1]
    assert (final.final_plan_id, [run.run_id for run in final.runs]) == ("p", ["last"])
    hand_over(here, there)
    there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["last"]


def test_a_region_publishes_nothing_for_an_epoch_that_it_has_not_begun_or_has_lost(
    regions: tuple[Region, Region],
) -> None:
    """The rows may be those of another role. The state is read again between the rows and the write."""
    here, _ = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    mine = transitions.initial(HERE, lease_s=60, by="t", at=AT)
    for state, read in ((replace(mine, epoch=1), replace(mine, epoch=1)), (mine, at_epoch(1)), (mine, None)):
        assert not here.bookkeeper.publish(state, read_state=lambda read=read: read, read_stopped=lambda _: ())
        assert statuses(here) == []
    here.publish()
    assert statuses(here) == [("r1", "open")]


def test_a_run_that_ended_before_the_role_began_is_not_published(regions: tuple[Region, Region]) -> None:
    """It belongs to an earlier epoch, and no region waits for it."""
    here, _ = regions
    here.db.put("old", "success")
    here.bookkeeper.begin(0)
    here.db.put("new", "success")
    here.publish()
    assert statuses(here) == [("new", "success")]


def test_an_unfinished_run_whose_row_was_deleted_is_interrupted_as_well(regions: tuple[Region, Region]) -> None:
    """The other region still lists it as open; only the region's own ledger can say that it is interrupted."""
    here, _ = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.publish()
    here.db.rows.clear()
    here.interrupt(at_epoch(1), epoch=0)
    assert statuses(here) == [("r1", "open"), ("r1", "interrupted")]


def test_the_outcome_of_a_run_that_continued_in_another_region_replaces_the_interruption(
    regions: tuple[Region, Region],
) -> None:
    """The row gets the outcome, and the region publishes that it no longer waits for the run."""
    here, there = regions
    take_over(here, there)
    there.db.put("r1", "success", queued_at=there.clock.now())
    there.publish(epoch=1)
    here.bookkeeper.follow()
    for _ in range(2):
        here.bookkeeper.apply_outcomes()
    assert [(run.run_id, run.status) for run in here.db.applied] == [("r1", RunStatus.SUCCESS)]
    assert statuses(here)[-1] == ("r1", "gone")


def test_moved_runs_are_counted_in_the_log(regions: tuple[Region, Region], caplog: pytest.LogCaptureFixture) -> None:
    """A user who sees a run in the queue again finds the reason."""
    here, there = regions
    caplog.set_level(logging.INFO)
    take_over(here, there)
    there.db.moved = 1
    there.db.put("r1", "queued")
    there.publish(epoch=1)
    there.bookkeeper.make_room()
    assert f"1 runs of {THERE} went back to the queue" in caplog.text
