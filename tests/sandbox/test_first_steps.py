"""The first commands that somebody types, in the right order, in a wrong one, and twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.sandbox.failovers import mwaa_dr
from tests.sandbox.harness import Pair, has_memory, on

pytestmark = pytest.mark.sandbox


def said(pair: Pair, *words: str, code: int = 0, **dr: object) -> tuple[Any, str]:
    """Return what ``mwaa-dr`` printed with ``--json``, and what it said besides."""
    with mwaa_dr(pair, *words, "--json", **dr) as command:
        document = command.document(code=code)
        return document, " ".join(command.stderr.split())


@on("3.3.1")
def test_init_from_nothing_twice_and_with_another_region(pair: Pair) -> None:
    """No table, no state item, no consent, then done, then nothing to do; another region is refused."""
    table = "first-steps"
    variables = pair.variables
    dynamodb = boto3.Session(
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"], aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"]
    ).client("dynamodb", region_name=variables["AWS_REGION"], endpoint_url=variables["AWS_ENDPOINT_URL"])

    def items() -> list[dict[str, Any]]:
        return sorted(dynamodb.scan(TableName=table)["Items"], key=lambda item: item["state_id"]["S"])

    def init(*words: str, code: int = 0) -> tuple[Any, str]:
        return said(pair, "init", *words, code=code, state_table=table)

    first, other = pair.airflows
    document, _ = init("--active", first, "--yes", code=1)
    assert document["error"]["type"] == "TableNotFoundError"
    assert "aws dynamodb create-table" in document["error"]["advice"]
    dynamodb.create_table(
        TableName=table,
        AttributeDefinitions=[{"AttributeName": "state_id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "state_id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )

    document, _ = said(pair, "status", code=1, state_table=table)
    assert "mwaa-dr init" in document["error"]["advice"]
    document, _ = init("--yes", code=2)
    assert f"--active {first}" in document["error"]["advice"]
    document, _ = init("--active", "eu-west-1", "--yes", code=2)
    assert "eu-west-1" in document["error"]["message"]
    document, words = init("--active", first, code=2)
    assert "Nothing was changed" in words
    document, _ = init("--active", first, "--dry-run")
    assert (document["changed"], document["would_change"]) == (False, True)
    assert items() == []

    document, words = init("--active", first, "--yes")
    assert (document["changed"], document["active_region"], document["epoch"]) == (True, first, 0)
    assert f"{other} becomes standby" in words
    written = items()
    for again in (["--active", first, "--yes"], ["--yes"]):
        document, _ = init(*again)
        assert (document["changed"], document["active_region"]) == (False, first)
        assert items() == written
    document, words = init("--active", other, "--yes", code=3)
    assert f"{first} is active already" in document["error"]["message"]
    assert f"mwaa-dr failover {other}" in document["error"]["advice"]
    assert f"{first} is active already" in words
    assert items() == written
    dynamodb.delete_table(TableName=table)


def pids_of(document: Any) -> dict[str, dict[str, int]]:
    """Return the processes that ``sandbox.json`` names, by region and component."""
    return {name: region["pids"] for name, region in document["regions"].items()}


@on("3.3.1")
def test_up_again_leaves_what_runs_alone(pair: Pair) -> None:
    """Said twice it says so and starts nothing; with another version it is refused; both keep every process."""
    home = str(pair.home)
    before = pair.sandbox.description()
    pids = {
        name: {component: airflow.session(component).pid for component in before["regions"][name]["pids"]}
        for name, airflow in pair.airflows.items()
    }
    document, words = said(pair, "sandbox", "up", "--home", home)
    assert f"both regions already run in {home}" in words
    assert document["regions"].keys() == before["regions"].keys()
    assert pids_of(document) == pids

    document, _ = said(pair, "sandbox", "up", "--home", home, "--airflow", "2.10.3", code=3)
    assert "has Airflow 3.3.1" in document["error"]["message"]
    assert "not 2.10.3" in document["error"]["message"]
    assert "down --purge" in document["error"]["advice"]
    document, _ = said(pair, "sandbox", "up", "--home", home, "--executor", "CeleryExecutor", code=3)
    assert "has executor LocalExecutor" in document["error"]["message"]
    document, _ = said(pair, "sandbox", "up", "--home", home, "--schedulers", "2", code=3)
    assert "has number of schedulers 1" in document["error"]["message"]
    document, _ = said(pair, "sandbox", "up", "--home", home, "--airflow", "1.10.15", code=2)
    assert "3.3.1" in document["error"]["advice"]
    assert pids_of(pair.sandbox.description()) == pids
    assert pair.status()["regions"].keys() == before["regions"].keys()


@on("3.3.1")
def test_a_folder_that_is_no_sandbox_is_left_alone(pair: Pair, tmp_path: Path) -> None:
    """up, down and kill name what is wrong with it and touch nothing; down where nothing is has nothing to do."""
    nothing_here = tmp_path / "home"
    document, _ = said(pair, "sandbox", "down", "--home", str(nothing_here))
    assert document == {"changed": False}
    assert not nothing_here.exists()
    for words in (("kill", "us-east-2"), ("revive", "us-east-2"), ("fault", "us-east-2", "all", "none")):
        document, _ = said(pair, "sandbox", *words, "--home", str(nothing_here), code=2)
        assert "There is no sandbox in" in document["error"]["message"]
        assert "mwaa-dr sandbox up" in document["error"]["advice"]
        assert not nothing_here.exists()

    thesis = tmp_path / "mine" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("mine")
    for command in (["up"], ["down"], ["down", "--purge"], ["kill", "us-east-2"]):
        document, _ = said(pair, "sandbox", *command, "--home", str(thesis.parent), code=2)
        assert "is not a sandbox, and not empty (thesis.tex)" in document["error"]["message"]
    assert list(thesis.parent.iterdir()) == [thesis]
    assert thesis.read_text() == "mine"


@pytest.mark.soak
@on("3.3.1")
def test_a_sandbox_goes_down_twice_and_comes_up_with_its_role(pair: Pair, tmp_path: Path) -> None:
    """down, down and up again: the first stops everything, the second says that nothing runs, the roles are kept."""
    home = str(tmp_path / "s")
    document, _ = said(pair, "sandbox", "up", "--home", home)
    pids = [pid for region in document["regions"].values() for pid in region["pids"].values()]
    assert pids
    try:
        document, _ = said(pair, "sandbox", "down", "--home", home)
        assert document == {"changed": True}
        assert not any(has_memory(pid) for pid in pids)
        with mwaa_dr(pair, "sandbox", "down", "--home", home) as again:
            assert again.wait() == 0
            assert f"Nothing runs in {home}" in again.stdout
        document, _ = said(pair, "sandbox", "revive", "us-east-1", "--home", home, code=3)
        assert "is down" in document["error"]["message"]
        document = json.loads(Path(home, "sandbox.json").read_text())
        assert all(not region["pids"] for region in document["regions"].values())
    finally:
        document, _ = said(pair, "sandbox", "down", "--purge", "--home", home)
    assert not Path(home).exists()
