"""What histories reach is counted, and what no history reaches is known."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.reach import ACTION, ACTIONS, FAULT, all_branches, known, with_branches
from tests.simulation.world import live_through


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_each_action_and_each_fault_that_is_counted_is_known() -> None:
    """Else its name is misspelt in one of the two places, and the known one is listed as never reached."""
    reached: Counter[tuple[str, str]] = Counter()
    for seed in range(25):
        reached.update(live_through(seed)[0].reached)
    names = {kind: {name for found, name in reached if found == kind} for kind in (ACTION, FAULT)}
    assert names[ACTION] <= set(ACTIONS)
    assert names[FAULT] <= known()[FAULT].keys()
    assert {"beat", "drained", "promote, graceful", "an engine completes"} <= names[ACTION]


def test_the_branches_that_a_history_takes_are_found() -> None:
    """The names are those of the whole list, the history is the same as without, and it takes some and not all."""
    (world, verdict), taken = with_branches(lambda: live_through(1))
    again, verdict_again = live_through(1)
    assert (world.executions, verdict) == (again.executions, verdict_again)
    every = all_branches()
    assert taken.keys() < every.keys()
    assert len(taken) > len(every) / 4
    assert any(name.startswith("core/gate.py") for name in taken)
