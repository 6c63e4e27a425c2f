"""The choice of bulk calls flips exactly the wanted DAGs, on a model of every version's server."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.aws.pause_plan import ALL, MAX_PATTERN, PAGE, Bulk, PauseCall, plan_calls
from airflow_provider_mwaa_dr.core.ports import DagInfo


class Server:
    """
    Bulk PATCH of one Airflow version, as its source has it; the paused filter is sent where it exists.

    :ivar touched: ids that were ever in another state than at the start.
    """

    def __init__(self, dags: Sequence[DagInfo], version: tuple[int, int]) -> None:
        self.version = version
        self.dags = {dag.dag_id: dag for dag in dags}
        self.touched: set[str] = set()
        self.calls = 0

    def carry_out(self, call: PauseCall, *, paused: bool) -> None:
        """Make a call, and make it again while a page was not all, as MwaaEnvironment does."""
        if call.pattern is None:
            self._flip(list(call.dag_ids), paused)
        elif self.version < (3, 0):
            self._flip(self._matches(call.pattern)[call.offset : call.offset + min(call.limit, PAGE)], paused)
        else:
            while matches := [one for one in self._matches(call.pattern) if self.dags[one].is_paused is not paused]:
                # In no order: any page will do.
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

# Few letters, and those with a meaning for ILIKE, so that ids contain and resemble each other.
DAG_IDS = st.lists(st.text("aAbB_-.1é", min_size=1, max_size=6) | st.just("x" * 70), unique=True, max_size=30)


def flip(dags: Sequence[DagInfo], wanted: set[str], paused: bool, version: tuple[int, int]) -> Server:
    """Return a server after the planned calls."""
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
    """Whatever the ids, their flags and the wish: exactly the wanted ones in the other state are ever touched."""
    dags = [DagInfo(dag_id=dag_id, is_paused=data.draw(st.booleans())) for dag_id in sorted(dag_ids)]
    wanted = {dag.dag_id for dag in dags if data.draw(st.booleans())}
    server = flip(dags, wanted, paused, version)
    assert server.touched == {dag.dag_id for dag in dags if dag.is_paused is not paused and dag.dag_id in wanted}


@pytest.mark.parametrize(("version", "most"), [((2, 10), 8), ((3, 0), 11), ((3, 2), 6), ((3, 3), 2)])
def test_all_but_the_exempt_takes_few_calls(version: tuple[int, int], most: int) -> None:
    """Pausing 500 DAGs beside one exempt costs a handful of calls."""
    dags = [DagInfo(dag_id=f"load_{number:03}", is_paused=False) for number in range(500)]
    dags = sorted([*dags, DagInfo(dag_id="dr_failover", is_paused=False)], key=lambda dag: dag.dag_id)
    server = flip(dags, {dag.dag_id for dag in dags} - {"dr_failover"}, True, version)
    assert server.calls <= most
    assert not server.dags["dr_failover"].is_paused


@pytest.mark.parametrize(("version", "most"), [((2, 10), 30), ((3, 0), 260), ((3, 2), 8), ((3, 3), 4)])
def test_scattered_exceptions_stay_paused(version: tuple[int, int], most: int) -> None:
    """Unpausing 480 of 500 DAGs around 20 that people paused costs far less than a call each where it can."""
    dags = [DagInfo(dag_id=f"load_{number:03}", is_paused=True) for number in range(500)]
    kept = {f"load_{number:03}" for number in range(7, 500, 25)}
    server = flip(dags, {dag.dag_id for dag in dags} - kept, False, version)
    assert {dag_id for dag_id, dag in server.dags.items() if dag.is_paused} == kept
    assert server.calls <= most


@pytest.mark.parametrize("bulk", Bulk)
def test_ten_thousand_dags_are_planned(bulk: Bulk) -> None:
    """A plan for 10,000 DAGs with 500 exceptions among them names every wanted one once and no exception."""
    dags = [DagInfo(dag_id=f"team_{number % 40:02}_pipeline_{number:05}", is_paused=True) for number in range(10_000)]
    dags.sort(key=lambda dag: dag.dag_id)
    wanted = {dag.dag_id for dag in dags} - {dag.dag_id for dag in dags[::20]}
    calls = plan_calls(dags, wanted, paused=False, bulk=bulk)
    assert sorted(dag_id for call in calls for dag_id in call.dag_ids) == sorted(wanted)


def test_id_too_long_for_its_own_path_goes_by_pattern() -> None:
    """Where a pattern can name one DAG alone, a long id does not need the web session."""
    dags = [DagInfo(dag_id="x" * 70, is_paused=True), DagInfo(dag_id="y", is_paused=True)]
    (call,) = plan_calls(dags, {"x" * 70}, paused=False, bulk=Bulk.PATTERN)
    assert call.pattern == "x"
