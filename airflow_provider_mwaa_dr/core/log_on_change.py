"""Log or report a message when it changes, and not in each turn or poll that repeats it."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class LogOnChange(Generic[T]):
    """
    Remembers what was logged last, so that the caller logs only changes.

    :ivar value: the value that was logged last.
    :ivar before: the value before it, for a message that names both.

    :param value: the value that needs no message, for example None if there is no problem.
    """

    def __init__(self, value: T) -> None:
        self.value = self.before = value

    def changes_to(self, value: T) -> bool:
        """Store *value*; return whether it differs from the last one. The caller then logs it."""
        if value == self.value:
            return False
        self.before, self.value = self.value, value
        return True

    def forget(self, value: T) -> None:
        """Store *value*, for which nothing is logged."""
        self.before = self.value = value
