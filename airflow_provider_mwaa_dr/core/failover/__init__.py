"""
The failover engine. :mod:`.engine` has the sequence of the steps, and the other modules have the steps.

Callers of the engine import from here. The agent, which finishes a plan whose owner is silent, also imports from
``recorded_sets``, ``records`` and ``restore``.
"""

from airflow_provider_mwaa_dr.core.failover.actions import FailoverAction
from airflow_provider_mwaa_dr.core.failover.engine import FailoverEngine
from airflow_provider_mwaa_dr.core.failover.preview import FailoverPreview
from airflow_provider_mwaa_dr.core.failover.records import StepEvent, StepStatus
from airflow_provider_mwaa_dr.core.failover.request import FailoverRequest

__all__ = [
    "FailoverAction",
    "FailoverEngine",
    "FailoverPreview",
    "FailoverRequest",
    "StepEvent",
    "StepStatus",
]
