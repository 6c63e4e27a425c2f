"""
``AWS::DynamoDB::GlobalTable`` for moto, whose CloudFormation supports only tables of one region.

A table with strong consistency is one object that all replica regions share, so that a conditional write takes effect
in all of them immediately, as in AWS. With eventual consistency each region has its own table. The sandbox copies
writes between them if its state model requires that (:mod:`.replication`). DescribeTable returns replicas, witness and
consistency, which moto's own tables do not have.

Call :func:`register` once: moto finds the subclasses of its model.
"""

from __future__ import annotations

from typing import Any

from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.table import Table
from moto.kms.models import kms_backends

_RETAIN = {"Retain", "RetainExceptOnCreate"}


def register() -> None:
    """Register the type in moto's CloudFormation, also if moto has already cached its list of types."""
    if GlobalTable.cloudformation_type() in parsing.get_model_map():
        return
    for cached in (parsing.get_model_list, parsing.get_model_map, parsing.get_name_type_map):
        cached.cache_clear()


class GlobalTable(Table, CloudFormationModel):
    """A table with replicas, as its template describes it."""

    properties: dict[str, Any]
    """The properties in the template, including those that moto ignores."""
    delete = None  # type: ignore[assignment]  # so that moto calls the class method below, which gets the policy

    @staticmethod
    def cloudformation_type() -> str:
        """Return the name of the type in a template."""
        return "AWS::DynamoDB::GlobalTable"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: Any
    ) -> GlobalTable:
        """Create the table in the regions of all replicas. :raises ValueError: DynamoDB would refuse it."""
        properties = _properties(cloudformation_json)
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
        """Update what can change in place: the deletion protection, and properties that are only described."""
        properties = _properties(cloudformation_json)
        for replica in properties["Replicas"]:
            table = _stored(account_id, replica["Region"], new_resource_name)
            table.properties = properties
            table.deletion_protection_enabled = _is_true(replica.get("DeletionProtectionEnabled"))
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str
    ) -> None:
        """Delete every replica, unless the deletion policy retains the table. moto itself supports only Retain."""
        if cloudformation_json.get("DeletionPolicy") in _RETAIN:
            return
        table = _stored(account_id, region_name, resource_name)
        if table.deletion_protection_enabled:
            raise ValueError(f"Table {resource_name} is protected against deletion")
        for replica in table.properties["Replicas"]:
            dynamodb_backends[account_id][replica["Region"]].tables.pop(resource_name, None)

    def describe(self, base_key: str = "TableDescription") -> dict[str, Any]:
        """Return the answer of DescribeTable, with the members of a global table."""
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
            # The template and DynamoDB have different names for these members.
            sse_specification={"Enabled": True, "SSEType": "KMS"} if _is_true(sse.get("SSEEnabled")) else None,
            deletion_protection_enabled=_is_true(replica.get("DeletionProtectionEnabled")),
        )
        table.properties = properties
        if _is_true(sse.get("SSEEnabled")):
            # AWS manages this key. moto says that a customer does.
            kms_backends[account_id][region].describe_key("alias/aws/dynamodb").key_manager = "AWS"
        expiry = properties.get("TimeToLiveSpecification")
        if expiry and _is_true(expiry.get("Enabled")):
            table.ttl = {"TimeToLiveStatus": "ENABLED", "AttributeName": expiry["AttributeName"]}
        if _is_true((replica.get("PointInTimeRecoverySpecification") or {}).get("PointInTimeRecoveryEnabled")):
            table.continuous_backups["PointInTimeRecoveryDescription"] = {"PointInTimeRecoveryStatus": "ENABLED"}
        return table


def _properties(cloudformation_json: dict[str, Any]) -> dict[str, Any]:
    """Return the properties without those that are AWS::NoValue. moto leaves None for such an item of a list."""
    properties = cloudformation_json["Properties"]
    return {**properties, "Replicas": [replica for replica in properties["Replicas"] if replica is not None]}


def _stored(account_id: str, region: str, name: str) -> GlobalTable:
    table = dynamodb_backends[account_id][region].tables[name]
    if not isinstance(table, GlobalTable):
        raise TypeError(f"The table {name} in {region} does not belong to a stack")
    return table


def _require_possible(properties: dict[str, Any], regions: list[str], here: str) -> None:
    """Check the properties as DynamoDB does. :raises ValueError: DynamoDB would refuse them."""
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
