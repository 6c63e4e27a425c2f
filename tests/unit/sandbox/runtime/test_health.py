"""Which DAG files the sandbox waits for."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.sandbox.drill import drill, upgrade
from airflow_provider_mwaa_dr.sandbox.drill.stage import Stage
from airflow_provider_mwaa_dr.sandbox.runtime.health import dag_files


def test_only_files_that_airflow_parses_are_waited_for(tmp_path: Path) -> None:
    """It searches for two words, and skips what ``.airflowignore`` names."""
    (tmp_path / "one.py").write_text("from airflow import DAG\n")
    (tmp_path / "two.py").write_text("import os\n")
    (tmp_path / "three.py").write_text("from airflow import DAG\n")
    assert [path.name for path in dag_files(tmp_path)] == ["one.py", "three.py"]
    (tmp_path / ".airflowignore").write_text("three.py\n")
    assert [path.name for path in dag_files(tmp_path)] == ["one.py"]


@pytest.mark.parametrize("load", [drill.LOAD, upgrade.LOAD])
def test_a_drill_waits_for_no_file_without_a_dag(tmp_path: Path, load: str) -> None:
    """For each of them, it would wait twenty seconds at each start."""
    Stage.put_load(tmp_path, load, datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert {path.name for path in dag_files(tmp_path)} == {load, "dr_test_dag.py"}
    assert (tmp_path / "drill_body.py").is_file()
