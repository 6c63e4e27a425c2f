"""State items changed by users and scripts: an unusable value is a problem of the state, and raises no error."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.aws.dynamodb.items import own_item, state_from_item, state_to_item
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import OnUnreachable
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import StateError

AT = datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)
A, B = "us-east-2", "us-east-1"
STEADY = transitions.initial(A, lease_s=10.0, by="test", at=AT)
PLAN = Plan(id="p", source=A, target=B, mode=Mode.AUTO, reason="r", by="b", owner="o", started_at=AT)
PROMOTING = transitions.promote(transitions.claim(STEADY, PLAN, at=AT), at=AT)

ATTRIBUTES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.one_of(
        st.just({"NULL": True}),
        st.booleans().map(lambda value: {"BOOL": value}),
        st.one_of(
            st.integers(-(10**37), 10**37).map(str),
            st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
        ).map(lambda value: {"N": value}),
        st.one_of(st.text(max_size=20), st.sampled_from(["nan", "inf", "1e30", "-5", "", "7", "STEADY", "auto"])).map(
            lambda value: {"S": value}
        ),
        st.binary(max_size=5).map(lambda value: {"B": value}),
        st.sets(st.text(min_size=1, max_size=5), min_size=1, max_size=3).map(lambda value: {"SS": sorted(value)}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda value: {"L": value}),
        st.dictionaries(st.sampled_from(["id", "mode", "phase", "plan", "x"]), inner, max_size=3).map(
            lambda value: {"M": value}
        ),
    ),
    max_leaves=6,
)


def read(state: DRState, **attributes: Any) -> DRState:
    """Return the state from the item of *state* with other attributes; None removes an attribute."""
    item = state_to_item(state, write_token="t") | attributes
    return state_from_item(
        {name: value for name, value in item.items() if value is not None}, default_lease_s=60, table="mwaa-dr-state"
    )


def actions(state: DRState, registered: frozenset[str] | None = frozenset({A, B})) -> set[Action]:
    """Return the decisions of gate and fence in both regions for a run that is not exempt, for every configuration."""
    return {
        decide(
            View(state, read_at=99.0, reconciled_epoch=state.epoch, registered=registered, confirmed_at=98.0),
            region=region,
            exempt=False,
            now=now,
            lease_s=60,
            point=point,
            on_unreachable=choice,
        ).action
        for region in (A, B)
        for point in DecisionPoint
        for choice in OnUnreachable
        for now in (100.0, 5000.0)
    }


@pytest.mark.parametrize("lease", [{"S": "nan"}, {"S": "inf"}, {"N": "1e30"}, {"N": "-5"}, {"S": "soon"}, {"L": []}])
def test_a_lease_that_cannot_be_used_holds_every_region_and_counts_as_the_longest(lease: dict[str, Any]) -> None:
    """No region may execute under it, and an engine waits for the longest possible lease."""
    state = read(STEADY, lease_s=lease)
    assert state.lease_s == 3600
    assert str(state.problems[0]).startswith("lease_s is ")
    assert "a number of seconds from 2 to 3600" in str(state.problems[0])
    assert actions(state) == {Action.HOLD}


def test_a_row_without_a_lease_has_the_default() -> None:
    """As in items of the AWS sample."""
    state = read(STEADY, lease_s=None)
    assert (state.lease_s, state.problems) == (60, ())


@pytest.mark.parametrize(
    "active",
    [
        {"S": "us-est-2"},
        {"S": " us-east-2"},
        {"S": "US-EAST-2"},
        {"S": ""},
        {"NULL": True},
        {"N": "7"},
        {"L": []},
        {"S": "us-east-2" * 1000},
        None,
    ],
)
def test_an_active_region_that_is_not_registered_holds_every_region(active: dict[str, Any] | None) -> None:
    """Otherwise each region would be its standby, and close its own runs."""
    assert actions(read(STEADY, active_region=active)) == {Action.HOLD}


@pytest.mark.parametrize("state", [STEADY, PROMOTING])
def test_without_a_list_of_regions_every_region_holds(state: DRState) -> None:
    """In a DR set of an older version, until its agents have written the lists."""
    assert actions(state, registered=None) == {Action.HOLD}
    assert actions(state) != {Action.HOLD}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("plan", {"S": "swift"}, "plan is 'swift', allowed is a map"),
        ("plan", {"M": {}}, "plan.id is None, allowed is text"),
        ("phase", {"S": "VERIFYING"}, "phase is 'VERIFYING', allowed is one of STEADY, DRAINING, PROMOTING, RESUMING"),
        ("epoch", {"N": "0.5"}, "epoch is 0.5, allowed is a whole number from 0"),
        ("epoch", {"N": "-1"}, "epoch is -1, allowed is a whole number from 0"),
        ("failover_count", {"S": "many"}, "failover_count is 'many', allowed is a whole number from 0"),
    ],
)
def test_a_field_that_cannot_be_used_is_named_and_holds(field: str, value: dict[str, Any], says: str) -> None:
    """The problem has the found value and the allowed values."""
    state = read(PROMOTING, **{field: value})
    assert [str(problem) for problem in state.problems] == [says]
    assert actions(state) == {Action.HOLD}


def test_a_mode_of_a_newer_version_is_a_problem_of_the_plan() -> None:
    """It raises no error, and no engine acts on an incomplete plan."""
    item = state_to_item(PROMOTING, write_token="t")
    item["plan"]["M"]["mode"] = {"S": "swift"}
    state = state_from_item(item, default_lease_s=60)
    assert state.plan is None
    assert str(state.problems[0]) == "plan.mode is 'swift', allowed is one of auto, graceful, forced"


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.PROMOTING, Phase.RESUMING])
def test_a_phase_without_its_plan_holds(phase: Phase) -> None:
    """The executing region is unknown."""
    assert actions(read(replace(PROMOTING, phase=phase), plan=None)) == {Action.HOLD}


@pytest.mark.parametrize("version", [{"S": "two"}, {"N": "0.5"}, {"N": "-1"}, {"BOOL": True}, {"L": []}])
def test_a_version_that_cannot_be_used_is_an_error_with_all_details(version: dict[str, Any]) -> None:
    """A conditional write needs it."""
    with pytest.raises(StateError) as raised:
        read(STEADY, version=version)
    assert "ACTIVE_REGION of table mwaa-dr-state" in raised.value.message
    assert "version is " in raised.value.message
    assert "allowed is a whole number from 0" in raised.value.message
    assert "--above-every-epoch" in raised.value.advice


@given(field=st.sampled_from(sorted(state_to_item(PROMOTING, write_token="t").keys() - {"version"})), value=ATTRIBUTES)
def test_any_value_of_a_field_is_read(field: str, value: dict[str, Any]) -> None:
    """Either the value is used as intended, or every region holds."""
    for before in (STEADY, PROMOTING):
        state = read(before, **{field: value})
        assert math.isfinite(state.lease_s)
        assert 2 <= state.lease_s <= 3600
        if state.problems:
            assert actions(state) == {Action.HOLD}
        if state.active_region not in {A, B}:
            assert actions(state) == {Action.HOLD}
        # An engine can still overwrite it: its state is read back without a problem.
        if "epoch" not in {problem.field for problem in state.problems}:
            new = transitions.recover(state, PLAN, lease_s=60, at=AT)
            again = read(new)
            assert (again.problems, again.version, again.plan) == ((), state.version + 1, new.plan)


@given(value=ATTRIBUTES, field=st.sampled_from(["reconciled_epoch", "regions", "agents"]))
def test_any_value_in_the_item_of_a_region_is_read(value: dict[str, Any], field: str) -> None:
    """The result is a list of regions or none, and an epoch or a problem that names the field."""
    own = own_item({"state_id": {"S": f"ENVIRONMENT#{A}"}, field: value}, region=A, table="t")
    assert own.registered is None or own.registered
    if field == "reconciled_epoch" and own.reconciled_epoch is None and value != {"NULL": True}:
        (problem,) = own.problems
        assert problem.startswith(f"reconciled_epoch of the item ENVIRONMENT#{A} of table t is ")


@pytest.mark.parametrize("value", [{"S": "abc"}, {"N": "-1"}, {"N": "0.5"}, {"L": [{"N": "0"}]}])
def test_a_reconciled_epoch_that_cannot_be_used_holds_and_has_advice(value: dict[str, Any]) -> None:
    """Regression test: it counted as no epoch, and the active region closed all its runs."""
    own = own_item({"state_id": {"S": f"ENVIRONMENT#{A}"}, "reconciled_epoch": value}, region=A, table="t")
    view = View(
        STEADY, 99.0, own.reconciled_epoch, registered=frozenset({A, B}), problems=own.problems, confirmed_at=98.0
    )
    decision = decide(view, region=A, exempt=False, now=100.0, lease_s=60, point=DecisionPoint.GATE)
    assert decision.action is Action.HOLD
    assert "reconciled_epoch of the item ENVIRONMENT#us-east-2 of table t is" in decision.reason


def test_a_plan_with_the_longest_reason_fits_however_often_it_was_superseded() -> None:
    """Every write of the failover stays below 400 KB and 32 levels."""
    longest = replace(PLAN, reason="x" * 1000, by="y" * 1000, owner="z" * 1000)
    state = transitions.promote(transitions.claim(STEADY, longest, at=AT), at=AT)
    for number in range(20):
        state = transitions.supersede(state, replace(longest, target=f"region-{number}"), at=AT)
        item = state_to_item(state, write_token="t")
        assert len(json.dumps(item)) < 20_000
        assert depth(item["plan"]) < 10
        assert read(state) == state


def depth(attribute: Any) -> int:
    """Return the number of nested levels of an attribute."""
    ((kind, value),) = attribute.items()
    inner = value.values() if kind == "M" else value if kind == "L" else ()
    return 1 + max(map(depth, inner), default=0)


@pytest.mark.parametrize("value", [{"L": [{"S": "7"}]}, {"S": "7"}, {"NS": ["7"]}], ids=str)
def test_a_list_of_agents_that_is_no_set_is_written_again(value: dict[str, object]) -> None:
    """Regression test: DynamoDB's ADD works only on a set, so each heartbeat of a new scheduler failed."""
    assert own_item({"state_id": {"S": f"ENVIRONMENT#{A}"}, "agents": value}, region=A, table="t").jobs is None
