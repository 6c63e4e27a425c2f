"""The facts that the checks examine: regions that are down, several standbys, a state that gives no region a role."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.ports import INVENTORIES, SNAPSHOTS, DagSet
from airflow_provider_mwaa_dr.core.readiness.checks import NAMES
from airflow_provider_mwaa_dr.core.readiness.examination import examine
from airflow_provider_mwaa_dr.core.readiness.model import Verdict
from airflow_provider_mwaa_dr.core.state import FieldProblem, Phase
from airflow_provider_mwaa_dr.exceptions import ConfigError, StateNotFoundError, StateUnreachableError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
from tests.unit.core.dr_set import A, B, C
from tests.unit.core.readiness.case import FAIL, dag, forget
from tests.unit.core.readiness.ready import ReadySet


@pytest.mark.parametrize("lost", [[A], [B], [A, B]], ids=["the active", "the standby", "both"])
@pytest.mark.parametrize("has_inventories", [True, False])
def test_the_checks_work_when_a_region_is_down(ready: ReadySet, lost: list[str], has_inventories: bool) -> None:
    """No check raises. A check names what is unknown, and a dead standby is a failure."""
    for region in lost:
        ready.world.environments[region].unreachable = True
        ready.world.agents[region].alive = False
    if not has_inventories:
        forget(ready, INVENTORIES)
    results = ready.results()
    assert set(results) == {*NAMES, "accepted"}
    failed = {result.name for result in results.values() if result.verdict is FAIL}
    assert failed == ({"environment", "agents"} if B in lost else set())
    for name in ("environment", "agents", "rights", "options", "capacity"):
        assert results[name].verdict is not Verdict.OK
        assert any(region in results[name].why for region in lost)
    assert (results["code"].verdict is Verdict.OK) is has_inventories


def test_a_lost_region_is_compared_by_its_last_inventory(ready: ReadySet) -> None:
    """During a disaster, there is no other source."""
    ready.world.environments[A].unreachable = True
    ready.world.agents[A].alive = False
    ready.world.environments[B].remove_dag("dag_00")
    dag(ready, B, "dag_01", source="older")
    results = ready.results()
    assert "to be unpaused, but missing in us-east-1: dag_00" in results["dags"].why
    assert "dag_01" in results["code"].why


def test_a_region_that_does_not_answer_is_called_once(ready: ReadySet) -> None:
    """Each call may take its whole deadline of ten seconds."""
    ready.world.environments[A].unreachable = True
    ready.world.environments[A].calls.clear()
    ready.results()
    assert ready.world.environments[A].calls == [("describe",)]


@pytest.mark.parametrize(
    ("target", "words"), [(A, "us-east-2 is the active region"), ("mars-1", "Unknown region 'mars-1'")]
)
def test_a_target_that_makes_no_sense_is_wrong_usage(ready: ReadySet, target: str, words: str) -> None:
    """No check is run."""
    with pytest.raises(ConfigError, match=words):
        ready.results(target=target)


def test_of_several_standbys_one_has_to_be_named(ready: ReadySet) -> None:
    """Each standby has its own result."""
    arguments = (ready.world.store, ready.tables, ready.world.environments, ready.world.clock, ready.config)
    with pytest.raises(ConfigError, match="us-east-1 and us-west-2"):
        examine(*arguments)
    assert examine(*arguments, target="us-west-2").target == "us-west-2"


def test_without_the_state_the_checks_raise(ready: ReadySet) -> None:
    """A table that does not answer, or that has no state item, must not become a list of warnings."""
    ready.world.store.unreachable = True
    with pytest.raises(StateUnreachableError):
        ready.results()
    ready.world.store = InMemoryStateStore()
    with pytest.raises(StateNotFoundError):
        ready.results()


@pytest.mark.parametrize("target", [A, B, None])
def test_an_active_region_that_is_not_registered_fails_the_check(ready: ReadySet, target: str | None) -> None:
    """The check names the value, and the command that corrects it."""
    ready.world.store._table.state = replace(ready.world.state, active_region="us-est-2")
    result = ready.results(target=target)["state"]
    assert result.verdict is Verdict.FAIL
    assert "active_region of the item ACTIVE_REGION is 'us-est-2'" in result.why
    assert f"mwaa-dr failover {target or B} --reason TEXT" in result.advice


@pytest.mark.parametrize("misspelled", ["us-est-2", "", "US-EAST-2"])
def test_the_advice_for_a_misspelled_region_is_to_correct_the_state_item(ready: ReadySet, misspelled: str) -> None:
    """Before the fix, the check recommended the MWAA console of the misspelled region."""
    ready.world.store.overwrite(replace(ready.world.state, active_region=misspelled))
    results = ready.results()
    assert results["state"].advice == (
        f"In the item ACTIVE_REGION of table state, set active_region to the region that executes ({B}, {A} or "
        f"{C}). Or give a region the role: mwaa-dr failover {B} --reason TEXT."
    )
    others = [result for name, result in results.items() if name != "state"]
    assert [result for result in others if result.verdict is not Verdict.OK] == []
    assert not any(misspelled and misspelled in result.why + result.advice for result in others)


def test_the_region_that_was_active_last_counts_as_the_source_of_a_misspelled_one(ready: ReadySet) -> None:
    """The region with the newest snapshot counts, not the first by name."""
    ready.world.agents[A].alive = False
    ready.world.clock.advance(5)
    newer = DagSet(id=B, region=B, recorded_at=ready.world.clock.now(), dag_ids=("dag_00",))
    ready.world.store.put(SNAPSHOTS, newer)
    ready.world.store.overwrite(replace(ready.world.state, active_region="us-est-2"))
    environments = {region: ready.world.environments[region] for region in (A, B)}
    found = examine(ready.world.store, ready.tables, environments, ready.world.clock, ready.config)
    assert (found.source, found.target) == (B, A)


@pytest.mark.parametrize(
    ("active", "advice"), [("us-est-2", "In the item ACTIVE_REGION of table state, set"), (A, "DR_ENVIRONMENTS")]
)
def test_no_console_is_recommended_for_a_region_without_an_environment(
    ready: ReadySet, active: str, advice: str
) -> None:
    """Only the target is named. The advice is to correct the item, or to name the environment of the active region."""
    ready.world.store.overwrite(replace(ready.world.state, active_region=active))
    environments = {B: ready.world.environments[B]}
    found = examine(ready.world.store, ready.tables, environments, ready.world.clock, ready.config, target=B)
    of_source = {each.name: each.advice for each in found.results if each.name in {"environment", "scheduler"}}
    assert set(of_source) == {"environment", "scheduler"}
    assert all(advice in each for each in of_source.values())
    assert not any("console" in each.advice for each in found.results)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        (
            {"problems": (FieldProblem("lease_s", "'nan'", "a number from 2 to 3600"),)},
            "In the item ACTIVE_REGION of table state, set lease_s to a number from 2 to 3600. Or give",
        ),
        ({"phase": Phase.PROMOTING}, f"Give a region the role: mwaa-dr failover {B} --reason TEXT."),
    ],
)
def test_an_unusable_value_in_the_state_is_named_with_what_is_allowed(
    ready: ReadySet, changes: dict[str, Any], advice: str
) -> None:
    """The advice names the field and the allowed values. A phase without its plan has no value to correct."""
    ready.world.store._table.state = replace(ready.world.state, **changes)
    assert ready.results()["state"].advice.startswith(advice)


def test_a_value_that_an_agent_cannot_act_on_fails_the_check(ready: ReadySet) -> None:
    """The value is in an item of the region, which only that region reads."""
    ready.heartbeat(B, held_because="reconciled_epoch is 'abc'")
    result = ready.results()["state"]
    assert (result.verdict, result.why) == (Verdict.FAIL, f"{B} holds every run: reconciled_epoch is 'abc'")
