"""A drill's report as an HTML page: one file without scripts, which can be printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from airflow_provider_mwaa_dr.core.reporting.figure import Figure
from airflow_provider_mwaa_dr.core.reporting.page import card, html_document, step_table
from airflow_provider_mwaa_dr.core.reporting.timeline import timeline
from airflow_provider_mwaa_dr.sandbox.drill.report import (
    NAMES_OF_LATER,
    Report,
    attempts_by_region,
    document,
    figures,
)
from airflow_provider_mwaa_dr.sandbox.drill.run_outcome import bars


def write(report: Report, folder: Path) -> None:
    """Write ``report.json`` and ``report.html`` into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(page(report), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(document(report), indent=2) + "\n", encoding="utf-8")


def write_overview(outcomes: Mapping[str, Report | str], folder: Path) -> None:
    """
    Write ``report.html``, an overview with links to the reports of the scenarios in subfolders of *folder*.

    :param outcomes: by scenario, its report, or the reason why there is none.
    """
    passed = [isinstance(outcome, Report) and outcome.passed for outcome in outcomes.values()]
    verdict = "pass" if all(passed) else "fail"
    heads = ("RTO", "runs expected", "RPO: lost", "twice", "taken over", "in standby")
    rows = "".join(_overview_row(name, outcome) for name, outcome in outcomes.items())
    body = f"""<header>
<p class="verdict {verdict}">{"passed" if verdict == "pass" else "failed"}</p>
<div><h1>All drills</h1><p class="soft">{sum(passed)} of {len(passed)} scenarios passed</p></div>
</header>
<table class="overview"><tr><th>scenario</th><th>verdict</th>
{"".join(f'<th class="number">{head}</th>' for head in heads)}</tr>
{rows}</table>"""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(html_document(f"All drills: {verdict}", body), encoding="utf-8")


def _overview_row(name: str, outcome: Report | str) -> str:
    if isinstance(outcome, str):
        return (
            f'<tr><td>{escape(name)}</td><td class="fail">not complete</td><td colspan="6">{escape(outcome)}</td></tr>'
        )
    intervals = outcome.intervals
    values = (
        f"{outcome.rto_seconds:g} s",
        str(intervals["expected"]),
        str(intervals["lost"]),
        str(intervals["duplicated"]),
        str(len(outcome.went_on)),
        f"{outcome.executed_in_standby} of {len(outcome.attempts)}",
    )
    cells = "".join(f'<td class="number">{value}</td>' for value in values)
    return (
        f'<tr><td><a href="{escape(name)}/report.html">{escape(name)}</a></td>'
        f'<td class="{outcome.verdict}">{"passed" if outcome.passed else "failed"}</td>{cells}</tr>'
    )


def page(report: Report) -> str:
    """Return the report as HTML."""
    record = report.record
    figure = Figure(
        bars=bars(report),
        records=report.records,
        moves=report.moves,
        outages=report.outages,
        marks=report.marks,
    )
    failed = [finding for finding, kept in report.findings.items() if not kept]
    broken = "".join(f"<li>{escape(finding)}</li>" for finding in failed)
    promises = "".join(
        f'<li class="{"kept" if kept else "broken"}">{escape(finding)}</li>'
        for finding, kept in report.findings.items()
    )
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.listed)
    versions = "; ".join(
        f"{region}: Airflow {known['airflow']}, provider {known['provider']}"
        for region, known in report.versions.items()
    )
    numbers = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{escape(value)}</td></tr>' for name, value in figures(report)
    )
    copied = "".join(f"<tr><td>{escape(what)}</td><td>{escape(how)}</td></tr>" for what, how in report.copied.items())
    forced = "".join(
        f'<tr><td>{escape(region)}</td><td class="number">{number}</td><td class="number">{ran}</td></tr>'
        for region, number, ran in attempts_by_region(report)
    )
    steps = "".join(
        f'<tr><td>{escape(step.name)}</td><td class="number">{step.seconds:.1f} s</td></tr>' for step in report.steps
    )
    back = ("", " and back", ", back, and again")[len(report.later)]
    tables = (
        f"""<h2>Runs forced in a standby</h2>
<p class="soft">The drill unpaused DAGs, and triggered runs by REST and by the command line.
The same actions in the active region did execute tasks.</p>
<table class="forced">
<tr><th>region</th><th class="number">runs forced</th><th class="number">task bodies executed</th></tr>
{forced}</table>"""
        if report.attempts
        else ""
    ) + (f"<h2>Copied to the new environment</h2><table>{copied}</table>" if copied else "")
    body = f"""<header>
<p class="verdict {report.verdict}">{"passed" if report.passed else "failed"}</p>
<div><h1>Drill {escape(report.scenario)}</h1>
<p class="soft">{escape(record.source)} to {escape(record.target)}{back},
{record.started_at:%Y-%m-%d %H:%M} UTC{f" on {escape(report.host)}" if report.host else ""}, requested by
{escape(record.by)}: {escape(record.reason)}</p></div>
</header>
<p class="summary">{escape(" ".join(_summary(report)))}</p>
{f'<div class="alarm"><h2>Promises that were not kept</h2><ul>{broken}</ul></div>' if broken else ""}
<div class="cards">{"".join(_cards(report))}</div>
<h2>Runs in each region</h2>
{timeline(figure)}
<h2>Promises</h2>
<ul class="promises">{promises}</ul>
{f'<h2>Runs that were lost, or executed again</h2><ul class="listed">{listed}</ul>' if listed else ""}
{"".join(map(step_table, report.records, ("failover", *NAMES_OF_LATER)))}
<div class="columns">
<section><h2>Numbers</h2>
<p class="soft">Counted from the lines that task bodies wrote when they ran, not from Airflow's states. RTO is the time
from the first check of the failover to the first task body in the new region; the failover itself ends later, when a
run has succeeded. RPO counts the runs that a single Airflow would have executed, and that no region executed. A run
that continued in the other region counts once.</p>
<table>{numbers}</table></section>
<section>{tables}
<h2>Steps of the drill</h2>
<table>{steps}</table></section>
</div>
<footer>Two real Airflows, each with its own PostgreSQL database and scheduler, and an emulated AWS, on one machine.
{escape(versions)}. Times are UTC.</footer>"""
    return html_document(f"Drill {report.scenario}: {report.verdict}", body)


def _summary(report: Report) -> Iterator[str]:
    """Yield sentences that describe what happened."""
    record, intervals = report.record, report.intervals
    for outage in report.outages:
        end = "and was not restored" if outage.until is None else f"and was restored at {outage.until:%H:%M:%S}"
        yield f"{outage.region} was {outage.how} at {outage.since:%H:%M:%S}, {end}."
    since_loss = ""
    first = [line.at for line in report.lines if line.region == record.target and line.at >= report.moves[1][0]]
    if report.outages and first:
        since_loss = f", {(min(first) - report.outages[0].since).total_seconds():.0f} s after the loss"
    yield (
        f"RTO: {record.target} executed its first task {report.rto_seconds:g} s after the failover started{since_loss}."
    )
    expected, executed, lost, again = (intervals[name] for name in ("expected", "executed", "lost", "duplicated"))
    yield (
        f"RPO: of {expected} expected runs, {'all' if executed == expected else executed} were executed, "
        f"{_number(lost)} {'was' if lost == 1 else 'were'} lost, and {_number(again)} "
        f"{'was' if again == 1 else 'were'} executed twice."
    )
    if report.went_on:
        yield f"{_number(len(report.went_on)).capitalize()} continued in the other region with the same run id."
    if report.attempts:
        yield (
            f"{len(report.attempts)} {'run was' if len(report.attempts) == 1 else 'runs were'} forced in a standby; "
            f"{_number(report.executed_in_standby)} of their task bodies executed."
        )


def _number(number: int) -> str:
    return "none" if number == 0 else str(number)


def _cards(report: Report) -> Iterator[str]:
    intervals, target = report.intervals, report.record.target
    yield card(f"{report.rto_seconds:g} s", f"RTO: from the start of the failover to the first task in {target}")
    yield card(f"{intervals['executed']} of {intervals['expected']}", "expected runs were executed")
    yield card(str(intervals["lost"]), "RPO: expected runs that were lost", good=intervals["lost"] == 0)
    without_reason = sum(not why for why in report.repeated.values())
    yield card(
        str(intervals["duplicated"]),
        "executed twice" + (", each for a valid reason" if intervals["duplicated"] and not without_reason else ""),
        good=None if intervals["duplicated"] and not without_reason else intervals["duplicated"] == 0,
    )
    yield card(str(len(report.went_on)), "continued in the other region")
    if report.pauses:
        yield card(f"{max(report.pauses):.1f} s", "the longest pause of scheduling")
    ran = report.executed_in_standby
    if not report.attempts:
        yield card(str(ran), "task bodies executed in a standby", good=ran == 0)
        return
    yield card(f"{ran} of {len(report.attempts)}", "runs forced in a standby executed", good=ran == 0)
