"""The planned calls change exactly the wanted DAGs, on a model of the server of each Airflow version."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.aws.mwaa.pause_plan import ALL, MAX_PATTERN, PAGE, Bulk, PauseCall, plan_calls
from airflow_provider_mwaa_dr.core.ports import DagInfo


class Server:
    """
    The bulk PATCH of one Airflow version, modelled on its source code. The paused filter is used if the version has it.

    :ivar touched: ids that ever had another state than at the start.
    """

    def __init__(self, dags: Sequence[DagInfo], version: tuple[int, int]) -> None:
        self.version = version
        self.dags = {dag.dag_id: dag for dag in dags}
        self.touched: set[str] = set()
        self.calls = 0

    def carry_out(self, call: PauseCall, *, paused: bool) -> None:
        """Make a call, and repeat it until no page remains, as MwaaEnvironment does."""
        if call.pattern is None:
            self._flip(list(call.dag_ids), paused)
        elif self.version < (3, 0):
            self._flip(self._matches(call.pattern)[call.offset : call.offset + min(call.limit, PAGE)], paused)
        else:
            while matches := [one for one in self._matches(call.pattern) if self.dags[one].is_paused is not paused]:
                # The order is undefined, so use a random page.
                random.Random(len(matches)).shuffle(matches)
                self._flip(matches if self.version >= (3, 3) else matches[:PAGE], paused)

    def _matches(self, pattern: str) -> list[str]:
        terms = pattern.split("|") if self.version >= (3, 2) else [pattern]
        sources = [".*" if term == ALL else re.escape(term).replace("_", ".") for term in terms]
        return [dag_id for dag_id in self.dags if any(re.search(source, dag_id, re.IGNORECASE) for source in sources)]

    def _flip(self, dag_ids: Sequence[str], paused: bool) -> None:
        self.calls += 1
        for dag_id in dag_ids:
            if self.dags[dag_id].is_paused is not paused:
                self.touched.add(dag_id)
                self.dags[dag_id] = replace(self.dags[dag_id], is_paused=paused)


VERSIONS = [(2, 10), (3, 0), (3, 2), (3, 3)]

# Few letters, and characters with a meaning for ILIKE, so that ids are similar and contain each other.
DAG_IDS = st.lists(st.text("aAbB_-.1é", min_size=1, max_size=6) | st.just("x" * 70), unique=True, max_size=30)


def flip(dags: Sequence[DagInfo], wanted: set[str], paused: bool, version: tuple[int, int]) -> Server:
    """Make the planned calls, and return the server."""
    server = Server(dags, version)
    for call in plan_calls(dags, wanted, paused=paused, bulk=Bulk.of(version)):
        assert len(call.pattern or "") <= MAX_PATTERN
        server.carry_out(call, paused=paused)
    return server


@pytest.mark.parametrize("version", VERSIONS)
@given(dag_ids=DAG_IDS, data=st.data(), paused=st.booleans())
@settings(max_examples=150, deadline=None)
def test_planned_calls_flip_exactly_the_wanted(
    version: tuple[int, int], dag_ids: list[str], data: st.DataObject, paused: bool
) -> None:
    """For any ids and flags, the calls change exactly the wanted DAGs that are in the other state."""
    dags = [DagInfo(dag_id=dag_id, is_paused=data.draw(st.booleans())) for dag_id in sorted(dag_ids)]
    wanted = {dag.dag_id for dag in dags if data.draw(st.booleans())}
    server = flip(dags, wanted, paused, version)
    assert server.touched == {dag.dag_id for dag in dags if dag.is_paused is not paused and dag.dag_id in wanted}


@pytest.mark.parametrize(("version", "most"), [((2, 10), 8), ((3, 0), 11), ((3, 2), 6), ((3, 3), 2)])
def test_all_but_the_exempt_takes_few_calls(version: tuple[int, int], most: int) -> None:
    """To pause 500 DAGs but not one exempt DAG takes only a few calls."""
    dags = [DagInfo(dag_id=f"load_{number:03}", is_paused=False) for number in range(500)]
    dags = sorted([*dags, DagInfo(dag_id="dr_failover", is_paused=False)], key=lambda dag: dag.dag_id)
    server = flip(dags, {dag.dag_id for dag in dags} - {"dr_failover"}, True, version)
    assert server.calls <= most
    assert not server.dags["dr_failover"].is_paused


@pytest.mark.parametrize(("version", "most"), [((2, 10), 30), ((3, 0), 260), ((3, 2), 8), ((3, 3), 4)])
def test_scattered_exceptions_stay_paused(version: tuple[int, int], most: int) -> None:
    """
    To unpause 480 of 500 DAGs, but not 20 that users paused, takes far fewer calls than DAGs if the version allows it.
    """
    dags = [DagInfo(dag_id=f"load_{number:03}", is_paused=True) for number in range(500)]
    kept = {f"load_{number:03}" for number in range(7, 500, 25)}
    server = flip(dags, {dag.dag_id for dag in dags} - kept, False, version)
    assert {dag_id for dag_id, dag in server.dags.items() if dag.is_paused} == kept
    assert server.calls <= most


@pytest.mark.parametrize("bulk", Bulk)
def test_ten_thousand_dags_are_planned(bulk: Bulk) -> None:
    """A plan for 10,000 DAGs with 500 exceptions has every wanted DAG once, and no exception."""
    dags = [DagInfo(dag_id=f"team_{number % 40:02}_pipeline_{number:05}", is_paused=True) for number in range(10_000)]
    dags.sort(key=lambda dag: dag.dag_id)
    wanted = {dag.dag_id for dag in dags} - {dag.dag_id for dag in dags[::20]}
    calls = plan_calls(dags, wanted, paused=False, bulk=bulk)
    assert sorted(dag_id for call in calls for dag_id in call.dag_ids) == sorted(wanted)


def test_id_too_long_for_its_own_path_goes_by_pattern() -> None:
    """If a pattern matches only this DAG, a long id needs no web session."""
    dags = [DagInfo(dag_id="x" * 70, is_paused=True), DagInfo(dag_id="y", is_paused=True)]
    (call,) = plan_calls(dags, {"x" * 70}, paused=False, bulk=Bulk.PATTERN)
    assert call.pattern == "x"
