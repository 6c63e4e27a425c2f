"""The limits of DynamoDB and the defects of items, for both stores in memory."""

from __future__ import annotations

from airflow_provider_mwaa_dr.aws.dynamodb import items
from airflow_provider_mwaa_dr.aws.dynamodb.limits import why_item_is_refused
from airflow_provider_mwaa_dr.exceptions import StateError, UnreadableItem

TABLE = "memory"
"""The name of the table in messages."""


def check_limits(item: items.Item, *, key: tuple[str, ...]) -> None:
    """Raise StateError if DynamoDB would refuse *item*, for example because it is too large."""
    if (refused := why_item_is_refused(item, key=key)) is not None:
        raise StateError(f"Could not write {[item[name]['S'] for name in key]}: ValidationException: {refused}.")


def fault_at(key: str, *, field: str, found: str, allowed: str) -> UnreadableItem:
    """Return the defect of an item that a test has damaged."""
    return UnreadableItem(
        table=TABLE, key=key, field=field, found=found, allowed=allowed, advice="Write it again, or delete it."
    )
