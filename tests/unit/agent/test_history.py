"""When the agent exports, imports, or does neither."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.agent.history import HistoryKeeper
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.gate import View
from airflow_provider_mwaa_dr.core.history.pages import HistoryPage
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey
from airflow_provider_mwaa_dr.core.state import Phase, initial
from airflow_provider_mwaa_dr.exceptions import StateAccessError
from airflow_provider_mwaa_dr.testing import InMemoryHistoryStore, InMemoryStateStore, ManualClock
from tests.unit.core.history.history_db import AT, FakeHistoryDb, run

HERE, THERE = "us-east-1", "us-east-2"


class Ledger:
    unfinished: Collection[RunKey] | None = ()

    def last_successes(self, dag_ids: Collection[str]) -> Sequence[LedgerRun]:
        return ()


class Guard(AbstractContextManager[object]):
    """Counts how often it is entered, and shows whether the database is used outside."""

    entered = 0
    is_entered = False

    def __enter__(self) -> None:
        self.entered += 1
        self.is_entered = True

    def __exit__(self, *_: object) -> None:
        self.is_entered = False


class Site:
    """A site with its agent."""

    def __init__(self, active: str) -> None:
        self.clock, self.db, self.store = ManualClock(), FakeHistoryDb(), InMemoryHistoryStore()
        self.state = initial(active, lease_s=60, by="t", at=AT)
        self.states = InMemoryStateStore(self.state, regions=(HERE, THERE))
        self.ledger, self.guard = Ledger(), Guard()
        self.is_leading = True
        self.reconciled: int | None = 0
        self.keeper = HistoryKeeper(
            self.store, self.db, self.clock, states=self.states, guard=self.guard, era=None,
            config=DRConfig(region=HERE, environments={}, history_days=30),
        )  # fmt: skip

    def steps(self, times: int = 4, every_s: float = 1.0) -> None:
        for _ in range(times):
            self.clock.sleep(every_s)
            view = View(
                state=self.state, read_at=self.clock.monotonic(), reconciled_epoch=self.reconciled,
                registered=frozenset({HERE, THERE}), confirmed_at=self.clock.monotonic(),
            )  # fmt: skip
            self.keeper.step(view, peers=(THERE,), is_leading=self.is_leading, ledger=self.ledger)

    @property
    def exported(self) -> int:
        return sum(len(page.runs) for page in self.store.pages(HERE, after=0))

    def publish_there(self, *numbers: int) -> None:
        runs = tuple(run(number) for number in numbers)
        page = HistoryPage(number=len(self.store.pages(THERE, after=0)) + 1, at=AT, epoch=0, progress=None, runs=runs)
        self.store.append_page(THERE, page)


def test_the_active_site_exports_and_imports_nothing() -> None:
    """Its own runs, and none of another site."""
    site = Site(HERE)
    site.db.end(run(1, ended_at=site.clock.now()))
    site.publish_there(2)
    site.steps(10)
    assert (site.exported, site.db.written, site.keeper.error) == (1, {}, None)
    assert site.keeper.texts == ("runs exported since this scheduler started: 1",)


def test_a_standby_imports_and_exports_nothing() -> None:
    """Each use of the database is inside the guard against forks, and short."""
    site = Site(THERE)
    site.db.end(run(1))
    site.publish_there(*range(2, 60))
    site.steps(10)
    assert (site.exported, len(site.db.written)) == (0, 58)
    assert site.guard.entered == len(site.db.batches) == 3
    assert site.keeper.texts == ("runs imported since this scheduler started: 58",)


def test_the_import_stops_at_a_claim() -> None:
    """It stops between two transactions. After the failover, it continues if the site is a standby."""
    site = Site(THERE)
    site.publish_there(*range(100))
    site.steps(3)
    imported = len(site.db.written)
    assert 0 < imported < 100
    steady = site.state
    site.state = replace(steady, phase=Phase.DRAINING)
    site.steps(10)
    assert len(site.db.written) == imported
    site.state = steady
    site.steps(20)
    assert len(site.db.written) == 100


@pytest.mark.parametrize("why", ["not leading", "not reconciled", "no ledger", "a failover", "no role"])
@pytest.mark.parametrize("active", [HERE, THERE])
def test_nothing_is_copied_otherwise(why: str, active: str) -> None:
    """Another agent leads, or the site's role is not settled."""
    site = Site(active)
    site.db.end(run(1, ended_at=site.clock.now()))
    site.publish_there(2)
    if why == "not leading":
        site.is_leading = False
    elif why == "not reconciled":
        site.reconciled = None
    elif why == "no ledger":
        site.ledger = None  # type: ignore[assignment]
    elif why == "a failover":
        site.state = replace(site.state, phase=Phase.PROMOTING)
    else:
        site.state = replace(site.state, active_region="eu-west-1")
    site.steps(10)
    assert (site.exported, site.db.written, site.guard.entered) == (0, {}, 0)


def test_an_active_site_whose_ledger_is_not_read_exports_nothing() -> None:
    """It does not know yet which runs a failover has stopped."""
    site = Site(HERE)
    site.db.end(run(1, ended_at=site.clock.now()))
    site.ledger.unfinished = None
    site.steps(5)
    assert site.exported == 0
    site.ledger.unfinished = ()
    site.steps(5)
    assert site.exported == 1


def test_an_agent_that_does_not_know_yet_that_it_lost_the_role_writes_nothing() -> None:
    """It reads the state after the rows."""
    site = Site(HERE)
    site.db.end(run(1, ended_at=site.clock.now()))
    site.states._table.state = replace(site.state, active_region=THERE, epoch=1, version=9)
    site.steps(10)
    assert site.exported == 0


@pytest.mark.parametrize("active", [HERE, THERE])
def test_without_permissions_the_history_is_off_and_says_so(active: str, caplog: pytest.LogCaptureFixture) -> None:
    """No error is raised, the log has one warning, and the table is asked only every ten minutes."""
    site = Site(active)
    site.db.end(run(1, ended_at=site.clock.now()))
    site.publish_there(2)
    site.store.refusal = StateAccessError("Could not write the history: AccessDeniedException.")
    calls = len(site.store.calls)
    with caplog.at_level(logging.WARNING):
        site.steps(60)
    assert "AccessDeniedException" in (site.keeper.error or "")
    assert len(site.store.calls) == calls + 1
    assert len(caplog.records) == 1
    site.store.refusal = None
    site.steps(10, every_s=100)
    assert site.keeper.error is None
    assert (site.exported, len(site.db.written)) == ((1, 0) if active == HERE else (0, 1))


def test_an_error_of_the_database_is_reported_and_does_not_end_the_agent() -> None:
    """The next attempt is half a minute later."""
    site = Site(THERE)
    site.publish_there(1)
    site.db.error = OSError("no database")
    site.steps(5)
    assert site.keeper.error == "OSError: no database"
    site.db.error = None
    site.steps(40)
    assert (site.keeper.error, len(site.db.written)) == (None, 1)


def test_runs_that_are_not_imported_are_listed() -> None:
    """The last ones, with the reason."""
    site = Site(THERE)
    site.db.kept = {("d", "r1"): "this site has executed a run with the same id"}
    site.publish_there(1, 2)
    site.steps(5)
    assert site.keeper.texts == (
        "runs imported since this scheduler started: 1",
        "not imported: d r1: this site has executed a run with the same id",
    )
