"""Direct calls to the REST API of a region's Airflow, as a user with its address and password makes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import requests

from airflow_provider_mwaa_dr.core.config import is_exempt
from airflow_provider_mwaa_dr.exceptions import DRError

TIMEOUT_S = 60.0


class SandboxAirflowApi:
    """
    The REST API of one region, of Airflow 2 or 3.

    :param described: the region's part of ``sandbox.json``.
    :raises DRError: (every method) no answer, or an error.
    """

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._auth: Mapping[str, str] = described["auth"]
        self._is_v2 = "header" in self._auth
        self._url = f"{described['airflow_url']}/api/{'v2' if self._is_v2 else 'v1'}"

    def unpaused(self) -> frozenset[str]:
        """Return the ids of all DAGs that are not paused and not exempt."""
        found: set[str] = set()
        offset = 0
        while True:
            # Airflow 3 treats a missing pattern as the word "none". Airflow 2 would search for the tilde.
            parameters = {"limit": 100, "offset": offset, **({"dag_id_pattern": "~"} if self._is_v2 else {})}
            page = self._call("GET", "/dags", parameters=parameters)
            found |= {
                dag["dag_id"]
                for dag in page["dags"]
                if not dag["is_paused"] and not is_exempt(dag["dag_id"], {tag["name"] for tag in dag["tags"]}, ())
            }
            offset += len(page["dags"])
            if offset >= page["total_entries"] or not page["dags"]:
                return frozenset(found)

    def unpause(self, dag_ids: Collection[str]) -> None:
        """Unpause DAGs, one by one."""
        for dag_id in dag_ids:
            self._call("PATCH", f"/dags/{dag_id}", body={"is_paused": False})

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any] | None = None) -> None:
        """Start a manual run."""
        body: dict[str, Any] = {"dag_run_id": run_id, "conf": dict(conf or {})}
        if self._is_v2:
            body["logical_date"] = None
        self._call("POST", f"/dags/{dag_id}/dagRuns", body=body)

    def backfill(self, dag_id: str, first: datetime, last: datetime) -> None:
        """Request a backfill, which Airflow has from version 3 on."""
        dates = {"from_date": first.isoformat(), "to_date": last.isoformat()}
        self._call("POST", "/backfills", body={"dag_id": dag_id, "max_active_runs": 3, **dates})

    def _call(self, method: str, path: str, *, parameters: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        with loopback_session() as session:
            if self._is_v2:
                session.headers["Authorization"] = self._auth["header"]
            else:
                session.auth = (self._auth["username"], self._auth["password"])
            try:
                answer = session.request(method, f"{self._url}{path}", params=parameters, json=body, timeout=TIMEOUT_S)
                answer.raise_for_status()
                return answer.json()
            except (requests.RequestException, ValueError) as error:
                raise DRError(f"{method} {self._url}{path} failed: {error}") from error


def loopback_session() -> requests.Session:
    """Return an HTTP session that ignores the proxies and the .netrc of this machine."""
    session = requests.Session()
    session.trust_env = False
    return session
