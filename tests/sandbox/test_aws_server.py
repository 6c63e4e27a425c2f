"""The emulated AWS as its users call it: the real process, real sockets, unmodified boto3, and a small fake Airflow."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.dynamodb.stores import open_state_store
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import DRConfig, TableConsistency
from airflow_provider_mwaa_dr.sandbox.cloud import faults
from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import Environment, MwaaEndpoint, Request
from tests import waiting

A, B, CONTROL = "us-east-2", "us-east-1", "control"
CALLERS = (A, B, CONTROL)
DEADLINE_S = 30.0
SECRET = "Bearer of-the-real-airflow"
BIG = 6 * 1024 * 1024 + 1

EAGER_THREADS = """
import sys
from airflow_provider_mwaa_dr.sandbox.cloud.aws_server import main
sys.setswitchinterval(1e-6)
sys.exit(main())
"""
# `python -m ...aws_server`, with threads that switch much more often, so that a missing lock shows immediately.


class FakeAirflow(BaseHTTPRequestHandler):
    """Returns the request that it received. Some paths return errors."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Answer any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != SECRET:
            return self.send(401, b'{"detail": "who are you?"}')
        if self.path.endswith("/missing"):
            return self.send(404, b'{"detail": "DAG not found"}')
        if self.path.endswith("/broken"):
            return self.send(500, b"<html>oops</html>")
        if self.path.endswith("/big"):
            return self.send(200, b'"' + b"x" * (BIG - 2) + b'"')
        if self.path.endswith("/gone"):
            return self.send(204, b"")
        said = {"method": self.command, "path": self.path, "body": body.decode()}
        return self.send(200, json.dumps(said).encode())

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer

    def send(self, status: int, body: bytes) -> None:
        """Send one response."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


wait_until = partial(waiting.wait_until, deadline_s=DEADLINE_S)


@dataclass(slots=True, kw_only=True)
class Aws:
    """A running server, with the addresses to reach it."""

    home: Path
    ports: dict[str, int]
    web: dict[str, dict[str, int]]
    process: subprocess.Popen[str]
    clients: list[Any] = field(default_factory=list)

    def client(self, service: str, *, caller: str, region: str, read_timeout: float = 20) -> Any:
        """Return a boto3 client that makes one attempt."""
        client = boto3.client(
            service,  # type: ignore[call-overload]
            region_name=region,
            endpoint_url=f"http://127.0.0.1:{self.ports[caller]}",
            aws_access_key_id="sandbox",
            aws_secret_access_key="sandbox",
            config=Config(
                inject_host_prefix=False,
                connect_timeout=5,
                read_timeout=read_timeout,
                retries={"total_max_attempts": 1},
                max_pool_connections=32,
            ),
        )
        self.clients.append(client)
        return client

    def change_faults(self, step: Callable[[faults.Table], faults.Table]) -> None:
        """Change the fault table as the command line does."""
        faults.change(self.home / "aws" / "faults.json", step)

    def log(self) -> list[dict[str, Any]]:
        """Return the request log."""
        return [json.loads(line) for line in (self.home / "aws" / "requests.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """One server for the module, with its Airflow. SIGTERM ends it at the end, and it must exit without an error."""
    home = tmp_path_factory.mktemp("home")
    (home / "aws").mkdir()
    airflow = ThreadingHTTPServer(("127.0.0.1", 0), FakeAirflow)
    airflow.daemon_threads = True
    threading.Thread(target=airflow.serve_forever, daemon=True).start()
    numbers = free_ports(9)
    ports = dict(zip(CALLERS, numbers, strict=False))
    web = {caller: dict(zip((A, B), numbers[3 + 2 * i :], strict=False)) for i, caller in enumerate(CALLERS)}
    config: dict[str, Any] = {
        "state_model": "strong",
        "state_region": A,
        "callers": ports,
        "web": web,
        "environments": {},
    }
    path = home / "aws" / "config.json"
    path.write_text(json.dumps(config))
    with (home / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", EAGER_THREADS, "--home", str(home)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", (home / "stderr").read_text()
    # The environments are added only now, as when the sandbox starts its regions.
    url = f"http://127.0.0.1:{airflow.server_address[1]}"
    config["environments"] = {
        A: {"name": "env-a", "airflow_url": url, "airflow_version": "3.3.1", "auth": {"header": SECRET}},
        B: {"name": "env-b", "airflow_url": url, "airflow_version": "2.10.3", "auth": {"header": SECRET}},
    }
    path.write_text(json.dumps(config))
    yield Aws(home=home, ports=ports, web=web, process=process)
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
    assert process.stdout.read() == ""
    assert "Traceback" not in (home / "stderr").read_text()
    process.stdout.close()
    airflow.shutdown()
    airflow.server_close()


@pytest.fixture
def aws(server: Aws) -> Iterator[Aws]:
    """The server, without faults before and after the test."""
    server.change_faults(lambda _: ())
    yield server
    server.change_faults(lambda _: ())
    for client in server.clients:
        client.close()
    server.clients.clear()


@pytest.fixture(scope="module")
def table(server: Aws) -> str:
    """A state table, created once in one region."""
    client = server.client("dynamodb", caller=CONTROL, region=A)
    client.create_table(
        TableName="state",
        KeySchema=[{"AttributeName": "state_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "state_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.put_item(TableName="state", Item={"state_id": {"S": "there"}})
    return "state"


def read(client: Any, table: str) -> Any:
    """Return the item that always exists."""
    return client.get_item(TableName=table, Key={"state_id": {"S": "there"}}, ConsistentRead=True)["Item"]


def fault_of(region: str, service: str, text: str, **direction: str) -> Callable[[faults.Table], faults.Table]:
    """Return the change of `mwaa-dr sandbox fault`."""
    parsed = faults.parse_fault(text)
    assert parsed is not None
    kind, seconds = parsed
    return lambda old: faults.add(old, region=region, service=service, fault=kind, seconds=seconds, **direction)


def test_of_sixteen_racing_writers_exactly_one_wins(aws: Aws, table: str) -> None:
    """Compare-and-set holds: with the same version, from both regions, one write succeeds and 15 are refused."""
    clients = [aws.client("dynamodb", caller=caller, region=region) for caller in CALLERS for region in (A, B)]

    def write(writer: int, round_: int) -> str:
        try:
            clients[writer % len(clients)].put_item(
                TableName=table,
                Item={"state_id": {"S": "race"}, "version": {"N": str(round_ + 1)}, "by": {"N": str(writer)}},
                ConditionExpression="attribute_not_exists(state_id) OR version = :v",
                ExpressionAttributeValues={":v": {"N": str(round_)}},
            )
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "won"

    with ThreadPoolExecutor(16) as pool:
        for round_ in range(25):
            ended = list(pool.map(write, range(16), [round_] * 16))
            assert sorted(ended) == ["ConditionalCheckFailedException"] * 15 + ["won"], round_
            stored = clients[0].get_item(TableName=table, Key={"state_id": {"S": "race"}})["Item"]
            assert stored["by"]["N"] == str(ended.index("won"))
    rows = [row for row in aws.log() if row["operation"] == "PutItem"]
    assert sum(row.get("condition_failed", False) for row in rows) == 25 * 15


def test_a_strong_table_is_the_same_in_every_region(aws: Aws, table: str) -> None:
    """After one region writes, the other region reads it immediately. Other services stay regional."""
    here = aws.client("dynamodb", caller=A, region=A)
    there = aws.client("dynamodb", caller=B, region=B)
    here.put_item(TableName=table, Item={"state_id": {"S": "shared"}, "word": {"S": "hello"}})
    assert there.get_item(TableName=table, Key={"state_id": {"S": "shared"}})["Item"]["word"] == {"S": "hello"}
    aws.client("sqs", caller=A, region=A).create_queue(QueueName="celery")
    queue_b = aws.client("sqs", caller=B, region=B)
    assert "QueueUrls" not in queue_b.list_queues()
    assert aws.client("sts", caller=B, region=B).get_caller_identity()["Account"] == "123456789012"


def test_without_the_strong_model_every_region_has_its_own_tables(aws: Aws, table: str) -> None:
    """A table is strong because the configuration sets it, not because the emulation has only one table."""
    path = aws.home / "aws" / "config.json"
    strong = path.read_text()
    path.write_text(json.dumps({**json.loads(strong), "state_model": "eventual"}))
    try:
        assert aws.client("dynamodb", caller=CONTROL, region=A).list_tables()["TableNames"] == [table]
        assert aws.client("dynamodb", caller=CONTROL, region=B).list_tables()["TableNames"] == []
    finally:
        path.write_text(strong)
    assert aws.client("dynamodb", caller=CONTROL, region=B).list_tables()["TableNames"] == [table]


class Copies:
    """A table with a copy in each of two regions. The copies lag behind each other."""

    def __init__(self, aws: Aws, name: str, config: Path) -> None:
        self.name = name
        self._aws, self._config = aws, config
        self.here, self.there = (aws.client("dynamodb", caller=region, region=region) for region in (A, B))
        self.take(0)
        for client in (self.here, self.there):
            client.create_table(
                TableName=name,
                KeySchema=[{"AttributeName": "state_id", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "state_id", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )

    def take(self, lag_s: float) -> None:
        """Set how long each write takes from now on."""
        config = json.loads(self._config.read_text())
        self._config.write_text(json.dumps({**config, "state_model": "eventual", "lag_s": lag_s}))

    def put(self, client: Any, key: str, word: str, **condition: Any) -> None:
        """Write an item."""
        client.put_item(TableName=self.name, Item={"state_id": {"S": key}, "word": {"S": word}}, **condition)

    def word(self, client: Any, key: str) -> str | None:
        """Return the value in one copy."""
        item = client.get_item(TableName=self.name, Key={"state_id": {"S": key}}, ConsistentRead=True).get("Item")
        return None if item is None else str(item["word"]["S"])

    def words(self, key: str) -> tuple[str | None, str | None]:
        """Return the values in both copies."""
        return self.word(self.here, key), self.word(self.there, key)


@pytest.fixture
def copies(aws: Aws, request: pytest.FixtureRequest) -> Iterator[Copies]:
    """The eventual state model, for one test."""
    path = aws.home / "aws" / "config.json"
    strong = path.read_text()
    yield Copies(aws, request.node.name[:60], path)
    path.write_text(strong)


def test_a_write_reaches_the_other_copy_after_its_lag(copies: Copies) -> None:
    """Not earlier, and item by item. This holds for changes and deletions as well as for new items."""
    copies.take(60)
    copies.put(copies.here, "slow", "hello")
    assert copies.words("slow") == ("hello", None)
    copies.take(0)
    copies.put(copies.here, "fast", "hello")
    wait_until(lambda: copies.words("fast") == ("hello", "hello"), "the item in the other copy")
    assert copies.words("slow") == ("hello", None)
    copies.there.update_item(
        TableName=copies.name,
        Key={"state_id": {"S": "fast"}},
        UpdateExpression="SET word = :word",
        ExpressionAttributeValues={":word": {"S": "goodbye"}},
    )
    wait_until(lambda: copies.words("fast") == ("goodbye", "goodbye"), "the change in the first copy")
    copies.here.delete_item(TableName=copies.name, Key={"state_id": {"S": "fast"}})
    wait_until(lambda: copies.words("fast") == (None, None), "the deletion in the other copy")


def test_a_condition_holds_in_one_copy_and_the_last_writer_wins_in_both(aws: Aws, copies: Copies) -> None:
    """A fault between two regions stops replication. After the fault, both copies have the later of the two writes."""
    condition = {"ConditionExpression": "attribute_not_exists(state_id)"}
    for first, last, key in ((copies.here, copies.there, "one"), (copies.there, copies.here, "other")):
        aws.change_faults(fault_of(A, "dynamodb", "refuse", to_target=B))
        aws.change_faults(fault_of(A, "dynamodb", "blackhole", from_caller=B))
        copies.put(first, key, "first", **condition)
        copies.put(last, key, "last", **condition)
        assert set(copies.words(key)) == {"first", "last"}
        aws.change_faults(lambda _: ())
        wait_until(lambda key=key: copies.words(key) == ("last", "last"), "one word in both copies")  # type: ignore[misc]


def test_the_provider_keeps_its_state_in_two_copies(aws: Aws, copies: Copies, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its store uses unmodified boto3: it writes the first state once, claims in the target's copy, and reads the newest
    copy.
    """
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{aws.ports[CONTROL]}"),
        ("AWS_ACCESS_KEY_ID", "sandbox"),
        ("AWS_SECRET_ACCESS_KEY", "sandbox"),
    ):
        monkeypatch.setenv(name, value)
    config = DRConfig(
        region=A, state_table=copies.name, state_table_replicas=(A, B), environments={},
        table_consistency=TableConsistency.EVENTUAL,
    )  # fmt: skip
    clock = SystemClock()
    store = open_state_store(config, clock=clock)
    first = transitions.initial(A, lease_s=10, by="test", at=clock.now())
    store.write(first, expected_version=None)
    wait_until(lambda: store.copies() == {A: first, B: first}, "the first state in both copies")
    aws.change_faults(fault_of(A, "dynamodb", "refuse", to_target=B))
    aws.change_faults(fault_of(A, "dynamodb", "refuse", from_caller=B))
    plan = transitions.Plan(
        id="p", source=A, target=B, mode=transitions.Mode.AUTO, reason="r", by="b", owner="o", started_at=clock.now()
    )  # fmt: skip
    claimed = transitions.claim(first, plan, at=clock.now())
    store.write(claimed, expected_version=1)
    assert store.copies() == {A: first, B: claimed}
    assert store.observe(A).state == first
    assert open_state_store(config, clock=clock).read() == claimed
    aws.change_faults(lambda _: ())
    wait_until(lambda: store.copies() == {A: claimed, B: claimed}, "the claim in the source's copy")


def test_a_region_under_a_fault_loses_its_replica_and_not_the_table(aws: Aws, table: str) -> None:
    """The table is still available through the other region. Only the connection to one replica fails."""
    aws.change_faults(fault_of(A, "all", "refuse"))
    with pytest.raises(ConnectionClosedError):
        read(aws.client("dynamodb", caller=CONTROL, region=A), table)
    with pytest.raises(ConnectionClosedError):
        read(aws.client("dynamodb", caller=A, region=B), table)
    assert read(aws.client("dynamodb", caller=CONTROL, region=B), table)
    assert aws.log()[-2]["fault"] == "refuse"
    assert aws.log()[-2]["status"] is None


def test_a_direction_cuts_one_pair_only(aws: Aws, table: str) -> None:
    """
    A region loses the connection to one replica. All other connections, and its connections to other replicas, work.
    """
    aws.change_faults(fault_of(A, "dynamodb", "refuse", to_target=B))
    with pytest.raises(ConnectionClosedError):
        read(aws.client("dynamodb", caller=A, region=B), table)
    assert read(aws.client("dynamodb", caller=A, region=A), table)
    assert read(aws.client("dynamodb", caller=CONTROL, region=B), table)
    aws.change_faults(lambda _: fault_of(A, "mwaa", "refuse", from_caller=CONTROL)(()))
    with pytest.raises(ConnectionClosedError):
        aws.client("mwaa", caller=CONTROL, region=A).get_environment(Name="env-a")
    assert aws.client("mwaa", caller=B, region=A).get_environment(Name="env-a")
    assert read(aws.client("dynamodb", caller=CONTROL, region=A), table)


def test_a_black_hole_never_answers_and_delays_no_other_client(aws: Aws, table: str) -> None:
    """
    The client reaches its own timeout, and other clients are served. Lifting the fault closes waiting connections.
    """
    aws.change_faults(fault_of(A, "dynamodb", "blackhole"))
    with pytest.raises(ReadTimeoutError):
        read(aws.client("dynamodb", caller=CONTROL, region=A, read_timeout=0.5), table)
    before = len(aws.log())
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(read, aws.client("dynamodb", caller=A, region=B), table) for _ in range(4)]
        wait_until(lambda: len(aws.log()) == before + 4, "four requests in the black hole")
        assert read(aws.client("dynamodb", caller=CONTROL, region=B), table)
        assert not any(each.done() for each in waiting)
        aws.change_faults(lambda old: faults.remove(old, region=A))
        assert [type(each.exception(DEADLINE_S)) for each in waiting] == [ConnectionClosedError] * 4
    assert read(aws.client("dynamodb", caller=A, region=B), table)


def test_a_delayed_write_lands_although_its_client_gave_up(aws: Aws, table: str) -> None:
    """A delay is no refusal: the client's timeout does not show whether the write was done."""
    aws.change_faults(fault_of(A, "dynamodb", "delay:1"))
    with pytest.raises(ReadTimeoutError):
        aws.client("dynamodb", caller=CONTROL, region=A, read_timeout=0.2).put_item(
            TableName=table, Item={"state_id": {"S": "late"}}
        )
    other = aws.client("dynamodb", caller=CONTROL, region=B)
    wait_until(lambda: "Item" in other.get_item(TableName=table, Key={"state_id": {"S": "late"}}), "the late write")
    late = [row for row in aws.log() if row["fault"] == "delay"]
    assert [row["status"] for row in late] == [200]


@pytest.mark.parametrize(
    ("fault", "service", "code", "status"),
    [
        ("throttle", "dynamodb", "ProvisionedThroughputExceededException", 400),
        ("error", "dynamodb", "InternalServerError", 500),
        ("throttle", "mwaa", "ThrottlingException", 429),
        ("error", "mwaa", "InternalServerException", 500),
        ("throttle", "sqs", "ThrottlingException", 400),
        ("throttle", "sts", "Throttling", 400),
        ("error", "sts", "InternalFailure", 500),
        ("throttle", "s3", "SlowDown", 503),
        ("deny", "dynamodb", "AccessDeniedException", 400),
        ("expired", "dynamodb", "ExpiredTokenException", 400),
        ("deny", "mwaa", "AccessDeniedException", 403),
        ("expired", "sts", "ExpiredToken", 403),
        ("deny", "s3", "AccessDenied", 403),
    ],
)
def test_each_service_fails_with_its_own_error_codes(
    aws: Aws, fault: str, service: str, code: str, status: int
) -> None:
    """Throttling and internal errors use the protocol and the code of the service, which botocore knows."""
    aws.change_faults(fault_of(A, "all", fault))
    client = aws.client(service, caller=CONTROL, region=A)
    calls = {
        "dynamodb": "list_tables",
        "mwaa": "list_environments",
        "sqs": "list_queues",
        "sts": "get_caller_identity",
        "s3": "list_buckets",
    }
    with pytest.raises(ClientError) as caught:
        getattr(client, calls[service])()
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert aws.log()[-1]["fault"] == fault
    assert aws.log()[-1]["status"] == status


def test_the_log_has_caller_target_service_and_operation_of_each_request(aws: Aws, table: str) -> None:
    """One line for each request. It also has the request inside an InvokeRestApi, and the status."""
    read(aws.client("dynamodb", caller=B, region=A), table)
    aws.client("mwaa", caller=CONTROL, region=A).invoke_rest_api(
        Name="env-a", Path="/dags", Method="PATCH", Body={"is_paused": True}
    )
    aws.client("sts", caller=A, region=B).get_caller_identity()
    rows = aws.log()[-3:]
    assert [{key: row[key] for key in ("caller", "target", "service", "operation", "status")} for row in rows] == [
        {"caller": B, "target": A, "service": "dynamodb", "operation": "GetItem", "status": 200},
        {"caller": CONTROL, "target": A, "service": "mwaa", "operation": "POST /restapi/env-a", "status": 200},
        {"caller": A, "target": B, "service": "sts", "operation": "GetCallerIdentity", "status": 200},
    ]
    assert rows[1]["rest"] == "PATCH /dags"
    assert all(row["at"].endswith("Z") and row["ms"] >= 0 and row["fault"] is None for row in rows)


def test_an_environment_is_described_and_updated(aws: Aws) -> None:
    """The control plane lists, describes and updates environments. An unknown environment is not found."""
    client = aws.client("mwaa", caller=CONTROL, region=A)
    assert client.list_environments()["Environments"] == ["env-a"]
    environment = client.get_environment(Name="env-a")["Environment"]
    assert environment["Status"] == "AVAILABLE"
    assert environment["AirflowVersion"] == "3.3.1"
    assert environment["WebserverUrl"] == f"127.0.0.1:{aws.web[CONTROL][A]}"
    assert environment["Arn"] == "arn:aws:airflow:us-east-2:123456789012:environment/env-a"
    changed = client.update_environment(Name="env-a", AirflowConfigurationOptions={"dr.enabled": "true"})
    assert changed["Arn"] == environment["Arn"]
    after = client.get_environment(Name="env-a")["Environment"]
    assert after["AirflowConfigurationOptions"] == {"dr.enabled": "true"}
    assert after["LastUpdate"]["Status"] == "SUCCESS"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        aws.client("mwaa", caller=CONTROL, region=B).get_environment(Name="env-a")


@pytest.mark.parametrize(("region", "name", "version"), [(A, "env-a", "v2"), (B, "env-b", "v1")])
def test_rest_calls_reach_the_real_airflow(aws: Aws, region: str, name: str, version: str) -> None:
    """Method, path, query and body arrive at the API of the version, with the environment's own credentials."""
    client = aws.client("mwaa", caller=CONTROL, region=region)
    answer = client.invoke_rest_api(
        Name=name,
        Path="/dags",
        Method="PATCH",
        QueryParameters={"dag_id_pattern": "~", "limit": 100, "only_active": True, "tags": ["a b", "c"]},
        Body={"is_paused": None},
    )
    assert answer["RestApiStatusCode"] == 200
    assert answer["RestApiResponse"] == {
        "method": "PATCH",
        "path": f"/api/{version}/dags?dag_id_pattern=~&limit=100&only_active=true&tags=a+b&tags=c",
        "body": '{"is_paused": null}',
    }
    gone = client.invoke_rest_api(Name=name, Path="/gone", Method="DELETE")
    assert (gone["RestApiStatusCode"], gone["RestApiResponse"]) == (204, {})


def test_airflow_errors_are_wrapped_as_by_the_service(aws: Aws) -> None:
    """HTTP 400 for client errors and for server errors, with Airflow's status and text inside."""
    client = aws.client("mwaa", caller=CONTROL, region=A)
    with pytest.raises(client.exceptions.RestApiClientException) as refused:
        client.invoke_rest_api(Name="env-a", Path="/missing", Method="GET")
    assert refused.value.response["RestApiStatusCode"] == 404
    assert refused.value.response["RestApiResponse"] == {"detail": "DAG not found"}
    with pytest.raises(client.exceptions.RestApiServerException) as failed:
        client.invoke_rest_api(Name="env-a", Path="/broken", Method="GET")
    assert failed.value.response["RestApiStatusCode"] == 500
    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_the_limits_of_invoke_rest_api_hold(aws: Aws) -> None:
    """A path of 64 characters passes, 65 do not. An answer of more than 6 MB does not pass."""
    client = aws.client("mwaa", caller=CONTROL, region=B)
    path = "/dags/" + "x" * 58
    assert client.invoke_rest_api(Name="env-b", Path=path, Method="GET")["RestApiStatusCode"] == 200
    with pytest.raises(client.exceptions.ValidationException, match="between 1 and 64"):
        client.invoke_rest_api(Name="env-b", Path=f"{path}x", Method="GET")
    with pytest.raises(client.exceptions.RestApiServerException) as big:
        client.invoke_rest_api(Name="env-b", Path="/big", Method="GET")
    assert f"{BIG} bytes" in big.value.response["RestApiResponse"]["message"]


def test_the_web_token_session(aws: Aws) -> None:
    """
    Token, login, cookie: then any path of the API is open, also a long one. Without a token, or with a used one, none
    is.
    """
    for region, name, login, api in [
        (A, "env-a", "/pluginsv2/aws_mwaa/login", "/api/v2"),
        (B, "env-b", "/aws_mwaa/login", "/api/v1"),
    ]:
        created = aws.client("mwaa", caller=CONTROL, region=region).create_web_login_token(Name=name)
        assert created["WebServerHostname"] == f"127.0.0.1:{aws.web[CONTROL][region]}"
        base = f"http://{created['WebServerHostname']}"
        with requests.Session() as session:
            assert session.get(f"{base}{api}/dags", timeout=5).status_code == 401
            assert session.post(f"{base}{login}", data={"token": "made up"}, timeout=5).status_code == 403
            assert session.post(f"{base}{login}", data={"token": created["WebToken"]}, timeout=5).status_code == 200
            long_path = f"{api}/dags/{'x' * 250}/dagRuns?limit=3"
            answer = session.patch(f"{base}{long_path}", json={"state": "failed"}, timeout=5)
            assert answer.json() == {"method": "PATCH", "path": long_path, "body": '{"state": "failed"}'}
            assert session.get(f"{base}{api}/missing", timeout=5).status_code == 404
            cookie = session.cookies["_token"]
        with requests.Session() as other:
            assert other.post(f"{base}{login}", data={"token": created["WebToken"]}, timeout=5).status_code == 403
            bearer = {"Authorization": f"Bearer {cookie}"}
            assert other.get(f"{base}{api}/dags", headers=bearer, timeout=5).status_code == 200
            aws.change_faults(fault_of(region, "mwaa", "throttle", from_caller=CONTROL))
            assert other.get(f"{base}{api}/dags", headers=bearer, timeout=5).status_code == 429
            aws.change_faults(fault_of(region, "mwaa", "refuse", from_caller=CONTROL))
            with pytest.raises(requests.ConnectionError):
                other.get(f"{base}{api}/dags", headers=bearer, timeout=5)
        aws.change_faults(lambda _: ())


def test_a_second_server_on_the_same_ports_prints_why_it_cannot_start(aws: Aws) -> None:
    """It does not print ready, exits with 1, and prints the reason to stderr."""
    second = subprocess.run(
        [sys.executable, "-m", "airflow_provider_mwaa_dr.sandbox.cloud.aws_server", "--home", str(aws.home)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert "Address already in use" in second.stderr


def test_a_broken_fault_table_changes_nothing(aws: Aws, table: str) -> None:
    """The current table stays in force until a user writes a readable one."""
    aws.change_faults(fault_of(A, "dynamodb", "throttle"))
    client = aws.client("dynamodb", caller=CONTROL, region=A)
    with pytest.raises(client.exceptions.ProvisionedThroughputExceededException):
        read(client, table)
    path = aws.home / "aws" / "faults.json"
    path.write_text('[{"service": "all", "fault": "sulk"}]')
    with pytest.raises(client.exceptions.ProvisionedThroughputExceededException):
        read(client, table)
    path.unlink()
    assert read(client, table)


class ManualTime:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> ManualTime:
    """The clock of the endpoint."""
    return ManualTime()


@pytest.fixture
def silent_airflow() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def endpoint(clock: ManualTime, port: int) -> Callable[..., Any]:
    """Return a function that sends requests to an MWAA endpoint in this process."""
    environment = Environment(
        region=A,
        name="env",
        airflow_url=f"http://127.0.0.1:{port}",
        airflow_version="3.3.1",
        authorization=SECRET,
    )
    mwaa = MwaaEndpoint(environment={A: environment}.get, web_port=lambda *_: 1, clock=clock, rest_timeout_s=0.05)

    def send(method: str, path: str, body: bytes = b"{}", *, web: bool = False, **headers: str) -> Any:
        request = Request(caller=CONTROL, region=A, method=method, path=path, headers=headers, body=body)
        return mwaa.web_answer(request) if web else mwaa.answer(request)

    return send


def test_the_eleventh_call_within_a_second_is_throttled(clock: ManualTime, silent_airflow: int) -> None:
    """Ten calls in a second pass, whether they succeed or not. The window moves on. Other operations do not count."""
    send = endpoint(clock, silent_airflow)
    call = json.dumps({"Path": "/dags", "Method": "GET"}).encode()
    assert {send("POST", "/restapi/env", call).status for _ in range(10)} == {400}
    throttled = send("POST", "/restapi/env", call)
    assert throttled.status == 429
    assert ("x-amzn-ErrorType", "ThrottlingException") in throttled.headers
    assert send("GET", "/environments/env").status == 200
    clock.now += 1
    assert send("POST", "/restapi/env", call).status == 400


def test_an_airflow_that_does_not_answer_times_out(clock: ManualTime, silent_airflow: int) -> None:
    """
    The service waits ten seconds (less in this test), and returns a server error. A refused connection is another
    error.
    """
    call = json.dumps({"Path": "/dags", "Method": "GET"}).encode()
    slow = endpoint(clock, silent_airflow)("POST", "/restapi/env", call)
    assert json.loads(slow.body)["RestApiStatusCode"] == 504
    dead = endpoint(clock, free_ports(1)[0])("POST", "/restapi/env", call)
    assert json.loads(dead.body)["RestApiStatusCode"] == 502
    assert ("x-amzn-ErrorType", "RestApiServerException") in dead.headers


def test_tokens_expire_after_a_minute_and_sessions_after_twelve_hours(clock: ManualTime) -> None:
    """A token that is used too late is refused. A session ends twelve hours after its login."""
    send = endpoint(clock, free_ports(1)[0])

    def log_in(after_s: float) -> Any:
        token = json.loads(send("POST", "/webtoken/env").body)["WebToken"]
        clock.now += after_s
        return send("POST", "/pluginsv2/aws_mwaa/login", f"token={token}".encode(), web=True)

    assert log_in(60).status == 403
    answer = log_in(59)
    assert answer.status == 200
    cookie = "a=b; " + dict(answer.headers)["Set-Cookie"].partition(";")[0]
    clock.now += 12 * 3600 - 1
    assert send("GET", "/api/v2/dags", web=True, cookie=cookie).status == 502, "accepted, but no Airflow answers"
    clock.now += 1
    assert send("GET", "/api/v2/dags", web=True, cookie=cookie).status == 401
