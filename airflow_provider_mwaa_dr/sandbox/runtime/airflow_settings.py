"""The settings of the sandbox's Airflows: their airflow.cfg, and the environment variables that MWAA would set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import major
from airflow_provider_mwaa_dr.sandbox.runtime.home import ACTIVE, CONTROL, REGIONS, STRONG, USER, Blueprint, Region

STATE_TABLE = "mwaa-dr-state"
RUNS_TABLE = "mwaa-dr-runs"
CELERY = "CeleryExecutor"
EXECUTORS = ("LocalExecutor", CELERY)
WORKER = "worker"
WEB_SERVERS = ("webserver", "api-server")
"""The component with the UI and the REST API, in Airflow 2 and in Airflow 3."""

# Shorter than the provider's defaults, because a user watches the drill.
DR_SETTINGS: Mapping[str, str] = {
    "state_table": STATE_TABLE,
    "runs_table": RUNS_TABLE,
    "state_table_region": ACTIVE,
    "state_table_replicas": ",".join(REGIONS),
    "refresh_s": "1",
    "heartbeat_s": "1",
    "lease_s": "10",
    "fence_file_s": "1",
    "drain_s": "20",
    "fence_wait_s": "5",
}
LIKE_MWAA: Mapping[str, str] = {"drain_s": "120"}
"""Settings that differ with MWAA's settings: on a small machine, tasks that each start a new Python take long."""
NAMED = ("state_table", "runs_table", "state_table_region", "state_table_replicas")
# A process of the sandbox must not inherit these: they belong to another Airflow, AWS or Python.
FOREIGN = ("AIRFLOW", "AWS_", "DR_", "PYTHON", "VIRTUAL_ENV", "BOTO", "MWAA_", "PG")
TEN_YEARS_S = 315_360_000


def dr_settings(blueprint: Blueprint) -> Mapping[str, str]:
    """Return the section ``[dr]`` of all parts of a home, without ``enabled``."""
    environments = str(blueprint.sites)
    common: Mapping[str, str] = DR_SETTINGS
    if blueprint.sites.has_names:
        places = list(dict.fromkeys(region.place for region in blueprint.regions.values()))
        common = {**DR_SETTINGS, "state_table_region": places[0], "state_table_replicas": ",".join(places)}
    if blueprint.bare:
        # Only what a user exports before a deployment (docs/how-to/deploy.md): the environments run with the defaults.
        return {**{name: common[name] for name in NAMED}, "environments": environments, **blueprint.dr}
    model = {} if blueprint.state_model == STRONG else {"table_consistency": blueprint.state_model}
    is_like_mwaa = any(region.like_mwaa for region in blueprint.regions.values())
    return {
        **common,
        **(LIKE_MWAA if is_like_mwaa else {}),
        "environments": environments,
        **model,
        **blueprint.dr,
    }


def aws_variables(blueprint: Blueprint, *, caller: str, region: str) -> Mapping[str, str]:
    """Return the variables with which unmodified boto3 calls the emulated AWS, as *caller*."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{blueprint.callers[caller]}",
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        # Otherwise boto3 would send MWAA's calls to api.127.0.0.1, env.127.0.0.1 and so on.
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def driver_variables(blueprint: Blueprint) -> Mapping[str, str]:
    """Return the environment variables with which ``mwaa-dr`` acts on this home."""
    dr = dr_settings(blueprint)
    return {
        **aws_variables(blueprint, caller=CONTROL, region=blueprint.first.place),
        **{f"DR_{name.upper()}": value for name, value in dr.items()},
    }


def airflow_variables(blueprint: Blueprint, folder: Path, *, region: Region | None) -> Mapping[str, str]:
    """Return the environment variables of a region's Airflow; with *region* None, of the control environment."""
    if blueprint.bare and region is not None:
        options = region.options
    else:
        dr = {"enabled": str(region is not None), **dr_settings(blueprint)}
        options = {f"dr.{option}": value for option, value in dr.items()}
        if region is not None and region.site.is_named:
            options["dr.site"] = region.name
    place = region.place if region else blueprint.first.place
    return {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW_CONFIG": str(folder / "airflow.cfg"),
        "AIRFLOW_ENV_NAME": region.environment if region else "sandbox-control",
        **aws_variables(blueprint, caller=region.name if region else CONTROL, region=place),
        **{f"AIRFLOW__{option.replace('.', '__', 1).upper()}": value for option, value in options.items()},
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def process_variables(variables: Mapping[str, str], *, bin_folder: Path) -> Mapping[str, str]:
    """Return all variables for a process: the machine's without the :data:`FOREIGN` ones, and *variables*."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    path = f"{bin_folder}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    return {**inherited, "PATH": path, "PYTHONUNBUFFERED": "1", **variables}


def components(region: Region) -> Mapping[str, tuple[str, ...]]:
    """Return the arguments of ``airflow`` for each process of a region, by the process's name."""
    # The logs are files on this machine. Servers that send them to other machines would only use memory.
    schedulers = {
        "scheduler" if number == 1 else f"scheduler-{number}": ("scheduler", "--skip-serve-logs")
        for number in range(1, region.schedulers + 1)
    }
    others: dict[str, tuple[str, ...]] = {}
    if major(region.airflow_version) >= 3 or region.like_mwaa:
        others["dag-processor"] = ("dag-processor",)
    others["triggerer"] = ("triggerer", "--skip-serve-logs")
    if region.executor == CELERY:
        others[WORKER] = ("celery", "worker", "--skip-serve-logs")
    web = WEB_SERVERS[0] if major(region.airflow_version) < 3 else WEB_SERVERS[1]
    return {web: (web,), **schedulers, **others}


def component_home(folder: Path, component: str, *, region: Region) -> Path:
    """
    Return the AIRFLOW_HOME of a component, and create it.

    In MWAA, the worker and the web server have containers of their own, so they share no file with the scheduler. The
    processor of DAGs and the triggerer are in the scheduler's container.

    :param folder: the AIRFLOW_HOME of the region.
    """
    if not (region.like_mwaa and region.executor == CELERY and component in {WORKER, *WEB_SERVERS}):
        return folder
    own = folder / component
    own.mkdir(parents=True, exist_ok=True)
    return own


def write_configuration(folder: Path, *, database_url: str, async_url: str, region: Region, is_control: bool) -> None:
    """
    Write the airflow.cfg of a region or of the control environment into *folder*, and create its folders.

    :param region: the region; for the control environment, the region whose Airflow version and secrets it uses.
    """
    (folder / "dags").mkdir(parents=True, exist_ok=True)
    (folder / "plugins").mkdir(exist_ok=True)
    sections: dict[str, dict[str, object]] = {
        "core": {
            "executor": region.executor,
            "dags_folder": folder / "dags",
            "plugins_folder": folder / "plugins",
            "load_examples": False,
            "dags_are_paused_at_creation": True,
            "parallelism": 4,
            "fernet_key": region.fernet_key,
        },
        "database": {"sql_alchemy_conn": database_url},
        "logging": {"base_log_folder": folder / "logs"},
        "scheduler": {
            "scheduler_heartbeat_sec": 1,
            "scheduler_idle_sleep_time": 0.3,
            "job_heartbeat_sec": 2,
        },
        "triggerer": {"job_heartbeat_sec": 2},
        "usage_data_collection": {"enabled": False},
    }
    if region.executor == CELERY:
        # Like MWAA: SQS in the region, results in the metadata database, and no events, because SQS cannot send them.
        sections["celery"] = {
            "broker_url": "sqs://",
            "result_backend": f"db+{database_url}",
            "worker_concurrency": 4,
            "worker_enable_remote_control": False,
            # Airflow's default is one second. A busy laptop needs longer, and Airflow would send the message again.
            "operation_timeout": 10,
        }
    if major(region.airflow_version) < 3:
        sections["scheduler"] |= {"dag_dir_list_interval": 2, "min_file_process_interval": 10, "parsing_processes": 1}
        sections["api"] = {"auth_backends": "airflow.api.auth.backend.basic_auth,airflow.api.auth.backend.session"}
        sections["webserver"] = {
            "web_server_host": "127.0.0.1",
            "web_server_port": region.port,
            "base_url": region.airflow_url,
            "workers": 1,
            # No timeout. On a busy machine, Airflow's monitor may miscount the workers; it then ends the web server.
            "web_server_master_timeout": 0,
            "secret_key": region.secret,
            "expose_config": "non-sensitive-only",
        }
    else:
        sections["core"] |= {
            "execution_api_server_url": f"{region.airflow_url}/execution/",
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": folder / "passwords.json",
        }
        sections["database"]["sql_alchemy_conn_async"] = async_url
        # Airflow parses a changed file at the next check of the folder; min_file_process_interval does not delay that.
        sections["dag_processor"] = {
            "refresh_interval": 2,
            "bundle_refresh_check_interval": 1,
            "min_file_process_interval": 10,
            "parsing_processes": 1,
        }
        sections["api"] = {
            "host": "127.0.0.1",
            "port": region.port,
            "base_url": region.airflow_url,
            "workers": 1,
            "secret_key": region.secret,
        }
        # Airflow fails the task after 5 s by default. On a busy laptop the first call takes longer.
        sections["workers"] = {"execution_api_timeout": 60}
        sections["api_auth"] = {
            "jwt_secret": region.secret,
            "jwt_issuer": region.environment,
            "jwt_expiration_time": TEN_YEARS_S,
        }
    if region.like_mwaa:
        for section, options in mwaa_settings(region).items():
            sections.setdefault(section, {}).update(options)
    if is_control:
        # The control environment runs no API server, and no DAG in it should need one.
        sections["core"].pop("execution_api_server_url", None)
    lines = ["# Written by mwaa-dr sandbox. Environment variables override these values."]
    for section, options in sections.items():
        lines += ["", f"[{section}]", *(f"{name} = {escaped(value)}" for name, value in options.items())]
    (folder / "airflow.cfg").write_text("\n".join(lines) + "\n")
    (folder / "airflow.cfg").chmod(0o600)


def mwaa_settings(region: Region) -> Mapping[str, Mapping[str, object]]:
    """
    Return the settings of MWAA's image that change what Airflow does, by section.

    Left out are statsd and the keepalives of the database's connections, which do nothing on this machine, and MWAA's
    own transport for SQS.
    """
    sections: dict[str, dict[str, object]] = {
        "core": {"execute_tasks_new_python_interpreter": True},
        "scheduler": {"schedule_after_task_execution": False, "task_queued_timeout": 1800},
        "celery_broker_transport_options": {"visibility_timeout": 43_200},
    }
    version = tuple(int(part) for part in region.airflow_version.split(".")[:2])
    if version < (3, 0):
        sections["scheduler"]["standalone_dag_processor"] = True
    if version >= (3, 2):
        sections["api"] = {"server_type": "gunicorn"}
    return sections


def escaped(value: object) -> str:
    """Return a value for airflow.cfg, where a percent sign starts an interpolation."""
    return str(value).replace("%", "%%")
