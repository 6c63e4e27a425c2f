"""A case of a readiness check: one thing that is wrong, what the check says, and the fix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, TypeAlias

from airflow_provider_mwaa_dr.core import pausing
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.inventory import DagFacts
from airflow_provider_mwaa_dr.core.item_kind import ItemKind
from airflow_provider_mwaa_dr.core.ports import (
    FENCE_LOADS,
    IDENTITY_CLAIMS,
    INVENTORIES,
    SNAPSHOTS,
    UNPUBLISHED_EVENTS,
    FenceLoad,
    HeldTasks,
    IdentityClaim,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.readiness.model import Verdict
from airflow_provider_mwaa_dr.core.state import Mode, Plan
from airflow_provider_mwaa_dr.exceptions import StateAccessError
from tests.unit.core.dr_set import A, B
from tests.unit.core.readiness.ready import ReadySet, inventory

Change: TypeAlias = Callable[[ReadySet], object]

WARN, FAIL = Verdict.WARN, Verdict.FAIL


@dataclass(frozen=True, kw_only=True)
class Case:
    """
    One thing that is wrong.

    :param advice: words of the advice that :attr:`fix` follows; None if only time, or no action, fixes it.
    """

    check: str
    spoil: Change
    verdict: Verdict
    why: str
    advice: str | None = None
    fix: Change | None = None

    def __str__(self) -> str:
        return f"{self.check}: {self.why}"


def dag(ready: ReadySet, region: str, dag_id: str, **facts: object) -> None:
    """Change one DAG in a region's inventory."""
    found = ready.world.store.get(INVENTORIES, region)
    assert found is not None
    changed = replace(found.dags.get(dag_id, DagFacts(source="s", shape="x")), **facts)  # type: ignore[arg-type]
    ready.change(region, dags={**found.dags, dag_id: changed})


def claim(environment: str, problem: str) -> Change:
    """Let an agent in region B claim region A, once."""

    def change(ready: ReadySet) -> None:
        at = ready.world.clock.now()
        ready.world.store.put(
            IDENTITY_CLAIMS,
            IdentityClaim(region=A, environment=environment, aws_region=B, job="9", at=at, beat=1, problem=problem),
        )

    return change


def upgrade(region: str, **changes: object) -> Change:
    """Change what a region's agent lists for an upgrade."""

    def change(ready: ReadySet) -> None:
        found = ready.world.store.get(INVENTORIES, region)
        assert found is not None
        assert found.upgrade is not None
        ready.change(region, upgrade=replace(found.upgrade, **changes))  # type: ignore[arg-type]

    return change


def airflow(region: str, version: str) -> Change:
    """Change the version of Airflow in a region's inventory."""

    def change(ready: ReadySet) -> None:
        found = ready.world.store.get(INVENTORIES, region)
        assert found is not None
        ready.change(region, packages={**found.packages, "apache-airflow": version})

    return change


def drop(ready: ReadySet, kind: str, region: str) -> None:
    """Remove all names of one kind from a region's inventory."""
    found = ready.world.store.get(INVENTORIES, region)
    assert found is not None
    ready.change(region, names={**found.names, kind: ()})


def fingerprint(ready: ReadySet, region: str, kind: str, name: str, value: str, *, key_id: str = "k") -> None:
    """Change the fingerprint of one value."""
    found = ready.world.store.get(INVENTORIES, region)
    assert found is not None
    ((peer, prints),) = found.fingerprints.items()
    values = {**prints.values, kind: {**prints.values[kind], name: value}}
    ready.change(region, fingerprints={peer: replace(prints, values=values, key_id=key_id)})


def write_again(ready: ReadySet) -> None:
    """Write both inventories again, as the agents do a minute later."""
    for region, other in ((A, B), (B, A)):
        ready.world.store.put(INVENTORIES, inventory(region, other, ready.world.clock.now()))


def compare_again(ready: ReadySet) -> None:
    """Let the agent of B send a heartbeat without an error of its inventory."""
    ready.world.agents[B].changes.pop("inventory_error")
    ready.world.clock.advance(2)


def accept(what: str) -> Change:
    return lambda ready: ready.settings.update(accepted_differences=what)


def heartbeat(region: str, **changes: object) -> Change:
    return lambda ready: ready.heartbeat(region, **changes)


def hold_tasks(region: str) -> Change:
    """The fence of *region* reports that it holds tasks."""

    def change(ready: ReadySet) -> None:
        now = ready.world.clock.now()
        held = HeldTasks(since=now.replace(minute=0, second=0), at=now, why="no heartbeats")
        ready.world.store.put(FENCE_LOADS, FenceLoad(region=region, at=now, held=held))

    return change


def describe(region: str, **changes: object) -> Change:
    return lambda ready: ready.describe(region, **changes)


def environment(region: str, **changes: object) -> Change:
    def change(ready: ReadySet) -> None:
        for name, value in changes.items():
            setattr(ready.world.environments[region], name, value)

    return change


def refuse(*methods: str) -> Change:
    """Let the state table refuse the caller's calls of these methods."""

    def change(ready: ReadySet) -> None:
        for method in methods:
            ready.world.store.failing[method] = StateAccessError(f"Access denied for {method}.")

    return change


def grant(ready: ReadySet) -> None:
    """Let the state table accept all calls again."""
    ready.world.store.failing.clear()


def options(region: str, **changes: str) -> Change:
    def change(ready: ReadySet) -> None:
        found = ready.world.store.get(INVENTORIES, region)
        assert found is not None
        ready.change(region, options={**found.options, **changes})

    return change


def forget(ready: ReadySet, kind: ItemKind[Any]) -> None:
    table = ready.world.store._table
    table.items = {key: item for key, item in table.items.items() if not key.startswith(kind.prefix)}


def open_plan(ready: ReadySet) -> None:
    state, at = ready.world.state, ready.world.clock.now()
    plan = Plan(id="p", source=A, target=B, mode=Mode.AUTO, reason="r", by="ana", owner="o", started_at=at)
    ready.world.store.write(transitions.claim(state, plan, at=at), expected_version=state.version)


def pause_the_standby(ready: ReadySet) -> None:
    """``mwaa-dr pause us-east-1``."""
    world = ready.world
    pausing.pause(world.store, world.environments[B], at=world.clock.now(), exempt_dags=())


def lose_the_snapshot(ready: ReadySet) -> None:
    ready.world.agents[A].alive = False
    forget(ready, SNAPSHOTS)


def revive(region: str) -> Change:
    def change(ready: ReadySet) -> None:
        ready.world.agents[region].alive = True
        ready.world.clock.advance(2)

    return change


def kill(region: str) -> Change:
    return lambda ready: setattr(ready.world.agents[region], "alive", False)


def table(name: str, *regions: str, **arguments: object) -> Change:
    return lambda ready: ready.tables.add(name, *regions, **arguments)  # type: ignore[arg-type]


AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def unpublished(acknowledged_at: datetime | None) -> Callable[[ReadySet], object]:
    """The target became active without its ledger. *acknowledged_at*: when a user acknowledged it, or None."""
    found = Unpublished(
        id="u1", region=B, epoch=1, begun_epoch=0, at=AT, why="refused", first_id=1, acknowledged_at=acknowledged_at
    )  # fmt: skip
    return lambda ready: ready.world.store.put(UNPUBLISHED_EVENTS, found)
