"""``mwaa-dr report``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.ports import RECORDS, REPORTS
from tests.unit.cli.conftest import Shell


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def done(mwaa_dr: Shell) -> Shell:
    """A shell after a failover."""
    assert mwaa_dr("failover", "us-east-1", "--reason", "flood", "--yes").code == 0
    return mwaa_dr


def test_a_failover_stores_the_data_and_names_the_command(mwaa_dr: Shell) -> None:
    """The id is in the last line."""
    result = mwaa_dr("failover", "us-east-1", "--reason", "flood", "--yes")
    (record,) = mwaa_dr.store.find_all(RECORDS)
    assert result.out.splitlines()[-1] == f"A report for auditors: mwaa-dr report {record.id}"
    assert mwaa_dr.store.get(REPORTS, record.id) is not None


def test_the_report_is_one_file_with_its_digest(done: Shell, folder: Path) -> None:
    """The printed SHA-256 is that of the file."""
    result = done("report")
    (record,) = done.store.find_all(RECORDS)
    path = folder / f"failover-{record.id}.html"
    assert result.code == 0
    assert result.out.splitlines()[:2] == [path.name, f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"]
    assert "flood" in path.read_text(encoding="utf-8")


def test_json_is_a_file_too(done: Shell, folder: Path) -> None:
    """With --json, stdout has the digest and the numbers."""
    (record,) = done.store.find_all(RECORDS)
    result = done("report", record.id, "--format", "json", "--output", "audit.json", "--json")
    content = (folder / "audit.json").read_bytes()
    assert result.document["file"] == "audit.json"
    assert result.document["sha256"] == hashlib.sha256(content).hexdigest()
    assert json.loads(content)["failover"]["reason"] == "flood"
    assert result.document["runs"]["twice"] is None


def test_a_report_that_is_complete_does_not_change(done: Shell, folder: Path) -> None:
    """Its data were read after the time that it shows: the digest stays."""
    done.set.clock.advance(920)
    first = done("report", "--json").document["sha256"]
    done.set.clock.advance(60)
    assert done("report", "--json").document["sha256"] == first


def test_an_unknown_failover_is_wrong_usage(done: Shell) -> None:
    """The known ids are named."""
    result = done("report", "2026")
    assert result.code == 2
    assert "The newest are 2026" in result.err


def test_a_file_that_cannot_be_written_is_named(done: Shell, folder: Path) -> None:
    """Exit 1, with the option for another file."""
    result = done("report", "--output", "no/such/folder.html")
    assert result.code == 1
    assert "no/such/folder.html" in result.err
    assert "--output FILE" in result.err
