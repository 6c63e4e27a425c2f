"""What a person sees: results on stdout, everything else on stderr, and the one question before a change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from airflow_provider_mwaa_dr.cli.world import World
from airflow_provider_mwaa_dr.core.documents import iso
from airflow_provider_mwaa_dr.core.failover import StepEvent
from airflow_provider_mwaa_dr.exceptions import DRError, RefusedError


class UsageError(DRError):
    """The command was given in a way that it does not understand, or may not be carried out like this: exit code 2."""


class Console:
    """
    Talks to whoever called.

    :param as_json: stdout gets exactly one JSON document.
    """

    def __init__(self, world: World, *, as_json: bool) -> None:
        self._world = world
        self._as_json = as_json

    def result(self, document: Any, text: str) -> None:
        """Print the outcome: *document* for scripts, *text* for people."""
        print(json.dumps(document) if self._as_json else text, file=self._world.stdout, flush=True)

    def say(self, text: str) -> None:
        """Print a line on stderr, as it happens."""
        print(text, file=self._world.stderr, flush=True)

    def step(self, event: StepEvent) -> None:
        """Print a step of a failover when it moved on or is done, with the wall-clock time and its seconds."""
        if event.status == "started":
            return
        mark = "..." if event.status == "progress" else "ok "
        at = iso(self._world.clock.now())
        self.say(f"{at}  {mark} {event.name:<12} {event.seconds:6.1f} s  {event.detail}".rstrip())

    def alarm(self, text: str) -> str:
        """Return *text* as a result shows what must not be overlooked: red on a terminal (https://no-color.org)."""
        if not self._world.stdout.isatty() or self._world.environ.get("NO_COLOR"):
            return text
        return f"\033[31m{text}\033[0m"

    def require_consent_is_possible(self, *, yes: bool) -> None:
        """
        Raise unless *yes*, or somebody can be asked.

        Called before anything else, so that a script without ``--yes`` fails the same way whatever the state is.

        :raises UsageError: exit code 2; nothing was changed.
        """
        if not yes and not self._world.stdin.isatty():
            raise UsageError(
                "This command changes something, and there is no terminal to ask on. Nothing was changed.",
                advice="Repeat with --yes, or look first with --dry-run.",
            )

    def ask(self, lines: Iterable[str], *, yes: bool) -> None:
        """Say what is going to happen and ask. :raises RefusedError: the answer was not yes; nothing was changed."""
        for line in lines:
            self.say(line)
        if yes:
            return
        print("Go on? [y/N] ", end="", file=self._world.stderr, flush=True)
        if self._world.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise RefusedError("The answer was not yes. Nothing was changed.")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return *rows* in columns; the first one is the heading."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
