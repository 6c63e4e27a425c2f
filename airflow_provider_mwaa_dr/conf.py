"""The settings of this Airflow. This is the only module that reads Airflow's configuration."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_mwaa_dr.core.config import OPTIONS, SECTION, DRConfig, environment_texts, parse_config

if TYPE_CHECKING:
    from airflow_provider_mwaa_dr.core.history.store import HistoryStore
    from airflow_provider_mwaa_dr.core.ports import Clock, RunsStore, StateStore


def load() -> DRConfig:
    """
    Return the settings: the user's values in Airflow's configuration, else ``DR_<NAME>`` from the environment.

    Never raises for a wrong value; ``problems`` of the returned settings names each wrong value. The site falls back
    to ``AWS_REGION``, which MWAA sets, then to ``AWS_DEFAULT_REGION``. The result also has the environment's name and
    region that MWAA sets; ``core/identity.py`` compares them with the settings.
    """
    raw = environment_texts(os.environ)
    for option in OPTIONS:
        names = (option.name, *option.aliases)
        configured = option.text({name: _configured(name, default=option.default) for name in names})
        raw[option.name] = raw[option.name] if configured is None else configured
    return replace(
        parse_config(raw),
        environment=os.environ.get("AIRFLOW_ENV_NAME", "").strip(),
        aws_region=os.environ.get("AWS_REGION", "").strip(),
    )


def state_store(config: DRConfig, clock: Clock, *, only_reads: bool = False) -> StateStore:
    """
    Return the store of the DR set's state. Importing boto3 is slow: call this only when you need a read.

    :param only_reads: no read writes anything.
    """
    from airflow_provider_mwaa_dr.aws.dynamodb.stores import open_state_store  # noqa: PLC0415

    return open_state_store(config, clock=clock, only_reads=only_reads)


def runs_store(config: DRConfig, clock: Clock) -> RunsStore | None:
    """Return the store of the ledger; None if no runs table is set."""
    from airflow_provider_mwaa_dr.aws.dynamodb.stores import open_runs_store  # noqa: PLC0415

    return open_runs_store(config, clock=clock)


def history_store(config: DRConfig, clock: Clock) -> HistoryStore | None:
    """Return the store of the history; None if the history is off."""
    from airflow_provider_mwaa_dr.aws.dynamodb.stores import open_history_store  # noqa: PLC0415

    return open_history_store(config, clock=clock)


def default_deferrable() -> bool:
    """Return the default of a sensor's argument ``deferrable``."""
    from airflow.configuration import conf  # noqa: PLC0415

    return bool(conf.getboolean("operators", "default_deferrable", fallback=False))


def web_root() -> str:
    """Return the path of Airflow's web server before its own paths, without a slash at the end: usually empty."""
    from airflow.configuration import conf  # noqa: PLC0415

    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


def airflow_home() -> Path:
    """Return the folder that all Airflow processes of this machine share."""
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()


def _configured(name: str, *, default: str) -> str | None:
    """
    Return the user's value, None when it is not set.

    For an unset option Airflow returns the default from the provider's metadata (get_provider_info). It also copies
    these defaults into the airflow.cfg that it creates at its first start. Both would hide the fallback ``DR_<NAME>``.
    So a value that equals the default counts only if it comes from an environment variable.
    """
    from airflow.configuration import conf  # noqa: PLC0415

    text = conf.get(SECTION, name, fallback=None)
    variable = f"AIRFLOW__{SECTION.upper()}__{name.upper()}"
    is_written = any(variable + suffix in os.environ for suffix in ("", "_CMD", "_SECRET"))
    return text if is_written or text != default else None
