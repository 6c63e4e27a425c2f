"""The description of a table from DynamoDB: its replicas and their consistency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.aws.dynamodb.replicas import Replicas
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.ports import Clock, TableDescription

if TYPE_CHECKING:
    import boto3


class DynamoDBTables:
    """
    The :class:`~airflow_provider_mwaa_dr.core.ports.Tables` of an account.

    :param regions: regions to query, nearest first.
    :param session: a boto3 session with credentials; None: boto3 searches for credentials itself.
    """

    def __init__(self, regions: Sequence[str], *, clock: Clock, session: boto3.session.Session | None = None) -> None:
        self._regions, self._clock, self._session = regions, clock, session

    def describe(self, table: str) -> TableDescription:
        """Return the description from the first region that answers, with one DescribeTable."""
        replicas = Replicas(
            table,
            self._regions,
            clock=self._clock,
            session=self._session,
            rights="DescribeTable",
            key="any",
            setting="its name",
        )
        return replicas.ask(
            lambda client: to_description(
                client.describe_table(TableName=table)["Table"], asked_in=client.meta.region_name
            ),
            "describe the table",
        )


def to_description(found: Mapping[str, Any], *, asked_in: str) -> TableDescription:
    """
    Return the description from an answer of DescribeTable.

    The region that answered has a replica, even if the answer does not list it. A witness is not a replica.
    """
    copies = {str(replica["RegionName"]) for replica in found.get("Replicas") or ()} | {asked_in}
    if len(copies) == 1:
        consistency = TableConsistency.SINGLE
    else:
        is_strong = found.get("MultiRegionConsistency") == "STRONG"
        consistency = TableConsistency.STRONG if is_strong else TableConsistency.EVENTUAL
    return TableDescription(
        name=str(found["TableName"]),
        regions=tuple(sorted(copies)),
        consistency=consistency,
        is_protected=bool(found.get("DeletionProtectionEnabled")),
    )
