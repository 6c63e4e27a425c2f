"""
An environment that is not the one of its region, with the scheduler hook and the database of the installed Airflow.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_mwaa_dr.core.ports import IDENTITY_CLAIMS, Registration
from airflow_provider_mwaa_dr.core.state import set_active_region
from tests.airflow.conftest import HERE, THERE
from tests.airflow.region import Region, interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


@pytest.fixture
def region(database: Database) -> Region:
    """The agent of HERE, which is active, and a database with an open run, a waiting run and an unpaused DAG."""
    database.add_dag("orders", is_paused=False)
    database.add_run("orders", "open", state="running")
    database.add_run("orders", "waiting")
    region = Region(database)
    state = region.store.read()
    active = set_active_region(state, HERE, reason="r", by="b", at=region.clock.now())
    region.store.write(active, expected_version=state.version)
    region.publish(interval(1), interval(2), dag_ids=("orders",))
    return region


def start(region: Region, listener: ModuleType, database: Database, run_id: str = "waiting") -> str:
    """Let the scheduler start a run. Return the state in which the gate leaves the run."""
    from airflow_provider_mwaa_dr.plugins.gate import Gate

    gate = Gate(config=region.loop._config, job=SimpleNamespace(), clock=region.clock)
    gate._loop, gate._is_alive = region.loop, True
    database.start(run_id, gate.check)
    return database.runs()[run_id]


def written(region: Region) -> set[str]:
    """Return what was written to the tables since the agent started."""
    calls = [*region.store.calls, *region.runs.calls]
    return {call for call in calls if call.startswith(("put", "write", "append", "save", "forget", "register"))}


@pytest.mark.parametrize(
    ("environment", "aws_region", "said"),
    [
        pytest.param(HERE, THERE, "but AWS_REGION is us-east-2", id="copied-region"),
        pytest.param("green", HERE, "but us-east-1 is registered as its environment", id="another-name"),
    ],
)
def test_the_wrong_environment_starts_and_closes_nothing(
    region: Region, listener: ModuleType, database: Database, environment: str, aws_region: str, said: str
) -> None:
    """A failover to the region and back: its runs, its DAGs and the ledger of the region do not change."""
    before = database.runs(), database.dag("orders").next_dagrun, database.dag("orders").is_paused
    region.start_agent(environment=environment, aws_region=aws_region)
    region.store.calls.clear()
    region.runs.calls.clear()
    for active in (THERE, HERE):
        region.turns(3)
        assert start(region, listener, database) == "queued"
        assert said in (database.note("waiting") or "")
        state = region.store.read()
        moved = set_active_region(state, active, reason="r", by="b", at=region.clock.now())
        region.store._table.state = moved
    assert (database.runs(), database.dag("orders").next_dagrun, database.dag("orders").is_paused) == before
    assert written(region) == {"put identity claim"}
    (claim,) = region.store.find_all(IDENTITY_CLAIMS, aws_region)
    assert said in claim.problem


def test_the_environment_that_init_names_continues_without_a_restart(
    region: Region, listener: ModuleType, database: Database
) -> None:
    """Green replaces blue. The same scheduler holds until then, and then starts the run that it held."""
    region.start_agent(environment="green", aws_region=HERE)
    region.turns(2)
    assert start(region, listener, database) == "queued"
    region.store.register(Registration(region=HERE, environment="green"))
    region.turns(3)
    region.clock.sleep(1)
    assert start(region, listener, database) == "running"
    assert [agent.environment for agent in region.store.agents(HERE)] == ["green"]
