"""
Limits of DynamoDB, with its error messages: for fakes, and for emulations that accept more than AWS does.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

ITEM_BYTES = 400 * 1024
"""Maximum size of an item: attribute names and values."""
NESTED_LEVELS = 32
"""Maximum depth of nested lists and maps."""
DIGITS = 38
"""Maximum significant digits of a number."""
BATCH_READS = 100
BATCH_WRITES = 25
TRANSACTION_ITEMS = 100

_TOO_LARGE = "Item size has exceeded the maximum allowed size"
_TOO_DEEP = (
    "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
)
_TOO_PRECISE = "Attempting to store more than 38 significant digits in a Number"
_OVERFLOW = "Number overflow. Attempting to store a number with magnitude larger than supported range"
_UNDERFLOW = "Number underflow. Attempting to store a number with magnitude smaller than supported range"
_NO_NUMBER = "The parameter cannot be converted to a numeric value: "
_EMPTY_SET = "One or more parameter values were invalid: An string set  may not be empty"
_EMPTY_KEY = (
    "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string "
    "value. Key: "
)


def why_item_is_refused(item: Mapping[str, Any], *, key: tuple[str, ...] = ()) -> str | None:
    """
    Return the message of the ValidationException with which DynamoDB refuses an item; None: DynamoDB accepts it.

    :param item: attribute values such as ``{"S": ...}`` by name; binary values as bytes, or as base64 text.
    :param key: the names of the table's key attributes.
    """
    for name in key:
        if not item.get(name, {}).get("S", "x"):
            return _EMPTY_KEY + name
    for value in item.values():
        if (why := _why_value_is_refused(value)) is not None:
            return why
    size = sum(len(name.encode()) + _size(value) for name, value in item.items())
    return _TOO_LARGE if size > ITEM_BYTES else None


def why_request_is_refused(operation: str, parameters: Mapping[str, Any]) -> str | None:
    """Return the same for a request: checks its items, the values of its expressions, and the size of a batch."""
    if operation == "BatchGetItem":
        asked = sum(len(each["Keys"]) for each in parameters["RequestItems"].values())
        return _too_many("BatchGetItem") if asked > BATCH_READS else None
    if operation == "BatchWriteItem":
        writes = [each for table in parameters["RequestItems"].values() for each in table]
        if len(writes) > BATCH_WRITES:
            return _too_many("BatchWriteItem")
    if operation == "TransactWriteItems" and len(parameters["TransactItems"]) > TRANSACTION_ITEMS:
        return _too_many("TransactWriteItems")
    for item in _items(parameters):
        if (why := why_item_is_refused(item)) is not None:
            return why
    return None


def _items(parameters: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every item, and every map of expression values, at any depth of a request."""
    if isinstance(parameters, list):
        for each in parameters:
            yield from _items(each)
    elif isinstance(parameters, Mapping):
        for name, value in parameters.items():
            if name in {"Item", "ExpressionAttributeValues"}:
                yield value
            else:
                yield from _items(value)


def _too_many(operation: str) -> str:
    return f"Too many items requested for the {operation} call"


def _why_value_is_refused(value: Mapping[str, Any], level: int = 0) -> str | None:
    ((kind, content),) = value.items()
    if kind in {"L", "M"}:
        if level >= NESTED_LEVELS:
            return _TOO_DEEP
        parts = content.values() if kind == "M" else content
        return next((why for part in parts if (why := _why_value_is_refused(part, level + 1)) is not None), None)
    if kind in {"SS", "NS", "BS"} and not content:
        return _EMPTY_SET
    if kind in {"N", "NS"}:
        numbers = [content] if kind == "N" else content
        return next((why for number in numbers if (why := _why_number_is_refused(number)) is not None), None)
    return None


def _why_number_is_refused(text: str) -> str | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return _NO_NUMBER + text
    if not number.is_finite():
        return _NO_NUMBER + text
    if not number:
        return None
    digits = len(str(int(Decimal((0, number.as_tuple().digits, 0)))).rstrip("0"))
    if digits > DIGITS:
        return _TOO_PRECISE
    if number.adjusted() > 125:
        return _OVERFLOW
    return _UNDERFLOW if number.adjusted() < -130 else None


def _size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return len(content) // 2 + 2
    if kind == "B":
        return len(content) if isinstance(content, bytes) else len(base64.b64decode(content))
    if kind == "M":
        return 3 + sum(len(name.encode()) + _size(part) + 1 for name, part in content.items())
    if kind == "L":
        return 3 + sum(_size(part) + 1 for part in content)
    if kind in {"SS", "NS", "BS"}:
        return sum(_size({kind[0]: part}) for part in content)
    return 1
