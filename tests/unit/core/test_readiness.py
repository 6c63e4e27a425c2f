"""
The readiness checks: each passes in a good set, says what is wrong in one that is not, and passes again once its advice
was followed.
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

    :param advice: words of the advice that :attr:`mend` follows; None for what only time, or nothing, mends.
    """

    check: str
    spoil: Change
    verdict: Verdict
    why: str
    advice: str | None = None
    mend: Change | None = None

    def __str__(self) -> str:
        return f"{self.check}: {self.why}"


def dag(ready: ReadySet, region: str, dag_id: str, **facts: object) -> None:
    """Change one DAG in what a region's agent has listed."""
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
    """Take all of one kind out of what a region's agent has listed."""
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
    """What the agents do a minute later: list what is there."""
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
    """The target took a role up without its ledger, and a person has taken note, or has not."""
    found = Unpublished(
        id="u1", region=B, epoch=1, begun_epoch=0, at=AT, why="refused", first_id=1, acknowledged_at=acknowledged_at
    )  # fmt: skip
    return lambda ready: ready.world.store.put_unpublished(found)


CASES = [
    # What a failover is refused for.
    Case(
        check="environment",
        spoil=environment(B, reported_status=EnvironmentStatus.UPDATING),
        verdict=FAIL,
        why="is UPDATING",
        advice="an update takes 20 to 30 minutes",
        mend=environment(B, reported_status=EnvironmentStatus.AVAILABLE),
    ),
    Case(check="environment", spoil=environment(B, unreachable=True), verdict=FAIL, why="did not answer"),
    Case(
        check="environment",
        spoil=environment(A, unreachable=True),
        verdict=WARN,
        why="did not answer",
        advice="MWAA console of us-east-2",
        mend=environment(A, unreachable=False),
    ),
    Case(check="environment", spoil=describe(B, last_update="FAILED"), verdict=WARN, why="last update"),
    Case(
        check="scheduler",
        spoil=environment(B, scheduler_healthy=False),
        verdict=FAIL,
        why="scheduler is not healthy",
        advice="updating the environment restarts it",
        mend=environment(B, scheduler_healthy=True),
    ),
    Case(check="scheduler", spoil=environment(A, scheduler_healthy=False), verdict=WARN, why="not healthy"),
    Case(
        check="scheduler",
        spoil=environment(B, reported_status=EnvironmentStatus.UPDATING),
        verdict=WARN,
        why="was not asked",
    ),
    Case(
        check="agents",
        spoil=kill(B),
        verdict=FAIL,
        why="no agent is alive in us-east-1",
        advice="requirements_install",
        mend=revive(B),
    ),
    Case(check="agents", spoil=kill(A), verdict=WARN, why="no agent is alive in us-east-2"),
    Case(
        check="agents",
        spoil=heartbeat(B, schedulers=("1", "9")),
        verdict=FAIL,
        why="schedulers without an agent in us-east-1: job 9",
        mend=heartbeat(B, schedulers=("1",)),
        advice="dr.enabled = true",
    ),
    Case(
        check="protocol",
        spoil=heartbeat(B, protocol=2),
        verdict=FAIL,
        why="agents of us-east-1 speak protocol 2, this side speaks 1",
        advice="Install the same version",
        mend=heartbeat(B, protocol=1),
    ),
    Case(
        check="ledger",
        spoil=heartbeat(B, ledger_error="Table runs: refused."),
        verdict=FAIL,
        why="the ledger cannot be used in us-east-1: Table runs: refused",
        advice="on the runs table",
        mend=heartbeat(B, ledger_error=None),
    ),
    Case(check="ledger", spoil=heartbeat(A, ledger_lag_s=300.0), verdict=WARN, why="us-east-2 is 300 s behind"),
    Case(
        check="fence",
        spoil=heartbeat(B, fence_ok=False),
        verdict=FAIL,
        why="tasks ended in us-east-1 without the fence",
        advice="Run a task in mwaa-us-east-1",
        mend=heartbeat(B, fence_ok=True),
    ),
    Case(check="fence", spoil=heartbeat(B, fence_ok=None), verdict=WARN, why="no task has shown yet"),
    Case(check="fence", spoil=heartbeat(A, fence_ok=False), verdict=WARN, why="us-east-2 without the fence"),
    Case(
        check="fence",
        spoil=options(B, fence="False"),
        verdict=WARN,
        why="switched off in us-east-1",
        advice="[dr] fence is not off",
        mend=options(B, fence="True"),
    ),
    Case(
        check="leftovers",
        spoil=heartbeat(B, unclosed_runs=3),
        verdict=WARN,
        why="3 open runs in us-east-1",
        advice="Wait for the agent",
        mend=heartbeat(B, unclosed_runs=0),
    ),
    # Rights and tables.
    Case(
        check="rights",
        spoil=lambda ready: setattr(ready.world.store, "read_only", True),
        verdict=FAIL,
        why="may not write the state",
        advice="the role that is to fail over",
        mend=lambda ready: setattr(ready.world.store, "read_only", False),
    ),
    Case(
        check="rights",
        spoil=environment(B, read_only=True),
        verdict=FAIL,
        why="may not change DAGs in mwaa-us-east-1",
        advice="the role that is to fail over",
        mend=environment(B, read_only=False),
    ),
    Case(check="rights", spoil=environment(A, unreachable=True), verdict=WARN, why="not checked: change DAGs in"),
    Case(
        check="state",
        spoil=open_plan,
        verdict=WARN,
        why="plan p is open (DRAINING): us-east-2 -> us-east-1, by ana",
        advice="mwaa-dr failover us-east-1 --reason TEXT",
        mend=lambda ready: (ready.world.clock.advance(60), ready.world.fail_over(B)),
    ),
    Case(
        check="table",
        spoil=table("state", A, consistency=TableConsistency.SINGLE),
        verdict=WARN,
        why="in us-east-2 only, the active region: lost with it, nobody can fail over",
        advice="a copy in each region",
        mend=table("state", A, B),
    ),
    Case(
        check="table",
        spoil=table("state", B, consistency=TableConsistency.SINGLE),
        verdict=WARN,
        why="when that is lost, us-east-2 holds all its work after 60 s",
    ),
    Case(
        check="table",
        spoil=table("state", A, B, consistency=TableConsistency.EVENTUAL),
        verdict=WARN,
        why="eventually consistent",
        advice="strong consistency",
        mend=table("state", A, B),
    ),
    Case(
        check="table",
        spoil=lambda ready: ready.settings.update(state_table_replicas=""),
        verdict=WARN,
        why="this side reads us-east-2 only",
        advice="DR_STATE_TABLE_REPLICAS",
        mend=lambda ready: ready.settings.update(state_table_replicas=f"{A},{B}"),
    ),
    Case(
        check="table",
        spoil=options(B, state_table_replicas=""),
        verdict=WARN,
        why="us-east-1 reads us-east-1 only",
        advice="state_table_replicas = us-east-1,us-east-2",
        mend=options(B, state_table_replicas="us-east-1,us-east-2"),
    ),
    Case(
        check="table",
        spoil=table("state", A, "us-west-2"),
        verdict=WARN,
        why="no copy in us-east-1",
        advice="Add a replica in us-east-1",
        mend=table("state", A, B),
    ),
    Case(
        check="table",
        spoil=table("state", A, B, is_protected=False),
        verdict=WARN,
        why="deletion protection is off",
        advice="--deletion-protection-enabled",
        mend=table("state", A, B),
    ),
    Case(
        check="table",
        spoil=lambda ready: setattr(ready.tables, "forbidden", True),
        verdict=WARN,
        why="not checked: Table state must not be described",
        advice="dynamodb:DescribeTable",
        mend=lambda ready: setattr(ready.tables, "forbidden", False),
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
        mend=lambda ready: (options(A, runs_table="runs")(ready), options(B, runs_table="runs")(ready)),
    ),
    Case(
        check="runs_table",
        spoil=table("runs", A, consistency=TableConsistency.SINGLE),
        verdict=WARN,
        why="runs is in us-east-2 only",
        advice="Add a replica",
        mend=table("runs", A, B, consistency=TableConsistency.EVENTUAL),
    ),
    Case(
        check="unreachable",
        spoil=heartbeat(A, on_unreachable="run"),
        verdict=WARN,
        why="a forced failover is refused",
        advice="on_unreachable = hold",
        mend=heartbeat(A, on_unreachable="hold"),
    ),
    # Versions and settings.
    Case(
        check="provider",
        spoil=heartbeat(B, provider_version="0.0.9"),
        verdict=WARN,
        why="us-east-1 has 0.0.9",
        advice="Pin the same version",
        mend=lambda ready: (ready.world.agents[B].changes.pop("provider_version"), ready.world.clock.advance(2)),
    ),
    Case(
        check="airflow",
        spoil=describe(B, airflow_version="3.0.6"),
        verdict=WARN,
        why="3.0.6 in us-east-1, 3.3.1 in us-east-2",
        advice="Upgrade the older environment",
        mend=describe(B, airflow_version="3.3.1"),
    ),
    Case(check="airflow", spoil=describe(B, airflow_version="2.10.3"), verdict=FAIL, why="2.10.3 in us-east-1"),
    Case(
        check="unpublished",
        spoil=unpublished(None),
        verdict=WARN,
        why="us-east-1 took the role up without its ledger at 2026-01-01T00:00:00Z (epoch 1): refused",
        advice="mwaa-dr check --acknowledge u1",
        mend=unpublished(AT),
    ),
    Case(
        check="waiting",
        spoil=heartbeat(A, waiting=("orders manual__1: its DAG is not in this region, or exempt",)),
        verdict=WARN,
        why="orders manual__1: its DAG is not in this region",
        advice="Deploy the DAG there",
        mend=heartbeat(A, waiting=()),
    ),
    Case(
        check="items",
        spoil=lambda ready: ready.world.store.damage("SNAPSHOT#us-east-1", field="pages", found="'two'"),
        verdict=WARN,
        why="1 cannot be read: Item SNAPSHOT#us-east-1 of table memory cannot be read: field pages: found 'two'",
        advice="Write it again",
        mend=lambda ready: ready.world.store.put_snapshot(
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
        advice="until its name or its region is corrected",
        mend=lambda ready: ready.world.clock.advance(60),
    ),
    Case(
        check="settings",
        spoil=options(B, refresh_s="60"),
        verdict=WARN,
        why="refresh_s: 60 in us-east-1 and unset in us-east-2",
        advice="Set the same options in section [dr]",
        mend=options(A, refresh_s="60"),
    ),
    Case(
        check="settings",
        spoil=heartbeat(B, problems=("[dr] lease_s = 'x' is not understood.",)),
        verdict=WARN,
        why="[dr] lease_s = 'x' is not understood",
        mend=heartbeat(B, problems=()),
        advice="[dr]",
    ),
    Case(
        check="settings",
        spoil=lambda ready: (options(A, lease_s="30")(ready), options(B, lease_s="30")(ready)),
        verdict=WARN,
        why="lease_s = 30 in us-east-1 does not count, the state says 60",
    ),
    Case(
        check="options",
        spoil=describe(B, options={"dr.enabled": "true", "core.parallelism": "4"}),
        verdict=WARN,
        why="only in mwaa-us-east-1: core.parallelism",
        advice="Set the same Airflow configuration options",
        mend=describe(A, options={"dr.enabled": "true", "core.parallelism": "4"}),
    ),
    Case(
        check="options",
        spoil=describe(B, options={"dr.enabled": "false"}),
        verdict=WARN,
        why="with different values: dr.enabled",
        advice="accepted_differences = options:NAME",
        mend=accept("options:dr.enabled"),
    ),
    Case(
        check="clocks",
        spoil=lambda ready: ready.heartbeat(B, at=ready.world.clock.now() - timedelta(minutes=5)),
        verdict=WARN,
        why="host in us-east-1 is 30",
        advice="Set the clocks right",
        mend=lambda ready: (ready.world.agents[B].changes.pop("at"), ready.world.clock.advance(2)),
    ),
    # What would run, and what it would find.
    Case(
        check="dags",
        spoil=lambda ready: ready.world.environments[B].remove_dag("dag_00"),
        verdict=FAIL,
        why="wanted, and not in us-east-1: dag_00",
        advice="Copy the same DAG files",
        mend=lambda ready: ready.world.environments[B].add_dag("dag_00", is_paused=True),
    ),
    Case(
        check="dags",
        spoil=lambda ready: ready.world.environments[B].remove_dag("dag_03"),
        verdict=WARN,
        why="only in us-east-2: dag_03",
        advice="accepted_differences = dags:ID",
        mend=accept("dags:dag_03"),
    ),
    Case(
        check="dags",
        spoil=lambda ready: ready.world.environments[B].add_dag("local", is_paused=True),
        verdict=WARN,
        why="only in us-east-1: local",
        advice="a DAG meant for one region only is declared",
        mend=accept("dags:loc*"),
    ),
    Case(
        check="dags",
        spoil=lambda ready: ready.world.environments[B].add_dag("dr_failover"),
        verdict=WARN,
        why="exempt in one region only: dr_failover",
        advice="with the same tags",
        mend=lambda ready: ready.world.environments[B].add_dag("dr_failover", tags=["dr:control"]),
    ),
    Case(
        check="dags",
        spoil=lambda ready: (environment(A, unreachable=True)(ready), forget(ready, "inventories")),
        verdict=WARN,
        why="not compared with us-east-2",
        mend=environment(A, unreachable=False),
        advice="Copy",
    ),
    Case(
        check="paused",
        spoil=lambda ready: ready.world.environments[B].flip("dag_00", is_paused=False),
        verdict=WARN,
        why="not paused in the standby us-east-1: dag_00",
        advice="mwaa-dr pause us-east-1",
        mend=pause_the_standby,
    ),
    Case(
        check="paused",
        spoil=lose_the_snapshot,
        verdict=WARN,
        why="no snapshot of us-east-2 was ever taken",
        advice="the work of the active region's agent",
        mend=revive(A),
    ),
    Case(
        check="paused",
        spoil=lambda ready: (
            setattr(ready.world.agents[A], "alive", False),
            ready.world.environments[A].flip("dag_03", is_paused=False),
        ),
        verdict=WARN,
        why="changed since the snapshot of 2026-01-01T00:00:04Z: dag_03",
        mend=revive(A),
        advice="A snapshot is",
    ),
    Case(
        check="test_dag",
        spoil=lambda ready: ready.world.environments[B].remove_dag(TEST_DAG),
        verdict=WARN,
        why="dr_test_dag is not in us-east-1",
        advice="Deploy dr_test_dag",
        mend=lambda ready: ready.world.environments[B].add_dag(TEST_DAG, is_paused=True),
    ),
    Case(
        check="test_dag",
        spoil=lambda ready: ready.world.environments[A].flip(TEST_DAG, is_paused=True),
        verdict=WARN,
        why="dr_test_dag is paused in us-east-2",
        advice="unpause it in us-east-2",
        mend=lambda ready: ready.world.environments[A].flip(TEST_DAG, is_paused=False),
    ),
    Case(
        check="inventory",
        spoil=lambda ready: (forget(ready, "inventories"), ready.heartbeat(B, inventory_error="not allowed")),
        verdict=WARN,
        why="none of us-east-1: not allowed; none of us-east-2: its agent has not written one",
        advice="INVENTORY#REGION*",
        mend=write_again,
    ),
    Case(
        check="inventory",
        spoil=lambda ready: ready.change(B, taken_at=ready.world.clock.now() - timedelta(hours=2)),
        verdict=WARN,
        why="that of us-east-1 is 120 minutes old",
        advice="minutes after the scheduler's start",
        mend=write_again,
    ),
    Case(
        check="imports",
        spoil=lambda ready: ready.change(B, import_errors=("etl/orders.py",)),
        verdict=FAIL,
        why="cannot be imported in us-east-1 only: etl/orders.py",
        advice="Look at the import errors in that region's user interface",
        mend=lambda ready: ready.change(B, import_errors=()),
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
        mend=lambda ready: dag(ready, A, "dag_00", source="other"),
    ),
    Case(
        check="code",
        spoil=lambda ready: dag(ready, B, "dag_00", shape="other"),
        verdict=WARN,
        why="built differently from the same file: dag_00",
        advice="accepted_differences = code:ID",
        mend=accept("code:dag_00"),
    ),
    Case(
        check="past",
        spoil=lambda ready: dag(ready, A, "dag_00", traits=(DEPENDS_ON_PAST,)),
        verdict=WARN,
        why="depends_on_past or wait_for_downstream, after runs of before: dag_00",
        advice="accepted_differences = past:ID",
        mend=accept("past:dag_00"),
    ),
    Case(
        check="past",
        spoil=lambda ready: dag(ready, A, "dag_01", traits=(EXTERNAL_SENSOR,)),
        verdict=WARN,
        why="sensor of another DAG's run, which may be from before: dag_01",
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
                mend=write_again,
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
                mend=accept(f"{kind}:{name}"),
            ),
            Case(
                check=kind,
                spoil=lambda ready, kind=kind, name=name: fingerprint(  # type: ignore[misc]
                    ready, B, kind, name, "9", key_id="other"
                ),
                verdict=WARN,
                why="have not agreed on a key, both have to be alive for it",
                mend=write_again,
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
        mend=write_again,
    ),
    Case(
        check="packages",
        spoil=lambda ready: ready.change(B, packages={"apache-airflow": "3.3.1", "pandas": "2.2.0"}),
        verdict=WARN,
        why="in different versions: pandas",
        advice="with versions pinned",
        mend=write_again,
    ),
    Case(
        check="capacity",
        spoil=describe(B, environment_class="mw1.micro", max_workers=1),
        verdict=WARN,
        why="class: mw1.micro in mwaa-us-east-1, mw1.small in mwaa-us-east-2; max_workers: 1 in",
        advice="Make the target as large as the source",
        mend=describe(B, environment_class="mw1.large", max_workers=2),
    ),
    Case(
        check="capacity",
        spoil=describe(B, schedulers=1),
        verdict=WARN,
        why="schedulers: 1 in",
        advice="accepted_differences = capacity:NAME",
        mend=accept("capacity:schedulers"),
    ),
    Case(
        check="drill",
        spoil=lambda ready: forget(ready, "records"),
        verdict=WARN,
        why="no failover to us-east-1 has ever been completed",
        advice="planned failover to us-east-1 and back",
        mend=lambda ready: (ready.world.fail_over(B), ready.world.fail_over(A)),
    ),
    Case(
        check="drill",
        spoil=lambda ready: ready.world.store.put_record(drill(ready.world.clock.now(), days_ago=200)),
        verdict=WARN,
        why="over 90 days ago",
        advice="--reason drill",
        mend=lambda ready: (ready.world.fail_over(B), ready.world.fail_over(A)),
    ),
    Case(
        check="drill",
        spoil=lambda ready: ready.world.store.put_record(
            replace(drill(ready.world.clock.now()), not_unpaused=("dag_05",))
        ),
        verdict=WARN,
        why="not unpaused then: dag_05",
    ),
    Case(
        check="accepted",
        spoil=accept("agents,nonsense:x,dags:y"),
        verdict=WARN,
        why="accept nothing: agents, nonsense:x",
        advice="where CHECK is one of",
        mend=accept("dags:y"),
    ),
]


def test_everything_passes_in_a_good_set(ready: ReadySet) -> None:
    """Nothing to say means ok, for every check there is; and nothing was changed by looking."""
    before = ready.world.state
    results = ready.results()
    assert {result.name: result.why for result in results.values() if result.verdict is not Verdict.OK} == {}
    assert set(results) == {*NAMES, "accepted"}
    assert all(result.why and not result.advice for result in results.values())
    assert ready.world.state == before
    changing = {"set_paused", "trigger", "stop_run"}
    assert not changing & {call[0] for region in (A, B) for call in ready.world.environments[region].calls}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_wrong_is_said_and_the_advice_mends_it(ready: ReadySet, case: Case) -> None:
    """A verdict, why, what to do; done, the check passes, against whichever region is active then."""
    case.spoil(ready)
    result = ready.results()[case.check]
    assert (result.verdict, case.why in result.why) == (case.verdict, True), result
    assert result.advice
    if case.advice is not None and case.mend is not None:
        assert case.advice in result.advice, result
        case.mend(ready)
        assert ready.results()[case.check].verdict is Verdict.OK, ready.results()[case.check]


def test_every_check_is_among_the_cases() -> None:
    """One that is added without a case would not be seen to fail."""
    assert {case.check for case in CASES} == {*NAMES, "accepted"}
    mended = {case.check for case in CASES if case.mend is not None}
    assert mended == {*NAMES, "accepted"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_check_and_failover_do_not_contradict_each_other(ready: ReadySet, case: Case) -> None:
    """What a failover is refused for, the checks show in the same words; without a failure there it is not refused."""
    case.spoil(ready)
    results = ready.results()
    refused = ready.world.engine("preview").preview(request(B)).not_ready
    shown = "; ".join(results[refusal.name].why for refusal in REFUSALS if results[refusal.name].verdict is FAIL)
    assert all(why in shown for why in refused)
    assert bool(refused) == bool(shown) or results["state"].verdict is WARN


def test_a_failover_refuses_agents_of_another_protocol(ready: ReadySet) -> None:
    """They would not understand each other's rows half-way."""
    ready.heartbeat(B, protocol=2)
    with pytest.raises(NotReadyError, match="speak protocol 2"):
        ready.world.fail_over(B)


@pytest.mark.parametrize("lost", [[A], [B], [A, B]], ids=["the active", "the standby", "both"])
@pytest.mark.parametrize("has_inventories", [True, False])
def test_it_works_when_a_side_is_down(ready: ReadySet, lost: list[str], has_inventories: bool) -> None:
    """No check raises; what cannot be known is said, and a dead standby is a failure."""
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


def test_a_lost_region_is_compared_by_what_its_agent_last_listed(ready: ReadySet) -> None:
    """On the day of the disaster it is all there is."""
    ready.world.environments[A].unreachable = True
    ready.world.agents[A].alive = False
    ready.world.environments[B].remove_dag("dag_00")
    dag(ready, B, "dag_01", source="older")
    results = ready.results()
    assert "wanted, and not in us-east-1: dag_00" in results["dags"].why
    assert "dag_01" in results["code"].why


def test_a_region_that_does_not_answer_is_asked_once(ready: ReadySet) -> None:
    """Each question may take the ten seconds of its deadline."""
    ready.world.environments[A].unreachable = True
    ready.world.environments[A].calls.clear()
    ready.results()
    assert ready.world.environments[A].calls == [("describe",)]


def test_no_value_is_ever_shown(ready: ReadySet) -> None:
    """Configuration options may be passwords: their names are told, their values only compared."""
    ready.describe(A, options={"secrets.backend_kwargs": "hunter2", "smtp.smtp_password": "a"})
    ready.describe(B, options={"secrets.backend_kwargs": "hunter3"})
    shown = str(ready.results())
    assert "secrets.backend_kwargs" in shown
    assert "hunter" not in shown


def test_the_whole_of_a_check_can_be_accepted(ready: ReadySet) -> None:
    """A smaller standby, say; but nothing that a failover is refused for."""
    ready.describe(B, max_workers=1, schedulers=1)
    ready.world.agents[B].alive = False
    ready.settings["accepted_differences"] = "capacity,agents"
    results = ready.results()
    assert results["capacity"].verdict is Verdict.OK
    assert results["capacity"].why.startswith("accepted: ")
    assert results["agents"].verdict is FAIL


def test_a_long_list_is_cut(ready: ReadySet) -> None:
    """The first ten, and how many more."""
    for number in range(15):
        ready.world.environments[B].add_dag(f"extra_{number:02}", is_paused=True)
    assert ready.results()["dags"].why.endswith("extra_09 and 5 more")


@pytest.mark.parametrize(
    ("target", "words"), [(A, "us-east-2 is the active region"), ("mars-1", "Unknown region 'mars-1'")]
)
def test_a_target_that_makes_no_sense_is_wrong_usage(ready: ReadySet, target: str, words: str) -> None:
    """Nothing is looked at."""
    with pytest.raises(ConfigError, match=words):
        ready.results(target=target)


def test_of_several_standbys_one_has_to_be_named(ready: ReadySet) -> None:
    """Each has its own answer."""
    arguments = (ready.world.store, ready.tables, ready.world.environments, ready.world.clock, ready.config)
    with pytest.raises(ConfigError, match="us-east-1, us-west-2"):
        examine(*arguments)
    assert examine(*arguments, target="us-west-2").target == "us-west-2"


def test_without_the_state_nothing_can_be_said(ready: ReadySet) -> None:
    """A table that does not answer, or holds nothing, is no list of warnings."""
    ready.world.store.unreachable = True
    with pytest.raises(StateUnreachableError):
        ready.results()
    ready.world.store = InMemoryStateStore()
    with pytest.raises(StateNotFoundError):
        ready.results()


@pytest.mark.parametrize("target", [A, B, None])
def test_an_active_region_that_is_not_registered_fails_the_check(ready: ReadySet, target: str | None) -> None:
    """And names the value, and the way out."""
    ready.world.store._table.state = replace(ready.world.state, active_region="us-est-2")
    result = ready.results(target=target)["state"]
    assert result.verdict is Verdict.FAIL
    assert "active_region of the item ACTIVE_REGION is 'us-est-2'" in result.why
    assert f"mwaa-dr failover {target or B} --reason TEXT" in result.advice


@pytest.mark.parametrize("misspelled", ["us-est-2", "", "US-EAST-2"])
def test_a_misspelled_region_is_corrected_and_not_looked_for(ready: ReadySet, misspelled: str) -> None:
    """The check recommended the MWAA console of the misspelled region; what is to be corrected is the state item."""
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
    """The one with the newest snapshot, and not the first by name."""
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
def test_of_a_region_without_an_environment_no_console_is_recommended(
    ready: ReadySet, active: str, advice: str
) -> None:
    """Only the target is named here: correct the item, or name the active region's environment."""
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
def test_what_cannot_be_used_in_the_state_is_named_with_what_is_allowed(
    ready: ReadySet, changes: dict[str, Any], advice: str
) -> None:
    """Field and allowed values; a phase without its plan has nothing to correct."""
    ready.world.store._table.state = replace(ready.world.state, **changes)
    assert ready.results()["state"].advice.startswith(advice)


def test_what_an_agent_cannot_act_on_fails_the_check(ready: ReadySet) -> None:
    """It is in the item of a region, which only that region reads."""
    ready.heartbeat(B, held_because="reconciled_epoch is 'abc'")
    result = ready.results()["state"]
    assert (result.verdict, result.why) == (Verdict.FAIL, f"{B} holds every run: reconciled_epoch is 'abc'")
