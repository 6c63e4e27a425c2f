"""Tables that are there already: what they are, and whether they can be used as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.aws.tables import to_description
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.exceptions import AwsMissingError, RefusedError

STATE_KEY = ("state_id",)
RUNS_KEY = ("pk", "sk")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSight:
    """
    A table as DynamoDB describes it.

    :param key: attribute names, the partition key first; all are strings.
    :param regions: of its copies; one for a table that has no other.
    :param witness: the region that keeps a strongly consistent table's majority; empty where there is none.
    """

    name: str
    key: tuple[str, ...]
    status: str
    regions: tuple[str, ...]
    consistency: TableConsistency
    witness: str

    @property
    def model(self) -> str:
        """How it is kept, in words."""
        where = " and ".join(self.regions)
        if self.consistency is TableConsistency.STRONG:
            return f"strongly consistent in {where}" + (f", witness {self.witness}" if self.witness else "")
        if self.consistency is TableConsistency.EVENTUAL:
            return f"eventually consistent in {where}"
        return f"in {where} only"


def look_at_table(aws: Aws, name: str, regions: Sequence[str]) -> TableSight | None:
    """
    Return the table *name*, looked for in *regions*; None when there is none.

    :raises RefusedError: each region has one of its own.
    """
    looked = {region: _describe(aws, name, region) for region in regions}
    found = {region: table for region, table in looked.items() if table is not None}
    if not found:
        return None
    sights = [_sight(name, table) for table in found.values()]
    apart = {table["TableArn"] for table in found.values() if not table.get("Replicas")}
    if len(apart) > 1:
        raise RefusedError(
            f"{' and '.join(found)} each have a table {name} of their own; they are no copies of one another.",
            advice="Two states are two active regions: name another table (--table, DR_RUNS_TABLE), or delete both.",
        )
    return max(sights, key=lambda sight: len(sight.regions))


def require_usable(sight: TableSight, key: Sequence[str], purpose: str) -> None:
    """Raise unless the table can be what it is wanted for. :raises RefusedError: it cannot."""
    if sight.key != tuple(key):
        raise RefusedError(
            f"The table {sight.name} has the key {', '.join(sight.key)}; a {purpose} has {', '.join(key)}, strings.",
            advice="Name another table; this one is somebody else's.",
        )
    if sight.status not in {"ACTIVE", "UPDATING"}:
        raise RefusedError(f"The table {sight.name} is {sight.status}.", advice="Say the same again when it is ACTIVE.")


def limits(sight: TableSight, regions: Sequence[str], purpose: str) -> list[str]:
    """Return what a table that is not kept in both regions costs, and how to cure it; nothing for one that is."""
    missing = sorted(set(regions) - set(sight.regions))
    if not missing:
        return []
    home = sight.regions[0]
    consequence = (
        f"when {home} is lost nobody can read the state: the other region holds everything, and cannot be made active"
        if purpose == "state table"
        else f"when {home} is lost, nobody knows what was running there"
    )
    replica = f"aws dynamodb update-table --region {home} --table-name {sight.name} --replica-updates"
    return [
        f"WARNING: the {purpose} {sight.name} is {sight.model}: {consequence}.",
        f'  Give it a copy: {replica} \'[{{"Create": {{"RegionName": "{missing[0]}"}}}}]\'',
    ]


def _describe(aws: Aws, name: str, region: str) -> Any:
    try:
        return aws("dynamodb", region).call_idempotent("describe_table", TableName=name)["Table"]
    except AwsMissingError:
        return None


def _sight(name: str, table: Any) -> TableSight:
    types = {row["AttributeName"]: row["AttributeType"] for row in table.get("AttributeDefinitions", ())}
    schema = sorted(table["KeySchema"], key=lambda row: row["KeyType"] != "HASH")
    home = table["TableArn"].split(":")[3]
    described = to_description(table, asked_in=home)
    witnesses = [row["RegionName"] for row in table.get("GlobalTableWitnesses", ())]
    return TableSight(
        name=name,
        key=tuple(
            row["AttributeName"] if types.get(row["AttributeName"]) == "S" else f"{row['AttributeName']} (not a string)"
            for row in schema
        ),
        status=table.get("TableStatus", "ACTIVE"),
        regions=tuple(dict.fromkeys([home, *described.regions])),
        consistency=described.consistency,
        witness=witnesses[0] if witnesses else "",
    )
