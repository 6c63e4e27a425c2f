"""
Fail over, and move the data between the steps: an S3 bucket, an Aurora global database and a secret. Adapt it.

Deploy it in a control environment, or in the standby that is the target. Each data step is one small task. Remove those
that you do not need, and add your own.

1. ``drain`` fails over up to the stage *drained*: the active region starts nothing, the target is not active yet.
2. ``marker`` and ``marker_arrived`` check the replication of the bucket. Graceful: the task writes a marker into the
   bucket of the source, and waits until the bucket of the target has it. Forced: nothing is written. The task returns
   the age of the newest marker of ``dr_data_marker`` in the target's bucket: so much data may be missing (RPO).
   S3 does not replicate in the order of the writes. A marker shows that the replication works, and how late it is.
3. ``switch_database`` and ``database_switched`` make the target's cluster the writer of the Aurora global database.
   Graceful: a switchover, without loss, called in the source. Forced: a failover that may lose data, called in the
   target.
4. ``secret`` makes the secret in the target usable without the source. Graceful: it checks that the replica is in sync.
   Forced: it promotes the replica, so that it can be changed.
5. ``resume`` continues the failover to its end.

The Variable ``dr_data`` names the data. A task whose part is missing does nothing::

    {"buckets": {"us-east-2": "etl-ohio", "us-east-1": "etl-virginia"},
     "global_cluster": "etl",
     "clusters": {"us-east-2": "arn:aws:rds:us-east-2:111122223333:cluster:etl",
                  "us-east-1": "arn:aws:rds:us-east-1:111122223333:cluster:etl"},
     "secret": "etl/database"}

If the sites of the DR set have names, such as ``blue``, use them in place of the regions.

The role of the environment needs ``s3:PutObject`` and ``s3:GetObject`` on the markers (``dr-marker/*``),
``rds:DescribeGlobalClusters``, ``rds:SwitchoverGlobalCluster``, ``rds:FailoverGlobalCluster``,
``secretsmanager:DescribeSecret`` and ``secretsmanager:StopReplicationToReplica``.

If a task fails, the failover stays halted, and no region executes. Clear the task to continue, or cancel: trigger
``dr_failover`` with the region that is still active, after you have moved the data back. If the source is lost after
the drain, trigger this DAG again with the mode *forced*.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any

try:
    from airflow.sdk import DAG, Param, Variable, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
    from airflow.models import Variable
    from airflow.models.param import Param

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.operators.failover import FailoverOperator

log = logging.getLogger(__name__)

REPLICATED_WITHIN = timedelta(minutes=10)
"""How long the marker may take to the bucket of the target."""
SWITCHED_WITHIN = timedelta(minutes=15)
"""How long the switch of the database may take."""

regions = sorted(conf.load().environments)


def data(name: str) -> Any:
    """Return a part of the Variable ``dr_data``; None if it is not set."""
    return Variable.get("dr_data", {}, deserialize_json=True).get(name)


def aws_region(site: str) -> str:
    """Return the AWS region of a site of the DR set."""
    return conf.load().sites.aws_region_of(site)


def client(service: str, site: str) -> Any:
    """Return a client of an AWS service in the region of a site, with the credentials of the environment's role."""
    import boto3  # noqa: PLC0415  (it would make each parse of the file slower)

    return boto3.client(service, region_name=aws_region(site))


def is_forced(record: dict[str, Any], mode: str) -> bool:
    """Return whether the data moves without the source: it was not drained, or the caller says that it is lost now."""
    return "forced" in {record["mode"], mode}


def is_moved(record: dict[str, Any]) -> bool:
    """Return whether the target was active already, so that there is nothing to move."""
    return record["from"] == record["to"]


with DAG(
    dag_id="dr_failover_with_data",
    description="Fail over, and move a bucket, a database and a secret in between",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["dr", "dr:control"],
    params={
        "target_region": Param(
            type="string",
            minLength=1,
            title="Target region",
            description="The region to make active.",
            **({"enum": regions} if regions else {}),
        ),
        "reason": Param(
            type="string",
            minLength=1,
            maxLength=1000,
            title="Reason",
            description="Stored in the state and in the record.",
        ),
        "mode": Param("auto", type="string", enum=["auto", "graceful", "forced"], title="Mode"),
    },
    default_args={"retries": 3, "retry_delay": timedelta(seconds=15)},
) as dag:
    same: dict[str, Any] = {
        "target_region": "{{ params.target_region }}",
        "reason": "{{ params.reason }}",
        "mode": "{{ params.mode }}",
    }
    drain = FailoverOperator(task_id="drain", until="drained", hold=timedelta(minutes=30), **same)
    # If a person has cancelled the failover meanwhile, this task fails and starts no new one.
    resume = FailoverOperator(task_id="resume", plan_id="{{ ti.xcom_pull(task_ids='drain')['id'] or '' }}", **same)

    @task
    def marker(record: dict[str, Any], mode: str) -> dict[str, Any]:
        """
        Return which marker the target's bucket must have, or the age of the newest one.

        :return: ``key``: of the marker that was written into the source's bucket; empty if none was. ``rpo_s``: for a
            forced failover, seconds since the newest marker that the target's bucket has; None if it has none.
        """
        found: dict[str, Any] = {"key": "", "rpo_s": None}
        buckets, source, target = data("buckets"), record["from"], record["to"]
        if not buckets or is_moved(record):
            return found
        if not is_forced(record, mode):
            key = f"dr-marker/{record['id']}"
            client("s3", source).put_object(Bucket=buckets[source], Key=key, Body=b"")
            return {**found, "key": key}
        s3 = client("s3", target)
        try:
            body = s3.get_object(Bucket=buckets[target], Key=f"dr-marker/{source}")["Body"].read()
        except s3.exceptions.NoSuchKey:
            return found
        rpo_s = (datetime.now(timezone.utc) - datetime.fromisoformat(body.decode())).total_seconds()
        log.warning("Up to %.0f s of data may be missing in %s.", rpo_s, target)
        return {**found, "rpo_s": rpo_s}

    @task.sensor(mode="reschedule", poke_interval=10, timeout=REPLICATED_WITHIN.total_seconds())
    def marker_arrived(record: dict[str, Any], written: dict[str, Any]) -> bool:
        """Wait until the bucket of the target has the marker."""
        if not written["key"]:
            return True
        s3 = client("s3", record["to"])
        try:
            s3.get_object(Bucket=data("buckets")[record["to"]], Key=written["key"])
        except s3.exceptions.NoSuchKey:
            return False
        return True

    @task
    def switch_database(record: dict[str, Any], mode: str) -> str:
        """
        Start the switch, and return what was started: ``switchover``, ``failover``, or empty for nothing.

        Idempotent: a retry finds the switch that is in progress, or the target as the writer.
        """
        name, source, target = data("global_cluster"), record["from"], record["to"]
        if not name or is_moved(record):
            return ""
        found, arn = describe(target), data("clusters")[target]
        if is_writer(found, arn) or found.get("FailoverState", {}).get("ToDbClusterArn") == arn:
            return ""
        switch = {"GlobalClusterIdentifier": name, "TargetDbClusterIdentifier": arn}
        if not is_forced(record, mode):
            client("rds", source).switchover_global_cluster(**switch)
            return "switchover"
        client("rds", target).failover_global_cluster(**switch, AllowDataLoss=True)
        return "failover"

    def describe(site: str) -> dict[str, Any]:
        """Return the description of the global cluster in the region of *site*."""
        (found,) = client("rds", site).describe_global_clusters(GlobalClusterIdentifier=data("global_cluster"))[
            "GlobalClusters"
        ]
        return dict(found)

    def is_writer(found: dict[str, Any], arn: str) -> bool:
        """Return whether the cluster *arn* is the writer, and no switch is in progress."""
        members = {member["DBClusterArn"]: member["IsWriter"] for member in found["GlobalClusterMembers"]}
        return found["Status"] == "available" and members.get(arn, False)

    @task.sensor(mode="reschedule", poke_interval=10, timeout=SWITCHED_WITHIN.total_seconds())
    def database_switched(record: dict[str, Any]) -> bool:
        """Wait until the cluster of the target is the writer."""
        if not data("global_cluster") or is_moved(record):
            return True
        return is_writer(describe(record["to"]), data("clusters")[record["to"]])

    @task
    def secret(record: dict[str, Any], mode: str) -> str:
        """Return the status of the secret in the target: ``in sync``, ``promoted``, or empty for no secret."""
        name, source, target = data("secret"), record["from"], record["to"]
        if not name or is_moved(record):
            return ""
        if not is_forced(record, mode):
            replicas = client("secretsmanager", source).describe_secret(SecretId=name).get("ReplicationStatus", [])
            # Without an entry for the target, the secret of the source is itself a replica, of the target's secret.
            late = [each for each in replicas if each["Region"] == aws_region(target) and each["Status"] != "InSync"]
            if late:
                raise ValueError(f"The replica of {name} in {target} is {late[0]['Status']}, not InSync.")
            return "in sync"
        manager = client("secretsmanager", target)
        if manager.describe_secret(SecretId=name).get("PrimaryRegion") not in {None, aws_region(target)}:
            manager.stop_replication_to_replica(SecretId=name)
        return "promoted"

    record: Any = drain.output
    mode = "{{ params.mode }}"
    written = marker(record, mode)
    started = switch_database(record, mode)
    marker_arrived(record, written) >> started
    started >> database_switched(record) >> resume
    secret(record, mode) >> resume
