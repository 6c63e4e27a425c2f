"""Two environments that claim one region: which continues, and what the other must not change."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, decide
from airflow_provider_mwaa_dr.core.ports import FENCE_LOADS, IDENTITY_CLAIMS, Observation, Registration
from airflow_provider_mwaa_dr.core.sites import Sites, parse_sites
from airflow_provider_mwaa_dr.exceptions import StateError
from airflow_provider_mwaa_dr.plugins.fence import Fence
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, InMemoryStateStore, ManualClock
from tests.simulation.airflow import SimulatedAirflow, SimulatedDag
from tests.unit.agent.test_loop import HERE, THERE, state

DAGS = [SimulatedDag("orders", every_s=10)]
QUIET_S = 20.0
"""Longer than a live agent may be silent."""


class DRTable:
    """A clock, the state table and the runs table, which all environments share."""

    def __init__(self, active: str = THERE) -> None:
        self.clock = ManualClock()
        self.store = InMemoryStateStore(state(active))
        self.runs = InMemoryRunsStore()

    def register(self, region: str, environment: str) -> None:
        self.store.register(Registration(region=region, environment=environment))


class MwaaEnvironment:
    """One MWAA environment with its own database: the agent of a scheduler, and workers with a home folder."""

    def __init__(
        self,
        table: DRTable,
        name: str,
        home: Path,
        *,
        aws_region: str = THERE,
        region: str = THERE,
        environments: Mapping[str, str] | None = None,
    ) -> None:
        self.table = table
        self.home = home / name / aws_region
        self.home.mkdir(parents=True)
        world: Any = SimpleNamespace(clock=table.clock, rng=random.Random(), is_traced=False)
        world.rng.random = lambda: 1.0  # no run is ever locked
        self.db = SimulatedAirflow(region, DAGS, world, table.clock)
        self.db.job_id, self.db.alive_schedulers = "7", lambda: ("7",)  # type: ignore[attr-defined]
        self.db.pulse = table.clock.monotonic  # type: ignore[attr-defined]
        self.db.paused = set()
        self.db.add(("orders", f"run of {name}"), run_type="manual", at=1.0, end=1.0, state="running")
        self.store = table.store.peer()
        self.runs = table.runs.peer()
        self.config = DRConfig(
            enabled=True,
            region=region,
            state_table="t",
            runs_table="r",
            environments=environments or {},
            environment=name,
            aws_region=aws_region,
            fence_wait_s=0,
            fence_file_s=0,
        )
        self.start()

    def start(self) -> None:
        self.loop = AgentLoop(
            config=self.config,
            store=self.store,
            runs=self.runs,
            db=self.db,  # type: ignore[arg-type]
            clock=self.table.clock,
            counts=GateCounts(),
            airflow_version="3",
        )

    def gate(self) -> Action:
        return decide(
            self.loop.view,
            region=self.config.region,
            exempt=False,
            now=self.table.clock.monotonic(),
            lease_s=60,
            point=DecisionPoint.GATE,
        ).action

    def fence(self) -> Action:
        fence = Fence(config=self.config, clock=self.table.clock, home=self.home, open_store=lambda: self.store)
        return fence.decide(exempt=False).action

    @property
    def may(self) -> tuple[Action, Action]:
        """The decisions of gate and fence."""
        return self.gate(), self.fence()

    def wrote(self) -> set[str]:
        """Return the names of the writing table methods that were called."""
        calls = {*self.store.calls, *(f"runs.{call}" for call in self.runs.calls)}
        return {
            call for call in calls if call.split(".")[-1].startswith(("put", "write", "forget", "app", "save", "reg"))
        }


def turns(*environments: MwaaEnvironment, seconds: float = 30.0) -> None:
    """Let the agents of the environments take turns for this number of seconds."""
    clock = environments[0].table.clock
    deadline = clock.monotonic() + seconds
    while clock.monotonic() < deadline:
        clock.advance(min(environment.loop.turn() for environment in environments))


BOTH_RUN, BOTH_HOLD = (Action.RUN, Action.RUN), (Action.HOLD, Action.HOLD)


BLUE_GREEN = parse_sites("blue=one@us-east-2,green=two@us-east-2")


@pytest.mark.parametrize("active", ["blue", "green"])
@pytest.mark.parametrize("sites", [BLUE_GREEN, Sites()], ids=["settings", "registry"])
def test_of_two_sites_in_one_region_one_is_active(active: str, sites: Sites, tmp_path: Path) -> None:
    """AWS_REGION is the same in both, so the id tells them apart."""
    table = DRTable(active)
    for site in BLUE_GREEN.all:
        table.store.register(Registration(region=site.id, environment=site.environment, aws_region=site.aws_region))
    one = MwaaEnvironment(table, "one", tmp_path, region="blue", environments=sites)
    two = MwaaEnvironment(table, "two", tmp_path, region="green", environments=sites)
    turns(one, two)

    skips = Action.SKIP, Action.SKIP
    assert (one.may, two.may) == ((BOTH_RUN, skips) if active == "blue" else (skips, BOTH_RUN))
    assert [agent.environment for agent in table.store.agents("blue")] == ["one"]
    assert [agent.environment for agent in table.store.agents("green")] == ["two"]


@pytest.mark.parametrize("active", ["blue", "green"])
def test_a_copied_site_makes_no_second_active_site(active: str, tmp_path: Path) -> None:
    """The copy holds. Its claim is an item of its own site, because its role may write no other one."""
    table = DRTable(active)
    for site in BLUE_GREEN.all:
        table.store.register(Registration(region=site.id, environment=site.environment, aws_region=site.aws_region))
    one = MwaaEnvironment(table, "one", tmp_path, region="blue", environments=BLUE_GREEN)
    two = MwaaEnvironment(table, "two", tmp_path, region="blue", environments=BLUE_GREEN)
    turns(one, two)

    assert one.may == (BOTH_RUN if active == "blue" else (Action.SKIP, Action.SKIP))
    assert two.may == BOTH_HOLD
    assert two.wrote() == {"put identity claim"}
    assert [agent.environment for agent in table.store.agents("blue")] == ["one"]
    assert table.store.agents("green") == []
    (claim,) = table.store.find_all(IDENTITY_CLAIMS, "green")
    assert (claim.region, claim.environment, claim.aws_region) == ("blue", "two", THERE)
    assert "set [dr] site to green" in claim.problem


def test_an_environment_outside_the_set_holds_under_the_name_of_a_site(tmp_path: Path) -> None:
    """Its claim is listed under the site that it claims: it has no site of its own."""
    table = DRTable("blue")
    stranger = MwaaEnvironment(table, "three", tmp_path, region="blue", environments=BLUE_GREEN)
    turns(stranger)
    assert stranger.may == BOTH_HOLD
    (claim,) = table.store.find_all(IDENTITY_CLAIMS, "blue")
    assert (claim.environment, table.store.agents("blue")) == ("three", [])


@pytest.mark.parametrize("active", [HERE, THERE])
def test_a_copied_region_makes_no_second_active_region(active: str, tmp_path: Path) -> None:
    """``[dr] region`` was copied from the other environment. The copy holds, and writes only its claim."""
    table = DRTable(active)
    table.register(THERE, "one")
    table.register(HERE, "two")
    one, two = MwaaEnvironment(table, "one", tmp_path), MwaaEnvironment(table, "two", tmp_path, aws_region=HERE)
    turns(one, two)

    assert one.may == (BOTH_RUN if active == THERE else (Action.SKIP, Action.SKIP))
    assert two.may == BOTH_HOLD
    assert two.wrote() == {"put identity claim"}
    assert [(run.key, run.state) for run in two.db.by_id] == [(("orders", "run of two"), "running")]
    assert two.db.paused == set()
    assert [agent.environment for agent in table.store.agents(THERE)] == ["one"]
    assert table.store.agents(HERE) == []
    (claim,) = table.store.find_all(IDENTITY_CLAIMS, HERE)
    assert (claim.region, claim.environment, claim.aws_region) == (THERE, "two", HERE)
    assert "AWS_REGION is us-east-1" in claim.problem


def test_the_unregistered_one_of_two_environments_holds_alone(tmp_path: Path) -> None:
    """
    Blue and green are in one region and have the same job number. The registered one continues, with heartbeats of its
    own.
    """
    table = DRTable()
    table.register(THERE, "blue")
    blue, green = MwaaEnvironment(table, "blue", tmp_path), MwaaEnvironment(table, "green", tmp_path)
    turns(green, blue)

    assert (blue.may, green.may) == (BOTH_RUN, BOTH_HOLD)
    assert green.wrote() == {"put identity claim"}
    (agent,) = table.store.agents(THERE)
    assert (agent.environment, agent.job) == ("blue", "7")
    (claim,) = table.store.find_all(IDENTITY_CLAIMS, THERE)
    assert (claim.environment, claim.job) == ("green", "7")


def test_init_replaces_an_environment_that_still_sends_heartbeats(tmp_path: Path) -> None:
    """The registered name changes from blue to green. Green continues and blue holds, whether blue is alive or not."""
    table = DRTable()
    table.register(THERE, "blue")
    blue, green = MwaaEnvironment(table, "blue", tmp_path), MwaaEnvironment(table, "green", tmp_path)
    turns(blue, green)
    table.register(THERE, "green")
    turns(blue, green)

    assert (blue.may, green.may) == (BOTH_HOLD, BOTH_RUN)
    assert [agent.environment for agent in table.store.agents(THERE)] == ["green"]
    assert [claim.environment for claim in table.store.find_all(IDENTITY_CLAIMS, THERE)] == ["blue"]
    turns(green, seconds=700)
    assert table.store.find_all(IDENTITY_CLAIMS, THERE) == []
    assert green.may == BOTH_RUN


def test_two_environments_hold_while_no_name_is_registered(tmp_path: Path) -> None:
    """Without a registered name, neither starts a run from its first turn on, until init names one."""
    table = DRTable()
    one, two = MwaaEnvironment(table, "one", tmp_path), MwaaEnvironment(table, "two", tmp_path)
    decided = set()
    for _ in range(40):
        turns(one, two, seconds=1)
        decided |= {one.gate(), two.gate()}
    assert decided == {Action.HOLD}
    assert (one.may, two.may) == (BOTH_HOLD, BOTH_HOLD)
    assert "one (us-east-2) and two (us-east-2)" in table.store.find_all(IDENTITY_CLAIMS, THERE)[0].problem

    table.register(THERE, "two")
    turns(one, two)
    assert (one.may, two.may) == (BOTH_HOLD, BOTH_RUN)


def test_an_environment_that_starts_beside_an_unregistered_one_stops_both(tmp_path: Path) -> None:
    """The first executes while it is alone. When the heartbeats of the second arrive, no registered name can decide."""
    table = DRTable()
    one = MwaaEnvironment(table, "one", tmp_path)
    turns(one)
    assert one.may == BOTH_RUN

    two = MwaaEnvironment(table, "two", tmp_path)
    two.loop.turn()
    assert two.may == BOTH_HOLD
    turns(one, two, seconds=10)
    assert (one.may, two.may) == (BOTH_HOLD, BOTH_HOLD)

    turns(one, seconds=2 * QUIET_S)  # two is deleted
    assert one.may == BOTH_RUN


def test_heartbeats_of_a_replaced_environment_hold_no_run(tmp_path: Path) -> None:
    """The last heartbeats of a deleted environment are still in the table, and no name is registered."""
    table = DRTable()
    turns(MwaaEnvironment(table, "old", tmp_path))
    table.clock.advance(QUIET_S)
    new = MwaaEnvironment(table, "new", tmp_path)
    turns(new, seconds=10)
    assert new.may == BOTH_RUN


def test_an_environment_that_is_registered_again_continues_its_ledger(tmp_path: Path) -> None:
    """A user registered the wrong name and corrects it. The environment reads what the region wrote meanwhile."""
    table = DRTable()
    table.register(THERE, "one")
    one, two = MwaaEnvironment(table, "one", tmp_path), MwaaEnvironment(table, "two", tmp_path)
    turns(one, two)
    table.register(THERE, "two")
    turns(one, two)
    table.register(THERE, "one")
    turns(one, two)
    assert (one.may, two.may) == (BOTH_RUN, BOTH_HOLD)
    (agent,) = table.store.agents(THERE)
    assert (agent.environment, agent.ledger_error, agent.reconciled_epoch) == ("one", None, 0)


def test_an_agent_of_an_earlier_provider_disputes_nothing(tmp_path: Path) -> None:
    """Its heartbeat has no environment name. Two schedulers of one environment are updated one after the other."""
    table = DRTable()
    one = MwaaEnvironment(table, "one", tmp_path)
    turns(one)
    (agent,) = table.store.agents(THERE)
    for beat in range(10):
        table.store.put_agent(replace(agent, job="8", beat=beat, environment=None, aws_region=None))
        turns(one, seconds=5)
    assert one.may == BOTH_RUN


def test_a_worker_of_the_wrong_environment_is_no_evidence_for_the_fence(tmp_path: Path) -> None:
    """FENCE#region is evidence only for the region's own workers."""
    table = DRTable()
    table.register(THERE, "one")
    turns(MwaaEnvironment(table, "one", tmp_path))
    two = MwaaEnvironment(table, "two", tmp_path)
    assert two.fence() is Action.HOLD
    assert table.store.get(FENCE_LOADS, THERE) is None


def test_a_task_is_held_from_the_shared_file_too(tmp_path: Path) -> None:
    """The tasks of one machine share the problem together with the read."""
    table = DRTable()
    table.register(THERE, "one")
    turns(MwaaEnvironment(table, "one", tmp_path))
    two = MwaaEnvironment(table, "two", tmp_path)
    two.config = replace(two.config, fence_file_s=3)
    assert [two.fence(), two.fence()] == [Action.HOLD, Action.HOLD]
    assert two.store.calls.count("observe") == 1


def test_two_environments_named_for_one_region_hold(tmp_path: Path) -> None:
    """``[dr] environments`` names two environments for one region, so it is unknown which Airflow is which."""
    table = DRTable()
    table.register(THERE, "one")
    one = MwaaEnvironment(table, "one", tmp_path)
    one.config = replace(one.config, contradiction="[dr] environments names two environments for us-east-2")
    one.start()
    turns(one)
    assert one.may == BOTH_HOLD
    assert one.wrote() == {"put identity claim"}
    assert table.clock.now() - table.store.find_all(IDENTITY_CLAIMS, THERE)[0].at < timedelta(seconds=10)


def test_a_copied_region_sends_no_heartbeat_while_the_state_cannot_be_read(tmp_path: Path) -> None:
    """MWAA's own values are enough to decide. A heartbeat could have the same job number as one of the real region."""
    table = DRTable()
    table.register(THERE, "one")
    table.register(HERE, "two")
    one = MwaaEnvironment(table, "one", tmp_path)
    turns(one)

    def unreadable(region: str) -> Observation:
        raise StateError(f"The state item cannot be understood by {region}.")

    two = MwaaEnvironment(table, "two", tmp_path, aws_region=HERE)
    two.store.observe = unreadable  # type: ignore[method-assign]
    turns(one, two)
    assert two.gate() is Action.HOLD
    assert [agent.environment for agent in table.store.agents(THERE)] == ["one"]
    assert [claim.environment for claim in table.store.find_all(IDENTITY_CLAIMS, HERE)] == ["two"]
