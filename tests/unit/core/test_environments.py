"""The environments of a DR set, and the state of a set whose active region is known."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.environments import active_state, environment_names, known_region
from airflow_provider_mwaa_dr.core.ports import Registration
from airflow_provider_mwaa_dr.exceptions import ConfigError, UnusableStateError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock
from tests.unit.core.dr_set import A, B

FIRST = transitions.initial(A, lease_s=60, by="init", at=ManualClock().now())


def test_the_settings_name_the_environments_and_else_the_registry_does() -> None:
    """A caller without settings needs only the state table."""
    store = InMemoryStateStore()
    with pytest.raises(ConfigError, match="none are configured, and the registry is empty") as caught:
        environment_names(store, {})
    assert caught.value.option == "environments"
    store.register(Registration(region=B, environment="virginia"))
    store.register(Registration(region=A, environment="ohio"))
    assert list(environment_names(store, {}).items()) == [(B, "virginia"), (A, "ohio")]
    assert environment_names(store, {A: "configured"}) == {A: "configured"}


def test_a_region_that_is_not_in_the_set_is_refused_with_those_that_are() -> None:
    """A misspelled region is the most likely mistake in a command."""
    assert known_region(A, [A, B]) == A
    with pytest.raises(ConfigError, match=f"Unknown region 'us-est-2'; known are {B}, {A}"):
        known_region("us-est-2", [A, B])
    with pytest.raises(ConfigError, match="known are none"):
        known_region(A, [])


def test_a_region_that_is_registered_between_two_reads_counts_as_registered() -> None:
    """`mwaa-dr init` may run at the same time. The error would name a region that is registered."""

    class RegisteredMeanwhile(InMemoryStateStore):
        def regions(self, among: Collection[str] = ()) -> frozenset[str]:
            return frozenset() if among else frozenset({A, B})

    assert active_state(RegisteredMeanwhile(FIRST)) == FIRST


def test_the_state_of_an_unregistered_active_region_cannot_be_used() -> None:
    """Every region holds then, so no caller may take its runs for those of the active region."""
    assert active_state(InMemoryStateStore(FIRST, regions=(A, B))) == FIRST
    with pytest.raises(UnusableStateError, match=f"every region holds every run: .*{A}.* is not registered"):
        active_state(InMemoryStateStore(FIRST, regions=(B,)))
