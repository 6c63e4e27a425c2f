"""
The AWS of the sandbox: one process, on loopback only.

``python -m airflow_provider_mwaa_dr.sandbox.cloud.aws_server --home HOME`` reads ``HOME/aws/config.json``, binds the
ports in it, prints ``ready`` and serves until SIGTERM. The server knows the caller from the port: each region and the
control environment has its own. It knows the service and the target region from the scope of the request's signature.
So the server can emulate a lost region (target), a cut-off region (caller) and both state models, although all callers
use unmodified boto3 and a single ``AWS_ENDPOINT_URL``. The services come from moto, except MWAA
(:mod:`.mwaa_endpoint`) and what moto lacks for the data of pipelines: :mod:`.bucket_copies`, :mod:`.global_databases`
and :mod:`.secret_replicas`.

For each request, the server checks ``HOME/aws/faults.json`` (:mod:`.faults`) and writes a line to
``HOME/aws/requests.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from xml.etree import ElementTree  # nosec B405

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import EnvironBuilder, run_wsgi_app

from airflow_provider_mwaa_dr.aws.dynamodb.limits import why_request_is_refused
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.sandbox.cloud import faults
from airflow_provider_mwaa_dr.sandbox.cloud.faults import FaultKind, InjectedFault
from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import (
    Answer,
    Environment,
    MwaaEndpoint,
    Rebuilding,
    Request,
    error_answer,
)
from airflow_provider_mwaa_dr.sandbox.cloud.replication import WRITES, Replication
from airflow_provider_mwaa_dr.sandbox.runtime.dag_sync import DagSync
from airflow_provider_mwaa_dr.sandbox.runtime.home import Home

if TYPE_CHECKING:
    from airflow_provider_mwaa_dr.sandbox.cloud.bucket_copies import BucketCopies
    from airflow_provider_mwaa_dr.sandbox.cloud.global_databases import GlobalDatabases

log = get_logger(__name__)

_UPDATE = "airflow_provider_mwaa_dr.sandbox.runtime.update"
_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
_HOLD_CHECK_S = 0.25
_S3_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_DYNAMODB_ERRORS = "com.amazonaws.dynamodb.v20120810#"
_AWS_ERRORS = "com.amazon.coral.service#"
_DATABASE_OPERATIONS = {"DescribeGlobalClusters", "FailoverGlobalCluster", "SwitchoverGlobalCluster"}
"""Operations on Aurora global databases that moto lacks, or answers without regard to the identifier."""

_UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, DRError)
"""Errors of reading a file that users or other processes wrote."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """
    The content of ``config.json``.

    :param state_model: ``strong``: all regions use the same DynamoDB, that of *state_region*. ``eventual``: each region
        has its own DynamoDB, and writes are copied to the others (:mod:`.replication`). ``each its own``: each region
        has its own DynamoDB, and nothing is copied.
    :param lag_s: the longest time until a write is copied.
    :param callers: port by caller.
    :param web: port by caller and region, for the web servers of the environments.
    :param environments: by site; may be added while the server runs.
    :param update_s: how long an update of an environment takes.
    :param data_lag_s: the longest time until an object is in the bucket's replica; how long the switch of a global
        database takes.
    """

    state_model: str
    state_region: str
    lag_s: float
    callers: Mapping[str, int]
    web: Mapping[str, Mapping[str, int]]
    environments: Mapping[str, Environment]
    update_s: float = 0.0
    data_lag_s: float = 0.0


def load_config(path: Path) -> ServerConfig:
    """Return the configuration in *path*. :raises OSError, ValueError, KeyError, TypeError, AttributeError: invalid."""
    row = json.loads(path.read_text(encoding="utf-8"))
    return ServerConfig(
        state_model=row["state_model"],
        state_region=row["state_region"],
        lag_s=float(row.get("lag_s", 0)),
        callers=row["callers"],
        web=row.get("web", {}),
        environments={
            site: Environment.from_json(site, environment) for site, environment in row.get("environments", {}).items()
        },
        update_s=float(row.get("update_s", 0.0)),
        data_lag_s=float(row.get("data_lag_s", 0.0)),
    )


class WatchedFile(Generic[T]):
    """
    A file that is read again after a change. A check for a change costs one stat.

    If the new content cannot be used, this is logged once, and the previous content stays valid.
    """

    def __init__(self, path: Path, load: Callable[[Path], T]) -> None:
        self._path = path
        self._load = load
        self._lock = threading.Lock()
        self._version = self._read_version()
        self._value = load(path)

    def __call__(self) -> T:
        """Return the file's content."""
        with self._lock:
            version = self._read_version()
            if version != self._version:
                self._version = version
                try:
                    self._value = self._load(self._path)
                except _UNUSABLE as error:
                    log.error("%s cannot be used (%r). The previous content stays valid.", self._path, error)
            return self._value

    def _read_version(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


class RequestLog:
    """``requests.jsonl``: one JSON object per line; only complete lines are appended."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, row: Mapping[str, object]) -> None:
        """Append *row*."""
        line = json.dumps(row) + "\n"
        with self._lock:
            if not self._file.closed:
                self._file.write(line)

    def close(self) -> None:
        """Close the file. Later requests are not logged."""
        with self._lock:
            self._file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port that the server listens on. ``region`` is that of a web server; None for signed AWS requests."""

    number: int
    caller: str
    region: str | None = None


class AwsServer:
    """
    All ports of one home, and the services behind them.

    :param home: the sandbox's home, with ``aws/config.json``.
    :param clock: monotonic seconds, for the times of the emulated MWAA.
    :raises OSError: a port is in use, or the configuration cannot be read.
    """

    def __init__(self, home: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        folder = home / "aws"
        self.config = WatchedFile(folder / "config.json", load_config)
        self.faults = WatchedFile(folder / "faults.json", faults.load)
        self.log = RequestLog(folder / "requests.jsonl")
        self.mwaa = MwaaEndpoint(
            environment=self._environment,
            in_region=self._in_region,
            web_port=lambda caller, region: self.config().web.get(caller, {}).get(region),
            clock=clock,
            update_s=lambda: self.config().update_s,
            has_object=self._has_object,
            rebuild=self._rebuild,
        )
        self._home = Home(home)
        self._clock = clock
        self._dags = DagSync(self._dags_folders, self._bucket_dags)
        self.stopping = threading.Event()
        self._moto = DomainDispatcherApplication(create_backend_app)
        # moto's conditional writes are not atomic: without this lock, sometimes two of sixteen concurrent writers win.
        # Its deletion of an SQS message is not atomic either: it may delete a message that is just being sent.
        self._one_at_a_time = threading.Lock()
        self._replication = Replication(
            self._dynamodb,
            lock=self._one_at_a_time,
            regions=lambda: {region for regions in self.config().web.values() for region in regions},
            lag_s=lambda: self.config().lag_s,
            fault=lambda source, target: self._fault_between("dynamodb", source, target),
        )
        self._wake, self._waker = socket.socketpair()
        self._listeners = [(self._listen(port.number), port) for port in self._ports()]

    def warm_up(self) -> None:
        """Load moto's DynamoDB: on a busy machine this takes longer than the provider's timeout for an answer."""
        self._dynamodb("us-east-1", "ListTables", {})

    def serve(self) -> None:
        """Accept connections until :meth:`stop`, with one thread each. It needs no CPU time while idle."""
        self._dags.start()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            for listener, port in self._listeners:
                selector.register(listener, selectors.EVENT_READ, port)
            while not self.stopping.is_set():
                for key, _ in selector.select():
                    if key.data is not None and isinstance(key.fileobj, socket.socket):
                        self._accept(key.fileobj, key.data)
        for listener, _ in self._listeners:
            listener.close()

    def stop(self) -> None:
        """End :meth:`serve`, and close the connections in black holes. Safe in a signal handler."""
        self.stopping.set()
        self._waker.send(b"x")

    def close(self) -> None:
        """Close the remaining resources. :meth:`serve` must have ended."""
        self._dags.stop()
        self._wake.close()
        self._waker.close()
        self.log.close()

    def answer(self, request: Request, service: str) -> Answer:
        """Return the answer of a service to a signed request that has no fault."""
        if service == "mwaa":
            return self.mwaa.answer(request)
        region = request.region
        if service == "dynamodb" and self.config().state_model == "strong":
            region = self.config().state_region
        operation = _operation(request, service)["operation"]
        if service == "dynamodb" and (refused := why_request_is_refused(operation, json.loads(request.body))):
            # DynamoDB refuses this request, but moto would accept it.
            content_type = request.headers.get("content-type", "")
            return _target_json(400, "com.amazon.coral.validate#ValidationException", refused, content_type)
        if service == "rds" and operation in _DATABASE_OPERATIONS:
            with self._one_at_a_time:
                return self._databases.answer(request, operation)
        if service == "secretsmanager" and operation == "StopReplicationToReplica":
            return self._stop_replication(request)
        # ReceiveMessage waits for a message, and must not hold the lock that SendMessage needs.
        if service not in {"dynamodb", "sqs", "cloudformation"} or operation == "ReceiveMessage":
            answer = self._call_moto(request, region)
            if service == "s3" and request.method not in {"GET", "HEAD"}:
                self._dags.wake()
                if answer.status == 200:
                    with self._one_at_a_time:
                        self._bucket_copies.written(request, answer)
            return answer
        with self._one_at_a_time:
            if service == "cloudformation":
                # Imported here, because it imports most of moto, which takes seconds, and few sandboxes need it.
                from airflow_provider_mwaa_dr.sandbox.cloud import global_table  # noqa: PLC0415

                global_table.register()
            answer = self._call_moto(request, region)
            is_copied = self.config().state_model == "eventual"
            if is_copied and service == "dynamodb" and operation in WRITES and answer.status == 200 and region:
                self._replication.written(region, operation, json.loads(request.body))
            return answer

    # The modules of these services import parts of moto that take seconds to load, and few sandboxes need them.

    @cached_property
    def _databases(self) -> GlobalDatabases:
        from airflow_provider_mwaa_dr.sandbox.cloud.global_databases import GlobalDatabases  # noqa: PLC0415

        return GlobalDatabases(
            clock=self._clock,
            switch_s=lambda: self.config().data_lag_s,
            is_cut=lambda source, target: faults.cuts(self._fault_between("rds", source, target)),
        )

    @cached_property
    def _bucket_copies(self) -> BucketCopies:
        from airflow_provider_mwaa_dr.sandbox.cloud.bucket_copies import BucketCopies  # noqa: PLC0415

        return BucketCopies(
            self._ask_s3,
            lag_s=lambda: self.config().data_lag_s,
            fault=lambda source, target: self._fault_between("s3", source, target),
        )

    def _stop_replication(self, request: Request) -> Answer:
        from airflow_provider_mwaa_dr.sandbox.cloud import secret_replicas  # noqa: PLC0415

        content_type = "application/x-amz-json-1.1"
        try:
            arn = secret_replicas.stop_replication(request.region or "", json.loads(request.body)["SecretId"])
        except secret_replicas.NotAReplicaError as error:
            code, message = error.args
            return _target_json(400, code, message, content_type)
        return Answer(
            status=200, headers=(("Content-Type", content_type),), body=json.dumps({"ARN": arn}).encode()
        )  # fmt: skip

    def _fault_between(self, service: str, source: str, target: str) -> InjectedFault | None:
        """Return the fault that separates a service of two regions."""
        return faults.match(self.faults(), service=service, caller=source, target=target)

    def _has_object(self, region: str, bucket: str, key: str, version: str | None) -> bool:
        named = f"?versionId={quote(version)}" if version else ""
        return self._ask_s3(region, "HEAD", f"/{quote(bucket)}/{quote(key)}{named}").status == 200

    def _bucket_dags(self, site: str) -> Mapping[str, bytes]:
        """Return the files in the DAGs folder of a site's bucket, by path relative to that folder."""
        environment = self.config().environments[site]
        region = environment.region
        bucket = f"/{quote(environment.bucket)}"
        prefix = environment.described.get("DagS3Path", "dags").strip("/") + "/"
        found: dict[str, bytes] = {}
        more: str | None = ""
        while more is not None:
            query = {"list-type": "2", "prefix": prefix, **({"continuation-token": more} if more else {})}
            page = self._ask_s3(region, "GET", f"{bucket}?{urlencode(query)}")
            if page.status != 200:  # the bucket is still being created
                return {}
            # moto, in this process, wrote the page.
            listed = ElementTree.fromstring(page.body)  # nosec B314
            for key in (element.text or "" for element in listed.iter(f"{_S3_NAMESPACE}Key")):
                if not key.endswith("/"):
                    found[key.removeprefix(prefix)] = self._ask_s3(region, "GET", f"{bucket}/{quote(key)}").body
            more = listed.findtext(f"{_S3_NAMESPACE}NextContinuationToken")
        return found

    def _dags_folders(self) -> Mapping[str, Path]:
        return {
            site: self._home.region_folder(site) / "dags"
            for site, environment in self.config().environments.items()
            if environment.is_bare
        }

    def _ask_s3(self, region: str, method: str, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request to S3, as the environment's service role or S3's replication does."""
        scope = f"Credential=sandbox/20260101/{region}/s3/aws4_request"
        request = Request(
            method=method,
            path=path,
            headers={"authorization": f"AWS4-HMAC-SHA256 {scope}", "host": "127.0.0.1", **(headers or {})},
            body=b"",
            caller="mwaa",
            region=region,
        )
        answer = self._call_moto(request, region)
        if method not in {"GET", "HEAD"}:
            self._dags.wake()
        return answer

    def _rebuild(self, environment: Environment, changes: Mapping[str, Any]) -> Rebuilding:
        """
        Start a process that rebuilds the Airflow. Like a command of the sandbox, it uses the home's lock and files.

        The process belongs to this server's session, and ends with it.
        """
        log_path = self._home.log(environment.site, "update")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("a") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", _UPDATE, "--home", str(self._home), environment.site],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True,
            )  # fmt: skip
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as stdin:  # not an argument: options may be secrets
            json.dump(changes, stdin)
        outcome: list[str] = []

        def poll() -> str | None:
            if process.poll() is None:
                return None
            if not outcome and process.stdout is not None:
                with process.stdout as output:
                    outcome.append(output.read().strip())
            failure = outcome[0] or f"The update ended with {process.returncode}; see {log_path}."
            return "" if process.returncode == 0 else failure

        return poll

    def _environment(self, site: str) -> Environment | None:
        return self.config().environments.get(site)

    def _in_region(self, region: str) -> Sequence[Environment]:
        return [each for each in self.config().environments.values() if each.region == region]

    def _ports(self) -> list[Port]:
        config = self.config()
        return [Port(number=number, caller=caller) for caller, number in config.callers.items()] + [
            Port(number=number, caller=caller, region=region)
            for caller, regions in config.web.items()
            for region, number in regions.items()
        ]

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        listener.setblocking(False)
        return listener

    def _accept(self, listener: socket.socket, port: Port) -> None:
        try:
            connection, address = listener.accept()
        except OSError:  # the client has closed the connection
            return
        connection.setblocking(True)
        threading.Thread(
            target=self._serve_connection, args=(connection, address, port), name=f"aws-{port.number}", daemon=True
        ).start()

    def _serve_connection(self, connection: socket.socket, address: tuple[str, int], port: Port) -> None:
        try:
            _Handler(connection, address, self, port)
        except OSError as error:
            log.debug("Connection of %s ended: %s", port.caller, error)
        finally:
            connection.close()

    def _dynamodb(self, region: str, operation: str, parameters: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Send a request of the server itself, and return the answer; None if DynamoDB refused it."""
        request = Request(
            method="POST",
            path="/",
            headers={
                "authorization": f"AWS4-HMAC-SHA256 Credential=sandbox/20260101/{region}/dynamodb/aws4_request",
                "content-type": "application/x-amz-json-1.0",
                "x-amz-target": f"DynamoDB_20120810.{operation}",
            },
            body=json.dumps(parameters).encode(),
            caller="",
            region=region,
        )
        answer = self._call_moto(request, region)
        found: Mapping[str, Any] | None = json.loads(answer.body) if answer.status == 200 else None
        return found

    def _call_moto(self, request: Request, region: str | None) -> Answer:
        # Without the user agent: moto would read the region from it instead of from the signature.
        headers = {name: value for name, value in request.headers.items() if name != "user-agent"}
        if region and request.region:
            headers["authorization"] = headers["authorization"].replace(f"/{request.region}/", f"/{region}/", 1)
        path = urlsplit(request.path)
        environ = EnvironBuilder(
            path=path.path,
            query_string=path.query,
            method=request.method,
            base_url=f"http://{headers.get('host', '127.0.0.1')}",
            headers=list(headers.items()),
            data=request.body,
        ).get_environ()
        body, status, answered = run_wsgi_app(self._moto, environ)
        return Answer(status=int(status.split()[0]), headers=tuple(answered), body=b"".join(body))


@dataclass(frozen=True, slots=True)
class _Target:
    """
    What receives a request.

    :param region: AWS region.
    :param site: the site whose MWAA environment receives it; None if it is for another service.
    :param table: the table of DynamoDB.
    """

    service: str
    region: str | None
    site: str | None
    table: str | None


class _Handler(BaseHTTPRequestHandler):
    """One persistent connection. Its port identifies the caller and, on a web port, the site."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, connection: socket.socket, address: tuple[str, int], server: AwsServer, port: Port) -> None:
        self.aws = server
        self.port = port
        # The base class only stores the socketserver.
        super().__init__(connection, address, None)  # type: ignore[arg-type]

    def _respond(self) -> None:
        started = time.monotonic()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # the caller was killed while it sent the request, so ignore it
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        scope = _SCOPE.search(headers.get("authorization", "")) if self.port.region is None else None
        region = scope["region"] if scope else self.port.region
        service = _service(scope["service"] if scope else "mwaa" if self.port.region else "unknown")
        request = Request(
            caller=self.port.caller, region=region, method=self.command, path=self.path, headers=headers, body=body
        )
        row = {"caller": request.caller, "target": region, "service": service, **_operation(request, service)}
        target = self._target(request, service)
        fault = self._fault(target)
        kind = fault.fault if fault else None
        if kind in {FaultKind.BLACKHOLE, FaultKind.REFUSE}:
            # Log it before the wait, because a black hole may last as long as the sandbox.
            self._log(row, started, None, kind)
            self._drop(target, hold=kind is FaultKind.BLACKHOLE)
            return
        if fault and kind is FaultKind.DELAY:
            self.aws.stopping.wait(fault.seconds or 0)
        answer = self._answer(request, service, kind)
        self._log(row, started, answer, kind)
        self._send(answer)

    # http.server calls these methods by name.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _respond

    def _target(self, request: Request, service: str) -> _Target:
        """Return what receives a request."""
        region, site = request.region, self.port.region
        if site is not None:
            found = self.aws.config().environments.get(site)
            region = found.region if found else site
        elif service == "mwaa" and (named := self.aws.mwaa.environment_of(request)):
            site = named.site
        return _Target(service, region, site, _table(request) if service == "dynamodb" else None)

    def _fault(self, target: _Target) -> InjectedFault | None:
        return faults.match(
            self.aws.faults(),
            service=target.service,
            caller=self.port.caller,
            target=target.region,
            site=target.site,
            dynamodb_table=target.table,
        )

    def _answer(self, request: Request, service: str, kind: FaultKind | None) -> Answer:
        if kind in _ERRORS:
            return protocol_error(request, service, _ERRORS[kind])
        try:
            return self.aws.mwaa.web_answer(request) if self.port.region else self.aws.answer(request, service)
        except Exception:
            log.exception("%s %s of %s failed", request.method, service, request.caller)
            return protocol_error(request, service)

    def _drop(self, target: _Target, *, hold: bool) -> None:
        self.close_connection = True
        if hold:
            while not self.aws.stopping.wait(_HOLD_CHECK_S) and self._is_black_hole(target):
                if self._client_has_left():
                    return
        # With a linger time of 0, closing resets the connection.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _is_black_hole(self, target: _Target) -> bool:
        fault = self._fault(target)
        return fault is not None and fault.fault is FaultKind.BLACKHOLE

    def _client_has_left(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False

    def _log(self, row: dict[str, Any], started: float, answer: Answer | None, kind: FaultKind | None) -> None:
        if row["service"] == "dynamodb" and answer and answer.status == 400:
            # The text is also in the cancellation reasons of a transaction.
            row = {**row, "condition_failed": True} if b"ConditionalCheckFailed" in answer.body else row
        self.aws.log.write(
            {
                "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                **row,
                "status": answer.status if answer else None,
                "ms": round((time.monotonic() - started) * 1000, 1),
                "fault": kind.value if kind else None,
            }
        )

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Send http.server's messages to the debug log, because the request log has all requests."""
        log.debug(format, *args)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """
    One error, as HTTP status and code for each protocol. DynamoDB and S3 have their own codes.

    :param by_target: for services with JSON and ``X-Amz-Target``.
    :param query: for services with form parameters.
    :param rest: for services with REST paths, such as MWAA.
    """

    message: str
    dynamodb: tuple[int, str]
    s3: tuple[int, str]
    by_target: tuple[int, str]
    query: tuple[int, str]
    rest: tuple[int, str]


_INTERNAL = _Error(
    message="The request processing has failed because of an unknown error.",
    dynamodb=(500, "InternalServerError"),
    s3=(500, "InternalError"),
    by_target=(500, "InternalFailure"),
    query=(500, "InternalFailure"),
    rest=(500, "InternalServerException"),
)
_ERRORS: Mapping[FaultKind | None, _Error] = {
    FaultKind.ERROR: _INTERNAL,
    FaultKind.THROTTLE: _Error(
        message="Rate exceeded",
        dynamodb=(400, "ProvisionedThroughputExceededException"),
        s3=(503, "SlowDown"),
        by_target=(400, "ThrottlingException"),
        query=(400, "Throttling"),
        rest=(429, "ThrottlingException"),
    ),
    FaultKind.DENY: _Error(
        message="User is not authorized to perform this action: the sandbox denies it.",
        dynamodb=(400, "AccessDeniedException"),
        s3=(403, "AccessDenied"),
        by_target=(400, "AccessDeniedException"),
        query=(403, "AccessDenied"),
        rest=(403, "AccessDeniedException"),
    ),
    FaultKind.EXPIRED: _Error(
        message="The security token included in the request is expired",
        dynamodb=(400, "ExpiredTokenException"),
        s3=(400, "ExpiredToken"),
        by_target=(400, "ExpiredTokenException"),
        query=(403, "ExpiredToken"),
        rest=(403, "ExpiredTokenException"),
    ),
}


def protocol_error(request: Request, service: str, error: _Error = _INTERNAL) -> Answer:
    """Return an error of a service, in the protocol of the request. botocore identifies errors by their code."""
    content_type = request.headers.get("content-type", "")
    if service == "dynamodb":
        status, code = error.dynamodb
        # Errors that all AWS services have are not in DynamoDB's namespace.
        prefix = _AWS_ERRORS if code in {"AccessDeniedException", "ExpiredTokenException"} else _DYNAMODB_ERRORS
        return _target_json(status, f"{prefix}{code}", error.message, content_type)
    if service == "s3":
        status, code = error.s3
        return _xml(status, f"<Error><Code>{code}</Code><Message>{error.message}</Message></Error>")
    if "x-amz-target" in request.headers:
        return _target_json(*error.by_target, error.message, content_type)
    if content_type.startswith("application/x-www-form-urlencoded") and service != "mwaa":
        status, code = error.query
        sender = "Sender" if status < 500 else "Receiver"
        return _xml(
            status,
            f"<ErrorResponse><Error><Type>{sender}</Type><Code>{code}</Code><Message>{error.message}</Message></Error>"
            "<RequestId>sandbox</RequestId></ErrorResponse>",
        )
    return error_answer(*error.rest, error.message)


def _target_json(status: int, code: str, message: str, content_type: str) -> Answer:
    headers = (("Content-Type", content_type or "application/x-amz-json-1.0"),)
    return Answer(status=status, headers=headers, body=json.dumps({"__type": code, "message": message}).encode())


def _xml(status: int, text: str) -> Answer:
    return Answer(status=status, headers=(("Content-Type", "text/xml"),), body=text.encode())


def _service(signing_name: str) -> str:
    return "mwaa" if signing_name == "airflow" else signing_name


def _table(request: Request) -> str | None:
    """Return the table in a request to DynamoDB; None if it has no table or several."""
    try:
        body = json.loads(request.body)
        named = {body["TableName"]} if "TableName" in body else set(body.get("RequestItems", ()))
    except (ValueError, TypeError, AttributeError):
        return None
    return named.pop() if len(named) == 1 else None


def _operation(request: Request, service: str) -> dict[str, str]:
    """Return members for the request log: ``operation``, and ``rest`` for the call inside an InvokeRestApi."""
    target = request.headers.get("x-amz-target")
    if target:
        return {"operation": target.rpartition(".")[2]}
    path = urlsplit(request.path).path
    operation = f"{request.method} {path}"
    if service == "mwaa" and path.startswith("/restapi/"):
        try:
            inner = json.loads(request.body)
            return {"operation": operation, "rest": f"{inner['Method']} {inner['Path']}"}
        except (ValueError, TypeError, KeyError):
            return {"operation": operation}
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        # Log only the action of a form, because a login form has a secret.
        action = parse_qs(request.body.decode(errors="replace")).get("Action")
        return {"operation": action[0] if action else operation}
    return {"operation": operation}


def main(argv: list[str] | None = None) -> int:
    """Serve one home until SIGTERM or SIGINT. Returns 0, or 1 if it could not start (the reason is on stderr)."""
    parser = argparse.ArgumentParser(prog="aws_server", description="The AWS of the sandbox.")
    parser.add_argument("--home", type=Path, required=True, help="the sandbox's home")
    home = parser.parse_args(argv).home
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        server = AwsServer(home)
    except _UNUSABLE as error:
        log.error("The sandbox's AWS cannot start from %s: %r", home / "aws" / "config.json", error)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    server.warm_up()
    print("ready", flush=True)
    server.serve()
    server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
