"""The CloudFormation templates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.aws.template import alarms_template, template

LINT = Path(sys.executable).parent / "cfn-lint"


def lint(path: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Return what cfn-lint says, for a region with strong tables and one without."""
    path.write_text(text)
    command = [LINT, "--regions", "us-east-2", "ap-southeast-2", "--template", path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("keep_tables", [True, False])
def test_it_passes_cfn_lint(tmp_path: Path, keep_tables: bool) -> None:
    """Without an error, a warning or a remark."""
    found = lint(tmp_path / "mwaa_dr.yaml", template(keep_tables=keep_tables))
    assert (found.returncode, found.stdout) == (0, "")


def test_the_alarms_pass_cfn_lint(tmp_path: Path) -> None:
    """Likewise."""
    found = lint(tmp_path / "mwaa_dr_alarms.yaml", alarms_template())
    assert (found.returncode, found.stdout) == (0, "")


def test_cfn_lint_would_find_a_mistake(tmp_path: Path) -> None:
    """The control: a property that does not exist is reported."""
    found = lint(tmp_path / "mwaa_dr.yaml", template().replace("BillingMode:", "BilingMode:"))
    assert "BilingMode" in found.stdout
    assert found.returncode != 0


def test_tables_outlive_their_stack_unless_told_otherwise() -> None:
    """Both of them, and neither."""
    assert template().count("DeletionPolicy: RetainExceptOnCreate") == 2
    assert template(keep_tables=False).count("DeletionPolicy: Delete") == 2
    assert "Retain" not in template(keep_tables=False).replace("UpdateReplacePolicy: Retain", "")
