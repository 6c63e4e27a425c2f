"""The names of all channels that the settings name, for processes that only look what is to be sent."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.config import DRConfig


def notifier_channel(path: str) -> str:
    """Return the name of a notifier's channel."""
    return f"notifier {path}"


def channel_names(config: DRConfig) -> tuple[str, ...]:
    """Return the names of all channels."""
    aws = (config.notification_topic, config.notification_bus)
    return (*(name for name in aws if name), *map(notifier_channel, config.notifiers))
