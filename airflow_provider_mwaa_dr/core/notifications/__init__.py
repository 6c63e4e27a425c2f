"""
Notifications about failovers: what is to be sent, and how each is sent once.

The state item and the records are the only source. So each process that reads the state table finds the same
notifications, and agents send what a caller that died has not sent.
"""

from airflow_provider_mwaa_dr.core.notifications.courier import Courier
from airflow_provider_mwaa_dr.core.notifications.delivery import Channel, deliver, open_notifications
from airflow_provider_mwaa_dr.core.notifications.events import Notification, NotificationEvent, due, stopped

__all__ = [
    "Channel",
    "Courier",
    "Notification",
    "NotificationEvent",
    "deliver",
    "due",
    "open_notifications",
    "stopped",
]
