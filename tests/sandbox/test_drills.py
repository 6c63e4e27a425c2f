"""Drills between two sites in one region, with real schedulers and an emulated AWS. Each starts its own sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.sites import Sites, parse_site
from airflow_provider_mwaa_dr.sandbox.drill.drill import Drill
from airflow_provider_mwaa_dr.sandbox.drill.report import Report
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.sandbox, pytest.mark.soak]


def drilled(scenario: str, folder: Path, *, old: str, new: str = "3.3.1") -> Report:
    """Return the report of a drill between two versions of Airflow in one region."""
    sandbox = Sandbox(folder / "s", say=print)
    sites = Sites(map(parse_site, (f"blue={old}@us-east-2", f"green={new}@us-east-2")))
    try:
        return Drill(sandbox, say=print, sites=sites).run(scenario, folder=folder / "report", keep=False)
    finally:
        sandbox.down(purge=True)


def test_the_planned_drill_passes_between_two_sites_in_one_region(tmp_path: Path) -> None:
    """The sites are the regions of its report."""
    report = drilled("planned", tmp_path, old="2.11.2")

    assert report.passed, (report.findings, report.listed)
    assert {line.region for line in report.lines} == {"blue", "green"}
    assert {region: known["airflow"] for region, known in report.versions.items()} == {
        "blue": "2.11.2",
        "green": "3.3.1",
    }


@pytest.mark.parametrize("old", ["2.10.3", "2.11.2", "3.0.6"])
def test_an_upgrade_and_its_rollback_execute_each_mark_once(old: str, tmp_path: Path) -> None:
    """Three failovers: to the new version, back, and to the new version again."""
    report = drilled("upgrade", tmp_path, old=old)

    assert report.passed, (report.findings, report.listed)
    assert [record.target for record in report.records] == ["green", "blue", "green"]
    assert report.intervals["executed"] == report.intervals["expected"] > 0
    assert len(report.pauses) == 3
