"""Airflow notifiers as channels for notifications about failovers."""

from __future__ import annotations

import json
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.dynamodb.items import record_to_item, state_to_item
from airflow_provider_mwaa_dr.core.config import parse_config
from airflow_provider_mwaa_dr.core.notifications import Notification, NotificationEvent
from airflow_provider_mwaa_dr.core.ports import FailoverOutcome, FailoverRecord
from airflow_provider_mwaa_dr.core.state import Mode, initial
from airflow_provider_mwaa_dr.hooks.notifiers import NotifierChannel, all_channels
from airflow_provider_mwaa_dr.plugins import send_notifications
from airflow_provider_mwaa_dr.testing import ManualClock

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]

SENT: list[tuple[str, str]] = []


def notifier(subject: str, message: str) -> Any:
    """Return a notifier with templates, like those of providers."""
    try:
        from airflow.sdk import BaseNotifier
    except ImportError:
        from airflow.notifications.basenotifier import BaseNotifier

    class Notifier(BaseNotifier):  # type: ignore[misc, unused-ignore]
        template_fields = ("message", "subject")

        def __init__(self) -> None:
            super().__init__()
            self.subject, self.message = subject, message

        def notify(self, context: Any) -> None:
            if "refuse" in self.message:
                raise RuntimeError("the service refuses it")
            SENT.append((self.subject, self.message))

    return Notifier()


def notification(event: NotificationEvent) -> Notification:
    return Notification(
        plan_id="p1", event=event, source="us-east-2", target="us-east-1", mode="auto", reason="flood", by="ana",
        epoch=1, at=ManualClock().now(), detail="It began.", needs_person=False,
    )  # fmt: skip


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that an option names."""
    found = types.ModuleType("dr_notifiers_of_a_test")
    monkeypatch.setitem(sys.modules, found.__name__, found)
    return found


def test_a_notifier_gets_each_notification_with_its_own_texts(module: Any) -> None:
    """Rendering changes a notifier, so each notification has a copy."""
    SENT.clear()
    module.slack = notifier("{{ failover.subject }}", "{{ failover.plan_id }} {{ failover.event }}")
    (channel,) = all_channels(parse_config({"notifiers": "dr_notifiers_of_a_test.slack"}))
    for event in (NotificationEvent.STARTED, NotificationEvent.COMPLETED):
        channel.send(notification(event))
    assert SENT == [
        ("MWAA DR: failover us-east-2 -> us-east-1 started", "p1 started"),
        ("MWAA DR: failover us-east-2 -> us-east-1 completed", "p1 completed"),
    ]


def test_an_error_of_a_notifier_is_not_hidden(module: Any) -> None:
    """Airflow 2 logs it only. Then the notification would count as sent."""
    module.slack = notifier("s", "refuse")
    with pytest.raises(RuntimeError, match="refuses"):
        NotifierChannel("dr_notifiers_of_a_test.slack").send(notification(NotificationEvent.STARTED))


def test_a_notifier_that_is_missing_is_an_error(module: Any) -> None:
    """The attempt fails, and its error is stored."""
    with pytest.raises(AttributeError, match="slack"):
        NotifierChannel("dr_notifiers_of_a_test.slack").send(notification(NotificationEvent.STARTED))


def test_the_notifier_of_the_amazon_provider_works(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notifier that users have: it renders its fields, and uses its hook."""
    from airflow.providers.amazon.aws.notifications.sns import SnsNotifier

    published: list[dict[str, Any]] = []
    module.sns = SnsNotifier(
        aws_conn_id=None, region_name="us-west-2", target_arn="arn", message="{{ failover.detail }}"
    )

    class Hook:
        def publish_to_target(self, **request: Any) -> None:
            published.append(request)

    monkeypatch.setattr(SnsNotifier, "hook", Hook())
    NotifierChannel("dr_notifiers_of_a_test.sns").send(notification(NotificationEvent.STARTED))
    assert [request["message"] for request in published] == ["It began."]


class _Table(BaseHTTPRequestHandler):
    """A DynamoDB with the items of a test. It checks no condition."""

    items: ClassVar[dict[str, dict[str, Any]]] = {}

    def do_POST(self) -> None:
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer: dict[str, Any] = {}
        if operation == "GetItem" and request["Key"]["state_id"]["S"] in self.items:
            answer = {"Item": self.items[request["Key"]["state_id"]["S"]]}
        elif operation == "PutItem":
            self.items[request["Item"]["state_id"]["S"]] = request["Item"]
        elif operation == "Scan":
            prefix = next(value["S"] for value in request["ExpressionAttributeValues"].values() if "S" in value)
            answer = {"Items": [item for key, item in self.items.items() if key.startswith(prefix)]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_the_process_that_an_agent_starts_calls_a_notifier_of_the_plugins_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has only the scheduler's environment variables. It ends by itself, and stores each result."""
    now = SystemClock().now()
    record = FailoverRecord(
        id="p1", source="us-east-2", target="us-east-1", mode=Mode.GRACEFUL, reason="flood", by="ana", started_at=now,
        finished_at=now, outcome=FailoverOutcome.COMPLETED, epoch=1,
    )  # fmt: skip
    state = initial("us-east-1", lease_s=60, by="t", at=now)
    stored = [state_to_item(state, write_token="0" * 32), record_to_item(record)]
    _Table.items = {item["state_id"]["S"]: item for item in stored}
    (tmp_path / "plugins").mkdir()
    out = tmp_path / "told.txt"
    (tmp_path / "plugins" / "dr_notifiers.py").write_text(
        f"def tell(context):\n    open({str(out)!r}, 'a').write(context['failover']['subject'] + '\\n')\n"
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Table)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DR__STATE_TABLE": "t",
        "AIRFLOW__DR__STATE_TABLE_REGION": "us-east-1",
        "AIRFLOW__DR__SITE": "us-east-1",
        "AIRFLOW__DR__NOTIFIERS": "dr_notifiers.tell",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }.items():
        monkeypatch.setenv(name, value)
    try:
        assert send_notifications.start(0.0, 1).wait(timeout=300) == 0
        assert send_notifications.start(0.0, 1).wait(timeout=300) == 0
    finally:
        server.shutdown()
        server.server_close()
    move = "MWAA DR: failover us-east-2 -> us-east-1"
    assert out.read_text().splitlines() == [f"{move} started", f"{move} completed"]
