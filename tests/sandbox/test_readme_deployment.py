"""
The pages on deployment, as a new user would follow them: their commands, unchanged, in an empty folder.

The user has a new virtual environment, and both wheels in the folder ``dist``. All other packages are in the ordinary
index.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.sandbox.cloud.buckets import USERS_OPTIONS, USERS_REQUIREMENTS
from airflow_provider_mwaa_dr.sandbox.drill.drill import Drill
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import DISTRIBUTION
from airflow_provider_mwaa_dr.sandbox.runtime.home import ACTIVE, BARE_NAMES, REGIONS, STANDBY
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox
from tests.documents import blocks, page
from tests.sandbox.bare_environments import environments
from tests.wheels import build_wheels

pytestmark = [pytest.mark.sandbox, pytest.mark.soak]

DEADLINE_S = 900.0


class User:
    """A user at a terminal in an empty folder, with nothing installed, who confirms every question."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder / "fresh"
        self.folder.mkdir()
        build_wheels(self.folder / "dist")
        self._venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", self._venv], check=True)
        self._variables = {
            **airflow_settings.process_variables(variables, bin_folder=self._venv / "bin"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def __call__(self, script: str) -> str:
        """Return the output of a script. Each of its commands must succeed."""
        keyboard, terminal = pty.openpty()
        os.write(keyboard, b"y\n")
        try:
            answer = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", script],
                cwd=self.folder, env=self._variables, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, check=False, timeout=DEADLINE_S,
            )  # fmt: skip
        finally:
            os.close(keyboard)
            os.close(terminal)
        print(answer.stdout)
        assert answer.returncode == 0, answer.stdout
        return answer.stdout


def test_with_mwaa_dr_deploy(tmp_path: Path) -> None:
    """With the page's commands, two empty environments get the provider and their role."""
    (words,) = blocks(page("how-to/deploy"), "bash")
    sandbox = Sandbox(tmp_path / "s", say=print)
    try:
        described = sandbox.up(bare=True)
        user = User(tmp_path, described["env"])
        said = user(words)
        assert "Would change what is listed above." in said
        for region in REGIONS:
            found = next(
                line for line in said.splitlines() if line.startswith(f"{region} ") and BARE_NAMES[region] in line
            )
            assert found.split()[2] == ("active" if region == ACTIVE else "standby")
            assert found.endswith("AVAILABLE")
        described = sandbox.description()
        for region in described["regions"].values():
            assert {name for name in region["env"] if name.startswith("AIRFLOW__DR__")} >= {"AIRFLOW__DR__ENABLED"}
            assert DISTRIBUTION in airflow(region, "providers", "list")
            assert {"dr_failover", "dr_test_dag"} <= set(airflow(region, "dags", "list", "--columns", "dag_id").split())
    finally:
        sandbox.down(purge=True)


def airflow(region: Mapping[str, Any], *words: str) -> str:
    """Return the output of a command of a region's own Airflow."""
    folder = Path(region["bin"])
    return subprocess.run(
        [folder / "airflow", *words, "--output", "plain"],
        env=airflow_settings.process_variables(region["env"], bin_folder=folder),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_by_hand(tmp_path: Path) -> None:
    """Command by command with the AWS command line. Afterwards `mwaa-dr deploy` is a no-op."""
    stack, state, requirements, options, dags = blocks(page("how-to/deploy-by-hand"), "bash")
    placeholder = f"REGION={STANDBY} NAME={BARE_NAMES[STANDBY]}\n"
    assert requirements.startswith(placeholder)
    with environments(tmp_path / "home") as variables:
        user = User(tmp_path, variables)
        user("pip install --quiet --find-links dist mwaa-dr-cli awscli")
        user(stack)
        user(state)
        for region in (STANDBY, ACTIVE):
            here = requirements.replace(placeholder, f"REGION={region} NAME={BARE_NAMES[region]}\n")
            user(here + options + dags)
        for region in (STANDBY, ACTIVE):
            look = f"aws mwaa get-environment --region {region} --name {BARE_NAMES[region]} --query Environment"
            found = json.loads(user(look))
            assert found["AirflowConfigurationOptions"].items() >= {**USERS_OPTIONS, "dr.enabled": "true"}.items()
            text = user(f"aws s3 cp --region {region} s3://{BARE_NAMES[region]}-bucket/requirements.txt -")
            assert text == USERS_REQUIREMENTS.decode() + f"{DISTRIBUTION}=={__version__}\n"
        assert "Nothing had to change." in user("mwaa-dr deploy --dags")


def test_the_planned_drill_passes_with_a_built_wheel(tmp_path: Path) -> None:
    """
    Two empty environments, `mwaa-dr deploy --wheel`, and a failover under load that loses no run and executes none
    twice.
    """
    build_wheels(tmp_path)
    (wheel,) = tmp_path.glob("airflow_provider_mwaa_dr-*.whl")
    sandbox = Sandbox(tmp_path / "s", say=print)
    try:
        outcome = Drill(sandbox, say=print).run("deployed", folder=tmp_path / "report", keep=False, wheel=wheel)
    finally:
        sandbox.down(purge=True)
    assert outcome.passed, outcome.findings
