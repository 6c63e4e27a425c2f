"""
Reports of drills that never took place. They show the page without a sandbox.

``python -m tests.unit.sandbox.drill.drill_reports FOLDER`` writes a page for each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow_provider_mwaa_dr.core.ports import FailoverOutcome, FailoverRecord, StepRecord
from airflow_provider_mwaa_dr.core.reporting.figure import Outage
from airflow_provider_mwaa_dr.core.state import Mode
from airflow_provider_mwaa_dr.sandbox.drill import report_page
from airflow_provider_mwaa_dr.sandbox.drill.report import Attempt, DrillStep, Line, Report

START = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
OHIO, VIRGINIA = "us-east-2", "us-east-1"
BLUE, GREEN = "blue", "green"
_EVERY_S = 10
_SCHEDULED = {"drill_orders": 0, "drill_billing": 5, "drill_long": 2}


def at(seconds: float) -> datetime:
    """Return the time so long after the beginning."""
    return START + timedelta(seconds=seconds)


class Scene:
    """
    What task bodies would have written while the role moves.

    :param roles: since when which region may execute, in seconds; ``""`` for none.
    """

    def __init__(self, roles: Sequence[tuple[float, str]], *, until_s: float) -> None:
        self._roles = roles
        self._until_s = until_s
        self.lines: list[Line] = []
        self.went_on: set[tuple[str, str, str]] = set()

    def _region(self, when_s: float) -> tuple[str, float, int]:
        """Return the region, the start and the epoch of a run that becomes due at a time."""
        since_s, region = [role for role in self._roles if role[0] <= when_s][-1]
        if not region:
            since_s, region = next(role for role in self._roles if role[0] > when_s and role[1])
            when_s = since_s
        epoch = len([role for role in self._roles if role[0] <= when_s and role[1]]) - 1
        return region, when_s, epoch

    def run(self, dag_id: str, run_id: str, due_s: float, *, is_scheduled: bool = True, takes_s: float = 0) -> None:
        """Let a run execute as early as possible, and again if the role moves before it ends."""
        region, begun_s, epoch = self._region(due_s)
        late_s = 0.7 + (due_s * 7 % 5) / 10 + (1.5 if begun_s > due_s else 0)
        begun_s += late_s
        lost_s = next((since for since, _ in self._roles if since > begun_s), self._until_s)

        def line(when_s: float, *, is_end: bool) -> None:
            self.lines.append(
                Line(
                    region=region, dag_id=dag_id, run_id=run_id, interval_end=at(due_s) if is_scheduled else None,
                    is_scheduled=is_scheduled, epoch=epoch, at=at(when_s), is_end=is_end,
                )
            )  # fmt: skip

        if takes_s:
            line(begun_s, is_end=False)
        if begun_s + takes_s <= lost_s:
            line(begun_s + takes_s, is_end=True)
        elif lost_s < self._until_s:
            region, begun_s, epoch = self._region(lost_s)
            self.went_on.add((region, dag_id, run_id))
            begun_s += 2.2
            if takes_s:
                line(begun_s, is_end=False)
            line(begun_s + takes_s, is_end=True)

    def load(self) -> None:
        """Let the scheduled runs execute every ten seconds, and the triggered runs every three."""
        for dag_id, offset_s in _SCHEDULED.items():
            for due_s in range(10 + offset_s, int(self._until_s) - 3, _EVERY_S):
                self.run(
                    dag_id, f"scheduled__{at(due_s).isoformat()}", due_s, takes_s=3.4 if dag_id == "drill_long" else 0
                )
        for number, due_s in enumerate(range(40, int(self._until_s) - 20, 3), start=1):
            run_id = f"by-hand-{at(due_s):%H%M%S}-{number}"
            self.run("drill_on_demand", run_id, due_s + 0.4, is_scheduled=False)

    def report(self, scenario: str, *, records: Sequence[FailoverRecord], moves: Sequence[tuple[float, str]]) -> Report:
        """Return a report in which all promises were kept."""
        lines = sorted(self.lines, key=lambda line: line.at)
        runs = len({(line.dag_id, line.run_id) for line in lines if line.is_end})
        target = records[0].target
        first = min(line.at for line in lines if line.region == target and line.at >= at(moves[1][0]))
        return Report(
            scenario=scenario,
            passed=True,
            findings={
                "no task executed in a standby": True,
                "no run was lost: every run that a single Airflow would have executed was executed": True,
                "no run executed twice": True,
                f"{moves[-1][1]} is active, and the epoch grew by {len(records)}": True,
                "the state is STEADY again": True,
                "exactly the wanted DAGs are unpaused, in the new region only": True,
            },
            steps=[
                DrillStep(name="start two regions and an emulated AWS", seconds=25.4),
                DrillStep(name=f"run the load in {OHIO}, the active region", seconds=21.7),
                DrillStep(name=f"force runs in {VIRGINIA}, the standby", seconds=2.5),
                DrillStep(name="fail over: airflow dags test dr_failover, in the control environment", seconds=19.3),
            ],
            rto_seconds=round((first - records[0].started_at).total_seconds() + 0.7, 1),
            calls_to_source=41,
            intervals={"expected": runs, "executed": runs, "lost": 0, "duplicated": 0, "unreported": 0},
            executed_in_standby=0,
            attempts=(),
            epoch=len(records),
            versions={region: {"airflow": "3.3.1", "provider": "0.1.0"} for region in (OHIO, VIRGINIA)},
            lines=lines,
            record=records[0],
            later=records[1:],
            moves=[(at(seconds), region) for seconds, region in moves],
            went_on=frozenset(self.went_on),
        )


def attempts(region: str, when: str, begin_s: float, dags: Sequence[str], *, every_s: float = 10) -> list[Attempt]:
    """Return what was forced in *region*: two runs triggered there, and what unpausing *dags* made."""
    forced = [
        Attempt(region=region, dag_id="drill_on_demand", run_id=f"forced-{when}-by-rest", at=at(begin_s + 0.8)),
        Attempt(region=region, dag_id="drill_on_demand", run_id=f"forced-{when}-by-command-line", at=at(begin_s + 3.1)),
    ]
    for number, dag_id in enumerate(dags):
        for turn in range(2):
            due = at(begin_s + number + turn * every_s)
            forced.append(Attempt(region=region, dag_id=dag_id, run_id=f"scheduled__{due.isoformat()}", at=due))
    return forced


def record(
    source: str, target: str, *, mode: Mode, claimed_s: float, steps: dict[str, tuple[float, str]]
) -> FailoverRecord:
    """Return what a move did; the check comes before its plan is written."""
    seconds = sum(seconds for name, (seconds, _) in steps.items() if name != "check")
    return FailoverRecord(
        id=f"20260301T{at(claimed_s):%H%M%S}Z-9a4ec7",
        source=source,
        target=target,
        mode=mode,
        reason="drill",
        by="airflow@control",
        started_at=at(claimed_s),
        finished_at=at(claimed_s + seconds),
        outcome=FailoverOutcome.COMPLETED,
        epoch=1,
        steps=tuple(StepRecord(name=name, seconds=took, detail=detail) for name, (took, detail) in steps.items()),
    )


def _graceful(source: str, target: str, *, claimed_s: float) -> FailoverRecord:
    steps = {
        "check": (0.7, f"{target} is ready"),
        "claim": (0.1, f"plan 20260301T120100Z-9a4ec7: {source} -> {target}"),
        "record": (0.1, "5 unpaused DAGs recorded, 0 exempt"),
        "drain": (4.6, "acknowledged by every scheduler; no run in progress"),
        "pause": (0.2, f"5 DAGs paused in {source}"),
        "ledger": (1.1, f"the ledger of {source} is complete"),
        "lease": (0.0, "acknowledged; no worker can have an older view"),
        "promote": (0.1, f"{target} is active, epoch 1"),
        "adopt": (1.6, f"all schedulers of {target} know epoch 1"),
        "unpause": (0.1, f"5 of 5 recorded DAGs are unpaused in {target}"),
        "verify": (5.2, f"listed again: 5 of 5 recorded DAGs are unpaused in {target}; first run: dr_test_dag success"),
        "complete": (0.1, f"{target} is active, epoch 1"),
    }
    return record(source, target, mode=Mode.GRACEFUL, claimed_s=claimed_s, steps=steps)


def planned() -> Report:
    """There, with what is in flight finished first."""
    scene = Scene([(0, OHIO), (60, ""), (67.8, VIRGINIA)], until_s=110)
    scene.load()
    found = scene.report(
        "planned",
        records=[_graceful(OHIO, VIRGINIA, claimed_s=60)],
        moves=[(-30, OHIO), (66.1, VIRGINIA)],
    )
    return replace(
        found,
        attempts=(
            *attempts(VIRGINIA, "before", 36, ["drill_paused_by_hand"]),
            *attempts(OHIO, "after", 82, list(_SCHEDULED)),
        ),
    )


def region_loss() -> Report:
    """The region is killed with runs in flight, and comes back; two runs ended too late for the ledger."""
    scene = Scene([(0, OHIO), (56.4, ""), (78.6, VIRGINIA)], until_s=150)
    scene.load()
    steps = {
        "check": (1.3, f"{VIRGINIA} is ready"),
        "claim": (0.1, f"plan 20260301T120102Z-9a4ec7: {OHIO} -> {VIRGINIA}"),
        "record": (0.1, "5 unpaused DAGs recorded, from the snapshot of 2026-03-01T11:59:09Z"),
        "lease": (14.1, f"{OHIO} can execute nothing: its view is older than 10 s"),
        "promote": (0.1, f"{VIRGINIA} is active, epoch 1"),
        "adopt": (1.9, f"all schedulers of {VIRGINIA} know epoch 1"),
        "unpause": (0.2, f"5 of 5 recorded DAGs are unpaused in {VIRGINIA}"),
        "verify": (
            5.9,
            f"listed again: 5 of 5 recorded DAGs are unpaused in {VIRGINIA}; first run: dr_test_dag success",
        ),
        "complete": (0.1, f"{VIRGINIA} is active, epoch 1"),
    }
    moved = record(OHIO, VIRGINIA, mode=Mode.FORCED, claimed_s=62, steps=steps)
    again = [line for line in scene.lines if line.region == OHIO and at(54) <= line.at and line.is_end][-2:]
    lines = [replace(line, region=VIRGINIA, epoch=1, at=at(80 + 0.4 * n)) for n, line in enumerate(again)]
    scene.lines += lines
    found = scene.report("region-loss", records=[moved], moves=[(-30, OHIO), (76.4, VIRGINIA)])
    repeated = {
        f"{line.dag_id} {line.run_id}": f"it ended in {OHIO} at {line.at:%H:%M:%S}, which was not yet in the "
        "ledger when the role moved"
        for line in again
    }
    findings = {
        name if name != "no run executed twice" else "a run executed twice only if its end could not be known": kept
        for name, kept in found.findings.items()
    }
    return replace(
        found,
        calls_to_source=0,
        findings={
            **findings,
            f"no call to {OHIO} after the claim": True,
            f"{VIRGINIA} executes tasks within 26 s: lease, fence file and 15 s": True,
        },
        intervals={**found.intervals, "duplicated": len(repeated), "unreported": 1},
        repeated=repeated,
        listed=[f"executed again: {run}: {why}" for run, why in repeated.items()],
        outages=[Outage(region=OHIO, how="killed", since=at(56.4), until=at(98))],
        attempts=(
            *attempts(VIRGINIA, "before", 36, ["drill_paused_by_hand"]),
            *attempts(OHIO, "after", 122, list(_SCHEDULED)),
        ),
    )


def failback() -> Report:
    """There and back again."""
    scene = Scene([(0, OHIO), (60, ""), (67.8, VIRGINIA), (95, ""), (102.8, OHIO)], until_s=150)
    scene.load()
    found = scene.report(
        "failback",
        records=[_graceful(OHIO, VIRGINIA, claimed_s=60), _graceful(VIRGINIA, OHIO, claimed_s=95)],
        moves=[(-30, OHIO), (66.1, VIRGINIA), (101.1, OHIO)],
    )
    return replace(
        found,
        attempts=(
            *attempts(VIRGINIA, "before", 36, ["drill_paused_by_hand"]),
            *attempts(VIRGINIA, "after", 120, list(_SCHEDULED)),
        ),
    )


def upgrade() -> Report:
    """Two sites in one region: the upgrade, back, and the upgrade again."""
    roles = [(0, BLUE), (60, ""), (67.8, GREEN), (115, ""), (122.8, BLUE), (170, ""), (177.8, GREEN)]
    scene = Scene(roles, until_s=220)
    scene.load()
    found = scene.report(
        "upgrade",
        records=[
            _graceful(BLUE, GREEN, claimed_s=60),
            _graceful(GREEN, BLUE, claimed_s=115),
            _graceful(BLUE, GREEN, claimed_s=170),
        ],
        moves=[(-30, BLUE), (66.1, GREEN), (121.1, BLUE), (176.1, GREEN)],
    )
    return replace(
        found,
        versions={
            BLUE: {"airflow": "2.11.2", "provider": "0.1.0"},
            GREEN: {"airflow": "3.3.1", "provider": "0.1.0"},
        },
        pauses=[9.1, 8.4, 9.3],
        copied={"the history of ended runs": "not copied"},
    )


def storm() -> Report:
    """A DAG with two years of history continues with its next interval."""
    scene = Scene([(0, OHIO), (60, ""), (67.8, VIRGINIA)], until_s=110)
    scene.load()
    for number in range(1, 11):
        scene.run("drill_history", f"scheduled__{at(10 * number - 2).isoformat()}", 10 * number - 2)
    found = scene.report(
        "storm", records=[_graceful(OHIO, VIRGINIA, claimed_s=60)], moves=[(-30, OHIO), (66.1, VIRGINIA)]
    )
    return replace(
        found,
        findings={
            **found.findings,
            "no run of the two years of history was executed again": True,
            f"drill_history runs within 30 s in {VIRGINIA}": True,
        },
        attempts=(
            *attempts(VIRGINIA, "before", 36, ["drill_paused_by_hand"]),
            *attempts(OHIO, "after", 82, list(_SCHEDULED)),
        ),
    )


def flood() -> Report:
    """The same without adoption: the scheduler creates thousands of runs of the history again."""
    found = storm()
    again = [
        Line(
            region=VIRGINIA, dag_id="drill_history", run_id=f"scheduled__{at(due_s).isoformat()}",
            interval_end=at(due_s), is_scheduled=True, epoch=1, at=at(70 + number / 80),
        )
        for number, due_s in enumerate(range(-10_000_000, -9_970_000, 10))
    ]  # fmt: skip
    runs = found.intervals["executed"] + len(again)
    return replace(
        found,
        passed=False,
        findings={**found.findings, "no run of the two years of history was executed again": False},
        lines=sorted([*found.lines, *again], key=lambda line: line.at),
        intervals={**found.intervals, "expected": runs, "executed": runs},
    )


def broken() -> Report:
    """Everything that can go wrong: lost, executed twice for no reason, executed in a standby; and odd names."""
    found = region_loss()
    run = next(line for line in found.lines if line.region == VIRGINIA and line.dag_id == "drill_billing")
    forced = found.attempts[0]
    lost = {f"drill_orders interval {at(70):%H:%M:%S}": at(70), "drill_on_demand <never seen>": at(88)}
    twice = f"{run.dag_id} {run.run_id}"
    return replace(
        found,
        passed=False,
        findings={name: number > 2 for number, name in enumerate(found.findings)},
        lines=sorted(
            [
                *(line for line in found.lines if line.interval_end != at(70) or line.dag_id != "drill_orders"),
                replace(run, at=run.at + timedelta(seconds=4)),
                Line(
                    region=forced.region, dag_id=forced.dag_id, run_id=forced.run_id, interval_end=None,
                    is_scheduled=False, epoch=None, at=at(38),
                ),
            ],
            key=lambda line: line.at,
        ),
        executed_in_standby=1,
        intervals={**found.intervals, "executed": found.intervals["expected"] - 2, "lost": 2, "duplicated": 3},
        lost=lost,
        repeated={**found.repeated, twice: ""},
        listed=[
            *(f"lost: {name}" for name in lost),
            *found.listed,
            f"executed again: {twice}: without a valid reason",
        ],
    )  # fmt: skip


ALL: dict[str, Callable[[], Report]] = {
    made.__name__: made for made in (planned, region_loss, failback, upgrade, storm, flood, broken)
}

if __name__ == "__main__":
    for name, make in ALL.items():
        report_page.write(make(), Path(sys.argv[1], name))
        print(Path(sys.argv[1], name, "report.html"))
