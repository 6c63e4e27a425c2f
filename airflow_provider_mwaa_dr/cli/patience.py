"""No silence: after three seconds without output, a command says what it waits for and how long this can take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")

SILENCE_S = 3.0
"""The longest time without output."""
AGAIN_S = 10.0
"""Time between two lines about the same wait."""
POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Wait:
    """
    What a command waits for.

    :param at_most_s: the longest time that it may take; None if that is not known.
    """

    what: str
    at_most_s: float | None
    since: float


class Patience:
    """
    Says what the command waits for, while it is silent.

    :param say: prints one line.
    :param silence_s: the longest time without output; infinity switches the lines off.
    :param monotonic: seconds on a clock; tests pass their own.
    """

    def __init__(
        self, say: Callable[[str], object], *, silence_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._silence_s = silence_s
        self._monotonic = monotonic
        self._waits: list[Wait] = []
        self._last_output = self._monotonic()
        self._ended = threading.Event()
        self._is_asking = False

    def note_output(self) -> None:
        """The command has printed something."""
        self._last_output = self._monotonic()

    @contextmanager
    def waiting(self, what: str, at_most_s: float | None = None) -> Iterator[None]:
        """While the context is open, the command waits for *what*. The innermost wait counts."""
        wait = Wait(what, at_most_s, self._monotonic())
        self._waits.append(wait)
        try:
            yield
        finally:
            if wait in self._waits:  # the outermost may have been replaced
                self._waits.remove(wait)

    def set_outermost(self, what: str, at_most_s: float | None) -> None:
        """Replace the outermost wait; it begins now."""
        self._waits[:1] = [Wait(what, at_most_s, self._monotonic())]

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While the context is open, the command waits for the user, who knows that."""
        self._is_asking = True
        try:
            yield
        finally:
            self._is_asking = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for silence, in a thread, while the context is open. Without a thread, no line is printed."""
        self._ended.clear()
        watcher = threading.Thread(target=self._watch, name="mwaa-dr-patience", daemon=True)
        if self._silence_s != float("inf"):
            with suppress(RuntimeError):  # no other thread can be started
                watcher.start()
        try:
            yield
        finally:
            self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            self.look()

    def look(self) -> None:
        """Print a line if the command has been silent for long enough."""
        now, waits = self._monotonic(), list(self._waits)
        if self._is_asking or not waits or now - self._last_output < self._silence_s:
            return
        wait = waits[-1]
        so_far_s = now - wait.since
        # A wait that has just begun is not the reason for the silence; the wait around it is.
        if so_far_s < min(1.0, self._silence_s) and len(waits) > 1:
            wait = waits[-2]
            so_far_s = now - wait.since
        limit = f", at most {wait.at_most_s:.0f} s" if wait.at_most_s is not None else ""
        self._say(f"... waiting for {wait.what} ({so_far_s:.0f} s so far{limit})")
        # The next line about the same silence comes later.
        self._last_output = now + AGAIN_S - self._silence_s


class _Announced:
    """Calls the methods of another object, each as a wait."""

    def __init__(self, target: object, patience: Patience, what: str, at_most_s: float | None) -> None:
        self._target = target
        self._patience = patience
        self._what = what
        self._at_most_s = at_most_s

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **more: Any) -> Any:
            with self._patience.waiting(self._what, self._at_most_s):
                return found(*arguments, **more)

        return call


def announced(target: T, patience: Patience, what: str, at_most_s: float | None) -> T:
    """
    Return an object with the methods of *target*. Each call of one of them is a wait for *what*.

    :param at_most_s: the longest time of one call; None if that is not known.
    """
    return cast("T", _Announced(target, patience, what, at_most_s))
