"""The settings of the sandbox's Airflows: their airflow.cfg and their environment variables."""

from __future__ import annotations

from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.config import OPTIONS, Eventual, parse_config
from airflow_provider_mwaa_dr.core.identity import Identity, identity_problem
from airflow_provider_mwaa_dr.core.ports import Observation
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_settings import (
    CELERY,
    airflow_variables,
    component_home,
    components,
    driver_variables,
    process_variables,
    write_configuration,
)
from airflow_provider_mwaa_dr.sandbox.runtime.description import aws_config
from airflow_provider_mwaa_dr.sandbox.runtime.home import (
    ACTIVE,
    CONTROL,
    REGIONS,
    STANDBY,
    Blueprint,
    Region,
    new_blueprint,
)


@pytest.fixture
def blueprint() -> Blueprint:
    """A home with Airflow 3.3.1 in the active region and 2.10.3 in the standby."""
    return new_blueprint(
        versions={ACTIVE: "3.3.1", STANDBY: "2.10.3"}, executor="LocalExecutor", schedulers=2, dr={"drain_s": "3"}
    )


def test_the_settings_of_all_three_are_understood_and_agree(blueprint: Blueprint, tmp_path: Path) -> None:
    """No value is wrong, none contradicts another, and only the two regions are enabled."""
    parsed = []
    for region in (*blueprint.regions.values(), None):
        variables = airflow_variables(blueprint, tmp_path, region=region)
        parsed.append(
            parse_config({option.name: variables.get(f"AIRFLOW__DR__{option.name.upper()}") for option in OPTIONS})
        )
    driver = driver_variables(blueprint)
    parsed.append(parse_config({option.name: driver.get(f"DR_{option.name.upper()}") for option in OPTIONS}))

    assert [config.problems for config in parsed] == [()] * 4
    assert [config.enabled for config in parsed] == [True, True, False, False]
    assert {replace(config, enabled=False).drain_s for config in parsed} == {3.0}
    assert all(config.environments == {region: f"sandbox-{region}" for region in REGIONS} for config in parsed)


def test_mwaas_own_variables_prove_each_region(blueprint: Blueprint, tmp_path: Path) -> None:
    """The check of the identity really has something to check, and passes for the registered name only."""
    here, other = blueprint.regions.values()
    variables = airflow_variables(blueprint, tmp_path, region=here)
    identity = Identity(region=here.name, environment=variables["AIRFLOW_ENV_NAME"], aws_region=variables["AWS_REGION"])
    registered = parse_config({"environments": variables["AIRFLOW__DR__ENVIRONMENTS"]}).environments[here.name]
    look = Observation(state=None, reconciled_epoch=None, environment=registered)
    assert identity_problem(identity, look) is None
    assert identity_problem(identity, replace(look, environment=other.environment)) is not None
    assert identity_problem(replace(identity, region=other.name), look) is not None


def test_two_sites_in_one_region_are_told_apart(tmp_path: Path) -> None:
    """Their AWS_REGION is the same. Each has its own id, and one table in that region."""
    blueprint = new_blueprint(
        versions={"blue": "2.11.2", "green": "3.3.1"}, executor="LocalExecutor", schedulers=1, dr={},
        places=dict.fromkeys(("blue", "green"), ACTIVE),
    )  # fmt: skip
    for region in blueprint.regions.values():
        variables = airflow_variables(blueprint, tmp_path, region=region)
        config = parse_config({option.name: variables.get(f"AIRFLOW__DR__{option.name.upper()}") for option in OPTIONS})
        assert (config.problems, config.region, config.own_aws_region) == ((), region.name, ACTIVE)
        assert (config.replicas, config.sites) == ((ACTIVE,), blueprint.sites)
        identity = Identity.of(
            replace(config, environment=variables["AIRFLOW_ENV_NAME"], aws_region=variables["AWS_REGION"])
        )
        assert identity_problem(identity, Observation(state=None, reconciled_epoch=None)) is None
    control = airflow_variables(blueprint, tmp_path, region=None)
    assert (control["AWS_REGION"], "AIRFLOW__DR__SITE" in control) == (ACTIVE, False)
    described = aws_config(blueprint)
    assert described["state_region"] == ACTIVE
    assert {site: row["region"] for site, row in described["environments"].items()} == {"blue": ACTIVE, "green": ACTIVE}


def test_every_caller_has_a_port_of_its_own(blueprint: Blueprint, tmp_path: Path) -> None:
    """The emulated AWS identifies callers by their port."""
    endpoints = {
        airflow_variables(blueprint, tmp_path, region=region)["AWS_ENDPOINT_URL"]
        for region in (*blueprint.regions.values(), None)
    }

    assert endpoints == {f"http://127.0.0.1:{blueprint.callers[caller]}" for caller in (*REGIONS, CONTROL)}
    assert driver_variables(blueprint)["AWS_ENDPOINT_URL"].endswith(f":{blueprint.callers[CONTROL]}")


def test_a_process_inherits_nothing_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another Airflow's settings, real AWS credentials and this Python's paths stay outside."""
    foreign = ("AIRFLOW__CORE__DAGS_FOLDER", "AWS_PROFILE", "PYTHONPATH", "DR_STATE_TABLE", "VIRTUAL_ENV")
    for name in foreign:
        monkeypatch.setenv(name, "foreign")
    monkeypatch.setenv("LANG", "C.UTF-8")

    variables = process_variables({"AWS_REGION": "us-east-1"}, bin_folder=Path("/somewhere/bin"))

    assert not set(foreign) & set(variables)
    assert variables["LANG"] == "C.UTF-8"
    assert variables["AWS_REGION"] == "us-east-1"
    assert variables["PATH"].startswith("/somewhere/bin:")


def test_processes_differ_by_version_and_schedulers_can_be_many(blueprint: Blueprint) -> None:
    """Airflow 3 has an API server and a DAG processor, 2 a webserver. Both get the requested number of schedulers."""
    assert list(components(blueprint.regions[ACTIVE])) == [
        "api-server",
        "scheduler",
        "scheduler-2",
        "dag-processor",
        "triggerer",
    ]
    assert list(components(blueprint.regions[STANDBY])) == ["webserver", "scheduler", "scheduler-2", "triggerer"]


@pytest.mark.parametrize(
    ("version", "server", "has_option", "web"),
    [
        ("2.10.3", None, True, "webserver"),
        ("3.0.6", None, False, "api-server"),
        ("3.3.1", "gunicorn", False, "api-server"),
    ],
)
def test_a_region_like_mwaa_has_the_settings_of_its_image(
    version: str, server: str | None, has_option: bool, web: str, tmp_path: Path
) -> None:
    """A new Python for each task and a DAG processor of its own. The worker and the web server share no home."""
    blueprint = new_blueprint(
        versions=dict.fromkeys(REGIONS, version), executor=CELERY, schedulers=1, dr={}, like_mwaa=True
    )
    region = blueprint.regions[ACTIVE]
    write_configuration(tmp_path, database_url="sqlite://", async_url="sqlite://", region=region, is_control=False)
    parser = ConfigParser()
    parser.read(tmp_path / "airflow.cfg")

    assert parser["core"]["execute_tasks_new_python_interpreter"] == "True"
    assert parser["scheduler"]["schedule_after_task_execution"] == "False"
    assert parser["celery_broker_transport_options"]["visibility_timeout"] == "43200"
    assert parser.has_option("scheduler", "standalone_dag_processor") == has_option
    assert parser.get("api", "server_type", fallback=None) == server
    assert list(components(region)) == [web, "scheduler", "dag-processor", "triggerer", "worker"]
    homes = {component: component_home(tmp_path, component, region=region) for component in components(region)}
    assert {name for name, home in homes.items() if home == tmp_path} == {"scheduler", "dag-processor", "triggerer"}
    assert homes["worker"] != homes[web]
    assert homes["worker"].is_dir()
    assert homes[web].is_dir()
    plain = replace(region, like_mwaa=False)
    assert component_home(tmp_path, "worker", region=plain) == tmp_path


@pytest.mark.parametrize("name", REGIONS)
def test_a_configuration_can_be_read(blueprint: Blueprint, name: str, tmp_path: Path) -> None:
    """It is for the owner only, names the database, and binds loopback."""
    region = blueprint.regions[name]
    write_configuration(
        tmp_path, database_url="postgresql://a%20b", async_url="postgresql+asyncpg://x", region=region, is_control=False
    )

    parser = ConfigParser()
    parser.read(tmp_path / "airflow.cfg")
    assert parser["database"]["sql_alchemy_conn"] == "postgresql://a%20b"
    assert parser["core"]["executor"] == "LocalExecutor"
    assert (tmp_path / "airflow.cfg").stat().st_mode & 0o077 == 0
    if name == ACTIVE:
        assert (parser["api"]["host"], parser["api"]["port"]) == ("127.0.0.1", str(region.port))
        assert parser["core"]["execution_api_server_url"] == f"{region.airflow_url}/execution/"
    else:
        assert parser["webserver"]["web_server_host"] == "127.0.0.1"


def test_a_home_with_a_lag_says_so_to_everybody(blueprint: Blueprint, tmp_path: Path) -> None:
    """Airflow, the command line and the emulated AWS agree on how the regions' tables follow each other."""
    assert aws_config(blueprint)["state_model"] == "strong"
    assert "AIRFLOW__DR__TABLE_CONSISTENCY" not in airflow_variables(blueprint, tmp_path, region=None)
    eventual = replace(blueprint, lag_s=2.5)
    assert (aws_config(eventual)["state_model"], aws_config(eventual)["lag_s"]) == ("eventual", 2.5)
    for region in (*eventual.regions.values(), None):
        variables = airflow_variables(eventual, tmp_path, region=region)
        assert variables["AIRFLOW__DR__TABLE_CONSISTENCY"] == "eventual"
    driver = driver_variables(eventual)
    config = parse_config({option.name: driver.get(f"DR_{option.name.upper()}") for option in OPTIONS})
    assert (config.eventual_mode, config.problems) == (Eventual.AVAILABLE, ())


def test_the_emulated_aws_knows_the_lag_of_the_data(blueprint: Blueprint) -> None:
    """A new home has a lag of seconds, because a bucket without one shows no loss of data."""
    assert aws_config(blueprint)["data_lag_s"] == 5
    assert aws_config(replace(blueprint, data_lag_s=0.5))["data_lag_s"] == 0.5


def test_a_bare_home_has_the_settings_that_its_environments_were_given(tmp_path: Path) -> None:
    """Its regions know nothing of the provider until an update sets options; the driver has what a user exports."""
    blueprint = new_blueprint(
        versions=dict.fromkeys(REGIONS, "3.3.1"), executor="LocalExecutor", schedulers=1, dr={}, bare=True
    )
    region = blueprint.regions[ACTIVE]
    options = {"core.default_task_retries": "0", "dr.enabled": "true", "logging.remote_log.level": "INFO"}

    def settings(region: Region) -> dict[str, str]:
        variables = airflow_variables(blueprint, tmp_path, region=region)
        return {name: text for name, text in variables.items() if name.startswith("AIRFLOW__")}

    assert settings(region) == {}
    assert settings(replace(region, described={"AirflowConfigurationOptions": options})) == {
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "0",
        "AIRFLOW__DR__ENABLED": "true",
        "AIRFLOW__LOGGING__REMOTE_LOG.LEVEL": "INFO",
    }
    assert {name: text for name, text in driver_variables(blueprint).items() if name.startswith("DR_")} == {
        "DR_STATE_TABLE": "mwaa-dr-state",
        "DR_RUNS_TABLE": "mwaa-dr-runs",
        "DR_STATE_TABLE_REGION": "us-east-2",
        "DR_STATE_TABLE_REPLICAS": "us-east-2,us-east-1",
        "DR_ENVIRONMENTS": "us-east-2=etl-primary,us-east-1=etl-secondary",
    }
    told = aws_config(blueprint)["environments"][ACTIVE]
    assert (told["is_bare"], told["role"], told["bucket"]) == (True, "etl-primary-role", "etl-primary-bucket")
