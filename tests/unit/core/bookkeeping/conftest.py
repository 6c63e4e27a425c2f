"""Fixtures that several tests of the bookkeeper use."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.testing import InMemoryRunsStore
from tests.unit.core.bookkeeping.ledger_regions import HERE, THERE, Region


@pytest.fixture
def regions() -> tuple[Region, Region]:
    """Two regions that share one runs table, which is empty."""
    store = InMemoryRunsStore()
    return Region(HERE, store.peer()), Region(THERE, store.peer())
