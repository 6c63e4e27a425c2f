"""Can I fail over now, and what will it cost?"""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.core.readiness.answer import answer
from tests.unit.core.dr_set import A, B
from tests.unit.core.readiness.ready import ReadySet
from tests.unit.core.readiness.test_causes import examination, lose


def said(ready: ReadySet) -> str:
    examined = examination(ready)
    return answer(examined.facts, examined.results)


def test_both_regions_are_ready(ready: ReadySet) -> None:
    """The cost is the time without new runs. No run is repeated."""
    text = said(ready)
    assert text.startswith(f"Yes: {B} can take over from {A} now. Cost: no run starts while runs in progress finish")
    assert "(at most 60 s)" in text
    assert "the last failover took" in text
    assert "no run is repeated; 9 DAGs move." in text


def test_the_active_region_is_lost(ready: ReadySet) -> None:
    """The cost is the wait for the lease, and runs that may run again."""
    lose(ready, A)
    text = said(ready)
    assert text.startswith(f"Yes: {B} can take over from {A} now. Cost: no run starts for about 68 s, until the lease")
    assert "may run again" in text


def test_no_lease_stops_the_lost_region(ready: ReadySet) -> None:
    """The engine refuses a forced failover then."""
    ready.heartbeat(A, on_unreachable="run")
    lose(ready, A)
    assert said(ready).startswith(f"No: {A} does not answer, and no lease stops it.")


@pytest.mark.parametrize("lost", [[B], [A, B]])
def test_the_target_is_lost(ready: ReadySet, lost: list[str]) -> None:
    """The line names the checks that refuse."""
    for region in lost:
        lose(ready, region)
    assert said(ready) == (f"No: {B} cannot take over from {A} now. A failover would be refused: environment, agents.")


def test_a_failed_check_that_does_not_refuse_is_a_risk(ready: ReadySet) -> None:
    """The engine does not refuse for a missing DAG."""
    ready.world.environments[B].remove_dag("dag_00")
    assert said(ready) == f"Not without risk: a failover to {B} would not be refused, but checks fail: dags."


def test_without_a_runs_table_runs_are_not_resumed(ready: ReadySet) -> None:
    """The line does not promise what only a ledger can keep."""
    ready.settings["runs_table"] = ""
    for region in (A, B):
        ready.change(region, options={})
    text = said(ready)
    assert "interrupted runs are not resumed, because no runs table is set" in text
    assert "no run is repeated" not in text
