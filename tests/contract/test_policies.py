"""
Least privilege: the policies of a role allow every call that our code makes, and each of their permissions is needed.

The calls are recorded in an unmodified boto3. Our own evaluator (:mod:`tests.tools.iam`) judges them; it is not AWS.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import boto3
import pytest
from moto.cloudformation.models import cloudformation_backends

from airflow_provider_mwaa_dr.agent.hold_alarm import HoldAlarm
from airflow_provider_mwaa_dr.agent.plan_finisher import PlanFinisher
from airflow_provider_mwaa_dr.aws.deploy.policies import (
    Scope,
    execution,
    finishing,
    flipping,
    notifying,
    reading,
    rest_api,
    using_table_keys,
    writing_back,
)
from airflow_provider_mwaa_dr.aws.dynamodb.tables import DynamoDBTables
from airflow_provider_mwaa_dr.aws.mwaa.environment import MwaaEnvironment
from airflow_provider_mwaa_dr.aws.notifications import aws_channels
from airflow_provider_mwaa_dr.cli.application import build_parser
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.history.store import HistoryStore
from airflow_provider_mwaa_dr.core.ledger import Head, LogEntry, RegionLedger
from airflow_provider_mwaa_dr.core.notifications import Notification, NotificationEvent, deliver
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    AgentStatus,
    DagSet,
    RunInfo,
    RunsStore,
    StateStore,
    Tables,
)
from airflow_provider_mwaa_dr.core.state import (
    DRState,
    Mode,
    Phase,
    Plan,
    announce,
    cancel,
    claim,
    complete,
    promote,
    record_set,
    resume,
    set_active_region,
    supersede,
)
from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import Answer, Request
from airflow_provider_mwaa_dr.testing import FakeEnvironment, ManualClock
from tests.contract.airflow_server import AirflowServer
from tests.contract.cloud import A, B, Cloud
from tests.contract.conftest import EACH_SET
from tests.contract.role_calls import (
    AGENT,
    DOING,
    ENGINE,
    MODELS,
    encrypt_bucket,
    key_in,
    methods_in,
    stores,
    uses_of_history,
    uses_of_ledger,
    uses_of_metrics,
    uses_of_state,
)
from tests.contract.shared_clients import SharedClients
from tests.tools.iam import Call, Document, Permission, is_allowed, permissions, without
from tests.tools.iam_calls import ACCOUNT, Recorder

RIGHTS = Path(__file__).parents[2] / "docs" / "reference" / "rights.md"
WRITES = re.compile("Put|Update|Delete")


@pytest.fixture
def recorder(session: SharedClients) -> Iterator[Recorder]:
    """Records every call of the test's clients."""
    recorder = Recorder()
    session.forget()  # a client has the handlers that its session had when it was created
    with recorder.listening(session):
        yield recorder
    session.forget()


@pytest.fixture
def deployed(cloud: Cloud, recorder: Recorder) -> Cloud:
    """A cloud with tables, policies and the first state."""
    with recorder.paused():
        assert cloud.deploy("--active", cloud.first).code == 0
        cloud.updated()
    return cloud


@pytest.fixture
def with_mwaa(cloud: Cloud) -> Iterator[None]:
    """Commands call the environments' REST APIs through MWAA, and not *cloud.airflows* directly."""
    servers = [AirflowServer(world, "3.3.1", clock=cloud.clock.monotonic) for world in cloud.airflows.values()]
    for server in servers:
        server.start()
        cloud.environments[server.world.region].update(airflow_url=server.airflow_url)
    cloud.configure()
    cloud.make_environment = lambda site: MwaaEnvironment(
        site.id, site.environment, aws_region=site.aws_region, clock=cloud.clock, session=cloud.session
    )
    yield
    for server in servers:
        server.stop()


@pytest.fixture
def scope(cloud: Cloud) -> Scope:
    """The scope of the printed policies."""
    return Scope(
        partition="aws", account=ACCOUNT, state_table=cloud.state_table, runs_table=cloud.runs_table,
        stack=cloud.stack, environments=cloud.sites.sorted(), buckets=cloud.buckets,
        roles={region: f"arn:aws:iam::{ACCOUNT}:role/service-role/role-{name}" for region, name in cloud.names.items()},
        dag_folders=dict.fromkeys(cloud.regions, "dags"),
    )  # fmt: skip


def names_in_page(scope: Scope) -> Mapping[str, str]:
    """Return what the page of rights shows instead of the names of a test; empty for sites in one region."""
    if scope.sites.has_names:
        return {}
    return {
        scope.environments[A]: "ENVIRONMENT", scope.environments[B]: "ENVIRONMENT", scope.buckets[A]: "BUCKET",
        scope.buckets[B]: "BUCKET", scope.state_table: "STATE_TABLE", scope.runs_table: "RUNS_TABLE",
        scope.stack: "STACK", **dict.fromkeys(scope.bucket_keys, "KEY"), A: "REGION", B: "REGION", ACCOUNT: "ACCOUNT",
    }  # fmt: skip


def do(recorder: Recorder, uses: Mapping[str, Callable[[], object]], names: Iterable[str]) -> None:
    """Make the calls of some methods of a port, in the order of *uses*."""
    names = set(names)
    assert names <= set(uses)
    for name, use in uses.items():
        if name in names:
            recorder.doing = DOING[name]
            use()
    recorder.doing = ""


def assert_exactly(calls: Sequence[Call], *documents: Document) -> list[tuple[Permission, list[Call]]]:
    """
    Assert that the policies together allow each call, and that each permission of each policy is needed.

    :return: each permission, and the calls that are denied without it.
    """
    assert calls
    refused = [call for call in calls if not is_allowed(documents, call)]
    assert not refused
    needed = []
    for number, document in enumerate(documents):
        for permission in permissions(document):
            rest = [*documents[:number], without(document, permission), *documents[number + 1 :]]
            denied = [call for call in calls if not is_allowed(rest, call)]
            assert denied, f"nothing needs {permission}"
            needed.append((permission, denied))
    return needed


def assert_page_shows(name: str, needed: Sequence[tuple[Permission, list[Call]]], shown: Mapping[str, str]) -> None:
    """
    Assert that the page of rights has this table of a policy; with ``WRITE_RIGHTS=1`` in the environment, write it.

    :param shown: what the page shows instead of the names of the test; the longest names are replaced first. Empty: the
        page does not show this set.
    """
    if not shown:
        return

    def text(value: str) -> str:
        for each in sorted(shown, key=len, reverse=True):
            value = value.replace(each, shown[each])
        return value

    rows: dict[str, str] = {}
    for permission, denied in needed:
        key = f"`{permission.kind.split(' ')[1]}` = " if " " in permission.kind else ""
        what = f"{key}`{text(permission.value)}`"
        reasons = list(dict.fromkeys(text(call.doing) for call in denied))
        more = f", and {len(reasons) - 2} more" if len(reasons) > 2 else ""
        rows.setdefault(f"| {permission.sid} | {what} |", f" {'; '.join(reasons[:2])}{more} |")
    lines = ["| statement | permission | without it, this fails |", "|---|---|---|", *(a + b for a, b in rows.items())]
    begin, end = f"<!-- rights: {name} -->\n", "<!-- end of rights -->"
    page = RIGHTS.read_text(encoding="utf-8")
    before, _, after = page.partition(begin)
    assert after, f"{RIGHTS} has no part {begin}"
    wanted = f"{before}{begin}\n" + "\n".join(lines) + f"\n\n{end}{after.partition(end)[2]}"
    if os.environ.get("WRITE_RIGHTS"):
        RIGHTS.write_text(wanted, encoding="utf-8")
    assert page == wanted, f"the part {name} of {RIGHTS.name} is stale: WRITE_RIGHTS=1 pytest {Path(__file__).name}"


FINISHES = {"write", "put record"}
"""The calls that an agent makes only to finish another caller's failover."""


def models(cloud: Cloud) -> Sequence[str]:
    """Return the models of the state table that a set can have."""
    return ("strong",) if cloud.sites.has_names else MODELS


@EACH_SET
@pytest.mark.parametrize("is_standby", [False, True])
def test_execution_roles_may_do_what_agents_and_fences_do(
    deployed: Cloud, scope: Scope, recorder: Recorder, is_standby: bool
) -> None:
    """They read everything, write their own site's items, and nothing else."""
    region = deployed.second if is_standby else deployed.first
    state_methods, ledger_methods = methods_in(AGENT, StateStore), methods_in(AGENT, RunsStore)
    assert state_methods > {*FINISHES, "put inventory", "inventory_key"}
    history_methods = methods_in(AGENT, HistoryStore)
    assert history_methods == {"append_page", "last_page", "pages", "page", "cursor", "save_cursor"}
    assert ledger_methods == {"append", "log", "save_checkpoint", "checkpoint_info", "checkpoint"}
    for model in models(deployed):
        with recorder.paused():
            opened = stores(deployed, model, region=region)
        do(recorder, uses_of_state(opened.state, opened.copy, region, deployed.clock), state_methods - FINISHES)
        do(recorder, uses_of_ledger(opened.runs, region, deployed.clock), ledger_methods)
        do(recorder, uses_of_history(opened.history, region, deployed.clock), history_methods)
    with recorder.paused():
        client = deployed.client("cloudwatch", region)
    do(recorder, uses_of_metrics(client, deployed.clock), {"put_metrics"})
    needed = assert_exactly(recorder.calls, execution(scope, region))
    assert_page_shows("execution", needed, names_in_page(scope))


class Dags:
    """A region in which one DAG of the recorded set is missing."""

    def unpaused_dags(self) -> Sequence[str]:
        return ["a"]

    def set_paused(self, dag_ids: Collection[str], *, paused: bool) -> None:
        del dag_ids, paused


def promoted(store: StateStore, clock: ManualClock, set_id: str) -> DRState:
    """Promote a failover to B; a second caller begins one back to A and cancels it. Then both callers end."""
    state = store.read()
    plan = Plan(
        id=set_id, source=A, target=B, mode=Mode.FORCED, reason="r", by="b", owner="gone", started_at=clock.now()
    )  # fmt: skip
    store.put(DAG_SETS, DagSet(id=set_id, region=A, recorded_at=clock.now(), dag_ids=("a", "b")))
    for step in (
        partial(claim, plan=plan), partial(record_set, set_id=set_id), partial(announce, set_id="s", had_ended=False),
        promote, partial(supersede, plan=replace(plan, id="back", target=A)),
        partial(cancel, plan_id="cancelled", by="c", owner="gone", reason="r"),
    ):  # fmt: skip
        new = step(state, at=clock.now())
        store.write(new, expected_version=state.version)
        state = new
    return state


def test_an_agent_finishes_a_failover_with_the_policy_for_it(deployed: Cloud, scope: Scope, recorder: Recorder) -> None:
    """
    A separate policy allows exactly the calls with which the target's agent finishes a failover alone.

    No other policy of the role allows one of them.
    """
    for model in MODELS:
        with recorder.paused():
            opened = stores(deployed, model, region=B)
            set_active(opened.state, A, deployed.clock)
            promoted(opened.state, deployed.clock, f"plan-{model}")
        finisher = PlanFinisher(
            opened.state,
            Dags(),
            deployed.clock,
            region=B,
            owner="agent",
            takeover_s=30.0,
            alarm=HoldAlarm(deployed.clock),
        )
        recorder.doing = "finish a failover"
        while (state := deployed.copy(B).read()).phase is not Phase.STEADY:
            with recorder.paused():
                opened.state.put_agent(agent_of(state, deployed.clock))
            observed = opened.state.observe(B).state
            assert observed is not None
            finisher.turn(observed)
            deployed.clock.advance(10)
        # Of two callers that record a set at the same time, the second one deletes its own pages.
        uses = uses_of_state(opened.state, opened.copy, A, deployed.clock)
        do(recorder, uses, {"put set of DAGs"})
    writes = [call for call in recorder.calls if WRITES.search(call.action) and not own_item_of(B, call)]
    assert not any(is_allowed([execution(scope, B)], call) for call in writes)
    assert_page_shows("finishing", assert_exactly(writes, finishing(scope)), names_in_page(scope))
    refused = [call for call in recorder.calls if not is_allowed([execution(scope, B), finishing(scope)], call)]
    assert not refused


TOPIC = f"arn:aws:sns:{A}:{ACCOUNT}:mwaa-dr"
BUS = f"arn:aws:events:{A}:{ACCOUNT}:event-bus/mwaa-dr"


def test_execution_roles_send_notifications_with_the_policy_for_it(
    deployed: Cloud, scope: Scope, recorder: Recorder, session: SharedClients
) -> None:
    """A separate policy allows exactly what the sending of notifications takes, in addition to reads."""
    for arn in (TOPIC, BUS):
        service, name = arn.split(":")[2], arn.rpartition(":")[2].rpartition("/")[2]
        with recorder.paused():
            client = deployed.client(service, A)
            client.create_topic(Name=name) if service == "sns" else client.create_event_bus(Name=name)
    channels = aws_channels(
        replace(DRConfig(environments={}), notification_topic=TOPIC, notification_bus=BUS), session=session
    )
    notification = Notification(
        plan_id="p", event=NotificationEvent.STARTED, source=A, target=B, mode="auto", reason="r", by="b", epoch=0,
        at=deployed.clock.now(), detail="d", needs_person=False,
    )  # fmt: skip
    recorder.doing = "send a notification"
    for model in MODELS:
        with recorder.paused():
            opened = stores(deployed, model, region=B)
        for channel in channels:
            deliver(opened.state, channel, [replace(notification, plan_id=model)], deployed.clock, owner="a")
    scope = replace(scope, topic=TOPIC, bus=BUS)
    assert not [call for call in recorder.calls if not is_allowed([execution(scope, B), notifying(scope)], call)]
    writes = [call for call in recorder.calls if not is_allowed([execution(scope, B)], call)]
    shown = {**names_in_page(scope), TOPIC: "TOPIC", BUS: "BUS"}
    assert_page_shows("notifying", assert_exactly(writes, notifying(scope)), shown)


def own_item_of(region: str, call: Call) -> bool:
    """Return whether a call is about an item of *region*, such as its snapshot."""
    return all(key.split("#")[1:2] == [region] for key in call.context["dynamodb:LeadingKeys"])


def set_active(store: StateStore, region: str, clock: ManualClock) -> None:
    """Make *region* active, if it is not."""
    state = store.read()
    if state.active_region != region:
        new = set_active_region(state, region, reason="r", by="b", at=clock.now())
        store.write(new, expected_version=state.version)


def agent_of(state: DRState, clock: ManualClock) -> AgentStatus:
    """Return the heartbeat of an agent of B that is ready for *state*."""
    return AgentStatus(
        region=B, job="1", host="h", at=clock.now(), beat=state.version, version=state.version, epoch=state.epoch,
        provider_version="1", airflow_version="3", adopted_epoch=state.epoch, reconciled_epoch=state.epoch,
        schedulers=("1",), fence_file_s=3.0,
    )  # fmt: skip


@EACH_SET
def test_dag_code_can_stop_a_dr_set_but_not_flip_it(deployed: Cloud, scope: Scope, recorder: Recorder) -> None:
    """
    DAG code has the execution role, so it can make any change of the state that the policies allow.

    It can write a plan, and a phase. No call of it changes active_region, epoch, failover_count or previous_region, or
    replaces or deletes the item. It can make every call of DRStateHook but those that change the state.
    """
    first, second = deployed.regions
    role = [execution(scope, first), finishing(scope)]
    store, at = deployed.store(), deployed.clock.now()
    plan = Plan(id="p", source=first, target=second, mode=Mode.FORCED, reason="r", by="b", owner="o", started_at=at)
    steps: Mapping[str, Callable[[DRState], DRState]] = {
        "claim": lambda state: claim(state, plan, at=at),
        "announce": lambda state: announce(state, "s", had_ended=False, at=at),
        "promote": lambda state: promote(state, at=at),
        "resume": lambda state: resume(state, at=at),
        "complete": lambda state: complete(state, not_unpaused_set_id=None, at=at),
        "set_active_region": lambda state: set_active_region(state, first, reason="r", by="b", at=at),
    }
    allowed = []
    for name, step in steps.items():
        del recorder.calls[:]
        state = store.read()
        store.write(step(state), expected_version=state.version)
        if all(is_allowed(role, call) for call in recorder.calls):
            allowed.append(name)
    assert allowed == ["claim", "resume", "complete"]

    del recorder.calls[:]
    client, key = deployed.client("dynamodb", first), {"state_id": {"S": "ACTIVE_REGION"}}
    for name in ("active_region", "epoch", "failover_count", "previous_region"):
        client.update_item(
            TableName=deployed.state_table, Key=key, UpdateExpression=f"SET {name} = :to, phase = :to",
            ExpressionAttributeValues={":to": {"S": second}},
        )  # fmt: skip
        client.update_item(TableName=deployed.state_table, Key=key, UpdateExpression=f"REMOVE {name}")
    client.put_item(TableName=deployed.state_table, Item={**key, "phase": {"S": "STEADY"}, "version": {"N": "9"}})
    client.delete_item(TableName=deployed.state_table, Key=key)
    assert len(recorder.calls) == 10
    assert not any(is_allowed(role, call) for call in recorder.calls)


def test_dag_code_may_make_the_reading_calls_of_the_hook(deployed: Cloud, scope: Scope, recorder: Recorder) -> None:
    """The policy for execution roles allows them without the one for finishing."""
    methods = methods_in(("hooks/dr_state.py", "core/environments.py"), StateStore)
    assert methods >= {"read", "write", "regions"}
    with recorder.paused():
        opened = stores(deployed)
    uses = uses_of_state(opened.state, opened.copy, A, deployed.clock)
    do(recorder, uses, methods - {"write"})
    assert all(is_allowed([execution(scope, A)], call) for call in recorder.calls)


def test_writing_a_newer_epoch_back_takes_a_policy_of_its_own(
    deployed: Cloud, scope: Scope, recorder: Recorder
) -> None:
    """
    If another caller that could not read a region's epoch overwrote it in every replica, the region writes it back.
    """
    with recorder.paused():
        opened = stores(deployed, "available", region=B)
        older = opened.copy.read()
        newer = set_active_region(older, B, reason="r", by="b", at=deployed.clock.now())
        opened.copy.write(newer, expected_version=older.version)
        assert opened.state.observe(B).state == newer
        opened.copy.overwrite(older)
    recorder.doing = "write a newer epoch back"
    opened.state.observe(B)
    assert deployed.copy(B).read() == newer
    writes = [call for call in recorder.calls if WRITES.search(call.action)]
    assert not any(is_allowed([execution(scope, B), finishing(scope)], call) for call in writes)
    assert_page_shows("writing_back", assert_exactly(writes, writing_back(scope)), names_in_page(scope))


@EACH_SET
def test_one_region_may_not_write_for_another(deployed: Cloud, scope: Scope, recorder: Recorder) -> None:
    """A role may not write a heartbeat, a snapshot, an inventory or a ledger of another region."""
    with recorder.paused():
        opened = stores(deployed)
    for uses in (
        uses_of_state(opened.state, opened.copy, deployed.second, deployed.clock),
        uses_of_ledger(opened.runs, deployed.second, deployed.clock),
    ):
        do(recorder, uses, uses)
    writes = [call for call in recorder.calls if WRITES.search(call.action)]
    assert len(writes) > 10
    assert not any(is_allowed([execution(scope, deployed.first)], call) for call in writes)


@EACH_SET
def test_the_control_environment_may_do_what_a_failover_does(deployed: Cloud, scope: Scope, recorder: Recorder) -> None:
    """Engine, operators, command line and checks use both tables, and only read the ledger."""
    methods = methods_in(ENGINE, StateStore)
    assert {
        "write",
        "put set of DAGs",
        "put record",
        "register",
        "find_all record",
        "get inventory",
        "copies",
    } <= methods
    assert methods_in(ENGINE, Tables) == {"describe"}
    for model in models(deployed):
        with recorder.paused():
            opened = stores(deployed, model)
            uses = uses_of_state(opened.state, opened.copy, deployed.first, deployed.clock)
            for name in ("put_agent", "put inventory"):
                uses[name]()
        do(recorder, uses, methods)
        do(recorder, uses_of_ledger(opened.runs, deployed.first, deployed.clock), methods_in(ENGINE, RunsStore))
    recorder.doing = "`mwaa-dr check`"
    tables = DynamoDBTables(deployed.sites.aws_regions, clock=deployed.clock, session=deployed.session)
    for name in (deployed.state_table, deployed.runs_table):
        tables.describe(name)
    assert_page_shows("flipping", assert_exactly(recorder.calls, flipping(scope)), names_in_page(scope))


FIRST, SECOND = "FIRST", "SECOND"
COMMANDS: Sequence[Sequence[str]] = (
    ("init", "--active", FIRST, "--yes"),
    ("status",),
    ("check",),
    ("check", "--acknowledge", "u"),
    ("pause", SECOND, "--yes"),
    ("unpause", SECOND, "--yes"),
    ("failover", SECOND, "--reason", "r", "--dry-run"),
    ("failover", SECOND, "--reason", "r", "--yes"),
    ("failover", FIRST, "--reason", "r", "--mode", "forced", "--yes"),
    ("history",),
    ("report", "--output", "/dev/null"),
    ("init", "--active", FIRST, "--above-every-epoch", "--yes"),
)
"""In a suitable order. The names stand for the sites."""
READS = (("status",), ("history",))
"""The commands that the policy *reading* is for."""
OTHER_COMMANDS = {"deploy", "undeploy", "sandbox"}
"""These have their own policy, or need none."""


@pytest.mark.usefixtures("with_mwaa")
@pytest.mark.parametrize(
    ("cloud", "model"), [*(("two regions", model) for model in MODELS), ("one region", "strong")], indirect=["cloud"]
)
def test_each_command_makes_the_calls_that_its_policy_allows(
    deployed: Cloud, scope: Scope, recorder: Recorder, model: str
) -> None:
    """*flipping* and *REST API* allow every call of each command, and *reading* exactly those of status and history."""
    (commands,) = [
        each for each in build_parser(with_sandbox=True)._actions if hasattr(each, "choices") and each.choices
    ]
    assert {words[0] for words in COMMANDS} | OTHER_COMMANDS == set(commands.choices)
    with recorder.paused():
        opened = stores(deployed, model)
        consistency = {"DR_TABLE_CONSISTENCY": "eventual", "DR_EVENTUAL": model} if model != "strong" else {}
        deployed.set_variables(
            {"DR_STATE_TABLE_REGION": A, "DR_STATE_TABLE_REPLICAS": ",".join(deployed.sites.aws_regions), **consistency}
        )
        for region in deployed.regions:
            uses = uses_of_state(opened.state, opened.copy, region, deployed.clock)
            for name in ("put_agent", "put inventory", "put unpublished runs", "put snapshot"):
                uses[name]()
            checkpoint = RegionLedger(number=1, heads={"orders": Head(dag_id="orders")})
            opened.runs.save_checkpoint(region, checkpoint)
            opened.runs.append(region, LogEntry(number=2, at=deployed.clock.now(), epoch=0, first_id=0, newest_id=0))

    def beat(number: int) -> None:
        """Do what a failover expects of the agents of both regions."""
        with recorder.paused():
            state = opened.state.read()
            for region in deployed.regions:
                opened.state.put_agent(
                    AgentStatus(
                        region=region, job="1", host="h", at=deployed.clock.now(), beat=number, version=state.version,
                        epoch=state.epoch, provider_version="1", airflow_version="3", adopted_epoch=state.epoch,
                        reconciled_epoch=state.epoch, schedulers=("1",), fence_file_s=3.0,
                    )
                )  # fmt: skip
        deployed.clock.after(2, lambda: beat(number + 1))

    beat(2)
    reads: list[Call] = []
    for words in COMMANDS:
        del recorder.calls[:]
        recorder.doing = f"`mwaa-dr {words[0]}`"
        done = deployed.run(*({FIRST: deployed.first, SECOND: deployed.second}.get(word, word) for word in words))
        assert done.code == 0 or words == ("check",), f"mwaa-dr {' '.join(words)}: {done.err}"
        assert recorder.calls, words
        refused = [call for call in recorder.calls if not is_allowed([flipping(scope), rest_api(scope)], call)]
        assert not refused, f"mwaa-dr {' '.join(words)} is not allowed: {refused}"
        if words in READS:
            reads += recorder.calls
    assert_page_shows("reading", assert_exactly(reads, reading(scope)), names_in_page(scope))


@pytest.mark.parametrize("version", ["3.3.1", "2.10.3"])
def test_driving_airflow_takes_three_actions(
    version: str, scope: Scope, session: boto3.session.Session, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """InvokeRestApi for short paths, and a web login for paths that are too long."""
    clock = ManualClock()
    long = "a_dag_with_a_name_that_is_far_too_long_for_the_path_of_a_call_to_invoke_rest_api"
    for region, name in scope.environments.items():
        world = FakeEnvironment(region, name, clock=clock)
        world.add_dag("orders")
        world.add_dag(long)
        world.add_run(long, "manual__1")
        server = AirflowServer(world, version, clock=clock.monotonic)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        server.start()
        try:
            environment = MwaaEnvironment(region, name, clock=clock, session=session)
            recorder.doing = "`mwaa-dr status`"
            environment.status()
            recorder.doing = "`mwaa-dr check`"
            environment.describe()
            environment.try_change()
            recorder.doing = "list and pause DAGs"
            assert len(environment.dags()) == 2
            recorder.doing = "pause DAGs and stop runs with long ids"
            environment.set_paused([long], paused=True)
            environment.stop_run(RunInfo(dag_id=long, run_id="manual__1", state="running"))
        finally:
            server.stop()
    assert_page_shows("rest_api", assert_exactly(recorder.calls, rest_api(scope)), names_in_page(scope))


def implied(calls: Sequence[Call], scope: Scope) -> Iterator[Call]:
    """
    Yield calls that boto3 does not make, because AWS checks them as part of others. From AWS's documentation.

    MWAA gets the execution role. S3 answers 403 instead of 404 for a missing object without the right to list. S3 uses
    the bucket's KMS key.
    """
    through_s3 = {"kms:ViaService": (f"s3.{A}.amazonaws.com",)}
    for call in calls:
        if call.action == "airflow:UpdateEnvironment":
            (site,) = (site for site, name in scope.environments.items() if call.resource.endswith(f"/{name}"))
            service = {"iam:PassedToService": ("airflow.amazonaws.com",)}
            doing = f"{call.doing}: MWAA gets the role"
            yield Call(action="iam:PassRole", resource=scope.roles[site], context=service, doing=doing)
        elif call.action == "s3:GetObject":
            bucket = call.resource.partition("/")[0]
            yield Call(action="s3:ListBucket", resource=bucket, doing=f"{call.doing}: see that a file is missing")
        if call.action in {"s3:GetObject", "s3:PutObject"}:
            action = "kms:Decrypt" if call.action == "s3:GetObject" else "kms:GenerateDataKey"
            for key in scope.bucket_keys:
                doing = f"{call.doing}, if the bucket has a customer-managed key"
                yield Call(action=action, resource=key, context=through_s3, doing=doing)


def test_users_of_tables_with_customer_managed_keys_may_use_them(scope: Scope) -> None:
    """DynamoDB uses the key for its caller, so there is nothing to record: the list is that of AWS's own key policy."""
    key = f"arn:aws:kms:{A}:{ACCOUNT}:key/k"
    calls = [
        Call(
            action=f"kms:{action}",
            resource=key,
            context={"kms:ViaService": (f"dynamodb.{A}.amazonaws.com",)},
            doing="use a table with this key",
        )
        for action in ("Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "ReEncryptTo")
    ]
    needed = assert_exactly(calls, using_table_keys(replace(scope, table_keys=[key])))
    assert_page_shows("using_table_keys", needed, {**names_in_page(scope), key: "KEY"})


def fail_to_delete_the_stack(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CloudFormation fail to delete the stack once. The command reads the stack's events for the reason."""
    answer = cloud.server.answer
    stacks = cloudformation_backends[ACCOUNT][cloud.aws_region(cloud.second)].stacks.values()

    def fails(request: Request, service: str) -> Answer:
        if service == "cloudformation" and b"Action=DeleteStack" in request.body:
            for stack in stacks:
                if stack.name == cloud.stack:
                    stack.status = "DELETE_FAILED"
            body = b"<DeleteStackResponse xmlns='http://cloudformation.amazonaws.com/doc/2010-05-15/'/>"
            return Answer(status=200, headers=(("Content-Type", "text/xml"),), body=body)
        return answer(request, service)

    with monkeypatch.context() as patch:
        patch.setattr(cloud.server, "answer", fails)
        assert cloud.undeploy("--wait", "--build-on", "in-use").code == 1
    for stack in stacks:
        stack.status = "CREATE_COMPLETE"


@EACH_SET
@pytest.mark.usefixtures("with_mwaa")
def test_a_deployment_needs_exactly_its_policy(
    cloud: Cloud, scope: Scope, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deploy a wheel, DAGs and alarms, deploy again, update to a newer template, and undeploy with all data."""
    wheel = tmp_path / "airflow_provider_mwaa_dr-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("airflow_provider_mwaa_dr/__init__.py", "")
    with recorder.paused():
        keys = {region: key_in(cloud, region) for region in cloud.regions}
        for region, key in keys.items():
            encrypt_bucket(cloud, region, key)
    scope = replace(scope, bucket_keys=sorted(keys.values()))
    recorder.doing = "`mwaa-dr deploy`"
    cloud.come_alive(cloud.second, version="9.9", around=recorder.paused)
    arguments = ("--active", cloud.first, "--dags", "--wheel", str(wheel))
    done = cloud("deploy", *arguments, "--alarms", "--wait", "--yes", "--json")
    assert done.code == 0, done.out
    # A version in use that is not the latest is read by its version. Heartbeats are read if the state item is missing.
    with recorder.paused():
        for region in cloud.regions:
            cloud.put(region, cloud.environment(region)["RequirementsS3Path"], b"pandas\n")
        uses_of_state(cloud.store(), cloud.store(), cloud.first, cloud.clock)["put_agent"]()
        cloud.client("dynamodb", A).delete_item(TableName=cloud.state_table, Key={"state_id": {"S": "ACTIVE_REGION"}})
    assert cloud.deploy(*arguments, "--build-on", "in-use").code == 0
    # After a failover, the other region is the standby.
    with recorder.paused():
        cloud.updated()
        state = cloud.store().read()
        moved = set_active_region(state, cloud.second, reason="r", by="b", at=cloud.clock.now())
        cloud.store().write(moved, expected_version=state.version)
        cloud.come_alive(cloud.first, version="9.10", around=recorder.paused)
        newer = wheel.rename(tmp_path / "airflow_provider_mwaa_dr-9.10-py3-none-any.whl")
    done = cloud("deploy", "--dags", "--wheel", str(newer), "--build-on", "in-use", "--yes", "--json")
    assert done.code == 0, done.out
    cloud.updated()
    recorder.doing = "`mwaa-dr deploy --print-policies`"
    printed = cloud("deploy", "--print-policies", "--json").document["deploying"]
    recorder.doing = "`mwaa-dr undeploy`"
    fail_to_delete_the_stack(cloud, monkeypatch)
    assert cloud.undeploy("--delete-data", "--wait", "--build-on", "in-use").code == 0
    calls = [*recorder.calls, *implied(recorder.calls, scope)]
    assert_page_shows("deploying", assert_exactly(calls, printed), names_in_page(scope))


@EACH_SET
def test_the_printed_policies_are_those_of_the_template(cloud: Cloud) -> None:
    """All statements are equal to those that the emulated CloudFormation created."""
    cloud.set_variables({"DR_NOTIFICATION_TOPIC": TOPIC, "DR_NOTIFICATION_BUS": BUS})
    assert cloud.deploy("--active", cloud.first, "--agents-may-write-back").code == 0
    printed = cloud("deploy", "--print-policies", "--json").document
    iam = cloud.client("iam", A)
    made = {}
    for policy in iam.get_paginator("list_policies").paginate(Scope="Local").search("Policies[]"):
        if policy["PolicyName"].startswith(f"{cloud.stack}-"):
            version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
            logical = policy["PolicyName"].removeprefix(f"{cloud.stack}-").partition("-")[0]
            made[logical] = version["PolicyVersion"]["Document"]
    # The emulated CloudFormation cannot leave a statement out, so each of these has a policy of its own.
    made["Notifying"]["Statement"] += [
        statement for name in ("Publishing", "PuttingEvents") for statement in made.pop(name)["Statement"]
    ]
    # The stack is in the region of the standby. If both sites are there, the first id is here.
    here, there = cloud.regions if cloud.sites.share_region else reversed(cloud.regions)
    assert made == {
        "ExecutionHere": printed["execution"][here],
        "ExecutionThere": printed["execution"][there],
        "Finishing": printed["finishing"],
        "Notifying": printed["notifying"],
        "WritingBack": printed["writing_back"],
        "Flipping": printed["flipping"],
        "Reading": printed["reading"],
        "RestApi": printed["rest_api"],
    }
    attached = {
        region: {
            row["PolicyName"].removeprefix(f"{cloud.stack}-").partition("-")[0]
            for row in iam.list_attached_role_policies(RoleName=f"role-{name}")["AttachedPolicies"]
        }
        for region, name in cloud.names.items()
    }
    of_both = {"Finishing", "Notifying", "Publishing", "PuttingEvents", "WritingBack"}
    assert attached == {there: {"ExecutionThere", *of_both}, here: {"ExecutionHere", *of_both}}


@EACH_SET
def test_no_policy_has_a_wildcard(cloud: Cloud) -> None:
    """No action has a wildcard. A statement for all resources has a condition, and an action without resources."""
    printed = cloud("deploy", "--print-policies", "--json").document
    documents = [*printed["execution"].values(), *(printed[name] for name in printed if name != "execution")]
    assert len(documents) == 9
    for document in documents:
        for statement in document["Statement"]:
            assert not any("*" in action for action in statement["Action"])
            resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            if statement["Action"] == ["cloudwatch:PutMetricData"]:
                assert statement["Condition"] == {"StringEquals": {"cloudwatch:namespace": "MWAA-DR"}}
                continue
            assert "*" not in resources
