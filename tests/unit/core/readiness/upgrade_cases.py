"""Cases of the checks of what another version of Airflow changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from airflow_provider_mwaa_dr.core.inventory import DagSchedule
from airflow_provider_mwaa_dr.core.ports import INVENTORIES
from tests.unit.core.dr_set import A, B
from tests.unit.core.readiness.case import (
    WARN,
    Case,
    accept,
    dag,
    describe,
    environment,
    forget,
    upgrade,
    write_again,
)
from tests.unit.core.readiness.ready import DAILY, MIDNIGHT

OF_AIRFLOW_2 = DagSchedule(
    timetable="CronDataIntervalTimetable",
    runs=tuple((f"2026-01-0{day - 1}T00:00:00Z", f"2026-01-0{day}T00:00:00Z") for day in (3, 4, 5)),
)
AT_SIX = replace(
    DAILY, runs=tuple((date.replace("T00", "T06"), mark.replace("T00", "T06")) for date, mark in DAILY.runs)
)

CASES = [
    Case(
        check="schedules",
        spoil=lambda ready: [dag(ready, A, f"dag_0{number}", schedule=OF_AIRFLOW_2) for number in (0, 1)],
        verdict=WARN,
        why="dag_00, dag_01: due 2026-01-03T00:00, 2026-01-04T00:00, 2026-01-05T00:00 (UTC) in both regions, with the "
        "logical dates 2026-01-02T00:00, 2026-01-03T00:00, 2026-01-04T00:00 in us-east-2 (CronDataIntervalTimetable), "
        "and 2026-01-03T00:00, 2026-01-04T00:00, 2026-01-05T00:00 in us-east-1 (CronTriggerTimetable)",
        advice="create_cron_data_intervals",
        fix=lambda ready: [dag(ready, B, f"dag_0{number}", schedule=OF_AIRFLOW_2) for number in (0, 1)],
    ),
    Case(
        check="schedules",
        spoil=lambda ready: dag(ready, B, "dag_00", schedule=AT_SIX),
        verdict=WARN,
        why="in us-east-2 (CronTriggerTimetable), and due 2026-01-03T06:00, 2026-01-04T06:00, 2026-01-05T06:00 (UTC) "
        "with the logical dates 2026-01-03T06:00, 2026-01-04T06:00, 2026-01-05T06:00 in us-east-1",
        advice="accepted_differences = schedules:ID",
        fix=accept("schedules:dag_00"),
    ),
    Case(
        check="schedules",
        spoil=lambda ready: dag(ready, B, "dag_00", schedule=DagSchedule(timetable="AfterWorkdayTimetable")),
        verdict=WARN,
        why="and no further scheduled run in us-east-1 (AfterWorkdayTimetable)",
    ),
    Case(
        check="schedules",
        spoil=lambda ready: (
            upgrade(A, marks_from=MIDNIGHT + timedelta(days=1))(ready),
            dag(ready, A, "dag_00", schedule=AT_SIX),
            dag(ready, A, "dag_01", schedule=OF_AIRFLOW_2),
        ),
        verdict=WARN,
        why="dag_01: due",
        advice="",
        fix=write_again,
    ),
    Case(
        check="schedules",
        spoil=lambda ready: ready.change(B, upgrade=None),
        verdict=WARN,
        why="not checked: the agent of us-east-1 does not list this (airflow-provider-mwaa-dr ",
        advice="An agent of an earlier version does not list this",
        fix=write_again,
    ),
    Case(
        check="renamed",
        spoil=describe(A, options={"dr.enabled": "true", "core.old": "1", "core.gone": "2"}),
        verdict=WARN,
        why="core.gone: set in mwaa-us-east-2, and unknown in the version of mwaa-us-east-1; core.old: set in "
        "mwaa-us-east-2, and renamed to core.new in the version of mwaa-us-east-1",
        advice="Set the new name in the target",
        fix=lambda ready: (
            describe(B, options={"dr.enabled": "true", "core.new": "1"})(ready),
            accept("renamed:core.gone")(ready),
        ),
    ),
    Case(
        check="renamed",
        spoil=lambda ready: (
            describe(B, options={"core.old": "1"})(ready),
            upgrade(B, unknown_options=("api.x",))(ready),
        ),
        verdict=WARN,
        why="api.x: set in mwaa-us-east-1, and unknown in the version of mwaa-us-east-1; core.old: set in "
        "mwaa-us-east-1, and renamed to core.new",
        advice="Remove an option that the version does not know",
        fix=lambda ready: (describe(B, options={})(ready), upgrade(B, unknown_options=())(ready)),
    ),
    Case(
        check="renamed",
        spoil=environment(A, unreachable=True),
        verdict=WARN,
        why="the options of mwaa-us-east-2 are unknown: ",
        advice="",
        fix=environment(A, unreachable=False),
    ),
    Case(
        check="renamed",
        spoil=lambda ready: ready.change(A, upgrade=None),
        verdict=WARN,
        why="not checked: the agent of us-east-2 does not list this",
        advice="An agent of an earlier version",
        fix=write_again,
    ),
    Case(
        check="teams",
        spoil=lambda ready: (
            upgrade(A, teams=("sales",))(ready),
            describe(B, teams=frozenset({"ops"}), has_identity_center=True)(ready),
        ),
        verdict=WARN,
        why="teams only in mwaa-us-east-1: ops; teams only in mwaa-us-east-2: sales; IdentityCenter: users sign in "
        "through it only in mwaa-us-east-1",
        advice="accepted_differences = teams:NAME",
        fix=accept("teams:ops,teams:sales,teams:IdentityCenter"),
    ),
    Case(
        check="teams",
        spoil=environment(B, unreachable=True),
        verdict=WARN,
        why="the sign-in of mwaa-us-east-1 is unknown: ",
        advice="",
        fix=environment(B, unreachable=False),
    ),
    Case(
        check="teams",
        spoil=lambda ready: forget(ready, INVENTORIES),
        verdict=WARN,
        why="not checked: no inventory of us-east-1",
        advice="See the check inventory",
        fix=write_again,
    ),
]
