"""Fixtures: the implementations that the contract suites test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.eventual import EventualStateStore
from airflow_provider_mwaa_dr.core.ports import RunsStore, StateStore
from airflow_provider_mwaa_dr.testing import InMemoryGlobalTable, InMemoryRunsStore, InMemoryStateStore, ManualClock
from tests.contract.aws_server import HOME, AwsServer
from tests.contract.cloud import A, B, Cloud
from tests.contract.shared_clients import SharedClients

Peer = Callable[[], StateStore]
RunsPeer = Callable[[], RunsStore]
MakeCloud = Callable[..., Cloud]

SIGNED = "signed"
"""The store that sends its requests without boto3."""


@pytest.fixture(scope="session")
def aws_server() -> Iterator[AwsServer]:
    """One emulated AWS for all tests."""
    server = AwsServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def session() -> SharedClients:
    """A boto3 session for all tests, because reading botocore's service models takes longer than the tests."""
    return SharedClients()


@pytest.fixture
def aws(aws_server: AwsServer, monkeypatch: pytest.MonkeyPatch) -> AwsServer:
    """The emulated AWS without faults. The environment variables let boto3 find only this AWS."""
    for name in (
        "AWS_PROFILE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL_DYNAMODB",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws_server.url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    aws_server.reset()
    return aws_server


@pytest.fixture
def table(aws: AwsServer, session: boto3.session.Session) -> str:
    """A new, empty state table."""
    name = f"mwaa-dr-state-{uuid.uuid4().hex[:8]}"
    client = session.client("dynamodb", region_name=HOME)
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "state_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "state_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.close()
    aws.reset()
    return name


@pytest.fixture
def clock() -> ManualClock:
    """A manual clock, so that no test waits."""
    return ManualClock()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, aws: AwsServer) -> None:
    """Credentials in environment variables, so that a store without a session signs its requests itself."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")


@pytest.fixture(
    params=["memory", "dynamodb", "memory, available", "memory, safe", "dynamodb, available", "dynamodb, signed"]
)
def peer(request: pytest.FixtureRequest, clock: ManualClock, session: boto3.session.Session) -> Peer:
    """
    Return a function that makes stores for one table, each like the store of another process.

    If the table has replicas, each write reaches all of them immediately. With eventual consistency, the contract holds
    only for replicas that are up to date; tests/unit/core/test_eventual.py tests replicas that are not.
    """
    backend, _, mode = str(request.param).partition(", ")
    if backend == "memory" and mode:
        table = InMemoryGlobalTable(("us-east-2", "us-east-1"), clock)
        return lambda: EventualStateStore(table.copies(), mode=Eventual(mode), clock=clock)
    if backend == "memory":
        store = InMemoryStateStore()
        return store.peer
    name = request.getfixturevalue("table")
    if mode == SIGNED:
        request.getfixturevalue("keys")
        return lambda: DynamoDBStateStore(name, ("us-east-2", "us-east-1"), clock=clock, timeout_s=20)

    def copy(region: str) -> DynamoDBStateStore:
        return DynamoDBStateStore(name, (region,), clock=clock, session=session, timeout_s=20)

    if mode:
        return lambda: EventualStateStore(
            {region: copy(region) for region in ("us-east-2", "us-east-1")}, mode=Eventual(mode), clock=clock
        )
    return lambda: DynamoDBStateStore(name, ("us-east-2", "us-east-1"), clock=clock, session=session, timeout_s=20)


@pytest.fixture
def store(peer: Peer) -> StateStore:
    """A store with an empty table."""
    return peer()


@pytest.fixture
def runs_table(aws: AwsServer, session: boto3.session.Session) -> str:
    """A new, empty runs table."""
    name = f"mwaa-dr-runs-{uuid.uuid4().hex[:8]}"
    client = session.client("dynamodb", region_name=HOME)
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    client.close()
    aws.reset()
    return name


@pytest.fixture(params=["memory", "dynamodb", "dynamodb, own copy", "dynamodb, signed"])
def runs_peer(request: pytest.FixtureRequest, clock: ManualClock, session: boto3.session.Session) -> RunsPeer:
    """Return a function that makes runs stores for one table, each like the store of another process."""
    if request.param == "memory":
        return InMemoryRunsStore().peer
    name = request.getfixturevalue("runs_table")
    if request.param.endswith(SIGNED):
        request.getfixturevalue("keys")
        return lambda: DynamoDBRunsStore(name, ("us-east-2", "us-east-1"), clock=clock, timeout_s=20)
    own_region = "us-east-2" if request.param.endswith("own copy") else None
    return lambda: DynamoDBRunsStore(
        name, ("us-east-2", "us-east-1"), clock=clock, session=session, timeout_s=20, own_region=own_region
    )


@pytest.fixture
def make_cloud(
    tmp_path: Path, session: boto3.session.Session, aws: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeCloud]:
    """Return a function that makes clouds. boto3 finds the last one."""
    made: list[Cloud] = []

    def make(*regions: str, **changes: Any) -> Cloud:
        cloud = Cloud(
            home=tmp_path / f"cloud-{len(made)}",
            session=session,
            regions=regions or (A, B),  # type: ignore[arg-type]
            **changes,
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
        cloud.start()
        made.append(cloud)
        return cloud

    yield make
    for cloud in made:
        cloud.stop()


EACH_SET = pytest.mark.parametrize("cloud", ["two regions", "one region"], indirect=True)
"""A test with this marker uses *cloud* with the two regions of the AWS sample, and with two sites in one region."""


@pytest.fixture
def one_region(make_cloud: MakeCloud) -> Cloud:
    """Two sites in one region, with new environments."""
    return make_cloud("blue", "green", aws_regions={"blue": A, "green": A})


@pytest.fixture
def cloud(request: pytest.FixtureRequest, make_cloud: MakeCloud) -> Cloud:
    """The two regions of the AWS sample, with new environments; or another set, see :data:`EACH_SET`."""
    if getattr(request, "param", "") == "one region":
        found: Cloud = request.getfixturevalue("one_region")
        return found
    return make_cloud()
