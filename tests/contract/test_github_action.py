"""The script of the GitHub Action, run against the emulated AWS over real sockets."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_mwaa_dr.cli import main as mwaa_dr
from airflow_provider_mwaa_dr.core.inventory import DagFacts, Inventory
from airflow_provider_mwaa_dr.core.ports import INVENTORIES
from tests.contract.cloud import A, B, Cloud

ACTION = Path(__file__).parents[2] / ".github" / "actions" / "deploy-dags"
DAG = b"from airflow import DAG\n\nDAG('orders', schedule=None)\n"
NEW = DAG + b"# the second version\n"


def script() -> Any:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("deploy_dags", ACTION / "deploy_dags.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pipeline:
    """A repository with DAGs, and a DR set whose agents list what is in the buckets some minutes later."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud, self.folder = cloud, folder
        self.script = script()
        self.err = ""
        self.is_parsing = dict.fromkeys(cloud.regions, True)
        self.checked: list[Mapping[str, Any]] = []
        folder.mkdir()
        (folder / "orders.py").write_bytes(DAG)
        (folder / "lib").mkdir()
        (folder / "lib" / "sql.py").write_bytes(b"QUERY = 'select 1'\n")
        (folder / ".hidden").mkdir()
        (folder / ".hidden" / "x.py").write_bytes(b"")

    def parse(self, region: str) -> None:
        """Let the region's agent list the DAG file in its bucket."""
        self.cloud.clock.after(120, lambda: self.parse(region))
        keys = self.cloud.keys(region)
        if not self.is_parsing[region] or "dags/orders.py" not in keys:
            return
        source = hashlib.md5(self.cloud.get(region, "dags/orders.py"), usedforsecurity=False).hexdigest()[:16]
        inventory = Inventory(
            region=region, taken_at=self.cloud.clock.now(), public_key="k",
            dags={"orders": DagFacts(source=source, shape="s")},
        )  # fmt: skip
        self.cloud.store().put(INVENTORIES, inventory)

    def __call__(self, *words: str) -> int:
        """Run the script, and return its exit code."""
        run = self.cloud.run
        codes: list[int] = []

        def main(argv: Any, *, runtime: Any) -> int:
            if argv[0] != "deploy-dags":
                return mwaa_dr(argv, runtime=runtime)
            codes.append(self.script.main([str(self.folder), *words], runtime=runtime))
            return codes[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.contract.cloud.main", main)
            result = run("deploy-dags")
        self.err, self.out = result.err, result.out
        return codes[0]


@pytest.fixture
def pipeline(cloud: Cloud, tmp_path: Path) -> Pipeline:
    assert cloud.deploy("--active", A).code == 0
    cloud.updated()
    cloud.set_variables({"DR_STATE_TABLE_REGION": A})
    pipeline = Pipeline(cloud, tmp_path / "dags")
    for region in cloud.regions:
        cloud.clock.after(60, lambda region=region: pipeline.parse(region))  # type: ignore[misc]
    return pipeline


def test_it_copies_waits_and_checks(pipeline: Pipeline) -> None:
    """The standby gets the files first. The exit code is that of the check, whose document is the output."""
    cloud = pipeline.cloud
    code = pipeline()
    for region in cloud.regions:
        assert cloud.get(region, "dags/orders.py") == DAG
        assert cloud.get(region, "dags/lib/sql.py") == b"QUERY = 'select 1'\n"
        assert not any("hidden" in key for key in cloud.keys(region))
    lines = pipeline.err.splitlines()
    assert [line.partition(":")[0] for line in lines if "files changed" in line] == [B, A]
    assert f"{B} and {A} have parsed 2 files" in lines or f"{A} and {B} have parsed 2 files" in lines
    failed = [each["name"] for each in json.loads(pipeline.out) if each["verdict"] == "fail"]
    assert code == (3 if failed else 0)
    # No agent sends heartbeats in this test, which fails the job.
    assert "agents" in failed


def test_it_does_not_take_the_files_of_before_for_the_new_ones(pipeline: Pipeline) -> None:
    """Both regions agree about the old version. The script waits until they have parsed the new one."""
    assert pipeline() in {0, 3}
    (pipeline.folder / "orders.py").write_bytes(NEW)
    before = pipeline.cloud.clock.monotonic()
    assert pipeline() in {0, 3}
    assert "DAG orders from another file" in pipeline.err
    assert pipeline.cloud.clock.monotonic() - before >= 10
    assert pipeline.cloud.get(B, "dags/orders.py") == NEW


def test_a_site_that_does_not_parse_the_files_fails_the_job(pipeline: Pipeline) -> None:
    """It names the site and the file, and no check runs."""
    pipeline.is_parsing[B] = False
    assert pipeline("--wait-minutes", "5") == 1
    assert f"{B} has not parsed: no inventory" in pipeline.err
    assert pipeline.out == ""


def test_a_module_without_a_dag_can_be_named(pipeline: Pipeline) -> None:
    """Airflow's safe mode takes a file with both words for a DAG file."""
    (pipeline.folder / "lib" / "factory.py").write_bytes(b"import airflow  # for dag files\n")
    assert pipeline("--wait-minutes", "5") == 1
    assert "file lib/factory.py" in pipeline.err
    assert pipeline("--wait-minutes", "5", "--not-dags", "lib/*") in {0, 3}


def test_deleted_files_are_deleted_only_on_request(pipeline: Pipeline) -> None:
    """A bucket may have files of other pipelines."""
    cloud = pipeline.cloud
    cloud.put(B, "dags/theirs.txt", b"x")
    assert pipeline() in {0, 3}
    assert "dags/theirs.txt" in cloud.keys(B)
    assert pipeline("--delete") in {0, 3}
    assert "dags/theirs.txt" not in cloud.keys(B)
    assert {"dags/orders.py", "dags/lib/sql.py"} <= cloud.keys(B)


def test_the_action_gives_each_input_to_the_script() -> None:
    """The words of the shell are options that the script has, and each input is used once."""
    text = (ACTION / "action.yml").read_text(encoding="utf-8")
    inputs = set(re.findall(r"^  ([\w-]+):$", text.partition("inputs:")[2].partition("runs:")[0], flags=re.MULTILINE))
    assert sorted(re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", text)) == sorted(inputs)
    done = subprocess.run(
        [sys.executable, str(ACTION / "deploy_dags.py"), "--help"], capture_output=True, text=True, check=True
    )
    used = re.findall(r"--[a-z-]+", text.partition("Copy, wait and check")[2])
    assert used == ["--delete", "--wait-minutes", "--not-dags", "--accept"]
    assert all(option in done.stdout for option in used)
