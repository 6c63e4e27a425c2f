"""
Two eventual modes: when two regions execute at once, and that the simulation would see it.

Each run simulates the same seeds, and as many fresh ones. ``DR_FIRST_SIMULATION=SEED`` repeats the fresh ones of an
earlier run, and ``DR_SIMULATIONS=3000`` simulates more of both.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.eventual import EventualStateStore
from airflow_provider_mwaa_dr.core.failover import FailoverEngine
from airflow_provider_mwaa_dr.core.ports import Observation
from tests.simulation.eventual import live_through
from tests.simulation.first_seed import first_seed

SIMULATIONS = int(os.environ.get("DR_SIMULATIONS", "300")) // 3
FRESH = first_seed(os.environ.get("DR_FIRST_SIMULATION"))


@pytest.mark.parametrize("mode", Eventual)
@pytest.mark.parametrize("seed", range(SIMULATIONS))
def test_two_regions_execute_at_once_only_where_somebody_insisted(seed: int, mode: Eventual) -> None:
    """Only with a region that was out of reach, and until it is back; in the end there is one state, and one region."""
    live_through(seed, mode)


@pytest.mark.parametrize("mode", Eventual)
def test_fresh_seeds_come_out_right_too(mode: Eventual, capsys: pytest.CaptureFixture[str]) -> None:
    """The first seed is printed, also by a run that passes; a wrong history says how to repeat it alone."""
    with capsys.disabled():
        print(f"\nThe first fresh seed ({mode.value}) is {FRESH}. To repeat: DR_FIRST_SIMULATION={FRESH}", flush=True)
    for seed in range(FRESH, FRESH + SIMULATIONS):
        live_through_fresh(seed, mode)


def live_through_fresh(seed: int, mode: Eventual) -> None:
    try:
        live_through(seed, mode)
    except BaseException as error:
        error.add_note(f"To repeat this history: DR_SIMULATIONS=3 DR_FIRST_SIMULATION={seed}")
        raise


Patch = pytest.MonkeyPatch


def without_refusing_a_source_that_cannot_be_seen(patch: Patch) -> None:
    patch.setattr(FailoverEngine, "_why_lease_is_ignored", lambda *_: None)
    patch.setattr(FailoverEngine, "_await_arrival", lambda _engine, _plan, _version, _lease_s, since: since)


def with_a_safe_region_that_lives_on_its_own_copy(patch: Patch) -> None:
    def observe(store: EventualStateStore, region: str) -> Observation:
        return store._from_first(lambda copy: copy.observe(region), first=region)[1]

    patch.setattr(EventualStateStore, "observe", observe)


def without_bringing_the_newer_epoch_back(patch: Patch) -> None:
    patch.setattr(EventualStateStore, "_bring_back", lambda *_: None)


def live_through_some(mode: Eventual, first: int) -> None:
    """Live through the history that is known to go wrong, and through others should it have changed."""
    for seed in (first, *range(600)):
        live_through(seed, mode)


@pytest.mark.parametrize(
    ("weaken", "mode", "first"),
    [
        (without_refusing_a_source_that_cannot_be_seen, Eventual.AVAILABLE, 0),
        (with_a_safe_region_that_lives_on_its_own_copy, Eventual.SAFE, 1),
        (without_bringing_the_newer_epoch_back, Eventual.AVAILABLE, 127),
    ],
)
def test_a_rule_that_is_taken_out_is_missed(
    weaken: Callable[[Patch], None], mode: Eventual, first: int, monkeypatch: Patch
) -> None:
    """Some history goes wrong without it."""
    weaken(monkeypatch)
    with pytest.raises(AssertionError, match="starts a run under epoch"):
        live_through_some(mode, first)
