"""``mwaa-dr deploy`` and ``mwaa-dr undeploy``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.cli.console import json_text
from airflow_provider_mwaa_dr.cli.initialize import what_closes
from airflow_provider_mwaa_dr.cli.runtime import read_config
from airflow_provider_mwaa_dr.cli.session import CliSession, CommandParsers
from airflow_provider_mwaa_dr.core.config import DRConfig, TableConsistency
from airflow_provider_mwaa_dr.core.documents import iso
from airflow_provider_mwaa_dr.core.ports import StateStore
from airflow_provider_mwaa_dr.core.sites import EXAMPLES
from airflow_provider_mwaa_dr.exceptions import ConfigError, RefusedError

if TYPE_CHECKING:
    import argparse

    from airflow_provider_mwaa_dr.aws.deploy.deployment import Deployment
    from airflow_provider_mwaa_dr.aws.deploy.deployment_step import DeploymentStep, DeploySpec
    from airflow_provider_mwaa_dr.aws.mwaa.control_plane import DeployedEnvironment

STATE_TABLE, RUNS_TABLE, STACK = "mwaa-dr-state", "mwaa-dr-runs", "mwaa-dr"
"""Default names, if neither the settings nor the environments have others."""


def add_commands(commands: CommandParsers) -> None:
    """Add ``deploy`` and ``undeploy``."""
    parser = commands.add(
        "deploy",
        deploy,
        summary="create tables and IAM policies, and install package and options in two existing MWAA environments; "
        "can be repeated",
        changes=True,
    )
    parser.add_argument("--active", metavar="REGION", help="the region that is active now; required the first time")
    parser.add_argument(
        "--wheel",
        type=Path,
        metavar="FILE",
        help="install the package from this wheel, in plugins.zip; default: from the package index, in "
        "requirements.txt",
    )
    parser.add_argument(
        "--dags", action="store_true", help="also copy dr_failover and dr_test_dag into the DAGs folders"
    )
    parser.add_argument(
        "--both-at-once",
        action="store_true",
        help="update both environments now; default: first the standby, and the active environment after an agent and "
        "a worker of the standby have shown that the package works there",
    )
    parser.add_argument(
        "--proof-minutes",
        type=float,
        default=15.0,
        metavar="N",
        help="minutes within which the updated standby must show that it works; default: 15",
    )
    parser.add_argument(
        "--no-policies",
        action="store_true",
        help="create no IAM policies; for execution roles that have the permissions already",
    )
    agents = parser.add_mutually_exclusive_group()
    agents.add_argument(
        "--agents-may-write-back",
        action="store_true",
        help="allow the execution roles to write the whole state item; with an eventually consistent table, an agent "
        "can then write back a newer epoch that was overwritten, and DAG code can move the active role",
    )
    agents.add_argument(
        "--agents-only-read",
        action="store_true",
        help="do not allow the execution roles to write the state item; a failover whose caller stopped then waits "
        "for another caller",
    )
    parser.add_argument(
        "--alarms", action="store_true", help="create CloudWatch alarms on the agents' metrics, in each region"
    )
    parser.add_argument(
        "--alarm-topic",
        action="append",
        default=[],
        metavar="ARN",
        help="SNS topic that the alarms of its region notify; once for each region, with --alarms",
    )
    prints = parser.add_mutually_exclusive_group()
    prints.add_argument(
        "--print-policies", action="store_true", help="print the IAM policies by purpose, as JSON; change nothing"
    )
    prints.add_argument(
        "--print-template",
        action="store_true",
        help="print the CloudFormation template, or with --alarms the template of the alarms; change nothing",
    )
    _add_common(parser)
    parser = commands.add(
        "undeploy",
        undeploy,
        summary="remove package, options and IAM policies from the environments; keep the data",
        changes=True,
    )
    parser.add_argument(
        "--delete-data", action="store_true", help="delete the tables that deploy created, with all their data"
    )
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait", action="store_true", help="wait until all environments are updated, 20 to 30 minutes each"
    )
    parser.add_argument(
        "--worker-replacement",
        choices=("forced", "graceful"),
        help="forced: the update stops running tasks; graceful: it waits for them, up to 12 hours; default: none is "
        "requested, and MWAA decides",
    )
    parser.add_argument("--stack", metavar="NAME", default=STACK, help=f"CloudFormation stack; default: {STACK}")
    parser.add_argument(
        "--build-on",
        choices=("in-use", "latest"),
        help="version of a file to change, if the bucket has a newer version than the environment uses",
    )


def deploy(session: CliSession) -> None:
    """Plan, show, ask, and carry out."""
    args = session.args
    if args.print_template:
        from airflow_provider_mwaa_dr.aws.deploy.template import alarms_template, template  # noqa: PLC0415

        text = alarms_template() if args.alarms else template()
        session.console.result({"template": text}, text.rstrip("\n"))
        return
    if not args.print_policies:
        session.begin_change()
    deployment = _deployment(session)
    environments = deployment.describe(wait=args.wait and not (args.dry_run or args.print_policies))
    config = _config(session, environments)
    spec = _spec(session, config)
    if args.print_policies:
        _print_policies(session, environments, spec)
        return
    steps = deployment.plan(spec, environments)
    notes: list[str] = []
    if spec.active and any(step.name == "state" and "first state" in step.detail for step in steps):
        notes += what_closes(session.runtime, config.environments, spec.active)
    if any(step.name.startswith("update ") and step.act for step in steps):
        notes.append("MWAA rebuilds an environment to update it: 20 to 30 minutes. Its tasks may be interrupted.")
    _carry_out(session, steps, notes, next_step=_next_step(steps, waits=args.wait))


def _next_step(steps: Sequence[DeploymentStep], *, waits: bool) -> str:
    """Return what the user does after a deployment."""
    if not waits and any(step.name.startswith("update ") and step.act for step in steps):
        return "When both environments are AVAILABLE, run mwaa-dr status, and then mwaa-dr check."
    return "Run mwaa-dr check: it tells whether a failover would succeed."


def undeploy(session: CliSession) -> None:
    """Plan, show, ask, ask again for the data, and carry out."""
    args = session.args
    session.begin_change()
    deployment = _deployment(session)
    environments = deployment.describe(wait=args.wait and not args.dry_run)
    spec = _spec(session, _config(session, environments))
    steps = deployment.withdraw(spec, environments, delete_data=args.delete_data)
    stack = steps[-1]
    notes = []
    if any(step.name.startswith("update ") and step.act for step in steps):
        notes.append("From then on, every DAG that is unpaused in the standby region runs there, too.")
    _carry_out(
        session,
        steps,
        notes,
        last_question=[line for line in stack.lines if "DATA" in line] if stack.act else (),
    )


def _deployment(session: CliSession) -> Deployment:
    from airflow_provider_mwaa_dr.aws.deploy.deployment import Deployment  # noqa: PLC0415
    from airflow_provider_mwaa_dr.aws.service import Aws  # noqa: PLC0415

    runtime = session.runtime

    def make_store(table: str, regions: Sequence[str], is_eventual: bool) -> StateStore:
        config = replace(
            _any_config(session),
            state_table=table,
            state_table_region=regions[0],
            state_table_replicas=tuple(regions),
            table_consistency=TableConsistency.EVENTUAL if is_eventual else TableConsistency.STRONG,
        )
        return runtime.make_store(config)

    def say(text: str) -> None:
        session.console.say(f"{iso(session.clock.now())}  ... {text}")

    environments = _any_config(session).environments
    if not environments:
        raise ConfigError(
            "The environments of the DR set are not named.",
            option="environments",
            advice=f"Set DR_ENVIRONMENTS, for example {EXAMPLES}.",
        )
    return Deployment(
        Aws(session.clock, runtime.boto3_session),
        environments,
        make_store=make_store,
        make_environment=runtime.make_environment,
        try_requirements=partial(runtime.try_requirements, runtime.environ),
        say=say,
    )


def _any_config(session: CliSession) -> DRConfig:
    """Return the settings that exist already. The names of the tables may still be the defaults."""
    return read_config(
        session.runtime.environ,
        table=session.args.table or session.runtime.environ.get("DR_STATE_TABLE") or STATE_TABLE,
        table_region=session.args.table_region or session.runtime.environ.get("DR_STATE_TABLE_REGION") or "us-east-1",
    )


def _config(session: CliSession, environments: Mapping[str, DeployedEnvironment]) -> DRConfig:
    """Return the settings. Missing settings come from the environments' options, such as those of the AWS sample."""
    config = _any_config(session)
    environ = session.runtime.environ
    named = session.args.table or environ.get("DR_STATE_TABLE")
    return replace(
        config,
        state_table=named or _found(environments, "dr.state_table") or STATE_TABLE,
        notification_topic=config.notification_topic or _found(environments, "dr.notification_topic"),
        notification_bus=config.notification_bus or _found(environments, "dr.notification_bus"),
        runs_table=config.runs_table or _found(environments, "dr.runs_table") or RUNS_TABLE,
        state_table_region=session.args.table_region or environ.get("DR_STATE_TABLE_REGION") or "",
    )


def _found(environments: Mapping[str, DeployedEnvironment], option: str) -> str:
    return next(
        (environment.options[option] for environment in environments.values() if environment.options.get(option)), ""
    )


def _spec(session: CliSession, config: DRConfig) -> DeploySpec:
    from airflow_provider_mwaa_dr.aws.deploy.deployment_step import DeploySpec  # noqa: PLC0415
    from airflow_provider_mwaa_dr.aws.deploy.merged_file import BuildOn  # noqa: PLC0415
    from airflow_provider_mwaa_dr.aws.deploy.plugins_archive import Wheel  # noqa: PLC0415

    args = session.args
    wheel = getattr(args, "wheel", None)
    return DeploySpec(
        state_table=config.state_table,
        runs_table=config.runs_table,
        version=__version__,
        stack=args.stack,
        active=getattr(args, "active", None),
        home=config.state_table_region if config.state_table_region in config.sites.aws_regions else "",
        lease_s=config.lease_s,
        by=session.who,
        wheel=Wheel.read(wheel) if wheel else None,
        with_dags=getattr(args, "dags", False),
        with_policies=not getattr(args, "no_policies", False),
        agents_may_finish=not getattr(args, "agents_only_read", False),
        agents_may_write_back=getattr(args, "agents_may_write_back", False),
        build_on=BuildOn(args.build_on) if args.build_on else None,
        with_alarms=getattr(args, "alarms", False),
        alarm_topics=_topics(args, config),
        notification_topic=config.notification_topic,
        notification_bus=config.notification_bus,
        wait=args.wait,
        both_at_once=getattr(args, "both_at_once", False),
        proof_s=60 * getattr(args, "proof_minutes", 15.0),
        worker_replacement=(args.worker_replacement or "").upper(),
    )


def _topics(args: argparse.Namespace, config: DRConfig) -> dict[str, str]:
    """Return the given topics by region. :raises ConfigError: one of them cannot be used."""
    topics: dict[str, str] = {}
    for arn in getattr(args, "alarm_topic", ()):
        _, _, service, region, *_ = [*str(arn).split(":"), "", "", ""]
        if service != "sns" or region not in config.sites.aws_regions or region in topics or not args.alarms:
            raise ConfigError(
                f"{arn!r} cannot be used as an alarm topic.",
                option="alarm_topic",
                advice="With --alarms, give the ARN of at most one SNS topic in each of "
                f"{' and '.join(config.sites.aws_regions)}: an alarm notifies a topic in its own region only.",
            )
        topics[region] = arn
    return topics


def _carry_out(
    session: CliSession,
    steps: Sequence[DeploymentStep],
    notes: Iterable[str],
    *,
    last_question: Sequence[str] = (),
    next_step: str = "",
) -> None:
    args, console = session.args, session.console
    would_change = any(step.changes for step in steps)
    lines = [*_shown(steps), *notes]
    if args.dry_run:
        for line in lines:
            console.say(line)
        document = {
            "dry_run": True,
            "would_change": would_change,
            "steps": [
                {"name": step.name, "changed": False, "would_change": step.changes, "detail": step.detail}
                for step in steps
            ],
        }
        console.result(document, "Would change what is listed above." if would_change else "Nothing would change.")
        return
    if would_change:
        console.ask(lines, yes=args.yes)
        if last_question:
            _ask_for_data(session, last_question)
    else:
        for line in lines:
            console.say(line)
    done = [_act(session, step) for step in steps]
    count = sum(row["changed"] for row in done)
    text = f"{count} of {len(done)} steps changed something." if count else "Nothing had to change."
    console.result({"steps": done, "next": next_step or None}, f"{text} {next_step}".rstrip())


def _ask_for_data(session: CliSession, lines: Sequence[str]) -> None:
    try:
        session.console.ask(["This cannot be undone:", *lines], yes=session.args.yes)
    except RefusedError as error:
        error.advice = "Without --delete-data, undeploy keeps the tables."
        raise


def _shown(steps: Sequence[DeploymentStep]) -> Iterable[str]:
    for step in steps:
        mark = "will" if step.act is not None else "ok  "
        yield f"{mark} {step.name:<24} {step.detail}"
        yield from (f"     {'':<24} {line}" for line in step.lines)


def _act(session: CliSession, step: DeploymentStep) -> dict[str, Any]:
    if step.act is None:
        return {"name": step.name, "changed": False, "detail": step.detail}
    began = session.clock.monotonic()
    detail = step.act()
    seconds = session.clock.monotonic() - began
    session.console.say(f"{iso(session.clock.now())}  ok  {step.name:<24} {seconds:6.1f} s  {detail}")
    return {"name": step.name, "changed": step.changes, "detail": detail}


def _print_policies(session: CliSession, environments: Mapping[str, DeployedEnvironment], spec: DeploySpec) -> None:
    from airflow_provider_mwaa_dr.aws.deploy.policies import policies, scope_of  # noqa: PLC0415
    from airflow_provider_mwaa_dr.aws.service import Aws  # noqa: PLC0415

    scope, unknown = scope_of(Aws(session.clock, session.runtime.boto3_session), environments, spec)
    for text in unknown:
        session.console.say(f"WARNING: {text}.")
    documents = policies(scope)
    session.console.result(documents, json_text(documents, indent=2))
