"""What the region's inventory contains of the metadata database: DAGs, variables, connections, pools."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from airflow.configuration import conf
from sqlalchemy import select

from airflow_provider_mwaa_dr.core.config import CONTROL_TAG
from airflow_provider_mwaa_dr.core.import_errors import publishable
from airflow_provider_mwaa_dr.core.inventory import (
    CONTROL,
    DEPENDS_ON_PAST,
    EXTERNAL_SENSOR,
    WATCHER,
    DagFacts,
    DagSchedule,
    UpgradeFacts,
    time_text,
)
from airflow_provider_mwaa_dr.plugins.metadata.airflow_options import changed_options, unknown_options
from airflow_provider_mwaa_dr.plugins.metadata.schema import (
    CODE_KEY,
    CODES,
    DAGS,
    IMPORT_ERRORS,
    latest_dags,
    next_runs,
    serialized_data,
    serialized_tasks,
    team_names,
)
from airflow_provider_mwaa_dr.plugins.metadata.secrets import MetadataSecrets
from airflow_provider_mwaa_dr.plugins.metadata.settings import read_settings
from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction

_RUNS = 3
"""The number of scheduled runs of each DAG in the inventory."""
_DAG_SHAPE = ("timetable", "catchup", "max_active_runs", "max_active_tasks", "tags", "is_paused_upon_creation")
_TASK_SHAPE = (
    "task_id",
    "task_type",
    "_task_type",
    "downstream_task_ids",
    "pool",
    "queue",
    "trigger_rule",
    "retries",
    "depends_on_past",
    "wait_for_downstream",
    "_is_mapped",
)


class MetadataInventoryDb(MetadataSecrets):
    """Lists the DAGs and settings of the region's Airflow; each method is a short transaction."""

    def dag_versions(self) -> dict[str, str]:
        """Return, for each DAG in the folder, a text that changes when its file or its serialized form changes."""
        with transaction() as session:
            return {row.dag_id: f"{row.dag_hash} {row.code_mark}" for row in session.execute(latest_dags())}

    def dag_facts(self, dag_ids: Collection[str], *, marks_from: datetime) -> dict[str, DagFacts]:
        """Return the facts of those DAGs that exist, with their first scheduled runs after *marks_from*."""
        with transaction() as session:
            rows = session.execute(latest_dags().where(DAGS.c.dag_id.in_(sorted(dag_ids)))).all()
            data_of = serialized_data(session, [row.serialized_key for row in rows])
            sources = dict(
                session.execute(
                    select(CODE_KEY, CODES.c.source_code).where(CODE_KEY.in_([row.code_key for row in rows]))
                ).all()
            )
        return {
            row.dag_id: DagFacts(
                source=_digest(sources.get(row.code_key) or ""),
                shape=_digest(json.dumps(_shape(data_of[row.dag_id]), sort_keys=True, default=str)),
                traits=_traits(data_of[row.dag_id]),
                schedule=_schedule(data_of[row.dag_id], marks_from),
                file=_relative(row.file),
            )
            for row in rows
            if row.dag_id in data_of
        }

    def import_errors(self) -> tuple[str, ...]:
        """Return the files that Airflow could not import, sorted, with paths relative to the DAG folder."""
        with transaction() as session:
            names = session.execute(select(IMPORT_ERRORS.c.filename)).scalars()
            return tuple(sorted(set(map(_relative, names))))

    def upgrade_facts(self, *, marks_from: datetime) -> UpgradeFacts:
        """Return what another version of Airflow may change."""
        with transaction() as session:
            errors = session.execute(select(IMPORT_ERRORS.c.filename, IMPORT_ERRORS.c.stacktrace)).all()
            teams = team_names(session)
        return UpgradeFacts(
            marks_from=marks_from,
            error_texts={_relative(row.filename): publishable(row.stacktrace or "") for row in errors},
            changed_options=changed_options(),
            unknown_options=unknown_options(),
            teams=teams,
        )

    def values(self) -> dict[str, dict[str, str | None]]:
        """
        Return names and values by kind, without the variables of the provider; only for fingerprints.

        A value that cannot be decrypted is None.
        """
        return {kind: {name: each.text for name, each in of.items()} for kind, of in read_settings().items()}


def _relative(path: str | None) -> str:
    """Return the path of a DAG file relative to the DAG folder, which may differ between the regions."""
    return (path or "?").removeprefix(conf.get("core", "dags_folder", fallback="").rstrip("/") + "/")


def _schedule(data: Mapping[str, Any], marks_from: datetime) -> DagSchedule:
    timetable, runs = next_runs(data, marks_from, count=_RUNS)
    return DagSchedule(timetable=timetable, runs=tuple((time_text(date), time_text(mark)) for date, mark in runs))


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:16]


def _shape(data: Mapping[str, Any]) -> Any:
    """
    Return the structure of a serialized DAG: names, types, order, schedule.

    It contains no arguments of tasks, because they may contain values that the file read from a variable.
    """
    dag = data["dag"]
    return {
        "dag": {name: _sorted(dag[name]) for name in _DAG_SHAPE if name in dag},
        "tasks": sorted(
            ({name: _sorted(task[name]) for name in _TASK_SHAPE if name in task} for task in serialized_tasks(data)),
            key=lambda task: str(task.get("task_id")),
        ),
    }


def _sorted(value: Any) -> Any:
    """Return *value*; a list of texts is sorted, because Airflow does not always keep its order."""
    is_texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return sorted(value) if is_texts else value


def _traits(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which parts of its own region's history a DAG reads, whether it is exempt by its tag, and has watchers."""
    found = []
    # wait_for_downstream makes Airflow set depends_on_past, too.
    if any(
        task.get("depends_on_past") or task.get("partial_kwargs", {}).get("depends_on_past")
        for task in serialized_tasks(data)
    ):
        found.append(DEPENDS_ON_PAST)
    if any(each.get("dependency_type") == "sensor" for each in data["dag"].get("dag_dependencies", ())):
        found.append(EXTERNAL_SENSOR)
    if CONTROL_TAG in data["dag"].get("tags", ()):
        found.append(CONTROL)
    if _has_watcher(data["dag"].get("timetable")):
        found.append(WATCHER)
    return tuple(found)


def _has_watcher(value: Any) -> bool:
    """Whether an asset of a serialized schedule has a watcher (Airflow 3)."""
    if isinstance(value, Mapping):
        return bool(value.get("watchers")) or any(map(_has_watcher, value.values()))
    return isinstance(value, list) and any(map(_has_watcher, value))
