"""The cost of an agent's turn does not depend on the number of DAGs and runs. For the times, see tests/benchmarks."""

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
    """Return the number of statements, and the calls to the runs table."""
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
    """The whole turn of a standby's agent takes a few short statements, and the next turn takes the same."""
    from airflow_provider_mwaa_dr.plugins.metadata.schema import PARTITION_QUEUE, QUESTIONS

    region.turns(3)
    assert len(database.runs()) == 1, "one run id, in each DAG"
    queues = 1 if PARTITION_QUEUE is None else 2
    questions = 0 if QUESTIONS is None else 1
    assert cost(database, region, lambda: region.turns(1)) == (STANDBY + queues + questions, ["log"])
    bookkeeper = region.loop._leader.ledger.bookkeeper
    assert bookkeeper is not None

    def adoption() -> None:
        bookkeeper.follow()
        bookkeeper.apply_outcomes()
        bookkeeper.adopt()

    assert cost(database, region, adoption) == (0, ["log"])


def test_heads_that_are_new_are_adopted_together(database: Database, region: Region) -> None:
    """Thirty DAGs take as many statements as one DAG."""
    region.turns(3)
    quiet, _ = cost(database, region, lambda: region.turns(1))
    region.publish(interval(4, dag_id="dag_1"))
    one, _ = cost(database, region, lambda: region.turns(1))
    region.publish(*(interval(5, dag_id=f"dag_{number}") for number in range(DAGS)))
    all_of_them, calls = cost(database, region, lambda: region.turns(1))
    assert set(database.runs()) == {"scheduled__2", "scheduled__4", "scheduled__5"}
    assert quiet < one == all_of_them
    assert calls == ["log", "log"]


def test_an_active_region_with_nothing_new_reads_only_open_runs(database: Database, region: Region) -> None:
    """This holds however many runs have ended. The ledger is read once, and not written."""
    region.turns(3)
    region.promote()
    region.turns(3)
    region.complete()
    region.turns(2)
    assert cost(database, region, lambda: region.turns(1)) == (ACTIVE, ["log"])


STANDBY, ACTIVE = 4, 5
"""Short statements. Some turns take one or two more, for values that are read less often."""
