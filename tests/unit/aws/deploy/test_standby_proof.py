"""The proof that a standby works: heartbeats of the new version, and a fence that was loaded after the update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from airflow_provider_mwaa_dr.aws.deploy.standby_proof import READINESS_DAG, StandbyProof
from airflow_provider_mwaa_dr.core.ports import FENCE_LOADS, AgentStatus, FenceLoad
from airflow_provider_mwaa_dr.exceptions import DeploymentError
from airflow_provider_mwaa_dr.testing import FakeEnvironment, InMemoryStateStore, ManualClock

B = "us-east-1"
PROOF_S = 900.0


@dataclass(frozen=True)
class Described:
    updated_at: datetime | None


@dataclass
class Standby:
    """A standby whose agent and worker come alive at chosen moments. Its clock moves only when the proof waits."""

    version: str = "2.0"
    loads_fence: bool = True
    clock: ManualClock = field(default_factory=ManualClock)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = InMemoryStateStore()
        self.airflow = FakeEnvironment(B, "etl-secondary", clock=self.clock)
        self.updated_at: datetime | None = self.clock.now()
        self.beat = 0

    def describe(self) -> Described:
        return Described(self.updated_at)

    def beats_from(self, seconds: float) -> Standby:
        self.clock.after(seconds, self._beat)
        return self

    def has_dag_from(self, seconds: float, *, is_paused: bool = True) -> Standby:
        self.clock.after(seconds, lambda: self.airflow.add_dag(READINESS_DAG, is_paused=is_paused))
        return self

    def _beat(self) -> None:
        self.clock.after(5, self._beat)
        self.beat += 1
        self.store.put_agent(
            AgentStatus(
                region=B, job="1", host="h", at=self.clock.now(), beat=self.beat, version=1, epoch=0,
                provider_version=self.version, airflow_version="3.3.1",
            )
        )  # fmt: skip
        if self.loads_fence and self.runs and READINESS_DAG in self.airflow.unpaused:
            self.store.put(FENCE_LOADS, FenceLoad(region=B, at=self.clock.now()))

    @property
    def runs(self) -> list[str]:
        return [run_id for (dag_id, run_id) in self.airflow.notes if dag_id == READINESS_DAG]

    def prove(self) -> str:
        step = StandbyProof(
            self.store,
            self.airflow,
            self,  # type: ignore[arg-type]
            self.clock,
            version="2.0",
            limit_s=PROOF_S,
            say=self.said.append,
        ).step()
        assert not step.changes
        assert step.act is not None
        return step.act()


def test_an_agent_and_a_fence_are_proof() -> None:
    """The DAG is unpaused for its run, and then paused again."""
    standby = Standby().beats_from(90).has_dag_from(200)
    message = standby.prove()
    assert message.startswith(
        "etl-secondary: 1 live agent(s) of version 2.0, and a task of dr_readiness mwaa_dr_deploy__"
    )
    assert len(standby.runs) == 1
    assert standby.airflow.paused == {READINESS_DAG}
    assert any("no heartbeat of version 2.0 yet" in line for line in standby.said)


def test_a_dag_that_a_user_unpaused_stays_unpaused() -> None:
    """The proof restores what it found."""
    standby = Standby().beats_from(1).has_dag_from(1, is_paused=False)
    standby.prove()
    assert standby.airflow.unpaused == {READINESS_DAG}


def test_a_fence_that_was_loaded_since_the_update_needs_no_run() -> None:
    """A second deployment finds it, and triggers nothing."""
    standby = Standby().beats_from(1)
    standby.store.put(FENCE_LOADS, FenceLoad(region=B, at=standby.clock.now() + timedelta(seconds=1)))
    assert "a worker has loaded the fence since the update" in standby.prove()
    assert standby.runs == []


def test_a_fence_that_was_loaded_before_the_update_proves_nothing() -> None:
    """The workers of before are gone."""
    standby = Standby(loads_fence=False).beats_from(1).has_dag_from(1)
    standby.store.put(FENCE_LOADS, FenceLoad(region=B, at=standby.clock.now() - timedelta(hours=1)))
    with pytest.raises(DeploymentError, match="No worker has loaded the fence"):
        standby.prove()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Standby().has_dag_from(1), "no agent is alive"),
        (lambda: Standby(version="1.9").beats_from(1).has_dag_from(1), "live agents have version 1.9"),
        (lambda: Standby().beats_from(1), "Airflow lists no DAG dr_readiness"),
        (lambda: Standby(loads_fence=False).beats_from(1).has_dag_from(1), "of dr_readiness is"),
    ],
    ids=["no plugin", "old version", "no DAG", "no fence"],
)
def test_what_is_missing_is_named(make: Callable[[], Standby], why: str) -> None:
    """The message says that the active environment is unchanged, and what to look at."""
    standby = make()
    began = standby.clock.monotonic()
    with pytest.raises(DeploymentError) as caught:
        standby.prove()
    assert why in caught.value.message
    assert "The active environment was not changed." in caught.value.message
    assert "run the same command again" in caught.value.advice
    assert standby.clock.monotonic() - began >= PROOF_S
    assert READINESS_DAG not in standby.airflow.unpaused


def test_an_airflow_that_refuses_is_named_at_once() -> None:
    """Without the permission to call Airflow, the user can trigger the DAG."""
    standby = Standby().beats_from(1).has_dag_from(1)
    standby.airflow.read_only = True
    with pytest.raises(DeploymentError, match="dr_readiness cannot be run: ") as caught:
        standby.prove()
    assert "trigger dr_readiness in that environment yourself" in caught.value.advice


def test_a_web_server_that_restarts_is_waited_for() -> None:
    """It is the last part of an update that comes up."""
    standby = Standby().beats_from(1).has_dag_from(1)
    standby.airflow.unreachable = True

    def up() -> None:
        standby.airflow.unreachable = False

    standby.clock.after(100, up)
    assert "a task of dr_readiness" in standby.prove()
