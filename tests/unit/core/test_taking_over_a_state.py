"""A failover where the state item names no active region, or cannot be acted on: someone has changed it by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.failover import StepEvent
from airflow_provider_mwaa_dr.core.ports import DagSet, FailoverRecord
from airflow_provider_mwaa_dr.core.state import LONGEST_LEASE_S, FieldProblem, Mode, Phase
from airflow_provider_mwaa_dr.exceptions import FailoverError, WrongPhaseError
from tests.unit.core.dr_set import WANTED, A, B, C, World, request

MISSPELLED = "us-est-2"
LEASE = FieldProblem("lease_s", "'nan'", "a number")


class KilledError(BaseException):
    """Ends an engine where it stands, as SIGKILL does."""


@pytest.fixture
def world() -> World:
    return World.build()


def change(world: World, **fields: object) -> None:
    """Change the item as a person does, with no other version."""
    world.store._table.state = replace(world.state, **fields)  # type: ignore[arg-type]


def assert_active(world: World, region: str) -> None:
    """The region is active and steady, and exactly the wanted set runs there."""
    assert (world.state.active_region, world.state.phase, world.state.problems) == (region, Phase.STEADY, ())
    assert world.environments[region].unpaused - {"dr_failover"} == WANTED


def detail(record: FailoverRecord, step: str) -> str:
    return next(each.detail for each in record.steps if each.name == step)


def seconds(record: FailoverRecord, step: str) -> float:
    return sum(each.seconds for each in record.steps if each.name == step)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("value", [MISSPELLED, f" {A}", A.upper(), ""])
def test_a_failover_from_an_unknown_region_is_forced_whatever_was_requested(
    world: World, value: str, mode: Mode
) -> None:
    """It stopped after its claim, and recommended the misspelled region."""
    change(world, active_region=value)
    world.environments[A].calls.clear()
    record = world.fail_over(B, mode=mode)
    assert_active(world, B)
    assert (record.outcome, record.mode, record.source, record.target) == ("completed", Mode.FORCED, A, B)
    assert (world.state.epoch, world.state.previous_region) == (1, A)
    assert world.environments[A].calls == []
    said = detail(record, "take over")
    assert f"active_region of the item ACTIVE_REGION is {value!r}, which is not registered" in said
    assert "it is forced, whatever mode was requested" in said
    assert f"waits for every other registered region: {A}, {C}" in said


def test_the_region_that_was_meant_can_be_named_too(world: World) -> None:
    """Nobody knows that it is the one that executes, so the others are waited for."""
    change(world, active_region=f" {A}")
    record = world.fail_over(A)
    assert_active(world, A)
    assert (record.source, record.target, world.state.epoch) == (A, A, 1)
    assert f"waits for every other registered region: {B}, {C}" in detail(record, "take over")


@pytest.mark.parametrize("silent", [A, C])
def test_every_other_region_counts_as_the_source(world: World, silent: str) -> None:
    """Any of them may execute on an older view: each has acknowledged, or its lease has passed."""
    world.agents[silent].alive = False
    change(world, active_region=MISSPELLED)
    assert seconds(world.fail_over(B), "lease") >= 60


def test_regions_that_have_all_acknowledged_cost_no_lease(world: World) -> None:
    """The control."""
    change(world, active_region=MISSPELLED)
    assert seconds(world.fail_over(B), "lease") < 60


@pytest.mark.parametrize("target", [A, B, C])
@pytest.mark.parametrize("active", [A, B])
@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.PROMOTING, Phase.RESUMING])
def test_a_phase_without_its_plan_is_taken_over_to_any_region(
    world: World, phase: Phase, active: str, target: str
) -> None:
    """To the active region it said "nothing to do", and nothing started in any region."""
    change(world, phase=phase, active_region=active)
    record = world.fail_over(target)
    assert_active(world, target)
    assert (record.outcome, record.mode) == ("completed", Mode.FORCED)
    assert f"is {phase.value} and has no plan" in detail(record, "take over")


@pytest.mark.parametrize("target", [A, B])
def test_the_set_of_the_plan_that_is_gone_counts(world: World, target: str) -> None:
    """Half paused, the source's own list is too short. Runs that the plan stops, and DAGs that it left, are no set."""
    lost = DagSet(id="lost", region=A, recorded_at=world.clock.now(), dag_ids=("dag_01", "dag_02"))
    world.store.put_set(lost)
    for suffix in ("stopped-3", "left-0a1b2c3d"):
        world.clock.advance(1)
        world.store.put_set(replace(lost, id=f"lost-{suffix}", recorded_at=world.clock.now(), dag_ids=("dag_09 r1",)))
    change(world, phase=Phase.PROMOTING)
    record = world.fail_over(target)
    assert world.environments[target].unpaused - {"dr_failover"} == {"dag_01", "dag_02"}
    assert "by the recorded set lost of a plan that is gone" in detail(record, "record")


def test_the_set_of_a_failover_that_has_been_completed_does_not_count(world: World) -> None:
    """Since then people have paused and unpaused; the snapshot knows."""
    world.fail_over(B)
    world.environments[B].flip("dag_01", is_paused=True)
    world.clock.advance(3)
    change(world, active_region=MISSPELLED)
    record = world.fail_over(A)
    assert record.source == B
    assert world.environments[A].unpaused - {"dr_failover"} == WANTED - {"dag_01"}


def test_without_any_record_the_newest_snapshot_tells_who_was_active(world: World) -> None:
    """A set that has never failed over."""
    world.store.put_snapshot(DagSet(id=C, region=C, recorded_at=world.clock.now(), dag_ids=()))
    world.clock.advance(2)
    change(world, active_region=MISSPELLED)
    assert world.fail_over(B).source == A


def test_a_lease_that_cannot_be_used_is_waited_for_as_the_longest(world: World) -> None:
    """A region that is cut off may have any; from promote on the set has one again."""
    world.agents[A].alive = False
    change(world, lease_s=LONGEST_LEASE_S, problems=(LEASE,))
    record = world.fail_over(B, even_if_not_ready=True)
    assert_active(world, B)
    assert seconds(record, "lease") >= LONGEST_LEASE_S
    assert world.state.lease_s == 60


def test_all_acknowledgements_end_the_wait_for_a_lease_that_cannot_be_used(world: World) -> None:
    """Every region holds by then."""
    change(world, lease_s=LONGEST_LEASE_S, problems=(LEASE,))
    assert seconds(world.fail_over(B), "lease") < 60
    assert world.state.lease_s == 60


def test_an_epoch_that_cannot_be_used_refers_to_init(world: World) -> None:
    """No next one is known to be above all before."""
    change(world, problems=(FieldProblem("epoch", "'x'", "a number"),))
    with pytest.raises(WrongPhaseError) as raised:
        world.fail_over(B)
    assert "--above-every-epoch" in raised.value.advice
    assert world.state.plan is None


@pytest.mark.parametrize("step", ["take over", "record", "lease", "promote", "adopt", "unpause"])
@pytest.mark.parametrize("target", [A, B, C])
def test_killed_at_any_step_it_is_finished_or_turned_by_the_next_caller(world: World, step: str, target: str) -> None:
    """The plan says that nobody knows the source; whoever goes on waits for every region as well."""

    def kill(event: StepEvent) -> None:
        if (event.name, event.status) == (step, "done"):
            raise KilledError

    change(world, active_region=MISSPELLED, lease_s=LONGEST_LEASE_S, problems=(LEASE,))
    with pytest.raises(KilledError):
        world.engine("engine-1", kill).run(request(B))
    record = world.fail_over(target, owner="engine-2")
    assert_active(world, target)
    assert record.outcome == "completed"
    assert world.state.lease_s == 60


@pytest.mark.parametrize("broken", [{"problems": (LEASE,)}, {"plan": None}, {"active_region": MISSPELLED}])
@pytest.mark.parametrize("step", ["claim", "promote"])
def test_a_state_that_is_broken_under_a_plan_is_taken_over_by_the_same_command(
    world: World, step: str, broken: dict[str, object]
) -> None:
    """The engine stops, or goes on where the plan says enough; the command that it names finishes."""

    def destroy(event: StepEvent) -> None:
        if (event.name, event.status) == (step, "done"):
            change(world, **broken)

    if (step, broken) == ("claim", {"active_region": MISSPELLED}):
        world.engine("engine-1", destroy).run(request(B))
    else:
        with pytest.raises(FailoverError) as raised:
            world.engine("engine-1", destroy).run(request(B))
        assert f"mwaa-dr failover {B} --reason TEXT" in raised.value.advice
        assert MISSPELLED not in raised.value.advice
        world.fail_over(B, owner="engine-2")
    assert_active(world, B)


def test_no_message_recommends_the_misspelled_region(world: World) -> None:
    """The two ways on are registered regions."""
    change(world, active_region=MISSPELLED)
    world.agents[B].changes = {"adopted_epoch": None}
    with pytest.raises(FailoverError) as raised:
        world.fail_over(B)
    assert f"mwaa-dr failover {B}" in raised.value.advice
    assert f"mwaa-dr failover {A}" in raised.value.advice
    assert MISSPELLED not in raised.value.advice


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"active_region": MISSPELLED}, "is not registered"),
        ({"phase": Phase.PROMOTING}, "is PROMOTING and has no plan"),
        ({"problems": (LEASE,)}, "lease_s is 'nan'"),
    ],
)
def test_a_preview_says_what_is_taken_over_and_changes_nothing(
    world: World, broken: dict[str, object], says: str
) -> None:
    """Also that it will be forced."""
    change(world, **broken)
    before = world.state
    preview = world.engine().preview(request(B, mode=Mode.GRACEFUL))
    assert (preview.action, preview.source, preview.mode) == ("take over", A, Mode.FORCED)
    assert says in (preview.taken_over or "")
    assert preview.wanted == len(WANTED)
    assert world.state is before


def test_a_state_that_can_be_acted_on_is_not_taken_over(world: World) -> None:
    """The control."""
    assert world.engine().preview(request(A)).action == "nothing"
    assert world.engine().preview(request(B)).action == "claim"
