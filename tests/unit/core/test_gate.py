"""The decision table, row by row, for gate and fence, in the active region and in the standby."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import OnUnreachable
from airflow_provider_mwaa_dr.core.gate import Action, Decision, DecisionPoint, Role, View, decide
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
A, B = "us-east-2", "us-east-1"
RUN, SKIP, HOLD = Action.RUN, Action.SKIP, Action.HOLD

STEADY = transitions.initial(A, lease_s=60, by="test", at=AT)
PLAN = Plan(id="p", source=A, target=B, mode=Mode.AUTO, reason="r", by="b", owner="o", started_at=AT)
DRAINING = transitions.claim(STEADY, PLAN, at=AT)
DRAINED = transitions.drained(DRAINING, at=AT)
FORCED = transitions.turn_forced(DRAINING, at=AT)
STARTS_AWAITED = transitions.start_awaited(DRAINING, at=AT)
PROMOTING = transitions.promote(DRAINING, at=AT)  # B is active here
RESUMING = transitions.resume(PROMOTING, at=AT)


def seen(state: DRState | None, *, reconciled: int | None, **changes: object) -> View:
    """Return a view that was read at 99 s, with both regions registered."""
    view = View(state, read_at=99.0, reconciled_epoch=reconciled, registered=frozenset({A, B}), confirmed_at=98.0)
    return replace(view, **changes)  # type: ignore[arg-type]


def decide_on(state: DRState | None, region: str, point: DecisionPoint, **changes: object) -> Decision:
    """Decide on a view that is one second old and reconciled, unless *changes* replace a value."""
    arguments: dict[str, object] = {
        "view": seen(state, reconciled=state.epoch if state else None),
        "region": region,
        "exempt": False,
        "now": 100.0,
        "lease_s": 60.0,
        "point": point,
    }
    return decide(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "region", "gate", "fence"),
    [
        pytest.param(STEADY, A, RUN, RUN, id="steady-active"),
        pytest.param(STEADY, B, SKIP, SKIP, id="steady-standby"),
        pytest.param(DRAINING, A, HOLD, RUN, id="draining-graceful-active"),
        pytest.param(DRAINING, B, SKIP, SKIP, id="draining-graceful-standby"),
        pytest.param(DRAINED, A, HOLD, HOLD, id="drained-active"),
        pytest.param(DRAINED, B, SKIP, SKIP, id="drained-standby"),
        pytest.param(FORCED, A, HOLD, HOLD, id="draining-forced-active"),
        pytest.param(FORCED, B, SKIP, SKIP, id="draining-forced-standby"),
        pytest.param(PROMOTING, B, HOLD, HOLD, id="promoting-active"),
        pytest.param(PROMOTING, A, SKIP, SKIP, id="promoting-standby"),
        pytest.param(RESUMING, B, RUN, RUN, id="resuming-active"),
        pytest.param(RESUMING, A, SKIP, SKIP, id="resuming-standby"),
        pytest.param(None, A, HOLD, HOLD, id="no-state-item"),
    ],
)
def test_the_table(state: DRState | None, region: str, gate: Action, fence: Action) -> None:
    """Each row of the decision table."""
    assert decide_on(state, region, DecisionPoint.GATE).action is gate
    assert decide_on(state, region, DecisionPoint.FENCE).action is fence


@pytest.mark.parametrize(
    ("state", "region", "gate"),
    [
        pytest.param(STARTS_AWAITED, A, RUN, id="starts-awaited-active"),
        pytest.param(STARTS_AWAITED, B, SKIP, id="starts-awaited-standby"),
        pytest.param(DRAINING, A, HOLD, id="draining"),
        pytest.param(transitions.hold_awaited(STARTS_AWAITED, at=AT), A, HOLD, id="held-again"),
        pytest.param(transitions.turn_forced(STARTS_AWAITED, at=AT), A, HOLD, id="forced"),
        pytest.param(
            replace(DRAINED, plan=replace(STARTS_AWAITED.plan, drained=True)), A, HOLD, id="drained-by-another-version"
        ),
        pytest.param(transitions.cancel(STARTS_AWAITED, plan_id="c", by="b", owner="o", reason="r", at=AT), A, RUN,
                     id="cancelled"),
        pytest.param(PROMOTING, B, HOLD, id="promoting"),
    ],
)  # fmt: skip
def test_a_run_that_work_in_progress_waits_for_starts_only_while_the_plan_says_so(
    state: DRState, region: str, gate: Action
) -> None:
    """The plan has to start awaited runs, and it has to be known that work waits for this run."""
    assert decide_on(state, region, DecisionPoint.GATE, is_awaited=True).action is gate
    if state.phase is Phase.DRAINING and region == A:
        assert decide_on(state, region, DecisionPoint.GATE).action is HOLD
        old = seen(state, reconciled=state.epoch)
        assert decide_on(state, region, DecisionPoint.GATE, is_awaited=True, view=old, now=160.0).action is HOLD


@pytest.mark.parametrize("point", DecisionPoint)
@pytest.mark.parametrize("region", [A, B])
@pytest.mark.parametrize("state", [STEADY, DRAINING, FORCED, PROMOTING, RESUMING])
def test_runs_hold_until_the_region_has_reconciled_the_epoch(state: DRState, region: str, point: DecisionPoint) -> None:
    """
    Also in the active region, before the agent's first turn, and after the role went to another region and came back.
    """
    for reconciled in (None, state.epoch - 1, state.epoch + 1):
        view = seen(state, reconciled=reconciled)
        assert decide_on(state, region, point, view=view).action is HOLD


@pytest.mark.parametrize(("lease_s", "age_s"), [(60.0, 20.0), (3600.0, 20.0), (12.0, 4.0)])
def test_a_run_is_closed_on_a_young_view_only(lease_s: float, age_s: float) -> None:
    """
    A failover does not wait for a frozen scheduler, because its database stops listing it: the region may be active
    now.
    """
    state = replace(STEADY, lease_s=lease_s)
    assert decide_on(state, B, DecisionPoint.GATE, now=99.0 + age_s).action is SKIP
    assert decide_on(state, B, DecisionPoint.GATE, now=99.1 + age_s).action is HOLD
    assert decide_on(state, A, DecisionPoint.GATE, now=99.1 + age_s).action is RUN


@pytest.mark.parametrize("point", DecisionPoint)
@pytest.mark.parametrize("region", [A, B])
@pytest.mark.parametrize("now", [159.1, 10_000.0, 98.0])
def test_a_view_older_than_the_lease_holds(region: str, point: DecisionPoint, now: float) -> None:
    """Unknown means hold, in both regions. A clock that went back means unknown, too."""
    assert decide_on(STEADY, region, point, now=now).action is HOLD


@pytest.mark.parametrize("point", DecisionPoint)
def test_the_lease_of_the_state_counts_not_the_setting(point: DecisionPoint) -> None:
    """The settings of the regions and of the caller may differ. The state item is the same for all of them."""
    long = replace(STEADY, lease_s=600)
    assert decide_on(long, A, point, now=500.0, lease_s=1.0).action is RUN


@pytest.mark.parametrize(
    ("choice", "region", "action"),
    [
        (OnUnreachable.RUN, A, RUN),
        (OnUnreachable.SKIP, A, SKIP),
        (OnUnreachable.RUN, B, HOLD),
        (OnUnreachable.SKIP, B, HOLD),
    ],
)
def test_on_unreachable_is_for_the_active_region_only(choice: OnUnreachable, region: str, action: Action) -> None:
    """A standby that cannot read the state never executes, whatever `on_unreachable` is."""
    assert decide_on(STEADY, region, DecisionPoint.GATE, now=200.0, on_unreachable=choice).action is action


@pytest.mark.parametrize("choice", [OnUnreachable.RUN, OnUnreachable.SKIP])
@pytest.mark.parametrize("point", DecisionPoint)
@pytest.mark.parametrize(
    ("state", "region", "reconciled"), [(DRAINING, A, 0), (FORCED, A, 0), (PROMOTING, B, 1), (STEADY, A, None)]
)
def test_on_unreachable_does_not_let_a_region_run_that_has_acknowledged_its_drain(
    state: DRState, region: str, reconciled: int | None, point: DecisionPoint, choice: OnUnreachable
) -> None:
    """The region is cut off after its acknowledgement. The engine relies on it, so both regions would execute."""
    view = seen(state, reconciled=reconciled)
    assert decide_on(state, region, point, view=view, now=200.0, on_unreachable=choice).action is HOLD


def test_on_unreachable_run_does_not_help_a_region_that_never_read() -> None:
    """A region that never read the state has no role."""
    decision = decide_on(STEADY, A, DecisionPoint.GATE, view=None, on_unreachable=OnUnreachable.RUN)
    assert (decision.action, decision.role) == (HOLD, Role.UNKNOWN)


@pytest.mark.parametrize("point", DecisionPoint)
@pytest.mark.parametrize("view", [None, View(STEADY, 99.0, 0), View(STEADY, -1000.0, 0), View(None, 99.0)])
def test_exempt_dags_run_whatever_is_known(view: View | None, point: DecisionPoint) -> None:
    """The failover DAG must run in a standby, and also when the table is unreachable."""
    assert decide_on(STEADY, B, point, view=view, exempt=True).action is RUN


def test_a_region_that_does_not_know_its_name_holds_with_advice() -> None:
    """Without a region name, there is no role."""
    decision = decide_on(STEADY, "", DecisionPoint.GATE)
    assert decision.action is HOLD
    assert "AWS_REGION" in decision.reason


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (decide_on(STEADY, B, DecisionPoint.GATE), "us-east-1 is standby, us-east-2 is active (epoch 0)"),
        (decide_on(None, A, DecisionPoint.GATE), "mwaa-dr init"),
        (decide_on(DRAINING, A, DecisionPoint.GATE), "being drained for us-east-1"),
        (decide_on(STEADY, A, DecisionPoint.GATE, now=200.0), "not reached the state table for 101 s"),
    ],
)
def test_reasons_name_region_and_epoch(decision: Decision, words: str) -> None:
    """The reason becomes the note on the run, so a user must understand it."""
    assert words in decision.reason


def test_every_phase_is_in_the_table() -> None:
    """A new phase needs its own row."""
    assert {state.phase for state in (STEADY, DRAINING, PROMOTING, RESUMING)} == set(Phase)


@pytest.mark.parametrize(
    ("requested_age_s", "action"),
    [
        pytest.param(0.5, HOLD, id="requested after the read"),
        pytest.param(-30.0, HOLD, id="by a clock that is ahead"),
        pytest.param(1.5, SKIP, id="requested before the read"),
        pytest.param(None, SKIP, id="created by the scheduler"),
    ],
)
def test_a_run_is_closed_as_born_in_standby_only_on_a_later_read(requested_age_s: float | None, action: Action) -> None:
    """
    A user may learn that the region is active, and request a run, before this scheduler knows. A closed run would be
    lost.
    """
    decision = decide_on(STEADY, B, DecisionPoint.GATE, requested_age_s=requested_age_s)
    assert decision.action is action
    assert decide_on(STEADY, A, DecisionPoint.GATE, requested_age_s=requested_age_s).action is RUN


@pytest.mark.parametrize("point", list(DecisionPoint))
@pytest.mark.parametrize("on_unreachable", list(OnUnreachable))
@pytest.mark.parametrize("age_s", [1.0, 100.0])
def test_an_airflow_that_is_not_the_region_holds(
    point: DecisionPoint, on_unreachable: OnUnreachable, age_s: float
) -> None:
    """Neither the role nor ``on_unreachable`` of the region that it claims applies to it. Exempt DAGs run."""
    view = View(STEADY, read_at=100.0 - age_s, reconciled_epoch=0, problem="two is not registered")
    for region in (A, B):
        decision = decide_on(STEADY, region, point, view=view, on_unreachable=on_unreachable)
        assert decision.action is HOLD
        assert decision.role is Role.UNKNOWN
        assert "two is not registered" in decision.reason
        assert decide_on(STEADY, region, point, view=view, exempt=True).action is RUN


@pytest.mark.parametrize("point", DecisionPoint)
@pytest.mark.parametrize("choice", OnUnreachable)
@pytest.mark.parametrize("now", [100.0, 110.0, 200.0])
@pytest.mark.parametrize("active", ["us-est-2", " us-east-2", "US-EAST-2", ""])
def test_an_active_region_that_is_not_registered_is_unknown_and_holds(
    active: str, now: float, choice: OnUnreachable, point: DecisionPoint
) -> None:
    """Before the fix, every region closed these runs as born in standby, and all of them were lost."""
    state = replace(STEADY, active_region=active)
    for region in (A, B):
        decision = decide_on(state, region, point, now=now, on_unreachable=choice)
        assert (decision.action, decision.role) == (HOLD, Role.UNKNOWN)


def test_the_reason_names_the_value_the_item_and_the_way_out() -> None:
    """The reason shows a leading space of the value."""
    reason = decide_on(replace(STEADY, active_region=" us-east-2"), A, DecisionPoint.GATE).reason
    for words in (
        "active_region of the item ACTIVE_REGION is ' us-east-2'",
        "ENVIRONMENT#REGION",
        "us-east-1, us-east-2",
        "correct active_region",
        "mwaa-dr failover REGION --reason TEXT",
        "mwaa-dr init",
    ):
        assert words in reason


@pytest.mark.parametrize("point", DecisionPoint)
def test_a_region_without_a_list_of_regions_holds_and_names_its_writer(point: DecisionPoint) -> None:
    """The previous version wrote this set. Its agents write the list in their first turn."""
    decision = decide_on(STEADY, A, point, view=seen(STEADY, reconciled=0, registered=None))
    assert decision.action is HOLD
    assert "the agent of us-east-2 writes the list in its first turn" in decision.reason
