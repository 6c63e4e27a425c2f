"""The agent's turns, on a fake store, a fake metadata database and a clock that moves when told."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import cycle

import pytest

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide
from airflow_provider_mwaa_dr.core.ports import AgentStatus, DagSet, Observation
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan, initial, set_active_region
from airflow_provider_mwaa_dr.exceptions import StateError
from airflow_provider_mwaa_dr.plugins.agent import AgentLoop, GateCounts
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, InMemoryStateStore, ManualClock

HERE, THERE = "us-east-1", "us-east-2"


@dataclass
class FakeDb:
    """
    A metadata database: runs are the epochs-agnostic ids of what is open; ``locked`` cannot be closed now.

    ``asked_at``: when people asked for a run that waits; the others are of the schedule.
    """

    job_id: str | None = "7"
    schedulers: tuple[str, ...] = ("7",)
    beat: int = 0
    runs: list[str] = field(default_factory=list)
    locked: set[str] = field(default_factory=set)
    asked_at: dict[str, datetime] = field(default_factory=dict)
    unpaused: tuple[str, ...] = ("billing", "orders")
    ended_at: datetime | None = None
    held_notes: int = 0
    notes: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    broken: bool = False

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
        return since is not None and run in self.asked_at and self.asked_at[run] >= since

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


class Region:
    """One region: an agent with its fakes, and what the table says of it."""

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
        """Make *region* active in the table, as a failover by somebody else would."""
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

    def may(self, point: DecisionPoint = DecisionPoint.GATE) -> Action:
        return decide(
            self.loop.view,
            region=HERE,
            exempt=False,
            now=self.clock.monotonic(),
            lease_s=60,
            point=point,
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


def test_first_sight_of_the_active_region_closes_nothing_and_opens_the_gate() -> None:
    """Installing the provider in a running region must not disturb what runs."""
    region = Region(state(HERE))
    region.db.runs = ["orders 1"]
    region.turn()
    assert region.may() is Action.HOLD
    region.turn()
    assert (region.may(), region.db.runs, region.status.reconciled_epoch) == (Action.RUN, ["orders 1"], 0)


def test_first_sight_of_a_standby_closes_its_open_runs_and_leaves_its_dags_alone() -> None:
    """What is open in a standby on the day of installation must not execute after the next failover."""
    region = Region(state(THERE))
    region.db.runs = ["orders 1"]
    region.turn(2)
    assert region.may() is Action.SKIP
    assert region.db.notes == [f"closed: {HERE} is standby, {THERE} is active (epoch 0)"]
    assert "pause" not in region.db.calls


def test_losing_the_role_pauses_the_dags_and_closes_the_runs(active: Region) -> None:
    """A source that was lost and comes back finds another region active: it stops, says why, and is counted."""
    active.db.runs = ["orders 1", "orders 2"]
    active.flip(THERE)
    active.turn()
    assert active.db.unpaused == ()
    assert active.db.notes == [f"closed: {HERE} is standby, {THERE} is active (epoch 1)"] * 2
    assert (active.status.reconciled_epoch, active.status.closed, active.status.unclosed_runs) == (1, 2, 0)


def test_a_region_that_was_away_for_two_failovers_closes_what_began_before(active: Region) -> None:
    """Epoch 1 was elsewhere and never seen here; active again, the old runs must not go on (ABA)."""
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


def test_gate_and_fence_hold_until_the_runs_of_the_old_epoch_are_settled(active: Region) -> None:
    """A run that is locked by the scheduler keeps the epoch unsettled; the next turn takes it."""
    active.db.runs, active.db.locked = ["orders 1"], {"orders 1"}
    active.flip(THERE)
    active.turn(3)
    assert (active.may(), active.may(DecisionPoint.FENCE)) == (Action.HOLD, Action.HOLD)
    assert active.status.unclosed_runs == 1
    active.db.locked = set()
    active.turn(2)
    assert (active.may(), active.status.unclosed_runs) == (Action.SKIP, 0)


def test_a_standby_goes_on_closing_runs_that_are_born_there(standby: Region) -> None:
    """A run triggered under a paused DAG never meets the gate; the gate gets a moment for the others."""
    standby.db.runs = ["orders 1"]
    standby.turn()
    assert standby.db.runs == []
    assert standby.db.calls[-1] == "close after 10 s"


def test_promotion_pauses_everything_and_says_adopted(standby: Region) -> None:
    """The engine restores the wanted set from all paused, and waits for this heartbeat before it opens the gate."""
    standby.db.runs = ["orders 1"]
    standby.flip(HERE, Phase.PROMOTING)
    standby.turn()
    assert (standby.db.unpaused, standby.db.runs) == ((), [])
    assert (standby.status.adopted_epoch, standby.status.reconciled_epoch) == (1, 1)
    standby.turn()
    assert standby.may() is Action.HOLD


def test_a_run_asked_for_after_the_last_look_is_not_closed_as_born_in_standby(standby: Region) -> None:
    """The role may have come meanwhile, and whoever asked have known it; the next look tells."""
    standby.db.runs = ["early", "late"]
    standby.db.asked_at = {
        "early": standby.clock.now() - timedelta(seconds=1),
        "late": standby.clock.now() + timedelta(seconds=1),
    }
    standby.turn()
    assert standby.db.runs == ["late"]
    standby.turn()
    assert standby.db.runs == []


def test_a_run_asked_for_just_after_the_promotion_goes_on(standby: Region) -> None:
    """Asked for after the last look at which this was a standby; neither closed nor in the way of the promotion."""
    standby.db.runs = ["early", "scheduled", "late"]
    standby.db.asked_at = {"early": standby.clock.now() - timedelta(seconds=30), "late": standby.clock.now()}
    standby.flip(HERE, Phase.PROMOTING)
    standby.turn()
    assert standby.db.runs == ["late"]
    assert (standby.status.adopted_epoch, standby.status.unclosed_runs) == (1, 0)


def test_a_run_asked_for_between_the_turn_that_settled_a_standby_and_the_promotion_goes_on(active: Region) -> None:
    """That turn is a look as good as any, and its heartbeat says so: the agent may be another one by then."""
    active.flip(THERE)
    active.turn()
    assert active.status.standby_as_of is not None
    active.clock.advance(1)
    active.db.runs.append("asked for")
    active.db.asked_at["asked for"] = active.clock.now()
    active.flip(HERE, Phase.PROMOTING)
    active.turn()
    assert active.db.runs == ["asked for"]


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("was_standby", [False, True])
def test_a_run_asked_for_under_the_first_role_of_a_region_that_never_settled_goes_on(
    was_standby: bool, is_restarted: bool
) -> None:
    """It was cut off until then, or its ledger refused. The first read tells which runs are of the new role."""
    region = Region(state(THERE))
    region.db.runs = region.db.locked = ["early"]
    region.db.asked_at["early"] = region.clock.now() - timedelta(seconds=1)
    if was_standby:
        region.turn()
    region.flip(HERE, Phase.PROMOTING)
    region.turn()
    assert region.status.reconciled_epoch is None, "the scheduler has locked a run"
    region.db.runs, region.db.locked = ["early", "late"], []
    region.db.asked_at["late"] = region.clock.now()
    if is_restarted:
        region.clock.advance(1)
        region.db.job_id, region.db.schedulers = "8", ("8",)
        region.start()
    region.turn()
    assert region.db.runs == ["late"]
    assert region.store.agents(HERE)[-1].reconciled_epoch == 1


@pytest.mark.parametrize("regions", [(THERE,), (THERE, HERE)])
def test_a_region_that_lost_the_role_spares_no_run(active: Region, regions: tuple[str, ...]) -> None:
    """What was asked for under an earlier role of its own is told, and goes on wherever the role is."""
    active.db.runs, active.db.asked_at = ["orders 1"], {"orders 1": active.clock.now() + timedelta(seconds=60)}
    for region in regions:
        active.flip(region)
    active.turn()
    assert active.db.runs == []


def test_a_failed_heartbeat_leaves_the_epoch_unsettled_and_is_repeated(standby: Region) -> None:
    """What was settled counts once the table has it: a crash in between repeats the work."""
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
    """Two schedulers, one leader; the other one reads, heartbeats and leaves the runs alone."""
    active.db.schedulers = ("3", "7")
    active.db.runs = ["orders 1"]
    active.flip(THERE)
    active.turn()
    assert active.db.runs == ["orders 1"]
    active.db.schedulers = ("7",)
    active.turn()
    assert active.db.runs == []


def test_an_agent_that_leads_no_more_does_not_repeat_what_stood_in_its_way(active: Region) -> None:
    """A ledger that failed it weeks ago would refuse a failover to its region for as long as it lives."""
    runs = InMemoryRunsStore()
    runs.unreachable = True
    active.start(runs=runs)
    active.turn()
    assert active.status.ledger_error is not None

    active.db.schedulers = ("3", "7")
    active.turn()
    assert (active.status.ledger_error, active.status.has_ledger) == (None, True)


def test_a_version_is_acknowledged_only_after_the_scheduler_has_passed(active: Region) -> None:
    """A decision made just before the swap may sit in an uncommitted transaction; the scheduler's loop ends it."""
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


def test_an_agent_that_ends_says_so_and_lets_nothing_start_any_more(active: Region) -> None:
    """A failover does not wait for its lease; nothing that it does later can take that back."""
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
    """Its job may have the number of one that lives: a failover would not wait for that."""
    active.turn(2)
    assert active.loop.view is not None
    active.loop.view = replace(active.loop.view, problem="it is another environment")
    active.loop.end()
    assert not active.status.gone
    active.start().end()
    assert not active.status.gone


def test_an_agent_that_cannot_say_that_it_ends_holds_all_the_same(active: Region) -> None:
    """A failover waits for its lease then."""
    active.turn(2)
    active.store.unreachable = True
    active.loop.end()
    active.store.unreachable = False
    active.turn()
    assert (active.status.gone, active.may()) == (False, Action.HOLD)


def test_nothing_starts_before_the_metadata_database_knows_the_scheduler(active: Region) -> None:
    """A failover waits for the schedulers that are listed there, and for none that has only just read the state."""
    active.start().warm_up()
    assert active.may() is Action.HOLD
    active.turn()
    assert active.may() is Action.RUN


@pytest.mark.parametrize(("lease_s", "forgotten_after_s"), [(60, 600), (3600, 7200)])
def test_a_heartbeat_is_dropped_when_its_scheduler_has_outlived_its_view(
    lease_s: float, forgotten_after_s: int
) -> None:
    """A failover waits for every heartbeat that is there; one that still changes belongs to a scheduler that lives."""
    region = Region(state(HERE, lease_s=lease_s))
    region.turn(2)
    dead = replace(region.status, job="8", beat=1)
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


def test_heartbeats_say_for_how_long_a_worker_lives_on_one_read() -> None:
    """A failover waits for the source's own value, not for the caller's."""
    region = Region(state(HERE), fence_file_s=17.0)
    region.turn(2)
    assert region.status.fence_file_s == 17.0


def test_an_acknowledgement_is_sent_at_once() -> None:
    """A failover waits for it: it does not wait for the next heartbeat."""
    region = Region(state(HERE), refresh_s=1.0, heartbeat_s=60.0)
    region.turn(2)
    beat = region.status.beat
    region.db.beat += 1
    region.turn()
    assert (region.status.beat, region.status.version) == (beat + 1, 1)


def test_between_two_turns_it_tells_what_the_scheduler_has_passed(active: Region) -> None:
    """A failover waits for it; the table is not read for it, and one that does not answer is told the next time."""
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


def test_what_is_told_between_two_turns_takes_back_no_epoch(active: Region) -> None:
    """The turn before has settled one, which the agent's view does not show yet."""
    active.flip(THERE)
    active.turn()
    assert active.loop.view is not None
    assert active.loop.view.reconciled_epoch == 0
    active.db.beat += 1
    active.loop.acknowledge()
    assert active.status.version == 2
    assert active.store.peer().observe(HERE).reconciled_epoch == active.status.reconciled_epoch == 1


@pytest.mark.parametrize("phase", list(Phase))
def test_while_a_failover_is_under_way_its_looks_are_close_together(active: Region, phase: Phase) -> None:
    """Each step waits for somebody's next look."""
    active.flip(THERE, phase)
    active.turn(3)
    assert active.loop.turn() == (5.0 if phase is Phase.STEADY else 0.5)


def test_heartbeats_come_at_their_own_pace() -> None:
    """Reads every refresh_s, heartbeats every heartbeat_s."""
    region = Region(state(HERE), refresh_s=1.0, heartbeat_s=5.0)
    region.turn(40)
    assert 8 <= region.status.beat <= 10


def test_a_heartbeat_as_often_as_a_look_comes_with_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much longer one look takes than the next."""
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
    """A replica that lags, or an empty copy, counts as not read: the view stays and ages."""
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
    """A slow answer is old when it arrives."""
    observe = active.store.observe
    asked_at = 0.0

    def slow(region: str) -> object:
        nonlocal asked_at
        asked_at = active.clock.monotonic()
        active.clock.advance(3)
        return observe(region)

    active.store.observe = slow  # type: ignore[assignment, method-assign]
    active.turn()
    assert active.loop.view is not None
    assert active.loop.view.read_at == asked_at


def test_an_unreachable_table_holds_after_the_lease_and_is_logged_once(
    active: Region, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop lives on, complains once, and says when it is over."""
    active.store.unreachable = True
    active.turn(11)
    assert active.may() is Action.RUN
    active.turn(3)
    assert active.may() is Action.HOLD
    assert caplog.text.count("could not finish its turn") == 1
    active.store.unreachable = False
    with caplog.at_level(logging.INFO):
        active.turn()
    assert active.may() is Action.RUN
    assert "works again" in caplog.text


def test_a_broken_database_does_not_stop_the_view(active: Region) -> None:
    """The gate stays informed while the metadata database is away; no heartbeat claims otherwise."""
    active.db.broken = True
    beat = active.status.beat
    active.flip(THERE)
    active.turn(3)
    assert active.loop.view is not None
    assert active.loop.view.state == active.store.state
    assert active.status.beat == beat


def test_no_state_item_holds_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """The plugin enabled before mwaa-dr init: hold, name the command, go on by itself afterwards."""
    region = Region(None)
    region.turn(3)
    assert region.may() is Action.HOLD
    assert caplog.text.count("mwaa-dr init") == 1
    region.store.write(state(HERE), expected_version=None)
    region.turn(2)
    assert region.may() is Action.RUN


def test_the_role_is_said_in_the_seeds_words_once_per_change(caplog: pytest.LogCaptureFixture) -> None:
    """The line that the original document tells its readers to look for."""
    with caplog.at_level(logging.INFO):
        region = Region(state(HERE))
        region.turn(4)
        region.flip(THERE)
        region.turn(4)
    assert caplog.text.count(f"DR State Plugin: Current region {HERE} is ACTIVE") == 1
    assert caplog.text.count(f"DR State Plugin: Current region {HERE} is STANDBY") == 1


def test_the_active_region_keeps_a_snapshot_and_writes_it_on_change(active: Region) -> None:
    """A forced failover takes the wanted set from it."""
    active.turn(5)
    assert active.store.calls.count("put_snapshot") == 1
    active.db.unpaused = ("orders",)
    active.turn()
    snapshot = active.store.get_snapshot(HERE)
    assert snapshot is not None
    assert snapshot.dag_ids == ("orders",)


def test_no_snapshot_of_a_region_in_the_middle_of_a_failover(active: Region) -> None:
    """Half paused is not what people wanted: only STEADY counts, before and after the list."""
    before: DagSet | None = active.store.get_snapshot(HERE)
    assert active.store.state is not None
    active.write(replace(active.store.state, version=2, phase=Phase.DRAINING, plan=plan(THERE)))
    active.db.unpaused = ()
    active.turn()
    assert active.store.get_snapshot(HERE) == before


def test_a_snapshot_is_dropped_when_the_state_moved_while_it_was_listed(active: Region) -> None:
    """List, read again, keep only if the version is the same."""
    before = active.store.get_snapshot(HERE)

    def list_slowly() -> tuple[str, ...]:
        assert active.store.state is not None
        active.write(replace(active.store.state, version=2, phase=Phase.DRAINING, plan=plan(THERE)))
        return ("orders",)

    active.db.unpaused_dags = list_slowly  # type: ignore[method-assign]
    active.turn()
    assert active.store.get_snapshot(HERE) == before


def test_a_snapshot_that_a_failover_wrote_is_replaced_even_by_one_that_was_kept_before_it(active: Region) -> None:
    """Unpaused again at once after the failback, the DAGs are those that the agent had noted before it left."""
    active.turn(2)
    before = active.store.get_snapshot(HERE)
    assert before is not None
    active.flip(THERE)
    active.flip(HERE)
    active.store.put_snapshot(replace(before, dag_ids=("orders",)))
    active.turn(2)
    after = active.store.get_snapshot(HERE)
    assert after is not None
    assert after.dag_ids == ("billing", "orders")


def test_a_standby_takes_no_snapshot(standby: Region) -> None:
    """Its paused DAGs say nothing about what people want."""
    standby.turn(5)
    assert standby.store.get_snapshot(HERE) is None


def test_held_notes_are_looked_for_while_there_may_be_any(active: Region) -> None:
    """Once at the start, then after each hold until none is left; not every turn of a quiet day."""
    active.turn(5)
    assert active.db.calls.count("drop notes") == 1
    active.counts.held = 1
    active.db.held_notes = 1
    active.turn(3)
    active.db.held_notes = 0
    active.turn(3)
    assert active.db.calls.count("drop notes") == 5


def test_an_item_of_the_fence_that_cannot_be_read_is_no_evidence_against_it(active: Region) -> None:
    """A damaged item refused every failover to the region, as if its workers had no fence."""
    active.db.ended_at = active.clock.now() + timedelta(hours=3)
    active.store.damage(f"FENCE#{HERE}")
    active.turn(20)
    assert active.status.fence_ok is None


def test_the_fence_is_false_when_a_task_ended_without_it(active: Region) -> None:
    """Evidence: the last task that had a worker ended, and no worker ever noted its fence."""
    active.turn(20)
    assert active.status.fence_ok is None
    active.db.ended_at = active.clock.now()
    active.turn(20)
    assert active.status.fence_ok is False
    active.store.put_fence(HERE, active.db.ended_at - timedelta(minutes=50))
    active.turn(20)
    assert active.status.fence_ok is True


def test_a_scheduler_gone_for_long_is_forgotten(active: Region) -> None:
    """Rolling restarts would otherwise leave a row each; a short absence is no reason."""
    active.store.put_agent(replace(active.status, job="3"))
    active.turn(100)
    assert [agent.job for agent in active.store.agents(HERE)] == ["3", "7"]
    active.turn(60)
    assert [agent.job for agent in active.store.agents(HERE)] == ["7"]


def test_a_restarted_agent_starts_from_the_view_of_the_one_before(active: Region) -> None:
    """The thread died, not the scheduler: the gate does not fall back to knowing nothing."""
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
    """The gate's thread reads it while this one replaces it: immutable, swapped in one assignment, no lock."""
    assert type(active.loop.view) is View
    with pytest.raises(AttributeError):
        active.loop.view.read_at = 0.0  # type: ignore[misc, union-attr]


UNKNOWN = ["us-est-1", f" {HERE}", "US-EAST-1", ""]


def misspell(region: Region, active: str) -> None:
    """Change the item as a person does, with no other version."""
    region.store._table.state = replace(region.state, active_region=active)


@pytest.mark.parametrize("value", UNKNOWN)
@pytest.mark.parametrize("of", [HERE, THERE])
def test_under_an_active_region_that_is_not_registered_an_agent_touches_nothing(of: str, value: str) -> None:
    """Each region took itself for a standby, and closed what it ran; nobody ran it again."""
    region = Region(state(of))
    region.turn(2)
    region.db.runs, region.db.calls, region.db.unpaused = ["orders 1"], [], ("orders",)
    region.store.calls.clear()
    misspell(region, value)
    region.turn(24)
    assert region.may() is region.may(DecisionPoint.FENCE) is Action.HOLD
    assert (region.db.runs, region.db.notes, region.db.unpaused) == (["orders 1"], [], ("orders",))
    assert not {"close after 0 s", "close after 10 s", "pause"}.intersection(region.db.calls)
    assert not {"put_snapshot", "put_inventory", "write"}.intersection(region.store.calls)


def test_meanwhile_heartbeats_go_on_and_say_why(active: Region) -> None:
    """Status and check show what the gate's note says."""
    misspell(active, "us-est-1")
    active.turn(2)
    before = active.status.beat
    active.turn(3)
    assert active.status.beat == before + 3
    assert "active_region of the item ACTIVE_REGION is 'us-est-1'" in (active.status.held_because or "")
    assert active.status.adopted_epoch is None
    assert active.status.reconciled_epoch == 0


def test_once_the_value_is_corrected_the_region_goes_on_as_before(active: Region) -> None:
    """What arrived meanwhile was held, and executes; nothing was settled anew."""
    misspell(active, "us-est-1")
    active.turn(5)
    active.db.runs = ["orders manual"]
    misspell(active, HERE)
    active.turn()
    assert active.may() is Action.RUN
    assert (active.db.runs, active.db.notes) == (["orders manual"], [])
    assert active.status.held_because is None


def test_an_agent_lists_the_regions_where_the_version_before_has_not() -> None:
    """After an upgrade, and for an item of the AWS sample, which has no item of any region: in the first turn."""
    region = Region(state(HERE))
    region.store._table.lists.clear()
    region.turn()
    assert region.may() is Action.HOLD
    region.turn(2)
    assert region.store.observe(HERE).registered == {HERE}
    assert region.may() is Action.RUN


def test_a_region_that_has_just_been_registered_is_known_when_it_becomes_active(standby: Region) -> None:
    """Also if the list is not due yet."""
    standby.store.put_regions("eu-west-1", ["eu-west-1", HERE, THERE])
    standby.flip("eu-west-1")
    standby.turn(3)
    assert standby.may() is Action.SKIP
    assert standby.store.observe(HERE).registered == {HERE, THERE, "eu-west-1"}


def test_a_state_that_goes_back_is_reported_in_heartbeats(active: Region) -> None:
    """A restored backup made all agents silent for good, and nobody could fail over any more."""
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
    """The region holds once its view is old, and everybody can see why."""

    def observe(region: str) -> Observation:
        raise StateError("The item ACTIVE_REGION of table t cannot be understood: version is 'x'.")

    before = active.status.beat
    monkeypatch.setattr(active.store, "observe", observe)
    active.turn(20)
    assert active.status.beat > before + 5
    assert "version is 'x'" in (active.status.held_because or "")
    assert active.may() is Action.HOLD


def test_an_epoch_of_the_regions_runs_that_cannot_be_used_closes_nothing(
    active: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for another epoch than the state's, it made the active region close all that it ran."""
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
    # What the agent knew stays to be read: it is the value to put back.
    assert active.status.reconciled_epoch == 0
