"""Airflow notifiers as channels for notifications about failovers."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.config import parse_config
from airflow_provider_mwaa_dr.core.notifications import Notification, NotificationEvent
from airflow_provider_mwaa_dr.hooks.notifiers import NotifierChannel, all_channels
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
