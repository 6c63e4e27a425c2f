"""
The events of assets (datasets in Airflow 2) that triggered a run.

A run that is resumed in another region gets its events: a task that reads ``triggering_asset_events`` would otherwise
find none, and end without its work. Only the rows of the events are inserted. They queue no consumer.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, null, select, tuple_

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.bookkeeping import RunRow
from airflow_provider_mwaa_dr.core.config import NO_CONF_TAG
from airflow_provider_mwaa_dr.core.ledger import EVENT_TRIGGERED, LedgerRun, RunEvent, RunKey
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    ALIASES,
    ASSETS,
    EVENT_ALIASES,
    EVENT_ASSET,
    EVENTS,
    RUN_EVENTS,
    RUNS,
    TAGS,
    existing_columns,
)

_MANY = 500
"""Runs, events or assets in one statement."""
_SOURCE = ("source_dag_id", "source_task_id", "source_run_id", "source_map_index")

Found = tuple["tuple[RunEvent, ...] | None", "str | None"]
"""The events of a run, or the reason why they cannot be stored."""


def events_of(session: Any, rows: Sequence[RunRow]) -> dict[int, Found]:
    """Return the events of those runs that events triggered, by the ids of their rows."""
    triggered = [row for row in rows if row.run_type in EVENT_TRIGGERED]
    if not triggered:
        return {}
    connection = session.connection()
    secret = _with_tag(connection, {row.dag_id for row in triggered})
    found: dict[int, Found] = {}
    for row in triggered:
        try:
            with session.begin_nested():
                events = _read(connection, row.id)
        except Exception as error:  # the database has values that Airflow cannot read
            found[row.id] = None, f"they cannot be read ({type(error).__name__}: {error})"
            continue
        secret |= _with_tag(connection, {each.source_dag_id for each in events if each.source_dag_id} - secret)
        found[row.id] = _storable(row, events, secret)
    return found


def _storable(row: RunRow, events: Sequence[RunEvent], secret: Collection[str]) -> Found:
    """Return the events, unless a DAG with the tag for secret conf has put anything into one, or reads it."""
    full = [event for event in events if event.extra != "{}"]
    tagged = {each for each in (row.dag_id, *(event.source_dag_id or "" for event in full)) if each in secret}
    if full and tagged:
        return None, f"the DAG {min(tagged)} is tagged {NO_CONF_TAG}"
    return tuple(events), None


def _with_tag(connection: Any, dag_ids: Collection[str]) -> set[str]:
    query = select(TAGS.c.dag_id).where(TAGS.c.dag_id.in_(sorted(dag_ids)), TAGS.c.name == NO_CONF_TAG)
    return set(connection.execute(query).scalars()) if dag_ids else set()


def _column(table: Any, name: str) -> Any:
    return (table.c[name] if name in table.c else null()).label(name)


def _read(connection: Any, run_id: int) -> list[RunEvent]:
    """
    Return the events of one run, oldest first.

    :raises ValueError, TypeError: one of them is not JSON, or its asset was deleted.
    """
    rows = connection.execute(
        select(
            EVENTS.c.id, EVENTS.c.timestamp, EVENTS.c.extra, ASSETS.c.uri, _column(ASSETS, "name"),
            _column(ASSETS, "group"), _column(EVENTS, "partition_key"), *(EVENTS.c[name] for name in _SOURCE),
        )
        .select_from(RUN_EVENTS.join(EVENTS, EVENTS.c.id == RUN_EVENTS.c.event_id))
        .outerjoin(ASSETS, ASSETS.c.id == EVENT_ASSET)
        .where(RUN_EVENTS.c.dag_run_id == run_id)
        .order_by(EVENTS.c.timestamp, EVENTS.c.id)
    ).all()  # fmt: skip
    if any(row.uri is None for row in rows):
        raise ValueError("the asset of an event was deleted")
    aliases: dict[int, list[str]] = defaultdict(list)
    for ids in batched([row.id for row in rows], _MANY):
        of_events = select(EVENT_ALIASES.c.event_id, ALIASES.c.name).join(
            ALIASES, ALIASES.c.id == EVENT_ALIASES.c.alias_id
        )
        for event_id, name in connection.execute(of_events.where(EVENT_ALIASES.c.event_id.in_(ids))):
            aliases[event_id].append(name)
    return [
        RunEvent(
            uri=row.uri,
            name=row.name,
            group=row.group,
            at=row.timestamp,
            extra=json.dumps(row.extra or {}, allow_nan=False),
            partition_key=row.partition_key,
            aliases=tuple(sorted(aliases[row.id])),
            **{name: getattr(row, name) for name in _SOURCE},
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class _Names:
    """The assets and aliases of this region."""

    assets: dict[str, list[Any]]
    aliases: dict[str, int]

    @classmethod
    def of(cls, connection: Any, events: Collection[RunEvent]) -> _Names:
        assets: dict[str, list[Any]] = defaultdict(list)
        for uris in batched(sorted({event.uri for event in events}), _MANY):
            query = select(ASSETS.c.id, ASSETS.c.uri, _column(ASSETS, "name"))
            for row in connection.execute(query.where(ASSETS.c.uri.in_(uris))):
                assets[row.uri].append(row)
        aliases: dict[str, int] = {}
        for names in batched(sorted({alias for event in events for alias in event.aliases}), _MANY):
            found = connection.execute(select(ALIASES.c.name, ALIASES.c.id).where(ALIASES.c.name.in_(names)))
            aliases |= {row.name: row.id for row in found}
        return cls(assets, aliases)

    def asset_of(self, event: RunEvent) -> int | None:
        """Return the asset of an event. Airflow 2 has only URIs; several assets of Airflow 3 may have the same one."""
        same = self.assets.get(event.uri, [])
        named = [row for row in same if None in {row.name, event.name} or row.name == event.name]
        return int(named[0].id) if len(named) == 1 else None

    def why_missing(self, event: RunEvent) -> str | None:
        """Return what this region does not have of an event; None if it has all."""
        if self.asset_of(event) is None:
            return f"the asset {event.name or event.uri} is not in this region"
        missing = [alias for alias in event.aliases if alias not in self.aliases]
        return f"the asset alias {missing[0]} is not in this region" if missing else None


def why_no_events(connection: Any, runs: Sequence[LedgerRun]) -> dict[RunKey, str]:
    """Return the runs whose events this region cannot insert, with the reason."""
    names = _Names.of(connection, [event for run in runs for event in run.events or ()])
    refused = {}
    for run in runs:
        why = next((why for event in run.events or () if (why := names.why_missing(event)) is not None), None)
        if why is not None:
            refused[run.key] = f"its events cannot be inserted: {why}"
    return refused


def add_events(connection: Any, runs: Sequence[LedgerRun]) -> None:
    """
    Give runs, which have a row, their events; repeatable. A run that has events keeps them.

    An event that two of the runs have is inserted once, and so is an event that was inserted before.

    :param runs: none of them is in :func:`why_no_events`.
    """
    runs = [run for run in runs if run.events]
    if not runs:
        return
    names = _Names.of(connection, [event for run in runs for event in run.events or ()])
    keys = [run.key for run in runs]
    ids = {
        (row.dag_id, row.run_id): row.id
        for row in connection.execute(
            select(RUNS.c.id, RUNS.c.dag_id, RUNS.c.run_id).where(tuple_(RUNS.c.dag_id, RUNS.c.run_id).in_(keys))
        )
    }
    of_runs = select(RUN_EVENTS.c.dag_run_id).where(RUN_EVENTS.c.dag_run_id.in_(sorted(ids.values()))).distinct()
    complete = set(connection.execute(of_runs).scalars())
    for run in runs:
        if run.key not in ids or ids[run.key] in complete:
            continue
        event_ids = dict.fromkeys(_event_id(connection, event, names) for event in run.events or ())
        links = [{"dag_run_id": ids[run.key], "event_id": event_id} for event_id in event_ids]
        connection.execute(insert(RUN_EVENTS), links)


def _event_id(connection: Any, event: RunEvent, names: _Names) -> int:
    """Return the row of an event, which may be new."""
    asset_id = names.asset_of(event)
    source = {name: getattr(event, name) for name in _SOURCE}
    same = select(EVENTS.c.id, EVENTS.c.extra).where(
        EVENT_ASSET == asset_id, EVENTS.c.timestamp == event.at,
        *(EVENTS.c[name].is_(None) if value is None else EVENTS.c[name] == value for name, value in source.items()),
    )  # fmt: skip
    extra = json.loads(event.extra)
    found = next((row.id for row in connection.execute(same) if (row.extra or {}) == extra), None)
    if found is not None:
        return int(found)
    values = {EVENT_ASSET.name: asset_id, "timestamp": event.at, "extra": extra, **source}
    row = existing_columns(EVENTS, {**values, "partition_key": event.partition_key})
    event_id = int(connection.execute(insert(EVENTS).values(row)).inserted_primary_key[0])
    aliases = [{"alias_id": names.aliases[alias], "event_id": event_id} for alias in event.aliases]
    if aliases:
        connection.execute(insert(EVENT_ALIASES), aliases)
    return event_id
