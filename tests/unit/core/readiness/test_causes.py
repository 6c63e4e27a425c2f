"""What many checks have in common is one finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from airflow_provider_mwaa_dr.core.ports import INVENTORIES
from airflow_provider_mwaa_dr.core.readiness.causes import Finding, findings
from airflow_provider_mwaa_dr.core.readiness.examination import Examination, examine
from airflow_provider_mwaa_dr.core.readiness.model import Verdict
from tests.unit.core.dr_set import A, B
from tests.unit.core.readiness.case import FAIL, WARN, forget
from tests.unit.core.readiness.ready import ReadySet


def examination(ready: ReadySet) -> Examination:
    environments = {region: ready.world.environments[region] for region in (A, B)}
    return examine(ready.world.store, ready.tables, environments, ready.world.clock, ready.config)


def found(ready: ReadySet) -> Sequence[Finding]:
    """Return the findings that need attention."""
    examined = examination(ready)
    return [each for each in findings(examined.facts, examined.results) if each.verdict is not Verdict.OK]


def by_name(ready: ReadySet) -> Mapping[str, Finding]:
    return {each.name: each for each in found(ready)}


def lose(ready: ReadySet, region: str) -> None:
    ready.world.environments[region].unreachable = True
    ready.world.agents[region].alive = False


def test_without_findings_every_check_is_listed(ready: ReadySet) -> None:
    """Nothing is hidden in a set in which each check passes."""
    examined = examination(ready)
    assert [each.name for each in findings(examined.facts, examined.results)] == [
        each.name for each in examined.results
    ]


@pytest.mark.parametrize(("region", "verdict"), [(A, WARN), (B, FAIL)])
def test_a_lost_region_is_one_finding(ready: ReadySet, region: str, verdict: Verdict) -> None:
    """The lost target refuses a failover; the lost source is a warning, with the command of the failover."""
    lose(ready, region)
    (finding,) = found(ready)
    assert (finding.name, finding.verdict) == (region, verdict)
    assert {"environment", "scheduler", "agents", "protocol", "leftovers"} <= set(finding.hides)
    assert (f"mwaa-dr failover {B} --reason TEXT" in finding.advice) is (region == A)


def test_another_finding_of_a_check_stays_with_the_advice_for_its_own_region(ready: ReadySet) -> None:
    """The target is lost, and the fence of the source is missing: the advice names the source's environment."""
    lose(ready, B)
    ready.heartbeat(A, fence_ok=False)
    fence = by_name(ready)["fence"]
    assert fence.why == f"tasks ended in {A} without the fence"
    assert f"mwaa-{A}" in fence.advice
    assert f"mwaa-{B}" not in fence.advice


def test_missing_inventories_are_one_finding(ready: ReadySet) -> None:
    """The comparisons have no finding of their own."""
    forget(ready, INVENTORIES)
    (finding,) = found(ready)
    assert finding.name == "inventory"
    assert {"settings", "imports", "code", "pools", "variables", "connections", "packages"} <= set(finding.hides)


def test_a_region_without_agents_is_one_finding(ready: ReadySet) -> None:
    """The environment answers: the advice is that of the check agents."""
    ready.world.agents[B].alive = False
    (finding,) = found(ready)
    assert (finding.name, finding.verdict) == ("agents", FAIL)
    assert "requirements_install" in finding.advice
    assert {"protocol", "ledger", "leftovers"} <= set(finding.hides)


def test_an_environment_without_answer_whose_agents_live_is_one_finding(ready: ReadySet) -> None:
    """MWAA's API may be down while Airflow runs."""
    ready.world.environments[B].unreachable = True
    (finding,) = found(ready)
    assert (finding.name, finding.verdict) == ("environment", FAIL)
    assert {"scheduler", "rights"} <= set(finding.hides)
