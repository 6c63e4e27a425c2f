"""What several tests of the core are set up with."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.testing import InMemoryRunsStore
from tests.unit.core.ledger_regions import HERE, THERE, Region


@pytest.fixture
def regions() -> tuple[Region, Region]:
    """Two regions on one runs table, in which nothing has happened."""
    store = InMemoryRunsStore()
    return Region(HERE, store.peer()), Region(THERE, store.peer())
