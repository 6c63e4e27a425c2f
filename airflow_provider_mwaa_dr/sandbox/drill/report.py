"""The report of a drill: report.json for programs, and text for the terminal. report_page.py has the HTML page."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_mwaa_dr.core.display import counted
from airflow_provider_mwaa_dr.core.documents import iso, record_document
from airflow_provider_mwaa_dr.core.ports import FailoverRecord
from airflow_provider_mwaa_dr.core.reporting.figure import Outage, active_at


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillStep:
    """One step of the drill."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """
    A run that the drill forced in a standby region.

    :param at: when its Airflow created it; None when that is not known.
    """

    region: str
    dag_id: str
    run_id: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """
    The line that one task body wrote when it ran.

    :param epoch: the epoch that the task body read; None when it could not read the state.
    :param is_end: whether it was the last task body of its run.
    :param marks: the times for which the body worked: the end of its interval, or those of the events or of the parent
        that requested the run.
    """

    region: str
    dag_id: str
    run_id: str
    interval_end: datetime | None
    is_scheduled: bool
    epoch: int | None
    at: datetime
    is_end: bool = True
    interval_start: datetime | None = None
    marks: Sequence[datetime] = ()

    @classmethod
    def parse(cls, text: str) -> Line:
        """Return a line of ``drill.jsonl``."""
        raw = json.loads(text)
        start, end = (
            None if date is None else datetime.fromisoformat(date)
            for date in (raw.get("interval_start"), raw["interval_end"])
        )
        return cls(
            region=raw["region"],
            dag_id=raw["dag_id"],
            run_id=raw["run_id"],
            interval_end=end,
            is_scheduled=raw["is_scheduled"],
            epoch=raw["epoch"],
            at=datetime.fromisoformat(raw["at"]),
            is_end=raw.get("is_end", True),
            interval_start=start,
            marks=tuple(map(datetime.fromisoformat, raw.get("marks", ()))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    The result of a drill.

    :param findings: for each promise, in words, whether it was kept. The drill passes if all were kept.
    :param rto_seconds: from the start of the failover (its first check) to the first task body in the new region.
    :param calls_to_source: requests to the environment that was left, from the claim to the end of the failover.
    :param intervals: numbers of runs (expected, executed, lost, duplicated, unreported), counted from *lines*.
    :param listed: a sentence for each lost run, and for each run that executed again, with the reason.
    :param moves: when each region became active; the first one is the start of the drill.
    :param attempts: runs that the drill itself forced in a standby.
    :param lines: all lines that task bodies wrote, oldest first.
    :param later: the failovers after the first one, oldest first: the failback, and a second failover to its source.
    :param outages: the times in which a region was lost.
    :param marks: other important moments, each with a short text.
    :param lost: expected runs that did not execute, with the end of their interval where it is known.
    :param repeated: runs that executed more than once, with the reason that allows it; empty without such a reason.
        *lost* and *repeated* name a run by DAG id and run id, separated by a space.
    :param host: name of the machine that the drill ran on; empty if it is not known.
    :param went_on: region, DAG id and run id of runs that the region took over from the other region.
    :param pauses: for each failover, the seconds in which no run of a continuous DAG started, where the drill has one.
    :param copied: which history and settings the new environment has from the old one, and how; empty in a scenario
        that is no upgrade.
    """

    scenario: str
    passed: bool
    findings: Mapping[str, bool]
    steps: Sequence[DrillStep]
    rto_seconds: float
    calls_to_source: int
    intervals: Mapping[str, int]
    executed_in_standby: int
    attempts: Sequence[Attempt]
    epoch: int
    versions: Mapping[str, Mapping[str, str]]
    lines: Sequence[Line]
    record: FailoverRecord
    moves: Sequence[tuple[datetime, str]]
    listed: Sequence[str] = ()
    later: Sequence[FailoverRecord] = ()
    outages: Sequence[Outage] = ()
    marks: Sequence[tuple[datetime, str]] = ()
    lost: Mapping[str, datetime | None] = field(default_factory=dict)
    repeated: Mapping[str, str] = field(default_factory=dict)
    went_on: Collection[tuple[str, str, str]] = ()
    host: str = ""
    pauses: Sequence[float] = ()
    copied: Mapping[str, str] = field(default_factory=dict)

    @property
    def records(self) -> Sequence[FailoverRecord]:
        """The records of all failovers, oldest first."""
        return (self.record, *self.later)

    @property
    def failback(self) -> FailoverRecord | None:
        """The second failover, in a scenario that has one."""
        return self.later[0] if self.later else None

    def active_at(self, at: datetime) -> str:
        """Return the region that was active at *at*."""
        return active_at(self.moves, at)

    @property
    def verdict(self) -> str:
        """Return pass or fail."""
        return "pass" if self.passed else "fail"


def document(report: Report) -> dict[str, Any]:
    """Return the content of ``report.json``, whose keys are a contract."""
    return {
        "scenario": report.scenario,
        "verdict": report.verdict,
        "steps": [{"name": step.name, "seconds": step.seconds} for step in report.steps],
        "rto_seconds": report.rto_seconds,
        "intervals": dict(report.intervals),
        "executed_in_standby": report.executed_in_standby,
        "attempts_in_standby": len(report.attempts),
        "epoch": report.epoch,
        "versions": {region: dict(versions) for region, versions in report.versions.items()},
        "calls_to_source": report.calls_to_source,
        "listed": list(report.listed),
        "findings": dict(report.findings),
        "failover": record_document(report.record),
        "failback": record_document(report.failback) if report.failback is not None else None,
        "failovers": [record_document(record) for record in report.records],
        "pauses_s": list(report.pauses),
        "copied": dict(report.copied),
        "went_on": len(report.went_on),
        "host": report.host,
        "outages": [
            {
                "region": outage.region,
                "how": outage.how,
                "since": iso(outage.since),
                "until": iso(outage.until) if outage.until is not None else None,
            }
            for outage in report.outages
        ],
    }


def text(report: Report) -> str:
    """Return the report as text for the terminal."""
    attempts = attempts_by_region(report)
    lines = [
        f"Drill {report.scenario}: {report.verdict.upper()}",
        "",
        *(f"  {'yes' if kept else 'NO '}  {finding}" for finding, kept in report.findings.items()),
        "",
        *(f"  {value:>7}  {name}" for name, value in figures(report)),
        "",
        *(
            f"  forced in {region}: {counted(number, 'run')}, task bodies executed: {ran}"
            for region, number, ran in attempts
        ),
    ]
    lines += [f"  copied to the new environment, {what}: {how}" for what, how in report.copied.items()]
    if report.listed:
        lines += ["", *(f"  {sentence}" for sentence in report.listed)]
    return "\n".join(lines)


NAMES_OF_LATER = ("failback", "second failover")
"""What the failovers after the first one are called."""


def figures(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each number in the report."""
    record, intervals = report.record, report.intervals
    yield (
        "RTO: seconds from the start of the failover to the first task body in the new region",
        (f"{report.rto_seconds:g}"),
    )
    if record.finished_at is not None:
        yield "seconds that the failover took", f"{(record.finished_at - record.started_at).total_seconds():.1f}"
    for name, each in zip(NAMES_OF_LATER, report.later, strict=False):
        if each.finished_at is not None:
            yield f"seconds that the {name} took", f"{(each.finished_at - each.started_at).total_seconds():.1f}"
    if report.pauses:
        name = "longest pause of scheduling: seconds from the last start in the old environment to the first in the new"
        yield name, f"{max(report.pauses):.1f}"
        yield "pause of scheduling in each failover, in seconds", ", ".join(f"{pause:.1f}" for pause in report.pauses)
    yield f"requests to {record.source} after the claim", str(report.calls_to_source)
    yield "runs forced in a standby region", str(len(report.attempts))
    yield "task bodies of these runs that executed", str(report.executed_in_standby)
    yield "runs expected: those that a single Airflow would have executed", str(intervals["expected"])
    yield "runs executed", str(intervals["executed"])
    yield "runs that did not end in the old region and continued in the new one", str(len(report.went_on))
    yield "runs executed twice", str(intervals["duplicated"])
    yield "RPO: expected runs that were lost", str(intervals["lost"])
    yield "runs that only the lost region knew", str(intervals["unreported"])
    yield "epoch now", str(report.epoch)


def begun_at(record: FailoverRecord) -> datetime:
    """Return when the failover began: the plan is written after the checks."""
    return record.started_at - timedelta(seconds=sum(step.seconds for step in record.steps if step.name == "check"))


def attempts_by_region(report: Report) -> Sequence[tuple[str, int, int]]:
    """Return for each region how many runs were forced in it while it was standby, and how many of them executed."""
    regions = list(dict.fromkeys(attempt.region for attempt in report.attempts))
    ran = {(line.region, line.run_id) for line in report.lines}
    return [
        (
            region,
            sum(attempt.region == region for attempt in report.attempts),
            sum(attempt.region == region and (region, attempt.run_id) in ran for attempt in report.attempts),
        )
        for region in regions
    ]
