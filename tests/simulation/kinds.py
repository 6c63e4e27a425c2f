"""
Histories with each kind of run, in two regions that may have different versions of Airflow.

Users start backfills, request runs with the date of an interval or with a partition key, post events of assets, and
clear runs, also during a failover. DAGs have intervals, marks, partitions or conditions of assets, with and without
catchup. A parent waits for its child. Two thirds of the histories have the faults of world.py.

The oracle is Airflow's rule (airflow_rule.py, kinds_airflow.py): what one Airflow would have executed. Each mark of a
schedule and each partition executes once, whatever run has it. No run is lost. A run keeps its date, interval and conf.
No scheduler ends. No event from before a region's role completes a condition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunEvent, RunKey
from airflow_provider_mwaa_dr.core.ports import DAG_SETS, FailoverRecord
from airflow_provider_mwaa_dr.core.state import DRState, Mode
from airflow_provider_mwaa_dr.core.translation import Era
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError
from tests.histories import CONTROL, TIMING, A, B
from tests.simulation.airflow import SCHEDULED, Execution, SimulatedAirflow, SimulatedDag
from tests.simulation.airflow_rule import RunInfo, Timetable, align_to_next
from tests.simulation.families import Families
from tests.simulation.kinds_airflow import (
    BACKFILL,
    DATED,
    Event,
    KindsAirflow,
    KindsDag,
    KindsRun,
    mark_of_date,
)
from tests.simulation.reach import ACTIONS, actions, place
from tests.simulation.world import (
    MOST_SKEW_S,
    Region,
    RegionClock,
    Verdict,
    digest_of,
    disturb,
    freeze_until_unlisted,
    heal,
)

LONG_AGO = -150.0
"""The start date of DAGs without catchup. Users backfill them from here."""
DAGS = (
    KindsDag("cron", every_s=20, timetable=Timetable.CRON, emits="a"),
    KindsDag("intervals", every_s=20, timetable=Timetable.INTERVAL, fails=True),
    KindsDag("latest", every_s=15, timetable=Timetable.CRON, catchup=False, first=LONG_AGO),
    KindsDag("sparse", every_s=15, timetable=Timetable.INTERVAL, catchup=False, first=LONG_AGO),
    KindsDag("late", every_s=60, timetable=Timetable.INTERVAL, max_active=2, first=4 * -60.0),
    KindsDag("on_both", needs=("a", "b")),
    KindsDag("by_hand", fails=True),
    KindsDag("child", max_active=2),
    KindsDag("parent", every_s=30, timetable=Timetable.CRON, max_active=2, triggers="child", waits=True),
    KindsDag(CONTROL, tags=frozenset({"dr:control"})),
)
PARTITIONED = (
    KindsDag("parts", every_s=20, timetable=Timetable.PARTITION),
    KindsDag("latest_part", every_s=15, timetable=Timetable.PARTITION, catchup=False, first=LONG_AGO),
)
PAIRS = (
    *[("3.3.1", "3.3.1")] * 5, ("2.10.3", "2.10.3"), ("3.0.6", "3.0.6"),
    ("2.11.2", "3.3.1"), ("3.3.1", "2.11.2"), ("3.0.6", "3.3.1"), ("3.3.1", "3.0.6"), ("2.10.3", "3.0.6"),
    ("3.0.6", "2.11.2"),
)  # fmt: skip
"""The versions of the two regions."""
LOAD_S = 120
EDGE_S = 30.0
"""An event that arrives in a standby for so long before it becomes active may count as one of the new role."""

KIND, STEP, CASE = "kind", "kind and step", "kind and fault"
KINDS = (
    "mark", "interval", "mark without catchup", "interval without catchup", "partition", "partition without catchup",
    "backfill", "backfill of a partition", "date of an interval", "by hand", "by hand with a partition key",
    "on assets", "child", "parent", "half-filled condition",
)  # fmt: skip
HANDLED = ("adopted", "resumed", "listed")


def kind_of(airflow: KindsAirflow, run_type: str, key: RunKey, *, is_partition: bool) -> str:
    """Return the kind of a run, as it is counted."""
    dag_id, run_id = key
    if run_type == BACKFILL:
        return "backfill of a partition" if is_partition else "backfill"
    if run_type == SCHEDULED:
        if dag_id == "parent":
            return "parent"
        name = {"parts": "partition", "latest_part": "partition"}.get(dag_id)
        if name is None:
            name = "interval" if dag_id in {"intervals", "sparse", "late"} else "mark"
        return name if airflow.dags_by_id[dag_id].catchup else f"{name} without catchup"
    if run_id.startswith(DATED):
        return "date of an interval"
    if is_partition:
        return "by hand with a partition key"
    return {"child": "child", "on_both": "on assets"}.get(dag_id, "by hand")


class Kinds(Families):
    """Two regions with all kinds of runs."""

    timing = replace(TIMING, gate_commit_s=2.5, drain_s=60)

    def make_regions(self) -> None:
        self.versions = dict(zip((A, B), self.rng.choice(PAIRS), strict=True))
        self.eras = {region: self._era(version) for region, version in self.versions.items()}
        is_partitioned = set(self.eras.values()) == {Era.AIRFLOW_3_2}
        self.dags = (*DAGS, *PARTITIONED) if is_partitioned else DAGS
        self.is_faulty = self.seed % 3 != 0
        self.roles = 0
        self.promoted_at: list[tuple[float, str]] = [(0.0, A)]
        self.rows_of: dict[tuple[str, RunKey], RunKey] = {}
        """What each run of each region is counted as."""
        self.values: dict[RunKey, set[tuple[Any, ...]]] = {}
        """The dates and intervals with which the runs of an identity were created."""
        self.claimed: set[RunKey] = set()
        """Everything that a scheduler or a user has created."""
        self.events: dict[RunKey, tuple[RunEvent, ...]] = {}
        """What triggered the runs of conditions."""
        self.broken: dict[str, str] = {}
        """What an agent did wrong. Its turn would hide an error."""
        self.first_late = self.rng.choice([15.0, 25.0, 35.0])
        self.is_late_forgotten = False
        """Whether a forced failover used a snapshot from before a user unpaused the DAG."""
        super().make_regions()
        if self.is_faulty:
            self.lost_answers = self.own_rng.choice([0.0, 0.0, 0.02])
            self.refusals = self.own_rng.choice([0.0, 0.0, 0.0, 0.05])
            self.long_runs = self.own_rng.choice([0, 0, 0.02])
        self.regions[A].airflow.paused |= {"late"}

    @staticmethod
    def _era(version: str) -> Era:
        era = Era.of(version)
        assert era is not None
        return era

    def new_airflow(self, region: str, clock: RegionClock) -> SimulatedAirflow:
        return KindsAirflow(region, self.dags, self, clock, self.eras[region])

    def version_of(self, region: str) -> str:
        return self.versions[region]

    def identity_of(self, region: str, key: RunKey) -> RunKey:
        return self.rows_of.get((region, key), key)

    # -- what happens -----------------------------------------------------------------------------------------------

    def has_row(self, region: str, run: KindsRun) -> None:
        self.rows_of[region, run.key] = run.identity

    def has_been_made(self, run: KindsRun) -> None:
        """A scheduler or a user has created a run; no other region has given its values."""
        self.values.setdefault(run.identity, set()).add((run.at, run.start, run.stop, run.partition_key))
        self.claimed.add(run.identity)
        if run.events is not None:
            if not run.is_adopted:
                self.events.setdefault(run.identity, run.events)
            return

    def check_unchanged(self, run: KindsRun) -> None:
        """A run has the date, interval and conf with which it was created. Another era may add microseconds."""
        if run.conf is not None:
            assert run.conf == {"n": int(run.key[1].rpartition("_")[2])}, f"{run.key} has the conf {run.conf}"
        if run.identity in self.events:
            known_events = self.events[run.identity]
            assert run.events == known_events, f"{run.key} has the events {run.events}; it began with {known_events}"
        if run.is_adopted or run.events is not None or run.identity not in self.values:
            return
        known = self.values[run.identity]
        assert any(
            (run.start, run.stop, run.partition_key) == rest and (at is None) == (run.at is None)
            and abs((run.at or 0.0) - (at or 0.0)) < 0.001
            for at, *rest in ((at, *rest) for at, *rest in known)
            for rest in [tuple(rest)]
        ), f"{run.key} has {run.info}, {run.partition_key}; it was created with {known}"  # fmt: skip

    def has_role(self, region: str) -> bool:
        """Whether a region is active and has reconciled its runs."""
        state = self.state
        return state.active_region == region and self.store._table.reconciled.get(region) == state.epoch

    def condition_is_met(self, region: str, dag_id: str, events: Mapping[str, Event]) -> None:
        if self.state.active_region != region:
            return  # its gate holds the run, and the other region resumes it
        since = self.promoted_at[-1][0]
        if all(event.had_role for event in events.values()) and len({event.role for event in events.values()}) == 1:
            return  # complete since one role of the region: a single Airflow had created the run then
        for asset, event in events.items():
            if event.role == self.roles:
                continue
            arrived = (event.queued_at - self.regions[region].clock.now()).total_seconds() + self.clock.monotonic()
            is_earlier = event.had_role or arrived < since - EDGE_S
            assert not is_earlier, f"an event of {asset} from an earlier role of {region} completes a condition"

    def events_are_dropped(self, region: str, dag_id: str, events: Mapping[str, Event]) -> None:
        self.reached[KIND, "half-filled condition dropped"] += 1
        self.note(None, f"{region}: {dag_id} forgets the events of {', '.join(events)}")
        for asset, event in events.items():
            if event.had_role and event.role == self.roles and self.state.active_region == region:
                self.broken[f"{dag_id} -"] = f"loses an event of {asset}, which has arrived in this role of {region}"

    def is_handled(self, region: str, run: LedgerRun, how: str) -> None:
        airflow: Any = self.regions[region].airflow
        kind = kind_of(airflow, run.run_type, run.key, is_partition=run.partition_key is not None)
        other = B if region == A else A
        eras = f"{self.eras[other].value} -> {self.eras[region].value}"
        self.reached[KIND, f"{kind} {how}"] += 1
        self.reached["versions", f"{eras}: {how}"] += 1

    def _open_kinds(self, region: str) -> set[str]:
        airflow: Any = self.regions[region].airflow
        kinds = {
            kind_of(airflow, run.run_type, run.key, is_partition=run.partition_key is not None)
            for runs in airflow.open.values()
            for run in runs.values()
        }
        return kinds | ({"half-filled condition"} if any(airflow.waiting.values()) else set())

    def acts(self, before: DRState, new: DRState, who: str) -> None:
        super().acts(before, new, who)
        if new.active_region != before.active_region:
            self.roles += 1
            self.promoted_at.append((self.clock.monotonic(), new.active_region))
        if new.plan is not None and new.plan.set_id is not None and (before.plan is None or not before.plan.set_id):
            found = self.store.get(DAG_SETS, new.plan.set_id)
            is_unpaused = "late" not in self.regions[new.plan.source].airflow.paused
            if new.plan.is_forced and is_unpaused and found is not None and "late" not in found.dag_ids:
                self.is_late_forgotten = True
        for action in actions(before, new, who):
            if action != "beat":
                for kind in self._open_kinds(before.active_region):
                    self.reached[STEP, f"{kind}: {action}"] += 1

    def count_fault(self, fault: str, region: str | None = None) -> None:
        super().count_fault(fault, region)
        if not self.is_healed and self.regions.keys() >= {A, B}:
            for kind in self._open_kinds(region or self.state.active_region):
                self.reached[CASE, f"{kind}: {fault}: {place(self.state, region)}"] += 1

    def started_while_draining(self, region: Region, key: RunKey) -> None:
        if self.is_faulty:
            self.awaited_starts += 1
            return  # families.py judges when a run may start; a lagging agent is its subject
        super().started_while_draining(region, key)

    def triggered(self, region: str, key: RunKey, *, by: RunKey, epoch: int) -> None:
        super().triggered(region, key, by=self.identity_of(region, by), epoch=epoch)

    def _disturb_promotion(self, left: str, target: str) -> None:
        if self.is_faulty:
            super(Families, self)._disturb_promotion(left, target)

    # -- users --------------------------------------------------------------------------------------------------------

    def act_as_user(self) -> None:
        """One request of a user, to the active region, also during a failover."""
        chance = self.rng.random()
        if chance < 0.15:
            self.trigger_by_hand()
        elif chance < 0.35:
            self.request_date()
        elif chance < 0.55:
            self.start_backfill(self.rng.choice(sorted({"sparse", "latest", "latest_part"} & self.by_id.keys())))
        elif chance < 0.65:
            self.request_partition()
        elif chance < 0.9:
            self.post_event()
        else:
            self.clear_something()

    def _is_reachable(self, region: Region) -> bool:
        return region.is_up and region.airflow.is_reachable

    def _requested(self, region: Region, identity: RunKey) -> None:
        self.owed.setdefault(identity, self.clock.monotonic())
        self.requested.setdefault(identity, (region.name, self.state.epoch))

    def request_partition(self) -> None:
        region, now = self.active, self.clock.monotonic()
        if "parts" in self.by_id and self._is_reachable(region):
            run = region.airflow.trigger_partition("parts", align_to_next(now, 20.0) - 20.0, self.new_number())
            self._requested(region, run.identity)

    def request_date(self) -> None:
        """A user requests a run for an interval that no region has reached, at times in the region that is standby."""
        is_standby = self.rng.random() < 0.2
        region, now = self.active, self.clock.monotonic()
        if is_standby:
            region = self.regions[B if region.name == A else A]
        dag: Any = self.by_id[self.rng.choice(["cron", "intervals", "latest", "sparse"])]
        # A date of a cron string is another mark in the other era: a limit of docs/explanation/versions.md.
        eras = {each is Era.AIRFLOW_2 for each in self.eras.values()}
        if not self._is_reachable(region) or (dag.timetable is Timetable.CRON and len(eras) == 2):
            return
        era = self.eras[region.name]
        mark = align_to_next(now + MOST_SKEW_S + 5, dag.every_s) + dag.every_s * self.rng.choice([0, 0, 1])
        at = mark - (mark_of_date(dag, era, 0.0))
        identity = (dag.dag_id, f"mark {mark:g}")
        if identity in self.claimed:
            return
        # On Airflow 3, a run with the interval before its date stops a CronDataIntervalTimetable until the next mark.
        # Between two eras, its interval shows which mark the date belongs to.
        with_interval = set(self.eras.values()) != {Era.AIRFLOW_2} or self.rng.random() < 0.5
        run = region.airflow.trigger_date(dag.dag_id, at, self.new_number(), with_interval=with_interval)
        if run is not None:
            assert run.identity == identity
            if not is_standby:  # the provider ends it, and the scheduler creates the interval
                self._requested(region, identity)

    def start_backfill(self, dag_id: str) -> None:
        """A user backfills up to four marks that no region has created. On Airflow 2, a command would execute them."""
        region, now = self.active, self.clock.monotonic()
        if not self._has_become_active(region) or self.eras[region.name] is Era.AIRFLOW_2:
            return
        dag: Any = self.by_id[dag_id]
        has_intervals = dag.timetable.has_intervals(self.eras[region.name])
        infos = []
        first = dag.first + (dag.every_s if has_intervals else 0)
        for number in range(int((now - MOST_SKEW_S - 30 - first) // dag.every_s)):
            mark = first + number * dag.every_s
            info = RunInfo(mark, mark, mark, mark)
            if has_intervals:
                info = RunInfo(mark - dag.every_s, mark - dag.every_s, mark, mark)
            elif dag.timetable is Timetable.PARTITION:
                info = RunInfo(None, None, None, mark, mark)
            name = f"partition {mark:g}" if info.partition is not None else f"mark {mark:g}"
            if (dag_id, name) not in self.claimed:
                infos.append(info)
        if infos:
            begin = self.rng.randrange(len(infos))
            for run in region.airflow.backfill(dag_id, infos[begin : begin + 4]):
                self._requested(region, run.identity)

    def post_event(self) -> None:
        """A user, or another system, posts an event of an asset; at times to the region that is not active."""
        region = self.active
        if self.rng.random() < 0.15:
            region = self.regions[B if region.name == A else A]
        if self._is_reachable(region):
            region.airflow.event(self.rng.choice(["a", "b", "b"]))

    def clear_something(self) -> None:
        region = self.active
        if not self._has_become_active(region):
            return
        rows = region.airflow.rows
        ended = sorted(run.key for run in rows.values() if not run.is_open and run.identity in self.executions)
        if ended:
            self._clear(region, self.rng.choice(ended))

    def unpause_late(self) -> None:
        """A user had paused a DAG, has backfilled it, or requested its last interval, and unpauses it now."""
        region, now = self.regions[A], self.clock.monotonic()
        airflow: Any = region.airflow
        dag: Any = self.by_id["late"]
        era = self.eras[A]
        marks = [dag.first + number * dag.every_s for number in range(1, int((now - dag.first) // dag.every_s) + 1)]
        if era is not Era.AIRFLOW_2 and self.rng.random() < 0.6:
            infos = [RunInfo(mark - dag.every_s, mark - dag.every_s, mark, mark) for mark in marks]
            for run in airflow.backfill("late", infos):
                self._requested(region, run.identity)
        else:
            run = airflow.trigger_date("late", marks[-1] - dag.every_s, self.new_number(), with_interval=True)
            assert run is not None
            self._requested(region, run.identity)
        airflow.paused -= {"late"}

    def _check_previous_success(self, execution: Execution) -> None:
        """world.py compares look-backs. Here, two regions may have two dates for one mark."""

    # -- the oracle ----------------------------------------------------------------------------------------------------

    def created(self, region: str, key: RunKey) -> None:
        super().created(region, key)
        self.claimed.add(key)
        if key[0] == "on_both":
            self.requested.setdefault(key, (region, self.state.epoch))

    def _due(self, dag: SimulatedDag, now: float) -> set[RunKey]:
        timetable = getattr(dag, "timetable", None)
        assert dag.every_s is not None
        if timetable is None:
            return set()
        first = getattr(dag, "first", 0.0) + (dag.every_s if timetable.has_intervals(self.eras[A]) else 0)
        name = "partition" if timetable is Timetable.PARTITION else "mark"
        return {(dag.dag_id, f"{name} {mark:g}") for mark in range(int(first), int(now), dag.every_s)}

    def judge(self, now: float) -> Verdict:
        verdict = super().judge(now)
        verdict.wrong |= self.broken
        if self.eras[self.state.active_region] is Era.AIRFLOW_2 and verdict.lost:
            waiting = self._listed() | self._cleared_backfills()
            verdict.lost = [run for run in verdict.lost if run not in waiting]
        return verdict

    def _cleared_backfills(self) -> set[str]:
        """
        Return the runs of backfills that a user has cleared, and that are queued in the active region.

        On Airflow 2, no scheduler starts them (``get_queued_dag_runs_to_set_running``), in a single Airflow as well.
        """
        airflow: Any = self.active.airflow
        return {
            " ".join(run.identity)
            for runs in airflow.open.values()
            for run in runs.values()
            if run.run_type == BACKFILL and run.identity in self.cleared
        }

    def _listed(self) -> set[str]:
        """Return the runs of backfills that agents of the active region report as not started."""
        found = set()
        for scheduler in self.active.schedulers:
            bookkeeper = scheduler.agent._leader.ledger.bookkeeper
            for text in bookkeeper.waiting if bookkeeper is not None else ():
                dag_id, _, rest = text.partition(" ")
                run_id = rest.partition(": ")[0].partition("__airflow-")[0]
                if run_id.startswith(BACKFILL):
                    identities = {
                        identity
                        for (_, key), identity in self.rows_of.items()
                        if key[0] == dag_id and key[1].partition("__airflow-")[0] == run_id
                    }
                    found |= {" ".join(identity) for identity in identities}
        return found


def known_cases() -> dict[str, Counter[str]]:
    """Return the known cases with a count of zero."""
    return {
        KIND: Counter({f"{kind} {how}": 0 for kind in KINDS[:-1] for how in HANDLED[:2]}),
        STEP: Counter(
            {f"{kind}: {action}": 0 for kind in KINDS for action in ACTIONS if action not in {"beat", "join"}}
        ),
    }


def play(world: Kinds) -> Verdict:
    """Run one history, and judge it."""
    rng = world.rng
    if world.is_faulty:
        world.points.plan()
    try:
        world.clock.after(world.first_late, world.unpause_late)
        for second in range(0, LOAD_S, 5):
            world.clock.after(second + rng.random() * 5, world.act_as_user)
        world.clock.advance(rng.choice([40, 47, 60]))
        for number in range(rng.choice([1, 2, 2, 3])):
            _fail_over(world, number)
            world.clock.advance(rng.choice([5, 15, 30]))
        heal(world)
        for target in (rng.choice([A, B]), rng.choice([A, B])):
            last = world.call(target, faulty=False, stop_running=True)
            world.scheduler.run_until_idle()
            assert isinstance(last.outcome, (FailoverRecord, AlreadyActiveError)), f"the last: {last.outcome!r}"
            world.clock.advance(8)
        world.undo_late_changes()
        if world.is_late_forgotten:
            world.active.airflow.paused -= {"late"}  # a user sees that it is paused
        verdict = world.judge_after_waiting_runs()
    finally:
        world.scheduler.end()
    return verdict


def _fail_over(world: Kinds, number: int) -> None:
    rng = world.rng
    if not world.is_faulty:
        target = (B, A, B)[number]
        caller = world.call(target, faulty=False, mode=Mode.GRACEFUL, stop_running=rng.random() < 0.5)
        world.scheduler.run_until_idle()
        assert isinstance(caller.outcome, FailoverRecord), f"planned failover {number + 1}: {caller.outcome!r}"
        return
    for _ in range(rng.randint(0, 2)):
        disturb(world)
    if rng.random() < 0.2:
        freeze_until_unlisted(world)
    for _ in range(rng.choice([1, 1, 2])):
        caller = world.call(
            rng.choice([A, B, B]),
            after_s=rng.choice([0, rng.uniform(0, 30)]),
            mode=rng.choice([Mode.AUTO, Mode.GRACEFUL, Mode.FORCED]),
            stop_running=rng.random() < 0.5,
            even_if_not_ready=rng.random() < 0.8,
        )
        if rng.random() < 0.3:
            caller.kill_at = rng.randint(1, rng.choice([40, 150, 400]))
    world.scheduler.run_until_idle()
    world.scheduler.raise_other_errors()


def run_history(seed: int, *, is_traced: bool = False) -> tuple[Kinds, Verdict]:
    """
    Run one history.

    :raises AssertionError: a rule was broken.
    """
    world = Kinds(seed, is_traced=is_traced)
    verdict = play(world)
    assert not verdict.problems, f"{world.versions}: {verdict.problems}"
    return world, verdict


def digest(seed: int) -> str:
    """Return a hash of everything that happens in a history; see world.py."""
    world = Kinds(seed, is_traced=True)
    return digest_of(world, lambda: play(world))
