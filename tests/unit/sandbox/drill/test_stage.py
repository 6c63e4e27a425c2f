"""What every drill uses, without a running sandbox."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RunStatus
from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.sandbox.drill.stage import DrillRegion, Stage
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox


def test_the_runs_that_a_region_took_over_in_this_drill(tmp_path: Path) -> None:
    """A run that the region created is none of them, and neither is one that it took over in an earlier drill."""
    stage = Stage(Sandbox(tmp_path / "home"), say=print)
    now = stage.started_at
    created = LedgerRun(dag_id="d", run_id="created", run_type="manual", status=RunStatus.OPEN, epoch=1)
    taken = LedgerRun(dag_id="d", run_id="taken", run_type="manual", status=RunStatus.OPEN, epoch=1, taken_at=now)
    later, earlier = (
        LogEntry(number=1, at=at, epoch=1, first_id=0, newest_id=0, runs=(created, taken))
        for at in (now + timedelta(seconds=1), now - timedelta(seconds=1))
    )

    assert stage.taken_over({"green": [later], "blue": [earlier]}) == {("green", "d", "taken")}


def test_a_step_is_named_and_measured(tmp_path: Path) -> None:
    """A step that fails is not in the report, which does not exist then."""
    said: list[str] = []
    stage = Stage(Sandbox(tmp_path / "home"), say=said.append)
    with stage.step("first"):
        pass
    with pytest.raises(DRError), stage.step("second"):
        raise DRError("no")

    assert said == ["first ...", "second ..."]
    assert [step.name for step in stage.steps] == ["first"]


def test_a_program_that_fails_is_an_error_with_its_output(tmp_path: Path) -> None:
    """The message names the region, the command and the exit code."""
    program = tmp_path / "airflow"
    program.write_text("#!/bin/sh\necho no such DAG >&2\nexit 4\n")
    program.chmod(0o755)
    region = DrillRegion(name="blue", described={"bin": str(tmp_path), "env": {}})

    with pytest.raises(DRError, match=r"airflow dags list in blue ended with 4: no such DAG"):
        region.program("airflow", "dags", "list")
