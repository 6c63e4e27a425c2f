"""Existing tables: their description, and whether the provider can use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_mwaa_dr.aws.dynamodb.tables import to_description
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.exceptions import AwsMissingError, RefusedError

STATE_KEY = ("state_id",)
RUNS_KEY = ("pk", "sk")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingTable:
    """
    A table as DynamoDB describes it.

    :param key: names of the key attributes, the partition key first; all must be strings.
    :param regions: regions of the replicas; one for a single-region table.
    :param witness: region of the witness of a strongly consistent table; empty if there is none.
    :param keys: ARNs of the KMS keys of its replicas; no key that AWS owns.
    """

    name: str
    key: tuple[str, ...]
    status: str
    regions: tuple[str, ...]
    consistency: TableConsistency
    witness: str
    keys: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """Consistency and regions, in words."""
        where = " and ".join(self.regions)
        if self.consistency is TableConsistency.STRONG:
            return f"strongly consistent in {where}" + (f", witness {self.witness}" if self.witness else "")
        if self.consistency is TableConsistency.EVENTUAL:
            return f"eventually consistent in {where}"
        return f"in {where} only"


def find_table(aws: Aws, name: str, regions: Sequence[str]) -> ExistingTable | None:
    """
    Return the table *name* if it exists in one of *regions*; else None.

    :raises RefusedError: several regions have a table of this name, and the tables are not replicas of each other.
    """
    answers = {region: _describe(aws, name, region) for region in regions}
    found = {region: table for region, table in answers.items() if table is not None}
    if not found:
        return None
    candidates = [_existing_table(name, table) for table in found.values()]
    apart = {table["TableArn"] for table in found.values() if not table.get("Replicas")}
    if len(apart) > 1:
        raise RefusedError(
            f"{' and '.join(found)} each have their own table {name}; the tables are not replicas of each other.",
            advice="Two state tables lead to two active regions. Give another table (--table, DR_RUNS_TABLE), or "
            "delete both tables.",
        )
    existing = max(candidates, key=lambda existing: len(existing.regions))
    others = {region: _describe(aws, name, region) for region in existing.regions if region not in answers}
    keys = {
        table["SSEDescription"]["KMSMasterKeyArn"]
        for table in (*found.values(), *others.values())
        if table is not None and "KMSMasterKeyArn" in table.get("SSEDescription", {})
    }
    return replace(existing, keys=tuple(sorted(keys)))


def require_usable(existing: ExistingTable, key: Sequence[str], purpose: str) -> None:
    """Raise unless the table can be used for *purpose*. :raises RefusedError: its key or its status is wrong."""
    if existing.key != tuple(key):
        raise RefusedError(
            f"The table {existing.name} has the key {', '.join(existing.key)}; a {purpose} has the key "
            f"{', '.join(key)}, all strings.",
            advice="Give the name of another table; this one has another purpose.",
        )
    if existing.status not in {"ACTIVE", "UPDATING"}:
        raise RefusedError(
            f"The table {existing.name} is {existing.status}.", advice="Run the same command again when it is ACTIVE."
        )


def limits(existing: ExistingTable, regions: Sequence[str], purpose: str) -> list[str]:
    """Return the risk of a table without a replica in both regions, and the command that adds one; else nothing."""
    missing = sorted(set(regions) - set(existing.regions))
    if not missing:
        return []
    home = existing.regions[0]
    consequence = (
        f"when {home} is lost, the state cannot be read: the other region holds every run, and cannot become active"
        if purpose == "state table"
        else f"when {home} is lost, its ledger is lost with it: the other region does not know which runs it finished"
    )
    replica = f"aws dynamodb update-table --region {home} --table-name {existing.name} --replica-updates"
    return [
        f"WARNING: the {purpose} {existing.name} is {existing.model}: {consequence}.",
        f'  Add a replica: {replica} \'[{{"Create": {{"RegionName": "{missing[0]}"}}}}]\'',
    ]


def _describe(aws: Aws, name: str, region: str) -> Any:
    try:
        return aws("dynamodb", region).call_idempotent("describe_table", TableName=name)["Table"]
    except AwsMissingError:
        return None


def _existing_table(name: str, table: Any) -> ExistingTable:
    types = {row["AttributeName"]: row["AttributeType"] for row in table.get("AttributeDefinitions", ())}
    schema = sorted(table["KeySchema"], key=lambda row: row["KeyType"] != "HASH")
    home = table["TableArn"].split(":")[3]
    described = to_description(table, asked_in=home)
    witnesses = [row["RegionName"] for row in table.get("GlobalTableWitnesses", ())]
    return ExistingTable(
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
