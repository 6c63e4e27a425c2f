"""
``mwaa-dr``: the command line. It works without Airflow, so also when both environments are down.

Scripts rely on its JSON keys, its exit codes, and the one document on stdout. Do not change them.
"""

from __future__ import annotations

from airflow_provider_mwaa_dr.cli.application import main

__all__ = ["main"]
