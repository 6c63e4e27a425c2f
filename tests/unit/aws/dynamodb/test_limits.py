"""The provider's copy of DynamoDB's limits."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from airflow_provider_mwaa_dr.aws.dynamodb.limits import ITEM_BYTES, why_item_is_refused, why_request_is_refused


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"S": "x"}
    for level in range(levels):
        value = {"M": {"a": value}} if level % 2 else {"L": [value]}
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"S": "x" * (ITEM_BYTES - 1)}, None),
        ({"S": "x" * ITEM_BYTES}, "Item size has exceeded"),
        ({"S": "é" * (ITEM_BYTES // 2)}, "Item size has exceeded"),
        ({"B": b"x" * ITEM_BYTES}, "Item size has exceeded"),
        ({"B": base64.b64encode(b"x" * (ITEM_BYTES - 1)).decode()}, None),
        ({"L": [{"S": "x" * 4096}] * 100}, "Item size has exceeded"),
        ({"M": {"x" * ITEM_BYTES: {"S": ""}}}, "Item size has exceeded"),
        ({"SS": ["x" * 300_000, "y" * 300_000]}, "Item size has exceeded"),
        (nested(32), None),
        (nested(33), "Nesting Levels have exceeded"),
        ({"SS": []}, "set  may not be empty"),
        ({"SS": [""]}, None),
        ({"S": ""}, None),
        ({"N": "1" * 38}, None),
        ({"N": "1" * 39}, "more than 38 significant digits"),
        ({"N": "1" + "0" * 100}, None),
        ({"N": "-0.10000000000000000000000000000000000000012"}, "more than 38 significant digits"),
        ({"M": {"a": {"L": [{"N": "1" * 39}]}}}, "more than 38 significant digits"),
        ({"N": "1e+30"}, None),
        ({"N": "1e126"}, "Number overflow"),
        ({"N": "1e-131"}, "Number underflow"),
        ({"N": "0"}, None),
        ({"N": "nan"}, "cannot be converted to a numeric value: nan"),
        ({"N": "inf"}, "cannot be converted to a numeric value: inf"),
        ({"N": "four"}, "cannot be converted to a numeric value: four"),
        ({"NULL": True}, None),
        ({"BOOL": False}, None),
    ],
)
def test_an_item_is_refused_for_what_dynamodb_refuses_it_for(value: dict[str, Any], why: str | None) -> None:
    """Size in bytes, levels, digits and empty sets. Other items are accepted."""
    refused = why_item_is_refused({"x": value})
    assert refused is None if why is None else why in str(refused)


def test_a_key_is_never_empty() -> None:
    """An empty text is a valid value, but not a valid key."""
    item = {"pk": {"S": "a"}, "sk": {"S": ""}}
    assert why_item_is_refused(item) is None
    assert "Key: sk" in str(why_item_is_refused(item, key=("pk", "sk")))


def _keys(number: int) -> dict[str, Any]:
    return {"t": {"Keys": [{"pk": {"S": str(each)}} for each in range(number)]}}


def _puts(number: int) -> list[dict[str, Any]]:
    return [{"PutRequest": {"Item": {"pk": {"S": str(each)}}}} for each in range(number)]


@pytest.mark.parametrize(
    ("operation", "parameters", "why"),
    [
        ("BatchGetItem", {"RequestItems": _keys(100)}, None),
        ("BatchGetItem", {"RequestItems": _keys(101)}, "Too many items"),
        ("BatchWriteItem", {"RequestItems": {"t": _puts(25)}}, None),
        ("BatchWriteItem", {"RequestItems": {"t": _puts(13), "u": _puts(13)}}, "Too many items"),
        ("BatchWriteItem", {"RequestItems": {"t": [{"PutRequest": {"Item": {"x": nested(33)}}}]}}, "Nesting"),
        ("TransactWriteItems", {"TransactItems": [{"Delete": {}}] * 101}, "Too many items"),
        ("TransactWriteItems", {"TransactItems": [{"Put": {"Item": {"x": nested(33)}}}]}, "Nesting"),
        ("PutItem", {"Item": {"x": nested(33)}}, "Nesting"),
        ("UpdateItem", {"ExpressionAttributeValues": {":x": {"N": "1" * 39}}}, "38 significant"),
        ("GetItem", {"Key": {"pk": {"S": "a"}}}, None),
    ],
)
def test_a_request_is_refused_for_what_is_in_it(operation: str, parameters: dict[str, Any], why: str | None) -> None:
    """For every operation with items, and for any number of items."""
    refused = why_request_is_refused(operation, parameters)
    assert refused is None if why is None else why in str(refused)
