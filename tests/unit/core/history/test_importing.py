"""How a standby imports the history of another site."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core.history.importing import Importer
from airflow_provider_mwaa_dr.core.history.pages import HistoryPage, HistoryRun, paged
from airflow_provider_mwaa_dr.exceptions import StateAccessError, StateUnreachableError
from airflow_provider_mwaa_dr.testing import InMemoryHistoryStore, ManualClock
from tests.unit.core.history.history_db import AT, FakeHistoryDb, run

HERE, THERE = "us-east-1", "us-east-2"


class World:
    """A standby, and the pages of another site."""

    def __init__(self) -> None:
        self.clock, self.db, self.store, self.number = ManualClock(), FakeHistoryDb(), InMemoryHistoryStore(), 0
        self.restart()

    def restart(self, *, is_eventual: bool = False) -> None:
        """Let another agent lead."""
        self.importer = Importer(
            self.store, self.db, self.clock, site=HERE, peers=lambda: (HERE, THERE), successes=lambda _: (),
            is_eventual=is_eventual,
        )  # fmt: skip

    def publish(self, *runs: HistoryRun, number: int | None = None) -> None:
        for content in paged(runs) if runs else [()]:
            self.number = number or self.number + 1
            self.store.append_page(
                THERE, HistoryPage(number=self.number, at=self.clock.now(), epoch=1, progress=None, runs=content)
            )

    def work(self) -> None:
        self.clock.sleep(15)
        for _ in self.importer.steps():
            pass

    @property
    def imported(self) -> list[str]:
        return [run_id for _, run_id in self.db.written]


@pytest.fixture
def world() -> World:
    return World()


def test_each_page_is_imported_once(world: World) -> None:
    """The cursor shows what was imported: a row that was deleted stays deleted, also for another agent."""
    world.publish(run(1), run(2))
    world.publish(run(3))
    world.work()
    assert world.imported == ["r1", "r2", "r3"]
    assert world.db.notes["d", "r1"] == f"imported: this run was executed in {THERE}"
    world.db.written.clear()
    world.restart()
    world.publish(run(4))
    world.work()
    assert world.imported == ["r4"]


def test_transactions_are_short(world: World) -> None:
    """Twenty runs, and about a thousand task instances."""
    world.publish(*(run(number) for number in range(50)), run(50, tasks=600), run(51, tasks=600), run(52, tasks=2500))
    world.work()
    assert max(world.db.batches) == 20
    assert sum(world.db.batches) == 55
    assert [len(world.db.written["d", name].tasks) for name in ("r50", "r51", "r52")] == [600, 600, 2500]


def test_the_import_stops_between_two_transactions_and_continues(world: World) -> None:
    """A failover begins. The page is not complete, so its first runs are written again: a no-op."""
    world.publish(*(run(number) for number in range(50)))
    steps = world.importer.steps()
    next(steps)
    next(steps)
    steps.close()
    assert len(world.imported) == 20
    assert world.store.cursor(HERE, THERE).number == 0
    world.restart()
    world.work()
    assert len(world.imported) == 50
    assert world.store.cursor(HERE, THERE).number == 1


def test_a_run_waits_until_it_may_be_written(world: World) -> None:
    """The pages after it are imported, also by another agent."""
    world.db.waiting = {("d", "r1")}
    world.publish(run(1, tasks=2500), run(2))
    world.work()
    world.publish(run(3))
    world.work()
    assert (world.imported, world.importer.waiting) == (["r2", "r3"], 1)
    world.restart()
    world.work()
    assert world.importer.waiting == 1
    world.db.waiting = set()
    world.work()
    assert (len(world.db.written["d", "r1"].tasks), world.importer.waiting) == (2500, 0)
    world.restart()
    world.work()
    assert world.store.cursor(HERE, THERE).waiting == ()


def test_a_correction_replaces_a_run_that_waits(world: World) -> None:
    """The earlier generation is not written after the later one."""
    world.db.waiting = {("d", "r1")}
    world.publish(run(1, tasks=3))
    world.work()
    world.publish(run(1, tasks=5))
    world.work()
    world.db.waiting = set()
    world.work()
    assert len(world.db.written["d", "r1"].tasks) == 5


def test_runs_of_this_site_are_listed(world: World) -> None:
    """With the reason, also for another agent."""
    world.db.kept = {("d", "r1"): "this site has executed it"}
    world.publish(run(1), run(2))
    world.work()
    world.restart()
    world.work()
    assert world.importer.kept == ("d r1: this site has executed it",)
    assert world.imported == ["r2"]


def test_without_the_permission_to_write_a_cursor_nothing_is_imported(world: World) -> None:
    """Runs that a user deletes would come back."""
    world.publish(run(1))

    def refuse(*_: object) -> None:
        raise StateAccessError("no")

    world.store.save_cursor = refuse  # type: ignore[method-assign]
    with pytest.raises(StateAccessError):
        world.work()
    assert world.imported == []


def test_an_error_of_the_database_loses_no_run(world: World) -> None:
    """The page is imported again, and runs that wait still wait."""
    world.db.waiting = {("d", "r1")}
    world.publish(run(1), run(2))
    world.work()
    world.publish(run(3))
    world.db.error = OSError("no database")
    with pytest.raises(OSError, match="no database"):
        world.work()
    world.db.error = None
    assert world.importer.waiting == 1
    world.db.waiting = set()
    world.work()
    assert set(world.imported) == {"r1", "r2", "r3"}


def test_a_table_that_does_not_answer_is_read_again(world: World) -> None:
    """Nothing is skipped."""
    world.publish(run(1))
    world.store.unreachable = True
    with pytest.raises(StateUnreachableError):
        world.work()
    world.store.unreachable = False
    world.work()
    assert world.imported == ["r1"]


def test_a_page_that_arrives_late_is_imported(world: World) -> None:
    """In a table with eventual consistency. Pages that have expired are not waited for."""
    world.restart(is_eventual=True)
    world.publish(run(1), number=1)
    world.work()
    world.publish(run(3), number=3)
    world.work()
    assert world.imported == ["r1"]
    world.publish(run(2), number=2)
    world.work()
    assert world.imported == ["r1", "r2", "r3"]
    world.publish(run(9), number=9)
    world.clock.advance(timedelta(hours=1).total_seconds())
    world.work()
    assert world.imported[-1] == "r9"


def test_a_page_that_cannot_be_read_is_left_out(world: World) -> None:
    """The pages after it are imported."""
    damaged = HistoryPage(number=1, at=AT, epoch=0, progress=None, unreadable="damaged")
    world.store._pages[THERE] = {1: damaged, 2: replace(damaged, number=2, unreadable=None, runs=(run(1),))}
    world.work()
    assert world.imported == ["r1"]
