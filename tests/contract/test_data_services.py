"""What the emulated AWS has for the data of pipelines: copies of buckets, global databases, replicas of secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from airflow_provider_mwaa_dr.sandbox.cloud import faults
from airflow_provider_mwaa_dr.sandbox.cloud.faults import FaultKind
from tests.contract.cloud import A, B, Cloud
from tests.waiting import wait_until

SWITCH_S = 30.0
LATER_S = 3600.0


def change_faults(cloud: Cloud, step: Callable[[faults.Table], faults.Table]) -> None:
    """Change the fault table as the command line does."""
    faults.change(cloud.home / "aws" / "faults.json", step)


def lose(cloud: Cloud, region: str) -> None:
    """Make all requests to and from a region fail, as in a killed region, but immediately."""
    change_faults(cloud, lambda old: faults.add(old, region=region, service="all", fault=FaultKind.REFUSE))


@pytest.fixture
def once(cloud: Cloud) -> Iterator[Callable[[str, str], Any]]:
    """Makes clients that send each request once."""
    made: list[Any] = []

    def client(service: str, region: str) -> Any:
        config = Config(retries={"total_max_attempts": 1})
        create: Any = boto3.client
        made.append(
            create(
                service, region_name=region, endpoint_url=cloud.url, config=config,
                aws_access_key_id="test", aws_secret_access_key="test",
            )
        )  # fmt: skip
        return made[-1]

    yield client
    for each in made:
        each.close()


class Database:
    """A global database with its writer in A."""

    def __init__(self, cloud: Cloud, client: Callable[[str, str], Any]) -> None:
        self.name = f"etl-{cloud.id}"
        self.rds = {region: client("rds", region) for region in (A, B)}
        self.rds[A].create_global_cluster(GlobalClusterIdentifier=self.name, Engine="aurora-postgresql")
        self.arns = {
            region: rds.create_db_cluster(
                DBClusterIdentifier=self.name,
                Engine="aurora-postgresql",
                GlobalClusterIdentifier=self.name,
                **({"MasterUsername": "admin", "MasterUserPassword": "not-a-secret"} if region == A else {}),
            )["DBCluster"]["DBClusterArn"]
            for region, rds in self.rds.items()
        }

    def describe(self, region: str = B) -> Any:
        """Return the description that *region* answers."""
        (found,) = self.rds[region].describe_global_clusters(GlobalClusterIdentifier=self.name)["GlobalClusters"]
        return found

    def writer(self) -> str:
        """Return the region of the writer."""
        (arn,) = (each["DBClusterArn"] for each in self.describe()["GlobalClusterMembers"] if each["IsWriter"])
        return next(region for region, known in self.arns.items() if known == arn)

    def switch_over(self, to: str, *, call: str) -> Any:
        """Start a switchover."""
        return self.rds[call].switchover_global_cluster(
            GlobalClusterIdentifier=self.name, TargetDbClusterIdentifier=self.arns[to]
        )

    def fail_over(self, to: str, *, call: str) -> Any:
        """Start a failover that may lose data."""
        return self.rds[call].failover_global_cluster(
            GlobalClusterIdentifier=self.name, TargetDbClusterIdentifier=self.arns[to], AllowDataLoss=True
        )


@pytest.fixture
def database(cloud: Cloud, once: Callable[[str, str], Any]) -> Database:
    """A global database whose switches take :data:`SWITCH_S`."""
    cloud.configure(data_lag_s=SWITCH_S)
    return Database(cloud, once)


def test_a_switchover_takes_its_time_and_comes_back(database: Database, cloud: Cloud) -> None:
    """The old writer stays the writer until the switch ends. All regions describe the same."""
    answered = database.switch_over(B, call=A)["GlobalCluster"]
    assert (answered["Status"], answered["FailoverState"]["ToDbClusterArn"]) == ("switching-over", database.arns[B])
    cloud.clock.advance(SWITCH_S - 1)
    assert database.describe(A) == database.describe(B) == {**answered}
    assert database.writer() == A
    cloud.clock.advance(1)
    after = database.describe()
    assert (after["Status"], database.writer()) == ("available", B)
    assert "FailoverState" not in after
    assert {each["DBClusterArn"]: each["Readers"] for each in after["GlobalClusterMembers"]} == {
        database.arns[A]: [],
        database.arns[B]: [database.arns[A]],
    }
    database.switch_over(A, call=B)
    cloud.clock.advance(SWITCH_S)
    assert database.writer() == A


def test_only_a_failover_works_after_the_loss_of_the_writers_region(database: Database, cloud: Cloud) -> None:
    """The lost region does not answer, the other one cannot switch over, and a failover needs the target only."""
    lose(cloud, A)
    with pytest.raises(ConnectionClosedError):
        database.switch_over(B, call=A)
    assert database.writer() == A
    answered = database.fail_over(B, call=B)["GlobalCluster"]
    assert (answered["Status"], answered["FailoverState"]["IsDataLossAllowed"]) == ("failing-over", True)
    cloud.clock.advance(SWITCH_S)
    assert (database.describe()["Status"], database.writer()) == ("available", B)


def test_a_switchover_fails_if_the_target_cannot_be_reached(database: Database, cloud: Cloud) -> None:
    """Also if only the path between the databases is cut. A call without AllowDataLoss is a switchover."""
    change_faults(
        cloud, lambda old: faults.add(old, region=A, service="rds", fault=FaultKind.BLACKHOLE, to_target=B)
    )  # fmt: skip
    for start in (
        lambda: database.switch_over(B, call=A),
        lambda: database.rds[A].failover_global_cluster(
            GlobalClusterIdentifier=database.name, TargetDbClusterIdentifier=database.arns[B]
        ),
    ):
        with pytest.raises(database.rds[A].exceptions.InvalidGlobalClusterStateFault, match="cannot reach"):
            start()
    assert database.describe()["Status"] == "available"


def test_a_wrong_switch_is_refused(database: Database) -> None:
    """With RDS's error codes: an unknown global cluster or target, the writer as target, a second switch."""
    raises, known = pytest.raises, database.rds[A].exceptions
    with raises(known.GlobalClusterNotFoundFault):
        database.rds[A].describe_global_clusters(GlobalClusterIdentifier="missing")
    with raises(known.GlobalClusterNotFoundFault):
        database.rds[A].switchover_global_cluster(
            GlobalClusterIdentifier="missing", TargetDbClusterIdentifier=database.arns[B]
        )
    with raises(known.DBClusterNotFoundFault):
        database.rds[A].switchover_global_cluster(
            GlobalClusterIdentifier=database.name, TargetDbClusterIdentifier="arn:aws:rds:us-west-2:1:cluster:x"
        )
    with raises(known.InvalidDBClusterStateFault):
        database.switch_over(A, call=A)
    with raises(known.InvalidGlobalClusterStateFault, match=f"region of the writer, {A}"):
        database.switch_over(B, call=B)
    with raises(known.InvalidGlobalClusterStateFault, match=f"region of the target, {B}"):
        database.fail_over(B, call=A)
    database.switch_over(B, call=A)
    with raises(known.InvalidGlobalClusterStateFault, match="is switching-over"):
        database.switch_over(B, call=A)


@pytest.fixture
def copied(cloud: Cloud) -> Cloud:
    """The cloud, whose bucket in A is copied to the one in B without a lag, except what begins with ``private/``."""
    cloud.configure(data_lag_s=0)
    cloud.client("s3", A).put_bucket_replication(
        Bucket=cloud.buckets[A],
        ReplicationConfiguration={
            "Role": "arn:aws:iam::123456789012:role/replication",
            "Rules": [
                {
                    "Status": status,
                    "Priority": number,
                    "Filter": {"Prefix": prefix},
                    "DeleteMarkerReplication": {"Status": "Disabled"},
                    "Destination": {"Bucket": f"arn:aws:s3:::{cloud.buckets[B]}"},
                }
                for number, (prefix, status) in enumerate([("data/", "Enabled"), ("private/", "Disabled")])
            ],
        },
    )
    return cloud


def wait_for(cloud: Cloud, key: str, content: bytes) -> None:
    """Wait until the bucket in B has this object with this content."""
    wait_until(lambda: key in cloud.keys(B) and cloud.get(B, key) == content, f"{key} is in {B}")


def test_an_object_arrives_with_its_metadata(copied: Cloud) -> None:
    """Objects that no enabled rule names stay where they are, and so do objects written in the destination."""
    copied.put(A, "private/one", b"1")
    copied.put(A, "other", b"1")
    copied.put(B, "data/there", b"1")
    copied.client("s3", A).put_object(
        Bucket=copied.buckets[A], Key="data/two words", Body=b"2", Metadata={"owner": "etl"}, ContentType="text/csv"
    )
    wait_for(copied, "data/two words", b"2")
    arrived = copied.client("s3", B).head_object(Bucket=copied.buckets[B], Key="data/two words")
    assert (arrived["Metadata"], arrived["ContentType"]) == ({"owner": "etl"}, "text/csv")
    assert copied.keys(B) == {"data/there", "data/two words"}
    assert "data/there" not in copied.keys(A)


def test_a_multipart_upload_arrives(copied: Cloud) -> None:
    """When it is complete, once."""
    s3, named = copied.client("s3", A), {"Bucket": copied.buckets[A], "Key": "data/parts"}
    upload = s3.create_multipart_upload(**named)["UploadId"]
    tag = s3.upload_part(**named, UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    s3.complete_multipart_upload(
        **named, UploadId=upload, MultipartUpload={"Parts": [{"ETag": tag, "PartNumber": 1}]}
    )  # fmt: skip
    wait_for(copied, "data/parts", b"part")
    assert copied.versions(B) == 1


def test_an_object_arrives_after_the_lag(copied: Cloud) -> None:
    """A longer lag holds only what was written while it was set."""
    copied.configure(data_lag_s=LATER_S)
    copied.put(A, "data/late", b"first")
    copied.put(A, "data/later", b"first")
    copied.configure(data_lag_s=0)
    copied.put(A, "data/late", b"second")
    wait_for(copied, "data/late", b"second")
    assert "data/later" not in copied.keys(B)


def to_bucket(name: str) -> dict[str, Any]:
    """Return a replication configuration that copies everything."""
    return {
        "Role": "arn:aws:iam::123456789012:role/replication",
        "Rules": [{"Status": "Enabled", "Prefix": "", "Destination": {"Bucket": f"arn:aws:s3:::{name}"}}],
    }


@pytest.fixture
def mark(copied: Cloud) -> Callable[[str], None]:
    """Writes an object that is copied within B, and waits for the copy: all copies that were due before were tried."""
    chain, s3 = f"chain-{copied.id}", copied.client("s3", B)
    s3.create_bucket(Bucket=chain)
    s3.put_bucket_versioning(Bucket=chain, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_replication(Bucket=copied.buckets[B], ReplicationConfiguration=to_bucket(chain))

    def write(name: str) -> None:
        copied.put(B, name, b"")
        wait_until(lambda: s3.list_objects_v2(Bucket=chain, Prefix=name)["KeyCount"], f"{name} is copied within {B}")

    return write


def test_a_late_version_never_replaces_a_later_one(copied: Cloud, mark: Callable[[str], None]) -> None:
    """S3 does not replicate in the order of the writes."""
    for content, lag_s in ((b"first", 1.0), (b"second", 0)):
        copied.configure(data_lag_s=lag_s)
        copied.put(A, "data/one", content)
    copied.configure(data_lag_s=2.4)  # at least 1.2 s: the first version was due before
    mark("mark")
    assert copied.get(B, "data/one") == b"second"


def test_objects_do_not_cross_a_cut_path_and_do_not_leave_a_lost_region(
    copied: Cloud, mark: Callable[[str], None]
) -> None:
    """They arrive when the region is back, the last version last."""
    change_faults(copied, lambda old: faults.add(old, region=A, service="s3", fault=FaultKind.REFUSE, to_target=B))
    copied.put(A, "data/during", b"1")
    copied.put(A, "data/during", b"2")
    mark("cut")
    assert "data/during" not in copied.keys(B)
    lose(copied, A)
    change_faults(copied, lambda old: faults.remove(old, region=A, service="s3", to_target=B))
    mark("lost")
    assert "data/during" not in copied.keys(B)
    change_faults(copied, lambda old: faults.remove(old, region=A))
    wait_for(copied, "data/during", b"2")


def test_replication_needs_versioned_buckets_and_a_destination(copied: Cloud) -> None:
    """As in S3, PutBucketReplication refuses a bucket without versions. An unknown destination gets nothing."""
    s3 = copied.client("s3", B)
    s3.create_bucket(Bucket=f"plain-{copied.id}")
    with pytest.raises(ClientError, match="Versioning"):
        s3.put_bucket_replication(Bucket=f"plain-{copied.id}", ReplicationConfiguration=to_bucket("missing"))
    s3.put_bucket_replication(Bucket=copied.buckets[B], ReplicationConfiguration=to_bucket("missing"))
    copied.put(B, "data/one", b"1")


def test_a_replica_of_a_secret_is_promoted(cloud: Cloud) -> None:
    """It then can be changed, without a change in the region that was its primary."""
    name = f"db-{cloud.id}"
    primary, other = cloud.client("secretsmanager", A), cloud.client("secretsmanager", B)
    primary.create_secret(Name=name, SecretString="one", AddReplicaRegions=[{"Region": B}])
    assert primary.describe_secret(SecretId=name)["ReplicationStatus"][0]["Status"] == "InSync"
    replica = other.describe_secret(SecretId=name)
    assert replica["PrimaryRegion"] == A
    with pytest.raises(ClientError):
        other.put_secret_value(SecretId=name, SecretString="two")
    assert other.stop_replication_to_replica(SecretId=name)["ARN"] == replica["ARN"]
    assert other.describe_secret(SecretId=name).get("PrimaryRegion") is None
    other.put_secret_value(SecretId=name, SecretString="two")
    assert [each.get_secret_value(SecretId=name)["SecretString"] for each in (primary, other)] == ["one", "two"]
    assert "ReplicationStatus" not in primary.describe_secret(SecretId=name)
    for refused, error in ((name, "InvalidRequestException"), ("missing", "ResourceNotFoundException")):
        with pytest.raises(ClientError) as caught:
            other.stop_replication_to_replica(SecretId=refused)
        assert caught.value.response["Error"]["Code"] == error
