"""
The drill: a failover in the sandbox that ends with a report.

Every scenario starts with two healthy regions, DAGs that run every ten seconds, and a simulated user who triggers a run
every few seconds in the active region. The drill forces runs in the standby in every way that a user can. Then the
example DAG in the control environment fails over, and the drill forces runs in the region that was left. The drill
counts the lines that task bodies wrote, and compares them with the runs that a single Airflow would have executed
(oracle.py).
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr.core.ledger import LogEntry
from airflow_provider_mwaa_dr.core.ports import RECORDS, FailoverOutcome, FailoverRecord
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG
from airflow_provider_mwaa_dr.core.reporting.figure import Outage
from airflow_provider_mwaa_dr.core.sites import Sites
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase
from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError, RefusedError
from airflow_provider_mwaa_dr.sandbox.cloud.faults import ALL_SERVICES, NONE, FaultKind
from airflow_provider_mwaa_dr.sandbox.cloud.tables import SandboxTables
from airflow_provider_mwaa_dr.sandbox.drill import report_page
from airflow_provider_mwaa_dr.sandbox.drill.oracle import Alone, Count, count
from airflow_provider_mwaa_dr.sandbox.drill.report import Attempt, Line, Report, begun_at
from airflow_provider_mwaa_dr.sandbox.drill.scenario import ALL, SCENARIOS, Loss, Scenario
from airflow_provider_mwaa_dr.sandbox.drill.stage import FAILOVER_DEADLINE_S, DrillRegion, Stage
from airflow_provider_mwaa_dr.sandbox.drill.upgrade import Upgrade
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import DISTRIBUTION
from airflow_provider_mwaa_dr.sandbox.runtime.home import EVENTUAL, STRONG
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox

LOAD = "drill_load.py"
SCHEDULED = frozenset({"drill_orders", "drill_billing", "drill_long"})
HISTORY = "drill_history"
ON_DEMAND = "drill_on_demand"
PAUSED_BY_HAND = "drill_paused_by_hand"
EVERY = timedelta(seconds=10)
CATCHUP = {"drill_orders": 0, "drill_long": 2, HISTORY: 8}
"""DAGs with catchup, and the second within each ten seconds at which they run; as in the folder dags."""
TRIGGER_EVERY_S = 3.0
BACKLOG_DEADLINE_S = 120.0
"""A run of the backlog that has not ended within this time counts as lost."""
_OPERATOR_LINE = re.compile(
    r"\[(?:info|warning|error) *\] (?P<new>.*?) +\[\S*FailoverOperator\]"  # Airflow 3
    r"|\{failover\.py:\d+\} \w+ - (?P<old>.*)"  # Airflow 2
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A run as a region's database has it; *at* is when it was created."""

    dag_id: str
    run_id: str
    state: str
    at: datetime


class _SimulatedUser:
    """Triggers a run every few seconds in the active region, in its own thread, while the context is entered."""

    def __init__(self, tables: SandboxTables, regions: Mapping[str, DrillRegion]) -> None:
        self._tables, self._regions = tables, regions
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._trigger_runs, daemon=True)
        self.accepted: dict[tuple[str, str], tuple[datetime, str]] = {}
        """When and in which region Airflow accepted a run, by DAG id and run id."""

    def __enter__(self) -> _SimulatedUser:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _trigger_runs(self) -> None:
        number = 0
        while not self._stop.wait(TRIGGER_EVERY_S):
            number += 1
            run_id = f"by-hand-{datetime.now(timezone.utc):%H%M%S}-{number}"
            with suppress(DRError):  # a user whose run is refused tries again later
                region = self._tables.store.read().active_region
                self._regions[region].api.trigger(ON_DEMAND, run_id, {"number": number})
                self.accepted[ON_DEMAND, run_id] = datetime.now(timezone.utc), region


class Drill:
    """
    One drill in *sandbox*.

    :param say: called with each line of progress.
    :param sites: two sites, each with a version of Airflow in place of the environment's name; the first one is active
        first. None for the sites of the sandbox, which are two regions in a new one.
    """

    def __init__(self, sandbox: Sandbox, *, say: Callable[[str], object], sites: Sites | None = None) -> None:
        self._stage = Stage(sandbox, say=say, sites=sites)
        self._sandbox = sandbox
        self._outages: list[Outage] = []
        self._marks: list[tuple[datetime, str]] = []

    def run(self, scenario: str, *, folder: Path, keep: bool, wheel: Path | None = None) -> Report:
        """
        Run a scenario, write ``report.json`` and ``report.html`` into *folder*, and return the report.

        A sandbox that already runs is used, and stays up. A sandbox that the drill starts is stopped, unless *keep*.

        :param wheel: the wheel to deploy in a scenario that deploys; None for the wheel in the bare sandbox's package
            index.
        :raises ConfigError: the scenario does not exist.
        :raises RefusedError: the scenario needs a bare sandbox and this one is not bare, or the other way round; the
            bare sandbox already has the provider; the sandbox has other sites; or the scenario needs a new one.
        :raises DRError: the drill did not complete; there is no report then.
        """
        if scenario not in SCENARIOS:
            raise ConfigError(
                f"The scenario {scenario} does not exist.",
                option="--scenario",
                advice=f"Allowed are {', '.join(SCENARIOS)} and {ALL}.",
            )
        chosen = SCENARIOS[scenario]
        was_up = self._sandbox.is_up()
        try:
            report = Upgrade(self._stage, chosen).run() if chosen.upgrades else self._execute(chosen, wheel)
        finally:
            if not (keep or was_up):
                with self._stage.step("stop the sandbox"):
                    self._sandbox.down()
        report = replace(report, steps=tuple(self._stage.steps), host=socket.gethostname())
        report_page.write(report, folder)
        return report

    def _execute(self, scenario: Scenario, wheel: Path | None) -> Report:
        deployment: Mapping[str, bool] = self._deploy(wheel) if scenario.deployed else {}
        first = "copy DAGs into the environments" if scenario.deployed else "start two regions and an emulated AWS"
        with self._stage.step(first), tempfile.TemporaryDirectory() as folder:
            # Start without DAGs: an earlier drill may have left its DAGs unpaused in this home.
            self._up(scenario, Path(folder))
            self._stage.started_at = datetime.now(timezone.utc)
            # Later than all intervals of earlier drills in this home.
            start = (
                self._stage.started_at.replace(microsecond=0, second=self._stage.started_at.second // 10 * 10) + EVERY
            )
            self._stage.put_load(Path(folder), LOAD, start)
            description = self._up(scenario, Path(folder))
        tables = SandboxTables(description["env"])
        before = tables.store.read()
        regions = {name: DrillRegion(name=name, described=part) for name, part in description["regions"].items()}
        source = regions[before.active_region]
        target = next(regions[name] for name in regions if name != source.name)
        moves = [(self._stage.started_at, source.name)]

        load = [*SCHEDULED, ON_DEMAND, TEST_DAG]
        if scenario.history:
            with self._stage.step(f"write finished runs of {HISTORY}, which starts two years ago, in {source.name}"):
                self._write_history(source, start, 1000, [HISTORY])
            load.append(HISTORY)
        self._write_history(source, start, 1, sorted(SCHEDULED & CATCHUP.keys()))
        with self._stage.step(f"run the load in {source.name}, the active region"):
            self._stage.say(
                f"  {', '.join(sorted(SCHEDULED))} run every {EVERY.seconds} s; {PAUSED_BY_HAND} stays paused"
            )
            source.api.unpause(load)
            controls = self._force(source, "control-before")
            self._stage.until(lambda: self._have_run(source, controls), f"the forced runs execute in {source.name}")
            self._stage.until(
                lambda: all(len(self._ran(source, dag_id)) >= 3 for dag_id in SCHEDULED),
                f"the load executes in {source.name}",
            )

        with self._stage.step(f"force runs in {target.name}, the standby"):
            attempts = [*self._attempt(target, "forced-before", unpause=[PAUSED_BY_HAND, ON_DEMAND])]

        wanted = source.api.unpaused()
        with _SimulatedUser(tables, regions) as user:
            time.sleep(2 * TRIGGER_EVERY_S)
            if scenario.loss is not None:
                with self._stage.step(f"lose {source.name}: it is {scenario.loss.value}"):
                    self._lose(source.name, scenario.loss)
            with self._stage.step("fail over: airflow dags test dr_failover, in the control environment"):
                self._fail_over(description, target.name, scenario)
            after, record, failback = tables.store.read(), tables.store.find_all(RECORDS)[0], None
            moves.append((after.last_failover_time or record.started_at, target.name))
            calls_to_source = self._stage.calls_to(source.name, record)
            restored = target.api.unpaused()
            with self._stage.step(f"wait for the first task body in {target.name}"):
                self._stage.until(
                    lambda: any(line.at >= moves[1][0] for line in target.lines(self._stage.started_at)),
                    f"the load executes in {target.name}",
                )
            lost, alone_from, is_refused = scenario.loss, None, False
            if scenario.lag_s is not None:
                with self._stage.step(f"cut {target.name} off: it reaches only its own copy of the tables"):
                    alone_from, lost = datetime.now(timezone.utc), Loss.ALONE
                    self._lose(target.name, lost)
                with self._stage.step(
                    f"try a forced failover from {target.name}: refused, because it may still be running"
                ):
                    is_refused = self._is_refused(description, source.name, scenario)
            if scenario.returns:
                with self._stage.step(f"fail back to {source.name}, with runs queued and in flight"):
                    self._fail_over(description, source.name, scenario, mode=Mode.FORCED if alone_from else None)
                source, target = target, source
                after, failback = tables.store.read(), tables.store.find_all(RECORDS)[0]
                moves.append((after.last_failover_time or record.started_at, target.name))
            known = {
                run.key for entries in self._stage.ledgers(tables).values() for entry in entries for run in entry.runs
            }
            unreported = sum(
                run not in known and at < moves[-1][0] for run, (at, region) in user.accepted.items()
                if region == source.name
            )  # fmt: skip
            if alone_from is not None:
                with self._stage.step(f"check that {source.name} continues while it is cut off"):
                    self._stage.until(
                        lambda: source.lines(moves[-1][0]) != [],
                        f"{source.name}, cut off, executes while {target.name} is active",
                    )
            if lost is not None:
                with self._stage.step(f"restore {source.name}, and wait until it knows that it is standby"):
                    self._restore(source.name, lost)
                    self._stage.until(
                        lambda: tables.has_reconciled(source.name), f"{source.name} has reconciled its open runs"
                    )
            left = source.api.unpaused()
        alone = [(source.name, alone_from, datetime.now(timezone.utc))] if alone_from is not None else []
        with self._stage.step(f"force runs in {source.name}, the region that was left"):
            controls_after = self._force(target, "control-after")
            attempts += self._attempt(source, "forced-after", unpause=[*SCHEDULED, ON_DEMAND])
            self._stage.until(
                lambda: self._have_run(target, controls_after), f"the forced runs execute in {target.name}"
            )
        with self._stage.step(f"let {target.name} run for two more intervals"):
            enough = max(line.at for line in target.lines(self._stage.started_at)) + 2 * EVERY
            self._stage.until(
                lambda: target.lines(self._stage.started_at)[-1].at >= enough, f"the load continues in {target.name}"
            )
        with self._stage.step("wait for runs that have not ended yet"):
            counted = self._count(tables, regions, user, moves, unreported, since=start, alone=alone)
        return self._judge(
            scenario,
            before=before,
            after=after,
            record=record,
            failback=failback,
            moves=moves,
            counted=counted,
            accepted=user.accepted,
            ledgers=self._stage.ledgers(tables),
            lines=self._stage.lines(regions),
            attempts=attempts,
            calls_to_source=calls_to_source,
            fence_file_s=tables.config.fence_file_s,
            wanted_by_region={"wanted": wanted, "restored": restored, "left": left},
            versions=self._stage.versions(),
            alone=alone,
            is_refused=is_refused,
            deployment=deployment,
        )

    # Steps.

    def _deploy(self, wheel: Path | None) -> Mapping[str, bool]:
        """Start two empty environments, deploy into them as docs/how-to/deploy.md does, and return the findings."""
        with self._stage.step("start two environments without the provider, and an emulated AWS"):
            description = self._stage.start(bare=True)
            regions = [DrillRegion(name=name, described=part) for name, part in description["regions"].items()]
        with self._stage.step("check that neither region has the provider: airflow providers list"):
            if any(self._has_provider(region) for region in regions):
                raise RefusedError(
                    f"The environments in {self._sandbox.home} already have the provider.",
                    advice="Run mwaa-dr sandbox down to empty them, then run the drill again.",
                )
        words = [
            "deploy",
            "--active",
            next(iter(description["regions"])),
            "--dags",
            *(["--wheel", str(wheel.resolve())] if wheel else []),
        ]
        words += ["--wait", "--yes"]
        with self._stage.step(f"mwaa-dr {' '.join(words)}"):
            self._stage.mwaa_dr(words, description["env"])
        with self._stage.step("check that both regions have the provider, and wait until their agents know the state"):
            found = [self._has_provider(region) for region in regions]
            tables = SandboxTables(description["env"])
            self._stage.until(
                lambda: all(map(tables.has_reconciled, description["regions"])),
                "both regions have reconciled their open runs",
            )
        return {"mwaa-dr deploy installed the provider in both regions, which did not have it before": all(found)}

    def _has_provider(self, region: DrillRegion) -> bool:
        """Return whether the region's Airflow lists the provider."""
        return DISTRIBUTION in region.program("airflow", "providers", "list", "--output", "plain")

    def _up(self, scenario: Scenario, dags: Path) -> Mapping[str, Any]:
        """Start the sandbox with the scenario's state model, or use the running one if it fits."""
        is_up = self._sandbox.is_up()
        if scenario.lag_s is None:
            return self._stage.start(dags=dags, state_model=None if is_up else STRONG, bare=scenario.deployed)
        if is_up and self._sandbox.home.blueprint().lag_s != scenario.lag_s:
            self._stage.say("stopping the sandbox: this scenario needs another state model")
            self._sandbox.down()
        return self._stage.start(dags=dags, state_model=EVENTUAL, lag_s=scenario.lag_s, bare=False)

    def _is_refused(self, description: Mapping[str, Any], target: str, scenario: Scenario) -> bool:
        """Return whether a forced failover without ``even_if_not_ready`` is refused, and leaves no plan."""
        known = len(SandboxTables(description["env"]).store.find_all(RECORDS))
        try:
            self._run_failover(description, target, scenario, kill_after=None, mode=Mode.FORCED)
        except DRError:
            output = self._sandbox.home.log("control", "dr_failover").read_text(errors="replace")
            records = len(SandboxTables(description["env"]).store.find_all(RECORDS))
            return "[dr] eventual = available" in output and records == known
        return False

    def _lose(self, region: str, loss: Loss) -> None:
        self._outages.append(Outage(region=region, how=loss.value, since=datetime.now(timezone.utc)))
        if loss is Loss.KILLED:
            self._sandbox.kill(region)
        elif loss is Loss.FROZEN:
            self._sandbox.freeze(region)
        elif loss is Loss.ALONE:
            for other in self._sandbox.home.blueprint().callers:
                if other != region:
                    self._sandbox.fault(region, ALL_SERVICES, FaultKind.BLACKHOLE.value, from_caller=other)
                    self._sandbox.fault(region, ALL_SERVICES, FaultKind.BLACKHOLE.value, to_target=other)
        else:
            self._sandbox.fault(region, ALL_SERVICES, FaultKind.BLACKHOLE.value)

    def _restore(self, region: str, loss: Loss) -> None:
        self._outages[-1] = replace(self._outages[-1], until=datetime.now(timezone.utc))
        if loss is Loss.KILLED:
            self._sandbox.revive(region)
        elif loss is Loss.FROZEN:
            self._sandbox.thaw(region)
        else:
            self._sandbox.fault(region, ALL_SERVICES, NONE)

    def _write_history(self, region: DrillRegion, start: datetime, runs: int, dag_ids: Sequence[str]) -> None:
        """Write finished runs up to the drill's start into the region's database, with its own Airflow."""
        dags = [f"{dag_id}={CATCHUP[dag_id]}" for dag_id in dag_ids]
        region.program("python", "-m", f"{__package__}.history", start.isoformat(), str(runs), *dags)

    def _attempt(self, region: DrillRegion, name: str, *, unpause: Collection[str]) -> Sequence[Attempt]:
        """
        Force runs in *region*, a standby, in every way that a user can, and return them when they have ended.

        The drill unpauses DAGs, whose schedule then creates runs. It also triggers a run by REST, and one by the
        command line.
        """
        known = {run.run_id for run in self._runs(region)}
        region.api.unpause(unpause)
        forced = self._force(region, name)
        created: list[_Run] = []

        def all_have_ended() -> bool:
            created[:] = [run for run in self._runs(region) if run.run_id not in known]
            return (
                {run.run_id for run in created} >= set(forced)
                and {run.dag_id for run in created} >= set(unpause)
                and all(run.state in {"success", "failed"} for run in created if run.run_id in forced)
            )

        self._stage.until(all_have_ended, f"the runs forced in {region.name} have ended")
        self._stage.say(f"  {len(created)} runs were forced in {region.name}")
        return [Attempt(region=region.name, dag_id=run.dag_id, run_id=run.run_id, at=run.at) for run in created]

    def _force(self, region: DrillRegion, name: str) -> Sequence[str]:
        """Trigger a run by REST and one by the command line, and return their ids."""
        mark = f"{self._stage.started_at:%H%M%S}"
        by_rest, by_command_line = f"{name}-by-rest-{mark}", f"{name}-by-command-line-{mark}"
        region.api.trigger(ON_DEMAND, by_rest)
        region.program("airflow", "dags", "trigger", ON_DEMAND, "--run-id", by_command_line)
        return [by_rest, by_command_line]

    def _fail_over(
        self, description: Mapping[str, Any], target: str, scenario: Scenario, *, mode: Mode | None = None
    ) -> None:
        if scenario.killed_after is not None:
            self._run_failover(description, target, scenario, kill_after=scenario.killed_after)
            self._marks.append((datetime.now(timezone.utc), "failover killed"))
            self._stage.say(f"  killed after {scenario.killed_after}; another process runs the same DAG again")
        is_forced = mode is Mode.FORCED
        self._run_failover(description, target, scenario, kill_after=None, mode=mode, even_if_not_ready=is_forced)

    def _run_failover(
        self,
        description: Mapping[str, Any],
        target: str,
        scenario: Scenario,
        *,
        kill_after: str | None,
        mode: Mode | None = None,
        even_if_not_ready: bool = False,
    ) -> None:
        control = description["control"]
        folder = Path(control["bin"])
        request = {
            "target_region": target,
            "reason": f"drill: {scenario.summary}",
            "mode": (mode or scenario.mode).value,
            "even_if_not_ready": even_if_not_ready,
        }
        log = self._sandbox.home.log("control", "dr_failover")
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            log.open("w") as output,
            subprocess.Popen(
                [folder / "airflow", "dags", "test", "dr_failover", "-c", json.dumps(request)],
                env=airflow_settings.process_variables(control["env"], bin_folder=folder),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            ) as process,
        ):  # fmt: skip
            try:
                assert process.stdout is not None
                said: str | None = None
                for line in process.stdout:
                    output.write(line)
                    message = operator_message(line)
                    # Airflow 2 logs each line twice.
                    if message and message != said and not message.endswith("..."):
                        self._stage.say(f"  {message}")
                    said = message or said
                    if kill_after is not None and message and message.startswith(f"{kill_after} done"):
                        process.kill()
                        return
                code = process.wait(FAILOVER_DEADLINE_S)
            except BaseException:
                process.kill()
                raise
        if code != 0:
            raise DRError(f"The failover DAG ended with {code}.", advice=f"Its output is in {log}.")

    # Counting.

    def _judge(
        self,
        scenario: Scenario,
        *,
        before: DRState,
        after: DRState,
        record: FailoverRecord,
        failback: FailoverRecord | None,
        moves: Sequence[tuple[datetime, str]],
        counted: Count,
        accepted: Mapping[tuple[str, str], tuple[datetime, str]],
        ledgers: Mapping[str, Sequence[LogEntry]],
        lines: Sequence[Line],
        attempts: Sequence[Attempt],
        calls_to_source: int,
        fence_file_s: float,
        wanted_by_region: Mapping[str, Collection[str]],
        versions: Mapping[str, Mapping[str, str]],
        alone: Sequence[Alone],
        is_refused: bool,
        deployment: Mapping[str, bool],
    ) -> Report:
        source, target = before.active_region, record.target
        moved = len(moves) - 1
        promoted_at = moves[1][0]
        forced = {(attempt.region, attempt.run_id) for attempt in attempts}
        report_ = Report(
            scenario=scenario.name,
            passed=False,
            findings={},
            steps=(),
            rto_seconds=0.0,
            calls_to_source=calls_to_source,
            intervals=counted.figures,
            executed_in_standby=0,
            attempts=tuple(attempts),
            epoch=after.epoch,
            versions=versions,
            lines=tuple(sorted(lines, key=lambda line: line.at)),
            record=record,
            moves=tuple(moves),
            listed=(
                *(f"lost: {run}" for run in counted.lost),
                *(f"executed again: {run}: {why or 'without a valid reason'}" for run, why in counted.repeated.items()),
            ),
            later=() if failback is None else (failback,),
            outages=tuple(self._outages),
            marks=tuple(self._marks),
            lost={
                **dict.fromkeys(counted.lost),
                **{run: at for key, (at, _) in accepted.items() if (run := " ".join(key)) in counted.lost},
                **counted.lost_at,
            },
            repeated=counted.repeated,
            went_on=self._stage.taken_over(ledgers),
        )
        while_cut_off = [
            line
            for line in lines
            if line.region != report_.active_at(line.at)
            and any(line.region == region and begin <= line.at <= end for region, begin, end in alone)
        ]
        in_standby = [
            line
            for line in lines
            if (line.region != report_.active_at(line.at) and line not in while_cut_off)
            or (line.region, line.run_id) in forced
        ]
        first = min(line.at for line in lines if line.region == target and line.at >= promoted_at)
        wanted = wanted_by_region["wanted"]
        is_forced = scenario.mode is Mode.FORCED or bool(alone)
        standby = "no task executed in a standby"
        if alone:
            standby += f", except in {alone[0][0]} while it was cut off (eventual = available)"
        findings = {
            standby: not in_standby and bool(attempts),
            "no run was lost: every run that a single Airflow would have executed was executed": not counted.lost,
            ("a run executed twice only if its end could not be known" if is_forced else "no run executed twice"): all(
                counted.repeated.values()
            )
            and (is_forced or not counted.repeated),
            f"{moves[-1][1]} is active, and the epoch grew by {moved}": after.active_region == moves[-1][1]
            and after.epoch == before.epoch + moved,
            "the state is STEADY again": after.phase is Phase.STEADY and record.outcome is FailoverOutcome.COMPLETED,
            "exactly the wanted DAGs are unpaused, in the new region only": wanted_by_region["restored"] == wanted
            and not wanted_by_region["left"]
            and not record.not_unpaused,
            **deployment,
        }
        rto_s = round((first - begun_at(record)).total_seconds(), 1)
        if alone:
            findings["without even_if_not_ready, the forced failover from an unreachable region was refused"] = (
                is_refused
            )
            findings[f"{alone[0][0]} did execute tasks while it was cut off: {len(while_cut_off)} task bodies"] = (
                while_cut_off != []
            )
        elif is_forced:
            findings[f"no call to {source} after the claim"] = calls_to_source == 0
        if scenario.loss is Loss.KILLED:
            limit_s = before.lease_s + fence_file_s + 15
            within = f"{target} executes tasks within {limit_s:g} s: lease, fence file and 15 s"
            findings[within] = rto_s <= limit_s
        if scenario.history:
            ends = [line.interval_end for line in lines if line.dag_id == HISTORY and line.interval_end is not None]
            findings["no run of the two years of history was executed again"] = min(ends) >= self._stage.started_at
            at = min(line.at for line in lines if line.dag_id == HISTORY and line.region == target)
            findings[f"{HISTORY} runs within 30 s in {target}"] = at - promoted_at < timedelta(seconds=30)
        return replace(
            report_,
            passed=all(findings.values()),
            findings=findings,
            rto_seconds=rto_s,
            executed_in_standby=len(in_standby),
        )

    def _count(
        self,
        tables: SandboxTables,
        regions: Mapping[str, DrillRegion],
        user: _SimulatedUser,
        moves: Sequence[tuple[datetime, str]],
        unreported: int,
        *,
        since: datetime,
        alone: Sequence[Alone],
    ) -> Count:
        """Count the runs of this drill, when no run is missing or the deadline has passed."""
        limit_s = self._stage.limit_s(BACKLOG_DEADLINE_S)
        deadline = time.monotonic() + limit_s
        until = datetime.now(timezone.utc)
        while True:
            counted = count(
                [
                    line
                    for line in self._stage.lines(regions)
                    if line.interval_end is None or not line.is_scheduled or line.interval_end <= until
                ],
                every=dict.fromkeys(CATCHUP, EVERY),
                without_catchup=SCHEDULED - CATCHUP.keys(),
                accepted=user.accepted.keys(),
                ledgers={
                    region: [entry for entry in entries if self._stage.started_at <= entry.at <= until]
                    for region, entries in self._stage.ledgers(tables).items()
                },
                moves=moves,
                unreported=unreported,
                since=since,
                alone=alone,
            )
            if not counted.lost:
                return counted
            if time.monotonic() > deadline:
                for name, region in regions.items():
                    for run in self._runs(region):
                        if f"{run.dag_id} {run.run_id}" in counted.lost:
                            self._stage.say(
                                f"  after {limit_s:.0f} s, {run.dag_id} {run.run_id} is {run.state} in {name}"
                            )
                return counted
            time.sleep(1)

    def _runs(self, region: DrillRegion) -> Sequence[_Run]:
        """Return all runs in a region's database; for waiting, not for counting."""
        begun = "extract(epoch from coalesce(queued_at, start_date, end_date, now()))"
        rows = self._sandbox.postgres.query(f"select dag_id, run_id, state, {begun} from dag_run", database=region.name)
        return [
            _Run(dag_id=dag_id, run_id=run_id, state=state, at=datetime.fromtimestamp(float(at), timezone.utc))
            for dag_id, run_id, state, at in rows
        ]

    def _ran(self, region: DrillRegion, dag_id: str) -> Sequence[Line]:
        return [line for line in region.lines(self._stage.started_at) if line.dag_id == dag_id]

    def _have_run(self, region: DrillRegion, run_ids: Sequence[str]) -> bool:
        return {line.run_id for line in region.lines(self._stage.started_at)} >= set(run_ids)


def run_all(sandbox: Sandbox, *, folder: Path, keep: bool, say: Callable[[str], object]) -> dict[str, Any]:
    """
    Run every scenario in one sandbox, each with its report below *folder*, and return the content of ``report.json``.

    A scenario that does not complete counts as failed, and the next scenario runs.
    """
    was_up = sandbox.is_up()
    found: dict[str, dict[str, str]] = {}
    outcomes: dict[str, Report | str] = {}
    try:
        for name in SCENARIOS:
            say(f"scenario {name}")
            try:
                outcomes[name] = outcome = _run_one_of_all(sandbox, name, folder=folder / name, say=say)
                found[name] = {"verdict": outcome.verdict, "report": str(folder / name / "report.html")}
            except DRError as error:
                say(f"scenario {name} did not complete: {error}")
                found[name] = {"verdict": "fail", "report": str(error)}
                outcomes[name] = str(error)
    finally:
        if not (keep or was_up):
            sandbox.down()
        elif not sandbox.is_up():
            sandbox.up()
    verdict = "pass" if all(each["verdict"] == "pass" for each in found.values()) else "fail"
    document = {"verdict": verdict, "scenarios": found}
    report_page.write_overview(outcomes, folder)
    (folder / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return document


def _run_one_of_all(sandbox: Sandbox, name: str, *, folder: Path, say: Callable[[str], object]) -> Report:
    if not SCENARIOS[name].has_own_home:
        return Drill(sandbox, say=say).run(name, folder=folder, keep=True)
    # Use a second home, and stop the first one: four Airflows at the same time are too slow.
    sandbox.down()
    other = Sandbox(sandbox.home.path / name, say=say)
    try:
        return Drill(other, say=say).run(name, folder=folder, keep=False)
    finally:
        other.down(purge=True)


def operator_message(line: str) -> str | None:
    """Return the failover operator's message in a line of Airflow's output; None if another logger wrote the line."""
    match = _OPERATOR_LINE.search(line)
    return None if match is None else (match["new"] or match["old"]).strip()
