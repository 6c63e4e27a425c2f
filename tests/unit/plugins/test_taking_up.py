"""The agent takes up a role with a ledger: what it has queued stays queued, whatever is repeated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.ledger import LogEntry, RunStatus
from airflow_provider_mwaa_dr.core.ports import AgentStatus, Registration
from airflow_provider_mwaa_dr.core.state import initial, set_active_region
from airflow_provider_mwaa_dr.plugins.agent import AgentLoop, GateCounts
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, InMemoryStateStore, ManualClock
from tests.simulation.airflow import SimulatedAirflow, SimulatedDag

HERE, THERE = "us-east-1", "us-east-2"
MANY = [f"dag_{number:04}" for number in range(1200)]
DAGS = [SimulatedDag("orders", every_s=10), *map(SimulatedDag, MANY)]


class Region:
    """A region's Airflow in memory, and its one agent."""

    def __init__(self, name: str, pair: Pair) -> None:
        world: Any = SimpleNamespace(clock=pair.clock, rng=random.Random(), is_traced=False)
        world.rng.random = lambda: 1.0  # nothing is ever locked
        self.name, self.pair, self.runs = name, pair, pair.runs.peer()
        self.db = SimulatedAirflow(name, pair.dags, world, pair.clock)
        self.db.job_id = "1"  # type: ignore[attr-defined]
        self.db.alive_schedulers = lambda: ("1",)  # type: ignore[attr-defined]
        self.db.pulse = pair.clock.monotonic  # type: ignore[attr-defined]
        self.restart()

    def restart(self) -> None:
        config = DRConfig(
            enabled=True, region=self.name, state_table="t", runs_table="r", fence=False, environments={}
        )  # fmt: skip
        self.loop = AgentLoop(
            config=config,
            store=self.pair.store,
            runs=self.runs,
            db=self.db,  # type: ignore[arg-type]
            clock=self.pair.clock,
            counts=GateCounts(),
            airflow_version="3",
        )

    def turn(self, turns: int = 1) -> None:
        for _ in range(turns):
            self.pair.clock.advance(self.loop.turn())

    def add(self, number: int, state: str = "running") -> None:
        at = float(number)
        self.db.add(("orders", f"r{number}"), run_type="scheduled", at=at, end=at, state=state)

    @property
    def states(self) -> dict[str, int]:
        """How many runs there are in each state."""
        found = [run.state for run in self.db.rows.values()]
        return {state: found.count(state) for state in set(found)}

    @property
    def status(self) -> AgentStatus:
        (status,) = self.pair.store.agents(self.name)
        return status


class Pair:
    """Two regions over the same tables; *THERE* is active."""

    def __init__(self, dags: Sequence[SimulatedDag] = DAGS) -> None:
        self.dags = dags
        self.clock = ManualClock()
        self.store = InMemoryStateStore(initial(THERE, lease_s=60, by="t", at=self.clock.now()), regions=(HERE, THERE))
        self.runs = InMemoryRunsStore()
        for name in (HERE, THERE):
            self.store.register(Registration(region=name, environment=name))
        self.here, self.there = Region(HERE, self), Region(THERE, self)

    def flip(self, region: str) -> None:
        state = self.store.state
        assert state is not None
        self.store.write(
            set_active_region(state, region, reason="r", by="b", at=self.clock.now()), expected_version=state.version
        )


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.there.turn(2)
    pair.here.turn(2)
    return pair


def test_more_interrupted_runs_than_one_turn_takes_are_all_queued(pair: Pair) -> None:
    """What an earlier turn of the same promotion has queued is not closed by a later one."""
    for number in range(700):
        pair.there.add(number)
    pair.there.turn(2)
    pair.flip(HERE)
    pair.there.turn(2)
    pair.here.turn(4)
    assert pair.here.states == {"queued": 700}


def test_a_standby_that_has_more_to_take_over_does_not_wait_for_its_next_look(pair: Pair) -> None:
    """The history of many DAGs, which one turn takes only a part of, is there within seconds."""
    for dag_id in MANY:
        pair.there.db.add((dag_id, "r1"), run_type="scheduled", at=1.0, end=1.0, state="success")
    pair.there.turn(2)
    rests = [pair.here.loop.turn() for _ in range(4)]
    assert rests == [0.5, 0.5, 5.0, 5.0]
    assert len(pair.here.db.rows) == len(MANY)


@pytest.mark.parametrize("dies", [False, True])
def test_a_heartbeat_that_fails_after_the_runs_were_queued_costs_none_of_them(pair: Pair, dies: bool) -> None:
    """The region's open runs are its new role's by then, which the table does not know yet."""
    for number in range(3):
        pair.there.add(number)
    pair.there.turn(2)
    pair.flip(HERE)
    pair.there.turn(2)
    put_agent = pair.store.put_agent

    def refuse(status: AgentStatus) -> None:
        raise OSError("cut off")

    pair.store.put_agent = refuse  # type: ignore[method-assign]
    pair.here.turn()
    assert pair.here.states == {"queued": 3}
    pair.store.put_agent = put_agent  # type: ignore[method-assign]
    if dies:
        pair.here.restart()
    pair.here.turn(3)
    assert pair.here.states == {"queued": 3}


@pytest.mark.parametrize("before_it_lands", [False, True])
def test_a_ledger_that_fails_while_runs_are_taken_over_costs_none_of_them(pair: Pair, before_it_lands: bool) -> None:
    """Those that were said to be taken are queued on the next turn: an entry may have landed, its checkpoint not."""
    for number in range(3):
        pair.there.add(number)
    pair.there.turn(2)
    pair.flip(HERE)
    pair.there.turn(2)
    pair.here.loop.warm_up()
    append, save = pair.here.runs.append, pair.here.runs.save_checkpoint

    def refuse(*_: Any) -> None:
        pair.here.runs.save_checkpoint = pair.here.runs.append = refuse  # type: ignore[method-assign]
        raise OSError("throttled")

    def last(region: str, entry: Any) -> None:
        if before_it_lands and entry.runs:
            refuse()
        append(region, entry)
        if entry.runs:
            pair.clock.advance(301)  # a checkpoint is due
            pair.here.runs.save_checkpoint = refuse  # type: ignore[method-assign]

    pair.here.runs.append = last  # type: ignore[method-assign]
    pair.here.turn()
    pair.here.runs.append, pair.here.runs.save_checkpoint = append, save  # type: ignore[method-assign]
    pair.here.turn(3)
    assert pair.here.states == {"queued": 3}


def test_what_another_leader_has_begun_is_finished_by_one_that_had_found_runs_left_over(pair: Pair) -> None:
    """They are closed by then, and what the other one has queued stays queued."""
    pair.here.add(1)
    pair.there.add(2)
    pair.there.turn(2)
    close = pair.here.db.close_runs
    pair.here.db.close_runs = lambda *_, **__: 0  # type: ignore[method-assign]
    pair.flip(HERE)
    pair.there.turn(2)
    pair.here.turn(2)
    assert pair.here.status.unclosed_runs == 1
    pair.here.db.close_runs = close  # type: ignore[method-assign]
    old, put_agent = pair.here.loop, pair.store.put_agent
    pair.here.restart()

    def refuse(status: AgentStatus) -> None:
        raise OSError("cut off")

    pair.store.put_agent = refuse  # type: ignore[method-assign]
    pair.here.turn()
    pair.store.put_agent = put_agent  # type: ignore[method-assign]
    pair.here.loop = old
    pair.here.turn(3)
    assert (pair.here.status.unclosed_runs, pair.here.status.adopted_epoch) == (0, 1)
    assert pair.here.states == {"failed": 1, "queued": 1}


def test_a_cleared_run_is_queued_although_the_agent_dies_between_adopting_and_queuing_it(pair: Pair) -> None:
    """
    It ended, was published, and a user cleared it in the drain: the target adopts it and resumes it in one turn.

    The next leader took the adopted row, which was as new as the entry, for one that had been queued, and published
    its old result: the run was lost (seeds 7013373, 7026793 and 7059800).
    """
    pair.here.db.next_at["orders"] = pair.there.db.next_at["orders"] = 1e9  # nothing is created
    pair.there.add(0)
    pair.there.turn()
    pair.there.db.set_state(pair.there.db.rows["orders", "r0"], "success")
    pair.there.turn()
    pair.there.db.clear(("orders", "r0"))
    pair.there.turn()
    pair.flip(HERE)
    pair.there.turn(2)

    def die(*_: Any) -> None:
        raise OSError("killed")

    pair.here.db.resume = die  # type: ignore[method-assign]
    pair.here.turn(2)
    assert pair.here.states == {"success": 1}
    del pair.here.db.resume  # type: ignore[attr-defined]
    pair.here.restart()
    pair.here.turn(3)
    assert pair.here.states == {"queued": 1}


def test_what_has_executed_since_the_role_came_is_published_before_anything_is_resumed(pair: Pair) -> None:
    """
    A leader takes the role up, and its heartbeats fail; an interval executes; the next leader takes the role up again.

    The source returns at that moment and publishes the same interval as interrupted. The new leader resumed it before
    it published its own region's result.
    """
    pair.here.db.next_at["orders"] = pair.there.db.next_at["orders"] = 1e9  # nothing is created
    pair.flip(HERE)
    put_agent = pair.store.put_agent

    def refuse(status: AgentStatus) -> None:
        raise OSError("cut off")

    pair.store.put_agent = refuse  # type: ignore[method-assign]
    pair.here.turn(2)
    pair.store.put_agent = put_agent  # type: ignore[method-assign]
    pair.here.add(1, state="success")  # executed here
    pair.there.add(1)  # and it was executing in the source when that was cut off
    pair.there.turn(2)
    pair.here.restart()
    pair.here.turn(3)
    assert pair.here.states == {"success": 1}


@pytest.mark.parametrize("arrives", [True, False])
def test_a_region_waits_some_seconds_for_an_entry_that_is_missing_before_later_ones(pair: Pair, arrives: bool) -> None:
    """
    A copy of the table may receive entries in any order. The missing one may say that an unfinished run has ended.

    The region became active, held these runs, and executed later intervals before them (seed 522781871). An entry that
    was deleted never arrives: the region continues after 20 seconds, and holds the runs.
    """
    pair.here.db.next_at["orders"] = pair.there.db.next_at["orders"] = 1e9  # nothing is created
    pair.there.add(1)
    pair.there.turn()
    pair.here.turn()
    missing = pair.runs.log(THERE, after=0)[-1].number + 1
    for number in (2, 3):
        pair.there.add(number)
        pair.there.turn()
    pair.flip(HERE)
    log = pair.here.runs.log
    pair.here.runs.log = lambda region, *, after: [  # type: ignore[method-assign]
        entry for entry in log(region, after=after) if entry.number != missing
    ]
    pair.here.turn(2)
    assert pair.here.status.adopted_epoch is None
    if arrives:
        pair.here.runs.log = log  # type: ignore[method-assign]
        pair.here.turn()
        assert (pair.here.status.adopted_epoch, pair.here.states) == (1, {"queued": 3})
    else:
        pair.clock.advance(20)
        pair.here.turn(2)
        assert (pair.here.status.adopted_epoch, pair.here.states) == (1, {})


def test_an_entry_that_another_agent_of_the_region_wrote_is_no_error_of_the_ledger(pair: Pair) -> None:
    """
    Two agents of a region write the ledger within one poll. The second one reads the entry and writes after it.

    A heartbeat that reported the conflict made a failover refuse the region (seed 1810214109).
    """
    first = pair.there.loop
    pair.there.restart()
    pair.there.add(1)
    pair.there.turn()
    pair.there.loop = first
    pair.there.add(2)
    errors = []
    put_agent = pair.store.put_agent

    def note(status: AgentStatus) -> None:
        errors.append(status.ledger_error)
        put_agent(status)

    pair.store.put_agent = note  # type: ignore[method-assign]
    pair.there.turn(3)
    assert (set(errors), pair.runs.log(THERE, after=0)[-1].runs[-1].run_id) == ({None}, "r2")


def test_a_turn_that_stood_still_closes_nothing_of_a_role_that_has_come_back_meanwhile(pair: Pair) -> None:
    """
    A call takes half a minute, and the run that a user has triggered since was closed as one of the standby.

    Simulated history 20000774: what is closed must have been looked at, and the look must not be old.
    """
    pair.flip(HERE)
    pair.there.turn(2)
    pair.here.turn(2)
    pair.flip(THERE)

    def take_long() -> None:
        pair.here.db.before_change = lambda: None
        pair.clock.advance(30)
        pair.flip(HERE)
        pair.here.add(7, state="queued")

    pair.here.db.before_change = take_long
    pair.here.turn()
    assert pair.here.states == {"queued": 1}
    pair.there.turn(2)
    pair.here.turn(3)
    assert pair.here.states == {"queued": 1}


def test_a_region_starts_nothing_before_its_ledger_has_accepted_its_first_role() -> None:
    """
    It executed under a role that its ledger had never heard of, lost the role, and closed its runs without a record.

    Simulated history 50000471. As at each other role the region waits for ``ledger_wait_s`` at most.
    """
    pair = Pair()
    pair.there.runs.unreachable = True
    pair.there.turn(2)
    assert pair.store.observe(THERE).reconciled_epoch is None
    pair.there.runs.unreachable = False
    pair.there.turn(1)
    assert pair.store.observe(THERE).reconciled_epoch == 0
    assert pair.runs.log(THERE, after=0)[0].complete_before == 0


def test_a_region_whose_ledger_refuses_its_first_role_continues_without_it_after_the_limit() -> None:
    """A runs table that can never be reached must not stop a region that has nothing to take over."""
    pair = Pair()
    pair.there.runs.unreachable = True
    pair.there.turn(1)
    pair.clock.advance(400)
    pair.there.turn(1)
    assert pair.store.observe(THERE).reconciled_epoch == 0


def test_a_region_cut_off_between_its_ledger_and_its_first_heartbeat_publishes_what_it_closes() -> None:
    """
    The ledger knew that the role had begun, the state table did not, and a run was closed without a record.

    Simulated history 50000605.
    """
    pair = Pair()
    append = pair.there.runs.append

    def cut_off_after(region: str, entry: LogEntry) -> None:
        append(region, entry)
        pair.store.unreachable = True

    pair.there.runs.append = cut_off_after  # type: ignore[method-assign]
    pair.there.turn()
    pair.there.runs.append = append  # type: ignore[method-assign]
    pair.there.add(1)
    pair.store.unreachable = False
    assert pair.store.observe(THERE).reconciled_epoch is None
    pair.flip(HERE)
    pair.there.turn(2)
    assert pair.there.states == {"failed": 1}
    [told] = [run for entry in pair.runs.log(THERE, after=0) for run in entry.runs]
    assert told.status is RunStatus.INTERRUPTED


def test_a_region_publishes_while_the_checkpoint_of_the_other_one_is_on_its_way() -> None:
    """The heartbeat names the item that has not arrived; what happens here is published all the same."""
    pair = Pair()
    pair.here.turn(3)
    pair.there.turn(3)
    pair.there.restart()
    pair.there.runs.on_their_way = {HERE}
    pair.there.add(1)
    pair.there.turn(8)
    error = pair.there.status.ledger_error
    assert error is not None
    assert f"PICTURE#{HERE} manifest" in error
    assert ("orders", "r1") in {run.key for entry in pair.runs.log(THERE, after=0) for run in entry.runs}
    pair.there.runs.on_their_way = set()
    pair.there.turn(8)
    assert pair.there.status.ledger_error is None


@pytest.mark.parametrize("arrives", [False, True])
def test_a_target_waits_for_a_checkpoint_that_is_on_its_way_and_continues_after_its_limit(
    pair: Pair, arrives: bool
) -> None:
    """The wait is shown, and ends: with the checkpoint, or after ledger_wait_s without it."""
    pair.there.add(1)
    pair.there.turn(2)
    pair.here.restart()
    pair.here.runs.on_their_way = {THERE}
    pair.flip(HERE)
    pair.there.turn(3)
    pair.here.turn(3)
    assert pair.store.observe(HERE).reconciled_epoch == 0
    assert f"PICTURE#{THERE} manifest" in str(pair.here.status.ledger_error)
    if arrives:
        pair.here.runs.on_their_way = set()
    else:
        pair.clock.advance(301)
    pair.here.turn(5)
    assert pair.store.observe(HERE).reconciled_epoch == 1
    assert pair.here.states == ({"queued": 1} if arrives else {})
