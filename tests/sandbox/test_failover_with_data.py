"""The example DAGs that move a bucket, a global database and a secret between the steps, in real Airflows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.sandbox.cloud.tables import EndpointSession
from tests.sandbox.failovers import Command, airflow, fail_over, make_steady, start
from tests.sandbox.harness import Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

LONG_S = 600.0
NAME = "etl-data"


class Data:
    """What the pipelines of two regions use: replicated buckets, a database, and a secret with its primary in B."""

    def __init__(self, pair: Pair) -> None:
        self._session = EndpointSession(pair.variables)
        self.buckets = {region: f"{NAME}-{region}" for region in pair.airflows}
        first, second = pair.active.name, pair.standby.name
        for region, bucket in self.buckets.items():
            location = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != "us-east-1" else {}
            self.client("s3", region).create_bucket(Bucket=bucket, **location)
            self.client("s3", region).put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
            )
        for source, target in ((first, second), (second, first)):
            to = {"Bucket": f"arn:aws:s3:::{self.buckets[target]}"}
            rules = [{"Status": "Enabled", "Prefix": "", "Destination": to}]
            self.client("s3", source).put_bucket_replication(
                Bucket=self.buckets[source],
                ReplicationConfiguration={"Role": "arn:aws:iam::123456789012:role/replication", "Rules": rules},
            )
        self.client("rds", first).create_global_cluster(GlobalClusterIdentifier=NAME, Engine="aurora-postgresql")
        self.clusters = {
            region: self.client("rds", region).create_db_cluster(
                DBClusterIdentifier=NAME, Engine="aurora-postgresql", GlobalClusterIdentifier=NAME,
            )["DBCluster"]["DBClusterArn"]
            for region in (first, second)
        }  # fmt: skip
        self.client("secretsmanager", second).create_secret(
            Name=NAME, SecretString="one", AddReplicaRegions=[{"Region": first}]
        )

    def client(self, service: str, region: str) -> Any:
        """Return a client of the control environment."""
        return self._session.client(service, region_name=region)

    @cached_property
    def variables(self) -> dict[str, str]:
        """The Variable ``dr_data`` of the example DAGs, as an environment variable."""
        content = {"buckets": self.buckets, "global_cluster": NAME, "clusters": self.clusters, "secret": NAME}
        return {"AIRFLOW_VAR_DR_DATA": json.dumps(content)}

    def put(self, region: str, key: str) -> None:
        """Write an object, as a pipeline of the region does."""
        self.client("s3", region).put_object(Bucket=self.buckets[region], Key=key, Body=b"")

    def keys(self, region: str) -> set[str]:
        """Return the keys in the bucket of a region."""
        found = self.client("s3", region).list_objects_v2(Bucket=self.buckets[region])
        return {row["Key"] for row in found.get("Contents", ())}

    def writer(self, seen_from: str) -> str | None:
        """Return the region of the writer; None while a switch is in progress."""
        rds = self.client("rds", seen_from)
        (found,) = rds.describe_global_clusters(GlobalClusterIdentifier=NAME)["GlobalClusters"]
        (arn,) = (each["DBClusterArn"] for each in found["GlobalClusterMembers"] if each["IsWriter"])
        writer = next(region for region, known in self.clusters.items() if known == arn)
        return writer if found["Status"] == "available" else None


@contextmanager
def failover_with_data(pair: Pair, data: Data, target: Airflow, mode: str) -> Iterator[Command]:
    """Run the example DAG in the control environment."""
    conf = json.dumps({"target_region": target.name, "reason": "test", "mode": mode})
    with airflow(pair.control, "dags", "test", "dr_failover_with_data", "-c", conf, **data.variables) as started:
        yield started


def wait_for_success(dag: Command) -> str:
    """Wait until the DAG has succeeded, and return its output."""
    code, said = dag.wait(timeout_s=LONG_S), dag.stdout + dag.stderr
    assert code == 0, said
    return said


@pytest.mark.soak
@on("3.3.1")
def test_the_data_moves_after_the_drain_and_before_the_promotion(pair: Pair) -> None:
    """A graceful failover loses nothing. Then the region is lost: the age of its marker in the target is the RPO."""
    make_steady(pair)
    data, source, target = Data(pair), pair.active, pair.standby
    assert data.writer(target.name) == source.name
    pair.sandbox.fault(source.name, "s3", "refuse", to_target=target.name)
    data.put(source.name, "data/last")

    with failover_with_data(pair, data, target, "graceful") as dag:

        def is_written() -> bool:
            assert dag.process.poll() is None, dag.stdout + dag.stderr
            return any(key.startswith("dr-marker/") for key in data.keys(source.name))

        wait_until(is_written, "the marker is in the bucket of the source", deadline_s=LONG_S)
        state = pair.state()
        assert (state.phase, state.active_region) == (Phase.DRAINING, source.name)
        assert (data.keys(target.name), data.writer(target.name)) == (set(), source.name)
        pair.sandbox.fault(source.name, "s3", "none", to_target=target.name)
        wait_for_success(dag)
    record = pair.history()[0]
    assert (record["mode"], record["outcome"], record["to"]) == ("graceful", "completed", target.name)
    assert data.keys(target.name) == {"data/last", f"dr-marker/{record['id']}"}
    assert (data.writer(source.name), pair.active.name) == (target.name, target.name)
    start(target).wait_until_it_executed()

    lost, target = target, source
    make_steady(pair)
    lost.deploy("dr_data_marker.py", Path(pair.control["dags_folder"], "dr_data_marker.py").read_text())
    with airflow({"bin": lost.bin, "env": lost.variables}, "dags", "test", "dr_data_marker", **data.variables) as run:
        wait_for_success(run)
    lost.remove("dr_data_marker.py")
    wait_until(lambda: f"dr-marker/{lost.name}" in data.keys(target.name), "the marker is in the bucket of the target")
    pair.sandbox.fault(lost.name, "s3", "refuse", to_target=target.name)
    data.put(lost.name, "data/lost")
    pair.sandbox.fault(lost.name, "all", "refuse")

    with failover_with_data(pair, data, target, "forced") as dag:
        said = wait_for_success(dag)
    record = pair.history()[0]
    assert (record["mode"], record["outcome"], record["to"]) == ("forced", "completed", target.name)
    (rpo_s,) = map(float, set(re.findall(r"'rpo_s': ([\d.]+)", said)))
    assert rpo_s > 0
    assert f"{rpo_s:.0f} s of data may be missing in {target.name}" in said
    assert "data/lost" not in data.keys(target.name)
    assert data.writer(target.name) == target.name
    data.client("secretsmanager", target.name).put_secret_value(SecretId=NAME, SecretString="two")
    start(target).wait_until_it_executed()

    pair.sandbox.fault(lost.name, "all", "none")
    wait_until(lambda: "data/lost" in data.keys(target.name), "the object arrives when the region is back")
    make_steady(pair)
    assert fail_over(pair, lost.name)["mode"] == "graceful"
