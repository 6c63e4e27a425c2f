"""What pip reads from the package."""

from __future__ import annotations

from pathlib import Path

import tomllib

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_wheel_requires_no_package() -> None:
    """
    A requirement makes pip resolve all of Airflow together with a user's requirements.txt.

    With ``--no-index``, or with an older ``--constraint``, pip then installs nothing of the file.
    """
    assert PROJECT["dependencies"] == []


def test_the_extras_are_those_of_the_messages() -> None:
    """Messages and documents name them."""
    assert sorted(PROJECT["optional-dependencies"]) == ["airflow", "cli", "sandbox"]
