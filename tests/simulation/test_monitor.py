"""Simulated hours of dr_monitor: no false failover, quick decisions, and the noise in which each missing rule shows."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import pytest

from tests.simulation.first_seed import first_seed
from tests.simulation.monitor import (
    DECIDED_S,
    NOISE,
    FalseFailoverError,
    Script,
    percentile,
    simulate_deaths,
    simulate_noise,
    summary,
    updates_that_become_invisible,
)
from tests.simulation.monitor_rules import MONITOR_RULES, Patch

HOURS = 2.0
SEARCHED = 5
"""The number of days that are searched for one in which the monitor decides wrongly without a rule."""
DEATHS = 100


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def first() -> int:
    """A fresh seed; ``FIRST=SEED`` in the environment repeats a run."""
    return first_seed(os.environ.get("FIRST"))


@pytest.mark.parametrize("noise", NOISE)
def test_noise_causes_no_failover(noise: Script, first: int) -> None:
    """``python -m tests.simulation.monitor`` simulates a day of each kind."""
    simulate_noise(noise, first, hours=HOURS)


def test_a_dead_region_is_left_within_45_seconds(first: int) -> None:
    """At random moments, with or without an answer of the service, in half of the cases schedulers first."""
    deaths = simulate_deaths(first, DEATHS)
    assert percentile(deaths, 0.95) <= DECIDED_S, f"First seed {first}: {summary(deaths)}"


def test_a_monitor_that_restarts_does_not_know_of_an_invisible_update() -> None:
    """Seed 1583095986: the service did not answer any more when the triggerer restarted, and schedulers were killed."""
    simulate_noise(updates_that_become_invisible, 1583095986, hours=HOURS)


def simulate_some_days(noise: Script) -> None:
    for seed in range(100, 100 + SEARCHED):
        simulate_noise(noise, seed, hours=24.0)


@pytest.mark.parametrize(("weaken", "noise"), MONITOR_RULES.items())
def test_a_working_region_is_left_without_the_rule(
    weaken: Callable[[Patch], None], noise: Script, monkeypatch: Patch
) -> None:
    """Each rule is necessary, and the simulation shows it."""
    weaken(monkeypatch)
    with pytest.raises(FalseFailoverError, match=noise.__name__):
        simulate_some_days(noise)
