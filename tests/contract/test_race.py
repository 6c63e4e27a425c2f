"""Parallel failovers: each engine has its own connection to one DynamoDB over a real socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.dynamodb import state_store
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import FailoverEngine, FailoverRequest, StepEvent
from airflow_provider_mwaa_dr.core.ports import RECORDS, SNAPSHOTS, AgentStatus, DagSet, FailoverRecord
from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import PlanSupersededError
from airflow_provider_mwaa_dr.testing import FakeEnvironment
from tests.contract.aws_server import AwsServer

A, B, C = "us-east-2", "us-east-1", "us-west-2"
CALLERS = 16
DAGS = ("billing", "orders")
# Agents are late, because sixteen callers keep a core and the table busy. No agent stops in this test.
TIMING = Timing(drain_s=60, heartbeat_s=20, gate_commit_s=0.2, poll_s=0.2, beat_s=20, takeover_s=120)


class Acting(FakeEnvironment):
    """An environment that records the threads that changed it."""

    def __init__(self, region: str) -> None:
        super().__init__(region, clock=SystemClock())
        self.changed_by: list[str] = []

    def set_paused(self, dag_ids: Collection[str], *, paused: bool, **rest: Any) -> Sequence[str]:
        self.changed_by.append(threading.current_thread().name)
        return super().set_paused(dag_ids, paused=paused, **rest)


@dataclass
class World:
    """Three regions and a table."""

    table: str
    session: boto3.session.Session
    environments: dict[str, Acting] = field(default_factory=lambda: {name: Acting(name) for name in (A, B, C)})

    def store(self) -> DynamoDBStateStore:
        """Return a new store, like the store of another process."""
        return DynamoDBStateStore(self.table, (A,), clock=SystemClock(), session=self.session, timeout_s=20)

    def fail_over(self, target: str, on_step: Callable[[StepEvent], None] = lambda _: None) -> FailoverRecord:
        """Fail over, with this thread as the owner."""
        name = threading.current_thread().name
        engine = FailoverEngine(self.store(), self.environments, SystemClock(), TIMING, name, on_step)
        return engine.run(FailoverRequest(target=target, reason="race", by=name, stop_running=True))


@contextmanager
def agents(world: World) -> Iterator[None]:
    """Run an agent in each region that acknowledges and adopts each state."""
    over, began = threading.Event(), threading.Event()

    def work() -> None:
        store, beat = world.store(), 0
        while not over.wait(0.1):
            state, beat = store.read(), beat + 1
            for region in world.environments:
                store.put_agent(
                    AgentStatus(
                        region=region, job="1", host="host", at=SystemClock().now(), beat=beat, version=state.version,
                        epoch=state.epoch, provider_version="0.1.0", airflow_version="3.3.1",
                        adopted_epoch=state.epoch, reconciled_epoch=state.epoch, schedulers=("1",), fence_file_s=0.2,
                    )
                )  # fmt: skip
            began.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert began.wait(60)
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def world(table: str, session: boto3.session.Session) -> World:
    """A is active, with two DAGs."""
    world = World(table, session)
    store, now = world.store(), SystemClock().now()
    store.write(transitions.initial(A, lease_s=60, by="test", at=now), expected_version=None)
    store.put(SNAPSHOTS, DagSet(id=A, region=A, recorded_at=now, dag_ids=DAGS))
    for region, environment in world.environments.items():
        for dag_id in DAGS:
            environment.add_dag(dag_id, is_paused=region != A)
    return world


def race(world: World) -> Sequence[Future[FailoverRecord]]:
    """Let sixteen callers claim at the same time, and return them when they have ended."""
    barrier = threading.Barrier(CALLERS)

    def wait_for_all(event: StepEvent) -> None:
        if (event.name, event.status) == ("check", "done"):
            barrier.wait(60)

    with agents(world), ThreadPoolExecutor(CALLERS, thread_name_prefix="caller") as pool:
        callers = [pool.submit(world.fail_over, B, wait_for_all) for _ in range(CALLERS)]
        wait(callers, 120)
    return callers


def assert_one_failover(world: World, aws: AwsServer, callers: Sequence[Future[FailoverRecord]]) -> None:
    """One epoch, one record, one caller that acts. The condition refused the others, and they follow the failover."""
    assert [caller.exception() for caller in callers] == [None] * CALLERS
    store = world.store()
    state, records = store.read(), store.find_all(RECORDS)
    assert (state.active_region, state.epoch, state.phase) == (B, 1, Phase.STEADY)
    assert [(record.outcome, record.epoch) for record in records] == [("completed", 1)]
    assert {caller.result().id for caller in callers} == {records[0].id}
    assert aws.conditions_failed >= 2
    actors = {name for environment in world.environments.values() for name in environment.changed_by}
    assert actors == {records[0].by}


def test_sixteen_callers_make_one_failover(world: World, aws: AwsServer) -> None:
    """In the new region, exactly the DAGs are unpaused that were unpaused before in the old one."""
    assert_one_failover(world, aws, race(world))
    assert world.environments[B].unpaused == set(DAGS)
    assert world.environments[A].unpaused == set()


def test_without_the_condition_the_assertions_fail(
    world: World, aws: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without the condition in the store, the assertions of the test above fail."""
    always = "attribute_exists(state_id)"
    monkeypatch.setattr(state_store, "_version_condition", lambda expected_version: (always, {}))
    monkeypatch.setattr(state_store, "_token_condition", lambda held, values: always)
    callers = race(world)
    assert len(world.store().find_all(RECORDS)) > 1
    with pytest.raises(AssertionError):
        assert_one_failover(world, aws, callers)


def test_the_later_of_two_callers_with_different_targets_supersedes(world: World, aws: AwsServer) -> None:
    """The first caller is draining. It ends with an error, and changes nothing after the second claim."""
    world.environments[A].add_run("orders", "long")
    drains = threading.Event()

    def until_it_drains(event: StepEvent) -> None:
        if event.name == "drain" and "in progress" in event.detail:
            drains.set()

    with agents(world), ThreadPoolExecutor(2, thread_name_prefix="caller") as pool:
        first: Future[FailoverRecord] = pool.submit(world.fail_over, B, until_it_drains)
        assert drains.wait(60)
        second = pool.submit(world.fail_over, C)
        error = first.exception(60)
        world.environments[A].end_run("orders", "long")
        record = second.result(120)

    assert isinstance(error, PlanSupersededError), error
    assert C in str(error)
    state = world.store().read()
    assert (state.active_region, state.epoch, state.phase) == (C, 1, Phase.STEADY)
    outcomes = {found.target: found.outcome for found in world.store().find_all(RECORDS)}
    assert outcomes == {B: "aborted", C: "completed"}
    actors = {name for environment in world.environments.values() for name in environment.changed_by}
    assert actors == {record.by}
    assert world.environments[B].changed_by == []
    assert world.environments[C].unpaused == set(DAGS)
