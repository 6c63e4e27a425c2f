"""A region with a ledger becomes active: runs that its agent has queued stay queued, whatever is repeated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.ledger import LogEntry, RunStatus
from airflow_provider_mwaa_dr.core.ports import AgentStatus, Registration
from airflow_provider_mwaa_dr.core.state import Mode, Phase, Plan, initial, set_active_region
from airflow_provider_mwaa_dr.exceptions import StateUnreachableError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, InMemoryStateStore, ManualClock
from tests.simulation.airflow import SimulatedAirflow, SimulatedDag

HERE, THERE = "us-east-1", "us-east-2"
MANY = [f"dag_{number:04}" for number in range(1200)]
DAGS = [SimulatedDag("orders", every_s=10), *map(SimulatedDag, MANY)]


class Region:
    """A region: an Airflow in memory, and its only agent."""

    def __init__(self, name: str, pair: Pair) -> None:
        world: Any = SimpleNamespace(clock=pair.clock, rng=random.Random(), is_traced=False)
        world.rng.random = lambda: 1.0  # no run is ever locked
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
        """The number of runs in each state."""
        found = [run.state for run in self.db.rows.values()]
        return {state: found.count(state) for state in set(found)}

    @property
    def status(self) -> AgentStatus:
        (status,) = self.pair.store.agents(self.name)
        return status


class Pair:
    """Two regions with the same tables; *THERE* is active."""

    def __init__(self, dags: Sequence[SimulatedDag] = DAGS) -> None:
        self.dags = dags
        self.clock = ManualClock()
        self.store = InMemoryStateStore(initial(THERE, lease_s=60, by="t", at=self.clock.now()), regions=(HERE, THERE))
        self.runs = InMemoryRunsStore()
        for name in (HERE, THERE):
            self.store.register(Registration(region=name, environment=name))
        self.here, self.there = Region(HERE, self), Region(THERE, self)

    def flip(self, region: str, phase: Phase = Phase.STEADY) -> None:
        state = self.store.state
        assert state is not None
        steady = replace(state, phase=Phase.STEADY, plan=None)
        flipped = set_active_region(steady, region, reason="r", by="b", at=self.clock.now())
        plan = None if phase is Phase.STEADY else _plan(state.active_region, region)
        self.store.write(replace(flipped, phase=phase, plan=plan), expected_version=state.version)


def _plan(source: str, target: str) -> Plan:
    at = ManualClock().now()
    return Plan(id="p", source=source, target=target, mode=Mode.FORCED, reason="r", by="b", owner="o", started_at=at)


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.there.turn(2)
    pair.here.turn(2)
    return pair


def test_more_interrupted_runs_than_one_turn_resumes_are_all_queued(pair: Pair) -> None:
    """A later turn of the same promotion must not close runs that an earlier turn queued."""
    for number in range(700):
        pair.there.add(number)
    pair.there.turn(2)
    pair.flip(HERE)
    pair.there.turn(2)
    pair.here.turn(4)
    assert pair.here.states == {"queued": 700}


def test_a_standby_with_more_runs_to_adopt_does_not_wait_for_its_next_poll(pair: Pair) -> None:
    """One turn adopts only part of the history of many DAGs. The rest follows within seconds."""
    for dag_id in MANY:
        pair.there.db.add((dag_id, "r1"), run_type="scheduled", at=1.0, end=1.0, state="success")
    pair.there.turn(2)
    rests = [pair.here.loop.turn() for _ in range(4)]
    assert rests == [0.5, 0.5, 5.0, 5.0]
    assert len(pair.here.db.rows) == len(MANY)


def test_an_agent_that_stops_leading_does_not_hurry(pair: Pair) -> None:
    """Another agent adopts the rest of the history."""
    for dag_id in MANY:
        pair.there.db.add((dag_id, "r1"), run_type="scheduled", at=1.0, end=1.0, state="success")
    pair.there.turn(2)
    assert pair.here.loop.turn() == 0.5
    pair.here.db.alive_schedulers = lambda: ("0", "1")  # type: ignore[attr-defined]
    assert pair.here.loop.turn() == 5.0


@pytest.mark.parametrize("dies", [False, True])
def test_a_heartbeat_that_fails_after_the_runs_were_queued_loses_no_run(pair: Pair, dies: bool) -> None:
    """The open runs belong to the region's new role, but the table does not have its reconciled epoch yet."""
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
def test_a_ledger_that_fails_while_runs_are_resumed_loses_no_run(pair: Pair, before_it_lands: bool) -> None:
    """The entry that names them may have landed, and its checkpoint not. The next turn queues these runs."""
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
            pair.clock.advance(301)  # time to save a checkpoint
            pair.here.runs.save_checkpoint = refuse  # type: ignore[method-assign]

    pair.here.runs.append = last  # type: ignore[method-assign]
    pair.here.turn()
    pair.here.runs.append, pair.here.runs.save_checkpoint = append, save  # type: ignore[method-assign]
    pair.here.turn(3)
    assert pair.here.states == {"queued": 3}


def test_a_leader_that_returns_finishes_the_promotion_that_another_leader_began(pair: Pair) -> None:
    """It had found unclosed runs. The other leader has closed them since, and has queued runs, which stay queued."""
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
    assert pair.here.states == {"queued": 1}, "the run of the standby is deleted"


def test_a_cleared_run_is_queued_although_the_agent_dies_between_adopting_and_resuming_it(pair: Pair) -> None:
    """
    A run ended and was published, and a user cleared it during the drain. The target adopts and resumes it in one turn.

    Before the fix, the next leader took the adopted row for a queued run, because the row was as new as the entry. It
    published the old outcome, and the run was lost (seeds 7013373, 7026793 and 7059800).
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


def test_a_new_leader_publishes_what_its_region_executed_before_it_resumes(pair: Pair) -> None:
    """
    The region becomes active, but its leader's heartbeats fail. The region executes an interval. Then a new leader
    takes its first turn.

    At that moment the source returns and publishes the same interval as interrupted. Before the fix, the new leader
    resumed the run before it published its own region's outcome.
    """
    pair.here.db.next_at["orders"] = pair.there.db.next_at["orders"] = 1e9  # nothing is created
    pair.flip(HERE)
    put_agent = pair.store.put_agent

    def refuse(status: AgentStatus) -> None:
        raise OSError("cut off")

    pair.store.put_agent = refuse  # type: ignore[method-assign]
    pair.here.turn(2)
    pair.store.put_agent = put_agent  # type: ignore[method-assign]
    pair.here.add(1, state="success")  # the target executed it
    pair.there.add(1)  # the source was executing it when it was cut off
    pair.there.turn(2)
    pair.here.restart()
    pair.here.turn(3)
    assert pair.here.states == {"success": 1}


@pytest.mark.parametrize("arrives", [True, False])
def test_a_region_waits_for_a_missing_entry_that_comes_before_others(pair: Pair, arrives: bool) -> None:
    """
    A copy of the table may receive entries in any order. The missing entry may contain the end of an unfinished run.

    Before the fix, the region became active, held such runs, and executed later intervals before them (seed 522781871).
    A deleted entry never arrives: after 20 seconds the region continues, and holds the runs.
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
    Two agents of a region write to the ledger within one poll interval. The second agent reads the entry and writes
    after it.

    Before the fix, a heartbeat reported the conflict, and a failover refused the region (seed 1810214109).
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


def test_a_frozen_turn_closes_no_run_of_a_role_that_has_come_back_meanwhile(pair: Pair) -> None:
    """
    A call takes half a minute. Meanwhile the region becomes active again, and a user triggers a run.

    Before the fix, the agent closed the run as born in standby (simulated history 20000774). It may close only runs
    that it listed shortly before.
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
    As with every later role, the region waits at most ``ledger_wait_s`` for its ledger.

    Before the fix, it executed under a role that its ledger did not have, lost the role, and closed its runs without
    publishing them (simulated history 50000471).
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
    """A runs table that is never reachable must not stop a region that has no run to resume."""
    pair = Pair()
    pair.there.runs.unreachable = True
    pair.there.turn(1)
    pair.clock.advance(400)
    pair.there.turn(1)
    assert pair.store.observe(THERE).reconciled_epoch == 0


@pytest.mark.parametrize("has_executed", [False, True])
def test_held_runs_continue_in_a_region_that_becomes_active_before_any_region_has_executed(has_executed: bool) -> None:
    """
    The region could not begin its first role, and the other region has not executed in between. So the intervals that
    the gate holds have not executed. Before the fix, the agent closed them, and they stayed failed and were lost,
    because no ledger had their DAGs. If the other region has executed, its ledger decides on each of them.
    """
    pair = Pair()
    pair.there.runs.unreachable = True
    pair.there.add(1, "queued")
    pair.there.turn(2)
    pair.flip(HERE)
    if has_executed:
        pair.here.turn(2)
    pair.flip(THERE, Phase.PROMOTING)
    pair.there.runs.unreachable = False
    pair.there.turn(3)
    assert pair.there.states == ({} if has_executed else {"queued": 1})


@pytest.mark.parametrize(("has_begun", "is_resumed"), [(False, False), (True, False), (False, True)])
def test_held_runs_continue_in_a_region_that_reads_that_its_first_role_has_moved_and_gets_it_back(
    has_begun: bool, is_resumed: bool
) -> None:
    """
    The target of the failover is lost and never executes; its ledger may have the begin of its role. Before the fix,
    the region closed the intervals that it had held as soon as it read that it is a standby, and they stayed failed
    after the failback (simulated history 1749904301). When the target resumes, it may execute, and the region closes
    them.
    """
    pair = Pair()
    pair.there.runs.unreachable = True
    pair.there.add(1, "queued")
    pair.there.turn(2)
    pair.flip(HERE, Phase.PROMOTING)
    if has_begun:
        append = pair.here.runs.append

        def die_after(region: str, entry: LogEntry) -> None:
            append(region, entry)
            pair.here.runs.unreachable = True

        pair.here.runs.append = die_after  # type: ignore[method-assign]
        pair.here.turn(1)
        assert len(pair.runs.log(HERE, after=0)) == 1
    pair.there.runs.unreachable = False
    pair.there.turn(3)
    assert pair.there.states == {"queued": 1}
    assert pair.there.status.ledger_wait_s is None
    state = pair.store.state
    assert state is not None
    assert state.plan is not None
    phase = Phase.RESUMING if is_resumed else Phase.PROMOTING
    back = replace(_plan(HERE, THERE), replaced=(phase, state.plan))
    pair.store.write(
        replace(state, phase=Phase.DRAINING, plan=back, version=state.version + 1), expected_version=state.version
    )
    pair.there.turn(3)
    assert pair.there.states == {"failed" if is_resumed else "queued": 1}
    if is_resumed:
        return
    pair.flip(THERE, Phase.PROMOTING)
    pair.there.turn(3)
    assert pair.there.states == {"queued": 1}
    assert pair.store.observe(THERE).reconciled_epoch == 2


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_run_of_an_earlier_role_is_not_spared_although_no_heartbeat_published_that_role(
    pair: Pair, is_restarted: bool
) -> None:
    """
    The ledger accepted the role, and the state table refused the heartbeats. So the table shows the epoch before, in
    which the region was a standby. Before the fix, the region spared a run that it had taken over in that role, and
    executed it again when it became active the next time (simulated history 1749897090).
    """
    key = ("orders", "m1")
    pair.there.db.add(key, run_type="manual", at=1.0, end=1.0, state="running")
    pair.there.turn(2)
    pair.flip(HERE, Phase.PROMOTING)
    pair.there.turn(2)
    put_agent = pair.store.put_agent

    def refuse(status: AgentStatus) -> None:
        raise StateUnreachableError("The state table throttled put_agent.")

    pair.store.put_agent = refuse  # type: ignore[method-assign]
    pair.here.turn(2)
    assert (pair.here.db.rows[key].state, pair.store.observe(HERE).reconciled_epoch) == ("queued", 0)
    pair.store.put_agent = put_agent  # type: ignore[method-assign]
    pair.flip(THERE, Phase.RESUMING)
    pair.there.turn(3)
    assert pair.there.db.rows[key].state == "queued"
    pair.there.db.set_state(pair.there.db.rows[key], "success")
    pair.there.turn(2)
    pair.flip(HERE, Phase.PROMOTING)
    pair.there.turn(2)
    if is_restarted:
        pair.here.db.job_id = "8"  # type: ignore[attr-defined]
        pair.here.db.alive_schedulers = lambda: ("8",)  # type: ignore[attr-defined]
        pair.here.restart()
    pair.here.turn(3)
    assert pair.store.observe(HERE).reconciled_epoch == 3
    assert pair.here.db.rows[key].state == "success"


def test_a_region_cut_off_between_its_ledger_and_its_first_heartbeat_publishes_what_it_closes() -> None:
    """
    The ledger has the new role, but the state table does not.

    Before the fix, the region closed a run without publishing it (simulated history 50000605).
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
    [published] = [run for entry in pair.runs.log(THERE, after=0) for run in entry.runs]
    assert published.status is RunStatus.INTERRUPTED


def test_a_region_publishes_while_the_checkpoint_of_the_other_region_has_not_arrived() -> None:
    """The heartbeat names the missing item. The region still publishes its own runs."""
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
def test_a_target_waits_for_a_checkpoint_that_has_not_arrived_up_to_its_limit(pair: Pair, arrives: bool) -> None:
    """The heartbeat shows the wait. It ends with the checkpoint, or after ``ledger_wait_s`` without it."""
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
