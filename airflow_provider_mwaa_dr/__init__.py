"""Disaster recovery for Amazon MWAA: see README.md."""

__version__ = "0.1.0"
