"""
The drill ``upgrade``: it upgrades Airflow in one region, from one site to the other one, goes back, and upgrades again.

Its steps are those of docs/tutorial/upgrade.md. The verdict counts marks (marks.py), because a run of one mark has
different ids in two versions of Airflow. The pause of scheduling is no part of the verdict: it contains the drain,
which takes as long as the running tasks and a busy machine need.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow_provider_mwaa_dr.core.ports import RECORDS, FailoverOutcome, FailoverRecord
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG
from airflow_provider_mwaa_dr.core.sites import Sites, parse_site
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.exceptions import RefusedError
from airflow_provider_mwaa_dr.sandbox.cloud.tables import SandboxTables
from airflow_provider_mwaa_dr.sandbox.drill.marks import Marks, count_marks, pauses
from airflow_provider_mwaa_dr.sandbox.drill.report import Line, Report, begun_at
from airflow_provider_mwaa_dr.sandbox.drill.scenario import Scenario
from airflow_provider_mwaa_dr.sandbox.drill.stage import DrillRegion, Stage
from airflow_provider_mwaa_dr.sandbox.runtime import process
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import major
from airflow_provider_mwaa_dr.sandbox.runtime.process import ProcessSession

SITES = Sites(map(parse_site, ("blue=2.11.2@us-east-2", "green=3.3.1@us-east-2")))
"""The sites of the drill, if the user names no others."""
LOAD = "upgrade_load.py"
EVERY = timedelta(seconds=20)
REGULAR = ("upgrade_string", "upgrade_trigger", "upgrade_interval", "upgrade_delta", "upgrade_parent")
CONTINUOUS = "upgrade_continuous"
REQUESTED_BY = {"upgrade_consumer": "upgrade_trigger", "upgrade_child": "upgrade_parent"}
BACKFILLED_BEFORE, BACKFILLED_AFTER = "upgrade_backfill_before", "upgrade_backfill_after"
BACKFILLED_HOURS = 3
HOUR = timedelta(hours=1)
WANTED = (*REQUESTED_BY, *REGULAR, CONTINUOUS, TEST_DAG)
"""The DAGs that run from the start. The consumer is first: Airflow drops the events of a paused consumer."""
DRAIN_S = 120
"""The failovers wait so long for running runs. The sandbox's own limit is for runs of a few seconds."""
PHASE_S = 480.0
"""Each DAG executes two runs within this time, also on a busy machine."""
BACKLOG_DEADLINE_S = 180.0
"""A mark that has not executed within this time counts as lost."""
TRACEBACK = "Traceback (most recent call last)"


def copied() -> Mapping[str, str]:
    """
    Return which history and settings the new environment has from the old one, and how.

    The one place of the drill for this: a feature that copies one of them counts here what has arrived. The sandbox has
    the default values of ``[dr] carry_variables``, ``carry_connections`` and ``carry_pools``, which copy nothing.
    """
    return {"the history of ended runs": "not copied", "variables, connections and pools": "not copied"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """
    A failover of the drill.

    :param restored: whether exactly the DAGs that were unpaused in the old site are unpaused in the new one, and none
        in the old one.
    """

    record: FailoverRecord
    at: datetime
    restored: bool
    calls_to_source: int

    @property
    def is_complete(self) -> bool:
        return self.record.outcome is FailoverOutcome.COMPLETED and not self.record.not_unpaused


class Upgrade:
    """The drill ``upgrade`` on *stage*."""

    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self._stage = stage
        self._scenario = scenario

    def run(self) -> Report:
        """
        Execute the drill, and return its report.

        :raises RefusedError: the sandbox is not new. Its runs would mix with those of the drill.
        :raises DRError: the drill did not complete.
        """
        stage = self._stage
        home = stage.sandbox.home
        if home.is_made:
            raise RefusedError(
                f"The scenario {self._scenario.name} needs a new sandbox, and there is one in {home}.",
                advice="Remove it with mwaa-dr sandbox down --purge, or name another --home.",
            )
        stage.sites = stage.sites or SITES
        first_step = "start two environments in one region, and an emulated AWS"
        with stage.step(first_step), tempfile.TemporaryDirectory() as folder:
            dags = Path(folder)
            stage.started_at = datetime.now(timezone.utc)
            seconds = int(EVERY.total_seconds())
            start = stage.started_at.replace(microsecond=0, second=stage.started_at.second // seconds * seconds)
            stage.put_load(dags, LOAD, start)
            description = stage.start(dags=dags)
        variables = {**description["env"], "DR_DRAIN_S": str(DRAIN_S)}
        tables = SandboxTables(variables)
        regions = {name: DrillRegion(name=name, described=part) for name, part in description["regions"].items()}
        blue, green = regions.values()
        schedulers = self._schedulers()
        before = tables.store.read()
        moves: list[_Move] = []

        with stage.step(f"run the load in {blue.name}, the old environment"):
            stage.say(f"  {', '.join(REGULAR)} run every {EVERY.seconds} s, {CONTINUOUS} all the time")
            self._backfill(blue, BACKFILLED_BEFORE, start)
            blue.api.unpause([*WANTED, BACKFILLED_BEFORE])
            self._wait_until_all_execute(blue, since=stage.started_at)
        with stage.step("compare the two environments: mwaa-dr check"):
            stage.mwaa_dr(["check", "--accept", "airflow", "--accept", "packages"], variables)
        for number, target in enumerate((green, blue, green)):
            source = blue if target is green else green
            words = ["failover", target.name, "--reason", f"drill: {self._scenario.summary}", "--yes"]
            what = ("upgrade", "go back", "upgrade again")[number]
            with stage.step(f"{what}: mwaa-dr failover {target.name}"):
                moves.append(self._fail_over(tables, variables, words, source, target))
            with stage.step(f"wait until every DAG executes in {target.name}"):
                if number == 0:
                    self._backfill(green, BACKFILLED_AFTER, start)
                    green.api.unpause([BACKFILLED_AFTER])
                self._wait_until_all_execute(target, since=moves[-1].at)
                if number == 0:
                    self._wait_until_backfilled(green, BACKFILLED_AFTER)
        with stage.step("wait for runs that have not ended yet"):
            marks = self._count(regions, start)
        report = self._judge(before, tables.store.read(), blue.name, moves, marks, stage.lines(regions), schedulers)
        return replace(report, went_on=stage.taken_over(stage.ledgers(tables)))

    # Steps.

    def _backfill(self, region: DrillRegion, dag_id: str, start: datetime) -> None:
        """Request a backfill of the last hours, as a user of this version of Airflow does."""
        last = start.replace(minute=0, second=0)
        first = last - (BACKFILLED_HOURS - 1) * HOUR
        if major(self._stage.versions()[region.name]["airflow"]) < 3:
            dates = ("-s", first.isoformat(), "-e", last.isoformat())
            region.program("airflow", "dags", "backfill", *dates, dag_id)
        else:
            region.api.backfill(dag_id, first, last)

    def _fail_over(
        self,
        tables: SandboxTables,
        variables: Mapping[str, str],
        words: Sequence[str],
        source: DrillRegion,
        target: DrillRegion,
    ) -> _Move:
        wanted = source.api.unpaused()
        self._stage.mwaa_dr(words, variables)
        record = tables.store.find_all(RECORDS)[0]
        return _Move(
            record=record,
            at=tables.store.read().last_failover_time or record.started_at,
            restored=target.api.unpaused() == wanted and not source.api.unpaused(),
            calls_to_source=self._stage.calls_to(source.name, record),
        )

    def _wait_until_all_execute(self, region: DrillRegion, *, since: datetime) -> None:
        """Wait until each DAG has executed two runs in a region."""

        def idle() -> Collection[str]:
            ended = [line.dag_id for line in region.lines(since) if line.is_end]
            return [dag_id for dag_id in (*REGULAR, CONTINUOUS, *REQUESTED_BY) if ended.count(dag_id) < 2]

        self._stage.until(lambda: not idle(), f"each DAG executes in {region.name}", within_s=PHASE_S)

    def _wait_until_backfilled(self, region: DrillRegion, dag_id: str) -> None:
        """Wait until the hours of a backfill have executed: Airflow 2 would not resume one of its runs."""

        def hours() -> int:
            return sum(line.dag_id == dag_id and line.is_end for line in region.lines(self._stage.started_at))

        self._stage.until(lambda: hours() >= BACKFILLED_HOURS, f"{dag_id} is backfilled", within_s=PHASE_S)

    def _count(self, regions: Mapping[str, DrillRegion], start: datetime) -> Mapping[str, Marks]:
        """Count the marks up to now, when none is missing or the deadline has passed."""
        until = datetime.now(timezone.utc)
        hour = start.replace(minute=0, second=0) - (BACKFILLED_HOURS - 1) * HOUR
        deadline = time.monotonic() + self._stage.limit_s(BACKLOG_DEADLINE_S)
        while True:
            found = count_marks(
                self._stage.lines(regions),
                every={
                    **dict.fromkeys(REGULAR, EVERY),
                    **dict.fromkeys((BACKFILLED_BEFORE, BACKFILLED_AFTER), HOUR),
                },
                since=dict.fromkeys((BACKFILLED_BEFORE, BACKFILLED_AFTER), hour),
                continuous=(CONTINUOUS,),
                requested_by=REQUESTED_BY,
                until=until,
            )
            if not any(marks.lost for marks in found.values()) or time.monotonic() > deadline:
                return found
            time.sleep(1)

    def _schedulers(self) -> Mapping[tuple[str, str], ProcessSession]:
        """Return the process of each scheduler, by site and component."""
        sessions = self._stage.sandbox.home.sessions()
        return {
            (site, component): session
            for site in self._stage.sandbox.home.blueprint().regions
            for component, session in sessions[site].items()
            if component.startswith("scheduler")
        }

    # The verdict.

    def _judge(
        self,
        before: DRState,
        after: DRState,
        first: str,
        moved: Sequence[_Move],
        marks: Mapping[str, Marks],
        lines: Sequence[Line],
        schedulers: Mapping[tuple[str, str], ProcessSession],
    ) -> Report:
        stage = self._stage
        moves = [(stage.started_at, first), *((move.at, move.record.target) for move in moved)]
        records = [move.record for move in moved]
        found = pauses(lines, CONTINUOUS, moves)
        logs = {
            f"{site} {component}": stage.sandbox.home.log(site, component).read_text(errors="replace").count(TRACEBACK)
            for site, component in schedulers
        }
        first_at = min(line.at for line in lines if line.region == moves[1][1] and line.at >= moves[1][0])
        alive = sum(map(process.is_alive, schedulers.values()))
        lost = {f"{dag_id} mark {at:%H:%M:%S}": at for dag_id, each in marks.items() for at in each.lost}
        twice = [
            (f"{dag_id} mark {at:%H:%M:%S}", [f"{line.dag_id} {line.run_id}" for line in some], some)
            for dag_id, each in marks.items()
            for at, some in each.twice.items()
        ]
        report = Report(
            scenario=self._scenario.name,
            passed=False,
            findings={},
            steps=(),
            rto_seconds=round((first_at - begun_at(records[0])).total_seconds(), 1),
            calls_to_source=moved[0].calls_to_source,
            intervals={
                "expected": sum(each.expected for each in marks.values()),
                "executed": sum(each.executed for each in marks.values()),
                "lost": len(lost),
                "duplicated": len(twice),
                "unreported": 0,
            },
            executed_in_standby=0,
            attempts=(),
            epoch=after.epoch,
            versions=stage.versions(),
            lines=tuple(sorted(lines, key=lambda line: line.at)),
            record=records[0],
            moves=moves,
            listed=(
                *(f"lost: {mark}" for mark in lost),
                *(f"executed again: {mark}: {', '.join(_places(some))}" for mark, _, some in twice),
                *(f"{number} tracebacks in the log of {name}" for name, number in logs.items() if number),
            ),
            later=records[1:],
            lost=lost,
            repeated=dict.fromkeys((run for _, runs, _ in twice for run in runs), ""),
            pauses=found,
            copied=copied(),
        )
        in_standby = [line for line in lines if line.region != report.active_at(line.at)]
        findings = {
            "no task executed in a standby": not in_standby,
            **{
                f"{dag_id}: {each.executed} of {each.expected} marks executed, {len(each.twice)} twice": not each.lost
                and not each.twice
                and each.executed > 0
                for dag_id, each in marks.items()
            },
            f"no scheduler ended: {alive} of {len(schedulers)} processes of the start run": alive == len(schedulers),
            f"no traceback in the log of a scheduler: {sum(logs.values())}": not any(logs.values()),
            f"{moves[-1][1]} is active, and the epoch grew by {len(moved)}": after.active_region == moves[-1][1]
            and after.epoch == before.epoch + len(moved),
            "the state is STEADY again, and each failover completed": after.phase is Phase.STEADY
            and all(move.is_complete for move in moved),
            "after each failover, exactly the wanted DAGs are unpaused, in the active site only": all(
                move.restored for move in moved
            ),
        }
        return replace(report, passed=all(findings.values()), findings=findings, executed_in_standby=len(in_standby))


def _places(lines: Sequence[Line]) -> Collection[str]:
    return [f"{line.run_id} in {line.region} at {line.at:%H:%M:%S}" for line in lines]
