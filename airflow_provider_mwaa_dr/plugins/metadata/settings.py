"""The variables, connections and pools of the metadata database: reads them, and writes copies of another site's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from airflow.configuration import conf
from sqlalchemy import insert, select, update
from sqlalchemy.exc import DataError, IntegrityError

from airflow_provider_mwaa_dr.core.carrying import Key, Setting, SettingWrite, text_of
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    CONNECTIONS,
    DEFAULT_POOL,
    POOLS,
    VARIABLES,
    encrypted_connection,
    encrypted_variable,
    existing_columns,
)
from airflow_provider_mwaa_dr.plugins.metadata.secrets import RESERVED, MetadataSecrets, plain_text
from airflow_provider_mwaa_dr.plugins.metadata.transactions import savepoint, transaction

_TABLES = {"variables": VARIABLES, "connections": CONNECTIONS, "pools": POOLS}
_NAMES = {"variables": VARIABLES.c.key, "connections": CONNECTIONS.c.conn_id, "pools": POOLS.c.pool}
_PLAIN_PARTS = ("conn_type", "description", "host", "schema", "login", "port")
_LONGEST_NAME = 250


class MetadataSettingsDb(MetadataSecrets):
    """Settings of the region's Airflow; each method is a short transaction."""

    def settings(self, names: Mapping[str, Collection[str]] | None = None) -> dict[str, dict[str, Setting]]:
        """Return the settings by kind and name: all, or those with *names* by kind. None of them is the provider's."""
        return read_settings(names)

    def write_settings(self, writes: Sequence[SettingWrite]) -> set[Key]:
        """
        Write settings, encrypted with the Fernet key of this environment; return those that were written.

        A setting stays if it no longer has the value that the decision was made for, or if Airflow or its database
        refuses the new value. The others are written.
        """
        rows = {each.key: row for each in writes if (row := _row_of(each)) is not None}
        written = set()
        with transaction() as session:
            found = _read(session, _by_kind(rows), is_for_update=True)
            for each in writes:
                kind, name = each.key
                there = found.get(kind, {}).get(name)
                if each.key not in rows or not _is_same(there, each.before):
                    continue
                table, values = _TABLES[kind], existing_columns(_TABLES[kind], rows[each.key])
                change: Any = update(table).where(_NAMES[kind] == name).values(values)
                if there is None:
                    change = insert(table).values({_NAMES[kind].name: name, **values})
                # Another process may create it at the same time, or this database may have shorter columns.
                with contextlib.suppress(DataError, IntegrityError):
                    with savepoint(session) as connection:
                        connection.execute(change)
                    written.add(each.key)
        return written

    def elsewhere(self) -> tuple[str, ...]:
        """Return the sources of settings besides the database: a secrets backend's class, environment variables."""
        backend = conf.get("secrets", "backend", fallback="") or ""
        named = sorted(name for name in os.environ if name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_")))
        return (*((f"secrets backend {backend.strip()}",) if backend.strip() else ()), *named)


def read_settings(names: Mapping[str, Collection[str]] | None = None) -> dict[str, dict[str, Setting]]:
    """
    Return variables, connections and pools by kind and name, without the variables of the provider.

    :param names: the names to read, by kind; None: all settings.
    """
    with transaction() as session:
        return _read(session, names)


def _read(
    session: Any, names: Mapping[str, Collection[str]] | None, *, is_for_update: bool = False
) -> dict[str, dict[str, Setting]]:
    found: dict[str, dict[str, Setting]] = {}
    for kind, column in _NAMES.items():
        query = select(_TABLES[kind])
        if names is not None:
            query = query.where(column.in_(sorted(names.get(kind, ()))))
        if is_for_update:
            query = query.with_for_update()
        if names is None or names.get(kind):
            rows = session.execute(query).all()
            named = {row._mapping[column]: row for row in rows}
            found[kind] = {
                name: _setting(kind, name, row) for name, row in named.items() if name and not name.startswith(RESERVED)
            }
        else:
            found[kind] = {}
    return found


def _setting(kind: str, name: str, row: Any) -> Setting:
    content = _content(kind, row)
    return Setting(
        text=None if content is None else text_of(kind, content),
        # Only Airflow 3 has teams. A copy without its team would be visible to all of them.
        content=None if getattr(row, "team_name", None) else content,
        is_default=kind == "pools" and _is_default_pool(name, row),
    )


def _content(kind: str, row: Any) -> dict[str, Any] | None:
    """Return what the other site needs; None if this environment's key cannot decrypt it."""
    if kind == "pools":
        deferred = bool(row.include_deferred)
        return {"slots": row.slots, "include_deferred": deferred, "description": row.description}
    if kind == "variables":
        value = plain_text(row.val, row.is_encrypted)
        return None if value is None else {"val": value, "description": row.description}
    password = plain_text(row.password, row.is_encrypted)
    extra = plain_text(row.extra, row.is_extra_encrypted)
    if password is None or extra is None:
        return None
    return {**{name: getattr(row, name) for name in _PLAIN_PARTS}, "password": password, "extra": extra}


def _is_default_pool(name: str, row: Any) -> bool:
    """Whether the pool is as Airflow created it: no person has decided on its slots."""
    slots = conf.getint("core", "default_pool_task_slot_count", fallback=128)
    return name == DEFAULT_POOL and row.slots == slots and not row.include_deferred


def _row_of(write: SettingWrite) -> dict[str, Any] | None:
    """Return the columns of a setting, encrypted by Airflow's own models; None if Airflow refuses it."""
    (kind, name), content = write.key, write.content
    if len(name) > _LONGEST_NAME or name.startswith(RESERVED):
        return None
    if kind == "pools":
        # Airflow describes its own pool.
        described = {} if name == DEFAULT_POOL else {"description": content["description"]}
        return {"slots": content["slots"], "include_deferred": content["include_deferred"], **described}
    if kind == "variables":
        return {**encrypted_variable(content["val"]), "description": content["description"]}
    encrypted = encrypted_connection(name, content["password"], content["extra"])
    return None if encrypted is None else {**{part: content[part] for part in _PLAIN_PARTS}, **encrypted}


def _is_same(there: Setting | None, before: Setting | None) -> bool:
    if there is None or before is None:
        return there is before
    return there.text is not None and there.text == before.text


def _by_kind(keys: Collection[Key]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {kind: set() for kind in _TABLES}
    for kind, name in keys:
        found[kind].add(name)
    return found
