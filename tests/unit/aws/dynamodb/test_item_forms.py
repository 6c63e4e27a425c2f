"""The forms of items: each kind of item has one, with a schema."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_mwaa_dr.aws.dynamodb import items
from airflow_provider_mwaa_dr.aws.dynamodb.item_forms import FORMS, PagedForm, SingleForm, single_form_of
from airflow_provider_mwaa_dr.core import ports
from airflow_provider_mwaa_dr.core.item_kind import Home, ItemKind
from airflow_provider_mwaa_dr.core.ports import SNAPSHOTS

KINDS: list[ItemKind[Any]] = [each for each in vars(ports).values() if isinstance(each, ItemKind)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_has_a_form_and_a_schema(kind: ItemKind[Any]) -> None:
    """A kind that is missing here could be neither read nor written, nor be listed as unreadable."""
    form = FORMS[kind]
    assert items.schema_of(kind.key.format("r#claim#x")) is not None
    # The stores support only these combinations.
    assert isinstance(form, PagedForm) or not kind.is_final
    assert isinstance(form, SingleForm) or (kind.progress is None) == (form.progress_of is None)
    assert kind.home is not Home.PLAN or kind.region_of is None


def test_items_with_pages_cannot_be_listed_or_deleted() -> None:
    with pytest.raises(TypeError, match="'snapshot' have pages"):
        single_form_of(SNAPSHOTS)
