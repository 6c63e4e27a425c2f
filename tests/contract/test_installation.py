"""
The two wheels, built and installed as a user does it, from a local folder.

The other packages come from the same index and cache as those of ``make setup``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest
from uv import find_uv_bin

from airflow_provider_mwaa_dr import __version__
from tests.wheels import ROOT, build_wheels

PINS = ROOT / "airflow_provider_mwaa_dr" / "sandbox" / "constraints" / "driver.txt"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both wheels, built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build_wheels(folder)
    return folder


@pytest.fixture(scope="module")
def installed(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a new virtual environment in which ``mwaa-dr-cli`` was installed by name."""
    folder = tmp_path_factory.mktemp("venv")
    run(find_uv_bin(), "venv", "--quiet", "--no-project", "--allow-existing", "--python", sys.executable, str(folder))
    run(
        find_uv_bin(), "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"),
        "--find-links", str(wheels), "--constraint", str(PINS), "mwaa-dr-cli",
    )  # fmt: skip
    return folder / "bin"


def run(*command: str, code: int = 0) -> str:
    """Return what a command printed on both streams. It has no credentials, and starts in another folder."""
    dropped = ("AWS_", "DR_", "PYTHON", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    answer = subprocess.run(
        command, cwd="/", env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert answer.returncode == code, answer.stdout
    return answer.stdout


def test_both_wheels_have_one_version(wheels: Path) -> None:
    """The command line requires exactly the provider's wheel beside it; MWAA gets that wheel alone."""
    versions = {}
    requirements = {}
    for path in wheels.glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
            metadata = BytesParser().parsebytes(archive.read(name))
        versions[metadata["Name"]] = metadata["Version"]
        requirements[metadata["Name"]] = [
            each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each
        ]
    assert versions == {"airflow-provider-mwaa-dr": __version__, "mwaa-dr-cli": __version__}
    assert requirements["airflow-provider-mwaa-dr"] == []
    assert f"airflow-provider-mwaa-dr=={__version__}" in requirements["mwaa-dr-cli"]


def test_the_command_line_has_no_modules(wheels: Path) -> None:
    """Two distributions with the same files would overwrite each other."""
    (wheel,) = wheels.glob("mwaa_dr_cli-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {Path(name).parts[0] for name in archive.namelist()} == {f"mwaa_dr_cli-{__version__}.dist-info"}


def test_the_installed_command_line_works_without_airflow(installed: Path) -> None:
    """By its name in a local folder, pip finds the provider and all other packages that the commands need."""
    assert run(str(installed / "mwaa-dr"), "--version") == f"mwaa-dr {__version__}\n"
    said = run(
        str(installed / "mwaa-dr"), "status", "--table", "no-table", "--table-region", "us-east-2", code=1
    )  # boto3 is there: it finds no credentials
    assert "credentials" in said
    assert "not installed" not in said


def test_without_the_extra_the_sandbox_names_it(installed: Path) -> None:
    """The message has the command that installs it."""
    said = run(str(installed / "mwaa-dr"), "sandbox", "up", code=2)
    assert "pip install 'mwaa-dr-cli[sandbox]'" in said


def test_uvx_runs_a_command_from_a_folder(wheels: Path) -> None:
    """The command of the documents: no installation before it."""
    said = run(
        find_uv_bin(), "tool", "run", "--quiet", "--python", sys.executable, "--find-links", str(wheels),
        "--constraints", str(PINS), "--from", "mwaa-dr-cli", "mwaa-dr", "--version",
    )  # fmt: skip
    assert said == f"mwaa-dr {__version__}\n"
