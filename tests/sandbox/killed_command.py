"""
``mwaa-dr``, killed by SIGKILL when it reports that a step is done: ``python killed_command.py STEP COMMAND ...``.

It runs the command itself, so only the moment of the kill differs from a kill by a user.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow_provider_mwaa_dr.cli import application
from airflow_provider_mwaa_dr.cli.console import Console
from airflow_provider_mwaa_dr.core.failover import StepEvent


def main() -> int:
    """Return the exit code of a command that never reached the step."""
    last, words = sys.argv[1], sys.argv[2:]
    steps = Console.steps

    @contextmanager
    def killing_steps(*arguments: Any, **options: Any) -> Iterator[Callable[[StepEvent], None]]:
        with steps(*arguments, **options) as show:

            def step(event: StepEvent) -> None:
                show(event)
                if (event.name, event.status) == (last, "done"):
                    os.kill(os.getpid(), signal.SIGKILL)

            yield step

    Console.steps = killing_steps  # type: ignore[method-assign]
    return application.main(words)


if __name__ == "__main__":
    sys.exit(main())
