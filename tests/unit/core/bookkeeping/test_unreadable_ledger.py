"""A ledger with an unreadable item: the other items count, and runs that depend on it are held and listed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RegionLedger, RunStatus
from airflow_provider_mwaa_dr.exceptions import StateUnreachableError, UnreadableCheckpointError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore
from airflow_provider_mwaa_dr.testing._stored_items import fault_at
from tests.unit.core.bookkeeping.ledger_regions import AT, HERE, THERE, Region, at_epoch


@pytest.fixture
def store() -> InMemoryRunsStore:
    return InMemoryRunsStore()


@pytest.fixture
def here(store: InMemoryRunsStore) -> Region:
    """The active region. It has started and published one run under epoch 0."""
    region = Region(HERE, store.peer())
    region.bookkeeper.begin(0)
    region.db.put("r1", "running")
    region.publish()
    return region


@pytest.fixture
def there(store: InMemoryRunsStore) -> Region:
    return Region(THERE, store.peer())


def last_number(store: InMemoryRunsStore, region: str = HERE) -> int:
    return store.log(region, after=0)[-1].number


def test_a_run_that_may_have_ended_in_an_unreadable_entry_is_not_started_again(
    store: InMemoryRunsStore, here: Region, there: Region
) -> None:
    """
    A run that was published after the entry is resumed. The run from before it waits, and the agent lists the reason.
    """
    there.bookkeeper.follow()
    here.db.rows["orders", "r1"] = replace(here.db.rows["orders", "r1"], state="success")
    here.publish()
    store.damage_entry(HERE, last_number(store))
    here.db.put("r2", "running", day=1)
    here.publish()
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r2"]
    (waiting,) = there.bookkeeper.waiting
    assert "orders r1: it may have ended: Item LOG#us-east-2" in waiting
    (unread,) = there.bookkeeper.unread
    assert unread.startswith(f"The ledger of {HERE} has a gap. Item LOG#{HERE}")


def test_a_later_checkpoint_ends_the_doubt(store: InMemoryRunsStore, here: Region, there: Region) -> None:
    """The checkpoint contains the unreadable entry: ended runs are adopted, unfinished ones are resumed."""
    here.db.put("r2", "running", day=1)
    here.publish()
    store.damage_entry(HERE, last_number(store))
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    assert there.db.resumed == []
    here.interrupt(at_epoch(1), epoch=0)
    here.clock.advance(400)
    here.bookkeeper.apply_outcomes()
    assert store.checkpoint(HERE).number == last_number(store)
    there.clock.advance(60)
    there.bookkeeper.follow()
    there.bookkeeper.resume(epoch=1)
    assert sorted(run.run_id for run in there.db.resumed) == ["r1", "r2"]
    assert there.bookkeeper.unread == ()


def test_a_run_with_a_status_of_a_newer_version_is_neither_adopted_nor_started_but_listed(
    store: InMemoryRunsStore, here: Region, there: Region
) -> None:
    """Only this run is unknown. The other runs of its entry count."""
    unknown = LedgerRun(
        dag_id="orders", run_id="r9", run_type="manual", status=RunStatus.OPEN, epoch=0, doubt="its status is 'parked'"
    )
    known = LedgerRun(dag_id="orders", run_id="r8", run_type="manual", status=RunStatus.INTERRUPTED, epoch=0)
    number = last_number(store) + 1
    store.append(HERE, LogEntry(number=number, at=AT, epoch=0, first_id=0, newest_id=1, runs=(unknown, known)))
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.adopt()
    there.bookkeeper.resume(epoch=1)
    assert sorted(run.run_id for run in there.db.resumed) == ["r1", "r8"]
    assert there.db.adopted == []
    assert there.bookkeeper.waiting == ("orders r9: its status is 'parked'",)


def test_a_region_publishes_again_what_only_its_own_unreadable_entry_contained(
    store: InMemoryRunsStore, here: Region, there: Region
) -> None:
    """
    Its next leader continues with the next number, publishes from its database, and saves a checkpoint that closes the
    gap.
    """
    here.db.put("r2", "running", day=1)
    here.publish()
    here.db.rows["orders", "r1"] = replace(here.db.rows["orders", "r1"], state="success")
    here.publish()
    store.damage_entry(HERE, last_number(store))
    store.damage_entry(HERE, last_number(store) - 1)
    here.restart()
    here.bookkeeper.begin(0)
    here.publish()
    here.bookkeeper.apply_outcomes()
    assert here.bookkeeper.unread == ()
    checkpoint = store.checkpoint(HERE)
    assert checkpoint.number == last_number(store)
    assert {run.run_id: (run.status, run.doubt) for run in checkpoint.runs.values()} == {"r2": (RunStatus.OPEN, None)}
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.adopt()
    there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r2"]
    assert [(run.run_id, run.status) for run in there.db.adopted] == [("r1", RunStatus.SUCCESS)]


def test_a_standby_stays_uncertain_about_a_run_that_ended_in_its_own_unreadable_entry(
    store: InMemoryRunsStore, here: Region, there: Region
) -> None:
    """Without the entry, the run looks unfinished. If it were published as interrupted, it would be executed again."""
    here.db.rows["orders", "r1"] = replace(here.db.rows["orders", "r1"], state="success")
    here.publish()
    store.damage_entry(HERE, last_number(store))
    here.restart()
    here.interrupt(at_epoch(1), epoch=0)
    here.bookkeeper.apply_outcomes()
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    assert there.db.resumed == []
    assert "orders r1: it may have ended" in there.bookkeeper.waiting[0]


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole log", "log without its beginning"])
def test_the_whole_log_replaces_a_checkpoint_that_cannot_be_read(
    store: InMemoryRunsStore, here: Region, there: Region, is_whole: bool
) -> None:
    """If the log has lost its beginning, the ledger of the region is unknown, and nothing is resumed from it."""
    here.clock.advance(400)
    here.db.put("r2", "running", day=1)
    here.publish()
    assert store.checkpoint(HERE).number == last_number(store)
    store.damage_checkpoint(HERE)
    if not is_whole:
        store._logs[HERE] = store._logs[HERE][1:]
        with pytest.raises(UnreadableCheckpointError):
            there.bookkeeper.follow()
        return
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    assert sorted(run.run_id for run in there.db.resumed) == ["r1", "r2"]


def test_a_long_log_without_its_checkpoint_is_read_in_several_turns(
    store: InMemoryRunsStore, here: Region, there: Region
) -> None:
    """A turn reads a limited part, so that the agent does its other work. Both regions continue where they were."""
    last = store.log(HERE, after=0)[-1]
    for number in range(last.number + 1, last.number + 2001):
        store.append(HERE, replace(last, number=number, runs=(), dag_ids=()))
    store.damage_checkpoint(HERE)
    here.restart()
    for read in (there.bookkeeper.follow, lambda: here.bookkeeper.has_begun(0)):
        with pytest.raises(StateUnreachableError, match="2000 entries so far"):
            read()
    there.bookkeeper.follow()
    assert here.bookkeeper.has_begun(0)
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r1"]


def test_an_entry_of_another_life_waits_for_the_checkpoint_that_begins_it(
    store: InMemoryRunsStore, there: Region, here: Region
) -> None:
    """Only that checkpoint has all content of the life. The reader says what is missing."""
    there.bookkeeper.follow()
    last = store.log(HERE, after=0)[-1]
    store.append(HERE, replace(last, number=last.number + 1, life="another"))
    there.bookkeeper.follow()
    (missing,) = there.bookkeeper.missing
    assert f"entry {last.number + 1} of the ledger of {HERE} belongs to another life" in missing
    assert there.bookkeeper.epoch_of(HERE) == 0


def test_a_region_replaces_its_own_checkpoint_that_cannot_be_read(
    store: InMemoryRunsStore, here: Region, there: Region
) -> None:
    """The new checkpoint comes from its database and has the next number, even if the log has expired."""
    here.clock.advance(400)
    here.publish()
    number = last_number(store)
    store.save_checkpoint(HERE, replace(store.checkpoint(HERE), number=number))
    store._logs[HERE] = []
    store.damage_checkpoint(HERE)
    here.restart()
    here.bookkeeper.begin(0)
    here.publish()
    here.bookkeeper.apply_outcomes()
    assert store.checkpoint(HERE).number > number
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r1"]


def test_a_ledger_with_an_unreadable_entry_does_not_count_as_complete() -> None:
    """The region may have published a start in that entry, so the other regions keep what they retained for it."""
    ledger = RegionLedger()
    entry = LogEntry(number=1, at=AT, epoch=0, first_id=0, newest_id=0, complete_before=3)
    ledger.apply([entry])
    ledger.pass_over(2, "junk")
    assert (ledger.number, ledger.gap is not None) == (2, True)
    ledger.apply([replace(entry, number=3)])
    assert (ledger.number, ledger.complete_before) == (3, 3)


def remove_entry(store: InMemoryRunsStore, number: int) -> LogEntry:
    """Remove an entry from the log, as if it was deleted or has not arrived in this copy of the table."""
    (removed,) = [entry for entry in store._logs[HERE] if entry.number == number]
    store._logs[HERE] = [entry for entry in store._logs[HERE] if entry.number != number]
    return removed


def test_a_run_that_may_have_ended_in_a_missing_entry_waits_for_it(
    store: InMemoryRunsStore, here: Region, there: Region
) -> None:
    """
    The run is listed, and waits. Before the fix, it was started again, although the late entry contained its outcome.
    """
    there.bookkeeper.follow()
    here.db.rows["orders", "r1"] = replace(here.db.rows["orders", "r1"], state="success")
    here.publish()
    removed = remove_entry(store, last_number(store))
    here.db.put("r2", "running", day=1)
    here.publish()
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    assert there.db.resumed == []
    assert (
        f"entry {removed.number} of the ledger of {HERE} is missing, but later ones exist"
        in there.bookkeeper.waiting[0]
    )
    assert there.bookkeeper.unread[0].startswith(f"The ledger of {HERE} has a gap.")
    store.append(HERE, removed)
    there.bookkeeper.follow()
    there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r2"]
    assert (there.bookkeeper.waiting, there.bookkeeper.unread) == ((), ())


def test_a_region_continues_after_one_of_its_own_entries_was_deleted(
    store: InMemoryRunsStore, here: Region, there: Region
) -> None:
    """Before the fix, every write of its leader took a number that was already in use."""
    here.db.put("r2", "running", day=1)
    here.publish()
    here.db.put("r3", "running", day=2)
    here.publish()
    remove_entry(store, last_number(store) - 1)
    here.restart()
    here.bookkeeper.begin(0)
    here.publish()
    here.bookkeeper.apply_outcomes()
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    assert sorted(run.run_id for run in there.db.resumed) == ["r1", "r2", "r3"]


def test_a_reader_waits_with_a_gap_while_the_checkpoint_cannot_be_read_either(
    store: InMemoryRunsStore, here: Region, there: Region
) -> None:
    """It continues with later entries. The next checkpoint ends the doubt."""
    there.bookkeeper.follow()
    here.db.put("r2", "running", day=1)
    here.publish()
    store.damage_entry(HERE, last_number(store))
    there.bookkeeper.follow()
    store.damage_checkpoint(HERE)
    here.db.put("r3", "running", day=2)
    here.publish()
    there.bookkeeper.follow()
    there.bookkeeper.begin(1)
    there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r3"]
    assert "orders r1: it may have ended" in there.bookkeeper.waiting[0]
    here.clock.advance(400)
    here.bookkeeper.apply_outcomes()
    there.clock.advance(60)
    there.bookkeeper.follow()
    there.bookkeeper.resume(epoch=1)
    assert sorted(run.run_id for run in there.db.resumed) == ["r1", "r2", "r3"]
    assert there.bookkeeper.unread == ()


def test_a_region_writes_nothing_if_neither_its_log_nor_its_checkpoint_shows_the_next_number(
    store: InMemoryRunsStore, here: Region
) -> None:
    """An entry with a number that readers have already applied would be skipped by them."""
    store.expire(HERE)

    def without_number(region: str) -> RegionLedger:
        fault = fault_at(f"PICTURE#{region} manifest", field="number", found="'two'", allowed="a number")
        raise UnreadableCheckpointError(fault)

    here.store.checkpoint = without_number  # type: ignore[method-assign]
    here.restart()
    with pytest.raises(UnreadableCheckpointError, match="'two'"):
        here.bookkeeper.begin(1)
    assert store.log(HERE, after=0) == []
