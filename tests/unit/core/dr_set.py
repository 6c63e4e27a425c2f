"""A DR set in memory, with agents that react to the engine: for tests of the engine, the operators and the commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover import FailoverEngine, FailoverRequest, StepEvent
from airflow_provider_mwaa_dr.core.notifications import Courier
from airflow_provider_mwaa_dr.core.ports import SNAPSHOTS, AgentStatus, DagSet, FailoverRecord
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.testing import FakeEnvironment, InMemoryStateStore, ManualClock

A, B, C = "us-east-2", "us-east-1", "us-west-2"
DAGS = [f"dag_{number:02d}" for number in range(10)]
TIMING = Timing(drain_s=60, answer_s=10, heartbeat_s=1, gate_commit_s=1, beat_s=5, poll_s=1, adopt_s=30)


class Agent:
    """The agents of one region. Once a second, they do what the engine waits for."""

    def __init__(self, world: World, region: str, *jobs: str) -> None:
        self.world, self.region, self.jobs = world, region, jobs or ("1",)
        self.alive, self.listening, self.pauses = True, True, True
        self.changes: dict[str, object] = {}
        self._beat = 0
        self._seen = world.store.state
        self._turn()

    def _turn(self) -> None:
        self.world.clock.after(1, self._turn)
        if not self.alive:
            return
        if self.listening:
            self._seen = self.world.store.state
        state = self._seen
        assert state is not None
        self._beat += 1
        if self.pauses and state.phase is Phase.PROMOTING and state.active_region == self.region:
            for dag_id in self.world.environments[self.region].unpaused - {"dr_failover"}:
                self.world.environments[self.region].flip(dag_id, is_paused=True)
        if state.phase is Phase.STEADY and state.active_region == self.region:
            wanted = tuple(sorted(self.world.environments[self.region].unpaused - {"dr_failover"}))
            self.world.store.peer().put(
                SNAPSHOTS,
                DagSet(id=self.region, region=self.region, recorded_at=self.world.clock.now(), dag_ids=wanted),
            )
        for job in self.jobs:
            status = AgentStatus(
                region=self.region,
                job=job,
                host="host",
                at=self.world.clock.now(),
                beat=self._beat,
                attempt=self._beat,
                version=state.version,
                epoch=state.epoch,
                provider_version="0.1.0",
                airflow_version="3.3.1",
                adopted_epoch=state.epoch,
                reconciled_epoch=state.epoch,
                schedulers=self.jobs,
                fence_file_s=3.0,
                knows_hold=True,
            )
            self.world.store.peer().put_agent(replace(status, **self.changes))  # type: ignore[arg-type]


@dataclass
class World:
    """Three regions, each with ten DAGs and an exempt one. Users paused two of the active region's DAGs."""

    clock: ManualClock
    store: InMemoryStateStore
    environments: dict[str, FakeEnvironment]
    agents: dict[str, Agent]
    events: list[StepEvent]

    @classmethod
    def build(cls) -> World:
        clock = ManualClock()
        store = InMemoryStateStore(transitions.initial(A, lease_s=60, by="init", at=clock.now()), regions=(A, B, C))
        world = cls(clock, store, {}, {}, [])
        for region in (A, B, C):
            environment = FakeEnvironment(region, clock=clock)
            for dag_id in DAGS:
                environment.add_dag(dag_id, is_paused=region != A or dag_id in {"dag_03", "dag_07"})
            environment.add_dag("dr_failover", tags=["dr:control"])
            world.environments[region] = environment
            world.agents[region] = Agent(world, region)
        clock.advance(2)
        return world

    def engine(
        self,
        owner: str = "engine-1",
        on_step: Callable[[StepEvent], None] | None = None,
        *,
        store: InMemoryStateStore | None = None,
        courier: Courier | None = None,
    ) -> FailoverEngine:
        return FailoverEngine(
            store or self.store.peer(),
            self.environments,
            self.clock,
            TIMING,
            owner,
            on_step or self.events.append,
            courier=courier,
        )

    def fail_over(self, target: str = B, owner: str = "engine-1", **changes: object) -> FailoverRecord:
        return self.engine(owner).run(request(target, **changes))

    @property
    def state(self) -> DRState:
        assert self.store.state is not None
        return self.store.state


def request(target: str = B, **changes: object) -> FailoverRequest:
    return replace(FailoverRequest(target=target, reason="test", by="tester"), **changes)  # type: ignore[arg-type]


WANTED = frozenset(DAGS) - {"dag_03", "dag_07"}
