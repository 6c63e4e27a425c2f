"""
Histories in which runs wait for runs of other DAGs: parents and children, sensors, and a run of a paused DAG.

Half of them are without faults. In these, each planned failover must complete although runs in progress wait for runs
that the gate holds. In all of them, the gate of a region that is being drained starts only runs that unfinished work
waits for. The other half have the faults of world.py, and users who mark parents as failed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.core.ports import FailoverRecord
from airflow_provider_mwaa_dr.core.state import Mode, Phase
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError
from tests.histories import CONTROL, LEASE_S, TIMING, A, B
from tests.simulation.airflow import TASKS, Execution, Run, SimulatedDag, Task
from tests.simulation.world import Region, Simulation, Verdict, digest_of, disturb, freeze_until_unlisted, heal

DAGS = (
    SimulatedDag("upstream", every_s=20, max_active=1),
    SimulatedDag("downstream", every_s=20, max_active=2, senses="upstream"),
    SimulatedDag("child", max_active=2),
    SimulatedDag("parent", every_s=17, max_active=2, triggers="child", waits=True),
    SimulatedDag("middle", triggers="child", waits=True),
    SimulatedDag("top", every_s=45, max_active=1, triggers="middle", waits=True),
    SimulatedDag("on_request"),
    SimulatedDag("requester", every_s=15, triggers="on_request"),
    # Its chain becomes two if its region is lost before it publishes who requested a run. All of them need room.
    SimulatedDag("again_and_again", max_active=20, triggers="again_and_again"),
    SimulatedDag("waits_forever", senses="child"),
    SimulatedDag(CONTROL, tags=frozenset({"dr:control"})),
)
FOREVER = "waits_forever"
LOAD_S = 100
STALE_S = LEASE_S
"""A gate may let a run start for which work waited when its agent last read the database."""


@dataclass(frozen=True)
class _Request:
    """
    A task of a parent requested a run.

    :ivar epoch: under which the task started.
    """

    at: float
    region: str
    epoch: int
    parent: RunKey


class Families(Simulation):
    """Two regions whose runs wait for each other."""

    timing = replace(TIMING, gate_commit_s=2.5, drain_s=120)
    dags = DAGS

    def make_regions(self) -> None:
        self.awaited_at: dict[RunKey, float] = defaultdict(lambda: -1e9)
        self.awaited_starts = 0
        """How many held runs a gate let start during a drain."""
        self.requests: dict[RunKey, _Request] = {}
        """What requested each child."""
        super().make_regions()
        self.lost_answers = self.refusals = 0.0
        self.long_runs = 0
        # Users trigger one run of the DAG that triggers itself, and one that waits forever; they pause its DAG.
        forever = {FOREVER} & self.by_id.keys()
        self.wanted -= forever
        for region in self.regions.values():
            region.airflow.paused |= forever

    def _tick(self) -> None:
        for region in self.regions.values():
            for run in region.airflow.active.values():
                for task in run.tasks:
                    if self._waits(region, run, task):
                        assert task.other is not None
                        self.awaited_at[task.other] = self.clock.monotonic()
        super()._tick()

    def _disturb_promotion(self, left: str, target: str) -> None:
        if self.seed % 2:
            super()._disturb_promotion(left, target)

    @staticmethod
    def _waits(region: Region, run: Run, task: Task) -> bool:
        """Whether an unfinished task waits for a run, and can continue after it."""
        dag = region.airflow.dags_by_id[run.dag_id]
        is_alive = run.state == "running" and task.state in {"running", "deferred"} and task.other is not None
        can_continue = run.dag_id not in region.airflow.paused or task.state == "running"
        return is_alive and can_continue and (dag.waits or dag.senses is not None)

    def started_while_draining(self, region: Region, key: RunKey) -> None:
        self.awaited_starts += 1
        since = self.clock.monotonic() - self.awaited_at[key]
        assert since <= STALE_S, f"{region.name} starts {' '.join(key)} while it is drained; no work waits for it"

    def fail_a_parent(self) -> None:
        """A user marks a running parent as failed. Its held child then has no parent."""
        region = self.active
        parents = [run for run in region.airflow.active.values() if run.dag_id == "parent" and run.state == "running"]
        if parents and self._has_become_active(region):
            run = self.rng.choice(parents)
            self.note(run.key, "a user marks it as failed")
            region.airflow._close(run, "failed")
            self.failed_by_users.add(run.key)

    def triggered(self, region: str, key: RunKey, *, by: RunKey, epoch: int) -> None:
        super().triggered(region, key, by=by, epoch=epoch)
        self.requests[key] = _Request(self.clock.monotonic(), region, epoch, by)

    def judge(self, now: float) -> Verdict:
        verdict = super().judge(now)
        # The parent ran again, and requested another child, which must execute. Or it ran again without beginning.
        again = [key for key in self.requests if self._is_requested_again(key) or self._has_failed_parent(key)]
        gone = {" ".join(key) for key in (*self.failed_by_users, *again)}
        verdict.lost = [run for run in verdict.lost if run not in gone and not self._senses_the_past(run)]
        for key in self.requests:
            if self._is_requested_again(key) and self._is_resumed(key):
                verdict.wrong[" ".join(key)] = "was resumed, although its parent ran again and requested another child"
        return verdict

    def _senses_the_past(self, run: str) -> bool:
        """
        Whether a run is a sensor that may be resumed after the run that it senses has ended in a lost region.

        Only the last finished run of each DAG is adopted, so the sensor finds no such run.
        """
        return bool(self.left) and self.by_id[run.partition(" ")[0]].senses is not None

    def _is_requested_again(self, key: RunKey, *, after: int | None = None) -> bool:
        """
        Whether the parent of a run began again in a later epoch, and requests the run again.

        A parent whose end was not published may have been requested again itself, and not have begun again.
        """
        request = self.requests.get(key)
        if request is None or not (self.by_id[request.parent[0]].waits or request.parent[0] == key[0]):
            return False
        after = request.epoch if after is None else after
        lines = self.executions[request.parent]
        if any(line.kind == "begin" and line.epoch > after for line in lines):
            return True
        has_ended = any(line.kind == "end" and line.ok and self._is_published(line) for line in lines)
        return not has_ended and self._is_requested_again(request.parent, after=after)

    def _has_failed_parent(self, key: RunKey) -> bool:
        """Whether a region was lost, and a user has failed the parent of this child, perhaps after it was resumed."""
        return bool(self.left) and self.requests[key].parent in self.failed_by_users

    def _is_published(self, line: Execution) -> bool:
        return all(line.at < each.published_at for each in self.left if each.region == line.region)

    def _is_resumed(self, key: RunKey) -> bool:
        """
        Whether a child began in a later epoch than that of its request, although its region could publish both, and no
        user has cleared it since.
        """
        request = self.requests[key]
        # A single Airflow, too, executes both if the parent's task begins again, for example after a restart.
        is_repeated = any(
            (other.parent, other.epoch) == (request.parent, request.epoch) and other.at > request.at
            for other in self.requests.values()
        )
        is_unknown = is_repeated or any(
            each.region == request.region and request.at + 1.0 >= each.published_at for each in self.left
        )
        return not is_unknown and any(
            line.kind == "begin"
            and line.epoch > request.epoch
            and not any(request.at <= at <= line.at for at in self.cleared.get(key, ()))
            for line in self.executions[key]
        )


def lose_the_active_region(world: Families) -> None:
    """The active region is lost while parents wait for their children. It returns later."""
    source = world.active
    world.clock.advance(world.rng.uniform(0, 20))
    source.die()
    world.clock.after(world.rng.choice([40, 60, 90]), source.revive)


def play(world: Families) -> Verdict:
    """Run one history, and judge it."""
    rng, is_faulty = world.rng, world.seed % 2 == 1
    first = world.active.airflow
    world.owed[first.trigger_by_hand("again_and_again", world.new_number())] = 0.0
    waiting = first.trigger_by_hand(FOREVER, world.new_number())
    first.paused -= {FOREVER}
    try:
        world.clock.advance(rng.choice([20, 27, 34]))
        first.paused |= {FOREVER}
        for number, target in enumerate((B, A, B)[: rng.choice([1, 2, 3])]):
            if is_faulty:
                for _ in range(rng.randint(0, 2)):
                    disturb(world)
                if rng.random() < 0.5:
                    freeze_until_unlisted(world)
                for _ in range(3):
                    world.clock.after(rng.uniform(0, 40), world.fail_a_parent)
            is_lost = world.seed % 4 == 3 and world.state.active_region != target
            if is_lost:
                lose_the_active_region(world)
            mode = rng.choice([Mode.AUTO, Mode.GRACEFUL]) if is_faulty else Mode.GRACEFUL
            caller = world.call(target, faulty=is_faulty, mode=Mode.FORCED if is_lost else mode)
            if is_faulty and rng.random() < 0.3:
                caller.kill_at = rng.randint(50, 300)
                world.call(target, faulty=False, after_s=rng.uniform(5, 60), mode=Mode.GRACEFUL)
            world.scheduler.run_until_idle()
            if not is_faulty:
                assert isinstance(caller.outcome, FailoverRecord), (
                    f"planned failover {number + 1} to {target} ended with {caller.outcome!r}"
                )
            world.clock.advance(rng.choice([10, 25, 40]))
        heal(world)
        # Users may have paused it after the last snapshot of a lost region. They pause it again.
        world.active.airflow.paused |= {FOREVER}
        last = world.call(rng.choice([A, B]), faulty=False, mode=Mode.GRACEFUL)
        world.scheduler.run_until_idle()
        assert isinstance(last.outcome, (FailoverRecord, AlreadyActiveError)), f"the last failover: {last.outcome!r}"
        world.clock.advance(LOAD_S)
        verdict = world.judge_after_waiting_runs()
    finally:
        world.scheduler.end()
    active = world.active.airflow
    assert world.state.phase is Phase.STEADY
    row = active.rows.get(waiting)
    assert row is not None, f"{' '.join(waiting)}, whose DAG was paused, is not in {active.region}"
    assert row.is_open, f"{' '.join(waiting)}, whose DAG was paused, is {row.state} in {active.region}"
    assert len(row.tasks) == TASKS
    return verdict


def run_history(seed: int, *, is_traced: bool = False) -> tuple[Families, Verdict]:
    """
    Run one history.

    :raises AssertionError: a rule was broken.
    """
    world = Families(seed, is_traced=is_traced)
    verdict = play(world)
    assert not verdict.problems, f"history {seed}: {verdict.problems}"
    return world, verdict


def digest(seed: int) -> str:
    """Return a hash of everything that happens in a history; see world.py."""
    world = Families(seed, is_traced=True)
    return digest_of(world, lambda: play(world))
