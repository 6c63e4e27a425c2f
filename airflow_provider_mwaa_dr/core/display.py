"""
Texts for terminals and logs, with visible control characters.

A reason, a name or a note comes from a table that others write. Its control characters could clear a terminal's screen,
set its title or forge a line; in a log they could forge an entry.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_CONTROL = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1, which has a one-byte form of ESC [
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line separators, and characters that change the writing direction
    "\ud800-\udfff"  # surrogates, which are not characters
    "]"
)


def visible(text: object, *, keep: str = "") -> str:
    r"""
    Return *text* with each control character replaced by its escape: ESC becomes ``\x1b``.

    :param keep: control characters that are not replaced.
    """

    def escaped(found: re.Match[str]) -> str:
        character = found.group()
        return character if character in keep else character.encode("unicode_escape").decode()

    return _CONTROL.sub(escaped, str(text))


def counted(count: int, noun: str) -> str:
    """Return *count* with *noun*, which is a singular: ``1 run``, ``2 runs``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


_MORE = re.compile(r"and (\d+) more")


def shortened(entries: Sequence[str], most: int) -> list[str]:
    """
    Return the first *most* entries, and a last one ``and N more`` if there are others.

    An entry ``and N more`` of a list that another process has shortened counts as N.
    """
    own = [entry for entry in entries if not is_rest(entry)]
    more = max(0, len(own) - most) + sum(int(found[1]) for each in entries if (found := _MORE.fullmatch(each)))
    return [*own[:most], *([f"and {more} more"] if more else [])]


def is_rest(entry: str) -> bool:
    """Whether this is the last entry of a shortened list, and not an entry."""
    return _MORE.fullmatch(entry) is not None


def visible_document(document: T) -> T:
    """Return a JSON-like document in which all texts, including keys, are :func:`visible`."""
    found: Any = document
    if isinstance(found, str):
        found = visible(found)
    elif isinstance(found, Mapping):
        found = {visible_document(key): visible_document(value) for key, value in found.items()}
    elif isinstance(found, (list, tuple)):
        found = [visible_document(element) for element in found]
    return found  # type: ignore[no-any-return]


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module. The arguments and tracebacks of its records are :func:`visible`."""
    logger = logging.getLogger(name)
    logger.addFilter(_show)
    return logger


def _show(record: logging.LogRecord) -> bool:
    if isinstance(record.args, Mapping):
        record.args = {name: _shown(value) for name, value in record.args.items()}
    else:
        record.args = tuple(map(_shown, record.args or ()))
    if record.exc_info and not record.exc_text:
        record.exc_text = visible("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"), keep="\n")
    return True


def _shown(value: object) -> object:
    """Return an argument of a record: unchanged, or its visible text if it contains a control character."""
    if isinstance(value, (int, float)):
        return value
    text = str(value)
    return value if _CONTROL.search(text) is None else visible(text)
