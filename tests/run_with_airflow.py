"""
Run the tests that import Airflow: ``python tests/run_with_airflow.py VERSION [PYTEST ...]``.

Without a path, all of them run against the wheel that a user installs. The environment is new, in build/airflow, with
the wheel and the packages that the tests need. Before that, the requirements of the wheel are resolved with the pins of
the version: MWAA's image must have all of them.

With paths (arguments that begin with ``tests/``), only these run, against the sources of this checkout. The environment
in build/airflow stays for the next call, which therefore takes seconds.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

from airflow_provider_mwaa_dr.sandbox.runtime import airflow_environment

NEED_AIRFLOW = [
    "tests/airflow",
    *(f"tests/unit/{part}" for part in ("hooks", "operators", "sensors", "triggers")),
]
# Every MWAA image has statsd in this version. The sandbox does not have it.
TEST_PACKAGES = ["pytest", "statsd==4.0.1"]
MIGRATED = "migrated.db"
"""Airflow's database without rows of a test; tests/airflow/conftest.py copies it."""
PACKAGE = "airflow_provider_mwaa_dr"
ROOT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout in *folder*, and return its path."""
    subprocess.run([find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def pinned(text: str) -> dict[str, str]:
    """Return the version of each package that a requirements file pins, by normalized name."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==([^\s;]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def changes(wheel: Path, pins: Path, python: str) -> dict[str, str]:
    """
    Return the packages that installing *wheel* would add to an image with *pins*, or change in it.

    :param python: the Python version of the image.
    """
    answer = subprocess.run(
        [find_uv_bin(), "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--python-version", python,
         "--constraint", str(pins), "-"],
        input=f"{airflow_environment.DISTRIBUTION} @ {wheel.as_uri()}\n", stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    image = pinned(pins.read_text())
    return {name: version for name, version in pinned(answer.stdout).items() if image.get(name) != version}


def beside_the_package(folder: Path) -> Path:
    """
    Return *folder* with links to everything in this checkout except the package.

    If Python found the package next to the tests, it would not import the installed one.
    """
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name not in {PACKAGE, "build"}:
            (folder / path.name).symlink_to(path)
    return folder


def wheel_environment(version: str, folder: Path) -> Path | None:
    """
    Make a new environment with the wheel of this checkout, and return its Python.

    None if the wheel would change packages of MWAA's image.
    """
    environment = airflow_environment.provide_image(folder, version, say=print)
    wheel = build_wheel(folder / "wheel")
    changed = changes(wheel, airflow_environment.constraints(version), airflow_environment.pythons_for(version)[0])
    if changed:
        print(f"{wheel.name} would change MWAA's image of {version}: {changed}", file=sys.stderr)
        return None
    print(f"{wheel.name} changes no package of MWAA's image of {version}", flush=True)
    python = environment.bin / "python"
    install(python, str(wheel))
    install_test_packages(python, version)
    return python


def sources_environment(version: str, folder: Path) -> Path:
    """Return the Python of an environment that uses the sources of this checkout. Make it if it is not there."""
    python = folder / "bin" / "python"
    needs = (airflow_environment.constraints(version), ROOT / "pyproject.toml", Path(__file__))
    mark = hashlib.sha256(b"".join(path.read_bytes() for path in needs)).hexdigest()
    done = folder / "done"
    if done.is_file() and done.read_text() == mark:
        return python
    airflow_environment.provide_image(folder, version, say=print)
    install(python, "--editable", str(ROOT))
    install_test_packages(python, version)
    migrate(python, folder / MIGRATED)
    done.write_text(mark)
    return python


def migrate(python: Path, database: Path) -> None:
    """Create Airflow's database in a new file. It takes most of the time of a short test, so it is done once."""
    settings = {
        "AIRFLOW_HOME": str(database.parent / "home"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
    }
    command = [str(python), "-m", "airflow", "db", "migrate"]
    subprocess.run(command, check=True, env=variables() | settings, stdout=subprocess.DEVNULL)


def install_test_packages(python: Path, version: str) -> None:
    """Install what the tests need, in the versions of MWAA's image."""
    install(python, "--constraint", str(airflow_environment.constraints(version)), *TEST_PACKAGES)


def install(python: Path, *what: str) -> None:
    """Install packages with uv into the environment of *python*."""
    command = [find_uv_bin(), "pip", "install", "--quiet", "--python", str(python), *what]
    subprocess.run(command, check=True, env=variables())


def variables() -> dict[str, str]:
    """Return this process's environment variables, without those that change what Python imports or compiles."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}}


def run(python: Path, *arguments: str, root: Path, folder: Path) -> int:
    """Run pytest in *root*, with Airflow's files in *folder*, and return its exit code."""
    settings = {
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        # Airflow 2.11 warns about its own default when it is imported, and the tests treat warnings as errors.
        "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
        # Pytest plugins of Airflow's dependencies warn, and the tests treat warnings as errors.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        # For a test's emulated AWS, which needs moto.
        "MWAA_DR_TEST_PYTHON": sys.executable,
    }
    if (folder / MIGRATED).is_file():
        settings["MWAA_DR_MIGRATED_DATABASE"] = str(folder / MIGRATED)
    command = [str(python), "-m", "pytest", "-q", "--durations", "5", *arguments]
    return subprocess.run(command, check=False, cwd=root, env=variables() | settings).returncode


def main(version: str, *arguments: str) -> int:
    """Return pytest's exit code, or 1 if the wheel would change packages of MWAA's image."""
    folder = ROOT / "build" / "airflow" / version
    if any(argument.startswith("tests/") for argument in arguments):
        folder = folder.with_name(f"{version}-sources")
        return run(sources_environment(version, folder), *arguments, root=ROOT, folder=folder)
    python = wheel_environment(version, folder)
    if python is None:
        return 1
    root = beside_the_package(folder / "root")
    return run(python, *NEED_AIRFLOW, *arguments, root=root, folder=folder)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
