"""Disaster recovery for Amazon MWAA: see README.md and docs."""

__version__ = "0.1.0"
