"""
The contents of a region's Airflow, which its agent lists so that checks can compare the regions.

The item ``INVENTORY#region`` contains names, versions and digests. It never contains the value of a variable, a
connection or a pool, or anything from which a value could be guessed. Such values are compared by fingerprints, and
their key is in no table (:mod:`airflow_provider_mwaa_dr.agent.fingerprints`). Of Airflow's options it contains names
only, and of an import error only what :func:`~airflow_provider_mwaa_dr.core.import_errors.publishable` returns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import chain
from typing import Any

from airflow_provider_mwaa_dr.core.carrying import CarryReport, report_from_values, report_to_values

KEYED = ("pools", "variables", "connections")
"""Kinds of objects whose names are listed, and whose values are compared only by fingerprint."""
DEPENDS_ON_PAST = "depends_on_past"
EXTERNAL_SENSOR = "external_sensor"
CONTROL = "control"
WATCHER = "watcher"


@dataclass(frozen=True, slots=True, kw_only=True)
class DagSchedule:
    """
    The schedule of one DAG, as the region's version of Airflow understands it.

    :param timetable: the name of the timetable's class.
    :param runs: logical date and mark of the first scheduled runs after :attr:`UpgradeFacts.marks_from`, as texts such
        as ``2026-02-26T10:30:00Z``. Empty if assets or users start the DAG, if its marks depend on earlier runs only
        (``@continuous``), or if the timetable raises an error.
    """

    timetable: str
    runs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DagFacts:
    """
    One DAG.

    :param source: digest of its file, without the modules that the file imports.
    :param shape: digest of the serialized DAG, without paths: the same file may build different DAGs.
    :param traits: :data:`DEPENDS_ON_PAST`, :data:`EXTERNAL_SENSOR`: why the DAG depends on the history of its region.
        :data:`CONTROL`: the DAG has the tag ``dr:control``. :data:`WATCHER`: messages that a watcher reads start it.
    :param schedule: None if the agent's version does not list schedules.
    :param file: path of its file relative to the DAG folder; empty if the agent's version does not list it.
    """

    source: str
    shape: str
    traits: tuple[str, ...] = ()
    schedule: DagSchedule | None = None
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeFacts:
    """
    What another version of Airflow may change.

    :param marks_from: the midnight (UTC) after which the runs of each :class:`DagSchedule` are due.
    :param error_texts: for each file of :attr:`Inventory.import_errors`, the error without its values.
    :param changed_options: Airflow's options that the region's version renamed, with their new names, and those that
        it removed, with an empty text. Names such as ``core.dag_concurrency``.
    :param unknown_options: options that the scheduler's environment variables set, and that the version does not know.
    :param teams: names of the teams in the metadata database.
    """

    marks_from: datetime
    error_texts: Mapping[str, str] = field(default_factory=dict)
    changed_options: Mapping[str, str] = field(default_factory=dict)
    unknown_options: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """
    Fingerprints of one region's values, for the comparison with one other region only.

    :param key_id: identifies the key that both regions agreed on; fingerprints with different keys cannot be compared.
    :param values: fingerprint by kind and name.
    """

    key_id: str
    values: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """
    One region's Airflow.

    :param public_key: the region's public key, from which it agrees on a key with each other region.
    :param options: settings of the provider by name, as text.
    :param packages: version by installed distribution, in the scheduler.
    :param dags: the DAGs in the DAG folder, exempt ones included.
    :param import_errors: files that could not be imported, relative to the DAG folder.
    :param names: the names of each kind of :data:`KEYED` in the metadata database.
    :param fingerprints: fingerprints by the other region.
    :param upgrade: None if the agent's version does not list this.
    :param settings: what the region copies; None if it copies nothing, and in earlier versions.
    """

    region: str
    taken_at: datetime
    public_key: str
    options: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    dags: Mapping[str, DagFacts] = field(default_factory=dict)
    import_errors: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fingerprints: Mapping[str, Fingerprints] = field(default_factory=dict)
    upgrade: UpgradeFacts | None = None
    settings: CarryReport | None = None


def contents_to_text(inventory: Inventory) -> str:
    """Return the inventory as JSON, without region, time and public key, which a store stores separately."""
    return json.dumps(
        {
            "options": dict(inventory.options),
            "packages": dict(inventory.packages),
            "dags": {dag_id: [facts.source, facts.shape, *facts.traits] for dag_id, facts in inventory.dags.items()},
            "import_errors": list(inventory.import_errors),
            "names": {kind: list(names) for kind, names in inventory.names.items()},
            "fingerprints": {
                peer: {"key_id": found.key_id, "values": {kind: dict(of) for kind, of in found.values.items()}}
                for peer, found in inventory.fingerprints.items()
            },
            "schedules": {
                dag_id: [schedule.timetable, *chain.from_iterable(schedule.runs)]
                for dag_id, facts in inventory.dags.items()
                if (schedule := facts.schedule) is not None
            },
            "files": {dag_id: facts.file for dag_id, facts in inventory.dags.items() if facts.file},
            "upgrade": None if inventory.upgrade is None else _upgrade_to_values(inventory.upgrade),
            **({"settings": report_to_values(inventory.settings)} if inventory.settings is not None else {}),
        },
        sort_keys=True,
    )


def _upgrade_to_values(upgrade: UpgradeFacts) -> dict[str, Any]:
    return {
        "marks_from": time_text(upgrade.marks_from),
        "error_texts": dict(upgrade.error_texts),
        "changed_options": dict(upgrade.changed_options),
        "unknown_options": list(upgrade.unknown_options),
        "teams": list(upgrade.teams),
    }


def time_text(at: datetime) -> str:
    """Return an aware time as text in UTC, without fractions of a second."""
    return f"{at.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def contents_from_values(found: Mapping[str, Any], *, region: str, taken_at: datetime, public_key: str) -> Inventory:
    """
    Return the inventory from a JSON object, in which the store has decoded times.

    Unknown keys of other versions are ignored, and missing keys are empty.
    """
    schedules, files, upgrade = found.get("schedules") or {}, found.get("files") or {}, found.get("upgrade")
    return Inventory(
        region=region,
        taken_at=taken_at,
        public_key=public_key,
        options=found.get("options") or {},
        packages=found.get("packages") or {},
        dags={
            dag_id: DagFacts(
                source=source,
                shape=shape,
                traits=tuple(traits),
                schedule=_schedule_from_values(schedules.get(dag_id)),
                file=files.get(dag_id, ""),
            )
            for dag_id, (source, shape, *traits) in (found.get("dags") or {}).items()
        },
        import_errors=tuple(found.get("import_errors") or ()),
        names={kind: tuple(names) for kind, names in (found.get("names") or {}).items()},
        fingerprints={
            peer: Fingerprints(key_id=prints["key_id"], values=prints["values"])
            for peer, prints in (found.get("fingerprints") or {}).items()
        },
        upgrade=None if upgrade is None else _upgrade_from_values(upgrade),
        settings=report_from_values(found["settings"]) if found.get("settings") is not None else None,
    )


def _schedule_from_values(found: Sequence[str] | None) -> DagSchedule | None:
    if found is None:
        return None
    timetable, *times = found
    return DagSchedule(timetable=timetable, runs=tuple(zip(times[::2], times[1::2], strict=True)))


def _upgrade_from_values(found: Mapping[str, Any]) -> UpgradeFacts:
    return UpgradeFacts(
        marks_from=found["marks_from"],
        error_texts=found.get("error_texts") or {},
        changed_options=found.get("changed_options") or {},
        unknown_options=tuple(found.get("unknown_options") or ()),
        teams=tuple(found.get("teams") or ()),
    )
