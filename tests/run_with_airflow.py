"""
Run the tests that import Airflow: ``python tests/run_with_airflow.py VERSION [PYTEST ...]``.

The environment is the sandbox's own, in build/airflow, with the wheel that a user installs and the packages that the
tests need. Before that, the requirements of the wheel are resolved with the pins of the version: MWAA's image must have
all of them.
"""

from __future__ import annotations

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


def main(version: str, *pytest: str) -> int:
    """Return pytest's exit code, or 1 if the wheel would change packages of MWAA's image."""
    folder = ROOT / "build" / "airflow" / version
    environment = airflow_environment.provide_image(folder, version, say=print)
    python = str(environment.bin / "python")
    pins = airflow_environment.constraints(version)
    wheel = build_wheel(folder / "wheel")
    changed = changes(wheel, pins, airflow_environment.pythons_for(version)[0])
    if changed:
        print(f"{wheel.name} would change MWAA's image of {version}: {changed}", file=sys.stderr)
        return 1
    print(f"{wheel.name} changes no package of MWAA's image of {version}", flush=True)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for what in (["--no-deps", str(wheel)], ["--constraint", str(pins), *TEST_PACKAGES]):
        subprocess.run(
            [find_uv_bin(), "pip", "install", "--quiet", "--python", python, *what], check=True, env=variables
        )
    home = folder / "home"
    variables |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        # Airflow 2.11 warns about its own default when it is imported, and the tests treat warnings as errors.
        "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
        # Pytest plugins of Airflow's dependencies warn, and the tests treat warnings as errors.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [python, "-m", "pytest", *NEED_AIRFLOW, "-q", "--durations", "5", *pytest]
    root = beside_the_package(folder / "root")
    return subprocess.run(command, check=False, cwd=root, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
