"""
Tables with eventual consistency: when two regions execute at the same time, and that the simulation detects it.

``python -m tests.simulation --world available`` simulates fresh seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.eventual import EventualStateStore
from airflow_provider_mwaa_dr.core.failover import copies, lease_wait
from airflow_provider_mwaa_dr.core.ports import Observation
from tests.simulation.eventual import run_history

SIMULATIONS = 100


@pytest.mark.parametrize("mode", Eventual)
@pytest.mark.parametrize("seed", range(SIMULATIONS))
def test_two_regions_execute_at_the_same_time_only_after_even_if_not_ready(seed: int, mode: Eventual) -> None:
    """
    It happens only with a region that is out of reach, and only until it is back. In the end both copies have one
    state.
    """
    run_history(seed, mode)


def test_an_epoch_that_nobody_knows_any_more_stops_nobody() -> None:
    """
    A caller who cannot read the new active region's copy gives the role back, and that region's schedulers are lost.

    The first seed names a history with this case. The others are there in case that history has changed.
    """
    found = (run_history(seed, Eventual.AVAILABLE).trace for seed in (482319324, *range(2000)))
    assert any("No copy and no agent knows epoch" in line for trace in found for line in trace)


Patch = pytest.MonkeyPatch


def without_refusing_a_source_that_cannot_be_seen(patch: Patch) -> None:
    patch.setattr(copies, "why_lease_is_ignored", lambda *_: None)
    patch.setattr(lease_wait, "await_arrival", lambda _own, _plan, _version, _lease_s, since: since)


def with_a_safe_region_that_lives_on_its_own_copy(patch: Patch) -> None:
    def observe(store: EventualStateStore, region: str) -> Observation:
        return store._from_first(lambda copy: copy.observe(region), first=region)[1]

    patch.setattr(EventualStateStore, "observe", observe)


def without_bringing_the_newer_epoch_back(patch: Patch) -> None:
    patch.setattr(EventualStateStore, "_bring_back", lambda *_: None)


def run_some_histories(mode: Eventual, first: int) -> None:
    """Run the history that is known to go wrong, and then others, in case that history has changed."""
    for seed in (first, *range(600)):
        run_history(seed, mode)


@pytest.mark.parametrize(
    ("weaken", "mode", "first"),
    [
        (without_refusing_a_source_that_cannot_be_seen, Eventual.AVAILABLE, 0),
        (with_a_safe_region_that_lives_on_its_own_copy, Eventual.SAFE, 1),
        (without_bringing_the_newer_epoch_back, Eventual.AVAILABLE, 290),
    ],
)
def test_a_history_goes_wrong_without_the_rule(
    weaken: Callable[[Patch], None], mode: Eventual, first: int, monkeypatch: Patch
) -> None:
    """The seed names a history that is known to go wrong."""
    weaken(monkeypatch)
    with pytest.raises(AssertionError, match="starts a run under epoch"):
        run_some_histories(mode, first)
