"""Two sites in one region, with an AWS over real sockets: ``mwaa-dr deploy``, ``check``, ``status``, ``undeploy``."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.ports import Registration
from tests.contract.cloud import A, B, Cloud
from tests.contract.conftest import MakeCloud

ACCOUNT = "123456789012"


@pytest.fixture
def deployed(one_region: Cloud) -> Cloud:
    """A set of two sites in one region after its deployment, with *blue* active."""
    result = one_region.deploy("--active", "blue")
    assert result.code == 0, result.err
    one_region.updated()
    return one_region


def test_a_set_in_one_region_has_one_table_without_replicas(one_region: Cloud) -> None:
    """A second region would need a table there, and a witness; one region needs neither."""
    cloud = one_region
    result = cloud.deploy("--active", "blue")
    assert result.code == 0, result.err
    assert result.changed == [
        "stack", "state",
        "dags green", "requirements green", "update green", "dags blue", "requirements blue", "update blue",
    ]  # fmt: skip
    assert "in us-east-2, without replicas: both sites are in this region" in result.err
    for table in (cloud.state_table, cloud.runs_table):
        described = cloud.client("dynamodb", "blue").describe_table(TableName=table)["Table"]
        assert [replica["RegionName"] for replica in described["Replicas"]] == [A]
        assert (described["GlobalTableWitnesses"], described.get("StreamSpecification")) == ([], None)
        assert table not in cloud.client("dynamodb", B).list_tables()["TableNames"]
    assert cloud.store().read().active_region == "blue"
    assert cloud.store().registrations() == {
        site: Registration(region=site, environment=name, account=ACCOUNT, aws_region=A)
        for site, name in cloud.names.items()
    }


def test_each_site_gets_its_own_id_and_its_own_files(deployed: Cloud) -> None:
    """The environments share all other options. A second deployment finds nothing to change."""
    for site in ("blue", "green"):
        found = deployed.environment(site)
        assert found["AirflowConfigurationOptions"] == {
            "dr.enabled": "true",
            "dr.state_table": deployed.state_table,
            "dr.state_table_region": A,
            "dr.runs_table": deployed.runs_table,
            "dr.environments": f"blue={deployed.names['blue']}@{A},green={deployed.names['green']}@{A}",
            "dr.site": site,
        }
        assert found["RequirementsS3Path"] == f"mwaa-dr/{site}/requirements.txt"
    again = deployed.deploy()
    assert (again.code, again.changed) == (0, []), again.err


@pytest.mark.parametrize("site", ["blue", "green"])
def test_the_role_of_a_site_writes_the_items_of_that_site_only(deployed: Cloud, site: str) -> None:
    """The region is the same, so the id of the site separates them."""
    printed = deployed("deploy", "--print-policies", "--json").document
    iam = deployed.client("iam", site)
    attached = iam.list_attached_role_policies(RoleName=f"role-{deployed.names[site]}")["AttachedPolicies"]
    made = [
        iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId="v1")["PolicyVersion"]["Document"]
        for policy in attached
    ]
    assert printed["execution"][site] in made
    assert len(made) == 3  # the others finish a failover, and record its notifications
    keys = [
        key
        for statement in printed["execution"][site]["Statement"]
        for key in statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys", ())
    ]
    assert keys
    assert {key.split("#")[1] for key in keys} == {site}


def test_each_site_has_its_own_alarms(one_region: Cloud) -> None:
    """With one name for each region, the second site would replace the alarms of the first. Both notify one topic."""
    topic = f"arn:aws:sns:{A}:{ACCOUNT}:dr"
    result = one_region.deploy("--active", "blue", "--alarms", "--alarm-topic", topic)
    assert result.code == 0, result.err
    for site, name in one_region.names.items():
        alarms = one_region.alarms(site)
        assert set(alarms) == {"agent-silent", "state-old", "ledger-behind", "runs-held", "failover-halted"}
        assert {alarm["Dimensions"][0]["Value"] for alarm in alarms.values()} == {name}
        assert {alarm["AlarmActions"][0] for alarm in alarms.values()} == {topic}


def test_a_shared_execution_role_is_refused(one_region: Cloud) -> None:
    """Its policies for both sites together separate nothing."""
    one_region.environments["green"]["role"] = one_region.environments["blue"]["role"]
    one_region.configure()
    result = one_region.deploy("--active", "blue")
    assert result.code == 3
    error = result.document["error"]
    assert f"have the same execution role, role-{one_region.names['blue']}" in error["message"]
    assert "its own execution role" in error["advice"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "share the DAGs folder dags in the bucket"),
        ({"DagS3Path": "{site}/dags", "RequirementsS3Path": "requirements.txt"}, "share the requirements requirements"),
        ({"DagS3Path": "{site}/dags", "PluginsS3Path": "plugins.zip"}, "share the plugins plugins.zip"),
    ],
)
def test_shared_keys_in_one_bucket_are_refused(one_region: Cloud, members: dict[str, Any], words: str) -> None:
    """A deployment to the standby would change the files of the active environment."""
    share_bucket(one_region, members)
    result = one_region.deploy("--active", "blue")
    assert result.code == 3
    assert words in result.document["error"]["message"]
    assert "other keys" in result.document["error"]["advice"]


def test_two_sites_may_share_a_bucket_with_their_own_keys(one_region: Cloud) -> None:
    """The files that the provider makes have the id of the site in their keys."""
    share_bucket(one_region, {"DagS3Path": "{site}/dags"})
    result = one_region.deploy("--active", "blue")
    assert result.code == 0, result.err
    assert one_region.keys("blue") == {
        f"{folder}{site}/{name}"
        for site in ("blue", "green")
        for folder, name in (("mwaa-dr/", "requirements.txt"), ("", "dags/dr_readiness.py"))
    }


def share_bucket(cloud: Cloud, members: dict[str, Any]) -> None:
    """Give both environments the bucket of *blue*, and these members of GetEnvironment."""
    bucket = cloud.buckets["green"] = cloud.buckets["blue"]
    for site in cloud.regions:
        cloud.environments[site]["bucket"] = bucket
        cloud.environments[site]["described"] = {name: text.replace("{site}", site) for name, text in members.items()}
    cloud.configure()


def test_the_removal_deletes_one_stack_and_keeps_the_data(deployed: Cloud) -> None:
    """Both environments lose the options of the provider."""
    result = deployed.undeploy("--wait")
    assert result.code == 0, result.err
    assert deployed.environment("blue")["AirflowConfigurationOptions"] == {}
    assert deployed.environment("green")["AirflowConfigurationOptions"] == {}
    assert deployed.store().read().active_region == "blue"


def test_check_finds_no_fault_in_tables_without_replicas(deployed: Cloud) -> None:
    """A replica in another region would protect neither site: both are in this region."""
    for environ in ({}, {"DR_ENVIRONMENTS": ""}):
        deployed.set_variables({"DR_STATE_TABLE_REGION": A, **environ})
        results = {each["name"]: each for each in deployed.run("check", "--json").document}
        for check in ("table", "runs_table"):
            assert (results[check]["verdict"], results[check]["why"].count(A)) == ("ok", 1), results[check]


def test_commands_take_the_id_of_a_site(deployed: Cloud) -> None:
    """A misspelled one is refused with those of the set. The region is none of them."""
    deployed.set_variables({"DR_STATE_TABLE_REGION": A})
    document = deployed.run("status", "--json").document
    assert (document["active_region"], sorted(document["regions"])) == ("blue", ["blue", "green"])
    assert {site: found["environment_status"] for site, found in document["regions"].items()} == {
        "blue": "AVAILABLE", "green": "AVAILABLE",
    }  # fmt: skip
    refused = deployed.run("failover", A, "--reason", "drill", "--yes", "--json")
    assert refused.code == 2
    assert f"Unknown region '{A}'; known are blue, green" in refused.document["error"]["message"]
    preview = deployed.run("failover", "green", "--reason", "drill", "--mode", "forced", "--dry-run", "--json")
    assert preview.code in {0, 3}, preview.err


def test_names_in_two_regions_need_a_strongly_consistent_table(make_cloud: MakeCloud) -> None:
    """Each copy of another table belongs to a region, which a name does not tell."""
    cloud = make_cloud("blue", "green", aws_regions={"blue": "us-east-2", "green": "eu-west-1"})
    result = cloud.deploy("--active", "blue")
    assert result.code == 3
    assert "would be, eventually consistent in" in result.document["error"]["message"]
    assert "Use the regions as ids" in result.document["error"]["advice"]


def test_an_existing_environment_keeps_the_region_as_its_id(make_cloud: MakeCloud) -> None:
    """A new environment beside it gets a name. The existing one keeps its items, its files and its alarms."""
    cloud = make_cloud(A, "green", aws_regions={"green": A})
    result = cloud.deploy("--active", A, "--alarms")
    assert result.code == 0, result.err
    cloud.updated()
    assert "dr.site" not in cloud.environment(A)["AirflowConfigurationOptions"]
    assert cloud.environment("green")["AirflowConfigurationOptions"]["dr.site"] == "green"
    assert cloud.environment(A)["RequirementsS3Path"] == "mwaa-dr/requirements.txt"
    of_both = cloud.alarms(A).keys()  # the name of one stack begins with that of the other
    assert {f"green-{name}" for name in cloud.alarms("green")} < of_both
    assert len(of_both) == 2 * len(cloud.alarms("green")) > 0
