"""A read-only DynamoDB client in memory, for tests that need thousands of damaged tables a minute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

Item = Mapping[str, Any]


class DynamoDBReads:
    """
    The read calls that both stores make, on items by their complete key.

    :ivar meta: the same as for a client of AWS.
    """

    meta = SimpleNamespace(endpoint_url="https://dynamodb.us-east-1.amazonaws.com")

    def __init__(self, *items: Item) -> None:
        self.items = {key_of(item): item for item in items}

    def get_item(self, *, Key: Item, **_: Any) -> dict[str, Any]:
        found = self.items.get(key_of(Key))
        return {} if found is None else {"Item": found}

    def batch_get_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:
        ((table, request),) = RequestItems.items()
        found = [self.items[key] for key in map(key_of, request["Keys"]) if key in self.items]
        return {"Responses": {table: found}}

    def scan(self, *, ExpressionAttributeValues: Mapping[str, Any] | None = None, **_: Any) -> dict[str, Any]:
        if ExpressionAttributeValues is None:  # all items except pages
            return {"Items": [item for item in self.items.values() if not item.keys() & {"dag_ids", "body"}]}
        prefix = ExpressionAttributeValues[":prefix"]["S"]
        return {"Items": [item for (key, _), item in self.items.items() if key.startswith(prefix)]}

    def query(self, *, ExpressionAttributeValues: Mapping[str, Any], Limit: int, **_: Any) -> dict[str, Any]:
        pk, after = (ExpressionAttributeValues[name]["S"] for name in (":pk", ":after"))
        keys = sorted(key for key in self.items if key[0] == pk and key[1] > after)
        more = {"LastEvaluatedKey": {}} if len(keys) > Limit else {}
        return {"Items": [self.items[key] for key in keys[:Limit]], **more}

    @property
    def session(self) -> Any:
        """A boto3 session that returns this client for every service."""
        make: Callable[..., DynamoDBReads] = lambda *_, **__: self  # noqa: E731
        return SimpleNamespace(client=make)


def key_of(item: Item) -> tuple[str, str]:
    """Return the complete key of an item of either table."""
    if "state_id" in item:
        return item["state_id"]["S"], ""
    return item["pk"]["S"], item["sk"]["S"]
