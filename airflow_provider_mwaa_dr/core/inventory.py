"""
The contents of a region's Airflow, which its agent lists so that checks can compare the regions.

The item ``INVENTORY#region`` contains names, versions and digests. It never contains the value of a variable, a
connection or a pool, or anything from which a value could be guessed. Such values are compared by fingerprints, and
their key is in no table (:mod:`airflow_provider_mwaa_dr.agent.fingerprints`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

KEYED = ("pools", "variables", "connections")
"""Kinds of objects whose names are listed, and whose values are compared only by fingerprint."""
DEPENDS_ON_PAST = "depends_on_past"
EXTERNAL_SENSOR = "external_sensor"
CONTROL = "control"
WATCHER = "watcher"


@dataclass(frozen=True, slots=True, kw_only=True)
class DagFacts:
    """
    One DAG.

    :param source: digest of its file, without the modules that the file imports.
    :param shape: digest of the serialized DAG, without paths: the same file may build different DAGs.
    :param traits: :data:`DEPENDS_ON_PAST`, :data:`EXTERNAL_SENSOR`: why the DAG depends on the history of its region.
        :data:`CONTROL`: the DAG has the tag ``dr:control``. :data:`WATCHER`: messages that a watcher reads start it.
    """

    source: str
    shape: str
    traits: tuple[str, ...] = ()


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
        },
        sort_keys=True,
    )


def contents_from_values(found: Mapping[str, Any], *, region: str, taken_at: datetime, public_key: str) -> Inventory:
    """Return the inventory from a JSON object; ignores unknown keys of other versions, and missing keys are empty."""
    return Inventory(
        region=region,
        taken_at=taken_at,
        public_key=public_key,
        options=found.get("options") or {},
        packages=found.get("packages") or {},
        dags={
            dag_id: DagFacts(source=source, shape=shape, traits=tuple(traits))
            for dag_id, (source, shape, *traits) in (found.get("dags") or {}).items()
        },
        import_errors=tuple(found.get("import_errors") or ()),
        names={kind: tuple(names) for kind, names in (found.get("names") or {}).items()},
        fingerprints={
            peer: Fingerprints(key_id=prints["key_id"], values=prints["values"])
            for peer, prints in (found.get("fingerprints") or {}).items()
        },
    )
