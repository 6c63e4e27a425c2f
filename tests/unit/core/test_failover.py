"""The engine with fakes: which steps it takes, in which order, and what remains when it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.announced_runs import get_announced_runs
from airflow_provider_mwaa_dr.core.failover import FailoverEngine, StepEvent, StepStatus
from airflow_provider_mwaa_dr.core.failover.table import plan_of
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    RECORDS,
    SNAPSHOTS,
    DagInfo,
    DagSet,
    EnvironmentStatus,
    FailoverOutcome,
    FailoverRecord,
    RunInfo,
)
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase
from airflow_provider_mwaa_dr.exceptions import (
    AlreadyActiveError,
    ConfigError,
    DrainTimeoutError,
    DRError,
    FailoverError,
    IncompleteError,
    MwaaUnreachableError,
    NotReadyError,
    PlanSupersededError,
    StateAccessError,
    StateUnreachableError,
)
from tests.unit.core.dr_set import TIMING, WANTED, A, Agent, B, C, World, request


class KilledError(BaseException):
    """Ends an engine immediately, as SIGKILL does."""


@pytest.fixture
def world() -> World:
    return World.build()


def assert_active(world: World, region: str, *, epoch: int) -> None:
    """One region is active and STEADY. Exactly the wanted set is unpaused in it, and nothing in the other regions."""
    assert (world.state.active_region, world.state.epoch, world.state.phase) == (region, epoch, Phase.STEADY)
    for other, environment in world.environments.items():
        assert environment.unpaused - {"dr_failover"} == (WANTED if other == region else frozenset())
        assert "dr_failover" in environment.unpaused


def steps(record: FailoverRecord) -> list[str]:
    return [step.name for step in record.steps]


def test_a_graceful_failover_moves_the_role_and_exactly_the_wanted_set(world: World) -> None:
    """All steps come in the designed order. DAGs that users paused stay paused, and the exempt DAG is never changed."""
    record = world.fail_over()

    assert_active(world, B, epoch=1)
    assert steps(record) == [
        "check", "claim", "record", "drain", "pause", "ledger", "lease", "promote", "adopt", "unpause", "verify",
        "complete",
    ]  # fmt: skip
    assert (record.outcome, record.mode, record.source, record.target) == ("completed", Mode.GRACEFUL, A, B)
    assert (record.epoch, record.not_unpaused) == (1, ())
    for environment in world.environments.values():
        assert not any("dr_failover" in str(call[1:]) for call in environment.calls)


def test_a_failover_waits_for_the_ledger_of_agents_that_published_nothing_yet(world: World) -> None:
    """
    Agents without a published run still have a ledger, so their region still has to publish its final ledger entry.
    """
    world.agents[A].changes = {"has_ledger": True, "ledger_lag_s": None}
    record = world.fail_over()
    details = next(step.detail for step in record.steps if step.name == "ledger")
    assert details.startswith(f"{A} did not publish its final ledger entry")


def test_the_final_entry_of_the_ledger_ends_the_wait_for_it(world: World) -> None:
    """One agent of the region publishes it, for this plan. The target then repeats no ended run."""
    world.agents[A].changes = {"has_ledger": True, "final_plan_id": "an earlier plan"}

    def publish(event: StepEvent) -> None:
        if (event.name, event.status) == ("ledger", StepStatus.STARTED):
            assert world.state.plan is not None
            world.agents[A].changes["final_plan_id"] = world.state.plan.id

    record = world.engine(on_step=publish).run(request())
    assert next(step.detail for step in record.steps if step.name == "ledger") == f"the ledger of {A} is complete"


def test_the_target_gets_the_time_for_its_ledger_that_its_agent_announces(world: World) -> None:
    """It may be longer than the usual time to prepare the database. The progress shows the ledger's error."""
    waits = {"adopted_epoch": None, "ledger_wait_s": 300.0, "ledger_error": "Access denied"}

    def wait(event: StepEvent) -> None:
        world.events.append(event)
        if (event.name, event.status) == ("promote", StepStatus.STARTED):
            world.agents[B].changes.update(waits)
            world.clock.after(3 * TIMING.adopt_s, world.agents[B].changes.clear)

    record = world.engine(on_step=wait).run(request())
    assert_active(world, B, epoch=1)
    assert next(step.seconds for step in record.steps if step.name == "adopt") > 2 * TIMING.adopt_s
    shown = "its ledger, which cannot be used: Access denied"
    assert any(event.name == "adopt" and shown in event.detail for event in world.events)


def test_a_failback_restores_the_same_set(world: World) -> None:
    """A failback is a failover: same engine, same set."""
    world.fail_over(B)
    world.fail_over(A)
    assert_active(world, A, epoch=2)
    assert [record.target for record in world.store.find_all(RECORDS)] == [A, B]


def test_nothing_is_paused_before_all_runs_in_flight_have_ended(world: World) -> None:
    """A running run of a paused DAG does not continue. If the engine paused first, the drain would never end."""
    world.environments[A].add_run("dag_01", "r1", seconds=20)
    record = world.fail_over()
    assert world.environments[A].run_state("dag_01", "r1") == "success"
    calls = [call[0] for call in world.environments[A].calls]
    assert "running_runs" in calls[: calls.index("set_paused")]
    assert next(step.seconds for step in record.steps if step.name == "drain") >= 17


def test_a_run_that_outlasts_the_drain_abandons_the_failover(world: World) -> None:
    """The role stays, no DAG is paused, the source is STEADY again, and the error names the run."""
    world.environments[A].add_run("dag_01", "r1", seconds=600)
    with pytest.raises(DrainTimeoutError, match="dag_01 r1") as caught:
        world.fail_over()
    assert caught.value.runs == ("dag_01 r1",)
    assert caught.value.record.outcome == "aborted"
    assert_active(world, A, epoch=0)
    assert world.environments[A].run_state("dag_01", "r1") == "running"
    assert not any(call[0] == "set_paused" and call[2] for call in world.environments[A].calls)


def test_stop_running_stops_the_runs_and_waits_until_no_task_executes(world: World) -> None:
    """A stop takes seconds to reach the task. A promotion before that would execute the interval twice."""
    world.environments[A].add_run("dag_01", "r1", seconds=600)
    ended: list[float] = []
    engine = world.engine(
        on_step=lambda event: (
            ended.append(len(world.environments[A].running_tasks()))
            if (event.name, event.status) == ("promote", "started")
            else None
        )
    )
    record = engine.run(request(stop_running=True))
    assert ended == [0]
    assert world.environments[A].run_state("dag_01", "r1") == "failed"
    assert "stopped dag_01 r1" in next(step.detail for step in record.steps if step.name == "drain")
    assert_active(world, B, epoch=1)


def test_a_stopped_run_that_still_executes_stops_the_failover_before_its_promotion(world: World) -> None:
    """The interval would execute twice. The same command continues after the task has ended."""
    world.environments[A].add_run("dag_01", "r1", seconds=600)
    world.environments[A].stop_lag_s = TIMING.stop_s + 60
    with pytest.raises(FailoverError, match=f"Stopped runs of {A} still execute after .* s: dag_01 r1"):
        world.fail_over(stop_running=True)
    assert (world.state.epoch, world.state.phase) == (0, Phase.DRAINING)
    world.clock.advance(120)
    world.fail_over(stop_running=True)
    assert_active(world, B, epoch=1)


def test_dags_that_a_process_unpauses_as_soon_as_they_are_paused_stop_the_failover(world: World) -> None:
    """The source would start their runs beside the target. The error names them."""
    source = world.environments[A]
    change = source.set_paused

    def unpaused_again(dag_ids: Collection[str], *, paused: bool, **rest: Any) -> Sequence[str]:
        changed = change(dag_ids, paused=paused, **rest)
        world.clock.advance(TIMING.stop_s / 4)
        source.flip("dag_01", is_paused=False)
        return changed

    source.set_paused = unpaused_again  # type: ignore[method-assign]
    with pytest.raises(FailoverError, match=f"DAGs of {A} are unpaused again .*: dag_01"):
        world.fail_over()
    assert (world.state.epoch, world.state.phase) == (0, Phase.DRAINING)


def test_a_state_that_changes_right_before_the_claim_is_read_and_decided_again(world: World) -> None:
    """The plan leaves the region that is active when it is written, not the one that the caller read before."""
    store = world.store.peer()

    def move_first(_: DRState) -> None:
        store.before_write = None
        moved = transitions.set_active_region(world.state, C, reason="by hand", by="bob", at=world.clock.now())
        world.store.write(moved, expected_version=moved.version - 1)

    store.before_write = move_first
    record = world.engine(store=store).run(request())
    assert (record.source, record.target, record.outcome) == (C, B, "completed")
    assert (world.state.active_region, world.state.epoch) == (B, 2)


def test_the_next_engine_waits_for_the_tasks_of_a_run_that_a_killed_engine_stopped(world: World) -> None:
    """The run is marked as failed, so no run is in flight. But its task executes for some more seconds."""
    source = world.environments[A]
    source.stop_lag_s = 60
    source.add_run("dag_01", "r1", seconds=600)
    stop_run = source.stop_run

    def stop_and_die(run: RunInfo) -> bool:
        stop_run(run)
        raise KilledError

    source.stop_run = stop_and_die  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        world.fail_over(owner="killed", stop_running=True)
    source.stop_run = stop_run  # type: ignore[method-assign]
    executing: list[int] = []

    def see(event: StepEvent) -> None:
        if (event.name, event.status) in {("pause", "started"), ("promote", "started")}:
            executing.append(len(source.running_tasks()))

    world.engine("second", see).run(request(stop_running=True))
    assert executing == [0, 0]
    assert_active(world, B, epoch=1)


def announcements(world: World) -> list[tuple[tuple[str, ...], bool]]:
    """Return the announced runs, in order, and for each announcement whether the runs had ended before the stop."""
    found = []
    for stop in world.state.stops:
        runs = get_announced_runs(world.store, stop.set_id)
        assert runs is not None
        found.append((runs, stop.had_ended))
    return found


def kill_at_the_ledger_step(world: World) -> None:
    """Kill the next failover after it has drained its source. At this point the state item has its announcements."""
    for agent in world.agents.values():
        agent.changes["has_ledger"] = True

    def die(event: StepEvent) -> None:
        if (event.name, event.status) == ("pause", "done"):
            raise KilledError

    with pytest.raises(KilledError):
        world.engine("dies", die).run(request(stop_running=True))


def test_a_run_that_ends_before_the_call_that_stops_it_is_announced_as_ended(world: World) -> None:
    """Without that, the ledger would publish the run as interrupted, and the target would execute it again."""
    source = world.environments[A]
    source.add_run("dag_01", "r1", seconds=600)
    source.add_run("dag_02", "r2", seconds=600)
    stop_run = source.stop_run

    def end_first(run: RunInfo) -> bool:
        if run.run_id == "r1":
            source._runs["dag_01", "r1"].state = "failed"
        return stop_run(run)

    source.stop_run = end_first  # type: ignore[method-assign]
    kill_at_the_ledger_step(world)
    assert announcements(world) == [(("dag_01 r1", "dag_02 r2"), False), (("dag_01 r1",), True)]


def test_a_run_whose_stop_got_no_response_is_not_announced_as_ended(world: World) -> None:
    """The first call may have stopped the run although its response was lost. The second call finds the run ended."""
    source = world.environments[A]
    source.add_run("dag_01", "r1", seconds=600)
    stop_run, calls = source.stop_run, 0

    def lose_the_first_response(run: RunInfo) -> bool:
        nonlocal calls
        calls += 1
        was_open = stop_run(run)
        if calls == 1:
            raise MwaaUnreachableError("Its answer was lost.")
        return was_open

    source.stop_run = lose_the_first_response  # type: ignore[method-assign]
    kill_at_the_ledger_step(world)
    assert calls == 2
    assert announcements(world) == [(("dag_01 r1",), False)]


def test_a_run_that_another_engine_was_stopping_is_not_announced_as_ended(world: World) -> None:
    """The other engine may have stopped the run, and was killed before it could announce that."""
    source = world.environments[A]
    source.stop_lag_s = 60
    source.add_run("dag_01", "r1", seconds=600)
    stop_run = source.stop_run

    def stop_and_die(run: RunInfo) -> bool:
        stop_run(run)
        raise KilledError

    source.stop_run = stop_and_die  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        world.fail_over(owner="killed", stop_running=True)
    source.stop_run = stop_run  # type: ignore[method-assign]
    kill_at_the_ledger_step(world)
    assert {had_ended for _, had_ended in announcements(world)} == {False}


def test_the_drain_does_not_wait_for_a_run_of_an_exempt_dag(world: World) -> None:
    """The failover DAG itself may be running while the engine drains the source."""
    world.environments[A].add_run("dr_failover", "me")
    world.fail_over()
    assert_active(world, B, epoch=1)


def test_the_drain_does_not_wait_for_an_exempt_dag_that_is_deployed_meanwhile(world: World) -> None:
    """The DAG was not in the list that the engine read when the drain began."""
    source = world.environments[A]
    source.add_run("dag_01", "r1", seconds=3)

    def deploy(event: StepEvent) -> None:
        if (event.name, event.status) == ("drain", "progress") and "in progress: " in event.detail:
            source.add_dag("late", tags=["dr:control"])
            source.add_run("late", "r2")

    record = world.engine(on_step=deploy).run(request())
    assert record.outcome == "completed"
    assert source.run_state("late", "r2") == "running"


def test_the_drain_waits_for_every_scheduler(world: World) -> None:
    """A scheduler that has not read the claim may still start a run. The region's own database lists its schedulers."""
    world.agents[A].alive = False
    agents = Agent(world, A, "1", "2")
    status = next(agent for agent in world.store.agents(A) if agent.job == "2")
    version = status.version

    def only_one_listens() -> None:
        for job in ("1", "2"):
            current = next(agent for agent in world.store.agents(A) if agent.job == job)
            if job == "2" and world.clock.monotonic() < 32:
                world.store.peer().put_agent(replace(current, version=version))
        world.clock.after(0.25, only_one_listens)

    only_one_listens()
    record = world.fail_over()
    assert agents.alive
    assert next(step.seconds for step in record.steps if step.name == "drain") >= 25
    assert_active(world, B, epoch=1)


def test_the_drain_of_a_source_with_silent_agents_takes_the_whole_lease(world: World) -> None:
    """
    The source's API answers, so the failover stays graceful. But no agent has acknowledged that the gate is closed.
    """
    world.agents[A].alive = False
    before = world.clock.monotonic()
    record = world.fail_over()
    assert world.clock.monotonic() - before >= 66
    assert "not acknowledged" in next(step.detail for step in record.steps if step.name == "drain")
    assert_active(world, B, epoch=1)


def test_a_forced_failover_never_calls_the_source_and_waits_for_its_lease(world: World) -> None:
    """
    The source is dead. Its last snapshot replaces the list of its DAGs, and the lease replaces its acknowledgement.
    """
    world.agents[A].alive = False
    world.environments[A].unreachable = True
    world.environments[A].calls.clear()
    before = world.clock.monotonic()
    record = world.fail_over(mode=Mode.FORCED)
    assert world.environments[A].calls == []
    assert next(step.seconds for step in record.steps if step.name == "lease") >= 66 - 2
    assert world.clock.monotonic() - before < 100
    assert record.mode is Mode.FORCED
    assert (world.state.active_region, world.state.phase) == (B, Phase.STEADY)
    assert world.environments[B].unpaused - {"dr_failover"} == WANTED


def test_an_auto_failover_of_a_dead_source_turns_forced_by_a_state_write(world: World) -> None:
    """
    The lease counts from that write, not from the claim: until the write, the source was allowed to finish its runs.
    """
    world.agents[A].alive = False
    world.environments[A].unreachable = True
    record = world.fail_over()
    names = steps(record)
    assert names.index("force") < names.index("lease")
    assert next(step.seconds for step in record.steps if step.name == "lease") >= 66 - 2
    assert record.mode is Mode.FORCED
    assert world.state.active_region == B


def test_a_graceful_failover_of_a_dead_source_is_refused(world: World) -> None:
    """A caller that requests GRACEFUL does not get a forced failover."""
    world.environments[A].unreachable = True
    before = world.state
    with pytest.raises(NotReadyError, match="--mode forced"):
        world.fail_over(mode=Mode.GRACEFUL)
    assert world.state == before


def test_a_failover_to_the_active_region_raises_already_active(world: World) -> None:
    """The state does not change."""
    before = world.state
    with pytest.raises(AlreadyActiveError):
        world.fail_over(A)
    assert world.state == before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda w: setattr(w.environments[B], "reported_status", EnvironmentStatus.UPDATING), "is UPDATING"),
        (lambda w: setattr(w.environments[B], "scheduler_healthy", False), "scheduler is not healthy"),
        (lambda w: setattr(w.environments[B], "unreachable", True), "did not answer"),
        (lambda w: setattr(w.agents[B], "alive", False), "no agent is alive"),
        (lambda w: w.agents[B].changes.update(fence_ok=False), "without the fence"),
        (lambda w: w.agents[B].changes.update(schedulers=("1", "9")), "without an agent in us-east-1: job 9"),
    ],
)
def test_a_target_that_is_not_ready_is_refused_and_nothing_changes(
    world: World, spoil: Callable[[World], object], words: str
) -> None:
    """The error names each reason, nothing is written, and the source continues."""
    spoil(world)
    before = world.state
    with pytest.raises(NotReadyError, match=words):
        world.fail_over()
    assert world.state == before
    assert world.store.find_all(RECORDS) == []


@pytest.mark.parametrize("mode", list(Mode))
def test_open_runs_in_a_standby_do_not_refuse_a_failover(world: World, mode: Mode) -> None:
    """
    Users unpaused DAGs in the standby, so its agent is always closing a run. Promotion closes the rest. The step names
    them.
    """
    world.agents[B].changes.update(unclosed_runs=5)
    record = world.fail_over(mode=mode)
    assert f"5 open runs in {B} are not closed yet" in record.steps[0].detail
    assert (record.outcome, world.state.active_region, world.state.phase) == ("completed", B, Phase.STEADY)


def test_even_if_not_ready_continues(world: World) -> None:
    """The user may know more than the checks."""
    world.agents[B].changes.update(fence_ok=False)
    record = world.fail_over(even_if_not_ready=True)
    assert "without the fence" in record.steps[0].detail
    assert_active(world, B, epoch=1)


@pytest.mark.parametrize(("target", "reason"), [("mars-1", "why"), (B, "  \n")])
def test_wrong_usage_changes_nothing(world: World, target: str, reason: str) -> None:
    """An unknown region and an empty reason are refused before the engine reads the state."""
    before = world.state
    with pytest.raises(ConfigError):
        world.fail_over(target, reason=reason)
    assert world.state == before


ALL_STEPS = [
    "claim",
    "record",
    "drain",
    "pause",
    "ledger",
    "lease",
    "promote",
    "adopt",
    "unpause",
    "verify",
    "complete",
]
OF_THE_SOURCE = {"drain", "pause", "ledger"}
STEPS_OF = {Mode.GRACEFUL: ALL_STEPS, Mode.FORCED: [step for step in ALL_STEPS if step not in OF_THE_SOURCE]}


def killing(step: str, status: str = "done") -> Callable[[StepEvent], None]:
    def on_step(event: StepEvent) -> None:
        if (event.name, event.status) == (step, status):
            raise KilledError

    return on_step


def kill_after(world: World, step: str, status: str = "done", **changes: object) -> None:
    with pytest.raises(KilledError):
        world.engine("killed", killing(step, status)).run(request(B, **changes))


@pytest.mark.parametrize("status", ["started", "done"])
@pytest.mark.parametrize(
    ("mode", "step"),
    [(mode, step) for mode in (Mode.GRACEFUL, Mode.FORCED) for step in STEPS_OF[mode]],
)
def test_a_failover_killed_at_any_step_is_finished_by_the_next_call(
    world: World, step: str, status: str, mode: Mode
) -> None:
    """
    The state item has the plan. Another process continues when the owner's beat is too old, with the set as first
    recorded.
    """
    if mode is Mode.FORCED:
        world.agents[A].alive = False
    kill_after(world, step, status, mode=mode)
    world.agents[A].alive = True
    try:
        world.fail_over(owner="engine-2")
    except AlreadyActiveError:
        assert (step, status) == ("complete", "done")
    assert (world.state.active_region, world.state.epoch, world.state.phase) == (B, 1, Phase.STEADY)
    assert world.environments[B].unpaused - {"dr_failover"} == WANTED


@pytest.mark.parametrize("step", ["claim", "record", "drain", "pause", "ledger", "lease"])
def test_a_failover_killed_before_promote_is_undone_by_naming_the_active_region(world: World, step: str) -> None:
    """All DAGs that the engine paused are unpaused again, and the epoch is unchanged."""
    kill_after(world, step)
    world.fail_over(A, owner="engine-2")
    assert_active(world, A, epoch=0)
    outcomes = {record.target: record.outcome for record in world.store.find_all(RECORDS)}
    assert outcomes == {B: "aborted", A: "completed"}


@pytest.mark.parametrize("step", ["promote", "adopt", "unpause"])
def test_a_failover_killed_after_promote_fails_back_by_naming_the_old_region(world: World, step: str) -> None:
    """After promote, the way back is a failover. It uses the set of the plan that it replaces."""
    kill_after(world, step)
    world.fail_over(A, owner="engine-2")
    assert_active(world, A, epoch=2)


def test_a_failover_leaves_a_target_that_died_right_after_promote(world: World) -> None:
    """The old plan can never finish. The role moves back without it."""
    kill_after(world, "promote")
    world.agents[B].alive = False
    world.environments[B].unreachable = True
    world.fail_over(A, owner="engine-2")
    assert (world.state.active_region, world.state.epoch, world.state.phase) == (A, 2, Phase.STEADY)
    assert world.environments[A].unpaused - {"dr_failover"} == WANTED


def test_cancelling_a_superseding_plan_continues_the_plan_that_it_replaced(world: World) -> None:
    """The region that the first plan promoted still has to be prepared and to get its set."""
    kill_after(world, "promote")

    def on_step(event: StepEvent) -> None:
        if (event.name, event.status) == ("supersede", "done"):
            raise KilledError

    with pytest.raises(KilledError):
        world.engine("second", on_step).run(request(A))
    world.fail_over(B, owner="third")
    assert_active(world, B, epoch=1)


def test_a_suspended_engine_is_replaced_and_gets_the_outcome(world: World) -> None:
    """
    It was suspended for longer than its beat allows. The second caller finishes; the first follows and changes nothing.
    """
    world.environments[A].add_run("dag_01", "r1", seconds=20)
    records: list[FailoverRecord] = []
    # The sleep of the first engine returns only after the second is done, as if the first process was suspended.
    world.clock.after(5, lambda: records.append(world.fail_over(owner="second")))
    records.append(world.fail_over(owner="first"))
    assert_active(world, B, epoch=1)
    assert len(world.store.find_all(RECORDS)) == 1
    assert records[0] == records[1] == world.store.find_all(RECORDS)[0]
    assert records[0].outcome == "completed"
    assert "first was silent" in next(step.detail for step in records[0].steps if step.name == "join")


def test_a_superseded_engine_stops_acting(world: World) -> None:
    """A later caller with another target supersedes the plan. The first engine notices this before its next action."""
    world.environments[A].add_run("dag_01", "r1", seconds=20)
    world.clock.after(5, lambda: world.fail_over(C, owner="later"))
    with pytest.raises(PlanSupersededError):
        world.fail_over(B)
    assert_active(world, C, epoch=1)
    assert [record.outcome for record in world.store.find_all(RECORDS)] == ["completed", "aborted"]


@pytest.mark.parametrize("changed", [{"target": C}, {"source": C}], ids=str)
def test_an_engine_stops_if_its_plan_gets_other_regions(world: World, changed: dict[str, str]) -> None:
    """A role that may only finish failovers can write the plan. It must not choose the region that becomes active."""

    def alter(event: StepEvent) -> None:
        if (event.name, event.status) == ("lease", StepStatus.STARTED):
            state = world.state
            plan = replace(plan_of(state), **changed)
            altered = replace(state, plan=plan, version=state.version + 1)
            world.store.peer().write(altered, expected_version=state.version)

    with pytest.raises(FailoverError, match=r"was altered in the state table.* from us-east-2 to us-east-1, and now"):
        world.engine("first", alter).run(request())
    assert (world.state.active_region, world.state.epoch) == (A, 0)


def test_cancelling_two_unpromoted_plans_keeps_the_active_region(world: World) -> None:
    """
    Neither plan had promoted. A caller that names the active region gets it, and not a failover to a third region.
    """
    kill_after(world, "drain")
    with pytest.raises(KilledError):
        world.engine("second", killing("supersede")).run(request(C))
    world.fail_over(A, owner="third")
    assert_active(world, A, epoch=0)


def test_a_dag_that_could_not_be_unpaused_runs_again_after_the_failback(world: World) -> None:
    """No user paused this DAG, so it stays in the set, as a DAG does that the target lacks."""
    world.environments[B].stubborn.add("dag_02")
    assert world.fail_over(B).not_unpaused == ("dag_02",)
    world.environments[B].stubborn.clear()
    world.fail_over(A)
    assert_active(world, A, epoch=2)


def test_an_unwanted_dag_that_cannot_be_paused_is_named_and_stops_no_failover(world: World) -> None:
    """Otherwise the failover would stop at this DAG every time that it is repeated."""
    world.environments[B].flip("dag_03", is_paused=False)
    world.environments[B].stubborn.add("dag_03")
    world.clock.after(2, lambda: world.environments[B].flip("dag_03", is_paused=False))
    world.agents[B].pauses = False
    record = world.fail_over(B)
    assert "not recorded, but could not be paused: dag_03" in next(
        s.detail for s in record.steps if s.name == "unpause"
    )
    assert world.environments[B].unpaused - {"dr_failover"} == WANTED | {"dag_03"}


def test_a_forced_failover_from_a_region_lost_right_after_its_promotion_keeps_the_set(world: World) -> None:
    """The region's agent had no time to take a snapshot, and its last snapshot is from its time as a standby."""
    world.store.put(SNAPSHOTS, DagSet(id=B, region=B, recorded_at=world.clock.now(), dag_ids=()))
    world.fail_over(B)
    world.agents[B].alive = False
    world.environments[B].unreachable = True
    world.fail_over(A, mode=Mode.FORCED, owner="engine-2")
    assert world.environments[A].unpaused - {"dr_failover"} == WANTED


def test_a_pause_that_arrives_after_the_set_was_restored_is_undone(world: World) -> None:
    """The last call of a killed engine may arrive late. The engine lists the DAGs once more and finds it."""
    kill_after(world, "pause")

    def pause_late(event: StepEvent) -> None:
        if (event.name, event.status) == ("unpause", "done"):
            world.environments[A].flip("dag_01", is_paused=True)

    world.engine("second", pause_late).run(request(A))
    assert_active(world, A, epoch=0)


def test_dags_that_are_added_or_removed_while_the_set_is_restored_are_seen(world: World) -> None:
    """A list from before the set was restored would have neither change."""
    target = world.environments[B]
    target.remove_dag("dag_05")

    def deploy(event: StepEvent) -> None:
        if (event.name, event.status) == ("unpause", "done"):
            target.add_dag("dag_05", is_paused=True)
            target.add_dag("dag_98", is_paused=False)
            target.remove_dag("dag_02")

    record = world.engine("first", deploy).run(request(B))
    assert record.not_unpaused == ("dag_02",)
    assert target.unpaused - {"dr_failover"} == WANTED - {"dag_02"}


def test_a_dag_that_the_target_lacks_stays_in_the_set_for_the_failback(world: World) -> None:
    """No user paused this DAG, so it runs again after the failback."""
    world.environments[B].remove_dag("dag_05")
    record = world.fail_over(B)
    assert record.not_unpaused == ("dag_05",)
    world.environments[B].add_dag("dag_99", is_paused=True)
    world.fail_over(A)
    assert world.environments[A].unpaused - {"dr_failover"} == WANTED


def test_a_dag_that_a_user_unpaused_in_the_standby_ends_paused(world: World) -> None:
    """The result must be exactly the set. Unpausing the set alone does not pause other DAGs."""
    world.environments[B].flip("dag_03", is_paused=False)
    world.fail_over()
    assert_active(world, B, epoch=1)


def test_a_dag_that_cannot_be_unpaused_is_listed_and_the_failover_completes(world: World) -> None:
    """One DAG that refuses does not prevent the others from running."""
    world.environments[B].stubborn.add("dag_02")
    record = world.fail_over()
    assert record.not_unpaused == ("dag_02",)
    assert world.state.phase is Phase.STEADY


def test_a_dag_that_cannot_be_paused_stops_the_failover_with_the_next_commands(world: World) -> None:
    """The failover does not report a false success. The plan stays open, and a user can finish or cancel it."""
    world.environments[A].stubborn.add("dag_02")
    with pytest.raises(FailoverError, match="stopped in step pause") as caught:
        world.fail_over()
    assert "mwaa-dr failover us-east-1" in str(caught.value)
    assert "mwaa-dr failover us-east-2" in str(caught.value)
    assert world.state.phase is Phase.DRAINING
    world.environments[A].stubborn.clear()
    world.fail_over(owner="engine-2")
    assert_active(world, B, epoch=1)


def test_the_first_run_in_the_target_is_awaited(world: World) -> None:
    """If dr_test_dag is deployed and in the set, it must succeed before the failover counts as verified."""
    for region in (A, B):
        world.environments[region].add_dag("dr_test_dag", is_paused=region == B)
    record = world.fail_over()
    assert "first run: dr_test_dag success" in next(step.detail for step in record.steps if step.name == "verify")


def test_a_first_run_that_does_not_end_is_reported_and_the_failover_completes(world: World) -> None:
    """The role has moved and the DAGs are unpaused. A user checks the run."""
    for region in (A, B):
        world.environments[region].add_dag("dr_test_dag", is_paused=region == B)
    world.environments[B].trigger_s = 10 * TIMING.verify_s
    record = world.fail_over()
    assert record.outcome == "completed"
    verify = next(step.detail for step in record.steps if step.name == "verify")
    assert f"is running after {TIMING.verify_s:g} s: check it" in verify


def test_lost_responses_of_writes_do_not_repeat_a_step(world: World) -> None:
    """The engine finds a write that landed without a response by reading, and does not write again."""
    engine_store = world.store.peer()

    def lose_one_response(event: StepEvent) -> None:
        world.events.append(event)
        if event.status is StepStatus.STARTED and event.name in {"record", "promote", "complete"}:
            engine_store.lose_answers = 1

    engine = FailoverEngine(engine_store, world.environments, world.clock, TIMING, "engine-1", lose_one_response)
    engine.run(request())
    assert_active(world, B, epoch=1)


def test_a_table_that_is_unreachable_for_20_s_only_delays_the_failover(world: World) -> None:
    """The engine repeats its reads for a while. It never takes a step without a successful read."""
    engine_store = world.store.peer()
    engine = FailoverEngine(engine_store, world.environments, world.clock, TIMING, "engine-1", world.events.append)
    world.environments[A].add_run("dag_01", "r1", seconds=20)
    world.clock.after(4, lambda: setattr(engine_store, "unreachable", True))
    world.clock.after(24, lambda: setattr(engine_store, "unreachable", False))
    engine.run(request())
    assert_active(world, B, epoch=1)


def test_a_preview_shows_the_failover_and_changes_nothing(world: World) -> None:
    """The preview returns counts, steps and reasons. It writes nothing and pauses nothing."""
    world.environments[A].add_run("dag_01", "r1", seconds=20)
    before = world.state
    preview = world.engine().preview(request())
    assert (preview.action, preview.wanted, preview.exempt, preview.running) == ("claim", 8, 1, ("dag_01 r1",))
    assert preview.not_ready == ()
    assert preview.steps[0] == "check"
    assert world.state == before
    assert not any(call[0] == "set_paused" for env in world.environments.values() for call in env.calls)


def test_a_preview_of_a_failback_after_promote_names_the_promoted_region_as_source(world: World) -> None:
    """The open plan left the other region. Its set is the set that the failback would restore."""
    kill_after(world, "unpause")
    preview = world.engine().preview(request(A))
    assert (preview.action, preview.source, preview.target, preview.wanted) == ("supersede", B, A, len(WANTED))


def test_a_preview_of_a_cancellation_shows_that_the_region_only_gets_its_dags_back(world: World) -> None:
    """Nothing is drained or promoted. Without an open plan, a failover to the active region has no step."""
    preview = world.engine().preview(request(A))
    assert (preview.action, preview.steps) == ("nothing", ())
    kill_after(world, "record")
    preview = world.engine().preview(request(A))
    assert (preview.action, preview.steps) == ("cancel", ("cancel", "unpause", "verify", "complete"))


def test_every_step_is_reported_when_it_starts_and_when_it_is_done(world: World) -> None:
    """The caller sees the progress while it happens."""
    world.fail_over()
    for name in ALL_STEPS:
        statuses = [event.status for event in world.events if event.name == name]
        assert [status for status in statuses if status is not StepStatus.PROGRESS] == ["started", "done"]


@pytest.mark.parametrize("step", ["force", "abandon"])
def test_lost_responses_of_turning_forced_and_abandoning_are_found_by_reading(world: World, step: str) -> None:
    """The engine must not take its own write for the write of another engine."""
    engine_store = world.store.peer()

    def lose_one_response(event: StepEvent) -> None:
        if (event.name, event.status) == (step, "started"):
            engine_store.lose_answers = 1

    engine = FailoverEngine(engine_store, world.environments, world.clock, TIMING, "engine-1", lose_one_response)
    if step == "force":
        world.environments[A].unreachable = True
        engine.run(request())
        assert world.state.active_region == B
    else:
        world.environments[A].add_run("dag_01", "r1", seconds=600)
        with pytest.raises(DrainTimeoutError):
            engine.run(request())
        assert_active(world, A, epoch=0)


@pytest.mark.parametrize("step", ALL_STEPS[1:])
def test_a_table_that_is_unreachable_for_5_s_stops_no_step(world: World, step: str) -> None:
    """The engine retries the first call of the step to the table, whichever call it is."""
    engine_store = world.store.peer()

    def cut(event: StepEvent) -> None:
        if (event.name, event.status) == (step, "started"):
            engine_store.unreachable = True
            world.clock.after(5, lambda: setattr(engine_store, "unreachable", False))

    engine = FailoverEngine(engine_store, world.environments, world.clock, TIMING, "engine-1", cut)
    engine.run(request())
    assert_active(world, B, epoch=1)


def test_the_check_requests_heartbeats_of_the_target_and_a_preview_requests_none(world: World) -> None:
    """The usual interval between two heartbeats is the longest part of a short failover. A preview changes nothing."""
    agent, table = world.agents[B], world.store.peer()
    agent.alive = False

    def answer() -> None:
        agent.alive |= table.observe(B).heartbeat_request is not None
        world.clock.after(0.5, answer)

    answer()
    assert "no agent is alive" in world.engine().preview(request()).not_ready[0]
    assert table.observe(B).heartbeat_request is None
    assert world.fail_over().outcome is FailoverOutcome.COMPLETED


@pytest.mark.parametrize("mode", list(Mode))
def test_the_source_is_prepared_for_the_claim_unless_it_is_left_by_force(world: World, mode: Mode) -> None:
    """Its agents read the claim within a fraction of a second. A forced failover does not need them."""
    world.fail_over(mode=mode)
    is_requested = world.store.peer().observe(A).heartbeat_request is not None
    assert is_requested is (mode is not Mode.FORCED)


def test_a_failover_needs_no_answer_to_its_request_for_heartbeats(world: World) -> None:
    """The role may lack the right, and agents of earlier versions do not know the request."""
    store = world.store.peer()
    store.failing["request_heartbeats"] = StateAccessError("Access denied.")
    assert world.engine(store=store).run(request()).outcome is FailoverOutcome.COMPLETED


def test_a_heartbeat_without_a_list_of_schedulers_acknowledges_nothing(world: World) -> None:
    """An agent that could not read its database knows no scheduler, not even its own."""
    world.agents[A].changes.update(schedulers=())
    record = world.fail_over()
    assert "not acknowledged" in next(step.detail for step in record.steps if step.name == "drain")


def test_an_auto_failover_does_not_turn_forced_when_the_source_runs_without_the_table(world: World) -> None:
    """Only a user can know that such a source is down, and confirms it with `--even-if-not-ready`."""
    world.agents[A].changes.update(on_unreachable="run")
    world.clock.advance(2)
    world.environments[A].unreachable = True
    world.agents[A].alive = False
    with pytest.raises(FailoverError, match="continues when it cannot read the state"):
        world.fail_over()
    with pytest.raises(NotReadyError, match="cannot turn forced"):
        world.fail_over(mode=Mode.FORCED)
    assert (world.state.active_region, world.state.phase) == (A, Phase.DRAINING)
    world.fail_over(mode=Mode.FORCED, even_if_not_ready=True)
    assert (world.state.active_region, world.state.phase) == (B, Phase.STEADY)


def test_an_engine_whose_last_call_failed_after_it_was_superseded_reports_the_supersede(world: World) -> None:
    """It does not change the record of its plan, which the superseding engine has closed."""
    source = world.environments[A]
    source.stubborn.add("dag_02")
    answer = source.set_paused

    def slow(*args: Any, **kwargs: Any) -> Sequence[str]:
        source.stubborn.clear()
        source.set_paused = answer  # type: ignore[method-assign]
        world.fail_over(A, owner="later")
        raise IncompleteError("dag_02 did not change.", left=["dag_02"])

    source.set_paused = slow  # type: ignore[method-assign, assignment]
    with pytest.raises(PlanSupersededError):
        world.fail_over(B)
    assert sorted((record.target, record.outcome) for record in world.store.find_all(RECORDS)) == [
        (B, "aborted"),
        (A, "completed"),
    ]


def test_an_engine_that_lists_for_long_keeps_its_plan(world: World) -> None:
    """
    It takes a minute to list thousands of DAGs. The engine writes its beat meanwhile, so no other engine takes over.
    """
    target = world.environments[B]
    listed, beats = target.dags, []

    def slow(*, on_progress: Callable[[int, int], None], **query: Any) -> Sequence[DagInfo]:
        for read in range(1, 11):
            world.clock.advance(6)
            on_progress(read, 10)
            assert world.state.plan is not None
            beats.append(world.state.plan.beat)
        return listed(**query)

    target.dags = slow  # type: ignore[method-assign, assignment]
    world.fail_over()
    assert len(beats) == 20
    assert all(after > before for before, after in pairwise(beats[::2]))
    assert "3 of 10 DAGs of us-east-1 listed" in [event.detail for event in world.events]


def test_a_graceful_failover_whose_source_stops_answering_stays_graceful(world: World) -> None:
    """The engine stops with an open plan. Only the caller may decide to continue without the source."""
    world.environments[A].add_run("dag_01", "r1", seconds=30)
    world.clock.after(8, lambda: setattr(world.environments[A], "unreachable", True))
    with pytest.raises(FailoverError, match="stopped in step drain"):
        world.fail_over(mode=Mode.GRACEFUL)
    assert world.state.plan is not None
    assert (world.state.phase, world.state.plan.mode) == (Phase.DRAINING, Mode.GRACEFUL)


def seconds_between(world: World, first: Callable[[DRState], bool], second: Callable[[DRState], bool]) -> float:
    """
    Fail over. Return the seconds from the first state for which *first* is true to the first for which *second* is
    true.
    """
    at: dict[Callable[[DRState], bool], float] = {}

    def see() -> None:
        world.clock.after(0.05, see)
        for each in (first, second):
            if each(world.state):
                at.setdefault(each, world.clock.monotonic())

    see()
    world.fail_over()
    return at[second] - at[first]


def is_drained(state: DRState) -> bool:
    return state.plan is not None and state.plan.drained


def is_promoted(state: DRState) -> bool:
    return state.epoch == 1


@pytest.mark.parametrize(
    ("published", "wait_s"),
    [
        pytest.param(20.0, 22, id="its own value"),
        pytest.param(None, 33, id="an agent that does not publish it"),
        pytest.param(900.0, 33, id="a value that the option does not allow"),
        pytest.param(0.0, 0, id="no file"),
    ],
)
@pytest.mark.parametrize("has_ledger", [True, False])
def test_the_failover_waits_until_the_fence_files_of_the_source_have_expired(
    world: World, published: float | None, wait_s: float, *, has_ledger: bool
) -> None:
    """
    The wait counts from ``drained`` and takes the *source's* ``fence_file_s`` and a tenth, not the caller's own
    setting.
    """
    world.agents[A].changes.update(fence_file_s=published, has_ledger=has_ledger)
    world.clock.advance(2)
    waited_s = seconds_between(world, is_drained, is_promoted)
    # With a ledger, the engine also waits for the final ledger entry, which never comes in this test.
    at_least = max(wait_s, TIMING.final_s if has_ledger else 0)
    assert at_least - 0.1 <= waited_s <= at_least + 3


def test_a_forced_failover_waits_for_the_fence_from_its_claim(world: World) -> None:
    """The schedulers acknowledge immediately. But a worker may have read the state just before the claim."""
    world.agents[A].changes.update(fence_file_s=10.0)
    world.clock.advance(2)
    at: list[float] = []
    engine = world.engine(on_step=lambda event: at.append(world.clock.monotonic()) if event.name == "promote" else None)
    began = world.clock.monotonic()
    engine.run(request(mode=Mode.FORCED, even_if_not_ready=True))
    assert 11 <= at[0] - began <= 13


def put_silent(world: World, region: str, job: str, **changes: object) -> None:
    """Add the heartbeat of a scheduler that is silent from now on, and that its database does not list any longer."""
    status = replace(world.store.agents(region)[0], job=job, schedulers=("1", job))
    world.store.peer().put_agent(replace(status, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [Mode.GRACEFUL, Mode.FORCED])
def test_a_failover_waits_for_the_lease_of_a_scheduler_that_its_database_no_longer_lists(
    world: World, mode: Mode
) -> None:
    """The database stops listing the scheduler after 30 s. But its view lets runs start for a whole lease."""
    put_silent(world, A, "9")
    began = world.clock.monotonic()
    record = world.fail_over(mode=mode)
    promoted_s = next(step.seconds for step in record.steps if step.name in {"drain", "lease"} and step.seconds > 60)
    assert promoted_s >= 60 * 1.1
    assert world.clock.monotonic() - began < 100
    details = [event.detail for event in world.events]
    assert any("job 9" in each for each in details) or mode is Mode.FORCED


def test_a_run_that_an_unlisted_scheduler_starts_is_drained(world: World) -> None:
    """
    No run was in flight when the live schedulers acknowledged. The drain ends when the gate of the last one has closed.
    """
    put_silent(world, A, "9")
    world.clock.after(50, lambda: world.environments[A].add_run("dag_01", "late", seconds=30))
    world.fail_over(mode=Mode.GRACEFUL)
    assert world.environments[A].run_state("dag_01", "late") == "success"


def test_the_drain_begins_before_the_lease_of_an_unlisted_scheduler_expires(world: World) -> None:
    """The engine sees the run in flight, so a drain that takes too long ends before the lease does."""
    put_silent(world, A, "9")
    world.environments[A].add_run("dag_01", "long", seconds=600)
    began = world.clock.monotonic()
    with pytest.raises(DrainTimeoutError):
        world.fail_over(mode=Mode.GRACEFUL)
    assert world.clock.monotonic() - began < 66


@pytest.mark.parametrize("mode", [Mode.GRACEFUL, Mode.FORCED])
def test_a_failover_does_not_wait_for_a_scheduler_that_has_ended(world: World, mode: Mode) -> None:
    """Its agent closed the gate and then published that it had ended."""
    put_silent(world, A, "9", gone=True, version=0)
    began = world.clock.monotonic()
    world.fail_over(mode=mode)
    assert world.clock.monotonic() - began < 30


def test_a_dead_scheduler_of_the_target_delays_the_adopt_step_for_seconds_only(world: World) -> None:
    """Its view may close runs as born in standby for a third of the lease, not for a whole lease."""
    put_silent(world, B, "9")
    record = world.fail_over()
    adopt_s = next(step.seconds for step in record.steps if step.name == "adopt")
    assert 20 * 1.1 <= adopt_s <= 24


def test_the_drain_waits_for_a_run_that_was_in_the_gate_at_the_first_list(world: World) -> None:
    """
    On Airflow 2, an asset event may wait for its run, which the scheduler creates in its next loop.

    The same list is read again if a scheduler has not acknowledged: it may have decided before it knew of the claim.
    """
    world.agents[A].changes = {"airflow_version": "2.11.2"}
    source = world.environments[A]
    running_runs = source.running_runs

    def first_list() -> Sequence[RunInfo]:
        source.running_runs = running_runs  # type: ignore[method-assign]
        world.clock.after(0.5, lambda: source.add_run("dag_01", "late", seconds=10))
        return running_runs()

    source.running_runs = first_list  # type: ignore[method-assign]
    world.fail_over()
    assert source.run_state("dag_01", "late") == "success"


def test_a_dag_that_a_user_unpauses_after_the_drain_is_paused_as_well(world: World) -> None:
    """
    No DAG was unpaused when the engine first listed the source. A DAG that stays unpaused would run in both regions.
    """
    source = world.environments[A]
    for dag_id in WANTED:
        source.flip(dag_id, is_paused=True)

    def unpause(event: StepEvent) -> None:
        if (event.name, event.status) == ("drain", "done"):
            source.flip("dag_03", is_paused=False)

    world.engine(on_step=unpause).run(request())
    assert source.unpaused == {"dr_failover"}


def test_the_target_does_not_execute_before_all_its_schedulers_know_the_epoch(world: World) -> None:
    """A scheduler that does not know the epoch would skip runs that the others execute."""

    def another_scheduler(event: StepEvent) -> None:
        if (event.name, event.status) == ("promote", "done"):
            world.agents[B].changes.update(schedulers=("1", "9"))

    with pytest.raises(FailoverError, match="still waiting for its schedulers to know epoch 1\\."):
        world.engine(on_step=another_scheduler).run(request())
    assert world.state.phase is Phase.PROMOTING


def test_errors_after_the_claim_carry_the_open_record(world: World) -> None:
    """A caller that catches the error can show which steps were done."""
    world.agents[B].changes.update(adopted_epoch=None)
    with pytest.raises(FailoverError) as caught:
        world.fail_over()
    assert isinstance(caught.value, DRError)
    assert caught.value.record.outcome == "open"
    assert "promote" in steps(caught.value.record)


def test_an_engine_stops_when_its_beat_was_lost_and_its_plan_has_ended(world: World) -> None:
    """
    The write of the beat gets no response, so the engine reads the state. The read shows that its plan has ended.

    Before the fix, the engine continued (simulated history 20000739).
    """
    engine_store = world.store.peer()
    changed = world.environments[B].set_paused

    def take_long(dag_ids: Collection[str], *, paused: bool, **rest: Any) -> Sequence[str]:
        world.clock.advance(TIMING.beat_s + 1)
        engine_store.before_write = finish_first
        return changed(dag_ids, paused=paused, **rest)

    def finish_first(_: DRState) -> None:
        """The target's agent takes the plan over and ends it before the engine's write arrives."""
        engine_store.before_write = None
        now = world.clock.now()
        taken = transitions.take_over(world.state, owner="agent", at=now)
        world.store.write(taken, expected_version=taken.version - 1)
        done = transitions.complete(taken, not_unpaused_set_id=None, at=now)
        world.store.write(done, expected_version=done.version - 1)
        raise StateUnreachableError("The response of a write was lost.")

    world.environments[B].set_paused = take_long  # type: ignore[method-assign]
    engine = FailoverEngine(engine_store, world.environments, world.clock, TIMING, "engine-1", world.events.append)
    with suppress(AlreadyActiveError):
        engine.run(request())
    assert world.state.phase is Phase.STEADY
    assert "verify" not in [event.name for event in world.events]


@pytest.mark.parametrize("step", ["record", "drain", "promote", "adopt", "unpause", "complete"])
def test_credentials_that_expire_after_the_claim_stop_no_failover(world: World, step: str) -> None:
    """AWS refuses every call to the state table for ten seconds, as until the session of a role is renewed."""
    store, refused = world.store.peer(), False

    def on_step(event: StepEvent) -> None:
        nonlocal refused
        if not refused and event.name == step and event.status is StepStatus.STARTED:
            refused = True
            for method in (
                "read",
                "write",
                "agents",
                "get set of DAGs",
                "put set of DAGs",
                "find_all record",
                "put record",
                "get record",
            ):
                store.failing[method] = StateAccessError("ExpiredTokenException")
            world.clock.after(10, store.failing.clear)

    record = world.engine(on_step=on_step, store=store).run(request())
    assert (refused, record.outcome) == (True, "completed")
    assert_active(world, B, epoch=1)


def test_missing_rights_are_reported_immediately_before_the_claim(world: World) -> None:
    """Waiting does not give rights to a caller, and the engine has not changed anything yet."""
    store = world.store.peer()
    store.failing["write"] = StateAccessError("AccessDeniedException")
    engine = world.engine(store=store)
    slept: list[float] = []
    world.clock.after(30, lambda: slept.append(30))
    with pytest.raises(StateAccessError):
        engine.run(request())
    assert not slept
    assert_active(world, A, epoch=0)


CHILD_IS_HELD = {"awaited": 1, "waits": ("dag_01 parent: task call waits for dag_02 child, which is held",)}


def react_to_awaited_starts(world: World, job_2_listens: bool = True) -> list[str]:
    """Let the source's gate start the child, and the parent end after it; return what the plan allowed, in order."""
    source, seen = world.environments[A], list[str]()

    def turn() -> None:
        world.clock.after(1, turn)
        plan = world.state.plan
        if world.state.phase is not Phase.DRAINING or plan is None:
            return
        allows = "drained" if plan.drained else "starts awaited" if plan.starts_awaited else "holds"
        if seen[-1:] != [allows]:
            seen.append(allows)
        if allows == "starts awaited" and source.run_state("dag_02", "child") is None:
            source.add_run("dag_02", "child", seconds=5)
            world.agents[A].changes.clear()
        if source.run_state("dag_02", "child") == "success" and source.run_state("dag_01", "parent") == "running":
            source.end_run("dag_01", "parent")

    world.clock.after(1, turn)
    return seen


def test_a_parent_that_waits_for_a_held_child_does_not_stop_a_graceful_failover(world: World) -> None:
    """The gate starts the child, is closed again when both have ended, and only then the source counts as drained."""
    world.environments[A].add_run("dag_01", "parent")
    world.agents[A].changes = dict(CHILD_IS_HELD)
    seen = react_to_awaited_starts(world)
    record = world.fail_over()
    assert seen == ["holds", "starts awaited", "holds", "drained"]
    assert world.environments[A].run_state("dag_02", "child") == "success"
    assert_active(world, B, epoch=1)
    assert record.outcome == "completed"


def test_a_gate_that_let_awaited_runs_start_is_closed_only_after_a_new_acknowledgement(world: World) -> None:
    """A scheduler that stops listening may still start awaited runs until its lease has expired."""
    world.environments[A].add_run("dag_01", "parent")
    world.agents[A].changes = dict(CHILD_IS_HELD)
    react_to_awaited_starts(world)
    held: list[float] = []

    def stop_listening() -> None:
        world.clock.after(1, stop_listening)
        plan = world.state.plan
        if plan is not None and plan.starts_awaited:
            world.agents[A].listening = False
        elif plan is not None and not world.agents[A].listening and not held:
            held.append(world.clock.monotonic())

    world.clock.after(1, stop_listening)
    world.fail_over()
    promoted = [step.seconds for step in world.store.find_all(RECORDS)[0].steps if step.name == "drain"]
    assert held
    assert promoted[0] >= 60, "the lease counts from the write that closes the gate again"


def test_a_failover_that_gives_up_names_what_each_task_waits_for(world: World) -> None:
    """The user reads which runs are held, and who waits for them. The gate holds awaited runs no longer."""
    world.environments[A].add_run("dag_01", "parent")
    world.agents[A].changes = dict(CHILD_IS_HELD)
    with pytest.raises(DrainTimeoutError, match="dag_01 parent: task call waits for dag_02 child, which is held"):
        world.fail_over()
    assert_active(world, A, epoch=0)


def test_an_engine_that_joins_closes_the_gate_before_it_counts(world: World) -> None:
    """The engine that let awaited runs start may die. The next one reads that in the plan."""
    world.environments[A].add_run("dag_01", "parent")
    world.agents[A].changes = dict(CHILD_IS_HELD)
    seen = react_to_awaited_starts(world)

    def die(event: StepEvent) -> None:
        if event.name == "drain" and world.state.plan is not None and world.state.plan.starts_awaited:
            raise KilledError

    with pytest.raises(KilledError):
        world.engine("engine-1", on_step=die).run(request())
    world.clock.advance(30)
    world.fail_over(owner="engine-2")
    assert seen == ["holds", "starts awaited", "holds", "drained"]
    assert_active(world, B, epoch=1)


def test_a_running_run_of_a_paused_dag_does_not_stop_a_graceful_failover(world: World) -> None:
    """Airflow does not continue it, so the failover interrupts it, and the target resumes it."""
    world.environments[A].add_run("dag_03", "stands still")
    world.agents[A].changes = {"idle": 1}
    record = world.fail_over()
    assert "interrupts dag_03 stands still, whose DAGs are paused" in next(
        step.detail for step in record.steps if step.name == "drain"
    )
    assert world.environments[A].run_state("dag_03", "stands still") == "running"
    assert_active(world, B, epoch=1)


def test_a_run_whose_dag_a_user_unpauses_counts_again(world: World) -> None:
    """The agents' report may be old. The engine reads whether the DAG is paused and whether a task executes."""
    world.environments[A].add_run("dag_03", "stands still", seconds=20)
    world.agents[A].changes = {"idle": 1}
    world.environments[A].flip("dag_03", is_paused=False)
    record = world.fail_over()
    assert next(step.seconds for step in record.steps if step.name == "drain") >= 17
    assert world.environments[A].run_state("dag_03", "stands still") == "success"


def test_a_task_that_starts_after_its_dag_was_paused_ends_before_the_role_moves(world: World) -> None:
    """A user unpauses the DAG after the drain. The engine pauses it, and waits until its task has ended."""
    source = world.environments[A]
    source.add_run("dag_03", "stands still")
    world.agents[A].changes = {"idle": 1}
    running_tasks, polls = source.running_tasks, []
    promoted: list[int] = []

    def tasks() -> Sequence[RunInfo]:
        plan = world.state.plan
        if plan is not None and plan.drained and len(polls) < 5:
            polls.append(world.state.phase)
            return [RunInfo(dag_id="dag_03", run_id="stands still", state="running")]
        return running_tasks()

    source.running_tasks = tasks  # type: ignore[method-assign]
    engine = world.engine(on_step=lambda event: promoted.append(len(polls)) if event.name == "promote" else None)
    engine.run(request())
    assert promoted[0] == 5
    assert set(polls) == {Phase.DRAINING}


def test_a_task_of_a_paused_dag_that_does_not_end_stops_the_failover_before_its_promotion(world: World) -> None:
    """Its interval would execute in both regions. The error names the run, and the role stays."""
    source = world.environments[A]
    source.add_run("dag_03", "stands still")
    world.agents[A].changes = {"idle": 1}
    running_tasks = source.running_tasks

    def tasks() -> Sequence[RunInfo]:
        plan = world.state.plan
        if plan is not None and plan.drained:
            return [RunInfo(dag_id="dag_03", run_id="stands still", state="running")]
        return running_tasks()

    source.running_tasks = tasks  # type: ignore[method-assign]
    with pytest.raises(FailoverError, match=f"Runs of {A} still execute: dag_03 stands still"):
        world.fail_over()
    assert (world.state.active_region, world.state.epoch, world.state.phase) == (A, 0, Phase.DRAINING)
    source.running_tasks = running_tasks  # type: ignore[method-assign]
    world.fail_over(owner="engine-2")
    assert_active(world, B, epoch=1)


@pytest.mark.parametrize(("had_ended", "is_known"), [(True, True), (False, False)], ids=["ended", "stopped"])
def test_whether_a_run_had_ended_depends_only_on_readable_announcements_of_stops(
    world: World, had_ended: bool, is_known: bool
) -> None:
    """
    A run that an earlier engine announced as stopped may have been stopped by that engine.

    If such an announcement cannot be read, it may contain any run. An announcement of runs that had ended cannot.
    """
    source = world.environments[A]
    source.add_run("dag_01", "r1", seconds=600)
    stop_run = source.stop_run

    def end_first(run: RunInfo) -> bool:
        source.end_run(run.dag_id, run.run_id, "failed")
        return stop_run(run)

    source.stop_run = end_first  # type: ignore[method-assign]
    kill_at_the_ledger_step(world)
    assert [stop.had_ended for stop in world.state.stops] == [False, True]
    (unreadable,) = [stop.set_id for stop in world.state.stops if stop.had_ended is had_ended]
    world.store.damage(DAG_SETS.key.format(unreadable))
    source.add_run("dag_02", "r2", seconds=600)
    kill_at_the_ledger_step(world)
    later = world.state.stops[2:]
    assert [get_announced_runs(world.store, stop.set_id) for stop in later] == [("dag_02 r2",)] * (1 + is_known)
    assert [stop.had_ended for stop in later] == [False, True][: 1 + is_known]


def test_a_caller_whose_joined_plan_is_taken_over_before_its_write_joins_again(world: World) -> None:
    """It turns the plan forced only while it owns it, so it follows the new owner first."""
    kill_after(world, "drain", mode=Mode.GRACEFUL)
    taken_by: list[str] = []

    def take_over(event: StepEvent) -> None:
        if (event.name, event.status) == ("join", StepStatus.DONE):
            plan = world.state.plan
            assert plan is not None
            taken_by.append(plan.owner)
            if len(taken_by) == 1:
                taken = transitions.take_over(world.state, owner="third", at=world.clock.now())
                world.store.peer().write(taken, expected_version=world.state.version)

    record = world.engine("second", take_over).run(request(mode=Mode.FORCED))
    assert taken_by == ["second", "second"]
    joins = [step.detail for step in record.steps if step.name == "join"]
    assert ["killed was silent" in joins[0], "third was silent" in joins[1]] == [True, True]
    assert (record.outcome, record.mode) == ("completed", Mode.FORCED)
    assert (world.state.active_region, world.state.epoch, world.state.phase) == (B, 1, Phase.STEADY)


def test_an_engine_that_loses_its_plan_during_the_first_run_follows_the_new_owner(world: World) -> None:
    """It was suspended while it waited. It must not report this as a first run that failed, and complete the plan."""
    for region in (A, B):
        world.environments[region].add_dag("dr_test_dag", is_paused=region == B)
    world.environments[B].trigger_s = TIMING.verify_s / 2
    records: list[FailoverRecord] = []

    def see(event: StepEvent) -> None:
        world.events.append(event)
        if (event.name, event.status, len(records)) == ("verify", StepStatus.PROGRESS, 0):
            # The sleep of this engine returns only after the second is done.
            world.clock.after(0.5, lambda: records.append(world.engine("second", lambda _: None).run(request())))

    first = world.engine("first", see).run(request())
    assert records == [first]
    assert ("verify", StepStatus.DONE) not in [(event.name, event.status) for event in world.events]
    assert world.events[-1].detail.endswith("was finished by its owner")
    assert "first run: dr_test_dag success" in next(step.detail for step in first.steps if step.name == "verify")


def test_the_drain_of_acknowledged_schedulers_does_not_wait_for_their_commits(world: World) -> None:
    """An agent acknowledges after its scheduler's thread has committed, so one list has every run in progress."""
    record = world.fail_over()
    drain = next(step for step in record.steps if step.name == "drain")
    world.agents[B].changes = {"airflow_version": "2.11.2"}
    back = world.fail_over(A)
    slower = next(step for step in back.steps if step.name == "drain")
    assert drain.seconds + TIMING.gate_commit_s <= slower.seconds + 0.01


def lists(world: World, region: str) -> list[tuple[str, ...]]:
    """Return the lists of DAGs that the engine has read from *region*, with their tags."""
    return [call[1:] for call in world.environments[region].calls if call[0] == "dags"]


def test_the_agent_of_the_source_lists_its_dags(world: World) -> None:
    """A REST API takes half a minute to list ten thousand DAGs. The engine reads a list of exempt DAGs only."""
    _list_by_agent(world, A)
    record = world.fail_over()
    assert_active(world, B, epoch=1)
    assert "from the agent" in next(step.detail for step in record.steps if step.name == "record")
    before_pause = world.environments[A].calls[: [call[0] for call in world.environments[A].calls].index("set_paused")]
    assert ("dags",) not in before_pause
    assert ("dags", "dr:control") in before_pause


@pytest.mark.parametrize("why", ["an earlier version", "no list", "a list for another plan", "other exempt DAGs"])
def test_the_engine_lists_the_dags_itself_if_the_agent_cannot(world: World, why: str) -> None:
    """The wanted set is complete in any case, before the first pause."""
    if why == "an earlier version":
        world.agents[A].changes = {}
    elif why == "no list":
        world.agents[A].changes = {"lists_dags": True}
    else:
        _list_by_agent(world, A, plan_id="another" if why == "a list for another plan" else None)
        if why == "other exempt DAGs":
            world.agents[A].changes["exempt"] = ("dag_01", "dr_failover")
    record = world.fail_over()
    assert_active(world, B, epoch=1)
    assert "from the agent" not in next(step.detail for step in record.steps if step.name == "record")
    assert () in lists(world, A)


def test_a_dag_that_a_user_unpaused_during_the_drain_is_paused_and_not_recorded(world: World) -> None:
    """The set is that of the claim. The pause lists the unpaused DAGs again."""
    _list_by_agent(world, A)
    source = world.environments[A]
    source.add_run("dag_01", "r1", seconds=20)
    world.clock.after(10, lambda: source.flip("dag_03", is_paused=False))
    world.fail_over()
    assert_active(world, B, epoch=1)


def _list_by_agent(world: World, region: str, *, plan_id: str | None = None) -> None:
    """Let the agent of *region* list its DAGs as soon as it reads a claim."""
    world.agents[region].changes["lists_dags"] = True

    def read() -> None:
        plan = world.state.plan
        if plan is None or plan.set_id is not None:
            world.clock.after(0.5, read)
            return
        unpaused = tuple(world.environments[region].unpaused - {"dr_failover"})
        world.store.peer().put(
            SNAPSHOTS,
            DagSet(id=plan_id or plan.id, region=region, recorded_at=world.clock.now(), dag_ids=unpaused),
        )

    world.clock.after(0.5, read)


def _restore_by_agent(world: World, region: str, *, left: int = 0) -> None:
    """Let the agent of *region* unpause the recorded set as soon as the plan is RESUMING, except for *left* DAGs."""
    world.agents[region].changes["lists_dags"] = True

    def turn() -> None:
        world.clock.after(0.5, turn)
        plan, environment = world.state.plan, world.environments[region]
        if plan is None or plan.set_id is None or world.state.phase is not Phase.RESUMING:
            world.agents[region].changes.pop("restored_version", None)
            return
        found = world.store.peer().get(DAG_SETS, plan.set_id)
        assert found is not None
        for dag_id in found.dag_ids[left:]:
            environment.flip(dag_id, is_paused=False)
        world.agents[region].changes.update(restored_version=world.state.version, not_restored=left)

    world.clock.after(0.5, turn)


def test_the_agent_of_the_target_unpauses_the_recorded_set(world: World) -> None:
    """The engine lists no DAG of the target, and unpauses none. A list of ten thousand takes half a minute."""
    _restore_by_agent(world, B)
    record = world.fail_over()
    assert_active(world, B, epoch=1)
    assert "by its agent" in next(step.detail for step in record.steps if step.name == "unpause")
    assert () not in lists(world, B)
    assert not [call for call in world.environments[B].calls if call[0] == "set_paused"]


@pytest.mark.parametrize("why", ["an earlier version", "a DAG is left", "other exempt DAGs", "no answer"])
def test_the_engine_unpauses_what_the_agent_of_the_target_does_not(world: World, why: str) -> None:
    """It lists the DAGs, and reports those that it could not unpause."""
    if why == "no answer":
        world.agents[B].changes["lists_dags"] = True
    elif why != "an earlier version":
        _restore_by_agent(world, B, left=1 if why == "a DAG is left" else 0)
        if why == "other exempt DAGs":
            world.agents[B].changes["exempt"] = ("dag_01",)
    record = world.fail_over()
    assert_active(world, B, epoch=1)
    assert record.not_unpaused == ()
    assert () in lists(world, B)
    unpause = next(step for step in record.steps if step.name == "unpause")
    assert (unpause.seconds >= TIMING.takeover_s) is (why == "no answer")


def test_a_restored_version_from_before_the_phase_does_not_count(world: World) -> None:
    """Another plan may have paused the DAGs since."""
    world.agents[B].changes.update(lists_dags=True, restored_version=1)
    world.fail_over()
    assert_active(world, B, epoch=1)
    assert () in lists(world, B)
