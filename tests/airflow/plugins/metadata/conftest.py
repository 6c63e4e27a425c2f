"""The functions of the gate and the database of the agent, which import Airflow's models."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def gates() -> ModuleType:
    """What the gate does with a run that is about to start."""
    from airflow_provider_mwaa_dr.plugins.metadata import starting_run

    return starting_run


@pytest.fixture
def agent_db() -> Any:
    from airflow_provider_mwaa_dr.plugins.metadata.database import MetadataDb

    return MetadataDb(SimpleNamespace(), exempt_dags=["by_id"])
