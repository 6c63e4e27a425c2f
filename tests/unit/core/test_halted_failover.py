"""A failover that halts at a stage for steps of users, and the call that continues it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.agent.hold_alarm import REPEAT_S, HoldAlarm
from airflow_provider_mwaa_dr.agent.plan_finisher import PlanFinisher
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import FailoverEngine, FailoverRequest, StepEvent
from airflow_provider_mwaa_dr.core.failover.table import plan_of
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide
from airflow_provider_mwaa_dr.core.ports import RECORDS, FailoverOutcome, FailoverRecord
from airflow_provider_mwaa_dr.core.state import Mode, Phase, Stage
from airflow_provider_mwaa_dr.exceptions import (
    AlreadyActiveError,
    ConfigError,
    NotReadyError,
    PlanSupersededError,
    StateUnreachableError,
    WrongPhaseError,
)
from tests.histories import RegionDags
from tests.unit.core.dr_set import TIMING, WANTED, A, B, C, World, request

DRAINED, PROMOTED = Stage.DRAINED, Stage.PROMOTED
STAGES = pytest.mark.parametrize("stage", Stage)
MODES = pytest.mark.parametrize("mode", Mode)


class KilledError(BaseException):
    """Ends an engine immediately, as SIGKILL does."""


@pytest.fixture
def world() -> World:
    return World.build()


def steps(record: FailoverRecord) -> list[str]:
    return [step.name for step in record.steps]


def assert_nothing_may_execute(world: World) -> None:
    """Gate and fence hold in the source and in the target, also for a run that work in progress waits for."""
    state = world.state
    for region in (state.active_region, plan_of(state).source, plan_of(state).target):
        for point in DecisionPoint:
            view = View(state, 0.0, state.epoch, registered=frozenset((A, B, C)), confirmed_at=0.0)
            found = decide(
                view, region=region, exempt=False, now=0.0, lease_s=60.0, point=point, is_awaited=True
            ).action
            assert found is not Action.RUN, (region, point)


def assert_halted(world: World, record: FailoverRecord, stage: Stage) -> None:
    plan = plan_of(world.state)
    phase = {DRAINED: Phase.DRAINING, PROMOTED: Phase.PROMOTING}[stage]
    assert (world.state.phase, plan.is_halted, plan.hold, plan.id) == (phase, True, stage, record.id)
    assert (record.outcome, record.finished_at, steps(record)[-1]) == (FailoverOutcome.OPEN, None, "halt")
    assert world.store.get(RECORDS, record.id) == record
    assert_nothing_may_execute(world)


@MODES
def test_a_failover_halts_at_each_stage_and_ends_as_one_that_does_not(world: World, mode: Mode) -> None:
    """Three calls, one plan, one record. Each call begins where the call before has halted."""
    first = world.fail_over(until=DRAINED, mode=mode)
    assert_halted(world, first, DRAINED)
    assert world.state.active_region == A
    second = world.fail_over(owner="engine-2", until=PROMOTED, mode=mode)
    assert_halted(world, second, PROMOTED)
    assert world.state.active_region == B
    last = world.fail_over(owner="engine-3", mode=mode)
    assert (last.outcome, last.id) == (FailoverOutcome.COMPLETED, first.id)
    assert (last.mode is Mode.FORCED) is (mode is Mode.FORCED)
    assert (world.state.phase, world.state.active_region, world.state.epoch) == (Phase.STEADY, B, 1)
    assert world.environments[B].unpaused - {"dr_failover"} == WANTED
    middle = ["lease"] if mode is Mode.FORCED else ["drain", "pause", "ledger", "lease"]
    assert steps(last) == [
        "check", "claim", "record", *middle, "halt",
        "join", "promote", "adopt", "halt",
        "join", "adopt", "unpause", "verify", "complete",
    ]  # fmt: skip


def test_the_call_that_continues_a_drained_plan_waits_for_nothing_again(world: World) -> None:
    """The source's agents may have died meanwhile. The plan remembers that its gates and fences are closed."""
    world.fail_over(until=DRAINED)
    world.agents[A].alive = False
    world.environments[A].unreachable = True
    world.clock.advance(400)
    began = world.clock.monotonic()
    world.fail_over(owner="engine-2", until=PROMOTED)
    assert world.clock.monotonic() - began <= 3, "neither the lease, nor the fence file, nor the source"


def test_an_auto_failover_turns_forced_and_halts(world: World) -> None:
    """The data step that follows reads from the record that the source may not be called."""
    world.agents[A].alive = False
    world.environments[A].unreachable = True
    record = world.fail_over(until=DRAINED)
    assert_halted(world, record, DRAINED)
    assert record.mode is Mode.FORCED


def test_an_engine_that_takes_over_a_quiet_plan_waits_only_for_the_fence(world: World) -> None:
    """The first engine died after the drain, and the source after it. The gates were closed before."""

    def die(event: StepEvent) -> None:
        if (event.name, event.status) == ("lease", "started"):
            world.agents[A].alive = False
            raise KilledError

    with pytest.raises(KilledError):
        world.engine(on_step=die).run(request(until=DRAINED))
    assert plan_of(world.state).quiet
    record = world.fail_over(owner="engine-2", until=DRAINED)
    seconds = {step.name: step.seconds for step in record.steps}
    assert seconds["drain"] < 5
    assert 0 < seconds["ledger"] + seconds["lease"] < 10
    assert_halted(world, record, DRAINED)


@STAGES
def test_a_call_for_a_stage_that_is_reached_changes_nothing(world: World, stage: Stage) -> None:
    """A retry of a task, also after the plan has gone on. Its data step is idempotent."""
    first = world.fail_over(until=stage)
    version = world.state.version
    assert world.fail_over(owner="retry", until=stage) == first
    assert world.state.version == version
    if stage is PROMOTED:
        assert world.fail_over(owner="retry", until=DRAINED) == first
        assert world.state.version == version
    world.fail_over(owner="engine-2")
    with pytest.raises(AlreadyActiveError):
        world.fail_over(owner="retry", until=stage)


@STAGES
def test_a_halted_plan_is_finished_by_a_call_without_a_stage(world: World, stage: Stage) -> None:
    world.fail_over(until=stage)
    record = world.fail_over(owner="engine-2")
    assert record.outcome is FailoverOutcome.COMPLETED
    assert (world.state.phase, world.state.active_region) == (Phase.STEADY, B)


def test_a_drained_plan_is_cancelled_by_naming_the_active_region(world: World) -> None:
    world.fail_over(until=DRAINED)
    world.fail_over(A, owner="engine-2")
    assert (world.state.phase, world.state.active_region, world.state.epoch) == (Phase.STEADY, A, 0)
    assert world.environments[A].unpaused - {"dr_failover"} == WANTED
    again = world.fail_over(owner="engine-3", until=DRAINED)
    assert "drain" in steps(again)
    assert_halted(world, again, DRAINED)


def test_a_call_that_continues_a_plan_starts_no_other_one(world: World) -> None:
    """A person cancels the failover while the DAG works on its step. The next task must not start another one."""
    first = world.fail_over(until=DRAINED)
    world.fail_over(A, owner="a person")
    steady = world.state
    with pytest.raises(PlanSupersededError, match=f"Plan {first.id} is no longer open: {A} is active"):
        world.fail_over(owner="engine-2", plan_id=first.id)
    assert world.state == steady
    again = world.fail_over(owner="engine-3", until=DRAINED)
    with pytest.raises(PlanSupersededError, match=f"Plan {first.id} is no longer open: tester moves the role"):
        world.fail_over(owner="engine-4", plan_id=first.id)
    assert world.fail_over(owner="engine-5", plan_id=again.id).outcome is FailoverOutcome.COMPLETED
    with pytest.raises(AlreadyActiveError):
        world.fail_over(owner="engine-6", plan_id=again.id)


def test_a_call_that_continues_a_plan_does_not_follow_its_successor(world: World) -> None:
    """Another caller cancels the plan and starts a new one to the same region, while this one follows it."""
    first = world.fail_over(until=DRAINED)
    taken = transitions.take_over(world.state, owner="other", at=world.clock.now())
    world.store.peer().write(taken, expected_version=world.state.version)

    def replace_plan(event: StepEvent) -> None:
        if (event.name, event.status) == ("join", "progress") and plan_of(world.state).id == first.id:
            new = replace(world.state, plan=replace(plan_of(world.state), id="p2"), version=world.state.version + 1)
            world.store.peer().write(new, expected_version=world.state.version)

    with pytest.raises(PlanSupersededError):
        world.engine("engine-2", on_step=replace_plan).run(request(plan_id=first.id))


@pytest.mark.parametrize("target", [A, C])
def test_a_promoted_plan_is_superseded_by_naming_another_region(world: World, target: str) -> None:
    """The region that is left has executed nothing, but its gate is not known to be closed: the new plan drains it."""
    world.fail_over(until=PROMOTED)
    record = world.fail_over(target, owner="engine-2", until=DRAINED)
    assert_halted(world, record, DRAINED)
    assert "drain" in steps(record)
    world.fail_over(B, owner="engine-3")
    assert (world.state.phase, world.state.active_region) == (Phase.STEADY, B), (
        "the cancelled plan continues to its end"
    )


def test_cancelling_a_superseding_plan_continues_the_halted_plan_that_it_replaced(world: World) -> None:
    """The caller that cancels names the region that it wants active, and no stage."""
    world.fail_over(until=PROMOTED)
    world.fail_over(A, owner="engine-2", until=DRAINED)
    record = world.fail_over(B, owner="engine-3")
    assert record.outcome is FailoverOutcome.COMPLETED
    assert (world.state.phase, world.state.active_region, world.state.epoch) == (Phase.STEADY, B, 1)


def test_a_caller_that_follows_an_engine_continues_when_that_engine_halts(world: World) -> None:
    """It does not wait until the halted plan is silent."""
    third = world.engine("second")

    def halt(event: StepEvent) -> None:
        if (event.name, event.status) == ("join", "progress"):
            state = world.state
            plan = replace(plan_of(state), hold=PROMOTED)
            halted = transitions.halt(replace(state, plan=plan), at=world.clock.now())
            world.store.write(halted, expected_version=state.version)

    world.fail_over(until=PROMOTED)
    taken = transitions.take_over(world.state, owner="first", hold=PROMOTED, at=world.clock.now())
    world.store.peer().write(taken, expected_version=world.state.version)
    third = world.engine("second", on_step=halt)
    began = world.clock.monotonic()
    assert third.run(request()).outcome is FailoverOutcome.COMPLETED
    assert world.clock.monotonic() - began < TIMING.takeover_s


@pytest.mark.parametrize(
    ("name", "stage"),
    [(name, stage) for name in ("halt", "lease", "adopt") for stage in Stage if (name, stage) != ("adopt", DRAINED)],
)
def test_an_engine_killed_before_its_halt_is_replaced_by_its_retry(world: World, name: str, stage: Stage) -> None:
    """The stage is in the plan, so neither the target's agent nor the retry goes past it."""

    def die(event: StepEvent) -> None:
        if (event.name, event.status) == (name, "started"):
            raise KilledError

    with pytest.raises(KilledError):
        world.engine("killed", die).run(request(until=stage))
    assert plan_of(world.state).hold is stage
    record = world.fail_over(owner="retry", until=stage)
    assert_halted(world, record, stage)
    assert world.fail_over(owner="last").outcome is FailoverOutcome.COMPLETED


@STAGES
def test_a_lost_response_of_the_halt_is_found_by_reading(world: World, stage: Stage) -> None:
    store = world.store.peer()
    write = store.write

    def lossy(state: transitions.DRState, *, expected_version: int | None) -> None:
        write(state, expected_version=expected_version)
        if state.plan is not None and state.plan.is_halted:
            raise StateUnreachableError("The answer was lost.")

    store.write = lossy  # type: ignore[method-assign]
    record = world.engine(store=store).run(request(until=stage))
    assert_halted(world, record, stage)


@pytest.mark.parametrize("hold_s", [0, -1, 86_401, float("nan")])
def test_the_time_of_a_halt_is_limited(hold_s: float) -> None:
    with pytest.raises(ConfigError, match="may stay halted for"):
        FailoverRequest(target=B, reason="why", by="me", until=DRAINED, hold_s=hold_s)


def test_with_eventual_consistency_a_taken_over_plan_waits_for_the_lease_again(world: World) -> None:
    """A new scheduler of the source may read an old copy, so that its gate is open although all others were closed."""

    def engine(owner: str, on_step: Callable[[StepEvent], None] = lambda _: None) -> FailoverEngine:
        store = world.store.peer()
        store.copies = lambda: dict.fromkeys((A, B, C), world.state)  # type: ignore[method-assign]
        return FailoverEngine(store, world.environments, world.clock, TIMING, owner, on_step, eventual=True)

    def die(event: StepEvent) -> None:
        if (event.name, event.status) == ("lease", "started"):
            world.agents[A].alive = False
            raise KilledError

    with pytest.raises(KilledError):
        engine("killed", die).run(request(until=DRAINED))
    record = engine("engine-2").run(request(until=DRAINED))
    assert [step.seconds for step in record.steps if step.name == "drain"][-1] > 60
    assert_halted(world, record, DRAINED)
    began = world.clock.monotonic()
    assert engine("engine-3").run(request()).outcome is FailoverOutcome.COMPLETED
    assert world.clock.monotonic() - began < 20, "the halt came after the wait"


# Agents of other versions.


@STAGES
@pytest.mark.parametrize("region", [A, B, C])
def test_no_failover_halts_while_an_agent_does_not_know_it(world: World, region: str, stage: Stage) -> None:
    """It would drop the stage from the plan and continue it."""
    world.agents[region].changes["knows_hold"] = False
    with pytest.raises(NotReadyError, match=f"cannot halt at {stage.value}.*{region} .job 1, provider 0.1.0"):
        world.fail_over(until=stage, even_if_not_ready=True)
    assert world.state.phase is Phase.STEADY
    assert world.fail_over().outcome is FailoverOutcome.COMPLETED


def test_agents_that_a_forced_failover_leaves_do_not_count(world: World) -> None:
    world.agents[A].changes["knows_hold"] = False
    record = world.fail_over(until=DRAINED, mode=Mode.FORCED)
    assert_halted(world, record, DRAINED)


def test_agents_that_are_silent_do_not_count(world: World) -> None:
    """The item of a scheduler of an earlier version remains in the table for minutes."""
    world.agents[C].changes["knows_hold"] = False
    world.clock.advance(1)
    world.agents[C].alive = False
    assert_halted(world, world.fail_over(until=DRAINED), DRAINED)


def test_a_caller_that_joins_a_plan_without_a_stage_checks_the_agents(world: World) -> None:
    def die(event: StepEvent) -> None:
        if event.name == "drain":
            raise KilledError

    with pytest.raises(KilledError):
        world.engine("killed", die).run(request())
    world.agents[B].changes["knows_hold"] = False
    with pytest.raises(NotReadyError, match="cannot halt at promoted"):
        world.fail_over(owner="second", until=PROMOTED)
    assert plan_of(world.state).owner == "killed"


def test_a_preview_names_the_stage_and_the_agents_that_do_not_know_it(world: World) -> None:
    world.agents[A].changes["knows_hold"] = False
    found = world.engine().preview(request(until=DRAINED))
    assert found.until is DRAINED
    assert found.steps == ("check", "claim", "record", "drain", "pause", "ledger", "lease", "halt")
    assert any("does not know until" in why for why in found.not_ready)
    assert world.state.phase is Phase.STEADY


# The target's agent.


def finisher_of(world: World, region: str) -> tuple[PlanFinisher, HoldAlarm]:
    alarm = HoldAlarm(world.clock)
    dags = RegionDags(world.environments[region])
    found = PlanFinisher(
        world.store.peer(), dags, world.clock, region=region, owner=f"agent of {region}",
        takeover_s=TIMING.takeover_s, alarm=alarm,
    )  # fmt: skip
    return found, alarm


def turns(world: World, seconds: float, *finishers: PlanFinisher, while_: Callable[[], bool] = lambda: True) -> float:
    began = world.clock.monotonic()
    while world.clock.monotonic() - began < seconds and while_():
        for each in finishers:
            each.turn(world.state)
        world.clock.advance(1)
    return world.clock.monotonic() - began


def test_the_agent_waits_for_as_long_as_the_caller_allowed(world: World) -> None:
    """Then nothing executes for a while already, and the target's agent finishes the plan."""
    world.fail_over(until=PROMOTED, hold_s=200)
    finisher, alarm = finisher_of(world, B)
    halted = world.state
    turns(world, 199, finisher)
    assert world.state == halted
    turns(world, 20, finisher)
    assert (world.state.phase, world.state.active_region) == (Phase.STEADY, B)
    assert alarm.count == 0


def test_the_agent_counts_from_the_last_change_of_the_row_on_its_own_clock(world: World) -> None:
    """An agent that starts later, or could not read the table, begins again."""
    world.fail_over(until=PROMOTED, hold_s=200)
    halted = world.state
    turns(world, 190, finisher_of(world, B)[0])
    restarted, _ = finisher_of(world, B)
    turns(world, 190, restarted)
    world.clock.advance(TIMING.takeover_s)
    turns(world, 190, restarted)
    assert world.state == halted


def test_the_agent_waits_for_a_retry_of_an_engine_that_died_before_its_halt(world: World) -> None:
    def die(event: StepEvent) -> None:
        if event.name == "adopt":
            raise KilledError

    with pytest.raises(KilledError):
        world.engine("killed", die).run(request(until=PROMOTED, hold_s=200))
    turns(world, 150, finisher_of(world, B)[0])
    assert (world.state.phase, plan_of(world.state).owner) == (Phase.PROMOTING, "killed")


def test_no_agent_moves_the_role_of_a_drained_plan_and_the_alarm_repeats(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The data may have moved. Only a person can find that out, so the alarm names both commands."""
    record = world.fail_over(until=DRAINED, hold_s=100)
    halted = world.state
    both = [finisher_of(world, A), finisher_of(world, B)]
    with caplog.at_level(logging.ERROR):
        turns(world, 100, *(finisher for finisher, _ in both))
        assert [alarm.count for _, alarm in both] == [0, 0]
        turns(world, 3 * REPEAT_S, *(finisher for finisher, _ in both))
    assert world.state == halted
    assert [alarm.count for _, alarm in both] == [3, 3]
    assert f"Failover {record.id}" in caplog.text
    assert f"mwaa-dr failover {B} --reason TEXT. Or cancel: mwaa-dr failover {A} --reason TEXT" in caplog.text
    world.fail_over(owner="engine-2")
    assert (world.state.phase, world.state.active_region) == (Phase.STEADY, B)
    turns(world, 10, *(finisher for finisher, _ in both))
    assert [alarm.count for _, alarm in both] == [3, 3]


# The transitions.


def test_a_plan_halts_only_at_the_stage_of_its_caller(world: World) -> None:
    world.fail_over(until=DRAINED)
    taken = transitions.take_over(world.state, owner="x", hold=PROMOTED, at=world.clock.now())
    with pytest.raises(WrongPhaseError, match="does not halt in DRAINING: it halts at promoted"):
        transitions.halt(taken, at=world.clock.now())
    taken = transitions.take_over(world.state, owner="x", at=world.clock.now())
    with pytest.raises(WrongPhaseError, match="it halts at no stage"):
        transitions.halt(taken, at=world.clock.now())


def test_quiet_and_the_stage_belong_to_one_plan(world: World) -> None:
    """A plan that leaves another region, or the same region again, must wait for its lease."""
    at = world.clock.now()
    world.fail_over(until=DRAINED)
    drained = world.state
    assert (plan_of(drained).quiet, plan_of(drained).halts) == (True, 1)
    back = plan_of(transitions.cancel(drained, plan_id="p2", by="me", owner="e", reason="why", at=at))
    assert (back.quiet, back.hold, back.halts) == (False, None, 0)
    promoted = transitions.promote(replace(drained, plan=replace(plan_of(drained), hold=PROMOTED, owner="x")), at=at)
    assert not plan_of(promoted).quiet
    halted = transitions.halt(promoted, at=at)
    new = replace(plan_of(drained), id="p3", target=A, quiet=False, hold=None, halts=0, owner="y")
    superseding = transitions.supersede(halted, new, at=at)
    assert (plan_of(superseding).quiet, plan_of(superseding).hold) == (False, None)
    again = transitions.cancel(superseding, plan_id="p4", by="me", owner="z", reason="why", at=at)
    assert (again.phase, plan_of(again).hold, plan_of(again).owner) == (Phase.PROMOTING, None, "z")
    assert plan_of(transitions.resume(again, at=at)).hold is None


def test_a_superseded_engine_that_wanted_to_halt_stops(world: World) -> None:
    def supersede(event: StepEvent) -> None:
        if (event.name, event.status) == ("halt", "started"):
            world.fail_over(C, owner="other", mode=Mode.FORCED)

    with pytest.raises(PlanSupersededError):
        world.engine(on_step=supersede).run(request(until=PROMOTED))
    assert world.state.active_region == C
