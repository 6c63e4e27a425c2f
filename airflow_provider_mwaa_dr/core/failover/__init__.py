"""
The failover engine. :mod:`.engine` has the sequence of the steps, and the other modules have the steps.

Users of the package import from here; its modules import from each other.
"""

from airflow_provider_mwaa_dr.core.failover.engine import FailoverEngine
from airflow_provider_mwaa_dr.core.failover.preview import FailoverPreview
from airflow_provider_mwaa_dr.core.failover.recorded_sets import dags_not_unpaused, put_dags_not_unpaused
from airflow_provider_mwaa_dr.core.failover.records import StepEvent, abort_other_records
from airflow_provider_mwaa_dr.core.failover.request import FailoverRequest

__all__ = [
    "FailoverEngine",
    "FailoverPreview",
    "FailoverRequest",
    "StepEvent",
    "abort_other_records",
    "dags_not_unpaused",
    "put_dags_not_unpaused",
]
