"""A region's ledger that uses its numbers again: after its entries expired, or in a new runs table."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core.ledger import LOG_DAYS, CheckpointInfo, LogEntry, RegionLedger
from airflow_provider_mwaa_dr.exceptions import IncompleteItemError, StaleLedgerError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore
from tests.unit.core.bookkeeping.ledger_regions import AT, HERE, THERE, Region

MINUTE_S = 61.0


class Pair:
    """Two regions on one table. *here* has published many runs, and *there* has read all of them."""

    def __init__(self) -> None:
        self.table = InMemoryRunsStore()
        self.here, self.there = Region(HERE, self.table.peer()), Region(THERE, self.table.peer())
        self.here.bookkeeper.begin(0)
        for number in range(20):
            self.here.db.put(f"old{number}", "running")
            self.here.publish()
            self.here.db.put(f"old{number}", "success")
            self.here.publish()
        self.there.bookkeeper.follow()

    def advance(self, seconds: float) -> None:
        for region in (self.here, self.there):
            region.clock.advance(seconds)

    def unfinished(self) -> set[str]:
        """Return the runs of *here* that *there* would resume."""
        self.there.bookkeeper.follow(is_thorough=True)
        return {run.run_id for run in self.there.bookkeeper._peers.ledgers[HERE].runs.values() if run.is_unfinished}


def test_a_region_that_begins_at_number_1_again_is_read() -> None:
    """The table was deleted and created again, and the agents of the region restarted. The reader did not restart."""
    pair = Pair()
    read = pair.there.bookkeeper._peers.ledgers[HERE].number
    pair.table.recreate()
    pair.here.restart()
    pair.here.bookkeeper.begin(1)
    pair.here.db.put("new", "running")
    pair.here.publish(epoch=1)
    assert pair.here.bookkeeper._own.load().number < read
    assert pair.unfinished() == {"new"}
    pair.here.db.put("newer", "running")
    pair.here.publish(epoch=1)
    assert pair.unfinished() == {"new", "newer"}


def test_a_reader_notices_a_new_ledger_within_a_minute() -> None:
    """It notices in its ordinary turns, so that a standby's history does not become stale."""
    pair = Pair()
    pair.table.recreate()
    pair.here.restart()
    pair.here.bookkeeper.begin(1)
    pair.here.db.put("new", "running")
    pair.here.publish(epoch=1)
    pair.advance(MINUTE_S)
    pair.there.bookkeeper.follow()
    assert ("orders", "new") in pair.there.bookkeeper._peers.ledgers[HERE].runs


def test_a_reader_that_restarts_reads_the_new_ledger() -> None:
    """The reader remembers nothing, and the new table has everything that it needs."""
    pair = Pair()
    pair.table.recreate()
    for region in (pair.here, pair.there):
        region.restart()
    pair.here.bookkeeper.begin(1)
    pair.here.db.put("new", "running")
    pair.here.publish(epoch=1)
    assert pair.unfinished() == {"new"}


def test_an_agent_that_did_not_restart_saves_its_checkpoint_in_the_new_table() -> None:
    """
    It does so within a minute, even without a new run to publish. A reader that restarts then reads the whole ledger.
    """
    pair = Pair()
    pair.here.db.put("before", "running")
    pair.here.publish()
    pair.table.recreate()
    pair.advance(MINUTE_S)
    pair.here.bookkeeper.apply_outcomes()
    pair.there.restart()
    assert pair.unfinished() == {"before"}
    pair.here.db.put("after", "running")
    pair.here.publish()
    assert pair.unfinished() == {"before", "after"}


def test_a_region_that_published_a_run_in_the_new_table_before_it_restarted_is_read() -> None:
    """
    Its log in the new table has no beginning, and no checkpoint has the earlier entries. The next agent begins a new
    life.
    """
    pair = Pair()
    pair.table.recreate()
    pair.here.db.put("after", "running")
    pair.here.publish()
    pair.here.restart()
    pair.here.bookkeeper.begin(1)
    pair.here.db.put("later", "running")
    pair.here.publish(epoch=1)
    for is_restarted in (False, True):
        if is_restarted:
            pair.there.restart()
        assert pair.unfinished() == {"after", "later"}


def test_numbers_whose_entries_have_expired_are_used_again_and_read() -> None:
    """
    The region was away until its entries expired. It knows only its last checkpoint; the other region has read more.
    """
    pair = Pair()
    pair.advance(301)
    pair.here.db.put("open", "running")
    pair.here.publish()
    saved = pair.table.checkpoint_info(HERE)
    for number in range(5):
        pair.here.db.put(f"unkept{number}", "running")
        pair.here.publish()
    pair.there.bookkeeper.follow()
    read = pair.there.bookkeeper._peers.ledgers[HERE].number
    assert saved is not None
    assert saved.number < read
    pair.table.expire(HERE)
    pair.advance(timedelta(days=LOG_DAYS + 1).total_seconds())
    pair.here.restart()
    pair.here.db.put("new", "running")
    pair.here.publish()
    assert pair.here.bookkeeper._own.load().number <= read
    assert {"open", "new"} <= pair.unfinished()
    entries = list(pair.table.log(HERE, after=0))
    assert {entry.life for entry in entries} == {pair.here.bookkeeper._own.load().life}
    assert entries[0].life != saved.life


def test_a_ledger_of_the_first_version_stays_readable_and_continues_in_a_life() -> None:
    """
    Entries and checkpoints of the first version have no life. A reader continues with the first life that follows them.
    """
    table = InMemoryRunsStore()
    here, there = Region(HERE, table.peer()), Region(THERE, table.peer())
    checkpoint = RegionLedger()
    for number in (1, 2):
        entry = LogEntry(number=number, at=AT, epoch=0, first_id=0, newest_id=0, dag_ids=("orders",))
        table.append(HERE, entry)
        checkpoint.apply([entry])
    assert table.save_checkpoint(HERE, checkpoint)
    third = LogEntry(number=3, at=AT, epoch=0, first_id=0, newest_id=0)
    table.append(HERE, third)
    there.bookkeeper.follow()
    assert there.bookkeeper._peers.ledgers[HERE].number == 3
    here.db.put("new", "running")
    here.publish()
    there.bookkeeper.follow()
    assert there.bookkeeper._peers.ledgers[HERE].life == here.bookkeeper._own.load().life is not None
    assert ("orders", "new") in there.bookkeeper._peers.ledgers[HERE].runs


def test_of_two_agents_that_begin_a_life_at_the_same_time_the_second_joins_the_first() -> None:
    """The second agent's first write is refused. Then it continues the life and the numbers of the first agent."""
    table = InMemoryRunsStore()
    first, second = Region(HERE, table.peer()), Region(HERE, table.peer())
    for region in (first, second):
        region.bookkeeper._own.load()
    first.bookkeeper.begin(1)
    with pytest.raises(StaleLedgerError):
        second.bookkeeper.begin(1)
    second.bookkeeper.begin(2)
    assert second.bookkeeper._own.load().life == first.bookkeeper._own.load().life
    assert [entry.number for entry in table.log(HERE, after=0)] == [1, 2]


def test_an_agent_of_a_life_that_has_ended_reads_the_new_one_before_it_writes_its_checkpoint() -> None:
    """The agent was frozen while another agent began a new life."""
    pair = Pair()
    pair.table.recreate()
    other = Region(HERE, pair.table.peer())
    other.bookkeeper.begin(1)
    life = other.bookkeeper._own.load().life
    pair.advance(301)
    with pytest.raises(StaleLedgerError):
        pair.here.bookkeeper.apply_outcomes()
    pair.here.bookkeeper.apply_outcomes()
    assert pair.here.bookkeeper._own.load().life == life
    assert pair.table.checkpoint_info(HERE) == CheckpointInfo(life=life, number=1)


def test_a_region_publishes_while_the_checkpoint_of_another_region_has_not_arrived() -> None:
    """The agent reports the unreadable checkpoint and resumes nothing from that region. It continues its own ledger."""
    pair = Pair()
    pair.here.db.put("open", "running")
    pair.here.publish()
    pair.advance(301)
    pair.here.bookkeeper.apply_outcomes()
    pair.there.restart()
    store = pair.there.store
    assert isinstance(store, InMemoryRunsStore)
    store.on_their_way = {HERE}
    with pytest.raises(IncompleteItemError, match=f"PICTURE#{HERE} manifest"):
        pair.there.bookkeeper.follow()
    pair.there.bookkeeper.begin(1)
    pair.there.db.put("open", "running")
    pair.there.publish(epoch=1)
    pair.there.db.put("open", "success")
    pair.there.publish(epoch=1)
    (run,) = pair.there.bookkeeper._own.load().runs.values()
    assert run.retained_for_peers, "the other region may have started the run, too"
    store.on_their_way = set()
    assert pair.unfinished() == {"open"}
