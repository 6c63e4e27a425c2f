"""Descriptions of tables from DynamoDB."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.dynamodb.tables import DynamoDBTables, to_description
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.exceptions import StateAccessError, StateUnreachableError, TableNotFoundError
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.contract.aws_server import AwsServer

OHIO, VIRGINIA, OREGON = "us-east-2", "us-east-1", "us-west-2"


@pytest.fixture
def tables(clock: ManualClock, session: boto3.session.Session) -> DynamoDBTables:
    return DynamoDBTables((OHIO, VIRGINIA), clock=clock, session=session)


def test_a_table_in_one_region(tables: DynamoDBTables, table: str) -> None:
    """The description comes over a socket."""
    found = tables.describe(table)
    assert (found.name, found.regions, found.consistency) == (table, (OHIO,), TableConsistency.SINGLE)
    assert found.is_protected is False


def test_each_failure_has_its_error(tables: DynamoDBTables, table: str, aws: AwsServer) -> None:
    """The table is missing, forbidden or unreachable. The advice names the needed permission."""
    with pytest.raises(TableNotFoundError):
        tables.describe("no-such-table")
    aws.refuse = lambda region, operation: "AccessDeniedException"
    with pytest.raises(StateAccessError, match="dynamodb:DescribeTable"):
        tables.describe(table)
    aws.refuse = lambda region, operation: ""
    aws.before = lambda region, operation: True
    with pytest.raises(StateUnreachableError):
        tables.describe(table)


def test_the_other_region_is_asked_when_the_nearest_is_down(tables: DynamoDBTables, table: str, aws: AwsServer) -> None:
    """If the table's first region is lost, its replica describes the table."""
    aws.before = lambda region, operation: region == OHIO
    assert tables.describe(table).regions == (VIRGINIA,)


@pytest.mark.parametrize(
    ("answer", "asked_in", "regions", "consistency"),
    [
        ({"Replicas": [{"RegionName": VIRGINIA}]}, OHIO, (VIRGINIA, OHIO), TableConsistency.EVENTUAL),
        (
            {"Replicas": [{"RegionName": VIRGINIA}, {"RegionName": OHIO}], "MultiRegionConsistency": "EVENTUAL"},
            OHIO,
            (VIRGINIA, OHIO),
            TableConsistency.EVENTUAL,
        ),
        (
            {
                "Replicas": [{"RegionName": VIRGINIA}, {"RegionName": OHIO}],
                "MultiRegionConsistency": "STRONG",
                "GlobalTableWitnesses": [{"RegionName": OREGON}],
            },
            VIRGINIA,
            (VIRGINIA, OHIO),
            TableConsistency.STRONG,
        ),
        ({"Replicas": []}, OHIO, (OHIO,), TableConsistency.SINGLE),
    ],
    ids=["without itself", "eventual", "strong with a witness", "single"],
)
def test_replicas_are_distinguished_from_witnesses(
    answer: dict[str, Any], asked_in: str, regions: tuple[str, ...], consistency: TableConsistency
) -> None:
    """The answers are those of the DynamoDB documentation, because moto does not store replicas."""
    found = to_description({"TableName": "t", "DeletionProtectionEnabled": True, **answer}, asked_in=asked_in)
    assert (found.regions, found.consistency, found.is_protected) == (regions, consistency, True)
