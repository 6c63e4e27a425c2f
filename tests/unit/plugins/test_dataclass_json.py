"""Dataclasses as plain JSON values, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.gate import View
from airflow_provider_mwaa_dr.core.state import DRState, FieldProblem, Mode, Phase, Plan, Stop, initial
from airflow_provider_mwaa_dr.plugins.dataclass_json import from_json, to_json

X, Y = "us-east-1", "us-east-2"
AT = datetime(2026, 2, 26, 10, 30, 0, 123456, tzinfo=timezone.utc)
PLAN = Plan(
    id="f-1", source=X, target=Y, mode=Mode.FORCED, reason="r", by="b", owner="o", started_at=AT, set_id="s",
    drained=True, lease_s=30.0,
)  # fmt: skip
STATE = replace(
    initial(X, lease_s=60, by="b", at=AT),
    phase=Phase.PROMOTING,
    plan=replace(PLAN, id="f-2", source=Y, replaced=(Phase.RESUMING, PLAN)),
    stops=(Stop(set_id="s", epoch=3, had_ended=True),),
    problems=(FieldProblem("lease_s", "nan", "a number"),),
)
VIEW = View(
    state=STATE, read_at=1.5, reconciled_epoch=3, problem="why", registered=frozenset({X, Y}), problems=("a problem",)
)


@pytest.mark.parametrize("view", [VIEW, View(state=None, read_at=0.0), replace(VIEW, registered=None)])
def test_a_view_is_read_as_it_was_written(view: View) -> None:
    """With a plan that replaced another one, times, problems and announcements."""
    assert from_json(View, json.loads(json.dumps(to_json(view)))) == view


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"epoch": "1"}, TypeError),
        ({"epoch": True}, TypeError),
        ({"epoch": None}, TypeError),
        ({"lease_s": float("nan")}, ValueError),
        ({"lease_s": 10**400}, OverflowError),
        ({"phase": "UNKNOWN"}, ValueError),
        ({"phase": 1}, ValueError),
        ({"last_updated": "yesterday"}, ValueError),
        ({"stops": {}}, TypeError),
        ({"stops": [{"set_id": "s"}]}, TypeError),
        ({"plan": {**to_json(PLAN), "replaced": ["RESUMING"]}}, ValueError),
        ({"a_new_field": 1}, TypeError),
    ],
)
def test_another_type_or_another_set_of_fields_is_an_error(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        from_json(DRState, {**to_json(STATE), **change})
