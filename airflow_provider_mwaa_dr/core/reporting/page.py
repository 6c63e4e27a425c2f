"""The parts of a page about a failover: one file without scripts, which can be printed."""

from __future__ import annotations

from html import escape
from pathlib import Path

from airflow_provider_mwaa_dr.core.ports import FailoverRecord

_STYLE = Path(__file__).parent / "page.css"


def html_document(title: str, body: str) -> str:
    """Return a complete page."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE.read_text(encoding="utf-8")}</style></head><body>
{body}
</body></html>
"""


def card(value: str, name: str, *, good: bool | None = None) -> str:
    """Return a box with a value and what it is; green if it is *good*, red if it is not."""
    kind = {True: " good", False: " bad", None: ""}[good]
    return f'<div class="card{kind}"><b>{escape(value)}</b><span>{escape(name)}</span></div>'


def step_table(record: FailoverRecord, name: str) -> str:
    """Return the steps of a failover, each with a bar for its time."""
    whole_s = sum(step.seconds for step in record.steps) or 1.0
    rows, before_s = [], 0.0
    for step in record.steps:
        left, width = 100 * before_s / whole_s, max(100 * step.seconds / whole_s, 0.6)
        bar = f'<svg class="gantt"><rect x="{min(left, 99.4):.1f}%" y="4" width="{width:.1f}%" height="9"/></svg>'
        rows.append(
            f'<tr><td>{escape(step.name)}</td><td class="number">{step.seconds:.1f} s</td><td class="bar">{bar}</td>'
            f"<td>{escape(step.detail)}</td></tr>"
        )
        before_s += step.seconds
    return (
        f"<h2>The {name}, step by step</h2>"
        f'<p class="soft">{escape(record.source)} to {escape(record.target)}, {record.mode.value}, {_times(record)}. '
        f"Plan {escape(record.id)}, {escape(record.outcome.value)}.</p>"
        f'<table class="steps">{"".join(rows)}</table>'
    )


def _times(record: FailoverRecord) -> str:
    claimed = f"claimed at {record.started_at:%H:%M:%S}"
    return claimed if record.finished_at is None else f"{claimed}, complete at {record.finished_at:%H:%M:%S}"
