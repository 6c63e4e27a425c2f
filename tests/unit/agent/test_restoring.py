"""The leading agent of the target unpauses the recorded set of a plan in RESUMING, in its own database."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.ports import DAG_SETS, DagSet
from airflow_provider_mwaa_dr.core.state import Phase
from tests.unit.agent.test_loop import HERE, THERE, Region, plan, state

STUBBORN = "stubborn"


class Target(Region):
    """The target of a plan, whose agent has reconciled its runs. All its DAGs are paused."""

    def __init__(self) -> None:
        super().__init__(state(HERE))
        self.deployed = {"billing", "orders", "stock", STUBBORN}
        self.db.unpaused = ()
        self.db.set_paused = self._set_paused  # type: ignore[attr-defined]
        self.turn(2)

    def _set_paused(self, dag_ids: Collection[str], *, paused: bool) -> int:
        changed = self.deployed.intersection(dag_ids) - {STUBBORN}
        before = set(self.db.unpaused)
        self.db.unpaused = tuple(sorted(before - changed if paused else before | changed))
        return len(changed)

    def resume(self, *wanted: str, phase: Phase = Phase.RESUMING) -> None:
        """Write a plan to this region with the recorded set *wanted*."""
        self.store.peer().put(
            DAG_SETS, DagSet(id="s", region=THERE, recorded_at=self.clock.now(), dag_ids=tuple(wanted))
        )
        new = replace(self.state, version=self.state.version + 1, phase=phase, plan=replace(plan(HERE), set_id="s"))
        self.write(new)


@pytest.fixture
def target() -> Target:
    return Target()


def test_the_recorded_set_is_unpaused_and_published_with_the_version(target: Target) -> None:
    """The engine waits for the version. DAGs that are not in the set are paused."""
    target.db.unpaused = ("stock",)
    target.resume("billing", "orders")
    target.loop.turn()
    assert target.db.unpaused == ("billing", "orders")
    assert (target.status.restored_version, target.status.not_restored) == (target.state.version, 0)


def test_a_flag_that_changes_before_the_plan_ends_is_restored_again(target: Target) -> None:
    """A call of an engine that has lost the plan may arrive late."""
    target.resume("billing", "orders")
    target.loop.turn()
    target.db.unpaused = ("billing",)
    target.loop.turn()
    assert target.db.unpaused == ("billing", "orders")


@pytest.mark.parametrize("dag_id", ["not deployed", STUBBORN])
def test_a_dag_that_cannot_be_unpaused_is_counted(target: Target, dag_id: str) -> None:
    """The engine then lists the DAGs itself, and reports which they are."""
    target.resume("billing", dag_id)
    target.loop.turn()
    assert target.db.unpaused == ("billing",)
    assert target.status.not_restored == 1


@pytest.mark.parametrize("phase", [Phase.PROMOTING, Phase.DRAINING])
def test_nothing_is_unpaused_in_another_phase(target: Target, phase: Phase) -> None:
    """Before RESUMING, the source may still execute. After it, the flags belong to the users."""
    target.resume("billing", phase=phase)
    target.loop.turn()
    assert (target.db.unpaused, target.status.restored_version) == ((), None)


def test_nothing_is_unpaused_if_the_plan_ends_during_the_turn(target: Target) -> None:
    """A user may have paused a DAG since."""
    target.resume("billing", "orders")
    done = replace(target.state, version=target.state.version + 1, phase=Phase.STEADY, plan=None)

    def end(_: str) -> object:
        target.store._table.state = done
        return target.store.peer().get(DAG_SETS, "s")

    get = target.store.get
    target.store.get = lambda kind, item_id: end(item_id) if kind is DAG_SETS else get(kind, item_id)  # type: ignore
    target.loop.turn()
    assert (target.db.unpaused, target.status.restored_version) == ((), None)


def test_the_version_ends_with_the_plan(target: Target) -> None:
    """Another plan may become RESUMING later."""
    target.resume("billing")
    target.loop.turn()
    target.write(replace(target.state, version=target.state.version + 1, phase=Phase.STEADY, plan=None))
    target.loop.turn()
    assert target.status.restored_version is None


def test_an_agent_that_does_not_lead_unpauses_nothing(target: Target) -> None:
    """Its database lists an older scheduler."""
    target.db.schedulers = ("1", "7")
    target.resume("billing")
    target.loop.turn()
    assert target.db.unpaused == ()
