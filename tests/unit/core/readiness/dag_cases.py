"""Cases of the checks of DAGs and runs."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.inventory import DEPENDS_ON_PAST, EXTERNAL_SENSOR
from airflow_provider_mwaa_dr.core.ports import INVENTORIES
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG
from tests.unit.core.dr_set import A, B
from tests.unit.core.readiness.case import (
    FAIL,
    WARN,
    Case,
    accept,
    dag,
    environment,
    forget,
    heartbeat,
    lose_the_snapshot,
    pause_the_standby,
    revive,
)

CASES = [
    Case(
        check="waiting",
        spoil=heartbeat(A, waiting=("orders manual__1: its DAG is not in this region, or exempt",)),
        verdict=WARN,
        why="orders manual__1: its DAG is not in this region",
        advice="Deploy the DAG in that region",
        fix=heartbeat(A, waiting=()),
    ),
    Case(
        check="dags",
        spoil=lambda ready: ready.world.environments[B].remove_dag("dag_00"),
        verdict=FAIL,
        why="to be unpaused, but missing in us-east-1: dag_00",
        advice="Copy the same DAG files",
        fix=lambda ready: ready.world.environments[B].add_dag("dag_00", is_paused=True),
    ),
    Case(
        check="dags",
        spoil=lambda ready: ready.world.environments[B].remove_dag("dag_03"),
        verdict=WARN,
        why="only in us-east-2: dag_03",
        advice="accepted_differences = dags:ID",
        fix=accept("dags:dag_03"),
    ),
    Case(
        check="dags",
        spoil=lambda ready: ready.world.environments[B].add_dag("local", is_paused=True),
        verdict=WARN,
        why="only in us-east-1: local",
        advice="For a DAG of one region only, declare the difference",
        fix=accept("dags:loc*"),
    ),
    Case(
        check="dags",
        spoil=lambda ready: ready.world.environments[B].add_dag("dr_failover"),
        verdict=WARN,
        why="exempt in one region only: dr_failover",
        advice="with the same tags",
        fix=lambda ready: ready.world.environments[B].add_dag("dr_failover", tags=["dr:control"]),
    ),
    Case(
        check="dags",
        spoil=lambda ready: (environment(A, unreachable=True)(ready), forget(ready, INVENTORIES)),
        verdict=WARN,
        why="not compared with us-east-2",
        fix=environment(A, unreachable=False),
        advice="Copy",
    ),
    Case(
        check="exempt",
        spoil=lambda ready: [
            ready.world.environments[each].add_dag("cleanup", tags=["dr:control", "x"]) for each in (A, B)
        ],
        verdict=WARN,
        why="exempt by the tag dr:control, and no example DAG of the provider: cleanup",
        advice="runs in both regions at the same time",
        fix=accept("exempt:cleanup"),
    ),
    Case(
        check="exempt",
        spoil=environment(A, unreachable=True),
        verdict=WARN,
        why="the DAGs of us-east-2 are unknown",
        advice="Remove the tag",
        fix=environment(A, unreachable=False),
    ),
    Case(
        check="paused",
        spoil=lambda ready: ready.world.environments[B].flip("dag_00", is_paused=False),
        verdict=WARN,
        why="not paused in the standby us-east-1: dag_00",
        advice="mwaa-dr pause us-east-1",
        fix=pause_the_standby,
    ),
    Case(
        check="paused",
        spoil=lose_the_snapshot,
        verdict=WARN,
        why="there is no snapshot of us-east-2",
        advice="The active region's agent takes a snapshot",
        fix=revive(A),
    ),
    Case(
        check="paused",
        spoil=lambda ready: (
            setattr(ready.world.agents[A], "alive", False),
            ready.world.environments[A].flip("dag_03", is_paused=False),
        ),
        verdict=WARN,
        why="changed since the snapshot of 2026-01-01T00:00:04Z: dag_03",
        fix=revive(A),
        advice="takes a snapshot",
    ),
    Case(
        check="test_dag",
        spoil=lambda ready: ready.world.environments[B].remove_dag(TEST_DAG),
        verdict=WARN,
        why="dr_test_dag is missing in us-east-1",
        advice="Deploy dr_test_dag",
        fix=lambda ready: ready.world.environments[B].add_dag(TEST_DAG, is_paused=True),
    ),
    Case(
        check="test_dag",
        spoil=lambda ready: ready.world.environments[A].flip(TEST_DAG, is_paused=True),
        verdict=WARN,
        why="dr_test_dag is paused or missing in us-east-2",
        advice="unpause it in us-east-2",
        fix=lambda ready: ready.world.environments[A].flip(TEST_DAG, is_paused=False),
    ),
    Case(
        check="imports",
        spoil=lambda ready: ready.change(B, import_errors=("etl/orders.py",)),
        verdict=FAIL,
        why="cannot be imported in us-east-1 only: etl/orders.py",
        advice="Read the import errors in that region's user interface",
        fix=lambda ready: ready.change(B, import_errors=()),
    ),
    Case(
        check="imports",
        spoil=lambda ready: (ready.change(A, import_errors=("o.py",)), ready.change(B, import_errors=("o.py",))),
        verdict=WARN,
        why="cannot be imported in either region: o.py",
    ),
    Case(
        check="code",
        spoil=lambda ready: dag(ready, B, "dag_00", source="other"),
        verdict=WARN,
        why="defined in files that differ: dag_00",
        advice="Copy the same files",
        fix=lambda ready: dag(ready, A, "dag_00", source="other"),
    ),
    Case(
        check="code",
        spoil=lambda ready: dag(ready, B, "dag_00", shape="other"),
        verdict=WARN,
        why="built differently from the same file: dag_00",
        advice="accepted_differences = code:ID",
        fix=accept("code:dag_00"),
    ),
    Case(
        check="past",
        spoil=lambda ready: dag(ready, A, "dag_00", traits=(DEPENDS_ON_PAST,)),
        verdict=WARN,
        why="depends_on_past or wait_for_downstream, which depend on earlier runs: dag_00",
        advice="accepted_differences = past:ID",
        fix=accept("past:dag_00"),
    ),
    Case(
        check="past",
        spoil=lambda ready: dag(ready, A, "dag_01", traits=(EXTERNAL_SENSOR,)),
        verdict=WARN,
        why="sensor of another DAG's run, which may be an earlier one: dag_01",
    ),
]
