"""The description of a home for other programs: ``sandbox.json``, and the configuration of the emulated AWS."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from airflow_provider_mwaa_dr.aws.deploy.trial_installation import OPTIONS_VARIABLE, PYTHON_VARIABLE
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings, process
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import major
from airflow_provider_mwaa_dr.sandbox.runtime.home import CONTROL, USER, Blueprint, Home, Region
from airflow_provider_mwaa_dr.sandbox.runtime.postgres import Postgres
from airflow_provider_mwaa_dr.sandbox.runtime.preparation import environment, package_index, region_environment


def sandbox_json(home: Home, blueprint: Blueprint, postgres: Postgres, *, active_region: str | None) -> dict[str, Any]:
    """Return the content of ``sandbox.json``, whose keys are a contract. ``pids`` has running processes only."""
    sessions = home.sessions()
    variables = airflow_settings.driver_variables(blueprint)
    control = home.region_folder(CONTROL)
    return {
        "state_table": blueprint.dr.get("state_table", airflow_settings.STATE_TABLE),
        "runs_table": blueprint.dr.get("runs_table", airflow_settings.RUNS_TABLE) or None,
        "active_region": active_region,
        "env": {**variables, **(_trial_variables(home, blueprint) if blueprint.bare else {})},
        "control": {
            "airflow_home": str(control),
            "dags_folder": str(control / "dags"),
            "bin": str(environment(home, blueprint.control_version).bin),
            "env": dict(airflow_settings.airflow_variables(blueprint, control, region=None)),
        },
        "regions": {
            region.name: {
                "environment": region.environment,
                "airflow_url": region.airflow_url,
                "auth": auth(blueprint, region),
                "airflow_home": str(home.region_folder(region.name)),
                "dags_folder": str(home.region_folder(region.name) / "dags"),
                "log_folder": str(home.region_folder(region.name) / "logs"),
                "bin": str(region_environment(home, blueprint, region).bin),
                "executor": region.executor,
                "database_url": postgres.url(region.name),
                "env": dict(
                    airflow_settings.airflow_variables(blueprint, home.region_folder(region.name), region=region)
                ),
                **({"aws_region": region.place} if region.site.is_named else {}),
                "pids": {
                    component: session.pid
                    for component, session in sessions.get(region.name, {}).items()
                    if process.is_alive(session)
                },
            }
            for region in blueprint.regions.values()
        },
    }


def _trial_variables(home: Home, blueprint: Blueprint) -> Mapping[str, str]:
    """Return the variables with which ``mwaa-dr deploy`` tries requirements with the index of a bare home."""
    standby = region_environment(home, blueprint, blueprint.second)
    return {
        PYTHON_VARIABLE: str(standby.bin / "python"),
        OPTIONS_VARIABLE: shlex.join(["--index-url", package_index(home).url]),
    }


def aws_config(blueprint: Blueprint) -> dict[str, Any]:
    """Return the emulated AWS's configuration: callers, ports and environments."""
    return {
        "state_model": blueprint.state_model,
        "state_region": blueprint.first.place,
        "lag_s": blueprint.lag_s or 0,
        "data_lag_s": blueprint.data_lag_s,
        "callers": blueprint.callers,
        "web": blueprint.web,
        "environments": {
            region.name: {
                "name": region.environment,
                "region": region.place,
                "airflow_url": region.airflow_url,
                "airflow_version": region.airflow_version,
                "auth": auth(blueprint, region),
                **(_bare(region) if blueprint.bare else {}),
            }
            for region in blueprint.regions.values()
        },
    }


def _bare(region: Region) -> dict[str, Any]:
    return {"is_bare": True, "role": region.role, "bucket": region.bucket, "described": region.described}


def auth(blueprint: Blueprint, region: Region) -> Mapping[str, str]:
    """Return the credentials for a region's REST API."""
    if major(region.airflow_version) < 3:
        return {"username": USER, "password": blueprint.password}
    return {"header": f"Bearer {region.token}"}
