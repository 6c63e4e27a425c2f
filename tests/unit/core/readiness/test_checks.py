"""
The readiness checks: each passes in a good DR set, names what is wrong, and passes again after the user follows its
advice.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.config import CONTROL_TAG
from airflow_provider_mwaa_dr.core.readiness import dags, environments, tables, upgrade
from airflow_provider_mwaa_dr.core.readiness.checks import ADVISORY_CHECKS, NAMES
from airflow_provider_mwaa_dr.core.readiness.model import CONTROL_DAGS, Verdict
from airflow_provider_mwaa_dr.core.readiness.refusals import REFUSALS
from airflow_provider_mwaa_dr.exceptions import NotReadyError
from tests.unit.core.dr_set import A, B, request
from tests.unit.core.readiness import dag_cases, environment_cases, refusal_cases, table_cases, upgrade_cases
from tests.unit.core.readiness.case import FAIL, WARN, Case, accept
from tests.unit.core.readiness.ready import ReadySet

CASES = [
    *refusal_cases.CASES,
    *table_cases.CASES,
    *environment_cases.CASES,
    *dag_cases.CASES,
    *upgrade_cases.CASES,
    Case(
        check="accepted",
        spoil=accept("agents,nonsense:x,dags:y"),
        verdict=WARN,
        why="have no effect: agents, nonsense:x",
        advice="where CHECK is one of",
        fix=accept("dags:y"),
    ),
]


def test_everything_passes_in_a_good_set(ready: ReadySet) -> None:
    """Every check is OK, and the checks change nothing."""
    before = ready.world.state
    results = ready.results()
    assert {result.name: result.why for result in results.values() if result.verdict is not Verdict.OK} == {}
    assert set(results) == {*NAMES, "accepted"}
    assert all(result.why and not result.advice for result in results.values())
    assert ready.world.state == before
    changing = {"set_paused", "trigger", "stop_run"}
    assert not changing & {call[0] for region in (A, B) for call in ready.world.environments[region].calls}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_check_names_what_is_wrong_and_its_advice_fixes_it(ready: ReadySet, case: Case) -> None:
    """
    The check returns a verdict, a reason and advice. After the advice is followed, it passes with the region that is
    then active.
    """
    case.spoil(ready)
    result = ready.results()[case.check]
    assert (result.verdict, case.why in result.why) == (case.verdict, True), result
    assert result.advice
    if case.advice is not None and case.fix is not None:
        assert case.advice in result.advice, result
        case.fix(ready)
        assert ready.results()[case.check].verdict is Verdict.OK, ready.results()[case.check]


def test_every_check_is_among_the_cases() -> None:
    """Without a case, no test would show that a new check can fail."""
    assert {case.check for case in CASES} == {*NAMES, "accepted"}
    fixed = {case.check for case in CASES if case.fix is not None}
    assert fixed == {*NAMES, "accepted"}


def test_every_check_is_listed_once() -> None:
    """A check that ADVISORY_CHECKS does not list would never run."""
    defined = [
        check
        for module in (tables, environments, dags, upgrade)
        for name, check in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("check_") and check.__module__ == module.__name__
    ]
    assert sorted(map(str, defined)) == sorted(map(str, ADVISORY_CHECKS.values()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_check_and_failover_do_not_contradict_each_other(ready: ReadySet, case: Case) -> None:
    """The checks show each reason to refuse a failover, in the same words. Without such a reason it is not refused."""
    case.spoil(ready)
    results = ready.results()
    refused = ready.world.engine("preview").preview(request(B)).not_ready
    shown = "; ".join(results[refusal.name].why for refusal in REFUSALS if results[refusal.name].verdict is FAIL)
    assert all(why in shown for why in refused)
    assert bool(refused) == bool(shown) or results["state"].verdict is WARN


def test_a_failover_refuses_agents_of_another_protocol(ready: ReadySet) -> None:
    """They would misread some items of each other."""
    ready.heartbeat(B, protocol=2)
    with pytest.raises(NotReadyError, match="use protocol version 2"):
        ready.world.fail_over(B)


def test_no_value_is_ever_shown(ready: ReadySet) -> None:
    """Configuration options may be passwords. The checks show their names, and only compare their values."""
    ready.describe(A, options={"secrets.backend_kwargs": "hunter2", "smtp.smtp_password": "a"})
    ready.describe(B, options={"secrets.backend_kwargs": "hunter3"})
    shown = str(ready.results())
    assert "secrets.backend_kwargs" in shown
    assert "hunter" not in shown


def test_reports_that_cannot_be_read_fail_only_the_check_of_items(ready: ReadySet) -> None:
    """It names them. The checks of what the reports would say do not invent a finding."""
    for kind in ("UNPUBLISHED", "FENCE"):
        ready.world.store.damage(f"{kind}#{A}")
    results = ready.results()
    assert [name for name, result in results.items() if result.verdict is not Verdict.OK] == ["items"]
    assert f"UNPUBLISHED#{A}" in results["items"].why
    assert f"FENCE#{A}" in results["items"].why


def test_a_warning_beside_a_failure_does_not_soften_the_verdict(ready: ReadySet) -> None:
    """A name that only the source has refuses; a name that only the target has, found later, is only a warning."""
    ready.change(B, names={"pools": ("default_pool", "new"), "variables": ("bucket",), "connections": ("warehouse",)})
    result = ready.results()["pools"]
    assert result.verdict is FAIL
    assert "missing in us-east-1: etl" in result.why
    assert "missing in us-east-2: new" in result.why


def test_values_need_no_common_key_if_the_regions_share_no_name(ready: ReadySet) -> None:
    """Then there is no value to compare, so the missing key is no doubt."""
    ready.change(A, names={}, fingerprints={})
    ready.change(B, names={}, fingerprints={})
    assert ready.results()["pools"].verdict is Verdict.OK


def test_the_whole_of_a_check_can_be_accepted(ready: ReadySet) -> None:
    """For example, a smaller standby. But a reason to refuse a failover cannot be accepted."""
    ready.describe(B, max_workers=1, schedulers=1)
    ready.world.agents[B].alive = False
    ready.settings["accepted_differences"] = "capacity,agents"
    results = ready.results()
    assert results["capacity"].verdict is Verdict.OK
    assert results["capacity"].why.startswith("accepted: ")
    assert results["agents"].verdict is FAIL


def test_a_long_list_is_cut(ready: ReadySet) -> None:
    """The first ten names, and the number of the others."""
    for number in range(15):
        ready.world.environments[B].add_dag(f"extra_{number:02}", is_paused=True)
    assert ready.results()["dags"].why.endswith("extra_09 and 5 more")


def test_the_example_dags_with_the_control_tag_are_known() -> None:
    """Otherwise the check warns about an example DAG as if a user had made it exempt."""
    files = (Path(__file__).parents[4] / "example_dags").glob("*.py")
    assert {file.stem for file in files if f'"{CONTROL_TAG}"' in file.read_text()} == CONTROL_DAGS
