"""What pip reads from the two distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomllib

from airflow_provider_mwaa_dr import __version__

ROOT = Path(__file__).parents[2]


def project(folder: Path) -> dict[str, Any]:
    """Return the table ``project`` of a distribution."""
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


PROVIDER = project(ROOT)
CLI = project(ROOT / "packaging" / "mwaa-dr-cli")


def test_the_wheel_requires_no_package() -> None:
    """
    A requirement makes pip resolve all of Airflow together with a user's requirements.txt.

    With ``--no-index``, or with an older ``--constraint``, pip then installs nothing of the file.
    """
    assert PROVIDER["dependencies"] == []


def test_the_extras_are_those_of_the_messages() -> None:
    """Messages and documents name them. Those of the provider that install the command line stay as they were."""
    extras = PROVIDER["optional-dependencies"]
    assert (extras["cli"], extras["sandbox"]) == (["mwaa-dr-cli"], ["mwaa-dr-cli[sandbox]"])
    assert sorted(extras) == ["airflow", "cli", "sandbox"]
    assert sorted(CLI["optional-dependencies"]) == ["sandbox"]


def test_the_command_line_requires_the_provider_of_its_own_version() -> None:
    """A command line of another version than its modules would have other options than its documents."""
    assert CLI["version"] == __version__
    assert [each for each in CLI["dependencies"] if each.startswith(PROVIDER["name"])] == [
        f"{PROVIDER['name']}=={__version__}"
    ]


def test_one_distribution_has_the_script() -> None:
    """pip overwrites a script that two distributions have, and removes it with the first of them."""
    assert "scripts" not in PROVIDER
    assert CLI["scripts"] == {"mwaa-dr": "airflow_provider_mwaa_dr.cli:main"}
