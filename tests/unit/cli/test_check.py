"""``mwaa-dr check``."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Shell


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a fixed width, independent of the machine."""
    monkeypatch.setenv("COLUMNS", "100")


def test_the_document_is_the_list_of_the_contract(mwaa_dr: Shell) -> None:
    """It has exactly the keys that external scripts read. Warnings alone are not a failure."""
    result = mwaa_dr("check", "--json")
    assert result.code == 0
    assert isinstance(result.document, list)
    for entry in result.document:
        assert set(entry) == {"name", "verdict", "why", "advice"}
        assert entry["verdict"] in {"ok", "warn", "fail"}
        assert bool(entry["advice"]) == (entry["verdict"] != "ok")
    assert len({entry["name"] for entry in result.document}) == len(result.document)


def test_a_failed_check_is_exit_code_3(mwaa_dr: Shell) -> None:
    """The document still has all checks."""
    mwaa_dr.set.agents["us-east-1"].alive = False
    result = mwaa_dr("check", "--json")
    assert result.code == 3
    assert [entry["name"] for entry in result.document if entry["verdict"] == "fail"] == ["agents"]
    assert len(result.document) == len(mwaa_dr("check", "--json").document)


def test_an_unreachable_state_is_exit_code_1(mwaa_dr: Shell) -> None:
    """If the state cannot be read, the document is the error."""
    mwaa_dr.store.unreachable = True
    result = mwaa_dr("check", "--json")
    assert result.code == 1
    assert result.document["error"]["type"] == "StateUnreachableError"


@pytest.mark.parametrize("region", ["us-east-2", "mars-1"])
def test_a_wrong_region_is_wrong_usage(mwaa_dr: Shell, region: str) -> None:
    """The active region, and an unknown region."""
    assert mwaa_dr("check", "--region", region).code == 2


def test_check_works_while_the_active_region_is_down(mwaa_dr: Shell) -> None:
    """If the active region is down, the command still reports whether the standby is ready."""
    mwaa_dr.environment("us-east-2").unreachable = True
    mwaa_dr.set.agents["us-east-2"].alive = False
    result = mwaa_dr("check")
    assert result.code == 0
    assert result.out.startswith("Yes: us-east-1 can take over from us-east-2 now. Cost: no run starts for about 68 s")


def test_the_text_is_a_table_with_advice_below_each_warning(mwaa_dr: Shell) -> None:
    """The answer first; then one row for each finding, wrapped to the terminal's width."""
    mwaa_dr.set.agents["us-east-1"].changes.update(fence_ok=False)
    mwaa_dr.set.clock.advance(2)
    result = mwaa_dr("check")
    lines = result.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == ("No: us-east-1 cannot take over from us-east-2 now. A failover would be refused: fence.")
    assert not [line for line in lines if line.startswith("ok ")]
    at = next(number for number, line in enumerate(lines) if line.startswith("FAIL  fence"))
    assert "tasks ended in us-east-1 without the fence" in lines[at]
    assert any(line.startswith(" " * 19 + "-> Run a task in mwaa-us-east-1") for line in lines[at : at + 4])
    assert "1 fail" in lines[-1]


def test_verbose_also_shows_the_checks_that_are_ok(mwaa_dr: Shell) -> None:
    """Without -v, only findings are shown."""
    fine = "ok    environment  mwaa-us-east-1 is AVAILABLE; mwaa-us-east-2 is AVAILABLE"
    assert fine not in mwaa_dr("check").out
    assert fine in mwaa_dr("check", "-v").out


def test_a_lost_region_is_one_finding(mwaa_dr: Shell) -> None:
    """All checks that have no answer because of it are named in it, with -v, and nowhere else."""
    mwaa_dr.environment("us-east-2").unreachable = True
    mwaa_dr.set.agents["us-east-2"].alive = False
    text = mwaa_dr("check", "-v").out
    heads = [line for line in text.splitlines() if line.startswith(("WARN", "FAIL"))]
    assert sum("us-east-2" in line for line in heads) == 2  # the region, and the replicas that this machine reads
    assert "WARN  us-east-2    does not answer: mwaa-us-east-2 (us-east-2) did not answer" in text
    assert "If the region is lost: mwaa-dr failover us-east-1 --reason TEXT." in " ".join(text.split())
    assert "without an answer for this reason: environment, scheduler, agents, protocol," in " ".join(text.split())
    assert "console" not in mwaa_dr("check", "--json").document[0]["why"]


def test_a_narrow_terminal_gets_no_columns(mwaa_dr: Shell) -> None:
    """40 columns: no line is longer, apart from words that cannot be wrapped."""
    mwaa_dr.environ = {**mwaa_dr.environ, "COLUMNS": "40"}
    lines = mwaa_dr("check").out.splitlines()
    assert [line for line in lines if len(line) > 40 and len(line.split()) > 2] == []
    assert any(line.startswith("  -> Deploy dr_test_dag") for line in lines)


def test_an_intended_difference_can_be_accepted_for_one_check(mwaa_dr: Shell) -> None:
    """In addition to DR_ACCEPTED_DIFFERENCES."""
    mwaa_dr.environment("us-east-1").remove_dag("dag_00")
    mwaa_dr.environment("us-east-1").remove_dag("dag_01")
    assert mwaa_dr("check").code == 3
    assert mwaa_dr("check", "--accept", "dags:dag_00").code == 3
    mwaa_dr.environ = {**mwaa_dr.environ, "DR_ACCEPTED_DIFFERENCES": "dags:dag_01"}
    result = mwaa_dr("check", "--accept", "dags:dag_00", "--json")
    assert result.code == 0
    (entry,) = [entry for entry in result.document if entry["name"] == "dags"]
    assert entry["verdict"] == "ok"
    assert entry["why"].endswith("accepted: dag_00, dag_01")


def test_a_wait_for_a_heartbeat_is_printed_once_for_each_region(mwaa_dr: Shell) -> None:
    """The wait may take 15 seconds. The message is on stderr."""
    mwaa_dr.set.agents["us-east-1"].alive = False
    result = mwaa_dr("check", "--json")
    assert result.err.splitlines().count("us-east-1: waiting for a heartbeat (at most 5 s)") == 1
