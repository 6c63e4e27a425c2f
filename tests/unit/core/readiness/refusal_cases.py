"""Cases of the checks that refuse a failover."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.ports import FENCE_LOADS, EnvironmentStatus, FenceLoad
from airflow_provider_mwaa_dr.exceptions import MwaaUnreachableError
from tests.unit.core.dr_set import A, B
from tests.unit.core.readiness.case import (
    FAIL,
    WARN,
    Case,
    describe,
    environment,
    heartbeat,
    hold_tasks,
    kill,
    options,
    revive,
)


def no_answer() -> bool:
    """MWAA describes the environment, but its Airflow does not answer."""
    raise MwaaUnreachableError("The health of mwaa-us-east-1 is not known: no answer.")


CASES = [
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
        check="scheduler",
        spoil=environment(B, scheduler_is_healthy=no_answer),
        verdict=FAIL,
        why="The health of mwaa-us-east-1 is not known",
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
        check="fence",
        spoil=hold_tasks(B),
        verdict=WARN,
        why="the fence of us-east-1 has held tasks since 2026-01-01T00:00:00Z: no heartbeats",
        advice="do first what the result says",
        fix=lambda ready: ready.world.store.put(FENCE_LOADS, FenceLoad(region=B, at=ready.world.clock.now())),
    ),
    Case(
        check="fence",
        spoil=hold_tasks(A),
        verdict=WARN,
        why="the fence of us-east-2 has held tasks",
        fix=lambda ready: ready.world.clock.advance(16 * 60),
    ),
    Case(
        check="leftovers",
        spoil=heartbeat(B, unclosed_runs=3),
        verdict=WARN,
        why="3 open runs in us-east-1",
        advice="until the agent of",
        fix=heartbeat(B, unclosed_runs=0),
    ),
]
