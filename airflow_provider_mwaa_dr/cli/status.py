"""``mwaa-dr status``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from airflow_provider_mwaa_dr.cli.console import UsageError
from airflow_provider_mwaa_dr.cli.parallel_queries import ParallelQueries
from airflow_provider_mwaa_dr.cli.runtime import Runtime
from airflow_provider_mwaa_dr.cli.session import CliSession, CommandParsers
from airflow_provider_mwaa_dr.cli.status_text import status_text
from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.display import visible, visible_document
from airflow_provider_mwaa_dr.core.documents import iso
from airflow_provider_mwaa_dr.core.sites import Site, Sites
from airflow_provider_mwaa_dr.core.state import DRState, why_unknown
from airflow_provider_mwaa_dr.core.status import WatchedAgent, read_regions, status_document
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError, UnreadableItem


def add_command(commands: CommandParsers) -> None:
    """Add ``status``."""
    parser = commands.add(
        "status", run, summary="show the active region, the open plan and the condition of each region"
    )
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=_interval,
        const=5.0,
        help="show it again every SECONDS (5 if none are given), until Ctrl-C",
    )


def _interval(text: str) -> float:
    """Return seconds, at least one. :raises ValueError: argparse then names the argument."""
    seconds = float(text)
    if not 1 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def run(session: CliSession) -> None:
    """Print the state, and for each region its role, its agents and the status of its environment."""
    if session.args.watch is None:
        session.console.result(*_status(session))
        return
    if session.args.json:
        raise UsageError(
            "--watch prints many states, and --json prints one document.",
            advice="Call mwaa-dr status --json again and again instead.",
        )
    with suppress(KeyboardInterrupt):
        while session.console.screen(_watched(session)):
            session.clock.sleep(session.args.watch)


def _watched(session: CliSession) -> str:
    """Return the state with its time. An error does not end the watch."""
    head = f"{iso(session.clock.now())}, every {session.args.watch:g} s, Ctrl-C ends it."
    try:
        return f"{head}\n\n{_status(session)[1]}"
    except DRError as error:
        return f"{head}\n\n{session.console.alarm(f'! {visible(error.message)}')}\n    {visible(error.advice)}"


def _status(session: CliSession) -> tuple[dict[str, Any], str]:
    """Return the status as a document and as text."""
    state = session.store.read()
    registered = session.store.regions()
    why = why_unknown(state, registered, region="REGION")
    names = _names(session, state, registered)
    asked = ParallelQueries(
        {site.id: partial(_environment_status, session.runtime, site) for site in names.all if site.environment},
        session.clock,
    )
    read = read_regions(session.store, session.clock, session.config, state=state, why=why, regions=names)
    regions = read.documents
    for region, answer in asked.collect().items():
        if isinstance(answer, DRError):
            session.console.say(f"{region}: {answer.message}")
        else:
            regions[region]["environment_status"] = answer
    unreadable = _unreadable(session, names)
    document = status_document(state, session.clock, why=why, regions=regions, unreadable=unreadable)
    lines: list[str] = []
    if session.config.eventual_mode is not None:
        document["eventual"], lines = _copies(session, session.config.eventual_mode)
    lines += _other_tables(read.agents, session.config.eventual_mode)
    more = [*map(visible, lines)]
    if unreadable:
        more += ["", f"{len(unreadable)} item{'' if len(unreadable) == 1 else 's'} cannot be read:"]
        for item in unreadable:
            more += [session.console.alarm(f"! {visible(str(item))}"), f"    {visible(item.advice)}"]
    # A line break in a reason must not look like a line of this command.
    shown, shown_names = visible_document(document), visible_document(dict(names))
    text = status_text(shown, shown_names, Timing.from_config(session.config), session.console)
    return document, "\n".join([text, *more])


def _unreadable(session: CliSession, names: Mapping[str, str]) -> Sequence[UnreadableItem] | None:
    """Return the items of the state table that cannot be read; None when the scan failed."""
    try:
        return session.store.unreadable(names)
    except DRError as error:
        session.console.say(f"The check for unreadable items failed: {error.message}")
        return None


def _copies(session: CliSession, mode: Eventual) -> tuple[dict[str, Any], list[str]]:
    """Return the state in each replica of the table, and the mode with its price, as a document and as text."""
    held = session.store.copies()
    copies = {
        region: {"epoch": state.epoch, "version": state.version} if (state := held.get(region)) is not None else None
        for region in session.config.replicas
    }
    shown = ", ".join(
        f"{region} has epoch {copy['epoch']}, version {copy['version']}" if copy else f"{region} does not answer"
        for region, copy in copies.items()
    )
    lines = ["", f"Eventual consistency, {mode.value}: {mode.price}.", f"Replicas of the state table: {shown}."]
    return {"mode": mode.value, "copies": copies}, lines


def _other_tables(watched: Mapping[str, Sequence[WatchedAgent]], mode: Eventual | None) -> list[str]:
    """Return a line for each region whose agents are configured for another kind of table than this command."""
    mine = mode.value if mode is not None else None
    return [
        f"WARNING: an agent of {region} treats the state table as a table with {_kind(each.agent.eventual)}, this "
        f"command as a table with {_kind(mine)}. Set [dr] table_consistency and eventual to the same values."
        for region, found in watched.items()
        for each in found[:1]
        if (each.agent.eventual is None) != (mine is None)
    ]


def _kind(mode: str | None) -> str:
    return "strong consistency" if mode is None else f"eventual consistency ({mode})"


def _names(session: CliSession, state: DRState, registered: Collection[str]) -> Sites:
    """Return the sites; status also works if no environment is known."""
    try:
        sites = session.names
    except ConfigError:
        sites = Sites()
    active = state.active_region
    # Before an agent or init has registered a site, only the state names one.
    if active not in sites and (not registered or active in registered):
        sites = Sites([*sites.all, Site(id=active, environment="", aws_region=active)])
    return sites.sorted()


def _environment_status(runtime: Runtime, site: Site) -> str:
    return runtime.make_environment(site).status().value
