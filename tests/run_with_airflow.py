"""
Run the tests that import Airflow: ``python tests/run_with_airflow.py VERSION [PYTEST ...]``.

The environment is the sandbox's own, with what tests need on top, below build/airflow.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

from airflow_provider_mwaa_dr.sandbox import airflow_environment

NEED_AIRFLOW = [
    "tests/airflow",
    *(f"tests/unit/{part}" for part in ("hooks", "operators", "sensors", "triggers")),
]
# statsd is in every MWAA image, in this version, and in no sandbox.
TEST_PACKAGES = ["pytest", "statsd==4.0.1"]
ROOT = Path(__file__).parents[1]


def main(version: str, *pytest: str) -> int:
    """Return pytest's exit code."""
    folder = ROOT / "build" / "airflow" / version
    environment = airflow_environment.provide(folder, version, say=print)
    python = str(environment.bin / "python")
    pins = str(airflow_environment.constraints(version))
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        [find_uv_bin(), "pip", "install", "--quiet", "--python", python, "--constraint", pins, *TEST_PACKAGES],
        check=True,
        env=variables,
    )
    home = folder / "home"
    variables |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        # 2.11 warns of its own default as soon as it is imported, and warnings are errors here.
        "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
        # Plugins that Airflow's dependencies bring along warn, and warnings are errors here.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [python, "-m", "pytest", *NEED_AIRFLOW, "-q", "--durations", "5", *pytest]
    return subprocess.run(command, check=False, cwd=ROOT, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
