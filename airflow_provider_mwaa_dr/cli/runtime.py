"""Everything outside the process that the command line uses. Tests pass their own runtime."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.cli.patience import SILENCE_S
from airflow_provider_mwaa_dr.core.config import DRConfig, environment_texts, parse_config
from airflow_provider_mwaa_dr.core.ports import Clock, Environment, RunsStore, StateStore, Tables
from airflow_provider_mwaa_dr.core.sites import Site
from airflow_provider_mwaa_dr.exceptions import ConfigError

if TYPE_CHECKING:
    import boto3


def _dynamodb_tables(config: DRConfig) -> Tables:
    from airflow_provider_mwaa_dr.aws.dynamodb.tables import DynamoDBTables  # noqa: PLC0415

    return DynamoDBTables(config.replicas, clock=SystemClock())


def _dynamodb_runs(config: DRConfig) -> RunsStore | None:
    from airflow_provider_mwaa_dr.aws.dynamodb.stores import open_runs_store  # noqa: PLC0415

    return open_runs_store(config, clock=SystemClock())


def _try_requirements(
    environ: Mapping[str, str], airflow_version: str, requirements: bytes, plugins: bytes | None
) -> str:
    from airflow_provider_mwaa_dr.aws.deploy.trial_installation import TrialInstallation  # noqa: PLC0415

    return TrialInstallation(airflow_version, environ).run(requirements, plugins)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """
    Streams, environment variables, clock, and functions that open connections to AWS. These functions send no request.

    :param who: user and machine, for the audit trail.
    :param make_store: opens the state table of a configuration.
    :param make_environment: opens the MWAA environment of a site.
    :param make_runs: opens the ledger of a configuration; returns None if no runs table is set.
    :param make_tables: opens the descriptions of a configuration's tables.
    :param try_requirements: tries a requirements.txt with pip, given *environ*, an Airflow version and plugins.zip.
    :param silence_s: after this time without output, a command says what it waits for.
    :param boto3_session: boto3 session for all other AWS services; None: boto3 searches for credentials itself.
    """

    environ: Mapping[str, str]
    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    clock: Clock
    who: str
    make_store: Callable[[DRConfig], StateStore]
    make_environment: Callable[[Site], Environment]
    make_tables: Callable[[DRConfig], Tables] = _dynamodb_tables
    make_runs: Callable[[DRConfig], RunsStore | None] = _dynamodb_runs
    try_requirements: Callable[[Mapping[str, str], str, bytes, bytes | None], str] = _try_requirements
    silence_s: float = SILENCE_S
    boto3_session: boto3.session.Session | None = None


def _open_closed_streams() -> None:
    """
    Open the null device for each of stdin, stdout and stderr that the caller closed (``>&-``).

    Python sets such a stream to None, and the next file or socket would get its descriptor.
    """
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
        os.set_inheritable(descriptor, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  (stays open until the process exits)


def system_runtime(who: str | None = None) -> Runtime:
    """Return the runtime of this process. *who*: see :class:`Runtime`; None: the user of the operating system."""
    _open_closed_streams()
    clock = SystemClock()

    # The import of boto3 takes too long for `mwaa-dr --help`.
    def make_store(config: DRConfig) -> StateStore:
        from airflow_provider_mwaa_dr.aws.dynamodb.stores import open_state_store  # noqa: PLC0415

        return open_state_store(config, clock=clock)

    def make_environment(site: Site) -> Environment:
        from airflow_provider_mwaa_dr.aws.mwaa.environment import MwaaEnvironment  # noqa: PLC0415

        return MwaaEnvironment(site.id, site.environment, aws_region=site.aws_region, clock=clock)

    return Runtime(
        environ=os.environ,
        stdin=sys.stdin,
        stdout=sys.stdout,
        stderr=sys.stderr,
        clock=clock,
        who=who or f"{getpass.getuser()}@{socket.gethostname()}",
        make_store=make_store,
        make_environment=make_environment,
    )


def read_config(environ: Mapping[str, str], *, table: str | None = None, table_region: str | None = None) -> DRConfig:
    """
    Return the settings outside Airflow: flags, then ``DR_<OPTION>``, then the defaults.

    :param table: overrides ``DR_STATE_TABLE``.
    :param table_region: overrides ``DR_STATE_TABLE_REGION``.
    :raises ConfigError: a value is wrong, or the state table is not named. Unlike the agent, the command line uses no
        default then: the user can correct the call.
    """
    raw = environment_texts(environ)
    raw["state_table"] = table or raw["state_table"]
    raw["state_table_region"] = table_region or raw["state_table_region"]
    config = parse_config(raw)
    if config.problems:
        raise ConfigError(
            " ".join(config.problems), advice="Outside Airflow these settings are the DR_* environment variables."
        )
    if not config.state_table:
        raise ConfigError(
            "The state table is not named.", option="state_table", advice="Set DR_STATE_TABLE, or give --table NAME."
        )
    if not config.replicas:
        raise ConfigError(
            "The region of the state table is not named.",
            option="state_table_region",
            advice="Set DR_STATE_TABLE_REGION, or give --table-region REGION.",
        )
    return config
