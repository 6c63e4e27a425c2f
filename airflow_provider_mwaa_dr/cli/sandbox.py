"""
``mwaa-dr sandbox``: run two Airflow environments and an emulated AWS on this machine. Its commands need no
confirmation.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.cli.console import Console, UsageError
from airflow_provider_mwaa_dr.core.sites import Sites, SitesError, parse_site
from airflow_provider_mwaa_dr.sandbox.drill import report
from airflow_provider_mwaa_dr.sandbox.drill.drill import Drill, run_all
from airflow_provider_mwaa_dr.sandbox.drill.scenario import ALL, DEPLOYED, SCENARIOS
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import DEFAULT_VERSION, versions
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_settings import EXECUTORS
from airflow_provider_mwaa_dr.sandbox.runtime.home import DEFAULT_DATA_LAG_S, STATE_MODELS
from airflow_provider_mwaa_dr.sandbox.sandbox import DEFAULT_LAG_S, Sandbox

if TYPE_CHECKING:
    from airflow_provider_mwaa_dr.cli.session import Subparsers

Handler = Callable[[argparse.Namespace, Console, Sandbox], "int | None"]


def add_commands(subparsers: Subparsers) -> None:
    """Add ``sandbox`` with its commands."""
    summary = "run two Airflow environments and an emulated AWS on this machine"
    sandbox = subparsers.add_parser("sandbox", help=summary, description=summary)
    commands = sandbox.add_subparsers(title="commands", metavar="COMMAND", dest="sandbox_command", required=True)

    up = _add(commands, "up", _up, "start the components that do not run, and return when both regions are healthy")
    up.add_argument(
        "--dags", metavar="DIR", type=Path, help="folder with DAGs, copied into the DAGs folder of each region"
    )
    up.add_argument(
        "--airflow",
        metavar="VERSION",
        help=f"{', '.join(versions())}, or REGION=VERSION,REGION=VERSION; default: {DEFAULT_VERSION}",
    )
    _add_sites(up)
    up.add_argument(
        "--executor",
        metavar="NAME",
        help=f"{' or '.join(EXECUTORS)} (over SQS, a worker in each region, as in MWAA); default: {EXECUTORS[0]}, and "
        f"{EXECUTORS[1]} with --like-mwaa",
    )
    up.add_argument(
        "--schedulers", metavar="N", type=int, help="schedulers in each region; default: 1 (MWAA has 2 or more)"
    )
    up.add_argument(
        "--state-model",
        choices=STATE_MODELS,
        help="strong: one state table for all regions; eventual: a copy in each region, replicated with a lag, last "
        "writer wins. "
        f"Default: unchanged, {STATE_MODELS[0]} for a new sandbox",
    )
    up.add_argument(
        "--lag",
        metavar="S",
        type=float,
        default=DEFAULT_LAG_S,
        help="replication lag of --state-model eventual; default: %(default)s s",
    )
    up.add_argument(
        "--data-lag",
        metavar="S",
        type=float,
        help="longest time until an object is in the bucket's replica, and time of the switch of an Aurora global "
        f"database. Default: unchanged, {DEFAULT_DATA_LAG_S:g} s for a new sandbox",
    )
    up.add_argument(
        "--bare",
        action="store_true",
        default=None,
        help="start two MWAA environments without the provider, for mwaa-dr deploy; they are new and empty after each "
        "mwaa-dr sandbox down",
    )
    up.add_argument(
        "--like-mwaa",
        action="store_true",
        default=None,
        help=f"use the settings of MWAA's image: {EXECUTORS[1]}, a new Python for each task, a home of its own for the "
        "worker and the web server, and others; slower",
    )
    _add(commands, "env", _env, "print the export commands with which mwaa-dr uses this sandbox", has_json=False)
    kill = _add(commands, "kill", _kill, "kill all Airflow processes of a region, and black-hole its AWS")
    kill.add_argument("region", metavar="REGION")
    revive = _add(commands, "revive", _revive, "start a killed region again, and return when it is healthy")
    revive.add_argument("region", metavar="REGION")
    fault = _add(commands, "fault", _fault, "inject a fault into a region's AWS, or remove its faults (none)")
    fault.add_argument("region", metavar="REGION")
    fault.add_argument("service", metavar="SERVICE", help="dynamodb, dynamodb/TABLE, mwaa, ... or all")
    fault.add_argument(
        "fault",
        metavar="FAULT",
        help="refuse, blackhole (accepts, never answers), delay:S, throttle, error, deny, expired or none",
    )
    direction = fault.add_mutually_exclusive_group()
    direction.add_argument("--from", dest="from_caller", metavar="CALLER", help="only requests from CALLER to REGION")
    direction.add_argument("--to", dest="to_target", metavar="TARGET", help="only requests from REGION to TARGET")
    down = _add(commands, "down", _down, "stop what the sandbox started, and nothing else")
    down.add_argument("--purge", action="store_true", help="also delete the sandbox's folder")
    drill = _add(
        commands,
        "drill",
        _drill,
        "start the sandbox, run a load, fail over with the example DAG, judge, report and stop",
    )
    drill.add_argument("--scenario", metavar="NAME", default="planned", help=f"{', '.join(SCENARIOS)}; {ALL}")
    _add_sites(drill)
    drill.add_argument(
        "--report", metavar="DIR", type=Path, help="folder for report.json and report.html; default: HOME/report"
    )
    drill.add_argument(
        "--wheel",
        metavar="FILE",
        type=Path,
        help=f"wheel that the scenario {DEPLOYED} deploys; default: from the package index, which serves the running "
        "package",
    )
    drill.add_argument("--keep", action="store_true", help="leave the sandbox running")
    logs = _add(commands, "logs", _logs, "show the output of the processes", has_json=False)
    logs.add_argument("region", metavar="REGION", nargs="?", help="a region, or aws")
    logs.add_argument("component", metavar="COMPONENT", nargs="?", help="scheduler, api-server, ...")
    logs.add_argument("-f", "--follow", action="store_true", help="keep showing new lines")


def _add(
    commands: Subparsers, name: str, handler: Handler, summary: str, *, has_json: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.add_argument("--home", metavar="DIR", default=".sandbox", help="the sandbox's folder; default: %(default)s")
    if has_json:
        parser.add_argument("--json", action="store_true", help="print exactly one JSON document on stdout")
    parser.add_argument("--debug", action="store_true", help="print the traceback when something fails")

    def run(arguments: argparse.Namespace) -> int:
        console = Console(arguments.runtime, as_json=getattr(arguments, "json", False))
        started = time.monotonic()
        sandbox = Sandbox(arguments.home, say=lambda line: console.say(f"{time.monotonic() - started:6.1f} s  {line}"))
        with _terminable():
            return handler(arguments, console, sandbox) or 0

    parser.set_defaults(handler=run)
    return parser


def _add_sites(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sites",
        metavar="SITES",
        help="two sites, SITE=VERSION@REGION,SITE=VERSION@REGION, for example two versions of Airflow in one region; "
        "the first one is active; default: us-east-2 and us-east-1",
    )


def _up(arguments: argparse.Namespace, console: Console, sandbox: Sandbox) -> None:
    sites = _sites(arguments.sites)
    if sites is not None and arguments.airflow is not None:
        raise UsageError("--sites has the versions of Airflow, and --airflow, too.", advice="Omit one of them.")
    document = sandbox.up(
        airflow=dict(sites) if sites else _airflow_versions(arguments.airflow),
        places={site.id: site.aws_region for site in sites.all} if sites else None,
        dags=arguments.dags,
        executor=arguments.executor,
        schedulers=arguments.schedulers,
        state_model=arguments.state_model,
        lag_s=arguments.lag,
        data_lag_s=arguments.data_lag,
        bare=arguments.bare,
        like_mwaa=arguments.like_mwaa,
    )
    active = document["active_region"]
    then = "mwaa-dr status" if active else f"mwaa-dr deploy --active {next(iter(document['regions']))} --dags --wait"
    text = "\n".join(
        (
            *sandbox.addresses(),
            f"active: {active}" if active else "without the provider",
            f'Try: eval "$(mwaa-dr sandbox env{_home_option(arguments)})"; {then}',
        )
    )
    console.result(document, text)


def _env(_: argparse.Namespace, console: Console, sandbox: Sandbox) -> None:
    document = sandbox.description()
    lines = [f"export {name}={_quoted(value)}" for name, value in document["env"].items()]
    console.result(document["env"], "\n".join(lines))


def _kill(arguments: argparse.Namespace, console: Console, sandbox: Sandbox) -> None:
    document = sandbox.kill(arguments.region)
    console.result(document, f"Start it again: mwaa-dr sandbox revive {arguments.region}{_home_option(arguments)}")


def _revive(arguments: argparse.Namespace, console: Console, sandbox: Sandbox) -> None:
    document = sandbox.revive(arguments.region)
    console.result(document, f"{arguments.region} runs again: {document['regions'][arguments.region]['airflow_url']}")


def _fault(arguments: argparse.Namespace, console: Console, sandbox: Sandbox) -> None:
    table = sandbox.fault(
        arguments.region,
        arguments.service,
        arguments.fault,
        from_caller=arguments.from_caller,
        to_target=arguments.to_target,
    )
    rows: list[dict[str, Any]] = [
        {
            "service": fault.service,
            "fault": fault.fault.value,
            "seconds": fault.seconds,
            "from": fault.caller,
            "to": fault.target,
        }
        for fault in table
    ]
    lines = [
        f"{fault.fault.value}{'' if fault.seconds is None else f' of {fault.seconds:g} s'} for {fault.service} "
        f"from {fault.caller or 'every caller'} to {fault.target or 'every target'}"
        for fault in table
    ]
    console.result({"faults": rows}, "\n".join(lines) or "no faults")


def _down(arguments: argparse.Namespace, console: Console, sandbox: Sandbox) -> None:
    changed = sandbox.down(purge=arguments.purge)
    text = "The sandbox is stopped." if changed else f"Nothing runs in {sandbox.home}."
    console.result({"changed": changed}, text)


def _drill(arguments: argparse.Namespace, console: Console, sandbox: Sandbox) -> int:
    folder = arguments.report or sandbox.home.path / "report"
    sites = _sites(arguments.sites)
    if arguments.scenario == ALL:
        if sites is not None:
            raise UsageError(f"--sites does not fit --scenario {ALL}.", advice="Name one scenario, or omit --sites.")
        outcomes = run_all(sandbox, folder=folder, keep=arguments.keep, say=sandbox.say)
        console.result(
            outcomes,
            "\n".join(
                f"{found['verdict']:4}  {name}: {found['report']}" for name, found in outcomes["scenarios"].items()
            ),
        )
        return 0 if outcomes["verdict"] == "pass" else 1
    outcome = Drill(sandbox, say=sandbox.say, sites=sites).run(
        arguments.scenario, folder=folder, keep=arguments.keep, wheel=arguments.wheel
    )
    console.result(report.document(outcome), f"{report.text(outcome)}\n\n  {folder / 'report.html'}")
    return 0 if outcome.passed else 1


def _logs(arguments: argparse.Namespace, console: Console, sandbox: Sandbox) -> None:
    sandbox.home.blueprint()
    root = sandbox.home.path / "logs"
    logs = sorted(root.glob(f"{arguments.region or '*'}/{arguments.component or '*'}.log"))
    if not logs:
        known = ", ".join(sorted(f"{log.parent.name} {log.stem}" for log in root.glob("*/*.log"))) or "none"
        raise UsageError("No such log exists.", advice=f"Existing logs: {known}.")
    offsets = dict.fromkeys(logs, 0)
    while True:
        for log, offset in offsets.items():
            with log.open(errors="replace") as stream:
                stream.seek(min(offset, log.stat().st_size))
                for line in stream:
                    if not console.line(f"{log.parent.name} {log.stem} | {line.rstrip()}"):
                        return
                offsets[log] = stream.tell()
        if not arguments.follow:
            return
        time.sleep(0.5)


def _airflow_versions(text: str | None) -> Mapping[str, str] | str | None:
    if text is None or "=" not in text:
        return text
    pairs = {}
    for part in text.split(","):
        region, separator, version = part.partition("=")
        if not separator:
            raise UsageError(f"{part!r} is not REGION=VERSION.", advice="Example: us-east-2=3.3.1,us-east-1=3.0.6.")
        pairs[region.strip()] = version.strip()
    return pairs


def _sites(text: str | None) -> Sites | None:
    """Return the sites of ``--sites``, with a version of Airflow in place of the environment's name."""
    if text is None:
        return None
    try:
        found = [parse_site(part.strip()) for part in text.split(",")]
    except SitesError as error:
        raise UsageError(f"--sites {text!r} {error}.", advice=_SITES_ADVICE) from error
    except ValueError as error:
        raise UsageError(f"{error.args[0]!r} is not SITE=VERSION@REGION.", advice=_SITES_ADVICE) from error
    sites = Sites(found)
    if len(sites) != 2 or len(found) != 2:
        raise UsageError(f"--sites {text!r} does not name two sites.", advice=_SITES_ADVICE)
    return sites


_SITES_ADVICE = "Example: blue=2.11.2@us-east-2,green=3.3.1@us-east-2."


def _home_option(arguments: argparse.Namespace) -> str:
    return "" if arguments.home == ".sandbox" else f" --home {_quoted(arguments.home)}"


def _quoted(value: str) -> str:
    escaped = value.replace("'", "'\\''")
    return f"'{escaped}'"


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that it stops what it started."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
