"""The tables of a DR set in an emulated DynamoDB, over a socket."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

import boto3

from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core.ports import Registration
from airflow_provider_mwaa_dr.core.state import initial
from tests.contract.aws_server import HOME, AwsServer


@contextmanager
def emulated_tables() -> Iterator[tuple[str, str]]:
    """Yield the names of the state table and the runs table. This process and its children can access them."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = AwsServer()
    server.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    client = boto3.session.Session().client("dynamodb", region_name=HOME)
    names = "mwaa-dr-state", "mwaa-dr-runs"
    try:
        for name, keys in zip(names, (["state_id"], ["pk", "sk"]), strict=True):
            client.create_table(
                TableName=name,
                KeySchema=[
                    {"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
                ],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
                BillingMode="PAY_PER_REQUEST",
            )
        yield names
    finally:
        server.stop()


def begin(state_table: str, regions: Sequence[str]) -> None:
    """Make the first of *regions* active, and register an environment in each."""
    store = DynamoDBStateStore(state_table, tuple(regions), timeout_s=20)
    state = initial(regions[0], lease_s=60, by="bench", at=datetime.now(tz=timezone.utc))
    store.write(state, expected_version=None)
    for region in regions:
        store.register(Registration(region=region, environment=region))
