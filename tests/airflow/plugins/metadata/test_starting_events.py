"""Runs for the last events of a region that loses the role, in the installed Airflow (3.0 and later)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from airflow_provider_mwaa_dr.core.ledger import RunStatus
from tests.airflow.plugins.metadata.chains import ledger_of
from tests.airflow.plugins.metadata.test_events import A, B, Consumer, consumer, taken  # noqa: F401  (a fixture)
from tests.airflow.plugins.metadata.test_waiting_events import URIS

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

FROM_TRIGGER = {"from_trigger": True, "payload": {"message": "m"}}
NOTE = "created: events had arrived"


@pytest.fixture
def drained(consumer: Consumer) -> Consumer:  # noqa: F811
    """The consumer of both assets, which a failover has paused."""
    if consumer.schema.WATCHERS is None:
        pytest.skip("Airflow 2 has no watchers")
    consumer.database.update(consumer.database.tables.dags, is_paused=True)
    return consumer


def wait_for_any(consumer: Consumer) -> None:  # noqa: F811
    """Let the consumer run after an event of one of the assets."""
    assets = [{"asset": {"uri": uri, "name": uri, "group": "asset"}} for uri in URIS.values()]
    consumer.database.update(consumer.database.tables.dags, asset_expression={"any": assets})


def start(agent_db: Any) -> int:
    return int(agent_db.start_waiting_events(NOTE))


def new_run(database: Database, *, but: str = "") -> str:
    (run_id,) = set(database.runs()) - {but}
    return run_id


def test_a_complete_condition_becomes_a_run_that_moves_with_its_events(
    database: Database, agent_db: Any, drained: Consumer
) -> None:
    """The DAG was paused before the scheduler created the run. A repeated call creates no other one."""
    now = datetime.now(tz=timezone.utc)
    drained.store(A, now - timedelta(seconds=2), extra={"x": 1})
    drained.store(B, now - timedelta(seconds=1))
    for name in URIS:
        drained.arrive(name, at=now)
    assert (start(agent_db), start(agent_db)) == (1, 0)
    run_id = new_run(database)
    assert database.runs() == {run_id: "queued"}
    assert database.note(run_id) == f"[mwaa-dr] {NOTE}"
    assert drained.waiting() == set()
    before = drained.in_context(run_id)
    assert [event[0] for event in before[A]] == [{"x": 1}]
    run = ledger_of(agent_db, run_id, status=RunStatus.OPEN)
    drained.lose()
    assert agent_db.resume([taken(run)], "resumed") == {}
    assert drained.in_context(run_id) == before


def test_a_message_that_arrived_while_another_one_was_queued_gets_a_run(
    database: Database, agent_db: Any, drained: Consumer
) -> None:
    """Airflow would give it to the run of the next message, which the other region gets."""
    database.update(database.tables.dags, is_paused=False)
    first = drained.trigger()
    wait_for_any(drained)
    drained.store(A, datetime.now(tz=timezone.utc), extra=FROM_TRIGGER)
    assert start(agent_db) == 1
    found = drained.in_context(new_run(database, but=first))
    assert {uri: [event[0] for event in events] for uri, events in found.items()} == {A: [FROM_TRIGGER]}
    assert start(agent_db) == 0


@pytest.mark.parametrize(
    ("extra", "age_s", "source"),
    [(FROM_TRIGGER, 0, {"source_dag_id": "produces"}), ({}, 0, {}), (FROM_TRIGGER, 2 * 86400, {})],
    ids=["of a task", "of a user", "old"],
)
def test_other_events_start_no_run(
    database: Database, agent_db: Any, drained: Consumer, extra: Any, age_s: float, source: dict[str, str]
) -> None:
    """They wait in the queue if Airflow has to start a run for them."""
    wait_for_any(drained)
    at = datetime.now(tz=timezone.utc) - timedelta(seconds=age_s)
    drained.store(A, at, extra=extra, **source)
    assert start(agent_db) == 0
    assert database.runs() == {}


def test_a_half_filled_condition_stays(database: Database, agent_db: Any, drained: Consumer) -> None:
    """It ends with the region's role, and the log lists it then."""
    now = datetime.now(tz=timezone.utc)
    drained.store(A, now - timedelta(seconds=1), extra=FROM_TRIGGER)
    drained.arrive("a", at=now)
    assert start(agent_db) == 0
    assert drained.waiting() == {"orders"}


def test_an_exempt_consumer_is_left_to_airflow(database: Database, agent_db: Any, drained: Consumer) -> None:
    drained.add_consumer("by_id")
    now = datetime.now(tz=timezone.utc)
    drained.store(A, now - timedelta(seconds=1))
    for name in URIS:
        drained.arrive(name, "by_id", at=now)
    assert start(agent_db) == 0
    assert drained.waiting() == {"by_id"}


def test_an_error_of_one_consumer_stops_no_other(
    database: Database, agent_db: Any, drained: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_mwaa_dr.plugins.metadata import starting_events

    drained.add_consumer("invoices")
    now = datetime.now(tz=timezone.utc)
    drained.store(A, now - timedelta(seconds=1))
    for dag_id in ("orders", "invoices"):
        for name in URIS:
            drained.arrive(name, dag_id, at=now)
    insert = starting_events.insert_runs

    def fail(connection: Any, runs: Any, **values: Any) -> None:
        if runs[0].dag_id == "invoices":
            raise ValueError("no such version")
        insert(connection, runs, **values)

    monkeypatch.setattr(starting_events, "insert_runs", fail)
    assert start(agent_db) == 1
    with database.settings.engine.connect() as connection:
        assert connection.execute(select(database.tables.runs.c.dag_id)).scalars().all() == ["orders"]
    assert drained.waiting() == {"invoices"}


@pytest.mark.usefixtures("_migrated")
@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"all": ["a", {"any": ["x", "b"]}]}, True),
        ({"all": ["a", "x"]}, False),
        ({"any": [{"asset": {"uri": "u", "name": "a"}}, {"alias": {"name": "a"}}]}, True),
        ({"asset_ref": {"name": "b"}}, True),
        ({"alias": {"name": "a"}}, False),
        ({"all": []}, False),
        ({"all": "a"}, False),
        ({"a": 1, "b": 2}, False),
        (None, False),
    ],
)
def test_a_condition_holds_as_in_airflow(condition: Any, holds: bool) -> None:
    """A form that is not known does not hold: the events are listed."""
    from airflow_provider_mwaa_dr.plugins.metadata.starting_events import _holds

    assert _holds(condition, {"a", "b"}) is holds
