"""Awaiting a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 180.0
"""How long a thing is waited for that takes a few seconds when the machine is idle."""


def wait_until(condition: Callable[[], T], what: str | Callable[[], str], *, deadline_s: float = DEADLINE_S) -> T:
    """
    Return what *condition* returns, once that is true; it is asked often at first, then four times a second.

    :param what: the claim that is waited for, for the message when it does not come true; or what returns it then.
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
