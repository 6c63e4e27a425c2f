"""
The packages in the image of each Airflow version of MWAA, and the rules for adding a user's packages to them.

A container of MWAA runs ``pip install --constraint ESSENTIAL --requirement FILE --constraint AIRFLOW`` when it starts.
The last constraints are missing if a line of the file has constraints of its own. The folder ``image`` has, for each
version: the constraints (``airflow-*.txt``), those that no file replaces (``essential-*.txt``), and the packages that
are installed (``installed-*.txt``). They come from https://github.com/aws/amazon-mwaa-docker-images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

IMAGE = Path(__file__).with_name("image")
LIMIT_S = 540.0
"""MWAA ends an installation after nine minutes."""

# MWAA's own expression, which has two surprises: a comment counts, too, and "--constraint=FILE" does not.
_OWN_CONSTRAINTS = re.compile(rb"-c |--constraint ")


def is_known(airflow_version: str) -> bool:
    """Return whether the packages in the image of this version are known."""
    return (IMAGE / f"airflow-{airflow_version}.txt").is_file()


def constraints(airflow_version: str, requirements: bytes) -> Sequence[Path]:
    """Return the constraints files with which MWAA's containers install *requirements*."""
    kinds = ["essential"] if _OWN_CONSTRAINTS.search(requirements) else ["essential", "airflow"]
    return [IMAGE / f"{kind}-{airflow_version}.txt" for kind in kinds]


def installed(airflow_version: str) -> Mapping[str, str]:
    """Return the version of each package in the image, by name."""
    lines = (IMAGE / f"installed-{airflow_version}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)
