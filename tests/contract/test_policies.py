"""Least privilege: the policies allow exactly the calls that the code makes, recorded over real sockets."""

from __future__ import annotations

import ast
import fnmatch
import inspect
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest

import airflow_provider_mwaa_dr
from airflow_provider_mwaa_dr.aws.deploy.policies import Scope, execution, finishing, flipping, rest_api
from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.aws.dynamodb.tables import DynamoDBTables
from airflow_provider_mwaa_dr.aws.mwaa.environment import MwaaEnvironment
from airflow_provider_mwaa_dr.cli.application import build_parser
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
    RunInfo,
    RunsStore,
    StateStore,
    Tables,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import Mode, Plan, set_active_region
from airflow_provider_mwaa_dr.sandbox.cloud.aws_server import _operation
from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import Answer, Request
from airflow_provider_mwaa_dr.testing import FakeEnvironment, ManualClock
from tests.contract.airflow_server import AirflowServer
from tests.contract.cloud import A, B, Cloud

ACCOUNT = "123456789012"
PACKAGE = Path(airflow_provider_mwaa_dr.__file__).parent
AGENT = ("agent/loop.py", "plugins/fence.py", "agent/inventory.py", "core/bookkeeping.py", "agent/plan_finisher.py")
ENGINE = (
    *sorted(f"core/failover/{path.name}" for path in (PACKAGE / "core" / "failover").glob("*.py")),
    "core/pausing.py", "core/initialization.py", "core/environments.py", "hooks/dr_state.py",
    "core/readiness/collect.py", "operators/failover.py", "operators/dags.py", "operators/readiness.py",
    "cli/status.py", "cli/failover.py", "cli/history.py", "cli/pausing.py", "cli/initialize.py", "cli/check.py",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request as IAM evaluates it."""

    action: str
    resource: str
    keys: tuple[str, ...] = ()


def allowing(document: Mapping[str, Any], call: Call) -> set[tuple[str, str]]:
    """
    Return (Sid, action) of each statement that allows a call. Supports the elements that the provider's policies use.
    """
    found = set()
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow"
        resources = statement["Resource"]
        resources = [resources] if isinstance(resources, str) else resources
        patterns = statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys", ["*"])
        if (
            call.action in statement["Action"]
            and any(fnmatch.fnmatchcase(call.resource, pattern) for pattern in resources)
            and all(any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns) for key in call.keys)
        ):
            found.add((statement["Sid"], call.action))
    return found


def grants(*documents: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return every (Sid, action) of documents."""
    return {
        (statement["Sid"], action)
        for document in documents
        for statement in document["Statement"]
        for action in statement["Action"]
    }


def assert_exactly(calls: Sequence[Call], *documents: Mapping[str, Any], besides: Sequence[str] = ()) -> None:
    """Assert that each call is allowed, and that every allowed action was called, except *besides*."""
    assert calls
    used = set()
    for call in calls:
        found = set().union(*(allowing(document, call) for document in documents))
        assert found, f"not allowed: {call}"
        used |= found
    assert {grant for grant in grants(*documents) if grant[1] not in besides} == used


def dynamodb_calls(region: str, operation: str, body: Mapping[str, Any]) -> Iterator[Call]:
    """Return a DynamoDB request as IAM evaluates it."""
    tables = body.get("RequestItems") or {body["TableName"]: {}}
    for table, asked in tables.items():
        resource = f"arn:aws:dynamodb:{region}:{ACCOUNT}:table/{table}"
        if operation == "BatchGetItem":
            rows = asked["Keys"]
        elif operation == "Query":
            rows = [{"pk": body["ExpressionAttributeValues"][":pk"]}]
        else:
            rows = [row for row in (body.get("Key") or body.get("Item"),) if row]
        keys = tuple((row.get("state_id") or row["pk"])["S"] for row in rows)
        yield Call(action=f"dynamodb:{operation}", resource=resource, keys=keys)


S3_ACTIONS = {"PUT": "PutObject", "DELETE": "DeleteObject", "GET": "GetObject"}


def calls_of(request: Request, service: str) -> list[Call]:
    """Return the calls that IAM evaluates for a request to the emulated AWS."""
    region, path = request.region or "", urlsplit(request.path)
    operation = _operation(request, service)["operation"]
    if service == "dynamodb":
        return list(dynamodb_calls(region, operation, json.loads(request.body)))
    if service == "cloudformation":
        (stack,) = parse_qs(request.body.decode())["StackName"]
        resource = f"arn:aws:cloudformation:{region}:{ACCOUNT}:stack/{stack}/id"
        return [Call(action=f"cloudformation:{operation}", resource=resource)]
    if service == "s3":
        resource = f"arn:aws:s3:::{unquote(path.path).lstrip('/')}"
        query = parse_qs(path.query, keep_blank_values=True)
        if "versioning" in query:
            return [Call(action="s3:GetBucketVersioning", resource=resource)]
        action = "GetObjectVersion" if "versionId" in query else S3_ACTIONS[request.method]
        return [Call(action=f"s3:{action}", resource=resource)]
    assert service == "mwaa", service
    _, kind, name = path.path.split("/")
    prefix = f"arn:aws:airflow:{region}:{ACCOUNT}"
    if kind == "environments":
        action = "UpdateEnvironment" if request.method == "PATCH" else "GetEnvironment"
        return [Call(action=f"airflow:{action}", resource=f"{prefix}:environment/{name}")]
    action = {"restapi": "InvokeRestApi", "webtoken": "CreateWebLoginToken"}[kind]
    return [Call(action=f"airflow:{action}", resource=f"{prefix}:role/{name}/Op")]


class Recorder:
    """Records all requests to a cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self.calls: list[Call] = []
        self._cloud, self._answer = cloud, cloud.server.answer
        cloud.server.answer = self._serve  # type: ignore[method-assign]

    def _serve(self, request: Request, service: str) -> Answer:
        # The service's own reads of the bucket are not calls of the caller.
        if request.caller != "mwaa":
            self.calls += calls_of(request, service)
        return self._answer(request, service)


@pytest.fixture
def scope(cloud: Cloud) -> Scope:
    """The scope of the printed policies."""
    return Scope(
        partition="aws", account=ACCOUNT, state_table=cloud.state_table, runs_table=cloud.runs_table,
        stack=cloud.stack, environments=dict(sorted(cloud.names.items())), buckets=cloud.buckets,
        roles={region: f"role-{name}" for region, name in cloud.names.items()},
        dag_folders=dict.fromkeys(cloud.regions, "dags"),
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
    assert cloud.deploy("--active", A).code == 0
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


MODELS = ("strong", "available")
"""How the stores are opened. For IAM, only their calls differ; the table here always has strong consistency."""


FINISHES = {"write", "put_record"}
"""The calls that an agent makes only to finish another caller's failover."""


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("region", [A, B])
def test_execution_roles_may_do_what_agents_and_fences_do(cloud: Cloud, scope: Scope, region: str, model: str) -> None:
    """They read everything, write their own region's items, and nothing else."""
    opened = stores(cloud, model, region=region)
    recorder = Recorder(cloud)
    state_methods, ledger_methods = methods_in(AGENT, StateStore), methods_in(AGENT, RunsStore)
    assert state_methods > {*FINISHES, "put_inventory", "inventory_key"}
    assert ledger_methods == {"append", "log", "save_checkpoint", "checkpoint_info", "checkpoint"}
    uses = uses_of_state(opened.state, opened.copy, region, cloud.clock)
    assert state_methods <= set(uses)
    for name in [name for name in uses if name in state_methods - FINISHES]:
        uses[name]()
    for use in uses_of_ledger(opened.runs, region, cloud.clock).values():
        use()
    assert_exactly(recorder.calls, execution(scope, region))


@pytest.mark.parametrize("model", MODELS)
def test_execution_roles_may_not_flip_unless_they_may_finish(cloud: Cloud, scope: Scope, model: str) -> None:
    """Only a separate policy allows to write the state item, and it allows nothing else."""
    opened = stores(cloud, model)
    recorder = Recorder(cloud)
    uses = uses_of_state(opened.state, opened.copy, A, cloud.clock)
    for name in FINISHES:
        uses[name]()
    uses["put_set"]()  # the DAGs that could not be unpaused
    writes = [call for call in recorder.calls if re.search("Put|Update|Delete", call.action)]
    assert {key.partition("#")[0] for call in writes for key in call.keys} == {"ACTIVE_REGION", "FAILOVER", "PAUSED"}
    assert not any(allowing(execution(scope, A), call) for call in writes)
    assert_exactly(writes, finishing(scope))


def test_writing_the_newer_epoch_back_takes_the_right_to_finish(cloud: Cloud, scope: Scope) -> None:
    """
    If another caller that could not read a region's epoch overwrote it in every replica, the region writes it back.
    """
    opened = stores(cloud, "available", region=B)
    older = opened.copy.read()
    newer = set_active_region(older, B, reason="r", by="b", at=cloud.clock.now())
    opened.copy.write(newer, expected_version=older.version)
    assert opened.state.observe(B).state == newer
    cloud.client("dynamodb", B).delete_item(TableName=cloud.state_table, Key={"state_id": {"S": "ACTIVE_REGION"}})
    opened.copy.write(older, expected_version=None)
    recorder = Recorder(cloud)
    opened.state.observe(B)
    assert cloud.copy(B).read() == newer
    writes = [call for call in recorder.calls if re.search("Put|Update|Delete", call.action)]
    assert not any(allowing(execution(scope, B), call) for call in writes)
    assert writes
    assert all(allowing(finishing(scope), call) for call in writes)


def test_one_region_may_not_write_for_another(cloud: Cloud, scope: Scope) -> None:
    """A role may not write a heartbeat, a snapshot, an inventory or a ledger of another region."""
    opened = stores(cloud)
    recorder = Recorder(cloud)
    for use in uses_of_state(opened.state, opened.copy, B, cloud.clock).values():
        use()
    for use in uses_of_ledger(opened.runs, B, cloud.clock).values():
        use()
    writes = [call for call in recorder.calls if re.search("Put|Update|Delete", call.action)]
    assert len(writes) > 10
    assert not any(allowing(execution(scope, A), call) for call in writes)


@pytest.mark.parametrize("model", MODELS)
def test_the_control_environment_may_do_what_a_failover_does(cloud: Cloud, scope: Scope, model: str) -> None:
    """Engine, operators, command line and checks use both tables, and only read the ledger."""
    opened = stores(cloud, model)
    uses = uses_of_state(opened.state, opened.copy, A, cloud.clock)
    for name in ("put_agent", "put_inventory"):
        uses[name]()
    recorder = Recorder(cloud)
    methods = methods_in(ENGINE, StateStore)
    assert {"write", "put_set", "put_record", "register", "records", "get_inventory", "copies"} <= methods <= set(uses)
    for name in [name for name in uses if name in methods]:
        uses[name]()
    ledger = uses_of_ledger(opened.runs, A, cloud.clock)
    for name in methods_in(ENGINE, RunsStore):
        ledger[name]()
    assert methods_in(ENGINE, Tables) == {"describe"}
    tables = DynamoDBTables(cloud.regions, clock=cloud.clock, session=cloud.session)
    for name in (cloud.state_table, cloud.runs_table):
        tables.describe(name)
    assert_exactly(recorder.calls, flipping(scope))


COMMANDS: Sequence[Sequence[str]] = (
    ("init", "--active", A, "--yes"),
    ("status",),
    ("check",),
    ("check", "--acknowledge", "u"),
    ("pause", B, "--yes"),
    ("unpause", B, "--yes"),
    ("failover", B, "--reason", "r", "--dry-run"),
    ("failover", B, "--reason", "r", "--yes"),
    ("failover", A, "--reason", "r", "--mode", "forced", "--yes"),
    ("history",),
    ("init", "--active", A, "--above-every-epoch", "--yes"),
)
"""In a suitable order."""
OTHER_COMMANDS = {"deploy", "undeploy", "sandbox"}
"""These have their own policy, or need none."""


@pytest.mark.parametrize("model", MODELS)
def test_each_command_makes_the_calls_that_its_policy_allows(cloud: Cloud, scope: Scope, model: str) -> None:
    """The policy *flipping* allows every call of each command of ``mwaa-dr``."""
    (commands,) = [
        each for each in build_parser(with_sandbox=True)._actions if hasattr(each, "choices") and each.choices
    ]
    assert {words[0] for words in COMMANDS} | OTHER_COMMANDS == set(commands.choices)
    opened = stores(cloud, model)
    consistency = {"DR_TABLE_CONSISTENCY": "eventual", "DR_EVENTUAL": model} if model != "strong" else {}
    cloud.set_variables({"DR_STATE_TABLE_REGION": A, "DR_STATE_TABLE_REPLICAS": ",".join(cloud.regions), **consistency})
    for region in (A, B):
        uses = uses_of_state(opened.state, opened.copy, region, cloud.clock)
        for name in ("put_agent", "put_inventory", "put_unpublished", "put_snapshot"):
            uses[name]()
        checkpoint = RegionLedger(number=1, heads={"orders": Head(dag_id="orders")})
        opened.runs.save_checkpoint(region, checkpoint)
        opened.runs.append(region, LogEntry(number=2, at=cloud.clock.now(), epoch=0, first_id=0, newest_id=0))
    recorder = Recorder(cloud)

    def beat(number: int) -> None:
        """Do what a failover expects of the agents of both regions. These calls do not count for the command."""
        calls, recorder.calls = recorder.calls, []
        state = opened.state.read()
        for region in (A, B):
            opened.state.put_agent(
                AgentStatus(
                    region=region, job="1", host="h", at=cloud.clock.now(), beat=number, version=state.version,
                    epoch=state.epoch, provider_version="1", airflow_version="3", adopted_epoch=state.epoch,
                    reconciled_epoch=state.epoch, schedulers=("1",), fence_file_s=3.0,
                )
            )  # fmt: skip
        recorder.calls = calls
        cloud.clock.after(2, lambda: beat(number + 1))

    beat(2)
    for words in COMMANDS:
        del recorder.calls[:]
        done = cloud.run(*words)
        assert done.code == 0 or words == ("check",), f"mwaa-dr {' '.join(words)}: {done.err}"
        assert recorder.calls, words
        refused = [call for call in recorder.calls if not allowing(flipping(scope), call)]
        assert not refused, f"mwaa-dr {' '.join(words)} is not allowed: {refused}"


@pytest.mark.parametrize("version", ["3.3.1", "2.10.3"])
def test_driving_airflow_takes_three_actions(
    version: str, scope: Scope, session: boto3.session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """InvokeRestApi for short paths, and a web login for paths that are too long."""
    clock = ManualClock()
    world = FakeEnvironment(A, "etl", clock=clock)
    world.add_dag("orders")
    long = "a_dag_with_a_name_that_is_far_too_long_for_the_path_of_a_call_to_invoke_rest_api"
    world.add_dag(long)
    world.add_run(long, "manual__1")
    server = AirflowServer(world, version, clock=clock.monotonic)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    calls: list[Call] = []
    answer = server.endpoint.answer

    def serve(request: Request) -> Answer:
        calls.extend(calls_of(request, "mwaa"))
        return answer(request)

    server.endpoint.answer = serve  # type: ignore[method-assign]
    server.start()
    try:
        environment = MwaaEnvironment(A, "etl", clock=clock, session=session)
        environment.status()
        environment.describe()
        environment.try_change()
        assert len(environment.dags()) == 2
        environment.set_paused([long], paused=True)
        environment.stop_run(RunInfo(dag_id=long, run_id="manual__1", state="running"))
    finally:
        server.stop()
    assert_exactly(calls, rest_api(replace(scope, environments={A: "etl", B: "etl"})))


def test_a_deployment_needs_exactly_its_policy(cloud: Cloud, scope: Scope, tmp_path: Path) -> None:
    """Deploy a wheel, DAGs and alarms, deploy again, update to a newer template, and undeploy with all data."""
    wheel = tmp_path / "airflow_provider_mwaa_dr-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("airflow_provider_mwaa_dr/__init__.py", "")
    recorder = Recorder(cloud)
    assert cloud.deploy("--active", A, "--dags", "--wheel", str(wheel), "--alarms", "--wait").code == 0
    ours = len(recorder.calls)
    # A version in use that is not the latest is read by its version. Heartbeats are read if the state item is missing.
    cloud.put(A, cloud.environment(A)["RequirementsS3Path"], b"pandas\n")
    uses_of_state(cloud.store(), cloud.store(), A, cloud.clock)["put_agent"]()
    cloud.client("dynamodb", A).delete_item(TableName=cloud.state_table, Key={"state_id": {"S": "ACTIVE_REGION"}})
    del recorder.calls[ours:]
    assert cloud.deploy("--active", A, "--dags", "--wheel", str(wheel)).changed == ["state"]
    printed = cloud("deploy", "--print-policies", "--json").document["deploying"]
    assert cloud.undeploy("--delete-data", "--wait", "--build-on", "in-use").code == 0
    assert_exactly(
        recorder.calls,
        printed,
        # Not recorded: MWAA gets the role; without the permission to list, S3 answers 403 for a missing object; events
        # are read only if a stack fails.
        besides=("iam:PassRole", "s3:ListBucket", "cloudformation:DescribeStackEvents"),
    )


def test_the_printed_policies_are_those_of_the_template(cloud: Cloud) -> None:
    """All statements are equal to those that the emulated CloudFormation created."""
    assert cloud.deploy("--active", A).code == 0
    printed = cloud("deploy", "--print-policies", "--json").document
    iam = cloud.client("iam", A)
    made = {}
    for policy in iam.get_paginator("list_policies").paginate(Scope="Local").search("Policies[]"):
        if policy["PolicyName"].startswith(f"{cloud.stack}-"):
            version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
            logical = policy["PolicyName"].removeprefix(f"{cloud.stack}-").partition("-")[0]
            made[logical] = version["PolicyVersion"]["Document"]
    # The stack is in the standby.
    assert made == {
        "ExecutionHere": printed["execution"][B],
        "ExecutionThere": printed["execution"][A],
        "Finishing": printed["finishing"],
        "Flipping": printed["flipping"],
        "RestApi": printed["rest_api"],
    }
    attached = {
        region: {
            row["PolicyName"].removeprefix(f"{cloud.stack}-").partition("-")[0]
            for row in iam.list_attached_role_policies(RoleName=f"role-{name}")["AttachedPolicies"]
        }
        for region, name in cloud.names.items()
    }
    assert attached == {A: {"ExecutionThere", "Finishing"}, B: {"ExecutionHere", "Finishing"}}


def test_no_policy_has_a_wildcard(cloud: Cloud) -> None:
    """No action has a wildcard, and no statement applies to all resources."""
    printed = cloud("deploy", "--print-policies", "--json").document
    documents = [*printed["execution"].values(), *(printed[name] for name in printed if name != "execution")]
    assert len(documents) == 6
    for document in documents:
        for statement in document["Statement"]:
            assert not any("*" in action for action in statement["Action"])
            resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            assert "*" not in resources
