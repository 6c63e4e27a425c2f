"""The agent's turns with a fake store, a fake metadata database and a manual clock."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import cycle
from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.core.ports import FENCE_LOADS, SNAPSHOTS, AgentStatus, DagSet, FenceLoad, Observation
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan, initial, set_active_region, start_awaited
from airflow_provider_mwaa_dr.core.waits import Waits
from airflow_provider_mwaa_dr.core.watching import Watchers
from airflow_provider_mwaa_dr.exceptions import StateError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, InMemoryStateStore, ManualClock

HERE, THERE = "us-east-1", "us-east-2"


@dataclass
class FakeDb:
    """
    A metadata database. ``runs`` are the open runs; those in ``locked`` cannot be closed now.

    ``requested_at``: when users requested a waiting run. All other runs were created by the schedule.
    """

    job_id: str | None = "7"
    schedulers: tuple[str, ...] = ("7",)
    beat: int = 0
    runs: list[str] = field(default_factory=list)
    locked: set[str] = field(default_factory=set)
    requested_at: dict[str, datetime] = field(default_factory=dict)
    unpaused: tuple[str, ...] = ("billing", "orders")
    ended_at: datetime | None = None
    held_notes: int = 0
    notes: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    broken: bool = False
    found_waits: Waits = field(default_factory=Waits)
    waits_error: Exception | None = None
    found_watchers: Watchers = field(default_factory=Watchers)

    def pulse(self) -> object:
        return self.beat

    def alive_schedulers(self) -> tuple[str, ...]:
        if self.broken:
            raise ConnectionError("no database")
        return self.schedulers

    def newest_run(self) -> int:
        return len(self.runs)

    def open_runs(self, *, up_to: int, spared_since: datetime | None = None) -> int:
        return len([run for run in self.runs[:up_to] if not self.is_spared(run, spared_since)])

    def close_runs(self, note: str, *, queued_for_s: float = 0.0, spared_since: datetime | None = None) -> int:
        self.calls.append(f"close after {queued_for_s:g} s")
        closed = [run for run in self.runs if run not in self.locked and not self.is_spared(run, spared_since)]
        self.runs = [run for run in self.runs if run not in closed]
        self.notes += [note] * len(closed)
        return len(closed)

    def is_spared(self, run: str, since: datetime | None) -> bool:
        return since is not None and run in self.requested_at and self.requested_at[run] >= since

    def pause_all(self) -> int:
        self.calls.append("pause")
        paused, self.unpaused = len(self.unpaused), ()
        return paused

    def unpaused_dags(self) -> tuple[str, ...]:
        return self.unpaused

    def drop_held_notes(self) -> int:
        self.calls.append("drop notes")
        return self.held_notes

    def last_task_end(self, since: datetime) -> datetime | None:
        return self.ended_at

    def waits(self) -> Waits:
        if self.waits_error is not None:
            raise self.waits_error
        return self.found_waits

    def put_first(self, keys: Collection[RunKey]) -> None:
        self.calls.append(f"put {len(keys)} first")

    def watchers(self) -> Watchers:
        return self.found_watchers


class Region:
    """A region: its agent with fakes, and its items in the table."""

    def __init__(self, state: DRState | None, *, clock: ManualClock | None = None, **config: object) -> None:
        self.clock = clock or ManualClock()
        self.store = InMemoryStateStore(state, regions=(HERE, THERE))
        self.db = FakeDb()
        self.counts = GateCounts()
        self.config = DRConfig(
            **{"enabled": True, "region": HERE, "state_table": "t", "environments": {}, **config}  # type: ignore[arg-type]
        )
        self.loop = self.start()

    def start(self, runs: InMemoryRunsStore | None = None) -> AgentLoop:
        """Return a new agent, as after a restart of the scheduler."""
        self.loop = AgentLoop(
            config=self.config,
            store=self.store,
            runs=runs,
            db=self.db,  # type: ignore[arg-type]
            clock=self.clock,
            counts=self.counts,
            airflow_version="3",
        )
        return self.loop

    def turn(self, turns: int = 1) -> None:
        for _ in range(turns):
            self.clock.advance(self.loop.turn())

    def write(self, state: DRState) -> None:
        assert self.store.state is not None
        self.store.write(state, expected_version=self.store.state.version)

    def flip(self, region: str, phase: Phase = Phase.STEADY) -> None:
        """Make *region* active in the table, as a failover by another caller does."""
        assert self.store.state is not None
        state = set_active_region(
            replace(self.store.state, phase=Phase.STEADY), region, reason="r", by="b", at=self.clock.now()
        )
        self.write(replace(state, phase=phase, plan=None if phase is Phase.STEADY else plan(region)))

    @property
    def state(self) -> DRState:
        assert self.store.state is not None
        return self.store.state

    @property
    def status(self) -> AgentStatus:
        (status,) = self.store.agents(HERE)
        return status

    def may(self, point: DecisionPoint = DecisionPoint.GATE, run: RunKey | None = None) -> Action:
        """Return what gate or fence does, with *run* or with a run for which no work waits."""
        view = self.loop.view
        return decide(
            view,
            region=HERE,
            exempt=False,
            now=self.clock.monotonic(),
            lease_s=60,
            point=point,
            is_awaited=view is not None and run in view.awaited,
        ).action


def plan(target: str) -> Plan:
    return Plan(
        id="p",
        source=THERE if target == HERE else HERE,
        target=target,
        mode=Mode.GRACEFUL,
        reason="r",
        by="b",
        owner="o",
        started_at=ManualClock().now(),
    )


def state(active: str, *, lease_s: float = 60) -> DRState:
    return initial(active, lease_s=lease_s, by="t", at=ManualClock().now())


@pytest.fixture
def active() -> Region:
    region = Region(state(HERE))
    region.turn(2)
    return region


@pytest.fixture
def standby() -> Region:
    region = Region(state(THERE))
    region.turn(2)
    return region


def test_the_first_turns_in_the_active_region_close_nothing_and_open_the_gate() -> None:
    """Installing the provider in a running region must not disturb its runs."""
    region = Region(state(HERE))
    region.db.runs = ["orders 1"]
    region.turn()
    assert region.may() is Action.HOLD
    region.turn()
    assert (region.may(), region.db.runs, region.status.reconciled_epoch) == (Action.RUN, ["orders 1"], 0)


def test_the_first_turns_in_a_standby_close_its_open_runs_and_pause_no_dag() -> None:
    """Runs that are open in a standby at installation must not execute after the next failover."""
    region = Region(state(THERE))
    region.db.runs = ["orders 1"]
    region.turn(2)
    assert region.may() is Action.SKIP
    assert region.db.notes == [f"closed: {HERE} is standby, {THERE} is active (epoch 0)"]
    assert "pause" not in region.db.calls


def test_losing_the_role_pauses_the_dags_and_closes_the_runs(active: Region) -> None:
    """
    A lost source comes back and reads that another region is active. It stops its runs, notes why, and counts them.
    """
    active.db.runs = ["orders 1", "orders 2"]
    active.flip(THERE)
    active.turn()
    assert active.db.unpaused == ()
    assert active.db.notes == [f"closed: {HERE} is standby, {THERE} is active (epoch 1)"] * 2
    assert (active.status.reconciled_epoch, active.status.closed, active.status.unclosed_runs) == (1, 2, 0)


def test_a_region_that_missed_two_failovers_closes_the_runs_from_before(active: Region) -> None:
    """The region never read epoch 1 and is active again in epoch 2. Its old runs must not continue (ABA problem)."""
    active.db.runs = ["orders 1"]
    active.flip(THERE)
    active.flip(HERE)
    active.turn()
    assert active.may() is Action.HOLD
    active.turn()
    assert active.db.runs == []
    assert "begun under epoch 0" in active.db.notes[0]
    assert active.may() is Action.RUN
    assert active.db.unpaused == ("billing", "orders")


def test_gate_and_fence_hold_until_the_runs_of_the_old_epoch_are_closed(active: Region) -> None:
    """While the scheduler locks a run, the epoch is not reconciled. A later turn closes the run."""
    active.db.runs, active.db.locked = ["orders 1"], {"orders 1"}
    active.flip(THERE)
    active.turn(3)
    assert (active.may(), active.may(DecisionPoint.FENCE)) == (Action.HOLD, Action.HOLD)
    assert active.status.unclosed_runs == 1
    active.db.locked = set()
    active.turn(2)
    assert (active.may(), active.status.unclosed_runs) == (Action.SKIP, 0)


def test_a_standby_closes_runs_that_are_created_in_it(standby: Region) -> None:
    """
    A run under a paused DAG never reaches the gate, so the agent closes it. Other runs get 10 s to reach the gate.
    """
    standby.db.runs = ["orders 1"]
    standby.turn()
    assert standby.db.runs == []
    assert standby.db.calls[-1] == "close after 10 s"


def test_a_promoted_region_pauses_all_dags_and_publishes_the_adopted_epoch(standby: Region) -> None:
    """
    The engine waits for this heartbeat. Then it unpauses the wanted set, starting from a region with all DAGs paused.
    """
    standby.db.runs = ["orders 1"]
    standby.flip(HERE, Phase.PROMOTING)
    standby.turn()
    assert (standby.db.unpaused, standby.db.runs) == ((), [])
    assert (standby.status.adopted_epoch, standby.status.reconciled_epoch) == (1, 1)
    standby.turn()
    assert standby.may() is Action.HOLD


def test_a_run_requested_after_the_last_read_is_not_closed_as_born_in_standby(standby: Region) -> None:
    """The region may be active since, and the user may know it. The next read of the state decides."""
    standby.db.runs = ["early", "late"]
    standby.db.requested_at = {
        "early": standby.clock.now() - timedelta(seconds=1),
        "late": standby.clock.now() + timedelta(seconds=1),
    }
    standby.turn()
    assert standby.db.runs == ["late"]
    standby.turn()
    assert standby.db.runs == []


def test_a_run_requested_just_after_the_promotion_continues(standby: Region) -> None:
    """
    The user requested it after the last read that showed a standby. It is not closed, and does not delay the promotion.
    """
    standby.db.runs = ["early", "scheduled", "late"]
    standby.db.requested_at = {"early": standby.clock.now() - timedelta(seconds=30), "late": standby.clock.now()}
    standby.flip(HERE, Phase.PROMOTING)
    standby.turn()
    assert standby.db.runs == ["late"]
    assert (standby.status.adopted_epoch, standby.status.unclosed_runs) == (1, 0)


def test_a_run_requested_between_the_reconciling_turn_of_a_standby_and_the_promotion_continues(active: Region) -> None:
    """
    The reconciling turn also read that this is a standby. Its heartbeat publishes when, because a new agent may come
    next.
    """
    active.flip(THERE)
    active.turn()
    assert active.status.standby_as_of is not None
    active.clock.advance(1)
    active.db.runs.append("requested")
    active.db.requested_at["requested"] = active.clock.now()
    active.flip(HERE, Phase.PROMOTING)
    active.turn()
    assert active.db.runs == ["requested"]


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("was_standby", [False, True])
def test_a_run_requested_under_the_first_role_of_a_region_that_never_reconciled_continues(
    was_standby: bool, is_restarted: bool
) -> None:
    """The region was cut off, or its ledger refused. Its first read decides which runs belong to the new role."""
    region = Region(state(THERE))
    region.db.runs = region.db.locked = ["early"]
    region.db.requested_at["early"] = region.clock.now() - timedelta(seconds=1)
    if was_standby:
        region.turn()
    region.flip(HERE, Phase.PROMOTING)
    region.turn()
    assert region.status.reconciled_epoch is None, "the scheduler has locked a run"
    region.db.runs, region.db.locked = ["early", "late"], []
    region.db.requested_at["late"] = region.clock.now()
    if is_restarted:
        region.clock.advance(1)
        region.db.job_id, region.db.schedulers = "8", ("8",)
        region.start()
    region.turn()
    assert region.db.runs == ["late"]
    assert region.store.agents(HERE)[-1].reconciled_epoch == 1


@pytest.mark.parametrize("regions", [(THERE,), (THERE, HERE)])
def test_a_region_that_lost_the_role_spares_no_run(active: Region, regions: tuple[str, ...]) -> None:
    """A run that a user requested under an earlier role is published, and the active region resumes it."""
    active.db.runs, active.db.requested_at = ["orders 1"], {"orders 1": active.clock.now() + timedelta(seconds=60)}
    for region in regions:
        active.flip(region)
    active.turn()
    assert active.db.runs == []


def test_a_failed_heartbeat_does_not_reconcile_the_epoch_and_is_repeated(standby: Region) -> None:
    """
    The reconciled epoch counts only after the table has it. After a crash before that, the agent repeats the work.
    """
    standby.flip(HERE, Phase.PROMOTING)

    def refuse(status: AgentStatus) -> None:
        raise OSError("cut off")

    put_agent, standby.store.put_agent = standby.store.put_agent, refuse  # type: ignore[method-assign]
    standby.turn()
    standby.store.put_agent = put_agent  # type: ignore[method-assign]
    standby.db.runs = ["orders 9"]
    standby.turn(2)
    assert (standby.db.runs, standby.status.adopted_epoch) == ([], 1)


def test_only_the_oldest_live_scheduler_works_on_the_runs(active: Region) -> None:
    """Of two schedulers, only one leads. The other reads the state, sends heartbeats and closes no run."""
    active.db.schedulers = ("3", "7")
    active.db.runs = ["orders 1"]
    active.flip(THERE)
    active.turn()
    assert active.db.runs == ["orders 1"]
    active.db.schedulers = ("7",)
    active.turn()
    assert active.db.runs == []


def test_an_agent_that_stops_leading_clears_its_ledger_error(active: Region) -> None:
    """Otherwise an old error of the ledger would refuse failovers to this region for as long as the agent exists."""
    runs = InMemoryRunsStore()
    runs.unreachable = True
    active.start(runs=runs)
    active.turn()
    assert active.status.ledger_error is not None

    active.db.schedulers = ("3", "7")
    active.turn()
    assert (active.status.ledger_error, active.status.has_ledger) == (None, True)


def test_a_version_is_acknowledged_only_after_the_next_scheduler_loop(active: Region) -> None:
    """
    A decision with the previous view may be in a transaction that is not committed yet. The scheduler's loop commits
    it.
    """
    active.db.beat += 1
    active.turn(2)
    assert active.status.version == 1
    assert active.store.state is not None
    active.write(replace(active.store.state, version=2))
    active.turn(3)
    assert active.status.version == 1
    active.db.beat += 1
    active.turn()
    assert active.status.version == 2


def test_an_agent_that_ends_publishes_it_and_lets_nothing_start(active: Region) -> None:
    """A failover then does not wait for its lease, so no later turn of the agent may open the gate again."""
    active.turn(2)
    assert (active.status.gone, active.may()) == (False, Action.RUN)
    beat = active.status.beat
    active.loop.end()
    assert (active.status.gone, active.status.beat, active.may()) == (True, beat + 1, Action.HOLD)
    active.db.beat += 1
    active.turn(3)
    active.loop.acknowledge()
    assert (active.status.gone, active.status.beat, active.may()) == (True, beat + 1, Action.HOLD)


def test_an_agent_that_is_not_the_regions_own_ends_without_a_heartbeat_of_the_region(active: Region) -> None:
    """A live agent of the region may have the same job number. A failover would then not wait for that agent."""
    active.turn(2)
    assert active.loop.view is not None
    active.loop._reader.view = replace(active.loop.view, problem="it is another environment")
    active.loop.end()
    assert not active.status.gone
    active.start().end()
    assert not active.status.gone


def test_an_agent_that_cannot_publish_its_end_holds_nevertheless(active: Region) -> None:
    """In this case a failover waits for its lease."""
    active.turn(2)
    active.store.unreachable = True
    active.loop.end()
    active.store.unreachable = False
    active.turn()
    assert (active.status.gone, active.may()) == (False, Action.HOLD)


def test_nothing_starts_before_the_metadata_database_knows_the_scheduler(active: Region) -> None:
    """A failover waits for the schedulers that the database lists, not for a new one that has only read the state."""
    active.start().warm_up()
    assert active.may() is Action.HOLD
    active.turn(2)
    assert active.may() is Action.RUN


@pytest.mark.parametrize(
    ("lease_s", "published_s", "forgotten_after_s"), [(60, 60, 600), (3600, 3600, 7200), (60, 600, 1200)]
)
def test_the_heartbeat_item_of_a_dead_scheduler_is_deleted_after_its_lease(
    lease_s: float, published_s: float, forgotten_after_s: int
) -> None:
    """A failover waits for every heartbeat item. An item that still changes belongs to a live scheduler, and stays."""
    region = Region(state(HERE, lease_s=lease_s))
    region.turn(2)
    dead = replace(region.status, job="8", beat=1, lease_s=published_s)
    stuck = replace(region.status, job="9", beat=1)
    seen_s: dict[str, float] = {}
    began = region.clock.monotonic()
    region.store.put_agent(dead)
    while region.clock.monotonic() - began < forgotten_after_s + 200:
        region.turn()
        for job in {agent.job for agent in region.store.agents(HERE)}:
            seen_s[job] = region.clock.monotonic() - began
        stuck = replace(stuck, beat=stuck.beat + 1)
        region.store.put_agent(stuck)
    assert forgotten_after_s <= seen_s["8"] <= forgotten_after_s + 150
    assert {agent.job for agent in region.store.agents(HERE)} == {"7", "9"}


def test_heartbeats_publish_fence_file_s() -> None:
    """A failover waits for the source's own value, not for the caller's value."""
    region = Region(state(HERE), fence_file_s=17.0)
    region.turn(2)
    assert region.status.fence_file_s == 17.0


def test_an_acknowledgement_is_sent_immediately() -> None:
    """A failover waits for it, so it must not wait for the next heartbeat."""
    region = Region(state(HERE), refresh_s=1.0, heartbeat_s=60.0)
    region.turn(2)
    beat = region.status.beat
    region.db.beat += 1
    region.turn()
    assert (region.status.beat, region.status.version) == (beat + 1, 1)


def test_an_agent_acknowledges_between_two_turns(active: Region) -> None:
    """A failover waits for it. The agent does not read the table for this, and retries a write without a response."""
    active.flip(THERE)
    active.turn()
    assert active.loop.awaits_scheduler
    reads = len([call for call in active.store.calls if call == "observe"])
    assert reads
    active.loop.acknowledge()
    assert active.status.version == 0
    active.db.beat += 1
    active.store.unreachable = True
    active.loop.acknowledge()
    active.store.unreachable = False
    active.loop.acknowledge()
    assert (active.status.version, active.loop.awaits_scheduler) == (2, False)
    assert len([call for call in active.store.calls if call == "observe"]) == reads


def test_an_acknowledgement_between_two_turns_keeps_the_reconciled_epoch(active: Region) -> None:
    """The last turn reconciled an epoch that the agent's view does not have yet."""
    active.flip(THERE)
    active.turn()
    assert active.loop.view is not None
    assert active.loop.view.reconciled_epoch == 0
    active.db.beat += 1
    active.loop.acknowledge()
    assert active.status.version == 2
    assert active.store.peer().observe(HERE).reconciled_epoch == active.status.reconciled_epoch == 1


@pytest.mark.parametrize("phase", list(Phase))
def test_the_agent_polls_twice_a_second_during_a_failover(active: Region, phase: Phase) -> None:
    """Each step of the engine waits for the next read of some agent."""
    active.flip(THERE, phase)
    active.turn(3)
    assert active.loop.turn() == (5.0 if phase is Phase.STEADY else 0.5)


def test_heartbeats_come_at_their_own_pace() -> None:
    """The agent reads every refresh_s and sends heartbeats every heartbeat_s."""
    region = Region(state(HERE), refresh_s=1.0, heartbeat_s=5.0)
    region.turn(40)
    assert 8 <= region.status.beat <= 10


def test_with_equal_intervals_every_read_sends_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """This must hold also when one read takes longer than the next one."""
    region = Region(state(HERE), refresh_s=5.0, heartbeat_s=5.0)
    region.turn(2)
    observe, took = region.store.observe, cycle([0.3, 0.2, 0.1])

    def slow(of: str) -> Observation:
        region.clock.advance(next(took))
        return observe(of)

    monkeypatch.setattr(region.store, "observe", slow)
    before = region.status.beat
    region.turn(9)
    assert region.status.beat == before + 9


def test_a_view_never_goes_back(active: Region, caplog: pytest.LogCaptureFixture) -> None:
    """A lagging replica or an empty copy counts as not read: the view stays, and its age grows."""
    active.flip(THERE)
    active.flip(HERE)
    active.turn(2)
    seen = active.loop.view
    assert seen is not None
    assert seen.state is not None
    for older in (state(HERE), None):
        active.store._table.state = older
        active.turn()
        assert active.loop.view is seen
    assert "does not use this answer" in caplog.text


def test_a_view_ages_from_before_the_read(active: Region) -> None:
    """The answer of a slow read is already old when it arrives."""
    observe = active.store.observe
    began_at = 0.0

    def slow(region: str) -> object:
        nonlocal began_at
        began_at = active.clock.monotonic()
        active.clock.advance(3)
        return observe(region)

    active.store.observe = slow  # type: ignore[assignment, method-assign]
    active.turn()
    assert active.loop.view is not None
    assert active.loop.view.read_at == began_at


def test_an_unreachable_table_holds_after_the_lease_and_is_logged_once(
    active: Region, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop continues, logs the error once, and logs when the table works again."""
    active.store.unreachable = True
    active.turn(10)
    assert active.may() is Action.RUN
    active.turn(3)
    assert active.may() is Action.HOLD
    assert caplog.text.count("could not finish its turn") == 1
    active.store.unreachable = False
    with caplog.at_level(logging.INFO):
        active.turn(2)
    assert active.may() is Action.RUN
    assert "works again" in caplog.text


def test_a_broken_database_does_not_stop_the_view(active: Region) -> None:
    """The gate still gets new views while the metadata database is down. No heartbeat is sent meanwhile."""
    active.db.broken = True
    beat = active.status.beat
    active.flip(THERE)
    active.turn(3)
    assert active.loop.view is not None
    assert active.loop.view.state == active.store.state
    assert active.status.beat == beat


def test_without_a_state_item_the_region_holds_and_logs_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """
    The plugin is enabled before mwaa-dr init: the region holds, the log names the command, and it continues after init.
    """
    region = Region(None)
    region.turn(3)
    assert region.may() is Action.HOLD
    assert caplog.text.count("mwaa-dr init") == 1
    region.store.write(state(HERE), expected_version=None)
    region.turn(2)
    assert region.may() is Action.RUN


def test_the_role_is_logged_in_the_words_of_the_aws_sample_once_per_change(caplog: pytest.LogCaptureFixture) -> None:
    """The AWS sample's document asks its readers to search the log for this line."""
    with caplog.at_level(logging.INFO):
        region = Region(state(HERE))
        region.turn(4)
        region.flip(THERE)
        region.turn(4)
    assert caplog.text.count(f"DR State Plugin: Current region {HERE} is ACTIVE") == 1
    assert caplog.text.count(f"DR State Plugin: Current region {HERE} is STANDBY") == 1


def test_the_active_region_keeps_a_snapshot_and_writes_it_on_change(active: Region) -> None:
    """A forced failover takes the wanted set from the snapshot."""
    active.turn(5)
    assert active.store.calls.count("put snapshot") == 1
    active.db.unpaused = ("orders",)
    active.turn()
    snapshot = active.store.get(SNAPSHOTS, HERE)
    assert snapshot is not None
    assert snapshot.dag_ids == ("orders",)


@pytest.mark.parametrize("change", [{"set_id": "s"}, {"mode": Mode.FORCED}])
def test_no_snapshot_of_a_region_in_the_middle_of_a_failover(active: Region, change: dict[str, Any]) -> None:
    """Half paused is not what users wanted. Once the set is recorded, the engine pauses DAGs."""
    before: DagSet | None = active.store.get(SNAPSHOTS, HERE)
    assert active.store.state is not None
    active.write(replace(active.store.state, version=2, phase=Phase.DRAINING, plan=replace(plan(THERE), **change)))
    active.db.unpaused = ()
    active.turn()
    assert active.store.get(SNAPSHOTS, HERE) == before


def test_the_first_snapshot_after_a_graceful_claim_is_for_its_plan(active: Region) -> None:
    """The engine takes it as the recorded set, and need not list thousands of DAGs with the REST API."""
    assert active.status.lists_dags
    assert active.store.state is not None
    active.write(replace(active.store.state, version=2, phase=Phase.DRAINING, plan=plan(THERE)))
    active.db.unpaused = ("orders", "stock")
    active.turn()
    snapshot = active.store.get(SNAPSHOTS, HERE)
    assert snapshot is not None
    assert (snapshot.id, snapshot.dag_ids) == ("p", ("orders", "stock"))


def test_a_list_for_a_plan_is_dropped_when_its_set_was_recorded_meanwhile(active: Region) -> None:
    """The engine may have paused DAGs while the agent listed them."""
    before = active.store.get(SNAPSHOTS, HERE)
    assert active.store.state is not None
    drained = replace(active.store.state, version=2, phase=Phase.DRAINING, plan=plan(THERE))
    active.write(drained)

    def list_slowly() -> tuple[str, ...]:
        active.write(replace(drained, version=3, plan=replace(plan(THERE), set_id="s")))
        return ("orders",)

    active.db.unpaused_dags = list_slowly  # type: ignore[method-assign]
    active.turn()
    assert active.store.get(SNAPSHOTS, HERE) == before


def test_a_snapshot_is_dropped_when_the_state_moved_while_it_was_listed(active: Region) -> None:
    """The agent lists the DAGs, reads the state again, and keeps the list only if the version is the same."""
    before = active.store.get(SNAPSHOTS, HERE)

    def list_slowly() -> tuple[str, ...]:
        assert active.store.state is not None
        active.write(replace(active.store.state, version=2, phase=Phase.DRAINING, plan=plan(THERE)))
        active.db.unpaused_dags = lambda: ()  # type: ignore[method-assign]
        return ("orders",)

    active.db.unpaused_dags = list_slowly  # type: ignore[method-assign]
    active.turn()
    assert active.store.get(SNAPSHOTS, HERE) == before


def test_a_snapshot_that_a_failover_wrote_is_replaced_by_an_equal_one_from_before_it(active: Region) -> None:
    """After the failback the unpaused DAGs equal the last snapshot that the agent took before it lost the role."""
    active.turn(2)
    before = active.store.get(SNAPSHOTS, HERE)
    assert before is not None
    active.flip(THERE)
    active.flip(HERE)
    active.store.put(SNAPSHOTS, replace(before, dag_ids=("orders",)))
    active.turn(2)
    after = active.store.get(SNAPSHOTS, HERE)
    assert after is not None
    assert after.dag_ids == ("billing", "orders")


def test_a_standby_takes_no_snapshot(standby: Region) -> None:
    """The paused DAGs of a standby do not show what users want."""
    standby.turn(5)
    assert standby.store.get(SNAPSHOTS, HERE) is None


def test_held_notes_are_removed_while_there_may_be_any(active: Region) -> None:
    """The agent searches once at the start, and after each hold until no note is left, but not in every turn."""
    active.turn(5)
    assert active.db.calls.count("drop notes") == 1
    active.counts.held = 1
    active.db.held_notes = 1
    active.turn(3)
    active.db.held_notes = 0
    active.turn(3)
    assert active.db.calls.count("drop notes") == 5


def test_an_item_of_the_fence_that_cannot_be_read_is_no_evidence_against_it(active: Region) -> None:
    """Before the fix, a damaged item refused every failover to the region, as if its workers had no fence."""
    active.db.ended_at = active.clock.now() + timedelta(hours=3)
    active.store.damage(f"FENCE#{HERE}")
    active.turn(20)
    assert active.status.fence_ok is None


def test_the_fence_is_false_when_a_task_ended_without_it(active: Region) -> None:
    """The evidence: a task with a worker has ended, and no worker has recorded its fence."""
    active.turn(20)
    assert active.status.fence_ok is None
    active.db.ended_at = active.clock.now()
    active.turn(20)
    assert active.status.fence_ok is False
    active.store.put(FENCE_LOADS, FenceLoad(region=HERE, at=active.db.ended_at - timedelta(minutes=50)))
    active.turn(20)
    assert active.status.fence_ok is True


def test_a_scheduler_gone_for_long_is_forgotten(active: Region) -> None:
    """Otherwise each rolling restart would leave an item. A short absence does not delete it."""
    active.store.put_agent(replace(active.status, job="3"))
    active.turn(100)
    assert [agent.job for agent in active.store.agents(HERE)] == ["3", "7"]
    active.turn(60)
    assert [agent.job for agent in active.store.agents(HERE)] == ["7"]


def test_a_restarted_agent_starts_from_the_view_of_the_one_before(active: Region) -> None:
    """Only the thread died, not the scheduler, so the gate keeps its view."""
    view = active.loop.view
    loop = AgentLoop(
        config=active.config,
        store=active.store,
        db=active.db,
        clock=active.clock,
        counts=active.counts,
        airflow_version="3",
        view=view,
    )
    assert loop.view is view
    active.loop = loop
    active.turn()
    active.db.beat += 1
    active.turn()
    assert active.status.version == 1


def test_the_view_is_a_plain_object(active: Region) -> None:
    """The gate's thread reads the view while the agent replaces it: an immutable object, one assignment, no lock."""
    assert type(active.loop.view) is View
    with pytest.raises(AttributeError):
        active.loop.view.read_at = 0.0  # type: ignore[misc, union-attr]


UNKNOWN = ["us-est-1", f" {HERE}", "US-EAST-1", ""]


def misspell(region: Region, active: str) -> None:
    """Change the item as a user does, without a new version."""
    region.store._table.state = replace(region.state, active_region=active)


@pytest.mark.parametrize("value", UNKNOWN)
@pytest.mark.parametrize("of", [HERE, THERE])
def test_an_agent_changes_nothing_under_an_active_region_that_is_not_registered(of: str, value: str) -> None:
    """Before the fix, each region took itself for a standby and closed its runs, and no region executed them."""
    region = Region(state(of))
    region.turn(2)
    region.db.runs, region.db.calls, region.db.unpaused = ["orders 1"], [], ("orders",)
    region.store.calls.clear()
    misspell(region, value)
    region.turn(24)
    assert region.may() is region.may(DecisionPoint.FENCE) is Action.HOLD
    assert (region.db.runs, region.db.notes, region.db.unpaused) == (["orders 1"], [], ("orders",))
    assert not {"close after 0 s", "close after 10 s", "pause"}.intersection(region.db.calls)
    assert not {"put snapshot", "put inventory", "write"}.intersection(region.store.calls)


def test_under_such_a_region_heartbeats_continue_and_name_the_reason(active: Region) -> None:
    """`mwaa-dr status` and the check show the same reason as the note of a held run."""
    misspell(active, "us-est-1")
    active.turn(2)
    before = active.status.beat
    active.turn(3)
    assert active.status.beat == before + 3
    assert "active_region of the item ACTIVE_REGION is 'us-est-1'" in (active.status.held_because or "")
    assert active.status.adopted_epoch is None
    assert active.status.reconciled_epoch == 0


def test_after_the_value_is_corrected_the_region_continues_as_before(active: Region) -> None:
    """Runs that arrived meanwhile were held, and now execute. The region does not reconcile again."""
    misspell(active, "us-est-1")
    active.turn(5)
    active.db.runs = ["orders manual"]
    misspell(active, HERE)
    active.turn()
    assert active.may() is Action.RUN
    assert (active.db.runs, active.db.notes) == (["orders manual"], [])
    assert active.status.held_because is None


def test_an_agent_lists_the_regions_where_the_version_before_has_not() -> None:
    """
    After an upgrade, and for an item of the AWS sample, no region has the list. The agent writes it in its first turn.
    """
    region = Region(state(HERE))
    region.store._table.lists.clear()
    region.turn()
    assert region.may() is Action.HOLD
    region.turn(2)
    assert region.store.observe(HERE).registered == {HERE}
    assert region.may() is Action.RUN


def test_a_region_that_has_just_been_registered_is_known_when_it_becomes_active(standby: Region) -> None:
    """The agent reads the list then, also if the next regular read would come later."""
    standby.store.put_regions("eu-west-1", ["eu-west-1", HERE, THERE])
    standby.flip("eu-west-1")
    standby.turn(3)
    assert standby.may() is Action.SKIP
    assert standby.store.observe(HERE).registered == {HERE, THERE, "eu-west-1"}


def test_a_state_that_goes_back_is_reported_in_heartbeats(active: Region) -> None:
    """Before the fix, a restored backup silenced all agents permanently, and no failover was possible."""
    active.flip(THERE)
    active.flip(HERE)
    active.turn(3)
    before = active.status.beat
    active.store._table.state = state(HERE)
    active.turn(20)
    assert active.status.beat > before + 5
    assert "epoch 0, version 1 after epoch 2" in (active.status.held_because or "")
    assert "mwaa-dr init --active REGION --above-every-epoch" in (active.status.held_because or "")
    assert active.may() is Action.HOLD


def test_a_state_item_that_cannot_be_understood_is_reported_in_heartbeats(
    active: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The region holds after its view is too old, and every user can see the reason."""

    def observe(region: str) -> Observation:
        raise StateError("The item ACTIVE_REGION of table t cannot be understood: version is 'x'.")

    before = active.status.beat
    monkeypatch.setattr(active.store, "observe", observe)
    active.turn(20)
    assert active.status.beat > before + 5
    assert "version is 'x'" in (active.status.held_because or "")
    assert active.may() is Action.HOLD


def test_an_unusable_reconciled_epoch_closes_nothing(active: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the fix, the active region took it for another epoch than the state's, and closed all its runs."""
    observe = active.store.observe
    broken = "reconciled_epoch of the item ENVIRONMENT#us-east-1 of table t is 'abc'"
    active.db.runs, active.db.calls = ["orders 1"], []
    monkeypatch.setattr(
        active.store, "observe", lambda region: replace(observe(region), reconciled_epoch=None, problems=(broken,))
    )
    active.turn(3)
    assert active.may() is Action.HOLD
    assert (active.db.runs, active.db.notes) == (["orders 1"], [])
    assert active.status.held_because == broken
    # The heartbeat keeps the last known value: a user needs it to correct the item.
    assert active.status.reconciled_epoch == 0


CHILD = ("child", "c1")
FOUND = Waits(awaited=frozenset({CHILD}), tasks=("parent p1: task call waits for child c1, which is held",), idle=2)


@pytest.fixture
def drained(active: Region) -> Region:
    """A region that is being drained, whose work in progress waits for a held run."""
    active.db.found_waits = FOUND
    active.turn()
    assert active.status.waits == (), "before a failover, the agent does not read what tasks wait for"
    active.write(replace(active.state, version=2, phase=Phase.DRAINING, plan=plan(THERE)))
    active.turn(2)
    return active


def test_an_agent_publishes_what_work_in_progress_waits_for(drained: Region) -> None:
    """The engine decides with it whether the gate may let awaited runs start."""
    assert (drained.status.awaited, drained.status.waits, drained.status.idle) == (1, FOUND.tasks, 2)
    assert drained.may(run=CHILD) is Action.HOLD
    assert "put 1 first" not in drained.db.calls


def test_the_gate_starts_only_awaited_runs_while_the_plan_says_so(drained: Region) -> None:
    """The leading agent also puts them at the head of the queue."""
    drained.write(start_awaited(drained.state, at=drained.clock.now()))
    drained.turn()
    assert (drained.may(run=CHILD), drained.may(run=("child", "c2"))) == (Action.RUN, Action.HOLD)
    assert "put 1 first" in drained.db.calls
    drained.db.found_waits = Waits()
    drained.turn()
    assert drained.may(run=CHILD) is Action.HOLD, "its parent has ended, so it starts in the other region"
    assert drained.status.awaited == 0


def test_the_gate_holds_every_run_while_it_is_not_known_what_waits(
    drained: Region, caplog: pytest.LogCaptureFixture
) -> None:
    """The other work of the agent continues, and the log names the error once."""
    drained.write(start_awaited(drained.state, at=drained.clock.now()))
    drained.db.waits_error = ConnectionError("the query failed")
    with caplog.at_level(logging.WARNING):
        drained.turn(3)
    assert drained.may(run=CHILD) is Action.HOLD
    assert sum("the query failed" in record.getMessage() for record in caplog.records) == 1
    assert drained.status.awaited == 0
    drained.db.waits_error = None
    drained.turn()
    assert drained.may(run=CHILD) is Action.RUN


def test_a_scheduler_that_does_not_lead_lets_awaited_runs_start_and_changes_no_queue(drained: Region) -> None:
    """Each gate decides with the set of its own agent."""
    drained.db.schedulers = ("3", "7")
    drained.write(start_awaited(drained.state, at=drained.clock.now()))
    drained.turn()
    assert drained.may(run=CHILD) is Action.RUN
    assert "put 1 first" not in drained.db.calls
