"""Cases of the checks of the environments."""

from __future__ import annotations

from datetime import timedelta

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.core.carrying import CarryReport
from airflow_provider_mwaa_dr.core.ports import INVENTORIES
from tests.unit.core.dr_set import A, B
from tests.unit.core.readiness.case import (
    FAIL,
    WARN,
    Case,
    accept,
    claim,
    compare_again,
    describe,
    drop,
    environment,
    fingerprint,
    forget,
    heartbeat,
    options,
    write_again,
)

CASES = [
    Case(
        check="unreachable",
        spoil=heartbeat(A, on_unreachable="run"),
        verdict=WARN,
        why="a forced failover is refused",
        advice="on_unreachable = hold",
        fix=heartbeat(A, on_unreachable="hold"),
    ),
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
        advice="upgrade the older environment",
        fix=describe(B, airflow_version="3.3.1"),
    ),
    Case(check="airflow", spoil=describe(B, airflow_version="2.10.3"), verdict=WARN, why="2.10.3 in us-east-1"),
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
        check="logs",
        spoil=describe(A, logs={"SchedulerLogs": "ERROR", "TaskLogs": "WARNING"}),
        verdict=WARN,
        why="the scheduler log of mwaa-us-east-2 is at the level ERROR, and has no line on the region's role",
        advice="Use mwaa-dr status instead",
        fix=describe(A, logs={"SchedulerLogs": "WARNING", "TaskLogs": "WARNING"}),
    ),
    Case(
        check="logs",
        spoil=describe(B, logs={"SchedulerLogs": "INFO"}),
        verdict=WARN,
        why="the task log of mwaa-us-east-1 is off, and has no line on tasks that the fence holds",
        advice="enable the logs",
        fix=describe(B, logs=None),
    ),
    Case(
        check="logs",
        spoil=environment(B, unreachable=True),
        verdict=WARN,
        why="not checked: ",
        advice="",
        fix=environment(B, unreachable=False),
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
    Case(
        check="inventory",
        spoil=lambda ready: (forget(ready, INVENTORIES), ready.heartbeat(B, inventory_error="not allowed")),
        verdict=WARN,
        why="no inventory of us-east-1: not allowed; no inventory of us-east-2: its agent has not written one",
        advice="INVENTORY#REGION*",
        fix=lambda ready: (compare_again(ready), write_again(ready)),
    ),
    Case(
        check="inventory",
        spoil=lambda ready: ready.heartbeat(B, inventory_error=f"{A} has another public key than before"),
        verdict=WARN,
        why="us-east-1: us-east-2 has another public key than before",
        advice="For a public key, do what the message says",
        fix=compare_again,
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
        check="variables",
        spoil=lambda ready: (
            fingerprint(ready, B, "variables", "bucket", "changed"),
            ready.change(B, settings=CarryReport(modes={"variables": "mirror"}, kept={"variables": ("bucket",)})),
        ),
        verdict=WARN,
        why="changed in us-east-1, so not replaced by the value of us-east-2: bucket; "
        "the agent of us-east-1 copies with mode mirror",
        advice="delete it in us-east-1",
        fix=write_again,
    ),
    Case(
        check="connections",
        spoil=lambda ready: ready.change(
            A,
            settings=CarryReport(
                modes={"connections": "add"},
                uncarried={"connections": ("team",)},
                elsewhere=("secrets backend x.Y",),
                problem="no right",
            ),
        ),
        verdict=WARN,
        why="us-east-2: no right; us-east-2 cannot copy (unreadable, of a team, too large or refused): team; "
        "the agent of us-east-1 copies with mode report; never copied from us-east-2: secrets backend x.Y",
        advice="accepted_differences = connections:NAME",
        fix=write_again,
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
        check="packages",
        spoil=lambda ready: ready.change(
            B,
            packages={"apache-airflow": "2.11.2", "airflow-provider-mwaa-dr": __version__, "pandas": "1.5.3"},
        ),
        verdict=WARN,
        why="pandas: 2.1.0 in us-east-2 and 1.5.3 in us-east-1",
        advice="with pinned versions",
        fix=lambda ready: ready.change(
            B,
            packages={"apache-airflow": "3.2.1", "airflow-provider-mwaa-dr": __version__, "pandas": "2.3.3"},
        ),
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
        spoil=describe(B, environment_class="mw2.huge"),
        verdict=WARN,
        why="class: mw2.huge in mwaa-us-east-1, mw1.small in mwaa-us-east-2",
        advice="accepted_differences = capacity:NAME",
        fix=accept("capacity:class"),
    ),
    Case(
        check="capacity",
        spoil=describe(B, schedulers=1),
        verdict=WARN,
        why="schedulers: 1 in",
        advice="accepted_differences = capacity:NAME",
        fix=accept("capacity:schedulers"),
    ),
]
