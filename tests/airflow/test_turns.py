"""What a turn of the agent costs does not depend on how many DAGs and runs there are; times: tests/benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.airflow.region import Region, interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

DAGS = 30


@pytest.fixture
def region(database: Database) -> Region:
    for number in range(DAGS):
        database.add_dag(f"dag_{number}")
    region = Region(database)
    region.publish(*(interval(day, dag_id=f"dag_{number}") for day in range(3) for number in range(DAGS)))
    return region


def cost(database: Database, region: Region, act: Callable[[], object]) -> tuple[int, list[str]]:
    """Return the number of statements, and the calls of the runs table."""
    from sqlalchemy import event

    statements: list[str] = []

    def count(*args: object) -> None:
        statements.append(str(args[2]))

    region.runs.calls.clear()
    event.listen(database.settings.engine, "before_cursor_execute", count)
    try:
        act()
    finally:
        event.remove(database.settings.engine, "before_cursor_execute", count)
    return len(statements), list(region.runs.calls)


def test_adoption_with_nothing_new_is_one_query_of_the_ledger_and_none_of_the_database(
    database: Database, region: Region
) -> None:
    """The whole turn of a standby's agent has a few short statements, and as many next time."""
    region.turns(3)
    assert len(database.runs()) == 1, "one run id, in each DAG"
    assert cost(database, region, lambda: region.turns(1)) == (STANDBY, ["log"])
    books = region.loop._bookkeeper
    assert books is not None

    def adoption() -> None:
        books.follow()
        books.apply_outcomes()
        books.adopt()

    assert cost(database, region, adoption) == (0, ["log"])


def test_heads_that_are_new_are_adopted_together(database: Database, region: Region) -> None:
    """As many statements for one DAG as for thirty."""
    region.turns(3)
    quiet, _ = cost(database, region, lambda: region.turns(1))
    region.publish(interval(4, dag_id="dag_1"))
    one, _ = cost(database, region, lambda: region.turns(1))
    region.publish(*(interval(5, dag_id=f"dag_{number}") for number in range(DAGS)))
    all_of_them, calls = cost(database, region, lambda: region.turns(1))
    assert set(database.runs()) == {"scheduled__2", "scheduled__4", "scheduled__5"}
    assert quiet < one == all_of_them
    assert calls == ["log", "log"]


def test_an_active_region_with_nothing_new_asks_for_what_is_open(database: Database, region: Region) -> None:
    """However many have ended; the ledger is read once, and not written."""
    region.turns(3)
    region.promote()
    region.turns(3)
    region.complete()
    region.turns(2)
    assert cost(database, region, lambda: region.turns(1)) == (ACTIVE, ["log"])


STANDBY, ACTIVE = 4, 5
"""Short statements; one or two more now and then, for what is looked at less often."""
