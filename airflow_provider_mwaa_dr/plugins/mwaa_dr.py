"""The plugin that Airflow loads. While ``[dr] enabled`` is false, its import does almost nothing."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_mwaa_dr import conf


def _listeners() -> list[Any]:
    if not conf.load().enabled:
        return []
    from airflow_provider_mwaa_dr.plugins import listener  # noqa: PLC0415  (a disabled plugin stays cheap)

    return [listener]


class MwaaDRPlugin(AirflowPlugin):
    """Registers gate and fence if this Airflow is part of a DR set (``[dr] enabled``); else registers nothing."""

    name = "mwaa_dr"
    listeners = _listeners()
