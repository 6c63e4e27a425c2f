"""Cases of the checks of the tables."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.ports import RECORDS, SNAPSHOTS, DagSet
from tests.unit.core.dr_set import A, B
from tests.unit.core.readiness.case import (
    AT,
    FAIL,
    WARN,
    Case,
    environment,
    forget,
    grant,
    heartbeat,
    open_plan,
    options,
    refuse,
    table,
    unpublished,
)
from tests.unit.core.readiness.ready import drill

CASES = [
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
    Case(check="state", spoil=refuse("regions"), verdict=WARN, why="Access denied for regions", fix=grant),
    Case(
        check="drill",
        spoil=refuse(f"find_all {RECORDS.name}"),
        verdict=WARN,
        why="Access denied for find_all",
        advice="dynamodb:Scan on the state table",
        fix=grant,
    ),
    Case(
        check="items",
        spoil=refuse("unreadable"),
        verdict=WARN,
        why="Access denied for unreadable",
        advice="dynamodb:Scan on the state table",
        fix=grant,
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
        check="unpublished",
        spoil=unpublished(None),
        verdict=WARN,
        why="us-east-1 became active without its ledger at 2026-01-01T00:00:00Z (epoch 1): refused",
        advice="mwaa-dr check --acknowledge u1",
        fix=unpublished(AT),
    ),
    Case(
        check="items",
        spoil=lambda ready: ready.world.store.damage("SNAPSHOT#us-east-1", field="pages", found="'two'"),
        verdict=WARN,
        why="1 cannot be read: Item SNAPSHOT#us-east-1 of table memory cannot be read: field pages: found 'two'",
        advice="Write it again",
        fix=lambda ready: ready.world.store.put(
            SNAPSHOTS, DagSet(id=B, region=B, recorded_at=ready.world.clock.now(), dag_ids=())
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
        check="drill",
        spoil=lambda ready: forget(ready, RECORDS),
        verdict=WARN,
        why="no failover to us-east-1 was ever completed",
        advice="planned failover to us-east-1 and back",
        fix=lambda ready: (ready.world.fail_over(B), ready.world.fail_over(A)),
    ),
    Case(
        check="drill",
        spoil=lambda ready: ready.world.store.put(RECORDS, drill(ready.world.clock.now(), days_ago=200)),
        verdict=WARN,
        why="over 90 days ago",
        advice="--reason drill",
        fix=lambda ready: (ready.world.fail_over(B), ready.world.fail_over(A)),
    ),
    Case(
        check="drill",
        spoil=lambda ready: ready.world.store.put(
            RECORDS, replace(drill(ready.world.clock.now()), not_unpaused=("dag_05",))
        ),
        verdict=WARN,
        why="DAGs not unpaused: dag_05",
    ),
]
