"""``mwaa-dr report``."""

from __future__ import annotations

import hashlib
from pathlib import Path

from airflow_provider_mwaa_dr.cli.console import json_text
from airflow_provider_mwaa_dr.cli.session import CliSession, CommandParsers
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.reporting.failover import current_report, find_record, report_document
from airflow_provider_mwaa_dr.core.reporting.failover_page import failover_page
from airflow_provider_mwaa_dr.exceptions import DRError


def add_command(commands: CommandParsers) -> None:
    """Add ``report``."""
    parser = commands.add(
        "report", run, summary="write a printable file about a failover, for an auditor, and print its SHA-256"
    )
    parser.add_argument("plan", metavar="PLAN", nargs="?", help="id of the failover; default: the newest one")
    parser.add_argument("--format", choices=("html", "json"), default="html", help="default: %(default)s")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="the file; default: failover-PLAN.html or .json in this folder"
    )


def run(session: CliSession) -> None:
    """Write the report, and print its path, its SHA-256 and its numbers."""
    args = session.args
    record = find_record(session.store, args.plan)
    if record.unreadable is not None:
        raise DRError(f"The record of failover {record.id} cannot be read: {record.unreadable}")
    report, why = current_report(session.store, session.runtime.make_runs(session.config), record, session.clock)
    if why:
        session.console.say(why)
    document = report_document(report)
    text = failover_page(report) if args.format == "html" else f"{json_text(document, indent=2)}\n"
    path: Path = args.output or Path(f"failover-{record.id.replace('/', '-')}.{args.format}")
    content = text.encode("utf-8", "backslashreplace")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise DRError(
            f"The report could not be written to {path}: {error.strerror}.", advice="Name a file with --output FILE."
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    numbers = {"rto_seconds": report.rto_s, "rpo_seconds": report.rpo_s, "runs": document["runs"]}
    lines = [
        str(path),
        f"SHA-256 {digest}",
        f"RTO {_seconds(report.rto_s)}, RPO {_seconds(report.rpo_s)}",
        *(f"Not known: {gap}" for gap in report.gaps),
    ]
    found = {"id": record.id, "file": str(path), "sha256": digest, **numbers}
    session.console.result(found, "\n".join(map(visible, lines)))


def _seconds(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds:g} s"
