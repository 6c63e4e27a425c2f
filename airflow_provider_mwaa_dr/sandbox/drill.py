"""
The drill: a failover in the sandbox that ends in a report.

Every scenario begins with two healthy regions, load that is due every ten seconds, and runs forced in the standby by
everything that a person could do there. Then the role moves through the example DAG in the control environment, and the
same is tried in the region that was left. What ran is counted from lines that task bodies wrote.

- ``planned``: a graceful failover.
- ``region-loss``: all Airflow processes of the active region are killed and its AWS is a black hole; a forced failover;
  the lost region comes back.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.core.failover import TEST_DAG
from airflow_provider_mwaa_dr.core.ports import FailoverRecord
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase
from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError
from airflow_provider_mwaa_dr.sandbox import airflow_settings, report
from airflow_provider_mwaa_dr.sandbox.airflow_api import AirflowApi
from airflow_provider_mwaa_dr.sandbox.home import REGIONS
from airflow_provider_mwaa_dr.sandbox.preparation import example_dags
from airflow_provider_mwaa_dr.sandbox.report import Attempt, Line, Report, Step
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox
from airflow_provider_mwaa_dr.sandbox.state_table import StateTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How the role moves, and what happens to the region that has it."""

    name: str
    reason: str
    mode: Mode
    loses_source: bool


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="planned", reason="drill: planned failover", mode=Mode.GRACEFUL, loses_source=False),
        Scenario(name="region-loss", reason="drill: the region is lost", mode=Mode.FORCED, loses_source=True),
    )
}
LOAD = Path(__file__).parent / "drill_dags"
SCHEDULED = ("drill_orders", "drill_billing")
ON_DEMAND = "drill_on_demand"
PAUSED_BY_HAND = "drill_paused_by_hand"
EVERY = timedelta(seconds=10)
PATIENCE_S = 240.0
"""For anything that takes a second or two on a machine with nothing else to do."""
FAILOVER_DEADLINE_S = 420.0
_OPERATOR_LINE = re.compile(
    r"\[(?:info|warning|error) *\] (?P<new>.*?) +\[\S*FailoverOperator\]"  # Airflow 3
    r"|\{failover\.py:\d+\} \w+ - (?P<old>.*)"  # Airflow 2
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Region:
    """One region, as a person at its keyboard has it."""

    name: str
    described: Mapping[str, Any]

    @property
    def api(self) -> AirflowApi:
        return AirflowApi(self.described)

    def lines(self, since: datetime) -> Sequence[Line]:
        """Return what task bodies wrote since then, oldest first."""
        try:
            text = Path(self.described["airflow_home"], "drill.jsonl").read_text()
        except FileNotFoundError:
            return []
        lines = [Line.parse(row) for row in text.splitlines(keepends=True) if row.endswith("\n")]
        return sorted((line for line in lines if line.at >= since), key=lambda line: line.at)

    def trigger_by_command_line(self, dag_id: str, run_id: str) -> None:
        """Start a manual run with ``airflow dags trigger``."""
        folder = Path(self.described["bin"])
        answer = subprocess.run(
            [folder / "airflow", "dags", "trigger", dag_id, "--run-id", run_id],
            env=airflow_settings.process_variables(self.described["env"], bin_folder=folder),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        if answer.returncode != 0:
            raise DRError(f"airflow dags trigger in {self.name} ended with {answer.returncode}: {answer.stderr[-800:]}")


class Drill:
    """
    One drill in *sandbox*.

    :param say: is told what happens, a line each.
    """

    def __init__(self, sandbox: Sandbox, *, say: Callable[[str], object]) -> None:
        self._sandbox = sandbox
        self._say = say
        self._steps: list[Step] = []
        self._started_at = datetime.now(timezone.utc)

    def run(self, scenario: str, *, folder: Path, keep: bool) -> Report:
        """
        Carry out a scenario, write ``report.json`` and ``report.html`` into *folder*, and return the report.

        A sandbox that runs already is used, and left running; one started here is stopped, unless *keep*.

        :raises ConfigError: no such scenario.
        :raises DRError: the drill could not be carried out to its end; there is no report then.
        """
        if scenario not in SCENARIOS:
            raise ConfigError(
                f"There is no scenario {scenario}.", option="--scenario", advice=f"There is {', '.join(SCENARIOS)}."
            )
        ran_before = self._sandbox.is_up()
        try:
            outcome = self._carry_out(SCENARIOS[scenario])
        finally:
            if not (keep or ran_before):
                with self._step("stop the sandbox"):
                    self._sandbox.down()
        outcome = replace(outcome, steps=tuple(self._steps))
        report.write(outcome, folder)
        return outcome

    def _carry_out(self, scenario: Scenario) -> Report:
        with self._step("start two regions and an AWS"), tempfile.TemporaryDirectory() as folder:
            shutil.copytree(LOAD, folder, dirs_exist_ok=True)
            shutil.copy(example_dags() / f"{TEST_DAG}.py", folder)
            description = self._sandbox.up(dags=Path(folder))
        table = StateTable(description["env"])
        before = table.store.read()
        regions = {name: _Region(name=name, described=part) for name, part in description["regions"].items()}
        source = regions[before.active_region]
        target = next(regions[name] for name in REGIONS if name != source.name)

        with self._step(f"run the load in {source.name}, the active region"):
            self._say(
                f"  {', '.join(SCHEDULED)} are due every {EVERY.seconds} s, in turn; {PAUSED_BY_HAND} stays paused"
            )
            source.api.unpause([*SCHEDULED, ON_DEMAND, TEST_DAG])
            controls = self._force(source, "control-before")
            self._until(lambda: self._have_run(source, controls), f"the forced runs execute in {source.name}")
            self._until(
                lambda: all(len(self._ran(source, dag_id)) >= 3 for dag_id in SCHEDULED),
                f"the load executes in {source.name}",
            )

        with self._step(f"force runs in {target.name}, the standby"):
            attempts = [*self._attempt(target, "forced-before", unpause=[PAUSED_BY_HAND, ON_DEMAND])]

        wanted = source.api.unpaused()
        if scenario.loses_source:
            with self._step(f"lose {source.name}: kill all of its Airflow, black-hole its AWS"):
                self._sandbox.kill(source.name)
        with self._step("fail over: airflow dags test dr_failover, in the control environment"):
            self._fail_over(description, target.name, scenario)
        after, record = table.store.read(), table.store.records()[0]
        calls_to_source = len(self._sandbox.requests(source.name, "mwaa", since=record.started_at))
        restored = target.api.unpaused()

        with self._step(f"first task body in {target.name}"):
            promoted_at = after.last_failover_time or record.started_at
            self._until(
                lambda: any(line.at >= promoted_at for line in target.lines(self._started_at)),
                f"the load executes in {target.name}",
            )
        if scenario.loses_source:
            with self._step(f"bring {source.name} back, and wait until it knows that it is standby"):
                self._sandbox.revive(source.name)
                self._until(lambda: table.has_settled(source.name), f"{source.name} has settled its open runs")
        left = source.api.unpaused()
        with self._step(f"force runs in {source.name}, the region that was left"):
            controls_after = self._force(target, "control-after")
            attempts += self._attempt(source, "forced-after", unpause=[*SCHEDULED, ON_DEMAND])
            self._until(lambda: self._have_run(target, controls_after), f"the forced runs execute in {target.name}")
        with self._step(f"let {target.name} go on for two more intervals"):
            enough = max(line.at for line in target.lines(self._started_at)) + 2 * EVERY
            self._until(lambda: target.lines(self._started_at)[-1].at >= enough, f"the load goes on in {target.name}")
        return self._judge(
            scenario,
            before=before,
            after=after,
            record=record,
            lines=[line for region in regions.values() for line in region.lines(self._started_at)],
            attempts=attempts,
            calls_to_source=calls_to_source,
            fence_file_s=table.config.fence_file_s,
            wanted_by_region={"wanted": wanted, "restored": restored, "left": left},
            versions={name: self._versions(region) for name, region in regions.items()},
        )

    # Steps.

    def _attempt(self, region: _Region, name: str, *, unpause: Collection[str]) -> Sequence[Attempt]:
        """
        Do in *region*, which is standby, what makes DAGs run, and return the attempts once they are over.

        DAGs unpaused by hand, whose schedule makes runs then, a run triggered by REST, and one by the command line.
        """
        known = {run_id for _, run_id, _ in self._runs(region)}
        region.api.unpause(unpause)
        forced = self._force(region, name)
        made: list[tuple[str, str, str]] = []

        def all_are_over() -> bool:
            made[:] = [run for run in self._runs(region) if run[1] not in known]
            return (
                {run_id for _, run_id, _ in made} >= set(forced)
                and {dag_id for dag_id, _, _ in made} >= set(unpause)
                and all(state in {"success", "failed"} for _, run_id, state in made if run_id in forced)
            )

        self._until(all_are_over, f"the runs forced in {region.name} are over")
        self._say(f"  {len(made)} runs were forced in {region.name}")
        return [Attempt(region=region.name, dag_id=dag_id, run_id=run_id) for dag_id, run_id, _ in made]

    def _force(self, region: _Region, name: str) -> Sequence[str]:
        """Trigger a run by REST and one by the command line, and return their ids."""
        mark = f"{self._started_at:%H%M%S}"
        by_rest, by_command_line = f"{name}-by-rest-{mark}", f"{name}-by-command-line-{mark}"
        region.api.trigger(ON_DEMAND, by_rest)
        region.trigger_by_command_line(ON_DEMAND, by_command_line)
        return [by_rest, by_command_line]

    def _fail_over(self, description: Mapping[str, Any], target: str, scenario: Scenario) -> None:
        control = description["control"]
        folder = Path(control["bin"])
        request = {"target_region": target, "reason": scenario.reason, "mode": scenario.mode.value}
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
                for line in process.stdout:
                    output.write(line)
                    words = operator_words(line)
                    if words and not words.endswith("..."):
                        self._say(f"  {words}")
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
        lines: Sequence[Line],
        attempts: Sequence[Attempt],
        calls_to_source: int,
        fence_file_s: float,
        wanted_by_region: Mapping[str, Collection[str]],
        versions: Mapping[str, Mapping[str, str]],
    ) -> Report:
        source, target = before.active_region, after.active_region
        promoted_at = after.last_failover_time or record.started_at
        forced = {(attempt.region, attempt.run_id) for attempt in attempts}
        in_standby = [
            line
            for line in lines
            if line.region != (source if line.at < promoted_at else target) or (line.region, line.run_id) in forced
        ]
        first = min(line.at for line in lines if line.region == target and line.at >= promoted_at)
        intervals = count_intervals(lines)
        wanted = wanted_by_region["wanted"]
        findings = {
            "nothing executed in a standby": not in_standby and bool(attempts),
            "no interval ran twice": intervals["duplicated"] == 0,
            f"{record.target} is active, and the epoch grew by one": target == record.target != source
            and after.epoch == before.epoch + 1,
            "the state is steady again": after.phase is Phase.STEADY and record.outcome == "completed",
            "exactly the DAGs that were wanted are unpaused": wanted_by_region["restored"] == wanted
            and not wanted_by_region["left"]
            and not record.not_unpaused,
        }
        rto_s = round((first - begun_at(record)).total_seconds(), 1)
        if scenario.loses_source:
            limit_s = before.lease_s + fence_file_s + 15
            findings |= {
                f"no call to {source} after the claim": calls_to_source == 0,
                f"{target} executes within {limit_s:g} s: lease, fence file and 15 s": rto_s <= limit_s,
            }
        return Report(
            scenario=scenario.name,
            passed=all(findings.values()),
            findings=findings,
            steps=(),
            rto_seconds=rto_s,
            calls_to_source=calls_to_source,
            intervals=intervals,
            executed_in_standby=len(in_standby),
            attempts=tuple(attempts),
            epoch=after.epoch,
            versions=versions,
            lines=tuple(sorted(lines, key=lambda line: line.at)),
            record=record,
            promoted_at=promoted_at,
        )

    def _versions(self, region: _Region) -> Mapping[str, str]:
        blueprint = self._sandbox.home.blueprint()
        return {"airflow": blueprint.regions[region.name].airflow_version, "provider": __version__}

    def _runs(self, region: _Region) -> Sequence[tuple[str, str, str]]:
        """Return DAG, id and state of all runs that a region's database knows; for waiting, not for counting."""
        rows = self._sandbox.postgres.query("select dag_id, run_id, state from dag_run", database=region.name)
        return [(dag_id, run_id, state) for dag_id, run_id, state in rows]

    def _ran(self, region: _Region, dag_id: str) -> Sequence[Line]:
        return [line for line in region.lines(self._started_at) if line.dag_id == dag_id]

    def _have_run(self, region: _Region, run_ids: Sequence[str]) -> bool:
        return {line.run_id for line in region.lines(self._started_at)} >= set(run_ids)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self._say(f"{name} ...")
        begun = time.monotonic()
        yield
        self._steps.append(Step(name=name, seconds=round(time.monotonic() - begun, 1)))

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise DRError(
                    f"Waited {PATIENCE_S:.0f} s in vain until {what}.",
                    advice=f"The sandbox's logs are in {self._sandbox.home.path / 'logs'}.",
                )
            time.sleep(0.5)


def begun_at(record: FailoverRecord) -> datetime:
    """Return when the failover began: its plan is written only after the checks."""
    return record.started_at - timedelta(seconds=sum(step.seconds for step in record.steps if step.name == "check"))


def operator_words(line: str) -> str | None:
    """Return what the failover operator says in a line of Airflow's output; None when somebody else says something."""
    match = _OPERATOR_LINE.search(line)
    return None if match is None else (match["new"] or match["old"]).strip()


def count_intervals(lines: Sequence[Line]) -> Mapping[str, int]:
    """
    Return what became of the scheduled intervals between the first and the last that any region executed.

    Lost ones were due and ran nowhere: without a ledger the target does not know what was in flight or not yet started
    while no region might execute. Unreported is for runs that only a lost region knows of; a planned failover has none.
    """
    times: Counter[tuple[str, datetime]] = Counter()
    for line in lines:
        if line.is_scheduled and line.interval_end is not None:
            times[line.dag_id, line.interval_end] += 1
    expected = 0
    for dag_id in {dag_id for dag_id, _ in times}:
        ends = [end for other, end in times if other == dag_id]
        expected += int((max(ends) - min(ends)) / EVERY) + 1
    return {
        "expected": expected,
        "executed": len(times),
        "lost": expected - len(times),
        "duplicated": sum(count > 1 for count in times.values()),
        "unreported": 0,
    }
