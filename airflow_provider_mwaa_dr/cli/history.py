"""``mwaa-dr history``."""

from __future__ import annotations

from airflow_provider_mwaa_dr.cli.console import table
from airflow_provider_mwaa_dr.cli.session import CliSession, CommandParsers
from airflow_provider_mwaa_dr.core.display import visible, visible_document
from airflow_provider_mwaa_dr.core.documents import iso, record_document
from airflow_provider_mwaa_dr.core.ports import RECORDS


def add_command(commands: CommandParsers) -> None:
    """Add ``history``."""
    commands.add("history", run, summary="list what failovers did, newest first")


def run(session: CliSession) -> None:
    """Print the records."""
    records = session.store.find_all(RECORDS)
    rows = [("STARTED", "FROM", "TO", "MODE", "OUTCOME", "EPOCH", "SECONDS", "BY", "REASON")]
    for record in records:
        took = (record.finished_at - record.started_at).total_seconds() if record.finished_at else None
        rows.append(
            (
                iso(record.started_at),
                record.source,
                record.target,
                record.mode.value if record.unreadable is None else "?",
                record.outcome.value,
                str(record.epoch),
                f"{took:.0f}" if took is not None else "-",
                record.by,
                record.reason,
            )
        )
    text = table(visible_document(rows), session.console.columns) if records else "No failover has been recorded."
    unreadable = [record.unreadable for record in records if record.unreadable is not None]
    if unreadable:
        lines = [session.console.alarm(f"! {visible(str(item))}") for item in unreadable]
        text = "\n".join([text, "", *lines, f"    {visible(unreadable[0].advice)}"])
    session.console.result([record_document(record) for record in records], text)
