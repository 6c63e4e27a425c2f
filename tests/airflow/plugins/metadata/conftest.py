"""The functions of the gate and the database of the agent, which import Airflow's models."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


@pytest.fixture
def gates() -> ModuleType:
    """What the gate does with a run that is about to start."""
    from airflow_provider_mwaa_dr.plugins.metadata import starting_run

    return starting_run


@pytest.fixture
def agent_db() -> Any:
    """The database as an agent sees it."""
    from airflow_provider_mwaa_dr.plugins.metadata.database import MetadataDb

    return MetadataDb(SimpleNamespace(), exempt_dags=["by_id"])


@pytest.fixture
def db(database: Database, agent_db: Any) -> Any:
    """The same with the DAG ``orders``."""
    database.add_dag("orders", max_active_runs=16)
    return agent_db


@pytest.fixture
def airflow_3(database: Database) -> bool:
    """
    Whether the installed Airflow has the changes of version 3: runs without a logical date, and backfills as rows.
    """
    return "run_after" in database.tables.runs.c
