"""``mwaa-dr deploy`` and ``undeploy`` with an AWS over real sockets: S3, CloudFormation, IAM, DynamoDB and MWAA."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from moto.cloudformation.models import cloudformation_backends
from moto.dynamodb.models import dynamodb_backends

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.agent.metrics import Figures, Metrics
from airflow_provider_mwaa_dr.aws.cloudwatch import CloudWatchStats
from airflow_provider_mwaa_dr.aws.deploy.template import alarms_template
from airflow_provider_mwaa_dr.core.gate import Role
from airflow_provider_mwaa_dr.exceptions import StateNotFoundError
from airflow_provider_mwaa_dr.sandbox.cloud.aws_server import _operation
from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import Answer, Request
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.contract.cloud import UPDATE_S, A, B, Cloud, Result
from tests.contract.conftest import EACH_SET, MakeCloud

LINE = f"airflow-provider-mwaa-dr=={__version__}".encode()
LINKS = b"--find-links /usr/local/airflow/plugins  # mwaa-dr"
THEIRS = b"# \xe4 not UTF-8, on purpose\r\npandas==2.2.3\r\n-r more.txt\r\n\r\nrequests"
OPTIONS = {"core.parallelism": "64", "secrets.backend_kwargs": '{"password": "s3cret"}'}
FILE = f"airflow_provider_mwaa_dr-{__version__}-py3-none-any.whl"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A minimal wheel."""
    path = tmp_path / FILE
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("airflow_provider_mwaa_dr/__init__.py", "")
    return path


def used(cloud: Cloud) -> Cloud:
    """Give both environments requirements, plugins and options of their users."""
    for region in cloud.regions:
        requirements = cloud.put(region, "etc/requirements.txt", THEIRS)
        plugins = cloud.put(region, "plugins.zip", archive(("hooks/theirs.py", b"theirs"), ("data.bin", bytes(5000))))
        cloud.describe(
            region,
            RequirementsS3Path="etc/requirements.txt",
            RequirementsS3ObjectVersion=requirements,
            PluginsS3Path="plugins.zip",
            PluginsS3ObjectVersion=plugins,
            AirflowConfigurationOptions=OPTIONS,
            DagS3Path="pipelines/dags/",
        )
    return cloud


def archive(*files: tuple[str, bytes]) -> bytes:
    """Return a ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files:
            target.writestr(name, content)
    return buffer.getvalue()


def files(content: bytes) -> dict[str, bytes]:
    """Return the files in a ZIP archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        return {name: source.read(name) for name in source.namelist()}


def changes(cloud: Cloud) -> list[str]:
    """Return every logged request so far that changes something."""
    rows = [json.loads(line) for line in (cloud.home / "aws" / "requests.jsonl").read_text().splitlines()]
    return [f"{row['service']} {row['operation']}" for row in rows if is_change(row["service"], row["operation"])]


def is_change(service: str, operation: str) -> bool:
    """Whether a request changes something."""
    return operation.startswith(("Create", "Update", "Delete", "Put", "PUT ", "DELETE ")) or (
        service == "mwaa" and operation.startswith("PATCH ")
    )


def result_of(cloud: Cloud) -> dict[str, Any]:
    """Return the result of a deployment, without values that differ between clouds."""
    state = cloud.store().read()
    found: dict[str, Any] = {"active": state.active_region, "epoch": state.epoch, "version": state.version}
    found["registry"] = {region: found.account for region, found in cloud.store().registrations().items()}
    for table in (cloud.state_table, cloud.runs_table):
        described = cloud.client("dynamodb", A).describe_table(TableName=table)["Table"]
        found[table] = [described.get("MultiRegionConsistency"), described.get("Replicas"), described["KeySchema"]]
    for region in cloud.regions:
        environment = cloud.environment(region)
        found[region] = {
            "status": environment["Status"],
            "options": environment["AirflowConfigurationOptions"],
            "requirements": cloud.in_use(region).decode("latin-1"),
            "plugins": sorted(files(cloud.in_use(region, "Plugins"))),
            "keys": sorted(cloud.keys(region)),
        }
    # The stack is in the region of the standby.
    cloudformation = cloud.client("cloudformation", cloud.second)
    found["stacks"] = len(cloudformation.describe_stacks(StackName=cloud.stack)["Stacks"])
    text = json.dumps(found, sort_keys=True).replace(cloud.id, "ID")
    document: dict[str, Any] = json.loads(text)
    return document


class Interruption:
    """Stops the caller at its *n*-th change: before the change is carried out, or before the answer arrives."""

    def __init__(self, cloud: Cloud, n: int, *, after: bool) -> None:
        self.struck = ""
        self._left, self._after = n, after
        self._answer = cloud.server.answer
        self._cloud = cloud
        cloud.server.answer = self._serve  # type: ignore[method-assign]

    def lift(self) -> None:
        """Let all requests pass again."""
        self._cloud.server.answer = self._answer  # type: ignore[method-assign]

    def _serve(self, request: Request, service: str) -> Answer:
        operation = _operation(request, service)["operation"]
        if not self.struck and is_change(service, operation):
            if self._left == 0:
                self.struck = f"{service} {operation}"
                if self._after:
                    self._answer(request, service)
            self._left -= 1
        if self.struck:
            raise ConnectionError("the caller was stopped")
        return self._answer(request, service)


# Deploy.


def test_a_first_deployment_creates_everything(cloud: Cloud) -> None:
    """One call makes a DR set of two plain environments."""
    result = cloud.deploy("--active", A)
    assert result.code == 0, result.out
    # The standby gets its fence first.
    assert result.changed == [
        "stack", "state",
        f"dags {B}", f"requirements {B}", f"update {B}", f"dags {A}", f"requirements {A}", f"update {A}",
    ]  # fmt: skip
    state = cloud.store().read()
    assert (state.active_region, state.epoch, state.version) == (A, 0, 1)
    registry = cloud.store().registrations()
    assert {region: (found.environment, found.account) for region, found in registry.items()} == {
        region: (name, "123456789012") for region, name in cloud.names.items()
    }
    for region in cloud.regions:
        assert cloud.environment(region)["Status"] == "UPDATING"
        assert cloud.environment(region)["AirflowConfigurationOptions"] == {}
    cloud.updated()
    for region in cloud.regions:
        environment = cloud.environment(region)
        assert environment["Status"] == "AVAILABLE"
        assert environment["AirflowConfigurationOptions"] == {
            "dr.enabled": "true",
            "dr.state_table": cloud.state_table,
            "dr.state_table_region": B,
            "dr.state_table_replicas": f"{B},{A}",
            "dr.runs_table": cloud.runs_table,
            "dr.environments": f"{B}={cloud.names[B]},{A}={cloud.names[A]}",
        }
        assert cloud.in_use(region) == LINE + b"\n"
        assert cloud.keys(region) == {"mwaa-dr/requirements.txt", "dags/dr_readiness.py"}


def in_order(cloud: Cloud, *argv: str) -> Result:
    """Deploy as by default: first the standby."""
    return cloud("deploy", *argv, "--yes", "--json")


@EACH_SET
def test_the_active_environment_is_updated_after_the_standby_has_shown_that_it_works(cloud: Cloud) -> None:
    """A second deployment changes nothing, and starts no run."""
    cloud.come_alive(cloud.second)
    result = in_order(cloud, "--active", cloud.first, "--wait")
    assert result.code == 0, result.out
    assert [step["name"] for step in result.document["steps"]][-9:] == [
        *(f"{word} {cloud.second}" for word in ("dags", "requirements", "update", "wait", "proof")),
        *(f"{word} {cloud.first}" for word in ("dags", "requirements", "update", "wait")),
    ]
    proof = next(step for step in result.document["steps"] if step["name"] == f"proof {cloud.second}")
    assert proof["detail"].startswith(
        f"{cloud.names[cloud.second]}: 1 live agent(s) of version {__version__}, and a task of"
    )
    assert result.document["next"].startswith("Run mwaa-dr check")
    for region in cloud.regions:
        assert cloud.environment(region)["AirflowConfigurationOptions"]["dr.enabled"] == "true"
    runs = dict(cloud.airflows[cloud.second].notes)
    assert len(runs) == 1
    again = in_order(cloud)
    assert (again.code, again.changed) == (0, [])
    assert not any(step["name"].startswith("proof") for step in again.document["steps"])
    assert cloud.airflows[cloud.second].notes == runs


def test_the_trial_unpacks_the_plugins_in_use(cloud: Cloud) -> None:
    """From the index, plugins.zip does not change; requirements.txt may refer to wheels or constraints in it."""
    used(cloud)
    assert cloud.deploy("--active", A).code == 0
    assert sorted(cloud.tried) == sorted(
        (cloud.get(region, "etc/requirements.txt"), cloud.get(region, "plugins.zip")) for region in cloud.regions
    )


@EACH_SET
@pytest.mark.parametrize("fault", ["the update fails", "no plugin", "another version", "no fence"])
def test_a_standby_that_does_not_work_leaves_the_active_environment_as_it_is(cloud: Cloud, fault: str) -> None:
    """The message says so. When the cause is corrected, the same command does the rest."""
    used(cloud)
    before = cloud.environment(cloud.first), cloud.versions(cloud.first)
    if fault == "the update fails":
        cloud.server.mwaa.fail_updates = "pip found no matching distribution"
    elif fault != "no plugin":
        cloud.come_alive(
            cloud.second, version="0.0.1" if fault == "another version" else __version__, loads_fence=False
        )
    result = in_order(cloud, "--active", cloud.first)
    assert result.code == 1
    error = result.document["error"]
    assert (error["type"], "run the same command again" in error["advice"]) == ("DeploymentError", True)
    assert (cloud.environment(cloud.first), cloud.versions(cloud.first)) == before
    assert changes(cloud)[-1].startswith(("mwaa PATCH", "dynamodb"))
    cloud.server.mwaa.fail_updates = ""
    cloud.come_alive(cloud.second)
    again = in_order(cloud, "--active", cloud.first)
    assert again.code == 0, again.out
    assert [name for name in again.changed if cloud.first in name] == [
        f"dags {cloud.first}",
        f"requirements {cloud.first}",
        f"update {cloud.first}",
    ]
    assert again.document["next"].startswith("When both environments are AVAILABLE")


def test_the_replacement_of_workers_is_requested_only_if_the_user_says_so(cloud: Cloud) -> None:
    """MWAA has a default of its own."""
    assert cloud.deploy("--active", A, "--worker-replacement", "graceful").code == 0
    cloud.updated()
    assert cloud.environment(A)["WorkerReplacementStrategy"] == "GRACEFUL"


def test_a_log_that_will_not_show_the_plugin_is_named(cloud: Cloud) -> None:
    """Users look for the line of the plugin's start. It has the level WARNING."""
    cloud.describe(A, LoggingConfiguration={"SchedulerLogs": {"Enabled": True, "LogLevel": "ERROR"}})
    cloud.describe(B, LoggingConfiguration={"SchedulerLogs": {"Enabled": True, "LogLevel": "WARNING"}})
    dry = cloud("deploy", "--active", A, "--dry-run", "--json")
    assert dry.err.count("its scheduler log is") == 1
    assert "its scheduler log is at the level ERROR" in dry.err
    cloud.describe(B, LoggingConfiguration={"SchedulerLogs": {"Enabled": False, "LogLevel": "INFO"}})
    assert "its scheduler log is off" in cloud("deploy", "--active", A, "--dry-run", "--json").err


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"aws:cloudformation:stack-name": "etl"}, "the CloudFormation stack etl"),
        ({"ManagedBy": "Terraform"}, "Terraform (tag ManagedBy=Terraform)"),
    ],
)
def test_a_tool_that_manages_the_options_is_named(cloud: Cloud, tags: dict[str, str], named: str) -> None:
    """Its next update removes options that it does not know."""
    cloud.describe(A, Tags=tags)
    dry = cloud("deploy", "--active", A, "--dry-run", "--json")
    assert dry.err.count(f"WARNING: {named} manages this environment") == 1
    assert "a standby executes each DAG that is unpaused there" in dry.err


def test_the_tables_are_replicated_protected_and_recoverable(cloud: Cloud) -> None:
    """Both have an encrypted, protected and recoverable replica in each region. The state is strongly consistent."""
    cloud.deploy("--active", A)
    client = cloud.client("dynamodb", B)
    state = client.describe_table(TableName=cloud.state_table)["Table"]
    runs = client.describe_table(TableName=cloud.runs_table)["Table"]
    assert state["MultiRegionConsistency"] == "STRONG"
    assert [row["RegionName"] for row in state["GlobalTableWitnesses"]] == ["us-west-2"]
    assert runs["MultiRegionConsistency"] == "EVENTUAL"
    assert client.describe_time_to_live(TableName=cloud.runs_table)["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "expires_at",
    }
    for table in (state, runs):
        assert {row["RegionName"] for row in table["Replicas"]} == {A, B}
        assert table["DeletionProtectionEnabled"]
        assert table["SSEDescription"]["Status"] == "ENABLED"
        backups = client.describe_continuous_backups(TableName=table["TableName"])["ContinuousBackupsDescription"]
        assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


@EACH_SET
def test_a_second_deployment_changes_nothing(cloud: Cloud, wheel: Path) -> None:
    """No new version of a file, no restart of an environment, no write to a table."""
    used(cloud)
    words = ("--active", cloud.first, "--dags", "--wheel", str(wheel))
    assert cloud.deploy(*words).code == 0
    cloud.updated()
    before, made = result_of(cloud), changes(cloud)
    again = cloud.deploy(*words)
    assert (again.code, again.changed) == (0, [])
    assert changes(cloud) == made
    assert result_of(cloud) == before
    plain = cloud("deploy", "--dags", "--wheel", str(wheel), "--yes")
    assert (plain.code, plain.out.split(". ")[0]) == (0, "Nothing had to change")
    dry = cloud("deploy", *words, "--dry-run", "--json").document
    assert (dry["dry_run"], dry["would_change"]) == (True, False)


def test_a_dry_run_shows_every_change_and_makes_none(cloud: Cloud, wheel: Path) -> None:
    """It lists exactly what a deployment then does."""
    used(cloud)
    made = changes(cloud)
    dry = cloud("deploy", "--active", A, "--dags", "--wheel", str(wheel), "--dry-run", "--json")
    assert dry.code == 0, dry.out
    assert changes(cloud) == made
    would = [step["name"] for step in dry.document["steps"] if step["would_change"]]
    assert not any(step["changed"] for step in dry.document["steps"])
    for shown in (
        f"+ state table {cloud.state_table}: replicas in {B} and {A}, strongly consistent, witness us-west-2",
        f"+ runs table {cloud.runs_table}",
        f"attached to role-{cloud.names[A]}",
        f"+ state item: {A} is active, epoch 0",
        f"+ registry: {A} is {cloud.names[A]}",
        f"+ {LINE.decode()}",
        f"+ {LINKS.decode()}",
        f"+ {FILE}",
        "+ dr_failover.py",
        "+ dr.enabled=true",
        f"+ dr.state_table_replicas={B},{A}",
        "2 other options are kept unchanged",
        f"{B} becomes standby",
    ):
        assert shown in dry.err
    assert "s3cret" not in dry.err + dry.out
    assert cloud.deploy("--active", A, "--dags", "--wheel", str(wheel)).changed == would


@pytest.mark.parametrize(
    ("after", "every"), [(False, 3), (True, 1)], ids=["before it is carried out", "before the answer arrives"]
)
def test_a_deployment_interrupted_at_any_change_can_be_repeated(
    make_cloud: MakeCloud, wheel: Path, after: bool, every: int
) -> None:
    """
    After an interruption at any call, the same command gives the result of an undisturbed call.

    A change that is not carried out leaves what the change before it has left, so a third of these is enough.
    """
    words = ("--active", A, "--dags", "--wheel", str(wheel))
    undisturbed = used(make_cloud())
    assert undisturbed.deploy(*words, "--wait").code == 0
    expected = result_of(undisturbed)
    interrupted = []
    for n in range(0, 100, every):
        cloud = used(make_cloud())
        interruption = Interruption(cloud, n, after=after)
        first = cloud.deploy(*words)
        interruption.lift()
        if not interruption.struck:
            assert first.code == 0
            break
        assert first.code == 1, first.out
        assert first.document["error"]["advice"]
        interrupted.append(interruption.struck)
        second = cloud.deploy(*words, "--wait")
        assert second.code == 0, f"{interruption.struck}: {second.out}"
        assert result_of(cloud) == expected, interruption.struck
        third = cloud.deploy(*words)
        assert (third.code, third.changed) == (0, []), interruption.struck
    assert len(interrupted) == 18 / every, interrupted
    kinds = {change.split("/")[0].strip() for change in interrupted}
    every_kind = {"cloudformation CreateStack", "dynamodb PutItem", "dynamodb UpdateItem", "s3 PUT", "mwaa PATCH"}
    assert kinds <= every_kind if every > 1 else kinds == every_kind


@EACH_SET
def test_existing_files_and_options_are_kept(cloud: Cloud, wheel: Path) -> None:
    """All other bytes of the requirements, all other plugin files and all other options are unchanged."""
    used(cloud)
    cloud.deploy("--active", cloud.first, "--wheel", str(wheel), "--wait")
    for region in cloud.regions:
        assert cloud.in_use(region) == THEIRS + b"\r\n" + LINKS + b"\r\n" + LINE
        plugins = files(cloud.in_use(region, "Plugins"))
        assert plugins == {"hooks/theirs.py": b"theirs", "data.bin": bytes(5000), FILE: wheel.read_bytes()}
        options = cloud.environment(region)["AirflowConfigurationOptions"]
        assert {name: text for name, text in options.items() if not name.startswith("dr.")} == OPTIONS
        assert options["dr.enabled"] == "true"


@EACH_SET
def test_a_deployment_from_the_index_removes_the_wheel(cloud: Cloud, wheel: Path) -> None:
    """A deployment from the index removes the wheel of an earlier deployment from plugins.zip."""
    used(cloud)
    cloud.deploy("--active", cloud.first, "--wheel", str(wheel), "--wait")
    assert cloud.deploy("--wait").code == 0
    assert cloud.in_use(cloud.first) == THEIRS + b"\r\n" + LINE
    assert files(cloud.in_use(cloud.first, "Plugins")).keys() == {"hooks/theirs.py", "data.bin"}


def test_options_that_mean_the_same_cost_no_update(cloud: Cloud) -> None:
    """An environment with manual options in another spelling is not updated."""
    cloud.deploy("--active", A, "--wait")
    for region in cloud.regions:
        cloud.server.mwaa._memory[region].changes["AirflowConfigurationOptions"] |= {
            "dr.enabled": "True",
            "dr.state_table_region": A,
            "dr.state_table_replicas": f"{A}, {B}",
            "dr.lease_s": "90",
        }
    assert cloud.deploy().changed == []


@EACH_SET
@pytest.mark.parametrize("build_on", ["latest", "in-use"])
def test_a_newer_file_that_is_not_in_use_is_refused_until_the_user_decides(cloud: Cloud, build_on: str) -> None:
    """To use it would activate another user's change, to ignore it would hide that change: the user decides."""
    used(cloud)
    newer = b"polars==1.0\n"
    cloud.put(cloud.first, "etc/requirements.txt", newer)
    made = changes(cloud)
    refused = cloud.deploy("--active", cloud.first)
    assert (refused.code, refused.document["error"]["type"]) == (3, "RefusedError")
    assert "--build-on latest" in refused.document["error"]["advice"]
    assert changes(cloud) == made
    assert cloud.deploy("--active", cloud.first, "--build-on", build_on, "--wait").code == 0
    theirs = newer if build_on == "latest" else THEIRS + b"\r\n"
    assert cloud.in_use(cloud.first) == theirs + LINE + (b"\n" if build_on == "latest" else b"")
    assert cloud.deploy().changed == []


def test_regions_without_a_common_region_set_get_an_eventual_table_with_the_reason(make_cloud: MakeCloud) -> None:
    """Strong consistency is impossible between Frankfurt and Sydney. The output explains that before the deployment."""
    cloud = make_cloud("eu-central-1", "ap-southeast-2")
    result = cloud.deploy("--active", "eu-central-1")
    assert result.code == 0, result.out
    assert "no set holds both ap-southeast-2 and eu-central-1" in result.err
    assert "WARNING" in result.err
    for region in cloud.regions:
        table = cloud.client("dynamodb", region).describe_table(TableName=cloud.state_table)["Table"]
        assert table["MultiRegionConsistency"] == "EVENTUAL"
        assert {row["RegionName"] for row in table["Replicas"]} == set(cloud.regions)
        assert table["GlobalTableWitnesses"] == []
    assert "DR_TABLE_CONSISTENCY=eventual" in result.err
    # The first state is in the replica of the active region, and the agents' options have the kind of table.
    assert cloud.copy("eu-central-1").read().active_region == "eu-central-1"
    with pytest.raises(StateNotFoundError):
        cloud.copy("ap-southeast-2").read()
    cloud.updated()
    for region in cloud.regions:
        assert cloud.environment(region)["AirflowConfigurationOptions"]["dr.table_consistency"] == "eventual"
    assert cloud.deploy().changed == []


def test_a_table_with_strong_consistency_needs_no_option(cloud: Cloud) -> None:
    """With strong consistency, the option keeps its default."""
    assert cloud.deploy("--active", A, "--wait").code == 0
    for region in cloud.regions:
        assert "dr.table_consistency" not in cloud.environment(region)["AirflowConfigurationOptions"]


def sample_table(cloud: Cloud) -> str:
    """Create the table and the item of the AWS sample's scripts; return the table's name."""
    name = f"mwaa-openlineage-dr-state-{cloud.id}"
    client = cloud.client("dynamodb", A)
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "state_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "state_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.put_item(
        TableName=name,
        Item={
            "state_id": {"S": "ACTIVE_REGION"},
            "active_region": {"S": A},
            "last_updated": {"S": "2024-02-26T10:30:00Z"},
            "failover_count": {"N": "4"},
            "version": {"N": "9"},
        },
    )
    return name


def test_the_table_of_the_aws_sample_is_adopted(cloud: Cloud) -> None:
    """
    Its item continues to be used. The output warns that it is in one region only, with the command that adds a replica.
    """
    name = sample_table(cloud)
    for region in cloud.regions:
        cloud.describe(
            region,
            AirflowConfigurationOptions={
                "dr.enabled": "true",
                "dr.state_table": name,
                "dr.state_source": "dynamodb",
                "dr.state_table_region": A,
            },
        )
    cloud.set_variables({"DR_STATE_TABLE": ""})
    result = cloud.deploy()
    assert result.code == 0, result.out
    steps = {step["name"]: step for step in result.document["steps"]}
    assert steps["state table"] == {"name": "state table", "changed": False, "detail": f"adopted: {name}, in {A} only"}
    assert f"WARNING: the state table {name} is in {A} only" in result.err
    assert f"aws dynamodb update-table --region {A} --table-name {name} --replica-updates" in result.err
    cloud.state_table = name
    cloud.updated()
    stack = cloud.client("cloudformation", B).describe_stacks(StackName=cloud.stack)["Stacks"][0]
    parameters = {row["ParameterKey"]: row["ParameterValue"] for row in stack["Parameters"]}
    assert (parameters["CreateStateTable"], parameters["CreateRunsTable"]) == ("false", "true")
    row = cloud.client("dynamodb", A).get_item(TableName=name, Key={"state_id": {"S": "ACTIVE_REGION"}})["Item"]
    assert (row["failover_count"], row["version"], row["active_region"]) == ({"N": "4"}, {"N": "9"}, {"S": A})
    options = cloud.environment(A)["AirflowConfigurationOptions"]
    assert options["dr.state_table_region"] == A
    assert "dr.state_table_replicas" not in options
    assert cloud.deploy().changed == []


def test_two_separate_tables_of_one_name_are_refused(cloud: Cloud) -> None:
    """With a separate table in each region, both regions would be active."""
    for region in cloud.regions:
        cloud.client("dynamodb", region).create_table(
            TableName=cloud.state_table,
            KeySchema=[{"AttributeName": "state_id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "state_id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    result = cloud.deploy("--active", A)
    assert result.code == 3
    assert "their own table" in result.document["error"]["message"]


def test_a_wait_prints_progress_and_ends_with_the_update(cloud: Cloud) -> None:
    """The user gets a message every few minutes. The test's clock does not wait."""
    result = cloud.deploy("--active", A, "--wait")
    assert result.code == 0
    assert [step["name"] for step in result.document["steps"]][-2:] == [f"wait {B}", f"wait {A}"]
    progress = [line for line in result.err.splitlines() if "UPDATING for" in line]
    assert len(progress) >= UPDATE_S // 300
    assert all(cloud.environment(region)["Status"] == "AVAILABLE" for region in cloud.regions)
    assert cloud.clock.monotonic() < UPDATE_S + 120


def test_a_failed_update_is_reported_and_can_be_repeated(cloud: Cloud) -> None:
    """MWAA restores the previous version. The next deployment finds no options of the provider, and updates again."""
    cloud.server.mwaa.fail_updates = "the role may not read the bucket"
    failed = cloud.deploy("--active", A, "--wait")
    assert (failed.code, failed.document["error"]["type"]) == (1, "DeploymentError")
    assert "the role may not read the bucket" in failed.document["error"]["message"]
    assert cloud.environment(A)["Status"] == "UPDATE_FAILED"
    cloud.server.mwaa.fail_updates = ""
    again = cloud.deploy("--wait")
    assert again.code == 0, again.out
    assert again.changed == [f"update {B}", f"update {A}"]
    assert cloud.environment(A)["AirflowConfigurationOptions"]["dr.enabled"] == "true"


def test_an_update_that_does_not_end_has_a_deadline(cloud: Cloud) -> None:
    """The wait times out, with advice."""
    cloud.configure(update_s=24 * 3600.0)
    result = cloud.deploy("--active", A, "--wait")
    assert (result.code, result.document["error"]["type"]) == (1, "DeploymentError")
    assert "90 minutes" in result.document["error"]["message"]


@EACH_SET
def test_an_environment_that_is_busy_accepts_no_update(cloud: Cloud) -> None:
    """The deployment is refused before any change. With --wait it waits."""
    cloud.client("mwaa", cloud.first)  # reads botocore's model of MWAA before the time matters
    used(cloud)
    cloud.deploy("--active", cloud.first)
    made = changes(cloud)
    busy = cloud.deploy()
    assert (busy.code, busy.document["error"]["type"]) == (3, "NotReadyError")
    assert "UPDATING" in busy.document["error"]["message"]
    assert "--wait" in busy.document["error"]["advice"]
    assert changes(cloud) == made
    assert cloud.deploy("--wait").changed == []


def no_versions(cloud: Cloud) -> None:
    """Make a bucket without versioning."""
    cloud.client("s3", A).put_bucket_versioning(
        Bucket=cloud.buckets[A], VersioningConfiguration={"Status": "Suspended"}
    )


def other_key(cloud: Cloud) -> None:
    """Make a table of that name with another purpose."""
    cloud.client("dynamodb", A).create_table(
        TableName=cloud.runs_table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )


def hashes(cloud: Cloud) -> None:
    """Make requirements with hashes; pip then requires a hash in every line."""
    version = cloud.put(A, "requirements.txt", b"pandas==2.2.3 --hash=sha256:00\n")
    cloud.describe(A, RequirementsS3Path="requirements.txt", RequirementsS3ObjectVersion=version)


def gone_version(cloud: Cloud) -> None:
    """Make requirements whose version in use does not exist."""
    cloud.put(A, "requirements.txt", b"pandas\n")
    cloud.describe(A, RequirementsS3Path="requirements.txt", RequirementsS3ObjectVersion="0" * 32)


@pytest.mark.parametrize(
    ("prepare", "code", "says"),
    [
        (lambda cloud: cloud.environments[A].update(status="CREATE_FAILED"), 3, "CREATE_FAILED"),
        (lambda cloud: cloud.environments[A].update(airflow_version="2.9.2"), 3, "2.9.2"),
        (lambda cloud: cloud.environments[A].update(status="MAINTENANCE"), 3, "MAINTENANCE"),
        (lambda cloud: cloud.environments[A].update(name="renamed"), 1, "etl-primary"),
        (lambda cloud: cloud.describe(A, AirflowConfigurationOptions={"dr.state_table": "other"}), 3, "table other"),
        (lambda cloud: cloud.set_variables({"DR_ENVIRONMENTS": "us-east-2=one"}), 2, "exactly two"),
        (lambda cloud: cloud.set_variables({"DR_ENVIRONMENTS": ""}), 2, "not named"),
        (no_versions, 3, "keeps no versions"),
        (other_key, 3, "id (not a string)"),
        (hashes, 3, "hashes"),
        (gone_version, 1, "NoSuchVersion"),
    ],
)  # fmt: skip
def test_an_obstacle_is_named_and_nothing_is_changed(
    cloud: Cloud, prepare: Callable[[Cloud], object], code: int, says: str
) -> None:
    """Each obstacle is found before the first change. The error has the exit code, the value and the advice."""
    prepare(cloud)
    cloud.configure()
    made = changes(cloud)
    result = cloud.deploy("--active", A)
    assert result.code == code, result.out
    error = result.document["error"]
    assert says in error["message"]
    assert error["advice"]
    assert changes(cloud) == made


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "--active us-east-1"),
        (["--active", "mars"], "known are"),
        (["--active", A, "--wheel", "somebody_elses-1.0-py3-none-any.whl"], "not the file name"),
        (["--active", A, "--wheel", f"/nonexistent/{FILE}"], "cannot be read"),
    ],
)
def test_wrong_usage_ends_with_2(cloud: Cloud, argv: list[str], says: str) -> None:
    """Errors that only the user can correct are found before any change."""
    made = changes(cloud)
    result = cloud.deploy(*argv)
    assert result.code == 2, result.out
    assert says in " ".join(result.document["error"].values())
    assert changes(cloud) == made


def roll_back(cloud: Cloud) -> None:
    """
    Do what CloudFormation does after a failed creation, but moto does not: delete the tables, set ROLLBACK_COMPLETE.
    """
    account = "123456789012"
    for stack in cloudformation_backends[account][B].stacks.values():
        if stack.name == cloud.stack:
            stack.status = "ROLLBACK_COMPLETE"
    for region in cloud.regions:
        for name in (cloud.state_table, cloud.runs_table):
            dynamodb_backends[account][region].tables.pop(name, None)


def test_a_failed_stack_is_reported_and_can_be_repaired(cloud: Cloud) -> None:
    """CloudFormation rolls back because a role is missing. When the role exists, the same command succeeds."""
    iam = cloud.client("iam", A)
    role = f"role-{cloud.names[B]}"
    iam.delete_role(RoleName=role)
    failed = cloud.deploy("--active", A)
    assert failed.code == 1
    assert failed.document["error"]["advice"]
    iam.create_role(RoleName=role, Path="/service-role/", AssumeRolePolicyDocument="{}")
    roll_back(cloud)
    again = cloud.deploy("--active", A)
    assert again.code == 0, again.out
    assert tables(cloud) == [cloud.state_table, cloud.runs_table]
    cloud.updated()
    assert cloud.deploy().changed == []


def test_a_stack_that_is_still_being_created_is_waited_for(cloud: Cloud) -> None:
    """A caller stopped while CloudFormation was working; the next caller waits for it."""
    cloud.deploy("--active", A, "--wait")
    (stack,) = (one for one in cloudformation_backends["123456789012"][B].stacks.values() if one.name == cloud.stack)
    stack.status = "CREATE_IN_PROGRESS"
    cloud.clock.after(60, lambda: setattr(stack, "status", "CREATE_COMPLETE"))
    started = cloud.clock.monotonic()
    result = cloud.deploy("--active", A)
    assert result.code == 0, result.out
    assert "wait for, and if necessary update, the stack" in result.err
    assert cloud.clock.monotonic() - started >= 60
    stack.status = "CREATE_FAILED"
    refused = cloud.deploy("--active", A)
    assert (refused.code, refused.document["error"]["type"]) == (3, "RefusedError")


@EACH_SET
@pytest.mark.parametrize("option", ["dr.region", "dr.site"])
def test_an_option_that_names_another_site_is_a_warning(cloud: Cloud, option: str) -> None:
    """With two ids, an environment holds every run. So the user must know before the deployment, and after it."""
    cloud.describe(cloud.second, AirflowConfigurationOptions={option: "eu-west-1"})
    warning = f"WARNING: {option} is eu-west-1, and this environment is the site {cloud.second}: "
    replaces = option == "dr.site" and cloud.sites.has_names
    dry = cloud("deploy", "--active", cloud.first, "--dry-run", "--json")
    assert dry.code == 0, dry.out
    assert dry.err.count(warning) == 1
    assert (f"{warning}two ids of one environment hold every run" in dry.err) != replaces
    assert cloud.deploy("--active", cloud.first, "--wait").code == 0
    again = cloud.deploy()
    assert (again.changed, again.err.count(warning)) == ([], 0 if replaces else 1)


@EACH_SET
@pytest.mark.parametrize("option", ["dr.region", "dr.site"])
def test_an_option_with_the_id_of_the_site_is_no_warning(cloud: Cloud, option: str) -> None:
    """The alias, and the option itself, may have the value that the deployment writes."""
    cloud.describe(cloud.second, AirflowConfigurationOptions={option: cloud.second})
    assert "WARNING: dr." not in cloud("deploy", "--active", cloud.first, "--dry-run", "--json").err


@EACH_SET
def test_two_versions_of_airflow_are_a_warning(cloud: Cloud) -> None:
    """It may be intended for some time, so it is only a warning."""
    cloud.environments[cloud.second]["airflow_version"] = "2.10.3"
    cloud.configure()
    result = cloud("deploy", "--active", cloud.first, "--dry-run")
    assert result.code == 0
    assert "different versions of Airflow" in result.err


def test_a_deployment_needs_a_confirmation(cloud: Cloud) -> None:
    """Without a terminal the exit code is 2, after the answer no it is 3. Neither makes a changing AWS call."""
    made = changes(cloud)
    assert cloud("deploy", "--active", A).code == 2
    refused = cloud("deploy", "--active", A, answer="\n")
    assert refused.code == 3
    assert "Continue? [y/N]" in refused.err
    assert changes(cloud) == made
    assert cloud("deploy", "--active", A, "--both-at-once", answer="y\n").code == 0


def test_with_no_policies_none_are_created(cloud: Cloud) -> None:
    """The output warns that the permissions must be granted in another way."""
    result = cloud.deploy("--active", A, "--no-policies")
    assert result.code == 0
    assert "no policies" in result.err
    listed = cloud.client("iam", A).list_policies(Scope="Local")["Policies"]
    assert not [policy for policy in listed if cloud.id in policy["PolicyName"]]


# Alarms.


TOPIC = f"arn:aws:sns:{A}:123456789012:oncall"


def alarm_stack(cloud: Cloud, region: str) -> dict[str, str]:
    """Return the parameters of the stack with a region's alarms."""
    found = cloud.client("cloudformation", region).describe_stacks(StackName=f"{cloud.stack}-alarms")["Stacks"][0]
    return {row["ParameterKey"]: row["ParameterValue"] for row in found["Parameters"]}


def test_alarms_are_created_in_each_region_on_request(cloud: Cloud) -> None:
    """CloudWatch is regional: the alarms of each environment select its name, and notify the topic of their region."""
    plain = cloud.deploy("--active", A, "--wait")
    assert not any("alarms" in step["name"] for step in plain.document["steps"])
    dry = cloud("deploy", "--alarms", "--alarm-topic", TOPIC, "--dry-run", "--json")
    assert [step["name"] for step in dry.document["steps"] if step["would_change"]] == [
        f"update {B}", f"update {A}", f"alarms {B}", f"alarms {A}"
    ]  # fmt: skip
    for shown in (
        "+ dr.cloudwatch_metrics=true",
        "+ alarms: agent silent, state old, ledger behind, runs held, failover halted",
        TOPIC,
        "no topic",
    ):
        assert shown in dry.err
    assert cloud.alarms(A) == {}
    result = cloud.deploy("--alarms", "--alarm-topic", TOPIC, "--wait")
    assert (result.code, result.changed) == (0, [f"update {B}", f"update {A}", f"alarms {B}", f"alarms {A}"])
    for region in cloud.regions:
        alarms = cloud.alarms(region)
        assert set(alarms) == {"agent-silent", "state-old", "ledger-behind", "runs-held", "failover-halted"}
        for alarm in alarms.values():
            assert alarm["Namespace"] == "MWAA-DR"
            assert alarm["Dimensions"] == [{"Name": "Environment", "Value": cloud.names[region]}]
            assert alarm.get("AlarmActions") == alarm.get("OKActions") == ([TOPIC] if region == A else None)
        missing = {name: alarm["TreatMissingData"] for name, alarm in alarms.items()}
        assert missing.pop("agent-silent") == "breaching"
        assert set(missing.values()) == {"notBreaching"}
    made = changes(cloud)
    assert cloud.deploy("--alarms", "--alarm-topic", TOPIC).changed == []
    assert cloud.deploy("--alarms").changed == []
    assert cloud.deploy().changed == []
    assert changes(cloud) == made


def test_settings_of_users_in_the_alarms_are_kept(cloud: Cloud) -> None:
    """Thresholds and topic are kept; the lease is updated from the state item."""
    cloud.deploy("--active", A, "--alarms", "--alarm-topic", TOPIC, "--wait")
    client = cloud.client("cloudformation", A)
    parameters = alarm_stack(cloud, A) | {"HeldMinutes": "30"}
    client.update_stack(
        StackName=f"{cloud.stack}-alarms",
        TemplateBody=alarms_template(),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
    )
    state = cloud.store().read()
    cloud.store().write(replace(state, lease_s=90.0, version=state.version + 1), expected_version=state.version)
    result = cloud.deploy("--alarms")
    assert result.changed == [f"alarms {B}", f"alarms {A}"]
    assert "LeaseSeconds: 60 -> 90" in result.err
    assert alarm_stack(cloud, A) == parameters | {"LeaseSeconds": "90"}
    assert str(cloud.alarms(A)["state-old"]["Threshold"]) == "90"


def test_alarms_of_an_earlier_version_are_replaced(cloud: Cloud) -> None:
    """Their template had two more parameters, which CloudFormation would refuse."""
    cloud.deploy("--active", A, "--alarms", "--wait")
    more = "  MetricPrefix:\n    Type: String\n    Default: mwaa_dr.\n"
    cloud.client("cloudformation", A).update_stack(
        StackName=f"{cloud.stack}-alarms",
        TemplateBody=alarms_template().replace("Parameters:\n", f"Parameters:\n{more}"),
        Parameters=[
            {"ParameterKey": "EnvironmentName", "ParameterValue": cloud.names[A]},
            {"ParameterKey": "MetricPrefix", "ParameterValue": "other."},
        ],
    )
    sent: list[bytes] = []
    answer = cloud.server.answer

    def serve(request: Request, service: str) -> Answer:
        if b"Action=UpdateStack" in request.body:
            sent.append(request.body)
        return answer(request, service)

    cloud.server.answer = serve  # type: ignore[method-assign]
    assert cloud.deploy("--alarms").changed == [f"alarms {A}"]
    (body,) = sent
    assert b"EnvironmentName" in body
    assert b"MetricPrefix" not in body


def test_a_silent_agent_raises_an_alarm_that_ends_when_it_is_back(cloud: Cloud) -> None:
    """The agent's own requests are the only data, and a small evaluator stands in for CloudWatch."""
    cloud.deploy("--active", A, "--alarms", "--wait")
    began = datetime.now(timezone.utc).replace(second=0, microsecond=0) - timedelta(hours=1)
    clock = ManualClock(began)
    stats = CloudWatchStats(A, cloud.names[A], clock, client=cloud.client("cloudwatch", A))
    agent = Metrics(lambda: stats, clock, prefix="")

    def minutes(count: int, *, alive: bool, held: int = 0, state_age_s: float = 1.0, halted: int = 0) -> set[str]:
        for _ in range(count * 12):
            clock.advance(5)
            if alive:
                figures.append(figures[-1] + 1)
                holds.append(holds[-1] + held)
                agent.publish(
                    Figures(
                        role=Role.ACTIVE, epoch=3, state_age_s=state_age_s, ledger_lag_s=2.0,
                        heartbeats=figures[-1], held=holds[-1], skipped=0, closed=0,
                        hold_alarms=halted,
                    )
                )  # fmt: skip
        return on(cloud, A, at=clock.now())

    figures, holds = [0], [0]
    assert minutes(20, alive=True) == set()
    assert minutes(3, alive=False) == set()
    assert minutes(3, alive=False) == {"agent-silent"}
    assert minutes(2, alive=True) == set()
    assert minutes(2, alive=True, state_age_s=75.0) == {"state-old"}
    assert minutes(16, alive=True, held=1) == {"runs-held"}
    assert minutes(2, alive=True) == set()
    assert minutes(2, alive=True, halted=1) == {"failover-halted"}
    assert minutes(4, alive=True, halted=1) == set()


def on(cloud: Cloud, region: str, *, at: datetime) -> set[str]:
    """
    Return the alarms that are on at a time.

    An evaluator of our own: periods end at full minutes, and an alarm is on if all of its last periods breach it. AWS
    also looks at a few periods more, so that late data does not start or end an alarm.
    """
    found = set()
    for name, alarm in cloud.alarms(region).items():
        periods, length = int(alarm["EvaluationPeriods"]), int(alarm["Period"])
        end = at.replace(second=0, microsecond=0)
        points = cloud.client("cloudwatch", region).get_metric_statistics(
            Namespace=alarm["Namespace"], MetricName=alarm["MetricName"], Dimensions=alarm["Dimensions"],
            StartTime=end - timedelta(seconds=periods * length), EndTime=end, Period=length,
            Statistics=[alarm["Statistic"]],
        )["Datapoints"]  # fmt: skip
        values = [float(point[alarm["Statistic"]]) for point in points]
        threshold = float(alarm["Threshold"])
        is_less = alarm["ComparisonOperator"] == "LessThanThreshold"
        breaching = sum(value < threshold if is_less else value >= threshold for value in values)
        if alarm["TreatMissingData"] == "breaching":
            breaching += periods - len(values)
        if breaching >= periods:
            found.add(name)
    return found


def test_alarms_interrupted_at_any_change_are_created_by_the_same_command(make_cloud: MakeCloud) -> None:
    """After the interruption one or no stack exists; then both do."""
    words = ("--active", A, "--alarms", "--alarm-topic", TOPIC)
    for n in (2, 3):  # after the updates that set the option
        cloud = make_cloud()
        cloud.deploy("--active", A, "--wait")
        interruption = Interruption(cloud, n, after=True)
        assert cloud.deploy(*words).code == 1
        interruption.lift()
        assert interruption.struck == "cloudformation CreateStack"
        assert cloud.deploy(*words, "--wait").code == 0
        assert all(len(cloud.alarms(region)) == 5 for region in cloud.regions)
        assert cloud.deploy(*words).changed == []


def test_undeploy_removes_the_alarms_first(cloud: Cloud) -> None:
    """Alarms would report the removal as a failure, and are no data. A stack that accepts no update is deleted, too."""
    cloud.deploy("--active", A, "--alarms", "--wait")
    name = f"{cloud.stack}-alarms"
    (stack,) = (one for one in cloudformation_backends["123456789012"][A].stacks.values() if one.name == name)
    stack.status = "UPDATE_ROLLBACK_FAILED"
    refused = cloud.deploy("--alarms")
    assert (refused.code, refused.document["error"]["type"]) == (3, "RefusedError")
    result = cloud.undeploy()
    assert result.changed[:2] == [f"alarms {A}", f"alarms {B}"]
    assert cloud.alarms(A) == cloud.alarms(B) == {}
    cloud.updated()
    assert cloud.undeploy().changed == ["stack"]


@pytest.mark.parametrize(
    "argv",
    [
        ["--alarms", "--alarm-topic", "oncall"],
        ["--alarms", "--alarm-topic", "arn:aws:sns:eu-west-1:123456789012:oncall"],
        ["--alarms", "--alarm-topic", "arn:aws:sqs:us-east-2:123456789012:oncall"],
        ["--alarms", "--alarm-topic", TOPIC, "--alarm-topic", TOPIC],
        ["--alarm-topic", TOPIC],
    ],
)
def test_a_topic_that_no_alarm_can_notify_is_wrong_usage(cloud: Cloud, argv: list[str]) -> None:
    """The error has the rule, and nothing is changed."""
    made = changes(cloud)
    result = cloud.deploy("--active", A, *argv)
    assert (result.code, result.document["error"]["type"]) == (2, "ConfigError")
    assert "at most one SNS topic" in result.document["error"]["advice"]
    assert changes(cloud) == made


# Undeploy.


@EACH_SET
def test_undeploy_removes_exactly_what_deploy_added(cloud: Cloud, wheel: Path) -> None:
    """
    Files and options are the same as before the deployment. The tables and their data are kept. A second undeploy is a
    no-op.
    """
    used(cloud)
    cloud.deploy("--active", cloud.first, "--dags", "--wheel", str(wheel), "--wait")
    assert {f"pipelines/dags/{name}" for name in ("dr_failover.py", "dr_test_dag.py")} <= cloud.keys(cloud.first)
    result = cloud.undeploy("--wait")
    assert result.code == 0, result.out
    for region in cloud.regions:
        assert cloud.in_use(region) == THEIRS
        assert files(cloud.in_use(region, "Plugins")) == {"hooks/theirs.py": b"theirs", "data.bin": bytes(5000)}
        assert cloud.environment(region)["AirflowConfigurationOptions"] == OPTIONS
        assert cloud.keys(region) == {"etc/requirements.txt", "plugins.zip"}
    assert cloud.store().read().active_region == cloud.first
    assert "its tables are kept" in result.document["steps"][-1]["detail"]
    assert cloud.undeploy().changed == []


@EACH_SET
def test_undeploy_keeps_the_permissions_until_no_plugin_needs_them(cloud: Cloud) -> None:
    """
    A plugin without permissions holds every run. So the stack is deleted only after both environments have no plugin.
    """
    cloud.deploy("--active", cloud.first, "--wait")
    first = cloud.undeploy()
    assert first.code == 0, first.out
    # The standby's fence is removed last.
    updates = [name for name in first.changed if name.startswith("update ")]
    assert updates == [f"update {cloud.first}", f"update {cloud.second}"]
    assert "is kept for now" in first.document["steps"][-1]["detail"]
    assert cloud.client("cloudformation", cloud.second).describe_stacks(StackName=cloud.stack)["Stacks"]
    cloud.updated()
    assert cloud.undeploy().changed == ["stack"]


def test_a_deployment_after_undeploy_adopts_the_tables(cloud: Cloud) -> None:
    """The kept tables are used again, with their data."""
    cloud.deploy("--active", A, "--wait")
    cloud.undeploy("--wait")
    again = cloud.deploy("--wait")
    assert again.code == 0, again.out
    details = {step["name"]: step["detail"] for step in again.document["steps"]}
    assert details["state table"].startswith(f"adopted: {cloud.state_table}, strongly consistent")
    assert details["state"].startswith("exists:")
    assert cloud.in_use(A) == LINE + b"\n"


def tables(cloud: Cloud) -> list[str]:
    """Return the names of the existing tables."""
    pages = cloud.client("dynamodb", cloud.second).get_paginator("list_tables").paginate()
    there = {name for page in pages for name in page["TableNames"]}
    return [name for name in (cloud.state_table, cloud.runs_table) if name in there]


@EACH_SET
def test_data_is_deleted_only_after_two_confirmations(cloud: Cloud) -> None:
    """The second question names the tables. After the answer no, nothing is changed."""
    cloud.deploy("--active", cloud.first, "--wait")
    made = changes(cloud)
    refused = cloud("undeploy", "--delete-data", "--wait", answer="y\nn\n")
    assert refused.code == 3
    assert f"- table {cloud.state_table}, WITH ALL DATA" in refused.err
    assert changes(cloud) == made
    assert tables(cloud) == [cloud.state_table, cloud.runs_table]
    done = cloud("undeploy", "--delete-data", "--wait", answer="y\ny\n")
    assert done.code == 0, done.err
    assert tables(cloud) == []


def test_undeploy_interrupted_at_any_change_can_be_repeated(make_cloud: MakeCloud, wheel: Path) -> None:
    """After an interruption at any call, the same command restores the environments."""
    words = ("--delete-data",)
    struck = []
    for n in range(100):
        cloud = used(make_cloud())
        cloud.deploy("--active", A, "--dags", "--wheel", str(wheel), "--wait")
        interruption = Interruption(cloud, n, after=True)
        result = cloud.undeploy(*words, "--wait")
        interruption.lift()
        if not interruption.struck:
            assert result.code == 0
            break
        struck.append(interruption.struck)
        again = cloud.undeploy(*words, "--wait")
        assert again.code == 0, f"{interruption.struck}: {again.out}"
        for region in cloud.regions:
            assert cloud.in_use(region) == THEIRS
            assert cloud.environment(region)["AirflowConfigurationOptions"] == OPTIONS
            assert cloud.keys(region) == {"etc/requirements.txt", "plugins.zip"}
        assert tables(cloud) == [], interruption.struck
        assert cloud.undeploy(*words).changed == []
    assert len(struck) == 14, struck


def test_an_edited_example_dag_is_kept(cloud: Cloud) -> None:
    """A file that a user edited is kept, with a warning that it will not work without the package."""
    cloud.deploy("--active", A, "--dags", "--wait")
    cloud.put(A, "dags/dr_failover.py", b"# ours, edited\n")
    result = cloud.undeploy("--wait")
    assert "dr_failover.py is kept" in result.err
    assert cloud.keys(A) == {"dags/dr_failover.py", "mwaa-dr/requirements.txt"}
    assert cloud.keys(B) == {"mwaa-dr/requirements.txt"}
    assert b"requires nothing" in cloud.in_use(B)


# Print.


def test_the_template_is_printed_for_manual_deployments(cloud: Cloud) -> None:
    """`mwaa-dr deploy --print-template` needs no confirmation."""
    result: Result = cloud("deploy", "--print-template")
    assert result.code == 0
    assert result.out.startswith('AWSTemplateFormatVersion: "2010-09-09"')
    assert cloud("deploy", "--print-template", "--json").document["template"] == result.out
    assert cloud("deploy", "--print-template", "--alarms").out == alarms_template()
