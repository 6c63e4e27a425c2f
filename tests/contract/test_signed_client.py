"""The client that signs its requests itself answers like boto3's client, for answers, errors and dead connections."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import CredentialRetrievalError

from airflow_provider_mwaa_dr.aws.dynamodb.signed_client import SignedClient, open_signed_client
from airflow_provider_mwaa_dr.aws.session import code_of, dynamodb_client, errors, fault_of
from tests.contract.aws_server import HOME, AwsServer

KEY = {"state_id": {"S": "A"}}
NESTED = {
    **KEY,
    "packed": {"B": b"\x00\xff\x10"},
    "parts": {"BS": [b"\x01", b"\x02"]},
    "B": {"M": {"B": {"S": "not bytes"}, "S": {"B": b"bytes"}}},
    "list": {"L": [{"B": b"\xfe"}, {"N": "1"}, {"NULL": True}]},
    "texts": {"SS": ["a", "b"]},
    "umlaut": {"S": "gr\u00fcn \u2028"},
}


@pytest.fixture
def plain(aws: AwsServer, session: boto3.session.Session) -> Any:
    """boto3's client."""
    return dynamodb_client(HOME, session=session, timeout_s=20)


@pytest.fixture
def signed(keys: None) -> Iterator[SignedClient]:
    """The client under test."""
    client = open_signed_client(HOME, timeout_s=20)
    assert client is not None
    yield client
    client.close()


@pytest.fixture
def clients(plain: Any, signed: SignedClient) -> tuple[Any, SignedClient]:
    """Both clients."""
    return plain, signed


def content(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the data about the request."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def failure_of(call: Callable[[], object]) -> tuple[str, object, dict[str, Any]]:
    """Return what callers see of an error: its code, its meaning, and the item that AWS returned."""
    with pytest.raises(errors()) as caught:
        call()
    response = getattr(caught.value, "response", None) or {}
    return code_of(caught.value), fault_of(caught.value), response.get("Item", {})


def test_every_operation_answers_like_boto3(clients: tuple[Any, SignedClient], table: str) -> None:
    """What one client writes, the other one reads, with all kinds of attributes. All answers have the same content."""
    for writer, reader in (clients, clients[::-1]):
        writer.put_item(TableName=table, Item=NESTED)
        read = content(reader.get_item(TableName=table, Key=KEY, ConsistentRead=True))
        assert read == content(writer.get_item(TableName=table, Key=KEY, ConsistentRead=True))
        assert {**read["Item"], "parts": {"BS": sorted(read["Item"]["parts"]["BS"])}} == {
            **NESTED,
            "texts": read["Item"]["texts"],
        }
        assert set(read["Item"]["texts"]["SS"]) == {"a", "b"}
        for ask in (
            lambda client: client.batch_get_item(RequestItems={table: {"Keys": [KEY], "ConsistentRead": True}}),
            lambda client: client.scan(TableName=table, ConsistentRead=True),
            lambda client: client.query(
                TableName=table,
                KeyConditionExpression="state_id = :id",
                ExpressionAttributeValues={":id": {"S": "A"}},
                ConsistentRead=True,
            ),
            lambda client: client.get_item(TableName=table, Key={"state_id": {"S": "missing"}}),
        ):
            assert content(ask(reader)) == content(ask(writer))
        changed = reader.update_item(
            TableName=table,
            Key=KEY,
            UpdateExpression="SET packed = :bytes REMOVE parts",
            ExpressionAttributeValues={":bytes": {"B": b"new"}},
            ReturnValues="ALL_NEW",
        )
        assert changed["Attributes"]["packed"] == {"B": b"new"}
        assert writer.get_item(TableName=table, Key=KEY)["Item"]["packed"] == {"B": b"new"}
        reader.delete_item(TableName=table, Key=KEY)
        assert "Item" not in writer.get_item(TableName=table, Key=KEY)
    described = [client.describe_table(TableName=table)["Table"] for client in clients]
    assert described[0]["KeySchema"] == described[1]["KeySchema"]
    assert {client.meta.region_name for client in clients} == {HOME}


def test_a_refused_condition_returns_the_item(clients: tuple[Any, SignedClient], table: str) -> None:
    """A store compares this item with its own write, so its bytes must be bytes."""
    clients[0].put_item(TableName=table, Item={**KEY, "packed": {"B": b"\xff"}})
    found = [
        failure_of(
            lambda client=client: client.put_item(  # type: ignore[misc]
                TableName=table,
                Item=KEY,
                ConditionExpression="attribute_not_exists(state_id)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        )
        for client in clients
    ]
    assert found[0] == found[1]
    assert found[1][2] == {**KEY, "packed": {"B": b"\xff"}}


def test_a_request_does_not_wait_for_the_acknowledgement_of_its_headers(
    aws: AwsServer, session: boto3.session.Session, keys: None, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Like boto3, the client switches off Nagle's algorithm: headers and content are two packets. With it, the second one
    waits until the server acknowledges the first one, up to 40 ms (measured) in each request.
    """
    without_nagle: list[bool] = []

    class Recorded(socket.socket):
        def connect(self, address: Any) -> None:
            without_nagle.append(self.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Recorded)
    signed = open_signed_client(HOME, timeout_s=20)
    for client in (dynamodb_client(HOME, session=session, timeout_s=20), signed):
        without_nagle.clear()
        client.get_item(TableName=table, Key=KEY)
        assert without_nagle == [True]


@pytest.mark.parametrize(
    "code",
    [
        "ThrottlingException: slow down",
        "AccessDeniedException: no",
        "ExpiredTokenException: renew it",
        "InternalServerError: maybe",
        "ReplicatedWriteConflictException: other region",
        "SomethingNewException: unknown",
    ],
)
def test_errors_of_the_service_have_the_same_meaning(
    aws: AwsServer, clients: tuple[Any, SignedClient], table: str, code: str
) -> None:
    """Code and meaning are the same."""
    aws.refuse = lambda region, operation: code
    found = [failure_of(lambda client=client: client.get_item(TableName=table, Key=KEY)) for client in clients]  # type: ignore[misc]
    assert found[0] == found[1]
    assert found[1][0] == code.partition(":")[0]


def test_a_missing_table_and_a_bad_request(clients: tuple[Any, SignedClient], table: str) -> None:
    """The emulated service itself refuses both."""
    for request in ({"TableName": "no-such-table", "Key": KEY}, {"TableName": table, "Key": {"other": {"S": "A"}}}):
        found = [failure_of(lambda client=client: client.get_item(**request)) for client in clients]  # type: ignore[misc]  # noqa: B023
        assert found[0] == found[1]


def test_a_lost_answer_is_sent_once_only(aws: AwsServer, signed: SignedClient, table: str) -> None:
    """A write whose answer is lost is not repeated: the caller decides."""
    aws.requests.clear()
    aws.after = lambda region, operation: True
    code, fault, _ = failure_of(lambda: signed.put_item(TableName=table, Item=KEY))
    assert (code, fault.name) == ("", "LOST")  # type: ignore[attr-defined]
    assert aws.requests == [(HOME, "PutItem")]


@contextmanager
def listening(*, answers: bytes | None) -> Iterator[str]:
    """Yield the address of a server that accepts connections and sends *answers* for each request; None: nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                kept.append(connection)
                if answers is not None:
                    connection.recv(65536)
                    connection.sendall(answers)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=30)
        for connection in kept:
            connection.close()


def both(url: str, *, timeout_s: float) -> list[Any]:
    """Return both clients for an address."""
    config = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 1})
    credentials: dict[str, Any] = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    return [
        boto3.client("dynamodb", region_name=HOME, endpoint_url=url, config=config, **credentials),
        open_signed_client(HOME, timeout_s=timeout_s),
    ]


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        (b"HTTP/1.1 503 x\r\nContent-Length: 15\r\n\r\n<html>no</html>", 503),
        (b"HTTP/1.1 502 x\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 403 x\r\nContent-Length: 9\r\n\r\nforbidden", 403),
        (b"HTTP/1.1 429 x\r\nContent-Length: 0\r\n\r\n", 429),
        (b"HTTP/1.1 200 x\r\nContent-Length: 6\r\n\r\n<html>", 200),
        (b"HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\n[]", 200),
        (b'HTTP/1.1 200 x\r\nContent-Length: 25\r\n\r\n{"Item": {"a": {"B": 1}}}', 200),
    ],
)
def test_an_answer_that_dynamodb_did_not_write(
    keys: None, monkeypatch: pytest.MonkeyPatch, answers: bytes, status: int
) -> None:
    """A proxy, a load balancer or another service answers: an error of ours, never an empty item."""
    with listening(answers=answers) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        client = open_signed_client(HOME, timeout_s=20)
        assert client is not None
        code, fault, _ = failure_of(lambda: client.get_item(TableName="t", Key=KEY))
    expected = {503: "LOST", 502: "LOST", 403: "ACCESS", 429: "THROTTLED", 200: "LOST"}[status]
    assert fault.name == expected, code  # type: ignore[attr-defined]


def test_dead_connections_have_the_same_meaning(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused port was not sent; a black hole may have carried it out."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    refused = [failure_of(lambda c=c: c.get_item(TableName="t", Key=KEY)) for c in both(url, timeout_s=5)]  # type: ignore[misc]
    assert refused[0] == refused[1]
    assert refused[1][1].name == "UNSENT"  # type: ignore[attr-defined]
    with listening(answers=None) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        silent = [failure_of(lambda c=c: c.get_item(TableName="t", Key=KEY)) for c in both(url, timeout_s=0.2)]  # type: ignore[misc]
    assert silent[0] == silent[1]
    assert silent[1][1].name == "LOST"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_PROFILE": "other"},
        {"AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        {"AWS_ACCOUNT_ID_ENDPOINT_MODE": "required"},
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"},
        {"AWS_CREDENTIAL_EXPIRATION": "2026-01-01T00:00:00Z"},
        {"AWS_SECRET_ACCESS_KEY": ""},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    ],
    ids=",".join,
)
def test_with_any_other_setting_boto3_is_used(
    keys: None, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """This client must never act with other credentials, or send to another address, than boto3 would."""
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert open_signed_client(HOME, timeout_s=1) is None


@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_with_a_file_of_settings_boto3_is_used(
    keys: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """The file may name another endpoint or other credentials. The default names of the files count, too."""
    (tmp_path / "settings").write_text("[default]\nendpoint_url = http://127.0.0.1:1\n")
    monkeypatch.setenv(variable, str(tmp_path / "settings"))
    assert open_signed_client(HOME, timeout_s=1) is None
    monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_signed_client(HOME, timeout_s=1) is not None
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / {"AWS_CONFIG_FILE": "config"}.get(variable, "credentials")).touch()
    assert open_signed_client(HOME, timeout_s=1) is None


@pytest.mark.parametrize(
    ("region", "has"), [("us-east-1", True), ("ap-southeast-7", True), ("cn-north-1", False), ("us-gov-west-1", False)]
)
def test_the_endpoint_is_boto3s(keys: None, monkeypatch: pytest.MonkeyPatch, region: str, has: bool) -> None:
    """Regions of other partitions have other names, so boto3 is used there."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    client = open_signed_client(region, timeout_s=1)
    assert (client is not None) is has
    if client is not None:
        assert client._url == boto3.client("dynamodb", region_name=region).meta.endpoint_url


@pytest.fixture
def role(aws: AwsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The endpoint for credentials of a container; it answers with the status in the list."""
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(
                {
                    "AccessKeyId": "of-the-role",
                    "SecretAccessKey": "secret",
                    "Token": "token-of-the-role",
                    "Expiration": "2099-01-01T00:00:00Z",
                }
            ).encode()
            self.send_response(status[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}/role")
    yield status
    server.shutdown()
    server.server_close()


def test_the_role_of_a_container_signs_the_requests(role: list[int], aws: AwsServer, table: str) -> None:
    """As in MWAA, which has no keys in its environment variables."""
    client = open_signed_client(HOME, timeout_s=20)
    assert client is not None
    assert client._credentials.get_frozen_credentials().access_key == "of-the-role"
    assert client._credentials.get_frozen_credentials().token == "token-of-the-role"
    client.put_item(TableName=table, Item=KEY)
    assert client.get_item(TableName=table, Key=KEY)["Item"] == KEY


def test_a_container_without_credentials_is_refused(
    role: list[int], monkeypatch: pytest.MonkeyPatch, aws: AwsServer
) -> None:
    """The error is one of boto3's, which the stores understand as missing access."""
    role[0] = 500
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    with pytest.raises(CredentialRetrievalError) as caught:
        open_signed_client(HOME, timeout_s=1)
    assert fault_of(caught.value).name == "ACCESS"


def test_a_read_imports_no_boto3(aws: AwsServer, keys: None, table: str) -> None:
    """Neither boto3 nor botocore's session and loader of service models, which take most of the time."""
    code = (
        "import sys\n"
        "from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore\n"
        f"print(DynamoDBStateStore({table!r}, [{HOME!r}]).observe({HOME!r}).state)\n"
        "sys.exit(','.join({'boto3', 'botocore.session', 'botocore.loaders', 'botocore.credentials'} "
        "& set(sys.modules)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr
