"""Batches: a sequence in parts of a limited size, for requests and queries that take only so many elements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

S = TypeVar("S", bound=Sequence[Any])


def batched(elements: S, size: int) -> Iterator[S]:
    """
    Yield *elements* in order, in slices of at most *size* elements; none for an empty sequence.

    ``itertools.batched`` needs Python 3.12, and yields tuples. A slice has the type of *elements*.

    :param size: at least 1.
    """
    for start in range(0, len(elements), size):
        yield cast("S", elements[start : start + size])
