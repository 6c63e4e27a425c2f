"""Output: results on stdout, all other lines on stderr; and the confirmation before a change."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

from airflow_provider_mwaa_dr.cli.patience import Patience
from airflow_provider_mwaa_dr.cli.runtime import Runtime
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.documents import iso
from airflow_provider_mwaa_dr.core.failover import StepEvent, StepStatus
from airflow_provider_mwaa_dr.exceptions import DRError, RefusedError

T = TypeVar("T")

NARROW = 60
"""A terminal with fewer columns gets no tables."""
_RED, _PLAIN = "\033[31m", "\033[0m"
_REWRITE, _CLEAR = "\r\033[K", "\033[H\033[2J"
"""Go back to the start of the line, and of the screen, and erase it."""
_COLOURS = re.compile(f"({'|'.join(map(re.escape, (_RED, _PLAIN, _REWRITE, _CLEAR)))})")
SAME_S = 10.0
"""Without a terminal, time between two lines that differ only in their numbers."""


class UsageError(DRError):
    """The arguments are wrong, or the command may not run with them: exit code 2."""


class Outlet:
    """
    A standard stream whose errors do not end the command: a closed pipe, a full disk, a closed terminal.

    All output of a command passes this class. It escapes control characters.

    The work and the exit code of a command never depend on its output. The class has the methods of ``TextIO`` that
    ``print`` needs.

    :ivar error: the last error of a write; None if all writes succeeded.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        """Write *text*, if that is possible."""
        return self._try(lambda: self._stream.write(_shown(text))) or 0

    def flush(self) -> None:
        """Flush, if that is possible. If a disk is full, Python keeps the text for a later flush."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return bool(self._try(self._stream.isatty))

    def close_safely(self) -> None:
        """
        Flush the rest, or discard it. Called last: if a flush fails while Python exits, the exit code changes to 120.
        """
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.error = error
            with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
                self._stream.flush()

    def _try(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except (OSError, ValueError) as error:  # ValueError: Python has closed the stream
            self.error = error
            return None


class Console:
    """
    Writes results and messages, and prompts for a confirmation.

    :param as_json: stdout gets exactly one JSON document.
    """

    def __init__(self, runtime: Runtime, *, as_json: bool) -> None:
        self._runtime = runtime
        self._as_json = as_json
        self._lock = threading.RLock()
        self._is_line_open = False
        self.patience = Patience(self.say, silence_s=runtime.silence_s)

    @property
    def columns(self) -> int | None:
        """The width of the terminal on stdout, at least 20; None if stdout is no terminal, and COLUMNS is not set."""
        chosen = self._runtime.environ.get("COLUMNS", "")
        if chosen.isdecimal() and int(chosen):
            return max(int(chosen), 20)
        return max(shutil.get_terminal_size((100, 0)).columns, 20) if self._runtime.stdout.isatty() else None

    def result(self, document: Any, text: str) -> None:
        """Print the result: *document* for scripts, *text* for users, whose lines are wrapped to the terminal."""
        shown = json_text(document) if self._as_json else wrapped(text, self.columns)
        print(shown, file=self._runtime.stdout, flush=True)
        self.patience.note_output()

    def line(self, text: str) -> bool:
        """Print a line of an endless result on stdout. Return whether the stream is still open."""
        print(text, file=self._runtime.stdout, flush=True)
        self.patience.note_output()
        return not _failed(self._runtime.stdout)

    def screen(self, text: str) -> bool:
        """Print the next state of an endless result; it replaces the last one on a terminal. Return as :meth:`line`."""
        is_terminal = _can_rewrite(self._runtime.stdout, self._runtime.environ)
        return self.line(
            f"{_CLEAR if is_terminal else ''}{wrapped(text, self.columns)}{'' if is_terminal else chr(10)}"
        )

    def say(self, text: str) -> None:
        """Print one line on stderr. Line breaks in *text* are escaped."""
        with self._lock:
            start = "\n" if self._is_line_open else ""
            self._is_line_open = False
            print(f"{start}{visible(text)}", file=self._runtime.stderr, flush=True)
            self.patience.note_output()

    def _say_in_place(self, text: str, *, replaces: bool, is_last: bool = False) -> None:
        """Print a line on a terminal's stderr, in place of the open line if it *replaces* that."""
        with self._lock:
            start = "" if not self._is_line_open else (_REWRITE if replaces else "\n")
            shown = visible(text) if is_last else visible(text)[: shutil.get_terminal_size((100, 0)).columns - 1]
            print(f"{start}{shown}", end="\n" if is_last else "", file=self._runtime.stderr, flush=True)
            self._is_line_open = not is_last
            self.patience.note_output()

    @contextmanager
    def steps(self, limits: Mapping[str, float]) -> Iterator[Callable[[StepEvent], None]]:
        """
        Yield a function that prints the progress or the end of a failover's step, with wall-clock time and duration.

        Progress that differs from the last line only in its numbers, such as a countdown, updates this line on a
        terminal. Without a terminal, a line is printed every ten seconds.

        A thread writes the lines. A pager, or a terminal that Ctrl-S stopped, blocks the writing thread, and a failover
        must not wait for it. All lines are written when the context ends.

        :param limits: the longest time of a step, in seconds, for a step that prints no progress.
        """
        lines: queue.SimpleQueue[tuple[str, bool, bool] | None] = queue.SimpleQueue()
        is_terminal = _can_rewrite(self._runtime.stderr, self._runtime.environ)
        shown: tuple[str, float] = "", 0.0

        def write() -> None:
            while (line := lines.get()) is not None:
                text, is_same, is_last = line
                if is_terminal:
                    self._say_in_place(text, replaces=is_same, is_last=is_last)
                else:
                    self.say(text)

        def step(event: StepEvent) -> None:
            nonlocal shown
            if event.status is StepStatus.STARTED:
                self.patience.set_outermost(f"the step {event.name}", limits.get(event.name))
                return
            is_progress = event.status is StepStatus.PROGRESS
            now = self._runtime.clock.monotonic()
            shape = f"{event.name} {re.sub(r'[0-9]+', '0', event.detail)}"
            is_same = shape == shown[0] if is_progress else shown[0].startswith(f"{event.name} ")
            if is_progress and is_same and not is_terminal and now - shown[1] < SAME_S:
                return
            shown = (shape if is_progress else ""), now
            at = iso(self._runtime.clock.now())
            text = f"{at}  {'...' if is_progress else 'ok '} {event.name:<12} {event.seconds:6.1f} s  {event.detail}"
            lines.put((text.rstrip(), is_same, not is_progress))

        writer = threading.Thread(target=write, name="mwaa-dr-steps", daemon=True)
        try:
            writer.start()
        except RuntimeError:
            self.say("This process cannot start another thread: the steps are shown at the end.")
        try:
            yield step
        finally:
            lines.put(None)
            if writer.ident is None:
                write()
            else:
                writer.join()
            if self._is_line_open:
                print(file=self._runtime.stderr, flush=True)
                self._is_line_open = False

    def alarm(self, text: str) -> str:
        """Return *text* as an alarm: red on a terminal (https://no-color.org)."""
        if not self._runtime.stdout.isatty() or self._runtime.environ.get("NO_COLOR"):
            return text
        return f"{_RED}{text}{_PLAIN}"

    def require_consent_is_possible(self, *, yes: bool) -> None:
        """
        Raise unless *yes* is set or stdin is a terminal.

        Called first, so that a script without ``--yes`` fails the same way in every state.

        :raises UsageError: exit code 2; nothing was changed.
        """
        if not yes and not self._runtime.stdin.isatty():
            raise UsageError(
                "This command needs a confirmation, and no terminal is attached to ask for it. Nothing was changed.",
                advice="Run it again with --yes, or with --dry-run to see what it would change.",
            )

    def ask(self, lines: Iterable[str], *, yes: bool) -> None:
        """
        Print *lines*, and prompt for a confirmation.

        :raises RefusedError: the answer was not yes, or the question could not be printed; nothing was changed.
        """
        for line in lines:
            self.say(line)
        if yes:
            return
        print("Continue? [y/N] ", end="", file=self._runtime.stderr, flush=True)
        if _failed(self._runtime.stderr):
            raise RefusedError(
                "The question could not be written to stderr. Nothing was changed.",
                advice="Run it again with --yes, or with --dry-run to see what it would change.",
            )
        with self.patience.asking():
            said = self._runtime.stdin.readline()
        self.patience.note_output()
        if said.strip().lower() not in {"y", "yes"}:
            raise RefusedError("The answer was not yes. Nothing was changed.")


def json_text(document: Any, *, indent: int | None = None) -> str:
    """Return a document as JSON in ASCII, with escaped control characters. The json module does not escape DEL."""
    return json.dumps(document, indent=indent).replace("\x7f", "\\u007f")


def _shown(text: str) -> str:
    """Return *text* with its control characters escaped, except line breaks, tabs and the colours of an alarm."""
    return "".join(part if _COLOURS.fullmatch(part) else visible(part, keep="\n\t") for part in _COLOURS.split(text))


def _can_rewrite(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether a line that was written to *stream* can be replaced."""
    return stream.isatty() and environ.get("TERM") != "dumb"


def _failed(stream: TextIO) -> bool:
    return isinstance(stream, Outlet) and stream.error is not None


def wrapped(text: str, columns: int | None) -> str:
    """
    Return *text* with its long lines wrapped at spaces, and indented as they are.

    A line that ends with a command is not wrapped, so that it can be copied.
    """
    return "\n".join(
        line
        if columns is None or len(_COLOURS.sub("", line)) <= columns or " mwaa-dr " in f" {line}"
        else textwrap.fill(
            line,
            columns + sum(map(len, _COLOURS.findall(line))),
            subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2),
            break_on_hyphens=False,
            break_long_words=False,
        )
        for line in text.split("\n")
    )


def table(rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """
    Return *rows* in columns; the first one is the heading.

    :param columns: of the terminal. If it has too few, each row is a block with a line for each cell.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    if columns is not None and sum(widths) + 2 * (len(widths) - 1) > columns:
        heads, label = rows[0], max(map(len, rows[0]))
        return "\n\n".join(
            "\n".join(f"{head.ljust(label)}  {cell}" for head, cell in zip(heads, row, strict=True)) for row in rows[1:]
        )
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
