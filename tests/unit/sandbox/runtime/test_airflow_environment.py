"""The thin environment over shared packages, with a stand-in for Airflow in place of the real one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.exceptions import ConfigError
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_environment
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import (
    AirflowEnvironment,
    constraints,
    find_python,
    major,
    provide,
    pythons_for,
    versions,
)


def _run(*words: object) -> str:
    # Python puts the current folder first on its path, and that may be the checkout; so may PYTHONPATH be.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=True, cwd="/", env=variables
    )
    return answer.stdout.strip()


def test_airflow_runs_under_the_environment(environment: AirflowEnvironment) -> None:
    """The command is found, gets its arguments, and goes by its own name, whatever blanks the path has."""
    assert _run(environment.bin / "airflow", "dags", "a b") == f"{environment.bin}/airflow ['dags', 'a b']"


def test_the_provider_is_a_copy_with_its_entry_points(environment: AirflowEnvironment) -> None:
    """Airflow finds plugin and provider, and no file of this process's own copy is used."""
    program = (
        "import airflow_provider_mwaa_dr as provider; from importlib.metadata import entry_points, version; "
        "print(provider.__file__); print(version('airflow-provider-mwaa-dr') == provider.__version__); "
        "print([e.name for group in ('airflow.plugins', 'apache_airflow_provider') for e in entry_points(group=group)])"
    )

    where, is_same_version, names = _run(environment.bin / "python", "-c", program).splitlines()

    assert Path(where).is_relative_to(environment.bin.parent)
    assert is_same_version == "True"
    assert names == "['mwaa_dr', 'provider_info']"


def test_providing_again_replaces_the_provider(environment: AirflowEnvironment) -> None:
    """What an older copy had and the running provider has not is gone."""
    copy = next(environment.bin.parent.glob("lib/python*/site-packages/airflow_provider_mwaa_dr"))
    (copy / "gone.py").write_text("")

    provide(environment.bin.parent, "3.3.1", say=pytest.fail)

    assert not (copy / "gone.py").exists()
    assert (copy / "plugins" / "mwaa_dr.py").exists()


def test_constraints_are_plain_pins() -> None:
    """Every line names one package and one version, and Airflow itself is the version that the file is called by."""
    for version in versions():
        lines = constraints(version).read_text().splitlines()
        assert all(line.count("==") == 1 and line.split("==")[1] for line in lines)
        assert f"apache-airflow=={version}" in lines


def test_an_unknown_version_is_named_with_the_known_ones() -> None:
    """Newest first."""
    known = re.escape(", ".join(versions()))
    with pytest.raises(ConfigError, match=rf"support Airflow 1\.10\.15\. Allowed are {known}"):
        constraints("1.10.15")
    numbers = [tuple(map(int, version.split("."))) for version in versions()]
    assert numbers == sorted(numbers, reverse=True)
    assert [major(version) for version in versions()] == [number[0] for number in numbers]


def test_the_python_of_mwaa_comes_first() -> None:
    """3.11 for 2.10, 3.12 from 2.11 on; every version that is shipped has its row."""
    for version in versions():
        assert pythons_for(version)[0] == ("3.11" if version.startswith("2.10.") else "3.12")


def test_a_missing_python_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error says which one to install."""
    monkeypatch.setitem(airflow_environment.PYTHONS, "3", ("3.99",))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))

    with pytest.raises(ConfigError, match=r"needs one of 3\.99.*python3\.99"):
        find_python("3.3.1")


def test_a_shim_without_its_python_is_passed_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Version managers put a name on the PATH for Pythons that are not selected; it ends with an error."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    shim = tmp_path / f"python{version}"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(airflow_environment.PYTHONS, "3", (version,))

    found, _ = find_python("3.3.1")

    assert found != shim
