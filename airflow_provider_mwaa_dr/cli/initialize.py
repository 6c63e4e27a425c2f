"""``mwaa-dr init``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from airflow_provider_mwaa_dr.cli.parallel_queries import ParallelQueries
from airflow_provider_mwaa_dr.cli.runtime import Runtime
from airflow_provider_mwaa_dr.cli.session import CliSession, CommandParsers
from airflow_provider_mwaa_dr.core.display import counted
from airflow_provider_mwaa_dr.core.initialization import (
    Initialization,
    initialize,
    plan_above_every_epoch,
    plan_initialization,
)
from airflow_provider_mwaa_dr.core.ports import RunInfo
from airflow_provider_mwaa_dr.core.sites import EXAMPLES, Site, Sites
from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError, TableNotFoundError


def add_command(commands: CommandParsers) -> None:
    """Add ``init``."""
    parser = commands.add(
        "init", run, summary="write the state item and the registry of environments; can be repeated", changes=True
    )
    parser.add_argument(
        "--active",
        metavar="REGION",
        help="the region that is active now; required the first time, refused if another region is active",
    )
    parser.add_argument(
        "--above-every-epoch",
        action="store_true",
        help="write a new state item that is newer than all that agents, records and the ledger know: for one that was "
        "restored from a backup or changed by hand",
    )


def run(session: CliSession) -> None:
    """Print the effect on runs that are open in the standby region, then write the missing items."""
    session.begin_change()
    args, config, console = session.args, session.config, session.console
    if not config.environments:
        raise ConfigError(
            "The environments of the DR set are not named.",
            option="environments",
            advice=f"Set DR_ENVIRONMENTS, for example {EXAMPLES}.",
        )
    if args.above_every_epoch and args.active is None:
        raise ConfigError(
            "--above-every-epoch makes a region active, and no region was given.",
            option="active_region",
            advice="Give the region that is to be active: --active "
            f"{' or --active '.join(sorted(config.environments))}.",
        )
    try:
        plan = _plan(session)
    except TableNotFoundError as error:
        region = config.replicas[0]
        error.advice = (
            f"Create it: aws dynamodb create-table --table-name {config.state_table} --region {region} "
            "--attribute-definitions AttributeName=state_id,AttributeType=S "
            "--key-schema AttributeName=state_id,KeyType=HASH --billing-mode PAY_PER_REQUEST."
        )
        raise
    if plan.changes_something:
        lines = list(_what_it_means(session, plan))
        if args.dry_run:
            for line in lines:
                console.say(line)
        else:
            console.ask(lines, yes=args.yes)
            initialize(session.store, plan)
    document = {
        "changed": plan.changes_something and not args.dry_run,
        "active_region": plan.state.active_region,
        "epoch": plan.state.epoch,
        "version": plan.state.version,
        "environments": dict(session.names) if not args.dry_run else dict(config.environments),
    }
    if args.dry_run:
        document |= {"dry_run": True, "would_change": plan.changes_something}
    verb = "Would write" if args.dry_run else "Wrote"
    outcome = f"{verb} it" if plan.changes_something else "Nothing had to change"
    console.result(document, f"{outcome}: {plan.state.active_region} is active, epoch {plan.state.epoch}.")


def _plan(session: CliSession) -> Initialization:
    args, config = session.args, session.config
    if args.above_every_epoch:
        return plan_above_every_epoch(
            session.store,
            session.runtime.make_runs(config),
            active_region=args.active,
            environments=config.environments,
            lease_s=config.lease_s,
            by=session.who,
            at=session.clock.now(),
        )
    return plan_initialization(
        session.store,
        active_region=args.active,
        environments=config.environments,
        lease_s=config.lease_s,
        by=session.who,
        at=session.clock.now(),
    )


def _what_it_replaces(plan: Initialization) -> Iterator[str]:
    """Yield the effect on the stored state item, and on the regions that use it."""
    found, active = plan.found, plan.state.active_region
    if plan.why_unreadable is not None:
        yield f"It replaces the state item. {plan.why_unreadable}"
    if found is not None:
        open_plan = f", with a failover in progress ({found.phase.value}), which is dropped" if found.plan else ""
        yield f"It replaces epoch {found.epoch}, version {found.version}, active {found.active_region!r}{open_plan}."
    yield (
        f"Unfinished runs of every region count as interrupted. With a runs table, {active} resumes them. Without one, "
        "they are closed."
    )
    yield (
        f"The command does not wait for a lease. Make sure that only {active} executes: mwaa-dr status shows which "
        "regions hold."
    )


def _what_it_means(session: CliSession, plan: Initialization) -> Iterator[str]:
    if plan.is_new:
        state = plan.state
        yield f"State item: {state.active_region} is active, epoch {state.epoch}, lease {state.lease_s:g} s."
        if mode := session.config.eventual_mode:
            yield f"The state table is expected to have eventual consistency, {mode.value}: {mode.price}."
        elif len(session.config.replicas) > 1:
            yield "The state table is expected to have strong consistency. If it does not, set DR_TABLE_CONSISTENCY."
    if session.args.above_every_epoch:
        yield from _what_it_replaces(plan)
    for registration in plan.registrations:
        yield f"Registry: {registration.region} is environment {registration.environment}."
        if replaced := plan.replaced.get(registration.region):
            yield f"  It replaces {replaced}, which holds every run from then on."
    if plan.listing:
        yield (
            f"Registered regions: {', '.join(sorted(plan.regions))}; the list is written for {', '.join(plan.listing)}."
        )
    if plan.is_new:
        yield from what_closes(session.runtime, session.config.environments, plan.state.active_region)


def what_closes(runtime: Runtime, environments: Mapping[str, str], active_region: str) -> Iterator[str]:
    """Yield the effect of a first state on the open runs of the regions that become standby."""
    standby = {
        site.id: partial(_running_runs, runtime, site)
        for site in Sites.of(environments).all
        if site.id != active_region
    }
    for region, runs in sorted(ParallelQueries(standby, runtime.clock).collect().items()):
        yield (
            f"{region} becomes standby: where the plugin is enabled, it closes the open runs and writes a note on each."
        )
        if isinstance(runs, DRError):
            yield f"  The open runs could not be read: {runs.message}"
        else:
            yield f"  Open now: {counted(len(runs), 'run')}" + (":" if runs else ".")
            yield from (f"  {run}" for run in runs)


def _running_runs(runtime: Runtime, site: Site) -> Sequence[RunInfo]:
    return runtime.make_environment(site).running_runs()
