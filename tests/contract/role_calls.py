"""What each role does: a call of every method that its code uses, for the policies' tests."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import airflow_provider_mwaa_dr
from airflow_provider_mwaa_dr.aws.cloudwatch import SEND_EVERY_S, CloudWatchStats
from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.eventual import EventualStateStore
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.ledger import Head, LogEntry, RegionLedger
from airflow_provider_mwaa_dr.core.ports import (
    AgentStatus,
    DagSet,
    FailoverRecord,
    IdentityClaim,
    Registration,
    StateStore,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import Mode, Plan
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.contract.cloud import A, B, Cloud

PACKAGE = Path(airflow_provider_mwaa_dr.__file__).parent
AGENT = (
    *sorted(f"agent/{path.name}" for path in (PACKAGE / "agent").glob("*.py")),
    "plugins/fence.py", "core/bookkeeping.py",
)  # fmt: skip
ENGINE = (
    *sorted(f"core/failover/{path.name}" for path in (PACKAGE / "core" / "failover").glob("*.py")),
    "core/announced_runs.py", "core/pausing.py", "core/initialization.py", "core/environments.py", "hooks/dr_state.py",
    "core/readiness/collect.py", "operators/failover.py", "operators/dags.py", "operators/readiness.py",
    "cli/status.py", "cli/failover.py", "cli/history.py", "cli/pausing.py", "cli/initialize.py", "cli/check.py",
)  # fmt: skip


def methods_in(files: Sequence[str], port: type) -> set[str]:
    """Return the methods of a port that the code in *files* calls."""
    names = {name for name, _ in inspect.getmembers(port, inspect.isfunction) if not name.startswith("_")}
    found = set()
    for file in files:
        for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
            if isinstance(node, ast.Attribute) and node.attr in names:
                owner = ast.unparse(node.value)
                if re.search(r"(store|runs|tables|_store\(\)|_runs\(\))$", owner):
                    found.add(node.attr)
    return found


def uses_of_state(
    store: StateStore, copy: DynamoDBStateStore, region: str, clock: ManualClock
) -> dict[str, Callable[[], object]]:
    """
    Return a call of each method of the state's port, as *region* makes it, in a suitable order.

    :param copy: the store of the replica to which *store* writes a plan's items; *store* itself with strong
        consistency.
    """
    now = clock.now()
    inventory = Inventory(region=region, taken_at=now, public_key="k")
    dags = DagSet(id=region, region=region, recorded_at=now, dag_ids=("a", "b"))
    plan = Plan(
        id="p1", source=A, target=B, mode=Mode.AUTO, reason="r", by="b", owner="o", started_at=now
    )  # fmt: skip
    record = FailoverRecord.of(plan, epoch=0)
    agent = AgentStatus(
        region=region, job="1", host="h", at=now, beat=1, version=1, epoch=0, provider_version="1",
        airflow_version="3", reconciled_epoch=0,
    )  # fmt: skip

    unpublished = Unpublished(id="u", region=region, epoch=1, begun_epoch=0, at=now, why="refused", first_id=1)
    # An environment with a copied [dr] region may write only items of its real region.
    claim = IdentityClaim(
        region=B if region == A else A, environment="e", aws_region=region, job="1", at=now, beat=1, problem="p"
    )  # fmt: skip

    def write() -> None:
        state = store.read()
        store.write(replace(state, version=state.version + 1), expected_version=state.version)

    def overwrite() -> None:
        state = store.read()
        store.overwrite(replace(state, version=state.version + 1))

    def race() -> None:
        # Of two callers that record at the same time, the second one deletes its own pages.
        mine = replace(dags, id="raced")
        rival = DynamoDBStateStore(copy.table, copy.replicas, clock=clock, session=copy._replicas._session)
        replicas, put_if = copy._replicas, copy._replicas.put_if

        def late(*args: Any, **kwargs: Any) -> bool:
            rival.put_set(replace(mine, dag_ids=("c",)))
            return put_if(*args, **kwargs)

        replicas.put_if = late  # type: ignore[method-assign]
        store.put_set(mine)
        replicas.put_if = put_if  # type: ignore[method-assign]

    def snapshots() -> None:
        store.put_snapshot(dags)
        store.put_snapshot(dags)

    def inventories() -> None:
        # The second one replaces the first, and deletes its pages.
        store.put_inventory(inventory)
        store.put_inventory(inventory)

    return {
        "observe": lambda: store.observe(region),
        "read": store.read,
        "copies": store.copies,
        "write": write,
        "register": lambda: store.register(Registration(region=region, environment="e")),
        "registrations": store.registrations,
        "regions": store.regions,
        "put_regions": lambda: store.put_regions(region, [A, B]),
        "unreadable": lambda: store.unreadable([region]),
        "put_agent": lambda: store.put_agent(agent),
        "agents": lambda: store.agents(region),
        "forget_agent": lambda: store.forget_agent(region, "1"),
        "put_identity_claim": lambda: store.put_identity_claim(claim),
        "identity_claims": lambda: store.identity_claims(region),
        "forget_identity_claim": lambda: store.forget_identity_claim(claim),
        "put_dispute": lambda: store.put_dispute(region, ["e", "f"]),
        "put_fence": lambda: store.put_fence(region, now),
        "fence": lambda: store.fence(region),
        "held_tasks": lambda: store.held_tasks(region),
        "put_set": race,
        "get_set": lambda: store.get_set("raced"),
        "put_snapshot": snapshots,
        "get_snapshot": lambda: store.get_snapshot(region),
        "put_paused": lambda: store.put_paused(dags),
        "get_paused": lambda: store.get_paused(region),
        "put_inventory": inventories,
        "get_inventory": lambda: store.get_inventory(region),
        "inventory_key": lambda: store.inventory_key(region),
        "put_unpublished": lambda: store.put_unpublished(unpublished),
        "unpublished": lambda: store.unpublished(region),
        "newest_wanted_set": store.newest_wanted_set,
        "overwrite": overwrite,
        "acknowledge_unpublished": lambda: store.acknowledge_unpublished(region, unpublished.id, clock.now()),
        "put_record": lambda: store.put_record(record),
        "get_record": lambda: store.get_record("p1"),
        "records": store.records,
    }


def uses_of_ledger(runs: DynamoDBRunsStore, region: str, clock: ManualClock) -> dict[str, Callable[[], object]]:
    """Return a call of each method of the ledger's port. Only the own region's part is written."""
    entry = LogEntry(number=1, at=clock.now(), epoch=0, first_id=0, newest_id=0)
    other = B if region == A else A

    def save_checkpoint() -> None:
        runs.save_checkpoint(region, RegionLedger(number=1))
        # The second one replaces the first, and deletes its page.
        runs.save_checkpoint(region, RegionLedger(number=2, heads={"orders": Head(dag_id="orders")}))
        runs.save_checkpoint(region, RegionLedger(number=3))

    return {
        "append": lambda: runs.append(region, entry),
        "log": lambda: runs.log(other, after=0),
        "save_checkpoint": save_checkpoint,
        "checkpoint_info": lambda: runs.checkpoint_info(other),
        "checkpoint": lambda: runs.checkpoint(other),
    }


def uses_of_metrics(client: Any, clock: ManualClock) -> dict[str, Callable[[], object]]:
    """Return the call that sends an agent's metrics."""
    stats = CloudWatchStats(A, "e", clock, client=client)

    def send() -> None:
        clock.advance(SEND_EVERY_S)
        stats.gauge("mwaa_dr.role", 1)

    return {"put_metrics": send}


@dataclass(frozen=True, kw_only=True)
class Stores:
    """State and ledger of a deployed cloud; *copy* is the replica to which a plan's items are written."""

    state: StateStore
    copy: DynamoDBStateStore
    runs: DynamoDBRunsStore


def stores(cloud: Cloud, model: str = "strong", *, region: str = A) -> Stores:
    """
    Return the stores of *region*, opened as :mod:`airflow_provider_mwaa_dr.aws.dynamodb.stores` opens them for the
    model.
    """
    runs = DynamoDBRunsStore(
        cloud.runs_table, cloud.regions, clock=cloud.clock, session=cloud.session, timeout_s=20,
        own_region=None if model == "strong" else region,
    )  # fmt: skip
    if model == "strong":
        store = cloud.store()
        return Stores(state=store, copy=store, runs=runs)
    copies = {each: cloud.copy(each) for each in cloud.regions}
    state = EventualStateStore(copies, mode=Eventual(model), clock=cloud.clock)
    state.read()  # a plan is written to the active region's replica
    return Stores(state=state, copy=copies[A], runs=runs)


def key_in(cloud: Cloud, region: str) -> str:
    """Create a key; return its ARN."""
    return str(cloud.client("kms", region).create_key()["KeyMetadata"]["Arn"])


def encrypt_bucket(cloud: Cloud, region: str, key: str | None) -> None:
    """Encrypt new objects with a KMS key; None: with the one of S3, which AWS manages."""
    default = {"SSEAlgorithm": "aws:kms", **({"KMSMasterKeyID": key} if key else {})}
    rule = {"ApplyServerSideEncryptionByDefault": default}
    cloud.client("s3", region).put_bucket_encryption(
        Bucket=cloud.buckets[region], ServerSideEncryptionConfiguration={"Rules": [rule]}
    )


MODELS = ("strong", "available")
"""How the stores are opened. For IAM, only their calls differ; the table here always has strong consistency."""


DOING: Mapping[str, str] = {
    "observe": "read the state",
    "read": "read the state",
    "copies": "read every replica of the state",
    "write": "write the state",
    "overwrite": "replace a damaged state item",
    "register": "register an environment",
    "registrations": "read the registry",
    "regions": "read the list of regions",
    "put_regions": "write the list of regions",
    "unreadable": "find items that cannot be read",
    "put_agent": "send a heartbeat",
    "agents": "read heartbeats",
    "forget_agent": "remove the heartbeat of a scheduler that ended",
    "put_identity_claim": "report a wrong region or name",
    "identity_claims": "read reports of a wrong region or name",
    "forget_identity_claim": "withdraw a report of a wrong region or name",
    "put_dispute": "report that two environments claim one region",
    "put_fence": "report that the fence works",
    "fence": "read whether the fence works",
    "held_tasks": "read whether the fence holds tasks",
    "put_set": "record a set of DAGs",
    "get_set": "read a set of DAGs",
    "put_snapshot": "record which DAGs are unpaused",
    "get_snapshot": "read which DAGs were unpaused",
    "put_paused": "record what `mwaa-dr pause` paused",
    "get_paused": "read what `mwaa-dr pause` paused",
    "put_inventory": "list the region's contents",
    "get_inventory": "read the list of a region's contents",
    "inventory_key": "read the other region's public key",
    "put_unpublished": "list runs that could not be taken over",
    "unpublished": "read runs that could not be taken over",
    "acknowledge_unpublished": "acknowledge runs that could not be taken over",
    "newest_wanted_set": "find the last recorded set of DAGs",
    "put_record": "write the record of a failover",
    "get_record": "read the record of a failover",
    "records": "read the records of failovers",
    "put_metrics": "send metrics for alarms",
    "append": "write the ledger",
    "log": "read the ledger",
    "save_checkpoint": "write a checkpoint of the ledger",
    "checkpoint_info": "read the checkpoint of the ledger",
    "checkpoint": "read the checkpoint of the ledger",
}
"""What a method of a port does, for the table of rights."""
