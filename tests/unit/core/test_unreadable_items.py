"""A failover with an unreadable item continues. Only what depends on the item is unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.failover.recorded_sets import dags_not_unpaused
from airflow_provider_mwaa_dr.core.failover.records import abort_other_records
from airflow_provider_mwaa_dr.core.ports import RECORDS, FailoverOutcome, FailoverRecord
from airflow_provider_mwaa_dr.core.state import Mode, Phase
from tests.unit.core.dr_set import WANTED, A, B, C, World, request


@pytest.fixture
def world() -> World:
    return World.build()


def detail(record: FailoverRecord, name: str) -> str:
    return next(step.detail for step in record.steps if step.name == name)


def lose(world: World, region: str) -> None:
    """Cut *region* off: it answers no call and writes nothing."""
    world.environments[region].unreachable = True
    world.agents[region].alive = False


def test_a_forced_failover_continues_without_an_unreadable_snapshot(world: World) -> None:
    """It names the item and unpauses nothing. Before the fix, it stopped after its claim, and both regions held."""
    lose(world, A)
    world.store.damage(f"SNAPSHOT#{A}", field="pages", found="'two'")
    record = world.fail_over(mode=Mode.FORCED)
    assert (record.outcome, world.state.active_region, world.state.phase) == ("completed", B, Phase.STEADY)
    text = detail(record, "record")
    assert f"Item SNAPSHOT#{A} of table memory cannot be read: field pages: found 'two'" in text
    assert "the failover unpauses no DAG" in text


def test_a_failover_continues_without_an_unreadable_wanted_set(world: World) -> None:
    """It asks the user to unpause by hand, as it does if the set is gone."""
    plans: list[str] = []

    def on_step(event: object) -> None:
        state = world.state
        if state.plan is not None and state.phase is Phase.PROMOTING and state.plan.set_id not in plans:
            plans.append(str(state.plan.set_id))
            world.store.damage(f"PAUSED#{state.plan.set_id}", field="id", found="nothing")

    record = world.engine("engine-1", on_step).run(request())
    assert (record.outcome, world.state.active_region) == ("completed", B)
    assert f"Item PAUSED#{plans[0]}" in detail(record, "unpause")
    assert f"unpause the DAGs that you want to run in {B}" in detail(record, "unpause")


def test_a_record_that_cannot_be_read_stops_no_failover_and_stays_as_it_is(world: World) -> None:
    """An old record of another version does not concern this failover."""
    world.store.damage("FAILOVER#20200101T000000Z-abcdef", field="mode", found="'swift'")
    record = world.fail_over()
    assert record.outcome == "completed"
    old = world.store.get(RECORDS, "20200101T000000Z-abcdef")
    assert old is not None
    assert old.unreadable is not None


def test_what_could_not_be_unpaused_stays_wanted_although_its_record_cannot_be_read(world: World) -> None:
    """The record and its set are unreadable, but the list of these DAGs is readable."""
    world.environments[B].stubborn = {"dag_01"}
    record = world.fail_over()
    world.environments[B].stubborn = set()
    world.store.damage(f"FAILOVER#{record.id}", field="mode", found="'swift'")
    world.store.damage(f"PAUSED#{world.state.not_unpaused_set_id}", field="pages", found="nothing")
    assert dags_not_unpaused(world.store, world.state) == ("dag_01",)
    abort_other_records(world.store, "another plan", at=world.clock.now())
    world.fail_over(A)
    assert world.environments[A].unpaused == WANTED | {"dr_failover"}


def test_a_heartbeat_that_cannot_be_read_is_no_acknowledgement(world: World) -> None:
    """The region lists this scheduler, so the engine waits for the lease, as it does for a silent scheduler."""
    world.agents[A].alive = False
    world.store.damage(f"AGENT#{A}#1", field="version", found="'4'")
    began = world.clock.monotonic()
    record = world.fail_over()
    assert record.outcome == "completed"
    assert world.clock.monotonic() - began > world.state.lease_s
    assert "not acknowledged" in detail(record, "drain")


def test_a_region_whose_registration_cannot_be_read_does_not_stop_a_failover(world: World) -> None:
    """The caller's settings name the environments."""
    for region in (A, B, C):
        world.store.damage(f"ENVIRONMENT#{region}", field="environment", found="[]")
    assert world.fail_over().outcome == "completed"


def test_the_engine_replaces_an_unreadable_record_of_its_own_plan(world: World) -> None:
    """The engine that owns the plan writes the record again."""
    record = world.fail_over()
    world.store.damage(f"FAILOVER#{record.id}", field="steps", found="5")
    world.store.put(RECORDS, replace(record, outcome=FailoverOutcome.COMPLETED))
    assert world.store.get(RECORDS, record.id) == record
