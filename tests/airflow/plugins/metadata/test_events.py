"""The events of a run that assets or datasets triggered go with it to another region, in the installed Airflow."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunEvent, RunStatus
from tests.airflow.plugins.metadata.chains import ledger_of
from tests.airflow.plugins.metadata.test_waiting_events import URIS, Events

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

A, B = URIS.values()
SOURCE = {"source_dag_id": "produces", "source_task_id": "t", "source_run_id": "r ä", "source_map_index": 3}
EXTRA = {"rows": 7, "text": 'a "quoted" ä', "nested": [{"x": None}, True, 1.5]}


class Consumer(Events):
    """The consumer of two assets, and the events that Airflow stores."""

    def __init__(self, database: Database) -> None:
        from airflow_provider_mwaa_dr.plugins.metadata import schema

        self.schema = schema
        with database.settings.engine.begin() as connection:
            for table in (schema.EVENT_ALIASES, schema.RUN_EVENTS, schema.EVENTS, schema.ALIASES):
                connection.execute(table.delete())
            connection.execute(schema.ASSET_CONSUMERS.delete())
        super().__init__(database)

    def add_consumer(self, dag_id: str, *, tags: tuple[str, ...] = ()) -> None:
        """Add a DAG that runs after an event of each asset, with the references that the DAG processor stores."""
        super().add_consumer(dag_id, tags=tags)
        table, long_ago = self.schema.ASSET_CONSUMERS, datetime(2026, 1, 1, tzinfo=timezone.utc)
        column = "asset_id" if "asset_id" in table.c else "dataset_id"
        with self.database.settings.engine.begin() as connection:
            connection.execute(self.database.tables.dags.update().values(max_active_runs=16))
            for asset_id in self.ids.values():
                values = {column: asset_id, "dag_id": dag_id, "created_at": long_ago, "updated_at": long_ago}
                connection.execute(table.insert().values(values))

    def store(self, uri: str, at: datetime, *, extra: Any = None, **source: Any) -> int:
        values = {self.schema.EVENT_ASSET.name: self.ids[uri], "timestamp": at, "extra": extra or {}, **source}
        with self.database.settings.engine.begin() as connection:
            return int(connection.execute(self.schema.EVENTS.insert().values(values)).inserted_primary_key[0])

    def trigger(self, *, extra: Any = EXTRA) -> str:
        """Let an event of each asset arrive, and Airflow's scheduler create the run; return its id."""
        now = datetime.now(tz=timezone.utc)
        self.store(A, now - timedelta(seconds=9), extra=extra, **SOURCE)
        self.store(A, now - timedelta(seconds=8))
        self.store(B, now - timedelta(seconds=7))
        before = set(self.database.runs())
        for name in URIS:
            self.arrive(name, at=now)
        self.runs_of_scheduler()
        (run_id,) = set(self.database.runs()) - before
        return run_id

    def lose(self) -> None:
        """Become another region: the same DAGs and assets, no runs and no events."""
        self.database.forget_history()
        with self.database.settings.engine.begin() as connection:
            for table in (self.schema.EVENT_ALIASES, self.schema.RUN_EVENTS, self.schema.EVENTS):
                connection.execute(table.delete())

    def count(self) -> tuple[int, int]:
        """Return how many events there are, and how many associations with runs."""
        with self.database.settings.engine.connect() as connection:
            return tuple(  # type: ignore[return-value]
                len(connection.execute(table.select()).all()) for table in (self.schema.EVENTS, self.schema.RUN_EVENTS)
            )

    def in_context(self, run_id: str, dag_id: str = "orders") -> dict[str, list[tuple[Any, ...]]]:
        """Return what a task of a run finds in the context: extra and source of each event, by URI."""
        session = self.database.settings.Session()
        try:
            of_run = select(self.database.DagRun).filter_by(dag_id=dag_id, run_id=run_id)
            run = session.scalars(of_run).one()
            run.start_date = datetime.now(tz=timezone.utc)
            return {uri: [_seen(event) for event in events] for uri, events in _context(session, run).items()}
        finally:
            self.database.settings.Session.remove()


def _seen(event: Any) -> tuple[Any, ...]:
    return (event.extra, *(getattr(event, name) for name in SOURCE), event.timestamp)


def _context(session: Any, run: Any) -> dict[str, Any]:
    """Return ``triggering_asset_events``, or ``triggering_dataset_events``, as Airflow makes it for a task."""
    try:
        from airflow.api_fastapi.execution_api.datamodels.taskinstance import DagRun
        from airflow.sdk.execution_time.comms import AssetEventDagRunReferenceResult
        from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor
    except ImportError:
        from airflow.models.taskinstance import TaskInstance

        run.dag = run.get_dag() if run.dag is not None else _task_dag(run.dag_id)
        task_instance = TaskInstance(run.dag.get_task("one"), run_id=run.run_id)
        task_instance.dag_run = run
        return dict(task_instance.get_template_context(session=session)["triggering_dataset_events"])
    # As Airflow's API server loads them for the task.
    for event in run.consumed_asset_events:
        assert (event.asset, event.source_aliases) is not None
    answer = DagRun.model_validate(run, from_attributes=True)
    found = TriggeringAssetEventsAccessor.build(
        AssetEventDagRunReferenceResult.from_asset_event_dag_run_reference(event)
        for event in answer.consumed_asset_events
    )
    return {getattr(asset, "uri", None) or asset.name: list(found[asset]) for asset in found}


def _task_dag(dag_id: str) -> Any:
    from tests.airflow.plugins.metadata.test_waiting_events import _consumer

    return _consumer(dag_id)


@pytest.fixture
def consumer(database: Database, agent_db: Any) -> Consumer:
    found = Consumer(database)
    found.add_consumer("orders")
    return found


def taken(run: LedgerRun) -> LedgerRun:
    return replace(run, taken_at=datetime.now(tz=timezone.utc), epoch=2)


def test_a_task_of_a_resumed_run_finds_the_events(database: Database, agent_db: Any, consumer: Consumer) -> None:
    """Asset, extra, time and source of each event. No consumer is queued, and a repeated call is a no-op."""
    run_id = consumer.trigger()
    before = consumer.in_context(run_id)
    assert [len(before[uri]) for uri in (A, B)] == [2, 1]
    assert before[A][0][:-1] == (EXTRA, *SOURCE.values())
    run = ledger_of(agent_db, run_id, status=RunStatus.INTERRUPTED)
    consumer.lose()
    for _ in range(2):
        assert agent_db.cannot_resume([run]) == {}
        assert agent_db.resume([taken(run)], "resumed") == {}
    assert consumer.in_context(run_id) == before
    assert consumer.count() == (3, 3)
    assert consumer.waiting() == set()
    assert ledger_of(agent_db, run_id, status=RunStatus.OPEN).events == run.events


def test_an_event_of_two_runs_is_inserted_once(database: Database, agent_db: Any, consumer: Consumer) -> None:
    """Two consumers of one asset were interrupted."""
    consumer.add_consumer("invoices")
    run_id = consumer.trigger()
    run = ledger_of(agent_db, run_id, status=RunStatus.INTERRUPTED)
    consumer.lose()
    other = replace(run, dag_id="invoices", run_id="other")
    assert agent_db.resume([taken(run), taken(other)], "resumed") == {}
    assert consumer.count() == (3, 6)
    assert consumer.in_context("other", "invoices") == consumer.in_context(run_id)


def test_a_run_that_returns_to_its_own_region_keeps_its_events(
    database: Database, agent_db: Any, consumer: Consumer
) -> None:
    """The standby closed it, and its events stayed."""
    run_id = consumer.trigger()
    before = consumer.in_context(run_id)
    run = ledger_of(agent_db, run_id, status=RunStatus.INTERRUPTED)
    agent_db.close_runs("closed: standby")
    assert agent_db.resume([taken(run)], "resumed") == {}
    assert database.runs()[run_id] == "queued"
    assert (consumer.in_context(run_id), consumer.count()) == (before, (3, 3))


@pytest.mark.parametrize("era", ["own", "2", "3"])
def test_the_next_run_gets_only_later_events(database: Database, agent_db: Any, consumer: Consumer, era: str) -> None:
    """
    Also of a consumer whose run ended in the other region: its run is adopted, and Airflow continues after it.

    Airflow 2 gives the run the interval of the run that caused the event, which ended before the event.
    """
    run_id = consumer.trigger()
    interrupted = ledger_of(agent_db, run_id, status=RunStatus.INTERRUPTED)
    at = interrupted.run_after or interrupted.logical_date
    assert at is not None
    if era == "2":
        interval = at - timedelta(minutes=5)
        interrupted = replace(
            interrupted, run_type="dataset_triggered", run_after=None, logical_date=at,
            data_interval_start=interval, data_interval_end=interval,
        )  # fmt: skip
    elif era == "3":
        interrupted = replace(
            interrupted, run_type="asset_triggered", run_after=at, logical_date=None,
            data_interval_start=None, data_interval_end=None,
        )  # fmt: skip
    consumer.add_consumer("invoices")
    ended = replace(interrupted, dag_id="invoices", status=RunStatus.SUCCESS, events=None)
    consumer.lose()
    assert agent_db.resume([taken(interrupted)], "resumed") == {}
    assert agent_db.adopt([ended], "adopted") == 1
    now = datetime.now(tz=timezone.utc)
    consumer.store(A, now, extra={"new": True})
    for dag_id in ("orders", "invoices"):
        for name in URIS:
            consumer.arrive(name, dag_id, at=now + timedelta(seconds=1))
    consumer.runs_of_scheduler()
    runs = database.tables.runs.c
    for dag_id in ("orders", "invoices"):
        with database.settings.engine.connect() as connection:
            of_dag = select(runs.run_id).where(runs.dag_id == dag_id, runs.run_id != run_id)
            (new,) = connection.execute(of_dag).scalars()
        found = consumer.in_context(new, dag_id)
        assert {uri: [event[0] for event in events] for uri, events in found.items()} == {A: [{"new": True}]}


def test_a_run_whose_asset_is_not_in_the_region_is_refused(
    database: Database, agent_db: Any, consumer: Consumer
) -> None:
    """The DAG file is older there. The run waits, and starts when the asset exists."""
    run_id = consumer.trigger()
    run = ledger_of(agent_db, run_id, status=RunStatus.INTERRUPTED)
    consumer.lose()
    assert run.events is not None
    missing = replace(run, events=(*run.events, replace(run.events[0], uri="file:///c", name="file:///c")))
    aliased = replace(run, events=(replace(run.events[0], aliases=("an alias",)),))
    why = "its events cannot be inserted: the asset file:///c is not in this region"
    assert agent_db.cannot_resume([missing]) == {run.key: why}
    assert agent_db.resume([taken(missing)], "resumed") == {run.key: why}
    why = "its events cannot be inserted: the asset alias an alias is not in this region"
    assert agent_db.cannot_resume([aliased]) == {run.key: why}
    assert (database.runs(), consumer.count()) == ({}, (0, 0))


def test_an_alias_is_kept(database: Database, agent_db: Any, consumer: Consumer) -> None:
    """A task may read the events of an alias."""
    run_id = consumer.trigger()
    schema = consumer.schema
    with database.settings.engine.begin() as connection:
        groups = {"group": ""} if "group" in schema.ALIASES.c else {}
        alias = connection.execute(schema.ALIASES.insert().values(name="alias", **groups)).inserted_primary_key[0]
        event = connection.execute(select(schema.EVENTS.c.id).order_by(schema.EVENTS.c.id)).scalars().first()
        connection.execute(schema.EVENT_ALIASES.insert().values(alias_id=alias, event_id=event))
    run = ledger_of(agent_db, run_id, status=RunStatus.INTERRUPTED)
    consumer.lose()
    agent_db.resume([taken(run)], "resumed")
    again = ledger_of(agent_db, run_id, status=RunStatus.OPEN)
    assert again.events is not None
    assert [event.aliases for event in again.events] == [("alias",), (), ()]


@pytest.mark.parametrize("era", ["2", "3"])
def test_events_of_the_other_major_version_find_their_asset(
    database: Database, agent_db: Any, consumer: Consumer, era: str
) -> None:
    """Airflow 2 has only the URI of a dataset, Airflow 3 a name and a group, too."""
    run_id = consumer.trigger()
    run = ledger_of(agent_db, run_id, status=RunStatus.INTERRUPTED)
    before = consumer.in_context(run_id)
    consumer.lose()
    names = {"name": None, "group": None} if era == "2" else {"name": None, "group": "asset"}
    events = tuple(replace(event, **names) for event in run.events or ())
    if era == "3":
        events = tuple(replace(event, name=event.uri) for event in events)
    run_type = "dataset_triggered" if era == "2" else "asset_triggered"
    other = replace(run, run_type=run_type, events=events, run_after=run.run_after or run.logical_date)
    assert agent_db.resume([taken(other)], "resumed") == {}
    assert consumer.in_context(run_id) == before


@pytest.mark.parametrize(
    ("tagged", "extra", "is_lost"), [("orders", EXTRA, True), ("produces", EXTRA, True), ("orders", None, False)]
)
def test_the_extra_of_a_dag_with_the_tag_for_secret_conf_is_in_no_ledger(
    database: Database, agent_db: Any, consumer: Consumer, tagged: str, extra: Any, is_lost: bool
) -> None:
    """The tag of the consumer or of the producer. An event without extra has no secret."""
    run_id = consumer.trigger(extra=extra)
    if tagged == "produces":
        database.add_dag("produces")
    with database.settings.engine.begin() as connection:
        connection.execute(database.tables.tags.insert().values(dag_id=tagged, name="dr:no-conf"))
    run = ledger_of(agent_db, run_id, status=RunStatus.INTERRUPTED)
    assert run.events_lost == (f"the DAG {tagged} is tagged dr:no-conf" if is_lost else None)
    assert (run.events is None) == is_lost
    assert "quoted" not in repr(run)


def test_events_that_cannot_be_stored_are_listed(database: Database, agent_db: Any, consumer: Consumer) -> None:
    """They are too large, or their asset was deleted. The region publishes why."""
    large = consumer.trigger(extra={"x": "y" * 200_000})
    assert "the limit is 200000" in (ledger_of(agent_db, large, status=RunStatus.OPEN).events_lost or "")
    with database.settings.engine.begin() as connection:
        connection.execute(consumer.schema.ASSETS.delete())
    why = ledger_of(agent_db, large, status=RunStatus.OPEN).why_without_events
    assert why == "they cannot be read (ValueError: the asset of an event was deleted)"


def test_other_runs_have_no_events(database: Database, agent_db: Any, consumer: Consumer) -> None:
    """A run without events that events triggered is not the same as a run that they did not trigger."""
    database.add_run("orders", "m", state="running")
    manual = ledger_of(agent_db, "m", status=RunStatus.OPEN)
    assert (manual.events, manual.why_without_events) == (None, None)
    run_id = consumer.trigger()
    with database.settings.engine.begin() as connection:
        connection.execute(consumer.schema.RUN_EVENTS.delete())
    assert ledger_of(agent_db, run_id, status=RunStatus.OPEN).events == ()
    assert RunEvent(uri="u", name=None, group=None, at=datetime.now(tz=timezone.utc), extra="{}").aliases == ()
