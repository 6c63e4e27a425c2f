"""The bookkeeper with rows and tables that a user or another agent has changed, and after it restarts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core.ledger import LogEntry, RunKey, RunStatus
from airflow_provider_mwaa_dr.exceptions import StateUnreachableError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, ManualClock
from tests.unit.core.bookkeeping.ledger_regions import HERE, Region, at_epoch, hand_over, take_over


def test_a_resumed_run_that_a_user_deletes_stays_deleted(regions: tuple[Region, Region]) -> None:
    """Neither the region's next leader nor the next active region starts the run again."""
    here, there = regions
    take_over(here, there)
    there.db.put("r1", "running")
    there.publish(epoch=1)
    there.db.rows.clear()
    there.publish(epoch=1)
    there.db.resumed.clear()
    there.bookkeeper.resume(epoch=1)
    there.restart()
    there.bookkeeper.follow()
    there.publish(epoch=1)
    there.bookkeeper.resume(epoch=1)
    assert there.db.resumed == []
    there.interrupt(at_epoch(2), epoch=1)
    here.bookkeeper.follow()
    here.bookkeeper.begin(2)
    here.bookkeeper.apply_outcomes()
    here.bookkeeper.resume(epoch=2)
    assert here.db.resumed == []


def test_a_checkpoint_is_saved_although_no_new_entry_is_published(regions: tuple[Region, Region]) -> None:
    """Entries of the log expire. The checkpoint must have what the region published last, and is saved only once."""
    here, _ = regions
    store, clock = here.store, here.clock
    assert isinstance(store, InMemoryRunsStore)
    assert isinstance(clock, ManualClock)
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.publish()
    here.interrupt(at_epoch(1), epoch=0)
    here.bookkeeper.publish_complete(1)
    clock.advance(301)
    here.bookkeeper.apply_outcomes()
    checkpoint = store.checkpoint(HERE)
    assert (checkpoint.number, checkpoint.complete_before) == (here.bookkeeper._own.load().number, 1)
    saved = store.calls.count("save_checkpoint")
    clock.advance(301)
    here.bookkeeper.apply_outcomes()
    assert store.calls.count("save_checkpoint") == saved


def test_a_new_leader_saves_the_checkpoint_that_the_old_leader_did_not_save(regions: tuple[Region, Region]) -> None:
    """The new leader has read the entries after the checkpoint. They may expire before a later reader comes."""
    here, _ = regions
    store = here.store
    assert isinstance(store, InMemoryRunsStore)
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.publish()
    assert store.checkpoint(HERE).number < here.bookkeeper._own.load().number
    new = here.successor()
    new.apply_outcomes()
    new._clock.advance(301)  # type: ignore[attr-defined]
    new.apply_outcomes()
    assert store.checkpoint(HERE).number == here.bookkeeper._own.load().number


def test_a_ledger_with_higher_epochs_does_not_restart_a_run_that_ended_under_this_epoch(
    regions: tuple[Region, Region],
) -> None:
    """A new state table begins with epoch 0; the other region's ledger has epoch 5. Only this region executes now."""
    here, there = regions
    there.bookkeeper.begin(5)
    there.db.put("r1", "running", run_type="manual")
    there.publish(epoch=5)
    here.bookkeeper.follow()
    here.bookkeeper.begin(0)
    here.bookkeeper.resume(epoch=0)
    assert [run.run_id for run in here.db.resumed] == ["r1"]
    here.db.put("r1", "success", run_type="manual", queued_at=here.clock.now() + timedelta(seconds=1))
    here.publish()
    here.db.resumed.clear()
    here.bookkeeper.apply_outcomes()
    here.bookkeeper.resume(epoch=0)
    assert here.db.resumed == []


def test_a_run_of_an_epoch_that_no_heartbeat_reported_is_published(
    regions: tuple[Region, Region],
) -> None:
    """The region became active, accepted a run, and lost the role before a heartbeat reported its new epoch."""
    here, there = regions
    here.bookkeeper.begin(2)
    here.db.put("m1", "queued", run_type="manual")
    here.interrupt(at_epoch(3), epoch=1)
    there.bookkeeper.follow()
    there.bookkeeper.begin(3)
    there.bookkeeper.resume(epoch=3)
    assert [run.run_id for run in there.db.resumed] == ["m1"]


def test_a_run_that_cannot_be_queued_is_listed_and_tried_again(regions: tuple[Region, Region]) -> None:
    """The run was published as resumed, but Airflow refuses it. The other run is resumed without it."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.db.put("r2", "running", day=1)
    here.publish()
    hand_over(here, there)
    there.db.failing = {"r1": "its timetable is missing"}
    for _ in range(2):
        assert not there.bookkeeper.resume(epoch=1)
        assert [run.run_id for run in there.db.resumed] == ["r2"]
        assert there.bookkeeper.waiting == ("orders r1: its timetable is missing",)
        there.publish(epoch=1)
    there.db.failing = {}
    there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r2", "r1"]
    assert there.bookkeeper.waiting == ()


def test_runs_with_long_task_ids_are_published_in_entries_that_fit_an_item(regions: tuple[Region, Region]) -> None:
    """The task ids are as long as a database allows, and compress badly."""
    here, _ = regions
    store = here.store
    here.bookkeeper.begin(0)
    for number in range(30):
        here.db.put(f"r{number}", "success", day=number)
        tasks = [(f"{number}_{task}".ljust(250, "x"), -1, "success") for task in range(100)]
        here.db.task_instances["orders", f"r{number}"] = list(tasks)
    here.publish()
    sizes = [
        sum(len(task_id) for run in entry.runs for task_id, _, _ in run.tasks) for entry in store.log(HERE, after=0)
    ]
    assert sum(sizes) == 30 * 100 * 250
    assert max(sizes) < 300_000


def lose_the_next_response(region: Region) -> None:
    """Let the next entry of the region's log be written, but lose the response to that write."""
    store = region.store
    append: Callable[[str, LogEntry], None] = store.append

    def once(name: str, entry: LogEntry) -> None:
        store.append = append  # type: ignore[method-assign]
        append(name, entry)
        raise StateUnreachableError("The answer of a write was lost.")

    store.append = once  # type: ignore[method-assign]


def test_a_role_that_was_begun_by_a_write_without_a_response_is_known_to_the_next_turn(
    regions: tuple[Region, Region],
) -> None:
    """
    The write that began epoch 1 landed, but its response was lost. The region then lost the role at the next turn.

    The region still publishes the run that it had accepted. Before the fix, it closed the run without publishing it
    (seed 7023459).
    """
    here, there = regions
    lose_the_next_response(here)
    with pytest.raises(StateUnreachableError):
        here.bookkeeper.begin(1)
    here.db.put("m1", "queued", run_type="manual")
    here.interrupt(at_epoch(2), epoch=0)
    there.bookkeeper.follow()
    there.bookkeeper.begin(2)
    there.bookkeeper.resume(epoch=2)
    assert [run.run_id for run in there.db.resumed] == ["m1"]


def test_an_entry_whose_write_got_no_response_is_not_written_twice(regions: tuple[Region, Region]) -> None:
    """The next turn reads the log first, finds the entry, and continues after it."""
    here, _ = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    lose_the_next_response(here)
    with pytest.raises(StateUnreachableError):
        here.publish()
    here.publish()
    here.db.put("r1", "success")
    here.publish()
    entries = here.store.log(HERE, after=0)
    assert [run.status.value for entry in entries for run in entry.runs] == ["open", "success"]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_run_that_was_open_when_the_role_began_is_published_although_it_ends_before_the_next_write(
    regions: tuple[Region, Region], is_restarted: bool
) -> None:
    """The ledger refused writes meanwhile. The run's id is not above the first id of the role (seed 1266557953)."""
    here, there = regions
    here.db.put("r1", "running")
    here.bookkeeper.begin(0)
    here.db.rows["orders", "r1"] = replace(here.db.rows["orders", "r1"], state="success")
    if is_restarted:
        here.restart()
    here.publish()
    there.bookkeeper.follow()
    there.bookkeeper.adopt()
    assert [(run.run_id, run.status) for run in there.db.adopted] == [("r1", RunStatus.SUCCESS)]


def test_a_checkpoint_that_fails_after_an_entry_landed_hides_no_outcome(regions: tuple[Region, Region]) -> None:
    """
    A user clears a run that was published as success. Its entry says open, the checkpoint fails, and the run succeeds
    again.

    The second success is published. Before the fix, the bookkeeper took the first success for its last published
    outcome (seed 216165934).
    """
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "success")
    here.publish()
    here.db.rows["orders", "r1"] = replace(here.db.rows["orders", "r1"], state="running")
    here.clock.advance(301)
    save, here.store.save_checkpoint = here.store.save_checkpoint, refuse  # type: ignore[method-assign]
    with pytest.raises(StateUnreachableError):
        here.publish()
    here.store.save_checkpoint = save  # type: ignore[method-assign]
    here.db.rows["orders", "r1"] = replace(here.db.rows["orders", "r1"], state="success")
    here.publish()
    there.bookkeeper.follow()
    assert not any(run.is_unfinished for run in there.bookkeeper._peers.ledgers[HERE].runs.values())


def refuse(*_: object, **__: object) -> bool:
    raise StateUnreachableError("The ledger did not answer.")


def test_a_row_that_was_queued_after_the_rows_were_published_is_not_resumed(regions: tuple[Region, Region]) -> None:
    """
    The region executes an interval while its agent waits for the ledger between publishing and resuming.

    The other region's entry says that the interval was interrupted there (seed 1810215215).
    """
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.publish()
    hand_over(here, there)
    there.publish(epoch=1)
    there.clock.advance(5)
    there.db.put("r1", "success", queued_at=there.clock.now())
    there.clock.advance(10)
    there.bookkeeper.resume(epoch=1)
    # The metadata database leaves a row that was queued at taken_at or later as it is.
    assert [run.taken_at < there.db.rows[run.key].queued_at for run in there.db.resumed] == [True]
    there.publish(epoch=1)
    entries = there.store.log(there.region, after=0)
    assert [run.status for entry in entries for run in entry.runs][-1] is RunStatus.SUCCESS


@pytest.mark.parametrize("state", ["success", None], ids=["ended", "deleted"])
def test_a_run_that_ends_or_is_deleted_while_the_role_ends_is_not_interrupted(
    regions: tuple[Region, Region], state: str | None
) -> None:
    """The ledger never had it. It is open when the region lists its open runs, and gone when the region reads them."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put("r1", "running")
    here.db.put("r2", "running", day=1)
    read = here.db.read_states

    def end_r1(*, above: int) -> tuple[int, Mapping[RunKey, str]]:
        states = read(above=above)
        row = here.db.rows.pop(("orders", "r1"))
        if state is not None:
            here.db.rows[row.key] = replace(row, state=state)
        return states

    here.db.read_states = end_r1  # type: ignore[method-assign]
    hand_over(here, there)
    there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r2"]


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_refused_run_that_a_user_then_ran_is_not_queued_again(
    regions: tuple[Region, Region], is_deleted: bool
) -> None:
    """
    Airflow refused to queue the run that the region took over. Later, a user queues it, and it succeeds.

    Its outcome is published, so a user may also delete its row.
    """
    here, there = regions
    there.db.failing = {"r1": "its timetable is missing"}
    take_over(here, there)
    there.db.failing = {}
    there.clock.advance(5)
    there.db.put("r1", "success", queued_at=there.clock.now())
    there.clock.advance(5)
    there.publish(epoch=1)
    if is_deleted:
        there.db.rows.clear()
    there.bookkeeper.resume(epoch=1)
    assert there.db.resumed == []
    assert there.bookkeeper.waiting == ()
