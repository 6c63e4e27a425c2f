"""
The inventory: lists the DAGs, packages, options and values of a region's Airflow, for the checks that compare regions.

Each turn does a limited part. An agent that read ten thousand DAGs in one turn would let its view of the state expire.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from importlib import metadata
from typing import Protocol

from airflow_provider_mwaa_dr.agent.peer_keys import PeerKeys, SecretStore
from airflow_provider_mwaa_dr.agent.settings_carrier import SettingsCarrier
from airflow_provider_mwaa_dr.core.config import OPTIONS, DRConfig
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.inventory import (
    CONTROL,
    KEYED,
    DagFacts,
    Fingerprints,
    Inventory,
    UpgradeFacts,
)
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import INVENTORIES, Clock, StateStore
from airflow_provider_mwaa_dr.core.sites import Sites

log = get_logger(__name__)

BATCH = 100
"""The number of DAGs that one turn reads."""
RENEW_S = 900.0
"""An unchanged inventory is written again after so long, to show that it is still correct."""
_ERROR_CHARS = 300
"""A heartbeat contains so many characters of an error's text."""


class InventoryDb(SecretStore, Protocol):
    """What an inventory needs from the database; see :class:`plugins.metadata.inventory.MetadataInventoryDb`."""

    def dag_versions(self) -> Mapping[str, str]:
        """Return, for each DAG in the folder, a text that changes when its file or its serialized form changes."""

    def dag_facts(self, dag_ids: Collection[str], *, marks_from: datetime) -> Mapping[str, DagFacts]:
        """Return the facts of those DAGs that exist, with their first scheduled runs after *marks_from*."""

    def import_errors(self) -> tuple[str, ...]:
        """Return the files that Airflow could not import, sorted, with paths relative to the DAG folder."""

    def upgrade_facts(self, *, marks_from: datetime) -> UpgradeFacts:
        """Return what another version of Airflow may change."""

    def values(self) -> Mapping[str, Mapping[str, str | None]]:
        """
        Return names and values by kind, without those of :class:`SecretStore`; only for fingerprints.

        A value that cannot be decrypted is None.
        """


class InventoryKeeper:
    """
    Keeps one region's inventory. Not thread-safe; only the leading agent of the region uses it.

    :param options: the provider's options, as text.
    :param peers: the regions in ``[dr] environments``, for which the inventory has fingerprints.
    :param every_s: seconds between two inventories.
    :param exempt_dags: ``[dr] exempt_dags``.
    :param carrier: copies settings, and reports on it in the inventory; None: nothing is copied.
    """

    def __init__(
        self,
        store: StateStore,
        db: InventoryDb,
        clock: Clock,
        *,
        region: str,
        options: Mapping[str, str],
        peers: Collection[str],
        every_s: float,
        exempt_dags: Collection[str] = (),
        carrier: SettingsCarrier | None = None,
    ) -> None:
        self._exempt_dags = frozenset(exempt_dags)
        self._carrier = carrier
        self._store = store
        self._db = db
        self._clock = clock
        self._region = region
        self._options = options
        self._every_s = every_s
        self._next_at = 0.0
        self._keys = PeerKeys(db, store, region=region, peers=peers)
        self._not_compared: str | None = None
        self._packages: Mapping[str, str] = {}
        self._dags: dict[str, tuple[str, DagFacts | None]] = {}
        self._written: tuple[Inventory, float] | None = None
        self._error: LogOnChange[str | None] = LogOnChange(None)

    @property
    def exempt(self) -> tuple[str, ...] | None:
        """The exempt DAGs of the last inventory, sorted; None before the first one."""
        if self._written is None:
            return None
        dags = self._written[0].dags
        return tuple(sorted(each for each in dags if each in self._exempt_dags or CONTROL in dags[each].traits))

    @property
    def error(self) -> str | None:
        """Why the last inventory could not be taken, or has no fingerprints for a peer; None if neither is so."""
        return self._error.value

    def make_due(self) -> None:
        """Let the next turn take an inventory: settings have changed."""
        self._next_at = 0.0

    def try_turn(self) -> None:
        """Take part of the next inventory, as :meth:`turn` does; never raises, but stores and logs an error."""
        error = self._error.value
        try:
            if self.turn():
                error = self._not_compared
        except Exception as raised:  # only the readiness checks use the inventory
            error = f"{type(raised).__name__}: {raised}".splitlines()[0][:_ERROR_CHARS]
        if self._error.changes_to(error) and error is not None:
            log.warning("The inventory of %s is incomplete or missing: %s", self._region, error)

    def turn(self) -> bool:
        """
        Take part of the next inventory. After an error, the keeper does not try again before the next inventory.

        :return: whether an inventory was finished; False also when it is not time for the next one.
        """
        now = self._clock.monotonic()
        if now < self._next_at:
            return False
        self._next_at = now + self._every_s
        marks_from = _next_midnight(self._clock.now())
        if not self._read_dags(marks_from):
            self._next_at = now
            return False
        found = self._take(marks_from)
        if self._written is not None:
            before, at = self._written
            if replace(found, taken_at=before.taken_at) == before and now - at < RENEW_S:
                return True
        self._store.put(INVENTORIES, found)
        self._written = found, now
        return True

    def _read_dags(self, marks_from: datetime) -> bool:
        """Read some of the DAGs that have changed, or all once a day; return whether all of them are read."""
        # Two regions list the runs after the same midnight, so that a check can compare them. Runs after the present
        # time would differ, and would change with each turn.
        versions = {dag_id: f"{version} {marks_from}" for dag_id, version in self._db.dag_versions().items()}
        self._dags = {dag_id: known for dag_id, known in self._dags.items() if dag_id in versions}
        changed = [
            dag_id for dag_id, version in sorted(versions.items()) if self._dags.get(dag_id, (None, None))[0] != version
        ]
        found = self._db.dag_facts(changed[:BATCH], marks_from=marks_from) if changed else {}
        for dag_id in changed[:BATCH]:
            self._dags[dag_id] = versions[dag_id], found.get(dag_id)
        return len(changed) <= BATCH

    def _take(self, marks_from: datetime) -> Inventory:
        shared, self._not_compared = self._keys.agree()
        self._packages = self._packages or installed_packages()
        values = self._db.values()
        return Inventory(
            region=self._region,
            taken_at=self._clock.now(),
            public_key=self._keys.public,
            options=self._options,
            packages=self._packages,
            dags={dag_id: facts for dag_id, (_, facts) in self._dags.items() if facts is not None},
            import_errors=self._db.import_errors(),
            names={kind: tuple(sorted(values.get(kind, ()))) for kind in KEYED},
            fingerprints={
                peer: Fingerprints(
                    key_id=key.id,
                    values={
                        kind: {
                            name: key.fingerprint(kind, name, value)
                            for name, value in sorted(values.get(kind, {}).items())
                            if value is not None
                        }
                        for kind in KEYED
                    },
                )
                for peer, key in sorted(shared.items())
            },
            upgrade=self._db.upgrade_facts(marks_from=marks_from),
            settings=self._carrier.report if self._carrier is not None else None,
        )


def _next_midnight(now: datetime) -> datetime:
    return (now.astimezone(timezone.utc) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def installed_packages() -> Mapping[str, str]:
    """Return the versions, by name, of all distributions that this process can import."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(found.items()))


def option_texts(config: DRConfig) -> Mapping[str, str]:
    """Return the options in effect, as texts that are equal in two regions if the options are."""
    return {option.field: _text(getattr(config, option.field)) for option in OPTIONS if option.is_setting}


def _text(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return str(Sites.of(value).sorted())
    if isinstance(value, (frozenset, tuple)):
        return ",".join(sorted(map(str, value)))
    return str(value)
