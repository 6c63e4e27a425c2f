"""Wait for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 180.0
"""The longest wait for a condition that takes a few seconds on an idle machine."""


def wait_until(condition: Callable[[], T], what: str | Callable[[], str], *, deadline_s: float = DEADLINE_S) -> T:
    """
    Return the first true value that *condition* returns. The condition is called often at first, then four times a
    second.

    :param what: the claim for the message if it does not come true in time, or a function that returns it.
    """
    deadline = time.monotonic() + deadline_s
    rest_s = 0.01
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= deadline:
            claim = what if isinstance(what, str) else what()
            raise AssertionError(f"Not so after {deadline_s:.0f} s: {claim}. Last seen: {found!r}")
        time.sleep(rest_s)
        rest_s = min(0.25, 2 * rest_s)
