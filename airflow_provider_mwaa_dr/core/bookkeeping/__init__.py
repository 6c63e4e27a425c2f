"""
Keeping a region's part of the ledger, and acting on the parts of the other regions.

:mod:`.bookkeeper` has the steps of a region's agent, and the other modules have the parts. Users import from here.
"""

from airflow_provider_mwaa_dr.core.bookkeeping.bookkeeper import Bookkeeper
from airflow_provider_mwaa_dr.core.bookkeeping.conversion import CONF_BYTES, to_conf
from airflow_provider_mwaa_dr.core.bookkeeping.database import NO_RERUN_TAG, OPTED_OUT, LedgerDb, RunRow, open_runs
from airflow_provider_mwaa_dr.core.bookkeeping.publishing import TASKS_BYTES

__all__ = [
    "CONF_BYTES",
    "NO_RERUN_TAG",
    "OPTED_OUT",
    "TASKS_BYTES",
    "Bookkeeper",
    "LedgerDb",
    "RunRow",
    "open_runs",
    "to_conf",
]
