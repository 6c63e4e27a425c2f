"""The first commands of a new user, in the right order, in a wrong order, and twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.sandbox.failovers import mwaa_dr
from tests.sandbox.harness import Pair, has_memory, on

pytestmark = pytest.mark.sandbox


def output_of(pair: Pair, *words: str, code: int = 0, **dr: object) -> tuple[Any, str]:
    """Return the document that ``mwaa-dr --json`` printed, and its stderr."""
    with mwaa_dr(pair, *words, "--json", **dr) as command:
        document = command.document(code=code)
        return document, " ".join(command.stderr.split())


@on("3.3.1")
def test_init_from_nothing_twice_and_with_another_region(pair: Pair) -> None:
    """No table, no state item, no confirmation, then success, then a no-op. Another region is refused."""
    table = "first-steps"
    variables = pair.variables
    dynamodb = boto3.Session(
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"], aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"]
    ).client("dynamodb", region_name=variables["AWS_REGION"], endpoint_url=variables["AWS_ENDPOINT_URL"])

    def items() -> list[dict[str, Any]]:
        return sorted(dynamodb.scan(TableName=table)["Items"], key=lambda item: item["state_id"]["S"])

    def init(*words: str, code: int = 0) -> tuple[Any, str]:
        return output_of(pair, "init", *words, code=code, state_table=table)

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

    document, _ = output_of(pair, "status", code=1, state_table=table)
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
def test_up_again_starts_nothing(pair: Pair) -> None:
    """A second `up` reports that both regions run. With another version it is refused. All processes stay the same."""
    home = str(pair.home)
    before = pair.sandbox.description()
    pids = {
        name: {component: airflow.session(component).pid for component in before["regions"][name]["pids"]}
        for name, airflow in pair.airflows.items()
    }
    document, words = output_of(pair, "sandbox", "up", "--home", home)
    assert f"both regions already run in {home}" in words
    assert document["regions"].keys() == before["regions"].keys()
    assert pids_of(document) == pids

    document, _ = output_of(pair, "sandbox", "up", "--home", home, "--airflow", "2.10.3", code=3)
    assert "has Airflow 3.3.1" in document["error"]["message"]
    assert "not 2.10.3" in document["error"]["message"]
    assert "down --purge" in document["error"]["advice"]
    document, _ = output_of(pair, "sandbox", "up", "--home", home, "--executor", "CeleryExecutor", code=3)
    assert "has executor LocalExecutor" in document["error"]["message"]
    document, _ = output_of(pair, "sandbox", "up", "--home", home, "--schedulers", "2", code=3)
    assert "has number of schedulers 1" in document["error"]["message"]
    document, _ = output_of(pair, "sandbox", "up", "--home", home, "--airflow", "1.10.15", code=2)
    assert "3.3.1" in document["error"]["advice"]
    assert pids_of(pair.sandbox.description()) == pids
    assert pair.status()["regions"].keys() == before["regions"].keys()


@on("3.3.1")
def test_a_folder_that_is_no_sandbox_is_not_changed(pair: Pair, tmp_path: Path) -> None:
    """up, down and kill name the problem and change nothing. `down` in a folder that does not exist is a no-op."""
    nothing_here = tmp_path / "home"
    document, _ = output_of(pair, "sandbox", "down", "--home", str(nothing_here))
    assert document == {"changed": False}
    assert not nothing_here.exists()
    for words in (("kill", "us-east-2"), ("revive", "us-east-2"), ("fault", "us-east-2", "all", "none")):
        document, _ = output_of(pair, "sandbox", *words, "--home", str(nothing_here), code=2)
        assert "There is no sandbox in" in document["error"]["message"]
        assert "mwaa-dr sandbox up" in document["error"]["advice"]
        assert not nothing_here.exists()

    thesis = tmp_path / "mine" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("mine")
    for command in (["up"], ["down"], ["down", "--purge"], ["kill", "us-east-2"]):
        document, _ = output_of(pair, "sandbox", *command, "--home", str(thesis.parent), code=2)
        assert "is not a sandbox, and not empty (thesis.tex)" in document["error"]["message"]
    assert list(thesis.parent.iterdir()) == [thesis]
    assert thesis.read_text() == "mine"


@pytest.mark.soak
@on("3.3.1")
def test_a_sandbox_goes_down_twice_and_comes_up_with_its_role(pair: Pair, tmp_path: Path) -> None:
    """The first `down` stops everything, the second reports that nothing runs, and `up` restores the roles."""
    home = str(tmp_path / "s")
    document, _ = output_of(pair, "sandbox", "up", "--home", home)
    pids = [pid for region in document["regions"].values() for pid in region["pids"].values()]
    assert pids
    try:
        document, _ = output_of(pair, "sandbox", "down", "--home", home)
        assert document == {"changed": True}
        assert not any(has_memory(pid) for pid in pids)
        with mwaa_dr(pair, "sandbox", "down", "--home", home) as again:
            assert again.wait() == 0
            assert f"Nothing runs in {home}" in again.stdout
        document, _ = output_of(pair, "sandbox", "revive", "us-east-1", "--home", home, code=3)
        assert "is down" in document["error"]["message"]
        document = json.loads(Path(home, "sandbox.json").read_text())
        assert all(not region["pids"] for region in document["regions"].values())
    finally:
        document, _ = output_of(pair, "sandbox", "down", "--purge", "--home", home)
    assert not Path(home).exists()
