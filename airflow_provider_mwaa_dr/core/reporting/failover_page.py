"""The report of any failover as an HTML page: one file without scripts, which can be printed."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from airflow_provider_mwaa_dr.core.display import counted, visible
from airflow_provider_mwaa_dr.core.ports import FailoverOutcome
from airflow_provider_mwaa_dr.core.readiness.refusals import REFUSALS
from airflow_provider_mwaa_dr.core.reporting.failover import FailoverReport
from airflow_provider_mwaa_dr.core.reporting.figure import Figure
from airflow_provider_mwaa_dr.core.reporting.page import card, html_document, step_table
from airflow_provider_mwaa_dr.core.reporting.run_outcome import RunOutcome
from airflow_provider_mwaa_dr.core.reporting.timeline import timeline

NOT_MEASURABLE = "not measurable"
_TEXTS = {
    RunOutcome.ONCE: "ended in this region",
    RunOutcome.WENT_ON: "taken over from the other region",
    RunOutcome.INTERRUPTED: "interrupted in this region",
    RunOutcome.UNFINISHED: "not ended when the data were read",
}
_MOST_LISTED = 100


def failover_page(report: FailoverReport) -> str:
    """Return the report as HTML."""
    record = report.record
    is_complete = record.outcome is FailoverOutcome.COMPLETED
    request = _table(
        ("plan", record.id),
        ("requested by", record.by),
        ("reason", record.reason),
        ("from, to", f"{record.source}, {record.target}"),
        ("carried out", record.mode.value),
        ("claimed at", f"{record.started_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("ended at", f"{record.finished_at:%Y-%m-%d %H:%M:%S} UTC" if record.finished_at else "open"),
        ("epoch", str(record.epoch)),
    )
    versions = _table(
        *(
            (region, f"Airflow {known.get('airflow') or 'unknown'}, provider {known.get('provider') or 'unknown'}")
            for region, known in report.versions.items()
        )
    )
    lists = (
        ("Runs that were resumed", report.resumed),
        ("Interrupted runs that wait", report.waiting),
        ("DAGs that were not unpaused", record.not_unpaused),
        ("Runs that ended in the standby, and that no region continues", record.ended_in_standby),
        ("What the report does not know", report.gaps),
    )
    body = f"""<header>
<p class="verdict {"pass" if is_complete else "fail"}">{escape(record.outcome.value)}</p>
<div><h1>Failover {escape(visible(record.source))} to {escape(visible(record.target))}</h1>
<p class="soft">{record.started_at:%Y-%m-%d %H:%M} UTC, requested by {escape(visible(record.by))}:
{escape(visible(record.reason))}</p></div>
</header>
<p class="summary">{escape(" ".join(_summary(report)))}</p>
<div class="cards">{"".join(_cards(report))}</div>
<h2>Runs in each region</h2>
<p class="soft">As the regions published them in the ledger. A run that has not ended begins when its region
published it, some seconds after its start.</p>
{_figure(report)}
<div class="columns">
<section><h2>Request</h2>{request}</section>
<section><h2>Checks before the failover</h2>
<p>{escape(visible(report.checks)) or "The record has no checks."}</p>
<p class="soft">The engine refuses a failover if one of these fails in the target:
{escape(", ".join(refusal.name for refusal in REFUSALS))}.</p>
<h2>Versions</h2>{versions}</section>
</div>
{step_table(record, "failover")}
{"".join(_listed(title, found) for title, found in lists if found)}
<h2>How the numbers are measured</h2>
<p>RTO is the time from the first check to the start of the first run in the new region, by the ledger. RPO is the last
time before the promotion in which the old region published nothing; it is 0 if its ledger was complete. Runs that
executed twice are {NOT_MEASURABLE}: only what task bodies do shows it, and a drill counts it.</p>
<footer>The data were read at {report.taken_at:%Y-%m-%d %H:%M:%S} UTC. Times are UTC.</footer>"""
    title = f"Failover {visible(record.id)}: {record.outcome.value}"
    return html_document(title, body)


def _summary(report: FailoverReport) -> Iterator[str]:
    record = report.record
    if report.rto_s is not None:
        yield f"RTO: the first run in {record.target} started {report.rto_s:g} s after the failover began."
    else:
        yield "RTO: not known, because the ledger shows no run in the new region."
    if report.rpo_s == 0:
        yield f"RPO: 0 s. {record.source} had published every run."
    elif report.rpo_s is not None:
        yield f"RPO: {report.rpo_s:g} s. Runs that ended in {record.source} in this time may run again."
    else:
        yield "RPO: not known."
    yield (
        f"{counted(report.kept, 'run')} ended in {record.source} during the failover and {_was(report.kept)} kept, "
        f"{counted(len(report.resumed), 'run')} {_was(len(report.resumed))} resumed, and "
        f"{counted(len(report.waiting), 'run')} {'waits' if len(report.waiting) == 1 else 'wait'}."
    )


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _cards(report: FailoverReport) -> Iterator[str]:
    yield card(_seconds(report.rto_s), f"RTO: until the first run in {report.record.target}")
    yield card(_seconds(report.rpo_s), "RPO: not published before the promotion")
    yield card(str(report.kept), "runs kept: ended during the failover")
    yield card(str(len(report.resumed)), "runs resumed")
    yield card(str(len(report.waiting)), "runs waiting", good=not report.waiting)
    yield card("-", f"runs that executed twice: {NOT_MEASURABLE}")


def _seconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:g} s"


def _figure(report: FailoverReport) -> str:
    if not report.bars:
        return "<p>The ledger shows no run of this time.</p>"
    record = report.record
    first = min(report.began_at, *(bar.begin for bar in report.bars))
    moves = [(first, record.source)]
    if report.promoted_at is not None:
        moves.append((report.promoted_at, record.target))
    return timeline(Figure(bars=report.bars, records=(record,), moves=moves), texts=_TEXTS)


def _table(*rows: tuple[str, str]) -> str:
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(visible(value))}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>" if rows else "<p>Not known.</p>"


def _listed(title: str, found: tuple[str, ...]) -> str:
    lines = "".join(f"<li>{escape(visible(each))}</li>" for each in found[:_MOST_LISTED])
    more = f"<li>and {len(found) - _MOST_LISTED} more</li>" if len(found) > _MOST_LISTED else ""
    return f'<h2>{escape(title)}</h2><ul class="listed">{lines}{more}</ul>'
