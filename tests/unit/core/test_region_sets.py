"""Which consistency models of a table a pair of regions allows."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.core.region_sets import REGION_SETS, table_model


@pytest.mark.parametrize(
    ("first", "second", "witness"),
    [
        ("us-east-2", "us-east-1", "us-west-2"),
        ("us-east-1", "us-west-2", "us-east-2"),
        ("eu-west-1", "eu-central-1", "eu-west-2"),
        ("ap-northeast-1", "ap-northeast-3", "ap-northeast-2"),
        ("us-east-1", "eu-west-1", ""),
        ("us-east-1", "us-west-1", ""),
        ("ap-southeast-1", "ap-southeast-2", ""),
    ],
)
def test_a_pair_has_a_witness_if_a_region_set_contains_both(first: str, second: str, witness: str) -> None:
    """The order of the two regions does not matter. The reason names both."""
    for model in (table_model(first, second), table_model(second, first)):
        assert (model.witness, model.is_strong) == (witness, bool(witness))
        assert first in model.reason
        assert second in model.reason


def test_each_set_has_room_for_a_witness() -> None:
    """Two replicas and a witness take three regions."""
    assert all(len(region_set) >= 3 for region_set in REGION_SETS)
