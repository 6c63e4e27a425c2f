"""Which held runs may start while a region is drained: pure decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.waits import HeldRun, Waiter, find_waits

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
CHILD = HeldRun(key=("child", "c1"), date=AT)
PARENT = Waiter(
    run=("parent", "p1"),
    task_id="call",
    state="running",
    operator="TriggerDagRunOperator",
    fields={"trigger_dag_id": "child", "wait_for_completion": True},
    triggered_run_id="c1",
    date=AT,
)
SENSOR = Waiter(
    run=("report", "r1"), task_id="look", state="up_for_reschedule", fields={"external_dag_id": "child"}, date=AT
)


@pytest.mark.parametrize(
    ("waiter", "changes", "is_awaited"),
    [
        pytest.param(PARENT, {}, True, id="parent"),
        pytest.param(PARENT, {"state": "deferred"}, True, id="deferrable parent"),
        pytest.param(PARENT, {"fields": {**PARENT.fields, "wait_for_completion": "True"}}, True, id="flag as text"),
        pytest.param(PARENT, {"fields": {**PARENT.fields, "wait_for_completion": "no"}}, False, id="does not wait"),
        pytest.param(PARENT, {"fields": {"trigger_dag_id": "child"}}, False, id="not known whether it waits"),
        pytest.param(PARENT, {"triggered_run_id": None}, False, id="not known which run"),
        pytest.param(PARENT, {"triggered_run_id": "c2"}, False, id="another run"),
        pytest.param(PARENT, {"state": "queued"}, False, id="has not triggered it in this attempt"),
        pytest.param(PARENT, {"is_dag_paused": True}, True, id="executes under a paused DAG"),
        pytest.param(PARENT, {"is_dag_paused": True, "state": "deferred"}, False, id="cannot continue"),
        pytest.param(SENSOR, {}, True, id="sensor"),
        pytest.param(SENSOR, {"is_dag_paused": True}, False, id="sensor that cannot continue"),
        pytest.param(SENSOR, {"date": AT + timedelta(hours=1)}, False, id="sensor for another date"),
        pytest.param(SENSOR, {"date": None}, False, id="sensor without a date"),
        pytest.param(SENSOR, {"trigger_dates": (AT,), "date": None}, True, id="dates of its trigger"),
        pytest.param(SENSOR, {"trigger_dates": ()}, False, id="trigger without readable dates"),
        pytest.param(SENSOR, {"fields": {**SENSOR.fields, "logical_date": "x"}}, False, id="marker"),
        pytest.param(SENSOR, {"fields": {}}, False, id="no rendered fields"),
    ],
)
def test_only_a_run_that_a_readable_value_names_is_awaited(
    waiter: Waiter, changes: dict[str, Any], is_awaited: bool
) -> None:
    """Unknown means hold."""
    found = find_waits([replace(waiter, **changes)], [CHILD])
    assert found.awaited == ({CHILD.key} if is_awaited else frozenset())


def test_a_held_run_without_a_date_is_awaited_by_no_sensor() -> None:
    """A sensor waits for a date."""
    assert find_waits([SENSOR], [replace(CHILD, date=None)]).awaited == frozenset()


def test_the_texts_name_the_task_and_what_it_waits_for() -> None:
    """A user reads them when a drain takes too long."""
    others = [
        PARENT,
        SENSOR,
        replace(PARENT, run=("parent", "p2"), triggered_run_id="c9"),
        replace(PARENT, run=("parent", "p3"), triggered_run_id=None),
        replace(SENSOR, run=("files", "f1"), operator="S3KeySensor", fields={}),
    ]
    assert find_waits(others, [CHILD]).tasks == (
        "files f1: task look (S3KeySensor) is up_for_reschedule",
        "parent p1: task call waits for child c1, which is held",
        "parent p2: task call waits for child c9, and no held run is known to be that one",
        "parent p3: task call waits for a run of child, and no held run is known to be that one",
        "report r1: task look waits for child c1, which is held",
    )
    paused = find_waits([PARENT], [replace(CHILD, is_dag_paused=True)])
    assert paused.tasks == ("parent p1: task call waits for child c1, its DAG is paused",)


def test_a_long_list_of_texts_is_short_in_a_heartbeat() -> None:
    """A heartbeat is one item of the table."""
    many = [replace(SENSOR, run=("report", f"r{number:03}")) for number in range(500)]
    texts = find_waits(many, [CHILD]).tasks
    assert (len(texts), texts[-1]) == (21, "and 480 more")
