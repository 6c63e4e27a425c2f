"""
Failovers that halt for steps of users: nothing executes meanwhile, and the oracle detects each rule that is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.simulation.halt_rules import HALT_RULES, Patch
from tests.simulation.halts import run_history

HISTORIES = 60
SEARCHED = 200
"""The number of histories that are searched for one that goes wrong without a rule."""


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_nothing_executes_while_a_failover_is_halted_and_no_run_is_lost_or_repeated() -> None:
    """Tasks of the failover DAG are killed and retried, other callers intervene, regions fail, and halts expire."""
    worlds = [run_history(seed)[0] for seed in range(HISTORIES)]
    reached = {name for world in worlds for _, name in world.reached}
    assert {"halt in DRAINING", "halt in PROMOTING"} <= reached
    assert sum(world.steps for world in worlds) >= HISTORIES
    for what in ("intervened", "expired", "refused"):
        assert sum(getattr(world, what) for world in worlds), f"no history in which a halt is {what}"


def run_some_histories() -> None:
    for seed in range(SEARCHED):
        run_history(seed)


@pytest.mark.parametrize(("weaken", "what"), HALT_RULES.items())
def test_a_history_goes_wrong_without_the_rule(weaken: Callable[[Patch], None], what: str, monkeypatch: Patch) -> None:
    """Each rule is necessary, and the oracle sees that."""
    weaken(monkeypatch)
    with pytest.raises(AssertionError, match=what):
        run_some_histories()
