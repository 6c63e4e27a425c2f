"""Which components of a region are not healthy yet: read from its API, its health answer and its metadata database."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import requests

from airflow_provider_mwaa_dr.sandbox.runtime.airflow_api import loopback_session
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import major
from airflow_provider_mwaa_dr.sandbox.runtime.home import USER, Region
from airflow_provider_mwaa_dr.sandbox.runtime.postgres import Postgres

TIMEOUT_S = 5.0
PARSE_TIMEOUT_S = 20.0
"""If no file was parsed for this long, the remaining files count as modules without a DAG."""
FIRST_PARSE_TIMEOUT_S = 120.0
"""The same before the first file was parsed: a busy machine starts the DAG processor slowly."""


def missing(region: Region, *, since: datetime) -> Sequence[str]:
    """
    Return the names of the components of a region's Airflow that are not up; empty when all are up.

    :param since: earlier heartbeats are ignored, because a killed scheduler still counts as healthy for half a minute.
    """
    path = "/health" if major(region.airflow_version) < 3 else "/api/v2/monitor/health"
    try:
        answer = loopback_session().get(f"{region.airflow_url}{path}", timeout=TIMEOUT_S)
        answer.raise_for_status()
        body: Mapping[str, Mapping[str, str | None]] = answer.json()
    except (requests.RequestException, ValueError):
        return ["API server"]
    wanted = ["scheduler", "triggerer"]
    if major(region.airflow_version) >= 3:
        wanted.append("dag_processor")
    return [
        name.replace("_", "-")
        for name in wanted
        if body.get(name, {}).get("status") != "healthy"
        or not _is_after(body[name].get(f"latest_{name}_heartbeat"), since)
    ]


def token(region: Region, password: str) -> str:
    """
    Return a bearer token for Airflow 3's REST API that stays valid longer than any sandbox exists.

    :raises requests.RequestException: the API server does not answer, or refuses.
    """
    answer = loopback_session().post(
        f"{region.airflow_url}/auth/token", json={"username": USER, "password": password}, timeout=TIMEOUT_S
    )
    answer.raise_for_status()
    return str(answer.json()["access_token"])


def unparsed_files(postgres: Postgres, database: str, dags_folder: Path) -> Sequence[Path]:
    """Return the DAG files for which Airflow has stored neither a DAG nor an import error yet, sorted."""
    names = {
        row[0]
        for row in postgres.query(
            "select d.fileloc from dag d join serialized_dag s on s.dag_id = d.dag_id "
            "union select filename from import_error",
            database=database,
        )
    }
    # For an import error, Airflow 3 stores the path relative to the DAGs folder, and Airflow 2 the absolute path.
    return [
        path
        for path in dag_files(dags_folder)
        if str(path) not in names and str(path.relative_to(dags_folder)) not in names
    ]


class Parsing:
    """The progress of a region in parsing its DAG files. Files without a DAG are ignored after a timeout."""

    def __init__(self, dags_folder: Path) -> None:
        self._folder = dags_folder
        self._left: Sequence[Path] | None = None
        self._changed_at = 0.0

    def missing(self, postgres: Postgres, database: str, *, say: Callable[[str], object]) -> Sequence[str]:
        """Return a sentence about the files that are not parsed yet, or nothing. Call it repeatedly."""
        left = unparsed_files(postgres, database, self._folder)
        if left != self._left:
            self._left, self._changed_at = left, time.monotonic()
        timeout_s = FIRST_PARSE_TIMEOUT_S if left == dag_files(self._folder) else PARSE_TIMEOUT_S
        if left and time.monotonic() - self._changed_at > timeout_s:
            names = ", ".join(path.name for path in left[:3])
            say(f"{database}: no DAG in {names}{' ...' if len(left) > 3 else ''}")
            return []
        return [f"{len(left)} DAG files not parsed yet"] if left else []


def dag_files(folder: Path) -> Sequence[Path]:
    """
    Return the files that Airflow would parse. Airflow, too, searches for the words "dag" and "airflow".

    Files that ``.airflowignore`` of the folder names are not among them; patterns in it are not understood here.
    """
    ignore = folder / ".airflowignore"
    ignored = set(ignore.read_text().split()) if ignore.is_file() else set()
    found = []
    for path in sorted(folder.rglob("*.py")):
        if path.name in ignored:
            continue
        content = path.read_bytes().lower()
        if b"dag" in content and b"airflow" in content:
            found.append(path)
    return found


def _is_after(heartbeat: str | None, since: datetime) -> bool:
    return heartbeat is not None and datetime.fromisoformat(heartbeat.replace("Z", "+00:00")) > since
