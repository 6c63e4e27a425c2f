"""
What a region's Airflow consists of, as its agent lists it, for comparing regions.

Item ``INVENTORY#region``. It holds names, versions and digests; never the value of a variable, a connection or a pool,
nor anything from which one could be guessed: those are compared by fingerprints whose key is in no table
(:mod:`airflow_provider_mwaa_dr.plugins.fingerprints`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

KEYED = ("pools", "variables", "connections")
"""Kinds whose names are listed and whose values are compared by fingerprint only."""
DEPENDS_ON_PAST = "depends_on_past"
EXTERNAL_SENSOR = "external_sensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class DagFacts:
    """
    One DAG.

    :param source: digest of its file; modules that the file imports are not in it.
    :param shape: digest of what the file made of it, paths left out: the same file may build different DAGs.
    :param traits: :data:`DEPENDS_ON_PAST`, :data:`EXTERNAL_SENSOR`: what looks at history of its own region.
    """

    source: str
    shape: str
    traits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """
    Values of one region, made comparable with those of one other region and of nobody else.

    :param key_id: names the key that the two have agreed on; fingerprints under different keys say nothing.
    :param values: fingerprint by kind and name.
    """

    key_id: str
    values: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """
    One region's Airflow.

    :param public_key: the region's half of the keys that it agrees on with the others.
    :param options: settings of the provider by name, as text.
    :param packages: version by installed distribution, in the scheduler.
    :param dags: those that are in the folder, exempt ones too.
    :param import_errors: files that could not be imported, without the folder in front.
    :param names: what there is of each of :data:`KEYED`, in the metadata database.
    :param fingerprints: by the other region.
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
    """Return everything but region, time and public key, which a store keeps beside it, as JSON."""
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
    """Return the inventory of a JSON object; what another version put in besides is ignored, what it lacks is empty."""
    return Inventory(
        region=region,
        taken_at=taken_at,
        public_key=public_key,
        options=found.get("options", {}),
        packages=found.get("packages", {}),
        dags={
            dag_id: DagFacts(source=source, shape=shape, traits=tuple(traits))
            for dag_id, (source, shape, *traits) in found.get("dags", {}).items()
        },
        import_errors=tuple(found.get("import_errors", ())),
        names={kind: tuple(names) for kind, names in found.get("names", {}).items()},
        fingerprints={
            peer: Fingerprints(key_id=prints["key_id"], values=prints["values"])
            for peer, prints in found.get("fingerprints", {}).items()
        },
    )
