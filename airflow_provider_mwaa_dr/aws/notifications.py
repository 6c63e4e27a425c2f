"""Channels of AWS for notifications: an SNS topic, and an event bus of EventBridge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_mwaa_dr.aws.session import notification_client
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.notifications import Notification

if TYPE_CHECKING:
    import boto3

SOURCE = "mwaa-dr"
"""The source of the events. Rules match it, and ``detail-type``."""
DETAIL_TYPE = "MWAA DR failover"


class RefusedEventError(Exception):
    """EventBridge refused an event."""


class _Channel:
    """
    A receiver with an ARN, in its own region.

    :param client: boto3's client; None: one without retries, made at the first use.
    """

    _service: ClassVar[str]

    def __init__(self, arn: str, *, session: boto3.session.Session | None = None, client: Any = None) -> None:
        self.name = arn
        self._session = session
        self._made = client

    @property
    def _client(self) -> Any:
        if self._made is None:
            self._made = notification_client(self._service, self.name.split(":")[3], session=self._session)
        return self._made


class SnsTopic(_Channel):
    """An SNS topic. A FIFO topic gets one group for each failover."""

    _service = "sns"

    def send(self, notification: Notification) -> None:
        """Publish the text, with plan id, event and whether a person has to act as attributes."""
        values = {
            "plan_id": notification.plan_id,
            "event": notification.event.value,
            "needs_person": str(notification.needs_person).lower(),
        }
        request: dict[str, Any] = {
            "TopicArn": self.name,
            "Subject": notification.subject,
            "Message": notification.message,
            "MessageAttributes": {name: {"DataType": "String", "StringValue": text} for name, text in values.items()},
        }
        if self.name.endswith(".fifo"):
            request["MessageGroupId"] = notification.plan_id
            request["MessageDeduplicationId"] = f"{notification.plan_id}-{notification.event.value}"
        self._client.publish(**request)


class EventBus(_Channel):
    """An event bus of EventBridge."""

    _service = "events"

    def send(self, notification: Notification) -> None:
        """Put an event with the notification's document. :raises RefusedEventError: EventBridge refused it."""
        answer = self._client.put_events(
            Entries=[
                {
                    "EventBusName": self.name,
                    "Source": SOURCE,
                    "DetailType": DETAIL_TYPE,
                    "Time": notification.at,
                    "Detail": json.dumps(notification.document),
                }
            ]
        )
        if answer.get("FailedEntryCount"):
            entry = answer["Entries"][0]
            raise RefusedEventError(f"{entry.get('ErrorCode')}: {entry.get('ErrorMessage')}")


def aws_channels(config: DRConfig, *, session: boto3.session.Session | None = None) -> list[SnsTopic | EventBus]:
    """Return the channels of AWS that the settings name. Sends no request."""
    channels: list[SnsTopic | EventBus] = []
    if config.notification_topic:
        channels.append(SnsTopic(config.notification_topic, session=session))
    if config.notification_bus:
        channels.append(EventBus(config.notification_bus, session=session))
    return channels
