"""
A failover when the state item names no usable active region, or has unusable values: a user has edited it by hand.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.announced_runs import put_announced_runs
from airflow_provider_mwaa_dr.core.failover import FailoverAction, StepEvent
from airflow_provider_mwaa_dr.core.ports import DAG_SETS, SNAPSHOTS, DagSet, FailoverRecord
from airflow_provider_mwaa_dr.core.state import (
    LONGEST_LEASE_S,
    FieldProblem,
    Mode,
    Phase,
    announced_set_id,
    not_unpaused_set_id,
)
from airflow_provider_mwaa_dr.exceptions import FailoverError, WrongPhaseError
from tests.unit.core.dr_set import WANTED, A, B, C, World, request

MISSPELLED = "us-est-2"
LEASE = FieldProblem("lease_s", "'nan'", "a number")


class KilledError(BaseException):
    """Ends an engine immediately, as SIGKILL does."""


@pytest.fixture
def world() -> World:
    return World.build()


def change(world: World, **fields: object) -> None:
    """Change the item as a user does, without a new version."""
    world.store._table.state = replace(world.state, **fields)  # type: ignore[arg-type]


def assert_active(world: World, region: str) -> None:
    """The region is active and STEADY, and exactly the wanted set runs in it."""
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
    """Before the fix, it stopped after its claim, and recommended the misspelled region."""
    change(world, active_region=value)
    world.environments[A].calls.clear()
    record = world.fail_over(B, mode=mode)
    assert_active(world, B)
    assert (record.outcome, record.mode, record.source, record.target) == ("completed", Mode.FORCED, A, B)
    assert (world.state.epoch, world.state.previous_region) == (1, A)
    assert world.environments[A].calls == []
    text = detail(record, "take over")
    assert f"active_region of the item ACTIVE_REGION is {value!r}, which is not registered" in text
    assert "it is forced, regardless of the requested mode" in text
    assert f"waits for every other registered region: {A}, {C}" in text


def test_the_target_can_be_the_region_that_the_misspelled_value_meant(world: World) -> None:
    """It is not known which region executes, so the engine waits for the others."""
    change(world, active_region=f" {A}")
    record = world.fail_over(A)
    assert_active(world, A)
    assert (record.source, record.target, world.state.epoch) == (A, A, 1)
    assert f"waits for every other registered region: {B}, {C}" in detail(record, "take over")


@pytest.mark.parametrize("silent", [A, C])
def test_every_other_region_counts_as_the_source(world: World, silent: str) -> None:
    """Each other region may execute on an older view. Each must acknowledge, or its lease must expire."""
    world.agents[silent].alive = False
    change(world, active_region=MISSPELLED)
    assert seconds(world.fail_over(B), "lease") >= 60


def test_regions_that_have_all_acknowledged_cost_no_lease(world: World) -> None:
    """Control case: no region is silent."""
    change(world, active_region=MISSPELLED)
    assert seconds(world.fail_over(B), "lease") < 60


@pytest.mark.parametrize("target", [A, B, C])
@pytest.mark.parametrize("active", [A, B])
@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.PROMOTING, Phase.RESUMING])
def test_a_phase_without_its_plan_is_recovered_to_any_region(
    world: World, phase: Phase, active: str, target: str
) -> None:
    """Before the fix, a failover to the active region reported "nothing to do", and no region started anything."""
    change(world, phase=phase, active_region=active)
    record = world.fail_over(target)
    assert_active(world, target)
    assert (record.outcome, record.mode) == ("completed", Mode.FORCED)
    assert f"is {phase.value} and has no plan" in detail(record, "take over")


@pytest.mark.parametrize("target", [A, B])
def test_the_set_of_a_lost_plan_counts(world: World, target: str) -> None:
    """
    The source is half paused, so its own list is too short. Lists of stopped runs and of DAGs not unpaused are not the
    set.
    """
    lost = DagSet(id="lost", region=A, recorded_at=world.clock.now(), dag_ids=("dag_01", "dag_02"))
    world.store.put(DAG_SETS, lost)
    others = [announced_set_id("lost", 3, ("dag_09 r1",), had_ended=had_ended) for had_ended in (False, True)]
    for set_id in others:
        world.clock.advance(1)
        put_announced_runs(world.store, set_id, ["dag_09 r1"], region=A, at=world.clock.now())
    world.clock.advance(1)
    left = not_unpaused_set_id("lost", ("dag_09",))
    world.store.put(DAG_SETS, replace(lost, id=left, recorded_at=world.clock.now(), dag_ids=("dag_09",)))
    change(world, phase=Phase.PROMOTING)
    assert world.engine().preview(request(target)).wanted == 2
    record = world.fail_over(target)
    assert world.environments[target].unpaused - {"dr_failover"} == {"dag_01", "dag_02"}
    assert "from the set lost of a lost plan" in detail(record, "record")


def test_the_set_of_a_failover_that_has_been_completed_does_not_count(world: World) -> None:
    """Users have paused and unpaused DAGs since then. The snapshot has these changes."""
    world.fail_over(B)
    world.environments[B].flip("dag_01", is_paused=True)
    world.clock.advance(3)
    change(world, active_region=MISSPELLED)
    record = world.fail_over(A)
    assert record.source == B
    assert world.environments[A].unpaused - {"dr_failover"} == WANTED - {"dag_01"}


def test_without_any_record_the_newest_snapshot_shows_which_region_was_active(world: World) -> None:
    """A DR set that has never failed over."""
    world.store.put(SNAPSHOTS, DagSet(id=C, region=C, recorded_at=world.clock.now(), dag_ids=()))
    world.clock.advance(2)
    change(world, active_region=MISSPELLED)
    assert world.fail_over(B).source == A


def test_without_record_and_snapshot_any_other_region_counts_as_the_active_one(world: World) -> None:
    """The plan needs a source. It waits for every region besides the target anyway."""
    for agent in world.agents.values():
        agent.alive = False
    for region in (A, B, C):
        if (snapshot := world.store.get(SNAPSHOTS, region)) is not None:
            world.store.delete(SNAPSHOTS, snapshot)
    change(world, active_region=MISSPELLED)
    preview = world.engine().preview(request(A))
    assert (preview.action, preview.source) == (FailoverAction.RECOVER, B)


def test_an_unusable_lease_is_waited_for_as_the_longest_lease(world: World) -> None:
    """A region that is cut off may use any lease. From the promotion on, the state has a valid lease again."""
    world.agents[A].alive = False
    change(world, lease_s=LONGEST_LEASE_S, problems=(LEASE,))
    record = world.fail_over(B, even_if_not_ready=True)
    assert_active(world, B)
    assert seconds(record, "lease") >= LONGEST_LEASE_S
    assert world.state.lease_s == 60


def test_all_acknowledgements_end_the_wait_for_a_lease_that_cannot_be_used(world: World) -> None:
    """After all of them, every region holds."""
    change(world, lease_s=LONGEST_LEASE_S, problems=(LEASE,))
    assert seconds(world.fail_over(B), "lease") < 60
    assert world.state.lease_s == 60


def test_an_epoch_that_cannot_be_used_refers_to_init(world: World) -> None:
    """No other epoch is known to be above all earlier ones."""
    change(world, problems=(FieldProblem("epoch", "'x'", "a number"),))
    with pytest.raises(WrongPhaseError) as raised:
        world.fail_over(B)
    assert "--above-every-epoch" in raised.value.advice
    assert world.state.plan is None


@pytest.mark.parametrize("step", ["take over", "record", "lease", "promote", "adopt", "unpause"])
@pytest.mark.parametrize("target", [A, B, C])
def test_a_takeover_killed_at_any_step_is_finished_or_turned_by_the_next_caller(
    world: World, step: str, target: str
) -> None:
    """The plan records that the source is unknown, so the next engine waits for every region, too."""

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
def test_a_state_that_is_broken_under_a_plan_is_recovered_by_the_same_command(
    world: World, step: str, broken: dict[str, object]
) -> None:
    """
    The engine stops, or continues if the plan has enough information. The command that its error names finishes the
    plan.
    """

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
    """Both recommended commands name registered regions."""
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
def test_a_preview_names_what_is_recovered_and_changes_nothing(
    world: World, broken: dict[str, object], says: str
) -> None:
    """It also shows that the failover will be forced."""
    change(world, **broken)
    before = world.state
    preview = world.engine().preview(request(B, mode=Mode.GRACEFUL))
    assert (preview.action, preview.source, preview.mode) == (FailoverAction.RECOVER, A, Mode.FORCED)
    assert says in (preview.why_recovery or "")
    assert preview.wanted == len(WANTED)
    assert world.state is before


def test_a_usable_state_is_not_recovered(world: World) -> None:
    """Control case."""
    assert world.engine().preview(request(A)).action == "nothing"
    assert world.engine().preview(request(B)).action == "claim"
