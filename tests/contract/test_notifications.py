"""
Notifications over real sockets: SNS and EventBridge of the emulated AWS, each with a queue, and an Airflow notifier.

The notifier is a function, because these tests run without Airflow; ``airflow/test_notifiers.py`` has real ones.
"""

from __future__ import annotations

import io
import json
import socket
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.aws.notifications import EventBus, RefusedEventError, SnsTopic, aws_channels
from airflow_provider_mwaa_dr.cli.region_switch import handler
from airflow_provider_mwaa_dr.cli.runtime import Runtime
from airflow_provider_mwaa_dr.core.config import DRConfig, parse_config
from airflow_provider_mwaa_dr.core.failover import StepEvent
from airflow_provider_mwaa_dr.core.notifications import Courier, Notification, NotificationEvent, deliver
from airflow_provider_mwaa_dr.core.ports import NOTIFICATIONS
from airflow_provider_mwaa_dr.core.state import Mode, Phase
from airflow_provider_mwaa_dr.exceptions import DrainTimeoutError, FailoverError, PlanSupersededError
from airflow_provider_mwaa_dr.hooks.notifiers import all_channels
from airflow_provider_mwaa_dr.plugins.send_notifications import send
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.contract.aws_server import HOME
from tests.contract.cloud import Cloud
from tests.contract.shared_clients import SharedClients
from tests.unit.cli.conftest import ENVIRON, Shell
from tests.unit.core.dr_set import A, B, C, World, request

WAIT_S = 60.0
"""A deadline for threads, far above what they need."""
NOTIFIER = "dr_notifiers_of_a_test.tell"
Row = tuple[str, str, str]


class Receivers:
    """A queue behind a topic, a queue behind an event bus, and a notifier."""

    def __init__(self, cloud: Cloud, notified: list[dict[str, Any]]) -> None:
        self.cloud = cloud
        self.notified = notified
        self._sqs = cloud.client("sqs", C)
        self.topic = cloud.client("sns", C).create_topic(Name=f"t-{cloud.id}")["TopicArn"]
        self._of_topic, arn = self._queue("topic")
        cloud.client("sns", C).subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn)
        events = cloud.client("events", C)
        self.bus = events.create_event_bus(Name=f"b-{cloud.id}")["EventBusArn"]
        self._of_bus, arn = self._queue("bus")
        pattern = json.dumps({"source": ["mwaa-dr"], "detail-type": ["MWAA DR failover"]})
        events.put_rule(Name="all", EventBusName=self.bus, EventPattern=pattern)
        events.put_targets(Rule="all", EventBusName=self.bus, Targets=[{"Id": "1", "Arn": arn}])

    def _queue(self, name: str) -> tuple[str, str]:
        url = self._sqs.create_queue(QueueName=f"{name}-{self.cloud.id}")["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
        return url, attributes["QueueArn"]

    def _bodies(self, url: str) -> list[dict[str, Any]]:
        bodies = []
        while rows := self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for row in rows:
                bodies.append(json.loads(row["Body"]))
                self._sqs.delete_message(QueueUrl=url, ReceiptHandle=row["ReceiptHandle"])
        return bodies

    def messages(self) -> list[dict[str, Any]]:
        """Return what the topic sent."""
        return self._bodies(self._of_topic)

    def events(self) -> list[dict[str, Any]]:
        """Return what the bus sent."""
        return self._bodies(self._of_bus)

    def everything(self) -> dict[str, list[str]]:
        """Return the events that each receiver got, as ``PLAN EVENT``, sorted."""
        values = [body["MessageAttributes"] for body in self.messages()]
        of_topic = [(each["plan_id"]["Value"], each["event"]["Value"]) for each in values]
        of_bus = [(body["detail"]["plan_id"], body["detail"]["event"]) for body in self.events()]
        of_notifier = [(each["plan_id"], each["event"]) for each in self.notified]
        return {
            name: sorted(map(" ".join, found))
            for name, found in (("topic", of_topic), ("bus", of_bus), ("notifier", of_notifier))
        }

    @property
    def config(self) -> DRConfig:
        """The settings that name all three."""
        texts = {"notification_topic": self.topic, "notification_bus": self.bus, "notifiers": NOTIFIER}
        config = parse_config({**texts, "state_table": "t", "region": A})
        assert not config.problems
        return config


@pytest.fixture
def notified(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the notifier got."""
    got: list[dict[str, Any]] = []
    module = types.ModuleType(NOTIFIER.partition(".")[0])
    module.tell = lambda context: got.append(context["failover"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return got


@pytest.fixture
def receivers(cloud: Cloud, notified: list[dict[str, Any]]) -> Receivers:
    return Receivers(cloud, notified)


@pytest.fixture
def world() -> World:
    return World.build()


@pytest.fixture
def courier(world: World, receivers: Receivers) -> Iterator[Courier]:
    channels = all_channels(receivers.config, session=receivers.cloud.session)
    courier = Courier(world.store.peer(), channels, world.clock, owner="engine-1")
    yield courier
    courier.close(WAIT_S)


def assert_received(receivers: Receivers, *wanted: tuple[str, str]) -> None:
    """Assert that each receiver got exactly these, each once."""
    keys = sorted(map(" ".join, wanted))
    assert receivers.everything() == {"topic": keys, "bus": keys, "notifier": keys}


def test_failover_and_failback(world: World, courier: Courier, receivers: Receivers) -> None:
    """Start and end of both."""
    there, back = (world.engine(courier=courier).run(request(target)).id for target in (B, A))
    courier.close(WAIT_S)
    assert_received(receivers, (there, "started"), (there, "completed"), (back, "started"), (back, "completed"))


def test_forced(world: World, courier: Courier, receivers: Receivers) -> None:
    """The messages of a failover whose source does not answer."""
    world.environments[A].unreachable = True
    record = world.engine(courier=courier).run(request(B, mode=Mode.FORCED, reason="flood"))
    courier.close(WAIT_S)
    first, last = sorted(receivers.messages(), key=lambda body: body["Subject"], reverse=True)
    assert first["Subject"] == f"MWAA DR: failover {A} -> {B} started"
    assert last["Subject"] == f"MWAA DR: failover {A} -> {B} completed"
    assert f"Plan {record.id}, forced, epoch 1" in last["Message"]
    assert last["MessageAttributes"]["needs_person"]["Value"] == "false"
    (event, *_) = [body for body in receivers.events() if body["detail"]["event"] == "completed"]
    assert (event["source"], event["detail-type"]) == ("mwaa-dr", "MWAA DR failover")
    assert {**event["detail"], "message": ""} == {
        "plan_id": record.id, "event": "completed", "needs_person": False, "from": A, "to": B, "mode": "forced",
        "reason": "flood", "by": "tester", "epoch": 1, "at": event["detail"]["at"], "detail": event["detail"]["detail"],
        "subject": last["Subject"], "message": "",
    }  # fmt: skip


def test_aborted(world: World, courier: Courier, receivers: Receivers) -> None:
    """The drain takes too long."""
    world.environments[A].add_run("dag_01", "r1", seconds=600)
    with pytest.raises(DrainTimeoutError) as caught:
        world.engine(courier=courier).run(request(B))
    courier.close(WAIT_S)
    assert caught.value.record is not None
    plan = caught.value.record.id
    assert_received(receivers, (plan, "started"), (plan, "aborted"), (f"{plan}-back", "completed"))


def test_superseded(world: World, courier: Courier, receivers: Receivers) -> None:
    """Another caller's plan replaces the first one."""
    plans: list[str] = []

    def supersede(event: StepEvent) -> None:
        if (event.name, event.status) == ("drain", "started"):
            assert world.state.plan is not None
            plans.append(world.state.plan.id)
            plans.append(world.engine("second", lambda _: None, courier=courier).run(request(C)).id)

    with pytest.raises(PlanSupersededError):
        world.engine("first", supersede, courier=courier).run(request(B))
    courier.close(WAIT_S)
    first, second = plans
    assert_received(receivers, (first, "started"), (first, "aborted"), (second, "started"), (second, "completed"))


def test_a_person_is_needed(world: World, courier: Courier, receivers: Receivers) -> None:
    """The engine stops, and its plan is open."""
    world.agents[B].changes["adopted_epoch"] = 0
    with pytest.raises(FailoverError) as caught:
        world.engine(courier=courier).run(request(B))
    courier.close(WAIT_S)
    assert caught.value.record is not None
    plan = caught.value.record.id
    assert_received(receivers, (plan, "started"), (plan, "stopped"))
    assert [each["needs_person"] for each in receivers.notified] == [False, True]


def test_agents_send_what_the_command_cannot(world: World, receivers: Receivers) -> None:
    """The command line has no Airflow, so no notifier. Topic and bus get nothing twice."""
    channels = aws_channels(receivers.config, session=receivers.cloud.session)
    courier = Courier(world.store.peer(), channels, world.clock, owner="mwaa-dr")
    plan = world.engine(courier=courier).run(request(B)).id
    courier.close(WAIT_S)
    assert receivers.notified == []
    for _ in range(2):
        everything = all_channels(receivers.config, session=receivers.cloud.session)
        assert send(receivers.config, world.store.peer(), everything, world.clock, still_s=0, version=0) == 0
    assert_received(receivers, (plan, "started"), (plan, "completed"))


class DeadTopic:
    """An SNS whose answers wait for :meth:`release`."""

    def __init__(self, events: list[str]) -> None:
        self._is_released = threading.Event()
        self.has_request = threading.Event()
        dead = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                dead.has_request.set()
                is_released = dead._is_released.wait(WAIT_S)
                events.append("the topic answers" if is_released else "the topic gives up")
                body = b"<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>"
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def release(self) -> None:
        self._is_released.set()

    def stop(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def test_a_topic_that_does_not_answer_delays_nothing(world: World, receivers: Receivers) -> None:
    """
    The failover completes, and the other channels deliver, while the topic has a request and does not answer.

    The topic answers only after that. If the failover waited for it, the test could not end.
    """
    order: list[str] = []
    dead = DeadTopic(order)
    try:
        sns = receivers.cloud.session.client("sns", region_name=C, endpoint_url=dead.url)
        others = all_channels(receivers.config, session=receivers.cloud.session)[1:]
        topic = SnsTopic(receivers.topic, client=sns)
        courier = Courier(world.store.peer(), [topic, *others], world.clock, owner="engine-1")

        def wait_for_request(event: StepEvent) -> None:
            if (event.name, event.status) == ("drain", "started"):
                assert dead.has_request.wait(WAIT_S)

        plan = world.engine(on_step=wait_for_request, courier=courier).run(request(B)).id
        assert (world.state.phase, world.state.active_region) == (Phase.STEADY, B)
        order.append("the failover completes")
        for worker in courier._workers[1:]:
            worker.join(WAIT_S)
        assert [each["event"] for each in receivers.notified] == ["started", "completed"]
        assert len(receivers.events()) == 2
        order.append("the others have it")
        dead.release()
        courier.close(WAIT_S)
    finally:
        dead.stop()
    assert order == ["the failover completes", "the others have it", "the topic answers", "the topic answers"]
    sent = [world.store.get(NOTIFICATIONS, f"{plan}#{event}#{topic.name}") for event in ("started", "completed")]
    assert all(each is not None and each.sent_at is not None for each in sent)


def notification() -> Notification:
    return Notification(
        plan_id="p", event=NotificationEvent.STARTED, source=A, target=B, mode="auto", reason="r", by="b", epoch=0,
        at=ManualClock().now(), detail="d", needs_person=False,
    )  # fmt: skip


def test_a_port_without_a_topic_stops_nothing(world: World, receivers: Receivers) -> None:
    """The connection is refused. The error is stored for the agents and for users."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    sns = receivers.cloud.session.client("sns", region_name=C, endpoint_url=url)
    courier = Courier(world.store.peer(), [SnsTopic(receivers.topic, client=sns)], world.clock, owner="engine-1")
    plan = world.engine(courier=courier).run(request(B)).id
    courier.close(WAIT_S)
    stored = world.store.get(NOTIFICATIONS, f"{plan}#completed#{receivers.topic}")
    assert stored is not None
    assert stored.error is not None


def test_a_fifo_topic_gets_a_group_for_each_failover(cloud: Cloud) -> None:
    """SNS itself drops a repeated message within five minutes."""
    sns, sqs = cloud.client("sns", C), cloud.client("sqs", C)
    topic = sns.create_topic(Name=f"t-{cloud.id}.fifo", Attributes={"FifoTopic": "true"})["TopicArn"]
    queue = sqs.create_queue(QueueName=f"q-{cloud.id}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    SnsTopic(topic, session=cloud.session).send(notification())
    (message,) = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"])["Messages"]
    assert message["Attributes"]["MessageGroupId"] == "p"
    assert message["Attributes"]["MessageDeduplicationId"] == "p-started"


def test_an_event_that_the_bus_refuses_is_an_error(cloud: Cloud) -> None:
    """EventBridge answers 200 with a count of failed entries."""

    class Refusing:
        def put_events(self, **_: Any) -> dict[str, Any]:
            return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure", "ErrorMessage": "again"}]}

    with pytest.raises(RefusedEventError, match="InternalFailure: again"):
        EventBus("arn:aws:events:us-west-2:123456789012:event-bus/b", client=Refusing()).send(notification())


class CloudShell(Shell):
    """A command line whose AWS services are those of a cloud."""

    def __init__(self, receivers: Receivers) -> None:
        super().__init__()
        self._session = receivers.cloud.session
        self.environ = {
            **ENVIRON,
            "AWS_REGION": B,
            "DR_NOTIFICATION_TOPIC": receivers.topic,
            "DR_NOTIFICATION_BUS": receivers.bus,
        }

    def runtime(self, *args: Any, **options: Any) -> Runtime:
        return replace(super().runtime(*args, **options), boto3_session=self._session)


def test_the_command_sends_to_topic_and_bus(receivers: Receivers) -> None:
    """``mwaa-dr failover`` with two environment variables waits for its notifications before it ends."""
    shell = CloudShell(receivers)
    plan = shell("failover", B, "--reason", "flood", "--yes", "--json").document["id"]
    keys = [f"{plan} completed", f"{plan} started"]
    assert receivers.everything() == {"topic": keys, "bus": keys, "notifier": []}


def test_the_function_for_region_switch_sends_to_topic_and_bus(receivers: Receivers) -> None:
    """It is the same command, in a Lambda function."""
    shell = CloudShell(receivers)
    context = types.SimpleNamespace(invoked_function_arn="arn:aws:lambda:us-east-1:1:function:f")

    def make_runtime(who: str) -> Runtime:
        return shell.runtime(io.StringIO(), io.StringIO(), io.StringIO(), who=who)

    plan = handler({}, context, make_runtime=make_runtime)["id"]
    keys = [f"{plan} completed", f"{plan} started"]
    assert receivers.everything() == {"topic": keys, "bus": keys, "notifier": []}


class Counting:
    """A channel that counts."""

    name = "counting"

    def __init__(self) -> None:
        self.got: list[str] = []

    def send(self, notification: Notification) -> None:
        self.got.append(notification.event.value)


def test_of_sixteen_processes_one_sends(table: str, session: SharedClients) -> None:
    """All of them find the same notifications at the same time, each with its own connection to one DynamoDB."""
    channel, barrier = Counting(), threading.Barrier(16)
    found = [replace(notification(), event=event) for event in NotificationEvent]

    def work(number: int) -> None:
        store = DynamoDBStateStore(table, (HOME,), session=session, timeout_s=20)
        store.get(NOTIFICATIONS, "none")  # connects
        barrier.wait(WAIT_S)
        deliver(store, channel, found, SystemClock(), owner=f"process-{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10 * WAIT_S)
    assert sorted(channel.got) == sorted(event.value for event in NotificationEvent)
