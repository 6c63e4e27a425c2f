"""What a person sees: results on stdout, everything else on stderr, and the one question before a change."""

from __future__ import annotations

import json
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

from airflow_provider_mwaa_dr.cli.runtime import Runtime
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.documents import iso
from airflow_provider_mwaa_dr.core.failover import StepEvent
from airflow_provider_mwaa_dr.exceptions import DRError, RefusedError

T = TypeVar("T")

_RED, _PLAIN = "\033[31m", "\033[0m"
_COLOURS = re.compile(f"({re.escape(_RED)}|{re.escape(_PLAIN)})")


class UsageError(DRError):
    """The command was given in a way that it does not understand, or may not be carried out like this: exit code 2."""


class Outlet:
    """
    A standard stream whose failures end no command: the reader of a pipe is gone, a disk is full, a terminal is closed.

    All that a command prints passes here, and control characters are shown, not sent.

    A command's work and its exit code never depend on its output. Has the part of ``TextIO`` that ``print`` needs.

    :ivar error: why something could not be written; None while everything was.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        """Write *text*, if that is possible."""
        return self._try(lambda: self._stream.write(_shown(text))) or 0

    def flush(self) -> None:
        """Hand over what was written, if that is possible; Python keeps what a full disk does not take for later."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Whether a person reads the stream."""
        return bool(self._try(self._stream.isatty))

    def settle(self) -> None:
        """
        Hand over the rest, or drop it. Called last: what Python cannot flush when it ends changes the exit code to 120.
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
    Talks to whoever called.

    :param as_json: stdout gets exactly one JSON document.
    """

    def __init__(self, runtime: Runtime, *, as_json: bool) -> None:
        self._runtime = runtime
        self._as_json = as_json

    def result(self, document: Any, text: str) -> None:
        """Print the outcome: *document* for scripts, *text* for people."""
        print(json_text(document) if self._as_json else text, file=self._runtime.stdout, flush=True)

    def line(self, text: str) -> bool:
        """Print a line of a result that has no end on stdout; return whether anything reads it."""
        print(text, file=self._runtime.stdout, flush=True)
        return not _failed(self._runtime.stdout)

    def say(self, text: str) -> None:
        """Print a line on stderr, as it happens; one line, whatever is in *text*."""
        print(visible(text), file=self._runtime.stderr, flush=True)

    @contextmanager
    def steps(self) -> Iterator[Callable[[StepEvent], None]]:
        """
        Yield what prints a step of a failover when it moved on or is done, with the wall-clock time and its seconds.

        The lines are written by a thread: a pager, or a terminal that was stopped with Ctrl-S, blocks whoever writes to
        it, and a failover must not wait for that. All lines are written when the context ends.
        """
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def write() -> None:
            while (line := lines.get()) is not None:
                self.say(line)

        def step(event: StepEvent) -> None:
            if event.status != "started":
                mark = "..." if event.status == "progress" else "ok "
                at = iso(self._runtime.clock.now())
                lines.put(f"{at}  {mark} {event.name:<12} {event.seconds:6.1f} s  {event.detail}".rstrip())

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

    def alarm(self, text: str) -> str:
        """Return *text* as a result shows what must not be overlooked: red on a terminal (https://no-color.org)."""
        if not self._runtime.stdout.isatty() or self._runtime.environ.get("NO_COLOR"):
            return text
        return f"{_RED}{text}{_PLAIN}"

    def require_consent_is_possible(self, *, yes: bool) -> None:
        """
        Raise unless *yes*, or somebody can be asked.

        Called before anything else, so that a script without ``--yes`` fails the same way whatever the state is.

        :raises UsageError: exit code 2; nothing was changed.
        """
        if not yes and not self._runtime.stdin.isatty():
            raise UsageError(
                "This command needs a confirmation, and no terminal is attached to ask for it. Nothing was changed.",
                advice="Run it again with --yes, or with --dry-run to see what it would change.",
            )

    def ask(self, lines: Iterable[str], *, yes: bool) -> None:
        """
        Say what is going to happen and ask.

        :raises RefusedError: the answer was not yes, or nobody can read the question; nothing was changed.
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
        if self._runtime.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise RefusedError("The answer was not yes. Nothing was changed.")


def json_text(document: Any, *, indent: int | None = None) -> str:
    """Return a document as JSON in ASCII, without a control character in its texts; json leaves DEL as it is."""
    return json.dumps(document, indent=indent).replace("\x7f", "\\u007f")


def _shown(text: str) -> str:
    """Return what is sent of *text*: of its control characters only line breaks, tabs and the colours of an alarm."""
    return "".join(part if _COLOURS.fullmatch(part) else visible(part, keep="\n\t") for part in _COLOURS.split(text))


def _failed(stream: TextIO) -> bool:
    return isinstance(stream, Outlet) and stream.error is not None


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return *rows* in columns; the first one is the heading."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
