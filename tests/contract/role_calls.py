"""What each role does: a call of every method that its code uses, for the policies' tests."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import airflow_provider_mwaa_dr
from airflow_provider_mwaa_dr.aws.cloudwatch import SEND_EVERY_S, CloudWatchStats
from airflow_provider_mwaa_dr.aws.dynamodb.history_store import DynamoDBHistoryStore
from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core import ports
from airflow_provider_mwaa_dr.core.carrying import SettingsOffer
from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.eventual import EventualStateStore
from airflow_provider_mwaa_dr.core.history.pages import HistoryPage, ImportCursor
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.ledger import Head, LogEntry, RegionLedger
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    FENCE_LOADS,
    IDENTITY_CLAIMS,
    INVENTORIES,
    PAUSED_SETS,
    RECORDS,
    REPORTS,
    SETTINGS_OFFERS,
    SNAPSHOTS,
    TRIGGERERS,
    UNPUBLISHED_EVENTS,
    AgentStatus,
    DagSet,
    FailoverRecord,
    FenceLoad,
    IdentityClaim,
    Registration,
    StateStore,
    StoredReport,
    TriggererStatus,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import Mode, Plan
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.contract.cloud import A, B, Cloud

PACKAGE = Path(airflow_provider_mwaa_dr.__file__).parent
AGENT = (
    *sorted(f"agent/{path.name}" for path in (PACKAGE / "agent").glob("*.py")),
    *sorted(f"core/bookkeeping/{path.name}" for path in (PACKAGE / "core" / "bookkeeping").glob("*.py")),
    *sorted(f"core/history/{path.name}" for path in (PACKAGE / "core" / "history").glob("*.py")),
    "plugins/fence.py", "plugins/triggerer.py",
)  # fmt: skip
ENGINE = (
    *sorted(f"core/failover/{path.name}" for path in (PACKAGE / "core" / "failover").glob("*.py")),
    "core/announced_runs.py", "core/pausing.py", "core/initialization.py", "core/environments.py", "hooks/dr_state.py",
    "core/readiness/collect.py", "operators/failover.py", "operators/dags.py", "operators/readiness.py",
    "core/status.py", "cli/status.py", "cli/failover.py", "cli/history.py", "cli/pausing.py", "cli/initialize.py",
    "cli/check.py", "cli/report.py", "core/reporting/failover.py",
)  # fmt: skip


def methods_in(files: Sequence[str], port: type) -> set[str]:
    """
    Return the methods of a port that the code in *files* calls.

    A method that takes a kind of item has the name of the kind, such as "put snapshot".
    """
    names = {name for name, _ in inspect.getmembers(port, inspect.isfunction) if not name.startswith("_")}
    found = set()
    for file in files:
        for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
            if isinstance(node, ast.Attribute) and node.attr in names - WITH_KIND and _is_port(node.value):
                found.add(node.attr)
            elif isinstance(node, ast.Call) and names >= WITH_KIND:
                found |= _with_kind(node)
    return found


WITH_KIND = {"put", "get", "find_all", "delete"}
"""The methods of the state's port whose first argument is a kind of item."""


def _with_kind(call: ast.Call) -> set[str]:
    """Return the name of the method in ``store.put(SNAPSHOTS, ...)`` or ``partial(store.get, SNAPSHOTS, ...)``."""
    return {
        f"{method.attr} {getattr(ports, kind.id).name}"
        for method, kind in pairwise([call.func, *call.args])
        if isinstance(method, ast.Attribute)
        and method.attr in WITH_KIND
        and _is_port(method.value)
        and isinstance(kind, ast.Name)
        and kind.id.isupper()
    }


def _is_port(owner: ast.expr) -> bool:
    return re.search(r"(store|runs|tables|_store\(\)|_runs\(\))$", ast.unparse(owner)) is not None


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

    triggerer = TriggererStatus(region=region, job="1", at=now, version=1, watchers=1, provider_version="1")

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
            rival.put(DAG_SETS, replace(mine, dag_ids=("c",)))
            return put_if(*args, **kwargs)

        replicas.put_if = late  # type: ignore[method-assign]
        store.put(DAG_SETS, mine)
        replicas.put_if = put_if  # type: ignore[method-assign]

    def snapshots() -> None:
        store.put(SNAPSHOTS, dags)
        store.put(SNAPSHOTS, dags)

    def inventories() -> None:
        # The second one replaces the first, and deletes its pages.
        store.put(INVENTORIES, inventory)
        store.put(INVENTORIES, inventory)

    def offers() -> None:
        offer = SettingsOffer(
            source=region, target=B if region == A else A, epoch=1, number=1, sealed_at=now, key_id="k",
            ephemeral_key="e", values={"variables": {"a": b"sealed"}},
        )  # fmt: skip
        store.put(SETTINGS_OFFERS, offer)
        store.put(SETTINGS_OFFERS, offer)

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
        "put identity claim": lambda: store.put(IDENTITY_CLAIMS, claim),
        "find_all identity claim": lambda: store.find_all(IDENTITY_CLAIMS, region),
        "delete identity claim": lambda: store.delete(IDENTITY_CLAIMS, claim),
        "put triggerer": lambda: store.put(TRIGGERERS, triggerer),
        "find_all triggerer": lambda: store.find_all(TRIGGERERS, region),
        "delete triggerer": lambda: store.delete(TRIGGERERS, triggerer),
        "put_dispute": lambda: store.put_dispute(region, ["e", "f"]),
        "request_heartbeats": lambda: store.request_heartbeats(region, "now"),
        "put fence load": lambda: store.put(FENCE_LOADS, FenceLoad(region=region, at=now)),
        "get fence load": lambda: store.get(FENCE_LOADS, region),
        "put set of DAGs": race,
        "get set of DAGs": lambda: store.get(DAG_SETS, "raced"),
        "put snapshot": snapshots,
        "get snapshot": lambda: store.get(SNAPSHOTS, region),
        "put set of paused DAGs": lambda: store.put(PAUSED_SETS, dags),
        "get set of paused DAGs": lambda: store.get(PAUSED_SETS, region),
        "put inventory": inventories,
        "put offer of settings": offers,
        "get offer of settings": lambda: store.get(SETTINGS_OFFERS, region),
        "get inventory": lambda: store.get(INVENTORIES, region),
        "inventory_key": lambda: store.inventory_key(region),
        "put unpublished runs": lambda: store.put(UNPUBLISHED_EVENTS, unpublished),
        "get unpublished runs": lambda: store.get(UNPUBLISHED_EVENTS, region),
        "newest_wanted_set": store.newest_wanted_set,
        "overwrite": overwrite,
        "acknowledge_unpublished": lambda: store.acknowledge_unpublished(region, unpublished.id, clock.now()),
        "put report": lambda: store.put(REPORTS, StoredReport(id="p1", taken_at=now, body="{}")),
        "get report": lambda: store.get(REPORTS, "p1"),
        "put record": lambda: store.put(RECORDS, record),
        "get record": lambda: store.get(RECORDS, "p1"),
        "find_all record": lambda: store.find_all(RECORDS),
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


def uses_of_history(history: DynamoDBHistoryStore, region: str, clock: ManualClock) -> dict[str, Callable[[], object]]:
    """Return a call of each method of the history's port. Only the own site's part is written."""
    other = B if region == A else A
    page = HistoryPage(number=1, at=clock.now(), epoch=0, progress=None)
    return {
        "append_page": lambda: history.append_page(region, page),
        "last_page": lambda: history.last_page(region),
        "pages": lambda: history.pages(other, after=0),
        "page": lambda: history.page(other, 1),
        "cursor": lambda: history.cursor(region, other),
        "save_cursor": lambda: history.save_cursor(region, other, ImportCursor()),
    }


def uses_of_metrics(client: Any, clock: ManualClock) -> dict[str, Callable[[], object]]:
    """Return the call that sends an agent's metrics."""
    stats = CloudWatchStats(A, "e", clock, client=client)

    def send() -> None:
        clock.advance(SEND_EVERY_S)
        stats.gauge("role", 1)

    return {"put_metrics": send}


@dataclass(frozen=True, kw_only=True)
class Stores:
    """State and ledger of a deployed cloud; *copy* is the replica to which a plan's items are written."""

    state: StateStore
    copy: DynamoDBStateStore
    runs: DynamoDBRunsStore
    history: DynamoDBHistoryStore


def stores(cloud: Cloud, model: str = "strong", *, region: str = A) -> Stores:
    """
    Return the stores of *region*, opened as :mod:`airflow_provider_mwaa_dr.aws.dynamodb.stores` opens them for the
    model.
    """
    runs = DynamoDBRunsStore(
        cloud.runs_table, cloud.sites.aws_regions, clock=cloud.clock, session=cloud.session, timeout_s=20,
        own_region=None if model == "strong" else region,
    )  # fmt: skip
    history = DynamoDBHistoryStore(
        cloud.runs_table, cloud.sites.aws_regions, days=30, clock=cloud.clock, session=cloud.session, timeout_s=20,
        own_region=None if model == "strong" else region,
    )  # fmt: skip
    if model == "strong":
        store = cloud.store()
        return Stores(state=store, copy=store, runs=runs, history=history)
    copies = {each: cloud.copy(each) for each in cloud.regions}
    state = EventualStateStore(copies, mode=Eventual(model), clock=cloud.clock)
    state.read()  # a plan is written to the active region's replica
    return Stores(state=state, copy=copies[A], runs=runs, history=history)


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
    "put identity claim": "report a wrong region or name",
    "find_all identity claim": "read reports of a wrong region or name",
    "delete identity claim": "withdraw a report of a wrong region or name",
    "put triggerer": "report that asset watchers have stopped",
    "find_all triggerer": "read whether asset watchers have stopped",
    "delete triggerer": "remove the report of a triggerer that ended",
    "put_dispute": "report that two environments claim one region",
    "request_heartbeats": "ask the agents of a region for a heartbeat",
    "put fence load": "report that the fence works",
    "get fence load": "read whether the fence works",
    "put set of DAGs": "record a set of DAGs",
    "get set of DAGs": "read a set of DAGs",
    "put snapshot": "record which DAGs are unpaused",
    "get snapshot": "read which DAGs were unpaused",
    "put set of paused DAGs": "record what `mwaa-dr pause` paused",
    "get set of paused DAGs": "read what `mwaa-dr pause` paused",
    "put inventory": "list the region's contents",
    "put offer of settings": "copy settings to the other region",
    "get offer of settings": "read settings that the other region offers",
    "get inventory": "read the list of a region's contents",
    "inventory_key": "read the other region's public key",
    "put unpublished runs": "list runs that could not be taken over",
    "get unpublished runs": "read runs that could not be taken over",
    "acknowledge_unpublished": "acknowledge runs that could not be taken over",
    "newest_wanted_set": "find the last recorded set of DAGs",
    "put report": "store the data of a report",
    "get report": "read the data of a report",
    "put record": "write the record of a failover",
    "get record": "read the record of a failover",
    "find_all record": "read the records of failovers",
    "put_metrics": "send metrics for alarms",
    "append": "write the ledger",
    "log": "read the ledger",
    "save_checkpoint": "write a checkpoint of the ledger",
    "checkpoint_info": "read the checkpoint of the ledger",
    "checkpoint": "read the checkpoint of the ledger",
    "append_page": "export the history",
    "last_page": "continue the export of the history",
    "pages": "import the history",
    "page": "import the history",
    "cursor": "continue the import of the history",
    "save_cursor": "import the history",
}
"""What a method of a port does, for the table of rights."""
