"""What DynamoDB says of a table: its copies, and what they promise each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.aws.replicas import Replicas
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.ports import Clock, TableDescription

if TYPE_CHECKING:
    import boto3


class DynamoDBTables:
    """
    The :class:`~airflow_provider_mwaa_dr.core.ports.Tables` of an account.

    :param regions: in which to ask, nearest first.
    :param session: a boto3 session with credentials; None for boto3's own search.
    """

    def __init__(self, regions: Sequence[str], *, clock: Clock, session: boto3.session.Session | None = None) -> None:
        self._regions, self._clock, self._session = regions, clock, session

    def describe(self, table: str) -> TableDescription:
        """Return what the first region that answers says: one DescribeTable."""
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
            "look at the table",
        )


def to_description(found: Mapping[str, Any], *, asked_in: str) -> TableDescription:
    """
    Return what DescribeTable's answer means.

    The region that was asked has a copy, whether or not it is listed among its own replicas; a witness is none.
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
