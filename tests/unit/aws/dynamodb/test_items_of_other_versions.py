"""Items of the tables that other versions of the provider write or read."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from airflow_provider_mwaa_dr.aws.dynamodb.contents import RUN, problem_of
from airflow_provider_mwaa_dr.aws.dynamodb.items import from_item, state_from_item, state_to_item, to_item
from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import (
    _head_from_json,
    _head_to_json,
    run_from_json,
    run_to_json,
)
from airflow_provider_mwaa_dr.core.ledger import ChildRun, Head, LedgerRun, RunDeadline, RunStatus
from airflow_provider_mwaa_dr.core.state import Mode, Plan, Stage, Stop, announce, claim, initial

AT = datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)
PLAN = Plan(
    id="f-1", source="us-east-2", target="us-east-1", mode=Mode.AUTO, reason="r", by="b", owner="o", started_at=AT
)
CLAIMED = claim(initial("us-east-2", lease_s=10.0, by="test", at=AT), PLAN, at=AT)


def test_an_agent_of_an_older_version_reads_the_last_set_of_stopped_runs_in_the_plan() -> None:
    """It reads the set only from the plan."""
    state = announce(announce(CLAIMED, "s-1", had_ended=False, at=AT), "s-2", had_ended=True, at=AT)
    assert from_item(state_to_item(state, write_token="t"))["plan"]["stopped"] == "s-1"


def test_a_set_of_stopped_runs_that_an_engine_of_an_older_version_announces_counts() -> None:
    """That version stores the set in the plan, and without an epoch."""
    values = from_item(state_to_item(replace(CLAIMED, epoch=3), write_token="t"))
    del values["state_id"]
    values["plan"]["stopped"] = "s-1"
    state = state_from_item(to_item("ACTIVE_REGION", values), default_lease_s=60)
    assert state.stops == (Stop(set_id="s-1", epoch=3),)


def test_an_announcement_that_cannot_be_read_is_a_problem_of_the_state() -> None:
    """The region holds, as for every unusable value: it cannot know which runs were stopped."""
    values = from_item(state_to_item(CLAIMED, write_token="t"))
    del values["state_id"]
    for broken in ("s-1", [{"set_id": "s-1"}], [{"set_id": "s-1", "epoch": 0, "had_ended": "no"}], [None]):
        state = state_from_item(to_item("ACTIVE_REGION", values | {"stops": broken}), default_lease_s=60)
        assert [problem.field for problem in state.problems] == ["stops"]
        assert state.stops == ()


def test_a_plan_of_an_older_version_halts_at_no_stage() -> None:
    """A version that knows no halts leaves the fields out, or drops them when it writes the plan."""
    halted = replace(PLAN, owner="", hold=Stage.DRAINED, hold_s=60.0, halts=1, quiet=True)
    values = from_item(state_to_item(replace(CLAIMED, plan=halted), write_token="t"))
    del values["state_id"]
    state = state_from_item(to_item("ACTIVE_REGION", values), default_lease_s=60)
    assert (state.plan, state.problems) == (halted, ())
    for name in ("hold", "hold_s", "halts", "quiet"):
        del values["plan"][name]
    state = state_from_item(to_item("ACTIVE_REGION", values), default_lease_s=60)
    assert (state.plan, state.problems) == (replace(PLAN, owner=""), ())


@pytest.mark.parametrize(
    ("field", "value"),
    [("hold", "resumed"), ("hold_s", 0), ("hold_s", "soon"), ("hold_s", 1e9), ("halts", -1), ("quiet", "yes")],
)
def test_a_stage_that_cannot_be_read_is_a_problem_of_the_state(field: str, value: object) -> None:
    """No region may go on while it is unknown whether users move their data."""
    values = from_item(state_to_item(CLAIMED, write_token="t"))
    del values["state_id"]
    values["plan"][field] = value
    state = state_from_item(to_item("ACTIVE_REGION", values), default_lease_s=60)
    assert [problem.field for problem in state.problems] == [f"plan.{field}"]


INTERVAL = LedgerRun(
    dag_id="d", run_id="r", run_type="backfill", status=RunStatus.SUCCESS, epoch=1, logical_date=AT, partition_key="k",
    partition_date=AT,
)  # fmt: skip
DATED = replace(INTERVAL, run_id="m", run_type="manual", partition_key=None, holds_date=True)
HEAD = Head(
    dag_id="d", created=AT, finished=INTERVAL, dated=(DATED,), partition=INTERVAL, partition_created=AT
)  # fmt: skip


def test_a_head_of_an_older_version_has_no_dates_and_no_partition() -> None:
    """All its other fields count. A field that cannot be read counts as missing."""
    values = _head_to_json(HEAD)
    assert _head_from_json(values) == HEAD
    new = ("dated", "partition", "partition_created")
    expected = replace(HEAD, dated=(), partition=None, partition_created=None)
    assert _head_from_json({name: value for name, value in values.items() if name not in new}) == expected
    assert _head_from_json(values | dict.fromkeys(new, 7)) == expected


def test_an_older_version_reads_runs_that_hold_a_date() -> None:
    """Its schema does not have the field, and it ignores fields that it does not have."""
    older = {name: rule for name, rule in RUN.items() if name != "holds_date"}
    assert problem_of(run_to_json(DATED), older) is None
    assert "holds_date" not in run_to_json(INTERVAL), "only runs that hold a date have it"


def test_an_older_version_reads_runs_with_deadlines() -> None:
    """It ignores them, and who triggered the run. A run of an older version has none."""
    deadline = RunDeadline(alert="a1", at=AT, is_missed=True)
    run = replace(INTERVAL, status=RunStatus.OPEN, triggered_by="CLI", triggering_user="ann", deadlines=(deadline,))
    values, new = run_to_json(run), {"triggered_by", "triggering_user", "deadlines"}
    assert problem_of(values, {name: rule for name, rule in RUN.items() if name not in new}) is None
    assert not new & run_to_json(INTERVAL).keys()
    expected = replace(run, triggered_by=None, triggering_user=None, deadlines=())
    assert run_from_json({name: value for name, value in values.items() if name not in new}) == expected
    assert run_from_json(values) == run


def test_an_older_version_reads_runs_with_events() -> None:
    """It ignores them. A run of an older version has none, which is not the same as an empty list."""
    run = replace(INTERVAL, run_type="asset_triggered", status=RunStatus.OPEN, events=())
    values = run_to_json(run)
    assert problem_of(values, {name: rule for name, rule in RUN.items() if name != "events"}) is None
    older = run_from_json({name: value for name, value in values.items() if name != "events"})
    assert (older.events, older.why_without_events) == (None, "an earlier version of the provider published the run")
    assert run_from_json(values).why_without_events is None
    assert "events" not in run_to_json(INTERVAL)


@pytest.mark.parametrize("broken", [{}, {"uri": "u", "at": "soon", "extra": "{}"}, {"uri": "u", "extra": "{"}, 7])
def test_a_run_with_a_broken_event_is_in_doubt(broken: object) -> None:
    """No region may resume it with another event, or with fewer."""
    found = run_from_json(run_to_json(INTERVAL) | {"events": [broken]})
    assert "its field events[0]" in (found.doubt or "")


def test_an_older_version_reads_runs_with_children() -> None:
    """It ignores them, and resumes children and parents. A run of an older version has none."""
    child = ChildRun(dag_id="child", run_id="c1", is_awaited=True)
    run = replace(INTERVAL, status=RunStatus.OPEN, children=(child,))
    values, new = run_to_json(run), {"children", "is_replaced"}
    assert problem_of(values, {name: rule for name, rule in RUN.items() if name not in new}) is None
    assert not new & run_to_json(INTERVAL).keys()
    assert run_from_json({name: value for name, value in values.items() if name not in new}) == replace(
        run, children=()
    )
    assert run_from_json(values) == run


@pytest.mark.parametrize(
    "broken", [["child", "c1", True], ["child", 7, True, False], [None, "c1", True, False], ["child", "c1", 1, 0], "c1"]
)
def test_a_run_with_a_broken_child_is_in_doubt(broken: object) -> None:
    """No region may resume it: it may be a parent, and its children are not known."""
    found = run_from_json(run_to_json(INTERVAL) | {"children": [broken]})
    assert "its field children[0] in the ledger is" in (found.doubt or "")


@pytest.mark.parametrize("broken", [["a1", "soon", True], ["a1", "2026-01-01T00:00:00Z"], [None, "x", 1], "a1"])
def test_a_run_with_a_broken_deadline_is_in_doubt(broken: object) -> None:
    """No region may resume it."""
    found = run_from_json(run_to_json(INTERVAL) | {"deadlines": [broken]})
    assert "its field deadlines[0] in the ledger is" in (found.doubt or "")
