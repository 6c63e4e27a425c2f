"""An environment of the sandbox with a stand-in for Airflow in place of the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_mwaa_dr.aws.deploy.image_packages import installed
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import (
    AirflowEnvironment,
    find_python,
    provide,
    shared_folder,
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowEnvironment]:
    """An environment in a folder with a blank in its name, over a cache with MWAA's packages, all empty."""
    tmp_path = tmp_path_factory.mktemp("environment")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("MWAA_DR_CACHE", str(tmp_path / "the cache"))
    _, python_version = find_python("3.3.1")
    package = shared_folder("3.3.1", python_version) / "airflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for name, version in installed("3.3.1").items():
        info = package.parent / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (package / "__main__.py").write_text("def main():\n    import sys\n    print(sys.argv[0], sys.argv[1:])\n")
    yield provide(tmp_path / "my home" / "airflow-3.3.1", "3.3.1", say=pytest.fail)
    monkeypatch.undo()
