"""
``AWS::DynamoDB::GlobalTable`` for moto, whose CloudFormation knows only tables of one region.

A table with strong consistency is one object that every replica's region finds, so a conditional write counts in all of
them at once, as it does in AWS. One with eventual consistency is a table for each region; what is written to one is
copied to the others where the sandbox's state model says so (:mod:`.replication`). DescribeTable tells replicas,
witness and consistency, which moto's own tables do not.

:func:`teach` once is enough: moto looks for the subclasses of its model.
"""

from __future__ import annotations

from typing import Any

from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.table import Table

_KEPT = {"Retain", "RetainExceptOnCreate"}


def teach() -> None:
    """Have moto's CloudFormation know the type, also if it has listed what it knows before."""
    if GlobalTable.cloudformation_type() in parsing.get_model_map():
        return
    for known in (parsing.get_model_list, parsing.get_model_map, parsing.get_name_type_map):
        known.cache_clear()


class GlobalTable(Table, CloudFormationModel):
    """A table with replicas, as its template describes it."""

    properties: dict[str, Any]
    """Of the template, with everything that moto does not keep."""
    delete = None  # type: ignore[assignment]  # moto then deletes by the class method below, which sees the policy

    @staticmethod
    def cloudformation_type() -> str:
        """Return the type in a template."""
        return "AWS::DynamoDB::GlobalTable"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: Any
    ) -> GlobalTable:
        """Create it in every region of its replicas. :raises ValueError: DynamoDB would refuse it."""
        properties = cloudformation_json["Properties"]
        regions = [replica["Region"] for replica in properties["Replicas"]]
        _require_possible(properties, regions, region_name)
        if any(resource_name in dynamodb_backends[account_id][region].tables for region in regions):
            raise ValueError(f"Table already exists: {resource_name}")
        made: dict[str, GlobalTable] = {}
        for region in regions:
            if properties.get("MultiRegionConsistency") == "STRONG" and made:
                made[region] = next(iter(made.values()))
            else:
                made[region] = cls._make(resource_name, properties, account_id, region)
            dynamodb_backends[account_id][region].tables[resource_name] = made[region]
        return made[region_name]

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: GlobalTable,
        new_resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,  # noqa: ARG003  (moto names its arguments)
    ) -> GlobalTable:
        """Take over what can change in place: protection, and what is only described."""
        properties = cloudformation_json["Properties"]
        for replica in properties["Replicas"]:
            table = _stored(account_id, replica["Region"], new_resource_name)
            table.properties = properties
            table.deletion_protection_enabled = _is_true(replica.get("DeletionProtectionEnabled"))
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str
    ) -> None:
        """Delete every replica, unless the template says that the table outlives its stack. moto knows only Retain."""
        if cloudformation_json.get("DeletionPolicy") in _KEPT:
            return
        table = _stored(account_id, region_name, resource_name)
        if table.deletion_protection_enabled:
            raise ValueError(f"Table {resource_name} is protected against deletion")
        for replica in table.properties["Replicas"]:
            dynamodb_backends[account_id][replica["Region"]].tables.pop(resource_name, None)

    def describe(self, base_key: str = "TableDescription") -> dict[str, Any]:
        """Return what DescribeTable says, with what is global about it."""
        described: dict[str, Any] = super().describe(base_key)
        table = described[base_key]
        table["MultiRegionConsistency"] = self.properties.get("MultiRegionConsistency", "EVENTUAL")
        table["Replicas"] = [
            {"RegionName": replica["Region"], "ReplicaStatus": "ACTIVE"} for replica in self.properties["Replicas"]
        ]
        witnesses = self.properties.get("GlobalTableWitnesses") or ()
        table["GlobalTableWitnesses"] = [
            {"RegionName": witness["Region"], "WitnessStatus": "ACTIVE"} for witness in witnesses
        ]
        return described

    @classmethod
    def _make(cls, name: str, properties: dict[str, Any], account_id: str, region: str) -> GlobalTable:
        replica = next(one for one in properties["Replicas"] if one["Region"] == region)
        sse = properties.get("SSESpecification") or {}
        table = cls(
            name,
            account_id=account_id,
            region=region,
            schema=properties["KeySchema"],
            attr=properties["AttributeDefinitions"],
            billing_mode=properties.get("BillingMode", "PROVISIONED"),
            streams=dict(properties.get("StreamSpecification") or {}) or None,
            # Here the template and DynamoDB call it by different names.
            sse_specification={"Enabled": True, "SSEType": "KMS"} if _is_true(sse.get("SSEEnabled")) else None,
            deletion_protection_enabled=_is_true(replica.get("DeletionProtectionEnabled")),
        )
        table.properties = properties
        expiry = properties.get("TimeToLiveSpecification")
        if expiry and _is_true(expiry.get("Enabled")):
            table.ttl = {"TimeToLiveStatus": "ENABLED", "AttributeName": expiry["AttributeName"]}
        if _is_true((replica.get("PointInTimeRecoverySpecification") or {}).get("PointInTimeRecoveryEnabled")):
            table.continuous_backups["PointInTimeRecoveryDescription"] = {"PointInTimeRecoveryStatus": "ENABLED"}
        return table


def _stored(account_id: str, region: str, name: str) -> GlobalTable:
    table = dynamodb_backends[account_id][region].tables[name]
    if not isinstance(table, GlobalTable):
        raise TypeError(f"The table {name} in {region} is not the stack's")
    return table


def _require_possible(properties: dict[str, Any], regions: list[str], here: str) -> None:
    """Refuse what DynamoDB refuses. :raises ValueError: says what."""
    witnesses = properties.get("GlobalTableWitnesses") or []
    if here not in regions:
        raise ValueError(f"Replicas must include the stack's region {here}")
    if properties.get("MultiRegionConsistency") == "STRONG":
        if len(regions) + len(witnesses) != 3:
            raise ValueError("A table with strong consistency has three replicas, or two and a witness")
        if properties.get("TimeToLiveSpecification"):
            raise ValueError("A table with strong consistency has no time to live")
    elif len(regions) > 1 and not properties.get("StreamSpecification"):
        raise ValueError("A table with more than one replica needs a StreamSpecification")


def _is_true(value: object) -> bool:
    return str(value).lower() == "true"
