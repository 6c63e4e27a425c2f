"""
``mwaa-dr``: what is left when both Airflows are down. Works without Airflow.

Section 8 of the design is a contract that scripts rely on: JSON keys, exit codes, one document on stdout.
"""

from __future__ import annotations

from airflow_provider_mwaa_dr.cli.application import main

__all__ = ["main"]
