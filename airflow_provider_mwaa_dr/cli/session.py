"""The common parts of all commands: settings, state table and environments, each opened when it is needed."""

from __future__ import annotations

import argparse
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_mwaa_dr.cli.console import Console
from airflow_provider_mwaa_dr.cli.patience import announced
from airflow_provider_mwaa_dr.cli.runtime import Runtime, read_config
from airflow_provider_mwaa_dr.cli.settings_file import did_you_mean, with_settings
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.environments import environment_names, known_region
from airflow_provider_mwaa_dr.core.ports import Clock, Environment, StateStore
from airflow_provider_mwaa_dr.core.sites import Sites
from airflow_provider_mwaa_dr.exceptions import ConfigError

if TYPE_CHECKING:
    Subparsers: TypeAlias = "argparse._SubParsersAction[Any]"


REPLICA_S = 7.0
"""The longest time of one request to one replica of the state table: three attempts of 2 s, and the pauses."""
AWS_S = 60
"""The longest time of one request of a deployment."""
ENVIRONMENT_S = 25.0
"""The longest time of one call to an environment: it is repeated for 10 s, and one attempt may take 15 s."""


class CliSession:
    """One call of a command."""

    def __init__(self, args: argparse.Namespace, runtime: Runtime) -> None:
        self.args = args
        environ, overridden = with_settings(runtime.environ, args.profile)
        self.runtime = replace(runtime, environ=environ)
        self.console = Console(self.runtime, as_json=args.json)
        if args.profile is not None and overridden:
            self.console.say(f"Environment variables override the profile {args.profile}: {', '.join(overridden)}.")

    @property
    def clock(self) -> Clock:
        """The clock."""
        return self.runtime.clock

    @property
    def who(self) -> str:
        """User and machine, for the audit trail."""
        return self.runtime.who

    @property
    def owner(self) -> str:
        """A unique name for this process, as owner of a plan."""
        return f"mwaa-dr@{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"

    @cached_property
    def config(self) -> DRConfig:
        """The settings. :raises ConfigError: something is wrong or missing."""
        return read_config(self.runtime.environ, table=self.args.table, table_region=self.args.table_region)

    @cached_property
    def store(self) -> StateStore:
        """The state table."""
        replicas = self.config.replicas
        table = (
            f"the state table {self.config.state_table} in {' and '.join(replicas)}; each request takes at most "
            f"{REPLICA_S * len(replicas):.0f} s"
        )
        return announced(self.runtime.make_store(self.config), self.console.patience, table, None)

    @cached_property
    def names(self) -> Sites:
        """The sites of the DR set. :raises ConfigError: none is known."""
        return environment_names(self.store, self.config.environments)

    def region(self, region: str) -> str:
        """Return *region* if it is in the DR set. :raises ConfigError: it is not."""
        try:
            return known_region(region, self.names)
        except ConfigError as error:
            error.advice = f"{did_you_mean(region, self.names)}{error.advice}"
            raise

    def environment(self, region: str) -> Environment:
        """Return the environment of *region*."""
        site = self.names.site(self.region(region))
        return announced(
            self.runtime.make_environment(site),
            self.console.patience,
            f"an answer of environment {self.names[region]} in {region}",
            ENVIRONMENT_S,
        )

    def environments(self) -> Mapping[str, Environment]:
        """Return all environments by region."""
        return {region: self.environment(region) for region in self.names}

    def begin_change(self) -> None:
        """Raise unless ``--yes`` is set or a terminal is attached. Called before the first request."""
        if not self.args.dry_run:
            self.console.require_consent_is_possible(yes=self.args.yes)


AWS = f"AWS; each request takes at most {AWS_S} s"
"""What a command waits for, if no other wait is known."""

Handler = Callable[[CliSession], "int | None"]
"""Runs a command; returns its exit code, None for 0."""


class CommandParsers:
    """
    Adds commands with the options that all of them have.

    :param subparsers: of the top-level parser.
    """

    def __init__(self, subparsers: Subparsers) -> None:
        self._subparsers = subparsers

    def add(self, name: str, handler: Handler, *, summary: str, changes: bool = False) -> argparse.ArgumentParser:
        """
        Return the parser of a new command.

        :param changes: whether it changes something. If so, it gets ``--dry-run`` and ``--yes``.
        """
        parser: argparse.ArgumentParser = self._subparsers.add_parser(name, help=summary, description=summary)
        parser.add_argument("--table", metavar="NAME", help="state table; default: DR_STATE_TABLE")
        parser.add_argument(
            "--table-region",
            metavar="REGION",
            help="region of the state table or of a replica; default: DR_STATE_TABLE_REGION",
        )
        parser.add_argument(
            "--profile",
            metavar="NAME",
            help="profile in ~/.config/mwaa-dr.toml with the settings of one DR set; default: default",
        )
        parser.add_argument("--json", action="store_true", help="print exactly one JSON document on stdout")
        parser.add_argument("--debug", action="store_true", help="print the traceback when something fails")
        if changes:
            parser.add_argument("--dry-run", action="store_true", help="print what would happen; change nothing")
            parser.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")

        def run(args: argparse.Namespace) -> int:
            session = CliSession(args, args.runtime)
            with session.console.patience.watching(), session.console.patience.waiting(AWS):
                return handler(session) or 0

        parser.set_defaults(handler=run)
        return parser
