"""A DynamoDB for tests: moto behind a real socket, one request at a time, with optional faults."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from airflow_provider_mwaa_dr.aws.dynamodb.limits import why_request_is_refused

HOME = "us-east-2"
"""All regions use the table in this region, like the replicas of a strongly consistent global table."""


class AwsServer:
    """
    moto as an AWS with one strongly consistent table for all regions.

    moto's conditional writes are not atomic for parallel requests, so the server handles one request at a time. moto
    accepts some requests that DynamoDB refuses; the server refuses them.

    :ivar before: called with (region, operation) before a request is carried out; True: cut the connection instead.
    :ivar after: called with (region, operation) after a request was carried out; True: the answer is lost.
    :ivar refuse: called with (region, operation); returns the code of the error to answer, optionally with ``:
        MESSAGE``; empty: no error.
    :ivar environments: handlers of requests about an MWAA environment, by its name; moto supports few of them.
    :ivar requests: (region, operation) of every request, in order.
    :ivar conditions_failed: number of writes whose condition failed.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.reset()

    def reset(self) -> None:
        """Remove all faults, and clear the list of requests."""
        self.before: Callable[[str, str], bool] = lambda region, operation: False
        self.after: Callable[[str, str], bool] = lambda region, operation: False
        self.refuse: Callable[[str, str], str] = lambda region, operation: ""
        self.environments: dict[str, Callable[[dict[str, Any], Any], Iterable[bytes]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.conditions_failed = 0

    def start(self) -> None:
        """Serve in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/", authorization)
        region = scope.group(1) if scope else ""
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        self.requests.append((region, operation))
        name = environ.get("PATH_INFO", "").rpartition("/")[2]
        if name in self.environments:
            return self.environments[name](environ, start_response)
        environ["HTTP_AUTHORIZATION"] = authorization.replace(f"/{region}/", f"/{HOME}/")
        if self.before(region, operation):
            return self._cut(environ)
        body_of_request = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body_of_request)
        refused = self.refuse(region, operation)
        if not refused and (too_much := why_request_is_refused(operation, json.loads(body_of_request or b"{}"))):
            refused = f"ValidationException: {too_much}"
        if refused:
            code, _, message = refused.partition(": ")
            start_response("400 .", [("Content-Type", "application/x-amz-json-1.0")])
            error = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message or code}
            return [json.dumps(error).encode()]
        with self._lock:
            body = list(self._app(environ, start_response))
            self.conditions_failed += any(b"ConditionalCheckFailed" in part for part in body)
        return self._cut(environ) if self.after(region, operation) else body

    @staticmethod
    def _cut(environ: dict[str, Any]) -> Iterable[bytes]:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []


class CutOff:
    """
    A network that fails at the request with the number *at*, and at all later ones if the caller has ended.

    :param refuses: code of an error to answer instead.
    :ivar asked: number of requests.
    """

    def __init__(self, aws: AwsServer, at: int, *, has_landed: bool = False, ends: bool, refuses: str = "") -> None:
        self.asked = 0

        def fails() -> bool:
            return (ends and self.asked > at) or (self.asked == at and not has_landed)

        def count(region: str, operation: str) -> bool:
            self.asked += 1
            return fails() and not refuses

        aws.before = count
        aws.refuse = lambda region, operation: refuses if fails() else ""
        aws.after = lambda region, operation: self.asked == at and has_landed


def no_such_environment(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """MWAA without an environment: it answers each call immediately. Use it as one of ``AwsServer.environments``."""
    headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", "ResourceNotFoundException")]
    start_response("404 .", headers)
    return [b'{"message": "There is none."}']
