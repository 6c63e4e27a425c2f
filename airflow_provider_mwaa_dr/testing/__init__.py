"""
Fakes of all external services that the provider uses, for its own tests and for yours.

They keep the promises of :mod:`airflow_provider_mwaa_dr.core.ports`: tests/contract runs the same tests with the fakes
and with the adapters for AWS. The fakes never sleep, open a socket or start a thread. Time is a :class:`ManualClock`,
and a test schedules later events on it.

.. code-block:: python

    clock = ManualClock()
    store = InMemoryStateStore()
    ohio = FakeEnvironment("us-east-2", dags=["orders", "billing"], clock=clock)
    ohio.add_run("orders", "scheduled__1", seconds=30)
    clock.after(10, lambda: setattr(ohio, "unreachable", True))
"""

from __future__ import annotations

from airflow_provider_mwaa_dr.testing.clock import ManualClock
from airflow_provider_mwaa_dr.testing.environment import FakeEnvironment
from airflow_provider_mwaa_dr.testing.global_table import InMemoryGlobalTable
from airflow_provider_mwaa_dr.testing.history_store import InMemoryHistoryStore
from airflow_provider_mwaa_dr.testing.runs_store import InMemoryRunsStore
from airflow_provider_mwaa_dr.testing.state_store import InMemoryStateStore
from airflow_provider_mwaa_dr.testing.tables import FakeTables

__all__ = [
    "FakeEnvironment",
    "FakeTables",
    "InMemoryGlobalTable",
    "InMemoryHistoryStore",
    "InMemoryRunsStore",
    "InMemoryStateStore",
    "ManualClock",
]
