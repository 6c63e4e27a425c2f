"""Control characters are displayed, and never sent to a terminal or into a log."""

from __future__ import annotations

import io
import logging
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_mwaa_dr
from airflow_provider_mwaa_dr.core.display import get_logger, shortened, visible, visible_document

ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\r\n\t\u202etxt.exe\u2028"
SHOWN = r"\x1b[2J\x1b]0;title\x07\x9b31m\x7f\r\n\t\u202etxt.exe\u2028"


@pytest.fixture
def printed() -> Iterator[io.StringIO]:
    """Return what a handler prints for the records of the logger ``tests.display``."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = get_logger("tests.display")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)


def test_control_characters_become_escapes() -> None:
    """
    C0, DEL, C1, line separators, direction changes and lone surrogates are escaped; letters, emoji and backslashes are
    not.
    """
    assert visible(ESCAPES) == SHOWN
    assert visible("a\udcff") == r"a\udcff"
    assert visible("🔥 naïve — 日本 a\\b 👩‍🚒") == "🔥 naïve — 日本 a\\b 👩‍🚒"
    assert visible("a\nb\tc", keep="\n") == "a\nb\\tc"


def test_no_character_that_controls_a_terminal_is_left() -> None:
    """Every control character, surrogate and line separator of Unicode is escaped."""
    every = (chr(code) for code in range(sys.maxunicode + 1))
    controls = [character for character in every if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}]
    assert len(controls) > 2000
    assert all(visible(character).isascii() and visible(character).isprintable() for character in controls)


def test_a_document_is_shown_with_its_structure() -> None:
    """Texts and keys are escaped at any depth. Numbers and None stay unchanged."""
    document = {"a\x1b": ["b\x1b", {"c": ("d\x1b", None, 1, True)}]}
    assert visible_document(document) == {r"a\x1b": [r"b\x1b", {"c": [r"d\x1b", None, 1, True]}]}


def test_a_log_line_stays_one_line(printed: io.StringIO) -> None:
    """The arguments may come from a table: texts, errors, any object with a text. %d still takes numbers."""
    get_logger("tests.display").info("%s, %s, %r, %d, %.1f", ESCAPES, ValueError(ESCAPES), ESCAPES, 7, 1.5)
    assert printed.getvalue() == f"{SHOWN}, {SHOWN}, {visible(repr(visible(ESCAPES)))}, 7, 1.5\n"


def test_named_arguments_of_a_log_line_are_escaped(printed: io.StringIO) -> None:
    """Logging passes a single mapping on as the named arguments."""
    get_logger("tests.display").info("%(region)s has %(count)d", {"region": ESCAPES, "count": 7})
    assert printed.getvalue() == f"{SHOWN} has 7\n"


def test_a_traceback_sends_no_control_character(printed: io.StringIO) -> None:
    """A traceback ends with the message of the error."""
    try:
        raise ValueError(ESCAPES)
    except ValueError:
        get_logger("tests.display").exception("It failed")
    assert "Traceback" in printed.getvalue()
    assert r"ValueError: \x1b[2J\x1b]0;title\x07" in printed.getvalue()
    assert printed.getvalue().replace("\n", "").isprintable()


def test_every_module_gets_its_logger_from_display() -> None:
    """A logger that comes directly from logging would send control characters of its arguments."""
    package = Path(airflow_provider_mwaa_dr.__file__).parent
    found = {path.name for path in package.rglob("*.py") if "logging.getLogger(" in path.read_text()}
    assert found == {"display.py"}


def test_a_list_that_is_shortened_twice_says_how_many_entries_there_were() -> None:
    """An agent shortens its list, the item does it again, and so does the page."""
    assert shortened(["a", "b"], 2) == ["a", "b"]
    assert shortened(["a", "b", "c"], 2) == ["a", "b", "and 1 more"]
    assert shortened(["a", "b", "c", "and 10 more"], 1) == ["a", "and 12 more"]
    assert shortened(["a", "and 10 more"], 5) == ["a", "and 10 more"]
    assert shortened([], 0) == []
