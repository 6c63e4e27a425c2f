"""The pytest plugin, as pytest loads it where only pytest and the provider are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError
from airflow_provider_mwaa_dr.pytest_plugin import DRSet

ROOT = Path(__file__).parents[2]
PLUGIN = "airflow_provider_mwaa_dr.pytest_plugin"

ALONE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"airflow", "boto3", "botocore", "moto", "requests", "rich", "sqlalchemy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import pytest
code = pytest.main(["-q", "-p", "PLUGIN", "-p", "no:cacheprovider", "-W", "error", sys.argv[1]])
print("LOADED", *sorted(name for name in sys.modules if name.startswith("airflow_provider_mwaa_dr")))
sys.exit(code)
""".replace("PLUGIN", PLUGIN)

USING = """
import pytest
from airflow_provider_mwaa_dr.exceptions import StateUnreachableError

def test_a_failover(mwaa_dr_state):
    assert mwaa_dr_state.active_region == "us-east-2"
    mwaa_dr_state.fail_over()
    assert mwaa_dr_state.active_region == "us-east-1"
    assert mwaa_dr_state.store.read().epoch == 1

def test_each_test_has_a_set_of_its_own(mwaa_dr_state):
    assert mwaa_dr_state.active_region == "us-east-2"

def test_an_outage(mwaa_dr_state):
    mwaa_dr_state.store.unreachable = True
    with pytest.raises(StateUnreachableError):
        mwaa_dr_state.store.read()
"""


def run_alone(folder: Path, tests: str) -> tuple[str, list[str]]:
    """Run pytest without the packages of a real environment; return its output, and the modules that it loaded."""
    (folder / "test_it.py").write_text(tests)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)], cwd=folder, capture_output=True, text=True, check=False,
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (loaded,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    return done.stdout, loaded.split()[1:]


def test_the_fixture_works_without_airflow_and_boto3(tmp_path: Path) -> None:
    """The environment in which DAGs are tested may have neither."""
    text, _ = run_alone(tmp_path, USING)
    assert "3 passed" in text


def test_an_unused_plugin_imports_nothing_of_the_provider(tmp_path: Path) -> None:
    """pytest loads it in every test session of a machine that has the provider."""
    _, loaded = run_alone(tmp_path, "def test_nothing(): pass\n")
    assert loaded == ["airflow_provider_mwaa_dr", PLUGIN]


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    """A user configures nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"mwaa_dr": PLUGIN}


def test_a_failover_to_another_region_and_to_the_active_one() -> None:
    """Both are mistakes of the test that uses the fixture, and nothing changes."""
    found = DRSet("eu-west-1", "eu-central-1")
    with pytest.raises(ValueError, match="us-east-1 is not one of the regions eu-west-1, eu-central-1"):
        found.fail_over("us-east-1")
    with pytest.raises(AlreadyActiveError):
        found.fail_over("eu-west-1")
    found.fail_over("eu-central-1")
    found.fail_over()
    assert found.active_region == "eu-west-1"
