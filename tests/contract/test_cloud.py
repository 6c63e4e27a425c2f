"""The emulated AWS for deployments, over real sockets: MWAA's updates, and the services that moto provides."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.contract.cloud import UPDATE_S, A, B, Cloud
from tests.waiting import wait_until


@pytest.fixture
def mwaa(cloud: Cloud) -> Any:
    """An MWAA client for one region."""
    create: Any = cloud.session.client
    client = create("mwaa", region_name=A, endpoint_url=cloud.url, config=Config(inject_host_prefix=False))
    cloud._clients["mwaa", A] = client
    return client


def status(mwaa: Any, cloud: Cloud) -> str:
    """Return the environment's status."""
    return str(mwaa.get_environment(Name=cloud.names[A])["Environment"]["Status"])


def test_an_update_takes_its_time(mwaa: Any, cloud: Cloud) -> None:
    """UPDATING with the old configuration, and without a second update; then AVAILABLE with the new configuration."""
    name = cloud.names[A]
    version = cloud.put(A, "requirements.txt", b"pandas\n")
    asked = {
        "RequirementsS3Path": "requirements.txt",
        "RequirementsS3ObjectVersion": version,
        "AirflowConfigurationOptions": {"core.parallelism": "64"},
    }
    mwaa.update_environment(Name=name, **asked)
    during = mwaa.get_environment(Name=name)["Environment"]
    assert (during["Status"], during["LastUpdate"]["Status"]) == ("UPDATING", "PENDING")
    assert during["AirflowConfigurationOptions"] == {}
    assert "RequirementsS3Path" not in during
    with pytest.raises(ClientError, match="UPDATING"):
        mwaa.update_environment(Name=name, MinWorkers=2)
    cloud.clock.advance(UPDATE_S - 1)
    assert status(mwaa, cloud) == "UPDATING"
    cloud.clock.advance(1)
    after = mwaa.get_environment(Name=name)["Environment"]
    assert (after["Status"], after["LastUpdate"]["Status"]) == ("AVAILABLE", "SUCCESS")
    assert {key: after[key] for key in asked} == asked
    assert after["SourceBucketArn"] == f"arn:aws:s3:::{cloud.buckets[A]}"
    assert after["DagS3Path"] == "dags"


def test_an_update_that_fails_restores_the_old_configuration(mwaa: Any, cloud: Cloud) -> None:
    """UPDATE_FAILED has a reason, the old configuration, and accepts another update."""
    cloud.server.mwaa.fail_updates = "the package index is out of reach"
    mwaa.update_environment(Name=cloud.names[A], AirflowConfigurationOptions={"core.parallelism": "64"})
    cloud.updated()
    failed = mwaa.get_environment(Name=cloud.names[A])["Environment"]
    assert (failed["Status"], failed["AirflowConfigurationOptions"]) == ("UPDATE_FAILED", {})
    assert failed["LastUpdate"]["Error"]["ErrorMessage"] == "the package index is out of reach"
    cloud.server.mwaa.fail_updates = ""
    mwaa.update_environment(Name=cloud.names[A], MinWorkers=2)
    cloud.updated()
    assert status(mwaa, cloud) == "AVAILABLE"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"RequirementsS3Path": "missing.txt", "RequirementsS3ObjectVersion": "1"}, "missing.txt"),
        ({"RequirementsS3Path": "requirements.txt", "RequirementsS3ObjectVersion": "1"}, "version 1"),
        ({"RequirementsS3Path": "requirements.txt"}, "RequirementsS3ObjectVersion is required"),
        ({"PluginsS3Path": "plugins.zip", "PluginsS3ObjectVersion": "1"}, "plugins.zip"),
    ],
)
def test_an_update_to_missing_files_is_refused(mwaa: Any, cloud: Cloud, changes: dict[str, str], says: str) -> None:
    """As in the real service, the status does not become UPDATING."""
    cloud.put(A, "requirements.txt", b"pandas\n")
    with pytest.raises(ClientError, match=says):
        mwaa.update_environment(Name=cloud.names[A], **changes)
    assert status(mwaa, cloud) == "AVAILABLE"


def test_the_dags_folder_of_a_bare_environment_follows_its_bucket(cloud: Cloud) -> None:
    """Written files appear, deleted files disappear, and the other environment, which is not bare, has no folder."""
    cloud.environments[A]["is_bare"] = True
    cloud.configure()
    folder = cloud.home / "regions" / A / "dags"
    cloud.put(A, "requirements.txt", b"pandas\n")
    cloud.put(A, "dags/", b"")
    cloud.put(A, "dags/lib/one.py", b"1")
    cloud.put(A, "dags/two words.py", b"2")
    cloud.put(B, "dags/three.py", b"3")

    def files() -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.py")}

    wait_until(lambda: files() == {"lib/one.py": b"1", "two words.py": b"2"}, "what is written is there", deadline_s=60)
    cloud.client("s3", A).delete_object(Bucket=cloud.buckets[A], Key="dags/lib/one.py")
    cloud.put(A, "dags/two words.py", b"two")
    wait_until(lambda: files() == {"two words.py": b"two"}, "what is deleted is gone", deadline_s=60)
    assert not (cloud.home / "regions" / B).exists()


def test_an_update_of_a_bare_environment_ends_as_its_process_does(mwaa: Any, cloud: Cloud) -> None:
    """There is no Airflow to rebuild here: the process fails with this reason, and UPDATE_FAILED has it."""
    cloud.environments[A]["is_bare"] = True
    cloud.configure(update_s=0)
    mwaa.update_environment(Name=cloud.names[A], AirflowConfigurationOptions={"core.parallelism": "64"})
    wait_until(lambda: status(mwaa, cloud) != "UPDATING", "the update has ended", deadline_s=60)
    failed = mwaa.get_environment(Name=cloud.names[A])["Environment"]
    assert (failed["Status"], failed["AirflowConfigurationOptions"]) == ("UPDATE_FAILED", {})
    assert "is not a sandbox" in failed["LastUpdate"]["Error"]["ErrorMessage"]


def test_notifications_and_roles_are_answered(cloud: Cloud) -> None:
    """moto provides SNS and IAM on the same port. The region comes from the signature."""
    sns = cloud.client("sns", B)
    topic = sns.create_topic(Name=f"dr-{cloud.id}")["TopicArn"]
    assert topic.split(":")[3] == B
    assert sns.publish(TopicArn=topic, Message="failed over")["MessageId"]
    role = cloud.client("iam", A).get_role(RoleName=f"role-{cloud.names[A]}")["Role"]
    assert role["Arn"].endswith(f"role/service-role/role-{cloud.names[A]}")


def test_a_global_table_that_dynamodb_would_refuse_is_refused(cloud: Cloud) -> None:
    """Two replicas without a witness have no majority. DynamoDB refuses such a table, and so does the emulation."""
    stacks = cloud.client("cloudformation", A)
    body = cloud("deploy", "--print-template").out.replace("GlobalTableWitnesses:", "# GlobalTableWitnesses:")
    with pytest.raises(ClientError):
        stacks.create_stack(
            StackName=cloud.stack,
            TemplateBody=body,
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value}
                for name, value in {
                    "StateTable": cloud.state_table,
                    "RunsTable": cloud.runs_table,
                    "OtherRegion": B,
                    "WitnessRegion": "us-west-2",
                    "CreatePolicies": "false",
                }.items()
            ],
        )
    dynamodb = cloud.client("dynamodb", A)
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        dynamodb.describe_table(TableName=cloud.state_table)
