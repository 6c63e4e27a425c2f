"""
The readiness checks: each passes in a good DR set, names what is wrong, and passes again after the user follows its
advice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias

import pytest

from airflow_provider_mwaa_dr.core import pausing
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.examination import examine
from airflow_provider_mwaa_dr.core.inventory import DEPENDS_ON_PAST, EXTERNAL_SENSOR, DagFacts
from airflow_provider_mwaa_dr.core.ports import Claim, DagSet, EnvironmentStatus, Unpublished
from airflow_provider_mwaa_dr.core.readiness import NAMES, REFUSALS, TEST_DAG, Verdict
from airflow_provider_mwaa_dr.core.state import FieldProblem, Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import ConfigError, NotReadyError, StateNotFoundError, StateUnreachableError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
from tests.unit.core.dr_set import A, B, C, request
from tests.unit.core.ready import ReadySet, drill, inventory

Change: TypeAlias = Callable[[ReadySet], object]
WARN, FAIL = Verdict.WARN, Verdict.FAIL


@pytest.fixture
def ready() -> ReadySet:
    return ReadySet.build()


@dataclass(frozen=True, kw_only=True)
class Case:
    """
    One thing that is wrong.

    :param advice: words of the advice that :attr:`fix` follows; None if only time, or no action, fixes it.
    """

    check: str
    spoil: Change
    verdict: Verdict
    why: str
    advice: str | None = None
    fix: Change | None = None

    def __str__(self) -> str:
        return f"{self.check}: {self.why}"


def dag(ready: ReadySet, region: str, dag_id: str, **facts: object) -> None:
    """Change one DAG in a region's inventory."""
    found = ready.world.store.get_inventory(region)
    assert found is not None
    changed = replace(found.dags.get(dag_id, DagFacts(source="s", shape="x")), **facts)  # type: ignore[arg-type]
    ready.change(region, dags={**found.dags, dag_id: changed})


def claim(environment: str, problem: str) -> Change:
    """Let an agent in region B claim region A, once."""

    def change(ready: ReadySet) -> None:
        at = ready.world.clock.now()
        ready.world.store.put_claim(
            Claim(region=A, environment=environment, aws_region=B, job="9", at=at, beat=1, problem=problem)
        )

    return change


def drop(ready: ReadySet, kind: str, region: str) -> None:
    """Remove all names of one kind from a region's inventory."""
    found = ready.world.store.get_inventory(region)
    assert found is not None
    ready.change(region, names={**found.names, kind: ()})


def fingerprint(ready: ReadySet, region: str, kind: str, name: str, value: str, *, key_id: str = "k") -> None:
    """Change the fingerprint of one value."""
    found = ready.world.store.get_inventory(region)
    assert found is not None
    ((peer, prints),) = found.fingerprints.items()
    values = {**prints.values, kind: {**prints.values[kind], name: value}}
    ready.change(region, fingerprints={peer: replace(prints, values=values, key_id=key_id)})


def write_again(ready: ReadySet) -> None:
    """Write both inventories again, as the agents do a minute later."""
    for region, other in ((A, B), (B, A)):
        ready.world.store.put_inventory(inventory(region, other, ready.world.clock.now()))


def accept(what: str) -> Change:
    return lambda ready: ready.settings.update(accepted_differences=what)


def heartbeat(region: str, **changes: object) -> Change:
    return lambda ready: ready.heartbeat(region, **changes)


def describe(region: str, **changes: object) -> Change:
    return lambda ready: ready.describe(region, **changes)


def environment(region: str, **changes: object) -> Change:
    def change(ready: ReadySet) -> None:
        for name, value in changes.items():
            setattr(ready.world.environments[region], name, value)

    return change


def options(region: str, **changes: str) -> Change:
    def change(ready: ReadySet) -> None:
        found = ready.world.store.get_inventory(region)
        assert found is not None
        ready.change(region, options={**found.options, **changes})

    return change


def forget(ready: ReadySet, what: str) -> None:
    getattr(ready.world.store._table, what).clear()


def open_plan(ready: ReadySet) -> None:
    state, at = ready.world.state, ready.world.clock.now()
    plan = Plan(id="p", source=A, target=B, mode=Mode.AUTO, reason="r", by="ana", owner="o", started_at=at)
    ready.world.store.write(transitions.claim(state, plan, at=at), expected_version=state.version)


def pause_the_standby(ready: ReadySet) -> None:
    """``mwaa-dr pause us-east-1``."""
    world = ready.world
    pausing.pause(world.store, world.environments[B], at=world.clock.now(), exempt_dags=())


def lose_the_snapshot(ready: ReadySet) -> None:
    ready.world.agents[A].alive = False
    forget(ready, "snapshots")


def revive(region: str) -> Change:
    def change(ready: ReadySet) -> None:
        ready.world.agents[region].alive = True
        ready.world.clock.advance(2)

    return change


def kill(region: str) -> Change:
    return lambda ready: setattr(ready.world.agents[region], "alive", False)


def table(name: str, *regions: str, **arguments: object) -> Change:
    return lambda ready: ready.tables.add(name, *regions, **arguments)  # type: ignore[arg-type]


AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def unpublished(acknowledged_at: datetime | None) -> Callable[[ReadySet], object]:
    """The target became active without its ledger. *acknowledged_at*: when a user acknowledged it, or None."""
    found = Unpublished(
        id="u1", region=B, epoch=1, begun_epoch=0, at=AT, why="refused", first_id=1, acknowledged_at=acknowledged_at
    )  # fmt: skip
    return lambda ready: ready.world.store.put_unpublished(found)


CASES = [
    # Reasons to refuse a failover.
    Case(
        check="environment",
        spoil=environment(B, reported_status=EnvironmentStatus.UPDATING),
        verdict=FAIL,
        why="is UPDATING",
        advice="an update takes 20 to 30 minutes",
        fix=environment(B, reported_status=EnvironmentStatus.AVAILABLE),
    ),
    Case(check="environment", spoil=environment(B, unreachable=True), verdict=FAIL, why="did not answer"),
    Case(
        check="environment",
        spoil=environment(A, unreachable=True),
        verdict=WARN,
        why="did not answer",
        advice="MWAA console of us-east-2",
        fix=environment(A, unreachable=False),
    ),
    Case(check="environment", spoil=describe(B, last_update="FAILED"), verdict=WARN, why="last update"),
    Case(
        check="scheduler",
        spoil=environment(B, scheduler_healthy=False),
        verdict=FAIL,
        why="scheduler is not healthy",
        advice="An update of the environment restarts it",
        fix=environment(B, scheduler_healthy=True),
    ),
    Case(check="scheduler", spoil=environment(A, scheduler_healthy=False), verdict=WARN, why="not healthy"),
    Case(
        check="scheduler",
        spoil=environment(B, reported_status=EnvironmentStatus.UPDATING),
        verdict=WARN,
        why="was not called",
    ),
    Case(
        check="agents",
        spoil=kill(B),
        verdict=FAIL,
        why="no agent is alive in us-east-1",
        advice="requirements_install",
        fix=revive(B),
    ),
    Case(check="agents", spoil=kill(A), verdict=WARN, why="no agent is alive in us-east-2"),
    Case(
        check="agents",
        spoil=heartbeat(B, schedulers=("1", "9")),
        verdict=FAIL,
        why="schedulers without an agent in us-east-1: job 9",
        fix=heartbeat(B, schedulers=("1",)),
        advice="dr.enabled = true",
    ),
    Case(
        check="protocol",
        spoil=heartbeat(B, protocol=2),
        verdict=FAIL,
        why="agents of us-east-1 use protocol version 2, this machine uses 1",
        advice="Install the same version",
        fix=heartbeat(B, protocol=1),
    ),
    Case(
        check="ledger",
        spoil=heartbeat(B, ledger_error="Table runs: refused."),
        verdict=FAIL,
        why="the ledger cannot be used in us-east-1: Table runs: refused",
        advice="on the runs table",
        fix=heartbeat(B, ledger_error=None),
    ),
    Case(check="ledger", spoil=heartbeat(A, ledger_lag_s=300.0), verdict=WARN, why="us-east-2 is 300 s behind"),
    Case(
        check="fence",
        spoil=heartbeat(B, fence_ok=False),
        verdict=FAIL,
        why="tasks ended in us-east-1 without the fence",
        advice="Run a task in mwaa-us-east-1",
        fix=heartbeat(B, fence_ok=True),
    ),
    Case(check="fence", spoil=heartbeat(B, fence_ok=None), verdict=WARN, why="no task has run yet that shows"),
    Case(check="fence", spoil=heartbeat(A, fence_ok=False), verdict=WARN, why="us-east-2 without the fence"),
    Case(
        check="fence",
        spoil=options(B, fence="False"),
        verdict=WARN,
        why="switched off in us-east-1",
        advice="[dr] fence is not off",
        fix=options(B, fence="True"),
    ),
    Case(
        check="leftovers",
        spoil=heartbeat(B, unclosed_runs=3),
        verdict=WARN,
        why="3 open runs in us-east-1",
        advice="until the agent of",
        fix=heartbeat(B, unclosed_runs=0),
    ),
    # Rights and tables.
    Case(
        check="rights",
        spoil=lambda ready: setattr(ready.world.store, "read_only", True),
        verdict=FAIL,
        why="may not write the state",
        advice="the role that makes failovers",
        fix=lambda ready: setattr(ready.world.store, "read_only", False),
    ),
    Case(
        check="rights",
        spoil=environment(B, read_only=True),
        verdict=FAIL,
        why="may not change DAGs in mwaa-us-east-1",
        advice="the role that makes failovers",
        fix=environment(B, read_only=False),
    ),
    Case(check="rights", spoil=environment(A, unreachable=True), verdict=WARN, why="not checked: change DAGs in"),
    Case(
        check="state",
        spoil=open_plan,
        verdict=WARN,
        why="plan p is open (DRAINING): us-east-2 -> us-east-1, by ana",
        advice="mwaa-dr failover us-east-1 --reason TEXT",
        fix=lambda ready: (ready.world.clock.advance(60), ready.world.fail_over(B)),
    ),
    Case(
        check="table",
        spoil=table("state", A, consistency=TableConsistency.SINGLE),
        verdict=WARN,
        why="only in us-east-2, the active region: without it, no failover is possible",
        advice="a copy in each region",
        fix=table("state", A, B),
    ),
    Case(
        check="table",
        spoil=table("state", B, consistency=TableConsistency.SINGLE),
        verdict=WARN,
        why="if this region is lost, us-east-2 holds all its work after 60 s",
    ),
    Case(
        check="table",
        spoil=table("state", A, B, consistency=TableConsistency.EVENTUAL),
        verdict=WARN,
        why="eventually consistent",
        advice="strong consistency",
        fix=table("state", A, B),
    ),
    Case(
        check="table",
        spoil=lambda ready: ready.settings.update(state_table_replicas=""),
        verdict=WARN,
        why="this machine reads only us-east-2",
        advice="DR_STATE_TABLE_REPLICAS",
        fix=lambda ready: ready.settings.update(state_table_replicas=f"{A},{B}"),
    ),
    Case(
        check="table",
        spoil=options(B, state_table_replicas=""),
        verdict=WARN,
        why="us-east-1 reads only us-east-1",
        advice="state_table_replicas = us-east-1,us-east-2",
        fix=options(B, state_table_replicas="us-east-1,us-east-2"),
    ),
    Case(
        check="table",
        spoil=table("state", A, "us-west-2"),
        verdict=WARN,
        why="no copy in us-east-1",
        advice="Add a replica in us-east-1",
        fix=table("state", A, B),
    ),
    Case(
        check="table",
        spoil=table("state", A, B, is_protected=False),
        verdict=WARN,
        why="deletion protection is off",
        advice="--deletion-protection-enabled",
        fix=table("state", A, B),
    ),
    Case(
        check="table",
        spoil=lambda ready: setattr(ready.tables, "forbidden", True),
        verdict=WARN,
        why="not checked: Access denied for the description of table state",
        advice="dynamodb:DescribeTable",
        fix=lambda ready: setattr(ready.tables, "forbidden", False),
    ),
    Case(
        check="runs_table",
        spoil=lambda ready: (
            ready.settings.update(runs_table=""),
            options(A, runs_table="")(ready),
            options(B, runs_table="")(ready),
        ),
        verdict=WARN,
        why="no runs table is known",
        advice="set [dr] runs_table in both regions",
        fix=lambda ready: (options(A, runs_table="runs")(ready), options(B, runs_table="runs")(ready)),
    ),
    Case(
        check="runs_table",
        spoil=table("runs", A, consistency=TableConsistency.SINGLE),
        verdict=WARN,
        why="runs is only in us-east-2",
        advice="Add a replica",
        fix=table("runs", A, B, consistency=TableConsistency.EVENTUAL),
    ),
    Case(
        check="unreachable",
        spoil=heartbeat(A, on_unreachable="run"),
        verdict=WARN,
        why="a forced failover is refused",
        advice="on_unreachable = hold",
        fix=heartbeat(A, on_unreachable="hold"),
    ),
    # Versions and settings.
    Case(
        check="provider",
        spoil=heartbeat(B, provider_version="0.0.9"),
        verdict=WARN,
        why="us-east-1 has 0.0.9",
        advice="Pin the same version",
        fix=lambda ready: (ready.world.agents[B].changes.pop("provider_version"), ready.world.clock.advance(2)),
    ),
    Case(
        check="airflow",
        spoil=describe(B, airflow_version="3.0.6"),
        verdict=WARN,
        why="3.0.6 in us-east-1, 3.3.1 in us-east-2",
        advice="Upgrade the older environment",
        fix=describe(B, airflow_version="3.3.1"),
    ),
    Case(check="airflow", spoil=describe(B, airflow_version="2.10.3"), verdict=FAIL, why="2.10.3 in us-east-1"),
    Case(
        check="unpublished",
        spoil=unpublished(None),
        verdict=WARN,
        why="us-east-1 became active without its ledger at 2026-01-01T00:00:00Z (epoch 1): refused",
        advice="mwaa-dr check --acknowledge u1",
        fix=unpublished(AT),
    ),
    Case(
        check="waiting",
        spoil=heartbeat(A, waiting=("orders manual__1: its DAG is not in this region, or exempt",)),
        verdict=WARN,
        why="orders manual__1: its DAG is not in this region",
        advice="Deploy the DAG in that region",
        fix=heartbeat(A, waiting=()),
    ),
    Case(
        check="items",
        spoil=lambda ready: ready.world.store.damage("SNAPSHOT#us-east-1", field="pages", found="'two'"),
        verdict=WARN,
        why="1 cannot be read: Item SNAPSHOT#us-east-1 of table memory cannot be read: field pages: found 'two'",
        advice="Write it again",
        fix=lambda ready: ready.world.store.put_snapshot(
            DagSet(id=B, region=B, recorded_at=ready.world.clock.now(), dag_ids=())
        ),
    ),
    Case(
        check="items",
        spoil=heartbeat(A, unread=("The ledger of us-east-1 has a gap.",)),
        verdict=WARN,
        why="The ledger of us-east-1 has a gap",
        advice="saves a checkpoint of its ledger within minutes",
    ),
    Case(
        check="identity",
        spoil=claim("ohio", "us-east-1 counts as us-east-2"),
        verdict=WARN,
        why="us-east-1 counts as us-east-2",
        advice="Correct the name or the region",
        fix=lambda ready: ready.world.clock.advance(60),
    ),
    Case(
        check="settings",
        spoil=options(B, refresh_s="60"),
        verdict=WARN,
        why="refresh_s: 60 in us-east-1 and unset in us-east-2",
        advice="Set the same options in section [dr]",
        fix=options(A, refresh_s="60"),
    ),
    Case(
        check="settings",
        spoil=heartbeat(B, problems=("[dr] lease_s = 'x' is not understood.",)),
        verdict=WARN,
        why="[dr] lease_s = 'x' is not understood",
        fix=heartbeat(B, problems=()),
        advice="[dr]",
    ),
    Case(
        check="settings",
        spoil=lambda ready: (options(A, lease_s="30")(ready), options(B, lease_s="30")(ready)),
        verdict=WARN,
        why="lease_s = 30 in us-east-1 has no effect: the state has 60",
    ),
    Case(
        check="options",
        spoil=describe(B, options={"dr.enabled": "true", "core.parallelism": "4"}),
        verdict=WARN,
        why="only in mwaa-us-east-1: core.parallelism",
        advice="Set the same Airflow configuration options",
        fix=describe(A, options={"dr.enabled": "true", "core.parallelism": "4"}),
    ),
    Case(
        check="options",
        spoil=describe(B, options={"dr.enabled": "false"}),
        verdict=WARN,
        why="with different values: dr.enabled",
        advice="accepted_differences = options:NAME",
        fix=accept("options:dr.enabled"),
    ),
    Case(
        check="clocks",
        spoil=lambda ready: ready.heartbeat(B, at=ready.world.clock.now() - timedelta(minutes=5)),
        verdict=WARN,
        why="host in us-east-1 is 30",
        advice="Correct the clocks",
        fix=lambda ready: (ready.world.agents[B].changes.pop("at"), ready.world.clock.advance(2)),
    ),
    # Which DAGs would run, and which pools, variables and connections they would have.
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
        spoil=lambda ready: (environment(A, unreachable=True)(ready), forget(ready, "inventories")),
        verdict=WARN,
        why="not compared with us-east-2",
        fix=environment(A, unreachable=False),
        advice="Copy",
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
        check="inventory",
        spoil=lambda ready: (forget(ready, "inventories"), ready.heartbeat(B, inventory_error="not allowed")),
        verdict=WARN,
        why="no inventory of us-east-1: not allowed; no inventory of us-east-2: its agent has not written one",
        advice="INVENTORY#REGION*",
        fix=write_again,
    ),
    Case(
        check="inventory",
        spoil=lambda ready: ready.change(B, taken_at=ready.world.clock.now() - timedelta(hours=2)),
        verdict=WARN,
        why="the inventory of us-east-1 is 120 minutes old",
        advice="minutes after the scheduler starts",
        fix=write_again,
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
    *(
        case
        for kind, name in (("pools", "etl"), ("variables", "bucket"), ("connections", "warehouse"))
        for case in (
            Case(
                check=kind,
                spoil=lambda ready, kind=kind: drop(ready, kind, B),  # type: ignore[misc]
                verdict=FAIL,
                why="missing in us-east-1: ",
                advice="airflow " + ("pools" if kind == "pools" else kind),
                fix=write_again,
            ),
            Case(
                check=kind,
                spoil=lambda ready, kind=kind: drop(ready, kind, A),  # type: ignore[misc]
                verdict=WARN,
                why="missing in us-east-2: ",
            ),
            Case(
                check=kind,
                spoil=lambda ready, kind=kind, name=name: fingerprint(ready, B, kind, name, "9"),  # type: ignore[misc]
                verdict=WARN,
                why=f"with different values: {name}",
                advice=f"accepted_differences = {kind}:NAME",
                fix=accept(f"{kind}:{name}"),
            ),
            Case(
                check=kind,
                spoil=lambda ready, kind=kind, name=name: fingerprint(  # type: ignore[misc]
                    ready, B, kind, name, "9", key_id="other"
                ),
                verdict=WARN,
                why="have not agreed on a key; both must be alive to do so",
                fix=write_again,
                advice="",
            ),
        )
    ),
    Case(
        check="packages",
        spoil=lambda ready: ready.change(B, packages={"apache-airflow": "3.3.1", "numpy": "1"}),
        verdict=WARN,
        why="missing in us-east-1: pandas; missing in us-east-2: numpy",
        advice="Use the same requirements.txt",
        fix=write_again,
    ),
    Case(
        check="packages",
        spoil=lambda ready: ready.change(B, packages={"apache-airflow": "3.3.1", "pandas": "2.2.0"}),
        verdict=WARN,
        why="in different versions: pandas",
        advice="with pinned versions",
        fix=write_again,
    ),
    Case(
        check="capacity",
        spoil=describe(B, environment_class="mw1.micro", max_workers=1),
        verdict=WARN,
        why="class: mw1.micro in mwaa-us-east-1, mw1.small in mwaa-us-east-2; max_workers: 1 in",
        advice="Make the target as large as the source",
        fix=describe(B, environment_class="mw1.large", max_workers=2),
    ),
    Case(
        check="capacity",
        spoil=describe(B, schedulers=1),
        verdict=WARN,
        why="schedulers: 1 in",
        advice="accepted_differences = capacity:NAME",
        fix=accept("capacity:schedulers"),
    ),
    Case(
        check="drill",
        spoil=lambda ready: forget(ready, "records"),
        verdict=WARN,
        why="no failover to us-east-1 was ever completed",
        advice="planned failover to us-east-1 and back",
        fix=lambda ready: (ready.world.fail_over(B), ready.world.fail_over(A)),
    ),
    Case(
        check="drill",
        spoil=lambda ready: ready.world.store.put_record(drill(ready.world.clock.now(), days_ago=200)),
        verdict=WARN,
        why="over 90 days ago",
        advice="--reason drill",
        fix=lambda ready: (ready.world.fail_over(B), ready.world.fail_over(A)),
    ),
    Case(
        check="drill",
        spoil=lambda ready: ready.world.store.put_record(
            replace(drill(ready.world.clock.now()), not_unpaused=("dag_05",))
        ),
        verdict=WARN,
        why="DAGs not unpaused: dag_05",
    ),
    Case(
        check="accepted",
        spoil=accept("agents,nonsense:x,dags:y"),
        verdict=WARN,
        why="have no effect: agents, nonsense:x",
        advice="where CHECK is one of",
        fix=accept("dags:y"),
    ),
]


def test_everything_passes_in_a_good_set(ready: ReadySet) -> None:
    """Every check is OK, and the checks change nothing."""
    before = ready.world.state
    results = ready.results()
    assert {result.name: result.why for result in results.values() if result.verdict is not Verdict.OK} == {}
    assert set(results) == {*NAMES, "accepted"}
    assert all(result.why and not result.advice for result in results.values())
    assert ready.world.state == before
    changing = {"set_paused", "trigger", "stop_run"}
    assert not changing & {call[0] for region in (A, B) for call in ready.world.environments[region].calls}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_check_names_what_is_wrong_and_its_advice_fixes_it(ready: ReadySet, case: Case) -> None:
    """
    The check returns a verdict, a reason and advice. After the advice is followed, it passes with the region that is
    then active.
    """
    case.spoil(ready)
    result = ready.results()[case.check]
    assert (result.verdict, case.why in result.why) == (case.verdict, True), result
    assert result.advice
    if case.advice is not None and case.fix is not None:
        assert case.advice in result.advice, result
        case.fix(ready)
        assert ready.results()[case.check].verdict is Verdict.OK, ready.results()[case.check]


def test_every_check_is_among_the_cases() -> None:
    """Without a case, no test would show that a new check can fail."""
    assert {case.check for case in CASES} == {*NAMES, "accepted"}
    fixed = {case.check for case in CASES if case.fix is not None}
    assert fixed == {*NAMES, "accepted"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_check_and_failover_do_not_contradict_each_other(ready: ReadySet, case: Case) -> None:
    """The checks show each reason to refuse a failover, in the same words. Without such a reason it is not refused."""
    case.spoil(ready)
    results = ready.results()
    refused = ready.world.engine("preview").preview(request(B)).not_ready
    shown = "; ".join(results[refusal.name].why for refusal in REFUSALS if results[refusal.name].verdict is FAIL)
    assert all(why in shown for why in refused)
    assert bool(refused) == bool(shown) or results["state"].verdict is WARN


def test_a_failover_refuses_agents_of_another_protocol(ready: ReadySet) -> None:
    """They would misread some items of each other."""
    ready.heartbeat(B, protocol=2)
    with pytest.raises(NotReadyError, match="use protocol version 2"):
        ready.world.fail_over(B)


@pytest.mark.parametrize("lost", [[A], [B], [A, B]], ids=["the active", "the standby", "both"])
@pytest.mark.parametrize("has_inventories", [True, False])
def test_the_checks_work_when_a_region_is_down(ready: ReadySet, lost: list[str], has_inventories: bool) -> None:
    """No check raises. A check names what is unknown, and a dead standby is a failure."""
    for region in lost:
        ready.world.environments[region].unreachable = True
        ready.world.agents[region].alive = False
    if not has_inventories:
        forget(ready, "inventories")
    results = ready.results()
    assert set(results) == {*NAMES, "accepted"}
    failed = {result.name for result in results.values() if result.verdict is FAIL}
    assert failed == ({"environment", "agents"} if B in lost else set())
    for name in ("environment", "agents", "rights", "options", "capacity"):
        assert results[name].verdict is not Verdict.OK
        assert any(region in results[name].why for region in lost)
    assert (results["code"].verdict is Verdict.OK) is has_inventories


def test_a_lost_region_is_compared_by_its_last_inventory(ready: ReadySet) -> None:
    """During a disaster, there is no other source."""
    ready.world.environments[A].unreachable = True
    ready.world.agents[A].alive = False
    ready.world.environments[B].remove_dag("dag_00")
    dag(ready, B, "dag_01", source="older")
    results = ready.results()
    assert "to be unpaused, but missing in us-east-1: dag_00" in results["dags"].why
    assert "dag_01" in results["code"].why


def test_a_region_that_does_not_answer_is_called_once(ready: ReadySet) -> None:
    """Each call may take its whole deadline of ten seconds."""
    ready.world.environments[A].unreachable = True
    ready.world.environments[A].calls.clear()
    ready.results()
    assert ready.world.environments[A].calls == [("describe",)]


def test_no_value_is_ever_shown(ready: ReadySet) -> None:
    """Configuration options may be passwords. The checks show their names, and only compare their values."""
    ready.describe(A, options={"secrets.backend_kwargs": "hunter2", "smtp.smtp_password": "a"})
    ready.describe(B, options={"secrets.backend_kwargs": "hunter3"})
    shown = str(ready.results())
    assert "secrets.backend_kwargs" in shown
    assert "hunter" not in shown


def test_the_whole_of_a_check_can_be_accepted(ready: ReadySet) -> None:
    """For example, a smaller standby. But a reason to refuse a failover cannot be accepted."""
    ready.describe(B, max_workers=1, schedulers=1)
    ready.world.agents[B].alive = False
    ready.settings["accepted_differences"] = "capacity,agents"
    results = ready.results()
    assert results["capacity"].verdict is Verdict.OK
    assert results["capacity"].why.startswith("accepted: ")
    assert results["agents"].verdict is FAIL


def test_a_long_list_is_cut(ready: ReadySet) -> None:
    """The first ten names, and the number of the others."""
    for number in range(15):
        ready.world.environments[B].add_dag(f"extra_{number:02}", is_paused=True)
    assert ready.results()["dags"].why.endswith("extra_09 and 5 more")


@pytest.mark.parametrize(
    ("target", "words"), [(A, "us-east-2 is the active region"), ("mars-1", "Unknown region 'mars-1'")]
)
def test_a_target_that_makes_no_sense_is_wrong_usage(ready: ReadySet, target: str, words: str) -> None:
    """No check is run."""
    with pytest.raises(ConfigError, match=words):
        ready.results(target=target)


def test_of_several_standbys_one_has_to_be_named(ready: ReadySet) -> None:
    """Each standby has its own result."""
    arguments = (ready.world.store, ready.tables, ready.world.environments, ready.world.clock, ready.config)
    with pytest.raises(ConfigError, match="us-east-1 and us-west-2"):
        examine(*arguments)
    assert examine(*arguments, target="us-west-2").target == "us-west-2"


def test_without_the_state_the_checks_raise(ready: ReadySet) -> None:
    """A table that does not answer, or that has no state item, must not become a list of warnings."""
    ready.world.store.unreachable = True
    with pytest.raises(StateUnreachableError):
        ready.results()
    ready.world.store = InMemoryStateStore()
    with pytest.raises(StateNotFoundError):
        ready.results()


@pytest.mark.parametrize("target", [A, B, None])
def test_an_active_region_that_is_not_registered_fails_the_check(ready: ReadySet, target: str | None) -> None:
    """The check names the value, and the command that corrects it."""
    ready.world.store._table.state = replace(ready.world.state, active_region="us-est-2")
    result = ready.results(target=target)["state"]
    assert result.verdict is Verdict.FAIL
    assert "active_region of the item ACTIVE_REGION is 'us-est-2'" in result.why
    assert f"mwaa-dr failover {target or B} --reason TEXT" in result.advice


@pytest.mark.parametrize("misspelled", ["us-est-2", "", "US-EAST-2"])
def test_the_advice_for_a_misspelled_region_is_to_correct_the_state_item(ready: ReadySet, misspelled: str) -> None:
    """Before the fix, the check recommended the MWAA console of the misspelled region."""
    ready.world.store.overwrite(replace(ready.world.state, active_region=misspelled))
    results = ready.results()
    assert results["state"].advice == (
        f"In the item ACTIVE_REGION of table state, set active_region to the region that executes ({B}, {A} or "
        f"{C}). Or give a region the role: mwaa-dr failover {B} --reason TEXT."
    )
    others = [result for name, result in results.items() if name != "state"]
    assert [result for result in others if result.verdict is not Verdict.OK] == []
    assert not any(misspelled and misspelled in result.why + result.advice for result in others)


def test_the_region_that_was_active_last_counts_as_the_source_of_a_misspelled_one(ready: ReadySet) -> None:
    """The region with the newest snapshot counts, not the first by name."""
    ready.world.agents[A].alive = False
    ready.world.clock.advance(5)
    newer = DagSet(id=B, region=B, recorded_at=ready.world.clock.now(), dag_ids=("dag_00",))
    ready.world.store.put_snapshot(newer)
    ready.world.store.overwrite(replace(ready.world.state, active_region="us-est-2"))
    environments = {region: ready.world.environments[region] for region in (A, B)}
    found = examine(ready.world.store, ready.tables, environments, ready.world.clock, ready.config)
    assert (found.source, found.target) == (B, A)


@pytest.mark.parametrize(
    ("active", "advice"), [("us-est-2", "In the item ACTIVE_REGION of table state, set"), (A, "DR_ENVIRONMENTS")]
)
def test_no_console_is_recommended_for_a_region_without_an_environment(
    ready: ReadySet, active: str, advice: str
) -> None:
    """Only the target is named. The advice is to correct the item, or to name the environment of the active region."""
    ready.world.store.overwrite(replace(ready.world.state, active_region=active))
    environments = {B: ready.world.environments[B]}
    found = examine(ready.world.store, ready.tables, environments, ready.world.clock, ready.config, target=B)
    of_source = {each.name: each.advice for each in found.results if each.name in {"environment", "scheduler"}}
    assert set(of_source) == {"environment", "scheduler"}
    assert all(advice in each for each in of_source.values())
    assert not any("console" in each.advice for each in found.results)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        (
            {"problems": (FieldProblem("lease_s", "'nan'", "a number from 2 to 3600"),)},
            "In the item ACTIVE_REGION of table state, set lease_s to a number from 2 to 3600. Or give",
        ),
        ({"phase": Phase.PROMOTING}, f"Give a region the role: mwaa-dr failover {B} --reason TEXT."),
    ],
)
def test_an_unusable_value_in_the_state_is_named_with_what_is_allowed(
    ready: ReadySet, changes: dict[str, Any], advice: str
) -> None:
    """The advice names the field and the allowed values. A phase without its plan has no value to correct."""
    ready.world.store._table.state = replace(ready.world.state, **changes)
    assert ready.results()["state"].advice.startswith(advice)


def test_a_value_that_an_agent_cannot_act_on_fails_the_check(ready: ReadySet) -> None:
    """The value is in an item of the region, which only that region reads."""
    ready.heartbeat(B, held_because="reconciled_epoch is 'abc'")
    result = ready.results()["state"]
    assert (result.verdict, result.why) == (Verdict.FAIL, f"{B} holds every run: reconciled_epoch is 'abc'")
