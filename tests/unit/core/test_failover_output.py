"""A failover does not depend on its output: after the claim, no callback and no history record can stop it."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.agent.hold_alarm import HoldAlarm
from airflow_provider_mwaa_dr.agent.plan_finisher import PlanFinisher
from airflow_provider_mwaa_dr.core.failover import StepEvent
from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, MwaaAccessError, MwaaRequestError, StateAccessError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
from tests.histories import RegionDags
from tests.unit.core.dr_set import TIMING, WANTED, A, B, World, request

ERRORS = (
    StateAccessError("not the right to do this"),
    KeyError("from"),
    ValueError("'swift' is not a valid Mode"),
    OSError(28, "No space left on device"),
)
HISTORY = ("get record", "put record", "find_all record")


@pytest.fixture
def world() -> World:
    return World.build()


def without_history(world: World, error: Exception, *methods: str) -> InMemoryStateStore:
    store = world.store.peer()
    store.failing = dict.fromkeys(methods or HISTORY, error)
    return store


def assert_moved(world: World, *, to: str = B, epoch: int = 1, missing: frozenset[str] = frozenset()) -> None:
    assert (world.state.active_region, world.state.epoch, world.state.phase) == (to, epoch, Phase.STEADY)
    for region, environment in world.environments.items():
        assert environment.unpaused - {"dr_failover"} == (WANTED - missing if region == to else frozenset())


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), RuntimeError("a bug in a handler")], ids=repr)
def test_a_callback_that_raises_stops_nothing(error: Exception) -> None:
    """The callback raises from any event on: closed output, a full disk under a log, or a bug in a handler."""
    control = World.build()
    control.fail_over()
    for before in range(len(control.events)):
        world = World.build()
        events: list[StepEvent] = []

        def on_step(event: StepEvent, events: list[StepEvent] = events, before: int = before) -> None:
            events.append(event)
            if len(events) > before:
                raise error

        record = world.engine(on_step=on_step).run(request())
        assert len(events) == len(control.events)
        assert record.outcome == "completed"
        assert_moved(world)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("methods", [HISTORY, *((method,) for method in HISTORY)], ids="+".join)
def test_a_history_that_cannot_be_kept_stops_nothing(world: World, error: Exception, methods: tuple[str, ...]) -> None:
    """The failover completes, and states that its record may be missing."""
    record = world.engine(store=without_history(world, error, *methods)).run(request())
    assert record.outcome == "completed"
    assert_moved(world)
    if "put record" in methods:
        detail = next(step.detail for step in record.steps if step.name == "complete")
        assert "mwaa-dr history may not contain this failover" in detail
        assert type(error).__name__ in detail


def test_what_could_not_be_unpaused_stays_wanted_without_any_record(world: World) -> None:
    """The state item names the set of these DAGs, so the engine needs neither to write nor to read a record."""
    error = StateAccessError("no right to write FAILOVER# items")
    world.environments[B].remove_dag("dag_02")
    record = world.engine(store=without_history(world, error)).run(request())
    assert record.not_unpaused == ("dag_02",)
    assert_moved(world, missing=frozenset({"dag_02"}))
    world.environments[B].add_dag("dag_02", is_paused=True)
    world.clock.advance(3)
    world.engine("second", store=without_history(world, error)).run(request(A))
    assert_moved(world, to=A, epoch=2)


def test_a_plan_cancelled_before_it_recorded_a_set_keeps_what_was_not_unpaused(world: World) -> None:
    """The cancelled plan keeps the DAGs that the failover before it could not unpause."""
    error = StateAccessError("no right to write FAILOVER# items")
    world.environments[B].remove_dag("dag_02")
    world.engine(store=without_history(world, error)).run(request())
    left = world.state.not_unpaused_set_id

    def die(event: StepEvent) -> None:
        if (event.name, event.status) == ("record", "started"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.engine("killed", die, store=without_history(world, error)).run(request(A))
    record = world.engine("second", store=without_history(world, error)).run(request(B))
    assert record.not_unpaused == ("dag_02",)
    assert left
    assert world.state.not_unpaused_set_id == left


def test_a_state_of_an_older_version_gets_what_was_not_unpaused_from_the_record(world: World) -> None:
    """
    An older version wrote no such field to the state item, so the record of the last failover to the region counts.
    """
    world.environments[B].remove_dag("dag_02")
    world.fail_over()
    state = world.state
    world.store.write(
        type(state)(
            **{name: getattr(state, name) for name in state.__slots__} | {"not_unpaused_set_id": None, "version": 99}
        ),
        expected_version=state.version,
    )
    world.clock.advance(3)
    world.environments[B].add_dag("dag_02", is_paused=True)
    world.fail_over(A, owner="second")
    assert_moved(world, to=A, epoch=2)


def test_a_failover_reports_what_an_unreadable_record_hides(world: World) -> None:
    """
    A state of an older version, and its records cannot be read. The failover continues, and its step names what is
    lost.
    """
    record = world.engine(store=without_history(world, KeyError("from"))).run(request())
    detail = next(step.detail for step in record.steps if step.name == "record")
    assert f"without the DAGs that the last failover to {A} could not unpause" in detail
    assert "KeyError" in detail


@pytest.mark.parametrize(
    "error",
    [
        MwaaAccessError("no right to trigger"),
        MwaaRequestError("Airflow answered 500", status=500),
        KeyError("state"),
        OSError(28, "No space left on device"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["trigger", "run_state"])
def test_a_first_run_that_cannot_be_tried_stops_nothing(world: World, method: str, error: Exception) -> None:
    """The role has moved, and the set is unpaused. Only the proof by a first run is missing."""

    def fail(*_: object, **__: object) -> None:
        raise error

    for region in (A, B):
        world.environments[region].add_dag("dr_test_dag", is_paused=region == B)
    world.clock.advance(2)
    setattr(world.environments[B], method, fail)
    record = world.fail_over()
    assert record.outcome == "completed"
    assert "no first run: " + type(error).__name__ in next(s.detail for s in record.steps if s.name == "verify")


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_agent_finishes_a_plan_without_a_history(world: World, error: Exception) -> None:
    """The owner was killed after promote. The agent ends the plan, and logs what it cannot record."""
    world.environments[B].remove_dag("dag_02")

    def die(event: StepEvent) -> None:
        if (event.name, event.status) == ("unpause", "started"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.engine("killed", die).run(request())
    finisher = PlanFinisher(
        without_history(world, error),
        RegionDags(world.environments[B]),
        world.clock,
        region=B,
        owner="agent",
        takeover_s=TIMING.takeover_s,
        alarm=HoldAlarm(world.clock),
    )
    for _ in range(100):
        finisher.turn(world.state)
        world.clock.advance(1)
    assert_moved(world, missing=frozenset({"dag_02"}))
    world.environments[B].add_dag("dag_02", is_paused=True)
    world.engine("second", store=without_history(world, error)).run(request(A))
    assert_moved(world, to=A, epoch=2)


def test_another_caller_follows_a_plan_that_has_no_record(world: World) -> None:
    """It reads in the state item that the role is in the requested region, and raises AlreadyActiveError."""
    error, records = OSError(5, "Input/output error"), []

    def second_caller(event: StepEvent) -> None:
        if (event.name, event.status) == ("complete", "started"):
            records.append(world.engine("second", store=without_history(world, error)).run(request()))

    with pytest.raises(AlreadyActiveError, match="ended while this caller followed it"):
        world.engine("first", second_caller, store=without_history(world, error)).run(request())
    assert records[0].outcome == "completed"
    assert_moved(world)
