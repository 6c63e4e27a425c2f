"""Dataclasses as plain JSON values, and back. Strict: a value of another type or another set of fields is an error."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """
    Return *value* as numbers, texts, lists, maps, true, false and null.

    A dataclass becomes a map of its fields, a tuple or frozenset a list, an enum its value, and a time ISO-8601 text.
    """
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [to_json(each) for each in value]
    return value


def from_json(kind: type[T], value: Any) -> T:
    """
    Return the *kind* that :func:`to_json` made *value* from.

    :param kind: a dataclass whose fields are bool, int, float, str, datetime, enums, dataclasses, tuples and frozensets
        of these, or None.
    :raises TypeError: a value has another type, or a map has other fields.
    :raises ValueError: a number is not finite, a text is no time or no value of the enum, or a tuple has another
        length.
    :raises OverflowError: a number is too large.
    """
    found: T = _decoded(kind, value)
    return found


def _decoded(kind: Any, value: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        (kind,) = (each for each in arguments if each is not NoneType)
        return None if value is None else _decoded(kind, value)
    if origin is frozenset:
        return frozenset(_decoded(arguments[0], each) for each in _typed(value, list))
    if origin is tuple:
        kinds = [arguments[0]] * len(_typed(value, list)) if arguments[-1] is Ellipsis else arguments
        return tuple(_decoded(each, element) for each, element in zip(kinds, _typed(value, list), strict=True))
    if is_dataclass(kind):
        hints = _hints(kind)  # type: ignore[arg-type]
        if _typed(value, dict).keys() != hints.keys():
            raise TypeError(f"{sorted(value)} are not the fields {sorted(hints)}")
        return kind(**{name: _decoded(hint, value[name]) for name, hint in hints.items()})  # type: ignore[operator]
    if issubclass(kind, Enum):
        return kind(value)
    if kind is datetime:
        return datetime.fromisoformat(_typed(value, str))
    if kind is float:
        if not math.isfinite(_typed(value, float, int)):
            raise ValueError(f"{value} is not a finite number")
        return float(value)
    return _typed(value, kind)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _typed(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise TypeError(f"{value!r} is a {type(value).__name__}")
    return value
