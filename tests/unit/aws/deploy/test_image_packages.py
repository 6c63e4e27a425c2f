"""The packages of MWAA's images. test_trial_installation.py uses them with a real pip."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.aws.deploy.image_packages import IMAGE, constraints, installed, is_known
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import versions


def test_each_supported_version_has_the_packages_of_its_image() -> None:
    """A new version of Airflow needs them, too."""
    kinds = {path.name for path in IMAGE.glob("*.txt")}
    assert kinds == {
        f"{kind}-{version}.txt" for version in versions() for kind in ("airflow", "essential", "installed")
    }
    assert all(map(is_known, versions()))
    assert not is_known("1.10.15")


@pytest.mark.parametrize("version", versions())
def test_an_image_has_airflow_and_what_the_plugin_needs(version: str) -> None:
    """The plugin imports these packages, and our wheel requires none."""
    found = installed(version)
    assert found["apache-airflow"] == version
    assert {"apache-airflow-providers-amazon", "boto3", "requests", "sqlalchemy"} <= found.keys()


@pytest.mark.parametrize(
    ("requirements", "kinds"),
    [
        (b"", ["essential", "airflow"]),
        (b"pandas\n", ["essential", "airflow"]),
        (b"-c mine.txt\n", ["essential"]),
        (b"pandas\n  --constraint mine.txt", ["essential"]),
        # MWAA documents that a comment switches its constraints off, and does not see the other spelling of the option.
        (b"# -c none: we know what we do\npandas\n", ["essential"]),
        (b"--constraint=mine.txt\n", ["essential", "airflow"]),
    ],
)
def test_the_users_constraints_replace_those_of_the_image(requirements: bytes, kinds: list[str]) -> None:
    """As MWAA's containers decide it. Nothing replaces the essential ones."""
    assert [path.name for path in constraints("3.3.1", requirements)] == [f"{kind}-3.3.1.txt" for kind in kinds]
