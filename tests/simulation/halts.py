"""
Histories of failovers that halt for steps of users: a DAG drains, moves the data, promotes, moves the names, resumes.

While a step of the DAG lasts, no region may start a run or a task, and no component may continue the plan. That ends
when another caller continues, cancels or supersedes the plan. A halt of a promoted plan also ends when the time for it
has passed on the clock of the target's agent.

Tasks of the DAG are killed and retried. Regions fail as in world.py. In some histories, the agents of a region have the
version before, which knows no halts.
"""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_mwaa_dr.core.failover import FailoverRequest
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View
from airflow_provider_mwaa_dr.core.ports import AgentStatus, FailoverOutcome, FailoverRecord, Observation
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Stage
from airflow_provider_mwaa_dr.exceptions import DRError
from tests.histories import A, B, Caller, KilledError
from tests.simulation.world import (
    LOAD_S,
    Region,
    RegionsTable,
    Simulation,
    Verdict,
    digest_of,
    disturb,
    fail_over_at_last,
    heal,
)

STAGES = (Stage.DRAINED, Stage.PROMOTED, None)
FASTEST = 1.04
"""The rate of the fastest clock of a region, and a little more."""


class EarlierTable(RegionsTable):
    """The state table as agents of the version before read and write it: a plan has no stage."""

    def read(self) -> DRState:
        return _without_stage(super().read())

    def observe(self, region: str) -> Observation:
        found = super().observe(region)
        return replace(found, state=None if found.state is None else _without_stage(found.state))

    def put_agent(self, status: AgentStatus) -> None:
        super().put_agent(replace(status, knows_hold=False))


def _without_stage(state: DRState) -> DRState:
    if state.plan is None:
        return state
    return replace(state, plan=replace(state.plan, hold=None, halts=0, quiet=False))


class HaltingRegion(Region):
    """A region whose fence may be of the version before."""

    def _decide(self, view: View | None, point: DecisionPoint, **values: object) -> Action:
        state = view.state if view is not None else None
        is_open = point is DecisionPoint.FENCE and self.name == self.world.earlier  # type: ignore[attr-defined]
        if is_open and view is not None and state is not None and state.plan is not None and state.plan.is_halted:
            # Its fence lets tasks start until the promotion. In a failover without halts, that takes a second.
            view = replace(view, state=replace(state, plan=replace(state.plan, drained=False)))
        return super()._decide(view, point, **values)  # type: ignore[arg-type]


class Halting(Simulation):
    """Two regions, and a DAG that fails over with steps of its own."""

    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.step: str | None = None
        """The id of the plan during whose halt the DAG works on its step."""
        self.halted_at = 0.0
        self.wrong_writes: list[str] = []
        self.dag = ""
        """The name of the DAG's current try."""
        self.stage = 0
        self.steps = self.intervened = self.expired = self.refused = 0
        super().__init__(seed, is_traced=is_traced)

    def make_regions(self) -> None:
        self.earlier = self.own_rng.choice([None, None, None, None, None, None, A, B])
        super().make_regions()

    def new_region(self, name: str) -> Region:
        return HaltingRegion(self, name)

    def table_of(self, region: str) -> RegionsTable:
        peer = EarlierTable() if region == self.earlier else RegionsTable()
        peer._table = self.store._table
        return peer

    # -- the DAG -------------------------------------------------------------------------------------------------------

    def start_dag(self, target: str, *, mode: Mode, hold_s: float, faulty: bool) -> Caller:
        """Let the DAG begin, or begin again at the stage that it had reached."""
        name = self.dag = self.new_name()
        request = FailoverRequest(
            target=target, reason="test", by=name, mode=mode, hold_s=hold_s, stop_running=True, even_if_not_ready=True
        )

        def run() -> object:
            while True:
                until = STAGES[self.stage]
                self.step = None
                outcome = self.engine_of(name).run(replace(request, until=until))
                if until is None:
                    return outcome
                if outcome.outcome is FailoverOutcome.OPEN:
                    self._begin_step(outcome)
                    self.scheduler.hand_over(self.rng.choice([0, 3, 20, 60]))
                self.stage += 1

        return self.scheduler.start(Caller(name, run, faulty=faulty, wake_at=self.clock.monotonic()))

    def _begin_step(self, record: FailoverRecord) -> None:
        state, plan = self.state, self.state.plan
        if plan is None or plan.id != record.id or not plan.is_halted:
            return  # the stage has been passed
        self.step, self.halted_at = plan.id, self.clock.monotonic()
        self.steps += 1
        self.note(None, f"the DAG works at {plan.hold.value if plan.hold is not None else '?'}")
        if plan.hold is Stage.DRAINED and not plan.is_forced and self.regions[plan.source].is_up:
            left = self.regions[plan.source].in_flight()
            assert not left, f"halted while {left} are in flight in {plan.source}"
        assert state.active_region == (plan.source if plan.hold is Stage.DRAINED else plan.target)

    # -- what must not happen during a step ----------------------------------------------------------------------------

    def check_start(self, region: str, epoch: int) -> None:
        assert self.step is None, f"{region} starts a task under epoch {epoch} while the DAG works on its step"
        super().check_start(region, epoch)

    def check_write(self, caller: Caller, before: DRState, new: DRState) -> None:
        if self.step is not None and caller.name != self.dag:
            self.step = None
            self.intervened += 1
        super().check_write(caller, before, new)

    def acts(self, before: DRState, new: DRState, who: str) -> None:
        if who == "an agent":
            # An agent logs each error of its turn, and continues. An assertion here would stop nothing.
            if before.phase is Phase.DRAINING:
                self.wrong_writes.append("an agent continues a plan before its promotion")
            if self.step is not None and before.plan is not None:
                waited_s = self.clock.monotonic() - self.halted_at
                if waited_s * FASTEST < before.plan.hold_s:
                    self.wrong_writes.append(f"an agent finishes a halted plan after {waited_s:.0f} s")
                self.step = None
                self.expired += 1
        super().acts(before, new, who)


def play(world: Halting) -> Verdict:
    """Run one history, and judge it."""
    rng = world.rng
    try:
        for second in range(0, LOAD_S, 8):
            world.clock.after(second + rng.random() * 8, world.trigger_by_hand)
        world.clear_failed_runs()
        world.clock.advance(rng.choice([5, 20]))
        for target in (B, A)[: rng.choice([1, 1, 2])]:
            for _ in range(rng.choice([0, 0, 1, 2])):
                disturb(world)
            _fail_over_with_steps(world, target)
            world.clock.advance(rng.choice([0, 10, 30]))
        world.step = None
        heal(world)
        world.earlier = None
        fail_over_at_last(world, rng.sample([A, B], 2))
        verdict = world.judge_after_waiting_runs()
    finally:
        world.scheduler.end()
    return verdict


def _fail_over_with_steps(world: Halting, target: str) -> None:
    """Run the DAG, with retries of its killed tasks, while other callers may intervene."""
    rng = world.rng
    mode = rng.choice([Mode.AUTO, Mode.GRACEFUL, Mode.FORCED])
    hold_s = rng.choice([15.0, 40.0, 200.0])
    world.stage = 0
    if rng.random() < 0.3:
        world.call(
            rng.choice([A, B]),
            after_s=rng.uniform(5, 120),
            mode=rng.choice([Mode.AUTO, Mode.FORCED]),
            until=rng.choice([None, *Stage]),
            even_if_not_ready=True,
        )
    for number in range(4):
        caller = world.start_dag(target, mode=mode, hold_s=hold_s, faulty=number < 3)
        if number < 3 and rng.random() < 0.4:
            caller.kill_at = rng.randint(1, rng.choice([60, 200, 500]))
        world.scheduler.run_until_idle()
        world.scheduler.raise_other_errors()
        if isinstance(caller.outcome, KilledError) and rng.random() < 0.3:
            # The retry begins later. The plan is halted, or its owner is silent.
            world.clock.advance(rng.choice([5, 30, 80]))
        elif not isinstance(caller.outcome, (KilledError, DRError)):
            break
        elif isinstance(caller.outcome, DRError):
            world.refused += 1
            break
    world.step = None


def run_history(seed: int, *, is_traced: bool = False) -> tuple[Halting, Verdict]:
    """
    Run one history.

    :raises AssertionError: a rule was broken.
    """
    world = Halting(seed, is_traced=is_traced)
    verdict = play(world)
    assert not world.wrong_writes, f"history {seed}: {world.wrong_writes}"
    assert not verdict.problems, f"history {seed}: {verdict.problems}"
    return world, verdict


def digest(seed: int) -> str:
    """Return a hash of everything that happens in a history; see :func:`.world.digest`."""
    world = Halting(seed, is_traced=True)
    return digest_of(world, lambda: play(world))
