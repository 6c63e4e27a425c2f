"""Airflow notifiers as channels for notifications about failovers: Slack, PagerDuty and others."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from typing import Any

from airflow_provider_mwaa_dr.aws.notifications import aws_channels
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.notifications import Channel, Notification
from airflow_provider_mwaa_dr.core.notifications.names import notifier_channel


class NotifierChannel:
    """
    A notifier, or any function of one argument, that a setting names.

    The context has ``failover``, the document of the notification, and no DAG and no task. So a template is, for
    example, ``{{ failover.subject }}``.

    :param path: ``MODULE.NAME``.
    """

    def __init__(self, path: str) -> None:
        self.name = notifier_channel(path)
        self._path = path

    def send(self, notification: Notification) -> None:
        """Notify. :raises Exception: any error of the import or of the notifier."""
        module, _, name = self._path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        context: dict[str, Any] = {"dag": None, "failover": notification.document}
        if not hasattr(found, "notify"):
            found(context)
            return
        # Rendering changes a notifier. Its __call__ hides errors on Airflow 2 and 3.0, so these steps of it are here.
        notifier = copy.copy(found)
        notifier._update_context(context)
        notifier.render_template_fields(context)
        notifier.notify(context)


def all_channels(config: DRConfig, *, session: Any = None) -> Sequence[Channel]:
    """Return all channels that the settings name. Imports no notifier, and sends no request."""
    return [*aws_channels(config, session=session), *map(NotifierChannel, config.notifiers)]
