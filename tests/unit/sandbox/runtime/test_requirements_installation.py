"""Requirements are installed as MWAA's containers install them, by a real pip and with a stand-in for Airflow."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import (
    AirflowEnvironment,
    pack_provider,
    provide_image,
)
from airflow_provider_mwaa_dr.sandbox.runtime.package_index import PackageIndex
from airflow_provider_mwaa_dr.sandbox.runtime.requirements_installation import install_requirements
from tests.waiting import wait_until
from tests.wheels import write_wheel

PROGRAM = (
    "from importlib.metadata import distributions, entry_points; "
    "print([d.version for d in distributions() if d.name == 'airflow-provider-mwaa-dr'], "
    "[e.name for group in ('airflow.plugins', 'apache_airflow_provider') for e in entry_points(group=group)])"
)


def _run(*words: object) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=True, cwd="/", env=variables
    )
    return answer.stdout.strip()


def _has(image: AirflowEnvironment, *modules: str) -> list[bool]:
    """Return which modules the environment's Python finds."""
    program = "import importlib.util, sys; print([importlib.util.find_spec(m) is not None for m in sys.argv[1:]])"
    return [word == "True" for word in _run(image.bin / "python", "-c", program, *modules).strip("[]").split(", ")]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PackageIndex:
    """Our package, and those of a user."""
    index = PackageIndex(tmp_path_factory.mktemp("the index"))
    pack_provider(index.folder)
    for name in ("with-a-missing-one", "with-a-conflict", "hidden-by-no-index"):
        write_wheel(index.folder, name, "1.0")
    write_wheel(index.folder, "needs-old-jinja", "1.0", "jinja2<3")
    write_wheel(index.folder, "jinja2", "2.11.3")
    write_wheel(index.folder, "needs-old-celery", "1.0", "celery<4")
    write_wheel(index.folder, "celery", "3.1.0")
    index.write_pages()
    return index


@pytest.fixture(scope="module")
def image(environment: AirflowEnvironment, tmp_path_factory: pytest.TempPathFactory) -> AirflowEnvironment:
    """An image, in which each test installs other packages."""
    return provide_image(tmp_path_factory.mktemp("images") / "an image", "3.3.1", say=pytest.fail)


def test_an_image_gets_the_provider_from_requirements_only(
    environment: AirflowEnvironment, index: PackageIndex, tmp_path: Path
) -> None:
    """The provider is absent, then installed from the index, and absent in a new image. Other packages stay."""
    log, file = tmp_path / "install.log", tmp_path / "requirements.txt"
    image = provide_image(tmp_path / "an image", "3.3.1", say=pytest.fail)
    assert _run(image.bin / "python", "-c", PROGRAM) == "[] []"

    file.write_text(f"# theirs\nrequests\nairflow-provider-mwaa-dr=={__version__}\n")
    assert install_requirements(image, file, index, log=log), log.read_text()
    assert _run(image.bin / "python", "-c", PROGRAM) == f"['{__version__}'] ['mwaa_dr', 'provider_info']"
    assert "[INFO] - Requirement already satisfied: requests" in log.read_text()
    assert _run(image.bin / "airflow", "version") == f"{image.bin}/airflow ['version']"

    provide_image(tmp_path / "an image", "3.3.1", say=pytest.fail)
    assert _run(image.bin / "python", "-c", PROGRAM) == "[] []"


@pytest.mark.parametrize(
    ("text", "modules", "message"),
    [
        (
            "with-a-missing-one\nno-such-package\n",
            ["with_a_missing_one"],
            "No matching distribution found for no-such",
        ),
        ("with-a-conflict\nneeds-old-jinja\n", ["with_a_conflict", "needs_old_jinja"], "ResolutionImpossible"),
        # A comment switches the constraints of the image off, but not the essential ones.
        ("# -c none\nneeds-old-celery\n", ["needs_old_celery"], "ResolutionImpossible"),
        ("--no-index\nhidden-by-no-index\n", ["hidden_by_no_index"], "No matching distribution found for hidden-by-"),
    ],
)
def test_a_failure_installs_nothing_and_has_the_level_info(
    image: AirflowEnvironment, index: PackageIndex, tmp_path: Path, text: str, modules: list[str], message: str
) -> None:
    """MWAA logs pip's errors with the level INFO, and reports them nowhere else."""
    file, log = tmp_path / "requirements.txt", tmp_path / "install.log"
    file.write_text(text)
    assert not install_requirements(image, file, index, log=log)
    lines = log.read_text().splitlines()
    assert any(line.startswith("[INFO] - ERROR: ") and message in line for line in lines), lines
    assert all(line.startswith("[INFO] - ") for line in lines)
    assert not any(_has(image, *modules))


def test_a_comment_switches_the_constraints_of_the_image_off(
    image: AirflowEnvironment, index: PackageIndex, tmp_path: Path
) -> None:
    """MWAA documents this for users who know what they do."""
    file, log = tmp_path / "requirements.txt", tmp_path / "install.log"
    file.write_text("# no -c here\nneeds-old-jinja\n")
    assert install_requirements(image, file, index, log=log), log.read_text()
    assert _has(image, "needs_old_jinja") == [True]


def test_an_installation_that_takes_too_long_has_failed(
    image: AirflowEnvironment, index: PackageIndex, tmp_path: Path
) -> None:
    """pip and the processes that it started are killed."""
    slow = replace(image, bin=tmp_path / "bin")
    slow.bin.mkdir()
    (slow.bin / "python").write_text(f"#!/bin/sh\necho $$ > '{tmp_path}/pid'\nsleep 300 &\nwait\n")
    (slow.bin / "python").chmod(0o755)
    file, log = tmp_path / "requirements.txt", tmp_path / "install.log"
    file.write_text("")
    assert not install_requirements(slow, file, index, log=log, limit_s=1)
    group = int((tmp_path / "pid").read_text())

    def is_gone() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(is_gone, "no process of the group is left")
