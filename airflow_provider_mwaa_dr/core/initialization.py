"""The first state item and the registry of environments, which ``mwaa-dr init`` and the hook write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_provider_mwaa_dr.core.environments import known_region
from airflow_provider_mwaa_dr.core.ports import RECORDS, AgentStatus, Registration, RunsStore, StateStore
from airflow_provider_mwaa_dr.core.sites import Site, Sites
from airflow_provider_mwaa_dr.core.state import DRState, initial
from airflow_provider_mwaa_dr.exceptions import (
    ConfigError,
    RefusedError,
    StaleStateError,
    StateAccessError,
    StateError,
    StateNotFoundError,
    StateUnreachableError,
    TableNotFoundError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialization:
    """
    The items that an initialization must write.

    :param state: the stored state item, or the new one.
    :param is_new: whether *state* must be written.
    :param found: the state item that *state* replaces; None if there is none, or if it cannot be read.
    :param why_unreadable: why the stored state item cannot be read; None if it can, or if there is none.
    :param registrations: environments that are not in the registry, or have another name in it.
    :param replaced: the present names in the registry that *registrations* replace, by region.
    :param regions: the registered regions after the initialization.
    :param listing: regions whose own item does not list all of *regions* yet.
    """

    state: DRState
    is_new: bool
    found: DRState | None = None
    why_unreadable: str | None = None
    registrations: tuple[Registration, ...]
    replaced: Mapping[str, str]
    regions: frozenset[str]
    listing: tuple[str, ...]

    @property
    def changes_something(self) -> bool:
        """Whether the initialization changes the table."""
        return self.is_new or bool(self.registrations or self.listing)


def plan_initialization(
    store: StateStore,
    *,
    active_region: str | None,
    environments: Mapping[str, str],
    accounts: Mapping[str, str] | None = None,
    lease_s: float,
    by: str,
    at: datetime,
) -> Initialization:
    """
    Return the items that must be written. Changes nothing.

    :param active_region: required if there is no state item; otherwise it must be the stored active region, or None.
    :param environments: environment name by region, for every region of the DR set.
    :param accounts: known accounts by region; for other regions, the registry's account does not change.
    :raises ConfigError: *active_region* is missing, or *environments* does not contain it.
    :raises RefusedError: another region is active: only a failover changes that. Or an environment is registered under
        another id.
    """
    if active_region is not None:
        known_region(active_region, environments)
    try:
        state, is_new = store.read(), False
    except StateNotFoundError as error:
        if active_region is None:
            raise ConfigError(
                "There is no state item yet, and no active region was named.",
                option="active_region",
                advice=f"Name the region that runs today: --active {' or --active '.join(sorted(environments))}.",
            ) from error
        agents = [agent for region in sorted(environments) for agent in store.agents(region)]
        epoch, version = _after_heartbeats(active_region, agents)
        state = initial(active_region, lease_s=lease_s, by=by, at=at, epoch=epoch, version=version)
        is_new = True
    if active_region is not None and state.active_region != active_region:
        raise RefusedError(
            f"{state.active_region} is active already (epoch {state.epoch}), not {active_region}. Nothing was changed.",
            advice=f"To move the role: mwaa-dr failover {active_region} --reason TEXT.",
        )
    regions = store.regions().union(environments)
    return Initialization(
        state=state,
        is_new=is_new,
        regions=regions,
        listing=tuple(
            region
            for region in sorted(environments)
            if not regions <= (store.observe(region).registered or frozenset())
        ),
        **_registry(store, environments, accounts),
    )


def plan_above_every_epoch(
    store: StateStore,
    runs: RunsStore | None,
    *,
    active_region: str,
    environments: Mapping[str, str],
    accounts: Mapping[str, str] | None = None,
    lease_s: float,
    by: str,
    at: datetime,
) -> Initialization:
    """
    Return a state that is newer than every state that an agent has read. Changes nothing.

    This is for a state item that was restored from a backup or changed by hand: agents ignore a state that is older
    than their last one. Epoch and version are above those in the state item, in all heartbeats, in all records of
    failovers and in all regions' ledgers. An open plan is dropped.

    :param runs: the runs table; None if there is none.
    :raises ConfigError: *active_region* is not in *environments*.
    :raises StateError: an item that may contain a higher epoch could not be read.
    """
    known_region(active_region, environments)
    found, why_unreadable = None, None
    try:
        found = store.read()
    except StateNotFoundError:
        pass
    except (StateUnreachableError, StateAccessError, TableNotFoundError):
        raise
    except StateError as error:
        why_unreadable = error.message
    regions = store.regions().union(environments)
    agents = [agent for region in sorted(regions) for agent in store.agents(region)]
    epochs: list[int | None] = [record.epoch for record in store.find_all(RECORDS)]
    for agent in agents:
        epochs += agent.epoch, agent.adopted_epoch, agent.reconciled_epoch
    if runs is not None:
        for region in sorted(regions):
            epochs += _ledger_epochs(runs, region)
    if found is not None:
        epochs.append(found.epoch)
    epoch = max((epoch for epoch in epochs if epoch is not None), default=0) + 1
    version = max([found.version if found is not None else 0, *(agent.version for agent in agents)]) + 1
    return Initialization(
        state=initial(active_region, lease_s=lease_s, by=by, at=at, epoch=epoch, version=version),
        is_new=True,
        found=found,
        why_unreadable=why_unreadable,
        regions=regions,
        listing=tuple(sorted(environments)),
        **_registry(store, environments, accounts),
    )


def _ledger_epochs(runs: RunsStore, region: str) -> Sequence[int | None]:
    """Return the epochs in a region's ledger, also of entries that no agent can apply without the missing ones."""
    ledger = runs.checkpoint(region)
    number, epochs = ledger.number, [ledger.epoch, ledger.complete_before]
    while entries := runs.log(region, after=number):
        for entry in entries:
            epochs += entry.epoch, entry.complete_before
        number = entries[-1].number
    return epochs


def _registry(
    store: StateStore, environments: Mapping[str, str], accounts: Mapping[str, str] | None
) -> Mapping[str, Any]:
    """
    Return the missing parts of the registry, as fields of an :class:`Initialization`.

    :raises RefusedError: an environment is registered under another id.
    """
    known, sites = store.registrations(), Sites.of(environments).sorted()
    _require_one_id(sites, known)
    accounts = {region: found.account for region, found in known.items() if found.account} | dict(accounts or {})
    return {
        "registrations": tuple(
            registration
            for registration in (
                Registration(
                    region=site.id,
                    environment=site.environment,
                    account=accounts.get(site.id),
                    aws_region=site.aws_region if site.is_named else None,
                )
                for site in sites.all
            )
            if _differs(registration, known.get(registration.region))
        ),
        "replaced": {
            region: found.environment
            for region, found in known.items()
            if environments.get(region, found.environment) != found.environment
        },
    }


def _require_one_id(sites: Sites, known: Mapping[str, Registration]) -> None:
    """:raises RefusedError: one of *sites* is registered under another id."""
    registered = {(found.environment, found.aws_region or other): other for other, found in known.items()}
    for site in sites.all:
        other = registered.get((site.environment, site.aws_region), site.id)
        if other != site.id:
            same = Site(id=other, environment=site.environment, aws_region=site.aws_region)
            raise RefusedError(
                f"The environment {site.environment} ({site.aws_region}) is registered as {other}, not as {site.id}. "
                "Nothing was changed.",
                advice=f"Keep its id: write {same} in DR_ENVIRONMENTS.",
            )


def _differs(wanted: Registration, known: Registration | None) -> bool:
    """Whether *wanted* must be written. A missing account alone is no reason: nothing depends on it."""
    if known is None or (known.environment, known.aws_region) != (wanted.environment, wanted.aws_region):
        return True
    return known.account is not None and known.account != wanted.account


def _after_heartbeats(active_region: str, agents: Sequence[AgentStatus]) -> tuple[int, int]:
    """
    Return epoch and version of the first state. If heartbeats name a lost state, return those of its successor.

    A view never returns to an older state, so agents that read the lost state would ignore a state with a lower
    version. The region that was active keeps its epoch, and its runs continue. Another region gets the next epoch,
    which fences the former one.
    """
    epoch = max((agent.epoch for agent in agents), default=0)
    if any(agent.adopted_epoch == epoch and agent.region != active_region for agent in agents):
        epoch += 1
    version = max((agent.version for agent in agents), default=0) + 1
    return epoch, version


def initialize(store: StateStore, initialization: Initialization) -> None:
    """
    Write the items. Idempotent: after an interruption, the next plan has the remaining items.

    :raises StaleStateError: another caller first wrote a state with another active region, or, for a state above every
        epoch, any other state.
    """
    if initialization.why_unreadable is not None:
        store.overwrite(initialization.state)
    elif initialization.found is not None:
        store.write(initialization.state, expected_version=initialization.found.version)
    elif initialization.is_new:
        try:
            store.write(initialization.state, expected_version=None)
        except StaleStateError as error:
            found = error.found
            if not isinstance(found, DRState) or found.active_region != initialization.state.active_region:
                raise
    for registration in initialization.registrations:
        store.register(registration)
    for region in initialization.listing:
        store.put_regions(region, initialization.regions)
