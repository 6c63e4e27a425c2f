"""Histories count the cases that they reach, so it is known which case no history reaches."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.reach import ACTION, ACTIONS, FAULT, all_branches, known, with_branches
from tests.simulation.world import run_history


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_each_action_and_each_fault_that_is_counted_is_known() -> None:
    """Otherwise a misspelled name would make the known case look like one that no history reaches."""
    reached: Counter[tuple[str, str]] = Counter()
    for seed in range(25):
        reached.update(run_history(seed)[0].reached)
    names = {kind: {name for found, name in reached if found == kind} for kind in (ACTION, FAULT)}
    assert names[ACTION] <= set(ACTIONS)
    assert names[FAULT] <= known()[FAULT].keys()
    assert {"beat", "drained", "promote, graceful", "an engine completes"} <= names[ACTION]


def test_the_branches_that_a_history_takes_are_found() -> None:
    """
    They are in the complete list, the history is the same as without coverage, and it takes some branches but not all.
    """
    (world, verdict), taken = with_branches(lambda: run_history(1))
    again, verdict_again = run_history(1)
    assert (world.executions, verdict) == (again.executions, verdict_again)
    every = all_branches()
    assert taken.keys() < every.keys()
    assert len(taken) > len(every) / 4
    assert any(name.startswith("core/gate.py") for name in taken)
