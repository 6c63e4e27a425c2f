"""
One name for each object that moved between Airflow 2 and 3. No other module contains both locations.

Each import tries the Task SDK's location first, then Airflow 3.0's, then Airflow 2's. No code here compares version
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
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

try:
    from airflow.sdk import BaseOperatorLink
except ImportError:
    from airflow.models.baseoperatorlink import BaseOperatorLink  # type: ignore[no-redef,unused-ignore]

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowSkipException",
    "BaseOperatorLink",
    "PokeReturnValue",
    "TaskDeferred",
    "next_kwargs",
    "next_method",
    "run_began_at",
    "stats",
    "trigger_at",
    "xcom_value",
]


def next_method(task_instance: Any) -> str | None:
    """Return the method in which a deferred task resumes; None for a task that starts."""
    context = getattr(task_instance, "_ti_context_from_server", None) or task_instance
    method: str | None = context.next_method
    return method


def next_kwargs(task_instance: Any) -> Mapping[str, Any]:
    """
    Return the arguments with which a deferred task resumes, as Airflow has stored them; empty for a task that starts.

    Numbers and texts are values of the mapping. Other values may be encoded.
    """
    context = getattr(task_instance, "_ti_context_from_server", None) or task_instance
    stored = getattr(context, "next_kwargs", None)
    # Airflow 3.0 stores {"__type": "dict", "__var": {...}}; later versions store a plain map.
    found = stored.get("__var", stored) if isinstance(stored, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def run_began_at(task_instance: Any) -> datetime | None:
    """Return when the task's run began; None if that is unknown."""
    context = getattr(task_instance, "_ti_context_from_server", None) or task_instance
    began_at = getattr(getattr(context, "dag_run", None), "start_date", None)
    return began_at if isinstance(began_at, datetime) and began_at.tzinfo is not None else None


def trigger_at(moment: datetime) -> Any:
    """
    Return a trigger of Airflow itself that fires at *moment*, an aware time.

    The triggerer can run it without this provider.
    """
    try:
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger  # noqa: PLC0415
    except ImportError:
        from airflow.triggers.temporal import (  # type: ignore[no-redef,unused-ignore]  # noqa: PLC0415
            DateTimeTrigger,
        )
    return DateTimeTrigger(moment=moment)


def stats() -> Any:
    """
    Return the metrics client that the scheduler has set up, with the functions ``gauge`` and ``incr``.

    The import is inside the function because no task needs it. From 3.2 on, ``airflow.stats`` is the Task SDK's copy,
    which drops all metrics until it is set up. A scheduler does not set it up
    (https://github.com/aws/amazon-mwaa-docker-images/pull/503). In 3.3, importing the SDK's serializers sets it up.
    """
    try:
        from airflow.observability import stats as found  # noqa: PLC0415
    except ImportError:
        from airflow import stats as found  # type: ignore[no-redef,unused-ignore]  # noqa: PLC0415
    # The newest versions have functions in the module; earlier versions have a class Stats in it.
    return getattr(found, "Stats", found)


def xcom_value(key: str, ti_key: Any) -> Any:
    """Return an XCom of a task instance, in a process that shows its links; None if there is none."""
    try:
        from airflow.sdk.execution_time.xcom import XCom  # noqa: PLC0415  (most processes do not need it)
    except ImportError:
        from airflow.models.xcom import XCom  # type: ignore[assignment,no-redef,unused-ignore]  # noqa: PLC0415
    return XCom.get_value(key=key, ti_key=ti_key)
