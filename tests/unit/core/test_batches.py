"""Sequences in parts of a limited size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.batches import batched


@pytest.mark.parametrize(
    ("elements", "batches"),
    [
        ([], []),
        ([1], [[1]]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([1, 2, 3, 4], [[1, 2, 3], [4]]),
        ((1, 2, 3, 4, 5, 6), [(1, 2, 3), (4, 5, 6)]),
        (b"abcde", [b"abc", b"de"]),
    ],
)
def test_batches_keep_order_and_type(elements: Sequence[Any], batches: list[Sequence[Any]]) -> None:
    """Every element is in exactly one batch, and only the last batch may be smaller."""
    assert list(batched(elements, 3)) == batches
