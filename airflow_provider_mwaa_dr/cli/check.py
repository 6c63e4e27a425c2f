"""``mwaa-dr check``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace

from airflow_provider_mwaa_dr.cli.console import NARROW
from airflow_provider_mwaa_dr.cli.session import CliSession, CommandParsers
from airflow_provider_mwaa_dr.core.display import counted, visible
from airflow_provider_mwaa_dr.core.documents import check_documents
from airflow_provider_mwaa_dr.core.ports import UNPUBLISHED_EVENTS
from airflow_provider_mwaa_dr.core.readiness.answer import answer
from airflow_provider_mwaa_dr.core.readiness.causes import findings
from airflow_provider_mwaa_dr.core.readiness.checks import NAMES
from airflow_provider_mwaa_dr.core.readiness.examination import Examination, examine
from airflow_provider_mwaa_dr.core.readiness.model import Verdict
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import ConfigError

NOT_READY = 3
"""Exit code if a check failed; the same as for a refused failover."""
_MARKS = {Verdict.OK: "ok", Verdict.WARN: "WARN", Verdict.FAIL: "FAIL"}
_NAME_WIDTH = max(map(len, NAMES))


def add_command(commands: CommandParsers) -> None:
    """Add ``check``."""
    parser = commands.add(
        "check", run, summary="say whether a failover is possible now and what it would cost, and what to correct first"
    )
    parser.add_argument(
        "--region", "--site", metavar="REGION", help="the region or site to fail over to; default: the standby"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="also show the checks that are ok")
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
    """Print whether a failover is possible, and the result of each check."""
    if session.args.acknowledge is not None:
        _acknowledge(session, session.args.acknowledge)
        return 0
    config, announced = session.config, set[str]()
    silence_s = Timing.from_config(config).agent_silence_s

    def on_wait(region: str) -> None:
        if region not in announced:
            announced.add(region)
            session.console.say(f"{region}: waiting for a heartbeat (at most {silence_s:.0f} s)")

    examination = examine(
        session.store,
        session.runtime.make_tables(config),
        session.environments(),
        session.clock,
        replace(config, accepted_differences=(*config.accepted_differences, *session.args.accept)),
        target=session.args.region,
        on_wait=on_wait,
    )
    text = "\n".join(_text(examination, min(session.console.columns or 100, 120), verbose=session.args.verbose))
    session.console.result(check_documents(examination.results), text)
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


def _text(examination: Examination, columns: int, *, verbose: bool) -> Iterator[str]:
    """Yield the answer, the findings with their advice, and the number of checks with each verdict."""
    yield textwrap.fill(visible(answer(examination.facts, examination.results)), columns, break_on_hyphens=False)
    yield ""
    is_narrow = columns < NARROW
    name_width = 0 if is_narrow else _NAME_WIDTH
    indent = " " * (2 if is_narrow else len("FAIL") + _NAME_WIDTH + 4)

    def filled(text: str, first: str, following: str = indent) -> str:
        return textwrap.fill(
            visible(text), columns, initial_indent=first, subsequent_indent=following, break_on_hyphens=False
        )

    for finding in findings(examination.facts, examination.results):
        if finding.verdict is Verdict.OK and not verbose:
            continue
        yield filled(finding.why, f"{_MARKS[finding.verdict]:<4}  {finding.name:<{name_width}}  ")
        if finding.advice:
            yield filled(finding.advice, f"{indent}-> ", f"{indent}   ")
        if finding.hides:
            which = f": {', '.join(finding.hides)}" if verbose else " (-v names them)"
            yield filled(f"{counted(len(finding.hides), 'check')} without an answer for this reason{which}.", indent)
    counts = ", ".join(f"{examination.count(verdict)} {verdict.value}" for verdict in Verdict)
    yield ""
    yield textwrap.fill(f"Checks: {counts}.{'' if verbose else ' With -v, also those that are ok.'}", columns)
