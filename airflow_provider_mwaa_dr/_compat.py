"""
What moved between Airflow 2 and 3, under one name each; the only module that knows.

First the Task SDK's place, then Airflow 3.0's, then Airflow 2's. Nothing here decides on a version number.
"""

from __future__ import annotations

from typing import Any

try:
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowSkipException,
        TaskDeferred,
    )
except ImportError:
    from airflow.exceptions import (  # type: ignore[no-redef,unused-ignore]
        AirflowException,
        AirflowFailException,
        AirflowSkipException,
        TaskDeferred,
    )

try:
    from airflow.sdk import PokeReturnValue
except ImportError:
    from airflow.sensors.base import PokeReturnValue  # type: ignore[no-redef,unused-ignore]

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowSkipException",
    "PokeReturnValue",
    "TaskDeferred",
    "next_method",
    "stats",
]


def next_method(task_instance: Any) -> str | None:
    """Return the method in which a task goes on that comes out of a deferral; None for one that starts."""
    context = getattr(task_instance, "_ti_context_from_server", None) or task_instance
    method: str | None = context.next_method
    return method


def stats() -> Any:
    """
    Return the metrics that a scheduler has set up: something with ``gauge`` and ``incr``.

    Imported here, for no task needs it. From 3.2 on ``airflow.stats`` leads to the Task SDK's copy, which drops all
    until it is set up: a scheduler does not (https://github.com/aws/amazon-mwaa-docker-images/pull/503), though in 3.3
    importing the SDK's serializers does.
    """
    try:
        from airflow.observability import stats as found  # noqa: PLC0415
    except ImportError:
        from airflow import stats as found  # type: ignore[no-redef,unused-ignore]  # noqa: PLC0415
    # Functions of the module in the newest versions, of a class in it in those before.
    return getattr(found, "Stats", found)
