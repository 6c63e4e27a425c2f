"""Which environments belong to the DR set."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from airflow_provider_mwaa_dr.core.ports import StateStore
from airflow_provider_mwaa_dr.exceptions import ConfigError


def environment_names(store: StateStore, configured: Mapping[str, str]) -> Mapping[str, str]:
    """
    Return environment name by region: as configured, else as registered in the state table.

    :raises ConfigError: neither names one.
    """
    names = configured or {region: found.environment for region, found in store.registrations().items()}
    if not names:
        raise ConfigError(
            "The environments of the DR set are not known: none are configured and the registry is empty.",
            option="environments",
            advice="Set DR_ENVIRONMENTS to REGION=NAME pairs separated by commas, and run mwaa-dr init.",
        )
    return dict(sorted(names.items()))


def known_region(region: str, names: Collection[str]) -> str:
    """Return *region* if it belongs to the DR set. :raises ConfigError: it does not; the known ones are named."""
    if region not in names:
        raise ConfigError(
            f"Unknown region {region!r}; known are {', '.join(sorted(names)) or 'none'}.",
            option="environments",
            advice="Name one of them, or add the region to DR_ENVIRONMENTS.",
        )
    return region
