"""``mwaa-dr pause`` and ``mwaa-dr unpause``."""

from __future__ import annotations

from airflow_provider_mwaa_dr.cli.session import CliSession, CommandParsers
from airflow_provider_mwaa_dr.core import pausing
from airflow_provider_mwaa_dr.core.display import counted, visible
from airflow_provider_mwaa_dr.core.pausing import Pausing


def add_commands(commands: CommandParsers) -> None:
    """Add ``pause`` and ``unpause``."""
    for name, handler, summary in (
        ("pause", pause, "pause all DAGs of REGION except exempt DAGs, and record which DAGs were unpaused"),
        ("unpause", unpause, "unpause exactly the DAGs that pause recorded"),
    ):
        parser = commands.add(name, handler, summary=summary, changes=True)
        parser.add_argument("region", metavar="REGION", help="region of the environment")


def pause(session: CliSession) -> None:
    """Pause a region."""
    session.begin_change()
    environment = session.environment(session.args.region)
    exempt = session.config.exempt_dags
    found = pausing.preview_pause(session.store, environment, exempt_dags=exempt)
    if found.changed and not session.args.dry_run:
        session.console.ask(_question("Pause", found, session), yes=session.args.yes)
        found = pausing.pause(
            session.store,
            environment,
            at=session.clock.now(),
            exempt_dags=exempt,
            preview=_current(found, session),
            on_progress=lambda done, total: session.console.say(f"... {done} of {total}"),
        )
    _report(session, found, "paused")


def unpause(session: CliSession) -> None:
    """Unpause the DAGs that ``pause`` recorded."""
    session.begin_change()
    environment = session.environment(session.args.region)
    found = pausing.preview_unpause(session.store, environment)
    if found.dag_ids and not session.args.dry_run:
        question = _question("Unpause", found, session)
        active = session.store.read().active_region
        if active != environment.region:
            question.append(f"{environment.region} is standby: its runs are skipped while {active} is active.")
        session.console.ask(question, yes=session.args.yes)
        found = pausing.unpause(
            session.store,
            environment,
            at=session.clock.now(),
            preview=_current(found, session),
            on_progress=lambda done, total: session.console.say(f"... {done} of {total}"),
        )
    _report(session, found, "unpaused")


def _current(found: Pausing, session: CliSession) -> Pausing | None:
    """Return the preview; None if the user was asked, because it may be stale after the user's answer."""
    return found if session.args.yes else None


def _question(verb: str, found: Pausing, session: CliSession) -> list[str]:
    return [
        f"{verb} {counted(len(found.changed), 'DAG')} in {session.args.region}:",
        *(f"  {dag_id}" for dag_id in found.changed),
    ]


def _report(session: CliSession, found: Pausing, done: str) -> None:
    region, dry_run = session.args.region, session.args.dry_run
    document = {"changed": bool(found.changed) and not dry_run, "dags": list(found.dag_ids)}
    if dry_run:
        document |= {"dry_run": True, "would_change": bool(found.changed)}
    text = f"{counted(len(found.changed), 'DAG')} {'would be ' if dry_run else ''}{done} in {region}."
    if not found.changed:
        text = f"Nothing had to change in {region}."
    if found.absent:
        text += f" Missing in the environment now, kept in the set: {', '.join(found.absent)}."
    session.console.result(document, visible(text))
