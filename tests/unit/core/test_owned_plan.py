"""The writes of an engine that owns a plan: when it repeats them, and when it gives up."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan
from airflow_provider_mwaa_dr.core.failover.table import StateTable
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import StateAccessError, StateUnreachableError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
from tests.unit.core.dr_set import TIMING, A, B, World


class Owner:
    """An engine that owns a plan in phase DRAINING."""

    def __init__(self) -> None:
        self.world = World.build()
        self.store: InMemoryStateStore = self.world.store.peer()
        self.plan = OwnedPlan(self.world.engine("first", store=self.store).context, "p", even_if_not_ready=False)
        state, at = self.world.state, self.world.clock.now()
        plan = Plan(
            id="p", source=A, target=B, mode=Mode.GRACEFUL, reason="r", by="ann", owner="first", started_at=at
        )  # fmt: skip
        self.plan.table.put(transitions.claim(state, plan, at=at), state.version)
        self.seen: list[int] = []

    @property
    def state(self) -> DRState:
        return self.world.state

    def turn_forced(self, row: DRState) -> DRState:
        """The transition that the engine writes."""
        self.seen.append(row.version)
        return transitions.turn_forced(row, at=self.world.clock.now())


@pytest.fixture
def owner() -> Owner:
    return Owner()


def test_a_write_for_a_phase_that_the_plan_has_left_is_a_no_op(owner: Owner) -> None:
    """An earlier write of the same engine may have moved the plan on, without a response."""
    before = owner.state
    assert owner.plan.write(Phase.PROMOTING, owner.turn_forced) == before
    assert (owner.state, owner.seen) == (before, [])


def test_a_write_that_is_stale_is_made_again_from_the_newer_state(owner: Owner) -> None:
    """Another caller has asked meanwhile that the plan stops the runs. Both changes count."""
    version = owner.state.version

    def write_first(_: DRState) -> None:
        owner.store.before_write = None
        harder = transitions.harden(owner.state, stops=True, forces=False, at=owner.world.clock.now())
        owner.world.store.write(harder, expected_version=version)

    owner.store.before_write = write_first
    written = owner.plan.write(Phase.DRAINING, owner.turn_forced)
    assert owner.seen == [version, version + 1]
    assert owner.state == written
    assert written.plan is not None
    assert (written.plan.is_forced, written.plan.stop_running, written.version) == (True, True, version + 2)


def test_a_write_is_repeated_until_the_table_answers(owner: Owner) -> None:
    """The engine has moved nothing yet, so a short outage only delays it."""
    owner.store.failing["write"] = StateUnreachableError("The table did not answer.")
    owner.world.clock.after(TIMING.state_s / 2, owner.store.failing.clear)
    written = owner.plan.write(Phase.DRAINING, owner.turn_forced)
    assert owner.state == written
    assert written.plan is not None
    assert written.plan.is_forced


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        pytest.param(StateUnreachableError("The table did not answer."), TIMING.state_s + 1, id="no answer"),
        pytest.param(StateAccessError("Access denied."), 1, id="no right"),
    ],
)
def test_a_write_that_stays_without_success_is_an_error(owner: Owner, error: Exception, attempts: float) -> None:
    """The engine gives up after ``state_s``. Without an open plan, it does not wait for a right that it lacks."""
    before = owner.state
    owner.store.failing["write"] = error
    began = owner.world.clock.monotonic()
    with pytest.raises(type(error)):
        owner.plan.write(Phase.DRAINING, owner.turn_forced)
    assert len(owner.seen) == attempts
    assert owner.world.clock.monotonic() - began == (attempts - 1) * TIMING.poll_s
    assert owner.state == before


def test_a_write_without_response_that_did_not_arrive_is_an_error(owner: Owner) -> None:
    """The state shows it: it has the same version as before. A caller may then try again."""
    before = owner.state
    table = StateTable(owner.store, owner.world.clock, TIMING)
    written_at = table.written_at
    owner.world.clock.advance(1)
    owner.store.failing["write"] = StateUnreachableError("The response of the write was lost.")
    new = transitions.beat(before, at=owner.world.clock.now())
    with pytest.raises(StateUnreachableError, match="was lost"):
        table.put(new, before.version)
    assert (owner.state, table.written_at) == (before, written_at)
    owner.store.failing.clear()
    table.put(new, before.version)
    assert (owner.state, table.written_at) == (new, owner.world.clock.monotonic())
