"""Pausing all DAGs of a region, and unpausing exactly those."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.core import pausing
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.ports import PAUSED_SETS
from airflow_provider_mwaa_dr.core.state import Mode, Plan
from airflow_provider_mwaa_dr.exceptions import IncompleteError, RefusedError
from airflow_provider_mwaa_dr.testing import FakeEnvironment, InMemoryStateStore, ManualClock
from tests.unit.core.dr_set import A, B

CLOCK = ManualClock()
AT = CLOCK.now()
FIRST = transitions.initial(A, lease_s=60, by="init", at=AT)


@pytest.fixture
def store() -> InMemoryStateStore:
    return InMemoryStateStore(FIRST, regions=(A, B))


@pytest.fixture
def region() -> FakeEnvironment:
    environment = FakeEnvironment(A, clock=CLOCK)
    for dag_id in ("billing", "orders"):
        environment.add_dag(dag_id)
    environment.add_dag("old", is_paused=True)
    return environment


def recorded(store: InMemoryStateStore) -> tuple[str, ...]:
    found = store.get(PAUSED_SETS, A)
    return () if found is None else tuple(found.dag_ids)


def test_a_second_pause_keeps_the_set_of_the_first(store: InMemoryStateStore, region: FakeEnvironment) -> None:
    """It finds no unpaused DAG, and must not record that there is none."""
    for _ in range(2):
        pausing.pause(store, region, at=AT)
        assert (region.unpaused, recorded(store)) == (set(), ("billing", "orders"))


def test_without_a_recorded_set_nothing_is_unpaused(store: InMemoryStateStore, region: FakeEnvironment) -> None:
    """A user paused these DAGs. The environment is not even asked for them."""
    pausing.pause(store, region, at=AT)
    pausing.unpause(store, region, at=AT)
    region.flip("orders", is_paused=True)
    region.calls.clear()
    assert pausing.unpause(store, region, at=AT).dag_ids == ()
    assert (region.unpaused, region.calls) == ({"billing"}, [])


def test_what_cannot_be_unpaused_stays_in_the_set(store: InMemoryStateStore, region: FakeEnvironment) -> None:
    """The same call continues later. A DAG that is not deployed at present stays as well."""
    pausing.pause(store, region, at=AT)
    region.stubborn.add("billing")
    with pytest.raises(IncompleteError) as caught:
        pausing.unpause(store, region, at=AT)
    assert set(caught.value.left) == {"billing"}
    assert (region.unpaused, recorded(store)) == ({"orders"}, ("billing",))
    region.stubborn.clear()
    pausing.unpause(store, region, at=AT)
    assert (region.unpaused, recorded(store)) == ({"billing", "orders"}, ())


@pytest.mark.parametrize("preview", [pausing.preview_pause, pausing.preview_unpause])
def test_an_open_failover_refuses_both(store: InMemoryStateStore, region: FakeEnvironment, preview: object) -> None:
    """The set that the failover recorded applies. The advice is the command that finishes it."""
    plan = Plan(id="p", source=A, target=B, mode=Mode.GRACEFUL, reason="r", by="ann", owner="o", started_at=AT)
    store.write(transitions.claim(FIRST, plan, at=AT), expected_version=1)
    with pytest.raises(RefusedError, match=r"Plan p is open \(DRAINING, .*\)\. Nothing was changed") as caught:
        preview(store, region)  # type: ignore[operator]
    assert f"mwaa-dr failover {B}" in caught.value.advice
