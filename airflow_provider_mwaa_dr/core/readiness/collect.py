"""Reads the facts about a DR set from the ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.environments import environment_names, known_region
from airflow_provider_mwaa_dr.core.failover.recorded_sets import dags_not_unpaused
from airflow_provider_mwaa_dr.core.heartbeats import beats, live_agents
from airflow_provider_mwaa_dr.core.identity import IdentityClaimWatch
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.ports import (
    FENCE_LOADS,
    IDENTITY_CLAIMS,
    INVENTORIES,
    RECORDS,
    SNAPSHOTS,
    UNPUBLISHED_EVENTS,
    Clock,
    DagSet,
    Environment,
    HeldTasks,
    StateStore,
    TableDescription,
    Tables,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.readiness.model import Facts, RegionFacts, Unknown, try_read
from airflow_provider_mwaa_dr.core.readiness.tables import state_advice
from airflow_provider_mwaa_dr.core.sites import Sites, is_aws_region
from airflow_provider_mwaa_dr.core.state import DRState, why_unknown
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import ConfigError, StaleStateError, UnreadableItemError

NO_VERSION = -1
"""
No state has this version. DynamoDB refuses a write on this condition, but only after IAM has allowed the write.
"""


def collect_facts(
    store: StateStore,
    tables: Tables,
    environments: Mapping[str, Environment],
    clock: Clock,
    settings: DRConfig,
    *,
    target: str | None,
    on_wait: Callable[[str], object],
) -> Facts:
    """
    Return the facts for a failover to *target*. Changes nothing.

    Parameters and errors are those of :func:`~airflow_provider_mwaa_dr.core.readiness.examination.examine`.
    """
    state = store.read()
    registered = try_read(store.regions)
    is_unknown = not isinstance(registered, Unknown) and why_unknown(state, registered, region="REGION") is not None
    active = state.active_region
    if is_unknown and active not in environments:
        active = _last_active(store, environments, besides=target) or active
    target = _target(active, target, environments, is_unknown=is_unknown)
    timing = Timing.from_config(settings)
    regions = (target, active)
    watch = IdentityClaimWatch(claim for region in regions for claim in store.find_all(IDENTITY_CLAIMS, region))
    live = live_agents(
        store.agents,
        beats(store.agents, regions),
        clock,
        silence_s=timing.agent_silence_s,
        poll_s=timing.poll_s,
        on_wait=on_wait,
    )
    at = clock.now()
    advice = f"Add {active} and the name of its environment to DR_ENVIRONMENTS."
    if is_unknown and not isinstance(registered, Unknown):
        advice = state_advice(state, registered, table=settings.state_table, target=target)

    def region_facts(region: str) -> RegionFacts:
        return replace(
            _ask(environments[region]) if region in environments else _without_environment(region, advice),
            agents=live[region],
            heartbeats=store.agents(region),
            identity_claims=watch.live(
                store.find_all(IDENTITY_CLAIMS, region), clock, silence_s=timing.agent_silence_s
            ),
            snapshot=_snapshot(store, region),
            unpublished=unpublished_of(store, region),
            inventory=_inventory(store, region),
            held_tasks=held_tasks_of(store, region, at),
        )

    source_facts, target_facts = region_facts(active), region_facts(target)
    records = try_read(partial(store.find_all, RECORDS))
    left = try_read(lambda: dags_not_unpaused(store, state))
    return Facts(
        state=state,
        at=at,
        settings=settings,
        silence_s=timing.agent_silence_s,
        source=source_facts,
        target=target_facts,
        may_flip=try_read(lambda: _try_write(store, state)),
        table=try_read(lambda: tables.describe(settings.state_table)),
        runs_table=_runs_table(tables, settings, (source_facts, target_facts)),
        records=records,
        registered=registered,
        unreadable=try_read(lambda: store.unreadable(regions)),
        dags_not_unpaused=() if isinstance(left, Unknown) else left,
        sites=_sites(store, settings, regions),
    )


def _sites(store: StateStore, settings: DRConfig, regions: Sequence[str]) -> Sites:
    """Return the sites from the settings, or from the registry if an id among *regions* does not tell its region."""
    if settings.sites or all(map(is_aws_region, regions)):
        return settings.sites
    found = try_read(lambda: environment_names(store, {}))
    return Sites() if isinstance(found, Unknown) else found


def _last_active(store: StateStore, environments: Mapping[str, Environment], *, besides: str | None) -> str | None:
    """
    Return the region that was active last, which is the one with the newest snapshot. None if there is no region.

    :param besides: the region to fail over to, if one was given.
    """
    regions = sorted(set(environments) - {besides})
    taken = [(snapshot.recorded_at, region) for region in regions if (snapshot := _snapshot(store, region)) is not None]
    return max(taken)[1] if taken else next(iter(regions), None)


def _target(active: str, target: str | None, environments: Mapping[str, Environment], *, is_unknown: bool) -> str:
    others = [region for region in environments if region != active]
    if is_unknown and others and target is None:
        # Any region may be the target: the first failure and its advice are the same for each.
        return min(others)
    if target is None:
        if len(others) != 1:
            raise ConfigError(
                f"Besides the active region {active}, the set has {' and '.join(others) or 'no region to check'}.",
                option="environments",
                advice="Name the region to check with --region." if others else "Add one to DR_ENVIRONMENTS.",
            )
        return others[0]
    if known_region(target, environments) == active:
        raise ConfigError(
            f"{target} is the active region; the region to check is the one to fail over to.",
            advice=f"Name one of these: {', '.join(others)}." if others else "Add one to DR_ENVIRONMENTS.",
        )
    return target


def _ask(environment: Environment) -> RegionFacts:
    """Return the facts from the environment itself. Changes nothing; after a call without an answer, makes no other."""
    description = try_read(environment.describe)
    status = description if isinstance(description, Unknown) else description.status
    silent: Unknown | None = None
    is_healthy: bool | Unknown | None = None
    if isinstance(status, Unknown):
        silent = status
    elif not status.is_usable:
        silent = Unknown(f"environment {environment.name} is {status.value}")
    else:
        is_healthy = try_read(environment.scheduler_is_healthy)
        silent = is_healthy if isinstance(is_healthy, Unknown) else None

    def try_change() -> bool:
        environment.try_change()
        return True

    return RegionFacts(
        region=environment.region,
        environment=environment.name,
        status=status,
        description=description,
        is_healthy=is_healthy,
        may_change=try_read(try_change) if silent is None else silent,
        dags=try_read(environment.dags) if silent is None else silent,
        agents=(),
    )


def _without_environment(region: str, advice: str) -> RegionFacts:
    """Return the facts about a region whose environment is not known."""
    unknown = Unknown(f"the environment of {region} is not named")
    return RegionFacts(
        region=region,
        environment=f"environment of {region}",
        status=unknown,
        description=unknown,
        is_healthy=None,
        may_change=unknown,
        dags=unknown,
        agents=(),
        advice=advice,
    )


def _snapshot(store: StateStore, region: str) -> DagSet | None:
    """Return the region's snapshot; None also if it cannot be read: a failover then treats it as missing."""
    with suppress(UnreadableItemError):
        return store.get(SNAPSHOTS, region)
    return None


def _inventory(store: StateStore, region: str) -> Inventory | Unknown:
    found = try_read(lambda: store.get(INVENTORIES, region))
    return Unknown("its agent has not written one") if found is None else found


def unpublished_of(store: StateStore, region: str) -> Unpublished | None:
    """Return what *region* could not take over; None also if the item cannot be read (the check ``items`` lists it)."""
    try:
        return store.get(UNPUBLISHED_EVENTS, region)
    except UnreadableItemError:
        return None


def held_tasks_of(store: StateStore, region: str, now: datetime) -> HeldTasks | None:
    """Return the current report of tasks that the fence of *region* holds; None also if the item cannot be read."""
    try:
        load = store.get(FENCE_LOADS, region)
    except UnreadableItemError:
        return None
    held = load.held if load is not None else None
    return held if held is not None and held.is_current(now) else None


def _runs_table(
    tables: Tables, settings: DRConfig, regions: Sequence[RegionFacts]
) -> TableDescription | Unknown | None:
    """Return DynamoDB's description of the runs table that the caller or a region has set; None if none is set."""
    names = [settings.runs_table]
    names += [
        each.inventory.options.get("runs_table", "") for each in regions if not isinstance(each.inventory, Unknown)
    ]
    name = next(filter(None, names), None)
    return None if name is None else try_read(lambda: tables.describe(name))


def _try_write(store: StateStore, state: DRState) -> bool:
    """Return True if the caller may write the state. The write never succeeds: no state meets its condition."""
    with suppress(StaleStateError):
        store.write(state, expected_version=NO_VERSION)
    return True
