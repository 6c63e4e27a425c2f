"""The CloudFormation templates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.aws.deploy.template import alarms_template, template

LINT = Path(sys.executable).parent / "cfn-lint"


def lint(path: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Return the findings of cfn-lint, for a region with strongly consistent tables and one without."""
    path.write_text(text)
    command = [LINT, "--regions", "us-east-2", "ap-southeast-2", "--template", path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("keep_tables", [True, False])
def test_it_passes_cfn_lint(tmp_path: Path, keep_tables: bool) -> None:
    """There is no error, warning or remark."""
    found = lint(tmp_path / "mwaa_dr.yaml", template(keep_tables=keep_tables))
    assert (found.returncode, found.stdout) == (0, "")


def test_the_alarms_pass_cfn_lint(tmp_path: Path) -> None:
    """There is no error, warning or remark."""
    found = lint(tmp_path / "mwaa_dr_alarms.yaml", alarms_template())
    assert (found.returncode, found.stdout) == (0, "")


def test_cfn_lint_would_find_a_mistake(tmp_path: Path) -> None:
    """Control: cfn-lint reports a property that does not exist."""
    found = lint(tmp_path / "mwaa_dr.yaml", template().replace("BillingMode:", "BilingMode:"))
    assert "BilingMode" in found.stdout
    assert found.returncode != 0


def test_a_deleted_stack_keeps_its_tables_unless_keep_tables_is_false() -> None:
    """Both tables are kept by default; with keep_tables=False neither is."""
    assert template().count("DeletionPolicy: RetainExceptOnCreate") == 2
    assert template(keep_tables=False).count("DeletionPolicy: Delete") == 2
    assert "Retain" not in template(keep_tables=False).replace("UpdateReplacePolicy: Retain", "")
