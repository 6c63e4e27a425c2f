"""The environments of the DR set, and its active region."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from airflow_provider_mwaa_dr.core.ports import StateStore
from airflow_provider_mwaa_dr.core.sites import PAIRS, Site, Sites
from airflow_provider_mwaa_dr.core.state import DRState, may_be_region, why_unknown
from airflow_provider_mwaa_dr.exceptions import ConfigError, UnusableStateError


def environment_names(store: StateStore, configured: Mapping[str, str]) -> Sites:
    """
    Return the sites of the DR set, sorted by id: from the settings, or else from the registry in the state table.

    :raises ConfigError: both are empty.
    """
    sites = Sites.of(configured) or Sites(
        Site(id=site, environment=found.environment, aws_region=found.aws_region or site)
        for site, found in store.registrations().items()
    )
    if not sites:
        raise ConfigError(
            "The environments of the DR set are unknown: none are configured, and the registry is empty.",
            option="environments",
            advice=f"Set DR_ENVIRONMENTS to {PAIRS}, and run mwaa-dr init.",
        )
    return sites.sorted()


def known_region(region: str, names: Collection[str]) -> str:
    """Return *region* if it belongs to the DR set. :raises ConfigError: it does not; the error lists those that do."""
    if region not in names:
        raise ConfigError(
            f"Unknown region {region!r}; known are {', '.join(sorted(names)) or 'none'}.",
            option="environments",
            advice="Name one of them, or add the region to DR_ENVIRONMENTS.",
        )
    return region


def active_state(store: StateStore) -> DRState:
    """
    Return the state, if it names the active region.

    This reads two items: the state, and the item of the active region. It reads all regions only for the error.

    :raises UnusableStateError: a value cannot be used, or the active region is not registered.
    :raises StateNotFoundError: there is no state.
    """
    state = store.read()
    named = state.active_region
    registered = store.regions([named]) if may_be_region(named) else frozenset()
    if why_unknown(state, registered, region=named) is None:
        return state
    why = why_unknown(state, store.regions(), region=named)
    if why is None:
        return state  # the region was registered between the two reads
    raise UnusableStateError(f"No region has a role, and every region holds every run: {why}.")
