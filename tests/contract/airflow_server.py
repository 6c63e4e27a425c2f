"""
Airflow's REST API in its different versions, with a FakeEnvironment as its database, behind an emulated MWAA.

It emulates what differs between versions: page limits, filters, order, unknown parameters, and which DAGs a bulk PATCH
changes. Modelled on the source code of 2.10.3, 3.0.6 and 3.3.1.
"""

from __future__ import annotations

import json
import random
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from werkzeug.serving import make_server

from airflow_provider_mwaa_dr.core.ports import DagInfo, RunInfo
from airflow_provider_mwaa_dr.exceptions import MwaaRequestError
from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import Environment, MwaaEndpoint, Request
from airflow_provider_mwaa_dr.testing import FakeEnvironment

V1_PARAMETERS = {
    ("GET", "dags"): {"limit", "offset", "tags", "only_active", "paused", "order_by", "dag_id_pattern", "fields"},
    ("PATCH", "dags"): {"limit", "offset", "tags", "update_mask", "only_active", "dag_id_pattern"},
    ("GET", "dagRuns"): {"limit", "offset", "state", "order_by", "fields"},
    ("GET", "taskInstances"): {"limit", "offset", "state", "pool", "queue", "executor"},
}


class AirflowServer:
    """
    An emulated AWS with one MWAA environment, whose Airflow answers from *world*.

    :ivar before: called with (method, path) before Airflow carries out a request; True: answer 503 instead.
    :ivar after: called with (method, path, status, body) after Airflow carried out a request; returns status and body
        of the answer; None: cut the connection.
    :ivar requests: (method, path without /api/vN, query) of every request that reached Airflow.
    """

    def __init__(self, world: FakeEnvironment, version: str, *, clock: Callable[[], float]) -> None:
        self.world = world
        self.version = tuple(int(part) for part in version.split("."))
        self.before: Callable[[str, str], bool] = lambda method, path: False
        self.after: Callable[[str, str, int, bytes], tuple[int, bytes] | None] = lambda m, p, status, body: (
            status,
            body,
        )
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._airflow = make_server("127.0.0.1", 0, self._serve_airflow, threaded=True)
        self._aws = make_server("127.0.0.1", 0, self._serve_aws, threaded=True)
        self.url = f"http://127.0.0.1:{self._aws.port}"
        environment = Environment(
            region=world.region,
            name=world.name,
            airflow_url=self.airflow_url,
            airflow_version=version,
            authorization="Bearer inside",
        )
        self.endpoint = MwaaEndpoint(
            environment=lambda region: environment if region == world.region else None,
            web_port=lambda caller, region: self._aws.port,
            clock=clock,
        )
        self._threads = [
            # stop() waits for the next poll.
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            for server in (self._airflow, self._aws)
        ]

    @property
    def airflow_url(self) -> str:
        """The address of the Airflow itself, without an AWS in front of it."""
        return f"http://127.0.0.1:{self._airflow.port}"

    def start(self) -> None:
        """Serve in two threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads and close the ports."""
        for server, thread in zip((self._airflow, self._aws), self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    # AWS.

    def _serve_aws(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = environ["QUERY_STRING"]
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        headers["content-type"] = environ.get("CONTENT_TYPE", "")
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/", headers.get("authorization", ""))
        path = environ["RAW_URI"].partition("?")[0]
        request = Request(
            caller="test",
            region=scope.group(1) if scope else self.world.region,
            method=environ["REQUEST_METHOD"],
            path=path + (f"?{query}" if query else ""),
            headers=headers,
            body=environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)),
        )
        is_web = path.startswith(("/api/", "/aws_mwaa/", "/pluginsv2/"))
        answer = self.endpoint.web_answer(request) if is_web else self.endpoint.answer(request)
        start_response(f"{answer.status} .", list(answer.headers))
        return [answer.body]

    # Airflow.

    def _serve_airflow(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        query = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        _, _, version, *parts = environ["RAW_URI"].partition("?")[0].split("/")
        parts = [unquote(part) for part in parts]
        path = "/" + "/".join(parts)
        method = environ["REQUEST_METHOD"]
        self.requests.append((method, path, query))
        if version != ("v1" if self.version < (3,) else "v2"):
            status, answer = 404, {"detail": "Not Found"}
        elif self.before(method, path):
            status, answer = 503, {"detail": "not now"}
        else:
            try:
                status, answer = self._answer(method, parts, query, json.loads(body) if body else {})
            except MwaaRequestError as error:
                status, answer = error.status, {"detail": error.message}
        answered = self.after(method, path, status, json.dumps(answer).encode())
        if answered is None:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        start_response(f"{answered[0]} .", [("Content-Type", "application/json")])
        return [answered[1]]

    def _answer(self, method: str, parts: list[str], query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        allowed = V1_PARAMETERS.get((method, parts[-1]))
        if self.version < (3,) and allowed is not None and set(query) - allowed:
            return 400, {"title": "Bad Request", "detail": f"Extra query parameter(s) {sorted(set(query) - allowed)}"}
        match (method, *parts):
            case ("GET", "health") if self.version < (3,):
                return 200, self._health()
            case ("GET", "monitor", "health") if self.version >= (3,):
                return 200, self._health()
            case ("GET", "dags"):
                return 200, self._page("dags", [_dag(dag) for dag in self._matching(query, patching=False)], query)
            case ("PATCH", "dags"):
                return 200, self._patch_dags(query, body["is_paused"])
            case ("PATCH", *_) if self.world.read_only:
                return 403, {"detail": "Forbidden"}
            case ("PATCH", "dags", dag_id):
                if dag_id not in self.world.paused | self.world.unpaused:
                    return 404, {"detail": f"{dag_id} not found"}
                self.world.flip(dag_id, is_paused=body["is_paused"])
                return 200, {}
            case ("GET", "dags", "~", "dagRuns"):
                return 200, self._page("dag_runs", [_run(run) for run in self.world.running_runs()], query)
            case ("GET", "dags", "~", "dagRuns", "~", "taskInstances"):
                running = [run for run in self.world.running_tasks() if run.state == "running"]
                tasks = [{**_run(run), "task_id": task, "map_index": -1} for run in running for task in ("a", "b")]
                return 200, self._page("task_instances", tasks, query)
            case ("POST", "dags", dag_id, "dagRuns"):
                if self.version >= (3,) and "logical_date" not in body:
                    return 422, {"detail": [{"type": "missing", "loc": ["body", "logical_date"]}]}
                if self.world.run_state(dag_id, body["dag_run_id"]) is not None:
                    return 409, {"detail": "already exists"}
                self.world.trigger(dag_id, run_id=body["dag_run_id"], note=body["note"])
                return 200, {}
            case ("GET", "dags", dag_id, "dagRuns", run_id):
                state = self.world.run_state(dag_id, run_id)
                return (200, {"state": state}) if state is not None else (404, {"detail": "not found"})
            case ("PATCH", "dags", dag_id, "dagRuns", run_id):
                self.world.stop_run(RunInfo(dag_id=dag_id, run_id=run_id, state="running"))
                return 200, {}
        return 404, {"detail": "Not Found"}

    def _health(self) -> dict[str, Any]:
        healthy = self.world.scheduler_is_healthy()
        return {"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy" if healthy else "unhealthy"}}

    def _matching(self, query: Mapping[str, str], *, patching: bool) -> list[DagInfo]:
        pattern = query.get("dag_id_pattern", "None" if patching else "%")
        if pattern == "~" and (patching or self.version >= (3,)):
            pattern = "%"
        terms = pattern.split("|") if self.version >= (3, 2) else [pattern]
        sources = [re.escape(term).replace("%", ".*").replace("_", ".") for term in terms]
        found = [
            dag
            for dag in self.world.dags()
            if any(re.search(source, dag.dag_id, re.IGNORECASE | re.DOTALL) for source in sources)
        ]
        if "tags" in query:
            found = [dag for dag in found if query["tags"] in dag.tags]
        if "paused" in query and (self.version >= (3,) or not patching):
            found = [dag for dag in found if dag.is_paused is (query["paused"] == "true")]
        return found

    def _page(self, key: str, elements: list[Any], query: Mapping[str, str]) -> dict[str, Any]:
        limit = int(query.get("limit", 50))
        if not (3, 0) <= self.version < (3, 2):
            limit = min(limit, 100)
        offset = int(query.get("offset", 0))
        return {key: elements[offset : offset + limit], "total_entries": len(elements)}

    def _patch_dags(self, query: Mapping[str, str], is_paused: bool) -> dict[str, Any]:
        found = self._matching(query, patching=True)
        if self.version >= (3,):
            random.Random(len(found)).shuffle(found)
        answer = self._page("dags", found, query)
        for dag in found if self.version >= (3, 3) else list(answer["dags"]):
            self.world.flip(dag.dag_id, is_paused=is_paused)
        return {**answer, "dags": [{**_dag(dag), "is_paused": is_paused} for dag in answer["dags"]]}


def _dag(dag: DagInfo) -> dict[str, Any]:
    return {"dag_id": dag.dag_id, "is_paused": dag.is_paused, "tags": [{"name": name} for name in sorted(dag.tags)]}


def _run(run: RunInfo) -> dict[str, Any]:
    return {"dag_id": run.dag_id, "dag_run_id": run.run_id, "state": run.state}
