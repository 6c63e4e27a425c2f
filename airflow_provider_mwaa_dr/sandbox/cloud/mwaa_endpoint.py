"""
The parts of Amazon MWAA that a failover needs, in front of the sandbox's Airflows: control plane, REST, web login.

moto has no ``mwaa``. Requests and answers follow botocore's service model (``botocore/data/mwaa``). Limits and error
codes follow the service's documentation. Code that works in the sandbox should also work in AWS. AWS does not document
what happens when Airflow's answer exceeds a limit of the service. This module returns a ``RestApiServerException``.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

ACCOUNT = "123456789012"
"""moto's account, which owns all environments."""
MAX_PATH = 64
MAX_CALLS = 10
CALLS_WINDOW_S = 1.0
REST_TIMEOUT_S = 10.0
MAX_RESPONSE_BYTES = 6 * 1024 * 1024
TOKEN_S = 60.0
SESSION_S = 12 * 3600.0
WEB_TIMEOUT_S = 60.0
"""Idle timeout of the load balancer in front of a web server."""

Rebuilding = Callable[[], "str | None"]
"""Returns None while an environment is being rebuilt, then the reason of the failure; empty after a success."""

_METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE")
_LOGS = ("DagProcessingLogs", "SchedulerLogs", "TaskLogs", "WebserverLogs", "WorkerLogs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """
    The real Airflow behind an emulated environment.

    :param region: its AWS region.
    :param name_of_site: id of its site; empty: the region.
    :param authorization: value of the ``Authorization`` header that its API accepts.
    :param status: the status in ``GetEnvironment``; tests and users may set it in ``config.json``.
    :param role: name of the execution role; empty for the environment's own name.
    :param bucket: for DAGs, requirements and plugins; empty for the environment's own name.
    :param described: further members of ``GetEnvironment`` at its creation: options, paths, versions.
    :param is_bare: whether an update rebuilds the Airflow, and the DAGs come from the bucket.
    """

    region: str
    name: str
    airflow_url: str
    airflow_version: str
    authorization: str
    status: str = "AVAILABLE"
    role: str = ""
    bucket: str = ""
    described: Mapping[str, Any] = field(default_factory=dict)
    is_bare: bool = False
    name_of_site: str = ""

    @property
    def site(self) -> str:
        """Id of its site."""
        return self.name_of_site or self.region

    @classmethod
    def from_json(cls, site: str, row: Mapping[str, Any]) -> Environment:
        """
        Return the environment of *site* that ``config.json`` describes. Its region is the id of the site, unless it has
        another one.

        :raises KeyError: a required member is missing.
        """
        auth = row["auth"]
        if "header" in auth:
            authorization = auth["header"]
        else:
            pair = f"{auth['username']}:{auth['password']}".encode()
            authorization = f"Basic {base64.b64encode(pair).decode()}"
        return cls(
            region=row.get("region", site),
            name_of_site=site,
            name=row["name"],
            airflow_url=row["airflow_url"].rstrip("/"),
            airflow_version=row["airflow_version"],
            authorization=authorization,
            status=row.get("status", "AVAILABLE"),
            role=row.get("role", ""),
            bucket=row.get("bucket", ""),
            described=row.get("described", {}),
            is_bare=row.get("is_bare", False),
        )

    @property
    def is_airflow_2(self) -> bool:
        """Whether its API is ``/api/v1`` and its login is ``/aws_mwaa/login``."""
        return self.airflow_version.startswith("2.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. ``path`` includes the query; header names are in lower case."""

    caller: str
    region: str | None
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def json_answer(status: int, document: object, **headers: str) -> Answer:
    """Return *document* as JSON; underscores in header names stand for dashes."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Answer(
        status=status, headers=(("Content-Type", "application/json"), *named), body=json.dumps(document).encode()
    )


def error_answer(status: int, code: str, message: str, **members: object) -> Answer:
    """Return an error of the rest-json protocol. *members* are the members of its shape other than the message."""
    return json_answer(status, {"message": message, **members}, x_amzn_ErrorType=code)


@dataclass(slots=True, kw_only=True)
class _Memory:
    """The service's data of one environment. Guarded by the endpoint's lock."""

    calls: deque[float] = field(default_factory=deque)
    changes: dict[str, Any] = field(default_factory=dict)
    pending: dict[str, Any] | None = None
    pending_until: float = 0.0
    rebuilding: Rebuilding | None = None
    failure: str = ""
    last_update: dict[str, Any] | None = None
    tokens: dict[str, float] = field(default_factory=dict)
    sessions: dict[str, float] = field(default_factory=dict)


class MwaaEndpoint:
    """
    The service. Thread-safe; a call never waits for the Airflow of another call.

    :param environment: returns a site's environment, None if it has none (yet).
    :param in_region: returns the environments in an AWS region; None: that of the site whose id is the region.
    :param web_port: returns the port of a site's web server for a caller, None if there is none.
    :param clock: monotonic seconds, for the limits, for the lifetime of tokens, and for updates.
    :param update_s: how long an update takes; 0 if it takes effect immediately. Until it ends, the environment is
        UPDATING, refuses other updates, and GetEnvironment returns the old values.
    :param has_object: whether a bucket has a version of an object (None for any version). MWAA refuses an update with a
        missing object.
    :param rebuild: starts to rebuild the Airflow of a bare environment with the changes of an update. The update ends
        when the rebuilding ends.
    :ivar fail_updates: while not empty, an update ends as UPDATE_FAILED with this message, and changes nothing.
    """

    def __init__(
        self,
        *,
        environment: Callable[[str], Environment | None],
        in_region: Callable[[str], Sequence[Environment]] | None = None,
        web_port: Callable[[str, str], int | None],
        clock: Callable[[], float] = time.monotonic,
        rest_timeout_s: float = REST_TIMEOUT_S,
        update_s: Callable[[], float] = lambda: 0.0,
        has_object: Callable[[str, str, str, str | None], bool] = lambda *_: True,
        rebuild: Callable[[Environment, Mapping[str, Any]], Rebuilding] = lambda *_: str,
    ) -> None:
        self._environment = environment
        self._in_region = in_region or (lambda region: [each for each in [environment(region)] if each is not None])
        self._web_port = web_port
        self._clock = clock
        self._rest_timeout_s = rest_timeout_s
        self._update_s = update_s
        self._has_object = has_object
        self._rebuild = rebuild
        self.fail_updates = ""
        self._lock = threading.Lock()
        self._memory: dict[str, _Memory] = {}
        self._started = time.time()

    def answer(self, request: Request) -> Answer:
        """Return the service's answer to a signed request; 404 for an unknown operation."""
        parts = [unquote(part) for part in urlsplit(request.path).path.split("/") if part]
        region = request.region or ""
        environments = {environment.name: environment for environment in self._in_region(region)}
        if parts == ["environments"] and request.method == "GET":
            return json_answer(200, {"Environments": list(environments)})
        if len(parts) != 2:
            return error_answer(404, "UnknownOperationException", f"{request.method} {request.path}")
        kind, name = parts
        environment = environments.get(name)
        if environment is None:
            return error_answer(
                404, "ResourceNotFoundException", f"No environment found with name {name} in {region or 'no region'}."
            )
        match (request.method, kind):
            case ("GET", "environments"):
                return json_answer(200, {"Environment": self._describe(environment, request.caller)})
            case ("PATCH", "environments"):
                return self._update(environment, request.body)
            case ("POST", "restapi"):
                return self._invoke_rest_api(environment, request.body)
            case ("POST", "webtoken"):
                return self._create_web_login_token(environment, request.caller)
        return error_answer(404, "UnknownOperationException", f"{request.method} {request.path}")

    def environment_of(self, request: Request) -> Environment | None:
        """Return the environment that a signed request names in its path; None if it names none."""
        parts = [unquote(part) for part in urlsplit(request.path).path.split("/") if part]
        found = self._in_region(request.region or "")
        return next((each for each in found if len(parts) == 2 and each.name == parts[1]), None)

    def web_answer(self, request: Request) -> Answer:
        """
        Return the answer of a region's web server: the login, and Airflow's API for callers with a session.

        The session comes from the cookie, or from a bearer token, which Airflow 3's own clients send.
        """
        environment = self._environment(request.region or "")
        if environment is None:
            return json_answer(503, {"detail": f"No environment in {request.region} yet."})
        path = urlsplit(request.path).path
        if path == ("/aws_mwaa/login" if environment.is_airflow_2 else "/pluginsv2/aws_mwaa/login"):
            if request.method != "POST":
                return json_answer(405, {"detail": "Method Not Allowed"}, Allow="POST")
            return self._log_in(environment, request.body)
        if not path.startswith(("/api/v1/", "/api/v2/")):
            return json_answer(404, {"detail": "Not Found"})
        if not self._has_session(environment, request.headers):
            return json_answer(401, {"detail": "Not authenticated"})
        try:
            return _call_airflow(
                environment,
                request.method,
                request.path,
                request.body,
                timeout_s=WEB_TIMEOUT_S,
                content_type=request.headers.get("content-type"),
            )
        except (OSError, HTTPException):
            return json_answer(502, {"detail": "Bad Gateway"})

    def _of(self, environment: Environment) -> _Memory:
        return self._memory.setdefault(environment.site, _Memory())

    def _describe(self, environment: Environment, caller: str) -> dict[str, Any]:
        port = self._web_port(caller, environment.site)
        with self._lock:
            memory = self._of(environment)
            status = self._status(environment, memory)
            changes, last_update = dict(memory.changes), memory.last_update
        role = f"arn:aws:iam::{ACCOUNT}:role"
        updated = {"LastUpdate": last_update} if last_update else {}
        return {
            "Name": environment.name,
            "Status": status,
            "Arn": _arn(environment),
            "CreatedAt": self._started,
            "WebserverUrl": f"127.0.0.1:{port}" if port else None,
            "WebserverAccessMode": "PUBLIC_ONLY",
            "ExecutionRoleArn": f"{role}/service-role/{environment.role or environment.name}",
            "ServiceRoleArn": f"{role}/aws-service-role/airflow.amazonaws.com/AWSServiceRoleForAmazonMWAA",
            "AirflowVersion": environment.airflow_version,
            "SourceBucketArn": f"arn:aws:s3:::{environment.bucket or environment.name}",
            "DagS3Path": "dags",
            "AirflowConfigurationOptions": {},
            "EnvironmentClass": "mw1.small",
            "MinWorkers": 1,
            "MaxWorkers": 1,
            "Schedulers": 2,
            "Tags": {},
            "LoggingConfiguration": {name: {"Enabled": True, "LogLevel": "INFO"} for name in _LOGS},
            **environment.described,
            **updated,
            **changes,
        }

    def _update(self, environment: Environment, body: bytes) -> Answer:
        # MWAA needs 20 to 30 minutes. This service needs the time that its creator has set.
        try:
            changes = _json_object(body)
            self._require_objects(environment, changes)
        except ValueError as error:
            return error_answer(400, "ValidationException", str(error))
        with self._lock:
            memory = self._of(environment)
            status = self._status(environment, memory)
            if status not in {"AVAILABLE", "UPDATE_FAILED"}:
                return error_answer(
                    400, "ValidationException", f"Environment {environment.name} cannot be updated while it is {status}"
                )
            memory.pending, memory.pending_until = changes, self._clock() + self._update_s()
            memory.failure = self.fail_updates
            memory.rebuilding = self._rebuild(environment, changes) if environment.is_bare else None
            memory.last_update = {"Status": "PENDING", "CreatedAt": time.time()}
        return json_answer(200, {"Arn": _arn(environment)})

    def _status(self, environment: Environment, memory: _Memory) -> str:
        """Return the current status, after ending an update whose time is over."""
        if memory.pending is None:
            return "UPDATE_FAILED" if memory.failure and environment.status == "AVAILABLE" else environment.status
        if self._clock() < memory.pending_until:
            return "UPDATING"
        if memory.rebuilding is not None:
            failure = memory.rebuilding()
            if failure is None:
                return "UPDATING"
            memory.failure = failure
        ended: dict[str, Any] = {"CreatedAt": (memory.last_update or {}).get("CreatedAt")}
        if memory.failure:
            error = {"ErrorCode": "INCORRECT_CONFIGURATION", "ErrorMessage": memory.failure}
            memory.last_update = {**ended, "Status": "FAILED", "Error": error}
        else:
            memory.changes.update(memory.pending)
            memory.last_update = {**ended, "Status": "SUCCESS"}
        memory.pending = None
        return self._status(environment, memory)

    def _require_objects(self, environment: Environment, changes: Mapping[str, Any]) -> None:
        """Check the values of an update. :raises ValueError: an option is empty, or an object is not in the bucket."""
        options = changes.get("AirflowConfigurationOptions") or {}
        if empty := sorted(name for name, text in options.items() if not text):
            raise ValueError(f"Values of configuration options cannot be empty: {', '.join(empty)}")
        bucket = environment.bucket or environment.name
        for path, version in (
            ("RequirementsS3Path", "RequirementsS3ObjectVersion"),
            ("PluginsS3Path", "PluginsS3ObjectVersion"),
        ):
            key = changes.get(path)
            if key and not changes.get(version):
                raise ValueError(f"{version} is required when {path} is given")
            if key and not self._has_object(environment.region, bucket, key, changes.get(version)):
                raise ValueError(f"{key} (version {changes.get(version)}) cannot be found in the bucket {bucket}")

    def _invoke_rest_api(self, environment: Environment, body: bytes) -> Answer:
        try:
            invocation = _json_object(body)
            path, method = _checked(invocation)
            query = _query(invocation.get("QueryParameters"))
        except ValueError as error:
            return error_answer(400, "ValidationException", str(error))
        if not self._may_call(environment):
            return error_answer(429, "ThrottlingException", "Rate exceeded")
        sent = invocation.get("Body")
        version = "v1" if environment.is_airflow_2 else "v2"
        try:
            answer = _call_airflow(
                environment,
                method,
                f"/api/{version}/{path.lstrip('/')}{query}",
                b"" if sent is None else json.dumps(sent).encode(),
                timeout_s=self._rest_timeout_s,
                content_type=None if sent is None else "application/json",
            )
        except TimeoutError:
            return _rest_error(504, {"message": f"Airflow did not answer within {self._rest_timeout_s:g} seconds."})
        except (OSError, HTTPException) as error:
            return _rest_error(502, {"message": f"Airflow cannot be reached: {error}"})
        if len(answer.body) > MAX_RESPONSE_BYTES:
            return _rest_error(
                502,
                {"message": f"The response has {len(answer.body)} bytes; at most {MAX_RESPONSE_BYTES} are allowed."},
            )
        try:
            document = json.loads(answer.body or b"{}")
        except ValueError:
            document = {"message": answer.body.decode(errors="replace")}
        if answer.status >= 400:
            return _rest_error(answer.status, document)
        return json_answer(200, {"RestApiStatusCode": answer.status, "RestApiResponse": document})

    def _may_call(self, environment: Environment) -> bool:
        now = self._clock()
        with self._lock:
            calls = self._of(environment).calls
            while calls and calls[0] <= now - CALLS_WINDOW_S:
                calls.popleft()
            if len(calls) >= MAX_CALLS:
                return False
            calls.append(now)
            return True

    def _create_web_login_token(self, environment: Environment, caller: str) -> Answer:
        port = self._web_port(caller, environment.site)
        if port is None:
            return error_answer(500, "InternalServerException", f"{caller} has no web port for {environment.site}.")
        token = secrets.token_urlsafe(32)
        with self._lock:
            _keep(self._of(environment).tokens, token, now=self._clock(), life_s=TOKEN_S)
        return json_answer(
            200,
            {
                "WebToken": token,
                "WebServerHostname": f"127.0.0.1:{port}",
                "IamIdentity": f"arn:aws:iam::{ACCOUNT}:user/{caller}",
                "AirflowIdentity": "admin",
            },
        )

    def _log_in(self, environment: Environment, body: bytes) -> Answer:
        token = parse_qs(body.decode(errors="replace")).get("token", [""])[0]
        session = secrets.token_urlsafe(32)
        now = self._clock()
        with self._lock:
            memory = self._of(environment)
            if memory.tokens.pop(token, now) <= now:
                return json_answer(403, {"detail": "The login token is unknown, used or expired."})
            _keep(memory.sessions, session, now=now, life_s=SESSION_S)
        # Airflow 2's web server uses the cookie "session". The provider's clients read "_token" for both versions.
        names = ("_token", "session") if environment.is_airflow_2 else ("_token",)
        cookies = tuple(
            ("Set-Cookie", f"{name}={session}; Path=/; HttpOnly; Max-Age={SESSION_S:.0f}") for name in names
        )
        return Answer(status=200, headers=(("Content-Type", "text/html; charset=utf-8"), *cookies))

    def _has_session(self, environment: Environment, headers: Mapping[str, str]) -> bool:
        try:
            sent = {morsel.value for morsel in SimpleCookie(headers.get("cookie", "")).values()}
        except CookieError:
            sent = set()
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            sent.add(token.strip())
        now = self._clock()
        with self._lock:
            sessions = self._of(environment).sessions
            return any(sessions.get(session, now) > now for session in sent)


def _arn(environment: Environment) -> str:
    return f"arn:aws:airflow:{environment.region}:{ACCOUNT}:environment/{environment.name}"


def _json_object(body: bytes) -> dict[str, Any]:
    document = json.loads(body or b"{}")
    if not isinstance(document, dict):
        raise ValueError("The request body is not a JSON object.")
    return document


def _checked(invocation: Mapping[str, Any]) -> tuple[str, str]:
    path, method = invocation.get("Path"), invocation.get("Method")
    if not (isinstance(path, str) and 1 <= len(path) <= MAX_PATH):
        raise ValueError(
            f"1 validation error detected: Value '{path}' at 'path' failed to satisfy constraint: "
            f"Member must have length between 1 and {MAX_PATH}, inclusive"
        )
    if method not in _METHODS:
        raise ValueError(
            f"1 validation error detected: Value '{method}' at 'method' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(_METHODS)}]"
        )
    return path, method


def _query(parameters: Any) -> str:
    if not parameters:
        return ""
    if not isinstance(parameters, dict):
        raise ValueError("QueryParameters is not a JSON object.")
    pairs = [
        (name, _text(value))
        for name, values in parameters.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return f"?{urlencode(pairs)}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _rest_error(status: int, document: object) -> Answer:
    # Both errors have HTTP status 400, so botocore retries neither.
    code = "RestApiServerException" if status >= 500 else "RestApiClientException"
    return error_answer(400, code, "", RestApiStatusCode=status, RestApiResponse=document)


def _keep(memory: dict[str, float], key: str, *, now: float, life_s: float) -> None:
    for old in [old for old, ends in memory.items() if ends <= now]:
        del memory[old]
    memory[key] = now + life_s


def _call_airflow(
    environment: Environment, method: str, path: str, body: bytes, *, timeout_s: float, content_type: str | None
) -> Answer:
    """Call the real Airflow. :raises OSError, HTTPException: it did not answer in time."""
    at = urlsplit(environment.airflow_url)
    headers = {"Authorization": environment.authorization, "Accept": "application/json"}
    if content_type:
        headers["Content-Type"] = content_type
    # A new connection for each call, so that none is stale after a kill and a revive.
    connection = HTTPConnection(at.hostname or "127.0.0.1", at.port or 80, timeout=timeout_s)
    try:
        connection.request(method, f"{at.path}{path}", body=body or None, headers=headers)
        response = connection.getresponse()
        return Answer(
            status=response.status,
            headers=(("Content-Type", response.headers.get("Content-Type", "application/json")),),
            body=response.read(),
        )
    finally:
        connection.close()
