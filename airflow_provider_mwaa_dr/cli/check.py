"""``mwaa-dr check``."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import replace

from airflow_provider_mwaa_dr.cli.session import CliSession, CommandParsers
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.documents import check_documents
from airflow_provider_mwaa_dr.core.ports import UNPUBLISHED_EVENTS
from airflow_provider_mwaa_dr.core.readiness.checks import NAMES
from airflow_provider_mwaa_dr.core.readiness.examination import Examination, examine
from airflow_provider_mwaa_dr.core.readiness.model import Verdict
from airflow_provider_mwaa_dr.exceptions import ConfigError

NOT_READY = 3
"""Exit code if a check failed; the same as for a refused failover."""
_MARKS = {Verdict.OK: "ok", Verdict.WARN: "WARN", Verdict.FAIL: "FAIL"}
_NAME_WIDTH = max(map(len, NAMES))


def add_command(commands: CommandParsers) -> None:
    """Add ``check``."""
    parser = commands.add(
        "check", run, summary="check whether a failover would succeed, and print what to correct if it would not"
    )
    parser.add_argument("--region", metavar="REGION", help="the region to fail over to; default: the standby region")
    parser.add_argument(
        "--acknowledge",
        metavar="ID",
        help="acknowledge the report, shown by mwaa-dr status, of a region that became active without its ledger; run "
        "no checks",
    )
    parser.add_argument(
        "--accept",
        metavar="CHECK[:NAME]",
        action="append",
        default=[],
        help="accept this difference between the regions, in addition to DR_ACCEPTED_DIFFERENCES; can be given "
        "several times",
    )


def run(session: CliSession) -> int:
    """Print the result of each check."""
    if session.args.acknowledge is not None:
        _acknowledge(session, session.args.acknowledge)
        return 0
    config, announced = session.config, set[str]()

    def on_wait(region: str) -> None:
        if region not in announced:
            announced.add(region)
            session.console.say(f"{region}: waiting for a heartbeat")

    examination = examine(
        session.store,
        session.runtime.make_tables(config),
        session.environments(),
        session.clock,
        replace(config, accepted_differences=(*config.accepted_differences, *session.args.accept)),
        target=session.args.region,
        on_wait=on_wait,
    )
    columns = min(max(shutil.get_terminal_size((100, 0)).columns, 60), 120)
    session.console.result(check_documents(examination.results), "\n".join(_text(examination, columns)))
    return NOT_READY if examination.count(Verdict.FAIL) else 0


def _acknowledge(session: CliSession, unpublished_id: str) -> None:
    """
    Record that a user has acknowledged the report with this id. Idempotent; needs no confirmation.

    :raises ConfigError: no region has stored a report with this id.
    """
    stored = [found for region in session.names if (found := session.store.get(UNPUBLISHED_EVENTS, region)) is not None]
    found = next((each for each in stored if each.id == unpublished_id), None)
    changes = found is not None and found.acknowledged_at is None
    if found is None or (
        changes and not session.store.acknowledge_unpublished(found.region, unpublished_id, session.clock.now())
    ):
        raise ConfigError(
            f"There is no report {unpublished_id!r} to acknowledge. Stored reports: "
            f"{', '.join(each.id for each in stored) or 'none'}.",
            option="acknowledge",
            advice="mwaa-dr status shows the id.",
        )
    text = f"{unpublished_id} is acknowledged." if changes else f"{unpublished_id} was acknowledged already."
    session.console.result({"acknowledged": unpublished_id, "changed": changes}, text)


def _text(examination: Examination, columns: int) -> Iterator[str]:
    indent = " " * (len("FAIL") + _NAME_WIDTH + 4)
    for result in examination.results:
        head = f"{_MARKS[result.verdict]:<4}  {result.name:<{_NAME_WIDTH}}  "
        yield textwrap.fill(
            visible(result.why), columns, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False
        )
        if result.advice:
            yield textwrap.fill(
                visible(result.advice),
                columns,
                initial_indent=f"{indent}-> ",
                subsequent_indent=f"{indent}   ",
                break_on_hyphens=False,
            )
    counts = ", ".join(f"{examination.count(verdict)} {verdict.value}" for verdict in Verdict)
    is_ready = not examination.count(Verdict.FAIL)
    yield ""
    yield (
        f"{examination.target} {'can' if is_ready else 'is not ready to'} take over from {examination.source} "
        f"({counts})."
    )
