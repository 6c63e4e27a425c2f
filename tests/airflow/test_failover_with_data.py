"""
The tasks of dr_failover_with_data, in the order of the DAG, against an emulated AWS behind a real socket.

The regions are fakes, and the time of a failover is simulated. ``sandbox/test_failover_with_data.py`` runs the DAG
between real Airflows.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError

from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.sandbox.cloud import faults
from airflow_provider_mwaa_dr.sandbox.cloud.faults import FaultKind
from tests.unit.core.dr_set import A, B, World
from tests.unit.operators.conftest import with_hook
from tests.waiting import wait_until

pytest.importorskip("airflow")

DAG_FILE = Path(__file__).parents[2] / "example_dags" / "dr_failover_with_data.py"
PYTHON = os.environ.get("MWAA_DR_TEST_PYTHON", sys.executable)
"""A Python with moto. MWAA's image, in which these tests run, does not have it."""
REGIONS = (A, B)
BUCKETS = {A: "etl-ohio", B: "etl-virginia"}
LAG_S = 0.5
CONTEXT = {"dag": SimpleNamespace(dag_id="dr_failover_with_data"), "run_id": "r", "ti": None}


def client(service: str, region: str) -> Any:
    """Return a client of the emulated AWS, as the tasks create theirs."""
    create: Any = boto3.client
    return create(service, region_name=region)


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[..., faults.Table]], None]]:
    """
    Start an AWS with replicated buckets, a global database in A, and a secret whose primary is in B.

    The value changes its faults.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "aws").mkdir()
    config = {"state_model": "strong", "state_region": A, "callers": {"control": port}, "data_lag_s": LAG_S}
    (tmp_path / "aws" / "config.json").write_text(json.dumps(config))
    server = subprocess.Popen(
        [PYTHON, "-m", "airflow_provider_mwaa_dr.sandbox.cloud.aws_server", "--home", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == "ready\n"
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        create_data(monkeypatch)
        yield lambda step: faults.change(tmp_path / "aws" / "faults.json", step) and None
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def create_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Create the data of both regions, and the Variable ``dr_data``."""
    for region, bucket in BUCKETS.items():
        place = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != "us-east-1" else {}
        client("s3", region).create_bucket(Bucket=bucket, **place)
        client("s3", region).put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    client("s3", A).put_bucket_replication(
        Bucket=BUCKETS[A],
        ReplicationConfiguration={
            "Role": "arn:aws:iam::123456789012:role/replication",
            "Rules": [{"Status": "Enabled", "Prefix": "", "Destination": {"Bucket": f"arn:aws:s3:::{BUCKETS[B]}"}}],
        },
    )
    client("rds", A).create_global_cluster(GlobalClusterIdentifier="etl", Engine="aurora-postgresql")
    clusters = {
        region: client("rds", region).create_db_cluster(
            DBClusterIdentifier="etl", Engine="aurora-postgresql", GlobalClusterIdentifier="etl"
        )["DBCluster"]["DBClusterArn"]
        for region in REGIONS
    }
    client("secretsmanager", A).create_secret(Name="etl", SecretString="one", AddReplicaRegions=[{"Region": B}])
    content = {"buckets": BUCKETS, "global_cluster": "etl", "clusters": clusters, "secret": "etl"}
    monkeypatch.setenv("AIRFLOW_VAR_DR_DATA", json.dumps(content))


def keys(region: str) -> set[str]:
    """Return the keys in the bucket of a region."""
    return {row["Key"] for row in client("s3", region).list_objects_v2(Bucket=BUCKETS[region]).get("Contents", ())}


def writer() -> tuple[str, str]:
    """Return the status of the global database, and the region of its writer, as B describes them."""
    (found,) = client("rds", B).describe_global_clusters(GlobalClusterIdentifier="etl")["GlobalClusters"]
    (arn,) = (each["DBClusterArn"] for each in found["GlobalClusterMembers"] if each["IsWriter"])
    return found["Status"], arn.split(":")[3]


def run_dag(
    world: World, mode: str, *, before: Callable[[str], None], on_wait: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """
    Execute the tasks of the DAG for a failover to B, each after its upstream tasks, and return what they returned.

    :param before: called with the id of each task before it is executed.
    :param on_wait: called with the id of a sensor that has not ended yet.
    """
    dag = run_path(str(DAG_FILE))["dag"]
    returned: dict[str, Any] = {}
    while len(returned) < len(dag.tasks):
        task = next(
            each for each in dag.tasks if each.task_id not in returned and set(each.upstream_task_ids) <= set(returned)
        )
        before(task.task_id)
        if task.task_id in {"drain", "resume"}:
            task.target_region, task.reason, task.mode = B, "test", mode
            task.plan_id = returned["drain"]["id"] if task.plan_id else None
            returned[task.task_id] = with_hook(task, world).execute(CONTEXT)
            continue
        arguments = [mode if isinstance(each, str) else returned[each.operator.task_id] for each in task.op_args]
        if hasattr(task, "poke_interval"):

            def is_done(task: Any = task, arguments: Any = arguments) -> bool:
                done = task.python_callable(*arguments)
                if not done:
                    on_wait(task.task_id)
                return bool(done)

            returned[task.task_id] = wait_until(is_done, f"{task.task_id} ends")
        else:
            returned[task.task_id] = task.python_callable(*arguments)
    return returned


def test_a_graceful_failover_loses_nothing(aws: Callable[..., None]) -> None:
    """What was written before the drain is in the target, and the database has moved, before the promotion."""
    world = World.build()
    aws(lambda old: faults.add(old, region=A, service="s3", fault=FaultKind.REFUSE, to_target=B))
    client("s3", A).put_object(Bucket=BUCKETS[A], Key="data/last", Body=b"")
    waited: list[str] = []

    def before(task_id: str) -> None:
        if task_id == "drain":
            return
        assert (world.state.phase, world.state.active_region) == (Phase.DRAINING, A)
        if task_id == "switch_database":
            assert writer() == ("available", A)
        if task_id == "resume":
            wait_until(lambda: "data/last" in keys(B), "the last object of the source is in the target")
            assert writer() == ("available", B)

    def on_wait(task_id: str) -> None:
        if task_id == "marker_arrived" and task_id not in waited:
            assert keys(B) == set()
            aws(lambda _: ())
        waited.append(task_id)

    returned = run_dag(world, "graceful", before=before, on_wait=on_wait)
    plan_id = returned["drain"]["id"]
    assert returned["marker"] == {"key": f"dr-marker/{plan_id}", "rpo_s": None}
    assert (returned["switch_database"], returned["secret"]) == ("switchover", "in sync")
    assert {"marker_arrived", "database_switched"} <= set(waited)
    assert (returned["resume"]["id"], returned["resume"]["outcome"]) == (plan_id, "completed")
    assert (world.state.active_region, keys(B)) == (B, {"data/last", f"dr-marker/{plan_id}"})


def test_a_forced_failover_prints_what_may_be_missing(
    aws: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """The source is lost, with an object that was not replicated. Its AWS is not called."""
    world = World.build()
    body = (datetime.now(timezone.utc) - timedelta(seconds=90)).isoformat().encode()
    client("s3", A).put_object(Bucket=BUCKETS[A], Key=f"dr-marker/{A}", Body=body)
    wait_until(lambda: f"dr-marker/{A}" in keys(B), "the marker is in the target")
    aws(lambda old: faults.add(old, region=A, service="s3", fault=FaultKind.REFUSE, to_target=B))
    client("s3", A).put_object(Bucket=BUCKETS[A], Key="data/lost", Body=b"")
    aws(lambda old: faults.add(old, region=A, service="all", fault=FaultKind.REFUSE))
    world.environments[A].unreachable, world.agents[A].alive = True, False

    def before(task_id: str) -> None:
        if task_id not in {"drain", "resume"}:
            assert (world.state.phase, world.state.active_region) == (Phase.DRAINING, A)

    with caplog.at_level(logging.WARNING):
        returned = run_dag(world, "forced", before=before)
    rpo_s = returned["marker"]["rpo_s"]
    assert rpo_s >= 90
    assert f"Up to {rpo_s:.0f} s of data may be missing in {B}." in caplog.text
    assert (returned["switch_database"], returned["secret"]) == ("failover", "promoted")
    assert (world.state.active_region, writer(), returned["resume"]["mode"]) == (B, ("available", B), "forced")
    assert keys(B) == {f"dr-marker/{A}"}
    client("secretsmanager", B).put_secret_value(SecretId="etl", SecretString="two")


def test_a_source_that_is_lost_after_the_drain_keeps_the_failover_halted(aws: Callable[..., None]) -> None:
    """Its switchover fails. The DAG in the mode forced continues the same failover, whose record is still graceful."""
    world = World.build()

    def lose(task_id: str) -> None:
        if task_id == "switch_database":
            aws(lambda old: faults.add(old, region=A, service="all", fault=FaultKind.REFUSE))
            world.environments[A].unreachable, world.agents[A].alive = True, False

    with pytest.raises(BotoCoreError):
        run_dag(world, "graceful", before=lose)
    assert (world.state.phase, world.state.active_region, writer()) == (Phase.DRAINING, A, ("available", A))
    returned = run_dag(world, "forced", before=lambda _: None)
    assert (world.state.active_region, writer()) == (B, ("available", B))
    assert (returned["switch_database"], returned["secret"]) == ("failover", "promoted")
