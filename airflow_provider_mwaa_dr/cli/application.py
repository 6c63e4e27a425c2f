"""The parser, and the exit code and error document of each outcome."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.cli import check, deploy, failover, history, initialize, pausing, report, status
from airflow_provider_mwaa_dr.cli.console import Outlet, UsageError, json_text
from airflow_provider_mwaa_dr.cli.runtime import Runtime, system_runtime
from airflow_provider_mwaa_dr.cli.session import CommandParsers
from airflow_provider_mwaa_dr.cli.settings_file import did_you_mean
from airflow_provider_mwaa_dr.exceptions import (
    ConfigError,
    DRError,
    RefusedError,
    StaleStateError,
    WrongPhaseError,
)

if TYPE_CHECKING:
    from airflow_provider_mwaa_dr.cli.session import Subparsers

DONE, FAILED, WRONG_USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
CLI_PACKAGES = frozenset({"boto3", "botocore", "requests"})
"""The packages that the distribution ``mwaa-dr-cli`` requires."""
SANDBOX_SUMMARY = "run two Airflow environments and an emulated AWS on this machine"


class _Parser(argparse.ArgumentParser):
    """Raises instead of ending the process, so that a usage error too becomes a JSON document."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # A mistyped option is reported first: argparse would report the option that is missing because of it.
        self._refuse_unknown_options(args or ())
        return super().parse_known_args(args, namespace)

    def _refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Raise if a word looks like an option that this parser does not have. Those after a command are its own."""
        known = self._option_string_actions
        below = {name for action in self._actions for name in (action.choices or ()) if action.nargs == argparse.PARSER}
        if any(action.nargs == argparse.REMAINDER for action in self._actions):
            return
        for before, word in zip([None, *words], words, strict=False):
            name = word.partition("=")[0]
            if word in below or word == "--":
                return
            takes_value = before in known and known[before].nargs is None
            if name.startswith("--") and name not in known and not takes_value:
                options = [each for each in known if each.startswith("--")]
                raise UsageError(
                    f"Unknown option {name}.", advice=f"{did_you_mean(name, options)}See {self.prog} --help."
                )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = action.metavar or "/".join(action.option_strings) or action.dest
            raise UsageError(
                f"{value!r} is no {name}." if action.nargs == argparse.PARSER else f"{value!r} is no value of {name}.",
                advice=f"{did_you_mean(str(value), map(str, action.choices))}Known are "
                f"{', '.join(map(str, action.choices))}.",
            )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", advice=f"See {self.prog} --help.")

    def _print_message(self, message: str, file: Any = None) -> None:
        with suppress(OSError):  # --help | head
            super()._print_message(message, file)


def build_parser(*, with_sandbox: bool) -> argparse.ArgumentParser:
    """
    Return the parser of ``mwaa-dr``. Each command has ``handler``, called with the parsed arguments.

    :param with_sandbox: add the commands of the sandbox, too; if not, only list it. Its imports take half a second, for
        which the other commands do not wait.
    """
    parser = _Parser(
        prog="mwaa-dr",
        description="Disaster recovery for Amazon MWAA: fail over between two environments in two regions.",
        epilog="Settings: options, before the environment variables DR_STATE_TABLE, DR_STATE_TABLE_REGION, "
        "DR_ENVIRONMENTS=SITE=NAME[@REGION],... and those of boto3, before a profile in ~/.config/mwaa-dr.toml."
        " Exit codes: 0 success, also when "
        "nothing had to change; 1 failure; 2 wrong usage; 3 refused.",
    )
    parser.add_argument("--version", action="version", version=f"mwaa-dr {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    commands = CommandParsers(subparsers)
    deploy.add_commands(commands)
    initialize.add_command(commands)
    status.add_command(commands)
    check.add_command(commands)
    failover.add_command(commands)
    pausing.add_commands(commands)
    history.add_command(commands)
    report.add_command(commands)
    if with_sandbox:
        _add_sandbox(subparsers)
    else:
        subparsers.add_parser("sandbox", help=SANDBOX_SUMMARY)
    return parser


def _add_sandbox(subparsers: Subparsers) -> None:
    try:
        from airflow_provider_mwaa_dr.cli import sandbox  # noqa: PLC0415
    except ImportError as error:
        missing = error.name or str(error)

        def explain(_: argparse.Namespace) -> int:
            raise DRError(
                f"The sandbox needs packages that are not installed ({missing}).",
                advice="Install them: pip install 'mwaa-dr-cli[sandbox]'.",
            )

        parser = subparsers.add_parser("sandbox", help=f"{SANDBOX_SUMMARY} (not installed)")
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        parser.set_defaults(handler=explain)
    else:
        sandbox.add_commands(subparsers)


def main(argv: Sequence[str] | None = None, *, runtime: Runtime | None = None) -> int:
    """
    Run one command and return its exit code.

    Raises only the ``SystemExit`` of ``--help`` and ``--version``. The exit code does not depend on the output: stdout
    or stderr may be closed, full or without a reader.

    :param runtime: streams and connections; tests pass their own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    runtime = runtime or system_runtime()
    for stream in (runtime.stdout, runtime.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")  # a reason with an emoji must not fail in a C locale
    stdout, stderr = Outlet(runtime.stdout), Outlet(runtime.stderr)
    try:
        return _run(argv, replace(runtime, stdout=cast("TextIO", stdout), stderr=cast("TextIO", stderr)))
    finally:
        stdout.close_safely()
        if stdout.error is not None and not isinstance(stdout.error, BrokenPipeError):
            print(f"mwaa-dr: The result could not be written to stdout: {stdout.error}.", file=stderr)
        stderr.close_safely()


def _run(argv: Sequence[str], runtime: Runtime) -> int:
    args = argparse.Namespace()
    try:
        build_parser(with_sandbox="sandbox" in argv).parse_args(argv, args)
        args.runtime = runtime
        code: int = args.handler(args) or DONE
    except KeyboardInterrupt:
        advice = getattr(args, "interrupt_advice", "Run the same command again. Every command can be repeated.")
        return _fail(argv, runtime, DRError("Interrupted.", advice=advice), INTERRUPTED, kind="Interrupted")
    except DRError as error:
        if "--debug" in argv:
            traceback.print_exc(file=runtime.stderr)
        return _fail(argv, runtime, error, _exit_code(error))
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc(file=runtime.stderr)
        return _fail(argv, runtime, _as_dr_error(error, args), FAILED, kind=type(error).__name__)
    return code


def _as_dr_error(error: Exception, args: argparse.Namespace) -> DRError:
    """Return an unexpected error as a message with advice."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in CLI_PACKAGES:
        return DRError(
            f"The command line needs the package {error.name}, which is not installed.",
            advice="Install it: pip install mwaa-dr-cli.",
        )
    repeat = "Run it again with --debug to see the traceback. If it fails again, report it."
    return DRError(str(error), advice=" ".join((getattr(args, "interrupt_advice", ""), repeat)).strip())


def _exit_code(error: DRError) -> int:
    if isinstance(error, (UsageError, ConfigError)):
        return WRONG_USAGE
    if isinstance(error, (RefusedError, StaleStateError, WrongPhaseError)):
        return REFUSED
    return FAILED


def _fail(argv: Sequence[str], runtime: Runtime, error: DRError, code: int, *, kind: str = "") -> int:
    kind = kind or type(error).__name__
    message, advice = error.message or kind, error.advice
    if "--json" in argv:
        document = {"error": {"type": kind, "message": message, "advice": advice or None}}
        print(json_text(document), file=runtime.stdout, flush=True)
    # One line, so that a search in a log finds the whole message.
    line = " ".join(f"mwaa-dr: {message} {advice}".split())
    print(line, file=runtime.stderr, flush=True)
    return code
