"""Watchers of assets that read one queue: each message is handled once, and the oracle detects each missing rule."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.simulation.watcher_rules import WATCHER_RULES, Patch
from tests.simulation.watchers import run_history

HISTORIES = 40
SEARCHED = 200
"""The number of histories that are searched for one that goes wrong without a rule."""


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_each_message_is_handled_once_in_planned_failovers() -> None:
    """Watchers stop late, and triggerers read the state seldom or hang. Airflow creates runs with a delay."""
    handled = sum(len(run_history(seed)[0].runs_of) for seed in range(HISTORIES))
    assert handled >= 10 * HISTORIES, "messages have to arrive in these histories"


def run_some_histories() -> None:
    for seed in range(SEARCHED):
        run_history(seed)


@pytest.mark.parametrize(("weaken", "what"), WATCHER_RULES.items())
def test_a_history_goes_wrong_without_the_rule(weaken: Callable[[Patch], None], what: str, monkeypatch: Patch) -> None:
    """Each rule is necessary, and the oracle sees that."""
    weaken(monkeypatch)
    with pytest.raises(AssertionError, match=what):
        run_some_histories()
