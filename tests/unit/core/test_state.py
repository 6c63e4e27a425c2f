"""The transitions of the state, alone and in any order."""

from __future__ import annotations

import inspect
import itertools
import pickle
import re
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan, Stage, Stop
from airflow_provider_mwaa_dr.exceptions import (
    AlreadyActiveError,
    DrainTimeoutError,
    DRError,
    StaleStateError,
    WrongPhaseError,
)

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
A, B, C = "us-east-2", "us-east-1", "us-west-2"


def steady(region: str = A) -> DRState:
    return transitions.initial(region, lease_s=60, by="test", at=AT)


def plan(target: str = B, **changes: object) -> Plan:
    made = Plan(
        id="p1", source="", target=target, mode=Mode.AUTO, reason="why", by="me", owner="engine-1", started_at=AT
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_failover_increases_the_version_with_every_write_and_the_epoch_once() -> None:
    """Claim, record, promote, resume, complete: five writes, one epoch."""
    claimed = transitions.claim(steady(), plan(), at=AT)
    recorded = transitions.record_set(claimed, "p1", at=AT)
    promoted = transitions.promote(recorded, at=AT)
    done = transitions.complete(transitions.resume(promoted, at=AT), not_unpaused_set_id="", at=AT)

    assert (claimed.active_region, claimed.phase, claimed.epoch) == (A, Phase.DRAINING, 0)
    assert claimed.plan is not None
    assert claimed.plan.source == A
    assert (promoted.active_region, promoted.phase, promoted.previous_region) == (B, Phase.PROMOTING, A)
    assert (done.active_region, done.phase, done.plan) == (B, Phase.STEADY, None)
    assert (done.epoch, done.failover_count, done.version) == (1, 1, 6)
    assert done.failover_reason == "why"


def test_an_announced_stop_stays_after_its_plan_and_one_promotion() -> None:
    """The plan may end, and the role may move, before the ledger of the source reads which runs were stopped."""
    claimed = transitions.claim(steady(), plan(), at=AT)
    stopped = transitions.announce(claimed, "s1", had_ended=False, at=AT)
    assert transitions.announce(stopped, "s1", had_ended=False, at=AT) is stopped
    announced = (Stop(set_id="s1", epoch=0),)
    assert stopped.stops == announced

    back = transitions.cancel(stopped, plan_id="p2", by="me", owner="e", reason="why", at=AT)
    ended = transitions.complete(back, not_unpaused_set_id="", at=AT)
    again = transitions.claim(ended, plan(), at=AT)
    assert back.stops == ended.stops == again.stops == announced
    more = transitions.announce(again, "s2", had_ended=True, at=AT)
    assert more.stops == (*announced, Stop(set_id="s2", epoch=0, had_ended=True))
    promoted = transitions.promote(more, at=AT)
    assert promoted.stops == more.stops
    assert transitions.stops_of(promoted, promoted.epoch) == ()
    moved = transitions.set_active_region(ended, B, reason="why", by="me", at=AT)
    assert moved.stops == announced
    assert transitions.set_active_region(moved, A, reason="why", by="me", at=AT).stops == ()


def test_claiming_the_active_region_raises_already_active() -> None:
    """Callers treat AlreadyActiveError as success."""
    with pytest.raises(AlreadyActiveError, match="us-east-2 is active already"):
        transitions.claim(steady(), plan(A), at=AT)


def test_claiming_over_an_open_plan_is_refused() -> None:
    """A second caller joins, cancels or supersedes the open plan, and never claims over it."""
    claimed = transitions.claim(steady(), plan(), at=AT)
    with pytest.raises(WrongPhaseError, match="p1 is open"):
        transitions.claim(claimed, plan(C), at=AT)


def test_cancel_gives_the_role_back_under_a_new_plan_id() -> None:
    """An engine that still executes the old plan must not take the cancellation for its own plan."""
    recorded = transitions.record_set(transitions.claim(steady(), plan(), at=AT), "p1", at=AT)
    back = transitions.cancel(recorded, plan_id="p2", by="you", owner="engine-2", reason="no", at=AT)
    assert (back.phase, back.active_region, back.epoch) == (Phase.RESUMING, A, 0)
    assert back.plan is not None
    assert (back.plan.id, back.plan.target, back.plan.set_id) == ("p2", A, "p1")
    assert back.plan.is_cancellation


def test_cancel_after_promote_names_the_way_back() -> None:
    """After promote, the way back is a failover."""
    promoted = transitions.promote(transitions.claim(steady(), plan(), at=AT), at=AT)
    with pytest.raises(WrongPhaseError, match="Fail over to us-east-2"):
        transitions.cancel(promoted, plan_id="p2", by="you", owner="e", reason="no", at=AT)


def test_superseding_inherits_the_set_and_cancelling_it_restores_the_plan_before() -> None:
    """After a plan that replaced an unfinished plan is cancelled, exactly that unfinished plan continues."""
    first = transitions.record_set(transitions.claim(steady(), plan(), at=AT), "p1", at=AT)
    promoted = transitions.promote(first, at=AT)
    second = transitions.supersede(promoted, plan(A, id="p2"), at=AT)
    assert second.plan is not None
    assert (second.phase, second.active_region, second.plan.source) == (Phase.DRAINING, B, B)
    assert second.plan.set_id == "p1"

    back = transitions.cancel(second, plan_id="p3", by="you", owner="engine-3", reason="no", at=AT)
    assert back.plan is not None
    assert (back.phase, back.plan.id, back.plan.owner) == (Phase.PROMOTING, "p1", "engine-3")


def test_the_promoted_plan_is_known_under_a_plan_that_supersedes_it() -> None:
    """
    The promoted region still waits for its source's final ledger entry. Ended and merely claimed plans do not count.
    """
    claimed = transitions.claim(steady(), plan(), at=AT)
    promoted = transitions.promote(transitions.drained(claimed, at=AT), at=AT)
    superseded = transitions.supersede(promoted, plan(A, id="p2"), at=AT)
    again = transitions.supersede(superseded, plan(C, id="p3"), at=AT)

    for state in (promoted, superseded, again, transitions.resume(promoted, at=AT)):
        found = transitions.promoted_plan(state)
        assert found is not None
        assert (found.id, found.drained) == ("p1", True)
    assert transitions.promoted_plan(claimed) is None
    assert transitions.promoted_plan(steady()) is None


def test_superseding_to_the_active_region_is_refused_in_favour_of_cancel() -> None:
    """Before promote, the active region cannot be the target of a new plan."""
    claimed = transitions.claim(steady(), plan(), at=AT)
    with pytest.raises(WrongPhaseError, match="Cancel that plan"):
        transitions.supersede(claimed, plan(A, id="p2"), at=AT)


def test_a_recorded_set_is_never_replaced() -> None:
    """If a resumed engine records again, that is a no-op."""
    recorded = transitions.record_set(transitions.claim(steady(), plan(), at=AT), "p1", at=AT)
    assert transitions.record_set(recorded, "other", at=AT) is recorded


def test_a_forced_plan_cannot_turn_forced_again() -> None:
    """The lease counts from the write that turned the plan forced, so there is only one such write."""
    forced = transitions.turn_forced(transitions.claim(steady(), plan(), at=AT), at=AT)
    assert forced.plan is not None
    assert forced.plan.is_forced
    with pytest.raises(WrongPhaseError):
        transitions.turn_forced(forced, at=AT)


STEPS = {
    "claim": lambda s, t: transitions.claim(s, plan(t), at=AT),
    "supersede": lambda s, t: transitions.supersede(s, plan(t, id=f"p{s.version}"), at=AT),
    "cancel": lambda s, t: transitions.cancel(s, plan_id=f"c{s.version}", by="x", owner="x", reason="x", at=AT),
    "record_set": lambda s, t: transitions.record_set(s, f"s{s.version}", at=AT),
    "turn_forced": lambda s, t: transitions.turn_forced(s, at=AT),
    "promote": lambda s, t: transitions.promote(s, at=AT),
    "resume": lambda s, t: transitions.resume(s, at=AT),
    "complete": lambda s, t: transitions.complete(s, not_unpaused_set_id="", at=AT),
    "beat": lambda s, t: transitions.beat(s, at=AT),
    "take_over": lambda s, t: transitions.take_over(s, owner=t, at=AT),
    "set_active_region": lambda s, t: transitions.set_active_region(s, t, reason="r", by="b", at=AT),
    "announce": lambda s, t: transitions.announce(s, f"a{s.version}", had_ended=False, at=AT),
    "drained": lambda s, t: transitions.drained(s, at=AT),
    "start_awaited": lambda s, t: transitions.start_awaited(s, at=AT),
    "hold_awaited": lambda s, t: transitions.hold_awaited(s, at=AT),
    "recover": lambda s, t: transitions.recover(s, plan(t), lease_s=60, at=AT),
    "halt": lambda s, t: transitions.halt(s, at=AT),
    "harden": lambda s, t: transitions.harden(s, stops=True, forces=False, at=AT),
}


def reachable() -> list[DRState]:
    """Return states of each phase, with each kind of plan that makes a difference."""
    draining = transitions.claim(steady(), plan(), at=AT)
    promoting = transitions.promote(draining, at=AT)
    resuming = transitions.resume(promoting, at=AT)
    return [
        steady(), draining, promoting, resuming,
        transitions.turn_forced(draining, at=AT),
        transitions.start_awaited(draining, at=AT),
        transitions.supersede(promoting, plan(A), at=AT),
        transitions.supersede(resuming, plan(A), at=AT),
        transitions.recover(unknown(), plan(), lease_s=60, at=AT),
        transitions.claim(steady(), plan(hold=Stage.DRAINED), at=AT),
        transitions.promote(transitions.claim(steady(), plan(hold=Stage.PROMOTED), at=AT), at=AT),
    ]  # fmt: skip


def changed(name: str, state: DRState, region: str) -> DRState | WrongPhaseError | None:
    """Return the next state, or why the transition is refused; None if *region* is active already."""
    try:
        return STEPS[name](state, region)
    except AlreadyActiveError:
        return None
    except WrongPhaseError as error:
        return error


@pytest.mark.parametrize("name", sorted(transitions.TRANSITIONS))
def test_a_transition_leads_from_and_to_exactly_the_phases_of_the_table(name: str) -> None:
    """The documents show the table. A function that refuses says what to do."""
    moves, refused = set(), []
    for state, region in itertools.product(reachable(), (A, B, C)):
        new = changed(name, state, region)
        if isinstance(new, DRState):
            moves.add((state.phase, new.phase))
        elif new is not None:
            refused.append(new)
    table = transitions.TRANSITIONS[name].moves
    assert moves == {(old, new) for old, targets in table.items() for new in targets}
    assert all(error.advice for error in refused)


def test_editors_offer_every_mode() -> None:
    """The literal type of the public interface has the values of the enum."""
    assert list(get_args(transitions.ModeName)) == [mode.value for mode in Mode]
    assert list(get_args(transitions.StageName)) == [stage.value for stage in Stage]


def test_every_function_that_changes_the_state_is_in_the_table() -> None:
    """The table lists all ways in which the state may change."""
    changes = {
        name
        for name, function in inspect.getmembers(transitions, inspect.isfunction)
        if function.__module__ == transitions.__name__ and list(inspect.signature(function).parameters)[:1] == ["state"]
        if inspect.signature(function).return_annotation == "DRState" and not name.startswith("_")
    }
    assert changes == set(transitions.TRANSITIONS) == set(STEPS)


@pytest.mark.parametrize("name", ["record_set", "announce", "drained"])
@pytest.mark.parametrize("phase", [Phase.PROMOTING, Phase.RESUMING])
def test_what_belongs_to_the_drain_is_refused_after_the_promotion(name: str, phase: Phase) -> None:
    """An engine that wrote it later would change a plan that already executes elsewhere."""
    state = next(each for each in reachable() if each.phase is phase)
    with pytest.raises(
        WrongPhaseError, match=f"Plan p1 is {phase.value} at version .*: {name} is allowed only in DRAINING"
    ):
        STEPS[name](state, B)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(STEPS.keys() - {"recover"})), st.sampled_from([A, B, C])), max_size=40)
)
def test_no_order_of_steps_breaks_the_invariants(steps: list[tuple[str, str]]) -> None:
    """
    Every write increases the version by one. The epoch grows with every change of the active region, and only then.
    """
    state = steady()
    for name, region in steps:
        try:
            new = STEPS[name](state, region)
        except (WrongPhaseError, AlreadyActiveError):
            continue
        if new is state:
            continue
        assert new.version == state.version + 1
        assert (new.epoch == state.epoch + 1) == (name in {"promote", "set_active_region"})
        assert new.epoch == state.epoch or new.previous_region == state.active_region
        assert new.epoch != state.epoch or new.active_region == state.active_region
        assert (new.plan is None) == (new.phase is Phase.STEADY)
        assert new.is_newer_than(state)
        state = new


def cancelled(state: DRState) -> DRState:
    return transitions.cancel(state, plan_id="back", by="me", owner="engine-3", reason="no", at=AT)


def test_cancelling_does_not_resume_a_plan_that_had_not_promoted_either() -> None:
    """The caller names the active region and wants it to stay active. The plan before would lead to another region."""
    first = transitions.claim(steady(), plan(B), at=AT)
    second = transitions.record_set(transitions.supersede(first, plan(C, id="p2"), at=AT), "set", at=AT)
    back = cancelled(second)
    assert back.plan is not None
    assert (back.phase, back.plan.id, back.plan.target, back.plan.set_id) == (Phase.RESUMING, "back", A, "set")
    assert back.plan.replaced is None


def test_cancelling_goes_back_past_unpromoted_plans_to_the_promoted_one() -> None:
    """The active region still has to be prepared and to get its set, however many plans followed."""
    promoted = transitions.promote(transitions.claim(steady(), plan(B), at=AT), at=AT)
    second = transitions.supersede(promoted, plan(A, id="p2"), at=AT)
    back = cancelled(transitions.supersede(second, plan(C, id="p3"), at=AT))
    assert back.plan is not None
    assert (back.phase, back.plan.id, back.plan.target, back.plan.owner) == (Phase.PROMOTING, "p1", B, "engine-3")


def test_a_cancelled_plans_set_goes_to_the_setless_plan_that_it_had_replaced() -> None:
    """The earlier plan had recorded no set and paused no DAG. The cancelled plan may have paused all of them."""
    first = cancelled(transitions.claim(steady(), plan(B), at=AT))
    second = transitions.record_set(transitions.supersede(first, plan(B, id="p2"), at=AT), "set", at=AT)
    back = cancelled(second)
    assert back.plan is not None
    assert (back.phase, back.plan.id, back.plan.set_id) == (Phase.RESUMING, "back", "set")


@pytest.mark.parametrize(
    "error",
    [
        StaleStateError(3, steady()),
        DrainTimeoutError("late", runs=["d r"], advice="wait"),
        AlreadyActiveError("it is"),
    ],
)
def test_errors_pickle_with_their_data(error: DRError) -> None:
    """Airflow pickles what a task raises. Message, advice and data stay the same."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def unknown(**changes: object) -> DRState:
    return replace(steady(), active_region="us-est-2", **changes)  # type: ignore[arg-type]


def test_recovering_a_state_is_forced_and_remembers_that_the_source_is_not_known() -> None:
    """The plan is forced, whatever mode the caller requested. Its source is the caller's best guess."""
    taken = transitions.recover(unknown(), plan(source=A, mode=Mode.GRACEFUL), lease_s=60, at=AT)
    assert (taken.phase, taken.active_region, taken.epoch, taken.version) == (Phase.DRAINING, "us-est-2", 0, 2)
    assert taken.plan is not None
    assert (taken.plan.mode, taken.plan.source, taken.plan.is_recovery) == (Mode.FORCED, A, True)
    assert not transitions.recover(unknown(), plan(A, source=A), lease_s=60, at=AT).plan.is_cancellation  # type: ignore[union-attr]


def test_a_recovery_can_be_superseded_but_not_cancelled() -> None:
    """No region is known to be active, so there is no region to go back to."""
    taken = transitions.recover(replace(steady(), phase=Phase.DRAINING), plan(source=A), lease_s=60, at=AT)
    with pytest.raises(WrongPhaseError):
        transitions.cancel(taken, plan_id="c", by="me", owner="e", reason="r", at=AT)
    for target in (A, C):
        turned = transitions.supersede(taken, plan(target, mode=Mode.GRACEFUL), at=AT)
        assert turned.plan is not None
        assert (turned.plan.is_recovery, turned.plan.mode, turned.plan.source) == (True, Mode.FORCED, A)
    # After its promotion, it is known which region executes.
    promoted = transitions.promote(taken, at=AT)
    back = transitions.supersede(promoted, plan(C), at=AT)
    assert back.plan is not None
    assert (back.plan.is_recovery, back.plan.mode, back.plan.source) == (False, Mode.AUTO, B)


def test_while_a_value_cannot_be_used_only_taking_over_changes_the_state() -> None:
    """Any other transition would write the replacement of the unusable value as if it were right."""
    problem = transitions.FieldProblem("lease_s", "'nan'", "a number")
    draining = replace(transitions.claim(steady(), plan(), at=AT), problems=(problem,))
    promoted = replace(transitions.promote(transitions.claim(steady(), plan(), at=AT), at=AT), problems=(problem,))
    for step in (
        lambda: transitions.claim(replace(steady(), problems=(problem,)), plan(), at=AT),
        lambda: transitions.set_active_region(replace(steady(), problems=(problem,)), B, reason="r", by="b", at=AT),
        lambda: transitions.beat(draining, at=AT),
        lambda: transitions.supersede(draining, plan(C), at=AT),
        lambda: transitions.promote(draining, at=AT),
        lambda: transitions.resume(promoted, at=AT),
    ):
        with pytest.raises(WrongPhaseError, match="lease_s is 'nan', allowed is a number"):
            step()
    assert transitions.recover(draining, plan(source=A), lease_s=60, at=AT).problems == ()


def test_plans_that_supersede_each_other_do_not_nest() -> None:
    """
    Before the fix, sixteen plans in a row reached the 32 levels that DynamoDB allows: the claim fit, the promotion did
    not.
    """
    state = transitions.promote(transitions.claim(steady(), plan(), at=AT), at=AT)
    for number in range(40):
        target = next(region for region in (*(A, B, C)[number % 3 :], A, B) if region != state.active_region)
        state = transitions.supersede(state, plan(target, id=f"p{number}"), at=AT)
        assert state.plan is not None
        if number % 5 == 4:
            state = transitions.promote(state, at=AT)
        depth, found = 0, state.plan
        while found is not None:
            depth, found = depth + 1, found.replaced[1] if found.replaced is not None else None
        assert depth <= 2


def test_only_core_state_changes_a_state() -> None:
    """The module promises this: a field that other code changes skips every condition."""
    package = Path(transitions.__file__).parent.parent
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        if path != Path(transitions.__file__)
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\breplace\((row|state|self\._table\.state)\b", line)
    ]
    assert found == []
