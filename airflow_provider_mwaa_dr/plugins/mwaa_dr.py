"""The plugin that Airflow loads. While ``[dr] enabled`` is false, its import does almost nothing."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.core.display import get_logger

log = get_logger(__name__)


def _listeners() -> list[Any]:
    if not conf.load().enabled:
        return []
    from airflow_provider_mwaa_dr.plugins import listener  # noqa: PLC0415  (a disabled plugin stays cheap)

    return [listener]


class MwaaDRPlugin(AirflowPlugin):
    """Registers gate, fence and web part if this Airflow is part of a DR set (``[dr] enabled``); else nothing."""

    name = "mwaa_dr"
    listeners = _listeners()


def _add_web_part() -> None:
    """Add the page and the strip for web servers. Without them, gate and fence work as before."""
    if not conf.load().enabled:
        return
    try:
        from airflow_provider_mwaa_dr.web.airflow_versions import plugin_attributes  # noqa: PLC0415  (as above)

        for name, value in plugin_attributes(AirflowPlugin, _note_of).items():
            setattr(MwaaDRPlugin, name, value)
    except Exception:
        log.exception("The page Disaster recovery is not available; mwaa-dr status shows the same.")


def _note_of(dag_id: str, run_id: str) -> str:
    from airflow_provider_mwaa_dr.plugins.metadata.notes import note_of  # noqa: PLC0415  (it imports Airflow's models)

    return note_of(dag_id, run_id)


_add_web_part()
