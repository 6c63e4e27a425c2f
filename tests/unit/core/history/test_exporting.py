"""What an active site exports of its history."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core.history import exporting
from airflow_provider_mwaa_dr.core.history.exporting import Exporter
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.exceptions import StateUnreachableError
from airflow_provider_mwaa_dr.testing import InMemoryHistoryStore, ManualClock
from tests.unit.core.history.history_db import FakeHistoryDb, run

SITE = "us-east-1"


class World:
    """A site with its database and the table."""

    def __init__(self) -> None:
        self.clock, self.db, self.store = ManualClock(), FakeHistoryDb(), InMemoryHistoryStore()
        self.may_write = True
        self.unfinished: Collection[RunKey] = ()
        self.restart()

    def restart(self) -> None:
        """Let another agent lead."""
        self.exporter = Exporter(self.store, self.db, self.clock, site=SITE, days=30)

    def steps(self, times: int = 1) -> bool:
        more = False
        for _ in range(times):
            self.clock.sleep(3)
            more = self.exporter.step(1, may_write=lambda: self.may_write, unfinished=lambda: self.unfinished)
        return more

    def now(self, number: int, **values: object) -> object:
        return run(number, ended_at=self.clock.now(), **values)  # type: ignore[arg-type]

    @property
    def exported(self) -> list[str]:
        found, after = [], 0
        while pages := self.store.pages(SITE, after=after):
            found += [each.run.run_id for page in pages for each in page.runs]
            after = pages[-1].number
        return found


@pytest.fixture
def world() -> World:
    return World()


def test_a_run_is_exported_when_it_has_ended(world: World) -> None:
    """Also one that began and ended between two steps. Each run once."""
    world.db.begin(1)
    world.steps()
    assert world.exported == []
    world.db.end(world.now(1), world.now(2))
    world.steps(3)
    assert world.exported == ["r1", "r2"]


def test_a_run_that_ends_again_is_exported_again(world: World) -> None:
    """A user cleared it. The later page corrects the earlier one."""
    world.steps()
    for tasks in (1, 2):
        world.db.begin(1)
        world.steps()
        world.db.end(world.now(1, tasks=tasks))
        world.steps()
    pages = world.store.pages(SITE, after=0)
    assert [len(page.runs[0].tasks) for page in pages if page.runs] == [1, 2]


def test_older_history_is_exported_once_and_slowly(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that end now come first. Runs that are too old, or not of this site, are not exported."""
    monkeypatch.setattr(exporting, "BATCH", 3)
    world.clock.advance(86_400 * 100)
    world.db.end(*(world.now(number) for number in range(1, 9)))
    world.db.end(run(9, ended_at=world.clock.now() - timedelta(days=31)))
    world.db.foreign = {4}
    world.db.begin(20)
    assert world.steps() is True
    assert world.exported == ["r1", "r2", "r3"]
    world.db.end(world.now(20))
    world.steps()
    assert world.exported == ["r1", "r2", "r3", "r20"]
    while world.steps():
        pass
    assert world.exported == ["r1", "r2", "r3", "r20", "r5", "r6", "r7", "r8"]
    assert world.exporter.is_complete
    world.restart()
    world.steps(5)
    assert len(world.exported) == 8 + 8, "within five minutes of the last page, an end may have been missed"


def test_another_agent_continues_where_the_last_page_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It also exports what ended while no agent was there."""
    monkeypatch.setattr(exporting, "BATCH", 2)
    world.db.end(*(world.now(number) for number in range(1, 7)))
    world.clock.advance(3600)
    world.steps(2)
    assert world.exported == ["r1", "r2", "r3", "r4"]
    world.db.end(world.now(7))
    world.restart()
    while world.steps():
        pass
    assert world.exported == ["r1", "r2", "r3", "r4", "r7", "r5", "r6"]


def test_runs_with_very_many_tasks_are_exported_in_several_steps(world: World) -> None:
    """The database gives only the first of them in one answer."""
    world.steps()
    for number in range(1, 6):
        world.db.begin(number)
    world.steps()
    world.db.most = 2
    world.db.end(*(world.now(number) for number in range(1, 6)))
    assert world.steps() is True
    assert world.exported == ["r1", "r2"]
    while world.steps():
        pass
    assert world.exported == ["r1", "r2", "r3", "r4", "r5"]


def test_nothing_is_written_without_the_role(world: World) -> None:
    """The state is read after the rows. When the site has the role again, nothing is missing."""
    world.steps()
    world.db.begin(1)
    world.steps()
    world.db.end(world.now(1))
    world.may_write = False
    world.steps(2)
    assert world.exported == []
    world.may_write = True
    world.steps()
    assert world.exported == ["r1"]


def test_a_run_that_the_ledger_lists_as_unfinished_is_not_exported(world: World) -> None:
    """A failover has stopped it, or the ledger publishes its end in the next turn."""
    world.steps()
    world.db.begin(1)
    world.steps()
    world.db.end(world.now(1))
    world.unfinished = {("d", "r1")}
    world.steps(3)
    assert world.exported == []
    world.unfinished = ()
    world.steps()
    assert world.exported == ["r1"]


def test_a_run_waits_for_its_running_tasks_for_a_while(world: World) -> None:
    """A user has marked it as failed. Its tasks end some seconds later."""
    world.steps()
    world.db.begin(1)
    world.steps()
    world.db.end(world.now(1, state="running"))
    world.steps(5)
    assert world.exported == []
    world.db.end(world.now(1, state="failed"))
    world.steps()
    assert world.exported == ["r1"]
    world.db.begin(2)
    world.steps()
    world.db.end(world.now(2, state="running"))
    world.steps(12)
    assert world.exported == ["r1", "r2"], "the task never ends"


def test_a_run_is_exported_again_after_an_answer_was_lost(world: World) -> None:
    """Importing it twice is a no-op."""
    world.steps()
    world.db.begin(1)
    world.steps()
    world.db.end(world.now(1))
    world.store.unreachable = True
    with pytest.raises(StateUnreachableError):
        world.steps()
    world.store.unreachable = False
    while world.steps():
        pass
    assert set(world.exported) == {"r1"}
