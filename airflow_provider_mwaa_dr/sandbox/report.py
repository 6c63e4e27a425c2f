"""What a drill found, for programs (report.json), for people at the screen, and as a page (report.html)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr.core.documents import record_document
from airflow_provider_mwaa_dr.core.ports import FailoverRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the drill."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A run that the drill forced in a standby region."""

    region: str
    dag_id: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """
    What one task body wrote when it ran.

    :param epoch: that it read itself; None when it could not.
    :param is_end: whether it was the last body of its run.
    """

    region: str
    dag_id: str
    run_id: str
    interval_end: datetime | None
    is_scheduled: bool
    epoch: int | None
    at: datetime
    is_end: bool = True

    @classmethod
    def parse(cls, text: str) -> Line:
        """Return a line of ``drill.jsonl``."""
        raw = json.loads(text)
        end = raw["interval_end"]
        return cls(
            region=raw["region"],
            dag_id=raw["dag_id"],
            run_id=raw["run_id"],
            interval_end=None if end is None else datetime.fromisoformat(end),
            is_scheduled=raw["is_scheduled"],
            epoch=raw["epoch"],
            at=datetime.fromisoformat(raw["at"]),
            is_end=raw.get("is_end", True),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    What a drill found.

    :param findings: whether each promise was kept, in the words of the report; all of them make a pass.
    :param rto_seconds: from the start of the failover (its first check) to the first task body in the new region.
    :param calls_to_source: requests for the environment that was left, from the claim to the end of the failover.
    :param intervals: expected, executed, lost, duplicated, unreported; runs, counted from *lines*.
    :param listed: what was lost, and what ran again with the reason, a sentence each.
    :param moves: when the role came to which region; the first is the start.
    :param attempts: runs that the drill itself forced in a standby.
    :param lines: all that task bodies wrote, oldest first.
    """

    scenario: str
    passed: bool
    findings: Mapping[str, bool]
    steps: Sequence[Step]
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

    def active_at(self, at: datetime) -> str:
        """Return which region had the role."""
        return [region for since, region in self.moves if since <= at or since == self.moves[0][0]][-1]

    @property
    def verdict(self) -> str:
        """Return pass or fail."""
        return "pass" if self.passed else "fail"


def document(report: Report) -> dict[str, Any]:
    """Return the report as ``report.json`` has it; its keys are a contract."""
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
    }


def write(report: Report, folder: Path) -> None:
    """Write ``report.json`` and ``report.html`` into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(_page(report), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(document(report), indent=2) + "\n", encoding="utf-8")


def text(report: Report) -> str:
    """Return the report for the screen."""
    attempts = _attempts_by_region(report)
    lines = [
        f"Drill {report.scenario}: {report.verdict.upper()}",
        "",
        *(f"  {'yes' if kept else 'NO '}  {finding}" for finding, kept in report.findings.items()),
        "",
        *(f"  {value:>7}  {name}" for name, value in _figures(report)),
        "",
        *(f"  forced in {region}: {number} runs, task bodies executed: {ran}" for region, number, ran in attempts),
    ]
    if report.listed:
        lines += ["", *(f"  {sentence}" for sentence in report.listed)]
    return "\n".join(lines)


def _figures(report: Report) -> Iterator[tuple[str, str]]:
    record, intervals = report.record, report.intervals
    yield "seconds from the start of the failover to the first task body in the new region", f"{report.rto_seconds:g}"
    if record.finished_at is not None:
        yield "seconds that the failover took", f"{(record.finished_at - record.started_at).total_seconds():.1f}"
    yield f"requests to {record.source} after the claim", str(report.calls_to_source)
    yield "runs forced in a standby region", str(len(report.attempts))
    yield "task bodies of them that executed", str(report.executed_in_standby)
    yield "runs due, as one Airflow would have had them", str(intervals["expected"])
    yield "runs executed", str(intervals["executed"])
    yield "runs executed twice", str(intervals["duplicated"])
    yield "runs lost", str(intervals["lost"])
    yield "runs that only the lost region knew of", str(intervals["unreported"])
    yield "epoch now", str(report.epoch)


def _attempts_by_region(report: Report) -> Sequence[tuple[str, int, int]]:
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


# The page.

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7b; --line: #d8dee5; --back: #fff; --card: #f6f8fa;
  --good: #1a7f4b; --bad: #c0392b; --dot: #2e6fbf; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa7b4; --line: #34404c; --back: #12181f;
  --card: #1a222b; --good: #4cc38a; --bad: #ff7b6b; --dot: #6ca8f0; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; background: var(--back);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.9rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .7rem } p { margin: .4rem 0 }
.pass { color: var(--good) } .fail { color: var(--bad) } .soft { color: var(--soft) }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin-top: 1.4rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem }
.card b { display: block; font-size: 1.7rem; line-height: 1.2 } .card span { color: var(--soft); font-size: .88rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .35rem .6rem .35rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top } td.number { text-align: right; white-space: nowrap }
ul { list-style: none; padding: 0; margin: 0 } li { padding: .15rem 0 } .scroll { overflow-x: auto }
svg { width: 100%; min-width: 40rem; height: auto; display: block } svg text { fill: var(--ink); font-size: 12px }
svg .soft { fill: var(--soft) } svg .axis { stroke: var(--line) } svg .run { fill: var(--dot) }
svg .bad { fill: var(--bad) } svg .mark { stroke: var(--soft); stroke-dasharray: 3 3 } svg .active { fill: var(--good);
  opacity: .14 }
"""


def _page(report: Report) -> str:
    record = report.record
    findings = "".join(
        f'<li><b class="{"pass" if kept else "fail"}">{"✓" if kept else "✗"}</b> {escape(finding)}</li>'
        for finding, kept in report.findings.items()
    )
    cards = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in _figures(report)
    )
    forced = "".join(
        f'<tr><td>{escape(region)}</td><td class="number">{number}</td><td class="number">{ran}</td></tr>'
        for region, number, ran in _attempts_by_region(report)
    )
    failover = "".join(
        f'<tr><td>{escape(step.name)}</td><td class="number">{step.seconds:.1f} s</td>'
        f"<td>{escape(step.detail)}</td></tr>"
        for step in record.steps
    )
    steps = "".join(
        f'<tr><td>{escape(step.name)}</td><td class="number">{step.seconds:.1f} s</td></tr>' for step in report.steps
    )
    versions = ", ".join(
        f"{region}: Airflow {known['airflow']}, provider {known['provider']}"
        for region, known in report.versions.items()
    )
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.listed)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Drill {escape(report.scenario)}: {report.verdict}</title><style>{_STYLE}</style></head><body>
<h1>Drill <em>{escape(report.scenario)}</em>: <span class="{report.verdict}">{report.verdict}</span></h1>
<p class="soft">{escape(record.source)} to {escape(record.target)}, {record.started_at:%Y-%m-%d %H:%M:%S} UTC.
Two real Airflows and an emulated AWS on one machine. {escape(versions)}.</p>
<ul style="margin-top:1rem">{findings}</ul>
<div class="cards">{cards}</div>
{f"<h2>Lost, or executed again</h2><ul>{listed}</ul>" if listed else ""}
<h2>What ran where</h2>
<p class="soft">A dot is a task body that executed. The band shows which region was active.</p>
<div class="scroll">{_timeline(report)}</div>
<h2>Runs forced in a standby region</h2>
<p class="soft">DAGs unpaused by hand, runs triggered by REST and by command line; the same runs executed in the active
region.</p>
<table><tr><th>region</th><th>runs forced</th><th>task bodies executed</th></tr>{forced}</table>
<h2>The failover, step by step</h2>
<table>{failover}</table>
<h2>The drill</h2>
<table>{steps}</table>
</body></html>
"""


def _timeline(report: Report) -> str:
    """Return both regions over time, as an SVG element."""
    record = report.record
    marks = [("claim", record.started_at), *(("promote", at) for at, _ in report.moves[1:])]
    if record.finished_at is not None:
        marks.append(("complete", record.finished_at))
    times = [line.at for line in report.lines] + [at for _, at in marks]
    begin, end = min(times), max(times)
    left, width, height = 110, 860, 190
    span = max((end - begin).total_seconds(), 1.0)

    def x(at: datetime) -> float:
        return round(left + (at - begin).total_seconds() / span * (width - 10), 1)

    rows = {region: 60 + 60 * number for number, region in enumerate(dict.fromkeys(r for _, r in report.moves))}
    until = [at for at, _ in report.moves[1:]] + [end]
    parts = [
        f'<svg viewBox="0 0 {left + width + 10} {height}" role="img" aria-label="Task bodies by region over time">'
    ]
    for region, y in rows.items():
        for (since, active), over in zip(report.moves, until, strict=True):
            if active == region:
                left_x, right_x = x(max(since, begin)), x(over)
                parts.append(f'<rect class="active" x="{left_x}" y="{y - 18}" width="{right_x - left_x}" height="36"/>')
        parts.append(f'<line class="axis" x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="0" y="{y + 4}">{escape(region)}</text>')
    for line in report.lines:
        kind = "run" if line.region == report.active_at(line.at) else "bad"
        title = f"{line.dag_id} {line.run_id}, epoch {line.epoch}, {line.at:%H:%M:%S}"
        parts.append(
            f'<circle class="{kind}" cx="{x(line.at)}" cy="{rows[line.region]}" r="4">'
            f"<title>{escape(title)}</title></circle>"
        )
    for number, (name, at) in enumerate(marks):
        label_y = 14 + 12 * (number % 2)
        parts.append(f'<line class="mark" x1="{x(at)}" x2="{x(at)}" y1="30" y2="150"/>')
        parts.append(f'<text class="soft" text-anchor="middle" x="{x(at)}" y="{label_y}">{name}</text>')
    for seconds in range(0, int(span) + 1, max(10, int(span / 8) // 10 * 10)):
        where = left + seconds / span * (width - 10)
        parts.append(f'<text class="soft" text-anchor="middle" x="{where:.1f}" y="172">{seconds} s</text>')
    return "".join((*parts, "</svg>"))
